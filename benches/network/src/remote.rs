//! The network scenarios against any venue, as one of its participants: what `grid bench` runs. The orders are bids that
//! nobody meets; what is told is what that participant sees, the network between included. At the end nothing is left
//! behind. A floor would have to run where the venue does: where that is reached over loopback, a bare echo takes turns with it.

use std::error::Error;
use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use grid_harness::{Against, Latencies, Rounds, Row, Scenario, Settings};

use crate::echo::Echo;
use crate::flow::PlaceCancel;
use crate::load::{Load, Outcome};
use crate::order_to_ack::wait_name;
use crate::{Failure, Wait, session};

/// The longest that an echo is measured in a round, in seconds: the venue's sessions say nothing meanwhile, and are to stay live.
const ECHO_SECONDS_MAX: f64 = 10.0;

/// Who asks, and what for.
#[derive(Clone, Debug)]
pub struct Participant {
    /// The venue's binary door.
    pub address: SocketAddr,
    /// The seed of a trading key whose account has dollars for some orders of each connection at `price`.
    pub key: [u8; 32],
    /// The instrument, by number.
    pub instrument: u16,
    /// The lowest of 64 prices of the orders, in ticks; choose one that nobody meets.
    pub price: u64,
    /// What the client does between answers.
    pub wait: Wait,
}

impl Participant {
    fn load(&self, address: SocketAddr, connections: usize) -> Result<Load<PlaceCancel>, Failure> {
        let key = SigningKey::from_bytes(&self.key);
        let sessions = session::open(address, &[key], connections)?;
        let flow = |session| (session, PlaceCancel::at(self.instrument, self.price));
        Load::over(sessions.into_iter().map(flow).collect(), self.wait)
    }
}

/// One connection, one request at a time, at the settings' rate.
#[derive(Debug)]
pub struct OneAtATime(pub Participant);

impl Scenario for OneAtATime {
    fn name(&self) -> &'static str {
        "tcp_order_to_ack"
    }

    fn shows(&self) -> &'static str {
        "how long a participant waits for each answer"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let rate = settings.rate_or(1_000.0);
        let row = measure(&self.0, settings, (1, 1), Some(rate))?;
        Ok(vec![row])
    }
}

/// Several connections, several requests at a time.
#[derive(Debug)]
pub struct Flood {
    /// Who asks.
    pub participant: Participant,
    /// Sessions, each on a connection of its own.
    pub connections: usize,
    /// Requests in flight on each.
    pub window: u64,
    /// Requests per second, planned; as many as the windows let through where this is not given.
    pub rate: Option<f64>,
}

impl Scenario for Flood {
    fn name(&self) -> &'static str {
        "tcp_throughput"
    }

    fn shows(&self) -> &'static str {
        "how many requests per second the venue acknowledges"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        Ok(vec![measure(&self.participant, settings, (self.connections, self.window), self.rate)?])
    }
}

fn measure(
    participant: &Participant,
    settings: &Settings,
    (connections, window): (usize, u64),
    rate: Option<f64>,
) -> Result<Row, Failure> {
    let outcome = |load: &mut Load<PlaceCancel>, seconds: f64| match rate {
        Some(rate) => load.open(rate, seconds, window),
        None => load.closed(window, seconds),
    };
    let is_here = participant.address.ip().is_loopback();
    let mut load = participant.load(participant.address, connections)?;
    let (mut latencies, mut throughput) = (Latencies::default(), Rounds::default());
    let mut floor = Rounds::default();
    for _ in 0..settings.rounds {
        if is_here {
            let echo = Echo::start(participant.wait, None)?;
            let mut bare = participant.load(echo.address, connections)?;
            let Outcome { latency, .. } = outcome(&mut bare, settings.seconds.min(ECHO_SECONDS_MAX))?;
            floor.push(latency.value_at_quantile(0.5) as f64);
        }
        let outcome = outcome(&mut load, settings.seconds)?;
        throughput.push(outcome.per_second());
        latencies.push(&outcome.latency);
    }
    load.clear_up()?;
    let wait = wait_name(participant.wait);
    let row = Row::new(format!("{connections} connections x {window}"))
        .throughput(throughput)
        .latency(latencies)
        .note(format!("half orders, half cancels; client {wait}"));
    let row = if is_here {
        row.floor(format!("bare mio echo in this process, {wait}"), Against::Latency, floor)
    } else {
        row.note("not over loopback, so there is no bare echo beside it")
    };
    Ok(match rate {
        Some(rate) => {
            row.note(format!("open loop at {rate:.0} requests per second, from the planned send time"))
        }
        None => row.note("closed loop: a latency is that of a queue as long as the window"),
    })
}
