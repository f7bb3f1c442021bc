//! What a commit costs: one command at a time, from the moment it is handed in until its events are told, against one bare
//! write and fdatasync of the same bytes on the same disk.
//!
//! A regression in the ratio means that the order path, not the disk, became slower. The disk itself is in both figures.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use grid_engine::command::Entry;
use grid_sequencer::Durability;

use grid_harness::floors::BareWrites;
use grid_harness::{
    Against, Awake, Ground, Latencies, Rounds, Row, Scenario, Settings, histogram, nanos, per_second,
};
use hdrhistogram::Histogram;

use crate::cluster::{Cluster, entries, submit_all};

/// Whoever commits one command after the other.
enum Committer {
    /// Only the write and the sync, of as many bytes as a block of one command has.
    Bare(BareWrites),
    Nodes {
        cluster: Box<Cluster>,
        load: VecDeque<Entry>,
    },
}

impl Committer {
    fn nodes(
        ground: &Ground,
        nodes: usize,
        durability: Durability,
        commits: u64,
    ) -> Result<Self, Box<dyn Error>> {
        let mut cluster =
            Cluster::start(ground, &format!("commit-{nodes}-{durability:?}"), nodes, durability)?;
        // The market opens outside of what is measured.
        let mut load = entries(commits);
        let opening: VecDeque<_> = load.drain(..load.len() - commits as usize).collect();
        submit_all(&mut cluster, opening)?;
        Ok(Self::Nodes { cluster: Box::new(cluster), load })
    }

    fn commit(&mut self) -> Result<Duration, Box<dyn Error>> {
        match self {
            Self::Bare(bare) => Ok(bare.commit()?),
            Self::Nodes { cluster, load } => cluster.commit(load.pop_front().ok_or("enough was generated")?),
        }
    }

    /// What `commits` commits in a row took each.
    fn round(&mut self, commits: u64) -> Result<Histogram<u64>, Box<dyn Error>> {
        if let Self::Nodes { cluster, .. } = self {
            cluster.settle()?;
        }
        let mut took = histogram();
        for _ in 0..commits {
            took.saturating_record(nanos(self.commit()?));
        }
        Ok(took)
    }
}

/// One command at a time through 1 and 3 nodes, with both durabilities, against bare writes, taking turns in each round.
#[derive(Debug)]
pub struct CommitLatency;

impl Scenario for CommitLatency {
    fn name(&self) -> &'static str {
        "commit_latency"
    }

    fn shows(&self) -> &'static str {
        "One command at a time through 1 and 3 nodes, against one bare write and fdatasync. Worse means that the order path, not the \
         disk, became slower: the disk is in both figures."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let rounds = settings.rounds;
        let per_round = settings.commands_or(400);
        let all = per_round * (rounds as u64 + 1);
        // What the mix takes in the log: most of its blocks of one command are this large.
        let block_bytes = 192;
        let nodes = |nodes, durability| Committer::nodes(&ground, nodes, durability, all);
        let bare = "one bare write and fdatasync";
        let mut contenders = [
            (bare, Committer::Bare(BareWrites::new(&ground.at("bare"), block_bytes)?)),
            ("disk-quorum, 1 node", nodes(1, Durability::DiskQuorum)?),
            ("disk-quorum, 3 nodes", nodes(3, Durability::DiskQuorum)?),
            ("memory-quorum, 1 node", nodes(1, Durability::MemoryQuorum)?),
            ("memory-quorum, 3 nodes", nodes(3, Durability::MemoryQuorum)?),
        ];
        let mut took = vec![Latencies::default(); contenders.len()];
        let awake = Awake::keep();
        for round in 0..=rounds {
            for ((_, contender), took) in contenders.iter_mut().zip(&mut took) {
                let record = contender.round(per_round)?;
                // The first round warms everybody up.
                if round > 0 {
                    took.push(&record);
                }
            }
        }
        drop(awake);
        let floor = took[0].p50().clone();
        let mut rows = Vec::new();
        for ((name, contender), took) in contenders.into_iter().zip(took) {
            let row = Row::new(name).latency(took);
            rows.push(match contender {
                Committer::Bare(_) => row
                    .note(format!("{block_bytes} bytes, as a block of one command has; {per_round} a round"))
                    .note("all nodes, their disks and this bench share one machine; links are mutual TLS over loopback")
                    .note("a thread on each core, asleep but for some microseconds, keeps it awake for all contenders alike"),
                Committer::Nodes { cluster, .. } => {
                    drop(cluster.stop());
                    row.floor(bare, Against::Latency, floor.clone())
                }
            });
        }
        Ok(rows)
    }
}

/// As many commands as the leader takes, until the last is told: three nodes against one.
#[derive(Debug)]
pub struct ReplicatedThroughput;

impl Scenario for ReplicatedThroughput {
    fn name(&self) -> &'static str {
        "replicated_throughput"
    }

    fn shows(&self) -> &'static str {
        "As many commands as 3 nodes take, against 1, on one machine. Worse means that replication costs the leader more than it did."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let load = entries(settings.commands_or(300_000));
        let (mut one, mut three) = (Rounds::default(), Rounds::default());
        for round in 0..settings.rounds {
            for (nodes, rates) in [(1, &mut one), (3, &mut three)] {
                let name = format!("throughput-{nodes}-{round}");
                let mut cluster = Cluster::start(&ground, &name, nodes, Durability::DiskQuorum)?;
                rates.push(per_second(load.len() as u64, submit_all(&mut cluster, load.clone())?));
                cluster.agree()?;
                let dirs: Vec<_> = (0..nodes).map(|node| cluster.data_dir(node)).collect();
                drop(cluster.stop());
                for dir in dirs {
                    std::fs::remove_dir_all(dir)?;
                }
            }
        }
        Ok(vec![
            Row::new("1 node, disk-quorum").throughput(one.clone()).note(format!("{} commands of the mix", load.len())),
            Row::new("3 nodes, disk-quorum")
                .throughput(three)
                .floor("1 node", Against::Throughput, one)
                .note("all nodes, their disks and this bench share one machine, so three nodes do three times the work on it"),
        ])
    }
}
