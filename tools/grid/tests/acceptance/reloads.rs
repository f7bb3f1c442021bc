//! Auto-Reload in a running venue: the operator's own commands give a line of credit and a card, calls cross the
//! threshold, and the worker inside the process has the money: from the venue's line, and from a stand-in of Stripe's API,
//! which keeps what it was asked.

use std::sync::Arc;

use grid_engine::Usd;
use grid_engine::command::AccountMode;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::books::{nanos, reads_catch_up};
use crate::harness::{Account, Options, Place, Venue, grid, until};
use crate::stripe::{SECRET, StandIn, Way};
use crate::web::chat;

const DOLLAR: i128 = 1_000_000_000;

/// A venue that charges cards at the stand-in.
fn options(stripe: &StandIn) -> Options {
    let text = format!("[payments]\nstripe_secret_key = \"{SECRET}\"\nstripe_url = \"{}\"\n", stripe.url);
    // It lives as long as the test process, which is one venue's life.
    Options { config: text.leak(), ..Options::quiet() }
}

fn stripe(ways: &[Way]) -> (Runtime, Arc<StandIn>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime for the stand-in");
    let stand_in = runtime.block_on(StandIn::start(ways));
    (runtime, stand_in)
}

/// The operator's command line, against the process that runs.
fn operator(venue: &Venue, data: &std::path::Path, words: &[&str]) {
    let mut command = grid();
    command.args(["operator", "--binary-addr", &venue.ready.binary_addr.to_string(), "--data-dir"]);
    let output = command.arg(data).args(words).output().expect("the command runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The owner's settings, signed; what they are afterwards.
fn set(venue: &Venue, owner: &Account, settings: &Value) -> Value {
    let signer = venue.signer(owner);
    let path = "/self/system-settings/auto_reload";
    let answer = signer.send("PATCH", path, settings.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].take()
}

/// A call that buys a Unit of this.
fn call(venue: &Venue, owner: &Account, model: &str) {
    let body = json!({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]});
    until("an answer", || {
        let answer = chat(&venue.ready.inference_url, &owner.consumption_key, &body)
            .map_err(|error| error.to_string())?;
        match answer.status {
            200 => Ok(()),
            // Between crossing the threshold and the money's arrival.
            503 => Err(answer.text()),
            status => panic!("{status} {}", answer.text()),
        }
    });
}

/// The rows of the account's statement that are of this kind: amount and reload.
fn statement(venue: &Venue, owner: &Account, kind: &str) -> Vec<(i128, u64)> {
    let rows = venue.signer(owner).get("/funding-histories");
    let rows = rows.as_array().expect("a list").iter().filter(|row| row["kind"] == kind);
    let mut found: Vec<_> =
        rows.map(|row| (nanos(&row["amount"]), row["reload"].as_u64().expect("a number"))).collect();
    found.sort_unstable();
    found
}

fn until_reloaded(venue: &Venue, owner: &Account, times: usize) {
    until("the reload", || {
        let rows = statement(venue, owner, "reload");
        if rows.len() == times { Ok(()) } else { Err(format!("{rows:?}\n{}", venue.printed())) }
    });
}

/// What the account has is what came in, less what it paid for Units.
fn adds_up(venue: &Venue, owner: &Account, came_in: i128) -> i128 {
    reads_catch_up(venue, owner);
    let signer = venue.signer(owner);
    let trades = signer.get("/trades?limit=100");
    let paid: i128 = trades
        .as_array()
        .expect("a list")
        .iter()
        .map(|trade| nanos(&trade["total_value"]) + nanos(&trade["fee"]))
        .sum();
    let has = nanos(&signer.get("/currency-trading-accounts")[0]["total_balance"]);
    assert_eq!(has, came_in - paid, "paid {paid}");
    has
}

/// Two accounts with ten dollars, reloads of five below nine and a half, no more than ten in a month: one borrows from the
/// venue, one has a card.
#[test]
fn calls_that_cross_the_threshold_are_paid_for_by_the_line_of_credit_or_the_card_within_the_month() {
    let (_runtime, stripe) = stripe(&[]);
    let venue = Venue::start(&options(&stripe));
    let data = venue.data();
    let (borrower, on_credit) = venue.operator().open("borrower", AccountMode::Easy, Usd::dollars(10));
    let (holder, with_card) = venue.operator().open("card", AccountMode::Easy, Usd::dollars(10));
    operator(&venue, &data, &["credit-line", &borrower.to_string(), "12"]);
    operator(&venue, &data, &["card", &holder.to_string(), "cus_7", "pm_card"]);
    let settings = json!({"auto_reload_enabled": true, "auto_reload_threshold_usd": "9.50",
        "auto_reload_amount_usd": "5", "auto_reload_monthly_limit_usd": "10"});
    for owner in [&on_credit, &with_card] {
        let shown = set(&venue, owner, &settings);
        assert_eq!(
            (&shown["auto_reload_status"], &shown["auto_reload_amount_usd"]),
            (&json!("ready"), &json!("5"))
        );
        // A Unit of text-prime costs less than a dollar, one of text-max more than five.
        for (times, model) in [(1, "text-prime"), (2, "text-max")] {
            call(&venue, owner, model);
            until_reloaded(&venue, owner, times);
        }
        let has = adds_up(&venue, owner, 20 * DOLLAR);
        assert!(has > 10 * DOLLAR, "{has}: it stands above the threshold again");

        // A third would be 15 in a month whose limit is 10; whether one is due is decided by the command itself.
        let shown = set(&venue, owner, &json!({"auto_reload_threshold_usd": "100"}));
        assert_eq!(shown["auto_reload_status"], "ready", "{shown}");
        call(&venue, owner, "text-standard");
        assert_eq!(statement(&venue, owner, "reload").len(), 2);
        // The owner allows more: another five are due at once, and asked for.
        set(
            &venue,
            owner,
            &json!({"auto_reload_threshold_usd": "20", "auto_reload_monthly_limit_usd": "15"}),
        );
    }
    // The card bears them, the line of 12 does not: it says so, and calls go on while there are dollars.
    until_reloaded(&venue, &with_card, 3);
    adds_up(&venue, &with_card, 25 * DOLLAR);
    until("the line's answer", || {
        let shown = venue.signer(&on_credit).get("/self/system-settings");
        let declined = statement(&venue, &on_credit, "reload_declined").len() == 1;
        if declined { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_eq!(statement(&venue, &on_credit, "reload").len(), 2);
    adds_up(&venue, &on_credit, 20 * DOLLAR);
    call(&venue, &on_credit, "text-standard");

    // What Stripe was asked: three charges of five dollars, of that customer's card, each under a key of its own.
    let charged = stripe.charged();
    assert_eq!(charged.values().copied().collect::<Vec<_>>(), [500; 3], "{charged:?}");
    for got in stripe.got() {
        let form = |name: &str| got.form.get(name).map(String::as_str);
        assert_eq!((form("customer"), form("payment_method")), (Some("cus_7"), Some("pm_card")));
        assert_eq!(form("metadata[grid_account]"), Some(holder.to_string().as_str()));
    }
    assert!(!venue.printed().contains(SECRET));
}

/// The card is charged and the answer never comes; the process is killed, and the next one asks again.
#[test]
fn a_venue_that_is_killed_between_the_charge_and_its_answer_charges_once() {
    let (runtime, stripe) = stripe(&[Way::PayAndStall]);
    let (place, options) = (Place::new(), options(&stripe));
    let start = || Venue::start_at(&place, &options).unwrap_or_else(|printed| panic!("no venue:\n{printed}"));
    let venue = start();
    let (number, owner) = venue.operator().open("card", AccountMode::Easy, Usd::dollars(10));
    operator(&venue, &place.data(), &["card", &number.to_string(), "cus_7", "pm_card"]);
    let settings = json!({"auto_reload_enabled": true, "auto_reload_threshold_usd": "9.50",
        "auto_reload_amount_usd": "5"});
    set(&venue, &owner, &settings);
    call(&venue, &owner, "text-prime");
    runtime.block_on(stripe.until_requests(1));
    assert_eq!(venue.signer(&owner).get("/self/system-settings")["auto_reload_status"], "replenishing");
    venue.kill();

    let venue = start();
    until_reloaded(&venue, &owner, 1);
    adds_up(&venue, &owner, 15 * DOLLAR);
    assert_eq!(stripe.charged().values().copied().collect::<Vec<_>>(), [500]);
    let keys: Vec<_> = stripe.got().iter().map(|got| got.headers["idempotency-key"].clone()).collect();
    assert!(keys.len() >= 2 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}
