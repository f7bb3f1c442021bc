//! One simulated machine with its disk and clock, and the process on it while there is one: production stages, core and replica, put
//! together as a venue puts them together, on no thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid_engine::{Engine, Entry, Nanos};
use grid_replicator::core::{
    Addresses, Compacted, CoreConfig, Members, MessageKind, OldBlocks, Outbox, PeerMessage, RaftCore,
    Recovery,
};
use grid_replicator::{Digest, Membership, Replica, ReplicaConfig, ReplicaStage};
use grid_sequencer::{
    Block, Clock, Config, Driver, Durability, Handle, Inline, JournalConfig, LogReadError, LogReader,
    Machine, Moment, NodeId, Sequencer, SnapshotMeta, SnapshotStore, Stage, StageName, ThreadLayout,
    hook_faults, recover_on,
};

use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::gateway::Gateway;
use crate::outcome::Lie;
use crate::probe::{Notes, Probe};
use crate::settings::Settings;

/// The directory on every simulated disk.
pub(crate) fn data_dir() -> PathBuf {
    PathBuf::from("/grid")
}

pub(crate) fn journal_dir() -> PathBuf {
    data_dir().join("journal")
}

pub(crate) fn snapshot_dir() -> PathBuf {
    data_dir().join("snapshots")
}

/// How a simulated process ended by itself.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The world wanted it to, at a fault point.
    AtPoint,
    /// Production code stopped the process, with these words.
    Fault(String),
    /// Production code panicked.
    Panic(String),
}

/// Where on this thread the next process is to end: after so many fault points.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trap(Rc<RefCell<Armed>>);

#[derive(Debug, Default)]
struct Armed {
    countdown: Option<u64>,
    reached: BTreeMap<&'static str, u64>,
}

impl Trap {
    /// Installs itself as this thread's hook.
    pub(crate) fn install() -> Self {
        let trap = Self::default();
        let armed = Rc::clone(&trap.0);
        hook_faults(move |moment| match moment {
            Moment::Point(name) => {
                let mut armed = armed.borrow_mut();
                *armed.reached.entry(name).or_default() += 1;
                let Some(left) = armed.countdown else { return };
                armed.countdown = left.checked_sub(1);
                if left == 0 {
                    drop(armed);
                    resume_unwind(Box::new(Ended::AtPoint));
                }
            }
            Moment::Fault(what) => resume_unwind(Box::new(Ended::Fault(what.to_owned()))),
        });
        trap
    }

    /// Runs a piece of a process; it may end in it.
    pub(crate) fn run<R>(
        &self,
        countdown: Option<u64>,
        body: impl FnOnce() -> R,
    ) -> (Result<R, Ended>, Option<u64>) {
        self.0.borrow_mut().countdown = countdown;
        let result =
            catch_unwind(AssertUnwindSafe(body)).map_err(|payload| match payload.downcast::<Ended>() {
                Ok(ended) => *ended,
                Err(payload) => Ended::Panic(
                    payload
                        .downcast_ref::<&str>()
                        .map(|text| (*text).to_owned())
                        .or_else(|| payload.downcast_ref::<String>().cloned())
                        .unwrap_or_else(|| "no message".to_owned()),
                ),
            });
        let left = self.0.borrow_mut().countdown.take();
        (result, left)
    }

    pub(crate) fn reached(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().reached.clone()
    }
}

/// What a process wants sent to its peers, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing(Arc<Mutex<VecDeque<(NodeId, Out)>>>);

#[derive(Clone, Debug)]
pub(crate) enum Out {
    Message { bytes: Vec<u8>, snapshot: bool },
    Digest(Digest),
}

impl Outgoing {
    fn push(&self, to: NodeId, out: Out) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((to, out));
    }

    pub(crate) fn pop(&self) -> Option<(NodeId, Out)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Outbox for Outgoing {
    fn send(&mut self, to: NodeId, message: PeerMessage) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.push(to, Out::Message { bytes, snapshot: message.kind() == MessageKind::Snapshot });
    }
}

struct Old(Arc<LogReader>);

impl OldBlocks for Old {
    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Arc<Block>>, Compacted> {
        match self.0.read(from, max_bytes as u64) {
            Ok(blocks) => Ok(blocks),
            Err(LogReadError::Compacted { .. }) => Err(Compacted),
            Err(error) => grid_sequencer::abort(&error.to_string()),
        }
    }

    fn start(&self) -> Option<(u64, u64)> {
        match self.0.start() {
            Ok(start) => Some((start.index, start.term)),
            Err(error) => grid_sequencer::abort(&error.to_string()),
        }
    }
}

/// A running process.
pub(crate) struct Process {
    pub(crate) stages: Vec<(StageName, Box<dyn Stage>)>,
    pub(crate) handle: Handle<Engine>,
    pub(crate) driver: Driver<Probe, Entry>,
    pub(crate) replica: Replica<Engine>,
    pub(crate) replica_stage: ReplicaStage<Engine>,
    pub(crate) gateway: Gateway,
    pub(crate) outgoing: Outgoing,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) log: Arc<LogReader>,
    /// Snapshots that became durable and of which the core does not know yet.
    pub(crate) taken: Arc<Mutex<Vec<SnapshotMeta>>>,
    /// Peers of whom the core must hear that they cannot be reached.
    pub(crate) unreachable: Vec<NodeId>,
    /// What became of snapshots that were streamed.
    pub(crate) streamed: Vec<(NodeId, bool)>,
}

/// What a start from disk found.
pub(crate) struct Booted {
    pub(crate) process: Process,
    pub(crate) torn: bool,
    pub(crate) received: bool,
    pub(crate) replayed: u64,
    /// For people.
    pub(crate) summary: String,
}

/// A machine.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) notes: Notes,
    pub(crate) clock: Clock,
    clock_at: u64,
    /// How much faster its clock runs than it should, in millionths.
    drift_ppm: i64,
    pub(crate) process: Option<Process>,
    /// When the process is started next.
    pub(crate) restart_at: u64,
    /// It ends after so many more fault points.
    pub(crate) trap: Option<u64>,
    pub(crate) paused_until: u64,
    pub(crate) slow_until: u64,
    /// The journal's step waits until then.
    pub(crate) sync_until: u64,
    pub(crate) room_until: u64,
    pub(crate) bad_until: u64,
    /// It knows the founding members.
    founding: bool,
    boots: u64,
    dice: Dice,
    /// Everything up to here is in a durable snapshot of this machine.
    pub(crate) snapshot: u64,
}

impl Node {
    pub(crate) fn new(id: NodeId, founding: bool, dice: &mut Dice, start: Nanos, now: u64) -> Self {
        let mut own = dice.fork();
        Self {
            id,
            disk: SimDisk::new(own.fork()),
            notes: Notes::default(),
            clock: Clock::manual(Nanos(start.0 + own.below(1_000_000_000))),
            clock_at: now,
            drift_ppm: own.between(0, 400) as i64 - 200,
            process: None,
            restart_at: now,
            trap: None,
            paused_until: 0,
            slow_until: 0,
            sync_until: 0,
            room_until: 0,
            bad_until: 0,
            founding,
            boots: 0,
            dice: own,
            snapshot: 0,
        }
    }

    /// Lets this machine's clock come to `now`.
    pub(crate) fn keep_time(&mut self, now: u64) {
        let passed = now.saturating_sub(self.clock_at);
        self.clock_at = self.clock_at.max(now);
        let drift = i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000;
        self.clock.advance(passed.saturating_add_signed(drift as i64));
    }

    /// Starts a process from what is on the disk.
    pub(crate) fn boot(
        &mut self,
        settings: &Settings,
        founders: u64,
        lie: Option<Lie>,
    ) -> Result<Booted, String> {
        self.boots += 1;
        let config = JournalConfig {
            segment_bytes: settings.segment_bytes,
            cluster: 7,
            node: self.id,
            durability: settings.durability,
            retain_bytes: settings.retain_bytes,
        };
        let (disk, dir) = (self.disk.mount(), data_dir());
        let recovered = recover_on::<Engine>(disk, Arc::new(Inline), &dir, config, Engine::new, |_| {})
            .map_err(|error| error.to_string())?;
        self.check_recovered(
            recovered.position.index,
            recovered.report.received,
            &recovered.tail,
            recovered.hard_state,
        )?;
        if settings.durability == Durability::DiskQuorum && !self.disk.is_synced(&journal_dir(), ".tmp") {
            return Err(format!("{LOST} node {} starts on a journal that is not synced", self.id));
        }

        let mut members = Members::decode(&recovered.members).map_err(|error| error.to_string())?;
        if members.is_empty() && self.founding {
            let addresses =
                |node: NodeId| Addresses { peer: format!("n{node}:1"), orders: format!("n{node}:2") };
            members = Members::founding((1..=founders).map(|node| (node, addresses(node))))
                .map_err(|error| error.to_string())?;
        }
        for (_, payload) in &recovered.conf_changes {
            members.apply(payload).map_err(|error| error.to_string())?;
        }
        let snapshots = recovered.snapshots();
        let newest = snapshots.list().map_err(|error| error.to_string())?.into_iter().find_map(|path| {
            let (meta, _) = snapshots.read_meta(&path).ok()?;
            Some((meta.position.index, meta.position.term))
        });
        let outgoing = Outgoing::default();
        let core_config = CoreConfig {
            node: self.id,
            seed: self.dice.next(),
            election_ticks: settings.election_ticks,
            heartbeat_ticks: settings.heartbeat_ticks,
            window_bytes: settings.window_bytes,
        };
        let log = Arc::new(LogReader::on(self.disk.mount(), &dir, <Engine as Machine>::FORMAT));
        let recovery = Recovery {
            hard_state: recovered.hard_state,
            applied: recovered.position,
            members: members.clone(),
            tail: recovered.tail.clone(),
            old: Some(Box::new(Old(Arc::clone(&log)))),
            log_start: (recovered.log_start.index, recovered.log_start.term),
            snapshot: newest,
        };
        let core = RaftCore::new(&core_config, recovery, Box::new(outgoing.clone()))
            .map_err(|error| error.to_string())?;
        let synced = settings.durability == Durability::DiskQuorum;
        let probe = Probe::new(core, self.notes.clone(), self.disk.clone(), synced, lie);

        let summary = format!(
            "applied {}, {} behind it, log from {}, {:?}, torn {:?}, passed over {:?}",
            recovered.position.index,
            recovered.tail.len(),
            recovered.log_start.index,
            recovered.hard_state,
            recovered.report.torn,
            recovered.report.passed_over,
        );
        let (torn, received) = (recovered.report.torn.is_some(), recovered.report.received);
        let replayed = recovered.report.replayed;
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let sequencer = Config {
            layout: ThreadLayout::parked(),
            inbound_slots: 64,
            log_slots: settings.log_slots,
            outbound_slots: settings.outbound_slots,
            block: settings.block,
            command_bytes_max: 4 << 10,
            clock: self.clock.clone(),
            core_tick: Duration::from_nanos(settings.core_tick),
            ..Config::new(&["gateway", "replica"])
        };
        let assembly = Sequencer::assemble(recovered, sequencer, probe).map_err(|error| error.to_string())?;
        let mut handle = assembly.handle;
        let outputs = handle.take_output("gateway").ok_or("the gateway has a seat")?;
        let followed = handle.take_output("replica").ok_or("the replica has a seat")?;
        let replica_config = ReplicaConfig {
            snapshots: Some((snapshots.clone(), settings.snapshot_every)),
            node: self.id,
            members: members.encode(),
            membership: Some(Membership { fold: fold_members, voters: voters_of }),
            window_blocks: settings.digest_window,
        };
        let (replica, replica_stage) = Replica::staged(copy, position, followed, replica_config);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&taken);
        replica.on_snapshot(move |meta| {
            note.lock().unwrap_or_else(PoisonError::into_inner).push(meta.clone());
        });
        let digests = outgoing.clone();
        // Node 0 stands for everybody: the world knows who there is.
        replica.on_digest(move |digest| digests.push(0, Out::Digest(digest)));
        let gateway =
            Gateway::new(self.id, handle.submitter(), outputs, handle.leadership(), replica.clone());
        let driver = assembly.driver;
        driver.drive(|_| ());
        let process = Process {
            stages: assembly.stages,
            handle,
            driver,
            replica,
            replica_stage,
            gateway,
            outgoing,
            snapshots,
            log,
            taken,
            unreachable: Vec::new(),
            streamed: Vec::new(),
        };
        Ok(Booted { process, torn, received, replayed, summary })
    }

    /// Everything that this machine ever reported durable must be there again.
    fn check_recovered(
        &self,
        applied: u64,
        received: bool,
        tail: &[Arc<Block>],
        hard_state: grid_sequencer::HardState,
    ) -> Result<(), String> {
        let mut seen = self.notes.seen();
        for (index, block) in seen.durable.range(applied + 1..) {
            // Where a snapshot was taken in, what stood behind it contradicted the leader's log, and had to go.
            if received {
                break;
            }
            let found = tail.iter().find(|found| found.header().index == *index);
            if found.is_some_and(|found| found.bytes() == block.bytes()) {
                continue;
            }
            // A later leader's block in its place was written and not reported yet: then that and what follows is replaced.
            let replaced = found.is_some_and(|found| {
                found.header().term > block.header().term
                    && seen.log.get(index).is_some_and(|own| own.bytes() == found.bytes())
            });
            if replaced {
                break;
            }
            return Err(format!(
                "{LOST} block {index} was reported durable by node {}, and recovery finds {:?}",
                self.id,
                found.map(|found| *found.header())
            ));
        }
        let promised = seen.hard_state;
        if hard_state.term < promised.term
            || (hard_state.term == promised.term && promised.vote != 0 && hard_state.vote != promised.vote)
        {
            return Err(format!(
                "{LOST} node {} reported {promised:?} durable, and recovery finds {hard_state:?}",
                self.id
            ));
        }
        // What is behind the durable part was never promised, and may be there or not.
        let _ = seen.log.split_off(&(applied + 1));
        let _ = seen.durable.split_off(&(applied + 1));
        for block in tail {
            seen.log.insert(block.header().index, Arc::clone(block));
            // Raft counts what a start finds as durable, so it has to be.
            seen.durable.insert(block.header().index, Arc::clone(block));
        }
        Ok(())
    }

    /// The process is gone, and with it everything that was not on the disk; with the power, some of what was.
    pub(crate) fn end(&mut self, power: bool) -> (u64, u64) {
        self.notes.process_gone();
        self.trap = None;
        self.paused_until = 0;
        self.sync_until = 0;
        let lost = if power {
            self.disk.power_gone()
        } else {
            self.disk.process_gone();
            (0, 0)
        };
        self.process = None;
        lost
    }
}

/// What a boot says when a promise was broken; anything else it says may be a disk's fault.
pub(crate) const LOST: &str = "LOST:";

fn fold_members(members: &[u8], change: &[u8]) -> Vec<u8> {
    let mut members = Members::decode(members).expect("the members of this log read");
    members.apply(change).expect("a committed change of members applies");
    members.encode()
}

fn voters_of(members: &[u8]) -> grid_replicator::Voters {
    let members = Members::decode(members).expect("the members of this log read");
    let outgoing = members.iter().filter(|(_, member)| member.outgoing).map(|(node, _)| node);
    grid_replicator::Voters { incoming: members.voters().collect(), outgoing: outgoing.collect() }
}

/// The stage of a name.
pub(crate) fn stage(
    stages: &mut [(StageName, Box<dyn Stage>)],
    wanted: StageName,
) -> Option<&mut Box<dyn Stage>> {
    stages.iter_mut().find(|(name, _)| *name == wanted).map(|(_, stage)| stage)
}

/// The file of the newest snapshot, as the links would stream it.
pub(crate) fn snapshot_file(store: &SnapshotStore) -> Option<(u64, Vec<u8>)> {
    let source = store.open_for_sending().ok()??;
    let mut bytes = vec![0; source.len() as usize];
    let mut at = 0;
    while at < bytes.len() {
        match source.read_at(&mut bytes[at..], at as u64) {
            Ok(0) | Err(_) => return None,
            Ok(read) => at += read,
        }
    }
    Some((source.meta().position.index, bytes))
}

/// True for a path of the journal's that a bit may flip in.
pub(crate) fn is_segment(name: &str) -> bool {
    !name.ends_with(".tmp") && Path::new(name).extension().is_some()
}
