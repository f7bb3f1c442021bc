//! Scripts that a trader can read: `tests/rules/*.txt` say what is asked, and what the whole venue then does.
//!
//! ```text
//! # prose; rules are cited as §3.4 of the contract
//! === a case, on a fresh venue
//! given account ann advanced usd 100      set up without a word
//! > ann buy 5 @ 81 as a1                  asked; under it every event of that command, indented
//!   report ann answers 1: new a1 buy @ 81, open 5, filled 0
//! ```
//!
//! `UPDATE_GOLDEN=1` writes the events anew; look at the difference before you keep it. Words: see `Stage::run`.
//! Invariants are checked after every line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use grid_engine::command::{
    AccountMode, AutoBuy, Capabilities, Command, Cover, Entry, MassCancelScope, NewOrder, OrderKind,
    OrderRef, QuoteEntry, QuoteProtection, QuoteSide, SelfTrade, Side, SupplierProfile, Surface, TimeInForce,
    TransferDirection, Usage,
};
use grid_engine::event::{Event, Exec, LevelUpdate, OrderReport, Report, ReportBody};
use grid_engine::funding::{AccountTerms, AutoReload, PaymentMethod, ReloadFailure};
use grid_engine::instrument::{InstrumentSpec, InstrumentStatus, Movement};
use grid_engine::sla::Waived;
use grid_engine::{
    AccountId, Fingerprint, InstrumentId, KeyHash, KeyId, Label, Nanos, OrderId, Price, Qty, ReservationId,
    SECOND, SessionId, Tokens, Usd,
};

use crate::venue::{Actor, START, Venue, key_of, spec};

mod service;

#[test]
fn every_rule_script_tells_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    #[expect(clippy::disallowed_methods, reason = "configuration of a test, not of the engine")]
    let update = std::env::var("UPDATE_GOLDEN").is_ok();
    let mut scripts: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() > 5, "the scripts are here");
    for script in scripts {
        let expected = fs::read_to_string(&script).unwrap();
        let found = play(&script.display().to_string(), &expected);
        if update {
            write(&script, &found);
            continue;
        }
        for (at, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
            assert_eq!(expected, found, "{} line {}", script.display(), at + 1);
        }
        assert_eq!(expected.lines().count(), found.lines().count(), "{}", script.display());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a golden file is written on purpose; the engine touches no disk"
)]
fn write(script: &Path, text: &str) {
    fs::write(script, text).unwrap();
}

/// The script with what really happens in it.
fn play(file: &str, script: &str) -> String {
    let mut out = String::new();
    let mut stage = Stage::new();
    for (at, line) in script.lines().enumerate() {
        if line.starts_with("  ") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        stage.place = format!("{file} line {}: {line}", at + 1);
        if line.starts_with("===") {
            stage = Stage { place: stage.place, ..Stage::new() };
        } else if let Some(words) = line.strip_prefix("given ") {
            stage.run(words);
            stage.must_succeed();
        } else if let Some(words) = line.strip_prefix("> ") {
            for told in stage.run(words) {
                writeln!(out, "  {told}").unwrap();
            }
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "not understood: {}", stage.place);
        }
        if let Err(violation) = stage.venue.engine.check_invariants() {
            panic!("{}: {violation}", stage.place);
        }
    }
    out
}

/// A venue and the names that a script gives to things on it.
struct Stage {
    place: String,
    venue: Venue,
    actors: BTreeMap<String, Actor>,
    orders: BTreeMap<String, OrderId>,
    reservations: BTreeMap<String, ReservationId>,
    instruments: Vec<String>,
    /// The one that commands mean.
    instrument: InstrumentId,
    requests: u128,
}

/// The words of a line, taken from the front.
struct Words<'a> {
    left: Vec<&'a str>,
    place: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        assert!(!self.left.is_empty(), "a word is missing: {}", self.place);
        self.left.remove(0)
    }

    fn number(&mut self) -> u64 {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("{word} is a number: {}", self.place))
    }

    fn usd(&mut self) -> Usd {
        usd(self.next())
    }

    /// Takes `word` from anywhere in the line.
    fn flag(&mut self, word: &str) -> bool {
        let found = self.left.iter().position(|&left| left == word);
        found.map(|at| self.left.remove(at)).is_some()
    }

    /// Takes `word` and the value after it from anywhere in the line.
    fn option(&mut self, word: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|&left| left == word)?;
        self.left.remove(at);
        Some(self.left.remove(at))
    }

    fn number_option(&mut self, word: &str) -> Option<u64> {
        self.option(word).map(|value| value.parse().unwrap_or_else(|_| panic!("{value}: {}", self.place)))
    }

    fn end(&self) {
        assert!(self.left.is_empty(), "{:?} not understood: {}", self.left, self.place);
    }
}

/// Decimal dollars.
fn usd(word: &str) -> Usd {
    let (sign, word) = word.strip_prefix('-').map_or((1, word), |rest| (-1, rest));
    let (whole, part) = word.split_once('.').unwrap_or((word, ""));
    let nanos: i64 = format!("{part:0<9}").parse().unwrap();
    Usd(sign * (whole.parse::<i64>().unwrap() * 1_000_000_000 + nanos))
}

/// `90s`, `30m`, `4h`, `100ns`.
fn span(word: &str) -> Nanos {
    let at = word.find(|c: char| !c.is_ascii_digit()).unwrap();
    let unit = match &word[at..] {
        "ns" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        other => panic!("{other} is no unit of time"),
    };
    Nanos(word[..at].parse::<u64>().unwrap() * unit)
}

fn mode(word: &str) -> AccountMode {
    match word {
        "easy" => AccountMode::Easy,
        "advanced" => AccountMode::Advanced,
        other => panic!("{other} is no mode"),
    }
}

fn stp(word: Option<&str>) -> SelfTrade {
    match word {
        None => SelfTrade::Allow,
        Some("incoming") => SelfTrade::CancelIncoming,
        Some("resting") => SelfTrade::CancelResting,
        Some("both") => SelfTrade::CancelBoth,
        Some("decrement") => SelfTrade::Decrement,
        Some(other) => panic!("{other} is no self-trade prevention"),
    }
}

impl Stage {
    fn new() -> Self {
        let mut venue = Venue::open();
        venue.log = None;
        let instrument = venue.define(spec("text-prime"));
        let actors = BTreeMap::from([("operator".to_owned(), venue.operator)]);
        Self {
            place: String::new(),
            venue,
            actors,
            orders: BTreeMap::new(),
            reservations: BTreeMap::new(),
            instruments: vec!["text-prime".into()],
            instrument,
            requests: 0,
        }
    }

    /// Runs one line and tells what happened.
    fn run(&mut self, line: &str) -> Vec<String> {
        let place = self.place.clone();
        let mut words = Words { left: line.split_whitespace().collect(), place: &place };
        self.venue.events.clear();
        match words.next() {
            // account NAME MODE [tier] [usd AMOUNT] [units QTY] — with units the account is a supplier that has
            // issued them; capacity is then twice that, or `capacity QTY`.
            "account" => self.open_account(&mut words),
            // instrument SYMBOL [tick USD] [lot QTY] [min QTY] [max QTY] [max_price TICKS] [maker_fee BPS]
            // [taker_fee BPS] [window SPAN] [swept] [halted] [ceiling MS] [floor TOKENS_PER_SECOND] [score N] — defines it, or changes it, and means it from now on.
            "instrument" => self.define(&mut words),
            // wait SPAN — and then a tick.
            "wait" => {
                self.venue.now = self.venue.now.after(span(words.next()));
                self.venue.apply(Entry::venue(Command::Tick));
            }
            // lost NAME — the connection of its session.
            "lost" => {
                let session = self.actors[words.next()].session;
                let connection = self.venue.engine.state().sessions[&session].connection.unwrap_or(0);
                self.venue.apply(Entry::venue(Command::SessionLost { session, connection }));
            }
            // connect NAME [grace SPAN] — a new connection takes its session over.
            "connect" => {
                let actor = self.actors[words.next()];
                let state = self.venue.engine.state();
                let connection = state.sessions[&actor.session].connection.unwrap_or(1) + 1;
                self.venue.apply(Entry::venue(Command::Establish {
                    session: actor.session,
                    key: Fingerprint::of(&key_of(actor.account)),
                    cancel_on_disconnect: words.option("grace").map(span),
                    connection,
                }));
            }
            // show NAME | show book | show service NAME — the state.
            "show" => {
                let told = match words.next() {
                    "book" => self.tell_book(),
                    "service" => self.tell_service(words.next()),
                    name => self.tell_account(name),
                };
                words.end();
                return told;
            }
            who => self.run_actor(who, &mut words),
        }
        words.end();
        // What the market hears of levels comes last, whichever events tell it.
        let told = self.venue.events.iter().filter(|event| !matches!(event, Event::Level { .. }));
        let levels = self.venue.events.iter().flat_map(Event::levels);
        told.flat_map(|event| self.tell_all(event))
            .chain(levels.map(|(of, level)| self.tell_level(of, &level)))
            .collect()
    }

    fn must_succeed(&self) {
        for (_, report) in self.venue.reports() {
            if let ReportBody::Rejected { reject, .. } | ReportBody::QuoteRefused { reject, .. } = report.body
            {
                panic!("{}: {reject}", self.place);
            }
        }
    }

    fn open_account(&mut self, words: &mut Words<'_>) {
        let (name, mode) = (words.next(), mode(words.next()));
        let capabilities = Capabilities { tier: words.flag("tier"), operator: false };
        let actor = self.venue.join(name, mode, capabilities);
        self.actors.insert(name.into(), actor);
        if let Some(amount) = words.option("usd") {
            self.venue.deposit(actor.account, usd(amount));
        }
        let units = words.number_option("units");
        if let Some(capacity) = words.number_option("capacity").or(units.map(|units| units * 2)) {
            self.venue.supply(actor.account, self.instrument, Qty(capacity));
        }
        if let Some(units) = units {
            self.venue.stock(actor.account, self.instrument, Qty(units));
        }
    }

    fn spec(words: &mut Words<'_>) -> InstrumentSpec {
        let mut spec = spec(words.next());
        let market = &mut spec.market;
        if let Some(tick) = words.option("tick") {
            market.tick = usd(tick);
        }
        market.lot = Qty(words.number_option("lot").unwrap_or(market.lot.0));
        market.min_qty = Qty(words.number_option("min").unwrap_or(market.min_qty.0));
        market.max_qty = Qty(words.number_option("max").unwrap_or(market.max_qty.0));
        market.max_price = Price(words.number_option("max_price").unwrap_or(market.max_price.0));
        market.maker_fee_bps = words.number_option("maker_fee").unwrap_or(0) as u16;
        market.taker_fee_bps = words.number_option("taker_fee").unwrap_or(0) as u16;
        spec.delivery.window = words.option("window").map(span);
        let quality = &mut spec.quality;
        quality.ttft_ceiling_ms = words.number_option("ceiling").unwrap_or(0) as u32;
        quality.tokens_per_second_floor = words.number_option("floor").unwrap_or(0) as u32;
        quality.score_floor = words.number_option("score").unwrap_or(0) as u32;
        if words.flag("swept") {
            spec.delivery.movement = Movement::Swept;
        }
        if words.flag("halted") {
            spec.status = InstrumentStatus::Halted;
        }
        spec
    }

    fn define(&mut self, words: &mut Words<'_>) {
        let spec = Self::spec(words);
        let symbol = spec.symbol.clone();
        self.instrument = self.venue.define(spec);
        if usize::from(self.instrument.0) == self.instruments.len() {
            self.instruments.push(symbol);
        }
    }

    /// `WHO[:FOR][@NUMBER] DOING ...`: through the session of WHO, for the account of FOR, under NUMBER instead of the
    /// next one.
    fn run_actor(&mut self, who: &str, words: &mut Words<'_>) {
        let (who, number) = who.split_once('@').map_or((who, None), |(who, number)| (who, Some(number)));
        let (who, subject) = who.split_once(':').unwrap_or((who, who));
        let mut actor = if who == "operator" {
            self.venue.operator
        } else {
            *self.actors.get(who).unwrap_or_else(|| panic!("nobody is called {who}: {}", self.place))
        };
        let account = match subject.strip_prefix('#') {
            Some(number) => AccountId(number.parse().unwrap()),
            None => self.actors[subject].account,
        };
        if let Some(instrument) = words.option("in") {
            let known = self.instruments.iter().position(|symbol| symbol == instrument);
            self.instrument = InstrumentId(known.unwrap_or(99) as u16);
        }
        let name = words.option("as").map(str::to_owned);
        let command = self.command(account, words);
        let reserves = matches!(command, Command::Reserve { .. });
        if let Some(number) = number {
            let client_seq = number.parse().unwrap();
            self.venue.apply(Entry { session: actor.session, client_seq, account, command });
        } else {
            self.venue.send(&mut actor, account, command);
            if who == "operator" {
                self.venue.operator = actor;
            }
            self.actors.insert(who.into(), actor);
        }
        self.name_quotes(who, actor.session);
        let refused = |(session, report): (SessionId, Report)| {
            session == actor.session
                && report.client_seq != 0
                && matches!(report.body, ReportBody::Rejected { .. })
        };
        if let Some(name) = name
            && number.is_none()
            && !self.venue.reports().any(refused)
        {
            if reserves {
                let reserved = self.venue.reports().find_map(|(_, report)| match report.body {
                    ReportBody::Reserved { reservation, .. } => Some(reservation),
                    _ => None,
                });
                self.reservations.insert(name, reserved.expect("what is not refused is reserved"));
            } else {
                let opened = self.venue.events.iter().find_map(|event| match event {
                    Event::OrderOpened(opened) => Some(opened.order.id),
                    _ => None,
                });
                self.orders.insert(name, opened.expect("only orders and reservations have names"));
            }
        }
    }

    /// What stands for quote 1 of bob is called `bob-1-bid` and `bob-1-ask`.
    fn name_quotes(&mut self, who: &str, session: SessionId) {
        let state = self.venue.engine.state();
        for quote in state.sessions.get(&session).into_iter().flat_map(|session| session.quotes.iter()) {
            for (side, order) in [("bid", quote.bid), ("ask", quote.ask)] {
                self.orders
                    .insert(format!("{who}-{}-{side}{}", quote.number, self.of(quote.instrument)), order);
            }
        }
    }

    fn command(&mut self, subject: AccountId, words: &mut Words<'_>) -> Command {
        let instrument = self.instrument;
        match words.next() {
            // buy|sell QTY @ TICKS | buy|sell QTY market; then
            // [ioc|fok|day|post_only] [slippage BPS] [stp WHICH] [label N] [tag TEXT] [to_consumption]
            "buy" => Command::Place(self.order(Side::Buy, words)),
            "sell" => Command::Place(self.order(Side::Sell, words)),
            "cancel" => Command::Cancel { order: self.order_ref(words.next()) },
            "replace" => {
                let order = self.order_ref(words.next());
                let qty = Qty(words.number());
                let price = Price(words.number_option("@").unwrap());
                let post_only = words.flag("post_only");
                Command::Replace { order, qty, price, stp: stp(words.option("stp")), post_only }
            }
            // mass_cancel [here] [buys|sells] [session]
            "mass_cancel" => {
                let here = words.flag("here").then_some(instrument);
                let (buys, sells) = (words.flag("buys"), words.flag("sells"));
                let side = if buys { Some(Side::Buy) } else { sells.then_some(Side::Sell) };
                let session = words.option("session").map(|name| self.actors[name].session);
                Command::MassCancel(MassCancelScope { instrument: here, side, session })
            }
            // quote NUMBER BID/ASK ... [stp WHICH] [post_only], each side QTY@TICKS or `-`; a number of another market as
            // NUMBER:SYMBOL.
            "quote" => {
                let post_only = words.flag("post_only");
                let stp = stp(words.option("stp"));
                let mut entries = Vec::new();
                while !words.left.is_empty() {
                    entries.push(self.quote(words));
                }
                Command::MassQuote { entries: entries.into(), stp, post_only }
            }
            // protect off | protect SPAN [fills N] [units QTY]
            "protect" => match words.next() {
                "off" => Command::SetQuoteProtection(None),
                window => Command::SetQuoteProtection(Some(QuoteProtection {
                    window: span(window),
                    fills: words.number_option("fills").unwrap_or(0) as u32,
                    qty: Qty(words.number_option("units").unwrap_or(0)),
                })),
            },
            "to_consumption" => {
                let qty = Qty(words.number());
                Command::Transfer { instrument, qty, direction: TransferDirection::ToConsumption }
            }
            "to_trading" => {
                let qty = Qty(words.number());
                Command::Transfer { instrument, qty, direction: TransferDirection::ToTrading }
            }
            // reserve TOKENS [for SPAN] [request N] as NAME
            "reserve" => {
                self.requests += 1;
                let tokens = Tokens(words.number());
                let valid_for = words.option("for").map_or(Nanos(60 * SECOND), span);
                let request = words.number_option("request").map_or(self.requests, u128::from);
                let (key, surface) = (KeyId::NONE, Surface::ChatCompletions);
                Command::Reserve { instrument, tokens, request, valid_for, key, surface }
            }
            // settle NAME by SUPPLIER PROMPT COMPLETION [ttft MS] [took MS] [partial] [lied] [cover failed|unable]
            "settle" => {
                let reservation = self.reservation(words.next());
                let supplier = self.actors[words.option("by").unwrap()].account;
                let usage = Usage {
                    supplier,
                    prompt_tokens: Tokens(words.number()),
                    completion_tokens: Tokens(words.number()),
                    ttft_us: words.number_option("ttft").map_or(300_000, |ms| ms as u32 * 1_000),
                    duration_us: words.number_option("took").map_or(1_500_000, |ms| ms as u32 * 1_000),
                    partial: words.flag("partial"),
                    distrusted: words.flag("lied"),
                    cover: match words.option("cover") {
                        None => Cover::Issuer,
                        Some("failed") => Cover::Failed,
                        Some("unable") => Cover::Unable,
                        Some(other) => panic!("{other} is no cover"),
                    },
                    ..Usage::default()
                };
                Command::Settle { reservation, usage }
            }
            // release NAME by SUPPLIER
            "release" => {
                let reservation = self.reservation(words.next());
                let supplier = self.actors[words.option("by").unwrap()].account;
                Command::Release { reservation, supplier }
            }
            "issue" => Command::Issue { instrument, qty: Qty(words.number()) },
            "list" => Command::TransferIssuance { instrument, qty: Qty(words.number()) },
            "mode" => Command::SetMode { mode: mode(words.next()) },
            "add_signing_key" => {
                Command::AddSigningKey { public_key: [words.number() as u8; 32], label: words.next().into() }
            }
            "revoke_signing_key" => {
                Command::RevokeSigningKey { fingerprint: Fingerprint::of(&[words.number() as u8; 32]) }
            }
            "add_key" => Command::AddConsumptionKey {
                hash: KeyHash::of(words.next()),
                prefix: "sk-grid-".into(),
                name: "default".into(),
                expires_at: None,
            },
            "revoke_key" => Command::RevokeConsumptionKey { hash: KeyHash::of(words.next()) },
            "deposit" => Command::Deposit { amount: words.usd() },
            "withdraw" => Command::Withdraw { amount: words.usd() },
            "credit" => Command::Credit { amount: words.usd() },
            "sign_up" => Command::SignUpCredit,
            // terms [calls N] [at_once N] [per USD] [credit USD] [one_way]
            "terms" => Command::SetAccountTerms(AccountTerms {
                free_calls_per_day: words.number_option("calls").unwrap_or(0) as u32,
                free_at_once: words.number_option("at_once").unwrap_or(0) as u32,
                paid_per_call_at_once: words.option("per").map_or(Usd::ZERO, usd),
                sign_up_credit: words.option("credit").map_or(Usd::ZERO, usd),
                one_way: words.flag("one_way"),
            }),
            // reload on|off [below USD] [by USD] [monthly USD]
            "reload" => Command::SetAutoReload(AutoReload {
                enabled: words.next() == "on",
                threshold: words.option("below").map_or(Usd::ZERO, usd),
                amount: words.option("by").map_or(Usd::ZERO, usd),
                monthly_limit: words.option("monthly").map(usd),
            }),
            // card CUSTOMER METHOD | no_card
            "card" => Command::SetPaymentMethod(Some(Box::new(PaymentMethod {
                customer: words.next().into(),
                method: words.next().into(),
            }))),
            "no_card" => Command::SetPaymentMethod(None),
            "credit_line" => Command::SetCreditLine { limit: words.usd() },
            "repay" => Command::RepayCredit { amount: words.usd() },
            "paid" => Command::ReloadPaid { reload: words.number(), amount: words.usd() },
            "declined" => Command::ReloadFailed { reload: words.number(), reason: ReloadFailure::Declined },
            // auto_buy on|off [quantity QTY] [threshold QTY] [slippage BPS] [ceiling USD]
            "auto_buy" => {
                let plain = AutoBuy::default();
                Command::SetAutoBuy(AutoBuy {
                    enabled: words.next() == "on",
                    quantity: words.number_option("quantity").map_or(plain.quantity, Qty),
                    trigger_threshold: words.number_option("threshold").map_or(plain.trigger_threshold, Qty),
                    max_slippage_bps: words
                        .number_option("slippage")
                        .map_or(plain.max_slippage_bps, |n| n as u16),
                    price_ceiling: words.option("ceiling").map_or(Usd::ZERO, usd),
                })
            }
            "define" => Command::DefineInstrument(Box::new(Self::spec(words))),
            "status" => {
                let status = match words.next() {
                    "live" => InstrumentStatus::Live,
                    "halted" => InstrumentStatus::Halted,
                    "preview" => InstrumentStatus::Preview,
                    other => panic!("{other} is no status"),
                };
                Command::SetInstrumentStatus { instrument, status }
            }
            // supplier [suspended]
            "supplier" => {
                let suspended = words.flag("suspended");
                Command::RegisterSupplier(Box::new(SupplierProfile {
                    suspended,
                    ..SupplierProfile::default()
                }))
            }
            "capacity" => Command::SetCapacity { instrument, capacity: Qty(words.number()) },
            "open_account" => Command::OpenAccount {
                name: words.next().into(),
                mode: AccountMode::Easy,
                capabilities: Capabilities::default(),
            },
            "tick" => Command::Tick,
            other => {
                let command = self.service_command(other, subject, words);
                command.unwrap_or_else(|| panic!("{other} is nothing one can do: {}", self.place))
            }
        }
    }

    fn order(&self, side: Side, words: &mut Words<'_>) -> NewOrder {
        let qty = Qty(words.number());
        let kind = if words.flag("market") {
            OrderKind::Market {
                max_slippage_bps: words.number_option("slippage").map(|bps| bps as u16),
                fill_or_kill: words.flag("fok"),
            }
        } else {
            let price = Price(words.number_option("@").unwrap_or_else(|| panic!("a price: {}", self.place)));
            let table = [
                ("ioc", TimeInForce::Ioc),
                ("fok", TimeInForce::Fok),
                ("day", TimeInForce::Day),
                ("post_only", TimeInForce::PostOnly),
            ];
            let tif =
                table.into_iter().find(|(word, _)| words.flag(word)).map_or(TimeInForce::Gtc, |(_, tif)| tif);
            OrderKind::Limit { price, tif }
        };
        NewOrder {
            instrument: self.instrument,
            side,
            kind,
            qty,
            stp: stp(words.option("stp")),
            label: Label(words.number_option("label").map_or(0, u128::from)),
            tag: words.option("tag").unwrap_or_default().into(),
            to_consumption: words.flag("to_consumption"),
        }
    }

    /// A name, or `label:N`, or `#ID`.
    fn order_ref(&self, word: &str) -> OrderRef {
        if let Some(label) = word.strip_prefix("label:") {
            return OrderRef::Label(Label(label.parse().unwrap()));
        }
        match word.strip_prefix('#') {
            Some(id) => OrderRef::Id(OrderId(id.parse().unwrap())),
            None => OrderRef::Id(self.orders[word]),
        }
    }

    fn reservation(&self, word: &str) -> ReservationId {
        match word.strip_prefix('#') {
            Some(id) => ReservationId(id.parse().unwrap()),
            None => self.reservations[word],
        }
    }

    // -- telling ----------------------------------------------------------------------------------------------

    fn who(&self, account: AccountId) -> String {
        if account == AccountId::VENUE {
            return "the venue".into();
        }
        let found = self.actors.iter().find(|(_, actor)| actor.account == account);
        found.map_or_else(|| format!("#{}", account.0), |(name, _)| name.clone())
    }

    fn whose(&self, session: SessionId) -> String {
        let found = self.actors.iter().find(|(_, actor)| actor.session == session);
        found.map_or_else(|| format!("session {}", session.0), |(name, _)| name.clone())
    }

    fn name(&self, order: OrderId) -> String {
        if order == OrderId::default() {
            return "no order".into();
        }
        let found = self.orders.iter().find(|(_, id)| **id == order);
        found.map_or_else(|| "an unnamed order".into(), |(name, _)| name.clone())
    }

    fn called(&self, reservation: ReservationId) -> String {
        let found = self.reservations.iter().find(|(_, id)| **id == reservation);
        found.map_or_else(|| "an unnamed reservation".into(), |(name, _)| name.clone())
    }

    /// ` of SYMBOL`, where it is not the first one.
    fn of(&self, instrument: InstrumentId) -> String {
        if instrument == InstrumentId(0) {
            return String::new();
        }
        format!(" of {}", self.instruments.get(usize::from(instrument.0)).map_or("nowhere", String::as_str))
    }

    fn when(at: Nanos) -> String {
        let midnight = START.0 - 10 * 3_600 * SECOND;
        let seconds = (at.0 - midnight) / SECOND;
        let (day, rest) = (seconds / 86_400, seconds % 86_400);
        let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
        if day == 0 { clock } else { format!("{clock} on day {}", day + 1) }
    }

    fn tell_level(&self, instrument: InstrumentId, level: &LevelUpdate) -> String {
        let (which, price, of) = (side(level.side), level.price.0, self.of(instrument));
        match level.qty.0 {
            0 => format!("level {which} {price}{of}: gone"),
            qty => format!("level {which} {price}{of}: {qty} in {}", level.orders),
        }
    }

    /// What happened, and then what a session was told of it.
    fn tell_all(&self, event: &Event) -> impl Iterator<Item = String> {
        let happened = match event {
            Event::Report { .. } => None,
            event => Some(self.tell(event)),
        };
        let told = self.venue.report(event).map(|(session, report)| {
            let answers = match report.client_seq {
                0 => String::new(),
                number => format!(" answers {number}"),
            };
            format!("report {}{answers}: {}", self.whose(session), self.tell_report(&report))
        });
        happened.into_iter().chain(told)
    }

    fn tell(&self, event: &Event) -> String {
        match event {
            Event::Level { instrument, level } => self.tell_level(*instrument, level),
            Event::Report { report, .. } => self.tell_report(report),
            Event::Repeated { session, client_seq, report } => {
                let was = report.as_ref().map_or_else(|| "nothing".into(), |report| self.tell_report(report));
                format!("repeated {} {client_seq}: was answered {was}", self.whose(*session))
            }
            Event::SessionOpened { session, result } => format!("session {} opened: {result:?}", session.0),
            Event::SessionEstablished { session, connection, result } => match result {
                Ok(position) => format!(
                    "connected {} as connection {connection}: last command {}, next report {}",
                    self.whose(*session),
                    position.last_client_seq,
                    position.next_report
                ),
                Err(reject) => format!("not connected {}: {reject}", self.whose(*session)),
            },
            Event::OrderOpened(opened) => {
                let order = &opened.order;
                let price = match order.price() {
                    Price::ZERO => "at market".into(),
                    price => format!("@ {}", price.0),
                };
                format!(
                    "opened {} of {}: {} {} {price} {}{}",
                    self.name(order.id),
                    self.who(order.account),
                    side(order.side),
                    order.remaining().0,
                    tif(opened.tif),
                    self.of(order.instrument)
                )
            }
            Event::OrderReplaced(replaced) => {
                let order = &replaced.order;
                format!("replaced {}: {} @ {}", self.name(order.id), order.remaining().0, order.price().0)
            }
            Event::Traded(trade) => {
                let fees = match (trade.taker_fee, trade.maker_fee) {
                    (Usd::ZERO, Usd::ZERO) => String::new(),
                    (taker, maker) => format!(", fees: taker ${taker}, maker ${maker}"),
                };
                format!(
                    "trade {}: {} of {} {} {} from {} of {} @ {} = ${}{fees}",
                    trade.trade.0,
                    self.name(trade.taker_order),
                    self.who(trade.taker),
                    if trade.aggressor == Side::Buy { "buys" } else { "sells" },
                    trade.qty.0,
                    self.name(trade.maker_order),
                    self.who(trade.maker),
                    trade.price.0,
                    trade.value
                )
                .replace(" from ", if trade.aggressor == Side::Buy { " from " } else { " to " })
            }
            Event::OrderClosed(closed) => format!(
                "closed {}: {:?}, filled {}, left {}",
                self.name(closed.order.id),
                closed.reason,
                closed.order.filled().0,
                closed.unfilled().0
            ),
            Event::DirectoryChanged => "directory changed".into(),
            Event::OffersChanged { supplier, models } => {
                format!("{} offers {} models", self.who(*supplier), models.len())
            }
            Event::Funded { account, amount } => format!("funded {}: ${amount}", self.who(*account)),
            Event::Moved { account, instrument, qty, movement, transfer } => format!(
                "moved {} of {}{}: {movement:?}, transfer {transfer}",
                qty.0,
                self.who(*account),
                self.of(*instrument)
            ),
            Event::Issued { account, instrument, qty, issuance } => {
                format!(
                    "issued {} by {}{}: issuance {issuance}",
                    qty.0,
                    self.who(*account),
                    self.of(*instrument)
                )
            }
            Event::Used(record) => {
                format!(
                    "used {} by {}: {} prompt + {} completion from {}, billed {}, unbilled {}, cost ${}{}",
                    self.called(record.reservation),
                    self.who(record.account),
                    record.usage.prompt_tokens.0,
                    record.usage.completion_tokens.0,
                    self.who(record.usage.supplier),
                    record.billed.0,
                    record.unbilled.0,
                    record.cost,
                    match record.waived {
                        Waived::No => "",
                        Waived::Late => ", free: late",
                        Waived::Slow => ", free: slow",
                    }
                )
            }
            Event::Drawn { reservation, draw, .. } => {
                let from = format!("lot {} of {} trade {}", draw.lot.0, self.who(draw.issuer), draw.trade.0);
                let drew = self.called(*reservation);
                format!("{drew} drew {} of {from} = ${}", draw.tokens.0, draw.cost)
            }
            Event::ReservationEnded { reservation, account, lapsed, .. } => format!(
                "reservation {} of {} {}",
                self.called(*reservation),
                self.who(*account),
                if *lapsed { "lapsed" } else { "released" }
            ),
            Event::LotExpired { lot, account, tokens, .. } => {
                format!("lot {} of {} expired with {} tokens", lot.0, self.who(*account), tokens.0)
            }
            Event::Credited { account, amount } => format!("credited {}: ${amount}", self.who(*account)),
            Event::ReloadDue { account, reload, amount } => {
                format!("reload {reload} of {} is due: ${amount}", self.who(*account))
            }
            Event::Reloaded { account, reload, amount } => {
                format!("reload {reload} of {} paid: ${amount}", self.who(*account))
            }
            Event::ReloadFailed { account, reload, reason } => {
                format!("reload {reload} of {} failed: {reason}", self.who(*account))
            }
            Event::Charged(charge) => self.tell_charge(charge),
            Event::WindowClosed(closed) => self.tell_window(closed),
            Event::StandingChanged { supplier, instrument, breach, quality } => {
                let mut told = format!("standing of {}{}:", self.who(*supplier), self.of(*instrument));
                for (word, holds) in [
                    (" suspended, breach", *breach),
                    (" suspended, quality", *quality),
                    (" active", !breach && !quality),
                ] {
                    if holds {
                        told.push_str(word);
                    }
                }
                told
            }
        }
    }

    fn tell_report(&self, report: &Report) -> String {
        match &report.body {
            ReportBody::Order(order) => self.tell_order_report(order),
            ReportBody::Rejected { reject, order, .. } if order.0 == 0 => format!("rejected, {reject}"),
            ReportBody::Rejected { reject, order, .. } => {
                format!("rejected, {reject} ({})", self.name(*order))
            }
            ReportBody::MassCancelled { count } => format!("mass cancelled {count}"),
            ReportBody::Quoted { accepted, refused: 0 } => format!("quoted {accepted}"),
            ReportBody::Quoted { accepted, refused } => format!("quoted {accepted}, refused {refused}"),
            ReportBody::QuoteRefused { instrument, quote, side: of, reject } => {
                format!("quote {quote}{} {} refused, {reject}", self.of(*instrument), side(*of))
            }
            ReportBody::QuotesPulled { count } => format!("quotes pulled, {count} orders"),
            ReportBody::Reserved { reservation, tokens, bought, spent, issuers } => {
                let issuers: Vec<_> = issuers.iter().map(|&issuer| self.who(issuer)).collect();
                let bought = match bought.0 {
                    0 => String::new(),
                    qty => format!(", bought {qty} for ${spent}"),
                };
                format!(
                    "reserved {} {}{bought}, issued by {}",
                    self.called(*reservation),
                    tokens.0,
                    issuers.join(", ")
                )
            }
            ReportBody::Settled { reservation, billed, unbilled, cost } => format!(
                "settled {}: billed {}, unbilled {}, cost ${cost}",
                self.called(*reservation),
                billed.0,
                unbilled.0
            ),
            ReportBody::Done { created: 0 } => "done".into(),
            ReportBody::Done { created } => format!("done, made {created}"),
        }
    }

    /// `NUMBER[:SYMBOL] BID/ASK`.
    fn quote(&self, words: &mut Words<'_>) -> QuoteEntry {
        let name = words.next();
        let (number, symbol) = name.split_once(':').map_or((name, None), |(number, of)| (number, Some(of)));
        let instrument = symbol.map_or(self.instrument, |symbol| {
            let known = self.instruments.iter().position(|known| known == symbol);
            InstrumentId(known.unwrap_or(99) as u16)
        });
        let side = |text: &str| match text.split_once('@') {
            None => QuoteSide::default(),
            Some((qty, price)) => {
                QuoteSide { price: Price(price.parse().unwrap()), qty: Qty(qty.parse().unwrap()) }
            }
        };
        let (bid, ask) = words.next().split_once('/').expect("a bid and an ask");
        QuoteEntry { instrument, quote: number.parse().unwrap(), bid: side(bid), ask: side(ask) }
    }

    fn tell_order_report(&self, report: &OrderReport) -> String {
        let what = match report.exec() {
            Exec::New => "new".into(),
            Exec::Replaced => "replaced".into(),
            Exec::Trade { qty, price, aggressor, .. } => {
                format!("{} {} @ {},", if aggressor { "took" } else { "gave" }, qty.0, price.0)
            }
            Exec::Closed(reason) => format!("closed {reason:?},"),
        };
        let price = if report.price() == Price::ZERO {
            "at market".into()
        } else {
            format!("@ {}", report.price().0)
        };
        format!(
            "{what} {} {} {price}, open {}, filled {}{}",
            self.name(report.order),
            side(report.side),
            report.remaining().0,
            report.filled().0,
            match report.quote {
                0 => String::new(),
                quote => format!(", quote {quote}"),
            }
        )
    }

    fn tell_book(&self) -> Vec<String> {
        let book = self.venue.engine.state().book(self.instrument).unwrap();
        let mut told = Vec::new();
        for which in [Side::Sell, Side::Buy] {
            let mut levels: Vec<_> = book.levels(which).collect();
            if which == Side::Sell {
                levels.reverse();
            }
            for level in levels {
                let queue: Vec<_> = book
                    .orders_at(level)
                    .map(|order| format!("{} {}", self.name(order.id), order.remaining.0))
                    .collect();
                told.push(format!("{} {}: {}", side(which), level.price.0, queue.join(", ")));
            }
        }
        if told.is_empty() {
            told.push("empty".into());
        }
        told
    }

    fn tell_account(&self, name: &str) -> Vec<String> {
        let state = self.venue.engine.state();
        let id = if name == "venue" { AccountId::VENUE } else { self.actors[name].account };
        let account = &state.accounts[id.0 as usize];
        let mut told = vec![format!("dollars: {} free, {} held", account.usd_available, account.usd_held)];
        for (instrument, holding) in state.holdings.of(id) {
            let mut line = format!(
                "Units{}: {} free, {} held",
                self.of(instrument),
                holding.available.0,
                holding.held.0
            );
            if !holding.issuance.is_zero() {
                write!(line, ", {} issued and not listed", holding.issuance.0).unwrap();
            }
            told.push(line);
            for tranche in &holding.tranches {
                told.push(format!(
                    "  {} issued by {}, trade {}, cost ${}, escrow ${}",
                    tranche.qty.0,
                    self.who(tranche.issuer),
                    tranche.trade.0,
                    tranche.cost,
                    tranche.escrow
                ));
            }
            for lot in holding.lots() {
                let until =
                    lot.expires_at.map_or_else(String::new, |at| format!(" until {}", Self::when(at)));
                told.push(format!(
                    "  lot {} of {}: {} free, {} reserved, {} drawn{until}, cost ${}, escrow ${}",
                    lot.id.0,
                    self.who(lot.issuer),
                    lot.free.0,
                    lot.reserved.0,
                    lot.drawn.0,
                    lot.cost,
                    lot.escrow
                ));
            }
        }
        for (instrument, supply) in state.supplies.of(id) {
            told.push(format!(
                "owes{}: {} of {} capacity; escrow ${}, earned ${}, {} calls, {} failures",
                self.of(instrument),
                supply.liability().0,
                supply.capacity.0,
                supply.escrow,
                supply.earned,
                supply.calls,
                supply.failures
            ));
        }
        told
    }
}

const fn side(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

const fn tif(tif: TimeInForce) -> &'static str {
    match tif {
        TimeInForce::Gtc => "gtc",
        TimeInForce::Ioc => "ioc",
        TimeInForce::Fok => "fok",
        TimeInForce::Day => "day",
        TimeInForce::PostOnly => "post_only",
    }
}
