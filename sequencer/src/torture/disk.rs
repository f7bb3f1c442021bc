//! A disk in memory that does what disks do; see the head of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Dice;
use crate::disk::{Access, Disk, DiskFile};

const SECTOR: usize = 512;

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
pub(super) struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of the directory; a rename is one step.
    renaming: Vec<Vec<Naming>>,
    next_file: u64,
    dice: Dice,
    /// Writes are cut short now and then.
    pub(super) short_writes: bool,
    /// The so-and-so-manieth change from now on fails; 0 for the next.
    pub(super) fails_in: Option<u64>,
    /// Bytes that fit.
    pub(super) room: u64,
}

/// A disk in memory, shared by everyone who has a clone.
#[derive(Clone, Debug)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    pub(super) fn new(seed: u64) -> Self {
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    /// The power goes: each sector that was not synced may be there or not, and the last changes of names too.
    pub(super) fn lose_power(&self) {
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
    pub(super) fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.state();
        let file = state.names[path];
        let content = state.files.get_mut(&file).expect("a named file");
        content.now[bit as usize / 8] ^= 1 << (bit % 8);
        content.durable = content.now.clone();
    }

    pub(super) fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.names[path];
        let content = state.files.get_mut(&file).expect("a named file");
        (content.now, content.durable) = (bytes.clone(), bytes);
    }

    pub(super) fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[path]].now.clone()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
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
