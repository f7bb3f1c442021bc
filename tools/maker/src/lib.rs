//! A market maker that quotes through the binary door, so that a young venue has a book to trade on.
//!
//! For each instrument it keeps a few levels on both sides of a reference price that wanders by a seeded random
//! walk, asks only what it owns, puts filled quantity back, and never sends more than its message budget. It is an
//! ordinary participant: it knows the protocol's client and nothing of the venue's inside.
//!
//! `quoter` decides, without a clock or a socket; this file waits, sends and listens.

mod quoter;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grid_client::{Client, ClientError, Event, Report};
use grid_wire::{CancelScope, MassCancel, SideScope};
use tokio::sync::broadcast::error::TryRecvError;

use crate::quoter::Quoter;
pub use crate::quoter::{Fills, Quote};

/// What to quote and how busily.
#[derive(Clone, Debug)]
pub struct MakerConfig {
    /// The instruments.
    pub quotes: Vec<Quote>,
    /// Time between two looks at one instrument.
    pub interval: Duration,
    /// Orders, replacements and cancels per instrument in one interval, at most.
    pub messages_per_interval: usize,
    /// The random walk follows from this.
    pub seed: u64,
}

impl Default for MakerConfig {
    fn default() -> Self {
        Self { quotes: Vec::new(), interval: Duration::from_secs(1), messages_per_interval: 4, seed: 1 }
    }
}

/// What a maker has done and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MakerStats {
    /// Looks taken, over all instruments.
    pub steps: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests refused; a maker at the edge of its money or units sees some.
    pub refused: u64,
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
    shared: Arc<Shared>,
}

impl Work {
    fn new(client: Client, config: MakerConfig, shared: Arc<Shared>) -> Self {
        let quoters = (config.quotes.iter().enumerate())
            .map(|(i, quote)| {
                Quoter::new(quote.clone(), config.messages_per_interval, config.seed + i as u64)
            })
            .collect();
        Self { events: client.events(), client, quoters, interval: config.interval, shared }
    }

    fn run(&mut self) -> Result<(), ClientError> {
        self.cancel_all()?;
        if self.quoters.is_empty() {
            return Ok(());
        }
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
        self.cancel_all()
    }

    fn step(&mut self, turn: usize) -> Result<(), ClientError> {
        self.listen()?;
        let actions = self.quoters[turn].step();
        let (mut sent, mut refused) = (0, 0);
        let pending: Vec<_> =
            actions.into_iter().map(|a| (a.label(), self.client.submit(a.request()))).collect();
        for (label, answer) in pending {
            sent += 1;
            match answer.wait() {
                Ok(_) => {}
                Err(error) if error.not_applied() => {
                    refused += 1;
                    tracing::debug!(%error, "a quote was refused");
                    self.quoters[turn].refused(label);
                }
                // Unknown: what the venue really holds is learnt by emptying it.
                Err(ClientError::Timeout { .. } | ClientError::AnswerLost) => return self.start_over(),
                Err(error) => return Err(error),
            }
        }
        self.listen()?;
        let mut stats = self.shared.stats();
        stats.steps += 1;
        stats.requests += sent;
        stats.refused += refused;
        for (fills, quoter) in stats.instruments.iter_mut().zip(&self.quoters) {
            *fills = quoter.fills().clone();
        }
        Ok(())
    }

    /// Takes in what the venue has said since.
    fn listen(&mut self) -> Result<(), ClientError> {
        loop {
            match self.events.try_recv() {
                Ok(Event::Report(Report::Execution(report))) => {
                    self.quoters.iter_mut().for_each(|quoter| quoter.report(&report));
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
        self.cancel_all()?;
        self.events = self.client.events();
        self.quoters.iter_mut().for_each(Quoter::forget);
        Ok(())
    }

    fn cancel_all(&mut self) -> Result<(), ClientError> {
        let all = MassCancel { scope: CancelScope::Account, side: SideScope::Both, ..MassCancel::default() };
        self.client.call_blocking(all).map(|_| ())
    }
}
