//! Who is not let in, and that it is told why.

use rcgen::ExtendedKeyUsagePurpose;

use super::super::caller::Caller;
use super::super::frame::{Epoch, Hello, Role};
use super::super::identity::{ANY_NODE_NAME, node_name};
use super::super::session::Security;
use super::*;

fn knock(address: SocketAddr, tls: &Tls, name: &str, hello: &Hello) -> Result<Caller, CallError> {
    Caller::connect(address, &Security::new(tls).unwrap(), name, hello, Instant::now() + GUARD)
}

fn hello(role: Role, from: NodeId) -> Hello {
    Hello { cluster: 7, role, from, to: 1, epoch: Epoch { boot: 1, attempt: 1 }, listens: None }
}

#[test]
fn whoever_is_not_who_it_says_is_refused_with_the_reason() {
    let (authority, tls) = cluster();
    let node = Node::start(1, &tls(1));
    let operator = || Tls::Mutual(authority.issue_operator().unwrap());
    let stranger = |node| {
        let foreign = Authority::make().unwrap().issue_node(node).unwrap();
        Tls::Mutual(Identity { authority: authority.issue_operator().unwrap().authority, ..foreign })
    };
    let expired = |node| {
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(11 * 365 * 24 * 3600);
        let names = vec![node_name(node), ANY_NODE_NAME.to_owned()];
        Tls::Mutual(authority.issue(names, &[ExtendedKeyUsagePurpose::ClientAuth], long_ago).unwrap())
    };
    let refused = |code| (Some(code), "");
    let peer = |from| hello(Role::Peer, from);
    // What it shows, what it says, and what it is told: a code if it came as far as the Hello, else words about TLS.
    let table = [
        ("wrong authority", stranger(2), peer(2), (None, "UnknownCA")),
        ("expired", expired(2), peer(2), (None, "CertificateExpired")),
        ("another node's certificate", tls(3), peer(2), refused(RefusalCode::Certificate)),
        ("the node's own number", tls(1), peer(1), refused(RefusalCode::Node)),
        ("for another node", tls(2), Hello { to: 3, ..peer(2) }, refused(RefusalCode::Node)),
        ("another cluster", tls(2), Hello { cluster: 8, ..peer(2) }, refused(RefusalCode::Cluster)),
        ("an operator as a peer", operator(), peer(2), refused(RefusalCode::Certificate)),
        ("an operator repairing", operator(), hello(Role::Repair, 2), refused(RefusalCode::Certificate)),
        ("a node as operator", tls(2), hello(Role::Operator, 0), refused(RefusalCode::Certificate)),
    ];
    for (name, shows, says, (code, words)) in table {
        match knock(node.links.address(), &shows, "node-1.grid", &says) {
            Err(CallError::Refused { refusal, .. }) => assert_eq!(Some(refusal.code), code, "{name}"),
            Err(CallError::Tls { words: told, .. }) => {
                assert!(code.is_none() && told.contains(words), "{name}: {told}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // And the one that is right in everything still comes in.
    knock(node.links.address(), &tls(2), "node-1.grid", &peer(2)).unwrap();
}

#[test]
fn a_dialler_does_not_speak_to_another_node_than_it_meant() {
    let (_, tls) = cluster();
    let three = Node::start(3, &tls(3));
    let one = Node::start(1, &tls(1));
    // Somebody else has taken node 2's address.
    let sender = one.links.sender();
    sender.set_peers([(2, three.links.address())].into());
    one.ear.wait("it is unreachable", |heard| {
        let _ = sender.send(2, Frame::Raft(numbered(1, 8)));
        heard.unreachable.contains_key(&2).then_some(())
    });
    assert!(!sender.is_up(2));
    assert!(three.ear.look(|heard| heard.frames.is_empty()));
}

#[test]
fn plain_and_tls_do_not_meet() {
    let (_, tls) = cluster();
    for (mine, theirs) in [(Tls::Plain, tls(2)), (tls(1), Tls::Plain)] {
        let (one, two) = (Node::start(1, &mine), Node::start(2, &theirs));
        one.knows(&[&two]);
        let sender = one.links.sender();
        one.ear.wait("it is unreachable", |heard| {
            let _ = sender.send(2, Frame::Raft(numbered(1, 8)));
            heard.unreachable.contains_key(&2).then_some(())
        });
        assert!(!sender.is_up(2));
    }
}

#[test]
fn links_without_tls_stay_on_loopback() {
    let open = LinksConfig { listen: ([0, 0, 0, 0], 0).into(), ..config(1, &Tls::Plain) };
    assert!(matches!(Links::bind(open), Err(LinksError::PlainBeyondLoopback(_))));
}

#[test]
fn a_certificate_without_its_key_is_noticed_at_the_start() {
    let authority = Authority::make().unwrap();
    let (one, two) = (authority.issue_node(1).unwrap(), authority.issue_node(2).unwrap());
    for bad in [
        Identity { key: two.key, ..one.clone() },
        Identity { key: String::new(), ..one.clone() },
        Identity { certificate: String::new(), ..one.clone() },
        Identity { authority: "no PEM".to_owned(), ..one },
    ] {
        let bound = Links::bind(config(1, &Tls::Mutual(bad)));
        assert!(matches!(bound, Err(LinksError::Identity(IdentityError::Invalid(_)))), "{bound:?}");
    }
}

#[test]
fn an_operator_that_sends_a_peers_frames_is_thrown_out() {
    let (authority, tls) = cluster();
    let node = Node::start_with(
        config(1, &tls(1)),
        Behaviour { admin: Some(AdminReply::Done { words: "done".to_owned() }), ..Behaviour::default() },
    );
    let operator = Tls::Mutual(authority.issue_operator().unwrap());
    for kind in [Kind::Raft, Kind::SnapshotBegin, Kind::RepairRequest, Kind::Hello] {
        let hello = Hello { to: 0, ..hello(Role::Operator, 0) };
        let mut caller = knock(node.links.address(), &operator, ANY_NODE_NAME, &hello).unwrap();
        let told = caller.exchange(kind, b"whatever", Kind::AdminReply);
        assert!(matches!(told, Err(CallError::Connection { .. })), "{kind:?}: {told:?}");
    }
    assert!(node.ear.look(|heard| heard.frames.is_empty()));
}
