//! A fault fails the model.

pub(crate) fn abort(what: &str) -> ! {
    panic!("FAULT: {what}")
}

pub(crate) fn abort_on_panic<T>(_thread: &str, body: impl FnOnce() -> T) -> T {
    body()
}
