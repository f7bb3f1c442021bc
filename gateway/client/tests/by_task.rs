//! The same sessions, driven by tasks instead of threads.

#[path = "sessions.rs"]
mod sessions;
