//! The official SDKs against the venue: what they were told, what the suppliers produced and what was billed agree.

use std::collections::HashMap;

use grid_engine::Usd;
use grid_engine::command::AccountMode;
use serde_json::{Value, json};

use crate::harness::{Account, Venue, shared, until};
use crate::web;
use crate::{books, clients};

/// The suppliers' own records of the calls that they answered and that have ended, by the id that the customer saw: the
/// venue's, which a supplier is told as the name of the request.
pub(crate) fn supplier_calls(venue: &Venue) -> HashMap<String, Value> {
    let mut all = HashMap::new();
    for supplier in &venue.ready.suppliers {
        let (addr, _) = web::split(&supplier.control_url);
        let answer = web::send(addr, "GET", "/calls", &[], b"").expect("the control endpoint answers");
        for call in answer.json().as_array().expect("a list") {
            if call["outcome"] != "refused" {
                let request = call["request"].as_str().expect("the venue names its requests");
                all.insert(request.replace("req_", "chatcmpl-"), call.clone());
            }
        }
    }
    all
}

/// Runs a script as two fresh customers, one with money, and compares the bill.
fn is_served_and_billed(runner: fn(&str, &Value) -> Value, script: &str) {
    let venue = shared();
    let operator = venue.operator();
    let (_, customer) = operator.open(script, AccountMode::Easy, Usd::dollars(100));
    let (_, poor) = operator.open("poor", AccountMode::Easy, Usd::ZERO);
    let case = json!({
        "base_url": venue.ready.inference_url,
        "key": customer.consumption_key,
        "poor_key": poor.consumption_key,
    });
    let told = runner(script, &case);
    let calls = told["calls"].as_array().expect("a list of calls");
    assert!(calls.len() >= 8, "{told}");
    let bill = compare(venue, &customer, calls);
    assert_eq!(books::used(venue, &poor), 0);
    println!("{}: {} calls, {bill} tokens billed", told["sdk"], calls.len());
}

/// The usage that the customer saw is what the supplier counted, and the sum is what was drawn from consumption.
fn compare(venue: &Venue, customer: &Account, calls: &[Value]) -> u64 {
    let records = until("every call in the suppliers' records", || {
        let records = supplier_calls(venue);
        let missing =
            calls.iter().find(|call| !records.contains_key(call["id"].as_str().unwrap_or_default()));
        missing.map_or(Ok(records), |call| Err(format!("{call} is in no supplier's record")))
    });
    let mut total = 0;
    for call in calls {
        let record = &records[call["id"].as_str().expect("an id")];
        if !call["prompt"].is_null() {
            assert_eq!(call["prompt"], record["prompt_tokens"], "{call}: {record}");
            assert_eq!(call["completion"], record["completion_tokens"], "{call}: {record}");
        }
        let count = |name: &str| record[name].as_u64().expect("a count");
        total += count("prompt_tokens") + count("completion_tokens");
    }
    let used = until("the bill", || match books::used(venue, customer) {
        used if used >= total => Ok(used),
        used => Err(format!("{used} of {total} tokens are billed")),
    });
    assert_eq!(used, total, "tokens billed and tokens produced");
    let lots = venue.signer(customer).get("/accounts/lots?status=all");
    let drawn: u64 = lots.as_array().expect("a list").iter().map(|lot| books::tokens(&lot["used"])).sum();
    assert!(drawn <= used, "lots: {lots}");
    for row in venue.signer(customer).get("/consumption-accounts").as_array().expect("a list") {
        let moved_in = row["total_deposits"].as_u64().expect("Units") * 1_000_000;
        let (free, used) =
            (row["tokens_available"].as_u64().expect("tokens"), row["tokens_used"].as_u64().expect("tokens"));
        assert_eq!(moved_in, free + used, "{row}");
    }
    total
}

#[test]
fn the_python_sdk_works_unmodified_and_is_billed_to_the_token() {
    is_served_and_billed(clients::python, "openai_sdk.py");
}

#[test]
fn the_node_sdk_works_unmodified_and_is_billed_to_the_token() {
    is_served_and_billed(clients::node, "openai_sdk.mjs");
}

#[test]
fn messages_and_responses_work_unmodified_and_are_billed_to_the_token() {
    let venue = shared();
    let operator = venue.operator();
    let (_, customer) = operator.open("dialects", AccountMode::Easy, Usd::dollars(100));
    let (_, poor) = operator.open("poor", AccountMode::Easy, Usd::ZERO);
    let case = json!({
        "base_url": venue.ready.inference_url,
        "messages_url": venue.ready.messages_url,
        "key": customer.consumption_key,
        "poor_key": poor.consumption_key,
    });
    let told = clients::python("dialects_sdk.py", &case);
    let calls = told["calls"].as_array().expect("a list of calls");
    assert_eq!(calls.len(), 11, "{told}");
    let count = |call: &Value, name: &str| call[name].as_u64().expect("a count");
    let total: u64 = calls.iter().map(|call| count(call, "input") + count(call, "output")).sum();
    let used = until("the bill", || match books::used(venue, &customer) {
        used if used >= total => Ok(used),
        used => Err(format!("{used} of {total} tokens are billed")),
    });
    assert_eq!(used, total, "tokens billed and tokens told: {told}");
    assert_eq!(books::used(venue, &poor), 0);
    println!("{}: {} calls, {total} tokens billed", told["sdk"], calls.len());
}
