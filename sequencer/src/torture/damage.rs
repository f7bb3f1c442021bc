//! Bits that flip, blocks that are forged, and what is repaired with a peer's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use grid_engine::Nanos;

use super::disk::MemoryDisk;
use super::model::{Hash, Model};
use super::{DATA, Dice, config, for_seeds, open};
use crate::block::{Block, Position, push_command};
use crate::consensus::{HardState, Persist};
use crate::disk::Disk;
use crate::journal::{JournalConfig, JournalError};
use crate::log_reader::LogReader;
use crate::machine::Machine;
use crate::recover::RecoverError;

/// A bit that flips is met in one of three ways: refused with its place, cut where only the last write suffers, or harmless.
#[test]
fn a_flipped_bit_never_changes_the_log_in_silence() {
    for_seeds(150, |seed| {
        let mut dice = Dice::new(seed);
        let disk = MemoryDisk::new(dice.next());
        let config = JournalConfig { retain_bytes: u64::MAX, ..config(&mut dice) };
        let mut recovered = open(&disk, config).expect("it opens");
        let mut model = Model::default();
        for ticket in 1..30 {
            let persist = model.next_persist(&mut dice, ticket);
            recovered.journal.append(&[persist]).expect("written");
        }
        // The last write is not the subject here: it may be taken for torn.
        let state = HardState { vote: model.hard_state.vote + 1, ..model.hard_state };
        let last = Persist { ticket: 30, hard_state: Some(state), ..Persist::default() };
        recovered.journal.commit(model.last().index);
        recovered.journal.append(&[last]).expect("written");
        let end = recovered.log_end();
        drop(recovered);
        let segments: Vec<_> = disk
            .paths()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "seg"))
            .collect();
        for _ in 0..20 {
            let path = &segments[dice.below(segments.len() as u64) as usize];
            let sound = disk.content(path);
            // The last block is the note that was just written, alone in its write.
            let used = match path == segments.last().expect("some") {
                true => sound.iter().rposition(|byte| *byte != 0).expect("not empty") / 64 * 64 - 64,
                false => sound.len(),
            };
            let bit = dice.below(used as u64 * 8);
            disk.flip(path, bit);
            let what = format!("seed {seed}: bit {bit} of {}", path.display());
            match open(&disk, config) {
                Ok(recovered) => {
                    assert_eq!(recovered.log_end(), end, "{what}");
                    assert_eq!(recovered.machine, model.machine(end.index), "{what}");
                }
                Err(RecoverError::Journal(
                    JournalError::Damaged { path: named, .. } | JournalError::BadSegment { path: named, .. },
                )) => assert_eq!(named, *path, "{what}"),
                Err(other) => panic!("{what}: {other}"),
            }
            disk.overwrite(path, sound);
        }
    });
}

/// An operator restores a file from a copy while the venue runs.
#[test]
fn what_was_damaged_reads_again_once_it_was_put_right() {
    let damaged = AtomicUsize::new(0);
    for_seeds(50, |seed| {
        let mut dice = Dice::new(seed);
        let disk = MemoryDisk::new(dice.next());
        let mut life = open(&disk, config(&mut dice)).expect("it opens");
        let mut model = Model::default();
        for ticket in 1..60 {
            let block = model.next_block(&mut dice, 1);
            model.take(&block);
            let committed = HardState { term: 1, vote: 1, commit: ticket };
            let persist = Persist { ticket, hard_state: Some(committed), blocks: [block].into() };
            life.journal.append(&[persist]).expect("written");
        }
        let path = Path::new(DATA).join("journal").join(crate::segment::segment_name(2));
        let sound = disk.content(&path);
        let used = sound.iter().rposition(|byte| *byte != 0).expect("not empty");
        let first = crate::segment::SEGMENT_HEADER_BYTES;
        disk.flip(&path, (first as u64 + dice.below((used - first) as u64)) * 8);
        let reader = LogReader::on(Arc::new(disk.clone()), Path::new(DATA), Hash::FORMAT);
        // A bit of padding is nobody's.
        damaged.fetch_add((1..60).filter(|&index| reader.read(index, 1).is_err()).count(), Ordering::Relaxed);
        disk.overwrite(&path, sound);
        for index in 1..60 {
            let blocks = reader.read(index, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(*blocks[0], *model.log[index as usize - 1], "seed {seed}");
        }
    });
    let one_alone = std::env::var("GRID_SEED").is_ok();
    assert!(one_alone || damaged.into_inner() > 0, "what is damaged is not handed out");
}

/// Whoever can put bytes into a command could otherwise make a node take a crash for damage.
#[test]
fn the_image_of_a_block_in_a_command_proves_nothing() {
    let disk = MemoryDisk::new(1);
    let config = JournalConfig { segment_bytes: 16 << 10, ..JournalConfig::default() };
    let mut recovered = open(&disk, config).expect("it opens");
    let mut model = Model::default();
    let first = Arc::new(Block::empty(&Position::default(), 1));
    model.take(&first);
    let blocks = |blocks: Vec<Arc<Block>>| [Persist { blocks: blocks.into(), ..Persist::default() }];
    recovered.journal.append(&blocks(vec![first])).expect("written");
    let elsewhere = Position { index: 1_000_000, term: 9, ..Position::default() };
    let image = Block::empty(&elsewhere, 9);
    let mut payload = Vec::new();
    push_command(&mut payload, |out| {
        out.resize(64, 1);
        (0..40).for_each(|_| out.extend_from_slice(image.bytes()));
    });
    let crafted = Arc::new(Block::entry(&model.last(), 1, Nanos(1), 1, &payload));
    recovered.journal.append(&blocks(vec![crafted])).expect("written");
    drop(recovered);
    // The crash loses the beginning of the last block and leaves the rest.
    let path = Path::new(DATA).join("journal/journal-0000000001.seg");
    let mut bytes = disk.content(&path);
    bytes[4096 + 64..4608].fill(0);
    let images = bytes.chunks(64).filter(|chunk| *chunk == &image.bytes()[..]).count();
    assert!(images > 30, "the images lie where blocks may lie");
    disk.overwrite(&path, bytes);
    let recovered = open(&disk, config).expect("a torn tail is cut");
    assert_eq!(recovered.log_end(), model.last());
}

/// Damage in the middle, the same log on another node, and an exchange that is interrupted.
#[test]
fn damage_is_repaired_with_a_peers_blocks_across_a_crash_at_every_step() {
    for_seeds(25, |seed| {
        for fails_in in 0.. {
            let mut dice = Dice::new(seed);
            let disk = MemoryDisk::new(dice.next());
            let config = JournalConfig { retain_bytes: u64::MAX, node: 7, ..config(&mut dice) };
            let mut recovered = open(&disk, config).expect("it opens");
            let mut model = Model::default();
            for ticket in 1..40 {
                let persist = model.next_persist(&mut dice, ticket);
                recovered.journal.append(&[persist]).expect("written");
            }
            model.hard_state = recovered.journal.hard_state();
            drop(recovered);
            let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
            let segments: Vec<_> = disk.paths().into_iter().filter(is_segment).collect();
            let what = format!("seed {seed}, change {fails_in} fails");
            let damage = loop {
                let path = &segments[dice.below(segments.len() as u64) as usize];
                let sound = disk.content(path);
                let used = sound.iter().rposition(|byte| *byte != 0).expect("not empty");
                if dice.one_in(4) && path != &segments[0] && path != segments.last().expect("some") {
                    Disk::remove(&disk, path).expect("removed");
                    disk.sync_dir(Path::new(DATA)).expect("synced");
                } else {
                    disk.flip(path, dice.below(used as u64 * 8));
                }
                if let Some(damage) = crate::repair::examine_on(&disk, Path::new(DATA), 1).expect("it reads")
                {
                    break damage;
                }
                disk.overwrite(path, sound);
            };
            assert!(open(&disk, config).is_err(), "{what}: a single node stops");
            assert_eq!(damage.committed, model.at(damage.committed.index), "{what}");
            let damage = if dice.one_in(5) { damage.without_the_log() } else { damage };
            let good = damage.last_good;
            let on_the_log = good.index <= model.last().index && model.at(good.index) == good;
            // What stands there may be what was replaced in the part that does not read.
            let from = if on_the_log && dice.one_in(2) { good.index } else { damage.committed.index };
            let blocks = model.log[from as usize..].to_vec();
            let committed = model.last().index;
            let term = damage.seen_term;
            disk.state().fails_in = Some(fails_in);
            let repair = |blocks: Vec<Arc<Block>>| {
                let data = Path::new(DATA);
                let on: Arc<dyn Disk> = Arc::new(disk.clone());
                crate::repair::repair_on(on, data, config, 1, &damage, blocks, committed, term)
            };
            let first = repair(blocks.clone());
            let undisturbed = disk.state().fails_in.take() != Some(0);
            assert!(!undisturbed || first.is_ok(), "{what}: {first:?}");
            if dice.one_in(2) {
                disk.lose_power();
            }
            let recovered = match open(&disk, config) {
                Ok(recovered) => recovered,
                Err(_) => {
                    repair(blocks).unwrap_or_else(|error| panic!("{what}: {error}"));
                    open(&disk, config).unwrap_or_else(|error| panic!("{what}: {error}"))
                }
            };
            assert_eq!(recovered.log_end(), model.last(), "{what}");
            assert_eq!(recovered.machine, model.machine(committed), "{what}: all of it is committed");
            let state = recovered.hard_state;
            assert!(state.term >= damage.seen_term, "{what}");
            let known = damage.hard_state;
            let kept = damage.vote_is_certain && state.term == known.term;
            assert_eq!(state.vote, if kept { known.vote } else { 7 }, "{what}: no vote is given twice");
            if damage.vote_is_certain {
                assert_eq!(
                    (known.term, known.vote),
                    (model.hard_state.term, model.hard_state.vote),
                    "{what}"
                );
            }
            let aside =
                disk.paths().iter().filter(|path| path.to_string_lossy().contains(".damaged-")).count();
            assert!(
                aside > 0 || damage.path.to_string_lossy().ends_with(".seg"),
                "{what}: nothing is deleted"
            );
            if undisturbed {
                return;
            }
        }
    });
}
