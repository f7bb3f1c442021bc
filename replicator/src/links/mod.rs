//! Links: what nodes say to each other, and what operators and damaged nodes ask of them.
//!
//! One thread on `mio`. Each node dials every other and sends on its own connection: one direction per connection, first
//! in first out, and only a peer's newest connection is listened to. Nothing waits for a peer: what does not fit into
//! its queue is dropped and reported, because raft repeats itself. Bytes of messages mean nothing here.
//!
//! | module | holds |
//! |---|---|
//! | `frame` | how bytes are cut and checked; the Hello and who may say it |
//! | `epoch` | which of a peer's connections counts |
//! | `queue`, `backoff` | what waits for a peer; how often it is dialled |
//! | `attention` | when the thread must be woken |
//! | `snapshot` | transfers beside messages |
//! | `session` | TLS or plain bytes, without a socket |
//! | `identity` | the cluster's authority and certificates |
//! | `admin`, `repair` | what may be asked, and the blocking callers |
//! | `turning` | the loop; `connection` is one socket in it |
//!
//! The bytes: `LINKS.md` in this crate. Not here: raft, the members, what a digest compares. The cluster simulator puts its own network in this place.

pub mod admin;
mod attention;
mod backoff;
mod caller;
mod connection;
mod epoch;
mod frame;
pub mod identity;
mod queue;
pub mod repair;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;
mod turning;

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use parking_lot::{Mutex, RwLock};
use tracing::error;

pub use admin::{AdminReply, AdminRequest};
pub use caller::CallError;
pub use frame::{Refusal, RefusalCode};
pub use grid_sequencer::NodeId;
pub use identity::{Authority, Identity, IdentityError};
pub use queue::{NotSent, Sent};
pub use repair::{RepairBlocks, RepairRequest};
pub use session::Tls;
pub use snapshot::SnapshotSink;

use attention::Attention;
use frame::Kind;
use queue::{Bounds, SendQueue};
use snapshot::SnapshotJob;

/// What nodes send each other, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of the raft core, in its own coding.
    Raft(Bytes),
    /// Digests of what a node's state has come to, in their own coding.
    Digest(Bytes),
}

impl Frame {
    fn parts(self) -> (Kind, Bytes) {
        match self {
            Self::Raft(body) => (Kind::Raft, body),
            Self::Digest(body) => (Kind::Digest, body),
        }
    }
}

/// Who is told what the links bring. Called on the links' thread, which waits meanwhile: hand over, do not work.
pub trait Handler: Send + 'static {
    /// A frame came from a peer. Frames of one peer come in the order they were sent, some may be missing.
    fn received(&mut self, from: NodeId, frame: Frame);

    /// A turn's frames have all been given: the moment to drive the core once for all of them. What is sent in here
    /// leaves at once. Turns come with whatever comes, and at least every 100 ms while an operator waits for an answer.
    fn turn_end(&mut self);

    /// A link was lost, could not be made, or a queue was full: messages to this peer were dropped.
    fn unreachable(&mut self, peer: NodeId);

    /// A peer wants to send a snapshot. After an `Ok`, [`snapshot_received`](Self::snapshot_received) is called once.
    ///
    /// # Errors
    /// Why it is not wanted; the sender is told.
    fn snapshot_offered(
        &mut self,
        from: NodeId,
        meta: &[u8],
        bytes: u64,
    ) -> Result<Box<dyn SnapshotSink>, String>;

    /// What became of a snapshot that was offered: its sink has finished, or was dropped for the reason given.
    fn snapshot_received(&mut self, from: NodeId, meta: Bytes, outcome: Result<(), String>);

    /// What became of a snapshot that [`Sender::send_snapshot`] took: whether the peer has it durably.
    fn snapshot_sent(&mut self, to: NodeId, ok: bool);

    /// An operator asks.
    fn admin(&mut self, request: AdminRequest, answer: Answer<AdminReply>);

    /// A node asks for blocks.
    fn repair(&mut self, from: NodeId, request: RepairRequest, answer: Answer<RepairBlocks>);
}

/// A reply that is owed. May be given later and from any thread; one that is dropped says that the node is stopping.
pub struct Answer<T: Owed> {
    give: Option<Box<dyn FnOnce(T) + Send>>,
}

/// What a reply says when nobody gave one.
pub trait Owed {
    /// The node is stopping, or its request was lost in it.
    fn unanswered() -> Self;
}

impl<T: Owed> Answer<T> {
    /// An answer that goes to a function.
    pub fn to(give: impl FnOnce(T) + Send + 'static) -> Self {
        Self { give: Some(Box::new(give)) }
    }

    /// Gives the reply.
    pub fn give(mut self, reply: T) {
        if let Some(give) = self.give.take() {
            give(reply);
        }
    }
}

impl<T: Owed> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(give) = self.give.take() {
            give(T::unanswered());
        }
    }
}

impl<T: Owed> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// Whose links these are, and whom they reach.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// This node.
    pub node: NodeId,
    /// Its cluster; nodes of another one are refused.
    pub cluster: u64,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where others reach this node, if not where it listens; told in every Hello.
    pub advertise: Option<SocketAddr>,
    /// Where the others listen; this node itself is skipped. Changed by [`Sender::set_peers`].
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// How links are protected.
    pub tls: Tls,
    /// Every bound.
    pub limits: Limits,
}

/// Bounds and pace of the links.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Frames that may wait for one peer.
    pub queue_frames_max: usize,
    /// Bytes that may wait for one peer.
    pub queue_bytes_max: usize,
    /// The longest frame's body.
    pub frame_bytes_max: usize,
    /// The longest snapshot that is taken.
    pub snapshot_bytes_max: u64,
    /// Connections that have not said Hello yet; one more is closed.
    pub knocking_max: usize,
    /// Operators' and damaged nodes' connections.
    pub services_max: usize,
    /// Peers that nobody named but that have the right certificate: members this node has not heard of yet.
    pub guests_max: usize,
    /// From accepting, or from reaching who was dialled, to the end of the login.
    pub login_timeout: Duration,
    /// How long a dialled peer may take to be reached. A packet lost to a cut network is sent again later and later; dialling
    /// anew finds the peer sooner once the cut has healed.
    pub connect_timeout: Duration,
    /// How often a peer is asked whether it is there.
    pub ping_interval: Duration,
    /// How long a connection may be silent, leave a ping unanswered, or take nothing of what is written.
    pub idle_limit: Duration,
    /// How long an operator's connection may be silent between requests.
    pub service_idle: Duration,
    /// How long a snapshot may make no progress; its receiver's last fsync is part of it.
    pub snapshot_stall: Duration,
    /// The shortest wait before a peer is dialled again.
    pub dial_wait_min: Duration,
    /// The longest.
    pub dial_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_frames_max: 8_192,
            // All that the core sends unanswered to a node that lags, 256 messages of 256 KiB, and half of that again.
            queue_bytes_max: 96 << 20,
            frame_bytes_max: 32 << 20,
            snapshot_bytes_max: 1 << 40,
            knocking_max: 32,
            services_max: 16,
            guests_max: 16,
            login_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_millis(500),
            idle_limit: Duration::from_secs(3),
            service_idle: Duration::from_secs(30),
            snapshot_stall: Duration::from_secs(60),
            dial_wait_min: Duration::from_millis(50),
            dial_wait_max: Duration::from_millis(500),
        }
    }
}

/// Why links could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The address cannot be listened on, or the system gives no poll or thread.
    #[error("links at {address}: {source}")]
    System {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates are no good.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Links without TLS are for loopback; give this node a certificate, or a loopback address.
    #[error("links without TLS are for loopback only, not for {0}: give this node a certificate")]
    PlainBeyondLoopback(SocketAddr),
}

/// What the links' thread is told besides frames.
enum Told {
    Peers(BTreeMap<NodeId, SocketAddr>),
    /// A reply for a service connection.
    Reply {
        connection: u64,
        kind: Kind,
        body: Vec<u8>,
    },
    /// From the writer of an arriving snapshot.
    Snapshot {
        from: NodeId,
        serial: u64,
        report: snapshot::Report,
    },
}

/// What senders and the links' thread share.
struct Shared {
    queues: RwLock<BTreeMap<NodeId, Arc<Mutex<SendQueue>>>>,
    told: SegQueue<Told>,
    attention: Attention,
    stop: AtomicBool,
    waker: mio::Waker,
    frame_bytes_max: usize,
    bounds: Bounds,
}

impl Shared {
    fn wake(&self) {
        if self.attention.call() {
            // It fails only when the poll is gone, and then nobody sleeps.
            let _ = self.waker.wake();
        }
    }

    fn tell(&self, told: Told) {
        self.told.push(told);
        self.wake();
    }
}

/// Sends to peers; cheap to clone, never waits, may be used from any thread and from within a [`Handler`].
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// Puts a frame in a peer's queue, or drops it.
    pub fn send(&self, to: NodeId, frame: Frame) -> Sent {
        let (kind, body) = frame.parts();
        if body.len() > self.0.frame_bytes_max {
            error!(to, bytes = body.len(), limit = self.0.frame_bytes_max, "a frame is too long for a link");
            return Sent::Full;
        }
        let sent = match self.0.queues.read().get(&to) {
            Some(queue) => queue.lock().push(kind, body),
            None => return Sent::Down,
        };
        if sent != Sent::Down {
            self.0.wake();
        }
        sent
    }

    /// Sends a snapshot of so many bytes beside the messages; `meta` is for the receiving handler. What becomes of it
    /// is told by [`Handler::snapshot_sent`], once, if this says `Ok`.
    ///
    /// # Errors
    /// When there is no link, or one is on its way to that peer already.
    pub fn send_snapshot(
        &self,
        to: NodeId,
        meta: Bytes,
        bytes: u64,
        source: Box<dyn Read + Send>,
    ) -> Result<(), NotSent> {
        let queue = self.0.queues.read().get(&to).cloned().ok_or(NotSent::Down)?;
        queue.lock().ask_snapshot(SnapshotJob::new(meta, bytes, source))?;
        self.0.wake();
        Ok(())
    }

    /// Whether a snapshot is on its way to a peer at this time.
    #[must_use]
    pub fn is_sending_snapshot(&self, peer: NodeId) -> bool {
        self.0.queues.read().get(&peer).is_some_and(|queue| queue.lock().is_sending_snapshot())
    }

    /// Says where the others listen from now on. Links to peers that are not among them are closed.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        self.0.tell(Told::Peers(peers));
    }

    /// Whether there is a link to a peer at this time.
    #[must_use]
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.0.queues.read().get(&peer).is_some_and(|queue| queue.lock().is_up())
    }
}

/// Links that have their address but do not turn yet: the core needs the sender before the handler can have the core.
pub struct BoundLinks {
    config: LinksConfig,
    address: SocketAddr,
    listener: TcpListener,
    security: session::Security,
    poll: mio::Poll,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for BoundLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundLinks").field("address", &self.address).finish_non_exhaustive()
    }
}

impl BoundLinks {
    /// Where they listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends to peers, once they turn.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.shared))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<H: Handler>(self, handler: H) -> Result<Links, LinksError> {
        let Self { config, address, listener, security, poll, shared } = self;
        let fail = |source| LinksError::System { address, source };
        let turning = turning::Loop::new(
            config,
            address,
            security,
            poll,
            mio::net::TcpListener::from_std(listener),
            Arc::clone(&shared),
            handler,
        )
        .map_err(fail)?;
        let thread = std::thread::Builder::new()
            .name("grid-links".to_owned())
            .spawn(move || grid_sequencer::abort_on_panic("grid-links", || turning.run()))
            .map_err(fail)?;
        Ok(Links { address, shared, thread: Some(thread) })
    }
}

/// Running links; dropping them ends them, and with them every connection.
pub struct Links {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Links {
    /// Takes the address and checks the certificates.
    ///
    /// # Errors
    /// See [`LinksError`].
    pub fn bind(config: LinksConfig) -> Result<BoundLinks, LinksError> {
        if matches!(config.tls, Tls::Plain) && !config.listen.ip().is_loopback() {
            return Err(LinksError::PlainBeyondLoopback(config.listen));
        }
        let security = session::Security::new(&config.tls)?;
        let listen = config.listen;
        let fail = |source| LinksError::System { address: listen, source };
        let listener = TcpListener::bind(listen).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let poll = mio::Poll::new().map_err(fail)?;
        let waker = mio::Waker::new(poll.registry(), turning::WAKER).map_err(fail)?;
        let limits = &config.limits;
        let shared = Arc::new(Shared {
            queues: RwLock::new(BTreeMap::new()),
            told: SegQueue::new(),
            attention: Attention::default(),
            stop: AtomicBool::new(false),
            waker,
            frame_bytes_max: limits.frame_bytes_max,
            bounds: Bounds { frames_max: limits.queue_frames_max, bytes_max: limits.queue_bytes_max },
        });
        Ok(BoundLinks { config, address, listener, security, poll, shared })
    }

    /// [`bind`](Self::bind) and [`BoundLinks::start`] in one.
    ///
    /// # Errors
    /// See [`LinksError`].
    pub fn start<H: Handler>(config: LinksConfig, handler: H) -> Result<Self, LinksError> {
        Self::bind(config)?.start(handler)
    }

    /// Where they listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends to peers.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.shared))
    }

    /// Closes every connection and ends the thread. A snapshot that is being written is broken off first.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Whatever the thread's attention: the last word must not be missed.
        let _ = self.shared.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in the loop has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.halt();
    }
}
