//! Scheduled sweeps and lots with a deadline, over HTTP, in log time (contract §4.2, D1 to D4).

mod support;

use grid_engine::command::{Command, Side, Surface};
use grid_engine::funding::AccountTerms;
use grid_engine::instrument::{DeliveryTerms, InstrumentSpec, InstrumentStatus, Movement};
use grid_engine::units::DAY;
use grid_engine::{InstrumentId, KeyId, Nanos, Qty, Tokens, Usd};
use grid_trading::ids;
use serde_json::{Value, json};
use support::{Fixture, OPERATOR, fixture, get, signed, spec};

const FOUR_HOURS: u64 = DAY / 6;

/// The market swept every four hours, lots living four hours, with 1,000 Units on offer at 0.80; and the next sweep.
async fn swept() -> (Fixture, Nanos) {
    let fixture = fixture().await;
    let delivery = DeliveryTerms { window: Some(Nanos(FOUR_HOURS)), movement: Movement::Swept };
    let spec = InstrumentSpec { delivery, ..spec("text-prime", "Text Prime", InstrumentStatus::Live) };
    fixture.venue.done(OPERATOR, Command::DefineInstrument(Box::new(spec)));
    fixture.venue.place(fixture.supplier.account, Side::Sell, 80, 1_000);
    // Not within the last hour before a sweep, which might come while the test runs.
    let now = fixture.venue.look(|engine| engine.state().now);
    let mut sweep = now.next_sweep();
    fixture.venue.pass_to(Nanos(sweep.0 + 1));
    sweep = Nanos(sweep.0 + FOUR_HOURS);
    (fixture, sweep)
}

async fn buy(fixture: &Fixture, qty: u64) {
    let market = ids::market(InstrumentId(0));
    let body = json!({"market_id": market, "side": "buy", "type": "limit", "quantity": qty, "price": "0.80"});
    let answer = signed(fixture, &fixture.trader, "POST", "/v1/orders", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

async fn rows(fixture: &Fixture, path: &str) -> Vec<Value> {
    let answer = get(fixture, &fixture.trader, path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["data"].as_array().expect("rows").clone()
}

fn iso(at: Nanos) -> String {
    grid_trading::time::iso(at)
}

#[tokio::test]
async fn a_sweep_moves_what_is_free_and_what_is_left_of_its_lots_four_hours_later_is_lost_and_paid_for() {
    let (fixture, sweep) = swept().await;
    buy(&fixture, 4).await;
    let market = ids::market(InstrumentId(0));
    let ask = json!({"market_id": market, "side": "sell", "type": "limit", "quantity": 1, "price": "0.99"});
    assert_eq!(signed(&fixture, &fixture.trader, "POST", "/v1/orders", &ask.to_string()).await.status, 201);

    fixture.venue.pass_to(Nanos(sweep.0 - 1));
    assert!(rows(&fixture, "/v1/transfer-histories").await.is_empty(), "not before its hour");
    fixture.venue.pass_to(sweep);
    let transfers = rows(&fixture, "/v1/transfer-histories").await;
    assert_eq!(transfers.len(), 1, "the supplier's unsold Units are not the trader's, and stay");
    assert_eq!((&transfers[0]["reason"], &transfers[0]["quantity"]), (&json!("swept"), &json!(3)));
    assert_eq!(transfers[0]["transferred_at"], iso(sweep));
    let row = &rows(&fixture, "/v1/consumption-accounts").await[0];
    let deadline = Nanos(sweep.0 + FOUR_HOURS);
    assert_eq!((&row["total_balance"], &row["next_expires_at"]), (&json!(3), &json!(iso(deadline))));
    let trading = &rows(&fixture, "/v1/trading-accounts?instrument_symbol=text-prime").await[0];
    assert_eq!(
        (&trading["total_balance"], &trading["locked_balance"]),
        (&json!("1"), &json!("1")),
        "behind an ask"
    );
    let lot = &rows(&fixture, "/v1/accounts/lots?status=active").await[0];
    assert_eq!((&lot["remaining"], &lot["expires_at"]), (&json!(3), &json!(iso(deadline))));
    let back = json!({"instrument_id": ids::instrument(InstrumentId(0)), "quantity": 1}).to_string();
    let refused =
        signed(&fixture, &fixture.trader, "POST", "/v1/transfers/consumption-to-trading", &back).await;
    assert_eq!(refused.error(), (400, "insufficient_balance".into()), "a deadline hangs over it");

    // Two more are swept at the moment in which the first three end.
    buy(&fixture, 2).await;
    fixture.venue.pass_to(deadline);
    let row = &rows(&fixture, "/v1/consumption-accounts").await[0];
    assert_eq!((&row["total_balance"], &row["tokens_expired"]), (&json!(2), &json!(3_000_000)));
    let expired = &rows(&fixture, "/v1/accounts/lots?status=expired").await[0];
    assert_eq!((&expired["lot_id"], &expired["remaining"]), (&lot["lot_id"], &json!(3)));
    fixture.venue.look(|engine| {
        let supply =
            engine.state().supplies.get(fixture.supplier.account, InstrumentId(0)).expect("a supply");
        assert_eq!(supply.earned, Usd(2_400_000_000), "take or pay");
    });
}

#[tokio::test]
async fn at_fill_without_a_window_nothing_is_swept_and_untouched_units_go_back_unless_transfers_are_one_way()
{
    let fixture = fixture().await;
    fixture.venue.place(fixture.supplier.account, Side::Sell, 80, 1_000);
    buy(&fixture, 4).await;
    let now = fixture.venue.look(|engine| engine.state().now);
    fixture.venue.pass_to(Nanos(now.0 + DAY));
    assert!(rows(&fixture, "/v1/transfer-histories").await.is_empty());
    let units =
        |qty: u64| json!({"instrument_id": ids::instrument(InstrumentId(0)), "quantity": qty}).to_string();
    let transfer = async |way: &str, qty| {
        let path = format!("/v1/transfers/{way}");
        signed(&fixture, &fixture.trader, "POST", &path, &units(qty)).await.status
    };
    assert_eq!(transfer("trading-to-consumption", 3).await, 200);
    assert_eq!(transfer("consumption-to-trading", 1).await, 200);
    // A call in progress commits what it has reserved: of two Units one is no longer untouched.
    let reserve = Command::Reserve {
        instrument: InstrumentId(0),
        tokens: Tokens(10),
        request: 1,
        valid_for: Nanos(grid_engine::SECOND),
        key: KeyId::default(),
        surface: Surface::ChatCompletions,
    };
    fixture.venue.run(fixture.trader.account, reserve);
    assert_eq!(transfer("consumption-to-trading", 2).await, 400);

    let terms = AccountTerms { one_way: true, ..AccountTerms::default() };
    fixture.venue.done(OPERATOR, Command::SetAccountTerms(terms));
    fixture.venue.pass_to(Nanos(now.0 + 2 * DAY));
    assert_eq!(transfer("consumption-to-trading", 1).await, 403);
    let reasons: Vec<_> =
        rows(&fixture, "/v1/transfer-histories").await.iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    fixture.venue.look(|engine| {
        let holding = engine.state().holding(fixture.trader.account, InstrumentId(0)).expect("a holding");
        assert_eq!((holding.available, holding.free_tokens()), (Qty(2), Tokens(2_000_000)));
    });
}
