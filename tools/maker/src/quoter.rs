//! One instrument's quotes: where they should be, where they are, and the few messages that bring the one to the
//! other. State follows the venue's reports and nothing else; between a message and its report a level is left alone.

use grid_client::Request;
use grid_wire::{
    CancelOrder, ExecType, ExecutionReport, NewOrder, OrdStatus, OrderFlags, OrderType, ReplaceOrder,
    SelfTrade, Side, TimeInForce,
};

/// Steps that a refused level stays empty: its money or units may come back.
const REST_STEPS: u64 = 10;

/// How to quote one instrument.
#[derive(Clone, Debug)]
pub struct Quote {
    /// The instrument.
    pub instrument: u16,
    /// Where the walk starts and what it is drawn back to, ticks per Unit.
    pub reference_price: u64,
    /// Best bid and best ask stand this far from the reference, ticks; at least 1.
    pub half_spread: u64,
    /// From one level to the next, ticks; at least 1.
    pub level_gap: u64,
    /// Levels a side.
    pub levels: usize,
    /// Units at each level.
    pub level_qty: u64,
    /// Units owned at the start: it never asks more than it owns.
    pub units: u64,
    /// The reference moves at most this many ticks a step.
    pub step_ticks: u64,
}

impl Quote {
    /// A quote that suits most prices: three levels of 5 Units, half a percent around the reference.
    #[must_use]
    pub fn around(instrument: u16, reference_price: u64, units: u64) -> Self {
        let half_spread = (reference_price / 200).max(1);
        Self {
            instrument,
            reference_price,
            half_spread,
            level_gap: half_spread,
            levels: 3,
            level_qty: 5,
            units,
            step_ticks: (half_spread / 2).max(1),
        }
    }
}

/// What came of quoting one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fills {
    /// The instrument.
    pub instrument: u16,
    /// Fills.
    pub count: u64,
    /// Units bought.
    pub bought: u64,
    /// Units sold.
    pub sold: u64,
    /// Units owned now, those on offer included.
    pub units: u64,
    /// The reference price now, ticks per Unit.
    pub reference_price: u64,
    /// Orders resting now.
    pub resting: usize,
}

impl Fills {
    pub(crate) fn new(quote: &Quote) -> Self {
        Self {
            instrument: quote.instrument,
            count: 0,
            bought: 0,
            sold: 0,
            units: quote.units,
            reference_price: quote.reference_price,
            resting: 0,
        }
    }
}

/// A message that a quoter wants sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Place(NewOrder),
    Replace(ReplaceOrder),
    Cancel(CancelOrder),
}

impl Action {
    pub(crate) fn label(&self) -> u128 {
        match self {
            Self::Place(m) => m.label,
            Self::Replace(m) => m.label,
            Self::Cancel(m) => m.label,
        }
    }

    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Place(m) => (*m).into(),
            Self::Replace(m) => (*m).into(),
            Self::Cancel(m) => (*m).into(),
        }
    }
}

/// An order of ours as the venue last reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resting {
    label: u128,
    price: u64,
    open: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    side: Side,
    level: u64,
    order: Option<Resting>,
    rests_until: u64,
}

/// The quotes of one instrument.
#[derive(Debug)]
pub(crate) struct Quoter {
    quote: Quote,
    budget: usize,
    draw: u64,
    steps: u64,
    generation: u64,
    slots: Vec<Slot>,
    fills: Fills,
}

impl Quoter {
    pub(crate) fn new(quote: Quote, budget: usize, seed: u64) -> Self {
        let slot = |side, level| Slot { side, level, order: None, rests_until: 0 };
        let slots =
            (0..quote.levels as u64).flat_map(|l| [slot(Side::Buy, l), slot(Side::Sell, l)]).collect();
        Self { fills: Fills::new(&quote), quote, budget, draw: seed, steps: 0, generation: 0, slots }
    }

    pub(crate) fn fills(&self) -> &Fills {
        &self.fills
    }

    /// Forgets every order: the venue was told to cancel them all.
    pub(crate) fn forget(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.order = None);
        self.fills.resting = 0;
    }

    /// Moves the reference and says what to send.
    pub(crate) fn step(&mut self) -> Vec<Action> {
        self.steps += 1;
        let before = self.fills.reference_price;
        self.fills.reference_price = self.walk();
        // Away from the market first: after a rise asks make room before bids follow, and the other way round.
        let first = if self.fills.reference_price >= before { Side::Sell } else { Side::Buy };
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|i| self.slots[*i].side != first);
        let wanted = self.wanted();
        let mut actions = Vec::new();
        for i in order {
            if actions.len() == self.budget {
                break;
            }
            actions.extend(self.bring(i, wanted[i]));
        }
        actions
    }

    /// The next reference: a random step, drawn back a little, never beyond a fifth of where it started.
    fn walk(&mut self) -> u64 {
        let home = self.quote.reference_price;
        let now = self.fills.reference_price;
        let span = 2 * self.quote.step_ticks + 1;
        let step = (self.next_draw() % span) as i64 - self.quote.step_ticks as i64;
        let back = (home as i64 - now as i64) / 32;
        let lowest = (home - home / 5).max(1 + self.quote.half_spread);
        now.saturating_add_signed(step + back).clamp(lowest, (home + home / 5).max(lowest))
    }

    fn next_draw(&mut self) -> u64 {
        // SplitMix64: the same seed, the same walk.
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draw;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Price and quantity that each slot should show; quantity 0 for nothing.
    fn wanted(&self) -> Vec<(u64, u64)> {
        let mut to_sell = self.fills.units;
        let spread = self.quote.half_spread.max(1);
        (self.slots.iter())
            .map(|slot| {
                let away = spread + slot.level * self.quote.level_gap.max(1);
                let reference = self.fills.reference_price;
                match slot.side {
                    Side::Buy if reference > away => (reference - away, self.quote.level_qty),
                    Side::Buy => (0, 0),
                    Side::Sell => {
                        let qty = self.quote.level_qty.min(to_sell);
                        to_sell -= qty;
                        (reference + away, qty)
                    }
                }
            })
            .collect()
    }

    /// The message that brings one slot to what it should show, if it needs one and may have one.
    fn bring(&mut self, index: usize, (price, qty): (u64, u64)) -> Option<Action> {
        let slot = &self.slots[index];
        match slot.order {
            Some(order) if (order.price, order.open) == (price, qty) => None,
            _ if self.steps < slot.rests_until => None,
            Some(order) if qty == 0 => {
                Some(Action::Cancel(CancelOrder { label: order.label, ..CancelOrder::default() }))
            }
            Some(order) => Some(Action::Replace(ReplaceOrder {
                label: order.label,
                price,
                qty,
                self_trade: SelfTrade::CancelNewest,
                flags: OrderFlags::POST_ONLY,
                ..ReplaceOrder::default()
            })),
            None if qty == 0 => None,
            None => {
                self.generation += 1;
                Some(Action::Place(NewOrder {
                    label: label(self.generation, self.quote.instrument, index),
                    price,
                    qty,
                    instrument: self.quote.instrument,
                    side: slot.side,
                    order_type: OrderType::Limit,
                    time_in_force: TimeInForce::Gtc,
                    self_trade: SelfTrade::CancelNewest,
                    flags: OrderFlags::POST_ONLY,
                    ..NewOrder::default()
                }))
            }
        }
    }

    /// A message about this label was refused: its level is left as it is for a while.
    pub(crate) fn refused(&mut self, label: u128) {
        let until = self.steps + REST_STEPS;
        if let Some(slot) = self.slots.get_mut(index_of(label)) {
            slot.rests_until = until;
        }
    }

    /// Takes in a report about any order; those of others are passed over.
    pub(crate) fn report(&mut self, report: &ExecutionReport) {
        if report.instrument != self.quote.instrument {
            return;
        }
        let Some(slot) = self.slots.get_mut(index_of(report.label)) else {
            return;
        };
        let open =
            matches!(report.ord_status, OrdStatus::New | OrdStatus::PartiallyFilled) && report.leaves_qty > 0;
        if open || slot.order.is_some_and(|o| o.label == report.label) {
            let order = Resting { label: report.label, price: report.price, open: report.leaves_qty };
            slot.order = open.then_some(order);
        }
        self.fills.resting = self.slots.iter().filter(|s| s.order.is_some()).count();
        if report.exec_type == ExecType::Trade {
            self.filled(report);
        }
    }

    fn filled(&mut self, report: &ExecutionReport) {
        self.fills.count += 1;
        match report.side {
            Side::Buy => {
                self.fills.bought += report.last_qty;
                self.fills.units += report.last_qty;
            }
            Side::Sell => {
                self.fills.sold += report.last_qty;
                self.fills.units = self.fills.units.saturating_sub(report.last_qty);
            }
        }
        tracing::info!(
            instrument = report.instrument,
            side = ?report.side,
            qty = report.last_qty,
            price = report.last_price,
            "the market maker traded"
        );
    }
}

/// The client's label of an order: unique, and it says which slot it is for.
fn label(generation: u64, instrument: u16, index: usize) -> u128 {
    u128::from(generation) << 32 | u128::from(instrument) << 16 | (index as u128 + 1)
}

/// The slot that a label is for; beyond all slots where it is none of ours.
fn index_of(label: u128) -> usize {
    ((label & 0xffff) as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A venue that takes every message and reports it, as the real one does; its orders by label.
    #[derive(Default)]
    struct Book(BTreeMap<u128, ExecutionReport>);

    impl Book {
        fn take(&mut self, action: &Action) -> ExecutionReport {
            let report = match action {
                Action::Place(m) => ExecutionReport {
                    label: m.label,
                    price: m.price,
                    leaves_qty: m.qty,
                    side: m.side,
                    instrument: m.instrument,
                    exec_type: ExecType::New,
                    ..ExecutionReport::default()
                },
                Action::Replace(m) => ExecutionReport {
                    price: m.price,
                    leaves_qty: m.qty,
                    exec_type: ExecType::Replaced,
                    ..self.0[&m.label]
                },
                Action::Cancel(m) => ExecutionReport {
                    leaves_qty: 0,
                    exec_type: ExecType::Cancelled,
                    ord_status: OrdStatus::Cancelled,
                    ..self.0[&m.label]
                },
            };
            if report.leaves_qty == 0 {
                self.0.remove(&report.label);
            } else {
                self.0.insert(report.label, report);
            }
            report
        }

        fn fill(&mut self, label: u128) -> ExecutionReport {
            let order = self.0.remove(&label).expect("a resting order");
            ExecutionReport {
                leaves_qty: 0,
                last_qty: order.leaves_qty,
                last_price: order.price,
                exec_type: ExecType::Trade,
                ord_status: OrdStatus::Filled,
                ..order
            }
        }

        fn prices(&self, side: Side) -> Vec<u64> {
            let mut prices: Vec<u64> = self.0.values().filter(|o| o.side == side).map(|o| o.price).collect();
            prices.sort_unstable();
            prices
        }

        fn asked(&self) -> u64 {
            self.0.values().filter(|o| o.side == Side::Sell).map(|o| o.leaves_qty).sum()
        }
    }

    fn run(quoter: &mut Quoter, book: &mut Book, steps: u64) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..steps {
            let actions = quoter.step();
            for action in &actions {
                let report = book.take(action);
                quoter.report(&report);
            }
            all.extend(actions);
        }
        all
    }

    #[test]
    fn both_sides_stand_around_a_reference_that_wanders_but_not_far() {
        let mut quoter = Quoter::new(Quote::around(3, 1_000, 100), 6, 7);
        let mut book = Book::default();
        let mut seen = Vec::new();
        for _ in 0..5_000 {
            run(&mut quoter, &mut book, 1);
            let reference = quoter.fills().reference_price;
            seen.push(reference);
            let (bids, asks) = (book.prices(Side::Buy), book.prices(Side::Sell));
            assert_eq!((bids.len(), asks.len()), (3, 3));
            assert!(bids[2] < reference && reference < asks[0], "{bids:?} {reference} {asks:?}");
        }
        let (low, high) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*low >= 800 && *high <= 1_200 && high - low > 10, "it wanders between {low} and {high}");
    }

    #[test]
    fn the_same_seed_sends_the_same_messages() {
        let actions =
            |seed| run(&mut Quoter::new(Quote::around(0, 500, 9), 4, seed), &mut Book::default(), 50);
        assert_eq!(actions(1), actions(1));
        assert_ne!(actions(1), actions(2));
    }

    #[test]
    fn no_step_sends_more_than_its_budget() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 100), 2, 1);
        let mut book = Book::default();
        for _ in 0..200 {
            assert!(run(&mut quoter, &mut book, 1).len() <= 2);
        }
        assert_eq!(book.0.len(), 6, "all levels get their turn");
    }

    #[test]
    fn it_asks_only_what_it_owns_and_puts_back_what_was_bought() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 7), 12, 1);
        let mut book = Book::default();
        run(&mut quoter, &mut book, 3);
        assert_eq!(book.asked(), 7, "5 at the best level, 2 at the next");
        let best = *book.0.values().filter(|o| o.side == Side::Sell).min_by_key(|o| o.price).unwrap();
        quoter.report(&book.fill(best.label));
        assert_eq!((quoter.fills().units, quoter.fills().sold), (2, 5));
        run(&mut quoter, &mut book, 3);
        assert_eq!(book.asked(), 2);
        let bid = *book.0.values().find(|o| o.side == Side::Buy).unwrap();
        quoter.report(&book.fill(bid.label));
        run(&mut quoter, &mut book, 3);
        assert_eq!((quoter.fills().bought, book.asked()), (5, 7));
        assert_eq!(book.prices(Side::Buy).len(), 3, "the filled bid stands again");
    }

    #[test]
    fn a_refused_level_rests_before_it_is_tried_again() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 0), 12, 1);
        let first = quoter.step();
        first.iter().for_each(|action| quoter.refused(action.label()));
        assert!((1..REST_STEPS).all(|_| quoter.step().is_empty()));
        assert_eq!(quoter.step().len(), first.len());
    }
}
