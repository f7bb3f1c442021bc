//! `orderbook-rs`: every command of a stream is one of its own. Trades are heard through its listener, which also tells those of an immediate order whose
//! remainder it answers as an error.

use std::sync::{Arc, Mutex, PoisonError};

use ::orderbook_rs::{Id, OrderBook, Side, TimeInForce};
use grid_harness::plain::{Book, Message, Tally, Verb};
use pricelevel::{OrderUpdate, Price, Quantity};

/// One of its books.
pub struct Peer {
    book: OrderBook<()>,
    told: Arc<Mutex<Tally>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

const fn number(id: Id) -> u32 {
    match id {
        Id::Sequential(number) => number as u32,
        _ => u32::MAX,
    }
}

impl Peer {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        let told = Arc::new(Mutex::new(Tally::default()));
        let heard = Arc::clone(&told);
        let mut book = OrderBook::new("BENCH");
        book.set_trade_listener(Arc::new(move |result| {
            let mut tally = heard.lock().unwrap_or_else(PoisonError::into_inner);
            for trade in result.match_result.trades().as_vec() {
                let (taker, maker) = (number(trade.taker_order_id()), number(trade.maker_order_id()));
                tally.trade(taker, maker, trade.price().as_u128() as u32, trade.quantity().as_u64() as u32);
            }
        }));
        Self { book, told }
    }
}

impl Book for Peer {
    fn name(&self) -> &'static str {
        "orderbook-rs 0.15"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        let Message { order, price, qty, verb, buy, .. } = *message;
        let id = Id::sequential(order.into());
        let side = if buy { Side::Buy } else { Side::Sell };
        let enter = |tif| {
            // A refusal is its answer to an order that could not fill; what it traded before, the listener has heard.
            let _ = self.book.add_limit_order(id, price.into(), qty.into(), side, tif, None);
        };
        match verb {
            Verb::New => enter(TimeInForce::Gtc),
            Verb::NewIoc => enter(TimeInForce::Ioc),
            Verb::NewFok => enter(TimeInForce::Fok),
            Verb::Cancel => {
                let _ = self.book.cancel_order(id);
            }
            Verb::Move => {
                let (new_price, new_quantity) = (Price::new(price.into()), Quantity::new(qty.into()));
                let _ = self.book.update_order(OrderUpdate::UpdatePriceAndQuantity {
                    order_id: id,
                    new_price,
                    new_quantity,
                });
            }
            Verb::Reduce => {
                let new_quantity = Quantity::new(qty.into());
                let _ = self.book.update_order(OrderUpdate::UpdateQuantity { order_id: id, new_quantity });
            }
        }
        *tally = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
    }

    fn open(&self) -> Option<usize> {
        Some(self.book.get_all_orders().len())
    }
}
