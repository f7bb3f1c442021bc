//! The gateway's line is the sequencer's: its inbound ring on the way in, one seat at its outbound ring on the way
//! out. Its view is a replica.

use std::net::SocketAddr;
use std::sync::Arc;

use grid_engine::{Engine, Entry, Event, Nanos, Seq, State};
use grid_replicator::Replica;
use grid_sequencer::{LeaderWatch, NodeId, Output, OutputPoller, Polled, SubmitError, Submitter};

use crate::venue::{Line, LineError, View, Wake};

/// Blocks taken from the outbound ring at one time.
const BLOCKS: usize = 64;

/// The order path of a running sequencer.
pub struct LogLine {
    submitter: Submitter<Engine>,
    poller: OutputPoller<Engine>,
    leadership: LeaderWatch,
    addresses: Box<dyn Fn(NodeId) -> Option<SocketAddr> + Send>,
    taken: Vec<Arc<Output<Engine>>>,
}

impl std::fmt::Debug for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLine").field("leadership", &self.leadership).finish_non_exhaustive()
    }
}

impl LogLine {
    /// Joins both ends of one node's sequencer. Clients of other nodes are told no address, for lack of one.
    pub fn new(submitter: Submitter<Engine>, poller: OutputPoller<Engine>, leadership: LeaderWatch) -> Self {
        let addresses = Box::new(|_| None);
        Self { submitter, poller, leadership, addresses, taken: Vec::with_capacity(BLOCKS) }
    }

    /// Looks up here where a node serves the binary protocol, to tell clients; it is asked in the gateway's loop and must
    /// not wait.
    #[must_use]
    pub fn with_addresses(self, addresses: impl Fn(NodeId) -> Option<SocketAddr> + Send + 'static) -> Self {
        Self { addresses: Box::new(addresses), ..self }
    }
}

impl Line for LogLine {
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        self.submitter.try_submit_within(entry, epoch).map_err(|error| match error {
            SubmitError::Full(_) => LineError::Full,
            SubmitError::TooLarge { .. } => LineError::TooLarge,
            SubmitError::Closed(_) => LineError::Closed,
            SubmitError::NotLeader(_) => LineError::NotLeader,
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
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::from(wake);
        self.poller.set_waker(Arc::clone(&wake));
        self.leadership.wake_with(wake);
    }

    fn epoch(&self) -> Option<u64> {
        self.leadership.epoch()
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        self.leadership.leader().and_then(&self.addresses)
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
