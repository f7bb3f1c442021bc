//! A fault stops the process: a wrong book is worse than a missing one, and a log that could not be written must not be
//! followed by an answer. Restarting reads the truth back from disk.
//!
//! With the feature `faults` the simulator decides what stopping means: it hooks the places marked by [`fault_point!`] and the
//! one function through which every stop goes, and ends the simulated process there. Without it both are as if not there.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says what happened and aborts. Nothing that was acknowledged is lost: acknowledgements follow the disk.
pub fn abort(what: &str) -> ! {
    #[cfg(feature = "faults")]
    hook::call(Moment::Fault(what));
    tracing::error!(fault = what, "the process stops");
    eprintln!("FAULT: {what}\nThe process stops now. Everything that was acknowledged is in the journal.");
    std::process::abort()
}

/// Runs the body of a thread that the venue cannot live without: a panic in it is a fault, not a silent hang.
pub fn abort_on_panic<T>(thread: &str, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            abort(&format!("thread `{thread}` panicked: {said}"))
        }
    }
}

/// Marks a place between two effects, by a name, where the simulator may end the process. Compiles to nothing without `faults`.
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault_point_reached($name)
    };
}

/// What [`fault_point!`] calls; not for calling directly.
#[doc(hidden)]
#[inline(always)]
pub fn fault_point_reached(name: &'static str) {
    #[cfg(feature = "faults")]
    hook::call(Moment::Point(name));
    #[cfg(not(feature = "faults"))]
    let _ = name;
}

/// Where a hooked process stands.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment<'a> {
    /// At a named fault point.
    Point(&'static str),
    /// About to stop because of this. A hook that returns lets the real process abort.
    Fault(&'a str),
}

#[cfg(feature = "faults")]
pub use hook::hook_faults;

#[cfg(feature = "faults")]
mod hook {
    use std::cell::RefCell;

    use super::Moment;

    type Hook = Box<dyn FnMut(Moment<'_>)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Has `hook` called at every fault point and stop of this thread, in place of an earlier one. It may unwind.
    pub fn hook_faults(hook: impl FnMut(Moment<'_>) + 'static) {
        HOOK.with(|place| *place.borrow_mut() = Some(Box::new(hook)));
    }

    pub(super) fn call(moment: Moment<'_>) {
        HOOK.with(|place| {
            // A hook that reaches a fault point itself is not called for it.
            if let Ok(mut hook) = place.try_borrow_mut()
                && let Some(hook) = hook.as_mut()
            {
                hook(moment);
            }
        });
    }
}
