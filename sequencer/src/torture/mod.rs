//! Tests of journal, snapshots, recovery and log reader on a disk in memory that does what disks do: loses what was not synced,
//! tears writes at sectors, writes less than asked, flips bits, runs full, fails a sync and forgets that it did.
//!
//! Each case is one seed, and the seed is in every message; `GRID_SEED` runs one of them alone, `GRID_SEEDS` so many of each.

mod damage;
mod disk;
mod golden;
mod lives;
mod model;
mod snapshots;

use std::path::Path;
use std::sync::Arc;

use crate::consensus::Persist;
use crate::disk::Inline;
use crate::journal::{Journal, JournalConfig};
use crate::log_reader::{LogReadError, LogReader};
use crate::machine::Machine;
use crate::recover::{RecoverError, Recovered, recover_on};
use crate::snapshot::SnapshotMeta;

use disk::MemoryDisk;
use model::{Hash, Model};

const DATA: &str = "/data";

/// A seeded stream of numbers (splitmix64).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// Runs `case` for so many seeds, or for the one in `GRID_SEED`, and says which one failed.
fn for_seeds(count: u64, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let seeds = match std::env::var("GRID_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("GRID_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let asked = std::env::var("GRID_SEEDS").ok();
            0..asked.map_or(count, |count| count.parse().expect("GRID_SEEDS is a number"))
        }
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("failed with GRID_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn config(dice: &mut Dice) -> JournalConfig {
    JournalConfig {
        segment_bytes: (8 << 10) + dice.below(3) * 2048,
        retain_bytes: dice.below(3) * (16 << 10),
        ..JournalConfig::default()
    }
}

fn open(disk: &MemoryDisk, config: JournalConfig) -> Result<Recovered<Hash>, RecoverError> {
    recover_on(Arc::new(disk.clone()), Arc::new(Inline), Path::new(DATA), config, Hash::default, |_| ())
}

/// What came back must be what was promised, plus some beginning of what was being written.
fn check(recovered: &Recovered<Hash>, promised: &Model, writing: &[Persist], what: &str) -> Model {
    let mut model = promised.clone();
    let blocks: Vec<_> = writing.iter().flat_map(|persist| &persist.blocks).collect();
    let found = |model: &Model| recovered.log_end() == model.last();
    let mut taken = 0;
    while !found(&model) && taken < blocks.len() {
        model.take(blocks[taken]);
        taken += 1;
    }
    let end = recovered.log_end();
    assert!(found(&model), "{what}: the log ends at {end:?}, promised was {:?}", promised.last());
    let position = recovered.position;
    assert!(
        position.index >= promised.hard_state.commit.min(end.index),
        "{what}: what is known to be committed is applied"
    );
    assert_eq!(position, model.at(position.index), "{what}: what is applied is the log's");
    assert_eq!(
        recovered.machine,
        model.machine(position.index),
        "{what}: and the machine is where it would be"
    );
    let tail: Vec<_> = model.log[position.index as usize..].to_vec();
    assert_eq!(recovered.tail, tail, "{what}: the rest of the log waits");
    assert_eq!(recovered.hard_state.commit, position.index, "{what}");
    let (state, least) = (recovered.hard_state, promised.hard_state);
    assert!(state.term >= least.term && state.term >= end.term, "{what}: the term is not forgotten");
    if state.term == least.term {
        assert_eq!(state.vote, least.vote, "{what}: nor the vote in it");
    }
    assert!(recovered.log_start.index <= position.index, "{what}");
    assert_eq!(recovered.log_start, model.at(recovered.log_start.index), "{what}: the log begins on the log");
    let from = recovered.report.snapshot.map_or(0, |snapshot| snapshot.index);
    let changes: Vec<_> = model.log[from as usize..position.index as usize]
        .iter()
        .filter(|block| block.header().kind == crate::block::BlockKind::ConfChange)
        .map(|block| (block.header().index, bytes::Bytes::copy_from_slice(block.payload())))
        .collect();
    assert_eq!(recovered.conf_changes, changes, "{what}: changes of members since the snapshot");
    model.hard_state = state;
    model
}

/// Old blocks read as they were written, or are said to be gone when they may be.
fn check_reader(reader: &LogReader, journal: &Journal, model: &Model, dice: &mut Dice, what: &str) {
    let committed = journal.hard_state().commit;
    if committed == 0 {
        return;
    }
    let from = 1 + dice.below(committed);
    let start = crate::journal::log_start(&*journal.disk(), &Path::new(DATA).join("journal"), Hash::FORMAT)
        .expect("it lists")
        .expect("it has segments");
    match reader.read(from, dice.below(6000)) {
        Ok(blocks) => {
            assert!(!blocks.is_empty(), "{what}");
            for (nth, block) in blocks.iter().enumerate() {
                let index = from + nth as u64;
                if index <= committed {
                    assert_eq!(**block, *model.log[index as usize - 1], "{what}: block {index}");
                }
            }
        }
        Err(LogReadError::Compacted { .. }) => {
            assert!(
                from <= start.index,
                "{what}: block {from} is there, the log begins behind {}",
                start.index
            );
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

fn snapshot(recovered: &Recovered<Hash>, model: &Model, index: u64) -> SnapshotMeta {
    let machine = model.machine(index);
    let meta = SnapshotMeta {
        position: model.at(index),
        state_hash: machine.state_hash(),
        machine_format: Hash::FORMAT,
        members: index.to_le_bytes().to_vec(),
    };
    recovered.snapshots().write(&meta, &machine.snapshot()).expect("it is written");
    meta
}
