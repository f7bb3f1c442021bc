//! Simulated suppliers: real HTTP servers that speak the OpenAI chat API, and Anthropic Messages at `/v1/messages`, and
//! fail on demand.
//!
//! A venue that meters and fails over must be tried against upstreams that stall, die, lie and refuse, and against
//! ones whose token counts are known exactly. These servers are that upstream, in `grid demo` and in tests. Their
//! text says that it is simulated; no model runs here.
//!
//! **The counting rule.** A token is a whitespace-separated word. The prompt has as many tokens as the words of all
//! text in all messages; role names, tool definitions and other fields count nothing. A completion has as many
//! tokens as it has pieces: every streamed text delta is one word, a tool call is one token for its name and one for
//! each word of its arguments, and shown reasoning (with `reasoning_effort`, 4 to 64 words) counts like text. A request whose `metadata` holds `"simulate_completion_tokens": "N"` gets exactly N
//! tokens (of text, per choice), unless `max_tokens` is smaller. [`filler`] makes a prompt of exactly N tokens.
//!
//! **What it knows** is its prompt: numbers that a long prompt says are kept under names are told when the prompt ends
//! with a question for what was `kept`. Falling short of that, or of tools, formats and limits, is a [`Lapses`].
//!
//! **Faults** can be changed while the server runs: [`RunningSupplier::set_faults`], or `POST /control` with the JSON
//! of [`Faults`] on the control address (which answers even while the supplier refuses connections).

mod answer;
mod faults;
mod http;
mod lapses;
mod messages;
mod stats;
mod stream;
mod words;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use answer::prompt_tokens;
pub use faults::{Faults, Framing};
pub use lapses::Lapses;
pub use stats::{CallRecord, Outcome, Stats, Tally};
pub use words::filler;

/// How a simulated supplier behaves from its start.
#[derive(Clone, Debug)]
pub struct SupplierConfig {
    /// Its name, part of every answer's text.
    pub name: String,
    /// Where it listens; port 0 takes any free port.
    pub addr: SocketAddr,
    /// Where its control endpoint listens; port 0 takes any free port.
    pub control_addr: SocketAddr,
    /// The models that it serves; any other is 404.
    pub models: Vec<String>,
    /// From the request to the first token.
    pub ttft: Duration,
    /// Pace after the first token; 0 means as fast as the client reads.
    pub tokens_per_second: u32,
    /// The bearer key that it demands; `None` serves everybody.
    pub api_key: Option<String>,
    /// Everything that looks random follows from this, the prompt, and the request's number.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for SupplierConfig {
    fn default() -> Self {
        Self {
            name: "simulated".into(),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            control_addr: (Ipv4Addr::LOCALHOST, 0).into(),
            models: vec!["simulated-model".into()],
            ttft: Duration::ZERO,
            tokens_per_second: 0,
            api_key: None,
            seed: 1,
            faults: Faults::default(),
        }
    }
}

/// Starts suppliers.
#[derive(Debug)]
pub struct Supplier;

impl Supplier {
    /// Binds both addresses and serves from a thread of its own until the result is dropped.
    ///
    /// # Errors
    /// An address that can't be bound, or no thread to be had.
    pub fn start(config: SupplierConfig) -> std::io::Result<RunningSupplier> {
        http::start(config)
    }
}

/// A supplier that serves until this is dropped.
#[derive(Debug)]
pub struct RunningSupplier {
    /// The supplier's name.
    pub name: String,
    /// Base URL for an OpenAI client, ending in `/v1`.
    pub url: String,
    /// URL of the control endpoint: GET reads the faults, POST replaces them; `/stats` beside it reads the counters.
    pub control_url: String,
    shared: Arc<http::Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RunningSupplier {
    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.books.stats()
    }

    /// The last calls that ended, oldest first (at most 100,000 are kept).
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.shared.books.calls()
    }

    /// Replaces what goes wrong, for every request from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }
}

impl Drop for RunningSupplier {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
