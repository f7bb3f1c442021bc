//! A fault stops the process: a wrong book is worse than a missing one, and a log that could not be written must not be
//! followed by an answer. Restarting reads the truth back from disk.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says what happened and aborts. Nothing that was acknowledged is lost: acknowledgements follow the disk.
pub(crate) fn abort(what: &str) -> ! {
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
