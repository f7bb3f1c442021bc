//! Snapshots, taken by the replica so that the matcher never stops. The bytes are taken by the thread that applies blocks, under a
//! read lock, so readers go on and only the replica falls a little behind; checksums, disk and sync are another thread's work.
//!
//! They fall due where the number of applied commands crosses a multiple of a stretch. Blocks are the same on every node, so
//! this is after the same block everywhere, and the state hashes taken there can be compared.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded};
use grid_sequencer::{Position, SnapshotMeta, SnapshotStore, Waker, abort_on_panic};
use parking_lot::Mutex;

/// Is told of every snapshot once it is durable.
pub(crate) type Listeners = Arc<Mutex<Vec<Box<dyn FnMut(&SnapshotMeta) + Send>>>>;
/// Is told how one snapshot that was asked for went.
pub(crate) type Answer = Box<dyn FnOnce(Result<SnapshotMeta, String>) + Send>;

/// A snapshot on its way to the disk.
pub(crate) struct Taken {
    pub(crate) meta: SnapshotMeta,
    pub(crate) body: Vec<u8>,
    pub(crate) answers: Vec<Answer>,
}

/// Who writes.
enum Writer {
    /// Another thread; for a venue that runs.
    Thread { work: Option<Sender<Taken>>, thread: Option<JoinHandle<()>>, busy: Arc<AtomicBool> },
    /// Whoever steps the replica; for the simulator.
    Inline(Desk),
}

/// Decides when a snapshot is due and sees it written. Owned by the replica's stage.
pub(crate) struct Snapshots {
    every: u64,
    /// Index of the last block that is in a snapshot.
    last: u64,
    writer: Writer,
}

impl Snapshots {
    /// Into `store`, each time that `every` more commands have been applied; written by whoever calls [`Snapshots::take`].
    pub(crate) fn inline(store: SnapshotStore, every: u64, at: Position, listeners: Listeners) -> Self {
        Self { every: every.max(1), last: at.index, writer: Writer::Inline(Desk { store, listeners }) }
    }

    /// Written by a thread of its own, which calls `free` when it has finished one.
    pub(crate) fn threaded(
        store: SnapshotStore,
        every: u64,
        at: Position,
        listeners: Listeners,
        free: Waker,
    ) -> io::Result<Self> {
        let (work, orders) = bounded::<Taken>(1);
        let busy = Arc::new(AtomicBool::new(false));
        let mut desk = Desk { store, listeners };
        let flag = Arc::clone(&busy);
        let body = move || {
            abort_on_panic("snapshots", || {
                for taken in orders {
                    desk.write(taken);
                    flag.store(false, Ordering::Release);
                    free();
                }
            });
        };
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(body)?;
        let writer = Writer::Thread { work: Some(work), thread: Some(thread), busy };
        Ok(Self { every: every.max(1), last: at.index, writer })
    }

    /// True if one falls due with the step from `before` to `after`.
    pub(crate) fn is_due(&self, before: Position, after: Position) -> bool {
        before.seq.0 / self.every != after.seq.0 / self.every
    }

    /// True if one can be taken now. One that falls due while another is being written is left out.
    pub(crate) fn is_free(&self) -> bool {
        match &self.writer {
            Writer::Thread { busy, .. } => !busy.load(Ordering::Acquire),
            Writer::Inline(_) => true,
        }
    }

    /// Has one written; only while [free](Snapshots::is_free).
    pub(crate) fn take(&mut self, taken: Taken) {
        self.last = taken.meta.position.index;
        match &mut self.writer {
            Writer::Inline(desk) => desk.write(taken),
            Writer::Thread { work, busy, .. } => {
                busy.store(true, Ordering::Release);
                // It has room, because the thread is free. A thread that is gone has ended the process.
                if let Some(work) = work {
                    let _ = work.send(taken);
                }
            }
        }
    }

    /// Writes what is not in one yet, and waits until all are on disk.
    pub(crate) fn finish(mut self, at: Position, take: impl FnOnce() -> Taken) {
        let missing = at.index > self.last;
        match &mut self.writer {
            Writer::Inline(desk) => {
                if missing {
                    desk.write(take());
                }
            }
            Writer::Thread { work, thread, .. } => {
                if let Some(work) = work.take()
                    && missing
                {
                    let _ = work.send(take());
                }
                if let Some(thread) = thread.take() {
                    // A panic in it has ended the process.
                    let _ = thread.join();
                }
            }
        }
    }
}

/// Where snapshots are written, and who hears of it.
struct Desk {
    store: SnapshotStore,
    listeners: Listeners,
}

impl Desk {
    /// An error is no fault: the journal has everything, and a start without this snapshot only takes longer.
    fn write(&mut self, taken: Taken) {
        let Taken { meta, body, answers } = taken;
        let written = self.store.write(&meta, &body).map_err(|error| error.to_string());
        match &written {
            Ok(path) => {
                tracing::info!(
                    path = %path.display(),
                    index = meta.position.index,
                    seq = meta.position.seq.0,
                    bytes = body.len(),
                    "snapshot written"
                );
                for listener in self.listeners.lock().iter_mut() {
                    listener(&meta);
                }
            }
            Err(error) => {
                tracing::error!(error, "a snapshot could not be written; the journal still has everything");
            }
        }
        for answer in answers {
            answer(written.as_ref().map(|_| meta.clone()).map_err(Clone::clone));
        }
    }
}
