//! A block: up to 64 commands that are numbered, stamped, written, replicated and committed together.
//!
//! One block is one raft entry and these are its bytes: the leader seals it for one place in the log, its journal writes it and
//! followers get it unchanged, so each payload byte is laid out once. Byte table: `JOURNAL.md` beside this crate's manifest.
//!
//! A block has one stamp, not one per command: it stays open for at most 20 µs, order within it is told by the sequence
//! number, and a stamp per command would cost 8 bytes and a clock read each to tell nothing that a rule of the venue asks.

use std::sync::Arc;

use bytes::Bytes;
use grid_engine::{Nanos, Seq};

/// Bytes of a block header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of a header that the block's CRC covers.
const COVERED_BYTES: usize = 52;
/// Blocks start and end on multiples of this.
pub(crate) const BLOCK_ALIGN: usize = 64;
/// Most bytes of a payload, far above what any caller allows: a length read from elsewhere is compared with it first.
const PAYLOAD_MAX: usize = 1 << 30;
/// Bytes of a snapshot note's payload.
const POSITION_BYTES: usize = 40;

/// What a block holds.
///
/// Entries and changes of members are *log blocks*: they have an index of their own and move the log on. The other kinds are
/// *notes* of one node's journal: they tell where the log stands, and move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BlockKind {
    /// Commands; none in the block that a new leader begins with.
    Entry = 1,
    /// Term, vote and a committed index of this node: a note.
    HardState = 2,
    /// A change of the cluster's members, in the replicator's coding.
    ConfChange = 3,
    /// The log goes on behind a snapshot that another node sent: a note.
    Snapshot = 4,
}

impl BlockKind {
    fn from_code(code: u16) -> Option<Self> {
        [Self::Entry, Self::HardState, Self::ConfChange, Self::Snapshot]
            .into_iter()
            .find(|k| *k as u16 == code)
    }

    /// True for a kind that moves the log on, false for a note.
    #[must_use]
    pub fn is_log(self) -> bool {
        matches!(self, Self::Entry | Self::ConfChange)
    }
}

/// Where the log stands after some block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last log block; the first has 1.
    pub index: u64,
    /// Term of the last log block.
    pub term: u64,
    /// Number of the last command; the first has 1.
    pub seq: Seq,
    /// The chain value that the next block must carry. Equal index and chain mean an equal history, on every node.
    pub chain: u64,
    /// Stamp of the last log block; the next is not before it.
    pub at: Nanos,
}

impl Position {
    /// The position after a block with this header. Behind a note the log stands where it stood.
    #[must_use]
    pub fn after(header: &BlockHeader) -> Self {
        let chain = if header.kind.is_log() { header.next_chain() } else { header.chain };
        Self::with_chain(header, chain)
    }

    fn with_chain(header: &BlockHeader, chain: u64) -> Self {
        let seq = Seq(header.first_seq.0 + u64::from(header.commands) - 1);
        Self { index: header.index, term: header.term, seq, chain, at: header.at }
    }

    /// Why a block with this header cannot come next, or `None` if it can.
    #[must_use]
    pub fn refuses(&self, header: &BlockHeader) -> Option<String> {
        let log = header.kind.is_log();
        let place = (header.index, header.first_seq.0, header.chain);
        let fits = place == (self.index + u64::from(log), self.seq.0 + 1, self.chain);
        let (term, at) = (header.term, header.at);
        let follows =
            if log { term >= self.term && at >= self.at } else { (term, at) == (self.term, self.at) };
        (!(fits && follows)).then(|| self.objection(header))
    }

    /// What is wrong with a header that cannot come next.
    #[cold]
    fn objection(&self, header: &BlockHeader) -> String {
        let found = [
            ("index", header.index, self.index + u64::from(header.kind.is_log())),
            ("first sequence number", header.first_seq.0, self.seq.0 + 1),
            ("chain value", header.chain, self.chain),
        ];
        match found.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => format!("its {what} is {found}, where {expected} must follow"),
            None => "its term or stamp is not one that can follow on the block ahead of it".to_owned(),
        }
    }

    /// As the payload of a snapshot note.
    pub(crate) fn to_bytes(self) -> [u8; POSITION_BYTES] {
        let mut out = [0; POSITION_BYTES];
        let words = [self.index, self.term, self.seq.0, self.chain, self.at.0];
        for (place, word) in out.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; POSITION_BYTES] = bytes.try_into().ok()?;
        let word =
            |nth: usize| u64::from_le_bytes(bytes[nth * 8..nth * 8 + 8].try_into().expect("eight bytes"));
        Some(Self { index: word(0), term: word(1), seq: Seq(word(2)), chain: word(3), at: Nanos(word(4)) })
    }
}

/// The 64 bytes in front of a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Bytes of payload that follow, without padding.
    pub payload_len: u32,
    /// CRC32C over the header without `nth`, and the payload: equal on every node.
    pub crc: u32,
    /// Raft index; a note repeats that of the log block before it.
    pub index: u64,
    /// Raft term in which the block was proposed; a note repeats that of the log block before it.
    pub term: u64,
    /// Number of the first command; for a block without commands, of the next one to come.
    pub first_seq: Seq,
    /// How many commands the payload holds.
    pub commands: u32,
    /// What the payload is.
    pub kind: BlockKind,
    /// Reserved, zero.
    pub flags: u16,
    /// Ties the block to all log blocks before it; see [`BlockHeader::next_chain`].
    pub chain: u64,
    /// The stamp of every command in the block; a note repeats that of the log block before it.
    pub at: Nanos,
    /// This node's own: how many blocks of the same write stand ahead of this one in its journal's file.
    ///
    /// Everything ahead of those was synced before, so damage there is no torn tail. 0 wherever a block is not in a file.
    pub nth: u32,
}

/// Bytes that begin where a word does: a checksum over them goes by words from the first one on.
#[repr(C, align(8))]
struct Words<const BYTES: usize>([u8; BYTES]);

/// Why 64 bytes are no block header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Empty,
    Damaged,
}

/// Bytes that are no block of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a block: {0}")]
pub struct NotABlock(&'static str);

impl BlockHeader {
    /// The chain value of the log block after this one: in the upper half this block's CRC, in the lower half a CRC32C
    /// over the CRCs of all log blocks so far. A block that was moved, repeated, or left out breaks it.
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

    /// The header as it stands in a file, `nth` blocks behind the beginning of its write.
    pub(crate) fn stamped(mut self, nth: u32) -> [u8; HEADER_BYTES] {
        self.nth = nth;
        self.layout()
    }

    fn layout(&self) -> [u8; HEADER_BYTES] {
        let mut out = Words([0; HEADER_BYTES]);
        self.fields(&mut out.0);
        let own = crc32c::crc32c(&out.0[..60]);
        out.0[60..64].copy_from_slice(&own.to_le_bytes());
        out.0
    }

    /// All but the header's own checksum.
    fn fields(&self, out: &mut [u8; HEADER_BYTES]) {
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
        out[56..60].copy_from_slice(&self.nth.to_le_bytes());
    }

    fn body_crc(&self, payload: &[u8]) -> u32 {
        let mut covered = Words([0; COVERED_BYTES]);
        self.covered(&mut covered.0);
        crc32c::crc32c_append(crc32c::crc32c(&covered.0), payload)
    }

    /// What a block's CRC covers of its header, in one run: all but the two checksums and `nth`.
    fn covered(&self, out: &mut [u8; COVERED_BYTES]) {
        let mut head = [0; HEADER_BYTES];
        self.fields(&mut head);
        out[..4].copy_from_slice(&head[..4]);
        out[4..].copy_from_slice(&head[8..56]);
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
        let header = Self {
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
            nth: u32_at(56),
        };
        // What no block that was ever sealed has; checked here, so that sums of these fields hold everywhere else.
        let sane = header.first_seq.0 > 0
            && header.first_seq.0 < u64::MAX >> 1
            && header.index < u64::MAX >> 1
            && header.flags == 0
            && header.payload_len as usize <= PAYLOAD_MAX
            && (header.kind == BlockKind::Entry || header.commands == 0);
        if sane { Ok(header) } else { Err(NoHeader::Damaged) }
    }

    /// True when the payload is the one that was sealed under this header.
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len as usize && self.body_crc(payload) == self.crc
    }

    /// True when the payload holds as many commands as the header says; of no meaning for other kinds.
    pub(crate) fn counts(&self, payload: &[u8]) -> bool {
        self.kind != BlockKind::Entry || CommandBytes::new(payload).count() == self.commands as usize
    }
}

/// A sealed block: header, payload and padding, the same bytes on every node (`nth` is 0 in them). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    header: BlockHeader,
    /// Of the header, which whoever goes on behind it asks for.
    next_chain: u64,
    bytes: Bytes,
}

impl Block {
    /// Seals commands for the place after `before`, under `term` and with one stamp, which must not be before that of `before`.
    /// The payload is `commands` of them, each as its length in 4 bytes and its log form.
    #[must_use]
    pub fn entry(before: &Position, term: u64, at: Nanos, commands: u32, payload: &[u8]) -> Self {
        Self::seal(Self::header_at(before, BlockKind::Entry, term, at, commands), payload)
    }

    /// The block without commands that a new leader begins its term with; the same for everyone who knows `before` and `term`.
    #[must_use]
    pub fn empty(before: &Position, term: u64) -> Self {
        Self::entry(before, term, before.at, 0, &[])
    }

    /// Seals a change of members for the place after `before`. The stamp is that of the block before.
    #[must_use]
    pub fn conf_change(before: &Position, term: u64, payload: &[u8]) -> Self {
        Self::seal(Self::header_at(before, BlockKind::ConfChange, term, before.at, 0), payload)
    }

    /// A note for the place behind `position`.
    pub(crate) fn note(position: &Position, kind: BlockKind, payload: &[u8]) -> Self {
        debug_assert!(!kind.is_log());
        Self::seal(Self::header_at(position, kind, position.term, position.at, 0), payload)
    }

    /// A block of the log as another node sent it: checked in itself, not for its place.
    ///
    /// # Errors
    /// [`NotABlock`] unless these are exactly the bytes that a leader sealed.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, NotABlock> {
        let no = |why| Err(NotABlock(why));
        let Ok(header) = BlockHeader::read(&bytes) else {
            return no("its header does not match its checksum");
        };
        if !header.kind.is_log() {
            return no("it is a note of one node");
        }
        if header.nth != 0 || header.index == 0 {
            return no("it has a place in a file");
        }
        if bytes.len() != header.block_bytes() {
            return no("it has another length than it says");
        }
        let (payload, padding) = bytes[HEADER_BYTES..].split_at(header.payload_len as usize);
        if !header.matches(payload) {
            return no("it does not match its checksum");
        }
        if padding.iter().any(|byte| *byte != 0) {
            return no("its padding is not zero");
        }
        if !header.counts(payload) {
            return no("it holds another number of commands than it says");
        }
        Ok(Self { header, next_chain: header.next_chain(), bytes })
    }

    /// A block that was read from a file and checked there.
    pub(crate) fn checked(header: &BlockHeader, payload: &[u8]) -> Self {
        Self::assemble(BlockHeader { nth: 0, ..*header }, BlockBytes::with(payload))
    }

    /// Seals commands that were put down where they are to stay, as [`Block::entry`] does: nothing is copied.
    pub(crate) fn sealed(before: &Position, term: u64, at: Nanos, commands: u32, bytes: BlockBytes) -> Self {
        Self::seal_in_place(Self::header_at(before, BlockKind::Entry, term, at, commands), bytes)
    }

    /// Seals a copy of a payload; `payload_len` and `crc` of `header` are filled in here.
    fn seal(header: BlockHeader, payload: &[u8]) -> Self {
        Self::seal_in_place(header, BlockBytes::with(payload))
    }

    fn seal_in_place(mut header: BlockHeader, mut bytes: BlockBytes) -> Self {
        let payload = bytes.payload().len();
        assert!(payload <= PAYLOAD_MAX, "a block is far below 1 GiB");
        header.payload_len = payload as u32;
        header.crc = bytes.body_crc(&header);
        Self::assemble(header, bytes)
    }

    /// Fills in the header and pads.
    fn assemble(header: BlockHeader, bytes: BlockBytes) -> Self {
        let BlockBytes(mut bytes) = bytes;
        bytes[..HEADER_BYTES].copy_from_slice(&header.layout());
        bytes.resize(header.block_bytes(), 0);
        Self { header, next_chain: header.next_chain(), bytes: bytes.into() }
    }

    fn header_at(before: &Position, kind: BlockKind, term: u64, at: Nanos, commands: u32) -> BlockHeader {
        BlockHeader {
            payload_len: 0,
            crc: 0,
            index: before.index + u64::from(kind.is_log()),
            term,
            first_seq: before.seq.next(),
            commands,
            kind,
            flags: 0,
            chain: before.chain,
            at,
            nth: 0,
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// Where the log stands after it.
    #[must_use]
    pub fn position(&self) -> Position {
        let chain = if self.header.kind.is_log() { self.next_chain } else { self.header.chain };
        Position::with_chain(&self.header, chain)
    }

    /// The whole block, as it goes to other nodes; in a file only `nth` and the header's checksum differ.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payload without padding.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.payload_len as usize]
    }
}

/// A block's bytes before it is sealed: room for the header, then the payload.
#[derive(Debug)]
pub(crate) struct BlockBytes(Vec<u8>);

impl BlockBytes {
    /// Nothing yet, with room for so many bytes of payload and the padding behind them.
    fn with_room(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity((HEADER_BYTES + payload).next_multiple_of(BLOCK_ALIGN));
        bytes.resize(HEADER_BYTES, 0);
        Self(bytes)
    }

    fn with(payload: &[u8]) -> Self {
        let mut bytes = Self::with_room(payload.len());
        bytes.0.extend_from_slice(payload);
        bytes
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// The CRC of a block with this header and this payload, in one go: what it covers of the header lies in front of the payload
    /// meanwhile.
    fn body_crc(&mut self, header: &BlockHeader) -> u32 {
        const FROM: usize = HEADER_BYTES - COVERED_BYTES;
        let room = self.0[FROM..].first_chunk_mut().expect("room for a header");
        header.covered(room);
        crc32c::crc32c(&self.0[FROM..])
    }
}

/// A block being filled: commands of one epoch, each with its log form where it will stand.
#[derive(Debug)]
pub(crate) struct Draft<C> {
    epoch: u64,
    commands: Vec<C>,
    bytes: BlockBytes,
    arrived: Option<Nanos>,
}

impl<C> Draft<C> {
    /// Empty, with room for so many commands and bytes of theirs before memory is asked for again.
    pub(crate) fn begin(epoch: u64, commands: usize, payload: usize) -> Self {
        let (commands, bytes) = (Vec::with_capacity(commands), BlockBytes::with_room(payload));
        Self { epoch, commands, bytes, arrived: None }
    }

    /// Takes a command in, with its log form behind its length in 4 bytes, and when it arrived, if it is to be followed.
    pub(crate) fn push(&mut self, command: C, framed: &[u8], arrived: Option<Nanos>) {
        self.bytes.0.extend_from_slice(framed);
        self.push_framed(command, arrived);
    }

    /// Takes a command in whose log form stands in its place already, see [`Draft::frame`].
    pub(crate) fn push_framed(&mut self, command: C, arrived: Option<Nanos>) {
        self.commands.push(command);
        self.arrived = self.arrived.or(arrived);
    }

    /// Puts the log form of the next command in its place, as `write` appends it; how many bytes that are, with those of its length.
    pub(crate) fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        push_command(&mut self.bytes.0, write)
    }

    /// Takes the last bytes of the payload back, which were [framed](Draft::frame) for a command that does not come.
    pub(crate) fn unframe(&mut self, bytes: usize) -> Vec<u8> {
        self.bytes.0.split_off(self.bytes.0.len() - bytes)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn commands(&self) -> usize {
        self.commands.len()
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.payload().len()
    }

    /// The commands, the bytes to be sealed, and when the first command arrived that is to be followed.
    pub(crate) fn into_parts(self) -> (Vec<C>, BlockBytes, Option<Nanos>) {
        (self.commands, self.bytes, self.arrived)
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

    /// The commands alone, for their memory.
    pub(crate) fn into_commands(self) -> Vec<C> {
        self.commands
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
        Seq(self.first_seq().0 + u64::from(self.block.header.commands) - 1)
    }

    /// Where the log stands after it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.block.position()
    }

    /// Its commands alone, in order.
    #[must_use]
    pub fn plain_commands(&self) -> &[C] {
        &self.commands
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

    const BEFORE: Position =
        Position { index: 6, term: 2, seq: Seq(40), chain: 0x0102_0304_0506_0708, at: Nanos(1_200) };

    fn sealed() -> Block {
        let mut payload = Vec::new();
        for command in [&b"buy"[..], b"sell two"] {
            push_command(&mut payload, |out| out.extend_from_slice(command));
        }
        Block::entry(&BEFORE, 2, Nanos(1_234), 2, &payload)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_sealed_block_reads_back() {
        let block = sealed();
        assert_eq!(block.bytes().len(), 128);
        let read = Block::from_bytes(block.bytes().clone()).expect("own bytes read back");
        assert_eq!(read, block);
        let commands: Vec<_> = CommandBytes::new(block.payload()).collect();
        assert_eq!(commands, [&b"buy"[..], b"sell two"]);
        assert_eq!(BEFORE.refuses(block.header()), None);
        assert_eq!(Position::after(block.header()).seq, Seq(42));
    }

    /// A journal of today must open tomorrow: if this fails, the format changed, and needs a new number and a reader of the old.
    #[test]
    fn the_bytes_of_a_block_are_those_of_format_2() {
        let golden = concat!(
            "130000007fcf0f7c07000000000000000200000000000000290000000000000002000000010000000807060504030201",
            "d20400000000000000000000fe3cf0f7030000006275790800000073656c6c2074776f00000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
        );
        assert_eq!(hex(sealed().bytes()), golden);
    }

    #[test]
    fn a_place_in_a_file_changes_the_headers_checksum_and_no_identity() {
        let block = sealed();
        let stamped = BlockHeader::read(&block.header().stamped(3)).expect("it reads");
        assert_eq!((stamped.nth, stamped.crc), (3, block.header().crc));
        assert!(stamped.matches(block.payload()));
        assert_eq!(Position::after(&stamped), Position::after(block.header()));
        assert_eq!(Block::checked(&stamped, block.payload()), block);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = sealed();
        for bit in 0..block.bytes().len() * 8 {
            let mut bytes = block.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::from_bytes(bytes.into()).is_err(), "bit {bit} was flipped and nobody noticed");
        }
    }

    #[test]
    fn bytes_of_another_length_and_notes_are_no_blocks_of_the_log() {
        let block = sealed();
        for len in 0..block.bytes().len() {
            assert!(Block::from_bytes(block.bytes().slice(..len)).is_err(), "{len} bytes");
        }
        let longer = [&block.bytes()[..], &[0; 64]].concat();
        assert!(Block::from_bytes(longer.into()).is_err());
        let note = Block::note(&BEFORE, BlockKind::HardState, &[0; 24]);
        assert!(Block::from_bytes(note.bytes().clone()).is_err());
    }

    #[test]
    fn a_note_moves_nothing_and_stands_in_one_place_only() {
        let note = Block::note(&BEFORE, BlockKind::HardState, &[1; 24]);
        assert_eq!(Position::after(note.header()), BEFORE);
        assert_eq!(BEFORE.refuses(note.header()), None);
        let elsewhere = Position { term: BEFORE.term + 1, ..BEFORE };
        assert!(elsewhere.refuses(note.header()).is_some());
    }

    #[test]
    fn the_empty_block_of_a_term_and_a_change_of_members_follow_and_are_the_same_for_everyone() {
        for block in [Block::empty(&BEFORE, 3), Block::conf_change(&BEFORE, 3, b"add node 4")] {
            assert_eq!(BEFORE.refuses(block.header()), None);
            let after = Position::after(block.header());
            assert_eq!((after.index, after.term, after.seq, after.at), (7, 3, BEFORE.seq, BEFORE.at));
            assert_ne!(after.chain, BEFORE.chain);
        }
        assert_eq!(Block::empty(&BEFORE, 3), Block::empty(&BEFORE, 3));
    }

    #[test]
    fn the_chain_tells_equal_blocks_apart_by_their_past() {
        let one = *sealed().header();
        let other = BlockHeader { chain: one.chain + 1, ..one };
        assert_ne!(one.next_chain(), other.next_chain());
    }

    #[test]
    fn a_position_reads_back_from_its_bytes() {
        assert_eq!(Position::from_bytes(&BEFORE.to_bytes()), Some(BEFORE));
        assert_eq!(Position::from_bytes(&[0; 39]), None);
    }
}
