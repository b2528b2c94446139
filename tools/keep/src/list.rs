//! `list`: the containers that are there, whoever has made them.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use container::{Condition, ContainerId, Directories, Known, State};
use record::Record;
use rustix::termios::tcgetwinsize;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stage::claim;

use crate::clock;
use crate::control;
use crate::exit::{self, Exit};
use crate::filter::ContainerFilter;
use crate::health::{self, Health};
use crate::job;
use crate::request::Selection;

/// Prints the containers.
pub(crate) fn list(selection: &Selection, directories: &Directories) -> Result<ExitCode> {
    let known = Known::all(directories).context("look for containers")?;
    let is_wanted = |known: &Known| selection.ids.is_empty() || selection.ids.iter().any(|id| **id == *known.id);
    let known = known.into_iter().filter(|known| is_wanted(known) && (!selection.running || known.condition.is_up()));
    let with_labels = selection.filter.iter().any(|filter| matches!(filter, ContainerFilter::Label(..)));
    let listed = known.filter_map(|known| {
        let outline = Outline::of_beginning(&known.bundle, with_labels);
        let outline = outline.or_else(|| parse(&known.bundle, "config.json")).unwrap_or_default();
        let row = row(directories, &known, &outline.process.args.unwrap_or_default());
        selection.filter.iter().all(|filter| filter.holds(&row, &outline.annotations)).then_some(row)
    });
    let mut rows: Vec<Value> = listed.collect();
    if let Some(last) = selection.last {
        rows.sort_by(|one, other| text(&other["created"]).cmp(&text(&one["created"])));
        rows.truncate(last);
    }
    // Elsewhere than on a terminal lines may be as long as they are.
    let width = || tcgetwinsize(rustix::stdio::stdout()).map_or(0, |size| size.ws_col.into());
    selection.form.print(&rows, "id", || table(&rows, width()))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a container's bundle, if there is one of this id.
pub(crate) fn bundle(directories: &Directories, id: &ContainerId) -> Result<PathBuf> {
    let bundle = directories.bundle(id);
    ensure!(bundle.is_dir(), "no container {id}");
    Ok(bundle)
}

/// Returns the container that a person means by an id or its beginning.
pub(crate) fn named(directories: &Directories, text: &str) -> Result<(ContainerId, Known)> {
    let known = Known::named(directories, text).context("look for containers")?;
    let known = known.with_context(|| format!("no container {text}"))?;
    Ok((String::from(known.id.clone()).try_into()?, known))
}

/// Returns a descriptor of a container's process, if it has one that lives.
pub(crate) fn process(directories: &Directories, id: &ContainerId) -> Result<Option<OwnedFd>> {
    let open = || {
        let state = sys::file::known(State::read(&directories.states(), &id.into()))?.flatten();
        io::Result::Ok(state.map(|state| state.process().open()).transpose()?.flatten())
    };
    Ok(open().with_context(|| format!("look at container {id}"))?.map(|(_, process)| process))
}

/// Does it to each.
pub(crate) fn each(
    directories: &Directories,
    ids: &[ContainerId],
    mut one: impl FnMut(&ContainerId, &Known) -> Result<()>,
) -> Result<ExitCode> {
    cli::each("keep", ids, |text| named(directories, text).and_then(|(id, known)| one(&id, &known)))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line.
pub(crate) fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Returns the ids of the containers that are as is asked for.
pub(crate) fn ids(directories: &Directories, are: impl Fn(Condition) -> bool) -> Result<Vec<ContainerId>> {
    let all = Known::all(directories).context("look for containers")?.into_iter();
    Ok(all.filter(|known| are(known.condition)).filter_map(|known| String::from(known.id).try_into().ok()).collect())
}

/// Says why a container has no keeper, and what can be done.
pub(crate) fn without_keeper(directories: &Directories, id: &ContainerId, known: &Known) -> String {
    let start = format!("`keep start {id}` starts it");
    match (known.condition, &known.exit) {
        (Condition::Incomplete, _) => format!("container {id} is half-made: `keep rm {id}` removes what there is"),
        (Condition::Created, _) => format!("container {id} was not started: {start}"),
        (Condition::Exited | Condition::Restarting, Some(exit)) => {
            format!("container {id} has ended with code {}: {start}", exit.code)
        }
        (Condition::Exited | Condition::Restarting, None) => {
            format!("container {id} has ended, exit code unknown: {start}")
        }
        (Condition::Running | Condition::Paused, _) => match claim::holder_of(directories, id).ok().flatten() {
            Some(holder) => format!("container {id} runs in the foreground of process {}", holder.process.pid),
            None if known.bundle.join(job::FILE).exists() => {
                format!("container {id} has lost its keeper: `keep restart {id}` gives it another")
            }
            None => format!("container {id} runs without a keeper: `spawn` has started it"),
        },
    }
}

/// What a list needs of a container's config.json, whose greater part says which system calls it may make.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Outline {
    process: Process,
    annotations: Value,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
struct Process {
    args: Option<Value>,
}

impl Outline {
    /// Reads it off the beginning of a file as `bundle` writes it, which parses only where all members before one are whole.
    fn of_beginning(bundle: &Path, with_labels: bool) -> Option<Self> {
        let (length, next) = if with_labels { (8192, ",\n  \"linux\"") } else { (4096, ",\n  \"root\"") };
        let mut text = Vec::with_capacity(8192);
        sys::file::open_regular(&bundle.join("config.json")).ok()?.take(length).read_to_end(&mut text).ok()?;
        let members = String::from_utf8_lossy(&text).split_once(next)?.0.to_owned() + "}";
        let outline: Self = serde_json::from_str(&members).ok()?;
        (outline.process.args.is_some() && outline.annotations.is_null() != with_labels).then_some(outline)
    }
}

/// Returns what a list says of a container.
pub(crate) fn row(directories: &Directories, known: &Known, command: &Value) -> Value {
    let bundle = &known.bundle;
    // In a bundle that somebody else has made there is none.
    let record = Record::of_bundle(bundle).unwrap_or_default();
    let member = |name: &str| record.member(name).cloned().unwrap_or_default();
    let image = member("image");
    let up = known.condition.is_up();
    let mut row = json!({
        "id": known.id,
        "image": if image["reference"].is_null() { &image["manifest"]["digest"] } else { &image["reference"] },
        "command": command,
        "status": known.condition,
        "pid": known.pid,
        "created": created(bundle).or_else(|| known.started.clone()),
        "ports": member("ports").as_array().filter(|_| up).cloned().unwrap_or_default(),
        "bundle": bundle,
    });
    if let Some(health) = up.then(|| parse::<Health>(bundle, health::FILE)).flatten() {
        row["health"] = json!(health.status);
    }
    if let Some(started) = &known.started {
        row["started"] = json!(started);
    }
    if !up {
        // What could not be read is named here.
        let mut exit = known.exit.clone().or_else(|| parse::<Exit>(bundle, exit::FILE));
        let ending = |id: ContainerId| matches!(claim::holder_of(directories, &id), Ok(Some(holder)) if holder.ending);
        if exit.is_none() && String::from(known.id.clone()).parse().is_ok_and(ending) {
            // Its keeper could not write it.
            exit = control::how_it_ended(bundle, &known.id);
        }
        if let Some(exit) = exit {
            row["exit"] = json!(exit);
        }
    }
    row
}

/// Returns when a bundle was made, where its file system knows it.
fn created(bundle: &Path) -> Option<String> {
    let metadata = fs::metadata(bundle).ok()?;
    metadata.created().or_else(|_| metadata.modified()).ok().map(clock::text)
}

/// Reads a file of the bundle; what is not there is not known, nor what is damaged, which is named.
pub(crate) fn parse<T: DeserializeOwned>(bundle: &Path, name: &str) -> Option<T> {
    exit::read(bundle, name).inspect_err(|error| log::warn!("{error:#}")).ok().flatten()
}

/// Returns the table, in lines that a terminal of that width does not wrap; 0 is any.
fn table(rows: &[Value], width: usize) -> String {
    let head = ["ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS"].map(str::to_owned);
    let mut lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let longest = |lines: &[[String; 6]], column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths =
        |lines: &[[String; 6]]| -> Vec<usize> { (0..6).map(|column| longest(lines, column).unwrap_or(0)).collect() };
    while width > 0 && widths(&lines).iter().sum::<usize>() + 10 > width {
        // Image, command and ports say enough by their beginnings.
        let [long, column] =
            [1, 2, 5].map(|column| [widths(&lines)[column], column]).into_iter().max().unwrap_or_default();
        if long <= 8 {
            break;
        }
        for line in &mut lines {
            shorten(&mut line[column], long - 1);
        }
    }
    let shortened = |line: &str| {
        let mut line = line.to_owned();
        shorten(&mut line, if width == 0 { usize::MAX } else { width });
        line + "\n"
    };
    cli::table(&lines).lines().map(shortened).collect()
}

fn shorten(text: &mut String, longest: usize) {
    if text.chars().count() > longest {
        *text = text.chars().take(longest.saturating_sub(1)).chain(['…']).collect();
    }
}

fn cells(row: &Value) -> [String; 6] {
    let words: Vec<String> = row["command"].as_array().into_iter().flatten().map(text).collect();
    let mut command = words.join(" ");
    shorten(&mut command, 24);
    let code = row["exit"]["exitCode"].as_u64().map(|code| format!(" ({code})"));
    let health = row["health"].as_str().map(|health| format!(" ({health})"));
    let since = age(row["started"].as_str().or_else(|| row["exit"]["finishedAt"].as_str()));
    let more = [code, health, since.map(|since| format!(", {since}"))];
    let status = text(&row["status"]) + &more.into_iter().flatten().collect::<String>();
    let ports: Vec<String> = row["ports"].as_array().into_iter().flatten().map(port).collect();
    let image = text(&row["image"]);
    let image = if image.is_empty() { "-".to_owned() } else { image };
    let created = age(row["created"].as_str()).unwrap_or_else(|| "-".to_owned());
    [text(&row["id"]), image, command, created, status, ports.join(", ")].map(|cell| cli::printable(&cell))
}

/// Tells how long ago something was.
fn age(time: Option<&str>) -> Option<String> {
    let then = humantime::parse_rfc3339(time?).ok()?;
    let seconds = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    Some(match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    })
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_list_reads_the_beginning_of_a_config_where_that_is_enough() {
        let bundle = tempfile::tempdir().unwrap();
        let (process, labels) = (json!({"args": ["true"], "cwd": "/"}), json!({"a": "b"}));
        let whole = format!("{:#}", json!({"process": process, "root": {}, "annotations": labels, "linux": {}}));
        let up_to = |end: &str| whole.split_once(end).unwrap().0.to_owned() + end;
        let reordered = format!("{:#}", json!({"root": {}, "process": process, "linux": {}, "annotations": labels}));
        for (text, want) in [
            (&whole, [true, true]),
            (&up_to("\"linux\""), [true, true]),
            (&up_to("\"annotations\""), [true, false]),
            (&up_to("\"cwd\""), [false, false]),
            (&reordered, [false, false]),
            (&whole.replace('\n', ""), [false, false]),
            (&"[]".to_owned(), [false, false]),
        ] {
            fs::write(bundle.path().join("config.json"), text).unwrap();
            for (with_labels, want) in [false, true].into_iter().zip(want) {
                let annotations = if with_labels { labels.clone() } else { Value::Null };
                let outline = Outline { process: Process { args: Some(json!(["true"])) }, annotations };
                let read = Outline::of_beginning(bundle.path(), with_labels);
                assert_eq!(read, want.then_some(outline), "{text}");
            }
        }
    }

    #[test]
    fn a_row_says_what_docker_ps_says() {
        let ago = |seconds| clock::text(SystemTime::now() - Duration::from_secs(seconds));
        let row = json!({"id":"web","image":"nginx","command":["nginx","-g","daemon off;"],"status":"running","health":"healthy",
            "created":ago(90_000),"started":ago(300),"ports":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]});
        assert_eq!(
            table(std::slice::from_ref(&row), 0),
            "ID   IMAGE  COMMAND               CREATED  STATUS                    PORTS\n\
             web  nginx  nginx -g daemon off;  25 h     running (healthy), 5 min  8080->80/tcp\n"
        );
        for width in 1..90 {
            let lines = table(std::slice::from_ref(&row), width);
            assert!(lines.lines().all(|line| line.chars().count() <= width), "{width}: {lines}");
        }
        let row =
            json!({"id":"job","command":["true"],"status":"exited","exit":{"exitCode":3,"finishedAt":ago(500_000)}});
        assert_eq!(cells(&row)[4], "exited (3), 5 days");
    }
}
