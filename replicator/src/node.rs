//! One node, whole: what is on disk, the raft core in its seat, the stages, the links to its peers, and the replica.
//!
//! ```text
//! peers ◄──► links ◄──► core ◄──► journal, matcher ──► outputs ──► replica ──► snapshots, digests
//! ```
//! A venue of one node is this without links. Read [`Node::start`] from top to bottom for the order in which things depend
//! on each other; [`Node::shutdown`] goes back the same way.
//!
//! A state comes into being in one way only: from disk. So when a snapshot has come over a link, the node does not swap its
//! state under its readers: it says [`NodeEvent::Reload`], and its owner shuts it down and starts it again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};
use grid_sequencer::{
    Config as SequencerConfig, Driver, Handle, JournalConfig, LeaderWatch, Lender, LogReadError, LogReader,
    Machine, Metrics, NodeId, OutputPoller, Progress, RecoverError, Recovered, RecoveryReport, Sequencer,
    StartError as StagesError, Stopped, Submitter, recover,
};

use crate::core::{
    Compacted, CoreConfig, CoreError, CoreStatus, Members, MembersError, OldBlocks, RaftCore, Recovery,
    TransferRefused,
};
use crate::digests::Voters;
use crate::links::{Limits, Links, LinksConfig, LinksError, Tls};
use crate::peers::{Courier, LinkOutbox, Peers, Report, Shared};
use crate::repair::{self, RepairError};
use crate::replica::{Membership, Replica, ReplicaConfig, ReplicaThread};

/// The output that the node itself reads; its owner's outputs have other names.
const REPLICA: &str = "replica";

/// How one node runs.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Journal, snapshots and lock.
    pub data_dir: PathBuf,
    /// Segments, durability and retention. Cluster and node are filled in from `cluster`.
    pub journal: JournalConfig,
    /// Threads and rings, and the owner's outputs.
    pub sequencer: SequencerConfig,
    /// A snapshot each time that so many commands have been applied.
    pub snapshot_every: u64,
    /// Which node of which cluster.
    pub cluster: ClusterConfig,
}

/// A node's place in its cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's number; nodes of another one are refused.
    pub cluster: u64,
    /// This node's number, from 1.
    pub node: NodeId,
    /// The founding members, the same on every node for ever. A node that is not among them waits to be added.
    pub founding: Members,
    /// Where peers reach this node; `None` for a cluster of one.
    pub links: Option<LinkSettings>,
    /// Steps of the core's time without a word from a leader before this node may stand for election.
    pub election_ticks: usize,
    /// Steps of the core's time between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// The window, in blocks, over whose events nodes compare a hash.
    pub window_blocks: u64,
    /// How long a node with a damaged journal waits at its start for every other voter to answer.
    pub repair_patience: Duration,
}

/// How peers reach this node.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where others reach this node, if not where it listens.
    pub advertise: Option<SocketAddr>,
    /// How links are protected.
    pub tls: Tls,
    /// Every bound.
    pub limits: Limits,
}

impl ClusterConfig {
    /// A cluster of one: the path of every cluster, with no one to ask.
    ///
    /// # Panics
    /// Never: one voter is a cluster.
    #[must_use]
    pub fn alone() -> Self {
        let founding = Members::founding([(1, crate::core::Addresses::default())]);
        Self::new(1, 1, founding.expect("one voter is a cluster"))
    }

    /// The usual: an election after 20 to 40 steps of 50 ms, a heartbeat at every second one.
    #[must_use]
    pub fn new(cluster: u64, node: NodeId, founding: Members) -> Self {
        Self {
            cluster,
            node,
            founding,
            links: None,
            election_ticks: 20,
            heartbeat_ticks: 2,
            window_blocks: 1024,
            repair_patience: Duration::from_secs(60),
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state could not be built up from disk.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The raft core refuses what was recovered or configured.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The journal is damaged and could not be made whole from the other nodes.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The members that were recovered do not read.
    #[error("the members of the cluster cannot be read from disk: {0}")]
    Members(#[from] MembersError),
    /// The stages did not start.
    #[error(transparent)]
    Stages(#[from] StagesError),
    /// The links did not start.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a node's owner has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// A snapshot has been installed, or could not be: shut the node down and start it again from disk.
    Reload,
    /// The node was taken out of the cluster: shut it down, but not at once. Until the others know that its removal is committed they may need
    /// its vote to find that out; give them some election timeouts.
    Removed,
    /// The node must not go on, and a person has to look.
    Stop(String),
}

/// A running node.
pub struct Node<M: Machine> {
    replica: Arc<Replica<M>>,
    /// What recovery did.
    report: RecoveryReport,
    handle: Handle<M>,
    driver: Driver<RaftCore, M::Command>,
    shared: Arc<Shared>,
    events: Receiver<NodeEvent>,
    links: Option<Links>,
    courier: Courier,
    replica_thread: ReplicaThread,
}

impl<M: Machine> std::fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("leadership", &self.leadership()).finish_non_exhaustive()
    }
}

impl<M: Machine> Node<M> {
    /// Builds up the state from disk and takes the node's place in the cluster. It serves clients once
    /// [`LeaderWatch::epoch`] says so, and a cluster of one does when this returns.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn start(
        config: NodeConfig,
        genesis: impl Fn() -> M,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        let NodeConfig { data_dir, mut journal, mut sequencer, snapshot_every, cluster } = config;
        (journal.cluster, journal.node) = (cluster.cluster, cluster.node);
        let durability = journal.durability;
        let recovered = match (recover(&data_dir, journal, &genesis, &mut progress), &cluster.links) {
            (Err(RecoverError::Journal(refused)), Some(links)) if refused.is_damage() => {
                let asking = repair::Cluster {
                    cluster: cluster.cluster,
                    node: cluster.node,
                    members: &cluster.founding,
                    tls: &links.tls,
                    patience: cluster.repair_patience,
                };
                repair::from_peers::<M>(&data_dir, journal, &asking, refused)?;
                recover(&data_dir, journal, &genesis, &mut progress)?
            }
            (recovered, _) => recovered?,
        };
        let members = members_of(&recovered, &cluster.founding)?;

        // Peers first: their address must be known before anybody is told of it.
        let (events, inbox) = unbounded();
        let bound = cluster.links.as_ref().map(|links| Links::bind(links_config(&cluster, links, &members)));
        let bound = bound.transpose()?;
        let sender = bound.as_ref().map(crate::links::BoundLinks::sender);
        let shared = Arc::new(Shared::new(cluster.cluster, cluster.node, members.clone(), durability));
        let snapshots = recovered.snapshots();
        let courier = Courier::start(sender.clone(), snapshots.clone(), Arc::clone(&shared), events.clone())?;

        let usual = CoreConfig::new(cluster.node, rand::random());
        let core = CoreConfig {
            election_ticks: cluster.election_ticks,
            heartbeat_ticks: cluster.heartbeat_ticks,
            // Where there are no links nobody follows, and nobody is late.
            window_bytes: if cluster.links.is_some() { usual.window_bytes } else { 0 },
            ..usual
        };
        let log = Arc::new(LogReader::new(&data_dir, M::FORMAT));
        let newest = recovered.report.snapshot.map(|position| (position.index, position.term));
        let recovery = Recovery {
            hard_state: recovered.hard_state,
            applied: recovered.position,
            members: members.clone(),
            tail: recovered.tail.clone(),
            old: Some(Box::new(Journalled(Arc::clone(&log)))),
            log_start: (recovered.log_start.index, recovered.log_start.term),
            snapshot: newest,
        };
        let outbox = LinkOutbox::new(sender.clone(), courier.desk());
        let core = RaftCore::new(&core, recovery, Box::new(outbox))?;

        let copy = recovered.copy_machine();
        let (position, report) = (recovered.position, recovered.report.clone());
        sequencer.outputs.push(REPLICA.to_owned());
        let (mut handle, driver) = Sequencer::start_with(recovered, sequencer, core)?;
        let outputs = handle.take_output(REPLICA).expect("asked for above");
        let replica = ReplicaConfig {
            snapshots: Some((snapshots.clone(), snapshot_every)),
            node: cluster.node,
            members: members.encode(),
            membership: Some(Membership { fold, voters }),
            window_blocks: if sender.is_some() { cluster.window_blocks } else { 0 },
        };
        let (replica, replica_thread) = Replica::start(copy, position, outputs, replica)?;
        let replica = Arc::new(replica);
        keep_log_short(&replica, &handle, &driver, &snapshots, &log);
        if let Some(sender) = &sender {
            tell_digests(&replica, sender.clone(), &shared);
        }
        courier.drive_with(report_outcomes(&driver));
        let links = bound.map(|bound| {
            let peers = Peers::new(
                driver.clone(),
                Arc::clone(&replica),
                Arc::clone(&shared),
                bound.sender(),
                snapshots,
                events,
            );
            bound.start(peers)
        });
        let links = links.transpose()?;
        let node =
            Self { replica, report, handle, driver, shared, events: inbox, links, courier, replica_thread };
        if node.links.is_none() {
            // The journal's first write; if it fails, the process ends.
            let _ = node.leadership().wait_to_lead(Duration::MAX);
        }
        Ok(node)
    }

    /// The node's copy of the machine, for reads.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica<M>> {
        &self.replica
    }

    /// What recovery did.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// A new producer's handle.
    #[must_use]
    pub fn submitter(&self) -> Submitter<M> {
        self.handle.submitter()
    }

    /// The poller of the owner's output of this name; `None` if there is none, or it was taken.
    pub fn take_output(&mut self, name: &str) -> Option<OutputPoller<M>> {
        self.handle.take_output(name)
    }

    /// The order path's figures, to look at from anywhere.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.handle.metrics()
    }

    /// Where a host with an event loop of its own borrows the stages of the order path, to step them itself.
    #[must_use]
    pub fn lender(&self) -> Option<Lender> {
        self.handle.lender()
    }

    /// Who leads, and whether this node may answer clients.
    #[must_use]
    pub fn leadership(&self) -> LeaderWatch {
        self.handle.leadership()
    }

    /// Where the leader takes orders, as far as this node knows both; for telling clients.
    pub fn leader_address(&self) -> impl Fn() -> Option<SocketAddr> + Send + Sync + 'static {
        let (watch, shared) = (self.leadership(), Arc::clone(&self.shared));
        move || shared.orders_address(watch.leader()?)
    }

    /// Where this node's links listen; `None` in a cluster of one.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.links.as_ref().map(Links::address)
    }

    /// Everything an operator asks about.
    #[must_use]
    pub fn status(&self) -> CoreStatus {
        self.driver.drive(|core| core.status())
    }

    /// Waits for something that the owner has to act on; `None` if nothing comes within `limit`.
    #[must_use]
    pub fn next_event(&self, limit: Duration) -> Option<NodeEvent> {
        self.events.recv_timeout(limit).ok()
    }

    /// Before a planned stop: if this node leads, hands leadership to the voter that is furthest and waits until it is taken
    /// over. False if nobody did within `limit`, and the others then elect somebody after the stop.
    #[must_use]
    pub fn hand_over(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let watch = self.leadership();
        let handed = self.driver.drive(|core| {
            let status = core.status();
            let voters = status.peers.iter().filter(|peer| {
                peer.recent_active && status.members.get(peer.node).is_some_and(|member| member.voter)
            });
            let to = voters.max_by_key(|peer| peer.matched)?.node;
            Some(core.transfer_leadership(to))
        });
        match handed {
            None => self.links.is_none(),
            Some(Err(TransferRefused::NotLeader)) => true,
            Some(Err(_)) => false,
            Some(Ok(())) => {
                let left = until.saturating_duration_since(Instant::now());
                watch.wait_until(left, |watch| watch.epoch().is_none().then_some(())).is_some()
            }
        }
    }

    /// Stops in good order: what a leader took in is committed and applied as far as a quorum allows, the last snapshot is
    /// written, and the data directory is free again.
    pub fn shutdown(self) -> Stopped<M> {
        let Self { handle, links, courier, replica_thread, driver, .. } = self;
        let stopped = handle.shutdown();
        if let Some(links) = links {
            links.stop();
        }
        courier.stop();
        replica_thread.join();
        drop(driver);
        stopped
    }
}

/// The members where the machine stands: the snapshot's, or the founding ones, with the changes of the log behind.
fn members_of<M: Machine>(recovered: &Recovered<M>, founding: &Members) -> Result<Members, MembersError> {
    let mut members =
        if recovered.members.is_empty() { founding.clone() } else { Members::decode(&recovered.members)? };
    for (_, change) in &recovered.conf_changes {
        members.apply(change)?;
    }
    Ok(members)
}

fn fold(members: &[u8], change: &[u8]) -> Vec<u8> {
    let known = if members.is_empty() { Ok(Members::default()) } else { Members::decode(members) };
    let changed = known.and_then(|mut members| members.apply(change).map(|_| members));
    match changed {
        Ok(members) => members.encode(),
        Err(error) => panic!("a committed change of members does not fit the members before it: {error}"),
    }
}

fn voters(members: &[u8]) -> Voters {
    let members = Members::decode(members).unwrap_or_default();
    let of = |voting: fn(&crate::core::Member) -> bool| {
        members.iter().filter(|(_, member)| voting(member)).map(|(node, _)| node).collect()
    };
    Voters { incoming: of(|member| member.voter), outgoing: of(|member| member.outgoing) }
}

fn links_config(cluster: &ClusterConfig, links: &LinkSettings, members: &Members) -> LinksConfig {
    LinksConfig {
        node: cluster.node,
        cluster: cluster.cluster,
        listen: links.listen,
        advertise: links.advertise,
        peers: crate::peers::addresses(members, cluster.node),
        tls: links.tls.clone(),
        limits: links.limits.clone(),
    }
}

/// The journal as the core reads old blocks.
struct Journalled(Arc<LogReader>);

impl OldBlocks for Journalled {
    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Arc<grid_sequencer::Block>>, Compacted> {
        match self.0.read(from, max_bytes as u64) {
            Ok(blocks) => Ok(blocks),
            Err(LogReadError::Compacted { .. }) => Err(Compacted),
            Err(error) => grid_sequencer::abort(&error.to_string()),
        }
    }

    fn start(&self) -> Option<(u64, u64)> {
        match self.0.start() {
            Ok(start) => Some((start.index, start.term)),
            Err(error) => grid_sequencer::abort(&error.to_string()),
        }
    }
}

/// With every snapshot that is durable, what the journal holds below the oldest kept one is only needed by nodes that lag.
fn keep_log_short<M: Machine>(
    replica: &Replica<M>,
    handle: &Handle<M>,
    driver: &Driver<RaftCore, M::Command>,
    snapshots: &grid_sequencer::SnapshotStore,
    log: &Arc<LogReader>,
) {
    let (release, driver, snapshots) = (handle.release_log(), driver.clone(), snapshots.clone());
    let log = Arc::clone(log);
    replica.on_snapshot(move |meta| {
        let position = meta.position;
        let needed = driver.drive(|core| {
            core.snapshot_taken(position.index, position.term);
            core.needed_from()
        });
        match snapshots.oldest_index() {
            Ok(Some(oldest)) => release(oldest.min(needed.map_or(u64::MAX, |from| from.saturating_sub(1)))),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the journal cannot be shortened"),
        }
        // What the journal has let go by now, the core must not count on.
        match log.first_index() {
            Ok(first) => {
                let _ = driver.drive(|core| core.compact(first.saturating_sub(1)));
            }
            Err(error) => tracing::error!(%error, "the journal cannot be listed"),
        }
    });
}

fn tell_digests<M: Machine>(replica: &Replica<M>, sender: crate::links::Sender, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    replica.on_digest(move |digest| {
        let bytes = bytes::Bytes::copy_from_slice(&digest.encode());
        for peer in shared.peers() {
            // A digest that is lost is one comparison less.
            let _ = sender.send(peer, crate::links::Frame::Digest(bytes.clone()));
        }
    });
}

/// How the courier tells the core what became of a snapshot or a link.
fn report_outcomes<Cmd: Send + Sync + 'static>(driver: &Driver<RaftCore, Cmd>) -> Report {
    let driver = driver.clone();
    Box::new(move |peer| driver.drive(|core| core.report_snapshot(peer, false)))
}
