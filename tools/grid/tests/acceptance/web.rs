//! HTTP as bytes on a socket, so that a test can send what no client library would; and signatures (contract §5.1).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing said.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The `data:` events of a stream, without `[DONE]`; and whether that came.
    pub(crate) fn events(&self) -> (Vec<Value>, bool) {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let (mut events, mut done) = (Vec::new(), false);
        for event in data {
            match event {
                "[DONE]" => done = true,
                event => events.push(serde_json::from_str(event).unwrap_or_else(|e| panic!("{e}: {event}"))),
            }
        }
        (events, done)
    }
}

/// Host and path of a URL.
pub(crate) fn split(url: &str) -> (SocketAddr, &str) {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let at = rest.find('/').unwrap_or(rest.len());
    (rest[..at].parse().expect("an address"), &rest[at..])
}

pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(120)))?;
    socket.set_write_timeout(Some(Duration::from_secs(120)))?;
    Ok(socket)
}

/// One request on a connection of its own.
pub(crate) fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut socket = connect(addr)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head += &format!("content-length: {}\r\ncontent-type: application/json\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    socket.write_all(head.as_bytes())?;
    // A server may refuse early and stop reading; its answer is still there to be read.
    let _ = socket.write_all(body);
    receive(&mut socket)
}

/// Reads an answer to the end of the connection.
pub(crate) fn receive(socket: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let ended = socket.read_to_end(&mut bytes);
    parse(&bytes).ok_or_else(|| {
        ended
            .err()
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes", bytes.len())))
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())))
        .collect();
    let rest = &bytes[end + 4..];
    let has = |name: &str, value: &str| {
        headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v.contains(value))
    };
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, v)| v.parse().ok());
    let (body, whole) = match length {
        _ if has("transfer-encoding", "chunked") => unchunk(rest),
        Some(length) => (rest[..rest.len().min(length)].to_vec(), rest.len() >= length),
        None => (rest.to_vec(), true),
    };
    Some(Answer { status, headers, body, whole })
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(at) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (body, false);
        };
        let size = std::str::from_utf8(&rest[..at])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(size) = size else { return (body, false) };
        rest = &rest[at + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// Signs requests for one account.
#[derive(Clone)]
pub(crate) struct Signer {
    addr: SocketAddr,
    base: String,
    key: SigningKey,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The fingerprint of a key, as clients send it.
pub(crate) fn fingerprint(key: &SigningKey) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(key.verifying_key().as_bytes()))
}

impl Signer {
    pub(crate) fn new(url: &str, seed: [u8; 32]) -> Self {
        let (addr, base) = split(url);
        Self { addr, base: base.into(), key: SigningKey::from_bytes(&seed) }
    }

    /// The three headers for this request.
    pub(crate) fn headers(&self, method: &str, path: &str, body: &[u8]) -> [(&'static str, String); 3] {
        let time = now().to_string();
        let path = path.split('?').next().unwrap_or_default();
        let message = [time.as_bytes(), method.as_bytes(), path.as_bytes(), body].concat();
        let signature = STANDARD.encode(self.key.sign(&message).to_bytes());
        [
            ("x-thegrid-timestamp", time),
            ("x-thegrid-fingerprint", fingerprint(&self.key)),
            ("x-thegrid-signature", signature),
        ]
    }

    /// A signed request to a path below `/v1`.
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let path = format!("{}{path}", self.base);
        let signed = self.headers(method, &path, body);
        let headers: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send(self.addr, method, &path, &headers, body)
    }

    /// `data` of a signed GET.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, b"").unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["data"].take()
    }

    /// A signed POST that must be done.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.send("POST", path, body.to_string().as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }
}

/// A chat completion with a bearer key.
pub(crate) fn chat(inference_url: &str, key: &str, body: &Value) -> io::Result<Answer> {
    let (addr, base) = split(inference_url);
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    send(addr, "POST", &format!("{base}/chat/completions"), &headers, body.to_string().as_bytes())
}
