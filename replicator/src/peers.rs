//! Between the links and the core: what peers and operators say goes to the core, what the core says goes out.
//!
//! The links' thread and the core's lock must never wait for a disk or a resolver, so whatever does is the [`Courier`]'s work:
//! checking a snapshot before it is sent, and finding the addresses of members.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, unbounded};
use grid_sequencer::{
    Driver, Durability, Machine, NodeId, SnapshotReceiver, SnapshotSource, SnapshotStore, abort_on_panic,
};
use parking_lot::Mutex;

use crate::core::{
    Addresses, ChangeRefused, CoreStatus, MemberChange, Members, MessageKind, Outbox, PeerMessage, RaftCore,
    Received, Role, Standing, TransferRefused,
};
use crate::digests::Digest;
use crate::links::admin::{AdminRefusal, MemberStatus, NodeRole, Status};
use crate::links::{
    self, AdminReply, AdminRequest, Answer, Frame, Handler, RepairBlocks, RepairRequest, Sent, SnapshotSink,
};
use crate::node::NodeEvent;
use crate::repair;
use crate::replica::Replica;

/// What several threads of a node need to know of it.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: u64,
    node: NodeId,
    durability: Durability,
    members: Mutex<Members>,
}

impl Shared {
    pub(crate) fn new(cluster: u64, node: NodeId, members: Members, durability: Durability) -> Self {
        Self { cluster, node, durability, members: Mutex::new(members) }
    }

    /// Where a member takes orders.
    pub(crate) fn orders_address(&self, node: NodeId) -> Option<SocketAddr> {
        self.members.lock().get(node)?.addresses.orders.parse().ok()
    }

    /// Every other member.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.members.lock().iter().map(|(node, _)| node).filter(|node| *node != self.node).collect()
    }
}

/// Where the links of the other members listen; a name that does not resolve is left out and said.
pub(crate) fn addresses(members: &Members, own: NodeId) -> BTreeMap<NodeId, SocketAddr> {
    let others = members.iter().filter(|(node, _)| *node != own);
    let resolved = others.filter_map(|(node, member)| {
        let text = &member.addresses.peer;
        match text.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => Some((node, address)),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(node, address = text, %error, "the address of a member does not resolve");
                None
            }
        }
    });
    resolved.collect()
}

/// An errand for the courier.
enum Errand {
    Snapshot { to: NodeId, message: PeerMessage },
    Members(Members),
}

/// Tells the core that a snapshot could not be sent to a peer.
pub(crate) type Report = Box<dyn Fn(NodeId) + Send + Sync>;

/// Does what must not be done under the core's lock.
pub(crate) struct Courier {
    desk: Option<Sender<Errand>>,
    failed: Arc<OnceLock<Report>>,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    pub(crate) fn start(
        sender: Option<links::Sender>,
        snapshots: SnapshotStore,
        shared: Arc<Shared>,
        events: Sender<NodeEvent>,
    ) -> io::Result<Self> {
        let (desk, errands) = unbounded();
        let failed = Arc::new(OnceLock::new());
        let report = Arc::clone(&failed);
        let run = move || {
            abort_on_panic("courier", || {
                courier(&errands, sender.as_ref(), &snapshots, &shared, &events, &report)
            })
        };
        let thread = std::thread::Builder::new().name("courier".to_owned()).spawn(run)?;
        Ok(Self { desk: Some(desk), failed, thread: Some(thread) })
    }

    /// Where errands are left.
    pub(crate) fn desk(&self) -> CourierDesk {
        CourierDesk(self.desk.clone().expect("it has not been stopped"))
    }

    /// Says how a snapshot that could not be sent is reported.
    pub(crate) fn drive_with(&self, report: Report) {
        let _ = self.failed.set(report);
    }

    /// Ends the thread once every desk but this is gone; those in the core go with it.
    pub(crate) fn stop(mut self) {
        drop(self.desk.take());
        // The core's own desk lives as long as the core, which may be shared; the thread ends with the last of them.
        drop(self.thread.take());
    }
}

pub(crate) struct CourierDesk(Sender<Errand>);

fn courier(
    errands: &Receiver<Errand>,
    sender: Option<&links::Sender>,
    snapshots: &SnapshotStore,
    shared: &Shared,
    events: &Sender<NodeEvent>,
    failed: &OnceLock<Report>,
) {
    for errand in errands {
        match errand {
            Errand::Members(members) => {
                let was = std::mem::replace(&mut *shared.members.lock(), members.clone());
                if was.get(shared.node).is_some() && members.get(shared.node).is_none() {
                    let _ = events.send(NodeEvent::Removed);
                }
                if let Some(sender) = sender {
                    sender.set_peers(addresses(&members, shared.node));
                }
            }
            Errand::Snapshot { to, message } => {
                let Some(sender) = sender else { continue };
                if let Err(why) = send_snapshot(sender, snapshots, to, &message) {
                    tracing::warn!(to, why, "a snapshot was not sent; it will be tried again");
                    if let Some(report) = failed.get() {
                        report(to);
                    }
                }
            }
        }
    }
}

fn send_snapshot(
    sender: &links::Sender,
    snapshots: &SnapshotStore,
    to: NodeId,
    message: &PeerMessage,
) -> Result<(), String> {
    // The core announces it again when nothing is told of it for long; then it is still on its way, and nothing new.
    if sender.is_sending_snapshot(to) {
        return Ok(());
    }
    let newest = snapshots.open_for_sending().map_err(|error| error.to_string())?;
    let newest = newest.ok_or("there is no snapshot that reads")?;
    let position = newest.meta().position;
    // A newer one than was announced serves as well, and the message has to say which it is.
    let message = message.clone().announcing(position.index, position.term);
    let (meta, bytes) = (encoded(&message), newest.len());
    let source = Box::new(Sending { source: newest, at: 0 });
    sender.send_snapshot(to, meta, bytes, source).map_err(|error| error.to_string())
}

fn encoded(message: &PeerMessage) -> Bytes {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    Bytes::from(bytes)
}

struct Sending {
    source: SnapshotSource,
    at: u64,
}

impl io::Read for Sending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read_at(buffer, self.at).map_err(io::Error::other)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The core's way out, over the links.
pub(crate) struct LinkOutbox {
    sender: Option<links::Sender>,
    courier: CourierDesk,
}

impl LinkOutbox {
    pub(crate) fn new(sender: Option<links::Sender>, courier: CourierDesk) -> Self {
        Self { sender, courier }
    }
}

impl Outbox for LinkOutbox {
    fn send(&mut self, to: NodeId, message: PeerMessage) {
        let Some(sender) = &self.sender else { return };
        if message.kind() == MessageKind::Snapshot {
            // It fails only when the node is stopping.
            let _ = self.courier.0.send(Errand::Snapshot { to, message });
            return;
        }
        // A full queue is told by the links when they find the time.
        let _: Sent = sender.send(to, Frame::Raft(encoded(&message)));
    }

    fn members_changed(&mut self, members: &Members) {
        let _ = self.courier.0.send(Errand::Members(members.clone()));
    }
}

/// An operator's request that is done when the core says so.
struct Owed {
    until: Until,
    term: u64,
    answer: Answer<AdminReply>,
}

enum Until {
    /// The change at this index is applied and the members are whole again.
    Changed(u64),
    /// Another node leads.
    Handed(NodeId),
}

/// The links' handler: see the module.
pub(crate) struct Peers<M: Machine> {
    driver: Driver<RaftCore, M::Command>,
    replica: Arc<Replica<M>>,
    shared: Arc<Shared>,
    sender: links::Sender,
    snapshots: SnapshotStore,
    events: Sender<NodeEvent>,
    messages: Vec<(NodeId, PeerMessage)>,
    lost: Vec<NodeId>,
    owed: Vec<Owed>,
    /// The node must not go on; its peers are no longer listened to.
    over: Arc<AtomicBool>,
}

impl<M: Machine> Peers<M> {
    pub(crate) fn new(
        driver: Driver<RaftCore, M::Command>,
        replica: Arc<Replica<M>>,
        shared: Arc<Shared>,
        sender: links::Sender,
        snapshots: SnapshotStore,
        events: Sender<NodeEvent>,
    ) -> Self {
        Self {
            driver,
            replica,
            shared,
            sender,
            snapshots,
            events,
            messages: Vec::new(),
            lost: Vec::new(),
            owed: Vec::new(),
            over: Arc::new(AtomicBool::new(false)),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn end(&self, event: NodeEvent) {
        self.over.store(true, Ordering::Release);
        // The owner may be gone already.
        let _ = self.events.send(event);
    }

    fn change(&mut self, change: &MemberChange, answer: Answer<AdminReply>) {
        let (changed, status) = self.driver.drive(|core| (core.change_members(change), core.status()));
        match changed {
            Ok(index) => self.owed.push(Owed { until: Until::Changed(index), term: status.term, answer }),
            Err(ChangeRefused::NotLeader) => answer.give(self.not_leader(&status)),
            Err(refused) => {
                let code = match refused {
                    ChangeRefused::NotReady
                    | ChangeRefused::ChangeInProgress
                    | ChangeRefused::NotCaughtUp => AdminRefusal::Busy,
                    _ => AdminRefusal::Invalid,
                };
                answer.give(AdminReply::Refused { code, words: refused.to_string() });
            }
        }
    }

    fn transfer(&mut self, to: NodeId, answer: Answer<AdminReply>) {
        let (handed, status) = self.driver.drive(|core| (core.transfer_leadership(to), core.status()));
        match handed {
            Ok(()) => self.owed.push(Owed { until: Until::Handed(to), term: status.term, answer }),
            Err(TransferRefused::NotLeader) => answer.give(self.not_leader(&status)),
            Err(refused) => {
                answer.give(AdminReply::Refused { code: AdminRefusal::Invalid, words: refused.to_string() });
            }
        }
    }

    fn not_leader(&self, status: &CoreStatus) -> AdminReply {
        let address =
            status.leader.and_then(|leader| addresses(&status.members, self.shared.node).remove(&leader));
        AdminReply::NotLeader { leader: status.leader, address }
    }

    /// Answers the operators whose requests are done, or never will be.
    fn settle(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let status = self.driver.drive(|core| core.status());
        let leads = status.role == Role::Leader;
        for owed in self.owed.extract_if(.., |owed| match owed.until {
            Until::Changed(index) => {
                !leads || status.term != owed.term || (status.applied >= index && !status.members.is_joint())
            }
            Until::Handed(_) => status.leader.is_some() && !leads || (leads && status.transfer_to.is_none()),
        }) {
            let reply = match owed.until {
                Until::Changed(index) if leads && status.term == owed.term => {
                    AdminReply::Done { words: format!("the members have changed with block {index}") }
                }
                Until::Handed(to) if status.leader == Some(to) => {
                    AdminReply::Done { words: format!("node {to} leads in term {}", status.term) }
                }
                Until::Handed(to) if leads => AdminReply::Refused {
                    code: AdminRefusal::Busy,
                    words: format!("node {to} did not take over in time; this node goes on leading"),
                },
                _ => AdminReply::Refused {
                    code: AdminRefusal::Unsure,
                    words: "leadership changed meanwhile; ask for the status to see what came of it"
                        .to_owned(),
                },
            };
            owed.answer.give(reply);
        }
    }

    fn status(&self) -> Status {
        let core = self.driver.drive(|core| core.status());
        let position = self.replica.read_at(|_, position| position);
        let members = core.members.iter().map(|(node, member)| {
            let seen = core.peers.iter().find(|peer| peer.node == node);
            let own = node == self.shared.node;
            MemberStatus {
                node,
                voter: member.voter || member.outgoing,
                peer_address: member.addresses.peer.clone(),
                binary_address: member.addresses.orders.clone(),
                linked: own || self.sender.is_up(node),
                matched: seen.map(|peer| peer.matched).or_else(|| own.then_some(core.persisted)),
                active: seen.map(|peer| peer.recent_active).or_else(|| own.then_some(true)),
                receives_snapshot: seen.is_some_and(|peer| peer.pending_snapshot.is_some()),
            }
        });
        Status {
            cluster: self.shared.cluster,
            node: self.shared.node,
            role: match (core.role, core.standing) {
                (Role::Leader, _) => NodeRole::Leader,
                (_, Standing::Learner | Standing::Outside | Standing::Removed) => NodeRole::Learner,
                (Role::Candidate | Role::PreCandidate, _) => NodeRole::Candidate,
                (Role::Follower, _) => NodeRole::Follower,
            },
            term: core.term,
            leader: core.leader,
            first_index: core.first,
            last_index: core.last,
            commit: core.commit,
            applied: core.applied,
            seq: position.seq.0,
            chain: position.chain,
            snapshot_index: core.snapshot.unwrap_or(0),
            durability: match self.shared.durability {
                Durability::DiskQuorum => "disk-quorum",
                Durability::MemoryQuorum => "memory-quorum",
            }
            .to_owned(),
            members: members.collect(),
        }
    }
}

impl<M: Machine> Handler for Peers<M> {
    fn received(&mut self, from: NodeId, frame: Frame) {
        if self.is_over() {
            return;
        }
        match frame {
            Frame::Raft(bytes) => match PeerMessage::decode(&bytes) {
                Ok(message) => self.messages.push((from, message)),
                Err(error) => tracing::error!(from, %error, "a peer's message does not read and is dropped"),
            },
            Frame::Digest(bytes) => match Digest::decode(&bytes) {
                Some(digest) => self.replica.observe(from, digest),
                None => tracing::error!(from, "a peer's digest does not read and is dropped"),
            },
        }
    }

    fn turn_end(&mut self) {
        let news = !self.messages.is_empty() || !self.lost.is_empty();
        if news && !self.is_over() {
            let (messages, lost) = (&mut self.messages, &mut self.lost);
            let stop = self.driver.drive(|core| {
                for peer in lost.drain(..) {
                    core.report_unreachable(peer);
                }
                for (from, message) in messages.drain(..) {
                    match core.receive(from, &message) {
                        Received::Taken => {}
                        Received::Ignored(why) => tracing::debug!(from, why, "a peer's message is ignored"),
                        // Snapshots are offered by the links, not sent as messages.
                        Received::SnapshotWanted { .. } => {}
                        Received::Stop(stop) => return Some(stop),
                    }
                }
                None
            });
            if let Some(stop) = stop {
                self.end(NodeEvent::Stop(stop.to_string()));
            }
        }
        self.settle();
    }

    fn unreachable(&mut self, peer: NodeId) {
        self.lost.push(peer);
    }

    fn snapshot_offered(
        &mut self,
        from: NodeId,
        meta: &[u8],
        _bytes: u64,
    ) -> Result<Box<dyn SnapshotSink>, String> {
        let message =
            PeerMessage::decode(&Bytes::copy_from_slice(meta)).map_err(|error| error.to_string())?;
        if message.kind() != MessageKind::Snapshot || self.is_over() {
            return Err("this node takes no snapshot".to_owned());
        }
        match self.driver.drive(|core| core.receive(from, &message)) {
            Received::SnapshotWanted { index, term, .. } => {
                let receiver = self.snapshots.receive().map_err(|error| error.to_string())?;
                let driver = self.driver.clone();
                let events = self.events.clone();
                let over = Arc::clone(&self.over);
                tracing::warn!(from, index, "this node is too far behind for the log and takes a snapshot");
                Ok(Box::new(Receiving { receiver, driver, index, term, events, over }))
            }
            Received::Stop(stop) => {
                self.end(NodeEvent::Stop(stop.to_string()));
                Err(stop.to_string())
            }
            Received::Taken | Received::Ignored(_) => {
                Err("this node has no use for that snapshot".to_owned())
            }
        }
    }

    fn snapshot_received(&mut self, from: NodeId, _meta: Bytes, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            tracing::warn!(from, why, "a snapshot did not arrive");
        }
    }

    fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        self.driver.drive(|core| core.report_snapshot(to, ok));
    }

    fn admin(&mut self, request: AdminRequest, answer: Answer<AdminReply>) {
        match request {
            AdminRequest::Status => answer.give(AdminReply::Status(Box::new(self.status()))),
            AdminRequest::Add { node, peer_address, binary_address, learner } => {
                let addresses = Addresses { peer: peer_address, orders: binary_address };
                let change = if learner {
                    MemberChange::AddLearner { node, addresses }
                } else {
                    MemberChange::AddVoter { node, addresses }
                };
                self.change(&change, answer);
            }
            AdminRequest::Promote { node } => self.change(&MemberChange::Promote { node }, answer),
            AdminRequest::Remove { node } => self.change(&MemberChange::Remove { node }, answer),
            AdminRequest::Transfer { to } => self.transfer(to, answer),
            AdminRequest::Snapshot => self.replica.snapshot_now(move |taken| {
                answer.give(match taken {
                    Ok(meta) => AdminReply::Done {
                        words: format!(
                            "a snapshot at block {}, log sequence {}, is durable",
                            meta.position.index, meta.position.seq.0
                        ),
                    },
                    Err(words) => AdminReply::Refused { code: AdminRefusal::Failed, words },
                });
            }),
        }
        self.settle();
    }

    fn repair(&mut self, from: NodeId, request: RepairRequest, answer: Answer<RepairBlocks>) {
        tracing::warn!(from, from_index = request.from_index, "a node repairs its journal from this one");
        answer.give(self.driver.drive(|core| repair::serve(core, &request)));
    }
}

/// Takes a snapshot in, on the transfer's own thread.
struct Receiving<Cmd> {
    receiver: SnapshotReceiver,
    driver: Driver<RaftCore, Cmd>,
    index: u64,
    term: u64,
    events: Sender<NodeEvent>,
    over: Arc<AtomicBool>,
}

impl<Cmd: Send + Sync + 'static> SnapshotSink for Receiving<Cmd> {
    fn chunk(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != self.receiver.bytes() {
            return Err(io::Error::other("a chunk is missing"));
        }
        self.receiver.write(bytes).map_err(io::Error::other)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let Self { receiver, driver, index, term, events, over } = *self;
        // From here on this node acknowledges nothing, so nothing that it acknowledged can be taken away.
        if !driver.drive(|core| core.begin_install(index, term)) {
            return Err(io::Error::other("the log has caught up meanwhile"));
        }
        over.store(true, Ordering::Release);
        let finished = receiver.finish();
        // Also without the snapshot the core is over, and what is on disk is sound.
        let _ = events.send(NodeEvent::Reload);
        finished.map(|_| ()).map_err(io::Error::other)
    }
}
