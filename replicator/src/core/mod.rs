//! The raft core of one node: who leads, what the log is, and what of it is committed.
//!
//! It takes the seat `grid_sequencer::Consensus` over TiKV's `raft` crate and adds what that crate leaves to others: blocks instead of
//! protobuf entries, an own coding of messages, members with addresses, timing from an own seed, and guards in front of every
//! place where a peer's bytes could stop the process. It is sans-I/O: it knows no clock, thread, socket or file (old blocks are read
//! through [`OldBlocks`]), so the threads of a venue and the simulator drive the very same code.
//!
//! ```text
//! propose, persisted, tick, applied ─►┌──────────┐─► ready(): to journal, to apply
//! receive (links) ───────────────────►│ RaftCore │─► Outbox: messages to peers
//! operator: transfer, change_members ►└──────────┘─► status()
//! ```
//! A single node is a cluster of one voter and takes the same path.
//!
//! Deliberately not here: journalling, connections, the transfer of snapshot files, and what a command means.

mod log;
mod members;
mod outbox;
mod raft;
mod wire;

pub use self::raft::{
    ChangeRefused, CoreConfig, CoreError, CoreStatus, PeerStatus, RaftCore, Received, Recovery, Role,
    Standing, Stop, TransferRefused,
};
pub use log::{Compacted, OldBlocks};
pub use members::{Addresses, ConfChange, Member, MemberChange, Members, MembersError};
pub use outbox::Outbox;
pub use wire::{MessageKind, PeerMessage, WireError};
