//! How a tape is timed. Throughput is taken without a clock in the way, as processor time of the thread and beside it on the wall: other work on
//! the machine is in the second only. Percentiles are taken in runs of their own, with two readings of the time stamp counter around each
//! command; what two readings with nothing between them say is told beside them, and is in each of the figures.

use std::error::Error;
use std::time::{Duration, Instant};

use grid_harness::floors::Ladder;
use grid_harness::plain::{Book, Contender, Tally};
use grid_harness::{Against, Latencies, Rounds, Row, histogram, per_second, ratios};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::tape::{BATCH, Run, Tape};

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

/// A row of one tape: throughput and percentiles over `rounds`.
///
/// # Errors
/// A run came to another outcome than the tape's.
pub fn row(name: &str, tape: &Tape, rounds: usize) -> Result<Row, Box<dyn Error>> {
    let mut ours = Ours::new(tape);
    (0..rounds).try_for_each(|_| ours.round())?;
    Ok(ours.row(name))
}

/// Messages per second of processor time that another book takes of the same stream, and what it traded of it.
fn beside(tape: &Tape, book: &mut dyn Book) -> (f64, Tally) {
    let (opening, stream) = tape.messages.split_at(tape.opening);
    let (warm, timed) = stream.split_at(stream.len() / WARM_UP);
    let mut tally = Tally::default();
    book.run(opening, &mut tally);
    book.run(warm, &mut tally);
    let watch = Stopwatch::start();
    book.run(timed, &mut tally);
    (per_second(timed.len() as u64, watch.stop().0), tally)
}

/// Rows of one tape of one book: ours with the bare ladder as its floor, and then each contender, round by round.
///
/// # Errors
/// A run of ours, or of the ladder, came to another outcome than the tape's.
pub fn rows_beside(
    name: &str,
    tape: &Tape,
    rounds: usize,
    contenders: &[Contender],
) -> Result<Vec<Row>, Box<dyn Error>> {
    let highest = tape.messages.iter().map(|message| message.price).max().unwrap_or_default();
    let mut floor = Rounds::default();
    let mut others: Vec<(&Contender, Rounds, Tally)> =
        contenders.iter().map(|contender| (contender, Rounds::default(), Tally::default())).collect();
    let mut ours = Ours::new(tape);
    for _ in 0..rounds {
        ours.round()?;
        let (rate, tally) = beside(tape, &mut Ladder::new(highest, tape.messages.len()));
        if tally != tape.tally {
            return Err(format!("the bare ladder traded {tally:?}, we {:?}", tape.tally).into());
        }
        floor.push(rate);
        for (contender, rates, traded) in &mut others {
            let (rate, tally) = beside(tape, (contender.make)().as_mut());
            rates.push(rate);
            *traded = tally;
        }
    }
    let mut ours = ours.row(name).floor("bare ladder", Against::Throughput, floor);
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
