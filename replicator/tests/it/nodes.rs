//! Whole nodes, on loopback: elected, replicated, killed, taken over, brought up to date, changed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use grid_replicator::core::{Addresses, Members};
use grid_replicator::links::{self, AdminReply, AdminRequest, Limits, Tls};
use grid_replicator::{ClusterConfig, LinkSettings, Node, NodeConfig, NodeError, NodeEvent, RepairError};
use grid_sequencer::{Config, JournalConfig, Machine, SubmitError, ThreadLayout};
use tempfile::TempDir;

use crate::toy::{Command, Event, Toy};

/// A guard against a test that hangs; nothing is measured.
const GUARD: Duration = Duration::from_secs(60);

struct Cluster {
    dirs: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    founding: usize,
    nodes: Vec<Option<Node<Toy>>>,
    /// The deposits that each node has shown since the beginning.
    shown: Vec<Arc<Mutex<BTreeSet<u64>>>>,
    snapshot_every: u64,
    retain_bytes: u64,
}

impl Cluster {
    fn new(founding: usize, more: usize) -> Self {
        let all = founding + more;
        Self {
            dirs: (0..all).map(|_| tempfile::tempdir().expect("a directory")).collect(),
            addresses: grid_ports::addresses(all).expect("free ports"),
            founding,
            nodes: (0..all).map(|_| None).collect(),
            shown: (0..all).map(|_| Arc::default()).collect(),
            snapshot_every: 1 << 40,
            retain_bytes: 8 << 30,
        }
    }

    fn members(&self) -> Members {
        let voters = self.addresses[..self.founding].iter().enumerate();
        let voters = voters.map(|(nth, address)| {
            (nth as u64 + 1, Addresses { peer: address.to_string(), orders: String::new() })
        });
        Members::founding(voters).expect("members")
    }

    fn config(&self, nth: usize) -> NodeConfig {
        let links = LinkSettings {
            listen: self.addresses[nth],
            advertise: None,
            tls: Tls::Plain,
            limits: Limits::default(),
        };
        let cluster = ClusterConfig {
            links: Some(links),
            election_ticks: 10,
            window_blocks: 16,
            repair_patience: Duration::from_millis(500),
            ..ClusterConfig::new(7, nth as u64 + 1, self.members())
        };
        NodeConfig {
            data_dir: self.dirs[nth].path().to_owned(),
            journal: JournalConfig {
                segment_bytes: 64 << 10,
                retain_bytes: self.retain_bytes,
                ..JournalConfig::default()
            },
            sequencer: Config {
                layout: ThreadLayout::parked(),
                command_bytes_max: 2048,
                core_tick: Duration::from_millis(20),
                ..Config::new(&[])
            },
            snapshot_every: self.snapshot_every,
            cluster,
        }
    }

    fn start(&mut self, nth: usize) {
        let node = Node::start(self.config(nth), Toy::default, |_| {}).expect("it starts");
        let shown = Arc::clone(&self.shown[nth]);
        node.replica().on_output(move |output| {
            for event in output.events() {
                if let Event::Deposited { nth, .. } = event {
                    shown.lock().expect("whole").insert(*nth);
                }
            }
        });
        self.nodes[nth] = Some(node);
    }

    fn start_all(&mut self) {
        (0..self.founding).for_each(|nth| self.start(nth));
    }

    fn node(&self, nth: usize) -> &Node<Toy> {
        self.nodes[nth].as_ref().expect("it runs")
    }

    fn stop(&mut self, nth: usize) -> Toy {
        self.nodes[nth].take().expect("it runs").shutdown().machine
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|nth| self.nodes[*nth].is_some())
    }

    fn until<R>(&self, what: &str, found: impl Fn(&Self) -> Option<R>) -> R {
        let begun = Instant::now();
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(begun.elapsed() < GUARD, "nothing of this came: {what}");
            std::thread::yield_now();
        }
    }

    fn leader(&self) -> usize {
        self.until("a leader", |cluster| {
            cluster.running().find(|nth| cluster.node(*nth).leadership().epoch().is_some())
        })
    }

    /// Submits deposits `from..to`, each again until it shows at the leader: at least once, for the toy knows no sessions.
    fn deposit(&self, from: u64, to: u64) {
        for nth in from..to {
            self.until("a deposit that shows", |cluster| {
                let leader = cluster.leader();
                let node = cluster.node(leader);
                let command = Command::Deposit { producer: 0, nth, text: Vec::new() };
                match node.submitter().try_submit(command) {
                    Ok(()) => {}
                    Err(SubmitError::NotLeader(_) | SubmitError::Full(_)) => return None,
                    Err(error) => panic!("{error}"),
                }
                let before = node.leadership().epoch();
                let begun = Instant::now();
                while !cluster.shown[leader].lock().expect("whole").contains(&nth) {
                    if node.leadership().epoch() != before || begun.elapsed() > GUARD {
                        return None;
                    }
                    std::thread::yield_now();
                }
                Some(())
            });
        }
    }

    /// Waits until all running nodes stand at the same place, and compares what they are.
    fn agree(&self) -> u64 {
        self.until("nodes that stand at the same place", |cluster| {
            let mut places = cluster.running().map(|nth| {
                cluster
                    .node(nth)
                    .replica()
                    .read_at(|toy, position| (position.index, position.chain, toy.state_hash()))
            });
            let first = places.next()?;
            places.all(|place| place == first).then_some(first.0)
        })
    }

    fn ask(&self, nth: usize, request: &AdminRequest) -> AdminReply {
        links::admin::call(self.addresses[nth], 7, &Tls::Plain, request, GUARD).expect("it answers")
    }
}

#[test]
fn a_node_alone_takes_the_path_of_a_cluster_and_finds_its_log_again() {
    let dir = tempfile::tempdir().expect("a directory");
    for life in 0..3_u64 {
        let node = alone(dir.path());
        assert_eq!(node.leadership().leader(), Some(1));
        assert!(node.leadership().epoch().is_some());
        let before = node.replica().read(|toy| toy.commands);
        assert_eq!(before, life, "what was committed is there before anything is asked");
        let command = Command::Deposit { producer: 0, nth: life, text: Vec::new() };
        node.submitter().try_submit(command).expect("there is room");
        let stopped = node.shutdown();
        assert_eq!(stopped.machine.commands, life + 1);
        assert!(stopped.position.term > life, "each start is a term of its own");
    }
}

fn alone(dir: &Path) -> Node<Toy> {
    let config = NodeConfig {
        data_dir: dir.to_owned(),
        journal: JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::default() },
        sequencer: Config { command_bytes_max: 2048, ..Config::new(&[]) },
        snapshot_every: 1 << 40,
        cluster: ClusterConfig::alone(),
    };
    Node::start(config, Toy::default, |_| {}).expect("it starts")
}

#[test]
fn three_nodes_agree_and_go_on_when_the_leader_is_gone() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    cluster.deposit(0, 50);
    cluster.agree();
    let first = cluster.leader();
    cluster.stop(first);
    cluster.deposit(50, 100);
    assert_ne!(cluster.leader(), first);
    cluster.start(first);
    cluster.deposit(100, 120);
    cluster.agree();
    let toys: Vec<_> =
        cluster.running().collect::<Vec<_>>().into_iter().map(|nth| cluster.stop(nth)).collect();
    assert!(toys.iter().all(|toy| *toy == toys[0]), "{toys:?}");
    assert!(toys[0].commands >= 120, "nothing that was shown is lost: {}", toys[0].commands);
}

#[test]
fn leadership_is_handed_over_before_a_planned_stop() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    cluster.deposit(0, 5);
    for nth in 0..3 {
        let leader = cluster.leader();
        assert!(cluster.node(leader).hand_over(GUARD), "somebody takes over");
        cluster.deposit(5 + nth, 6 + nth);
    }
    cluster.agree();
}

#[test]
fn a_node_that_missed_more_than_the_log_holds_is_brought_up_by_a_snapshot() {
    let mut cluster = Cluster::new(3, 0);
    (cluster.snapshot_every, cluster.retain_bytes) = (50, 0);
    cluster.start_all();
    cluster.deposit(0, 10);
    let late = (cluster.leader() + 1) % 3;
    cluster.stop(late);
    // What a log lets go of depends on when its node took a snapshot, and who leads may change at any time.
    let deposited = Cell::new(10);
    cluster.until("logs that begin later", |cluster| {
        let from = deposited.replace(deposited.get() + 100);
        cluster.deposit(from, from + 100);
        cluster.running().all(|nth| cluster.node(nth).status().first > 20).then_some(())
    });
    let from = deposited.get();
    cluster.start(late);
    let event = cluster.node(late).next_event(GUARD);
    assert_eq!(event, Some(NodeEvent::Reload));
    cluster.stop(late);
    cluster.start(late);
    cluster.deposit(from, from + 10);
    cluster.agree();
}

#[test]
fn members_come_as_learners_are_promoted_and_go() {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    cluster.deposit(0, 20);
    cluster.start(3);
    let add = AdminRequest::Add {
        node: 4,
        peer_address: cluster.addresses[3].to_string(),
        binary_address: "127.0.0.1:1".to_owned(),
        learner: true,
    };
    let done = |reply: &AdminReply| matches!(reply, AdminReply::Done { .. });
    let reply = cluster.ask(0, &add);
    assert!(done(&reply), "{reply:?}");
    cluster.until("a learner that caught up", |cluster| {
        done(&cluster.ask(0, &AdminRequest::Promote { node: 4 })).then_some(())
    });
    cluster.agree();
    // Four voters: with the first two gone, no majority is left of three that did not hear of the fourth.
    let gone = (cluster.leader() + 1) % 4;
    let stays = (0..4).find(|nth| *nth != gone).expect("three");
    let reply = cluster.ask(stays, &AdminRequest::Remove { node: gone as u64 + 1 });
    assert!(done(&reply), "{reply:?}");
    let event = cluster.node(gone).next_event(GUARD);
    assert_eq!(event, Some(NodeEvent::Removed), "whoever is removed hears of it");
    cluster.stop(gone);
    cluster.deposit(20, 40);
    cluster.agree();
    let AdminReply::Status(status) = cluster.ask(stays, &AdminRequest::Status) else { panic!("a status") };
    assert_eq!(status.members.len(), 3);
}

/// Flips a byte in the payload of a block somewhere in the first segment, far from its end.
fn damage(dir: &Path) {
    let path = dir.join("journal/journal-0000000001.seg");
    let mut bytes = std::fs::read(&path).expect("the first segment");
    bytes[4096 + 64 * 20 + 70] ^= 0x10;
    std::fs::write(&path, bytes).expect("written");
}

#[test]
fn a_node_whose_journal_is_damaged_gets_the_blocks_back_from_the_others() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    cluster.deposit(0, 100);
    cluster.agree();
    let hurt = (cluster.leader() + 1) % 3;
    cluster.stop(hurt);
    // A snapshot would only hide the damage until somebody needs those blocks.
    std::fs::remove_dir_all(cluster.dirs[hurt].path().join("snapshots")).expect("removed");
    damage(cluster.dirs[hurt].path());
    cluster.deposit(100, 110);
    cluster.start(hurt);
    cluster.deposit(110, 120);
    cluster.agree();
    cluster.stop(hurt);
    let report = grid_sequencer::inspect::visit_blocks(cluster.dirs[hurt].path(), Toy::FORMAT, |_| {});
    assert!(report.expect("it verifies from the first block on").commands >= 120);
    let aside = std::fs::read_dir(cluster.dirs[hurt].path().join("journal")).expect("listed");
    let aside = aside
        .filter(|entry| entry.as_ref().expect("listed").file_name().to_string_lossy().contains("damaged"));
    assert!(aside.count() > 0, "what was damaged is kept");
}

#[test]
fn a_node_whose_journal_is_damaged_stays_away_unless_every_other_voter_answers() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    cluster.deposit(0, 100);
    cluster.agree();
    let hurt = (cluster.leader() + 1) % 3;
    let other = (cluster.leader() + 2) % 3;
    cluster.stop(hurt);
    cluster.stop(other);
    std::fs::remove_dir_all(cluster.dirs[hurt].path().join("snapshots")).expect("removed");
    damage(cluster.dirs[hurt].path());
    let refused = Node::start(cluster.config(hurt), Toy::default, |_| {}).expect_err("it must not take part");
    assert!(matches!(refused, NodeError::Repair(RepairError::NotHere { .. })), "{refused}");
    let words = refused.to_string();
    assert!(words.contains("journal-0000000001.seg") && words.contains("every other voter"), "{words}");
}

#[test]
fn a_learner_elsewhere_goes_on_at_its_own_sequence_without_a_gap() {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    let add = AdminRequest::Add {
        node: 4,
        peer_address: cluster.addresses[3].to_string(),
        binary_address: "127.0.0.1:1".to_owned(),
        learner: true,
    };
    cluster.deposit(0, 10);
    let reply = cluster.ask(0, &add);
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    // What whoever keeps a copy has: the number of the last command, and whether every one came exactly once after its own last.
    let copied = Arc::new(Mutex::new(0_u64));
    for life in 1..4 {
        cluster.start(3);
        let own = Arc::clone(&copied);
        let before = cluster.node(3).replica().on_output(move |output| {
            let mut last = own.lock().expect("whole");
            for (seq, _) in output.block.commands() {
                // Blocks that were applied and not known to be committed when this node stopped come again.
                assert!(seq.0 <= *last + 1, "a gap before {seq:?}");
                *last = (*last).max(seq.0);
            }
        });
        assert!(before.seq.0 <= *copied.lock().expect("whole"), "it resumes at or before its own sequence");
        cluster.deposit(life * 10, life * 10 + 10);
        cluster.agree();
        cluster.until("the copy is as far as the log", |cluster| {
            let reached = cluster.node(0).replica().applied().0;
            (*copied.lock().expect("whole") == reached).then_some(())
        });
        cluster.stop(3);
        cluster.deposit(life * 100, life * 100 + 5);
    }
    cluster.start(3);
    cluster.agree();
    let status = cluster.node(3).status();
    assert_eq!(status.standing, grid_replicator::core::Standing::Learner, "and it never votes");
}
