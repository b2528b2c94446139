//! `stats`: what a container's control groups count.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use container::{ContainerId, Directories};
use serde_json::{Value, json};

use crate::options::Containers;
use crate::{exit, list};

/// Prints the numbers of each container.
pub(crate) fn stats(as_json: bool, these: &Containers) -> Result<ExitCode> {
    let directories = these.roots.directories();
    let rows = these.ids.iter().map(|id| numbers(&directories, id)).collect::<Result<Vec<_>>>()?;
    let mut out = io::stdout().lock();
    if !as_json {
        writeln!(out, "{:<14}  {:>12}  {:>12}  {:>12}  {:>5}", "ID", "CPU", "MEMORY", "LIMIT", "PIDS")?;
    }
    for (id, numbers) in rows {
        if as_json {
            writeln!(out, "{}", numbers.json(&id))?;
        } else {
            writeln!(out, "{}", numbers.row(&id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts for a container that runs.
fn numbers(directories: &Directories, id: &ContainerId) -> Result<(ContainerId, Numbers)> {
    let (id, _) = list::named(directories, id)?;
    let Some(cgroups) = exit::cgroups(&directories.states(), &id) else { bail!("container {id} does not run") };
    Ok((id, Numbers::of(&cgroups.stats())))
}

/// What is counted; absent where no group counts it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Numbers {
    cpu_microseconds: Option<u64>,
    memory: Option<u64>,
    /// None for no limit.
    memory_limit: Option<u64>,
    pids: Option<u64>,
}

impl Numbers {
    /// Takes them from [`cgroup::Cgroups::stats`].
    fn of(stats: &Value) -> Self {
        let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64);
        Self {
            cpu_microseconds: number("/cpu/usage/total").map(|nanoseconds| nanoseconds / 1000),
            memory: number("/memory/usage/usage"),
            // v1 says "no limit" by the largest number of pages.
            memory_limit: number("/memory/usage/limit").filter(|limit| *limit < 1 << 62),
            pids: number("/pids/current"),
        }
    }

    fn json(&self, id: &str) -> Value {
        json!({"id": id, "cpuMicroseconds": self.cpu_microseconds, "memory": self.memory, "memoryLimit": self.memory_limit, "pids": self.pids})
    }

    fn row(&self, id: &str) -> String {
        let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), size);
        let cpu = self
            .cpu_microseconds
            .map_or("-".to_owned(), |time| format!("{}.{:03} s", time / 1_000_000, time / 1000 % 1000));
        let pids = self.pids.map_or("-".to_owned(), |count| count.to_string());
        format!("{id:<14}  {cpu:>12}  {:>12}  {:>12}  {pids:>5}", size(self.memory), size(self.memory_limit))
    }
}

fn size(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    format!("{}.{} {unit}", bytes >> shift, ((bytes * 10) >> shift) % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_units() {
        let numbers =
            Numbers { cpu_microseconds: Some(1_234_567), memory: Some(3 << 20), memory_limit: None, pids: Some(4) };
        let row = numbers.row("web");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["web", "1.234", "s", "3.0", "MiB", "-", "4"]);
        assert_eq!(size(1536), "1.5 KiB");
    }
}
