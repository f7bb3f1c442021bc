//! What a commit cannot do without: one write of its bytes, and one fdatasync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::latencies::histogram;
use crate::rounds::nanos;

/// Bytes of the file, filled with zeros before, as a segment of a journal is: a sync then has no size to make durable.
const FILE_BYTES: usize = 32 << 20;

/// A file that is written and synced from its start to its end, over and over.
#[derive(Debug)]
pub struct BareWrites {
    file: File,
    at: usize,
    bytes: Vec<u8>,
}

impl BareWrites {
    /// A file at `path` for writes of so many `bytes`, at most 1 MiB.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(path: &Path, bytes: usize) -> io::Result<Self> {
        std::fs::write(path, vec![0; FILE_BYTES])?;
        let file = File::options().write(true).open(path)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, bytes: vec![0xa5; bytes.clamp(1, 1 << 20)] })
    }

    /// One write and one fdatasync; how long both took.
    ///
    /// # Errors
    /// What the system says.
    pub fn commit(&mut self) -> io::Result<Duration> {
        let begin = Instant::now();
        self.file.write_all_at(&self.bytes, self.at as u64)?;
        self.file.sync_data()?;
        let took = begin.elapsed();
        self.at = (self.at + self.bytes.len()) % (FILE_BYTES - self.bytes.len());
        Ok(took)
    }

    /// What `commits` commits in a row took each, in nanoseconds.
    ///
    /// # Errors
    /// What the system says.
    pub fn round(&mut self, commits: u64) -> io::Result<Histogram<u64>> {
        let mut record = histogram();
        for _ in 0..commits {
            record.saturating_record(nanos(self.commit()?));
        }
        Ok(record)
    }
}

/// The same by a thread that sleeps until it is asked, and then wakes whoever asked: what a commit cannot do without where the one who
/// asks does not wait for the disk himself.
#[derive(Debug)]
pub struct AskedWrites {
    ask: SyncSender<()>,
    answer: Receiver<io::Result<Duration>>,
}

impl AskedWrites {
    /// Has a thread write what `bare` writes.
    #[must_use]
    pub fn new(mut bare: BareWrites) -> Self {
        let ((ask, asked), (answers, answer)) = (sync_channel(1), sync_channel(1));
        std::thread::spawn(move || while asked.recv().is_ok() && answers.send(bare.commit()).is_ok() {});
        Self { ask, answer }
    }

    /// One write and one fdatasync, from the question to the answer; how long that took.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If the thread did.
    pub fn commit(&mut self) -> io::Result<Duration> {
        let begin = Instant::now();
        self.ask.send(()).expect("the thread waits for questions");
        self.answer.recv().expect("the thread answers each")?;
        Ok(begin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_on_where_the_last_one_ended_and_around() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bare = BareWrites::new(&dir.path().join("bare"), 1 << 20).expect("it is made");
        assert_eq!(bare.round(40).expect("it writes").len(), 40, "more than the file is long");
    }

    #[test]
    fn whoever_asks_hears_when_it_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("asked");
        let mut asked = AskedWrites::new(BareWrites::new(&path, 64).expect("it is made"));
        for count in 1..=3 {
            asked.commit().expect("it writes");
            let bytes = std::fs::read(&path).expect("it is there");
            assert_eq!(bytes.iter().rposition(|byte| *byte != 0), Some(64 * count - 1));
        }
    }
}
