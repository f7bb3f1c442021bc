//! `cargo run --release -p grid-benches -- SCENARIO... [--dir DIR] [--commands N] [--rounds N]`

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use grid_benches::ground::Ground;
use grid_benches::{commit, engine_mix, failover, replay};

/// Measures one scenario after the other and prints a table for each.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure.
    #[arg(required = true)]
    scenarios: Vec<Scenario>,
    /// Where the files go; choose a directory on the disk, or in memory (/dev/shm), that you want to know about.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Commands to measure, where not the scenario's own number.
    #[arg(long)]
    commands: Option<u64>,
    /// How often to measure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Scenario {
    /// The engine alone: what one command costs once it is committed.
    PlaceCancelMatch,
    /// One command at a time through 1 and 3 nodes, against one bare write and fdatasync.
    CommitLatency,
    /// As many commands as they take: 3 nodes against 1.
    ReplicatedThroughput,
    /// The leader of three processes is killed: until the first ack of the next.
    Failover,
    /// A log replayed, against the rate at which it was made.
    ReplayRate,
    /// A start from a journal of 10 million commands, with and without a snapshot.
    Recovery,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((failover::AS_NODE, arguments)) =
        words.split_first().map(|(word, rest)| (word.as_str(), rest))
    {
        let ended = failover::run_as_node(arguments);
        return if let Err(error) = ended {
            eprintln!("node: {error}");
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let args = Args::parse();
    if cfg!(debug_assertions) {
        println!("note: a debug build; its times say nothing");
    }
    for scenario in &args.scenarios {
        if let Err(error) = run(*scenario, &args) {
            eprintln!("{scenario:?}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(scenario: Scenario, args: &Args) -> Result<(), Box<dyn Error>> {
    let commands = |usual| args.commands.unwrap_or(usual);
    let rounds = args.rounds.max(1);
    let ground = Ground::under(&args.dir)?;
    match scenario {
        Scenario::PlaceCancelMatch => print!("{}", engine_mix::place_cancel_match(commands(1_000_000))),
        Scenario::CommitLatency => print!("{}", commit::commit_latency(&ground, commands(2_000), rounds)?),
        Scenario::ReplicatedThroughput => {
            print!("{}", commit::replicated_throughput(&ground, commands(300_000), rounds)?);
        }
        Scenario::Failover => print!("{}", failover::failover(&ground, rounds)?),
        Scenario::ReplayRate => print!("{}", replay::replay_rate(&ground, commands(500_000), rounds)?),
        Scenario::Recovery => print!("{}", replay::recovery(&ground, commands(10_000_000), rounds)?),
    }
    Ok(())
}
