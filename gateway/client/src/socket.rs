//! The client's thread: one connection at a time, another when it breaks, and sleep when there is nothing to do. All
//! meaning is in `core`, and where to go is `route`'s to say; here are bytes and waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grid_wire::{MAX_FRAME_LEN, Message, scan};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::broadcast;

use crate::core::{Core, Now, Verdict};
use crate::error::ClientError;
use crate::message::Event;
use crate::route::{Parting, Route};
use crate::{Bell, Config, Input};

const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);
/// Reads between two looks at everything else.
const READS_MAX: usize = 64;
/// A session that lived this long forgives the failures before it.
const STABLE: Duration = Duration::from_secs(1);
/// How long the end of a connection may take once we have said goodbye.
const FAREWELL: Duration = Duration::from_millis(500);
/// Snapshots come in parts below the venue's frame limit; a longer frame is not from our venue.
const FRAME_BYTES_MAX: usize = 4 * MAX_FRAME_LEN;

pub(crate) struct Started {
    pub(crate) thread: JoinHandle<()>,
    pub(crate) bell: Arc<Bell>,
    /// Hears once: the session is live, or will not be.
    pub(crate) live: Receiver<Result<(), ClientError>>,
}

pub(crate) fn start(
    config: Config,
    inbox: Receiver<Input>,
    events: broadcast::Sender<Event>,
    account: Arc<OnceLock<u32>>,
) -> Result<Started, ClientError> {
    if config.addresses.is_empty() {
        return Err(ClientError::Io("no address to connect to".into()));
    }
    let io = |error: std::io::Error| ClientError::Io(error.to_string());
    let poll = Poll::new().map_err(io)?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(io)?;
    let bell = Arc::new(Bell { waker, asleep: AtomicBool::new(false), stop: AtomicBool::new(false) });
    let (live_sender, live) = channel();
    let begun = Instant::now();
    let mut runner = Runner {
        core: Core::new(config.clone(), events, account),
        poll,
        inbox,
        bell: Arc::clone(&bell),
        live: Some(live_sender),
        connection: None,
        route: Route::new(&config.addresses, config.silence.as_nanos() as u64),
        live_since: None,
        trouble: None,
        retry_at: begun,
        begun,
        config,
    };
    let name = "grid-client".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || runner.run()).map_err(io)?;
    Ok(Started { thread, bell, live })
}

struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    open: bool,
    login_by: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// The last read stopped before the socket was empty.
    more: bool,
}

struct Runner {
    config: Config,
    core: Core,
    poll: Poll,
    inbox: Receiver<Input>,
    bell: Arc<Bell>,
    live: Option<Sender<Result<(), ClientError>>>,
    connection: Option<Connection>,
    route: Route,
    live_since: Option<Instant>,
    /// Why the last attempt failed, for whoever waits for the first session.
    trouble: Option<String>,
    retry_at: Instant,
    begun: Instant,
}

impl Runner {
    fn run(&mut self) {
        let mut events = Events::with_capacity(8);
        let end = loop {
            if self.bell.stop.load(Ordering::Acquire) {
                break ClientError::Closed;
            }
            if let Err(error) = self.turn(&mut events) {
                break error;
            }
        };
        self.say_goodbye(&mut events);
        self.core.stop(&end);
        if let Some(live) = self.live.take() {
            let _ = live.send(Err(end));
        }
    }

    /// One turn of the loop: wait, read, act, write. An error ends the client.
    fn turn(&mut self, events: &mut Events) -> Result<(), ClientError> {
        self.wait(events)?;
        self.take_inputs();
        let verdict = self.serve_connection();
        self.obey(verdict)?;
        if self.core.is_live() {
            if self.live_since.get_or_insert_with(Instant::now).elapsed() >= STABLE {
                self.route.settled();
            }
            if let Some(live) = self.live.take() {
                let _ = live.send(Ok(()));
            }
        }
        let now = Instant::now();
        if self.live.is_some() && now.duration_since(self.begun) >= self.config.connect_timeout {
            let trouble = self.trouble.take().map(ClientError::Io);
            return Err(trouble.unwrap_or(ClientError::Timeout { sent: false }));
        }
        if self.connection.is_none() && now >= self.retry_at {
            self.dial();
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), ClientError> {
        let now = self.now();
        let mut until = self.core.due(now).map(|due| self.begun + Duration::from_nanos(due));
        let mut sooner = |moment: Instant| until = Some(until.map_or(moment, |u| u.min(moment)));
        match &self.connection {
            None => sooner(self.retry_at),
            Some(c) if !self.core.is_live() => sooner(c.login_by),
            Some(_) => {}
        }
        if self.live.is_some() {
            sooner(self.begun + self.config.connect_timeout);
        }
        // Announce the sleep, then look once more: whoever submits after this look rings the bell.
        self.bell.asleep.store(true, Ordering::SeqCst);
        let more = self.connection.as_ref().is_some_and(|c| c.more);
        let busy = self.take_inputs() || more || self.bell.stop.load(Ordering::SeqCst);
        let timeout = match until {
            _ if busy => Some(Duration::ZERO),
            Some(moment) => Some(moment.saturating_duration_since(Instant::now())),
            None => None,
        };
        let polled = self.poll.poll(events, timeout);
        self.bell.asleep.store(false, Ordering::SeqCst);
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(ClientError::Io(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Moves what the handles sent into the core; true when there was something.
    fn take_inputs(&mut self) -> bool {
        let mut any = false;
        let mut nowhere = Vec::new();
        while self.core.has_room() {
            let Ok(input) = self.inbox.try_recv() else { break };
            any = true;
            let out = self.connection.as_mut().map_or(&mut nowhere, |c| &mut c.output);
            match input {
                Input::Call { request, reply, at } => {
                    let deadline = at.saturating_duration_since(self.begun) + self.config.call_timeout;
                    self.core.submit(request, reply, deadline.as_nanos() as u64);
                }
                Input::Subscribe { instrument, depth } => self.core.subscribe(instrument, depth, out),
                Input::Unsubscribe { instrument } => self.core.unsubscribe(instrument, out),
            }
        }
        any
    }

    fn serve_connection(&mut self) -> Verdict {
        let now = self.now();
        let Some(connection) = &mut self.connection else {
            return self.core.tick(now, &mut Vec::new());
        };
        if !connection.open {
            match connection.opened() {
                Ok(true) => self.core.connected(connection.address),
                Ok(false) => return connection.login_verdict(),
                Err(error) => {
                    self.trouble = Some(format!("{}: {error}", connection.address));
                    tracing::debug!(%error, address = %connection.address, "could not connect");
                    return Verdict::Leave(Parting::Lost);
                }
            }
        }
        let alive = connection.fill();
        let verdict = connection.each_message(|message, out| self.core.receive(now, message, out));
        if verdict != Verdict::Continue {
            return verdict;
        }
        if let Err(error) = alive {
            self.trouble = Some(format!("{}: {error}", connection.address));
            tracing::debug!(%error, address = %connection.address, "connection lost");
            return Verdict::Leave(Parting::Lost);
        }
        if !self.core.is_live() && connection.login_verdict() != Verdict::Continue {
            self.trouble = Some(format!("{}: no word in time", connection.address));
            return connection.login_verdict();
        }
        let verdict = self.core.tick(now, &mut connection.output);
        self.core.pump(now, &mut connection.output);
        match connection.flush() {
            Err(_) => Verdict::Leave(Parting::Lost),
            Ok(()) => verdict,
        }
    }

    fn obey(&mut self, verdict: Verdict) -> Result<(), ClientError> {
        match verdict {
            Verdict::Continue => Ok(()),
            Verdict::Stop(error) => Err(error),
            Verdict::Leave(how) => {
                if let Some(address) = self.hang_up() {
                    self.leave(address, how);
                }
                Ok(())
            }
        }
    }

    fn leave(&mut self, address: SocketAddr, how: Parting) {
        if let Parting::NotLeader(leader) = how {
            tracing::debug!(%address, ?leader, "the node does not lead");
            self.trouble = Some(format!("{address}: this node does not lead"));
        }
        let pause = self.route.left(address, how, self.now().steady, rand::random());
        self.retry_at = Instant::now() + Duration::from_nanos(pause);
    }

    /// Drops the connection; gives its address.
    fn hang_up(&mut self) -> Option<SocketAddr> {
        let connection = self.connection.take();
        self.live_since = None;
        self.core.disconnected();
        connection.map(|mut connection| {
            let _ = self.poll.registry().deregister(&mut connection.stream);
            connection.address
        })
    }

    fn dial(&mut self) {
        let Some(address) = self.route.dial(self.now().steady) else {
            return;
        };
        let connected = TcpStream::connect(address).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                self.connection = Some(Connection {
                    stream,
                    address,
                    open: false,
                    login_by: Instant::now() + Duration::from_nanos(self.route.patience_ns()),
                    input: Vec::new(),
                    output: Vec::new(),
                    written: 0,
                    more: false,
                });
            }
            Err(error) => {
                tracing::debug!(%error, %address, "could not connect");
                self.leave(address, Parting::Lost);
            }
        }
    }

    /// Says the last words and gives the venue a moment to hang up first: closing with unread bytes would reset the
    /// connection, and the last words might be lost with it.
    fn say_goodbye(&mut self, events: &mut Events) {
        let Some(connection) = self.connection.as_mut().filter(|c| c.open) else {
            return;
        };
        self.core.farewell(&mut connection.output);
        let until = Instant::now() + FAREWELL;
        while connection.flush().is_ok() && connection.fill().is_ok() {
            connection.input.clear();
            if connection.output.is_empty() {
                let _ = connection.stream.shutdown(Shutdown::Write);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.poll.poll(events, Some(left)).is_err() {
                break;
            }
        }
    }

    fn now(&self) -> Now {
        let steady = self.begun.elapsed().as_nanos() as u64;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        Now { steady, wall }
    }
}

impl Connection {
    /// Whether the connection has come about.
    fn opened(&mut self) -> std::io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.stream.set_nodelay(true)?;
                self.open = true;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn login_verdict(&self) -> Verdict {
        if Instant::now() < self.login_by { Verdict::Continue } else { Verdict::Leave(Parting::Silent) }
    }

    /// Reads what there is, within reason; an error says that no more will come.
    fn fill(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        self.more = false;
        for _ in 0..READS_MAX {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.more = true;
        Ok(())
    }

    /// Hands every whole message on until one gives a verdict.
    fn each_message(&mut self, mut take: impl FnMut(&Message<'_>, &mut Vec<u8>) -> Verdict) -> Verdict {
        let mut at = 0;
        let verdict = loop {
            match scan(&self.input[at..], FRAME_BYTES_MAX) {
                Ok(None) => break Verdict::Continue,
                Ok(Some((frame, length))) => match Message::decode(&frame) {
                    Ok(message) => {
                        let verdict = take(&message, &mut self.output);
                        if verdict != Verdict::Continue {
                            break verdict;
                        }
                        at += length;
                    }
                    // A newer venue may know more messages than we do.
                    Err(grid_wire::DecodeError::UnknownTemplate { template }) => {
                        tracing::debug!(template, "a message that this client does not know");
                        at += length;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the venue sent a message that cannot be read");
                        break Verdict::Leave(Parting::Lost);
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "the venue sent bytes that are no frames");
                    break Verdict::Leave(Parting::Lost);
                }
            }
        };
        self.input.drain(..at);
        verdict
    }

    /// Writes as much as the socket takes.
    fn flush(&mut self) -> std::io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
