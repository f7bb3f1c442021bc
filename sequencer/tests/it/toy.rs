//! A machine small enough to see through: an account of numbered deposits, and one alarm clock.
//! It counts how often each deposit was seen, so a lost, repeated or reordered command shows.

use grid_engine::{Nanos, Seq};
use grid_sequencer::{Machine, Unreadable};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The `nth` deposit of a producer.
    Deposit { producer: u32, nth: u64, text: Vec<u8> },
    /// Asks for a ring after so many nanoseconds of log time.
    SetAlarm { after: Nanos },
    /// Lets time pass.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Deposited { producer: u32, nth: u64 },
    AlarmSet { at: Nanos },
    Rang { due: Nanos },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toy {
    pub commands: u64,
    pub ticks: u64,
    pub rings: u64,
    pub last_at: u64,
    pub digest: u64,
    pub alarm: Option<u64>,
}

impl Toy {
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn words(&self) -> [u64; 7] {
        let Self { commands, ticks, rings, last_at, digest, alarm } = *self;
        [commands, ticks, rings, last_at, digest, u64::from(alarm.is_some()), alarm.unwrap_or(0)]
    }
}

impl Machine for Toy {
    type Command = Command;
    type Event = Event;

    const FORMAT: u32 = 1;

    fn encode(command: &Command, out: &mut Vec<u8>) {
        match command {
            Command::Deposit { producer, nth, text } => {
                out.push(1);
                out.extend_from_slice(&producer.to_le_bytes());
                out.extend_from_slice(&nth.to_le_bytes());
                out.extend_from_slice(text);
            }
            Command::SetAlarm { after } => {
                out.push(2);
                out.extend_from_slice(&after.0.to_le_bytes());
            }
            Command::Tick => out.push(3),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Command, Unreadable> {
        let unreadable = || Unreadable("no toy command".to_owned());
        let (kind, rest) = bytes.split_first().ok_or_else(unreadable)?;
        match kind {
            1 => {
                let (producer, rest) = rest.split_first_chunk().ok_or_else(unreadable)?;
                let (nth, text) = rest.split_first_chunk().ok_or_else(unreadable)?;
                Ok(Command::Deposit {
                    producer: u32::from_le_bytes(*producer),
                    nth: u64::from_le_bytes(*nth),
                    text: text.to_vec(),
                })
            }
            2 => Ok(Command::SetAlarm {
                after: Nanos(u64::from_le_bytes(*rest.first_chunk().ok_or_else(unreadable)?)),
            }),
            3 => Ok(Command::Tick),
            _ => Err(unreadable()),
        }
    }

    fn apply(&mut self, seq: Seq, at: Nanos, command: &Command, out: &mut Vec<Event>) {
        assert_eq!(seq.0, self.commands + 1, "commands come without a gap");
        assert!(at.0 >= self.last_at, "time does not go back");
        self.commands += 1;
        self.last_at = at.0;
        if let Some(due) = self.alarm.filter(|due| *due <= at.0) {
            self.alarm = None;
            self.rings += 1;
            out.push(Event::Rang { due: Nanos(due) });
        }
        let mut bytes = seq.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&at.0.to_le_bytes());
        Self::encode(command, &mut bytes);
        self.mix(&bytes);
        match command {
            Command::Deposit { producer, nth, .. } => {
                out.push(Event::Deposited { producer: *producer, nth: *nth })
            }
            Command::SetAlarm { after } => {
                let due = at.after(*after);
                self.alarm = Some(due.0);
                out.push(Event::AlarmSet { at: due });
            }
            Command::Tick => self.ticks += 1,
        }
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.alarm.map(Nanos)
    }

    fn tick() -> Command {
        Command::Tick
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        // More than one chunk of the file.
        out.resize(3 << 20, 7);
        out
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() != 3 << 20 {
            return Err(Unreadable("no toy snapshot".to_owned()));
        }
        let word =
            |nth: usize| u64::from_le_bytes(bytes[nth * 8..nth * 8 + 8].try_into().expect("eight bytes"));
        Ok(Self {
            commands: word(0),
            ticks: word(1),
            rings: word(2),
            last_at: word(3),
            digest: word(4),
            alarm: (word(5) == 1).then(|| word(6)),
        })
    }

    fn state_hash(&self) -> u64 {
        let mut copy = self.clone();
        for word in self.words() {
            copy.mix(&word.to_le_bytes());
        }
        copy.digest
    }
}

/// A seeded stream of numbers, so that a failing case can be run again.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
