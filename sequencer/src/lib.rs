//! One log: every command is numbered, stamped, journalled and committed before the machine sees it, and can be replayed.
//!
//! ```text
//! Submitter ─► sequencer ─► block ─► consensus core ─► journal ─► consensus core ─► matcher ─► OutputPoller
//! ```
//! The life of a run: [`recover`] builds up the state from a data directory, [`Sequencer::start`] runs it, [`Submitter`]s
//! hand commands in, [`OutputPoller`]s see what they did, [`Handle::shutdown`] ends it with everything on disk.
//!
//! What is deliberately not known here: what a command means ([`Machine`] says), sockets, and other nodes ([`Consensus`] does).
//! The bytes on disk are described in `JOURNAL.md`.

mod block;
mod blocks;
mod clock;
mod clocks;
mod consensus;
mod disk;
mod door;
mod doorbell;
mod driver;
mod fault;
mod hosted;
mod inbound;
pub mod inspect;
mod journal;
mod lane;
mod layout;
mod leadership;
mod log_reader;
mod machine;
mod metrics;
mod outbound;
mod output;
mod recover;
mod repair;
mod room;
mod segment;
mod sequencer;
mod snapshot;
mod stages;
mod stall;
mod sync;
#[cfg(test)]
mod torture;
mod trail;

pub use block::{Block, BlockHeader, BlockKind, CommandBytes, CommittedBlock, NotABlock, Position};
pub use blocks::Blocks;
pub use clock::Clock;
pub use clocks::{Leg, LegTimes, StageClocks};
pub use consensus::{Consensus, HardState, Leadership, NodeId, Persist, Ready, Solo};
pub use disk::{Access, Background, Disk, DiskFile, DiskLock, Inline, Job, RealDisk, SideThread};
pub use driver::Driver;
#[doc(hidden)]
pub use fault::fault_point_reached;
#[cfg(feature = "faults")]
pub use fault::{Moment, hook_faults};
pub use fault::{abort, abort_on_panic};
pub use hosted::{Hosted, Lender};
pub use inbound::{SubmitError, Submitter};
pub use journal::{Durability, Journal, JournalConfig, JournalError};
pub use layout::{LayoutError, Stage, StageName, Step, ThreadLayout, ThreadPlan, Wait};
pub use leadership::LeaderWatch;
pub use log_reader::{LogReadError, LogReader};
pub use machine::{LookAhead, Machine, Unreadable};
pub use metrics::Metrics;
pub use outbound::{OutputPoller, Polled, Waker};
pub use output::Output;
pub use recover::{
    DataDir, Progress, RecoverError, Recovered, RecoveryReport, Replayed, Upto, recover, recover_on,
    replay_all_kept, replay_events, replay_from_first_block, replay_upto, snapshot_dir,
};
pub use repair::{Damage, examine, examine_on, repair, repair_on};
pub use segment::TornTail;
pub use sequencer::{Assembly, Config, Handle, Running, Sequencer, StartError, Stopped};
pub use snapshot::{SnapshotError, SnapshotMeta, SnapshotReceiver, SnapshotSource, SnapshotStore};
pub use stages::{BlockLimits, Status};
pub use stall::Culprit;
