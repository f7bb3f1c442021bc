//! Where the log stands, and stood after each block that may still be replaced. The writer of a journal and every reader keep
//! one, so both ends hold the stream to the same rules.
//!
//! A journal is append only, and a log is not: a follower may have to give up blocks that were never committed. A log block
//! whose index is not above the last one replaces everything from that index on, and must follow on the block before it.

use std::collections::VecDeque;

use crate::block::{Block, BlockHeader, BlockKind, Position};
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
        self.accept_at(header, payload, || Position::after(header))
    }

    /// The same for a block that was sealed here, which knows the position behind it.
    pub(crate) fn accept_block(&mut self, block: &Block) -> Result<Moved, String> {
        self.accept_at(block.header(), block.payload(), || block.position())
    }

    fn accept_at(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        after: impl FnOnce() -> Position,
    ) -> Result<Moved, String> {
        match header.kind {
            BlockKind::Entry | BlockKind::ConfChange => self.accept_log(header, after).map(|()| Moved::On),
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

    fn accept_log(&mut self, header: &BlockHeader, after: impl FnOnce() -> Position) -> Result<(), String> {
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
            self.base = after();
            self.start = self.base;
            self.later.clear();
            return Ok(());
        } else {
            return Err(format!("its index is {}, before the beginning of the log", header.index));
        }
        self.later.push_back(after());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of so many empty blocks of one term behind `before`.
    fn grow(trail: &mut Trail, term: u64, count: u64) {
        for _ in 0..count {
            let block = Block::empty(&trail.last(), term);
            assert_eq!(trail.accept(block.header(), &[]), Ok(Moved::On));
        }
    }

    fn note(trail: &mut Trail, commit: u64) -> Result<Moved, String> {
        let payload = HardState { term: 1, vote: 1, commit }.to_bytes();
        let block = Block::note(&trail.last(), BlockKind::HardState, &payload);
        trail.accept(block.header(), block.payload())
    }

    fn replace(trail: &mut Trail, index: u64, term: u64) -> Result<Moved, String> {
        let before = trail.at(index - 1).expect("not committed long ago");
        let block = Block::empty(&before, term);
        trail.accept(block.header(), &[])
    }

    #[test]
    fn a_block_at_or_below_the_last_replaces_everything_from_there_on() {
        let mut trail = Trail::behind(Position::default());
        grow(&mut trail, 1, 5);
        let third = trail.at(3).expect("there");
        assert_eq!(replace(&mut trail, 4, 2), Ok(Moved::On));
        assert_eq!((trail.last().index, trail.last().term), (4, 2));
        assert_eq!((trail.at(3), trail.at(5)), (Some(third), None));
        // What was replaced cannot be continued any more.
        grow(&mut trail, 2, 1);
        assert_eq!(trail.last().index, 5);
    }

    #[test]
    fn what_is_committed_is_never_replaced() {
        let mut trail = Trail::behind(Position::default());
        grow(&mut trail, 1, 5);
        assert!(note(&mut trail, 3).is_ok());
        let old = Block::empty(&Position::default(), 2);
        assert!(trail.accept(old.header(), &[]).is_err_and(|why| why.contains("had been committed")));
        assert_eq!(replace(&mut trail, 4, 2), Ok(Moved::On), "what is not may be");
    }

    #[test]
    fn a_block_that_does_not_continue_the_one_before_its_index_is_refused_and_changes_nothing() {
        let mut trail = Trail::behind(Position::default());
        grow(&mut trail, 2, 5);
        let before = trail.clone();
        let gap = Block::empty(&Position { index: 6, ..trail.last() }, 2);
        let wrong_chain = Block::empty(&Position { chain: 1, ..trail.at(2).expect("there") }, 3);
        let older_term = Block::empty(&trail.last(), 1);
        for block in [gap, wrong_chain, older_term] {
            assert!(trail.accept(block.header(), &[]).is_err());
        }
        assert!(note(&mut trail, 6).is_err(), "a commit beyond the end");
        assert_eq!(trail, before);
    }

    #[test]
    fn a_log_read_from_the_middle_begins_behind_the_last_replacement_of_its_beginning() {
        let mut whole = Trail::behind(Position::default());
        grow(&mut whole, 1, 9);
        let mut trail = Trail::from_middle(whole.last());
        grow(&mut trail, 1, 2);
        let block = Block::empty(&whole.at(4).expect("there"), 2);
        assert_eq!(trail.accept(block.header(), &[]), Ok(Moved::On));
        grow(&mut trail, 2, 3);
        assert!(!trail.is_settled());
        assert_eq!((trail.start(), trail.last().index), (Position::after(block.header()), 8));
        assert!(note(&mut trail, 6).is_ok());
        assert!(trail.is_settled());
        assert_eq!(trail.start().index, 5);
    }

    #[test]
    fn behind_a_snapshot_nothing_before_counts() {
        let mut trail = Trail::behind(Position::default());
        grow(&mut trail, 1, 5);
        let position = Position { index: 50, term: 3, chain: 7, ..Position::default() };
        let block = Block::note(&trail.last(), BlockKind::Snapshot, &position.to_bytes());
        assert_eq!(trail.accept(block.header(), block.payload()), Ok(Moved::Behind(position)));
        assert_eq!((trail.start(), trail.last(), trail.committed()), (position, position, 50));
        let again = Block::note(&position, BlockKind::Snapshot, &position.to_bytes());
        assert!(
            trail.accept(again.header(), again.payload()).is_err(),
            "a snapshot of what was committed before"
        );
    }
}
