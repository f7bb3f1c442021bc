//! Replays real traffic against a venue and checks the outcome to the unit.
//!
//! - [`trace`]: a production LLM service's arrivals and token counts, through the OpenAI API, open loop.
//! - [`flow`]: real exchange order flow with the book after every message, through anything that is a market;
//!   [`door`] makes one of two binary sessions.
//!
//! The data is not part of this repository; [`data_dir`] says where it is looked for.

pub mod door;
pub mod flow;
pub mod trace;

use std::path::PathBuf;

/// The trace of requests, inside [`data_dir`].
pub const TRACE_FILE: &str = "azure2023_code.csv.xz";
/// The order flow's messages, inside [`data_dir`].
pub const MESSAGE_FILE: &str = "AAPL_2012-06-21_34200000_57600000_message_10.csv.gz";
/// The order flow's book after every message, inside [`data_dir`].
pub const BOOK_FILE: &str = "AAPL_2012-06-21_34200000_57600000_orderbook_10.csv.gz";

/// Where the real data is: `GRID_DATA` if set, else `../shared/data` beside the repository; `None` if not there.
#[must_use]
pub fn data_dir() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let dir = std::env::var_os("GRID_DATA").map_or_else(beside, PathBuf::from);
    dir.join(TRACE_FILE).exists().then_some(dir)
}

/// Why a file could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It could not be read or unpacked.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}
