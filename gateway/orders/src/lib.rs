//! The order gateway: the one door through which every command enters.
//!
//! One thread on `mio` serves all binary connections: it checks logins, numbers, throttles and ages, puts commands
//! in line for the log, and hands committed reports and market data back. A second thread, the back office, verifies
//! signatures and reads the replica, so the loop never waits. Bytes are `grid_wire`'s; what is allowed is the
//! engine's to say.
//!
//! | module | holds |
//! |---|---|
//! | `config` | every bound |
//! | `venue`, `line` | what the gateway needs of log and replica; the log's side of it |
//! | `gateway` | the loop: its turns, and what they hold |
//! | `gateway::table` | who is connected, by number |
//! | `gateway::sessions` | on which connection a session lives |
//! | `gateway::leadership` | whether clients are served here; the sessions that an earlier leader left |
//! | `gateway::clients` | how a connection comes, is kept, and ends |
//! | `gateway::logins` | how a connection becomes a live session, and why not |
//! | `gateway::requests` | frames to commands in line: phase, number, throttle, age, room |
//! | `gateway::routing` | which session a committed event concerns |
//! | `gateway::retransmission` | reports sent again |
//! | `bell` | how the loop is woken, and not where it is awake |
//! | `back_office` | signatures and replica reads, beside the loop |
//! | `connection`, `throttle` | one client's bytes, numbers and buckets |
//! | `commands`, `reports` | wire to engine and back, one message at a time |
//! | `feed`, `market`, `depth` | who subscribes and who is behind; the books, and what each class is told; one side of a book |
//!
//! Not here: HTTP, TLS (plain TCP on loopback for now), and any rule of the market.

mod back_office;
mod bell;
mod commands;
mod config;
mod connection;
mod depth;
mod feed;
mod gateway;
mod line;
mod market;
mod reports;
mod throttle;
mod venue;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub use config::{Config, Rate, Wait};
pub use line::{LogLine, to_be_hosted};
pub use venue::{Line, LineError, View, Wake};

/// A running order gateway; dropping it ends it.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    bell: Arc<bell::Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Serves the binary protocol on a bound listener. The view must be at least as far as the line was when its
    /// polling began.
    ///
    /// # Errors
    /// When the system gives no poll, waker or thread.
    pub fn start<L: Line, V: View>(
        listener: TcpListener,
        config: Config,
        line: L,
        view: V,
    ) -> std::io::Result<Self> {
        let core = config.core;
        let Ready { address, stop, bell, turning } = Ready::on(listener, config, line, view)?;
        let thread = std::thread::Builder::new().name("grid-orders".to_owned()).spawn(move || {
            if let Some(id) = core
                && !core_affinity::set_for_current(core_affinity::CoreId { id })
            {
                tracing::warn!(core = id, "the order gateway could not be pinned");
            }
            turning.run();
        })?;
        Ok(Self { address, stop, bell, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells every client that the venue shuts down, and ends.
    pub fn stop(mut self) {
        self.halt();
    }

    /// Whether the loop still runs.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic in the loop has been printed by its thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.halt();
    }
}

/// An order gateway that nothing turns but its holder's calls: for whoever counts what a turn costs.
pub struct ByHand<L, V> {
    ready: Ready<L, V>,
    events: mio::Events,
}

impl<L, V> std::fmt::Debug for ByHand<L, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByHand").field("address", &self.ready.address).finish_non_exhaustive()
    }
}

impl<L: Line, V: View> ByHand<L, V> {
    /// As [`Gateway::start`], without the thread of the loop.
    ///
    /// # Errors
    /// When the system gives no poll, waker or thread for the back office.
    pub fn new(listener: TcpListener, config: Config, line: L, view: V) -> std::io::Result<Self> {
        Ok(Self { ready: Ready::on(listener, config, line, view)?, events: mio::Events::with_capacity(1024) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.ready.address
    }

    /// One turn of the loop: reads what has come, hands it to the line, and writes what the line has told. It waits for
    /// something to come unless the configuration has it spin.
    pub fn turn(&mut self) {
        self.ready.turning.turn(&mut self.events);
    }
}

/// A loop that is ready to turn, and how it is stopped.
struct Ready<L, V> {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    bell: Arc<bell::Bell>,
    turning: gateway::Loop<L, V>,
}

impl<L: Line, V: View> Ready<L, V> {
    fn on(listener: TcpListener, config: Config, mut line: L, view: V) -> std::io::Result<Self> {
        let view = Arc::new(view);
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let poll = mio::Poll::new()?;
        let bell = Arc::new(bell::Bell::new(mio::Waker::new(poll.registry(), gateway::WAKER)?));
        let wake = || -> Wake {
            let bell = Arc::clone(&bell);
            Box::new(move || bell.ring())
        };
        line.wake_with(wake());
        let back_office =
            back_office::BackOffice::start(Arc::clone(&view), config.logins_pending_max, wake())?;
        let stop = Arc::new(AtomicBool::new(false));
        let listener = mio::net::TcpListener::from_std(listener);
        let ends =
            gateway::Ends { poll, listener, back_office, bell: Arc::clone(&bell), stop: Arc::clone(&stop) };
        let turning = gateway::Loop::new(config, line, view, ends)?;
        Ok(Self { address, stop, bell, turning })
    }
}
