//! When a node may stand for election.

use grid_sequencer::NodeId;
use raft::StateRole;

/// Election timeouts from an own seed: raft draws from the thread's randomness, and what it drew is replaced before it matters.
pub(super) struct Timing {
    pub(super) state: u64,
    pub(super) seen: (StateRole, u64, NodeId),
    pub(super) timeout: usize,
    pub(super) range: (usize, usize),
}

impl Timing {
    pub(super) fn draw(&mut self) {
        // splitmix64: every state gives another number, so a run of equal timeouts is as short as chance makes it.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let (from, to) = self.range;
        self.timeout = from + (mixed % (to - from) as u64) as usize;
    }
}
