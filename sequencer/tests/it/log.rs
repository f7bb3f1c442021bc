//! The log as others read it: up to where it is committed, and old blocks beside the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use grid_sequencer::{
    JournalConfig, LogReadError, LogReader, Machine, Position, RecoveryReport, Sequencer, SnapshotMeta,
    SnapshotStore, Upto, inspect, recover, replay_all_kept, replay_from_first_block, replay_upto,
};

use crate::toy::{Dice, Toy};
use crate::venue::{config, deposit, fill, open, read_until, start, submit};

#[test]
fn a_replay_goes_as_far_as_the_journal_knows_or_as_far_as_it_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), config(&["test"]));
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    for nth in 0..20 {
        submit(&mut submitter, deposit(0, nth));
        read_until(&mut poller, |output| output.block.last_seq().0 == nth + 1);
    }
    let upto = |upto| replay_upto(dir.path(), upto, Toy::default, |_| {}).expect("it replays");
    let known = upto(Upto::KnownCommit);
    assert!(
        known.position.seq.0 < 20,
        "the last write is committed after it was written, and nothing was written since"
    );
    let end = upto(Upto::End);
    assert_eq!(end.position.seq.0, 20);
    for index in 0..=end.position.index {
        let replayed = upto(Upto::Index(index));
        assert_eq!(replayed.position.index, index);
        assert_eq!(replayed.machine, upto(Upto::Seq(replayed.position.seq)).machine);
    }
    let stopped = handle.shutdown();
    let known = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
    assert_eq!(known.machine, stopped.machine, "a clean stop leaves nothing to be told");
}

#[test]
fn what_is_not_known_to_be_committed_waits_in_the_tail() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), 10);
    // Without the note of the clean stop, as after a kill.
    let mut last = None;
    inspect::visit_blocks(dir.path(), Toy::FORMAT, |block| {
        last = Some((block.path.to_owned(), block.offset, block.hard_state().is_some()));
    })
    .expect("sound");
    let (path, offset, is_note) = last.expect("blocks");
    assert!(is_note);
    std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(offset)).expect("cut");
    let recovered = open(dir.path()).expect("it recovers");
    assert_eq!(recovered.log_end().seq.0, 10);
    assert!(!recovered.tail.is_empty() && recovered.position.seq.0 < 10);
    let RecoveryReport { applied, log_end, .. } = recovered.report;
    assert_eq!((applied, log_end.0), (recovered.position.seq, 10));
    let mut position = recovered.position;
    for block in &recovered.tail {
        assert_eq!(position.refuses(block.header()), None);
        position = Position::after(block.header());
    }
    assert_eq!(position, recovered.log_end());
    assert_eq!(recovered.hard_state.commit, recovered.position.index);
    let handle = Sequencer::start(recovered, config(&[])).expect("it starts");
    assert_eq!(handle.shutdown().machine.commands, 10, "consensus decided that they count");
}

#[test]
fn old_blocks_are_read_beside_the_writer_and_retention() {
    let dir = tempfile::tempdir().expect("a directory");
    let small = JournalConfig { segment_bytes: 16 << 10, retain_bytes: 64 << 10, ..JournalConfig::default() };
    let reopen = || recover(dir.path(), small, Toy::default, |_| {});
    let mut handle = Sequencer::start(reopen().expect("it recovers"), config(&["test"])).expect("it starts");
    let mut poller = handle.take_output("test").expect("asked for");
    let release = handle.release_log();
    let reader = Arc::new(LogReader::new(dir.path(), Toy::FORMAT));
    let (committed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let read = |seed| {
        let (reader, committed, stop) = (Arc::clone(&reader), Arc::clone(&committed), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut dice = Dice::new(seed);
            let (mut read, mut compacted) = (0, 0);
            while !stop.load(Ordering::Relaxed) || read == 0 {
                let from = 1 + dice.below(committed.load(Ordering::Acquire).max(1));
                match reader.read(from, dice.below(20_000)) {
                    Ok(blocks) => {
                        assert_eq!(blocks[0].header().index, from);
                        for pair in blocks.windows(2) {
                            let before = Position::after(pair[0].header());
                            assert_eq!(before.refuses(pair[1].header()), None, "seed {seed}");
                        }
                        read += blocks.len();
                    }
                    Err(LogReadError::Compacted { first, .. }) => {
                        assert!(first > from, "seed {seed}");
                        compacted += 1;
                    }
                    // Before the first block.
                    Err(LogReadError::NotYet { asked: 1 }) => {}
                    Err(error) => panic!("seed {seed}: block {from}: {error}"),
                }
            }
            (read, compacted)
        })
    };
    let readers = [read(1), read(2)];
    let mut submitter = handle.submitter();
    for nth in 0..1_500 {
        submit(&mut submitter, deposit(0, nth));
        let outputs = read_until(&mut poller, |output| output.block.last_seq().0 > nth);
        let index = outputs.last().expect("one").block.index();
        committed.store(index, Ordering::Release);
        release(index.saturating_sub(50));
    }
    let stopped = handle.shutdown();
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let (read, _) = reader.join().expect("it ends");
        assert!(read > 0);
    }
    let kept = std::fs::read_dir(dir.path().join("journal")).expect("listed").count() as u64 * (16 << 10);
    assert!(((64 << 10)..(160 << 10)).contains(&kept), "{kept} bytes are kept");
    assert!(matches!(reader.read(1, 1), Err(LogReadError::Compacted { asked: 1, first }) if first > 1));
    let first = reader.first_index().expect("listed");
    assert_eq!(reader.read(first, 1).expect("it is there")[0].header().index, first);
    let missing = reopen().expect_err("the first block is needed, and gone");
    assert!(missing.to_string().contains("restore the older segments"), "{missing}");
    // With a snapshot nothing is missing.
    let store = SnapshotStore::new(dir.path().join("snapshots"));
    let (machine_format, members) = (Toy::FORMAT, Vec::new());
    let (position, state_hash) = (stopped.position, stopped.machine.state_hash());
    let meta = SnapshotMeta { position, state_hash, machine_format, members };
    store.write(&meta, &stopped.machine.snapshot()).expect("written");
    let recovered = reopen().expect("it recovers");
    assert_eq!(recovered.machine, stopped.machine);
    assert_eq!(recovered.log_start.index + 1, first);
    let kept = replay_all_kept(dir.path(), Upto::KnownCommit, Toy::default, |_| {}).expect("it replays");
    assert_eq!((kept.from, kept.machine), (stopped.position, stopped.machine));
}

/// A file system in memory does no real syncs; so that nobody takes one for the other, the test says which it ran on.
#[test]
fn a_life_and_its_torn_end_are_the_same_on_a_disk_and_in_memory() {
    const TMPFS: i64 = 0x0102_1994;
    let mut states = Vec::new();
    for parent in [std::env::temp_dir(), "/dev/shm".into()] {
        let Ok(kind) = rustix::fs::statfs(&parent) else { continue };
        let in_memory = kind.f_type == TMPFS;
        println!("{} is {}", parent.display(), if in_memory { "in memory" } else { "a disk" });
        let Ok(dir) = tempfile::tempdir_in(&parent) else { continue };
        fill(dir.path(), 40);
        let mut last = None;
        inspect::visit_blocks(dir.path(), Toy::FORMAT, |block| {
            if block.header.commands > 0 {
                last = Some((block.path.to_owned(), block.offset));
            }
        })
        .expect("sound");
        let (path, offset) = last.expect("blocks");
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
        file.set_len(offset + 70).expect("cut");
        let recovered = open(dir.path()).expect("it recovers");
        assert!(recovered.report.torn.is_some());
        states.push((recovered.log_end().seq, recovered.log_end().index));
    }
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
}
