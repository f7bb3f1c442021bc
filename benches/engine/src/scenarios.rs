//! What each stream shows.

use std::error::Error;

use grid_engine::{Engine, limits};
use grid_harness::plain::Contender;
use grid_harness::{Rounds, Row, Scenario, Settings, heap, how_many, ratios};

use crate::measure;
use crate::streams::{self, Books, Depth};
use crate::tape::Tape;

/// Every scenario of the engine alone, in the order in which `all` runs them.
#[must_use]
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    scenarios_beside(&[])
}

/// The same, with other books beside ours where a stream is one that a book alone understands.
#[must_use]
pub fn scenarios_beside(contenders: &[Contender]) -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(Mix {
            name: "engine_mix",
            shows: "The engine alone on the flow of exchange-core's own generator, most of it moves over thousands of prices: worse means that \
                    the ladder, or what accounts cost beside it, became slower.",
            variants: &[("1,000 orders on 850 levels", streams::exchange_mix)],
            beside: contenders.to_vec(),
        }),
        Box::new(Mix {
            name: "place_cancel_match",
            shows: "The engine alone on new orders, cancels and trades: worse means that an order's way into the book and out of it became \
                    longer.",
            variants: &[
                ("2,700 orders", |commands| streams::place_cancel_match(Depth::Normal, commands)),
                ("20,900 orders on 60 levels", |commands| {
                    streams::place_cancel_match(Depth::Static, commands)
                }),
            ],
            beside: contenders.to_vec(),
        }),
        Box::new(Mix {
            name: "thin_book_sweep",
            shows: "An order takes twenty levels of one order each: worse means that a fill, or the search for the next level, became slower.",
            variants: &[("20 levels in one order", streams::thin_book_sweep)],
            beside: Vec::new(),
        }),
        Box::new(Mix {
            name: "cancel_burst",
            shows: "Everything is cancelled at once, one by one or by one command: worse means that the venue is longest busy when everybody \
                    wants out.",
            variants: &[
                ("1,000 orders, one by one", streams::cancel_burst),
                ("100 orders, one mass cancel", streams::mass_cancel),
            ],
            beside: Vec::new(),
        }),
        Box::new(QuoteRefresh),
        Box::new(TenThousandBooks),
        Box::new(TenMillionResting),
        Box::new(Mix {
            name: "reserve_settle",
            shows: "Calls reserved and settled, one in fifty with a purchase: worse means that every inference call waits longer for the venue.",
            variants: &[("256 calls open, 1,000 consumers", streams::reserve_settle)],
            beside: Vec::new(),
        }),
    ]
}

type Make = fn(u64) -> Tape;

/// One stream in one size or several.
struct Mix {
    name: &'static str,
    shows: &'static str,
    variants: &'static [(&'static str, Make)],
    /// Other books that take the same stream.
    beside: Vec<Contender>,
}

impl Scenario for Mix {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shows(&self) -> &'static str {
        self.shows
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let commands = settings.commands_or(1_000_000);
        let mut rows = Vec::new();
        for (name, make) in self.variants {
            let tape = make(commands);
            rows.extend(measure::rows_beside(name, &tape, settings.rounds, &self.beside)?);
        }
        Ok(rows)
    }
}

/// Quotes moved by mass, against the same moved one by one.
struct QuoteRefresh;

impl Scenario for QuoteRefresh {
    fn name(&self) -> &'static str {
        "quote_refresh"
    }

    fn shows(&self) -> &'static str {
        "Five makers move ten quotes each on nine books, with a mass quote or by replacing order by order: worse means older quotes, and makers \
         who widen them."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let orders = settings.commands_or(1_000_000);
        let one_by_one = measure::row("order by order", &streams::replaced_quotes(orders), settings.rounds)?;
        let each = streams::ORDERS_PER_QUOTE;
        let mass =
            measure::row("mass quotes", &streams::mass_quotes((orders / each).max(1)), settings.rounds)?;
        let rate = |row: &Row| row.throughput.clone().ok_or("a row of a tape has its rate");
        let (quotes, replaced) = (rate(&mass)?, rate(&one_by_one)?);
        let moved: Rounds = quotes.figures().iter().map(|rate| rate * each as f64).collect();
        let mass = mass
            .figure("orders moved", "/s", moved.clone())
            .figure("orders moved, against one by one", "times", ratios(&moved, &replaced))
            .note(format!("a command is a mass quote of {each} orders"));
        Ok(vec![mass, one_by_one])
    }
}

/// Commands spread over many books with a million orders; what one needs is in no cache.
struct TenThousandBooks;

impl Scenario for TenThousandBooks {
    fn name(&self) -> &'static str {
        "ten_thousand_books"
    }

    fn shows(&self) -> &'static str {
        "Commands at random over ten thousand books with a million orders: worse means more cache misses per command, or more bytes per order."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let commands = settings.commands_or(3_000_000);
        let books = 10_000.min(limits::INSTRUMENTS).min(commands as usize) as u16;
        let resting = 1_000_000.min(commands);
        let books = Books { books, resting, traders: 1_000, pareto: true };
        Ok(vec![measured(books, commands, settings.rounds)?])
    }
}

/// Ten million orders against a thousand.
struct TenMillionResting;

impl Scenario for TenMillionResting {
    fn name(&self) -> &'static str {
        "ten_million_resting"
    }

    fn shows(&self) -> &'static str {
        "Ten million resting orders against one small book of a thousand, same commands: worse means that the venue slows down as it fills."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let commands = settings.commands_or(1_000_000);
        let full = if settings.commands.is_some() { 10_000_000.min(10 * commands) } else { 10_000_000 };
        let of = |books, resting| {
            let books = Books { books, resting, traders: 1_000, pareto: false };
            measured(books, commands, settings.rounds)
        };
        let (small, large) = (of(1, 1_000.min(commands))?, of(100, full)?);
        let latencies = small.latency.as_ref().zip(large.latency.as_ref());
        let (under, over) = latencies.ok_or("both rows have percentiles")?;
        let tail = ratios(over.p99(), under.p99());
        let large = large.figure("p99 against one small book", "times", tail);
        Ok(vec![small, large])
    }
}

/// A row of many books, with the memory that an order takes.
fn measured(books: Books, commands: u64, rounds: usize) -> Result<Row, Box<dyn Error>> {
    let empty = bytes_of(books.venue().venue().engine());
    let tape = books.tape(commands);
    let name = format!("{}, {} orders", how_many(books.books.into(), "books"), books.resting);
    let blind: Rounds = (0..rounds).map(|_| measure::without_look_ahead(&tape)).collect::<Result<_, _>>()?;
    let row = measure::row(&name, &tape, rounds)?.figure("without look-ahead", "commands/s", blind);
    // A program without the counting allocator has nothing to tell.
    Ok(match (empty, bytes_of(&tape.start)) {
        (Some(empty), Some(full)) => {
            let each = (full - empty) as f64 / books.resting as f64;
            row.figure("memory per resting order", "bytes", Rounds::from_iter([each])).note(
                "memory: what a copy of the venue allocates, less that of the same venue without orders, reports kept for sessions included",
            )
        }
        _ => row,
    })
}

/// What a copy of the venue allocates, where it is counted.
fn bytes_of(engine: &Engine) -> Option<i64> {
    let before = heap::counts();
    let copy = engine.clone();
    let after = heap::counts();
    drop(copy);
    (after.calls > before.calls).then_some(after.live - before.live)
}
