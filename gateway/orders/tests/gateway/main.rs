//! The gateway over real sockets in front of the real engine: logins, orders, resumption, market data, and
//! everything a client can do wrong.

mod client;
mod cluster;
mod early;
mod failover;
mod quote_failover;
mod quotes;
mod venue;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{Client, now};
use grid_engine::{AccountId, Command, Entry, Fingerprint, SessionId};
use grid_orders::{Config, Gateway, Rate};
use grid_wire::{
    self as wire, BookFlags, Message, NewOrder, ReportFlags, Side, TerminateCode, gateway_reject,
};
use venue::{Queue, Venue, key};

fn start_with(venue: &Arc<Venue>, config: Config) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Gateway::start(listener, config, Queue(Arc::clone(venue)), Arc::clone(venue)).unwrap()
}

fn start(config: Config) -> (Arc<Venue>, Gateway) {
    let venue = Venue::new();
    let gateway = start_with(&venue, config);
    (venue, gateway)
}

fn execution(message: Message<'_>) -> wire::ExecutionReport {
    match message {
        Message::ExecutionReport(report) => report,
        other => panic!("{other:?} instead of an execution report"),
    }
}

fn rejected(message: Message<'_>) -> wire::CommandReject {
    match message {
        Message::CommandReject(reject) => reject,
        other => panic!("{other:?} instead of a reject"),
    }
}

/// Somebody else's orders still go through.
fn assert_others_are_served(gateway: &Gateway, session: u128) {
    let mut other = Client::login(gateway.address(), &key(4), session);
    other.order(Side::Buy, 1, 1);
    assert_eq!(execution(other.next()).exec_type, wire::ExecType::New);
}

#[test]
fn two_clients_trade_and_each_hears_its_own_reports_in_order() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut taker = Client::login(gateway.address(), &key(3), 30);
    maker.order(Side::Sell, 100, 5);
    let opened = execution(maker.next());
    assert_eq!((opened.session_seq, opened.client_seq, opened.leaves_qty), (1, 1, 5));
    assert_eq!((opened.exec_type, opened.ord_status), (wire::ExecType::New, wire::OrdStatus::New));
    assert_eq!((opened.account, opened.instrument, opened.side), (2, 0, Side::Sell));
    let client_seq = taker.next_seq();
    let order =
        NewOrder { client_seq, label: 77, side: Side::Buy, price: 120, qty: 3, ..NewOrder::default() };
    taker.send(|out| order.encode(out));
    let answer = execution(taker.next());
    assert_eq!((answer.exec_type, answer.client_seq, answer.label), (wire::ExecType::New, 1, 77));
    let fill = execution(taker.next());
    assert_eq!((fill.exec_type, fill.last_price, fill.last_qty), (wire::ExecType::Trade, 100, 3));
    assert_eq!((fill.ord_status, fill.leaves_qty, fill.cum_qty), (wire::OrdStatus::Filled, 0, 3));
    assert!(fill.flags.has(ReportFlags::AGGRESSOR));
    let made = execution(maker.next());
    assert_eq!((made.session_seq, made.trade_id, made.leaves_qty), (2, fill.trade_id, 2));
    assert!(made.flags.has(ReportFlags::UNSOLICITED) && !made.flags.has(ReportFlags::AGGRESSOR));
    let client_seq = maker.next_seq();
    let cancel = wire::CancelOrder { client_seq, order_id: opened.order_id, ..wire::CancelOrder::default() };
    maker.send(|out| cancel.encode(out));
    let ended = execution(maker.next());
    assert_eq!((ended.exec_type, ended.closure), (wire::ExecType::Cancelled, wire::Closure::Cancelled));
    venue.engine.read().unwrap().check_invariants().unwrap();
}

#[test]
fn logins_with_anything_wrong_are_refused_and_the_third_ends_the_connection() {
    let (_venue, gateway) = start(Config { login_refusals_max: 100, ..Config::default() });
    let mut client = Client::connect(gateway.address());
    let good = client.signed_negotiate(&key(2), 5);
    let resigned = |client: &Client, mut message: wire::Negotiate| {
        use ed25519_dalek::Signer;
        let transcript = wire::negotiate_transcript(&client.nonce, &message);
        message.signature = wire::Signature(key(2).sign(&transcript).to_bytes());
        message
    };
    let replayed = Client::connect(gateway.address()).signed_negotiate(&key(2), 5);
    let other_key = wire::Negotiate { fingerprint: client::fingerprint(&key(3)), ..good };
    let stale = wire::Negotiate { timestamp: now() - 6_000_000_000, ..good };
    let cases = [
        ("a tampered session", wire::Negotiate { session: 6, ..good }, wire::NegotiationCode::Credentials),
        ("another key's fingerprint", other_key, wire::NegotiationCode::Credentials),
        ("a login for another connection", replayed, wire::NegotiationCode::Credentials),
        ("an unknown key", client.signed_negotiate(&key(99), 5), wire::NegotiationCode::Credentials),
        ("a stale timestamp", resigned(&client, stale), wire::NegotiationCode::Credentials),
        (
            "milliseconds for nanoseconds",
            resigned(&client, wire::Negotiate { timestamp: now() / 1_000_000, ..good }),
            wire::NegotiationCode::Credentials,
        ),
        (
            "the wrong flow",
            resigned(&client, wire::Negotiate { client_flow: wire::Flow::Unsequenced, ..good }),
            wire::NegotiationCode::FlowTypeNotSupported,
        ),
        (
            "a version to come",
            resigned(&client, wire::Negotiate { schema_version: 9, ..good }),
            wire::NegotiationCode::SchemaVersion,
        ),
        ("the venue's own session", client.signed_negotiate(&key(2), 0), wire::NegotiationCode::DuplicateId),
    ];
    for (what, message, code) in cases {
        client.send(|out| message.encode(out));
        match client.next() {
            Message::NegotiationReject(reject) => assert_eq!(reject.code, code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    client.send(|out| good.encode(out));
    assert!(matches!(client.next(), Message::NegotiationResponse(response) if response.account == 2));

    let mut thief = Client::connect(gateway.address());
    thief.negotiate(&key(3), 5);
    assert!(matches!(
        thief.next(), Message::NegotiationReject(m) if m.code == wire::NegotiationCode::DuplicateId
    ));
    thief.establish(&key(3), 5, 1_000, 1, None);
    assert!(matches!(
        thief.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::Credentials
    ));
    thief.establish(&key(3), 0xABCD, 1_000, 1, None);
    assert!(matches!(
        thief.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::Unnegotiated
    ));
    thief.establish(&key(3), 0xABCD, 1, 1, None);
    assert!(matches!(
        thief.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::KeepAliveInterval
    ));
    drop(gateway);

    let (_venue, gateway) = start(Config::default());
    let mut guesser = Client::connect(gateway.address());
    for _ in 0..3 {
        guesser.negotiate(&key(99), 5);
    }
    let (said, code) = guesser.terminated();
    assert_eq!((said.len(), code), (3, TerminateCode::Unauthenticated));
    assert_others_are_served(&gateway, 40);
}

#[test]
fn a_session_resumes_with_its_numbers_and_every_report() {
    let (_venue, gateway) = start(Config::default());
    let mut first = Client::login(gateway.address(), &key(2), 20);
    for price in 1..=700 {
        first.order(Side::Buy, price, 1);
    }
    let mut heard: Vec<_> = (0..700).map(|_| execution(first.next())).collect();
    first.close();

    let mut second = Client::connect(gateway.address());
    second.establish(&key(2), 20, 1_000, 1, None);
    let ack = second.acknowledged();
    assert_eq!((ack.last_client_seq, ack.next_seq, ack.oldest_seq, ack.account), (700, 701, 1, 2));
    // Both at once: a second one that comes by itself may find the first done.
    second.send(|out| {
        wire::RetransmitRequest { from: 1, count: 700 }.encode(out);
        wire::RetransmitRequest { from: 1, count: 1 }.encode(out);
    });
    second.client_seq = 700;
    second.order(Side::Buy, 701, 1);
    let (mut again, mut announced, mut busy) = (Vec::new(), 0, 0);
    while again.len() < 701 {
        match second.next() {
            Message::Retransmission(m) => {
                announced += 1;
                assert_eq!((m.from, m.count), (1, 700));
            }
            Message::RetransmitReject(m) => {
                busy += 1;
                assert_eq!(m.code, wire::RetransmitCode::Busy);
            }
            other => again.push(execution(other)),
        }
    }
    assert_eq!((announced, busy), (1, 1));
    let live = again.iter().position(|report| report.session_seq == 701).unwrap();
    assert!(!again.remove(live).flags.has(ReportFlags::POSS_RESEND));
    for report in &mut heard {
        report.flags = report.flags.with(ReportFlags::POSS_RESEND, true);
    }
    assert_eq!(again, heard, "the same reports, in order, marked");

    second.client_seq = 699;
    second.order(Side::Sell, 1, 1);
    let repeated = execution(second.next());
    assert_eq!(
        (repeated.client_seq, repeated.session_seq),
        (700, 700),
        "the answer of then, nothing executed"
    );
    assert!(repeated.flags.has(ReportFlags::POSS_RESEND));
    for (from, count, code) in [
        (0, 1, wire::RetransmitCode::OutOfRange),
        (702, 1, wire::RetransmitCode::OutOfRange),
        (u64::MAX, 9, wire::RetransmitCode::OutOfRange),
        (1, 2_501, wire::RetransmitCode::TooMany),
    ] {
        second.send(|out| wire::RetransmitRequest { from, count }.encode(out));
        assert!(matches!(second.next(), Message::RetransmitReject(m) if m.code == code));
    }
    let mut third = Client::connect(gateway.address());
    third.establish(&key(2), 20, 1_000, 9_999, None);
    assert!(matches!(
        third.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::NextSeqNo
    ));
}

#[test]
fn a_newer_connection_takes_the_session_over() {
    let (venue, gateway) = start(Config::default());
    let mut older = Client::login(gateway.address(), &key(2), 20);
    older.order(Side::Buy, 10, 1);
    execution(older.next());
    let mut newer = Client::connect(gateway.address());
    newer.establish(&key(2), 20, 1_000, 2, None);
    assert_eq!(newer.acknowledged().last_client_seq, 1);
    assert_eq!(older.terminated(), (Vec::new(), TerminateCode::Superseded));
    newer.client_seq = 1;
    newer.order(Side::Buy, 11, 1);
    assert_eq!(execution(newer.next()).client_seq, 2);
    newer.establish(&key(2), 20, 1_000, 2, None);
    assert!(matches!(
        newer.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::AlreadyEstablished
    ));
    assert!(venue.engine.read().unwrap().state().sessions[&SessionId(20)].connection.is_some());
    newer.close();
    venue.until(|state| state.sessions[&SessionId(20)].connection.is_none());
}

#[test]
fn a_gap_is_told_at_once_and_the_session_goes_on() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    client.client_seq = 4;
    client.order(Side::Buy, 10, 1);
    assert_eq!(client.next(), Message::NotApplied(wire::NotApplied { from: 1, count: 4 }));
    assert_eq!(execution(client.next()).client_seq, 5);
    client.client_seq = 1;
    client.order(Side::Buy, 10, 1);
    assert_eq!(rejected(client.next()).code, gateway_reject::FORGOTTEN, "a skipped number is never executed");
    client.send(|out| wire::Sequence { next_seq: 9 }.encode(out));
    assert_eq!(client.next(), Message::NotApplied(wire::NotApplied { from: 6, count: 3 }));
}

#[test]
fn orders_replace_mass_cancel_and_transfers_have_their_own_answers() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    client.order(Side::Sell, 100, 5);
    let order_id = execution(client.next()).order_id;
    let client_seq = client.next_seq();
    let replace =
        wire::ReplaceOrder { client_seq, order_id, price: 101, qty: 4, ..wire::ReplaceOrder::default() };
    client.send(|out| replace.encode(out));
    let replaced = execution(client.next());
    assert_eq!((replaced.exec_type, replaced.price, replaced.leaves_qty), (wire::ExecType::Replaced, 101, 4));
    let tag = wire::Tag::new("my-order").unwrap();
    let client_seq = client.next_seq();
    let tagged = NewOrder { client_seq, label: 8, side: Side::Buy, price: 10, qty: 1, ..NewOrder::default() };
    client.send(|out| tagged.tagged(tag).encode(out));
    assert_eq!(execution(client.next()).label, 8);
    let client_seq = client.next_seq();
    let again = NewOrder { client_seq, ..tagged };
    client.send(|out| again.tagged(tag).encode(out));
    let duplicate = rejected(client.next());
    assert_eq!(duplicate.code, grid_engine::Reject::DuplicateLabel.code());
    assert!(duplicate.existing_id > 0 && duplicate.session_seq > 0);
    let client_seq = client.next_seq();
    let all = wire::MassCancel { client_seq, ..wire::MassCancel::default() };
    client.send(|out| all.encode(out));
    assert!(matches!(client.next(), Message::MassCancelReport(m) if m.cancelled == 2));
    let ended: Vec<_> = (0..2).map(|_| execution(client.next()).closure).collect();
    assert_eq!(ended, [wire::Closure::Cancelled; 2]);
    let client_seq = client.next_seq();
    let transfer = wire::Transfer { client_seq, qty: 1, ..wire::Transfer::default() };
    client.send(|out| transfer.encode(out));
    assert!(matches!(client.next(), Message::CommandReport(m) if m.client_seq == client_seq));
    let client_seq = client.next_seq();
    let reserve = wire::Reserve { client_seq, request_id: 1, tokens: 10, ..wire::Reserve::default() };
    client.send(|out| reserve.encode(out));
    assert_eq!(
        rejected(client.next()).code,
        grid_engine::Reject::NotPermitted.code(),
        "delivery is the tiers' alone"
    );
    let foreign =
        wire::MassCancel { client_seq: client.next_seq(), account: 3, ..wire::MassCancel::default() };
    client.send(|out| foreign.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::NotPermitted.code());
}

#[test]
fn the_operator_reaches_the_directory_and_delivery_works_through_the_door() {
    let (_venue, gateway) = start(Config::default());
    let mut tier = Client::login(gateway.address(), &venue::operator_key(), 10);
    let mut payload = Vec::new();
    Command::SetAutoBuy(Default::default()).encode(&mut payload);
    let request = |tier: &mut Client, account, payload: &[u8]| {
        let client_seq = tier.next_seq();
        let head = wire::DirectoryRequest { client_seq, account, ..wire::DirectoryRequest::default() };
        tier.send(|out| head.encode(payload, out));
    };
    request(&mut tier, 2, &payload);
    assert!(matches!(tier.next(), Message::CommandReport(m) if m.account == 2));
    request(&mut tier, 2, b"\xff\xff\xff");
    assert_eq!(rejected(tier.next()).code, gateway_reject::PAYLOAD);
    payload.clear();
    Command::Tick.encode(&mut payload);
    request(&mut tier, 1, &payload);
    assert_eq!(rejected(tier.next()).code, grid_engine::Reject::NotPermitted.code());

    let transfer =
        wire::Transfer { client_seq: tier.next_seq(), account: 2, qty: 2, ..wire::Transfer::default() };
    tier.send(|out| transfer.encode(out));
    assert!(matches!(tier.next(), Message::CommandReport(_)));
    let client_seq = tier.next_seq();
    let reserve =
        wire::Reserve { client_seq, request_id: 5, tokens: 1_000, account: 2, ..wire::Reserve::default() };
    tier.send(|out| reserve.encode(out));
    let Message::ReserveReport(reserved, issuers) = tier.next() else { panic!("no reservation") };
    assert_eq!((reserved.tokens, reserved.account), (1_000, 2));
    assert_eq!(issuers.iter().map(|issuer| issuer.supplier).collect::<Vec<_>>(), [2]);
    let settle = wire::Settle {
        client_seq: tier.next_seq(),
        reservation: reserved.reservation,
        prompt_tokens: 100,
        completion_tokens: 200,
        account: 2,
        supplier: 2,
        ttft_us: 1_000,
        duration_us: 5_000,
        ..wire::Settle::default()
    };
    tier.send(|out| settle.encode(out));
    assert!(matches!(tier.next(), Message::SettleReport(m) if (m.billed, m.unbilled) == (300, 0)));
}

#[test]
fn two_levels_of_throttle_refuse_and_then_end_and_mass_cancel_always_passes() {
    let slow = Rate { per_second: 0, burst: 3 };
    let (_venue, gateway) =
        start(Config { requests: slow, cancels: slow, refusals: slow, ..Config::default() });
    let mut client = Client::login(gateway.address(), &key(2), 20);
    for price in 1..=5 {
        client.order(Side::Buy, price, 1);
    }
    let all = wire::MassCancel { client_seq: client.next_seq(), ..wire::MassCancel::default() };
    client.send(|out| all.encode(out));
    for price in 6..=9 {
        client.order(Side::Buy, price, 1);
    }
    let (said, code) = client.terminated();
    assert_eq!(code, TerminateCode::Throttled);
    let of = |wanted: fn(&Message<'_>) -> bool| said.iter().filter(|message| wanted(message)).count();
    assert_eq!(of(|m| matches!(m, Message::Throttled(_))), 3);
    assert_eq!(of(|m| matches!(m, Message::NotApplied(_))), 0, "a refused number is spent, not a gap");
    assert_others_are_served(&gateway, 40);
}

#[test]
fn stale_and_senseless_requests_are_refused_by_number_and_the_session_goes_on() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    let order = NewOrder { price: 1, qty: 1, ..NewOrder::default() };
    let stale = NewOrder { client_seq: 1, sending_time: now() - 2_000_000, valid_for_us: 1_000, ..order };
    client.send(|out| stale.encode(out));
    let reject = rejected(client.next());
    assert_eq!((reject.code, reject.client_seq, reject.session_seq), (gateway_reject::STALE, 1, 0));
    let contradiction = NewOrder {
        client_seq: 2,
        flags: wire::OrderFlags::POST_ONLY,
        time_in_force: wire::TimeInForce::Ioc,
        ..order
    };
    client.send(|out| contradiction.encode(out));
    assert_eq!(rejected(client.next()).code, gateway_reject::SYNTAX);
    let mut bytes = Vec::new();
    NewOrder { client_seq: 3, ..order }.encode(&mut bytes);
    bytes[wire::HEADER_LEN + 60] = 77;
    client.send_bytes(&bytes);
    let reject = rejected(client.next());
    assert_eq!((reject.code, reject.client_seq), (gateway_reject::SYNTAX, 3));
    client.send(|out| order.encode(out));
    assert_eq!(rejected(client.next()).code, gateway_reject::ZERO_SEQUENCE);
    for (price, qty) in [(0, 1), (1, 0), (u64::MAX, 1), (1, u64::MAX), (2_000_000, 1)] {
        client.client_seq = client.client_seq.max(3);
        client.order(Side::Buy, price, qty);
        let reject = rejected(client.next());
        assert!(reject.code < 1_000 && reject.session_seq > 0, "the engine says what is wrong: {reject:?}");
    }
    let nowhere = NewOrder { client_seq: client.next_seq(), instrument: 999, ..order };
    client.send(|out| nowhere.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::UnknownInstrument.code());
    let unknown =
        wire::CancelOrder { client_seq: client.next_seq(), order_id: 12_345, ..wire::CancelOrder::default() };
    client.send(|out| unknown.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::UnknownOrder.code());
    client.order(Side::Buy, 1, 1);
    assert_eq!(execution(client.next()).exec_type, wire::ExecType::New);
}

#[test]
fn garbage_of_every_kind_ends_its_own_connection_with_a_code() {
    let (_venue, gateway) = start(Config::default());
    let mut frame = Vec::new();
    NewOrder { client_seq: 1, price: 1, qty: 1, ..NewOrder::default() }.encode(&mut frame);
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut report = Vec::new();
    wire::TradePrint::default().encode(&mut report);
    let cases: Vec<(&str, Vec<u8>, TerminateCode)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: grid\r\n\r\n".to_vec(), TerminateCode::BadFrame),
        ("zeros", vec![0; 64], TerminateCode::BadFrame),
        ("a length of 4 GB", changed(0, &u32::MAX.to_le_bytes()), TerminateCode::FrameTooLong),
        ("a length of 50 MB", changed(0, &50_000_000_u32.to_le_bytes()), TerminateCode::FrameTooLong),
        ("another schema", changed(10, &[1, 1]), TerminateCode::BadFrame),
        ("an unknown template", changed(8, &[0xEE, 0xEE]), TerminateCode::OutOfPhase),
        ("a block cut short", changed(6, &[3, 0]), TerminateCode::BadMessage),
        ("a block beyond the frame", changed(6, &[0xFF, 0xFF]), TerminateCode::BadMessage),
        ("a message of the venue's", report, TerminateCode::OutOfPhase),
    ];
    for (index, (what, bytes, expected)) in cases.iter().enumerate() {
        let mut client = Client::login(gateway.address(), &key(2), 100 + index as u128);
        client.send_bytes(bytes);
        assert_eq!(client.terminated().1, *expected, "{what}, live");
        let mut stranger = Client::connect(gateway.address());
        stranger.send_bytes(bytes);
        let code = stranger.terminated().1;
        let login_first = matches!(expected, TerminateCode::BadMessage);
        assert_eq!(
            code,
            if login_first { TerminateCode::OutOfPhase } else { *expected },
            "{what}, before login"
        );
    }
    let mut half = Client::login(gateway.address(), &key(2), 200);
    half.send_bytes(&frame[..frame.len() / 2]);
    half.close();
    let mut early = Client::connect(gateway.address());
    early.send_bytes(&frame);
    assert_eq!(early.terminated().1, TerminateCode::OutOfPhase, "orders before a login");
    let mut polite = Client::login(gateway.address(), &key(2), 201);
    polite.send(|out| {
        wire::Terminate { code: TerminateCode::Finished, ..Default::default() }.encode(b"bye", out)
    });
    assert_eq!(polite.terminated(), (Vec::new(), TerminateCode::Finished));
    assert_others_are_served(&gateway, 40);
}

#[test]
fn random_bytes_and_mutated_frames_never_stop_the_gateway() {
    let (venue, gateway) = start(Config { linger: Duration::from_millis(200), ..Config::default() });
    let mut state = 0xDEAD_BEEF_u64;
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..150_u128 {
        let mut client = Client::login(gateway.address(), &key(2), 1_000 + round);
        for _ in 0..20 {
            let corpus = wire::samples(&mut (round as u64));
            let mut bytes = corpus[draw(corpus.len())].1.clone();
            for _ in 0..draw(3) {
                let at = draw(bytes.len());
                bytes[at] = draw(256) as u8;
            }
            if draw(10) == 0 {
                bytes.truncate(draw(bytes.len()).max(1));
            }
            if !client.try_send_bytes(&bytes) {
                break;
            }
        }
    }
    assert!(gateway.is_running());
    assert_others_are_served(&gateway, 40);
    venue.engine.read().unwrap().check_invariants().unwrap();
}

#[test]
fn slow_logins_and_silent_sessions_end_while_others_are_served() {
    let (_venue, gateway) = start(Config {
        login_timeout: Duration::from_millis(150),
        keep_alive_min: Duration::from_millis(10),
        ..Config::default()
    });
    let mut slow = Client::connect(gateway.address());
    let mut bytes = Vec::new();
    slow.signed_negotiate(&key(2), 7).encode(&mut bytes);
    // Byte by byte, and never the last one: no login in time.
    for byte in &bytes[..bytes.len() - 1] {
        if !slow.try_send_bytes(&[*byte]) {
            break;
        }
    }
    assert_eq!(slow.terminated().1, TerminateCode::LoginTimeout);
    let mut silent = Client::connect(gateway.address());
    silent.negotiate(&key(2), 8);
    assert!(matches!(silent.next(), Message::NegotiationResponse(_)));
    silent.establish(&key(2), 8, 50, 1, None);
    let (said, code) = silent.terminated();
    assert_eq!(code, TerminateCode::KeepAliveLapsed);
    let beats = said.iter().filter(|m| matches!(m, Message::Sequence(m) if m.next_seq == 1)).count();
    assert!(beats >= 1, "the venue itself was not silent");
    assert_others_are_served(&gateway, 40);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let (_venue, gateway) = start(Config { connections_max: 1, ..Config::default() });
    let first = Client::login(gateway.address(), &key(2), 20);
    let mut second = Client::connect_silently(gateway.address());
    assert_eq!(second.terminated(), (Vec::new(), TerminateCode::Full));
    first.close();
    loop {
        // Until the gateway has noticed that the first is gone.
        let mut third = Client::connect_silently(gateway.address());
        match third.try_next() {
            Some(Message::Hello(_)) => return,
            Some(Message::Terminate(..)) | None => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

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

#[derive(Default)]
struct Image {
    levels: BTreeMap<(Side, u64), (u64, u32)>,
    channel_seq: u64,
    gaps: u32,
    trades: Vec<u64>,
}

impl Image {
    fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::BookSnapshot(m, levels) => {
                if m.flags.has(BookFlags::FIRST) {
                    self.levels.clear();
                    self.gaps += u32::from(m.flags.has(BookFlags::GAP));
                }
                self.channel_seq = m.channel_seq;
                self.apply(levels.iter());
            }
            Message::BookIncrement(m, levels) => {
                assert!(
                    m.channel_seq == self.channel_seq || m.channel_seq == self.channel_seq + 1,
                    "no event missing"
                );
                self.channel_seq = m.channel_seq;
                self.apply(levels.iter());
            }
            Message::TradePrint(m) => {
                self.channel_seq = m.channel_seq;
                self.trades.push(m.trade_id);
            }
            _ => {}
        }
    }

    fn apply(&mut self, levels: impl Iterator<Item = wire::Level>) {
        for level in levels {
            match level.qty {
                0 => self.levels.remove(&(level.side, level.price)),
                qty => self.levels.insert((level.side, level.price), (qty, level.orders)),
            };
        }
    }
}

fn truth(venue: &Venue) -> BTreeMap<(Side, u64), (u64, u32)> {
    let engine = venue.engine.read().unwrap();
    let book = engine.state().book(grid_engine::InstrumentId(0)).unwrap();
    let side = |engine_side, side| {
        book.levels(engine_side).map(move |level| ((side, level.price.0), (level.qty.0, level.orders)))
    };
    side(grid_engine::command::Side::Buy, Side::Buy)
        .chain(side(grid_engine::command::Side::Sell, Side::Sell))
        .collect()
}

fn trade_randomly(client: &mut Client, seed: u64, count: u64) {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..count {
        let side = if draw(2) == 0 { Side::Buy } else { Side::Sell };
        client.order(side, 90 + draw(20), 1 + draw(3));
    }
}

#[test]
fn snapshot_and_increments_keep_the_exact_book_for_early_and_late_subscribers() {
    let (venue, gateway) = start(Config::default());
    let mut trader = Client::login(gateway.address(), &key(2), 20);
    let mut early = Client::login(gateway.address(), &key(3), 30);
    early.send(|out| wire::MarketDataSubscribe { request_id: 5, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    let first = early.next();
    assert!(matches!(first, Message::BookSnapshot(m, levels) if m.request_id == 5 && levels.is_empty()));
    image.hear(&first);
    trade_randomly(&mut trader, 1, 500);
    let mut late = Client::login(gateway.address(), &key(4), 40);
    late.send(|out| wire::MarketDataSubscribe { request_id: 6, instrument: 0, depth: 0 }.encode(out));
    trade_randomly(&mut trader, 2, 500);
    venue.until(|state| state.sessions[&SessionId(20)].last_client_seq == 1_000);
    let truth = truth(&venue);
    assert!(!truth.is_empty());
    let mut late_image = Image::default();
    for (client, image) in [(&mut early, &mut image), (&mut late, &mut late_image)] {
        // A last order on its own level marks the end.
        while image.levels != truth {
            image.hear(&client.next());
        }
    }
    let trades = venue.engine.read().unwrap().state().counters.trade;
    assert!(
        trades > 0 && image.trades.len() as u64 == trades,
        "every trade once: {} of {trades}",
        image.trades.len()
    );
    for (instrument, depth, code) in
        [(999, 0, wire::MarketDataCode::UnknownInstrument), (1, 60_000, wire::MarketDataCode::Depth)]
    {
        early.send(|out| wire::MarketDataSubscribe { request_id: 7, instrument, depth }.encode(out));
        assert!(matches!(early.next(), Message::MarketDataReject(m) if m.code == code));
    }
    early.send(|out| wire::MarketDataUnsubscribe { request_id: 8, instrument: 0 }.encode(out));
    assert!(matches!(early.next(), Message::MarketDataUnsubscribed(m) if m.request_id == 8));
    early.send(|out| wire::MarketDataUnsubscribe { request_id: 9, instrument: 0 }.encode(out));
    assert!(
        matches!(early.next(), Message::MarketDataReject(m) if m.code == wire::MarketDataCode::NotSubscribed)
    );
}

#[test]
fn a_reader_who_does_not_read_is_conflated_and_slows_nobody() {
    let requests = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let (venue, gateway) = start(Config { conflate_above: 16 * 1024, requests, ..Config::default() });
    let mut sleeper = Client::login(gateway.address(), &key(3), 30);
    sleeper.send(|out| wire::MarketDataSubscribe { request_id: 1, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    image.hear(&sleeper.next());
    let mut trader = Client::login(gateway.address(), &key(2), 20);
    let mut rounds = 0;
    // Enough to fill the kernel's buffers and then the gateway's own.
    for _ in 0..60 {
        trade_randomly(&mut trader, 7 + rounds, 2_000);
        rounds += 1;
        let wanted = rounds * 2_000;
        while trader_last(&mut trader) < wanted {}
    }
    let truth = truth(&venue);
    while image.levels != truth || image.gaps == 0 {
        image.hear(&sleeper.next());
    }
    assert!(image.gaps >= 1);
}

/// The client sequence of the next answer, fills passed over.
fn trader_last(trader: &mut Client) -> u64 {
    loop {
        match trader.next() {
            Message::ExecutionReport(report) if report.client_seq > 0 => return report.client_seq,
            Message::CommandReject(reject) => return reject.client_seq,
            _ => {}
        }
    }
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

#[test]
fn orders_of_a_lost_session_are_cancelled_when_the_grace_has_run_out_in_log_time() {
    let (venue, gateway) = start(Config::default());
    let place = |session, grace| {
        let mut client = Client::connect(gateway.address());
        client.negotiate(&key(2), session);
        assert!(matches!(client.next(), Message::NegotiationResponse(_)));
        client.establish(&key(2), session, 1_000, 1, grace);
        let ack = client.acknowledged();
        client.client_seq = ack.last_client_seq;
        client.order(Side::Buy, 10, 1);
        execution(client.next());
        client
    };
    let (keeper, leaver, returner) = (place(1, None), place(2, Some(500)), place(3, Some(500)));
    for (session, client) in [(1, keeper), (2, leaver), (3, returner)] {
        client.close();
        venue.until(|state| state.sessions[&SessionId(session)].connection.is_none());
    }
    venue.now.fetch_add(400_000_000, Ordering::SeqCst);
    let _back = place(3, Some(500));
    venue.now.fetch_add(100_000_000, Ordering::SeqCst);
    venue.inject(Entry::venue(Command::Tick));
    venue.until(|state| state.account(AccountId(2)).is_some_and(|account| account.orders.len() == 3));
    let mut leaver = Client::connect(gateway.address());
    leaver.establish(&key(2), 2, 1_000, 2, None);
    assert_eq!(leaver.acknowledged().next_seq, 3);
    leaver.send(|out| wire::RetransmitRequest { from: 2, count: 1 }.encode(out));
    assert!(matches!(leaver.next(), Message::Retransmission(_)));
    assert_eq!(execution(leaver.next()).closure, wire::Closure::Cancelled);
}

#[test]
fn a_revoked_key_ends_its_live_session_and_opens_none() {
    let (venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    let fingerprint = Fingerprint::of(&key(2).verifying_key().to_bytes());
    venue.operate(2, Command::RevokeSigningKey { fingerprint });
    assert_eq!(client.terminated().1, TerminateCode::Revoked);
    let mut again = Client::connect(gateway.address());
    again.establish(&key(2), 20, 1_000, 1, None);
    assert!(matches!(
        again.next(), Message::EstablishmentReject(m) if m.code == wire::EstablishmentCode::Credentials
    ));
    assert_others_are_served(&gateway, 40);
}

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
