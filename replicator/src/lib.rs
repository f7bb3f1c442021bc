//! Copies of the machine that are fed from the committed log, so that reads never touch the matching thread.
//!
//! A [`Replica`] applies every committed block to a machine of its own and checks that it comes to the same events. Readers look at it at a
//! known log sequence, wait until it has passed one (read your writes), and [subscribe](Replica::subscribe) to what happens. It also writes the
//! snapshots, in the background, and compares what it came to with the other nodes ([`Digests`]): one that differs stops.
//! Its parts know nothing of what a command means.
//!
//! [`core`] is the raft core that takes the seat `grid_sequencer::Consensus`, [`links`] carry what nodes say to each other and what
//! operators ask, and a [`Node`] is all of it put together; a venue of one node runs it like any other.

pub mod core;
mod digests;
pub mod links;
mod node;
mod peers;
mod progress;
mod promises;
mod repair;
mod replica;
mod snapshots;
mod subscription;
mod sync;

pub use digests::{Digest, DigestKind, Digests, Divergence, Voters};
pub use node::{ClusterConfig, LinkSettings, Node, NodeConfig, NodeError, NodeEvent};
pub use progress::WaitError;
pub use promises::{Promise, Promises};
pub use repair::RepairError;
pub use replica::{Followed, Membership, Replica, ReplicaConfig, ReplicaStage, ReplicaThread};
pub use subscription::{Overflow, Subscription, SubscriptionEnd};
