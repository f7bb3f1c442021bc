//! `cargo run --release -p grid-benches -- SCENARIO... [--seconds N] [--rounds N] [--dir DIR] [--json FILE] [--html FILE]`, or `list`, or `all`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use grid_benches::failover;
use grid_harness::{Report, Scenario, Settings};
use grid_sequencer::ThreadLayout;

/// Memory per order is a figure of some scenarios.
#[global_allocator]
static COUNTING: grid_harness::heap::Counting = grid_harness::heap::Counting;

/// Measures one scenario after the other and prints a table for each.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure, by name; `all` for everything, `list` to see the names.
    #[arg(required = true)]
    scenarios: Vec<String>,
    /// About how long each contender is measured in each round, where a scenario measures by time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often to measure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the files go; choose a directory on the disk, or in memory (/dev/shm), that you want to know about.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Commands of each round, where not the scenario's own number.
    #[arg(long)]
    commands: Option<u64>,
    /// Writes the whole report there as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the whole report there as one HTML page.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Writes all rows there as one Markdown table.
    #[arg(long)]
    table: Option<PathBuf>,
    /// Writes every plot into this directory, as SVG.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Planned commands per second of the open loops, where not the scenario's own rate.
    #[arg(long)]
    rate: Option<f64>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((failover::AS_NODE, arguments)) =
        words.split_first().map(|(word, rest)| (word.as_str(), rest))
    {
        return told(failover::run_as_node(arguments));
    }
    if let Some((grid_inference_benches::AS_PART, part)) =
        words.split_first().map(|(word, rest)| (word.as_str(), rest))
    {
        return told(grid_inference_benches::run_as_part(part));
    }
    told(measure(&Args::parse()))
}

fn told(ended: Result<(), Box<dyn Error>>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Every scenario there is: the engine's first, then the path's, the network's and the inference tier's.
fn scenarios() -> Result<Vec<Box<dyn Scenario>>, Box<dyn Error>> {
    let mut all = grid_engine_benches::scenarios_beside(&grid_peers::contenders());
    all.extend(grid_benches::scenarios());
    all.extend(grid_network_benches::scenarios());
    all.extend(grid_inference_benches::scenarios(std::env::current_exe()?));
    Ok(all)
}

/// Those that were asked for, in the order in which `all` runs them.
fn chosen(names: &[String]) -> Result<Vec<Box<dyn Scenario>>, Box<dyn Error>> {
    let all = scenarios()?;
    let known = |name: &String| name == "all" || all.iter().any(|scenario| scenario.name() == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(format!("there is no scenario `{unknown}`; `list` names them").into());
    }
    let wanted = |scenario: &dyn Scenario| names.iter().any(|name| name == "all" || name == scenario.name());
    Ok(all.into_iter().filter(|scenario| wanted(scenario.as_ref())).collect())
}

fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    if args.scenarios.iter().any(|name| name == "list") {
        for scenario in scenarios()? {
            println!("{:<24}{}", scenario.name(), scenario.shows());
        }
        return Ok(());
    }
    let settings = Settings {
        seconds: args.seconds,
        rounds: args.rounds.max(1),
        dir: args.dir.clone(),
        commands: args.commands,
        rate: args.rate,
    };
    let mut report = Report::begin(&settings);
    let layout = ThreadLayout::for_cores(report.machine.cores);
    report.facts.push(("layout where none is named".into(), format!("{} ({})", layout.0, layout.1)));
    let command: Vec<String> = std::env::args().skip(1).collect();
    report.facts.push(("command".into(), format!("grid-benches {}", command.join(" "))));
    for (name, fact) in report.machine.facts() {
        println!("{name}: {fact}");
    }
    if cfg!(debug_assertions) {
        println!("note: a debug build; its times say nothing");
    }
    for scenario in chosen(&args.scenarios)? {
        println!("\n{}: {}", scenario.name(), scenario.shows());
        let rows = scenario.run(&settings).map_err(|error| format!("{}: {error}", scenario.name()))?;
        for row in &rows {
            print!("{row}");
        }
        report.push(scenario.as_ref(), rows);
        // After each scenario, so that a long run that fails leaves what it found.
        if let Some(file) = &args.json {
            std::fs::write(file, format!("{:#}\n", report.json()))?;
        }
        if let Some(file) = &args.html {
            std::fs::write(file, report.html())?;
        }
    }
    if let Some(file) = &args.table {
        std::fs::write(file, report.markdown())?;
    }
    if let Some(dir) = &args.plots {
        std::fs::create_dir_all(dir)?;
        report.plots().into_iter().try_for_each(|(name, svg)| std::fs::write(dir.join(name), svg))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_scenarios_of_any_room_share_a_name() {
        let mut names: Vec<_> =
            scenarios().expect("this program has a name").iter().map(|scenario| scenario.name()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }

    #[test]
    fn what_is_not_there_cannot_be_chosen() {
        let chosen = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names).map(|chosen| chosen.len())
        };
        assert_eq!(chosen(&["ring_only", "growth"]).expect("both are there"), 2);
        assert_eq!(
            chosen(&["all"]).expect("it stands for everything"),
            scenarios().expect("this program has a name").len()
        );
        assert!(chosen(&["ring_only", "rings"]).is_err());
    }
}
