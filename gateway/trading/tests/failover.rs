//! The HTTP API over a venue of several nodes whose leader changes in the middle of everything: whoever uses it sees no
//! error, and reads what was answered to him, from a node that may lead or not.

mod support;

// The nodes, with a real gateway each, are those of the gateway's own tests.
#[path = "../../orders/tests/gateway/cluster.rs"]
mod cluster;
#[path = "../../orders/tests/gateway/venue.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod venue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{Cluster, Node};
use grid_client::Client;
use grid_engine::{AccountId, Engine, InstrumentId, Seq};
use grid_trading::history::{Applied, Resumption};
use grid_trading::{App, ClientDoor, History, Limits, Pending, View, ids, serve};
use serde_json::json;
use support::{User, signed_at};
use tokio::sync::watch;

/// One node's state as the tier's view.
struct Seen {
    node: Arc<Node>,
    applied: watch::Receiver<u64>,
}

impl View for Seen {
    fn promised(&self, _: AccountId) -> Pending<'_, Seq> {
        Box::pin(std::future::ready(Seq(0)))
    }

    fn read(&self, reader: &mut dyn FnMut(&Engine)) {
        reader(&self.node.engine.read().expect("nobody panics with it"));
    }

    fn applied(&self) -> Seq {
        Seq(*self.applied.borrow())
    }

    fn wait_for(&self, seq: Seq) -> Pending<'_, ()> {
        let mut applied = self.applied.clone();
        Box::pin(async move {
            let _ = applied.wait_for(|at| *at >= seq.0).await;
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_told_of_a_change_of_leaders_by_an_error() {
    // At least, and until the leader has changed that often.
    const ORDERS: usize = 20;
    const CHANGES: usize = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = Arc::new(Cluster::new(3, &grid_orders::Config::default()));
    // The tier is the last node's.
    let node = Arc::clone(&cluster.nodes[2]);
    let (history, feed, _writer) = History::open(&directory.path().join("history.db")).expect("a store");
    feed.resume(Resumption::at(&node.engine.read().expect("a state"))).expect("the writer lives");
    let (tell, applied) = watch::channel(grid_orders::View::applied(&*node).0);
    node.listen(Box::new(move |seq, at, events| {
        feed.push(vec![Applied { seq, at, events }]).expect("the writer lives");
        tell.send_replace(seq.0);
    }));
    cluster.elect(0);
    let config = grid_client::Config::new(cluster.addresses(), [1; 32]);
    let connect = tokio::task::spawn_blocking(move || Client::connect(config));
    let client = connect.await.expect("joined").expect("a session");
    let app = App::new(
        Arc::new(ClientDoor::new(client)),
        Arc::new(Seen { node, applied }),
        history,
        Limits::default(),
    );
    let tier = serve("127.0.0.1:0".parse().expect("an address"), app).await.expect("a free port");

    let done = Arc::new(AtomicBool::new(false));
    let changes = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        std::thread::spawn(move || cluster.shuffle(5, &done))
    };
    let (addr, market) = (tier.addr, ids::market(InstrumentId(0)));
    let users: Vec<_> = (2..=4_u8)
        .map(|account| {
            let (market, cluster) = (market.clone(), Arc::clone(&cluster));
            let user = User { account: AccountId(account.into()), key: venue::key(account) };
            tokio::spawn(async move {
                let mut number = 0;
                while number < ORDERS || number % 2 == 1 || cluster.changes.load(Ordering::SeqCst) < CHANGES {
                    let body = json!({
                        "market_id": market, "side": "buy", "type": "limit", "quantity": 1, "price": "0.50",
                        "client_order_id": format!("{account}-{number}"),
                    });
                    let placed = signed_at(addr, &user, "POST", "/v1/orders", &body.to_string()).await;
                    assert_eq!(placed.status, 201, "{}", placed.body);
                    let id = placed.json()["data"]["order_id"].as_str().expect("an id").to_owned();
                    let path = format!("/v1/orders/{id}");
                    let read = signed_at(addr, &user, "GET", &path, "").await;
                    assert_eq!((read.status, &read.json()["data"]["status"]), (200, &json!("active")));
                    if number % 2 == 0 {
                        let gone = signed_at(addr, &user, "DELETE", &path, "").await;
                        assert_eq!(gone.status, 200, "{}", gone.body);
                    }
                    number += 1;
                }
                let open = signed_at(addr, &user, "GET", "/v1/orders/count", "").await;
                assert_eq!(open.json()["data"]["count"], json!(number / 2), "each order once");
            })
        })
        .collect();
    let all = async {
        for user in users {
            user.await.expect("no error for anybody");
        }
    };
    let finished = tokio::time::timeout(Duration::from_secs(120), all).await;
    done.store(true, Ordering::SeqCst);
    finished.expect("in time");
    tokio::task::spawn_blocking(move || changes.join()).await.expect("joined").expect("changes of leaders");
    tier.shutdown().await;
}
