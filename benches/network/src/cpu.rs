//! How long threads were on a core: on a machine that others use too, the one figure of a throughput that the others do
//! not change much. Read from the kernel, by thread name; nothing where there is no such file.

use std::collections::BTreeMap;
use std::fs;

/// Nanoseconds on a core, by the name that threads share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(BTreeMap<String, u64>);

impl Cpu {
    /// Of all threads of this process, up to now.
    pub(crate) fn now() -> Self {
        let mut times = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let nanoseconds = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok());
            *times.entry(read("comm").trim().to_owned()).or_default() += nanoseconds.unwrap_or(0);
        }
        Self(times)
    }

    /// What has been used since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let used = |(name, time): (&String, &u64)| {
            (name.clone(), time.saturating_sub(before.0.get(name).copied().unwrap_or(0)))
        };
        Self(self.0.iter().map(used).collect())
    }

    /// Nanoseconds of the threads whose names are picked.
    pub(crate) fn of(&self, pick: impl Fn(&str) -> bool) -> u64 {
        self.0.iter().filter(|(name, _)| pick(name)).map(|(_, time)| time).sum()
    }
}
