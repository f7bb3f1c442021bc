//! A supplier that breaks its terms of service: it pays, leaves the roster, is probed, and comes back once it serves again.
//! All of it as the HTTP APIs and the operator's command tell it.

use grid_engine::Usd;
use grid_engine::command::AccountMode;
use serde_json::{Value, json};

use crate::harness::{Options, Venue, grid, until};
use crate::web::{self, chat};

/// A minute is the shortest window. How fast this machine is decides nothing: speed is neither judged nor probed.
const TERMS: &str = r#"
[probes]
first_pause_seconds = 1
longest_pause_seconds = 2
samples = 1
misses = 1
context_percent = 2
[sla]
window_seconds = 60
sample = 1
ttft_percentile_bps = 0
pace_percentile_bps = 0
penalty_usd = "0.25"
breaches_to_suspend = 1
probes_to_decide = 2
late_is_free = false
"#;

/// All that a probe tries, in this order.
const CHECKS: [&str; 10] = [
    "stream",
    "whole",
    "limit",
    "tools",
    "parallel_tools",
    "json_schema",
    "output",
    "bad_request",
    "speed",
    "context",
];

/// What the venue says of a supplier of `text-prime`.
fn row(venue: &Venue, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    let rows = venue.signer(&venue.account("operator")).get("/supplier-liability?supplier_id=all&limit=100");
    let rows = rows.as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["instrument_symbol"] == "text-prime" && wanted(row))
}

fn set(venue: &Venue, name: &str, faults: &Value) {
    let found = venue.ready.suppliers.iter().find(|found| found.name == name).expect("a supplier");
    let (addr, path) = web::split(&found.control_url);
    let answer = web::send(addr, "POST", path, &[], faults.to_string().as_bytes()).expect("control answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Runs the operator's command; whether it ended well, and what it printed.
fn probe(venue: &Venue, supplier: &str) -> (bool, String) {
    let (inference, _) = web::split(&venue.ready.inference_url);
    let mut command = grid();
    command.args(["operator", "--binary-addr", &venue.ready.binary_addr.to_string(), "--data-dir"]);
    command.arg(venue.data());
    command.args(["probe", "--supplier", supplier, "--instrument", "text-prime"]);
    command.args(["--inference-addr", &inference.to_string()]);
    let output = command.output().expect("the command runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn a_supplier_that_breaks_its_terms_pays_is_suspended_and_comes_back_through_probes() {
    let venue = Venue::start(&Options { config: TERMS, ..Options::quiet() });
    let (_, customer) = venue.operator().open("customer", AccountMode::Easy, Usd::dollars(20));
    let ask = || {
        let body = json!({"model": "text-prime", "max_tokens": 60,
            "messages": [{"role": "user", "content": "What is a spot market?"}]});
        chat(&venue.ready.inference_url, &customer.consumption_key, &body).expect("an answer")
    };
    // Whoever delivered owes the rest of the Unit, and is asked first from now on.
    let first = until("an answer", || {
        let answer = ask();
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
    });
    let model = first["model"].as_str().expect("a model").to_owned();
    let name =
        venue.ready.suppliers.iter().find(|one| model.contains(&one.name)).expect("its name").name.clone();
    let served = until("the delivery on record", || {
        row(&venue, |row| row["calls"].as_u64() > Some(0)).ok_or_else(|| "no calls".to_owned())
    });
    let supplier = served["supplier_id"].as_str().expect("an id").to_owned();
    let mine = |row: &Value| row["supplier_id"] == supplier.as_str();
    let (passed, told) = probe(&venue, &supplier);
    assert!(passed, "healthy: {told}");
    for check in CHECKS {
        let line = told.lines().find(|line| line.split_ascii_whitespace().next() == Some(check));
        let verdict = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        assert_eq!(verdict, Some("passed"), "{check}: {told}");
    }

    set(&venue, &name, &json!({"status": 500}));
    let suspended = until("the suspension", || {
        // Others deliver meanwhile; each attempt that failed is on record. It takes evidence in the window that is open.
        let answer = ask();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let row = row(&venue, mine).expect("a supplier");
        if row["standing"]["status"] == "suspended" { Ok(row) } else { Err(row.to_string()) }
    });
    assert_eq!(suspended["standing"]["reasons"], json!(["breach"]), "{suspended:#}");
    let last = &suspended["service"]["last_window"];
    assert!(last["faults"].as_u64() > Some(0), "{last:#}");
    let broken = last["broken_terms"].as_array().expect("a list");
    assert!(broken.contains(&json!("errors")), "{last:#}");
    assert_ne!(last["penalty_usd"], "0", "{last:#}");
    assert_ne!(suspended["penalties_usd"], "0", "{suspended:#}");

    let (passed, told) = probe(&venue, &supplier);
    assert!(!passed, "{told}");
    // Whatever it is asked is answered 500, but for the request that is wrong.
    let failed = told.lines().filter(|line| line.starts_with("  ") && line.contains(" failed: ")).count();
    assert_eq!(failed, CHECKS.len() - 1, "{told}");
    assert_eq!(row(&venue, mine).expect("a supplier")["standing"]["status"], "suspended");
    set(&venue, &name, &json!({}));
    until("the return", || {
        let row = row(&venue, mine).expect("a supplier");
        if row["standing"]["status"] == "active" { Ok(()) } else { Err(row.to_string()) }
    });
    let (passed, told) = probe(&venue, &supplier);
    assert!(passed && told.contains("context") && !told.contains("imulated supplier"), "{told}");
    assert_eq!(ask().status, 200);
}
