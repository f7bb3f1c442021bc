//! Many seeds of every fault at once; a failing one names itself.

use super::cluster::{Chance, Cluster, Tally, Weather};

fn run(seed: u64, voters: u64, steps: u64) -> Tally {
    let weather = Weather::of(&mut Chance::new(seed ^ 0xfeed));
    let mut cluster = Cluster::new(seed, voters, weather);
    for _ in 0..steps {
        cluster.step();
    }
    cluster.heal_and_converge();
    cluster.tally
}

fn seeds(first: u64, count: u64, voters: u64, steps: u64) -> Tally {
    let many = std::env::var("GRID_CORE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(count);
    let mut sum = Tally::default();
    for seed in first..first + many {
        let tally = run(seed, voters, steps);
        sum.committed += tally.committed;
        sum.acked += tally.acked;
        sum.crashes += tally.crashes;
        sum.unsynced_lost += tally.unsynced_lost;
        sum.terms += tally.terms;
        sum.changes += tally.changes;
        sum.transfers += tally.transfers;
        sum.snapshots_installed += tally.snapshots_installed;
        sum.messages += tally.messages;
    }
    println!("{many} seeds of {voters} voters: {sum:?}");
    sum
}

#[test]
fn three_nodes_lose_nothing_and_converge() {
    let tally = seeds(1, 120, 3, 3_000);
    assert!(
        tally.crashes > 0 && tally.unsynced_lost > 0 && tally.snapshots_installed > 0 && tally.changes > 0
    );
}

#[test]
fn five_nodes_lose_nothing_and_converge() {
    let tally = seeds(10_001, 60, 5, 3_000);
    assert!(tally.crashes > 0 && tally.transfers > 0);
}

#[test]
fn one_node_loses_nothing_and_grows() {
    let tally = seeds(20_001, 60, 1, 3_000);
    assert!(tally.crashes > 0 && tally.acked > 0);
}

#[test]
fn two_nodes_lose_nothing_and_converge() {
    seeds(30_001, 30, 2, 3_000);
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [3, 77] {
        assert_eq!(run(seed, 3, 2_000), run(seed, 3, 2_000), "seed {seed}");
    }
}
