//! Sessions: logins, resumption, and how they end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use grid_engine::{AccountId, Command, Entry, Fingerprint, SessionId};
use grid_orders::Config;
use grid_wire::{self as wire, Message, ReportFlags, Side, TerminateCode};

use crate::client::{self, Client, now};
use crate::venue::key;
use crate::{assert_others_are_served, execution, start};

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
