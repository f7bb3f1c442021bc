//! `grid`: the one command. Starts the venue, looks after it, tries and measures it, looks inside its log.

mod bench;
mod cluster;
mod config;
mod demo;
mod desk;
mod inspect;
mod keygen;
mod operator;
mod participants;
mod probe;
mod progress;
mod ready;
mod recovery;
mod script;
mod secrets;
mod serve;
mod service;
mod setup;
mod sim;
mod venue;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static MEMORY: grid_memory::LargePages = grid_memory::LargePages;

/// A spot market for AI inference: one venue, one log.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the whole venue on embedded defaults, with simulated suppliers and a market maker.
    Demo(DemoArgs),
    /// Start a venue.
    Serve {
        /// What differs from the embedded defaults.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Instead of the configuration's data directory.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Once everything serves, write the URLs to this file as one JSON object.
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Make a signing key and a consumption key; nothing is sent anywhere.
    Keygen,
    /// Read a data directory: verify the journal, list snapshots, print commands.
    Inspect(inspect::InspectArgs),
    /// Run clusters in simulation, with every fault we can think of; needs the source tree.
    Sim(sim::SimArgs),
    /// Measure a venue that runs, through its binary door, as one of its participants.
    Bench(bench::BenchArgs),
    /// Run an order script against a fresh engine (JSON lines; `-` reads standard input).
    Script {
        /// The script.
        file: String,
    },
    /// Make a venue of several nodes, and look after it.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Do what only the operator may, through the binary door.
    Operator {
        /// The venue's binary address; of a cluster, those of all nodes, separated by commas.
        #[arg(long, default_value = "127.0.0.1:7404", value_delimiter = ',')]
        binary_addr: Vec<SocketAddr>,
        /// Where the operator's key is; the venue's own data directory has it.
        #[arg(long, default_value = "grid-data")]
        data_dir: PathBuf,
        #[command(subcommand)]
        command: operator::OperatorCommand,
    },
}

#[derive(clap::Args)]
struct DemoArgs {
    /// Where the journal, snapshots, history and keys live.
    #[arg(long, default_value = "grid-data")]
    data_dir: PathBuf,
    /// First of the ports; 0 takes any free ones.
    #[arg(long)]
    port_base: Option<u16>,
    /// Leave participants out.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Without>,
    /// Once everything serves, write URLs, keys and ids to this file as one JSON object.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// What differs from the embedded defaults.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Without {
    /// The market maker.
    Maker,
    /// The simulated suppliers.
    Suppliers,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&demo::Options {
            data_dir: args.data_dir,
            port_base: args.port_base,
            maker: !args.without.contains(&Without::Maker),
            suppliers: !args.without.contains(&Without::Suppliers),
            ready_file: args.ready_file,
            config: args.config,
        }),
        Command::Serve { config, data_dir, ready_file } => {
            serve::run(config.as_deref(), data_dir, ready_file.as_deref())
        }
        Command::Keygen => keygen::run(),
        Command::Inspect(args) => inspect::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Script { file } => return script::run(&file),
        Command::Cluster(command) => cluster::run(command),
        Command::Operator { binary_addr, data_dir, command } => {
            operator::run(binary_addr, &data_dir, command)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grid: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A sentence for the person at the terminal.
type Fault = Box<dyn std::error::Error>;
/// What every subcommand may end with.
type Outcome = Result<(), Fault>;
