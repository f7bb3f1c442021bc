//! Healing, and what must hold in the end.

use grid_sequencer::NodeId;

use super::World;
use crate::client::Client;
use crate::disk::DiskFaults;
use crate::network::NetworkFaults;
use crate::outcome::Lie;
use crate::settings::MILLIS;

impl World {
    pub(super) fn heal(&mut self) {
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
    pub(super) fn members(&self) -> Vec<NodeId> {
        let Some(leader) = self.leader().and_then(|leader| self.nodes.get(&leader)) else {
            return Vec::new();
        };
        let Some(process) = &leader.process else { return Vec::new() };
        process.driver.drive(|probe| probe.core().members().iter().map(|(node, _)| node).collect())
    }

    pub(super) fn has_converged(&mut self) -> bool {
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

    pub(super) fn describe(&self) -> String {
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

    pub(super) fn check_all(&mut self) -> Result<(), String> {
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

    pub(super) fn collect_counts(&mut self) {
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
