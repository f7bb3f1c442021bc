//! A market maker that quotes through the binary door, so that a young venue has a book to trade on.
//!
//! For each instrument it keeps a few levels on both sides of a reference price that wanders by a seeded random
//! walk, asks only what it owns, puts filled quantity back, and never changes more quotes at once than its budget allows. One
//! mass quote moves them all, and quote protection takes them out when too much of them is filled at once. It is an
//! ordinary participant: it knows the protocol's client and nothing of the venue's inside.
//!
//! `quoter` decides, without a clock or a socket; this file waits, sends and listens.

mod quoter;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grid_client::{Client, ClientError, Event, Quotes, Report};
use grid_wire::{
    CancelScope, MassCancel, MassQuote, OrderFlags, QuoteEntry, QuoteProtection, SelfTrade, SideScope,
};
use tokio::sync::broadcast::error::TryRecvError;

use crate::quoter::Quoter;
pub use crate::quoter::{Fills, Quote};

/// The venue's code for a mass quote after quote protection pulled.
const PULLED: u16 = 24;

/// Turns of each instrument that a maker whose quotes were pulled lets pass before it quotes again.
const REST_TURNS: usize = 2;

/// What to quote and how busily.
#[derive(Clone, Debug)]
pub struct MakerConfig {
    /// The instruments.
    pub quotes: Vec<Quote>,
    /// Time between two looks at one instrument.
    pub interval: Duration,
    /// Quotes of one instrument that are changed in one interval, at most, all of them in one message; with the venue each counts
    /// as a request. With fewer than there are levels, levels that wait may stand in the way of those that moved.
    pub quotes_per_interval: usize,
    /// What has all quotes pulled.
    pub protection: QuoteProtection,
    /// The random walk follows from this.
    pub seed: u64,
}

impl Default for MakerConfig {
    fn default() -> Self {
        Self {
            quotes: Vec::new(),
            interval: Duration::from_secs(1),
            quotes_per_interval: 4,
            // Some times more than what one instrument shows on one side, within a second.
            protection: QuoteProtection {
                window_us: 1_000_000,
                fills: 64,
                qty: 100,
                ..QuoteProtection::default()
            },
            seed: 1,
        }
    }
}

/// What a maker has done and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MakerStats {
    /// Looks taken, over all instruments.
    pub steps: u64,
    /// Mass quotes sent.
    pub requests: u64,
    /// Sides of quotes refused; a maker at the edge of its money or units sees some.
    pub refused: u64,
    /// How often quote protection took all quotes out.
    pub pulled: u64,
    /// By instrument, in the order of the configuration.
    pub instruments: Vec<Fills>,
    /// Why it stopped by itself, if it did.
    pub stopped: Option<String>,
}

/// A maker at work; it stops, and cancels all that it quoted, when told to or when dropped.
#[derive(Debug)]
pub struct Maker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stats: Mutex<MakerStats>,
    stop: Mutex<bool>,
    stopping: Condvar,
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, MakerStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until then, or until told to stop; true means stop.
    fn wait_until(&self, moment: Instant) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let left = moment.saturating_duration_since(Instant::now());
        let waited = self.stopping.wait_timeout_while(stop, left, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.notify_all();
    }
}

impl Maker {
    /// Starts quoting on this session. Orders that its account still has from an earlier life are cancelled first.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(client: Client, config: MakerConfig) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.stats().instruments = config.quotes.iter().map(Fills::new).collect();
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("maker".into()).spawn(move || {
            let mut work = Work::new(client, config, inside);
            if let Err(error) = work.run() {
                tracing::warn!(%error, "the market maker stopped");
                work.shared.stats().stopped = Some(error.to_string());
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> MakerStats {
        self.shared.stats().clone()
    }

    /// Stops, cancels all that it quoted, and says what it did.
    #[must_use]
    pub fn stop(mut self) -> MakerStats {
        self.end();
        self.stats()
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.end();
    }
}

struct Work {
    client: Client,
    events: tokio::sync::broadcast::Receiver<Event>,
    quoters: Vec<Quoter>,
    interval: Duration,
    protection: QuoteProtection,
    /// Turns until a maker whose quotes were pulled goes on.
    rest: Option<usize>,
    shared: Arc<Shared>,
}

impl Work {
    fn new(client: Client, config: MakerConfig, shared: Arc<Shared>) -> Self {
        let quoters = (config.quotes.iter().enumerate())
            .map(|(i, quote)| Quoter::new(quote.clone(), config.quotes_per_interval, config.seed + i as u64))
            .collect();
        let (interval, protection) = (config.interval, config.protection);
        Self { events: client.events(), client, quoters, interval, protection, rest: None, shared }
    }

    fn run(&mut self) -> Result<(), ClientError> {
        self.cancel_all()?;
        if self.quoters.is_empty() {
            return Ok(());
        }
        self.client.call_blocking(self.protection)?;
        // Instruments take turns inside the interval, so that the venue sees a drizzle and not showers.
        let pause = self.interval / self.quoters.len() as u32;
        let mut next = Instant::now();
        for turn in (0..self.quoters.len()).cycle() {
            if self.shared.wait_until(next) {
                break;
            }
            self.step(turn)?;
            next = (next + pause).max(Instant::now());
        }
        self.cancel_all().map(|_| ())
    }

    fn step(&mut self, turn: usize) -> Result<(), ClientError> {
        self.listen()?;
        match self.rest {
            Some(0) => {
                self.client.call_blocking(self.protection)?;
                self.rest = None;
            }
            Some(turns) => self.rest = Some(turns - 1),
            None => self.quote(turn)?,
        }
        self.listen()?;
        let mut stats = self.shared.stats();
        stats.steps += 1;
        for (fills, quoter) in stats.instruments.iter_mut().zip(&self.quoters) {
            *fills = quoter.fills().clone();
        }
        Ok(())
    }

    /// Brings the quotes of one instrument where they should be.
    fn quote(&mut self, turn: usize) -> Result<(), ClientError> {
        let entries = self.quoters[turn].step();
        if entries.is_empty() {
            return Ok(());
        }
        let refused = match self.client.call_blocking(post_only(&entries)) {
            Ok(Report::MassQuote(report, refusals)) if refusals.len() == usize::from(report.refused) => {
                for told in refusals.iter() {
                    let (instrument, quote, code) = (told.instrument, told.quote, told.code);
                    tracing::debug!(instrument, quote, side = ?told.side, code, "a side of a quote was refused");
                }
                self.quoters[turn].quoted(&entries, &report, &refusals);
                refusals.len() as u64
            }
            // Pulled a moment ago, which the venue's own word will tell.
            Err(error) if error.code() == Some(PULLED) => 0,
            Err(error) if error.not_applied() => {
                tracing::debug!(%error, "quotes were refused");
                2 * entries.len() as u64
            }
            // Unknown in part or whole: what the venue really holds is learnt by emptying it.
            Ok(_) | Err(ClientError::Timeout { .. } | ClientError::AnswerLost) => return self.start_over(),
            Err(error) => return Err(error),
        };
        let mut stats = self.shared.stats();
        stats.requests += 1;
        stats.refused += refused;
        Ok(())
    }

    /// Takes in what the venue has said since.
    fn listen(&mut self) -> Result<(), ClientError> {
        loop {
            match self.events.try_recv() {
                Ok(Event::Report(Report::Execution(report))) => {
                    self.quoters.iter_mut().for_each(|quoter| quoter.report(&report));
                }
                Ok(Event::Report(Report::QuotesPulled(told))) => {
                    tracing::info!(
                        orders = told.count,
                        "quote protection took the market maker's quotes out"
                    );
                    self.shared.stats().pulled += 1;
                    self.rest = Some(REST_TURNS * self.quoters.len());
                }
                Ok(Event::ReportsLost { .. }) | Err(TryRecvError::Lagged(_)) => return self.start_over(),
                Ok(Event::Stopped(error)) => return Err(error),
                Ok(_) => {}
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Closed) => return Err(ClientError::Closed),
            }
        }
    }

    fn start_over(&mut self) -> Result<(), ClientError> {
        let at = self.cancel_all()?;
        self.events = self.client.events();
        self.quoters.iter_mut().for_each(|quoter| quoter.forget(at));
        // Whether they were pulled meanwhile is not known.
        self.client.call_blocking(self.protection)?;
        self.rest = None;
        Ok(())
    }

    /// Cancels everything; the place in the log where nothing was left.
    fn cancel_all(&mut self) -> Result<u64, ClientError> {
        let all = MassCancel { scope: CancelScope::Account, side: SideScope::Both, ..MassCancel::default() };
        self.client.call_blocking(all).map(|done| done.log_seq())
    }
}

/// These quotes, none of which is to trade as it comes in.
fn post_only(entries: &[QuoteEntry]) -> Quotes {
    let how = MassQuote {
        self_trade: SelfTrade::CancelNewest,
        flags: OrderFlags::POST_ONLY,
        ..MassQuote::default()
    };
    Quotes::new(how, entries.to_vec())
}
