//! The bytes on the wire and in the log: fixed, complete, and harmless whatever they are.

use bytes::Bytes;
use grid_engine::Nanos;
use grid_replicator::core::{Members, MembersError, MessageKind, PeerMessage, WireError};
use grid_sequencer::{Block, Position};

use super::cluster::{Chance, addresses};

/// A message's fixed fields as they are documented, and blocks behind them.
pub(crate) fn bytes(kind: u8, flags: u8, words: [u64; 6], blocks: &[Block]) -> Bytes {
    let mut out = vec![1, kind, flags, 0];
    out.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&[0; 8]);
    blocks.iter().for_each(|block| out.extend_from_slice(block.bytes()));
    out.into()
}

/// So many blocks of one term behind a position.
pub(crate) fn blocks(mut before: Position, term: u64, count: usize) -> Vec<Block> {
    let mut made = Vec::new();
    for nth in 0..count {
        let mut payload = 3_u32.to_le_bytes().to_vec();
        payload.extend_from_slice(&[b'a' + nth as u8; 3]);
        made.push(Block::entry(&before, term, Nanos(before.at.0 + 10), 1, &payload));
        before = Position::after(made[nth].header());
    }
    made
}

/// One of every kind, with every field that it uses: kind, flags, then term, index, term there, commit, term there, hint.
fn every_kind() -> Vec<(MessageKind, Bytes)> {
    let some = blocks(Position::default(), 3, 2);
    vec![
        (MessageKind::Append, bytes(1, 0, [3, 0, 0, 7, 0, 0], &some)),
        (MessageKind::AppendReply, bytes(2, 1, [3, 9, 2, 4, 0, 8], &[])),
        (MessageKind::Heartbeat, bytes(3, 0, [3, 0, 0, 7, 0, 0], &[])),
        (MessageKind::HeartbeatReply, bytes(4, 0, [3, 0, 0, 7, 0, 0], &[])),
        (MessageKind::PreVote, bytes(5, 0, [4, 9, 3, 7, 3, 0], &[])),
        (MessageKind::PreVoteReply, bytes(6, 1, [4, 0, 0, 7, 3, 0], &[])),
        (MessageKind::Vote, bytes(7, 2, [4, 9, 3, 7, 3, 0], &[])),
        (MessageKind::VoteReply, bytes(8, 1, [4, 0, 0, 7, 3, 0], &[])),
        (MessageKind::Snapshot, bytes(9, 0, [4, 100, 3, 0, 0, 0], &[])),
        (MessageKind::TimeoutNow, bytes(10, 0, [4, 0, 0, 0, 0, 0], &[])),
    ]
}

fn encoded(message: &PeerMessage) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    out.into()
}

#[test]
fn every_kind_of_message_has_the_bytes_that_are_documented() {
    for (kind, bytes) in every_kind() {
        let message = PeerMessage::decode(&bytes).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(message.kind(), kind);
        assert_eq!(encoded(&message), bytes, "{kind:?}");
        assert_eq!(message.encoded_len(), bytes.len());
        assert_eq!(message.snapshot(), (kind == MessageKind::Snapshot).then_some(100));
    }
}

#[test]
fn a_message_cut_anywhere_or_with_bytes_behind_it_is_refused() {
    for (kind, bytes) in every_kind() {
        for len in 0..bytes.len() {
            assert!(PeerMessage::decode(&bytes.slice(..len)).is_err(), "{kind:?} cut at {len}");
        }
        for more in [1, 64, 4096] {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert!(PeerMessage::decode(&longer.into()).is_err(), "{kind:?} and {more} bytes");
        }
    }
}

#[test]
fn what_no_peer_may_say_is_refused_for_its_reason() {
    let some = blocks(Position::default(), 3, 2);
    let swapped = [some[1].clone(), some[0].clone()];
    let invalid = |what| Err(WireError::Invalid(what));
    let table = [
        (bytes(1, 0, [0, 0, 0, 0, 0, 0], &[]), invalid("term 0")),
        (bytes(1, 0, [3, 5, 0, 0, 0, 0], &[]), invalid("the place of its blocks")),
        (bytes(1, 0, [3, 0, 2, 0, 0, 0], &[]), invalid("the place of its blocks")),
        (bytes(1, 0, [3, 5, 4, 0, 0, 0], &[]), invalid("the place of its blocks")),
        (bytes(1, 0, [3, 1, 1, 0, 0, 0], &some), invalid("the order of its blocks")),
        (bytes(1, 0, [3, 0, 0, 0, 0, 0], &swapped), invalid("the order of its blocks")),
        (bytes(1, 0, [2, 0, 0, 0, 0, 0], &some), invalid("the order of its blocks")),
        (bytes(1, 0, [3, 0, 0, 0, 0, 1], &[]), invalid("a number out of range")),
        (bytes(3, 0, [3, 0, 0, 1 << 62, 0, 0], &[]), invalid("a number out of range")),
        (bytes(3, 0, [3, 1, 0, 0, 0, 0], &[]), invalid("a number out of range")),
        (bytes(3, 1, [3, 0, 0, 0, 0, 0], &[]), invalid("a flag or reserved byte")),
        (bytes(2, 2, [3, 0, 0, 0, 0, 0], &[]), invalid("a flag or reserved byte")),
        (bytes(3, 0, [3, 0, 0, 0, 0, 0], &some), invalid("blocks outside of an append")),
        (bytes(9, 0, [3, 0, 0, 0, 0, 0], &[]), invalid("the place of its snapshot")),
        (bytes(0, 0, [3, 0, 0, 0, 0, 0], &[]), Err(WireError::Kind(0))),
        (bytes(11, 0, [3, 0, 0, 0, 0, 0], &[]), Err(WireError::Kind(11))),
        (Bytes::from_static(&[2; 64]), Err(WireError::Format(2))),
    ];
    for (bytes, expected) in table {
        assert_eq!(PeerMessage::decode(&bytes).map(|message| message.kind()), expected, "{bytes:?}");
    }
}

#[test]
fn a_flipped_bit_in_a_block_is_noticed() {
    let (_, message) = &every_kind()[0];
    for bit in 64 * 8..message.len() * 8 {
        let mut flipped = message.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(PeerMessage::decode(&flipped.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn mutated_bytes_decode_to_a_sound_message_or_to_none() {
    let mut chance = Chance::new(7);
    let kinds = every_kind();
    for round in 0..200_000 {
        let (_, bytes) = chance.pick(&kinds).expect("there are kinds").clone();
        let mut bytes = bytes.to_vec();
        for _ in 0..=chance.below(4) {
            let at = chance.below(bytes.len() as u64) as usize;
            match chance.below(4) {
                0 => bytes[at] = chance.next() as u8,
                1 => bytes[at] ^= 1 << chance.below(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_slice(&chance.next().to_le_bytes()),
            }
        }
        let bytes = Bytes::from(bytes);
        if let Ok(message) = PeerMessage::decode(&bytes) {
            assert_eq!(encoded(&message), bytes, "round {round}");
        }
    }
}

fn some_members() -> Members {
    Members::founding([1, 2, 3].map(|node| (node, addresses(node)))).expect("three voters")
}

#[test]
fn members_read_back_and_keep_their_bytes() {
    let members = some_members();
    let bytes = members.encode();
    assert_eq!(Members::decode(&bytes), Ok(members));
    assert_eq!(Members::decode(&[]), Ok(Members::default()));
    let one = Members::founding([(7, addresses(7))]).expect("one voter");
    let mut golden = vec![1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11, 0, 11, 0];
    golden.extend_from_slice(b"node-7:7000node-7:7001");
    assert_eq!(one.encode(), golden);
}

#[test]
fn members_that_cannot_be_are_refused() {
    assert!(Members::founding([]).is_err());
    assert!(Members::founding([(0, addresses(0))]).is_err());
    let good = some_members().encode();
    assert_eq!(Members::decode(&good[..good.len() - 1]), Err(MembersError::Length));
    assert_eq!(Members::decode(&[&good[..], &[0]].concat()), Err(MembersError::Length));
    let mut newer = good.clone();
    newer[0] = 9;
    assert_eq!(Members::decode(&newer), Err(MembersError::Format(9)));
    // Auto-leave outside of a joint configuration, a learner that votes, no role, a role that does not exist.
    for (at, value) in [(2, 1), (16, 0b101), (16, 0), (16, 0b1_0001)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(matches!(Members::decode(&bytes), Err(MembersError::Invalid(_))), "byte {at} as {value}");
    }
}

#[test]
fn mutated_members_and_changes_never_panic() {
    let mut chance = Chance::new(11);
    let good = some_members().encode();
    for _ in 0..200_000 {
        let mut bytes = good.clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len() as u64) as usize;
            if chance.hits(200) { bytes.truncate(at.max(1)) } else { bytes[at] = chance.next() as u8 }
        }
        if let Ok(members) = Members::decode(&bytes) {
            assert_eq!(members.encode(), bytes);
        }
        // The same bytes as those of a change: it has the members behind its steps.
        let mut change = vec![1, 0, chance.below(4) as u8, 0, chance.below(3) as u8, 0, 0, 0];
        change.extend_from_slice(&chance.below(5).to_le_bytes());
        change.extend_from_slice(&[chance.below(4) as u8, 0, 0, 0, 0, 0, 0, 0]);
        change.extend_from_slice(&bytes);
        let before = some_members();
        let mut members = before.clone();
        if members.apply(&change).is_err() {
            assert_eq!(members, before, "what does not apply changes nothing");
        }
    }
}
