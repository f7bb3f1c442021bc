//! Commands over many books at once, so that what a command needs is seldom in a cache: almost half of them new orders, as many
//! cancels and fills, and some that move an order.

use grid_engine::InstrumentId;
use grid_engine::command::{Side, TimeInForce};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const CENTRE: u32 = 10_000;
/// The tail of the weights of books: a few are busy, most are not.
const TAIL: f64 = 1.5;

/// How many books and orders, and how the commands spread over them.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    /// Books.
    pub books: u16,
    /// Orders that rest in all of them together.
    pub resting: u64,
    /// Accounts that trade in them.
    pub traders: u32,
    /// Whether some books get more of it all than others, by a Pareto law; or all the same.
    pub pareto: bool,
}

impl Books {
    /// The venue that they are on, without any orders yet.
    #[must_use]
    pub fn venue(self) -> Flow {
        let setup = Setup {
            traders: self.traders,
            instruments: self.books,
            sellers: self.sellers(),
            sessions: 4,
            max_price: 20_000,
            consumers: 0,
        };
        Flow::open(&setup)
    }

    /// Of few books everybody trades each; of many, each has ten who do.
    const fn sellers(self) -> u32 {
        if self.books < 100 || self.traders < 10 { self.traders } else { 10 }
    }

    /// `commands` of the mix, on books that are full.
    #[must_use]
    pub fn tape(self, commands: u64) -> Tape {
        let mut flow = self.venue();
        let mut mix = Mix::new(self);
        for nth in 0..self.resting {
            mix.rest(&mut flow);
            if nth.is_multiple_of(1 << 16) {
                // Millions of commands that nobody will run again.
                flow.venue_mut().clear_tape();
            }
        }
        Tape::record(flow, |flow| (0..commands).for_each(|_| mix.next(flow)))
    }
}

struct Mix {
    books: Books,
    dice: Dice,
    /// Weights added up.
    upto: Vec<f64>,
}

impl Mix {
    fn new(books: Books) -> Self {
        let mut dice = Dice::new(8);
        let mut all = 0.0;
        let upto = (0..books.books)
            .map(|_| {
                all += if books.pareto { (1.0 - dice.unit()).powf(-1.0 / TAIL) } else { 1.0 };
                all
            })
            .collect();
        Self { books, dice, upto }
    }

    fn instrument(&mut self) -> InstrumentId {
        let all = self.upto.last().copied().unwrap_or_default();
        let at = self.dice.unit() * all;
        InstrumentId(self.upto.partition_point(|&upto| upto <= at) as u16)
    }

    fn next(&mut self, flow: &mut Flow) {
        let instrument = self.instrument();
        let Some(order) = flow.any(instrument, &mut self.dice) else { return self.rest(flow) };
        match self.dice.below(100) {
            0..5 => self.take(flow, instrument),
            // What is taken or cancelled is put back: the books stay as full as they were.
            5..93 if (flow.open_in_all() as u64) < self.books.resting => self.rest_in(flow, instrument),
            5..93 => flow.cancel(order),
            _ => {
                let price = self.price(flow.order(order).side);
                flow.replace(order, price, 1 + self.dice.below(100) as u32);
            }
        }
    }

    fn rest(&mut self, flow: &mut Flow) {
        let instrument = self.instrument();
        self.rest_in(flow, instrument);
    }

    fn rest_in(&mut self, flow: &mut Flow, instrument: InstrumentId) {
        let (trader, side) = self.trader(instrument);
        let (price, qty) = (self.price(side), 1 + self.dice.below(100) as u32);
        flow.place(Wanted { trader, instrument, side, price, qty, tif: TimeInForce::Gtc });
    }

    fn take(&mut self, flow: &mut Flow, instrument: InstrumentId) {
        let (trader, side) = self.trader(instrument);
        let price = if side == Side::Buy { CENTRE + 500 } else { CENTRE - 500 };
        let qty = 1 + self.dice.below(50) as u32;
        flow.place(Wanted { trader, instrument, side, price, qty, tif: TimeInForce::Ioc });
    }

    /// One of those that the instrument is supplied to.
    fn trader(&mut self, instrument: InstrumentId) -> (u32, Side) {
        let (sellers, traders) = (self.books.sellers(), self.books.traders);
        let nth = self.dice.below(sellers.into()) as u32;
        let side = if self.dice.below(2) == 0 { Side::Buy } else { Side::Sell };
        ((u32::from(instrument.0) * sellers + nth) % traders, side)
    }

    /// Around the middle, the wider the more orders a book has.
    fn price(&mut self, side: Side) -> u32 {
        let levels = (self.books.resting / u64::from(self.books.books)).clamp(20, 5_000);
        let away = 1 + self.dice.below(levels) as u32;
        if side == Side::Buy { CENTRE - away } else { CENTRE + away }
    }
}
