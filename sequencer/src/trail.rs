//! Where the log stands, and stood after each block that may still be replaced. The writer of a journal and every reader keep
//! one, so both ends hold the stream to the same rules.
//!
//! A journal is append only, and a log is not: a follower may have to give up blocks that were never committed. A log block
//! whose index is not above the last one replaces everything from that index on, and must follow on the block before it.

use std::collections::VecDeque;

use crate::block::{BlockHeader, BlockKind, Position};
use crate::consensus::HardState;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    /// Where the log can be read from, without a gap.
    start: Position,
    /// Behind the last block known to be committed, or where the reading began.
    base: Position,
    /// Behind each later block.
    later: VecDeque<Position>,
    /// The reading began in the middle, and blocks before the beginning may still turn out to be replaced.
    open: bool,
    hard_state: HardState,
    committed: u64,
}

/// What a block did to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It went on; blocks from this one's index on, if there were any, are replaced.
    On,
    /// Term, vote and a committed index were noted.
    HardState(HardState),
    /// The log goes on behind a snapshot.
    Behind(Position),
}

impl Trail {
    /// A log that begins behind a block which will never be replaced.
    pub(crate) fn behind(position: Position) -> Self {
        Self {
            start: position,
            base: position,
            later: VecDeque::new(),
            open: false,
            hard_state: HardState::default(),
            committed: position.index,
        }
    }

    /// A log read from the middle: behind a block of which nobody said yet that it is committed.
    pub(crate) fn from_middle(position: Position) -> Self {
        Self { open: position.index > 0, committed: 0, ..Self::behind(position) }
    }

    /// Behind the last block.
    pub(crate) fn last(&self) -> Position {
        self.later.back().copied().unwrap_or(self.base)
    }

    /// Behind the first block from which on the log reads without a gap.
    pub(crate) fn start(&self) -> Position {
        self.start
    }

    /// False while the beginning may still be replaced.
    pub(crate) fn is_settled(&self) -> bool {
        !self.open
    }

    /// Read to its end: nothing more will be replaced, except by the writer that goes on from here.
    pub(crate) fn settled(self) -> Self {
        Self { open: false, ..self }
    }

    /// Term, vote and committed index as last noted.
    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The highest index known to be committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Behind the block of this index, if that is the last one known to be committed or a later one.
    pub(crate) fn at(&self, index: u64) -> Option<Position> {
        match index.checked_sub(self.base.index)? {
            0 => Some(self.base),
            above => self.later.get(above as usize - 1).copied(),
        }
    }

    /// Takes in the next block of the stream, or says why it cannot be the next.
    pub(crate) fn accept(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<Moved, String> {
        match header.kind {
            BlockKind::Entry | BlockKind::ConfChange => self.accept_log(header).map(|()| Moved::On),
            BlockKind::HardState => {
                self.follows_on_last(header)?;
                let state = HardState::from_bytes(payload).ok_or("its hard state has another length")?;
                let last = self.last().index;
                if state.commit > last {
                    let commit = state.commit;
                    return Err(format!(
                        "it says that block {commit} is committed, where {last} is the last"
                    ));
                }
                self.hard_state = state;
                self.commit(state.commit);
                Ok(Moved::HardState(state))
            }
            BlockKind::Snapshot => {
                self.follows_on_last(header)?;
                let position = Position::from_bytes(payload).ok_or("its position has another length")?;
                if position.index <= self.committed {
                    return Err("it notes a snapshot of what was committed before".to_owned());
                }
                let hard_state = self.hard_state;
                *self = Self { hard_state, ..Self::behind(position) };
                Ok(Moved::Behind(position))
            }
        }
    }

    fn follows_on_last(&self, header: &BlockHeader) -> Result<(), String> {
        self.last().refuses(header).map_or(Ok(()), Err)
    }

    fn accept_log(&mut self, header: &BlockHeader) -> Result<(), String> {
        let last = self.last().index;
        if header.index == last + 1 {
            self.follows_on_last(header)?;
        } else if header.index > last {
            return Err(format!("its index is {}, where {} must follow", header.index, last + 1));
        } else if header.index <= self.committed {
            return Err(format!("it replaces block {}, which had been committed", header.index));
        } else if let Some(before) = self.at(header.index - 1) {
            before.refuses(header).map_or(Ok(()), Err)?;
            self.later.truncate((before.index - self.base.index) as usize);
        } else if self.open {
            self.base = Position::after(header);
            self.start = self.base;
            self.later.clear();
            return Ok(());
        } else {
            return Err(format!("its index is {}, before the beginning of the log", header.index));
        }
        self.later.push_back(Position::after(header));
        Ok(())
    }

    /// Blocks up to `index` are committed, and will not be replaced.
    pub(crate) fn commit(&mut self, index: u64) {
        self.committed = self.committed.max(index);
        if let Some(position) = self.at(index) {
            self.later.drain(..(index - self.base.index) as usize);
            self.base = position;
            self.open = false;
        }
    }
}
