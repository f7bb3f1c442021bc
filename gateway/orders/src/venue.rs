//! The two sides of the log as the gateway sees them: a line to put commands in, from which committed events
//! come back, and a view of the state for everything that is not on the order path.

use std::net::SocketAddr;
use std::time::Duration;

use grid_engine::{Entry, Event, Nanos, Seq, State};

/// Why a command was not taken into the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// No room just now.
    Full,
    /// Larger than the log takes.
    TooLarge,
    /// The venue is shutting down.
    Closed,
    /// The epoch named is over: another node leads, or none, or this one anew.
    NotLeader,
}

/// Wakes the gateway's thread.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// The order path: commands in, committed events out.
pub trait Line: Send + 'static {
    /// What is put in line from now on, until this is called again, has arrived now.
    fn arrive(&mut self) {}

    /// Puts a command in line, or refuses it whole; never waits. It enters the log within this epoch or not at all,
    /// so that a client's later command cannot come before an earlier one that was lost with a leadership.
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError>;

    /// The commands of this turn are all in line. A line that is woken only now is woken once for all of them; one that
    /// does its work on this very thread does it now, and their events are there to be polled. Whether it did any.
    fn turn(&mut self) -> bool {
        false
    }

    /// The caller is about to sleep for `limit` at most, `None` for ever; the answer is how long it may.
    fn doze(&mut self, limit: Option<Duration>) -> Option<Duration> {
        limit
    }

    /// The caller has slept, and is awake.
    fn rouse(&mut self) {}

    /// Hands on what each committed command brought about, in log order, with the command's number and stamp, block by block up
    /// to some bound of its own; whether there may be more. A block's commands are never parted between two calls.
    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool;

    /// What was polled has been written to those whom it concerns, as far as their sockets took it.
    fn sent(&mut self) {}

    /// Has `wake` called whenever there is something new to poll, or another epoch or leader.
    fn wake_with(&mut self, wake: Wake);

    /// The term in which this node leads, once it has applied an entry of that very term; `None` while it does not
    /// lead. Every event of an earlier term is there to be polled when this first names a term.
    fn epoch(&self) -> Option<u64>;

    /// Where the node that leads serves the binary protocol, as far as is known here.
    fn leader_hint(&self) -> Option<SocketAddr>;
}

/// The state at some known point of the log, behind the order path.
pub trait View: Send + Sync + 'static {
    /// Looks at the state.
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R;

    /// The last command applied in it.
    fn applied(&self) -> Seq;
}

impl<V: View> View for std::sync::Arc<V> {
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        (**self).read(look)
    }

    fn applied(&self) -> Seq {
        (**self).applied()
    }
}
