//! Blocks that have grown since their first version, so that an older sender's shorter ones are still read.

/// Blocks that have grown: the message, the version that made it longer, and its length before. A shorter block of an
/// older sender is read with zeros for what it does not have, so zero must mean "not said" in every field that is
/// added.
const GROWN: &[(&str, u16, usize)] = &[
    ("NegotiationReject", 2, 19),
    ("EstablishmentReject", 2, 19),
    ("Terminate", 2, 1),
    ("Reserve", 3, 50),
    ("Settle", 3, 57),
    ("ExecutionReport", 4, 115),
];

/// The version that brought the field at this offset.
pub(super) const fn since(block: &str, offset: usize) -> u16 {
    let (mut index, mut version) = (0, 1);
    while index < GROWN.len() {
        let (name, grown_in, before) = GROWN[index];
        if same(name, block) && offset >= before && grown_in > version {
            version = grown_in;
        }
        index += 1;
    }
    version
}

/// The length of a block in the version that brought it.
pub(super) const fn first_size(block: &str, size: usize) -> usize {
    let (mut index, mut first) = (0, size);
    while index < GROWN.len() {
        let (name, _, before) = GROWN[index];
        if same(name, block) && before < first {
            first = before;
        }
        index += 1;
    }
    first
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}
