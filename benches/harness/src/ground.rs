//! On what the files of a bench lie. A figure from memory says nothing about a disk, so every table names its ground.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What Linux calls memory that looks like a file system.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A directory for the files of one run, removed with them at the end.
#[derive(Debug)]
pub struct Ground {
    dir: TempDir,
    kind: &'static str,
}

impl Ground {
    /// A new directory under `parent`.
    ///
    /// # Errors
    /// What the system says.
    pub fn under(parent: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(parent)?;
        let dir = TempDir::with_prefix_in("grid-bench-", parent)?;
        let kind = rustix::fs::statfs(dir.path())?.f_type;
        Ok(Self { dir, kind: if kind == TMPFS_MAGIC { "tmpfs" } else { "real disk" } })
    }

    /// `tmpfs` or `real disk`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// A place in it.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
