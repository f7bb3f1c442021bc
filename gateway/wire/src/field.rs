//! What may stand in a message: a small closed set of field kinds, each with one layout on the
//! wire, one Rust type and one name in the schema. Values are checked here, once, when bytes
//! become values; everything further in trusts the type.

use zerocopy::little_endian::{I64, U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A value on the wire that no version of the schema defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not a value of {kind}")]
pub struct BadValue {
    /// The type of the field, as the schema names it.
    pub kind: &'static str,
    /// The value found.
    pub value: u64,
}

/// How a field is laid out, and what the schema calls it.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One primitive of the schema's named type.
    Plain(&'static str),
    /// That many u64 in a row, named by a suffix each; ids, nonces, keys and signatures.
    Words(&'static [&'static str]),
    /// A closed enumeration in one byte.
    Enum(&'static [Choice], &'static str),
    /// Bits in one byte.
    Set(&'static [Choice], &'static str),
}

/// One value of an enumeration, or one bit of a set.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Name in the schema.
    pub name: &'static str,
    /// Value, or index of the bit.
    pub value: u8,
    /// What it means.
    pub doc: &'static str,
}

/// A decoded value, for golden files and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number; enumerations and sets are their byte.
    Number(i128),
    /// Text without its padding.
    Text(String),
    /// An optional number that is absent.
    Absent,
}

/// A type that can be a field of a message.
pub(crate) trait Wire: Sized {
    /// The bytes' shape.
    type Raw: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned;
    /// Name and layout in the schema.
    const KIND: Kind;
    /// Offsets from the start of the body are a multiple of this.
    const ALIGN: usize;
    /// The value's bytes.
    fn to_raw(&self) -> Self::Raw;
    /// The bytes' value.
    fn from_raw(raw: &Self::Raw) -> Result<Self, BadValue>;
    /// Appends the value under the names that the schema gives it.
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>);
    /// A value drawn from `state`, for tests.
    fn sample(state: &mut u64) -> Self;
}

/// The next number of a small generator (SplitMix64), for samples.
pub(crate) fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

macro_rules! number {
    ($type:ty, $raw:ty, $name:literal, $mask:expr) => {
        impl Wire for $type {
            type Raw = $raw;
            const KIND: Kind = Kind::Plain($name);
            const ALIGN: usize = size_of::<$raw>();
            #[inline]
            fn to_raw(&self) -> $raw {
                <$raw>::from(*self)
            }
            #[inline]
            fn from_raw(raw: &$raw) -> Result<Self, BadValue> {
                Ok((*raw).into())
            }
            fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
                out.push((name.to_owned(), Value::Number(i128::from(*self))));
            }
            fn sample(state: &mut u64) -> Self {
                (draw(state) & $mask) as $type
            }
        }
    };
}
// Top bits stay clear in samples: some decoders of other people read an all-ones as "absent".
number!(u8, u8, "u8t", 0x7F);
number!(u16, U16, "u16t", 0x7FFF);
number!(u32, U32, "u32t", 0x7FFF_FFFF);
number!(u64, U64, "u64t", 0x7FFF_FFFF_FFFF_FFFF);
number!(i64, I64, "i64t", u64::MAX);

impl Wire for Option<u16> {
    type Raw = U16;
    const KIND: Kind = Kind::Plain("u16opt");
    const ALIGN: usize = 2;
    #[inline]
    fn to_raw(&self) -> U16 {
        // 65535 is the schema's "absent"; a Some(65535) therefore cannot be said.
        self.unwrap_or(u16::MAX).into()
    }
    #[inline]
    fn from_raw(raw: &U16) -> Result<Self, BadValue> {
        Ok(Some(raw.get()).filter(|value| *value != u16::MAX))
    }
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
        out.push((name.to_owned(), self.map_or(Value::Absent, |value| Value::Number(value.into()))));
    }
    fn sample(state: &mut u64) -> Self {
        Some((draw(state) & 0x7FFF) as u16)
    }
}

fn words(bytes: &[u8], suffixes: &[&str], name: &str, out: &mut Vec<(String, Value)>) {
    for (suffix, word) in suffixes.iter().zip(bytes.chunks_exact(8)) {
        let number = word.iter().rev().fold(0_i128, |sum, byte| sum << 8 | i128::from(*byte));
        out.push((format!("{name}{suffix}"), Value::Number(number)));
    }
}

impl Wire for u128 {
    type Raw = U128;
    const KIND: Kind = Kind::Words(&["Lo", "Hi"]);
    const ALIGN: usize = 8;
    #[inline]
    fn to_raw(&self) -> U128 {
        U128::new(*self)
    }
    #[inline]
    fn from_raw(raw: &U128) -> Result<Self, BadValue> {
        Ok(raw.get())
    }
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
        words(&self.to_le_bytes(), &["Lo", "Hi"], name, out);
    }
    fn sample(state: &mut u64) -> Self {
        u128::from(draw(state) >> 1) | u128::from(draw(state) >> 1) << 64
    }
}

const FOUR: &[&str] = &["1", "2", "3", "4"];
const EIGHT: &[&str] = &["1", "2", "3", "4", "5", "6", "7", "8"];

impl Wire for [u8; 32] {
    type Raw = [u8; 32];
    const KIND: Kind = Kind::Words(FOUR);
    const ALIGN: usize = 8;
    #[inline]
    fn to_raw(&self) -> [u8; 32] {
        *self
    }
    #[inline]
    fn from_raw(raw: &[u8; 32]) -> Result<Self, BadValue> {
        Ok(*raw)
    }
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
        words(self, FOUR, name, out);
    }
    fn sample(state: &mut u64) -> Self {
        std::array::from_fn(|_| (draw(state) & 0x7F) as u8)
    }
}

/// An Ed25519 signature; eight u64 in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Default for Signature {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Wire for Signature {
    type Raw = [u8; 64];
    const KIND: Kind = Kind::Words(EIGHT);
    const ALIGN: usize = 8;
    #[inline]
    fn to_raw(&self) -> [u8; 64] {
        self.0
    }
    #[inline]
    fn from_raw(raw: &[u8; 64]) -> Result<Self, BadValue> {
        Ok(Self(*raw))
    }
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
        words(&self.0, EIGHT, name, out);
    }
    fn sample(state: &mut u64) -> Self {
        Self(std::array::from_fn(|_| (draw(state) & 0x7F) as u8))
    }
}

/// A client's own text for an order: up to 64 printable ASCII characters, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; 64]);

impl Tag {
    /// The tag for `text`, or nothing where it is too long or not printable ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        printable(text.as_bytes()).then_some(Self(bytes))
    }

    /// The text without its padding.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

fn printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (0x20..0x7F).contains(byte))
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Default for Tag {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Wire for Tag {
    type Raw = [u8; 64];
    const KIND: Kind = Kind::Plain("text64t");
    const ALIGN: usize = 1;
    #[inline]
    fn to_raw(&self) -> [u8; 64] {
        self.0
    }
    #[inline]
    fn from_raw(raw: &[u8; 64]) -> Result<Self, BadValue> {
        let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
        let (text, padding) = raw.split_at(end);
        let odd = text.iter().find(|byte| !printable(&[**byte])).or(padding.iter().find(|byte| **byte != 0));
        match odd {
            Some(byte) => Err(BadValue { kind: "text64t", value: u64::from(*byte) }),
            None => Ok(Self(*raw)),
        }
    }
    fn values(&self, name: &str, out: &mut Vec<(String, Value)>) {
        out.push((name.to_owned(), Value::Text(self.as_str().to_owned())));
    }
    fn sample(state: &mut u64) -> Self {
        Self::new(&format!("strategy-{:016x}", draw(state))).unwrap_or_default()
    }
}

/// Declares a closed enumeration of one byte; the first value is the default.
macro_rules! wire_enum {
    ($(#[doc = $doc:literal])* $name:ident as $schema:literal {
        $(#[doc = $first_doc:literal])* $first:ident = $first_value:literal,
        $($(#[doc = $choice_doc:literal])* $choice:ident = $value:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $first_doc])* #[default] $first = $first_value,
            $($(#[doc = $choice_doc])* $choice = $value,)*
        }

        impl $name {
            const CHOICES: &'static [$crate::field::Choice] = &[
                $crate::field::Choice {
                    name: stringify!($first), value: $first_value, doc: concat!($($first_doc),*),
                },
                $($crate::field::Choice {
                    name: stringify!($choice), value: $value, doc: concat!($($choice_doc),*),
                },)*
            ];
        }

        impl $crate::field::Wire for $name {
            type Raw = u8;
            const KIND: $crate::field::Kind = $crate::field::Kind::Enum(Self::CHOICES, $schema);
            const ALIGN: usize = 1;
            #[inline]
            fn to_raw(&self) -> u8 {
                *self as u8
            }
            #[inline]
            fn from_raw(raw: &u8) -> Result<Self, $crate::field::BadValue> {
                match *raw {
                    $first_value => Ok(Self::$first),
                    $($value => Ok(Self::$choice),)*
                    other => Err($crate::field::BadValue { kind: $schema, value: u64::from(other) }),
                }
            }
            fn values(&self, name: &str, out: &mut Vec<(String, $crate::field::Value)>) {
                out.push((name.to_owned(), $crate::field::Value::Number(i128::from(*self as u8))));
            }
            fn sample(state: &mut u64) -> Self {
                let choices = [Self::$first, $(Self::$choice),*];
                choices[$crate::field::draw(state) as usize % choices.len()]
            }
        }
    };
}
pub(crate) use wire_enum;

/// Declares a set of bits in one byte; undefined bits are refused when read.
macro_rules! wire_set {
    ($(#[doc = $doc:literal])* $name:ident as $schema:literal {
        $($(#[doc = $choice_doc:literal])* $choice:ident ($label:literal) = $bit:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(u8);

        impl $name {
            $($(#[doc = $choice_doc])* pub const $choice: Self = Self(1 << $bit);)*
            const ALL: u8 = 0 $(| 1 << $bit)*;
            const CHOICES: &'static [$crate::field::Choice] = &[
                $($crate::field::Choice { name: $label, value: $bit, doc: concat!($($choice_doc),*) },)*
            ];

            /// No bit set.
            pub const fn none() -> Self {
                Self(0)
            }

            /// Whether every bit of `other` is set.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// This set, and `other` where `condition` holds.
            pub const fn with(self, other: Self, condition: bool) -> Self {
                if condition { Self(self.0 | other.0) } else { self }
            }
        }

        impl $crate::field::Wire for $name {
            type Raw = u8;
            const KIND: $crate::field::Kind = $crate::field::Kind::Set(Self::CHOICES, $schema);
            const ALIGN: usize = 1;
            #[inline]
            fn to_raw(&self) -> u8 {
                self.0
            }
            #[inline]
            fn from_raw(raw: &u8) -> Result<Self, $crate::field::BadValue> {
                if *raw & !Self::ALL == 0 {
                    Ok(Self(*raw))
                } else {
                    Err($crate::field::BadValue { kind: $schema, value: u64::from(*raw) })
                }
            }
            fn values(&self, name: &str, out: &mut Vec<(String, $crate::field::Value)>) {
                out.push((name.to_owned(), $crate::field::Value::Number(i128::from(self.0))));
            }
            fn sample(state: &mut u64) -> Self {
                Self($crate::field::draw(state) as u8 & Self::ALL)
            }
        }
    };
}
pub(crate) use wire_set;
