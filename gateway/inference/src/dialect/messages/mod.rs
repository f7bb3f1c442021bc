//! Anthropic Messages: its requests as chat completions, and a supplier's chunks as its events.

pub(crate) mod answer;
pub(crate) mod request;
