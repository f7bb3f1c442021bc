//! What nodes say to each other about the log, and how it is laid out: 64 bytes of fixed fields, then blocks as they are.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | format, 1 |
//! | 1 | kind ([`MessageKind`]) |
//! | 2 | flags: 1 rejected, 2 the vote is asked for in a transfer of leadership |
//! | 3 | zero |
//! | 4–7 | number of blocks |
//! | 8–15 | term |
//! | 16–23 | index |
//! | 24–31 | term of the log at that index |
//! | 32–39 | commit index |
//! | 40–47 | term of the log at the commit index |
//! | 48–55 | where the log of one who rejects may agree |
//! | 56–63 | zero |
//! | from 64 | the blocks of an append, each 64 bytes of header, payload, padding |
//!
//! All numbers are little-endian. A field that a kind does not use is zero. Who sent a message is told by the link, not by the message.
//! What decodes is sound in itself (kinds, flags, lengths, checksums, numbering of blocks); whether it fits the log is judged by the core.

use std::sync::Arc;

use bytes::Bytes;
use grid_sequencer::{Block, BlockHeader, NodeId};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

const FORMAT: u8 = 1;
/// Bytes in front of the blocks.
const HEAD_BYTES: usize = 64;
const BLOCK_HEADER_BYTES: usize = 64;
const FLAG_REJECTED: u8 = 1;
const FLAG_TRANSFER: u8 = 2;
/// Above any index or term that is ever reached, below where sums of them overflow.
const HIGHEST: u64 = 1 << 62;
/// What raft writes into a request for votes when leadership is handed over; part of its interface to itself.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MessageKind {
    /// A leader's blocks after `index`, and its commit index.
    Append = 1,
    /// Up to `index` the log is durable and the leader's; or, rejected, is not.
    AppendReply = 2,
    /// A leader is there.
    Heartbeat = 3,
    /// It was heard.
    HeartbeatReply = 4,
    /// Would you vote for me?
    PreVote = 5,
    /// I would, or not.
    PreVoteReply = 6,
    /// Vote for me.
    Vote = 7,
    /// I do, or not.
    VoteReply = 8,
    /// The log you need is gone; here comes the snapshot of `index`. The links stream the file.
    Snapshot = 9,
    /// Take over leadership now.
    TimeoutNow = 10,
}

impl MessageKind {
    const ALL: [(Self, MessageType); 10] = [
        (Self::Append, MessageType::MsgAppend),
        (Self::AppendReply, MessageType::MsgAppendResponse),
        (Self::Heartbeat, MessageType::MsgHeartbeat),
        (Self::HeartbeatReply, MessageType::MsgHeartbeatResponse),
        (Self::PreVote, MessageType::MsgRequestPreVote),
        (Self::PreVoteReply, MessageType::MsgRequestPreVoteResponse),
        (Self::Vote, MessageType::MsgRequestVote),
        (Self::VoteReply, MessageType::MsgRequestVoteResponse),
        (Self::Snapshot, MessageType::MsgSnapshot),
        (Self::TimeoutNow, MessageType::MsgTimeoutNow),
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().map(|(kind, _)| kind).find(|kind| *kind as u8 == code)
    }

    fn from_raft(of: MessageType) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, raft)| *raft == of).map(|(kind, _)| kind)
    }

    fn to_raft(self) -> MessageType {
        Self::ALL
            .into_iter()
            .find(|(kind, _)| *kind == self)
            .map(|(_, raft)| raft)
            .expect("every kind is listed")
    }

    /// Which fields and flags a message of this kind may set.
    fn uses(self) -> Uses {
        let none =
            Uses { index: false, log_term: false, commit: false, commit_term: false, hint: false, flags: 0 };
        match self {
            Self::Append => Uses { index: true, log_term: true, commit: true, ..none },
            Self::AppendReply => {
                Uses { index: true, log_term: true, commit: true, hint: true, flags: FLAG_REJECTED, ..none }
            }
            Self::Heartbeat | Self::HeartbeatReply => Uses { commit: true, ..none },
            Self::PreVote | Self::Vote => Uses {
                index: true,
                log_term: true,
                commit: true,
                commit_term: true,
                flags: FLAG_TRANSFER,
                ..none
            },
            Self::PreVoteReply | Self::VoteReply => {
                Uses { commit: true, commit_term: true, flags: FLAG_REJECTED, ..none }
            }
            Self::Snapshot => Uses { index: true, log_term: true, ..none },
            Self::TimeoutNow => none,
        }
    }
}

struct Uses {
    index: bool,
    log_term: bool,
    commit: bool,
    commit_term: bool,
    hint: bool,
    flags: u8,
}

/// Bytes that are no message, or one that no peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too early or go on too long.
    #[error("the message's length does not add up")]
    Length,
    /// Written by another program version.
    #[error("a message of format {0}; this program speaks {FORMAT}")]
    Format(u8),
    /// Not a kind that peers send.
    #[error("there is no message of kind {0}")]
    Kind(u8),
    /// A value that cannot be.
    #[error("the message is invalid: {0}")]
    Invalid(&'static str),
    /// One of its blocks is damaged.
    #[error("block {0} of the message is damaged")]
    Block(u32),
}

/// One message between two nodes. Cheap to clone: blocks are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    pub(super) kind: MessageKind,
    pub(super) term: u64,
    pub(super) index: u64,
    pub(super) log_term: u64,
    pub(super) commit: u64,
    pub(super) commit_term: u64,
    pub(super) hint: u64,
    pub(super) rejected: bool,
    pub(super) transfer: bool,
    pub(super) blocks: Vec<Arc<Block>>,
}

impl PeerMessage {
    pub(super) fn new(kind: MessageKind, term: u64) -> Self {
        Self {
            kind,
            term,
            index: 0,
            log_term: 0,
            commit: 0,
            commit_term: 0,
            hint: 0,
            rejected: false,
            transfer: false,
            blocks: Vec::new(),
        }
    }

    /// What it says.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The sender's term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The blocks of an append.
    #[must_use]
    pub fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    /// Index of the snapshot to stream along, if this announces one.
    #[must_use]
    pub fn snapshot(&self) -> Option<u64> {
        (self.kind == MessageKind::Snapshot).then_some(self.index)
    }

    /// This announcement of a snapshot, for another one that serves as well.
    #[must_use]
    pub fn announcing(mut self, index: u64, term: u64) -> Self {
        (self.index, self.log_term) = (index, term);
        self
    }

    /// Bytes that [`PeerMessage::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEAD_BYTES + self.blocks.iter().map(|block| block.bytes().len()).sum::<usize>()
    }

    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        out.extend_from_slice(&self.encode_head());
        for block in &self.blocks {
            out.extend_from_slice(block.bytes());
        }
    }

    /// The fixed fields alone; the bytes of [`PeerMessage::blocks`] follow on the wire, for writers that gather.
    #[must_use]
    pub fn encode_head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let flags = (u8::from(self.rejected) * FLAG_REJECTED) | (u8::from(self.transfer) * FLAG_TRANSFER);
        head[..4].copy_from_slice(&[FORMAT, self.kind as u8, flags, 0]);
        head[4..8].copy_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        let words = [self.term, self.index, self.log_term, self.commit, self.commit_term, self.hint];
        for (place, word) in head[8..56].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        head
    }

    /// Reads a message; its blocks share `bytes`.
    ///
    /// # Errors
    /// Unless the bytes are exactly one message, sound in itself.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(WireError::Length)?;
        if head[0] != FORMAT {
            return Err(WireError::Format(head[0]));
        }
        let kind = MessageKind::from_code(head[1]).ok_or(WireError::Kind(head[1]))?;
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let message = Self {
            kind,
            term: word(8),
            index: word(16),
            log_term: word(24),
            commit: word(32),
            commit_term: word(40),
            hint: word(48),
            rejected: head[2] & FLAG_REJECTED != 0,
            transfer: head[2] & FLAG_TRANSFER != 0,
            blocks: Vec::new(),
        };
        if head[3] != 0 || word(56) != 0 || head[2] & !kind.uses().flags != 0 {
            return Err(WireError::Invalid("a flag or reserved byte"));
        }
        let count = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
        let message = Self { blocks: blocks(bytes, count)?, ..message };
        message.check()?;
        Ok(message)
    }

    /// Whether the fields make sense together, whatever the log.
    pub(super) fn check(&self) -> Result<(), WireError> {
        let uses = self.kind.uses();
        let fields = [
            (true, self.term),
            (uses.index, self.index),
            (uses.log_term, self.log_term),
            (uses.commit, self.commit),
            (uses.commit_term, self.commit_term),
            (uses.hint, self.hint),
        ];
        if fields.iter().any(|(used, value)| if *used { *value >= HIGHEST } else { *value != 0 }) {
            return Err(WireError::Invalid("a number out of range"));
        }
        if self.term == 0 {
            return Err(WireError::Invalid("term 0"));
        }
        match self.kind {
            // A term of 0 for an index in the log would compare equal on two nodes that both lack it.
            MessageKind::Append => {
                if (self.index == 0) != (self.log_term == 0) || self.log_term > self.term {
                    return Err(WireError::Invalid("the place of its blocks"));
                }
                self.check_blocks()
            }
            _ if !self.blocks.is_empty() => Err(WireError::Invalid("blocks outside of an append")),
            MessageKind::Snapshot if self.index == 0 || self.log_term == 0 => {
                Err(WireError::Invalid("the place of its snapshot"))
            }
            _ => Ok(()),
        }
    }

    fn check_blocks(&self) -> Result<(), WireError> {
        let (mut index, mut term) = (self.index, self.log_term);
        for block in &self.blocks {
            let header = block.header();
            let follows = header.kind.is_log()
                && header.index == index + 1
                && header.term >= term.max(1)
                && header.term <= self.term;
            if !follows {
                return Err(WireError::Invalid("the order of its blocks"));
            }
            (index, term) = (header.index, header.term);
        }
        Ok(())
    }

    pub(super) fn to_raft(&self, from: NodeId, to: NodeId) -> Message {
        let mut message = Message::default();
        message.set_msg_type(self.kind.to_raft());
        (message.from, message.to, message.term) = (from, to, self.term);
        (message.index, message.log_term) = (self.index, self.log_term);
        (message.commit, message.commit_term) = (self.commit, self.commit_term);
        (message.reject, message.reject_hint) = (self.rejected, self.hint);
        if self.transfer {
            message.context = Bytes::from_static(TRANSFER_CONTEXT);
        }
        message.set_entries(self.blocks.iter().map(|block| place(block.header())).collect::<Vec<_>>().into());
        message
    }

    /// A message of raft's; `find` gives the block of an entry. `None` if one is gone: then the message is as good as lost.
    pub(super) fn from_raft(message: &Message, find: impl Fn(&Entry) -> Option<Arc<Block>>) -> Option<Self> {
        let kind = MessageKind::from_raft(message.get_msg_type())?;
        let mut made = Self::new(kind, message.term);
        (made.index, made.log_term) = (message.index, message.log_term);
        (made.commit, made.commit_term) = (message.commit, message.commit_term);
        (made.rejected, made.hint) = (message.reject, message.reject_hint);
        made.transfer = message.context == TRANSFER_CONTEXT;
        made.blocks = message.entries.iter().map(find).collect::<Option<_>>()?;
        if kind == MessageKind::Snapshot {
            let snapshot = message.get_snapshot().get_metadata();
            (made.index, made.log_term) = (snapshot.index, snapshot.term);
        }
        debug_assert_eq!(made.check(), Ok(()), "a peer takes what this node sends: {made:?}");
        Some(made)
    }
}

/// A block as raft sends it: the same bytes, not a copy.
pub(super) fn entry(block: &Block) -> Entry {
    let mut entry = place(block.header());
    entry.data = block.bytes().clone();
    entry
}

/// A block as raft appends it: where it stands and what it is. The block itself lies in the store.
pub(super) fn place(header: &BlockHeader) -> Entry {
    let mut entry = Entry::default();
    entry.set_entry_type(match header.kind {
        grid_sequencer::BlockKind::ConfChange => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    });
    (entry.index, entry.term) = (header.index, header.term);
    entry
}

pub(super) fn snapshot(index: u64, term: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (index, term);
    snapshot
}

fn blocks(bytes: &Bytes, count: u32) -> Result<Vec<Arc<Block>>, WireError> {
    let mut rest = bytes.slice(HEAD_BYTES..);
    // The count is the sender's word: never allocate for more blocks than there are bytes.
    let mut blocks = Vec::with_capacity((count as usize).min(rest.len() / BLOCK_HEADER_BYTES));
    for nth in 0..count {
        let payload = rest.first_chunk::<4>().ok_or(WireError::Length)?;
        let len =
            (BLOCK_HEADER_BYTES + u32::from_le_bytes(*payload) as usize).next_multiple_of(BLOCK_HEADER_BYTES);
        if len > rest.len() {
            return Err(WireError::Length);
        }
        let block = Block::from_bytes(rest.split_to(len)).map_err(|_| WireError::Block(nth))?;
        blocks.push(Arc::new(block));
    }
    if rest.is_empty() { Ok(blocks) } else { Err(WireError::Length) }
}
