//! What committed blocks did, handed to whoever keeps something beside the machine: history, market data, metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use grid_sequencer::{Machine, Output, Position};

/// What happens to a subscriber that is a whole queue behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The replica waits for it, and in the end the venue does. For the one that must not miss anything and is always fast.
    Wait,
    /// It gets what is in its queue and then [`SubscriptionEnd::Lagged`]; it can read the rest with
    /// `grid_sequencer::replay_events` and subscribe again.
    Drop,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnd {
    /// The venue has stopped; everything was delivered.
    #[error("the venue has stopped")]
    Stopped,
    /// The subscriber was too slow and has been dropped; something is missing from here on.
    #[error("the subscriber fell behind and has been dropped")]
    Lagged,
}

/// A bounded queue of outputs, in log order, without a gap from [`Subscription::after`] on.
#[derive(Debug)]
pub struct Subscription<M: Machine> {
    after: Position,
    queue: Receiver<Arc<Output<M>>>,
    lagged: Arc<AtomicBool>,
}

impl<M: Machine> Subscription<M> {
    /// Where the replica stood when this began: the first output is the next after it.
    #[must_use]
    pub fn after(&self) -> Position {
        self.after
    }

    /// Waits for the next output.
    ///
    /// # Errors
    /// [`SubscriptionEnd`] once nothing more comes.
    pub fn recv(&self) -> Result<Arc<Output<M>>, SubscriptionEnd> {
        self.queue.recv().map_err(|_| self.end())
    }

    /// Waits for the next output, but not longer than `limit`; `None` if that has passed.
    ///
    /// # Errors
    /// [`SubscriptionEnd`] once nothing more comes.
    pub fn recv_timeout(&self, limit: Duration) -> Result<Option<Arc<Output<M>>>, SubscriptionEnd> {
        match self.queue.recv_timeout(limit) {
            Ok(output) => Ok(Some(output)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.end()),
        }
    }

    /// The next output if there is one now.
    ///
    /// # Errors
    /// [`SubscriptionEnd`] once nothing more comes.
    pub fn try_recv(&self) -> Result<Option<Arc<Output<M>>>, SubscriptionEnd> {
        match self.queue.try_recv() {
            Ok(output) => Ok(Some(output)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.end()),
        }
    }

    fn end(&self) -> SubscriptionEnd {
        if self.lagged.load(Ordering::Acquire) { SubscriptionEnd::Lagged } else { SubscriptionEnd::Stopped }
    }
}

type Callback<M> = Box<dyn FnMut(&Arc<Output<M>>) + Send>;

/// The replica's end of a subscription.
pub(crate) enum Listener<M: Machine> {
    Queue { queue: Sender<Arc<Output<M>>>, lagged: Arc<AtomicBool>, overflow: Overflow },
    Callback(Callback<M>),
}

pub(crate) fn subscription<M: Machine>(
    capacity: usize,
    overflow: Overflow,
    after: Position,
) -> (Listener<M>, Subscription<M>) {
    let (sender, queue) = bounded(capacity.max(1));
    let lagged = Arc::new(AtomicBool::new(false));
    let listener = Listener::Queue { queue: sender, lagged: Arc::clone(&lagged), overflow };
    (listener, Subscription { after, queue, lagged })
}

impl<M: Machine> Listener<M> {
    /// Hands an output over; `false` if this listener is to be forgotten.
    pub(crate) fn tell(&mut self, output: &Arc<Output<M>>) -> bool {
        match self {
            Self::Callback(callback) => {
                callback(output);
                true
            }
            Self::Queue { queue, overflow: Overflow::Wait, .. } => queue.send(Arc::clone(output)).is_ok(),
            Self::Queue { queue, lagged, overflow: Overflow::Drop } => {
                match queue.try_send(Arc::clone(output)) {
                    Ok(()) => true,
                    Err(TrySendError::Disconnected(_)) => false,
                    Err(TrySendError::Full(_)) => {
                        lagged.store(true, Ordering::Release);
                        tracing::warn!(
                            index = output.block.index(),
                            "a subscriber fell a whole queue behind and is dropped"
                        );
                        false
                    }
                }
            }
        }
    }
}
