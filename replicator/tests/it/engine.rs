//! The real machine through the same doors: the engine is numbered, journalled, replicated, killed and replayed.

use std::time::Duration;

use grid_engine::{AccountId, Command, Engine, Entry, Seq, SessionId, Usd};
use grid_replicator::{Replica, ReplicaConfig};
use grid_sequencer::{Config, Machine, Sequencer, recover, replay_from_first_block};

use crate::venue::small;

#[test]
fn an_engine_its_replica_and_its_replay_come_to_the_same_state() {
    let dir = tempfile::tempdir().expect("a directory");
    for life in 0..2_u64 {
        let recovered = recover(dir.path(), small(), Engine::new, |_| {}).expect("it recovers");
        let (copy, position, store) = (recovered.copy_machine(), recovered.position, recovered.snapshots());
        assert_eq!(position.seq, Seq(life * 201));
        let config = Config { command_bytes_max: 4096, ..Config::new(&["replica"]) };
        let mut handle = Sequencer::start(recovered, config).expect("it starts");
        let outputs = handle.take_output("replica").expect("asked for");
        let config = ReplicaConfig { snapshots: Some((store, 150)), ..ReplicaConfig::default() };
        let (replica, thread) = Replica::start(copy, position, outputs, config).expect("a thread");
        let mut submitter = handle.submitter();
        let mut submit = |entry| submitter.try_submit(entry).expect("there is room");
        submit(Entry::venue(Command::Genesis { operator_key: [7; 32] }));
        for cents in 1..=200 {
            let amount = Usd(cents * 10_000_000);
            submit(Entry {
                session: SessionId::VENUE,
                client_seq: 0,
                account: AccountId::VENUE,
                command: Command::Deposit { amount },
            });
        }
        replica.wait_for_blocking(Seq((life + 1) * 201), Duration::from_secs(30)).expect("it gets there");
        replica.read(|engine| engine.check_invariants()).expect("sound");
        let stopped = handle.shutdown();
        thread.join();
        let hash = stopped.machine.state_hash();
        assert_eq!(replica.read(Machine::state_hash), hash);
        let replayed = replay_from_first_block(dir.path(), Engine::new, |_| {}).expect("it replays");
        assert_eq!(replayed.machine.state_hash(), hash);
        assert_eq!(replayed.position, stopped.position);
    }
}
