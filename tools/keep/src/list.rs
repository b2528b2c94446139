//! `list`: the containers of all bundles, with what their keepers wrote down.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use container::{ContainerId, Directories};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stage::claim;

use crate::control;
use crate::exit::{self, Exit};
use crate::health::{self, Health};
use crate::job::{self, Job};
use crate::options::Form;
use crate::stop;

/// What a container must have to be listed: one member of its row.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    member: &'static str,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let member = ["health", "status"].into_iter().find(|member| *member == name && !value.is_empty());
        let member = member.ok_or("not health=STATUS or status=STATUS")?;
        Ok(Self { member, value: value.to_owned() })
    }
}

/// Prints the containers.
pub(crate) fn list(form: &Form, directories: &Directories) -> Result<ExitCode> {
    let mut rows: Vec<Value> = ids(directories)?.iter().map(|id| row(directories, id)).collect();
    rows.retain(|row| form.filter.iter().all(|filter| row[filter.member] == *filter.value));
    if form.running {
        rows.retain(|row| row["status"] == "running");
    }
    let (as_json, quiet) = (form.json, form.quiet);
    let mut out = io::stdout().lock();
    if as_json {
        for row in rows {
            writeln!(out, "{row}")?;
        }
    } else if quiet {
        for row in rows {
            writeln!(out, "{}", text(&row["id"]))?;
        }
    } else {
        write!(out, "{}", table(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a container's bundle, if there is one of this id.
pub(crate) fn bundle(directories: &Directories, id: &ContainerId) -> Result<PathBuf> {
    let bundle = directories.bundle(id);
    ensure!(bundle.is_dir(), "no container {id}");
    Ok(bundle)
}

pub(crate) fn ids(directories: &Directories) -> Result<Vec<ContainerId>> {
    let bundles = directories.bundles();
    let entries = match fs::read_dir(&bundles) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", bundles.display()))?,
    };
    // One whose config.json is gone has other files still.
    let there = |path: &Path, name: &str| !matches!(path.join(name).try_exists(), Ok(false));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| there(path, "config.json") || there(path, job::FILE));
    let mut ids: Vec<ContainerId> = paths.iter().filter_map(|path| ContainerId::of_path(path).ok()).collect();
    ids.sort();
    Ok(ids)
}

fn row(directories: &Directories, id: &ContainerId) -> Value {
    let bundle = directories.bundle(id);
    let config: Value = parse(&bundle, "config.json").unwrap_or_default();
    // One that has no keeper has no record either.
    let record = parse(&bundle, job::FILE).map(|job: Job| job.record).unwrap_or_default();
    let runs = stop::is_running(directories, id);
    let holder = claim::holder_of(directories, id);
    let written = exit::read(&bundle, exit::FILE);
    let has_ended = !matches!(written, Ok(None));
    let mut exit: Option<Exit> = or_warn(written);
    if exit.is_none() && holder.as_ref().is_some_and(|duty| duty.ending) {
        // Its keeper could not write it.
        exit = control::how_it_ended(&bundle, id);
    }
    let health: Option<Health> = parse(&bundle, health::FILE);
    let status = match (runs, has_ended || exit.is_some()) {
        (true, _) => "running",
        (false, true) if holder.is_some_and(|duty| !duty.ending) => "restarting",
        (false, true) => "exited",
        (false, false) => "created",
    };
    let mut row = json!({
        "id": id,
        "image": record["image"]["reference"],
        "command": config["process"]["args"],
        "status": status,
        "ports": record["ports"].as_array().filter(|_| runs).cloned().unwrap_or_default(),
        "bundle": bundle,
    });
    if let Some(health) = health.filter(|_| runs) {
        row["health"] = json!(health.status);
    }
    if let Some(exit) = exit.filter(|_| !runs) {
        row["exit"] = json!(exit);
    }
    row
}

/// Reads a file of the bundle; what is not there is not known, nor what is damaged, which is named.
pub(crate) fn parse<T: DeserializeOwned>(bundle: &Path, name: &str) -> Option<T> {
    or_warn(exit::read(bundle, name))
}

fn or_warn<T>(read: Result<Option<T>>) -> Option<T> {
    read.unwrap_or_else(|error| {
        log::warn!("{error:#}");
        None
    })
}

fn table(rows: &[Value]) -> String {
    let head = ["ID", "IMAGE", "COMMAND", "STATUS", "PORTS"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let padded = |line: &[String; 5]| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(padded).collect()
}

fn cells(row: &Value) -> [String; 5] {
    let words: Vec<String> = row["command"].as_array().into_iter().flatten().map(text).collect();
    let mut command = words.join(" ");
    if command.chars().count() > 24 {
        command = command.chars().take(23).chain(['…']).collect();
    }
    let mut status = text(&row["status"]);
    if let Some(code) = row["exit"]["exitCode"].as_u64() {
        status = format!("{status} ({code})");
    }
    if let Some(health) = row["health"].as_str() {
        status = format!("{status} ({health})");
    }
    let ports: Vec<String> = row["ports"].as_array().into_iter().flatten().map(port).collect();
    let image = text(&row["image"]);
    let cells =
        [text(&row["id"]), if image.is_empty() { "-".to_owned() } else { image }, command, status, ports.join(", ")];
    cells.map(|cell| cli::printable(&cell))
}

fn port(port: &Value) -> String {
    let address = port["hostIP"].as_str().map_or(String::new(), |ip| format!("{ip}:"));
    format!("{address}{}->{}/{}", port["hostPort"], port["containerPort"], text(&port["protocol"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_docker_ps_says() {
        let row = json!({"id":"web","image":"nginx","command":["nginx","-g","daemon off;"],"status":"running","health":"healthy",
            "ports":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]});
        assert_eq!(
            table(&[row]),
            "ID   IMAGE  COMMAND               STATUS             PORTS\n\
             web  nginx  nginx -g daemon off;  running (healthy)  8080->80/tcp\n"
        );
        let row = json!({"id":"job","command":["true"],"status":"exited","exit":{"exitCode":3}});
        assert_eq!(cells(&row)[3], "exited (3)");
    }
}
