//! Every limit and clock of the tier by name, so that "full" and "too late" are answers and never surprises.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use grid_engine::KeyHash;

use crate::needs::Needs;
use crate::probe::Probing;
use crate::seal::VenueKey;

/// How the tier runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where OpenAI clients connect; port 0 takes any free port.
    pub inference_addr: SocketAddr,
    /// Where Anthropic clients connect, if anywhere; the same routes, errors in Anthropic's envelope.
    pub messages_addr: Option<SocketAddr>,
    /// Opens the suppliers' credentials.
    pub venue_key: VenueKey,
    /// Sizes and counts.
    pub limits: Limits,
    /// Times.
    pub clocks: Clocks,
    /// Choice of suppliers.
    pub routing: Routing,
    /// How far a supplier's count may stray from ours.
    pub metering: Metering,
    /// How suppliers are tried.
    pub probing: Probing,
    /// Nodes that calls are sent on to.
    pub dispatch: Dispatch,
    /// What models are known to lack, by their name at the supplier. One that is not here is taken to do everything
    /// until it refuses something.
    pub lacks: HashMap<String, Needs>,
    /// Hash of the secret with which an operator, in `x-grid-operator`, sees how calls are routed and what the tier
    /// counts; nobody does where it is none.
    pub operator: Option<KeyHash>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            inference_addr: (Ipv4Addr::LOCALHOST, 0).into(),
            messages_addr: None,
            venue_key: VenueKey::new([0; 32]),
            limits: Limits::default(),
            clocks: Clocks::default(),
            routing: Routing::default(),
            metering: Metering::default(),
            probing: Probing::default(),
            dispatch: Dispatch::default(),
            lacks: HashMap::new(),
            operator: None,
        }
    }
}

/// Sizes and counts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body, in bytes; a larger one is 413.
    pub body_bytes: usize,
    /// Largest answer of a call that is not streamed, in bytes.
    pub answer_bytes: usize,
    /// Largest event of a stream, in bytes.
    pub event_bytes: usize,
    /// Largest request head, in bytes (at least 8,192).
    pub head_bytes: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Open connections.
    pub connections: usize,
    /// Calls in progress, all keys together; more are 503.
    pub calls: usize,
    /// Calls of one key.
    pub key: KeyLimits,
    /// Events between supplier and a slow client.
    pub events_buffered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            answer_bytes: 32 << 20,
            event_bytes: 1 << 20,
            head_bytes: 64 << 10,
            headers: 100,
            connections: 20_000,
            calls: 10_000,
            key: KeyLimits::default(),
            events_buffered: 32,
        }
    }
}

/// Calls of one key; above either, 429.
#[derive(Clone, Copy, Debug)]
pub struct KeyLimits {
    /// Calls in progress.
    pub concurrent: u32,
    /// Calls per second in the long run; 0 is no limit.
    pub per_second: u32,
    /// Calls at once after a pause.
    pub burst: u32,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self { concurrent: 1_000, per_second: 0, burst: 100 }
    }
}

/// The lowest throughput floor of any instrument (contract §2.1).
pub(crate) const SLOWEST_TOKENS_PER_SECOND: u64 = 30;

/// Times.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// For a client to send its request head; an idle connection is closed after it too.
    pub head_read: Duration,
    /// For a client to send its body.
    pub body_read: Duration,
    /// How long a client may leave the stream unread before it counts as gone.
    pub client_stall: Duration,
    /// For the venue to answer a reservation.
    pub reserve: Duration,
    /// How long a read waits for settlements of its account that are on their way; after that it shows what there is.
    pub settle: Duration,
    /// For a supplier to accept a connection.
    pub connect: Duration,
    /// From the request to a supplier's first content, at most. Where the instrument promises a first token sooner,
    /// a supplier has [`Routing::ttft_factor`] times as long as that, but not less than `first_content_min`.
    pub first_content: Duration,
    /// From the request to a supplier's first content, at least.
    pub first_content_min: Duration,
    /// From the reservation to the first content, whichever supplier it comes from: no attempt at a stream goes on for
    /// longer. A client that says how long it waits (`x-stainless-read-timeout`, `x-stainless-timeout`) is never kept
    /// longer than that.
    pub search: Duration,
    /// Between two frames of a supplier's stream.
    pub idle: Duration,
    /// From the request to a supplier's whole answer, where it is not streamed; the time for as many tokens as the
    /// client's own limit names, at the lowest throughput floor of any instrument, comes on top.
    pub whole_answer: Duration,
    /// The whole call, all attempts together; below `reservation`, so that it can still be settled.
    pub call: Duration,
    /// Life of a reservation, in log time.
    pub reservation: Duration,
    /// How long a shutdown waits for calls in progress.
    pub shutdown: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            head_read: Duration::from_secs(60),
            body_read: Duration::from_secs(30),
            client_stall: Duration::from_secs(60),
            reserve: Duration::from_secs(25),
            settle: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            first_content: Duration::from_secs(20),
            first_content_min: Duration::from_secs(5),
            search: Duration::from_secs(60),
            idle: Duration::from_secs(20),
            whole_answer: Duration::from_secs(180),
            call: Duration::from_secs(840),
            reservation: Duration::from_secs(900),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// Choice of suppliers.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Attempts for one call, at all suppliers together.
    pub attempts: u32,
    /// How many times the instrument's ceiling of the time to the first token an attempt is waited for.
    pub ttft_factor: u32,
    /// Longest wait before the second attempt of a call; each further one may be twice as long, and the wait lies
    /// somewhere in its upper half.
    pub retry_wait: Duration,
    /// Longest wait before any attempt, and longest pause of a busy supplier that a call waits for where there is
    /// nobody else.
    pub retry_wait_max: Duration,
    /// Failures in a row after which a supplier gets no calls of an instrument.
    pub breaker_failures: u32,
    /// For how long; then one probe decides. Twice as long each time that the probe fails.
    pub breaker_open: Duration,
    /// For how long at most.
    pub breaker_open_max: Duration,
    /// How long a supplier is left alone that has too much to do and does not say until when; twice as long each time.
    pub busy_pause: Duration,
    /// Calls in progress at one supplier.
    pub supplier_concurrent: u32,
    /// Output limit where neither client nor instrument names one, in tokens.
    pub output_tokens: u64,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            attempts: 4,
            ttft_factor: 2,
            retry_wait: Duration::from_millis(20),
            retry_wait_max: Duration::from_secs(2),
            breaker_failures: 5,
            breaker_open: Duration::from_secs(5),
            breaker_open_max: Duration::from_secs(120),
            busy_pause: Duration::from_secs(1),
            supplier_concurrent: 4_096,
            output_tokens: 16_384,
        }
    }
}

/// Calls that are sent on to other nodes with a 307 instead of being answered in place. Off where no node is named.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// This node's base URL, ending in `/v1`, as other nodes name it; the address it listens at where it is none.
    pub here: Option<String>,
    /// Base URLs of the nodes that calls are sent to, ending in `/v1`; this one may be among them.
    pub nodes: Vec<String>,
    /// How long a ticket is good for; clocks of nodes may differ by a fraction of it.
    pub ticket_life: Duration,
    /// Tickets that were taken and have not expired yet, at most; more are 503.
    pub tickets: usize,
    /// How often each node is asked whether it is up.
    pub check: Duration,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            here: None,
            nodes: Vec::new(),
            ticket_life: Duration::from_secs(30),
            tickets: 1 << 20,
            check: Duration::from_secs(1),
        }
    }
}

/// How far above our own count a supplier's may be, `own + own × percent / 100 + slack`, and ours above its own. Beyond
/// it, ours is billed, and the supplier has lied.
///
/// Tokenizers of different model families differ by some tens of percent on the same text; the slack covers chat
/// templates and short answers. Reasoning that is not shown can't be checked, so it is billed only within this tolerance.
#[derive(Clone, Copy, Debug)]
pub struct Metering {
    /// Relative tolerance.
    pub percent: u64,
    /// Absolute tolerance, in tokens, for prompt and completion each.
    pub slack: u64,
}

impl Default for Metering {
    fn default() -> Self {
        Self { percent: 50, slack: 64 }
    }
}
