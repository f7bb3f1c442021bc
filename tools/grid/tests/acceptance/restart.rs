//! How a venue ends and goes on: Ctrl-C, a second process, a full disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grid_client::{Client, ClientError};
use grid_engine::Usd;
use grid_engine::command::AccountMode;
use grid_wire::{NewOrder, Side};
use serde_json::{Value, json};

use crate::door::{journal, stock};
use crate::harness::{Account, Options, Place, Venue, grid, inspect, until};
use crate::web;

/// Everything that an account can see of itself, without what moves by itself.
fn own(venue: &Venue, account: &Account) -> Value {
    let signer = venue.signer(account);
    let mut all: Vec<Value> = [
        "/me",
        "/currency-trading-accounts",
        "/trading-accounts",
        "/consumption-accounts",
        "/accounts/lots?status=all",
        "/orders?limit=100",
        "/orders/count",
        "/trades?limit=100",
        "/transfer-histories?limit=100",
        "/api-keys",
        "/signing-keys",
        "/self/system-settings",
    ]
    .iter()
    .map(|path| signer.get(path))
    .collect();
    for rows in &mut all {
        let rows = match rows {
            Value::Array(rows) => rows.iter_mut().collect(),
            one => vec![one],
        };
        for row in rows {
            if let Some(row) = row.as_object_mut() {
                // The market's last price, and when this process last saw a key used.
                row.remove("last_trade_price");
                row.remove("last_used_at");
            }
        }
    }
    Value::Array(all)
}

fn start(place: &Place, options: &Options) -> Venue {
    Venue::start_at(place, options).unwrap_or_else(|printed| panic!("no venue:\n{printed}"))
}

#[test]
fn ctrl_c_ends_cleanly_and_the_next_start_goes_on_where_it_stopped() {
    let place = Place::new();
    let venue = start(&place, &Options::default());
    let demo = venue.account("demo");
    let (_, trader) = venue.operator().open("stays", AccountMode::Advanced, Usd::dollars(500));
    let signer = venue.signer(&trader);
    let market = venue.market("text-prime").market_id.clone();
    let instrument = venue.market("text-prime").instrument_id.clone();
    signer.post("/orders", &json!({"market_id": market, "side": "buy", "type": "market", "quantity": 3}));
    let rests = json!({"market_id": market, "side": "buy", "type": "limit", "quantity": 5, "price": "0.02", "client_order_id": "rests"});
    let resting = signer.post("/orders", &rests)["data"]["order_id"].clone();
    let gone = json!({"market_id": market, "side": "buy", "type": "limit", "quantity": 1, "price": "0.03"});
    let gone = signer.post("/orders", &gone)["data"]["order_id"].as_str().expect("an id").to_owned();
    assert_eq!(signer.send("DELETE", &format!("/orders/{gone}"), b"").expect("an answer").status, 200);
    signer.post("/transfers/trading-to-consumption", &json!({"instrument_id": instrument, "quantity": 1}));
    let ask = |venue: &Venue, account: &Account, text: &str| {
        let body = json!({"model": "text-prime", "messages": [{"role": "user", "content": text}]});
        let answer =
            web::chat(&venue.ready.inference_url, &account.consumption_key, &body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    ask(&venue, &demo, "before the restart");
    crate::books::reads_catch_up(&venue, &demo);
    let (before, demo_before) = (own(&venue, &trader), own(&venue, &demo));
    let ready = venue.ready.clone();
    let status = venue.interrupt();
    assert!(status.success(), "{status}\n{}", place.printed());
    assert!(!place.printed().contains("panicked"), "{}", place.printed());
    let told = inspect(&place.data());
    assert_eq!(told["torn"], false, "a clean end leaves no torn tail: {told}");

    let venue = start(&place, &Options::default());
    for (name, account) in &ready.accounts {
        let now = &venue.ready.accounts[name];
        assert_eq!(
            (&now.account_id, &now.private_key, &now.consumption_key),
            (&account.account_id, &account.private_key, &account.consumption_key)
        );
    }
    let ids = |ready: &crate::harness::Ready| -> Vec<String> {
        ready.instruments.iter().map(|i| i.market_id.clone()).collect()
    };
    assert_eq!(ids(&venue.ready), ids(&ready));
    assert_eq!(own(&venue, &trader), before);
    assert_eq!(own(&venue, &demo), demo_before);
    ask(&venue, &demo, "after the restart, with the same key");
    // The client order id is still taken, and the order can still be cancelled.
    let again = venue.signer(&trader).post("/orders", &rests);
    assert_eq!(again["data"]["order_id"], resting);
    let path = format!("/orders/{}", resting.as_str().expect("an id"));
    assert_eq!(venue.signer(&trader).send("DELETE", &path, b"").expect("an answer").status, 200);
    assert!(venue.interrupt().success());
}

#[test]
fn a_venue_comes_up_without_its_suppliers_and_serves_again_when_they_are_back() {
    let place = Place::new();
    let ask = |venue: &Venue| {
        let body = json!({"model": "text-prime", "messages": [{"role": "user", "content": "hello"}]});
        let key = &venue.ready.accounts["demo"].consumption_key;
        web::chat(&venue.ready.inference_url, key, &body).expect("an answer")
    };
    let venue = start(&place, &Options::quiet());
    assert_eq!(ask(&venue).status, 200);
    let used = crate::books::used(&venue, &venue.account("demo"));
    assert!(venue.interrupt().success());
    let venue = start(&place, &Options::bare());
    assert!(venue.ready.suppliers.is_empty());
    let answer = ask(&venue);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(crate::books::used(&venue, &venue.account("demo")), used, "nothing is billed");
    assert!(venue.interrupt().success());
    let venue = start(&place, &Options::default());
    let answer = ask(&venue);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(venue.interrupt().success());
}

/// The only file in a directory whose name ends so.
fn only(dir: &Path, end: &str) -> PathBuf {
    let files = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut found = files.filter(|path| path.to_string_lossy().ends_with(end));
    let first = found.next().unwrap_or_else(|| panic!("no *{end} in {}", dir.display()));
    assert_eq!(found.next(), None);
    first
}

fn flip_a_byte(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("the file reads");
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).expect("the file takes bytes");
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_a_damaged_journal_is_refused_with_words() {
    let place = Place::new();
    let venue = start(&place, &Options::bare());
    let instrument = venue.instrument("text-prime");
    let trader = venue.account("trader");
    let client = venue.client(&trader);
    for label in 1..=500 {
        let order = NewOrder { instrument, side: Side::Buy, price: 3, qty: 1, label, ..NewOrder::default() };
        client.call_blocking(order).expect("a bid rests");
    }
    client.close();
    assert!(venue.interrupt().success());
    let hash = inspect(&place.data())["state_hash"].clone();
    let snapshot = only(&place.data().join("snapshots"), ".snap");
    let middle = std::fs::metadata(&snapshot).expect("metadata").len() as usize / 2;
    flip_a_byte(&snapshot, middle);
    assert_eq!(inspect(&place.data())["state_hash"], hash, "the journal has everything");
    let venue = start(&place, &Options::bare());
    assert!(place.printed().contains("passed over"), "{}", place.printed());
    assert_eq!(venue.signer(&trader).get("/orders/count")["count"], 500);
    assert!(venue.interrupt().success());

    for entry in std::fs::read_dir(place.data().join("snapshots")).expect("a directory") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("it goes");
    }
    let journal = only(&place.data().join("journal"), ".seg");
    // Not one of the zeros between two blocks, which mean nothing.
    let bytes = std::fs::read(&journal).expect("the file reads");
    let damaged = 20_000 + bytes[20_000..].iter().position(|byte| *byte != 0).expect("blocks");
    flip_a_byte(&journal, damaged);
    let refused = Venue::start_at(&place, &Options::bare()).expect_err("a damaged journal is no journal");
    let last = refused.lines().last().unwrap_or_default().to_owned();
    assert!(
        last.starts_with("grid: ") && last.contains("journal") && !refused.contains("panicked"),
        "{refused}"
    );
    let output = grid().arg("inspect").arg(place.data()).output().expect("grid starts");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // Nothing was cut or repaired behind the operator's back: with the byte put right, all is there again.
    flip_a_byte(&journal, damaged);
    let venue = start(&place, &Options::bare());
    assert_eq!(venue.signer(&trader).get("/orders/count")["count"], 500);
    assert!(venue.interrupt().success());
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let venue = start(&place, &Options::bare());
    let second = Place::new();
    let refused = Venue::start_in(&second, &place.data(), &Options::bare()).expect_err("the data is taken");
    let words = ["use", "lock", "running", "another"];
    assert!(words.iter().any(|word| refused.contains(word)) && !refused.contains("panicked"), "{refused}");
    assert_eq!(venue.signer(&venue.account("trader")).get("/me")["account_mode"], "advanced");
    let (status, _) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success());
    inspect(&place.data());
}

#[test]
fn serve_starts_from_a_configuration_and_the_operator_works_through_the_door() {
    let place = Place::new();
    let (config, ready) = (place.path().join("venue.toml"), place.path().join("ready.json"));
    let text = format!("data_dir = {:?}\n[listen]\nport_base = 0\n", place.data());
    std::fs::write(&config, text).expect("a file");
    let mut child = grid()
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(place.path().join("printed")).expect("a file"))
        .spawn()
        .expect("grid starts");
    let told: Value = until("serve becomes ready", || {
        assert!(child.try_wait().expect("our child").is_none(), "{}", place.printed());
        std::fs::read(&ready)
            .map_err(|e| e.to_string())
            .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
    });
    assert_eq!(told["instruments"].as_array().map(Vec::len), Some(9), "{told}");
    let (addr, base) = web::split(told["trading_url"].as_str().expect("a URL"));
    assert_eq!(web::send(addr, "GET", &format!("{base}/health"), &[], b"").expect("an answer").status, 200);
    let keys = grid().arg("keygen").output().expect("grid starts");
    let keys: Value = serde_json::from_slice(&keys.stdout).expect("JSON");
    let operator = |args: &[&str]| -> Value {
        let binary = told["binary_addr"].as_str().expect("an address");
        let output = grid()
            .args(["operator", "--binary-addr", binary, "--data-dir"])
            .arg(place.data())
            .args(args)
            .output()
            .expect("grid starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(text.lines().next().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let public = keys["public_key"].as_str().expect("text");
    let account = operator(&["open-account", "from the outside", public])["created"].to_string();
    operator(&["deposit", &account, "12.5"]);
    use base64::Engine as _;
    let seed = base64::engine::general_purpose::STANDARD.decode(keys["private_key"].as_str().expect("text"));
    let seed: [u8; 32] = seed.expect("Base64").try_into().expect("32 bytes");
    let signer = web::Signer::new(told["trading_url"].as_str().expect("a URL"), seed);
    // The deposit was answered through another door than the one that is asked now, which reads a copy of the state.
    until("the deposit arrives", || {
        let balance = signer.get("/currency-trading-accounts");
        let total = crate::books::nanos(&balance[0]["total_balance"]);
        if total == 12_500_000_000 { Ok(()) } else { Err(balance.to_string()) }
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("a signal");
    let status = child.wait().expect("our child");
    assert!(status.success(), "{status}\n{}", place.printed());
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_place() {
    let place = Place::new();
    for (text, word) in [
        ("[listen]\nport_bse = 1\n", "port_bse"),
        ("[trading]\nmax_body_bytes = \"many\"\n", "max_body_bytes"),
        ("[[instrument]]\nsymbol = \"x\"\n", "instrument"),
        ("not toml at all", "venue.toml"),
    ] {
        let config = place.path().join("venue.toml");
        std::fs::write(&config, text).expect("a file");
        let output =
            grid().arg("serve").arg("--config").arg(&config).arg("--data-dir").arg(place.data()).output();
        let output = output.expect("grid starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(word) && !said.contains("panicked"),
            "{text}: {said}"
        );
    }
}

/// A small disk in memory, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn grow(&self, size: &str) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(grown.is_ok_and(|status| status.success()), "the disk grows");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Rests orders until the venue is gone; gives the labels of those that were acknowledged.
fn until_it_stops(client: &Client, instrument: u16) -> Vec<u128> {
    let mut acked = Vec::new();
    for first in (1_u128..).step_by(256) {
        let batch: Vec<_> = (first..first + 256)
            .map(|label| {
                let order = NewOrder {
                    instrument,
                    side: Side::Sell,
                    price: 900_000,
                    qty: 1,
                    label,
                    ..NewOrder::default()
                };
                (label, client.submit(order))
            })
            .collect();
        for (label, answer) in batch {
            match answer.wait() {
                Ok(_) => acked.push(label),
                Err(ClientError::Timeout { .. } | ClientError::Closed) => return acked,
                Err(error) => panic!("label {label}: {error}"),
            }
        }
    }
    unreachable!("the disk is finite")
}

#[test]
fn a_full_disk_stops_the_venue_with_a_clear_message_and_nothing_acknowledged_is_lost() {
    let place = Place::new();
    let disk_at = place.path().join("disk");
    let Some(disk) = SmallDisk::mount(&disk_at, "size=24m") else {
        println!("skipped: a small disk can't be mounted here (needs root)");
        return;
    };
    let data = disk_at.join("data");
    let options = Options { config: "[log]\nsegment_bytes = 1048576\n", ..Options::bare() };
    let begin = |place: &Place| Venue::start_in(place, &data, &options);
    let mut venue = begin(&place).unwrap_or_else(|printed| panic!("no venue:\n{printed}"));
    let instrument = venue.instrument("text-prime");
    let operator = venue.operator();
    let (id, account) = operator.open("fills the disk", AccountMode::Advanced, Usd::ZERO);
    stock(&operator, id, instrument, 1_000_000);
    drop(operator);
    let client =
        venue.client_with(&account, |config| config.call_timeout = std::time::Duration::from_secs(5));
    let acked = until_it_stops(&client, instrument);
    assert!(acked.len() > 1_000, "only {} orders fit", acked.len());
    let status = until("the venue stops by itself", || {
        if venue.has_ended() { Ok(venue.wait()) } else { Err(place.printed()) }
    });
    client.close();
    assert!(!status.success(), "a full disk is no success: {status}");
    let printed = place.printed();
    assert!(printed.contains("No space left") || printed.contains("disk"), "a clear message: {printed}");

    disk.grow("400m");
    let venue =
        begin(&place).unwrap_or_else(|printed| panic!("no venue after the disk has grown:\n{printed}"));
    let count = venue.signer(&account).get("/orders/count");
    assert!(
        count["count"].as_u64().is_some_and(|open| open >= acked.len() as u64),
        "{count}: {} were acknowledged",
        acked.len()
    );
    let (status, _) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}\n{}", place.printed());
    inspect(&data);
    let labels: std::collections::BTreeSet<u128> =
        journal(&data).iter().filter_map(|logged| logged.number("label: Label(")).collect();
    let missing: Vec<_> = acked.iter().filter(|label| !labels.contains(label)).collect();
    assert!(missing.is_empty(), "{} acknowledged orders are gone", missing.len());
}
