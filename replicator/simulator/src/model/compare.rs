//! What the engine said and holds, against what the second bookkeeper worked out.

use grid_engine::command::{Entry, Side};
use grid_engine::event::{Closure, Event, Exec, ReportBody};
use grid_engine::state::State;
use grid_engine::{InstrumentId, Nanos, OrderId, Reject, Seq};

use super::quotes::Refused;
use super::{Answer, Expected, Model};
use crate::naive::{Closed, Fill, Outcome};

impl Model {
    /// What the engine said and holds, against what was worked out here. The first difference comes back in words.
    pub(crate) fn compare(
        &self,
        expected: &Expected,
        entry: &Entry,
        events: &[Event],
        state: &State,
    ) -> Result<(), String> {
        let told = Told::of(entry, events);
        let differs = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!(
                "the model expects {what} {expected:?} of command {} {entry:?}, the engine has {found:?}",
                self.seq
            ))
        };
        if told.answer != expected.answer {
            return differs("the answer", &expected.answer, &told.answer);
        }
        if told.repeated != expected.repeated {
            return differs("a repeat", &expected.repeated, &told.repeated);
        }
        if told.outcome != expected.outcome {
            return differs("trades and closed orders", &expected.outcome, &told.outcome);
        }
        if told.refused != expected.refused {
            return differs("sides of a quote refused", &expected.refused, &told.refused);
        }
        if told.established != expected.established {
            return differs("a session's place", &expected.established, &told.established);
        }
        self.compare_balances(state)?;
        self.compare_debts(state)?;
        self.compare_service(state)
    }

    fn compare_balances(&self, state: &State) -> Result<(), String> {
        if state.accounts.len() != self.accounts.len() {
            return Err(format!("the model has {} accounts", self.accounts.len()));
        }
        for (id, (account, found)) in self.accounts.iter().zip(&state.accounts).enumerate() {
            let held = self.usd_held(id as u32);
            let usd = (i128::from(account.usd) - held, held);
            let told = (i128::from(found.usd_available.0), i128::from(found.usd_held.0));
            if usd != told {
                return Err(format!(
                    "after command {} the model has dollars {usd:?} in account {id}, the engine {told:?}",
                    self.seq
                ));
            }
            for (&instrument, holding) in &account.holdings {
                let at = InstrumentId(instrument);
                let free: u64 = holding.lots.iter().map(|lot| lot.free).sum();
                let reserved: u64 = holding.lots.iter().map(|lot| lot.reserved).sum();
                let held = self.units_held(id as u32, usize::from(instrument));
                let own = [holding.issuance, self.units_available(id as u32, at), held, free, reserved];
                let told = state.holding(found.id, at).map_or([0; 5], |h| {
                    [h.issuance.0, h.available.0, h.held.0, h.free_tokens().0, h.reserved_tokens().0]
                });
                if own != told {
                    return Err(format!(
                        "after command {} the model has Units and tokens {own:?} of {at:?} in account {id}, the engine {told:?}",
                        self.seq
                    ));
                }
            }
        }
        Ok(())
    }

    /// The queue of each side, order by order; too dear to compare each time.
    pub(crate) fn compare_books(&self, state: &State) -> Result<(), String> {
        for (instrument, market) in self.markets.iter().enumerate() {
            for side in [Side::Buy, Side::Sell] {
                let own: Vec<_> = market
                    .book
                    .queue(side)
                    .iter()
                    .map(|o| (o.id, o.account, o.remaining, o.filled))
                    .collect();
                let book = state.book(InstrumentId(instrument as u16)).ok_or("every market has a book")?;
                let found: Vec<_> = book
                    .queue(side)
                    .map(|o| (numbered(o.id), o.account, o.remaining.0, o.filled.0))
                    .collect();
                if own != found {
                    return Err(format!("the model's queue {own:?} is not the engine's {found:?}"));
                }
            }
        }
        Ok(())
    }
}

/// What the model calls an order of the engine.
pub(super) fn numbered(id: OrderId) -> OrderId {
    OrderId(id.number())
}

/// What the engine said, in the model's words.
#[derive(Default)]
struct Told {
    answer: Option<Answer>,
    repeated: bool,
    outcome: Outcome,
    refused: Vec<Refused>,
    established: Option<Result<u64, Reject>>,
}

impl Told {
    fn of(entry: &Entry, events: &[Event]) -> Self {
        let mut told = Self::default();
        for event in events {
            // When it was is no matter here.
            if let Some((session, report)) = event.report(Seq::ZERO, Nanos::ZERO) {
                if let ReportBody::QuoteRefused { instrument, quote, side, reject } = report.body {
                    told.refused.push(((instrument.0, quote, side == Side::Sell), reject));
                } else if (session, report.client_seq) == (entry.session, entry.client_seq)
                    && report.client_seq != 0
                {
                    told.answer = told.answer.or_else(|| answer(&report.body));
                }
            }
            match event {
                Event::Repeated { session, .. } => told.repeated |= *session == entry.session,
                Event::Traded(trade) => told.outcome.fills.push(Fill {
                    taker: numbered(trade.taker_order),
                    maker: numbered(trade.maker_order),
                    price: trade.price,
                    qty: trade.qty.0,
                }),
                Event::OrderClosed(closed) => told.outcome.closed.push(Closed {
                    order: numbered(closed.order.id),
                    filled: closed.order.filled().0,
                    remaining: closed.unfilled().0,
                    reason: closed.reason,
                }),
                Event::SessionEstablished { result, .. } => {
                    told.established =
                        Some(result.as_ref().map(|at| at.last_client_seq).map_err(|reject| *reject));
                }
                _ => {}
            }
        }
        told
    }
}

fn answer(body: &ReportBody) -> Option<Answer> {
    Some(match body {
        ReportBody::Rejected { reject, .. } => Answer::Rejected(*reject),
        ReportBody::Order(order) => match order.exec() {
            Exec::New => Answer::New,
            Exec::Replaced => Answer::Replaced,
            Exec::Closed(Closure::Cancelled) => Answer::Cancelled,
            _ => return None,
        },
        ReportBody::MassCancelled { count } => Answer::MassCancelled(*count),
        ReportBody::Quoted { accepted, refused } => Answer::Quoted { accepted: *accepted, refused: *refused },
        ReportBody::QuoteRefused { .. } | ReportBody::QuotesPulled { .. } => return None,
        ReportBody::Reserved { reservation, tokens, .. } => {
            Answer::Reserved { reservation: reservation.0, tokens: tokens.0 }
        }
        ReportBody::Settled { billed, unbilled, cost, .. } => {
            Answer::Settled { billed: billed.0, unbilled: unbilled.0, cost: cost.0 }
        }
        ReportBody::Done { created } => Answer::Done(*created),
    })
}
