//! From a command handed in to the answer told, in one process: sequencer, journal, matcher and engine, without a network.
//!
//! A regression without the journal means that the stages or the hand-offs between them became dearer; one only with it, that a
//! commit takes more of the disk than the one write and the one sync that it needs.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;

use grid_engine::Engine;
use grid_engine::command::Entry;
use grid_engine::event::{Event, ReportBody};
use grid_harness::floors::{BareWrites, busy_beside, pinned};
use grid_harness::{Against, Ground, Latencies, Rounds, Row, Scenario, Settings, histogram};
use grid_sequencer::{Disk, Output, RealDisk, Wait};
use hdrhistogram::Histogram;

use crate::cluster::entries;
use crate::inside::{Inside, Seating};
use crate::no_disk::NoDisk;
use crate::rings::{hop_floor, hop_floor_name};

/// Commands per second of the open loop, unless asked for otherwise: far below what the path takes, so that a latency is not a queue.
const RATE: f64 = 100_000.0;

/// What one run of one venue found.
struct Run {
    one_by_one: Histogram<u64>,
    at_rate: Option<(Histogram<u64>, f64)>,
    rate: f64,
    /// Bytes of most blocks that carry one command.
    block_bytes: u64,
}

/// The commands of one run, after those that open the market.
struct Load {
    opening: VecDeque<Entry>,
    one_by_one: VecDeque<Entry>,
    at_rate: VecDeque<Entry>,
    all_at_once: VecDeque<Entry>,
}

impl Load {
    fn new(one_by_one: u64, at_rate: u64, all_at_once: u64) -> Self {
        let mut all = entries(one_by_one + at_rate + all_at_once);
        let mut last = |commands: u64| all.split_off(all.len() - commands as usize);
        let all_at_once = last(all_at_once);
        let at_rate = last(at_rate);
        let one_by_one = last(one_by_one);
        Self { opening: all, one_by_one, at_rate, all_at_once }
    }

    fn len(&self) -> usize {
        self.opening.len() + self.one_by_one.len() + self.at_rate.len() + self.all_at_once.len()
    }
}

/// No command of the mix is refused.
fn accepted(output: &Output<Engine>) -> Result<(), String> {
    for event in output.events() {
        if let Event::Report { report, .. } = event
            && matches!(report.body, ReportBody::Rejected { .. })
        {
            return Err(format!("nothing of the mix is refused: {report:?}"));
        }
    }
    Ok(())
}

fn run(
    ground: &Ground,
    disk: Arc<dyn Disk>,
    seating: &Seating,
    load: &Load,
    rate: f64,
) -> Result<Run, Box<dyn Error>> {
    let dir = ground.at("inproc");
    let mut venue = Inside::start(&dir, disk, seating, Engine::new)?;
    let ends = venue.ends();
    let measured = pinned(seating.client, || -> Result<Run, Box<dyn Error + Send + Sync>> {
        ends.all_at_once(load.opening.clone())?;
        let mut bytes = histogram();
        let one_by_one = ends.one_by_one(load.one_by_one.clone(), |output| {
            bytes.saturating_record(output.block.block().bytes().len() as u64);
            accepted(output)
        })?;
        let at_rate = match load.at_rate.is_empty() {
            true => None,
            false => Some(ends.at_rate(load.at_rate.clone(), rate)?),
        };
        let rate = ends.all_at_once(load.all_at_once.clone())?;
        Ok(Run { one_by_one, at_rate, rate, block_bytes: bytes.value_at_quantile(0.5) })
    });
    let measured = measured.map_err(|error| error as Box<dyn Error>)?;
    let stopped = venue.stop();
    if stopped.position.seq.0 != load.len() as u64 {
        return Err(
            format!("{} commands were handed in, the log has {:?}", load.len(), stopped.position).into()
        );
    }
    stopped.machine.check_invariants().map_err(|broken| format!("the books do not balance: {broken}"))?;
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(measured)
}

/// What was found of one seating, over all rounds.
#[derive(Default)]
struct Found {
    hops: Rounds,
    ring: Latencies,
    ring_at_rate: Latencies,
    reached: Rounds,
    ring_rate: Rounds,
    bare: Rounds,
    journal: Latencies,
    journal_rate: Rounds,
    block_bytes: Rounds,
}

/// See the head of this file.
#[derive(Debug)]
pub struct InprocOrderToAck;

impl Scenario for InprocOrderToAck {
    fn name(&self) -> &'static str {
        "inproc_order_to_ack"
    }

    fn shows(&self) -> &'static str {
        "From a command handed in to its answer, in one process, without and with the journal. Worse without it means that stages or hand-offs \
         became dearer; worse only with it, that a commit takes more than one write and one sync."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let rate = settings.rate_or(RATE);
        let planned = (rate * settings.seconds / 2.0) as u64;
        let ring_load = Load::new(
            settings.commands_or(100_000),
            settings.commands_or(planned.max(1)),
            settings.commands_or(500_000),
        );
        // A disk takes some milliseconds for each.
        let commits = settings.commands.unwrap_or(u64::MAX).min((settings.seconds * 150.0) as u64).max(1);
        let journal_load = Load::new(commits, 0, settings.commands_or(300_000));
        let seatings = Seating::of_this_machine();
        let mut found: Vec<Found> = seatings.iter().map(|_| Found::default()).collect();
        for _ in 0..settings.rounds {
            for (seating, found) in seatings.iter().zip(&mut found) {
                let hop = hop_floor(seating.wait);
                found.hops.push(hop * f64::from(seating.hops));
                let ring = run(&ground, NoDisk::shared(), seating, &ring_load, rate)?;
                let journal = run(&ground, RealDisk::shared(), seating, &journal_load, rate)?;
                let mut bare = BareWrites::new(&ground.at("bare"), journal.block_bytes as usize)?;
                let venue = seating.layout.threads.iter().find_map(|thread| thread.core);
                let venue = venue.map(|id| core_affinity::CoreId { id });
                // As in the venue: whoever syncs sleeps in the disk, and whoever waits for the answer spins beside it.
                let bare = match seating.wait {
                    Wait::Spin => busy_beside(seating.client, || pinned(venue, || bare.round(commits)))?,
                    _ => bare.round(commits)?,
                };
                let path = ring.one_by_one.value_at_quantile(0.5) as f64;
                found.bare.push(path + bare.value_at_quantile(0.5) as f64);
                found.ring.push(&ring.one_by_one);
                if let Some((record, reached)) = &ring.at_rate {
                    found.ring_at_rate.push(record);
                    found.reached.push(*reached);
                }
                found.ring_rate.push(ring.rate);
                found.journal.push(&journal.one_by_one);
                found.journal_rate.push(journal.rate);
                found.block_bytes.push(journal.block_bytes as f64);
            }
        }
        Ok(seatings.iter().zip(found).flat_map(|(seating, found)| rows(seating, found, rate)).collect())
    }
}

fn rows(seating: &Seating, found: Found, rate: f64) -> [Row; 5] {
    let name = |what: &str| format!("{}, {what}", seating.name);
    let hops = hop_floor_name(seating);
    [
        Row::new(name("no journal, one at a time"))
            .latency(found.ring)
            .floor(hops.clone(), Against::Latency, found.hops.clone())
            .note(seating.layout.to_string()),
        Row::new(name("no journal, at a planned rate"))
            .latency(found.ring_at_rate)
            .floor(hops, Against::Latency, found.hops)
            .figure("answered", "/s", found.reached)
            .note(format!(
                "{rate:.0} per second are planned; latency from the planned time, the first fifth left out"
            )),
        Row::new(name("no journal, as many as it takes")).throughput(found.ring_rate.clone()),
        Row::new(name("journal, one at a time"))
            .latency(found.journal)
            .floor("the same without journal, and one bare write and fdatasync", Against::Latency, found.bare)
            .figure("bytes of a block of one command", "bytes", found.block_bytes),
        Row::new(name("journal, as many as it takes")).throughput(found.journal_rate).floor(
            "the same without journal",
            Against::Throughput,
            found.ring_rate,
        ),
    ]
}
