//! Operators and damaged nodes, who ask and wait.

use super::super::admin::{self, AdminRefusal, MemberStatus, NodeRole, Status};
use super::super::repair::{RepairCall, RepairFrom};
use super::*;

fn answering(id: NodeId, tls: &Tls, reply: Option<AdminReply>) -> Node {
    Node::start_with(config(id, tls), Behaviour { admin: reply, ..Behaviour::default() })
}

#[test]
fn an_operator_asks_whichever_node_and_is_led_to_the_leader() {
    let (authority, tls) = cluster();
    let operator = Tls::Mutual(authority.issue_operator().unwrap());
    let leader = answering(1, &tls(1), Some(AdminReply::Done { words: "done".to_owned() }));
    let other = answering(
        2,
        &tls(2),
        Some(AdminReply::NotLeader { leader: Some(1), address: Some(leader.links.address()) }),
    );
    let request = AdminRequest::Add {
        node: 4,
        peer_address: "127.0.0.1:1".to_owned(),
        binary_address: "127.0.0.1:2".to_owned(),
        learner: true,
    };
    let reply = admin::call(other.links.address(), 7, &operator, &request, GUARD).unwrap();
    assert_eq!(reply, AdminReply::Done { words: format!("done: {request:?}") });
}

#[test]
fn without_a_leader_the_operator_is_told_so() {
    let nobody = AdminReply::NotLeader { leader: None, address: None };
    let node = answering(1, &Tls::Plain, Some(nobody.clone()));
    let reply =
        admin::call(node.links.address(), 7, &Tls::Plain, &AdminRequest::Transfer { to: 2 }, GUARD).unwrap();
    assert_eq!(reply, nobody);
    // Two nodes that each take the other for the leader are not asked for ever.
    let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    drop((a, b));
    let point = |to| Behaviour {
        admin: Some(AdminReply::NotLeader { leader: None, address: Some(to) }),
        ..Behaviour::default()
    };
    let _a = Node::start_with(LinksConfig { listen: at_a, ..config(1, &Tls::Plain) }, point(at_b));
    let _b = Node::start_with(LinksConfig { listen: at_b, ..config(2, &Tls::Plain) }, point(at_a));
    let reply = admin::call(at_a, 7, &Tls::Plain, &AdminRequest::Snapshot, GUARD).unwrap();
    assert_eq!(reply, nobody);
}

#[test]
fn a_status_reads_back_whole() {
    let member = MemberStatus {
        node: 1,
        voter: true,
        peer_address: "10.0.0.1:7500".to_owned(),
        binary_address: "10.0.0.1:7400".to_owned(),
        linked: true,
        matched: Some(99),
        active: None,
        receives_snapshot: false,
    };
    let status = Status {
        cluster: 7,
        node: 1,
        role: NodeRole::Leader,
        term: 3,
        leader: Some(1),
        first_index: 1,
        last_index: 100,
        commit: 99,
        applied: 98,
        seq: 5000,
        chain: u64::MAX,
        snapshot_index: 50,
        durability: "disk-quorum".to_owned(),
        members: vec![member],
    };
    let reply = AdminReply::Status(Box::new(status));
    let node = answering(1, &Tls::Plain, Some(reply.clone()));
    let told = admin::call(node.links.address(), 7, &Tls::Plain, &AdminRequest::Status, GUARD).unwrap();
    assert_eq!(told, reply);
}

#[test]
fn a_request_that_falls_in_the_node_is_answered_all_the_same() {
    let node = answering(1, &Tls::Plain, None);
    let told = admin::call(node.links.address(), 7, &Tls::Plain, &AdminRequest::Snapshot, GUARD).unwrap();
    assert!(matches!(told, AdminReply::Refused { code: AdminRefusal::Stopping, .. }));
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let told = admin::call(address, 7, &Tls::Plain, &AdminRequest::Status, GUARD).unwrap_err();
    assert!(matches!(told, CallError::Connection { .. }) && told.to_string().contains(&address.to_string()));
    // One that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let patience = Duration::from_millis(100);
    let told = admin::call(address, 7, &Tls::Plain, &AdminRequest::Status, patience).unwrap_err();
    assert!(matches!(told, CallError::Timeout(_)), "{told}");
}

#[test]
fn a_damaged_node_fetches_ranges_one_after_the_other() {
    let (_, tls) = cluster();
    let node = Node::start(1, &tls(1));
    let whom = RepairFrom { cluster: 7, node: 3, peer: 1, address: node.links.address() };
    let mut call = RepairCall::connect(&whom, &tls(3), GUARD).unwrap();
    for from_index in [5, 6, 7] {
        let blocks = call.fetch(RepairRequest { from_index, chain: 1 }, GUARD).unwrap();
        assert_eq!((blocks.status.term, blocks.status.last_index), (3, from_index));
        assert_eq!(blocks.blocks, vec![9; 3 << 20]);
    }
    // Its journal is repaired before its links run: its own peers' connection is not in the way.
    let mut links = Node::start(3, &tls(3));
    links.knows(&[&node]);
    links.wait_up(1);
    call.fetch(RepairRequest { from_index: 1, chain: 1 }, GUARD).unwrap();
    links.ear = Ear::default();
}

#[test]
fn callers_are_counted() {
    let mut few = config(1, &Tls::Plain);
    few.limits.services_max = 1;
    let node = Node::start_with(few, Behaviour::default());
    let whom = RepairFrom { cluster: 7, node: 3, peer: 1, address: node.links.address() };
    let held = RepairCall::connect(&whom, &Tls::Plain, GUARD).unwrap();
    let told = RepairCall::connect(&whom, &Tls::Plain, GUARD);
    assert!(
        matches!(&told, Err(CallError::Refused { refusal, .. }) if refusal.code == RefusalCode::Full),
        "{told:?}"
    );
    drop(held);
}
