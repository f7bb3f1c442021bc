//! Starting from snapshots: the same state as from the first block, and a bad one never trusted.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use grid_engine::Seq;
use grid_sequencer::{Machine, SnapshotMeta, inspect, replay_events, replay_from_first_block};

use crate::toy::{Dice, Event, Toy};
use crate::venue::{fill, open};

/// Runs `count` commands and takes a snapshot after them; several times over.
fn snapshot_after(dir: &Path, count: u64) -> PathBuf {
    fill_more(dir, count);
    let recovered = open(dir).expect("it recovers");
    let meta = SnapshotMeta {
        position: recovered.position,
        state_hash: recovered.machine.state_hash(),
        machine_format: Toy::FORMAT,
        members: Vec::new(),
    };
    recovered.snapshots().write(&meta, &recovered.machine.snapshot()).expect("written")
}

fn fill_more(dir: &Path, count: u64) {
    fill(dir, count);
}

#[test]
fn a_start_from_a_snapshot_replays_only_what_came_after_and_gives_the_same_state() {
    let dir = tempfile::tempdir().expect("a directory");
    snapshot_after(dir.path(), 100);
    fill_more(dir.path(), 60);
    let recovered = open(dir.path()).expect("it recovers");
    assert_eq!(recovered.report.snapshot.map(|position| position.seq), Some(Seq(100)));
    assert_eq!(recovered.report.replayed, 60);
    assert_eq!(recovered.copy_machine(), recovered.machine);
    let full = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
    assert_eq!(full.machine, recovered.machine);
    assert_eq!(full.position, recovered.position);
}

#[test]
fn progress_counts_commands_and_ends_at_the_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    fill_more(dir.path(), 50);
    let mut seen = Vec::new();
    replay_from_first_block(dir.path(), Toy::default, |progress| seen.push(progress)).expect("it replays");
    assert!(seen.is_sorted_by_key(|progress| (progress.commands, progress.bytes_done)));
    let last = seen.last().expect("progress is told");
    assert_eq!(last.commands, 50);
    assert_eq!(last.bytes_done, last.bytes_total);
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_an_older_and_then_for_the_first_block() {
    let dir = tempfile::tempdir().expect("a directory");
    let older = snapshot_after(dir.path(), 20);
    let newer = snapshot_after(dir.path(), 20);
    fill_more(dir.path(), 5);
    let sound = open(dir.path()).expect("it recovers").machine;
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let bytes = std::fs::read(&newer).expect("read");
        let file = std::fs::OpenOptions::new().write(true).open(&newer).expect("opened");
        let at = dice.below(bytes.len() as u64);
        // Most of the file is body; see that the header has its turns.
        let at = if seed % 3 == 0 { at % 128 } else { at };
        file.write_all_at(&[bytes[at as usize] ^ (1 << dice.below(8))], at).expect("written");
        let recovered = open(dir.path()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(
            recovered.report.snapshot.map(|position| position.seq),
            Some(Seq(20)),
            "seed {seed}, byte {at}"
        );
        assert_eq!(recovered.report.passed_over.len(), 1, "seed {seed}");
        assert_eq!(recovered.machine, sound, "seed {seed}");
        file.write_all_at(&bytes, 0).expect("restored");
    }
    for path in [older, newer] {
        std::fs::write(path, b"GRIDSNAP, but not really").expect("written");
    }
    let recovered = open(dir.path()).expect("it recovers");
    assert_eq!((recovered.report.snapshot, recovered.report.replayed), (None, 45));
    assert_eq!(recovered.report.passed_over.len(), 2);
    assert_eq!(recovered.machine, sound);
}

#[test]
fn a_snapshot_whose_state_hash_differs_is_not_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = snapshot_after(dir.path(), 10);
    let recovered = open(dir.path()).expect("it recovers");
    let (meta, body) = recovered.snapshots().read(&path).expect("reads");
    let lying = SnapshotMeta { state_hash: meta.state_hash ^ 1, ..meta };
    recovered.snapshots().write(&lying, &body).expect("written");
    drop(recovered);
    let recovered = open(dir.path()).expect("it recovers");
    assert_eq!(recovered.report.snapshot, None);
    assert_eq!(recovered.machine.commands, 10);
}

/// Each start journals its term, so a log position may stand behind such a block as well as behind the entry ahead of it.
#[test]
fn a_snapshot_taken_after_idle_restarts_is_found_again() {
    let dir = tempfile::tempdir().expect("a directory");
    for idle in 0..4 {
        snapshot_after(dir.path(), 10);
        for _ in 0..idle {
            fill_more(dir.path(), 0);
        }
        let path = snapshot_after(dir.path(), 0);
        let recovered = open(dir.path()).unwrap_or_else(|error| panic!("after {idle} idle starts: {error}"));
        assert_eq!(recovered.report.snapshot.map(|position| position.seq.0), Some((idle + 1) * 10));
        assert_eq!(recovered.report.replayed, 0);
        drop(recovered);
        // The same state, but as the replica of the venue before saw it: behind the entry.
        std::fs::remove_file(path).expect("removed");
        fill_more(dir.path(), 0);
        assert!(open(dir.path()).is_ok(), "after {idle} idle starts");
    }
}

#[test]
fn three_snapshots_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..5 {
        snapshot_after(dir.path(), 2);
    }
    let seqs: Vec<_> = inspect::snapshots(dir.path())
        .expect("listed")
        .into_iter()
        .map(|snapshot| snapshot.meta.expect("reads").0.position.seq.0)
        .collect();
    assert_eq!(seqs, [10, 8, 6]);
}

#[test]
fn a_journal_that_ends_before_its_snapshot_is_refused() {
    let (long, short) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let snapshot = snapshot_after(long.path(), 30);
    fill_more(short.path(), 10);
    let to = short.path().join("snapshots").join(snapshot.file_name().expect("named"));
    std::fs::copy(&snapshot, to).expect("copied");
    let refused = open(short.path()).expect_err("the journal is of another history");
    assert!(refused.to_string().contains("does not continue the snapshot"), "{refused}");
}

#[test]
fn events_after_a_number_come_again_whatever_snapshot_they_start_from() {
    let dir = tempfile::tempdir().expect("a directory");
    snapshot_after(dir.path(), 10);
    snapshot_after(dir.path(), 10);
    fill_more(dir.path(), 10);
    for after in [0, 5, 10, 15, 20, 25, 30] {
        let mut seen = Vec::new();
        let replayed =
            replay_events::<Toy>(dir.path(), Seq(after), Seq(30), Toy::default, |seq, _, events| {
                seen.extend(events.iter().map(|event| (seq.0, event.clone())));
            });
        assert_eq!(replayed.expect("it replays").position.seq, Seq(30));
        let expected: Vec<_> =
            (after..30).map(|seq| (seq + 1, Event::Deposited { producer: 0, nth: seq % 10 })).collect();
        assert_eq!(seen, expected, "after {after}");
    }
}
