//! Crashes and bad disks: what is cut, what is refused, and that nothing acknowledged disappears in silence.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use grid_sequencer::{
    JournalConfig, JournalError, Machine, RecoverError, inspect, recover, replay_from_first_block,
};

use crate::toy::{Dice, Toy};
use crate::venue::{config, copy_dir, deposit, fill, open, small, start, submit};

#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    offset: u64,
    len: u64,
    /// Number of the last command of the log up to here.
    last_seq: u64,
    payload_len: u64,
    commands: u32,
    nth: u32,
}

/// Where all blocks lie, notes too.
fn all_places(dir: &Path) -> Vec<Place> {
    let mut found = Vec::new();
    let summary = inspect::visit_blocks(dir, Toy::FORMAT, |block| {
        found.push(Place {
            path: block.path.to_owned(),
            offset: block.offset,
            len: block.header.block_bytes() as u64,
            last_seq: block.header.first_seq.0 + u64::from(block.header.commands) - 1,
            payload_len: u64::from(block.header.payload_len),
            commands: block.header.commands,
            nth: block.header.nth,
        });
    });
    assert_eq!(summary.expect("a sound journal").torn, None);
    found
}

/// Where the blocks with commands lie.
fn places(dir: &Path) -> Vec<Place> {
    all_places(dir).into_iter().filter(|place| place.commands > 0).collect()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.write_all_at(bytes, at)).expect("written");
}

fn flip(path: &Path, at: u64, bit: u8) {
    let mut byte = [0];
    let file = OpenOptions::new().read(true).write(true).open(path).expect("opened");
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("written");
}

fn truncate(path: &Path, to: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(to)).expect("truncated");
}

/// A directory to break, copied from one that was made once.
struct Broken {
    dir: tempfile::TempDir,
    original: PathBuf,
}

impl Broken {
    fn of(original: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        copy_dir(original, dir.path());
        Self { dir, original: original.to_owned() }
    }

    fn path_of(&self, place: &Place) -> PathBuf {
        self.dir.path().join(place.path.strip_prefix(&self.original).expect("inside"))
    }
}

#[test]
fn a_journal_cut_at_any_byte_of_its_last_block_loses_that_block_only() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 12);
    let places = places(dir.path());
    let [.., before, last] = places.as_slice() else { panic!("blocks") };
    assert_eq!(before.path, last.path);
    let whole = Broken::of(dir.path());
    for cut in 0..last.len {
        let path = whole.path_of(last);
        std::fs::copy(&last.path, &path).expect("copied");
        truncate(&path, last.offset + cut);
        let recovered = open(whole.dir.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        // Only padding is missing from there on.
        let complete = cut >= 64 + last.payload_len;
        let expected = if complete { last.last_seq } else { before.last_seq };
        assert_eq!(recovered.log_end().seq.0, expected, "cut at {cut}");
        assert_eq!(recovered.report.torn.is_some(), cut > 0 && !complete, "cut at {cut}");
    }
}

#[test]
fn a_venue_goes_on_after_a_torn_tail_and_both_lives_replay() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 12);
    let places = places(dir.path());
    let last = places.last().expect("blocks");
    truncate(&last.path, last.offset + 70);
    let handle = start(dir.path(), config(&[]));
    submit(&mut handle.submitter(), deposit(9, 9));
    let stopped = handle.shutdown();
    assert_eq!(stopped.position.seq.0, last.last_seq, "the number of the lost command is used again");
    let replayed = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
    assert_eq!(replayed.machine.state_hash(), stopped.machine.state_hash());
    assert_eq!(replayed.torn, None);
}

/// A group of several blocks is one write; a crash may leave any of its sectors out, also those of the first.
#[test]
fn sectors_missing_from_the_last_group_cut_it_where_they_are_missing() {
    for seed in 0..25 {
        let mut dice = Dice::new(seed);
        let dir = tempfile::tempdir().expect("a directory");
        fill(dir.path(), 4);
        // Not read by anyone before it stops: several blocks in one write.
        let handle = start(dir.path(), config(&[]));
        let mut submitter = handle.submitter();
        for nth in 0..300 {
            submit(&mut submitter, deposit(1, nth));
        }
        handle.shutdown();
        // As if the crash had come with the last write that has commands.
        let places = all_places(dir.path());
        let last_segment = &places.last().expect("blocks").path;
        let in_last: Vec<_> = places.iter().filter(|place| place.path == *last_segment).collect();
        let Some(has_commands) = in_last.iter().rposition(|place| place.commands > 0) else { continue };
        let first = has_commands - in_last[has_commands].nth as usize;
        let group = in_last[first + 1..].iter().take_while(|place| place.nth > 0).count() + 1;
        let group = &in_last[first..first + group];
        let from = group[0].offset.next_multiple_of(512);
        let last = group.last().expect("one at least");
        let to = last.offset + last.len;
        let mut before = std::fs::read(last_segment).expect("read");
        before[to as usize..].fill(0);
        overwrite(last_segment, 0, &before);
        for sector in (from..to).step_by(512) {
            if dice.below(3) == 0 {
                overwrite(last_segment, sector, &[0; 512]);
            }
        }
        let after = std::fs::read(last_segment).expect("read");
        let lost_from = group.iter().find(|place| {
            let bytes = place.offset as usize..(place.offset + 64 + place.payload_len) as usize;
            before[bytes.clone()] != after[bytes]
        });
        let kept = lost_from.map_or(to, |place| place.offset);
        let kept = places.iter().rfind(|place| place.path != *last_segment || place.offset < kept);
        let expected = kept.map_or(0, |place| place.last_seq);
        let recovered = open(dir.path()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(recovered.log_end().seq.0, expected, "seed {seed}");
        drop(recovered);
        let again = open(dir.path()).unwrap_or_else(|error| panic!("seed {seed}, again: {error}"));
        assert_eq!(
            (again.log_end().seq.0, again.report.torn),
            (expected, None),
            "seed {seed}: a cut is clean"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_committed_block_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 160);
    let places = places(dir.path());
    assert!(places.first().expect("blocks").path != places.last().expect("blocks").path, "several segments");
    let broken = Broken::of(dir.path());
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let place = &places[dice.below(places.len() as u64) as usize];
        let at = place.offset + dice.below(64 + place.payload_len);
        let path = broken.path_of(place);
        std::fs::copy(&place.path, &path).expect("copied");
        flip(&path, at, dice.below(8) as u8);
        let refused = open(broken.dir.path()).err().unwrap_or_else(|| panic!("seed {seed}: accepted"));
        let RecoverError::Journal(JournalError::Damaged { path: named, offset, .. }) = &refused else {
            panic!("seed {seed}: {refused}")
        };
        assert_eq!((named, *offset), (&path, place.offset), "seed {seed}: {refused}");
        let said = refused.to_string();
        assert!(said.contains("restore it from a copy") && said.contains(&offset.to_string()), "{said}");
        let unchanged =
            std::fs::read(&path).expect("read").len() == std::fs::read(&place.path).expect("read").len();
        assert!(unchanged, "seed {seed}: refusing changes nothing");
        std::fs::copy(&place.path, &path).expect("copied");
    }
}

#[test]
fn a_committed_block_that_vanished_is_refused_though_it_looks_torn() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 8);
    let places = places(dir.path());
    let middle = &places[4];
    overwrite(&middle.path, middle.offset, &vec![0; middle.len as usize]);
    let refused = open(dir.path()).expect_err("a later block proves it");
    assert!(refused.to_string().contains("proves that it had been synced"), "{refused}");
}

#[test]
fn swapped_repeated_and_missing_segments_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 200);
    let mut segments: Vec<PathBuf> = places(dir.path()).into_iter().map(|place| place.path).collect();
    segments.dedup();
    let [_, second, third, ..] = segments.as_slice() else { panic!("several segments") };
    let in_copy =
        |path: &Path, broken: &Broken| broken.dir.path().join(path.strip_prefix(dir.path()).expect("inside"));
    let refused = |broken: &Broken| open(broken.dir.path()).expect_err("refused").to_string();

    let broken = Broken::of(dir.path());
    std::fs::remove_file(in_copy(second, &broken)).expect("removed");
    assert!(refused(&broken).contains("is missing"));

    let broken = Broken::of(dir.path());
    std::fs::copy(third, in_copy(second, &broken)).expect("copied");
    assert!(refused(&broken).contains("it was renamed"));

    let broken = Broken::of(dir.path());
    flip(&in_copy(second, &broken), 50, 3);
    assert!(refused(&broken).contains("its header is damaged"));

    // The same number of the same size, but of another venue's life.
    let other = tempfile::tempdir().expect("a directory");
    fill(other.path(), 201);
    let broken = Broken::of(dir.path());
    let foreign = other.path().join(second.strip_prefix(dir.path()).expect("inside"));
    std::fs::copy(foreign, in_copy(second, &broken)).expect("copied");
    assert!(refused(&broken).contains("does not follow"));
}

#[test]
fn an_empty_directory_and_a_fresh_journal_recover_to_the_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let recovered = open(&dir.path().join("new/data")).expect("it recovers");
        assert_eq!(recovered.machine, Toy::default());
        assert_eq!(recovered.position.seq.0, 0);
    }
}

#[test]
fn a_journal_of_another_node_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 3);
    for (cluster, node) in [(1, 2), (2, 1)] {
        let other = JournalConfig { cluster, node, ..small() };
        let refused = recover(dir.path(), other, Toy::default, |_| {}).expect_err("it is not ours");
        let said = refused.to_string();
        assert!(
            said.contains("was written by node 1 of cluster 1") && said.contains("votes twice"),
            "{said}"
        );
    }
    assert!(open(dir.path()).is_ok(), "and nothing was changed");
}

#[test]
fn a_journal_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 3);
    let refused = inspect::visit_blocks(dir.path(), 0, |_| {}).expect_err("format 1 is newer than 0");
    assert!(refused.to_string().contains("newer"), "{refused}");
}

#[test]
fn commands_inspected_are_the_commands_submitted() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 30);
    let mut seen = Vec::new();
    let summary = inspect::visit_blocks(dir.path(), Toy::FORMAT, |block| {
        seen.extend(block.commands::<Toy>().map(|(seq, command)| (seq.0, command.expect("decodes"))));
    })
    .expect("sound");
    let expected: Vec<_> = (0..30).map(|nth| (nth + 1, deposit(0, nth))).collect();
    assert_eq!(seen, expected);
    assert_eq!((summary.commands, summary.position.seq.0, summary.hard_state.term), (30, 30, 1));
}
