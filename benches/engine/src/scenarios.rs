//! What each stream shows.

use std::error::Error;

use grid_harness::{Row, Scenario, Settings};

use crate::measure;
use crate::streams::{self, Depth};
use crate::tape::Tape;

/// Every scenario of the engine alone, in the order in which `all` runs them.
#[must_use]
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(Mix {
            name: "engine_mix",
            shows: "The engine alone on the flow of exchange-core's own generator, most of it moves over thousands of prices: worse means that \
                    the ladder, or what accounts cost beside it, became slower.",
            variants: &[("1,000 orders on 850 levels", streams::exchange_mix)],
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
        }),
        Box::new(Mix {
            name: "reserve_settle",
            shows: "Calls reserved and settled, one in fifty with a purchase: worse means that every inference call waits longer for the venue.",
            variants: &[("256 calls open, 1,000 consumers", streams::reserve_settle)],
        }),
    ]
}

type Make = fn(u64) -> Tape;

/// One stream in one size or several.
struct Mix {
    name: &'static str,
    shows: &'static str,
    variants: &'static [(&'static str, Make)],
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
        let rows =
            self.variants.iter().map(|(name, make)| measure::row(name, &make(commands), settings.rounds));
        rows.collect()
    }
}
