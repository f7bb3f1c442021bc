//! Frames: where one message ends and the next begins, on a stream that may hold anything.
//! A frame is u32 length (counting itself) + u16 0xEB50 + the four u16 of the SBE header + body,
//! all little-endian. Scanning never trusts the length before it is checked against a limit.

use crate::SCHEMA_ID;

/// The magic after the length.
pub const MAGIC: u16 = 0xEB50;
/// Length and magic.
pub const SOFH_LEN: usize = 6;
/// Length, magic and SBE header.
pub const HEADER_LEN: usize = 14;
/// The largest frame that the venue and its clients use unless configured otherwise, in bytes.
pub const MAX_FRAME_LEN: usize = 32 * 1024;

/// The bytes are not a frame; the stream cannot be followed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The magic is not there.
    #[error("frame magic is {found:#06x}, must be 0xeb50")]
    BadMagic {
        /// What stands in its place.
        found: u16,
    },
    /// Shorter than a header.
    #[error("frame length {length} is below the header's 14")]
    TooShort {
        /// The length given.
        length: usize,
    },
    /// Longer than the limit.
    #[error("frame length {length} is above the limit {max}")]
    TooLong {
        /// The length given.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// Not this schema.
    #[error("schema {found} is not schema {SCHEMA_ID}")]
    UnknownSchema {
        /// The schema id given.
        found: u16,
    },
}

/// One whole frame, header read, body not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Length of the body's fixed part as its sender knows it.
    pub block_length: u16,
    /// Which message.
    pub template: u16,
    /// The schema version of the sender.
    pub version: u16,
    /// Everything after the header.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// The client sequence number, where the template carries one: known even if the rest of the
    /// body is refused, so that the refusal can name it.
    pub fn client_seq(&self) -> Option<u64> {
        let bytes = self.body.first_chunk::<8>()?;
        crate::COMMAND_TEMPLATES.contains(&self.template).then_some(u64::from_le_bytes(*bytes))
    }
}

/// Looks for a frame at the start of `bytes`: the frame and its whole length, or nothing if more
/// bytes are needed.
#[inline]
pub fn scan(bytes: &[u8], max_len: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(length) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    // Judged as soon as they are there: a stranger is told on his sixth byte, not after his 32,000th.
    if let Some(&[a, b]) = bytes.get(4..6).and_then(<[u8]>::first_chunk::<2>) {
        let found = u16::from_le_bytes([a, b]);
        if found != MAGIC {
            return Err(FrameError::BadMagic { found });
        }
        if length < HEADER_LEN {
            return Err(FrameError::TooShort { length });
        }
        if length > max_len {
            return Err(FrameError::TooLong { length, max: max_len });
        }
    }
    let Some(header) = bytes.get(SOFH_LEN..HEADER_LEN) else {
        return Ok(None);
    };
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if word(4) != SCHEMA_ID {
        return Err(FrameError::UnknownSchema { found: word(4) });
    }
    let Some(body) = bytes.get(HEADER_LEN..length) else {
        return Ok(None);
    };
    let frame = Frame { block_length: word(0), template: word(2), version: word(6), body };
    Ok(Some((frame, length)))
}

/// Length, magic and SBE header of a frame, in one piece.
#[inline]
pub(crate) fn header(length: usize, template: u16, block_length: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(length as u32).to_le_bytes());
    let words = [MAGIC, block_length as u16, template, SCHEMA_ID, crate::SCHEMA_VERSION];
    for (at, word) in (4..).step_by(2).zip(words) {
        header[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// Starts a frame at the end of `out`; [`close`] completes it.
pub(crate) fn open(out: &mut Vec<u8>, template: u16, block_length: usize) -> usize {
    let start = out.len();
    out.extend_from_slice(&header(0, template, block_length));
    start
}

/// Writes the length of the frame that began at `start`.
pub(crate) fn close(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
