//! What calls came to, as their payer reads it: to the nano-dollar what the engine billed, whichever way it is asked.

use std::sync::Arc;

use grid_engine::command::{AccountMode, Capabilities, Command};
use grid_engine::{AccountId, KeyHash};
use grid_history::History;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::market::{CONSUMER_ID, Market};
use crate::support::*;

/// The whole of the market's log lies in it, and no more than 31 days.
const DAYS: &str = "from=2025-12-20&to=2026-01-19";

async fn told(caller: &Caller, path: &str) -> Value {
    let answer = with_key(caller, path, KEY).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

async fn with_key(caller: &Caller, path: &str, key: &str) -> Reply {
    let request = caller.request("GET", path).header("authorization", format!("Bearer {key}"));
    Caller::read(caller.open(request.body(Full::default()).unwrap()).await).await
}

/// Nano-dollars of decimal text.
fn nanos(text: &Value) -> i64 {
    let text = text.as_str().expect("money is text");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    assert!(part.len() <= 9, "no finer than a nano-dollar: {text}");
    whole.parse::<i64>().unwrap() * 1_000_000_000 + format!("{part:0<9}").parse::<i64>().unwrap()
}

fn id(answer: &Reply) -> String {
    answer.header("x-grid-request-id").expect("every answer carries it").to_owned()
}

/// Calls over every surface, one that nobody delivers, and their handles in that order.
async fn story(caller: &Caller) -> Vec<String> {
    let mut ids = Vec::new();
    let messages = json!({"model": "text-prime", "max_tokens": 50,
        "messages": [{"role": "user", "content": "Say something about the market."}]});
    let responses = json!({"model": "text-prime", "input": "Say something about the market."});
    for (path, body) in [
        ("/v1/chat/completions", ask(json!({}))),
        ("/v1/chat/completions", ask(json!({}))),
        ("/v1/messages", messages),
        ("/v1/responses", responses),
    ] {
        let answer = caller.post(path, Some(KEY), &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        ids.push(id(&answer));
    }
    ids
}

async fn good() -> Upstream {
    Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await
}

#[tokio::test]
async fn receipts_add_up_to_what_the_engine_billed_to_the_nano() {
    let good = good().await;
    let market = Market::open(AccountMode::Easy, 25, [&good.url, &good.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let ids = story(&caller).await;
    let used = market.used();
    assert_eq!(used.len(), ids.len());

    println!("{:<40} {:<22} {:>5} {:>12}  route", "request", "endpoint", "tokens", "USD");
    let (mut tokens, mut cost) = (0, 0);
    for (name, record) in ids.iter().zip(&used) {
        let receipt = told(&caller, &format!("/v1/usage/{name}")).await;
        println!(
            "{name:<40} {:<22} {:>5} {:>12}  {}",
            receipt["endpoint"].as_str().unwrap(),
            receipt["usage"]["total_tokens"],
            receipt["cost"]["amount"].as_str().unwrap(),
            receipt["route"]["reason"].as_str().unwrap(),
        );
        assert_eq!(receipt["request_id"], name.as_str());
        assert_eq!(
            (&receipt["status"], &receipt["cost"]["status"]),
            (&json!("reconciled"), &json!("reconciled"))
        );
        assert_eq!(receipt["requested_model"], "text-prime");
        assert_eq!(receipt["serving_model"], "served");
        assert_eq!(receipt["route"]["cover"], "issuer");
        assert_eq!(receipt["route"]["attempts"], 1);
        assert_eq!(receipt["timing"]["ttft_ms"], Value::Null, "a whole answer does not show when it began");
        let rows = receipt["cost"]["breakdown"].as_array().unwrap();
        let subtotals: i64 = rows.iter().map(|row| nanos(&row["subtotal"])).sum();
        assert_eq!(subtotals, record.cost.0, "the cost is the sum of the subtotals");
        assert_eq!(nanos(&receipt["cost"]["amount"]), record.cost.0);
        assert_eq!(rows[0]["acquisition_price_per_token"], "0.00000081");
        tokens += rows.iter().map(|row| row["tokens"].as_u64().unwrap()).sum::<u64>();
        cost += subtotals;
    }
    assert_eq!(tokens, used.iter().map(|record| record.billed.0).sum::<u64>());
    assert_eq!(cost, used.iter().map(|record| record.cost.0).sum::<i64>());
    let endpoints: Vec<Value> = told(&caller, "/v1/usage?order_direction=asc").await["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["endpoint"].clone())
        .collect();
    assert_eq!(endpoints, ["/v1/chat/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"]);

    let summary = told(&caller, &format!("/v1/usage/summary?{DAYS}&group_by=day")).await;
    assert_eq!(summary["totals"]["request_count"], 4);
    assert_eq!(nanos(&summary["totals"]["cost"]["reconciled_amount"]), cost);
    assert_eq!(
        (&summary["buckets"][0]["key"], summary["buckets"].as_array().unwrap().len()),
        (&json!("2026-01-01"), 1)
    );
    for group in ["model", "api_key"] {
        let summary = told(&caller, &format!("/v1/usage/summary?{DAYS}&group_by={group}")).await;
        assert_eq!(summary["buckets"][0]["total_tokens"], summary["totals"]["total_tokens"], "{group}");
    }
    assert!(told(&caller, &format!("/v1/usage/summary?{DAYS}")).await.get("buckets").is_none());

    let models = || async { told(&caller, "/v1/models/text-prime").await["delivered_models"].clone() };
    assert_eq!(models().await, json!(["served"]));
    market.pass(29 * 86_400);
    assert_eq!(models().await, json!(["served"]));
    market.pass(2 * 86_400);
    assert_eq!(models().await, json!([]), "30 days after the last call");
}

#[tokio::test]
async fn pages_walk_every_receipt_once_in_any_order_and_filters_leave_out_the_rest() {
    let good = good().await;
    let market = Market::open(AccountMode::Easy, 25, [&good.url, &good.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let ids = story(&caller).await;
    for order in ["order_by=inserted_at&order_direction=asc", "order_by=total_tokens", "order_direction=desc"]
    {
        let (mut seen, mut query) = (Vec::new(), format!("/v1/usage?limit=3&{order}"));
        let mut page = told(&caller, &query).await;
        loop {
            seen.extend(page["data"].as_array().unwrap().iter().map(|row| row["request_id"].clone()));
            assert!(page["data"][0]["cost"].get("breakdown").is_none(), "lists have no breakdown");
            let Some(next) = page["paging"]["next_cursor"].as_str() else { break };
            query = format!("/v1/usage?limit=3&{order}&next={}", next.replace('+', "%2B"));
            page = told(&caller, &query).await;
        }
        assert_eq!(page["paging"]["has_more"], false);
        let mut sorted: Vec<&str> = seen.iter().map(|name| name.as_str().unwrap()).collect();
        sorted.sort_unstable();
        let mut all: Vec<&str> = ids.iter().map(String::as_str).collect();
        all.sort_unstable();
        assert_eq!(sorted, all, "{order}");
        let prev = page["paging"]["prev_cursor"].as_str().expect("there is a page before");
        let back =
            told(&caller, &format!("/v1/usage?limit=3&{order}&prev={}", prev.replace('+', "%2B"))).await;
        let back: Vec<Value> =
            back["data"].as_array().unwrap().iter().map(|row| row["request_id"].clone()).collect();
        assert_eq!(back, seen[..3], "{order}");
    }
    let key = told(&caller, "/v1/usage").await["data"][0]["api_key_id"].as_str().unwrap().to_owned();
    for (filter, count) in [
        (format!("api_key_id={key}"), 4),
        ("api_key_id=key_x".to_owned(), 0),
        ("model=text-prime".to_owned(), 4),
        ("model=text-max".to_owned(), 0),
        ("status=reconciled&cost_status=reconciled".to_owned(), 4),
        ("status=error".to_owned(), 0),
        ("status=pending".to_owned(), 0),
        ("status=error&cost_status=reconciled".to_owned(), 0),
        ("to=2026-01-01".to_owned(), 0),
        ("from=2026-01-01T10:00:00Z".to_owned(), 4),
    ] {
        let page = told(&caller, &format!("/v1/usage?{filter}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{filter}");
    }
    for query in [
        "/v1/usage?limit=0",
        "/v1/usage?limit=101",
        "/v1/usage?status=fine",
        "/v1/usage?cost_status=free",
        "/v1/usage?order_by=cost",
        "/v1/usage?order_direction=up",
        "/v1/usage?from=soon",
        "/v1/usage?from=2026-01-02&to=2026-01-01",
        "/v1/usage?next=%21",
        "/v1/usage?next=e30%3D&prev=e30%3D",
        "/v1/usage/summary?group_by=hour",
        "/v1/usage/summary?from=2026-01-01&to=2026-02-02",
    ] {
        let answer = with_key(&caller, query, KEY).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text);
        assert!(
            answer.json()["error"]["message"].is_string() && answer.json()["errors"]["detail"].is_string()
        );
        id(&answer);
    }
}

#[tokio::test]
async fn a_receipt_is_its_accounts_alone_and_every_key_of_the_account_reads_it() {
    let good = good().await;
    let market = Market::open(AccountMode::Easy, 25, [&good.url, &good.url]);
    let key = |account: AccountId, secret: &str| {
        let (hash, prefix) = (KeyHash::of(secret), "sk-or-v1".into());
        market.done(
            account,
            Command::AddConsumptionKey { hash, prefix, name: "another".into(), expires_at: None },
        );
    };
    key(CONSUMER_ID, "sk-second");
    let open = Command::OpenAccount {
        name: "other".into(),
        mode: AccountMode::Easy,
        capabilities: Capabilities::default(),
    };
    let other = AccountId(market.done(AccountId(1), open) as u32);
    key(other, "sk-other");
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let ids = story(&caller).await;
    let path = format!("/v1/usage/{}", ids[0]);
    let mine = with_key(&caller, &path, KEY).await.json();
    assert_eq!(with_key(&caller, &path, "sk-second").await.json(), mine);
    let request = caller.request("GET", &path).header("x-api-key", KEY).body(Full::default()).unwrap();
    assert_eq!(Caller::read(caller.open(request).await).await.json(), mine);

    assert_eq!(with_key(&caller, &path, "sk-other").await.status, 404);
    assert_eq!(with_key(&caller, "/v1/usage", "sk-other").await.json()["data"], json!([]));
    for (path, key, status) in [
        ("/v1/usage/req_00000000000000000000000000000000", KEY, 404),
        ("/v1/usage/nonsense", KEY, 404),
        ("/v1/usage", "sk-unknown", 401),
        ("/v1/usage/summary", "sk-unknown", 401),
        ("/v1/diagnostics", "sk-unknown", 401),
    ] {
        let answer = with_key(&caller, path, key).await;
        assert_eq!(answer.status, status, "{path}");
        id(&answer);
    }
    let diagnostics = told(&caller, "/v1/diagnostics").await;
    assert_eq!(
        (&diagnostics["data"]["status"], &diagnostics["data"]["service"]),
        (&json!("ok"), &json!("consumption"))
    );
}

#[tokio::test]
async fn a_call_is_pending_while_it_lasts_and_an_error_when_nobody_delivers() {
    let gate = Arc::new(Semaphore::new(0));
    let mut script = Script::json(&whole("the market", usage(5, 2)));
    script.steps.insert(0, Step::Gate(Arc::clone(&gate)));
    let slow = Upstream::always(script).await;
    let market = Market::open(AccountMode::Easy, 25, [&slow.url, &slow.url]);
    let tier = Arc::new(market.tier().await);
    let caller = Caller::new(&tier);
    let call = tokio::spawn({
        let tier = Arc::clone(&tier);
        async move { Caller::new(&tier).chat(&ask(json!({}))).await }
    });
    slow.until_requests(1).await;
    let page = told(&caller, "/v1/usage?status=pending").await;
    let name = page["data"][0]["request_id"].as_str().expect("the call in progress").to_owned();
    let pending = told(&caller, &format!("/v1/usage/{name}")).await;
    assert_eq!((&pending["status"], &pending["cost"]["status"]), (&json!("pending"), &json!("pending")));
    let summary = told(&caller, &format!("/v1/usage/summary?{DAYS}")).await;
    assert_eq!(summary["totals"]["cost"]["pending_requests"], 1);
    gate.add_permits(1);
    assert_eq!(id(&call.await.unwrap()), name);
    let settled = told(&caller, &format!("/v1/usage/{name}")).await;
    assert_eq!(settled["status"], "reconciled");
    assert_eq!(settled["created_at"], pending["created_at"], "it keeps its place");

    let bad = Upstream::always(Script::status(500)).await;
    let market = Market::open(AccountMode::Easy, 25, [&bad.url, &bad.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let answer = caller.chat(&ask(json!({}))).await;
    assert_eq!(answer.status, 503);
    let failed = told(&caller, &format!("/v1/usage/{}", id(&answer))).await;
    assert_eq!((&failed["status"], &failed["cost"]["status"]), (&json!("error"), &json!("cancelled")));
    assert_eq!((&failed["cost"]["amount"], &failed["usage"]["total_tokens"]), (&json!("0"), &json!(0)));
    let summary = told(&caller, &format!("/v1/usage/summary?{DAYS}")).await;
    assert_eq!(summary["totals"]["cost"]["cancelled_requests"], 1);
}

#[tokio::test]
async fn a_history_built_again_from_the_log_gives_the_same_receipts() {
    let good = good().await;
    let market = Market::open(AccountMode::Easy, 25, [&good.url, &good.url]);
    let tier = market.tier().await;
    let ids = story(&Caller::new(&tier)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("again.sqlite");
    {
        // Half of it, and then a restart that hears of everything once more.
        let (_, feed, writer) = History::open(&path).unwrap();
        let half = market.applied().len() / 2;
        feed.push(market.applied()[..half].to_vec()).unwrap();
        drop(feed);
        writer.join().unwrap();
    }
    let (history, feed, _writer) = History::open(&path).unwrap();
    feed.push(market.applied()).unwrap();
    let again = market.tier_with(history).await;
    let (before, after) = (Caller::new(&tier), Caller::new(&again));
    let paths = ids.iter().map(|id| format!("/v1/usage/{id}")).chain(["/v1/usage".to_owned()]);
    for path in paths {
        assert_eq!(told(&before, &path).await, told(&after, &path).await, "{path}");
    }
}
