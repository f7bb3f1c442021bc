//! Leaders die under load, twenty in a row, and all nodes are restarted one by one.

use std::time::{Duration, Instant};

use crate::checker::{doubt, judge};
use crate::harness::{COMMON, Cluster, until};
use crate::load::Load;
use crate::net::Net;
use crate::warden::Warden;

/// Leaders killed by this test alone.
const KILLS: usize = 20;

#[test]
fn twenty_leaders_are_killed_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    load.go_on(200, &cluster);
    let mut times = Vec::new();
    for kill in 0..KILLS {
        let leader = cluster.leader();
        let address = cluster.binary_addr(leader);
        let term = cluster.status().expect("it answers")["term"].as_u64();
        let led = leaders_so_far(&cluster);
        let at = Instant::now();
        cluster.kill(leader);
        until("a new leader", || {
            if leaders_so_far(&cluster) > led { Ok(()) } else { Err(cluster.all_printed()) }
        });
        let elected = at.elapsed();
        let (session, answer) = load.first_answer(at, address, &cluster);
        let times_of = [elected, session - at, answer - at];
        println!(
            "kill {kill}: node {leader}, leader of term {term:?}; election, session, answer after {times_of:?}"
        );
        times.push(times_of);
        // The dead one comes back while the others trade; the next kill does not wait until it has caught up, only
        // until the cluster could lose another.
        cluster.restart(leader);
        until("three nodes that hold the log", || in_reach(&cluster));
        load.go_on(20, &cluster);
    }
    let clients = load.stop();
    let summary = judge(&mut cluster, &clients);
    assert_eq!(summary["unanswered"], 0);
    println!("from a leader's kill (a follower stands for election after 1 to 2 s of silence):");
    for (nth, what) in ["a new leader", "the first session there", "the first answer"].into_iter().enumerate()
    {
        report(what, times.iter().map(|times| times[nth]).collect());
    }
}

/// How often any node has said that it leads.
fn leaders_so_far(cluster: &Cluster) -> usize {
    cluster.journals().iter().map(|(node, _)| cluster.printed(*node).matches(" leads in term ").count()).sum()
}

/// The leader hears from every other node.
pub(crate) fn in_reach(cluster: &Cluster) -> Result<(), String> {
    let status = cluster.status()?;
    let leader = status["leader"].as_u64().ok_or("nobody leads")?;
    let nodes = status["nodes"].as_array().ok_or("no nodes")?;
    let seen = nodes.iter().find(|node| node["node"] == leader).ok_or("the leader is silent")?;
    let members = seen["status"]["members"].as_array().ok_or("no members")?;
    let away: Vec<_> = members.iter().filter(|m| m["node"] != leader && m["active"] != true).collect();
    if away.is_empty() { Ok(()) } else { Err(format!("away: {away:?}\n{}", cluster.all_printed())) }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: best {:?}, median {median:?}, worst {worst:?} of {}", times[0], times.len());
}

#[test]
fn all_nodes_are_restarted_one_by_one_and_clients_only_wait() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    let warden = Warden::start(&cluster, &load);
    load.go_on(100, &cluster);
    for node in [1, 2, 3] {
        let leads = cluster.leader() == node;
        let at = Instant::now();
        let status = cluster.terminate(node);
        assert!(status.success(), "node {node}: {status}\n{}", cluster.all_printed());
        if leads {
            let (_, answer) = load.first_answer(at, cluster.binary_addr(node), &cluster);
            println!(
                "node {node} led and left in good order: first answer elsewhere after {:?}",
                answer - at
            );
        }
        load.go_on(50, &cluster);
        cluster.restart(node);
        until("three nodes that hold the log", || in_reach(&cluster));
    }
    load.until_suspended(&cluster);
    warden.stop();
    let clients = load.stop();
    judge(&mut cluster, &clients); // A short run, so that many lies about it are soon told.
    doubt(&cluster, &clients);
}

/// Three nodes start at once on empty logs, and the one that leads dies in the middle of writing the venue's directory.
#[test]
fn a_leader_dies_while_it_makes_a_venue_of_an_empty_log() {
    for moment in [Duration::ZERO, Duration::from_millis(15)] {
        let mut cluster = Cluster::make(Net::Loopback, 3, COMMON);
        for node in 1..=3 {
            cluster.spawn(node);
        }
        let first = until("a node that begins", || {
            let begins = |node: &u64| cluster.printed(*node).contains("genesis");
            (1..=3).find(begins).ok_or_else(|| cluster.all_printed())
        });
        std::thread::park_timeout(moment);
        cluster.kill(first);
        for node in cluster.running() {
            cluster.wait_ready(node);
        }
        cluster.restart(first);
        let symbols = |node: u64| -> Vec<_> {
            cluster.ready(node).instruments.into_iter().map(|instrument| instrument.symbol).collect()
        };
        for node in 1..=3 {
            assert_eq!(symbols(node), symbols(1), "node {node}");
        }
        assert_eq!(symbols(1).iter().filter(|symbol| *symbol == "text-prime").count(), 1);
        let load = Load::start(&cluster, 2);
        load.go_on(20, &cluster);
        let clients = load.stop();
        judge(&mut cluster, &clients);
    }
}
