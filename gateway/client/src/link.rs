//! A session's one connection, and another when it breaks: bytes, and what is due when. All meaning is in `core`, and where to go
//! is `route`'s to say. Nothing here waits: a driver (`thread`, `task`) waits for the socket and the clock, and whoever submits a
//! request writes it to the socket itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::queue::SegQueue;
use grid_wire::{MAX_FRAME_LEN, Message, scan};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::core::{Core, Now, Verdict};
use crate::error::ClientError;
use crate::message::{Event, Request};
use crate::route::{Parting, Route};
use crate::{Config, Input, Reply};

/// Reads between two looks at everything else.
const READS_MAX: usize = 64;
/// With so many requests unanswered a new one is not written by itself: the driver is woken, and sends all that waits by then in
/// one write.
const WRITTEN_BY_ITSELF: usize = 8;
/// A session that lived this long forgives the failures before it.
const STABLE: Duration = Duration::from_secs(1);
/// How long the end of a connection may take once we have said goodbye.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);
/// Snapshots come in parts below the venue's frame limit; a longer frame is not from our venue.
const FRAME_BYTES_MAX: usize = 4 * MAX_FRAME_LEN;

/// Hears once: the session is live, or will not be.
pub(crate) type Live = Box<dyn FnOnce(Result<(), ClientError>) + Send>;

/// What handles and driver share.
pub(crate) struct Shared {
    link: Mutex<Link>,
    /// Requests on their way to whoever has the link.
    inbox: SegQueue<Input>,
    queued: AtomicUsize,
    queue_max: usize,
    /// No handle is left, or one was closed.
    stop: AtomicBool,
    bell: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    /// `bell` wakes the driver.
    pub(crate) fn new(
        config: Config,
        events: broadcast::Sender<Event>,
        account: Arc<OnceLock<u32>>,
        bell: impl Fn() + Send + Sync + 'static,
        live: Live,
    ) -> Result<Self, ClientError> {
        if config.addresses.is_empty() {
            return Err(ClientError::Io("no address to connect to".into()));
        }
        let begun = Instant::now();
        Ok(Self {
            inbox: SegQueue::new(),
            queued: AtomicUsize::new(0),
            queue_max: config.queue.max(1),
            stop: AtomicBool::new(false),
            bell: Box::new(bell),
            link: Mutex::new(Link {
                core: Core::new(config.clone(), events, account),
                live: Some(live),
                ended: false,
                connection: None,
                dialled: 0,
                route: Route::new(&config.addresses, config.silence.as_nanos() as u64),
                live_since: None,
                trouble: None,
                retry_at: begun,
                begun,
                awaited: None,
                told: false,
                config,
            }),
        })
    }

    /// Takes a request in, and sends it at once where the link is free; whoever has the link sends it otherwise.
    pub(crate) fn call(&self, request: Request, reply: Reply) {
        if !self.has_place() {
            let _ = reply.send(Err(ClientError::Busy));
            return;
        }
        self.put(Input::Call { request, reply, at: Instant::now() });
    }

    /// The same for what has no answer.
    pub(crate) fn send(&self, input: Input) -> Result<(), ClientError> {
        if !self.has_place() {
            return Err(ClientError::Busy);
        }
        self.put(input);
        if self.link().ended { Err(ClientError::Closed) } else { Ok(()) }
    }

    /// Takes a place in the inbox, if there is one.
    fn has_place(&self) -> bool {
        let there_is = self.queued.fetch_add(1, Ordering::AcqRel) < self.queue_max;
        if !there_is {
            self.queued.fetch_sub(1, Ordering::AcqRel);
        }
        there_is
    }

    fn put(&self, input: Input) {
        self.inbox.push(input);
        self.serve();
    }

    /// Sends what waits in the inbox. Where the link is taken, its holder comes here after letting it go, and finds
    /// what was put in before this look: both sides have a full fence between their two steps.
    pub(crate) fn serve(&self) {
        loop {
            fence(Ordering::SeqCst);
            let Some(mut link) = self.link.try_lock() else { return };
            let attention = link.hand_in(self);
            let full = !link.ended && !link.core.has_room();
            drop(link);
            if attention {
                (self.bell)();
            }
            fence(Ordering::SeqCst);
            // Without room it is the driver's turn that makes some, and takes more in.
            if full || self.inbox.is_empty() {
                return;
            }
        }
    }

    /// For the driver.
    pub(crate) fn link(&self) -> parking_lot::MutexGuard<'_, Link> {
        self.link.lock()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        (self.bell)();
    }

    /// The driver's last step: everybody is answered, and whoever comes later hears that it is over.
    pub(crate) fn end(&self, error: &ClientError) {
        let mut link = self.link();
        link.core.stop(error);
        link.connection = None;
        link.ended = true;
        if let Some(live) = link.live.take() {
            live(Err(error.clone()));
        }
        link.take_inputs(self);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("queued", &self.queued).finish_non_exhaustive()
    }
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
    /// A write failed.
    broken: bool,
}

pub(crate) struct Link {
    config: Config,
    core: Core,
    live: Option<Live>,
    /// The driver has taken its last step; who comes now comes too late.
    ended: bool,
    connection: Option<Connection>,
    /// Connections so far.
    dialled: u64,
    route: Route,
    live_since: Option<Instant>,
    /// Why the last attempt failed, for whoever waits for the first session.
    trouble: Option<String>,
    retry_at: Instant,
    begun: Instant,
    /// How long the driver waits.
    awaited: Option<Instant>,
    /// The driver was told that requests wait for it to send them, and has not turned since.
    told: bool,
}

impl Link {
    /// Does what the socket, the clock and the inbox ask for, after a wait. An error ends the client.
    pub(crate) fn turn(&mut self, shared: &Shared) -> Result<(), ClientError> {
        self.told = false;
        self.take_inputs(shared);
        let verdict = self.serve_connection(shared);
        self.obey(verdict)?;
        if self.core.is_live() {
            if self.live_since.get_or_insert_with(Instant::now).elapsed() >= STABLE {
                self.route.settled();
            }
            if let Some(live) = self.live.take() {
                live(Ok(()));
            }
        }
        let now = Instant::now();
        if self.live.is_some() && now.duration_since(self.begun) >= self.config.connect_timeout {
            let trouble = self.trouble.take().unwrap_or_else(|| self.nobody());
            return Err(ClientError::Io(trouble));
        }
        if self.connection.is_none() && now >= self.retry_at {
            self.dial();
        }
        Ok(())
    }

    /// That no node has answered yet.
    fn nobody(&self) -> String {
        let nodes: Vec<String> = self.config.addresses.iter().map(ToString::to_string).collect();
        format!("{}: no word in time", nodes.join(", "))
    }

    /// When the next turn is due, whatever comes before; the driver waits no longer than that.
    pub(crate) fn due(&mut self) -> Option<Instant> {
        self.awaited = self.next_due();
        self.awaited
    }

    /// At once where the last turn left something to read.
    fn next_due(&self) -> Option<Instant> {
        if self.connection.as_ref().is_some_and(|c| c.more) {
            return Some(Instant::now());
        }
        let mut until = self.core.due(self.now()).map(|due| self.begun + Duration::from_nanos(due));
        let mut sooner = |moment: Instant| until = Some(until.map_or(moment, |u| u.min(moment)));
        match &self.connection {
            None => sooner(self.retry_at),
            Some(c) if !self.core.is_live() => sooner(c.login_by),
            Some(_) => {}
        }
        if self.live.is_some() {
            sooner(self.begun + self.config.connect_timeout);
        }
        until
    }

    /// What to wait on, for a driver that waits on the connection of this number.
    pub(crate) fn watch(&self, known: Option<u64>) -> Watch {
        match &self.connection {
            None => Watch::Nothing,
            Some(_) if known == Some(self.dialled) => Watch::Same,
            Some(connection) => match connection.stream.try_clone() {
                Ok(stream) => Watch::Other(self.dialled, stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be watched");
                    Watch::Nothing
                }
            },
        }
    }

    /// Whether the socket is to be waited for until it takes more, or has come about.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| !c.open || c.written < c.output.len())
    }

    /// Whether the last read stopped before the socket was empty.
    pub(crate) fn left_something(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.more)
    }

    /// Takes requests in, and sends them unless the driver is about to; true where it has to look.
    fn hand_in(&mut self, shared: &Shared) -> bool {
        if self.core.unanswered() < WRITTEN_BY_ITSELF {
            return self.send(shared);
        }
        let any = self.take_inputs(shared);
        // Nobody else may come: those before it can be unanswered for long, and their answers wait for nothing of ours.
        (any && !std::mem::replace(&mut self.told, true)) || self.is_due_sooner()
    }

    /// Takes requests in and sends what may be sent; true where the driver has to look.
    fn send(&mut self, shared: &Shared) -> bool {
        let now = self.now();
        loop {
            let took = self.take_inputs(shared);
            let Some(connection) = self.connection.as_mut().filter(|c| c.open && !c.broken) else {
                return false;
            };
            self.core.pump(now, &mut connection.output);
            if !took {
                break;
            }
        }
        let Some(connection) = self.connection.as_mut() else { return false };
        connection.broken = connection.flush().is_err();
        let later = connection.broken || connection.written < connection.output.len();
        later || self.is_due_sooner()
    }

    /// Whether something is due before the driver would look.
    fn is_due_sooner(&self) -> bool {
        self.awaited.is_none_or(|awaited| self.next_due().is_some_and(|due| due < awaited))
    }

    /// Moves what the handles sent into the core; true when there was something.
    fn take_inputs(&mut self, shared: &Shared) -> bool {
        let mut any = false;
        let mut nowhere = Vec::new();
        while self.ended || self.core.has_room() {
            let Some(input) = shared.inbox.pop() else { break };
            shared.queued.fetch_sub(1, Ordering::AcqRel);
            if self.ended {
                // Dropping its reply says that the client is closed.
                continue;
            }
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

    fn serve_connection(&mut self, shared: &Shared) -> Verdict {
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
        self.send(shared);
        match &self.connection {
            Some(connection) if connection.broken => Verdict::Leave(Parting::Lost),
            _ => verdict,
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
        connection.map(|connection| connection.address)
    }

    fn dial(&mut self) {
        let Some(address) = self.route.dial(self.now().steady) else {
            return;
        };
        // Of the two, only this one connects without waiting.
        let connecting = mio::net::TcpStream::connect(address);
        match connecting.map(|stream| TcpStream::from(OwnedFd::from(stream))) {
            Ok(stream) => {
                self.dialled += 1;
                self.connection = Some(Connection {
                    stream,
                    address,
                    open: false,
                    login_by: Instant::now() + Duration::from_nanos(self.route.patience_ns()),
                    input: Vec::new(),
                    output: Vec::new(),
                    written: 0,
                    more: false,
                    broken: false,
                });
            }
            Err(error) => {
                tracing::debug!(%error, %address, "could not connect");
                self.leave(address, Parting::Lost);
            }
        }
    }

    /// Says the last words; whether there is anybody to say them to.
    pub(crate) fn say_goodbye(&mut self) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|c| c.open) else {
            return false;
        };
        self.core.farewell(&mut connection.output);
        true
    }

    /// Gives the venue a moment to hang up first: closing with unread bytes would reset the connection, and the last words
    /// might be lost with it. False once it has.
    pub(crate) fn linger(&mut self) -> bool {
        let Some(connection) = self.connection.as_mut() else { return false };
        let alive = connection.flush().is_ok() && connection.fill().is_ok();
        connection.input.clear();
        if connection.output.is_empty() {
            let _ = connection.stream.shutdown(Shutdown::Write);
        }
        alive
    }

    fn now(&self) -> Now {
        let steady = self.begun.elapsed().as_nanos() as u64;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        Now { steady, wall }
    }
}

/// What a driver waits on.
pub(crate) enum Watch {
    /// There is no connection.
    Nothing,
    /// The connection that it knows.
    Same,
    /// Another one: its number, and a second handle on its socket.
    Other(u64, TcpStream),
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
