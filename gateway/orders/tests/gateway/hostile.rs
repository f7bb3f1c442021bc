//! Bytes that are no messages.

use std::time::Duration;

use grid_orders::Config;
use grid_wire::{self as wire, NewOrder, TerminateCode};

use crate::client::Client;
use crate::venue::key;
use crate::{assert_others_are_served, start};

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
