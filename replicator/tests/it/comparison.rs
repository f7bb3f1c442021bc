//! Replicas behind a real order path: what they save, what they tell other nodes, and when they stop.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use grid_engine::{Nanos, Seq};
use grid_replicator::{Digest, DigestKind, Divergence, Followed, Membership, Replica, ReplicaConfig, Voters};
use grid_sequencer::{
    Config, DataDir, Handle, JournalConfig, Machine, Sequencer, SnapshotMeta, SnapshotStore, ThreadLayout,
    Unreadable, recover,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Adds up what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Adder {
    sum: u64,
}

impl Machine for Adder {
    type Command = u64;
    type Event = u64;

    const FORMAT: u32 = 1;

    fn encode(command: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&command.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<u64, Unreadable> {
        bytes.try_into().map(u64::from_le_bytes).map_err(|_| Unreadable("no number".to_owned()))
    }

    fn apply(&mut self, _seq: Seq, _at: Nanos, command: &u64, out: &mut Vec<u64>) {
        self.sum = self.sum.wrapping_add(*command);
        out.push(self.sum);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> u64 {
        0
    }

    fn snapshot(&self) -> Vec<u8> {
        self.sum.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        Ok(Self { sum: Self::decode(bytes)? })
    }

    fn state_hash(&self) -> u64 {
        self.sum.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn venue(dir: &Path, outputs: &[&str]) -> Handle<Adder> {
    let recovered = recover(dir, JournalConfig::default(), Adder::default, |_| {}).expect("it recovers");
    let config = Config { layout: ThreadLayout::parked(), ..Config::new(outputs) };
    Sequencer::start(recovered, config).expect("it starts")
}

fn store(dir: &Path) -> SnapshotStore {
    DataDir::open(dir).expect("a directory").snapshots()
}

/// Submits one by one, waiting for each, so that blocks are many and small.
fn submit(venue: &Handle<Adder>, replica: &Replica<Adder>, commands: std::ops::RangeInclusive<u64>) {
    let mut submitter = venue.submitter();
    for command in commands {
        submitter.try_submit(command).expect("the ring has room");
        replica.wait_for_blocking(Seq(command), PATIENCE).expect("it gets there");
    }
}

fn snapshots_of(replica: &Replica<Adder>) -> Receiver<SnapshotMeta> {
    let (tell, told) = channel();
    replica.on_snapshot(move |meta| {
        _ = tell.send(meta.clone());
    });
    told
}

fn digests_of(replica: &Replica<Adder>) -> Receiver<Digest> {
    let (tell, told) = channel();
    replica.on_digest(move |digest| {
        _ = tell.send(digest);
    });
    told
}

fn one_voter() -> Membership {
    Membership {
        fold: |_, change| change.to_vec(),
        voters: |members| Voters {
            incoming: members.iter().map(|node| u64::from(*node)).collect(),
            outgoing: Vec::new(),
        },
    }
}

fn cluster_of(node: u64, members: &[u8]) -> ReplicaConfig {
    ReplicaConfig {
        node,
        members: members.to_vec(),
        membership: Some(one_voter()),
        window_blocks: 4,
        ..ReplicaConfig::default()
    }
}

#[test]
#[should_panic(expected = "the replica came to [8] at command Seq(1) where the matcher had [1]")]
fn a_replica_that_comes_to_something_else_than_the_matcher_stops_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = venue(dir.path(), &["one"]);
    let outputs = venue.take_output("one").unwrap();
    let wrong = Adder { sum: 7 };
    let (_, mut stage) = Replica::staged(wrong, Default::default(), outputs, ReplicaConfig::default());
    let mut submitter = venue.submitter();
    (1..=100).for_each(|command| submitter.try_submit(command).expect("the ring has room"));
    while stage.step().expect("nobody else has said anything") != Followed::Ended {
        std::thread::yield_now();
    }
}

#[test]
fn nodes_save_and_hash_at_the_same_places_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = venue(&dir.path().join("log"), &["one", "two"]);
    let mut start = |name: &str, node| {
        let snapshots = Some((store(&dir.path().join(name)), 16));
        let config = ReplicaConfig { snapshots, ..cluster_of(node, &[1, 2]) };
        let outputs = venue.take_output(name).unwrap();
        Replica::staged(Adder::default(), Default::default(), outputs, config)
    };
    let (one, mut first) = start("one", 1);
    let (two, mut second) = start("two", 2);
    let told = [&one, &two].map(|replica| (snapshots_of(replica), digests_of(replica)));
    let mut submitter = venue.submitter();
    (1..=100).for_each(|command| submitter.try_submit(command).expect("the ring has room"));
    drop(submitter);
    let stopping = std::thread::spawn(move || venue.shutdown());
    for stage in [&mut first, &mut second] {
        while stage.step().expect("they agree") != Followed::Ended {
            std::thread::yield_now();
        }
    }
    stopping.join().unwrap();
    let [(one_saved, one_came_to), (two_saved, two_came_to)] = told;
    let places: Vec<_> = one_saved.try_iter().map(|meta| meta.position.index).collect();
    assert!(!places.is_empty());
    assert_eq!(places, two_saved.try_iter().map(|meta| meta.position.index).collect::<Vec<_>>());
    let digests: Vec<_> = one_came_to.try_iter().collect();
    assert!(digests.iter().any(|digest| digest.kind == DigestKind::State));
    assert_eq!(digests, two_came_to.try_iter().collect::<Vec<_>>());
}

#[test]
fn a_window_that_was_not_seen_whole_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let recovered = recover(dir.path(), JournalConfig::default(), Adder::default, |_| {}).unwrap();
        let (copy, position) = (recovered.copy_machine(), recovered.position);
        let config = Config { layout: ThreadLayout::parked(), ..Config::new(&["replica"]) };
        let mut venue = Sequencer::start(recovered, config).expect("it starts");
        let outputs = venue.take_output("replica").unwrap();
        let (replica, thread) = Replica::start(copy, position, outputs, cluster_of(1, &[1])).unwrap();
        let told = digests_of(&replica);
        submit(&venue, &replica, life * 15 + 1..=life * 15 + 15);
        let last = venue.shutdown().position.index;
        thread.join();
        let whole = (position.index + 1..=last).filter(|end| {
            let begins = end.saturating_sub(3).max(1);
            (end + 1) % 4 == 0 && begins > position.index
        });
        let told: Vec<_> = told.try_iter().map(|digest| digest.index).collect();
        assert_eq!(told, whole.collect::<Vec<_>>());
    }
}

#[test]
fn a_snapshot_that_is_asked_for_is_durable_when_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = venue(dir.path(), &["replica"]);
    let snapshots = Some((store(&dir.path().join("aside")), 1_000_000));
    let config = ReplicaConfig { snapshots, ..ReplicaConfig::default() };
    let outputs = venue.take_output("replica").unwrap();
    let (replica, thread) = Replica::start(Adder::default(), Default::default(), outputs, config).unwrap();
    submit(&venue, &replica, 1..=5);
    let (tell, told) = channel();
    replica.snapshot_now(move |result| tell.send(result).unwrap());
    let meta = told.recv_timeout(PATIENCE).expect("it is answered").expect("it is written");
    assert_eq!(meta.position.seq, Seq(5));
    let store = store(&dir.path().join("aside"));
    let (read, body) = store.read(&store.list().unwrap()[0]).expect("it reads");
    assert_eq!((read.position, body), (meta.position, 15u64.to_le_bytes().to_vec()));
    venue.shutdown();
    thread.join();
}

#[test]
fn a_replica_without_a_store_says_that_it_saves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = venue(dir.path(), &["replica"]);
    let outputs = venue.take_output("replica").unwrap();
    let (replica, thread) =
        Replica::start(Adder::default(), Default::default(), outputs, ReplicaConfig::default()).unwrap();
    let (tell, told) = channel();
    replica.snapshot_now(move |result| tell.send(result.is_err()).unwrap());
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
    venue.shutdown();
    thread.join();
}

#[test]
fn a_node_that_is_outvoted_stops_and_says_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = venue(dir.path(), &["replica", "guide"]);
    let outputs = venue.take_output("replica").unwrap();
    let (replica, mut stage) =
        Replica::staged(Adder::default(), Default::default(), outputs, cluster_of(1, &[1, 2, 3]));
    let (guide, guide_thread) = Replica::start(
        Adder::default(),
        Default::default(),
        venue.take_output("guide").unwrap(),
        ReplicaConfig::default(),
    )
    .unwrap();
    let told = digests_of(&replica);
    submit(&venue, &guide, 1..=8);
    let own = loop {
        stage.step().expect("nobody has said anything yet");
        if let Ok(digest) = told.try_recv() {
            break digest;
        }
    };
    let other = Digest { value: own.value ^ 1, ..own };
    replica.observe(2, own);
    replica.observe(3, other);
    assert!(stage.step().is_ok(), "the majority agrees with this node");
    replica.observe(2, other);
    let diverged = stage.step().expect_err("two of three agree on something else");
    assert_eq!(diverged, Divergence::Outvoted { own, agreed: other.value, by: vec![2, 3] });
    let said = diverged.to_string();
    assert!(said.contains(&format!("block {}", own.index)), "{said}");
    assert!(said.contains(&format!("{:016x}", own.value)), "{said}");
    drop(stage);
    venue.shutdown();
    guide_thread.join();
}
