//! Charged once, minted once, whatever dies in between.

use std::sync::Arc;
use std::time::Duration;

use grid_engine::Usd;
use grid_engine::command::Command;
use grid_engine::event::Event;
use grid_engine::funding::ReloadFailure;
use grid_payments::{House, Providers, Settings, Venue, Worker};

use crate::stand_in::{PATIENCE, StandIn, Way};
use crate::venue::Market;

fn settings() -> Settings {
    // Longer than any test waits: a worker that does not follow the venue's news finds nothing.
    let look_every = PATIENCE * 100;
    let moment = Duration::from_millis(1);
    Settings { look_every, again_min: moment, again_max: moment * 4, ..Settings::default() }
}

fn worker(market: &Arc<Market>, stripe: &Arc<StandIn>) -> Worker {
    let venue = Arc::clone(market) as Arc<dyn Venue>;
    let house = Arc::new(House::new(Arc::clone(&venue)));
    let cards = Arc::new(stripe.adapter(PATIENCE));
    Worker::start(venue, Providers { house, cards: Some(cards) }, settings())
}

fn reloaded(event: &Event) -> bool {
    matches!(event, Event::Reloaded { .. })
}

#[tokio::test]
async fn what_is_due_is_charged_and_minted_once_for_each_account() {
    let stripe = StandIn::start(&[]).await;
    let (market, first) = Market::open();
    let accounts = [first, market.join(), market.join()];
    for account in accounts {
        market.card(account);
        market.auto_reload(account, None);
    }
    let workers = [worker(&market, &stripe), worker(&market, &stripe)];
    market.until("nothing is due", |state| state.reloads.is_empty()).await;
    for account in accounts {
        assert_eq!(market.dollars(account), Usd::dollars(21));
        assert_eq!(market.funding(account).paid, Usd::dollars(21));
    }
    assert_eq!(market.saw(reloaded), 3, "two workers do no harm");
    assert_eq!(stripe.charged().into_values().collect::<Vec<_>>(), [2_000; 3]);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_worker_that_rested_finds_what_was_due_before_as_soon_as_it_acts() {
    let stripe = StandIn::start(&[]).await;
    let (market, account) = Market::open();
    market.rest(true);
    let worker = worker(&market, &stripe);
    market.card(account);
    market.auto_reload(account, None);
    market.looked_at().await;
    assert!(stripe.got().is_empty(), "another one acts");
    market.rest(false);
    market.until("nothing is due", |state| state.reloads.is_empty()).await;
    assert_eq!(market.dollars(account), Usd::dollars(21));
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_between_charge_and_command_leaves_it_to_the_next_which_charges_nothing() {
    let stripe = StandIn::start(&[]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.auto_reload(account, None);
    market.lose_outcomes(u64::MAX);
    let dies = worker(&market, &stripe);
    market.until("it is charged", |_| !stripe.charged().is_empty()).await;
    drop(dies);
    market.restart();
    assert_eq!(market.dollars(account), Usd::dollars(1));

    market.lose_outcomes(0);
    let next = worker(&market, &stripe);
    market.until("nothing is due", |state| state.reloads.is_empty()).await;
    assert_eq!(market.dollars(account), Usd::dollars(21));
    assert_eq!(stripe.charged().into_values().collect::<Vec<_>>(), [2_000]);
    let keys: Vec<_> = stripe.got().iter().map(|got| got.headers["idempotency-key"].clone()).collect();
    assert!(keys.len() >= 2 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    next.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_while_the_provider_works_leaves_it_to_the_next() {
    let stripe = StandIn::start(&[Way::PayAndStall]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.auto_reload(account, None);
    let dies = worker(&market, &stripe);
    stripe.until_requests(1).await;
    drop(dies);
    let next = worker(&market, &stripe);
    market.until("nothing is due", |state| state.reloads.is_empty()).await;
    assert_eq!((market.dollars(account), stripe.charged().len()), (Usd::dollars(21), 1));
    next.stop().await;
}

#[tokio::test]
async fn an_outcome_whose_answer_was_lost_is_entered_once() {
    let stripe = StandIn::start(&[]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.lose_answers(3);
    market.auto_reload(account, None);
    let worker = worker(&market, &stripe);
    market.until("nothing is due", |state| state.reloads.is_empty()).await;
    worker.stop().await;
    assert_eq!((market.dollars(account), market.saw(reloaded)), (Usd::dollars(21), 1));
}

#[tokio::test]
async fn a_provider_that_stumbles_is_asked_until_it_has_charged_once() {
    let stumbles = [Way::Busy(500), Way::Busy(429), Way::Busy(409), Way::PayAndHangUp];
    for ways in [&stumbles[..], &[Way::PayAndFail]] {
        let stripe = StandIn::start(ways).await;
        let (market, account) = Market::open();
        market.card(account);
        market.auto_reload(account, None);
        let worker = worker(&market, &stripe);
        market.until("nothing is due", |state| state.reloads.is_empty()).await;
        assert_eq!(market.dollars(account), Usd::dollars(21));
        assert_eq!(stripe.charged().into_values().collect::<Vec<_>>(), [2_000]);
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_declined_card_stops_reloads_until_something_changes() {
    let stripe = StandIn::start(&[Way::Decline]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.auto_reload(account, None);
    let worker = worker(&market, &stripe);
    market.until("it is declined", |state| state.reloads.is_empty()).await;
    assert_eq!(market.funding(account).stopped, Some(ReloadFailure::Declined));
    market.done(account, Command::Withdraw { amount: Usd(1) });
    assert_eq!(stripe.got().len(), 1, "nothing more is due, so nobody is asked");

    market.card(account);
    market
        .until("the new card is charged", |state| state.counters.reload == 2 && state.reloads.is_empty())
        .await;
    assert_eq!(market.dollars(account), Usd::dollars(21).minus(Usd(1)));
    let keys: Vec<_> = stripe.got().iter().map(|got| got.headers["idempotency-key"].clone()).collect();
    assert_ne!(keys[0], keys[1], "another reload is another charge");
    worker.stop().await;
}

#[tokio::test]
async fn without_a_card_the_line_of_credit_is_drawn_as_far_as_it_goes() {
    let stripe = StandIn::start(&[]).await;
    let (market, account) = Market::open();
    market.done(account, Command::SetCreditLine { limit: Usd::dollars(30) });
    market.auto_reload(account, None);
    let worker = worker(&market, &stripe);
    market.until("it is lent", |state| state.reloads.is_empty()).await;
    assert_eq!(
        (market.dollars(account), market.funding(account).credit_used),
        (Usd::dollars(21), Usd::dollars(20))
    );
    market.done(account, Command::Withdraw { amount: Usd::dollars(20) });
    market.until("the second is declined", |state| state.reloads.is_empty()).await;
    assert_eq!(market.funding(account).stopped, Some(ReloadFailure::Declined));
    assert!(stripe.got().is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn the_monthly_limit_is_kept_across_restarts_and_ends_with_the_month() {
    let stripe = StandIn::start(&[]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.auto_reload(account, Some(50));
    let worker = worker(&market, &stripe);
    for _ in 0..2 {
        market.until("it is paid", |state| state.reloads.is_empty()).await;
        market.restart();
        market.done(account, Command::Withdraw { amount: Usd::dollars(20) });
    }
    assert_eq!(
        market.saw(|event| matches!(event, Event::ReloadDue { .. })),
        2,
        "a third would be $60 in January"
    );
    market.pass(31 * 86_400);
    market.until("February's is paid", |state| state.counters.reload == 3 && state.reloads.is_empty()).await;
    assert_eq!(stripe.charged().into_values().collect::<Vec<_>>(), [2_000; 3]);
    worker.stop().await;
}

#[tokio::test]
async fn a_reload_whose_end_nobody_knows_is_given_up_before_the_provider_forgets_its_key() {
    let stripe = StandIn::start(&[Way::Process]).await;
    let (market, account) = Market::open();
    market.card(account);
    market.auto_reload(account, None);
    let worker = worker(&market, &stripe);
    stripe.until_requests(2).await;
    market.pass(21 * 3_600);
    market.until("it is given up", |state| state.reloads.is_empty()).await;
    assert_eq!(market.funding(account).stopped, Some(ReloadFailure::Unresolved));
    worker.stop().await;
}
