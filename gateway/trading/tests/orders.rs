//! Orders over HTTP, on a real engine: what is accepted, what is refused and how, and what the answers look like.

mod support;

use grid_engine::InstrumentId;
use grid_engine::command::Side;
use grid_trading::ids;
use serde_json::{Value, json};
use support::{Fixture, Response, fixture, get, masked, signed};

fn market() -> String {
    ids::market(InstrumentId(0))
}

fn order(extra: Value) -> String {
    let mut body = json!({ "market_id": market(), "side": "buy", "type": "limit", "quantity": "3", "price": "0.81", "time_in_force": "gtc" });
    for (name, value) in extra.as_object().expect("members") {
        if value == "absent" {
            body.as_object_mut().expect("members").remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body.to_string()
}

async fn place(fixture: &Fixture, extra: Value) -> Response {
    signed(fixture, &fixture.trader, "POST", "/v1/orders", &order(extra)).await
}

#[tokio::test]
async fn a_placed_order_is_answered_whole() {
    let fixture = fixture().await;
    let answer = place(&fixture, json!({ "client_order_id": "bot-000017" })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let order = &answer.json()["data"];
    assert_eq!(
        masked(order),
        json!({
            "order_id": "<order>", "id": "<order>", "client_order_id": "bot-000017",
            "market_id": "<market>", "market_name": "TEXT-PRIME/USD",
            "instrument_id": "<instrument>", "instrument_symbol": "text-prime", "instrument_name": "Text Prime",
            "trader_id": "<user>", "side": "buy", "type": "limit", "status": "active",
            "quantity": "3", "filled_quantity": 0, "remaining_quantity": 3,
            "price": "0.81", "average_price": null, "stop_price": null, "fee": "0",
            "time_in_force": "gtc", "post_only": false, "closure_reason": null,
            "submitted_at": "<time>", "closed_at": null, "created_at": "<time>", "updated_at": "<time>",
        })
    );
    let id = order["order_id"].as_str().expect("an id");
    let read = get(&fixture, &fixture.trader, &format!("/v1/orders/{}", id.replacen('_', "-", 1))).await;
    assert_eq!(read.json()["data"], *order, "the same order, asked for with a hyphen");
    let foreign = get(&fixture, &fixture.supplier, &format!("/v1/orders/{id}")).await;
    assert_eq!(foreign.status, 404, "nobody sees another's order");
}

#[tokio::test]
async fn every_bad_order_has_its_status_and_code() {
    let fixture = fixture().await;
    let table = [
        (json!({ "price": "0.815" }), 422, "INVALID_PRICE"),
        (json!({ "price": "0" }), 422, "INVALID_PRICE"),
        (json!({ "price": "-1" }), 422, "INVALID_PRICE"),
        (json!({ "price": "abc" }), 422, "INVALID_PRICE"),
        (json!({ "price": "99999999999999999999999999" }), 422, "INVALID_PRICE"),
        (json!({ "price": "10000.01" }), 422, "INVALID_PRICE"),
        (json!({ "price": "absent" }), 400, "VALIDATION_ERROR"),
        (json!({ "price": null }), 400, "VALIDATION_ERROR"),
        (json!({ "price": true }), 400, "VALIDATION_ERROR"),
        (json!({ "price": [1] }), 400, "VALIDATION_ERROR"),
        (json!({ "quantity": "0" }), 422, "INVALID_QUANTITY"),
        (json!({ "quantity": -3 }), 422, "INVALID_QUANTITY"),
        (json!({ "quantity": 1.5 }), 422, "INVALID_QUANTITY"),
        (json!({ "quantity": "10001" }), 422, "INVALID_QUANTITY"),
        (json!({ "quantity": "18446744073709551616" }), 422, "INVALID_QUANTITY"),
        (json!({ "quantity": {} }), 400, "VALIDATION_ERROR"),
        (json!({ "quantity": "absent" }), 400, "VALIDATION_ERROR"),
        (json!({ "side": "hold" }), 422, "VALIDATION_ERROR"),
        (json!({ "side": 1 }), 400, "VALIDATION_ERROR"),
        (json!({ "type": "iceberg" }), 422, "INVALID_ORDER"),
        (json!({ "type": "stop", "stop_price": "0.5" }), 422, "INVALID_ORDER"),
        (json!({ "type": "stop_limit", "stop_price": "0.5" }), 422, "INVALID_ORDER"),
        (json!({ "time_in_force": "gtd" }), 422, "INVALID_ORDER"),
        (json!({ "reduce_only": true }), 422, "INVALID_ORDER"),
        (json!({ "post_only": true, "time_in_force": "ioc" }), 422, "INVALID_ORDER"),
        (json!({ "post_only": "yes" }), 400, "VALIDATION_ERROR"),
        (json!({ "self_trade_prevention": "maybe" }), 422, "INVALID_ORDER"),
        (json!({ "max_slippage": "1" }), 422, "INVALID_ORDER"),
        (json!({ "type": "market", "max_slippage": "x" }), 422, "INVALID_ORDER"),
        (json!({ "client_order_id": "x".repeat(65) }), 422, "INVALID_ORDER"),
        (json!({ "client_order_id": "a\nb" }), 422, "INVALID_ORDER"),
        (json!({ "client_order_id": 17 }), 400, "VALIDATION_ERROR"),
        (json!({ "market_id": ids::market(InstrumentId(99)) }), 404, "MARKET_NOT_FOUND"),
        (json!({ "market_id": "market_nonsense" }), 404, "MARKET_NOT_FOUND"),
        (json!({ "market_id": ids::market(InstrumentId(1)) }), 422, "MARKET_CLOSED"),
        (json!({ "quantity": "10000", "price": "9.99" }), 400, "INSUFFICIENT_BALANCE"),
        (json!({ "side": "sell" }), 400, "INSUFFICIENT_BALANCE"),
    ];
    for (extra, status, code) in table {
        let answer = place(&fixture, extra.clone()).await;
        let body = answer.json();
        assert_eq!((answer.status, body["error"]["code"].as_str()), (status, Some(code)), "{extra}: {body}");
        assert!(body["errors"]["detail"].is_string() && body["error"]["details"].is_object(), "{body}");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"order\"",
        "{\"market_id\":\"x\",\"market_id\":\"y\"}",
        "\u{feff}{}",
        &"[".repeat(10_000),
    ] {
        let answer = signed(&fixture, &fixture.trader, "POST", "/v1/orders", body).await;
        assert_eq!(answer.status, 400, "{body:.40}");
    }
    let open = get(&fixture, &fixture.trader, "/v1/orders/count").await.json();
    assert_eq!(open["data"], json!({ "count": 0, "by_market": [] }));
    assert_eq!(place(&fixture, json!({})).await.status, 201, "the venue goes on");
}

#[tokio::test]
async fn quantity_and_price_come_as_text_or_number_and_null_is_absent() {
    let fixture = fixture().await;
    for extra in [
        json!({ "quantity": 3, "price": 0.81 }),
        json!({ "quantity": "3.0", "price": "0.81000000" }),
        json!({ "stop_price": null, "post_only": null, "reduce_only": null, "max_slippage": null, "client_order_id": null, "time_in_force": null }),
        json!({ "unknown_member": { "of": ["any", "kind"] } }),
    ] {
        let answer = place(&fixture, extra.clone()).await;
        assert_eq!(answer.status, 201, "{extra}: {}", answer.body);
        let order = &answer.json()["data"];
        assert_eq!((&order["quantity"], &order["price"]), (&json!("3"), &json!("0.81")), "{extra}");
    }
}

#[tokio::test]
async fn a_repeated_client_order_id_never_makes_a_second_order() {
    let fixture = fixture().await;
    let first = place(&fixture, json!({ "client_order_id": "once" })).await;
    let again = place(&fixture, json!({ "client_order_id": "once", "price": 0.81 })).await;
    assert_eq!((again.status, again.json()), (201, first.json()), "the same order, asked for again");
    for other in [json!({ "quantity": "4" }), json!({ "price": "0.80" }), json!({ "time_in_force": "day" })] {
        let mut extra = other.clone();
        extra["client_order_id"] = "once".into();
        let answer = place(&fixture, extra).await;
        assert_eq!(answer.error(), (422, "duplicate_client_order_id".into()), "{other}");
    }
    let id = first.json()["data"]["order_id"].as_str().expect("an id").to_owned();
    let cancelled = signed(&fixture, &fixture.trader, "DELETE", &format!("/v1/orders/{id}"), "").await;
    assert_eq!(cancelled.json()["data"]["status"], "cancelled");
    let late = place(&fixture, json!({ "client_order_id": "once" })).await;
    assert_eq!((late.status, late.json()), (201, cancelled.json()), "also after it has ended");
    assert_eq!(
        get(&fixture, &fixture.trader, "/v1/orders").await.json()["data"].as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn an_order_lives_from_active_over_partially_filled_to_filled() {
    let fixture = fixture().await;
    let placed = place(&fixture, json!({})).await.json();
    let path = format!("/v1/orders/{}", placed["data"]["order_id"].as_str().expect("an id"));
    let body = order(json!({ "side": "sell", "quantity": 2, "price": "0.80" }));
    let sold = signed(&fixture, &fixture.supplier, "POST", "/v1/orders", &body).await.json();
    assert_eq!(sold["data"]["status"], "filled");
    assert_eq!(sold["data"]["average_price"], "0.81", "the resting order's price");
    assert_eq!(sold["data"]["closure_reason"], Value::Null);
    let partly = get(&fixture, &fixture.trader, &path).await.json();
    assert_eq!(
        (&partly["data"]["status"], &partly["data"]["filled_quantity"]),
        (&json!("partially_filled"), &json!(2))
    );
    let body = order(json!({ "side": "sell", "quantity": 1, "type": "market", "price": "0.01" }));
    let market = signed(&fixture, &fixture.supplier, "POST", "/v1/orders", &body).await.json();
    assert_eq!(
        (&market["data"]["type"], &market["data"]["price"], &market["data"]["status"]),
        (&json!("market"), &Value::Null, &json!("filled"))
    );
    let filled = get(&fixture, &fixture.trader, &path).await.json();
    assert_eq!(
        (&filled["data"]["status"], filled["data"]["closed_at"].is_string()),
        (&json!("filled"), true)
    );
    let late = signed(&fixture, &fixture.trader, "DELETE", &path, "").await;
    assert_eq!(late.error(), (409, "order_not_cancellable".into()));
}

#[tokio::test]
async fn orders_that_cannot_rest_say_why_they_ended() {
    let fixture = fixture().await;
    let table = [
        (json!({ "type": "market", "price": "absent" }), "closed", json!("no_fill_no_liquidity")),
        (json!({ "time_in_force": "ioc" }), "closed", json!("no_fill_no_liquidity")),
        (json!({ "time_in_force": "fok" }), "closed", json!("no_fill_no_liquidity")),
    ];
    for (extra, status, reason) in table {
        let answer = place(&fixture, extra.clone()).await;
        let order = &answer.json()["data"];
        assert_eq!(
            (answer.status, &order["status"], &order["closure_reason"]),
            (201, &json!(status), &reason),
            "{extra}"
        );
    }
    fixture.venue.place(fixture.supplier.account, Side::Sell, 80, 1);
    fixture.venue.place(fixture.supplier.account, Side::Sell, 90, 1);
    let answer = place(&fixture, json!({ "type": "market", "max_slippage": "5" })).await.json();
    assert_eq!(
        (&answer["data"]["filled_quantity"], &answer["data"]["closure_reason"]),
        (&json!(1), &json!("partially_filled_max_slippage"))
    );
    let crossing = place(&fixture, json!({ "price": "0.95", "post_only": true })).await;
    assert_eq!(crossing.error(), (422, "post_only_would_trade".into()));
    let resting = place(&fixture, json!({ "post_only": true })).await.json();
    assert_eq!(
        (&resting["data"]["post_only"], &resting["data"]["time_in_force"]),
        (&json!(true), &json!("gtc"))
    );
}

#[tokio::test]
async fn an_update_changes_price_and_total_quantity() {
    let fixture = fixture().await;
    let placed = place(&fixture, json!({})).await.json();
    let path = format!("/v1/orders/{}", placed["data"]["order_id"].as_str().expect("an id"));
    fixture.venue.place(fixture.supplier.account, Side::Sell, 81, 1);
    let put = |body: &'static str| signed(&fixture, &fixture.trader, "PUT", &path, body);
    let changed = put(r#"{"quantity":"5","price":"0.79"}"#).await;
    let order = &changed.json()["data"];
    assert_eq!(
        (
            changed.status,
            &order["price"],
            &order["quantity"],
            &order["filled_quantity"],
            &order["remaining_quantity"]
        ),
        (200, &json!("0.79"), &json!("5"), &json!(1), &json!(4))
    );
    for (body, status) in [
        ("{}", 400),
        (r#"{"quantity":"1"}"#, 422),
        (r#"{"price":"0.795"}"#, 422),
        (r#"{"stop_price":"0.7"}"#, 422),
        (r#"{"time_in_force":"ioc"}"#, 422),
        (r#"{"time_in_force":"gtc"}"#, 200),
    ] {
        assert_eq!(put(body).await.status, status, "{body}");
    }
    signed(&fixture, &fixture.trader, "DELETE", &path, "").await;
    assert_eq!(put(r#"{"price":"0.70"}"#).await.error(), (409, "order_already_cancelled".into()));
}

#[tokio::test]
async fn cancelling_answers_the_order_and_a_second_time_409() {
    let fixture = fixture().await;
    let placed = place(&fixture, json!({})).await.json();
    let path = format!("/v1/orders/{}", placed["data"]["order_id"].as_str().expect("an id"));
    let cancelled = signed(&fixture, &fixture.trader, "DELETE", &path, "").await;
    assert_eq!(cancelled.status, 200);
    let order = &cancelled.json()["data"];
    assert_eq!((&order["status"], &order["closure_reason"]), (&json!("cancelled"), &json!("cancelled")));
    let again = signed(&fixture, &fixture.trader, "DELETE", &path, "").await;
    assert_eq!(again.error(), (409, "order_already_cancelled".into()));
    for id in ["order_00000000-0000-8000-8000-000000000000", "nonsense", "%ff"] {
        let answer = signed(&fixture, &fixture.trader, "DELETE", &format!("/v1/orders/{id}"), "").await;
        assert_eq!(answer.status, 404, "{id}");
    }
    for _ in 0..3 {
        place(&fixture, json!({})).await;
    }
    let count = get(&fixture, &fixture.trader, "/v1/orders/count").await.json();
    assert_eq!(count["data"], json!({ "count": 3, "by_market": [{ "market_id": market(), "count": 3 }] }));
    let other = format!("/v1/markets/{}/orders", ids::market(InstrumentId(1)));
    assert_eq!(
        signed(&fixture, &fixture.trader, "DELETE", &other, "").await.json(),
        json!({ "data": { "cancelled": 0 } })
    );
    let path = format!("/v1/markets/{}/orders", market());
    assert_eq!(
        signed(&fixture, &fixture.trader, "DELETE", &path, "").await.json(),
        json!({ "data": { "cancelled": 3 } })
    );
    place(&fixture, json!({})).await;
    assert_eq!(
        signed(&fixture, &fixture.trader, "DELETE", "/v1/orders", "").await.json(),
        json!({ "data": { "cancelled": 1 } })
    );
}

#[tokio::test]
async fn auto_mode_reads_everything_and_trades_nothing() {
    let fixture = fixture().await;
    let answer = signed(&fixture, &fixture.easy, "POST", "/v1/orders", &order(json!({}))).await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.json()["errors"],
        json!({ "detail": "auto_mode_trading_restricted", "message": "Switch to Advanced mode to trade." })
    );
    assert_eq!(get(&fixture, &fixture.easy, "/v1/orders").await.status, 200);
    assert_eq!(
        signed(
            &fixture,
            &fixture.easy,
            "POST",
            "/v1/self/system-settings/account-mode",
            r#"{"mode":"advanced"}"#
        )
        .await
        .status,
        204
    );
    assert_eq!(signed(&fixture, &fixture.easy, "POST", "/v1/orders", &order(json!({}))).await.status, 201);
}

#[tokio::test]
async fn the_list_filters_sorts_and_pages_without_gaps() {
    let fixture = fixture().await;
    let mut placed = Vec::new();
    for at in 0..7 {
        let answer =
            place(&fixture, json!({ "price": format!("0.{}", 80 - at), "quantity": 1 })).await.json();
        placed.push(answer["data"]["order_id"].clone());
    }
    let path = format!("/v1/orders/{}", placed[2].as_str().expect("an id"));
    signed(&fixture, &fixture.trader, "DELETE", &path, "").await;
    let list = |query: String| {
        let fixture = &fixture;
        async move {
            let answer = get(fixture, &fixture.trader, &format!("/v1/orders{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.body);
            answer.json()
        }
    };
    let ids_of = |page: &Value| -> Vec<Value> {
        page["data"].as_array().expect("rows").iter().map(|row| row["order_id"].clone()).collect()
    };
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    let last = loop {
        let page = list(query).await;
        seen.extend(ids_of(&page));
        match page["paging"]["next_cursor"].as_str() {
            Some(cursor) => {
                query = format!("?limit=3&next={}", cursor.replace('=', "%3D").replace('+', "%2B"))
            }
            None => break page,
        }
    };
    assert_eq!(seen, placed, "oldest first, each once");
    assert_eq!(last["paging"]["has_more"], false);
    let back =
        list(format!("?limit=3&prev={}", last["paging"]["prev_cursor"].as_str().expect("a cursor"))).await;
    assert_eq!(ids_of(&back), placed[3..6]);
    let cheapest = list("?order_by=price&order_direction=asc&limit=1".into()).await;
    assert_eq!(ids_of(&cheapest), placed[6..]);
    for (query, count) in [
        ("", 7),
        ("?status=active", 6),
        ("?status=open", 6),
        ("?status=cancelled", 1),
        ("?status=filled,cancelled", 1),
        ("?status=pending", 0),
        ("?side=sell", 0),
        ("?side=buy&limit=500", 7),
        ("?trader_id=user_someone", 0),
        ("?start_datetime=2999-01-01T00:00:00Z", 0),
        ("?end_datetime=2999-01-01T00:00:00Z", 7),
        ("?end_datetime=1000000000", 0),
        ("?filters[0][field]=side&filters[0][op]===&filters[0][value]=sell", 0),
        ("?flop[filters][0][field]=status&flop[filters][0][value]=cancelled", 1),
        ("?page=2&page_size=5", 2),
        ("?offset=6", 1),
        ("?market_id=market-00000000-0000-8000-8000-000000000000", 0),
    ] {
        assert_eq!(ids_of(&list(query.into()).await).len(), count, "{query}");
    }
    assert_eq!(ids_of(&list(format!("?market_id={}", market().replacen('_', "-", 1))).await).len(), 7);
    for (query, status) in [
        ("?limit=501", 422),
        ("?limit=0", 422),
        ("?limit=x", 400),
        ("?next=zzz", 400),
        ("?next=eyJpZCI6Im9yZGVyXzEifQ==", 400),
        ("?status=weird", 422),
        ("?start_datetime=never", 400),
        ("?order_by=secret", 422),
    ] {
        assert_eq!(
            get(&fixture, &fixture.trader, &format!("/v1/orders{query}")).await.status,
            status,
            "{query}"
        );
    }
}
