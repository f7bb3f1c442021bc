//! How a tape is timed. Throughput is taken without a clock in the way, as processor time of the thread and beside it on the wall: other work on
//! the machine is in the second only. Percentiles are taken in runs of their own, with two readings of the time stamp counter around each
//! command; what two readings with nothing between them say is told beside them, and is in each of the figures.

use std::error::Error;
use std::time::{Duration, Instant};

use grid_harness::{Latencies, Rounds, Row, histogram, per_second};
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
    let (mut run, commands) = warmed(tape);
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

/// A row of one tape: throughput and percentiles over `rounds`.
///
/// # Errors
/// A run came to another outcome than the tape's.
pub fn row(name: &str, tape: &Tape, rounds: usize) -> Result<Row, Box<dyn Error>> {
    let clock = quanta::Clock::new();
    let (mut cpu, mut wall, mut latency) = (Rounds::default(), Rounds::default(), Latencies::default());
    for _ in 0..rounds {
        let (by_cpu, by_wall) = throughput(tape)?;
        cpu.push(by_cpu);
        wall.push(by_wall);
        latency.push(&latencies(tape, &clock)?);
    }
    Ok(Row::new(name)
        .throughput(cpu)
        .latency(latency)
        .figure("on the wall", "commands/s", wall)
        .note(format!(
            "{} commands, {} trades, {} events, {} orders open at the end; every run came to the same state",
            tape.entries.len(),
            tape.outcome.trades,
            tape.outcome.events,
            tape.open
        ))
        .note(format!(
            "throughput by processor time of the thread; percentiles in runs of their own, with {} ns of the clock in each",
            clock_ns(&clock)
        )))
}
