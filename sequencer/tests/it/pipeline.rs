//! Commands through the running stages: order, group commit, back-pressure, timers, shutdown.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use grid_engine::{Nanos, Seq};
use grid_sequencer::{
    Clock, Config, JournalConfig, Leg, Machine, Output, Polled, RecoverError, Sequencer, StageClocks,
    StageName, Step, SubmitError, ThreadLayout, ThreadPlan, Upto, Wait, recover, replay_from_first_block,
    replay_upto,
};

use crate::toy::{Command, Dice, Event, Toy};
use crate::venue::{config, deposit, open, read_until, start, submit};

/// Presets without pinning, so that the test does not depend on the machine's cores, and some that no preset has.
fn layouts() -> Vec<(&'static str, ThreadLayout)> {
    let unpinned = |mut layout: ThreadLayout| {
        for thread in &mut layout.threads {
            thread.core = None;
            // Two spinning threads on two busy cores would only test the system's scheduler.
            if thread.wait == Wait::Spin {
                thread.wait = Wait::Yield;
            }
        }
        layout
    };
    let each_parked = StageName::ALL.iter().map(|stage| ThreadPlan {
        name: format!("{stage:?}"),
        stages: vec![*stage],
        core: None,
        wait: Wait::Park,
    });
    let mut fused_parked = ThreadLayout::fused(0);
    fused_parked.threads[0].core = None;
    fused_parked.threads[0].wait = Wait::Park;
    let mut fused_spinning = ThreadLayout::fused(0);
    fused_spinning.threads[0].core = None;
    vec![
        ("spread", unpinned(ThreadLayout::spread(0))),
        ("paired", unpinned(ThreadLayout::paired(0))),
        ("fused", fused_spinning),
        ("parked", ThreadLayout::parked()),
        ("each parked", ThreadLayout { threads: each_parked.collect() }),
        ("fused parked", fused_parked),
    ]
}

fn check_stream(outputs: &[Arc<Output<Toy>>], first: Seq) {
    let mut next = first;
    let mut at = Nanos(0);
    for output in outputs {
        assert!(output.block.at() >= at, "stamps do not go back");
        at = output.block.at();
        assert_eq!(output.block.first_seq(), next, "blocks follow each other");
        for (seq, _) in output.block.commands() {
            assert_eq!(seq, next);
            next = next.next();
        }
        assert!(output.block.commands().len() <= 64);
    }
}

#[test]
fn every_layout_commits_each_command_once_and_in_each_producers_order() {
    const PRODUCERS: u32 = 4;
    const EACH: u64 = 1_000;
    for (name, layout) in layouts() {
        let dir = tempfile::tempdir().expect("a directory");
        // Small rings, so that every kind of back-pressure is met on the way.
        let config =
            Config { layout, inbound_slots: 256, log_slots: 8, outbound_slots: 8, ..config(&["one", "two"]) };
        let mut handle = start(dir.path(), config);
        let readers: Vec<_> = ["one", "two"]
            .into_iter()
            .map(|name| {
                let mut poller = handle.take_output(name).expect("asked for");
                std::thread::spawn(move || read_until(&mut poller, |_| false))
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let mut submitter = handle.submitter();
                std::thread::spawn(move || {
                    (0..EACH).for_each(|nth| submit(&mut submitter, deposit(producer, nth)))
                })
            })
            .collect();
        for producer in producers {
            producer.join().expect("a producer ends");
        }
        let stopped = handle.shutdown();
        for reader in readers {
            let outputs = reader.join().expect("a reader ends");
            check_stream(&outputs, Seq(1));
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            for event in outputs.iter().flat_map(|output| output.events()) {
                if let Event::Deposited { producer, nth } = event {
                    let expected = next.entry(*producer).or_default();
                    assert_eq!(
                        nth, expected,
                        "{name}: producer {producer} in order, nothing lost or repeated"
                    );
                    *expected += 1;
                }
            }
            assert!(next.values().all(|count| *count == EACH) && next.len() == PRODUCERS as usize, "{name}");
        }
        let replayed = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
        assert_eq!(replayed.machine.state_hash(), stopped.machine.state_hash(), "{name}");
        assert_eq!(replayed.position, stopped.position, "{name}");
        assert_eq!(replayed.commands, u64::from(PRODUCERS) * EACH, "{name}");
    }
}

#[test]
fn many_waiting_commands_share_blocks_and_syncs() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), config(&["test"]));
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    for nth in 0..5_000 {
        submit(&mut submitter, Command::Deposit { producer: 0, nth, text: Vec::new() });
    }
    read_until(&mut poller, |output| output.block.last_seq() == Seq(5_000));
    let status = handle.status();
    assert_eq!(status.committed_index, status.applied_index);
    assert!(status.groups <= status.committed_index, "a group is one block or more");
    assert!(status.committed_index < 5_000, "a backlog shares blocks");
    handle.shutdown();
}

#[test]
fn a_full_ring_answers_full_and_gives_the_command_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { inbound_slots: 64, log_slots: 2, outbound_slots: 2, ..config(&["slow"]) };
    let mut handle = start(dir.path(), config);
    let mut poller = handle.take_output("slow").expect("asked for");
    let mut submitter = handle.submitter();
    // Nobody reads: outbound ring, log ring, pending block and inbound ring fill up in turn.
    let mut taken = 0;
    let refused = loop {
        match submitter.try_submit(deposit(0, taken)) {
            Ok(()) => taken += 1,
            Err(SubmitError::Full(command)) => {
                // Full for good is when the stages upstream have come to rest too.
                let (before, after) = (handle.status(), taken);
                std::thread::yield_now();
                if before.applied_index == 2 && handle.status() == before && after >= 64 {
                    break command;
                }
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(refused, deposit(0, taken));
    // As soon as the consumer reads, everything that was taken comes, in order.
    let outputs = read_until(&mut poller, |output| output.block.last_seq().0 >= taken);
    check_stream(&outputs, Seq(1));
    assert_eq!(handle.shutdown().machine.commands, taken);
}

#[test]
fn a_command_that_is_too_large_is_refused_at_the_door() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = start(dir.path(), config(&[]));
    let mut submitter = handle.submitter();
    let large = |len| Command::Deposit { producer: 0, nth: 0, text: vec![1; len] };
    let overhead = 13;
    assert_eq!(submitter.try_submit(large(2048 - overhead)), Ok(()));
    let refused = submitter.try_submit(large(2049 - overhead));
    assert_eq!(
        refused,
        Err(SubmitError::TooLarge { command: large(2049 - overhead), bytes: 2049, limit: 2048 })
    );
    assert_eq!(handle.shutdown().machine.commands, 1);
}

#[test]
fn a_consumer_that_goes_or_hangs_stops_neither_the_venue_nor_its_shutdown() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        outbound_slots: 2,
        grace: Duration::from_millis(50),
        ..config(&["goes", "hangs", "never taken"])
    };
    let mut handle = start(dir.path(), config);
    let mut submitter = handle.submitter();
    drop(handle.take_output("goes"));
    drop(handle.take_output("never taken"));
    let hangs = handle.take_output("hangs").expect("asked for");
    for nth in 0..200 {
        submit(&mut submitter, deposit(0, nth));
    }
    assert_eq!(handle.shutdown().machine.commands, 200, "what was taken is applied and on disk");
    drop(hangs);
    let replayed = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
    assert_eq!(replayed.commands, 200);
}

#[test]
fn after_shutdown_submitters_are_told_and_pollers_see_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), config(&["test"]));
    let mut submitter = handle.submitter();
    let mut poller = handle.take_output("test").expect("asked for");
    assert!(handle.take_output("test").is_none(), "an output has one owner");
    submit(&mut submitter, deposit(0, 0));
    handle.shutdown();
    assert_eq!(submitter.try_submit(deposit(0, 1)), Err(SubmitError::Closed(deposit(0, 1))));
    let outputs = read_until(&mut poller, |_| false);
    assert_eq!(outputs.len(), 1);
    assert_eq!(poller.poll(1, &mut Vec::new()), Polled::Closed);
}

fn numbered(output: &Output<Toy>) -> Vec<(Seq, Event)> {
    output.numbered().map(|(seq, event)| (seq, event.clone())).collect()
}

#[test]
fn a_host_steps_the_stages_on_its_own_thread_and_gives_them_back() {
    for (name, layout) in layouts() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut handle = start(dir.path(), Config { layout, ..config(&["test"]) });
        let mut poller = handle.take_output("test").expect("asked for");
        let mut submitter = handle.submitter();
        let lender = handle.lender().expect("the matcher is on a thread");
        let (bell, rung) = std::sync::mpsc::channel();
        let mut hosted = lender
            .lend(Arc::new(move || {
                let _ = bell.send(());
            }))
            .expect("nobody else hosts");
        assert!(lender.lend(Arc::new(|| ())).is_none(), "one host at a time");
        submit(&mut submitter, deposit(0, 0));
        let mut outputs = Vec::new();
        while outputs.is_empty() {
            let step = hosted.turn();
            poller.poll(usize::MAX, &mut outputs);
            outputs.retain(|output: &Arc<Output<Toy>>| output.block.commands().len() > 0);
            if step == Step::Idle && outputs.is_empty() {
                // A stage on another thread has the next move, and rings.
                let limit = hosted.doze(None).unwrap_or(Duration::from_secs(10));
                let _ = rung.recv_timeout(limit);
                hosted.rouse();
            }
        }
        assert_eq!(numbered(&outputs[0]), [(Seq(1), Event::Deposited { producer: 0, nth: 0 })], "{name}");
        drop(hosted);
        // The thread it came from goes on.
        submit(&mut submitter, deposit(0, 1));
        let outputs = read_until(&mut poller, |_| true);
        assert_eq!(numbered(&outputs[0])[0].0, Seq(2), "{name}");
        handle.shutdown();
        assert!(lender.lend(Arc::new(|| ())).is_none(), "what has ended is not lent");
    }
}

#[test]
fn a_fused_host_finds_what_it_submitted_published_after_one_turn() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut layout = ThreadLayout::fused(0);
    layout.threads[0].core = None;
    let mut handle = start(dir.path(), Config { layout, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    let mut hosted = handle.lender().and_then(|lender| lender.lend(Arc::new(|| ()))).expect("it is lent");
    let mut outputs = Vec::new();
    while hosted.turn() == Step::Worked {}
    poller.poll(usize::MAX, &mut outputs);
    outputs.clear();
    for nth in 0..100 {
        submit(&mut submitter, deposit(0, nth));
    }
    assert_eq!(hosted.turn(), Step::Worked);
    poller.poll(usize::MAX, &mut outputs);
    let events: usize = outputs.iter().map(|output| output.events().len()).sum();
    assert_eq!(events, 100);
    drop(hosted);
    handle.shutdown();
}

#[test]
fn a_host_hands_as_many_commands_as_the_ring_holds_past_it_and_only_in_its_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut layout = ThreadLayout::fused(0);
    layout.threads[0].core = None;
    let mut handle = start(dir.path(), Config { layout, inbound_slots: 64, ..config(&["test"]) });
    let epoch = handle.leadership().epoch().expect("it leads");
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    let mut hosted = handle.lender().and_then(|lender| lender.lend(Arc::new(|| ()))).expect("it is lent");
    while hosted.turn() == Step::Worked {}
    let mut outputs = Vec::new();
    poller.poll(usize::MAX, &mut outputs);
    outputs.clear();
    let other = hosted.submit(&mut submitter, deposit(0, 0), epoch + 1);
    assert!(matches!(other, Err(SubmitError::NotLeader(_))), "{other:?}");
    for nth in 0..64 {
        hosted.submit(&mut submitter, deposit(0, nth), epoch).expect("there is room");
    }
    let beyond = hosted.submit(&mut submitter, deposit(0, 64), epoch);
    assert!(matches!(beyond, Err(SubmitError::Full(_))), "{beyond:?}");
    assert_eq!(hosted.turn(), Step::Worked);
    poller.poll(usize::MAX, &mut outputs);
    let events: usize = outputs.iter().map(|output| output.events().len()).sum();
    assert_eq!((outputs.len(), events), (1, 64), "one block of all of them");
    drop(hosted);
    handle.shutdown();
}

#[test]
fn the_stage_clocks_follow_a_command_from_its_arrival_to_its_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), Config { clock_every: 1, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    for nth in 0..20 {
        submit(&mut submitter, deposit(0, nth));
        read_until(&mut poller, |_| true);
        poller.sent();
    }
    let clocks = handle.metrics().clocks();
    for leg in Leg::ALL {
        assert_eq!(clocks.leg(leg).count, 20, "{leg:?}");
    }
    let inside = [Leg::Close, Leg::Durable, Leg::Commit, Leg::Match, Leg::Report];
    let parts: u64 = inside.iter().map(|leg| clocks.leg(*leg).sum_ns).sum();
    assert_eq!(parts, clocks.leg(Leg::Whole).sum_ns, "the parts are the whole");
    handle.shutdown();

    let mut handle = start(dir.path(), Config { clock_every: 0, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    submit(&mut handle.submitter(), deposit(0, 20));
    read_until(&mut poller, |_| true);
    poller.sent();
    assert_eq!(handle.metrics().clocks(), StageClocks::default(), "off");
    handle.shutdown();
}

#[test]
fn a_waker_is_called_for_what_was_published_before_and_after_it_was_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), config(&["test"]));
    let mut submitter = handle.submitter();
    let mut poller = handle.take_output("test").expect("asked for");
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    poller.set_waker(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    submit(&mut submitter, deposit(0, 0));
    read_until(&mut poller, |_| true);
    handle.shutdown();
    assert!(calls.load(Ordering::SeqCst) >= 3, "publication and end are announced");
}

#[test]
fn a_tick_comes_when_the_deadline_does_and_an_idle_venue_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Nanos(1_000_000));
    let mut handle = start(dir.path(), Config { clock: clock.clone(), ..config(&["test"]) });
    let mut submitter = handle.submitter();
    let mut poller = handle.take_output("test").expect("asked for");
    submit(&mut submitter, Command::SetAlarm { after: Nanos(500) });
    read_until(&mut poller, |_| true);
    // Not due: whatever the timer does, this deposit is the next command.
    clock.set(Nanos(1_000_499));
    submit(&mut submitter, deposit(0, 0));
    let outputs = read_until(&mut poller, |_| true);
    assert_eq!(numbered(&outputs[0]), [(Seq(2), Event::Deposited { producer: 0, nth: 0 })]);
    clock.set(Nanos(1_000_500));
    let outputs = read_until(&mut poller, |_| true);
    assert_eq!(numbered(&outputs[0]), [(Seq(3), Event::Rang { due: Nanos(1_000_500) })]);
    // Nothing waits any more, however late it gets.
    clock.set(Nanos(9_000_000));
    submit(&mut submitter, deposit(0, 1));
    let outputs = read_until(&mut poller, |_| true);
    assert_eq!(outputs[0].block.first_seq(), Seq(4));
    let stopped = handle.shutdown();
    assert_eq!((stopped.machine.ticks, stopped.machine.rings), (1, 1));
}

#[test]
fn an_alarm_that_was_set_before_a_restart_still_rings() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Nanos(1_000));
    let handle = start(dir.path(), Config { clock: clock.clone(), ..config(&[]) });
    submit(&mut handle.submitter(), Command::SetAlarm { after: Nanos(500) });
    handle.shutdown();
    clock.set(Nanos(5_000));
    let mut handle = start(dir.path(), Config { clock, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    let outputs = read_until(&mut poller, |_| true);
    assert_eq!(numbered(&outputs[0]), [(Seq(2), Event::Rang { due: Nanos(1_500) })]);
    handle.shutdown();
}

#[test]
fn stamps_do_not_go_back_when_the_clock_does_across_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut stamps = Vec::new();
    for now in [5_000, 3_000, 4_999, 6_000, 1] {
        let clock = Clock::manual(Nanos(now));
        let mut handle = start(dir.path(), Config { clock, ..config(&["test"]) });
        let mut poller = handle.take_output("test").expect("asked for");
        submit(&mut handle.submitter(), deposit(0, now));
        stamps.push(read_until(&mut poller, |_| true)[0].block.at().0);
        handle.shutdown();
    }
    assert_eq!(stamps, [5_000, 5_000, 5_000, 6_000, 6_000]);
}

#[test]
fn terms_rise_with_each_start_and_are_journalled_before_entries() {
    let dir = tempfile::tempdir().expect("a directory");
    for nth in 0..3 {
        let handle = start(dir.path(), config(&[]));
        submit(&mut handle.submitter(), deposit(0, nth));
        let stopped = handle.shutdown();
        assert_eq!(stopped.position.term, nth + 1);
    }
    let recovered = open(dir.path()).expect("it recovers");
    assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (3, 1));
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = start(dir.path(), config(&[]));
    assert!(matches!(open(dir.path()), Err(RecoverError::InUse { .. })));
    handle.shutdown();
    assert!(open(dir.path()).is_ok(), "the lock ends with the venue");
}

/// Runs this test binary again with only the named test, on a directory, in a process of its own.
fn child(test: &str, mark: &str, dir: &std::path::Path) -> std::process::Command {
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test's file"));
    child.args([test, "--exact", "--nocapture"]).env(mark, dir);
    child
}

/// Ten lives of one venue, each ended by `kill -9` under load at a moment of the seed's choosing.
#[test]
fn what_was_told_before_a_kill_is_there_after_it_and_the_lives_replay_as_one() {
    const MARK: &str = "GRID_TEST_KILLED_CHILD";
    if let Ok(dir) = std::env::var(MARK) {
        tell_until_killed(dir.as_ref());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut dice = Dice::new(7);
    for life in 0..10 {
        let test = "pipeline::what_was_told_before_a_kill_is_there_after_it_and_the_lives_replay_as_one";
        let mut child =
            child(test, MARK, dir.path()).stdout(Stdio::piped()).spawn().expect("a child process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut told =
            lines.filter_map(|line| line.expect("read").strip_prefix("told ")?.parse::<u64>().ok());
        let last = told.nth(dice.below(100) as usize).expect("the child tells");
        child.kill().expect("killed");
        child.wait().expect("waited for");
        // It may have told more between the line that was read and the kill.
        let last = told.last().unwrap_or(last);
        let recovered = open(dir.path()).unwrap_or_else(|error| panic!("life {life}: {error}"));
        assert!(
            recovered.log_end().seq.0 >= last,
            "life {life}: told of {last}, recovered {:?}",
            recovered.log_end().seq
        );
        let replayed = replay_from_first_block(dir.path(), Toy::default, |_| {}).expect("it replays");
        assert_eq!(replayed.machine.state_hash(), recovered.machine.state_hash(), "life {life}");
    }
}

fn tell_until_killed(dir: &std::path::Path) -> ! {
    // A small ring, so that the two producers wait rather than run ahead.
    let mut handle = start(dir, Config { inbound_slots: 64, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    for producer in 0..2 {
        let mut submitter = handle.submitter();
        std::thread::spawn(move || {
            (0..u64::MAX).for_each(|nth| submit(&mut submitter, deposit(producer, nth)))
        });
    }
    read_until(&mut poller, |output| {
        println!("told {}", output.block.last_seq().0);
        false
    });
    unreachable!("nobody shuts it down")
}

#[test]
fn a_panic_in_a_stage_ends_the_process() {
    const MARK: &str = "GRID_TEST_PANICKING_CHILD";
    if let Ok(dir) = std::env::var(MARK) {
        let mut recovered = open(dir.as_ref()).expect("it recovers");
        // A machine that is out of step with the log panics at the first command.
        recovered.machine.commands = 77;
        let mut handle = Sequencer::start(recovered, config(&["test"])).expect("it starts");
        let mut poller = handle.take_output("test").expect("asked for");
        submit(&mut handle.submitter(), deposit(0, 0));
        read_until(&mut poller, |_| true);
        unreachable!("the process has ended");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let child = child("pipeline::a_panic_in_a_stage_ends_the_process", MARK, dir.path())
        .output()
        .expect("a child process");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{said}");
    assert!(said.contains("FAULT: thread `seq-match` panicked"), "{said}");
}

/// The disk refuses in the middle of a life; here because files may not grow past 40 KiB.
#[test]
fn a_write_that_fails_ends_the_process_and_what_was_told_before_is_there() {
    const MARK: &str = "GRID_TEST_LIMITED_CHILD";
    if let Ok(dir) = std::env::var(MARK) {
        let mut handle = start(dir.as_ref(), config(&["test"]));
        let (mut submitter, mut poller) =
            (handle.submitter(), handle.take_output("test").expect("asked for"));
        for nth in 0.. {
            submit(&mut submitter, deposit(0, nth));
            read_until(&mut poller, |output| output.block.last_seq().0 > nth);
            println!("told {}", nth + 1);
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    // Made with large segments, so that the limit falls into the first.
    let large = JournalConfig { segment_bytes: 256 << 10, ..JournalConfig::default() };
    drop(recover(dir.path(), large, Toy::default, |_| {}).expect("it recovers"));
    let test = "pipeline::a_write_that_fails_ends_the_process_and_what_was_told_before_is_there";
    // With the signal for it ignored, a write past the limit is an error like that of a full disk.
    let limited = "trap '' XFSZ; ulimit -f 80; exec \"$0\" \"$@\"";
    let child = std::process::Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().expect("this test's file"))
        .args([test, "--exact", "--nocapture"])
        .env(MARK, dir.path())
        .output()
        .expect("a child process");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{said}");
    assert!(said.contains("FAULT: cannot write") && said.contains("journal-0000000001.seg"), "{said}");
    let told = String::from_utf8_lossy(&child.stdout);
    let told = told.lines().filter_map(|line| line.strip_prefix("told ")?.parse::<u64>().ok()).max();
    let recovered = open(dir.path()).expect("it recovers");
    assert!(told.is_some_and(|told| recovered.log_end().seq.0 >= told), "told of {told:?}");
}

#[test]
fn readers_of_a_journal_that_is_being_written_see_a_sound_beginning_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut handle = start(dir.path(), Config { inbound_slots: 64, ..config(&["test"]) });
    let mut poller = handle.take_output("test").expect("asked for");
    let consumer = std::thread::spawn(move || read_until(&mut poller, |_| false).len());
    let stop = Arc::new(AtomicBool::new(false));
    let producer = std::thread::spawn({
        let (mut submitter, stop) = (handle.submitter(), Arc::clone(&stop));
        move || {
            for nth in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                submit(&mut submitter, deposit(0, nth));
            }
        }
    });
    let mut seen = 0;
    for look in 0..100 {
        let applied = handle.status().applied_seq;
        let read = |upto| {
            let replayed = replay_upto(dir.path(), upto, Toy::default, |_| {});
            replayed.unwrap_or_else(|error| panic!("look {look}: {error}"))
        };
        let (known, whole) = (read(Upto::KnownCommit), read(Upto::End));
        assert!(whole.position.seq >= applied, "look {look}: what was told is there");
        assert!(known.commands >= seen && whole.commands >= known.commands, "look {look}");
        seen = known.commands;
    }
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer ends");
    assert!(handle.shutdown().machine.commands >= seen);
    consumer.join().expect("the consumer ends");
}
