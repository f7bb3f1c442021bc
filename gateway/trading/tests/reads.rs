//! The shapes of every answer beside orders, after a small story: the supplier offers, the trader buys.

mod support;

use grid_engine::command::{AccountMode, Command, Side, Surface, Usage};
use grid_engine::{InstrumentId, KeyId, Nanos, Tokens};
use grid_trading::View as _;
use grid_trading::ids::{self, USD};
use serde_json::{Value, json};
use support::{Fixture, fixture, get, masked, request, signed};

fn market() -> String {
    ids::market(InstrumentId(0))
}

/// Two asks, a bid, and two trades: the trader bought 2 at 0.81 and 1 at 0.82.
async fn story() -> Fixture {
    let fixture = fixture().await;
    let (supplier, trader) = (fixture.supplier.account, fixture.trader.account);
    fixture.venue.place(supplier, Side::Sell, 81, 2);
    fixture.venue.place(supplier, Side::Sell, 82, 4);
    fixture.venue.place(supplier, Side::Sell, 83, 9);
    fixture.venue.place(trader, Side::Buy, 82, 3);
    fixture.venue.place(trader, Side::Buy, 79, 5);
    fixture.history.wait_for(grid_trading::View::applied(&*fixture.venue)).await.expect("the writer lives");
    fixture
}

async fn data(fixture: &Fixture, path: &str) -> Value {
    let answer = get(fixture, &fixture.trader, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()["data"].clone()
}

#[tokio::test]
async fn the_book_shows_running_totals_best_first() {
    let fixture = story().await;
    let book = data(&fixture, &format!("/v1/markets/{}/orderbook", market())).await;
    assert_eq!(book["buy"], json!([{ "price": "0.79", "quantity": 5, "total": 5, "order_count": 1 }]));
    assert_eq!(
        book["sell"],
        json!([
            { "price": "0.82", "quantity": 3, "total": 3, "order_count": 1 },
            { "price": "0.83", "quantity": 9, "total": 12, "order_count": 1 },
        ])
    );
    let top = data(&fixture, &format!("/v1/markets/{}/orderbook?depth=1", market())).await;
    assert_eq!(top["sell"].as_array().map(Vec::len), Some(1));
    for (depth, status) in [("0", 422), ("101", 422), ("-1", 400), ("x", 400), ("100", 200)] {
        let answer =
            get(&fixture, &fixture.trader, &format!("/v1/markets/{}/orderbook?depth={depth}", market()))
                .await;
        assert_eq!(answer.status, status, "{depth}");
    }
}

#[tokio::test]
async fn ticker_stats_and_tape_tell_of_the_last_trades_and_of_nobody() {
    let fixture = story().await;
    let ticker = data(&fixture, &format!("/v1/markets/{}/ticker", market())).await;
    for (member, value) in [
        ("last_price", json!("0.82")),
        ("last_trade_quantity", json!(1)),
        ("highest_bid", json!("0.79")),
        ("lowest_ask", json!("0.82")),
        ("volume_24h", json!(3)),
        ("high_24h", json!("0.82")),
        ("low_24h", json!("0.81")),
        ("price_change_24h", json!("0.01")),
        ("price_change_percent_24h", json!("1.23")),
        ("symbol", json!("text-prime")),
    ] {
        assert_eq!(ticker[member], value, "{member}");
    }
    assert_eq!(masked(&ticker)["last_trade_timestamp"], "<time>");
    let quiet = data(&fixture, &format!("/v1/markets/{}/ticker", ids::market(InstrumentId(1)))).await;
    for member in ["last_price", "last_trade_quantity", "last_trade_timestamp", "highest_bid", "lowest_ask"] {
        assert_eq!(quiet[member], Value::Null, "{member}");
    }
    let stats = data(&fixture, &format!("/v1/markets/{}/stats", market())).await;
    assert_eq!(
        stats,
        json!({
            "market_id": market(), "current_price": "0.82", "price_change_24h": "0.01", "price_change_24h_percent": "1.23",
            "high_24h": "0.82", "low_24h": "0.81", "volume_24h": 3, "volume_24h_tokens": 3_000_000, "volume_24h_value": "2.44",
        })
    );
    let answer = get(&fixture, &fixture.trader, &format!("/v1/markets/{}/trades", market())).await;
    let body = answer.json();
    assert_eq!(
        masked(&body["data"][1]),
        json!({
            "trade_id": "<trade>", "market_id": "<market>", "instrument_id": "<instrument>", "instrument_symbol": "text-prime",
            "price": "0.81", "quantity": 2, "total_value": "1.62", "side": "buy", "status": "settled",
            "execution_timestamp": "<time>", "settlement_timestamp": "<time>",
        }),
        "no user and no order in it"
    );
    assert_eq!(body["data"][0]["price"], "0.82", "newest first");
    let first =
        get(&fixture, &fixture.trader, &format!("/v1/markets/{}/trades?limit=1", market())).await.json();
    let cursor = first["paging"]["next_cursor"].as_str().expect("one more").to_owned();
    let second =
        get(&fixture, &fixture.trader, &format!("/v1/markets/{}/trades?limit=1&next={cursor}", market()))
            .await
            .json();
    assert_eq!((&second["data"][0], &second["paging"]["has_more"]), (&body["data"][1], &json!(false)));
}

#[tokio::test]
async fn price_histories_are_candles_of_the_tape() {
    let fixture = story().await;
    for resolution in ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"] {
        let rows =
            data(&fixture, &format!("/v1/price-histories?market_id={}&resolution={resolution}", market()))
                .await;
        let rows = rows.as_array().expect("rows");
        let volume: u64 = rows.iter().filter_map(|row| row["volume"].as_u64()).sum();
        assert_eq!(volume, 3, "{resolution}");
        // Two trades a moment apart may stand on both sides of a window's edge.
        assert!((1..=2).contains(&rows.len()), "{resolution}");
        assert_eq!(rows[0]["open"], "0.81");
        assert_eq!(rows[rows.len() - 1]["close"], "0.82");
        assert_eq!(masked(&rows[0])["period_start"], "<time>");
    }
    let filters = format!(
        "/v1/price-histories?filters[0][field]=market_id&filters[0][value]={}&filters[1][field]=resolution&filters[1][value]=1h&filters[2][field]=from&filters[2][op]=%3E%3D&filters[2][value]=0",
        market()
    );
    assert_eq!(data(&fixture, &filters).await.as_array().map(|rows| !rows.is_empty()), Some(true));
    let future = format!("/v1/price_histories?market_id={}&from=4000000000", market());
    assert_eq!(data(&fixture, &future).await, json!([]));
    for (query, status) in
        [("", 400), (&*format!("?market_id={}&resolution=2h", market()), 422), ("?market_id=market_x", 404)]
    {
        assert_eq!(
            get(&fixture, &fixture.trader, &format!("/v1/price-histories{query}")).await.status,
            status,
            "{query}"
        );
    }
}

#[tokio::test]
async fn markets_and_instruments_say_what_is_traded() {
    let fixture = story().await;
    let rows = data(&fixture, "/v1/markets").await;
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    assert_eq!(
        masked(&rows[0]),
        json!({
            "market_id": "<market>", "name": "TEXT-PRIME/USD", "description": null, "market_type": "spot", "status": "active",
            "associated_instruments": ["<instrument>"],
            "instruments": [{ "instrument_id": "<instrument>", "instrument_type": "ai_commodity", "symbol": "text-prime", "name": "Text Prime" }],
            "order_controls": {
                "tick_size": "0.01", "lot_size": "1", "min_order_size": "1", "max_order_size": "10000",
                "max_price": "10000", "maker_fee_bps": 0, "taker_fee_bps": 0,
            },
            "created_at": "<time>", "updated_at": "<time>",
        })
    );
    assert_eq!(data(&fixture, &format!("/v1/markets/{}", market())).await, rows[0]);
    assert_eq!(data(&fixture, "/v1/markets?status=inactive").await.as_array().map(Vec::len), Some(1));
    let instrument = data(&fixture, "/v1/instruments/by-symbol/TEXT-PRIME").await;
    assert_eq!(
        masked(&instrument),
        json!({
            "instrument_id": "<instrument>", "symbol": "text-prime", "name": "Text Prime", "instrument_type": "ai_commodity",
            "description": null, "status": "active", "precision": 0, "is_active": true, "market_id": "<market>",
            "basic_info": { "service_type": "text_generation" },
            "ai_specs": {
                "context_window": 128_000, "token_throughput": 40, "tokens_per_unit": 1_000_000,
                "unit_definition": "1,000,000 tokens, input and output counted alike",
                "qualifying_models": [], "max_output_length": 128_000,
            },
            "sla_requirements": { "availability_target": null, "max_latency_ms": 4_620, "quality_score_min": 38, "quality_index": "AA Intelligence" },
            "delivery": { "movement": "at_fill", "window_seconds": null },
            "trading_params": { "min_quantity": 1, "max_quantity": 10_000, "quantity_increment": 1 },
            "last_trade_price": "0.82", "last_trade_at": "<time>", "last_quote_at": "<time>",
            "price_range_24h_high": "0.82", "price_range_24h_low": "0.81", "volume_24h": "3", "total_volume": "3",
            "total_trades": 2, "total_quotes": 3, "created_at": "<time>", "updated_at": "<time>",
        })
    );
    let id = ids::instrument(InstrumentId(0));
    assert_eq!(data(&fixture, &format!("/v1/instruments/{id}")).await, instrument);
    assert_eq!(data(&fixture, "/v1/instruments").await.as_array().map(Vec::len), Some(2));
    assert_eq!(data(&fixture, "/v1/instruments?symbol=text-prime").await, json!([instrument]));
    let usd = data(&fixture, "/v1/instruments?instrument_type=currency").await;
    assert_eq!(usd[0]["instrument_id"], ids::instrument(USD));
    for path in [
        "/v1/markets/market_x",
        "/v1/instruments/instrument_x",
        "/v1/instruments/by-symbol/gpt-5",
        "/v1/markets/market_x/ticker",
    ] {
        let answer = get(&fixture, &fixture.trader, path).await;
        assert_eq!(
            answer.error(),
            (404, "Not found - The requested resource does not exist".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn own_trades_show_one_side_and_filter() {
    let fixture = story().await;
    let rows = data(&fixture, "/v1/trades").await;
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    assert_eq!(
        masked(&rows[0]),
        json!({
            "trade_id": "<trade>", "id": "<trade>", "market_id": "<market>", "market_name": "TEXT-PRIME/USD",
            "instrument_id": "<instrument>", "instrument_symbol": "text-prime", "instrument_name": "Text Prime",
            "price": "0.81", "quantity": 2, "total_value": "1.62", "fee": "0", "side": "buy", "status": "settled",
            "order_id": "<order>", "trading_account_id": "<trading_account>",
            "execution_timestamp": "<time>", "settlement_timestamp": "<time>",
        })
    );
    let (trade, order) =
        (rows[0]["trade_id"].as_str().expect("an id"), rows[0]["order_id"].as_str().expect("an id"));
    assert_eq!(data(&fixture, &format!("/v1/trades/{trade}")).await, rows[0]);
    let theirs = get(&fixture, &fixture.supplier, &format!("/v1/trades/{trade}")).await.json();
    assert_eq!(theirs["data"]["side"], "sell");
    assert_ne!(theirs["data"]["order_id"], order);
    assert_eq!(get(&fixture, &fixture.easy, &format!("/v1/trades/{trade}")).await.status, 404);
    for (query, count) in [
        (format!("order_id={order}"), 2),
        (format!("buyer_order_id={order}"), 2),
        (format!("seller_order_id={order}"), 0),
        (format!("triggering_order_id={order}"), 2),
        (format!("trade_id={trade}"), 1),
        (format!("market_id={}", market()), 2),
        ("status=settled".into(), 2),
        ("status=failed".into(), 0),
        ("start_datetime=2999-01-01".into(), 0),
        ("limit=1".into(), 1),
        ("order_id=order_x".into(), 0),
    ] {
        assert_eq!(
            data(&fixture, &format!("/v1/trades?{query}")).await.as_array().map(Vec::len),
            Some(count),
            "{query}"
        );
    }
    let first = get(&fixture, &fixture.trader, "/v1/trades?limit=1&order_direction=desc").await.json();
    let cursor = first["paging"]["next_cursor"].as_str().expect("one more");
    let second = data(&fixture, &format!("/v1/trades?limit=1&order_direction=desc&next={cursor}")).await;
    assert_eq!(second[0], rows[0]);
}

#[tokio::test]
async fn a_trade_with_oneself_is_two_rows_and_pages_through_both() {
    let fixture = fixture().await;
    let supplier = fixture.supplier.account;
    fixture.venue.done(supplier, Command::Deposit { amount: grid_engine::Usd::dollars(10) });
    fixture.venue.place(supplier, Side::Sell, 81, 1);
    fixture.venue.place(supplier, Side::Buy, 81, 1);
    fixture.history.wait_for(grid_trading::View::applied(&*fixture.venue)).await.expect("the writer lives");
    let first = get(&fixture, &fixture.supplier, "/v1/trades?limit=1").await.json();
    let cursor = first["paging"]["next_cursor"].as_str().expect("the other side");
    let second = get(&fixture, &fixture.supplier, &format!("/v1/trades?limit=1&next={cursor}")).await.json();
    assert_eq!((&first["data"][0]["side"], &second["data"][0]["side"]), (&json!("buy"), &json!("sell")));
    assert_eq!(second["paging"]["has_more"], false);
}

#[tokio::test]
async fn balances_show_what_is_free_and_what_is_locked() {
    let fixture = story().await;
    let rows = data(&fixture, "/v1/trading-accounts").await;
    assert_eq!(
        masked(&rows[0]),
        json!({
            "account_id": "<currency_trading_account>", "user_id": "<user>", "currency": "usd", "total_balance": "97.56",
            "available_balance": "93.61", "locked_balance": "3.95", "status": "active", "last_deposit_at": "<time>",
            "last_trading_activity_at": "<time>", "created_at": "<time>", "updated_at": "<time>",
            "instrument_id": "<instrument>", "instrument_symbol": "usd", "instrument_name": "US Dollar",
        })
    );
    assert_eq!(
        masked(&rows[1]),
        json!({
            "account_id": "<trading_account>", "user_id": "<user>", "market_id": "<market>", "market_name": "TEXT-PRIME/USD",
            "instrument_id": "<instrument>", "instrument_symbol": "text-prime", "instrument_name": "Text Prime", "status": "active",
            "total_balance": "3", "available_balance": "3", "locked_balance": "0", "reserved_balance": "0",
            "last_trade_price": "0.82", "last_trading_activity_at": "<time>", "created_at": "<time>", "updated_at": "<time>",
        })
    );
    for row in rows.as_array().expect("rows") {
        let id = row["account_id"].as_str().expect("an id");
        assert_eq!(data(&fixture, &format!("/v1/trading-accounts/{id}")).await, *row);
        let answer = get(&fixture, &fixture.easy, &format!("/v1/trading-accounts/{id}")).await;
        assert_eq!(answer.status, 404, "nobody sees another's balance");
    }
    let currency = data(&fixture, "/v1/currency-trading-accounts").await;
    assert_eq!(
        (&currency[0]["currency"], &currency[0]["available_balance"]),
        (&json!("usd"), &json!("93.61"))
    );
    let id = currency[0]["account_id"].as_str().expect("an id");
    assert_eq!(data(&fixture, &format!("/v1/currency-trading-accounts/{id}")).await, currency[0]);
    let positions = data(&fixture, "/v1/positions").await;
    assert_eq!(
        masked(&positions[0]),
        json!({
            "id": "<position>", "user_account_id": "<trading_account>", "instrument_id": "<instrument>", "instrument_name": "Text Prime",
            "status": "open", "quantity": "3", "average_cost": "0.813333333", "total_cost": "2.44", "current_market_value": "2.46",
            "last_trade_price": "0.82", "opened_at": "<time>", "closed_at": null, "inserted_at": "<time>",
        })
    );
    let sellers =
        get(&fixture, &fixture.supplier, "/v1/trading-accounts?instrument_symbol=text-prime").await.json();
    assert_eq!(
        (&sellers["data"][0]["available_balance"], &sellers["data"][0]["locked_balance"]),
        (&json!("985"), &json!("12"))
    );
}

#[tokio::test]
async fn units_move_to_consumption_and_back_and_leave_a_trace() {
    let fixture = story().await;
    let id = ids::instrument(InstrumentId(0));
    let post = |path: &'static str, body: String| {
        let fixture = &fixture;
        async move { signed(fixture, &fixture.trader, "POST", path, &body).await }
    };
    let body = |quantity: Value| json!({ "instrument_id": id, "quantity": quantity }).to_string();
    let moved = post("/v1/transfers/trading-to-consumption", body(json!(2))).await;
    assert_eq!(
        (moved.status, masked(&moved.json())),
        (200, json!({ "status": "success", "transfer_id": "<transfer>" }))
    );
    let rows = data(&fixture, "/v1/consumption-accounts").await;
    assert_eq!(
        masked(&rows[0]),
        json!({
            "account_id": "<consumption_account>", "user_id": "<user>", "instrument_id": "<instrument>", "instrument_symbol": "text-prime",
            "instrument_name": "Text Prime", "status": "active", "available_balance": 2, "uncommitted_balance": 0, "committed_balance": 2,
            "total_balance": 2, "reserved_balance": 0, "total_deposits": 2, "total_withdrawals": 0, "total_commitments": 2,
            "total_transfers_in": 2, "total_transfers_out": 0, "tokens_available": 2_000_000, "tokens_used": 0, "tokens_expired": 0,
            "last_deposit_at": "<time>", "last_commitment_at": "<time>", "last_transfer_at": "<time>", "created_at": "<time>", "updated_at": "<time>",
        })
    );
    let account = rows[0]["account_id"].as_str().expect("an id");
    assert_eq!(data(&fixture, &format!("/v1/consumption-accounts/{account}")).await, rows[0]);
    assert_eq!(
        data(&fixture, &format!("/v1/consumption-accounts?instrument_id={id}&account_id={account}")).await,
        rows
    );
    let back = post("/v1/transfers/consumption-to-trading", body(json!("1"))).await;
    assert_eq!(back.status, 200, "{}", back.body);
    let history = data(&fixture, "/v1/transfer-histories").await;
    let row = masked(&history[0]);
    assert_eq!(
        row,
        json!({
            "id": "<transfer>", "transfer_id": "<transfer>", "account_id": "<consumption_account>", "sender_account_id": "<trading_account>",
            "instrument_id": "<instrument>", "instrument_name": "Text Prime", "market_id": "<market>", "quantity": 2, "reason": "to_consumption",
            "transferred_at": "<time>", "inserted_at": "<time>", "updated_at": "<time>",
        })
    );
    assert_eq!(masked(&history[1])["account_id"], "<trading_account>");
    assert_eq!(history[0]["transfer_id"], moved.json()["transfer_id"]);
    for (quantity, status) in [
        (json!(0), 422),
        (json!(-1), 422),
        (json!(1.5), 422),
        (json!(99), 400),
        (json!(null), 400),
        (json!("x"), 422),
    ] {
        let answer = post("/v1/transfers/trading-to-consumption", body(quantity.clone())).await;
        assert_eq!(answer.status, status, "{quantity}: {}", answer.body);
    }
    let unknown = json!({ "instrument_id": "instrument_x", "quantity": 1 }).to_string();
    assert_eq!(post("/v1/transfers/trading-to-consumption", unknown).await.status, 404);
}

#[tokio::test]
async fn lots_show_what_was_drawn_from_them() {
    let fixture = story().await;
    let (trader, instrument) = (fixture.trader.account, InstrumentId(0));
    let body = json!({ "instrument_id": ids::instrument(instrument), "quantity": 1 }).to_string();
    signed(&fixture, &fixture.trader, "POST", "/v1/transfers/trading-to-consumption", &body).await;
    let reserve = Command::Reserve {
        instrument,
        tokens: Tokens(1_000),
        request: 77,
        valid_for: Nanos(60_000_000_000),
        key: KeyId::NONE,
        surface: Surface::ChatCompletions,
    };
    fixture.venue.run(trader, reserve);
    let mut reservation = None;
    fixture.venue.read(&mut |engine| reservation = engine.state().reservations.by_request(trader, 77));
    let reservation = reservation.expect("the tokens are set aside");
    let usage = Usage {
        supplier: fixture.supplier.account,
        prompt_tokens: Tokens(21),
        completion_tokens: Tokens(9),
        ttft_us: 310_000,
        duration_us: 420_000,
        ..Usage::default()
    };
    let settled = fixture.venue.run(trader, Command::Settle { reservation, usage });
    fixture.history.wait_for(settled.seq).await.expect("the writer lives");
    let lots = data(&fixture, "/v1/accounts/lots?status=active").await;
    assert_eq!(
        masked(&lots[0]),
        json!({
            "lot_id": "<lot>", "instrument_id": "<instrument>", "instrument_symbol": "text-prime", "quantity": 1, "used": 0.00003,
            "remaining": 0.99997, "purchase_price": "0.81", "currency": "usd", "purchased_at": "<time>", "expires_at": null,
            "status": "active", "usage_history": [],
        })
    );
    let lot =
        data(&fixture, &format!("/v1/accounts/lots/{}", lots[0]["lot_id"].as_str().expect("an id"))).await;
    assert_eq!(
        masked(&lot["usage_history"]),
        json!([{ "request_id": format!("req_{:032x}", 77), "tokens": 30, "used_at": "<time>" }])
    );
    let receipt = fixture.history.usage_of(trader, 77).await.expect("a read").expect("a receipt");
    assert_eq!(
        (receipt.billed, receipt.cost.to_string(), receipt.draws.len()),
        (Tokens(30), "0.0000243".into(), 1)
    );
    let period = "filters[0][field]=date&filters[0][op]=%3E%3D&filters[0][value]=2020-01-01\
                  &filters[1][field]=date&filters[1][op]=%3C&filters[1][value]=";
    let (day, _) = grid_trading::time::iso(settled.at)
        .split_once('T')
        .map(|(day, time)| (day.to_owned(), time.to_owned()))
        .unwrap();
    let stats = data(&fixture, &format!("/v1/consumption/stats?{period}{day}T23:59:59Z")).await;
    assert_eq!(
        stats["summary"],
        json!({"total_requests": 1, "total_tokens_allocated": 30, "total_tokens_used": 30})
    );
    assert_eq!(
        (&stats["resolution"], &stats["time_series"][0]["date"], &stats["time_series"][0]["tokens_used"]),
        (&json!("day"), &json!(day), &json!(30))
    );
    let missing = get(&fixture, &fixture.trader, "/v1/consumption/stats").await;
    assert_eq!(missing.status, 422);
    let accounts = data(&fixture, "/v1/consumption-accounts").await;
    assert_eq!(
        (&accounts[0]["available_balance"], &accounts[0]["tokens_used"]),
        (&json!(0.99997), &json!(30))
    );
    assert_eq!(get(&fixture, &fixture.trader, "/v1/accounts/lots/lot_x").await.status, 404);
    assert_eq!(get(&fixture, &fixture.trader, "/v1/accounts/lots?status=odd").await.status, 422);
}

#[tokio::test]
async fn a_supplier_issues_moves_to_trading_and_sees_what_it_owes() {
    let fixture = story().await;
    let id = ids::instrument(InstrumentId(0));
    let supply = |method: &'static str, path: &'static str, body: String| {
        let fixture = &fixture;
        async move { signed(fixture, &fixture.supplier, method, path, &body).await }
    };
    let body = json!({ "instrument_id": id, "quantity": "500" }).to_string();
    let issued = supply("POST", "/v1/supply-issuances", body.clone()).await;
    assert_eq!(
        (issued.status, masked(&issued.json()["data"])),
        (
            201,
            json!({ "id": "<supply_issuance>", "issuance_account_id": "<isa>", "instrument_id": "<instrument>", "quantity": 500, "status": "completed", "created_at": "<time>" })
        )
    );
    let listed = supply("GET", "/v1/supply-issuances?order_direction=desc", String::new()).await.json();
    assert_eq!(listed["data"][0], issued.json()["data"]);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
    let accounts = supply("GET", "/v1/issuance-accounts", String::new()).await.json();
    assert_eq!(
        (&accounts["data"][0]["total_balance"], &accounts["data"][0]["total_issued"]),
        (&json!(500), &json!(1_500))
    );
    let moved = supply("POST", "/v1/issuance-accounts/transfer", body.clone()).await;
    assert_eq!(
        (moved.status, masked(&moved.json())),
        (202, json!({ "status": "accepted", "transfer_id": "<transfer>" }))
    );
    let summary = supply("GET", "/v1/supply-issuances/summary", String::new()).await.json();
    assert_eq!(
        masked(&summary["data"]),
        json!([{
            "instrument_id": "<instrument>", "instrument_symbol": "text-prime", "instrument_name": "Text Prime",
            "total_issued": 1_500, "units_available": 0, "units_transferred_to_trading": 1_500,
        }])
    );
    let owed = supply("GET", "/v1/supplier-liability", String::new()).await.json();
    assert_eq!(
        (&owed["data"][0]["outstanding"], &owed["data"][0]["escrow_usd"]),
        (&json!(1_500), &json!("2.44"))
    );
    let path = format!("/v1/supplier-liability/{id}");
    assert_eq!(get(&fixture, &fixture.supplier, &path).await.json()["data"], owed["data"][0]);
    let much = json!({ "instrument_id": id, "quantity": 5_000 }).to_string();
    assert_eq!(supply("POST", "/v1/supply-issuances", much).await.error(), (422, "beyond_capacity".into()));
    assert_eq!(
        supply("POST", "/v1/issuance-accounts/transfer", body.clone()).await.error(),
        (400, "insufficient_balance".into())
    );
    let stranger = signed(&fixture, &fixture.trader, "POST", "/v1/supply-issuances", &body).await;
    assert_eq!(stranger.error(), (403, "not_a_supplier".into()));
    assert_eq!(get(&fixture, &fixture.trader, "/v1/supplier-liability").await.status, 403);
}

#[tokio::test]
async fn me_limits_and_diagnostics_describe_the_caller() {
    let fixture = story().await;
    assert_eq!(
        masked(&data(&fixture, "/v1/me").await),
        json!({
            "user_id": "<user>", "email": null, "name": "trader", "email_verified": true, "accepted_terms": true,
            "account_mode": "advanced", "capabilities": ["consume", "trade"], "created_at": "<time>",
        })
    );
    let limits = data(&fixture, &format!("/v1/account/limits?market_id={}", market())).await;
    assert_eq!(limits["market_id"], market());
    assert_eq!(limits["order_rate_limits"]["scope"], "user_market");
    assert_eq!(limits["response_headers"]["retry_after"], "Retry-After");
    let diagnostics = data(&fixture, "/v1/diagnostics").await;
    assert_eq!((&diagnostics["status"], &diagnostics["service"]), (&json!("ok"), &json!("trading")));
    let easy = get(&fixture, &fixture.easy, "/v1/diagnostics").await.json();
    assert_eq!(easy["data"]["status"], "warn");
    for path in ["/v1/me", "/v1/account/limits", "/v1/diagnostics", "/v1/markets", "/v1/instruments"] {
        assert_eq!(request(&fixture, "GET", path, &[], b"").await.status, 401, "{path} is signed too");
    }
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let fixture = fixture().await;
    let user = &fixture.trader;
    let made = signed(&fixture, user, "POST", "/api/v1/api-keys", r#"{"api_key":{"name":"laptop"}}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.json()["data"].clone();
    let secret = key["key"].as_str().expect("shown once");
    assert_eq!((secret.len(), &secret[..8]), (43, key["key_prefix"].as_str().expect("a prefix")));
    fixture.venue.look(|engine| {
        let stored = engine
            .state()
            .consumption_keys
            .get(&grid_engine::KeyHash::of(secret))
            .expect("known by its hash");
        assert_eq!((stored.account, stored.active), (user.account, true));
    });
    let listed = get(&fixture, user, "/v1/api-keys").await.json();
    assert_eq!(
        masked(&listed["data"]),
        json!([{ "id": "<key>", "name": "laptop", "key_prefix": key["key_prefix"], "is_active": true, "expires_at": null, "created_at": "<time>" }])
    );
    let path = format!("/v1/api-keys/{}", key["id"].as_str().expect("an id"));
    assert_eq!(
        signed(&fixture, &fixture.supplier, "DELETE", &path, "").await.status,
        404,
        "not another's key"
    );
    assert_eq!(signed(&fixture, user, "DELETE", &path, "").await.status, 204);
    assert_eq!(signed(&fixture, user, "DELETE", &path, "").await.status, 404);
    assert_eq!(get(&fixture, user, "/v1/api-keys").await.json()["data"][0]["is_active"], false);
    for (body, status) in [
        (r#"{"api_key":{"name":"x","expires_at":"2001-01-01T00:00:00Z"}}"#, 422),
        (r#"{"api_key":{"name":"x","expires_at":"soon"}}"#, 400),
        (r#"{"name":"x"}"#, 400),
        (r#"{"api_key":{"name":"x","expires_at":"2100-01-01T00:00:00Z"}}"#, 201),
    ] {
        assert_eq!(signed(&fixture, user, "POST", "/v1/api-keys", body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn a_registered_signing_key_signs_and_a_revoked_one_does_not() {
    let fixture = fixture().await;
    let mut other = fixture.trader.clone();
    other.key = ed25519_dalek::SigningKey::from_bytes(&[55; 32]);
    assert_eq!(get(&fixture, &other, "/v1/me").await.status, 401);
    let public = {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(other.key.verifying_key().as_bytes())
    };
    let body = json!({ "signing_key": { "label": "second", "public_key": public } }).to_string();
    let made = signed(&fixture, &fixture.trader, "POST", "/v1/signing-keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.json()["data"].clone();
    assert_eq!(key["fingerprint"].as_str().map(str::len), Some(43));
    assert_eq!(get(&fixture, &other, "/v1/me").await.status, 200);
    let listed = get(&fixture, &fixture.trader, "/v1/signing-keys").await.json();
    let row =
        listed["data"].as_array().expect("rows").iter().find(|row| row["label"] == "second").expect("listed");
    assert!(row.get("fingerprint").is_none(), "whole only at creation");
    assert_eq!(row["fingerprint_prefix"].as_str(), key["fingerprint"].as_str().map(|text| &text[..8]));
    assert!(row["last_used_at"].is_string());
    assert_eq!(signed(&fixture, &fixture.trader, "POST", "/v1/signing-keys", &body).await.status, 409);
    for public_key in ["", "AAAA", "!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        let body = json!({ "signing_key": { "label": "bad", "public_key": public_key } }).to_string();
        assert_eq!(
            signed(&fixture, &fixture.trader, "POST", "/v1/signing-keys", &body).await.status,
            422,
            "{public_key}"
        );
    }
    let path = format!("/v1/signing-keys/{}", key["id"].as_str().expect("an id"));
    assert_eq!(signed(&fixture, &fixture.trader, "DELETE", &path, "").await.status, 204);
    assert_eq!(get(&fixture, &other, "/v1/me").await.status, 401);
}

#[tokio::test]
async fn settings_follow_the_mode() {
    let fixture = fixture().await;
    let settings = get(&fixture, &fixture.easy, "/v1/self/system-settings").await.json();
    assert_eq!(
        settings["data"],
        json!({
            "account_mode": "easy", "auto_transfer_enabled": true, "auto_buy_enabled": true, "auto_buy_quantity": 1,
            "auto_buy_trigger_threshold": 1, "auto_reload_enabled": false, "auto_reload_threshold_usd": null,
            "auto_reload_amount_usd": null, "auto_reload_monthly_limit_usd": null,
            "mode_managed_fields": ["auto_transfer_enabled", "auto_buy_enabled"],
            "auto_top_up_enabled": true, "auto_top_up_quantity": 1, "auto_top_up_trigger_threshold": 1,
        })
    );
    let patch =
        |user, body: &'static str| signed(&fixture, user, "PATCH", "/v1/self/system-settings/auto-buy", body);
    let refused = patch(&fixture.easy, r#"{"auto_buy_enabled":false}"#).await;
    assert_eq!(refused.error(), (403, "mode_managed_setting".into()));
    let on = patch(&fixture.trader, r#"{"auto_buy_enabled":true}"#).await;
    assert_eq!((on.status, &on.json()["data"]["auto_buy_enabled"]), (200, &json!(true)));
    assert_eq!(patch(&fixture.trader, r#"{"auto_buy_enabled":"yes"}"#).await.status, 400);
    let mode = |body: &'static str| {
        signed(&fixture, &fixture.trader, "POST", "/v1/self/system-settings/account-mode", body)
    };
    assert_eq!(mode(r#"{"mode":"expert"}"#).await.status, 422);
    assert_eq!(mode(r#"{"mode":"easy"}"#).await.status, 204);
    fixture.venue.look(|engine| {
        assert_eq!(
            engine.state().account(fixture.trader.account).map(|account| account.mode),
            Some(AccountMode::Easy)
        );
    });
}

#[tokio::test]
async fn auto_reload_is_set_in_parts_and_what_could_never_be_charged_is_refused() {
    let fixture = fixture().await;
    let patch = |body: &'static str| {
        signed(&fixture, &fixture.trader, "PATCH", "/v1/self/system-settings/auto_reload", body)
    };
    for (body, status) in [
        ("{}", 400),
        (r#"{"auto_reload_enabled":"yes"}"#, 400),
        (r#"{"auto_reload_amount_usd":20}"#, 400),
        (r#"{"auto_reload_amount_usd":"twenty"}"#, 400),
        (r#"{"auto_reload_amount_usd":"-20"}"#, 422),
        (r#"{"auto_reload_enabled":true}"#, 422),
        (
            r#"{"auto_reload_enabled":true,"auto_reload_amount_usd":"0.49","auto_reload_threshold_usd":"5"}"#,
            422,
        ),
        (
            r#"{"auto_reload_enabled":true,"auto_reload_amount_usd":"20.001","auto_reload_threshold_usd":"5"}"#,
            422,
        ),
        (
            r#"{"auto_reload_enabled":true,"auto_reload_amount_usd":"20","auto_reload_threshold_usd":"0"}"#,
            422,
        ),
        (
            r#"{"auto_reload_enabled":true,"auto_reload_amount_usd":"20","auto_reload_threshold_usd":"5","auto_reload_monthly_limit_usd":"19"}"#,
            422,
        ),
    ] {
        let answer = patch(body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.error().1, "validation_error", "{body}");
    }
    assert_eq!(
        patch(r#"{"auto_reload_threshold_usd":"50","auto_reload_amount_usd":"200.50"}"#).await.status,
        200
    );
    let on = patch(r#"{"auto_reload_enabled":true,"auto_reload_monthly_limit_usd":"1000"}"#).await;
    let settings = get(&fixture, &fixture.trader, "/v1/self/system-settings").await.json();
    assert_eq!((on.status, &on.json()), (200, &settings));
    for (name, value) in [
        ("auto_reload_enabled", json!(true)),
        ("auto_reload_threshold_usd", json!("50")),
        ("auto_reload_amount_usd", json!("200.5")),
        ("auto_reload_monthly_limit_usd", json!("1000")),
        ("auto_reload_status", json!("ready")),
    ] {
        assert_eq!(settings["data"][name], value, "{name}");
    }
    fixture.venue.done(fixture.trader.account, Command::Withdraw { amount: grid_engine::Usd::dollars(60) });
    let settings = get(&fixture, &fixture.trader, "/v1/self/system-settings").await.json();
    assert_eq!(settings["data"]["auto_reload_status"], "replenishing", "$40 are less than $50");
    let reason = grid_engine::funding::ReloadFailure::Declined;
    fixture.venue.done(fixture.trader.account, Command::ReloadFailed { reload: 1, reason });
    let settings = get(&fixture, &fixture.trader, "/v1/self/system-settings").await.json();
    assert_eq!(settings["data"]["auto_reload_status"], "declined");
    let method = grid_engine::funding::PaymentMethod { customer: "cus_1".into(), method: "pm_1".into() };
    fixture.venue.done(fixture.trader.account, Command::SetPaymentMethod(Some(Box::new(method))));
    let amount = grid_engine::Usd(200_500_000_000);
    fixture.venue.done(fixture.trader.account, Command::ReloadPaid { reload: 2, amount });
    fixture.venue.done(fixture.trader.account, Command::Credit { amount: grid_engine::Usd::dollars(5) });
    let statement = get(&fixture, &fixture.trader, "/v1/funding-histories?order_direction=asc").await.json();
    let told: Vec<_> = statement["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| format!("{} {} {}", row["kind"], row["amount"], row["reload"]))
        .collect();
    let expected = [
        r#""deposit" "100" null"#,
        r#""withdrawal" "-60" null"#,
        r#""reload_declined" "0" 1"#,
        r#""reload" "200.5" 2"#,
        r#""credit" "5" null"#,
    ];
    assert_eq!(told, expected);
    let off = patch(r#"{"auto_reload_enabled":false,"auto_reload_monthly_limit_usd":null}"#).await.json();
    assert_eq!(off["data"]["auto_reload_status"], "off");
    assert_eq!(off["data"]["auto_reload_monthly_limit_usd"], json!(null));
}
