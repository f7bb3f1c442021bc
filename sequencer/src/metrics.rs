//! How a running node looks from outside: its cursors, its clocks and its stalls, for people and for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::clocks::{Clocks, Leg, StageClocks};
use crate::stages::{Cursors, Status};
use crate::stall::{Culprit, Detector, News};
use crate::sync::Arc;

/// What became of watching.
#[derive(Debug, Default)]
struct Stalls {
    /// So many times each has stalled.
    counts: [AtomicU64; Culprit::ALL.len()],
    /// Each stalls now.
    now: [AtomicBool; Culprit::ALL.len()],
}

/// A node's figures; clones show the same node, also after it has stopped.
#[derive(Clone, Debug)]
pub struct Metrics {
    cursors: Arc<Cursors>,
    clocks: Arc<Clocks>,
    stalls: Arc<Stalls>,
}

impl Metrics {
    pub(crate) fn new(cursors: Arc<Cursors>, clocks: Arc<Clocks>) -> Self {
        Self { cursors, clocks, stalls: Arc::default() }
    }

    /// Where the stages are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.cursors.status()
    }

    /// Where the time of commands goes.
    #[must_use]
    pub fn clocks(&self) -> StageClocks {
        self.clocks.read()
    }

    /// How often a stage has stalled since the start.
    #[must_use]
    pub fn stalls(&self, culprit: Culprit) -> u64 {
        self.stalls.counts[culprit as usize].load(Ordering::Relaxed)
    }

    /// A stage stalls now.
    #[must_use]
    pub fn is_stalled(&self, culprit: Culprit) -> bool {
        self.stalls.now[culprit as usize].load(Ordering::Relaxed)
    }

    /// All of it in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let status = self.status();
        let figures = [
            (
                "grid_sequenced_index",
                "gauge",
                "Index of the last block proposed by this node.",
                status.sequenced_index,
            ),
            ("grid_committed_index", "gauge", "Index of the last committed block.", status.committed_index),
            (
                "grid_applied_index",
                "gauge",
                "Index of the last block whose events are out.",
                status.applied_index,
            ),
            (
                "grid_applied_seq",
                "gauge",
                "Number of the last command whose events are out.",
                status.applied_seq.0,
            ),
            (
                "grid_journal_syncs_total",
                "counter",
                "Syncs of the journal, each for a group of blocks.",
                status.groups,
            ),
        ];
        for (name, kind, help, value) in figures {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
        let name = "grid_stage_seconds";
        head(&mut out, name, "summary", "Parts of a command's way, of those commands that were followed.");
        let clocks = self.clocks();
        for leg in Leg::ALL {
            let (leg, times) = (leg.name(), clocks.leg(leg));
            for (quantile, ns) in [("0.5", times.p50_ns), ("0.99", times.p99_ns), ("0.999", times.p999_ns)] {
                let _ = writeln!(out, "{name}{{leg=\"{leg}\",quantile=\"{quantile}\"}} {}", seconds(ns));
            }
            let _ = writeln!(out, "{name}_sum{{leg=\"{leg}\"}} {}", seconds(times.sum_ns));
            let _ = writeln!(out, "{name}_count{{leg=\"{leg}\"}} {}", times.count);
        }
        head(&mut out, "grid_stage_stalls_total", "counter", "How often a stage had work and got nowhere.");
        for culprit in Culprit::ALL {
            let _ = writeln!(out, "grid_stage_stalls_total{{stage=\"{culprit}\"}} {}", self.stalls(culprit));
        }
        head(&mut out, "grid_stage_stalled", "gauge", "1 while a stage has work and gets nowhere.");
        for culprit in Culprit::ALL {
            let now = u8::from(self.is_stalled(culprit));
            let _ = writeln!(out, "grid_stage_stalled{{stage=\"{culprit}\"}} {now}");
        }
        out
    }

    /// One look at all stages, with what it brings in the log and in the counts.
    pub(crate) fn watch(&self, detector: &mut Detector, clock: &Clock) {
        for news in detector.look(clock.monotonic(), |culprit| self.cursors.sight(culprit)) {
            match news {
                News::Stalls(culprit, waited) => {
                    self.stalls.counts[culprit as usize].fetch_add(1, Ordering::Relaxed);
                    self.stalls.now[culprit as usize].store(true, Ordering::Relaxed);
                    tracing::error!(
                        stage = culprit.name(),
                        ?waited,
                        "a stage has work and gets nowhere: it holds everybody up"
                    );
                }
                News::GoesOn(culprit, waited) => {
                    self.stalls.now[culprit as usize].store(false, Ordering::Relaxed);
                    tracing::info!(
                        stage = culprit.name(),
                        ?waited,
                        "the stage that held everybody up goes on"
                    );
                }
            }
        }
    }
}

/// The thread that watches for stalls.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(metrics: Metrics, clock: Clock, stall_after: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut detector = Detector::new(stall_after);
            while !stopped.load(Ordering::Acquire) {
                metrics.watch(&mut detector, &clock);
                std::thread::park_timeout(stall_after / 4);
            }
        })?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic in it harms nobody.
        let _ = self.thread.join();
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use grid_engine::Nanos;

    use super::*;
    use crate::block::Position;
    use crate::door::Door;
    use crate::doorbell::doorbell;
    use crate::leadership::Board;
    use crate::stages::StageBells;

    fn metrics(clock: &Clock) -> Metrics {
        let clocks = Clocks::new(clock.clone(), 1);
        let bell = || doorbell().0;
        let bells = StageBells { sequencer: bell(), journal: bell(), matcher: bell(), timer: bell() };
        let (board, door) = (Arc::new(Board::starting_at(0)), Arc::new(Door::default()));
        let cursors = Cursors::at(&Position::default(), None, board, door, Arc::clone(&clocks), bells);
        Metrics::new(Arc::new(cursors), clocks)
    }

    #[test]
    fn the_stage_that_has_work_and_gets_nowhere_is_named_and_counted_until_it_moves() {
        let clock = Clock::manual(Nanos(1));
        let metrics = metrics(&clock);
        let mut detector = Detector::new(Duration::from_secs(1));
        let mut look_after = |seconds: u64| {
            clock.advance(seconds * 1_000_000_000);
            metrics.watch(&mut detector, &clock);
            Culprit::ALL.map(|culprit| (metrics.stalls(culprit), metrics.is_stalled(culprit)))
        };
        let none = [(0, false); 5];
        assert_eq!(look_after(0), none);
        // A block is handed to the journal, and the disk does not answer.
        metrics.cursors.handed.store(1, Ordering::Relaxed);
        assert_eq!(look_after(5), none, "it may have come this moment");
        let [sequencer, journal, quorum, matcher, consumer] = look_after(2);
        assert_eq!((journal, sequencer, quorum), ((1, true), (0, false), (0, false)));
        assert_eq!((matcher, consumer), ((0, false), (0, false)));
        metrics.cursors.durable.store(1, Ordering::Relaxed);
        metrics.cursors.committed.store(1, Ordering::Relaxed);
        assert_eq!(look_after(5)[1], (1, false), "the journal goes on");
        // Now the matcher stands, and then a consumer whom it waits for.
        assert_eq!(look_after(2)[3], (1, true));
        metrics.cursors.consumer_behind.store(true, Ordering::Relaxed);
        assert_eq!(look_after(2)[3], (1, false));
        let at_last = look_after(2);
        assert_eq!((at_last[3], at_last[4]), ((1, false), (1, true)));
        assert!(metrics.text().contains("grid_stage_stalls_total{stage=\"consumer\"} 1"));
        assert!(metrics.text().contains("grid_stage_stalled{stage=\"journal\"} 0"));
    }
}
