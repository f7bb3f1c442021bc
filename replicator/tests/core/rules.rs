//! One rule each, told as a short story.

use std::sync::{Arc, Mutex};

use grid_replicator::core::{
    ChangeRefused, CoreConfig, CoreError, MemberChange, Members, MessageKind, Outbox, PeerMessage, RaftCore,
    Received, Recovery, Role, Standing, Stop, TransferRefused,
};
use grid_sequencer::{Block, Consensus, HardState, Position, Ready};

use super::cluster::{Cluster, Weather, addresses};
use super::codec;

type Sent = Arc<Mutex<Vec<(u64, PeerMessage)>>>;

struct Letters(Sent);

impl Outbox for Letters {
    fn send(&mut self, to: u64, message: PeerMessage) {
        self.0.lock().expect("no thread panicked").push((to, message));
    }
}

fn members(voters: u64) -> Members {
    Members::founding((1..=voters).map(|node| (node, addresses(node)))).expect("voters")
}

fn started(recovery: Recovery) -> (RaftCore, Sent) {
    let sent = Sent::default();
    let outbox = Box::new(Letters(Arc::clone(&sent)));
    (RaftCore::new(&CoreConfig::new(1, 5), recovery, outbox).expect("it starts"), sent)
}

fn kinds(sent: &Sent) -> Vec<MessageKind> {
    sent.lock().expect("no thread panicked").drain(..).map(|(_, message)| message.kind()).collect()
}

/// All that the core wants done, with a disk and a matcher that are done at once.
fn settle(core: &mut RaftCore) -> Vec<Arc<Block>> {
    let mut committed = Vec::new();
    while let Some(Ready { persist, committed: blocks }) = core.ready() {
        if let Some(persist) = persist {
            core.persisted(persist.ticket);
        }
        if let Some(last) = blocks.last() {
            core.applied(last.header().index);
        }
        committed.extend(blocks);
    }
    committed
}

fn message(kind: u8, flags: u8, words: [u64; 6], blocks: &[Block]) -> PeerMessage {
    PeerMessage::decode(&codec::bytes(kind, flags, words, blocks)).expect("a sound message")
}

fn log(blocks: &[Block]) -> Vec<Arc<Block>> {
    blocks.iter().cloned().map(Arc::new).collect()
}

#[test]
fn a_sole_voter_leads_at_once_and_commits_what_is_durable() {
    let (mut core, _) = started(Recovery { members: members(1), ..Recovery::default() });
    let (before, term) = core.lead().expect("it leads");
    assert_eq!((before.index, term), (1, 1));
    let ready = core.ready().expect("its vote and first block are to be written");
    assert!(ready.committed.is_empty());
    let persist = ready.persist.expect("to be written");
    assert_eq!(persist.hard_state, Some(HardState { term: 1, vote: 1, commit: 0 }));
    assert_eq!(persist.blocks.len(), 1);
    assert!(core.ready().is_none());
    core.persisted(persist.ticket);
    let committed = core.ready().expect("now it is committed").committed;
    assert_eq!(Position::after(committed[0].header()), before);
    assert!(core.ready().is_none(), "a commit index alone is not written");
}

#[test]
fn a_leader_says_nothing_in_a_term_that_is_not_durable() {
    let mut members = members(1);
    let (mut core, _) = started(Recovery { members: members.clone(), ..Recovery::default() });
    settle(&mut core);
    core.change_members(&MemberChange::AddLearner { node: 2, addresses: addresses(2) }).expect("it is added");
    let committed = settle(&mut core);
    let change = committed.last().expect("the change is committed");
    members.apply(change.payload()).expect("it applies");

    let applied = Position::after(change.header());
    let hard_state = HardState { term: 1, vote: 1, commit: applied.index };
    let (mut core, sent) = started(Recovery { hard_state, applied, members, ..Recovery::default() });
    assert_eq!(core.leadership().term, 2);
    let persist = core.ready().and_then(|ready| ready.persist).expect("term 2 is to be written");
    assert_eq!(kinds(&sent), []);
    core.persisted(persist.ticket);
    assert_eq!(kinds(&sent), [MessageKind::Append]);
}

#[test]
fn an_append_is_answered_when_its_blocks_are_durable_and_in_order() {
    let (mut core, sent) = started(Recovery { members: members(3), ..Recovery::default() });
    let some = codec::blocks(Position::default(), 1, 2);
    assert_eq!(core.receive(2, &message(1, 0, [1, 0, 0, 0, 0, 0], &some[..1])), Received::Taken);
    let first = core.ready().and_then(|ready| ready.persist).expect("to be written");
    assert_eq!(core.receive(2, &message(1, 0, [1, 1, 1, 0, 0, 0], &some[1..])), Received::Taken);
    let second = core.ready().and_then(|ready| ready.persist).expect("to be written");
    // A heartbeat needs no writing, and its answer waits all the same: it would tell of the term.
    assert_eq!(core.receive(2, &message(3, 0, [1, 0, 0, 0, 0, 0], &[])), Received::Taken);
    assert!(core.ready().is_none());
    assert_eq!(kinds(&sent), []);
    core.persisted(first.ticket);
    assert_eq!(kinds(&sent), [MessageKind::AppendReply]);
    core.persisted(second.ticket);
    assert_eq!(kinds(&sent), [MessageKind::AppendReply, MessageKind::HeartbeatReply]);
}

#[test]
fn a_node_that_has_lost_what_it_acknowledged_stops() {
    let (mut core, _) = started(Recovery { members: members(3), ..Recovery::default() });
    let heartbeat = message(3, 0, [1, 0, 0, 9, 0, 0], &[]);
    assert_eq!(core.receive(2, &heartbeat), Received::Stop(Stop::LogLost { acknowledged: 9, last: 0 }));
}

#[test]
fn a_block_that_contradicts_the_log_stops_the_node_before_it_is_written() {
    let ours = codec::blocks(Position::default(), 1, 2);
    let (mut core, _) = started(Recovery { members: members(3), tail: log(&ours), ..Recovery::default() });
    let after = Position::after(ours[0].header());
    let other = Block::entry(&after, 1, after.at, 0, &[]);
    let strange = Block::entry(&Position { chain: 77, ..after }, 2, after.at, 0, &[]);
    for block in [other, strange] {
        let received = core.receive(2, &message(1, 0, [2, 1, 1, 0, 0, 0], &[block]));
        assert!(matches!(received, Received::Stop(Stop::Diverged { from: 2, index: 2, .. })), "{received:?}");
    }
}

#[test]
fn a_recovered_log_with_a_gap_is_refused() {
    let blocks = codec::blocks(Position::default(), 1, 3);
    let tail = log(&[blocks[0].clone(), blocks[2].clone()]);
    let recovery = Recovery { members: members(3), tail, ..Recovery::default() };
    let refused = RaftCore::new(&CoreConfig::new(1, 5), recovery, Box::new(Letters(Sent::default())));
    assert!(matches!(refused, Err(CoreError::Tail { index: 3, .. })));
}

/// See `faults::named::a_change_in_the_log_proves_the_one_before_it`.
#[test]
fn of_two_changes_in_a_recovered_log_the_first_is_committed() {
    let (mut core, _) = started(Recovery { members: members(1), ..Recovery::default() });
    let mut history = settle(&mut core);
    core.change_members(&MemberChange::AddVoter { node: 2, addresses: addresses(2) }).expect("it is added");
    history.extend(settle(&mut core));
    let leave = core.ready();
    assert!(leave.is_none(), "the leave of the joint configuration waits for node 2");
    let entered = history.last().expect("the change is committed").header().index;
    let mut tail = history;
    // The leave, as the leader wrote it.
    tail.extend(core.blocks_from(entered + 1, u64::MAX).expect("it is there"));
    assert_eq!(tail.len() as u64, entered + 1);

    let hard_state = HardState { term: 1, vote: 1, commit: 0 };
    let (mut core, _) = started(Recovery { hard_state, tail, members: members(1), ..Recovery::default() });
    assert!(!core.leadership().leads, "it may not lead among members of long ago");
    let committed = core.ready().expect("there is something to apply").committed;
    assert_eq!(committed.last().map(|block| block.header().index), Some(entered));
}

#[test]
fn changes_of_members_that_make_no_sense_are_refused_for_their_reason() {
    let (mut core, _) = started(Recovery { members: members(1), ..Recovery::default() });
    let add = |node| MemberChange::AddLearner { node, addresses: addresses(node) };
    assert_eq!(core.change_members(&add(2)), Err(ChangeRefused::NotReady));
    settle(&mut core);
    let table = [
        (MemberChange::AddVoter { node: 1, addresses: addresses(1) }, ChangeRefused::AlreadySo),
        (add(0), ChangeRefused::Invalid),
        (MemberChange::Promote { node: 1 }, ChangeRefused::AlreadySo),
        (MemberChange::Promote { node: 9 }, ChangeRefused::UnknownNode),
        (MemberChange::Remove { node: 9 }, ChangeRefused::UnknownNode),
        (MemberChange::Remove { node: 1 }, ChangeRefused::LastVoter),
    ];
    for (change, refused) in table {
        assert_eq!(core.change_members(&change), Err(refused), "{change:?}");
    }
    core.change_members(&add(2)).expect("it makes sense");
    assert_eq!(core.change_members(&add(3)), Err(ChangeRefused::ChangeInProgress));
    settle(&mut core);
    assert_eq!(core.transfer_leadership(2), Err(TransferRefused::NotAVoter));
    assert_eq!(core.transfer_leadership(1), Err(TransferRefused::LeadsAlready));
    assert_eq!(core.transfer_leadership(9), Err(TransferRefused::UnknownNode));

    let (mut follower, _) = started(Recovery { members: members(3), ..Recovery::default() });
    assert_eq!(follower.change_members(&add(4)), Err(ChangeRefused::NotLeader));
    assert_eq!(follower.transfer_leadership(2), Err(TransferRefused::NotLeader));
}

fn leader(cluster: &mut Cluster) -> u64 {
    let leads = |cluster: &Cluster| {
        let ready = |id: u64| {
            cluster.nodes[&id].core.as_ref().is_some_and(|core| {
                let status = core.status();
                cluster.history.get(&status.applied).is_some_and(|(_, term)| *term == status.term)
            })
        };
        cluster.leader().is_some_and(ready)
    };
    assert!(cluster.run_until(5_000, leads), "somebody leads");
    cluster.leader().expect("somebody leads")
}

#[test]
fn a_learner_is_promoted_when_it_has_caught_up_and_not_before() {
    let mut cluster = Cluster::new(41, 3, Weather::fair());
    let first = leader(&mut cluster);
    cluster.weather.propose = 0;
    let node = cluster.add_member(first, true);
    cluster.cut_off(node);
    cluster.weather.propose = 1000;
    assert!(cluster.run_until(5_000, |cluster| cluster.history.len() > 800), "the others go on");
    let refused = cluster.core(first, |core| core.change_members(&MemberChange::Promote { node }));
    assert_eq!(refused, Some(Err(ChangeRefused::NotCaughtUp)));
    cluster.heal();
    cluster.weather.propose = 0;
    let caught_up =
        |cluster: &Cluster| cluster.nodes[&node].applied.position.index == cluster.history.len() as u64;
    assert!(cluster.run_until(5_000, caught_up), "the learner catches up");
    let first = leader(&mut cluster);
    let done = cluster.core(first, |core| core.change_members(&MemberChange::Promote { node }));
    assert!(matches!(done, Some(Ok(_))), "{done:?}");
    cluster.pump(first);
    let votes = |cluster: &Cluster| {
        cluster.nodes.values().all(|of| of.applied.members.is_voter(node) && !of.applied.members.is_joint())
    };
    assert!(cluster.run_until(5_000, votes), "everybody knows that it votes");
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let mut cluster = Cluster::new(42, 3, Weather::fair());
    let first = leader(&mut cluster);
    let to = 1 + first % 3;
    assert_eq!(cluster.core(first, |core| core.transfer_leadership(to)), Some(Ok(())));
    assert!(cluster.core(first, |core| core.lead()).flatten().is_none(), "meanwhile nothing is proposed");
    cluster.pump(first);
    assert!(cluster.run_until(200, |cluster| cluster.leader() == Some(to)), "it leads");
}

#[test]
fn a_leader_that_hears_from_nobody_steps_down_and_its_blocks_are_replaced() {
    let mut cluster = Cluster::new(43, 3, Weather::fair());
    let first = leader(&mut cluster);
    cluster.cut_off(first);
    for _ in 0..3 {
        cluster.propose(first);
    }
    let down = |cluster: &Cluster| {
        cluster.nodes[&first].core.as_ref().is_some_and(|core| core.status().role != Role::Leader)
    };
    assert!(cluster.run_until(1_000, down), "it steps down");
    cluster.heal_and_converge();
}

#[test]
fn a_removed_node_says_so_and_leads_nobody() {
    let mut cluster = Cluster::new(44, 3, Weather::fair());
    let first = leader(&mut cluster);
    let node = 1 + first % 3;
    let done = cluster.core(first, |core| core.change_members(&MemberChange::Remove { node }));
    assert!(matches!(done, Some(Ok(_))), "{done:?}");
    cluster.pump(first);
    let standing = |cluster: &Cluster| cluster.nodes[&node].core.as_ref().map(RaftCore::standing);
    assert!(cluster.run_until(1_000, |cluster| standing(cluster) == Some(Standing::Removed)), "it knows");
    for _ in 0..3_000 {
        cluster.step();
        assert_ne!(cluster.leader(), Some(node));
    }
    cluster.heal_and_converge();
}

#[test]
fn a_node_that_joins_with_an_empty_disk_learns_the_members_from_the_log() {
    let mut cluster = Cluster::new(45, 3, Weather::fair());
    let first = leader(&mut cluster);
    let node = cluster.add_member(first, false);
    let knows = |cluster: &Cluster| cluster.nodes[&node].applied.members.voters().count() == 4;
    assert!(cluster.run_until(2_000, knows), "it knows all four");
    cluster.heal_and_converge();
}

#[test]
fn a_follower_behind_the_log_starts_again_from_the_leaders_snapshot() {
    let mut cluster = Cluster::new(46, 3, Weather::fair());
    let first = leader(&mut cluster);
    let late = 1 + first % 3;
    cluster.cut_off(late);
    let long = cluster.history.len() + 400;
    assert!(cluster.run_until(5_000, |cluster| cluster.history.len() > long), "the others go on");
    for id in cluster.ids() {
        if id != late {
            cluster.save_and_compact(id);
        }
    }
    cluster.heal_and_converge();
    assert!(cluster.tally.snapshots_installed >= 1);
}
