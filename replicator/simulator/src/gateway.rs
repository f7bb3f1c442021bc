//! A node's door for clients, as small as it can be: it submits what comes, answers only from the node's committed outputs, and only
//! while the node leads an epoch. What it knows of sessions is what the log told it.

use std::collections::BTreeMap;
use std::sync::Arc;

use grid_engine::command::{Command, Entry};
use grid_engine::event::Event;
use grid_engine::{AccountId, Engine, SessionId};
use grid_replicator::Replica;
use grid_sequencer::{LeaderWatch, NodeId, Output, OutputPoller, SubmitError, Submitter};

use crate::client::{Down, OPERATOR_KEY, Up};
use crate::wires::Wires;

/// Commands that the venue itself sends carry its own number.
const VENUE: SessionId = SessionId::VENUE;

pub(crate) struct Gateway {
    node: NodeId,
    submitter: Submitter<Engine>,
    outputs: OutputPoller<Engine>,
    leadership: LeaderWatch,
    replica: Replica<Engine>,
    epoch: Option<u64>,
    /// Which connection has which session, once the log has said so.
    live: BTreeMap<SessionId, u64>,
    /// Sessions of an earlier leader's clients, whose connections are gone with it.
    orphans: Vec<(SessionId, u64)>,
    genesis_sent: bool,
    batch: Vec<Arc<Output<Engine>>>,
}

impl Gateway {
    pub(crate) fn new(
        node: NodeId,
        submitter: Submitter<Engine>,
        outputs: OutputPoller<Engine>,
        leadership: LeaderWatch,
        replica: Replica<Engine>,
    ) -> Self {
        Self {
            node,
            submitter,
            outputs,
            leadership,
            replica,
            epoch: None,
            live: BTreeMap::new(),
            orphans: Vec::new(),
            genesis_sent: false,
            batch: Vec::new(),
        }
    }

    /// Does some of what there is to do; the outputs that it passed on are for the world to check.
    pub(crate) fn step(&mut self, wires: &mut Wires, now: u64, limit: usize) -> Vec<Arc<Output<Engine>>> {
        self.watch_epoch(wires, now);
        self.outputs.poll(limit, &mut self.batch);
        let outputs = std::mem::take(&mut self.batch);
        for output in &outputs {
            self.pass_on(output, wires, now);
        }
        self.forget_orphans();
        for connection in wires.of_node(self.node) {
            for _ in 0..limit {
                if !self.take_in(connection, wires, now) {
                    break;
                }
            }
        }
        outputs
    }

    fn watch_epoch(&mut self, wires: &mut Wires, now: u64) {
        let epoch = self.leadership.epoch();
        if epoch == self.epoch {
            return;
        }
        for connection in wires.of_node(self.node) {
            wires.send_down(connection, now, Down::NotLeader { hint: self.hint() });
        }
        self.live.clear();
        self.orphans.clear();
        self.genesis_sent = false;
        self.epoch = epoch;
        if epoch.is_some() {
            self.orphans = self.replica.read(|engine| {
                let sessions = engine.state().sessions.iter();
                sessions.filter_map(|(&id, session)| Some((id, session.connection?))).collect()
            });
        }
    }

    fn hint(&self) -> Option<NodeId> {
        self.leadership.leader().filter(|leader| *leader != self.node)
    }

    /// Starts the grace of clients that were connected elsewhere and may never come back.
    fn forget_orphans(&mut self) {
        while let Some(&(session, connection)) = self.orphans.last() {
            let lost = Entry::venue(Command::SessionLost { session, connection });
            if !self.live.contains_key(&session) && self.submitter.try_submit(lost).is_err() {
                return;
            }
            self.orphans.pop();
        }
    }

    /// Takes one message in; false if there is none, or no room.
    fn take_in(&mut self, connection: u64, wires: &mut Wires, now: u64) -> bool {
        let Some(message) = wires.peek_up(connection, now).cloned() else { return false };
        let taken = if self.epoch.is_none() || self.leadership.epoch() != self.epoch {
            Err(())
        } else {
            match message {
                Up::Establish { session, key, grace } => {
                    if !self.genesis_sent && self.replica.read(|engine| engine.state().accounts.is_empty()) {
                        self.genesis_sent = true;
                        let _ = self
                            .submitter
                            .try_submit(Entry::venue(Command::Genesis { operator_key: OPERATOR_KEY }));
                    }
                    let open = Command::OpenSession { session, key };
                    let establish =
                        Command::Establish { session, key, cancel_on_disconnect: grace, connection };
                    self.submit(open).and_then(|taken| if taken { self.submit(establish) } else { Ok(false) })
                }
                Up::Command(entry) => self.submit_entry(entry),
                Up::Missing { session, from, to } => {
                    Ok(self.repeat_reports(connection, session, from, to, wires, now))
                }
            }
        };
        match taken {
            Ok(true) => {
                wires.pop_up(connection);
                true
            }
            Ok(false) => false,
            Err(()) => {
                wires.pop_up(connection);
                wires.send_down(connection, now, Down::NotLeader { hint: self.hint() });
                false
            }
        }
    }

    fn submit(&mut self, command: Command) -> Result<bool, ()> {
        self.submit_entry(Entry { session: VENUE, client_seq: 0, account: AccountId::VENUE, command })
    }

    fn submit_entry(&mut self, entry: Entry) -> Result<bool, ()> {
        // Of what one epoch was handed none is in the log without what was handed in before it.
        match self.submitter.try_submit_within(entry, self.epoch.unwrap_or_default()) {
            Ok(()) => Ok(true),
            Err(SubmitError::Full(_)) => Ok(false),
            Err(_) => Err(()),
        }
    }

    /// Reports come again from the replica's state, once it has them.
    fn repeat_reports(
        &self,
        connection: u64,
        session: SessionId,
        from: u64,
        to: u64,
        wires: &mut Wires,
        now: u64,
    ) -> bool {
        let reports = self.replica.read(|engine| {
            let session = engine.state().sessions.get(&session)?;
            (session.next_report >= to).then(|| {
                let wanted = session.reports.iter();
                wanted.filter(|report| (from..to).contains(&report.number)).collect::<Vec<_>>()
            })
        });
        let Some(reports) = reports else { return false };
        for report in reports {
            wires.send_down(connection, now, Down::Report(report));
        }
        true
    }

    fn pass_on(&mut self, output: &Output<Engine>, wires: &mut Wires, now: u64) {
        for (seq, event) in output.numbered() {
            if let Some((session, report)) = event.report(seq, output.block.at())
                && let Some(&connection) = self.live.get(&session)
            {
                wires.send_down(connection, now, Down::Report(report));
            }
            match event {
                Event::SessionEstablished { session, connection, result } => {
                    // Every node hears of it; only the one at whose door it is answers.
                    if wires.node_of(*connection) != Some(self.node) {
                        continue;
                    }
                    let down = match result {
                        Ok(position) => {
                            self.live.insert(*session, *connection);
                            Down::Established {
                                last_client_seq: position.last_client_seq,
                                next_report: position.next_report,
                            }
                        }
                        Err(_) => Down::Refused,
                    };
                    wires.send_down(*connection, now, down);
                }
                Event::Repeated { session, client_seq, report } => {
                    if let Some(&connection) = self.live.get(session) {
                        let (client_seq, report) = (*client_seq, report.as_deref().copied());
                        wires.send_down(connection, now, Down::Repeated { client_seq, report });
                    }
                }
                _ => {}
            }
        }
    }

    /// Clients' connections that ended here; the log hears of it, if anybody still listens to this node.
    pub(crate) fn lost(&mut self, connection: u64) {
        let session = self.live.iter().find(|(_, live)| **live == connection).map(|(&session, _)| session);
        if let Some(session) = session {
            self.live.remove(&session);
            // If the ring is full the client's orders outlive its connection a little; it is coming back anyway.
            let _ = self.submit(Command::SessionLost { session, connection });
        }
    }
}
