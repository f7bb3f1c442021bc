//! A venue without a network: its stages on the threads of a layout, and this process at both of its ends. Whoever measures brings the machine, the
//! commands and the disk.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use grid_harness::floors::pair_of_cores;
use grid_harness::{OpenLoop, histogram, nanos, per_second};
use grid_sequencer::{
    Config, Disk, Handle, Inline, JournalConfig, Machine, Metrics, Output, OutputPoller, Polled, Sequencer,
    Stopped, SubmitError, Submitter, ThreadLayout, Wait, recover_on,
};
use hdrhistogram::Histogram;

/// The benches' own output.
const OUTPUT: &str = "bench";
/// Outputs taken at a time.
const BATCH: usize = 64;
/// Longest sleep of one who waits and parks; a wake-up ends it earlier.
const NAP: Duration = Duration::from_millis(1);

/// A layout, and where and how this process waits at the venue's ends.
#[derive(Clone, Debug)]
pub struct Seating {
    /// Name of the layout.
    pub name: &'static str,
    /// The venue's threads.
    pub layout: ThreadLayout,
    /// The core of the thread that submits and polls; the venue's are others.
    pub client: Option<CoreId>,
    /// What that thread does while it has nothing.
    pub wait: Wait,
    /// Hand-offs between threads on the way of one command, there and back.
    pub hops: u32,
}

impl Seating {
    /// Those that this machine has cores for: `fused` with the client spinning on another core, `spread` where every stage has one too, and
    /// `parked` anywhere.
    #[must_use]
    pub fn of_this_machine() -> Vec<Self> {
        let mut seatings = Vec::new();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        if let Some((client, venue)) = pair_of_cores() {
            let layout = ThreadLayout::fused(venue.id);
            seatings.push(Self { name: "fused", layout, client: Some(client), wait: Wait::Spin, hops: 2 });
        }
        // Three for the stages, one for the client, and some for everybody else.
        if let [.., client, first, _, _] = cores.as_slice()
            && cores.len() >= 6
        {
            let layout = ThreadLayout::spread(first.id);
            // In, to the journal, back to the sequencer that commits, to the matcher, out.
            seatings.push(Self { name: "spread", layout, client: Some(*client), wait: Wait::Spin, hops: 5 });
        }
        // In, to the journal, back, out: sequencer and matcher share a thread.
        let layout = ThreadLayout::parked();
        seatings.push(Self { name: "parked", layout, client: None, wait: Wait::Park, hops: 4 });
        seatings
    }
}

/// A running venue and its two ends.
pub struct Inside<M: Machine> {
    handle: Handle<M>,
    ends: Ends<M>,
}

/// The way in and the way out, for the thread that measures.
pub struct Ends<M: Machine> {
    submitter: Submitter<M>,
    outputs: OutputPoller<M>,
    batch: Vec<Arc<Output<M>>>,
    wait: Wait,
}

impl<M: Machine> std::fmt::Debug for Inside<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").field("data_dir", &self.handle.data_dir()).finish_non_exhaustive()
    }
}

impl<M: Machine> Inside<M> {
    /// A venue from its first command.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        dir: &Path,
        disk: Arc<dyn Disk>,
        seating: &Seating,
        genesis: impl FnOnce() -> M,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_with(dir, disk, seating, genesis, |_| {})
    }

    /// The same, with a configuration changed by `adapt`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(
        dir: &Path,
        disk: Arc<dyn Disk>,
        seating: &Seating,
        genesis: impl FnOnce() -> M,
        adapt: impl FnOnce(&mut Config),
    ) -> Result<Self, Box<dyn Error>> {
        let recovered = recover_on(disk, Arc::new(Inline), dir, JournalConfig::default(), genesis, |_| {})?;
        let mut config = Config { layout: seating.layout.clone(), ..Config::new(&[OUTPUT]) };
        adapt(&mut config);
        let mut handle = Sequencer::start(recovered, config)?;
        let outputs = handle.take_output(OUTPUT).ok_or("the output is configured")?;
        let submitter = handle.submitter();
        let ends = Ends { submitter, outputs, batch: Vec::with_capacity(BATCH), wait: seating.wait };
        Ok(Self { handle, ends })
    }

    /// Its two ends.
    pub fn ends(&mut self) -> &mut Ends<M> {
        &mut self.ends
    }

    /// Its figures, which outlive it.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.handle.metrics()
    }

    /// Ends it in good order.
    #[must_use]
    pub fn stop(self) -> Stopped<M> {
        let Self { handle, ends } = self;
        drop(ends);
        handle.shutdown()
    }
}

impl<M: Machine> Ends<M> {
    /// Hands a command in; gives it back if the ring is full.
    fn try_submit(
        &mut self,
        command: M::Command,
    ) -> Result<Option<M::Command>, Box<dyn Error + Send + Sync>> {
        match self.submitter.try_submit(command) {
            Ok(()) => Ok(None),
            Err(SubmitError::Full(command)) => Ok(Some(command)),
            Err(refused) => Err(refused.to_string().into()),
        }
    }

    /// Takes what was told into `batch`; true if there was something.
    fn poll(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        self.batch.clear();
        match self.outputs.poll(BATCH, &mut self.batch) {
            Polled::Some(_) => {
                self.outputs.sent();
                Ok(true)
            }
            Polled::Empty => Ok(false),
            Polled::Closed => Err("the venue ended".into()),
        }
    }

    fn idle(&self, at_most: Duration) {
        match self.wait {
            Wait::Spin => std::hint::spin_loop(),
            Wait::Yield => std::thread::yield_now(),
            Wait::Park => self.outputs.wait(at_most),
        }
    }

    fn told(&self) -> u64 {
        self.batch.iter().map(|output| output.commands() as u64).sum()
    }

    /// One command after the other, each handed in when the one before it is told: what each took, in nanoseconds. `see` looks at every output, outside
    /// of what is timed.
    ///
    /// # Errors
    /// The venue ended, or `see` found something wrong.
    pub fn one_by_one(
        &mut self,
        load: impl IntoIterator<Item = M::Command>,
        mut see: impl FnMut(&Output<M>) -> Result<(), String>,
    ) -> Result<Histogram<u64>, Box<dyn Error + Send + Sync>> {
        let mut record = histogram();
        for command in load {
            let begin = Instant::now();
            if self.try_submit(command)?.is_some() {
                return Err("an idle ring has room".into());
            }
            loop {
                if self.poll()? && self.told() > 0 {
                    break;
                }
                self.idle(NAP);
            }
            record.saturating_record(nanos(begin.elapsed()));
            self.batch.iter().try_for_each(|output| see(output))?;
        }
        Ok(record)
    }

    /// Commands at their planned times: what each took from then, in nanoseconds, and how many per second were answered.
    ///
    /// # Errors
    /// The venue ended, or there are fewer commands than planned.
    pub fn at_rate(
        &mut self,
        mut load: VecDeque<M::Command>,
        rate: f64,
    ) -> Result<(Histogram<u64>, f64), Box<dyn Error + Send + Sync>> {
        let mut record = histogram();
        let plan = OpenLoop::start_with(rate, load.len() as u64);
        let (mut sent, mut answered) = (0, 0);
        loop {
            let due = plan.due(Instant::now());
            while sent < due {
                let command = load.pop_front().ok_or("as many as planned")?;
                if let Some(command) = self.try_submit(command)? {
                    load.push_front(command);
                    break;
                }
                sent += 1;
            }
            if self.poll()? {
                let now = Instant::now();
                for _ in 0..self.told() {
                    plan.answered(answered, now, &mut record);
                    answered += 1;
                }
                if answered == plan.commands() {
                    return Ok((record, plan.reached(now)));
                }
            } else {
                self.idle(plan.planned(sent).saturating_duration_since(Instant::now()).min(NAP));
            }
        }
    }

    /// As many as the venue takes, until the last is told: how many per second.
    ///
    /// # Errors
    /// The venue ended.
    pub fn all_at_once(
        &mut self,
        mut load: VecDeque<M::Command>,
    ) -> Result<f64, Box<dyn Error + Send + Sync>> {
        let (all, mut told) = (load.len() as u64, 0);
        let begin = Instant::now();
        while told < all {
            for _ in 0..BATCH {
                let Some(command) = load.pop_front() else { break };
                if let Some(command) = self.try_submit(command)? {
                    load.push_front(command);
                    break;
                }
            }
            if self.poll()? {
                told += self.told();
            } else if self.wait == Wait::Park || load.is_empty() {
                self.idle(NAP);
            }
        }
        Ok(per_second(all, begin.elapsed()))
    }
}
