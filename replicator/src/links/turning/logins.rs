//! How sockets become connections: accepting and dialling, Hello and Welcome, who may come in and which of a peer's
//! connections counts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::super::backoff::Backoff;
use super::super::connection::{Connection, Purpose, explain};
use super::super::epoch::Newest;
use super::super::frame::{self, Epoch, Hello, Kind, Refusal, RefusalCode, Role, Welcome};
use super::super::identity::node_name;
use super::super::queue::SendQueue;
use super::{ACCEPT_REST, Desk, NodeId, Peer};

/// A peer that answers at all is reached sooner.
const HOPELESS: Duration = Duration::from_millis(200);

impl Desk {
    /// Takes who knocks.
    pub(super) fn accept(&mut self) {
        self.accept_again = false;
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => self.take_in(stream, address),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, or a connection that was gone already. The listener does not tell a second time
                    // about those that still wait.
                    self.complaints.say(self.now, self.listens, &format!("it cannot be accepted: {error}"));
                    self.accept_at = Some(self.now + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    fn take_in(&mut self, stream: TcpStream, address: SocketAddr) {
        self.make_room_to_knock();
        let session = match self.security.accept() {
            Ok(session) => session,
            Err(error) => return self.complaints.say(self.now, address, &explain(&error)),
        };
        let mut connection = Connection::new(stream, address, session, Purpose::Knocking, self.now);
        connection.readable = true;
        connection.writable = true;
        if let Err(error) = self.keep(connection) {
            self.complaints.say(self.now, address, &format!("the system does not let it be polled: {error}"));
        }
    }

    /// Shows out who has knocked longest of the host that knocks most, if too many knock: one host that opens sockets and
    /// says nothing takes the room of its own, not that of others.
    fn make_room_to_knock(&mut self) {
        let mut hosts: BTreeMap<IpAddr, Vec<u64>> = BTreeMap::new();
        for (&id, connection) in &self.connections {
            if connection.purpose == Purpose::Knocking && connection.end.is_none() {
                hosts.entry(connection.address.ip()).or_default().push(id);
            }
        }
        let knocking: usize = hosts.values().map(Vec::len).sum();
        if knocking < self.limits.knocking_max {
            return;
        }
        let busiest = hosts.into_values().max_by_key(Vec::len);
        let oldest = busiest.and_then(|ids| ids.into_iter().min());
        if let Some(connection) = oldest.and_then(|id| self.connections.get_mut(&id)) {
            connection.close("too many others knock, and it has said nothing for longest");
        }
    }

    /// Registers a connection and gives its number.
    fn keep(&mut self, mut connection: Connection) -> std::io::Result<u64> {
        // Messages are sent in batches of a turn; waiting for more would only delay them.
        let _ = connection.stream.set_nodelay(true);
        let id = self.next_connection;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, Token(id as usize), interest)?;
        self.next_connection += 1;
        if connection.readable {
            self.again.insert(id);
        }
        self.connections.insert(id, connection);
        Ok(id)
    }

    /// Dials whoever is to be dialled by now.
    pub(super) fn dial_due(&mut self) {
        let due: Vec<(NodeId, SocketAddr)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dialled.is_none() && peer.dial_at.is_some_and(|at| at <= self.now))
            .filter_map(|(&id, peer)| Some((id, peer.address?)))
            .collect();
        for (peer, address) in due {
            let dialled = self.dial(peer, address);
            let now = self.now;
            let Some(state) = self.peers.get_mut(&peer) else {
                continue;
            };
            match dialled {
                Ok(id) => {
                    state.dialled = Some(id);
                    state.dial_at = None;
                }
                Err(words) => {
                    state.dial_at = Some(now + state.backoff.wait());
                    if state.said.as_ref() != Some(&words) {
                        warn!(peer, %address, "no link: {words}; it is dialled again until it answers");
                        state.said = Some(words);
                    }
                }
            }
        }
    }

    fn dial(&mut self, peer: NodeId, address: SocketAddr) -> Result<u64, String> {
        let attempt = self.peers.get_mut(&peer).map_or(0, |state| {
            state.attempt += 1;
            state.attempt
        });
        let session = self.security.dial(&node_name(peer)).map_err(|error| explain(&error))?;
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let purpose = Purpose::ToPeer { peer, up: false };
        let mut connection = Connection::new(stream, address, session, purpose, self.now);
        let hello = Hello {
            cluster: self.cluster,
            role: Role::Peer,
            from: self.node,
            to: peer,
            epoch: Epoch { boot: self.boot, attempt },
            listens: Some(self.listens),
        };
        let mut frames = Vec::new();
        hello.put(&mut frames);
        connection.seal(&frames);
        self.keep(connection).map_err(|error| error.to_string())
    }

    /// A knocking connection says Hello.
    pub(super) fn admit(&mut self, id: u64, connection: &mut Connection, body: &[u8]) {
        match self.place(id, connection, body) {
            Ok((purpose, who)) => {
                connection.purpose = purpose;
                connection.put(Kind::Welcome, &frame::to_bytes(&Welcome { node: self.node }));
                info!(address = %connection.address, "{who} is connected");
            }
            Err(refusal) => {
                connection.put(Kind::Refused, &frame::to_bytes(&refusal));
                connection.close_loud(refusal.words);
            }
        }
    }

    /// What a Hello makes of a connection.
    fn place(&mut self, id: u64, connection: &Connection, body: &[u8]) -> Result<(Purpose, String), Refusal> {
        let hello = Hello::read(body)?;
        hello.check(self.cluster, self.node, |name| connection.certified(name))?;
        let Hello { role, from, epoch, listens, .. } = hello;
        if role != Role::Peer {
            let services =
                self.connections.values().filter(|c| matches!(c.purpose, Purpose::Service { .. })).count();
            if services >= self.limits.services_max {
                let words = format!("{services} callers are connected already; ask again");
                return Err(Refusal::new(RefusalCode::Full, words));
            }
            let who = match role {
                Role::Operator => "an operator".to_owned(),
                _ => format!("node {from}, to repair its journal,"),
            };
            return Ok((Purpose::Service { role, from, busy: false }, who));
        }
        let listens = listens.map(|mut address| {
            if address.ip().is_unspecified() {
                address.set_ip(connection.address.ip());
            }
            address
        });
        self.meet(from, listens)?;
        let Some(peer) = self.peers.get_mut(&from) else {
            return Err(Refusal::new(RefusalCode::Full, "no more guests"));
        };
        let rebooted = peer.newest.boot().is_some_and(|boot| boot != epoch.boot);
        let older = peer.newest.admit(epoch, id).map_err(|stale| {
            let words = format!("connection {} of node {from} has come already", stale.newest.attempt);
            Refusal::new(RefusalCode::Stale, words)
        })?;
        // Its unread bytes are never looked at again: from here on only the newer one counts.
        if let Some(older) = older.and_then(|older| self.connections.get_mut(&older)) {
            if rebooted {
                warn!(
                    from,
                    old = %older.address,
                    new = %connection.address,
                    "a second process says it is this node, or it was restarted without a goodbye"
                );
            }
            older.close(format!("node {from} has a newer connection"));
        }
        self.dial_back(from);
        Ok((Purpose::FromPeer(from), format!("node {from}")))
    }

    /// A peer that dials is there: it is dialled at once, whatever wait or hopeless attempt there is.
    fn dial_back(&mut self, peer: NodeId) {
        let now = self.now;
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.backoff.reset();
        match state.dialled.and_then(|id| self.connections.get_mut(&id)) {
            None => state.dial_at = Some(now),
            Some(attempt) if attempt.connecting && now.duration_since(attempt.opened) > HOPELESS => {
                attempt.close("it has come by itself and is dialled anew");
            }
            Some(_) => {}
        }
    }

    /// Makes room for a peer that nobody has named: a member of which this node has not heard yet. The certificate
    /// vouches for it; what it says is the core's to judge.
    fn meet(&mut self, from: NodeId, listens: Option<SocketAddr>) -> Result<(), Refusal> {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&from) {
            if !peer.named && peer.address != listens {
                peer.address = listens;
                peer.dial_at.get_or_insert(now);
            }
            return Ok(());
        }
        let guests = self.peers.values().filter(|peer| !peer.named).count();
        if guests >= self.limits.guests_max {
            let words = format!("node {from} is not known here, and {guests} others are not either");
            return Err(Refusal::new(RefusalCode::Full, words));
        }
        self.add_peer(from, listens, false);
        Ok(())
    }

    fn add_peer(&mut self, peer: NodeId, address: Option<SocketAddr>, named: bool) {
        let queue = Arc::new(Mutex::new(SendQueue::new(self.shared.bounds)));
        self.shared.queues.write().insert(peer, Arc::clone(&queue));
        let limits = &self.limits;
        let backoff = Backoff::new(limits.dial_wait_min, limits.dial_wait_max, self.boot ^ peer);
        let state = Peer {
            address,
            named,
            queue,
            dialled: None,
            attempt: 0,
            backoff,
            dial_at: Some(self.now),
            newest: Newest::default(),
            sending: None,
            said: None,
        };
        self.peers.insert(peer, state);
    }

    /// Forgets a peer that nobody named, when its own connection is gone.
    pub(super) fn forget_guest(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(|state| !state.named) {
            self.remove_peer(peer, "it came unnamed and has left");
        }
    }

    fn remove_peer(&mut self, peer: NodeId, words: &str) {
        let Some(state) = self.peers.remove(&peer) else {
            return;
        };
        self.shared.queues.write().remove(&peer);
        if state.queue.lock().set_down() {
            self.over.push((peer, false));
        }
        for id in [state.dialled, state.newest.connection()].into_iter().flatten() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.close(words);
            }
        }
    }

    /// Says where the others listen from now on.
    pub(super) fn set_peers(&mut self, mut peers: BTreeMap<NodeId, SocketAddr>) {
        peers.remove(&self.node);
        let gone: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(id, state)| state.named && !peers.contains_key(id))
            .map(|(&id, _)| id)
            .collect();
        for peer in gone {
            info!(peer, "it is no peer any more");
            self.remove_peer(peer, "it is no peer any more");
        }
        for (peer, address) in peers {
            let Some(state) = self.peers.get_mut(&peer) else {
                self.add_peer(peer, Some(address), true);
                continue;
            };
            state.named = true;
            if state.address == Some(address) {
                continue;
            }
            state.address = Some(address);
            state.dial_at = Some(self.now);
            state.backoff.reset();
            if let Some(connection) = state.dialled.and_then(|id| self.connections.get_mut(&id)) {
                connection.close(format!("it listens at {address} now"));
            }
        }
    }

    /// The peer that was dialled answers.
    pub(super) fn welcomed(&mut self, connection: &mut Connection, peer: NodeId, body: &[u8]) {
        match frame::from_bytes::<Welcome>(body) {
            Some(welcome) if welcome.node == peer => {}
            Some(welcome) => {
                return connection.close_loud(format!("node {} answered for node {peer}", welcome.node));
            }
            None => return connection.close_loud("a Welcome that cannot be read"),
        }
        connection.purpose = Purpose::ToPeer { peer, up: true };
        connection.pinged = self.now;
        if let Some(state) = self.peers.get_mut(&peer) {
            state.backoff.reset();
            state.said = None;
            state.queue.lock().set_up();
            info!(peer, address = %connection.address, "the link is up");
        }
    }
}
