//! More than there is room for: nothing is lost, and nobody else waits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use grid_engine::SessionId;
use grid_orders::Config;
use grid_wire::{self as wire, Message, NewOrder, Side, gateway_reject};

use crate::client::Client;
use crate::venue::key;
use crate::{assert_others_are_served, execution, rejected, start};

#[test]
fn a_full_line_is_waited_for_and_then_answered_as_busy() {
    let (venue, gateway) = start(Config { busy_after: Duration::from_millis(50), ..Config::default() });
    let mut client = Client::login(gateway.address(), &key(2), 20);
    venue.room.store(0, Ordering::SeqCst);
    client.order(Side::Buy, 1, 1);
    let reject = rejected(client.next());
    assert_eq!((reject.code, reject.client_seq, reject.session_seq), (gateway_reject::BUSY, 1, 0));
    client.order(Side::Buy, 2, 1);
    venue.room.store(100, Ordering::SeqCst);
    loop {
        match client.next() {
            Message::CommandReject(reject) if reject.code == gateway_reject::BUSY => {
                client.order(Side::Buy, 2, 1);
            }
            other => {
                assert_eq!(execution(other).exec_type, wire::ExecType::New);
                break;
            }
        }
    }
    // Logins and lost sessions are the venue's own commands: they wait until there is room.
    let mut other = Client::connect(gateway.address());
    venue.room.store(0, Ordering::SeqCst);
    client.close();
    other.negotiate(&key(3), 30);
    other.send(|out| wire::Sequence { next_seq: 1 }.encode(out));
    let mut third = Client::connect(gateway.address());
    third.negotiate(&key(99), 30);
    assert!(matches!(third.next(), Message::NegotiationReject(_)), "the gateway goes on meanwhile");
    venue.room.store(100, Ordering::SeqCst);
    assert!(matches!(other.next(), Message::NegotiationResponse(_)));
    venue.until(|state| state.sessions[&SessionId(20)].connection.is_none());
}

#[test]
fn a_burst_through_a_narrow_line_loses_and_duplicates_nothing() {
    let (venue, gateway) = start(Config { busy_after: Duration::from_secs(60), ..Config::default() });
    venue.room.store(16, Ordering::SeqCst);
    let address = gateway.address();
    let clients: Vec<_> = (0..4_u128)
        .map(|index| {
            std::thread::spawn(move || {
                let mut client = Client::login(address, &key(2 + (index % 3) as u8), 50 + index);
                let mut bytes = Vec::new();
                for client_seq in 1..=5_000 {
                    let price = 1 + client_seq % 50;
                    NewOrder { client_seq, side: Side::Buy, price, qty: 1, ..NewOrder::default() }
                        .encode(&mut bytes);
                }
                client.send_bytes(&bytes);
                for client_seq in 1..=5_000 {
                    let report = execution(client.next());
                    assert_eq!((report.client_seq, report.session_seq), (client_seq, client_seq));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let engine = venue.engine.read().unwrap();
    let resting: usize = engine.state().books.len();
    assert_eq!(resting, 20_000);
    engine.check_invariants().unwrap();
}

#[test]
fn a_reader_of_reports_who_does_not_read_is_dropped_and_loses_nothing() {
    let (venue, gateway) =
        start(Config { out_max: 32 * 1024, linger: Duration::from_millis(100), ..Config::default() });
    let mut sleeper = Client::login(gateway.address(), &key(2), 20);
    let mut bytes = Vec::new();
    for client_seq in 1..=100_000 {
        let order = NewOrder { client_seq, side: Side::Buy, price: 1, qty: 0, ..NewOrder::default() };
        bytes.clear();
        order.encode(&mut bytes);
        if !sleeper.try_send_bytes(&bytes) {
            break;
        }
    }
    venue.until(|state| state.sessions[&SessionId(20)].connection.is_none());
    assert_others_are_served(&gateway, 40);
    let mut again = Client::connect(gateway.address());
    again.establish(&key(2), 20, 1_000, 1, None);
    let ack = again.acknowledged();
    assert_eq!(ack.next_seq, ack.last_client_seq + 1, "one report for each command that was applied");
    let count = (ack.next_seq - ack.oldest_seq).min(2_500) as u32;
    let from = ack.next_seq - u64::from(count);
    again.send(|out| wire::RetransmitRequest { from, count }.encode(out));
    assert!(matches!(again.next(), Message::Retransmission(_)));
    for seq in from..ack.next_seq {
        assert_eq!(rejected(again.next()).session_seq, seq);
    }
    again.send(|out| wire::RetransmitRequest { from: 1, count: 1 }.encode(out));
    match again.next() {
        Message::RetransmitReject(m) => assert_eq!(m.code, wire::RetransmitCode::NoLongerKept),
        other => assert!(ack.oldest_seq == 1, "{other:?}"),
    }
}
