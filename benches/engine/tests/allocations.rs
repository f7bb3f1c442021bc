//! No command of the hot path allocates once the engine has warmed up: the allocator is asked by name, command by command. What may allocate is
//! growth while it warms up, when books and sessions reach the size that they keep.

use grid_engine::Command;
use grid_engine::command::Entry;
use grid_engine_benches::streams::{self, Books, Depth};
use grid_engine_benches::tape::{BATCH, Tape};
use grid_harness::heap::{Counting, counts};

#[global_allocator]
static COUNTING: Counting = Counting;

const fn kind(entry: &Entry) -> &'static str {
    match entry.command {
        Command::Place(_) => "place",
        Command::Cancel { .. } => "cancel",
        Command::Replace { .. } => "replace",
        Command::MassCancel(_) => "mass cancel",
        Command::MassQuote { .. } => "mass quote",
        Command::Reserve { .. } => "reserve",
        Command::Settle { .. } => "settle",
        _ => "another",
    }
}

/// Runs a tape a first time over, and from the second half on holds every command to nothing.
fn allocates_nothing(tape: &Tape) {
    let mut run = tape.run();
    let warm = tape.entries.len() / 2;
    run.some(warm);
    let mut found = std::collections::BTreeMap::<&str, u64>::new();
    for (nth, entry) in tape.entries[warm..].iter().enumerate() {
        let before = counts().calls;
        run.one();
        let calls = counts().calls - before;
        if calls > 0 {
            *found.entry(kind(entry)).or_default() += calls;
        }
        if nth % BATCH == BATCH - 1 {
            run.publish();
        }
    }
    assert!(
        found.is_empty(),
        "of {} commands, allocator calls by kind: {found:?}",
        tape.entries.len() - warm
    );
}

/// Few traders, so that each of them has bought as often as what it holds is kept apart, and what it holds has room.
const TRADERS: u32 = 4;

#[test]
fn the_exchange_mix_allocates_nothing() {
    allocates_nothing(&streams::exchange_mix_among(TRADERS, 400_000));
}

#[test]
fn place_cancel_match_allocates_nothing() {
    for depth in [Depth::Normal, Depth::Static] {
        allocates_nothing(&streams::place_cancel_match_among(TRADERS, depth, 400_000));
    }
}

#[test]
fn sweeps_of_a_thin_book_allocate_nothing() {
    allocates_nothing(&streams::thin_book_sweep(400_000));
}

#[test]
fn bursts_of_cancels_allocate_nothing() {
    allocates_nothing(&streams::cancel_burst(100_000));
    allocates_nothing(&streams::mass_cancel(100_000));
}

#[test]
fn refreshed_quotes_allocate_nothing() {
    allocates_nothing(&streams::mass_quotes(40_000));
    allocates_nothing(&streams::replaced_quotes(100_000));
}

#[test]
fn many_books_allocate_nothing() {
    allocates_nothing(&Books { books: 4, resting: 4_000, traders: TRADERS, pareto: true }.tape(400_000));
}

/// A copied engine has room for just what each consumer holds: all of them have bought again before it counts.
#[test]
fn calls_reserved_and_settled_allocate_nothing() {
    allocates_nothing(&streams::reserve_settle(600_000));
}
