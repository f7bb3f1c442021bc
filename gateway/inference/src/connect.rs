//! Connections to suppliers, counted while they are open, so that a leak shows.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::stats::{One, Stats};

/// Connects and counts.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    connector: HttpConnector,
    stats: Arc<Stats>,
}

impl Counting {
    pub(crate) fn new(connector: HttpConnector, stats: Arc<Stats>) -> Self {
        Self { connector, stats }
    }
}

type Failed = <HttpConnector as Service<Uri>>::Error;

impl Service<Uri> for Counting {
    type Response = Counted;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, Failed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, stats) = (self.connector.call(uri), Arc::clone(&self.stats));
        Box::pin(async move {
            let socket = connecting.await?;
            Ok(Counted { socket, _one: One::of(stats, |stats| &stats.supplier_connections) })
        })
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Counted {
    socket: TokioIo<TcpStream>,
    _one: One,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.socket.connected()
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }
}
