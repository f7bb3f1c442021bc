//! One instrument's quotes: where they should be, where they are, and the mass quote that brings the one to the other. State
//! follows what the venue tells and nothing else. Whatever it tells last by its log holds, in whatever order it arrives.

use grid_wire::{ExecType, ExecutionReport, MassQuoteReport, OrdStatus, QuoteEntry, QuoteRefused, Side};

/// Steps that a refused side stays empty: its money or Units may come back, and the market move on.
const REST_STEPS: u64 = 3;

/// The numbers that a maker may give its quotes end here.
const LEVELS_MAX: usize = 63;

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
    /// Levels a side; at most 63.
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
    /// Sides of quotes resting now.
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

/// Price and Units of one side; no Units where nothing is to stand, or does.
type Shown = (u64, u64);

/// One side of a quote as the venue last told of it.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    shown: Shown,
    /// The place in the log of what it was told about.
    as_of: u64,
    rests_until: u64,
}

impl Standing {
    /// What a report says of it, unless something later is known.
    fn learn(&mut self, shown: Shown, log_seq: u64) {
        if log_seq >= self.as_of {
            (self.shown, self.as_of) = (if shown.1 == 0 { (0, 0) } else { shown }, log_seq);
        }
    }

    /// What a mass quote made it. A report of its own from the same place in the log tells of what came of that.
    fn made(&mut self, shown: Shown, log_seq: u64) {
        if log_seq > self.as_of {
            self.learn(shown, log_seq);
        }
    }
}

/// A bid and an ask.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    bid: Standing,
    ask: Standing,
}

impl Pair {
    fn side_mut(&mut self, side: Side) -> &mut Standing {
        match side {
            Side::Buy => &mut self.bid,
            Side::Sell => &mut self.ask,
        }
    }
}

/// The quotes of one instrument, best first; a quote's number is its level, from 1.
#[derive(Debug)]
pub(crate) struct Quoter {
    quote: Quote,
    budget: usize,
    draw: u64,
    steps: u64,
    /// The level that is looked at first, so that all get their turn.
    turn: usize,
    pairs: Vec<Pair>,
    fills: Fills,
}

impl Quoter {
    pub(crate) fn new(quote: Quote, budget: usize, seed: u64) -> Self {
        let pairs = vec![Pair::default(); quote.levels.min(LEVELS_MAX)];
        Self { fills: Fills::new(&quote), quote, budget, draw: seed, steps: 0, turn: 0, pairs }
    }

    pub(crate) fn fills(&self) -> &Fills {
        &self.fills
    }

    /// Forgets what stands: the venue took it all out at this place in the log.
    pub(crate) fn forget(&mut self, log_seq: u64) {
        for pair in &mut self.pairs {
            pair.bid.learn((0, 0), log_seq);
            pair.ask.learn((0, 0), log_seq);
        }
        self.count_resting();
    }

    /// Moves the reference and says which quotes to send; none where all are as they should be.
    pub(crate) fn step(&mut self) -> Vec<QuoteEntry> {
        self.steps += 1;
        self.fills.reference_price = self.walk();
        let wanted = self.wanted();
        let levels = self.pairs.len();
        let mut entries = Vec::new();
        for level in (0..levels).map(|nth| (self.turn + nth) % levels) {
            let (pair, (bid, ask)) = (&self.pairs[level], wanted[level]);
            if (pair.bid.shown, pair.ask.shown) == (bid, ask) {
                continue;
            }
            if entries.len() == self.budget {
                self.turn = level;
                break;
            }
            entries.push(QuoteEntry {
                bid_price: bid.0,
                bid_qty: bid.1,
                ask_price: ask.0,
                ask_qty: ask.1,
                instrument: self.quote.instrument,
                quote: level as u8 + 1,
            });
        }
        entries
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

    /// What each level should show.
    fn wanted(&self) -> Vec<(Shown, Shown)> {
        let mut to_sell = self.fills.units;
        let reference = self.fills.reference_price;
        (self.pairs.iter().zip(0..))
            .map(|(pair, level)| {
                let away = self.quote.half_spread.max(1) + level * self.quote.level_gap.max(1);
                let bid = match reference > away && self.steps >= pair.bid.rests_until {
                    true => (reference - away, self.quote.level_qty),
                    false => (0, 0),
                };
                let qty = self.quote.level_qty.min(to_sell);
                to_sell -= qty;
                let ask = match qty > 0 && self.steps >= pair.ask.rests_until {
                    true => (reference + away, qty),
                    false => (0, 0),
                };
                (bid, ask)
            })
            .collect()
    }

    fn side_mut(&mut self, quote: u8, side: Side) -> Option<&mut Standing> {
        let level = usize::from(quote).checked_sub(1)?;
        self.pairs.get_mut(level).map(|pair| pair.side_mut(side))
    }

    /// These quotes are done, except for what was refused of them, which is left alone for a while.
    pub(crate) fn quoted(
        &mut self,
        sent: &[QuoteEntry],
        report: &MassQuoteReport,
        refusals: &[QuoteRefused],
    ) {
        for entry in sent {
            let sides =
                [(Side::Buy, entry.bid_price, entry.bid_qty), (Side::Sell, entry.ask_price, entry.ask_qty)];
            for (side, price, qty) in sides {
                let refused = refusals.iter().any(|told| (told.quote, told.side) == (entry.quote, side));
                let qty = if refused { 0 } else { qty };
                let until = self.steps + REST_STEPS;
                if let Some(standing) = self.side_mut(entry.quote, side) {
                    standing.made((price, qty), report.log_seq);
                    if refused {
                        standing.rests_until = until;
                    }
                }
            }
        }
        self.count_resting();
    }

    /// Takes in a report about any order; those of others are passed over.
    pub(crate) fn report(&mut self, report: &ExecutionReport) {
        if report.instrument != self.quote.instrument {
            return;
        }
        let Some(standing) = self.side_mut(report.quote, report.side) else {
            return;
        };
        let open = matches!(report.ord_status, OrdStatus::New | OrdStatus::PartiallyFilled);
        standing.learn((report.price, if open { report.leaves_qty } else { 0 }), report.log_seq);
        self.count_resting();
        if report.exec_type == ExecType::Trade {
            self.filled(report);
        }
    }

    fn count_resting(&mut self) {
        let sides = self.pairs.iter().flat_map(|pair| [pair.bid, pair.ask]);
        self.fills.resting = sides.filter(|side| side.shown.1 > 0).count();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A venue that does what each mass quote says, as the real one does; what stands, by quote and side.
    #[derive(Default)]
    struct Book {
        standing: BTreeMap<(u8, Side), Shown>,
        log_seq: u64,
    }

    impl Book {
        fn take(&mut self, entries: &[QuoteEntry]) -> MassQuoteReport {
            self.log_seq += 1;
            for entry in entries {
                self.put((entry.quote, Side::Buy), (entry.bid_price, entry.bid_qty));
                self.put((entry.quote, Side::Sell), (entry.ask_price, entry.ask_qty));
            }
            let accepted = 2 * entries.len() as u16;
            MassQuoteReport { log_seq: self.log_seq, accepted, ..MassQuoteReport::default() }
        }

        fn put(&mut self, key: (u8, Side), shown: Shown) {
            match shown.1 {
                0 => self.standing.remove(&key),
                _ => self.standing.insert(key, shown),
            };
        }

        fn fill(&mut self, key: (u8, Side), qty: u64) -> ExecutionReport {
            self.log_seq += 1;
            let (price, open) = self.standing[&key];
            self.put(key, (price, open - qty));
            ExecutionReport {
                log_seq: self.log_seq,
                instrument: 0,
                quote: key.0,
                side: key.1,
                price,
                leaves_qty: open - qty,
                last_qty: qty,
                last_price: price,
                exec_type: ExecType::Trade,
                ord_status: if open == qty { OrdStatus::Filled } else { OrdStatus::PartiallyFilled },
                ..ExecutionReport::default()
            }
        }

        fn prices(&self, side: Side) -> Vec<u64> {
            let of = self.standing.iter().filter(|((_, found), _)| *found == side);
            let mut prices: Vec<u64> = of.map(|(_, (price, _))| *price).collect();
            prices.sort_unstable();
            prices
        }

        fn asked(&self) -> u64 {
            self.standing.iter().filter(|((_, side), _)| *side == Side::Sell).map(|(_, (_, qty))| qty).sum()
        }
    }

    fn run(quoter: &mut Quoter, book: &mut Book, steps: u64) -> Vec<QuoteEntry> {
        let mut all = Vec::new();
        for _ in 0..steps {
            let entries = quoter.step();
            let report = book.take(&entries);
            quoter.quoted(&entries, &report, &[]);
            assert_eq!(quoter.fills().resting, book.standing.len(), "it knows what stands");
            all.extend(entries);
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
        let entries =
            |seed| run(&mut Quoter::new(Quote::around(0, 500, 9), 4, seed), &mut Book::default(), 50);
        assert_eq!(entries(1), entries(1));
        assert_ne!(entries(1), entries(2));
    }

    #[test]
    fn no_step_sends_more_than_its_budget_and_one_that_needs_nothing_sends_nothing() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 100), 2, 1);
        let mut book = Book::default();
        let mut told = [0; 3];
        for _ in 0..200 {
            let entries = run(&mut quoter, &mut book, 1);
            assert!(entries.len() <= 2);
            entries.iter().for_each(|entry| told[usize::from(entry.quote) - 1] += 1);
        }
        assert_eq!(book.standing.len(), 6);
        assert!(told.iter().all(|times| *times > 80), "all levels get their turn: {told:?}");
        let still = Quote { step_ticks: 0, ..Quote::around(0, 500, 100) };
        assert_eq!(run(&mut Quoter::new(still, 9, 1), &mut Book::default(), 50).len(), 3, "once each");
    }

    #[test]
    fn it_asks_only_what_it_owns_and_puts_back_what_was_bought() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 7), 12, 1);
        let mut book = Book::default();
        run(&mut quoter, &mut book, 3);
        assert_eq!(book.asked(), 7, "5 at the best level, 2 at the next");
        quoter.report(&book.fill((1, Side::Sell), 5));
        assert_eq!((quoter.fills().units, quoter.fills().sold), (2, 5));
        run(&mut quoter, &mut book, 3);
        assert_eq!(book.asked(), 2);
        quoter.report(&book.fill((2, Side::Buy), 3));
        assert_eq!(quoter.fills().resting, 4, "three bids, one of them smaller, and an ask");
        quoter.report(&book.fill((2, Side::Buy), 2));
        assert_eq!(quoter.fills().resting, 3);
        run(&mut quoter, &mut book, 3);
        assert_eq!((quoter.fills().bought, book.asked()), (5, 7));
        assert_eq!(book.prices(Side::Buy).len(), 3, "the filled bid stands again");
    }

    #[test]
    fn what_happened_last_holds_though_it_was_told_first() {
        let mut quoter = Quoter::new(Quote::around(0, 500, 100), 12, 1);
        let mut book = Book::default();
        let entries = quoter.step();
        let opened = book.take(&entries);
        let part = book.fill((1, Side::Sell), 2);
        let rest = book.fill((1, Side::Sell), 3);
        quoter.report(&rest);
        quoter.quoted(&entries, &opened, &[]);
        quoter.report(&part);
        assert_eq!(quoter.fills().resting, 5, "the ask is gone");
        assert_eq!((quoter.fills().sold, quoter.fills().units), (5, 95));
        run(&mut quoter, &mut book, 1);
        assert_eq!(book.standing.len(), 6, "and stands again");
        quoter.forget(book.log_seq + 1);
        assert_eq!(quoter.fills().resting, 0);
        quoter.quoted(&entries, &opened, &[]);
        assert_eq!(quoter.fills().resting, 0, "that was before");
    }

    #[test]
    fn a_refused_side_rests_before_it_is_tried_again_and_the_other_side_does_not() {
        let still = Quote { step_ticks: 0, levels: 1, ..Quote::around(0, 500, 100) };
        let mut quoter = Quoter::new(still, 12, 1);
        let first = quoter.step();
        let refusal = QuoteRefused { quote: 1, side: Side::Sell, code: 31, ..QuoteRefused::default() };
        let report = MassQuoteReport { log_seq: 1, ..MassQuoteReport::default() };
        quoter.quoted(&first, &report, &[refusal]);
        assert_eq!(quoter.fills().resting, 1, "of the refused side nothing stands");
        assert!((1..REST_STEPS).all(|_| quoter.step().is_empty()));
        assert_eq!(quoter.step(), first);
    }
}
