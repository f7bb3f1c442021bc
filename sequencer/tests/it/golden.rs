//! Snapshots of yesterday. Each was written once, and every later build opens it. A change that breaks one of these tests needs a
//! new format number and a reader of the old. The journal's golden files are tested where one can be written: `src/torture/golden.rs`.

use grid_engine::{Engine, Nanos, Seq};
use grid_sequencer::{JournalConfig, Machine, Position, Unreadable, recover};

/// A machine small enough for its files to be looked at: how many numbers, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    commands: u64,
    sum: u64,
}

impl Machine for Sum {
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
        self.commands += 1;
        self.sum += command;
        out.push(self.sum);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> u64 {
        0
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.commands.to_le_bytes(), self.sum.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Unreadable("no sum".to_owned()))?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self { commands: word(0), sum: word(8) })
    }

    fn state_hash(&self) -> u64 {
        (self.commands * 1_000_003) ^ self.sum
    }
}

const POSITION: Position = Position {
    index: 9,
    term: 3,
    seq: Seq(5),
    chain: 0x1122_3344_5566_7788,
    at: Nanos(1_700_000_000_000_000_000),
};

/// A node that is handed such a file starts from it.
fn starts_from(snapshot: &[u8], members: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = JournalConfig { segment_bytes: 16 << 10, ..JournalConfig::default() };
    let open = || recover(dir.path(), config, Sum::default, |_| {});
    let fresh = open().expect("it begins");
    let mut receiver = fresh.snapshots().receive().expect("it begins");
    receiver.write(snapshot).expect("written");
    let meta = receiver.finish().expect("every later build opens it");
    assert_eq!((meta.position, meta.members.as_slice()), (POSITION, members));
    drop(fresh);
    let recovered = open().expect("it starts");
    assert_eq!(recovered.machine, Sum { commands: 5, sum: 1215 });
    assert_eq!(
        (recovered.position, recovered.log_end(), recovered.log_start),
        (POSITION, POSITION, POSITION)
    );
    assert_eq!(recovered.members, members);
    assert_eq!(recovered.hard_state.commit, 9);
    assert!(recovered.report.received && recovered.report.torn.is_none());
    drop(recovered);
    let again = open().expect("and again, as from one of its own");
    assert_eq!((again.position, again.report.received), (POSITION, false));
}

#[test]
fn a_snapshot_of_format_1_opens() {
    starts_from(include_bytes!("../golden/snapshot-format-1.snap"), b"");
}

#[test]
fn a_snapshot_of_format_2_opens() {
    starts_from(include_bytes!("../golden/snapshot-format-2.snap"), b"members of a golden cluster");
}

/// A node that finds a journal of a venue from before the first release says so, and what to do; it reads none of it as
/// something else. The files are the beginnings of such journals.
#[test]
fn a_journal_of_an_engine_from_before_the_first_release_is_refused_and_left_alone() {
    let journals: [(u32, &[u8]); 2] = [
        (1, include_bytes!("../golden/engine-format-1.seg")),
        (2, include_bytes!("../golden/engine-format-2.seg")),
    ];
    for (format, bytes) in journals {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = dir.path().join("journal");
        std::fs::create_dir(&journal).expect("made");
        let path = journal.join("journal-0000000001.seg");
        std::fs::write(&path, bytes).expect("written");
        let refused = match recover(dir.path(), JournalConfig::default(), Engine::new, |_| {}) {
            Ok(_) => panic!("a venue of format {} reads none of format {format}", Engine::FORMAT),
            Err(refused) => refused.to_string(),
        };
        for words in
            [format!("its commands have format {format},"), "begin with an empty data directory".into()]
        {
            assert!(refused.contains(&words), "{refused:?} says {words:?}");
        }
        assert_eq!(std::fs::read(&path).expect("it is still there"), bytes);
    }
}
