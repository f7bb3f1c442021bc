//! A history that could not hear of some commands: what it knows is told as ever, what it cannot know is null or not
//! there, and nothing in between is made up.

mod support;

use grid_engine::command::{Command, OrderRef, Side};
use grid_engine::{InstrumentId, OrderId};
use grid_trading::ids;
use serde_json::{Value, json};
use support::{fixture, get, signed};

#[tokio::test]
async fn what_happened_in_a_gap_is_neither_made_up_nor_half_told() {
    let fixture = fixture().await;
    let (venue, trader, supplier) = (&fixture.venue, &fixture.trader, &fixture.supplier);
    let ask = venue.place(supplier.account, Side::Sell, 81, 5);
    let [cancelled, untouched] = [50, 40].map(|price| venue.place(trader.account, Side::Buy, price, 1));
    let feed = venue.stop_telling();
    let gone = venue.place(trader.account, Side::Buy, 81, 2);
    venue.run(trader.account, Command::Cancel { order: OrderRef::Id(cancelled) });
    let placed = venue.place(trader.account, Side::Buy, 30, 1);
    venue.tell_again(feed);
    let later = venue.place(trader.account, Side::Buy, 81, 1);

    let show = async |user, order: OrderId| {
        let answer = get(&fixture, user, &format!("/v1/orders/{}", ids::order(order))).await;
        (answer.status, answer.json()["data"].clone())
    };
    let pick = |row: &Value, names: [&str; 6]| names.map(|name| row[name].clone());
    let names = ["status", "filled_quantity", "average_price", "fee", "closure_reason", "closed_at"];
    let (_, row) = show(supplier, ask).await;
    assert_eq!(
        pick(&row, names),
        [json!("partially_filled"), json!(3), Value::Null, Value::Null, Value::Null, Value::Null],
        "filled is known from the state, for how much is not"
    );
    assert_eq!(row["remaining_quantity"], 2);
    let (_, row) = show(trader, cancelled).await;
    assert_eq!(
        pick(&row, names),
        [json!("closed"), Value::Null, Value::Null, Value::Null, json!("not_recorded"), Value::Null]
    );
    let (_, row) = show(trader, untouched).await;
    assert_eq!(
        pick(&row, names),
        [json!("active"), json!(0), Value::Null, json!("0"), Value::Null, Value::Null]
    );
    let (_, row) = show(trader, placed).await;
    assert_eq!(
        (&row["status"], &row["price"], &row["quantity"]),
        (&json!("active"), &json!("0.3"), &json!("1"))
    );
    let (_, row) = show(trader, later).await;
    assert_eq!((&row["status"], &row["average_price"]), (&json!("filled"), &json!("0.81")));
    assert_eq!(show(trader, gone).await.0, 404, "nobody here ever heard of it");

    let market = ids::market(InstrumentId(0));
    let stats = get(&fixture, trader, &format!("/v1/markets/{market}/stats")).await.json();
    assert_eq!((&stats["data"]["volume_24h"], &stats["data"]["high_24h"]), (&Value::Null, &Value::Null));
    assert_eq!(stats["data"]["current_price"], "0.81", "the last trade is in the state");
    let candles =
        get(&fixture, trader, &format!("/v1/price-histories?market_id={market}&resolution=1d")).await;
    assert_eq!(candles.json()["data"], json!([]), "a candle is whole or it is not there");
    let open = get(&fixture, trader, "/v1/orders?status=active").await.json();
    assert_eq!(open["data"].as_array().map(Vec::len), Some(2), "{open}");
    let diagnostics = get(&fixture, trader, "/v1/diagnostics").await.json();
    let record = diagnostics["data"]["checks"].as_array().and_then(|checks| {
        checks.iter().find(|check| check["name"] == "record").map(|check| check["code"].clone())
    });
    assert_eq!(record, Some(json!("history_incomplete")));

    // An order from the gap can be worked with.
    let path = format!("/v1/orders/{}", ids::order(placed));
    let cancelled = signed(&fixture, trader, "DELETE", &path, "").await;
    assert_eq!((cancelled.status, &cancelled.json()["data"]["status"]), (200, &json!("cancelled")));
}
