//! The clients, one step at a time.

use super::World;
use crate::client::{self, Down, Link, Wish};

impl World {
    pub(super) fn step_client(&mut self, at: usize) -> Result<(), String> {
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
}
