//! The load: calls at a planned rate, each counted from its planned moment, or as many as so many connections carry. Plain
//! threads with a connection each, because a sleeping thread wakes closer to its time than a timer of an event loop.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use grid_harness::{OpenLoop, histogram};
use hdrhistogram::Histogram;

use crate::Failure;
use crate::http::{Connection, Times};
use crate::talk::Shape;

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    /// Keys, used in turn.
    pub(crate) keys: Vec<String>,
    pub(crate) shape: Shape,
    /// Connections, each with a thread.
    pub(crate) connections: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Right answers, those of the warm-up too.
    pub(crate) answered: u64,
    /// From the first call's moment to the last answer.
    pub(crate) took: Duration,
    /// To the last byte, from the planned moment, or in a closed loop from the sending.
    pub(crate) whole: Histogram<u64>,
    /// To the first byte of the body, likewise.
    pub(crate) first: Histogram<u64>,
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After so many calls.
    Calls(u64),
    /// After so long.
    Time(Duration),
}

impl Load {
    /// The bytes of each key's request.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        let body = self.shape.body();
        self.keys.iter().map(|key| Connection::request(self.path, key, &body)).collect()
    }

    /// Calls at a planned rate.
    pub(crate) fn open(&self, rate: f64, calls: u64) -> Result<Outcome, Failure> {
        // Connections are there before the plan begins.
        let plan = std::sync::OnceLock::new();
        let (next, last) = (AtomicU64::new(0), AtomicU64::new(0));
        let begin = || *plan.get_or_init(|| OpenLoop::start_with(rate, calls));
        let mut outcome = self.run(|asker| {
            let plan = begin();
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= calls {
                    return Ok(());
                }
                let planned = plan.planned(nth);
                std::thread::sleep(planned.saturating_duration_since(Instant::now()));
                let times = asker.ask(nth)?;
                plan.answered(nth, times.last, &mut asker.whole);
                plan.answered(nth, times.first, &mut asker.first);
                let since = times.last.saturating_duration_since(plan.planned(0));
                last.fetch_max(since.as_nanos() as u64, Ordering::Relaxed);
            }
        })?;
        outcome.took = Duration::from_nanos(last.into_inner());
        Ok(outcome)
    }

    /// As many calls as the connections carry.
    pub(crate) fn closed(&self, until: Until) -> Result<Outcome, Failure> {
        let next = AtomicU64::new(0);
        let begin = Instant::now();
        let mut outcome = self.run(|asker| {
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let over = match until {
                    Until::Calls(calls) => nth >= calls,
                    Until::Time(time) => begin.elapsed() >= time,
                };
                if over {
                    return Ok(());
                }
                let sent = Instant::now();
                let times = asker.ask(nth)?;
                asker.whole.saturating_record(times.last.duration_since(sent).as_nanos() as u64);
                asker.first.saturating_record(times.first.duration_since(sent).as_nanos() as u64);
            }
        })?;
        outcome.took = begin.elapsed();
        Ok(outcome)
    }

    /// Has every connection's thread ask, and adds up what they heard.
    fn run(&self, work: impl Fn(&mut Asker<'_>) -> Result<(), Failure> + Sync) -> Result<Outcome, Failure> {
        let requests = self.requests();
        let one = |work: &dyn Fn(&mut Asker<'_>) -> Result<(), Failure>| {
            // The usual slack of 50 µs would be in every latency of a planned rate. A system without the setting measures with it.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            let mut asker = Asker {
                connection: Connection::open(self.address)?,
                requests: &requests,
                shape: self.shape,
                answered: 0,
                whole: histogram(),
                first: histogram(),
            };
            work(&mut asker)?;
            Ok::<_, Failure>((asker.answered, asker.whole, asker.first))
        };
        let mut outcome =
            Outcome { answered: 0, took: Duration::ZERO, whole: histogram(), first: histogram() };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(|| one(&work))).collect();
            for thread in threads {
                let (answered, whole, first) = thread.join().map_err(|_| "a thread of the load fell")??;
                outcome.answered += answered;
                outcome.whole.add(whole)?;
                outcome.first.add(first)?;
            }
            Ok(outcome)
        })
    }
}

/// One thread of the load.
struct Asker<'a> {
    connection: Connection,
    requests: &'a [Vec<u8>],
    shape: Shape,
    answered: u64,
    whole: Histogram<u64>,
    first: Histogram<u64>,
}

impl Asker<'_> {
    fn ask(&mut self, nth: u64) -> Result<Times, Failure> {
        let request = &self.requests[nth as usize % self.requests.len()];
        let times = self.connection.ask(request)?;
        self.shape.check(self.connection.body())?;
        self.answered += 1;
        Ok(times)
    }
}
