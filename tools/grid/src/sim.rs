//! `grid sim`: a cluster in simulation, seed by seed, with every fault we can think of.
//!
//! The simulator is another program than this one: its production code has fault points compiled in and unwinds where a venue
//! would abort, which nothing that serves may. So this starts cargo in the source tree, in the simulator's own profile.

use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct SimArgs {
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

/// Builds and runs the simulator; it prints what it counted, and for each seed that failed the line that shows it again.
pub(crate) fn run(args: &SimArgs) -> Outcome {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    if !manifest.is_file() {
        let what = format!(
            "the simulator is built from source, and {} is not there: run this in the source tree",
            manifest.display()
        );
        return Err(what.into());
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--profile", "sim", "--package", "grid-simulator", "--manifest-path"]);
    cargo.arg(&manifest).arg("--");
    cargo.args(["--first-seed", &args.first_seed.to_string(), "--seeds", &args.seeds.to_string()]);
    if let Some(threads) = args.threads {
        cargo.args(["--threads", &threads.to_string()]);
    }
    if args.trace {
        cargo.arg("--trace");
    }
    let status = cargo.status().map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err("the simulator found something, or could not be built".into()) }
}
