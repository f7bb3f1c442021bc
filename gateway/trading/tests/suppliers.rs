//! What suppliers owe, how they serve and who vouches for them, over HTTP (contract §5.9).

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer;
use grid_engine::command::{Command, Cover, Offer, Side, SupplierProfile, Surface, TransferDirection, Usage};
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::{InstrumentId, KeyId, Nanos, Price, Qty, Tokens, Usd};
use grid_trading::ids;
use serde_json::{Value, json};
use support::{Fixture, OPERATOR, User, fixture, get, masked, signed};

const TEXT_PRIME: InstrumentId = InstrumentId(0);

fn operator() -> User {
    User { account: OPERATOR, key: ed25519_dalek::SigningKey::from_bytes(&[9; 32]) }
}

/// Collateral of $5, a window with one fault, and another supplier.
async fn venue() -> Fixture {
    let fixture = fixture().await;
    let (venue, supplier) = (&fixture.venue, fixture.supplier.account);
    let terms = SlaTerms { sample: 1, breaches_to_suspend: 1, ..SlaTerms::default() };
    venue.done(OPERATOR, Command::SetSlaTerms { instrument: TEXT_PRIME, terms: Box::new(terms) });
    venue.done(supplier, Command::Deposit { amount: Usd::dollars(8) });
    venue.done(supplier, Command::SetCollateral { instrument: TEXT_PRIME, amount: Usd::dollars(5) });
    let offers = vec![Offer { instrument: TEXT_PRIME, model: "model-1".into() }];
    let profile = SupplierProfile { name: "Acme".into(), offers, ..SupplierProfile::default() };
    venue.done(supplier, Command::RegisterSupplier(Box::new(profile)));
    let fault = Command::ReportFault { instrument: TEXT_PRIME, supplier, fault: Fault::Cut };
    venue.done(OPERATOR, fault);
    venue.done(fixture.easy.account, Command::RegisterSupplier(Box::default()));
    fixture
}

#[tokio::test]
async fn a_supplier_reads_what_it_owes_and_how_it_serves() {
    let fixture = venue().await;
    let rows = get(&fixture, &fixture.supplier, "/v1/supplier-liability").await.json();
    let mut row = masked(&rows["data"][0]);
    assert!(row["service"]["window"]["ends_at"].take().is_string());
    assert_eq!(
        row,
        json!({
            "supplier_id": "<user>", "instrument_id": "<instrument>", "instrument_symbol": "text-prime",
            "instrument_name": "Text Prime", "capacity": 2_000,
            "total_issued": 1_000, "total_delivered": 0, "total_expired": 0, "outstanding": 1_000,
            "issued_tokens": 1_000_000_000, "delivered_tokens": 0, "expired_tokens": 0,
            "outstanding_tokens": 1_000_000_000,
            "escrow_usd": "0", "earned_usd": "0", "collateral_usd": "5", "collateral_per_unit_usd": "0",
            "penalties_usd": "0", "owed_usd": "0", "covered_tokens": 0, "cover_cost_usd": "0",
            "calls": 0, "failures": 1,
            "standing": { "status": "active", "reasons": [], "since": null },
            "service": {
                "window": {
                    "calls": 0, "faults": 1, "distrusted": 0, "error_rate_bps": 10_000, "uptime_bps": 0,
                    "ttft_ms": 0, "tokens_per_second": 0, "late": 0, "slow": 0, "value_usd": "0",
                    "broken_terms": ["errors", "uptime"], "ends_at": null,
                },
                "last_window": null, "breaches_in_a_row": 0, "breaches_total": 0,
                "breaches_until_suspension": 1,
            },
        })
    );
    let currency = get(&fixture, &fixture.supplier, "/v1/currency-trading-accounts").await.json();
    assert!(currency.to_string().contains("\"5\""), "collateral shows as held: {currency}");
}

#[tokio::test]
async fn a_supplier_sees_itself_alone_and_the_operator_everybody() {
    let fixture = venue().await;
    let supplier = ids::user(fixture.supplier.account);
    let rows = |answer: Value| answer["data"].as_array().map(Vec::len);
    let path = "/v1/supplier-liability";
    assert_eq!(rows(get(&fixture, &fixture.easy, path).await.json()), Some(0), "it owes nothing yet");
    assert_eq!(get(&fixture, &fixture.trader, path).await.error(), (403, "not_a_supplier".into()));
    let others = format!("{path}?supplier_id={supplier}");
    assert_eq!(get(&fixture, &fixture.easy, &others).await.status, 404);
    assert_eq!(get(&fixture, &operator(), path).await.status, 403, "it supplies nothing itself");
    assert_eq!(rows(get(&fixture, &operator(), &format!("{path}?supplier_id=all")).await.json()), Some(1));
    assert_eq!(get(&fixture, &fixture.easy, &format!("{path}?supplier_id=all")).await.status, 404);
    assert_eq!(rows(get(&fixture, &operator(), &others).await.json()), Some(1));
    let one = format!("{path}/{}?supplier_id=all", ids::instrument(TEXT_PRIME));
    assert_eq!(get(&fixture, &operator(), &one).await.json()["data"]["supplier_id"], supplier.as_str());
}

#[tokio::test]
async fn an_attestation_is_accepted_signed_and_can_be_checked_by_whoever_may_read_it() {
    let fixture = venue().await;
    let (venue, supplier, trader) = (&fixture.venue, fixture.supplier.account, &fixture.trader);
    let statement = |score, valid_until_ns| Attestation {
        supplier,
        instrument: TEXT_PRIME,
        model: "model-1".into(),
        score,
        valid_until: Nanos(valid_until_ns),
        key: trader.fingerprint(),
        signature: Vec::new(),
    };
    let later = u64::MAX / 4;
    let body = |score, signed_score, by: &User| {
        let said = statement(signed_score, later).statement("text-prime", "AA Intelligence");
        let signature = BASE64.encode(by.key.sign(said.as_bytes()).to_bytes());
        json!({
            "supplier_id": ids::user(supplier), "instrument_id": ids::instrument(TEXT_PRIME),
            "model": "model-1", "score": score, "valid_until_ns": later, "signature": signature,
        })
        .to_string()
    };
    let post = async |body: String| signed(&fixture, trader, "POST", "/v1/attestations", &body).await;
    assert_eq!(post(body(37, 37, trader)).await.error(), (403, "forbidden".into()), "no benchmark provider");
    venue.done(trader.account, Command::SetBenchmark { allowed: true });
    assert_eq!(post(body(40, 37, trader)).await.error(), (422, "bad_signature".into()));
    assert_eq!(post(body(37, 37, &fixture.easy)).await.error(), (422, "bad_signature".into()));

    let accepted = post(body(37, 37, trader)).await;
    assert_eq!(accepted.status, 201, "{}", accepted.body);
    let listed = get(&fixture, &fixture.supplier, "/v1/attestations").await.json();
    let row = &listed["data"][0];
    assert_eq!(*row, accepted.json()["data"]);
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let key: [u8; 32] = BASE64.decode(text("public_key")).unwrap().try_into().unwrap();
    let signature = BASE64.decode(text("signature")).unwrap();
    let checked = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap().verify_strict(
        text("statement").as_bytes(),
        &ed25519_dalek::Signature::from_slice(&signature).unwrap(),
    );
    assert!(checked.is_ok(), "anybody can check it again: {row}");

    let path = "/v1/supplier-liability";
    let standing = get(&fixture, &fixture.supplier, path).await.json()["data"][0]["standing"].clone();
    assert_eq!((&standing["status"], &standing["reasons"]), (&json!("suspended"), &json!(["quality"])));
    let issue = json!({ "instrument_id": ids::instrument(TEXT_PRIME), "quantity": 1 }).to_string();
    let issued = signed(&fixture, &fixture.supplier, "POST", "/v1/supply-issuances", &issue).await;
    assert_eq!(issued.error(), (422, "suspended".into()));
    assert_eq!(post(body(38, 38, trader)).await.status, 201);
    let standing = get(&fixture, &fixture.supplier, path).await.json()["data"][0]["standing"].clone();
    assert_eq!(standing["status"], "active", "the floor is 38");
    assert_eq!(get(&fixture, &fixture.easy, "/v1/attestations").await.json()["data"], json!([]));
}

#[tokio::test]
async fn what_a_failure_costs_is_told_to_both_sides() {
    let fixture = venue().await;
    let (venue, supplier, trader) = (&fixture.venue, &fixture.supplier, &fixture.trader);
    let other = fixture.easy.account;
    let terms = SlaTerms { cover_penalty_bps: 1_000, ..SlaTerms::NONE };
    venue.done(OPERATOR, Command::SetSlaTerms { instrument: TEXT_PRIME, terms: Box::new(terms) });
    venue.place(supplier.account, Side::Sell, 80, 1);
    venue.place(trader.account, Side::Buy, 80, 1);
    let move_it = Command::Transfer {
        instrument: TEXT_PRIME,
        qty: Qty(1),
        direction: TransferDirection::ToConsumption,
    };
    venue.done(trader.account, move_it);
    let reserve = Command::Reserve {
        instrument: TEXT_PRIME,
        tokens: Tokens(500_000),
        request: 7,
        valid_for: Nanos(60_000_000_000),
        key: KeyId::NONE,
        surface: Surface::ChatCompletions,
    };
    venue.run(trader.account, reserve);
    let reservation = venue.look(|engine| engine.state().reservations.by_request(trader.account, 7));
    let reservation = reservation.expect("the tokens are set aside");
    let usage =
        Usage { supplier: other, prompt_tokens: Tokens(500_000), cover: Cover::Failed, ..Usage::default() };
    venue.run(trader.account, Command::Settle { reservation, usage });

    let told = |answer: Value| -> Vec<[Value; 4]> {
        let rows = answer["data"].as_array().cloned().unwrap_or_default();
        let row =
            |row: &Value| ["reason", "direction", "amount_usd", "owed_usd"].map(|name| row[name].clone());
        rows.iter().map(row).collect()
    };
    let list = async |user: &User| told(get(&fixture, user, "/v1/charges?order_direction=asc").await.json());
    let row = |cells: [&str; 4]| cells.map(Value::from);
    assert_eq!(
        list(supplier).await,
        [row(["cover", "paid", "-0.4", "0"]), row(["cover_penalty", "paid", "-0.04", "0"])]
    );
    assert_eq!(list(trader).await, [row(["cover_penalty", "received", "0.04", "0"])]);
    assert_eq!(list(&fixture.easy).await, [row(["cover", "received", "0.4", "0"])]);
}

#[tokio::test]
async fn an_account_that_bought_from_the_managed_supplier_reads_nowhere_who_that_was() {
    let fixture = venue().await;
    let (venue, supplier, buyer) = (&fixture.venue, fixture.supplier.account, &fixture.easy);
    let managed = Command::SetManaged { instrument: TEXT_PRIME, price: Price(90), capacity: Qty(2_000) };
    venue.done(supplier, managed);
    let reserve = Command::Reserve {
        instrument: TEXT_PRIME,
        tokens: Tokens(500_000),
        request: 8,
        valid_for: Nanos(60_000_000_000),
        key: KeyId::NONE,
        surface: Surface::ChatCompletions,
    };
    venue.run(buyer.account, reserve);
    let reservation = venue.look(|engine| engine.state().reservations.by_request(buyer.account, 8));
    let reservation = reservation.expect("the managed supplier sold what the book lacks");
    // Another supplier delivers, so that there is a charge to read.
    let usage = Usage {
        supplier: fixture.trader.account,
        prompt_tokens: Tokens(500_000),
        cover: Cover::Failed,
        ..Usage::default()
    };
    venue.done(OPERATOR, {
        let terms = SlaTerms { cover_penalty_bps: 1_000, ..SlaTerms::NONE };
        Command::SetSlaTerms { instrument: TEXT_PRIME, terms: Box::new(terms) }
    });
    venue.done(fixture.trader.account, Command::RegisterSupplier(Box::default()));
    venue.run(buyer.account, Command::Settle { reservation, usage });

    let told = [
        "Acme".to_owned(),
        ids::user(supplier),
        ids::trading_account(supplier, TEXT_PRIME),
        ids::trading_account(supplier, ids::USD),
    ];
    let own = get(&fixture, &fixture.supplier, "/v1/trading-accounts").await.json().to_string();
    assert!(told[1..].iter().all(|name| own.contains(name.as_str())), "it goes by these ids: {own}");
    let market = ids::market(TEXT_PRIME);
    let lots = get(&fixture, buyer, "/v1/accounts/lots").await.json();
    let lot = lots["data"][0]["lot_id"].as_str().expect("a lot").to_owned();
    // Each has something to tell.
    for target in [
        "/v1/accounts/lots".to_owned(),
        format!("/v1/accounts/lots/{lot}"),
        "/v1/orders".into(),
        "/v1/trades".into(),
        "/v1/charges".into(),
        "/v1/transfer-histories".into(),
        "/v1/consumption-accounts".into(),
        format!("/v1/markets/{market}/trades"),
    ] {
        let answer = get(&fixture, buyer, &target).await.json();
        let data = &answer["data"];
        assert!(data.as_array().map_or(data.is_object(), |rows| !rows.is_empty()), "{target}: {answer}");
        let text = answer.to_string();
        for name in &told {
            assert!(!text.contains(name.as_str()), "{target} names the supplier ({name}): {text}");
        }
    }
}
