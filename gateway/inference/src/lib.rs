//! The inference tier: the place where tokens bought on the book become completions.
//!
//! A developer points any OpenAI or Anthropic client at it. The life of a call (design §7):
//!
//! ```text
//! authenticate ─► validate ─► upper bound of tokens ─► Reserve ─► supplier ─► stream ─► Settle
//!   key hash       contract     the body's bytes         the        issuers     whole      before the
//!   from the       §6.3         + the output limit       door       first       events     last byte
//!   replica
//! ```
//!
//! | module | knows |
//! |---|---|
//! | `server` | sockets, routes |
//! | `catalogue` | `/v1/models`, `/instruments.json` |
//! | `keys` | who is calling, and how much at once |
//! | `allowance` | what the venue's terms still allow an account, in the headers that clients read |
//! | `request` | what may be asked, and the bytes that go to the supplier |
//! | `call` | the life above |
//! | `search` | failover before the first content, within one deadline; `backoff`: the waits in between |
//! | `relay` | from the first content on: passing events, three clocks, the end |
//! | `upstream` | one attempt at one supplier |
//! | `pool` | connections to suppliers, driven by the calls that have them |
//! | `needs` | what a request needs of a model beyond text |
//! | `roster`, `choice` | which supplier next: who is able and may be asked, and the order among them |
//! | `health`, `breaker` | what is remembered of a supplier: circuit breaker, room, limits, speed |
//! | `patience` | what headers of suppliers and clients say of waiting |
//! | `sse`, `answer`, `lean` | events of a stream and what they say |
//! | `dialect` | the other languages of clients: Anthropic Messages, OpenAI Responses |
//! | `meter`, `tokens` | our own count, and whether the supplier's is believable |
//! | `hold` | the guard that settles or releases a reservation exactly once |
//! | `probe` | whether a supplier serves an instrument as it should, tried outside any call |
//! | `faults` | telling the venue of attempts that failed |
//! | `insist` | work that goes on when nobody waits for it any more |
//! | `dispatch`, `ticket` | sending a call on to another node, and what that one accepts |
//! | `receipts` | what calls came to, from the history and from the state |
//! | `seal` | supplier credentials, sealed with the venue's key |
//!
//! What it deliberately does not know: matching rules, what a call costs, the log. Of the books it reads each supplier's best
//! ask, to choose by. It changes state through [`Door`] and reads it through [`Directory`]. It never stores or logs a prompt or a completion, and passes none of a client's headers
//! to a supplier.

mod allowance;
mod anonymous;
mod answer;
mod backoff;
mod breaker;
mod call;
mod catalogue;
mod choice;
mod config;
mod connect;
mod dialect;
mod dispatch;
mod door;
mod faults;
mod health;
mod hold;
mod insist;
mod keys;
mod lean;
mod meter;
mod needs;
mod patience;
mod pool;
mod probe;
mod receipts;
mod relay;
mod reply;
mod request;
mod roster;
mod seal;
mod search;
mod server;
mod sse;
mod stats;
mod ticket;
mod tokens;
mod trace;
mod upstream;
mod venue;

pub use config::{Clocks, Config, Dispatch, KeyLimits, Limits, Metering, Routing};
pub use door::{Deps, Directory, Door, DoorError, Ended, Pending, Reserved, Wanted};
pub use needs::{Need, Needs};
pub use probe::{Check, Checked, ModelReport, Pauses, ProbeReport, Probing, Verdict};
pub use seal::{SealError, VenueKey};
pub use server::{RunningTier, serve};
pub use stats::Snapshot;
