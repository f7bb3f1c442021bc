//! One scenario, as quickly built as can be: `cargo run --release -p grid-inference-benches --example quick -- SCENARIO [SECONDS] [ROUNDS] [peers]`.
//!
//! For whoever changes the tier. What counts is measured by `grid-benches`.

use grid_harness::{Scenario, Settings};
use grid_inference_benches::{AS_PART, Latency, Soak, Streams, run_as_part};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == AS_PART) {
        run_as_part(&words[1..]).expect("the part works");
        return;
    }
    let program = std::env::current_exe().expect("this program has a name");
    let peers = words.get(3).is_some_and(|word| word == "peers");
    let scenario: Box<dyn Scenario> = match words.first().map(String::as_str) {
        Some("inference_streams") => Box::new(Streams { program }),
        Some("inference_soak") => Box::new(Soak),
        _ => Box::new(Latency { program, peers }),
    };
    let number = |at: usize, usual| words.get(at).map_or(usual, |word| word.parse().expect("a number"));
    let settings =
        Settings { seconds: number(1, 1.0), rounds: number(2, 3.0) as usize, ..Settings::default() };
    for row in scenario.run(&settings).unwrap_or_else(|error| panic!("{error}")) {
        println!("{}", row.name);
        if let Some(latency) = &row.latency {
            println!(
                "    p50 {:.1} µs, p99 {:.1} µs",
                latency.at(0.5) as f64 / 1e3,
                latency.at(0.99) as f64 / 1e3
            );
        }
        if let Some(throughput) = &row.throughput {
            println!("    {:.0} a second", throughput.median());
        }
        if let Some(ratio) = row.ratio() {
            println!("    {:.2} of the floor", ratio.median());
        }
        for (name, unit, rounds) in &row.figures {
            println!(
                "    {name}: {:.1} {unit} ({:.1} to {:.1})",
                rounds.median(),
                rounds.span().0,
                rounds.span().1
            );
        }
    }
}
