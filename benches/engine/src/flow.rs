//! The open orders of a stream, by the stream's own numbers. Whoever makes a stream asks here what is open and changes it through here; the
//! commands land on the venue's tape and, beside it, in the plain form that other books are given.

use std::collections::HashMap;

use grid_engine::command::{
    Command, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce,
};
use grid_engine::event::{Event, ReportBody};
use grid_engine::{InstrumentId, Label, OrderId, Price, Qty};

use crate::dice::Dice;
use crate::venue::{Setup, Venue};
use grid_harness::plain::{Message, Tally, Verb};

/// Not in any list of open orders.
const CLOSED: u32 = u32::MAX;

/// One order of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Buy or sell.
    pub side: Side,
    /// Where.
    pub instrument: InstrumentId,
    /// Its limit now.
    pub price: u32,
    /// Its open quantity now.
    pub remaining: u32,
    /// Who entered it.
    pub trader: u32,
    id: OrderId,
    /// Place in its instrument's list of open orders.
    at: u32,
}

/// A new order.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Who.
    pub trader: u32,
    /// Where.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Limit.
    pub price: u32,
    /// Quantity.
    pub qty: u32,
    /// How long it lives.
    pub tif: TimeInForce,
}

/// A venue and the orders that a stream has entered there.
#[derive(Debug)]
pub struct Flow {
    venue: Venue,
    orders: Vec<Known>,
    by_id: HashMap<OrderId, u32>,
    /// Open orders by instrument, in no order.
    open: Vec<Vec<u32>>,
    messages: Vec<Message>,
    tally: Tally,
    last_price: u32,
}

impl Flow {
    /// No orders yet.
    #[must_use]
    pub fn open(setup: &Setup) -> Self {
        Self {
            venue: Venue::open(setup),
            orders: Vec::new(),
            by_id: HashMap::new(),
            open: vec![Vec::new(); usize::from(setup.instruments)],
            messages: Vec::new(),
            tally: Tally::default(),
            last_price: 0,
        }
    }

    /// The venue.
    #[must_use]
    pub const fn venue(&self) -> &Venue {
        &self.venue
    }

    /// The venue, for commands that are none of an order book.
    pub const fn venue_mut(&mut self) -> &mut Venue {
        &mut self.venue
    }

    /// Its parts: the venue, the stream in plain form, and what it traded.
    #[must_use]
    pub fn into_parts(self) -> (Venue, Vec<Message>, Tally) {
        (self.venue, self.messages, self.tally)
    }

    /// The stream so far, in plain form.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Numbers of the open orders of an instrument.
    #[must_use]
    pub fn open_orders(&self, instrument: InstrumentId) -> &[u32] {
        &self.open[usize::from(instrument.0)]
    }

    /// Open orders of all instruments.
    #[must_use]
    pub fn open_in_all(&self) -> usize {
        self.by_id.len()
    }

    /// An order that was entered.
    #[must_use]
    pub fn order(&self, nth: u32) -> &Known {
        &self.orders[nth as usize]
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self, nth: u32) -> bool {
        self.order(nth).at != CLOSED
    }

    /// Any open order of an instrument.
    pub fn any(&self, instrument: InstrumentId, dice: &mut Dice) -> Option<u32> {
        let open = self.open_orders(instrument);
        (!open.is_empty()).then(|| open[dice.below(open.len() as u64) as usize])
    }

    /// The price of the last trade, 0 before the first.
    #[must_use]
    pub const fn last_price(&self) -> u32 {
        self.last_price
    }

    /// Enters an order; its number.
    ///
    /// # Panics
    /// When the engine refuses it, here as below.
    pub fn place(&mut self, wanted: Wanted) -> u32 {
        let Wanted { trader, instrument, side, price, qty, tif } = wanted;
        let nth = u32::try_from(self.orders.len()).expect("a stream has fewer orders");
        let verb = match tif {
            TimeInForce::Ioc => Verb::NewIoc,
            TimeInForce::Fok => Verb::NewFok,
            _ => Verb::New,
        };
        self.messages.push(Message { order: nth, price, qty, verb, buy: side == Side::Buy });
        let command = Command::Place(NewOrder {
            instrument,
            side,
            kind: OrderKind::Limit { price: Price(price.into()), tif },
            qty: Qty(qty.into()),
            stp: SelfTrade::Allow,
            label: Label::default(),
            tag: String::new(),
            to_consumption: false,
        });
        let id = OrderId::default();
        self.orders.push(Known { side, instrument, price, remaining: qty, trader, id, at: CLOSED });
        self.list(nth);
        self.send(trader, command, Some(nth));
        nth
    }

    /// Takes an order out.
    pub fn cancel(&mut self, nth: u32) {
        let order = *self.order(nth);
        self.message(nth, Verb::Cancel, order.price, order.remaining);
        self.send(order.trader, Command::Cancel { order: OrderRef::Id(order.id) }, None);
    }

    /// Asks for the cancel of an order that is not open, which is refused.
    ///
    /// # Panics
    /// When it is not.
    pub fn cancel_again(&mut self, nth: u32) {
        let order = *self.order(nth);
        self.venue.send(order.trader, Command::Cancel { order: OrderRef::Id(order.id) });
        let refused = self.venue.events().iter().any(|event| match event {
            Event::Report { report, .. } => matches!(report.body, ReportBody::Rejected { .. }),
            _ => false,
        });
        assert!(refused, "an order that is not open can't be cancelled");
    }

    /// Changes an order to another price or open quantity; without any, it is closed.
    pub fn replace(&mut self, nth: u32, price: u32, qty: u32) {
        let order = *self.order(nth);
        let keeps = price == order.price && qty <= order.remaining;
        let verb = match qty {
            0 => Verb::Cancel,
            _ if keeps => Verb::Reduce,
            _ => Verb::Move,
        };
        self.message(nth, verb, price, qty);
        let known = &mut self.orders[nth as usize];
        (known.price, known.remaining) = (price, qty);
        let command = Command::Replace {
            order: OrderRef::Id(order.id),
            qty: Qty(qty.into()),
            price: Price(price.into()),
            stp: SelfTrade::Allow,
            post_only: false,
        };
        self.send(order.trader, command, Some(nth));
    }

    /// Takes out all open orders of a trader.
    pub fn mass_cancel(&mut self, trader: u32) {
        self.send(trader, Command::MassCancel(MassCancelScope::default()), None);
    }

    /// Sends a mass quote of a trader with a session of its own, whose orders no list here has.
    ///
    /// # Panics
    /// When any of it is refused.
    pub fn quote(&mut self, trader: u32, quote: Command) {
        self.venue.send_own(trader, quote);
        let told = self.venue.events().iter().find_map(|event| match event {
            Event::Report { report, .. } => Some(report.body),
            _ => None,
        });
        assert!(matches!(told, Some(ReportBody::Quoted { refused: 0, .. })), "nothing is refused: {told:?}");
    }

    fn message(&mut self, nth: u32, verb: Verb, price: u32, qty: u32) {
        let buy = self.order(nth).side == Side::Buy;
        self.messages.push(Message { order: nth, price, qty, verb, buy });
    }

    /// Applies a command and learns from what it did; `taker` is the order that it is about, if that may trade.
    fn send(&mut self, trader: u32, command: Command, taker: Option<u32>) {
        self.venue.send(trader, command);
        for at in 0..self.venue.events().len() {
            match &self.venue.events()[at] {
                Event::OrderOpened(opened) => {
                    let nth = taker.expect("only a new order opens");
                    self.orders[nth as usize].id = opened.order.id;
                    self.by_id.insert(opened.order.id, nth);
                }
                Event::Traded(trade) => {
                    let (qty, price) = (trade.qty.0 as u32, trade.price.0 as u32);
                    let maker = self.by_id[&trade.maker_order];
                    let taker = taker.expect("only a new or a changed order takes");
                    self.tally.trade(taker, maker, price, qty);
                    self.last_price = price;
                    for nth in [taker, maker] {
                        self.orders[nth as usize].remaining -= qty;
                    }
                }
                Event::OrderClosed(closed) => {
                    let nth = self.by_id.remove(&closed.order.id).expect("it was opened");
                    self.unlist(nth);
                }
                Event::Report { report, .. } => {
                    let refused = matches!(report.body, ReportBody::Rejected { .. });
                    assert!(!refused, "nothing of a stream is refused: {report:?}");
                }
                _ => {}
            }
        }
    }

    fn list(&mut self, nth: u32) {
        let known = &mut self.orders[nth as usize];
        let open = &mut self.open[usize::from(known.instrument.0)];
        known.at = open.len() as u32;
        open.push(nth);
    }

    fn unlist(&mut self, nth: u32) {
        let Known { at, instrument, .. } = self.orders[nth as usize];
        self.orders[nth as usize].at = CLOSED;
        let open = &mut self.open[usize::from(instrument.0)];
        open.swap_remove(at as usize);
        if let Some(&moved) = open.get(at as usize) {
            self.orders[moved as usize].at = at;
        }
    }
}
