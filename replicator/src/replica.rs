//! A second machine, fed block by block from the committed log, and the doors through which others look at it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use grid_engine::Seq;
use grid_sequencer::{Machine, Output, OutputPoller, Polled, Position, SnapshotStore, abort_on_panic};
use parking_lot::{Mutex, RwLock};

use crate::progress::{Progress, WaitError};
use crate::snapshots::Snapshots;
use crate::subscription::{Listener, Overflow, Subscription, subscription};

/// Most outputs taken from the ring at a time.
const BATCH: usize = 64;
/// How long the thread sleeps if nothing wakes it; it is woken for everything, so this is only a belt beside the braces.
const IDLE: Duration = Duration::from_secs(1);

/// What a replica does besides following.
#[derive(Clone, Debug, Default)]
pub struct ReplicaConfig {
    /// Where it writes snapshots, after how many commands each, and once more at the end; `None` for none.
    pub snapshots: Option<(SnapshotStore, u64)>,
}

struct State<M> {
    machine: M,
    position: Position,
}

struct Inner<M: Machine> {
    state: RwLock<State<M>>,
    /// Held while a block is applied and told, so that a subscription begins exactly between two blocks.
    listeners: Mutex<Vec<Listener<M>>>,
    progress: Progress,
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
    /// Starts a replica on `machine`, which stands at `position`, fed by `outputs` from there on.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(
        machine: M,
        position: Position,
        outputs: OutputPoller<M>,
        config: ReplicaConfig,
    ) -> io::Result<(Self, ReplicaThread)> {
        let replica = Self(Arc::new(Inner {
            state: RwLock::new(State { machine, position }),
            listeners: Mutex::new(Vec::new()),
            progress: Progress::new(position.seq),
        }));
        let snapshots = config
            .snapshots
            .map(|(store, every)| Snapshots::start(store, every, position.seq))
            .transpose()?;
        let feed = Feed { inner: Arc::clone(&replica.0), outputs, snapshots, events: Vec::new() };
        let thread = std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(move || abort_on_panic("replica", || feed.run()))?;
        Ok((replica, ReplicaThread(thread)))
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
        self.0.progress.wait_for(seq).await
    }

    /// Waits, from a plain thread, until the command `seq` shows in `read`.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn wait_for_blocking(&self, seq: Seq, limit: Duration) -> Result<(), WaitError> {
        self.0.progress.wait_for_blocking(seq, limit)
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
}

/// The writing side: the only one that changes the machine.
struct Feed<M: Machine> {
    inner: Arc<Inner<M>>,
    outputs: OutputPoller<M>,
    snapshots: Option<Snapshots>,
    events: Vec<M::Event>,
}

impl<M: Machine> Feed<M> {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match self.outputs.poll(BATCH, &mut batch) {
                Polled::Some(_) => {
                    for output in batch.drain(..) {
                        self.follow(&output);
                    }
                }
                Polled::Empty => self.outputs.wait(IDLE),
                Polled::Closed => break,
            }
        }
        self.inner.listeners.lock().clear();
        self.inner.progress.end();
        if let Some(snapshots) = self.snapshots.take() {
            let state = self.inner.state.read();
            snapshots.finish(&state.machine, state.position);
        }
    }

    fn follow(&mut self, output: &Arc<Output<M>>) {
        let mut listeners = self.inner.listeners.lock();
        {
            let mut state = self.inner.state.write();
            apply(&mut state, output, &mut self.events);
        }
        self.inner.progress.reach(output.block.last_seq());
        listeners.retain_mut(|listener| listener.tell(output));
        drop(listeners);
        if let Some(snapshots) = self.snapshots.as_mut()
            && snapshots.is_due(output.block.last_seq())
        {
            // Nobody but this thread writes, so no reader has to wait behind a waiting writer meanwhile.
            let state = self.inner.state.read();
            snapshots.take(&state.machine, state.position);
        }
    }
}

/// Applies a block and insists on the events that the matcher had: equal inputs, equal outputs, or one of the two is wrong.
///
/// # Panics
/// On a gap or a difference: a fault.
fn apply<M: Machine>(state: &mut State<M>, output: &Output<M>, events: &mut Vec<M::Event>) {
    let block = &output.block;
    assert_eq!(block.first_seq(), state.position.seq.next(), "a replica is fed without a gap");
    let mut expected = output.events.iter();
    for (seq, command) in block.commands() {
        events.clear();
        state.machine.apply(seq, block.at(), command, events);
        for event in events.iter() {
            let told = expected.next();
            let same = told.is_some_and(|(of, told)| *of == seq && told == event);
            assert!(same, "the replica came to {event:?} at command {seq:?} where the matcher had {told:?}");
        }
    }
    assert!(
        expected.next().is_none(),
        "the matcher had more events than the replica in block {}",
        block.index()
    );
    state.position = block.position();
}
