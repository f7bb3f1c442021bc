//! The monitor around the consensus core. Whoever has news for it (a proposal, a finished write, a tick, a peer's message)
//! locks it, tells it, and then carries what it wants done into two lanes: to the journal and to the matcher.
//!
//! ```text
//!  sequencer ─ propose ─┐                       ┌─► journal lane ─► journal ─ persisted ─┐
//!  links ───── receive ─┼─► drive(core) ─► pump ┤                                        └─► drive(core)
//!  timer ───── tick ────┘                       └─► committed lane ─► matcher
//! ```
//! So a commit costs no thread of its own and no wake-up more than it needs. Nothing waits under the lock: a full lane ends the
//! pumping, and whoever makes room in it goes on.

use std::collections::VecDeque;

use crate::block::{Block, CommittedBlock, Position};
use crate::consensus::{Consensus, Persist};
use crate::doorbell::Doorbell;
use crate::lane::LaneIn;
use crate::stages::{Committed, Cursors};
use crate::sync::{Arc, Mutex, MutexGuard, Ordering, PoisonError, fence};

/// Most committed blocks that wait here for room in the matcher's lane before the core is left alone.
const BACKLOG_BLOCKS: usize = 1024;

/// Makes the next block, with its commands, for the place and the term that it is told; `None` to stop proposing.
pub(crate) type Next<'a, Cmd> = &'a mut dyn FnMut(&Position, u64) -> Option<(Arc<Block>, Vec<Cmd>)>;

/// Whatever the stages need of the monitor, with the core's own type forgotten.
pub(crate) trait Drive<Cmd>: Send + Sync {
    /// Proposes blocks for as long as the core takes one and `next` makes one for the place it is told; false once this node
    /// does not lead.
    fn propose(&self, next: Next<'_, Cmd>) -> bool;
    fn persisted(&self, ticket: u64);
    fn tick(&self);
    /// Goes on where a full lane ended the pumping.
    fn resume(&self);
    /// Nothing is carried anywhere any more.
    fn close(&self);
}

/// Blocks that this node proposed, with the commands as the producers handed them in, so that nobody decodes what this process
/// encoded. Invariant: rising indexes; those not committed in the term they were proposed in are dropped at commit of their index.
struct Proposed<Cmd>(VecDeque<Arc<CommittedBlock<Cmd>>>);

impl<Cmd> Proposed<Cmd> {
    /// The block as it goes to the matcher: with its commands if it is the very one proposed here for that place.
    fn or_bytes(&mut self, block: Arc<Block>) -> Committed<Cmd> {
        let (index, term) = (block.header().index, block.header().term);
        while let Some(own) = self.0.pop_front_if(|own| own.index() <= index) {
            if own.index() == index && own.block().header().term == term {
                return Committed::Own(own);
            }
        }
        Committed::Bytes(block)
    }

    fn push(&mut self, block: Arc<CommittedBlock<Cmd>>) {
        // A place that is proposed for again was lost with a leadership in between.
        while self.0.pop_back_if(|own| own.index() >= block.index()).is_some() {}
        self.0.push_back(block);
    }
}

struct Core<C, Cmd> {
    consensus: C,
    proposed: Proposed<Cmd>,
    to_journal: LaneIn<Persist>,
    to_matcher: LaneIn<Committed<Cmd>>,
    /// What the journal's lane had no room for; nothing is asked of the core before it is out.
    unwritten: Option<Persist>,
    /// What the matcher's lane had no room for, in order.
    backlog: VecDeque<Committed<Cmd>>,
    applied_told: u64,
    closed: bool,
}

struct Monitor<C, Cmd> {
    core: Mutex<Core<C, Cmd>>,
    cursors: Arc<Cursors>,
}

/// The way to a running node's consensus core; clones lead to the same one.
pub struct Driver<C, Cmd>(Arc<Monitor<C, Cmd>>);

impl<C, Cmd> Clone for Driver<C, Cmd> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C, Cmd> std::fmt::Debug for Driver<C, Cmd> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl<C: Consensus, Cmd: Send + Sync + 'static> Driver<C, Cmd> {
    pub(crate) fn new(
        consensus: C,
        to_journal: LaneIn<Persist>,
        to_matcher: LaneIn<Committed<Cmd>>,
        cursors: Arc<Cursors>,
    ) -> Self {
        let core = Core {
            consensus,
            proposed: Proposed(VecDeque::new()),
            to_journal,
            to_matcher,
            unwritten: None,
            backlog: VecDeque::new(),
            applied_told: 0,
            closed: false,
        };
        Self(Arc::new(Monitor { core: Mutex::new(core), cursors }))
    }

    fn lock(&self) -> MutexGuard<'_, Core<C, Cmd>> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the core something, or asks it, and sees to what it then wants done. Keep `tell` short: every stage waits for it.
    pub fn drive<R>(&self, tell: impl FnOnce(&mut C) -> R) -> R {
        self.drive_from(None, tell)
    }

    /// The same for a stage, whose thread is not asleep.
    fn drive_from<R>(&self, own: Option<&Arc<Doorbell>>, tell: impl FnOnce(&mut C) -> R) -> R {
        let mut core = self.lock();
        let result = tell(&mut core.consensus);
        let filled = core.pump(&self.0.cursors);
        drop(core);
        filled.ring(&self.0.cursors, own);
        result
    }
}

/// The lanes that something was put into, whose stages are yet to be told. They are when the core is free again.
#[derive(Clone, Copy, Default)]
struct Filled {
    journal: bool,
    matcher: bool,
}

impl Filled {
    /// Wakes the stages, unless they are on the caller's `own` thread: that one looks at its lanes before it sleeps.
    fn ring(self, cursors: &Cursors, own: Option<&Arc<Doorbell>>) {
        let elsewhere =
            |filled: bool, bell: &Arc<Doorbell>| filled && own.is_none_or(|own| !Arc::ptr_eq(own, bell));
        let journal = elsewhere(self.journal, &cursors.bell_journal);
        let matcher = elsewhere(self.matcher, &cursors.bell_matcher);
        if journal || matcher {
            fence(Ordering::SeqCst);
        }
        if journal {
            cursors.bell_journal.ring_fenced();
        }
        if matcher {
            cursors.bell_matcher.ring_fenced();
        }
    }
}

impl<C: Consensus, Cmd> Core<C, Cmd> {
    /// Carries what the core wants done into the lanes, until there is nothing or no room.
    fn pump(&mut self, cursors: &Cursors) -> Filled {
        let mut filled = Filled::default();
        if self.closed {
            return filled;
        }
        let applied = cursors.applied.load(Ordering::Acquire);
        if applied != self.applied_told {
            self.applied_told = applied;
            self.consensus.applied(applied);
        }
        loop {
            self.flush(cursors, &mut filled);
            if self.unwritten.is_some() || self.backlog.len() >= BACKLOG_BLOCKS {
                break;
            }
            let Some(ready) = self.consensus.ready() else { break };
            self.unwritten = ready.persist;
            self.backlog.extend(ready.committed.into_iter().map(|block| self.proposed.or_bytes(block)));
        }
        cursors.board.post(self.consensus.leadership());
        filled
    }

    fn flush(&mut self, cursors: &Cursors, filled: &mut Filled) {
        if self.unwritten.is_some()
            && self.to_journal.room(1) > 0
            && let Some(persist) = self.unwritten.take()
        {
            let ticket = persist.ticket;
            self.to_journal.put(persist);
            self.to_journal.publish();
            cursors.handed.store(ticket, Ordering::Relaxed);
            filled.journal = true;
        }
        if self.backlog.is_empty() {
            return;
        }
        filled.matcher = true;
        self.flush_backlog(cursors);
        if !self.backlog.is_empty() {
            // The matcher may have made room between the attempt and the flag: try once more after raising it.
            cursors.core_blocked.ask();
            self.flush_backlog(cursors);
        }
    }

    fn flush_backlog(&mut self, cursors: &Cursors) {
        let count = self.backlog.len().min(self.to_matcher.room(self.backlog.len()));
        let Some(last) = count.checked_sub(1).map(|nth| self.backlog[nth].index()) else { return };
        for _ in 0..count {
            self.to_matcher.put(self.backlog.pop_front().expect("as many as were counted"));
        }
        // Before the matcher can see it.
        cursors.clocks.committed(last);
        self.to_matcher.publish();
        cursors.committed.store(last, Ordering::Release);
    }
}

impl<C: Consensus, Cmd: Send + Sync + 'static> Drive<Cmd> for Driver<C, Cmd> {
    fn propose(&self, next: Next<'_, Cmd>) -> bool {
        let mut core = self.lock();
        let mut leads = true;
        if let Some((mut before, term)) = core.consensus.lead() {
            // Taking a block ends no leadership.
            while let Some((block, commands)) = next(&before, term) {
                before = block.position();
                self.0.cursors.sequenced.store(before.index, Ordering::Release);
                core.consensus.propose(Arc::clone(&block));
                core.proposed.push(Arc::new(CommittedBlock::new(block, commands)));
            }
        } else {
            // While it hands its leadership over it takes nothing, and may yet keep it. Then nothing is to be missing in
            // between, for nobody is told.
            leads = core.consensus.leadership().leads;
        }
        let filled = core.pump(&self.0.cursors);
        drop(core);
        filled.ring(&self.0.cursors, Some(&self.0.cursors.bell_sequencer));
        leads
    }

    fn persisted(&self, ticket: u64) {
        self.drive_from(Some(&self.0.cursors.bell_journal), |core| core.persisted(ticket));
    }

    fn tick(&self) {
        self.drive_from(Some(&self.0.cursors.bell_timer), Consensus::tick);
    }

    fn resume(&self) {
        self.drive_from(Some(&self.0.cursors.bell_matcher), |_| ());
    }

    fn close(&self) {
        self.lock().closed = true;
    }
}
