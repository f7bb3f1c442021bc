//! The loop: one thread that accepts, dials, reads, hands over and writes, in turns. Nothing in it waits for anything but
//! the poll itself. This file turns and holds; next door, `logins` makes connections of sockets, `frames` hands over what
//! comes on them, `sending` puts what waits on them.

mod frames;
mod logins;
mod sending;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::connection::{Connection, End, Purpose, READ_CHUNK};
use super::epoch::Newest;
use super::queue::SendQueue;
use super::session::Security;
use super::snapshot::{Incoming, Outgoing};
use super::{Handler, Limits, LinksConfig, NodeId, Shared, Told};

const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
/// Tokens of connections begin here; none is ever used twice.
const FIRST_CONNECTION: u64 = 2;
/// The longest turn while a caller waits for the handler's answer, which may depend on what no frame tells.
const OWED_TURN: Duration = Duration::from_millis(100);
/// Reads of one connection in one turn, so that a talkative peer does not starve the others.
const READS_PER_TURN: usize = 8;
/// Lines about strangers in one span; the rest is counted.
const COMPLAINTS_MAX: usize = 20;
const COMPLAINTS_SPAN: Duration = Duration::from_secs(60);
/// How long accepting rests when the system has no descriptor to give.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The handler and everything else, apart, because what comes in is handed over while everything else changes.
pub(super) struct Loop<H> {
    handler: H,
    desk: Desk,
}

/// What the parts of a turn share; only this file and those below it see inside.
struct Desk {
    node: NodeId,
    cluster: u64,
    /// Told in every Hello.
    listens: SocketAddr,
    limits: Limits,
    security: Security,
    poll: Poll,
    listener: TcpListener,
    shared: Arc<Shared>,
    /// Read once a turn.
    now: Instant,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    peers: BTreeMap<NodeId, Peer>,
    receiving: BTreeMap<NodeId, Receiving>,
    /// Numbers for transfers, both ways.
    last_transfer: u64,
    /// Tells this start from all others.
    boot: u64,
    /// Connections to serve in the next turn without waiting for the poll.
    again: BTreeSet<u64>,
    accept_again: bool,
    /// When to try to accept again after the system could not.
    accept_at: Option<Instant>,
    /// More is to be sent than one turn sends.
    send_again: bool,
    /// Transfers that are over: to whom, and whether it has arrived.
    over: Vec<(NodeId, bool)>,
    complaints: Complaints,
    /// What is being put together to be sent.
    scratch: Vec<u8>,
    /// What a socket is read into.
    chunk: Box<[u8; READ_CHUNK]>,
}

/// Another node, in both directions.
struct Peer {
    /// Where it listens, if that is known.
    address: Option<SocketAddr>,
    /// The venue named it; else it came by itself with the right certificate, and goes when its connection does.
    named: bool,
    queue: Arc<Mutex<SendQueue>>,
    /// Our connection to it.
    dialled: Option<u64>,
    /// Counts those.
    attempt: u64,
    backoff: Backoff,
    /// When to dial it, if it is not dialled.
    dial_at: Option<Instant>,
    /// Its connections to us.
    newest: Newest,
    sending: Option<Outgoing>,
    /// The last failure that was logged loudly; the same again is not.
    said: Option<String>,
}

/// A snapshot on its way in.
struct Receiving {
    connection: u64,
    /// Ours; the sender's own number may come again after its restart.
    serial: u64,
    meta: Bytes,
    incoming: Incoming,
}

impl<H: Handler> Loop<H> {
    pub(super) fn new(
        config: LinksConfig,
        address: SocketAddr,
        security: Security,
        poll: Poll,
        mut listener: TcpListener,
        shared: Arc<Shared>,
        handler: H,
    ) -> std::io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let now = Instant::now();
        let LinksConfig { node, cluster, advertise, peers, limits, .. } = config;
        let mut desk = Desk {
            node,
            cluster,
            listens: advertise.unwrap_or(address),
            limits,
            security,
            poll,
            listener,
            shared,
            now,
            connections: HashMap::new(),
            next_connection: FIRST_CONNECTION,
            peers: BTreeMap::new(),
            receiving: BTreeMap::new(),
            last_transfer: 0,
            boot: rand::random(),
            again: BTreeSet::new(),
            accept_again: true,
            accept_at: None,
            send_again: false,
            over: Vec::new(),
            complaints: Complaints::new(now),
            scratch: Vec::new(),
            chunk: Box::new([0; READ_CHUNK]),
        };
        desk.set_peers(peers);
        Ok(Self { handler, desk })
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let timeout = self.desk.patience();
            match self.desk.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("the links cannot poll: {error}"),
            }
            self.desk.shared.attention.begin_turn();
            self.desk.now = Instant::now();
            if self.desk.shared.stop.load(Ordering::Acquire) {
                self.desk.halt();
                return;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.desk.accept_again = true,
                    WAKER => {}
                    Token(id) => self.desk.note_readiness(id as u64, event),
                }
            }
            if self.desk.accept_again || self.desk.accept_at.is_some_and(|at| at <= self.desk.now) {
                self.desk.accept();
            }
            while let Some(told) = self.desk.shared.told.pop() {
                self.hear(told);
            }
            for id in std::mem::take(&mut self.desk.again) {
                self.serve(id);
            }
            self.desk.watch();
            self.bury();
            self.tell_dropped();
            self.handler.turn_end();
            self.desk.dial_due();
            // Whoever puts something in line after this wakes the poll; what was put in before is seen below.
            self.desk.shared.attention.end_turn();
            self.desk.send_all();
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Peers(peers) => self.desk.set_peers(peers),
            Told::Reply { connection, kind, body } => self.desk.reply(connection, kind, &body),
            Told::Snapshot { from, serial, report } => self.hear_writer(from, serial, report),
        }
    }

    /// Reads from one connection and hands over what is whole.
    fn serve(&mut self, id: u64) {
        let Some(mut connection) = self.desk.connections.remove(&id) else {
            return;
        };
        let mut reads = 0;
        loop {
            self.hand_over(id, &mut connection);
            let busy = matches!(connection.purpose, Purpose::Service { busy: true, .. });
            if connection.end.is_some() || busy || !connection.readable {
                break;
            }
            if reads == READS_PER_TURN {
                self.desk.again.insert(id);
                break;
            }
            reads += 1;
            connection.fill(&mut self.desk.chunk, self.desk.now);
        }
        // Somebody who pings and never reads must not make answers pile up here.
        if connection.backlog() > sending::BACKLOG_MAX && matches!(connection.purpose, Purpose::FromPeer(_)) {
            connection.close_loud("it does not read what it is answered");
        }
        connection.flush(self.desk.now);
        self.desk.connections.insert(id, connection);
    }

    /// Takes away what has ended, and tells whom it concerns.
    fn bury(&mut self) {
        loop {
            let ended: Vec<u64> =
                self.desk.connections.iter().filter(|(_, c)| c.end.is_some()).map(|(&id, _)| id).collect();
            if ended.is_empty() {
                break;
            }
            for id in ended {
                if let Some(connection) = self.desk.connections.remove(&id) {
                    self.bury_one(id, connection);
                }
            }
        }
        for (to, ok) in std::mem::take(&mut self.desk.over) {
            self.handler.snapshot_sent(to, ok);
        }
    }

    fn bury_one(&mut self, id: u64, mut connection: Connection) {
        let desk = &mut self.desk;
        // A refusal or an alert tells the other side why.
        connection.flush(desk.now);
        // Fails only for what was never registered.
        let _ = desk.poll.registry().deregister(&mut connection.stream);
        let (words, loud) = match connection.end.take() {
            Some(End::Loud(words)) => (words, true),
            Some(End::Plain(words)) => (words, false),
            None => ("the links stop".to_owned(), false),
        };
        let address = connection.address;
        match connection.purpose {
            Purpose::Knocking => desk.complaints.say(desk.now, address, &words),
            Purpose::Service { role, from, .. } if loud => {
                warn!(?role, from, %address, "a caller's connection was closed: {words}");
            }
            Purpose::Service { role, from, .. } => debug!(?role, from, %address, "a caller left: {words}"),
            Purpose::FromPeer(peer) => {
                let counted = desk.peers.get_mut(&peer).is_some_and(|peer| peer.newest.closed(id));
                if loud {
                    warn!(peer, %address, "a peer's connection was closed: {words}");
                } else if counted {
                    info!(peer, %address, "a peer's connection ended: {words}");
                }
                if let Some(receiving) = desk.receiving.get_mut(&peer)
                    && receiving.connection == id
                {
                    receiving.incoming.break_off(format!("the connection ended: {words}"));
                }
                if counted {
                    desk.forget_guest(peer);
                }
            }
            Purpose::ToPeer { peer, up } => {
                let now = desk.now;
                let Some(state) = desk.peers.get_mut(&peer).filter(|state| state.dialled == Some(id)) else {
                    return;
                };
                let wait = state.backoff.wait();
                state.dialled = None;
                state.dial_at = Some(now + wait);
                state.sending = None;
                let mut queue = state.queue.lock();
                let dropped = up | queue.take_dropped();
                let snapshot = queue.set_down();
                drop(queue);
                let again = state.said.as_deref() == Some(words.as_str());
                if up {
                    warn!(peer, %address, "the link was lost: {words}");
                } else if again {
                    debug!(peer, %address, "still no link: {words}");
                } else {
                    warn!(peer, %address, "no link: {words}; it is dialled again until it answers");
                }
                state.said = Some(words);
                if snapshot {
                    self.handler.snapshot_sent(peer, false);
                }
                if dropped {
                    self.handler.unreachable(peer);
                }
            }
        }
    }

    /// Reports peers whose queues were full.
    fn tell_dropped(&mut self) {
        for (&peer, state) in &self.desk.peers {
            let dropped = {
                let mut queue = state.queue.lock();
                queue.is_up() && queue.take_dropped()
            };
            if dropped {
                debug!(peer, "its queue was full; messages were dropped");
                self.handler.unreachable(peer);
            }
        }
    }
}

impl Desk {
    /// How long the poll may sleep.
    fn patience(&self) -> Option<Duration> {
        if self.accept_again
            || self.send_again
            || !self.again.is_empty()
            || !self.over.is_empty()
            || !self.shared.told.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let mut next: Option<Instant> = self.accept_at;
        let mut earlier = |at: Instant| next = Some(next.map_or(at, |so_far| so_far.min(at)));
        for connection in self.connections.values() {
            if connection.end.is_some() {
                return Some(Duration::ZERO);
            }
            earlier(connection.deadline(&self.limits));
            if let Purpose::Service { busy: true, .. } = connection.purpose {
                earlier(now + OWED_TURN);
            }
        }
        for peer in self.peers.values() {
            if let (None, Some(at), Some(_)) = (peer.dialled, peer.dial_at, peer.address) {
                earlier(at);
            }
            if let Some(sending) = &peer.sending {
                earlier(sending.moved() + self.limits.snapshot_stall);
            }
        }
        // A millisecond more, so that the deadline has passed when the poll returns.
        next.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn note_readiness(&mut self, id: u64, event: &Event) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.connecting {
            match connection.stream.take_error() {
                Ok(None) if connection.stream.peer_addr().is_ok() => {
                    connection.connecting = false;
                    connection.writable = true;
                    connection.opened = self.now;
                }
                Ok(None) => return,
                Ok(Some(error)) | Err(error) => {
                    connection.close(error.to_string());
                    return;
                }
            }
        }
        if event.is_writable() {
            connection.writable = true;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            self.again.insert(id);
        }
    }

    /// Ends what has been silent, stalled or knocking for too long, and pings who is due.
    fn watch(&mut self) {
        let (now, limits) = (self.now, &self.limits);
        for connection in self.connections.values_mut() {
            if connection.end.is_some() || connection.deadline(limits) > now {
                continue;
            }
            if connection.stalled_since().is_some_and(|since| since + limits.idle_limit <= now) {
                // A socket that has just said that it takes more is written to at the end of this turn.
                if !connection.writable {
                    connection.close_loud(format!("it has not read for {:?}", limits.idle_limit));
                }
                continue;
            }
            match connection.purpose {
                Purpose::ToPeer { up: true, .. } if !connection.ping_open => {
                    connection.ping_open = true;
                    connection.pinged = now;
                    connection.put(super::frame::Kind::Ping, &[]);
                }
                Purpose::ToPeer { up: true, .. } => {
                    connection.close_loud(format!("no sign of life for {:?}", limits.idle_limit));
                }
                Purpose::FromPeer(_) => connection.close(format!("silent for {:?}", limits.idle_limit)),
                Purpose::Knocking => {
                    connection.close(format!("no login within {:?}", limits.login_timeout));
                }
                Purpose::ToPeer { .. } if connection.connecting => {
                    connection.close(format!("not reached within {:?}", limits.connect_timeout));
                }
                Purpose::ToPeer { up: false, .. } => {
                    connection.close(format!("no answer within {:?}", limits.login_timeout));
                }
                Purpose::Service { .. } => connection.close("it has not asked anything for a while"),
            }
        }
        for (&peer, state) in &mut self.peers {
            if let Some(sending) = &state.sending
                && sending.moved() + limits.snapshot_stall <= now
                && let Some(connection) = state.dialled.and_then(|id| self.connections.get_mut(&id))
            {
                let words = format!("the snapshot has not moved for {:?}", limits.snapshot_stall);
                warn!(peer, "{words}; it is given up");
                let abort = super::snapshot::Abort { id: sending.id(), words };
                connection.put(super::frame::Kind::SnapshotAbort, &super::frame::to_bytes(&abort));
                state.sending = None;
                state.queue.lock().snapshot_over();
                self.over.push((peer, false));
            }
        }
    }

    /// Writes what is left to be written, if the sockets take it, and breaks off what arrives.
    fn halt(&mut self) {
        for connection in self.connections.values_mut() {
            connection.flush(self.now);
        }
        self.connections.clear();
        for state in self.peers.values() {
            state.queue.lock().set_down();
        }
        for receiving in self.receiving.values_mut() {
            receiving.incoming.break_off("the node is stopping".to_owned());
            receiving.incoming.join();
        }
    }
}

/// Lines about strangers at the door: enough to see what is wrong, not enough to fill a disk. The same words about the same
/// host come once in a span, and not more than [`COMPLAINTS_MAX`] of them.
struct Complaints {
    since: Instant,
    said: BTreeSet<(IpAddr, String)>,
    hidden: u64,
}

impl Complaints {
    fn new(now: Instant) -> Self {
        Self { since: now, said: BTreeSet::new(), hidden: 0 }
    }

    fn say(&mut self, now: Instant, address: SocketAddr, words: &str) {
        if now.duration_since(self.since) >= COMPLAINTS_SPAN {
            if self.hidden > 0 {
                warn!(more = self.hidden, "connections were refused, for the reasons that were named");
            }
            *self = Self::new(now);
        }
        if self.said.len() < COMPLAINTS_MAX && self.said.insert((address.ip(), words.to_owned())) {
            warn!(%address, "a connection was refused: {words}");
        } else {
            self.hidden += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_about_the_same_host_is_made_once_in_a_span() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for port in 1..100 {
            complaints.say(start, at(port), "garbage");
        }
        assert_eq!((complaints.said.len(), complaints.hidden), (1, 98));
        for word in 0..100 {
            complaints.say(start, at(1), &format!("garbage {word}"));
        }
        assert_eq!((complaints.said.len(), complaints.hidden), (COMPLAINTS_MAX, 98 + 81));
        complaints.say(start + COMPLAINTS_SPAN, at(1), "garbage");
        assert_eq!((complaints.said.len(), complaints.hidden), (1, 0));
    }
}
