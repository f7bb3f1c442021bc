//! Every scenario that runs in process goes through here once, small: what it checks holds, and its rows say what they should.

use grid_benches::{commit, growth, inproc, replay, rings, stages};
use grid_harness::{Row, Scenario, Settings};

fn run(scenario: &dyn Scenario, commands: u64) -> Vec<Row> {
    scenario.run(&Settings::small(commands)).expect("it measures, and its checks hold")
}

#[test]
fn rings_lose_nothing_and_have_a_floor() {
    let rows = run(&rings::RingOnly, 2_000);
    assert!(rows.iter().filter(|row| row.ratio().is_some()).count() >= 1, "{rows:?}");
}

#[test]
fn a_command_is_answered_in_process_with_and_without_the_journal() {
    let rows = run(&inproc::InprocOrderToAck, 50);
    let parked = rows.iter().find(|row| row.name == "parked, journal, one at a time");
    assert!(
        parked.and_then(|row| row.latency.as_ref()).is_some_and(|latency| latency.count() > 0),
        "{rows:?}"
    );
    assert!(rows.iter().filter(|row| row.latency.is_some()).all(|row| row.ratio().is_some()), "{rows:?}");
}

#[test]
fn stage_clocks_run_where_they_are_on_and_only_there() {
    let rows = run(&stages::Clocks, 2_000);
    assert!(rows[0].ratio().is_some(), "{rows:?}");
    assert!(rows[1].figures.iter().any(|(name, _, _)| name == "durable p50"), "{rows:?}");
}

#[test]
fn commits_are_compared_with_bare_writes_on_the_same_ground() {
    let rows = run(&commit::CommitLatency, 20);
    assert_eq!(rows.iter().filter(|row| row.ratio().is_some()).count(), 5, "{rows:?}");
    assert!(rows.iter().all(|row| row.latency.as_ref().is_some_and(|latency| latency.count() == 20)));
}

#[test]
fn three_nodes_take_what_one_takes() {
    let rows = run(&commit::ReplicatedThroughput, 2_000);
    assert!(rows[1].ratio().is_some(), "{rows:?}");
}

#[test]
fn a_replay_comes_to_the_state_that_clients_made() {
    let rows = run(&replay::ReplayRate, 2_000);
    assert_eq!(rows.len(), 4);
}

#[test]
fn a_start_is_measured_with_and_without_a_snapshot() {
    let rows = run(&replay::Recovery, 20_000);
    assert_eq!(rows.len(), 2);
}

#[test]
fn every_curve_of_growth_has_more_than_one_point() {
    let rows = run(&growth::Growth, 1_000);
    for axis in ["books", "resting orders", "accounts", "connections", "nodes"] {
        let of_axis = |row: &&Row| row.point.as_ref().is_some_and(|point| point.axis == axis);
        assert!(rows.iter().filter(of_axis).count() > 1, "{axis}: {rows:?}");
    }
    assert!(rows.iter().all(|row| row.ratio().is_some()), "each has a floor: {rows:?}");
}

#[test]
fn no_two_scenarios_share_a_name_and_each_says_what_it_shows() {
    let all = grid_benches::scenarios();
    let mut names: Vec<_> = all.iter().map(|scenario| scenario.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|scenario| scenario.shows().len() > 40));
}
