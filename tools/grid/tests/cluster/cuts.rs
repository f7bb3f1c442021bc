//! Nodes that can't talk: a leader that is paused, one that is cut off, lines that work one way only, lines that are slow.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::checker::judge;
use crate::harness::{COMMON, Cluster, until};
use crate::kills::in_reach;
use crate::load::Load;
use crate::net::Net;

#[test]
fn a_leader_that_was_paused_finds_itself_deposed() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    load.go_on(100, &cluster);
    for _ in 0..2 {
        let leader = cluster.leader();
        let at = Instant::now();
        cluster.signal(leader, Signal::STOP);
        let (_, answer) = load.first_answer(at, cluster.binary_addr(leader), &cluster);
        println!("node {leader} paused: first answer of another after {:?}", answer - at);
        load.go_on(100, &cluster);
        // It wakes up, believing that it leads, with clients' bytes of then in its sockets.
        cluster.signal(leader, Signal::CONT);
        until("three nodes that hold the log", || in_reach(&cluster));
        load.go_on(50, &cluster);
    }
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

#[test]
fn a_leader_that_is_cut_off_loses_nothing_and_follows_when_it_is_back() {
    let mut cluster = Cluster::start_on(Net::that_can_be_cut(3), 3, COMMON);
    let load = Load::start(&cluster, 4);
    load.go_on(100, &cluster);
    let mut times = Vec::new();
    // From its peers, both ways; its peers do not hear it; it does not hear its peers. Clients reach it all along.
    for (out, back) in [(true, true), (true, false), (false, true)] {
        let leader = cluster.leader();
        let others: Vec<_> = cluster.running().into_iter().filter(|node| *node != leader).collect();
        let at = Instant::now();
        for other in others {
            if out {
                cluster.net.cut(leader, other);
            }
            if back {
                cluster.net.cut(other, leader);
            }
        }
        let (_, answer) = load.first_answer(at, cluster.binary_addr(leader), &cluster);
        println!(
            "node {leader} cut off (out {out}, back {back}): first answer of another after {:?}",
            answer - at
        );
        times.push(answer - at);
        load.go_on(100, &cluster);
        cluster.net.mend();
        until("three nodes that hold the log", || in_reach(&cluster));
        load.go_on(50, &cluster);
    }
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

#[test]
fn slow_lines_make_it_slower_and_nothing_else() {
    // The other level of durability too, while we are at it.
    let common = COMMON.replace("[log]", "[log]\ndurability = \"memory-quorum\"");
    let mut cluster = Cluster::start_on(Net::that_can_be_slow(), 3, &common);
    let table = cluster.operator(&["status"]).expect("a leader");
    assert!(
        table.contains("memory-quorum") && cluster.printed(1).contains("durability memory-quorum"),
        "{table}"
    );
    let load = Load::start(&cluster, 4);
    load.go_on(50, &cluster);
    let term = cluster.status().expect("it answers")["term"].as_u64();
    let leader = cluster.leader();
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        // One line is much slower than the other, so that a quorum is always the near one.
        let far = from == 3 || to == 3;
        cluster.net.slow(from, to, Duration::from_millis(if far { 60 } else { 15 }));
    }
    load.go_on(100, &cluster);
    cluster.kill(leader);
    load.go_on(100, &cluster);
    cluster.net.mend();
    cluster.restart(leader);
    until("three nodes that hold the log", || in_reach(&cluster));
    assert!(cluster.status().expect("it answers")["term"].as_u64() > term);
    let clients = load.stop();
    judge(&mut cluster, &clients);
}
