//! Links between nodes that mean well: order, reconnects, changes of who and where.

use super::*;

fn frames_arrive_in_order(tls: [&Tls; 2]) {
    let (one, two) = pair(tls);
    let count = 20_000;
    // From a few bytes to more than what is read at one time.
    let len = |number: u64| if number.is_multiple_of(500) { 200_000 } else { (number % 97) as usize * 11 };
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_all(&two, (0..count).map(|n| numbered(n, len(n)))));
        scope.spawn(|| two.send_all(&one, (0..count).map(|n| numbered(n, 64))));
    });
    for (node, other, len) in [(&two, 1, &len as &dyn Fn(u64) -> usize), (&one, 2, &|_| 64)] {
        node.ear.wait("all frames", |heard| (heard.frames.len() as u64 == count).then_some(()));
        node.ear.look(|heard| {
            for (expected, (from, frame)) in heard.frames.iter().enumerate() {
                assert_eq!(*from, other);
                assert_eq!(*frame, Frame::Raft(numbered(expected as u64, len(expected as u64))));
            }
            assert!(heard.turns < 2 * count, "many frames share a turn");
        });
    }
}

#[test]
fn plain_frames_arrive_in_order_under_load() {
    frames_arrive_in_order([&Tls::Plain; 2]);
}

#[test]
fn sealed_frames_arrive_in_order_under_load() {
    let (_, tls) = cluster();
    frames_arrive_in_order([&tls(1), &tls(2)]);
}

#[test]
fn digests_and_messages_keep_their_kinds() {
    let (one, two) = pair([&Tls::Plain; 2]);
    let sender = one.links.sender();
    assert_eq!(sender.send(2, Frame::Raft(numbered(1, 8))), Sent::Queued);
    assert_eq!(sender.send(2, Frame::Digest(numbered(2, 8))), Sent::Queued);
    let frames = two.ear.wait("both", |heard| (heard.frames.len() == 2).then(|| heard.frames.clone()));
    assert_eq!(frames, [(1, Frame::Raft(numbered(1, 8))), (1, Frame::Digest(numbered(2, 8)))]);
}

#[test]
fn nobody_hears_an_old_frame_after_a_new_one_whatever_is_restarted() {
    let (_, tls) = cluster();
    let two = Node::start(2, &tls(2));
    for generation in 0..8_u64 {
        let one = Node::start(1, &tls(1));
        one.knows(&[&two]);
        one.wait_up(2);
        let before = two.ear.look(|heard| heard.frames.len());
        let sender = one.links.sender();
        for n in 0..1000 {
            // The link may go on as it likes: frames may be lost, never turn up late.
            let _ = sender.send(2, Frame::Raft(numbered(generation * 1000 + n, 5000)));
        }
        two.ear.wait("some of them", |heard| (heard.frames.len() > before).then_some(()));
        one.links.stop();
    }
    two.ear.look(|heard| {
        let numbers: Vec<u64> = heard.frames.iter().map(|(_, frame)| number(frame)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "an old frame came after a new one");
        assert!(numbers.iter().any(|n| n / 1000 == 7));
    });
}

#[test]
fn only_the_newest_connection_of_a_peer_is_listened_to() {
    let node = Node::start(1, &Tls::Plain);
    let address = node.links.address();
    let mut first = Raw::connect(address);
    first.hello(2, 1, 9, 1);
    first.welcomed();
    first.put(Kind::Raft, &numbered(10, 8));
    node.ear.wait("the first", |heard| (heard.frames.len() == 1).then_some(()));
    let mut second = Raw::connect(address);
    second.hello(2, 1, 9, 2);
    second.welcomed();
    // The first is closed by now or soon; whatever it says has no hearer.
    let _ = io::Write::write_all(&mut first.stream, &{
        let mut bytes = Vec::new();
        frame::put(Kind::Raft, &[&numbered(11, 8)], &mut bytes);
        bytes
    });
    second.put(Kind::Raft, &numbered(12, 8));
    second.put(Kind::Raft, &numbered(13, 8));
    node.ear.wait("the second's", |heard| (heard.frames.len() == 3).then_some(()));
    node.ear.look(|heard| {
        let numbers: Vec<u64> = heard.frames.iter().map(|(_, frame)| number(frame)).collect();
        assert_eq!(numbers, [10, 12, 13]);
    });
    assert_eq!(first.read(), None, "it was closed");
    // One that was given up before the second was dialled, and arrives late.
    let mut late = Raw::connect(address);
    late.hello(2, 1, 9, 1);
    let (kind, body) = late.read().unwrap();
    assert_eq!(kind, Kind::Refused);
    assert_eq!(frame::from_bytes::<Refusal>(&body).unwrap().code, RefusalCode::Stale);
    second.put(Kind::Raft, &numbered(14, 8));
    node.ear.wait("the second goes on", |heard| (heard.frames.len() == 4).then_some(()));
}

#[test]
fn a_peer_that_is_not_there_is_reported_and_found_when_it_comes() {
    let (_, tls) = cluster();
    let one = Node::start(1, &tls(1));
    // An address where nobody listens until later.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let sender = one.links.sender();
    assert_eq!(sender.send(2, Frame::Raft(numbered(0, 8))), Sent::Down, "nobody has named it");
    sender.set_peers([(2, address)].into());
    one.ear.wait("it is unreachable", |heard| {
        let _ = sender.send(2, Frame::Raft(numbered(0, 8)));
        heard.unreachable.contains_key(&2).then_some(())
    });
    let two = Node::start_with(LinksConfig { listen: address, ..config(2, &tls(2)) }, Behaviour::default());
    one.wait_up(2);
    assert_eq!(sender.send(2, Frame::Raft(numbered(1, 8))), Sent::Queued);
    two.ear.wait("the frame", |heard| heard.frames.iter().find(|(_, f)| number(f) == 1).map(|_| ()));
    let before = one.ear.look(|heard| heard.unreachable[&2]);
    two.links.stop();
    one.ear.wait("it is unreachable again", |heard| (heard.unreachable[&2] > before).then_some(()));
    one.wait_down(2);
}

#[test]
fn a_peer_that_moves_is_followed_and_one_that_is_removed_is_let_go() {
    let (_, tls) = cluster();
    let (one, two) = pair([&tls(1), &tls(2)]);
    let moved = Node::start(2, &tls(2));
    one.knows(&[&moved]);
    moved.ear.wait("a frame at the new place", |heard| {
        let _ = one.links.sender().send(2, Frame::Raft(numbered(5, 8)));
        (!heard.frames.is_empty()).then_some(())
    });
    two.links.stop();
    one.knows(&[]);
    one.wait_down(2);
    assert_eq!(one.links.sender().send(2, Frame::Raft(numbered(6, 8))), Sent::Down);
}

#[test]
fn a_member_that_this_node_has_not_heard_of_is_heard_and_answered() {
    let (_, tls) = cluster();
    let (old, new) = (Node::start(1, &tls(1)), Node::start(4, &tls(4)));
    new.knows(&[&old]);
    new.wait_up(1);
    assert_eq!(new.links.sender().send(1, Frame::Raft(numbered(1, 8))), Sent::Queued);
    old.ear.wait("the new member", |heard| (heard.frames.len() == 1).then_some(()));
    old.wait_up(4);
    assert_eq!(old.links.sender().send(4, Frame::Raft(numbered(2, 8))), Sent::Queued);
    new.ear.wait("the answer", |heard| (heard.frames.len() == 1).then_some(()));
    new.links.stop();
    old.wait_down(4);
}

#[test]
fn one_peer_that_is_away_costs_the_others_nothing() {
    let (_, tls) = cluster();
    let (one, two) = (Node::start(1, &tls(1)), Node::start(2, &tls(2)));
    // A listener whose backlog takes the connection and which never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = [(2, two.links.address()), (3, silent.local_addr().unwrap())].into();
    one.links.sender().set_peers(peers);
    one.wait_up(2);
    one.send_all(&two, (0..1000).map(|n| numbered(n, 100)));
    two.ear.wait("all frames", |heard| (heard.frames.len() == 1000).then_some(()));
    assert!(!one.links.sender().is_up(3));
}

#[test]
fn a_peer_that_comes_by_itself_is_dialled_at_once() {
    let (_, tls) = cluster();
    let mut lazy = config(1, &tls(1));
    // Without being dialled back, it would be found after the test's patience is over.
    lazy.limits.dial_wait_min = 4 * GUARD;
    lazy.limits.dial_wait_max = 4 * GUARD;
    let one = Node::start_with(lazy, Behaviour::default());
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let sender = one.links.sender();
    sender.set_peers([(2, address)].into());
    let dialled = held.accept().unwrap();
    assert_eq!(
        sender.send(2, Frame::Raft(numbered(0, 8))),
        Sent::Down,
        "it was dialled and has not answered"
    );
    drop((dialled, held));
    one.ear.wait("it is unreachable", |heard| heard.unreachable.get(&2).map(|_| ()));
    let two = Node::start_with(LinksConfig { listen: address, ..config(2, &tls(2)) }, Behaviour::default());
    two.knows(&[&one]);
    one.wait_up(2);
}
