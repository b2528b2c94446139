//! `stats`: what a container's control groups count.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use container::{Condition, ContainerId, Directories};
use serde_json::{Value, json};

use crate::{exit, list};

/// How often they are printed on a terminal.
const EACH: Duration = Duration::from_secs(1);

/// Prints the numbers of each container, and goes on with that on a terminal.
pub(crate) fn stats(ids: &[ContainerId], form: cli::ListForm, stream: bool, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let is_live = stream && form.is_table() && io::stdout().is_terminal();
    loop {
        let rows = counted(ids, &directories)?;
        if is_live {
            // Over what was printed before: to the left upper corner, and what is below goes.
            write!(io::stdout().lock(), "\x1b[H\x1b[J")?;
        }
        let head = ["ID", "CPU", "MEMORY", "LIMIT", "PIDS"].map(str::to_owned);
        let lines = std::iter::once(head).chain(rows.iter().map(cells));
        form.print(&rows, "id", || cli::table(&lines.collect::<Vec<_>>()))?;
        if !is_live {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(EACH);
    }
}

/// Returns a row for each container.
fn counted(ids: &[ContainerId], directories: &Directories) -> Result<Vec<Value>> {
    if ids.is_empty() {
        // One that has ended meanwhile uses nothing.
        let ids = list::ids(directories, Condition::is_up)?.into_iter();
        return Ok(ids.filter_map(|id| row(directories, &id).ok()).collect());
    }
    ids.iter().map(|id| row(directories, id)).collect()
}

/// Counts for a container that runs; null is what no group counts.
fn row(directories: &Directories, id: &ContainerId) -> Result<Value> {
    let (id, _) = list::named(directories, id)?;
    let Some(cgroups) = exit::cgroups(&directories.states(), &id) else { bail!("container {id} does not run") };
    let stats = cgroups.stats();
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64);
    let time = number("/cpu/usage/total").map(|nanoseconds| nanoseconds / 1000);
    // v1 says "no limit" by the largest number of pages.
    let limit = number("/memory/usage/limit").filter(|limit| *limit < 1 << 62);
    let (memory, pids) = (number("/memory/usage/usage"), number("/pids/current"));
    Ok(json!({"id": id, "cpuMicroseconds": time, "memory": memory, "memoryLimit": limit, "pids": pids}))
}

/// Returns a row for people.
fn cells(row: &Value) -> [String; 5] {
    let cell = |name: &str, show: fn(u64) -> String| row[name].as_u64().map_or("-".to_owned(), show);
    let cpu = cell("cpuMicroseconds", |time| format!("{}.{:03} s", time / 1_000_000, time / 1000 % 1000));
    let id = row["id"].as_str().unwrap_or_default().to_owned();
    [id, cpu, cell("memory", size), cell("memoryLimit", size), cell("pids", |count| count.to_string())]
}

fn size(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    format!("{}.{} {unit}", bytes >> shift, (((bytes % (1 << shift)) * 10) >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_units() {
        let row = json!({"id": "web", "cpuMicroseconds": 1_234_567, "memory": 3 << 20, "memoryLimit": null, "pids": 4});
        assert_eq!(cells(&row), ["web", "1.234 s", "3.0 MiB", "-", "4"]);
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size((1 << 62) - 1), "4294967295.9 GiB");
    }
}
