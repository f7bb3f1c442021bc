//! One segment file: its header, and the walk over its blocks that tells a clean end, a torn tail and damage apart.
//!
//! The judgement is the heart of recovery. Segments are filled with zeros ahead of use, and disks write sectors of 512
//! bytes whole or not at all. So a write that a crash cut short leaves a whole sector of zeros inside the block (or the file ends there).
//! Such a block is a *torn tail*, and is cut, unless a later block proves that it had been synced. Everything else
//! that does not check is *damage* to something that was acknowledged, and is refused.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use grid_engine::{Nanos, Seq};

use crate::block::{BLOCK_ALIGN, BlockHeader, HEADER_BYTES, NoHeader, Position};
use crate::disk::{Access, Disk};
use crate::journal::{JournalError, io_error};
use crate::trail::{Moved, Trail};

/// Bytes before the first block of a segment.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Version of the file format, apart from the machine's own command format.
pub(crate) const SEGMENT_FORMAT: u32 = 2;
/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How often a reader looks again at a place that is just being written.
const LIVE_LOOKS: u32 = 1000;
/// How often segments are listed again because some vanished meanwhile.
const LISTINGS: usize = 10;
/// Larger payloads are not searched for a flipped bit: that takes time by the square.
const FLIPS_TRIED_BYTES: usize = 64 << 10;
const MAGIC: [u8; 8] = *b"GRIDJRNL";
/// Bytes of the segment header that are used; its CRC covers them up to itself.
const USED: usize = 100;

/// The first 4 KiB of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) machine_format: u32,
    pub(crate) ordinal: u64,
    pub(crate) cluster: u64,
    pub(crate) node: u64,
    /// Bytes of the whole file.
    pub(crate) file_bytes: u64,
    /// Where the log stood before the first block.
    pub(crate) before: Position,
}

impl SegmentHeader {
    pub(crate) fn layout(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        out.extend_from_slice(&self.machine_format.to_le_bytes());
        for word in [
            self.ordinal,
            self.cluster,
            self.node,
            self.file_bytes,
            self.before.index + 1,
            self.before.term,
            self.before.seq.0 + 1,
            self.before.chain,
            self.before.at.0,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.resize(USED - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES, 0);
        out
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; USED] = bytes.first_chunk().ok_or("the file is shorter than its header")?;
        if bytes[..8] != MAGIC {
            return Err("it does not begin like a journal segment".to_owned());
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if crc32c::crc32c(&bytes[..USED - 4]) != u32_at(USED - 4) {
            return Err("its header is damaged".to_owned());
        }
        if u32_at(8) > SEGMENT_FORMAT {
            return Err(format!(
                "its format {} is newer than {SEGMENT_FORMAT}, which this program knows",
                u32_at(8)
            ));
        }
        if u32_at(8) < SEGMENT_FORMAT {
            return Err(format!(
                "its format {} is that of a program from before the first release, and is no longer read; begin with an empty data directory",
                u32_at(8)
            ));
        }
        let word = |nth: usize| {
            let at = 16 + nth * 8;
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        if word(4) == 0 || word(6) == 0 {
            return Err("its header is damaged".to_owned());
        }
        Ok(Self {
            machine_format: u32_at(12),
            ordinal: word(0),
            cluster: word(1),
            node: word(2),
            file_bytes: word(3),
            before: Position {
                index: word(4) - 1,
                term: word(5),
                seq: Seq(word(6) - 1),
                chain: word(7),
                at: Nanos(word(8)),
            },
        })
    }
}

/// A segment found on disk.
#[derive(Clone, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
}

/// File name of a segment.
pub(crate) fn segment_name(ordinal: u64) -> String {
    format!("journal-{ordinal:010}.seg")
}

/// The number in a segment's file name.
pub(crate) fn ordinal_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("journal-")?.strip_suffix(".seg")?.parse().ok()
}

/// Paths of the segments of a journal directory, in order.
pub(crate) fn segment_paths(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut names = disk.list(dir).map_err(io_error("list", dir))?;
    names.retain(|name| name.starts_with("journal-") && name.ends_with(".seg"));
    names.sort();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// All segments of a journal directory in order, checked to be without a gap.
pub(crate) fn list_segments(
    disk: &dyn Disk,
    dir: &Path,
    machine_format: u32,
) -> Result<Vec<SegmentInfo>, JournalError> {
    for _ in 0..LISTINGS {
        match list_once(disk, dir, machine_format) {
            // A venue that runs removed what it no longer needs, after it was listed and before it was opened.
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            // Or it made two while names were listed: a listing may hold the later one without the earlier.
            Err(JournalError::BadSegment { .. }) => {}
            listed => return listed,
        }
    }
    list_once(disk, dir, machine_format)
}

/// Whether this program's machine reads what one of format `found` wrote; if not, why.
pub(crate) fn check_machine_format(found: u32, known: u32) -> Result<(), String> {
    match found.cmp(&known) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => {
            Err(format!("its commands have format {found}, newer than {known}, which this program knows"))
        }
        Ordering::Less => Err(format!(
            "its commands have format {found}, that of a program from before the first release, which this program, of format {known}, no longer reads; begin with an empty data directory"
        )),
    }
}

fn list_once(disk: &dyn Disk, dir: &Path, machine_format: u32) -> Result<Vec<SegmentInfo>, JournalError> {
    let mut segments: Vec<SegmentInfo> = Vec::new();
    for path in segment_paths(disk, dir)? {
        let misplaced = |why: String| Err(JournalError::BadSegment { path: path.clone(), why });
        let header = match read_header(disk, &path)? {
            Ok(header) => header,
            Err(why) => return misplaced(why),
        };
        if let Err(why) = check_machine_format(header.machine_format, machine_format) {
            return misplaced(why);
        }
        if path.file_name().is_none_or(|name| name != segment_name(header.ordinal).as_str()) {
            return misplaced(format!(
                "its header says that it is number {}; it was renamed",
                header.ordinal
            ));
        }
        if let Some(last) = segments.last()
            && last.header.ordinal + 1 != header.ordinal
        {
            return misplaced(format!("segment {} ahead of it is missing", segment_name(header.ordinal - 1)));
        }
        segments.push(SegmentInfo { path, header });
    }
    Ok(segments)
}

/// A segment's header, or why there is none.
pub(crate) fn read_header(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Result<SegmentHeader, String>, JournalError> {
    let mut head = [0; USED];
    let file = disk.open(path, Access::Read).map_err(io_error("open", path))?;
    let read = file.read_most_at(&mut head, 0).map_err(io_error("read", path))?;
    Ok(SegmentHeader::read(&head[..read]))
}

/// One block met by a walk.
#[derive(Debug)]
pub(crate) struct Visited<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) header: BlockHeader,
    /// What it did to the log.
    pub(crate) moved: Moved,
    segment: &'a Bytes,
}

impl Visited<'_> {
    /// The payload, which shares the segment's bytes.
    pub(crate) fn payload(&self) -> Bytes {
        let start = self.offset as usize + HEADER_BYTES;
        self.segment.slice(start..start + self.header.payload_len as usize)
    }
}

/// A tail that a crash left half written, and that is or will be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where the log now ends in it, in bytes from its start.
    pub offset: u64,
    /// Bytes from there to the last that is not zero.
    pub bytes: u64,
}

/// Where a walk over a segment ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Where the next block would begin.
    pub(crate) offset: u64,
    /// Where the last write that left whole blocks began: everything ahead of it had been synced before.
    pub(crate) last_write: u64,
    pub(crate) torn: Option<TornTail>,
}

/// A block that does not check and is no torn tail either.
#[derive(Clone, Debug)]
pub(crate) struct BadPlace {
    pub(crate) offset: u64,
    pub(crate) why: String,
}

/// Walks one segment. `last` says that no segment follows, so that its tail may be torn.
pub(crate) fn walk<E: From<JournalError>>(
    disk: &dyn Disk,
    segment: &SegmentInfo,
    last: bool,
    trail: &mut Trail,
    visit: &mut dyn FnMut(&Visited<'_>, &Trail) -> Result<(), E>,
) -> Result<End, E> {
    match judge(disk, segment, last, trail, visit)? {
        Ok(end) => Ok(end),
        Err(BadPlace { offset, why }) => {
            let index = trail.last().index + 1;
            Err(JournalError::Damaged { path: segment.path.clone(), offset, index, why }.into())
        }
    }
}

/// As [`walk`], for callers who can do something about damage.
pub(crate) fn judge<E: From<JournalError>>(
    disk: &dyn Disk,
    segment: &SegmentInfo,
    last: bool,
    trail: &mut Trail,
    visit: &mut dyn FnMut(&Visited<'_>, &Trail) -> Result<(), E>,
) -> Result<Result<End, BadPlace>, E> {
    let path = segment.path.as_path();
    let (mut bytes, mut on_disk) = load(disk, segment)?;
    let mut looks_left = LIVE_LOOKS;
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut last_write = offset;
    let mut nth = None;
    loop {
        let fault = match read_block(&bytes, on_disk, offset, nth, trail) {
            Ok((header, moved)) => {
                visit(&Visited { path, offset: offset as u64, header, moved, segment: &bytes }, trail)?;
                if header.nth == 0 {
                    last_write = offset;
                }
                nth = Some(header.nth);
                offset += header.block_bytes();
                continue;
            }
            Err(Next::End) => {
                return Ok(Ok(End { offset: offset as u64, last_write: last_write as u64, torn: None }));
            }
            Err(Next::Bad(bad)) => bad,
        };
        // A venue may be writing just here, and a read of a file is no snapshot of it: look again until nothing has changed.
        let (again, on_disk_again) = load(disk, segment)?;
        if looks_left > 0 && again.get(offset..) != bytes.get(offset..) {
            (bytes, on_disk) = (again, on_disk_again);
            looks_left -= 1;
            continue;
        }
        let damaged = |why: String| Ok(Err(BadPlace { offset: offset as u64, why }));
        if !last {
            return damaged(format!("{}, and a later segment follows", fault.why));
        }
        let end = (offset + fault.extent).min(bytes.len());
        let may_be_torn = fault.hole
            || end > on_disk
            || ((has_empty_sector(&bytes[..end], offset) || is_a_beginning(&bytes[offset..], &fault))
                && !is_one_flip_away(&bytes[..end], offset, &fault));
        if !may_be_torn {
            return damaged(format!("{}, and no part of it is missing as after a crash", fault.why));
        }
        let behind = (offset + fault.extent).next_multiple_of(BLOCK_ALIGN);
        if let Some((at, later)) = later_proof(&bytes, offset, behind, trail) {
            return damaged(format!(
                "{}, and block {later} at byte {at} proves that it had been synced",
                fault.why
            ));
        }
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(offset, |at| at + 1).max(offset);
        let torn = TornTail { path: path.to_owned(), offset: offset as u64, bytes: (used - offset) as u64 };
        return Ok(Ok(End { offset: offset as u64, last_write: last_write as u64, torn: Some(torn) }));
    }
}

/// All bytes of a file.
pub(crate) fn load_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, JournalError> {
    let file = disk.open(path, Access::Read).map_err(io_error("open", path))?;
    let mut bytes = vec![0; file.len().map_err(io_error("look at", path))? as usize];
    let read = file.read_most_at(&mut bytes, 0).map_err(io_error("read", path))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// A segment's bytes, with zeros up to its full size, and how many of them are in the file.
pub(crate) fn load(disk: &dyn Disk, segment: &SegmentInfo) -> Result<(Bytes, usize), JournalError> {
    let path = &segment.path;
    let file = disk.open(path, Access::Read).map_err(io_error("open", path))?;
    let size = file.len().map_err(io_error("look at", path))?.max(segment.header.file_bytes) as usize;
    let mut bytes = vec![0; size];
    let on_disk = file.read_most_at(&mut bytes, 0).map_err(io_error("read", path))?;
    Ok((bytes.into(), on_disk))
}

struct BadBlock {
    why: String,
    /// Bytes that the block covers, as far as known.
    extent: usize,
    /// Nothing at all is where the block should begin, but something is behind it.
    hole: bool,
    /// Its header, if that checks and the payload does not.
    header: Option<BlockHeader>,
}

enum Next {
    End,
    Bad(BadBlock),
}

/// Reads and checks the block at `offset` and takes it into the trail; `nth` is that of the block before it in the segment.
fn read_block(
    bytes: &[u8],
    on_disk: usize,
    offset: usize,
    nth: Option<u32>,
    trail: &mut Trail,
) -> Result<(BlockHeader, Moved), Next> {
    let rest = &bytes[offset.min(bytes.len())..];
    if rest.len() < HEADER_BYTES {
        return Err(Next::End);
    }
    let bad = |why: &str, extent| {
        Err(Next::Bad(BadBlock { why: why.to_owned(), extent, hole: false, header: None }))
    };
    let header = match BlockHeader::read(rest) {
        Ok(header) => header,
        Err(NoHeader::Empty) if rest.iter().all(|byte| *byte == 0) => return Err(Next::End),
        Err(NoHeader::Empty) => {
            let why = "there is nothing where it should begin, but something behind it".to_owned();
            return Err(Next::Bad(BadBlock { why, extent: HEADER_BYTES, hole: true, header: None }));
        }
        Err(NoHeader::Damaged) => return bad("its header does not match its checksum", HEADER_BYTES),
    };
    let extent = HEADER_BYTES + header.payload_len as usize;
    let Some(payload) = rest.get(HEADER_BYTES..extent) else {
        return bad("it is longer than the segment", rest.len());
    };
    if !header.matches(payload) {
        let why = "it does not match its checksum".to_owned();
        return Err(Next::Bad(BadBlock { why, extent, hole: false, header: Some(header) }));
    }
    if offset + extent > on_disk {
        // What is missing happens to be zeros of the payload: whole, but not on disk as such.
        return bad("the file ends inside it", rest.len());
    }
    if header.nth != 0 && nth.is_none_or(|before| before + 1 != header.nth) {
        return bad("the block ahead of it in the same write is missing", extent);
    }
    if !header.counts(payload) {
        return bad("it holds another number of commands than it says", extent);
    }
    match trail.accept(&header, payload) {
        Ok(moved) => Ok((header, moved)),
        Err(why) => bad(&why, extent),
    }
}

/// True when some sector's share of the block that begins at `from` and ends with `bytes` is all zeros.
fn has_empty_sector(bytes: &[u8], from: usize) -> bool {
    let mut at = from;
    while at < bytes.len() {
        let end = (at / SECTOR + 1) * SECTOR;
        if bytes[at..end.min(bytes.len())].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

/// True when the bytes, up to the end of the segment, are those of a write that stopped inside a block: the beginning of the
/// block, and then nothing any more. A process that is killed or a disk that fails leaves that, where a loss of power leaves
/// whole sectors out.
fn is_a_beginning(bytes: &[u8], bad: &BadBlock) -> bool {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let whole = if bad.header.is_some() { bad.extent } else { HEADER_BYTES };
    used < whole
}

/// True when the block, which ends with `bytes`, would check if one bit of what is there were another: then nothing is missing
/// from it, and that bit flipped. What may be missing is left as it is: it could be that very bit.
fn is_one_flip_away(bytes: &[u8], from: usize, bad: &BadBlock) -> bool {
    let mut block = bytes[from..].to_vec();
    let used = block.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let first = if bad.header.is_some() { HEADER_BYTES } else { 0 };
    let checks = |block: &[u8]| match &bad.header {
        None => BlockHeader::read(block).is_ok(),
        Some(header) => header.matches(&block[HEADER_BYTES..]),
    };
    let is_there = |at: &usize| {
        let sector = (from + at) / SECTOR * SECTOR;
        let share = sector.max(from)..(sector + SECTOR).min(bytes.len());
        bytes[share].iter().any(|byte| *byte != 0)
    };
    let places: Vec<usize> = (first.min(used)..used).filter(is_there).collect();
    block.len() <= FLIPS_TRIED_BYTES
        && places.into_iter().flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))).any(|(at, bit)| {
            block[at] ^= bit;
            let checks = checks(&block);
            block[at] ^= bit;
            checks
        })
}

/// The first whole block from `from` on that was written when the bad one at `bad` had been synced: it has fewer blocks ahead of
/// it in its own write than there are between, the bad one included.
///
/// A command may carry the image of a block in its text, and the header in front of it be missing. So the index has to be one that
/// the log could have come to there: more than one block never fits into 64 bytes.
fn later_proof(bytes: &[u8], bad: usize, from: usize, trail: &Trail) -> Option<(usize, u64)> {
    let (mut at, mut between) = (from, 0);
    while at + HEADER_BYTES <= bytes.len() {
        let highest = trail.last().index + 1 + ((at - bad) / BLOCK_ALIGN) as u64;
        let whole = BlockHeader::read(&bytes[at..]).ok().filter(|header| {
            let payload = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + header.payload_len as usize);
            (trail.committed()..=highest).contains(&header.index)
                && payload.is_some_and(|payload| header.matches(payload))
        });
        match whole {
            Some(header) if header.nth <= between => return Some((at, header.index)),
            Some(header) => {
                between += 1;
                at += header.block_bytes();
            }
            None => at += BLOCK_ALIGN,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_another_format_are_refused_and_the_refusal_says_what_to_do() {
        assert_eq!(check_machine_format(2, 2), Ok(()));
        assert!(check_machine_format(3, 2).is_err_and(|why| why.contains("newer")));
        assert!(check_machine_format(1, 2).is_err_and(|why| why.contains("empty data directory")));
    }

    /// As for a block's bytes: a change needs a new format number and a reader of the old.
    #[test]
    fn the_bytes_of_a_segment_header_are_those_of_format_2() {
        let before =
            Position { index: 6, term: 2, seq: Seq(40), chain: 0x0102_0304_0506_0708, at: Nanos(1_234) };
        let header = SegmentHeader {
            machine_format: 3,
            ordinal: 5,
            cluster: 1,
            node: 2,
            file_bytes: 16 << 10,
            before,
        };
        let bytes = header.layout();
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        let hex: String = bytes[..USED].iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "475249444a524e4c02000000030000000500000000000000010000000000000002000000000000000040000000000000",
            "0700000000000000020000000000000029000000000000000807060504030201d2040000000000000000000000000000",
            "842a02b1",
        );
        assert_eq!(hex, golden);
        assert!(bytes[USED..].iter().all(|byte| *byte == 0));
        assert_eq!(SegmentHeader::read(&bytes), Ok(header));
    }
}
