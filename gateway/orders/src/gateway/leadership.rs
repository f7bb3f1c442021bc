//! Whether clients are served here, and what is done when that changes. An epoch is a term in which this node leads and
//! has applied an entry of its own: only then is what the state says of a session final. When it ends, every connection
//! ends with it; whatever was not answered is asked again at the next leader.
//!
//! A new leader inherits sessions that the state believes connected, to gateways that are gone. Each is reported lost
//! once, so that its grace runs in log time; a client that comes back within it keeps its orders. The engine takes such a
//! report for one connection number only, so one that crosses the client's return changes nothing.

use std::collections::VecDeque;

use grid_engine::{Command, Entry, Seq, SessionId};
use grid_wire::{Phase, TerminateCode};
use tracing::info;

use super::{Desk, Loop};
use crate::venue::{Line, LineError, View};

/// Sessions whose connection ended with an earlier leader, or with an earlier run of this node.
pub(super) enum Orphans {
    /// None, or all are reported.
    None,
    /// They are in the state as soon as the view has applied this.
    In(Seq),
    /// These, with their connection, are to be reported, some at each of these moments; loop nanoseconds.
    Found(VecDeque<(SessionId, u64)>, u64),
}

/// How long a batch of orphans waits for the one before it.
const ORPHANS_EVERY_NS: u64 = 20_000_000;

impl Orphans {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<L: Line, V: View> Loop<L, V> {
    /// Ends an epoch that is over. Gives the one that the line names now: it may be taken up once every event that was
    /// ready by now is heard.
    pub(super) fn heed_leadership(&mut self) -> Option<u64> {
        let named = self.line.epoch();
        if self.desk.epoch.is_some() && self.desk.epoch == named {
            return named;
        }
        self.desk.leader = self.line.leader_hint();
        if self.desk.epoch.is_some() {
            self.desk.end_epoch();
            self.full_since = None;
        }
        named
    }

    /// Reports some more of the sessions whose connection went with an earlier leader.
    pub(super) fn report_orphans(&mut self) {
        self.desk.find_orphans();
        let now = self.desk.now;
        let Orphans::Found(mut orphans, due) = std::mem::replace(&mut self.desk.orphans, Orphans::None)
        else {
            return;
        };
        let mut batch = if now < due { 0 } else { self.desk.config.orphans_at_once.max(1) };
        while batch > 0
            && let Some((session, connection)) = orphans.pop_front()
        {
            if self.desk.sessions.connection(session).is_some() {
                // Its client is back.
                continue;
            }
            batch -= 1;
            let lost = Entry::venue(Command::SessionLost { session, connection });
            if self.submit(lost) == Err(LineError::Full) {
                orphans.push_front((session, connection));
                break;
            }
        }
        if !orphans.is_empty() {
            self.desk.orphans = Orphans::Found(orphans, if now < due { due } else { now + ORPHANS_EVERY_NS });
        }
    }
}

impl<V: View> Desk<V> {
    /// Serves clients from now on, if the line names an epoch and this node is in none.
    pub(super) fn take_up(&mut self, named: Option<u64>) {
        if self.epoch.is_some() || named.is_none() {
            return;
        }
        info!(epoch = named, "clients are served here from now on");
        self.epoch = named;
        self.leader = None;
        // Establishments heard from here on without a client here are lost at once; those before are in the state.
        self.orphans = Orphans::In(self.heard);
    }

    /// Sends every client on. Nothing is owed to the log for them: their next leader reports who does not come.
    fn end_epoch(&mut self) {
        info!(epoch = self.epoch, leader = ?self.leader, "clients are no longer served here");
        self.epoch = None;
        let ids: Vec<u64> = self.connections.iter().map(|(id, _)| id).collect();
        for id in ids {
            if let Some(mut client) = self.connections.take(id) {
                if client.phase != Phase::Ended {
                    self.end(id, &mut client, TerminateCode::NotLeader, "this node does not lead any more");
                }
                self.keep_or_drop(id, client);
            }
        }
        self.owed.clear();
        self.opening.clear();
        self.verifying.clear();
        self.orphans = Orphans::None;
    }

    /// The session has lost this connection; only a leader can say so to the log.
    pub(super) fn owe_lost(&mut self, session: SessionId, connection: u64) {
        if self.epoch.is_some() {
            self.owed.push_back(Entry::venue(Command::SessionLost { session, connection }));
        }
    }

    /// Looks through the state for sessions that believe in a connection which is not here.
    fn find_orphans(&mut self) {
        let Orphans::In(seq) = self.orphans else { return };
        if self.view.applied() < seq {
            return;
        }
        let found: VecDeque<_> = self.view.read(|state| {
            let held = state.sessions.iter();
            let connected = held.filter_map(|(&session, held)| Some((session, held.connection?)));
            connected.filter(|(_, connection)| self.connections.get(*connection).is_none()).collect()
        });
        if !found.is_empty() {
            info!(sessions = found.len(), "sessions of an earlier leader wait for their clients");
        }
        self.orphans = Orphans::Found(found, 0);
    }
}
