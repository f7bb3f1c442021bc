//! The simulator as a program: runs seeds and says what happened. `grid sim` starts it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

/// Run a cluster in simulation with every fault we can think of.
#[derive(Parser)]
#[command(name = "grid sim", version, about)]
struct Cli {
    /// The first seed; the others follow.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Runs at a time; as many as there are cores unless told.
    #[arg(long)]
    threads: Option<usize>,
    /// Tell what happens in the first seed, and run no other.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.trace {
        let outcome = grid_simulator::run_with(
            cli.first_seed,
            grid_simulator::Knobs { trace: true, ..grid_simulator::Knobs::default() },
        );
        println!("{}", outcome.failure.as_deref().unwrap_or("nothing is wrong"));
        return if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let began = Instant::now();
    let summary = grid_simulator::run_many(cli.first_seed, cli.seeds, cli.threads.unwrap_or(cores));
    println!("{summary}");
    println!("in {:.1} s", began.elapsed().as_secs_f64());
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
