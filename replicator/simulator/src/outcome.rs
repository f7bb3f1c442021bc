//! What a run comes to, and how many there are of everything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::World;

/// How often things happened in a run; a run in which nothing happened proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of parts of nodes, the network and clients.
    pub turns: u64,
    /// Blocks committed.
    pub blocks: u64,
    /// Commands committed.
    pub commands: u64,
    /// Committed commands that repeated a number, and were not executed.
    pub repeats: u64,
    /// Matches.
    pub trades: u64,
    /// Commands whose answer reached their client.
    pub acked: u64,
    /// Times that a client gave a node up because it heard nothing.
    pub retries: u64,
    /// Sessions established, at first and again.
    pub resumed: u64,
    /// Times that a client asked for reports that it had missed.
    pub reports_again: u64,
    /// Terms in which somebody led.
    pub elections: u64,
    /// Processes that ended, for whatever reason.
    pub crashes: u64,
    /// Of these, with the machine's power.
    pub power_cuts: u64,
    /// Processes that ended at a named fault point.
    pub at_points: u64,
    /// Processes that stopped themselves because of their disk.
    pub faults: u64,
    /// Starts from disk.
    pub boots: u64,
    /// Starts that failed for want of room or because the disk failed.
    pub failed_starts: u64,
    /// Sectors that a power cut took.
    pub sectors_lost: u64,
    /// Names in directories that a power cut took.
    pub names_lost: u64,
    /// Torn tails that were cut.
    pub torn_tails: u64,
    /// Times that blocks of a log were replaced.
    pub truncations: u64,
    /// Commands replayed at starts.
    pub replayed: u64,
    /// Snapshots written.
    pub snapshots: u64,
    /// Snapshots sent to another node.
    pub transfers: u64,
    /// Snapshots that another node sent and that became durable.
    pub installs: u64,
    /// Of these, those that a start from disk took in.
    pub snapshots_taken_in: u64,
    /// Changes of members that a leader took.
    pub member_changes: u64,
    /// Bits that flipped at rest.
    pub bit_flips: u64,
    /// Starts that were refused because of damage.
    pub refusals: u64,
    /// Messages between nodes.
    pub messages: u64,
    /// Messages lost.
    pub messages_lost: u64,
    /// Messages that came a second time on a new connection.
    pub messages_repeated: u64,
    /// What came of terms of service, and of money beside trades, by kind.
    pub rare: BTreeMap<String, u64>,
    /// Misfortunes by kind.
    pub injected: BTreeMap<String, u64>,
    /// Fault points reached, by name.
    pub fault_points: BTreeMap<String, u64>,
}

impl Counts {
    fn figures(&self) -> [(&'static str, u64); 31] {
        [
            ("turns", self.turns),
            ("blocks committed", self.blocks),
            ("commands committed", self.commands),
            ("  of them repeats", self.repeats),
            ("trades", self.trades),
            ("commands acked", self.acked),
            ("client retries", self.retries),
            ("sessions resumed", self.resumed),
            ("missing reports asked for", self.reports_again),
            ("elections", self.elections),
            ("crashes", self.crashes),
            ("  with the power", self.power_cuts),
            ("  at fault points", self.at_points),
            ("  stopped by their disk", self.faults),
            ("starts from disk", self.boots),
            ("  failed for their disk", self.failed_starts),
            ("sectors lost", self.sectors_lost),
            ("names lost", self.names_lost),
            ("torn tails cut", self.torn_tails),
            ("log truncations", self.truncations),
            ("commands replayed", self.replayed),
            ("snapshots written", self.snapshots),
            ("snapshot transfers", self.transfers),
            ("  made durable", self.installs),
            ("  taken in", self.snapshots_taken_in),
            ("membership changes", self.member_changes),
            ("bit flips", self.bit_flips),
            ("  refused at start", self.refusals),
            ("messages", self.messages),
            ("  lost", self.messages_lost),
            ("  repeated", self.messages_repeated),
        ]
    }

    fn add(&mut self, other: &Self) {
        let Self { rare, injected, fault_points, .. } = other;
        macro_rules! sum {
            ($($name:ident),+) => { $(self.$name += other.$name;)+ };
        }
        sum!(
            turns,
            blocks,
            commands,
            repeats,
            trades,
            acked,
            retries,
            resumed,
            reports_again,
            elections,
            crashes,
            power_cuts,
            at_points,
            faults,
            boots,
            failed_starts,
            sectors_lost,
            names_lost,
            torn_tails,
            truncations,
            replayed,
            snapshots,
            transfers,
            installs,
            snapshots_taken_in,
            member_changes,
            bit_flips,
            refusals,
            messages,
            messages_lost,
            messages_repeated
        );
        let maps =
            [(&mut self.rare, rare), (&mut self.injected, injected), (&mut self.fault_points, fault_points)];
        for (into, from) in maps {
            for (name, times) in from {
                *into.entry(name.clone()).or_default() += times;
            }
        }
    }
}

/// Deliberate faults of what should be sound, to prove that the checks would notice: a simulator that cannot fail is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Disks report a sync and do nothing.
    DisksDoNotSync,
    /// Nodes report blocks durable that are only given to the journal.
    AckBeforeSync,
    /// Votes and terms are not journalled.
    VotesForgotten,
    /// Blocks that replace others do not reach the journal.
    TruncationSkipped,
    /// Blocks are applied as soon as they are proposed.
    UncommittedApplied,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::DisksDoNotSync,
        Self::AckBeforeSync,
        Self::VotesForgotten,
        Self::TruncationSkipped,
        Self::UncommittedApplied,
    ];
}

/// How to run a seed other than as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// What is broken on purpose.
    pub lie: Option<Lie>,
    /// Tell what happens on standard error.
    pub trace: bool,
}

/// What one seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Equal for equal seeds: a hash over everything that happened.
    pub fingerprint: u64,
    /// How often things happened.
    pub counts: Counts,
    /// The first thing that was wrong, in words.
    pub failure: Option<String>,
}

impl Outcome {
    /// The line that shows the failure again.
    #[must_use]
    pub fn replay_line(&self) -> String {
        format!("cargo grid sim --first-seed {} --seeds 1", self.seed)
    }
}

/// Runs one seed from the first step to the last check.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_with(seed, Knobs::default())
}

/// As [`run`], with something broken, or told aloud.
#[must_use]
pub fn run_with(seed: u64, knobs: Knobs) -> Outcome {
    let mut world = World::new(seed, knobs);
    let failure = world.run().err().map(|what| format!("{what}\nsettings: {:?}", world.settings));
    Outcome { seed, fingerprint: world.fingerprint, counts: world.counts.clone(), failure }
}

/// Many seeds together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// All counts added up.
    pub counts: Counts,
    /// The seeds that failed.
    pub failures: Vec<Outcome>,
}

/// Runs seeds from `first` on, `count` of them, on so many threads; each run is one thread's alone.
#[must_use]
pub fn run_many(first: u64, count: u64, threads: usize) -> Summary {
    let (next, summary) = (AtomicU64::new(0), Mutex::new(Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= count {
                        return;
                    }
                    let outcome = run(first + nth);
                    let mut summary = summary.lock().expect("no thread fails while it counts");
                    summary.seeds += 1;
                    summary.counts.add(&outcome.counts);
                    if outcome.failure.is_some() {
                        summary.failures.push(outcome);
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("no thread fails while it counts");
    summary.failures.sort_by_key(|outcome| outcome.seed);
    summary
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28}{:>14}", "seeds", self.seeds)?;
        for (name, count) in self.counts.figures() {
            writeln!(f, "{name:<28}{count:>14}")?;
        }
        writeln!(f, "service and money")?;
        for (name, count) in &self.counts.rare {
            writeln!(f, "  {name:<26}{count:>14}")?;
        }
        writeln!(f, "misfortunes")?;
        for (name, count) in &self.counts.injected {
            writeln!(f, "  {name:<26}{count:>14}")?;
        }
        writeln!(f, "fault points reached")?;
        for (name, count) in &self.counts.fault_points {
            writeln!(f, "  {name:<26}{count:>14}")?;
        }
        for failure in &self.failures {
            writeln!(
                f,
                "\nFAILED seed {}: {}",
                failure.seed,
                failure.failure.as_deref().unwrap_or_default()
            )?;
            writeln!(f, "  {}", failure.replay_line())?;
        }
        write!(f, "{} of {} seeds failed", self.failures.len(), self.seeds)
    }
}
