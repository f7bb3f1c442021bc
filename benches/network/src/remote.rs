//! The network scenarios against any venue, as a client: what `grid bench` runs. The venue sees a participant whose
//! orders nobody meets; what is told is what that participant sees, the network between included.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use grid_harness::{Latencies, Rounds, Row};

use crate::flow::PlaceCancel;
use crate::load::Load;
use crate::{Wait, session};

/// What to ask of which venue.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where its binary door is.
    pub address: SocketAddr,
    /// The seed of a trading key whose account has dollars for some hundred orders at `price`.
    pub key: [u8; 32],
    /// The instrument, by number.
    pub instrument: u16,
    /// The lowest price of the orders, in ticks; choose one that nobody meets.
    pub price: u64,
    /// How long each round lasts.
    pub seconds: f64,
    /// How many rounds.
    pub rounds: usize,
    /// Sessions, each on a connection.
    pub connections: usize,
    /// Requests in flight on each.
    pub window: u64,
    /// Requests per second, planned: then latencies are told, from the planned time. As many as the window lets
    /// through where this is not given.
    pub rate: Option<f64>,
    /// What the client does between answers.
    pub wait: Wait,
}

/// Runs the plan and checks every answer.
///
/// # Errors
/// The venue could not be reached, refused the login, or answered otherwise than it must.
pub fn run(plan: &Plan) -> Result<Row, Box<dyn std::error::Error>> {
    let key = SigningKey::from_bytes(&plan.key);
    let sessions = session::open(plan.address, &[key], plan.connections.max(1))?;
    let flow = |session| (session, PlaceCancel::at(plan.instrument, plan.price));
    let mut load = Load::over(sessions.into_iter().map(flow).collect(), plan.wait)?;
    let (mut latencies, mut throughput) = (Latencies::default(), Rounds::default());
    for _ in 0..plan.rounds.max(1) {
        let outcome = match plan.rate {
            Some(rate) => load.open(rate, plan.seconds, plan.window.max(1))?,
            None => load.closed(plan.window.max(1), plan.seconds)?,
        };
        throughput.push(outcome.answered as f64 / outcome.took.as_secs_f64().max(1e-9));
        latencies.push(&outcome.latency);
    }
    load.clear_up()?;
    let name = format!("{} connections x {}", plan.connections, plan.window);
    let row = Row::new(name).throughput(throughput).latency(latencies);
    Ok(match plan.rate {
        Some(rate) => {
            row.note(format!("open loop at {rate:.0} requests per second, from the planned send time"))
        }
        None => row.note("closed loop: a latency is that of a queue as long as the window"),
    })
}
