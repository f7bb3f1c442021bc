//! Time, chance and misfortune: steps the parts of all nodes one at a time, carries messages, and holds what happens against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use grid_engine::command::Entry;
use grid_engine::{Nanos, SECOND, SessionId};
use grid_replicator::core::{Addresses, Member, MemberChange, PeerMessage, Received};
use grid_replicator::{Digest, Followed};
use grid_sequencer::{NodeId, StageName, Step};

use crate::client::{self, Client, Down, Link, Wish};
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::ledger::{Known, Ledger};
use crate::network::{Network, NetworkFaults, Parcel, Sent};
use crate::node::{
    Ended, LOST, Node, Out, Trap, is_segment, journal_dir, snapshot_dir, snapshot_file, stage,
};
use crate::outcome::{Counts, Knobs, Lie};
use crate::probe::{News, on_majority};
use crate::settings::{Fault, MILLIS, Settings};
use crate::wires::Wires;

/// 2026-01-01 10:00 UTC: some hours before a midnight.
pub(crate) const START: Nanos = Nanos(1_767_261_600 * SECOND);
/// Turns per node, one for each of its parts.
const PARTS: u64 = 8;

pub(crate) struct World {
    pub(crate) settings: Settings,
    knobs: Knobs,
    dice: Dice,
    now: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Nodes that were taken out of the cluster, or are about to be.
    leaving: BTreeSet<NodeId>,
    next_node: NodeId,
    network: Network,
    wires: Wires,
    clients: Vec<Client>,
    ledger: Ledger,
    /// Every command that a client sent, by session and number.
    sent: BTreeMap<(SessionId, u64), Entry>,
    trap: Trap,
    next_fault: u64,
    healing: bool,
    /// Snapshots under way, and when the links give up on them.
    transfers: BTreeMap<(NodeId, NodeId), u64>,
    pub(crate) counts: Counts,
    /// Hash over all that happened.
    pub(crate) fingerprint: u64,
    turns: u64,
}

impl World {
    pub(crate) fn new(seed: u64, knobs: Knobs) -> Self {
        let mut dice = Dice::new(seed);
        let settings = Settings::draw(&mut dice);
        let mut nodes = BTreeMap::new();
        for id in 1..=settings.nodes {
            let mut node = Node::new(id, true, &mut dice, START, 0);
            node.restart_at = dice.below(20 * MILLIS);
            node.disk
                .set_faults(DiskFaults { lies: knobs.lie == Some(Lie::DisksDoNotSync), ..settings.disk });
            nodes.insert(id, node);
        }
        let network = Network::new(dice.fork(), settings.network);
        let wires = Wires::new(dice.fork(), settings.wire_delay);
        let clients = client::cast(&mut dice, &settings);
        let next_fault = 300 * MILLIS + dice.below(settings.fault_every);
        Self {
            knobs,
            now: 0,
            leaving: BTreeSet::new(),
            next_node: settings.nodes + 1,
            network,
            wires,
            clients,
            ledger: Ledger::new(settings.snapshot_every),
            sent: BTreeMap::new(),
            trap: Trap::install(),
            next_fault,
            healing: false,
            transfers: BTreeMap::new(),
            counts: Counts::default(),
            fingerprint: seed,
            turns: 0,
            nodes,
            settings,
            dice,
        }
    }

    /// The whole run: first everything goes wrong, then everything must come together.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let result = self.run_phases();
        self.collect_counts();
        result.map_err(|what| format!("at {} ms: {what}", self.now / MILLIS))
    }

    fn run_phases(&mut self) -> Result<(), String> {
        while self.now < self.settings.safety {
            self.turn()?;
        }
        self.heal();
        let deadline = self.now + self.settings.healing;
        while !(self.turns.is_multiple_of(256) && self.has_converged()) {
            self.turn()?;
            if self.now > deadline {
                return Err(format!("no convergence after healing: {}", self.describe()));
            }
        }
        self.check_all()
    }

    fn note(&mut self, what: u64) {
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.knobs.trace {
            eprintln!("{:>9.3} ms {}", self.now as f64 / MILLIS as f64, what());
        }
    }

    fn note_bytes(&mut self, bytes: &[u8]) {
        self.note(u64::from(crc32c::crc32c(bytes)) << 1 | 1);
    }

    /// One step of one part of one thing.
    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        self.now += 1 + self.dice.below(self.settings.turn);
        if !self.healing && self.now >= self.next_fault {
            self.next_fault = self.now + 1 + self.dice.below(2 * self.settings.fault_every);
            self.inject()?;
        }
        let nodes = self.nodes.len() as u64;
        let clients = self.clients.len() as u64;
        let slots = nodes * PARTS + nodes * 4 + clients;
        let slot = self.dice.below(slots);
        if slot < nodes * PARTS {
            let id = self.nodes.keys().copied().nth((slot / PARTS) as usize).unwrap_or_default();
            self.step_node(id, slot % PARTS)
        } else if slot < nodes * PARTS + nodes * 4 {
            self.deliver()
        } else {
            self.step_client((slot - nodes * (PARTS + 4)) as usize)
        }
    }

    // -- nodes ------------------------------------------------------------------------------------------------

    fn step_node(&mut self, id: NodeId, part: u64) -> Result<(), String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.keep_time(now);
        if now > node.room_until && node.room_until > 0 {
            node.room_until = 0;
            node.disk.set_room(None);
        }
        if now > node.bad_until && node.bad_until > 0 {
            node.bad_until = 0;
            node.disk.set_faults(DiskFaults {
                lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                ..self.settings.disk
            });
        }
        if node.process.is_none() {
            return if now >= node.restart_at { self.boot(id) } else { Ok(()) };
        }
        if now < node.paused_until {
            return Ok(());
        }
        let result = match part {
            0 => self.step_stage(id, StageName::Sequencer),
            1 | 2 => self.step_journal(id),
            3 => self.step_stage(id, StageName::Matcher),
            4 => self.step_stage(id, StageName::Timer),
            5 => self.step_replica(id),
            6 => self.step_gateway(id),
            _ => self.run_errands(id),
        };
        result?;
        self.read_news(id)?;
        self.send_out(id)
    }

    fn boot(&mut self, id: NodeId) -> Result<(), String> {
        let (founders, now) = (self.settings.nodes, self.now);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        // Now and then the process ends again while it starts.
        let trap = (!self.healing && self.dice.chance(1, 12)).then(|| self.dice.below(12));
        let settings = &self.settings;
        let lie = self.knobs.lie;
        let (result, _) = self.trap.run(trap, || node.boot(settings, founders, lie));
        match result {
            Ok(Ok(booted)) => {
                let position = booted.process.replica.read_at(|_, position| position);
                let hash = booted.process.replica.read(grid_engine::Engine::state_hash);
                node.process = Some(booted.process);
                node.trap = None;
                self.counts.boots += 1;
                let booted_at = booted.summary;
                self.counts.torn_tails += u64::from(booted.torn);
                self.counts.snapshots_taken_in += u64::from(booted.received);
                self.counts.replayed += booted.replayed;
                if booted.received {
                    node.snapshot = node.snapshot.max(position.index);
                }
                self.tell(|| format!("node {id} starts: {booted_at}"));
                self.read_news(id)?;
                if position.index > 0 {
                    self.check_state(id, position.index, hash, "recovered")?;
                }
                self.note(id << 32 | position.index);
                self.send_out(id)
            }
            Ok(Err(error)) => {
                if self.knobs.trace {
                    eprintln!("node {id} does not start: {error}");
                }
                node.end(false);
                node.restart_at = now + self.dice.between(5, 60) * MILLIS;
                if error.starts_with(LOST) {
                    return Err(error);
                }
                if node.disk.is_flipped() {
                    // It refused what is damaged, as it should. The operator restores the files from a copy.
                    self.counts.refusals += 1;
                    node.disk.restore_flips();
                } else if node.room_until > 0 || node.bad_until > 0 {
                    self.counts.failed_starts += 1;
                } else {
                    return Err(format!("node {id} does not start: {error}"));
                }
                Ok(())
            }
            Err(ended) => self.process_ended(id, ended),
        }
    }

    /// Runs a piece of a process, which may end in it. `None` if it did.
    fn within<R>(
        &mut self,
        id: NodeId,
        body: impl FnOnce(&mut Node, &mut Wires, u64) -> R,
    ) -> Result<Option<R>, String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(None) };
        let wires = &mut self.wires;
        let (result, left) = self.trap.run(node.trap.take(), || body(node, wires, now));
        match result {
            Ok(value) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.trap = left;
                }
                Ok(Some(value))
            }
            Err(ended) => {
                // What it told its core before it ended has happened.
                self.read_news(id)?;
                self.process_ended(id, ended)?;
                Ok(None)
            }
        }
    }

    fn process_ended(&mut self, id: NodeId, ended: Ended) -> Result<(), String> {
        self.tell(|| format!("node {id} ended: {ended:?}"));
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        match ended {
            Ended::AtPoint => {
                self.counts.at_points += 1;
                let power = self.settings.durability == grid_sequencer::Durability::DiskQuorum
                    && self.dice.chance(1, 2);
                self.stop_node(id, power);
                Ok(())
            }
            Ended::Fault(what) => {
                let excused = node.room_until > 0 || node.bad_until > 0 || node.disk.is_flipped();
                if !excused {
                    return Err(format!("node {id} stopped itself for no reason of its disk's: {what}"));
                }
                self.counts.faults += 1;
                if node.disk.is_flipped() {
                    node.disk.restore_flips();
                }
                self.stop_node(id, false);
                Ok(())
            }
            Ended::Panic(what) => Err(format!("node {id} panicked: {what}")),
        }
    }

    fn stop_node(&mut self, id: NodeId, power: bool) {
        let now = self.now;
        self.tell(|| format!("node {id} ends, with the power: {power}"));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (sectors, names) = node.end(power);
        self.counts.crashes += 1;
        self.counts.power_cuts += u64::from(power);
        self.counts.sectors_lost += sectors;
        self.counts.names_lost += names;
        let quick = self.healing || self.dice.chance(1, 2);
        node.restart_at = now + self.dice.below(if quick { 20 } else { 400 } * MILLIS);
        self.network.node_gone(id);
        self.wires.node_gone(id, now);
        self.note(id << 8 | u64::from(power));
    }

    fn step_stage(&mut self, id: NodeId, name: StageName) -> Result<(), String> {
        let step = self.within(id, |node, _, _| {
            let process = node.process.as_mut()?;
            stage(&mut process.stages, name).map(|stage| stage.step())
        })?;
        if matches!(step, Some(Some(Step::Worked))) {
            self.note(id << 16 | name as u64);
        }
        Ok(())
    }

    /// The journal's step sleeps in the disk first.
    fn step_journal(&mut self, id: NodeId) -> Result<(), String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        let works = stage(&mut process.stages, StageName::Journal).is_some_and(|stage| stage.has_work());
        if !works {
            return Ok(());
        }
        if node.sync_until == 0 {
            let slow = if now < node.slow_until { 40 } else { 1 };
            let turn = self.settings.turn * self.nodes.len() as u64 * PARTS;
            let delay = self.dice.below(self.settings.sync_delay * slow * turn + 1);
            let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
            node.sync_until = now + delay;
            return Ok(());
        }
        if now < node.sync_until {
            return Ok(());
        }
        node.sync_until = 0;
        self.step_stage(id, StageName::Journal)
    }

    fn step_replica(&mut self, id: NodeId) -> Result<(), String> {
        let followed = self.within(id, |node, _, _| {
            let process = node.process.as_mut()?;
            Some(process.replica_stage.step())
        })?;
        match followed.flatten() {
            Some(Ok(Followed::Worked)) => {
                let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
                let found = process.and_then(|process| {
                    process.replica.read_at(|engine, position| {
                        let known = matches!(self.ledger.state_hash(position.index), Known::Hash(_));
                        known.then(|| (position.index, engine.state_hash()))
                    })
                });
                if let Some((index, hash)) = found {
                    self.check_state(id, index, hash, "replica")?;
                }
                Ok(())
            }
            Some(Err(divergence)) => Err(format!("node {id} finds itself diverged: {divergence}")),
            _ => Ok(()),
        }
    }

    fn check_state(&self, id: NodeId, index: u64, hash: u64, whose: &str) -> Result<(), String> {
        match self.ledger.state_hash(index) {
            Known::Unhashed => Ok(()),
            Known::Hash(known) if known == hash => Ok(()),
            Known::Hash(_) => {
                Err(format!("the {whose} state of node {id} at block {index} is not the others'"))
            }
            Known::No => Err(format!(
                "the {whose} state of node {id} stands at block {index}, which nobody has committed"
            )),
        }
    }

    fn step_gateway(&mut self, id: NodeId) -> Result<(), String> {
        let outputs = self.within(id, |node, wires, now| {
            let process = node.process.as_mut()?;
            Some(process.gateway.step(wires, now, 8))
        })?;
        for output in outputs.flatten().unwrap_or_default() {
            self.ledger.check_output(id, &output)?;
            self.note(output.block.index());
        }
        Ok(())
    }

    /// What the links and the owner of a node tell its core.
    fn run_errands(&mut self, id: NodeId) -> Result<(), String> {
        let now = self.now;
        let over: Vec<_> = self
            .transfers
            .iter()
            .filter(|((from, _), until)| *from == id && now > **until)
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            self.transfers.remove(&key);
            if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) {
                process.streamed.push((key.1, false));
            }
        }
        let snapshot = self.within(id, |node, _, _| {
            let process = node.process.as_mut()?;
            for peer in std::mem::take(&mut process.unreachable) {
                process.driver.drive(|probe| probe.core().report_unreachable(peer));
            }
            for (peer, ok) in std::mem::take(&mut process.streamed) {
                process.driver.drive(|probe| probe.core().report_snapshot(peer, ok));
            }
            let taken = std::mem::take(&mut *process.taken.lock().unwrap_or_else(|held| held.into_inner()));
            let newest = taken.last()?.position.index;
            for meta in &taken {
                let needed = process.driver.drive(|probe| {
                    let core = probe.core();
                    core.snapshot_taken(meta.position.index, meta.position.term);
                    core.needed_from()
                });
                // What the oldest snapshot still needs stays, and what a member that is alive still lacks.
                if let Ok(Some(oldest)) = process.snapshots.oldest_index() {
                    process.handle.release_log()(
                        oldest.min(needed.map_or(u64::MAX, |from| from.saturating_sub(1))),
                    );
                }
            }
            // What the journal has let go by now, the core must not count on.
            if let Ok(first) = process.log.first_index() {
                let _ = process.driver.drive(|probe| probe.core().compact(first.saturating_sub(1)));
            }
            Some((newest, taken))
        })?;
        if let Some((newest, taken)) = snapshot.flatten() {
            for meta in taken {
                self.check_state(id, meta.position.index, meta.state_hash, "saved")?;
                self.counts.snapshots += 1;
            }
            if let Some(node) = self.nodes.get_mut(&id) {
                node.snapshot = node.snapshot.max(newest);
            }
        }
        Ok(())
    }

    // -- what nodes say ---------------------------------------------------------------------------------------

    fn read_news(&mut self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let news = std::mem::take(&mut node.notes.seen().news);
        for item in news {
            match item {
                News::Wrong(what) => return Err(format!("node {id} {what}")),
                News::Truncated => self.counts.truncations += 1,
                News::Leads(term) => {
                    if self.ledger.leads(term, id)? {
                        self.tell(|| format!("node {id} leads in term {term}"));
                        self.note(term << 8 | id);
                    }
                }
                News::CommitKnown(commit) => {
                    let from = self.ledger.position.index + 1;
                    let blocks: Vec<_> = {
                        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                        let seen = node.notes.seen();
                        (from..=commit).map_while(|index| seen.log.get(&index).cloned()).collect()
                    };
                    self.commit(id, &blocks)?;
                }
                News::Committed { blocks, leading } => {
                    if !leading.is_empty() {
                        for block in &blocks {
                            let index = block.header().index;
                            let durable = |voter: NodeId| {
                                self.nodes.get(&voter).is_some_and(|node| {
                                    node.snapshot >= index
                                        || node
                                            .notes
                                            .seen()
                                            .durable
                                            .get(&index)
                                            .is_some_and(|own| own.bytes() == block.bytes())
                                })
                            };
                            if !leading.iter().any(|members| on_majority(members, durable)) {
                                return Err(format!(
                                    "node {id} has block {index} committed, which is not durable on a majority"
                                ));
                            }
                        }
                    }
                    self.commit(id, &blocks)?;
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, id: NodeId, blocks: &[std::sync::Arc<grid_sequencer::Block>]) -> Result<(), String> {
        for block in blocks {
            let sent = &self.sent;
            let known = |entry: &Entry| sent.get(&(entry.session, entry.client_seq)) == Some(entry);
            self.ledger.commit(id, block, &known)?;
            self.note(block.header().chain);
        }
        Ok(())
    }

    fn send_out(&mut self, id: NodeId) -> Result<(), String> {
        loop {
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
                return Ok(());
            };
            let Some((to, out)) = process.outgoing.pop() else { return Ok(()) };
            match out {
                Out::Digest(digest) => {
                    let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
                    for other in others {
                        self.network.send(id, other, Parcel::Digest(digest.encode().to_vec()), self.now);
                    }
                }
                Out::Message { bytes, snapshot } => {
                    let parcel = if snapshot {
                        match snapshot_file(&process.snapshots) {
                            Some((_, file)) => Parcel::Snapshot(bytes, file),
                            None => {
                                process.streamed.push((to, false));
                                continue;
                            }
                        }
                    } else {
                        Parcel::Message(bytes)
                    };
                    if snapshot {
                        self.counts.transfers += 1;
                        self.transfers.insert((id, to), self.now + 120 * MILLIS);
                    }
                    let sent = if self.nodes.contains_key(&to) {
                        self.network.send(id, to, parcel, self.now)
                    } else {
                        Sent::Lost
                    };
                    if sent == Sent::Lost
                        && let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
                    {
                        if snapshot {
                            self.transfers.remove(&(id, to));
                            process.streamed.push((to, false));
                        } else if !process.unreachable.contains(&to) {
                            process.unreachable.push(to);
                        }
                    }
                }
            }
        }
    }

    fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        // A process that sleeps finds its messages when it wakes up.
        let nodes = &self.nodes;
        let awake = |id: NodeId| nodes.get(&id).is_none_or(|node| now >= node.paused_until);
        let Some((from, to, parcel)) = self.network.deliver(now, awake) else { return Ok(()) };
        let Some(node) = self.nodes.get_mut(&to) else { return Ok(()) };
        if node.process.is_none() {
            return Ok(());
        }
        node.keep_time(now);
        self.note_bytes(parcel.bytes());
        match parcel {
            Parcel::Message(bytes) => {
                self.receive(from, to, bytes, None)?;
            }
            Parcel::Snapshot(bytes, file) => self.receive(from, to, bytes, Some(file))?,
            Parcel::Digest(bytes) => {
                let digest = Digest::decode(&bytes).ok_or("a digest reads back")?;
                self.within(to, |node, _, _| {
                    if let Some(process) = &node.process {
                        process.replica.observe(from, digest);
                    }
                })?;
            }
            Parcel::Outcome(ok) => {
                if self.transfers.remove(&(to, from)).is_some()
                    && let Some(process) = self.nodes.get_mut(&to).and_then(|node| node.process.as_mut())
                {
                    process.streamed.push((from, ok));
                }
            }
        }
        self.read_news(to)?;
        self.send_out(to)
    }

    fn receive(
        &mut self,
        from: NodeId,
        to: NodeId,
        bytes: Vec<u8>,
        file: Option<Vec<u8>>,
    ) -> Result<(), String> {
        let message =
            PeerMessage::decode(&bytes.into()).map_err(|error| format!("a peer's message: {error}"))?;
        let received = self.within(to, |node, _, _| {
            let process = node.process.as_ref()?;
            Some(process.driver.drive(|probe| probe.core().receive(from, &message)))
        })?;
        match received.flatten() {
            Some(Received::Stop(stop)) => Err(format!("node {to} must stop: {stop}")),
            Some(Received::SnapshotWanted { index, term, .. }) => {
                self.read_news(to)?;
                let Some(file) = file else { return Ok(()) };
                self.install(from, to, index, term, &file)
            }
            Some(_) if file.is_some() => {
                self.network.send(to, from, Parcel::Outcome(true), self.now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A snapshot has come whole: it is made durable, and the node starts again from disk.
    fn install(
        &mut self,
        from: NodeId,
        to: NodeId,
        index: u64,
        term: u64,
        file: &[u8],
    ) -> Result<(), String> {
        let installed = self.within(to, |node, _, _| {
            let process = node.process.as_mut()?;
            let mut receiver = process.snapshots.receive().ok()?;
            for chunk in file.chunks(4 << 10) {
                receiver.write(chunk).ok()?;
            }
            if !process.driver.drive(|probe| probe.core().begin_install(index, term)) {
                return None;
            }
            // The journal finishes what it was given.
            if let Some(stage) = stage(&mut process.stages, StageName::Journal) {
                while stage.step() == Step::Worked {}
            }
            Some(receiver.finish().map(|meta| meta.position.index).map_err(|error| error.to_string()))
        })?;
        match installed.flatten() {
            Some(Ok(index)) => {
                self.counts.installs += 1;
                self.network.send(to, from, Parcel::Outcome(true), self.now);
                // The links bring the news before the process goes.
                self.read_news(to)?;
                let now = self.now;
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.end(false);
                    node.restart_at = now;
                    node.snapshot = node.snapshot.max(index);
                }
                self.wires.node_gone(to, now);
                self.boot(to)
            }
            Some(Err(error)) => {
                let Some(node) = self.nodes.get(&to) else { return Ok(()) };
                if node.room_until == 0 && node.bad_until == 0 {
                    return Err(format!("node {to} cannot make a snapshot durable: {error}"));
                }
                // The core is over once an installation has begun.
                self.stop_node(to, false);
                Ok(())
            }
            None => {
                self.network.send(to, from, Parcel::Outcome(false), self.now);
                Ok(())
            }
        }
    }

    // -- clients ----------------------------------------------------------------------------------------------

    fn step_client(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        if let Some((connection, client)) = self.wires.pop_ended(now) {
            let current = match self.clients[client].link {
                Link::Opening { connection: own, .. } | Link::Up { connection: own, .. } => own == connection,
                Link::Down { .. } => false,
            };
            if current {
                self.clients[client].disconnected(now);
            }
        }
        let connection = match self.clients[at].link {
            Link::Opening { connection, .. } | Link::Up { connection, .. } => Some(connection),
            Link::Down { .. } => None,
        };
        let mut wish = None;
        if let Some(connection) = connection
            && let Some(down) = self.wires.pop_down(connection, now)
        {
            let session = self.clients[at].session;
            if let Down::Report(report) | Down::Repeated { report: Some(report), .. } = &down {
                self.ledger.check_report(session, report)?;
            }
            wish = self.clients[at].hear(connection, down, now)?;
        }
        if wish.is_none() {
            wish = self.clients[at].step(now);
        }
        match wish {
            Some(Wish::Connect(hint)) => {
                let up: Vec<_> =
                    self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(id, _)| *id).collect();
                let chosen = hint.filter(|node| up.contains(node));
                let chosen = chosen.or_else(|| (!up.is_empty()).then(|| *self.dice.pick(&up)));
                match chosen {
                    Some(node) => {
                        let connection = self.wires.open(node, at);
                        let first = self.clients[at].connected(connection, now);
                        self.wires.send_up(connection, now, first);
                    }
                    None => self.clients[at].disconnected(now),
                }
            }
            Some(Wish::Send(connection, up)) => {
                if let client::Up::Command(entry) = &up {
                    let entry = entry.clone();
                    let key = (entry.session, entry.client_seq);
                    if self.sent.insert(key, entry.clone()).is_some_and(|earlier| earlier != entry) {
                        return Err(format!("{key:?} was sent as two commands"));
                    }
                }
                self.wires.send_up(connection, now, up);
            }
            Some(Wish::Close(connection)) => {
                let node = self.wires.node_of(connection);
                self.wires.close(connection);
                if let Some(process) =
                    node.and_then(|node| self.nodes.get_mut(&node)).and_then(|node| node.process.as_mut())
                {
                    process.gateway.lost(connection);
                }
            }
            None => {}
        }
        Ok(())
    }

    // -- misfortune -------------------------------------------------------------------------------------------

    fn any_node(&mut self) -> NodeId {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        *self.dice.pick(&ids)
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| {
            node.process.as_ref().is_some_and(|process| process.handle.leadership().epoch().is_some())
        };
        self.nodes.values().filter(leads).map(|node| node.id).next_back()
    }

    /// Often the leader: that is where it hurts.
    fn victim(&mut self) -> NodeId {
        match self.leader() {
            Some(leader) if self.dice.chance(1, 2) => leader,
            _ => self.any_node(),
        }
    }

    fn inject(&mut self) -> Result<(), String> {
        let Some(fault) = self.settings.fault(&mut self.dice) else { return Ok(()) };
        let (id, now) = (self.victim(), self.now);
        *self.counts.injected.entry(format!("{fault:?}")).or_default() += 1;
        self.tell(|| format!("{fault:?} at node {id}"));
        self.note(fault as u64);
        match fault {
            Fault::Kill | Fault::PowerCut => {
                if self.nodes[&id].process.is_some() {
                    self.stop_node(id, fault == Fault::PowerCut);
                }
            }
            Fault::Blackout => {
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.stop_node(id, true);
                }
            }
            Fault::AtPoint => {
                let countdown = self.dice.below(40);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.trap = Some(countdown);
                }
            }
            Fault::Pause => {
                let until = now + self.dice.between(10, 300) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.paused_until = until;
                }
            }
            Fault::Partition => self.part(id),
            Fault::Reconnect => self.network.heal(),
            Fault::ClockJump => {
                let by = match self.dice.below(6) {
                    0 => self.dice.between(1, 7_200) as i64 * SECOND as i64,
                    1 => -(self.dice.between(1, 7_200) as i64) * SECOND as i64,
                    _ => self.dice.below(4 * SECOND) as i64 - 2 * SECOND as i64,
                };
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.clock.jump(by);
                }
            }
            Fault::SlowDisk => {
                let until = now + self.dice.between(20, 400) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.slow_until = until;
                }
            }
            Fault::FullDisk => {
                let (room, until) = (self.dice.below(40 << 10), now + self.dice.between(50, 400) * MILLIS);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.room_until = until;
                    node.disk.set_room(Some(room));
                }
            }
            Fault::BadDisk => {
                let error_ppm = *self.dice.pick(&[1_000, 20_000, 200_000]);
                let until = now + self.dice.between(20, 200) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.bad_until = until;
                    let faults = DiskFaults {
                        lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                        ..self.settings.disk
                    };
                    node.disk.set_faults(DiskFaults { error_ppm, ..faults });
                }
            }
            Fault::BitFlip => self.flip_a_bit(id),
            Fault::Members => self.change_members(),
            Fault::Transfer => {
                let to = self.any_node();
                if let Some(leader) = self.leader() {
                    self.within(leader, |node, _, _| {
                        if let Some(process) = &node.process {
                            let _ = process.driver.drive(|probe| probe.core().transfer_leadership(to));
                        }
                    })?;
                    self.read_news(leader)?;
                    self.send_out(leader)?;
                }
            }
            Fault::Snapshot => {
                if let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) {
                    process.replica.snapshot_now(|_| ());
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, id: NodeId) {
        let with_loss = self.dice.chance(1, 2);
        let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        let (outwards, inwards) =
            *self.dice.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let some = self.dice.chance(1, 3);
        for other in others {
            if some && self.dice.chance(1, 2) {
                continue;
            }
            if outwards {
                self.network.cut(id, other, with_loss);
            }
            if inwards {
                self.network.cut(other, id, with_loss);
            }
        }
    }

    /// One node at a time, and nothing of what was written last: whether that is torn or damaged nobody could tell.
    fn flip_a_bit(&mut self, id: NodeId) {
        if self.nodes.values().any(|node| node.disk.is_flipped()) {
            return;
        }
        let Some(node) = self.nodes.get(&id) else { return };
        let flipped = if self.dice.chance(1, 4) {
            node.disk.flip_bit(&snapshot_dir(), |_, bytes, dice| {
                (!bytes.is_empty()).then(|| dice.below(bytes.len() as u64) as usize)
            })
        } else {
            node.disk.flip_bit(&journal_dir(), |name, bytes, dice| {
                let end = is_segment(name).then(|| settled_end(bytes))??;
                Some(dice.below(end as u64) as usize)
            })
        };
        if let Some(name) = flipped {
            self.counts.bit_flips += 1;
            self.note_bytes(name.as_bytes());
            // Whoever reads it next is a start from disk, or a peer that lags.
            if self.dice.chance(1, 2) && self.nodes[&id].process.is_some() {
                self.stop_node(id, false);
            }
        }
    }

    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let (now, founders) = (self.now, self.settings.nodes);
        let Some(process) = self.nodes.get(&leader).and_then(|node| node.process.as_ref()) else { return };
        let members = process.driver.drive(|probe| probe.core().members().clone());
        let learners: Vec<_> = members.iter().filter(|(_, m)| m.learner).map(|(node, _)| node).collect();
        let is_voter = |(_, member): &(NodeId, &Member)| member.voter;
        let voters: Vec<_> = members.iter().filter(is_voter).map(|(node, _)| node).collect();
        let change = if !learners.is_empty() && voters.len() < 5 && self.dice.chance(1, 2) {
            MemberChange::Promote { node: *self.dice.pick(&learners) }
        } else if voters.len() + learners.len() > founders as usize && self.dice.chance(1, 2) {
            let all: Vec<_> = members.iter().map(|(node, _)| node).filter(|node| *node != leader).collect();
            MemberChange::Remove { node: *self.dice.pick(&all) }
        } else if members.iter().count() < 6 {
            let node = self.next_node;
            let addresses = Addresses { peer: format!("n{node}:1"), orders: format!("n{node}:2") };
            MemberChange::AddLearner { node, addresses }
        } else {
            return;
        };
        let node = change.node();
        let accepted = process.driver.drive(|probe| probe.core().change_members(&change)).is_ok();
        if !accepted {
            return;
        }
        self.counts.member_changes += 1;
        match change {
            MemberChange::AddLearner { .. } => {
                self.next_node += 1;
                let mut new = Node::new(node, false, &mut self.dice, START, now);
                new.restart_at = now + self.dice.below(40 * MILLIS);
                new.disk.set_faults(DiskFaults {
                    lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                    ..self.settings.disk
                });
                self.nodes.insert(node, new);
            }
            MemberChange::Remove { .. } => {
                self.leaving.insert(node);
            }
            _ => {}
        }
    }

    // -- healing and the end ----------------------------------------------------------------------------------

    fn heal(&mut self) {
        self.healing = true;
        self.network.heal();
        self.network.faults = NetworkFaults { drop_ppm: 0, break_ppm: 0, queue: 4096, ..self.network.faults };
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.trap = None;
            node.paused_until = 0;
            node.slow_until = 0;
            node.room_until = 0;
            node.bad_until = 0;
            node.disk.set_room(None);
            node.disk.set_faults(DiskFaults {
                lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                ..DiskFaults::default()
            });
            node.disk.restore_flips();
            node.restart_at = node.restart_at.min(now + 10 * MILLIS);
        }
        for client in &mut self.clients {
            client.active = false;
        }
    }

    /// Nodes that belong to the cluster by the log.
    fn members(&self) -> Vec<NodeId> {
        let Some(leader) = self.leader().and_then(|leader| self.nodes.get(&leader)) else {
            return Vec::new();
        };
        let Some(process) = &leader.process else { return Vec::new() };
        process.driver.drive(|probe| probe.core().members().iter().map(|(node, _)| node).collect())
    }

    fn has_converged(&mut self) -> bool {
        let heard_all = |client: &Client| {
            let reports = self.ledger.reports.get(&client.session).map_or(0, Vec::len);
            client.is_finished() && client.reports.len() == reports
        };
        if !self.clients.iter().all(heard_all) {
            return false;
        }
        let members = self.members();
        if members.is_empty() {
            return false;
        }
        // Who was taken out is switched off; whoever was to be, and is still in, stays.
        let out: Vec<_> = self.nodes.keys().copied().filter(|node| !members.contains(node)).collect();
        for id in out {
            self.leaving.remove(&id);
            self.nodes.remove(&id);
            self.network.node_gone(id);
            self.wires.node_gone(id, self.now);
        }
        let last = self.ledger.position.index;
        self.nodes.values().all(|node| {
            node.process.as_ref().is_some_and(|process| {
                process.handle.status().applied_index == last
                    && process.replica.read_at(|_, position| position.index) == last
            })
        })
    }

    fn describe(&self) -> String {
        let nodes: Vec<_> = self
            .nodes
            .values()
            .map(|node| match &node.process {
                None => format!("{}: down", node.id),
                Some(process) => format!(
                    "{}: applied {}, {:?}",
                    node.id,
                    process.handle.status().applied_index,
                    process.driver.drive(|probe| probe.core().status())
                ),
            })
            .collect();
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|client| {
                let reports = self.ledger.reports.get(&client.session).map_or(0, Vec::len);
                format!("{}, {} of {reports} reports", client.describe(), client.reports.len())
            })
            .collect();
        format!("log at {:?}; {nodes:#?}; {clients:#?}", self.ledger.position.index)
    }

    fn check_all(&mut self) -> Result<(), String> {
        self.ledger.check_all()?;
        let truth = self.ledger.engine.snapshot();
        for (id, node) in &self.nodes {
            let Some(process) = &node.process else { continue };
            if process.replica.read(grid_engine::Engine::snapshot) != truth {
                return Err(format!("the state of node {id} is not byte for byte the others'"));
            }
        }
        for client in &self.clients {
            let none = Vec::new();
            let reports = self.ledger.reports.get(&client.session).unwrap_or(&none);
            if !client.reports.values().eq(reports) {
                return Err(format!(
                    "session {} saw {} reports where the log has {}",
                    client.session.0,
                    client.reports.len(),
                    reports.len()
                ));
            }
            if client.answers.len() as u64 != client.commands() {
                return Err(format!(
                    "session {} has {} answers to {} commands",
                    client.session.0,
                    client.answers.len(),
                    client.commands()
                ));
            }
        }
        Ok(())
    }

    fn collect_counts(&mut self) {
        let counts = &mut self.counts;
        counts.turns = self.turns;
        counts.elections = self.ledger.elections();
        counts.commands = self.ledger.commands;
        counts.repeats = self.ledger.repeats;
        counts.trades = self.ledger.trades;
        let rare = self.ledger.rare.iter();
        counts.rare = rare.map(|(what, times)| ((*what).to_owned(), *times)).collect();
        counts.blocks = self.ledger.position.index;
        counts.acked = self.clients.iter().map(|client| client.answers.len() as u64).sum();
        counts.retries = self.clients.iter().map(|client| client.retries).sum();
        counts.resumed = self.clients.iter().map(|client| client.resumed).sum();
        counts.reports_again = self.clients.iter().map(|client| client.missing).sum();
        counts.messages = self.network.sent;
        counts.messages_lost = self.network.lost;
        counts.messages_repeated = self.network.repeated;
        counts.fault_points =
            self.trap.reached().into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
    }
}

/// Up to where a segment holds blocks that a later write proves to have been synced; `None` if there are none.
fn settled_end(bytes: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (mut at, mut last_group) = (4096, None);
    while let Some(header) = bytes.get(at..at + 64) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if word(at + 56)? == 0 {
            last_group = Some(at);
        }
        at += (64 + word(at)?).next_multiple_of(64);
    }
    last_group.filter(|at| *at > 4096)
}
