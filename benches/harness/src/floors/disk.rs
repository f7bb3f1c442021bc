//! What a commit cannot do without: one write of its bytes, and one fdatasync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_on_where_the_last_one_ended_and_around() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bare = BareWrites::new(&dir.path().join("bare"), 1 << 20).expect("it is made");
        assert_eq!(bare.round(40).expect("it writes").len(), 40, "more than the file is long");
    }
}
