//! The gateway's line is the sequencer's: its inbound ring on the way in, one seat at its outbound ring on the way
//! out. Its view is a replica.

use std::net::SocketAddr;
use std::sync::Arc;

use grid_engine::{Engine, Entry, Event, Nanos, Seq, State};
use grid_replicator::Replica;
use grid_sequencer::{LeaderWatch, Output, OutputPoller, Polled, SubmitError, Submitter};

use crate::venue::{Line, LineError, View, Wake};

/// Blocks taken from the outbound ring at one time.
const BLOCKS: usize = 64;

/// The order path of a running sequencer.
pub struct LogLine {
    submitter: Submitter<Engine>,
    poller: OutputPoller<Engine>,
    leadership: LeaderWatch,
    leader: Box<dyn Fn() -> Option<SocketAddr> + Send>,
    taken: Vec<Arc<Output<Engine>>>,
    /// Commands are queued that the sequencer was not woken for yet.
    queued: bool,
}

impl std::fmt::Debug for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLine").field("leadership", &self.leadership).finish_non_exhaustive()
    }
}

impl LogLine {
    /// Joins both ends of a node's sequencer. `leader` says where the node that leads serves the binary protocol, as far as
    /// that is known; it is asked in the gateway's loop, rarely, and must not wait.
    pub fn new(
        submitter: Submitter<Engine>,
        poller: OutputPoller<Engine>,
        leadership: LeaderWatch,
        leader: impl Fn() -> Option<SocketAddr> + Send + 'static,
    ) -> Self {
        let taken = Vec::with_capacity(BLOCKS);
        Self { submitter, poller, leadership, leader: Box::new(leader), taken, queued: false }
    }
}

impl Line for LogLine {
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        self.queued = true;
        self.submitter.try_queue_within(entry, epoch).map_err(|error| match error {
            SubmitError::Full(_) => LineError::Full,
            SubmitError::TooLarge { .. } => LineError::TooLarge,
            SubmitError::Closed(_) => LineError::Closed,
            SubmitError::NotLeader(_) => LineError::NotLeader,
        })
    }

    fn submitted(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.submitter.wake();
        }
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &Event)) -> bool {
        let Polled::Some(count) = self.poller.poll(BLOCKS, &mut self.taken) else {
            return false;
        };
        for output in self.taken.drain(..) {
            let at = output.block.at();
            for (seq, event) in output.numbered() {
                each(seq, at, event);
            }
        }
        count == BLOCKS
    }

    fn wake_with(&mut self, wake: Wake) {
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::from(wake);
        self.poller.set_waker(Arc::clone(&wake));
        self.leadership.wake_with(wake);
    }

    fn epoch(&self) -> Option<u64> {
        self.leadership.epoch()
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        (self.leader)()
    }
}

impl View for Replica<Engine> {
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        Self::read(self, |engine| look(engine.state()))
    }

    fn applied(&self) -> Seq {
        Self::applied(self)
    }
}
