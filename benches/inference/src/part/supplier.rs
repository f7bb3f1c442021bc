//! A supplier that costs next to nothing: its answers are made before the first call and are the same for every one.
//! `/hold` makes it keep every stream open after its first words, until `/release`.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Failure;
use crate::talk::{self, Length};

/// What all calls share.
struct Answers {
    whole: Bytes,
    short: Vec<Bytes>,
    usual: Vec<Bytes>,
    /// True while streams stay open.
    held: watch::Sender<bool>,
}

/// The events of an answer, each a frame of its own.
struct Events {
    events: std::vec::IntoIter<Bytes>,
    /// So many are sent before the stream waits.
    before: usize,
    released: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.before == 0
            && let Some(released) = &mut self.released
        {
            std::task::ready!(released.as_mut().poll(cx));
            self.released = None;
        }
        self.before = self.before.saturating_sub(1);
        Poll::Ready(self.events.next().map(|event| Ok(Frame::data(event))))
    }
}

type Sent = http_body_util::Either<http_body_util::Full<Bytes>, Events>;

pub(super) fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = Arc::new(Answers {
        whole: talk::whole(),
        short: talk::stream(Length::Short),
        usual: talk::stream(Length::Usual),
        held: watch::channel(false).0,
    });
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        super::ready(listener.local_addr()?)?;
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
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&answers), request));
                // A connection that breaks is the other side's to tell.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    })
}

async fn answer(answers: Arc<Answers>, request: Request<Incoming>) -> Result<Response<Sent>, hyper::Error> {
    let whole = |body: Bytes| http_body_util::Either::Left(http_body_util::Full::new(body));
    if request.method() != Method::POST {
        match request.uri().path() {
            "/hold" => drop(answers.held.send_replace(true)),
            "/release" => drop(answers.held.send_replace(false)),
            _ => {}
        }
        return Ok(Response::new(whole(Bytes::from_static(b"{}"))));
    }
    let body = request.into_body().collect().await?.to_bytes();
    let (kind, body) = match talk::asked(&body) {
        None => ("application/json", whole(answers.whole.clone())),
        Some(length) => {
            let events = match length {
                Length::Short => answers.short.clone(),
                Length::Usual => answers.usual.clone(),
            };
            let mut released = None;
            if *answers.held.borrow() {
                let mut held = answers.held.subscribe();
                released = Some(Box::pin(async move {
                    let _ = held.wait_for(|held| !held).await;
                }) as Pin<Box<dyn Future<Output = ()> + Send>>);
            }
            let events = Events { events: events.into_iter(), before: 2, released };
            ("text/event-stream", http_body_util::Either::Right(events))
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
