//! A journal that was damaged in its middle, made whole from the other nodes before the core runs.
//!
//! What a damaged node acknowledged and can no longer read may have been committed on its word. So it must not take part until it
//! has it again. It asks *every* other voter how far its log reaches and takes the log of the one that would win an
//! election among them (highest last term, then highest index): whatever was committed with this node's help is on at least one of
//! them, and the election rule that kept it in every later leader's log keeps it in that one.
//!
//! Its vote may be lost with the journal as well. Whoever it voted for was a candidate, hence one of those asked, and knows the
//! term; so it enters the highest term that any of them knows with its vote given to nobody.

use bytes::BytesMut;

use crate::core::{CoreStatus, RaftCore};
use crate::links::repair::{RepairBlocks, RepairRequest, RepairStatus};

/// Most bytes of blocks in one answer.
const ANSWER_BYTES: u64 = 1 << 20;

/// Answers a damaged node: how far this log reaches, and the next stretch of it.
pub(crate) fn serve(core: &RaftCore, request: &RepairRequest) -> RepairBlocks {
    let CoreStatus { term, first, last, commit, .. } = core.status();
    let last_term = core.blocks_from(last, 0).ok().and_then(|blocks| Some(blocks.first()?.header().term));
    let status = RepairStatus {
        term,
        first_index: first,
        last_index: last,
        last_term: last_term.unwrap_or(0),
        commit,
    };
    let refuse = |words: &str| RepairBlocks { status, words: words.to_owned(), blocks: Vec::new() };
    let blocks = match core.blocks_from(request.from_index, ANSWER_BYTES) {
        Ok(blocks) => blocks,
        Err(_) => return refuse("this node's journal begins later"),
    };
    let Some(first) = blocks.first() else { return refuse("this node has no block from there on") };
    if first.header().chain != request.chain {
        return refuse("this node has another history before that block");
    }
    let mut bytes = BytesMut::new();
    blocks.iter().for_each(|block| bytes.extend_from_slice(block.bytes()));
    RepairBlocks { status, words: String::new(), blocks: bytes.to_vec() }
}
