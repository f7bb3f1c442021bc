//! A stream without its market: no accounts, orders and calls named by the stream's own dense numbers. The same one runs through our engine, the bare
//! ladder and, where it is of one book, other crates, and what they traded can be compared.

/// One command to one order book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The order: `New` counts them up from 0 over the whole stream, the others name one that may be open.
    pub order: u32,
    /// Limit of a new order, or the new limit of a moved one, in ticks.
    pub price: u32,
    /// Quantity of a new order, or the open quantity that a changed one has from then on.
    pub qty: u32,
    /// Which book: other crates have one.
    pub book: u16,
    /// What to do.
    pub verb: Verb,
    /// The order's side, in every message.
    pub buy: bool,
}

/// What a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A new order whose remainder rests.
    New,
    /// A new order whose remainder is closed.
    NewIoc,
    /// A new order that fills whole or not at all.
    NewFok,
    /// Take it out.
    Cancel,
    /// Another price, or a larger quantity: it loses its place, and trades if it crosses.
    Move,
    /// A smaller quantity at the same price: it keeps its place.
    Reduce,
}

/// One step of a call: tokens of a consumer set aside, or settled. Who has too few buys one Unit first, at the best price there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The call: those that set aside count it up from 0 over the whole stream.
    pub number: u32,
    /// Who pays.
    pub consumer: u32,
    /// How many tokens are set aside, or were used of those.
    pub tokens: u32,
    /// Whether the call is over.
    pub settles: bool,
}

/// What a book traded: equal for two books if they made the same trades in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Matches of one maker with one taker.
    pub trades: u64,
    /// Their quantities together.
    pub qty: u64,
    /// Over taker, maker, price and quantity of each, in order.
    pub digest: u64,
}

impl Tally {
    /// Counts one match.
    #[inline]
    pub fn trade(&mut self, taker: u32, maker: u32, price: u32, qty: u32) {
        self.trades += 1;
        self.qty += u64::from(qty);
        let names = (u64::from(taker) << 32) | u64::from(maker);
        let terms = (u64::from(price) << 32) | u64::from(qty);
        self.digest =
            (self.digest.rotate_left(5) ^ names ^ terms.rotate_left(17)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// An order book, ours or another's, that plain messages are sent to.
pub trait Book {
    /// Whose it is, with its version.
    fn name(&self) -> &'static str;
    /// Applies one message and counts what it traded.
    fn apply(&mut self, message: &Message, tally: &mut Tally);
    /// Applies them all.
    fn run(&mut self, messages: &[Message], tally: &mut Tally) {
        messages.iter().for_each(|message| self.apply(message, tally));
    }
    /// Open orders, where it can say.
    fn open(&self) -> Option<usize>;
}

/// A book that can be made anew for every run.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// Whose, with its version.
    pub name: &'static str,
    /// What one has to know to compare it.
    pub note: &'static str,
    /// An empty one.
    pub make: fn() -> Box<dyn Book>,
}
