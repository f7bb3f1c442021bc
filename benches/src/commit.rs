//! What a commit costs: one command at a time, from the moment it is handed in until its events are told, against one bare
//! write and fdatasync of the same bytes on the same disk.
//!
//! A regression in the ratio means that the order path, not the disk, became slower. The disk itself is in both figures.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use grid_engine::command::Entry;
use grid_sequencer::Durability;

use crate::awake::Awake;
use crate::cluster::{Cluster, entries, submit_all};
use crate::figures::{Rounds, Table, median_of, micros, per_second, ratios};
use crate::ground::Ground;

/// The file that the bare writes go to, filled with zeros before as a segment is.
const BARE_BYTES: usize = 32 << 20;

/// Whoever commits one command after the other.
enum Committer {
    /// Only the write and the sync, of as many bytes as a block of one command has.
    Bare {
        file: File,
        at: usize,
        block: Vec<u8>,
    },
    Nodes {
        cluster: Box<Cluster>,
        load: VecDeque<Entry>,
    },
}

impl Committer {
    fn bare(ground: &Ground, block_bytes: usize) -> Result<Self, Box<dyn Error>> {
        let path = ground.at("bare");
        std::fs::write(&path, vec![0; BARE_BYTES])?;
        let file = File::options().write(true).open(&path)?;
        file.sync_all()?;
        Ok(Self::Bare { file, at: 0, block: vec![0xa5; block_bytes] })
    }

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
        let begin = Instant::now();
        match self {
            Self::Bare { file, at, block } => {
                file.write_all_at(block, *at as u64)?;
                file.sync_data()?;
                *at = (*at + block.len()) % (BARE_BYTES - block.len());
            }
            Self::Nodes { cluster, load } => {
                let entry = load.pop_front().ok_or("enough was generated")?;
                if cluster.try_submit(entry)?.is_some() {
                    return Err("an idle ring has room".into());
                }
                let mut told = false;
                while !told {
                    cluster.take_told(|output| told |= output.block.commands().len() > 0)?;
                }
            }
        }
        Ok(begin.elapsed())
    }

    /// The median of `commits` commits in a row.
    fn round(&mut self, commits: u64) -> Result<f64, Box<dyn Error>> {
        if let Self::Nodes { cluster, .. } = self {
            cluster.settle()?;
        }
        let took: Result<Vec<_>, _> = (0..commits).map(|_| self.commit()).collect();
        Ok(micros(median_of(&mut took?)))
    }
}

/// Bare writes, and clusters of one and of three nodes with both durabilities, taking turns in each round.
///
/// # Errors
/// The world failed; nothing was measured then.
pub fn commit_latency(ground: &Ground, commits: u64, rounds: usize) -> Result<Table, Box<dyn Error>> {
    let per_round = (commits / rounds as u64).max(1);
    let all = per_round * (rounds as u64 + 1);
    // What the mix takes in the log: most of its blocks of one command are this large.
    let block_bytes = 192;
    let nodes = |nodes, durability| Committer::nodes(ground, nodes, durability, all);
    let mut contenders = [
        ("one bare write and fdatasync", Committer::bare(ground, block_bytes)?),
        ("disk-quorum, 1 node", nodes(1, Durability::DiskQuorum)?),
        ("disk-quorum, 3 nodes", nodes(3, Durability::DiskQuorum)?),
        ("memory-quorum, 1 node", nodes(1, Durability::MemoryQuorum)?),
        ("memory-quorum, 3 nodes", nodes(3, Durability::MemoryQuorum)?),
    ];
    let mut took = vec![Rounds::default(); contenders.len()];
    let awake = Awake::keep();
    for round in 0..=rounds {
        for ((_, contender), took) in contenders.iter_mut().zip(&mut took) {
            let median = contender.round(per_round)?;
            // The first round warms everybody up.
            if round > 0 {
                took.push(median);
            }
        }
    }
    drop(awake);
    let mut table = Table::new(
        &format!("commit_latency: one command at a time, {per_round} a round, {rounds} rounds"),
        ground.kind(),
    );
    table.note(format!(
        "each figure is the median of a round; bare: {block_bytes} bytes, as a block of one command has"
    ));
    table.note("all nodes, their disks and this bench share one machine; links are mutual TLS over loopback");
    table.note(
        "a thread on each core, asleep but for some microseconds, keeps it awake for all contenders alike",
    );
    for ((name, _), took) in contenders.iter().zip(&took) {
        table.row(*name, "µs", took.clone());
    }
    for ((name, _), of) in contenders.iter().zip(&took).skip(1) {
        table.row(format!("{name}, against bare"), "times", ratios(of, &took[0]));
    }
    for (_, contender) in contenders {
        if let Committer::Nodes { cluster, .. } = contender {
            drop(cluster.stop());
        }
    }
    Ok(table)
}

/// As many commands as the leader takes, until the last is told: three nodes against one.
///
/// # Errors
/// The world failed; nothing was measured then.
pub fn replicated_throughput(ground: &Ground, commands: u64, rounds: usize) -> Result<Table, Box<dyn Error>> {
    let load = entries(commands);
    let (mut one, mut three) = (Rounds::default(), Rounds::default());
    for round in 0..rounds {
        for (nodes, rates) in [(1, &mut one), (3, &mut three)] {
            let name = format!("throughput-{nodes}-{round}");
            let mut cluster = Cluster::start(ground, &name, nodes, Durability::DiskQuorum)?;
            rates.push(per_second(load.len() as u64, submit_all(&mut cluster, load.clone())?));
            let dirs: Vec<_> = (0..nodes).map(|node| cluster.data_dir(node)).collect();
            let stopped = cluster.stop();
            drop(stopped);
            for dir in dirs {
                std::fs::remove_dir_all(dir)?;
            }
        }
    }
    let mut table = Table::new(
        &format!("replicated_throughput: {} commands of the mix, disk-quorum", load.len()),
        ground.kind(),
    );
    table.note("all nodes, their disks and this bench share one machine, so three nodes do three times the work on it");
    table.row("1 node", "commands/s", one.clone());
    table.row("3 nodes", "commands/s", three.clone());
    table.row("3 nodes against 1", "times", ratios(&three, &one));
    Ok(table)
}
