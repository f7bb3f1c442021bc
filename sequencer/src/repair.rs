//! What a cluster can do about damage that a single node has to stop at: keep what is sound, put the rest aside, and go on with
//! the blocks that another node has.
//!
//! Nothing is deleted, and nothing of the journal is touched before everything that takes its place is on disk. The exchange
//! itself is a handful of renames that a crash may interrupt anywhere; the next start completes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{BLOCK_ALIGN, Block, BlockHeader, BlockKind, HEADER_BYTES, NoHeader, Position};
use crate::consensus::{HardState, Persist};
use crate::disk::{Access, Disk, Inline, RealDisk};
use crate::journal::{self, From, Journal, JournalConfig, JournalError, io_error, remove_if_there, sync_dir};
use crate::recover::{DataDir, RecoverError, journal_dir};
use crate::segment::{
    SEGMENT_HEADER_BYTES, SegmentInfo, check_machine_format, judge, load_file, ordinal_of, read_header,
    segment_name, segment_paths,
};
use crate::trail::Trail;

/// Says that everything in the directory is whole and is to take its place. Holds the numbers of the first and last segment.
const READY: &str = "READY";
/// Blocks that are written with one sync while a journal is put together again.
const BATCH: usize = 256;

/// What is wrong with a journal, and what is still known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first file that does not check.
    pub path: PathBuf,
    /// Where in it, in bytes from its start; 0 for its header.
    pub offset: u64,
    /// What does not check.
    pub why: String,
    /// Where the log stands before the damage. What stands behind `committed` may have been replaced in what does not read.
    pub last_good: Position,
    /// Where the log stands behind the last block before the damage that is known to be committed: on every node's log.
    pub committed: Position,
    /// The highest index of a block behind the damage; 0 if none reads.
    pub seen_index: u64,
    /// The highest term seen anywhere.
    pub seen_term: u64,
    /// The newest hard state that reads, before or behind the damage.
    pub hard_state: HardState,
    /// It is the last one that was written. If not, nobody knows for whom this node voted last.
    pub vote_is_certain: bool,
    /// Number of the segment that the damage is in.
    ordinal: u64,
    /// Number of the oldest segment.
    oldest: u64,
    /// The log before the damage.
    trail: Trail,
}

impl Damage {
    /// The same, but with nothing of the journal worth keeping: for when no other node has the blocks that would have to
    /// continue it. A [`repair`] without blocks then leaves a journal that remembers the term and is empty otherwise; such a node
    /// starts again once a snapshot was [received](crate::SnapshotStore::receive).
    #[must_use]
    pub fn without_the_log(self) -> Self {
        let nothing = Position::default();
        let (ordinal, trail) = (self.oldest, Trail::behind(nothing));
        Self { last_good: nothing, committed: nothing, offset: 0, ordinal, trail, ..self }
    }
}

/// Examines the journal of a data directory that refused to be [recovered](crate::recover). `None` if it is sound.
///
/// # Errors
/// [`JournalError`] if the disk fails, or the journal is of a newer program.
pub fn examine(data: &Path, machine_format: u32) -> Result<Option<Damage>, JournalError> {
    examine_on(&RealDisk, data, machine_format)
}

/// As [`examine`], on a given disk.
///
/// # Errors
/// As [`examine`].
pub fn examine_on(disk: &dyn Disk, data: &Path, machine_format: u32) -> Result<Option<Damage>, JournalError> {
    let paths = segment_paths(disk, &journal_dir(data))?;
    let mut trail = Trail::behind(Position::default());
    let mut expected = None;
    for (nth, path) in paths.iter().enumerate() {
        let damaged = |offset, why: String, trail: &Trail, ordinal| {
            let mut damage = Damage {
                path: path.clone(),
                offset,
                why,
                last_good: trail.last(),
                committed: trail.at(trail.committed()).unwrap_or(trail.start()),
                seen_index: 0,
                seen_term: trail.last().term.max(trail.hard_state().term),
                hard_state: trail.hard_state(),
                vote_is_certain: false,
                ordinal,
                trail: trail.clone(),
                oldest: ordinal_of(&paths[0]).unwrap_or(ordinal).min(ordinal),
            };
            look_behind(disk, &paths[nth..], &mut damage)?;
            Ok(Some(damage))
        };
        let named = ordinal_of(path);
        let ordinal = expected.or(named).unwrap_or(1);
        let header = match read_header(disk, path)? {
            Ok(header) => match check_machine_format(header.machine_format, machine_format) {
                Ok(()) => header,
                Err(why) => return Err(JournalError::BadSegment { path: path.clone(), why }),
            },
            Err(why) => return damaged(0, why, &trail, ordinal),
        };
        if header.ordinal != ordinal || named != Some(ordinal) {
            return damaged(0, "it is not the segment that belongs here".to_owned(), &trail, ordinal);
        }
        if nth == 0 {
            trail = Trail::from_middle(header.before);
        } else if trail.last() != header.before {
            return damaged(0, "it does not follow on the segment ahead".to_owned(), &trail, ordinal);
        }
        let segment = SegmentInfo { path: path.clone(), header };
        let last = nth + 1 == paths.len();
        let judged = judge(disk, &segment, last, &mut trail, &mut |_, _| Ok::<(), JournalError>(()))?;
        if let Err(bad) = judged {
            return damaged(bad.offset, bad.why, &trail, ordinal);
        }
        expected = Some(ordinal + 1);
    }
    Ok(None)
}

/// What reads behind a damage. Blocks are found by their checksums, at every place where one may begin.
fn look_behind(disk: &dyn Disk, paths: &[PathBuf], damage: &mut Damage) -> Result<(), JournalError> {
    let mut from = (damage.offset as usize + BLOCK_ALIGN).max(SEGMENT_HEADER_BYTES);
    for path in paths {
        let bytes = load_file(disk, path)?;
        let mut at = from;
        from = SEGMENT_HEADER_BYTES;
        while at + HEADER_BYTES <= bytes.len() {
            let header = match BlockHeader::read(&bytes[at..]) {
                Ok(header) => header,
                Err(bad) => {
                    // What does not read may have been a newer hard state; what was never written was not.
                    damage.vote_is_certain &= bad == NoHeader::Empty;
                    at += BLOCK_ALIGN;
                    continue;
                }
            };
            let payload = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + header.payload_len as usize);
            let Some(payload) = payload.filter(|payload| header.matches(payload)) else {
                damage.vote_is_certain = false;
                at += BLOCK_ALIGN;
                continue;
            };
            if header.kind.is_log() {
                damage.seen_index = damage.seen_index.max(header.index);
            }
            damage.seen_term = damage.seen_term.max(header.term);
            if header.kind == BlockKind::HardState
                && let Some(state) = HardState::from_bytes(payload)
            {
                damage.seen_term = damage.seen_term.max(state.term);
                damage.hard_state = state;
                damage.vote_is_certain = true;
            }
            at += header.block_bytes();
        }
    }
    Ok(())
}

/// Puts the damaged segments aside under other names, and continues the journal behind the last good block with `blocks`.
///
/// `blocks` must continue [`Damage::last_good`], or a block between [`Damage::committed`] and that, without a gap, up to `committed` at least, an index that is committed in the
/// cluster now: so nothing that this node ever acknowledged is missing. `term` is the cluster's current one. If it is not
/// certain for whom this node voted last, it will not vote in that term again.
///
/// # Errors
/// [`RecoverError`]; the journal is then as it was, or the next [`crate::recover`] completes the exchange.
pub fn repair(
    data: &Path,
    config: JournalConfig,
    machine_format: u32,
    damage: &Damage,
    blocks: impl IntoIterator<Item = Arc<Block>>,
    committed: u64,
    term: u64,
) -> Result<(), RecoverError> {
    repair_on(RealDisk::shared(), data, config, machine_format, damage, blocks, committed, term)
}

/// As [`repair`], on a given disk.
///
/// # Errors
/// As [`repair`].
#[expect(clippy::too_many_arguments, reason = "what the cluster knows and what this node knows")]
pub fn repair_on(
    disk: Arc<dyn Disk>,
    data: &Path,
    config: JournalConfig,
    machine_format: u32,
    damage: &Damage,
    blocks: impl IntoIterator<Item = Arc<Block>>,
    committed: u64,
    term: u64,
) -> Result<(), RecoverError> {
    let lock = DataDir::open_on(Arc::clone(&disk), data)?;
    let dir = repair_dir(data);
    disk.create_dir(&dir).map_err(io_error("create", &dir))?;
    clear(&*disk, &dir)?;
    let mut journal = beginning(&disk, &dir, data, config, machine_format, damage)?;
    let mut batch = Vec::new();
    let mut blocks = blocks.into_iter();
    loop {
        batch.extend(blocks.by_ref().take(BATCH));
        if batch.is_empty() {
            break;
        }
        let first = batch[0].header().index;
        let mut before = journal.at(first.saturating_sub(1)).unwrap_or(journal.position());
        for block in &batch {
            if let Some(why) = before.refuses(block.header()) {
                let why = format!("block {} does not continue it: {why}", block.header().index);
                return Err(refused(damage, &why));
            }
            before = Position::after(block.header());
        }
        journal.append(&[Persist { blocks: std::mem::take(&mut batch).into(), ..Persist::default() }])?;
    }
    let last = journal.position();
    if last.index < committed {
        let why = format!("blocks were given up to {} where {committed} is committed", last.index);
        return Err(refused(damage, &why));
    }
    let known = damage.hard_state;
    let term = term.max(damage.seen_term).max(last.term);
    let vote = if damage.vote_is_certain && known.term == term { known.vote } else { config.node };
    let commit = committed.max(journal.hard_state().commit);
    let hard_state = Some(HardState { term, vote, commit });
    journal.append(&[Persist { hard_state, ..Persist::default() }])?;
    drop(journal);
    let ready = dir.join(READY);
    let marker = disk.create(&ready).map_err(io_error("create", &ready))?;
    let text = damage.ordinal.to_string();
    marker.write_bytes_at(text.as_bytes(), 0).map_err(io_error("write", &ready))?;
    marker.sync_all().map_err(io_error("sync", &ready))?;
    sync_dir(&*disk, data)?;
    sync_dir(&*disk, &dir)?;
    complete(&*disk, data)?;
    drop(lock);
    Ok(())
}

fn refused(damage: &Damage, why: &str) -> RecoverError {
    let why = format!("it cannot be repaired with these blocks: {why}");
    JournalError::BadSegment { path: damage.path.clone(), why }.into()
}

fn repair_dir(data: &Path) -> PathBuf {
    data.join("repair")
}

/// A journal of its own beside the damaged one, with what is sound of the damaged segment in its first.
fn beginning(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    data: &Path,
    config: JournalConfig,
    machine_format: u32,
    damage: &Damage,
) -> Result<Journal, JournalError> {
    if damage.offset == 0 {
        journal::begin_at(&**disk, dir, &config, machine_format, damage.ordinal, damage.last_good)?;
    } else {
        let path = journal_dir(data).join(segment_name(damage.ordinal));
        let mut bytes = load_file(&**disk, &path)?;
        bytes[damage.offset as usize..].fill(0);
        let copy = dir.join(segment_name(damage.ordinal));
        let file = disk.create(&copy).map_err(io_error("create", &copy))?;
        file.write_bytes_at(&bytes, 0).map_err(io_error("write", &copy))?;
        file.sync_all().map_err(io_error("sync", &copy))?;
    }
    let mut nothing = |_: &crate::segment::Visited<'_>| Ok::<(), JournalError>(());
    let mut read = journal::read(&**disk, dir, machine_format, From::Oldest, &mut nothing, &mut |_, _| {})?;
    // It continues what stands in the segments ahead, too.
    read.trail = damage.trail.clone();
    Journal::open(Arc::clone(disk), Arc::new(Inline), dir, config, machine_format, read)
}

/// Removes what an earlier try left that was not ready.
fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    for name in list(disk, dir)? {
        remove_if_there(disk, &dir.join(name))?;
    }
    Ok(())
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, JournalError> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(io_error("list", dir)),
    }
}

/// Lets what is ready take its place, if something is; again after a crash. Afterwards there is nothing ready.
pub(crate) fn complete(disk: &dyn Disk, data: &Path) -> Result<(), JournalError> {
    let (dir, journal) = (repair_dir(data), journal_dir(data));
    let names = list(disk, &dir)?;
    if !names.iter().any(|name| name == READY) {
        return clear(disk, &dir);
    }
    let first: u64 = {
        let path = dir.join(READY);
        let mut bytes = [0; 20];
        let file = disk.open(&path, Access::Read).map_err(io_error("open", &path))?;
        let read = file.read_most_at(&mut bytes, 0).map_err(io_error("read", &path))?;
        let text = std::str::from_utf8(&bytes[..read]).ok().and_then(|text| text.parse().ok());
        text.ok_or_else(|| JournalError::BadSegment {
            path,
            why: "it does not say what to replace".to_owned(),
        })?
    };
    let mut new: Vec<u64> = names.iter().filter_map(|name| ordinal_of(Path::new(name))).collect();
    new.sort_unstable();
    // Those that took their place before a crash are no longer here; they stand below the first that still is.
    let placed_below = new.first().copied();
    for path in segment_paths(disk, &journal)? {
        let ordinal = ordinal_of(&path).unwrap_or(0);
        let is_new = placed_below.is_none_or(|first_left| ordinal < first_left);
        if ordinal >= first && !is_new {
            put_aside(disk, &journal, &path)?;
        }
    }
    for ordinal in new {
        let name = segment_name(ordinal);
        let (from, to) = (dir.join(&name), journal.join(&name));
        disk.rename(&from, &to).map_err(io_error("rename a repaired segment to", &to))?;
        crate::fault_point!("repair.segment_placed");
        sync_dir(disk, &journal)?;
        sync_dir(disk, &dir)?;
    }
    remove_if_there(disk, &dir.join(READY))?;
    clear(disk, &dir)?;
    sync_dir(disk, &dir)
}

/// Renames a damaged segment to the first name of its kind that is free.
fn put_aside(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), JournalError> {
    let taken = disk.list(dir).map_err(io_error("list", dir))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let free = (1..).map(|nth| format!("{name}.damaged-{nth}")).find(|aside| !taken.contains(aside));
    let to = dir.join(free.expect("numbers do not end"));
    tracing::warn!(from = %path.display(), to = %to.display(), "put a damaged journal segment aside");
    disk.rename(path, &to).map_err(io_error("put aside", path))?;
    sync_dir(disk, dir)
}
