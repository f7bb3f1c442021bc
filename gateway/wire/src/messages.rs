//! Every message, once: the table below is the struct that programs use, the layout on the wire,
//! and the schema that the world reads. Fields stand widest first, so nothing needs padding; new
//! fields go to the end of a block and nowhere else.

use crate::field::{BadValue, Kind, Signature, Tag, Value, Wire};
use crate::frame::{self, Frame};
use crate::values::*;

/// The id of the schema, in every header.
pub const SCHEMA_ID: u16 = 7201;
/// The version of the schema that this code speaks.
pub const SCHEMA_VERSION: u16 = 4;
/// Blocks that have grown: the message, the version that made it longer, and its length before. A shorter block of an
/// older sender is read with zeros for what it does not have, so zero must mean "not said" in every field that is
/// added.
const GROWN: &[(&str, u16, usize)] = &[
    ("NegotiationReject", 2, 19),
    ("EstablishmentReject", 2, 19),
    ("Terminate", 2, 1),
    ("Reserve", 3, 50),
    ("Settle", 3, 57),
    ("ExecutionReport", 4, 115),
];

/// The version that brought the field at this offset.
const fn since(block: &str, offset: usize) -> u16 {
    let (mut index, mut version) = (0, 1);
    while index < GROWN.len() {
        let (name, grown_in, before) = GROWN[index];
        if same(name, block) && offset >= before && grown_in > version {
            version = grown_in;
        }
        index += 1;
    }
    version
}

/// The length of a block in the version that brought it.
const fn first_size(block: &str, size: usize) -> usize {
    let (mut index, mut first) = (0, size);
    while index < GROWN.len() {
        let (name, _, before) = GROWN[index];
        if same(name, block) && before < first {
            first = before;
        }
        index += 1;
    }
    first
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}
/// Templates that carry a client sequence number as their first field.
pub const COMMAND_TEMPLATES: std::ops::Range<u16> = 20..40;

/// A whole frame whose body is not a message of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No such template.
    #[error("template {template} is not in the schema")]
    UnknownTemplate {
        /// The id found.
        template: u16,
    },
    /// The fixed part is shorter than version 1 of the message.
    #[error("{message}: block length {found} is below {expected}")]
    BlockTooShort {
        /// The message.
        message: &'static str,
        /// Its length in version 1.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// The frame ends before the message does.
    #[error("{message}: the frame ends inside it")]
    Truncated {
        /// The message.
        message: &'static str,
    },
    /// Bytes are left after the message.
    #[error("{message}: {count} bytes left over")]
    LeftOver {
        /// The message.
        message: &'static str,
        /// How many.
        count: usize,
    },
    /// A field holds a value that the schema does not define.
    #[error("{message}: {bad}")]
    BadValue {
        /// The message.
        message: &'static str,
        /// The value and its type.
        bad: BadValue,
    },
}

impl DecodeError {
    /// Whether only a value is wrong, so that the request can be refused by its number and the
    /// session go on.
    pub fn is_value(&self) -> bool {
        matches!(self, Self::BadValue { .. })
    }
}

/// A fixed run of fields: a message's block or a group's entry.
pub trait Block: Sized {
    /// Name in the schema.
    const NAME: &'static str;
    /// What it is for.
    const DOC: &'static str;
    /// Length on the wire in bytes.
    const SIZE: usize;
    /// Its length in the version that brought it; the shortest that is read.
    const FIRST_SIZE: usize;
    /// Its fields in order.
    const FIELDS: &'static [FieldSpec];
    /// Appends the bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads from the first [`Self::SIZE`] bytes; what is missing at the end reads as zeros.
    fn read(bytes: &[u8]) -> Result<Self, BadValue>;
    /// The values under the schema's names.
    fn values(&self) -> Vec<(String, Value)>;
    /// A value drawn from `state`, for tests.
    fn sample(state: &mut u64) -> Self;
}

/// One field as the schema shows it.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Name in Rust.
    pub name: &'static str,
    /// What it is, with its unit.
    pub doc: &'static str,
    /// Offset from the start of the block in bytes.
    pub offset: usize,
    /// Its layout.
    pub kind: Kind,
    /// The version of the schema that brought it.
    pub since: u16,
}

/// What follows a message's block.
#[derive(Clone, Copy, Debug)]
pub enum Tail {
    /// Nothing.
    None,
    /// A group: its name and entries.
    Group(&'static str, BlockSpec),
    /// Variable data.
    Data(&'static str),
}

/// A block as the schema shows it.
#[derive(Clone, Copy, Debug)]
pub struct BlockSpec {
    /// Name in the schema.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Length in bytes.
    pub size: usize,
    /// Its fields in order.
    pub fields: &'static [FieldSpec],
}

/// A message as the schema shows it.
#[derive(Clone, Copy, Debug)]
pub struct MessageSpec {
    /// Template id.
    pub template: u16,
    /// Its fixed part.
    pub block: BlockSpec,
    /// What follows.
    pub tail: Tail,
}

const fn spec<B: Block>() -> BlockSpec {
    BlockSpec { name: B::NAME, doc: B::DOC, size: B::SIZE, fields: B::FIELDS }
}

/// The entries of a group, read one by one from the frame.
#[derive(Clone, Copy)]
pub struct Group<'a, T> {
    bytes: &'a [u8],
    entry_len: usize,
    entry: std::marker::PhantomData<T>,
}

impl<'a, T: Block> Group<'a, T> {
    /// The entries in order. Their values were checked when the message was decoded.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        self.bytes.chunks_exact(self.entry_len).map_while(|entry| T::read(entry).ok())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.entry_len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(message: &'static str, bytes: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError::Truncated { message };
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(truncated)?;
        let entry_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let count = usize::from(u16::from_le_bytes([head[2], head[3]]));
        if entry_len < T::SIZE {
            return Err(DecodeError::BlockTooShort { message, expected: T::SIZE, found: entry_len });
        }
        let (bytes_of_entries, rest) = rest.split_at_checked(entry_len * count).ok_or(truncated)?;
        for entry in bytes_of_entries.chunks_exact(entry_len) {
            T::read(entry).map_err(|bad| DecodeError::BadValue { message, bad })?;
        }
        *bytes = rest;
        Ok(Self { bytes: bytes_of_entries, entry_len, entry: std::marker::PhantomData })
    }
}

impl<T: Block + std::fmt::Debug> std::fmt::Debug for Group<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Block + PartialEq> PartialEq for Group<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

fn put_group<T: Block>(out: &mut Vec<u8>, entries: &[T]) {
    // A count that does not fit is a caller's fault; writers part their groups long before.
    assert!(entries.len() <= usize::from(u16::MAX), "a group holds at most 65535 entries");
    out.extend_from_slice(&(T::SIZE as u16).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    for entry in entries {
        entry.write(out);
    }
}

fn take_data<'a>(message: &'static str, bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let truncated = DecodeError::Truncated { message };
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(truncated)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (data, rest) = rest.split_at_checked(length).ok_or(truncated)?;
    *bytes = rest;
    Ok(data)
}

fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    assert!(data.len() <= usize::from(u16::MAX), "variable data holds at most 65535 bytes");
    out.extend_from_slice(&(data.len() as u16).to_le_bytes());
    out.extend_from_slice(data);
}

#[inline]
fn take_block<B: Block>(frame: &Frame<'_>) -> Result<B, DecodeError> {
    let found = usize::from(frame.block_length);
    if found < B::FIRST_SIZE {
        return Err(DecodeError::BlockTooShort { message: B::NAME, expected: B::FIRST_SIZE, found });
    }
    let block = frame.body.get(..found).ok_or(DecodeError::Truncated { message: B::NAME })?;
    B::read(block).map_err(|bad| DecodeError::BadValue { message: B::NAME, bad })
}

/// A block of an older sender, with zeros for what it does not have. Rare: nodes of two versions serve only while they are
/// upgraded.
#[cold]
#[inline(never)]
fn lengthened<R: zerocopy::FromBytes + zerocopy::IntoBytes>(bytes: &[u8]) -> R {
    let mut whole = R::new_zeroed();
    whole.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    whole
}

#[inline]
fn finish(message: &'static str, rest: &[u8]) -> Result<(), DecodeError> {
    match rest.len() {
        0 => Ok(()),
        count => Err(DecodeError::LeftOver { message, count }),
    }
}

macro_rules! block {
    ($(#[doc = $doc:literal])* $name:ident, $size:literal {
        $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl Block for $name {
            const NAME: &'static str = stringify!($name);
            const DOC: &'static str = concat!($($doc),*);
            const SIZE: usize = $size;
            const FIRST_SIZE: usize = first_size(stringify!($name), $size);
            const FIELDS: &'static [FieldSpec] = &[$(FieldSpec {
                name: stringify!($field),
                doc: concat!($($field_doc),*),
                offset: std::mem::offset_of!(raw::$name, $field),
                kind: <$type as Wire>::KIND,
                since: since(stringify!($name), std::mem::offset_of!(raw::$name, $field)),
            },)*];

            #[inline]
            fn write(&self, out: &mut Vec<u8>) {
                let raw = raw::$name { $($field: self.$field.to_raw(),)* };
                out.extend_from_slice(zerocopy::IntoBytes::as_bytes(&raw));
            }

            #[inline]
            fn read(bytes: &[u8]) -> Result<Self, BadValue> {
                let longer;
                let raw = match <raw::$name as zerocopy::FromBytes>::ref_from_prefix(bytes) {
                    Ok((raw, _)) => raw,
                    Err(_) => {
                        longer = lengthened::<raw::$name>(bytes);
                        &longer
                    }
                };
                Ok(Self { $($field: <$type as Wire>::from_raw(&raw.$field)?,)* })
            }

            fn values(&self) -> Vec<(String, Value)> {
                let mut out = Vec::new();
                $(self.$field.values(&camel(stringify!($field)), &mut out);)*
                out
            }

            fn sample(state: &mut u64) -> Self {
                Self { $($field: <$type as Wire>::sample(state),)* }
            }
        }

        // The layout is the contract: sizes and alignment hold or nothing compiles.
        const _: () = assert!(size_of::<raw::$name>() == $size);
        $(#[allow(clippy::modulo_one)] // bytes may stand anywhere
        const _: () = assert!(
            std::mem::offset_of!(raw::$name, $field) % <$type as Wire>::ALIGN == 0
        );)*
    };
}

macro_rules! raw_block {
    ($name:ident { $($field:ident: $type:ty,)* }) => {
        #[derive(
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
            zerocopy::KnownLayout, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub(super) struct $name {
            $(pub(super) $field: <$type as Wire>::Raw,)*
        }
    };
}

macro_rules! messages {
    (
        plain { $(
            $(#[doc = $p_doc:literal])* [$p_id:literal] $plain:ident, $p_size:literal {
                $($(#[doc = $p_field_doc:literal])* $p_field:ident: $p_type:ty,)*
            }
        )* }
        group { $(
            $(#[doc = $g_doc:literal])* [$g_id:literal] $group:ident, $g_size:literal {
                $($(#[doc = $g_field_doc:literal])* $g_field:ident: $g_type:ty,)*
            } $entries:ident: $entry:ident;
        )* }
        data { $(
            $(#[doc = $d_doc:literal])* [$d_id:literal] $data:ident, $d_size:literal {
                $($(#[doc = $d_field_doc:literal])* $d_field:ident: $d_type:ty,)*
            } $var:ident;
        )* }
        entries { $(
            $(#[doc = $e_doc:literal])* $e_name:ident, $e_size:literal {
                $($(#[doc = $e_field_doc:literal])* $e_field:ident: $e_type:ty,)*
            }
        )* }
    ) => {
        mod raw {
            use super::*;
            $(raw_block! { $plain { $($p_field: $p_type,)* } })*
            $(raw_block! { $group { $($g_field: $g_type,)* } })*
            $(raw_block! { $data { $($d_field: $d_type,)* } })*
            $(raw_block! { $e_name { $($e_field: $e_type,)* } })*
        }

        $(block! { $(#[doc = $p_doc])* $plain, $p_size { $($(#[doc = $p_field_doc])* $p_field: $p_type,)* } })*
        $(block! { $(#[doc = $g_doc])* $group, $g_size { $($(#[doc = $g_field_doc])* $g_field: $g_type,)* } })*
        $(block! { $(#[doc = $d_doc])* $data, $d_size { $($(#[doc = $d_field_doc])* $d_field: $d_type,)* } })*
        $(block! { $(#[doc = $e_doc])* $e_name, $e_size { $($(#[doc = $e_field_doc])* $e_field: $e_type,)* } })*

        $(impl $plain {
            /// The template id.
            pub const TEMPLATE: u16 = $p_id;

            /// Reads this message of a frame of its template, which the caller has looked at: for whoever takes some
            /// messages far more often than others.
            #[inline]
            pub fn decode(frame: &Frame<'_>) -> Result<Self, DecodeError> {
                let block = take_block::<Self>(frame)?;
                finish(Self::NAME, frame.body.get(usize::from(frame.block_length)..).unwrap_or_default())?;
                Ok(block)
            }

            /// Appends the message as one frame.
            #[inline]
            pub fn encode(&self, out: &mut Vec<u8>) {
                out.reserve(frame::HEADER_LEN + $p_size);
                out.extend_from_slice(&frame::header(frame::HEADER_LEN + $p_size, $p_id, $p_size));
                self.write(out);
            }
        })*

        $(impl $group {
            /// The template id.
            pub const TEMPLATE: u16 = $g_id;

            /// Appends the message and its entries as one frame.
            pub fn encode(&self, $entries: &[$entry], out: &mut Vec<u8>) {
                let start = frame::open(out, $g_id, $g_size);
                self.write(out);
                put_group(out, $entries);
                frame::close(out, start);
            }
        })*

        $(impl $data {
            /// The template id.
            pub const TEMPLATE: u16 = $d_id;

            /// Appends the message and its variable data as one frame.
            pub fn encode(&self, $var: &[u8], out: &mut Vec<u8>) {
                let start = frame::open(out, $d_id, $d_size);
                self.write(out);
                put_data(out, $var);
                frame::close(out, start);
            }
        })*

        /// Any message of the schema, decoded.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Message<'a> {
            $($(#[doc = $p_doc])* $plain($plain),)*
            $($(#[doc = $g_doc])* $group($group, Group<'a, $entry>),)*
            $($(#[doc = $d_doc])* $data($data, &'a [u8]),)*
        }

        impl<'a> Message<'a> {
            /// Reads the message of a frame. A block longer than this version knows is read up to
            /// what it knows.
            pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
                let mut rest = frame.body.get(usize::from(frame.block_length)..).unwrap_or_default();
                match frame.template {
                    $($p_id => $plain::decode(frame).map(Self::$plain),)*
                    $($g_id => {
                        let block = take_block::<$group>(frame)?;
                        let entries = Group::take($group::NAME, &mut rest)?;
                        finish($group::NAME, rest)?;
                        Ok(Self::$group(block, entries))
                    })*
                    $($d_id => {
                        let block = take_block::<$data>(frame)?;
                        let data = take_data($data::NAME, &mut rest)?;
                        finish($data::NAME, rest)?;
                        Ok(Self::$data(block, data))
                    })*
                    template => Err(DecodeError::UnknownTemplate { template }),
                }
            }

            /// The name in the schema.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$plain(_) => stringify!($plain),)*
                    $(Self::$group(..) => stringify!($group),)*
                    $(Self::$data(..) => stringify!($data),)*
                }
            }

            /// Appends the message as one frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$plain(block) => block.encode(out),)*
                    $(Self::$group(block, entries) => block.encode(&entries.iter().collect::<Vec<_>>(), out),)*
                    $(Self::$data(block, data) => block.encode(data, out),)*
                }
            }

            /// The values of the fixed part, and of each group entry, under the schema's names.
            pub fn values(&self) -> (Vec<(String, Value)>, Vec<Vec<(String, Value)>>) {
                match self {
                    $(Self::$plain(block) => (block.values(), Vec::new()),)*
                    $(Self::$group(block, entries) => (
                        block.values(), entries.iter().map(|entry| entry.values()).collect(),
                    ),)*
                    $(Self::$data(block, _) => (block.values(), Vec::new()),)*
                }
            }
        }

        /// Every message of the schema.
        pub const MESSAGES: &[MessageSpec] = &[
            $(MessageSpec { template: $p_id, block: spec::<$plain>(), tail: Tail::None },)*
            $(MessageSpec {
                template: $g_id, block: spec::<$group>(),
                tail: Tail::Group(stringify!($entries), spec::<$entry>()),
            },)*
            $(MessageSpec { template: $d_id, block: spec::<$data>(), tail: Tail::Data(stringify!($var)) },)*
        ];

        /// One frame of every message, its values drawn from `state`; for golden files and fuzzing.
        pub fn samples(state: &mut u64) -> Vec<(&'static str, Vec<u8>)> {
            let mut all = Vec::new();
            $(
                let mut out = Vec::new();
                $plain::sample(state).encode(&mut out);
                all.push((stringify!($plain), out));
            )*
            $(
                let mut out = Vec::new();
                let entries: Vec<$entry> = (0..3).map(|_| $entry::sample(state)).collect();
                $group::sample(state).encode(&entries, &mut out);
                all.push((stringify!($group), out));
            )*
            $(
                let mut out = Vec::new();
                $data::sample(state).encode(b"some bytes", &mut out);
                all.push((stringify!($data), out));
            )*
            all
        }
    };
}

/// `snake_case` to `camelCase`.
pub(crate) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match (letter, upper) {
            ('_', _) => upper = true,
            (letter, true) => {
                out.push(letter.to_ascii_uppercase());
                upper = false;
            }
            (letter, false) => out.push(letter),
        }
    }
    out
}

messages! {
plain {
    /// The venue's first words on a connection; its nonce makes every login fresh.
    [1] Hello, 52 {
        /// Drawn anew for each connection.
        server_nonce: [u8; 32],
        /// The venue's clock, nanoseconds UTC.
        server_time: u64,
        /// Counts leaders; changes when another node took over.
        cluster_epoch: u64,
        /// The schema served.
        schema: u16,
        /// The newest version served.
        schema_version: u16,
    }
    /// Opens a session, once per session id; signed.
    [2] Negotiate, 156 {
        /// Chosen by the client, at random, never zero.
        session: u128,
        /// Drawn by the client.
        client_nonce: [u8; 32],
        /// SHA-256 of the signing key's 32 bytes.
        fingerprint: [u8; 32],
        /// The client's clock, nanoseconds UTC; at most 5 s off.
        timestamp: u64,
        /// Ed25519 over the negotiation transcript.
        signature: Signature,
        /// The schema version that the client speaks.
        schema_version: u16,
        /// Must be Idempotent.
        client_flow: Flow,
        /// Must be Recoverable.
        server_flow: Flow,
    }
    /// The session is open.
    [3] NegotiationResponse, 28 {
        /// The session.
        session: u128,
        /// Log sequence at which it was opened.
        log_seq: u64,
        /// The account it trades for.
        account: u32,
    }
    /// The session was not opened.
    [4] NegotiationReject, 40 {
        /// The session asked for.
        session: u128,
        /// The engine's reject, where it gave one; else zero.
        engine_code: u16,
        /// Why.
        code: NegotiationCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u16,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    }
    /// Takes up a session on this connection; signed.
    [5] Establish, 171 {
        /// The session.
        session: u128,
        /// Drawn by the client.
        client_nonce: [u8; 32],
        /// SHA-256 of the signing key's 32 bytes.
        fingerprint: [u8; 32],
        /// The client's clock, nanoseconds UTC; at most 5 s off.
        timestamp: u64,
        /// The report that the client expects next; 1 for all.
        next_seq: u64,
        /// Ed25519 over the establishment transcript.
        signature: Signature,
        /// Longest silence that the client keeps, milliseconds.
        keep_alive_ms: u32,
        /// How long a lost connection may stay away before its orders are cancelled, milliseconds.
        grace_ms: u32,
        /// The schema version that the client speaks.
        schema_version: u16,
        /// What happens when the connection is lost.
        cancel_policy: CancelPolicy,
    }
    /// The session is live on this connection.
    [6] EstablishmentAck, 76 {
        /// The session.
        session: u128,
        /// The report that the venue sends next; ask for those missing before it.
        next_seq: u64,
        /// The oldest report that can still be asked for.
        oldest_seq: u64,
        /// The highest client sequence number applied; resend what lies above.
        last_client_seq: u64,
        /// Log sequence of the establishment.
        log_seq: u64,
        /// The account it trades for.
        account: u32,
        /// Longest silence that the venue keeps, milliseconds.
        keep_alive_ms: u32,
        /// Requests other than cancels, per second.
        requests_per_second: u32,
        /// How many may come at once.
        requests_burst: u32,
        /// Cancels and mass cancels, per second.
        cancels_per_second: u32,
        /// How many may come at once.
        cancels_burst: u32,
        /// The longest frame accepted, bytes.
        max_frame: u32,
    }
    /// The session did not come to life on this connection.
    [7] EstablishmentReject, 40 {
        /// The session asked for.
        session: u128,
        /// The engine's reject, where it gave one; else zero.
        engine_code: u16,
        /// Why.
        code: EstablishmentCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u16,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    }
    /// The heartbeat of a sequenced flow, both ways.
    [8] Sequence, 8 {
        /// The number of the sender's next sequenced message.
        next_seq: u64,
    }
    /// Asks for reports again; one request at a time.
    [9] RetransmitRequest, 12 {
        /// The first wanted.
        from: u64,
        /// How many; at most 2,500.
        count: u32,
    }
    /// The reports asked for follow, flagged possResend, among live ones.
    [10] Retransmission, 12 {
        /// The first.
        from: u64,
        /// How many.
        count: u32,
    }
    /// The reports asked for do not follow.
    [11] RetransmitReject, 13 {
        /// The first asked for.
        from: u64,
        /// How many.
        count: u32,
        /// Why.
        code: RetransmitCode,
    }
    /// A gap in the client's numbers: these were not seen and will not be waited for.
    [12] NotApplied, 16 {
        /// The first missing.
        from: u64,
        /// How many.
        count: u64,
    }
    /// A request was refused for coming too fast; it was not applied and its number is spent.
    [14] Throttled, 13 {
        /// The request.
        client_seq: u64,
        /// When a next one would pass, milliseconds from now.
        retry_after_ms: u32,
        /// How far it went.
        level: ThrottleLevel,
    }

    /// Enters an order.
    [20] NewOrder, 65 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's label, unique among the account's open orders; zero for none.
        label: u128,
        /// Limit in ticks per Unit; zero for market.
        price: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// The instrument.
        instrument: u16,
        /// How far a market order may go from the best price, basis points.
        max_slippage_bps: Option<u16>,
        /// Buy or sell.
        side: Side,
        /// Limit or market.
        order_type: OrderType,
        /// How long it stays.
        time_in_force: TimeInForce,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
    }
    /// Enters an order with a text of the client's own beside its label.
    [21] NewOrderTagged, 129 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's label, unique among the account's open orders; zero for none.
        label: u128,
        /// Limit in ticks per Unit; zero for market.
        price: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// The instrument.
        instrument: u16,
        /// How far a market order may go from the best price, basis points.
        max_slippage_bps: Option<u16>,
        /// Buy or sell.
        side: Side,
        /// Limit or market.
        order_type: OrderType,
        /// How long it stays.
        time_in_force: TimeInForce,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
        /// The text.
        tag: Tag,
    }
    /// Cancels one order, by its id or by its label.
    [22] CancelOrder, 48 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The label; zero to go by id.
        label: u128,
        /// The order; zero to go by label.
        order_id: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
    }
    /// Replaces open quantity and price of one order, atomically.
    [23] ReplaceOrder, 66 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The label; zero to go by id.
        label: u128,
        /// The order; zero to go by label.
        order_id: u64,
        /// New limit in ticks per Unit.
        price: u64,
        /// New open quantity in Units; zero cancels.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
    }
    /// Cancels many orders.
    [24] MassCancel, 28 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Only in this instrument; absent for all.
        instrument: Option<u16>,
        /// Only on this side.
        side: SideScope,
        /// The account's orders, or this session's.
        scope: CancelScope,
    }
    /// Takes tokens out of the account's lots for one inference call, buying if it may.
    [25] Reserve, 56 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's id of the call, unique per account.
        request_id: u128,
        /// Tokens wanted at most.
        tokens: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// How long the reservation lives, milliseconds; zero for the instrument's default.
        valid_for_ms: u32,
        /// The instrument.
        instrument: u16,
        /// Where the call came in.
        surface: Surface,
        /// Not read; what follows is aligned by it.
        spare: u8,
        /// The consumption key of the call, counted from 1; zero for none.
        key: u32,
    }
    /// Turns a reservation into a usage record and gives back the rest.
    [26] Settle, 60 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens that went in.
        prompt_tokens: u64,
        /// Tokens that came out.
        completion_tokens: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The account of the supplier that delivered.
        supplier: u32,
        /// Request to first token, microseconds.
        ttft_us: u32,
        /// Whole duration, microseconds.
        duration_us: u32,
        /// Remarks.
        flags: SettleFlags,
        /// Which of the supplier's offers served, from 0.
        offer: u8,
        /// Why it was this supplier.
        cover: Cover,
        /// Suppliers that were asked, this one too; zero where nobody counted.
        attempts: u8,
    }
    /// Gives a reservation back whole.
    [27] Release, 32 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The reservation.
        reservation: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The account of the supplier that failed; zero where none was reached.
        supplier: u32,
    }
    /// Moves units between the trading and the consumption pocket of one account.
    [28] Transfer, 31 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Which way.
        direction: Direction,
    }
    /// Sets how much of the session's quotes may be filled within how long before all of them are pulled. All zero: any
    /// amount. Counting begins anew, and after a pull quotes are taken again.
    [31] QuoteProtection, 36 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// So many Units filled within the window pull the quotes; zero for any number.
        qty: u64,
        /// The account; zero for the session's own, which it must be.
        account: u32,
        /// The window, microseconds of log time; it begins with a fill, and the next fill after its end begins another.
        window_us: u32,
        /// So many fills within the window pull the quotes; zero for any number.
        fills: u32,
    }

    /// Subscribes to depth and trades of one instrument; a snapshot comes first.
    [40] MarketDataSubscribe, 12 {
        /// Echoed in the answer.
        request_id: u64,
        /// The instrument.
        instrument: u16,
        /// Price levels per side; zero for all.
        depth: u16,
    }
    /// Ends a subscription.
    [41] MarketDataUnsubscribe, 10 {
        /// Echoed in the answer.
        request_id: u64,
        /// The instrument.
        instrument: u16,
    }

    /// What happened to an order.
    [50] ExecutionReport, 116 {
        /// Number in the session's report flow; zero if not part of it.
        session_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request answered; zero if none asked.
        client_seq: u64,
        /// The order.
        order_id: u64,
        /// The client's label.
        label: u128,
        /// Its limit, ticks per Unit.
        price: u64,
        /// Units still open.
        leaves_qty: u64,
        /// Units traded so far.
        cum_qty: u64,
        /// Price of this trade, ticks per Unit.
        last_price: u64,
        /// Units of this trade.
        last_qty: u64,
        /// The trade; zero if this is none.
        trade_id: u64,
        /// The account.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Buy or sell.
        side: Side,
        /// What happened.
        exec_type: ExecType,
        /// The state after it.
        ord_status: OrdStatus,
        /// Why it closed.
        closure: Closure,
        /// Remarks.
        flags: ReportFlags,
        /// Of a quote the maker's number for it; zero for any other order.
        quote: u8,
    }
    /// A request was refused.
    [51] CommandReject, 63 {
        /// Number in the session's report flow; zero when the gateway refused, before the log.
        session_seq: u64,
        /// Log sequence of the command; zero when the gateway refused.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The label it named.
        label: u128,
        /// The thing that stands in its way, where one does; else zero.
        existing_id: u64,
        /// The account.
        account: u32,
        /// Why; the venue's list of reject codes.
        code: u16,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A mass cancel was done; each order has its own execution report too.
    [52] MassCancelReport, 41 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command; the id of this mass action.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// How many orders ended.
        cancelled: u32,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A reservation was settled.
    [54] SettleReport, 69 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens billed.
        billed: u64,
        /// Tokens delivered that no lot covered; nobody pays for them.
        unbilled: u64,
        /// What the billed tokens had cost, nano-dollars.
        cost: i64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A request without a report of its own kind was done.
    [55] CommandReport, 45 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The thing that it made, or acted on; zero for none.
        id: u64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A mass quote was done. What was refused of it has a report of its own each, before this one and with its log sequence.
    [56] MassQuoteReport, 41 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The account.
        account: u32,
        /// Sides that are now as was asked for; an entry has two.
        accepted: u16,
        /// Sides that were refused.
        refused: u16,
        /// Remarks.
        flags: ReportFlags,
    }
    /// One side of a mass quote was refused; nothing stands there any more.
    [57] QuoteRefused, 35 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command, as in the mass quote's own report.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The account.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Why; the venue's list of reject codes.
        code: u16,
        /// The maker's number for the quote.
        quote: u8,
        /// Bid (buy) or ask (sell).
        side: Side,
        /// Remarks.
        flags: ReportFlags,
    }
    /// Quote protection took the session's quotes out of the book; each one's execution report follows. Mass quotes are refused
    /// until protection is set again.
    [58] QuotesPulled, 33 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command whose fills were too many.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The account.
        account: u32,
        /// How many orders were taken out.
        count: u32,
        /// Remarks.
        flags: ReportFlags,
    }

    /// A trade, for everyone.
    [62] TradePrint, 52 {
        /// The instrument's channel: counts matching events.
        channel_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The trade.
        trade_id: u64,
        /// Ticks per Unit.
        price: u64,
        /// Units.
        qty: u64,
        /// The instrument.
        instrument: u16,
        /// The side that took liquidity.
        aggressor: Side,
        /// Remarks.
        flags: BookFlags,
    }
    /// A market data request was refused.
    [63] MarketDataReject, 11 {
        /// The request.
        request_id: u64,
        /// The instrument it named.
        instrument: u16,
        /// Why.
        code: MarketDataCode,
    }
    /// A subscription has ended on request.
    [64] MarketDataUnsubscribed, 10 {
        /// The request.
        request_id: u64,
        /// The instrument.
        instrument: u16,
    }
}
group {
    /// Says what many quotes are to be from now on; each side is done or refused for itself.
    [30] MassQuote, 26 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account; zero for the session's own, which it must be.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options; only postOnly.
        flags: OrderFlags,
    } quotes: QuoteEntry;
    /// Tokens are reserved.
    [53] ReserveReport, 69 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens reserved.
        tokens: u64,
        /// Units bought for it inside the command.
        bought_qty: u64,
        /// What they cost with fees, nano-dollars.
        spent: i64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    } issuers: Issuer;
    /// The book of one instrument, whole or in parts; replaces any earlier image.
    [60] BookSnapshot, 43 {
        /// The request that asked for it; zero where the venue conflated a slow reader.
        request_id: u64,
        /// The last matching event included.
        channel_seq: u64,
        /// Log sequence of that event's command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// Price of the last trade, ticks per Unit; zero if none.
        last_price: u64,
        /// The instrument.
        instrument: u16,
        /// Remarks.
        flags: BookFlags,
    } levels: Level;
    /// Changes of one matching event.
    [61] BookIncrement, 27 {
        /// The instrument's channel: counts matching events.
        channel_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The instrument.
        instrument: u16,
        /// Remarks.
        flags: BookFlags,
    } changes: Level;
}
data {
    /// The last message on a connection; answered in kind.
    [13] Terminate, 24 {
        /// Why.
        code: TerminateCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u32,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    } reason;
    /// A rare command of the venue's own tools and tiers, in the engine's log form.
    [29] DirectoryRequest, 20 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account acted on; zero for the session's own.
        account: u32,
    } payload;
}
entries {
    /// One quote, a bid and an ask: what stands of it is moved, changed or withdrawn. In ascending order of instrument and
    /// number, none twice.
    QuoteEntry, 35 {
        /// The bid's limit in ticks per Unit.
        bid_price: u64,
        /// Units to be open of the bid; zero for none.
        bid_qty: u64,
        /// The ask's limit in ticks per Unit.
        ask_price: u64,
        /// Units to be open of the ask; zero for none.
        ask_qty: u64,
        /// The instrument.
        instrument: u16,
        /// The maker's number for it, 1 to 63; its own in each session and instrument.
        quote: u8,
    }
    /// Whose tokens a reservation holds, in the order in which they will be drawn.
    Issuer, 4 {
        /// The supplier's account.
        supplier: u32,
    }
    /// One price level after a change.
    Level, 21 {
        /// Ticks per Unit.
        price: u64,
        /// Units now open at it; zero if the level is gone.
        qty: u64,
        /// Orders now open at it.
        orders: u32,
        /// Bid (buy) or ask (sell).
        side: Side,
    }
}
}

/// The most entries of a [`MassQuote`].
pub const MAX_QUOTE_ENTRIES: usize = 64;
/// The largest payload of a [`DirectoryRequest`], bytes.
pub const MAX_PAYLOAD_LEN: usize = 16 * 1024;
/// The most reports that one [`RetransmitRequest`] may ask for.
pub const MAX_RETRANSMIT: u32 = 2_500;

impl NewOrder {
    /// The same order with a text.
    pub fn tagged(self, tag: Tag) -> NewOrderTagged {
        let Self {
            client_seq,
            sending_time,
            label,
            price,
            qty,
            account,
            valid_for_us,
            instrument,
            max_slippage_bps,
            side,
            order_type,
            time_in_force,
            self_trade,
            flags,
        } = self;
        NewOrderTagged {
            client_seq,
            sending_time,
            label,
            price,
            qty,
            account,
            valid_for_us,
            instrument,
            max_slippage_bps,
            side,
            order_type,
            time_in_force,
            self_trade,
            flags,
            tag,
        }
    }
}

impl NewOrderTagged {
    /// The order without its text.
    pub fn order(&self) -> NewOrder {
        NewOrder {
            client_seq: self.client_seq,
            sending_time: self.sending_time,
            label: self.label,
            price: self.price,
            qty: self.qty,
            account: self.account,
            valid_for_us: self.valid_for_us,
            instrument: self.instrument,
            max_slippage_bps: self.max_slippage_bps,
            side: self.side,
            order_type: self.order_type,
            time_in_force: self.time_in_force,
            self_trade: self.self_trade,
            flags: self.flags,
        }
    }
}
