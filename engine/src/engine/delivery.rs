//! From owning Units to using tokens: lots, reservations, what was used, and what time takes away.

use super::liability::{BuyIn, Covered};
use super::trading::{Entering, Incoming};
use super::{Refusal, Step};
use crate::book::WIDEST;
use crate::command::{AccountMode, Cover, SelfTrade, Side, Surface, TimeInForce, TransferDirection, Usage};
use crate::event::{Draw, Event, Issuers, Moved, ReportBody, Subject, UsageRecord};
use crate::ids::{AccountId, InstrumentId, KeyId, LotId, OrderId, ReservationId};
use crate::instrument::{InstrumentStatus, Movement};
use crate::limits;
use crate::reject::Reject;
use crate::sla::{Fault, Waived};
use crate::state::{Holding, Lot, Pair, Reservation, SessionIndex, Timer, Tranche};
use crate::units::{Nanos, Price, Qty, Tokens, Usd};

/// A reservation that was taken out.
struct Ended {
    account: AccountId,
    instrument: InstrumentId,
    request: u128,
    key: KeyId,
    surface: Surface,
    reserved_at: Nanos,
    /// Where it lies.
    holding: u32,
    draws: Vec<Draw>,
}

/// What Auto Mode bought for a reservation.
#[derive(Clone, Copy, Default)]
struct Bought {
    qty: Qty,
    spent: Usd,
}

impl Step<'_> {
    /// Turns Units into lots, one per tranche, so that every lot names one issuer and, up to [`limits::LOTS`] of them, one
    /// price.
    pub(super) fn open_lots(
        &mut self,
        account: AccountId,
        instrument: InstrumentId,
        tranches: &[Tranche],
        movement: Moved,
    ) {
        let window = self.state.instruments[usize::from(instrument.0)].spec.delivery.window;
        let expires_at = window.map(|window| self.at.after(window));
        let mut qty = Qty::ZERO;
        for tranche in tranches {
            qty = qty.plus(tranche.qty);
            self.open_lot(account, instrument, tranche, expires_at);
        }
        let holding = self.holding_mut(account, instrument);
        holding.totals.moved_in = Qty(holding.totals.moved_in.0.saturating_add(qty.0));
        self.moved(account, instrument, qty, movement);
    }

    fn open_lot(
        &mut self,
        account: AccountId,
        instrument: InstrumentId,
        tranche: &Tranche,
        expires_at: Option<Nanos>,
    ) {
        let now = self.at;
        if let Some((lot, before, after)) =
            self.holding_mut(account, instrument).join_lot(tranche, expires_at, now)
        {
            let timer = Timer::Lot(account, instrument, lot);
            if let (Some(before), Some(after)) = (before, after) {
                self.state.timers.remove(&(before, timer));
                self.state.timers.insert((after, timer));
            }
            return;
        }
        self.state.counters.lot += 1;
        let lot = Lot::open(LotId(self.state.counters.lot), tranche, now, expires_at);
        if let Some(at) = expires_at {
            self.state.timers.insert((at, Timer::Lot(account, instrument, lot.id)));
        }
        self.holding_mut(account, instrument).add_lot(lot);
    }

    pub(super) fn moved(
        &mut self,
        account: AccountId,
        instrument: InstrumentId,
        qty: Qty,
        movement: Moved,
    ) -> u64 {
        self.state.counters.transfer += 1;
        let transfer = self.state.counters.transfer;
        self.events.push(Event::Moved { account, instrument, qty, movement, transfer });
        transfer
    }

    pub(super) fn transfer(
        &mut self,
        instrument: InstrumentId,
        qty: Qty,
        direction: TransferDirection,
    ) -> Result<(), Refusal> {
        if direction == TransferDirection::ToTrading && self.state.terms.one_way {
            return Err(Reject::NotPermitted.into());
        }
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if qty.is_zero() {
            return Err(Reject::InvalidQuantity.into());
        }
        match direction {
            TransferDirection::ToConsumption => {
                let holding = self.state.holding(self.account, instrument);
                if holding.is_none_or(|holding| qty > holding.available) {
                    return Err(Reject::InsufficientUnits.into());
                }
                let holding = self.holding_mut(self.account, instrument);
                holding.available = holding.available.minus(qty);
                let mut taken = Vec::new();
                holding.take_tranches(qty, &mut taken);
                self.open_lots(self.account, instrument, &taken, Moved::ToConsumption);
            }
            TransferDirection::ToTrading => self.back_to_trading(instrument, qty)?,
        }
        let created = self.state.counters.transfer;
        self.answer(ReportBody::Done { created });
        Ok(())
    }

    /// Only whole Units of lots that nobody has touched and no deadline hangs over.
    fn back_to_trading(&mut self, instrument: InstrumentId, qty: Qty) -> Result<(), Reject> {
        let known = self.state.holding(self.account, instrument).is_some();
        if !known || !self.state.holdings.open(self.account, instrument, self.at).back_to_trading(qty) {
            return Err(Reject::InsufficientUnits);
        }
        self.holding_mut(self.account, instrument).updated_at = self.at;
        self.moved(self.account, instrument, qty, Moved::ToTrading);
        Ok(())
    }

    pub(super) fn reserve(
        &mut self,
        instrument: InstrumentId,
        tokens: Tokens,
        request: u128,
        valid_for: Nanos,
        (key, surface): (KeyId, Surface),
    ) -> Result<(), Refusal> {
        if key != KeyId::NONE && self.state.owner_of_key(key) != Some(self.account) {
            return Err(Reject::UnknownKey.into());
        }
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if tokens.is_zero() || tokens.0 > limits::ALL_TOKENS {
            return Err(Reject::InvalidQuantity.into());
        }
        if valid_for > limits::RESERVATION_LIFE || valid_for == Nanos::ZERO {
            return Err(Reject::OutOfRange.into());
        }
        if self.state.reservations.by_request(self.account, request).is_some() {
            return Err(Reject::DuplicateRequest.into());
        }
        if !self.state.reservations.has_room() {
            return Err(Reject::LimitReached.into());
        }
        self.check_allowance()?;
        let known = self.state.holdings.place(self.account, instrument);
        let free = known.map_or(Tokens::ZERO, |place| self.state.holdings[place].free_tokens());
        let bought = match self.top_up(instrument, tokens, free) {
            Err(Reject::InsufficientFunds) => return Err(self.out_of_money().into()),
            bought => bought?,
        };
        self.count_call();

        let (account, at) = (self.account, self.at);
        let state = &mut *self.state;
        let holding = known.unwrap_or_else(|| state.holdings.place_or_new(account, instrument, at));
        let held = &mut state.holdings[holding];
        held.updated_at = at;
        let mut issuers = Issuers::default();
        let id = state.reservations.open(|new| {
            new.request = request;
            new.account = account;
            new.instrument = instrument;
            new.holding = holding;
            new.key = key;
            new.surface = surface;
            new.reserved_at = at;
            new.expires_at = at.after(valid_for);
            held.reserve(tokens, &mut new.draws);
            new.draws.iter().for_each(|draw| issuers.push(draw.issuer));
        });
        self.answer(ReportBody::Reserved {
            reservation: id,
            tokens,
            bought: bought.qty,
            spent: bought.spent,
            issuers,
        });
        Ok(())
    }

    /// Makes sure that `tokens` are free, buying in Auto Mode what is missing. A purchase that only refills the
    /// threshold is a courtesy: when it can't be had, the call goes on without it.
    fn top_up(&mut self, instrument: InstrumentId, tokens: Tokens, free: Tokens) -> Result<Bought, Reject> {
        let account = &self.state.accounts[self.account.0 as usize];
        let policy = account.auto_buy;
        let automatic = account.mode == AccountMode::Easy || policy.enabled;
        if let Some(rest) = free.checked_sub(tokens) {
            let threshold = policy.trigger_threshold.tokens().unwrap_or(Tokens(u64::MAX));
            if automatic && rest < threshold {
                return Ok(self.auto_buy(instrument, policy.quantity).unwrap_or_default());
            }
            return Ok(Bought::default());
        }
        if !automatic {
            return Err(Reject::InsufficientTokens);
        }
        let missing = tokens.minus(free).units_ceil();
        if policy.quantity > missing
            && let Ok(bought) = self.auto_buy(instrument, policy.quantity)
        {
            return Ok(bought);
        }
        match self.auto_buy(instrument, missing) {
            Err(Reject::NoSupply) => self.buy_with_managed(instrument, missing),
            bought => bought,
        }
    }

    /// Buys exactly `qty` Units at market for consumption, or nothing.
    fn auto_buy(&mut self, instrument: InstrumentId, qty: Qty) -> Result<Bought, Reject> {
        let mut incoming = self.buying(instrument, qty)?;
        let policy = self.state.accounts[self.account.0 as usize].auto_buy;
        let by_slippage =
            self.slippage_limit(instrument, Side::Buy, policy.max_slippage_bps).ok_or(Reject::NoSupply)?;
        let limit = if policy.price_ceiling.is_zero() {
            by_slippage
        } else {
            by_slippage.min(Price((policy.price_ceiling.0 / incoming.tick.0) as u64))
        };
        incoming.limit = Some(limit);
        let preview = self.preview(&incoming)?;
        if preview.fillable < incoming.order.remaining() {
            return Err(Reject::NoSupply);
        }
        let spent = preview
            .value
            .checked_add(preview.value.basis_points(incoming.taker_fee_bps))
            .ok_or(Reject::OutOfRange)?;
        if spent > self.state.accounts[self.account.0 as usize].usd_available {
            return Err(Reject::InsufficientFunds);
        }
        self.check_room(false)?;
        Ok(self.buy(&mut incoming, spent))
    }

    /// The same, with what the book lacks issued and offered by the managed supplier. The buyer's ceiling holds; its
    /// slippage does not, since that is measured from a book that has failed it.
    fn buy_with_managed(&mut self, instrument: InstrumentId, qty: Qty) -> Result<Bought, Reject> {
        let mut incoming = self.buying(instrument, qty)?;
        let ceiling = self.state.accounts[self.account.0 as usize].auto_buy.price_ceiling;
        let (limit, spent) = self.managed_ask(&incoming, ceiling)?;
        incoming.limit = Some(limit);
        Ok(self.buy(&mut incoming, spent))
    }

    fn buy(&mut self, incoming: &mut Incoming, spent: Usd) -> Bought {
        let qty = incoming.order.remaining();
        self.accept_own(incoming, spent);
        self.run(incoming);
        assert_eq!(incoming.order.filled(), qty, "a purchase that the book can fill is filled whole");
        Bought { qty, spent }
    }

    /// An order for at least `qty` Units, as the instrument's terms allow it, at any price.
    fn buying(&self, instrument: InstrumentId, qty: Qty) -> Result<Incoming, Reject> {
        let record = &self.state.instruments[usize::from(instrument.0)];
        let terms = record.spec.market;
        if record.spec.status != InstrumentStatus::Live {
            return Err(Reject::NoSupply);
        }
        let qty = Qty(qty.0.max(terms.min_qty.0).div_ceil(terms.lot.0) * terms.lot.0);
        if qty.0 > WIDEST {
            return Err(Reject::NoSupply);
        }
        Ok(Incoming {
            order: Subject::new(
                (OrderId::default(), self.account),
                (instrument, Side::Buy),
                Price::ZERO,
                qty,
                Qty::ZERO,
            ),
            session: SessionIndex::VENUE,
            tif: TimeInForce::Fok,
            kind: Entering::AllOrNothing,
            // The buyer's own asks stand aside: it would otherwise buy from itself.
            stp: SelfTrade::CancelResting,
            limit: None,
            hold: Usd::ZERO,
            tick: terms.tick,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: true,
            replaced: false,
        })
    }

    pub(super) fn settle(&mut self, id: ReservationId, usage: Usage) -> Result<(), Refusal> {
        let owner = self.state.reservations.get(id).map(|open| open.account);
        if owner != Some(self.account) {
            return Err(Reject::UnknownReservation.into());
        }
        if !self.state.suppliers.contains_key(&usage.supplier) {
            return Err(Reject::NotASupplier.into());
        }
        let delivered = usage.prompt_tokens.checked_add(usage.completion_tokens).ok_or(Reject::OutOfRange)?;
        let Ended { account, instrument, request, key, surface, reserved_at, holding, draws } =
            self.end_reservation(id);

        // What the terms let the consumer off stays in its lots.
        let waived = self.waives(instrument, &usage);
        let payable = if waived == Waived::No { delivered } else { Tokens::ZERO };
        let mut left = payable;
        let mut drawn = std::mem::take(&mut self.scratch.drawn);
        for &draw in &draws {
            let used = left.min(draw.tokens);
            self.unreserve(holding, draw.lot, draw.tokens.minus(used));
            if !used.is_zero() {
                drawn.push(Draw { tokens: used, ..draw });
                left = left.minus(used);
            }
        }
        self.scratch.reserved = draws;
        // A call that used more than it reserved takes what is still free; beyond that the venue gave it away.
        if !left.is_zero() {
            let holding = self.holding_at(holding);
            let more = left.min(holding.free_tokens());
            holding.reserve(more, &mut drawn);
            left = left.minus(more);
        }
        let payee = self.state.supplies.place_or_new(usage.supplier, instrument, self.at);
        let mut cost = Usd::ZERO;
        let mut cover = if usage.cover == Cover::Failed { self.cover_price(instrument) } else { None };
        for draw in &mut drawn {
            draw.cost = self.deliver(holding, (account, instrument), draw, payee, cover.as_mut());
            cost = cost.plus(draw.cost);
        }
        let billed = payable.minus(left);
        let left = delivered.minus(billed);
        self.state.supplies[payee].calls += 1;
        self.note_delivery(instrument, &usage, billed, cost);
        let totals = &mut self.holding_at(holding).totals;
        totals.used = Tokens(totals.used.0.saturating_add(billed.0));
        let record = UsageRecord {
            reservation: id,
            request,
            account,
            instrument,
            key,
            surface,
            reserved_at,
            usage,
            billed,
            unbilled: left,
            cost,
            waived,
        };
        self.events.push(Event::Used(record));
        for (item, &draw) in (0..).zip(&drawn) {
            self.events.push(Event::Drawn { reservation: id, item, draw });
        }
        drawn.clear();
        self.scratch.drawn = drawn;
        self.answer(ReportBody::Settled { reservation: id, billed, unbilled: left, cost });
        Ok(())
    }

    /// Turns reserved tokens of one lot into delivered ones and pays the supplier that delivered, whose supply lies at
    /// `payee`, or buys them in from it at the price of the cover. Returns what they had cost the consumer.
    fn deliver(
        &mut self,
        holding: u32,
        (consumer, instrument): (AccountId, InstrumentId),
        draw: &Draw,
        payee: u32,
        cover: Option<&mut BuyIn>,
    ) -> Usd {
        let (released, cost) = self.holding_at(holding).deliver(draw.lot, draw.tokens);
        let mut owing = payee;
        if self.state.supplies[payee].pair().0 != draw.issuer {
            owing = self.state.supplies.place_or_new(draw.issuer, instrument, self.at);
        }
        let owed = &mut self.state.supplies[owing];
        owed.delivered = owed.delivered.plus(draw.tokens);
        match cover {
            Some(cover) if owing != payee => {
                let (tokens, escrow) = (draw.tokens, released);
                self.buy_in(cover, &Covered { owing, payee, consumer, tokens, escrow, cost });
            }
            _ => self.pay_from_escrow(owing, payee, released),
        }
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.delivered = record.delivered.plus(draw.tokens);
        cost
    }

    /// Moves dollars from what waits for one supplier's deliveries, at `owing`, to another, at `payee`.
    pub(super) fn pay_from_escrow(&mut self, owing: u32, payee: u32, amount: Usd) {
        let owed = &mut self.state.supplies[owing];
        owed.escrow = owed.escrow.minus(amount);
        let earned = &mut self.state.supplies[payee];
        earned.earned = Usd(earned.earned.0.saturating_add(amount.0));
        let (payee, _) = earned.pair();
        let account = self.account_mut(payee);
        account.usd_available = account.usd_available.plus(amount);
        self.collect(payee);
    }

    pub(super) fn release(&mut self, id: ReservationId, supplier: AccountId) -> Result<(), Refusal> {
        let owner = self.state.reservations.get(id).map(|open| open.account);
        if owner != Some(self.account) {
            return Err(Reject::UnknownReservation.into());
        }
        let ended = self.end_reservation(id);
        if self.state.suppliers.contains_key(&supplier) {
            self.note_fault(ended.instrument, supplier, Fault::Refused);
        }
        self.give_back(id, ended, false);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// A reservation that nobody settled in time: the proxy died, and nobody pays.
    pub(super) fn lapse(&mut self, id: ReservationId) {
        let ended = self.end_reservation(id);
        self.give_back(id, ended, true);
    }

    /// Takes an open reservation out. The draws are scratch that the caller gives back.
    fn end_reservation(&mut self, id: ReservationId) -> Ended {
        let mut draws = std::mem::take(&mut self.scratch.reserved);
        draws.clear();
        let open = self.state.reservations.end(id).expect("the caller found it");
        draws.extend_from_slice(&open.draws);
        let Reservation { account, instrument, request, key, surface, reserved_at, holding, .. } = *open;
        self.state.accounts[account.0 as usize].open_calls -= 1;
        Ended { account, instrument, request, key, surface, reserved_at, holding, draws }
    }

    fn give_back(&mut self, id: ReservationId, ended: Ended, lapsed: bool) {
        let Ended { account, instrument, request, key, surface, reserved_at, holding, draws } = ended;
        for draw in &draws {
            self.unreserve(holding, draw.lot, draw.tokens);
        }
        self.scratch.reserved = draws;
        self.events.push(Event::ReservationEnded {
            reservation: id,
            account,
            request,
            instrument,
            key,
            surface,
            reserved_at,
            lapsed,
        });
    }

    /// Frees reserved tokens. Past their lot's deadline they are lost at once: a reservation only delayed that.
    fn unreserve(&mut self, holding: u32, id: LotId, tokens: Tokens) {
        let now = self.at;
        if !tokens.is_zero() && self.holding_at(holding).unreserve(id, tokens, now) {
            self.expire(holding, id);
        }
    }

    fn holding_at(&mut self, place: u32) -> &mut Holding {
        let holding = &mut self.state.holdings[place];
        holding.updated_at = self.at;
        holding
    }

    pub(super) fn expire_lot(&mut self, account: AccountId, instrument: InstrumentId, id: LotId) {
        if let Some(holding) = self.state.holdings.place(account, instrument) {
            self.expire(holding, id);
        }
    }

    /// What is free of a lot at its deadline is lost to its holder and earned by its issuer: take or pay.
    fn expire(&mut self, holding: u32, id: LotId) {
        let held = self.holding_at(holding);
        let (account, instrument) = held.pair();
        let Some((issuer, tokens, released)) = held.expire(id) else {
            return;
        };
        let owing = self.state.supplies.place_or_new(issuer, instrument, self.at);
        let owed = &mut self.state.supplies[owing];
        owed.expired = owed.expired.plus(tokens);
        self.pay_from_escrow(owing, owing, released);
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.expired = record.expired.plus(tokens);
        self.events.push(Event::LotExpired { lot: id, account, instrument, tokens });
    }

    /// A scheduled sweep: everything that is free to move, of everybody, goes to consumption. A supplier's own
    /// unsold Units stay: nobody has bought them yet.
    pub(super) fn sweep(&mut self, instrument: InstrumentId) {
        if self.state.instruments[usize::from(instrument.0)].spec.delivery.movement != Movement::Swept {
            return;
        }
        self.state.timers.insert((self.at.next_sweep(), Timer::Sweep(instrument)));
        for index in 0..self.state.accounts.len() {
            let account = self.state.accounts[index].id;
            let Some(holding) = self.state.holding(account, instrument) else {
                continue;
            };
            if holding.available.is_zero() {
                continue;
            }
            let holding = self.holding_mut(account, instrument);
            let mut swept = Vec::new();
            let mut left = holding.available;
            let all = std::mem::take(&mut holding.tranches);
            for mut tranche in all {
                let unsold = tranche.issuer == account && tranche.trade.0 == 0;
                if unsold || left.is_zero() {
                    holding.tranches.push_back(tranche);
                } else if tranche.qty <= left {
                    left = left.minus(tranche.qty);
                    swept.push(tranche);
                } else {
                    swept.push(tranche.split(left));
                    left = Qty::ZERO;
                    holding.tranches.push_back(tranche);
                }
            }
            let moved = Qty(swept.iter().map(|tranche| tranche.qty.0).sum());
            holding.available = holding.available.minus(moved);
            if !moved.is_zero() {
                self.open_lots(account, instrument, &swept, Moved::Swept);
            }
        }
    }
}
