//! A link driven by a thread of its own, for callers without a runtime.

use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::broadcast;

use crate::Config;
use crate::error::ClientError;
use crate::link::{FAREWELL, Link, Shared, Watch};
use crate::message::Event;

const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);

/// Starts the thread and waits until the session is live.
pub(crate) fn start(
    config: Config,
    events: broadcast::Sender<Event>,
    account: Arc<OnceLock<u32>>,
) -> Result<(Arc<Shared>, JoinHandle<()>), ClientError> {
    let io = |error: std::io::Error| ClientError::Io(error.to_string());
    let poll = Poll::new().map_err(io)?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(io)?;
    let bell = move || {
        if let Err(error) = waker.wake() {
            tracing::error!(%error, "the client's thread could not be woken");
        }
    };
    let (tell, told) = channel();
    let live = Box::new(move |live| drop(tell.send(live)));
    let shared = Arc::new(Shared::new(config, events, account, bell, live)?);
    let mut driver = Driver { shared: Arc::clone(&shared), poll, watched: None };
    let name = "grid-client".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || driver.run()).map_err(io)?;
    told.recv().unwrap_or(Err(ClientError::Closed)).map(|()| (shared, thread))
}

struct Driver {
    shared: Arc<Shared>,
    poll: Poll,
    /// The socket that is waited on, by its connection's number.
    watched: Option<(u64, TcpStream)>,
}

impl Driver {
    fn run(&mut self) {
        let mut events = Events::with_capacity(8);
        let end = loop {
            if self.shared.is_stopped() {
                break ClientError::Closed;
            }
            if let Err(error) = self.turn(&mut events) {
                break error;
            }
        };
        self.say_goodbye(&mut events);
        self.shared.end(&end);
    }

    /// An error ends the client.
    fn turn(&mut self, events: &mut Events) -> Result<(), ClientError> {
        let shared = Arc::clone(&self.shared);
        let due = {
            let mut link = shared.link();
            self.watch(&link);
            link.due()
        };
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(ClientError::Io(error.to_string()));
            }
            _ => {}
        }
        shared.link().turn(&shared)?;
        shared.serve();
        Ok(())
    }

    fn watch(&mut self, link: &Link) {
        let other = match link.watch(self.watched.as_ref().map(|watched| watched.0)) {
            Watch::Same => return,
            Watch::Nothing => None,
            Watch::Other(number, stream) => Some((number, TcpStream::from_std(stream))),
        };
        if let Some((_, mut old)) = self.watched.take() {
            let _ = self.poll.registry().deregister(&mut old);
        }
        self.watched = other.and_then(|(number, mut stream)| {
            let registry = self.poll.registry();
            match registry.register(&mut stream, SOCKET, Interest::READABLE | Interest::WRITABLE) {
                Ok(()) => Some((number, stream)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be watched");
                    None
                }
            }
        });
    }

    fn say_goodbye(&mut self, events: &mut Events) {
        let shared = Arc::clone(&self.shared);
        let mut link = shared.link();
        if !link.say_goodbye() {
            return;
        }
        let until = Instant::now() + FAREWELL;
        while link.linger() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.poll.poll(events, Some(left)).is_err() {
                break;
            }
        }
    }
}
