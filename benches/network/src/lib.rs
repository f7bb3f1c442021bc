//! The way to the book over a socket, measured from the client's side: frames of the binary protocol over TCP on
//! loopback, through the order gateway and the order path, and back as reports.
//!
//! A regression in any of these means that a participant waits longer, or that the venue takes fewer requests, although
//! the engine is as fast as before. Every row but those of mass quotes has the bare `mio` echo of the same frame sizes, connections, window and
//! wait mode beside it, from the same round and the same load generator: what the kernel and the generator take is in
//! both. Every answer is checked: its number, the numbering of the reports, and what it says.
//!
//! | module | holds |
//! |---|---|
//! | `session`, `flow`, `load` | the load generator: logins, what is asked, and the loop that asks and checks |
//! | `cpu` | how long threads were on a core |
//! | `echo` | the floor |
//! | `venue` | a venue to measure, in this process |
//! | `order_to_ack`, `throughput`, `quotes`, `order_flow` | the scenarios |
//! | `connections` | a point of the curve over the number of connections, for `growth` |
//! | `remote` | the same load against any venue, for `grid bench` |

mod connections;
mod cpu;
mod echo;
mod flow;
mod load;
mod order_flow;
mod order_to_ack;
mod quotes;
pub mod remote;
mod session;
mod throughput;
mod venue;

use grid_harness::Scenario;
pub use grid_orders::Wait;

pub use connections::over_connections;
pub use order_flow::OrderFlowReal;
pub use order_to_ack::OrderToAck;
pub use quotes::MassQuotes;
pub use throughput::Throughput;

/// The world failed, or the work came to a wrong result.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Every scenario of this crate, in the order in which `all` runs them.
#[must_use]
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    vec![Box::new(OrderToAck), Box::new(Throughput), Box::new(MassQuotes), Box::new(OrderFlowReal)]
}

/// The core on which the load generator runs, and the one on which the venue or the echo does.
pub(crate) fn cores() -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (0, cores - 1)
}

/// Keeps the calling thread on a core; a machine that does not allow it measures without.
pub(crate) fn pin(core: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
}
