//! HTTP clients through leaders' deaths: signed orders and completions by way of a node that lives. They may wait; they
//! may not see an error.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grid_client::{Client, Config};
use grid_engine::command::{Command, Offer, SupplierProfile};
use grid_engine::{InstrumentId, KeyHash, Usd};
use grid_inference::VenueKey;
use grid_suppliers::{Faults, RunningSupplier, Supplier, SupplierConfig};
use grid_wire::{NewOrder, OrderFlags, Side, TimeInForce};
use serde_json::json;

use crate::checker::judge;
use crate::harness::{Cluster, until};
use crate::http::{self, Signer};
use crate::kills::in_reach;
use crate::load::{Account, Load, Operator};

/// The instrument of the completions; the load trades the other.
const INSTRUMENT: InstrumentId = InstrumentId(1);
pub(crate) const SYMBOL: &str = "text-standard";
const KILLS: usize = 3;

/// What the two clients have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    orders: AtomicU64,
    completions: AtomicU64,
    longest: std::sync::Mutex<Duration>,
}

impl Seen {
    fn took(&self, began: Instant) {
        let mut longest = self.longest.lock().expect("no panic holds it");
        *longest = (*longest).max(began.elapsed());
    }

    fn both(&self) -> (u64, u64) {
        (self.orders.load(Ordering::Acquire), self.completions.load(Ordering::Acquire))
    }
}

/// A simulated supplier that the venue knows, with Units of its own in a consumer's hands.
pub(crate) struct Supply {
    pub(crate) running: RunningSupplier,
    pub(crate) supplier: Account,
    pub(crate) consumer: Account,
    /// The consumer's.
    pub(crate) key: String,
}

pub(crate) fn supply(cluster: &Cluster) -> Supply {
    let running = Supplier::start(SupplierConfig {
        name: "simulated".into(),
        addr: (cluster.net.host(1), 0).into(),
        control_addr: (cluster.net.host(1), 0).into(),
        models: vec!["simulated-model".into()],
        ttft: Duration::from_millis(5),
        tokens_per_second: 400,
        api_key: Some("simulated-credential".into()),
        seed: 1,
        faults: Faults::default(),
    });
    let running = running.expect("a simulated supplier");
    let operator = Operator::of(cluster);
    let venue_key = VenueKey::new(cluster.seed("venue_key"));
    let supplier = operator.open("supplier", Usd::dollars(1));
    operator.stock(
        supplier,
        INSTRUMENT,
        SupplierProfile {
            name: "simulated".into(),
            base_url: running.url.clone(),
            sealed_credential: venue_key.seal(b"simulated-credential"),
            offers: vec![Offer { instrument: INSTRUMENT, model: "simulated-model".into() }],
            suspended: false,
        },
        10_000,
    );
    let consumer = operator.open("consumer", Usd::dollars(5_000));
    let key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let add = Command::AddConsumptionKey {
        hash: KeyHash::of(&key),
        prefix: key[..8].into(),
        name: "key".into(),
        expires_at: None,
    };
    operator.command(consumer.number, &add);
    operator.client.close();
    let trade = |account: Account, side, time_in_force, flags| {
        let client = Client::connect(Config::new(cluster.binary_addrs(), account.seed)).expect("a session");
        let order = NewOrder {
            instrument: INSTRUMENT.0,
            side,
            price: 80,
            qty: 1_000,
            time_in_force,
            flags,
            ..NewOrder::default()
        };
        client.call_blocking(order).expect("an order");
        client.close();
    };
    trade(supplier, Side::Sell, TimeInForce::Gtc, OrderFlags::none());
    trade(consumer, Side::Buy, TimeInForce::Ioc, OrderFlags::none().with(OrderFlags::TO_CONSUMPTION, true));
    Supply { running, supplier, consumer, key }
}

fn order(seen: &Seen, signer: &Signer, market: &str) {
    while !seen.stop.load(Ordering::Acquire) {
        let body =
            json!({ "market_id": market, "side": "buy", "type": "limit", "quantity": 1, "price": "0.010" });
        let began = Instant::now();
        let answer = signer.send("POST", "/orders", body.to_string().as_bytes()).expect("an answer");
        assert!((200..300).contains(&answer.status), "an order: {} {}", answer.status, answer.text());
        seen.took(began);
        seen.orders.fetch_add(1, Ordering::AcqRel);
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn complete(seen: &Seen, url: &str, key: &str) {
    for n in 0_u64.. {
        if seen.stop.load(Ordering::Acquire) {
            break;
        }
        let stream = n % 2 == 0;
        let body = json!({
            "model": SYMBOL, "stream": stream, "max_tokens": 30,
            "messages": [{ "role": "user", "content": grid_suppliers::filler(20) }],
            "metadata": { "simulate_completion_tokens": "8" },
        });
        let began = Instant::now();
        let answer = http::chat(url, key, &body).expect("an answer");
        let whole = answer.whole && (!stream || answer.events().1);
        assert!(answer.status == 200 && whole, "a completion: {} {}", answer.status, answer.text());
        seen.took(began);
        seen.completions.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits until so many more of both were served.
fn more(seen: &Seen, cluster: &Cluster, orders: u64, completions: u64) {
    let goal = seen.both();
    until("HTTP clients are served", || {
        let now = seen.both();
        let enough = now.0 >= goal.0 + orders && now.1 >= goal.1 + completions;
        if enough { Ok(()) } else { Err(format!("{now:?} after {goal:?}\n{}", cluster.all_printed())) }
    });
}

#[test]
fn http_clients_wait_through_a_leaders_death_and_see_no_error() {
    let mut cluster = Cluster::start(3);
    let Supply { running: _running, consumer, key, .. } = supply(&cluster);
    let load = Load::start(&cluster, 2);
    let door = 1;
    let ready = cluster.ready(door);
    let market =
        ready.instruments.iter().find(|instrument| instrument.symbol == SYMBOL).expect("it is listed");
    let signer = Signer::new(&ready.trading_url, consumer.seed);
    until("the node's replica knows the account", || {
        let answer =
            signer.send("GET", "/currency-trading-accounts", b"").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });
    let seen = Seen::default();
    std::thread::scope(|scope| {
        let clients = [
            scope.spawn(|| order(&seen, &signer, &market.market_id)),
            scope.spawn(|| complete(&seen, &ready.inference_url, &key)),
        ];
        more(&seen, &cluster, 10, 10);
        for _ in 0..KILLS {
            let mut leader = cluster.leader();
            if leader == door {
                cluster.operator(&["transfer"]).expect("another leads");
                leader = until("another leads", || match cluster.leader() {
                    leader if leader != door => Ok(leader),
                    _ => Err(cluster.all_printed()),
                });
            }
            cluster.kill(leader);
            more(&seen, &cluster, 5, 5);
            cluster.restart(leader);
            until("three nodes that hold the log", || in_reach(&cluster));
        }
        seen.stop.store(true, Ordering::Release);
        for client in clients {
            client.join().expect("a client that saw no error");
        }
    });
    let (orders, completions) = seen.both();
    let longest = *seen.longest.lock().expect("no panic holds it");
    println!(
        "{orders} orders and {completions} completions through {KILLS} leaders' deaths, none failed; the longest took {longest:?}"
    );
    let open = signer.get("/orders?status=open&limit=500");
    let mine = open.as_array().map_or(0, Vec::len) as u64;
    assert_eq!(mine, orders.min(500), "each order that was answered is open, and none twice");
    let clients = load.stop();
    let summary = judge(&mut cluster, &clients);
    assert!(summary["terms"].as_u64() > Some(KILLS as u64), "{summary}");
}
