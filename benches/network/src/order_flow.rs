//! `order_flow_real`: what an exchange really saw, looped: 1,000 messages of a day in June 2012 on one share, with
//! their mixture of orders, partial and full cancels, and executions. What a regression means: the shape of real
//! trading, not an even mix, has become expensive.
//!
//! The recording is replayed once against a plain book that is compared with the recorded one after every message; the
//! requests this makes, and the fills it expects, are what goes over the socket. Every fill is compared, maker by maker.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings};
use grid_replay::flow::{Fill, Market, OrderFlow, Side, replay};
use grid_wire::{
    CancelOrder, ExecType, ExecutionReport, HEADER_LEN, NewOrder, OrderType, ReplaceOrder, ReportFlags,
    SelfTrade, TimeInForce,
};

use crate::echo::Echo;
use crate::flow::{Flow, PlaceCancel};
use crate::load::Load;
use crate::order_to_ack::{PRICE, memory, on_a_thread, wait_name};
use crate::venue::{INSTRUMENT, Layout, Venue, keys};
use crate::{Failure, session};

/// Recorded prices are in hundredths of a cent; ticks are cents.
const PRICE_DIVISOR: u64 = 100;
/// Requests in flight.
const WINDOW: u64 = 128;
/// Where every request says its number, and in its label the turn of the loop; the rest of the label is an order of the
/// recording.
const CLIENT_SEQ: usize = HEADER_LEN;
const LABEL_HIGH: usize = HEADER_LEN + 24;

/// See the module.
#[derive(Debug)]
pub struct OrderFlowReal;

impl Scenario for OrderFlowReal {
    fn name(&self) -> &'static str {
        "order_flow_real"
    }

    fn shows(&self) -> &'static str {
        "slower: real trading, with its bursts and partial cancels, costs more than an even mix"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let Some(data) = grid_replay::data_dir() else {
            let note = "not measured: the recording is not here; GRID_DATA says where it lies";
            return Ok(vec![Row::new("order flow of a day in 2012").note(note)]);
        };
        let flow =
            OrderFlow::read(&data.join(grid_replay::MESSAGE_FILE), &data.join(grid_replay::BOOK_FILE))?;
        let script: Arc<Script> = Arc::new(Script::of(&flow)?);
        let ground = Ground::under(&memory(settings))?;
        let mut rows = Vec::new();
        for layout in Layout::all() {
            let (mut ours, mut floor, mut trades) = (Rounds::default(), Rounds::default(), Rounds::default());
            for round in 0..settings.rounds {
                let echo = Echo::start(layout.wait, layout.core)?;
                let (address, wait, seconds) = (echo.address, layout.wait, settings.seconds);
                let bare = on_a_thread(wait, move || {
                    let sessions = session::open(address, &keys(), 1)?;
                    let flow = |session| (session, PlaceCancel::at(INSTRUMENT.0, PRICE));
                    Load::over(sessions.into_iter().map(flow).collect(), wait)?.closed(WINDOW, seconds)
                })?;
                drop(echo);
                floor.push(bare.per_second());
                let venue = Venue::start(&ground.at(&format!("{}-{round}", layout.name)), &layout, 1)?;
                let (address, script) = (venue.address(), Arc::clone(&script));
                let (outcome, fills) = on_a_thread(wait, move || {
                    let sessions = session::open(address, &keys(), 1)?;
                    let until = Instant::now() + Duration::from_secs_f64(seconds);
                    let flow = |session| (session, Looped::new(Arc::clone(&script), until));
                    let mut load = Load::over(sessions.into_iter().map(flow).collect(), wait)?;
                    let outcome = load.through(WINDOW)?;
                    let fills = load.flows().map(Looped::finish).sum::<Result<u64, Failure>>()?;
                    Ok((outcome, fills))
                })?;
                venue.stop()?;
                ours.push(outcome.per_second());
                trades.push(fills as f64 / outcome.took.as_secs_f64());
            }
            rows.push(
                Row::new(format!("1 connection x {WINDOW}, layout {}", layout.name))
                    .throughput(ours)
                    .floor(format!("bare mio echo, {}", wait_name(layout.wait)), Against::Throughput, floor)
                    .figure("fills, each compared", "1/s", trades)
                    .note(format!("{} requests in each turn of the loop; closed loop", script.asks.len())),
            );
        }
        Ok(rows)
    }
}

/// One request, ready but for its number and the turn.
#[derive(Debug)]
struct Ask {
    frame: Vec<u8>,
    /// What its answer must say.
    answer: ExecType,
}

/// The recording as requests, and what they must bring about.
#[derive(Debug, Default)]
struct Script {
    asks: Vec<Ask>,
    /// Makers and quantities, in order.
    fills: Vec<(u64, u64)>,
    queues: BTreeMap<(bool, u64), VecDeque<(u64, u64)>>,
    orders: u64,
}

impl Script {
    fn of(flow: &OrderFlow) -> Result<Self, Failure> {
        let mut script = Self::default();
        let summary = replay(flow, &mut script)?;
        if summary.mismatch_count > 0 {
            return Err(format!("the plain book is not the recorded one: {:?}", summary.mismatches).into());
        }
        // What is left goes, so that the next turn begins with an empty book.
        let left: Vec<u64> = script.queues.values().flatten().map(|(order, _)| *order).collect();
        for order in left {
            script.cancel(order)?;
        }
        Ok(script)
    }

    fn ask(&mut self, answer: ExecType, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        encode(&mut frame);
        self.asks.push(Ask { frame, answer });
    }

    fn place(&mut self, side: Side, price: u64, qty: u64, time_in_force: TimeInForce) -> u64 {
        self.orders += 1;
        let label = u128::from(self.orders);
        let side = if side == Side::Buy { grid_wire::Side::Buy } else { grid_wire::Side::Sell };
        let order = NewOrder {
            label,
            instrument: INSTRUMENT.0,
            side,
            order_type: OrderType::Limit,
            time_in_force,
            self_trade: SelfTrade::None,
            price: price / PRICE_DIVISOR,
            qty,
            ..NewOrder::default()
        };
        self.ask(ExecType::New, |out| order.encode(out));
        self.orders
    }

    fn queue_of(&mut self, order: u64) -> Option<(&mut VecDeque<(u64, u64)>, usize)> {
        self.queues
            .values_mut()
            .find_map(|queue| queue.iter().position(|(id, _)| *id == order).map(|at| (queue, at)))
    }
}

impl Market for Script {
    type Error = Infallible;

    fn add(&mut self, side: Side, price: u64, qty: u64) -> Result<u64, Infallible> {
        let order = self.place(side, price, qty, TimeInForce::Gtc);
        self.queues.entry((side == Side::Buy, price)).or_default().push_back((order, qty));
        Ok(order)
    }

    fn reduce(&mut self, order: u64, price: u64, open: u64) -> Result<(), Infallible> {
        if let Some((queue, at)) = self.queue_of(order) {
            queue[at].1 = open;
        }
        let replace = ReplaceOrder {
            label: u128::from(order),
            price: price / PRICE_DIVISOR,
            qty: open,
            self_trade: SelfTrade::None,
            ..ReplaceOrder::default()
        };
        self.ask(ExecType::Replaced, |out| replace.encode(out));
        Ok(())
    }

    fn cancel(&mut self, order: u64) -> Result<(), Infallible> {
        if let Some((queue, at)) = self.queue_of(order) {
            queue.remove(at);
        }
        let cancel = CancelOrder { label: u128::from(order), ..CancelOrder::default() };
        self.ask(ExecType::Cancelled, |out| cancel.encode(out));
        Ok(())
    }

    fn take(&mut self, side: Side, price: u64, qty: u64) -> Result<Vec<Fill>, Infallible> {
        self.place(side, price, qty, TimeInForce::Ioc);
        let (mut left, mut fills) = (qty, Vec::new());
        let makers = side != Side::Buy;
        let mut prices: Vec<u64> =
            self.queues.keys().filter(|(buy, _)| *buy == makers).map(|(_, price)| *price).collect();
        if makers {
            prices.reverse();
        }
        for at in prices.into_iter().filter(|at| if makers { *at >= price } else { *at <= price }) {
            let queue = self.queues.entry((makers, at)).or_default();
            while left > 0
                && let Some((order, open)) = queue.front_mut()
            {
                let part = left.min(*open);
                (left, *open) = (left - part, *open - part);
                fills.push(Fill { order: *order, qty: part });
                self.fills.push((*order, part));
                if *open == 0 {
                    queue.pop_front();
                }
            }
        }
        Ok(fills)
    }

    fn depth(&mut self, side: Side) -> Result<Vec<(u64, u64)>, Infallible> {
        let of_side =
            self.queues.iter().filter(|((buy, _), queue)| *buy == (side == Side::Buy) && !queue.is_empty());
        let mut levels: Vec<(u64, u64)> =
            of_side.map(|((_, price), queue)| (*price, queue.iter().map(|(_, qty)| qty).sum())).collect();
        if side == Side::Buy {
            levels.reverse();
        }
        Ok(levels)
    }
}

/// The script again and again, its labels new in each turn.
struct Looped {
    script: Arc<Script>,
    until: Instant,
    asked: usize,
    turn: u64,
    /// Position and turn of the next answer and of the next fill.
    answered: usize,
    filled: usize,
    filled_turn: u64,
    fills: u64,
}

impl Looped {
    fn new(script: Arc<Script>, until: Instant) -> Self {
        Self { script, until, asked: 0, turn: 1, answered: 0, filled: 0, filled_turn: 1, fills: 0 }
    }

    /// Fills in all, when everything is answered; there must be as many in every turn.
    fn finish(&mut self) -> Result<u64, Failure> {
        let expected = self.script.fills.len() as u64 * (self.turn - 1);
        if self.fills == expected {
            Ok(self.fills)
        } else {
            Err(format!("{} fills instead of {expected}", self.fills).into())
        }
    }

    fn note_fill(&mut self, report: &ExecutionReport) -> Result<(), Failure> {
        if report.exec_type != ExecType::Trade || report.flags.has(ReportFlags::AGGRESSOR) {
            return Ok(());
        }
        let (order, qty) = self.script.fills.get(self.filled).copied().ok_or("a fill where none can be")?;
        let label = u128::from(self.filled_turn) << 64 | u128::from(order);
        if (report.label, report.last_qty) != (label, qty) {
            return Err(format!("order {order} must give {qty}, but {report:?}").into());
        }
        self.fills += 1;
        self.filled += 1;
        if self.filled == self.script.fills.len() {
            (self.filled, self.filled_turn) = (0, self.filled_turn + 1);
        }
        Ok(())
    }
}

impl Flow for Looped {
    fn ask(&mut self, client_seq: u64, out: &mut Vec<u8>) -> bool {
        if self.asked == 0 && self.turn > 1 && Instant::now() >= self.until {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&self.script.asks[self.asked].frame);
        let frame = &mut out[start..];
        frame[CLIENT_SEQ..CLIENT_SEQ + 8].copy_from_slice(&client_seq.to_le_bytes());
        frame[LABEL_HIGH..LABEL_HIGH + 8].copy_from_slice(&self.turn.to_le_bytes());
        self.asked += 1;
        if self.asked == self.script.asks.len() {
            (self.asked, self.turn) = (0, self.turn + 1);
        }
        true
    }

    fn answered(&mut self, client_seq: u64, report: &ExecutionReport) -> Result<(), Failure> {
        let ask = &self.script.asks[self.answered];
        if report.exec_type != ask.answer {
            return Err(
                format!("request {client_seq} was answered with {report:?}, not {:?}", ask.answer).into()
            );
        }
        self.answered = (self.answered + 1) % self.script.asks.len();
        self.note_fill(report)
    }

    fn told(&mut self, report: &ExecutionReport) -> Result<(), Failure> {
        self.note_fill(report)
    }
}
