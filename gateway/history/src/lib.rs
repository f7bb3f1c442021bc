//! What happened, kept for reading: orders, trades, transfers, issuances, usage, dollars in and out.
//!
//! The engine forgets an order when it closes; this store doesn't. It is fed by the replica, command by command, and
//! keeps the last log position in the same transaction as the rows, so that a restart goes on exactly where it stood:
//! what comes again is skipped, a skipped command is refused. It can be rebuilt from the log, so it decides nothing.
//!
//! A node that was brought up from another's snapshot does not have the whole log. What lies before is then a gap, on
//! record: reads leave out what it makes uncertain instead of telling half of it.
//!
//! One thread writes, many read, each on a connection of its own (SQLite in WAL mode).
//!
//! Beside it the names that both HTTP tiers tell it by: public ids, moments and decimal money.

mod calls;
pub mod decimal;
mod follow;
pub mod ids;
mod read;
pub mod time;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use grid_engine::{AccountId, Engine, Event, Nanos, Seq};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::watch;

pub use calls::{Stage, UsageFilter, UsagePage, UsageRow, UsageSum};
pub use follow::{Follower, follow};
pub use read::{
    Candle, ChargeRow, Fill, FillFilter, FundingRow, Gap, IssuanceRow, LotExpiry, OrderFilter, OrderRow,
    Rows, Since, Slice, SliceFrom, Tape, TransferFilter, TransferRow, Window,
};

/// What one command of the log did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its position.
    pub seq: Seq,
    /// Its stamp.
    pub at: Nanos,
    /// What it did, in order.
    pub events: Vec<Event>,
}

/// Where the store goes on when the log before cannot be read any more, and what was open there.
#[derive(Clone, Debug)]
pub struct Resumption {
    seq: Seq,
    at: Nanos,
    open: Vec<write::Resting>,
    offers: Vec<(AccountId, Vec<String>)>,
}

impl Resumption {
    /// At the state of this engine.
    #[must_use]
    pub fn at(engine: &Engine) -> Self {
        let state = engine.state();
        Self { seq: state.seq, at: state.now, open: write::resting(engine), offers: calls::offers_of(engine) }
    }

    /// The last command of the gap.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }
}

/// What the writer is handed.
enum Handed {
    Commands(Vec<Applied>),
    Resumption(Box<Resumption>),
}

/// What the tape is summed up by.
pub(crate) const MINUTE: Nanos = Nanos(60 * grid_engine::units::SECOND);
/// Batches that may wait for the writer. A full queue holds the replica back; it never loses a row.
const QUEUE_BATCHES: usize = 16_384;
/// Commands in one transaction.
const TRANSACTION_COMMANDS: usize = 8_192;
/// Open read connections kept for the next reader.
const READERS_KEPT: usize = 8;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite refused.
    #[error("history store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The feed skipped commands, so rows would be missing.
    #[error(
        "history store: the feed went from log position {stored} to {found}; delete the file and replay from the start"
    )]
    Gap {
        /// The last position stored.
        stored: u64,
        /// The position that came.
        found: u64,
    },
    /// The store knows more than the log: it belongs to another one, or the log is behind.
    #[error(
        "history store: it holds position {stored}, the log ends at {log}; it belongs to another log, delete the file"
    )]
    Ahead {
        /// The last position stored.
        stored: u64,
        /// The log's last position.
        log: u64,
    },
    /// What the store missed could not be read again.
    #[error("history store: {reason}")]
    Journal {
        /// Why.
        reason: String,
    },
    /// The system gave no thread, or would not let a file go.
    #[error("history store: {0}")]
    Io(#[from] std::io::Error),
    /// The writer has stopped.
    #[error("history store: the writer has stopped")]
    Stopped,
}

/// The store, to read. Clones share it.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    applied: watch::Receiver<u64>,
}

/// The way into the store, for whoever holds the committed log. Dropping the last clone ends the writer.
#[derive(Clone)]
pub struct Feed {
    queue: SyncSender<Handed>,
    stored: Seq,
}

/// The writer's thread, to be joined after the last [`Feed`] is dropped.
pub struct Writer {
    thread: JoinHandle<Result<(), HistoryError>>,
}

impl Feed {
    /// Hands over commands in log order. Blocks while the queue is full; errors once the writer has stopped.
    pub fn push(&self, batch: Vec<Applied>) -> Result<(), HistoryError> {
        self.queue.send(Handed::Commands(batch)).map_err(|_| HistoryError::Stopped)
    }

    /// Goes on behind commands that cannot be had any more, and puts the gap on record. Blocks and fails as
    /// [`Feed::push`] does.
    pub fn resume(&self, resumption: Resumption) -> Result<(), HistoryError> {
        self.queue.send(Handed::Resumption(Box::new(resumption))).map_err(|_| HistoryError::Stopped)
    }

    /// The last position that the store held when it was opened: the feed must start at the next one or before.
    #[must_use]
    pub const fn stored(&self) -> Seq {
        self.stored
    }
}

impl Writer {
    /// Waits until everything handed over is stored.
    pub fn join(self) -> Result<(), HistoryError> {
        self.thread.join().unwrap_or(Err(HistoryError::Stopped))
    }
}

impl History {
    /// Opens or creates the store and starts its writer.
    pub fn open(path: &Path) -> Result<(Self, Feed, Writer), HistoryError> {
        let mut store = write::Store::open(path)?;
        let stored = store.applied();
        let (queue, batches) = sync_channel(QUEUE_BATCHES);
        let (announce, applied) = watch::channel(stored.0);
        let thread = std::thread::Builder::new().name("history".into()).spawn(move || {
            let result = run(&mut store, &batches, &announce);
            if let Err(error) = &result {
                tracing::error!(%error, "the history store has stopped; reads of history will lag");
            }
            result
        })?;
        let shared = Shared { path: path.to_owned(), readers: Mutex::default(), applied };
        Ok((Self { shared: Arc::new(shared) }, Feed { queue, stored }, Writer { thread }))
    }

    /// The last position stored.
    #[must_use]
    pub fn applied(&self) -> Seq {
        Seq(*self.shared.applied.borrow())
    }

    /// Resolves once this position is stored; errors where the writer has stopped before.
    pub async fn wait_for(&self, seq: Seq) -> Result<(), HistoryError> {
        let mut applied = self.shared.applied.clone();
        let reached = applied.wait_for(|stored| *stored >= seq.0).await;
        reached.map(|_| ()).map_err(|_| HistoryError::Stopped)
    }

    /// Runs a query on a read connection, away from the async threads.
    async fn query<R: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, HistoryError> {
        let shared = Arc::clone(&self.shared);
        let joined = tokio::task::spawn_blocking(move || {
            let kept = shared.readers.lock().pop();
            let connection = match kept {
                Some(connection) => connection,
                None => read::open(&shared.path)?,
            };
            let result = query(&connection);
            let mut readers = shared.readers.lock();
            if readers.len() < READERS_KEPT {
                readers.push(connection);
            }
            Ok(result?)
        });
        joined.await.map_err(|_| HistoryError::Stopped)?
    }
}

/// The writer: takes what is waiting, stores it in one transaction, says how far it got.
fn run(
    store: &mut write::Store,
    handed: &Receiver<Handed>,
    announce: &watch::Sender<u64>,
) -> Result<(), HistoryError> {
    while let Ok(first) = handed.recv() {
        let (mut commands, mut next) = (Vec::new(), Some(first));
        while let Some(Handed::Commands(more)) = next {
            commands.extend(more);
            next = if commands.len() < TRANSACTION_COMMANDS { handed.try_recv().ok() } else { None };
        }
        let mut stored = store.append(&commands)?;
        if let Some(Handed::Resumption(resumption)) = next {
            stored = store.resume(&resumption)?;
        }
        announce.send_replace(stored.0);
    }
    Ok(())
}
