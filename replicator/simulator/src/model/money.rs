//! Dollars that move beside trades and deliveries, in the second bookkeeper: collateral, charges, debts and covers of
//! suppliers; credits and reloads of consumers.

use std::collections::BTreeMap;

use grid_engine::command::Side;
use grid_engine::funding::AutoReload;
use grid_engine::state::State;
use grid_engine::{InstrumentId, Reject, TOKENS_PER_UNIT, Usd};

use super::{Answer, Model};

/// What an account's reloads are.
#[derive(Clone, Debug, Default)]
pub(super) struct Funding {
    settings: AutoReload,
    card: bool,
    line: i64,
    lent: i64,
    /// Number, amount, and whether it is lent.
    pending: Option<(u64, i64, bool)>,
    stopped: bool,
    pub(super) signed_up: bool,
}

/// A cover under way: a Unit's price, and tokens covered so far.
pub(super) struct Cover {
    price: i128,
    tokens: u64,
}

impl Model {
    // -- suppliers --------------------------------------------------------------------------------------------

    pub(super) fn set_collateral(
        &mut self,
        who: u32,
        instrument: InstrumentId,
        amount: Usd,
    ) -> Result<Answer, Reject> {
        self.market(instrument)?;
        self.supplier(who)?;
        if amount.0 < 0 {
            return Err(Reject::OutOfRange);
        }
        let held = self.collateral(who, instrument);
        if i128::from(amount.0) > self.usd_available(who) + i128::from(held) {
            return Err(Reject::InsufficientFunds);
        }
        self.accounts[who as usize].collateral.insert(instrument.0, amount.0);
        Ok(Answer::Done(0))
    }

    pub(super) fn collateral(&self, who: u32, instrument: InstrumentId) -> i64 {
        self.accounts[who as usize].collateral.get(&instrument.0).copied().unwrap_or(0)
    }

    /// Takes `due` from free dollars, then from collateral; the rest is owed. What was paid.
    pub(super) fn charge(&mut self, from: u32, to: u32, instrument: InstrumentId, due: i64) -> i64 {
        if from == to {
            return 0;
        }
        let free = i128::from(due).min(self.usd_available(from)) as i64;
        let held = (due - free).min(self.collateral(from, instrument));
        if held > 0 {
            *self.accounts[from as usize].collateral.entry(instrument.0).or_default() -= held;
        }
        let paid = free + held;
        self.accounts[from as usize].usd -= paid;
        self.accounts[to as usize].usd += paid;
        if due > paid {
            *self.debts.entry((from, to)).or_default() += due - paid;
        }
        self.collect(to);
        paid
    }

    /// Dollars have come in: debts are paid first, in the order of the creditors.
    pub(super) fn collect(&mut self, from: u32) {
        let owed: Vec<_> =
            self.debts.range((from, 0)..=(from, u32::MAX)).map(|(key, due)| (*key, *due)).collect();
        for (key, due) in owed {
            let paid = i128::from(due).min(self.usd_available(from)) as i64;
            self.accounts[from as usize].usd -= paid;
            self.accounts[key.1 as usize].usd += paid;
            if paid == due {
                self.debts.remove(&key);
            } else {
                self.debts.insert(key, due - paid);
                return;
            }
        }
    }

    pub(super) fn owed_by(&self, who: u32) -> i128 {
        self.debts.range((who, 0)..=(who, u32::MAX)).map(|(_, due)| i128::from(*due)).sum()
    }

    /// What a cover costs now: the best ask up to the ceiling over the last trade, or that trade's price.
    pub(super) fn cover(&self, instrument: InstrumentId) -> Option<Cover> {
        let market = &self.markets[usize::from(instrument.0)];
        let ask = market.book.best_price(Side::Sell).map(|price| price.0);
        let ceiling = market
            .last_price
            .map(|last| u128::from(last) * u128::from(market.sla.cover_ceiling_bps) / 10_000);
        let ticks = match (ask, ceiling) {
            (Some(ask), Some(ceiling)) => ask.min(ceiling as u64),
            (ask, _) => ask.or(market.last_price)?,
        };
        Some(Cover { price: i128::from(ticks) * i128::from(market.terms.tick.0), tokens: 0 })
    }

    /// The supplier `by` delivers tokens of `issuer`, who failed `consumer`.
    pub(super) fn buy_in(
        &mut self,
        cover: &mut Cover,
        instrument: InstrumentId,
        (issuer, by, consumer): (u32, u32, u32),
        (tokens, escrow, cost): (u64, i64, i64),
    ) {
        let worth = |tokens: u64| (cover.price * i128::from(tokens) / i128::from(TOKENS_PER_UNIT)) as i64;
        let due = worth(cover.tokens + tokens) - worth(cover.tokens);
        cover.tokens += tokens;
        let from_escrow = due.min(escrow);
        self.pay(by, from_escrow);
        self.charge(issuer, by, instrument, due - from_escrow);
        let left = escrow - from_escrow;
        let share = self.markets[usize::from(instrument.0)].sla.cover_penalty_bps;
        let penalty = (i128::from(cost) * i128::from(share) / 10_000) as i64;
        let penalty = if consumer == issuer { 0 } else { penalty };
        let from_escrow = penalty.min(left);
        self.accounts[consumer as usize].usd += from_escrow;
        self.charge(issuer, consumer, instrument, penalty - from_escrow);
        self.pay(issuer, left - from_escrow);
    }

    /// Proceeds are released.
    pub(super) fn pay(&mut self, who: u32, amount: i64) {
        self.accounts[who as usize].usd += amount;
        self.collect(who);
    }

    // -- consumers --------------------------------------------------------------------------------------------

    pub(super) fn set_auto_reload(&mut self, who: u32, settings: AutoReload) -> Answer {
        self.accounts[who as usize].funding.settings = settings;
        self.resume(who)
    }

    pub(super) fn set_card(&mut self, who: u32, card: bool) -> Answer {
        self.accounts[who as usize].funding.card = card;
        self.resume(who)
    }

    pub(super) fn set_credit_line(&mut self, who: u32, limit: Usd) -> Answer {
        self.accounts[who as usize].funding.line = limit.0;
        self.resume(who)
    }

    pub(super) fn repay(&mut self, who: u32, amount: Usd) -> Result<Answer, Reject> {
        let funding = &mut self.accounts[who as usize].funding;
        if amount.0 <= 0 || amount.0 > funding.lent {
            return Err(Reject::OutOfRange);
        }
        funding.lent -= amount.0;
        Ok(self.resume(who))
    }

    fn resume(&mut self, who: u32) -> Answer {
        self.accounts[who as usize].funding.stopped = false;
        Answer::Done(0)
    }

    /// After a command of the account: whether a reload falls due.
    pub(super) fn look_at_funds(&mut self, who: u32) {
        let available = self.usd_available(who);
        let funding = &mut self.accounts[who as usize].funding;
        let AutoReload { enabled, threshold, amount, .. } = funding.settings;
        if enabled && funding.pending.is_none() && !funding.stopped && available < threshold.0.into() {
            self.reloads += 1;
            funding.pending = Some((self.reloads, amount.0, !funding.card));
        }
    }

    pub(super) fn reload_paid(&mut self, who: u32, number: u64, paid: Usd) -> Result<Answer, Reject> {
        let funding = &mut self.accounts[who as usize].funding;
        let pending = funding.pending.filter(|pending| pending.0 == number);
        let (_, amount, lent) = pending.ok_or(Reject::UnknownReload)?;
        if paid.0 <= 0 || paid.0 > amount {
            return Err(Reject::OutOfRange);
        }
        if lent && funding.lent + paid.0 > funding.line {
            return Err(Reject::InsufficientFunds);
        }
        funding.lent += if lent { paid.0 } else { 0 };
        funding.pending = None;
        self.pay(who, paid.0);
        Ok(Answer::Done(0))
    }

    pub(super) fn reload_failed(&mut self, who: u32, number: u64) -> Result<Answer, Reject> {
        let funding = &mut self.accounts[who as usize].funding;
        funding.pending.filter(|pending| pending.0 == number).ok_or(Reject::UnknownReload)?;
        (funding.pending, funding.stopped) = (None, true);
        self.collect(who);
        Ok(Answer::Done(0))
    }

    // -- comparing --------------------------------------------------------------------------------------------

    pub(super) fn compare_debts(&self, state: &State) -> Result<(), String> {
        let found: BTreeMap<_, _> =
            state.debts.iter().map(|((from, to), owed)| ((from.0, to.0), owed.0)).collect();
        if found != self.debts {
            return Err(format!(
                "after command {} the model has debts {:?}, the engine {found:?}",
                self.seq, self.debts
            ));
        }
        let reloads = |account: &super::Account| account.funding.pending.map(|pending| pending.0);
        let own: Vec<_> = self.accounts.iter().filter_map(reloads).collect();
        let mut own = own;
        own.sort_unstable();
        let found: Vec<_> = state.reloads.keys().copied().collect();
        if own != found {
            return Err(format!(
                "after command {} the model has reloads {own:?} under way, the engine {found:?}",
                self.seq
            ));
        }
        Ok(())
    }
}
