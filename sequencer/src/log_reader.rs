//! Old blocks of the log, read back from the journal's segments: for a member that is too far behind for what is in memory.
//!
//! The reader has files and nothing else in common with the writer, so neither waits for the other. It remembers where the blocks
//! of the few segments lie that it was asked about last. A segment may vanish below it, when retention removes it, and blocks
//! may be replaced in a later segment; both are met here. What a committed index holds never changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{Block, BlockHeader, BlockKind, HEADER_BYTES, NoHeader, Position};
use crate::consensus::HardState;
use crate::disk::{Access, Disk, DiskFile, RealDisk};
use crate::journal::{JournalError, io_error, log_start};
use crate::recover::journal_dir;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentInfo, list_segments, read_header, segment_name};

/// Segments whose blocks' places are remembered; some 8 MiB each at the very most.
const REMEMBERED: usize = 4;
/// Bytes read at a time while looking where blocks lie.
const WINDOW: usize = 1 << 20;
/// How often a read starts over because retention took a segment away meanwhile.
const ATTEMPTS: usize = 3;

/// Why old blocks could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// The journal no longer has them: whoever needs them needs a snapshot.
    #[error("block {asked} is no longer in the journal, which begins with block {first}")]
    Compacted {
        /// The index that was asked for.
        asked: u64,
        /// The first index that can be read.
        first: u64,
    },
    /// The journal does not have them yet.
    #[error("block {asked} is not in the journal yet")]
    NotYet {
        /// The index that was asked for.
        asked: u64,
    },
    /// The journal does not read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Reads blocks of the log by index. Any number of threads may share one.
#[derive(Debug)]
pub struct LogReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    machine_format: u32,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The segments as last listed; the writer may have begun others since, and removed some.
    segments: Vec<SegmentInfo>,
    /// The last one looked at comes last.
    looked_at: Vec<Places>,
}

/// Where the blocks of one segment lie.
#[derive(Debug)]
struct Places {
    ordinal: u64,
    /// Up to where the file has been looked at.
    scanned: u64,
    /// The next segment begins where this one was looked at up to, so nothing will be added.
    complete: bool,
    /// The segment's last version of each index, one after the other.
    blocks: Vec<Place>,
    /// The highest index that is committed as far as this segment says.
    committed: u64,
    /// Behind the last log block.
    last: Position,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    index: u64,
    offset: u32,
    bytes: u32,
}

impl Places {
    fn of(segment: &SegmentInfo) -> Self {
        Self {
            ordinal: segment.header.ordinal,
            scanned: SEGMENT_HEADER_BYTES as u64,
            complete: false,
            blocks: Vec::new(),
            committed: 0,
            last: segment.header.before,
        }
    }

    fn add(&mut self, header: &BlockHeader, payload: &[u8], offset: u64) {
        match header.kind {
            BlockKind::Entry | BlockKind::ConfChange => {
                let index = header.index;
                while self.blocks.last().is_some_and(|last| last.index >= index) {
                    self.blocks.pop();
                }
                let (offset, bytes) = (offset as u32, (HEADER_BYTES as u32) + header.payload_len);
                self.blocks.push(Place { index, offset, bytes });
                self.last = Position::after(header);
            }
            BlockKind::HardState => {
                let commit = HardState::from_bytes(payload).map_or(0, |state| state.commit);
                self.committed = self.committed.max(commit);
            }
            BlockKind::Snapshot => {
                self.blocks.clear();
                if let Some(position) = Position::from_bytes(payload) {
                    self.committed = self.committed.max(position.index);
                    self.last = position;
                }
            }
        }
    }

    /// The places from `index` on.
    fn from(&self, index: u64) -> &[Place] {
        let first = self.blocks.first().map_or(u64::MAX, |place| place.index);
        match index.checked_sub(first) {
            Some(skip) => self.blocks.get(skip as usize..).unwrap_or_default(),
            None => &[],
        }
    }
}

impl LogReader {
    /// Of the journal in a data directory of this machine.
    #[must_use]
    pub fn new(data: &Path, machine_format: u32) -> Self {
        Self::on(RealDisk::shared(), data, machine_format)
    }

    /// Of the journal in a data directory of a disk.
    #[must_use]
    pub fn on(disk: Arc<dyn Disk>, data: &Path, machine_format: u32) -> Self {
        Self { disk, dir: journal_dir(data), machine_format, known: Mutex::default() }
    }

    /// The blocks from `from_index` on, in order without a gap: one at least, and then as many as fit into `max_bytes`, or as
    /// were written. Ask for committed blocks only; others may be replaced at any moment.
    ///
    /// # Errors
    /// [`LogReadError`].
    pub fn read(&self, from_index: u64, max_bytes: u64) -> Result<Vec<Arc<Block>>, LogReadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            match self.try_read(&mut known, from_index, max_bytes) {
                // Retention removed what was to be read: look again at what there is.
                Err(LogReadError::Journal(JournalError::Io { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    *known = Known::default();
                }
                read => return read,
            }
        }
        let first = self.list()?.first().map_or(0, |oldest| oldest.header.before.index) + 1;
        Err(LogReadError::Compacted { asked: from_index, first })
    }

    /// The first index that can still be read.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub fn first_index(&self) -> Result<u64, JournalError> {
        Ok(self.start()?.index + 1)
    }

    /// Where the log stands before the first block that can still be read.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub fn start(&self) -> Result<Position, JournalError> {
        Ok(log_start(&*self.disk, &self.dir, self.machine_format)?.unwrap_or_default())
    }

    fn list(&self) -> Result<Vec<SegmentInfo>, JournalError> {
        list_segments(&*self.disk, &self.dir, self.machine_format)
    }

    fn try_read(
        &self,
        known: &mut Known,
        from_index: u64,
        max_bytes: u64,
    ) -> Result<Vec<Arc<Block>>, LogReadError> {
        self.follow(known)?;
        let holds = |segment: &SegmentInfo| segment.header.before.index < from_index;
        // The last segment that was begun before the block was written holds it, or a later one that replaced it.
        let mut nth = known.segments.iter().rposition(holds).unwrap_or(0);
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        let (mut index, mut left) = (from_index, max_bytes);
        while nth < known.segments.len() {
            let limit = self.limit(known, nth)?;
            // Looking at later ones may have crowded it out.
            self.look(known, nth)?;
            let segment = &known.segments[nth];
            let places = places(&mut known.looked_at, segment);
            let wanted: Vec<Place> = places
                .from(index)
                .iter()
                .take_while(|place| place.index <= limit)
                .scan(&mut left, |left, place| {
                    let bytes = u64::from(place.bytes);
                    let fits = **left >= bytes || (blocks.is_empty() && place.index == from_index);
                    **left = left.saturating_sub(bytes);
                    fits.then_some(*place)
                })
                .collect();
            if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
                self.fetch(segment, &wanted, &mut blocks)?;
                index = last.index + 1;
                if left == 0 || first.index + wanted.len() as u64 != index {
                    break;
                }
                let all = places.blocks.last().is_some_and(|end| end.index.min(limit) == last.index);
                if !all {
                    break;
                }
            }
            nth += 1;
        }
        if !blocks.is_empty() {
            return Ok(blocks);
        }
        let first = known.segments.first().map_or(0, |oldest| oldest.header.before.index) + 1;
        if from_index < first {
            return Err(LogReadError::Compacted { asked: from_index, first });
        }
        match known.segments.iter().rposition(holds) {
            // It was written before a later segment was begun, and is not found: what is in its place does not read.
            Some(nth) if nth + 1 < known.segments.len() => {
                let segment = &known.segments[nth];
                let offset = places(&mut known.looked_at, segment).scanned;
                let why = "nothing that checks is there".to_owned();
                let path = segment.path.clone();
                Err(JournalError::Damaged { path, offset, index: from_index, why }.into())
            }
            _ => Err(LogReadError::NotYet { asked: from_index }),
        }
    }

    /// Learns of segments begun since the last look.
    fn follow(&self, known: &mut Known) -> Result<(), JournalError> {
        let Some(last) = known.segments.last() else {
            known.segments = self.list()?;
            return Ok(());
        };
        let mut ordinal = last.header.ordinal + 1;
        loop {
            let path = self.dir.join(segment_name(ordinal));
            match read_header(&*self.disk, &path) {
                Ok(Ok(header)) => known.segments.push(SegmentInfo { path, header }),
                Ok(Err(why)) => return Err(JournalError::BadSegment { path, why }),
                Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            ordinal += 1;
        }
    }

    /// Up to where a segment's blocks are not replaced by later segments.
    fn limit(&self, known: &mut Known, nth: usize) -> Result<u64, JournalError> {
        let mut limit = u64::MAX;
        self.look(known, nth)?;
        let own = places(&mut known.looked_at, &known.segments[nth]);
        let (last, mut committed) = (own.last.index, own.committed);
        for later in nth + 1..known.segments.len() {
            if committed >= last {
                break;
            }
            self.look(known, later)?;
            let places = places(&mut known.looked_at, &known.segments[later]);
            committed = committed.max(places.committed);
            if let Some(first) = places.blocks.first() {
                limit = limit.min(first.index - 1);
            }
        }
        Ok(limit)
    }

    /// Looks where the blocks of a segment lie, as far as not known yet. Stops where nothing whole follows: the writer is there,
    /// or the end; or damage, which recovery judges, and of which nothing is handed out here.
    fn look(&self, known: &mut Known, nth: usize) -> Result<(), JournalError> {
        let segment = &known.segments[nth];
        let next = known.segments.get(nth + 1).map(|next| next.header.before);
        let places = places(&mut known.looked_at, segment);
        if places.complete {
            return Ok(());
        }
        let file = self.disk.open(&segment.path, Access::Read).map_err(io_error("open", &segment.path))?;
        scan(&*file, places).map_err(io_error("read", &segment.path))?;
        // Where it stops before that, it is damaged, and may be put right.
        places.complete = next == Some(places.last);
        Ok(())
    }

    fn fetch(
        &self,
        segment: &SegmentInfo,
        wanted: &[Place],
        blocks: &mut Vec<Arc<Block>>,
    ) -> Result<(), JournalError> {
        let path = &segment.path;
        let file = self.disk.open(path, Access::Read).map_err(io_error("open", path))?;
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let mut bytes = vec![0; (last.offset + last.bytes - first.offset) as usize];
        file.read_exact_at(&mut bytes, u64::from(first.offset)).map_err(io_error("read", path))?;
        for place in wanted {
            let start = (place.offset - first.offset) as usize;
            let block = &bytes[start..start + place.bytes as usize];
            let checked = BlockHeader::read(block).ok().filter(|header| {
                header.index == place.index
                    && header.matches(&block[HEADER_BYTES..])
                    && blocks
                        .last()
                        .is_none_or(|before| Position::after(before.header()).refuses(header).is_none())
            });
            let Some(header) = checked else {
                return Err(JournalError::Damaged {
                    path: path.clone(),
                    offset: u64::from(place.offset),
                    index: place.index,
                    why: "it does not read back as it was written".to_owned(),
                });
            };
            blocks.push(Arc::new(Block::checked(&header, &block[HEADER_BYTES..])));
        }
        Ok(())
    }
}

/// What is known of a segment, which is then the one looked at last.
fn places<'a>(looked_at: &'a mut Vec<Places>, segment: &SegmentInfo) -> &'a mut Places {
    let ordinal = segment.header.ordinal;
    let places = match looked_at.iter().position(|places| places.ordinal == ordinal) {
        Some(at) => looked_at.remove(at),
        None => Places::of(segment),
    };
    if looked_at.len() >= REMEMBERED {
        looked_at.remove(0);
    }
    looked_at.push(places);
    looked_at.last_mut().expect("just pushed")
}

fn scan(file: &dyn DiskFile, places: &mut Places) -> io::Result<()> {
    let mut window = Vec::new();
    let mut size = WINDOW;
    loop {
        let from = places.scanned;
        window.resize(size, 0);
        let read = file.read_most_at(&mut window, from)?;
        let bytes = &window[..read];
        let mut at = 0;
        // Until a block does not fit into the window; `None` when nothing whole follows at all.
        let more = loop {
            let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) else {
                break Some(WINDOW);
            };
            let header = match BlockHeader::read(rest) {
                Ok(header) => header,
                Err(NoHeader::Empty | NoHeader::Damaged) => break None,
            };
            let own = HEADER_BYTES + header.payload_len as usize;
            let Some(payload) = rest.get(HEADER_BYTES..own) else {
                break Some(header.block_bytes().max(WINDOW));
            };
            if !header.matches(payload) {
                break None;
            }
            places.add(&header, payload, from + at as u64);
            at += header.block_bytes();
            places.scanned = from + at as u64;
        };
        match more {
            // The file goes on behind the window.
            Some(next) if read == size && (at > 0 || next > size) => size = next,
            _ => return Ok(()),
        }
    }
}
