//! Orders in the second bookkeeper: what places, replaces, trades and cancels come to.

use std::collections::BTreeMap;

use grid_engine::command::{MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce};
use grid_engine::event::Closure;
use grid_engine::{AccountId, InstrumentId, Nanos, OrderId, Price, Qty, Reject, SessionId};

use super::compare::numbered;
use super::tranche::{Tranche, join, part, take};
use super::{Answer, Model};
use crate::naive::{self, Fill, Incoming, Order};

impl Model {
    pub(super) fn find(&self, who: u32, order: OrderRef) -> Result<(usize, usize), Reject> {
        let named = |open: &Order| {
            open.account.0 == who
                && match order {
                    OrderRef::Id(id) => open.id == numbered(id),
                    OrderRef::Label(label) => label.0 != 0 && open.label == label,
                }
        };
        let mut found = self.markets.iter().enumerate().filter_map(|(instrument, market)| {
            Some((instrument, market.book.orders.iter().position(named)?))
        });
        found.next().ok_or(Reject::UnknownOrder)
    }

    pub(super) fn cancel_at(&mut self, instrument: usize, at: usize) {
        let order = self.markets[instrument].book.orders.remove(at);
        self.outcome.close(&order, Closure::Cancelled);
    }

    pub(super) fn mass_cancel(&mut self, who: u32, scope: MassCancelScope) -> u32 {
        let matches = |order: &Order, at: u16| {
            order.account.0 == who
                && scope.instrument.is_none_or(|wanted| wanted.0 == at)
                && scope.side.is_none_or(|wanted| wanted == order.side)
                && scope.session.is_none_or(|wanted| wanted == order.session)
        };
        self.close_where(matches, Closure::Cancelled)
    }

    pub(super) fn place(&mut self, session: SessionId, who: u32, new: &NewOrder) -> Result<Answer, Reject> {
        let market = self.market(new.instrument)?;
        let terms = market.terms;
        if !market.live {
            return Err(Reject::InstrumentNotLive);
        }
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !new.qty.0.is_multiple_of(terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        let best = market.book.best_price(new.side.opposite());
        let (price, limit, is_market, tif, whole) = match new.kind {
            OrderKind::Limit { price, tif } => {
                if price.0 == 0 || price > terms.max_price {
                    return Err(Reject::InvalidPrice);
                }
                (price, Some(price), false, tif, tif == TimeInForce::Fok)
            }
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let limit =
                    max_slippage_bps.zip(best).map(|(bps, best)| naive::slippage_limit(new.side, best, bps));
                (Price(0), limit, true, TimeInForce::Ioc, fill_or_kill)
            }
        };
        let order = Order {
            id: OrderId(self.orders + 1),
            account: AccountId(who),
            session,
            label: new.label,
            side: new.side,
            price,
            remaining: new.qty.0,
            filled: 0,
            tif,
            submitted_at: Nanos(self.at),
        };
        let rests = !is_market && !matches!(tif, TimeInForce::Ioc | TimeInForce::Fok);
        let incoming =
            Incoming { order, limit, market: is_market, all_or_nothing: whole, rests, stp: new.stp };
        let needs = if is_market {
            let cost = market.book.preview(&incoming).1;
            cost + cost * i128::from(terms.taker_fee_bps) / 10_000
        } else {
            market.book.hold(price, new.qty.0)
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if !new.tag.is_empty() && new.label.0 == 0 {
            return Err(Reject::InvalidText);
        }
        if new.label.0 != 0 {
            let open = |order: &Order| order.account.0 == who && order.label == new.label;
            let used = self.accounts[who as usize].tags.contains(&new.label.0);
            if used || self.markets.iter().flat_map(|market| &market.book.orders).any(open) {
                return Err(Reject::DuplicateLabel);
            }
        }
        if tif == TimeInForce::PostOnly && best.is_some_and(|best| naive::crosses(new.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        match new.side {
            Side::Buy if needs > self.usd_available(who) => return Err(Reject::InsufficientFunds),
            Side::Sell if new.qty.0 > self.units_available(who, new.instrument) => {
                return Err(Reject::InsufficientUnits);
            }
            Side::Sell if self.service.is_suspended(who, new.instrument) => return Err(Reject::Suspended),
            _ => {}
        }
        if !new.tag.is_empty() {
            self.accounts[who as usize].tags.insert(new.label.0);
        }
        self.orders += 1;
        self.to_consumption.insert(self.orders, new.to_consumption);
        self.enter(usize::from(new.instrument.0), incoming);
        Ok(Answer::New)
    }

    fn enter(&mut self, instrument: usize, incoming: Incoming) {
        // Who is who, before makers leave the book.
        let mut parties: BTreeMap<OrderId, (u32, Side)> = self.markets[instrument]
            .book
            .orders
            .iter()
            .map(|order| (order.id, (order.account.0, order.side)))
            .collect();
        parties.insert(incoming.order.id, (incoming.order.account.0, incoming.order.side));
        let first = self.outcome.fills.len();
        self.markets[instrument].book.enter(incoming, &mut self.outcome);
        for nth in first..self.outcome.fills.len() {
            let fill = self.outcome.fills[nth];
            self.settle_fill(instrument, fill, parties[&fill.taker], parties[&fill.maker].0);
            self.count_quote_fill(fill.maker, fill.qty);
        }
    }

    fn settle_fill(&mut self, instrument: usize, fill: Fill, (taker, taker_side): (u32, Side), maker: u32) {
        self.trades += 1;
        let market = &self.markets[instrument];
        let value = i64::try_from(market.book.value(fill.price, fill.qty)).expect("bounded by the hold");
        let fee = |bps: u16| (i128::from(value) * i128::from(bps) / 10_000) as i64;
        let (maker_fee, taker_fee) = (fee(market.terms.maker_fee_bps), fee(market.terms.taker_fee_bps));
        let (buyer, buyer_fee, buyer_order, seller, seller_fee) = match taker_side {
            Side::Buy => (taker, taker_fee, fill.taker, maker, maker_fee),
            Side::Sell => (maker, maker_fee, fill.maker, taker, taker_fee),
        };
        self.accounts[buyer as usize].usd -= value + buyer_fee;
        self.accounts[0].usd += buyer_fee + seller_fee;
        self.markets[instrument].last_price = Some(fill.price.0);
        let proceeds = value - seller_fee;
        let id = InstrumentId(instrument as u16);
        let sold = take(&mut self.holding_mut(seller, id).tranches, fill.qty);
        let (mut before, mut bought) = (0, Vec::new());
        for piece in sold {
            let after = before + piece.qty;
            let net = part(proceeds, before, after, fill.qty);
            let cost = part(value, before, after, fill.qty);
            let first_sale = piece.issuer == seller && piece.trade == 0;
            let escrow = if first_sale { net } else { piece.escrow };
            if !first_sale {
                self.accounts[seller as usize].usd += net;
            }
            bought.push(Tranche { escrow, cost, trade: self.trades, ..piece });
            before = after;
        }
        self.collect(seller);
        if self.to_consumption[&buyer_order.0] {
            self.open_lots(buyer, id, bought);
        } else {
            for piece in bought {
                join(&mut self.holding_mut(buyer, id).tranches, piece);
            }
        }
    }

    pub(super) fn replace(
        &mut self,
        who: u32,
        order: OrderRef,
        qty: Qty,
        price: Price,
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<Answer, Reject> {
        let (instrument, at) = self.find(who, order)?;
        if qty.0 == 0 {
            self.cancel_at(instrument, at);
            return Ok(Answer::Cancelled);
        }
        let market = &self.markets[instrument];
        if !market.live {
            return Err(Reject::InstrumentNotLive);
        }
        if qty > market.terms.max_qty || !qty.0.is_multiple_of(market.terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        if price.0 == 0 || price > market.terms.max_price {
            return Err(Reject::InvalidPrice);
        }
        let resting = market.book.orders[at].clone();
        let needs = match resting.side {
            Side::Buy => market.book.hold(price, qty.0),
            Side::Sell => market.book.value(price, qty.0),
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if price == resting.price && qty.0 <= resting.remaining {
            self.markets[instrument].book.orders[at].remaining = qty.0;
            return Ok(Answer::Replaced);
        }
        let best = market.book.best_price(resting.side.opposite());
        if post_only && best.is_some_and(|best| naive::crosses(resting.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        let held = market.book.hold(resting.price, resting.remaining);
        match resting.side {
            Side::Buy if needs > self.usd_available(who) + held => return Err(Reject::InsufficientFunds),
            Side::Sell
                if qty.0 > self.units_available(who, InstrumentId(instrument as u16)) + resting.remaining =>
            {
                return Err(Reject::InsufficientUnits);
            }
            _ => {}
        }
        let mut order = self.markets[instrument].book.orders.remove(at);
        order.price = price;
        order.remaining = qty.0;
        let incoming =
            Incoming { order, limit: Some(price), market: false, all_or_nothing: false, rests: true, stp };
        self.enter(instrument, incoming);
        Ok(Answer::Replaced)
    }
}
