use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid_engine::Seq;
use grid_replicator::{Overflow, Replica, ReplicaConfig, ReplicaThread, SubscriptionEnd, WaitError};
use grid_sequencer::{Handle, Machine, Sequencer, inspect, replay_from_first_block};

use crate::toy::Toy;
use crate::venue::{config, deposit, open, submit};

const LONG: Duration = Duration::from_secs(30);

struct Venue {
    handle: Handle<Toy>,
    replica: Replica<Toy>,
    thread: ReplicaThread,
}

impl Venue {
    fn start(dir: &Path, snapshot_every: Option<u64>) -> Self {
        let recovered = open(dir).expect("it recovers");
        let (copy, position, store) = (recovered.copy_machine(), recovered.position, recovered.snapshots());
        let mut handle = Sequencer::start(recovered, config(&["replica"])).expect("it starts");
        let outputs = handle.take_output("replica").expect("asked for");
        let snapshots = snapshot_every.map(|every| (store, every));
        let config = ReplicaConfig { snapshots, ..ReplicaConfig::default() };
        let (replica, thread) = Replica::start(copy, position, outputs, config).expect("a thread");
        Self { handle, replica, thread }
    }

    fn submit(&self, count: u64) {
        let mut submitter = self.handle.submitter();
        (0..count).for_each(|nth| submit(&mut submitter, deposit(0, nth)));
    }

    fn stop(self) -> (Toy, Replica<Toy>) {
        let machine = self.handle.shutdown().machine;
        self.thread.join();
        (machine, self.replica)
    }
}

#[test]
fn a_replica_follows_to_the_same_state_also_across_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    for life in 1..=3 {
        let venue = Venue::start(dir.path(), None);
        venue.submit(500);
        venue.replica.wait_for_blocking(Seq(life * 500), LONG).expect("it gets there");
        assert!(venue.replica.read(|toy| toy.commands) >= life * 500);
        let (machine, replica) = venue.stop();
        replica.read_at(|toy, position| {
            assert_eq!((toy, position.seq), (&machine, Seq(life * 500)));
            assert_eq!(toy.state_hash(), machine.state_hash());
        });
    }
    let replayed = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
    assert_eq!(replayed.machine.commands, 1_500);
}

#[tokio::test]
async fn a_reader_sees_what_it_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let venue = Venue::start(dir.path(), None);
    let waiting: Vec<_> = [1, 50, 200]
        .into_iter()
        .map(|seq| {
            let replica = venue.replica.clone();
            tokio::spawn(async move {
                replica.wait_for(Seq(seq)).await.expect("it gets there");
                replica.read(|toy| toy.commands >= seq) && replica.applied() >= Seq(seq)
            })
        })
        .collect();
    venue.submit(200);
    for task in waiting {
        assert!(task.await.expect("a task ends"));
    }
    let (never, replica) = (venue.replica.clone(), venue.replica.clone());
    let never = tokio::spawn(async move { never.wait_for(Seq(201)).await });
    assert_eq!(replica.wait_for_blocking(Seq(201), Duration::ZERO), Err(WaitError::Timeout));
    venue.stop();
    assert_eq!(never.await.expect("a task ends"), Err(WaitError::Stopped));
    assert_eq!(replica.wait_for_blocking(Seq(201), LONG), Err(WaitError::Stopped));
    assert_eq!(replica.wait_for(Seq(200)).await, Ok(()));
}

#[test]
fn subscribers_get_every_output_once_and_in_order_from_where_they_began() {
    let dir = tempfile::tempdir().expect("a directory");
    let venue = Venue::start(dir.path(), None);
    let early = venue.replica.subscribe(1, Overflow::Wait);
    let called = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&called);
    venue.replica.on_output(move |output| calls.lock().expect("sound").push(output.block.first_seq()));
    let reader = std::thread::spawn(move || {
        let mut seqs = Vec::new();
        let end = loop {
            match early.recv() {
                Ok(output) => seqs.extend(output.numbered().map(|(seq, _)| seq.0)),
                Err(end) => break end,
            }
        };
        (seqs, end)
    });
    venue.submit(300);
    let late = venue.replica.subscribe(10_000, Overflow::Drop);
    let began = late.after().seq.0;
    venue.submit(300);
    venue.stop();
    assert_eq!(reader.join().expect("it ends"), ((1..=600).collect(), SubscriptionEnd::Stopped));
    let mut next = began + 1;
    while let Ok(Some(output)) = late.try_recv() {
        assert_eq!(output.block.first_seq().0, next);
        next = output.block.last_seq().0 + 1;
    }
    assert_eq!(next, 601);
    assert_eq!(late.recv().err(), Some(SubscriptionEnd::Stopped));
    assert!(called.lock().expect("sound").is_sorted());
}

#[test]
fn a_subscriber_that_falls_behind_is_told_and_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let venue = Venue::start(dir.path(), None);
    let slow = venue.replica.subscribe(1, Overflow::Drop);
    for seq in 1..=20 {
        venue.submit(1);
        venue.replica.wait_for_blocking(Seq(seq), LONG).expect("nobody waits for it");
    }
    assert_eq!(slow.recv().expect("what is in the queue").block.first_seq(), Seq(1));
    assert_eq!(slow.recv().err(), Some(SubscriptionEnd::Lagged));
    assert_eq!(venue.stop().0.commands, 20);
}

#[test]
fn snapshots_are_written_on_the_way_and_at_the_end_and_recovered_from() {
    let dir = tempfile::tempdir().expect("a directory");
    for life in 1..=3_u64 {
        let venue = Venue::start(dir.path(), Some(100));
        venue.submit(250);
        let (machine, _) = venue.stop();
        let newest = &inspect::snapshots(dir.path()).expect("listed")[0];
        assert_eq!(newest.meta.as_ref().expect("it reads").0.position.seq, Seq(life * 250));
        let recovered = open(dir.path()).expect("it recovers");
        assert_eq!(recovered.report.replayed, 0, "the last snapshot has everything");
        assert_eq!(recovered.machine, machine);
    }
    let idle = Venue::start(dir.path(), Some(100));
    assert_eq!(idle.stop().0.commands, 750);
    assert!(open(dir.path()).is_ok(), "a life without a command changes nothing");
}

#[test]
fn readers_go_on_while_the_replica_follows() {
    let dir = tempfile::tempdir().expect("a directory");
    let venue = Venue::start(dir.path(), Some(50));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (replica, reads) = (venue.replica.clone(), Arc::clone(&reads));
            std::thread::spawn(move || {
                let mut seen = 0;
                while seen < 2_000 {
                    let now = replica.read_at(|toy, position| {
                        assert_eq!(toy.commands, position.seq.0, "a block shows as a whole");
                        toy.commands
                    });
                    assert!(now >= seen, "a replica does not go back");
                    seen = now;
                    reads.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    venue.submit(2_000);
    readers.into_iter().for_each(|reader| reader.join().expect("it ends"));
    assert!(reads.load(Ordering::Relaxed) > 0);
    assert_eq!(venue.stop().0.commands, 2_000);
}
