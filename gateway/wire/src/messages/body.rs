//! A whole message: a block under a template id, and what may follow it, which is nothing, one group of entries, or one run
//! of variable data.

use super::block::{self, Block, BlockSpec};
use super::error::DecodeError;
use crate::frame::Frame;

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

/// The schema's view of a message.
pub(super) const fn spec<B: Block>(template: u16, tail: Tail) -> MessageSpec {
    MessageSpec { template, block: block::spec::<B>(), tail }
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

    pub(super) fn take(message: &'static str, bytes: &mut &'a [u8]) -> Result<Self, DecodeError> {
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

pub(super) fn put_group<T: Block>(out: &mut Vec<u8>, entries: &[T]) {
    // A count that does not fit is a caller's fault; writers part their groups long before.
    assert!(entries.len() <= usize::from(u16::MAX), "a group holds at most 65535 entries");
    out.extend_from_slice(&(T::SIZE as u16).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    for entry in entries {
        entry.write(out);
    }
}

pub(super) fn take_data<'a>(message: &'static str, bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let truncated = DecodeError::Truncated { message };
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(truncated)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (data, rest) = rest.split_at_checked(length).ok_or(truncated)?;
    *bytes = rest;
    Ok(data)
}

pub(super) fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    assert!(data.len() <= usize::from(u16::MAX), "variable data holds at most 65535 bytes");
    out.extend_from_slice(&(data.len() as u16).to_le_bytes());
    out.extend_from_slice(data);
}

#[inline]
pub(super) fn take_block<'a, B: Block>(frame: &Frame<'a>) -> Result<(B, &'a [u8]), DecodeError> {
    let found = usize::from(frame.block_length);
    if found < B::FIRST_SIZE {
        return Err(DecodeError::BlockTooShort { message: B::NAME, expected: B::FIRST_SIZE, found });
    }
    let (block, rest) =
        frame.body.split_at_checked(found).ok_or(DecodeError::Truncated { message: B::NAME })?;
    let block = B::read(block).map_err(|bad| DecodeError::BadValue { message: B::NAME, bad })?;
    Ok((block, rest))
}

#[inline]
pub(super) fn finish(message: &'static str, rest: &[u8]) -> Result<(), DecodeError> {
    match rest.len() {
        0 => Ok(()),
        count => Err(DecodeError::LeftOver { message, count }),
    }
}

/// Declares messages by their template ids: a block each, then the name of the variable data that follows it, or the name
/// of the group and its entries, or nothing.
macro_rules! messages {
    ($(
        $(#[doc = $doc:literal])* [$id:literal] $name:ident, $size:literal {
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)*
        } $($tail:ident $(: $entry:ident)?;)?
    )*) => {$(
        block! { $(#[doc = $doc])* $name, $size { $($(#[doc = $field_doc])* $field: $type,)* } }

        impl $name {
            /// The template id.
            pub const TEMPLATE: u16 = $id;
        }

        message! { $name, $size $(, $tail $(: $entry)?)? }
    )*};
}

/// How one message is read and written, by what follows its block.
macro_rules! message {
    ($name:ident, $size:literal) => {
        impl $name {
            /// Reads this message of a frame of its template, which the caller has looked at: for whoever takes some
            /// messages far more often than others.
            #[inline]
            pub fn decode(frame: &$crate::frame::Frame<'_>) -> Result<Self, $crate::messages::DecodeError> {
                use $crate::messages::{block::Block, body};
                let (block, rest) = body::take_block::<Self>(frame)?;
                body::finish(Self::NAME, rest)?;
                Ok(block)
            }

            /// Appends the message as one frame.
            #[inline]
            pub fn encode(&self, out: &mut Vec<u8>) {
                use $crate::frame::{HEADER_LEN, header};
                out.reserve(HEADER_LEN + $size);
                out.extend_from_slice(&header(HEADER_LEN + $size, Self::TEMPLATE, $size));
                $crate::messages::block::Block::write(self, out);
            }

            pub(super) const SPEC: $crate::messages::MessageSpec =
                $crate::messages::body::spec::<Self>(Self::TEMPLATE, $crate::messages::body::Tail::None);

            pub(super) fn sampled(state: &mut u64) -> Vec<u8> {
                let mut out = Vec::new();
                <Self as $crate::messages::block::Block>::sample(state).encode(&mut out);
                out
            }
        }
    };
    ($name:ident, $size:literal, $entries:ident: $entry:ident) => {
        impl $name {
            /// Reads this message and its entries of a frame of its template, which the caller has looked at.
            pub fn decode<'a>(
                frame: &$crate::frame::Frame<'a>,
            ) -> Result<(Self, $crate::messages::Group<'a, $entry>), $crate::messages::DecodeError> {
                use $crate::messages::{block::Block, body};
                let (block, mut rest) = body::take_block::<Self>(frame)?;
                let entries = body::Group::take(Self::NAME, &mut rest)?;
                body::finish(Self::NAME, rest)?;
                Ok((block, entries))
            }

            /// Appends the message and its entries as one frame.
            pub fn encode(&self, $entries: &[$entry], out: &mut Vec<u8>) {
                use $crate::{
                    frame,
                    messages::{block::Block, body},
                };
                let start = frame::open(out, Self::TEMPLATE, $size);
                self.write(out);
                body::put_group(out, $entries);
                frame::close(out, start);
            }

            pub(super) const SPEC: $crate::messages::MessageSpec = $crate::messages::body::spec::<Self>(
                Self::TEMPLATE,
                $crate::messages::body::Tail::Group(
                    stringify!($entries),
                    $crate::messages::block::spec::<$entry>(),
                ),
            );

            pub(super) fn sampled(state: &mut u64) -> Vec<u8> {
                use $crate::messages::block::Block;
                let mut out = Vec::new();
                let entries: Vec<$entry> = (0..3).map(|_| $entry::sample(state)).collect();
                Self::sample(state).encode(&entries, &mut out);
                out
            }
        }
    };
    ($name:ident, $size:literal, $data:ident) => {
        impl $name {
            /// Reads this message and its variable data of a frame of its template, which the caller has looked at.
            pub fn decode<'a>(
                frame: &$crate::frame::Frame<'a>,
            ) -> Result<(Self, &'a [u8]), $crate::messages::DecodeError> {
                use $crate::messages::{block::Block, body};
                let (block, mut rest) = body::take_block::<Self>(frame)?;
                let data = body::take_data(Self::NAME, &mut rest)?;
                body::finish(Self::NAME, rest)?;
                Ok((block, data))
            }

            /// Appends the message and its variable data as one frame.
            pub fn encode(&self, $data: &[u8], out: &mut Vec<u8>) {
                use $crate::{
                    frame,
                    messages::{block::Block, body},
                };
                let start = frame::open(out, Self::TEMPLATE, $size);
                self.write(out);
                body::put_data(out, $data);
                frame::close(out, start);
            }

            pub(super) const SPEC: $crate::messages::MessageSpec = $crate::messages::body::spec::<Self>(
                Self::TEMPLATE,
                $crate::messages::body::Tail::Data(stringify!($data)),
            );

            pub(super) fn sampled(state: &mut u64) -> Vec<u8> {
                let mut out = Vec::new();
                <Self as $crate::messages::block::Block>::sample(state).encode(b"some bytes", &mut out);
                out
            }
        }
    };
}
