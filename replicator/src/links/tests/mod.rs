//! Links over loopback sockets: what arrives, in which order, and what is refused. Conditions are waited for; a deadline
//! only guards against waiting for ever.

mod callers;
mod hostile;
mod log;
mod peers;
mod refusals;
mod transfers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{AdminReply, AdminRequest};
use super::repair::{RepairBlocks, RepairRequest, RepairStatus};
use super::*;
use parking_lot::Condvar;

/// How long a test waits for what must come.
pub(super) const GUARD: Duration = Duration::from_secs(60);

/// What a node has been told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) frames: Vec<(NodeId, Frame)>,
    pub(super) turns: u64,
    pub(super) unreachable: BTreeMap<NodeId, u64>,
    pub(super) sent: Vec<(NodeId, bool)>,
    pub(super) snapshots: Vec<(NodeId, Bytes, Result<(), String>)>,
    /// Bytes of the snapshot that arrives, or arrived last.
    pub(super) snapshot: Vec<u8>,
    pub(super) sinks_dropped: u64,
}

/// What a node is to do when asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Behaviour {
    /// The answer to every operator; `None` lets the answer fall.
    pub(super) admin: Option<AdminReply>,
    /// Refuses snapshots.
    pub(super) refuses: Option<String>,
    /// The sink fails at this offset.
    pub(super) sink_fails_at: Option<u64>,
}

/// A shared note of what was heard, to be waited on.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear(Arc<(Mutex<Heard>, Condvar)>);

impl Ear {
    fn note(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.0.0.lock());
        self.0.1.notify_all();
    }

    /// Waits until something has been heard, and gives what the condition gives.
    pub(super) fn wait<T>(&self, what: &str, mut condition: impl FnMut(&Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + GUARD;
        let mut heard = self.0.0.lock();
        loop {
            if let Some(value) = condition(&heard) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never heard: {what}; {} frames, {heard:?}", heard.frames.len());
            self.0.1.wait_for(&mut heard, left);
        }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.0.0.lock())
    }
}

struct Recorder {
    ear: Ear,
    behaviour: Behaviour,
}

struct RecordingSink {
    ear: Ear,
    fails_at: Option<u64>,
}

impl SnapshotSink for RecordingSink {
    fn chunk(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.fails_at.is_some_and(|at| offset >= at) {
            return Err(io::Error::other("no space"));
        }
        self.ear.note(|heard| {
            if offset == 0 {
                heard.snapshot.clear();
            }
            assert_eq!(heard.snapshot.len() as u64, offset);
            heard.snapshot.extend_from_slice(bytes);
        });
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RecordingSink {
    fn drop(&mut self) {
        self.ear.note(|heard| heard.sinks_dropped += 1);
    }
}

impl Handler for Recorder {
    fn received(&mut self, from: NodeId, frame: Frame) {
        self.ear.note(|heard| heard.frames.push((from, frame)));
    }

    fn turn_end(&mut self) {
        self.ear.note(|heard| heard.turns += 1);
    }

    fn unreachable(&mut self, peer: NodeId) {
        self.ear.note(|heard| *heard.unreachable.entry(peer).or_default() += 1);
    }

    fn snapshot_offered(
        &mut self,
        _from: NodeId,
        _meta: &[u8],
        _bytes: u64,
    ) -> Result<Box<dyn SnapshotSink>, String> {
        match &self.behaviour.refuses {
            Some(words) => Err(words.clone()),
            None => {
                Ok(Box::new(RecordingSink { ear: self.ear.clone(), fails_at: self.behaviour.sink_fails_at }))
            }
        }
    }

    fn snapshot_received(&mut self, from: NodeId, meta: Bytes, outcome: Result<(), String>) {
        self.ear.note(|heard| heard.snapshots.push((from, meta, outcome)));
    }

    fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        self.ear.note(|heard| heard.sent.push((to, ok)));
    }

    fn admin(&mut self, request: AdminRequest, answer: Answer<AdminReply>) {
        match &self.behaviour.admin {
            Some(AdminReply::Done { words }) => {
                answer.give(AdminReply::Done { words: format!("{words}: {request:?}") });
            }
            Some(reply) => answer.give(reply.clone()),
            None => drop(answer),
        }
    }

    fn repair(&mut self, from: NodeId, request: RepairRequest, answer: Answer<RepairBlocks>) {
        // From another thread, as a node does it that reads its journal.
        std::thread::spawn(move || {
            let status = RepairStatus { term: from, last_index: request.from_index, ..Default::default() };
            answer.give(RepairBlocks { status, words: String::new(), blocks: vec![9; 3 << 20] });
        });
    }
}

/// A node that records.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) links: Links,
    pub(super) ear: Ear,
}

/// Bounds that make a test quick where it waits for one to pass.
pub(super) fn limits() -> Limits {
    Limits {
        ping_interval: Duration::from_millis(100),
        dial_wait_min: Duration::from_millis(5),
        dial_wait_max: Duration::from_millis(50),
        idle_limit: Duration::from_secs(20),
        login_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        ..Limits::default()
    }
}

pub(super) fn config(id: NodeId, tls: &Tls) -> LinksConfig {
    LinksConfig {
        node: id,
        cluster: 7,
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        peers: BTreeMap::new(),
        tls: tls.clone(),
        limits: limits(),
    }
}

impl Node {
    pub(super) fn start_with(config: LinksConfig, behaviour: Behaviour) -> Self {
        let ear = Ear::default();
        let id = config.node;
        let links = Links::start(config, Recorder { ear: ear.clone(), behaviour }).unwrap();
        Self { id, links, ear }
    }

    pub(super) fn start(id: NodeId, tls: &Tls) -> Self {
        Self::start_with(config(id, tls), Behaviour::default())
    }

    pub(super) fn knows(&self, others: &[&Node]) {
        let peers = others.iter().map(|other| (other.id, other.links.address())).collect();
        self.links.sender().set_peers(peers);
    }

    pub(super) fn wait_up(&self, peer: NodeId) {
        let sender = self.links.sender();
        // The loop turns at least once between the moment a link is up and any wait of ours: every ping is a turn.
        self.ear.wait("the link is up", |_| sender.is_up(peer).then_some(()));
    }

    pub(super) fn wait_down(&self, peer: NodeId) {
        let sender = self.links.sender();
        self.ear.wait("the link is down", |_| (!sender.is_up(peer)).then_some(()));
    }

    /// Sends, and when the queue is full waits for the other to have heard more.
    pub(super) fn send_all(&self, to: &Node, frames: impl Iterator<Item = Bytes>) {
        let sender = self.links.sender();
        for body in frames {
            loop {
                let before = to.ear.look(|heard| heard.frames.len());
                match sender.send(to.id, Frame::Raft(body.clone())) {
                    Sent::Queued => break,
                    Sent::Full => to.ear.wait("room", |heard| (heard.frames.len() > before).then_some(())),
                    Sent::Down => panic!("the link is down"),
                }
            }
        }
    }
}

/// Two nodes that have found each other.
pub(super) fn pair(tls: [&Tls; 2]) -> (Node, Node) {
    let (one, two) = (Node::start(1, tls[0]), Node::start(2, tls[1]));
    one.knows(&[&two]);
    two.knows(&[&one]);
    one.wait_up(2);
    two.wait_up(1);
    (one, two)
}

/// An authority and settings for its nodes.
pub(super) fn cluster() -> (Authority, impl Fn(NodeId) -> Tls) {
    let authority = Authority::make().unwrap();
    let identities: BTreeMap<_, _> = (1..=4).map(|id| (id, authority.issue_node(id).unwrap())).collect();
    (authority, move |id| Tls::Mutual(identities[&id].clone()))
}

/// A body that says which it is.
pub(super) fn numbered(number: u64, len: usize) -> Bytes {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(len.max(8), number as u8);
    Bytes::from(body)
}

pub(super) fn number(frame: &Frame) -> u64 {
    let (Frame::Raft(body) | Frame::Digest(body)) = frame;
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

/// A stranger's socket that speaks frames by hand, without TLS.
pub(super) struct Raw {
    pub(super) stream: std::net::TcpStream,
    input: Vec<u8>,
}

impl Raw {
    pub(super) fn connect(address: SocketAddr) -> Self {
        Self::over(std::net::TcpStream::connect(address).unwrap())
    }

    pub(super) fn over(stream: std::net::TcpStream) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_write_timeout(Some(GUARD)).unwrap();
        Self { stream, input: Vec::new() }
    }

    pub(super) fn hello(&mut self, from: NodeId, to: NodeId, boot: u64, attempt: u64) {
        let epoch = frame::Epoch { boot, attempt };
        let hello = frame::Hello { cluster: 7, role: frame::Role::Peer, from, to, epoch, listens: None };
        let mut bytes = Vec::new();
        hello.put(&mut bytes);
        self.write(&bytes);
    }

    pub(super) fn put(&mut self, kind: Kind, body: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(kind, &[body], &mut bytes);
        self.write(&bytes);
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        io::Write::write_all(&mut self.stream, bytes).unwrap();
    }

    /// The next frame, or `None` at the end.
    pub(super) fn read(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            if let Some(found) = frame::first(&self.input, 1 << 20).unwrap() {
                let (kind, body, len) = (found.kind, found.body.to_vec(), found.len);
                self.input.drain(..len);
                return Some((kind, body));
            }
            let mut chunk = [0; 4096];
            match io::Read::read(&mut self.stream, &mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn welcomed(&mut self) {
        assert_eq!(self.read().map(|(kind, _)| kind), Some(Kind::Welcome));
    }
}
