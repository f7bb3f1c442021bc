//! A small venue on model threads, and what is to hold in every schedule of it.

use std::collections::VecDeque;
use std::time::Duration;

use grid_engine::{Nanos, Seq};
use shuttle::scheduler::{PctScheduler, RandomScheduler};

use crate::block::{Block, Position};
use crate::blocks::Blocks;
use crate::clock::{Clock, Stamper};
use crate::clocks::Clocks;
use crate::consensus::{Consensus, HardState, Leadership, Persist, Ready, Solo};
use crate::door::Door;
use crate::doorbell::{Sleeper, doorbell};
use crate::driver::{Drive, Driver, Next};
use crate::inbound::{SubmitError, Submitter, inbound};
use crate::journal::{Disk, Durability, Journal};
use crate::lane::lane;
use crate::layout::{Stage, Wait, drive};
use crate::leadership::{Board, LeaderWatch};
use crate::machine::{Machine, Unreadable};
use crate::outbound::{OutputPoller, Polled, outbound};
use crate::progress::Progress;
use crate::stages::{BlockLimits, Cursors, JournalStage, MatcherStage, Pending, SequencerStage, StageBells};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, PoisonError, thread};

/// Time that never passes in a model.
const EVER: Duration = Duration::from_secs(3600);
/// Schedules of each kind that a model goes through, where `GRID_SCHEDULES` does not say how many.
const SCHEDULES: usize = 3_000;
/// Slots of the rings: as few as they go.
const SLOTS: usize = 2;
/// Blocks between sequencer and matcher. More than the ring between core and matcher takes, as for a follower that catches up.
const WINDOW: u64 = 4;
/// Far more steps than a schedule takes in which nobody waits for what never comes.
const STEPS: usize = 100_000;

/// Runs `model` under schedules drawn at random, and as many that change threads rarely, but where it hurts.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("GRID_SCHEDULES").ok().and_then(|count| count.parse().ok());
    let schedules = schedules.unwrap_or(SCHEDULES);
    let config = || {
        let mut config = shuttle::Config::new();
        config.silence_warnings = true;
        config.stack_size = 1 << 18;
        config.max_steps = shuttle::MaxSteps::FailAfter(STEPS);
        config
    };
    let model = Arc::new(model);
    let (drawn, few) = (Arc::clone(&model), model);
    shuttle::Runner::new(RandomScheduler::new_from_seed(42, schedules), config()).run(move || drawn());
    shuttle::Runner::new(PctScheduler::new_from_seed(42, 3, schedules), config()).run(move || few());
}

/// Commands are numbers, and so are events.
#[derive(Debug, Default)]
struct Echo;

impl Machine for Echo {
    type Command = u64;
    type Event = u64;

    const FORMAT: u32 = 1;

    fn encode(command: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&command.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<u64, Unreadable> {
        bytes.try_into().map(u64::from_le_bytes).map_err(|_| Unreadable("no number".to_owned()))
    }

    fn apply(&mut self, _seq: Seq, _at: Nanos, command: &u64, out: &mut Vec<u64>) {
        out.push(*command);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> u64 {
        0
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(_bytes: &[u8]) -> Result<Self, Unreadable> {
        Ok(Self)
    }

    fn state_hash(&self) -> u64 {
        0
    }
}

/// One node, put together as the sequencer does it, on model threads.
struct Venue<C: Consensus> {
    submitter: Submitter<Echo>,
    outputs: Vec<OutputPoller<Echo>>,
    driver: Driver<C, u64>,
    watch: LeaderWatch,
    door: Arc<Door>,
    cursors: Arc<Cursors>,
    disk: Arc<Disk>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// A way to the core on which nobody says that there is room again.
struct Mute<C>(Driver<C, u64>);

impl<C: Consensus> Drive<u64> for Mute<C> {
    fn propose(&self, next: Next<'_, u64>) -> bool {
        self.0.propose(next)
    }

    fn persisted(&self, ticket: u64) {
        self.0.persisted(ticket);
    }

    fn tick(&self) {
        self.0.tick();
    }

    fn resume(&self) {}

    fn close(&self) {
        self.0.close();
    }
}

fn on_thread(mut stages: Vec<Box<dyn Stage>>, sleeper: Sleeper) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        drive(&mut stages, Wait::Park, &sleeper, &AtomicBool::new(false));
    })
}

impl<C: Consensus> Venue<C> {
    fn start(consensus: C, durability: Durability, outputs: &[&str]) -> Self {
        Self::with(consensus, durability, outputs, |driver| Arc::new(driver.clone()))
    }

    /// `matchers_way` is the matcher's way to the core.
    fn with(
        consensus: C,
        durability: Durability,
        outputs: &[&str],
        matchers_way: impl FnOnce(&Driver<C, u64>) -> Arc<dyn Drive<u64>>,
    ) -> Self {
        let position = Position::default();
        let (bell_order_path, order_path) = doorbell();
        let (bell_journal, journal_thread) = doorbell();
        let board = Arc::new(Board::starting_at(position.term));
        let door = Arc::new(Door::default());
        let clock = Clock::manual(Nanos(1));
        // Every command is timed: as much for the clocks to go wrong in as there can be.
        let clocks = Clocks::new(clock.clone(), 1);
        let cursors = Arc::new(Cursors::at(
            &position,
            None,
            Arc::clone(&board),
            Arc::clone(&door),
            Arc::clone(&clocks),
            StageBells {
                sequencer: Arc::clone(&bell_order_path),
                journal: bell_journal,
                matcher: Arc::clone(&bell_order_path),
                timer: Arc::clone(&bell_order_path),
            },
        ));
        let (submitter, inbound) = inbound::<Echo>(
            64,
            1024,
            Arc::clone(&door),
            Arc::clone(&board),
            Arc::clone(&bell_order_path),
            &clocks,
        );
        let names: Vec<String> = outputs.iter().map(|name| (*name).to_owned()).collect();
        let (outbound, outputs) = outbound::<Echo>(SLOTS, &names, bell_order_path, clocks);
        let (to_journal, from_core) = lane(SLOTS);
        let (to_matcher, committed) = lane(SLOTS);
        let driver = Driver::new(consensus, to_journal, to_matcher, Arc::clone(&cursors));
        let core: Arc<dyn Drive<u64>> = Arc::new(driver.clone());
        let disk = Arc::new(Disk::default());
        let sequencer = SequencerStage::<Echo> {
            inbound,
            door: Arc::clone(&door),
            core: Arc::clone(&core),
            log_slots: WINDOW,
            clock: clock.clone(),
            stamper: Stamper::new(clock, Nanos(1)),
            // A block for each command: as many hand-offs as there can be.
            open: Nanos(20_000),
            pending: Pending::new(BlockLimits { commands: 1, ..BlockLimits::default() }),
            held: false,
            cursors: Arc::clone(&cursors),
        };
        let journal = JournalStage {
            input: from_core,
            journal: Journal::new(Arc::clone(&disk), durability),
            core: Arc::clone(&core),
            group: Vec::new(),
            released: 0,
            cursors: Arc::clone(&cursors),
        };
        let matcher = MatcherStage {
            input: committed,
            core: matchers_way(&driver),
            machine: Some(Echo),
            outbound,
            applied: VecDeque::new(),
            blocked_since: None,
            position,
            batch: Vec::new(),
            ended: Arc::new(Mutex::new(None)),
            cursors: Arc::clone(&cursors),
        };
        let threads = vec![
            on_thread(vec![Box::new(sequencer), Box::new(matcher)], order_path),
            on_thread(vec![Box::new(journal)], journal_thread),
        ];
        driver.drive(|_| ());
        Self { submitter, outputs, driver, watch: LeaderWatch(board), door, cursors, disk, threads }
    }

    /// Ends as the handle of a running sequencer does.
    fn stop(self) {
        let Self { submitter, outputs, door, cursors, threads, .. } = self;
        drop(submitter);
        drop(outputs);
        door.close();
        cursors.bell_sequencer.ring();
        for thread in threads {
            thread.join().expect("a thread of the venue ends");
        }
    }

    /// A producer of `count` commands from `first` on, which says which of them were taken in, and in which epoch.
    fn producer(&self, first: u64, count: u64) -> thread::JoinHandle<Vec<Placed>> {
        self.producer_that(first, count, Submitter::try_submit_within)
    }

    fn producer_that(&self, first: u64, count: u64, submit: Submit) -> thread::JoinHandle<Vec<Placed>> {
        let mut submitter = self.submitter.clone();
        let watch = self.watch.clone();
        thread::spawn(move || {
            let mut taken = Vec::new();
            for command in first..first + count {
                let epoch = watch.wait_to_lead(EVER).expect("nobody waits in vain for ever");
                match submit(&mut submitter, command, epoch) {
                    Ok(()) => taken.push(Placed { command, term: epoch }),
                    Err(SubmitError::NotLeader(_) | SubmitError::Closed(_)) => {}
                    Err(refused) => panic!("there is room: {refused}"),
                }
            }
            taken
        })
    }
}

/// How a producer hands in a command for an epoch.
type Submit = fn(&mut Submitter<Echo>, u64, u64) -> Result<(), SubmitError<u64>>;

/// A command, and the term of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    command: u64,
    term: u64,
}

/// Reads to the end; the commands in the order they came, each of which was durable before it was told.
fn consume(mut outputs: OutputPoller<Echo>, disk: Arc<Disk>) -> thread::JoinHandle<Vec<Placed>> {
    thread::spawn(move || {
        let (mut told, mut batch, mut last) = (Vec::new(), Vec::new(), Position::default());
        loop {
            match outputs.poll(1, &mut batch) {
                Polled::Some(_) => {
                    for output in batch.drain(..) {
                        let header = output.block.block().header();
                        assert_eq!(last.refuses(header), None, "outputs come in log order");
                        assert!(
                            header.index <= disk.synced.load(Ordering::SeqCst),
                            "a block is durable before anyone is told what it did"
                        );
                        last = output.block.position();
                        let term = header.term;
                        told.extend(output.events().iter().map(|command| Placed { command: *command, term }));
                    }
                }
                Polled::Empty => outputs.wait(EVER),
                Polled::Closed => return told,
            }
        }
    })
}

/// Two producers, a consumer, and a shutdown in the middle of it all: whatever was taken in is told exactly once, in the order of its
/// producer, and everybody ends.
pub fn a_venue_runs_and_ends() {
    check(|| run_and_end(Durability::DiskQuorum, |driver| Arc::new(driver.clone())));
}

/// As [`a_venue_runs_and_ends`], but what is only written counts as durable: what its check of the commit gate is there to find.
pub fn a_venue_that_is_told_too_early() {
    check(|| run_and_end(Durability::MemoryQuorum, |driver| Arc::new(driver.clone())));
}

/// As [`a_venue_runs_and_ends`], but the matcher does not tell the core of room in its ring.
pub fn a_venue_whose_core_hears_of_no_room() {
    check(|| run_and_end(Durability::DiskQuorum, |driver| Arc::new(Mute(driver.clone()))));
}

fn run_and_end(durability: Durability, matchers_way: impl FnOnce(&Driver<Solo, u64>) -> Arc<dyn Drive<u64>>) {
    let solo = Solo::new(HardState::default(), Position::default(), &[]);
    let mut venue = Venue::with(solo, durability, &["consumer"], matchers_way);
    let consumer = consume(venue.outputs.remove(0), Arc::clone(&venue.disk));
    let producers = [venue.producer(100, 3), venue.producer(200, 3)];
    let _ = venue.watch.wait_to_lead(EVER);
    venue.stop();
    let taken = producers.map(|producer| producer.join().expect("a producer ends"));
    let told = consumer.join().expect("the consumer ends");
    for (nth, taken) in taken.into_iter().enumerate() {
        let own = |placed: &Placed| placed.command / 100 == nth as u64 + 1;
        let told: Vec<Placed> = told.iter().copied().filter(own).collect();
        assert_eq!(told, taken, "what was taken in is told once and in order");
    }
}

/// One of two consumers goes away in the middle; the other sees everything all the same.
pub fn a_consumer_that_goes_holds_nobody_up() {
    check(|| one_of_two_stops_reading(drop));
}

/// As [`a_consumer_that_goes_holds_nobody_up`], but it keeps its place and does not read.
pub fn a_consumer_that_hangs() {
    check(|| one_of_two_stops_reading(std::mem::forget));
}

fn one_of_two_stops_reading(end: fn(OutputPoller<Echo>)) {
    let solo = Solo::new(HardState::default(), Position::default(), &[]);
    let mut venue = Venue::start(solo, Durability::DiskQuorum, &["stays", "goes"]);
    let mut goes = venue.outputs.remove(1);
    let stays = consume(venue.outputs.remove(0), Arc::clone(&venue.disk));
    let going = thread::spawn(move || {
        let mut batch = Vec::new();
        while goes.poll(1, &mut batch) == Polled::Empty {
            goes.wait(EVER);
        }
        end(goes);
    });
    let taken = venue.producer(100, 5).join().expect("the producer ends");
    venue.stop();
    going.join().expect("it goes");
    assert_eq!(stays.join().expect("the consumer ends"), taken);
}

/// A core that loses its leadership, and with it what it had not committed, and wins it back, as often as it is told to.
struct Fickle {
    /// It takes back what it lost; if not, the core is broken.
    takes_back: bool,
    term: u64,
    leads: bool,
    last: Position,
    committed_at: Position,
    ticket: u64,
    unwritten: Blocks,
    in_flight: Vec<(u64, Arc<Block>)>,
    committed: Blocks,
}

impl Fickle {
    fn new(takes_back: bool) -> Self {
        let start = Position::default();
        Self {
            takes_back,
            term: 0,
            leads: false,
            last: start,
            committed_at: start,
            ticket: 0,
            unwritten: Blocks::default(),
            in_flight: Vec::new(),
            committed: Blocks::default(),
        }
    }

    /// Another node was elected and knows nothing of what is not committed.
    fn depose(&mut self) {
        self.term += 1;
        self.leads = false;
        self.unwritten.clear();
        self.in_flight.clear();
        if self.takes_back {
            self.last = self.committed_at;
        }
    }

    fn elect(&mut self) {
        self.term += 1;
        self.leads = true;
        self.append(Arc::new(Block::empty(&self.last, self.term)));
    }

    fn append(&mut self, block: Arc<Block>) {
        self.last = Position::after(block.header());
        self.unwritten.push(block);
    }
}

impl Consensus for Fickle {
    fn lead(&self) -> Option<(Position, u64)> {
        self.leads.then_some((self.last, self.term))
    }

    fn propose(&mut self, block: Arc<Block>) {
        assert_eq!(self.last.refuses(block.header()), None, "a block is sealed for its place");
        self.append(block);
    }

    fn persisted(&mut self, ticket: u64) {
        let durable = self.in_flight.iter().take_while(|(of, _)| *of <= ticket).count();
        for (_, block) in self.in_flight.drain(..durable) {
            self.committed_at = Position::after(block.header());
            self.committed.push(block);
        }
    }

    fn tick(&mut self) {}

    fn applied(&mut self, index: u64) {
        assert!(index <= self.committed_at.index, "only what is committed is applied");
    }

    fn ready(&mut self) -> Option<Ready> {
        let committed = std::mem::take(&mut self.committed);
        let blocks = std::mem::take(&mut self.unwritten);
        let persist = (!blocks.is_empty()).then(|| {
            self.ticket += 1;
            self.in_flight.extend(blocks.iter().map(|block| (self.ticket, Arc::clone(block))));
            Persist { ticket: self.ticket, hard_state: None, blocks }
        });
        (persist.is_some() || !committed.is_empty()).then_some(Ready { persist, committed })
    }

    fn leadership(&self) -> Leadership {
        Leadership { term: self.term, leader: self.leads.then_some(1), leads: self.leads }
    }
}

/// The leadership comes and goes under a producer. What is told was taken in, once and in order, in a block of the very epoch it was
/// handed in for; of one epoch's commands none is told without those before it; those of the last epoch all are; and everybody ends.
pub fn leaders_change() {
    check(|| change_leaders(true, Submitter::try_submit_within));
}

/// As [`leaders_change`], over a core that goes on behind blocks which it has lost.
pub fn leaders_change_over_a_gap() {
    check(|| change_leaders(false, Submitter::try_submit_within));
}

/// As [`leaders_change`], with a producer that looks at the epoch and a while later hands in for whichever there is.
pub fn leaders_change_under_a_careless_producer() {
    let careless: Submit = |submitter, command, _epoch| {
        (0..200).for_each(|_| thread::yield_now());
        submitter.try_submit(command)
    };
    check(move || change_leaders(true, careless));
}

fn change_leaders(takes_back: bool, submit: Submit) {
    let mut venue = Venue::start(Fickle::new(takes_back), Durability::DiskQuorum, &["consumer"]);
    let consumer = consume(venue.outputs.remove(0), Arc::clone(&venue.disk));
    let driver = venue.driver.clone();
    driver.drive(Fickle::elect);
    let politics = thread::spawn(move || {
        for _ in 0..2 {
            driver.drive(Fickle::depose);
            driver.drive(Fickle::elect);
        }
    });
    let taken = venue.producer_that(100, 4, submit).join().expect("the producer ends");
    politics.join().expect("it ends");
    let _ = venue.watch.wait_to_lead(EVER);
    let last = venue.producer(200, 2).join().expect("the producer ends");
    assert_eq!(last.len(), 2, "within an epoch commands are taken in");
    venue.stop();
    let mut told = consumer.join().expect("the consumer ends");
    let kept = told.split_off(told.len().saturating_sub(2));
    assert_eq!(kept, last, "what is taken in within the last epoch is told");
    let mut left = &taken[..];
    for placed in &told {
        let at = left.iter().position(|taken| taken == placed);
        let at = at.unwrap_or_else(|| panic!("{told:?} is not what was taken in, in order: {taken:?}"));
        let skipped = left[..at].iter().any(|before| before.term == placed.term);
        assert!(!skipped, "{told:?} leaves out what was before it in the same epoch: {taken:?}");
        left = &left[at + 1..];
    }
}

/// A thread that waits for the replica wakes when it got there, or when it ended before.
pub fn a_reader_sees_what_it_waited_for() {
    check(|| wait_for_a_replica(Progress::end));
}

/// As [`a_reader_sees_what_it_waited_for`], but the replica does not say that it ends.
pub fn a_reader_whose_replica_ends_unsaid() {
    check(|| wait_for_a_replica(|_| ()));
}

fn wait_for_a_replica(end: fn(&Progress)) {
    let progress = Arc::new(Progress::new(Seq(0)));
    let state = Arc::new(Mutex::new(0));
    let readers = [1, 2, 9].map(|seq| {
        let (progress, state) = (Arc::clone(&progress), Arc::clone(&state));
        thread::spawn(move || {
            let waited = progress.wait_for_blocking(Seq(seq), EVER);
            assert_eq!(waited.is_ok(), seq < 9, "the venue ends at 3");
            if waited.is_ok() {
                let seen = *state.lock().unwrap_or_else(PoisonError::into_inner);
                assert!(seen >= seq, "a reader sees what it waited for");
            }
        })
    });
    for seq in 1..=3 {
        *state.lock().unwrap_or_else(PoisonError::into_inner) = seq;
        progress.reach(Seq(seq));
    }
    end(&progress);
    for reader in readers {
        reader.join().expect("a reader ends");
    }
}
