//! The engine alone, in process, one thread: what one command costs once it is committed.
//!
//! A regression here means that the matcher, the single writer of all state, takes fewer commands per second. Not in
//! these numbers: network, sequencing, journal, publishing of events. The clock is read around each command, so a
//! row includes one reading of it (tens of nanoseconds).

use std::error::Error;
use std::time::{Duration, Instant};

use grid_engine::command::{
    AccountMode, Capabilities, Command, Entry, NewOrder, OrderKind, OrderRef, SelfTrade, Side,
    SupplierProfile, TimeInForce,
};
use grid_engine::event::{Event, ReportBody};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, Label, Nanos, OrderId, Price, Qty, Seq, SessionId, Usd,
};
use grid_harness::{Latencies, Rounds, Row, Scenario, Settings, per_second};
use hdrhistogram::Histogram;

const MARKET: InstrumentId = InstrumentId(0);
const OPERATOR_KEY: [u8; 32] = [7; 32];
const TRADERS: u64 = 16;
/// Orders resting before the clock starts.
const RESTING: u64 = 10_000;
/// Far more than the scenario can trade.
const STOCK: Qty = Qty(100_000_000);

/// What a run measured, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// Nanoseconds per command: new orders that rest.
    pub rest: Histogram<u64>,
    /// Nanoseconds per command: cancels.
    pub cancel: Histogram<u64>,
    /// Nanoseconds per command: immediate orders that trade.
    pub take: Histogram<u64>,
    /// Wall-clock nanoseconds of all measured commands together.
    pub elapsed_ns: u64,
    /// Trades made.
    pub trades: u64,
}

/// Resting orders, as many cancels and fills as keep the book at about 10,000 orders over 200 levels, and one fifth
/// immediate orders, from 16 accounts; `commands` of them are measured.
///
/// # Panics
/// When the engine refuses a command, or when the end does not add up: then the numbers mean nothing.
#[must_use]
pub fn place_cancel_match(commands: u64) -> Outcome {
    let mut market = Market::open();
    let histogram = || Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("these bounds are valid");
    let (mut rest, mut cancel, mut take) = (histogram(), histogram(), histogram());
    let (mut trades, mut closed, mut opened) = (0, 0, RESTING);
    let begin = Instant::now();
    for _ in 0..commands {
        let (kind, took_ns) = market.step();
        let row = match kind {
            Kind::Rest => &mut rest,
            Kind::Cancel => &mut cancel,
            Kind::Take => &mut take,
        };
        row.saturating_record(took_ns);
        opened += u64::from(kind == Kind::Rest);
        for event in &market.venue.events {
            match event {
                Event::Traded(_) => trades += 1,
                Event::OrderClosed { .. } => closed += 1,
                Event::Report { report, .. } => {
                    assert!(
                        !matches!(report.body, ReportBody::Rejected { .. }),
                        "nothing is refused: {report:?}"
                    );
                }
                _ => {}
            }
        }
    }
    let elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).expect("a run ends within centuries");

    // Resting orders and closed ones are all that were opened; immediate ones open and close in one command.
    let book = &market.engine().state().books[usize::from(MARKET.0)];
    assert_eq!(book.len() as u64 + closed, opened + take.len(), "every order is accounted for");
    market.engine().check_invariants().expect("the books balance after the run");
    Outcome { rest, cancel, take, elapsed_ns, trades }
}

/// See the head of this file.
#[derive(Debug)]
pub struct PlaceCancelMatch;

impl Scenario for PlaceCancelMatch {
    fn name(&self) -> &'static str {
        "place_cancel_match"
    }

    fn shows(&self) -> &'static str {
        "The engine alone, one thread: what one command costs once it is committed. Worse means that the matcher, the single writer of all \
         state, takes fewer commands per second."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let mut rows = ["rest", "cancel", "take"].map(|kind| (kind, Latencies::default()));
        let mut rates = Rounds::default();
        let commands = settings.commands_or(1_000_000);
        for _ in 0..settings.rounds {
            let outcome = place_cancel_match(commands);
            for ((_, latency), round) in rows.iter_mut().zip([&outcome.rest, &outcome.cancel, &outcome.take])
            {
                latency.push(round);
            }
            rates.push(per_second(commands, Duration::from_nanos(outcome.elapsed_ns)));
        }
        let whole = Row::new("all commands, bookkeeping of the bench included").throughput(rates);
        Ok(std::iter::once(whole)
            .chain(rows.into_iter().map(|(kind, latency)| Row::new(kind).latency(latency)))
            .collect())
    }
}

/// An order that rests: bids at 801 to 900, asks at 1,001 to 1,100.
fn passive(dice: &mut Dice) -> (u64, NewOrder) {
    let side = if dice.below(2) == 0 { Side::Buy } else { Side::Sell };
    let price = match side {
        Side::Buy => 900 - dice.below(100),
        Side::Sell => 1_001 + dice.below(100),
    };
    (dice.below(TRADERS), order(side, price, 1 + dice.below(9), TimeInForce::Gtc))
}

/// An order that takes at most a few orders from the touch and leaves nothing behind.
fn aggressive(dice: &mut Dice) -> (u64, NewOrder) {
    let (side, price) = if dice.below(2) == 0 { (Side::Buy, 1_100) } else { (Side::Sell, 801) };
    (dice.below(TRADERS), order(side, price, 1 + dice.below(5), TimeInForce::Ioc))
}

fn order(side: Side, price: u64, qty: u64, tif: TimeInForce) -> NewOrder {
    NewOrder {
        instrument: MARKET,
        side,
        kind: OrderKind::Limit { price: Price(price), tif },
        qty: Qty(qty),
        stp: SelfTrade::Allow,
        label: Label::default(),
        tag: String::new(),
        to_consumption: false,
    }
}

/// What a command of the mix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rest,
    Cancel,
    Take,
}

/// The mix as a source of commands. Each is chosen by what those before it left, so they are the same on every run, and nothing is refused if
/// they are applied in this order from the first on.
pub(crate) struct Market {
    venue: Venue,
    dice: Dice,
    resting: Vec<(u64, OrderId)>,
}

impl Market {
    /// With accounts that can pay, and the book as large as it is going to stay.
    pub(crate) fn open() -> Self {
        let mut market =
            Self { venue: Venue::open(), dice: Dice(42), resting: Vec::with_capacity(RESTING as usize * 2) };
        for _ in 0..RESTING {
            let (trader, order) = passive(&mut market.dice);
            market.venue.send(trader, Command::Place(order));
            market.resting.push((trader, OrderId(market.venue.seq.0)));
        }
        market
    }

    /// Applies the next command; what it was, and the nanoseconds that it took.
    fn step(&mut self) -> (Kind, u64) {
        self.venue.tape.clear();
        let (kind, trader, command) = self.choose();
        let took_ns = self.venue.send(trader, command);
        if kind == Kind::Rest {
            self.resting.push((trader, OrderId(self.venue.seq.0)));
        }
        (kind, took_ns)
    }

    fn choose(&mut self) -> (Kind, u64, Command) {
        let dice = &mut self.dice;
        // What fills take out, new orders put back: the book stays as large as it was.
        let thin = self.venue.engine.state().books[usize::from(MARKET.0)].len() as u64 <= RESTING;
        match dice.below(5) {
            2 | 3 if !thin => {
                let (trader, id) = self.venue.take_open(&mut self.resting, dice);
                (Kind::Cancel, trader, Command::Cancel { order: OrderRef::Id(id) })
            }
            0..=3 => {
                let (trader, order) = passive(dice);
                (Kind::Rest, trader, Command::Place(order))
            }
            _ => {
                let (trader, order) = aggressive(dice);
                (Kind::Take, trader, Command::Place(order))
            }
        }
    }

    /// The commands that made the market what it is, and have not been taken yet.
    pub(crate) fn take_tape(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.venue.tape)
    }

    /// The next command, applied.
    pub(crate) fn next(&mut self) -> Entry {
        self.step();
        self.venue.tape.pop().expect("a step leaves its command on the tape")
    }

    /// After the last command.
    pub(crate) fn engine(&self) -> &Engine {
        &self.venue.engine
    }
}

/// The engine with the operator's session, through which everybody's commands enter.
struct Venue {
    engine: Engine,
    seq: Seq,
    client_seq: u64,
    events: Vec<Event>,
    traders: Vec<AccountId>,
    /// Every command, in order.
    tape: Vec<Entry>,
}

impl Venue {
    fn open() -> Self {
        let mut venue = Self {
            engine: Engine::new(),
            seq: Seq::ZERO,
            client_seq: 0,
            events: Vec::new(),
            traders: Vec::new(),
            tape: Vec::new(),
        };
        venue.apply(Entry::venue(Command::Genesis { operator_key: OPERATOR_KEY }));
        let key = Fingerprint::of(&OPERATOR_KEY);
        venue.apply(Entry::venue(Command::OpenSession { session: SessionId(1), key }));
        let operator = match &venue.events[..] {
            [Event::SessionOpened { result: Ok(account), .. }] => *account,
            other => unreachable!("the operator's key opens a session: {other:?}"),
        };
        venue.ask(operator, Command::DefineInstrument(instrument()));
        for _ in 0..TRADERS {
            let open = Command::OpenAccount {
                name: String::new(),
                mode: AccountMode::Advanced,
                capabilities: Capabilities::default(),
            };
            let id = venue.ask(operator, open);
            let account = AccountId(u32::try_from(id).expect("account ids have 32 bits"));
            venue.ask(account, Command::RegisterSupplier(SupplierProfile::default()));
            venue.ask(account, Command::SetCapacity { instrument: MARKET, capacity: STOCK });
            venue.ask(account, Command::Issue { instrument: MARKET, qty: STOCK });
            venue.ask(account, Command::TransferIssuance { instrument: MARKET, qty: STOCK });
            venue.ask(account, Command::Deposit { amount: Usd::dollars(100_000_000) });
            venue.traders.push(account);
        }
        venue
    }

    fn apply(&mut self, entry: Entry) -> u64 {
        self.seq = self.seq.next();
        self.events.clear();
        let begin = Instant::now();
        self.engine.apply(self.seq, Nanos(self.seq.0), &entry, &mut self.events);
        let took_ns = u64::try_from(begin.elapsed().as_nanos()).expect("a command ends within centuries");
        self.tape.push(entry);
        took_ns
    }

    fn submit(&mut self, account: AccountId, command: Command) -> u64 {
        self.client_seq += 1;
        self.apply(Entry { session: SessionId(1), client_seq: self.client_seq, account, command })
    }

    /// A trader's command; the nanoseconds that it took.
    fn send(&mut self, trader: u64, command: Command) -> u64 {
        self.submit(self.traders[trader as usize], command)
    }

    /// A command of the set-up, which must succeed; the id of what it made.
    fn ask(&mut self, account: AccountId, command: Command) -> u64 {
        self.submit(account, command);
        let done = self.events.iter().find_map(|event| match event {
            Event::Report { report, .. } => match report.body {
                ReportBody::Done { created } => Some(created),
                _ => None,
            },
            _ => None,
        });
        done.expect("the set-up is accepted")
    }

    /// Any order that is still open; those found dead on the way are forgotten.
    fn take_open(&self, resting: &mut Vec<(u64, OrderId)>, dice: &mut Dice) -> (u64, OrderId) {
        let book = &self.engine.state().books[usize::from(MARKET.0)];
        loop {
            let at = dice.below(resting.len() as u64) as usize;
            let found = resting.swap_remove(at);
            if book.order(found.1).is_some() {
                return found;
            }
        }
    }
}

fn instrument() -> InstrumentSpec {
    InstrumentSpec {
        symbol: "bench".into(),
        name: "Bench".into(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: Usd(1_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(1_000),
            max_price: Price(10_000),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}

/// SplitMix64: the same orders on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::place_cancel_match;

    #[test]
    fn the_scenario_trades_and_accounts_for_every_order() {
        let outcome = place_cancel_match(5_000);
        assert_eq!(outcome.rest.len() + outcome.cancel.len() + outcome.take.len(), 5_000);
        assert!(outcome.trades > 500, "{outcome:?}");
    }
}
