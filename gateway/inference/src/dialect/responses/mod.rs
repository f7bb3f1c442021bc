//! OpenAI Responses: its requests as chat completions, and a supplier's chunks as its events.
//!
//! Nothing is kept between calls: a conversation is sent whole each time, as with `store: false`.

pub(crate) mod answer;
pub(crate) mod request;
