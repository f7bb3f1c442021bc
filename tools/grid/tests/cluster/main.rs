//! Three nodes as real processes, with their plugs pulled: killed, paused, cut off, out of disk, on an old disk, replaced
//! one by one. Clients go on meanwhile, and write down what they were told; a checker that shares no code with
//! the venue then reads the nodes' journals and says whether any of it was untrue.
//!
//! | room | what is tried |
//! |---|---|
//! | `kills` | twenty leaders killed under load; a rolling restart of all nodes |
//! | `cuts` | a leader paused, cut off both ways and one way; slow lines |
//! | `disks` | a full disk, an older copy of a disk, a damaged journal |
//! | `members` | a node added and given a vote, a node removed, leadership handed over |
//! | `tiers` | the inference tier apart from the core: killed in the middle of a stream; calls sent on to it |
//! | `web` | signed orders and completions through a leader's death |
//! | `checker` | the checker itself: it must be able to fail |
//!
//! `harness` starts and ends nodes, `net` parts them (network namespaces where the test may, a proxy on loopback
//! elsewhere), `load` is the clients, `warden` the operator who suspends them. Time decides nothing here: every wait is
//! for a condition.

#[path = "../acceptance/clients.rs"]
mod clients;
#[path = "../acceptance/web.rs"]
#[allow(dead_code, reason = "the acceptance tests use the rest")]
mod http;

mod checker;
mod cuts;
mod disks;
mod harness;
mod kills;
mod load;
mod members;
mod net;
mod proxy;
mod tiers;
mod warden;
mod web;
