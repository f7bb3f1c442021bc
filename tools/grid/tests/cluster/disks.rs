//! Disks that fail their node: full, older than they were, damaged.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::checker::judge;
use crate::harness::{COMMON, Cluster, until};
use crate::kills::in_reach;
use crate::load::Load;
use crate::members::add_voter;
use crate::net::Net;

/// A file system of a few megabytes, unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// On this directory; says why not where that can't be.
    fn mount(at: &Path, megabytes: u32) -> Result<Self, String> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_leader_whose_disk_is_full_stops_and_the_others_go_on() {
    // Small segments, so that the next one is soon wanted.
    let mut cluster = Cluster::make(Net::Loopback, 3, &COMMON.replace("1048576", "131072"));
    let disks: Vec<_> = (1..=3)
        .map(|node| {
            let data = cluster.data(node);
            let keys = std::fs::read(data.join("keys.json")).expect("init wrote it");
            let disk = SmallDisk::mount(&data, 64);
            let written = std::fs::write(data.join("keys.json"), keys);
            written.expect("a small file");
            let chmod = Command::new("chmod").arg("600").arg(data.join("keys.json")).status();
            assert!(chmod.expect("chmod starts").success());
            disk
        })
        .collect();
    for node in 1..=3 {
        cluster.spawn(node);
    }
    for node in 1..=3 {
        cluster.wait_ready(node);
    }
    let load = Load::start(&cluster, 4);
    load.go_on(100, &cluster);
    let leader = cluster.leader();
    let filler = cluster.data(leader).join("filler");
    match &disks[leader as usize - 1] {
        Ok(_) => {
            println!("full disk: a tmpfs filled to the last byte");
            let _ = Command::new("dd")
                .args(["if=/dev/zero", "bs=64k"])
                .arg(format!("of={}", filler.display()))
                .output();
        }
        Err(why) => {
            println!("full disk: a limit on the size of files (RLIMIT_FSIZE), because {why}");
            let process = Pid::from_raw(cluster.process_id(leader) as i32);
            let none = Rlimit { current: Some(4096), maximum: Some(4096) };
            prlimit(process, Resource::Fsize, none).expect("a limit for our own child");
        }
    }
    let at = std::time::Instant::now();
    let status = cluster.wait_end(leader);
    assert!(!status.success(), "a node that can't write must not end as if all were well");
    let printed = cluster.printed(leader);
    let said = printed.lines().find(|line| line.contains("cannot"));
    println!(
        "node {leader} ended with {status}: {}",
        said.unwrap_or_else(|| panic!("it says what it could not do:\n{printed}"))
    );
    load.first_answer(at, cluster.binary_addr(leader), &cluster);
    load.go_on(100, &cluster);
    // Somebody made room.
    let _ = std::fs::remove_file(&filler);
    cluster.restart(leader);
    until("three nodes that hold the log", || in_reach(&cluster));
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

/// What is promised: raft counts on disks that remember. One that went back in time has forgotten what its node acknowledged,
/// entries and votes. A leader that had its word notices, and the node stops and says what to do. While the others
/// hold a majority without it, nothing acknowledged is lost. If the leader has changed meanwhile, nobody can notice: the
/// node catches up like one that was away, and only if another node failed before it had, could something be lost.
#[test]
fn a_node_on_an_older_copy_of_its_disk_is_not_believed_and_is_replaced() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    load.go_on(100, &cluster);
    let node = cluster.follower();
    assert!(cluster.terminate(node).success());
    let (data, copy) = (cluster.data(node), cluster.scratch().join("older"));
    copy_all(&data, &copy);
    cluster.restart(node);
    until("three nodes that hold the log", || in_reach(&cluster));
    load.go_on(300, &cluster);
    cluster.kill(node);
    load.go_on(50, &cluster);
    std::fs::remove_dir_all(&data).expect("the disk is taken out");
    copy_all(&copy, &data);
    cluster.spawn(node);
    let status = cluster.wait_end(node);
    let printed = cluster.printed(node);
    assert!(!status.success(), "it must not go on as if it remembered:\n{printed}");
    assert!(
        printed.contains("older than what the node has acknowledged"),
        "it says what is wrong:\n{printed}"
    );
    load.go_on(50, &cluster);

    // What it says to do.
    println!("{}", cluster.operator(&["remove", "--node", &node.to_string()]).expect("it is removed"));
    cluster.leave_out(node);
    add_voter(&mut cluster, 4);
    load.go_on(50, &cluster);
    // The new node counts like any other: the leader may die.
    let leader = cluster.leader();
    cluster.kill(leader);
    load.go_on(50, &cluster);
    cluster.restart(leader);
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

#[test]
fn a_damaged_middle_of_a_journal_is_repaired_from_the_others() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    // Past a snapshot, so that what is damaged would otherwise be replayed.
    load.go_on(400, &cluster);
    let node = cluster.follower();
    cluster.kill(node);
    let damaged = damage(&cluster.data(node));
    load.go_on(100, &cluster);
    cluster.restart(node);
    until("three nodes that hold the log", || in_reach(&cluster));
    let printed = cluster.printed(node);
    assert!(
        printed.contains(damaged.file_name().and_then(|name| name.to_str()).expect("a name")),
        "it names the file:\n{printed}"
    );
    load.go_on(50, &cluster);
    let clients = load.stop();
    judge(&mut cluster, &clients);
}

/// Flips a byte in the middle of what a journal's last segment holds.
fn damage(data: &Path) -> PathBuf {
    let mut segments: Vec<_> = std::fs::read_dir(data.join("journal"))
        .expect("a journal")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "seg"))
        .collect();
    segments.sort();
    let path = segments.pop().expect("at least one segment");
    let bytes = std::fs::read(&path).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("blocks");
    let middle = (4096 + (end - 4096) / 2) as u64;
    let file = std::fs::File::options().write(true).open(&path).expect("a segment");
    file.write_all_at(&[bytes[middle as usize] ^ 0x40; 64], middle).expect("a byte");
    println!("damaged {} at byte {middle} of {end}", path.display());
    path
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp starts");
    assert!(copied.success(), "a copy of a directory");
}
