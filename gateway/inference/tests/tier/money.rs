//! What an account may do for nothing, and what its callers are told when its dollars run out: on the real engine,
//! through the whole tier, in the words of both dialects.

use std::sync::Arc;

use grid_engine::command::{AccountMode, Command};
use grid_engine::funding::{AccountTerms, AutoReload, ReloadFailure};
use grid_engine::{AccountId, Usd};
use serde_json::json;

use crate::market::{CONSUMER_ID, Market};
use crate::support::*;

const OPERATOR: AccountId = AccountId(1);

fn terms(market: &Market, free_calls_per_day: u32, free_at_once: u32) {
    let terms = AccountTerms {
        free_calls_per_day,
        free_at_once,
        paid_per_call_at_once: Usd::dollars(10),
        ..AccountTerms::default()
    };
    market.done(OPERATOR, Command::SetAccountTerms(terms));
}

fn messages() -> String {
    json!({"model": "text-prime", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]})
        .to_string()
}

#[tokio::test]
async fn free_calls_are_counted_down_and_then_refused_until_midnight_in_the_words_of_each_dialect() {
    let good = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    let market = Market::open(AccountMode::Easy, 0, [&good.url, &good.url]);
    terms(&market, 2, 3);
    market.done(CONSUMER_ID, Command::Credit { amount: Usd::dollars(5) });
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    for left in ["1", "0"] {
        let answer = caller.chat(&ask(json!({}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left));
    }
    // It is 10:00 UTC in the log.
    let until_midnight = (14 * 3_600).to_string();
    let answer = caller.chat(&ask(json!({}))).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (429, &json!("free_tier_limit_reached")));
    assert_eq!(error["type"], "rate_limit_error");
    for (name, value) in [
        ("retry-after", until_midnight.as_str()),
        // A client that came back at once, as most do, would only hear the same.
        ("x-should-retry", "false"),
        ("x-ratelimit-limit-requests", "2"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "50400s"),
        ("x-ratelimit-limit", "2"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "50400"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let answer = caller.post("/v1/messages", Some(KEY), &messages()).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (429, &json!("rate_limit_error")));
    for (name, value) in [
        ("retry-after", until_midnight.as_str()),
        ("anthropic-ratelimit-requests-limit", "2"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2026-01-02T00:00:00Z"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(good.got().len(), 2);

    market.done(CONSUMER_ID, Command::Deposit { amount: Usd::dollars(1) });
    let answer = caller.chat(&ask(json!({}))).await;
    assert_eq!(answer.status, 200, "a deposit lifts the daily limit: {}", answer.text);
    assert_eq!(answer.header("x-ratelimit-limit-requests"), None);
}

#[tokio::test]
async fn so_many_calls_at_once_and_a_deposit_makes_room_for_more() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let mut script = Script::json(&whole("the market", usage(5, 2)));
    script.steps.insert(0, Step::Gate(Arc::clone(&gate)));
    let slow = Upstream::always(script).await;
    let market = Market::open(AccountMode::Easy, 0, [&slow.url, &slow.url]);
    terms(&market, 100, 2);
    market.done(CONSUMER_ID, Command::Credit { amount: Usd::dollars(5) });
    let tier = Arc::new(market.tier().await);
    let call = || {
        let tier = Arc::clone(&tier);
        tokio::spawn(async move { Caller::new(&tier).chat(&ask(json!({"max_tokens": 100}))).await.status })
    };
    let mut calls = vec![call(), call()];
    slow.until_requests(2).await;
    let answer = Caller::new(&tier).chat(&ask(json!({"max_tokens": 100}))).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (429, &json!("concurrency_limit_reached")));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), (Some("1"), Some("true")));

    market.done(CONSUMER_ID, Command::Deposit { amount: Usd::dollars(10) });
    calls.push(call());
    slow.until_requests(3).await;
    let answer = Caller::new(&tier).chat(&ask(json!({"max_tokens": 100}))).await;
    assert_eq!(answer.status, 429, "ten dollars are one call more");
    gate.add_permits(3);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(market.state(|state| state.accounts[CONSUMER_ID.0 as usize].open_calls), 0);
}

#[tokio::test]
async fn without_dollars_it_is_503_while_they_are_being_replenished_and_402_when_they_are_not() {
    let good = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    let market = Market::open(AccountMode::Easy, 0, [&good.url, &good.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let told = async |what: &str, status: u16, code: &str, kind: [&str; 2], retry: Option<&str>| {
        let answer = caller.chat(&ask(json!({}))).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{what}");
        assert_eq!((&error["type"], answer.header("retry-after")), (&json!(kind[0]), retry), "{what}");
        let answer = caller.post("/v1/messages", Some(KEY), &messages()).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["error"]["type"]), (status, &json!(kind[1])), "{what}");
        assert_eq!((&body["type"], answer.header("retry-after")), (&json!("error"), retry), "{what}");
    };
    let unpaid = ["insufficient_quota", "billing_error"];
    told("credits at zero", 402, "insufficient_funds", unpaid, None).await;

    let settings = AutoReload {
        enabled: true,
        threshold: Usd::dollars(5),
        amount: Usd::dollars(20),
        monthly_limit: None,
    };
    market.done(CONSUMER_ID, Command::SetAutoReload(settings));
    let later = ["server_error", "overloaded_error"];
    told("a reload is under way", 503, "balance_replenishing", later, Some("2")).await;

    let declined = Command::ReloadFailed { reload: 1, reason: ReloadFailure::Declined };
    market.done(CONSUMER_ID, declined);
    told("the card was declined", 402, "payment_declined", unpaid, None).await;

    market.done(CONSUMER_ID, Command::SetCreditLine { limit: Usd::dollars(100) });
    told("the owner changed something", 503, "balance_replenishing", later, Some("2")).await;
    market.done(CONSUMER_ID, Command::ReloadPaid { reload: 2, amount: Usd::dollars(20) });
    assert_eq!(
        caller.chat(&ask(json!({}))).await.status,
        200,
        "the second or third try works (contract §6.5)"
    );
}
