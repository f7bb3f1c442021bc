//! Each model holds for the sources as they are, and fails where the sources are broken on purpose: without their full fences, or with
//! a step left out. A model that could not fail would show nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use grid_models_memory as models;

/// What `loom` says where every thread waits: a wake-up was lost.
const LOST: &str = "deadlock";

/// Runs a model that must find what is named.
fn finds(fault: &str, model: impl FnOnce()) {
    let found = catch_unwind(AssertUnwindSafe(model))
        .expect_err("the model holds although the source is broken, so it shows nothing");
    let said = found.downcast_ref::<String>().map(String::as_str).or(found.downcast_ref::<&str>().copied());
    assert!(said.is_some_and(|said| said.contains(fault)), "it found something else: {said:?}");
}

#[test]
fn no_wake_up_is_lost() {
    models::a_sleeper_is_woken_for_work();
    models::a_sleeper_is_woken_by_either_of_two();
}

#[test]
fn without_the_bells_fences_a_wake_up_is_lost() {
    finds(LOST, || models::weakened(models::a_sleeper_is_woken_for_work));
    finds(LOST, || models::weakened(models::a_sleeper_is_woken_by_either_of_two));
}

#[test]
fn without_a_last_look_a_wake_up_is_lost() {
    finds(LOST, models::a_sleeper_that_does_not_look_again_is_lost);
}

#[test]
fn nothing_sent_is_left_behind_by_the_links() {
    models::the_links_see_what_is_sent();
}

#[test]
fn without_a_last_look_the_links_leave_something_behind() {
    finds(LOST, models::links_that_do_not_look_again_leave_something_behind);
}

#[test]
fn whoever_asks_for_room_is_told() {
    models::whoever_asks_for_room_is_told();
}

#[test]
fn without_its_fences_a_call_for_room_is_lost() {
    finds(LOST, || models::weakened(models::whoever_asks_for_room_is_told));
}

#[test]
fn nothing_slips_through_a_closing_door() {
    models::what_came_through_the_door_is_there_when_it_is_shut();
}

#[test]
fn with_a_weaker_order_something_slips_through_the_door() {
    finds("when the door is shut", || {
        models::weakened(models::what_came_through_the_door_is_there_when_it_is_shut)
    });
}

#[test]
fn an_epoch_is_heard_of() {
    models::whoever_waits_for_the_epoch_hears_of_it();
    models::a_waker_is_called_after_the_epoch_began();
}

#[test]
fn with_a_weaker_order_an_epoch_is_missed() {
    finds(LOST, || models::weakened(models::whoever_waits_for_the_epoch_hears_of_it));
    finds("after both notices", || models::weakened(models::a_waker_is_called_after_the_epoch_began));
}
