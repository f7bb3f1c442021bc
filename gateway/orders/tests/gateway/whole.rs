//! The gateway with what stands around it in life: its next start, our client library, the real log and replica.

use std::net::TcpListener;
use std::time::Duration;

use grid_engine::{Command, Entry, SessionId};
use grid_orders::{Config, Gateway};
use grid_wire::{self as wire, Message, NewOrder, Side};

use crate::client::Client;
use crate::market_data::{Image, trade_randomly, truth};
use crate::venue::{self, Venue, key};
use crate::{execution, start, start_with};

#[test]
fn a_gateway_that_starts_again_serves_the_book_and_frees_the_sessions_of_before() {
    let venue = Venue::new();
    let gateway = start_with(&venue, Config::default());
    let mut trader = Client::login(gateway.address(), &key(2), 20);
    trade_randomly(&mut trader, 3, 300);
    venue.until(|state| state.sessions[&SessionId(20)].last_client_seq == 300);
    gateway.stop();
    while trader.try_next().is_some() {}
    assert!(venue.engine.read().unwrap().state().sessions[&SessionId(20)].connection.is_some());

    let gateway = start_with(&venue, Config::default());
    venue.until(|state| state.sessions[&SessionId(20)].connection.is_none());
    let mut reader = Client::login(gateway.address(), &key(3), 30);
    reader.send(|out| wire::MarketDataSubscribe { request_id: 1, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    image.hear(&reader.next());
    assert_eq!(image.levels, truth(&venue));
    let mut trader = Client::connect(gateway.address());
    trader.establish(&key(2), 20, 1_000, 1, None);
    assert_eq!(trader.acknowledged().last_client_seq, 300);
}

#[test]
fn our_own_client_library_gets_on_with_it() {
    let (_venue, gateway) = start(Config::default());
    let client =
        grid_client::Client::connect(grid_client::Config::new(vec![gateway.address()], [2; 32])).unwrap();
    assert_eq!(client.account(), 2);
    let pending: Vec<_> = (1..=2_000)
        .map(|price| client.submit(NewOrder { side: Side::Buy, price, qty: 1, ..NewOrder::default() }))
        .collect();
    for answer in pending {
        answer.wait().unwrap();
    }
    let mut events = client.events();
    client.subscribe(0, 0).unwrap();
    loop {
        if let Ok(grid_client::Event::Snapshot(..)) = events.blocking_recv() {
            break;
        }
    }
    client.close();
}

/// The log, its replica and the gateway, as a venue of one node runs them.
struct Node {
    handle: grid_sequencer::Handle<grid_engine::Engine>,
    replica: grid_replicator::Replica<grid_engine::Engine>,
    following: grid_replicator::ReplicaThread,
    gateway: Gateway,
}

impl Node {
    fn start(dir: &std::path::Path) -> Self {
        let journal = grid_sequencer::JournalConfig { segment_bytes: 1 << 20, ..Default::default() };
        let recovered = grid_sequencer::recover(dir, journal, grid_engine::Engine::new, |_| {}).unwrap();
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let config = grid_sequencer::Config::new(&["gateway", "replica"]);
        let mut handle = grid_sequencer::Sequencer::start(recovered, config).unwrap();
        let outputs = handle.take_output("replica").unwrap();
        let (replica, following) =
            grid_replicator::Replica::start(copy, position, outputs, Default::default()).unwrap();
        if position.seq.0 == 0 {
            let operator_key = venue::operator_key().verifying_key().to_bytes();
            handle.submitter().try_submit(Entry::venue(Command::Genesis { operator_key })).unwrap();
            replica.wait_for_blocking(grid_engine::Seq(1), Duration::from_secs(60)).unwrap();
        }
        let line = grid_orders::LogLine::new(
            handle.submitter(),
            handle.take_output("gateway").unwrap(),
            handle.leadership(),
            || None,
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = Gateway::start(listener, Config::default(), line, replica.clone()).unwrap();
        Self { handle, replica, following, gateway }
    }

    fn stop(self) {
        self.gateway.stop();
        self.handle.shutdown();
        self.following.join();
    }
}

#[test]
fn the_real_log_and_replica_stand_behind_the_same_door() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let operator =
        grid_client::Client::connect(grid_client::Config::new(vec![node.gateway.address()], [1; 32]))
            .unwrap();
    let ask = |account: u32, command: Command| {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        operator.call_blocking(grid_client::Request::Directory { account, payload }).unwrap();
    };
    ask(1, Command::DefineInstrument(Box::new(venue::spec("text-prime"))));
    let mode = grid_engine::command::AccountMode::Advanced;
    ask(1, Command::OpenAccount { name: "trader".to_owned(), mode, capabilities: Default::default() });
    let public_key = key(2).verifying_key().to_bytes();
    ask(2, Command::AddSigningKey { public_key, label: "trading".to_owned() });
    // At once: whoever was told of the key may use it.
    let mut trader = Client::login(node.gateway.address(), &key(2), 77);
    ask(2, Command::Deposit { amount: grid_engine::Usd::dollars(1_000) });
    let mut bytes = Vec::new();
    for client_seq in 1..=10_000 {
        NewOrder { client_seq, side: Side::Buy, price: 1, qty: 1, ..NewOrder::default() }.encode(&mut bytes);
    }
    trader.send_bytes(&bytes);
    for client_seq in 1..=10_000 {
        assert_eq!(execution(trader.next()).client_seq, client_seq);
    }
    drop(operator);
    let hash = |node: &Node| node.replica.read(|engine| (engine.state().seq, engine.state_hash()));
    node.stop();

    let node = Node::start(dir.path());
    let mut trader = Client::connect(node.gateway.address());
    trader.establish(&key(2), 77, 1_000, 9_001, None);
    let ack = trader.acknowledged();
    assert_eq!((ack.last_client_seq, ack.next_seq), (10_000, 10_001));
    trader.send(|out| wire::RetransmitRequest { from: 9_001, count: 1_000 }.encode(out));
    assert!(matches!(trader.next(), Message::Retransmission(_)));
    for seq in 9_001..=10_000 {
        let report = execution(trader.next());
        assert_eq!((report.session_seq, report.client_seq), (seq, seq));
    }
    trader.send(|out| wire::MarketDataSubscribe { request_id: 1, instrument: 0, depth: 10 }.encode(out));
    let Message::BookSnapshot(_, levels) = trader.next() else { panic!("no snapshot") };
    let levels: Vec<_> = levels.iter().map(|level| (level.price, level.qty, level.orders)).collect();
    assert_eq!(levels, [(1, 10_000, 10_000)]);
    assert!(hash(&node).0.0 > 10_000);
    node.stop();
}

#[test]
fn a_hundred_thousand_orders_from_four_connections_arrive_once_each() {
    const EACH: u64 = 25_000;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let address = node.gateway.address();
    let operator = grid_client::Client::connect(grid_client::Config::new(vec![address], [1; 32])).unwrap();
    let mut payload = Vec::new();
    Command::DefineInstrument(Box::new(venue::spec("text-prime"))).encode(&mut payload);
    operator.call_blocking(grid_client::Request::Directory { account: 1, payload }).unwrap();
    let mut payload = Vec::new();
    Command::Deposit { amount: grid_engine::Usd::dollars(1_000_000) }.encode(&mut payload);
    operator.call_blocking(grid_client::Request::Directory { account: 1, payload }).unwrap();
    let clients: Vec<_> = (0..4_u128)
        .map(|index| {
            std::thread::spawn(move || {
                let mut client = Client::login(address, &venue::operator_key(), 50 + index);
                let mut bytes = Vec::new();
                for client_seq in 1..=EACH {
                    let price = 1 + client_seq % 50;
                    NewOrder { client_seq, side: Side::Buy, price, qty: 1, ..NewOrder::default() }
                        .encode(&mut bytes);
                }
                client.send_bytes(&bytes);
                for client_seq in 1..=EACH {
                    let report = execution(client.next());
                    assert_eq!((report.client_seq, report.session_seq), (client_seq, client_seq));
                    assert_eq!(report.exec_type, wire::ExecType::New);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    node.gateway.stop();
    let stopped = node.handle.shutdown();
    node.following.join();
    assert_eq!(stopped.machine.state().books.len() as u64, 4 * EACH);
    stopped.machine.check_invariants().unwrap();
}
