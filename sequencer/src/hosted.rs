//! The threads of a layout, and how one of them lends its stages to a host that has an event loop of its own.
//!
//! A stage is stepped by whoever holds it. At first that is a thread of the layout. A host, such as the order gateway's loop,
//! may borrow those of the matcher's thread from the [`Lender`] and step them between its reads and its
//! writes: with the layout `fused` the whole order path then is on the host's thread, without a hop, a wake-up or a
//! contended lock between a frame and its report; with `parked` the journal stays on a thread of its own. The lending thread
//! waits meanwhile and goes on when the host gives the stages back, so a host may end at any time.
//!
//! ```text
//! let mut hosted = handle.lender().lend(waker)?;   // waker: ends the poll below, from any thread
//! loop {
//!     let limit = hosted.doze(own_limit);          // ZERO if a stage has work
//!     poll.poll(&mut events, limit)?;
//!     hosted.rouse();
//!     read_and_submit();                           // hosted.submit(): past the ring
//!     hosted.turn();                               // sequence, journal, match: outputs are there when this returns
//!     write_reports();
//! }
//! ```

use std::fmt;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::doorbell::{Doorbell, Sleeper};
use crate::fault;
use crate::inbound::{SubmitError, Submitter};
use crate::layout::{Stage, Step, ThreadPlan, drive, patience, turn};
use crate::machine::Machine;
use crate::outbound::Waker;
use crate::stages::Pending;
use crate::sync::{Arc, AtomicBool, Ordering};

/// What goes from hand to hand.
struct Held {
    stages: Vec<Box<dyn Stage>>,
    sleeper: Sleeper,
}

/// Lends the stages of the matcher's thread to a host: from [`Handle::lender`](crate::Handle::lender).
#[derive(Clone)]
pub struct Lender {
    called: Arc<AtomicBool>,
    bell: Arc<Doorbell>,
    lent: Receiver<Held>,
    back: Sender<Held>,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").finish_non_exhaustive()
    }
}

impl Lender {
    /// Waits until the thread has ended its turn and hands its stages over: all of them with the layout `fused`, all but the
    /// journal with `paired` and `parked`. `waker` must end the host's sleep, from any thread. `None` if another host has
    /// them, or they have ended.
    #[must_use]
    pub fn lend(&self, waker: Waker) -> Option<Hosted> {
        if self.called.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.bell.ring();
        let held = self.lent.recv().ok()?;
        held.sleeper.bell().set_waker(Some(waker));
        Some(Hosted { held: Some(held), back: self.back.clone() })
    }
}

/// The stages of one thread in the hands of a host, see [`Lender::lend`]. Dropping it gives them back.
///
/// Whoever holds this must step it often or give it back: nothing is sequenced or matched meanwhile. Give it back before
/// [`Handle::shutdown`](crate::Handle::shutdown).
pub struct Hosted {
    held: Option<Held>,
    back: Sender<Held>,
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").finish_non_exhaustive()
    }
}

impl Hosted {
    fn held(&mut self) -> &mut Held {
        self.held.as_mut().expect("held until dropped")
    }

    /// Steps each stage once, in the order of the path: with all of them here, what was submitted before is published after.
    /// [`Step::Done`] once all have ended. With the journal here this waits for the disk.
    pub fn turn(&mut self) -> Step {
        let stages = &mut self.held().stages;
        let worked = fault::abort_on_panic("a hosted stage", || turn(stages, |_| true));
        match (worked, stages.is_empty()) {
            (_, true) => Step::Done,
            (true, false) => Step::Worked,
            (false, false) => Step::Idle,
        }
    }

    /// Hands a command in, as [`Submitter::try_queue_within`] does, for the next [`Hosted::turn`]. A sequencer that is stepped here takes it
    /// straight into a block: no ring, no copy and no lock are in between. So what the host handed in before through a ring
    /// must be in the log by now, or may come behind this.
    ///
    /// # Errors
    /// [`SubmitError`] with the command.
    #[inline]
    pub fn submit<M: Machine>(
        &mut self,
        submitter: &mut Submitter<M>,
        command: M::Command,
        epoch: u64,
    ) -> Result<(), SubmitError<M::Command>> {
        let inlet = self.held().stages.iter_mut().find_map(|stage| stage.inlet());
        match inlet.and_then(|inlet| inlet.downcast_mut::<Pending<M::Command>>()) {
            Some(pending) => submitter.put_into(pending, command, epoch),
            None => submitter.try_submit_within(command, epoch),
        }
    }

    /// Call this last before the host sleeps in its own way, for at most the answer; `limit` is what it would sleep otherwise, `None`
    /// for ever. From now on until [`Hosted::rouse`] the waker is called for whatever the stages have to do.
    pub fn doze(&mut self, limit: Option<Duration>) -> Option<Duration> {
        let Held { stages, sleeper } = self.held();
        if !sleeper.doze(|| stages.iter().any(|stage| stage.has_work())) {
            return Some(Duration::ZERO);
        }
        match (limit, patience(stages)) {
            (Some(limit), Some(patience)) => Some(limit.min(patience)),
            (limit, patience) => limit.or(patience),
        }
    }

    /// Call this first after the host has slept: it is awake and needs no waker.
    pub fn rouse(&mut self) {
        self.held().sleeper.rouse();
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.sleeper.rouse();
            held.sleeper.bell().set_waker(None);
            // If the thread is gone, so is the venue.
            let _ = self.back.send(held);
        }
    }
}

/// A thread of the layout and the way to its stages.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) plan: ThreadPlan,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) lender: Lender,
}

/// Starts a thread of the layout over its stages.
pub(crate) fn run_thread(
    plan: ThreadPlan,
    stages: Vec<Box<dyn Stage>>,
    sleeper: Sleeper,
    bell: Arc<Doorbell>,
) -> std::io::Result<Running> {
    let (lend, lent) = bounded(1);
    let (back, given_back) = bounded(1);
    let called = Arc::new(AtomicBool::new(false));
    let lender = Lender { called: Arc::clone(&called), bell, lent, back };
    let of_thread = plan.clone();
    let thread = std::thread::Builder::new().name(plan.name.clone()).spawn(move || {
        fault::abort_on_panic(&of_thread.name, || {
            pin(&of_thread);
            let mut held = Held { stages, sleeper };
            while !drive(&mut held.stages, of_thread.wait, &held.sleeper, &called) {
                // Both ends live as long as the handle, which joins this thread before it goes.
                let Ok(()) = lend.send(held) else { return };
                let Ok(returned) = given_back.recv() else { return };
                held = returned;
                called.store(false, Ordering::Release);
            }
        });
    })?;
    Ok(Running { plan, thread, lender })
}

fn pin(plan: &ThreadPlan) {
    let Some(core) = plan.core else { return };
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        let thread = &plan.name;
        tracing::warn!(thread, core, "could not be pinned; it runs wherever the system puts it");
    }
}
