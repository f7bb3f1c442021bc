//! A simulated supplier's selling desk: it issues Units and keeps them on offer.
//!
//! It looks at the replica, not at its own memory, so after a restart it finds its orders in the book and goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use grid_client::{Client, ClientError, Report, Request};
use grid_engine::command::Command;
use grid_engine::{AccountId, Engine, InstrumentId, Qty, Seq};
use grid_replicator::Replica;
use grid_wire::{NewOrder, OrderType, Side, TimeInForce};

/// What a desk offers of one instrument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) instrument: InstrumentId,
    /// At this price, in ticks.
    pub(crate) price: u64,
    /// Open quantity that it keeps up.
    pub(crate) qty: Qty,
}

/// A desk of one supplier.
pub(crate) struct Desk {
    pub(crate) account: AccountId,
    pub(crate) client: Client,
    pub(crate) replica: Arc<Replica<Engine>>,
    pub(crate) offers: Vec<Offer>,
}

impl Desk {
    /// Brings every offer up to its quantity, once.
    pub(crate) fn replenish(&self) -> Result<(), ClientError> {
        for offer in &self.offers {
            let (open, ready, issuable) = self.replica.read(|engine| self.position(engine, offer));
            // Half sold is soon enough: an order for every unit sold would only fill the log.
            if open.0 * 2 > offer.qty.0 {
                continue;
            }
            let wanted = offer.qty.0 - open.0;
            let issue = wanted.saturating_sub(ready.0).min(issuable.0);
            if issue > 0 {
                let (instrument, qty) = (offer.instrument, Qty(issue));
                self.directory(&Command::Issue { instrument, qty })?;
                self.directory(&Command::TransferIssuance { instrument, qty })?;
            }
            let qty = wanted.min(ready.0 + issue);
            if qty > 0 {
                let order = NewOrder {
                    instrument: offer.instrument.0,
                    side: Side::Sell,
                    order_type: OrderType::Limit,
                    time_in_force: TimeInForce::Gtc,
                    price: offer.price,
                    qty,
                    ..NewOrder::default()
                };
                self.wait(&self.client.call_blocking(order)?);
            }
        }
        Ok(())
    }

    /// On offer now; free to offer; still to be issued within the capacity. Who is suspended can neither issue nor offer.
    fn position(&self, engine: &Engine, offer: &Offer) -> (Qty, Qty, Qty) {
        let state = engine.state();
        let holding = state.holding(self.account, offer.instrument);
        let (held, available) =
            holding.map_or((Qty::ZERO, Qty::ZERO), |holding| (holding.held, holding.available));
        let supply = state.supplies.get(self.account, offer.instrument);
        if state.is_suspended(self.account, offer.instrument) {
            return (held, Qty::ZERO, Qty::ZERO);
        }
        let issuable = supply.map_or(0, |supply| {
            let room =
                supply.capacity.tokens().map_or(0, |tokens| tokens.0).saturating_sub(supply.liability().0);
            room / grid_engine::TOKENS_PER_UNIT
        });
        (held, available, Qty(issuable))
    }

    fn directory(&self, command: &Command) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        let report = self.client.call_blocking(Request::Directory { account: self.account.0, payload })?;
        self.wait(&report);
        Ok(())
    }

    /// The next look at the replica must see what this command did.
    fn wait(&self, report: &Report) {
        if let Err(error) = self.replica.wait_for_blocking(Seq(report.log_seq()), Duration::from_secs(30)) {
            tracing::warn!(account = self.account.0, %error, "the replica lags behind the desk");
        }
    }
}

/// Desks at work on a thread of their own.
pub(crate) struct RunningDesks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl RunningDesks {
    /// Looks at every desk's offers a few times a second.
    pub(crate) fn start(desks: Vec<Desk>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("desks".into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                for desk in &desks {
                    if let Err(error) = desk.replenish() {
                        tracing::warn!(account = desk.account.0, %error, "a desk could not replenish");
                    }
                }
                std::thread::park_timeout(Duration::from_millis(250));
            }
            for desk in desks {
                desk.client.close();
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Leaves the offers in the book and ends the sessions.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the desks' thread panicked");
        }
    }
}
