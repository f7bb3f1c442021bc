//! From files to a running state: newest good snapshot, then every later block of the journal that is known to be committed.
//!
//! The same code serves the start of the venue, the proof that a replay from the first block gives the same state, and readers
//! that need the events of a stretch of the log again. A node that got its snapshot from another one starts here too.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grid_engine::{Nanos, Seq};

use crate::block::{Block, BlockHeader, BlockKind, CommandBytes, Position};
use crate::consensus::HardState;
use crate::disk::{Background, Disk, DiskLock, RealDisk, SideThread};
use crate::journal::{self, From, Journal, JournalConfig, JournalError, sync_dir};
use crate::machine::Machine;
use crate::segment::{TornTail, Visited, check_machine_format};
use crate::snapshot::{SnapshotError, SnapshotMeta, SnapshotStore};
use crate::trail::Moved;

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
    /// Time since the replay began, without reading the snapshot.
    pub elapsed: Duration,
}

impl Progress {
    /// Commands replayed per second so far; 0 before the first.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        per_second(self.commands, self.elapsed)
    }
}

fn per_second(commands: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(commands) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What recovery did, for the log and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Where the snapshot stood that the replay started from; `None` for the first block.
    pub snapshot: Option<Position>,
    /// The snapshot came from another node, and this is the first start behind it.
    pub received: bool,
    /// Snapshots that were passed over, with the reason.
    pub passed_over: Vec<String>,
    /// Commands replayed from the journal.
    pub replayed: u64,
    /// The last command applied.
    pub applied: Seq,
    /// The last command in the log. Those after `applied` are durable here and not known to be committed: consensus decides.
    pub log_end: Seq,
    /// How long the replay took.
    pub elapsed: Duration,
    /// The torn tail that was cut, if a crash left one.
    pub torn: Option<TornTail>,
}

impl RecoveryReport {
    /// Commands replayed per second.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        per_second(self.replayed, self.elapsed)
    }
}

/// Up to where a replay goes. A log may end in blocks that were never committed and may yet be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// The last block that the journal itself says is committed. It says so a little late, while a venue runs.
    KnownCommit,
    /// The block of this index, which the caller knows to be committed.
    Index(u64),
    /// The last block whose commands are all at or below this number, which the caller knows to be committed.
    Seq(Seq),
    /// The last block: right for a cluster of one, where what is written is committed.
    End,
}

impl Upto {
    /// True if a block with this header is not past the limit, with `committed` as the known commit.
    fn includes(self, header: &BlockHeader, committed: u64) -> bool {
        match self {
            Self::KnownCommit => header.index <= committed,
            Self::Index(index) => header.index <= index,
            Self::Seq(seq) => Position::after(header).seq <= seq,
            Self::End => true,
        }
    }
}

/// A data directory: `journal/`, `snapshots/` and the lock that keeps a second process out.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl DataDir {
    /// Creates what is missing and takes the lock.
    ///
    /// # Errors
    /// [`RecoverError::InUse`] if it is locked, [`RecoverError::Io`] otherwise.
    pub fn open(path: &Path) -> Result<Self, RecoverError> {
        Self::open_on(RealDisk::shared(), path)
    }

    /// As [`DataDir::open`], on a given disk.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, RecoverError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RecoverError::Io { action, path, source }
        };
        for dir in [path.to_owned(), journal_dir(path), snapshot_dir(path)] {
            disk.create_dir(&dir).map_err(io("create", &dir))?;
            // A process that was killed between a rename and the sync after it left names that a loss of power takes back,
            // and from here on this process builds on what it finds under them.
            sync_dir(&*disk, &dir)?;
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(&*disk, parent)?;
        }
        let lock_path = path.join("LOCK");
        match disk.lock(&lock_path).map_err(io("lock", &lock_path))? {
            Some(lock) => Ok(Self { disk, path: path.to_owned(), _lock: lock }),
            None => Err(RecoverError::InUse { dir: path.to_owned() }),
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
        SnapshotStore::on(Arc::clone(&self.disk), snapshot_dir(&self.path))
    }
}

pub(crate) fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

/// Where the snapshots of a data directory lie.
#[must_use]
pub fn snapshot_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// A state that was built up, and the journal open behind it: what [`crate::Sequencer::start`] takes.
#[derive(Debug)]
pub struct Recovered<M> {
    /// The machine after the last block known to be committed.
    pub machine: M,
    /// Where the log stands behind that block.
    pub position: Position,
    /// Blocks of the log after `position`, in order: durable here, not known to be committed. Consensus decides.
    pub tail: Vec<Arc<Block>>,
    /// Where the log stands before the first block that can still be read.
    pub log_start: Position,
    /// Term and vote as last journalled; as committed index that of `position`.
    pub hard_state: HardState,
    /// The cluster's members as the snapshot has them, in the replicator's coding; empty without a snapshot.
    pub members: Vec<u8>,
    /// Changes of members after the snapshot and up to `position`, each with its index and payload.
    pub conf_changes: Vec<(u64, Bytes)>,
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

    /// Where the log stands behind its last block, committed or not.
    #[must_use]
    pub fn log_end(&self) -> Position {
        self.journal.position()
    }

    /// The journal alone, and the directory that it is in: for tools that write a log without a venue.
    #[must_use]
    pub fn into_journal(self) -> (Journal, DataDir) {
        (self.journal, self.data)
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
    /// Where the snapshot stood that it started from; all zero for the first block.
    pub from: Position,
    /// The machine after the last block.
    pub machine: M,
    /// Where the log stands.
    pub position: Position,
    /// Commands that were applied.
    pub commands: u64,
    /// A torn tail that was found, and left alone.
    pub torn: Option<TornTail>,
}

/// Opens a data directory for running: locks it, restores the newest good snapshot, replays what is known to be committed after
/// it, cuts a torn tail.
///
/// `genesis` makes the machine before the first command; it must make the same one each time.
///
/// # Errors
/// [`RecoverError`]; nothing was changed then, unless it happened while cutting.
pub fn recover<M: Machine>(
    dir: &Path,
    config: JournalConfig,
    genesis: impl FnOnce() -> M,
    progress: impl FnMut(Progress),
) -> Result<Recovered<M>, RecoverError> {
    let aside = Arc::new(SideThread::new("journal-aside"));
    recover_on(RealDisk::shared(), aside, dir, config, genesis, progress)
}

/// As [`recover`], on a given disk and with what is done beside the order path done by `background`.
///
/// # Errors
/// As [`recover`].
pub fn recover_on<M: Machine>(
    disk: Arc<dyn Disk>,
    background: Arc<dyn Background>,
    dir: &Path,
    config: JournalConfig,
    genesis: impl FnOnce() -> M,
    mut progress: impl FnMut(Progress),
) -> Result<Recovered<M>, RecoverError> {
    let data = DataDir::open_on(Arc::clone(&disk), dir)?;
    crate::repair::complete(&*disk, dir)?;
    let (store, journal_dir) = (data.snapshots(), journal_dir(dir));
    let mut report = RecoveryReport::default();
    let (mut passed, mut genesis) = (0, Some(genesis));
    let (mut replay, members, read, received) = loop {
        let base = newest_state::<M>(&store, None, true, &mut passed, &mut report)?;
        let (machine, meta, received) = match base {
            Some(Base { machine, meta, received }) => (machine, meta, received),
            None => {
                let genesis = genesis.take().expect("nothing is left to be passed over after this");
                (genesis(), SnapshotMeta::default(), None)
            }
        };
        let mut replay = Replay::new(machine, meta.position, Upto::KnownCommit);
        let read = replay.run(&*disk, &journal_dir, &mut |_, _, _| {}, &mut progress);
        let read = match (read, &received) {
            (Ok(read), _) => Some(read),
            // It is of a later part of the log than this node has: that is what it was sent for.
            (Err(RecoverError::Journal(error)), Some(path)) if error.is_a_gap() => {
                let all = journal::read(
                    &*disk,
                    &journal_dir,
                    M::FORMAT,
                    From::Oldest,
                    &mut |_| Ok::<(), JournalError>(()),
                    &mut |_, _| {},
                )?;
                if all.trail.committed() >= meta.position.index {
                    let why =
                        format!("received snapshot {} is not of this node's future: {error}", path.display());
                    tracing::warn!(why, "passed over a snapshot");
                    report.passed_over.push(why);
                    None
                } else {
                    // What it read is of the part of the log that the snapshot takes the place of.
                    replay.pending.clear();
                    Some(all)
                }
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(read) = read {
            break (replay, meta.members, read, received);
        }
    };
    let position = replay.position;
    let behind = read.trail.at(position.index) != Some(position);
    let torn = read.torn.clone();
    let mut log_start = match read.began_at_oldest() {
        true => read.trail.start(),
        false => journal::log_start(&*disk, &journal_dir, M::FORMAT)?.unwrap_or(position),
    };
    let jumped = read.jumped;
    let mut journal = Journal::open(disk, background, &journal_dir, config, M::FORMAT, read)?;
    if let Some(torn) = &torn {
        tracing::warn!(file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, "cut a torn journal tail; nothing in it had been acknowledged");
    }
    journal.commit(if behind { 0 } else { position.index });
    // In this order: a crash after any of these steps is met by the same steps at the next start.
    if behind {
        journal.go_on_behind(position)?;
        crate::fault_point!("recover.noted_snapshot");
    }
    if let Some(path) = &received {
        store.take_in(path, position.index)?;
        crate::fault_point!("recover.took_in_snapshot");
    }
    if behind || jumped {
        journal.leave_behind()?;
        log_start = position;
    }
    store.sweep()?;
    let last = journal.position();
    let written = journal.hard_state();
    let hard_state = HardState {
        term: written.term.max(last.term),
        // What a torn tail took with it had not been acted upon; and a vote counts in its own term only.
        vote: if last.term > written.term { 0 } else { written.vote },
        commit: position.index,
    };
    report.replayed = replay.commands;
    (report.applied, report.log_end) = (position.seq, last.seq);
    report.elapsed = replay.elapsed;
    report.received = received.is_some();
    report.torn = torn;
    let tail = replay.pending.drain(..).map(|waiting| Arc::new(waiting.into_block())).collect();
    Ok(Recovered {
        machine: replay.machine,
        position,
        tail,
        log_start,
        hard_state,
        members,
        conf_changes: replay.conf_changes,
        report,
        journal,
        data,
    })
}

/// Replays a journal from its first block to the last that it knows to be committed, and changes nothing; for verification.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_from_first_block<M: Machine>(
    dir: &Path,
    genesis: impl FnOnce() -> M,
    progress: impl FnMut(Progress),
) -> Result<Replayed<M>, RecoverError> {
    replay_upto(dir, Upto::KnownCommit, genesis, progress)
}

/// As [`replay_from_first_block`], up to a given place.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_upto<M: Machine>(
    dir: &Path,
    upto: Upto,
    genesis: impl FnOnce() -> M,
    mut progress: impl FnMut(Progress),
) -> Result<Replayed<M>, RecoverError> {
    let replay = Replay::new(genesis(), Position::default(), upto);
    replay.run_to_end(&RealDisk, &journal_dir(dir), &mut |_, _, _| {}, &mut progress)
}

/// As [`replay_upto`], but where the first block is no longer there, from the oldest snapshot that the journal continues: all that
/// a node which was sent its state can replay.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_all_kept<M: Machine>(
    dir: &Path,
    upto: Upto,
    genesis: impl FnOnce() -> M,
    mut progress: impl FnMut(Progress),
) -> Result<Replayed<M>, RecoverError> {
    let journal_dir = journal_dir(dir);
    let start = journal::log_start(&RealDisk, &journal_dir, M::FORMAT)?.unwrap_or_default();
    if start.index == 0 {
        return replay_upto(dir, upto, genesis, progress);
    }
    let store = SnapshotStore::new(snapshot_dir(dir));
    for path in store.list()?.into_iter().rev() {
        if let Ok(Some((machine, meta))) = restored::<M>(&store, &path, None)
            && meta.position.index >= start.index
        {
            let replay = Replay::new(machine, meta.position, upto);
            return replay.run_to_end(&RealDisk, &journal_dir, &mut |_, _, _| {}, &mut progress);
        }
    }
    Err(JournalError::NeedsSnapshot { dir: journal_dir, index: start.index }.into())
}

/// Gives `sink` again what the commands after `after` did, in order, up to and including `upto`, which the caller knows to be
/// committed: for a history that is behind the log.
///
/// Starts from the newest snapshot at or before `after`. Changes nothing, and may be used while a venue runs on the directory.
///
/// # Errors
/// [`RecoverError`].
pub fn replay_events<M: Machine>(
    dir: &Path,
    after: Seq,
    upto: Seq,
    genesis: impl FnOnce() -> M,
    mut sink: impl FnMut(Seq, Nanos, &[M::Event]),
) -> Result<Replayed<M>, RecoverError> {
    let store = SnapshotStore::new(snapshot_dir(dir));
    let mut report = RecoveryReport::default();
    let (machine, from) = newest_state::<M>(&store, Some(after), false, &mut 0, &mut report)?
        .map_or_else(|| (genesis(), Position::default()), |base| (base.machine, base.meta.position));
    let mut later = |seq: Seq, at, events: &[M::Event]| {
        if seq > after {
            sink(seq, at, events);
        }
    };
    let replay = Replay::new(machine, from, Upto::Seq(upto));
    replay.run_to_end(&RealDisk, &journal_dir(dir), &mut later, &mut |_| {})
}

/// A state to replay from.
struct Base<M> {
    machine: M,
    meta: SnapshotMeta,
    /// The file, if it came from another node and was not taken in yet.
    received: Option<PathBuf>,
}

/// The newest snapshot that reads, restores, has the hash it claims, and is not after `limit`. The first `passed` are left out;
/// all that were looked at are added to that.
fn newest_state<M: Machine>(
    store: &SnapshotStore,
    limit: Option<Seq>,
    with_received: bool,
    passed: &mut usize,
    report: &mut RecoveryReport,
) -> Result<Option<Base<M>>, RecoverError> {
    let received = if with_received { store.received()? } else { Vec::new() };
    let mut candidates: Vec<(PathBuf, bool)> = received.into_iter().map(|path| (path, true)).collect();
    candidates.extend(store.list()?.into_iter().map(|path| (path, false)));
    // Newest first; of two that are equally new the node's own.
    let index = |path: &Path| crate::snapshot::index_of(path);
    candidates.sort_by_key(|(path, received)| (std::cmp::Reverse(index(path)), *received));
    for (path, received) in candidates.into_iter().skip(*passed) {
        *passed += 1;
        match restored::<M>(store, &path, limit) {
            Ok(Some((machine, meta))) => {
                report.snapshot = Some(meta.position);
                return Ok(Some(Base { machine, meta, received: received.then_some(path) }));
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(why, "passed over a snapshot");
                report.passed_over.push(why);
            }
        }
    }
    report.snapshot = None;
    Ok(None)
}

/// The machine in a snapshot; `None` if it is after `limit`.
fn restored<M: Machine>(
    store: &SnapshotStore,
    path: &Path,
    limit: Option<Seq>,
) -> Result<Option<(M, SnapshotMeta)>, String> {
    let (meta, body) = store.read(path).map_err(|error| error.to_string())?;
    if limit.is_some_and(|limit| meta.position.seq > limit) {
        return Ok(None);
    }
    check_machine_format(meta.machine_format, M::FORMAT)
        .map_err(|why| format!("snapshot {}: {why}", path.display()))?;
    let machine = M::restore(&body).map_err(|error| format!("snapshot {}: {error}", path.display()))?;
    if machine.state_hash() != meta.state_hash {
        return Err(format!("snapshot {} does not restore to the state hash it carries", path.display()));
    }
    Ok(Some((machine, meta)))
}

/// Sees what each command brought about while a log is replayed.
type Sink<'a, M> = &'a mut dyn FnMut(Seq, Nanos, &[<M as Machine>::Event]);

/// A block that was read and may not be applied yet.
struct Waiting {
    header: BlockHeader,
    payload: Bytes,
    /// Which of the paths.
    path: usize,
    offset: u64,
}

impl Waiting {
    fn into_block(self) -> Block {
        Block::checked(&self.header, &self.payload)
    }
}

struct Replay<M: Machine> {
    machine: M,
    /// Where it started.
    from: Position,
    /// Behind the last block applied.
    position: Position,
    upto: Upto,
    commands: u64,
    conf_changes: Vec<(u64, Bytes)>,
    /// Later blocks, in order, of which nothing is known yet, or that are past the limit.
    pending: VecDeque<Waiting>,
    paths: Vec<PathBuf>,
    events: Vec<M::Event>,
    elapsed: Duration,
}

impl<M: Machine> Replay<M> {
    fn new(machine: M, from: Position, upto: Upto) -> Self {
        Self {
            machine,
            from,
            position: from,
            upto,
            commands: 0,
            conf_changes: Vec::new(),
            pending: VecDeque::new(),
            paths: Vec::new(),
            events: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    fn run_to_end(
        mut self,
        disk: &dyn Disk,
        dir: &Path,
        sink: Sink<'_, M>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Replayed<M>, RecoverError> {
        let read = self.run(disk, dir, sink, progress)?;
        let Self { from, machine, position, commands, .. } = self;
        Ok(Replayed { from, machine, position, commands, torn: read.torn })
    }

    fn run(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        sink: Sink<'_, M>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<journal::Read, RecoverError> {
        let began = Instant::now();
        let from = From::Position(self.from);
        let commands = std::cell::Cell::new(0);
        let mut visit = |visited: &Visited<'_>| {
            self.visit(visited, sink)?;
            commands.set(self.commands);
            Ok::<(), RecoverError>(())
        };
        let mut tell = |commands, bytes_done, bytes_total| {
            progress(Progress { commands, bytes_done, bytes_total, elapsed: began.elapsed() });
        };
        let mut total = 0;
        let read = journal::read(disk, dir, M::FORMAT, from, &mut visit, &mut |bytes_done, bytes_total| {
            total = bytes_total;
            tell(commands.get(), bytes_done, bytes_total);
        })?;
        // All is read, so what is still there will not be replaced by anything in this journal.
        self.apply_while(|upto, header| upto.includes(header, read.trail.committed()), sink)?;
        tell(self.commands, total, total);
        self.elapsed = began.elapsed();
        Ok(read)
    }

    fn visit(&mut self, visited: &Visited<'_>, sink: Sink<'_, M>) -> Result<(), RecoverError> {
        match visited.moved {
            Moved::On => {
                let header = visited.header;
                while self.pending.back().is_some_and(|last| last.header.index >= header.index) {
                    self.pending.pop_back();
                }
                if header.index > self.from.index {
                    if self.paths.last().is_none_or(|path| path != visited.path) {
                        self.paths.push(visited.path.to_owned());
                    }
                    let (path, offset) = (self.paths.len() - 1, visited.offset);
                    self.pending.push_back(Waiting { header, payload: visited.payload(), path, offset });
                }
                Ok(())
            }
            Moved::HardState(state) => self.apply_while(
                |upto, header| header.index <= state.commit && upto.includes(header, state.commit),
                sink,
            ),
            Moved::Behind(_) => {
                self.pending.clear();
                Ok(())
            }
        }
    }

    fn apply_while(
        &mut self,
        may: impl Fn(Upto, &BlockHeader) -> bool,
        sink: Sink<'_, M>,
    ) -> Result<(), RecoverError> {
        while let Some(waiting) = self.pending.pop_front_if(|waiting| may(self.upto, &waiting.header)) {
            self.apply(&waiting, sink)?;
        }
        Ok(())
    }

    fn apply(&mut self, waiting: &Waiting, sink: Sink<'_, M>) -> Result<(), RecoverError> {
        let Waiting { header, payload, path, offset } = waiting;
        let refused = self.position.refuses(header);
        assert!(refused.is_none(), "committed blocks are applied in log order: {refused:?}");
        if header.kind == BlockKind::ConfChange {
            self.conf_changes.push((header.index, payload.clone()));
        } else {
            let mut seq = header.first_seq;
            for bytes in CommandBytes::new(payload) {
                let command = M::decode(bytes).map_err(|error| RecoverError::Undecodable {
                    path: self.paths[*path].clone(),
                    offset: *offset,
                    seq,
                    why: error.0,
                })?;
                self.events.clear();
                self.machine.apply(seq, header.at, &command, &mut self.events);
                sink(seq, header.at, &self.events);
                self.commands += 1;
                seq = seq.next();
            }
        }
        self.position = Position::after(header);
        Ok(())
    }
}
