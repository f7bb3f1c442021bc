//! Every scenario of this crate once, small: answers, bills and leftovers are checked by the scenario itself, and no time is.

use std::path::PathBuf;

use grid_harness::{Scenario, Settings};
use grid_inference_benches::{Latency, Soak, Streams};

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_grid-inference-part").into()
}

#[test]
fn every_call_through_every_proxy_is_answered_and_settled_once() {
    let scenario = Latency { program: program(), peers: false };
    let settings = Settings { rate: Some(500.0), ..Settings::small(40) };
    let rows = scenario.run(&settings).expect("answers are right, and bills too");
    assert!(rows.iter().filter(|row| row.ratio().is_some()).count() >= 8, "{rows:?}");
}

#[test]
fn held_streams_come_to_their_end_and_are_settled() {
    let rows =
        Streams { program: program() }.run(&Settings::small(40)).expect("answers are right, and bills too");
    assert_eq!(rows.len(), 2);
}

#[test]
fn every_call_of_a_trace_is_billed_for_what_came_though_suppliers_fail() {
    let rows = Soak.run(&Settings::small(300)).expect("every bill is right, and nothing is left");
    let whole = |(name, _, rounds): &(String, _, grid_harness::Rounds)| {
        name.starts_with("answered whole") && rounds.median() > 0.0
    };
    assert!(rows[0].figures.iter().any(whole), "{rows:?}");
}
