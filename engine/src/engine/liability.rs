//! What a supplier pays when it fails: collateral, penalties, covers, and debts.
//!
//! ```text
//! a penalty:  supplier ── free dollars, then collateral ──► venue
//! a cover:    escrow of the tokens ── price of the cover ──► who delivered
//!                          └── what is left ── penalty ──► consumer ── what is left ──► issuer
//!             where the escrow is too small: issuer ── free dollars, then collateral ──► either
//! ```
//! What a supplier can't pay it owes, and it is paid out of whatever it gets next. Escrow is not touched before the tokens
//! that it belongs to are delivered: it is what pays whoever delivers them. So it stands behind a debt as it is released.

use super::{Refusal, Step};
use crate::event::{Charge, ChargeReason, Event, ReportBody};
use crate::ids::{AccountId, InstrumentId};
use crate::limits;
use crate::reject::Reject;
use crate::units::{Price, Qty, TOKENS_PER_UNIT, Tokens, Usd};

/// What tokens cost that another supplier than their issuer delivers.
#[derive(Clone, Copy)]
pub(super) struct BuyIn {
    /// Dollars for a Unit.
    price: Usd,
    /// What the consumer gets of what its tokens had cost.
    penalty_bps: u16,
    /// Tokens covered so far in this call, and their price, so that the parts add up.
    tokens: Tokens,
}

impl BuyIn {
    /// The price of the next tokens.
    fn next(&mut self, tokens: Tokens) -> Usd {
        let worth = |tokens: Tokens| {
            let worth = i128::from(self.price.0) * i128::from(tokens.0) / i128::from(TOKENS_PER_UNIT);
            worth.min(limits::ALL_USD.0.into()) as i64
        };
        let after = self.tokens.plus(tokens);
        let due = worth(after) - worth(self.tokens);
        self.tokens = after;
        Usd(due)
    }
}

/// Tokens of one issuer that another delivers, and the escrow that their delivery releases.
pub(super) struct Covered {
    /// Where the issuer's supply lies.
    pub(super) owing: u32,
    /// Where the supply of who delivers lies.
    pub(super) payee: u32,
    pub(super) consumer: AccountId,
    pub(super) tokens: Tokens,
    pub(super) escrow: Usd,
    /// What the consumer had paid for them.
    pub(super) cost: Usd,
}

impl Step<'_> {
    pub(super) fn set_collateral(&mut self, instrument: InstrumentId, amount: Usd) -> Result<(), Refusal> {
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        self.state.suppliers.get(&self.account).ok_or(Reject::NotASupplier)?;
        if amount.0 < 0 {
            return Err(Reject::OutOfRange.into());
        }
        let held = self.state.supplies.get(self.account, instrument).map_or(Usd::ZERO, |one| one.collateral);
        let account = &self.state.accounts[self.account.0 as usize];
        if amount > account.usd_available.plus(held) {
            return Err(Reject::InsufficientFunds.into());
        }
        self.supply_mut(self.account, instrument).collateral = amount;
        let account = self.account_mut(self.account);
        account.usd_available = account.usd_available.plus(held).minus(amount);
        account.usd_held = account.usd_held.minus(held).plus(amount);
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// Whether a supplier's collateral covers what it would owe.
    pub(super) fn collateral_covers(
        &self,
        supplier: AccountId,
        instrument: InstrumentId,
        owed: Tokens,
    ) -> bool {
        let per_unit = self.state.instruments[usize::from(instrument.0)].sla.collateral_per_unit;
        let held = self.state.supplies.get(supplier, instrument).map_or(Usd::ZERO, |one| one.collateral);
        i128::from(per_unit.0) * i128::from(owed.units_ceil().0) <= i128::from(held.0)
    }

    /// Makes a supplier pay `due`, and tells it together with `before`, which it has paid out of escrow. What it can't pay
    /// it owes. Returns what was paid.
    pub(super) fn charge(
        &mut self,
        from: AccountId,
        to: AccountId,
        instrument: InstrumentId,
        before: Usd,
        due: Usd,
        reason: ChargeReason,
    ) -> Usd {
        if from == to {
            return Usd::ZERO;
        }
        let account = self.account_mut(from);
        let free = due.min(account.usd_available);
        account.usd_available = account.usd_available.minus(free);
        let supply = self.supply_mut(from, instrument);
        let held = due.minus(free).min(supply.collateral);
        supply.collateral = supply.collateral.minus(held);
        if matches!(reason, ChargeReason::Breach | ChargeReason::CoverPenalty) {
            let all = supply.penalties.0.saturating_add(before.0).saturating_add(due.0);
            supply.penalties = Usd(all);
        }
        let account = self.account_mut(from);
        account.usd_held = account.usd_held.minus(held);
        let paid = free.plus(held);
        let account = self.account_mut(to);
        account.usd_available = account.usd_available.plus(paid);
        let owed = due.minus(paid);
        self.owe(from, to, owed);
        let paid_in_all = before.plus(paid);
        if !paid_in_all.is_zero() || !owed.is_zero() {
            self.tell_charge(from, to, Some(instrument), reason, paid_in_all, owed);
        }
        // Whoever gets it may owe somebody else.
        self.collect(to);
        paid
    }

    fn tell_charge(
        &mut self,
        from: AccountId,
        to: AccountId,
        instrument: Option<InstrumentId>,
        reason: ChargeReason,
        paid: Usd,
        owed: Usd,
    ) {
        self.state.counters.charge += 1;
        let charge = self.state.counters.charge;
        self.events.push(Event::Charged(Charge { charge, from, to, instrument, reason, paid, owed }));
    }

    fn owe(&mut self, from: AccountId, to: AccountId, amount: Usd) {
        if amount.is_zero() {
            return;
        }
        let known = self.state.debts.contains_key(&(from, to));
        let to = if known || self.state.debts.len() < limits::DEBTS { to } else { AccountId::VENUE };
        let debt = self.state.debts.entry((from, to)).or_default();
        *debt = Usd(debt.0.saturating_add(amount.0).min(limits::ALL_USD.0));
    }

    /// Pays what an account owes out of what it has free: call it when dollars have come in.
    #[inline]
    pub(super) fn collect(&mut self, from: AccountId) {
        if !self.state.debts.is_empty() {
            self.pay_debts(from);
        }
    }

    fn pay_debts(&mut self, from: AccountId) {
        let next = |step: &Self| {
            let range = (from, AccountId(0))..=(from, AccountId(u32::MAX));
            step.state.debts.range(range).next().map(|(&(_, to), &owed)| (to, owed))
        };
        while let Some((to, owed)) = next(self) {
            let free = self.state.accounts[from.0 as usize].usd_available;
            let paid = owed.min(free);
            if paid.is_zero() {
                return;
            }
            let account = self.account_mut(from);
            account.usd_available = account.usd_available.minus(paid);
            let account = self.account_mut(to);
            account.usd_available = account.usd_available.plus(paid);
            let left = owed.minus(paid);
            if left.is_zero() {
                self.state.debts.remove(&(from, to));
            } else {
                self.state.debts.insert((from, to), left);
            }
            self.tell_charge(from, to, None, ChargeReason::Debt, paid, left);
        }
    }

    /// What a cover costs just now: the price at which a Unit can be bought, which is the best ask; with an empty book that
    /// of the last trade; where there never was one, nothing beyond the escrow. An ask counts up to the terms' ceiling over
    /// the last trade, so that nobody can name its own price for the failure of another.
    pub(super) fn cover_price(&self, instrument: InstrumentId) -> Option<BuyIn> {
        let record = &self.state.instruments[usize::from(instrument.0)];
        let last = record.last_trade.map(|trade| trade.price);
        let asked = self.state.books.best_price(instrument, crate::command::Side::Sell);
        let asked = asked.map(|ticks| Price(ticks.into()));
        let price = match (asked, last) {
            (Some(asked), Some(last)) => {
                let ceiling = u128::from(last.0) * u128::from(record.sla.cover_ceiling_bps) / 10_000;
                asked.min(Price(u64::try_from(ceiling).unwrap_or(u64::MAX)))
            }
            (asked, last) => asked.or(last)?,
        };
        let price = price.notional(Qty(1), record.spec.market.tick)?;
        Some(BuyIn { price, penalty_bps: record.sla.cover_penalty_bps, tokens: Tokens::ZERO })
    }

    /// Buy-in: who delivers in place of an issuer that failed is paid the price of the cover, at the issuer's expense.
    pub(super) fn buy_in(&mut self, cover: &mut BuyIn, covered: &Covered) {
        let Covered { owing, payee, consumer, tokens, escrow, cost } = *covered;
        let (issuer, instrument) = self.pair_at(owing);
        let (deliverer, _) = self.pair_at(payee);
        let due = cover.next(tokens);
        let from_escrow = due.min(escrow);
        self.pay_from_escrow(owing, payee, from_escrow);
        let more = self.charge(
            issuer,
            deliverer,
            instrument,
            from_escrow,
            due.minus(from_escrow),
            ChargeReason::Cover,
        );
        let earned = &mut self.state.supplies[payee].earned;
        *earned = Usd(earned.0.saturating_add(more.0));

        let left = escrow.minus(from_escrow);
        // A supplier that consumes its own tokens owes itself nothing.
        let penalty = if consumer == issuer { Usd::ZERO } else { cost.basis_points(cover.penalty_bps) };
        let from_escrow = penalty.min(left);
        let owed = &mut self.state.supplies[owing];
        owed.escrow = owed.escrow.minus(from_escrow);
        owed.covered = Tokens(owed.covered.0.saturating_add(tokens.0));
        owed.cover_cost = Usd(owed.cover_cost.0.saturating_add(due.0));
        let account = self.account_mut(consumer);
        account.usd_available = account.usd_available.plus(from_escrow);
        let rest = penalty.minus(from_escrow);
        self.charge(issuer, consumer, instrument, from_escrow, rest, ChargeReason::CoverPenalty);
        self.pay_from_escrow(owing, owing, left.minus(from_escrow));
    }

    fn pair_at(&self, supply: u32) -> (AccountId, InstrumentId) {
        crate::state::Pair::pair(&self.state.supplies[supply])
    }
}
