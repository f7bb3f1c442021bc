//! Participants: each has one session, sends commands under strictly increasing numbers, believes only what a node tells it of the
//! committed log, and on silence goes to another node with the same numbers.

mod quotes;
mod rare;

use std::collections::{BTreeMap, VecDeque};

use grid_engine::command::{
    AccountMode, Capabilities, Command, Cover, Entry, MassCancelScope, NewOrder, Offer, OrderKind, OrderRef,
    SelfTrade, Side, SupplierProfile, Surface, TimeInForce, TransferDirection, Usage,
};
use grid_engine::event::{Exec, Report, ReportBody};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Fingerprint, InstrumentId, KeyId, Label, Nanos, OrderId, Price, Qty, ReservationId, SECOND,
    SessionId, Tokens, Usd,
};
use grid_sequencer::NodeId;

use crate::dice::Dice;
use crate::settings::Settings;

/// The key with which the log begins.
pub(crate) const OPERATOR_KEY: [u8; 32] = [255; 32];
/// Traders of the venue; their accounts are 2, 3, 4.
const TRADERS: u32 = 3;
/// Suppliers of the venue; their accounts follow the traders'.
const SUPPLIERS: u32 = 2;
const HOUR: u64 = 3_600 * SECOND;

/// From a client to a node.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// Negotiate if need be, and take the session over.
    Establish { session: SessionId, key: Fingerprint, grace: Option<Nanos> },
    /// A command under its number.
    Command(Entry),
    /// The reports from this number up to and without that one again, please.
    Missing { session: SessionId, from: u64, to: u64 },
}

/// From a node to a client.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// Not here; perhaps there.
    NotLeader { hint: Option<NodeId> },
    /// The session is established here.
    Established { last_client_seq: u64, next_report: u64 },
    /// It is not: the log knows no such key or session yet.
    Refused,
    /// A report, live or asked for.
    Report(Report),
    /// A number came again.
    Repeated { client_seq: u64, report: Option<Report> },
}

/// What a client does for its living.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Operator,
    Trader,
    Supplier,
    Tier,
}

/// Where its connection stands.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Down { until: u64 },
    Opening { connection: u64, since: u64 },
    Up { connection: u64, heard: u64 },
}

/// What a client wants the world to do.
pub(crate) enum Wish {
    /// Open a connection to this node, or any.
    Connect(Option<NodeId>),
    Send(u64, Up),
    Close(u64),
}

pub(crate) struct Client {
    pub(crate) session: SessionId,
    key: [u8; 32],
    account: AccountId,
    role: Role,
    dice: Dice,
    /// What it still has to do before it improvises.
    script: VecDeque<(AccountId, Command)>,
    /// It may still invent commands.
    pub(crate) active: bool,
    /// Most that it leaves unanswered.
    window: usize,
    /// How long it waits for a sign of life while all goes well.
    patience: u64,
    /// Connections in a row on which it heard nothing that it waited for. Each doubles the wait: a venue that is slower than
    /// everybody's patience would otherwise be kept busy by nothing but people coming back.
    in_vain: u32,
    pace: u64,
    /// When it may think of something new.
    ready_at: u64,
    next_seq: u64,
    unanswered: VecDeque<Entry>,
    /// The highest number sent on this connection.
    sent: u64,
    pub(crate) link: Link,
    hint: Option<NodeId>,
    /// The answer that came for each number.
    pub(crate) answers: BTreeMap<u64, Report>,
    /// Every report that it has seen, by number.
    pub(crate) reports: BTreeMap<u64, Report>,
    /// One more than the highest number up to which it lacks nothing.
    next_report: u64,
    open: Vec<OrderId>,
    reserved: Vec<(ReservationId, AccountId)>,
    requests: u128,
    pub(crate) retries: u64,
    pub(crate) resumed: u64,
    pub(crate) missing: u64,
}

/// The cast, the operator first.
pub(crate) fn cast(dice: &mut Dice, settings: &Settings) -> Vec<Client> {
    let mut clients = vec![Client::new(Role::Operator, AccountId(1), dice.fork(), settings)];
    let mut next = 2;
    for (role, count) in [(Role::Trader, TRADERS), (Role::Supplier, SUPPLIERS), (Role::Tier, 1)] {
        for _ in 0..count {
            clients.push(Client::new(role, AccountId(next), dice.fork(), settings));
            next += 1;
        }
    }
    clients
}

impl Client {
    fn new(role: Role, account: AccountId, dice: Dice, settings: &Settings) -> Self {
        let script = if role == Role::Operator { opening() } else { VecDeque::new() };
        Self {
            session: SessionId(u128::from(account.0) + 100),
            key: if role == Role::Operator { OPERATOR_KEY } else { key_of(account) },
            account,
            role,
            dice,
            script,
            active: true,
            window: settings.client_window,
            patience: settings.patience,
            in_vain: 0,
            pace: settings.pace,
            ready_at: 0,
            next_seq: 1,
            unanswered: VecDeque::new(),
            sent: 0,
            link: Link::Down { until: 0 },
            hint: None,
            answers: BTreeMap::new(),
            reports: BTreeMap::new(),
            next_report: 1,
            open: Vec::new(),
            reserved: Vec::new(),
            requests: 0,
            retries: 0,
            resumed: 0,
            missing: 0,
        }
    }

    /// Nothing is left to hear or to say.
    pub(crate) fn is_finished(&self) -> bool {
        self.script.is_empty() && self.unanswered.is_empty() && matches!(self.link, Link::Up { .. })
    }

    /// Commands that it has numbered so far.
    pub(crate) fn commands(&self) -> u64 {
        self.next_seq - 1
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "{:?} session {} at {:?}, {} to say, waits for {:?}",
            self.role,
            self.session.0,
            self.link,
            self.script.len(),
            self.unanswered.iter().map(|entry| entry.client_seq).collect::<Vec<_>>()
        )
    }

    /// Does what there is to do now.
    pub(crate) fn step(&mut self, now: u64) -> Option<Wish> {
        match self.link {
            Link::Down { until } if now >= until => {
                let hint = self.hint.take().filter(|_| self.dice.chance(3, 4));
                Some(Wish::Connect(hint))
            }
            Link::Down { .. } => None,
            Link::Opening { connection, since } if now > since + self.patience() => {
                self.in_vain += 1;
                Some(self.give_up(connection, now))
            }
            Link::Opening { .. } => None,
            Link::Up { connection, heard } => {
                if !self.unanswered.is_empty() && now > heard + self.patience() {
                    self.retries += 1;
                    self.in_vain += 1;
                    return Some(self.give_up(connection, now));
                }
                if self.dice.chance(1, 4_000) {
                    // People pull cables; programs restart.
                    return Some(self.give_up(connection, now));
                }
                self.next_to_send(connection, now)
            }
        }
    }

    fn patience(&self) -> u64 {
        self.patience << self.in_vain.min(5)
    }

    fn give_up(&mut self, connection: u64, now: u64) -> Wish {
        self.link = Link::Down { until: now + self.dice.below(self.patience / 2 + 1) };
        Wish::Close(connection)
    }

    /// The connection was made; the first thing on it is the session.
    pub(crate) fn connected(&mut self, connection: u64, now: u64) -> Up {
        self.link = Link::Opening { connection, since: now };
        let grace = match self.dice.below(4) {
            0 => Some(Nanos::ZERO),
            1 => Some(Nanos(self.dice.below(SECOND))),
            _ => None,
        };
        Up::Establish { session: self.session, key: Fingerprint::of(&self.key), grace }
    }

    /// Nobody was there, or the other end hung up.
    pub(crate) fn disconnected(&mut self, now: u64) {
        self.link = Link::Down { until: now + self.dice.below(self.patience / 4 + 1) };
    }

    fn next_to_send(&mut self, connection: u64, now: u64) -> Option<Wish> {
        if let Some(entry) = self.unanswered.iter().find(|entry| entry.client_seq > self.sent) {
            self.sent = entry.client_seq;
            return Some(Wish::Send(connection, Up::Command(entry.clone())));
        }
        if self.unanswered.len() >= self.window || now < self.ready_at {
            return None;
        }
        if self.script.is_empty() {
            self.ready_at = now + self.dice.below(2 * self.pace);
        }
        let (account, command) = match self.script.pop_front() {
            Some(next) => next,
            None if self.active => self.invent(),
            None => return None,
        };
        if self.unanswered.is_empty()
            && let Link::Up { heard, .. } = &mut self.link
        {
            *heard = now;
        }
        let entry = Entry { session: self.session, client_seq: self.next_seq, account, command };
        self.next_seq += 1;
        self.sent = entry.client_seq;
        self.unanswered.push_back(entry.clone());
        Some(Wish::Send(connection, Up::Command(entry)))
    }

    /// Hears something; what is wrong with it comes back in words, and what it now wants to send.
    pub(crate) fn hear(&mut self, connection: u64, down: Down, now: u64) -> Result<Option<Wish>, String> {
        match down {
            Down::NotLeader { hint } => {
                self.hint = hint;
                self.disconnected(now);
                return Ok(Some(Wish::Close(connection)));
            }
            Down::Refused => return Ok(Some(self.give_up(connection, now))),
            Down::Established { last_client_seq, next_report } => {
                return self.established(connection, last_client_seq, next_report, now);
            }
            Down::Report(report) => self.take(report)?,
            Down::Repeated { client_seq, report } => match report {
                Some(report) => self.take(report)?,
                None if self.answers.contains_key(&client_seq) => {}
                None => {
                    return Err(format!(
                        "session {}: number {client_seq} counts as used, but nobody knows its answer",
                        self.session.0
                    ));
                }
            },
        }
        if let Link::Up { heard, .. } = &mut self.link {
            *heard = now;
        }
        Ok(None)
    }

    fn established(
        &mut self,
        connection: u64,
        last: u64,
        next_report: u64,
        now: u64,
    ) -> Result<Option<Wish>, String> {
        let answered = self.answers.last_key_value().map_or(0, |(seq, _)| *seq);
        if last < answered {
            return Err(format!(
                "session {}: number {answered} was answered, and now {last} is the last one applied",
                self.session.0
            ));
        }
        if last >= self.next_seq {
            return Err(format!("session {}: number {last} was never sent", self.session.0));
        }
        if next_report < self.next_report {
            return Err(format!(
                "session {}: report {} was seen, and now {next_report} is the next",
                self.session.0,
                self.next_report - 1
            ));
        }
        self.link = Link::Up { connection, heard: now };
        self.resumed += 1;
        if self.unanswered.is_empty() {
            self.in_vain = 0;
        }
        // What was applied is answered by the missing reports. A client that forgot may still ask again.
        self.sent = if self.dice.chance(1, 5) { 0 } else { last };
        if next_report > self.next_report {
            self.missing += 1;
            let (session, from) = (self.session, self.next_report);
            return Ok(Some(Wish::Send(connection, Up::Missing { session, from, to: next_report })));
        }
        Ok(None)
    }

    fn take(&mut self, report: Report) -> Result<(), String> {
        if let Some(seen) = self.reports.get(&report.number) {
            if *seen != report {
                return Err(format!(
                    "session {}: report {} was {seen:?} and now is {report:?}",
                    self.session.0, report.number
                ));
            }
            return Ok(());
        }
        self.in_vain = 0;
        self.reports.insert(report.number, report);
        while self.reports.contains_key(&self.next_report) {
            self.next_report += 1;
        }
        if report.client_seq != 0 && !self.answers.contains_key(&report.client_seq) {
            self.unanswered.retain(|entry| entry.client_seq != report.client_seq);
            self.answers.insert(report.client_seq, report);
        }
        match report.body {
            ReportBody::Order(order) => match order.exec() {
                Exec::New => self.open.push(order.order),
                Exec::Closed(_) => self.open.retain(|open| *open != order.order),
                _ => {}
            },
            ReportBody::Reserved { reservation, .. } => self.reserved.push((reservation, report.account)),
            _ => {}
        }
        Ok(())
    }

    // -- inventing commands -----------------------------------------------------------------------------------

    fn invent(&mut self) -> (AccountId, Command) {
        match self.role {
            Role::Operator => self.operate(),
            Role::Trader | Role::Supplier if self.next_seq % 12 == 7 => (self.account, self.quote()),
            Role::Trader => (self.account, self.consume()),
            Role::Supplier => self.supply(),
            Role::Tier => self.serve(),
        }
    }

    fn any_trader(&mut self) -> AccountId {
        AccountId(2 + self.dice.below(u64::from(TRADERS)) as u32)
    }

    fn any_supplier(&mut self) -> AccountId {
        AccountId(2 + TRADERS + self.dice.below(u64::from(SUPPLIERS)) as u32)
    }

    fn instrument(&mut self) -> InstrumentId {
        InstrumentId(self.dice.below(2) as u16)
    }

    fn operate(&mut self) -> (AccountId, Command) {
        if self.dice.chance(1, 3) {
            return self.operate_service_and_money();
        }
        let trader = self.any_trader();
        match self.dice.below(12) {
            0 => {
                let live = self.dice.chance(3, 4);
                let status = if live { InstrumentStatus::Live } else { InstrumentStatus::Halted };
                (self.account, Command::SetInstrumentStatus { instrument: self.instrument(), status })
            }
            1 | 2 => (trader, Command::Withdraw { amount: Usd(self.dice.below(80_000_000_000) as i64) }),
            3 => {
                let capacity = Qty(self.dice.between(2_000, 50_000));
                let supplier = self.any_supplier();
                (supplier, Command::SetCapacity { instrument: self.instrument(), capacity })
            }
            _ => (trader, Command::Deposit { amount: Usd(self.dice.below(60_000_000_000) as i64) }),
        }
    }

    fn supply(&mut self) -> (AccountId, Command) {
        let (instrument, qty) = (self.instrument(), Qty(self.dice.below(60)));
        let command = match self.dice.below(10) {
            0 | 1 => Command::Issue { instrument, qty },
            2 | 3 => Command::TransferIssuance { instrument, qty },
            _ => match self.trade(Side::Sell) {
                // The second bookkeeper knows no dollars behind bids of those who may owe some.
                Command::Place(order) => Command::Place(NewOrder { side: Side::Sell, ..order }),
                other => other,
            },
        };
        (self.account, command)
    }

    fn serve(&mut self) -> (AccountId, Command) {
        let trader = self.any_trader();
        if !self.reserved.is_empty() && self.dice.chance(1, 2) {
            let at = self.dice.below(self.reserved.len() as u64) as usize;
            let (reservation, account) = self.reserved[at];
            if self.dice.chance(4, 5) {
                self.reserved.swap_remove(at);
            }
            let supplier = if self.dice.chance(1, 12) { trader } else { self.any_supplier() };
            if self.dice.chance(1, 4) {
                return (account, Command::Release { reservation, supplier });
            }
            let usage = Usage {
                supplier,
                prompt_tokens: Tokens(self.dice.below(200_000)),
                completion_tokens: Tokens(self.dice.below(1_500_000)),
                ttft_us: 400_000,
                duration_us: 2_000_000,
                partial: self.dice.chance(1, 10),
                distrusted: self.dice.chance(1, 10),
                cover: *self.dice.pick(&[Cover::Issuer, Cover::Issuer, Cover::Failed, Cover::Unable]),
                ..Usage::default()
            };
            return (account, Command::Settle { reservation, usage });
        }
        if self.dice.chance(1, 8) {
            let order = self.new_order(Side::Buy);
            return (trader, Command::Place(order));
        }
        if self.dice.chance(1, 3) {
            return (self.account, self.report());
        }
        self.requests += u128::from(self.dice.chance(9, 10));
        let command = Command::Reserve {
            instrument: self.instrument(),
            tokens: Tokens(self.dice.below(2_000_000)),
            request: self.requests,
            valid_for: Nanos(self.dice.between(1, 600) * SECOND),
            key: KeyId(u32::from(self.dice.chance(1, 20))),
            surface: Surface::ChatCompletions,
        };
        (trader, command)
    }

    fn trade(&mut self, leaning: Side) -> Command {
        let crowded = self.open.len() as u64 > 6 + self.dice.below(10);
        match self.dice.below(100) {
            0 => Command::MassCancel(MassCancelScope {
                instrument: self.dice.chance(1, 2).then(|| InstrumentId(self.dice.below(2) as u16)),
                side: self.dice.chance(1, 3).then_some(leaning),
                session: self.dice.chance(1, 3).then_some(self.session),
            }),
            1..=12 => Command::Replace {
                order: self.order_ref(),
                qty: Qty(self.dice.below(30)),
                price: self.price(leaning),
                stp: self.stp(),
                post_only: self.dice.chance(1, 5),
            },
            13..=24 => Command::Cancel { order: self.order_ref() },
            25..=55 if crowded => Command::Cancel { order: self.order_ref() },
            56..=61 => Command::Transfer {
                instrument: self.instrument(),
                qty: Qty(self.dice.below(12)),
                direction: if self.dice.chance(1, 5) {
                    TransferDirection::ToTrading
                } else {
                    TransferDirection::ToConsumption
                },
            },
            _ => Command::Place(self.new_order(leaning)),
        }
    }

    fn new_order(&mut self, leaning: Side) -> NewOrder {
        let side = if self.dice.chance(4, 5) { leaning } else { leaning.opposite() };
        let kind = match self.dice.below(9) {
            0 => OrderKind::Market {
                max_slippage_bps: self.dice.chance(1, 2).then(|| *self.dice.pick(&[0, 150, 500, 10_000])),
                fill_or_kill: self.dice.chance(1, 3),
            },
            _ => OrderKind::Limit {
                price: self.price(side),
                tif: *self.dice.pick(&[
                    TimeInForce::Gtc,
                    TimeInForce::Gtc,
                    TimeInForce::Gtc,
                    TimeInForce::Day,
                    TimeInForce::Ioc,
                    TimeInForce::Fok,
                    TimeInForce::PostOnly,
                ]),
            },
        };
        let (label, tag) = match self.dice.below(30) {
            0 => (Label(u128::from(self.dice.below(200))), "once".to_owned()),
            1..=9 => (Label(u128::from(self.dice.between(1, 40))), String::new()),
            _ => (Label::default(), String::new()),
        };
        NewOrder {
            instrument: self.instrument(),
            side,
            kind,
            qty: Qty(self.dice.below(26)),
            stp: self.stp(),
            label,
            tag,
            to_consumption: self.dice.chance(1, 3),
        }
    }

    fn price(&mut self, side: Side) -> Price {
        match (self.dice.below(60), side) {
            (0, _) => Price(0),
            (_, Side::Buy) => Price(self.dice.between(88, 106)),
            (_, Side::Sell) => Price(self.dice.between(94, 112)),
        }
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

    fn order_ref(&mut self) -> OrderRef {
        if self.open.is_empty() || self.dice.chance(1, 8) {
            return OrderRef::Label(Label(u128::from(self.dice.below(41))));
        }
        if self.dice.chance(1, 20) {
            return OrderRef::Id(OrderId(self.dice.below(2_000)));
        }
        OrderRef::Id(*self.dice.pick(&self.open))
    }
}

/// The key that the operator registers for an account.
fn key_of(account: AccountId) -> [u8; 32] {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&account.0.to_le_bytes());
    key
}

/// How the operator makes a market out of an empty venue. Account numbers follow from the order.
fn opening() -> VecDeque<(AccountId, Command)> {
    let operator = AccountId(1);
    let mut script = VecDeque::new();
    let others = TRADERS + SUPPLIERS + 1;
    for account in (2..2 + others).map(AccountId) {
        let tier = account.0 == 1 + others;
        let capabilities = Capabilities { tier, operator: false };
        let name = format!("account {}", account.0);
        script
            .push_back((operator, Command::OpenAccount { name, mode: AccountMode::Advanced, capabilities }));
        let public_key = key_of(account);
        script.push_back((account, Command::AddSigningKey { public_key, label: String::new() }));
    }
    script.push_back((operator, Command::DefineInstrument(Box::new(spec("plain", None, 0, 0)))));
    script.push_back((operator, Command::DefineInstrument(Box::new(spec("dated", Some(Nanos(HOUR)), 3, 7)))));
    for supplier in (2 + TRADERS..2 + TRADERS + SUPPLIERS).map(AccountId) {
        let offers =
            [InstrumentId(0), InstrumentId(1)].map(|instrument| Offer { instrument, model: "m".into() });
        let profile = SupplierProfile { offers: offers.into(), ..SupplierProfile::default() };
        script.push_back((supplier, Command::RegisterSupplier(Box::new(profile))));
        for instrument in [InstrumentId(0), InstrumentId(1)] {
            script.push_back((supplier, Command::SetCapacity { instrument, capacity: Qty(50_000) }));
            script.push_back((supplier, Command::Issue { instrument, qty: Qty(500) }));
            script.push_back((supplier, Command::TransferIssuance { instrument, qty: Qty(500) }));
        }
    }
    script.extend(rare::opening(AccountId(1 + others)));
    for trader in (2..2 + TRADERS).map(AccountId) {
        script.push_back((trader, Command::Deposit { amount: Usd::dollars(2_000) }));
    }
    script
}

/// A cent a tick, single Units, live.
fn spec(symbol: &str, window: Option<Nanos>, maker_fee_bps: u16, taker_fee_bps: u16) -> InstrumentSpec {
    InstrumentSpec {
        symbol: symbol.into(),
        name: symbol.into(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: Usd(10_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(10_000),
            max_price: Price(100_000),
            maker_fee_bps,
            taker_fee_bps,
        },
        delivery: DeliveryTerms { window, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}
