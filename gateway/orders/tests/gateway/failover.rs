//! What clients see when another node leads: where they are sent, what they are told, and that nothing of it depends on
//! which node tells them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid_engine::{AccountId, Command, Entry, SessionId};
use grid_orders::Config;
use grid_wire::{self as wire, Message, NewOrder, Side, TerminateCode};

use crate::client::Client;
use crate::cluster::{Cluster, wait};
use crate::execution;
use crate::quotes;
use crate::venue::key;

/// A session taken up on this node, as soon as it leads.
pub(crate) fn establish(
    cluster: &Cluster,
    node: usize,
    account: u8,
    session: u128,
    next: u64,
    grace_ms: Option<u32>,
) -> (Client, wire::EstablishmentAck) {
    let mut found = None;
    wait(|| {
        let mut client = Client::connect(cluster.address(node));
        client.establish(&key(account), session, 60_000, next, grace_ms);
        match client.next() {
            Message::EstablishmentAck(ack) => {
                client.client_seq = ack.last_client_seq;
                found = Some((client, ack));
                true
            }
            Message::EstablishmentReject(m) => {
                assert_eq!(m.code, wire::EstablishmentCode::NotLeader);
                false
            }
            other => panic!("{other:?}"),
        }
    });
    found.expect("an acknowledgement")
}

/// The same for a session that is new.
pub(crate) fn login(
    cluster: &Cluster,
    node: usize,
    account: u8,
    session: u128,
    grace_ms: Option<u32>,
) -> Client {
    wait(|| {
        let mut client = Client::connect(cluster.address(node));
        client.negotiate(&key(account), session);
        matches!(client.next(), Message::NegotiationResponse(_))
    });
    establish(cluster, node, account, session, 1, grace_ms).0
}

/// The frames of a session's reports `1..count + 1`, as this node sends them again.
pub(crate) fn retransmitted(client: &mut Client, count: u32) -> Vec<Vec<u8>> {
    client.send(|out| wire::RetransmitRequest { from: 1, count }.encode(out));
    assert!(matches!(client.next(), Message::Retransmission(_)));
    (0..count).map(|_| client.try_frame().expect("a report")).collect()
}

fn lost(cluster: &Cluster) -> BTreeMap<u128, usize> {
    let mut found = BTreeMap::new();
    for entry in cluster.committed() {
        if let Command::SessionLost { session, .. } = entry.command {
            *found.entry(session.0).or_default() += 1;
        }
    }
    found
}

#[test]
fn a_node_that_does_not_lead_takes_no_login_and_names_the_one_that_does() {
    let cluster = Cluster::new(2, &Config::default());
    let mut early = Client::connect(cluster.address(0));
    early.negotiate(&key(2), 20);
    match early.next() {
        Message::NegotiationReject(m) => assert_eq!(
            (m.code, wire::leader_address(m.leader_ip, m.leader_port)),
            (wire::NegotiationCode::NotLeader, None),
            "nobody leads yet"
        ),
        other => panic!("{other:?}"),
    }
    cluster.elect(1);
    let _live = login(&cluster, 1, 2, 20, None);
    for _ in 0..10 {
        early.establish(&key(2), 20, 1_000, 1, None);
        match early.next() {
            Message::EstablishmentReject(m) => assert_eq!(
                (m.code, wire::leader_address(m.leader_ip, m.leader_port)),
                (wire::EstablishmentCode::NotLeader, Some(cluster.address(1)))
            ),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cluster.held(), 0, "nothing of it came near the log");
    cluster.elect(0);
    // The connection on which a login was refused serves for one that is not.
    wait(|| {
        early.establish(&key(2), 20, 1_000, 1, None);
        matches!(early.next(), Message::EstablishmentAck(_))
    });
}

#[test]
fn the_end_of_an_epoch_ends_every_connection_and_answers_nothing_that_is_not_committed() {
    let cluster = Cluster::new(2, &Config::default());
    cluster.elect(0);
    let mut greeted = Client::connect(cluster.address(0));
    let mut client = login(&cluster, 0, 2, 20, None);
    client.order(Side::Buy, 10, 1);
    execution(client.next());
    cluster.hold(true);
    for _ in 0..3 {
        client.order(Side::Buy, 10, 1);
    }
    wait(|| cluster.held() == 3);
    // One of the three gets through; the node knows nothing of the next leader yet.
    cluster.depose(|_| 1);
    let (said, end) = client.ended();
    // The one that is committed may be told before the gateway hears that its epoch is over; the other two never.
    let told: Vec<_> = said.into_iter().map(|message| execution(message).client_seq).collect();
    assert!(told.is_empty() || told == [2], "{told:?}");
    assert_eq!((end.code, end.leader_port), (TerminateCode::NotLeader, 0));
    assert_eq!(greeted.ended().1.code, TerminateCode::NotLeader);
    cluster.hold(false);
    cluster.elect(1);
    let (mut client, ack) = establish(&cluster, 1, 2, 20, 2, None);
    assert_eq!(
        (ack.last_client_seq, ack.next_seq),
        (2, 3),
        "one was applied, two never will be unless sent again"
    );
    for client_seq in [3, 4] {
        assert_eq!(client.order(Side::Buy, 10, 1), client_seq);
        assert_eq!(execution(client.next()).client_seq, client_seq);
    }
    cluster.until(0, |state| state.account(AccountId(2)).is_some_and(|account| account.orders.len() == 4));
}

#[test]
fn a_later_term_of_the_same_node_is_another_epoch() {
    let cluster = Cluster::new(2, &Config::default());
    cluster.elect(0);
    let mut client = login(&cluster, 0, 2, 20, None);
    cluster.hold(true);
    client.order(Side::Buy, 10, 1);
    wait(|| cluster.held() == 1);
    // Deposed and elected again before its gateway looked: what waited is lost all the same.
    cluster.elect(0);
    let (said, end) = client.ended();
    assert!(said.is_empty() && end.code == TerminateCode::NotLeader, "{said:?}");
    cluster.hold(false);
    assert_eq!(establish(&cluster, 0, 2, 20, 1, None).1.last_client_seq, 0);
}

#[test]
fn reports_sent_again_are_the_same_bytes_from_every_node() {
    let cluster = Cluster::new(3, &Config::default());
    cluster.elect(0);
    let mut maker = login(&cluster, 0, 2, 20, None);
    let mut taker = login(&cluster, 0, 3, 30, None);
    // Every kind of report: fills of both sides, ends of orders, rejects, mass cancels, transfers, done; quotes refused,
    // done and pulled.
    for round in 0..40 {
        cluster.pass(1_000);
        maker.order(Side::Sell, 100 + round % 7, 1 + round % 5);
        taker.order(Side::Buy, 103, 2);
        let client_seq = taker.next_seq();
        taker.send(|out| {
            wire::CancelOrder { client_seq, order_id: 1 << 40, ..Default::default() }.encode(out)
        });
        let client_seq = maker.next_seq();
        let ioc = NewOrder {
            client_seq,
            side: Side::Buy,
            price: 1,
            qty: 1,
            time_in_force: wire::TimeInForce::Ioc,
            ..NewOrder::default()
        };
        maker.send(|out| ioc.encode(out));
        if round % 3 == 0 {
            quotes::protect(&mut maker, 10, 2, 0);
        }
        quotes::send(
            &mut maker,
            &[quotes::quote(1, (90, 1), (100 + round % 5, 1)), quotes::quote(2, (1, 1), (1, 1))],
        );
        if round % 8 == 7 {
            for client in [&mut maker, &mut taker] {
                let client_seq = client.next_seq();
                client.send(|out| wire::MassCancel { client_seq, ..Default::default() }.encode(out));
            }
        }
    }
    let sent = [(20, maker.client_seq), (30, taker.client_seq)];
    cluster.until(0, |state| {
        sent.iter().all(|(session, last)| state.sessions[&SessionId(*session)].last_client_seq == *last)
    });
    let count = |session: u128| {
        let engine = cluster.nodes[0].clone();
        grid_orders::View::read(&*engine, |state| state.sessions[&SessionId(session)].next_report - 1) as u32
    };
    let counts = [count(20), count(30)];
    // Live, from the leader, up to the flag that says so.
    let live: Vec<Vec<Vec<u8>>> = [(&mut maker, counts[0]), (&mut taker, counts[1])]
        .into_iter()
        .map(|(client, count)| (0..count).map(|_| client.try_frame().expect("a report")).collect())
        .collect();
    let mut first = None;
    for node in [0, 1, 2, 0] {
        cluster.elect(node);
        let frames: Vec<_> = [(2, 20, counts[0]), (3, 30, counts[1])]
            .into_iter()
            .map(|(account, session, count)| {
                retransmitted(&mut establish(&cluster, node, account, session, 1, None).0, count)
            })
            .collect();
        for (again, live) in frames.iter().flatten().zip(live.iter().flatten()) {
            let odd: Vec<_> = (0..live.len()).filter(|&at| again[at] != live[at]).collect();
            assert!(again.len() == live.len() && odd.len() == 1, "only possResend differs: {odd:?}");
        }
        let first = first.get_or_insert_with(|| frames.clone());
        assert_eq!(*first, frames, "node {node}");
    }
}

#[test]
fn sessions_of_a_leader_that_is_gone_are_reported_lost_once_and_their_grace_runs_in_log_time() {
    let config = Config { orphans_at_once: 3, ..Config::default() };
    let cluster = Cluster::new(2, &config);
    cluster.elect(0);
    let sessions: Vec<u128> = (100..120).collect();
    let mut clients = BTreeMap::new();
    for &session in &sessions {
        let mut client = login(&cluster, 0, 2, session, Some(500));
        client.order(Side::Buy, 10, 1);
        execution(client.next());
        clients.insert(session, client);
    }
    cluster.depose(|all| all);
    for client in clients.values_mut() {
        assert_eq!(client.ended().1.code, TerminateCode::NotLeader);
    }
    assert!(lost(&cluster).is_empty(), "the old leader says nothing of its own end");
    cluster.until(1, |state| {
        let connected =
            |session| state.sessions.get(&SessionId(session)).is_some_and(|s| s.connection.is_some());
        sessions.iter().all(|session| connected(*session))
    });
    cluster.elect(1);
    // One comes back at once, maybe before its old connection is reported lost.
    let (back, _) = establish(&cluster, 1, 2, 100, 2, Some(500));
    cluster.until(1, |state| {
        sessions[1..].iter().all(|session| state.sessions[&SessionId(*session)].connection.is_none())
    });
    // And another within its grace.
    cluster.pass(400_000_000);
    let (late, _) = establish(&cluster, 1, 2, 101, 2, Some(500));
    cluster.pass(100_000_000);
    cluster.inject(Entry::venue(Command::Tick));
    cluster.until(1, |state| state.account(AccountId(2)).is_some_and(|account| account.orders.len() == 2));
    let lost = lost(&cluster);
    assert!(lost.values().all(|times| *times == 1), "{lost:?}");
    assert!(lost.len() >= sessions.len() - 1, "{lost:?}");
    drop((back, late));
    wait(|| cluster.hash(0) == cluster.hash(1));
}

#[test]
fn callers_of_our_client_notice_a_change_of_leaders_only_by_the_clock() {
    // At least, and until the leader has changed that often.
    const CALLS: u64 = 200;
    const CHANGES: usize = 20;
    let cluster = Arc::new(Cluster::new(3, &Config::default()));
    cluster.elect(0);
    let config = |account: u8| grid_client::Config {
        call_timeout: Duration::from_secs(60),
        ..grid_client::Config::new(cluster.addresses(), [account; 32])
    };
    let done = Arc::new(AtomicBool::new(false));
    let changes = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        std::thread::spawn(move || cluster.shuffle(77, &done))
    };
    let callers: Vec<_> = [2_u8, 3, 4]
        .into_iter()
        .map(|account| {
            let (config, cluster) = (config(account), Arc::clone(&cluster));
            std::thread::spawn(move || {
                let client = grid_client::Client::connect(config).expect("a session");
                let mut events = client.events();
                let (mut seqs, mut calls) = (Vec::new(), 0);
                while calls < CALLS || cluster.changes.load(Ordering::SeqCst) < CHANGES {
                    let pending: Vec<_> = (calls..calls + 8)
                        .map(|call| {
                            let side = if account == 2 { Side::Sell } else { Side::Buy };
                            client.submit(NewOrder {
                                label: u128::from(call + 1),
                                side,
                                price: 90 + call % 20,
                                qty: 1,
                                ..NewOrder::default()
                            })
                        })
                        .collect();
                    calls += 8;
                    for pending in pending {
                        seqs.push(pending.wait().expect("an answer, however long it takes").log_seq());
                    }
                }
                assert!(seqs.is_sorted_by(|one, next| one < next), "in the order of the calls");
                // Every report once, and none missing in the end.
                let mut reports = std::collections::BTreeSet::new();
                while let Ok(event) = events.try_recv() {
                    if let grid_client::Event::Report(report) = event {
                        let number = report.session_seq();
                        assert!(number == 0 || reports.insert(number), "report {number} twice");
                    }
                }
                (client, calls, reports.len() as u64)
            })
        })
        .collect();
    let clients: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    changes.join().unwrap();
    wait(|| cluster.hash(0) == cluster.hash(1) && cluster.hash(1) == cluster.hash(2));
    // Each order is in the log as one executed command, whatever was sent again.
    for (client, calls, reports) in &clients {
        let session = SessionId(client.session());
        cluster.until(0, |state| state.sessions[&session].last_client_seq == *calls);
        assert!(reports >= calls, "each call is reported: {reports} of {calls}");
    }
}
