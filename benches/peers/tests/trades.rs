//! The peers run on our streams, small: what is said of their trades is true, and none of them panics.

use grid_engine_benches::streams::{Depth, exchange_mix, place_cancel_match};
use grid_engine_benches::tape::Tape;
use grid_harness::plain::Tally;

fn traded(name: &str, tape: &Tape) -> Tally {
    let all = grid_peers::contenders();
    let contender = all.iter().find(|contender| contender.name.starts_with(name)).expect("it is one of them");
    let mut tally = Tally::default();
    (contender.make)().run(tape.messages.all(), &mut tally);
    tally
}

fn streams() -> [Tape; 2] {
    [exchange_mix(20_000), place_cancel_match(Depth::Normal, 20_000)]
}

#[test]
fn orderbook_rs_trades_as_we_do() {
    for tape in streams() {
        assert_eq!(traded("orderbook-rs", &tape), tape.tally);
    }
}

#[test]
fn lobster_trades_as_much_as_we_do_but_between_other_orders() {
    for tape in streams() {
        let tally = traded("lobster", &tape);
        assert_eq!(tally.qty, tape.tally.qty);
        assert_ne!(tally, tape.tally, "a smaller quantity loses its place there");
    }
}

#[test]
fn matchcore_trades_more_than_the_limits_allow() {
    for tape in streams() {
        let tally = traded("matchcore", &tape);
        assert!(tally.qty > tape.tally.qty, "{tally:?}, {:?}", tape.tally);
    }
}
