//! What a commit costs: one command at a time, from the moment it is handed in until its events are told, against one bare
//! write and fdatasync of as many bytes on the same disk.
//!
//! A regression in the ratio means that the order path, not the disk, became slower. The disk itself is in both figures. This thread hands
//! in and is told as the order gateway's does: it steps the leader's stages itself, where the gateway would. What is left of the
//! distance is told by bare writes that another thread does, since a venue's journal has a thread of its own: the two wake-ups.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use grid_engine::Nanos;
use grid_engine::command::Entry;
use grid_sequencer::{Block, Durability, Position};

use grid_harness::floors::{AskedWrites, BareWrites};
use grid_harness::{
    Against, Awake, Ground, Latencies, Rounds, Row, Scenario, Settings, histogram, nanos, per_second,
};
use hdrhistogram::Histogram;

use crate::cluster::{Cluster, entries, submit_all};

/// Whoever commits one command after the other.
enum Committer {
    /// Only the write and the sync, of as many bytes as a block of one command has.
    Bare(BareWrites),
    /// The same, asked of another thread.
    Asked(AskedWrites),
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
            Self::Asked(asked) => Ok(asked.commit()?),
            Self::Nodes { cluster, load } => cluster.commit(load.pop_front().ok_or("enough was generated")?),
        }
    }

    /// What `commits` commits in a row took each.
    fn round(&mut self, commits: u64) -> Result<Histogram<u64>, Box<dyn Error>> {
        if let Self::Nodes { cluster, .. } = self {
            cluster.settle()?;
            cluster.host()?;
        }
        let mut took = histogram();
        for _ in 0..commits {
            took.saturating_record(nanos(self.commit()?));
        }
        if let Self::Nodes { cluster, .. } = self {
            cluster.give_back();
        }
        Ok(took)
    }
}

/// Bytes in the log of one command that is alone in its block, as most commands of the mix are.
pub(crate) fn block_bytes(commands: u64) -> usize {
    let alone = |entry: &Entry| {
        let mut form = Vec::new();
        entry.encode(&mut form);
        let payload = [&(form.len() as u32).to_le_bytes()[..], &form].concat();
        Block::entry(&Position::default(), 1, Nanos(1), 1, &payload).bytes().len()
    };
    let mut bytes: Vec<_> = entries(commands).iter().map(alone).collect();
    bytes.sort_unstable();
    bytes[bytes.len() / 2]
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
        let block_bytes = block_bytes(all);
        let nodes = |nodes, durability| Committer::nodes(&ground, nodes, durability, all);
        let bare = "one bare write and fdatasync";
        let writes = |name| BareWrites::new(&ground.at(name), block_bytes);
        let mut contenders = [
            (bare, Committer::Bare(writes("bare")?)),
            ("the same, by another thread", Committer::Asked(AskedWrites::new(writes("asked")?))),
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
                    .note("a thread on each core, asleep but for some microseconds, keeps it awake for all contenders alike")
                    .note("the leader's stages, but for the journal where that has a thread, are stepped by this one, as by an order gateway's"),
                Committer::Asked(_) => row.floor(bare, Against::Latency, floor.clone()),
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
