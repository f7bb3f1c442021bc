//! What is true: the committed log as it first became known anywhere, applied by a reference engine and by the model. Every node and
//! every client is held against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use grid_engine::command::Entry;
use grid_engine::event::{ChargeReason, Closure, Event, OrderClosed, Report};
use grid_engine::{Engine, Nanos, Seq, SessionId};
use grid_sequencer::{Block, BlockKind, CommandBytes, NodeId, Output, Position};

use crate::model::Model;

/// One committed block and what it did.
struct Fact {
    block: Arc<Block>,
    events: Vec<(Seq, Event)>,
    /// Hash of the state behind it, where it was taken: it is dear.
    state: Option<u64>,
}

/// What is known of the state behind a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its hash.
    Hash(u64),
    /// The block is committed, and nobody took the hash.
    Unhashed,
    /// No such block is committed.
    No,
}

/// The committed log. Index 1 is the first fact.
pub(crate) struct Ledger {
    facts: Vec<Fact>,
    pub(crate) position: Position,
    pub(crate) engine: Engine,
    model: Model,
    /// Commands between two snapshots of a node.
    snapshot_every: u64,
    /// Every report of each session, from number 1.
    pub(crate) reports: BTreeMap<SessionId, Vec<Report>>,
    /// The last number executed of each session.
    executed: BTreeMap<SessionId, u64>,
    leaders: BTreeMap<u64, NodeId>,
    pub(crate) commands: u64,
    pub(crate) repeats: u64,
    pub(crate) trades: u64,
    /// Service and money, by what happened.
    pub(crate) rare: BTreeMap<&'static str, u64>,
    pub(crate) conf_changes: u64,
}

impl Ledger {
    pub(crate) fn new(snapshot_every: u64) -> Self {
        Self {
            facts: Vec::new(),
            position: Position::default(),
            engine: Engine::new(),
            model: Model::default(),
            snapshot_every,
            reports: BTreeMap::new(),
            executed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            commands: 0,
            repeats: 0,
            trades: 0,
            rare: BTreeMap::new(),
            conf_changes: 0,
        }
    }

    /// The bytes of a committed block, if that index is known to be committed.
    pub(crate) fn block(&self, index: u64) -> Option<&Arc<Block>> {
        self.facts.get(usize::try_from(index.checked_sub(1)?).ok()?).map(|fact| &fact.block)
    }

    /// Hash of the state behind a block; of the empty one behind none.
    pub(crate) fn state_hash(&self, index: u64) -> Known {
        let Some(at) = index.checked_sub(1) else { return Known::Hash(Engine::new().state_hash()) };
        match self.facts.get(at as usize) {
            Some(Fact { state: Some(hash), .. }) => Known::Hash(*hash),
            Some(_) => Known::Unhashed,
            None => Known::No,
        }
    }

    /// Somebody leads in a term.
    pub(crate) fn leads(&mut self, term: u64, node: NodeId) -> Result<bool, String> {
        match self.leaders.insert(term, node) {
            Some(other) if other != node => Err(format!("nodes {other} and {node} both lead in term {term}")),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    pub(crate) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A node says that this block is committed. `sent` tells whether a client sent a command.
    pub(crate) fn commit(
        &mut self,
        node: NodeId,
        block: &Arc<Block>,
        sent: &dyn Fn(&Entry) -> bool,
    ) -> Result<(), String> {
        let header = *block.header();
        if let Some(known) = self.block(header.index) {
            if known.bytes() != block.bytes() {
                return Err(format!(
                    "node {node} has another block {} committed: {header:?}, where {:?} is",
                    header.index,
                    known.header()
                ));
            }
            return Ok(());
        }
        if header.index != self.position.index + 1 {
            return Err(format!(
                "node {node} has block {} committed, and nobody has block {}",
                header.index,
                self.position.index + 1
            ));
        }
        if header.at < self.position.at
            || header.term < self.position.term
            || header.chain != self.position.chain
            || header.first_seq != self.position.seq.next()
        {
            return Err(format!("committed block {header:?} does not follow on {:?}", self.position));
        }
        self.apply(block, sent)
    }

    fn apply(&mut self, block: &Arc<Block>, sent: &dyn Fn(&Entry) -> bool) -> Result<(), String> {
        let header = block.header();
        let mut events = Vec::new();
        if header.kind == BlockKind::Entry {
            let mut seq = header.first_seq;
            for bytes in CommandBytes::new(block.payload()) {
                let entry = Entry::decode(bytes).map_err(|error| format!("a committed command: {error}"))?;
                if entry.session != SessionId::VENUE && !sent(&entry) {
                    return Err(format!("nobody sent the committed command {entry:?}"));
                }
                let mut done = Vec::new();
                let expected = self.model.apply(seq, header.at, &entry);
                self.engine.apply(seq, header.at, &entry, &mut done);
                self.model.compare(&expected, &entry, &done, self.engine.state())?;
                self.count((seq, header.at), &entry, &done)?;
                events.extend(done.into_iter().map(|event| (seq, event)));
                seq = seq.next();
            }
            if seq.0 - header.first_seq.0 != u64::from(header.commands) {
                return Err(format!("block {} does not hold the commands it counts", header.index));
            }
        } else {
            self.conf_changes += 1;
        }
        let before = self.position.seq.0;
        self.position = Position::after(header);
        let saved = self.position.seq.0 / self.snapshot_every > before / self.snapshot_every;
        let hashed = saved || header.index.is_multiple_of(16) || header.kind != BlockKind::Entry;
        let state = hashed.then(|| self.engine.state_hash());
        if header.index.is_multiple_of(16) {
            self.engine.check_invariants().map_err(|violation| violation.to_string())?;
            self.model.compare_books(self.engine.state())?;
        }
        self.facts.push(Fact { block: Arc::clone(block), events, state });
        Ok(())
    }

    fn count(&mut self, (seq, at): (Seq, Nanos), entry: &Entry, events: &[Event]) -> Result<(), String> {
        self.commands += 1;
        let mut answered = false;
        for event in events {
            if let Some((session, report)) = event.report(seq, at) {
                let reports = self.reports.entry(session).or_default();
                if report.number != reports.len() as u64 + 1 {
                    return Err(format!("{session:?} has {} reports, and then {report:?}", reports.len()));
                }
                reports.push(report);
                answered |= session == entry.session && report.client_seq == entry.client_seq;
            }
            match event {
                Event::Repeated { .. } => self.repeats += 1,
                Event::Traded(_) => self.trades += 1,
                other => {
                    if let Some(what) = rarity(other) {
                        *self.rare.entry(what).or_default() += 1;
                    }
                }
            }
        }
        if entry.client_seq != 0 && answered {
            // Clients send their numbers in order, and again in order from the first one that was not applied. One that is left
            // out would never be executed, and its client never told.
            let last = self.executed.entry(entry.session).or_default();
            if entry.client_seq != *last + 1 {
                return Err(format!(
                    "{:?} sent its commands in order, and number {} was executed after {last}",
                    entry.session, entry.client_seq
                ));
            }
            *last = entry.client_seq;
        }
        Ok(())
    }

    /// What a node told its clients of a block.
    pub(crate) fn check_output(&self, node: NodeId, output: &Output<Engine>) -> Result<(), String> {
        let index = output.block.index();
        let Some(fact) = index.checked_sub(1).and_then(|at| self.facts.get(at as usize)) else {
            return Err(format!("node {node} tells of block {index}, which nobody has committed"));
        };
        if fact.block.bytes() != output.block.block().bytes() {
            return Err(format!("node {node} tells of another block {index}"));
        }
        if !fact.events.iter().map(|(seq, event)| (*seq, event)).eq(output.numbered()) {
            return Err(format!("node {node} says that block {index} did something else"));
        }
        Ok(())
    }

    /// A report as a client saw it.
    pub(crate) fn check_report(&self, session: SessionId, report: &Report) -> Result<(), String> {
        let at = report.number.checked_sub(1).map(|at| at as usize);
        let known = self.reports.get(&session).and_then(|reports| reports.get(at?));
        match known {
            Some(known) if known == report => Ok(()),
            Some(known) => Err(format!("{session:?} was told {report:?} where the log says {known:?}")),
            None => Err(format!("{session:?} was told {report:?}, which no committed command brought about")),
        }
    }

    /// The end of a run: everything that is dear to check.
    pub(crate) fn check_all(&self) -> Result<(), String> {
        self.engine.check_invariants().map_err(|violation| violation.to_string())?;
        self.model.compare_books(self.engine.state())
    }
}

/// What is counted of events that only the rarer commands bring about.
fn rarity(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::WindowClosed(_) => "windows closed",
        Event::StandingChanged { breach: true, .. } => "suspended for breach",
        Event::StandingChanged { quality: true, .. } => "suspended for quality",
        Event::StandingChanged { .. } => "back on the roster",
        Event::OrderClosed(OrderClosed { reason: Closure::Suspended, .. }) => "asks closed by a suspension",
        Event::Charged(charge) => match charge.reason {
            ChargeReason::Breach => "penalties",
            ChargeReason::Cover => "covers",
            ChargeReason::CoverPenalty => "penalties to consumers",
            ChargeReason::Debt => "debts paid",
        },
        Event::Credited { .. } => "credits",
        Event::ReloadDue { .. } => "reloads due",
        Event::Reloaded { .. } => "reloads paid",
        Event::ReloadFailed { .. } => "reloads failed",
        _ => return None,
    })
}
