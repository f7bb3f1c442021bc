//! The stages of the order path. Each does its work in a `step` that never waits; threads, tests and the simulator drive them.
//!
//! ```text
//! submitters ─► inbound ring ─► sequencer ─► consensus core ─► journal lane ─► journal ─► persisted ─► consensus core
//!                    ▲                            │
//!                  timer ─► tick ─────────────────┴─► committed lane ─► matcher ─► outbound lanes ─► consumers
//! ```
//! A block enters the core when it is sealed and comes out to the matcher when it is committed. The matcher's cursor is what
//! holds the sequencer back, so the number of blocks between the two is bounded.

mod cursors;
mod journal;
mod matcher;
mod pending;
mod sequencer;
mod timer;

use grid_engine::Nanos;

use crate::block::{Block, BlockKind, CommandBytes, CommittedBlock};
use crate::machine::Machine;
use crate::sync::Arc;

pub use cursors::Status;
pub(crate) use cursors::{Cursors, StageBells};
pub(crate) use journal::JournalStage;
pub(crate) use matcher::MatcherStage;
pub(crate) use pending::Pending;
pub(crate) use sequencer::SequencerStage;
pub(crate) use timer::TimerStage;

/// When a block closes, if the input does not run empty first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Most commands.
    pub commands: usize,
    /// Most payload bytes, unless a single command is larger.
    pub bytes: usize,
    /// Longest time a block stays open.
    pub open: Nanos,
}

impl Default for BlockLimits {
    /// 64 commands, 8 KiB, 20 µs (design §5).
    fn default() -> Self {
        Self { commands: 64, bytes: 8 << 10, open: Nanos(20_000) }
    }
}

/// A committed block on its way to the matcher.
pub(crate) enum Committed<C> {
    /// Proposed here, with the commands as the producers handed them in.
    Own(Arc<CommittedBlock<C>>),
    /// Proposed by another leader, or before a restart: its commands are yet to be decoded.
    Bytes(Arc<Block>),
}

impl<C> Committed<C> {
    pub(crate) fn index(&self) -> u64 {
        match self {
            Self::Own(block) => block.index(),
            Self::Bytes(block) => block.header().index,
        }
    }
}

/// A block that another node sealed, with its commands, which are put down in `decoded`; that is empty.
///
/// # Panics
/// On bytes that this program cannot read: going on without them would part this node from the others.
fn decode<M: Machine>(block: Arc<Block>, mut decoded: Vec<M::Command>) -> Arc<CommittedBlock<M::Command>> {
    let index = block.header().index;
    let commands = if block.header().kind == BlockKind::Entry {
        CommandBytes::new(block.payload())
    } else {
        CommandBytes::new(&[])
    };
    decoded.reserve(block.header().commands as usize);
    for bytes in commands {
        decoded.push(M::decode(bytes).unwrap_or_else(|error| {
            panic!("a command of committed block {index} cannot be read: {error}. Start this node with the leader's program version or a newer one")
        }));
    }
    assert_eq!(
        decoded.len(),
        block.header().commands as usize,
        "block {index} holds as many commands as it says"
    );
    Arc::new(CommittedBlock::new(block, decoded))
}
