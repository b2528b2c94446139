//! What is known of the containers of one root, whoever has made them and whatever runs them: one answer for all lists.
//! A container is there while it has a bundle or a state.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use cgroup::Cgroups;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ContainerId, Directories, Exit, NotedProcess, RuntimeId, State, noted, state_in};

/// Where runtimes note what others than `run` have them run: from a bundle of ours, maybe.
const OTHERS: [&str; 2] = ["/run/runc", "/run/crun"];

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its bundle is half-made.
    Incomplete,
    /// It was not started.
    Created,
    /// Its process lives.
    Running,
    /// Its process lives and is frozen.
    Paused,
    /// It has ended, and its keeper will start it again.
    Restarting,
    /// It has ended.
    Exited,
}

impl Condition {
    /// Returns the word for it.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Tells whether the container's process runs its program, frozen or not.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// A container as it is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its id.
    pub id: RuntimeId,
    /// Its bundle's directory, which need not be there any more.
    pub bundle: PathBuf,
    /// How it is.
    ///
    /// As at some moment of the call: nothing is locked for it.
    pub condition: Condition,
    /// Its process, while that lives.
    pub pid: Option<i32>,
    /// When that was made, as its runtime has it.
    pub started: Option<String>,
    /// How it has ended, where somebody has waited for that.
    pub exit: Option<Exit>,
}

impl Known {
    /// Returns the containers of a root, by id.
    ///
    /// # Errors
    /// Where a directory or file cannot be read for want of descriptors, memory or disk: a list that leaves one out
    /// because of that would have `prune` remove what lives.
    pub fn all(directories: &Directories) -> io::Result<Vec<Self>> {
        let mut ids = BTreeSet::new();
        let states = directories.all_states()?;
        for directory in states.iter().chain([&directories.bundles()]) {
            ids.extend(names(directory)?.iter().filter_map(|name| name.parse::<RuntimeId>().ok()));
        }
        // What is on its way out has a full stop in front.
        let ids = ids.into_iter().filter(|id| !id.starts_with('.'));
        ids.filter_map(|id| Self::in_states(&states, directories, id).transpose()).collect()
    }

    /// Returns the container of that id.
    pub fn of(directories: &Directories, id: RuntimeId) -> io::Result<Option<Self>> {
        Self::in_states(&directories.all_states()?, directories, id)
    }

    fn in_states(states: &[PathBuf], directories: &Directories, id: RuntimeId) -> io::Result<Option<Self>> {
        let own = ContainerId::try_from(String::from(id.clone())).ok().map(|id| directories.bundle(&id));
        let noted_in = |states: &[PathBuf]| -> io::Result<Option<Noted>> {
            states.iter().find_map(|states| Noted::read(&state_in(states, &id)).transpose()).transpose()
        };
        let noted = match noted_in(states)? {
            None => noted_in(&OTHERS.map(PathBuf::from))?.filter(|noted| own.is_some() && noted.bundle == own),
            noted => noted,
        };
        let its = noted.as_ref().and_then(|noted| noted.bundle.clone());
        let Some(bundle) = its.or_else(|| own.clone()) else { return Ok(None) };
        let exit = Exit::of(&bundle)?;
        let process = noted.as_ref().and_then(|noted| noted.process.alive());
        let there = |name: &str| io::Result::Ok(sys::file::known(bundle.join(name).metadata())?.is_some());
        // One that is damaged has ended, too.
        let has_ended = || io::Result::Ok(exit.is_some() || there(Exit::FILE)?);
        let condition = match &noted {
            Some(noted) if process.is_some() => noted.condition()?,
            Some(noted) if noted.process.pid == 0 => Condition::Created,
            None if exit.is_none() && !is_directory(&bundle)? => return Ok(None),
            // One whose config.json is gone has other files still.
            _ if own.as_ref() == Some(&bundle) && !there("config.json")? && !there("keep.json")? => {
                Condition::Incomplete
            }
            _ if has_ended()? && is_held(directories, &bundle) => Condition::Restarting,
            None if !has_ended()? && !there("pid")? => Condition::Created,
            _ => Condition::Exited,
        };
        let created = |noted: Noted| noted.state.get("created")?.as_str().map(str::to_owned);
        let started = noted.filter(|_| process.is_some()).and_then(created);
        Ok(Some(Self { id, bundle, condition, pid: process.map(Pid::as_raw_pid), started, exit }))
    }

    /// Returns the container that a person means, by its id or the beginning of one that `run` has made up.
    ///
    /// Whoever removes or stops acts on this answer; a name is never completed.
    pub fn named(directories: &Directories, text: &str) -> io::Result<Option<Self>> {
        let exact = text.parse().map_or(Ok(None), |id| Self::of(directories, id))?;
        if exact.is_some() {
            return Ok(exact);
        }
        let full = in_full(directories.all_states()?.into_iter().chain([directories.bundles()]), text)?;
        full.map_or(Ok(None), |id| Self::of(directories, id))
    }
}

impl Directories {
    /// Returns the id of a bundle that `run` has made up and that begins so, or what was given: as [`in_full`].
    pub fn in_full(&self, id: ContainerId) -> io::Result<ContainerId> {
        if sys::file::may_be_there(&self.bundle(&id)) {
            return Ok(id);
        }
        let full = in_full([self.bundles()], &id)?.and_then(|id| String::from(id).parse().ok());
        Ok(full.unwrap_or(id))
    }
}

/// Returns the only id in these directories that begins so. As with docker, ids may be cut short and names not, or `rm db`
/// would mean `db2` where there is no `db`: what counts are the twelve hexadecimal digits that `run` makes up, of which
/// four are given.
pub fn in_full(directories: impl IntoIterator<Item = PathBuf>, text: &str) -> io::Result<Option<RuntimeId>> {
    let digits = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !(4..12).contains(&text.len()) || !digits(text) {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    for directory in directories {
        let names = names(&directory)?.into_iter();
        found.extend(names.filter(|name| name.len() == 12 && digits(name) && name.starts_with(text)));
    }
    Ok(found.pop_first().filter(|_| found.is_empty()).and_then(|id| id.parse().ok()))
}

/// Returns the names in a directory, if it is there.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    Ok(sys::file::entries(directory)?.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn is_directory(path: &Path) -> io::Result<bool> {
    Ok(sys::file::known(path.metadata())?.is_some_and(|found| found.is_dir()))
}

/// Tells whether somebody lives who is responsible for the container and is not ending: what its claim says.
fn is_held(directories: &Directories, bundle: &Path) -> bool {
    #[derive(Deserialize)]
    struct Claim {
        #[serde(flatten)]
        process: NotedProcess,
        ending: bool,
    }
    let text = ContainerId::of_path(bundle).ok().and_then(|id| sys::file::read_regular(&directories.claim(&id)).ok());
    let claim = text.and_then(|text| serde_json::from_slice::<Claim>(&text).ok());
    claim.is_some_and(|claim| !claim.ending && claim.process.alive().is_some())
}

/// What a runtime has noted in a container's directory: `spawn` and runc in `state.json`, crun in `status`.
struct Noted {
    directory: PathBuf,
    bundle: Option<PathBuf>,
    process: NotedProcess,
    state: Value,
}

impl Noted {
    fn read(directory: &Path) -> io::Result<Option<Self>> {
        // Among thousands that have ended, what is not there costs one call.
        if !is_directory(directory)? {
            return Ok(None);
        }
        let read = |name: &str| sys::file::known(sys::file::read_regular(&directory.join(name)));
        let text = read(State::FILE)?.map_or_else(|| read("status"), |text| Ok(Some(text)))?;
        // Without a text, its creator has just begun, or was killed while beginning.
        let state: Value = serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default();
        let (bundle, process) = (noted::bundle(&state), noted::process(&state));
        Ok(Some(Self { directory: directory.to_owned(), bundle, process, state }))
    }

    /// Tells how a container is whose process lives.
    fn condition(&self) -> io::Result<Condition> {
        // The process waits there until it is started; runc's fifo has the other name.
        for name in ["start", "exec.fifo"] {
            if sys::file::known(self.directory.join(name).symlink_metadata())?.is_some() {
                return Ok(Condition::Created);
            }
        }
        let paths = self.state.get("cgroup_paths").and_then(|paths| serde_json::from_value(paths.clone()).ok());
        let frozen = paths.map_or(Ok(false), |paths| Cgroups::from_paths(&paths).is_frozen())?;
        Ok(if frozen { Condition::Paused } else { Condition::Running })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_container_is_what_its_files_say() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::below(root.path().to_owned());
        let own = NotedProcess::own();
        let state = |pid: i32| format!(r#"{{"init_process_pid":{pid},"init_process_start":{}}}"#, own.birth.unwrap());
        let exit = serde_json::to_string(&Exit { code: 3, ..Exit::default() }).unwrap();
        let held = format!(r#"{{"pid":{},"birth":{},"ending":false}}"#, own.pid, own.birth.unwrap());
        let (live, dead) = (state(own.pid), state(i32::MAX));
        // The files of each, below the root, and how it is then.
        for (id, files, want) in [
            ("half", vec![("containers/half/hosts", "")], Condition::Incomplete),
            ("fresh", vec![("containers/fresh/config.json", "{}")], Condition::Created),
            ("up", vec![("containers/up/config.json", "{}"), ("run/spawn/up/state.json", &live)], Condition::Running),
            ("runc", vec![("run/runtimes/runc/runc/state.json", &live)], Condition::Running),
            ("made", vec![("run/spawn/made/state.json", &live), ("run/spawn/made/start", "")], Condition::Created),
            (
                "dead",
                vec![("containers/dead/config.json", "{}"), ("run/spawn/dead/state.json", &dead)],
                Condition::Exited,
            ),
            ("gone", vec![("containers/gone/config.json", "{}"), ("containers/gone/pid", "7")], Condition::Exited),
            (
                "done",
                vec![("containers/done/config.json", "{}"), ("containers/done/exit.json", &exit)],
                Condition::Exited,
            ),
            (
                "back",
                vec![
                    ("containers/back/config.json", "{}"),
                    ("containers/back/exit.json", &exit),
                    ("run/claims/back", &held),
                ],
                Condition::Restarting,
            ),
        ] {
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let known = Known::of(&directories, id.parse().unwrap()).unwrap().unwrap();
            assert_eq!((known.condition, known.pid.is_some()), (want, live_is(want, id)), "{id}");
        }
        let all: Vec<String> = Known::all(&directories).unwrap().iter().map(|known| known.id.to_string()).collect();
        assert_eq!(all, ["back", "dead", "done", "fresh", "gone", "half", "made", "runc", "up"]);
        for id in ["0123456789ab", "0123456789cd", "beef00000000"] {
            fs::create_dir(directories.bundles().join(id)).unwrap();
        }
        for (text, want) in [
            ("done", Some("done")),
            ("don", None),
            ("", None),
            ("beef", Some("beef00000000")),
            ("bee", None),
            ("0123456789", None),
            ("0123456789a", Some("0123456789ab")),
            ("0123456789ab", Some("0123456789ab")),
        ] {
            assert_eq!(
                Known::named(&directories, text).unwrap().map(|known| known.id.to_string()).as_deref(),
                want,
                "{text}"
            );
            let id = text.parse::<ContainerId>().map(|id| directories.in_full(id).unwrap().to_string()).ok();
            assert_eq!(id.filter(|id| id != text), want.filter(|id| *id != text).map(str::to_owned), "{text}");
        }
    }

    fn live_is(condition: Condition, id: &str) -> bool {
        condition.is_up() || id == "made"
    }
}
