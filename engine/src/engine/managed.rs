//! The managed supplier: who sells to Auto Mode when the book can't (contract §4.4).
//!
//! It issues what is missing and asks its price for it, and the purchase takes that ask together with whatever cheaper ones
//! there are, all in the one command that needs the tokens. So its sale is a trade like any other, and nobody has to be
//! told who sold.

use super::trading::{Entering, Incoming};
use super::{Refusal, Step};
use crate::book::WIDEST;
use crate::command::{SelfTrade, Side, TimeInForce};
use crate::event::{Event, ReportBody, Subject};
use crate::ids::{AccountId, InstrumentId, OrderId, TradeId};
use crate::instrument::MarketTerms;
use crate::limits;
use crate::reject::Reject;
use crate::state::{Managed, SessionIndex, Tranche};
use crate::units::{Price, Qty, Usd};

impl Step<'_> {
    pub(super) fn set_managed(
        &mut self,
        instrument: InstrumentId,
        price: Price,
        capacity: Qty,
    ) -> Result<(), Refusal> {
        let record = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if !capacity.is_zero() && (price.is_zero() || price > record.spec.market.max_price) {
            return Err(Reject::InvalidPrice.into());
        }
        self.state.suppliers.get(&self.account).ok_or(Reject::NotASupplier)?;
        if capacity.tokens().is_none_or(|tokens| tokens.0 > limits::ALL_TOKENS) {
            return Err(Reject::OutOfRange.into());
        }
        let managed = Managed { supplier: self.account, price, capacity };
        self.state.instruments[usize::from(instrument.0)].managed = (!capacity.is_zero()).then_some(managed);
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// Puts up for sale what the book lacks of `qty` Units for `buyer`: the price up to which it may now buy, and what all
    /// of it costs before fees. Nothing is changed where the managed supplier, the buyer's ceiling or its funds don't
    /// allow it.
    pub(super) fn managed_ask(&mut self, incoming: &Incoming, ceiling: Usd) -> Result<(Price, Usd), Reject> {
        let Subject { instrument, account, .. } = incoming.order;
        let record = &self.state.instruments[usize::from(instrument.0)];
        let managed = record.managed.ok_or(Reject::NoSupply)?;
        let terms = record.spec.market;
        let unit = managed.price.notional(Qty(1), terms.tick).ok_or(Reject::NoSupply)?;
        if managed.supplier == account || (!ceiling.is_zero() && unit > ceiling) {
            return Err(Reject::NoSupply);
        }
        let cheaper = Incoming { limit: Some(managed.price), ..*incoming };
        let preview = self.preview(&cheaper)?;
        let missing = incoming.order.remaining().minus(preview.fillable);
        if !self.managed_may_sell(&managed, instrument, missing) {
            return Err(Reject::NoSupply);
        }
        let value =
            managed.price.notional(missing, terms.tick).and_then(|more| more.checked_add(preview.value));
        let value = value.ok_or(Reject::OutOfRange)?;
        let spent = value.checked_add(value.basis_points(terms.taker_fee_bps)).ok_or(Reject::OutOfRange)?;
        if spent > self.state.accounts[account.0 as usize].usd_available {
            return Err(Reject::InsufficientFunds);
        }
        // Its order and the purchase.
        if !self.state.books.has_room() || self.state.counters.order + 2 > OrderId::LAST_NUMBER {
            return Err(Reject::LimitReached);
        }
        if !missing.is_zero() {
            self.sell_managed(&managed, instrument, missing, &terms);
        }
        Ok((managed.price, spent))
    }

    fn managed_may_sell(&self, managed: &Managed, instrument: InstrumentId, qty: Qty) -> bool {
        let Some(tokens) = qty.tokens().filter(|_| qty.0 <= WIDEST) else {
            return false;
        };
        let supply = self.state.supplies.get(managed.supplier, instrument).copied().unwrap_or_default();
        let capacity = managed.capacity.tokens().expect("checked when it was set");
        let issued = self.state.instruments[usize::from(instrument.0)].issued;
        !self.state.is_suspended(managed.supplier, instrument)
            && supply.liability().checked_add(tokens).is_some_and(|owed| owed <= capacity)
            && issued.checked_add(tokens).is_some_and(|all| all.0 <= limits::ALL_TOKENS)
    }

    /// Issues Units and rests an ask for them.
    fn sell_managed(&mut self, managed: &Managed, instrument: InstrumentId, qty: Qty, terms: &MarketTerms) {
        let supplier = managed.supplier;
        self.issue_units(supplier, instrument, qty);
        self.list_units(supplier, instrument, qty);
        let mut ask = Incoming {
            order: Subject::new(
                (OrderId::default(), supplier),
                (instrument, Side::Sell),
                managed.price,
                qty,
                Qty::ZERO,
            ),
            session: SessionIndex::VENUE,
            tif: TimeInForce::Gtc,
            kind: Entering::Resting,
            stp: SelfTrade::Allow,
            limit: Some(managed.price),
            hold: Usd::ZERO,
            tick: terms.tick,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: false,
            replaced: false,
        };
        self.accept_own(&mut ask, Usd::ZERO);
        // It would trade with bids that are high enough, but it is there for one buyer, who takes it within this command.
        self.rest(&ask);
    }

    /// New Units of a supplier that has been checked for it, in its issuance balance.
    pub(super) fn issue_units(&mut self, supplier: AccountId, instrument: InstrumentId, qty: Qty) -> u64 {
        let tokens = qty.tokens().expect("checked by the caller");
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.issued = record.issued.plus(tokens);
        let supply = self.supply_mut(supplier, instrument);
        supply.issued = supply.issued.plus(tokens);
        let holding = self.holding_mut(supplier, instrument);
        holding.issuance = holding.issuance.plus(qty);
        self.state.counters.issuance += 1;
        let issuance = self.state.counters.issuance;
        self.events.push(Event::Issued { account: supplier, instrument, qty, issuance });
        issuance
    }

    /// Moves issued Units, which are there, to trading.
    pub(super) fn list_units(&mut self, supplier: AccountId, instrument: InstrumentId, qty: Qty) -> u64 {
        let own =
            Tranche { issuer: supplier, qty, escrow: Usd::ZERO, cost: Usd::ZERO, trade: TradeId::default() };
        let holding = self.holding_mut(supplier, instrument);
        holding.issuance = holding.issuance.minus(qty);
        holding.available = holding.available.plus(qty);
        holding.push_tranche(own);
        let supply = self.supply_mut(supplier, instrument);
        supply.moved_to_trading = supply.moved_to_trading.plus(qty);
        self.moved(supplier, instrument, qty, crate::event::Moved::Issuance)
    }
}
