//! A disk per node that does what disks do on bad days.
//!
//! Every file has two contents: what a reader sees, and what is on the platters. A sync copies the one to the other. When the power
//! fails, of the sectors (512 bytes) written since then an arbitrary subset survives, so writes are torn anywhere; of the names that
//! were created, changed or removed since the directory's sync, too. A process that is only killed loses nothing, but what it had not
//! synced may still be lost later. Writes may be short, the disk may be full, an operation may fail, and bits may flip at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_sequencer::{Access, Disk, DiskFile};

use crate::dice::Dice;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How a disk misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskFaults {
    /// Writes that do only a part, in a million.
    pub(crate) short_ppm: u32,
    /// Writes and syncs that fail, in a million.
    pub(crate) error_ppm: u32,
    /// A disk that says that it has synced and has not: only for proving that the checks would notice.
    pub(crate) lies: bool,
}

/// A node's disk; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<Volume>>);

#[derive(Debug, Default)]
struct Dir {
    now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Put(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct Volume {
    dice: Dice,
    faults: DiskFaults,
    dirs: BTreeMap<PathBuf, Dir>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Which start of the process may use it; handles of earlier ones are dead.
    boot: u64,
    room: Option<u64>,
    flips: Vec<Flip>,
}

/// A bit that was flipped, to be put right by hand later.
#[derive(Clone, Debug)]
struct Flip {
    file: u64,
    at: usize,
    mask: u8,
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Put(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Rename(from, to) => {
            // A file whose creation was lost has no name to change.
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

impl SimDisk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Volume {
            dice,
            faults: DiskFaults::default(),
            dirs: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            boot: 0,
            room: None,
            flips: Vec::new(),
        })))
    }

    fn volume(&self) -> MutexGuard<'_, Volume> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_faults(&self, faults: DiskFaults) {
        self.volume().faults = faults;
    }

    /// Room for so many bytes more than are in use now; `None` for as much as is wanted.
    pub(crate) fn set_room(&self, more: Option<u64>) {
        let mut volume = self.volume();
        let used = volume.used();
        volume.room = more.map(|more| used + more);
    }

    /// The process is gone: its handles are dead, what it wrote stays as it was seen.
    pub(crate) fn process_gone(&self) {
        self.volume().boot += 1;
    }

    /// The power is gone too: what was not synced may be lost. Returns how many sectors and names were.
    pub(crate) fn power_gone(&self) -> (u64, u64) {
        let mut volume = self.volume();
        volume.boot += 1;
        volume.lose_power()
    }

    /// True if everything in this directory is on the platters, except files whose name ends as told.
    pub(crate) fn is_synced(&self, dir: &Path, except: &str) -> bool {
        let volume = self.volume();
        let Some(found) = volume.dirs.get(dir) else { return true };
        if volume.faults.lies {
            // It deceives this question too: what it lost must be missed elsewhere.
            return true;
        }
        let names = found.now.iter().filter(|(name, _)| !name.ends_with(except));
        names
            .clone()
            .all(|(name, file)| found.durable.get(name) == Some(file) && volume.files[file].dirty.is_empty())
    }

    /// Flips one bit of a durable file in `dir`, somewhere in the part that `pick` chooses of its bytes.
    pub(crate) fn flip_bit(
        &self,
        dir: &Path,
        mut pick: impl FnMut(&str, &[u8], &mut Dice) -> Option<usize>,
    ) -> Option<String> {
        let mut volume = self.volume();
        let mut dice = volume.dice.fork();
        let names: Vec<(String, u64)> = volume.dirs.get(dir)?.durable.clone().into_iter().collect();
        if names.is_empty() {
            return None;
        }
        let (name, file) = dice.pick(&names).clone();
        let at = pick(&name, &volume.files.get(&file)?.durable, &mut dice)?;
        let mask = 1 << dice.below(8);
        let content = volume.files.get_mut(&file)?;
        *content.durable.get_mut(at)? ^= mask;
        *content.now.get_mut(at)? ^= mask;
        volume.flips.push(Flip { file, at, mask });
        Some(name)
    }

    /// Puts right by hand, from a copy, what flipped; returns how many bits.
    pub(crate) fn restore_flips(&self) -> usize {
        let mut volume = self.volume();
        let flips = std::mem::take(&mut volume.flips);
        for flip in &flips {
            let Some(content) = volume.files.get_mut(&flip.file) else { continue };
            for bytes in [&mut content.now, &mut content.durable] {
                if let Some(byte) = bytes.get_mut(flip.at) {
                    *byte ^= flip.mask;
                }
            }
        }
        flips.len()
    }

    /// True while a bit is flipped that nobody has put right.
    pub(crate) fn is_flipped(&self) -> bool {
        !self.volume().flips.is_empty()
    }

    /// The disk as this start of the process sees it; its handles die with [`SimDisk::process_gone`].
    pub(crate) fn mount(&self) -> Arc<dyn Disk> {
        let boot = self.volume().boot;
        Arc::new(Mount { disk: self.clone(), boot })
    }
}

impl Volume {
    fn used(&self) -> u64 {
        self.files.values().map(|content| content.now.len() as u64).sum()
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path);
        let found = self.dirs.get(dir).and_then(|dir| dir.now.get(name)).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, dir: &Path, change: Change) -> io::Result<()> {
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        apply(&mut dir.now, &change);
        dir.pending.push(change);
        Ok(())
    }

    /// Frees files that have no name any more, seen or durable.
    fn forget_nameless(&mut self) {
        let named = |dir: &Dir| {
            let pending = dir.pending.iter().filter_map(|change| match change {
                Change::Put(_, file) => Some(*file),
                _ => None,
            });
            dir.now.values().chain(dir.durable.values()).copied().chain(pending).collect::<Vec<_>>()
        };
        let named: BTreeSet<u64> = self.dirs.values().flat_map(named).collect();
        self.files.retain(|file, _| named.contains(file));
    }

    fn fails(&mut self) -> io::Result<()> {
        if self.dice.ppm(self.faults.error_ppm) {
            return Err(io::Error::other("the simulated disk fails"));
        }
        Ok(())
    }

    fn lose_power(&mut self) -> (u64, u64) {
        let (mut sectors, mut names) = (0, 0);
        // Each power cut has its own temper: all, nothing, or anything in between.
        let keep = *self.dice.pick(&[0, 200_000, 500_000, 800_000, 950_000, 1_000_000]);
        let in_order = self.dice.chance(1, 3);
        for content in self.files.values_mut() {
            let dirty = std::mem::take(&mut content.dirty);
            let grown = content.now.len().max(content.durable.len());
            let shortest = content.now.len().min(content.durable.len());
            let len = if shortest == grown {
                grown
            } else {
                shortest + self.dice.below((grown - shortest) as u64 + 1) as usize
            };
            content.durable.resize(len, 0);
            let cut = self.dice.below(dirty.len() as u64 + 1) as usize;
            for (nth, sector) in dirty.into_iter().enumerate() {
                let kept = if in_order { nth < cut } else { self.dice.ppm(keep) };
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(len).min(content.now.len());
                if kept && from < to {
                    content.durable[from..to].copy_from_slice(&content.now[from..to]);
                } else {
                    sectors += 1;
                }
            }
            content.now.clone_from(&content.durable);
        }
        for dir in self.dirs.values_mut() {
            let pending = std::mem::take(&mut dir.pending);
            let cut = self.dice.below(pending.len() as u64 + 1) as usize;
            for (nth, change) in pending.iter().enumerate() {
                let kept = if in_order { nth < cut } else { self.dice.ppm(keep) };
                if kept {
                    apply(&mut dir.durable, change);
                } else {
                    names += 1;
                }
            }
            dir.now.clone_from(&dir.durable);
        }
        self.forget_nameless();
        (sectors, names)
    }
}

fn split(path: &Path) -> (&Path, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (path.parent().unwrap_or(Path::new("")), name)
}

#[derive(Clone, Debug)]
struct Mount {
    disk: SimDisk,
    boot: u64,
}

impl Mount {
    /// The volume, unless the process that had it mounted is gone: a ghost must not write.
    fn volume(&self) -> io::Result<MutexGuard<'_, Volume>> {
        let volume = self.disk.volume();
        if volume.boot == self.boot { Ok(volume) } else { Err(io::Error::other("this process is gone")) }
    }
}

impl Disk for Mount {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let volume = self.volume()?;
        let dir = volume.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(dir.now.keys().cloned().collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.volume()?.find(path)?;
        Ok(Box::new(Handle { mount: self.clone(), file, access }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut volume = self.volume()?;
        volume.fails()?;
        let (dir, name) = split(path);
        let file = match volume.find(path) {
            Ok(file) => {
                // Cut to nothing; until the next sync the old bytes may come back, or some of them.
                volume.flips.retain(|flip| flip.file != file);
                let content = volume.files.entry(file).or_default();
                content.dirty.extend(0..content.now.len().div_ceil(SECTOR));
                content.now.clear();
                file
            }
            Err(_) => {
                let file = volume.next_file;
                volume.next_file += 1;
                volume.change(dir, Change::Put(name.to_owned(), file))?;
                volume.files.insert(file, Content::default());
                file
            }
        };
        Ok(Box::new(Handle { mount: self.clone(), file, access: Access::Write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut volume = self.volume()?;
        volume.fails()?;
        volume.find(from)?;
        let ((dir, from), (to_dir, to)) = (split(from), split(to));
        assert_eq!(dir, to_dir, "the simulated disk renames within a directory");
        volume.change(dir, Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut volume = self.volume()?;
        volume.fails()?;
        volume.find(path)?;
        let (dir, name) = split(path);
        volume.change(dir, Change::Remove(name.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut volume = self.volume()?;
        volume.fails()?;
        let lies = volume.faults.lies;
        // A directory above those that the node uses has nothing to lose.
        let Some(dir) = volume.dirs.get_mut(dir) else { return Ok(()) };
        if !lies {
            dir.pending.clear();
            dir.durable.clone_from(&dir.now);
            volume.forget_nameless();
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut volume = self.volume()?;
        volume.dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    mount: Mount,
    file: u64,
    access: Access,
}

impl Handle {
    fn sync(&self) -> io::Result<()> {
        let mut volume = self.mount.volume()?;
        let failed = volume.fails();
        let lies = volume.faults.lies;
        let volume = &mut *volume;
        let content = volume.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if failed.is_err() {
            // Some of it may have arrived; the rest is forgotten, and no later sync brings it back.
            for sector in std::mem::take(&mut content.dirty) {
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(content.now.len()).min(content.durable.len());
                if from >= to {
                    continue;
                }
                if volume.dice.chance(1, 2) {
                    content.durable[from..to].copy_from_slice(&content.now[from..to]);
                } else {
                    content.now[from..to].copy_from_slice(&content.durable[from..to]);
                }
            }
            content.now.truncate(content.durable.len());
            return failed;
        }
        if lies {
            return Ok(());
        }
        content.durable.resize(content.now.len(), 0);
        for sector in std::mem::take(&mut content.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(content.now.len());
            if from < to {
                content.durable[from..to].copy_from_slice(&content.now[from..to]);
            }
        }
        Ok(())
    }
}

impl DiskFile for Handle {
    fn len(&self) -> io::Result<u64> {
        let volume = self.mount.volume()?;
        let content = volume.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let volume = self.mount.volume()?;
        let content = volume.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let from = content.now.get(at as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        assert_eq!(self.access, Access::Write, "only a file opened for writing is written");
        let mut volume = self.mount.volume()?;
        let failed = volume.fails();
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let short_ppm = volume.faults.short_ppm;
        let short = failed.is_err() || volume.dice.ppm(short_ppm);
        let at = at as usize;
        let mut count = if short { volume.dice.below(wanted as u64 + 1) as usize } else { wanted };
        if short {
            // A write stops between two sectors, as one that is interrupted stops between two pages.
            count = ((at + count) / SECTOR * SECTOR).saturating_sub(at);
            if count == 0 && failed.is_ok() {
                count = wanted;
            }
        }
        let len = volume.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?.now.len();
        if let Some(room) = volume.room {
            let grows = (at + count).saturating_sub(len) as u64;
            let free = room.saturating_sub(volume.used());
            if grows > free {
                count = (at + count.saturating_sub((grows - free) as usize)) / SECTOR * SECTOR;
                count = count.saturating_sub(at);
                if count == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
        }
        // What is written over is no longer flipped.
        volume.flips.retain(|flip| flip.file != self.file || !(at..at + count).contains(&flip.at));
        let content = volume.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if content.now.len() < at + count {
            content.now.resize(at + count, 0);
        }
        let mut place = at;
        for buffer in buffers {
            let part = buffer.len().min(at + count - place);
            content.now[place..place + part].copy_from_slice(&buffer[..part]);
            place += part;
        }
        if count > 0 {
            content.dirty.extend(at / SECTOR..=(at + count - 1) / SECTOR);
        }
        failed.map(|()| count)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut volume = self.mount.volume()?;
        let content = volume.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let (old, new) = (content.now.len(), bytes as usize);
        content.now.resize(new, 0);
        content.dirty.extend(old.min(new) / SECTOR..old.max(new).div_ceil(SECTOR));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> (SimDisk, Arc<dyn Disk>, PathBuf) {
        let disk = SimDisk::new(Dice::new(seed));
        let mount = disk.mount();
        let dir = PathBuf::from("/data");
        mount.create_dir(&dir).expect("a directory");
        (disk, mount, dir)
    }

    fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
        let file = disk.mount().open(path, Access::Read).expect("it is there");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        assert_eq!(file.read_at(&mut bytes, 0).expect("it reads"), bytes.len());
        bytes
    }

    #[test]
    fn what_was_synced_survives_a_power_cut_and_nothing_else_is_certain() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..200 {
            let (disk, mount, dir) = disk(seed);
            let path = dir.join("a");
            let file = mount.create(&path).expect("made");
            file.write_at(&[IoSlice::new(&[1; 4 * SECTOR])], 0).expect("written");
            file.sync_data().expect("synced");
            mount.sync_dir(&dir).expect("synced");
            file.write_at(&[IoSlice::new(&[2; 4 * SECTOR])], (2 * SECTOR) as u64).expect("written");
            disk.power_gone();
            let bytes = read(&disk, &path);
            assert_eq!(bytes[..2 * SECTOR], [1; 2 * SECTOR], "seed {seed}");
            for sector in bytes[2 * SECTOR..].chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
                *(if sector[0] == 2 { &mut kept } else { &mut lost }) += 1;
            }
        }
        assert!(lost > 50 && kept > 50, "{lost} sectors lost, {kept} kept");
    }

    #[test]
    fn a_name_is_durable_with_its_directory() {
        let mut lost = 0;
        for seed in 0..100 {
            let (disk, mount, dir) = disk(seed);
            let file = mount.create(&dir.join("a")).expect("made");
            file.write_at(&[IoSlice::new(b"x")], 0).expect("written");
            file.sync_all().expect("synced");
            disk.power_gone();
            lost += u32::from(disk.mount().open(&dir.join("a"), Access::Read).is_err());
        }
        assert!(lost > 10, "a file whose directory was not synced may be gone, {lost}");
    }

    #[test]
    fn a_killed_process_loses_nothing_and_its_handles_are_dead() {
        let (disk, mount, dir) = disk(1);
        let file = mount.create(&dir.join("a")).expect("made");
        file.write_at(&[IoSlice::new(b"seen")], 0).expect("written");
        disk.process_gone();
        assert!(file.write_at(&[IoSlice::new(b"gone")], 0).is_err());
        assert_eq!(read(&disk, &dir.join("a")), b"seen");
        assert!(!disk.is_synced(&dir, ".tmp"));
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_then_refuses() {
        let (disk, mount, dir) = disk(1);
        let file = mount.create(&dir.join("a")).expect("made");
        disk.set_room(Some(700));
        assert_eq!(file.write_at(&[IoSlice::new(&[1; 1600])], 0).expect("a part"), SECTOR);
        let error = file.write_at(&[IoSlice::new(&[1; 600])], 512).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.write_at(&[IoSlice::new(&[2; 512])], 0).expect("no room is needed"), SECTOR);
    }
}
