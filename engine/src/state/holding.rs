//! What an account has of an instrument: Units in trading by where they came from, and lots of tokens in consumption.

use std::collections::VecDeque;

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::Pair;
use crate::command::Side;
use crate::event::Draw;
use crate::ids::{AccountId, InstrumentId, LotId, TradeId};
use crate::limits;
use crate::prefetch::ask_for;
use crate::units::{Nanos, Qty, Tokens, Usd};

/// One account's Units and tokens of one instrument.
///
/// Invariants: `available + held` = the tranches' sum; `held` = open sell orders' remainders;
/// lots are ordered by deadline (none last), then id, and their sums are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
#[repr(C, align(64))] // what orders and their trades look at lies in one cache line
pub struct Holding {
    /// Units in trading that are free.
    pub available: Qty,
    /// Units in trading behind open sell orders.
    pub held: Qty,
    /// The Units in trading by origin, spent from the front.
    pub tranches: VecDeque<Tranche>,
    /// When it last changed.
    pub updated_at: Nanos,
    account: AccountId,
    instrument: InstrumentId,
    /// Units issued by this account and not yet moved to trading.
    pub issuance: Qty,
    free: Tokens,
    reserved: Tokens,
    lots: VecDeque<Lot>,
    /// Counts for the account's own view.
    pub totals: HoldingTotals,
    /// When the holding was first touched.
    pub created_at: Nanos,
}

const _: () = assert!(std::mem::offset_of!(Holding, issuance) == 64);

/// What went in and out of consumption over the holding's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct HoldingTotals {
    /// Units that entered consumption.
    pub moved_in: Qty,
    /// Units that went back to trading.
    pub moved_out: Qty,
    /// Tokens used.
    pub used: Tokens,
    /// Tokens lost to a deadline.
    pub expired: Tokens,
}

impl Pair for Holding {
    fn new(account: AccountId, instrument: InstrumentId, now: Nanos) -> Self {
        Self { account, instrument, created_at: now, updated_at: now, ..Self::default() }
    }

    fn pair(&self) -> (AccountId, InstrumentId) {
        (self.account, self.instrument)
    }
}

impl Holding {
    /// Tokens in consumption that no reservation holds.
    #[must_use]
    pub const fn free_tokens(&self) -> Tokens {
        self.free
    }

    /// Tokens in consumption that reservations hold.
    #[must_use]
    pub const fn reserved_tokens(&self) -> Tokens {
        self.reserved
    }

    /// Tokens in consumption by lot, in the order in which they are spent.
    #[must_use]
    pub const fn lots(&self) -> &VecDeque<Lot> {
        &self.lots
    }

    /// Asks for the Units that a trade of this side will look at: those that are sold next, or those that were bought last.
    #[inline]
    pub(crate) fn ask_for_tranche(&self, side: Side) {
        let tranche = match side {
            Side::Buy => self.tranches.back(),
            Side::Sell => self.tranches.front(),
        };
        if let Some(tranche) = tranche {
            ask_for(tranche);
        }
    }

    /// Adds Units at the back, joined with the last ones when they are of the same origin. Once there are
    /// [`limits::TRANCHES`], they join the newest of the same issuer: what anyone owes and is owed stays exact, and only
    /// which trade brought them is forgotten.
    pub(crate) fn push_tranche(&mut self, tranche: Tranche) {
        let sold = |tranche: &Tranche| tranche.trade != TradeId::default();
        let kin = |other: &Tranche| other.issuer == tranche.issuer && sold(other) == sold(&tranche);
        let joined = match self.tranches.back() {
            Some(last) if last.issuer == tranche.issuer && last.trade == tranche.trade => {
                Some(self.tranches.len() - 1)
            }
            _ if self.tranches.len() >= limits::TRANCHES => self.tranches.iter().rposition(kin),
            _ => None,
        };
        let Some(joined) = joined else {
            return self.tranches.push_back(tranche);
        };
        let last = &mut self.tranches[joined];
        last.qty = last.qty.plus(tranche.qty);
        last.escrow = last.escrow.plus(tranche.escrow);
        last.cost = last.cost.plus(tranche.cost);
    }

    /// Moves `qty` Units from the front to `taken`. A tranche that is split gives its escrow and cost in proportion, and
    /// keeps the rest to the last nano-dollar.
    pub(crate) fn take_tranches(&mut self, qty: Qty, taken: &mut Vec<Tranche>) {
        let mut left = qty;
        while !left.is_zero() {
            let front = self.tranches.front_mut().expect("available and held are the tranches' sum");
            if front.qty <= left {
                left = left.minus(front.qty);
                taken.push(*front);
                self.tranches.pop_front();
            } else {
                taken.push(front.split(left));
                return;
            }
        }
    }

    /// Adds a lot: nearest deadline first, none last, then oldest first.
    pub fn add_lot(&mut self, lot: Lot) {
        self.free = self.free.plus(lot.free);
        self.reserved = self.reserved.plus(lot.reserved);
        let key = |lot: &Lot| (lot.expires_at.unwrap_or(Nanos(u64::MAX)), lot.id);
        if self.lots.back().is_none_or(|last| key(last) < key(&lot)) {
            return self.lots.push_back(lot);
        }
        let at = self.lots.partition_point(|other| key(other) < key(&lot));
        self.lots.insert(at, lot);
    }

    /// Takes Units in without a lot of their own. Once there are [`limits::LOTS`], they join the last lot of the same issuer
    /// that still has time, and all of it ends with the later deadline: nobody loses tokens by it, what anyone owes and is
    /// owed stays exact, and only which trade brought them is forgotten. Returns that lot with its deadline before and
    /// after; nothing while there is room for another one, or no such lot.
    pub(crate) fn join_lot(
        &mut self,
        tranche: &Tranche,
        expires_at: Option<Nanos>,
        now: Nanos,
    ) -> Option<(LotId, Option<Nanos>, Option<Nanos>)> {
        if self.lots.len() < limits::LOTS {
            return None;
        }
        let sold = |trade: TradeId| trade != TradeId::default();
        let at = self.lots.iter().rposition(|lot| {
            lot.issuer == tranche.issuer
                && sold(lot.trade) == sold(tranche.trade)
                && lot.expires_at.is_some() == expires_at.is_some()
                && lot.expires_at.is_none_or(|deadline| deadline > now)
        })?;
        let mut lot = self.lots.remove(at).expect("it was found there");
        self.free = self.free.minus(lot.free);
        self.reserved = self.reserved.minus(lot.reserved);
        let (id, before) = (lot.id, lot.expires_at);
        let tokens = tranche.qty.tokens().expect("bounded by ALL_TOKENS");
        lot.begin_anew();
        lot.tokens = lot.tokens.plus(tokens);
        lot.free = lot.free.plus(tokens);
        lot.escrow = lot.escrow.plus(tranche.escrow);
        lot.cost = lot.cost.plus(tranche.cost);
        lot.expires_at = before.max(expires_at);
        let after = lot.expires_at;
        self.add_lot(lot);
        Some((id, before, after))
    }

    /// Reserves `tokens` of what is free, from the front. The caller has made sure that they are there.
    pub(crate) fn reserve(&mut self, tokens: Tokens, draws: &mut Vec<Draw>) {
        let mut left = tokens;
        for lot in &mut self.lots {
            if left.is_zero() {
                break;
            }
            let take = lot.free.min(left);
            if take.is_zero() {
                continue;
            }
            lot.free = lot.free.minus(take);
            lot.reserved = lot.reserved.plus(take);
            left = left.minus(take);
            draws.push(Draw {
                lot: lot.id,
                issuer: lot.issuer,
                trade: lot.trade,
                tokens: take,
                cost: Usd::ZERO,
            });
        }
        assert!(left.is_zero(), "the caller made sure that enough is free");
        self.free = self.free.minus(tokens);
        self.reserved = self.reserved.plus(tokens);
    }

    /// Frees reserved tokens of a lot. True when its deadline is over by `now`.
    pub(crate) fn unreserve(&mut self, id: LotId, tokens: Tokens, now: Nanos) -> bool {
        self.reserved = self.reserved.minus(tokens);
        self.free = self.free.plus(tokens);
        let at = self.lot_at(id);
        let lot = &mut self.lots[at];
        lot.reserved = lot.reserved.minus(tokens);
        lot.free = lot.free.plus(tokens);
        lot.expires_at.is_some_and(|deadline| deadline <= now)
    }

    /// Turns reserved tokens of a lot into delivered ones. Returns the escrow that is due for them, and their cost.
    pub(crate) fn deliver(&mut self, id: LotId, tokens: Tokens) -> (Usd, Usd) {
        self.reserved = self.reserved.minus(tokens);
        let at = self.lot_at(id);
        let lot = &mut self.lots[at];
        let before = lot.gone();
        lot.reserved = lot.reserved.minus(tokens);
        lot.drawn = lot.drawn.plus(tokens);
        let parts = lot.parts_since(before);
        self.drop_if_gone(at);
        parts
    }

    /// Takes what is free of a lot at its deadline. Returns its issuer, the tokens and the escrow that is due for them;
    /// nothing when nothing was left.
    pub(crate) fn expire(&mut self, id: LotId) -> Option<(AccountId, Tokens, Usd)> {
        let at = self.lots.iter().position(|lot| lot.id == id)?;
        let lot = &mut self.lots[at];
        let tokens = lot.free;
        if tokens.is_zero() {
            return None;
        }
        let (before, issuer) = (lot.gone(), lot.issuer);
        lot.free = Tokens::ZERO;
        lot.expired = lot.expired.plus(tokens);
        let (released, _) = lot.parts_since(before);
        self.free = self.free.minus(tokens);
        self.totals.expired = Tokens(self.totals.expired.0.saturating_add(tokens.0));
        self.drop_if_gone(at);
        Some((issuer, tokens, released))
    }

    /// Makes tranches again of `qty` whole Units of lots that nobody has touched and no deadline hangs over. False, and
    /// nothing done, when there are fewer.
    pub(crate) fn back_to_trading(&mut self, qty: Qty) -> bool {
        let movable: u64 = self.lots.iter().filter(|lot| lot.is_untouched()).map(|lot| lot.units().0).sum();
        if qty.0 > movable {
            return false;
        }
        let mut left = qty;
        for at in 0..self.lots.len() {
            let lot = &mut self.lots[at];
            if left.is_zero() || !lot.is_untouched() {
                continue;
            }
            let units = lot.units().min(left);
            let tokens = units.tokens().expect("part of the lot");
            let (escrow, cost) =
                (lot.escrow.share(tokens.0, lot.tokens.0), lot.cost.share(tokens.0, lot.tokens.0));
            lot.escrow = lot.escrow.minus(escrow);
            lot.cost = lot.cost.minus(cost);
            lot.tokens = lot.tokens.minus(tokens);
            lot.free = lot.tokens;
            let tranche = Tranche { issuer: lot.issuer, qty: units, escrow, cost, trade: lot.trade };
            self.free = self.free.minus(tokens);
            self.push_tranche(tranche);
            left = left.minus(units);
        }
        self.lots.retain(|lot| !lot.tokens.is_zero());
        self.available = self.available.plus(qty);
        self.totals.moved_out = Qty(self.totals.moved_out.0.saturating_add(qty.0));
        true
    }

    /// Lots that are drawn from lie at the front.
    fn lot_at(&self, id: LotId) -> usize {
        self.lots
            .iter()
            .position(|lot| lot.id == id)
            .expect("a reserved lot stays until its tokens are used or returned")
    }

    fn drop_if_gone(&mut self, at: usize) {
        if self.lots[at].gone() == self.lots[at].tokens {
            self.lots.remove(at);
        }
    }
}

/// Units of one origin in trading. A Unit names the supplier that must deliver it (design §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Tranche {
    /// Who must deliver.
    pub issuer: AccountId,
    /// How many Units.
    pub qty: Qty,
    /// Proceeds of their first sale, waiting for delivery.
    pub escrow: Usd,
    /// What the present holder paid for them, before fees.
    pub cost: Usd,
    /// The trade that brought them here, or the first of them; 0 while they were never sold.
    pub trade: TradeId,
}

impl Tranche {
    /// Takes a part of it, which is less than the whole.
    pub(crate) fn split(&mut self, qty: Qty) -> Self {
        let part = Self {
            qty,
            escrow: self.escrow.share(qty.0, self.qty.0),
            cost: self.cost.share(qty.0, self.qty.0),
            ..*self
        };
        self.qty = self.qty.minus(part.qty);
        self.escrow = self.escrow.minus(part.escrow);
        self.cost = self.cost.minus(part.cost);
        part
    }
}

/// Tokens that entered consumption together.
///
/// Invariant: `free + reserved + drawn + expired = tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Lot {
    /// Its id.
    pub id: LotId,
    /// Who must deliver.
    pub issuer: AccountId,
    /// At the start.
    pub tokens: Tokens,
    /// Not used and not reserved.
    pub free: Tokens,
    /// Reserved by calls in progress.
    pub reserved: Tokens,
    /// Delivered.
    pub drawn: Tokens,
    /// Lost to the deadline.
    pub expired: Tokens,
    /// Proceeds of the first sale of the whole lot; the share of what is drawn or expired has been paid out.
    pub escrow: Usd,
    /// What the holder paid for the whole lot.
    pub cost: Usd,
    /// The trade that brought it here; 0 for a supplier's own.
    pub trade: TradeId,
    /// When it entered consumption.
    pub opened_at: Nanos,
    /// When the rest is lost; `None` never.
    pub expires_at: Option<Nanos>,
}

impl Lot {
    /// Of Units that enter consumption now.
    pub(crate) fn open(id: LotId, tranche: &Tranche, now: Nanos, expires_at: Option<Nanos>) -> Self {
        let tokens = tranche.qty.tokens().expect("bounded by ALL_TOKENS");
        Self {
            id,
            issuer: tranche.issuer,
            tokens,
            free: tokens,
            reserved: Tokens::ZERO,
            drawn: Tokens::ZERO,
            expired: Tokens::ZERO,
            escrow: tranche.escrow,
            cost: tranche.cost,
            trade: tranche.trade,
            opened_at: now,
            expires_at,
        }
    }

    /// Forgets what is gone of it, with the escrow and the cost that left with that: what is left is the whole from now on.
    fn begin_anew(&mut self) {
        let gone = self.gone();
        self.cost = self.cost.minus(self.cost.share(gone.0, self.tokens.0));
        self.escrow = self.escrow_left();
        self.tokens = self.tokens.minus(gone);
        (self.drawn, self.expired) = (Tokens::ZERO, Tokens::ZERO);
    }

    /// Tokens that are no longer in the lot.
    #[must_use]
    pub fn gone(&self) -> Tokens {
        self.drawn.plus(self.expired)
    }

    /// Proceeds that still wait for delivery.
    #[must_use]
    pub fn escrow_left(&self) -> Usd {
        self.escrow.minus(self.escrow.share(self.gone().0, self.tokens.0))
    }

    fn is_untouched(&self) -> bool {
        self.free == self.tokens && self.expires_at.is_none()
    }

    fn units(&self) -> Qty {
        Qty(self.tokens.0 / crate::units::TOKENS_PER_UNIT)
    }

    /// The escrow and the cost that belong to the tokens that left the lot since `before`.
    fn parts_since(&self, before: Tokens) -> (Usd, Usd) {
        let gone = self.gone();
        let part =
            |whole: Usd| whole.share(gone.0, self.tokens.0).minus(whole.share(before.0, self.tokens.0));
        (part(self.escrow), part(self.cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tranche(issuer: u32, trade: u64) -> Tranche {
        Tranche {
            issuer: AccountId(issuer),
            qty: Qty(3),
            escrow: Usd(70),
            cost: Usd(100),
            trade: TradeId(trade),
        }
    }

    #[test]
    fn tranches_are_bounded_and_nothing_of_them_is_lost() {
        let mut holding = Holding::default();
        let unsold = Tranche { escrow: Usd::ZERO, cost: Usd::ZERO, ..tranche(7, 0) };
        holding.push_tranche(unsold);
        for trade in 1..=5_000 {
            holding.push_tranche(tranche(7 + trade as u32 % 2, trade));
        }
        holding.push_tranche(unsold);
        assert_eq!(holding.tranches.len(), limits::TRANCHES);
        assert_eq!(holding.tranches[0].qty, Qty(6), "what was never sold joins only its own kind");
        let sums = holding.tranches.iter().fold((0, 0, 0), |(qty, escrow, cost), tranche| {
            (qty + tranche.qty.0, escrow + tranche.escrow.0, cost + tranche.cost.0)
        });
        assert_eq!(sums, (5_002 * 3, 5_000 * 70, 5_000 * 100));

        holding.push_tranche(tranche(9, 5_001));
        assert_eq!(holding.tranches.len(), limits::TRANCHES + 1, "a further issuer has its own");
    }

    #[test]
    fn lots_are_bounded_and_every_token_and_nano_dollar_of_them_comes_out_again() {
        for window in [None, Some(1_000_000)] {
            let mut holding = Holding::default();
            let (mut draws, mut released, mut cost, mut deadline) = (Vec::new(), 0, 0, None);
            for n in 1..=3_000_u64 {
                let expires_at = window.map(|window| Nanos(window + n));
                let tranche = tranche(7 + n as u32 % 2, n);
                if holding.join_lot(&tranche, expires_at, Nanos(n)).is_none() {
                    holding.add_lot(Lot::open(LotId(n), &tranche, Nanos(n), expires_at));
                }
                deadline = deadline.max(expires_at);
                // What is drawn before tokens join leaves the lot's shares uneven.
                holding.reserve(Tokens(1_234_567), &mut draws);
                for draw in draws.drain(..) {
                    let (escrow, paid) = holding.deliver(draw.lot, draw.tokens);
                    (released, cost) = (released + escrow.0, cost + paid.0);
                }
                assert!(holding.lots().len() <= limits::LOTS);
            }
            assert_eq!(holding.lots().back().and_then(|lot| lot.expires_at), deadline);
            holding.reserve(holding.free_tokens(), &mut draws);
            for draw in draws.drain(..) {
                let (escrow, paid) = holding.deliver(draw.lot, draw.tokens);
                (released, cost) = (released + escrow.0, cost + paid.0);
            }
            assert_eq!((released, cost), (3_000 * 70, 3_000 * 100));
            assert!(holding.lots().is_empty() && holding.free_tokens().is_zero());
        }
    }

    #[test]
    fn a_split_tranche_keeps_every_nano_dollar() {
        let mut whole = Tranche { escrow: Usd(100), cost: Usd(11), ..tranche(7, 1) };
        let part = whole.split(Qty(2));
        assert_eq!((part.qty, part.escrow, part.cost), (Qty(2), Usd(66), Usd(7)));
        assert_eq!((whole.qty, whole.escrow, whole.cost), (Qty(1), Usd(34), Usd(4)));
    }
}
