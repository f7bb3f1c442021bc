//! How a core begins: what it is told, and what it makes of what is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grid_sequencer::{Block, BlockKind, HardState, NodeId, Position};
use raft::{Config, INVALID_ID, Raft};

use super::RaftCore;
use super::handing::COMMITTED_BYTES;
use super::timing::Timing;
use crate::core::log::{Log, OldBlocks};
use crate::core::members::Members;
use crate::core::outbox::Outbox;

/// Most bytes of blocks in one message, unless a single block is larger.
const MESSAGE_BYTES: u64 = 256 << 10;
/// Appends in flight to one follower that it has not answered yet.
const INFLIGHT_MESSAGES: usize = 256;

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
}

/// A leader writes a change of members only when it has applied the one before. So of several in a log all but the last are committed,
/// whatever became of the commit index, which is journalled now and then. To know this is not a matter of speed: a node that holds the second
/// change and would still stand for election among the members before the first could win against what the new ones decided.
fn proven_commit(tail: &[Arc<Block>]) -> u64 {
    let headers = tail.iter().rev().map(|block| block.header());
    headers.filter(|header| header.kind == BlockKind::ConfChange).nth(1).map_or(0, |header| header.index)
}
