//! What the tests need again and again: a venue on a directory, commands, and their outputs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use grid_sequencer::{
    Config, Handle, JournalConfig, Output, OutputPoller, Polled, RecoverError, Recovered, Sequencer,
    SubmitError, Submitter, ThreadLayout, recover,
};

use crate::toy::{Command, Event, Toy};

/// Small segments, so that every test crosses some.
pub fn small() -> JournalConfig {
    JournalConfig { segment_bytes: 16 << 10, ..JournalConfig::default() }
}

pub fn config(outputs: &[&str]) -> Config {
    Config { command_bytes_max: 2048, layout: ThreadLayout::parked(), ..Config::new(outputs) }
}

pub fn open(dir: &Path) -> Result<Recovered<Toy>, RecoverError> {
    recover(dir, small(), Toy::default, |_| {})
}

pub fn start(dir: &Path, config: Config) -> Handle<Toy> {
    Sequencer::start(open(dir).expect("the directory recovers"), config).expect("it starts")
}

pub fn deposit(producer: u32, nth: u64) -> Command {
    Command::Deposit { producer, nth, text: vec![b'x'; (nth % 97) as usize] }
}

/// Submits until taken; the ring empties without our doing.
pub fn submit(submitter: &mut Submitter<Toy>, mut command: Command) {
    loop {
        match submitter.try_submit(command) {
            Ok(()) => return,
            Err(SubmitError::Full(back)) => command = back,
            Err(other) => panic!("not taken: {other}"),
        }
        std::thread::yield_now();
    }
}

/// Reads outputs until `enough` says so, or until the end.
pub fn read_until(
    poller: &mut OutputPoller<Toy>,
    mut enough: impl FnMut(&Output<Toy>) -> bool,
) -> Vec<Arc<Output<Toy>>> {
    let mut all: Vec<Arc<Output<Toy>>> = Vec::new();
    loop {
        let before = all.len();
        let polled = poller.poll(usize::MAX, &mut all);
        // The empty block with which each start begins its term is no command's.
        all.retain(|output| output.block.commands().len() > 0);
        match polled {
            Polled::Some(_) if all[before..].iter().any(|output| enough(output)) => return all,
            Polled::Some(_) => {}
            Polled::Empty => poller.wait(Duration::from_secs(10)),
            Polled::Closed => return all,
        }
    }
}

/// Fills a fresh venue with `count` deposits, one block each, and stops it cleanly.
pub fn fill(dir: &Path, count: u64) -> Toy {
    let mut handle = start(dir, config(&["test"]));
    let mut poller = handle.take_output("test").expect("asked for");
    let mut submitter = handle.submitter();
    for nth in 0..count {
        submit(&mut submitter, deposit(0, nth));
        read_until(&mut poller, |output| output.events().contains(&Event::Deposited { producer: 0, nth }));
    }
    handle.shutdown().machine
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("typed").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
