//! The members travel with the log and with the snapshots: whoever has either knows who belongs to the cluster.

use std::sync::mpsc::channel;
use std::time::Duration;

use grid_engine::Seq;
use grid_replicator::core::{
    Addresses, CoreConfig, MemberChange, Members, Outbox, PeerMessage, RaftCore, Recovery,
};
use grid_replicator::{Membership, Replica, ReplicaConfig, Voters};
use grid_sequencer::{NodeId, Sequencer};

use crate::venue::{config, deposit, open, submit};

const LONG: Duration = Duration::from_secs(30);

/// A cluster of one has nobody to send to; what a learner that does not exist would get is lost.
struct Nowhere;

impl Outbox for Nowhere {
    fn send(&mut self, _to: NodeId, _message: PeerMessage) {}
}

fn membership() -> Membership {
    Membership {
        fold: |members, change| {
            let mut members = Members::decode(members).expect("members read back");
            members.apply(change).expect("a committed change fits");
            members.encode()
        },
        voters: |members| Voters {
            incoming: Members::decode(members).expect("members read back").voters().collect(),
            outgoing: Vec::new(),
        },
    }
}

#[test]
fn a_change_of_members_is_in_the_replica_and_in_its_snapshots() {
    let dir = tempfile::tempdir().expect("a directory");
    let founding = Members::founding([(1, Addresses::default())]).expect("one voter");
    let recovered = open(dir.path()).expect("it recovers");
    let (copy, position, store) = (recovered.copy_machine(), recovered.position, recovered.snapshots());
    let recovery = Recovery { members: founding.clone(), ..Recovery::default() };
    let core = RaftCore::new(&CoreConfig::new(1, 7), recovery, Box::new(Nowhere)).expect("a core");
    let (mut handle, driver) =
        Sequencer::start_with(recovered, config(&["replica"]), core).expect("it starts");
    let replica_config = ReplicaConfig {
        snapshots: Some((store.clone(), 1_000_000)),
        node: 1,
        members: founding.encode(),
        membership: Some(membership()),
        window_blocks: 4,
    };
    let outputs = handle.take_output("replica").expect("asked for");
    let (replica, thread) = Replica::start(copy, position, outputs, replica_config).expect("a thread");
    handle.leadership().wait_to_lead(LONG).expect("one voter elects itself");
    assert_eq!(Members::decode(&replica.members()), Ok(founding.clone()));

    let mut submitter = handle.submitter();
    submit(&mut submitter, deposit(0, 0));
    replica.wait_for_blocking(Seq(1), LONG).expect("it gets there");
    // The core hears of what is applied when it next hears of anything.
    driver.drive(|_| ());
    let addresses = Addresses { peer: "127.0.0.1:9".to_owned(), orders: String::new() };
    let change = MemberChange::AddLearner { node: 2, addresses: addresses.clone() };
    driver.drive(|core| core.change_members(&change)).expect("a leader may change the members");
    // Behind the change in the log.
    submit(&mut submitter, deposit(0, 1));
    replica.wait_for_blocking(Seq(2), LONG).expect("it gets there");
    let members = Members::decode(&replica.members()).expect("members read back");
    let learner = members.get(2).expect("it was added");
    assert!(learner.learner && learner.addresses == addresses && members.is_voter(1));
    driver.drive(|_| ());
    assert_eq!(driver.drive(|core| core.members().clone()), members, "the core has the same members");

    let (tell, told) = channel();
    replica.snapshot_now(move |result| {
        let _ = tell.send(result);
    });
    let meta = told.recv_timeout(LONG).expect("it is answered").expect("it is written");
    assert_eq!(meta.members, members.encode());
    handle.shutdown();
    thread.join();
    let again = open(dir.path()).expect("it recovers");
    assert_eq!(again.members, members.encode(), "a start from the snapshot knows the members");
}
