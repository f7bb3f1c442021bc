//! The adapter alone: what it sends, and what each answer means.

use std::time::Duration;

use grid_engine::funding::{PaymentMethod, PaymentSource};
use grid_engine::{AccountId, Nanos, SECOND, Usd};
use grid_payments::{Charge, Outcome, Provider, SecretKey, Stripe, StripeSettings};
use hyper::Method;

use crate::stand_in::{PATIENCE, SECRET, StandIn, Way};

fn charge(amount: Usd) -> Charge {
    Charge {
        key: "grid-18867ab-7".into(),
        reload: 7,
        account: AccountId(3),
        amount,
        source: PaymentSource::Provider(PaymentMethod { customer: "cus_3".into(), method: "pm_card".into() }),
        due_at: Nanos(1_767_261_600 * SECOND),
    }
}

fn paid(dollars: i64) -> Outcome {
    Outcome::Paid { amount: Usd::dollars(dollars) }
}

#[tokio::test]
async fn a_charge_is_one_confirmed_payment_intent_under_its_key() {
    let stripe = StandIn::start(&[]).await;
    assert_eq!(stripe.adapter(PATIENCE).charge(charge(Usd::dollars(20))).await, paid(20));
    let got = &stripe.got()[0];
    assert_eq!((&got.method, got.path.as_str()), (&Method::POST, "/v1/payment_intents"));
    for (name, value) in [
        ("authorization", "Bearer sk_test_never_shown"),
        ("idempotency-key", "grid-18867ab-7"),
        ("stripe-version", "2024-06-20"),
        ("content-type", "application/x-www-form-urlencoded"),
    ] {
        assert_eq!(got.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    let fields: Vec<_> = got.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        fields,
        [
            ("amount", "2000"),
            ("automatic_payment_methods[allow_redirects]", "never"),
            ("automatic_payment_methods[enabled]", "true"),
            ("confirm", "true"),
            ("currency", "usd"),
            ("customer", "cus_3"),
            ("description", "Auto-Reload"),
            ("error_on_requires_action", "true"),
            ("metadata[grid_account]", "3"),
            ("metadata[grid_reload]", "grid-18867ab-7"),
            ("off_session", "true"),
            ("payment_method", "pm_card"),
        ]
    );
}

#[tokio::test]
async fn a_part_of_a_cent_is_neither_charged_nor_credited() {
    for (nanos, cents) in [(20_000_000_000, "2000"), (20_009_999_999, "2000"), (20_010_000_000, "2001")] {
        let stripe = StandIn::start(&[]).await;
        let outcome = stripe.adapter(PATIENCE).charge(charge(Usd(nanos))).await;
        assert_eq!(stripe.got()[0].form["amount"], cents);
        assert_eq!(outcome, Outcome::Paid { amount: Usd(nanos / 10_000_000 * 10_000_000) });
    }
}

#[tokio::test]
async fn asked_again_it_charges_once() {
    for way in [Way::Pay, Way::PayAndHangUp, Way::PayAndFail] {
        let stripe = StandIn::start(&[way]).await;
        let adapter = stripe.adapter(PATIENCE);
        let first = adapter.charge(charge(Usd::dollars(20))).await;
        assert_eq!(matches!(first, Outcome::Again { .. }), way == Way::PayAndHangUp, "{way:?}: {first:?}");
        assert_eq!(adapter.charge(charge(Usd::dollars(20))).await, paid(20), "{way:?}");
        assert_eq!(stripe.charged().into_values().collect::<Vec<_>>(), [2_000], "{way:?}");
    }
}

#[tokio::test]
async fn each_refusal_is_what_it_is() {
    let declined = |why: &str| Outcome::Declined { why: why.into() };
    let again = |why: &str, after| Outcome::Again { why: why.into(), after };
    for (way, outcome) in [
        (Way::Decline, declined("402 card_error card_declined insufficient_funds")),
        (Way::Authenticate, declined("402 card_error authentication_required")),
        (Way::Unknown, declined("400 invalid_request_error resource_missing")),
        (Way::Busy(429), again("429 api_error", Some(Duration::ZERO))),
        (Way::Busy(409), again("409 api_error", None)),
        (Way::Busy(500), again("500 api_error", None)),
        (Way::Busy(503), again("503 api_error", None)),
    ] {
        let stripe = StandIn::start(&[way]).await;
        assert_eq!(stripe.adapter(PATIENCE).charge(charge(Usd::dollars(20))).await, outcome, "{way:?}");
        assert!(stripe.charged().is_empty());
    }
}

#[tokio::test]
async fn no_answer_in_time_and_nobody_there_are_asked_again() {
    let stripe = StandIn::start(&[Way::PayAndStall]).await;
    let hasty = stripe.adapter(Duration::from_millis(50));
    // However slow the machine is: until a request has arrived there in time to be charged for.
    while stripe.got().is_empty() {
        let outcome = hasty.charge(charge(Usd::dollars(20))).await;
        assert!(matches!(outcome, Outcome::Again { .. }) || stripe.got().len() > 1, "{outcome:?}");
    }
    assert_eq!(stripe.adapter(PATIENCE).charge(charge(Usd::dollars(20))).await, paid(20));
    assert_eq!(stripe.charged().len(), 1);

    let settings = StripeSettings::new(SecretKey::new(SECRET.into()));
    let nowhere = Stripe::new(StripeSettings { base_url: "http://127.0.0.1:1".into(), ..settings });
    assert!(matches!(nowhere.charge(charge(Usd::dollars(20))).await, Outcome::Again { .. }));
}

#[tokio::test]
async fn a_payment_in_process_is_looked_at_until_it_has_arrived() {
    let stripe = StandIn::start(&[Way::Process]).await;
    let adapter = stripe.adapter(PATIENCE);
    assert!(matches!(adapter.charge(charge(Usd::dollars(20))).await, Outcome::Again { .. }));
    stripe.settle();
    assert_eq!(
        adapter.charge(charge(Usd::dollars(20))).await,
        paid(20),
        "though the key repeats the old answer"
    );
    assert_eq!(stripe.got()[1].path, "/v1/payment_intents/pi_1");
}

#[tokio::test]
async fn a_wrong_key_of_ours_is_not_the_card_s_fault_and_is_never_shown() {
    let stripe = StandIn::start(&[]).await;
    let settings = StripeSettings::new(SecretKey::new("sk_wrong".into()));
    let adapter = Stripe::new(StripeSettings { base_url: stripe.url.clone(), ..settings });
    let outcome = adapter.charge(charge(Usd::dollars(20))).await;
    assert!(matches!(outcome, Outcome::Again { .. }), "{outcome:?}");
    assert!(!format!("{outcome:?} {adapter:?}").contains("sk_wrong"));
}
