//! The open orders of a stream, by the stream's own numbers. Whoever makes a stream asks here what is open and changes it through here; the
//! commands land on the venue's tape and, beside it, in the plain form that bare ladders and other books are given: what one command does to many
//! orders is there a message for each.

use std::collections::HashMap;

use grid_engine::command::{
    Command, MassCancelScope, NewOrder, OrderKind, OrderRef, QuoteEntry, SelfTrade, Side, TimeInForce,
};
use grid_engine::event::{Event, ReportBody};
use grid_engine::{InstrumentId, Label, OrderId, Price, Qty};

use crate::dice::Dice;
use crate::venue::{Setup, Venue};
use grid_harness::plain::{Call, Message, Tally, Verb};

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

/// Who takes where a command trades, by number.
#[derive(Clone, Copy, Debug)]
enum Taker {
    /// A new order, or a changed one.
    Order(u32),
    /// A call whose consumer has too few tokens.
    Call(u32),
}

/// A venue and the orders that a stream has entered there.
#[derive(Debug)]
pub struct Flow {
    venue: Venue,
    orders: Vec<Known>,
    by_id: HashMap<OrderId, u32>,
    /// Open orders by instrument, in no order.
    open: Vec<Vec<u32>>,
    /// Orders of quotes: trader, instrument, the maker's own number, side.
    quotes: HashMap<(u32, InstrumentId, u8, Side), u32>,
    messages: Vec<Message>,
    calls: Vec<Call>,
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
            quotes: HashMap::new(),
            messages: Vec::new(),
            calls: Vec::new(),
            tally: Tally::default(),
            last_price: 0,
        }
    }

    /// The venue.
    #[must_use]
    pub const fn venue(&self) -> &Venue {
        &self.venue
    }

    /// The venue, for commands that are to no order book and of no call.
    pub const fn venue_mut(&mut self) -> &mut Venue {
        &mut self.venue
    }

    /// Its parts: the venue, the stream in plain form, and what it traded.
    #[must_use]
    pub fn into_parts(self) -> (Venue, Vec<Message>, Vec<Call>, Tally) {
        (self.venue, self.messages, self.calls, self.tally)
    }

    /// The stream so far in plain form: what it sent to books.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The stream so far in plain form: the steps of its calls.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
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
        let verb = match tif {
            TimeInForce::Ioc => Verb::NewIoc,
            TimeInForce::Fok => Verb::NewFok,
            _ => Verb::New,
        };
        let nth = self.know(wanted);
        self.message(nth, verb, price, qty);
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
        self.list(nth);
        self.send(trader, command, Some(Taker::Order(nth)));
        nth
    }

    /// The number of one more order, which no list has yet.
    fn know(&mut self, wanted: Wanted) -> u32 {
        let Wanted { trader, instrument, side, price, qty, tif: _ } = wanted;
        let id = OrderId::default();
        self.orders.push(Known { side, instrument, price, remaining: qty, trader, id, at: CLOSED });
        u32::try_from(self.orders.len() - 1).expect("a stream has fewer orders")
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
        self.change(nth, price, qty);
        let command = Command::Replace {
            order: OrderRef::Id(order.id),
            qty: Qty(qty.into()),
            price: Price(price.into()),
            stp: SelfTrade::Allow,
            post_only: false,
        };
        self.send(order.trader, command, Some(Taker::Order(nth)));
    }

    /// A change in plain form.
    fn change(&mut self, nth: u32, price: u32, qty: u32) {
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
    }

    /// Takes out all open orders of a trader.
    pub fn mass_cancel(&mut self, trader: u32) {
        let open = self.open.iter().flatten().copied().filter(|&nth| self.order(nth).trader == trader);
        for nth in open.collect::<Vec<_>>() {
            let Known { price, remaining, .. } = *self.order(nth);
            self.message(nth, Verb::Cancel, price, remaining);
        }
        self.send(trader, Command::MassCancel(MassCancelScope::default()), None);
    }

    /// Sends a mass quote of a trader with a session of its own, whose orders no list here has.
    ///
    /// # Panics
    /// When any of it is refused, or trades.
    pub fn quote(&mut self, trader: u32, entries: Box<[QuoteEntry]>) {
        let sides = entries.iter().flat_map(|entry| {
            [(Side::Buy, entry.bid), (Side::Sell, entry.ask)].map(|(side, wanted)| {
                let (price, qty) = (wanted.price.0 as u32, wanted.qty.0 as u32);
                let instrument = entry.instrument;
                (entry.quote, Wanted { trader, instrument, side, price, qty, tif: TimeInForce::Gtc })
            })
        });
        // As in the engine, sides that move away from the other side go first.
        let (away, towards): (Vec<_>, Vec<_>) = sides.partition(|(quote, wanted)| {
            let standing = self.quotes.get(&(trader, wanted.instrument, *quote, wanted.side));
            standing.is_some_and(|&nth| match wanted.side {
                Side::Buy => wanted.price < self.order(nth).price,
                Side::Sell => wanted.price > self.order(nth).price,
            })
        });
        away.into_iter().chain(towards).for_each(|(quote, wanted)| self.quote_side(quote, wanted));
        self.venue.send_own(trader, Command::MassQuote { entries, stp: SelfTrade::Allow, post_only: false });
        let events = self.venue.events();
        assert!(!events.iter().any(|event| matches!(event, Event::Traded(_))), "quotes here never meet");
        let told = events.iter().find_map(|event| match event {
            Event::Report { report, .. } => Some(report.body),
            _ => None,
        });
        assert!(matches!(told, Some(ReportBody::Quoted { refused: 0, .. })), "nothing is refused: {told:?}");
    }

    /// One side of a quote in plain form: an order that is new, changed or left as it is.
    fn quote_side(&mut self, quote: u8, wanted: Wanted) {
        let Wanted { trader, instrument, side, price, qty, .. } = wanted;
        let key = (trader, instrument, quote, side);
        let Some(&nth) = self.quotes.get(&key) else {
            let nth = self.know(wanted);
            self.quotes.insert(key, nth);
            return self.message(nth, Verb::New, price, qty);
        };
        if (price, qty) != (self.order(nth).price, self.order(nth).remaining) {
            self.change(nth, price, qty);
        }
    }

    /// Sends a step of a call; one that sets aside may buy. What came of it is in the venue's events.
    pub fn call(&mut self, consumer: u32, command: Command, call: Call) {
        self.calls.push(call);
        self.send(consumer, command, Some(Taker::Call(call.number)));
    }

    fn message(&mut self, nth: u32, verb: Verb, price: u32, qty: u32) {
        let Known { side, instrument, .. } = *self.order(nth);
        let (book, buy) = (instrument.0, side == Side::Buy);
        self.messages.push(Message { order: nth, price, qty, book, verb, buy });
    }

    /// Applies a command and learns from what it did; `taker` is who may trade by it.
    fn send(&mut self, trader: u32, command: Command, taker: Option<Taker>) {
        self.venue.send(trader, command);
        for at in 0..self.venue.events().len() {
            match &self.venue.events()[at] {
                Event::OrderOpened(opened) => {
                    // What a call buys by is an order too, which no list has.
                    if let Taker::Order(nth) = taker.expect("only an order or a call opens one") {
                        self.orders[nth as usize].id = opened.order.id;
                        self.by_id.insert(opened.order.id, nth);
                    }
                }
                Event::Traded(trade) => {
                    let (qty, price) = (trade.qty.0 as u32, trade.price.0 as u32);
                    let maker = self.by_id[&trade.maker_order];
                    let taker = match taker.expect("only an order or a call takes") {
                        Taker::Order(nth) => {
                            self.orders[nth as usize].remaining -= qty;
                            nth
                        }
                        Taker::Call(number) => number,
                    };
                    self.orders[maker as usize].remaining -= qty;
                    self.tally.trade(taker, maker, price, qty);
                    self.last_price = price;
                }
                Event::OrderClosed(closed) => match self.by_id.remove(&closed.order.id) {
                    Some(nth) => self.unlist(nth),
                    None => assert!(matches!(taker, Some(Taker::Call(_))), "an order that closes was opened"),
                },
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
