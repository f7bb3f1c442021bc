//! The stage clocks: where the time of a command goes, and what it costs to know.
//!
//! A regression here means that looking at a venue slows it down, or, in the legs, which of its stages became slower.

use std::collections::VecDeque;
use std::error::Error;

use grid_engine::Engine;
use grid_engine::command::Entry;
use grid_harness::floors::pinned;
use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings};
use grid_sequencer::{Leg, RealDisk, StageClocks};

use crate::cluster::entries;
use crate::inside::{Inside, Seating};
use crate::no_disk::NoDisk;

/// See the head of this file.
#[derive(Debug)]
pub struct Clocks;

/// What one run of one venue found: commands per second, and its clocks at the end.
fn run(
    ground: &Ground,
    journal: bool,
    seating: &Seating,
    load: &VecDeque<Entry>,
    measured: usize,
    on: bool,
) -> Result<(f64, StageClocks), Box<dyn Error>> {
    let dir = ground.at("clocks");
    let disk = if journal { RealDisk::shared() } else { NoDisk::shared() };
    let mut venue = Inside::start_with(&dir, disk, seating, Engine::new, |config| {
        if !on {
            config.clock_every = 0;
        }
    })?;
    let mut opening = load.clone();
    let measured = opening.split_off(load.len() - measured);
    let ends = venue.ends();
    let rate = pinned(seating.client, || {
        ends.all_at_once(opening)?;
        ends.all_at_once(measured)
    });
    let rate = rate.map_err(|error| error as Box<dyn Error>)?;
    let metrics = venue.metrics();
    let stopped = venue.stop();
    if stopped.position.seq.0 != load.len() as u64 {
        return Err(format!("the log ended at {:?}", stopped.position).into());
    }
    stopped.machine.check_invariants().map_err(|broken| format!("the books do not balance: {broken}"))?;
    let clocks = metrics.clocks();
    let followed = clocks.leg(Leg::Match).count;
    if (followed > 0) != on {
        return Err(
            format!("clocks {}, and {followed} blocks were followed", if on { "on" } else { "off" }).into()
        );
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok((rate, clocks))
}

/// What a leg took in each round.
#[derive(Default)]
struct LegRounds {
    p50: Rounds,
    p99: Rounds,
}

impl Scenario for Clocks {
    fn name(&self) -> &'static str {
        "stage_clocks"
    }

    fn shows(&self) -> &'static str {
        "Throughput with the stage clocks on, against off (at least 0.98), and where the time of a command goes. Worse means that looking at a \
         venue slows it down; in the legs, which of its stages became slower."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let commands = settings.commands_or(500_000);
        let load = entries(commands);
        let mut rows = Vec::new();
        for seating in Seating::of_this_machine() {
            let (mut on, mut off) = (Rounds::default(), Rounds::default());
            let mut legs: [LegRounds; Leg::ALL.len()] = Default::default();
            for round in 0..settings.rounds {
                // Whoever comes second finds a warmer machine: they take turns.
                for first in [true, false] {
                    let clocks_on = first == (round % 2 == 0);
                    let (rate, _) = run(&ground, false, &seating, &load, commands as usize, clocks_on)?;
                    if clocks_on { on.push(rate) } else { off.push(rate) }
                }
                let (_, clocks) = run(&ground, true, &seating, &load, commands as usize, true)?;
                for (leg, of) in Leg::ALL.into_iter().zip(&mut legs) {
                    of.p50.push(clocks.leg(leg).p50_ns as f64);
                    of.p99.push(clocks.leg(leg).p99_ns as f64);
                }
            }
            rows.push(
                Row::new(format!("{}, clocks on", seating.name))
                    .throughput(on)
                    .floor("clocks off", Against::Throughput, off)
                    .note("no journal, as many commands as the venue takes; the floor is reached at 1"),
            );
            let mut row = Row::new(format!("{}, journal, stage by stage", seating.name))
                .note("as many commands as the venue takes, so each leg holds the queue before it; followed by the venue's own clocks");
            for (leg, of) in Leg::ALL.into_iter().zip(legs) {
                row = row.figure(format!("{} p50", leg.name()), "ns", of.p50).figure(
                    format!("{} p99", leg.name()),
                    "ns",
                    of.p99,
                );
            }
            rows.push(row);
        }
        Ok(rows)
    }
}
