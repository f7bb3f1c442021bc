//! Plain data as it stands in the log, put down straight where it goes: no buffer in between, so nothing is allocated where the
//! one that it goes into has room.

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
}
