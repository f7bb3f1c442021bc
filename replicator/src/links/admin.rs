//! What an operator may ask of a running cluster, and the caller that asks. Requests are rare, so they are coded for
//! people who read them, not for speed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::caller::{CallError, Caller};
use super::frame::{self, Epoch, Hello, Kind, Role};
use super::identity::ANY_NODE_NAME;
use super::session::{Security, Tls};
use super::{NodeId, Owed};

/// How often a request is sent on to another node that is said to lead.
const HOPS_MAX: usize = 4;

/// An operator's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// How the node sees itself and the cluster. Any node answers; all others are the leader's to answer.
    Status,
    /// Takes a node into the cluster.
    Add {
        /// Its number, never used before.
        node: NodeId,
        /// Where its links listen.
        peer_address: String,
        /// Where its binary gateway listens.
        binary_address: String,
        /// It follows and never votes.
        learner: bool,
    },
    /// Makes a learner a voter.
    Promote {
        /// Which.
        node: NodeId,
    },
    /// Takes a node out of the cluster.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// Hands the leadership over.
    Transfer {
        /// To whom.
        to: NodeId,
    },
    /// Takes a snapshot now, on the node that is asked.
    Snapshot,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReply {
    /// To [`AdminRequest::Status`].
    Status(Box<Status>),
    /// It is done: committed where it goes through the log.
    Done {
        /// For people.
        words: String,
    },
    /// Another node is to be asked.
    NotLeader {
        /// The leader, if one is known.
        leader: Option<NodeId>,
        /// Where its links listen.
        address: Option<SocketAddr>,
    },
    /// It is not done.
    Refused {
        /// For programs.
        code: AdminRefusal,
        /// For people.
        words: String,
    },
}

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRefusal {
    /// The request makes no sense here: an unknown node, one that is a member already, the last voter.
    Invalid,
    /// Not at this time: another change is under way. Ask again.
    Busy,
    /// It was begun and nobody knows whether it will be done; ask for the status.
    Unsure,
    /// The node is stopping.
    Stopping,
    /// The world failed: a disk, a file.
    Failed,
}

impl Owed for AdminReply {
    fn unanswered() -> Self {
        Self::Refused { code: AdminRefusal::Stopping, words: "the node is stopping".to_owned() }
    }
}

/// What a node does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows and never votes.
    Learner,
}

impl std::fmt::Display for NodeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        })
    }
}

/// How a node sees itself and the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's number.
    pub cluster: u64,
    /// Who answers.
    pub node: NodeId,
    /// What it does.
    pub role: NodeRole,
    /// Its term.
    pub term: u64,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// The first index its journal still holds.
    pub first_index: u64,
    /// The last index of its log.
    pub last_index: u64,
    /// The highest index known to be committed.
    pub commit: u64,
    /// The highest index applied to its state.
    pub applied: u64,
    /// The last log sequence applied.
    pub seq: u64,
    /// The history's hash at the last index.
    pub chain: u64,
    /// Index of its newest snapshot; 0 for none.
    pub snapshot_index: u64,
    /// What an acknowledgement means here: `disk-quorum` or `memory-quorum`.
    pub durability: String,
    /// The members, by number.
    pub members: Vec<MemberStatus>,
}

/// How the answering node sees a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Where its links listen.
    pub peer_address: String,
    /// Where its binary gateway listens.
    pub binary_address: String,
    /// Whether there is a link to it.
    pub linked: bool,
    /// The highest index it is known to hold; a leader alone knows.
    pub matched: Option<u64>,
    /// Whether it has been heard of lately; a leader alone knows.
    pub active: Option<bool>,
    /// Whether a snapshot is on its way to it.
    pub receives_snapshot: bool,
}

/// Asks one node, and the leader it names if it is the wrong one. Waits for the answer.
///
/// # Errors
/// When nobody answers in time, or the node does not take the operator's certificate.
pub fn call(
    address: SocketAddr,
    cluster: u64,
    tls: &Tls,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<AdminReply, CallError> {
    let security = Security::new(tls).map_err(|error| CallError::Identity(error.to_string()))?;
    let deadline = Instant::now() + timeout;
    let mut address = address;
    for _ in 0..HOPS_MAX {
        let hello = Hello {
            cluster,
            role: Role::Operator,
            from: 0,
            to: 0,
            epoch: Epoch { boot: 0, attempt: 0 },
            listens: None,
        };
        let mut caller = Caller::connect(address, &security, ANY_NODE_NAME, &hello, deadline)?;
        let body = caller.exchange(Kind::AdminRequest, &frame::to_bytes(request), Kind::AdminReply)?;
        let reply: AdminReply =
            frame::from_bytes(&body).ok_or_else(|| caller.nonsense("a reply that cannot be read"))?;
        match reply {
            AdminReply::NotLeader { address: Some(leader), .. } if leader != address => address = leader,
            reply => return Ok(reply),
        }
    }
    Ok(AdminReply::NotLeader { leader: None, address: None })
}
