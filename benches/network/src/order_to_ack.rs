//! `tcp_order_to_ack`: one connection, one request at a time, from a client's write to the report in its hands. What a
//! regression means: a quote lies in the market, and a participant does not know it yet, for that much longer.
//!
//! Requests come at a planned rate that every contender can keep up with, so a latency is of one request and not of a
//! queue. With the journal in memory no disk is in the figure. With the journal on the disk each request follows the
//! answer to the one before it, for the disk decides the rate; the floor is then the bare echo and one bare write and
//! fdatasync of the same bytes, both at their medians.

use std::error::Error;

use grid_harness::floors::BareWrites;
use grid_harness::{Against, Ground, Latencies, Rounds, Row, Scenario, Settings};

use crate::echo::Echo;
use crate::flow::PlaceCancel;
use crate::load::{GENERATOR, Load, Outcome};
use crate::throughput::flood;
use crate::venue::{INSTRUMENT, Layout, Venue, keys};
use crate::{Failure, Wait, cores, pin, session};

/// Requests per second: far below what any contender does one at a time.
const RATE: f64 = 5_000.0;
/// Bytes of a journal's block with one request in it.
const BLOCK_BYTES: usize = 192;
/// The lowest price of the load's orders.
pub(crate) const PRICE: u64 = 1_000;

/// See the module.
#[derive(Debug)]
pub struct OrderToAck;

impl Scenario for OrderToAck {
    fn name(&self) -> &'static str {
        "tcp_order_to_ack"
    }

    fn shows(&self) -> &'static str {
        "slower: a participant waits longer for each answer, on an idle venue"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&memory(settings))?;
        let rate = settings.rate_or(RATE);
        let seconds = settings.commands.map_or(settings.seconds, |commands| commands as f64 / rate);
        let mut rows = Vec::new();
        for layout in Layout::all() {
            let (mut ours, mut floor, mut kept) =
                (Latencies::default(), Rounds::default(), Rounds::default());
            for round in 0..settings.rounds {
                let bare = one_at_a_time(
                    Echo::start(layout.wait, layout.core)?.address,
                    layout.wait,
                    rate,
                    seconds,
                )?;
                floor.push(bare.latency.value_at_quantile(0.5) as f64);
                let venue = Venue::start(&ground.at(&format!("{}-{round}", layout.name)), &layout, 1)?;
                let outcome = one_at_a_time(venue.address(), layout.wait, rate, seconds)?;
                venue.stop()?;
                kept.push(outcome.per_second());
                ours.push(&outcome.latency);
            }
            let name = format!("1 connection, window 1, layout {}", layout.name);
            let echo = format!("bare mio echo, {}", wait_name(layout.wait));
            rows.push(
                Row::new(name)
                    .latency(ours)
                    .throughput(kept)
                    .floor(echo, Against::Latency, floor)
                    .note(format!(
                        "open loop at {rate:.0} requests per second, half orders and half cancels, journal in {}",
                        ground.kind()
                    ))
                    .note(format!("client {}", wait_name(layout.wait))),
            );
        }
        let disk = Ground::under(&settings.dir)?;
        if disk.kind() != ground.kind() {
            for layout in Layout::all() {
                rows.push(on_the_disk(&layout, &disk, settings)?);
            }
        }
        Ok(rows)
    }
}

/// One request after the other, each durable on the disk before its answer.
fn on_the_disk(layout: &Layout, disk: &Ground, settings: &Settings) -> Result<Row, Failure> {
    let (mut ours, mut floor, mut kept) = (Latencies::default(), Rounds::default(), Rounds::default());
    // As many bare commits as take about a fifth of the time, on a disk that ticks in milliseconds.
    let commits = (settings.seconds * 50.0) as u64 + 1;
    for round in 0..settings.rounds {
        let bare = Echo::start(layout.wait, layout.core)?;
        let bare = flood(bare.address, layout.wait, 1, 1, settings.seconds / 5.0)?;
        let echo = bare.latency.value_at_quantile(0.5);
        let mut writes = BareWrites::new(&disk.at(&format!("bare-{}-{round}", layout.name)), BLOCK_BYTES)?;
        floor.push((echo + writes.round(commits)?.value_at_quantile(0.5)) as f64);
        let venue = Venue::start(&disk.at(&format!("{}-{round}", layout.name)), layout, 1)?;
        let outcome = flood(venue.address(), layout.wait, 1, 1, settings.seconds)?;
        venue.stop()?;
        kept.push(outcome.per_second());
        ours.push(&outcome.latency);
    }
    let echo = wait_name(layout.wait);
    Ok(Row::new(format!("1 connection, window 1, layout {}, journal on the disk", layout.name))
        .latency(ours)
        .throughput(kept)
        .floor(format!("bare mio echo, {echo}, and one bare write and fdatasync"), Against::Latency, floor)
        .note(format!(
            "closed loop, half orders and half cancels, {BLOCK_BYTES} bytes in a bare write; client {echo}"
        )))
}

/// Where files are that no disk is to slow down.
pub(crate) fn memory(settings: &Settings) -> std::path::PathBuf {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { settings.dir.clone() }
}

pub(crate) fn wait_name(wait: Wait) -> &'static str {
    match wait {
        Wait::Spin => "spinning",
        Wait::Park => "blocking",
    }
}

fn one_at_a_time(
    address: std::net::SocketAddr,
    wait: Wait,
    rate: f64,
    seconds: f64,
) -> Result<Outcome, Failure> {
    on_a_thread(wait, move || {
        let sessions = session::open(address, &keys(), 1)?;
        let flow = |session| (session, PlaceCancel::at(INSTRUMENT.0, PRICE));
        Load::over(sessions.into_iter().map(flow).collect(), wait)?.open(rate, seconds, 1)
    })
}

/// Runs the generator on a thread of its own, pinned where it spins, so that no setting outlives it.
pub(crate) fn on_a_thread<R: Send>(
    wait: Wait,
    work: impl FnOnce() -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(GENERATOR.to_owned());
        let running = thread.spawn_scoped(scope, move || {
            if wait == Wait::Spin {
                pin(cores().0);
            }
            work().map_err(|error| error.to_string())
        })?;
        match running.join() {
            Ok(done) => done.map_err(Failure::from),
            Err(_) => Err("the load generator panicked".into()),
        }
    })
}
