//! Frames: how bytes on a link are cut, checked and named. No socket here and no meaning beyond the login, so that a
//! table and a fuzzer can go over every byte of it.
//!
//! A frame is a header of 12 bytes and a body: `u32 body length | u8 kind | 3 zero bytes | u32 crc32c of those eight
//! bytes and the body`, little endian. The checksum is there although TLS has its own: plain links exist, and a block
//! that a bug of ours garbled on its way must not reach the journal.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// Bytes before a body.
pub(crate) const HEADER_LEN: usize = 12;
/// The longest body before a login is through.
pub(crate) const LOGIN_BODY_MAX: usize = 1024;
/// What a link speaks; both ends must speak the same.
pub(crate) const PROTOCOL: u16 = 1;
/// The first bytes of every Hello, whatever the protocol's version.
const MAGIC: [u8; 8] = *b"GRIDLINK";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is. A retired number is never given again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Who dials, whom, why: the first frame of a connection.
    Hello = 1,
    /// The answer that opens it.
    Welcome = 2,
    /// The answer that ends it, with the reason.
    Refused = 3,
    /// Are you there?
    Ping = 4,
    /// I am.
    Pong = 5,
    /// A message of the raft core.
    Raft = 16,
    /// Digests of what a node's state has come to.
    Digest = 17,
    /// A snapshot is about to come.
    SnapshotBegin = 32,
    /// A part of it.
    SnapshotChunk = 33,
    /// That was all of it.
    SnapshotEnd = 34,
    /// It will not come after all.
    SnapshotAbort = 35,
    /// So much of it is written.
    SnapshotAck = 36,
    /// What became of it.
    SnapshotOutcome = 37,
    /// An operator asks.
    AdminRequest = 48,
    /// And is answered.
    AdminReply = 49,
    /// A node whose journal is damaged asks for blocks.
    RepairRequest = 64,
    /// And gets them.
    RepairBlocks = 65,
}

/// Why bytes are no frame; the connection they came on is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {length} bytes; at most {limit} are taken here")]
    TooLong { length: usize, limit: usize },
    #[error("what begins with 0x16 0x03 is TLS, and this side was told to speak plainly")]
    LooksLikeTls,
    #[error("bytes 5 to 8 of a frame are zero; these are not")]
    Padding,
    #[error("no frame is of kind {0}")]
    Kind(u8),
    #[error("a frame's checksum is wrong")]
    Checksum,
}

/// A frame found at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) kind: Kind,
    pub(crate) body: &'a [u8],
    /// Header and body.
    pub(crate) len: usize,
}

/// The first frame of the input if it is whole, `None` if more bytes are needed.
pub(crate) fn first(input: &[u8], body_max: usize) -> Result<Option<Found<'_>>, FrameError> {
    if let [0x16, 0x03, ..] = input
        && body_max <= LOGIN_BODY_MAX
    {
        return Err(FrameError::LooksLikeTls);
    }
    let Some((header, rest)) = input.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length > body_max {
        return Err(FrameError::TooLong { length, limit: body_max });
    }
    if header[5..8] != [0; 3] {
        return Err(FrameError::Padding);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let said = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if crc32c::crc32c_append(crc32c::crc32c(&header[..8]), body) != said {
        return Err(FrameError::Checksum);
    }
    let kind = Kind::from_number(header[4]).ok_or(FrameError::Kind(header[4]))?;
    Ok(Some(Found { kind, body, len: HEADER_LEN + length }))
}

/// Appends a frame whose body is the parts, one after the other.
pub(crate) fn put(kind: Kind, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("a body is bounded long before 4 GiB");
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind as u8;
    let crc = parts.iter().fold(crc32c::crc32c(&header[..8]), |crc, part| crc32c::crc32c_append(crc, part));
    header[8..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a frame whose body is a value in its postcard form.
pub(crate) fn put_value<T: Serialize>(kind: Kind, value: &T, out: &mut Vec<u8>) {
    put(kind, &[&to_bytes(value)], out);
}

/// A value's bytes.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values have a postcard form")
}

/// A value that fills the bytes exactly.
pub(crate) fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// What a connection is for; decides which frames may come on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Raft messages, digests and snapshots of another node.
    Peer,
    /// A node asks for blocks that its journal has lost.
    Repair,
    /// An operator's requests.
    Operator,
}

/// Which of a node's connections this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Drawn by chance when the dialling links were started.
    pub(crate) boot: u64,
    /// Counts that boot's connections to this peer.
    pub(crate) attempt: u64,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) cluster: u64,
    pub(crate) role: Role,
    /// The dialling node; 0 for an operator.
    pub(crate) from: NodeId,
    /// Whom it means to have reached; 0 for whoever it may be.
    pub(crate) to: NodeId,
    pub(crate) epoch: Epoch,
    /// Where the dialling node listens itself, so that one that has not heard of it yet can answer.
    pub(crate) listens: Option<SocketAddr>,
}

impl Hello {
    /// Appends the frame.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put(Kind::Hello, &[&MAGIC, &PROTOCOL.to_le_bytes(), &to_bytes(self)], out);
    }

    /// Reads the body.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let Some(rest) = body.strip_prefix(&MAGIC) else {
            return Err(Refusal::new(RefusalCode::Protocol, "this is no link's Hello"));
        };
        let Some((version, rest)) = rest.split_first_chunk::<2>() else {
            return Err(Refusal::new(RefusalCode::Protocol, "a Hello that is cut off"));
        };
        let version = u16::from_le_bytes(*version);
        if version != PROTOCOL {
            let words = format!("this node's links speak protocol {PROTOCOL}, the Hello says {version}");
            return Err(Refusal::new(RefusalCode::Protocol, words));
        }
        from_bytes(rest).ok_or_else(|| Refusal::new(RefusalCode::Protocol, "a Hello that cannot be read"))
    }

    /// Whether this node takes the connection: right cluster, right node, and a certificate that says the same as
    /// the Hello. `certified` says whether the other side's certificate bears a name; on a plain link it says yes.
    pub(crate) fn check(
        &self,
        cluster: u64,
        node: NodeId,
        certified: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        if self.cluster != cluster {
            let words = format!("this is cluster {cluster}, the Hello says {}", self.cluster);
            return Err(Refusal::new(RefusalCode::Cluster, words));
        }
        if self.to != node && !(self.to == 0 && self.role == Role::Operator) {
            let words = format!("this is node {node}, the Hello is for {}", self.to);
            return Err(Refusal::new(RefusalCode::Node, words));
        }
        let name = match self.role {
            Role::Operator => super::identity::OPERATOR_NAME.to_owned(),
            Role::Peer | Role::Repair if self.from == node || self.from == 0 => {
                let words = format!("a node numbered {} cannot be a peer of node {node}", self.from);
                return Err(Refusal::new(RefusalCode::Node, words));
            }
            Role::Peer | Role::Repair => super::identity::node_name(self.from),
        };
        if !certified(&name) {
            let words = format!("the certificate does not bear the name {name}");
            return Err(Refusal::new(RefusalCode::Certificate, words));
        }
        Ok(())
    }
}

/// The answer to a Hello that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Who answers.
    pub(crate) node: NodeId,
}

/// The kinds of reasons for not taking a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// Another protocol, another version of it, or a frame that has no place here.
    Protocol,
    /// Another cluster.
    Cluster,
    /// Another node than the one meant.
    Node,
    /// The certificate is somebody else's.
    Certificate,
    /// A newer connection of the same node has been taken already.
    Stale,
    /// No more connections of this kind.
    Full,
}

/// Why a connection is not taken; sent to the other side and logged on both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{words}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub words: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, words: impl Into<String>) -> Self {
        Self { code, words: words.into() }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: 7,
            role: Role::Peer,
            from: 2,
            to: 1,
            epoch: Epoch { boot: 5, attempt: 1 },
            listens: Some(([127, 0, 0, 1], 4000).into()),
        }
    }

    #[test]
    fn frames_read_back_in_order_and_wait_for_their_last_byte() {
        let mut bytes = Vec::new();
        put(Kind::Raft, &[b"one", b" and two"], &mut bytes);
        put(Kind::Ping, &[], &mut bytes);
        let found = first(&bytes, 100).unwrap().unwrap();
        assert_eq!((found.kind, found.body), (Kind::Raft, &b"one and two"[..]));
        for cut in 0..found.len {
            assert_eq!(first(&bytes[..cut], 100), Ok(None), "cut at {cut}");
        }
        let rest = &bytes[found.len..];
        assert_eq!(first(rest, 100).unwrap().unwrap().kind, Kind::Ping);
        assert_eq!(rest.len(), HEADER_LEN);
    }

    /// The wire form is a promise between builds: whoever changes it changes the protocol's number.
    #[test]
    fn the_bytes_are_those_that_earlier_builds_wrote() {
        let mut bytes = Vec::new();
        put(Kind::Raft, &[b"block"], &mut bytes);
        hello().put(&mut bytes);
        put_value(Kind::AdminRequest, &super::super::AdminRequest::Promote { node: 300 }, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "0500000010000000b56240b1626c6f636b",
            "18000000010000005356f927475249444c494e4b010007000201050101007f000001a01f",
            "030000003000000034382d4e02ac02",
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let mut bytes = Vec::new();
        put(Kind::Raft, &[b"a block"], &mut bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(!matches!(first(&bad, 1 << 30), Ok(Some(_))), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body_has_come() {
        let mut bytes = Vec::new();
        put(Kind::Raft, &[&[0; 2000]], &mut bytes);
        let expected = Err(FrameError::TooLong { length: 2000, limit: 1024 });
        assert_eq!(first(&bytes[..HEADER_LEN], LOGIN_BODY_MAX), expected);
    }

    #[test]
    fn tls_at_a_plain_door_is_called_by_its_name() {
        assert_eq!(first(&[0x16, 3, 1, 2, 0], LOGIN_BODY_MAX), Err(FrameError::LooksLikeTls));
    }

    #[test]
    fn bytes_by_chance_never_panic_the_readers() {
        let mut dice = SmallRng::seed_from_u64(3);
        for _ in 0..20_000 {
            let len = dice.random_range(0..200);
            let bytes: Vec<u8> = (0..len).map(|_| dice.random()).collect();
            let _ = first(&bytes, 1 << 20);
            let _ = Hello::read(&bytes);
            let _ = from_bytes::<super::super::AdminRequest>(&bytes);
            let _ = from_bytes::<super::super::AdminReply>(&bytes);
            let mut garbled = Vec::new();
            hello().put(&mut garbled);
            let at = dice.random_range(HEADER_LEN..garbled.len());
            garbled[at] = dice.random();
            let _ = Hello::read(&garbled[HEADER_LEN..]);
        }
    }

    #[test]
    fn a_hello_reads_back_and_another_version_is_told_both() {
        let mut bytes = Vec::new();
        hello().put(&mut bytes);
        let body = first(&bytes, LOGIN_BODY_MAX).unwrap().unwrap().body;
        assert_eq!(Hello::read(body), Ok(hello()));
        let mut newer = body.to_vec();
        newer[8] = 2;
        let refusal = Hello::read(&newer).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Protocol);
        assert_eq!(refusal.words, "this node's links speak protocol 1, the Hello says 2");
    }

    #[test]
    fn hellos_are_checked_in_this_order() {
        let good = hello();
        let operator = Hello { role: Role::Operator, from: 0, to: 0, ..hello() };
        let all = |_: &str| true;
        let none = |_: &str| false;
        type Row = (&'static str, Hello, fn(&str) -> bool, Option<RefusalCode>);
        let table: [Row; 10] = [
            ("right in everything", good.clone(), all, None),
            (
                "another cluster",
                Hello { cluster: 8, to: 3, ..good.clone() },
                none,
                Some(RefusalCode::Cluster),
            ),
            ("for another node", Hello { to: 3, ..good.clone() }, none, Some(RefusalCode::Node)),
            ("for any node", Hello { to: 0, ..good.clone() }, all, Some(RefusalCode::Node)),
            ("from this very node", Hello { from: 1, ..good.clone() }, all, Some(RefusalCode::Node)),
            ("from nobody", Hello { from: 0, ..good.clone() }, all, Some(RefusalCode::Node)),
            (
                "another's certificate",
                good.clone(),
                |name| name == "node-3.grid",
                Some(RefusalCode::Certificate),
            ),
            (
                "the operator's certificate",
                good,
                |name| name == "operator.grid",
                Some(RefusalCode::Certificate),
            ),
            ("an operator at any node", operator.clone(), |name| name == "operator.grid", None),
            ("a node as operator", operator, |name| name == "node-2.grid", Some(RefusalCode::Certificate)),
        ];
        for (name, hello, certified, expected) in table {
            assert_eq!(hello.check(7, 1, certified).err().map(|refusal| refusal.code), expected, "{name}");
        }
    }
}
