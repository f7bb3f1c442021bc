//! Seeds of the simulator: many that must pass, one run twice, lies that must be found out, and those seeds that once showed a bug.

use grid_simulator::{Knobs, Lie, run, run_many, run_with};

/// Seeds in the test command; `grid sim` runs as many as wanted.
const SEEDS: u64 = 200;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[test]
fn two_hundred_clusters_survive_everything_we_can_think_of() {
    let summary = run_many(1, SEEDS, cores());
    println!("{summary}");
    assert!(summary.failures.is_empty(), "{summary}");
    // A run in which nothing happens proves nothing.
    let counts = &summary.counts;
    for (what, times) in [
        ("commands", counts.commands),
        ("elections", counts.elections),
        ("crashes", counts.crashes),
        ("losses of power", counts.power_cuts),
        ("crashes at fault points", counts.at_points),
        ("sectors lost", counts.sectors_lost),
        ("torn tails", counts.torn_tails),
        ("truncations", counts.truncations),
        ("snapshots taken in", counts.snapshots_taken_in),
        ("changes of members", counts.member_changes),
        ("refused starts", counts.refusals),
        ("client retries", counts.retries),
        ("repeated commands", counts.repeats),
        ("reports asked for again", counts.reports_again),
    ] {
        assert!(times > 0, "{what} occur: {summary}");
    }
}

#[test]
fn a_seed_runs_the_same_way_every_time() {
    for seed in [3, 4, 7] {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
        assert_eq!(one.counts, other.counts, "seed {seed}");
    }
    assert_ne!(run(3).fingerprint, run(4).fingerprint, "and another seed another way");
}

/// Whatever is broken on purpose is found out, by some check, within a few seeds.
#[test]
fn every_lie_is_found_out() {
    for lie in Lie::ALL {
        let knobs = Knobs { lie: Some(lie), ..Knobs::default() };
        let found = (1..=60).find_map(|seed| run_with(seed, knobs).failure.map(|what| (seed, what)));
        let (seed, what) = found.unwrap_or_else(|| panic!("nobody noticed {lie:?}"));
        println!("{lie:?}: seed {seed}: {}", what.lines().next().unwrap_or_default());
    }
}
