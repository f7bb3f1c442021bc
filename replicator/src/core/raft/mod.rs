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

mod changing;
mod handing;
mod leading;
mod receiving;
mod snapshots;
mod start;
mod status;
mod timing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grid_sequencer::{Block, BlockKind, Consensus, HardState, Leadership, NodeId, Position, Ready};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{INVALID_ID, Raft, StateRole};

use super::log::Log;
use super::members::{ConfChange, Members};
use super::outbox::Outbox;
use super::wire::{self, PeerMessage};

pub use changing::ChangeRefused;
pub use leading::TransferRefused;
pub use receiving::{Received, Stop};
pub use start::{CoreConfig, CoreError, Recovery};
pub use status::{CoreStatus, PeerStatus, Role, Standing};

use handing::Waiting;
use timing::Timing;

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
        self.written(ticket);
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
