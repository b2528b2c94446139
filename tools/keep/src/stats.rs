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
pub(crate) fn stats(options: &Stats, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let is_live = !options.no_stream && options.form.is_table() && io::stdout().is_terminal();
    loop {
        let (rows, table) = counted(options, &directories)?;
        if is_live {
            // Over what was printed before: to the left upper corner, and what is below goes.
            write!(io::stdout().lock(), "\x1b[H\x1b[J")?;
        }
        options.form.print(&rows, "id", || cli::table(&table))?;
        if !is_live {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(EACH);
    }
}

/// Returns the rows for programs and for people.
fn counted(options: &Stats, directories: &Directories) -> Result<(Vec<Value>, Vec<[String; 5]>)> {
    let counted = if options.ids.is_empty() {
        // One that has ended meanwhile uses nothing.
        let ids = list::ids(directories, Condition::is_up)?.into_iter();
        ids.filter_map(|id| numbers(directories, &id).ok()).collect()
    } else {
        options.ids.iter().map(|id| numbers(directories, id)).collect::<Result<Vec<_>>>()?
    };
    let head = ["ID", "CPU", "MEMORY", "LIMIT", "PIDS"].map(str::to_owned);
    let lines = std::iter::once(head).chain(counted.iter().map(|(id, numbers)| numbers.row(id)));
    Ok((counted.iter().map(|(id, numbers)| numbers.json(id)).collect(), lines.collect()))
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

    fn row(&self, id: &str) -> [String; 5] {
        let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), size);
        let cpu = self
            .cpu_microseconds
            .map_or("-".to_owned(), |time| format!("{}.{:03} s", time / 1_000_000, time / 1000 % 1000));
        let pids = self.pids.map_or("-".to_owned(), |count| count.to_string());
        [id.to_owned(), cpu, size(self.memory), size(self.memory_limit), pids]
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
        assert_eq!(row, ["web", "1.234 s", "3.0 MiB", "-", "4"]);
        assert_eq!(size(1536), "1.5 KiB");
    }
}
