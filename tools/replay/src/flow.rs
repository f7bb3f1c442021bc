//! Exchange order flow (LOBSTER format) as a test of a matching engine: drive a market with the messages and compare
//! its depth with the recorded book after every one.
//!
//! The recording starts in mid-day, so some liquidity has no known orders. The book is seeded from the first row; a
//! level deeper than the file shows is unknown until a row reveals it, is taken from that row, and is forgotten when
//! it falls below the recorded depth again. Executions become an IOC on the other side by a second owner. Where the
//! recorded maker was added inside the file and nothing unknown stands before it, the market must pick that maker.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Serialize;

use crate::DataError;

/// Which side of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Side {
    /// Bids.
    Buy,
    /// Asks.
    Sell,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// Whether `price` lies further from the touch than `than`.
    fn is_deeper(self, price: u64, than: u64) -> bool {
        match self {
            Self::Buy => price < than,
            Self::Sell => price > than,
        }
    }
}

/// What a message says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new limit order.
    Add,
    /// Part of an order was cancelled; it keeps its place.
    Reduce,
    /// An order was deleted.
    Delete,
    /// A resting order was executed.
    Execute,
    /// Something that changes no visible level.
    Invisible,
}

/// One message of the flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowMessage {
    /// What happened.
    pub kind: Kind,
    /// To which order, as the exchange numbers it.
    pub order: u64,
    /// Shares added, taken off or executed.
    pub size: u64,
    /// The order's price, USD x 10000.
    pub price: u64,
    /// The order's side.
    pub side: Side,
}

/// The book after a message: bids and asks, best first, as price (USD x 10000) and size.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Bids.
    pub bids: Vec<(u64, u64)>,
    /// Asks.
    pub asks: Vec<(u64, u64)>,
}

/// A recording: messages, and the book after each.
#[derive(Clone, Debug)]
pub struct OrderFlow {
    /// In order.
    pub messages: Vec<FlowMessage>,
    /// `rows[i]` is the book after `messages[i]`.
    pub rows: Vec<Row>,
}

impl OrderFlow {
    /// Reads a recording from its two files, gzip-compressed CSV.
    ///
    /// # Errors
    /// A file that can't be read, or a line that is not of the format.
    pub fn read(messages: &Path, books: &Path) -> Result<Self, DataError> {
        let messages_read = lines(messages, message)?;
        let rows = lines(books, row)?;
        if messages_read.len() != rows.len() {
            let line = rows.len().min(messages_read.len()) + 1;
            return Err(DataError::Line {
                path: books.into(),
                line,
                what: "messages and books differ in number",
            });
        }
        Ok(Self { messages: messages_read, rows })
    }
}

fn lines<T>(path: &Path, parse: impl Fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, DataError> {
    let io = |error| DataError::Io { path: PathBuf::from(path), error };
    let file = File::open(path).map_err(io)?;
    let mut all = Vec::new();
    for (i, line) in BufReader::new(GzDecoder::new(file)).lines().enumerate() {
        let line = line.map_err(io)?;
        all.push(parse(&line).map_err(|what| DataError::Line { path: path.into(), line: i + 1, what })?);
    }
    Ok(all)
}

fn message(line: &str) -> Result<FlowMessage, &'static str> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let [_, kind, order, size, price, direction] = fields[..] else {
        return Err("a message has six fields");
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| "not a number");
    Ok(FlowMessage {
        kind: match kind {
            "1" => Kind::Add,
            "2" => Kind::Reduce,
            "3" => Kind::Delete,
            "4" => Kind::Execute,
            "5" | "6" | "7" => Kind::Invisible,
            _ => return Err("unknown type of message"),
        },
        order: number(order)?,
        size: number(size)?,
        price: if kind == "7" { 0 } else { number(price)? },
        side: if direction == "1" { Side::Buy } else { Side::Sell },
    })
}

fn row(line: &str) -> Result<Row, &'static str> {
    let fields: Result<Vec<i64>, _> = line.trim().split(',').map(str::parse).collect();
    let fields = fields.map_err(|_| "not a number")?;
    if fields.is_empty() || fields.len() % 4 != 0 {
        return Err("a row has four numbers a level");
    }
    // 9999999999 and -9999999999 stand for "no level".
    let level = |price: i64, size: i64| {
        (size > 0 && price.abs() != 9_999_999_999).then_some((price as u64, size as u64))
    };
    Ok(Row {
        asks: fields.chunks_exact(4).filter_map(|l| level(l[0], l[1])).collect(),
        bids: fields.chunks_exact(4).filter_map(|l| level(l[2], l[3])).collect(),
    })
}

/// One fill of a resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The maker's order, as the market names it.
    pub order: u64,
    /// Shares.
    pub qty: u64,
}

/// What the flow is driven through. Prices are as recorded (USD x 10000), quantities are shares.
pub trait Market {
    /// Why it could not do what was asked.
    type Error: std::error::Error;

    /// Enters a limit order; gives the market's name for it.
    fn add(&mut self, side: Side, price: u64, qty: u64) -> Result<u64, Self::Error>;
    /// Makes an order's open quantity smaller without a loss of its place.
    fn reduce(&mut self, order: u64, price: u64, open: u64) -> Result<(), Self::Error>;
    /// Takes an order out.
    fn cancel(&mut self, order: u64) -> Result<(), Self::Error>;
    /// An IOC order of another owner, on this side; gives its fills.
    fn take(&mut self, side: Side, price: u64, qty: u64) -> Result<Vec<Fill>, Self::Error>;
    /// All levels of a side, best first, as price and quantity, after everything that was done.
    fn depth(&mut self, side: Side) -> Result<Vec<(u64, u64)>, Self::Error>;
}

/// One thing that was not as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// After which message, counted from 1.
    pub message: usize,
    /// What differs.
    pub what: String,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FlowSummary {
    /// Messages driven.
    pub messages: usize,
    /// Levels compared.
    pub level_checks: u64,
    /// Levels taken from a row, for nobody could know them.
    pub levels_revealed: u64,
    /// Levels forgotten when they fell below the recorded depth.
    pub levels_forgotten: u64,
    /// Executions driven.
    pub executions: u64,
    /// Executions whose maker was known beforehand and compared.
    pub maker_checks: u64,
    /// How many comparisons failed.
    pub mismatch_count: u64,
    /// The first of them, at most twenty.
    pub mismatches: Vec<Mismatch>,
}

/// Drives `market`, which must be empty, with the whole flow.
///
/// # Errors
/// What the market could not do, which is another thing than doing it differently.
pub fn replay<M: Market>(flow: &OrderFlow, market: &mut M) -> Result<FlowSummary, M::Error> {
    let mut replay =
        Replay { market, orders: HashMap::new(), queues: BTreeMap::new(), summary: FlowSummary::default() };
    let Some(first) = flow.rows.first() else {
        return Ok(replay.summary);
    };
    for (side, levels) in [(Side::Buy, &first.bids), (Side::Sell, &first.asks)] {
        for (price, qty) in levels {
            replay.reveal(side, *price, *qty)?;
        }
    }
    replay.summary.messages = 1;
    for (message, row) in flow.messages.iter().zip(&flow.rows).skip(1) {
        replay.summary.messages += 1;
        replay.drive(message)?;
        replay.compare(Side::Buy, &row.bids)?;
        replay.compare(Side::Sell, &row.asks)?;
    }
    Ok(replay.summary)
}

/// An order of the market that stands for recorded liquidity.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The market's name.
    order: u64,
    /// The exchange's number; `None` where the recording does not say whose it is.
    recorded: Option<u64>,
    /// Open in the market.
    open: u64,
    /// Open by the recording; for unknown liquidity, nothing is claimed.
    claimed: u64,
}

struct Replay<'a, M> {
    market: &'a mut M,
    /// Where each order that was added inside the recording stands.
    orders: HashMap<u64, (Side, u64)>,
    /// Our orders at each price, first in time first.
    queues: BTreeMap<(Side, u64), Vec<Standing>>,
    summary: FlowSummary,
}

impl<M: Market> Replay<'_, M> {
    fn drive(&mut self, message: &FlowMessage) -> Result<(), M::Error> {
        let (side, price) = (message.side, message.price);
        match message.kind {
            Kind::Invisible => Ok(()),
            Kind::Add => {
                let order = self.market.add(side, price, message.size)?;
                let recorded = Some(message.order);
                let standing = Standing { order, recorded, open: message.size, claimed: message.size };
                self.queues.entry((side, price)).or_default().push(standing);
                self.orders.insert(message.order, (side, price));
                Ok(())
            }
            Kind::Reduce | Kind::Delete => {
                self.take_off(side, price, message.order, message.size)?;
                self.unclaim(side, price, message.order, message.size);
                Ok(())
            }
            Kind::Execute => self.execute(side, price, message.order, message.size),
        }
    }

    /// Takes `qty` off an order, or off unknown liquidity at its price where the order is not (or not wholly) ours.
    fn take_off(&mut self, side: Side, price: u64, recorded: u64, qty: u64) -> Result<(), M::Error> {
        let mut left = qty;
        let queue = self.queues.entry((side, price)).or_default();
        let is_it = |s: &Standing| s.recorded == Some(recorded);
        let mut turns: Vec<usize> = (0..queue.len()).collect();
        turns.sort_by_key(|i| !is_it(&queue[*i]));
        for i in turns {
            let standing = &mut queue[i];
            let spare = if is_it(standing) {
                standing.open
            } else {
                standing.open - standing.claimed.min(standing.open)
            };
            let part = spare.min(left);
            if part == 0 {
                continue;
            }
            left -= part;
            standing.open -= part;
            if standing.open == 0 {
                self.market.cancel(standing.order)?;
            } else {
                self.market.reduce(standing.order, price, standing.open)?;
            }
        }
        self.tidy(side, price);
        if left > 0 {
            self.mismatch(format!(
                "{qty} to take off order {recorded} at {price}, {left} more than there is"
            ));
        }
        Ok(())
    }

    fn execute(&mut self, side: Side, price: u64, recorded: u64, qty: u64) -> Result<(), M::Error> {
        self.summary.executions += 1;
        let expected = self.certain_maker(side, price, recorded);
        let fills = self.market.take(side.other(), price, qty)?;
        if let Some(order) = expected {
            self.summary.maker_checks += 1;
            if fills != [Fill { order, qty }] {
                self.mismatch(format!("order {recorded} ({order}) must give {qty}, but {fills:?} did"));
            }
        }
        let filled: u64 = fills.iter().map(|f| f.qty).sum();
        if filled != qty {
            self.mismatch(format!("{qty} executed at {price} in the recording, {filled} here"));
        }
        for fill in fills {
            let makers = self.queues.entry((side, price)).or_default();
            match makers.iter_mut().find(|s| s.order == fill.order) {
                Some(standing) => standing.open = standing.open.saturating_sub(fill.qty),
                None => {
                    self.mismatch(format!("order {} was filled, but does not stand at {price}", fill.order))
                }
            }
        }
        self.unclaim(side, price, recorded, qty);
        self.tidy(side, price);
        Ok(())
    }

    /// The market's name for the recorded maker, if it must be the one: it is first, and nothing unknown is there.
    fn certain_maker(&self, side: Side, price: u64, recorded: u64) -> Option<u64> {
        let queue = self.queues.get(&(side, price))?;
        let at = queue.iter().position(|s| s.recorded == Some(recorded))?;
        queue[..=at].iter().all(|s| s.open == s.claimed).then(|| queue[at].order)
    }

    /// The recording has `qty` less of this order.
    fn unclaim(&mut self, side: Side, price: u64, recorded: u64, qty: u64) {
        for standing in self.queues.entry((side, price)).or_default() {
            if standing.recorded == Some(recorded) {
                standing.claimed = standing.claimed.saturating_sub(qty);
            }
        }
        self.tidy(side, price);
    }

    /// Drops what neither the market nor the recording has any more.
    fn tidy(&mut self, side: Side, price: u64) {
        if let Some(queue) = self.queues.get_mut(&(side, price)) {
            queue.retain(|s| s.open > 0);
            if queue.is_empty() {
                self.queues.remove(&(side, price));
            }
        }
    }

    /// Compares the market's levels with the recorded ones, takes up those that nobody could know, and forgets those
    /// that the recording no longer shows.
    fn compare(&mut self, side: Side, recorded: &[(u64, u64)]) -> Result<(), M::Error> {
        let depth = self.market.depth(side)?;
        for (i, level) in recorded.iter().enumerate() {
            let below_all = depth.last().is_none_or(|(deepest, _)| side.is_deeper(level.0, *deepest));
            if below_all {
                self.summary.levels_revealed += 1;
                self.reveal(side, level.0, level.1)?;
                continue;
            }
            self.summary.level_checks += 1;
            if depth.get(i) != Some(level) {
                self.mismatch(format!(
                    "{side:?} level {}: recorded {level:?}, here {:?}",
                    i + 1,
                    depth.get(i)
                ));
            }
        }
        let Some((last, _)) = recorded.last() else {
            return Ok(());
        };
        for (price, _) in depth.iter().filter(|(price, _)| side.is_deeper(*price, *last)) {
            self.summary.levels_forgotten += 1;
            for standing in self.queues.remove(&(side, *price)).unwrap_or_default() {
                self.market.cancel(standing.order)?;
            }
        }
        Ok(())
    }

    fn reveal(&mut self, side: Side, price: u64, qty: u64) -> Result<(), M::Error> {
        let order = self.market.add(side, price, qty)?;
        let standing = Standing { order, recorded: None, open: qty, claimed: 0 };
        self.queues.entry((side, price)).or_default().push(standing);
        Ok(())
    }

    fn mismatch(&mut self, what: String) {
        self.summary.mismatch_count += 1;
        if self.summary.mismatches.len() < 20 {
            self.summary.mismatches.push(Mismatch { message: self.summary.messages, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A book that is obviously right: a queue for each price.
    #[derive(Default)]
    struct NaiveBook {
        next: u64,
        queues: BTreeMap<(Side, u64), VecDeque<(u64, u64)>>,
    }

    impl NaiveBook {
        fn queue_of(&mut self, order: u64) -> ((Side, u64), usize) {
            let at = |q: &VecDeque<(u64, u64)>| q.iter().position(|(id, _)| *id == order);
            self.queues.iter().find_map(|(key, q)| Some((*key, at(q)?))).expect("the order stands")
        }

        fn prices(&self, side: Side) -> Vec<u64> {
            let mut prices: Vec<u64> =
                self.queues.keys().filter(|(s, _)| *s == side).map(|(_, p)| *p).collect();
            if side == Side::Buy {
                prices.reverse();
            }
            prices
        }
    }

    impl Market for NaiveBook {
        type Error = std::convert::Infallible;

        fn add(&mut self, side: Side, price: u64, qty: u64) -> Result<u64, Self::Error> {
            self.next += 1;
            self.queues.entry((side, price)).or_default().push_back((self.next, qty));
            Ok(self.next)
        }

        fn reduce(&mut self, order: u64, price: u64, open: u64) -> Result<(), Self::Error> {
            let (key, at) = self.queue_of(order);
            assert_eq!(key.1, price);
            let queue = self.queues.get_mut(&key).unwrap();
            assert!(open > 0 && open < queue[at].1, "a reduction is smaller");
            queue[at].1 = open;
            Ok(())
        }

        fn cancel(&mut self, order: u64) -> Result<(), Self::Error> {
            let (key, at) = self.queue_of(order);
            let queue = self.queues.get_mut(&key).unwrap();
            queue.remove(at);
            if queue.is_empty() {
                self.queues.remove(&key);
            }
            Ok(())
        }

        fn take(&mut self, side: Side, price: u64, qty: u64) -> Result<Vec<Fill>, Self::Error> {
            let mut fills = Vec::new();
            let mut left = qty;
            for at in self.prices(side.other()) {
                if side.other().is_deeper(at, price) {
                    break;
                }
                let queue = self.queues.get_mut(&(side.other(), at)).unwrap();
                while left > 0 && !queue.is_empty() {
                    let part = queue[0].1.min(left);
                    fills.push(Fill { order: queue[0].0, qty: part });
                    left -= part;
                    queue[0].1 -= part;
                    if queue[0].1 == 0 {
                        queue.pop_front();
                    }
                }
            }
            self.queues.retain(|_, queue| !queue.is_empty());
            Ok(fills)
        }

        fn depth(&mut self, side: Side) -> Result<Vec<(u64, u64)>, Self::Error> {
            let total = |price| self.queues[&(side, price)].iter().map(|(_, qty)| qty).sum();
            Ok(self.prices(side).into_iter().map(|price| (price, total(price))).collect())
        }
    }

    /// The same book with one fault: it serves the youngest order of a price first.
    struct UnfairBook(NaiveBook);

    impl Market for UnfairBook {
        type Error = std::convert::Infallible;

        fn add(&mut self, side: Side, price: u64, qty: u64) -> Result<u64, Self::Error> {
            let order = self.0.add(side, price, qty)?;
            self.0.queues.get_mut(&(side, price)).unwrap().rotate_right(1);
            Ok(order)
        }
        fn reduce(&mut self, order: u64, price: u64, open: u64) -> Result<(), Self::Error> {
            self.0.reduce(order, price, open)
        }
        fn cancel(&mut self, order: u64) -> Result<(), Self::Error> {
            self.0.cancel(order)
        }
        fn take(&mut self, side: Side, price: u64, qty: u64) -> Result<Vec<Fill>, Self::Error> {
            self.0.take(side, price, qty)
        }
        fn depth(&mut self, side: Side) -> Result<Vec<(u64, u64)>, Self::Error> {
            self.0.depth(side)
        }
    }

    fn recorded() -> Option<OrderFlow> {
        let Some(dir) = crate::data_dir() else {
            eprintln!("skipped: the order flow is not beside this repository");
            return None;
        };
        let flow = OrderFlow::read(&dir.join(crate::MESSAGE_FILE), &dir.join(crate::BOOK_FILE));
        Some(flow.expect("the recording can be read"))
    }

    #[test]
    fn a_right_book_agrees_with_the_recording_at_every_level() {
        let Some(flow) = recorded() else { return };
        let summary = replay(&flow, &mut NaiveBook::default()).unwrap();
        assert_eq!(summary.mismatches, []);
        assert_eq!((summary.level_checks, summary.mismatch_count), (19_642, 0));
        assert!(summary.maker_checks > 50, "{summary:?}");
    }

    #[test]
    fn a_book_without_time_priority_is_found_out_by_its_makers() {
        let Some(flow) = recorded() else { return };
        let summary = replay(&flow, &mut UnfairBook(NaiveBook::default())).unwrap();
        assert!(summary.mismatch_count > 0);
    }

    #[test]
    fn lines_of_the_format_are_read_and_others_are_named() {
        let read = message("34200.2,3,16113594,18,5853100,1").unwrap();
        assert_eq!((read.kind, read.order, read.size, read.price), (Kind::Delete, 16_113_594, 18, 5_853_100));
        for bad in ["", "1,2,3", "1,9,3,4,5,1", "1,1,x,4,5,1"] {
            assert!(message(bad).is_err(), "{bad}");
        }
        let levels = row("5859400,200,5853300,18,9999999999,0,-9999999999,0").unwrap();
        assert_eq!((levels.asks, levels.bids), (vec![(5_859_400, 200)], vec![(5_853_300, 18)]));
        assert!(row("1,2,3").is_err());
    }
}
