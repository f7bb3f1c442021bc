//! How a client becomes a session, and stops being allowed to be one. A login is judged here, its signature in the
//! back office, its session by the log; only then does the connection go live. Each step can say no, in the words
//! of the login it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use grid_engine::event::SessionPosition;
use grid_engine::{AccountId, Command, Entry, Fingerprint, Nanos, Reject, Seq, SessionId, limits};
use grid_wire::{
    self as wire, EstablishmentCode, IdempotentFlow, Liveness, NegotiationCode, Phase, TerminateCode,
};

use super::{Desk, Loop, utc_now};
use crate::back_office::Job;
use crate::config::Config;
use crate::connection::{Connection, Live, Login};
use crate::throttle::Bucket;
use crate::venue::{Line, LineError, View};

/// Why a login is refused; each kind of login has its own code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotLeader,
    Unspecified,
    Credentials,
    Flow,
    DuplicateId,
    Busy,
    SchemaVersion,
    TooManySessions,
    Unnegotiated,
    KeepAlive,
    NextSeqNo,
}

impl<V: View> Desk<V> {
    /// Judges what can be judged here, and queues the signature for the back office.
    pub(super) fn begin_login(&mut self, id: u64, client: &mut Connection, login: Login) {
        // Only a leader answers: what the log says of a session is final for it.
        let refusal = match self.epoch {
            Some(_) => self.judge_login(&login),
            None => Some(Refusal::NotLeader),
        };
        let transcript = match &login {
            Login::Negotiate(m) => wire::negotiate_transcript(&client.server_nonce, m),
            Login::Establish(m) => wire::establish_transcript(&client.server_nonce, m),
        };
        let signature = match &login {
            Login::Negotiate(m) => m.signature.0,
            Login::Establish(m) => m.signature.0,
        };
        let fingerprint = login.fingerprint();
        if client.live.is_some() {
            // Already live here; the session goes on as it is.
            let session = login.session().0;
            let code = EstablishmentCode::AlreadyEstablished;
            wire::EstablishmentReject { session, code, ..wire::EstablishmentReject::default() }
                .encode(client.out());
            return;
        }
        client.login = Some(login);
        client.phase = Phase::LoggingIn;
        if let Some(refusal) = refusal {
            return self.refuse_login(id, client, refusal, 0);
        }
        if self.verifying.len() >= self.config.logins_pending_max {
            return self.refuse_login(id, client, Refusal::Busy, 0);
        }
        // A key that was acknowledged a moment ago must open the door, so the replica has to have passed all that
        // anybody was told.
        let job = Job::Verify { connection: id, fingerprint, transcript, signature };
        self.verifying.push_back((self.heard, job));
    }

    fn judge_login(&self, login: &Login) -> Option<Refusal> {
        let (session, version, timestamp) = match login {
            Login::Negotiate(m) => (m.session, m.schema_version, m.timestamp),
            Login::Establish(m) => (m.session, m.schema_version, m.timestamp),
        };
        if version == 0 || version > wire::SCHEMA_VERSION {
            return Some(Refusal::SchemaVersion);
        }
        if session == SessionId::VENUE.0 {
            return Some(Refusal::DuplicateId);
        }
        if !wire::is_fresh(timestamp, utc_now()) {
            return Some(Refusal::Credentials);
        }
        match login {
            Login::Negotiate(m) => {
                let served =
                    m.client_flow == wire::Flow::Idempotent && m.server_flow == wire::Flow::Recoverable;
                (!served).then_some(Refusal::Flow)
            }
            Login::Establish(m) => {
                let keep_alive = Duration::from_millis(u64::from(m.keep_alive_ms));
                let served =
                    self.config.keep_alive_min <= keep_alive && keep_alive <= self.config.keep_alive_max;
                let grace = Nanos(u64::from(m.grace_ms) * 1_000_000);
                match (served, grace <= limits::DISCONNECT_GRACE) {
                    (false, _) => Some(Refusal::KeepAlive),
                    (_, false) => Some(Refusal::Unspecified),
                    (true, true) => None,
                }
            }
        }
    }

    /// Hands logins to the back office once the replica is far enough.
    pub(super) fn advance_logins(&mut self) {
        if self.verifying.is_empty() {
            return;
        }
        let applied = self.view.applied();
        while self.verifying.front().is_some_and(|(needs, _)| *needs <= applied)
            && let Some((needs, job)) = self.verifying.pop_front()
        {
            if let Err(job) = self.back_office.ask(job) {
                self.verifying.push_front((needs, job));
                return;
            }
        }
    }
}

impl<L: Line, V: View> Loop<L, V> {
    /// The back office has looked at the signature: a genuine login goes on to the log.
    pub(super) fn go_on_with_login(&mut self, id: u64, client: &mut Connection, genuine: bool) {
        let Some(login) = &client.login else { return };
        if !genuine {
            return self.desk.refuse_login(id, client, Refusal::Credentials, 0);
        }
        let (session, key) = (login.session(), login.fingerprint());
        let command = match login {
            Login::Negotiate(_) => Command::OpenSession { session, key },
            Login::Establish(m) => {
                let grace = Nanos(u64::from(m.grace_ms) * 1_000_000);
                let cancels = m.cancel_policy == wire::CancelPolicy::CancelAfterGrace;
                Command::Establish {
                    session,
                    key,
                    cancel_on_disconnect: cancels.then_some(grace),
                    connection: id,
                }
            }
        };
        let negotiates = matches!(login, Login::Negotiate(_));
        // Owed commands go first: a lost connection must not be overtaken by its successor. A login waits for room
        // among them, as long as its timeout lets it.
        let entry = Entry::venue(command);
        if !self.desk.owed.is_empty() {
            self.desk.owed.push_back(entry);
        } else if let Err(error) = self.submit(entry.clone()) {
            let refusal = match error {
                LineError::Full => None,
                LineError::NotLeader => Some(Refusal::NotLeader),
                LineError::TooLarge | LineError::Closed => Some(Refusal::Busy),
            };
            if let Some(refusal) = refusal {
                return self.desk.refuse_login(id, client, refusal, 0);
            }
            self.desk.owed.push_back(entry);
        }
        if negotiates {
            self.desk.opening.entry(session).or_default().push_back(id);
        }
    }
}

impl<V: View> Desk<V> {
    /// The log answered a negotiation.
    pub(super) fn session_opened(&mut self, seq: Seq, session: SessionId, result: Result<AccountId, Reject>) {
        let Some(waiting) = self.opening.get_mut(&session) else {
            return;
        };
        let id = waiting.pop_front();
        if waiting.is_empty() {
            self.opening.remove(&session);
        }
        let Some(id) = id else { return };
        let Some(mut client) = self.connections.take(id) else {
            return;
        };
        if matches!(client.login, Some(Login::Negotiate(_))) {
            match result {
                Ok(account) => {
                    client.login = None;
                    client.phase = Phase::Negotiated;
                    self.serve_again(id, &mut client);
                    wire::NegotiationResponse { session: session.0, log_seq: seq.0, account: account.0 }
                        .encode(client.out());
                }
                Err(reject) => {
                    let refusal = match reject {
                        Reject::UnknownKey => Refusal::Credentials,
                        Reject::NotPermitted => Refusal::DuplicateId,
                        Reject::LimitReached => Refusal::TooManySessions,
                        _ => Refusal::Unspecified,
                    };
                    self.refuse_login(id, &mut client, refusal, reject.code());
                }
            }
        }
        self.keep_or_drop(id, client);
    }

    /// The log answered an establishment; the older connection of that session, if any, gives way.
    pub(super) fn session_established(
        &mut self,
        seq: Seq,
        session: SessionId,
        id: u64,
        result: Result<SessionPosition, Reject>,
    ) {
        if result.is_ok()
            && let Some(older) = self.sessions.end(session)
            && let Some(mut client) = self.connections.take(older)
        {
            self.end(
                older,
                &mut client,
                TerminateCode::Superseded,
                "a newer connection took the session over",
            );
            self.keep_or_drop(older, client);
        }
        let asks = |login: &mut Login| matches!(login, Login::Establish(m) if m.session == session.0);
        let waiting = self.connections.get_mut(id).and_then(|client| client.login.take_if(asks));
        let Some(Login::Establish(login)) = waiting else {
            // It went away, or was sent away, while the log decided; or it is another gateway's.
            if result.is_ok() {
                self.owe_lost(session, id);
            }
            return;
        };
        let Some(mut client) = self.connections.take(id) else {
            return;
        };
        match result {
            Ok(position) if login.next_seq > position.next_report => {
                client.login = Some(Login::Establish(login));
                self.refuse_login(id, &mut client, Refusal::NextSeqNo, 0);
                self.owe_lost(session, id);
            }
            Ok(position) => self.go_live(id, &mut client, seq, session, &login, position),
            Err(reject) => {
                let refusal = match reject {
                    Reject::UnknownSession => Refusal::Unnegotiated,
                    Reject::UnknownKey | Reject::NotPermitted => Refusal::Credentials,
                    _ => Refusal::Unspecified,
                };
                client.login = Some(Login::Establish(login));
                self.refuse_login(id, &mut client, refusal, reject.code());
            }
        }
        self.keep_or_drop(id, client);
    }

    fn go_live(
        &mut self,
        id: u64,
        client: &mut Connection,
        seq: Seq,
        session: SessionId,
        login: &wire::Establish,
        position: SessionPosition,
    ) {
        let Config { requests, cancels, refusals, frame_max, .. } = self.config;
        client.phase = Phase::Established;
        client.deadline = None;
        client.liveness = Liveness::new(self.now, login.keep_alive_ms, login.keep_alive_ms);
        client.live = Some(Live {
            session,
            account: position.account,
            key: Fingerprint(login.fingerprint),
            flow: IdempotentFlow::after(position.last_client_seq),
            next_report: position.next_report,
            report_log_seq: seq.0,
            requests: Bucket::new(requests, self.now),
            cancels: Bucket::new(cancels, self.now),
            refusals: Bucket::new(refusals, self.now),
            retransmit: None,
            subscriptions: BTreeMap::new(),
        });
        wire::EstablishmentAck {
            session: session.0,
            next_seq: position.next_report,
            oldest_seq: position.next_report.saturating_sub(limits::REPORTS_KEPT as u64).max(1),
            last_client_seq: position.last_client_seq,
            log_seq: seq.0,
            account: position.account.0,
            keep_alive_ms: login.keep_alive_ms,
            requests_per_second: requests.per_second,
            requests_burst: requests.burst,
            cancels_per_second: cancels.per_second,
            cancels_burst: cancels.burst,
            max_frame: frame_max as u32,
        }
        .encode(client.out());
        self.sessions.begin(session, id);
        self.serve_again(id, client);
    }

    fn refuse_login(&mut self, id: u64, client: &mut Connection, refusal: Refusal, engine_code: u16) {
        let Some(login) = client.login.take() else { return };
        let session = login.session().0;
        let leader = self.leader.filter(|_| refusal == Refusal::NotLeader);
        let (leader_ip, leader_port) = wire::leader_fields(leader);
        match login {
            Login::Negotiate(_) => {
                let code = match refusal {
                    Refusal::Credentials => NegotiationCode::Credentials,
                    Refusal::Flow => NegotiationCode::FlowTypeNotSupported,
                    Refusal::DuplicateId => NegotiationCode::DuplicateId,
                    Refusal::Busy => NegotiationCode::Busy,
                    Refusal::SchemaVersion => NegotiationCode::SchemaVersion,
                    Refusal::TooManySessions => NegotiationCode::TooManySessions,
                    Refusal::NotLeader => NegotiationCode::NotLeader,
                    Refusal::Unspecified
                    | Refusal::Unnegotiated
                    | Refusal::KeepAlive
                    | Refusal::NextSeqNo => NegotiationCode::Unspecified,
                };
                let reject = wire::NegotiationReject { session, engine_code, code, ..Default::default() };
                wire::NegotiationReject { leader_ip, leader_port, ..reject }.encode(client.out());
            }
            Login::Establish(_) => {
                let code = match refusal {
                    Refusal::Credentials => EstablishmentCode::Credentials,
                    Refusal::NotLeader => EstablishmentCode::NotLeader,
                    Refusal::Busy => EstablishmentCode::Busy,
                    Refusal::SchemaVersion => EstablishmentCode::SchemaVersion,
                    Refusal::Unnegotiated | Refusal::DuplicateId => EstablishmentCode::Unnegotiated,
                    Refusal::KeepAlive => EstablishmentCode::KeepAliveInterval,
                    Refusal::NextSeqNo => EstablishmentCode::NextSeqNo,
                    Refusal::Unspecified | Refusal::Flow | Refusal::TooManySessions => {
                        EstablishmentCode::Unspecified
                    }
                };
                let reject = wire::EstablishmentReject { session, engine_code, code, ..Default::default() };
                wire::EstablishmentReject { leader_ip, leader_port, ..reject }.encode(client.out());
            }
        }
        client.phase = Phase::Greeted;
        self.serve_again(id, client);
        if refusal == Refusal::NotLeader {
            // No fault of the client's.
            return;
        }
        client.refusals += 1;
        if client.refusals >= self.config.login_refusals_max {
            self.end(id, client, TerminateCode::Unauthenticated, "too many refused logins");
        }
    }

    /// Has live sessions' keys looked at once the replica knows of the change.
    pub(super) fn advance_audit(&mut self) {
        if self.audit.is_some_and(|seq| self.view.applied() >= seq) {
            let live =
                self.connections.iter().filter_map(|(id, client)| Some((id, client.live.as_ref()?.key)));
            if self.back_office.ask(Job::Audit { keys: live.collect() }).is_ok() {
                self.audit = None;
            }
        }
    }
}
