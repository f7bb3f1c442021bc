//! Putting the stages together, starting them on the threads of a layout, and stopping them without losing anything.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::block::{BLOCK_ALIGN, HEADER_BYTES, Position};
use crate::clock::{Clock, Stamper};
use crate::consensus::{Consensus, Solo};
use crate::doorbell::{Doorbell, Sleeper, doorbell};
use crate::inbound::{Door, Submitter, inbound};
use crate::journal::JournalError;
use crate::layout::{LayoutError, Stage, StageName, ThreadLayout, ThreadPlan, run_thread};
use crate::machine::Machine;
use crate::outbound::{OutputPoller, outbound};
use crate::recover::{DataDir, Recovered};
use crate::stages::{
    BlockLimits, Cursors, JournalStage, MatcherStage, Pending, SequencerStage, Status, TimerStage,
};

/// How a sequencer runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which stage runs on which thread.
    pub layout: ThreadLayout,
    /// Commands that may wait to be sequenced; a power of two, at least 64.
    pub inbound_slots: usize,
    /// Blocks between sequencer and matcher; a power of two.
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

impl Sequencer {
    /// Starts on a recovered state as a cluster of one voter.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start<M: Machine>(recovered: Recovered<M>, config: Config) -> Result<Handle<M>, StartError> {
        let solo = Solo::new(recovered.hard_state, recovered.position);
        Self::start_with(recovered, config, Box::new(solo))
    }

    /// Starts on a recovered state with a given consensus core.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with<M: Machine>(
        recovered: Recovered<M>,
        config: Config,
        consensus: Box<dyn Consensus>,
    ) -> Result<Handle<M>, StartError> {
        check(&recovered, &config)?;
        let Recovered { machine, hard_state, mut journal, data, .. } = recovered;
        if consensus.hard_state() != hard_state {
            journal.append_hard_state(consensus.hard_state())?;
        }
        let position = journal.position();
        let bells = Bells::new(&config.layout);
        let cursors = Arc::new(Cursors {
            sequenced: CachePadded::new(AtomicU64::new(position.index)),
            sequencer_done: AtomicBool::new(false),
            committed: CachePadded::new(AtomicU64::new(consensus.committed())),
            groups: AtomicU64::new(0),
            applied: CachePadded::new(AtomicU64::new(position.index)),
            applied_seq: AtomicU64::new(position.seq.0),
            deadline: AtomicU64::new(machine.next_deadline().map_or(u64::MAX, |at| at.0)),
            sequencer_blocked: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            bell_sequencer: bells.of(StageName::Sequencer),
            bell_journal: bells.of(StageName::Journal),
            bell_matcher: bells.of(StageName::Matcher),
            bell_timer: bells.of(StageName::Timer),
        });
        let door = Arc::new(Door::default());
        let (submitter, inbound) = inbound::<M>(
            config.inbound_slots,
            config.command_bytes_max,
            Arc::clone(&door),
            bells.of(StageName::Sequencer),
        );
        let (outbound, outputs) =
            outbound::<M>(config.outbound_slots, &config.outputs, bells.of(StageName::Matcher));
        let log = disruptor::build_single_producer(config.log_slots, || None, disruptor::BusySpin)
            .with_multi_consumer();
        let (log_to_journal, log) = log.new_event_poller();
        let (log_to_matcher, log) = log.new_event_poller();
        let consensus = Arc::new(Mutex::new(consensus));
        let ended = Arc::new(Mutex::new(None));
        let mut stages: Vec<(StageName, Box<dyn Stage>)> = vec![
            (
                StageName::Sequencer,
                Box::new(SequencerStage::<M> {
                    inbound,
                    door: Arc::clone(&door),
                    log: log.build(),
                    log_slots: config.log_slots as u64,
                    consensus: Arc::clone(&consensus),
                    clock: config.clock.clone(),
                    stamper: Stamper::new(config.clock.clone(), position.at),
                    limits: config.block,
                    position,
                    pending: Pending::new(),
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Journal,
                Box::new(JournalStage {
                    log: log_to_journal,
                    journal,
                    consensus,
                    group: Vec::new(),
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Matcher,
                Box::new(MatcherStage {
                    log: log_to_matcher,
                    machine: Some(machine),
                    outbound,
                    refused: None,
                    blocked_since: None,
                    position,
                    events: Vec::new(),
                    ended: Arc::clone(&ended),
                    cursors: Arc::clone(&cursors),
                }),
            ),
            (
                StageName::Timer,
                Box::new(TimerStage {
                    submitter: submitter.clone(),
                    door: Arc::clone(&door),
                    clock: config.clock,
                    cursors: Arc::clone(&cursors),
                    submitted: None,
                    wall_seen: Instant::now(),
                }),
            ),
        ];
        let mut threads = Vec::new();
        for (plan, sleeper) in bells.threads {
            let of_thread = plan.stages.iter().filter_map(|name| {
                let at = stages.iter().position(|(stage, _)| stage == name)?;
                Some(stages.swap_remove(at).1)
            });
            let of_thread = of_thread.collect();
            threads.push(run_thread(plan, of_thread, sleeper)?);
        }
        Ok(Handle {
            submitter: Some(submitter),
            outputs: outputs.into_iter().map(Some).collect(),
            door,
            cursors,
            threads,
            ended,
            grace: config.grace,
            data,
        })
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
    threads: Vec<(ThreadPlan, Sleeper)>,
}

impl Bells {
    fn new(layout: &ThreadLayout) -> Self {
        let mut bells = Self { by_stage: Vec::new(), threads: Vec::new() };
        for plan in &layout.threads {
            let (bell, sleeper) = doorbell();
            bells.by_stage.extend(plan.stages.iter().map(|stage| (*stage, Arc::clone(&bell))));
            bells.threads.push((plan.clone(), sleeper));
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
    threads: Vec<JoinHandle<()>>,
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

    /// Where the stages are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.cursors.status()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Stops cleanly: refuses new commands, sequences, journals, applies and publishes all that were taken, and ends the threads.
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
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < give_up {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.cursors.abandon.store(true, Ordering::Release);
        bell_matcher.ring();
        for thread in self.threads.drain(..) {
            // A panic in it would have ended the process.
            let _ = thread.join();
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
