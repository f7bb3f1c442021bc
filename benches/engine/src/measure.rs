//! How a tape is timed. Throughput is taken without a clock in the way, as processor time of the thread and beside it on the wall: other work on
//! the machine is in the second only. Percentiles are taken in runs of their own, with two readings of the time stamp counter around each
//! command; what two readings with nothing between them say is told beside them, and is in each of the figures.

use std::error::Error;
use std::time::{Duration, Instant};

use grid_harness::floors::{Balances, Extent, Ladder};
use grid_harness::plain::{Book, Contender, Tally};
use grid_harness::{Against, Latencies, Rounds, Row, histogram, per_second, ratios};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::tape::{BATCH, Plain, Run, Tape};

/// The first so many of a tape warm up and are not timed.
const WARM_UP: usize = 10;

/// Processor time of this thread and time on the wall, both from one moment on.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self { cpu: cpu(), wall: Instant::now() }
    }

    /// Processor time and wall time since.
    #[must_use]
    pub fn stop(self) -> (Duration, Duration) {
        (cpu().saturating_sub(self.cpu), self.wall.elapsed())
    }
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// What the clock itself costs, in nanoseconds: the median of readings with nothing between them.
#[must_use]
pub fn clock_ns(clock: &quanta::Clock) -> u64 {
    let mut record = histogram();
    for _ in 0..100_000 {
        let begin = clock.raw();
        record.saturating_record(clock.delta_as_nanos(begin, clock.raw()));
    }
    record.value_at_quantile(0.5)
}

fn warmed(tape: &Tape) -> (Run<'_>, u64) {
    let warm = tape.entries.len() / WARM_UP;
    let mut run = tape.run();
    run.some(warm);
    (run, (tape.entries.len() - warm) as u64)
}

/// Commands per second of processor time, and of time on the wall.
///
/// # Errors
/// The run came to another outcome than the tape's.
pub fn throughput(tape: &Tape) -> Result<(f64, f64), Box<dyn Error>> {
    timed(tape, warmed(tape))
}

/// Commands per second of processor time where the engine is not told what comes next.
///
/// # Errors
/// The run came to another outcome than the tape's.
pub fn without_look_ahead(tape: &Tape) -> Result<f64, Box<dyn Error>> {
    let (run, commands) = warmed(tape);
    Ok(timed(tape, (run.without_look_ahead(), commands))?.0)
}

fn timed(tape: &Tape, (mut run, commands): (Run<'_>, u64)) -> Result<(f64, f64), Box<dyn Error>> {
    let watch = Stopwatch::start();
    run.all();
    let (cpu, wall) = watch.stop();
    check(tape, &run)?;
    Ok((per_second(commands, cpu), per_second(commands, wall)))
}

/// Nanoseconds of every command.
///
/// # Errors
/// The run came to another outcome than the tape's.
pub fn latencies(tape: &Tape, clock: &quanta::Clock) -> Result<Histogram<u64>, Box<dyn Error>> {
    let (mut run, commands) = warmed(tape);
    // Recording costs more than a command does, and would push it out of the caches: only stamps are kept meanwhile.
    let mut stamps = vec![0_u32; commands as usize];
    for batch in stamps.chunks_mut(BATCH) {
        for stamp in batch {
            let begin = clock.raw();
            run.one();
            *stamp = u32::try_from(clock.raw() - begin).unwrap_or(u32::MAX);
        }
        run.publish();
    }
    check(tape, &run)?;
    let mut record = histogram();
    for stamp in stamps {
        record.saturating_record(clock.delta_as_nanos(0, stamp.into()));
    }
    Ok(record)
}

fn check(tape: &Tape, run: &Run<'_>) -> Result<(), Box<dyn Error>> {
    let (wanted, found) = (tape.outcome, run.outcome());
    if wanted == found { Ok(()) } else { Err(format!("a run came to {found:?}, not to {wanted:?}").into()) }
}

/// What our engine shows on a tape, round by round.
struct Ours<'a> {
    tape: &'a Tape,
    clock: quanta::Clock,
    cpu: Rounds,
    wall: Rounds,
    latency: Latencies,
}

impl<'a> Ours<'a> {
    fn new(tape: &'a Tape) -> Self {
        let clock = quanta::Clock::new();
        Self { tape, clock, cpu: Rounds::default(), wall: Rounds::default(), latency: Latencies::default() }
    }

    fn round(&mut self) -> Result<(), Box<dyn Error>> {
        let (by_cpu, by_wall) = throughput(self.tape)?;
        self.cpu.push(by_cpu);
        self.wall.push(by_wall);
        self.latency.push(&latencies(self.tape, &self.clock)?);
        Ok(())
    }

    fn row(self, name: &str) -> Row {
        let Tape { entries, outcome, open, .. } = self.tape;
        Row::new(name)
            .throughput(self.cpu)
            .latency(self.latency)
            .figure("on the wall", "commands/s", self.wall)
            .note(format!(
                "{} commands, {} trades, {} events, {open} orders open at the end; every run came to the same state",
                entries.len(),
                outcome.trades,
                outcome.events,
            ))
            .note(format!(
                "throughput by processor time of the thread; percentiles in runs of their own, with {} ns of the clock in each",
                clock_ns(&self.clock)
            ))
    }
}

/// What a stream in plain form came to.
struct Bare {
    /// Steps per second of processor time.
    rate: f64,
    /// What was traded from the beginning.
    tally: Tally,
    /// Orders that are open at the end, where the book can say.
    open: Option<usize>,
}

/// Lets `run` take the opening and the warm-up, and times it with the rest.
fn timed_plain<T>(plain: &Plain<T>, mut run: impl FnMut(&[T])) -> f64 {
    let (warm, timed) = plain.stream().split_at(plain.stream().len() / WARM_UP);
    run(plain.opening());
    run(warm);
    let watch = Stopwatch::start();
    run(timed);
    per_second(timed.len() as u64, watch.stop().0)
}

/// Another book, or the bare ladder, with the same stream.
fn beside(tape: &Tape, book: &mut dyn Book) -> Bare {
    let mut tally = Tally::default();
    let rate = timed_plain(&tape.messages, |messages| book.run(messages, &mut tally));
    Bare { rate, tally, open: book.open() }
}

/// Bare balances with the same calls, before a bare ladder.
fn balances(tape: &Tape, mut ladder: Ladder) -> Bare {
    let mut tally = Tally::default();
    ladder.run(tape.messages.all(), &mut tally);
    let mut balances = Balances::new(ladder, tape.calls.all());
    let rate = timed_plain(&tape.calls, |calls| balances.run(calls, &mut tally));
    Bare { rate, tally, open: balances.open() }
}

/// What lies under the engine: the same stream without its market.
struct Floor<'a> {
    tape: &'a Tape,
    extent: Extent,
    /// As many commands a second as these steps are worth, where one command does what many steps do.
    commands: Rounds,
}

impl<'a> Floor<'a> {
    fn new(tape: &'a Tape) -> Self {
        Self { tape, extent: Extent::of(tape.messages.all()), commands: Rounds::default() }
    }

    fn is_of_calls(&self) -> bool {
        !self.tape.calls.stream().is_empty()
    }

    fn round(&mut self) -> Result<(), Box<dyn Error>> {
        let Tape { entries, messages, calls, .. } = self.tape;
        let mut ladder = Ladder::new(self.extent);
        let (bare, steps) = if self.is_of_calls() {
            (balances(self.tape, ladder), calls.stream().len())
        } else {
            (beside(self.tape, &mut ladder), messages.stream().len())
        };
        let (wanted, found) = ((self.tape.tally, Some(self.tape.open as usize)), (bare.tally, bare.open));
        if wanted != found {
            return Err(format!("without its market the stream came to {found:?}, not to {wanted:?}").into());
        }
        self.commands.push(bare.rate * entries.len() as f64 / steps as f64);
        Ok(())
    }

    fn name(&self) -> &'static str {
        let Tape { entries, messages, .. } = self.tape;
        match messages.stream().len() {
            _ if self.is_of_calls() => "bare balances",
            steps if steps == entries.len() => "bare ladder",
            _ => "bare ladder, order by order",
        }
    }

    fn under(self, row: Row) -> Row {
        let name = self.name();
        row.floor(name, Against::Throughput, self.commands)
    }
}

/// A row of one tape: throughput and percentiles over `rounds`, above the floor of the same stream without its market.
///
/// # Errors
/// A run came to another outcome than the tape's.
pub fn row(name: &str, tape: &Tape, rounds: usize) -> Result<Row, Box<dyn Error>> {
    let mut rows = rows_beside(name, tape, rounds, &[])?;
    Ok(rows.swap_remove(0))
}

/// The row of one tape of one book, and then one of each contender, round by round.
///
/// # Errors
/// A run of ours, or of the floor, came to another outcome than the tape's.
pub fn rows_beside(
    name: &str,
    tape: &Tape,
    rounds: usize,
    contenders: &[Contender],
) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut others: Vec<(&Contender, Rounds, Tally)> =
        contenders.iter().map(|contender| (contender, Rounds::default(), Tally::default())).collect();
    let (mut ours, mut floor) = (Ours::new(tape), Floor::new(tape));
    for _ in 0..rounds {
        ours.round()?;
        floor.round()?;
        for (contender, rates, traded) in &mut others {
            let bare = beside(tape, (contender.make)().as_mut());
            rates.push(bare.rate);
            *traded = bare.tally;
        }
    }
    let mut ours = floor.under(ours.row(name));
    let best = others.iter().max_by(|(_, a, _), (_, b, _)| a.median().total_cmp(&b.median()));
    if let (Some((best, rates, _)), Some(mine)) = (best, &ours.throughput) {
        let times = ratios(mine, rates);
        ours = ours.figure(format!("against {}, the best peer", best.name), "times", times);
    }
    let theirs = others.into_iter().map(|(contender, rates, tally)| {
        let row = Row::new(format!("{name}: {}", contender.name)).throughput(rates).note(contender.note);
        if tally == tape.tally {
            row.note("its trades are ours, one by one")
        } else {
            let (a, b) = (tally, tape.tally);
            let same = if (a.trades, a.qty) == (b.trades, b.qty) { ", between other orders" } else { "" };
            row.note(format!(
                "it trades otherwise: {} trades of {} together, ours {} of {}{same}",
                a.trades, a.qty, b.trades, b.qty
            ))
        }
    });
    let theirs: Vec<_> = theirs.collect();
    Ok(std::iter::once(ours).chain(theirs).collect())
}
