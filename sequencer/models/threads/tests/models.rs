//! Each model holds for the sources as they are, and fails over broken ones. A model that could not fail would show nothing.
//! A schedule that fails is printed as a string that `shuttle::replay` takes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use grid_models_threads as models;

/// What `shuttle` says where every thread waits, or where those that wait with a limit do nothing else any more.
const HANGS: &[&str] = &["deadlock", "exceeded max_steps"];

/// Runs a model that must find what is named.
fn finds(faults: &[&str], model: impl FnOnce()) {
    let found = catch_unwind(AssertUnwindSafe(model))
        .expect_err("the model holds although something is broken, so it shows nothing");
    let said = found.downcast_ref::<String>().map(String::as_str).or(found.downcast_ref::<&str>().copied());
    let said = said.unwrap_or_default();
    assert!(faults.iter().any(|fault| said.contains(fault)), "it found something else: {said}");
}

#[test]
fn a_venue_tells_everything_once_and_ends() {
    models::a_venue_runs_and_ends();
}

#[test]
fn over_parkers_that_forget_a_venue_hangs() {
    finds(HANGS, || models::forgetful(models::a_venue_runs_and_ends));
}

#[test]
fn a_gate_that_opens_before_the_sync_is_noticed() {
    finds(&["durable before"], models::a_venue_that_is_told_too_early);
}

#[test]
fn a_core_that_hears_of_no_room_hangs() {
    finds(HANGS, models::a_venue_whose_core_hears_of_no_room);
}

#[test]
fn a_consumer_that_goes_holds_nobody_up() {
    models::a_consumer_that_goes_holds_nobody_up();
}

#[test]
fn a_consumer_that_keeps_its_place_and_does_not_read_holds_everybody_up() {
    finds(HANGS, models::a_consumer_that_hangs);
}

#[test]
fn what_is_told_survives_a_change_of_leaders() {
    models::leaders_change();
}

#[test]
fn a_core_that_goes_on_behind_a_gap_is_noticed() {
    finds(&["log order"], models::leaders_change_over_a_gap);
}

#[test]
fn a_command_for_another_epoch_is_noticed() {
    finds(&["not what was taken in"], models::leaders_change_under_a_careless_producer);
}

#[test]
fn a_reader_sees_what_it_waited_for() {
    models::a_reader_sees_what_it_waited_for();
}

#[test]
fn a_reader_whose_replica_ends_unsaid_hangs() {
    finds(HANGS, models::a_reader_whose_replica_ends_unsaid);
}
