//! The form of a journal, as it was written before and must be read for ever.

use std::path::Path;
use std::sync::Arc;

use grid_engine::Nanos;

use super::disk::MemoryDisk;
use super::model::Model;
use super::{DATA, check, open};
use crate::block::{Block, Position, push_command};
use crate::consensus::{HardState, Persist};
use crate::disk::Disk;
use crate::journal::{Journal, JournalConfig};

/// A small life with every kind of block but a snapshot note: entries, a change of members, a replaced block, hard states, two segments.
fn golden_life(disk: &MemoryDisk) -> Model {
    let config = JournalConfig { segment_bytes: 6 << 10, cluster: 3, node: 2, ..JournalConfig::default() };
    let mut recovered = open(disk, config).expect("it opens");
    let mut model = Model::default();
    let append = |journal: &mut Journal, blocks: &[Arc<Block>], term, vote, commit| {
        let hard_state = Some(HardState { term, vote, commit });
        let persist = Persist { ticket: 1, hard_state, blocks: blocks.to_vec().into() };
        journal.append(&[persist]).expect("it is written");
    };
    let entry = |model: &Model, term, text: &[u8]| {
        let mut payload = Vec::new();
        push_command(&mut payload, |out| out.extend_from_slice(text));
        let before = model.last();
        Arc::new(Block::entry(&before, term, Nanos(before.at.0 + 1_000), 1, &payload))
    };
    let grow = |model: &mut Model, block: Arc<Block>| {
        model.take(&block);
        block
    };
    let first = grow(&mut model, Arc::new(Block::empty(&Position::default(), 1)));
    let change =
        grow(&mut model, Arc::new(Block::conf_change(&Position::after(first.header()), 1, b"a change")));
    append(&mut recovered.journal, &[first, change], 1, 2, 1);
    let lost = entry(&model, 1, b"never committed");
    model.take(&lost);
    append(&mut recovered.journal, &[lost], 1, 2, 2);
    model.log.pop();
    let other = Arc::new(Block::empty(&model.last(), 4));
    let other = grow(&mut model, other);
    append(&mut recovered.journal, &[other], 4, 3, 2);
    for nth in 0..4 {
        let block = entry(&model, 4, &[b'a' + nth; 300]);
        model.take(&block);
        append(&mut recovered.journal, &[block], 4, 3, u64::from(nth) + 3);
    }
    model.hard_state = recovered.journal.hard_state();
    model
}

/// What is written today is what was written then, and what was written then opens today. A change needs a new format number, a
/// reader of the old, and new files beside these; `GRID_GOLDEN=write` makes them.
#[test]
fn a_journal_of_format_2_is_written_and_opens_as_ever() {
    let disk = MemoryDisk::new(1);
    let model = golden_life(&disk);
    let names = ["journal-0000000001.seg", "journal-0000000002.seg"];
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = |name: &str| golden.join(name.replace("journal-", "journal-format-2-"));
    let old = MemoryDisk::new(2);
    for name in names {
        let path = Path::new(DATA).join("journal").join(name);
        let written = disk.content(&path);
        if std::env::var("GRID_GOLDEN").is_ok_and(|what| what == "write") {
            std::fs::write(file(name), &written).expect("written");
        }
        let bytes = std::fs::read(file(name)).expect("the golden file is there");
        assert!(bytes == written, "{name} is written as it was");
        old.create(&path).and_then(|file| file.write_bytes_at(&bytes, 0)).expect("written");
    }
    assert_eq!(disk.paths().len(), 3, "two segments, and the next one prepared");
    let config = JournalConfig { segment_bytes: 6 << 10, cluster: 3, node: 2, ..JournalConfig::default() };
    let recovered = open(&old, config).expect("every later build opens it");
    check(&recovered, &model, &[], "the golden journal");
    assert_eq!((recovered.position.index, recovered.tail.len()), (6, 1));
}
