//! Random mass quotes, each against what its parts would have done one by one, on a copy of the venue: cancels, replacements and
//! new orders, which the naive book has proven. What retreats goes first; what is refused leaves nothing.

use std::collections::BTreeMap;

use grid_engine::command::{
    AccountMode, Capabilities, Command, MassCancelScope, NewOrder, OrderKind, OrderRef, QuoteEntry,
    QuoteProtection, QuoteSide, SelfTrade, Side, TimeInForce,
};
use grid_engine::event::{Event, LevelUpdate, ReportBody};
use grid_engine::limits::{QUOTE_ENTRIES, QUOTE_NUMBERS, QUOTES};
use grid_engine::state::Pair;
use grid_engine::{InstrumentId, Label, Nanos, OrderId, Price, Qty, Reject, SECOND, Usd};

use crate::dice::{self, Dice};
use crate::venue::{Actor, Venue, rejected, spec};

const BOOKS: u16 = 2;
const COMMANDS: u64 = 20_000;

#[test]
fn a_mass_quote_does_what_its_parts_would_do_one_by_one() {
    World::new(dice::seed(11)).run();
}

#[test]
fn a_full_session_keeps_all_its_quotes_and_takes_as_many_new_ones_as_others_make_room_for() {
    let mut venue = Venue::open();
    let books = QUOTES as u64 / u64::from(QUOTE_NUMBERS) + 1;
    for nth in 0..books {
        venue.define(spec(&format!("book-{nth}")));
    }
    let mut maker = venue.join("maker", AccountMode::Advanced, Capabilities::default());
    venue.deposit(maker.account, Usd::dollars(1_000_000));
    let quote = |venue: &mut Venue, maker: &mut Actor, entries: &[(u64, u64)]| {
        let entry = |&(nth, price): &(u64, u64)| QuoteEntry {
            instrument: InstrumentId((nth / u64::from(QUOTE_NUMBERS)) as u16),
            quote: (nth % u64::from(QUOTE_NUMBERS)) as u8 + 1,
            bid: QuoteSide { price: Price(price), qty: Qty(u64::from(price != 0)) },
            ask: QuoteSide::default(),
        };
        let entries = entries.iter().map(entry).collect();
        let command = Command::MassQuote { entries, stp: SelfTrade::Allow, post_only: true };
        let account = maker.account;
        let body = venue.ask(maker, account, command);
        venue.engine.check_invariants().expect("nothing is broken");
        let refused = venue.reports().filter_map(|(_, report)| match report.body {
            ReportBody::QuoteRefused { instrument, quote, reject, .. } => {
                Some((u64::from(instrument.0) * u64::from(QUOTE_NUMBERS) + u64::from(quote) - 1, reject))
            }
            _ => None,
        });
        (body, refused.collect::<Vec<_>>())
    };
    let fill = |venue: &mut Venue, maker: &mut Actor, quotes: u64| {
        for first in (0..quotes).step_by(QUOTE_ENTRIES) {
            let entries: Vec<_> =
                (first..(first + QUOTE_ENTRIES as u64).min(quotes)).map(|nth| (nth, 5)).collect();
            assert_eq!(quote(venue, maker, &entries), (done(2 * entries.len() as u16, 0), vec![]));
        }
    };
    let quotes = QUOTES as u64;
    fill(&mut venue, &mut maker, quotes - 1);
    // Room for one more: of two, one is taken.
    let full = |nth| (nth, Reject::LimitReached);
    let mut ask = |entries: &[(u64, u64)]| quote(&mut venue, &mut maker, entries);
    assert_eq!(ask(&[(quotes - 1, 5), (quotes, 5)]), (done(3, 1), vec![full(quotes)]));
    // None: what stands may still change, beside what is refused.
    assert_eq!(ask(&[(7, 6), (quotes, 5)]), (done(3, 1), vec![full(quotes)]));
    // One is withdrawn in the same breath, and whoever comes first gets its room.
    assert_eq!(ask(&[(7, 0), (quotes, 5), (quotes + 1, 5)]), (done(5, 1), vec![full(quotes + 1)]));
    assert_eq!(ask(&[(7, 5)]), (done(1, 1), vec![full(7)]));
    // What has ended otherwise makes room too.
    let (account, all) = (maker.account, Command::MassCancel(MassCancelScope::default()));
    venue.send(&mut maker, account, all);
    assert_eq!(quote(&mut venue, &mut maker, &[(7, 5)]), (done(2, 0), vec![]));
    fill(&mut venue, &mut maker, quotes);
}

const fn done(accepted: u16, refused: u16) -> ReportBody {
    ReportBody::Quoted { accepted, refused }
}

/// What became of one side: what stands for it now, or why nothing does.
type Done = Result<Option<OrderId>, Reject>;

struct World {
    seed: u64,
    index: u64,
    dice: Dice,
    venue: Venue,
    makers: Vec<Actor>,
    taker: Actor,
    /// Which orders stood for which side of which quote of which maker after its last command.
    standing: Vec<BTreeMap<(InstrumentId, u8, Side), OrderId>>,
    /// Each level as the market was told of it.
    told: BTreeMap<(InstrumentId, Side, u64), (u64, u32)>,
    seen: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut venue = Venue::open();
        venue.log = None;
        for symbol in ["first", "second"] {
            let mut spec = spec(symbol);
            spec.market.taker_fee_bps = 7;
            venue.define(spec);
        }
        let mut actors: Vec<_> = (0..4)
            .map(|nth| {
                let actor =
                    venue.join(&format!("actor {nth}"), AccountMode::Advanced, Capabilities::default());
                // Enough for most of what is asked for, and not for all.
                venue.deposit(actor.account, Usd::dollars(if nth == 3 { 1_000_000 } else { 120 }));
                for instrument in (0..BOOKS).map(InstrumentId) {
                    venue.supply(actor.account, instrument, Qty(1 << 40));
                    venue.stock(actor.account, instrument, Qty(if nth == 3 { 1 << 30 } else { 60 }));
                }
                actor
            })
            .collect();
        let taker = actors.pop().unwrap();
        let standing = vec![BTreeMap::new(); actors.len()];
        let dice = Dice::new(seed);
        let (told, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { seed, index: 0, dice, venue, makers: actors, taker, standing, told, seen }
    }

    fn run(mut self) {
        for index in 0..COMMANDS {
            self.index = index;
            self.venue.now = self.venue.now.after(Nanos(self.dice.below(SECOND)));
            match self.dice.below(10) {
                0..=5 => self.quote(),
                6 => self.protect(),
                7 => self.cancel(),
                8 => self.top_up(),
                _ => self.take(),
            }
            self.hear_levels();
            if index % 64 == 0 {
                self.compare_levels();
                self.venue.engine.check_invariants().unwrap_or_else(|violation| self.fail(&violation.0));
            }
        }
        self.compare_levels();
        for what in
            ["opened", "moved", "kept", "withdrawn", "traded", "refused", "pulled", "refused as pulled"]
        {
            assert!(self.seen.contains_key(what), "{what} occurs, seed {}: {:?}", self.seed, self.seen);
        }
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("seed {} command {}: {what}\n events: {:#?}", self.seed, self.index, self.venue.events);
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn quote(&mut self) {
        let nth = self.dice.below(self.makers.len() as u64) as usize;
        let entries = self.entries();
        let stp = *self.dice.pick(&[SelfTrade::Allow, SelfTrade::CancelBoth, SelfTrade::Decrement]);
        let post_only = self.dice.chance(1, 3);
        let mut copy = self.venue.clone();
        let mut actor = self.makers[nth];
        let command = Command::MassQuote { entries: entries.clone().into(), stp, post_only };
        let body = self.venue.ask(&mut self.makers[nth], actor.account, command);
        if rejected(&body) == Some(Reject::QuotesPulled) {
            return self.saw("refused as pulled");
        }
        // Pulled within the copy as soon as one part is done, and here once all are.
        if self.pulled() {
            self.saw("pulled");
            return self.learn_from_the_venue(nth);
        }
        let parts = self.one_by_one(&mut copy, &mut actor, nth, &entries, stp, post_only);
        self.compare_told(&parts, &body);
        self.compare_state(&copy);
        for ((instrument, quote, side), done) in parts {
            match done {
                Ok(Some(order)) => self.standing[nth].insert((instrument, quote, side), order),
                Ok(None) | Err(_) => self.standing[nth].remove(&(instrument, quote, side)),
            };
        }
    }

    /// What stands for the quotes of a maker, where nothing else knows.
    fn learn_from_the_venue(&mut self, nth: usize) {
        let session = self.venue.engine.state().sessions.get(&self.makers[nth].session).unwrap();
        let sides = session.quotes.iter().flat_map(|quote| {
            [Side::Buy, Side::Sell].map(|side| ((quote.instrument, quote.number, side), quote.side(side)))
        });
        self.standing[nth] = sides.collect();
    }

    /// One to six quotes around a middle that wanders, in order.
    fn entries(&mut self) -> Vec<QuoteEntry> {
        let mut entries = Vec::new();
        for instrument in (0..BOOKS).map(InstrumentId) {
            let middle = 100 + self.dice.below(7);
            for quote in 1..=3 {
                if self.dice.chance(1, 4) {
                    continue;
                }
                let qty = |dice: &mut Dice| Qty(if dice.chance(1, 6) { 0 } else { dice.between(1, 15) });
                // Now and then a bid at or above its ask.
                let away = self.dice.below(3 + u64::from(quote));
                let bid = QuoteSide { price: Price(middle - away), qty: qty(&mut self.dice) };
                let ask = QuoteSide { price: Price(middle + away), qty: qty(&mut self.dice) };
                entries.push(QuoteEntry { instrument, quote, bid, ask });
            }
        }
        if entries.is_empty() {
            let none = QuoteSide::default();
            entries.push(QuoteEntry { instrument: InstrumentId(0), quote: 1, bid: none, ask: none });
        }
        entries
    }

    /// The parts of a mass quote on a copy of the venue, in the order in which they belong: what retreats or goes, then bids, then
    /// asks.
    fn one_by_one(
        &mut self,
        copy: &mut Venue,
        actor: &mut Actor,
        nth: usize,
        entries: &[QuoteEntry],
        stp: SelfTrade,
        post_only: bool,
    ) -> Vec<((InstrumentId, u8, Side), Done)> {
        let sides = |entry: &QuoteEntry| [(*entry, Side::Buy, entry.bid), (*entry, Side::Sell, entry.ask)];
        let all = || entries.iter().flat_map(sides);
        let stands = |copy: &Venue, entry: &QuoteEntry, side| {
            let order = *self.standing[nth].get(&(entry.instrument, entry.quote, side))?;
            copy.engine.state().order(order).map(|(_, order)| order)
        };
        let (mut first, mut later) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (entry, side, wanted) in all() {
            let retreats = stands(copy, &entry, side).is_some_and(|order| match side {
                Side::Buy => wanted.price <= order.price,
                Side::Sell => wanted.price >= order.price,
            });
            if wanted.qty.is_zero() || retreats {
                first.push((entry, side, wanted));
            } else {
                later[usize::from(side == Side::Sell)].push((entry, side, wanted));
            }
        }
        let mut seen = Vec::new();
        let mut done = Vec::new();
        for (entry, side, wanted) in first.into_iter().chain(later.into_iter().flatten()) {
            let standing = stands(copy, &entry, side);
            let crossed =
                !entry.bid.qty.is_zero() && !entry.ask.qty.is_zero() && entry.bid.price >= entry.ask.price;
            let mut ask = |command| rejected(&copy.ask(actor, actor.account, command));
            let refused = match &standing {
                _ if wanted.qty.is_zero() => None,
                _ if crossed => Some(Reject::InvalidPrice),
                Some(order) if order.price == wanted.price && order.remaining == wanted.qty => {
                    seen.push("kept");
                    None
                }
                Some(order) => {
                    seen.push("moved");
                    let order = OrderRef::Id(order.id);
                    ask(Command::Replace { order, qty: wanted.qty, price: wanted.price, stp, post_only })
                }
                None => {
                    seen.push("opened");
                    let tif = if post_only { TimeInForce::PostOnly } else { TimeInForce::Gtc };
                    ask(Command::Place(NewOrder {
                        instrument: entry.instrument,
                        side,
                        kind: OrderKind::Limit { price: wanted.price, tif },
                        qty: wanted.qty,
                        stp,
                        label: Label::default(),
                        tag: String::new(),
                        to_consumption: false,
                    }))
                }
            };
            let gone = wanted.qty.is_zero() || refused.is_some();
            if let Some(order) = standing.as_ref().filter(|_| gone) {
                assert_eq!(ask(Command::Cancel { order: OrderRef::Id(order.id) }), None);
                seen.push("withdrawn");
            }
            let opened = copy.events.iter().find_map(|event| match event {
                Event::OrderOpened(opened) => Some(opened.order.id),
                _ => None,
            });
            let stands = if gone { None } else { standing.map(|order| order.id).or(opened) };
            if refused.is_some() {
                seen.push("refused");
            }
            done.push(((entry.instrument, entry.quote, side), refused.map_or(Ok(stands), Err)));
        }
        seen.into_iter().for_each(|what| self.saw(what));
        done
    }

    /// The answer and the refusals before it.
    fn compare_told(&mut self, parts: &[((InstrumentId, u8, Side), Done)], body: &ReportBody) {
        let refused: Vec<_> = parts.iter().filter_map(|(at, done)| Some((*at, done.err()?))).collect();
        let told = self.venue.reports().filter_map(|(_, report)| match report.body {
            ReportBody::QuoteRefused { instrument, quote, side, reject } => {
                Some(((instrument, quote, side), reject))
            }
            _ => None,
        });
        if !told.eq(refused.iter().copied()) {
            self.fail(&format!("the refusals are {refused:?}"));
        }
        let (sides, refused) = (parts.len() as u16, refused.len() as u16);
        if *body != (ReportBody::Quoted { accepted: sides - refused, refused }) {
            self.fail(&format!("{sides} sides, {refused} of them refused: {body:?}"));
        }
        if self.venue.reports().filter(|(_, report)| report.client_seq != 0).count() != 1 {
            self.fail("one answer and no other report that echoes its number");
        }
        if self.venue.events.iter().any(|event| matches!(event, Event::Traded(_))) {
            self.saw("traded");
        }
    }

    /// Queues, balances and counters are those of the copy.
    fn compare_state(&self, copy: &Venue) {
        let (found, expected) = (self.venue.engine.state(), copy.engine.state());
        for instrument in (0..BOOKS).map(InstrumentId) {
            let queue = |state: &grid_engine::State, side| -> Vec<_> {
                let queue = state.book(instrument).unwrap();
                queue.queue(side).map(|o| (o.id, o.account, o.price, o.remaining, o.filled, o.hold)).collect()
            };
            for side in [Side::Buy, Side::Sell] {
                let (found, expected) = (queue(found, side), queue(expected, side));
                if found != expected {
                    self.fail(&format!(
                        "{side:?} of {instrument:?}:\n expected {expected:?}\n found    {found:?}"
                    ));
                }
            }
        }
        let balances = |state: &grid_engine::State| -> Vec<_> {
            let accounts = state.accounts.iter().map(|a| (a.usd_available, a.usd_held, a.orders.len()));
            accounts.collect()
        };
        if balances(found) != balances(expected) || found.counters != expected.counters {
            self.fail(&format!("balances: expected {:?}, found {:?}", balances(expected), balances(found)));
        }
        let units = |state: &grid_engine::State| -> Vec<_> {
            state.holdings.iter().map(|h| (h.pair(), h.available, h.held, h.tranches.clone())).collect()
        };
        if units(found) != units(expected) {
            self.fail("holdings are those of the parts");
        }
    }

    fn protect(&mut self) {
        let nth = self.dice.below(self.makers.len() as u64) as usize;
        let protection = QuoteProtection {
            window: Nanos(self.dice.between(1, 20) * SECOND),
            fills: self.dice.below(12) as u32,
            qty: Qty(self.dice.between(1, 80)),
        };
        let account = self.makers[nth].account;
        let protection = self.dice.chance(2, 3).then_some(protection);
        let body = self.venue.ask(&mut self.makers[nth], account, Command::SetQuoteProtection(protection));
        assert_eq!(body, ReportBody::Done { created: 0 });
    }

    /// One order of a maker's, whether it stands for a quote or not.
    fn cancel(&mut self) {
        let nth = self.dice.below(self.makers.len() as u64) as usize;
        let account = self.makers[nth].account;
        let open: Vec<_> =
            self.venue.engine.state().open_orders(account).map(|(_, order)| order.id).collect();
        if !open.is_empty() {
            let order = OrderRef::Id(*self.dice.pick(&open));
            self.venue.send(&mut self.makers[nth], account, Command::Cancel { order });
        }
    }

    /// Makers run dry otherwise: what they sell first is paid only when it is delivered.
    fn top_up(&mut self) {
        let account = self.dice.pick(&self.makers).account;
        self.venue.deposit(account, Usd::dollars(self.dice.between(1, 30) as i64));
        self.hear_levels();
        let instrument = InstrumentId(self.dice.below(u64::from(BOOKS)) as u16);
        self.venue.stock(account, instrument, Qty(self.dice.between(1, 30)));
    }

    fn take(&mut self) {
        let side = *self.dice.pick(&[Side::Buy, Side::Sell]);
        let new = NewOrder {
            instrument: InstrumentId(self.dice.below(u64::from(BOOKS)) as u16),
            side,
            kind: OrderKind::Limit { price: Price(self.dice.between(97, 110)), tif: TimeInForce::Ioc },
            qty: Qty(self.dice.between(1, 25)),
            stp: SelfTrade::Allow,
            label: Label::default(),
            tag: String::new(),
            to_consumption: false,
        };
        let account = self.taker.account;
        self.venue.send(&mut self.taker, account, Command::Place(new));
        if self.pulled() {
            self.saw("pulled");
        }
    }

    /// Whether the last command had quotes pulled.
    fn pulled(&self) -> bool {
        self.venue.reports().any(|(_, report)| matches!(report.body, ReportBody::QuotesPulled { .. }))
    }

    fn hear_levels(&mut self) {
        let mut once = BTreeMap::new();
        for (instrument, LevelUpdate { price, qty, orders, side }) in
            self.venue.events.iter().flat_map(Event::levels)
        {
            let at = (instrument, side, price.0);
            if once.insert(at, ()).is_some() {
                self.fail(&format!("{at:?} is told once in a command"));
            }
            match qty.is_zero() {
                true => self.told.remove(&at),
                false => self.told.insert(at, (qty.0, orders)),
            };
        }
    }

    fn compare_levels(&self) {
        let mut held = BTreeMap::new();
        for instrument in (0..BOOKS).map(InstrumentId) {
            let book = self.venue.engine.state().book(instrument).unwrap();
            for side in [Side::Buy, Side::Sell] {
                let levels = book.levels(side);
                held.extend(levels.map(|l| ((instrument, side, l.price.0), (l.qty.0, l.orders))));
            }
        }
        if held != self.told {
            self.fail(&format!("levels held {held:?}, told {:?}", self.told));
        }
    }
}
