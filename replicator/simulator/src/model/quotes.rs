//! Mass quotes in the second bookkeeper: single orders entered, changed and cancelled in the order that the rules give, and a tally of
//! what was filled of them.

use std::collections::BTreeMap;

use grid_engine::command::{
    NewOrder, OrderKind, OrderRef, QuoteEntry, QuoteProtection, QuoteSide, SelfTrade, Side, TimeInForce,
};
use grid_engine::{InstrumentId, Label, OrderId, Reject, SessionId, limits};

use super::{Answer, Model};

/// One side of a quote: of which instrument, under which number, and whether it is its ask.
type Place = (u16, u8, bool);

/// A side that was refused.
pub(super) type Refused = (Place, Reject);

/// What a session quotes, and what it has of protection.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotes {
    /// Numbers of the orders that stood last.
    orders: BTreeMap<Place, u64>,
    protection: Option<QuoteProtection>,
    pulled: bool,
    /// When and how many Units, of the window that is being counted.
    fills: Vec<(u64, u64)>,
}

/// How the orders of a mass quote come in.
#[derive(Clone, Copy)]
struct Manner {
    session: SessionId,
    who: u32,
    stp: SelfTrade,
    post_only: bool,
}

impl Model {
    pub(super) fn mass_quote(
        &mut self,
        (session, who): (SessionId, u32),
        entries: &[QuoteEntry],
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<Answer, Reject> {
        let key = |entry: &QuoteEntry| (entry.instrument.0, entry.quote);
        let named = entries.iter().all(|entry| entry.quote > 0 && entry.quote <= limits::QUOTE_NUMBERS);
        let ascending = entries.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]));
        if entries.is_empty() || entries.len() > limits::QUOTE_ENTRIES || !named || !ascending {
            return Err(Reject::OutOfRange);
        }
        if self.sessions[&session.0].quotes.pulled {
            return Err(Reject::QuotesPulled);
        }
        let mut turns: [Vec<(&QuoteEntry, Side, QuoteSide)>; 3] = Default::default();
        for entry in entries {
            for (side, wanted) in [(Side::Buy, entry.bid), (Side::Sell, entry.ask)] {
                let stands = self
                    .standing(session, place(entry, side))
                    .map(|(instrument, at)| self.markets[instrument].book.orders[at].price);
                let goes = stands.is_some_and(|price| match side {
                    Side::Buy => wanted.price <= price,
                    Side::Sell => wanted.price >= price,
                });
                let turn = match side {
                    _ if goes || wanted.qty.0 == 0 => 0,
                    Side::Buy => 1,
                    Side::Sell => 2,
                };
                turns[turn].push((entry, side, wanted));
            }
        }
        let manner = Manner { session, who, stp, post_only };
        for (entry, side, wanted) in turns.into_iter().flatten() {
            if let Err(reject) = self.quote_side(manner, entry, side, wanted) {
                self.refused.push((place(entry, side), reject));
                self.withdraw(session, place(entry, side));
            }
        }
        let refused = self.refused.len() as u16;
        Ok(Answer::Quoted { accepted: 2 * entries.len() as u16 - refused, refused })
    }

    fn quote_side(
        &mut self,
        manner: Manner,
        entry: &QuoteEntry,
        side: Side,
        wanted: QuoteSide,
    ) -> Result<(), Reject> {
        let place = place(entry, side);
        if wanted.qty.0 == 0 {
            self.withdraw(manner.session, place);
            return Ok(());
        }
        if entry.bid.qty.0 > 0 && entry.ask.qty.0 > 0 && entry.bid.price >= entry.ask.price {
            return Err(Reject::InvalidPrice);
        }
        let Some((instrument, at)) = self.standing(manner.session, place) else {
            let tif = if manner.post_only { TimeInForce::PostOnly } else { TimeInForce::Gtc };
            let new = NewOrder {
                instrument: entry.instrument,
                side,
                kind: OrderKind::Limit { price: wanted.price, tif },
                qty: wanted.qty,
                stp: manner.stp,
                label: Label::default(),
                tag: String::new(),
                to_consumption: false,
            };
            // It may trade, with orders of this session too, before it is known to be a quote: what it takes counts for nobody.
            self.place(manner.session, manner.who, &new)?;
            let order = self.orders;
            self.quoted.insert(order, manner.session.0);
            self.quotes_mut(manner.session).orders.insert(place, order);
            return Ok(());
        };
        let resting = &self.markets[instrument].book.orders[at];
        if resting.price == wanted.price && resting.remaining == wanted.qty.0 {
            return Ok(());
        }
        let order = OrderRef::Id(OrderId::new(resting.id.0, None));
        self.replace(manner.who, order, wanted.qty, wanted.price, manner.stp, manner.post_only).map(|_| ())
    }

    fn quotes_mut(&mut self, session: SessionId) -> &mut Quotes {
        &mut self.sessions.get_mut(&session.0).expect("whoever quotes has a session").quotes
    }

    /// Where the open order of one side lies.
    fn standing(&self, session: SessionId, place: Place) -> Option<(usize, usize)> {
        let order = self.sessions[&session.0].quotes.orders.get(&place)?;
        let instrument = usize::from(place.0);
        let at = self.markets.get(instrument)?.book.orders.iter().position(|open| open.id.0 == *order)?;
        Some((instrument, at))
    }

    fn withdraw(&mut self, session: SessionId, place: Place) {
        if let Some((instrument, at)) = self.standing(session, place) {
            self.cancel_at(instrument, at);
        }
        self.quotes_mut(session).orders.remove(&place);
    }

    pub(super) fn protect(
        &mut self,
        session: SessionId,
        protection: Option<QuoteProtection>,
    ) -> Result<Answer, Reject> {
        if protection.is_some_and(|wanted| wanted.window.0 == 0 || (wanted.fills == 0 && wanted.qty.0 == 0)) {
            return Err(Reject::OutOfRange);
        }
        let quotes = self.quotes_mut(session);
        (quotes.protection, quotes.pulled, quotes.fills) = (protection, false, Vec::new());
        Ok(Answer::Done(0))
    }

    /// An order that rested was filled; if it is a quote, and one fill too many, its session's are pulled once the command is done.
    pub(super) fn count_quote_fill(&mut self, order: OrderId, qty: u64) {
        let at = self.at;
        let Some(id) = self.quoted.get(&order.0) else { return };
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(protection) = session.quotes.protection.filter(|_| !session.quotes.pulled) else { return };
        let fills = &mut session.quotes.fills;
        if fills.first().is_some_and(|(began, _)| at - began >= protection.window.0) {
            fills.clear();
        }
        fills.push((at, qty));
        let units: u64 = fills.iter().map(|(_, qty)| qty).sum();
        let too_many = protection.fills > 0 && fills.len() as u64 >= u64::from(protection.fills);
        if too_many || (protection.qty.0 > 0 && units >= protection.qty.0) {
            session.quotes.pulled = true;
            self.overrun.push(SessionId(*id));
        }
    }

    pub(super) fn pull_overrun_quotes(&mut self) {
        for session in std::mem::take(&mut self.overrun) {
            let Some(known) = self.sessions.get(&session.0) else { continue };
            for place in known.quotes.orders.keys().copied().collect::<Vec<_>>() {
                self.withdraw(session, place);
            }
        }
    }
}

fn place(entry: &QuoteEntry, side: Side) -> Place {
    let InstrumentId(instrument) = entry.instrument;
    (instrument, entry.quote, side == Side::Sell)
}
