//! Reports a client missed, sent again beside the live ones. They are read from the replica a piece at a time, so
//! that one client's history holds up nobody's present.

use grid_engine::event::Report;
use grid_wire::{self as wire, RetransmitCode};

use super::Desk;
use crate::back_office::Job;
use crate::connection::{Connection, Retransmit};
use crate::reports;
use crate::venue::View;

/// Reports read from the replica at one time, so that live ones pass between.
const FETCH: u64 = 256;

impl<V: View> Desk<V> {
    /// Begins to send reports again, one range per session at a time, or says why not.
    pub(super) fn begin_retransmission(
        &mut self,
        id: u64,
        client: &mut Connection,
        request: wire::RetransmitRequest,
    ) {
        let wire::RetransmitRequest { from, count } = request;
        let Some(live) = &mut client.live else { return };
        let until = from.saturating_add(u64::from(count));
        let code = if live.retransmit.is_some() {
            Some(RetransmitCode::Busy)
        } else if count > wire::MAX_RETRANSMIT {
            Some(RetransmitCode::TooMany)
        } else if from == 0 || count == 0 || until > live.next_report {
            Some(RetransmitCode::OutOfRange)
        } else {
            None
        };
        if let Some(code) = code {
            return wire::RetransmitReject { from, count, code }.encode(client.out());
        }
        live.retransmit = Some(Retransmit {
            from,
            next: from,
            until,
            needs: live.report_log_seq,
            announced: false,
            asked: false,
        });
        self.retransmitting.insert(id);
    }

    /// Asks the back office for the next reports where the replica is far enough and the reader has room.
    pub(super) fn advance_retransmissions(&mut self) {
        if self.retransmitting.is_empty() {
            return;
        }
        let applied = self.view.applied().0;
        for id in &self.retransmitting {
            let Some(client) = self.connections.get_mut(*id) else {
                continue;
            };
            let room = client.backlog() < self.config.conflate_above;
            let Some(live) = &mut client.live else { continue };
            let session = live.session;
            let Some(work) = &mut live.retransmit else {
                continue;
            };
            if work.asked || applied < work.needs || !room {
                continue;
            }
            let until = work.until.min(work.next + FETCH);
            let job = Job::Fetch { connection: *id, session, from: work.next, until };
            work.asked = self.back_office.ask(job).is_ok();
        }
    }

    /// Sends what the back office found; a range that is no longer whole ends here.
    pub(super) fn retransmit(&mut self, id: u64, found: &[Report]) {
        let Some(client) = self.connections.get_mut(id) else {
            return;
        };
        let Some(live) = &mut client.live else { return };
        let Some(mut work) = live.retransmit.take() else {
            return;
        };
        let count = (work.until - work.from) as u32;
        work.asked = false;
        let complete = found.first().is_some_and(|report| report.number == work.next);
        let first = !work.announced;
        if complete {
            work.announced = true;
            work.next += found.len() as u64;
        }
        let done = !complete || work.next >= work.until;
        if !done {
            live.retransmit = Some(work);
        } else {
            self.retransmitting.remove(&id);
        }
        if !complete {
            let (from, count) = (work.next, (work.until - work.next) as u32);
            wire::RetransmitReject { from, count, code: RetransmitCode::NoLongerKept }.encode(client.out());
        } else if first {
            wire::Retransmission { from: work.from, count }.encode(client.out());
        }
        for report in found.iter().filter(|_| complete) {
            reports::encode(report, true, client.out());
        }
        if !std::mem::replace(&mut client.listed, true) {
            self.dirty.push(id);
        }
    }
}
