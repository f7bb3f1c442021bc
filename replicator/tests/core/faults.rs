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

/// Bugs that these seeds found, each with the story it told at the time.
mod named {
    use super::run;

    /// A node that had lost its commit index in a crash stood for election among members of long ago and won: entries that
    /// the new members had committed were replaced. Hence `proven_commit`.
    #[test]
    fn a_change_in_the_log_proves_the_one_before_it() {
        for (seed, voters) in [(902, 3), (30_521, 2)] {
            run(seed, voters, 3_000);
        }
    }

    /// The announcement of a snapshot was lost on the way and nobody reported on it: the follower waited for ever.
    #[test]
    fn a_lost_announcement_of_a_snapshot_is_made_again() {
        for (seed, voters) in [(138, 3), (10_113, 5), (20_043, 1), (30_221, 2)] {
            run(seed, voters, 3_000);
        }
    }

    /// The removed node was shut down before the others knew that its removal was committed, and they needed its vote.
    #[test]
    fn a_removed_node_still_helps_the_others_to_learn_of_its_removal() {
        for (seed, voters) in [(20_352, 1), (10_274, 5), (30_295, 2)] {
            run(seed, voters, 3_000);
        }
    }
}
