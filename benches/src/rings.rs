//! The order path with nothing in it: a machine that answers every command with the same number, on a disk that is not there. What is left are
//! the rings between the threads, and what each stage does to any command whatever it means.
//!
//! A regression here means that handing on a command became dearer, for every command of every venue.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use grid_engine::{Nanos, Seq};
use grid_harness::floors::{cache_line_hop, pair_of_cores, park_hop, pinned, ring_hop, ring_throughput};
use grid_harness::{Against, Latencies, Rounds, Row, Scenario, Settings};
use grid_sequencer::{Machine, Unreadable, Wait};

use crate::inside::{Inside, Seating};
use crate::no_disk::NoDisk;

/// How long a floor is measured in each round.
const FLOOR_LONG: Duration = Duration::from_millis(100);

/// A machine that does as little as one can and still be found out if it missed a command.
#[derive(Debug, Default)]
struct Echo {
    commands: u64,
    sum: u64,
}

impl Machine for Echo {
    type Command = u64;
    type Event = u64;

    const FORMAT: u32 = 1;

    fn encode(command: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&command.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<u64, Unreadable> {
        let bytes = bytes.try_into().map_err(|_| Unreadable("no echo".to_owned()))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn apply(&mut self, _: Seq, _: Nanos, command: &u64, out: &mut Vec<u64>) {
        self.commands += 1;
        self.sum = self.sum.wrapping_add(*command);
        out.push(*command);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> u64 {
        0
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.commands.to_le_bytes(), self.sum.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        let unreadable = || Unreadable("no echo".to_owned());
        let (commands, sum) = bytes.split_first_chunk().ok_or_else(unreadable)?;
        let sum = sum.try_into().map_err(|_| unreadable())?;
        Ok(Self { commands: u64::from_le_bytes(*commands), sum: u64::from_le_bytes(sum) })
    }

    fn state_hash(&self) -> u64 {
        self.sum ^ self.commands.rotate_left(32)
    }
}

/// What one hand-off costs at least in this seating, as rounds of nanoseconds at p50.
pub(crate) fn hop_floor(wait: Wait) -> f64 {
    match (wait, pair_of_cores()) {
        (Wait::Spin, Some(cores)) => ring_hop(cores, FLOOR_LONG).value_at_quantile(0.5) as f64,
        _ => park_hop(FLOOR_LONG).value_at_quantile(0.5) as f64,
    }
}

/// The words for that floor.
pub(crate) fn hop_floor_name(seating: &Seating) -> String {
    let what = if seating.wait == Wait::Spin { "bare ring hops" } else { "wake-ups of a parked thread" };
    format!("{} {what}", seating.hops)
}

/// See the head of this file.
#[derive(Debug)]
pub struct RingOnly;

impl RingOnly {
    fn round(
        settings: &Settings,
        seating: &Seating,
        latency: &mut Latencies,
        rates: &mut Rounds,
    ) -> Result<(), Box<dyn Error>> {
        let (few, many) = (settings.commands_or(200_000), settings.commands_or(2_000_000));
        let dir = std::path::Path::new("/nowhere");
        let mut venue = Inside::start(dir, NoDisk::shared(), seating, Echo::default)?;
        let ends = venue.ends();
        let measured = pinned(seating.client, || -> Result<_, Box<dyn Error + Send + Sync>> {
            // Warms up: every slot of every ring has been used.
            ends.all_at_once((0..20_000).collect())?;
            let mut next = 0;
            let record = ends.one_by_one(0..few, |output| {
                for echo in output.events() {
                    if *echo != next {
                        return Err(format!("the answer is {echo} and not {next}"));
                    }
                    next += 1;
                }
                Ok(())
            })?;
            let rate = ends.all_at_once((0..many).collect::<VecDeque<_>>())?;
            Ok((record, rate))
        });
        let (record, rate) = measured.map_err(|error| error as Box<dyn Error>)?;
        let stopped = venue.stop();
        let sum = |commands: u64| commands * (commands - 1) / 2;
        if (stopped.machine.commands, stopped.machine.sum)
            != (20_000 + few + many, sum(20_000) + sum(few) + sum(many))
        {
            return Err(format!("some commands came not or twice: {:?}", stopped.machine).into());
        }
        latency.push(&record);
        rates.push(rate);
        Ok(())
    }
}

impl Scenario for RingOnly {
    fn name(&self) -> &'static str {
        "ring_only"
    }

    fn shows(&self) -> &'static str {
        "The order path with a machine that only echoes and no disk, against bare rings. Worse means that handing on a command became \
         dearer, for every command of every venue."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let seatings = Seating::of_this_machine();
        let mut lines = Rounds::default();
        let mut bare_rates = Rounds::default();
        let mut found: Vec<_> =
            seatings.iter().map(|_| (Latencies::default(), Rounds::default(), Rounds::default())).collect();
        for _ in 0..settings.rounds {
            if let Some(cores) = pair_of_cores() {
                lines.push(cache_line_hop(cores, FLOOR_LONG).value_at_quantile(0.5) as f64);
                bare_rates.push(ring_throughput(cores, settings.commands_or(5_000_000)));
            }
            for (seating, (latency, rates, floor)) in seatings.iter().zip(&mut found) {
                floor.push(hop_floor(seating.wait));
                Self::round(settings, seating, latency, rates)?;
            }
        }
        let mut rows = Vec::new();
        if !lines.is_empty() {
            rows.push(
                Row::new("a bare ring, as many as it takes")
                    .throughput(bare_rates.clone())
                    .figure("cache line from one core to the other", "ns", lines)
                    .note("one producer, one poller that takes all there is, both spinning on cores of their own"),
            );
        }
        for (seating, (latency, rates, hops)) in seatings.iter().zip(found) {
            let floor: Rounds = hops.figures().iter().map(|hop| hop * f64::from(seating.hops)).collect();
            rows.push(
                Row::new(format!("{}, one at a time", seating.name))
                    .latency(latency)
                    .floor(hop_floor_name(seating), Against::Latency, floor)
                    .figure("one hop of the floor", "ns", hops)
                    .note(seating.layout.to_string()),
            );
            let row = Row::new(format!("{}, as many as it takes", seating.name)).throughput(rates);
            rows.push(if bare_rates.is_empty() {
                row
            } else {
                row.floor("a bare ring", Against::Throughput, bare_rates.clone())
            });
        }
        Ok(rows)
    }
}
