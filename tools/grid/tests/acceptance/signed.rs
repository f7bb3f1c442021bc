//! The signed trading API (contract §5), from a client that shares no code with the venue.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grid_engine::Usd;
use grid_engine::command::AccountMode;
use serde_json::{Map, Value, json};

use crate::clients;
use crate::harness::shared;

#[test]
fn a_client_with_nothing_but_node_trades_on_all_path_generations_and_is_refused_for_every_fault() {
    let venue = shared();
    let operator = venue.operator();
    let (_, trader) = operator.open("signed trader", AccountMode::Advanced, Usd::dollars(1_000));
    let (_, easy) = operator.open("signed easy", AccountMode::Easy, Usd::ZERO);
    let by_symbol = |id: fn(&crate::harness::ReadyInstrument) -> &String| -> Map<String, Value> {
        venue.ready.instruments.iter().map(|i| (i.symbol.clone(), id(i).clone().into())).collect()
    };
    let told = clients::node(
        "trading.mjs",
        &json!({
            "trading_url": venue.ready.trading_url,
            "platform_url": venue.ready.platform_url,
            "inference_url": venue.ready.inference_url,
            "private_key": STANDARD.encode(trader.seed),
            "easy_private_key": STANDARD.encode(easy.seed),
            "markets": by_symbol(|i| &i.market_id),
            "instruments": by_symbol(|i| &i.instrument_id),
        }),
    );
    assert!(told["checks"].as_u64().is_some_and(|checks| checks > 100), "{told}");
}

#[test]
fn the_ready_file_says_everything_that_a_client_needs() {
    let venue = shared();
    let ready = &venue.ready;
    for url in [&ready.trading_url, &ready.inference_url, &ready.messages_url, &ready.platform_url] {
        assert!(url.starts_with("http://") && url.ends_with("/v1"), "{url}");
    }
    for (name, mode) in [
        ("demo", "easy"),
        ("trader", "advanced"),
        ("maker", "advanced"),
        ("supplier", "advanced"),
        ("operator", "advanced"),
    ] {
        let account = &ready.accounts[name];
        assert_eq!(account.mode, mode, "{name}");
        let signer = venue.signer(&venue.account(name));
        let me = signer.get("/me");
        assert_eq!(me["user_id"], account.account_id.as_str(), "{name}");
        assert_eq!(me["account_mode"], mode, "{name}");
        let seed = venue.account(name).seed;
        assert_eq!(
            crate::web::fingerprint(&ed25519_dalek::SigningKey::from_bytes(&seed)),
            account.fingerprint
        );
        let models = crate::web::send(
            crate::web::split(&ready.inference_url).0,
            "GET",
            "/v1/models",
            &[("authorization", &format!("Bearer {}", account.consumption_key))],
            b"",
        );
        assert_eq!(models.expect("an answer").status, 200, "{name}'s consumption key");
    }
    assert_eq!(ready.instruments.len(), 9);
    assert!(
        ready
            .instruments
            .iter()
            .all(|i| i.instrument_id.starts_with("instrument") && i.market_id.starts_with("market"))
    );
    assert_eq!(ready.suppliers.len(), 3);
    assert!(ready.suppliers.iter().all(|supplier| supplier.url.ends_with("/v1")));
    let demo = venue.signer(&venue.account("demo")).get("/currency-trading-accounts");
    assert!(crate::books::nanos(&demo[0]["total_balance"]) <= 25_000_000_000, "{demo}");
}
