//! `list`, `pause`, `resume` and `update`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{print, state_root};
use crate::config::{Cpu, Memory, Pids, Resources};
use crate::options::{self, Format, Global};
use crate::state::{self, Container, Status};

pub(crate) fn list(global: &Global, format: Format, quiet: bool) -> anyhow::Result<()> {
    let root = state_root(global);
    if global.root.is_some() {
        // Who names a directory wants to hear that it is not there; the usual one is made by the first container.
        fs::metadata(&root).with_context(|| format!("open {}", root.display()))?;
    }
    let ids = state::list(&root)?;
    if quiet {
        return print(&ids.iter().map(|id| format!("{id}\n")).collect::<Vec<_>>().concat());
    }
    // One that has just been deleted is no container any more.
    let containers: Vec<Container> = ids.iter().filter_map(|id| Container::open(&root, id).ok()).collect();
    let rows: Vec<serde_json::Value> = containers.iter().map(row).collect();
    if format == Format::Json {
        let text = if rows.is_empty() { "null".to_owned() } else { serde_json::to_string(&rows)? };
        return print(&(text + "\n"));
    }
    let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut table = vec![titles.map(str::to_owned)];
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    table.extend(rows.iter().map(|row| titles.map(|title| text(&row[title.to_lowercase()]))));
    let mut widths = [12, 11, 11, 11, 11, 0];
    for row in &table {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.len() + 1));
    }
    widths[5] = 0;
    let line = |row: &[String; 6]| {
        let line = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().concat();
        line.trim_end().to_owned() + "\n"
    };
    print(&table.iter().map(line).collect::<String>())
}

fn row(container: &Container) -> serde_json::Value {
    let status = container.status();
    let report = container.report(status);
    json!({
        "ociVersion": report.oci_version,
        "id": report.id,
        "pid": report.pid,
        "status": status.name(),
        "bundle": report.bundle,
        "rootfs": container.state.rootfs,
        "created": container.state.created,
        "annotations": report.annotations,
        "owner": user_name(container.state.owner),
    })
}

/// Read by hand: the C library's look-up would load other people's code into a static program.
fn user_name(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

pub(crate) fn pause(global: &Global, id: &str) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    let status = container.status();
    ensure!(matches!(status, Status::Running | Status::Created), "container not running: it is {}", status.name());
    container.cgroups().freeze(true)
}

pub(crate) fn resume(global: &Global, id: &str) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    ensure!(container.status() == Status::Paused, "container not paused");
    container.cgroups().freeze(false)
}

pub(crate) fn update(global: &Global, options: options::Update) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), &options.id)?;
    ensure!(container.process().is_some(), "container not running");
    let resources = match &options.resources {
        Some(file) => read_resources(file)?,
        None => from_options(options)?,
    };
    container.cgroups().apply(&resources, true)
}

fn read_resources(file: &Path) -> anyhow::Result<Resources> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).context("read stdin")?;
    } else {
        text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    }
    serde_json::from_slice(&text).with_context(|| format!("resources in {}", file.display()))
}

fn from_options(options: options::Update) -> anyhow::Result<Resources> {
    let bytes = |text: Option<String>, option: &str| {
        text.map(|text| parse_bytes(&text).with_context(|| format!("invalid value for {option}"))).transpose()
    };
    let memory = Memory {
        limit: bytes(options.memory, "memory")?,
        reservation: bytes(options.memory_reservation, "memory-reservation")?,
        swap: bytes(options.memory_swap, "memory-swap")?,
        kernel_tcp: bytes(options.kernel_memory_tcp, "kernel-memory-tcp")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: options.cpu_share,
        quota: options.cpu_quota,
        burst: options.cpu_burst,
        period: options.cpu_period,
        realtime_runtime: options.cpu_rt_runtime,
        realtime_period: options.cpu_rt_period,
        cpus: options.cpuset_cpus.unwrap_or_default(),
        mems: options.cpuset_mems.unwrap_or_default(),
        idle: options.cpu_idle,
    };
    let block_io =
        options.blkio_weight.map(|weight| crate::config::BlockIo { weight: Some(weight), ..Default::default() });
    let pids = options.pids_limit.map(|limit| Pids { limit: Some(limit) });
    Ok(Resources { memory: Some(memory), cpu: Some(cpu), block_io, pids, ..Resources::default() })
}

/// Parses `-1`, `1048576`, `64m`, `1.5GiB`.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sizes are far below 2^52 units")]
fn parse_bytes(text: &str) -> anyhow::Result<i64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        other => anyhow::bail!("unknown unit {other:?}"),
    };
    let number: f64 = digits.trim().parse().with_context(|| format!("{text:?} is not a size"))?;
    Ok((number * (1_i64 << power) as f64) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("-1", Some(-1)),
            ("7", Some(7)),
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2KB", Some(2048)),
            ("x", None),
            ("5q", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), want, "{text}");
        }
    }
}
