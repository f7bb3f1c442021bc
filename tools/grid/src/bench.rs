//! `grid bench`: the network scenarios against a venue that runs, as one of its participants. It places orders that nobody
//! meets, takes them out again, checks every answer and the numbering of the reports, and leaves nothing behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use grid_harness::{Report, Scenario, Settings};
use grid_network_benches::Wait;
use grid_network_benches::remote::{Flood, OneAtATime, Participant};
use serde::Deserialize;

use crate::secrets::Seed;
use crate::{Fault, Outcome};

/// What to run against which venue.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// The ready file of the venue: its address, an account's key, and the instrument's number come from there.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// The account of the ready file that trades; the first in Advanced Mode unless told.
    #[arg(long, requires = "ready_file")]
    account: Option<String>,
    /// The instrument's symbol in the ready file; the first unless told.
    #[arg(long, requires = "ready_file")]
    symbol: Option<String>,
    /// The venue's binary address, where there is no ready file.
    #[arg(long, conflicts_with = "ready_file", requires = "key_file")]
    address: Option<SocketAddr>,
    /// A file with the account's private key, Base64.
    #[arg(long, conflicts_with = "ready_file")]
    key_file: Option<PathBuf>,
    /// The instrument's number in the binary protocol.
    #[arg(long, conflicts_with = "ready_file", default_value_t = 0)]
    instrument: u16,
    /// The lowest of 64 prices, in ticks, at which bids of one Unit rest; nobody should meet them.
    #[arg(long, default_value_t = 1)]
    price: u64,
    /// How long each round lasts.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sessions of `tcp_throughput`, each on a connection of its own.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on each of them.
    #[arg(long, default_value_t = 34)]
    window: u64,
    /// Planned requests per second of `tcp_order_to_ack`.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Planned requests per second of `tcp_throughput` too, below the venue's throttles; as many as the windows let through
    /// unless told.
    #[arg(long)]
    throughput_rate: Option<f64>,
    /// Burn a core on waiting for answers.
    #[arg(long)]
    spin: bool,
    /// Write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Ready {
    binary_addr: SocketAddr,
    accounts: std::collections::BTreeMap<String, ReadyAccount>,
    instruments: Vec<ReadyInstrument>,
}

#[derive(Deserialize)]
struct ReadyAccount {
    private_key: Seed,
    mode: String,
}

#[derive(Deserialize)]
struct ReadyInstrument {
    symbol: String,
    number: u16,
}

/// Runs both scenarios and prints a table for each.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let participant = participant(args)?;
    let settings = Settings {
        seconds: args.seconds,
        rounds: args.rounds.max(1),
        rate: Some(args.rate.max(1.0)),
        ..Settings::default()
    };
    let mut report = Report::begin(&settings);
    report.facts.push(("venue".into(), participant.address.to_string()));
    let flood = Flood {
        participant: participant.clone(),
        connections: args.connections.max(1),
        window: args.window.max(1),
        rate: args.throughput_rate,
    };
    let scenarios: [&dyn Scenario; 2] = [&OneAtATime(participant), &flood];
    for scenario in scenarios {
        println!("{}: {}", scenario.name(), scenario.shows());
        let rows = scenario.run(&settings)?;
        rows.iter().for_each(|row| print!("{row}"));
        report.push(scenario, rows);
    }
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    Ok(())
}

fn participant(args: &BenchArgs) -> Result<Participant, Fault> {
    let wait = if args.spin { Wait::Spin } else { Wait::Park };
    let price = args.price.max(1);
    if let Some(file) = &args.ready_file {
        let ready: Ready = serde_json::from_slice(&read(file)?)?;
        let wanted = |(name, account): &(&String, &ReadyAccount)| match &args.account {
            Some(wanted) => *name == wanted,
            None => account.mode == "advanced",
        };
        let (_, account) = ready.accounts.iter().find(wanted).ok_or("the ready file has no such account")?;
        let symbol =
            |instrument: &&ReadyInstrument| args.symbol.as_ref().is_none_or(|s| *s == instrument.symbol);
        let instrument =
            ready.instruments.iter().find(symbol).ok_or("the ready file has no such instrument")?;
        let (key, instrument) = (account.private_key.0, instrument.number);
        return Ok(Participant { address: ready.binary_addr, key, instrument, price, wait });
    }
    let (Some(address), Some(file)) = (args.address, &args.key_file) else {
        return Err("say which venue: --ready-file, or --address and --key-file".into());
    };
    let text = String::from_utf8(read(file)?)?;
    let key = Seed::try_from(text.trim().to_owned())?.0;
    Ok(Participant { address, key, instrument: args.instrument, price, wait })
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()).into())
}
