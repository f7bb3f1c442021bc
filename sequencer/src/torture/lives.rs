//! Lives of a journal, and how they end.

use std::path::Path;
use std::sync::Arc;

use super::disk::MemoryDisk;
use super::model::{Hash, Model};
use super::{DATA, Dice, check, check_reader, config, for_seeds, open, snapshot};
use crate::block::{Block, push_command};
use crate::consensus::{HardState, Persist};
use crate::journal::{JournalConfig, JournalError};
use crate::log_reader::LogReader;
use crate::machine::Machine;
use crate::recover::Recovered;

/// Several lives on one disk, each ended by a loss of power or a kill, in the middle of a write or of a failing change.
#[test]
fn nothing_promised_is_lost_however_a_life_ends() {
    for_seeds(250, |seed| {
        let mut dice = Dice::new(seed);
        let disk = MemoryDisk::new(dice.next());
        disk.state().short_writes = dice.one_in(2);
        let config = config(&mut dice);
        let mut promised = Model::default();
        let mut writing: Vec<Persist> = Vec::new();
        for life in 0..6 {
            let what = format!("seed {seed}, life {life}");
            let mut recovered = open(&disk, config).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mut model = check(&recovered, &promised, &writing, &what);
            promised = model.clone();
            writing.clear();
            let reader = LogReader::on(Arc::new(disk.clone()), Path::new(DATA), Hash::FORMAT);
            let mut ticket = 0;
            for _ in 0..dice.below(40) {
                if dice.one_in(40) {
                    disk.state().fails_in = Some(dice.below(6));
                }
                for _ in 0..=dice.below(2) {
                    ticket += 1;
                    writing.push(model.next_persist(&mut dice, ticket));
                }
                if dice.one_in(3) {
                    recovered.journal.commit(promised.hard_state.commit);
                }
                let journal = &mut recovered.journal;
                let written = journal.write_group(&writing);
                // A life may also end between the two.
                let ends = dice.one_in(60);
                if written.is_err() || ends || journal.sync().is_err() {
                    break;
                }
                writing.clear();
                promised = model.clone();
                promised.hard_state = recovered.journal.hard_state();
                if disk.state().fails_in.is_some() {
                    continue;
                }
                check_reader(&reader, &recovered.journal, &promised, &mut dice, &what);
                let committed = promised.hard_state.commit;
                if dice.one_in(10) && committed > promised.floor {
                    snapshot(&recovered, &promised, committed);
                }
                if dice.one_in(5)
                    && let Some(oldest) = recovered.snapshots().oldest_index().expect("listed")
                {
                    let before = recovered.journal.bytes();
                    recovered.journal.release(oldest).expect("it can");
                    let after = recovered.journal.bytes();
                    assert!(after == before || after >= config.retain_bytes, "{what}: enough is kept");
                }
            }
            disk.state().fails_in = None;
            drop(recovered);
            if dice.one_in(2) {
                disk.lose_power();
            }
        }
    });
}

/// A vote given in the first segment and never again, a crash at every step into the second, and a snapshot behind which only the
/// second is read.
#[test]
fn a_vote_is_remembered_wherever_a_crash_meets_the_beginning_of_a_segment() {
    const SEGMENT: u64 = 8 << 10;
    let config = JournalConfig { segment_bytes: SEGMENT, retain_bytes: 0, ..JournalConfig::default() };
    let voted = HardState { term: 3, vote: 2, commit: 0 };
    let append = |life: &mut Recovered<Hash>, model: &mut Model| {
        let mut payload = Vec::new();
        push_command(&mut payload, |out| out.extend([7; 700]));
        let block = Arc::new(Block::entry(&model.last(), voted.term, model.last().at, 1, &payload));
        model.take(&block);
        life.journal.append(&[Persist { ticket: 1, hard_state: None, blocks: [block].into() }])
    };
    for (fails_in, power) in (0..).flat_map(|fails_in| [(fails_in, false), (fails_in, true)]) {
        let what = format!("change {fails_in} fails, and the power: {power}");
        let disk = MemoryDisk::new(fails_in);
        let mut model = Model::default();
        let mut life = open(&disk, config).expect("it opens");
        let vote = Persist { ticket: 1, hard_state: Some(voted), ..Persist::default() };
        life.journal.append(&[vote]).expect("written");
        disk.state().fails_in = Some(fails_in);
        while life.journal.bytes() == SEGMENT && append(&mut life, &mut model).is_ok() {}
        drop(life);
        let undisturbed = disk.state().fails_in.take() != Some(0);
        if power {
            disk.lose_power();
        }

        let vote_of = |life: &Recovered<Hash>| (life.hard_state.term, life.hard_state.vote);
        let mut life = open(&disk, config).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(vote_of(&life), (voted.term, voted.vote), "{what}: after the crash");
        model.log.truncate(life.log_end().index as usize);
        append(&mut life, &mut model).expect("written");
        let last = model.last();
        snapshot(&life, &model, last.index);
        drop(life);
        disk.lose_power();

        let life = open(&disk, config).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(life.position, last, "{what}");
        assert_eq!(vote_of(&life), (voted.term, voted.vote), "{what}: from the snapshot on");
        if undisturbed {
            return;
        }
    }
}

#[test]
fn a_full_disk_stops_the_journal_and_room_lets_it_go_on() {
    for_seeds(60, |seed| {
        let mut dice = Dice::new(seed);
        let disk = MemoryDisk::new(dice.next());
        let config = JournalConfig { retain_bytes: u64::MAX, ..config(&mut dice) };
        let mut recovered = open(&disk, config).expect("it opens");
        disk.state().room = (24 << 10) + dice.below(64 << 10);
        let mut model = Model::default();
        let mut promised = model.clone();
        for ticket in 1.. {
            let persist = model.next_persist(&mut dice, ticket);
            let error = match recovered.journal.append(std::slice::from_ref(&persist)) {
                Ok(()) => {
                    promised = model.clone();
                    promised.hard_state = recovered.journal.hard_state();
                    continue;
                }
                Err(error) => error,
            };
            assert!(error.to_string().contains("The disk is full: free space"), "seed {seed}: {error}");
            let again = recovered.journal.append(&[]);
            assert!(matches!(again, Err(JournalError::Failed)), "seed {seed}: it refuses to go on");
            drop(recovered);
            disk.state().room = u64::MAX;
            let recovered = open(&disk, config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            check(&recovered, &promised, &[persist], &format!("seed {seed}"));
            break;
        }
    });
}
