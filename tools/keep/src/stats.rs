//! `stats`: what a container's control groups count.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use container::{Condition, ContainerId, Directories};
use serde_json::{Value, json};

use crate::options::Stats;
use crate::{exit, list};

/// How often they are printed on a terminal.
const EACH: Duration = Duration::from_secs(1);

/// Prints the numbers of each container, and goes on with that on a terminal.
pub(crate) fn stats(options: &Stats) -> Result<ExitCode> {
    let directories = options.roots.directories();
    let is_live = !options.no_stream && !options.json && io::stdout().is_terminal();
    loop {
        let text = table(options, &directories)?;
        // Over what was printed before: to the left upper corner, and what is below goes.
        let clear = if is_live { "\x1b[H\x1b[J" } else { "" };
        write!(io::stdout().lock(), "{clear}{text}")?;
        if !is_live {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(EACH);
    }
}

fn table(options: &Stats, directories: &Directories) -> Result<String> {
    let rows = if options.ids.is_empty() {
        // One that has ended meanwhile uses nothing.
        let ids = list::ids(directories, Condition::is_up)?.into_iter();
        ids.filter_map(|id| numbers(directories, &id).ok()).collect()
    } else {
        options.ids.iter().map(|id| numbers(directories, id)).collect::<Result<Vec<_>>>()?
    };
    if options.json {
        return Ok(rows
            .iter()
            .fold(String::new(), |lines, (id, numbers)| lines + &numbers.json(id).to_string() + "\n"));
    }
    let head = format!("{:<14}  {:>12}  {:>12}  {:>12}  {:>5}\n", "ID", "CPU", "MEMORY", "LIMIT", "PIDS");
    Ok(rows.iter().fold(head, |table, (id, numbers)| table + &numbers.row(id) + "\n"))
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
