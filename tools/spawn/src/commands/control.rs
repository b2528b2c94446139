//! `list`, `pause` and `resume`.

use std::fs;

use anyhow::{Context, ensure};
use container::{RuntimeId, accounts};
use serde_json::json;

use super::{print, state_root};
use crate::commands::lifecycle::is_gone;
use crate::request::{Format, Global};
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
    let mut rows = Vec::new();
    for id in &ids {
        match Container::open(&root, id) {
            Ok(container) => rows.push(row(&container)?),
            // One that has just been deleted is no container any more.
            Err(_) if is_gone(&root, id) => {}
            Err(error) if error.downcast_ref().is_some_and(sys::file::says_nothing) => return Err(error),
            Err(error) => log::warn!("{error:#}"),
        }
    }
    // `null` and not `[]` for an empty list: so Go writes a slice that is nil, and callers of runc know it.
    if format == Format::Json {
        let text = if rows.is_empty() { "null".to_owned() } else { serde_json::to_string(&rows)? };
        return print(&(text + "\n"));
    }
    let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut table = vec![titles.map(str::to_owned)];
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    table.extend(rows.iter().map(|row| titles.map(|title| text(&row[title.to_lowercase()]))));
    print(&cli::table(&table))
}

fn row(container: &Container) -> anyhow::Result<serde_json::Value> {
    let status = container.status()?;
    let report = container.report(status);
    Ok(json!({
        "ociVersion": report.oci_version,
        "id": report.id,
        "pid": report.pid,
        "status": status.name(),
        "bundle": report.bundle,
        "rootfs": container.state.rootfs,
        "created": container.state.created,
        "annotations": report.annotations,
        "owner": user_name(container.state.owner),
    }))
}

fn user_name(uid: u32) -> String {
    accounts::field(uid, accounts::NAME).unwrap_or_else(|| format!("#{uid}"))
}

pub(crate) fn pause(global: &Global, id: &RuntimeId) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    let status = container.status()?;
    ensure!(matches!(status, Status::Running | Status::Created), "container not running: it is {}", status.name());
    container.cgroups().freeze(true)
}

pub(crate) fn resume(global: &Global, id: &RuntimeId) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    ensure!(container.status()? == Status::Paused, "container not paused");
    container.cgroups().freeze(false)
}
