//! On what a run was made. Two figures can be compared only if this is the same, and of a figure without it nobody can say what it means.
//!
//! Nothing here fails: what the system does not tell is left out of the report.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine, the system on it, and how the binary was built.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: Option<String>,
    /// Cores that this process may use, each thread of a core counted.
    pub cores: usize,
    /// True on a virtual machine, whose cores another may have when ours wants them.
    pub virtual_machine: bool,
    /// How the processor chooses its clock, e.g. `performance`.
    pub governor: Option<String>,
    /// Main memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// File system under the directory of the run, e.g. `ext4` or `tmpfs`.
    pub file_system: Option<String>,
    /// `tmpfs` or `real disk`: figures of one say nothing about the other.
    pub ground: String,
    /// Commit of the source, with `-dirty` if it was changed; unknown outside of its repository.
    pub git_commit: Option<String>,
    /// Version of the compiler.
    pub rustc: &'static str,
    /// Target, profile and optimisation, and flags beyond them.
    pub build: String,
}

impl Machine {
    /// This one, for a run whose files lie in `dir`.
    #[must_use]
    pub fn here(dir: &Path) -> Self {
        let cpu_info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let ground = crate::Ground::under(dir).map_or("unknown", |ground| ground.kind());
        Self {
            cpu: value_of(&cpu_info, "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            virtual_machine: value_of(&cpu_info, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            governor: line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: memory_bytes(),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            file_system: file_system(dir),
            ground: ground.to_owned(),
            git_commit: git_commit(),
            rustc: env!("GRID_RUSTC"),
            build: [
                env!("GRID_TARGET"),
                env!("GRID_PROFILE"),
                concat!("opt-level=", env!("GRID_OPT_LEVEL")),
                env!("GRID_RUSTFLAGS"),
            ]
            .join(" ")
            .trim()
            .to_owned(),
        }
    }

    /// What is known of it, in words, for people.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let unknown = || "not told by the system".to_owned();
        let told = |fact: &Option<String>| fact.clone().unwrap_or_else(unknown);
        let virtual_machine = if self.virtual_machine { ", on a virtual machine" } else { "" };
        let memory = self
            .memory_bytes
            .map_or_else(unknown, |bytes| format!("{:.1} GiB", bytes as f64 / (1 << 30) as f64));
        vec![
            ("processor", told(&self.cpu)),
            ("cores", format!("{}{virtual_machine}", self.cores)),
            ("governor", told(&self.governor)),
            ("memory", memory),
            ("kernel", told(&self.kernel)),
            ("files on", format!("{} ({})", self.ground, told(&self.file_system))),
            ("commit", told(&self.git_commit)),
            ("compiler", self.rustc.to_owned()),
            ("build", self.build.clone()),
        ]
    }
}

/// The first line of a file, if there is one that says something.
fn line_of(path: &str) -> Option<String> {
    let line = read_to_string(path).ok()?.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

/// What stands behind `name :` in a file of the kernel's.
fn value_of(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

fn memory_bytes() -> Option<u64> {
    let total = value_of(&read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    let kib: u64 = total.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The type of the mount that a directory lies in: the longest one that it begins with.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = read_to_string("/proc/self/mountinfo").ok()?;
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mount = before.split(' ').nth(4)?.to_owned();
        Some((mount, after.split(' ').next()?.to_owned()))
    };
    mounts
        .lines()
        .filter_map(of_line)
        .filter(|(mount, _)| dir.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map(|(_, kind)| kind)
}

fn git_commit() -> Option<String> {
    let source = env!("CARGO_MANIFEST_DIR");
    let describe = ["-C", source, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"];
    let output = Command::new("git").args(describe).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_name_and_words() {
        let machine = Machine::here(&std::env::temp_dir());
        assert!(machine.cores > 0);
        assert!(
            machine.facts().iter().all(|(name, fact)| !name.is_empty() && !fact.is_empty()),
            "{machine:?}"
        );
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "model\t\t: 106\nmodel name\t: A Processor\n";
        assert_eq!(value_of(text, "model name").as_deref(), Some("A Processor"));
        assert_eq!(value_of(text, "mode"), None);
    }
}
