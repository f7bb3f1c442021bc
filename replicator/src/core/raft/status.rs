//! What a core tells people.

use grid_sequencer::{Consensus, NodeId};
use raft::{ProgressState, StateRole};

use super::RaftCore;
use crate::core::members::Members;

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

impl RaftCore {
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
}
