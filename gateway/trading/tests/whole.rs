//! The whole path, nothing replaced: HTTP → binary door → log on disk → engine → replica and history → HTTP.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use grid_client::Client;
use grid_engine::command::{AccountMode, Capabilities, Command, SupplierProfile};
use grid_engine::instrument::InstrumentStatus;
use grid_engine::{AccountId, Engine, Entry, InstrumentId, Qty, Seq, Usd};
use grid_orders::{Gateway, LogLine};
use grid_replicator::{Replica, ReplicaConfig, ReplicaThread};
use grid_sequencer::{Handle, JournalConfig, Sequencer};
use grid_trading::history::Gap;
use grid_trading::ids;
use grid_trading::{
    App, ClientDoor, Door, Follower, History, Limits, Outcome, ReplicaView, RunningTier, follow, serve,
};
use serde_json::{Value, json};
use support::{OPERATOR, Response, User, signed_at, spec};

const OPERATOR_SEED: [u8; 32] = [9; 32];

struct Node {
    log: Handle<Engine>,
    replica: Replica<Engine>,
    following: ReplicaThread,
    gateway: Gateway,
    client: Client,
    history: History,
    follower: Follower,
    tier: RunningTier,
}

impl Node {
    async fn start(directory: &Path) -> Self {
        let data = directory.join("log");
        let journal = JournalConfig { segment_bytes: 1 << 20, ..JournalConfig::default() };
        let recovered = grid_sequencer::recover(&data, journal, Engine::new, |_| {}).expect("a log");
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let config = grid_sequencer::Config::new(&["orders", "replica"]);
        let mut log = Sequencer::start(recovered, config).expect("a sequencer");
        let outputs = log.take_output("replica").expect("configured");
        let (replica, following) =
            Replica::start(copy, position, outputs, ReplicaConfig::default()).expect("a replica");
        let (history, follower) = follow(&directory.join("history.db"), &replica, &data).expect("a history");
        if position.seq == Seq(0) {
            let operator_key = *SigningKey::from_bytes(&OPERATOR_SEED).verifying_key().as_bytes();
            log.submitter().try_submit(Entry::venue(Command::Genesis { operator_key })).expect("room");
            replica.wait_for(Seq(1)).await.expect("applied");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let line = LogLine::new(
            log.submitter(),
            log.take_output("orders").expect("configured"),
            log.leadership(),
            || None,
        );
        let gateway = Gateway::start(listener, grid_orders::Config::default(), line, replica.clone())
            .expect("a gateway");
        let config = grid_client::Config::new(vec![gateway.address()], OPERATOR_SEED);
        let connect = tokio::task::spawn_blocking(move || Client::connect(config));
        let client = connect.await.expect("joined").expect("a session");
        let door = Arc::new(ClientDoor::new(client.clone()));
        let view = Arc::new(ReplicaView::new(Arc::new(replica.clone())));
        let metrics = log.metrics();
        let app = App::new(door, view, history.clone(), Limits::default())
            .with_metrics(Arc::new(move || metrics.text()));
        let tier = serve("127.0.0.1:0".parse().expect("an address"), app).await.expect("a free port");
        Self { log, replica, following, gateway, client, history, follower, tier }
    }

    async fn run(&self, account: AccountId, command: Command) -> u64 {
        let answer = ClientDoor::new(self.client.clone()).submit(account, command).await.expect("an answer");
        match answer.outcome {
            Outcome::Done { created } => created,
            other => panic!("done, not {other:?}"),
        }
    }

    async fn user(&self, name: &str, seed: u8) -> User {
        let (mode, capabilities) = (AccountMode::Advanced, Capabilities::default());
        let open = Command::OpenAccount { name: name.into(), mode, capabilities };
        let account = AccountId(self.run(OPERATOR, open).await as u32);
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public_key = *key.verifying_key().as_bytes();
        self.run(account, Command::AddSigningKey { public_key, label: name.into() }).await;
        User { account, key }
    }

    /// Ends everything in order; the last log position.
    async fn stop(self) -> Seq {
        let applied = self.replica.applied();
        self.tier.shutdown().await;
        let (client, gateway, log, following, follower) =
            (self.client, self.gateway, self.log, self.following, self.follower);
        let end = tokio::task::spawn_blocking(move || {
            client.close();
            gateway.stop();
            log.shutdown();
            following.join();
            follower.join()
        });
        end.await.expect("joined").expect("the history followed to the end");
        applied.max(self.history.applied())
    }
}

async fn ask(addr: SocketAddr, user: &User, method: &str, target: &str, body: Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    signed_at(addr, user, method, target, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_where_the_time_of_commands_went() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::start(directory.path()).await;
    let user = node.user("trader", 1).await;
    let answer = ask(node.tier.addr, &user, "GET", "/metrics", Value::Null).await;
    assert_eq!(answer.status, 200);
    let value = |name: &str| -> f64 {
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {}", answer.body))
    };
    assert!(value("grid_applied_seq") >= 3.0);
    for leg in ["close", "durable", "commit", "match", "report", "whole"] {
        assert!(value(&format!("grid_stage_seconds_count{{leg=\"{leg}\"}}")) >= 1.0, "{leg} was measured");
    }
    assert!(value("grid_stage_stalls_total{stage=\"journal\"}") >= 0.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_goes_through_the_real_door_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::start(directory.path()).await;
    node.run(
        OPERATOR,
        Command::DefineInstrument(Box::new(spec("text-prime", "Text Prime", InstrumentStatus::Live))),
    )
    .await;
    let (trader, supplier) = (node.user("trader", 1).await, node.user("supplier", 2).await);
    node.run(trader.account, Command::Deposit { amount: Usd::dollars(100) }).await;
    let profile = SupplierProfile { name: "Acme".into(), ..SupplierProfile::default() };
    node.run(supplier.account, Command::RegisterSupplier(Box::new(profile))).await;
    let instrument = InstrumentId(0);
    node.run(supplier.account, Command::SetCapacity { instrument, capacity: Qty(1_000) }).await;

    let addr = node.tier.addr;
    let (market, id) = (ids::market(instrument), ids::instrument(instrument));
    let units = |quantity: u64| json!({ "instrument_id": id, "quantity": quantity });
    assert_eq!(ask(addr, &supplier, "POST", "/v1/supply-issuances", units(100)).await.status, 201);
    assert_eq!(ask(addr, &supplier, "POST", "/v1/issuance-accounts/transfer", units(100)).await.status, 202);
    let order = |side: &str, quantity: u64, price: &str, extra: Value| {
        let mut body = json!({ "market_id": market, "side": side, "type": "limit", "quantity": quantity, "price": price });
        for (name, value) in extra.as_object().expect("members") {
            body[name] = value.clone();
        }
        body
    };
    let place = |user: &User, body: Value| {
        let user = user.clone();
        async move {
            let answer = ask(addr, &user, "POST", "/v1/orders", body).await;
            assert_eq!(answer.status, 201, "{}", answer.body);
            answer.json()["data"].clone()
        }
    };
    let ask_resting =
        place(&supplier, order("sell", 10, "0.81", json!({ "client_order_id": "ask-1" }))).await;
    assert_eq!(
        (&ask_resting["status"], &ask_resting["client_order_id"]),
        (&json!("active"), &json!("ask-1"))
    );
    let again = place(&supplier, order("sell", 10, "0.81", json!({ "client_order_id": "ask-1" }))).await;
    assert_eq!(again, ask_resting, "a repeat is the same order");
    let other = ask(
        addr,
        &supplier,
        "POST",
        "/v1/orders",
        order("sell", 11, "0.81", json!({ "client_order_id": "ask-1" })),
    )
    .await;
    assert_eq!(other.error(), (422, "duplicate_client_order_id".into()));
    let foreign = place(&supplier, order("sell", 1, "0.99", json!({ "client_order_id": "заявка-№1" }))).await;
    assert_eq!(foreign["client_order_id"], "заявка-№1", "beyond what the order message's text holds");
    let bought = place(&trader, order("buy", 4, "0.85", json!({}))).await;
    assert_eq!((&bought["status"], &bought["average_price"]), (&json!("filled"), &json!("0.81")));
    let market_order = place(
        &trader,
        order("buy", 2, "0", json!({ "type": "market", "max_slippage": "1", "time_in_force": "fok" })),
    )
    .await;
    assert_eq!((&market_order["status"], &market_order["type"]), (&json!("filled"), &json!("market")));
    let post_only =
        ask(addr, &trader, "POST", "/v1/orders", order("buy", 1, "0.81", json!({ "post_only": true }))).await;
    assert_eq!(post_only.error(), (422, "post_only_would_trade".into()));
    let direct = place(
        &trader,
        order("buy", 1, "0.81", json!({ "auto_transfer": true, "self_trade_prevention": "cancel_newest" })),
    )
    .await;
    assert_eq!(direct["status"], "filled");
    let resting = place(&trader, order("buy", 3, "0.50", json!({ "time_in_force": "day" }))).await;
    let path = format!("/v1/orders/{}", resting["order_id"].as_str().expect("an id"));
    let changed = ask(addr, &trader, "PUT", &path, json!({ "price": "0.51", "quantity": 2 })).await.json();
    assert_eq!((&changed["data"]["price"], &changed["data"]["quantity"]), (&json!("0.51"), &json!("2")));
    assert_eq!(ask(addr, &trader, "DELETE", &path, Value::Null).await.json()["data"]["status"], "cancelled");
    assert_eq!(ask(addr, &trader, "DELETE", &path, Value::Null).await.status, 409);
    place(&trader, order("buy", 3, "0.50", json!({}))).await;
    let all = ask(addr, &trader, "DELETE", "/v1/orders", Value::Null).await.json();
    assert_eq!(all, json!({ "data": { "cancelled": 1 } }));
    assert_eq!(
        ask(addr, &trader, "POST", "/v1/transfers/trading-to-consumption", units(3)).await.status,
        200
    );
    assert_eq!(
        ask(addr, &trader, "POST", "/v1/transfers/trading-to-consumption", units(99)).await.status,
        400
    );
    let key = ask(addr, &trader, "POST", "/v1/api-keys", json!({ "api_key": { "name": "laptop" } })).await;
    assert_eq!(key.status, 201);
    assert_eq!(
        ask(addr, &trader, "POST", "/v1/self/system-settings/account-mode", json!({ "mode": "easy" }))
            .await
            .status,
        204
    );
    let gated = ask(addr, &trader, "POST", "/v1/orders", order("buy", 1, "0.50", json!({}))).await;
    assert_eq!(gated.error(), (403, "auto_mode_trading_restricted".into()));

    let seen = reads(addr, &trader, &supplier).await;
    let last = node.stop().await;

    // As it was.
    let node = Node::start(directory.path()).await;
    assert_eq!(reads(node.tier.addr, &trader, &supplier).await, seen);
    node.stop().await;

    // Without its history: read again from the journal, to the same rows.
    for file in ["history.db", "history.db-wal", "history.db-shm"] {
        let _ = std::fs::remove_file(directory.path().join(file));
    }
    let node = Node::start(directory.path()).await;
    let rebuilt = tokio::time::timeout(Duration::from_secs(60), node.history.wait_for(last)).await;
    rebuilt.expect("in time").expect("the journal holds it all");
    assert_eq!(reads(node.tier.addr, &trader, &supplier).await, seen);
    node.stop().await;
}

/// A log whose deposits to the operator are its only commands, for histories of it.
struct Deposits {
    log: Handle<Engine>,
    replica: Replica<Engine>,
    following: ReplicaThread,
}

impl Deposits {
    fn start(data: &Path) -> Self {
        let journal = JournalConfig { segment_bytes: 96 << 10, ..JournalConfig::default() };
        let recovered = grid_sequencer::recover(data, journal, Engine::new, |_| {}).expect("a log");
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let config =
            ReplicaConfig { snapshots: Some((recovered.snapshots(), 300)), ..ReplicaConfig::default() };
        let mut log =
            Sequencer::start(recovered, grid_sequencer::Config::new(&["replica"])).expect("a sequencer");
        let outputs = log.take_output("replica").expect("configured");
        let (replica, following) = Replica::start(copy, position, outputs, config).expect("a replica");
        let node = Self { log, replica, following };
        if position.seq == Seq(0) {
            let public_key = *SigningKey::from_bytes(&OPERATOR_SEED).verifying_key().as_bytes();
            node.commit(Entry::venue(Command::Genesis { operator_key: public_key }));
            let key = grid_engine::Fingerprint::of(&public_key);
            node.commit(Entry::venue(Command::OpenSession { session: grid_engine::SessionId(7), key }));
        }
        node
    }

    fn commit(&self, entry: Entry) {
        let next = self.replica.applied().next();
        self.log.submitter().try_submit(entry).expect("room");
        self.replica.wait_for_blocking(next, Duration::from_secs(60)).expect("applied");
    }

    fn deposit(&self, count: u64) {
        let session = grid_engine::SessionId(7);
        for _ in 0..count {
            let last = self.replica.read(|engine| engine.state().sessions[&session].last_client_seq);
            let command = Command::Deposit { amount: Usd::dollars(1) };
            self.commit(Entry { session, client_seq: last + 1, account: OPERATOR, command });
        }
    }

    fn stop(self) {
        self.log.shutdown();
        self.following.join();
    }
}

/// A log of 22 commands, all of them in a history.
fn told(data: &Path, store: &Path) {
    let node = Deposits::start(data);
    let (_, follower) = follow(store, &node.replica, data).expect("a history");
    node.deposit(20);
    node.stop();
    follower.join().expect("followed to the end");
}

/// Follows the log again while some more commands come; there must be one gap, and nothing missing before or after it.
fn goes_on_with_a_gap(data: &Path, store: &Path) -> Gap {
    let node = Deposits::start(data);
    let (history, follower) = follow(store, &node.replica, data).expect("a history, with a gap");
    node.deposit(10);
    let last = node.replica.applied();
    node.stop();
    follower.join().expect("followed to the end");
    assert_eq!(history.applied(), last);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (gaps, funding) = runtime.block_on(async { (history.gaps().await, history.funding(OPERATOR).await) });
    let (gaps, funding) = (gaps.expect("a read"), funding.expect("a read"));
    let [gap] = gaps[..] else { panic!("one gap, not {gaps:?}") };
    // Genesis, the session and 20 deposits; then everything from some snapshot on.
    assert_eq!(gap.after, Seq(22));
    assert_eq!(funding.len() as u64, 20 + last.0 - gap.until.0, "before and after it nothing is missing");
    gap
}

#[test]
fn a_history_goes_on_where_the_journal_no_longer_reaches_back_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, store) = (directory.path().join("log"), directory.path().join("history.db"));
    told(&data, &store);
    let node = Deposits::start(&data);
    node.deposit(1_500);
    node.stop();
    let mut segments = files(&data.join("journal"));
    segments.sort();
    assert!(segments.len() >= 3, "{segments:?}");
    std::fs::remove_file(&segments[0]).expect("removed");
    let gap = goes_on_with_a_gap(&data, &store);
    assert!(gap.until.0 >= 300 && gap.until < Seq(1_522), "from the oldest snapshot that is of use: {gap:?}");
}

#[test]
fn a_snapshot_behind_which_the_journal_cannot_be_read_makes_no_gap_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, store) = (directory.path().join("log"), directory.path().join("history.db"));
    told(&data, &store);
    let snapshots = grid_sequencer::SnapshotStore::new(grid_sequencer::snapshot_dir(&data));
    let kept = || -> Vec<Seq> {
        let paths = snapshots.list().expect("listed");
        let mut kept: Vec<Seq> =
            paths.iter().filter_map(|path| Some(snapshots.read_meta(path).ok()?.0.position.seq)).collect();
        kept.sort_unstable();
        kept
    };
    let segments = || {
        let mut segments = files(&data.join("journal"));
        segments.sort();
        segments
    };
    let node = Deposits::start(&data);
    let at_first = segments().len();
    while segments().len() < at_first + 2 {
        node.deposit(1);
    }
    let rolled = node.replica.applied();
    while kept().last().is_none_or(|newest| *newest <= rolled) {
        node.deposit(1);
    }
    let last = node.replica.applied();
    node.stop();
    let (oldest, newest) = (kept()[0], kept()[kept().len() - 1]);
    let reads_on = |from| {
        let sink = |_: Seq, _: grid_engine::Nanos, _: &[grid_engine::Event]| {};
        grid_sequencer::replay_events::<Engine>(&data, from, last, Engine::new, sink).is_ok()
    };
    // All of the journal goes that the newest snapshot does not need.
    for segment in segments() {
        let aside = directory.path().join("aside");
        std::fs::rename(&segment, &aside).expect("moved");
        if !reads_on(newest) {
            std::fs::rename(&aside, &segment).expect("moved back");
            break;
        }
    }
    let of_use = kept().into_iter().find(|snapshot| reads_on(*snapshot)).expect("the newest at least");
    assert!(oldest < of_use, "{:?} of {last:?}, rolled at {rolled:?}", kept());
    assert!(goes_on_with_a_gap(&data, &store).until >= of_use);
}

#[test]
fn a_history_goes_on_where_its_node_was_brought_up_from_another_s_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let [leader, lagging] = ["leader", "lagging"].map(|name| directory.path().join(name));
    let store = directory.path().join("history.db");
    told(&lagging, &store);
    for part in ["journal", "snapshots"] {
        std::fs::create_dir_all(leader.join(part)).expect("a directory");
        for file in files(&lagging.join(part)) {
            std::fs::copy(&file, leader.join(part).join(file.file_name().expect("named"))).expect("copied");
        }
    }
    let node = Deposits::start(&leader);
    node.deposit(400);
    node.stop();
    let open = |data: &Path| {
        let journal = JournalConfig { segment_bytes: 96 << 10, ..JournalConfig::default() };
        grid_sequencer::recover(data, journal, Engine::new, |_| {}).expect("a log")
    };
    let sent = open(&leader).snapshots().list().expect("listed").remove(0);
    let mut receiver = open(&lagging).snapshots().receive().expect("it begins");
    receiver.write(&std::fs::read(sent).expect("a snapshot")).expect("written");
    let until = receiver.finish().expect("whole").position.seq;
    assert_eq!(goes_on_with_a_gap(&lagging, &store).until, until);
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Everything that both users can read and that time does not change.
async fn reads(addr: SocketAddr, trader: &User, supplier: &User) -> Vec<Value> {
    let mut seen = Vec::new();
    for user in [trader, supplier] {
        for path in [
            "/v1/orders?limit=500",
            "/v1/trades",
            "/v1/trading-accounts",
            "/v1/consumption-accounts",
            "/v1/transfer-histories",
            "/v1/supply-issuances",
            "/v1/positions",
            "/v1/markets",
            "/v1/api-keys",
            "/v1/me",
        ] {
            let answer = ask(addr, user, "GET", path, Value::Null).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            seen.push(answer.json());
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_another_log_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::start(directory.path()).await;
    node.user("someone", 1).await;
    node.stop().await;
    std::fs::remove_dir_all(directory.path().join("log")).expect("the log is gone");
    let recovered =
        grid_sequencer::recover(&directory.path().join("log"), JournalConfig::default(), Engine::new, |_| {})
            .expect("a new log");
    let (copy, position) = (recovered.copy_machine(), recovered.position);
    let mut log =
        Sequencer::start(recovered, grid_sequencer::Config::new(&["replica"])).expect("a sequencer");
    let outputs = log.take_output("replica").expect("configured");
    let (replica, following) =
        Replica::start(copy, position, outputs, ReplicaConfig::default()).expect("a replica");
    let refused = follow(&directory.path().join("history.db"), &replica, &directory.path().join("log"));
    let text = refused.err().expect("the history knows more than the log").to_string();
    assert!(text.contains("belongs to another log"), "{text}");
    tokio::task::spawn_blocking(move || {
        log.shutdown();
        following.join();
    })
    .await
    .expect("joined");
}
