//! Putting the stages together, starting them on the threads of a layout, and stopping them without losing anything.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::block::{BLOCK_ALIGN, HEADER_BYTES, Position};
use crate::clock::{Clock, Stamper};
use crate::clocks::Clocks;
use crate::consensus::{Consensus, Solo};
use crate::door::Door;
use crate::doorbell::{Doorbell, Sleeper, doorbell};
use crate::driver::{Drive, Driver};
use crate::hosted::{Lender, Running as RunningThread, run_thread};
use crate::inbound::{Submitter, inbound};
use crate::journal::JournalError;
use crate::lane::lane;
use crate::layout::{LayoutError, Stage, StageName, ThreadLayout, ThreadPlan};
use crate::leadership::{Board, LeaderWatch};
use crate::machine::Machine;
use crate::metrics::{Metrics, Watch};
use crate::outbound::{OutputPoller, outbound};
use crate::recover::{DataDir, Recovered};
use crate::stages::{
    BlockLimits, Cursors, JournalStage, MatcherStage, Pending, SequencerStage, StageBells, Status, TimerStage,
};
use crate::sync::{Arc, Mutex, Ordering, PoisonError};

/// How a sequencer runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which stage runs on which thread.
    pub layout: ThreadLayout,
    /// Commands that may wait to be sequenced; a power of two, at least 64.
    pub inbound_slots: usize,
    /// Most blocks that may be proposed and not yet applied; a power of two.
    pub log_slots: usize,
    /// Blocks between matcher and the slowest consumer; a power of two.
    pub outbound_slots: usize,
    /// When a block closes.
    pub block: BlockLimits,
    /// Most bytes of one command's log form.
    pub command_bytes_max: usize,
    /// Names of the consumers of outputs; each gets an [`OutputPoller`].
    pub outputs: Vec<String>,
    /// How long a shutdown waits for consumers that do not read.
    pub grace: Duration,
    /// Where stamps and deadlines come from.
    pub clock: Clock,
    /// How long one step of the consensus core's time is; elections and heartbeats count in these.
    pub core_tick: Duration,
    /// The stage clocks follow one command of each producer's in so many; 0 for none.
    pub clock_every: u32,
    /// A stage that has work and gets nowhere for longer than this is named in the log; zero for never.
    pub stall_after: Duration,
}

impl Config {
    /// Sensible sizes, the layout for this machine, and consumers of the given names.
    #[must_use]
    pub fn new(outputs: &[&str]) -> Self {
        Self {
            layout: ThreadLayout::auto(),
            inbound_slots: 8192,
            log_slots: 512,
            outbound_slots: 1024,
            block: BlockLimits::default(),
            command_bytes_max: 64 << 10,
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            grace: Duration::from_secs(5),
            clock: Clock::system(),
            core_tick: Duration::from_millis(50),
            clock_every: 32,
            stall_after: Duration::from_secs(1),
        }
    }
}

/// Why a sequencer did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The layout cannot run.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Term and vote could not be journalled, or segments are too small.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A ring's size cannot work.
    #[error("{ring}_slots is {slots}; it must be a power of two, at least {least}")]
    Ring {
        /// Which ring.
        ring: &'static str,
        /// The configured size.
        slots: usize,
        /// The smallest size allowed.
        least: usize,
    },
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The order path of one node; see [`Sequencer::start`].
#[derive(Debug)]
pub struct Sequencer;

/// What its owner has of a running sequencer, and the way to its core.
pub type Running<M, C> = (Handle<M>, Driver<C, <M as Machine>::Command>);

/// The stages of one node, put together and not yet on any thread: whoever holds them steps them.
pub struct Assembly<M: Machine, C> {
    /// Every stage of the layout's names, once each.
    pub stages: Vec<(StageName, Box<dyn Stage>)>,
    /// What a running sequencer's owner has. It stops nothing here: stop stepping instead.
    pub handle: Handle<M>,
    /// The way to the consensus core.
    pub driver: Driver<C, M::Command>,
    threads: Vec<(ThreadPlan, Sleeper, Arc<Doorbell>)>,
}

impl Sequencer {
    /// Starts on a recovered state as one voter without raft, and returns when it takes commands; for tests and benches.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start<M: Machine>(recovered: Recovered<M>, config: Config) -> Result<Handle<M>, StartError> {
        let solo = Solo::new(recovered.hard_state, recovered.position, &recovered.tail);
        let (handle, _) = Self::start_with(recovered, config, solo)?;
        // The journal's first write; if it fails, the process ends.
        let _ = handle.leadership().wait_to_lead(Duration::MAX);
        Ok(handle)
    }

    /// Starts on a recovered state with a given consensus core.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with<M: Machine, C: Consensus>(
        recovered: Recovered<M>,
        mut config: Config,
        consensus: C,
    ) -> Result<Running<M, C>, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (layout, why) = config.layout.fit(cores);
        config.layout = layout;
        if let Some(why) = why {
            tracing::warn!(why, "the thread layout is another one than was asked for");
        }
        let (clock, stall_after) = (config.clock.clone(), config.stall_after);
        let Assembly { mut stages, mut handle, driver, threads } =
            Self::assemble(recovered, config, consensus)?;
        if !stall_after.is_zero() {
            handle.watch = Some(Watch::start(handle.metrics(), clock, stall_after)?);
        }
        for (plan, sleeper, bell) in threads {
            let of_thread = plan.stages.iter().filter_map(|name| {
                let at = stages.iter().position(|(stage, _)| stage == name)?;
                Some(stages.swap_remove(at).1)
            });
            let of_thread = of_thread.collect();
            handle.threads.push(run_thread(plan, of_thread, sleeper, bell)?);
        }
        // Now that the journal and the matcher are there: what the core wanted done since it was made.
        driver.drive(|_| ());
        Ok((handle, driver))
    }

    /// Puts the stages together without starting a thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn assemble<M: Machine, C: Consensus>(
        recovered: Recovered<M>,
        config: Config,
        consensus: C,
    ) -> Result<Assembly<M, C>, StartError> {
        check(&recovered, &config)?;
        let Recovered { machine, position, journal, data, .. } = recovered;
        let bells = Bells::new(&config.layout);
        let board = Arc::new(Board::starting_at(position.term));
        let door = Arc::new(Door::default());
        let clocks = Clocks::new(config.clock.clone(), config.clock_every);
        let cursors = Arc::new(Cursors::at(
            &position,
            machine.next_deadline(),
            Arc::clone(&board),
            Arc::clone(&door),
            Arc::clone(&clocks),
            StageBells {
                sequencer: bells.of(StageName::Sequencer),
                journal: bells.of(StageName::Journal),
                matcher: bells.of(StageName::Matcher),
                timer: bells.of(StageName::Timer),
            },
        ));
        // The timer has to look again when this node begins to lead.
        let bell_timer = bells.of(StageName::Timer);
        LeaderWatch(Arc::clone(&board)).wake_with(Arc::new(move || bell_timer.ring()));
        let (submitter, inbound) = inbound::<M>(
            config.inbound_slots,
            config.command_bytes_max,
            Arc::clone(&door),
            Arc::clone(&board),
            bells.of(StageName::Sequencer),
            &clocks,
        );
        let matchers_bell = bells.of(StageName::Matcher);
        let (outbound, outputs) =
            outbound::<M>(config.outbound_slots, &config.outputs, matchers_bell, Arc::clone(&clocks));
        let (to_journal, from_core) = lane(config.log_slots);
        let (to_matcher, committed) = lane(config.log_slots);
        let driver = Driver::new(consensus, to_journal, to_matcher, Arc::clone(&cursors));
        let core: Arc<dyn Drive<M::Command>> = Arc::new(driver.clone());
        let ended = Arc::new(Mutex::new(None));
        let now = config.clock.monotonic();
        let stages: Vec<(StageName, Box<dyn Stage>)> = vec![
            (
                StageName::Sequencer,
                Box::new(SequencerStage::<M> {
                    inbound,
                    door: Arc::clone(&door),
                    core: Arc::clone(&core),
                    log_slots: config.log_slots as u64,
                    clock: config.clock.clone(),
                    stamper: Stamper::new(config.clock.clone(), position.at),
                    open: config.block.open,
                    pending: Pending::new(config.block),
                    held: false,
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Journal,
                Box::new(JournalStage {
                    input: from_core,
                    journal,
                    core: Arc::clone(&core),
                    group: Vec::new(),
                    released: 0,
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Matcher,
                Box::new(MatcherStage {
                    input: committed,
                    core: Arc::clone(&core),
                    machine: Some(machine),
                    outbound,
                    applied: VecDeque::new(),
                    blocked_since: None,
                    position,
                    batch: Vec::new(),
                    ended: Arc::clone(&ended),
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Timer,
                Box::new(TimerStage {
                    submitter: submitter.clone(),
                    core,
                    door: Arc::clone(&door),
                    clock: config.clock.clone(),
                    cursors: Arc::clone(&cursors),
                    submitted: None,
                    core_tick: config.core_tick,
                    core_ticked: now,
                    wall_seen: now,
                }),
            ),
        ];
        let handle = Handle {
            submitter: Some(submitter),
            outputs: outputs.into_iter().map(Some).collect(),
            door,
            metrics: Metrics::new(Arc::clone(&cursors), clocks),
            cursors,
            threads: Vec::new(),
            watch: None,
            ended,
            grace: config.grace,
            data,
        };
        Ok(Assembly { stages, handle, driver, threads: bells.threads })
    }
}

fn check<M: Machine>(recovered: &Recovered<M>, config: &Config) -> Result<(), StartError> {
    config.layout.check()?;
    let rings = [
        ("inbound", config.inbound_slots, 64),
        ("log", config.log_slots, 2),
        ("outbound", config.outbound_slots, 2),
    ];
    for (ring, slots, least) in rings {
        if !slots.is_power_of_two() || slots < least {
            return Err(StartError::Ring { ring, slots, least });
        }
    }
    let payload = config.block.bytes.max(config.command_bytes_max + 4);
    let block_bytes = (HEADER_BYTES + payload).next_multiple_of(BLOCK_ALIGN) as u64;
    if block_bytes > recovered.journal.largest_block() {
        let segment_bytes = recovered.journal.largest_block();
        return Err(JournalError::SegmentTooSmall { segment_bytes, block_bytes }.into());
    }
    Ok(())
}

/// One doorbell per thread, found by the stage behind it.
struct Bells {
    by_stage: Vec<(StageName, Arc<Doorbell>)>,
    threads: Vec<(ThreadPlan, Sleeper, Arc<Doorbell>)>,
}

impl Bells {
    fn new(layout: &ThreadLayout) -> Self {
        let mut bells = Self { by_stage: Vec::new(), threads: Vec::new() };
        for plan in &layout.threads {
            let (bell, sleeper) = doorbell();
            bells.by_stage.extend(plan.stages.iter().map(|stage| (*stage, Arc::clone(&bell))));
            bells.threads.push((plan.clone(), sleeper, bell));
        }
        bells
    }

    fn of(&self, stage: StageName) -> Arc<Doorbell> {
        let found = self.by_stage.iter().find(|(name, _)| *name == stage);
        Arc::clone(&found.expect("a checked layout has every stage").1)
    }
}

/// A running sequencer. Dropping it shuts down as [`Handle::shutdown`] does.
#[derive(Debug)]
pub struct Handle<M: Machine> {
    submitter: Option<Submitter<M>>,
    outputs: Vec<Option<OutputPoller<M>>>,
    door: Arc<Door>,
    cursors: Arc<Cursors>,
    metrics: Metrics,
    threads: Vec<RunningThread>,
    watch: Option<Watch>,
    ended: Arc<Mutex<Option<(M, Position)>>>,
    grace: Duration,
    data: DataDir,
}

/// What a clean stop leaves.
#[derive(Debug)]
pub struct Stopped<M> {
    /// The machine after the last command, all of which are on disk.
    pub machine: M,
    /// Where the log stands.
    pub position: Position,
}

impl<M: Machine> Handle<M> {
    /// A new producer's handle.
    ///
    /// # Panics
    /// Never: the handle keeps one until it is consumed.
    #[must_use]
    pub fn submitter(&self) -> Submitter<M> {
        self.submitter.clone().expect("present until shutdown")
    }

    /// The poller of the consumer with this name; `None` if there is none, or it was taken.
    pub fn take_output(&mut self, name: &str) -> Option<OutputPoller<M>> {
        self.outputs
            .iter_mut()
            .find(|output| output.as_ref().is_some_and(|output| output.name() == name))?
            .take()
    }

    /// The node's figures, to look at from anywhere.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Where the stages are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.cursors.status()
    }

    /// Who leads, and whether this node may answer clients.
    #[must_use]
    pub fn leadership(&self) -> LeaderWatch {
        LeaderWatch(Arc::clone(&self.cursors.board))
    }

    /// Where a host that has an event loop of its own borrows the stages of the matcher's thread, to step them itself. `None` if
    /// they are on no thread of this sequencer's.
    #[must_use]
    pub fn lender(&self) -> Option<Lender> {
        let matcher = |running: &&RunningThread| running.plan.stages.contains(&StageName::Matcher);
        self.threads.iter().find(matcher).map(|running| running.lender.clone())
    }

    /// A way to let the journal drop segments that hold nothing above an index, as far as its own retention allows.
    pub fn release_log(&self) -> impl Fn(u64) + Send + Sync + use<M> {
        let cursors = Arc::clone(&self.cursors);
        move |index| {
            cursors.release.fetch_max(index, Ordering::AcqRel);
            cursors.bell_journal.ring();
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Stops cleanly: refuses new commands, sequences, journals, applies and publishes all that were taken, and ends the threads.
    ///
    /// A leader without a quorum cannot finish what it took: it gives up after the grace period, and whoever sent those
    /// commands was told nothing.
    ///
    /// Consumers should go on reading until they see the end. One that does not delays this by the grace period at most;
    /// outputs that no longer fit into its ring are then not published, but their commands are in the journal like all others.
    ///
    /// # Panics
    /// If a stage thread ended without its stage having ended: a fault.
    pub fn shutdown(mut self) -> Stopped<M> {
        self.stop();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (machine, position) = ended.expect("the matcher hands over its machine when it ends");
        Stopped { machine, position }
    }

    fn stop(&mut self) {
        self.submitter = None;
        // Pollers that nobody took would never be read.
        self.outputs.clear();
        self.door.close();
        let Cursors { bell_sequencer, bell_timer, bell_matcher, .. } = &*self.cursors;
        bell_sequencer.ring();
        bell_timer.ring();
        let give_up = Instant::now() + self.grace;
        while self.threads.iter().any(|running| !running.thread.is_finished()) && Instant::now() < give_up {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.cursors.abandon.store(true, Ordering::Release);
        bell_matcher.ring();
        if let Some(watch) = self.watch.take() {
            watch.stop();
        }
        for running in self.threads.drain(..) {
            // A panic in it would have ended the process.
            let _ = running.thread.join();
        }
    }
}

impl<M: Machine> Drop for Handle<M> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
        }
    }
}
