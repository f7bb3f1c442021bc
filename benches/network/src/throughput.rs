//! `tcp_throughput`: as many requests as the venue takes, over 4 connections with 34 in flight each, over 1,000
//! connections, and, for a journal on a disk that ticks slowly, over 16 connections with 1,024 in flight each, on a
//! machine shared with the load generator. What a regression means: at the busiest moment of the day
//! the door turns participants away earlier.
//!
//! Both ends of every connection are in this process: 1,000 connections need `ulimit -n` above 2,100 (a venue of its own
//! needs one above its `max_connections`).
//!
//! Closed loop: the window is the load, and a latency under it says how long a queue of that window is, nothing more.

use std::error::Error;
use std::net::SocketAddr;

use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings};

use crate::echo::Echo;
use crate::flow::PlaceCancel;
use crate::load::{Load, Outcome};
use crate::order_to_ack::{PRICE, memory, on_a_thread, wait_name};
use crate::venue::{INSTRUMENT, Layout, Venue, keys};
use crate::{Failure, Wait, session};

/// Connections, and requests in flight on each.
const SHAPES: [(usize, u64); 2] = [(4, 34), (1_000, 8)];
/// The same where every request waits for the disk: a group is as large as what is in flight.
const DEEP: (usize, u64) = (16, 1_024);

/// See the module.
#[derive(Debug)]
pub struct Throughput;

impl Scenario for Throughput {
    fn name(&self) -> &'static str {
        "tcp_throughput"
    }

    fn shows(&self) -> &'static str {
        "slower: the door takes fewer requests per second when everybody trades at once"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let memory = Ground::under(&memory(settings))?;
        let disk = Ground::under(&settings.dir)?;
        let mut grounds = vec![("", &memory)];
        if disk.kind() != memory.kind() {
            grounds.push((", journal on the disk", &disk));
        }
        // A small run, of the tests, has a small crowd.
        let most = settings.commands.map_or(usize::MAX, |most| most as usize);
        let mut rows = Vec::new();
        for (connections, window) in SHAPES {
            let connections = connections.min(most / 10);
            for layout in Layout::all() {
                for (suffix, ground) in &grounds {
                    // Where one thread does everything, everything waits for the disk.
                    if ground.kind() != memory.kind() && layout.name != "parked" && layout.name != "spread" {
                        continue;
                    }
                    rows.push(shape(settings, &layout, ground, suffix, connections, window)?);
                }
            }
        }
        let (connections, window) = (DEEP.0.min(most / 10), DEEP.1.min(most as u64));
        for (suffix, ground) in &grounds[1..] {
            for layout in Layout::all() {
                rows.push(shape(settings, &layout, ground, suffix, connections, window)?);
            }
        }
        Ok(rows)
    }
}

/// So many connections with so many requests in flight on each, through one layout, beside the bare echo.
fn shape(
    settings: &Settings,
    layout: &Layout,
    ground: &Ground,
    suffix: &str,
    connections: usize,
    window: u64,
) -> Result<Row, Failure> {
    let (mut ours, mut floor, mut queue) = (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut generator, mut venue_cpu, mut echo_cpu) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..settings.rounds {
        let echo = Echo::start(layout.wait, layout.core)?;
        let bare = flood(echo.address, layout.wait, connections, window, settings.seconds)?;
        drop(echo);
        floor.push(bare.per_second());
        echo_cpu.push(bare.cpu_per_request().1);
        let name = format!("{connections}x{window}-{}{suffix}-{round}", layout.name);
        let venue = Venue::start(&ground.at(&name), layout, connections)?;
        let outcome = flood(venue.address(), layout.wait, connections, window, settings.seconds)?;
        venue.stop()?;
        ours.push(outcome.per_second());
        generator.push(outcome.cpu_per_request().0);
        venue_cpu.push(outcome.cpu_per_request().1);
        queue.push(outcome.latency.value_at_quantile(0.5) as f64 / 1_000.0);
    }
    let wait = wait_name(layout.wait);
    Ok(Row::new(format!("{connections} connections x {window}, layout {}{suffix}", layout.name))
        .throughput(ours)
        .floor(format!("bare mio echo, {wait}"), Against::Throughput, floor)
        .figure("p50 in the full window", "µs", queue)
        .figure("on a core per request: venue", "ns", venue_cpu)
        .figure("on a core per request: load generator", "ns", generator)
        .figure("on a core per request: bare echo", "ns", echo_cpu)
        .note("requests acknowledged, half orders and half cancels; closed loop"))
}

pub(crate) fn flood(
    address: SocketAddr,
    wait: Wait,
    connections: usize,
    window: u64,
    seconds: f64,
) -> Result<Outcome, Failure> {
    on_a_thread(wait, move || {
        let sessions = session::open(address, &keys(), connections)?;
        let flow = |session| (session, PlaceCancel::at(INSTRUMENT.0, PRICE));
        Load::over(sessions.into_iter().map(flow).collect(), wait)?.closed(window, seconds)
    })
}
