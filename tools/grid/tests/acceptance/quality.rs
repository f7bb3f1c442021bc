//! Quality attestations over HTTP: an instrument comes to demand them, a benchmark provider hands in signed statements, and
//! who has a good one serves. Everybody who may read one can check it again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use grid_engine::command::{AccountMode, Command};
use grid_engine::sla::{Attestation, SlaTerms};
use grid_engine::{AccountId, Fingerprint, InstrumentId, Nanos, Usd};
use grid_trading::ids::{self, Kind};
use serde_json::{Value, json};

use crate::harness::{Account, Options, Venue, until};
use crate::web::{Answer, chat};

/// Far off, and exact as a JSON number in any client.
const VALID_UNTIL_NS: u64 = 4_102_444_800_000_000_000;

struct Scene {
    venue: Venue,
    benchmark: Account,
    /// The supplier of the ready file, as the APIs name it.
    supplier: String,
}

impl Scene {
    fn row(&self) -> Value {
        let rows = self.venue.signer(&self.venue.account("supplier")).get("/supplier-liability");
        let rows = rows.as_array().expect("a list").clone();
        rows.into_iter().find(|row| row["instrument_symbol"] == "text-prime").expect("it supplies that")
    }

    /// A statement, signed by the provider's key for `signed` points, and handed in as one of `score`.
    fn hand_in(&self, model: &str, score: u32, signed: u32) -> Answer {
        let market = self.venue.market("text-prime");
        let number = ids::decode(Kind::User, &self.supplier).expect("an account's id");
        let said = Attestation {
            supplier: AccountId(number as u32),
            instrument: InstrumentId(self.venue.instrument("text-prime")),
            model: model.into(),
            score: signed,
            valid_until: Nanos(VALID_UNTIL_NS),
            key: Fingerprint::of(&self.benchmark.public_key()),
            signature: Vec::new(),
        };
        let statement = said.statement("text-prime", "AA Intelligence");
        let signature = SigningKey::from_bytes(&self.benchmark.seed).sign(statement.as_bytes());
        let body = json!({
            "supplier_id": self.supplier, "instrument_id": market.instrument_id, "model": model,
            "score": score, "valid_until_ns": VALID_UNTIL_NS,
            "signature": STANDARD.encode(signature.to_bytes()),
        });
        let signer = self.venue.signer(&self.benchmark);
        signer.send("POST", "/attestations", body.to_string().as_bytes()).expect("an answer")
    }

    fn until_standing(&self, status: &str, reasons: &Value) {
        until("the standing", || {
            let standing = self.row()["standing"].clone();
            let there = standing["status"] == status && standing["reasons"] == *reasons;
            if there { Ok(()) } else { Err(standing.to_string()) }
        });
    }
}

/// What anybody can do with a row of the list.
fn can_be_checked(row: &Value) -> bool {
    let bytes = |name: &str| STANDARD.decode(row[name].as_str().expect("Base64")).expect("Base64");
    let key = VerifyingKey::from_bytes(&bytes("public_key").try_into().expect("a key")).expect("a key");
    let signature = Signature::from_slice(&bytes("signature")).expect("a signature");
    key.verify_strict(row["statement"].as_str().expect("text").as_bytes(), &signature).is_ok()
}

#[test]
fn who_is_not_attested_leaves_the_roster_and_who_is_comes_back() {
    let venue = Venue::start(&Options::quiet());
    let operator = venue.operator();
    let (number, benchmark) = operator.open("benchmark", AccountMode::Advanced, Usd::ZERO);
    let (_, customer) = operator.open("customer", AccountMode::Easy, Usd::dollars(20));
    let mut scene = Scene { venue, benchmark, supplier: String::new() };
    scene.supplier = scene.row()["supplier_id"].as_str().expect("an id").to_owned();
    let venue = &scene.venue;
    let model = format!("simulated-{}", venue.ready.suppliers[0].name);
    let ask = || {
        let body = json!({"model": "text-prime", "max_tokens": 20,
            "messages": [{"role": "user", "content": "What is a spot market?"}]});
        chat(&venue.ready.inference_url, &customer.consumption_key, &body).expect("an answer")
    };
    until("an answer", || {
        let answer = ask();
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });

    let early = scene.hand_in(&model, 50, 50);
    assert_eq!(early.status, 403, "no benchmark provider yet: {}", early.text());
    operator.command(number, &Command::SetBenchmark { allowed: true });
    let terms = SlaTerms { attested: true, ..SlaTerms::NONE };
    let terms = Command::SetSlaTerms {
        instrument: InstrumentId(venue.instrument("text-prime")),
        terms: Box::new(terms),
    };
    operator.command(operator.client.account(), &terms);
    scene.until_standing("suspended", &json!(["quality"]));
    until("nobody serves", || {
        let answer = ask();
        if answer.status == 503 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
    });

    assert_eq!(scene.hand_in(&model, 50, 37).status, 422, "signed for fewer points than it claims");
    // The instrument's floor is 38.
    assert_eq!(scene.hand_in(&model, 37, 37).status, 201);
    scene.until_standing("suspended", &json!(["quality"]));
    let accepted = scene.hand_in(&model, 38, 38);
    assert_eq!(accepted.status, 201, "{}", accepted.text());
    scene.until_standing("active", &json!([]));
    for reader in [scene.benchmark.clone(), venue.account("supplier"), venue.account("operator")] {
        let rows = venue.signer(&reader).get("/attestations");
        let rows = rows.as_array().expect("a list");
        assert_eq!(rows.len(), 1, "the later statement took the earlier one's place: {rows:?}");
        assert_eq!(rows[0], accepted.json()["data"]);
        assert!(can_be_checked(&rows[0]), "{}", rows[0]);
    }
    let answer = until("an answer", || {
        let answer = ask();
        if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
    });
    assert_eq!(answer.json()["model"], json!(model), "the only one that is attested");
}
