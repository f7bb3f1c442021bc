//! Connections of clients: made, delayed, and gone with all that was on them.

use std::collections::{BTreeMap, VecDeque};

use grid_sequencer::NodeId;

use crate::client::{Down, Up};
use crate::dice::Dice;

#[derive(Debug)]
struct Wire {
    node: NodeId,
    client: usize,
    up: VecDeque<(u64, Up)>,
    down: VecDeque<(u64, Down)>,
}

/// All client connections, by number.
#[derive(Debug)]
pub(crate) struct Wires {
    dice: Dice,
    wires: BTreeMap<u64, Wire>,
    /// Connections that the node's side has ended, and whose client has not noticed yet.
    ended: Vec<(u64, u64, usize)>,
    next: u64,
    delay: u64,
}

impl Wires {
    pub(crate) fn new(dice: Dice, delay: u64) -> Self {
        Self { dice, wires: BTreeMap::new(), ended: Vec::new(), next: 1, delay }
    }

    /// A new connection; numbers are never used twice.
    pub(crate) fn open(&mut self, node: NodeId, client: usize) -> u64 {
        let connection = self.next;
        self.next += 1;
        self.wires.insert(connection, Wire { node, client, up: VecDeque::new(), down: VecDeque::new() });
        connection
    }

    pub(crate) fn close(&mut self, connection: u64) {
        self.wires.remove(&connection);
    }

    /// The node at whose door it ends.
    pub(crate) fn node_of(&self, connection: u64) -> Option<NodeId> {
        self.wires.get(&connection).map(|wire| wire.node)
    }

    pub(crate) fn send_up(&mut self, connection: u64, now: u64, message: Up) {
        let delay = self.dice.below(self.delay + 1);
        if let Some(wire) = self.wires.get_mut(&connection) {
            let due = wire.up.back().map_or(0, |(due, _)| *due).max(now + delay);
            wire.up.push_back((due, message));
        }
    }

    pub(crate) fn send_down(&mut self, connection: u64, now: u64, message: Down) {
        let delay = self.dice.below(self.delay + 1);
        if let Some(wire) = self.wires.get_mut(&connection) {
            let due = wire.down.back().map_or(0, |(due, _)| *due).max(now + delay);
            wire.down.push_back((due, message));
        }
    }

    /// The next message of this connection that has arrived at the node, left where it is.
    pub(crate) fn peek_up(&self, connection: u64, now: u64) -> Option<&Up> {
        let (due, message) = self.wires.get(&connection)?.up.front()?;
        (*due <= now).then_some(message)
    }

    pub(crate) fn pop_up(&mut self, connection: u64) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.up.pop_front();
        }
    }

    pub(crate) fn pop_down(&mut self, connection: u64, now: u64) -> Option<Down> {
        let wire = self.wires.get_mut(&connection)?;
        wire.down.pop_front_if(|(due, _)| *due <= now).map(|(_, message)| message)
    }

    /// The connections that end at a node.
    pub(crate) fn of_node(&self, node: NodeId) -> Vec<u64> {
        self.wires.iter().filter(|(_, wire)| wire.node == node).map(|(&connection, _)| connection).collect()
    }

    /// A node's process is gone. Clients notice soon, late, or only by the silence.
    pub(crate) fn node_gone(&mut self, node: NodeId, now: u64) {
        for connection in self.of_node(node) {
            let Some(wire) = self.wires.remove(&connection) else { continue };
            if self.dice.chance(3, 4) {
                let due = now + self.dice.below(8 * self.delay + 1);
                self.ended.push((due, connection, wire.client));
            }
        }
    }

    /// A client whose connection ended without a word, and who notices now.
    pub(crate) fn pop_ended(&mut self, now: u64) -> Option<(u64, usize)> {
        let at = self.ended.iter().position(|(due, ..)| *due <= now)?;
        let (_, connection, client) = self.ended.remove(at);
        Some((connection, client))
    }
}
