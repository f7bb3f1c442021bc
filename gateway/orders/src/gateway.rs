//! The loop: one thread that accepts, reads, decides, and writes, in turns. Nothing in it waits for anything but
//! the poll itself: signatures and replica reads are the helper's, a full line stalls one client's reading, and a
//! reader that does not keep up is conflated and then dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_engine::event::{Report, SessionPosition};
use grid_engine::{AccountId, Command, Entry, Event, Fingerprint, Nanos, Reject, Seq, SessionId, limits};
use grid_wire::{
    self as wire, Arrival, Beat, EstablishmentCode, FrameError, IdempotentFlow, Level, Liveness,
    MarketDataCode, NegotiationCode, Phase, RetransmitCode, TerminateCode, ThrottleLevel, gateway_reject,
};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tracing::{debug, info, warn};

use crate::commands::{self, Class, Head};
use crate::config::Config;
use crate::connection::{Connection, Fill, Live, Login, Retransmit, Subscription};
use crate::helper::{Helper, Job, Outcome};
use crate::market::Market;
use crate::reports;
use crate::throttle::Bucket;
use crate::venue::{Line, LineError, View};

const LISTENER: Token = Token(0);
pub(crate) const WAKER: Token = Token(1);
/// How often deadlines are looked at.
const SWEEP_NS: u64 = 20_000_000;
/// Reads of one connection in one turn, so that a talkative client does not starve the others.
const READS_PER_TURN: usize = 4;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Reports read from the replica at one time, so that live ones pass between.
const FETCH: u64 = 256;

/// The line and everything else, apart, because events from the line change everything else.
pub(crate) struct Loop<L, V> {
    line: L,
    desk: Desk<V>,
    /// Since when the line has taken nothing from anybody; loop nanoseconds.
    full_since: Option<u64>,
    turns: usize,
}

struct Desk<V> {
    config: Config,
    view: Arc<V>,
    poll: Poll,
    listener: TcpListener,
    helper: Helper,
    stop: Arc<AtomicBool>,
    clock: quanta::Clock,
    start: quanta::Instant,
    /// Nanoseconds since the start; read once a turn.
    now: u64,
    connections: HashMap<u64, Connection>,
    last_connection: u64,
    /// The connection that a session lives on.
    sessions: HashMap<SessionId, u64>,
    /// Who waits for a session to be opened, in the order of their commands.
    opening: HashMap<SessionId, VecDeque<u64>>,
    market: Market,
    /// By instrument and depth.
    subscribers: BTreeMap<(u16, u16), BTreeSet<u64>>,
    /// Connections with a subscription that fell behind.
    behind: BTreeSet<u64>,
    /// Connections with a retransmission under way.
    retransmitting: BTreeSet<u64>,
    /// The last command whose events were heard.
    heard: Seq,
    /// Logins to be verified when the replica has applied that command.
    verifying: VecDeque<(Seq, Job)>,
    /// A key may have been revoked at this point of the log: live sessions are to be looked through.
    audit: Option<Seq>,
    /// The venue's own commands that found no room yet; never dropped.
    owed: VecDeque<Entry>,
    /// Connections to serve in the next turn without waiting for the poll.
    again: BTreeSet<u64>,
    dirty: Vec<u64>,
    accept_again: bool,
    next_sweep: u64,
    scratch: Vec<u8>,
}

/// What became of a frame.
enum Handled {
    /// Done with it.
    Taken,
    /// The line is full: try this same frame again.
    Stall,
}

impl<L: Line, V: View> Loop<L, V> {
    pub(crate) fn new(
        config: Config,
        line: L,
        view: Arc<V>,
        poll: Poll,
        mut listener: TcpListener,
        helper: Helper,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let clock = quanta::Clock::new();
        let start = clock.now();
        // Sessions that the state believes connected had their sockets in a process that is gone.
        let (market, owed) = view.read(|state| {
            let lost = state.sessions.iter().filter_map(|(&session, held)| {
                let connection = held.connection?;
                Some(Entry::venue(Command::SessionLost { session, connection }))
            });
            (Market::of(state), lost.collect())
        });
        let desk = Desk {
            config,
            view,
            poll,
            listener,
            helper,
            stop,
            start,
            clock,
            now: 0,
            connections: HashMap::new(),
            // Connection numbers are compared with those of earlier runs, which the state may still hold.
            last_connection: utc_now(),
            sessions: HashMap::new(),
            opening: HashMap::new(),
            market,
            subscribers: BTreeMap::new(),
            behind: BTreeSet::new(),
            retransmitting: BTreeSet::new(),
            heard: Seq(0),
            verifying: VecDeque::new(),
            audit: None,
            owed,
            again: BTreeSet::new(),
            dirty: Vec::new(),
            accept_again: true,
            next_sweep: 0,
            scratch: Vec::new(),
        };
        Ok(Self {
            line,
            desk,
            full_since: None,
            turns: 0,
        })
    }

    /// Runs until told to stop; then tells every client and ends.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.desk.patience();
            match self.desk.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    warn!(%error, "the order gateway cannot poll and ends");
                    return;
                }
            }
            self.desk.tick();
            if self.desk.stop.load(Ordering::Acquire) {
                self.desk.say_goodbye();
                return;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.desk.accept_again = true,
                    WAKER => {}
                    Token(id) => self.desk.note_readiness(id as u64, event),
                }
            }
            if self.desk.accept_again {
                self.desk.accept();
            }
            self.pay_owed();
            self.serve_all();
            while let Some(outcome) = self.desk.helper.outcome() {
                self.settle(outcome);
            }
            self.publish();
            self.desk.advance_logins();
            self.desk.advance_retransmissions();
            self.desk.advance_audit();
            self.desk.sweep();
            self.desk.flush();
        }
    }

    /// Serves whoever has something to be read, each turn beginning with another one: when room in the line is
    /// scarce, everybody gets some.
    fn serve_all(&mut self) {
        let mut waiting: Vec<u64> = std::mem::take(&mut self.desk.again).into_iter().collect();
        if !waiting.is_empty() {
            self.turns = self.turns.wrapping_add(1);
            let first = self.turns % waiting.len();
            waiting.rotate_left(first);
        }
        for id in waiting {
            self.serve(id);
        }
    }

    /// Puts a command in line and notes whether the line moves at all.
    fn submit(&mut self, entry: Entry) -> Result<(), LineError> {
        let done = self.line.submit(entry);
        match done {
            Err(LineError::Full) => {
                self.full_since.get_or_insert(self.desk.now);
            }
            _ => self.full_since = None,
        }
        done
    }

    /// Gives every committed event to whom it concerns.
    fn publish(&mut self) {
        let Self { line, desk, .. } = self;
        // A few rounds, so that a flood of events does not starve the sockets.
        for _ in 0..8 {
            let mut current = Seq(0);
            let more = line.poll(&mut |seq, at, event| {
                if seq != current {
                    desk.finish_event();
                    current = seq;
                    desk.heard = seq;
                }
                desk.hear(seq, at, event);
            });
            desk.finish_event();
            if !more {
                return;
            }
        }
        desk.again.insert(0);
    }

    /// Tries the venue's own commands again.
    fn pay_owed(&mut self) {
        while let Some(entry) = self.desk.owed.front() {
            match self.submit(entry.clone()) {
                Ok(()) => self.desk.owed.pop_front(),
                Err(LineError::Full) => return,
                Err(error @ (LineError::TooLarge | LineError::Closed)) => {
                    debug!(?error, "a session command was not taken");
                    self.desk.owed.pop_front()
                }
            };
        }
    }

    /// Reads from one client and handles what is whole.
    fn serve(&mut self, id: u64) {
        let Some(mut client) = self.desk.connections.remove(&id) else {
            return;
        };
        let mut reads = 0;
        loop {
            self.handle_frames(id, &mut client);
            let waiting = client.stalled.is_some()
                || (client.phase == Phase::LoggingIn && client.unread() > self.desk.config.frame_max);
            if waiting || !client.readable || reads == READS_PER_TURN {
                break;
            }
            reads += 1;
            let fill = client.fill(&mut self.desk.scratch);
            if fill == Fill::Dry && client.unread() == 0 {
                break;
            }
        }
        if client.readable && client.stalled.is_none() && client.phase != Phase::LoggingIn {
            self.desk.again.insert(id);
        }
        self.desk.keep_or_drop(id, client);
    }

    fn handle_frames(&mut self, id: u64, client: &mut Connection) {
        let input = client.take_input();
        let mut at = 0;
        while !matches!(client.phase, Phase::Ended | Phase::LoggingIn) {
            match wire::scan(&input[at..], self.desk.config.frame_max) {
                Ok(None) => break,
                Ok(Some((frame, length))) => match self.handle(id, client, &frame) {
                    Handled::Taken => {
                        client.stalled = None;
                        at += length;
                    }
                    Handled::Stall => {
                        client.stalled.get_or_insert(self.desk.now);
                        break;
                    }
                },
                Err(error) => {
                    let code = match error {
                        FrameError::TooLong { .. } => TerminateCode::FrameTooLong,
                        _ => TerminateCode::BadFrame,
                    };
                    self.desk.end(id, client, code, &error.to_string());
                }
            }
        }
        client.put_back(input, at);
    }

    fn handle(&mut self, id: u64, client: &mut Connection, frame: &wire::Frame<'_>) -> Handled {
        if !client.phase.admits(frame.template) {
            let reason = format!("template {} may not come now", frame.template);
            self.desk.end(id, client, TerminateCode::OutOfPhase, &reason);
            return Handled::Taken;
        }
        let message = match wire::Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                self.desk.refuse_undecoded(id, client, frame, &error);
                return Handled::Taken;
            }
        };
        client.liveness.heard(self.desk.now);
        match message {
            wire::Message::Negotiate(login) => self.desk.begin_login(id, client, Login::Negotiate(login)),
            wire::Message::Establish(login) => self.desk.begin_login(id, client, Login::Establish(login)),
            wire::Message::Terminate(..) => self.desk.end(id, client, TerminateCode::Finished, ""),
            wire::Message::Sequence(m) => note_sequence(client, m.next_seq),
            wire::Message::RetransmitRequest(m) => self.desk.begin_retransmission(id, client, m),
            wire::Message::MarketDataSubscribe(m) => self.desk.subscribe(id, client, m),
            wire::Message::MarketDataUnsubscribe(m) => self.desk.unsubscribe(id, client, m),
            command => return self.command(id, client, &command),
        }
        Handled::Taken
    }

    /// A command of a live session, on its way into the line.
    fn command(&mut self, id: u64, client: &mut Connection, message: &wire::Message<'_>) -> Handled {
        let life = Nanos(self.desk.config.reservation_life.as_nanos() as u64);
        let Some((session, own)) = client.live.as_ref().map(|live| (live.session, live.account)) else {
            return Handled::Taken;
        };
        let Some((head, command)) = commands::read(message, session, life) else {
            let reason = format!("{} is not for the venue", message.name());
            self.desk.end(id, client, TerminateCode::BadMessage, &reason);
            return Handled::Taken;
        };
        // A frame that stalled has passed all this before, but it has grown older.
        if client.stalled.is_none() {
            if !self.desk.admit(id, client, &head) {
                return Handled::Taken;
            }
        } else if is_stale(&head, utc_now()) {
            return refuse(client, &head, gateway_reject::STALE);
        }
        let command = match command {
            Ok(command) => command,
            Err(code) => return refuse(client, &head, code),
        };
        let account = if head.account == AccountId::VENUE {
            own
        } else {
            head.account
        };
        let client_seq = head.client_seq;
        match self.submit(Entry {
            session,
            client_seq,
            account,
            command,
        }) {
            Ok(()) => Handled::Taken,
            Err(LineError::Full) => {
                let patience = self.desk.config.busy_after.as_nanos() as u64;
                let full_for = self
                    .full_since
                    .map_or(0, |since| self.desk.now.saturating_sub(since));
                if full_for >= patience {
                    refuse(client, &head, gateway_reject::BUSY)
                } else {
                    Handled::Stall
                }
            }
            Err(LineError::TooLarge) => refuse(client, &head, gateway_reject::PAYLOAD),
            Err(LineError::Closed) => {
                self.desk
                    .end(id, client, TerminateCode::Shutdown, "the venue is shutting down");
                Handled::Taken
            }
        }
    }

    /// Goes on with what the helper has done.
    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Verified { connection, genuine } => {
                let Some(mut client) = self.desk.connections.remove(&connection) else {
                    return;
                };
                self.go_on_with_login(connection, &mut client, genuine);
                self.desk.keep_or_drop(connection, client);
            }
            Outcome::Fetched { connection, reports } => self.desk.retransmit(connection, &reports),
            Outcome::Revoked { connections } => {
                for id in connections {
                    let Some(mut client) = self.desk.connections.remove(&id) else {
                        continue;
                    };
                    self.desk
                        .end(id, &mut client, TerminateCode::Revoked, "the key was revoked");
                    self.desk.keep_or_drop(id, client);
                }
            }
        }
    }

    fn go_on_with_login(&mut self, id: u64, client: &mut Connection, genuine: bool) {
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
            if error != LineError::Full {
                return self.desk.refuse_login(id, client, Refusal::Busy, 0);
            }
            self.desk.owed.push_back(entry);
        }
        if negotiates {
            self.desk.opening.entry(session).or_default().push_back(id);
        }
    }
}

/// Why a login is refused; each kind of login has its own code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
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
    fn tick(&mut self) {
        self.now = self.clock.now().duration_since(self.start).as_nanos() as u64;
    }

    /// How long the poll may sleep.
    fn patience(&self) -> Option<Duration> {
        if self.again.iter().any(|id| {
            self.connections
                .get(id)
                .is_none_or(|client| client.stalled.is_none())
        }) {
            return Some(Duration::ZERO);
        }
        if !self.again.is_empty()
            || !self.owed.is_empty()
            || !self.retransmitting.is_empty()
            || self.audit.is_some()
            || !self.verifying.is_empty()
        {
            return Some(Duration::from_millis(1));
        }
        // Nothing has a deadline while nobody is connected; the waker still wakes.
        (!self.connections.is_empty() || self.accept_again)
            .then(|| Duration::from_nanos(self.next_sweep.saturating_sub(self.now).max(1_000_000)))
    }

    fn accept(&mut self) {
        self.accept_again = false;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    break;
                }
            }
        }
        self.accept_again = true;
    }

    fn welcome(&mut self, mut stream: TcpStream) {
        self.last_connection += 1;
        let id = self.last_connection;
        let token = Token(id as usize);
        if stream.set_nodelay(true).is_err()
            || self
                .poll
                .registry()
                .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
                .is_err()
        {
            return;
        }
        let login_ns = self.config.login_timeout.as_nanos() as u64;
        let mut client = Connection::new(stream, rand::random(), self.now, login_ns);
        if self.connections.len() >= self.config.connections_max {
            let deadline = self.now + self.config.linger.as_nanos() as u64;
            client.terminate(TerminateCode::Full, "no room for another connection", deadline);
            client.flush(self.now);
            // One write into an empty socket; those that overflow the house are not kept to linger.
            return;
        }
        wire::Hello {
            server_nonce: client.server_nonce,
            server_time: utc_now(),
            cluster_epoch: self.config.cluster_epoch,
            schema: wire::SCHEMA_ID,
            schema_version: wire::SCHEMA_VERSION,
        }
        .encode(client.out());
        self.again.insert(id);
        self.keep_or_drop(id, client);
    }

    fn note_readiness(&mut self, id: u64, event: &mio::event::Event) {
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            client.readable = true;
            self.again.insert(id);
        }
        if event.is_writable() && client.backlog() > 0 {
            self.dirty.push(id);
        }
    }

    /// Puts a client back among the others, or lets it go if there is nothing left to do for it.
    fn keep_or_drop(&mut self, id: u64, mut client: Connection) {
        let gone =
            client.broken || (client.eof && client.stalled.is_none() && client.phase != Phase::LoggingIn);
        if gone {
            self.lose(id, &mut client);
            // Best effort: the peer may still read what was answered before it closed.
            client.flush(self.now);
            return;
        }
        if client.dirty {
            self.dirty.push(id);
        }
        if client.stalled.is_some() {
            self.again.insert(id);
        }
        self.connections.insert(id, client);
    }

    /// The session, if any, has lost this connection: the engine must know, and nobody else may think it lives here.
    fn lose(&mut self, id: u64, client: &mut Connection) {
        let Some(live) = client.live.take() else { return };
        if self.sessions.get(&live.session) == Some(&id) {
            self.sessions.remove(&live.session);
        }
        for (instrument, subscription) in live.subscriptions {
            self.leave_class(id, instrument, subscription.depth);
        }
        self.behind.remove(&id);
        self.retransmitting.remove(&id);
        self.owed.push_back(Entry::venue(Command::SessionLost {
            session: live.session,
            connection: id,
        }));
    }

    /// Ends a connection with a reason.
    fn end(&mut self, id: u64, client: &mut Connection, code: TerminateCode, reason: &str) {
        debug!(connection = id, ?code, reason, "a connection ends");
        self.lose(id, client);
        client.terminate(code, reason, self.now + self.config.linger.as_nanos() as u64);
    }

    fn refuse_undecoded(
        &mut self,
        id: u64,
        client: &mut Connection,
        frame: &wire::Frame<'_>,
        error: &wire::DecodeError,
    ) {
        match (frame.client_seq().filter(|_| error.is_value()), &mut client.live) {
            (Some(client_seq), Some(live)) => {
                let arrival = live.flow.arrive(client_seq);
                tell_gap(client, arrival);
                client.liveness.heard(self.now);
                reject(client, client_seq, 0, AccountId(0), gateway_reject::SYNTAX);
            }
            _ => self.end(id, client, TerminateCode::BadMessage, &error.to_string()),
        }
    }

    /// Numbers, throttles and age; whether the request may go on.
    fn admit(&mut self, id: u64, client: &mut Connection, head: &Head) -> bool {
        let now = self.now;
        let Some(live) = &mut client.live else {
            return false;
        };
        if head.client_seq == 0 {
            refuse(client, head, gateway_reject::ZERO_SEQUENCE);
            return false;
        }
        let arrival = live.flow.arrive(head.client_seq);
        let taken = match head.class {
            Class::Request => live.requests.take(now),
            Class::Cancel => live.cancels.take(now),
            Class::MassCancel => Ok(()),
        };
        let strike = taken
            .err()
            .map(|wait| (wait, live.refusals.take(now), live.refusals.is_low()));
        tell_gap(client, arrival);
        match strike {
            Some((_, Err(_), _)) => {
                self.end(id, client, TerminateCode::Throttled, "throttled, and went on");
                false
            }
            Some((wait, Ok(()), low)) => {
                let level = if low {
                    ThrottleLevel::LastWarning
                } else {
                    ThrottleLevel::Rejected
                };
                let retry_after_ms = wait.div_ceil(1_000_000) as u32;
                wire::Throttled {
                    client_seq: head.client_seq,
                    retry_after_ms,
                    level,
                }
                .encode(client.out());
                false
            }
            None if is_stale(head, utc_now()) => {
                refuse(client, head, gateway_reject::STALE);
                false
            }
            None => true,
        }
    }

    // -- logins -----------------------------------------------------------------------------------------------

    fn begin_login(&mut self, id: u64, client: &mut Connection, login: Login) {
        let refusal = self.judge_login(&login);
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
            wire::EstablishmentReject {
                session,
                engine_code: 0,
                code,
            }
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
        let job = Job::Verify {
            connection: id,
            fingerprint,
            transcript,
            signature,
        };
        self.verifying.push_back((self.heard, job));
    }

    /// Hands logins to the helper once the replica is far enough.
    fn advance_logins(&mut self) {
        if self.verifying.is_empty() {
            return;
        }
        let applied = self.view.applied();
        while self.verifying.front().is_some_and(|(needs, _)| *needs <= applied)
            && let Some((needs, job)) = self.verifying.pop_front()
        {
            if let Err(job) = self.helper.ask(job) {
                self.verifying.push_front((needs, job));
                return;
            }
        }
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

    fn refuse_login(&mut self, id: u64, client: &mut Connection, refusal: Refusal, engine_code: u16) {
        let Some(login) = client.login.take() else { return };
        let session = login.session().0;
        match login {
            Login::Negotiate(_) => {
                let code = match refusal {
                    Refusal::Credentials => NegotiationCode::Credentials,
                    Refusal::Flow => NegotiationCode::FlowTypeNotSupported,
                    Refusal::DuplicateId => NegotiationCode::DuplicateId,
                    Refusal::Busy => NegotiationCode::Busy,
                    Refusal::SchemaVersion => NegotiationCode::SchemaVersion,
                    Refusal::TooManySessions => NegotiationCode::TooManySessions,
                    Refusal::Unspecified
                    | Refusal::Unnegotiated
                    | Refusal::KeepAlive
                    | Refusal::NextSeqNo => NegotiationCode::Unspecified,
                };
                wire::NegotiationReject {
                    session,
                    engine_code,
                    code,
                }
                .encode(client.out());
            }
            Login::Establish(_) => {
                let code = match refusal {
                    Refusal::Credentials => EstablishmentCode::Credentials,
                    Refusal::Busy => EstablishmentCode::Busy,
                    Refusal::SchemaVersion => EstablishmentCode::SchemaVersion,
                    Refusal::Unnegotiated | Refusal::DuplicateId => EstablishmentCode::Unnegotiated,
                    Refusal::KeepAlive => EstablishmentCode::KeepAliveInterval,
                    Refusal::NextSeqNo => EstablishmentCode::NextSeqNo,
                    Refusal::Unspecified | Refusal::Flow | Refusal::TooManySessions => {
                        EstablishmentCode::Unspecified
                    }
                };
                wire::EstablishmentReject {
                    session,
                    engine_code,
                    code,
                }
                .encode(client.out());
            }
        }
        client.phase = Phase::Greeted;
        client.refusals += 1;
        self.again.insert(id);
        if client.refusals >= self.config.login_refusals_max {
            self.end(
                id,
                client,
                TerminateCode::Unauthenticated,
                "too many refused logins",
            );
        }
    }

    fn session_opened(&mut self, seq: Seq, session: SessionId, result: Result<AccountId, Reject>) {
        let Some(waiting) = self.opening.get_mut(&session) else {
            return;
        };
        let id = waiting.pop_front();
        if waiting.is_empty() {
            self.opening.remove(&session);
        }
        let Some(id) = id else { return };
        let Some(mut client) = self.connections.remove(&id) else {
            return;
        };
        if matches!(client.login, Some(Login::Negotiate(_))) {
            match result {
                Ok(account) => {
                    client.login = None;
                    client.phase = Phase::Negotiated;
                    self.again.insert(id);
                    wire::NegotiationResponse {
                        session: session.0,
                        log_seq: seq.0,
                        account: account.0,
                    }
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

    fn session_established(
        &mut self,
        seq: Seq,
        session: SessionId,
        id: u64,
        result: Result<SessionPosition, Reject>,
    ) {
        if result.is_ok()
            && let Some(older) = self.sessions.remove(&session)
            && let Some(mut client) = self.connections.remove(&older)
        {
            self.end(
                older,
                &mut client,
                TerminateCode::Superseded,
                "a newer connection took the session over",
            );
            self.keep_or_drop(older, client);
        }
        let waiting = self
            .connections
            .get_mut(&id)
            .and_then(|client| client.login.take());
        let Some(Login::Establish(login)) = waiting else {
            // It went away, or was sent away, while the log decided.
            if result.is_ok() {
                self.owed.push_back(Entry::venue(Command::SessionLost {
                    session,
                    connection: id,
                }));
            }
            return;
        };
        let Some(mut client) = self.connections.remove(&id) else {
            return;
        };
        match result {
            Ok(position) if login.next_seq > position.next_report => {
                client.login = Some(Login::Establish(login));
                self.refuse_login(id, &mut client, Refusal::NextSeqNo, 0);
                self.owed.push_back(Entry::venue(Command::SessionLost {
                    session,
                    connection: id,
                }));
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
        let Config {
            requests,
            cancels,
            refusals,
            frame_max,
            ..
        } = self.config;
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
            oldest_seq: position
                .next_report
                .saturating_sub(limits::REPORTS_KEPT as u64)
                .max(1),
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
        self.sessions.insert(session, id);
        self.again.insert(id);
    }

    // -- events -----------------------------------------------------------------------------------------------

    fn hear(&mut self, seq: Seq, at: Nanos, event: &Event) {
        match event {
            Event::Report { session, report } => self.report(*session, report),
            Event::Repeated {
                session,
                client_seq,
                report,
            } => {
                self.repeat(*session, *client_seq, report.as_ref());
            }
            Event::SessionOpened { session, result } => self.session_opened(seq, *session, *result),
            Event::SessionEstablished {
                session,
                connection,
                result,
            } => {
                self.session_established(seq, *session, *connection, *result);
            }
            Event::Level {
                instrument,
                side,
                price,
                qty,
                orders,
            } => {
                let level = Level {
                    price: price.0,
                    qty: qty.0,
                    orders: *orders,
                    side: reports::side(*side),
                };
                self.market.level(seq, at, instrument.0, level);
            }
            Event::Traded(trade) => self.market.trade(seq, at, *trade),
            Event::DirectoryChanged => self.audit = Some(seq),
            _ => {}
        }
    }

    fn report(&mut self, session: SessionId, report: &Report) {
        // Nobody is connected: the report waits in the engine's state.
        let Some(&id) = self.sessions.get(&session) else {
            return;
        };
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(live) = &mut client.live else { return };
        live.next_report = report.number + 1;
        live.report_log_seq = report.seq.0;
        client.urgent = true;
        reports::encode(report, false, client.out());
        self.dirty.push(id);
        self.drop_if_slow(id);
    }

    fn repeat(&mut self, session: SessionId, client_seq: u64, report: Option<&Report>) {
        let Some(&id) = self.sessions.get(&session) else {
            return;
        };
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        match report {
            Some(report) => reports::encode(report, true, client.out()),
            None => reject(client, client_seq, 0, AccountId(0), gateway_reject::FORGOTTEN),
        }
        self.dirty.push(id);
        self.drop_if_slow(id);
    }

    fn drop_if_slow(&mut self, id: u64) {
        if self
            .connections
            .get(&id)
            .is_some_and(|client| client.backlog() > self.config.out_max)
            && let Some(mut client) = self.connections.remove(&id)
        {
            self.end(
                id,
                &mut client,
                TerminateCode::SlowReader,
                "too many bytes wait for this reader",
            );
            self.keep_or_drop(id, client);
        }
    }

    /// The command's events are all heard: tells the subscribers.
    fn finish_event(&mut self) {
        let Self {
            market,
            subscribers,
            connections,
            behind,
            dirty,
            config,
            ..
        } = self;
        market.finish(|instrument, depth, bytes| {
            for id in subscribers.get(&(instrument, depth)).into_iter().flatten() {
                let Some(client) = connections.get_mut(id) else {
                    continue;
                };
                let fits = client.backlog() + bytes.len() <= config.conflate_above;
                let Some(live) = &mut client.live else { continue };
                let Some(subscription) = live.subscriptions.get_mut(&instrument) else {
                    continue;
                };
                if subscription.behind {
                    continue;
                }
                if fits {
                    client.out().extend_from_slice(bytes);
                    dirty.push(*id);
                } else {
                    subscription.behind = true;
                    behind.insert(*id);
                }
            }
        });
    }

    // -- market data ------------------------------------------------------------------------------------------

    fn subscribe(&mut self, id: u64, client: &mut Connection, request: wire::MarketDataSubscribe) {
        let wire::MarketDataSubscribe {
            request_id,
            instrument,
            depth,
        } = request;
        if !self.market.knows(instrument) {
            // Rare: an instrument defined since the start. The replica is locked for at most one block.
            self.view.read(|state| self.market.learn(state));
        }
        let Some(live) = &mut client.live else { return };
        let held = live.subscriptions.get(&instrument).copied();
        let code = if !self.market.knows(instrument) {
            Some(MarketDataCode::UnknownInstrument)
        } else if depth > self.config.depth_max {
            Some(MarketDataCode::Depth)
        } else if held.is_none() && live.subscriptions.len() >= self.config.subscriptions_max {
            Some(MarketDataCode::TooMany)
        } else {
            None
        };
        if let Some(code) = code {
            return wire::MarketDataReject {
                request_id,
                instrument,
                code,
            }
            .encode(client.out());
        }
        if let Some(held) = held {
            self.leave_class(id, instrument, held.depth);
        }
        live.subscriptions
            .insert(instrument, Subscription { depth, behind: false });
        self.subscribers
            .entry((instrument, depth))
            .or_default()
            .insert(id);
        self.market
            .snapshot(instrument, depth, request_id, false, client.out());
    }

    fn unsubscribe(&mut self, id: u64, client: &mut Connection, request: wire::MarketDataUnsubscribe) {
        let wire::MarketDataUnsubscribe {
            request_id,
            instrument,
        } = request;
        let held = client
            .live
            .as_mut()
            .and_then(|live| live.subscriptions.remove(&instrument));
        match held {
            Some(held) => {
                self.leave_class(id, instrument, held.depth);
                wire::MarketDataUnsubscribed {
                    request_id,
                    instrument,
                }
                .encode(client.out());
            }
            None => {
                let code = MarketDataCode::NotSubscribed;
                wire::MarketDataReject {
                    request_id,
                    instrument,
                    code,
                }
                .encode(client.out());
            }
        }
    }

    fn leave_class(&mut self, id: u64, instrument: u16, depth: u16) {
        if let Some(members) = self.subscribers.get_mut(&(instrument, depth)) {
            members.remove(&id);
            if members.is_empty() {
                self.subscribers.remove(&(instrument, depth));
                self.market.forget_class(instrument, depth);
            }
        }
    }

    /// Readers that have caught up get the book as it is now, marked as a gap.
    fn refresh_the_late(&mut self) {
        for id in self.behind.clone() {
            let Some(client) = self.connections.get_mut(&id) else {
                self.behind.remove(&id);
                continue;
            };
            if client.backlog() > self.config.conflate_above / 2 {
                continue;
            }
            self.behind.remove(&id);
            let Some(live) = &mut client.live else { continue };
            let late = live
                .subscriptions
                .iter_mut()
                .filter(|(_, subscription)| subscription.behind);
            let late: Vec<_> = late
                .map(|(&instrument, subscription)| {
                    subscription.behind = false;
                    (instrument, subscription.depth)
                })
                .collect();
            for (instrument, depth) in late {
                self.market.snapshot(instrument, depth, 0, true, client.out());
            }
            client.flush(self.now);
        }
    }

    // -- retransmission ---------------------------------------------------------------------------------------

    fn begin_retransmission(&mut self, id: u64, client: &mut Connection, request: wire::RetransmitRequest) {
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

    /// Asks the helper for the next reports where the replica is far enough and the reader has room.
    fn advance_retransmissions(&mut self) {
        if self.retransmitting.is_empty() {
            return;
        }
        let applied = self.view.applied().0;
        for id in &self.retransmitting {
            let Some(client) = self.connections.get_mut(id) else {
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
            let job = Job::Fetch {
                connection: *id,
                session,
                from: work.next,
                until,
            };
            work.asked = self.helper.ask(job).is_ok();
        }
    }

    fn retransmit(&mut self, id: u64, found: &[Report]) {
        let Some(client) = self.connections.get_mut(&id) else {
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
            wire::RetransmitReject {
                from,
                count,
                code: RetransmitCode::NoLongerKept,
            }
            .encode(client.out());
        } else if first {
            wire::Retransmission {
                from: work.from,
                count,
            }
            .encode(client.out());
        }
        for report in found.iter().filter(|_| complete) {
            reports::encode(report, true, client.out());
        }
        self.dirty.push(id);
    }

    /// Has live sessions' keys looked at once the replica knows of the change.
    fn advance_audit(&mut self) {
        if self.audit.is_some_and(|seq| self.view.applied() >= seq) {
            let live = self
                .connections
                .iter()
                .filter_map(|(&id, client)| Some((id, client.live.as_ref()?.key)));
            if self.helper.ask(Job::Audit { keys: live.collect() }).is_ok() {
                self.audit = None;
            }
        }
    }

    // -- time and bytes ---------------------------------------------------------------------------------------

    fn sweep(&mut self) {
        if self.now < self.next_sweep {
            return;
        }
        self.next_sweep = self.now + SWEEP_NS;
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, client)| {
                client.deadline.is_some_and(|deadline| self.now >= deadline)
                    || (client.live.is_some() && !matches!(client.liveness.beat(self.now), Beat::Wait(_)))
            })
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            let Some(mut client) = self.connections.remove(&id) else {
                continue;
            };
            if client.phase == Phase::Ended {
                // It had its time to read the last words.
                continue;
            }
            match (&client.live, client.liveness.beat(self.now)) {
                (None, _) => self.end(id, &mut client, TerminateCode::LoginTimeout, "no login in time"),
                (Some(_), Beat::Lapsed) => {
                    self.end(
                        id,
                        &mut client,
                        TerminateCode::KeepAliveLapsed,
                        "three intervals of silence",
                    );
                }
                (Some(live), Beat::Send) => {
                    let next_seq = live.next_report;
                    wire::Sequence { next_seq }.encode(client.out());
                }
                (Some(_), Beat::Wait(_)) => {}
            }
            self.keep_or_drop(id, client);
        }
    }

    /// Private reports leave before public data, so that nobody reads of his own trade on the tape first.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let mut public = Vec::new();
        for id in dirty.drain(..) {
            match self.connections.get(&id) {
                Some(client) if client.urgent => self.flush_one(id),
                Some(_) => public.push(id),
                None => {}
            }
        }
        for id in public {
            self.flush_one(id);
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.refresh_the_late();
    }

    fn flush_one(&mut self, id: u64) {
        let now = self.now;
        if let Some(client) = self.connections.get_mut(&id) {
            client.flush(now);
            if client.broken
                && let Some(client) = self.connections.remove(&id)
            {
                self.keep_or_drop(id, client);
            }
        }
    }

    fn say_goodbye(&mut self) {
        info!(connections = self.connections.len(), "the order gateway ends");
        for client in self.connections.values_mut() {
            client.terminate(TerminateCode::Shutdown, "the venue is shutting down", 0);
            client.flush(self.now);
        }
    }
}

fn tell_gap(client: &mut Connection, arrival: Arrival) {
    if let Arrival::Gap { from, count } = arrival {
        wire::NotApplied { from, count }.encode(client.out());
    }
}

fn note_sequence(client: &mut Connection, next_seq: u64) {
    let arrival = client
        .live
        .as_mut()
        .and_then(|live| live.flow.announced(next_seq));
    if let Some(arrival) = arrival {
        tell_gap(client, arrival);
    }
}

/// Refuses a request before the log; its number is spent.
fn refuse(client: &mut Connection, head: &Head, code: u16) -> Handled {
    reject(client, head.client_seq, head.label, head.account, code);
    Handled::Taken
}

fn reject(client: &mut Connection, client_seq: u64, label: u128, account: AccountId, code: u16) {
    let account = if account == AccountId::VENUE {
        client.live.as_ref().map_or(0, |live| live.account.0)
    } else {
        account.0
    };
    wire::CommandReject {
        client_seq,
        label,
        account,
        code,
        ..wire::CommandReject::default()
    }
    .encode(client.out());
}

fn is_stale(head: &Head, now: u64) -> bool {
    let life = u64::from(head.valid_for_us) * 1_000;
    life > 0 && head.sending_time.saturating_add(life) < now
}

/// The clock on the wall, nanoseconds UTC: for logins and the age of requests only, never for state.
fn utc_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}
