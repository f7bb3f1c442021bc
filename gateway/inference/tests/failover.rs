//! Calls over a venue of several nodes whose leader changes between and within their reservations and settlements: no call
//! hears of it, and each is set aside and billed exactly once.

// The nodes, with a real gateway each, are those of the gateway's own tests.
#[path = "../../orders/tests/gateway/cluster.rs"]
mod cluster;
#[path = "../../orders/tests/gateway/venue.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod venue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::Cluster;
use grid_client::{Client, Config};
use grid_engine::command::{Command, Surface, TransferDirection, Usage};
use grid_engine::{AccountId, InstrumentId, KeyId, Nanos, Qty, Tokens};
use grid_inference::{Door, Ended, Wanted};

const CONSUMER: AccountId = AccountId(2);
const TEXT: InstrumentId = InstrumentId(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_call_is_billed_once_whoever_leads() {
    // At least, and until the leader has changed that often.
    const CALLS: u64 = 30;
    const CHANGES: usize = 10;
    let cluster = Arc::new(Cluster::new(3, &grid_orders::Config::default()));
    cluster.elect(0);
    let config = Config::new(cluster.addresses(), [1; 32]);
    let connect = tokio::task::spawn_blocking(move || Client::connect(config));
    let client = connect.await.expect("joined").expect("a session");
    let mut payload = Vec::new();
    Command::Transfer { instrument: TEXT, qty: Qty(1_000), direction: TransferDirection::ToConsumption }
        .encode(&mut payload);
    let account = CONSUMER.0;
    client.call(grid_client::Request::Directory { account, payload }).await.expect("Units to consume");

    let done = Arc::new(AtomicBool::new(false));
    let changes = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        std::thread::spawn(move || cluster.shuffle(9, &done))
    };
    let callers: Vec<_> = (0..4_u64)
        .map(|caller| {
            let (client, cluster) = (client.clone(), Arc::clone(&cluster));
            tokio::spawn(async move {
                let mut calls = 0;
                while calls < CALLS || cluster.changes.load(Ordering::SeqCst) < CHANGES {
                    let request = u128::from(caller) << 64 | u128::from(calls);
                    let life = Nanos(600_000_000_000);
                    let reserved = client.reserve(Wanted {
                        account: CONSUMER,
                        key: KeyId::NONE,
                        instrument: TEXT,
                        tokens: Tokens(100),
                        request,
                        surface: Surface::ChatCompletions,
                        valid_for: life,
                    });
                    let reserved = reserved.await;
                    let reservation = reserved.expect("no error").reservation;
                    calls += 1;
                    if calls % 5 == 0 {
                        let given_back = client.release(CONSUMER, reservation, AccountId::VENUE).await;
                        assert!(matches!(given_back, Ok(Ended::Now(_))), "{given_back:?}");
                        continue;
                    }
                    let usage = Usage {
                        supplier: CONSUMER,
                        prompt_tokens: Tokens(3),
                        completion_tokens: Tokens(7),
                        ..Usage::default()
                    };
                    let settled = client.settle(CONSUMER, reservation, usage).await.expect("no error");
                    assert!(matches!(settled, Ended::Now(_)), "a repeat finds its answer: {settled:?}");
                }
                calls - calls / 5
            })
        })
        .collect();
    let mut settled = 0;
    for caller in callers {
        settled += caller.await.expect("no caller failed");
    }
    done.store(true, Ordering::SeqCst);
    tokio::task::spawn_blocking(move || changes.join()).await.expect("joined").expect("changes of leaders");
    // The last leader's clients are the only ones left; the state is everybody's.
    cluster::wait(|| cluster.hash(0) == cluster.hash(1) && cluster.hash(1) == cluster.hash(2));
    let engine = cluster.nodes[1].engine.read().expect("a state");
    assert!(engine.state().reservations.is_empty());
    let left = engine.state().holding(CONSUMER, TEXT).unwrap().free_tokens();
    assert_eq!(left, Tokens(1_000 * 1_000_000 - 10 * settled), "ten tokens for each call that was settled");
    engine.check_invariants().expect("every command keeps the invariants");
}
