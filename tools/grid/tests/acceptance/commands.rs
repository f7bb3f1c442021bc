//! The small commands: `keygen`, `script`, `inspect`.

use std::io::Write;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use grid_wire::{NewOrder, Side};
use serde_json::{Value, json};

use crate::harness::{Options, Place, Venue, grid, inspect};
use crate::web::fingerprint;

#[test]
fn keygen_makes_a_key_pair_whose_parts_belong_together_and_differ_each_time() {
    let keys = || -> Value {
        let output = grid().arg("keygen").output().expect("grid starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    let (one, two) = (keys(), keys());
    let text = |name: &str| one[name].as_str().expect("text").to_owned();
    let seed = STANDARD.decode(text("private_key")).expect("Base64");
    let key = SigningKey::from_bytes(&seed.try_into().expect("32 bytes"));
    assert_eq!(text("public_key"), STANDARD.encode(key.verifying_key().as_bytes()));
    assert_eq!(text("fingerprint"), fingerprint(&key));
    assert!(text("consumption_key").len() >= 43);
    assert_ne!(one["private_key"], two["private_key"]);
    assert_ne!(one["consumption_key"], two["consumption_key"]);
}

fn script(text: &str) -> (bool, Vec<Value>, String) {
    let mut child = grid()
        .args(["script", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("grid starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    (output.status.success(), lines, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_script_prints_one_result_for_each_case() {
    let text = r#"
{"case":"price, then time"}
{"op":"limit","id":1,"owner":1,"side":"sell","price":101,"qty":5}
{"op":"limit","id":2,"owner":2,"side":"sell","price":100,"qty":5}
{"op":"limit","id":3,"owner":3,"side":"sell","price":100,"qty":5}
{"op":"market","id":4,"owner":4,"side":"buy","qty":12}
{"op":"limit","id":5,"owner":4,"side":"buy","price":90,"qty":1}
{"case":"what is refused, what expires"}
{"op":"limit","id":1,"owner":1,"side":"sell","price":100,"qty":5}
{"op":"post_only","id":2,"owner":2,"side":"buy","price":100,"qty":1}
{"op":"fok","id":3,"owner":2,"side":"buy","price":100,"qty":6}
{"op":"ioc","id":4,"owner":2,"side":"buy","price":100,"qty":2}
{"op":"ioc","id":5,"owner":2,"side":"buy","price":99,"qty":2}
{"op":"cancel","id":1,"owner":2}
{"op":"replace","id":1,"owner":1,"price":100,"qty":2}
{"op":"limit","id":1,"owner":1,"side":"sell","price":100,"qty":5}
{"op":"limit","id":6,"owner":1,"side":"buy","price":100,"qty":1,"stp":"cancel_newest"}
{"op":"limit","id":7,"owner":1,"side":"buy","price":0,"qty":1}
"#;
    let (success, lines, error) = script(text);
    assert!(success, "{error}");
    let empty: [u64; 0] = [];
    assert_eq!(
        lines,
        [
            json!({
                "case": "price, then time",
                "trades": [
                    {"taker": 4, "maker": 2, "price": 100, "qty": 5},
                    {"taker": 4, "maker": 3, "price": 100, "qty": 5},
                    {"taker": 4, "maker": 1, "price": 101, "qty": 2},
                ],
                "bids": [[90, 1, 1]], "asks": [[101, 3, 1]],
                "rejected": empty, "expired": empty, "stp_cancelled": empty,
            }),
            json!({
                "case": "what is refused, what expires",
                "trades": [{"taker": 4, "maker": 1, "price": 100, "qty": 2}],
                "bids": empty, "asks": [[100, 2, 1]],
                "rejected": [2, 1, 1, 7], "expired": [3, 5], "stp_cancelled": [6],
            }),
        ]
    );
}

#[test]
fn a_script_that_is_not_understood_names_the_line() {
    for (text, line) in [
        ("{\"case\":\"x\"}\n{\"op\":\"limit\"}\n", "2"),
        ("{\"case\":\"x\"}\n\n{\"op\":\"dance\",\"id\":1,\"owner\":1}\n", "3"),
        ("not json\n", "1"),
    ] {
        let (success, _, error) = script(text);
        assert!(!success && error.contains(line), "{text}: {error}");
    }
}

#[test]
fn inspect_reads_what_a_venue_wrote_and_changes_nothing() {
    let venue = Venue::start(&Options::bare());
    let client = venue.client(&venue.account("trader"));
    let instrument = venue.instrument("text-prime");
    for label in 1..=20 {
        let order = NewOrder { instrument, side: Side::Buy, price: 10, qty: 1, label, ..NewOrder::default() };
        client.call_blocking(order).expect("a bid rests");
    }
    client.close();
    let data = venue.data();
    let (status, place) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let _place = place.expect("its own directory");
    let bytes = |dir: &std::path::Path| -> Vec<(std::path::PathBuf, u64, Option<std::time::SystemTime>)> {
        let mut all = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory") {
                let entry = entry.expect("an entry");
                let meta = entry.metadata().expect("metadata");
                if meta.is_dir() {
                    open.push(entry.path());
                } else {
                    all.push((entry.path(), meta.len(), meta.modified().ok()));
                }
            }
        }
        all.sort();
        all
    };
    let before = bytes(&data);
    let told = inspect(&data);
    assert_eq!(told["commands"], told["last_sequence"], "{told}");
    assert_eq!(told["torn"], false, "{told}");
    let hash = told["state_hash"].as_str().expect("a hash");
    for snapshot in told["snapshots"].as_array().expect("a list") {
        if snapshot["sequence"] == told["last_sequence"] {
            assert_eq!(snapshot["state_hash"], hash, "{told}");
        }
    }
    let words = grid().args(["inspect", "--replay"]).arg(&data).output().expect("grid starts");
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(
        words.contains(hash) && words.contains("every invariant holds") && words.contains("text-prime"),
        "{words}"
    );
    let listed = grid().args(["inspect", "--commands"]).arg(&data).output().expect("grid starts");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().filter(|line| line.contains("Place(")).count(), 20, "{listed}");
    assert_eq!(bytes(&data), before, "inspect changes nothing");
}

#[test]
fn inspect_says_what_is_wrong_with_a_place_that_holds_no_venue() {
    let place = Place::new();
    let output = grid().arg("inspect").arg(place.path().join("nothing")).output().expect("grid starts");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() || said.contains(" 0 "), "{said}");
}
