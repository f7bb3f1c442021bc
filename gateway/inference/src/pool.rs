//! Connections to suppliers, kept between calls, each driven by the call that has it.
//!
//! A connection of `hyper` is usually driven by a task of its own, and its answer comes through a channel that holds one
//! piece: every event of a stream is then a switch between tasks and a write of its own. Here whoever reads the answer
//! drives the connection, so that what came with one read of the socket is passed on without anybody being woken.
//! While nobody has it, a connection is looked at from time to time, and one that the supplier closed is let go.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_service::Service;

use crate::connect::{Counted, Counting};

/// Idle connections kept per supplier.
const IDLE_CONNECTIONS: usize = 4_096;
/// How long one is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How often idle ones are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Pieces of an answer that nobody wants which are read all the same where they are there, for the sake of its connection.
const SPARED_PIECES: usize = 4;

type Sent = Full<Bytes>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// There is no connection.
    Connect,
    /// It broke, or what came is no HTTP.
    Transport,
}

/// Connections to all suppliers.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: HttpsConnector<Counting>,
    /// By the supplier's base URL, the last used at the back.
    idle: Mutex<HashMap<String, VecDeque<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    line: Box<Line>,
    since: Instant,
}

/// One connection.
#[derive(Debug)]
struct Line {
    sender: http1::SendRequest<Sent>,
    driver: http1::Connection<MaybeHttpsStream<Counted>, Sent>,
    /// The driver has ended.
    over: bool,
}

impl Line {
    /// Reads and writes what there is to.
    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error shows in the answer that it cuts off.
        self.over = self.over || Pin::new(&mut self.driver).poll(cx).is_ready();
    }

    async fn send(
        &mut self,
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Sent>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.over = self.over || Pin::new(&mut self.driver).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it would take another request now.
    fn is_free(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }
}

impl Pool {
    /// A pool that opens its connections with this connector. Call it in a runtime.
    pub(crate) fn new(connector: HttpsConnector<Counting>) -> Arc<Self> {
        let pool = Arc::new(Self { connector, idle: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// Sends a request and waits for the head of its answer. A kept connection that turns out to be closed before anything
    /// of the request was sent is replaced.
    pub(crate) async fn request(
        self: &Arc<Self>,
        base_url: &str,
        mut request: Request<Sent>,
    ) -> Result<Response<Answer>, NoAnswer> {
        let uri = std::mem::take(request.uri_mut());
        let host = uri.authority().ok_or(NoAnswer::Connect)?.as_str();
        let host = HeaderValue::from_str(host).map_err(|_| NoAnswer::Connect)?;
        request.headers_mut().insert(HOST, host);
        if let Some(path) = uri.path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        loop {
            let (mut line, kept) = match self.take(base_url) {
                Some(line) => (line, true),
                None => (self.connect(uri.clone()).await?, false),
            };
            match line.send(request).await {
                Ok(response) => {
                    let (pool, base_url) = (Arc::clone(self), base_url.to_owned());
                    return Ok(response.map(|body| Answer { body, line: Some(line), pool, base_url }));
                }
                Err(mut unsent) => match unsent.take_message() {
                    Some(again) if kept => request = again,
                    _ => return Err(NoAnswer::Transport),
                },
            }
        }
    }

    async fn connect(&self, uri: Uri) -> Result<Box<Line>, NoAnswer> {
        let mut connector = self.connector.clone();
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(|_| NoAnswer::Connect)?;
        let socket = connector.call(uri).await.map_err(|_| NoAnswer::Connect)?;
        let (sender, driver) = http1::handshake(socket).await.map_err(|_| NoAnswer::Connect)?;
        Ok(Box::new(Line { sender, driver, over: false }))
    }

    fn take(&self, base_url: &str) -> Option<Box<Line>> {
        loop {
            let mut line = self.idle.lock().get_mut(base_url)?.pop_back()?.line;
            if line.is_free() {
                return Some(line);
            }
        }
    }

    fn keep(&self, base_url: String, mut line: Box<Line>) {
        if !line.is_free() {
            return;
        }
        let mut idle = self.idle.lock();
        let lines = idle.entry(base_url).or_default();
        if lines.len() < IDLE_CONNECTIONS {
            lines.push_back(Idle { line, since: Instant::now() });
        }
    }

    /// Lets go of what was not used for long, or was closed.
    fn tidy(&self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        self.idle.lock().retain(|_, lines| {
            for mut idle in std::mem::take(lines) {
                if now.duration_since(idle.since) < IDLE_TIME && idle.line.is_free() {
                    lines.push_back(idle);
                } else {
                    gone.push(idle);
                }
            }
            !lines.is_empty()
        });
    }
}

/// Tidies as long as there is a pool.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match pool.upgrade() {
            Some(pool) => pool.tidy(),
            None => return,
        }
    }
}

/// The body of an answer; reading it drives its connection, which goes back to the pool at its end. Dropping it before
/// cancels the call: the connection is closed, unless the end is there already.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    line: Option<Box<Line>>,
    pool: Arc<Pool>,
    base_url: String,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(line) = &mut self.line
        {
            line.drive(cx);
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(None) => {
                if let Some(line) = self.line.take() {
                    let base_url = std::mem::take(&mut self.base_url);
                    self.pool.keep(base_url, line);
                }
            }
            Poll::Ready(Some(Err(_))) => self.line = None,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.line.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..SPARED_PIECES {
            if self.line.is_none() {
                return;
            }
            match Pin::new(&mut *self).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                _ => return,
            }
        }
    }
}
