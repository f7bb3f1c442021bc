//! Who leads: standing for election, handing leadership over, and giving it up.

use grid_sequencer::NodeId;
use raft::INVALID_ID;
use raft::eraftpb::MessageType;

use super::{RaftCore, local};

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

impl RaftCore {
    /// Stands for election now, if this node may.
    pub fn campaign(&mut self) {
        if !self.stopped && self.may_campaign() && self.raft.promotable() {
            // Refused only while changes of members wait to be applied; the timeout tries again.
            let _ = self.raft.step(local(MessageType::MsgHup, INVALID_ID));
            self.settle(&[]);
        }
    }

    /// A sole voter leads as soon as it campaigns, which is only sound on a log that is durable to its end.
    pub(super) fn may_campaign(&self) -> bool {
        self.leads() || !self.members.is_sole_voter(self.node) || self.is_durable()
    }

    pub(super) fn is_durable(&self) -> bool {
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

    /// A leader that no longer votes asks the voter with the longest log to take over, and follows.
    pub(super) fn resign(&mut self) {
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
}
