//! Time, chance and misfortune: steps the parts of all nodes one at a time, carries messages, and holds what happens against the ledger.

mod clients;
mod end;
mod misfortune;
mod news;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use grid_engine::command::Entry;
use grid_engine::{Nanos, SECOND, SessionId};
use grid_sequencer::NodeId;

use crate::client::{self, Client};
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::node::{Node, Trap};
use crate::outcome::{Counts, Knobs, Lie};
use crate::settings::{MILLIS, Settings};
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
}
