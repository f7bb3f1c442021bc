//! The client's side of a session, without sockets and without a clock: messages and time come in, frames and
//! answers go out. What must hold: a request gets its number once and keeps it; a caller is answered once; after a
//! reconnection everything unanswered is sent again, in order, before anything new.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use ed25519_dalek::{Signer, SigningKey};
use grid_wire::{
    Beat, CancelPolicy, Establish, EstablishmentAck, EstablishmentCode, EstablishmentReject, Flow, Hello,
    Liveness, MarketDataSubscribe, MarketDataUnsubscribe, Message, Negotiate, NegotiationCode,
    RetransmitCode, SCHEMA_VERSION, Sequence, Signature, Terminate, TerminateCode, establish_transcript,
    leader_address, negotiate_transcript,
};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use crate::error::{ClientError, Refusal};
use crate::flow::ReportFlow;
use crate::message::{Cost, Event, Report, Request};
use crate::pace::Bucket;
use crate::quotes::Refusals;
use crate::route::Parting;
use crate::{Config, Reply};

/// No request is added to this many bytes that the socket has not taken.
const OUT_BYTES_MAX: usize = 256 * 1024;

/// What the socket's owner must do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing.
    Continue,
    /// Leave this connection and go on elsewhere.
    Leave(Parting),
    /// Stop for good.
    Stop(ClientError),
}

/// A moment on both clocks, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The steady clock.
    pub(crate) steady: u64,
    /// UTC.
    pub(crate) wall: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    AwaitingHello,
    Negotiating,
    Establishing,
    Live,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    reply: Reply,
    deadline: u64,
}

#[derive(Debug)]
struct Sent {
    frame: Vec<u8>,
    reply: Reply,
    deadline: u64,
    cost: Cost,
}

#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    key: SigningKey,
    events: broadcast::Sender<Event>,
    account: Arc<OnceLock<u32>>,
    phase: Phase,
    address: Option<SocketAddr>,
    negotiated: bool,
    server_nonce: [u8; 32],
    /// What this node and we both speak: nodes of one cluster may be of different versions while it is upgraded.
    schema_version: u16,
    /// The next request's number; 0 until the venue has said where the session stands.
    next_seq: u64,
    flow: Option<ReportFlow>,
    refusals: Refusals,
    liveness: Option<Liveness>,
    requests: Bucket,
    cancels: Bucket,
    paced_until: Option<u64>,
    waiting: VecDeque<Waiting>,
    in_flight: BTreeMap<u64, Sent>,
    resend: VecDeque<u64>,
    subscriptions: BTreeMap<u16, u16>,
    market_requests: u64,
}

impl Core {
    pub(crate) fn new(config: Config, events: broadcast::Sender<Event>, account: Arc<OnceLock<u32>>) -> Self {
        Self {
            key: SigningKey::from_bytes(&config.key_seed),
            config,
            events,
            account,
            phase: Phase::Offline,
            address: None,
            negotiated: false,
            server_nonce: [0; 32],
            schema_version: SCHEMA_VERSION,
            next_seq: 0,
            flow: None,
            refusals: Refusals::default(),
            liveness: None,
            requests: Bucket::new(0, 0),
            cancels: Bucket::new(0, 0),
            paced_until: None,
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            resend: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            market_requests: 0,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether another request may be submitted now.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < self.config.window
    }

    /// Requests that were sent and are not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn submit(&mut self, request: Request, reply: Reply, deadline: u64) {
        self.waiting.push_back(Waiting { request, reply, deadline });
    }

    pub(crate) fn subscribe(&mut self, instrument: u16, depth: u16, out: &mut Vec<u8>) {
        self.subscriptions.insert(instrument, depth);
        if self.is_live() {
            self.send_subscribe(instrument, depth, out);
        }
    }

    pub(crate) fn unsubscribe(&mut self, instrument: u16, out: &mut Vec<u8>) {
        if self.subscriptions.remove(&instrument).is_some() && self.is_live() {
            self.market_requests += 1;
            MarketDataUnsubscribe { request_id: self.market_requests, instrument }.encode(out);
        }
    }

    /// A connection is open; the venue speaks first.
    pub(crate) fn connected(&mut self, address: SocketAddr) {
        self.phase = Phase::AwaitingHello;
        self.address = Some(address);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        if self.is_live() {
            let _ = self.events.send(Event::Disconnected);
        }
        self.phase = Phase::Offline;
        self.liveness = None;
        self.paced_until = None;
        self.resend.clear();
    }

    /// Answers everybody; nothing is sent any more.
    pub(crate) fn stop(&mut self, error: &ClientError) {
        let _ = self.events.send(Event::Stopped(error.clone()));
        for waiting in self.waiting.drain(..) {
            let _ = waiting.reply.send(Err(error.clone()));
        }
        for (_, sent) in std::mem::take(&mut self.in_flight) {
            let _ = sent.reply.send(Err(error.clone()));
        }
    }

    /// The last words of a connection.
    pub(crate) fn farewell(&self, out: &mut Vec<u8>) {
        if self.phase != Phase::Offline {
            Terminate { code: TerminateCode::Finished, ..Terminate::default() }.encode(b"", out);
        }
    }

    /// Takes in a message of the venue.
    pub(crate) fn receive(&mut self, now: Now, message: &Message<'_>, out: &mut Vec<u8>) -> Verdict {
        if let Some(liveness) = &mut self.liveness {
            liveness.heard(now.steady);
        }
        match (self.phase, message) {
            (_, Message::Terminate(end, _)) => terminated(end),
            (Phase::AwaitingHello, Message::Hello(hello)) => {
                self.log_in(now, hello, out);
                Verdict::Continue
            }
            (Phase::Negotiating, Message::NegotiationResponse(_)) => {
                self.negotiated = true;
                self.establish(now, out);
                Verdict::Continue
            }
            (Phase::Negotiating, Message::NegotiationReject(reject)) => match reject.code {
                NegotiationCode::NotLeader => not_leader(reject.leader_ip, reject.leader_port),
                NegotiationCode::Busy | NegotiationCode::Unspecified => Verdict::Leave(Parting::Lost),
                code => {
                    let refusal = Refusal::Negotiation { code, engine_code: reject.engine_code };
                    Verdict::Stop(ClientError::Refused(refusal))
                }
            },
            (Phase::Establishing, Message::EstablishmentAck(ack)) => {
                self.established(now, ack, out);
                Verdict::Continue
            }
            (Phase::Establishing, Message::EstablishmentReject(reject)) => self.not_established(reject),
            (Phase::Live, message) => {
                self.live_message(message, out);
                Verdict::Continue
            }
            // Anything else is out of turn: this is not a venue that we can speak with.
            (phase, message) => {
                tracing::warn!(?phase, message = message.name(), "the venue spoke out of turn");
                Verdict::Leave(Parting::Lost)
            }
        }
    }

    fn log_in(&mut self, now: Now, hello: &Hello, out: &mut Vec<u8>) {
        self.server_nonce = hello.server_nonce;
        self.schema_version = hello.schema_version.clamp(1, SCHEMA_VERSION);
        if self.negotiated {
            return self.establish(now, out);
        }
        self.phase = Phase::Negotiating;
        let mut message = Negotiate {
            session: self.config.session,
            client_nonce: rand::random(),
            fingerprint: self.fingerprint(),
            timestamp: now.wall,
            schema_version: self.schema_version,
            client_flow: Flow::Idempotent,
            server_flow: Flow::Recoverable,
            ..Negotiate::default()
        };
        message.signature = self.sign(&negotiate_transcript(&self.server_nonce, &message));
        message.encode(out);
    }

    fn establish(&mut self, now: Now, out: &mut Vec<u8>) {
        self.phase = Phase::Establishing;
        let millis = |d: std::time::Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        let mut message = Establish {
            session: self.config.session,
            client_nonce: rand::random(),
            fingerprint: self.fingerprint(),
            timestamp: now.wall,
            next_seq: self.flow.as_ref().map_or(1, ReportFlow::wanted),
            keep_alive_ms: millis(self.config.keep_alive),
            grace_ms: self.config.cancel_on_disconnect.map_or(0, millis),
            schema_version: self.schema_version,
            cancel_policy: match self.config.cancel_on_disconnect {
                Some(_) => CancelPolicy::CancelAfterGrace,
                None => CancelPolicy::Keep,
            },
            ..Establish::default()
        };
        message.signature = self.sign(&establish_transcript(&self.server_nonce, &message));
        message.encode(out);
    }

    fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.key.verifying_key().as_bytes()).into()
    }

    fn sign(&self, transcript: &[u8]) -> Signature {
        Signature(self.key.sign(transcript).to_bytes())
    }

    fn established(&mut self, now: Now, ack: &EstablishmentAck, out: &mut Vec<u8>) {
        self.phase = Phase::Live;
        let _ = self.account.set(ack.account);
        let own_ms = u32::try_from(self.config.keep_alive.as_millis()).unwrap_or(u32::MAX);
        // A node that is silent for longer than it promised is given up after three intervals, or sooner where the
        // configuration says so; never before it was late at all.
        let silence_ms = u32::try_from(self.config.silence.as_millis()).unwrap_or(u32::MAX);
        let peer_ms = ack.keep_alive_ms.min((silence_ms / 3).max(ack.keep_alive_ms / 2));
        self.liveness = Some(Liveness::new(now.steady, own_ms, peer_ms));
        self.requests = Bucket::new(ack.requests_per_second, ack.requests_burst);
        self.cancels = Bucket::new(ack.cancels_per_second, ack.cancels_burst);
        // Reports from before this process are not its business; those that it missed since are.
        let flow = self.flow.get_or_insert_with(|| ReportFlow::from(ack.next_seq));
        flow.reconnected();
        flow.announced(ack.next_seq);
        if let Some((from, until)) = flow.give_up_before(ack.oldest_seq) {
            let _ = self.events.send(Event::ReportsLost { from, until });
        }
        self.hand_on_quotes();
        self.next_seq = self.next_seq.max(ack.last_client_seq + 1);
        self.resend = self.in_flight.keys().copied().collect();
        if let Some(address) = self.address {
            let _ = self.events.send(Event::Connected { address, last_client_seq: ack.last_client_seq });
        }
        for (instrument, depth) in self.subscriptions.clone() {
            self.send_subscribe(instrument, depth, out);
        }
        self.ask_for_missing(out);
    }

    fn not_established(&mut self, reject: &EstablishmentReject) -> Verdict {
        match reject.code {
            EstablishmentCode::NotLeader => not_leader(reject.leader_ip, reject.leader_port),
            EstablishmentCode::Unnegotiated => {
                self.negotiated = false;
                Verdict::Leave(Parting::Lost)
            }
            // The venue never sent what we want next: take its word for where the reports stand.
            EstablishmentCode::NextSeqNo => {
                self.flow = None;
                Verdict::Leave(Parting::Lost)
            }
            EstablishmentCode::Busy
            | EstablishmentCode::AlreadyEstablished
            | EstablishmentCode::Unspecified => Verdict::Leave(Parting::Lost),
            code => {
                let refusal = Refusal::Establishment { code, engine_code: reject.engine_code };
                Verdict::Stop(ClientError::Refused(refusal))
            }
        }
    }

    fn live_message(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        if let Some(report) = Report::from_message(message) {
            self.report(report);
            self.ask_for_missing(out);
            return;
        }
        match message {
            Message::Throttled(m) => {
                let error = ClientError::Throttled { retry_after_ms: m.retry_after_ms };
                self.answer(m.client_seq, Err(error));
            }
            Message::NotApplied(m) => {
                let until = m.from.saturating_add(m.count);
                let lost: Vec<u64> = self.in_flight.range(m.from..until).map(|(seq, _)| *seq).collect();
                for seq in lost {
                    self.answer(seq, Err(ClientError::NotApplied));
                }
            }
            Message::Sequence(m) => {
                if let Some(flow) = &mut self.flow {
                    flow.announced(m.next_seq);
                }
                self.ask_for_missing(out);
            }
            Message::RetransmitReject(m) => {
                if let Some(flow) = &mut self.flow {
                    // Busy: our request crossed another one, and the next report or heartbeat asks again.
                    let beyond =
                        if m.code == RetransmitCode::Busy { m.from } else { m.from + u64::from(m.count) };
                    if let Some((from, until)) = flow.give_up_before(beyond) {
                        let _ = self.events.send(Event::ReportsLost { from, until });
                    }
                }
                self.hand_on_quotes();
            }
            Message::BookSnapshot(m, levels) => self.tell(Event::Snapshot(*m, levels.iter().collect())),
            Message::BookIncrement(m, changes) => self.tell(Event::Increment(*m, changes.iter().collect())),
            Message::TradePrint(m) => self.tell(Event::Trade(*m)),
            Message::MarketDataReject(m) => self.tell(Event::MarketDataReject(*m)),
            Message::Retransmission(_) | Message::MarketDataUnsubscribed(_) => {}
            other => tracing::warn!(message = other.name(), "the venue sent what it should not"),
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Hands a report on if its number is new, and answers the request that it names if that still waits.
    fn report(&mut self, report: Report) {
        let number = report.session_seq();
        let new = number == 0 || self.flow.as_mut().is_none_or(|flow| flow.arrive(number));
        match report {
            // Told, and given, together with its refusals.
            Report::MassQuote(answer, _) => {
                self.refusals.answered(answer, new);
                return self.hand_on_quotes();
            }
            Report::QuoteRefused(refusal) if new => self.refusals.refused(refusal),
            _ => {}
        }
        if new {
            self.tell(Event::Report(report.clone()));
        }
        let client_seq = report.client_seq();
        let answer = match report {
            Report::Reject(reject) if reject.code == grid_wire::gateway_reject::FORGOTTEN => {
                Err(ClientError::AnswerLost)
            }
            Report::Reject(reject) => Err(ClientError::Rejected(reject)),
            report => Ok(report),
        };
        self.answer(client_seq, answer);
        self.hand_on_quotes();
    }

    /// Answers mass quotes of which everything is known by now.
    fn hand_on_quotes(&mut self) {
        if !self.refusals.holds() {
            return;
        }
        let wanted = self.flow.as_ref().map_or(u64::MAX, ReportFlow::wanted);
        while let Some(whole) = self.refusals.next(wanted) {
            let client_seq = whole.answer.client_seq;
            let report = Report::MassQuote(whole.answer, whole.refusals);
            if whole.new {
                self.tell(Event::Report(report.clone()));
            }
            self.answer(client_seq, Ok(report));
        }
    }

    fn answer(&mut self, client_seq: u64, answer: Result<Report, ClientError>) {
        if let Some(sent) = self.in_flight.remove(&client_seq) {
            // A caller that went away does not want it.
            let _ = sent.reply.send(answer);
        }
    }

    fn ask_for_missing(&mut self, out: &mut Vec<u8>) {
        if let Some(request) = self.flow.as_mut().and_then(ReportFlow::request) {
            request.encode(out);
        }
    }

    fn send_subscribe(&mut self, instrument: u16, depth: u16, out: &mut Vec<u8>) {
        self.market_requests += 1;
        MarketDataSubscribe { request_id: self.market_requests, instrument, depth }.encode(out);
    }

    /// Moves requests to the socket's buffer: first those to be sent again, then new ones, as far as window, pace
    /// and buffer allow.
    pub(crate) fn pump(&mut self, now: Now, out: &mut Vec<u8>) {
        self.paced_until = None;
        if !self.is_live() {
            return;
        }
        let before = out.len();
        while out.len() < OUT_BYTES_MAX && self.paced_until.is_none() {
            if let Some(seq) = self.resend.front().copied() {
                let cost = self.in_flight.get(&seq).map(|sent| sent.cost);
                if let Some(cost) = cost {
                    if !self.may_send(cost, now) {
                        break;
                    }
                    out.extend_from_slice(&self.in_flight[&seq].frame);
                }
                self.resend.pop_front();
            } else if self.in_flight.len() < self.config.window {
                let Some(request) = self.waiting.front().map(|w| &w.request) else {
                    break;
                };
                if request.since() > self.schema_version {
                    if let Some(waiting) = self.waiting.pop_front() {
                        let _ =
                            waiting.reply.send(Err(ClientError::NotServed { version: self.schema_version }));
                    }
                    continue;
                }
                let cost = request.cost();
                if !self.may_send(cost, now) {
                    break;
                }
                self.send_new(now, cost, out);
            } else {
                break;
            }
        }
        if let Some(liveness) = self.liveness.as_mut().filter(|_| out.len() > before) {
            liveness.sent(now.steady);
        }
    }

    fn may_send(&mut self, cost: Cost, now: Now) -> bool {
        let taken = match cost {
            Cost::Cancel => self.cancels.take(1, now.steady),
            Cost::Requests(count) => self.requests.take(count, now.steady),
        };
        match taken {
            Ok(()) => true,
            Err(until) => {
                self.paced_until = Some(until);
                false
            }
        }
    }

    fn send_new(&mut self, now: Now, cost: Cost, out: &mut Vec<u8>) {
        let Some(waiting) = self.waiting.pop_front() else {
            return;
        };
        let seq = self.next_seq;
        self.next_seq += 1;
        let frame = waiting.request.encode(seq, now.wall);
        out.extend_from_slice(&frame);
        self.in_flight.insert(seq, Sent { frame, reply: waiting.reply, deadline: waiting.deadline, cost });
    }

    /// Does what time asks for: heartbeats, and answers for those who waited long enough.
    pub(crate) fn tick(&mut self, now: Now, out: &mut Vec<u8>) -> Verdict {
        // Requests are submitted in the order of their deadlines, so the oldest stand in front.
        while self.waiting.front().is_some_and(|w| w.deadline <= now.steady) {
            if let Some(waiting) = self.waiting.pop_front() {
                let _ = waiting.reply.send(Err(ClientError::Timeout { sent: false }));
            }
        }
        while let Some(entry) = self.in_flight.first_entry().filter(|e| e.get().deadline <= now.steady) {
            let _ = entry.remove().reply.send(Err(ClientError::Timeout { sent: true }));
        }
        match self.liveness.as_mut().map(|l| (l.beat(now.steady), l)) {
            Some((Beat::Send, liveness)) => {
                liveness.sent(now.steady);
                // What is still to be sent again is no gap.
                let next_seq = self.resend.front().copied().unwrap_or(self.next_seq);
                Sequence { next_seq }.encode(out);
                Verdict::Continue
            }
            Some((Beat::Lapsed, _)) => {
                Terminate { code: TerminateCode::KeepAliveLapsed, ..Terminate::default() }.encode(b"", out);
                Verdict::Leave(Parting::Silent)
            }
            _ => Verdict::Continue,
        }
    }

    /// When [`Core::tick`] or [`Core::pump`] has something to do, steady nanoseconds.
    pub(crate) fn due(&self, now: Now) -> Option<u64> {
        let beat = self.liveness.as_ref().map(|l| match l.beat(now.steady) {
            Beat::Wait(until) => until,
            Beat::Send | Beat::Lapsed => now.steady,
        });
        let waiting = self.waiting.front().map(|w| w.deadline);
        let sent = self.in_flight.first_key_value().map(|(_, s)| s.deadline);
        [beat, waiting, sent, self.paced_until].into_iter().flatten().min()
    }
}

fn not_leader(leader_ip: u128, leader_port: u16) -> Verdict {
    Verdict::Leave(Parting::NotLeader(leader_address(leader_ip, leader_port)))
}

fn terminated(end: &Terminate) -> Verdict {
    match end.code {
        TerminateCode::NotLeader => not_leader(end.leader_ip, end.leader_port),
        // Somebody else has the session, or the key is worth nothing: coming back would only be a quarrel.
        TerminateCode::Superseded | TerminateCode::Revoked => {
            Verdict::Stop(ClientError::Refused(Refusal::Terminated(end.code)))
        }
        _ => Verdict::Leave(Parting::Lost),
    }
}
