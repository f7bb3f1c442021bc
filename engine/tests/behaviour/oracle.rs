//! A million random commands on order books, each compared with `naive`: the answer, every trade with its money, every
//! order's end, every price level as told and as held, the queue, and what the accounts hold.

use std::collections::BTreeMap;

use grid_engine::command::{
    AccountMode, Capabilities, Command, Entry, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade,
    Side, TimeInForce,
};
use grid_engine::event::{Closure, Event, Exec, LevelUpdate, ReportBody};
use grid_engine::instrument::{InstrumentSpec, InstrumentStatus};
use grid_engine::limits;
use grid_engine::{
    AccountId, InstrumentId, Label, Nanos, OrderId, Price, Qty, Reject, SECOND, SessionId, TOKENS_PER_UNIT,
    Usd,
};

use crate::dice::{self, Dice};
use crate::naive::{self, Book, Closed, Fill, Incoming, Order, Outcome};
use crate::venue::{Actor, Venue, rejected, spec};

/// Commands per seed; four seeds make the million.
const COMMANDS: u64 = 250_000;

#[test]
fn a_million_random_commands_match_the_naive_book_part_1() {
    World::new(dice::seed(1)).run(COMMANDS);
}

#[test]
fn a_million_random_commands_match_the_naive_book_part_2() {
    World::new(dice::seed(2)).run(COMMANDS);
}

#[test]
fn a_million_random_commands_match_the_naive_book_part_3() {
    World::new(dice::seed(3)).run(COMMANDS);
}

#[test]
fn a_million_random_commands_match_the_naive_book_part_4() {
    World::new(dice::seed(4)).run(COMMANDS);
}

/// What the answer to a command must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Rejected(Reject),
    New,
    Replaced,
    Cancelled,
    MassCancelled(u32),
}

/// What is told of a side: price to quantity and orders.
type Told = BTreeMap<u64, (u64, u32)>;

struct World {
    seed: u64,
    index: u64,
    dice: Dice,
    venue: Venue,
    traders: Vec<Actor>,
    tier: Actor,
    easy: Vec<bool>,
    specs: Vec<InstrumentSpec>,
    books: Vec<Book>,
    told: Vec<[Told; 2]>,
    tags: BTreeMap<(AccountId, Label), OrderId>,
    /// How many orders were accepted.
    accepted: u64,
    counts: Counts,
}

/// What the naive book calls an order until the engine has given it its id.
const NAMELESS: OrderId = OrderId(u64::MAX);

/// How often what was looked for happened, so that a stream that tests nothing is noticed.
#[derive(Debug, Default)]
struct Counts {
    fills: u64,
    closed: BTreeMap<u8, u64>,
    rejects: BTreeMap<Reject, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut venue = Venue::open();
        venue.log = None;
        let mut specs = vec![spec("fine"), spec("coarse"), spec("dear")];
        specs[0].market.maker_fee_bps = 3;
        specs[0].market.taker_fee_bps = 7;
        specs[1].market.lot = Qty(5);
        specs[1].market.min_qty = Qty(10);
        specs[1].market.maker_fee_bps = 25;
        // A tick of a hundred thousand dollars: notionals that do not fit are within reach.
        specs[2].market.tick = Usd::dollars(100_000);
        specs[2].market.max_price = Price(1_000);
        for spec in &specs {
            venue.define(spec.clone());
        }
        let books = specs
            .iter()
            .map(|spec| Book {
                orders: Vec::new(),
                tick: spec.market.tick,
                fee_bps: spec.market.maker_fee_bps.max(spec.market.taker_fee_bps),
            })
            .collect();
        let traders: Vec<_> = (0..6)
            .map(|n| {
                let trader =
                    venue.join(&format!("trader {n}"), AccountMode::Advanced, Capabilities::default());
                for instrument in 0..specs.len() {
                    venue.supply(trader.account, InstrumentId(instrument as u16), Qty(1 << 40));
                }
                trader
            })
            .collect();
        let tier = venue.join("tier", AccountMode::Advanced, Capabilities { tier: true, operator: false });
        Self {
            seed,
            index: 0,
            dice: Dice::new(seed),
            venue,
            easy: vec![false; traders.len()],
            traders,
            tier,
            told: vec![[Told::new(), Told::new()]; specs.len()],
            specs,
            books,
            tags: BTreeMap::new(),
            accepted: 0,
            counts: Counts::default(),
        }
    }

    fn run(mut self, commands: u64) {
        for index in 0..commands {
            self.index = index;
            self.step();
            if index % 512 == 0 {
                self.compare_everything();
            }
        }
        self.compare_everything();
        // The stream must have been worth running.
        assert!(self.counts.fills > commands / 10, "seed {}: {:?}", self.seed, self.counts);
        assert_eq!(
            self.counts.closed.len(),
            8,
            "every closure occurs, seed {}: {:?}",
            self.seed,
            self.counts
        );
        for reject in [
            Reject::NotPermitted,
            Reject::UnknownAccount,
            Reject::AutoModeTradingRestricted,
            Reject::UnknownInstrument,
            Reject::InstrumentNotLive,
            Reject::InvalidQuantity,
            Reject::InvalidPrice,
            Reject::OutOfRange,
            Reject::InvalidText,
            Reject::DuplicateLabel,
            Reject::UnknownOrder,
            Reject::WouldTrade,
            Reject::InsufficientFunds,
            Reject::InsufficientUnits,
        ] {
            assert!(
                self.counts.rejects.contains_key(&reject),
                "{reject} occurs, seed {}: {:?}",
                self.seed,
                self.counts
            );
        }
    }

    #[track_caller]
    fn fail(&self, what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug) -> ! {
        panic!(
            "seed {} command {}: {what}\n expected: {expected:?}\n found:    {found:?}\n events: {:#?}",
            self.seed, self.index, self.venue.events
        );
    }

    fn step(&mut self) {
        let span = match self.dice.below(2_000) {
            0 => 6 * 3_600 * SECOND,
            _ => self.dice.below(SECOND / 2),
        };
        self.venue.now = self.venue.now.after(Nanos(span));
        if self.dice.chance(1, 200) {
            return self.change_circumstances();
        }
        if self.dice.chance(1, 100) {
            return self.back_to_normal();
        }
        let trader = self.dice.below(self.traders.len() as u64) as usize;
        let through_tier = self.dice.chance(1, 10);
        let subject = match self.dice.below(2_000) {
            0 => self.traders[(trader + 1) % self.traders.len()].account,
            1 => AccountId(1_000_000),
            _ => self.traders[trader].account,
        };
        let command = self.command(trader);
        let mut outcome = self.expire_day_orders();
        let session = if through_tier { self.tier.session } else { self.traders[trader].session };
        let answer = if subject != self.traders[trader].account && !through_tier {
            Answer::Rejected(Reject::NotPermitted)
        } else {
            match self.traders.iter().position(|trader| trader.account == subject) {
                None => Answer::Rejected(Reject::UnknownAccount),
                Some(trader) => self.expect(trader, session, &command, &mut outcome),
            }
        };
        let mut actor = if through_tier { self.tier } else { self.traders[trader] };
        self.venue.send(&mut actor, subject, command.clone());
        if through_tier {
            self.tier = actor;
        } else {
            self.traders[trader] = actor;
        }
        self.learn_id(&command, &mut outcome);
        self.compare_answer(&actor, answer, &command);
        self.compare_outcome(&outcome);
        self.compare_levels();
    }

    /// Calls the order that the command opened as the engine does: by the next number, and by a slot if it may rest.
    fn learn_id(&mut self, command: &Command, outcome: &mut Outcome) {
        let opened = self.venue.events.iter().find_map(|event| match event {
            Event::OrderOpened(opened) => Some(opened.order.id),
            _ => None,
        });
        let (Some(id), Command::Place(new)) = (opened, command) else {
            return;
        };
        self.accepted += 1;
        let rests = matches!(new.kind, OrderKind::Limit { tif, .. }
            if !matches!(tif, TimeInForce::Ioc | TimeInForce::Fok));
        if (id.number(), id.slot().is_some()) != (self.accepted, rests) {
            self.fail("the id of a new order", &(self.accepted, rests), &id);
        }
        let name = |named: &mut OrderId| {
            if *named == NAMELESS {
                *named = id;
            }
        };
        self.books.iter_mut().flat_map(|book| &mut book.orders).for_each(|order| name(&mut order.id));
        self.tags.values_mut().for_each(name);
        outcome.fills.iter_mut().for_each(|fill| name(&mut fill.taker));
        outcome.closed.iter_mut().for_each(|closed| name(&mut closed.order));
    }

    /// The operator's doings: money and Units where they run low, halts, modes.
    fn change_circumstances(&mut self) {
        let outcome = self.expire_day_orders();
        let trader = self.dice.below(self.traders.len() as u64) as usize;
        let account = self.traders[trader].account;
        let instrument = self.dice.below(self.specs.len() as u64) as usize;
        let id = InstrumentId(instrument as u16);
        match self.dice.below(12) {
            0 => self.set_status(instrument, InstrumentStatus::Halted),
            1 => self.set_mode(trader, AccountMode::Easy),
            2..=6 => {
                // Enough for some orders and not for others.
                let amount = match self.dice.below(3) {
                    0 => Usd(self.specs[2].market.tick.0 * self.dice.between(100, 2_000) as i64),
                    _ => Usd::dollars(self.dice.between(1, 300) as i64),
                };
                // All the dollars that there may be are within reach of the dear instrument.
                let room = limits::ALL_USD.0 - i64::try_from(self.venue.engine.state().deposited.0).unwrap();
                if room == 0 {
                    return self.skip(&outcome);
                }
                self.venue.deposit(account, amount.min(Usd(room / 8 + 1)));
            }
            _ => {
                // Few of the dear one: the proceeds of a first sale wait for a delivery that never comes here.
                let dear = id == InstrumentId(2);
                if dear && self.venue.engine.state().instruments[2].issued.0 > 60 * TOKENS_PER_UNIT {
                    return self.skip(&outcome);
                }
                let qty = Qty(self.dice.between(1, if dear { 10 } else { 400 }));
                self.venue.operate(account, Command::Issue { instrument: id, qty });
                self.compare_outcome(&outcome);
                self.venue.operate(account, Command::TransferIssuance { instrument: id, qty });
                return;
            }
        }
        self.compare_outcome(&outcome);
    }

    /// Ends a halt or an account's stay in Auto Mode, or lets time pass.
    fn back_to_normal(&mut self) {
        let outcome = self.expire_day_orders();
        let halted = |spec: &InstrumentSpec| spec.status != InstrumentStatus::Live;
        if let Some(instrument) = self.specs.iter().position(halted) {
            self.set_status(instrument, InstrumentStatus::Live);
        } else if let Some(trader) = self.easy.iter().position(|&easy| easy) {
            self.set_mode(trader, AccountMode::Advanced);
        } else {
            return self.skip(&outcome);
        }
        self.compare_outcome(&outcome);
    }

    fn set_status(&mut self, instrument: usize, status: InstrumentStatus) {
        self.specs[instrument].status = status;
        let operator = self.venue.operator.account;
        let instrument = InstrumentId(instrument as u16);
        self.venue.operate(operator, Command::SetInstrumentStatus { instrument, status });
    }

    fn set_mode(&mut self, trader: usize, mode: AccountMode) {
        self.easy[trader] = mode == AccountMode::Easy;
        self.venue.operate(self.traders[trader].account, Command::SetMode { mode });
    }

    /// Time passes and nothing else.
    fn skip(&mut self, outcome: &Outcome) {
        self.venue.apply(Entry::venue(Command::Tick));
        self.compare_outcome(outcome);
    }

    /// A random command for a trader, most of them sensible.
    fn command(&mut self, trader: usize) -> Command {
        let open: usize = self.books.iter().map(|book| book.orders.len()).sum();
        let crowded = open as u64 > 40 + self.dice.below(80);
        match self.dice.below(100) {
            0 => {
                let instrument = self.dice.chance(1, 2).then(|| InstrumentId(self.dice.below(3) as u16));
                let side = self.dice.chance(1, 2).then(|| self.side());
                let session = self.dice.chance(1, 2).then_some(self.traders[trader].session);
                Command::MassCancel(MassCancelScope { instrument, side, session })
            }
            1..=12 => {
                let order = self.order_ref(trader);
                let (price, qty) = self.price_and_qty(order);
                Command::Replace { order, qty, price, stp: self.stp(), post_only: self.dice.chance(1, 5) }
            }
            13..=25 => Command::Cancel { order: self.order_ref(trader) },
            26..=55 if crowded => Command::Cancel { order: self.order_ref(trader) },
            _ => Command::Place(self.new_order()),
        }
    }

    fn side(&mut self) -> Side {
        *self.dice.pick(&[Side::Buy, Side::Sell])
    }

    fn stp(&mut self) -> SelfTrade {
        *self.dice.pick(&[
            SelfTrade::Allow,
            SelfTrade::CancelIncoming,
            SelfTrade::CancelResting,
            SelfTrade::CancelBoth,
            SelfTrade::Decrement,
        ])
    }

    fn label(&mut self) -> Label {
        match self.dice.below(3) {
            0 => Label(u128::from(self.dice.between(1, 60))),
            _ => Label::default(),
        }
    }

    /// Mostly an open order of the trader; now and then a foreign, dead or unknown one.
    fn order_ref(&mut self, trader: usize) -> OrderRef {
        let account = self.traders[trader].account;
        if self.dice.chance(1, 8) {
            return OrderRef::Label(Label(u128::from(self.dice.below(61))));
        }
        let foreign = self.dice.chance(1, 20);
        let open: Vec<_> = self
            .books
            .iter()
            .flat_map(|book| &book.orders)
            .filter(|order| foreign || order.account == account)
            .map(|order| order.id)
            .collect();
        if open.is_empty() || self.dice.chance(1, 30) {
            let slot = self.dice.chance(1, 2).then(|| self.dice.below(150) as u32);
            return OrderRef::Id(OrderId::new(self.dice.below(self.accepted + 2), slot));
        }
        OrderRef::Id(*self.dice.pick(&open))
    }

    fn price_and_qty(&mut self, order: OrderRef) -> (Price, Qty) {
        let found = self.books.iter().enumerate().find_map(|(instrument, book)| {
            let order = book.orders.iter().find(|open| order == OrderRef::Id(open.id))?;
            Some((instrument, order.price, order.remaining))
        });
        let (instrument, price, remaining) = found.unwrap_or((0, Price(100), 5));
        match self.dice.below(6) {
            // Stays where it is, smaller or the same or larger.
            0 | 1 => (price, Qty(self.dice.between(1, remaining))),
            2 => (price, Qty(remaining)),
            3 if self.dice.chance(1, 4) => (price, Qty(0)),
            _ => (self.price(instrument), self.qty(instrument)),
        }
    }

    fn price(&mut self, instrument: usize) -> Price {
        let most = self.specs[instrument].market.max_price.0;
        match self.dice.below(300) {
            0 => Price(0),
            1 => Price(most + 1),
            2 => Price(most),
            _ => Price(90 + self.dice.below(11) + self.dice.below(11)),
        }
    }

    fn qty(&mut self, instrument: usize) -> Qty {
        let terms = self.specs[instrument].market;
        match self.dice.below(300) {
            0 => Qty(0),
            1 => Qty(terms.max_qty.0 + terms.lot.0),
            2 => Qty(terms.max_qty.0),
            3 => Qty(u64::MAX),
            4 | 5 => Qty(terms.min_qty.0 + 1),
            _ => Qty(terms.min_qty.0 + terms.lot.0 * self.dice.below(20)),
        }
    }

    fn new_order(&mut self) -> NewOrder {
        let instrument = match self.dice.below(1_000) {
            0 => 99,
            n => usize::from(n > 500) + usize::from(n > 900),
        };
        let terms = instrument.min(2);
        let kind = match self.dice.below(10) {
            0 | 1 => OrderKind::Market {
                max_slippage_bps: self
                    .dice
                    .chance(2, 3)
                    .then(|| *self.dice.pick(&[0, 50, 150, 500, 10_000, 20_000])),
                fill_or_kill: self.dice.chance(1, 4),
            },
            _ => OrderKind::Limit {
                price: self.price(terms),
                tif: *self.dice.pick(&[
                    TimeInForce::Gtc,
                    TimeInForce::Gtc,
                    TimeInForce::Gtc,
                    TimeInForce::Ioc,
                    TimeInForce::Fok,
                    TimeInForce::Day,
                    TimeInForce::PostOnly,
                ]),
            },
        };
        let (label, tag) = match self.dice.below(200) {
            0 => (Label(u128::from(self.dice.below(400))), "again".into()),
            1 => (Label(7), "x".repeat(65)),
            2 => (Label::default(), "unlabelled".into()),
            _ => (self.label(), String::new()),
        };
        NewOrder {
            instrument: InstrumentId(instrument as u16),
            side: self.side(),
            kind,
            qty: self.qty(terms),
            stp: self.stp(),
            label,
            tag,
            to_consumption: self.dice.chance(1, 10),
        }
    }

    /// DAY orders whose midnight has come, in the order in which the timers fall due.
    fn expire_day_orders(&mut self) -> Outcome {
        let now = self.venue.now;
        let mut outcome = Outcome::default();
        for book in &mut self.books {
            let due =
                |order: &Order| order.tif == TimeInForce::Day && order.submitted_at.next_midnight() <= now;
            let mut expired: Vec<_> = book.orders.iter().filter(|order| due(order)).cloned().collect();
            expired.sort_by_key(|order| order.id);
            book.orders.retain(|order| !due(order));
            for order in expired {
                outcome.close(&order, Closure::Expired);
            }
        }
        outcome
    }

    /// What the naive book makes of a command.
    fn expect(&mut self, trader: usize, session: SessionId, command: &Command, out: &mut Outcome) -> Answer {
        let result = match command {
            Command::Place(new) => self.expect_place(trader, session, new, out).map(|()| Answer::New),
            Command::Cancel { order } => self.find(trader, *order).map(|(instrument, at)| {
                let order = self.books[instrument].orders.remove(at);
                out.close(&order, Closure::Cancelled);
                Answer::Cancelled
            }),
            Command::Replace { order, qty, price, stp, post_only } => {
                self.expect_replace(trader, *order, *qty, *price, *stp, *post_only, out)
            }
            Command::MassCancel(scope) => {
                let account = self.traders[trader].account;
                let mut cancelled = Vec::new();
                for (instrument, book) in self.books.iter_mut().enumerate() {
                    let matches = |order: &Order| {
                        order.account == account
                            && scope.instrument.is_none_or(|wanted| usize::from(wanted.0) == instrument)
                            && scope.side.is_none_or(|wanted| wanted == order.side)
                            && scope.session.is_none_or(|wanted| wanted == order.session)
                    };
                    cancelled.extend(book.orders.iter().filter(|order| matches(order)).cloned());
                    book.orders.retain(|order| !matches(order));
                }
                cancelled.sort_by_key(|order| order.id);
                for order in &cancelled {
                    out.close(order, Closure::Cancelled);
                }
                Ok(Answer::MassCancelled(cancelled.len() as u32))
            }
            other => unreachable!("the stream has no {other:?}"),
        };
        result.unwrap_or_else(Answer::Rejected)
    }

    fn expect_place(
        &mut self,
        trader: usize,
        session: SessionId,
        new: &NewOrder,
        out: &mut Outcome,
    ) -> Result<(), Reject> {
        let account = self.traders[trader].account;
        if self.easy[trader] {
            return Err(Reject::AutoModeTradingRestricted);
        }
        let instrument = usize::from(new.instrument.0);
        let spec = self.specs.get(instrument).ok_or(Reject::UnknownInstrument)?;
        let terms = spec.market;
        if spec.status != InstrumentStatus::Live {
            return Err(Reject::InstrumentNotLive);
        }
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !new.qty.0.is_multiple_of(terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        if let OrderKind::Limit { price, .. } = new.kind
            && (price.0 == 0 || price > terms.max_price)
        {
            return Err(Reject::InvalidPrice);
        }
        let book = &self.books[instrument];
        let best = book.best_price(new.side.opposite());
        let (price, limit, market, tif, fok) = match new.kind {
            OrderKind::Limit { price, tif } => (price, Some(price), false, tif, tif == TimeInForce::Fok),
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let limit =
                    max_slippage_bps.zip(best).map(|(bps, best)| naive::slippage_limit(new.side, best, bps));
                (Price::ZERO, limit, true, TimeInForce::Ioc, fill_or_kill)
            }
        };
        let order = Order {
            id: NAMELESS,
            account,
            session,
            label: new.label,
            side: new.side,
            price,
            remaining: new.qty.0,
            filled: 0,
            tif,
            submitted_at: self.venue.now,
        };
        let rests = !market && !matches!(tif, TimeInForce::Ioc | TimeInForce::Fok);
        let incoming = Incoming { order, limit, market, all_or_nothing: fok, rests, stp: new.stp };
        let needs = if market {
            let cost = book.preview(&incoming).1;
            cost + cost * i128::from(terms.taker_fee_bps) / 10_000
        } else {
            book.hold(price, new.qty.0)
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if new.tag.len() > 64 || (!new.tag.is_empty() && new.label == Label::default()) {
            return Err(Reject::InvalidText);
        }
        let labelled = new.label != Label::default();
        let open = |order: &Order| order.account == account && order.label == new.label;
        let used = self.tags.contains_key(&(account, new.label));
        if labelled && (used || self.books.iter().flat_map(|book| &book.orders).any(open)) {
            return Err(Reject::DuplicateLabel);
        }
        if tif == TimeInForce::PostOnly && best.is_some_and(|best| naive::crosses(new.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        match new.side {
            Side::Buy
                if needs > i128::from(self.venue.usd_available(account).0) + self.freed_usd(account, out) =>
            {
                return Err(Reject::InsufficientFunds);
            }
            Side::Sell
                if new.qty.0
                    > self.venue.units_available(account, new.instrument).0
                        + self.freed_units(account, new.instrument, out) =>
            {
                return Err(Reject::InsufficientUnits);
            }
            _ => {}
        }
        if !new.tag.is_empty() {
            self.tags.insert((account, new.label), incoming.order.id);
        }
        self.books[instrument].enter(incoming, out);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the command")]
    fn expect_replace(
        &mut self,
        trader: usize,
        order: OrderRef,
        qty: Qty,
        price: Price,
        stp: SelfTrade,
        post_only: bool,
        out: &mut Outcome,
    ) -> Result<Answer, Reject> {
        let account = self.traders[trader].account;
        if self.easy[trader] {
            return Err(Reject::AutoModeTradingRestricted);
        }
        let (instrument, at) = self.find(trader, order)?;
        if qty.is_zero() {
            let order = self.books[instrument].orders.remove(at);
            out.close(&order, Closure::Cancelled);
            return Ok(Answer::Cancelled);
        }
        let spec = &self.specs[instrument];
        let terms = spec.market;
        if spec.status != InstrumentStatus::Live {
            return Err(Reject::InstrumentNotLive);
        }
        if qty > terms.max_qty || !qty.0.is_multiple_of(terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        if price.0 == 0 || price > terms.max_price {
            return Err(Reject::InvalidPrice);
        }
        let book = &self.books[instrument];
        let resting = book.orders[at].clone();
        let needs = match resting.side {
            Side::Buy => book.hold(price, qty.0),
            Side::Sell => book.value(price, qty.0),
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if price == resting.price && qty.0 <= resting.remaining {
            self.books[instrument].orders[at].remaining = qty.0;
            return Ok(Answer::Replaced);
        }
        let best = book.best_price(resting.side.opposite());
        if post_only && best.is_some_and(|best| naive::crosses(resting.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        let id = InstrumentId(instrument as u16);
        match resting.side {
            Side::Buy => {
                let has = i128::from(self.venue.usd_available(account).0) + self.freed_usd(account, out);
                if needs > has + book.hold(resting.price, resting.remaining) {
                    return Err(Reject::InsufficientFunds);
                }
            }
            Side::Sell => {
                let has = self.venue.units_available(account, id).0 + self.freed_units(account, id, out);
                if qty.0 > has + resting.remaining {
                    return Err(Reject::InsufficientUnits);
                }
            }
        }
        let mut order = self.books[instrument].orders.remove(at);
        order.price = price;
        order.remaining = qty.0;
        let incoming =
            Incoming { order, limit: Some(price), market: false, all_or_nothing: false, rests: true, stp };
        self.books[instrument].enter(incoming, out);
        Ok(Answer::Replaced)
    }

    /// Dollars that DAY orders gave back at this very command, before it was looked at.
    fn freed_usd(&self, account: AccountId, out: &Outcome) -> i128 {
        let freed = out.closed.iter().filter_map(|closed| {
            let (_, order) = self.venue.engine.state().order(closed.order)?;
            (order.side == Side::Buy && order.account == account).then(|| i128::from(order.hold.0))
        });
        freed.sum()
    }

    /// Units that DAY orders gave back at this very command.
    fn freed_units(&self, account: AccountId, instrument: InstrumentId, out: &Outcome) -> u64 {
        let book = self.venue.engine.state().book(instrument).unwrap();
        let freed = out.closed.iter().filter_map(|closed| {
            let order = book.order(closed.order)?;
            (order.side == Side::Sell && order.account == account).then_some(order.remaining.0)
        });
        freed.sum()
    }

    fn find(&self, trader: usize, order: OrderRef) -> Result<(usize, usize), Reject> {
        let account = self.traders[trader].account;
        let named = |open: &Order| {
            open.account == account
                && match order {
                    OrderRef::Id(id) => open.id == id,
                    OrderRef::Label(label) => label != Label::default() && open.label == label,
                }
        };
        let found = self
            .books
            .iter()
            .enumerate()
            .find_map(|(instrument, book)| Some((instrument, book.orders.iter().position(named)?)));
        found.ok_or(Reject::UnknownOrder)
    }

    fn compare_answer(&mut self, actor: &Actor, expected: Answer, command: &Command) {
        let report = self.venue.answer(actor);
        let found = match &report.body {
            body if rejected(body).is_some() => rejected(body).map(Answer::Rejected),
            ReportBody::Order(report) => match report.exec() {
                Exec::New => Some(Answer::New),
                Exec::Replaced => Some(Answer::Replaced),
                Exec::Closed(Closure::Cancelled) => Some(Answer::Cancelled),
                _ => None,
            },
            ReportBody::MassCancelled { count } => Some(Answer::MassCancelled(*count)),
            _ => None,
        };
        if found != Some(expected) {
            self.fail(&format!("the answer to {command:?}"), &expected, &report);
        }
        if let Answer::Rejected(reject) = expected {
            *self.counts.rejects.entry(reject).or_default() += 1;
        }
    }

    fn compare_outcome(&mut self, expected: &Outcome) {
        let mut found = Outcome::default();
        for event in &self.venue.events {
            match event {
                Event::Traded(trade) => {
                    found.fills.push(Fill {
                        taker: trade.taker_order,
                        maker: trade.maker_order,
                        price: trade.price,
                        qty: trade.qty.0,
                    });
                    let terms = self.specs[usize::from(trade.instrument.0)].market;
                    let value = trade.price.0 as i64 * trade.qty.0 as i64 * terms.tick.0;
                    let money = (trade.value.0, trade.maker_fee.0, trade.taker_fee.0);
                    let fee = |bps: u16| (i128::from(value) * i128::from(bps) / 10_000) as i64;
                    let due = (value, fee(terms.maker_fee_bps), fee(terms.taker_fee_bps));
                    if money != due {
                        self.fail("a trade's value and fees", &due, &money);
                    }
                }
                Event::OrderClosed(closed) => found.closed.push(Closed {
                    order: closed.order.id,
                    filled: closed.order.filled().0,
                    remaining: closed.unfilled().0,
                    reason: closed.reason,
                }),
                _ => {}
            }
            for (instrument, LevelUpdate { price, qty, orders, side }) in event.levels() {
                let told = &mut self.told[usize::from(instrument.0)][usize::from(side == Side::Sell)];
                if qty.is_zero() {
                    told.remove(&price.0);
                } else {
                    told.insert(price.0, (qty.0, orders));
                }
            }
        }
        if found != *expected {
            self.fail("trades and closed orders", expected, &found);
        }
        self.counts.fills += found.fills.len() as u64;
        for closed in found.closed {
            *self.counts.closed.entry(closed.reason as u8).or_default() += 1;
        }
    }

    /// Levels as the naive book has them, as the engine holds them, and as it told the market.
    fn compare_levels(&self) {
        for (instrument, book) in self.books.iter().enumerate() {
            let engine = self.venue.engine.state().book(InstrumentId(instrument as u16)).unwrap();
            for side in [Side::Buy, Side::Sell] {
                let expected = book.levels(side);
                let held = || engine.levels(side).map(|level| (level.price.0, level.qty.0, level.orders));
                if !held().eq(expected.iter().copied()) {
                    self.fail("levels held", &expected, &held().collect::<Vec<_>>());
                }
                let told = self.told[instrument][usize::from(side == Side::Sell)].iter();
                let told = told.map(|(&price, &(qty, orders))| (price, qty, orders));
                let same = match side {
                    Side::Buy => told.clone().rev().eq(expected.iter().copied()),
                    Side::Sell => told.clone().eq(expected.iter().copied()),
                };
                if !same {
                    self.fail("levels told", &expected, &told.collect::<Vec<_>>());
                }
            }
        }
    }

    /// Queues and holds, too dear to compare each time; and the engine's own invariants.
    fn compare_everything(&self) {
        for (instrument, book) in self.books.iter().enumerate() {
            let engine = self.venue.engine.state().book(InstrumentId(instrument as u16)).unwrap();
            for side in [Side::Buy, Side::Sell] {
                let expected: Vec<_> =
                    book.queue(side).iter().map(|o| (o.id, o.account, o.remaining, o.filled)).collect();
                let found: Vec<_> =
                    engine.queue(side).map(|o| (o.id, o.account, o.remaining.0, o.filled.0)).collect();
                if expected != found {
                    self.fail("the queue", &expected, &found);
                }
            }
        }
        for trader in &self.traders {
            let account = &self.venue.engine.state().accounts[trader.account.0 as usize];
            let mut usd_held = 0;
            for (instrument, book) in self.books.iter().enumerate() {
                let own = || book.orders.iter().filter(|order| order.account == trader.account);
                let bids = own().filter(|order| order.side == Side::Buy);
                usd_held += bids.map(|order| book.hold(order.price, order.remaining)).sum::<i128>();
                let asks = own().filter(|order| order.side == Side::Sell);
                let units_held: u64 = asks.map(|order| order.remaining).sum();
                let state = self.venue.engine.state();
                let found = state
                    .holding(trader.account, InstrumentId(instrument as u16))
                    .map_or(0, |holding| holding.held.0);
                if units_held != found {
                    self.fail("Units held", &units_held, &found);
                }
            }
            if usd_held != i128::from(account.usd_held.0) {
                self.fail("dollars held", &usd_held, &account.usd_held);
            }
        }
        if let Err(violation) = self.venue.engine.check_invariants() {
            self.fail("invariants", &"none broken", &violation);
        }
    }
}
