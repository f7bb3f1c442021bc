//! A million random commands on one book of many levels, each compared with `naive`: the answer, every trade, every order's
//! end, the levels as told, the touch; and from time to time the whole queue and every invariant.
//!
//! The market goes through seasons, so that the book takes every form that it has: levels in order while it is small, a
//! window of ticks once it is crowded, which grows and moves and has levels beyond it, and no window again after a long
//! calm. The test fails unless it saw all of that. Money and Units are never short here; `oracle` is about those.

use std::collections::BTreeMap;

use grid_engine::book::Form;
use grid_engine::command::{
    AccountMode, Capabilities, Command, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side,
    TimeInForce,
};
use grid_engine::event::{Closure, Event, Exec, ReportBody};
use grid_engine::{InstrumentId, Label, Nanos, OrderId, Price, Qty, Reject, Usd};

use crate::dice::{self, Dice};
use crate::naive::{self, Book, Closed, Fill, Incoming, Order, Outcome};
use crate::venue::{Actor, Venue, rejected, spec};

const MARKET: InstrumentId = InstrumentId(0);
const HIGHEST: u64 = 4_000_000_000;
const MIDDLE: u64 = 2_000_000;

/// Four seeds make the million.
const COMMANDS: u64 = 250_000;

#[test]
fn a_million_random_commands_on_wide_books_match_the_naive_book_part_1() {
    World::new(dice::seed(11)).run();
}

#[test]
fn a_million_random_commands_on_wide_books_match_the_naive_book_part_2() {
    World::new(dice::seed(12)).run();
}

#[test]
fn a_million_random_commands_on_wide_books_match_the_naive_book_part_3() {
    World::new(dice::seed(13)).run();
}

#[test]
fn a_million_random_commands_on_wide_books_match_the_naive_book_part_4() {
    World::new(dice::seed(14)).run();
}

/// What the market is like for a time.
#[derive(Clone, Copy)]
struct Season {
    commands: u64,
    /// About so many orders are open.
    open: u64,
    /// How far from the middle prices lie, at most.
    reach: u64,
    /// By how many ticks the middle moves from one command to the next.
    drift: i64,
    /// One in so many prices lies anywhere; 0 is none.
    anywhere: u64,
    /// The middle leaps so far when it begins.
    leap: i64,
}

const CALM: Season = Season { commands: 15_000, open: 8, reach: 6, drift: 0, anywhere: 0, leap: 0 };
const CROWDED: Season = Season { commands: 15_000, open: 1_000, reach: 450, drift: 0, anywhere: 0, leap: 0 };
const WIDE: Season = Season { commands: 15_000, open: 1_800, reach: 3_500, drift: 0, anywhere: 0, leap: 0 };

/// One after the other, and again from the first. The long calm outlasts the largest window.
const SEASONS: [Season; 10] = [
    CALM,
    CROWDED,
    CALM,
    CROWDED,
    WIDE,
    Season { drift: 3, ..CROWDED },
    Season { drift: -4, anywhere: 6, ..CROWDED },
    Season { leap: 60_000, anywhere: 3, ..WIDE },
    Season { leap: -25_000, ..WIDE },
    Season { commands: 80_000, ..CALM },
];

/// What the answer to a command must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Rejected(Reject),
    New,
    Replaced,
    Cancelled,
    MassCancelled(u32),
}

/// What was seen, so that a stream that tests nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    fills: u64,
    /// The most levels that a side had.
    levels: usize,
    laid: u32,
    grown: u32,
    moved: u32,
    given_up: u32,
    /// The most levels that lay beyond a window.
    beyond: usize,
}

struct World {
    seed: u64,
    index: u64,
    dice: Dice,
    venue: Venue,
    traders: Vec<Actor>,
    book: Book,
    /// Price to quantity and orders, as told; bids, asks.
    told: [BTreeMap<u64, (u64, u32)>; 2],
    middle: u64,
    form: Form,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut venue = Venue::open();
        venue.log = None;
        let mut wide = spec("wide");
        wide.market.tick = Usd(1);
        wide.market.max_price = Price(HIGHEST);
        let tick = wide.market.tick;
        venue.define(wide);
        let traders = (0..4)
            .map(|n| {
                let name = format!("trader {n}");
                let trader = venue.join(&name, AccountMode::Advanced, Capabilities::default());
                venue.deposit(trader.account, Usd::dollars(100_000_000));
                venue.supply(trader.account, MARKET, Qty(1 << 30));
                venue.stock(trader.account, MARKET, Qty(1 << 30));
                trader
            })
            .collect();
        Self {
            seed,
            index: 0,
            dice: Dice::new(seed),
            venue,
            traders,
            book: Book { orders: Vec::new(), tick, fee_bps: 0 },
            told: Default::default(),
            middle: MIDDLE,
            form: Form { window: None, beyond: 0 },
            seen: Seen::default(),
        }
    }

    fn run(mut self) {
        let mut seasons = SEASONS.iter().cycle();
        while self.index < COMMANDS {
            let season = *seasons.next().expect("there is always another");
            self.middle = self.middle.saturating_add_signed(season.leap);
            for _ in 0..season.commands.min(COMMANDS - self.index) {
                self.step(&season);
                self.index += 1;
                if self.index.is_multiple_of(2_048) {
                    self.compare_everything();
                }
            }
        }
        self.compare_everything();
        let seen = &self.seen;
        let worth = seen.fills > COMMANDS / 20
            && seen.levels > 800
            && seen.laid >= 2
            && seen.given_up >= 2
            && seen.grown >= 1
            && seen.moved >= 3
            && seen.beyond > 100;
        assert!(worth, "seed {}: the stream was worth running: {seen:?}", self.seed);
    }

    #[track_caller]
    fn fail(&self, what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug) -> ! {
        panic!(
            "seed {} command {}: {what}\n expected: {expected:?}\n found:    {found:?}\n form: {:?} events: {:#?}",
            self.seed, self.index, self.form, self.venue.events
        );
    }

    fn step(&mut self, season: &Season) {
        self.venue.now = self.venue.now.after(Nanos(self.dice.below(1_000)));
        self.middle = self.middle.saturating_add_signed(season.drift);
        let trader = self.dice.below(self.traders.len() as u64) as usize;
        let command = self.command(season, trader);
        let mut actor = self.traders[trader];
        let account = actor.account;
        self.venue.send(&mut actor, account, command.clone());
        self.traders[trader] = actor;
        let mut outcome = Outcome::default();
        let answer = self.expect(&actor, &command, &mut outcome);
        self.compare_answer(&actor, answer, &command);
        self.compare_outcome(&outcome);
        self.compare_touch();
        self.look();
    }

    fn command(&mut self, season: &Season, trader: usize) -> Command {
        let open = self.book.orders.len() as u64;
        let crowded = open > season.open + self.dice.below(1 + season.open / 4);
        match self.dice.below(1_000) {
            0 if self.dice.chance(1, 8) => {
                let side = self.dice.chance(2, 3).then(|| self.side());
                Command::MassCancel(MassCancelScope { instrument: Some(MARKET), side, session: None })
            }
            1..=250 => {
                let (order, known) = self.order(trader);
                let (price, qty) = match (known, self.dice.below(6)) {
                    (Some((_, price, left)), 0) => (price, Qty(self.dice.between(1, left))),
                    (Some((_, price, _)), 1) => (price, self.qty()),
                    (Some((side, _, _)), 2..=5) => (self.price(season, side), self.qty()),
                    _ => (Price(self.middle), Qty(self.dice.below(2))),
                };
                Command::Replace { order, qty, price, stp: self.stp(), post_only: self.dice.chance(1, 2) }
            }
            251..=350 => Command::Cancel { order: self.order(trader).0 },
            351..=800 if crowded => Command::Cancel { order: self.order(trader).0 },
            _ => Command::Place(self.new_order(season)),
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

    fn qty(&mut self) -> Qty {
        Qty(self.dice.between(1, 20))
    }

    /// Bids below the middle and asks above it, more of them near; a few go a little too far and trade.
    fn price(&mut self, season: &Season, side: Side) -> Price {
        let away = match season.anywhere {
            of if of > 0 && self.dice.chance(1, of) => self.dice.below(MIDDLE / 2),
            _ => self.dice.below(season.reach).min(self.dice.below(2 * season.reach)),
        };
        let over = if self.dice.chance(1, 12) { 2 + self.dice.below(8) } else { 0 };
        Price(match side {
            Side::Buy => (self.middle - away + over).max(1),
            Side::Sell => self.middle + 1 + away - over,
        })
    }

    /// Mostly an open order of the trader, with what is known of it; now and then a dead or unknown one.
    fn order(&mut self, trader: usize) -> (OrderRef, Option<(Side, Price, u64)>) {
        let account = self.traders[trader].account;
        let orders = &self.book.orders;
        if !orders.is_empty() && !self.dice.chance(1, 40) {
            let from = self.dice.below(orders.len() as u64) as usize;
            let (before, after) = orders.split_at(from);
            if let Some(own) = after.iter().chain(before).find(|order| order.account == account) {
                return (OrderRef::Id(own.id), Some((own.side, own.price, own.remaining)));
            }
        }
        let slot = self.dice.chance(1, 2).then(|| self.dice.below(2_000) as u32);
        (OrderRef::Id(OrderId::new(self.dice.below(self.index + 2), slot)), None)
    }

    fn new_order(&mut self, season: &Season) -> NewOrder {
        let side = self.side();
        let kind = if self.dice.chance(1, 30) {
            let bps = self.dice.chance(2, 3).then(|| *self.dice.pick(&[0, 1, 2, 50]));
            OrderKind::Market { max_slippage_bps: bps, fill_or_kill: self.dice.chance(1, 4) }
        } else {
            let resting = [TimeInForce::Gtc, TimeInForce::Gtc, TimeInForce::Gtc, TimeInForce::PostOnly];
            let tif = match self.dice.below(12) {
                0 => TimeInForce::Ioc,
                1 => TimeInForce::Fok,
                _ => *self.dice.pick(&resting),
            };
            OrderKind::Limit { price: self.price(season, side), tif }
        };
        NewOrder {
            instrument: MARKET,
            side,
            kind,
            qty: self.qty(),
            stp: self.stp(),
            label: Label::default(),
            tag: String::new(),
            to_consumption: false,
        }
    }

    /// What the naive book makes of the command, and what the answer must be.
    fn expect(&mut self, actor: &Actor, command: &Command, out: &mut Outcome) -> Answer {
        match command {
            Command::Place(new) => self.expect_place(actor, new, out),
            Command::Cancel { order } => match self.find(actor, *order) {
                Some(at) => {
                    let order = self.book.orders.remove(at);
                    out.close(&order, Closure::Cancelled);
                    Answer::Cancelled
                }
                None => Answer::Rejected(Reject::UnknownOrder),
            },
            Command::Replace { order, qty, price, stp, post_only } => {
                self.expect_replace(actor, *order, (*qty, *price), (*stp, *post_only), out)
            }
            Command::MassCancel(scope) => {
                let covered = |order: &Order| {
                    order.account == actor.account && scope.side.is_none_or(|side| side == order.side)
                };
                // Oldest first: a replaced order keeps its id and its age, and lies further back here.
                let mut gone: Vec<_> = self.book.orders.extract_if(.., |order| covered(order)).collect();
                gone.sort_by_key(|order| order.id);
                gone.iter().for_each(|order| out.close(order, Closure::Cancelled));
                Answer::MassCancelled(gone.len() as u32)
            }
            other => unreachable!("the stream has no {other:?}"),
        }
    }

    fn expect_place(&mut self, actor: &Actor, new: &NewOrder, out: &mut Outcome) -> Answer {
        let best = self.book.best_price(new.side.opposite());
        let (price, limit, market, tif, all_or_nothing) = match new.kind {
            OrderKind::Limit { price, tif } => (price, Some(price), false, tif, tif == TimeInForce::Fok),
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let limit =
                    max_slippage_bps.zip(best).map(|(bps, best)| naive::slippage_limit(new.side, best, bps));
                (Price::ZERO, limit, true, TimeInForce::Ioc, fill_or_kill)
            }
        };
        if tif == TimeInForce::PostOnly && best.is_some_and(|best| naive::crosses(new.side, price, best)) {
            return Answer::Rejected(Reject::WouldTrade);
        }
        // Ids are the engine's to give; `oracle` proves how.
        let opened = self.venue.events.iter().find_map(|event| match event {
            Event::OrderOpened(opened) => Some(opened.order.id),
            _ => None,
        });
        let Some(id) = opened else { self.fail("an order is opened", new, &"none") };
        let order = Order {
            id,
            account: actor.account,
            session: actor.session,
            label: new.label,
            side: new.side,
            price,
            remaining: new.qty.0,
            filled: 0,
            tif,
            submitted_at: self.venue.now,
        };
        let rests = !matches!(tif, TimeInForce::Ioc | TimeInForce::Fok);
        self.book.enter(Incoming { order, limit, market, all_or_nothing, rests, stp: new.stp }, out);
        Answer::New
    }

    fn expect_replace(
        &mut self,
        actor: &Actor,
        order: OrderRef,
        (qty, price): (Qty, Price),
        (stp, post_only): (SelfTrade, bool),
        out: &mut Outcome,
    ) -> Answer {
        let Some(at) = self.find(actor, order) else {
            return Answer::Rejected(Reject::UnknownOrder);
        };
        if qty.is_zero() {
            let order = self.book.orders.remove(at);
            out.close(&order, Closure::Cancelled);
            return Answer::Cancelled;
        }
        let resting = &mut self.book.orders[at];
        if price == resting.price && qty.0 <= resting.remaining {
            resting.remaining = qty.0;
            return Answer::Replaced;
        }
        let side = resting.side;
        let best = self.book.best_price(side.opposite());
        if post_only && best.is_some_and(|best| naive::crosses(side, price, best)) {
            return Answer::Rejected(Reject::WouldTrade);
        }
        let mut order = self.book.orders.remove(at);
        (order.price, order.remaining) = (price, qty.0);
        let limit = Some(price);
        self.book
            .enter(Incoming { order, limit, market: false, all_or_nothing: false, rests: true, stp }, out);
        Answer::Replaced
    }

    fn find(&self, actor: &Actor, order: OrderRef) -> Option<usize> {
        let OrderRef::Id(id) = order else { unreachable!("the stream names orders by id") };
        self.book.orders.iter().position(|open| open.id == id && open.account == actor.account)
    }

    fn compare_answer(&self, actor: &Actor, expected: Answer, command: &Command) {
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
    }

    fn compare_outcome(&mut self, expected: &Outcome) {
        let mut found = Outcome::default();
        let mut told = Vec::new();
        for event in &self.venue.events {
            match event {
                Event::Traded(trade) => found.fills.push(Fill {
                    taker: trade.taker_order,
                    maker: trade.maker_order,
                    price: trade.price,
                    qty: trade.qty.0,
                }),
                Event::OrderClosed(closed) => found.closed.push(Closed {
                    order: closed.order.id,
                    filled: closed.order.filled().0,
                    remaining: closed.unfilled().0,
                    reason: closed.reason,
                }),
                _ => {}
            }
            told.extend(event.levels().map(|(_, at)| (at.side, at.price, at.qty.0, at.orders)));
        }
        if found != *expected {
            self.fail("trades and closed orders", expected, &found);
        }
        self.seen.fills += found.fills.len() as u64;
        for (side, price, qty, orders) in told {
            let at = |order: &&Order| order.side == side && order.price == price;
            let (mut held, mut count) = (0, 0);
            for order in self.book.orders.iter().filter(at) {
                (held, count) = (held + order.remaining, count + 1);
            }
            if (held, count) != (qty, orders) {
                self.fail(&format!("the {side:?} level at {price:?}"), &(held, count), &(qty, orders));
            }
            let levels = &mut self.told[usize::from(side == Side::Sell)];
            if orders == 0 {
                levels.remove(&price.0);
            } else {
                levels.insert(price.0, (qty, orders));
            }
        }
    }

    /// The best price of both sides.
    fn compare_touch(&self) {
        let engine = self.venue.engine.state().book(MARKET).expect("it was defined");
        for side in [Side::Buy, Side::Sell] {
            let (expected, found) = (self.book.best_price(side), engine.best(side).map(|level| level.price));
            if expected != found {
                self.fail(&format!("the best {side:?}"), &expected, &found);
            }
        }
    }

    /// Notes what became of the window.
    fn look(&mut self) {
        let form = self.venue.engine.state().book(MARKET).expect("it was defined").form();
        let seen = &mut self.seen;
        match (self.form.window, form.window) {
            (None, Some(_)) => seen.laid += 1,
            (Some(_), None) => seen.given_up += 1,
            (Some((base, ticks)), Some((new_base, new_ticks))) => {
                seen.grown += u32::from(new_ticks > ticks);
                seen.moved += u32::from(new_base != base && new_ticks == ticks);
            }
            (None, None) => {}
        }
        if form.window.is_some() {
            seen.beyond = seen.beyond.max(form.beyond);
        }
        self.form = form;
    }

    /// The whole queue with its levels, as held and as told; and the engine's own invariants.
    fn compare_everything(&mut self) {
        let engine = self.venue.engine.state().book(MARKET).expect("it was defined");
        for side in [Side::Buy, Side::Sell] {
            let naive = self.book.queue(side);
            let expected = naive.iter().map(|o| (o.id, o.account, o.price, o.remaining, o.filled));
            let found = engine.queue(side).map(|o| (o.id, o.account, o.price, o.remaining.0, o.filled.0));
            if !found.eq(expected) {
                self.fail(&format!("the {side:?} queue"), &naive, &engine.queue(side).collect::<Vec<_>>());
            }
            let mut levels = BTreeMap::<u64, (u64, u32)>::new();
            for order in &naive {
                let level = levels.entry(order.price.0).or_default();
                *level = (level.0 + order.remaining, level.1 + 1);
            }
            if levels != self.told[usize::from(side == Side::Sell)] {
                self.fail(&format!("the {side:?} levels as told"), &levels, &self.told);
            }
            let held = engine.levels(side).map(|level| (level.price.0, (level.qty.0, level.orders)));
            let mut held: Vec<_> = held.collect();
            held.sort_unstable();
            if !held.iter().copied().eq(levels.iter().map(|(&price, &level)| (price, level))) {
                self.fail(&format!("the {side:?} levels"), &levels, &held);
            }
            self.seen.levels = self.seen.levels.max(levels.len());
        }
        if let Err(violation) = self.venue.engine.check_invariants() {
            self.fail("invariants", &"none broken", &violation);
        }
    }
}
