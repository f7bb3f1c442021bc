//! A link driven by a task of its caller's runtime: between the socket and whoever awaits an answer no other thread wakes.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until, timeout};

use crate::Config;
use crate::error::ClientError;
use crate::link::{FAREWELL, Link, Shared, Watch};
use crate::message::Event;

/// A turn without anything to wait for comes after this long all the same.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the task and waits until the session is live.
pub(crate) async fn start(
    config: Config,
    events: broadcast::Sender<Event>,
    account: Arc<OnceLock<u32>>,
) -> Result<(Arc<Shared>, JoinHandle<()>), ClientError> {
    let bell = Arc::new(Notify::new());
    let ring = Arc::clone(&bell);
    let (tell, told) = oneshot::channel();
    let live = Box::new(move |live| drop(tell.send(live)));
    let shared = Arc::new(Shared::new(config, events, account, move || ring.notify_one(), live)?);
    let task = tokio::spawn(run(Arc::clone(&shared), bell));
    told.await.unwrap_or(Err(ClientError::Closed)).map(|()| (shared, task))
}

/// The socket that is waited on, by its connection's number.
type Watched = Option<(u64, TcpStream)>;

async fn run(shared: Arc<Shared>, bell: Arc<Notify>) {
    let mut watched = None;
    let end = loop {
        if shared.is_stopped() {
            break ClientError::Closed;
        }
        if let Err(error) = turn(&shared, &bell, &mut watched).await {
            break error;
        }
    };
    if shared.link().say_goodbye() {
        let _ = timeout(FAREWELL, async {
            while shared.link().linger() {
                let Some((_, socket)) = &watched else { return };
                let Ok(()) = socket.readable().await else { return };
                let mut alive = true;
                let _ = socket.try_io(Interest::READABLE, || {
                    alive = shared.link().linger();
                    Err::<(), _>(io::ErrorKind::WouldBlock.into())
                });
                if !alive {
                    return;
                }
            }
        })
        .await;
    }
    shared.end(&end);
}

/// Waits for the socket, the clock or the bell, and does what they ask for. An error ends the client.
async fn turn(shared: &Shared, bell: &Notify, watched: &mut Watched) -> Result<(), ClientError> {
    let (due, writes) = {
        let mut link = shared.link();
        match link.watch(watched.as_ref().map(|watched| watched.0)) {
            Watch::Same => {}
            Watch::Nothing => *watched = None,
            Watch::Other(number, stream) => {
                // The old one goes first: it may have the same descriptor.
                *watched = None;
                let socket =
                    TcpStream::from_std(stream).map_err(|error| ClientError::Io(error.to_string()))?;
                *watched = Some((number, socket));
            }
        }
        (link.due(), link.wants_to_write())
    };
    let socket = watched.as_ref().map(|(_, socket)| socket);
    let interest = if writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    let ready = async {
        match socket {
            Some(socket) => drop(socket.ready(interest).await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ready => {}
        () = sleep_until(due.map_or_else(|| Instant::now() + IDLE, Instant::from_std)) => {}
        // Who is ready to run may have requests too: those go out in the same write.
        () = bell.notified() => yield_now().await,
    }
    let turned = {
        let mut link = shared.link();
        match socket {
            Some(socket) => written(socket, &mut link, shared),
            None => link.turn(shared),
        }
    };
    shared.serve();
    turned
}

/// A turn, after which the socket counts as writable only if it took everything.
fn written(socket: &TcpStream, link: &mut Link, shared: &Shared) -> Result<(), ClientError> {
    let mut turned = None;
    let _ = socket.try_io(Interest::WRITABLE, || {
        turned = Some(read(socket, link, shared));
        until_blocked(!link.wants_to_write())
    });
    turned.unwrap_or_else(|| read(socket, link, shared))
}

/// A turn, after which the socket counts as readable only if it was not read to its end.
fn read(socket: &TcpStream, link: &mut Link, shared: &Shared) -> Result<(), ClientError> {
    let mut turned = None;
    let _ = socket.try_io(Interest::READABLE, || {
        turned = Some(link.turn(shared));
        until_blocked(link.left_something())
    });
    turned.unwrap_or_else(|| link.turn(shared))
}

/// What tells the runtime whether to wait for the socket anew.
fn until_blocked(ready: bool) -> io::Result<()> {
    if ready { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}
