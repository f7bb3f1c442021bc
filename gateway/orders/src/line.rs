//! The gateway's line is the sequencer's: its inbound ring on the way in, one of its outbound lanes on the way
//! out. Its view is a replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grid_engine::{Engine, Entry, Event, Nanos, Seq, State};
use grid_replicator::Replica;
use grid_sequencer::{
    Hosted, LeaderWatch, Lender, Output, OutputPoller, Polled, StageName, Step, SubmitError, Submitter,
    ThreadLayout, ThreadPlan, Wait,
};

use crate::venue::{Line, LineError, View, Wake};

/// Blocks taken from the outbound lane at one time.
const BLOCKS: usize = 64;

/// The thread of a layout whose stages the gateway's thread should step instead: one that sleeps when it is idle, or that
/// has them all, would only be a hop between a frame and its report. One that spins on a core of its own is left alone.
#[must_use]
pub fn to_be_hosted(layout: &ThreadLayout) -> Option<&ThreadPlan> {
    let matcher = layout.threads.iter().find(|plan| plan.stages.contains(&StageName::Matcher))?;
    let spares_a_hop = matcher.wait == Wait::Park || matcher.stages.len() == StageName::ALL.len();
    spares_a_hop.then_some(matcher)
}

/// The order path of a running sequencer.
pub struct LogLine {
    submitter: Submitter<Engine>,
    poller: OutputPoller<Engine>,
    leadership: LeaderWatch,
    leader: Box<dyn Fn() -> Option<SocketAddr> + Send>,
    taken: Vec<Arc<Output<Engine>>>,
    /// Commands are queued that the sequencer was not woken for yet.
    queued: bool,
    lender: Option<Lender>,
    hosted: Option<Hosted>,
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
        Self {
            submitter,
            poller,
            leadership,
            leader: Box::new(leader),
            taken,
            queued: false,
            lender: None,
            hosted: None,
        }
    }

    /// Has the gateway's thread step the stages of the order path itself, see [`to_be_hosted`]: then a frame becomes a
    /// report without a hop between threads, or, where the journal has a thread of its own, with that one.
    #[must_use]
    pub fn hosting(mut self, lender: Option<Lender>) -> Self {
        self.lender = lender;
        self
    }
}

impl Line for LogLine {
    fn arrive(&mut self) {
        self.submitter.arrive();
    }

    #[inline]
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        let submitted = match &mut self.hosted {
            Some(hosted) => hosted.submit(&mut self.submitter, entry, epoch),
            None => {
                self.queued = true;
                self.submitter.try_queue_within(entry, epoch)
            }
        };
        submitted.map_err(|error| match error {
            SubmitError::Full(_) => LineError::Full,
            SubmitError::TooLarge { .. } => LineError::TooLarge,
            SubmitError::Closed(_) => LineError::Closed,
            SubmitError::NotLeader(_) => LineError::NotLeader,
        })
    }

    fn turn(&mut self) -> bool {
        let queued = std::mem::take(&mut self.queued);
        match &mut self.hosted {
            Some(hosted) => hosted.turn() == Step::Worked,
            None if queued => {
                self.submitter.wake();
                false
            }
            None => false,
        }
    }

    fn doze(&mut self, limit: Option<Duration>) -> Option<Duration> {
        match &mut self.hosted {
            Some(hosted) => hosted.doze(limit),
            None => limit,
        }
    }

    fn rouse(&mut self) {
        if let Some(hosted) = &mut self.hosted {
            hosted.rouse();
        }
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool {
        let Polled::Some(count) = self.poller.poll(BLOCKS, &mut self.taken) else {
            return false;
        };
        for output in self.taken.drain(..) {
            let at = output.block.at();
            for (seq, _, events) in output.by_command() {
                each(seq, at, events);
            }
        }
        count == BLOCKS
    }

    fn sent(&mut self) {
        self.poller.sent();
    }

    fn wake_with(&mut self, wake: Wake) {
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::from(wake);
        self.leadership.wake_with(Arc::clone(&wake));
        self.hosted = self.lender.take().and_then(|lender| lender.lend(Arc::clone(&wake)));
        match self.hosted {
            // What is published from now on is published by this thread, which polls behind it.
            Some(_) => wake(),
            None => self.poller.set_waker(wake),
        }
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
