//! Strangers, garbage and sockets that do not behave: they cost nobody else anything.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

#[test]
fn garbage_at_the_door_keeps_nobody_out() {
    let (_, tls) = cluster();
    for tls in [&(|_| Tls::Plain) as &dyn Fn(NodeId) -> Tls, &tls] {
        let node = Node::start(1, &tls(1));
        let mut dice = SmallRng::seed_from_u64(11);
        for _ in 0..200 {
            let len = dice.random_range(1..3000);
            let mut bytes: Vec<u8> = (0..len).map(|_| dice.random()).collect();
            if dice.random_bool(0.5) {
                // One that begins as it should.
                let mut good = Vec::new();
                frame::put(Kind::Hello, &[b"GRIDLINK"], &mut good);
                good.extend_from_slice(&bytes);
                bytes = good;
            }
            let mut raw = Raw::connect(node.links.address());
            // It may be thrown out in the middle of it.
            let _ = io::Write::write_all(&mut raw.stream, &bytes);
            let _ = raw.stream.shutdown(std::net::Shutdown::Write);
        }
        let good = Node::start(2, &tls(2));
        good.knows(&[&node]);
        good.wait_up(1);
        good.send_all(&node, (0..10).map(|n| numbered(n, 10)));
        node.ear.wait("the good peer's", |heard| (heard.frames.len() == 10).then_some(()));
    }
}

#[test]
fn a_peers_frames_garbled_on_the_way_end_its_connection_and_reach_nobody() {
    let node = Node::start(1, &Tls::Plain);
    let mut dice = SmallRng::seed_from_u64(12);
    let mut good = Vec::new();
    frame::put(Kind::Raft, &[&numbered(1, 500)], &mut good);
    for attempt in 1..100 {
        let mut raw = Raw::connect(node.links.address());
        raw.hello(2, 1, 1, attempt);
        raw.welcomed();
        let mut bytes = good.clone();
        // Past the length, whose change may only make the node wait for more.
        let at = dice.random_range(4..bytes.len());
        bytes[at] ^= 1 << dice.random_range(0..8);
        raw.write(&bytes);
        assert_eq!(raw.read(), None);
    }
    assert!(node.ear.look(|heard| heard.frames.is_empty()));
}

#[test]
fn whoever_knocks_and_says_nothing_is_shown_out_while_others_pass() {
    let mut patient = config(1, &Tls::Plain);
    patient.limits.login_timeout = Duration::from_millis(300);
    patient.limits.knocking_max = 4;
    let node = Node::start_with(patient, Behaviour::default());
    let mut silent: Vec<Raw> = (0..4).map(|_| Raw::connect(node.links.address())).collect();
    let two = Node::start(2, &Tls::Plain);
    two.knows(&[&node]);
    for raw in &mut silent {
        assert_eq!(raw.read(), None, "shown out");
    }
    two.wait_up(1);
}

#[test]
fn a_host_full_of_silent_knockers_keeps_no_peer_out() {
    let mut few = config(1, &Tls::Plain);
    few.limits.knocking_max = 4;
    let node = Node::start_with(few, Behaviour::default());
    let mut silent: Vec<Raw> = (0..20).map(|_| Raw::connect(node.links.address())).collect();
    for raw in &mut silent[..16] {
        assert_eq!(raw.read(), None, "shown out to make room");
    }
    // The last four still knock, and would for long.
    let two = Node::start(2, &Tls::Plain);
    two.knows(&[&node]);
    two.wait_up(1);
}

#[test]
fn a_peer_that_never_reads_fills_its_own_queue_and_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut short = config(1, &Tls::Plain);
    short.limits.idle_limit = Duration::from_millis(500);
    short.limits.queue_bytes_max = 1 << 20;
    let (one, two) = (Node::start_with(short, Behaviour::default()), Node::start(2, &Tls::Plain));
    let peers = [(2, two.links.address()), (3, listener.local_addr().unwrap())].into();
    one.links.sender().set_peers(peers);
    let mut deaf = Raw::over(listener.accept().unwrap().0);
    assert_eq!(deaf.read().map(|(kind, _)| kind), Some(Kind::Hello));
    deaf.put(Kind::Welcome, &frame::to_bytes(&frame::Welcome { node: 3 }));
    one.wait_up(2);
    one.wait_up(3);
    let sender = one.links.sender();
    let body = numbered(1, 64 * 1024);
    let mut full = false;
    while sender.is_up(3) {
        full |= sender.send(3, Frame::Raft(body.clone())) == Sent::Full;
    }
    assert!(full, "its queue was full before it was let go");
    one.ear.wait("it is unreachable", |heard| heard.unreachable.get(&3).map(|_| ()));
    one.send_all(&two, (0..100).map(|n| numbered(n, 100)));
    two.ear.wait("the other's frames", |heard| (heard.frames.len() == 100).then_some(()));
}

#[test]
fn a_peer_that_falls_silent_is_let_go_in_both_directions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut short = config(1, &Tls::Plain);
    short.limits.idle_limit = Duration::from_millis(300);
    let node = Node::start_with(short, Behaviour::default());
    node.links.sender().set_peers([(3, listener.local_addr().unwrap())].into());
    // Ours to it: it reads, and answers no ping.
    let mut mute = Raw::over(listener.accept().unwrap().0);
    assert_eq!(mute.read().map(|(kind, _)| kind), Some(Kind::Hello));
    mute.put(Kind::Welcome, &frame::to_bytes(&frame::Welcome { node: 3 }));
    while let Some((kind, _)) = mute.read() {
        assert_eq!(kind, Kind::Ping);
    }
    node.ear.wait("it is unreachable", |heard| heard.unreachable.get(&3).map(|_| ()));
    // Its to us: it says Hello and nothing more.
    let mut silent = Raw::connect(node.links.address());
    silent.hello(2, 1, 1, 1);
    silent.welcomed();
    assert_eq!(silent.read(), None);
}

#[test]
fn a_half_closed_socket_is_closed() {
    let node = Node::start(1, &Tls::Plain);
    let mut raw = Raw::connect(node.links.address());
    raw.hello(2, 1, 1, 1);
    raw.welcomed();
    raw.put(Kind::Raft, &numbered(5, 8));
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(raw.read(), None);
    node.ear.look(|heard| assert_eq!(heard.frames.len(), 1, "what was said before counts"));
}

#[test]
fn whoever_asks_for_pongs_and_never_reads_them_is_thrown_out() {
    let node = Node::start(1, &Tls::Plain);
    let mut raw = Raw::connect(node.links.address());
    raw.hello(2, 1, 1, 1);
    raw.welcomed();
    let mut pings = Vec::new();
    for _ in 0..10_000 {
        frame::put(Kind::Ping, &[], &mut pings);
    }
    // Ends when the node resets it; a node that kept the answers would take this for ever.
    let thrown_out = (0..10_000).any(|_| io::Write::write_all(&mut raw.stream, &pings).is_err());
    assert!(thrown_out);
}

/// Frames that are whole and mean nothing: any kind, any body.
fn nonsense(dice: &mut SmallRng) -> Vec<u8> {
    let kinds = [2, 3, 4, 5, 16, 17, 32, 33, 34, 35, 36, 37, 48, 49, 64, 65, 1, 99];
    let mut bytes = Vec::new();
    for _ in 0..dice.random_range(1..6) {
        let kind = kinds[dice.random_range(0..kinds.len())];
        let len =
            if dice.random_bool(0.9) { dice.random_range(0..40) } else { dice.random_range(0..300_000) };
        // Small numbers are likelier to mean something.
        let body: Vec<u8> = (0..len)
            .map(|_| if dice.random_bool(0.5) { dice.random_range(0..4) } else { dice.random() })
            .collect();
        let mut framed = Vec::new();
        frame::put(Kind::Ping, &[&body], &mut framed);
        framed[4] = kind;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&framed[..8]), &body);
        framed[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&framed);
    }
    bytes
}

#[test]
fn a_peer_gone_mad_harms_nobody_but_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (node, two) = (Node::start(1, &Tls::Plain), Node::start(2, &Tls::Plain));
    two.knows(&[&node]);
    node.links.sender().set_peers([(2, two.links.address()), (3, listener.local_addr().unwrap())].into());
    node.wait_up(2);
    two.wait_up(1);
    let mut dice = SmallRng::seed_from_u64(13);
    for attempt in 1..300 {
        // As the one that dials.
        let mut mad = Raw::connect(node.links.address());
        mad.hello(3, 1, 7, attempt);
        mad.welcomed();
        let _ = io::Write::write_all(&mut mad.stream, &nonsense(&mut dice));
        // And as the one that is dialled, while a snapshot is on its way to it.
        let mut dialled = Raw::over(listener.accept().unwrap().0);
        assert_eq!(dialled.read().map(|(kind, _)| kind), Some(Kind::Hello));
        dialled.put(Kind::Welcome, &frame::to_bytes(&frame::Welcome { node: 3 }));
        node.wait_up(3);
        let _ = node.links.sender().send_snapshot(3, Bytes::new(), 10, Box::new(io::Cursor::new([0; 10])));
        let _ = io::Write::write_all(&mut dialled.stream, &nonsense(&mut dice));
    }
    two.send_all(&node, (0..10).map(|n| numbered(n, 10)));
    node.ear.wait("the good peer's", |heard| {
        (heard.frames.iter().filter(|(f, _)| *f == 2).count() == 10).then_some(())
    });
    assert_eq!(node.ear.look(|heard| heard.unreachable.get(&2).copied()), None);
}
