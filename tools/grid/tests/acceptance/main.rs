//! The venue from outside: the real `grid` process, driven as newcomers, traders, suppliers and vandals drive it.
//!
//! | room | what is tried |
//! |---|---|
//! | `sdk` | the official OpenAI SDKs, unmodified, and the bill that they leave |
//! | `signed` | the signed trading API, its three path generations, its refusals |
//! | `door` | the binary door: a burst of 100,000 orders, garbage, slow bytes |
//! | `hostile` | oversized, slow and broken HTTP, while others are served |
//! | `service` | a supplier that breaks its terms: penalty, suspension, probes, return |
//! | `quality` | attestations over HTTP: who has none leaves the roster |
//! | `reloads` | Auto-Reload, from a line of credit and from a card |
//! | `faults` | suppliers that refuse, stall, die, lie |
//! | `crash` | `kill -9` at 50 moments under load |
//! | `restart` | Ctrl-C, a second process, a full disk |
//! | `real` | the production trace and the recorded order flow, where their data is at hand |
//! | `commands` | `keygen`, `script`, `inspect` |
//!
//! `harness` starts and ends venues, `web` speaks HTTP and signs, `clients` brings foreign clients, `books` adds up
//! everybody's balances. Nothing here knows the venue's inside.

mod books;
mod clients;
mod commands;
mod crash;
mod door;
mod faults;
mod harness;
mod hostile;
mod quality;
mod real;
mod reloads;
mod restart;
mod sdk;
mod service;
mod signed;
#[path = "../../../../gateway/payments/tests/reloads/stand_in.rs"]
#[allow(dead_code, reason = "the adapter's own tests use the rest")]
mod stripe;
mod web;
