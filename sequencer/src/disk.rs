//! The disk, as little of it as journal, snapshots and recovery use. Everything they do to files goes through here, so that
//! the simulator and the tests can put a disk of their own below the production code: one that forgets what was not synced,
//! tears writes, runs full, or answers late.
//!
//! Not here: retries. After a failed write or sync nobody knows what the disk holds, so whoever gets an error stops.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, unbounded};

/// Most buffers that the kernel takes in one vectored write.
const WRITE_BUFFERS: usize = 1024;

/// A file system.
///
/// What a crash may undo: bytes since the file's last sync; creations, renames and removals since the directory's.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The names of the files in a directory, in any order.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing, or for reading only.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Makes an empty file for reading and writing, in place of one of that name.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of one that has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: creating, renaming and removing change the directory, not the file.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, where missing.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock that keeps a second process out, until the answer is dropped; `None` if somebody else has it.
    ///
    /// # Errors
    /// What the system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let _ = path;
        Ok(Some(Box::new(())))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look at it.
    Read,
    /// To write into it too.
    Write,
}

/// An open file. Places are bytes from its start.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Reads into `buffer`, perhaps less than fits; 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes the buffers one after the other, perhaps only the first so many bytes of them, and says how many.
    ///
    /// # Errors
    /// What the system says; any part may have been written then.
    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize>;

    /// Makes its bytes durable, and its size if that is needed to read them.
    ///
    /// # Errors
    /// What the system says; nobody knows what is durable then.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes its bytes and everything about it durable.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts it off, or makes it longer with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// A lock that is held until this is dropped.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// No lock: on a disk that nobody else can see.
impl DiskLock for () {}

impl dyn DiskFile + '_ {
    /// Writes all of the buffers, in as many calls as it takes; one, unless the disk does less than it was asked to.
    pub(crate) fn write_all_at(&self, buffers: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut left = buffers;
        let mut at = at;
        // Without anything in front that has no bytes: an empty write says nothing about room.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.write_at(left, at)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
            }
        }
        Ok(())
    }

    /// Writes one run of bytes, as [`DiskFile::write_at`] takes several.
    pub(crate) fn write_bytes_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(&mut [IoSlice::new(bytes)], at)
    }

    /// Fills the buffer, or says `UnexpectedEof`.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self.read_most_at(buffer, at)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Fills the buffer as far as the file reaches, and says how far that is.
    pub(crate) fn read_most_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// As a [`Disk`] to hand around.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // Names that are no text are none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Held for its lock, which the system releases however the process ends.
#[derive(Debug)]
struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    /// Unlocks in so many words: closing would not, while a child that is just being started still shares the file.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(WRITE_BUFFERS)];
        loop {
            match rustix::io::pwritev(&self.0, buffers, at) {
                Err(rustix::io::Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

/// Something that can be done beside the order path.
pub type Job = Box<dyn FnOnce() + Send>;

/// Who does what the order path must not wait for: filling the next segment with zeros, removing old ones.
pub trait Background: Send + Sync + fmt::Debug {
    /// Sees the job done, now or soon, in the order given.
    fn run(&self, job: Job);
}

/// Does each job at once, on the caller's thread: for the simulator and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Background for Inline {
    fn run(&self, job: Job) {
        job();
    }
}

/// Does the jobs one after the other on a thread of its own, which starts with the first and ends when this is dropped.
#[derive(Debug)]
pub struct SideThread {
    name: &'static str,
    running: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
}

impl SideThread {
    /// With the thread's name to be.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, running: Mutex::new(None) }
    }
}

impl Background for SideThread {
    /// # Panics
    /// If the system gives no thread: a fault, as the order path cannot go on without.
    fn run(&self, job: Job) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (jobs, _) = running.get_or_insert_with(|| {
            let (jobs, work) = unbounded::<Job>();
            let body = move || work.iter().for_each(|job| job());
            let thread = std::thread::Builder::new().name(self.name.to_owned()).spawn(body);
            (jobs, thread.expect("the system gives a thread"))
        });
        let sent = jobs.send(job);
        assert!(sent.is_ok(), "the side thread runs until this is dropped");
    }
}

impl Drop for SideThread {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((jobs, thread)) = running.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}
