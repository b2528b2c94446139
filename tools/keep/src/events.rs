//! `events`: what happens to the containers, as it happens. There is nobody to tell it but the file system: bundles come and
//! go, and their keepers and runtimes give new files their names (`inotify(7)`).

use std::collections::HashMap;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::{Context, Result};
use container::{Condition, ContainerId, Directories};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::exit::{self, Exit};
use crate::health::{self, Health};
use crate::{clock, list};

/// The file that says as which process a container was started.
const PID: &str = "pid";

/// Prints events until its reader has gone.
pub(crate) fn events(wanted: &[ContainerId], json: bool, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let bundles = directories.bundles();
    sys::file::make_private(&bundles).with_context(|| format!("make {}", bundles.display()))?;
    // Watched first, listed then: what comes between the two is in both, and nothing is in neither.
    let inotify = inotify::init(CreateFlags::CLOEXEC).context("inotify")?;
    let come_and_go = WatchFlags::CREATE | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
    let above = inotify::add_watch(&inotify, &bundles, come_and_go).with_context(|| bundles.display().to_string())?;
    let (ids, health) = (HashMap::new(), HashMap::new());
    let mut watch = Watch { directories: &directories, wanted, json, inotify: &inotify, ids, health };
    for id in list::ids(&directories, |condition| condition != Condition::Incomplete)? {
        watch.follow(&id);
    }
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut reader = inotify::Reader::new(&inotify, &mut buffer);
    loop {
        let event = match reader.next() {
            Err(Errno::INTR) => continue,
            event => event.context("inotify")?,
        };
        let Some(name) = event.file_name().and_then(|name| name.to_str().ok().map(str::to_owned)) else { continue };
        let (wd, flags) = (event.wd(), event.events());
        if let Some(id) = watch.ids.get(&wd).cloned() {
            watch.happened(&id, &name)?;
        } else if let (true, Ok(id), true) = (wd == above, name.parse(), flags.contains(ReadFlags::ISDIR)) {
            watch.bundle(&id, flags.contains(ReadFlags::CREATE))?;
        }
    }
}

struct Watch<'a> {
    directories: &'a Directories,
    wanted: &'a [ContainerId],
    json: bool,
    inotify: &'a rustix::fd::OwnedFd,
    /// Whose directory a watch is on.
    ids: HashMap<i32, ContainerId>,
    /// What was said last of a container's health.
    health: HashMap<ContainerId, String>,
}

impl Watch<'_> {
    /// Watches a bundle; it may be gone by now.
    fn follow(&mut self, id: &ContainerId) {
        // Files get their names by rename(2) when they are whole, so that `MOVED_TO` is the moment at which they can
        // be read.
        let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        // A watch ends by itself with its directory, and its number comes again after all others only: inotify(7).
        if let Ok(wd) = inotify::add_watch(self.inotify, self.directories.bundle(id), flags) {
            self.ids.insert(wd, id.clone());
        }
    }

    fn bundle(&mut self, id: &ContainerId, comes: bool) -> Result<()> {
        if !comes {
            self.health.remove(id);
            return self.say("destroy", id, json!({}));
        }
        self.say("create", id, json!({}))?;
        self.follow(id);
        // What was there before anybody watched.
        for file in [PID, exit::FILE, health::FILE] {
            if self.directories.bundle(id).join(file).exists() {
                self.happened(id, file)?;
            }
        }
        Ok(())
    }

    fn happened(&mut self, id: &ContainerId, file: &str) -> Result<()> {
        let bundle = self.directories.bundle(id);
        match file {
            PID => {
                let pid = exit::read_pid(&bundle.join(PID)).ok().map(Pid::as_raw_pid);
                self.say("start", id, json!({"pid": pid}))
            }
            exit::FILE => {
                let exit = list::parse::<Exit>(&bundle, exit::FILE).unwrap_or_default();
                self.say("die", id, json!({"exitCode": exit.code, "oomKilled": exit.oom_killed}))
            }
            health::FILE => {
                let health = list::parse::<Health>(&bundle, health::FILE).map(|health| json!(health.status));
                let status = health.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                // The file is written after every check; an event is only the change.
                if self.health.insert(id.clone(), status.clone()).as_ref() == Some(&status) {
                    return Ok(());
                }
                self.say("health_status", id, json!({"status": status}))
            }
            _ => Ok(()),
        }
    }

    fn say(&self, event: &str, id: &ContainerId, more: Value) -> Result<()> {
        if !self.wanted.is_empty() && !self.wanted.contains(id) {
            return Ok(());
        }
        let time = clock::now();
        let mut out = io::stdout().lock();
        let Value::Object(more) = more else { return Ok(()) };
        if self.json {
            let line = [("time", json!(time)), ("event", json!(event)), ("id", json!(id))];
            let line = line.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(more);
            writeln!(out, "{}", Value::Object(line.collect()))?;
        } else {
            let more = more.iter().map(|(name, value)| format!("{name}={}", shown(value)));
            let words: Vec<String> = [time, event.to_owned(), id.to_string()].into_iter().chain(more).collect();
            writeln!(out, "{}", cli::printable(&words.join(" ")))?;
        }
        Ok(out.flush()?)
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
