//! `matchcore`: every command of a stream is one of its own. It numbers its orders by the commands that made them, so this keeps which is which.

use ::matchcore::{
    AmendCmd, AmendPatch, CancelCmd, Command, CommandKind, CommandMeta, CommandOutcome, CommandReport,
    LimitOrder, LimitOrderPatch, NewOrder, OrderBook, OrderFlags, OrderId, OrderKind, Price, Quantity,
    QuantityPolicy, SequenceNumber, Side, SubmitCmd, TimeInForce, Timestamp,
};
use grid_harness::plain::{Book, Message, Tally, Verb};

/// One of its books.
#[derive(Debug)]
pub struct Peer {
    book: OrderBook,
    sequence: u64,
    /// Its ids, by the stream's numbers.
    ids: Vec<OrderId>,
    /// The stream's numbers, by its ids.
    numbers: Vec<u32>,
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { book: OrderBook::new("BENCH"), sequence: 0, ids: Vec::new(), numbers: Vec::new() }
    }

    fn submit(&mut self, message: &Message, time_in_force: TimeInForce) -> CommandKind {
        let at = message.order as usize;
        if self.ids.len() <= at {
            self.ids.resize(at + 1, OrderId(u64::MAX));
        }
        self.ids[at] = OrderId(self.sequence);
        let side = if message.buy { Side::Buy } else { Side::Sell };
        let quantity = QuantityPolicy::Standard { quantity: Quantity(message.qty.into()) };
        let flags = OrderFlags::new(side, false, time_in_force);
        let order = NewOrder::Limit(LimitOrder::new(Price(message.price.into()), quantity, flags));
        CommandKind::Submit(SubmitCmd { order })
    }

    fn amend(&self, message: &Message) -> CommandKind {
        let quantity = QuantityPolicy::Standard { quantity: Quantity(message.qty.into()) };
        let patch = LimitOrderPatch::new().with_quantity_policy(quantity);
        let patch =
            if message.verb == Verb::Move { patch.with_price(Price(message.price.into())) } else { patch };
        CommandKind::Amend(AmendCmd {
            order_id: self.ids[message.order as usize],
            patch: AmendPatch::Limit(patch),
        })
    }
}

impl Book for Peer {
    fn name(&self) -> &'static str {
        "matchcore 0.4"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        self.numbers.push(message.order);
        let kind = match message.verb {
            Verb::New => self.submit(message, TimeInForce::Gtc),
            Verb::NewIoc => self.submit(message, TimeInForce::Ioc),
            Verb::NewFok => self.submit(message, TimeInForce::Fok),
            Verb::Cancel => {
                let order_id = self.ids[message.order as usize];
                CommandKind::Cancel(CancelCmd { order_id, order_kind: OrderKind::Limit })
            }
            Verb::Move | Verb::Reduce => self.amend(message),
        };
        let meta = CommandMeta {
            sequence_number: SequenceNumber(self.sequence),
            timestamp: Timestamp(self.sequence),
        };
        self.sequence += 1;
        let outcome = self.book.execute(&Command { meta, kind });
        let CommandOutcome::Applied(CommandReport::Submit(effects) | CommandReport::Amend(effects)) = outcome
        else {
            return;
        };
        for trade in effects.target_order().match_result().map_or(&[][..], |result| result.trades()) {
            let maker = self.numbers[trade.maker_order_id().0 as usize];
            tally.trade(message.order, maker, trade.price().0 as u32, trade.quantity().0 as u32);
        }
    }

    fn open(&self) -> Option<usize> {
        Some(self.book.limit().orders().len())
    }
}
