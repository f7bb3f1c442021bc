//! Units that become tokens in the second bookkeeper: issuance, lots, reservations and settlements.

use grid_engine::command::{Cover, TransferDirection, Usage};
use grid_engine::{InstrumentId, Nanos, Reject, TOKENS_PER_UNIT, limits};

use super::tranche::{Tranche, join, part, share, take};
use super::{Answer, Lot, Model, Reservation};

impl Model {
    pub(super) fn open_lots(&mut self, who: u32, instrument: InstrumentId, pieces: Vec<Tranche>) {
        let window = self.markets[usize::from(instrument.0)].delivery.window;
        let expires = window.map(|window| self.at + window.0);
        for piece in pieces {
            self.lots += 1;
            let tokens = piece.qty * TOKENS_PER_UNIT;
            let lot = Lot {
                id: self.lots,
                issuer: piece.issuer,
                trade: piece.trade,
                tokens,
                free: tokens,
                reserved: 0,
                gone: 0,
                escrow: piece.escrow,
                cost: piece.cost,
                expires,
            };
            let lots = &mut self.holding_mut(who, instrument).lots;
            lots.push(lot);
            lots.sort_by_key(|lot| (lot.expires.unwrap_or(u64::MAX), lot.id));
        }
        self.transfers += 1;
    }

    pub(super) fn transfer(
        &mut self,
        who: u32,
        instrument: InstrumentId,
        qty: u64,
        direction: TransferDirection,
    ) -> Result<Answer, Reject> {
        if self.one_way && direction == TransferDirection::ToTrading {
            return Err(Reject::NotPermitted);
        }
        self.market(instrument)?;
        if qty == 0 {
            return Err(Reject::InvalidQuantity);
        }
        match direction {
            TransferDirection::ToConsumption => {
                if qty > self.units_available(who, instrument) {
                    return Err(Reject::InsufficientUnits);
                }
                let pieces = take(&mut self.holding_mut(who, instrument).tranches, qty);
                self.open_lots(who, instrument, pieces);
            }
            TransferDirection::ToTrading => {
                let whole = |lot: &&mut Lot| lot.free == lot.tokens && lot.expires.is_none();
                let movable: u64 = self.holding(who, instrument).map_or(0, |holding| {
                    let lots = holding.lots.iter();
                    lots.filter(|lot| lot.free == lot.tokens && lot.expires.is_none())
                        .map(|lot| lot.tokens / TOKENS_PER_UNIT)
                        .sum()
                });
                if qty > movable {
                    return Err(Reject::InsufficientUnits);
                }
                let holding = self.holding_mut(who, instrument);
                let mut left = qty;
                for lot in holding.lots.iter_mut().filter(whole) {
                    let units = (lot.tokens / TOKENS_PER_UNIT).min(left);
                    if units == 0 {
                        continue;
                    }
                    let tokens = units * TOKENS_PER_UNIT;
                    let escrow = share(lot.escrow, tokens, lot.tokens);
                    let cost = share(lot.cost, tokens, lot.tokens);
                    lot.escrow -= escrow;
                    lot.cost -= cost;
                    lot.tokens -= tokens;
                    lot.free -= tokens;
                    left -= units;
                    let piece = Tranche { issuer: lot.issuer, trade: lot.trade, qty: units, escrow, cost };
                    join(&mut holding.tranches, piece);
                }
                holding.lots.retain(|lot| lot.tokens > 0);
                self.transfers += 1;
            }
        }
        Ok(Answer::Done(self.transfers))
    }

    pub(super) fn reserve(
        &mut self,
        who: u32,
        instrument: InstrumentId,
        tokens: u64,
        request: u128,
        valid_for: Nanos,
    ) -> Result<Answer, Reject> {
        self.market(instrument)?;
        if tokens == 0 {
            return Err(Reject::InvalidQuantity);
        }
        if valid_for.0 == 0 || valid_for > limits::RESERVATION_LIFE {
            return Err(Reject::OutOfRange);
        }
        if self.reservations.values().any(|held| held.account == who && held.request == request) {
            return Err(Reject::DuplicateRequest);
        }
        let free: u64 = self.holding(who, instrument).map_or(0, |h| h.lots.iter().map(|lot| lot.free).sum());
        if tokens > free {
            return Err(Reject::InsufficientTokens);
        }
        let draws = draw(&mut self.holding_mut(who, instrument).lots, tokens);
        let expires = self.at + valid_for.0;
        let held = Reservation { account: who, instrument: instrument.0, request, draws, expires };
        self.reserved += 1;
        let open = self.reservations.len() as u64;
        let id = self.reserved << 24 | self.free_slots.pop().unwrap_or(open);
        self.reservations.insert(id, held);
        Ok(Answer::Reserved { reservation: id, tokens })
    }

    pub(super) fn reservation_of(&self, who: u32, id: u64) -> Result<(), Reject> {
        let held = self.reservations.get(&id).filter(|held| held.account == who);
        held.map(|_| ()).ok_or(Reject::UnknownReservation)
    }

    pub(super) fn settle(&mut self, who: u32, id: u64, usage: &Usage) -> Result<Answer, Reject> {
        self.reservation_of(who, id)?;
        if !self.accounts.get(usage.supplier.0 as usize).is_some_and(|account| account.supplier) {
            return Err(Reject::NotASupplier);
        }
        let delivered =
            usage.prompt_tokens.0.checked_add(usage.completion_tokens.0).ok_or(Reject::OutOfRange)?;
        let held = self.reservations.remove(&id).expect("just seen");
        self.free_slots.push(id & 0xFF_FFFF);
        let instrument = InstrumentId(held.instrument);
        let (mut left, mut used) = (delivered, Vec::new());
        for (lot, tokens) in held.draws {
            let now = left.min(tokens);
            self.unreserve(who, instrument, lot, tokens - now);
            if now > 0 {
                used.push((lot, now));
                left -= now;
            }
        }
        if left > 0 {
            let lots = &mut self.holding_mut(who, instrument).lots;
            let free: u64 = lots.iter().map(|lot| lot.free).sum();
            let more = left.min(free);
            used.extend(draw(lots, more));
            left -= more;
        }
        let mut cost = 0;
        let by = usage.supplier.0;
        let mut cover = if usage.cover == Cover::Failed { self.cover(instrument) } else { None };
        for (id, tokens) in used {
            let lots = &mut self.holding_mut(who, instrument).lots;
            let lot = lots.iter_mut().find(|lot| lot.id == id).expect("a drawn lot is there");
            lot.reserved -= tokens;
            let before = lot.gone;
            lot.gone += tokens;
            let worth = part(lot.cost, before, lot.gone, lot.tokens);
            cost += worth;
            let released = part(lot.escrow, before, lot.gone, lot.tokens);
            let issuer = lot.issuer;
            lots.retain(|lot| lot.gone < lot.tokens);
            self.supply_mut(issuer, instrument)[2] += tokens;
            match &mut cover {
                Some(cover) if issuer != by => {
                    self.buy_in(cover, instrument, (issuer, by, who), (tokens, released, worth));
                }
                _ => self.pay(by, released),
            }
        }
        self.note_delivery(instrument, by, usage.partial, usage.distrusted, cost);
        Ok(Answer::Settled { billed: delivered - left, unbilled: left, cost })
    }

    pub(super) fn supply_mut(&mut self, issuer: u32, instrument: InstrumentId) -> &mut [u64; 4] {
        self.accounts[issuer as usize].supply.entry(instrument.0).or_default()
    }

    pub(super) fn give_back(&mut self, id: u64) {
        let held = self.reservations.remove(&id).expect("the caller has seen it");
        self.free_slots.push(id & 0xFF_FFFF);
        for (lot, tokens) in held.draws {
            self.unreserve(held.account, InstrumentId(held.instrument), lot, tokens);
        }
    }

    fn unreserve(&mut self, who: u32, instrument: InstrumentId, id: u64, tokens: u64) {
        let at = self.at;
        let lots = &mut self.holding_mut(who, instrument).lots;
        let lot = lots.iter_mut().find(|lot| lot.id == id).expect("a reserved lot is there");
        lot.reserved -= tokens;
        lot.free += tokens;
        if lot.expires.is_some_and(|deadline| deadline <= at) {
            self.expire_lot(who, instrument.0, id);
        }
    }

    pub(super) fn expire_lot(&mut self, who: u32, instrument: u16, id: u64) {
        let instrument = InstrumentId(instrument);
        let lots = &mut self.holding_mut(who, instrument).lots;
        let Some(lot) = lots.iter_mut().find(|lot| lot.id == id && lot.free > 0) else { return };
        let before = lot.gone;
        lot.gone += lot.free;
        let tokens = std::mem::take(&mut lot.free);
        let released = part(lot.escrow, before, lot.gone, lot.tokens);
        let issuer = lot.issuer;
        lots.retain(|lot| lot.gone < lot.tokens);
        self.supply_mut(issuer, instrument)[3] += tokens;
        self.pay(issuer, released);
    }

    pub(super) fn issue(&mut self, who: u32, instrument: InstrumentId, qty: u64) -> Result<Answer, Reject> {
        self.market(instrument)?;
        if qty == 0 {
            return Err(Reject::InvalidQuantity);
        }
        if !self.accounts[who as usize].supplier {
            return Err(Reject::NotASupplier);
        }
        let tokens = qty.checked_mul(TOKENS_PER_UNIT).ok_or(Reject::OutOfRange)?;
        let issued = self.markets[usize::from(instrument.0)].issued;
        let all = issued.checked_add(tokens).filter(|all| *all <= limits::ALL_TOKENS);
        let all = all.ok_or(Reject::OutOfRange)?;
        let [capacity, issued, delivered, expired] =
            self.accounts[who as usize].supply.get(&instrument.0).copied().unwrap_or_default();
        if issued - delivered - expired + tokens > capacity {
            return Err(Reject::BeyondCapacity);
        }
        let owed = (issued - delivered - expired + tokens).div_ceil(TOKENS_PER_UNIT);
        let per_unit = self.market(instrument)?.sla.collateral_per_unit.0;
        if i128::from(per_unit) * i128::from(owed) > i128::from(self.collateral(who, instrument)) {
            return Err(Reject::BeyondCollateral);
        }
        if self.service.is_suspended(who, instrument) {
            return Err(Reject::Suspended);
        }
        self.markets[usize::from(instrument.0)].issued = all;
        self.supply_mut(who, instrument)[1] += tokens;
        self.holding_mut(who, instrument).issuance += qty;
        self.issuances += 1;
        Ok(Answer::Done(self.issuances))
    }
}

/// Reserves from the front; the caller has made sure that enough is free.
fn draw(lots: &mut [Lot], tokens: u64) -> Vec<(u64, u64)> {
    let (mut left, mut draws) = (tokens, Vec::new());
    for lot in lots {
        let now = lot.free.min(left);
        if now > 0 {
            lot.free -= now;
            lot.reserved += now;
            left -= now;
            draws.push((lot.id, now));
        }
    }
    draws
}
