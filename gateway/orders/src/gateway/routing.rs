//! Whom a committed event concerns. A report goes to the connection its session lives on, or waits in the engine's
//! state for a client that asks again; what the world may know goes to the feed.

use grid_engine::event::{LevelUpdate, Report};
use grid_engine::{AccountId, Event, Nanos, Seq, SessionId};
use grid_wire::{Level, gateway_reject};

use super::Desk;
use super::requests::reject;
use crate::reports;
use crate::venue::View;

/// Bytes that make a write of their own before the turn ends, so that there are never many small ones.
const EARLY: usize = 4 * 1024;

impl<V: View> Desk<V> {
    /// Gives one committed event to whom it concerns.
    pub(super) fn hear(&mut self, seq: Seq, at: Nanos, event: &Event) {
        // One that was made whole is told as it lies there.
        if let Event::Report { session, report } = event {
            self.report(*session, report);
        } else if let Some((session, report)) = event.report(seq, at) {
            self.report(session, &report);
        }
        match event {
            Event::Repeated { session, client_seq, report } => {
                self.repeat(*session, *client_seq, report.as_deref());
            }
            Event::SessionOpened { session, result } => self.session_opened(seq, *session, *result),
            Event::SessionEstablished { session, connection, result } => {
                self.session_established(seq, *session, *connection, *result);
            }
            Event::Traded(trade) => self.feed.market().trade(seq, at, *trade),
            Event::DirectoryChanged => self.audit = Some(seq),
            _ => {}
        }
        for (instrument, LevelUpdate { price, qty, orders, side }) in event.levels() {
            let level = Level { price: price.0, qty: qty.0, orders, side: reports::side(side) };
            self.feed.market().level(seq, at, instrument.0, level);
        }
    }

    fn report(&mut self, session: SessionId, report: &Report) {
        // Nobody is connected: the report waits in the engine's state.
        let Some(id) = self.sessions.connection(session) else {
            return;
        };
        if id != self.telling {
            let told = std::mem::replace(&mut self.telling, id);
            self.send_early(told);
        }
        let Some(client) = self.connections.get_mut(id) else {
            return;
        };
        let Some(live) = &mut client.live else { return };
        live.next_report = report.number + 1;
        live.report_log_seq = report.seq.0;
        client.urgent = true;
        reports::encode(report, false, client.out());
        if !std::mem::replace(&mut client.listed, true) {
            self.dirty.push(id);
        }
        if client.backlog() > self.config.out_max {
            self.drop_slow(id);
        }
    }

    /// Whoever has been told much reads it while the others are told. Not those who read public data too: that waits until every
    /// private report of the turn has left.
    fn send_early(&mut self, id: u64) {
        let Some(client) = self.connections.get(id) else { return };
        let reads_no_public = client.live.as_ref().is_some_and(|live| live.subscriptions.is_empty());
        if client.backlog() >= EARLY && reads_no_public && !client.is_stuck() {
            self.flush_one(id);
        }
    }

    fn repeat(&mut self, session: SessionId, client_seq: u64, report: Option<&Report>) {
        let Some(id) = self.sessions.connection(session) else {
            return;
        };
        let Some(client) = self.connections.get_mut(id) else {
            return;
        };
        match report {
            Some(report) => reports::encode(report, true, client.out()),
            None => reject(client, client_seq, 0, AccountId(0), gateway_reject::FORGOTTEN),
        }
        if !std::mem::replace(&mut client.listed, true) {
            self.dirty.push(id);
        }
        if client.backlog() > self.config.out_max {
            self.drop_slow(id);
        }
    }
}
