//! What one seed draws: the shape of the cluster and how bad the world is. Every seed is another experiment ("swarm testing"): a run that
//! always has all faults at middling rates never gets far in any one direction.

use grid_engine::Nanos;
use grid_sequencer::{BlockLimits, Durability};

use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::network::NetworkFaults;

pub(crate) const MICROS: u64 = 1_000;
pub(crate) const MILLIS: u64 = 1_000_000;

/// A kind of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process is killed.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// All machines lose power.
    Blackout,
    /// A process ends at a place inside production code.
    AtPoint,
    /// A process sleeps, and wakes up later as if nothing had happened.
    Pause,
    /// Some connections pass nothing, or lose everything.
    Partition,
    /// Everything is connected again.
    Reconnect,
    /// A wall clock is set.
    ClockJump,
    /// A disk takes long.
    SlowDisk,
    /// A disk has no room.
    FullDisk,
    /// A disk fails now and then.
    BadDisk,
    /// A bit of what is durable flips.
    BitFlip,
    /// The operator changes the members.
    Members,
    /// The operator moves the leadership.
    Transfer,
    /// The operator wants a snapshot.
    Snapshot,
}

const ALL: [Fault; 15] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::Blackout,
    Fault::AtPoint,
    Fault::Pause,
    Fault::Partition,
    Fault::Reconnect,
    Fault::ClockJump,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::BadDisk,
    Fault::BitFlip,
    Fault::Members,
    Fault::Transfer,
    Fault::Snapshot,
];

/// Everything that a seed decides before the first step.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) nodes: u64,
    pub(crate) durability: Durability,
    pub(crate) block: BlockLimits,
    pub(crate) log_slots: usize,
    pub(crate) outbound_slots: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) retain_bytes: u64,
    pub(crate) snapshot_every: u64,
    pub(crate) digest_window: u64,
    pub(crate) window_bytes: u64,
    pub(crate) election_ticks: usize,
    pub(crate) heartbeat_ticks: usize,
    pub(crate) core_tick: u64,
    pub(crate) client_window: usize,
    pub(crate) patience: u64,
    /// Shortest time between two new commands of a client.
    pub(crate) pace: u64,
    pub(crate) wire_delay: u64,
    pub(crate) network: NetworkFaults,
    pub(crate) disk: DiskFaults,
    /// Time between two misfortunes, on the average.
    pub(crate) fault_every: u64,
    /// How often each kind is drawn.
    pub(crate) weights: Vec<(Fault, u64)>,
    /// How long faults go on.
    pub(crate) safety: u64,
    /// How long everything may take to come together afterwards.
    pub(crate) healing: u64,
    /// Longest step of time between two turns.
    pub(crate) turn: u64,
    /// How many turns a journal that has work sleeps in its sync, at most.
    pub(crate) sync_delay: u64,
}

impl Settings {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let nodes = *dice.pick(&[1, 3, 3, 3, 3, 5, 5]);
        let durability = if dice.chance(1, 6) { Durability::MemoryQuorum } else { Durability::DiskQuorum };
        let mut weights = Vec::new();
        for fault in ALL {
            // A kind may be absent, rare or the main thing.
            let weight = *dice.pick(&[0, 1, 1, 2, 2, 4, 8]);
            let weight = match fault {
                // After a power cut or a failed sync memory-quorum promises nothing.
                Fault::PowerCut | Fault::Blackout | Fault::BadDisk
                    if durability == Durability::MemoryQuorum =>
                {
                    0
                }
                Fault::Blackout | Fault::FullDisk | Fault::BitFlip => weight.min(2),
                Fault::Reconnect => weight.max(2),
                _ => weight,
            };
            weights.push((fault, weight));
        }
        let pace = *dice.pick(&[2, 6, 12, 24]) * MILLIS;
        let slow_network = dice.chance(1, 4);
        Self {
            nodes,
            durability,
            block: BlockLimits {
                commands: *dice.pick(&[1, 4, 16, 64]),
                bytes: *dice.pick(&[256, 1 << 10, 8 << 10]),
                open: Nanos(20_000),
            },
            log_slots: *dice.pick(&[4, 16, 64, 512]),
            outbound_slots: *dice.pick(&[4, 16, 256]),
            segment_bytes: *dice.pick(&[16 << 10, 24 << 10, 64 << 10]),
            retain_bytes: *dice.pick(&[0, 0, 16 << 10, 128 << 10]),
            snapshot_every: *dice.pick(if pace < 10 * MILLIS { &[150, 400, 2_000] } else { &[40, 100, 300] }),
            digest_window: *dice.pick(&[0, 4, 16]),
            window_bytes: *dice.pick(&[1 << 10, 8 << 10, 1 << 20]),
            election_ticks: dice.between(6, 14) as usize,
            heartbeat_ticks: dice.between(1, 3) as usize,
            core_tick: dice.between(3, 8) * MILLIS,
            client_window: *dice.pick(&[1, 2, 4, 8, 16]),
            patience: dice.between(60, 300) * MILLIS,
            pace,
            wire_delay: dice.between(50, 3_000) * MICROS,
            network: NetworkFaults {
                delay: (50 * MICROS, if slow_network { 12 * MILLIS } else { 1_500 * MICROS }),
                queue: *dice.pick(&[4, 16, 256]),
                drop_ppm: *dice.pick(&[0, 0, 1_000, 20_000]),
                break_ppm: *dice.pick(&[0, 1_000, 10_000]),
                again: *dice.pick(&[0, 2, 6]),
            },
            disk: DiskFaults { short_ppm: *dice.pick(&[0, 10_000, 300_000]), error_ppm: 0, lies: false },
            fault_every: dice.between(15, 160) * MILLIS,
            weights,
            safety: dice.between(2_000, 5_000) * MILLIS,
            healing: 60_000 * MILLIS,
            turn: 40 * MICROS,
            sync_delay: *dice.pick(&[0, 1, 4, 16]),
        }
    }

    /// The next misfortune.
    pub(crate) fn fault(&self, dice: &mut Dice) -> Option<Fault> {
        let all: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = dice.below(all);
        self.weights.iter().find_map(|&(fault, weight)| {
            if at < weight {
                return Some(fault);
            }
            at -= weight;
            None
        })
    }
}
