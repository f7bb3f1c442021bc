//! A small TCP proxy in front of each node's peer address: bytes of one node to another can be held back or delayed, each
//! direction by itself. What is held back is sent after the line is mended, as TCP would after a partition.
//!
//! Who dials is told by the process that owns the socket, since all nodes share one address.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What happens to bytes of one node on their way to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// They wait.
    Cut,
    /// They arrive this much later.
    Slow(Duration),
}

#[derive(Default)]
struct Lines {
    /// By (from, to); what is not there passes.
    rules: Mutex<BTreeMap<(u64, u64), Line>>,
    changed: Condvar,
    /// Process ids of the nodes.
    processes: Mutex<BTreeMap<u64, u32>>,
}

/// The proxies of one cluster. Their threads end with the test.
#[derive(Clone, Default)]
pub(crate) struct Proxies(Arc<Lines>);

impl Proxies {
    /// A proxy for the node that listens at `behind`; gives the address to dial instead.
    pub(crate) fn stand_before(&self, to: u64, behind: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let lines = Arc::clone(&lines);
                std::thread::spawn(move || carry(&lines, near, to, behind));
            }
        });
        address
    }

    /// A node is this process from now on.
    pub(crate) fn is_process(&self, node: u64, process: u32) {
        self.0.processes.lock().expect("no panic holds it").insert(node, process);
    }

    pub(crate) fn set(&self, from: u64, to: u64, line: Option<Line>) {
        let mut rules = self.0.rules.lock().expect("no panic holds it");
        match line {
            Some(line) => rules.insert((from, to), line),
            None => rules.remove(&(from, to)),
        };
        self.0.changed.notify_all();
    }

    pub(crate) fn mend(&self) {
        self.0.rules.lock().expect("no panic holds it").clear();
        self.0.changed.notify_all();
    }
}

impl Lines {
    /// Waits while the line is cut; says by how much it delays.
    fn passes(&self, way: (u64, u64)) -> Duration {
        let rules = self.rules.lock().expect("no panic holds it");
        let rules = self.changed.wait_while(rules, |rules| rules.get(&way) == Some(&Line::Cut));
        match rules.expect("no panic holds it").get(&way) {
            Some(Line::Slow(delay)) => *delay,
            _ => Duration::ZERO,
        }
    }

    /// The node whose process holds the other end of this connection. The operator's tools are nobody: 0.
    fn dialler(&self, near: &TcpStream) -> u64 {
        let Ok(SocketAddr::V4(address)) = near.peer_addr() else { return 0 };
        let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let inode = table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.nth(1)? == wanted).then_some(())?;
            words.nth(7).map(str::to_owned)
        });
        let Some(inode) = inode else { return 0 };
        let link = format!("socket:[{inode}]");
        let processes = self.processes.lock().expect("no panic holds it").clone();
        let owns = |process: u32| {
            let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            open.filter_map(|file| std::fs::read_link(file.path()).ok())
                .any(|to| to.as_os_str() == link.as_str())
        };
        processes.into_iter().find(|(_, process)| owns(*process)).map_or(0, |(node, _)| node)
    }
}

/// One connection, until either side ends it.
fn carry(lines: &Arc<Lines>, near: TcpStream, to: u64, behind: SocketAddr) {
    let from = lines.dialler(&near);
    let Ok(far) = TcpStream::connect(behind) else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    for (reads, writes, way) in [(&near, &far, (from, to)), (&far, &near, (to, from))] {
        let (Ok(reads), Ok(writes)) = (reads.try_clone(), writes.try_clone()) else { return };
        let (queue, waiting) = channel();
        std::thread::spawn(move || take(reads, &queue));
        let lines = Arc::clone(lines);
        std::thread::spawn(move || give(&lines, writes, way, &waiting));
    }
}

fn take(mut reads: TcpStream, queue: &Sender<(Instant, Vec<u8>)>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = reads.read(&mut bytes) {
        if count == 0 || queue.send((Instant::now(), bytes[..count].to_vec())).is_err() {
            break;
        }
    }
}

fn give(lines: &Lines, mut writes: TcpStream, way: (u64, u64), waiting: &Receiver<(Instant, Vec<u8>)>) {
    for (came, bytes) in waiting {
        let due = came + lines.passes(way);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if writes.write_all(&bytes).is_err() {
            break;
        }
    }
    // The end of a connection crosses a cut line no sooner than its bytes would.
    lines.passes(way);
    let _ = writes.shutdown(Shutdown::Both);
}
