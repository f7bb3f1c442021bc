//! Snapshots over real links: whole, beside messages, broken and begun again.

use std::io::Cursor;

use super::super::snapshot::CHUNK;
use super::*;

fn file(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn send(from: &Node, to: NodeId, file: &[u8]) {
    let source = Box::new(Cursor::new(file.to_vec()));
    from.links.sender().send_snapshot(to, Bytes::from_static(b"meta"), file.len() as u64, source).unwrap();
}

/// A source that gives its second half only when it is told to.
struct Gate {
    file: Cursor<Vec<u8>>,
    opens: std::sync::mpsc::Receiver<()>,
    open: bool,
}

impl Read for Gate {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.open && self.file.position() >= self.file.get_ref().len() as u64 / 2 {
            self.opens.recv().map_err(|_| io::Error::other("the disk is gone"))?;
            self.open = true;
        }
        self.file.read(buffer)
    }
}

fn send_gated(from: &Node, to: NodeId, file: &[u8]) -> std::sync::mpsc::Sender<()> {
    let (opener, opens) = std::sync::mpsc::channel();
    let gate = Gate { file: Cursor::new(file.to_vec()), opens, open: false };
    from.links.sender().send_snapshot(to, Bytes::new(), file.len() as u64, Box::new(gate)).unwrap();
    opener
}

#[test]
fn a_snapshot_arrives_whole_while_messages_go_on() {
    let (_, tls) = cluster();
    let (one, two) = pair([&tls(1), &tls(2)]);
    let file = file(40 * CHUNK + 17);
    let opener = send_gated(&one, 2, &file);
    two.ear.wait("a part of it", |heard| (!heard.snapshot.is_empty()).then_some(()));
    // While it is under way: messages pass, and a second one is not taken.
    one.send_all(&two, (0..2000).map(|n| numbered(n, 1000)));
    two.ear.wait("the messages", |heard| (heard.frames.len() == 2000).then_some(()));
    let second = one.links.sender().send_snapshot(2, Bytes::new(), 0, Box::new(io::empty()));
    assert_eq!(second, Err(NotSent::Busy));
    assert!(two.ear.look(|heard| heard.snapshots.is_empty()));
    opener.send(()).unwrap();
    let sent = one.ear.wait("the outcome", |heard| heard.sent.first().copied());
    assert_eq!(sent, (2, true));
    two.ear.wait("the receiver's outcome", |heard| {
        let (_, _, outcome) = heard.snapshots.first()?;
        assert_eq!(*outcome, Ok(()));
        assert!(heard.snapshot == file);
        Some(())
    });
    // The next may come.
    send(&one, 2, b"small");
    one.ear.wait("the second outcome", |heard| (heard.sent.get(1) == Some(&(2, true))).then_some(()));
    two.ear.wait("the receiver's second outcome", |heard| {
        assert_eq!(heard.snapshot, b"small");
        assert_eq!(*heard.snapshots.get(1)?, (1, Bytes::from_static(b"meta"), Ok(())));
        Some(())
    });
}

#[test]
fn a_link_that_breaks_fails_both_ends_and_it_can_be_begun_again() {
    let (_, tls) = cluster();
    let (one, two) = pair([&tls(1), &tls(2)]);
    let file = file(10 * CHUNK);
    let _held = send_gated(&one, 2, &file);
    two.ear.wait("a part of it", |heard| (!heard.snapshot.is_empty()).then_some(()));
    one.knows(&[]);
    two.ear.wait("the receiver fails", |heard| heard.snapshots.first().map(|(_, _, o)| assert!(o.is_err())));
    one.ear.wait("the sender fails", |heard| (heard.sent.first() == Some(&(2, false))).then_some(()));
    assert_eq!(two.ear.look(|heard| heard.sinks_dropped), 1);
    assert_eq!(
        one.links.sender().send_snapshot(2, Bytes::new(), 0, Box::new(io::empty())),
        Err(NotSent::Down)
    );
    one.knows(&[&two]);
    one.wait_up(2);
    send(&one, 2, &file);
    one.ear.wait("it arrives", |heard| (heard.sent.get(1) == Some(&(2, true))).then_some(()));
    assert!(two.ear.look(|heard| heard.snapshot == file));
}

#[test]
fn the_receivers_reasons_and_the_senders_reach_each_other() {
    let told = |one: &Node| {
        one.ear.wait("the sender fails", |heard| (heard.sent == [(2, false)]).then_some(()));
    };
    let outcome = |two: &Node| {
        two.ear
            .wait("the receiver fails", |heard| heard.snapshots.first().map(|(_, _, o)| o.clone()))
            .unwrap_err()
    };
    let pair = |behaviour| {
        let two = Node::start_with(config(2, &Tls::Plain), behaviour);
        let one = Node::start(1, &Tls::Plain);
        one.knows(&[&two]);
        one.wait_up(2);
        (one, two)
    };
    let refuses = Behaviour { refuses: Some("not now".to_owned()), ..Behaviour::default() };
    let (one, two) = pair(refuses);
    send(&one, 2, &file(9 * CHUNK));
    told(&one);
    // The link has gone on through all of it.
    one.send_all(&two, (0..10).map(|n| numbered(n, 10)));
    two.ear.wait("messages", |heard| (heard.frames.len() == 10).then_some(()));
    assert!(two.ear.look(|heard| heard.snapshots.is_empty()), "it was never begun");

    let full = Behaviour { sink_fails_at: Some(CHUNK as u64), ..Behaviour::default() };
    let (one, two) = pair(full);
    send(&one, 2, &file(9 * CHUNK));
    told(&one);
    assert_eq!(outcome(&two), "it cannot be written: no space");

    let (one, two) = pair(Behaviour::default());
    drop(send_gated(&one, 2, &file(9 * CHUNK)));
    told(&one);
    assert!(outcome(&two).contains("the disk is gone"));
}

#[test]
fn a_receiver_that_stops_breaks_off_what_arrives() {
    let (one, two) = pair([&Tls::Plain; 2]);
    let _held = send_gated(&one, 2, &file(10 * CHUNK));
    two.ear.wait("a part of it", |heard| (!heard.snapshot.is_empty()).then_some(()));
    let Node { links, ear, .. } = two;
    links.stop();
    assert_eq!(ear.look(|heard| heard.sinks_dropped), 1, "the sink is gone when the links are");
    one.ear.wait("the sender fails", |heard| (heard.sent == [(2, false)]).then_some(()));
}

#[test]
fn a_snapshot_that_does_not_move_is_given_up() {
    let two = Node::start(2, &Tls::Plain);
    let mut slow = config(1, &Tls::Plain);
    slow.limits.snapshot_stall = Duration::from_millis(200);
    let one = Node::start_with(slow, Behaviour::default());
    one.knows(&[&two]);
    one.wait_up(2);
    let _held = send_gated(&one, 2, &file(10 * CHUNK));
    one.ear.wait("it is given up", |heard| (heard.sent == [(2, false)]).then_some(()));
    two.ear.wait("the receiver hears", |heard| heard.snapshots.first().map(|s| assert!(s.2.is_err())));
    assert!(one.links.sender().is_up(2), "the link itself is well");
}
