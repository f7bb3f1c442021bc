//! The load generator: one thread on `mio` that keeps some requests of each connection in flight and checks every
//! answer: its number, the numbering of the reports, and what it says. One read and one write per socket and turn, as
//! the gateway does; whatever it costs is taken from the same two cores.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use grid_harness::{OpenLoop, histogram, nanos};
use grid_wire::{Block, ExecutionReport, Message, scan};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::cpu::Cpu;
use crate::flow::{Flow, PlaceCancel};
use crate::session::Session;
use crate::{Failure, Wait};

/// Bytes read at one time.
const CHUNK: usize = 64 * 1024;
/// Silence after which a venue is given up. It decides nothing but when a hopeless run ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection of the load.
struct Line<F> {
    stream: TcpStream,
    flow: F,
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    /// The next request's number.
    next: u64,
    /// The oldest one that is not answered.
    open: u64,
    /// The number of the next report.
    report: u64,
    /// When each open request was asked, or was to be.
    since: VecDeque<Instant>,
    /// Bytes wait for the socket.
    stuck: bool,
    queued: bool,
}

/// All connections, and what has been answered.
pub(crate) struct Load<F> {
    poll: Poll,
    wait: Wait,
    lines: Vec<Line<F>>,
    scratch: Vec<u8>,
    /// Lines with something new: answers, or room.
    stirred: Vec<usize>,
}

/// What a round found.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Requests answered within the round.
    pub(crate) answered: u64,
    /// From its begin to the last answer.
    pub(crate) took: Duration,
    /// Nanoseconds from when a request was sent (closed loop) or was to be sent (open loop) to its answer.
    pub(crate) latency: Histogram<u64>,
    /// What the threads of this process used meanwhile.
    pub(crate) cpu: Cpu,
}

/// The name of the thread on which a load runs.
pub(crate) const GENERATOR: &str = "generator";

impl Outcome {
    /// Requests answered per second.
    pub(crate) fn per_second(&self) -> f64 {
        grid_harness::per_second(self.answered, self.took)
    }

    /// Nanoseconds on a core for each request: the generator's, and everybody else's.
    pub(crate) fn cpu_per_request(&self) -> (f64, f64) {
        let each = |time: u64| time as f64 / self.answered.max(1) as f64;
        (each(self.cpu.of(|name| name == GENERATOR)), each(self.cpu.of(|name| name != GENERATOR)))
    }
}

impl<F: Flow> Load<F> {
    /// Takes over live sessions, each with its flow.
    pub(crate) fn over(sessions: Vec<(Session, F)>, wait: Wait) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut lines = Vec::with_capacity(sessions.len());
        for (at, (session, flow)) in sessions.into_iter().enumerate() {
            session.stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(session.stream);
            poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            lines.push(Line {
                stream,
                flow,
                input: session.input,
                out: Vec::new(),
                sent: 0,
                next: session.client_seq,
                open: session.client_seq,
                report: session.report,
                since: VecDeque::new(),
                stuck: false,
                queued: false,
            });
        }
        Ok(Self { poll, wait, lines, scratch: vec![0; 2 * CHUNK], stirred: Vec::new() })
    }

    /// Keeps `window` requests of each connection in flight for `seconds`, then waits for the last answers. What is told
    /// is of the time while all windows were full, after a first fifth of it.
    pub(crate) fn closed(&mut self, window: u64, seconds: f64) -> Result<Outcome, Failure> {
        let mut latency = histogram();
        let mut warm = warm_up(seconds);
        let mut begin = Instant::now();
        let until = begin + Duration::from_secs_f64(seconds);
        let mut answered = 0;
        let mut cpu = Cpu::now();
        let mut events = Events::with_capacity(1024);
        self.stir_all();
        loop {
            let now = Instant::now();
            if warm.take_if(|warm| now >= begin + *warm).is_some() {
                (begin, answered) = (now, 0);
                cpu = Cpu::now();
                latency.reset();
            }
            if now >= until {
                let outcome = Outcome { answered, took: now - begin, latency, cpu: Cpu::now().since(&cpu) };
                self.drain()?;
                return Ok(outcome);
            }
            let mut stirred = std::mem::take(&mut self.stirred);
            for at in stirred.drain(..) {
                let line = &mut self.lines[at];
                line.queued = false;
                while line.next - line.open < window && line.ask(now) {}
                line.write()?;
            }
            self.stirred = stirred;
            self.turn(&mut events, None, &mut |since, at| {
                answered += 1;
                latency.saturating_record(nanos(at.saturating_duration_since(since)));
            })?;
        }
    }

    /// Sends at a planned rate, the connections in turn, and waits for the last answer. A request that finds its
    /// connection's window full is sent when there is room; its latency counts from the plan all the same.
    pub(crate) fn open(&mut self, rate: f64, seconds: f64, window: u64) -> Result<Outcome, Failure> {
        let mut latency = histogram();
        let mut events = Events::with_capacity(1024);
        let plan = OpenLoop::start(rate, seconds);
        let (mut sent, mut answered) = (0, 0);
        let cpu = Cpu::now();
        let warm = plan.planned(plan.commands() / 5);
        let mut last = warm;
        while answered < plan.commands() {
            let now = Instant::now();
            let due = plan.due(now);
            while sent < due {
                let at = sent as usize % self.lines.len();
                let line = &mut self.lines[at];
                if line.next - line.open >= window || !line.ask(plan.planned(sent)) {
                    break;
                }
                line.write()?;
                sent += 1;
            }
            let pause = (sent < plan.commands() && sent >= due)
                .then(|| plan.planned(sent).saturating_duration_since(Instant::now()));
            self.turn(&mut events, pause, &mut |since, at| {
                answered += 1;
                last = at;
                if since >= warm {
                    latency.saturating_record(nanos(at.saturating_duration_since(since)));
                }
            })?;
            for at in std::mem::take(&mut self.stirred) {
                self.lines[at].queued = false;
                self.lines[at].write()?;
            }
        }
        let took = last.saturating_duration_since(warm);
        Ok(Outcome { answered: latency.len(), took, latency, cpu: Cpu::now().since(&cpu) })
    }

    /// Asks each flow until it has no more to ask, `window` at a time; how long that took.
    pub(crate) fn through(&mut self, window: u64) -> Result<Outcome, Failure> {
        let mut latency = histogram();
        let mut events = Events::with_capacity(1024);
        let (begin, cpu) = (Instant::now(), Cpu::now());
        let mut answered = 0;
        self.stir_all();
        loop {
            let now = Instant::now();
            let mut stirred = std::mem::take(&mut self.stirred);
            for at in stirred.drain(..) {
                let line = &mut self.lines[at];
                line.queued = false;
                while line.next - line.open < window && line.ask(now) {}
                line.write()?;
            }
            self.stirred = stirred;
            if self.lines.iter().all(|line| line.next == line.open) {
                let cpu = Cpu::now().since(&cpu);
                return Ok(Outcome { answered, took: begin.elapsed(), latency, cpu });
            }
            self.turn(&mut events, None, &mut |since, at| {
                answered += 1;
                latency.saturating_record(nanos(at.saturating_duration_since(since)));
            })?;
        }
    }

    /// The flows, when nothing is in flight.
    pub(crate) fn flows(&mut self) -> impl Iterator<Item = &mut F> {
        self.lines.iter_mut().map(|line| &mut line.flow)
    }

    /// Waits until nothing is in flight.
    fn drain(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        while self.lines.iter().any(|line| line.open < line.next) {
            self.turn(&mut events, None, &mut |_, _| {})?;
            for at in std::mem::take(&mut self.stirred) {
                self.lines[at].queued = false;
                self.lines[at].write()?;
            }
        }
        Ok(())
    }

    fn stir_all(&mut self) {
        self.stirred = (0..self.lines.len()).collect();
        self.lines.iter_mut().for_each(|line| line.queued = true);
    }

    /// Hears what has come, waiting for something where this load does not spin, but no longer than `pause`.
    fn turn(
        &mut self,
        events: &mut Events,
        pause: Option<Duration>,
        heard: &mut impl FnMut(Instant, Instant),
    ) -> Result<(), Failure> {
        let limit = match self.wait {
            Wait::Spin => Some(Duration::ZERO),
            // A sleep shorter than this ends later than it should: the rest is spun away.
            Wait::Park => {
                Some(pause.map_or(PATIENCE, |pause| pause.saturating_sub(Duration::from_micros(100))))
            }
        };
        match self.poll.poll(events, limit) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        if events.is_empty() {
            return if limit == Some(PATIENCE) {
                Err("the venue says nothing any more".into())
            } else {
                Ok(())
            };
        }
        for event in events.iter() {
            let at = event.token().0;
            let line = &mut self.lines[at];
            if event.is_readable() {
                line.read(&mut self.scratch, heard)?;
            }
            if !std::mem::replace(&mut line.queued, true) {
                self.stirred.push(at);
            }
            if event.is_writable() {
                line.stuck = false;
            }
        }
        Ok(())
    }
}

impl Load<PlaceCancel> {
    /// Takes out every order that still stands.
    pub(crate) fn clear_up(&mut self) -> Result<(), Failure> {
        self.lines.iter_mut().for_each(|line| line.flow.end());
        self.through(64).map(drop)
    }
}

/// The part of a round that is not told.
fn warm_up(seconds: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds / 5.0))
}

impl<F: Flow> Line<F> {
    fn ask(&mut self, since: Instant) -> bool {
        let asked = self.flow.ask(self.next, &mut self.out);
        if asked {
            self.next += 1;
            self.since.push_back(since);
        }
        asked
    }

    fn write(&mut self) -> Result<(), Failure> {
        while !self.stuck && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stuck = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Ok(())
    }

    fn read(&mut self, scratch: &mut [u8], heard: &mut impl FnMut(Instant, Instant)) -> Result<(), Failure> {
        loop {
            let held = self.input.len();
            scratch[..held].copy_from_slice(&self.input);
            self.input.clear();
            let room = scratch.len() - held;
            let count = match self.stream.read(&mut scratch[held..]) {
                Ok(0) => return Err("the venue closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            let bytes = &scratch[..held + count];
            let mut at = 0;
            while let Some((frame, length)) = scan(&bytes[at..], grid_wire::MAX_FRAME_LEN)? {
                at += length;
                if frame.template == ExecutionReport::TEMPLATE {
                    let report = ExecutionReport::read(frame.body).map_err(|bad| bad.to_string())?;
                    self.hear(&report, now, heard)?;
                } else {
                    match Message::decode(&frame)? {
                        Message::Sequence(_) => {}
                        Message::MassQuoteReport(report) => {
                            if !self.count((report.session_seq, report.client_seq), now, heard)? {
                                return Err(format!("a mass quote has one answer: {report:?}").into());
                            }
                            self.flow.quoted(&report)?;
                        }
                        Message::Throttled(_) => {
                            let why = "the venue throttles this session: plan a lower rate, or have its limits raised";
                            return Err(why.into());
                        }
                        other => return Err(format!("the venue said {other:?}").into()),
                    }
                }
            }
            self.input.extend_from_slice(&bytes[at..]);
            // Less than was asked for is all there was.
            if count < room {
                return Ok(());
            }
        }
    }

    fn hear(
        &mut self,
        report: &ExecutionReport,
        now: Instant,
        heard: &mut impl FnMut(Instant, Instant),
    ) -> Result<(), Failure> {
        if self.count((report.session_seq, report.client_seq), now, heard)? {
            self.flow.answered(report.client_seq, report)
        } else {
            self.flow.told(report)
        }
    }

    /// Reports come numbered one by one, and requests are answered in their order. True for an answer, false for a later report.
    fn count(
        &mut self,
        (number, client_seq): (u64, u64),
        now: Instant,
        heard: &mut impl FnMut(Instant, Instant),
    ) -> Result<bool, Failure> {
        if number != self.report {
            return Err(format!("report {number} instead of {}", self.report).into());
        }
        self.report += 1;
        if client_seq < self.open {
            return Ok(false);
        }
        if client_seq != self.open || self.open >= self.next {
            return Err(format!("request {client_seq} was answered instead of {}", self.open).into());
        }
        let since = self.since.pop_front().ok_or("an answer to nothing")?;
        self.open += 1;
        heard(since, now);
        Ok(true)
    }
}
