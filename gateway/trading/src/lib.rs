//! Trading and Platform HTTP APIs: contract §5 over a replica and the binary door.
//!
//! ```text
//!  request ─► path generation off ─► signature ─► throttle ─► handler ─┬─ change ─► Door ─► ack (durable)
//!     (server)    (server)            (auth, app)  (throttle)  (api)   │               wait: View and History passed it
//!                                                                      └─ read ──► View (now) · History (what was)
//! ```
//! This tier holds no state of the venue. It changes things only through the [`Door`], reads the present from the
//! [`View`] and the past from the [`History`], and has no matching rules in it: what the engine refuses becomes a status.
//! Not here: WebSocket streams and OAuth logins (own issues), TLS (the front's business for now).

mod answer;
mod api;
mod app;
pub mod auth;
mod config;
mod door;
mod page;
mod query;
mod server;
mod throttle;
mod venue;

pub use app::{App, MetricsText};
pub use config::Limits;
pub use door::{Answer, Door, DoorError, Outcome, Pending, View};
pub use grid_history as history;
pub use grid_history::{Feed, Follower, History, HistoryError, decimal, follow, ids, time};
pub use server::{RunningTier, serve};
pub use venue::{ClientDoor, ReplicaView};
