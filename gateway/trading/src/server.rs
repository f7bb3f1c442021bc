//! The listener: connections in, one router behind them, every limit applied, ended without cutting anyone off.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::answer::ApiError;
use crate::app::{App, RateSlot, RequestedPath, refuse_large};
use crate::config::Limits;

/// Longest wait for requests in progress when the listener ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A listener that is serving.
pub struct RunningTier {
    /// Where.
    pub addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl RunningTier {
    /// Stops accepting, lets requests in progress finish, returns when all is closed.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

/// Binds an address and serves the Trading and Platform APIs on it until told to stop.
pub async fn serve(addr: SocketAddr, app: App) -> std::io::Result<RunningTier> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept(listener, app, stopped));
    Ok(RunningTier { addr, stop, task })
}

async fn accept(listener: TcpListener, app: App, mut stopped: watch::Receiver<bool>) {
    let limits = Arc::new(app.limits().clone());
    let metrics = app.metrics();
    let router = crate::api::router(app);
    let graceful = GracefulShutdown::new();
    let seats = Arc::new(Semaphore::new(limits.connections_max));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes_max.max(8_192))
        .max_headers(limits.headers_max);
    loop {
        let seat = tokio::select! {
            seat = Arc::clone(&seats).acquire_owned() => seat.expect("the semaphore is never closed"),
            () = told(&mut stopped) => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: pause, so that the loop doesn't spin while others close.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = told(&mut stopped) => break,
        };
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let shared = Arc::clone(&limits);
        let metrics = metrics.clone();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let router = router.clone();
            let limits = Arc::clone(&shared);
            let metrics = metrics.clone().filter(|_| asks_for_metrics(&request));
            async move {
                Ok::<_, std::convert::Infallible>(match metrics {
                    Some(text) => metrics_answer(text()),
                    None => dispatch(router, &limits, request).await,
                })
            }
        });
        let io = TokioIo::new(Patient::new(stream, &limits));
        let connection = graceful.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            // Whatever ends a connection early is the client's affair: garbage, a timeout, a reset.
            let _ = connection.await;
            drop(seat);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await;
}

/// Resolves once the listener is told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn asks_for_metrics(request: &Request<hyper::body::Incoming>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/metrics"
}

fn metrics_answer(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Takes the path's generation off, routes, and adds what every answer carries.
async fn dispatch(mut router: Router, limits: &Limits, request: Request<hyper::body::Incoming>) -> Response {
    let mut request = request.map(Body::new);
    // Before anything else that may refuse: a client that is still sending megabytes reads the answer only if
    // somebody takes them from it.
    if let Err(error) = refuse_large(&mut request, limits) {
        return error.into_response();
    }
    let Some(path) = current_path(request.uri().path()) else {
        return ApiError::not_found("NOT_FOUND").into_response();
    };
    let query = request.uri().query();
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let requested = RequestedPath(request.uri().path().to_owned());
    match Uri::try_from(target) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return ApiError::not_found("NOT_FOUND").into_response(),
    }
    let slot = RateSlot::default();
    request.extensions_mut().insert(requested);
    request.extensions_mut().insert(slot.clone());
    let mut response = match tower_call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    slot.describe(response.headers_mut());
    response
}

async fn tower_call(
    router: &mut Router,
    request: Request<Body>,
) -> Result<Response, std::convert::Infallible> {
    use hyper::service::Service;
    hyper_util::service::TowerToHyperService::new(router.clone()).call(request).await
}

/// `/v1/X`, `/v1/trading/X`, `/api/v1/X` and `/api/v1/trading/X` are all `/X` (contract §5).
fn current_path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1")?;
    let rest = match rest.strip_prefix("/trading") {
        Some(deeper) if deeper.starts_with('/') => deeper,
        _ => rest,
    };
    let rest = if rest.len() > 1 { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
    rest.starts_with('/').then_some(rest)
}

/// Answers for paths and methods that nothing serves.
pub(crate) async fn unknown_path() -> ApiError {
    ApiError::not_found("NOT_FOUND")
}

/// 405 in the envelope.
pub(crate) async fn unknown_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path does not know that method")
}

/// A stream whose peer must read what it is sent within a time, so that a client that stopped reading gives its
/// connection back.
struct Patient {
    stream: TcpStream,
    timeout: Duration,
    /// Runs while a write waits for the peer.
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, limits: &Limits) -> Self {
        Self { stream, timeout: limits.write_timeout, waiting: None }
    }

    fn judge<T>(&mut self, poll: Poll<std::io::Result<T>>, cx: &mut Context<'_>) -> Poll<std::io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let timeout = self.timeout;
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(poll, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::current_path;

    #[test]
    fn all_path_generations_are_the_same_resource() {
        for path in
            ["/v1/orders", "/v1/trading/orders", "/api/v1/orders", "/api/v1/trading/orders", "/v1/orders/"]
        {
            assert_eq!(current_path(path), Some("/orders"), "{path}");
        }
        assert_eq!(current_path("/v1/trading-accounts"), Some("/trading-accounts"));
        assert_eq!(current_path("/v1/trading/trading-accounts"), Some("/trading-accounts"));
        for path in ["/", "/v1", "/orders", "/v2/orders", "/v1orders", "/api/orders", "*", ""] {
            assert_eq!(current_path(path), None, "{path}");
        }
    }
}
