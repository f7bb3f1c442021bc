//! The public feed: who subscribes to which book, and who of them has fallen behind. A reader too slow for the
//! increments is told nothing until it has caught up, and then gets the book as it is.
//!
//! Not here: the books themselves and their bytes (see `market`), or when a connection ends.

use std::collections::{BTreeMap, BTreeSet};

use grid_engine::State;
use grid_wire::{self as wire, MarketDataCode};

use crate::config::Config;
use crate::connection::{Connection, Live, Subscription};
use crate::gateway::Table;
use crate::market::Market;
use crate::venue::View;

/// The books and their readers. Every subscription of a live connection stands in exactly one class.
pub(crate) struct Feed {
    market: Market,
    /// By instrument and depth.
    classes: BTreeMap<(u16, u16), BTreeSet<u64>>,
    /// Connections with a subscription that fell behind.
    behind: BTreeSet<u64>,
}

impl Feed {
    /// Nobody subscribes yet to the books of this state.
    pub(crate) fn of(state: &State) -> Self {
        Self { market: Market::of(state), classes: BTreeMap::new(), behind: BTreeSet::new() }
    }

    /// Where committed levels and trades are noted.
    pub(crate) fn market(&mut self) -> &mut Market {
        &mut self.market
    }

    /// Answers a subscription with the book as it is, or with why not.
    pub(crate) fn subscribe<V: View>(
        &mut self,
        id: u64,
        client: &mut Connection,
        request: wire::MarketDataSubscribe,
        config: &Config,
        view: &V,
    ) {
        let wire::MarketDataSubscribe { request_id, instrument, depth } = request;
        if !self.market.knows(instrument) {
            // Rare: an instrument defined since the start. The replica is locked for at most one block.
            view.read(|state| self.market.learn(state));
        }
        let Some(live) = &mut client.live else { return };
        let held = live.subscriptions.get(&instrument).copied();
        let code = if !self.market.knows(instrument) {
            Some(MarketDataCode::UnknownInstrument)
        } else if depth > config.depth_max {
            Some(MarketDataCode::Depth)
        } else if held.is_none() && live.subscriptions.len() >= config.subscriptions_max {
            Some(MarketDataCode::TooMany)
        } else {
            None
        };
        if let Some(code) = code {
            return wire::MarketDataReject { request_id, instrument, code }.encode(client.out());
        }
        if let Some(held) = held {
            self.leave_class(id, instrument, held.depth);
        }
        live.subscriptions.insert(instrument, Subscription { depth, behind: false });
        self.classes.entry((instrument, depth)).or_default().insert(id);
        self.market.snapshot(instrument, depth, request_id, false, client.out());
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(
        &mut self,
        id: u64,
        client: &mut Connection,
        request: wire::MarketDataUnsubscribe,
    ) {
        let wire::MarketDataUnsubscribe { request_id, instrument } = request;
        let held = client.live.as_mut().and_then(|live| live.subscriptions.remove(&instrument));
        match held {
            Some(held) => {
                self.leave_class(id, instrument, held.depth);
                wire::MarketDataUnsubscribed { request_id, instrument }.encode(client.out());
            }
            None => {
                let code = MarketDataCode::NotSubscribed;
                wire::MarketDataReject { request_id, instrument, code }.encode(client.out());
            }
        }
    }

    /// The connection lives no longer.
    pub(crate) fn leave(&mut self, id: u64, live: &Live) {
        for (&instrument, subscription) in &live.subscriptions {
            self.leave_class(id, instrument, subscription.depth);
        }
        self.behind.remove(&id);
    }

    /// The command's events are all heard: tells the subscribers, and notes who was written to.
    #[inline]
    pub(crate) fn finish_event(
        &mut self,
        clients: &mut Table,
        conflate_above: usize,
        written: &mut Vec<u64>,
    ) {
        if self.market.has_news() {
            self.publish(clients, conflate_above, written);
        }
    }

    fn publish(&mut self, clients: &mut Table, conflate_above: usize, written: &mut Vec<u64>) {
        let Self { market, classes, behind } = self;
        market.finish(|instrument, depth, bytes| {
            for id in classes.get(&(instrument, depth)).into_iter().flatten() {
                let Some(client) = clients.get_mut(*id) else {
                    continue;
                };
                let fits = client.backlog() + bytes.len() <= conflate_above;
                let Some(live) = &mut client.live else { continue };
                let Some(subscription) = live.subscriptions.get_mut(&instrument) else {
                    continue;
                };
                if subscription.behind {
                    continue;
                }
                if fits {
                    client.out().extend_from_slice(bytes);
                    if !std::mem::replace(&mut client.listed, true) {
                        written.push(*id);
                    }
                } else {
                    subscription.behind = true;
                    behind.insert(*id);
                }
            }
        });
    }

    /// Readers that have caught up get the book as it is now, marked as a gap.
    pub(crate) fn refresh_the_late(&mut self, clients: &mut Table, conflate_above: usize, now: u64) {
        for id in self.behind.clone() {
            let Some(client) = clients.get_mut(id) else {
                self.behind.remove(&id);
                continue;
            };
            if client.backlog() > conflate_above / 2 {
                continue;
            }
            self.behind.remove(&id);
            let Some(live) = &mut client.live else { continue };
            let late = live.subscriptions.iter_mut().filter(|(_, subscription)| subscription.behind);
            let late: Vec<_> = late
                .map(|(&instrument, subscription)| {
                    subscription.behind = false;
                    (instrument, subscription.depth)
                })
                .collect();
            for (instrument, depth) in late {
                self.market.snapshot(instrument, depth, 0, true, client.out());
            }
            client.flush(now);
        }
    }

    fn leave_class(&mut self, id: u64, instrument: u16, depth: u16) {
        if let Some(members) = self.classes.get_mut(&(instrument, depth)) {
            members.remove(&id);
            if members.is_empty() {
                self.classes.remove(&(instrument, depth));
                self.market.forget_class(instrument, depth);
            }
        }
    }
}
