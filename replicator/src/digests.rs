//! Are all copies of the machine the same? Nodes tell each other what they came to, and the one that differs stops.
//!
//! Two things are compared: a hash over the events of each window of blocks, cheap and often; and the hash of the whole state at
//! each place where a snapshot is due, rarely. Both are taken at log indexes that are the same on every node, so that two
//! values for one place are equal or one of the two nodes is wrong. Nothing waits for a comparison: a value that comes late, or
//! never, stops nobody.
//!
//! No I/O here: [`Digests`] is told what this node and the others came to and says whether this node may go on.

use std::collections::BTreeMap;
use std::fmt;

use grid_sequencer::{Machine, NodeId, Output};
use xxhash_rust::xxh3::Xxh3;

/// Values kept per node and kind. Older ones are forgotten, and then not compared any more.
const KEPT: usize = 256;

/// What was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DigestKind {
    /// The events of a window of blocks, of which `index` is the last.
    Events = 1,
    /// The whole state after the block `index`.
    State = 2,
}

/// What a node came to at one place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// What was hashed.
    pub kind: DigestKind,
    /// The log index at which.
    pub index: u64,
    /// The hash.
    pub value: u64,
}

impl Digest {
    /// Bytes of the wire form.
    pub const BYTES: usize = 17;

    /// Kind, index and value, little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[0] = self.kind as u8;
        out[1..9].copy_from_slice(&self.index.to_le_bytes());
        out[9..].copy_from_slice(&self.value.to_le_bytes());
        out
    }

    /// Reads what `encode` wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let kind = match kind {
            1 => DigestKind::Events,
            2 => DigestKind::State,
            _ => return None,
        };
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let (value, rest) = rest.split_first_chunk::<8>()?;
        let digest = Self { kind, index: u64::from_le_bytes(*index), value: u64::from_le_bytes(*value) };
        rest.is_empty().then_some(digest)
    }
}

/// Why this node must stop: its copy of the machine cannot be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// A majority of the voters agrees on something else.
    Outvoted {
        /// What this node came to.
        own: Digest,
        /// What the majority came to.
        agreed: u64,
        /// The voters that agree.
        by: Vec<NodeId>,
    },
    /// The voters differ so that no majority can agree: nobody knows who is right.
    NoMajority {
        /// What was hashed.
        kind: DigestKind,
        /// The log index at which.
        index: u64,
        /// What each voter came to.
        values: Vec<(NodeId, u64)>,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |kind| match kind {
            DigestKind::Events => "the events of the window of blocks that ends with",
            DigestKind::State => "the state after",
        };
        match self {
            Self::Outvoted { own: Digest { kind, index, value }, agreed, by } => write!(
                f,
                "DIVERGED: {} block {index} hash to {value:016x} here, while voters {by:?} agree on {agreed:016x}. \
                 This node's copy of the machine is wrong. Take it out of service, keep its data directory for \
                 examination, and let it join again with an empty one",
                what(*kind)
            ),
            Self::NoMajority { kind, index, values } => {
                write!(f, "DIVERGED: no majority agrees on {} block {index}:", what(*kind))?;
                for (node, value) in values {
                    write!(f, " node {node} has {value:016x};")?;
                }
                write!(
                    f,
                    " all nodes stop. Keep every data directory, and find out with `grid inspect --replay` which node is right"
                )
            }
        }
    }
}

impl std::error::Error for Divergence {}

/// Who votes; `outgoing` is empty unless a change of members is half done, and then both sets must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// The voters, or those that are to be.
    pub incoming: Vec<NodeId>,
    /// Those that were, while the change is under way.
    pub outgoing: Vec<NodeId>,
}

impl Voters {
    fn contains(&self, node: NodeId) -> bool {
        self.incoming.contains(&node) || self.outgoing.contains(&node)
    }

    /// True if the nodes for which `counts` holds are a majority.
    fn majority(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        let of = |set: &[NodeId]| {
            set.is_empty() || set.iter().filter(|node| counts(**node)).count() > set.len() / 2
        };
        !self.incoming.is_empty() && of(&self.incoming) && of(&self.outgoing)
    }
}

type Place = (DigestKind, u64);

/// What this node and the voters came to, and the judgement.
///
/// Invariant: at most [`KEPT`] values per node and kind, of this node and of voters only, so memory is bounded
/// whatever the others send.
#[derive(Debug)]
pub struct Digests {
    node: NodeId,
    voters: Voters,
    seen: BTreeMap<NodeId, BTreeMap<Place, u64>>,
}

impl Digests {
    /// For this node, among these voters.
    #[must_use]
    pub fn new(node: NodeId, voters: Voters) -> Self {
        Self { node, voters, seen: BTreeMap::new() }
    }

    /// The members have changed. What nodes said that no longer vote is forgotten.
    pub fn set_voters(&mut self, voters: Voters) {
        self.voters = voters;
        let Self { node, voters, seen } = self;
        seen.retain(|from, _| from == node || voters.contains(*from));
    }

    /// This node came to `digest`.
    ///
    /// # Errors
    /// [`Divergence`]: this node must stop.
    pub fn own(&mut self, digest: Digest) -> Result<(), Divergence> {
        self.note(self.node, digest);
        self.judge((digest.kind, digest.index))
    }

    /// Another node said that it came to `digest`.
    ///
    /// # Errors
    /// [`Divergence`]: this node must stop.
    pub fn observe(&mut self, from: NodeId, digest: Digest) -> Result<(), Divergence> {
        // Nobody else tells this node what it came to, and who does not vote does not count.
        if from == self.node || !self.voters.contains(from) {
            return Ok(());
        }
        self.note(from, digest);
        self.judge((digest.kind, digest.index))
    }

    fn note(&mut self, from: NodeId, digest: Digest) {
        let values = self.seen.entry(from).or_default();
        values.insert((digest.kind, digest.index), digest.value);
        let mut of_kind = values.range((digest.kind, 0)..=(digest.kind, u64::MAX));
        if let Some((oldest, _)) = of_kind.next()
            && of_kind.count() >= KEPT
        {
            let oldest = *oldest;
            values.remove(&oldest);
        }
    }

    fn value(&self, node: NodeId, place: Place) -> Option<u64> {
        self.seen.get(&node)?.get(&place).copied()
    }

    fn judge(&self, place: Place) -> Result<(), Divergence> {
        let said: Vec<(NodeId, u64)> = self
            .seen
            .keys()
            .filter(|node| self.voters.contains(**node))
            .filter_map(|node| Some((*node, self.value(*node, place)?)))
            .collect();
        let is = |node: NodeId, value: u64| said.contains(&(node, value));
        let silent = |node: NodeId| !said.iter().any(|(of, _)| *of == node);
        let agreed = said.iter().map(|(_, value)| *value).find(|v| self.voters.majority(|node| is(node, *v)));
        if let Some(agreed) = agreed {
            return match self.value(self.node, place) {
                Some(value) if value != agreed => {
                    let own = Digest { kind: place.0, index: place.1, value };
                    let by = said.iter().filter(|(_, v)| *v == agreed).map(|(node, _)| *node).collect();
                    Err(Divergence::Outvoted { own, agreed, by })
                }
                _ => Ok(()),
            };
        }
        // Could a majority still come together, once those have spoken that have not?
        let open = self.voters.majority(silent)
            || said.iter().any(|(_, value)| self.voters.majority(|node| is(node, *value) || silent(node)));
        if open || said.is_empty() {
            return Ok(());
        }
        Err(Divergence::NoMajority { kind: place.0, index: place.1, values: said })
    }
}

/// Hashes the events of window after window of `blocks` blocks. Window k begins with block k × `blocks`; only windows that were
/// seen whole are told, so where a node started makes no difference.
pub(crate) struct Windows {
    blocks: u64,
    hash: Xxh3,
    whole: bool,
    scratch: Vec<u8>,
}

impl Windows {
    pub(crate) fn new(blocks: u64) -> Self {
        Self { blocks: blocks.max(1), hash: Xxh3::new(), whole: false, scratch: Vec::new() }
    }

    /// Takes the next block in; at the end of a whole window, says what it came to.
    pub(crate) fn follow<M: Machine>(&mut self, output: &Output<M>) -> Option<Digest> {
        let index = output.block.index();
        if index.is_multiple_of(self.blocks) || index == 1 {
            self.hash.reset();
            self.whole = true;
        }
        if !self.whole {
            return None;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&output.block.position().chain.to_le_bytes());
        for (seq, event) in output.numbered() {
            self.scratch.extend_from_slice(&seq.0.to_le_bytes());
            M::encode_event(event, &mut self.scratch);
        }
        self.hash.update(&self.scratch);
        let ends = (index + 1).is_multiple_of(self.blocks);
        ends.then(|| Digest { kind: DigestKind::Events, index, value: self.hash.digest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(incoming: &[NodeId]) -> Voters {
        Voters { incoming: incoming.to_vec(), outgoing: Vec::new() }
    }

    fn events(index: u64, value: u64) -> Digest {
        Digest { kind: DigestKind::Events, index, value }
    }

    #[test]
    fn a_digest_reads_back_and_nothing_else_does() {
        let digest = Digest { kind: DigestKind::State, index: 7, value: 0x0102_0304_0506_0708 };
        assert_eq!(Digest::decode(&digest.encode()), Some(digest));
        assert_eq!(Digest::decode(&digest.encode()[..16]), None);
        assert_eq!(Digest::decode(&[9; Digest::BYTES]), None);
        assert_eq!(Digest::decode(&[1; Digest::BYTES + 1]), None);
    }

    #[test]
    fn the_node_that_differs_from_a_majority_stops_and_the_majority_goes_on() {
        let mut wrong = Digests::new(1, voters(&[1, 2, 3]));
        assert_eq!(wrong.own(events(10, 5)), Ok(()));
        assert_eq!(wrong.observe(2, events(10, 6)), Ok(()), "two that differ prove nothing yet");
        let told = wrong.observe(3, events(10, 6));
        assert_eq!(told, Err(Divergence::Outvoted { own: events(10, 5), agreed: 6, by: vec![2, 3] }));

        let mut right = Digests::new(2, voters(&[1, 2, 3]));
        assert_eq!(right.own(events(10, 6)), Ok(()));
        assert_eq!(right.observe(1, events(10, 5)), Ok(()));
        assert_eq!(right.observe(3, events(10, 6)), Ok(()));
    }

    #[test]
    fn the_order_in_which_values_come_makes_no_difference() {
        let mut late = Digests::new(1, voters(&[1, 2, 3]));
        assert_eq!(late.observe(2, events(10, 6)), Ok(()));
        assert_eq!(late.observe(3, events(10, 6)), Ok(()), "this node is not there yet");
        assert!(matches!(late.own(events(10, 5)), Err(Divergence::Outvoted { agreed: 6, .. })));
    }

    #[test]
    fn all_stop_where_no_majority_can_agree() {
        let mut three = Digests::new(1, voters(&[1, 2, 3]));
        assert_eq!(three.own(events(4, 1)), Ok(()));
        assert_eq!(three.observe(2, events(4, 2)), Ok(()));
        let values = vec![(1, 1), (2, 2), (3, 3)];
        let told = three.observe(3, events(4, 3));
        assert_eq!(told, Err(Divergence::NoMajority { kind: DigestKind::Events, index: 4, values }));

        let mut two = Digests::new(1, voters(&[1, 2]));
        assert_eq!(two.own(events(4, 1)), Ok(()));
        assert!(matches!(two.observe(2, events(4, 2)), Err(Divergence::NoMajority { .. })));
    }

    #[test]
    fn silence_stops_nobody() {
        let mut five = Digests::new(1, voters(&[1, 2, 3, 4, 5]));
        assert_eq!(five.own(events(4, 1)), Ok(()));
        assert_eq!(five.observe(2, events(4, 2)), Ok(()));
        assert_eq!(five.observe(3, events(4, 2)), Ok(()), "4 and 5 may still agree with 1");
        assert_eq!(five.observe(4, events(4, 1)), Ok(()));
        assert_eq!(five.observe(5, events(8, 9)), Ok(()), "another place");
    }

    #[test]
    fn kinds_and_places_are_told_apart() {
        let mut node = Digests::new(1, voters(&[1, 2, 3]));
        assert_eq!(node.own(events(10, 5)), Ok(()));
        for from in [2, 3] {
            assert_eq!(node.observe(from, events(11, 6)), Ok(()));
            assert_eq!(node.observe(from, Digest { kind: DigestKind::State, index: 10, value: 6 }), Ok(()));
        }
    }

    #[test]
    fn a_learner_is_judged_and_does_not_judge() {
        let mut learner = Digests::new(9, voters(&[1, 2, 3]));
        assert_eq!(learner.own(events(10, 5)), Ok(()));
        assert_eq!(learner.observe(1, events(10, 6)), Ok(()));
        assert!(matches!(learner.observe(2, events(10, 6)), Err(Divergence::Outvoted { .. })));

        let mut voter = Digests::new(1, voters(&[1]));
        assert_eq!(voter.own(events(10, 6)), Ok(()));
        assert_eq!(voter.observe(9, events(10, 5)), Ok(()));
    }

    #[test]
    fn while_members_change_both_majorities_must_agree() {
        let joint = Voters { incoming: vec![1, 4, 5], outgoing: vec![1, 2, 3] };
        let mut node = Digests::new(1, joint);
        assert_eq!(node.own(events(10, 5)), Ok(()));
        assert_eq!(node.observe(4, events(10, 6)), Ok(()));
        assert_eq!(node.observe(5, events(10, 6)), Ok(()), "the incoming alone decide nothing");
        assert_eq!(node.observe(2, events(10, 6)), Ok(()));
        assert!(matches!(node.observe(3, events(10, 6)), Err(Divergence::Outvoted { agreed: 6, .. })));
    }

    #[test]
    fn memory_is_bounded_whatever_the_others_send() {
        let mut node = Digests::new(1, voters(&[1, 2, 3]));
        for index in 0..10_000 {
            assert_eq!(node.observe(2, events(index, index)), Ok(()));
            assert_eq!(node.observe(77, events(index, index)), Ok(()), "a stranger");
        }
        let kept: usize = node.seen.values().map(BTreeMap::len).sum();
        assert_eq!(kept, KEPT);
        node.set_voters(voters(&[1, 3]));
        assert!(node.seen.is_empty());
    }
}
