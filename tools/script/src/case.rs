//! One case: a fresh engine, the owners and ids of the script on top of it, and what came of them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::OnceLock;

use grid_engine::book::{BookView, WIDEST};
use grid_engine::command::{
    AccountMode, Capabilities, Command, Entry, NewOrder, OrderKind, OrderRef, SelfTrade, Side,
};
use grid_engine::event::{Closure, Event, ReportBody};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, Label, Nanos, OrderId, Price, Qty, Reject, Seq, SessionId,
    TOKENS_PER_UNIT, Usd, limits,
};
use serde::Serialize;

use crate::line::{Action, Amount, Name, Op};

const MARKET: InstrumentId = InstrumentId(0);
const SESSION: SessionId = SessionId(1);
const OPERATOR_KEY: [u8; 32] = [7; 32];
/// Beyond this many Units no order fits into the instrument at all.
const QTY_MAX: Qty = Qty(WIDEST);
/// What an account may issue in all.
const CAPACITY: Qty = Qty(limits::ALL_TOKENS / TOKENS_PER_UNIT / 2);

pub(crate) struct Case {
    venue: Venue,
    owners: HashMap<Name, AccountId>,
    live: HashMap<Name, OrderId>,
    names: HashMap<OrderId, Name>,
    /// The case's prices in ticks, ascending, zero first: the engine's price is the index.
    prices: Vec<u64>,
    result: Outcome,
}

#[derive(Serialize)]
struct Outcome {
    case: serde_json::Value,
    trades: Vec<TradeLine>,
    bids: Vec<(u64, u64, u32)>,
    asks: Vec<(u64, u64, u32)>,
    rejected: Vec<Name>,
    expired: Vec<Name>,
    stp_cancelled: Vec<Name>,
}

#[derive(Serialize)]
struct TradeLine {
    taker: Name,
    maker: Name,
    price: u64,
    qty: u64,
}

impl Case {
    pub(crate) fn new(name: serde_json::Value, prices: impl Iterator<Item = u64>) -> Self {
        let mut prices: Vec<u64> = std::iter::once(0).chain(prices).collect();
        prices.sort_unstable();
        prices.dedup();
        Self {
            venue: Venue::open(),
            owners: HashMap::new(),
            live: HashMap::new(),
            names: HashMap::new(),
            prices,
            result: Outcome {
                case: name,
                trades: Vec::new(),
                bids: Vec::new(),
                asks: Vec::new(),
                rejected: Vec::new(),
                expired: Vec::new(),
                stp_cancelled: Vec::new(),
            },
        }
    }

    /// Runs one instruction. Errors only where the venue's bounds keep it from funding the order.
    pub(crate) fn run(&mut self, op: Op) -> Result<(), Reject> {
        let account = match self.owners.get(&op.owner) {
            Some(&account) => account,
            None => {
                let account = self.venue.open_account()?;
                self.owners.insert(op.owner, account);
                account
            }
        };
        let known = self.live.get(&op.id).copied();
        let command = match (op.action, known) {
            (Action::Limit { .. } | Action::Market { .. }, Some(_)) | (Action::Cancel, None) => None,
            (Action::Replace { .. }, None) => None,
            (Action::Cancel, Some(order)) => Some(Command::Cancel { order: OrderRef::Id(order) }),
            (Action::Replace { price, qty }, Some(order)) => {
                self.replace(account, order, price, qty, op.stp)?
            }
            (Action::Limit { side, price, qty, tif }, None) => match (price.0, qty.0) {
                (Some(price), Some(qty)) => {
                    let (price, qty) = (self.rank(price), Qty(qty));
                    self.venue.provide_limit(account, side, price, qty)?;
                    Some(place(side, OrderKind::Limit { price, tif }, qty, op.stp))
                }
                _ => None,
            },
            (Action::Market { side, qty }, None) => match qty.0 {
                Some(qty) => {
                    let qty = Qty(qty);
                    self.venue.provide_market(account, side, qty, op.stp)?;
                    let kind = OrderKind::Market { max_slippage_bps: None, fill_or_kill: false };
                    Some(place(side, kind, qty, op.stp))
                }
                None => None,
            },
        };
        match command {
            Some(command) => self.submit(account, command, op.id),
            None => {
                self.result.rejected.push(op.id);
                Ok(())
            }
        }
    }

    pub(crate) fn print(mut self, out: &mut impl Write) -> io::Result<()> {
        let book = self.venue.book();
        let levels = |side| {
            book.levels(side).map(|level| (self.ticks(level.price), level.qty.0, level.orders)).collect()
        };
        let (bids, asks) = (levels(Side::Buy), levels(Side::Sell));
        self.result.bids = bids;
        self.result.asks = asks;
        serde_json::to_writer(&mut *out, &self.result)?;
        out.write_all(b"\n")
    }

    /// The engine's price for one of the case's; beyond all money, one that the engine refuses.
    fn rank(&self, ticks: u64) -> Price {
        if ticks > limits::ALL_USD.0.unsigned_abs() {
            return Price(u64::MAX);
        }
        let rank = self.prices.partition_point(|&price| price < ticks);
        Price(u64::try_from(rank).expect("a rank fits"))
    }

    /// The case's price for one of the engine's.
    fn ticks(&self, price: Price) -> u64 {
        self.prices[usize::try_from(price.0).expect("a rank is an index")]
    }

    /// A change of an open order, or `None` where its numbers are none that an order can carry.
    fn replace(
        &mut self,
        account: AccountId,
        order: OrderId,
        price: Amount,
        qty: Amount,
        stp: SelfTrade,
    ) -> Result<Option<Command>, Reject> {
        let price = match (price.0, qty.0) {
            (_, Some(0)) => Price(0),
            (Some(price), _) => self.rank(price),
            (None, _) => return Ok(None),
        };
        let Some(qty) = qty.0.map(Qty) else {
            return Ok(None);
        };
        let book = self.venue.book();
        if let Some(open) = book.order(order)
            && open.account == account
            && !qty.is_zero()
        {
            let side = open.side;
            self.venue.provide_limit(account, side, price, qty)?;
        }
        Ok(Some(Command::Replace { order: OrderRef::Id(order), qty, price, stp, post_only: false }))
    }

    fn submit(&mut self, account: AccountId, command: Command, id: Name) -> Result<(), Reject> {
        let placed = matches!(command, Command::Place(_));
        let order = self.venue.submit(account, command);
        for event in &self.venue.events {
            match event {
                Event::OrderOpened(opened) if placed && opened.order.id == order => {
                    self.live.insert(id.clone(), order);
                    self.names.insert(order, id.clone());
                }
                Event::Report { report, .. } => match report.body {
                    // Says something about the venue's size, not about the book.
                    ReportBody::Rejected { reject: Reject::TooManyOrders, .. } => {
                        return Err(Reject::TooManyOrders);
                    }
                    ReportBody::Rejected { .. } => self.result.rejected.push(id.clone()),
                    _ => {}
                },
                Event::Traded(trade) => self.result.trades.push(TradeLine {
                    taker: self.names[&trade.taker_order].clone(),
                    maker: self.names[&trade.maker_order].clone(),
                    price: self.ticks(trade.price),
                    qty: trade.qty.0,
                }),
                Event::OrderClosed(closed) => {
                    let name = self
                        .names
                        .remove(&closed.order.id)
                        .expect("every order that closes was opened by a line of this case");
                    self.live.remove(&name);
                    match closed.reason {
                        Closure::Filled | Closure::Cancelled | Closure::Suspended => {}
                        Closure::SelfTrade => self.result.stp_cancelled.push(name),
                        Closure::PartiallyFilledNoLiquidity
                        | Closure::PartiallyFilledMaxSlippage
                        | Closure::NoFillNoLiquidity
                        | Closure::NoFillMaxSlippage
                        | Closure::Expired => self.result.expired.push(name),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn place(side: Side, kind: OrderKind, qty: Qty, stp: SelfTrade) -> Command {
    Command::Place(NewOrder {
        instrument: MARKET,
        side,
        kind,
        qty,
        stp,
        label: Label::default(),
        tag: String::new(),
        to_consumption: false,
    })
}

/// The engine and the one session, the operator's, through which the whole case enters.
#[derive(Clone)]
struct Venue {
    engine: Engine,
    operator: AccountId,
    seq: Seq,
    client_seq: u64,
    events: Vec<Event>,
}

impl Venue {
    /// A venue with one instrument whose tick is a nano-dollar and whose limits are as wide as they go.
    fn open() -> Self {
        static OPENED: OnceLock<Venue> = OnceLock::new();
        OPENED
            .get_or_init(|| {
                let mut venue = Self {
                    engine: Engine::new(),
                    operator: AccountId::VENUE,
                    seq: Seq::ZERO,
                    client_seq: 0,
                    events: Vec::new(),
                };
                venue.apply(&Entry::venue(Command::Genesis { operator_key: OPERATOR_KEY }));
                venue.apply(&Entry::venue(Command::OpenSession {
                    session: SESSION,
                    key: Fingerprint::of(&OPERATOR_KEY),
                }));
                venue.operator = match &venue.events[..] {
                    [Event::SessionOpened { result: Ok(account), .. }] => *account,
                    other => unreachable!("the operator's key opens a session: {other:?}"),
                };
                venue
                    .ask(venue.operator, Command::DefineInstrument(Box::new(instrument())))
                    .expect("the script's instrument is valid");
                venue
            })
            .clone()
    }

    fn apply(&mut self, entry: &Entry) {
        self.seq = self.seq.next();
        self.events.clear();
        // Log time is the log's position: order scripts know no clock.
        self.engine.apply(self.seq, Nanos(self.seq.0), entry, &mut self.events);
    }

    /// Applies a command for an account; the id that a new order of it gets.
    fn submit(&mut self, account: AccountId, command: Command) -> OrderId {
        self.client_seq += 1;
        self.apply(&Entry { session: SESSION, client_seq: self.client_seq, account, command });
        let opened = self.events.iter().find_map(|event| match event {
            Event::OrderOpened(opened) => Some(opened.order.id),
            _ => None,
        });
        opened.unwrap_or_default()
    }

    fn book(&self) -> BookView<'_> {
        self.engine.state().book(MARKET).expect("the script's instrument is listed")
    }

    /// Applies a command of the operator; the id of what it made.
    fn ask(&mut self, account: AccountId, command: Command) -> Result<u64, Reject> {
        self.submit(account, command);
        let answer = self.events.iter().find_map(|event| match event {
            Event::Report { report, .. } => match report.body {
                ReportBody::Done { created } => Some(Ok(created)),
                ReportBody::Rejected { reject, .. } => Some(Err(reject)),
                _ => None,
            },
            _ => None,
        });
        answer.expect("every command of a session is answered")
    }

    /// An account in Advanced Mode that may issue as much as it likes.
    fn open_account(&mut self) -> Result<AccountId, Reject> {
        let open = Command::OpenAccount {
            name: String::new(),
            mode: AccountMode::Advanced,
            capabilities: Capabilities::default(),
        };
        let account = self.ask(self.operator, open)?;
        let account = AccountId(u32::try_from(account).expect("account ids have 32 bits"));
        self.ask(account, Command::RegisterSupplier(Box::default()))?;
        self.ask(account, Command::SetCapacity { instrument: MARKET, capacity: CAPACITY })?;
        Ok(account)
    }

    /// Gives an account what it lacks for a limit order. One that is refused anyway gets nothing.
    fn provide_limit(
        &mut self,
        account: AccountId,
        side: Side,
        price: Price,
        qty: Qty,
    ) -> Result<(), Reject> {
        match side {
            Side::Buy => self.provide_usd(account, price.notional(qty, TICK)),
            Side::Sell => self.provide_units(account, qty),
        }
    }

    /// Gives an account what it lacks for a market order.
    fn provide_market(
        &mut self,
        account: AccountId,
        side: Side,
        qty: Qty,
        stp: SelfTrade,
    ) -> Result<(), Reject> {
        match side {
            Side::Buy => self.provide_usd(account, self.cost_of_taking(account, qty, stp)),
            Side::Sell => self.provide_units(account, qty),
        }
    }

    fn provide_usd(&mut self, account: AccountId, needs: Option<Usd>) -> Result<(), Reject> {
        let has = self.engine.state().accounts[account.0 as usize].usd_available;
        match needs.and_then(|needs| needs.checked_sub(has)) {
            Some(amount) if amount > Usd::ZERO && amount <= limits::ALL_USD => {
                self.ask(account, Command::Deposit { amount }).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn provide_units(&mut self, account: AccountId, needs: Qty) -> Result<(), Reject> {
        let has = self.engine.state().holding(account, MARKET).map_or(Qty::ZERO, |holding| holding.available);
        match needs.checked_sub(has) {
            Some(qty) if !qty.is_zero() && needs <= QTY_MAX => {
                let instrument = MARKET;
                self.ask(account, Command::Issue { instrument, qty })?;
                self.ask(account, Command::TransferIssuance { instrument, qty })?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The most that a market order for this many Units can pay on the book as it stands.
    fn cost_of_taking(&self, account: AccountId, qty: Qty, stp: SelfTrade) -> Option<Usd> {
        let book = self.book();
        let mut wanted = qty;
        let mut cost = Usd::ZERO;
        for order in book.queue(Side::Sell) {
            if order.account == account && stp != SelfTrade::Allow {
                continue;
            }
            let taken = Qty(wanted.0.min(order.remaining.0));
            cost = cost.checked_add(order.price.notional(taken, TICK)?)?;
            wanted = wanted.minus(taken);
            if wanted.is_zero() {
                break;
            }
        }
        Some(cost)
    }
}

const TICK: Usd = Usd(1);

fn instrument() -> InstrumentSpec {
    InstrumentSpec {
        symbol: "script".into(),
        name: "Script".into(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: TICK,
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: QTY_MAX,
            max_price: Price(WIDEST),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}
