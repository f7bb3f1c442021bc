//! The least that a proxy on the same building blocks can do: `hyper` in, its pooled client out, bytes as they come. No
//! key, no reservation, no meter. What our tier takes beyond this is the price of its work.

use std::net::{Ipv4Addr, SocketAddr};

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::Failure;

type Upstream = Client<HttpConnector, Incoming>;

pub(super) fn run(supplier: SocketAddr) -> Result<(), Failure> {
    // As many workers as our tier has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("proxy").build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        super::ready(listener.local_addr()?)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Upstream =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(20_000).build(connector);
        let (end, mut ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            super::until_the_end();
            let _ = end.send(());
        });
        loop {
            let (socket, _) = tokio::select! {
                _ = &mut ended => return Ok(()),
                accepted = listener.accept() => accepted?,
            };
            socket.set_nodelay(true)?;
            let client = client.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| pass(client.clone(), supplier, request));
                // A connection that breaks is the other side's to tell.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    })
}

async fn pass(
    client: Upstream,
    supplier: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::try_from(format!("http://{supplier}{path}"))?;
    parts.headers.remove(HOST);
    let response = client.request(Request::from_parts(parts, body)).await?;
    let (mut parts, body) = response.into_parts();
    // The head is made anew, as a proxy must where headers are of one connection only.
    let kind = parts.headers.remove(CONTENT_TYPE);
    parts.headers.clear();
    parts.headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    Ok(Response::from_parts(parts, body))
}
