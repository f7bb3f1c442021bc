//! Random commands of every kind, sensible and not, by everybody who may take part: after each one every invariant
//! holds, each new number is answered exactly once, a repeated number changes nothing, and what time takes away is
//! taken on time. Engines restored from snapshots carry on, and a replay of the log gives the same state and events.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use grid_engine::command::{
    AccountMode, AutoBuy, Capabilities, Command, Cover, Entry, MassCancelScope, NewOrder, Offer, OrderKind,
    OrderRef, QuoteEntry, QuoteProtection, QuoteSide, SelfTrade, Side, SupplierProfile, Surface, TimeInForce,
    TransferDirection, Usage,
};
use grid_engine::event::{ChargeReason, Event, Report, ReportBody};
use grid_engine::funding::{AccountTerms, AutoReload, PaymentMethod, ReloadFailure};
use grid_engine::instrument::{InstrumentSpec, InstrumentStatus, Movement};
use grid_engine::sla::Waived;
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, KeyHash, KeyId, Label, Nanos, OrderId, Price, Qty, Reject,
    ReservationId, SECOND, Seq, SessionId, Tokens, Usd,
};

use crate::dice::{self, Dice};
use crate::venue::{Actor, OPERATOR_KEY, Venue, key_of, spec};

mod service;

/// Commands per seed.
const COMMANDS: u64 = 20_000;
const HOUR: u64 = 3_600 * SECOND;

#[test]
fn invariants_hold_after_every_random_command_part_1() {
    World::new(dice::seed(11)).run(COMMANDS);
}

#[test]
fn invariants_hold_after_every_random_command_part_2() {
    World::new(dice::seed(12)).run(COMMANDS);
}

#[test]
fn invariants_hold_after_every_random_command_part_3() {
    World::new(dice::seed(13)).run(COMMANDS);
}

#[test]
fn invariants_hold_after_every_random_command_part_4() {
    World::new(dice::seed(14)).run(COMMANDS);
}

struct World {
    seed: u64,
    index: u64,
    dice: Dice,
    venue: Venue,
    /// Consumers, traders and suppliers; then the tier; then the operator.
    actors: Vec<Actor>,
    specs: Vec<InstrumentSpec>,
    /// The answer to each number of each session.
    answers: BTreeMap<(SessionId, u64), Option<Report>>,
    next_report: BTreeMap<SessionId, u64>,
    funded: i128,
    requests: u128,
    keys: u8,
    connection: u64,
    /// All events so far.
    events: DefaultHasher,
    seen: BTreeMap<&'static str, u64>,
    rejects: BTreeMap<Reject, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut venue = Venue::open();
        let mut specs = vec![spec("plain"), spec("window"), spec("swept")];
        specs[0].market.taker_fee_bps = 10;
        specs[1].market.maker_fee_bps = 5;
        specs[1].market.taker_fee_bps = 5;
        specs[1].delivery.window = Some(Nanos(4 * HOUR));
        specs[2].delivery.window = Some(Nanos(4 * HOUR));
        specs[2].delivery.movement = Movement::Swept;
        for spec in &mut specs {
            spec.quality.ttft_ceiling_ms = 500;
            spec.quality.tokens_per_second_floor = 50;
            spec.quality.score_floor = 30;
            venue.define(spec.clone());
        }
        let mut actors = Vec::new();
        for n in 0..8 {
            let mode = if n < 3 { AccountMode::Easy } else { AccountMode::Advanced };
            let actor = venue.join(&format!("actor {n}"), mode, Capabilities::default());
            venue.deposit(actor.account, Usd::dollars(if n < 5 { 60 } else { 1_000 }));
            if n >= 5 {
                for instrument in 0..3 {
                    venue.supply(actor.account, InstrumentId(instrument), Qty(5_000));
                    venue.stock(actor.account, InstrumentId(instrument), Qty(500));
                }
            }
            actors.push(actor);
        }
        actors.push(venue.join("tier", AccountMode::Advanced, Capabilities { tier: true, operator: false }));
        service::set_up(&mut venue, actors[3].account);
        actors.push(venue.operator);
        let sessions = venue.engine.state().sessions.iter();
        let next_report = sessions.map(|(&id, session)| (id, session.next_report)).collect();
        let state = venue.engine.state();
        let funded = state.deposited.0 - state.withdrawn.0;
        Self {
            seed,
            index: 0,
            dice: Dice::new(seed),
            venue,
            actors,
            specs,
            answers: BTreeMap::new(),
            next_report,
            funded,
            requests: 0,
            keys: 0,
            connection: 1,
            events: DefaultHasher::new(),
            seen: BTreeMap::new(),
            rejects: BTreeMap::new(),
        }
    }

    fn run(mut self, commands: u64) {
        let skipped = self.venue.log.as_ref().map_or(0, Vec::len);
        for index in 0..commands {
            self.index = index;
            self.step();
            self.check();
            if index % 2_500 == 1_234 {
                self.restart_from_a_snapshot();
            }
        }
        self.replay(skipped);
        for what in [
            "trade",
            "used",
            "released",
            "lapsed",
            "lot expired",
            "swept",
            "at fill",
            "to consumption",
            "to trading",
            "bought",
            "repeated",
            "day order expired",
            "cancelled on disconnect",
            "credited",
            "reload due",
            "reloaded",
            "reload failed",
            "window closed",
            "breach",
            "cover",
            "cover penalty",
            "debt paid",
            "suspended",
            "reinstated",
            "late",
            "bought from the managed supplier",
            "quoted",
            "quote refused",
            "quotes pulled",
        ] {
            assert!(self.seen.contains_key(what), "{what} occurs, seed {}: {:?}", self.seed, self.seen);
        }
        assert!(self.rejects.len() >= 24, "most rejects occur, seed {}: {:?}", self.seed, self.rejects);
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        let last = self.venue.log.as_ref().and_then(|log| log.last());
        panic!("seed {} command {}: {what}\n {last:#?}\n {:#?}", self.seed, self.index, self.venue.events);
    }

    fn step(&mut self) {
        self.pass_time();
        self.come_back_in_time();
        match self.dice.below(100) {
            0 | 1 => self.repeat_an_old_number(),
            2 | 3 => self.connect_or_lose(),
            4 => self.venue.apply(Entry::venue(Command::Tick)),
            5 => self.nonsense(),
            _ => {
                let (from, account, command) = self.command();
                self.send(from, account, command);
            }
        }
    }

    fn pass_time(&mut self) {
        let span = match self.dice.below(400) {
            0 => self.dice.between(1, 9) * HOUR,
            1..=20 => self.dice.below(600) * SECOND,
            _ => self.dice.below(SECOND),
        };
        let now = self.venue.now.after(Nanos(span));
        // Now and then exactly when something falls due, or just before.
        self.venue.now = match self.venue.engine.next_deadline() {
            Some(due) if self.dice.chance(1, 50) && due.0 < now.0 + 2 * HOUR => {
                Nanos((due.0 - self.dice.below(2)).max(self.venue.now.0))
            }
            _ => now,
        };
    }

    /// A session that stays away for a week is forgotten, so nobody here does; the rules' tables show that end.
    fn come_back_in_time(&mut self) {
        let operator = (self.venue.operator.session, Fingerprint::of(&OPERATOR_KEY));
        let actors = self.actors.iter().map(|actor| (actor.session, Fingerprint::of(&key_of(actor.account))));
        for (session, key) in actors.chain([operator]).collect::<Vec<_>>() {
            let ends_at =
                self.venue.engine.state().sessions.get(&session).and_then(|session| session.ends_at);
            if ends_at.is_some_and(|at| at.0 < self.venue.now.0 + 24 * HOUR) {
                self.connection += 1;
                let connection = self.connection;
                self.venue.apply(Entry::venue(Command::Establish {
                    session,
                    key,
                    cancel_on_disconnect: None,
                    connection,
                }));
                self.check();
            }
        }
    }

    fn send(&mut self, from: usize, account: AccountId, command: Command) {
        let mut actor = self.actors[from];
        // Numbers may have gaps.
        actor.client_seq += self.dice.below(2);
        self.venue.send(&mut actor, account, command);
        self.actors[from] = actor;
        let key = (actor.session, actor.client_seq);
        let answers = self.venue.reports().filter(|(session, report)| (*session, report.client_seq) == key);
        let answers: Vec<_> = answers.map(|(_, report)| report).collect();
        let [answer] = &answers[..] else { self.fail("exactly one answer") };
        if let ReportBody::Rejected { reject, .. } = answer.body {
            *self.rejects.entry(reject).or_default() += 1;
            // Nothing but time may have acted.
            if self.dice.chance(1, 20) {
                let told = |event: &Event| matches!(event, Event::Traded(_) | Event::OrderOpened(_));
                if self.venue.events.iter().any(told) {
                    self.fail("a refused command trades nothing");
                }
            }
        }
        self.answers.insert(key, Some(*answer));
    }

    /// A number that was used before, with some other command: what happens is what time does, and the old answer.
    fn repeat_an_old_number(&mut self) {
        let from = self.dice.below(self.actors.len() as u64) as usize;
        let actor = self.actors[from];
        let client_seq = match self.dice.below(3) {
            0 => actor.client_seq,
            _ => self.dice.below(actor.client_seq + 1),
        };
        let (_, account, command) = self.command();
        let mut only_time = self.venue.clone();
        only_time.log = None;
        only_time.apply(Entry::venue(Command::Tick));
        self.venue.apply(Entry { session: actor.session, client_seq, account, command });
        let answer = self.answers.get(&(actor.session, client_seq)).cloned().flatten();
        let repeated = Event::Repeated { session: actor.session, client_seq, report: answer.map(Box::new) };
        let held = self.venue.events.iter().filter(|event| matches!(event, Event::Repeated { .. }));
        // What the operator was answered while the venue was set up, nobody noted.
        let noted =
            actor.session != self.venue.operator.session || client_seq > self.venue.operator.client_seq;
        let told: Vec<_> = held.collect();
        if told.len() != 1 || (noted && *told[0] != repeated) {
            self.fail(&format!("the old answer again: {repeated:?}"));
        }
        let others = self.venue.events.iter().filter(|event| !matches!(event, Event::Repeated { .. }));
        if !others.eq(&only_time.events) || only_time.engine.state_hash() != self.venue.engine.state_hash() {
            self.fail("a repeated number executes nothing");
        }
        self.saw("repeated");
    }

    fn connect_or_lose(&mut self) {
        let actor = *self.dice.pick(&self.actors);
        let command = if self.dice.chance(1, 2) {
            let connection = self.connection - self.dice.below(2);
            Command::SessionLost { session: actor.session, connection }
        } else {
            self.connection += 1;
            let key = match self.dice.below(10) {
                0 => Fingerprint::of(&OPERATOR_KEY),
                _ => Fingerprint::of(&key_of(actor.account)),
            };
            let grace = [None, Some(0), Some(SECOND), Some(30 * SECOND), Some(HOUR), Some(2 * HOUR)];
            Command::Establish {
                session: actor.session,
                key,
                cancel_on_disconnect: self.dice.pick(&grace).map(Nanos),
                connection: self.connection,
            }
        };
        self.venue.apply(Entry::venue(command.clone()));
        // Half of them are lost at once.
        if let Command::Establish { session, connection, .. } = command
            && self.dice.chance(1, 2)
        {
            self.check();
            self.venue.apply(Entry::venue(Command::SessionLost { session, connection }));
        }
    }

    /// What no honest gateway sends.
    fn nonsense(&mut self) {
        let (from, account, command) = self.command();
        let session = self.actors[from].session;
        match self.dice.below(5) {
            0 => self.venue.apply(Entry { session: SessionId(9_999), client_seq: 1, account, command }),
            1 => self.venue.apply(Entry::venue(command)),
            2 => self.send(from, AccountId(4_000_000_000), command),
            3 => self.send(from, account, Command::Genesis { operator_key: [3; 32] }),
            _ => self.send(from, account, Command::SessionLost { session, connection: self.connection }),
        }
    }

    /// A random command: which actor sends it and for which account.
    fn command(&mut self) -> (usize, AccountId, Command) {
        let last = self.actors.len() - 1;
        let (tier, operator) = (last - 1, last);
        let who = self.dice.below(8) as usize;
        let own = self.actors[who].account;
        let supplier = self.dice.between(5, 7) as usize;
        let trader = self.dice.between(2, 7) as usize;
        let instrument = InstrumentId(match self.dice.below(200) {
            0 => 77,
            n => (n % 3) as u16,
        });
        let by_tier = self.dice.chance(9, 10);
        let for_own = |from: usize, account| if by_tier { (from, account) } else { (who, account) };
        let ((from, account), command) = match self.dice.below(124) {
            0..=24 => {
                let order = self.new_order(trader, instrument);
                ((trader, self.actors[trader].account), Command::Place(order))
            }
            25..=31 => {
                ((trader, self.actors[trader].account), Command::Cancel { order: self.order_ref(trader) })
            }
            32..=36 => {
                let command = Command::Replace {
                    order: self.order_ref(trader),
                    qty: Qty(self.dice.below(12)),
                    price: Price(self.dice.between(88, 112)),
                    stp: self.stp(),
                    post_only: self.dice.chance(1, 5),
                };
                ((trader, self.actors[trader].account), command)
            }
            37 => {
                let scope = MassCancelScope {
                    instrument: self.dice.chance(1, 2).then_some(instrument),
                    side: self.dice.chance(1, 2).then_some(Side::Buy),
                    session: None,
                };
                ((trader, self.actors[trader].account), Command::MassCancel(scope))
            }
            38..=54 => (for_own(tier, own), self.reserve(instrument)),
            55..=66 => self.end_a_reservation(tier),
            67..=70 => {
                let direction =
                    *self.dice.pick(&[TransferDirection::ToConsumption, TransferDirection::ToTrading]);
                ((who, own), Command::Transfer { instrument, qty: Qty(self.dice.below(12)), direction })
            }
            71..=74 => {
                let qty = Qty(self.dice.below(60));
                ((supplier, self.actors[supplier].account), Command::Issue { instrument, qty })
            }
            75..=78 => {
                let qty = Qty(self.dice.below(60));
                ((supplier, self.actors[supplier].account), Command::TransferIssuance { instrument, qty })
            }
            79..=81 => {
                let amount = Usd(match self.dice.below(20) {
                    0 => *self.dice.pick(&[0, -1, i64::MAX, i64::MIN]),
                    _ => self.dice.between(1, 30_000_000_000) as i64,
                });
                (for_own(operator, own), Command::Deposit { amount })
            }
            82 | 83 => {
                let amount = Usd(match self.dice.below(20) {
                    0 => *self.dice.pick(&[0, -1, i64::MAX, i64::MIN]),
                    _ => self.dice.between(1, 50_000_000_000) as i64,
                });
                (for_own(operator, own), Command::Withdraw { amount })
            }
            84..=88 => ((who, own), self.key_command()),
            89 | 90 => {
                let mode = *self.dice.pick(&[AccountMode::Easy, AccountMode::Advanced]);
                // Traders mostly stay what they are.
                let who = if self.dice.chance(4, 5) { self.dice.below(3) as usize } else { who };
                ((who, self.actors[who].account), Command::SetMode { mode })
            }
            91 | 92 => {
                let policy = AutoBuy {
                    enabled: self.dice.chance(3, 4),
                    quantity: Qty(self.dice.below(6)),
                    trigger_threshold: Qty(self.dice.below(4)),
                    max_slippage_bps: *self.dice.pick(&[0, 100, 1_000, 20_000]),
                    price_ceiling: Usd(*self.dice.pick(&[0, 900_000_000, 1_050_000_000])),
                };
                (for_own(operator, own), Command::SetAutoBuy(policy))
            }
            93 => {
                let status = *self.dice.pick(&[
                    InstrumentStatus::Live,
                    InstrumentStatus::Live,
                    InstrumentStatus::Halted,
                ]);
                (for_own(operator, own), Command::SetInstrumentStatus { instrument, status })
            }
            94 => (for_own(operator, own), self.define()),
            95 => {
                let capacity = Qty(*self.dice.pick(&[0, 2_000, 5_000, u64::MAX]));
                (
                    for_own(operator, self.actors[supplier].account),
                    Command::SetCapacity { instrument, capacity },
                )
            }
            96 => {
                let profile = SupplierProfile {
                    name: "n".repeat(*self.dice.pick(&[1, 64, 65])),
                    offers: vec![Offer { instrument, model: "m".into() }],
                    suspended: self.dice.chance(1, 2),
                    ..SupplierProfile::default()
                };
                (
                    for_own(operator, self.actors[supplier].account),
                    Command::RegisterSupplier(Box::new(profile)),
                )
            }
            97 => {
                let open = Command::OpenAccount {
                    name: "x".repeat(*self.dice.pick(&[1, 64, 65])),
                    mode: AccountMode::Easy,
                    capabilities: Capabilities::default(),
                };
                (for_own(operator, own), open)
            }
            99..=106 => self.money_command(operator, own),
            98 => {
                // Somebody else's business.
                let order = self.new_order(trader, instrument);
                ((who, self.actors[(who + 1) % 8].account), Command::Place(order))
            }
            118.. => ((trader, self.actors[trader].account), self.quote_command(instrument)),
            108.. => {
                let (from, account, command) =
                    self.service_command(instrument, self.actors[supplier].account);
                ((from, account), command)
            }
            _ => {
                // A tier places for an account, as the HTTP tiers do.
                let order = self.new_order(trader, instrument);
                ((tier, self.actors[trader].account), Command::Place(order))
            }
        };
        (from, account, command)
    }

    /// What has to do with the free tier, credits and reloads; those under way are mostly ended.
    fn money_command(&mut self, operator: usize, own: AccountId) -> ((usize, AccountId), Command) {
        let due: Vec<_> = self.venue.engine.state().reloads.iter().map(|(&n, &of)| (n, of)).collect();
        if !due.is_empty() && self.dice.chance(2, 3) {
            let (reload, of) = *self.dice.pick(&due);
            let of = if self.dice.chance(1, 20) { own } else { of };
            let amount = Usd(self.dice.between(1, 20) as i64 * 1_000_000_000);
            let reason = *self.dice.pick(&[ReloadFailure::Declined, ReloadFailure::Unresolved]);
            let ended = match self.dice.below(4) {
                0 => Command::ReloadFailed { reload, reason },
                _ => Command::ReloadPaid { reload, amount },
            };
            return ((operator, of), ended);
        }
        let dollars = |dice: &mut Dice, most| Usd(dice.below(most) as i64 * 500_000_000);
        let command = match self.dice.below(9) {
            0 => Command::SetAccountTerms(AccountTerms {
                free_calls_per_day: *self.dice.pick(&[0, 5, 1_000]),
                free_at_once: *self.dice.pick(&[0, 3, 100]),
                paid_per_call_at_once: Usd::dollars(*self.dice.pick(&[0, 10, 100_000])),
                sign_up_credit: dollars(&mut self.dice, 4),
                one_way: self.dice.chance(1, 4),
            }),
            1 => Command::Credit { amount: dollars(&mut self.dice, 10) },
            2 => Command::SignUpCredit,
            3 => Command::SetCreditLine { limit: dollars(&mut self.dice, 1_000) },
            4 => Command::RepayCredit { amount: dollars(&mut self.dice, 10) },
            5 => Command::SetPaymentMethod(self.dice.chance(1, 2).then(|| {
                let method = "m".repeat(*self.dice.pick(&[1, 128, 129]));
                Box::new(PaymentMethod { customer: "c".into(), method })
            })),
            _ => Command::SetAutoReload(AutoReload {
                enabled: self.dice.chance(5, 6),
                threshold: dollars(&mut self.dice, 200),
                amount: dollars(&mut self.dice, 40),
                monthly_limit: self.dice.chance(1, 2).then(|| dollars(&mut self.dice, 200)),
            }),
        };
        ((operator, own), command)
    }

    /// Mass quotes around the middle, some of them crossed or unfunded, and what protects them.
    fn quote_command(&mut self, instrument: InstrumentId) -> Command {
        if self.dice.chance(1, 8) {
            let protection = QuoteProtection {
                window: Nanos(self.dice.below(60) * SECOND),
                fills: self.dice.below(4) as u32,
                qty: Qty(self.dice.below(30)),
            };
            return Command::SetQuoteProtection(self.dice.chance(4, 5).then_some(protection));
        }
        let mut side = |from| QuoteSide {
            price: Price(self.dice.between(from, from + 9)),
            qty: Qty(self.dice.below(12)),
        };
        let entry = |quote, bid, ask| QuoteEntry { instrument, quote, bid, ask };
        let entries =
            [entry(1, side(91), side(99)), entry(2, side(89), side(101)), entry(3, side(86), side(104))];
        let entries = entries[self.dice.below(2) as usize..self.dice.between(1, 3) as usize].into();
        Command::MassQuote { entries, stp: self.stp(), post_only: self.dice.chance(1, 4) }
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

    fn new_order(&mut self, trader: usize, instrument: InstrumentId) -> NewOrder {
        // Suppliers mostly sell, and mostly rest.
        let supplies = trader >= 5;
        let side = if self.dice.chance(if supplies { 4 } else { 1 }, 5) { Side::Sell } else { Side::Buy };
        let kind = match self.dice.below(8) {
            0 => OrderKind::Market {
                max_slippage_bps: self.dice.chance(1, 2).then_some(200),
                fill_or_kill: self.dice.chance(1, 3),
            },
            _ => OrderKind::Limit {
                price: Price(match (self.dice.below(50), side) {
                    (0, _) => 0,
                    (_, Side::Buy) => self.dice.between(88, 104),
                    (_, Side::Sell) => self.dice.between(96, 112),
                }),
                tif: *self.dice.pick(&[
                    TimeInForce::Gtc,
                    TimeInForce::Gtc,
                    TimeInForce::Day,
                    TimeInForce::Day,
                    TimeInForce::Ioc,
                    TimeInForce::Fok,
                    TimeInForce::PostOnly,
                ]),
            },
        };
        NewOrder {
            instrument,
            side,
            kind,
            qty: Qty(self.dice.below(25)),
            stp: self.stp(),
            label: Label(u128::from(self.dice.below(40))),
            tag: if self.dice.chance(1, 30) { "tag".into() } else { String::new() },
            to_consumption: self.dice.chance(1, 3),
        }
    }

    fn order_ref(&mut self, trader: usize) -> OrderRef {
        let state = self.venue.engine.state();
        let open: Vec<_> =
            state.open_orders(self.actors[trader].account).map(|(_, order)| order.id).collect();
        let accepted = state.counters.order;
        match self.dice.below(10) {
            0 => OrderRef::Label(Label(u128::from(self.dice.below(40)))),
            1 => {
                let slot = self.dice.chance(1, 2).then(|| self.dice.below(150) as u32);
                OrderRef::Id(OrderId::new(self.dice.below(accepted + 2), slot))
            }
            _ if open.is_empty() => OrderRef::Id(OrderId(0)),
            _ => OrderRef::Id(*self.dice.pick(&open)),
        }
    }

    fn reserve(&mut self, instrument: InstrumentId) -> Command {
        self.requests += u128::from(self.dice.chance(9, 10));
        let tokens = Tokens(match self.dice.below(40) {
            0 => *self.dice.pick(&[0, u64::MAX, u64::MAX / 4]),
            1..=8 => self.dice.below(6_000_000),
            _ => self.dice.below(300_000),
        });
        let valid_for = Nanos(match self.dice.below(30) {
            0 => *self.dice.pick(&[0, 2 * HOUR]),
            _ => self.dice.between(1, 120) * SECOND,
        });
        // Not by dice: what else happens stays as it was.
        let key = KeyId(if self.requests % 16 == 7 { (self.requests / 16 % 8) as u32 } else { 0 });
        let surface = match self.requests % 3 {
            0 => Surface::ChatCompletions,
            1 => Surface::Messages,
            _ => Surface::Responses,
        };
        Command::Reserve { instrument, tokens, request: self.requests, valid_for, key, surface }
    }

    fn end_a_reservation(&mut self, tier: usize) -> ((usize, AccountId), Command) {
        let open: Vec<_> = self
            .venue
            .engine
            .state()
            .reservations
            .iter()
            .map(|(id, open)| (id, open.account, open.draws.clone()))
            .collect();
        let (reservation, account, draws) = if open.is_empty() || self.dice.chance(1, 30) {
            (ReservationId(self.dice.below(self.venue.seq.0)), self.actors[0].account, Vec::new())
        } else {
            self.dice.pick(&open).clone()
        };
        let account = if self.dice.chance(1, 40) { self.actors[1].account } else { account };
        // Mostly the issuer delivers; sometimes another supplier; sometimes somebody who is none.
        let supplier = match self.dice.below(12) {
            0 => self.actors[0].account,
            1..=3 => self.actors[self.dice.between(5, 7) as usize].account,
            _ => draws.first().map_or(self.actors[5].account, |draw| draw.issuer),
        };
        if self.dice.chance(1, 5) {
            return ((tier, account), Command::Release { reservation, supplier });
        }
        let reserved: u64 = draws.iter().map(|draw| draw.tokens.0).sum();
        let prompt_tokens = Tokens(self.dice.below(reserved / 2 + 1));
        let completion_tokens = Tokens(match self.dice.below(15) {
            0 => reserved,
            1 => reserved * 3,
            2 => u64::MAX,
            _ => self.dice.below(reserved / 2 + 1),
        });
        let usage = Usage {
            supplier,
            prompt_tokens,
            completion_tokens,
            ttft_us: *self.dice.pick(&[0, 300_000, 400_000, 500_000, 900_000]),
            duration_us: 2_000_000,
            estimated: self.dice.chance(1, 10),
            partial: self.dice.chance(1, 10),
            cover: if reservation.0 % 3 == 0 { Cover::Failed } else { Cover::Issuer },
            ..Usage::default()
        };
        ((tier, account), Command::Settle { reservation, usage })
    }

    fn key_command(&mut self) -> Command {
        let key = self.dice.below(u64::from(self.keys) + 1) as u8;
        let text = "t".repeat(*self.dice.pick(&[0, 64, 65]));
        match self.dice.below(4) {
            0 => {
                self.keys = self.keys.saturating_add(u8::from(self.dice.chance(1, 20)));
                Command::AddSigningKey { public_key: [key.wrapping_add(17); 32], label: text }
            }
            1 => Command::RevokeSigningKey { fingerprint: Fingerprint::of(&[key.wrapping_add(17); 32]) },
            2 => Command::AddConsumptionKey {
                hash: KeyHash([key; 32]),
                prefix: "sk-grid".into(),
                name: text,
                expires_at: None,
            },
            _ => Command::RevokeConsumptionKey { hash: KeyHash([key; 32]) },
        }
    }

    /// The terms change: fees, sweeps or delivery at fill, a window or none; sometimes to something impossible.
    fn define(&mut self) -> Command {
        let at = self.dice.below(3) as usize;
        let mut spec = self.specs[at].clone();
        spec.market.taker_fee_bps = *self.dice.pick(&[0, 5, 10, 1_000, 1_001]);
        match self.dice.below(8) {
            0 => spec.market.tick = Usd(0),
            1 => spec.market.lot = Qty(0),
            2 => spec.symbol = "Not A Symbol".into(),
            3 => spec.delivery.window = Some(Nanos(*self.dice.pick(&[0, HOUR]))),
            4 => spec.delivery.movement = Movement::Swept,
            5 => spec.delivery.movement = Movement::AtFill,
            6 => spec.market.max_price = Price(0),
            _ => {}
        }
        Command::DefineInstrument(Box::new(spec))
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn check(&mut self) {
        if let Err(violation) = self.venue.engine.check_invariants() {
            self.fail(&violation.to_string());
        }
        let events = std::mem::take(&mut self.venue.events);
        for event in &events {
            format!("{event:?}").hash(&mut self.events);
            if let Some((session, report)) = self.venue.report(event) {
                let next = self.next_report.entry(session).or_insert(1);
                let expected = *next;
                *next += 1;
                if report.number != expected {
                    self.venue.events = events.clone();
                    self.fail(&format!("report {expected} of {session:?} comes next"));
                }
                match report.body {
                    ReportBody::Reserved { bought, .. } if !bought.is_zero() => self.saw("bought"),
                    ReportBody::Quoted { .. } => self.saw("quoted"),
                    ReportBody::QuoteRefused { .. } => self.saw("quote refused"),
                    ReportBody::QuotesPulled { .. } => self.saw("quotes pulled"),
                    _ => {}
                }
            }
            match event {
                Event::Funded { amount, .. } => self.funded += i128::from(amount.0),
                Event::Credited { amount, .. } => {
                    self.funded += i128::from(amount.0);
                    self.saw("credited");
                }
                Event::ReloadDue { .. } => self.saw("reload due"),
                Event::Reloaded { amount, .. } => {
                    self.funded += i128::from(amount.0);
                    self.saw("reloaded");
                }
                Event::ReloadFailed { .. } => self.saw("reload failed"),
                Event::Traded(_) => self.saw("trade"),
                Event::Used(record) => {
                    let draws = events.iter().filter_map(|event| match event {
                        Event::Drawn { reservation, draw, .. } => Some((reservation, draw)),
                        _ => None,
                    });
                    let (drawn, cost) = draws
                        .filter(|(reservation, _)| **reservation == record.reservation)
                        .fold((0, 0), |(tokens, cost), (_, draw)| {
                            (tokens + draw.tokens.0, cost + draw.cost.0)
                        });
                    let delivered = record.usage.prompt_tokens.0 + record.usage.completion_tokens.0;
                    let adds_up = drawn == record.billed.0
                        && cost == record.cost.0
                        && delivered == record.billed.0 + record.unbilled.0;
                    if !adds_up {
                        self.venue.events = events.clone();
                        self.fail("a usage record adds up");
                    }
                    self.saw("used");
                    if record.waived == Waived::Late {
                        self.saw("late");
                    }
                }
                Event::ReservationEnded { lapsed, .. } => {
                    self.saw(if *lapsed { "lapsed" } else { "released" })
                }
                Event::LotExpired { .. } => self.saw("lot expired"),
                Event::WindowClosed(_) => self.saw("window closed"),
                Event::Charged(charge) => self.saw(match charge.reason {
                    ChargeReason::Breach => "breach",
                    ChargeReason::Cover => "cover",
                    ChargeReason::CoverPenalty => "cover penalty",
                    ChargeReason::Debt => "debt paid",
                }),
                Event::StandingChanged { breach, quality, .. } => {
                    self.saw(if *breach || *quality { "suspended" } else { "reinstated" });
                }
                Event::Issued { .. }
                    if events.iter().any(|event| {
                        matches!(event, Event::Report { report, .. }
                            if matches!(report.body, ReportBody::Reserved { .. }))
                    }) =>
                {
                    self.saw("bought from the managed supplier");
                }
                Event::Moved { movement, .. } => self.saw(match movement {
                    grid_engine::event::Moved::ToConsumption => "to consumption",
                    grid_engine::event::Moved::ToTrading => "to trading",
                    grid_engine::event::Moved::AtFill => "at fill",
                    grid_engine::event::Moved::Swept => "swept",
                    grid_engine::event::Moved::Issuance => "issuance",
                }),
                Event::OrderClosed(closed) => match closed.reason {
                    grid_engine::event::Closure::Expired => self.saw("day order expired"),
                    grid_engine::event::Closure::Cancelled
                        if !events
                            .iter()
                            .filter_map(|event| self.venue.report(event))
                            .any(|(_, told)| told.client_seq != 0) =>
                    {
                        self.saw("cancelled on disconnect");
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        self.venue.events = events;
        let state = self.venue.engine.state();
        if self.funded != state.deposited.0 - state.withdrawn.0 {
            self.fail("the dollars on the venue are those that were told of");
        }
    }

    /// Goes on with an engine that a snapshot of this one gave.
    fn restart_from_a_snapshot(&mut self) {
        let bytes = self.venue.engine.snapshot();
        let restored = Engine::restore(&bytes).unwrap_or_else(|error| self.fail(&error.to_string()));
        if restored.state() != self.venue.engine.state()
            || restored.state_hash() != self.venue.engine.state_hash()
            || restored.snapshot() != bytes
        {
            self.fail("a restored engine is the same engine");
        }
        self.venue.engine = restored;
    }

    /// A fresh engine, fed the log's bytes, ends in the same state and has said the same.
    fn replay(&self, skipped: usize) {
        let mut engine = Engine::new();
        let mut said = DefaultHasher::new();
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        for (at, (stamp, entry)) in self.venue.log.iter().flatten().enumerate() {
            bytes.clear();
            entry.encode(&mut bytes);
            let entry = Entry::decode(&bytes).unwrap_or_else(|error| self.fail(&error.to_string()));
            events.clear();
            engine.apply(Seq(at as u64 + 1), *stamp, &entry, &mut events);
            if at >= skipped {
                for event in &events {
                    format!("{event:?}").hash(&mut said);
                }
            }
        }
        if engine.state_hash() != self.venue.engine.state_hash() || said.finish() != self.events.finish() {
            self.fail("a replay ends where the original ended");
        }
    }
}
