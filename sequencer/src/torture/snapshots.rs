//! Snapshots that a node receives.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::MemoryDisk;
use super::model::{Hash, Model};
use super::{Dice, check, config, for_seeds, open, snapshot};
use crate::journal::JournalConfig;
use crate::machine::Machine;
use crate::snapshot::SnapshotMeta;

/// A node that is too far behind gets a snapshot; whatever step of taking it in a crash hits, the next start goes on.
#[test]
fn a_received_snapshot_is_taken_in_across_a_crash_at_every_step() {
    for_seeds(30, |seed| {
        for fails_in in 0.. {
            let mut dice = Dice::new(seed);
            let disk = MemoryDisk::new(dice.next());
            let config = config(&mut dice);
            let mut recovered = open(&disk, config).expect("it opens");
            let mut model = Model::default();
            for ticket in 1..dice.below(30) {
                let persist = model.next_persist(&mut dice, ticket);
                recovered.journal.append(&[persist]).expect("written");
            }
            if dice.one_in(2) && model.hard_state.commit > 0 {
                snapshot(&recovered, &model, model.hard_state.commit);
            }
            // The cluster went on without this node, and what it had uncommitted may not be part of that.
            let mut cluster = model.clone();
            cluster.log.truncate(model.hard_state.commit as usize);
            for _ in 0..20 + dice.below(30) {
                let term = model.last().term.max(model.hard_state.term) + 1;
                let block = cluster.next_block(&mut dice, term);
                cluster.take(&block);
            }
            let index = cluster.last().index;
            let machine = cluster.machine(index);
            let sent = SnapshotMeta {
                position: cluster.last(),
                state_hash: machine.state_hash(),
                machine_format: Hash::FORMAT,
                members: b"three".to_vec(),
            };
            let sender = MemoryDisk::new(1);
            let store = crate::snapshot::SnapshotStore::on(Arc::new(sender), PathBuf::from("/sender"));
            store.write(&sent, &machine.snapshot()).expect("written");
            let source = store.open_for_sending().expect("listed").expect("there is one");
            let mut receiver = recovered.snapshots().receive().expect("it begins");
            let mut buffer = [0; 100];
            while let read @ 1.. = source.read_at(&mut buffer, receiver.bytes()).expect("it reads") {
                receiver.write(&buffer[..read]).expect("written");
            }
            assert_eq!(receiver.finish().expect("it checks"), sent);
            drop(recovered);
            // The start that takes it in is interrupted.
            disk.state().fails_in = Some(fails_in);
            let first = std::panic::catch_unwind(|| open(&disk, config).map(drop));
            let undisturbed = disk.state().fails_in.take() != Some(0);
            if dice.one_in(2) {
                disk.lose_power();
            }
            let what = format!("seed {seed}, change {fails_in} fails");
            assert!(!undisturbed || matches!(first, Ok(Ok(()))), "{what}");
            let recovered = open(&disk, config).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recovered.position, cluster.last(), "{what}");
            assert_eq!(recovered.log_end(), cluster.last(), "{what}");
            assert_eq!(recovered.log_start, cluster.last(), "{what}");
            assert_eq!(recovered.machine, machine, "{what}");
            assert_eq!(recovered.members, b"three", "{what}");
            assert!(recovered.hard_state.term >= cluster.last().term, "{what}");
            let mut recovered = recovered;
            let mut model = Model { hard_state: recovered.hard_state, floor: index, ..cluster };
            for ticket in 1..10 {
                let persist = model.next_persist(&mut dice, ticket);
                recovered.journal.append(&[persist]).expect("written");
            }
            drop(recovered);
            let recovered = open(&disk, config).unwrap_or_else(|error| panic!("{what}, later: {error}"));
            check(&recovered, &model, &[], &what);
            if undisturbed {
                return;
            }
        }
    });
}

#[test]
fn a_received_snapshot_that_is_no_news_is_put_away() {
    let disk = MemoryDisk::new(1);
    let mut dice = Dice::new(1);
    let config = config(&mut dice);
    let mut recovered = open(&disk, config).expect("it opens");
    let mut model = Model::default();
    for ticket in 1..30 {
        let persist = model.next_persist(&mut dice, ticket);
        recovered.journal.append(&[persist]).expect("written");
    }
    let at = model.hard_state.commit / 2;
    let meta = snapshot(&recovered, &model, at);
    let source = recovered.snapshots().open_for_sending().expect("listed").expect("there");
    let mut receiver = recovered.snapshots().receive().expect("begun");
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(&mut bytes, 0).expect("read");
    receiver.write(&bytes).expect("written");
    assert_eq!(receiver.finish().expect("sound"), meta);
    drop(recovered);
    let recovered = open(&disk, config).expect("it opens");
    check(&recovered, &model, &[], "with a snapshot of the past");
    assert!(recovered.snapshots().received().expect("listed").is_empty());
}

#[test]
fn a_snapshot_that_was_changed_on_the_way_gets_no_name() {
    let disk = MemoryDisk::new(1);
    let recovered = open(&disk, JournalConfig::default()).expect("it opens");
    snapshot(&recovered, &Model::default(), 0);
    let source = recovered.snapshots().open_for_sending().expect("listed").expect("there");
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(&mut bytes, 0).expect("read");
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut receiver = recovered.snapshots().receive().expect("begun");
        receiver.write(&changed).expect("written");
        assert!(receiver.finish().is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        let mut receiver = recovered.snapshots().receive().expect("begun");
        receiver.write(&bytes[..len]).expect("written");
        assert!(receiver.finish().is_err(), "{len} bytes");
    }
    assert!(recovered.snapshots().received().expect("listed").is_empty());
}
