//! The client of the binary protocol: everything that changes the venue goes through here.
//!
//! A [`Client`] is a cloneable handle on one session. Callers, async or blocking, write their requests to the socket themselves
//! and have as many in flight as the window allows, each under its own client sequence number; a thread of its own, or a task of
//! the caller's runtime, waits for the answers. When
//! the connection breaks, or its node no longer leads, the client takes up the same session elsewhere, learns what was
//! applied, sends the unanswered again under the same numbers, and asks for the reports that it missed. A caller is
//! answered once, and knows of a change of leaders only by the time that its answer took.
//!
//! ```no_run
//! # fn main() -> Result<(), grid_client::ClientError> {
//! use grid_client::{Client, Config};
//! use grid_wire::{NewOrder, Side};
//!
//! let config = Config::new(vec!["127.0.0.1:7000".parse().unwrap()], [7; 32]);
//! let client = Client::connect(config)?;
//! let order = NewOrder { instrument: 0, side: Side::Buy, price: 810, qty: 3, ..NewOrder::default() };
//! let answer = client.call_blocking(order)?;
//! println!("in the log at {}", answer.log_seq());
//! # Ok(()) }
//! ```
//!
//! Makers say what all their quotes are to be in one request, [`Quotes`]; its answer, [`Report::MassQuote`], brings what was refused.
//!
//! ```no_run
//! # fn quote(client: &grid_client::Client) -> Result<(), grid_client::ClientError> {
//! use grid_client::{Quotes, Report};
//! use grid_wire::{MassQuote, OrderFlags, QuoteEntry, QuoteProtection};
//!
//! // All of them are pulled after ten fills within a second.
//! client.call_blocking(QuoteProtection { window_us: 1_000_000, fills: 10, ..QuoteProtection::default() })?;
//! let around = |quote, middle: u64| QuoteEntry {
//!     instrument: 0, quote, bid_price: middle - 5, bid_qty: 3, ask_price: middle + 5, ask_qty: 3,
//! };
//! let how = MassQuote { flags: OrderFlags::POST_ONLY, ..MassQuote::default() };
//! let answer = client.call_blocking(Quotes::new(how, vec![around(1, 810), around(2, 815)]))?;
//! if let Report::MassQuote(_, refusals) = answer {
//!     refusals.iter().for_each(|side| println!("{:?} of quote {}: code {}", side.side, side.quote, side.code));
//! }
//! # Ok(()) }
//! ```
//!
//! What a failure says about the request: [`ClientError::not_applied`]. Not here: HTTP, and the meaning of codes
//! (the engine's list of rejects).

mod book;
mod core;
mod error;
mod flow;
mod link;
mod message;
mod pace;
mod quotes;
mod route;
mod task;
mod thread;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{broadcast, oneshot};

use crate::link::Shared;

pub use crate::book::{BookImage, Depth};
pub use crate::error::{ClientError, Refusal};
pub use crate::message::{Event, Report, Request};
pub use crate::quotes::Quotes;

/// How to reach the venue and how to behave there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Gateways, tried in order and round again; those that a node names as leader are added for this client's life.
    pub addresses: Vec<SocketAddr>,
    /// The session's id; keep it to resume the session in another process. Zero draws one at random.
    pub session: u128,
    /// Seed of the Ed25519 key that signs the login.
    pub key_seed: [u8; 32],
    /// Longest silence on the connection, asked of both sides; three of them end it.
    pub keep_alive: Duration,
    /// How long a node may say nothing, when it is dialled, during the login and, where that is shorter than three
    /// keep-alive intervals, afterwards, before another is tried; a connection with nothing late is never given up. The
    /// time in which a node that was paused or cut off is found out.
    pub silence: Duration,
    /// Cancels the session's open orders once a lost connection has stayed away this long; `None` keeps them.
    pub cancel_on_disconnect: Option<Duration>,
    /// Requests sent and not yet answered, at most.
    pub window: usize,
    /// Requests that wait to be sent, at most; one more is [`ClientError::Busy`].
    pub queue: usize,
    /// How long a caller waits for an answer.
    pub call_timeout: Duration,
    /// How long [`Client::connect`] waits for a session.
    pub connect_timeout: Duration,
    /// Events that a slow listener may be behind before it loses the oldest.
    pub event_capacity: usize,
}

impl Config {
    /// A random session with no cancel-on-disconnect and limits that suit a service.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, key_seed: [u8; 32]) -> Self {
        Self {
            addresses,
            session: 0,
            key_seed,
            keep_alive: Duration::from_secs(1),
            silence: Duration::from_secs(2),
            cancel_on_disconnect: None,
            window: 1_024,
            queue: 65_536,
            call_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            event_capacity: 65_536,
        }
    }
}

/// A handle on a live session; clones share it. The session's connection ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    events: broadcast::Sender<Event>,
    session: u128,
    account: Arc<OnceLock<u32>>,
    driver: Mutex<Option<Driver>>,
}

/// Whoever waits for the socket.
#[derive(Debug)]
enum Driver {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// What the handles hand in.
#[derive(Debug)]
enum Input {
    Call { request: Request, reply: Reply, at: Instant },
    Subscribe { instrument: u16, depth: u16 },
    Unsubscribe { instrument: u16 },
}

type Reply = oneshot::Sender<Result<Report, ClientError>>;

impl Client {
    /// Connects, logs in and takes up the session; waits until it is live. Call it outside async code, or on a
    /// thread that may block.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where the venue will not have this session, [`ClientError::Io`] where no gateway could be
    /// reached or none answered in `connect_timeout`.
    pub fn connect(config: Config) -> Result<Self, ClientError> {
        let (config, events, account) = begin(config);
        let session = config.session;
        let (shared, thread) = thread::start(config, events.clone(), Arc::clone(&account))?;
        Ok(Self::new(shared, events, session, account, Driver::Thread(thread)))
    }

    /// The same, with a task of this runtime in the thread's place: where those who await answers run on it too, an answer
    /// reaches them without a thread in between.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_here(config: Config) -> Result<Self, ClientError> {
        let (config, events, account) = begin(config);
        let session = config.session;
        let (shared, task) = task::start(config, events.clone(), Arc::clone(&account)).await?;
        Ok(Self::new(shared, events, session, account, Driver::Task(task)))
    }

    fn new(
        shared: Arc<Shared>,
        events: broadcast::Sender<Event>,
        session: u128,
        account: Arc<OnceLock<u32>>,
        driver: Driver,
    ) -> Self {
        let driver = Mutex::new(Some(driver));
        Self { inner: Arc::new(Inner { shared, events, session, account, driver }) }
    }

    /// Sends a request; the result is its answer, to be awaited or waited for. Requests of one thread are sent in
    /// the order of these calls.
    pub fn submit(&self, request: impl Into<Request>) -> Pending {
        let (reply, answer) = oneshot::channel();
        let request = request.into();
        if let Some(error) = request.unfit() {
            let _ = reply.send(Err(error));
        } else {
            self.inner.shared.call(request, reply);
        }
        Pending { answer }
    }

    /// Sends a request and awaits its answer.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::not_applied`] tells whether it can safely be sent again.
    pub async fn call(&self, request: impl Into<Request>) -> Result<Report, ClientError> {
        self.submit(request).await
    }

    /// Sends a request and waits for its answer. Not for async code.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_blocking(&self, request: impl Into<Request>) -> Result<Report, ClientError> {
        self.submit(request).wait()
    }

    /// Everything that the venue says from now on: reports, market data, and what becomes of the connection.
    /// A listener that falls behind by more than `event_capacity` is told how many it lost.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Asks for depth and trades of an instrument; `depth` levels a side, 0 for all. The snapshot, the changes and
    /// a refusal come as events. After a reconnection the client subscribes anew by itself.
    ///
    /// # Errors
    /// [`ClientError::Busy`] or [`ClientError::Closed`].
    pub fn subscribe(&self, instrument: u16, depth: u16) -> Result<(), ClientError> {
        self.send(Input::Subscribe { instrument, depth })
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`ClientError::Busy`] or [`ClientError::Closed`].
    pub fn unsubscribe(&self, instrument: u16) -> Result<(), ClientError> {
        self.send(Input::Unsubscribe { instrument })
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> u128 {
        self.inner.session
    }

    /// The account that the session trades for.
    #[must_use]
    pub fn account(&self) -> u32 {
        self.inner.account.get().copied().unwrap_or_default()
    }

    /// Ends the session's connection in good order and waits for that, where it has a thread of its own; a task ends by itself a
    /// moment later. Requests without an answer, of any clone, fail with [`ClientError::Closed`].
    pub fn close(self) {
        self.inner.shared.stop();
        if let Some(Driver::Thread(thread)) = self.inner.driver.lock().take() {
            let _ = thread.join();
        }
    }

    /// The same, waiting for a task too.
    pub async fn closed(self) {
        self.inner.shared.stop();
        let driver = self.inner.driver.lock().take();
        match driver {
            Some(Driver::Task(task)) => drop(task.await),
            Some(Driver::Thread(thread)) => drop(tokio::task::spawn_blocking(|| thread.join()).await),
            None => {}
        }
    }

    fn send(&self, input: Input) -> Result<(), ClientError> {
        self.inner.shared.send(input)
    }
}

/// What either way of connecting begins with.
fn begin(mut config: Config) -> (Config, broadcast::Sender<Event>, Arc<OnceLock<u32>>) {
    while config.session == 0 {
        config.session = rand::random();
    }
    let (events, _) = broadcast::channel(config.event_capacity.max(16));
    (config, events, Arc::default())
}

/// The answer to come of a request that was submitted. Dropping it does not take the request back.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Report, ClientError>>,
}

impl Pending {
    /// Waits for the answer. Not for async code.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn wait(self) -> Result<Report, ClientError> {
        self.answer.blocking_recv().unwrap_or(Err(ClientError::Closed))
    }
}

impl Future for Pending {
    type Output = Result<Report, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or(Err(ClientError::Closed)))
    }
}
