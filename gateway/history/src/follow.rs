//! The history kept in step with a replica: what it misses is read again from the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use grid_engine::{Engine, Event, Nanos, Seq};
use grid_replicator::{Overflow, Replica, Subscription, SubscriptionEnd};
use grid_sequencer::{Output, RecoverError};

use crate::{Applied, Feed, History, HistoryError, Resumption, Writer};

/// Committed blocks that may wait for the history; beyond it they are read again from the journal.
const BLOCKS_QUEUED: usize = 16_384;
/// Commands read again from the journal that are handed over together.
const REPLAY_BATCH: usize = 4_096;

/// What keeps a history in step with the log. It ends when the venue does.
pub struct Follower {
    thread: JoinHandle<Result<(), HistoryError>>,
    writer: Writer,
}

impl Follower {
    /// Waits until everything that was committed is stored; call it after the venue was shut down.
    pub fn join(self) -> Result<(), HistoryError> {
        let fed = self.thread.join().unwrap_or(Err(HistoryError::Stopped));
        self.writer.join().and(fed)
    }
}

/// Opens the history at `store` and keeps it in step with a replica. What it missed while it was not running, or when
/// it fell behind, it reads again from the journal in `data_dir`; it never holds the replica back. Where that journal
/// does not reach back so far, because this node was brought up from another's snapshot, a gap goes on record.
///
/// # Errors
/// [`HistoryError`]; of these [`HistoryError::Ahead`] may pass: a node that was restarted may find out only from the others
/// that the last blocks in its log, which its history has heard of, are committed.
pub fn follow(
    store: &Path,
    replica: &Replica<Engine>,
    data_dir: &Path,
) -> Result<(History, Follower), HistoryError> {
    let (history, feed, writer) = History::open(store)?;
    let subscription = replica.subscribe(BLOCKS_QUEUED, Overflow::Drop);
    let (stored, log) = (feed.stored(), subscription.after().seq);
    if stored > log {
        return Err(HistoryError::Ahead { stored: stored.0, log: log.0 });
    }
    let (replica, data_dir) = (replica.clone(), data_dir.to_owned());
    let thread = std::thread::Builder::new().name("history-feed".into()).spawn(move || {
        let mut pump = Pump { pushed: feed.stored(), feed, data_dir };
        let result = pump.run(&replica, subscription);
        if let Err(error) = &result {
            tracing::error!(%error, "the history no longer follows the log");
        }
        result
    })?;
    Ok((history, Follower { thread, writer }))
}

struct Pump {
    feed: Feed,
    /// The last command handed over.
    pushed: Seq,
    data_dir: PathBuf,
}

impl Pump {
    fn run(&mut self, replica: &Replica<Engine>, first: Subscription<Engine>) -> Result<(), HistoryError> {
        let mut subscription = first;
        loop {
            let after = subscription.after().seq;
            if self.pushed < after {
                self.catch_up(replica, after)?;
            }
            loop {
                match subscription.recv() {
                    Ok(output) => self.push(batch(&output))?,
                    Err(SubscriptionEnd::Lagged) => break,
                    Err(SubscriptionEnd::Stopped) => return Ok(()),
                }
            }
            subscription = replica.subscribe(BLOCKS_QUEUED, Overflow::Drop);
        }
    }

    fn push(&mut self, commands: Vec<Applied>) -> Result<(), HistoryError> {
        if let Some(last) = commands.last() {
            self.pushed = self.pushed.max(last.seq);
            self.feed.push(commands)?;
        }
        Ok(())
    }

    /// Hands over what followed the last command handed over, up to and including `until`, as far as it can be had.
    fn catch_up(&mut self, replica: &Replica<Engine>, until: Seq) -> Result<(), HistoryError> {
        let mut gap = None;
        while self.pushed < until {
            let looked_at = gap.as_ref().map_or(self.pushed, |gap: &Missed| gap.next.seq());
            let Some(reason) = self.read_again(gap.take(), until)? else {
                return Ok(());
            };
            match self.next_state(looked_at.max(self.pushed), until) {
                Some(next) => gap = Some(Missed { next, reason }),
                None => self.pass_over(Missed { next: replica.read(Resumption::at), reason })?,
            }
        }
        Ok(())
    }

    /// Puts a gap on record.
    fn pass_over(&mut self, Missed { next, reason }: Missed) -> Result<(), HistoryError> {
        tracing::warn!(
            after = self.pushed.0,
            until = next.seq().0,
            %reason,
            "the history has a gap: the journal here does not reach back so far"
        );
        self.pushed = next.seq();
        self.feed.resume(next)
    }

    /// The state of the oldest snapshot behind `after`: from there on the journal may be whole.
    fn next_state(&self, after: Seq, until: Seq) -> Option<Resumption> {
        let snapshots = grid_sequencer::SnapshotStore::new(grid_sequencer::snapshot_dir(&self.data_dir));
        let paths = snapshots.list().ok()?;
        let positions = paths.iter().filter_map(|path| Some(snapshots.read_meta(path).ok()?.0.position.seq));
        let mut useful: Vec<Seq> = positions.filter(|seq| after < *seq && *seq <= until).collect();
        useful.sort_unstable();
        useful.into_iter().find_map(|seq| {
            let at = |_: Seq, _: Nanos, _: &[Event]| {};
            let state =
                grid_sequencer::replay_events::<Engine>(&self.data_dir, seq, seq, Engine::new, at).ok()?;
            (state.position.seq == seq).then(|| Resumption::at(&state.machine))
        })
    }

    /// Hands over what the journal holds after the last command handed over, or after a gap, up to and including `until`; or
    /// says why it does not reach back so far.
    ///
    /// A gap goes on record only with what was read behind it: the snapshot at its end may have been removed meanwhile, as
    /// the oldest one is with each new one, and without it the journal can't be read from there.
    fn read_again(
        &mut self,
        mut gap: Option<Missed>,
        until: Seq,
    ) -> Result<Option<RecoverError>, HistoryError> {
        let (mut commands, mut failed) = (Vec::with_capacity(REPLAY_BATCH), None);
        let (data_dir, from) =
            (self.data_dir.clone(), gap.as_ref().map_or(self.pushed, |gap| gap.next.seq()));
        let mut sink = |seq: Seq, at: Nanos, events: &[Event]| {
            if failed.is_some() {
                return;
            }
            commands.push(Applied { seq, at, events: events.to_vec() });
            if commands.len() == REPLAY_BATCH {
                failed = self.push_behind(&mut gap, std::mem::take(&mut commands)).err();
            }
        };
        let replayed =
            grid_sequencer::replay_events::<Engine>(&data_dir, from, until, Engine::new, &mut sink);
        if let Some(error) = failed {
            return Err(error);
        }
        if replayed.is_ok() || !commands.is_empty() {
            self.push_behind(&mut gap, commands)?;
        }
        use grid_sequencer::JournalError::{Foreign, Missing, NeedsSnapshot};
        match replayed {
            Ok(_) => Ok(None),
            Err(error @ RecoverError::Journal(Foreign { .. } | Missing { .. } | NeedsSnapshot { .. })) => {
                Ok(Some(error))
            }
            Err(error) => Err(HistoryError::Journal { reason: error.to_string() }),
        }
    }

    fn push_behind(&mut self, gap: &mut Option<Missed>, commands: Vec<Applied>) -> Result<(), HistoryError> {
        gap.take().map_or(Ok(()), |gap| self.pass_over(gap))?;
        self.push(commands)
    }
}

/// Commands that cannot be had any more.
struct Missed {
    /// The state behind them.
    next: Resumption,
    reason: RecoverError,
}

/// What each command of a block did; commands without events too, so that the store sees no gap.
fn batch(output: &Arc<Output<Engine>>) -> Vec<Applied> {
    let at = output.block.at();
    output.by_command().map(|(seq, _, events)| Applied { seq, at, events: events.to_vec() }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use grid_engine::command::{Command, Entry};
    use grid_replicator::ReplicaConfig;
    use grid_sequencer::{JournalConfig, Sequencer};

    /// A log of which no snapshot is there, and not the beginning either; gives its last command.
    fn log_without_its_beginning(data: &Path) -> Seq {
        let journal = JournalConfig { segment_bytes: 96 << 10, ..JournalConfig::default() };
        let recovered = grid_sequencer::recover(data, journal, Engine::new, |_| {}).expect("a log");
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let config = grid_sequencer::Config::new(&["replica"]);
        let mut log = Sequencer::start(recovered, config).expect("a sequencer");
        let outputs = log.take_output("replica").expect("configured");
        let (replica, following) =
            Replica::start(copy, position, outputs, ReplicaConfig::default()).expect("a replica");
        let segments = || {
            let files = std::fs::read_dir(data.join("journal")).expect("a directory");
            let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
            files.sort();
            files
        };
        while segments().len() < 3 {
            let next = replica.applied().next();
            log.submitter().try_submit(Entry::venue(Command::Tick)).expect("room");
            replica.wait_for_blocking(next, Duration::from_secs(60)).expect("applied");
        }
        let last = replica.applied();
        log.shutdown();
        following.join();
        std::fs::remove_file(&segments()[0]).expect("removed");
        last
    }

    #[tokio::test]
    async fn a_gap_goes_on_record_only_with_what_was_read_behind_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (data, store) = (directory.path().join("log"), directory.path().join("history.db"));
        let last = log_without_its_beginning(&data);
        let (history, feed, writer) = History::open(&store).expect("a history");
        let mut pump = Pump { feed, pushed: Seq(0), data_dir: data };
        let mut engine = Engine::new();
        for seq in 1..=5 {
            engine.apply(Seq(seq), Nanos(seq), &Entry::venue(Command::Tick), &mut Vec::new());
        }
        let gap = |reason| Missed { next: Resumption::at(&engine), reason };
        let reason = pump.read_again(None, last).expect("a read").expect("the beginning is not there");
        // The snapshot that it was to end with is gone, so nothing can be read behind it.
        let reason = pump.read_again(Some(gap(reason)), last).expect("a read").expect("it is as before");
        assert_eq!(pump.pushed, Seq(0));
        pump.pass_over(gap(reason)).expect("on record");
        assert_eq!(pump.pushed, Seq(5));
        drop(pump);
        writer.join().expect("all is stored");
        assert_eq!(history.gaps().await.expect("a read").len(), 1, "the one that was passed over");
    }
}
