//! How cost grows: one number at a time is made larger, everything else stays, and throughput and tail are told for each size.
//!
//! A regression at one end of a curve only means that something began to cost by its size: a search where there was a place, a cache that does not
//! hold what it held, a message more for every node.

use std::error::Error;

use grid_engine::command::{Side, TimeInForce};
use grid_engine::{InstrumentId, limits};
use grid_engine_benches::dice::Dice;
use grid_engine_benches::flow::{Flow, Wanted};
use grid_engine_benches::measure;
use grid_engine_benches::tape::Tape;
use grid_engine_benches::venue::Setup;
use grid_harness::floors::BareWrites;
use grid_harness::{
    Against, Awake, Ground, Latencies, Rounds, Row, Scenario, Settings, histogram, how_many, nanos,
    per_second,
};
use grid_sequencer::Durability;

use crate::cluster::{Cluster, entries, submit_all};
use crate::commit::block_bytes;

/// Prices: bids below, asks above.
const CENTRE: u32 = 10_000;
/// Levels of each side that orders are spread over.
const LEVELS: u32 = 2_000;
/// Traders that can sell; everybody can buy.
const SELLERS: u32 = 16;
/// One command at a time, where a disk is in the way of each.
const COMMITS: u64 = 200;

/// A venue of some size.
#[derive(Clone, Copy, Debug)]
struct Size {
    books: u16,
    resting: usize,
    accounts: u32,
}

/// What grows, and where the rest stays. The largest come last, so that a run that is stopped has the others.
const BOOKS: [u16; 6] = [1, 10, 100, 1_000, 4_000, 10_000];
const RESTING: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
const ACCOUNTS: [u32; 4] = [100, 1_000, 10_000, 100_000];
const CONNECTIONS: [usize; 4] = [1, 10, 100, 1_000];
const NODES: [usize; 3] = [1, 3, 5];
/// Resting orders in all books together while their number grows, and in the one book while the number of accounts does.
const ORDERS: usize = 100_000;

/// A uniform mix over all books: as many orders go as come, and one command in ten takes.
fn tape(size: Size, commands: u64) -> Tape {
    let Size { books, resting, accounts } = size;
    let setup = Setup {
        traders: accounts,
        instruments: books,
        sellers: SELLERS.min(accounts),
        sessions: 4,
        max_price: u64::from(2 * CENTRE),
        consumers: 0,
    };
    let mut mix = Mix { size, setup, dice: Dice::new(11) };
    let mut flow = Flow::open(&setup);
    for nth in 0..resting {
        mix.rest(&mut flow, InstrumentId((nth % usize::from(books)) as u16));
    }
    Tape::record(flow, |flow| (0..commands).for_each(|_| mix.next(flow)))
}

struct Mix {
    size: Size,
    setup: Setup,
    dice: Dice,
}

impl Mix {
    fn next(&mut self, flow: &mut Flow) {
        let market = InstrumentId(self.dice.below(self.size.books.into()) as u16);
        let full = flow.open_orders(market).len() * usize::from(self.size.books) >= self.size.resting;
        match self.dice.below(10) {
            0 => self.take(flow, market),
            _ if !full => self.rest(flow, market),
            _ => {
                if let Some(order) = flow.any(market, &mut self.dice) {
                    flow.cancel(order);
                }
            }
        }
    }

    fn trader(&mut self, market: InstrumentId, side: Side) -> u32 {
        match side {
            Side::Buy => self.dice.below(self.size.accounts.into()) as u32,
            Side::Sell => {
                // Those that the instrument is supplied to.
                let nth = self.dice.below(self.setup.sellers.into()) as u32;
                (u32::from(market.0) * self.setup.sellers + nth) % self.setup.traders
            }
        }
    }

    fn place(&mut self, flow: &mut Flow, instrument: InstrumentId, away: i64, qty: u32, tif: TimeInForce) {
        let side = if self.dice.once_in(2) { Side::Buy } else { Side::Sell };
        let from_centre = if side == Side::Buy { -away } else { away };
        let price = (i64::from(CENTRE) + from_centre) as u32;
        let trader = self.trader(instrument, side);
        flow.place(Wanted { trader, instrument, side, price, qty, tif });
    }

    fn rest(&mut self, flow: &mut Flow, market: InstrumentId) {
        let (away, qty) = (1 + self.dice.below(LEVELS.into()) as i64, 1 + self.dice.below(9) as u32);
        self.place(flow, market, away, qty, TimeInForce::Gtc);
    }

    /// As deep as it takes, but little.
    fn take(&mut self, flow: &mut Flow, market: InstrumentId) {
        let qty = 1 + self.dice.below(5) as u32;
        self.place(flow, market, -i64::from(LEVELS), qty, TimeInForce::Ioc);
    }
}

fn engine_rows(settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
    let commands = settings.commands_or(300_000);
    // A small run, of the tests, has small venues.
    let most = settings.commands.map_or(usize::MAX, |commands| (commands as usize).max(100));
    let fits = |at: usize| at <= most;
    let mut sizes: Vec<(&str, usize, Size)> = Vec::new();
    for books in BOOKS.into_iter().filter(|books| usize::from(*books) <= limits::INSTRUMENTS) {
        let size = Size { books, resting: ORDERS.min(most), accounts: 1_000 };
        sizes.push(("books", books.into(), size));
    }
    for resting in RESTING {
        sizes.push(("resting orders", resting, Size { books: 1, resting, accounts: 1_000 }));
    }
    for accounts in ACCOUNTS {
        let size = Size { books: 1, resting: ORDERS.min(most), accounts };
        sizes.push(("accounts", accounts as usize, size));
    }
    let mut rows = Vec::new();
    for (axis, at, size) in sizes.into_iter().filter(|(_, at, _)| fits(*at)) {
        let row = measure::row(&how_many(at, axis), &tape(size, commands), settings.rounds)?;
        rows.push(row.point(axis, at as f64));
    }
    Ok(rows)
}

fn node_rows(settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
    let ground = Ground::under(&settings.dir)?;
    let (many, few) = (settings.commands_or(100_000), settings.commands_or(COMMITS));
    let mut found = NODES.map(|nodes| (nodes, Rounds::default(), Latencies::default()));
    let mut load = entries(few + many);
    let at_once = load.split_off(load.len() - many as usize);
    let one_by_one = load.split_off(load.len() - few as usize);
    let mut bare = BareWrites::new(&ground.at("growth-bare"), block_bytes(few))?;
    let mut floor = Rounds::default();
    for round in 0..settings.rounds {
        let awake = Awake::keep();
        floor.push(bare.round(few)?.value_at_quantile(0.5) as f64);
        drop(awake);
        for (nodes, rates, latency) in &mut found {
            let name = format!("growth-{nodes}-{round}");
            let mut cluster = Cluster::start(&ground, &name, *nodes, Durability::DiskQuorum)?;
            submit_all(&mut cluster, load.clone())?;
            cluster.settle()?;
            let awake = Awake::keep();
            let mut record = histogram();
            for entry in one_by_one.clone() {
                record.saturating_record(nanos(cluster.commit(entry)?));
            }
            drop(awake);
            latency.push(&record);
            rates.push(per_second(many, submit_all(&mut cluster, at_once.clone())?));
            let all = (load.len() as u64) + few + many;
            let last = cluster.agree()?;
            if last.0 < all {
                return Err(format!("{nodes} nodes came to command {last:?} of {all}").into());
            }
            let dirs: Vec<_> = (0..*nodes).map(|node| cluster.data_dir(node)).collect();
            drop(cluster.stop());
            for dir in dirs {
                std::fs::remove_dir_all(dir)?;
            }
        }
    }
    let row = |(nodes, rates, latency): (usize, Rounds, Latencies)| {
        Row::new(how_many(nodes, "nodes"))
            .throughput(rates)
            .latency(latency)
            .floor("one bare write and fdatasync", Against::Latency, floor.clone())
            .point("nodes", nodes as f64)
            .note("one process on one machine, disk-quorum; latency: one command at a time")
    };
    Ok(found.into_iter().map(row).collect())
}

/// See the head of this file.
#[derive(Debug)]
pub struct Growth;

impl Scenario for Growth {
    fn name(&self) -> &'static str {
        "growth"
    }

    fn shows(&self) -> &'static str {
        "Throughput and tail while one number grows: books, resting orders, accounts, connections, nodes. Worse at one end only means that something began to \
         cost by its size."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let mut rows = engine_rows(settings)?;
        // A small run, of the tests, has a small crowd.
        let most = settings.commands.unwrap_or(u64::MAX) / 100;
        for connections in CONNECTIONS.into_iter().filter(|connections| *connections as u64 <= most) {
            let row = grid_network_benches::over_connections(connections, settings)?;
            rows.push(row.point("connections", connections as f64));
        }
        rows.extend(node_rows(settings)?);
        Ok(rows)
    }
}
