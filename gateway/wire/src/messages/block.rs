//! A fixed run of fields, a message's block or a group's entry: one declaration is the struct that programs use and the
//! layout on the wire. Fields stand widest first, so nothing needs padding; new fields go to the end of a block and
//! nowhere else.

use crate::field::{BadValue, Kind, Value};

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

/// The schema's view of a block.
pub(super) const fn spec<B: Block>() -> BlockSpec {
    BlockSpec { name: B::NAME, doc: B::DOC, size: B::SIZE, fields: B::FIELDS }
}

/// A block of an older sender, with zeros for what it does not have. Rare: nodes of two versions serve only while they are
/// upgraded.
#[cold]
#[inline(never)]
pub(super) fn lengthened<R: zerocopy::FromBytes + zerocopy::IntoBytes>(bytes: &[u8]) -> R {
    let mut whole = R::new_zeroed();
    whole.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    whole
}

/// Declares a block of a name and a size in bytes.
macro_rules! block {
    ($(#[doc = $doc:literal])* $name:ident, $size:literal {
        $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        const _: () = {
            use $crate::field::Wire;
            use $crate::messages::{block, grown};

            /// The bytes' shape.
            #[derive(
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
                zerocopy::KnownLayout, zerocopy::Unaligned,
            )]
            #[repr(C)]
            struct Raw {
                $($field: <$type as Wire>::Raw,)*
            }

            // The layout is the contract: sizes and alignment hold or nothing compiles.
            assert!(size_of::<Raw>() == $size);
            $(assert!(std::mem::offset_of!(Raw, $field).is_multiple_of(<$type as Wire>::ALIGN));)*

            impl block::Block for $name {
                const NAME: &'static str = stringify!($name);
                const DOC: &'static str = concat!($($doc),*);
                const SIZE: usize = $size;
                const FIRST_SIZE: usize = grown::first_size(stringify!($name), $size);
                const FIELDS: &'static [block::FieldSpec] = &[$(block::FieldSpec {
                    name: stringify!($field),
                    doc: concat!($($field_doc),*),
                    offset: std::mem::offset_of!(Raw, $field),
                    kind: <$type as Wire>::KIND,
                    since: grown::since(stringify!($name), std::mem::offset_of!(Raw, $field)),
                },)*];

                #[inline]
                fn write(&self, out: &mut Vec<u8>) {
                    let raw = Raw { $($field: self.$field.to_raw(),)* };
                    out.extend_from_slice(zerocopy::IntoBytes::as_bytes(&raw));
                }

                #[inline]
                fn read(bytes: &[u8]) -> Result<Self, $crate::field::BadValue> {
                    let longer;
                    let raw = match <Raw as zerocopy::FromBytes>::ref_from_prefix(bytes) {
                        Ok((raw, _)) => raw,
                        Err(_) => {
                            longer = block::lengthened::<Raw>(bytes);
                            &longer
                        }
                    };
                    Ok(Self { $($field: <$type as Wire>::from_raw(&raw.$field)?,)* })
                }

                fn values(&self) -> Vec<(String, $crate::field::Value)> {
                    let mut out = Vec::new();
                    $(self.$field.values(&$crate::schema::camel(stringify!($field)), &mut out);)*
                    out
                }

                fn sample(state: &mut u64) -> Self {
                    Self { $($field: <$type as Wire>::sample(state),)* }
                }
            }
        };
    };
}
