//! The seat of consensus: who says which place in the log a block has, and when it counts as committed.
//!
//! A venue of one node takes exactly the path of a cluster: propose, write, report the write, read the commit index, match.
//! The raft core arrives behind this trait without a change to the stages. It is shared by the sequencer (propose) and the
//! journal (persisted) behind a lock that both hold for microseconds; the matcher only reads the published commit index.

use crate::block::Position;

/// What a node must remember across restarts besides the log: it is journalled before anything is done under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term this node has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
}

impl HardState {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.term.to_le_bytes());
        out[8..].copy_from_slice(&self.vote.to_le_bytes());
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (term, rest) = bytes.split_first_chunk::<8>()?;
        let (vote, rest) = rest.split_first_chunk::<8>()?;
        rest.is_empty().then(|| Self { term: u64::from_le_bytes(*term), vote: u64::from_le_bytes(*vote) })
    }
}

/// The place that consensus gives a proposed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its index: one above the last.
    pub index: u64,
    /// The term it is proposed in.
    pub term: u64,
}

/// A consensus core, seen from the stages of one node.
///
/// Invariants: indexes are handed out one by one without a gap; `committed` never falls, and never passes an index that
/// this node has not persisted itself.
pub trait Consensus: Send {
    /// Term and vote to journal before the first block is proposed.
    fn hard_state(&self) -> HardState;

    /// Takes a block's payload into the log and says where.
    fn propose(&mut self, payload: &[u8]) -> Placement;

    /// This node has written and synced every block up to `index`.
    fn persisted(&mut self, index: u64);

    /// The highest index that is committed: durable here and on a quorum.
    fn committed(&self) -> u64;
}

/// A cluster of one voter: what it has persisted is committed. Each start is a new term, as after an election.
#[derive(Debug)]
pub struct Solo {
    hard_state: HardState,
    last: u64,
    committed: u64,
}

impl Solo {
    /// This node's number in its own cluster.
    pub const NODE: u64 = 1;

    /// Starts the next term on top of a recovered log.
    #[must_use]
    pub fn new(recovered: HardState, position: Position) -> Self {
        let term = recovered.term.max(position.term) + 1;
        Self {
            hard_state: HardState { term, vote: Self::NODE },
            last: position.index,
            committed: position.index,
        }
    }
}

impl Consensus for Solo {
    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn propose(&mut self, _payload: &[u8]) -> Placement {
        self.last += 1;
        Placement { index: self.last, term: self.hard_state.term }
    }

    fn persisted(&mut self, index: u64) {
        assert!(
            self.committed <= index && index <= self.last,
            "only proposed blocks are persisted, in order"
        );
        self.committed = index;
    }

    fn committed(&self) -> u64 {
        self.committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solo_commits_what_it_persisted_and_nothing_else() {
        let position = Position { index: 9, term: 4, ..Position::default() };
        let mut solo = Solo::new(HardState { term: 4, vote: 1 }, position);
        assert_eq!(solo.hard_state(), HardState { term: 5, vote: 1 });
        assert_eq!(solo.propose(b"a"), Placement { index: 10, term: 5 });
        assert_eq!(solo.propose(b"b"), Placement { index: 11, term: 5 });
        assert_eq!(solo.committed(), 9);
        solo.persisted(10);
        assert_eq!(solo.committed(), 10);
    }

    #[test]
    fn hard_state_bytes_read_back() {
        let state = HardState { term: 3, vote: 1 };
        assert_eq!(HardState::from_bytes(&state.to_bytes()), Some(state));
        assert_eq!(HardState::from_bytes(&[0; 15]), None);
    }
}
