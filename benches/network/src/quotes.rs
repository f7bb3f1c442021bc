//! `tcp_quotes`: makers that move ten quotes with each message, over 4 connections, in turns with the same connections moving single
//! orders. What a regression means: makers are slower to get out of the way, and quote wider.

use std::error::Error;
use std::net::SocketAddr;

use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings};

use crate::flow::Quotes;
use crate::load::{Load, Outcome};
use crate::order_to_ack::{PRICE, memory, on_a_thread, wait_name};
use crate::throughput::flood;
use crate::venue::{INSTRUMENT, Layout, Venue, keys};
use crate::{Failure, Wait, session};

const CONNECTIONS: usize = 4;
/// Messages in flight on each.
const WINDOW: u64 = 34;

/// See the module.
#[derive(Debug)]
pub struct MassQuotes;

impl Scenario for MassQuotes {
    fn name(&self) -> &'static str {
        "tcp_quotes"
    }

    fn shows(&self) -> &'static str {
        "slower: makers are slower to move their quotes, and quote wider"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&memory(settings))?;
        Layout::all().iter().map(|layout| measure(settings, layout, &ground)).collect()
    }
}

fn measure(settings: &Settings, layout: &Layout, ground: &Ground) -> Result<Row, Failure> {
    let (mut quotes, mut moved, mut single) = (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut of_quotes, mut of_single) = (Rounds::default(), Rounds::default());
    for round in 0..settings.rounds {
        let start = |what: &str| {
            Venue::start(&ground.at(&format!("{what}-{}-{round}", layout.name)), layout, CONNECTIONS)
        };
        let venue = start("single")?;
        let outcome = flood(venue.address(), layout.wait, CONNECTIONS, WINDOW, settings.seconds)?;
        venue.stop()?;
        single.push(outcome.per_second());
        of_single.push(outcome.cpu_per_request().1);
        let venue = start("quotes")?;
        let outcome = quote(venue.address(), layout.wait, settings.seconds)?;
        venue.stop()?;
        quotes.push(outcome.per_second());
        moved.push(outcome.per_second() * Quotes::ORDERS as f64);
        of_quotes.push(outcome.cpu_per_request().1 / Quotes::ORDERS as f64);
    }
    let name = format!("{CONNECTIONS} connections x {WINDOW}, layout {}", layout.name);
    Ok(Row::new(name)
        .throughput(moved)
        .floor(format!("single orders, {}", wait_name(layout.wait)), Against::Throughput, single)
        .figure("mass quotes", "/s", quotes)
        .figure("on a core per order moved: venue", "ns", of_quotes)
        .figure("on a core per single order: venue", "ns", of_single)
        .note(format!(
            "orders moved by mass quotes of {} orders each, against orders and cancels sent one by one; closed loop",
            Quotes::ORDERS
        )))
}

fn quote(address: SocketAddr, wait: Wait, seconds: f64) -> Result<Outcome, Failure> {
    on_a_thread(wait, move || {
        let sessions = session::open(address, &keys(), CONNECTIONS)?;
        let flow = |session| (session, Quotes::around(INSTRUMENT.0, PRICE));
        Load::over(sessions.into_iter().map(flow).collect(), wait)?.closed(WINDOW, seconds)
    })
}
