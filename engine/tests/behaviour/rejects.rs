//! Each "no" in its turn: a command that is wrong in many ways is refused for the first one in the declared order.
//!
//! A ladder has one step per check. The command of a step passes every check above it and fails its own and all below
//! (where that is possible at all), so a check that moves is found by the step that gets the wrong answer.

use grid_engine::command::{
    AccountMode, Capabilities, Command, Entry, NewOrder, Offer, OrderKind, OrderRef, QuoteEntry,
    QuoteProtection, QuoteSide, SelfTrade, Side, SupplierProfile, Surface, TimeInForce, TransferDirection,
    Usage,
};
use grid_engine::event::Event;
use grid_engine::funding::{AutoReload, PaymentMethod};
use grid_engine::instrument::{InstrumentSpec, InstrumentStatus};
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::{
    AccountId, InstrumentId, KeyHash, KeyId, Label, Nanos, OrderId, Price, Qty, Reject, ReservationId,
    SECOND, SessionId, Tokens, Usd, limits,
};

use crate::venue::{Actor, Venue, key_of, rejected, spec};

const LIVE: InstrumentId = InstrumentId(0);
const HALTED: InstrumentId = InstrumentId(1);
/// Its tick is worth so much that notionals do not fit.
const DEAR: InstrumentId = InstrumentId(2);
const NOWHERE: InstrumentId = InstrumentId(99);
const NOBODY: AccountId = AccountId(999);
const SOLD_OUT: InstrumentId = InstrumentId(3);

/// The declared order and the numbers, from the source itself.
fn declared() -> Vec<(String, u16)> {
    let source = include_str!("../../src/reject.rs");
    let variants = source.split_once("pub enum Reject {").unwrap().1.split_once("\n}").unwrap().0;
    let lines = variants.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    lines.map(|(name, number)| (name.to_owned(), number.parse().unwrap())).collect()
}

#[test]
fn reject_numbers_are_for_ever() {
    // Append; never change or remove a line.
    let numbers = [
        ("UnknownSession", 1),
        ("NotPermitted", 2),
        ("UnknownAccount", 3),
        ("UnknownKey", 4),
        ("DuplicateKey", 5),
        ("AutoModeTradingRestricted", 6),
        ("BadSignature", 7),
        ("UnknownInstrument", 10),
        ("InstrumentNotLive", 11),
        ("InvalidQuantity", 12),
        ("InvalidPrice", 13),
        ("OutOfRange", 14),
        ("InvalidText", 15),
        ("DuplicateLabel", 20),
        ("UnknownOrder", 21),
        ("WouldTrade", 22),
        ("TooManyOrders", 23),
        ("QuotesPulled", 24),
        ("InsufficientFunds", 30),
        ("InsufficientUnits", 31),
        ("InsufficientTokens", 32),
        ("NoSupply", 33),
        ("UnknownReservation", 40),
        ("DuplicateRequest", 41),
        ("NotASupplier", 50),
        ("BeyondCapacity", 51),
        ("BeyondCollateral", 52),
        ("Suspended", 53),
        ("LimitReached", 60),
        ("FreeTierSpent", 70),
        ("TooManyAtOnce", 71),
        ("Replenishing", 72),
        ("PaymentDeclined", 73),
        ("UnknownReload", 74),
        ("AlreadyCredited", 75),
    ];
    let mut found = declared();
    found.sort_by_key(|&(_, number)| number);
    let found: Vec<_> = found.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    assert_eq!(found[..numbers.len()], numbers);
    assert!(found.windows(2).all(|pair| pair[0].1 < pair[1].1), "no number is used twice");
}

/// A venue on which everything that can be wrong is wrong for `owner`.
struct Stage {
    venue: Venue,
    /// Advanced, without a dollar, and with an open order labelled 7 in each instrument where it could.
    owner: Actor,
    easy: Actor,
}

impl Stage {
    fn new() -> Self {
        let mut venue = Venue::open();
        for symbol in ["live", "halted", "dear", "sold-out"] {
            let mut spec = spec(symbol);
            if symbol == "dear" {
                spec.market.tick = Usd::dollars(1_000_000);
            }
            venue.define(spec);
        }
        let owner = venue.join("owner", AccountMode::Advanced, Capabilities::default());
        let easy = venue.join("easy", AccountMode::Easy, Capabilities::default());
        let sue = venue.join("sue", AccountMode::Advanced, Capabilities::default());
        for actor in [owner, sue] {
            for instrument in [LIVE, HALTED, DEAR] {
                venue.supply(actor.account, instrument, Qty(100));
                venue.stock(actor.account, instrument, Qty(10));
            }
        }
        let mut stage = Self { venue, owner, easy };
        // Sue asks at 80; the owner, with everything it has, bids at 1 and asks at 100.
        for instrument in [LIVE, HALTED, DEAR] {
            stage.must(sue.account, order(instrument, Side::Sell, 80, 1));
            stage.must(owner.account, order(instrument, Side::Sell, 100, 10));
        }
        stage.venue.deposit(owner.account, Usd(10_000_000));
        let Command::Place(labelled) = order(LIVE, Side::Buy, 1, 1) else { unreachable!() };
        stage.must(owner.account, Command::Place(NewOrder { label: Label(7), ..labelled }));
        let status = InstrumentStatus::Halted;
        let operator = stage.venue.operator.account;
        stage.venue.operate(operator, Command::SetInstrumentStatus { instrument: HALTED, status });
        stage
    }

    /// A command that must succeed, through the operator's session.
    fn must(&mut self, account: AccountId, command: Command) {
        let mut operator = self.venue.operator;
        let body = self.venue.ask(&mut operator, account, command);
        self.venue.operator = operator;
        assert_eq!(rejected(&body), None);
    }

    fn open_order(&self, instrument: InstrumentId) -> OrderRef {
        let mut orders = self.venue.engine.state().open_orders(self.owner.account);
        OrderRef::Id(orders.find(|(at, _)| *at == instrument).unwrap().1.id)
    }

    /// Climbs down a ladder: through the owner's session or the operator's, each step is refused for its own reason.
    fn climb(&mut self, name: &str, steps: Vec<(Reject, By, AccountId, Command)>) {
        let declared = declared();
        let place = |reject: Reject| {
            let place = declared.iter().position(|&(_, number)| number == reject.code());
            place.expect("every reject is declared")
        };
        for pair in steps.windows(2) {
            assert!(
                place(pair[0].0) <= place(pair[1].0),
                "{name}: {:?} is declared before {:?}",
                pair[0].0,
                pair[1].0
            );
        }
        for (expected, by, account, command) in steps {
            let mut actor = match by {
                By::Owner => self.owner,
                By::Operator => self.venue.operator,
            };
            let before = self.venue.engine.clone();
            let body = self.venue.ask(&mut actor, account, command.clone());
            match by {
                By::Owner => self.owner = actor,
                By::Operator => self.venue.operator = actor,
            }
            assert_eq!(rejected(&body), Some(expected), "{name}: {command:?}");
            assert_eq!(
                self.venue.events.len(),
                1,
                "{name}: a reject says one thing: {:?}",
                self.venue.events
            );
            let (before, after) = (before.state(), self.venue.engine.state());
            let same = before.accounts == after.accounts
                && before.instruments == after.instruments
                && before.books == after.books
                && before.suppliers == after.suppliers
                && before.holdings == after.holdings
                && before.supplies == after.supplies
                && before.reservations == after.reservations
                && before.timers == after.timers;
            assert!(same, "{name}: a reject changes nothing: {command:?}");
        }
        self.venue.engine.check_invariants().unwrap();
    }
}

#[derive(Clone, Copy)]
enum By {
    Owner,
    Operator,
}
use By::{Operator, Owner};

fn order(instrument: InstrumentId, side: Side, price: u64, qty: u64) -> Command {
    Command::Place(NewOrder {
        instrument,
        side,
        kind: OrderKind::Limit { price: Price(price), tif: TimeInForce::Gtc },
        qty: Qty(qty),
        stp: SelfTrade::Allow,
        label: Label::default(),
        tag: String::new(),
        to_consumption: false,
    })
}

#[test]
fn an_unknown_session_is_told_so_and_nothing_else() {
    let mut stage = Stage::new();
    stage.venue.apply(Entry {
        session: SessionId(4_711),
        client_seq: 1,
        account: NOBODY,
        command: order(NOWHERE, Side::Buy, 0, 0),
    });
    let told = [Event::SessionOpened { session: SessionId(4_711), result: Err(Reject::UnknownSession) }];
    assert_eq!(stage.venue.events, told);
}

#[test]
fn new_orders_are_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy) = (stage.owner.account, stage.easy.account);
    // Wrong in every way that the arguments leave open: post-only at a crossing price, a taken label, a long tag.
    let bad = |instrument, price: u64, qty: u64, tag: usize, label: u128| {
        Command::Place(NewOrder {
            instrument,
            side: Side::Buy,
            kind: OrderKind::Limit { price: Price(price), tif: TimeInForce::PostOnly },
            qty: Qty(qty),
            stp: SelfTrade::Allow,
            label: Label(label),
            tag: "t".repeat(tag),
            to_consumption: false,
        })
    };
    stage.climb(
        "place",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, bad(NOWHERE, 0, 0, 65, 7)),
            (Reject::NotPermitted, Owner, easy, bad(NOWHERE, 0, 0, 65, 7)),
            (Reject::UnknownAccount, Operator, NOBODY, bad(NOWHERE, 0, 0, 65, 7)),
            (Reject::AutoModeTradingRestricted, Operator, easy, bad(NOWHERE, 0, 0, 65, 7)),
            (Reject::UnknownInstrument, Owner, me, bad(NOWHERE, 0, 0, 65, 7)),
            (Reject::InstrumentNotLive, Owner, me, bad(HALTED, 0, 0, 65, 7)),
            (Reject::InvalidQuantity, Owner, me, bad(LIVE, 0, 0, 65, 7)),
            (Reject::InvalidQuantity, Owner, me, bad(LIVE, 0, 10_001, 65, 7)),
            (Reject::InvalidPrice, Owner, me, bad(LIVE, 0, 1, 65, 7)),
            (Reject::InvalidPrice, Owner, me, bad(LIVE, 100_001, 1, 65, 7)),
            (Reject::OutOfRange, Owner, me, bad(DEAR, 100_000, 10_000, 65, 7)),
            (Reject::InvalidText, Owner, me, bad(LIVE, 90, 1, 65, 7)),
            (Reject::InvalidText, Owner, me, bad(LIVE, 90, 1, 64, 0)),
            (Reject::DuplicateLabel, Owner, me, bad(LIVE, 90, 1, 64, 7)),
            (Reject::WouldTrade, Owner, me, bad(LIVE, 90, 1, 64, 8)),
            (Reject::InsufficientFunds, Owner, me, bad(LIVE, 79, 1, 64, 8)),
            (Reject::InsufficientUnits, Owner, me, order(LIVE, Side::Sell, 81, 1)),
        ],
    );
}

#[test]
fn an_account_has_a_bounded_number_of_open_orders() {
    let mut stage = Stage::new();
    let me = stage.owner.account;
    let full = limits::OPEN_ORDERS - stage.venue.engine.state().accounts[me.0 as usize].orders.len();
    stage.venue.deposit(me, Usd(full as i64 * 10_000_000));
    stage.venue.log = None;
    for _ in 0..full {
        stage.must(me, order(LIVE, Side::Buy, 1, 1));
    }
    let crossing = |price| {
        let Command::Place(new) = order(LIVE, Side::Buy, price, 1) else { unreachable!() };
        let kind = OrderKind::Limit { price: Price(price), tif: TimeInForce::PostOnly };
        Command::Place(NewOrder { kind, ..new })
    };
    let mut actor = stage.owner;
    let mut refused = |command| rejected(&stage.venue.ask(&mut actor, me, command));
    assert_eq!(refused(crossing(90)), Some(Reject::WouldTrade));
    assert_eq!(refused(crossing(2)), Some(Reject::TooManyOrders));
}

#[test]
fn changes_are_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy) = (stage.owner.account, stage.easy.account);
    let (bid, in_halted, in_dear) =
        (OrderRef::Label(Label(7)), stage.open_order(HALTED), stage.open_order(DEAR));
    let unknown = OrderRef::Id(OrderId(1));
    let replace = |order, qty, price| Command::Replace {
        order,
        qty: Qty(qty),
        price: Price(price),
        stp: SelfTrade::Allow,
        post_only: true,
    };
    stage.climb(
        "replace",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, replace(unknown, 10_001, 0)),
            (Reject::UnknownAccount, Operator, NOBODY, replace(unknown, 10_001, 0)),
            (Reject::AutoModeTradingRestricted, Operator, easy, replace(unknown, 10_001, 0)),
            (Reject::UnknownOrder, Owner, me, replace(unknown, 10_001, 0)),
            (Reject::InstrumentNotLive, Owner, me, replace(in_halted, 10_001, 0)),
            (Reject::InvalidQuantity, Owner, me, replace(bid, 10_001, 0)),
            (Reject::InvalidPrice, Owner, me, replace(bid, 2, 0)),
            (Reject::OutOfRange, Owner, me, replace(in_dear, 10_000, 100_000)),
            (Reject::WouldTrade, Owner, me, replace(bid, 2, 80)),
            (Reject::InsufficientFunds, Owner, me, replace(bid, 2, 79)),
            (Reject::InsufficientUnits, Owner, me, replace(in_dear, 11, 100)),
        ],
    );
    stage.climb(
        "cancel",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, Command::Cancel { order: unknown }),
            (Reject::UnknownAccount, Operator, NOBODY, Command::Cancel { order: unknown }),
            (Reject::UnknownOrder, Owner, me, Command::Cancel { order: unknown }),
            (Reject::UnknownOrder, Owner, me, Command::Cancel { order: OrderRef::Label(Label(0)) }),
        ],
    );
}

#[test]
fn mass_quotes_are_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy) = (stage.owner.account, stage.easy.account);
    let entry = |instrument, quote| {
        let side = |price| QuoteSide { price: Price(price), qty: Qty(1) };
        QuoteEntry { instrument, quote, bid: side(1), ask: side(99) }
    };
    let quote = |entries: &[QuoteEntry]| Command::MassQuote {
        entries: entries.into(),
        stp: SelfTrade::Allow,
        post_only: false,
    };
    let protect = |window, fills, qty| {
        let protection = QuoteProtection { window: Nanos(window), fills, qty: Qty(qty) };
        Command::SetQuoteProtection(Some(protection))
    };
    // Its one Unit is asked for at 5, and nobody else bids as high: the fill that pulls.
    let mut owner = stage.owner;
    let mut must = |stage: &mut Stage, command| {
        assert_eq!(rejected(&stage.venue.ask(&mut owner, me, command)), None);
    };
    must(&mut stage, protect(SECOND, 1, 0));
    stage.venue.stock(me, LIVE, Qty(1));
    let ask = QuoteSide { price: Price(5), qty: Qty(1) };
    let alone = QuoteEntry { instrument: LIVE, quote: 1, bid: QuoteSide::default(), ask };
    must(&mut stage, quote(&[alone]));
    stage.owner = owner;
    let sue = AccountId(me.0 + 2);
    stage.venue.deposit(sue, Usd::dollars(1));
    stage.must(sue, order(LIVE, Side::Buy, 5, 1));
    let too_many: Vec<_> =
        (0..2).flat_map(|at| (1..=40).map(move |nth| entry(InstrumentId(at), nth))).collect();
    stage.climb(
        "mass quote",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, quote(&[])),
            (Reject::NotPermitted, Owner, easy, quote(&[])),
            (Reject::NotPermitted, Operator, me, quote(&[])),
            (Reject::OutOfRange, Owner, me, quote(&[])),
            (Reject::OutOfRange, Owner, me, quote(&too_many)),
            (Reject::OutOfRange, Owner, me, quote(&[entry(LIVE, 0)])),
            (Reject::OutOfRange, Owner, me, quote(&[entry(LIVE, 64)])),
            (Reject::OutOfRange, Owner, me, quote(&[entry(LIVE, 2), entry(LIVE, 1)])),
            (Reject::OutOfRange, Owner, me, quote(&[entry(LIVE, 1), entry(LIVE, 1)])),
            (Reject::OutOfRange, Owner, me, quote(&[entry(HALTED, 1), entry(LIVE, 2)])),
            (Reject::QuotesPulled, Owner, me, quote(&[entry(LIVE, 1)])),
        ],
    );
    stage.climb(
        "quote protection",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, protect(0, 0, 0)),
            (Reject::NotPermitted, Operator, me, protect(0, 0, 0)),
            (Reject::OutOfRange, Owner, me, protect(0, 1, 1)),
            (Reject::OutOfRange, Owner, me, protect(SECOND, 0, 0)),
        ],
    );
    let mut easily = Actor { account: easy, session: SessionId(u128::from(easy.0) + 100), client_seq: 0 };
    let told = stage.venue.ask(&mut easily, easy, quote(&[]));
    assert_eq!(rejected(&told), Some(Reject::AutoModeTradingRestricted));
}

#[test]
fn delivery_is_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy) = (stage.owner.account, stage.easy.account);
    stage.venue.deposit(easy, Usd(900_000_000));
    let reserve = |instrument, tokens, request, valid_for: u64| Command::Reserve {
        instrument,
        tokens: Tokens(tokens),
        request,
        valid_for: Nanos(valid_for),
        key: KeyId::NONE,
        surface: Surface::Messages,
    };
    let with_key = |key| Command::Reserve {
        instrument: NOWHERE,
        tokens: Tokens(0),
        request: 1,
        valid_for: Nanos(0),
        key: KeyId(key),
        surface: Surface::Messages,
    };
    stage.must(
        me,
        Command::AddConsumptionKey {
            hash: KeyHash([9; 32]),
            prefix: "sk-grid-".into(),
            name: String::new(),
            expires_at: None,
        },
    );
    // The easy account buys one Unit at 80 cents, has 10 cents left, and request 1 is taken.
    stage.must(easy, reserve(LIVE, 1, 1, SECOND));
    stage.climb(
        "reserve",
        vec![
            (Reject::NotPermitted, Owner, me, reserve(NOWHERE, 0, 1, 0)),
            (Reject::UnknownAccount, Operator, NOBODY, reserve(NOWHERE, 0, 1, 0)),
            // Nobody's, and somebody else's.
            (Reject::UnknownKey, Operator, easy, with_key(2)),
            (Reject::UnknownKey, Operator, easy, with_key(1)),
            (Reject::UnknownInstrument, Operator, me, with_key(1)),
            (Reject::UnknownInstrument, Operator, easy, reserve(NOWHERE, 0, 1, 0)),
            (Reject::InvalidQuantity, Operator, easy, reserve(LIVE, 0, 1, 0)),
            (Reject::InvalidQuantity, Operator, easy, reserve(LIVE, u64::MAX, 1, 0)),
            (Reject::OutOfRange, Operator, easy, reserve(LIVE, 5_000_000, 1, 0)),
            (Reject::OutOfRange, Operator, easy, reserve(LIVE, 5_000_000, 1, limits::RESERVATION_LIFE.0 + 1)),
            (Reject::DuplicateRequest, Operator, easy, reserve(LIVE, 5_000_000, 1, SECOND)),
            (Reject::InsufficientTokens, Operator, me, reserve(LIVE, 1, 2, SECOND)),
            (Reject::NoSupply, Operator, easy, reserve(SOLD_OUT, 1, 2, SECOND)),
            (Reject::NoSupply, Operator, easy, reserve(HALTED, 1, 2, SECOND)),
            (Reject::InsufficientFunds, Operator, easy, reserve(LIVE, 2_000_000, 2, SECOND)),
        ],
    );
    let (reservation, _) = stage.venue.engine.state().reservations.iter().next().unwrap();
    let settle = |reservation, supplier, tokens| Command::Settle {
        reservation,
        usage: Usage {
            supplier,
            prompt_tokens: Tokens(tokens),
            completion_tokens: Tokens(tokens),
            ..Usage::default()
        },
    };
    stage.climb(
        "settle",
        vec![
            (Reject::NotPermitted, Owner, me, settle(ReservationId(0), NOBODY, u64::MAX)),
            (Reject::UnknownAccount, Operator, NOBODY, settle(ReservationId(0), NOBODY, u64::MAX)),
            (Reject::UnknownReservation, Operator, easy, settle(ReservationId(0), NOBODY, u64::MAX)),
            // Somebody else's.
            (Reject::UnknownReservation, Operator, me, settle(reservation, NOBODY, u64::MAX)),
            (Reject::NotASupplier, Operator, easy, settle(reservation, easy, u64::MAX)),
            (Reject::OutOfRange, Operator, easy, settle(reservation, me, u64::MAX)),
        ],
    );
    let release = |reservation| Command::Release { reservation, supplier: NOBODY };
    stage.climb(
        "release",
        vec![
            (Reject::NotPermitted, Owner, me, release(ReservationId(0))),
            (Reject::UnknownReservation, Operator, me, release(reservation)),
        ],
    );
    let direction = TransferDirection::ToConsumption;
    let transfer = |instrument, qty, direction| Command::Transfer { instrument, qty: Qty(qty), direction };
    stage.climb(
        "transfer",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, transfer(NOWHERE, 0, direction)),
            (Reject::UnknownInstrument, Owner, me, transfer(NOWHERE, 0, direction)),
            (Reject::InvalidQuantity, Owner, me, transfer(LIVE, 0, direction)),
            // All ten Units stand behind an ask.
            (Reject::InsufficientUnits, Owner, me, transfer(LIVE, 1, direction)),
            (Reject::InsufficientUnits, Owner, me, transfer(LIVE, 1, TransferDirection::ToTrading)),
            (Reject::InsufficientUnits, Owner, me, transfer(LIVE, u64::MAX, TransferDirection::ToTrading)),
        ],
    );
}

#[test]
fn supply_is_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy) = (stage.owner.account, stage.easy.account);
    let issue = |instrument, qty| Command::Issue { instrument, qty: Qty(qty) };
    stage.climb(
        "issue",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, issue(NOWHERE, 0)),
            (Reject::UnknownAccount, Operator, NOBODY, issue(NOWHERE, 0)),
            (Reject::UnknownInstrument, Operator, easy, issue(NOWHERE, 0)),
            (Reject::InvalidQuantity, Operator, easy, issue(LIVE, 0)),
            (Reject::NotASupplier, Operator, easy, issue(LIVE, u64::MAX)),
            (Reject::OutOfRange, Owner, me, issue(LIVE, u64::MAX)),
            (Reject::OutOfRange, Owner, me, issue(LIVE, limits::ALL_TOKENS / 1_000_000)),
            (Reject::BeyondCapacity, Owner, me, issue(LIVE, 91)),
        ],
    );
    let list = |instrument, qty| Command::TransferIssuance { instrument, qty: Qty(qty) };
    stage.climb(
        "list",
        vec![
            (Reject::UnknownInstrument, Owner, me, list(NOWHERE, 0)),
            (Reject::InvalidQuantity, Owner, me, list(LIVE, 0)),
            (Reject::InsufficientUnits, Owner, me, list(LIVE, 1)),
        ],
    );
    let capacity = |instrument, qty| Command::SetCapacity { instrument, capacity: Qty(qty) };
    stage.climb(
        "capacity",
        vec![
            (Reject::NotPermitted, Owner, me, capacity(NOWHERE, u64::MAX)),
            (Reject::UnknownAccount, Operator, NOBODY, capacity(NOWHERE, u64::MAX)),
            (Reject::UnknownInstrument, Operator, easy, capacity(NOWHERE, u64::MAX)),
            (Reject::NotASupplier, Operator, easy, capacity(LIVE, u64::MAX)),
            (Reject::OutOfRange, Operator, me, capacity(LIVE, u64::MAX)),
        ],
    );
    let register = |instrument, text: usize| {
        Command::RegisterSupplier(Box::new(SupplierProfile {
            name: "n".repeat(text),
            offers: vec![Offer { instrument, model: String::new() }],
            ..SupplierProfile::default()
        }))
    };
    stage.climb(
        "register supplier",
        vec![
            (Reject::NotPermitted, Owner, me, register(NOWHERE, 65)),
            (Reject::UnknownInstrument, Operator, me, register(NOWHERE, 65)),
            (Reject::InvalidText, Operator, me, register(LIVE, 65)),
        ],
    );
}

#[test]
fn service_is_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let (me, easy, operator) = (stage.owner.account, stage.easy.account, stage.venue.operator.account);
    let fault = |instrument, supplier| Command::ReportFault { instrument, supplier, fault: Fault::Cut };
    stage.climb(
        "report fault",
        vec![
            (Reject::NotPermitted, Owner, me, fault(NOWHERE, easy)),
            (Reject::UnknownAccount, Operator, NOBODY, fault(NOWHERE, easy)),
            (Reject::UnknownInstrument, Operator, operator, fault(NOWHERE, easy)),
            (Reject::NotASupplier, Operator, operator, fault(LIVE, easy)),
        ],
    );
    let probe = |instrument, supplier| Command::ReportProbe { instrument, supplier, passed: false };
    stage.climb(
        "report probe",
        vec![
            (Reject::NotPermitted, Owner, me, probe(NOWHERE, easy)),
            (Reject::UnknownInstrument, Operator, operator, probe(NOWHERE, easy)),
            (Reject::NotASupplier, Operator, operator, probe(LIVE, easy)),
        ],
    );
    let terms = |instrument, error_max_bps| Command::SetSlaTerms {
        instrument,
        terms: Box::new(SlaTerms { error_max_bps, ..SlaTerms::default() }),
    };
    stage.climb(
        "terms",
        vec![
            (Reject::NotPermitted, Owner, me, terms(NOWHERE, 10_001)),
            (Reject::UnknownInstrument, Operator, operator, terms(NOWHERE, 10_001)),
            (Reject::OutOfRange, Operator, operator, terms(LIVE, 10_001)),
        ],
    );
    let collateral = |instrument, amount| Command::SetCollateral { instrument, amount: Usd(amount) };
    stage.climb(
        "collateral",
        vec![
            (Reject::NotPermitted, Owner, me, collateral(NOWHERE, -1)),
            (Reject::UnknownInstrument, Operator, easy, collateral(NOWHERE, -1)),
            (Reject::NotASupplier, Operator, easy, collateral(LIVE, -1)),
            (Reject::OutOfRange, Operator, me, collateral(LIVE, -1)),
            (Reject::InsufficientFunds, Operator, me, collateral(LIVE, i64::MAX)),
        ],
    );
    let managed = |instrument, price, capacity| Command::SetManaged {
        instrument,
        price: Price(price),
        capacity: Qty(capacity),
    };
    stage.climb(
        "managed",
        vec![
            (Reject::NotPermitted, Owner, me, managed(NOWHERE, 0, u64::MAX)),
            (Reject::UnknownInstrument, Operator, easy, managed(NOWHERE, 0, u64::MAX)),
            (Reject::InvalidPrice, Operator, easy, managed(LIVE, 0, u64::MAX)),
            (Reject::NotASupplier, Operator, easy, managed(LIVE, 1, u64::MAX)),
            (Reject::OutOfRange, Operator, me, managed(LIVE, 1, u64::MAX)),
        ],
    );
    // What may be issued is bounded by capacity, then by collateral, and by standing.
    let issue = |qty| Command::Issue { instrument: LIVE, qty: Qty(qty) };
    let mut demanding = SlaTerms { collateral_per_unit: Usd(1), probes_to_decide: 1, ..SlaTerms::NONE };
    stage.must(operator, Command::SetSlaTerms { instrument: LIVE, terms: Box::new(demanding) });
    stage.must(operator, probe(LIVE, me));
    let bounded = vec![
        (Reject::BeyondCapacity, Owner, me, issue(91)),
        (Reject::BeyondCollateral, Owner, me, issue(90)),
    ];
    stage.climb("issue against collateral", bounded);
    demanding.collateral_per_unit = Usd::ZERO;
    stage.must(operator, Command::SetSlaTerms { instrument: LIVE, terms: Box::new(demanding) });
    stage.climb("issue while suspended", vec![(Reject::Suspended, Owner, me, issue(90))]);
}

#[test]
fn the_directory_is_refused_for_the_first_reason() {
    let mut stage = Stage::new();
    let me = stage.owner.account;
    let bad = |qty: u64, price: u64, fee: u16, symbol: &str| {
        let mut bad = InstrumentSpec { symbol: symbol.into(), ..spec("x") };
        bad.market.lot = Qty(qty);
        bad.market.max_price = Price(price);
        bad.market.taker_fee_bps = fee;
        Command::DefineInstrument(Box::new(bad))
    };
    stage.climb(
        "define",
        vec![
            (Reject::NotPermitted, Owner, me, bad(0, 0, 1_001, "No Symbol")),
            (Reject::UnknownAccount, Operator, NOBODY, bad(0, 0, 1_001, "No Symbol")),
            (Reject::InvalidQuantity, Operator, me, bad(0, 0, 1_001, "No Symbol")),
            (Reject::InvalidPrice, Operator, me, bad(1, 0, 1_001, "No Symbol")),
            (Reject::OutOfRange, Operator, me, bad(1, 1, 1_001, "No Symbol")),
            (Reject::InvalidText, Operator, me, bad(1, 1, 0, "No Symbol")),
        ],
    );
    let add = |public_key, label: usize| Command::AddSigningKey { public_key, label: "l".repeat(label) };
    stage.climb(
        "add signing key",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, add(key_of(me), 65)),
            (Reject::UnknownAccount, Operator, NOBODY, add(key_of(me), 65)),
            (Reject::DuplicateKey, Owner, me, add(key_of(me), 65)),
            (Reject::InvalidText, Owner, me, add([200; 32], 65)),
        ],
    );
    let withdraw = |amount| Command::Withdraw { amount: Usd(amount) };
    stage.climb(
        "withdraw",
        vec![
            (Reject::NotPermitted, Owner, me, withdraw(0)),
            (Reject::UnknownAccount, Operator, NOBODY, withdraw(0)),
            (Reject::OutOfRange, Operator, me, withdraw(0)),
            (Reject::OutOfRange, Operator, me, withdraw(i64::MIN)),
            (Reject::InsufficientFunds, Operator, me, withdraw(1)),
            (Reject::InsufficientFunds, Operator, me, withdraw(i64::MAX)),
        ],
    );
    let deposit = |amount| Command::Deposit { amount: Usd(amount) };
    stage.climb(
        "deposit",
        vec![
            (Reject::NotPermitted, Owner, me, deposit(0)),
            (Reject::OutOfRange, Operator, me, deposit(-1)),
            (Reject::OutOfRange, Operator, me, deposit(i64::MAX)),
        ],
    );
    let paid = |reload, amount| Command::ReloadPaid { reload, amount: Usd(amount) };
    stage.climb(
        "reload paid",
        vec![
            (Reject::NotPermitted, Owner, me, paid(9, -1)),
            (Reject::UnknownAccount, Operator, NOBODY, paid(9, -1)),
            (Reject::UnknownReload, Operator, me, paid(9, -1)),
        ],
    );
    let settings = |amount| {
        Command::SetAutoReload(AutoReload { enabled: true, amount: Usd(amount), ..AutoReload::default() })
    };
    stage.climb(
        "auto-reload",
        vec![
            (Reject::NotPermitted, Owner, NOBODY, settings(1)),
            (Reject::UnknownAccount, Operator, NOBODY, settings(1)),
            (Reject::OutOfRange, Owner, me, settings(1)),
        ],
    );
    let card = |customer: usize| {
        let (customer, method) = ("c".repeat(customer), "m".into());
        Command::SetPaymentMethod(Some(Box::new(PaymentMethod { customer, method })))
    };
    stage.climb(
        "payment method",
        vec![(Reject::NotPermitted, Owner, me, card(129)), (Reject::InvalidText, Operator, me, card(129))],
    );
    stage.climb("sign-up credit", vec![(Reject::OutOfRange, Operator, me, Command::SignUpCredit)]);
    let open = |name: usize| Command::OpenAccount {
        name: "n".repeat(name),
        mode: AccountMode::Easy,
        capabilities: Capabilities { tier: true, operator: true },
    };
    stage.climb(
        "open account",
        vec![(Reject::NotPermitted, Owner, me, open(65)), (Reject::InvalidText, Operator, me, open(65))],
    );
    // What only the venue's own session may say.
    let venue_only = [
        Command::Genesis { operator_key: [1; 32] },
        Command::Tick,
        Command::SessionLost { session: SessionId(1), connection: 1 },
    ];
    for command in venue_only {
        stage.climb(
            "venue only",
            vec![
                (Reject::NotPermitted, Owner, me, command.clone()),
                (Reject::NotPermitted, Operator, me, command),
            ],
        );
    }
}
