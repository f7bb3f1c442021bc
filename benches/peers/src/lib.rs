//! Order books that others have published as crates, each behind [`grid_harness::plain::Book`], so that they run on our streams beside our engine.
//! Nothing but the benches depends on this crate.
//!
//! | crate | its ladder | how it takes our stream |
//! |---|---|---|
//! | `matchcore` 0.4 | `BTreeMap` of levels, orders by hash | every command is its own; it once traded through a limit's own price |
//! | `orderbook-rs` 0.15 | lock-free skip list, orders by concurrent hash | every command is its own |
//! | `lobster` 0.7 | `BTreeMap` of levels, orders by hash | neither changes nor immediate orders: they are taken apart, see [`lobster`] |
//!
//! Also looked at: `rust_ob` 2.5 and `limitbook` 0.1 (decimal prices, neither immediate orders nor changes), `rust-order-book` 0.0.2 (says itself that it is
//! unfinished), `rustkernel-orderbook` (wants a graphics card) and `oxide-arbiter` (no crate for other programs).
//!
//! All of them are books only: no accounts, no balances, no fees, no reports to sessions. None is asked to do what it does not offer.

pub mod lobster;
pub mod matchcore;
pub mod orderbook_rs;

use grid_harness::plain::Contender;

/// All of them.
#[must_use]
pub fn contenders() -> Vec<Contender> {
    vec![
        Contender {
            name: "matchcore 0.4",
            note: "a book only, every command its own",
            make: || Box::new(matchcore::Peer::new()),
        },
        Contender {
            name: "orderbook-rs 0.15",
            note: "a book only, every command its own; made for many threads, here it has one",
            make: || Box::new(orderbook_rs::Peer::new()),
        },
        Contender {
            name: "lobster 0.7",
            note: "a book only; a change is a cancel and a new order, so a smaller quantity loses its place; an order that must fill whole may fill in part",
            make: || Box::new(lobster::Peer::new()),
        },
    ]
}
