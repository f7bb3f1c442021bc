//! Every bound of the gateway, by name. All of them are data: a deployment, a test or a benchmark sets
//! what it needs, and the acknowledgement of a login tells the client those that concern it.

use std::time::Duration;

/// Bounds and pace of the order gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The core that the loop's thread is pinned to, by its number; `None` leaves it to the system.
    pub core: Option<usize>,
    /// What the loop does when there is nothing to do.
    pub wait: Wait,
    /// Connections at one time; one more is told `Full` and closed.
    pub connections_max: usize,
    /// The longest frame from a client, in bytes.
    pub frame_max: usize,
    /// From accept to a live session.
    pub login_timeout: Duration,
    /// Refused logins after which a connection ends.
    pub login_refusals_max: u32,
    /// Logins being verified at one time; one more is told `Busy`.
    pub logins_pending_max: usize,
    /// The shortest keep-alive interval that a client may ask for.
    pub keep_alive_min: Duration,
    /// The longest.
    pub keep_alive_max: Duration,
    /// Bytes waiting for a reader at which its market data is conflated.
    pub conflate_above: usize,
    /// Bytes waiting for a reader at which its connection ends.
    pub out_max: usize,
    /// How long a connection may take to read its last bytes once it was terminated.
    pub linger: Duration,
    /// How long the inbound ring may take nothing from anybody before requests are refused as busy; until then they
    /// wait, and their senders with them.
    pub busy_after: Duration,
    /// Requests other than cancels, per session.
    pub requests: Rate,
    /// Cancels, per session. Mass cancels always pass.
    pub cancels: Rate,
    /// Refusals by throttle; when these run out too, the connection ends.
    pub refusals: Rate,
    /// Market data subscriptions of one connection.
    pub subscriptions_max: usize,
    /// The deepest limited depth served; zero (whole book) is always served.
    pub depth_max: u16,
    /// Life of a reservation whose request names none.
    pub reservation_life: Duration,
    /// Sessions of an earlier leader that a new one reports lost to the log in a fiftieth of a second, at most: their
    /// clients come back just then, and need the line more.
    pub orphans_at_once: usize,
}

/// What the loop's thread does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Sleep until a socket, the log or a deadline wakes it.
    #[default]
    Park,
    /// Look again at once; burns the core that the thread layout gave it.
    Spin,
}

/// A token bucket's measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What flows in per second; zero for nothing ever.
    pub per_second: u32,
    /// What it holds.
    pub burst: u32,
}

impl Config {
    /// The usual bounds, on the core and with the waiting of the thread whose stages the gateway steps.
    #[must_use]
    pub fn hosting(plan: &grid_sequencer::ThreadPlan) -> Self {
        let wait = match plan.wait {
            grid_sequencer::Wait::Spin => Wait::Spin,
            grid_sequencer::Wait::Yield | grid_sequencer::Wait::Park => Wait::Park,
        };
        Self { core: plan.core, wait, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            core: None,
            wait: Wait::Park,
            connections_max: 1_024,
            frame_max: grid_wire::MAX_FRAME_LEN,
            login_timeout: Duration::from_secs(5),
            login_refusals_max: 3,
            logins_pending_max: 256,
            keep_alive_min: Duration::from_millis(100),
            keep_alive_max: Duration::from_secs(60),
            conflate_above: 256 * 1024,
            out_max: 16 * 1024 * 1024,
            linger: Duration::from_secs(1),
            busy_after: Duration::from_secs(1),
            requests: Rate { per_second: 50_000, burst: 50_000 },
            cancels: Rate { per_second: 100_000, burst: 100_000 },
            refusals: Rate { per_second: 100, burst: 2_000 },
            subscriptions_max: 256,
            depth_max: 1_000,
            reservation_life: Duration::from_secs(600),
            orphans_at_once: 128,
        }
    }
}
