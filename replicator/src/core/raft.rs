//! The core itself: raft's state machine in the seat of consensus, with persistence that nobody waits for.
//!
//! The crate's own way out, `RawNode`, collects news in a value that copies every entry, twice for each block. Here the log lies in our own
//! store as soon as raft has appended to it, so what is to be written and what is committed are two ranges of one log, told by an index each.
//!
//! What it sees to, and the crate does not:
//! - A message that says "I have this" or "I vote for you" leaves only when that is durable here, in the order of the journal, and so
//!   does everything a leader says in a term that is not durable yet (a sole voter leads before its vote is on disk).
//! - Durability counts only where no block that still has to be written replaces what was written.
//! - The commit index that is journalled never passes what was durable before: a torn write must not declare the block it
//!   should have replaced committed.
//! - Election timeouts come from an own seed, so a run can be repeated.
//! - Snapshots are never installed into a running core: the node is told ([`Received::SnapshotWanted`]), makes the file durable, and starts again
//!   from disk. There is one way a state comes into being.
//! - Nothing a peer sends reaches an assertion of the crate's; what a sound peer could never send stops this node with a reason
//!   ([`Received::Stop`]) before it believes or writes anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grid_sequencer::{Block, BlockKind, Consensus, HardState, Leadership, NodeId, Persist, Position, Ready};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Changer, Config, INVALID_ID, ProgressState, Raft, StateRole};

use super::log::{Compacted, Log, OldBlocks};
use super::members::{ConfChange, MemberChange, Members, Step, single};
use super::outbox::Outbox;
use super::wire::{self, MessageKind, PeerMessage, WireError};

/// Most bytes of blocks in one message, unless a single block is larger.
const MESSAGE_BYTES: u64 = 256 << 10;
/// Appends in flight to one follower that it has not answered yet.
const INFLIGHT_MESSAGES: usize = 256;
/// Most bytes of committed blocks handed out at once.
const COMMITTED_BYTES: u64 = 1 << 20;
/// A commit index alone is journalled once it is this far ahead of the one on disk, and then only with something else.
const COMMIT_LAG: u64 = 64;
/// Election timeouts after which a snapshot that nobody reported on is announced again: the announcement may have been lost.
const SNAPSHOT_PATIENCE: usize = 8;
/// A learner within so many blocks of the log's end has caught up.
const CAUGHT_UP_BLOCKS: u64 = 256;

/// How a core is set up.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This node's number; not 0.
    pub node: NodeId,
    /// What election timeouts are drawn from, with the node's number: no two starts of one node should use the same.
    pub seed: u64,
    /// Ticks without a word from a leader after which this node may stand for election; the timeout is drawn from one to two of these.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Memory of applied blocks that stay for followers that are a little late, in bytes.
    pub window_bytes: u64,
}

impl CoreConfig {
    /// The usual: an election after 10 to 20 ticks, a heartbeat at every second, a window of 64 MiB.
    #[must_use]
    pub fn new(node: NodeId, seed: u64) -> Self {
        Self { node, seed, election_ticks: 10, heartbeat_ticks: 2, window_bytes: 64 << 20 }
    }
}

/// What a node has on disk when it starts.
#[derive(Default)]
pub struct Recovery {
    /// As last journalled.
    pub hard_state: HardState,
    /// Where the machine stands: every block up to here is applied.
    pub applied: Position,
    /// The members as of `applied`: the snapshot's with the changes behind it, the founding ones if there is neither, none on a node
    /// that joins.
    pub members: Members,
    /// The durable blocks behind `applied`, without a gap; raft decides what becomes of them.
    pub tail: Vec<Arc<Block>>,
    /// Reads the blocks up to `applied`; without it they are gone.
    pub old: Option<Box<dyn OldBlocks>>,
    /// Index and term of the last block that `old` can *not* read: (0, 0) if the journal is complete.
    pub log_start: (u64, u64),
    /// Index and term of the newest durable snapshot.
    pub snapshot: Option<(u64, u64)>,
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery")
            .field("hard_state", &self.hard_state)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// What was recovered cannot be one node's past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// A setting that makes no sense.
    #[error("the raft core cannot start: {0}")]
    Config(String),
    /// A block of the tail does not follow on the one before it.
    #[error("block {index} of the recovered log does not follow: {why}")]
    Tail {
        /// Its index.
        index: u64,
        /// What is wrong.
        why: String,
    },
}

/// What came of a peer's message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// It was taken.
    Taken,
    /// It was not: it makes no sense from anyone, or not at this moment.
    Ignored(&'static str),
    /// The leader's log begins later than this node's ends. Fetch that snapshot, then [`RaftCore::begin_install`].
    SnapshotWanted {
        /// The leader.
        from: NodeId,
        /// Index of the last block in the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// This node must stop: see there.
    Stop(Stop),
}

/// Why a node may not go on. Nothing was believed and nothing written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The leader knows that this node once had a longer log durable.
    #[error(
        "the log of this node ends at block {last}, but the leader has its word for block {acknowledged}: this data directory is older than \
         what the node has acknowledged. Remove the node from the cluster, empty its directory, and add it as a new node"
    )]
    LogLost {
        /// What this node once said was durable.
        acknowledged: u64,
        /// Where its log ends now.
        last: u64,
    },
    /// A block of the same index and term, or on top of the same log, is not the same.
    #[error(
        "node {from} sent a block {index} that contradicts this node's log ({why}): one of the two has a damaged history. Compare the nodes' \
         journals with `grid inspect`, then rebuild the one that differs from the majority"
    )]
    Diverged {
        /// Who sent it.
        from: NodeId,
        /// Index of the block.
        index: u64,
        /// What does not fit.
        why: String,
    },
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u16)]
pub enum TransferRefused {
    /// Ask the leader.
    #[error("this node does not lead")]
    NotLeader = 1,
    /// Not a member.
    #[error("there is no such node in the cluster")]
    UnknownNode = 2,
    /// A learner, or a voter on its way out.
    #[error("that node does not vote")]
    NotAVoter = 3,
    /// It is the leader.
    #[error("that node leads already")]
    LeadsAlready = 4,
}

/// Why the members do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u16)]
pub enum ChangeRefused {
    /// Ask the leader.
    #[error("this node does not lead")]
    NotLeader = 1,
    /// It was just elected, or is handing over.
    #[error("this node has not applied a block of its term yet, or is handing leadership over; try again")]
    NotReady = 2,
    /// One at a time.
    #[error("a change of members is under way; try again when it is done")]
    ChangeInProgress = 3,
    /// Only members can be promoted or removed.
    #[error("there is no such node in the cluster")]
    UnknownNode = 4,
    /// Only others can be added, and only learners promoted.
    #[error("that node is already what it should become")]
    AlreadySo = 5,
    /// Its log is far behind the leader's, or it has not been heard of lately.
    #[error("the learner has not caught up")]
    NotCaughtUp = 6,
    /// A cluster needs one.
    #[error("it is the last voter")]
    LastVoter = 7,
    /// Hand leadership over first.
    #[error("it is the leader; transfer leadership first")]
    IsLeader = 8,
    /// Number 0, or an address beyond any length.
    #[error("the node's number or addresses are invalid")]
    Invalid = 9,
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// What a node is in the cluster, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It votes.
    Voter,
    /// It gets the log.
    Learner,
    /// It is not a member, or does not know it yet.
    Outside,
    /// It was a member while it ran and is none any more. It goes on answering, because others may still need its vote to learn of the very
    /// change that removed it; it may be stopped when the others' members no longer name it.
    Removed,
}

/// How the leader sees one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Its log is known to be durable and equal up to here.
    pub matched: u64,
    /// What it is sent next.
    pub next: u64,
    /// `probe`, `replicate` or `snapshot`.
    pub state: &'static str,
    /// It was heard of within an election timeout.
    pub recent_active: bool,
    /// The snapshot it is being sent.
    pub pending_snapshot: Option<u64>,
}

/// For people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreStatus {
    /// This node.
    pub node: NodeId,
    /// What it is at the moment.
    pub role: Role,
    /// What it is in the cluster.
    pub standing: Standing,
    /// Its term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Last index known to be committed.
    pub commit: u64,
    /// Last index whose block is durable here.
    pub persisted: u64,
    /// Last index that this node's matcher has applied.
    pub applied: u64,
    /// First index of the log that can still be read.
    pub first: u64,
    /// Last index of the log.
    pub last: u64,
    /// Index of the newest durable snapshot.
    pub snapshot: Option<u64>,
    /// To whom leadership is being handed.
    pub transfer_to: Option<NodeId>,
    /// On the leader, all other members by number.
    pub peers: Vec<PeerStatus>,
    /// Who belongs to the cluster.
    pub members: Members,
}

/// What was handed out and is not durable yet, or waits behind that.
struct Waiting {
    /// The ticket of what is written; of what only waits, that of what is written before it.
    ticket: u64,
    term: u64,
    blocks: Option<Written>,
    /// What may be said when it is durable.
    messages: Vec<(NodeId, PeerMessage)>,
}

/// Blocks that are being written, without a gap.
#[derive(Clone, Copy)]
struct Written {
    first: u64,
    last: u64,
    /// Of the last.
    term: u64,
}

/// Election timeouts from an own seed: raft draws from the thread's randomness, and what it drew is replaced before it matters.
struct Timing {
    state: u64,
    seen: (StateRole, u64, NodeId),
    timeout: usize,
    range: (usize, usize),
}

impl Timing {
    fn draw(&mut self) {
        // splitmix64: every state gives another number, so a run of equal timeouts is as short as chance makes it.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let (from, to) = self.range;
        self.timeout = from + (mixed % (to - from) as u64) as usize;
    }
}

/// The raft core of one node. See the module for what it is and is not.
pub struct RaftCore {
    raft: Raft<Log>,
    node: NodeId,
    outbox: Box<dyn Outbox>,
    members: Members,
    was_member: bool,
    /// Committed changes of members that are not applied yet.
    changes: VecDeque<Arc<Block>>,
    /// The log from here on is not with the journal yet.
    unwritten: u64,
    /// The log up to here was handed out as committed.
    handed: u64,
    /// Up to here this node, leading, has said on purpose what is committed.
    announced: u64,
    /// Of what was last handed out to be written.
    ticket: u64,
    waiting: VecDeque<Waiting>,
    /// What a leader says in a term that is not durable yet.
    unspoken: Vec<(u64, NodeId, PeerMessage)>,
    /// The newest term whose hard state is durable.
    term_durable: u64,
    journalled: HardState,
    timing: Timing,
    /// On a leader, ticks since each peer that is being sent a snapshot was last heard of in that matter.
    patience: BTreeMap<NodeId, usize>,
    /// A snapshot is being installed: this core is over.
    stopped: bool,
}

impl std::fmt::Debug for RaftCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftCore")
            .field("node", &self.node)
            .field("leadership", &self.leadership())
            .finish_non_exhaustive()
    }
}

impl RaftCore {
    /// Goes on from what is on disk. A sole voter is elected at once.
    ///
    /// # Errors
    /// When the settings make no sense or the tail does not follow on the applied position.
    pub fn new(config: &CoreConfig, recovery: Recovery, outbox: Box<dyn Outbox>) -> Result<Self, CoreError> {
        let Recovery { hard_state, applied, members, tail, old, log_start, snapshot } = recovery;
        let log_start = if old.is_some() { log_start } else { (applied.index, applied.term) };
        if log_start.0 > applied.index {
            return Err(CoreError::Config("the log begins behind what is applied".to_owned()));
        }
        let mut end = applied;
        for block in &tail {
            if let Some(why) = end.refuses(block.header()) {
                return Err(CoreError::Tail { index: block.header().index, why });
            }
            end = block.position();
        }
        // A torn write can leave blocks of a term without the hard state beside them: this node has not voted in that term.
        let mut start = hard_state;
        if start.term < end.term {
            start = HardState { term: end.term, vote: INVALID_ID, ..start };
        }
        start.commit = start.commit.max(proven_commit(&tail)).clamp(applied.index, end.index);

        let initial = (start, members.conf_state());
        let mut log = Log::new(applied, log_start, snapshot, old, config.window_bytes, initial);
        tail.into_iter().for_each(|block| log.push(block));
        let settings = Config {
            id: config.node,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.index,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            // Never: in 0.7 an empty append that waits in the outbox takes entries along under a wrong place.
            batch_append: false,
            max_committed_size_per_ready: COMMITTED_BYTES,
            // See `announce`.
            skip_bcast_commit: true,
            ..Config::default()
        };
        if config.node == INVALID_ID {
            return Err(CoreError::Config("node 0 is nobody".to_owned()));
        }
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft =
            Raft::new(&settings, log, &logger).map_err(|error| CoreError::Config(error.to_string()))?;
        let mut core = Self {
            node: config.node,
            outbox,
            was_member: members.get(config.node).is_some(),
            members,
            changes: VecDeque::new(),
            unwritten: end.index + 1,
            handed: applied.index,
            announced: applied.index,
            ticket: 0,
            waiting: VecDeque::new(),
            unspoken: Vec::new(),
            term_durable: hard_state.term,
            journalled: hard_state,
            timing: Timing {
                state: config.seed ^ config.node.wrapping_mul(0xd1b5_4a32_d192_ed03),
                seen: (raft.state, raft.term, raft.leader_id),
                timeout: 0,
                range: (config.election_ticks, 2 * config.election_ticks),
            },
            raft,
            patience: BTreeMap::new(),
            stopped: false,
        };
        core.timing.draw();
        core.settle(&[]);
        if core.members.is_sole_voter(core.node) {
            core.campaign();
        }
        Ok(core)
    }

    /// Takes a peer's message; `from` is who the link has proven it to be.
    pub fn receive(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        if self.stopped {
            return Received::Ignored("a snapshot is being installed");
        }
        if from == INVALID_ID || from == self.node {
            return Received::Ignored("it claims to come from this node");
        }
        if let Err(WireError::Invalid(what)) = message.check() {
            return Received::Ignored(what);
        }
        // Of an earlier term only the term matters, and raft answers with this node's.
        if message.term < self.raft.term {
            return self.step(from, message);
        }
        match message.kind {
            MessageKind::Append => self.receive_append(from, message),
            MessageKind::AppendReply => self.receive_append_reply(from, message),
            MessageKind::Heartbeat if message.commit > self.last() => {
                Received::Stop(Stop::LogLost { acknowledged: message.commit, last: self.last() })
            }
            MessageKind::HeartbeatReply => self.receive_heartbeat_reply(from, message),
            MessageKind::Snapshot => self.receive_snapshot(from, message),
            // It would lead at once, on top of blocks that are not durable here; also one that leads and hears of a later term.
            MessageKind::TimeoutNow if self.members.is_sole_voter(self.node) && !self.is_durable() => {
                Received::Ignored("its log is not durable yet")
            }
            // Votes are asked for when all that is in the log is durable, and then nothing comes into it until they are counted.
            MessageKind::PreVoteReply | MessageKind::VoteReply if !self.leads() && !self.is_durable() => {
                Received::Ignored("a vote that was not asked for")
            }
            _ => self.step(from, message),
        }
    }

    fn receive_append(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        let raft = &self.raft;
        if raft.state == StateRole::Leader && message.term == raft.term {
            return Received::Stop(Stop::Diverged {
                from,
                index: message.index,
                why: format!("both lead in term {}", message.term),
            });
        }
        // Blocks at or below the commit index are not looked at; raft answers with its commit index.
        let fits = message.index >= raft.raft_log.committed
            && raft.raft_log.match_term(message.index, message.log_term);
        if fits && let Some(why) = self.contradiction(message) {
            return Received::Stop(Stop::Diverged { from, index: why.0, why: why.1 });
        }
        self.step(from, message)
    }

    /// Where an append that follows on this log contradicts it although raft, which compares terms, would take it.
    fn contradiction(&self, message: &PeerMessage) -> Option<(u64, String)> {
        let log = self.raft.store();
        let mut end = log.position(message.index)?;
        for block in &message.blocks {
            let header = block.header();
            if let Some(why) = end.refuses(header) {
                return Some((header.index, why));
            }
            let own = log.recent(header.index).map(|own| own.header());
            if own.is_some_and(|own| own.term == header.term && own.next_chain() != header.next_chain()) {
                return Some((header.index, "it has the same index and term and other content".to_owned()));
            }
            end = block.position();
        }
        None
    }

    fn receive_append_reply(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        let same_term = message.term == self.raft.term;
        if self.leads() && same_term && !message.rejected && message.index > self.last() {
            return Received::Ignored("it acknowledges what was never sent");
        }
        self.step(from, message)
    }

    fn receive_heartbeat_reply(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        let received = self.step(from, message);
        // Whoever has committed as much as the snapshot it was being sent has it, whatever became of the news of that.
        let has_it = self.raft.prs().get(from).is_some_and(|progress| {
            progress.state == ProgressState::Snapshot && progress.pending_snapshot <= message.commit
        });
        if has_it {
            self.report_snapshot(from, true);
        }
        received
    }

    fn receive_snapshot(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        if self.wants_snapshot(message.index, message.log_term) {
            // The leader was heard; that is all raft may learn of it here.
            let heard = PeerMessage::new(MessageKind::Heartbeat, message.term);
            return match self.step(from, &heard) {
                Received::Taken => {
                    Received::SnapshotWanted { from, index: message.index, term: message.log_term }
                }
                other => other,
            };
        }
        // This node has all of it: it says so as to an append without blocks.
        let mut append = PeerMessage::new(MessageKind::Append, message.term);
        (append.index, append.log_term, append.commit) = (message.index, message.log_term, message.index);
        self.step(from, &append)
    }

    fn wants_snapshot(&self, index: u64, term: u64) -> bool {
        let log = &self.raft.raft_log;
        index > log.committed && !log.match_term(index, term)
    }

    /// Before a received snapshot is installed: true if it is still wanted, and then this core says and takes nothing any more, so that
    /// no block is acknowledged that the snapshot would take away. What is left to do is to finish the journal's writes, to
    /// make the snapshot durable, and to start again from disk.
    #[must_use]
    pub fn begin_install(&mut self, index: u64, term: u64) -> bool {
        self.stopped |= self.wants_snapshot(index, term) && !self.leads();
        self.stopped
    }

    fn step(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        let step = message.to_raft(from, self.node);
        let result = self.raft.step(step);
        self.settle(&message.blocks);
        match result {
            Ok(()) => Received::Taken,
            Err(_) => Received::Ignored("raft has no use for it"),
        }
    }

    /// Stands for election now, if this node may.
    pub fn campaign(&mut self) {
        if !self.stopped && self.may_campaign() && self.raft.promotable() {
            // Refused only while changes of members wait to be applied; the timeout tries again.
            let _ = self.raft.step(local(MessageType::MsgHup, INVALID_ID));
            self.settle(&[]);
        }
    }

    /// A sole voter leads as soon as it campaigns, which is only sound on a log that is durable to its end.
    fn may_campaign(&self) -> bool {
        self.leads() || !self.members.is_sole_voter(self.node) || self.is_durable()
    }

    fn is_durable(&self) -> bool {
        let log = &self.raft.raft_log;
        log.persisted == log.last_index()
    }

    /// Hands leadership to another voter. It is done when that one leads; after an election timeout without success it is dropped.
    ///
    /// # Errors
    /// See [`TransferRefused`].
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), TransferRefused> {
        if !self.leads() {
            return Err(TransferRefused::NotLeader);
        }
        if to == self.node {
            return Err(TransferRefused::LeadsAlready);
        }
        let member = self.members.get(to).ok_or(TransferRefused::UnknownNode)?;
        if !member.voter {
            return Err(TransferRefused::NotAVoter);
        }
        let _ = self.raft.step(local(MessageType::MsgTransferLeader, to));
        self.settle(&[]);
        Ok(())
    }

    /// Proposes a change of the members; returns the index of its block. It holds when that block is applied, and a change of voters
    /// is done when the members are no longer joint.
    ///
    /// # Errors
    /// See [`ChangeRefused`].
    pub fn change_members(&mut self, change: &MemberChange) -> Result<u64, ChangeRefused> {
        let raft = &self.raft;
        if !self.leads() {
            return Err(ChangeRefused::NotLeader);
        }
        if raft.lead_transferee.is_some() || !raft.apply_to_current_term() {
            return Err(ChangeRefused::NotReady);
        }
        if raft.has_pending_conf() || self.members.is_joint() {
            return Err(ChangeRefused::ChangeInProgress);
        }
        let node = change.node();
        let member = self.members.get(node);
        match change {
            MemberChange::AddVoter { .. } | MemberChange::AddLearner { .. } => {
                if member.is_some() {
                    return Err(ChangeRefused::AlreadySo);
                }
            }
            MemberChange::Promote { .. } => {
                if member.ok_or(ChangeRefused::UnknownNode)?.voter {
                    return Err(ChangeRefused::AlreadySo);
                }
                let caught_up = raft.prs().get(node).is_some_and(|progress| {
                    progress.recent_active && progress.matched + CAUGHT_UP_BLOCKS >= self.last()
                });
                if !caught_up {
                    return Err(ChangeRefused::NotCaughtUp);
                }
            }
            MemberChange::Remove { .. } => {
                let member = member.ok_or(ChangeRefused::UnknownNode)?;
                if member.voter && self.members.voters().count() == 1 {
                    return Err(ChangeRefused::LastVoter);
                }
                if node == self.node {
                    return Err(ChangeRefused::IsLeader);
                }
            }
        }
        let change = ConfChange::of(&self.members, change).ok_or(ChangeRefused::Invalid)?;
        Ok(self.append_change(&change))
    }

    fn append_change(&mut self, change: &ConfChange) -> u64 {
        let end = self.raft.store().end();
        let block = Arc::new(Block::conf_change(&end, self.raft.term, &change.encode()));
        let index = block.header().index;
        // What raft does with a proposal, without reading our bytes as protobuf.
        self.raft.pending_conf_index = index;
        let appended = self.raft.append_entry(&mut [wire::place(block.header())]);
        assert!(appended, "there is no limit to what is not committed yet");
        self.settle(&[block]);
        self.raft.bcast_append();
        index
    }

    /// A message to this peer was lost, or its connection is.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        let _ = self.raft.step(local(MessageType::MsgUnreachable, peer));
        self.settle(&[]);
    }

    /// What became of the snapshot that was streamed to this peer: until this is told, the peer gets no blocks.
    ///
    /// A snapshot that nothing is told of for a while is announced again, in case the announcement was lost. Links that are still streaming to
    /// that peer take this for nothing new.
    pub fn report_snapshot(&mut self, peer: NodeId, ok: bool) {
        let mut message = local(MessageType::MsgSnapStatus, peer);
        message.reject = !ok;
        let _ = self.raft.step(message);
        self.settle(&[]);
    }

    /// A snapshot of the state after block `index` is durable here.
    pub fn snapshot_taken(&mut self, index: u64, term: u64) {
        self.raft.mut_store().set_snapshot(index, term);
    }

    /// Before the journal lets blocks up to `index` go: returns up to where it may, which is not beyond the newest snapshot.
    #[must_use]
    pub fn compact(&mut self, index: u64) -> u64 {
        let applied = self.raft.raft_log.applied;
        self.raft.mut_store().compact(index, applied)
    }

    /// On the leader, the first index that some member heard of lately still has to be sent; what is before it nobody alive waits for.
    #[must_use]
    pub fn needed_from(&self) -> Option<u64> {
        let active = self.raft.prs().iter().filter(|(_, progress)| progress.recent_active);
        self.leads().then(|| active.map(|(_, progress)| progress.matched + 1).min()).flatten()
    }

    /// The log from a block on, committed or not, as far as it fits into so many bytes: one block at least where there is one.
    ///
    /// # Errors
    /// [`Compacted`] where the log begins later.
    pub fn blocks_from(&self, from: u64, max_bytes: u64) -> Result<Vec<Arc<Block>>, Compacted> {
        let log = self.raft.store();
        if from > self.last() {
            return Ok(Vec::new());
        }
        let context = raft::GetEntriesContext::empty(false);
        let entries = raft::Storage::entries(log, from, self.last() + 1, Some(max_bytes), context);
        let entries = entries.map_err(|_| Compacted)?;
        Ok(entries.iter().map_while(|entry| log.block_of(entry)).collect())
    }

    /// Who belongs to the cluster, as of the last applied block.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What this node is in the cluster.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.members.get(self.node) {
            Some(member) if member.voter || member.outgoing => Standing::Voter,
            Some(_) => Standing::Learner,
            None if self.was_member => Standing::Removed,
            None => Standing::Outside,
        }
    }

    /// Everything an operator asks about.
    #[must_use]
    pub fn status(&self) -> CoreStatus {
        let raft = &self.raft;
        let mut peers = Vec::new();
        if self.leads() {
            peers.extend(raft.prs().iter().filter(|(node, _)| **node != self.node).map(
                |(node, progress)| {
                    let (state, pending) = match progress.state {
                        ProgressState::Probe => ("probe", None),
                        ProgressState::Replicate => ("replicate", None),
                        ProgressState::Snapshot => ("snapshot", Some(progress.pending_snapshot)),
                    };
                    PeerStatus {
                        node: *node,
                        matched: progress.matched,
                        next: progress.next_idx,
                        state,
                        recent_active: progress.recent_active,
                        pending_snapshot: pending,
                    }
                },
            ));
            peers.sort_by_key(|peer| peer.node);
        }
        let leadership = self.leadership();
        CoreStatus {
            node: self.node,
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            standing: self.standing(),
            term: leadership.term,
            leader: leadership.leader,
            commit: raft.raft_log.committed,
            persisted: raft.raft_log.persisted,
            applied: raft.raft_log.applied,
            first: self.raft.store().start() + 1,
            last: self.last(),
            snapshot: self.raft.store().snapshot_index(),
            transfer_to: raft.lead_transferee,
            peers,
            members: self.members.clone(),
        }
    }

    /// Peers that have been owed a snapshot for too long without news of it.
    fn forgotten_snapshots(&mut self) -> Vec<NodeId> {
        let limit = SNAPSHOT_PATIENCE * self.raft.election_timeout();
        let leads = self.leads();
        let prs = self.raft.prs();
        let sending =
            |node: NodeId| prs.get(node).is_some_and(|progress| progress.state == ProgressState::Snapshot);
        self.patience.retain(|node, _| leads && sending(*node));
        if leads {
            for (node, _) in prs.iter().filter(|(node, _)| sending(**node)) {
                *self.patience.entry(*node).or_default() += 1;
            }
        }
        self.patience.extract_if(.., |_, ticks| *ticks >= limit).map(|(node, _)| node).collect()
    }

    fn leads(&self) -> bool {
        self.raft.state == StateRole::Leader
    }

    fn last(&self) -> u64 {
        self.raft.raft_log.last_index()
    }

    /// After everything raft was told: takes the blocks it accepted into the log, seals those it appended itself, and sets its timer.
    fn settle(&mut self, offered: &[Arc<Block>]) {
        self.absorb(offered);
        self.raft.store().renew_budget();
        let raft = &mut self.raft;
        let seen = (raft.state, raft.term, raft.leader_id);
        if seen != self.timing.seen {
            self.timing.seen = seen;
            self.timing.draw();
        }
        if raft.randomized_election_timeout() != self.timing.timeout {
            raft.set_randomized_election_timeout(self.timing.timeout);
        }
    }

    /// Takes over what raft appended: its own list of entries is empty again after this, and every block is in the store.
    fn absorb(&mut self, offered: &[Arc<Block>]) {
        let raft_log = &mut self.raft.r.raft_log;
        let (Some(first), Some(last)) = (raft_log.unstable.entries.first(), raft_log.unstable.entries.last())
        else {
            return;
        };
        let (first, last) = (first.index, (last.index, last.term));
        let log = &mut raft_log.store;
        log.truncate(first - 1);
        self.unwritten = self.unwritten.min(first);
        for entry in &raft_log.unstable.entries {
            let block = match offered.first() {
                None => Arc::new(seal(&log.end(), entry, &self.members)),
                Some(first) => {
                    let nth = entry.index.checked_sub(first.header().index);
                    let offered = nth.and_then(|nth| offered.get(nth as usize));
                    Arc::clone(offered.expect("raft appends what it was offered"))
                }
            };
            log.push(block);
        }
        raft_log.stable_entries(last.0, last.1);
    }

    /// Messages of raft's as they go out; those whose blocks are gone are as good as lost.
    fn outgoing(&mut self) -> Vec<(NodeId, PeerMessage)> {
        let messages = std::mem::take(&mut self.raft.msgs);
        let log = self.raft.store();
        let made = |message: &Message| {
            PeerMessage::from_raft(message, |entry| log.block_of(entry)).map(|made| (message.to, made))
        };
        let made = messages.iter().filter_map(made).collect();
        log.forget_reread();
        made
    }

    fn send(&mut self, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, message) in messages {
            self.outbox.send(to, message);
        }
    }

    /// What is new since this was last asked.
    fn take_ready(&mut self) -> Ready {
        // What a leader says of its log may leave before that is durable here: others may be faster.
        let messages = if self.raft.msgs.is_empty() { Vec::new() } else { self.outgoing() };
        let (speaks, holds) = if self.leads() { (messages, Vec::new()) } else { (Vec::new(), messages) };
        let log = &self.raft.raft_log;
        let durable = log.committed.min(log.persisted);
        let blocks = log.store.recent_from(self.unwritten, log.store.last(), u64::MAX);
        let committed = log.store.recent_from(self.handed + 1, durable, COMMITTED_BYTES);
        self.unwritten += blocks.len() as u64;
        self.handed += committed.len() as u64;
        for block in committed.iter().filter(|block| block.header().kind == BlockKind::ConfChange) {
            self.changes.push_back(Arc::clone(block));
        }

        let now = HardState { term: self.raft.term, vote: self.raft.vote, commit: durable };
        let voted = (now.term, now.vote) != (self.journalled.term, self.journalled.vote);
        let written = blocks.first().zip(blocks.last()).map(|(first, last)| Written {
            first: first.header().index,
            last: last.header().index,
            term: last.header().term,
        });
        let persist = (voted || written.is_some()).then(|| {
            let worth = voted || now.commit >= self.journalled.commit + COMMIT_LAG;
            self.ticket += 1;
            Persist { ticket: self.ticket, hard_state: worth.then_some(now), blocks }
        });
        if let Some(state) = persist.as_ref().and_then(|persist| persist.hard_state) {
            self.journalled = state;
        }

        if !speaks.is_empty() && now.term > self.term_durable {
            self.unspoken.extend(speaks.into_iter().map(|(to, message)| (now.term, to, message)));
        } else if !speaks.is_empty() {
            self.send(speaks);
        }
        if persist.is_some() || (!self.waiting.is_empty() && !holds.is_empty()) {
            let (ticket, term) = (self.ticket, now.term);
            self.waiting.push_back(Waiting { ticket, term, blocks: written, messages: holds });
        } else if !holds.is_empty() {
            self.send(holds);
        }
        Ready { persist, committed }
    }

    /// Tells the others what is committed when all of the log is. While blocks are under way that is not worth messages of its own, and answers
    /// to them: the next blocks bring it along, else the last ones to be committed.
    fn announce(&mut self) {
        let committed = self.raft.raft_log.committed;
        if committed > self.announced && self.leads() && committed == self.last() {
            self.announced = committed;
            self.raft.bcast_append();
        }
    }

    /// There is something to write, to apply or to say.
    fn has_news(&self) -> bool {
        let raft = &self.raft;
        let log = &raft.raft_log;
        self.unwritten <= log.store.last()
            || self.handed < log.committed.min(log.persisted)
            || !raft.msgs.is_empty()
            || (raft.term, raft.vote) != (self.journalled.term, self.journalled.vote)
    }

    fn apply_change(&mut self, block: &Block) {
        let index = block.header().index;
        let unknown = self.members.is_empty();
        let change = self.members.apply(block.payload()).unwrap_or_else(|error| {
            panic!("the committed change of members in block {index} applies: {error}")
        });
        let state = if unknown {
            self.restore_members()
        } else {
            self.raft
                .apply_conf_change(&change.to_raft())
                .expect("a change that the leader could apply applies here")
        };
        assert!(
            self.members.agrees_with(&state),
            "raft and this node agree on the members after block {index}: {state:?} and {:?}",
            self.members
        );
        self.was_member |= self.members.get(self.node).is_some();
        if self.leads() && !self.members.is_voter(self.node) {
            self.resign();
        }
        self.outbox.members_changed(&self.members);
    }

    /// On a node that joined and knew nobody: tells raft all members at once.
    fn restore_members(&mut self) -> raft::eraftpb::ConfState {
        let last = self.last();
        let prs = self.raft.mut_prs();
        let before =
            self.members.iter().filter(|(_, m)| if self.members.is_joint() { m.outgoing } else { m.voter });
        for (node, _) in before {
            let step = [single(node, Step::Voter)];
            let (config, changes) = Changer::new(prs).simple(&step).expect("voters can be added one by one");
            prs.apply_conf(config, changes, last);
        }
        let learners = self.members.iter().filter(|(_, m)| m.learner || m.learner_next);
        let learners = learners.map(|(node, _)| single(node, Step::Learner));
        if self.members.is_joint() {
            let outgoing = self.members.iter().filter(|(_, m)| m.outgoing);
            let steps = outgoing.map(|(node, _)| single(node, Step::Remove));
            let voters = self.members.voters().map(|node| single(node, Step::Voter));
            let steps = steps.chain(voters).chain(learners).collect::<Vec<_>>();
            let (config, changes) =
                Changer::new(prs).enter_joint(true, &steps).expect("a joint configuration can be entered");
            prs.apply_conf(config, changes, last);
        } else {
            for step in learners {
                let (config, changes) =
                    Changer::new(prs).simple(&[step]).expect("learners can be added one by one");
                prs.apply_conf(config, changes, last);
            }
        }
        self.raft.post_conf_change()
    }

    /// A leader that no longer votes asks the voter with the longest log to take over, and follows.
    fn resign(&mut self) {
        let raft = &mut self.raft;
        let best = self
            .members
            .voters()
            .filter_map(|node| raft.prs().get(node).map(|progress| (progress.matched, node)))
            .max();
        if let Some((_, node)) = best {
            raft.send_timeout_now(node);
        }
        let term = raft.term;
        raft.become_follower(term, INVALID_ID);
    }

    /// Ends a joint configuration that raft does not end by itself, and sends what it appended.
    fn leave_joint(&mut self, last: u64) {
        let raft = &self.raft;
        if !self.leads() {
            return;
        }
        if self.members.is_joint() && !raft.has_pending_conf() {
            let leave = ConfChange::leave(&self.members).expect("a joint configuration can be left");
            self.append_change(&leave);
        } else if self.last() > last {
            self.raft.bcast_append();
        }
    }
}

/// A leader writes a change of members only when it has applied the one before. So of several in a log all but the last are committed,
/// whatever became of the commit index, which is journalled now and then. To know this is not a matter of speed: a node that holds the second
/// change and would still stand for election among the members before the first could win against what the new ones decided.
fn proven_commit(tail: &[Arc<Block>]) -> u64 {
    let changes = tail.iter().rev().filter(|block| block.header().kind == BlockKind::ConfChange);
    changes.skip(1).map(|block| block.header().index).next().unwrap_or(0)
}

/// The block of an entry that raft appended itself: a new leader's first, or the leave of a joint configuration.
fn seal(before: &Position, entry: &Entry, members: &Members) -> Block {
    match entry.get_entry_type() {
        EntryType::EntryNormal => Block::empty(before, entry.term),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            let leave = ConfChange::leave(members).expect("raft leaves the joint configuration it is in");
            Block::conf_change(before, entry.term, &leave.encode())
        }
    }
}

/// What raft is told by its own node, about a peer or itself. It is never refused in a way that matters: raft has no use for it, then.
fn local(kind: MessageType, about: NodeId) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.from = about;
    message
}

impl Consensus for RaftCore {
    fn lead(&self) -> Option<(Position, u64)> {
        let raft = &self.raft;
        let may = self.leads()
            && !self.stopped
            && raft.lead_transferee.is_none()
            && raft.prs().get(self.node).is_some();
        may.then(|| (self.raft.store().end(), raft.term))
    }

    fn propose(&mut self, block: Arc<Block>) {
        let header = block.header();
        assert!(self.leads() && !self.stopped, "only a leader is asked to take a block");
        let refused = self.raft.store().end().refuses(header);
        assert!(refused.is_none(), "a block is sealed for its place: {refused:?}");
        assert!(
            header.term == self.raft.term && header.kind == BlockKind::Entry,
            "it is an entry of the current term"
        );
        // What raft does with a proposal; it looks at the place alone.
        let (index, term) = (header.index, header.term);
        let appended = self.raft.append_entry(&mut [wire::place(header)]);
        assert!(appended, "there is no limit to what is not committed yet");
        let log = &mut self.raft.r.raft_log;
        log.store.push(block);
        log.stable_entries(index, term);
        log.store.renew_budget();
        self.raft.bcast_append();
    }

    fn persisted(&mut self, ticket: u64) {
        let mut durable = None;
        let mut messages = Vec::new();
        while let Some(waiting) = self.waiting.pop_front_if(|next| next.ticket <= ticket) {
            self.term_durable = self.term_durable.max(waiting.term);
            if !waiting.messages.is_empty() {
                messages.extend(waiting.messages);
            }
            // If what still has to be written replaces a block of this, the log on disk is not yet what raft would take it for.
            let replaced = |last| {
                self.unwritten <= last
                    || self.waiting.iter().filter_map(|later| later.blocks).any(|later| later.first <= last)
            };
            durable = waiting.blocks.filter(|blocks| !replaced(blocks.last)).or(durable);
        }
        if self.stopped {
            return;
        }
        if !self.unspoken.is_empty() {
            let term_durable = self.term_durable;
            for (_, to, message) in self.unspoken.extract_if(.., |(term, ..)| *term <= term_durable) {
                self.outbox.send(to, message);
            }
        }
        if !messages.is_empty() {
            self.send(messages);
        }
        if let Some(Written { last, term, .. }) = durable {
            self.raft.on_persist_entries(last, term);
            self.settle(&[]);
        }
    }

    fn tick(&mut self) {
        if !self.stopped && self.may_campaign() {
            self.raft.tick();
            self.settle(&[]);
            for peer in self.forgotten_snapshots() {
                self.report_snapshot(peer, false);
            }
        }
    }

    fn applied(&mut self, index: u64) {
        let log = &self.raft.raft_log;
        if index <= log.applied || self.stopped {
            return;
        }
        assert!(index <= log.committed.min(log.persisted), "only what was handed out is applied");
        let last = self.last();
        while let Some(block) = self.changes.pop_front_if(|block| block.header().index <= index) {
            self.apply_change(&block);
        }
        self.raft.commit_apply(index);
        self.settle(&[]);
        self.leave_joint(last);
        self.raft.mut_store().trim(index);
    }

    fn ready(&mut self) -> Option<Ready> {
        if !self.stopped {
            self.announce();
        }
        while !self.stopped && self.has_news() {
            let ready = self.take_ready();
            if ready.persist.is_some() || !ready.committed.is_empty() {
                return Some(ready);
            }
        }
        None
    }

    fn leadership(&self) -> Leadership {
        let raft = &self.raft;
        let leader = Some(raft.leader_id).filter(|leader| *leader != INVALID_ID);
        Leadership { term: raft.term, leader, leads: self.leads() && !self.stopped }
    }
}
