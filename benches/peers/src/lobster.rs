//! `lobster`: limit, market and cancel. A change is a cancel and a new order under the same id, and an immediate order one whose remainder is cancelled
//! at once. What must fill whole can't be asked for, and is immediate.

use ::lobster::{OrderBook, OrderEvent, OrderType, Side};
use grid_harness::plain::{Book, Message, Tally, Verb};

/// One of its books.
#[derive(Debug, Default)]
pub struct Peer {
    book: OrderBook,
}

impl Peer {
    /// Empty, with room for the orders of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { book: OrderBook::new(50_000, 10, false) }
    }

    fn enter(&mut self, message: &Message, rests: bool, tally: &mut Tally) {
        let Message { order, price, qty, buy, .. } = *message;
        let id = u128::from(order);
        let side = if buy { Side::Bid } else { Side::Ask };
        let event = self.book.execute(OrderType::Limit { id, side, qty: qty.into(), price: price.into() });
        let over = match event {
            OrderEvent::Filled { fills, .. } => {
                count(&fills, tally);
                false
            }
            OrderEvent::PartiallyFilled { fills, .. } => {
                count(&fills, tally);
                true
            }
            _ => true,
        };
        if over && !rests {
            self.book.execute(OrderType::Cancel { id });
        }
    }
}

fn count(fills: &[::lobster::FillMetadata], tally: &mut Tally) {
    for fill in fills {
        tally.trade(fill.order_1 as u32, fill.order_2 as u32, fill.price as u32, fill.qty as u32);
    }
}

impl Book for Peer {
    fn name(&self) -> &'static str {
        "lobster 0.7"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        match message.verb {
            Verb::New => self.enter(message, true, tally),
            Verb::NewIoc | Verb::NewFok => self.enter(message, false, tally),
            Verb::Cancel => {
                self.book.execute(OrderType::Cancel { id: message.order.into() });
            }
            Verb::Move | Verb::Reduce => {
                self.book.execute(OrderType::Cancel { id: message.order.into() });
                self.enter(message, true, tally);
            }
        }
    }

    fn open(&self) -> Option<usize> {
        None
    }
}
