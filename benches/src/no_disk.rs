//! A disk that is not there: it knows names and lengths, reads zeros, and takes every write and sync at once. A venue on it runs all its stages and
//! journals nothing, so what is left is the path itself.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_sequencer::{Access, Disk, DiskFile};

/// Names, and how long each file is.
#[derive(Debug, Default)]
pub struct NoDisk(Mutex<HashMap<PathBuf, Arc<AtomicU64>>>);

/// Of a file, all that is kept.
#[derive(Debug)]
struct Length(Arc<AtomicU64>);

impl NoDisk {
    /// One to hand around.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self::default())
    }

    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<AtomicU64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn none() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for NoDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files();
        let names = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        let length = self.files().get(path).cloned().ok_or_else(none)?;
        Ok(Box::new(Length(length)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let length = Arc::new(AtomicU64::new(0));
        self.files().insert(path.to_owned(), Arc::clone(&length));
        Ok(Box::new(Length(length)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let length = files.remove(from).ok_or_else(none)?;
        files.insert(to.to_owned(), length);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files().remove(path).map(drop).ok_or_else(none)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Length {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(at);
        let read = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer[..read].fill(0);
        Ok(read)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let written: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        self.0.fetch_max(at + written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}
