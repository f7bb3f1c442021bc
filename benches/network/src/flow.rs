//! What a connection sends, and what must come back. Frames are made once and patched, so that the generator's share
//! of the machine stays small beside the venue's.

use std::collections::VecDeque;

use grid_wire::{
    CancelOrder, ExecType, ExecutionReport, HEADER_LEN, MassQuote, MassQuoteReport, NewOrder, OrderType,
    QuoteEntry, SelfTrade, Side,
};

use crate::Failure;

/// Where a request's number stands in its frame: first in the body.
const CLIENT_SEQ: usize = HEADER_LEN;
/// Where a cancel names the order: behind number, sending time and label.
const CANCEL_ORDER_ID: usize = HEADER_LEN + 32;
/// Where an order's price stands: behind number, sending time and label.
const ORDER_PRICE: usize = HEADER_LEN + 32;

/// What one session asks for, and how it judges the answers.
pub(crate) trait Flow {
    /// Appends the next request's frame; false when there is nothing to be asked before something is answered, or at all.
    fn ask(&mut self, client_seq: u64, out: &mut Vec<u8>) -> bool;

    /// A report that answers the request with this number, the first one to do so.
    fn answered(&mut self, client_seq: u64, report: &ExecutionReport) -> Result<(), Failure>;

    /// Any later report, of that request or of an earlier one.
    fn told(&mut self, report: &ExecutionReport) -> Result<(), Failure>;

    /// The answer to a mass quote.
    fn quoted(&mut self, report: &MassQuoteReport) -> Result<(), Failure> {
        Err(format!("nobody quotes, and yet: {report:?}").into())
    }
}

/// Orders that rest, each cancelled when some younger ones stand: half of the requests are orders, half are cancels, and
/// each has exactly one answer. Any venue serves it, at a price that nobody meets.
#[derive(Debug)]
pub(crate) struct PlaceCancel {
    order: Vec<u8>,
    cancel: Vec<u8>,
    price: u64,
    /// Acknowledged, oldest first.
    standing: VecDeque<u64>,
    /// What is under way: nothing for an order, its id for a cancel.
    asked: VecDeque<Option<u64>>,
    /// No more orders: what stands is taken out again.
    ending: bool,
}

/// Orders of one connection that stand before it begins to cancel.
const STANDING: usize = 16;
/// Prices that it spreads them over.
const LEVELS: u64 = 64;

impl PlaceCancel {
    /// Bids of one Unit at this price and the 63 above it.
    pub(crate) fn at(instrument: u16, price: u64) -> Self {
        let (mut order, mut cancel) = (Vec::new(), Vec::new());
        let resting = NewOrder {
            instrument,
            side: Side::Buy,
            order_type: OrderType::Limit,
            self_trade: SelfTrade::None,
            qty: 1,
            ..NewOrder::default()
        };
        resting.encode(&mut order);
        CancelOrder::default().encode(&mut cancel);
        Self { order, cancel, price, standing: VecDeque::new(), asked: VecDeque::new(), ending: false }
    }

    /// From now on it only takes out what stands.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }
}

/// Ten quotes that one message moves by a tick, up and down again. No two makers meet: between bids and asks is room for all of them.
#[derive(Debug)]
pub(crate) struct Quotes {
    /// The message at either place.
    frames: [Vec<u8>; 2],
}

/// Quotes of a message, and so half the orders that it moves.
const QUOTES: u64 = 10;

impl Quotes {
    /// Orders that a message moves.
    pub(crate) const ORDERS: u64 = 2 * QUOTES;

    /// Around a middle that leaves room for them below.
    pub(crate) fn around(instrument: u16, middle: u64) -> Self {
        let frames = [middle, middle + 1].map(|middle| {
            let entry = |quote| QuoteEntry {
                bid_price: middle - QUOTES - quote,
                bid_qty: 1,
                ask_price: middle + QUOTES + quote,
                ask_qty: 1,
                instrument,
                quote: quote as u8,
            };
            let mut frame = Vec::new();
            MassQuote::default().encode(&(1..=QUOTES).map(entry).collect::<Vec<_>>(), &mut frame);
            frame
        });
        Self { frames }
    }
}

impl Flow for Quotes {
    fn ask(&mut self, client_seq: u64, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(&self.frames[(client_seq % 2) as usize]);
        put(&mut out[start..], CLIENT_SEQ, client_seq);
        true
    }

    fn answered(&mut self, client_seq: u64, report: &ExecutionReport) -> Result<(), Failure> {
        Err(format!("the mass quote {client_seq} was answered with {report:?}").into())
    }

    fn told(&mut self, report: &ExecutionReport) -> Result<(), Failure> {
        Err(format!("nobody meets these quotes, and yet: {report:?}").into())
    }

    fn quoted(&mut self, report: &MassQuoteReport) -> Result<(), Failure> {
        if (u64::from(report.accepted), report.refused) != (Self::ORDERS, 0) {
            return Err(format!("both sides of every quote are moved: {report:?}").into());
        }
        Ok(())
    }
}

fn put(out: &mut [u8], at: usize, number: u64) {
    out[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

impl Flow for PlaceCancel {
    fn ask(&mut self, client_seq: u64, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if (self.ending || self.standing.len() > STANDING)
            && let Some(order) = self.standing.pop_front()
        {
            out.extend_from_slice(&self.cancel);
            put(&mut out[start..], CANCEL_ORDER_ID, order);
            self.asked.push_back(Some(order));
        } else if self.ending {
            return false;
        } else {
            out.extend_from_slice(&self.order);
            put(&mut out[start..], ORDER_PRICE, self.price + client_seq % LEVELS);
            self.asked.push_back(None);
        }
        put(&mut out[start..], CLIENT_SEQ, client_seq);
        true
    }

    fn answered(&mut self, client_seq: u64, report: &ExecutionReport) -> Result<(), Failure> {
        match self.asked.pop_front() {
            Some(None) if report.exec_type == ExecType::New => {
                self.standing.push_back(report.order_id);
                Ok(())
            }
            Some(Some(order)) if report.exec_type == ExecType::Cancelled && report.order_id == order => {
                Ok(())
            }
            asked => Err(format!("request {client_seq}, {asked:?}, was answered with {report:?}").into()),
        }
    }

    fn told(&mut self, report: &ExecutionReport) -> Result<(), Failure> {
        Err(format!("nobody meets these orders, and yet: {report:?}").into())
    }
}
