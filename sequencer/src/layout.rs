//! Which stage runs on which thread, as data: a deployment chooses, the stages do not know.
//!
//! | layout   | threads                                             | for                                   |
//! |----------|-----------------------------------------------------|---------------------------------------|
//! | `spread` | sequencer · journal · matcher, pinned, spinning     | many cores, lowest latency            |
//! | `paired` | sequencer+matcher pinned, spinning · journal yields | four cores or more                    |
//! | `fused`  | all on one pinned, spinning thread                  | one core to give away, no hops        |
//! | `parked` | sequencer+matcher · journal, parked when idle       | two cores: nobody steals the other's  |
//!
//! The sequencer and the matcher share a thread before anything else does: both are short, and the hop between commit
//! and match is then none. The journal is apart because it sleeps in the disk, and blocks should go on filling meanwhile.
//!
//! The matcher's thread may lend its stages to a host with an event loop of its own ([`crate::Lender`]): with `fused` the whole path
//! is then on the host's thread, and no hop is left. A thread that waits busily takes a core for itself, so where there are
//! not more cores than such threads, [`ThreadLayout::fit`] makes all of them park.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::doorbell::Sleeper;
use crate::sync::{AtomicBool, Ordering};

/// A stage of the order path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    /// Numbers, stamps and closes blocks.
    Sequencer,
    /// Writes and syncs blocks.
    Journal,
    /// Applies committed blocks.
    Matcher,
    /// Submits ticks when they are due.
    Timer,
}

impl StageName {
    /// All stages, in the order in which a thread that has several should step them.
    pub const ALL: [Self; 4] = [Self::Sequencer, Self::Journal, Self::Matcher, Self::Timer];
}

/// What a thread does when its stages have nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Look again at once; burns the core.
    Spin,
    /// Let another thread run, then look again; burns what nobody else wants.
    Yield,
    /// Sleep until woken.
    Park,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadPlan {
    /// Its name, as shown by the system's tools.
    pub name: String,
    /// The stages it runs, stepped in this order.
    pub stages: Vec<StageName>,
    /// The core to pin it to, as a number of the system's.
    pub core: Option<usize>,
    /// What it does when idle.
    pub wait: Wait,
}

/// All threads of the order path. Valid if each stage is on exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadLayout {
    /// The threads.
    pub threads: Vec<ThreadPlan>,
}

/// A layout that cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A stage is on no thread, or on more than one.
    #[error("the stage {stage:?} is on {threads} threads of the layout; it must be on exactly one")]
    Stage {
        /// Which.
        stage: StageName,
        /// On how many threads it is.
        threads: usize,
    },
    /// No preset has this name.
    #[error("there is no thread layout `{0}`; choose auto, spread, paired, fused or parked")]
    Unknown(String),
}

fn plan(name: &str, stages: &[StageName], core: Option<usize>, wait: Wait) -> ThreadPlan {
    ThreadPlan { name: name.to_owned(), stages: stages.to_vec(), core, wait }
}

impl ThreadLayout {
    /// Every hot stage on a core of its own, starting at `first_core`.
    #[must_use]
    pub fn spread(first_core: usize) -> Self {
        use StageName::{Journal, Matcher, Sequencer, Timer};
        Self {
            threads: vec![
                plan("sequencer", &[Sequencer], Some(first_core), Wait::Spin),
                plan("journal", &[Journal], Some(first_core + 1), Wait::Spin),
                plan("matcher", &[Matcher], Some(first_core + 2), Wait::Spin),
                plan("timer", &[Timer], None, Wait::Park),
            ],
        }
    }

    /// Sequencer and matcher spin on one core; the journal yields on the next.
    #[must_use]
    pub fn paired(first_core: usize) -> Self {
        use StageName::{Journal, Matcher, Sequencer, Timer};
        Self {
            threads: vec![
                plan("seq-match", &[Sequencer, Matcher, Timer], Some(first_core), Wait::Spin),
                plan("journal", &[Journal], Some(first_core + 1), Wait::Yield),
            ],
        }
    }

    /// Everything on one spinning core.
    #[must_use]
    pub fn fused(core: usize) -> Self {
        Self { threads: vec![plan("venue", &StageName::ALL, Some(core), Wait::Spin)] }
    }

    /// Two threads that sleep when there is nothing to do.
    #[must_use]
    pub fn parked() -> Self {
        use StageName::{Journal, Matcher, Sequencer, Timer};
        Self {
            threads: vec![
                plan("seq-match", &[Sequencer, Matcher, Timer], None, Wait::Park),
                plan("journal", &[Journal], None, Wait::Park),
            ],
        }
    }

    /// The layout for a machine of `cores`, and why. Busy threads must be fewer than cores, and the gateways need some too.
    #[must_use]
    pub fn for_cores(cores: usize) -> (Self, String) {
        // The last cores: the first ones serve the system's interrupts.
        match cores {
            8.. => (
                Self::spread(cores - 3),
                format!("{cores} cores: three spin for the order path, the rest serve"),
            ),
            4.. => {
                (Self::paired(cores - 2), format!("{cores} cores: two for the order path, two or more serve"))
            }
            _ => (
                Self::parked(),
                format!("{cores} cores: spinning would take a core from everybody else, so threads park"),
            ),
        }
    }

    /// The same stages on the same threads, fit for a machine of `cores`: where threads that wait busily would leave no core to others, the
    /// stages they wait for among them, all park and none is pinned; and why, if so.
    #[must_use]
    pub fn fit(mut self, cores: usize) -> (Self, Option<String>) {
        let busy = self.threads.iter().filter(|thread| thread.wait != Wait::Park).count();
        if busy < cores.max(1) {
            return (self, None);
        }
        for thread in &mut self.threads {
            (thread.wait, thread.core) = (Wait::Park, None);
        }
        (
            self,
            Some(format!(
                "{busy} threads that wait busily leave nobody else one of {cores} cores, so all park"
            )),
        )
    }

    /// The layout for this machine; logs its choice.
    #[must_use]
    pub fn auto() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (layout, why) = Self::for_cores(cores);
        tracing::info!(%layout, why, "thread layout chosen");
        layout
    }

    /// Checks that each stage is on exactly one thread.
    ///
    /// # Errors
    /// [`LayoutError::Stage`].
    pub fn check(&self) -> Result<(), LayoutError> {
        for stage in StageName::ALL {
            let threads =
                self.threads.iter().flat_map(|thread| &thread.stages).filter(|s| **s == stage).count();
            if threads != 1 {
                return Err(LayoutError::Stage { stage, threads });
            }
        }
        Ok(())
    }
}

impl fmt::Display for ThreadLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, thread) in self.threads.iter().enumerate() {
            let between = if nth > 0 { ", " } else { "" };
            write!(f, "{between}{} {:?}", thread.name, thread.wait)?;
            if let Some(core) = thread.core {
                write!(f, " on core {core}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for ThreadLayout {
    type Err = LayoutError;

    /// A preset by name; those that pin count back from the last core.
    fn from_str(name: &str) -> Result<Self, LayoutError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match name {
            "auto" => Ok(Self::auto()),
            "spread" => Ok(Self::spread(cores.saturating_sub(3))),
            "paired" => Ok(Self::paired(cores.saturating_sub(2))),
            "fused" => Ok(Self::fused(cores - 1)),
            "parked" => Ok(Self::parked()),
            other => Err(LayoutError::Unknown(other.to_owned())),
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; step again.
    Worked,
    /// Nothing to do for now.
    Idle,
    /// It has ended and need not be stepped again.
    Done,
}

/// A stage: all its work is in `step`, which never waits, so any thread, test or simulator can drive it.
pub trait Stage: Send {
    /// Does what there is to do now.
    fn step(&mut self) -> Step;

    /// True when a step would do something; asked last before the thread parks.
    fn has_work(&self) -> bool;

    /// Where commands come in past the ring, from the thread that steps this stage; only the sequencer has such a place.
    fn inlet(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// False if nobody waits for what it does: a thread that spins then looks after it now and then.
    fn is_urgent(&self) -> bool {
        true
    }

    /// Longest time it may be left alone, if not for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// A thread that spins steps stages that are not urgent in one of so many turns without work.
const LEISURE: u32 = 32;
/// As many of those as a turn with work counts for.
const WORKED: u32 = 8;

/// Steps the stages until all have ended, which is `true`, or somebody has called for them.
pub(crate) fn drive(
    stages: &mut Vec<Box<dyn Stage>>,
    wait: Wait,
    sleeper: &Sleeper,
    called: &AtomicBool,
) -> bool {
    let mut since: u32 = LEISURE;
    while !stages.is_empty() {
        if called.load(Ordering::Relaxed) {
            return false;
        }
        let all = wait != Wait::Spin || since >= LEISURE;
        since = if all { 0 } else { since };
        if turn(stages, |stage| all || stage.is_urgent()) {
            since += WORKED;
            continue;
        }
        since += 1;
        match wait {
            Wait::Spin => std::hint::spin_loop(),
            Wait::Yield => std::thread::yield_now(),
            Wait::Park => {
                let has_work =
                    || called.load(Ordering::Relaxed) || stages.iter().any(|stage| stage.has_work());
                sleeper.sleep(patience(stages), has_work);
            }
        }
    }
    true
}

/// Steps each stage that has its turn once, and forgets those that have ended; false if there was nothing to do.
pub(crate) fn turn(stages: &mut Vec<Box<dyn Stage>>, has_turn: impl Fn(&dyn Stage) -> bool) -> bool {
    let mut worked = false;
    stages.retain_mut(|stage| {
        let step = if has_turn(&**stage) { stage.step() } else { Step::Idle };
        worked |= step != Step::Idle;
        step != Step::Done
    });
    worked
}

/// Longest time that all of them may be left alone, if not for ever.
pub(crate) fn patience(stages: &[Box<dyn Stage>]) -> Option<Duration> {
    stages.iter().filter_map(|stage| stage.patience()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_runs_each_stage_once() {
        for name in ["auto", "spread", "paired", "fused", "parked"] {
            let layout: ThreadLayout = name.parse().expect("a preset");
            assert_eq!(layout.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn no_thread_is_busy_on_two_cores() {
        for cores in 1..4 {
            let (layout, _) = ThreadLayout::for_cores(cores);
            assert!(layout.threads.iter().all(|thread| thread.wait == Wait::Park), "{cores} cores");
        }
        for cores in 4..130 {
            let (layout, _) = ThreadLayout::for_cores(cores);
            let busy = layout.threads.iter().filter(|thread| thread.wait != Wait::Park).count();
            assert!(busy < cores, "{cores} cores");
            let cores_used: Vec<_> = layout.threads.iter().filter_map(|thread| thread.core).collect();
            assert!(cores_used.iter().all(|core| *core < cores), "{cores} cores");
        }
    }

    #[test]
    fn a_layout_that_would_spin_against_itself_parks_instead() {
        for (preset, cores, fits) in [
            (ThreadLayout::spread(0), 2, false),
            (ThreadLayout::spread(0), 3, false),
            (ThreadLayout::spread(0), 4, true),
            (ThreadLayout::paired(0), 2, false),
            (ThreadLayout::paired(0), 3, true),
            (ThreadLayout::fused(0), 1, false),
            (ThreadLayout::fused(0), 2, true),
            (ThreadLayout::parked(), 1, true),
        ] {
            let (fit, why) = preset.clone().fit(cores);
            assert_eq!(why.is_none(), fits, "{preset} on {cores} cores");
            assert_eq!(fit.check(), Ok(()));
            if fits {
                assert_eq!(fit, preset);
            } else {
                assert!(fit.threads.iter().all(|thread| thread.wait == Wait::Park && thread.core.is_none()));
            }
        }
    }

    #[test]
    fn a_layout_that_forgets_or_repeats_a_stage_is_refused() {
        let mut layout = ThreadLayout::parked();
        layout.threads[0].stages.pop();
        assert_eq!(layout.check(), Err(LayoutError::Stage { stage: StageName::Timer, threads: 0 }));
        layout.threads[0].stages.extend([StageName::Timer, StageName::Journal]);
        assert_eq!(layout.check(), Err(LayoutError::Stage { stage: StageName::Journal, threads: 2 }));
        assert_eq!("busy".parse::<ThreadLayout>(), Err(LayoutError::Unknown("busy".to_owned())));
    }
}
