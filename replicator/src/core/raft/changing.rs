//! Changes of the members, from what an operator asks for to what raft and this node hold once the block is applied.

use std::sync::Arc;

use grid_sequencer::Block;
use raft::Changer;
use raft::eraftpb::ConfState;

use super::RaftCore;
use crate::core::members::{ConfChange, MemberChange, Step, single};
use crate::core::wire;

/// A learner within so many blocks of the log's end has caught up.
const CAUGHT_UP_BLOCKS: u64 = 256;

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

impl RaftCore {
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

    pub(super) fn apply_change(&mut self, block: &Block) {
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
    fn restore_members(&mut self) -> ConfState {
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

    /// Ends a joint configuration that raft does not end by itself, and sends what it appended.
    pub(super) fn leave_joint(&mut self, last: u64) {
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
