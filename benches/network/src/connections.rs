//! One point of a curve: the door's throughput and tail with so many connections open, all of them busy.

use std::error::Error;

use grid_harness::{Against, Ground, Latencies, Rounds, Row, Settings, how_many};

use crate::Wait;
use crate::echo::Echo;
use crate::order_to_ack::{memory, wait_name};
use crate::throughput::flood;
use crate::venue::{Layout, Venue};

/// Requests in flight on each connection.
const WINDOW: u64 = 8;

/// Requests acknowledged over `connections`, with the journal in memory where there is any, in the layout that every machine has the cores for, beside a
/// bare echo over as many.
///
/// # Errors
/// The world failed, or an answer was wrong.
pub fn over_connections(connections: usize, settings: &Settings) -> Result<Row, Box<dyn Error>> {
    let ground = Ground::under(&memory(settings))?;
    let sleeping = Layout::all().into_iter().rfind(|layout| layout.wait == Wait::Park);
    let layout = sleeping.ok_or("every machine has the cores for threads that sleep")?;
    let (mut ours, mut floor, mut latency) = (Rounds::default(), Rounds::default(), Latencies::default());
    for round in 0..settings.rounds {
        let echo = Echo::start(layout.wait, layout.core)?;
        let bare = flood(echo.address, layout.wait, connections, WINDOW, settings.seconds)?;
        floor.push(bare.per_second());
        drop(echo);
        let venue = Venue::start(&ground.at(&format!("connections-{round}")), &layout, connections)?;
        let outcome = flood(venue.address(), layout.wait, connections, WINDOW, settings.seconds)?;
        venue.stop()?;
        ours.push(outcome.per_second());
        latency.push(&outcome.latency);
    }
    Ok(Row::new(how_many(connections, "connections"))
        .throughput(ours)
        .latency(latency)
        .floor(format!("bare mio echo, {}", wait_name(layout.wait)), Against::Throughput, floor)
        .note(format!(
            "{WINDOW} requests in flight on each, so the latency holds a queue that grows with them"
        )))
}
