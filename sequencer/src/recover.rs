//! From files to a running state: newest good snapshot, then every later block of the journal.
//!
//! The same code serves the start of the venue, the proof that a replay from the first block gives the same state, and readers
//! that need the events of a stretch of the log again.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use grid_engine::{Nanos, Seq};

use crate::block::{BlockKind, CommandBytes, Position};
use crate::consensus::HardState;
use crate::journal::{self, Journal, JournalConfig, JournalError, sync_dir};
use crate::machine::Machine;
use crate::segment::{TornTail, Visited};
use crate::snapshot::{SnapshotError, SnapshotStore};

/// Why a state could not be built up from a data directory.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal does not read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The directory of snapshots does not read; single bad snapshots are only passed over.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Somebody else has the directory open.
    #[error("{} is in use by another process; stop that one first, or choose another data directory", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A block checks, but this program cannot read a command in it.
    #[error(
        "command {} in {} at byte {offset} cannot be read: {why}. Start with the program version that wrote it, or a newer one",
        seq.0, path.display()
    )]
    Undecodable {
        /// The segment file.
        path: PathBuf,
        /// Where its block begins.
        offset: u64,
        /// The command's number.
        seq: Seq,
        /// What the machine said.
        why: String,
    },
}

/// How far building up the state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Commands replayed so far.
    pub commands: u64,
    /// Bytes of the journal read so far.
    pub bytes_done: u64,
    /// Bytes of the journal to read, an upper bound: the last segment is rarely full.
    pub bytes_total: u64,
}

/// What recovery did, for the log and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Where the snapshot stood that the replay started from; `None` for the first block.
    pub snapshot: Option<Position>,
    /// Snapshots that were passed over, with the reason.
    pub passed_over: Vec<String>,
    /// Commands replayed from the journal.
    pub replayed: u64,
    /// The torn tail that was cut, if a crash left one.
    pub torn: Option<TornTail>,
}

/// A data directory: `journal/`, `snapshots/` and the lock that keeps a second process out.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock, which the system releases however the process ends.
    lock: File,
}

impl Drop for DataDir {
    /// Unlocks in so many words: closing would not, while a child that is just being started still shares the file.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl DataDir {
    /// Creates what is missing and takes the lock.
    ///
    /// # Errors
    /// [`RecoverError::InUse`] if it is locked, [`RecoverError::Io`] otherwise.
    pub fn open(path: &Path) -> Result<Self, RecoverError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RecoverError::Io { action, path, source }
        };
        for dir in [path.to_owned(), journal_dir(path), snapshot_dir(path)] {
            std::fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        }
        sync_dir(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        let lock_path = path.join("LOCK");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(RecoverError::InUse { dir: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io("lock", &lock_path)(source)),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where snapshots are written and read.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotStore {
        SnapshotStore::new(snapshot_dir(&self.path))
    }
}

pub(crate) fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

pub(crate) fn snapshot_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// A state that was built up, and the journal open behind it: what [`crate::Sequencer::start`] takes.
#[derive(Debug)]
pub struct Recovered<M> {
    /// The machine after the last block.
    pub machine: M,
    /// Where the log stands.
    pub position: Position,
    /// Blocks of the log after `position` that are not known to be committed.
    pub tail: Vec<std::sync::Arc<crate::block::Block>>,
    /// Term and vote as last journalled.
    pub hard_state: HardState,
    /// What was done to get here.
    pub report: RecoveryReport,
    pub(crate) journal: Journal,
    pub(crate) data: DataDir,
}

impl<M: Machine> Recovered<M> {
    /// A second machine in the same state, for a replica that is fed from here on.
    ///
    /// # Panics
    /// If the machine cannot read its own snapshot: a fault.
    #[must_use]
    pub fn copy_machine(&self) -> M {
        let copy = M::restore(&self.machine.snapshot()).expect("a machine reads its own snapshot");
        assert_eq!(
            copy.state_hash(),
            self.machine.state_hash(),
            "a restored machine equals the one it was taken from"
        );
        copy
    }

    /// Where the snapshots of this venue go.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotStore {
        self.data.snapshots()
    }
}

/// A replay that only read: the state and where it stands.
#[derive(Debug)]
pub struct Replayed<M> {
    /// The machine after the last block.
    pub machine: M,
    /// Where the log stands.
    pub position: Position,
    /// Commands that were applied.
    pub commands: u64,
    /// A torn tail that was found, and left alone.
    pub torn: Option<TornTail>,
}

/// Opens a data directory for running: locks it, restores the newest good snapshot, replays the rest, cuts a torn tail.
///
/// `genesis` makes the machine before the first command; it must make the same one each time.
///
/// # Errors
/// [`RecoverError`]; nothing was changed then, unless it happened while cutting.
pub fn recover<M: Machine>(
    dir: &Path,
    config: JournalConfig,
    genesis: impl FnOnce() -> M,
    mut progress: impl FnMut(Progress),
) -> Result<Recovered<M>, RecoverError> {
    let data = DataDir::open(dir)?;
    let mut report = RecoveryReport::default();
    let (machine, from) = newest_state::<M>(&data.snapshots(), None, &mut report)?
        .unwrap_or_else(|| (genesis(), Position::default()));
    let mut replay = Replay { machine, commands: 0, events: Vec::new() };
    let read = replay.run(&journal_dir(dir), from, &mut |_, _, _| {}, &mut progress)?;
    let journal = Journal::open(&journal_dir(dir), config, M::FORMAT, &read)?;
    if let Some(torn) = &read.torn {
        tracing::warn!(file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, "cut a torn journal tail; nothing in it had been acknowledged");
    }
    report.replayed = replay.commands;
    report.torn = read.torn;
    Ok(Recovered {
        machine: replay.machine,
        position: read.position,
        tail: Vec::new(),
        hard_state: read.hard_state,
        report,
        journal,
        data,
    })
}

/// Replays a journal from its first block and changes nothing; for verification against a live state.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_from_first_block<M: Machine>(
    dir: &Path,
    genesis: impl FnOnce() -> M,
    mut progress: impl FnMut(Progress),
) -> Result<Replayed<M>, RecoverError> {
    let mut replay = Replay { machine: genesis(), commands: 0, events: Vec::new() };
    let read = replay.run(&journal_dir(dir), Position::default(), &mut |_, _, _| {}, &mut progress)?;
    Ok(Replayed {
        machine: replay.machine,
        position: read.position,
        commands: replay.commands,
        torn: read.torn,
    })
}

/// Gives `sink` again what the commands after `after` did, in order: for a history that is behind the log.
///
/// Starts from the newest snapshot at or before `after`. Changes nothing, and may be used while a venue runs on the directory;
/// it then also meets blocks that are written and not yet committed, so take only those up to a number that was told.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_events<M: Machine>(
    dir: &Path,
    after: Seq,
    genesis: impl FnOnce() -> M,
    mut sink: impl FnMut(Seq, Nanos, &[M::Event]),
) -> Result<Replayed<M>, RecoverError> {
    let snapshots = SnapshotStore::new(snapshot_dir(dir));
    let (machine, from) = newest_state::<M>(&snapshots, Some(after), &mut RecoveryReport::default())?
        .unwrap_or_else(|| (genesis(), Position::default()));
    let mut replay = Replay { machine, commands: 0, events: Vec::new() };
    let mut later = |seq: Seq, at, events: &[M::Event]| {
        if seq > after {
            sink(seq, at, events);
        }
    };
    let read = replay.run(&journal_dir(dir), from, &mut later, &mut |_| {})?;
    Ok(Replayed {
        machine: replay.machine,
        position: read.position,
        commands: replay.commands,
        torn: read.torn,
    })
}

/// The newest snapshot that reads, restores, has the hash it claims, and is not after `limit`.
fn newest_state<M: Machine>(
    store: &SnapshotStore,
    limit: Option<Seq>,
    report: &mut RecoveryReport,
) -> Result<Option<(M, Position)>, RecoverError> {
    for path in store.list()? {
        let restored =
            SnapshotStore::read(&path).map_err(|error| error.to_string()).and_then(|(meta, body)| {
                if limit.is_some_and(|limit| meta.position.seq > limit) {
                    return Ok(None);
                }
                if meta.machine_format > M::FORMAT {
                    return Err(format!("snapshot {} is of a newer program", path.display()));
                }
                let machine =
                    M::restore(&body).map_err(|error| format!("snapshot {}: {error}", path.display()))?;
                if machine.state_hash() != meta.state_hash {
                    return Err(format!(
                        "snapshot {} does not restore to the state hash it carries",
                        path.display()
                    ));
                }
                Ok(Some((machine, meta.position)))
            });
        match restored {
            Ok(Some((machine, position))) => {
                report.snapshot = Some(position);
                return Ok(Some((machine, position)));
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(why, "passed over a snapshot");
                report.passed_over.push(why);
            }
        }
    }
    Ok(None)
}

/// Sees what each command brought about while a log is replayed.
type Sink<'a, M> = &'a mut dyn FnMut(Seq, Nanos, &[<M as Machine>::Event]);

struct Replay<M: Machine> {
    machine: M,
    commands: u64,
    events: Vec<M::Event>,
}

impl<M: Machine> Replay<M> {
    fn run(
        &mut self,
        dir: &Path,
        from: Position,
        sink: Sink<'_, M>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<journal::Read, RecoverError> {
        let commands = std::cell::Cell::new(0);
        let mut visit = |visited: &Visited<'_>| {
            if visited.header.kind == BlockKind::Entry && visited.header.index > from.index {
                self.apply(visited, sink)?;
                commands.set(self.commands);
            }
            Ok::<(), RecoverError>(())
        };
        journal::read(dir, M::FORMAT, Some(from), &mut visit, &mut |bytes_done, bytes_total| {
            progress(Progress { commands: commands.get(), bytes_done, bytes_total });
        })
    }

    fn apply(&mut self, visited: &Visited<'_>, sink: Sink<'_, M>) -> Result<(), RecoverError> {
        let mut seq = visited.header.first_seq;
        for bytes in CommandBytes::new(visited.payload) {
            let command = M::decode(bytes).map_err(|error| RecoverError::Undecodable {
                path: visited.path.to_owned(),
                offset: visited.offset,
                seq,
                why: error.0,
            })?;
            self.events.clear();
            self.machine.apply(seq, visited.header.at, &command, &mut self.events);
            sink(seq, visited.header.at, &self.events);
            self.commands += 1;
            seq = seq.next();
        }
        Ok(())
    }
}
