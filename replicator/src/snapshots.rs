//! Snapshots in the background. The bytes are taken by the thread that applies blocks, under a read lock, so readers go on
//! and only the replica falls a little behind; checksums, disk and sync are another thread's work.

use std::io;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, TrySendError, bounded};
use grid_engine::Seq;
use grid_sequencer::{Machine, Position, SnapshotMeta, SnapshotStore, abort_on_panic};

type Taken = (SnapshotMeta, Vec<u8>);

/// Decides when a snapshot is due and sees it written. Owned by the replica's thread.
#[derive(Debug)]
pub(crate) struct Snapshots {
    every: u64,
    last: Seq,
    work: Option<Sender<Taken>>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Into `store`, each time that `every` commands have been applied.
    pub(crate) fn start(store: SnapshotStore, every: u64, last: Seq) -> io::Result<Self> {
        // A place to hand over, none to pile up: while one is being written, the next is not taken.
        let (work, orders) = bounded::<Taken>(0);
        let body = move || {
            abort_on_panic("snapshots", || {
                for (meta, body) in orders {
                    write(&store, &meta, &body);
                }
            });
        };
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(body)?;
        Ok(Self { every: every.max(1), last, work: Some(work), thread: Some(thread) })
    }

    /// True when enough has happened since the last one.
    pub(crate) fn is_due(&self, seq: Seq) -> bool {
        seq.0 - self.last.0 >= self.every
    }

    /// Takes one now if the writer is free; if not, it stays due.
    pub(crate) fn take<M: Machine>(&mut self, machine: &M, position: Position) {
        let Some(work) = self.work.as_ref() else { return };
        match work.try_send(taken(machine, position)) {
            Ok(()) => self.last = position.seq,
            // Looking again costs a snapshot of the state; wait another stretch.
            Err(TrySendError::Full(_)) => self.last = Seq(position.seq.0 - self.every / 2),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Writes what is not in one yet, and waits until all are on disk.
    pub(crate) fn finish<M: Machine>(mut self, machine: &M, position: Position) {
        if position.seq > self.last
            && let Some(work) = self.work.as_ref()
        {
            let _ = work.send(taken(machine, position));
        }
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has ended the process.
            let _ = thread.join();
        }
    }
}

fn taken<M: Machine>(machine: &M, position: Position) -> Taken {
    let meta = SnapshotMeta { position, state_hash: machine.state_hash(), machine_format: M::FORMAT };
    (meta, machine.snapshot())
}

/// An error is no fault: the journal has everything, and a start without this snapshot only takes longer.
fn write(store: &SnapshotStore, meta: &SnapshotMeta, body: &[u8]) {
    match store.write(meta, body) {
        Ok(path) => {
            tracing::info!(path = %path.display(), seq = meta.position.seq.0, bytes = body.len(), "snapshot written");
        }
        Err(error) => {
            tracing::error!(%error, "a snapshot could not be written; the journal still has everything")
        }
    }
}
