//! The loop: one thread that accepts, reads, decides, and writes, in turns. Nothing in it waits for anything but
//! the poll itself: signatures and replica reads are the back office's, a full line stalls one client's reading,
//! and a reader that does not keep up is conflated and then dropped.
//!
//! This file turns and holds; what is done in a turn is next door: `leadership` says whether anybody is served,
//! `clients` come and go, `logins` make sessions of them, `requests` go into the line, `routing` and `retransmission`
//! bring reports back.

mod clients;
mod leadership;
mod logins;
mod requests;
mod retransmission;
mod routing;
mod sessions;
mod table;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_engine::{Entry, Seq, SessionId};
use grid_wire::{Phase, TerminateCode};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use tracing::{debug, warn};

use crate::back_office::{BackOffice, Job, Outcome};
use crate::bell::Bell;
use crate::config::{Config, Wait};
use crate::connection::{Connection, Fill};
use crate::feed::Feed;
use crate::venue::{Line, LineError, View};
use leadership::Orphans;
use sessions::Sessions;
pub(crate) use table::Table;

const LISTENER: Token = Token(0);
pub(crate) const WAKER: Token = Token(1);
/// Reads of one connection in one turn, so that a talkative client does not starve the others.
const READS_PER_TURN: usize = 4;

/// The line and everything else, apart, because events from the line change everything else.
pub(crate) struct Loop<L, V> {
    line: L,
    desk: Desk<V>,
    /// Since when the line has taken nothing from anybody; loop nanoseconds.
    full_since: Option<u64>,
    turns: usize,
    /// Where bytes are read and decoded; warm, because everybody's are.
    scratch: Vec<u8>,
    /// Those that are served in this turn.
    serving: Vec<u64>,
}

/// Where the loop meets the system and its other threads.
pub(crate) struct Ends {
    pub(crate) poll: Poll,
    pub(crate) listener: TcpListener,
    pub(crate) back_office: BackOffice,
    pub(crate) bell: Arc<Bell>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// What the parts of a turn share; only this file and those below it see inside.
struct Desk<V> {
    config: Config,
    view: Arc<V>,
    poll: Poll,
    listener: TcpListener,
    back_office: BackOffice,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    clock: quanta::Clock,
    start: quanta::Instant,
    /// Nanoseconds since the start; read once a turn.
    now: u64,
    /// The term in which clients are served; none while this node does not lead.
    epoch: Option<u64>,
    /// Who leads instead, where that is known.
    leader: Option<SocketAddr>,
    /// What an epoch leaves to be done once it has begun.
    orphans: Orphans,
    connections: Table,
    /// Where reports go.
    sessions: Sessions,
    /// The connection that the last report went to.
    telling: u64,
    /// Who waits for a session to be opened, in the order of their commands.
    opening: HashMap<SessionId, VecDeque<u64>>,
    feed: Feed,
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
    /// Connections to serve in the next turn without waiting for the poll, each noted once.
    again: Vec<u64>,
    /// Some of those could go on at once.
    eager: bool,
    /// Another turn is wanted at once, whoever is connected.
    turn_again: bool,
    /// Connections with bytes to be written at the end of the turn, each noted once.
    dirty: Vec<u64>,
    accept_again: bool,
    next_sweep: u64,
}

impl<L: Line, V: View> Loop<L, V> {
    pub(crate) fn new(config: Config, line: L, view: Arc<V>, ends: Ends) -> std::io::Result<Self> {
        let Ends { poll, mut listener, back_office, bell, stop } = ends;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let clock = quanta::Clock::new();
        let start = clock.now();
        let feed = view.read(Feed::of);
        let desk = Desk {
            config,
            view,
            poll,
            listener,
            back_office,
            bell,
            stop,
            start,
            clock,
            now: 0,
            epoch: None,
            leader: None,
            orphans: Orphans::None,
            connections: Table::counting_from(rand::random()),
            sessions: Sessions::default(),
            telling: 0,
            opening: HashMap::new(),
            feed,
            retransmitting: BTreeSet::new(),
            heard: Seq(0),
            verifying: VecDeque::new(),
            audit: None,
            owed: VecDeque::new(),
            again: Vec::new(),
            eager: false,
            turn_again: false,
            dirty: Vec::new(),
            accept_again: true,
            next_sweep: 0,
        };
        Ok(Self { line, desk, full_since: None, turns: 0, scratch: Vec::new(), serving: Vec::new() })
    }

    /// Runs until told to stop; then tells every client and ends.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while self.turn(&mut events) {}
    }

    /// Waits for something to do, and does it; false when that was the last turn.
    pub(crate) fn turn(&mut self, events: &mut Events) -> bool {
        let polled = match self.desk.patience() {
            Some(Duration::ZERO) => self.desk.poll.poll(events, Some(Duration::ZERO)),
            limit => {
                let limit = self.line.doze(limit);
                let polled = self.desk.poll.poll(events, limit);
                self.line.rouse();
                polled
            }
        };
        self.desk.bell.awake();
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) => {
                warn!(%error, "the order gateway cannot poll and ends");
                return false;
            }
        }
        self.desk.tick();
        if self.desk.stop.load(Ordering::Acquire) {
            self.desk.say_goodbye();
            return false;
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.desk.accept_again = true,
                WAKER => {}
                Token(id) => self.desk.note_readiness(id as u64, event),
            }
        }
        let epoch = self.heed_leadership();
        if self.desk.accept_again {
            self.desk.accept();
        }
        self.pay_owed();
        self.report_orphans();
        self.serve_all();
        self.turn_line();
        let mut settled = false;
        while let Some(outcome) = self.desk.back_office.outcome() {
            self.settle(outcome);
            settled = true;
        }
        if settled {
            self.turn_line();
        }
        if self.publish() {
            self.desk.take_up(epoch);
        }
        self.desk.advance_logins();
        self.desk.advance_retransmissions();
        self.desk.advance_audit();
        self.desk.sweep();
        self.desk.flush();
        self.line.sent();
        true
    }

    /// Serves whoever has something to be read, each turn beginning with another one: when room in the line is
    /// scarce, everybody gets some.
    fn serve_all(&mut self) {
        let mut serving = std::mem::take(&mut self.serving);
        std::mem::swap(&mut serving, &mut self.desk.again);
        self.desk.eager = false;
        self.desk.turn_again = false;
        if serving.len() > 1 {
            self.turns = self.turns.wrapping_add(1);
            let first = self.turns % serving.len();
            serving.rotate_left(first);
        }
        if !serving.is_empty() {
            self.line.arrive();
        }
        for id in serving.drain(..) {
            self.serve(id);
        }
        self.serving = serving;
    }

    /// Lets the line go on with what was put in it; those that wait for room in it may try again.
    fn turn_line(&mut self) {
        if self.line.turn() {
            self.desk.turn_again |= !self.desk.again.is_empty() || !self.desk.owed.is_empty();
        }
    }

    /// Puts a command in line and notes whether the line moves at all.
    #[inline(always)] // a command is as large as it is, and each hand that it goes through copies it
    fn submit(&mut self, entry: Entry) -> Result<(), LineError> {
        let Some(epoch) = self.desk.epoch else {
            return Err(LineError::NotLeader);
        };
        let done = self.line.submit(entry, epoch);
        match done {
            Err(LineError::Full) => {
                self.full_since.get_or_insert(self.desk.now);
            }
            Err(LineError::NotLeader) => {
                // Another turn at once, which sees to it that nobody believes to be served.
                self.desk.turn_again = true;
            }
            _ => self.full_since = None,
        }
        done
    }

    /// Gives every committed event to whom it concerns; whether none is left.
    fn publish(&mut self) -> bool {
        let Self { line, desk, .. } = self;
        // A few rounds, so that a flood of events does not starve the sockets.
        for _ in 0..8 {
            let more = line.poll(&mut |seq, at, events| {
                desk.heard = seq;
                for event in events {
                    desk.hear(seq, at, event);
                }
                desk.finish_event();
            });
            if !more {
                return true;
            }
        }
        desk.turn_again = true;
        false
    }

    /// Tries the venue's own commands again.
    fn pay_owed(&mut self) {
        while let Some(entry) = self.desk.owed.front() {
            match self.submit(entry.clone()) {
                Ok(()) => self.desk.owed.pop_front(),
                Err(LineError::Full) => return,
                // The next leader reports the lost itself.
                Err(error @ (LineError::TooLarge | LineError::Closed | LineError::NotLeader)) => {
                    debug!(?error, "a session command was not taken");
                    self.desk.owed.pop_front()
                }
            };
        }
    }

    /// Reads from one client, once if that brings all there is, and handles what is whole.
    fn serve(&mut self, id: u64) {
        let Some(mut client) = self.desk.connections.take(id) else {
            return;
        };
        client.queued = false;
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut unread = client.take_input(&mut scratch);
        let mut reads = 0;
        loop {
            if !unread.is_empty() {
                unread.start += self.handle_frames(id, &mut client, &scratch[unread.clone()]);
            }
            let waiting = client.stalled.is_some()
                || (client.phase == Phase::LoggingIn && unread.len() > self.desk.config.frame_max);
            if waiting || !client.readable || reads == READS_PER_TURN {
                break;
            }
            reads += 1;
            if client.fill(&mut scratch, &mut unread) == Fill::Dry {
                break;
            }
        }
        client.keep_input(&scratch[unread]);
        self.scratch = scratch;
        if client.readable && client.stalled.is_none() && client.phase != Phase::LoggingIn {
            self.desk.serve_again(id, &mut client);
        }
        self.desk.keep_or_drop(id, client);
    }

    /// Goes on with what the back office has done.
    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Verified { connection, genuine } => {
                let Some(mut client) = self.desk.connections.take(connection) else {
                    return;
                };
                self.go_on_with_login(connection, &mut client, genuine);
                self.desk.keep_or_drop(connection, client);
            }
            Outcome::Fetched { connection, reports } => self.desk.retransmit(connection, &reports),
            Outcome::Revoked { connections } => {
                for id in connections {
                    let Some(mut client) = self.desk.connections.take(id) else {
                        continue;
                    };
                    self.desk.end(id, &mut client, TerminateCode::Revoked, "the key was revoked");
                    self.desk.keep_or_drop(id, client);
                }
            }
        }
    }
}

impl<V: View> Desk<V> {
    /// A command's events are all heard.
    #[inline]
    fn finish_event(&mut self) {
        self.feed.finish_event(&mut self.connections, self.config.conflate_above, &mut self.dirty);
    }

    fn tick(&mut self) {
        self.now = self.clock.now().duration_since(self.start).as_nanos() as u64;
    }

    /// Has a client served in the next turn.
    fn serve_again(&mut self, id: u64, client: &mut Connection) {
        self.eager |= client.stalled.is_none();
        if !std::mem::replace(&mut client.queued, true) {
            self.again.push(id);
        }
    }

    /// How long the poll may sleep.
    fn patience(&self) -> Option<Duration> {
        if self.eager || self.turn_again || self.config.wait == Wait::Spin || !self.bell.may_sleep() {
            return Some(Duration::ZERO);
        }
        if !self.again.is_empty()
            || !self.owed.is_empty()
            || !self.orphans.is_none()
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
}

/// The clock on the wall, nanoseconds UTC: for logins and the age of requests only, never for state.
fn utc_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
