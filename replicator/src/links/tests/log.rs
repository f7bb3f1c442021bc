//! What an operator reads when somebody is not let in: one line, with the address and a reason that says what to look at.

use std::sync::OnceLock;

use parking_lot::Condvar;

use super::*;

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    written: Condvar,
}

impl io::Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().push_str(&String::from_utf8_lossy(bytes));
        self.written.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of all tests of this process, for its threads are many and there is one subscriber.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let mut first = false;
    let log = LOG.get_or_init(|| {
        first = true;
        Log::default()
    });
    if first {
        let writer = || LOG.get().expect("it was made a line above");
        tracing_subscriber::fmt().with_writer(writer).with_ansi(false).init();
    }
    log
}

impl Log {
    /// How much was logged, in bytes.
    fn length(&self) -> usize {
        self.text.lock().len()
    }

    /// Waits for the line about an address behind `from`: ports come again, even within one test.
    fn line_about(&self, address: SocketAddr, from: usize) -> String {
        let deadline = Instant::now() + GUARD;
        let mark = format!("address={address}");
        let mut text = self.text.lock();
        loop {
            if let Some(line) = text[from..].lines().find(|line| line.contains(&mark)) {
                return line.to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line about {address}:\n{text}");
            self.written.wait_for(&mut text, left);
        }
    }
}

#[test]
fn whoever_is_not_let_in_leaves_a_line_that_says_why() {
    let log = log();
    let (authority, tls) = cluster();
    let patient = |tls: &Tls| {
        let mut config = config(1, tls);
        config.limits.login_timeout = Duration::from_millis(300);
        Node::start_with(config, Behaviour::default())
    };
    let (sealed, plain) = (tls(1), Tls::Plain);
    let frame = |kind, body: &[u8]| {
        let mut bytes = Vec::new();
        frame::put(kind, &[body], &mut bytes);
        bytes
    };
    let hello = frame(Kind::Hello, b"GRIDLINK\x02\x00...");
    let client = session::Security::new(&Tls::Mutual(authority.issue_node(2).unwrap())).unwrap();
    let mut client_hello = Vec::new();
    client.dial("node-1.grid").unwrap().open(&[], &mut Vec::new(), &mut client_hello).unwrap();
    let mut garbled = frame(Kind::Hello, b"GRIDLINK");
    garbled[13] ^= 1;
    let table: [(&str, &Tls, &[u8], &str); 9] = [
        ("a browser at a TLS door", &sealed, b"GET / HTTP/1.1\r\n\r\n", "what came is not TLS"),
        ("a plain link at a TLS door", &sealed, &hello, "what came is not TLS"),
        ("TLS at a plain door", &plain, &client_hello, "this side was told to speak plainly"),
        (
            "a browser at a plain door",
            &plain,
            b"GET / HTTP/1.1\r\n\r\n",
            "no link's Hello: a frame of 542393671 bytes",
        ),
        ("another protocol", &plain, &hello, "speak protocol 1, the Hello says 2"),
        ("something before Hello", &plain, &frame(Kind::Raft, b"x"), "Raft before a Hello"),
        ("a garbled Hello", &plain, &garbled, "checksum is wrong"),
        ("a part of a Hello", &plain, &hello[..9], "no login within 300ms"),
        ("nothing at all", &sealed, b"", "no login within 300ms"),
    ];
    for (name, door, bytes, words) in table {
        // A node each: the same words about the same host are said once.
        let node = patient(door);
        let from = log.length();
        let mut raw = Raw::connect(node.links.address());
        let address = raw.stream.local_addr().unwrap();
        raw.write(bytes);
        let line = log.line_about(address, from);
        assert!(line.contains("WARN") && line.contains("a connection was refused"), "{name}: {line}");
        assert!(line.contains(words), "{name}: {line}");
    }
}
