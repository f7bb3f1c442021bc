//! Stands between a node's stages and its raft core and notes what passes: what was given to the journal, what was reported durable,
//! what was said to be committed. It changes nothing, unless it is told to lie.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_replicator::core::{Members, RaftCore};
use grid_sequencer::{Block, Blocks, Consensus, HardState, Leadership, NodeId, Persist, Position, Ready};

use crate::disk::SimDisk;
use crate::node::journal_dir;
use crate::outcome::Lie;

/// What happened on a node since the world last looked.
#[derive(Debug)]
pub(crate) enum News {
    /// The core handed these blocks out as committed; on a leader, with the members that it leads by, and led by when it may have
    /// counted.
    Committed { blocks: Blocks, leading: Vec<Members> },
    /// The hard state says that everything up to here is committed.
    CommitKnown(u64),
    /// This node leads.
    Leads(u64),
    /// Blocks from this index on were replaced.
    Truncated,
    /// Something that must never be.
    Wrong(String),
}

/// What is known of a node's log, across its restarts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The log as the core last had it.
    pub(crate) log: BTreeMap<u64, Arc<Block>>,
    /// What was given to the journal and is not reported durable.
    tickets: VecDeque<Persist>,
    /// The blocks that were reported durable.
    pub(crate) durable: BTreeMap<u64, Arc<Block>>,
    /// The last term and vote that were reported durable.
    pub(crate) hard_state: HardState,
    pub(crate) news: Vec<News>,
    term_led: u64,
}

/// Shared between the probe in a node's core and the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is gone: what it had not reported durable was never promised to anyone.
    pub(crate) fn process_gone(&self) {
        let mut seen = self.seen();
        seen.tickets.clear();
        seen.term_led = 0;
    }
}

fn replace(log: &mut BTreeMap<u64, Arc<Block>>, blocks: &[Arc<Block>]) -> bool {
    let Some(first) = blocks.first().map(|block| block.header().index) else { return false };
    let replaced = !log.split_off(&first).is_empty();
    log.extend(blocks.iter().map(|block| (block.header().index, Arc::clone(block))));
    replaced
}

pub(crate) struct Probe {
    core: RaftCore,
    notes: Notes,
    disk: SimDisk,
    /// Durable means synced.
    synced: bool,
    /// The members, and those before them.
    members: [Members; 2],
    lie: Option<Lie>,
}

impl Probe {
    pub(crate) fn new(core: RaftCore, notes: Notes, disk: SimDisk, synced: bool, lie: Option<Lie>) -> Self {
        let members = [core.members().clone(), core.members().clone()];
        Self { core, notes, disk, synced, members, lie }
    }

    pub(crate) fn core(&mut self) -> &mut RaftCore {
        &mut self.core
    }

    fn lie(&mut self, ready: &mut Ready, replaces: bool) {
        let Some(persist) = &mut ready.persist else { return };
        match self.lie {
            Some(Lie::AckBeforeSync) => self.core.persisted(persist.ticket),
            Some(Lie::VotesForgotten) => persist.hard_state = None,
            Some(Lie::TruncationSkipped) if replaces => persist.blocks.clear(),
            Some(Lie::UncommittedApplied) => {
                let blocks = persist.blocks.clone();
                self.notes.seen().news.push(News::Committed { blocks, leading: self.members.to_vec() });
            }
            _ => {}
        }
    }
}

impl Consensus for Probe {
    fn lead(&self) -> Option<(Position, u64)> {
        self.core.lead()
    }

    fn propose(&mut self, block: Arc<Block>) {
        self.core.propose(block);
    }

    fn persisted(&mut self, ticket: u64) {
        {
            let mut seen = self.notes.seen();
            while let Some(persist) = seen.tickets.pop_front_if(|next| next.ticket <= ticket) {
                replace(&mut seen.durable, &persist.blocks);
                if let Some(state) = persist.hard_state {
                    seen.hard_state = state;
                }
            }
            if self.synced && !self.disk.is_synced(&journal_dir(), ".tmp") {
                seen.news.push(News::Wrong("reported durable what the disk has not synced".to_owned()));
            }
        }
        self.core.persisted(ticket);
    }

    fn tick(&mut self) {
        self.core.tick();
    }

    fn applied(&mut self, index: u64) {
        self.core.applied(index);
        if *self.core.members() != self.members[0] {
            self.members.swap(0, 1);
            self.members[0] = self.core.members().clone();
        }
    }

    fn ready(&mut self) -> Option<Ready> {
        let mut ready = self.core.ready()?;
        let mut seen = self.notes.seen();
        if let Some(persist) = &ready.persist {
            if replace(&mut seen.log, &persist.blocks) {
                seen.news.push(News::Truncated);
            }
            if let Some(state) = persist.hard_state {
                seen.news.push(News::CommitKnown(state.commit));
            }
            seen.tickets.push_back(persist.clone());
        }
        let replaces = seen.news.iter().any(|news| matches!(news, News::Truncated));
        let leadership = self.core.leadership();
        if leadership.leads && seen.term_led != leadership.term {
            seen.term_led = leadership.term;
            seen.news.push(News::Leads(leadership.term));
        }
        if !ready.committed.is_empty() {
            let leading = if leadership.leads { self.members.to_vec() } else { Vec::new() };
            seen.news.push(News::Committed { blocks: ready.committed.clone(), leading });
        }
        drop(seen);
        self.lie(&mut ready, replaces);
        Some(ready)
    }

    fn leadership(&self) -> Leadership {
        self.core.leadership()
    }
}

/// True if this block is durable on a majority of those who vote, by both sides of a change.
pub(crate) fn on_majority(members: &Members, durable: impl Fn(NodeId) -> bool + Copy) -> bool {
    let majority = |votes: Vec<NodeId>| {
        let have = votes.iter().filter(|node| durable(**node)).count();
        votes.is_empty() || 2 * have > votes.len()
    };
    let incoming = members.voters().collect();
    let outgoing = members.iter().filter(|(_, member)| member.outgoing).map(|(node, _)| node).collect();
    majority(incoming) && majority(outgoing)
}
