//! Snapshots in place of blocks that are gone: which one is wanted, what became of one that was sent, and how far the log behind
//! them may go. Files are not known here.

use std::sync::Arc;

use grid_sequencer::{Block, NodeId};
use raft::ProgressState;
use raft::eraftpb::MessageType;

use super::{RaftCore, local};
use crate::core::log::Compacted;

/// Election timeouts after which a snapshot that nobody reported on is announced again: the announcement may have been lost.
const SNAPSHOT_PATIENCE: usize = 8;

impl RaftCore {
    pub(super) fn wants_snapshot(&self, index: u64, term: u64) -> bool {
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

    /// Peers that have been owed a snapshot for too long without news of it.
    pub(super) fn forgotten_snapshots(&mut self) -> Vec<NodeId> {
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
}
