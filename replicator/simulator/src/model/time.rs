//! What falls due in the second bookkeeper, in the order in which the engine's timers fire, and what sessions leave behind.

use grid_engine::InstrumentId;
use grid_engine::command::TimeInForce;
use grid_engine::event::Closure;

use super::{Due, Model, Session};
use crate::naive::Order;

impl Model {
    fn due(&self) -> Option<(u64, Due)> {
        let reservations = self.reservations.iter().map(|(&id, held)| (held.expires, Due::Reservation(id)));
        let sessions = self.sessions.iter().flat_map(|(&id, session)| {
            [
                session.cancels_at.map(|at| (at, Due::Session(id))),
                session.ends_at.map(|at| (at, Due::SessionEnd(id))),
            ]
        });
        let orders = self.markets.iter().enumerate().flat_map(|(instrument, market)| {
            let day = market.book.orders.iter().filter(|order| order.tif == TimeInForce::Day);
            day.map(move |order| {
                (order.submitted_at.next_midnight().0, Due::DayOrder(instrument as u16, order.id.0))
            })
        });
        let lots = self.accounts.iter().enumerate().flat_map(|(account, record)| {
            record.holdings.iter().flat_map(move |(&instrument, holding)| {
                holding.lots.iter().filter(|lot| lot.free > 0).filter_map(move |lot| {
                    lot.expires.map(|at| (at, Due::Lot(account as u32, instrument, lot.id)))
                })
            })
        });
        let windows = (0..)
            .zip(&self.markets)
            .filter_map(|(instrument, market)| Some((market.window_ends?, Due::Window(instrument))));
        let attestations = self.service.ends().map(|(at, supplier, of)| (at, Due::Attestation(supplier, of)));
        let due = reservations.chain(sessions.flatten()).chain(orders).chain(lots);
        let due = due.chain(windows).chain(attestations);
        due.filter(|&(when, _)| when <= self.at).min()
    }

    pub(super) fn run_due(&mut self) {
        while let Some((_, due)) = self.due() {
            match due {
                Due::Reservation(id) => self.give_back(id),
                Due::Lot(account, instrument, lot) => self.expire_lot(account, instrument, lot),
                Due::DayOrder(instrument, id) => {
                    self.close_where(|order, at| order.id.0 == id && at == instrument, Closure::Expired);
                }
                Due::Session(id) => {
                    self.session_mut(id).cancels_at = None;
                    self.cancel_session(id);
                }
                Due::SessionEnd(id) => {
                    self.sessions.remove(&id);
                }
                Due::Window(instrument) => self.close_window(InstrumentId(instrument)),
                Due::Attestation(supplier, instrument) => self.attestation_ends(supplier, instrument),
            }
        }
    }

    fn session_mut(&mut self, id: u128) -> &mut Session {
        self.sessions.get_mut(&id).expect("a session that something is due for exists")
    }

    pub(super) fn cancel_session(&mut self, id: u128) {
        let account = self.sessions[&id].account;
        let own = |order: &Order, _| order.account.0 == account && order.session.0 == id;
        self.close_where(own, Closure::Cancelled);
    }

    /// Takes out the matching orders, oldest first over all books.
    pub(super) fn close_where(&mut self, matches: impl Fn(&Order, u16) -> bool, reason: Closure) -> u32 {
        let mut gone = Vec::new();
        for (instrument, market) in self.markets.iter_mut().enumerate() {
            let goes = |order: &Order| matches(order, instrument as u16);
            gone.extend(market.book.orders.iter().filter(|order| goes(order)).cloned());
            market.book.orders.retain(|order| !goes(order));
        }
        gone.sort_by_key(|order| order.id);
        for order in &gone {
            self.outcome.close(order, reason);
        }
        gone.len() as u32
    }
}
