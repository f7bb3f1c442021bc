//! A second machine, fed block by block from the committed log, and the doors through which others look at it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use grid_engine::Seq;
use grid_sequencer::{
    BlockKind, LookAhead, Machine, NodeId, Output, OutputPoller, Polled, Position, SnapshotMeta,
    SnapshotStore, Waker, abort_on_panic,
};
use parking_lot::{Mutex, RwLock};

use crate::digests::{Digest, DigestKind, Digests, Divergence, Voters, Windows};
use crate::progress::{Progress, WaitError};
use crate::promises::Promises;
use crate::snapshots::{Answer, Listeners, Snapshots, Taken};
use crate::subscription::{Listener, Overflow, Subscription, subscription};

/// Most outputs taken from the lane at a time.
const BATCH: usize = 64;
/// How long the thread lets outputs gather before it looks again. Only after it found none in all that time does it ask to be
/// woken: whoever publishes one command at a time does not pay for a wake-up with each. Readers of the replica are behind by at
/// most this, and a reader who waits ends it.
const NAP: Duration = Duration::from_micros(500);
/// How long the thread sleeps if nothing wakes it; it is woken for everything, so this is only a belt beside the braces.
const IDLE: Duration = Duration::from_secs(1);

/// Says what members a change leaves, and who of them votes; what the bytes mean is the raft core's business.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// The members after a change, from those before it and the change's payload in the log.
    pub fold: fn(members: &[u8], change: &[u8]) -> Vec<u8>,
    /// Those of the members that vote.
    pub voters: fn(members: &[u8]) -> Voters,
}

/// What a replica does besides following.
#[derive(Clone, Debug, Default)]
pub struct ReplicaConfig {
    /// Where it writes snapshots, at each multiple of how many commands, and once more at the end; `None` for none.
    pub snapshots: Option<(SnapshotStore, u64)>,
    /// This node, for comparing with the others.
    pub node: NodeId,
    /// The cluster's members where the replica starts; empty where there is no cluster.
    pub members: Vec<u8>,
    /// How changes of the members are read; without it they are kept as they are.
    pub membership: Option<Membership>,
    /// The window, in blocks, over whose events nodes compare a hash; 0 for no comparison.
    pub window_blocks: u64,
}

struct State<M> {
    machine: M,
    position: Position,
    members: Vec<u8>,
}

type DigestListeners = Mutex<Vec<Box<dyn FnMut(Digest) + Send>>>;

struct Inner<M: Machine> {
    state: RwLock<State<M>>,
    /// Held while a block is applied and told, so that a subscription begins exactly between two blocks.
    listeners: Mutex<Vec<Listener<M>>>,
    progress: Progress,
    promises: Promises,
    /// The thread that feeds it, where it has one of its own.
    feeder: OnceLock<Thread>,
    digests: Mutex<Judged>,
    digest_listeners: DigestListeners,
    snapshot_listeners: Listeners,
    /// Snapshots that were asked for and not begun.
    wanted: Mutex<Vec<Answer>>,
    /// Something in `wanted` or in `digests` is for the feeding side.
    called: AtomicBool,
    alarm: Waker,
}

struct Judged {
    digests: Digests,
    verdict: Result<(), Divergence>,
}

impl<M: Machine> Inner<M> {
    fn call(&self) {
        self.called.store(true, Ordering::Release);
        (self.alarm)();
    }

    /// Somebody waits for what is not applied yet.
    fn hurry(&self, seq: Seq) {
        if self.progress.applied() < seq
            && let Some(feeder) = self.feeder.get()
        {
            feeder.unpark();
        }
    }

    /// A verdict once given stands: what was wrong does not become right.
    fn judge(&self, judge: impl FnOnce(&mut Digests) -> Result<(), Divergence>) {
        let mut judged = self.digests.lock();
        if judged.verdict.is_ok() {
            judged.verdict = judge(&mut judged.digests);
            let diverged = judged.verdict.is_err();
            drop(judged);
            if diverged {
                self.call();
            }
        }
    }
}

/// A machine that follows the log; clones look at the same one.
pub struct Replica<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Machine> std::fmt::Debug for Replica<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("applied", &self.applied()).finish_non_exhaustive()
    }
}

/// The thread that feeds a replica. It ends when the venue does.
#[derive(Debug)]
pub struct ReplicaThread(JoinHandle<()>);

impl ReplicaThread {
    /// Waits until the last block was applied and the last snapshot written; call it after `grid_sequencer::Handle::shutdown`.
    pub fn join(self) {
        // A panic in it has ended the process.
        let _ = self.0.join();
    }
}

impl<M: Machine> Replica<M> {
    /// Starts a replica on `machine`, which stands at `position`, fed by `outputs` from there on, on a thread of its own.
    ///
    /// The thread stops the process where this node's copy has [diverged](Divergence) from the others'.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(
        machine: M,
        position: Position,
        outputs: OutputPoller<M>,
        config: ReplicaConfig,
    ) -> io::Result<(Self, ReplicaThread)> {
        let snapshots = config.snapshots.clone();
        let (replica, mut stage) = Self::unsaved(machine, position, outputs, config);
        if let Some((store, every)) = snapshots {
            let listeners = Arc::clone(&replica.0.snapshot_listeners);
            let free = Arc::clone(&replica.0);
            let free: Waker = Arc::new(move || free.call());
            stage.snapshots = Some(Snapshots::threaded(store, every, position, listeners, free)?);
        }
        let thread = std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(move || abort_on_panic("replica", || stage.run()))?;
        Ok((replica, ReplicaThread(thread)))
    }

    /// As [`Replica::start`] without any thread: whoever has the stage steps it, and writes the snapshots in its steps.
    #[must_use]
    pub fn staged(
        machine: M,
        position: Position,
        outputs: OutputPoller<M>,
        config: ReplicaConfig,
    ) -> (Self, ReplicaStage<M>) {
        let snapshots = config.snapshots.clone();
        let (replica, mut stage) = Self::unsaved(machine, position, outputs, config);
        stage.snapshots = snapshots.map(|(store, every)| {
            Snapshots::inline(store, every, position, Arc::clone(&replica.0.snapshot_listeners))
        });
        (replica, stage)
    }

    fn unsaved(
        machine: M,
        position: Position,
        outputs: OutputPoller<M>,
        config: ReplicaConfig,
    ) -> (Self, ReplicaStage<M>) {
        let ReplicaConfig { snapshots: _, node, members, membership, window_blocks } = config;
        let voters = membership.map(|membership| (membership.voters)(&members)).unwrap_or_default();
        let inner = Arc::new(Inner {
            state: RwLock::new(State { machine, position, members }),
            listeners: Mutex::new(Vec::new()),
            progress: Progress::new(position.seq),
            promises: Promises::default(),
            feeder: OnceLock::new(),
            digests: Mutex::new(Judged { digests: Digests::new(node, voters), verdict: Ok(()) }),
            digest_listeners: Mutex::new(Vec::new()),
            snapshot_listeners: Listeners::default(),
            wanted: Mutex::new(Vec::new()),
            called: AtomicBool::new(false),
            alarm: outputs.alarm(),
        });
        let stage = ReplicaStage {
            inner: Arc::clone(&inner),
            outputs,
            snapshots: None,
            membership,
            windows: (window_blocks > 0).then(|| Windows::new(window_blocks)),
            batch: Vec::with_capacity(BATCH),
            own: Told { events: Vec::new(), ends: Vec::new() },
        };
        (Self(inner), stage)
    }

    /// Looks at the machine between two blocks. Keep it short: the replica waits meanwhile, though the venue does not.
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        look(&self.0.state.read().machine)
    }

    /// Looks at the machine together with where it stands.
    pub fn read_at<R>(&self, look: impl FnOnce(&M, Position) -> R) -> R {
        let state = self.0.state.read();
        look(&state.machine, state.position)
    }

    /// Number of the last command applied: what `read` shows is at least this new.
    #[must_use]
    pub fn applied(&self) -> Seq {
        self.0.progress.applied()
    }

    /// Waits until the command `seq` shows in `read`.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] if the venue ends before.
    pub async fn wait_for(&self, seq: Seq) -> Result<(), WaitError> {
        self.0.hurry(seq);
        self.0.progress.wait_for(seq).await
    }

    /// Waits, from a plain thread, until the command `seq` shows in `read`.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn wait_for_blocking(&self, seq: Seq, limit: Duration) -> Result<(), WaitError> {
        self.0.hurry(seq);
        self.0.progress.wait_for_blocking(seq, limit)
    }

    /// Writes that clients of this node have been told of and that are still on their way into the log.
    #[must_use]
    pub fn promises(&self) -> &Promises {
        &self.0.promises
    }

    /// A queue of the outputs that follow, of at most `capacity` blocks.
    #[must_use]
    pub fn subscribe(&self, capacity: usize, overflow: Overflow) -> Subscription<M> {
        let mut listeners = self.0.listeners.lock();
        let (listener, subscription) = subscription(capacity, overflow, self.0.state.read().position);
        listeners.push(listener);
        subscription
    }

    /// Has `callback` called with each output that follows, after it was applied, from the replica's thread: it must be quick, and
    /// must not subscribe. Returns where the replica stood before the first one.
    pub fn on_output(&self, callback: impl FnMut(&Arc<Output<M>>) + Send + 'static) -> Position {
        let mut listeners = self.0.listeners.lock();
        listeners.push(Listener::Callback(Box::new(callback)));
        self.0.state.read().position
    }
    /// The cluster's members as of the last block applied, in the raft core's coding.
    #[must_use]
    pub fn members(&self) -> Vec<u8> {
        self.0.state.read().members.clone()
    }

    /// Has a snapshot taken now, wherever the log stands, and `answer` called once it is durable, or could not be written.
    pub fn snapshot_now(&self, answer: impl FnOnce(Result<SnapshotMeta, String>) + Send + 'static) {
        self.0.wanted.lock().push(Box::new(answer));
        self.0.call();
    }

    /// Has `callback` called with each snapshot that follows, once it is durable, from the thread that wrote it: what the journal
    /// holds up to there is then only needed by nodes that lag.
    pub fn on_snapshot(&self, callback: impl FnMut(&SnapshotMeta) + Send + 'static) {
        self.0.snapshot_listeners.lock().push(Box::new(callback));
    }

    /// Has `callback` called with what this node comes to, for telling the other nodes; from the replica's thread.
    pub fn on_digest(&self, callback: impl FnMut(Digest) + Send + 'static) {
        self.0.digest_listeners.lock().push(Box::new(callback));
    }

    /// Another node says what it came to. If it follows that this node is wrong, or that nobody knows who is right, the replica's
    /// next step is [`Divergence`], and its thread stops the process.
    pub fn observe(&self, from: NodeId, digest: Digest) {
        self.0.judge(|digests| digests.observe(from, digest));
    }
}

/// What a step of the feeding side did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Something; step again.
    Worked,
    /// Nothing to do for now.
    Idle,
    /// The venue has stopped; everything was applied, told and, if configured, saved.
    Ended,
}

/// The feeding side: the only one that changes the machine. All its work is in `step`, which never waits but for the snapshots
/// of a [staged](Replica::staged) replica.
pub struct ReplicaStage<M: Machine> {
    inner: Arc<Inner<M>>,
    outputs: OutputPoller<M>,
    snapshots: Option<Snapshots>,
    membership: Option<Membership>,
    windows: Option<Windows>,
    batch: Vec<Arc<Output<M>>>,
    own: Told<M>,
}

/// What this machine came to with one block; its memory serves the next one.
struct Told<M: Machine> {
    /// In order.
    events: Vec<M::Event>,
    /// Where those of each command end.
    ends: Vec<usize>,
}

impl<M: Machine> std::fmt::Debug for ReplicaStage<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaStage")
            .field("applied", &self.inner.progress.applied())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> ReplicaStage<M> {
    /// Follows what the matcher has put out, and does what was asked for.
    ///
    /// # Errors
    /// [`Divergence`]: this node must stop, for its copy cannot be trusted.
    ///
    /// # Panics
    /// If a block does not come to the events that the matcher had: a fault.
    pub fn step(&mut self) -> Result<Followed, Divergence> {
        let called = self.inner.called.swap(false, Ordering::AcqRel);
        if called {
            self.inner.digests.lock().verdict.clone()?;
            self.save_what_was_asked_for();
        }
        let mut batch = std::mem::take(&mut self.batch);
        let polled = self.outputs.poll(BATCH, &mut batch);
        for output in batch.drain(..) {
            self.follow(&output);
        }
        self.batch = batch;
        match polled {
            Polled::Some(_) => Ok(Followed::Worked),
            Polled::Empty if called => Ok(Followed::Worked),
            Polled::Empty => Ok(Followed::Idle),
            Polled::Closed => {
                self.end();
                Ok(Followed::Ended)
            }
        }
    }

    fn run(mut self) {
        let mut followed = false;
        let _ = self.inner.feeder.set(std::thread::current());
        loop {
            match self.step() {
                Ok(Followed::Worked) => followed = true,
                Ok(Followed::Idle) if followed => {
                    followed = false;
                    std::thread::park_timeout(NAP);
                }
                Ok(Followed::Idle) => {
                    let inner = &self.inner;
                    self.outputs.wait_unless(IDLE, || inner.called.load(Ordering::Acquire));
                }
                Ok(Followed::Ended) => return,
                // The caller turns a panic of this thread into a loud end of the process.
                Err(diverged) => panic!("{diverged}"),
            }
        }
    }

    fn end(&mut self) {
        self.inner.listeners.lock().clear();
        self.inner.progress.end();
        if let Some(snapshots) = self.snapshots.take() {
            let state = self.inner.state.read();
            let answers = std::mem::take(&mut *self.inner.wanted.lock());
            snapshots.finish(state.position, || taken(&state, state.machine.state_hash(), answers));
        }
    }

    fn follow(&mut self, output: &Arc<Output<M>>) {
        let mut listeners = self.inner.listeners.lock();
        let (before, changed) = {
            let mut state = self.inner.state.write();
            let before = state.position;
            (before, apply(&mut state, output, self.membership, &mut self.own))
        };
        self.inner.progress.reach(output.block.last_seq());
        listeners.retain_mut(|listener| listener.tell(output));
        drop(listeners);
        if let Some(voters) = changed {
            self.inner.digests.lock().digests.set_voters(voters);
        }
        if let Some(digest) = self.windows.as_mut().and_then(|windows| windows.follow(output)) {
            self.tell(digest);
        }
        if let Some(snapshots) = &self.snapshots
            && snapshots.is_due(before, output.block.position())
        {
            self.save();
        }
    }

    /// A snapshot where all nodes take one. The state is hashed even where the last one is still being written.
    fn save(&mut self) {
        let Some(snapshots) = self.snapshots.as_mut() else { return };
        // Nobody but this thread writes, so no reader has to wait behind a waiting writer meanwhile.
        let state = self.inner.state.read();
        let (index, hash) = (state.position.index, state.machine.state_hash());
        if snapshots.is_free() {
            snapshots.take(taken(&state, hash, Vec::new()));
        } else {
            tracing::warn!(index, "the disk is behind with the last snapshot; this one is left out");
        }
        drop(state);
        if self.windows.is_some() {
            self.tell(Digest { kind: DigestKind::State, index, value: hash });
        }
    }

    fn save_what_was_asked_for(&mut self) {
        let Some(snapshots) = self.snapshots.as_mut() else {
            for answer in std::mem::take(&mut *self.inner.wanted.lock()) {
                answer(Err("this replica writes no snapshots".to_owned()));
            }
            return;
        };
        // If it is busy, its thread calls when it is free.
        if snapshots.is_free() {
            let answers = std::mem::take(&mut *self.inner.wanted.lock());
            if !answers.is_empty() {
                let state = self.inner.state.read();
                let taken = taken(&state, state.machine.state_hash(), answers);
                drop(state);
                snapshots.take(taken);
            }
        }
    }

    fn tell(&self, digest: Digest) {
        self.inner.judge(|digests| digests.own(digest));
        for listener in self.inner.digest_listeners.lock().iter_mut() {
            listener(digest);
        }
    }
}

fn taken<M: Machine>(state: &State<M>, state_hash: u64, answers: Vec<Answer>) -> Taken {
    let (position, members) = (state.position, state.members.clone());
    let meta = SnapshotMeta { position, state_hash, machine_format: M::FORMAT, members };
    Taken { meta, body: state.machine.snapshot(), answers }
}

/// Applies a block and insists on the events that the matcher had: equal inputs, equal outputs, or one of the two is wrong.
/// Returns who votes from here on, if the block changed the members.
///
/// # Panics
/// On a gap or a difference: a fault.
fn apply<M: Machine>(
    state: &mut State<M>,
    output: &Output<M>,
    membership: Option<Membership>,
    own: &mut Told<M>,
) -> Option<Voters> {
    let block = &output.block;
    assert_eq!(block.first_seq(), state.position.seq.next(), "a replica is fed without a gap");
    let mut ahead = LookAhead::over(block.plain_commands().iter(), &state.machine);
    own.events.clear();
    own.ends.clear();
    for (seq, command) in block.commands() {
        ahead.advance(&state.machine);
        state.machine.apply(seq, block.at(), command, &mut own.events);
        own.ends.push(own.events.len());
    }
    // Once a block: the matcher's events come out of another core's cache, one line ahead of the other if they are read in one go.
    own.insist_on(output);
    state.position = block.position();
    let membership = membership.filter(|_| block.block().header().kind == BlockKind::ConfChange)?;
    state.members = (membership.fold)(&state.members, block.block().payload());
    Some((membership.voters)(&state.members))
}

impl<M: Machine> Told<M> {
    /// # Panics
    /// Unless the matcher had the same events, each of the same command.
    fn insist_on(&self, output: &Output<M>) {
        if self.events != output.events() || !self.ends.iter().copied().eq(output.ends()) {
            self.object(output);
        }
    }

    /// Says at which command the two differ.
    #[cold]
    fn object(&self, output: &Output<M>) -> ! {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let own = begins.zip(&self.ends).map(|(begin, end)| &self.events[begin..*end]);
        let differs = output.by_command().zip(own).find(|((.., told), came)| told != came);
        let ((seq, _, told), came) = differs.expect("blocks that differ do so at one of their commands");
        panic!("the replica came to {came:?} at command {seq:?} where the matcher had {told:?}")
    }
}
