//! A block: up to 64 commands that are numbered, stamped, written, replicated and committed together.
//!
//! One block is one raft entry and these are its bytes: the journal writes them and followers will get them unchanged,
//! so each payload byte is laid out once. Byte table: `JOURNAL.md` beside this crate's manifest.
//!
//! A block has one stamp, not one per command: it stays open for at most 20 µs, order within it is told by the sequence
//! number, and a stamp per command would cost 8 bytes and a clock read each to tell nothing that a rule of the venue asks.

use std::sync::Arc;

use grid_engine::{Nanos, Seq};

/// Bytes of a block header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Blocks start and end on multiples of this.
pub(crate) const BLOCK_ALIGN: usize = 64;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BlockKind {
    /// Commands; the only kind that moves the log's index.
    Entry = 1,
    /// Term and vote of this node, written before it acts on them.
    HardState = 2,
    /// A change of the cluster's members; reserved for the raft core.
    ConfChange = 3,
    /// A note that a snapshot exists; reserved.
    SnapshotMark = 4,
}

impl BlockKind {
    fn from_code(code: u16) -> Option<Self> {
        [Self::Entry, Self::HardState, Self::ConfChange, Self::SnapshotMark]
            .into_iter()
            .find(|k| *k as u16 == code)
    }
}

/// Where the log stands after some block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last entry block; the first has 1.
    pub index: u64,
    /// Term of the last block.
    pub term: u64,
    /// Number of the last command; the first has 1.
    pub seq: Seq,
    /// The chain value that the next block must carry.
    pub chain: u64,
    /// Stamp of the last block; the next is not before it.
    pub at: Nanos,
}

impl Position {
    /// The position after a block with this header.
    #[must_use]
    pub fn after(header: &BlockHeader) -> Self {
        Self {
            index: header.index,
            term: header.term,
            seq: Seq(header.first_seq.0 + u64::from(header.commands) - 1),
            chain: if header.kind == BlockKind::HardState { header.chain } else { header.next_chain() },
            at: header.at,
        }
    }

    /// Why a block with this header cannot come next, or `None` if it can.
    pub(crate) fn refuses(&self, header: &BlockHeader) -> Option<String> {
        let index = self.index + u64::from(header.kind == BlockKind::Entry);
        let found = [
            ("index", header.index, index),
            ("first sequence number", header.first_seq.0, self.seq.0 + 1),
            ("chain value", header.chain, self.chain),
        ];
        if let Some((what, found, expected)) =
            found.into_iter().find(|(_, found, expected)| found != expected)
        {
            return Some(format!("its {what} is {found}, where {expected} must follow"));
        }
        if header.term < self.term || header.at < self.at {
            return Some("its term or stamp is before that of the block ahead of it".to_owned());
        }
        None
    }
}

/// The 64 bytes in front of a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Bytes of payload that follow, without padding.
    pub payload_len: u32,
    /// CRC32C over the rest of the header and the payload.
    pub crc: u32,
    /// Raft index; kinds other than entry repeat that of the entry before them.
    pub index: u64,
    /// Raft term in which the block was proposed.
    pub term: u64,
    /// Number of the first command; for a block without commands, of the next one to come.
    pub first_seq: Seq,
    /// How many commands the payload holds.
    pub commands: u32,
    /// What the payload is.
    pub kind: BlockKind,
    /// Reserved, zero.
    pub flags: u16,
    /// Ties the block to all blocks before it; see [`BlockHeader::next_chain`].
    pub chain: u64,
    /// The stamp of every command in the block.
    pub at: Nanos,
    /// How many blocks before this one were not known to be committed when it was sealed.
    ///
    /// `index - 1 - lag` was committed, so a damaged block at or below that is not a torn tail.
    pub lag: u32,
}

/// Why 64 bytes are no block header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Empty,
    Damaged,
}

impl BlockHeader {
    /// The chain value of the block after this one: in the upper half this block's CRC, in the lower half a CRC32C
    /// over the CRCs of all blocks so far. A block that was moved, repeated, or left out breaks it.
    #[must_use]
    pub fn next_chain(&self) -> u64 {
        let rolling = crc32c::crc32c_append(self.chain as u32, &self.crc.to_le_bytes());
        u64::from(self.crc) << 32 | u64::from(rolling)
    }

    /// Bytes of the whole block: header, payload and padding.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        (HEADER_BYTES + self.payload_len as usize).next_multiple_of(BLOCK_ALIGN)
    }

    /// The highest index that was known to be committed when this block was sealed.
    #[must_use]
    pub fn committed_before(&self) -> u64 {
        let before = match self.kind {
            BlockKind::Entry => self.index.saturating_sub(1),
            _ => self.index,
        };
        before.saturating_sub(u64::from(self.lag))
    }

    fn layout(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&self.payload_len.to_le_bytes());
        out[4..8].copy_from_slice(&self.crc.to_le_bytes());
        out[8..16].copy_from_slice(&self.index.to_le_bytes());
        out[16..24].copy_from_slice(&self.term.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_seq.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.commands.to_le_bytes());
        out[36..38].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[38..40].copy_from_slice(&self.flags.to_le_bytes());
        out[40..48].copy_from_slice(&self.chain.to_le_bytes());
        out[48..56].copy_from_slice(&self.at.0.to_le_bytes());
        out[56..60].copy_from_slice(&self.lag.to_le_bytes());
        let own = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&own.to_le_bytes());
        out
    }

    fn body_crc(&self, payload: &[u8]) -> u32 {
        let head = self.layout();
        let crc = crc32c::crc32c(&head[0..4]);
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &head[8..60]), payload)
    }

    /// Reads a header and checks its own CRC; the payload's is [`BlockHeader::matches`]'s business.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, NoHeader> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(NoHeader::Damaged)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(NoHeader::Empty);
        }
        let (u16_at, u32_at, u64_at) = (
            |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]),
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")),
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")),
        );
        if crc32c::crc32c(&bytes[..60]) != u32_at(60) {
            return Err(NoHeader::Damaged);
        }
        Ok(Self {
            payload_len: u32_at(0),
            crc: u32_at(4),
            index: u64_at(8),
            term: u64_at(16),
            first_seq: Seq(u64_at(24)),
            commands: u32_at(32),
            kind: BlockKind::from_code(u16_at(36)).ok_or(NoHeader::Damaged)?,
            flags: u16_at(38),
            chain: u64_at(40),
            at: Nanos(u64_at(48)),
            lag: u32_at(56),
        })
    }

    /// True when the payload is the one that was sealed under this header.
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len as usize && self.body_crc(payload) == self.crc
    }
}

/// A sealed block: header, payload and padding, exactly as on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    header: BlockHeader,
    bytes: Box<[u8]>,
}

impl Block {
    /// Seals a payload; `payload_len` and `crc` of `header` are filled in here.
    pub(crate) fn seal(mut header: BlockHeader, payload: &[u8]) -> Self {
        header.payload_len = u32::try_from(payload.len()).expect("a block is far below 4 GiB");
        header.crc = header.body_crc(payload);
        let mut bytes = Vec::with_capacity(header.block_bytes());
        bytes.extend_from_slice(&header.layout());
        bytes.extend_from_slice(payload);
        bytes.resize(header.block_bytes(), 0);
        Self { header, bytes: bytes.into_boxed_slice() }
    }

    /// Seals the entry that follows on `before`: so many commands, stamped and laid out.
    #[must_use]
    pub fn entry(before: &Position, term: u64, at: Nanos, commands: u32, payload: &[u8]) -> Self {
        let header = BlockHeader {
            payload_len: 0,
            crc: 0,
            index: before.index + 1,
            term,
            first_seq: before.seq.next(),
            commands,
            kind: BlockKind::Entry,
            flags: 0,
            chain: before.chain,
            at,
            lag: 0,
        };
        Self::seal(header, payload)
    }
    /// The entry without commands with which a leader begins its term.
    #[must_use]
    pub fn empty(before: &Position, term: u64) -> Self {
        Self::entry(before, term, before.at, 0, &[])
    }
    /// The header.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// The whole block as on disk.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload without padding.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.payload_len as usize]
    }
}

/// Appends one command to a payload: length, then what `write` appends. Returns the bytes added.
pub(crate) fn push_command(payload: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = payload.len();
    payload.extend_from_slice(&[0; 4]);
    write(payload);
    let len = u32::try_from(payload.len() - start - 4).expect("a command is far below 4 GiB");
    payload[start..start + 4].copy_from_slice(&len.to_le_bytes());
    payload.len() - start
}

/// The commands of an entry block's payload, in order.
#[derive(Clone, Debug)]
pub struct CommandBytes<'a>(&'a [u8]);

impl<'a> CommandBytes<'a> {
    /// Over a payload whose CRC was checked.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for CommandBytes<'a> {
    type Item = &'a [u8];

    /// The next command's bytes. A payload that does not add up ends early; callers compare the count with the header's.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let (command, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(command)
    }
}

/// A block together with its commands as the producers handed them in, so nobody decodes what this process encoded.
#[derive(Debug)]
pub struct CommittedBlock<C> {
    block: Arc<Block>,
    commands: Vec<C>,
}

impl<C> CommittedBlock<C> {
    pub(crate) fn new(block: Arc<Block>, commands: Vec<C>) -> Self {
        debug_assert_eq!(block.header.commands as usize, commands.len());
        Self { block, commands }
    }

    /// The bytes and the header.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Raft index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.block.header.index
    }

    /// The stamp of all its commands.
    #[must_use]
    pub fn at(&self) -> Nanos {
        self.block.header.at
    }

    /// Number of its first command.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.block.header.first_seq
    }

    /// Number of its last command.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        self.position().seq
    }

    /// Where the log stands after it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::after(&self.block.header)
    }

    /// Its commands with their numbers, in order.
    pub fn commands(&self) -> impl ExactSizeIterator<Item = (Seq, &C)> {
        let first = self.first_seq().0;
        self.commands.iter().enumerate().map(move |(offset, command)| (Seq(first + offset as u64), command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlockHeader {
        BlockHeader {
            payload_len: 0,
            crc: 0,
            index: 7,
            term: 2,
            first_seq: Seq(41),
            commands: 2,
            kind: BlockKind::Entry,
            flags: 0,
            chain: 0x0102_0304_0506_0708,
            at: Nanos(1_234),
            lag: 3,
        }
    }

    fn sealed() -> Block {
        let mut payload = Vec::new();
        for command in [&b"buy"[..], b"sell two"] {
            push_command(&mut payload, |out| out.extend_from_slice(command));
        }
        Block::seal(header(), &payload)
    }

    #[test]
    fn a_sealed_block_reads_back() {
        let block = sealed();
        assert_eq!(block.bytes().len(), 128);
        let read = BlockHeader::read(block.bytes()).expect("own header reads back");
        assert_eq!(&read, block.header());
        assert!(read.matches(block.payload()));
        let commands: Vec<_> = CommandBytes::new(block.payload()).collect();
        assert_eq!(commands, [&b"buy"[..], b"sell two"]);
        assert_eq!(Position::after(&read).seq, Seq(42));
        assert_eq!(read.committed_before(), 3);
    }

    /// A journal of today must open tomorrow: if this fails, the format changed, and needs a new number and a reader of the old.
    #[test]
    fn the_bytes_of_a_block_are_those_of_format_1() {
        let hex: String = sealed().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "130000002aa3703c07000000000000000200000000000000290000000000000002000000010000000807060504030201",
            "d204000000000000030000002d44eec3030000006275790800000073656c6c2074776f00000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = sealed();
        let used = HEADER_BYTES + block.header().payload_len as usize;
        for bit in 0..used * 8 {
            let mut bytes = block.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = match BlockHeader::read(&bytes) {
                Err(_) => true,
                Ok(header) => {
                    let end = (HEADER_BYTES + header.payload_len as usize).min(bytes.len());
                    !header.matches(&bytes[HEADER_BYTES..end])
                }
            };
            assert!(noticed, "bit {bit} was flipped and nobody noticed");
        }
    }

    #[test]
    fn the_chain_tells_equal_blocks_apart_by_their_past() {
        let one = header();
        let other = BlockHeader { chain: one.chain + 1, ..one };
        assert_ne!(one.next_chain(), other.next_chain());
    }
}
