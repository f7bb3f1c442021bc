//! Sessions: at most once in, nothing lost out.

use super::{Refusal, Step};
use crate::event::{Event, OrderReport, Report, ReportBody, SessionPosition, Subject, Told};
use crate::ids::{AccountId, Fingerprint, SessionId};
use crate::limits;
use crate::reject::Reject;
use crate::report::{Fill, Kind};
use crate::state::{Heading, Kept, QuoteGuard, Quotes, Session, SessionIndex, Timer};
use crate::units::Nanos;

impl Step<'_> {
    /// The answer of then to a number that came before, or that there is no such session: nothing is executed a second
    /// time (design §2.7).
    #[cold]
    pub(super) fn answer_from_state(&mut self, session: SessionId) {
        let client_seq = self.client_seq;
        let event = match self.state.sessions.known(session) {
            None => Event::SessionOpened { session, result: Err(Reject::UnknownSession) },
            Some(known) => {
                let report = if client_seq == 0 { None } else { known.reports.answer_to(client_seq) };
                Event::Repeated { session, client_seq, report: report.map(Box::new) }
            }
        };
        self.events.push(event);
    }

    /// The answer to the command in progress.
    pub(super) fn answer(&mut self, body: ReportBody) {
        self.tell(self.session, self.client_seq, self.account, body);
    }

    /// Something that a session did not ask for, and that is of no single order.
    pub(super) fn notify_session(&mut self, index: SessionIndex, body: ReportBody) {
        if let Some(account) = self.state.sessions.at(index).map(|session| session.account) {
            self.tell(index, 0, account, body);
        }
    }

    /// The answer to a refused command.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let Refusal { reject, label, order } = refusal;
        self.answer(ReportBody::Rejected { reject, label, order });
    }

    /// Numbers what a session is told of an order and keeps it; the order's event says so.
    ///
    /// The event and what is kept are written field by field from the same registers: what is copied from one to the other
    /// waits for the small writes of the first before it can be read in large pieces.
    #[inline(always)]
    pub(super) fn told(
        &mut self,
        index: SessionIndex,
        client_seq: u64,
        subject: &Subject,
        kind: Kind,
    ) -> Told {
        let heading = Heading { client_seq, seq: self.seq, at: self.at, account: subject.account };
        let Some((id, session)) = self.state.sessions.named_mut(index) else {
            return Told::NOBODY;
        };
        let number = session.next_report;
        session.next_report += 1;
        session.reports.keep_order(heading, subject, kind, &Fill::default());
        Told { session: id, number, client_seq }
    }

    /// Tells a session of an order by a report of its own: of a fill, or of what another session asked for.
    #[inline(never)]
    pub(super) fn notify_order(&mut self, index: SessionIndex, order: &Subject, kind: Kind, fill: &Fill) {
        let (seq, at, account) = (self.seq, self.at, order.account);
        let Some((session, known)) = self.state.sessions.named_mut(index) else {
            return;
        };
        let number = known.next_report;
        known.next_report += 1;
        known.reports.keep_order(Heading { client_seq: 0, seq, at, account }, order, kind, fill);
        self.happened(|| {
            let body = ReportBody::Order(OrderReport::new(order, kind, fill));
            Event::Report { session, report: Report { number, client_seq: 0, seq, at, account, body } }
        });
    }

    /// Numbers a report, keeps it with its session and tells it. Nobody listens to the venue's own orders (auto-buy):
    /// they have no session.
    fn tell(&mut self, index: SessionIndex, client_seq: u64, account: AccountId, body: ReportBody) {
        let (seq, at) = (self.seq, self.at);
        let Some((id, session)) = self.state.sessions.named_mut(index) else {
            return;
        };
        let number = session.next_report;
        session.next_report += 1;
        session.reports.keep(Heading { client_seq, seq, at, account }, &body);
        let report = Report { number, client_seq, seq, at, account, body };
        self.happened(|| Event::Report { session: id, report });
    }

    pub(super) fn open_session(&mut self, id: SessionId, key: Fingerprint) {
        let result = self.try_open_session(id, key);
        self.events.push(Event::SessionOpened { session: id, result });
    }

    fn try_open_session(&mut self, id: SessionId, key: Fingerprint) -> Result<AccountId, Reject> {
        let account = self.active_key_account(key)?;
        if id == SessionId::VENUE {
            return Err(Reject::NotPermitted);
        }
        if let Some(session) = self.state.sessions.get(&id) {
            // Negotiating again is harmless for its owner and nobody else's business.
            return if session.account == account { Ok(account) } else { Err(Reject::NotPermitted) };
        }
        if self.state.sessions.len() >= limits::SESSIONS {
            return Err(Reject::LimitReached);
        }
        let session = Session {
            account,
            last_client_seq: 0,
            next_report: 1,
            reports: Kept::default(),
            connection: None,
            cancel_on_disconnect: None,
            cancels_at: None,
            ends_at: None,
            quotes: Quotes::default(),
            guard: QuoteGuard::default(),
        };
        self.state.sessions.open(id, session).ok_or(Reject::LimitReached)?;
        self.schedule_end(id);
        Ok(account)
    }

    pub(super) fn establish(
        &mut self,
        id: SessionId,
        key: Fingerprint,
        grace: Option<Nanos>,
        connection: u64,
    ) {
        let result = self.try_establish(id, key, grace, connection);
        self.events.push(Event::SessionEstablished { session: id, connection, result });
    }

    fn try_establish(
        &mut self,
        id: SessionId,
        key: Fingerprint,
        grace: Option<Nanos>,
        connection: u64,
    ) -> Result<SessionPosition, Reject> {
        let account = self.active_key_account(key)?;
        let session = self.session_mut(id).ok_or(Reject::UnknownSession)?;
        if session.account != account {
            return Err(Reject::NotPermitted);
        }
        if grace.is_some_and(|grace| grace > limits::DISCONNECT_GRACE) {
            return Err(Reject::OutOfRange);
        }
        let (cancels_at, ends_at) = (session.cancels_at.take(), session.ends_at.take());
        session.connection = Some(connection);
        session.cancel_on_disconnect = grace;
        let position = SessionPosition {
            account,
            last_client_seq: session.last_client_seq,
            next_report: session.next_report,
        };
        if let Some(at) = cancels_at {
            self.state.timers.remove(&(at, Timer::Session(id)));
        }
        if let Some(at) = ends_at {
            self.state.timers.remove(&(at, Timer::SessionEnd(id)));
        }
        Ok(position)
    }

    /// A lost connection starts the grace; an older connection's end, arriving late, changes nothing.
    pub(super) fn session_lost(&mut self, id: SessionId, connection: u64) {
        let at = self.at;
        let Some(session) = self.session_mut(id) else {
            return;
        };
        if session.connection != Some(connection) {
            return;
        }
        session.connection = None;
        match session.cancel_on_disconnect {
            Some(Nanos::ZERO) => self.cancel_disconnected(id),
            Some(grace) => {
                let due = at.after(grace);
                session.cancels_at = Some(due);
                self.state.timers.insert((due, Timer::Session(id)));
            }
            None => {}
        }
        self.schedule_end(id);
    }

    /// From now on the session lasts only so long without a connection.
    fn schedule_end(&mut self, id: SessionId) {
        let due = self.at.after(limits::SESSION_KEPT);
        if let Some(session) = self.session_mut(id) {
            session.ends_at = Some(due);
            self.state.timers.insert((due, Timer::SessionEnd(id)));
        }
    }

    /// Nobody has come back for so long that the numbers are forgotten; its orders stay what they are.
    pub(super) fn forget_session(&mut self, id: SessionId) {
        if let Some(session) = self.state.sessions.forget(id)
            && let Some(at) = session.cancels_at
        {
            self.state.timers.remove(&(at, Timer::Session(id)));
        }
    }

    /// The grace is over and nobody came back.
    pub(super) fn cancel_disconnected(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        session.cancels_at = None;
        let account = session.account;
        self.cancel_orders_of_session(account, id);
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let index = self.state.sessions.find(id)?;
        self.state.sessions.at_mut(index)
    }

    fn active_key_account(&self, key: Fingerprint) -> Result<AccountId, Reject> {
        let key = self.state.signing_keys.get(&key).filter(|key| key.active).ok_or(Reject::UnknownKey)?;
        Ok(key.account)
    }
}
