//! What is wrong with a frame whose body is no message.

use crate::field::BadValue;

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
