//! Nodes come and go by the operator's command while clients trade.

use std::time::Instant;

use crate::checker::judge;
use crate::harness::{COMMON, Cluster, until};
use crate::http::Signer;
use crate::load::Load;
use crate::net::Net;

/// How the leader sees a member: whether it votes.
fn votes(cluster: &Cluster, node: u64) -> Result<Option<bool>, String> {
    let status = cluster.status()?;
    let leader = status["leader"].as_u64().ok_or("nobody leads")?;
    let nodes = status["nodes"].as_array().ok_or("no nodes")?;
    let seen = nodes.iter().find(|said| said["node"] == leader).ok_or("the leader is silent")?;
    let members = seen["status"]["members"].as_array().ok_or("no members")?;
    Ok(members.iter().find(|member| member["node"] == node).and_then(|member| member["voter"].as_bool()))
}

/// What `grid cluster add` needs to know of a new node, beside its number.
fn place_of(cluster: &Cluster, node: u64) -> [String; 6] {
    let port_base = cluster.binary_addr(1).port() - 4 + 10 * (node as u16 - 1);
    let words = ["--node", "", "--host", "", "--port-base", ""].map(str::to_owned);
    let [n, _, h, _, p, _] = words;
    [n, node.to_string(), h, cluster.net.host(node).to_string(), p, port_base.to_string()]
}

/// Brings a new node in that follows and never votes.
pub(crate) fn add_learner(cluster: &mut Cluster, node: u64) {
    let place = place_of(cluster, node);
    let words: Vec<_> = ["add", "--learner"].into_iter().chain(place.iter().map(String::as_str)).collect();
    cluster.operator(&words).expect("a learner is added");
    cluster.spawn(node);
    cluster.wait_ready(node);
}

/// Brings a new node in, with a vote.
pub(crate) fn add_voter(cluster: &mut Cluster, node: u64) {
    add_learner(cluster, node);
    let place = place_of(cluster, node);
    let words: Vec<_> = ["add"].into_iter().chain(place.iter().map(String::as_str)).collect();
    cluster.operator(&words).expect("the learner gets its vote");
}

#[test]
fn a_node_joins_gets_its_vote_and_another_leaves() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    load.go_on(100, &cluster);

    let place = place_of(&cluster, 4);
    let mut new = vec!["add"];
    new.extend(place.iter().map(String::as_str));
    let told = cluster.operator(&[&new[..], &["--learner"]].concat()).expect("a learner is added");
    assert!(told.contains("node-4/config.toml"), "it says how to start it: {told}");
    assert_eq!(votes(&cluster, 4), Ok(Some(false)));
    cluster.spawn(4);
    cluster.wait_ready(4);
    load.go_on(50, &cluster);
    // The same command without --learner waits until it has caught up and gives it its vote.
    let told = cluster.operator(&new).expect("the learner gets its vote");
    println!("{told}");
    assert_eq!(votes(&cluster, 4), Ok(Some(true)));
    load.go_on(50, &cluster);

    let told = cluster.operator(&["transfer", "--to", "4"]).expect("leadership is handed over");
    println!("{told}");
    until("node 4 leads", || if cluster.leader() == 4 { Ok(()) } else { Err(cluster.all_printed()) });
    load.go_on(50, &cluster);

    let gone = 2;
    println!("{}", cluster.operator(&["remove", "--node", "2"]).expect("a node is removed"));
    let status = cluster.wait_end(gone);
    assert!(status.success(), "a removed node stops in good order: {status}\n{}", cluster.all_printed());
    let printed = cluster.printed(gone);
    assert!(printed.contains("no longer a member"), "it says why it stops:\n{printed}");
    cluster.leave_out(gone);
    assert_eq!(votes(&cluster, gone), Ok(None));

    // Of the three that are left, the leader may die.
    let leader = cluster.leader();
    let at = Instant::now();
    cluster.kill(leader);
    load.first_answer(at, cluster.binary_addr(leader), &cluster);
    load.go_on(50, &cluster);
    cluster.restart(leader);
    println!("{}", cluster.operator(&["status"]).expect("a leader"));
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

/// A node that joins when the leader no longer has the log's beginning gets a snapshot, and comes up in place from it.
#[test]
fn a_node_that_the_log_cannot_reach_takes_a_snapshot_and_serves() {
    let short = COMMON
        .replace("segment_bytes = 1048576", "segment_bytes = 131072\nretain_bytes = 65536")
        .replace("snapshot_every_commands = 3000", "snapshot_every_commands = 300");
    let mut cluster = Cluster::make(Net::Loopback, 3, &short);
    // One node keeps everything, for the checker; the others are short of disk.
    let archive = 1;
    cluster.edit_config(archive, "retain_bytes = 65536", "retain_bytes = 8589934592");
    for node in 1..=3 {
        cluster.spawn(node);
    }
    for node in 1..=3 {
        cluster.wait_ready(node);
    }
    let load = Load::start(&cluster, 4);
    if cluster.leader() == archive {
        cluster.operator(&["transfer", "--to", "2"]).expect("leadership is handed over");
    }
    until("the leader has let go of the log's beginning", || {
        let status = cluster.status()?;
        let leader = status["leader"].as_u64().ok_or("nobody leads")?;
        let nodes = status["nodes"].as_array().ok_or("no nodes")?;
        let seen = nodes.iter().find(|said| said["node"] == leader).ok_or("the leader is silent")?;
        let first = seen["status"]["first_index"].as_u64();
        if leader != archive && first > Some(1) { Ok(()) } else { Err(format!("{leader}: {first:?}")) }
    });
    add_voter(&mut cluster, 4);
    let printed = cluster.printed(4);
    assert!(printed.contains("up again in place"), "its state came from another node:\n{printed}");
    // Reads on the new node know what is in the snapshot.
    let signer = Signer::new(&cluster.ready(4).trading_url, cluster.operator_seed());
    assert_eq!(signer.get("/markets").as_array().map(Vec::len), Some(2));
    load.go_on(100, &cluster);
    let leader = cluster.leader();
    cluster.kill(leader);
    load.go_on(50, &cluster);
    cluster.restart(leader);
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

#[test]
fn the_operator_is_answered_in_words() {
    let mut cluster = Cluster::start(3);
    let table = cluster.operator(&["status"]).expect("a leader");
    for words in ["led by node", "disk-quorum", "follower", "behind"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let nobody = cluster.operator(&["remove", "--node", "9"]).expect_err("there is no node 9");
    assert!(nobody.contains("no such node"), "{nobody}");
    let written = cluster.operator(&["snapshot"]).expect("snapshots are written");
    assert!(written.contains("node 3"), "{written}");
    let leader = cluster.leader();
    let follower = cluster.follower();
    cluster.kill(leader);
    cluster.kill(follower);
    let alone = until("the last one knows that it is alone", || match cluster.operator(&["status"]) {
        Ok(table) => Err(table),
        Err(words) => Ok(words),
    });
    assert!(alone.contains("no node leads"), "{alone}");
    assert!(alone.contains("silent"), "{alone}");
    cluster.restart(leader);
    cluster.wait_ready(leader);
    let again = until("two of three have a leader", || cluster.operator(&["status"]));
    assert!(again.contains("led by node"), "{again}");
    let _ = follower;
}
