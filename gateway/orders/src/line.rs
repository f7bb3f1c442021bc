//! The gateway's line is the sequencer's: its inbound ring on the way in, one seat at its outbound ring on the way
//! out. Its view is a replica.

use std::sync::Arc;

use grid_engine::{Engine, Entry, Event, Nanos, Seq, State};
use grid_replicator::Replica;
use grid_sequencer::{Output, OutputPoller, Polled, SubmitError, Submitter};

use crate::venue::{Line, LineError, View, Wake};

/// Blocks taken from the outbound ring at one time.
const BLOCKS: usize = 64;

/// The order path of a running sequencer.
#[derive(Debug)]
pub struct LogLine {
    submitter: Submitter<Engine>,
    poller: OutputPoller<Engine>,
    taken: Vec<Arc<Output<Engine>>>,
}

impl LogLine {
    /// Joins both ends.
    pub fn new(submitter: Submitter<Engine>, poller: OutputPoller<Engine>) -> Self {
        Self { submitter, poller, taken: Vec::with_capacity(BLOCKS) }
    }
}

impl Line for LogLine {
    fn submit(&mut self, entry: Entry, _: u64) -> Result<(), LineError> {
        self.submitter.try_submit(entry).map_err(|error| match error {
            SubmitError::Full(_) => LineError::Full,
            SubmitError::TooLarge { .. } => LineError::TooLarge,
            SubmitError::Closed(_) | SubmitError::NotLeader(_) => LineError::Closed,
        })
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &Event)) -> bool {
        let Polled::Some(count) = self.poller.poll(BLOCKS, &mut self.taken) else {
            return false;
        };
        for output in self.taken.drain(..) {
            let at = output.block.at();
            for (seq, event) in &output.events {
                each(*seq, at, event);
            }
        }
        count == BLOCKS
    }

    fn wake_with(&mut self, wake: Wake) {
        self.poller.set_waker(Arc::from(wake));
    }

    /// One node that leads for as long as it runs.
    fn epoch(&self) -> Option<u64> {
        Some(1)
    }

    fn leader_hint(&self) -> Option<std::net::SocketAddr> {
        None
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
