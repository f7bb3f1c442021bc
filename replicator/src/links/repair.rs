//! Blocks for a node whose journal is damaged: it asks the others for a range before its own core runs.
//!
//! Which blocks are good is decided by their chain, which the asking node checks; here they are bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::caller::{CallError, Caller};
use super::frame::{self, Epoch, Hello, Kind, Role};
use super::identity::node_name;
use super::session::{Security, Tls};
use super::{NodeId, Owed};

/// Asks for the blocks from an index on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// The first index wanted.
    pub from_index: u64,
    /// The asking node's chain before that index; 0 if it knows none.
    pub chain: u64,
}

/// How far the answering node's log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Its term.
    pub term: u64,
    /// The first index its journal still holds.
    pub first_index: u64,
    /// The last index of its log.
    pub last_index: u64,
    /// And that block's term.
    pub last_term: u64,
    /// The highest index it knows to be committed.
    pub commit: u64,
}

/// Blocks, one after the other in their wire form; empty when the node has none from that index on, or its history
/// before it is another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairBlocks {
    /// How far the answering node's log reaches.
    pub status: RepairStatus,
    /// Why there are no blocks, for people; empty if there are some.
    pub words: String,
    /// The blocks.
    pub blocks: Vec<u8>,
}

impl Owed for RepairBlocks {
    fn unanswered() -> Self {
        Self { words: "the node is stopping".to_owned(), ..Self::default() }
    }
}

/// Who asks whom.
#[derive(Clone, Debug)]
pub struct RepairFrom {
    /// The cluster.
    pub cluster: u64,
    /// The node that asks.
    pub node: NodeId,
    /// The node that is asked.
    pub peer: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A connection to one node that blocks can be asked on, one range after the other.
#[derive(Debug)]
pub struct RepairCall {
    caller: Caller,
}

impl RepairCall {
    /// Connects and logs in as the damaged node.
    ///
    /// # Errors
    /// When the node does not answer in time, or does not take the certificate.
    pub fn connect(whom: &RepairFrom, tls: &Tls, timeout: Duration) -> Result<Self, CallError> {
        let security = Security::new(tls).map_err(|error| CallError::Identity(error.to_string()))?;
        let hello = Hello {
            cluster: whom.cluster,
            role: Role::Repair,
            from: whom.node,
            to: whom.peer,
            epoch: Epoch { boot: 0, attempt: 0 },
            listens: None,
        };
        let deadline = Instant::now() + timeout;
        let caller = Caller::connect(whom.address, &security, &node_name(whom.peer), &hello, deadline)?;
        Ok(Self { caller })
    }

    /// Fetches the next range.
    ///
    /// # Errors
    /// When the node does not answer in time, or the connection is lost.
    pub fn fetch(&mut self, request: RepairRequest, timeout: Duration) -> Result<RepairBlocks, CallError> {
        self.caller.set_deadline(Instant::now() + timeout);
        let body =
            self.caller.exchange(Kind::RepairRequest, &frame::to_bytes(&request), Kind::RepairBlocks)?;
        frame::from_bytes(&body).ok_or_else(|| self.caller.nonsense("a reply that cannot be read"))
    }
}
