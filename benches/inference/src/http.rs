//! One connection of the load generator: HTTP/1.1 over a blocking socket, as lean as an answer can be read that is checked
//! to its last byte, so that little of what is measured is the generator's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Failure;

/// Longer than any answer takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold something.
    filled: usize,
    body: Vec<u8>,
}

/// When the answer came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first byte of its body.
    pub(crate) first: Instant,
    /// The last.
    pub(crate) last: Instant,
}

/// How a body ends.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, buffer: Vec::new(), filled: 0, body: Vec::new() })
    }

    /// The bytes of a request: `GET` without a body, else `POST`.
    pub(crate) fn request(path: &str, key: &str, body: &str) -> Vec<u8> {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\naccept: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Sends a request and reads the answer, which must be a 200; its body is there until the next one.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Times, Failure> {
        self.begin(request)?;
        self.finish()
    }

    /// Sends a request.
    pub(crate) fn begin(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.filled = 0;
        self.body.clear();
        Ok(self.socket.write_all(request)?)
    }

    /// Reads until something of the body is there, and forgets the room for more: so that many may wait like this.
    pub(crate) fn first_byte(&mut self) -> Result<(), Failure> {
        while self.head()?.is_none_or(|(at, _)| at >= self.filled) {
            self.read()?;
        }
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to_fit();
        Ok(())
    }

    /// Reads the answer to its end.
    pub(crate) fn finish(&mut self) -> Result<Times, Failure> {
        let (at, framing) = loop {
            if let Some(head) = self.head()? {
                break head;
            }
            self.read()?;
        };
        let mut first = (at < self.filled).then(Instant::now);
        loop {
            let ended = match framing {
                Framing::Length(length) => self.filled >= at + length,
                // The known answers have no such line in them, so it is the last chunk.
                Framing::Chunked => {
                    let bytes = &self.buffer[at..self.filled];
                    bytes == b"0\r\n\r\n" || bytes.ends_with(b"\r\n0\r\n\r\n")
                }
            };
            if ended {
                break;
            }
            self.read()?;
            first = first.or_else(|| Some(Instant::now()));
        }
        let last = Instant::now();
        let bytes = &self.buffer[at..self.filled];
        match framing {
            Framing::Length(_) => self.body.extend_from_slice(bytes),
            Framing::Chunked => unchunk(bytes, &mut self.body)?,
        }
        Ok(Times { first: first.unwrap_or(last), last })
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    fn read(&mut self) -> Result<(), Failure> {
        if self.filled == self.buffer.len() {
            self.buffer.resize((2 * self.filled).max(16 << 10), 0);
        }
        match self.socket.read(&mut self.buffer[self.filled..])? {
            0 => Err("the connection was closed in the middle of an answer".into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }

    /// Where the body begins and how it ends; `None` while the head is not whole.
    fn head(&self) -> Result<Option<(usize, Framing)>, Failure> {
        let bytes = &self.buffer[..self.filled];
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end])?;
        let told = || format!("not a 200: {}", String::from_utf8_lossy(bytes));
        if head.split(' ').nth(1) != Some("200") {
            return Err(told().into());
        }
        for line in head.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                return Ok(Some((end + 4, Framing::Length(value.trim().parse()?))));
            }
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(Some((end + 4, Framing::Chunked)));
            }
        }
        Err(told().into())
    }
}

fn unchunk(mut bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        let line = memchr::memmem::find(bytes, b"\r\n").ok_or("a chunk without a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line])?.trim(), 16)?;
        if size == 0 {
            return Ok(());
        }
        let data = bytes.get(line + 2..line + 2 + size).ok_or("a chunk that ends early")?;
        into.extend_from_slice(data);
        bytes = bytes.get(line + 4 + size..).ok_or("a chunk without an end")?;
    }
}
