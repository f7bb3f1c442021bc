//! Plain data as it stands in the log, put down straight where it goes: no buffer in between, so nothing is allocated where the
//! one that it goes into has room.

pub(crate) mod hot;
pub(crate) mod told;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Puts bytes down behind those that are there.
struct Behind<'a>(&'a mut Vec<u8>);

impl Flavor for Behind<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the log form of a value.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    postcard::serialize_with_flavor(value, Behind(out)).expect("plain data always has a log form");
}

/// A number of sixteen bytes that is as likely as any other, or 0: as bytes, and none of them for 0. As a varint it would take three
/// more, and seven bits at a time.
pub(crate) mod wide {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Puts it down.
    pub(crate) fn serialize<S: Serializer>(number: &u128, to: S) -> Result<S::Ok, S::Error> {
        match number {
            0 => to.serialize_bytes(&[]),
            _ => to.serialize_bytes(&number.to_le_bytes()),
        }
    }

    /// Reads it.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        from.deserialize_bytes(Wide)
    }

    struct Wide;

    impl Visitor<'_> for Wide {
        type Value = u128;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("sixteen bytes that are not all zero, or none")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<u128, E> {
            match bytes.try_into().map(u128::from_le_bytes) {
                Ok(number) if number != 0 => Ok(number),
                _ if bytes.is_empty() => Ok(0),
                _ => Err(E::invalid_length(bytes.len(), &self)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Entry};

    #[test]
    fn what_is_appended_is_what_a_buffer_of_its_own_would_hold() {
        let entry = Entry::venue(Command::Genesis { operator_key: [7; 32] });
        let mut out = b"before".to_vec();
        append(&entry, &mut out);
        assert_eq!(out[6..], postcard::to_allocvec(&entry).expect("it has a log form"));
        assert_eq!(&out[..6], b"before");
    }

    #[test]
    fn a_wide_number_has_one_form_alone() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Number(#[serde(with = "wide")] u128);

        let read = |bytes: &[u8]| postcard::from_bytes::<Number>(bytes).ok();
        for number in [0, 1, 1 << 64, u128::MAX] {
            let mut out = Vec::new();
            append(&Number(number), &mut out);
            assert_eq!(out.len(), if number == 0 { 1 } else { 17 });
            assert_eq!(read(&out), Some(Number(number)));
        }
        assert_eq!(read(&[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(read(&[15, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
