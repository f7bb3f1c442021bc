//! The gateway over real sockets in front of the real engine: logins, orders, resumption, market data, and
//! everything a client can do wrong.

mod client;
mod cluster;
mod early;
mod failover;
mod hostile;
mod market_data;
mod pressure;
mod quote_failover;
mod quotes;
mod requests;
mod sessions;
mod venue;
mod whole;

use std::net::TcpListener;
use std::sync::Arc;

use grid_orders::{Config, Gateway};
use grid_wire::{self as wire, Message, Side};

use client::Client;
use venue::{Queue, Venue, key};

fn start_with(venue: &Arc<Venue>, config: Config) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Gateway::start(listener, config, Queue(Arc::clone(venue)), Arc::clone(venue)).unwrap()
}

fn start(config: Config) -> (Arc<Venue>, Gateway) {
    let venue = Venue::new();
    let gateway = start_with(&venue, config);
    (venue, gateway)
}

fn execution(message: Message<'_>) -> wire::ExecutionReport {
    match message {
        Message::ExecutionReport(report) => report,
        other => panic!("{other:?} instead of an execution report"),
    }
}

fn rejected(message: Message<'_>) -> wire::CommandReject {
    match message {
        Message::CommandReject(reject) => reject,
        other => panic!("{other:?} instead of a reject"),
    }
}

/// Somebody else's orders still go through.
fn assert_others_are_served(gateway: &Gateway, session: u128) {
    let mut other = Client::login(gateway.address(), &key(4), session);
    other.order(Side::Buy, 1, 1);
    assert_eq!(execution(other.next()).exec_type, wire::ExecType::New);
}
