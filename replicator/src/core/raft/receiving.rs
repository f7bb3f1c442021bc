//! What peers say, before raft hears it. Nothing that comes from a peer reaches an assertion of the crate's: what makes no sense is ignored, and
//! what a sound peer could never send stops this node before it believes or writes anything.

use grid_sequencer::NodeId;
use raft::eraftpb::MessageType;
use raft::{INVALID_ID, ProgressState, StateRole};

use super::{RaftCore, local};
use crate::core::wire::{MessageKind, PeerMessage, WireError};

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

impl RaftCore {
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

    pub(super) fn step(&mut self, from: NodeId, message: &PeerMessage) -> Received {
        let step = message.to_raft(from, self.node);
        let result = self.raft.step(step);
        self.settle(&message.blocks);
        match result {
            Ok(()) => Received::Taken,
            Err(_) => Received::Ignored("raft has no use for it"),
        }
    }

    /// A message to this peer was lost, or its connection is.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        let _ = self.raft.step(local(MessageType::MsgUnreachable, peer));
        self.settle(&[]);
    }
}
