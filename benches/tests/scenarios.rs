//! Every scenario that runs in process goes through here once, small: what it checks holds, and its table names its ground.

use grid_benches::ground::Ground;
use grid_benches::{commit, replay};

fn ground() -> Ground {
    Ground::under(&std::env::temp_dir()).expect("a directory")
}

#[test]
fn commits_are_compared_with_bare_writes_on_the_same_ground() {
    let ground = ground();
    let table = commit::commit_latency(&ground, 20, 1).expect("it measures").to_string();
    assert!(table.contains(ground.kind()), "{table}");
    assert!(table.contains("disk-quorum, 3 nodes, against bare"), "{table}");
}

#[test]
fn three_nodes_take_what_one_takes() {
    let table = commit::replicated_throughput(&ground(), 2_000, 1).expect("it measures").to_string();
    assert!(table.contains("3 nodes against 1"), "{table}");
}

#[test]
fn a_replay_comes_to_the_state_that_clients_made() {
    let table = replay::replay_rate(&ground(), 2_000, 1).expect("it measures").to_string();
    assert!(table.contains("replay against live"), "{table}");
}

#[test]
fn a_start_is_measured_with_and_without_a_snapshot() {
    let table = replay::recovery(&ground(), 20_000, 1).expect("it measures").to_string();
    assert!(table.contains("with against without"), "{table}");
}
