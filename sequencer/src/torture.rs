//! Tests of journal, snapshots, recovery and log reader on a disk in memory that does what disks do: loses what was not synced,
//! tears writes at sectors, writes less than asked, flips bits, runs full, fails a sync and forgets that it did.
//!
//! Each case is one seed, and the seed is in every message; `GRID_SEED` runs one of them alone, `GRID_SEEDS` so many of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use grid_engine::{Nanos, Seq};

use crate::block::{Block, Position, push_command};
use crate::consensus::{HardState, Persist};
use crate::disk::{Access, Disk, DiskFile, Inline};
use crate::journal::{Journal, JournalConfig, JournalError};
use crate::log_reader::{LogReadError, LogReader};
use crate::machine::{Machine, Unreadable};
use crate::recover::{RecoverError, Recovered, recover_on};
use crate::snapshot::SnapshotMeta;

const SECTOR: usize = 512;
const DATA: &str = "/data";

/// A seeded stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, of: u64) -> bool {
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

#[derive(Debug, Default)]
struct Content {
    /// What a reader sees.
    now: Vec<u8>,
    /// What survives a loss of power.
    durable: Vec<u8>,
    /// Sectors that the system knows to differ.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Naming {
    Named(PathBuf, u64),
    Unnamed(PathBuf),
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, naming: &Naming) {
    match naming {
        Naming::Named(path, file) => {
            names.insert(path.clone(), *file);
        }
        Naming::Unnamed(path) => {
            names.remove(path);
        }
    }
}

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of the directory; a rename is one step.
    renaming: Vec<Vec<Naming>>,
    next_file: u64,
    dice: Dice,
    /// Writes are cut short now and then.
    short_writes: bool,
    /// The so-and-so-manieth change from now on fails; 0 for the next.
    fails_in: Option<u64>,
    /// Bytes that fit.
    room: u64,
}

/// A disk in memory, shared by everyone who has a clone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renaming: Vec::new(),
            next_file: 0,
            dice: Dice::new(seed),
            short_writes: false,
            fails_in: None,
            room: u64::MAX,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    /// The power goes: each sector that was not synced may be there or not, and the last changes of names too.
    pub(crate) fn lose_power(&self) {
        let mut state = self.state();
        let State { files, names, durable_names, renaming, dice, .. } = &mut *state;
        let survive = dice.below(renaming.len() as u64 + 1) as usize;
        for step in renaming.drain(..).take(survive) {
            step.iter().for_each(|naming| apply(durable_names, naming));
        }
        names.clone_from(durable_names);
        files.retain(|file, _| names.values().any(|named| named == file));
        for content in files.values_mut() {
            for sector in std::mem::take(&mut content.dirty) {
                if dice.one_in(2) {
                    content.keep(sector);
                }
            }
            content.now.clone_from(&content.durable);
        }
    }

    /// One bit of a file flips, on the medium.
    fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.state();
        let file = state.names[path];
        let content = state.files.get_mut(&file).expect("a named file");
        content.now[bit as usize / 8] ^= 1 << (bit % 8);
        content.durable = content.now.clone();
    }

    fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.names[path];
        let content = state.files.get_mut(&file).expect("a named file");
        (content.now, content.durable) = (bytes.clone(), bytes);
    }

    fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[path]].now.clone()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }
}

impl Content {
    fn keep(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.now.len());
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(&self.now[from..to]);
    }
}

impl State {
    /// Counts a change down to the one that fails.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.fails_in {
            Some(0) => Err(io::Error::other("the disk fails here")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_step(&mut self, step: Vec<Naming>) {
        step.iter().for_each(|naming| apply(&mut self.names, naming));
        self.renaming.push(step);
    }
}

impl Disk for MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let of_dir = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(of_dir.map(|path| path.file_name().expect("named").to_str().expect("text").to_owned()).collect())
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().file(path)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.change()?;
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.rename_step(vec![Naming::Named(path.to_owned(), file)]);
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let file = state.file(from)?;
        state.rename_step(vec![Naming::Unnamed(from.to_owned()), Naming::Named(to.to_owned(), file)]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.file(path)?;
        state.change()?;
        state.rename_step(vec![Naming::Unnamed(path.to_owned())]);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let State { durable_names, renaming, .. } = &mut *state;
        renaming.drain(..).flatten().for_each(|naming| apply(durable_names, &naming));
        Ok(())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    file: u64,
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        act(&mut self.disk.state(), self.file)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[&file].now.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|state, file| {
            let bytes = state.files[&file].now.get(at as usize..).unwrap_or_default();
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        self.with(|state, file| {
            let failed = state.change().err();
            let used: u64 = state.files.values().map(|content| content.now.len() as u64).sum();
            let grows = (at + bytes.len() as u64).saturating_sub(state.files[&file].now.len() as u64);
            if grows > state.room.saturating_sub(used) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if failed.is_some() || (state.short_writes && state.dice.one_in(3)) {
                let part = state.dice.below(bytes.len() as u64 + 1) as usize;
                bytes.truncate(if failed.is_some() { part } else { part.max(1) });
            }
            let content = state.files.get_mut(&file).expect("open");
            let (from, to) = (at as usize, at as usize + bytes.len());
            if content.now.len() < to {
                content.now.resize(to, 0);
            }
            content.now[from..to].copy_from_slice(&bytes);
            content.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
            failed.map_or(Ok(bytes.len()), Err)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, file| {
            let failed = state.change().err();
            let content = state.files.get_mut(&file).expect("open");
            // After a failed sync the system takes the pages for clean, whatever became of them.
            for sector in std::mem::take(&mut content.dirty) {
                if failed.is_none() {
                    content.keep(sector);
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.change()?;
            let content = state.files.get_mut(&file).expect("open");
            content.now.resize(bytes as usize, 0);
            content.durable.resize(bytes as usize, 0);
            Ok(())
        })
    }
}

/// A machine that is a hash over everything it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hash {
    commands: u64,
    hash: u64,
}

impl Machine for Hash {
    type Command = Vec<u8>;
    type Event = u64;

    const FORMAT: u32 = 1;

    fn encode(command: &Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(command);
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        Ok(bytes.to_vec())
    }

    fn apply(&mut self, seq: Seq, at: Nanos, command: &Vec<u8>, out: &mut Vec<u64>) {
        assert_eq!(seq.0, self.commands + 1, "commands come without a gap");
        self.commands += 1;
        for byte in command.iter().chain(&at.0.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        out.push(self.hash);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> Vec<u8> {
        Vec::new()
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.commands.to_le_bytes(), self.hash.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Unreadable("no such snapshot".to_owned()))?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self { commands: word(0), hash: word(8) })
    }

    fn state_hash(&self) -> u64 {
        self.hash
    }
}

/// What a journal should hold: the log of the cluster as this node knows it, from the first block on.
#[derive(Clone, Debug, Default)]
struct Model {
    log: Vec<Arc<Block>>,
    hard_state: HardState,
    /// The journal goes on behind the block of this index; those before are in a snapshot only.
    floor: u64,
}

impl Model {
    fn last(&self) -> Position {
        self.at(self.log.len() as u64)
    }

    fn at(&self, index: u64) -> Position {
        match index {
            0 => Position::default(),
            index => Position::after(self.log[index as usize - 1].header()),
        }
    }

    fn take(&mut self, block: &Arc<Block>) {
        self.log.truncate(block.header().index as usize - 1);
        assert_eq!(self.last().refuses(block.header()), None, "the test makes sound logs");
        self.log.push(Arc::clone(block));
    }

    /// The machine after the block of an index.
    fn machine(&self, index: u64) -> Hash {
        let mut machine = Hash::default();
        for block in &self.log[..index as usize] {
            let header = block.header();
            let mut seq = header.first_seq;
            for command in crate::block::CommandBytes::new(block.payload()) {
                machine.apply(seq, header.at, &command.to_vec(), &mut Vec::new());
                seq = seq.next();
            }
        }
        machine
    }

    /// The next block in a term: commands, now and then a change of members or nothing.
    fn next_block(&self, dice: &mut Dice, term: u64) -> Arc<Block> {
        let before = self.last();
        Arc::new(match dice.below(8) {
            0 => Block::empty(&before, term),
            1 => Block::conf_change(&before, term, &dice.next().to_le_bytes()),
            _ => {
                let mut payload = Vec::new();
                let commands = 1 + dice.below(3);
                for _ in 0..commands {
                    let most = if dice.one_in(4) { 900 } else { 60 };
                    let len = dice.below(most);
                    push_command(&mut payload, |out| out.extend((0..len).map(|_| dice.next() as u8)));
                }
                Block::entry(&before, term, Nanos(before.at.0 + dice.below(5)), commands as u32, &payload)
            }
        })
    }

    /// What consensus might want persisted next; this model becomes what the log is after it.
    fn next_persist(&mut self, dice: &mut Dice, ticket: u64) -> Persist {
        let mut persist = Persist { ticket, ..Persist::default() };
        let mut state = self.hard_state;
        if dice.one_in(4) {
            state = HardState { term: state.term.max(self.last().term) + 1, vote: dice.below(4), ..state };
        }
        let term = state.term.max(self.last().term).max(1);
        state.term = term;
        if dice.one_in(5) && self.last().index > state.commit {
            // Another leader's log takes the place of what was not committed.
            let keep = state.commit + dice.below(self.last().index - state.commit);
            self.log.truncate(keep as usize);
            state.term += 1;
            let block = self.next_block(dice, state.term);
            self.take(&block);
            persist.blocks.push(block);
        }
        for _ in 0..dice.below(4) {
            let block = self.next_block(dice, state.term);
            self.take(&block);
            persist.blocks.push(block);
        }
        if dice.one_in(2) {
            state.commit += dice.below(self.last().index - state.commit + 1);
        }
        if state != self.hard_state {
            self.hard_state = state;
            persist.hard_state = Some(state);
        }
        persist
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
