//! The nodes: their starts and ends, and a step of each of their parts.

use grid_replicator::Followed;
use grid_sequencer::{NodeId, StageName, Step};

use super::{PARTS, World};
use crate::disk::DiskFaults;
use crate::ledger::Known;
use crate::node::{Ended, LOST, Node, stage};
use crate::outcome::Lie;
use crate::settings::MILLIS;
use crate::wires::Wires;

impl World {
    pub(super) fn step_node(&mut self, id: NodeId, part: u64) -> Result<(), String> {
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

    pub(super) fn boot(&mut self, id: NodeId) -> Result<(), String> {
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
    pub(super) fn within<R>(
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

    pub(super) fn stop_node(&mut self, id: NodeId, power: bool) {
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
}
