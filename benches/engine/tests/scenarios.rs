//! Every scenario goes through here once, small: the stream is what it says it is, and every run of it comes to the same.

use grid_engine_benches::streams::{Depth, exchange_mix, place_cancel_match, reserve_settle};
use grid_engine_benches::tape::Tape;
use grid_harness::Settings;
use grid_harness::plain::Verb;

/// How many in a hundred commands of the stream do this.
fn share(tape: &Tape, verb: Verb) -> f64 {
    let messages = tape.messages.stream();
    messages.iter().filter(|message| message.verb == verb).count() as f64 * 100.0 / messages.len() as f64
}

fn near(found: f64, wanted: f64, give: f64) {
    assert!((found - wanted).abs() <= give, "{found} is not {wanted} give or take {give}");
}

#[test]
fn every_scenario_measures_and_its_checks_hold() {
    for scenario in grid_engine_benches::scenarios() {
        let rows = scenario.run(&Settings::small(2_000)).expect("it measures");
        assert!(rows.iter().any(|row| row.throughput.is_some()), "{}", scenario.name());
        for row in rows {
            assert!(row.ratio().is_some(), "{}: {} has no floor", scenario.name(), row.name);
        }
    }
}

#[test]
fn the_exchange_mix_has_the_shares_of_its_original() {
    let tape = exchange_mix(200_000);
    near(share(&tape, Verb::New), 12.1, 1.0);
    near(share(&tape, Verb::NewIoc), 1.9, 0.3);
    near(share(&tape, Verb::NewFok), 0.06, 0.03);
    near(share(&tape, Verb::Move), 71.9, 1.0);
    // A reduction by all that is open is a cancel; they are 7.0 and 7.0 where it is not counted so.
    near(share(&tape, Verb::Cancel) + share(&tape, Verb::Reduce), 14.0, 1.0);
    near(tape.outcome.trades as f64 / 2_000.0, 4.0, 1.0);
    near(tape.open as f64, 970.0, 60.0);
}

#[test]
fn place_cancel_match_has_its_shares_and_keeps_its_books() {
    for (depth, orders) in [(Depth::Normal, 2_700.0), (Depth::Static, 20_900.0)] {
        let tape = place_cancel_match(depth, 100_000);
        near(share(&tape, Verb::New) + share(&tape, Verb::NewIoc), 50.0, 0.5);
        near(share(&tape, Verb::NewIoc) / 0.5, 15.0, 0.5);
        near(share(&tape, Verb::Cancel), 41.0, 0.5);
        near(tape.open as f64, orders, orders / 5.0);
        assert!(tape.outcome.trades > 1_000, "{:?}", tape.outcome);
    }
}

#[test]
fn one_call_in_fifty_buys() {
    let tape = reserve_settle(50_000);
    near(25_000.0 / tape.outcome.trades as f64, 50.0, 5.0);
}
