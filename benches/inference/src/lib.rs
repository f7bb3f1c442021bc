//! What the inference tier adds to a call: latency, first streamed byte, processor time and memory, beside the supplier
//! itself, a bare `hyper` proxy, nginx, and gateways that do less. And a soak: a day's traffic with failing suppliers,
//! after which the books must balance to the token.
//!
//! A regression in any of these means that a developer who switches to the venue waits longer for every call, or that a
//! machine carries fewer of them. Our tier does all of its work in every call that is measured: the key is looked up, a
//! reservation is made in the log, the answer is metered and settled there before its last byte. Nobody beside it does any
//! of that but pass bytes on; the comparison is with the least that a proxy can do.
//!
//! **How it is kept honest.** Everybody is a process of its own, so that processor time is read from the kernel for each
//! one. The supplier and the load generator are the same for all, and contenders take turns within a round. Latencies
//! count from the planned moment. Every answer is checked to its last byte, and at the end the venue must have settled each
//! call once, for exactly the tokens that were delivered, with nothing left open.
//!
//! | module | holds |
//! |---|---|
//! | `part` | what runs as a process of its own: the supplier, the bare proxy, the venue with its tier |
//! | `venue` | a whole node, its order gateway and the tier, founded and funded |
//! | `process` | starting such processes; processor time and memory of them |
//! | `http`, `load` | the load generator |
//! | `talk` | what is asked and what a right answer is |
//! | `contenders` | who is measured, and how each is started |
//! | `latency`, `streams`, `soak` | the scenarios |

mod contenders;
mod http;
mod latency;
mod load;
mod part;
mod process;
mod soak;
mod streams;
mod talk;
mod venue;

use std::path::PathBuf;

use grid_harness::Scenario;

pub use latency::Latency;
pub use part::{AS_PART, run_as_part};
pub use soak::Soak;
pub use streams::Streams;

/// The world failed, or the work came to a wrong result.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Every scenario of this crate, in the order in which `all` runs them. `program` is run again, with [`AS_PART`] as its
/// first word, for the processes; it hands the words after that to [`run_as_part`].
#[must_use]
pub fn scenarios(program: PathBuf) -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(Latency { program: program.clone(), peers: true }),
        Box::new(Streams { program }),
        Box::new(Soak),
    ]
}
