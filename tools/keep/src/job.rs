//! All that a keeper has to know of its container: `<bundle>/keep.json`, which the verbs read too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use container::{ContainerId, Directories};
use record::{OwnedBy, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::undo::{self, Made};
use stage::{Stage, Tool, Undo};

use crate::check::HealthCheck;
use crate::exit;
use crate::output::LogOptions;
use crate::request::KeeperOptions;

/// The file's name in the bundle.
pub(crate) const FILE: &str = "keep.json";
/// How long docker lets a container take to end.
pub(crate) const GRACE: u64 = 10;
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
const STOP_TIMEOUT: &str = "org.drayage.stopTimeout";
const HEALTH: &str = "org.drayage.healthcheck";

/// A keeper's job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// The bundle's directory.
    pub(crate) bundle: PathBuf,
    /// Whether the container has a terminal.
    pub(crate) terminal: bool,
    /// What the command line asks for.
    #[serde(flatten)]
    pub(crate) options: KeeperOptions,
    /// Where its output goes.
    pub(crate) log: LogOptions,
    /// The signal that asks it to end.
    pub(crate) stop_signal: String,
    /// How long it may take to end, in seconds.
    pub(crate) stop_timeout: u64,
    /// How its health is looked at.
    pub(crate) health: Option<HealthCheck>,
    /// Whether somebody has stopped it: a boot leaves it alone then.
    ///
    /// Written before the container is told to stop, so that a machine that goes down meanwhile does not bring it
    /// back.
    #[serde(default)]
    pub(crate) stopped: bool,
    /// Where `spawn` keeps the states.
    pub(crate) states: PathBuf,
    /// What is undone at the end.
    pub(crate) undo: Vec<Undo>,
    /// The record of the stages before.
    pub(crate) record: Value,
}

impl Job {
    /// Reads the job of a container that has, or had, a keeper.
    pub(crate) fn of(bundle: &Path) -> Result<Self> {
        exit::read(bundle, FILE)?.with_context(|| format!("there is no {}", bundle.join(FILE).display()))
    }

    /// Returns the job of a container that nothing is asked for but what its bundle says.
    pub(crate) fn plain(id: &ContainerId, bundle: &Path, directories: &Directories) -> Result<Self> {
        let config = "config.json";
        let read: Option<Value> = exit::read(bundle, config)?;
        let config = read.with_context(|| format!("read {}: no such file", bundle.join(config).display()))?;
        let annotation = |name: &str| config["annotations"][name].as_str();
        Ok(Self {
            id: id.clone(),
            bundle: bundle.to_owned(),
            terminal: config["process"]["terminal"].as_bool().unwrap_or(false),
            options: KeeperOptions::default(),
            log: LogOptions::default(),
            stop_signal: annotation(STOP_SIGNAL).unwrap_or("SIGTERM").to_owned(),
            stop_timeout: annotation(STOP_TIMEOUT).and_then(|text| text.parse().ok()).unwrap_or(GRACE),
            health: annotation(HEALTH).map(HealthCheck::parse).transpose().context(HEALTH)?.flatten(),
            stopped: false,
            states: directories.states(),
            undo: Vec::new(),
            record: Value::Null,
        })
    }

    /// Returns a command line of `spawn` for this container.
    pub(crate) fn spawn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Stage {
        spawn(&self.states, arguments)
    }

    /// Returns how long the container may take to end.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.stop_timeout)
    }
}

/// Returns a command line of `spawn` for the containers whose states are in a directory.
pub(crate) fn spawn<A: AsRef<OsStr>>(states: &Path, arguments: impl IntoIterator<Item = A>) -> Stage {
    let mut spawn = Stage::new(Tool::Spawn, [OsStr::new("--root"), states.as_os_str()]);
    spawn.push(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    spawn
}

/// Returns what undoes the stages whose members are in the record, and the container itself.
pub(crate) fn undo(
    record: &Record,
    id: &ContainerId,
    rm: bool,
    directories: &Directories,
    root: Option<&Path>,
) -> Result<Vec<Undo>> {
    let owner = record.find::<OwnedBy>()?.map(|owned| owned.0);
    let states = directories.states();
    let made = Made { id, owner, root, states: Some(&states), runtime: None, keeps_bundle: !rm };
    Ok(made.undo(|tool| undo::is_in(record, tool)))
}
