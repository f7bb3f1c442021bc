//! The seat of consensus: who says which place in the log a block has, and when it counts as committed.
//!
//! A core is a state machine without clock, thread or socket. The stages of one node tell it what happened (`propose`,
//! `persisted`, `tick`, `applied`) and ask what is to be done next (`ready`); the node's links tell it what its peers
//! said, through methods of its own. Everyone reaches it through the [`crate::Driver`], one at a time, for microseconds.
//! The trait is small on purpose: another core than raft can take the seat.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::block::{Block, BlockKind, Position};
use crate::blocks::Blocks;

/// Number of a node in its cluster; 0 is nobody.
pub type NodeId = u64;

/// What a node must remember across restarts besides the log: term and vote are journalled before anything is done under them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term this node has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// An index known to be committed: a lower bound, written when something else is written anyway.
    pub commit: u64,
}

impl HardState {
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        for (word, at) in [self.term, self.vote, self.commit].into_iter().zip([0, 8, 16]) {
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Self { term: word(0), vote: word(8), commit: word(16) })
    }
}

/// What is to be made durable together, in this order: the blocks, then the hard state, which may say that they are committed.
///
/// The first block may stand at or below the last index of the log: it and what follows then replace everything from there on.
#[derive(Clone, Debug, Default)]
pub struct Persist {
    /// Given back to [`Consensus::persisted`] when this and everything before it is durable. Rises by each one.
    pub ticket: u64,
    /// Term and vote, if they changed; the commit index rides along.
    pub hard_state: Option<HardState>,
    /// Blocks of the log, without a gap among them.
    pub blocks: Blocks,
}

/// What a core wants done next.
#[derive(Debug, Default)]
pub struct Ready {
    /// To be journalled; `None` if nothing.
    pub persist: Option<Persist>,
    /// To be applied, in log order without a gap over all calls: durable here and on a quorum.
    pub committed: Blocks,
}

/// Who leads, as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// Who leads in it, if known.
    pub leader: Option<NodeId>,
    /// This node does.
    pub leads: bool,
}

/// A consensus core, seen from the stages of one node.
///
/// Invariants: committed blocks are handed out once, in order, without a gap; each is durable on this node and on a
/// quorum, and is never replaced. Within a term, one node at most leads.
pub trait Consensus: Send + 'static {
    /// Where the next block goes, if this node leads and may propose now: the position after the log's last block, and
    /// the current term. Until the core is told anything but [proposals](Consensus::propose), it goes on leading, and the next place
    /// is the one behind the block that was proposed.
    fn lead(&self) -> Option<(Position, u64)>;

    /// Takes a block that was sealed for exactly that place.
    fn propose(&mut self, block: Arc<Block>);

    /// Everything up to and including this ticket is durable on this node.
    fn persisted(&mut self, ticket: u64);

    /// One step of the core's own time passed; elections and heartbeats count in these.
    fn tick(&mut self);

    /// This node's matcher has applied every block up to `index`.
    fn applied(&mut self, index: u64);

    /// What is to be done next. Asked until there is nothing, but not while the journal or the matcher is a whole lane behind.
    fn ready(&mut self) -> Option<Ready>;

    /// Who leads.
    fn leadership(&self) -> Leadership;
}

/// The smallest core there is: one voter whose log is committed as soon as it is durable. It shows what the stages cost without
/// raft, in tests and benches; a venue of one node runs raft like any other.
#[derive(Debug)]
pub struct Solo {
    term: u64,
    last: Position,
    ticket: u64,
    hard_state: Option<HardState>,
    unwritten: Blocks,
    /// Blocks being written, each with its ticket.
    in_flight: VecDeque<(u64, Arc<Block>)>,
    committed: Blocks,
}

impl Solo {
    /// This node's number in its own cluster.
    pub const NODE: NodeId = 1;

    /// Starts the next term on top of a recovered log, as after an election: with an empty block of its own.
    #[must_use]
    pub fn new(recovered: HardState, position: Position, tail: &[Arc<Block>]) -> Self {
        let before = tail.last().map_or(position, |block| Position::after(block.header()));
        let term = recovered.term.max(before.term) + 1;
        let first = Arc::new(Block::empty(&before, term));
        Self {
            term,
            last: Position::after(first.header()),
            ticket: 0,
            hard_state: Some(HardState { term, vote: Self::NODE, commit: before.index }),
            unwritten: [first].into(),
            in_flight: VecDeque::new(),
            committed: tail.to_vec().into(),
        }
    }
}

impl Consensus for Solo {
    fn lead(&self) -> Option<(Position, u64)> {
        Some((self.last, self.term))
    }

    fn propose(&mut self, block: Arc<Block>) {
        let header = block.header();
        assert_eq!(header.kind, BlockKind::Entry, "a cluster of one has no members to change");
        assert_eq!(self.last.refuses(header), None, "a block is sealed for its place");
        self.last = block.position();
        self.unwritten.push(block);
    }

    fn persisted(&mut self, ticket: u64) {
        while let Some((_, block)) = self.in_flight.pop_front_if(|(of, _)| *of <= ticket) {
            self.committed.push(block);
        }
    }

    fn tick(&mut self) {}

    fn applied(&mut self, _index: u64) {}

    fn ready(&mut self) -> Option<Ready> {
        if self.hard_state.is_none() && self.unwritten.is_empty() && self.committed.is_empty() {
            return None;
        }
        let committed = std::mem::take(&mut self.committed);
        let blocks = std::mem::take(&mut self.unwritten);
        let hard_state = self.hard_state.take();
        let persist = (hard_state.is_some() || !blocks.is_empty()).then(|| {
            self.ticket += 1;
            self.in_flight.extend(blocks.iter().map(|block| (self.ticket, Arc::clone(block))));
            Persist { ticket: self.ticket, hard_state, blocks }
        });
        Some(Ready { persist, committed })
    }

    fn leadership(&self) -> Leadership {
        Leadership { term: self.term, leader: Some(Self::NODE), leads: true }
    }
}

#[cfg(test)]
mod tests {
    use grid_engine::Nanos;

    use super::*;

    #[test]
    fn solo_commits_what_it_persisted_and_nothing_else() {
        let position = Position { index: 9, term: 4, ..Position::default() };
        let mut solo = Solo::new(HardState { term: 4, vote: 1, commit: 9 }, position, &[]);
        let (before, term) = solo.lead().expect("it leads");
        assert_eq!((before.index, term), (10, 5), "its own empty block is in the log");
        solo.propose(Arc::new(Block::entry(&before, term, Nanos(1), 0, b"")));
        let ready = solo.ready().expect("there is something to write");
        let persist = ready.persist.expect("a hard state and two blocks");
        assert_eq!(persist.hard_state, Some(HardState { term: 5, vote: 1, commit: 9 }));
        assert_eq!(persist.blocks.len(), 2);
        assert!(ready.committed.is_empty() && solo.ready().is_none());
        solo.persisted(persist.ticket);
        let ready = solo.ready().expect("both are committed");
        let indexes: Vec<_> = ready.committed.iter().map(|block| block.header().index).collect();
        assert_eq!(indexes, [10, 11]);
    }

    #[test]
    fn hard_state_bytes_read_back() {
        let state = HardState { term: 3, vote: 1, commit: 7 };
        assert_eq!(HardState::from_bytes(&state.to_bytes()), Some(state));
        assert_eq!(HardState::from_bytes(&[0; 23]), None);
    }
}
