//! A journal that was damaged in its middle, made whole from the other nodes before the core runs.
//!
//! What a damaged node acknowledged and can no longer read may have been committed on its word. So it must not take part until it
//! has it again. It asks *every* other voter how far its log reaches and takes the log of the one that would win an
//! election among them (highest last term, then highest index): whatever was committed with this node's help is on at least one of
//! them, and the election rule that kept it in every later leader's log keeps it in that one.
//!
//! Its vote may be lost with the journal as well. Whoever it voted for was a candidate, hence one of those asked, and knows the
//! term; so it enters the highest term that any of them knows with its vote given to itself: nobody else gets it in that term,
//! and it stands for election in later ones only.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use grid_sequencer::{
    Block, Damage, JournalConfig, JournalError, Machine, NodeId, RecoverError, examine, repair,
};

use crate::core::{CoreStatus, Members, RaftCore};
use crate::links::Tls;
use crate::links::repair::{RepairBlocks, RepairCall, RepairFrom, RepairRequest, RepairStatus};
use crate::peers;

/// Most bytes of blocks in one answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to reach a node that does not answer.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Why a damaged journal was not made whole.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nothing can be done here.
    #[error("{damage}\nIt cannot be repaired from the cluster either: {why}")]
    NotHere {
        /// What is wrong with the journal.
        damage: Box<JournalError>,
        /// Why the others do not help.
        why: String,
    },
    /// The disk failed, or does not take what the others sent.
    #[error(transparent)]
    Disk(#[from] RecoverError),
}

/// Who asks, and whom.
pub(crate) struct Cluster<'a> {
    pub(crate) cluster: u64,
    pub(crate) node: NodeId,
    pub(crate) members: &'a Members,
    pub(crate) tls: &'a Tls,
    /// How long every other voter may take to answer.
    pub(crate) patience: Duration,
}

/// Makes a journal whole that `refused` says is damaged; the state can be recovered from it afterwards.
pub(crate) fn from_peers<M: Machine>(
    data: &Path,
    journal: JournalConfig,
    cluster: &Cluster<'_>,
    refused: JournalError,
) -> Result<(), RepairError> {
    let damage = examine(data, M::FORMAT).map_err(RecoverError::from)?;
    let not_here = |why: String| RepairError::NotHere { damage: Box::new(refused), why };
    let Some(damage) = damage else { return Err(not_here("its segments are sound one by one".to_owned())) };
    tracing::error!(
        file = %damage.path.display(), offset = damage.offset, why = damage.why, last_good = damage.last_good.index,
        "the journal is damaged; this node asks the others for what it lost before it takes part again"
    );
    let (mut best, mut committed, mut term) = (None::<Source>, 0, 0);
    let others: Vec<_> = peers::addresses(cluster.members, cluster.node)
        .into_iter()
        .filter(|(node, _)| cluster.members.is_voter(*node))
        .collect();
    if others.is_empty() {
        return Err(not_here("it has no other voter".to_owned()));
    }
    for (peer, address) in others {
        let whom = RepairFrom { cluster: cluster.cluster, node: cluster.node, peer, address };
        let source = match Source::ask(&whom, cluster, &damage) {
            Ok(source) => source,
            Err(why) => {
                return Err(not_here(format!(
                    "every other voter has to say how far its log reaches, and node {peer} does not: {why}"
                )));
            }
        };
        committed = committed.max(source.status.commit);
        term = term.max(source.status.term);
        if best.as_ref().is_none_or(|best| best.reach() < source.reach()) {
            best = Some(source);
        }
    }
    let mut best = best.expect("there are other voters");
    let (peer, last) = (best.whom.peer, best.status.last_index);
    let blocks = std::iter::from_fn(|| best.next());
    let repaired = repair(data, journal, M::FORMAT, &damage, blocks, committed, term);
    match (best.trouble, repaired) {
        (Some(why), Err(_)) => Err(not_here(format!("node {peer}: {why}"))),
        (_, Err(error)) => Err(error.into()),
        (_, Ok(())) => {
            tracing::warn!(peer, from = damage.last_good.index + 1, to = last, "the journal is whole again");
            Ok(())
        }
    }
}

/// Another node's log, from the damage on.
struct Source {
    whom: RepairFrom,
    call: RepairCall,
    status: RepairStatus,
    /// What has come and was not taken yet, in reverse.
    ready: Vec<Arc<Block>>,
    next: RepairRequest,
    trouble: Option<String>,
}

impl Source {
    /// Asks until there is an answer, as long as patience lasts.
    fn ask(whom: &RepairFrom, cluster: &Cluster<'_>, damage: &Damage) -> Result<Self, String> {
        let until = Instant::now() + cluster.patience;
        let next = RepairRequest { from_index: damage.last_good.index + 1, chain: damage.last_good.chain };
        loop {
            let asked = RepairCall::connect(whom, cluster.tls, ANSWER_LIMIT)
                .and_then(|mut call| call.fetch(next, ANSWER_LIMIT).map(|answer| (call, answer)));
            match asked {
                Ok((call, answer)) => {
                    let status = answer.status;
                    let mut source =
                        Self { whom: whom.clone(), call, status, ready: Vec::new(), next, trouble: None };
                    source.take(answer);
                    return Ok(source);
                }
                Err(error) if Instant::now() >= until => return Err(error.to_string()),
                Err(_) => std::thread::sleep(TRY_AGAIN),
            }
        }
    }

    /// What decides an election.
    fn reach(&self) -> (u64, u64) {
        (self.status.last_term, self.status.last_index)
    }

    fn take(&mut self, answer: RepairBlocks) {
        if answer.blocks.is_empty() {
            self.trouble = Some(answer.words);
            return;
        }
        match split(Bytes::from(answer.blocks)) {
            Ok(mut blocks) => {
                blocks.reverse();
                self.ready = blocks;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    fn next(&mut self) -> Option<Arc<Block>> {
        if self.next.from_index > self.status.last_index {
            return None;
        }
        if self.ready.is_empty() && self.trouble.is_none() {
            match self.call.fetch(self.next, ANSWER_LIMIT) {
                Ok(answer) => self.take(answer),
                Err(error) => self.trouble = Some(error.to_string()),
            }
        }
        let block = self.ready.pop()?;
        self.next =
            RepairRequest { from_index: block.header().index + 1, chain: block.header().next_chain() };
        Some(block)
    }
}

/// Blocks that lie one after the other.
fn split(mut bytes: Bytes) -> Result<Vec<Arc<Block>>, String> {
    let mut blocks = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>() {
        let whole = (64 + u32::from_le_bytes(*length) as usize).next_multiple_of(64);
        if whole > bytes.len() {
            return Err("a block is cut off".to_owned());
        }
        let block = Block::from_bytes(bytes.split_to(whole)).map_err(|error| error.to_string())?;
        blocks.push(Arc::new(block));
    }
    if bytes.is_empty() { Ok(blocks) } else { Err("bytes follow that are no block".to_owned()) }
}

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
