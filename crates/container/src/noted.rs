//! The containers that runtimes have noted: one directory a container, with the process that it began with.
//!
//! An ordinary user's notes say anything. Of a user other than the caller only those count whose process is in a user
//! namespace which that user has made: the user cannot have chosen another's process then.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Names, NotedProcess, OWNER, Owner, RuntimeId, State, file, name, state_in};

/// The annotation of a config.json that names other containers by `/proc/PID/…`, whose namespaces it joins: `ID=PID`, with
/// commas between them. A number is another process's as soon as that container has ended.
pub const JOINED: &str = "org.drayage.joined";

/// A container as its runtime has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its id.
    pub id: RuntimeId,
    /// Its first process, which may be gone.
    pub pid: i32,
    /// Its bundle, where that is noted too.
    pub bundle: Option<PathBuf>,
    /// The ordinary user who has noted it, where that is not the caller.
    pub user: Option<u32>,
    /// Whose it is, if its bundle said so.
    pub owner: Option<Owner>,
}

/// Where a runtime notes its containers: its directory, and the file in a container's own.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    file: &'static str,
    /// Whose it is, where it is another user's: only processes of that user's are believed to be containers.
    user: Option<u32>,
}

const RUNC: &str = State::FILE;
const CRUN: &str = "status";

/// Runtimes' directories, and what is in there.
const OTHERS: [(&str, &str); 3] = [("/run/runc", RUNC), ("/run/crun", CRUN), ("/run/docker/runtime-runc/moby", RUNC)];

/// Below it each user has a directory, and in that the runtimes that the user starts have theirs.
const USERS: &str = "/run/user";
const USERS_OWN: [(&str, &str); 3] = [("runc", RUNC), ("crun", CRUN), ("drayage/spawn", RUNC)];

/// Below it each namespace of containerd's has runc's directory.
const CONTAINERD: &str = "/run/containerd/runc";

/// Returns all that are noted; ours are in `states`.
pub fn all(states: &Path) -> io::Result<Vec<Noted>> {
    let mut found = vec![];
    for place in places(states)? {
        for id in ids(&place)? {
            found.extend(noted(&place, &id)?);
        }
    }
    Ok(found)
}

fn ids(place: &Place) -> io::Result<Vec<RuntimeId>> {
    let entries = match file::paths_in(&place.directory) {
        // What a user's own directory has, the user may spoil.
        Err(_) if place.user.is_some() => vec![],
        entries => entries?,
    };
    Ok(entries.iter().filter_map(|entry| entry.file_name()?.to_str()?.parse().ok()).collect())
}

/// Returns the container of that id, of the system's or the caller's.
pub fn of_id(states: &Path, id: &RuntimeId) -> io::Result<Option<Noted>> {
    first(places(states)?.iter().filter(|place| place.user.is_none()), id)
}

fn first<'a>(places: impl IntoIterator<Item = &'a Place>, id: &RuntimeId) -> io::Result<Option<Noted>> {
    places.into_iter().find_map(|place| noted(place, id).transpose()).transpose()
}

/// Returns the container of that id, of that name, or the only one whose id begins so. Another user's containers are found
/// by the user's name or number in front, `alice/web`, and by no other name: what users note leads nobody else by surprise.
pub fn find(states: &Path, text: &str) -> io::Result<Option<Noted>> {
    let found = find_of(states, text, None)?;
    let of_user = || text.split_once('/').and_then(|(user, text)| Some((name::user(user)?, text)));
    match (found, of_user) {
        (None, of_user) => of_user().map_or(Ok(None), |(user, text)| find_of(states, text, Some(user))),
        (found, _) => Ok(found),
    }
}

fn find_of(states: &Path, text: &str, user: Option<u32>) -> io::Result<Option<Noted>> {
    let places: Vec<Place> = places(states)?.into_iter().filter(|place| place.user == user).collect();
    let named = || Names::default().id(text, user)?.parse().ok();
    for id in text.parse().ok().into_iter().chain(std::iter::once_with(named).flatten()) {
        if let Some(noted) = first(&places, &id)? {
            return Ok(Some(noted));
        }
    }
    let mut begun = vec![];
    for place in places.iter().filter(|_| text.len() >= 4) {
        for id in ids(place)?.iter().filter(|id| id.starts_with(text)) {
            begun.extend(noted(place, id)?);
        }
    }
    Ok(begun.pop().filter(|_| begun.is_empty()))
}

fn places(states: &Path) -> io::Result<Vec<Place>> {
    let roots = |directory: PathBuf, file| Place { directory, file, user: None };
    // Beside them are those of the other runtimes that `run` was asked for.
    let own: Vec<Place> = std::iter::once(states.to_owned())
        .chain(file::paths_in(&states.with_file_name("runtimes"))?)
        .flat_map(|directory| [RUNC, CRUN].map(|file| roots(directory.clone(), file)))
        .collect();
    let others = OTHERS.iter().map(|(directory, file)| roots(PathBuf::from(directory), file));
    let spaces = file::paths_in(Path::new(CONTAINERD))?.into_iter().map(|space| roots(space, RUNC));
    let users = file::paths_in(Path::new(USERS))?.into_iter();
    let users = users.filter_map(|user| Some((user.symlink_metadata().ok()?.uid(), user)));
    let users = users.flat_map(|(uid, directory)| {
        let user = (uid != file::caller()).then_some(uid);
        USERS_OWN.map(|(name, file)| Place { directory: directory.join(name), file, user })
    });
    // Users come last: what another's container is called is not theirs to say.
    Ok(own.into_iter().chain(others).chain(spaces).chain(users).collect())
}

fn noted(place: &Place, id: &RuntimeId) -> io::Result<Option<Noted>> {
    let text = file::read(&state_in(&place.directory, id).join(place.file), place.user)?;
    Ok(text.and_then(|text| parse(place.user, id, &text)))
}

fn parse(user: Option<u32>, id: &RuntimeId, text: &[u8]) -> Option<Noted> {
    let state: Value = serde_json::from_slice(text).ok()?;
    let pid = process(&state).alive()?.as_raw_pid();
    if user.is_some_and(|user| maker(pid) != Some(user)) {
        return None;
    }
    let bundle = bundle(&state);
    let owner = state.get("annotations").and_then(|all| all.get(OWNER)?.as_str()).or_else(|| label(&state, OWNER));
    // An ordinary user's word counts for what is the user's.
    let owner = owner.filter(|_| user.is_none()).and_then(|owner| owner.parse().ok());
    Some(Noted { id: id.clone(), pid, bundle, user, owner })
}

/// Reads the process that is noted: by `spawn` and runc under the first names, by crun under the second.
pub(crate) fn process(state: &Value) -> NotedProcess {
    let number = |names: [&str; 2]| names.iter().find_map(|name| state.get(*name)?.as_i64());
    let pid = number(["init_process_pid", "pid"]).and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    let birth = number(["init_process_start", "process-start-time"]).and_then(|birth| u64::try_from(birth).ok());
    // Not every runtime notes it.
    NotedProcess { pid, birth: birth.filter(|birth| *birth > 0) }
}

/// Reads the bundle, which runc notes among its labels.
pub(crate) fn bundle(state: &Value) -> Option<PathBuf> {
    let path = state.get("bundle").and_then(Value::as_str).or_else(|| label(state, "bundle"));
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads what runc notes among its labels.
fn label<'a>(state: &'a Value, name: &str) -> Option<&'a str> {
    let mut labels = state.pointer("/config/labels")?.as_array()?.iter();
    labels.find_map(|label| label.as_str()?.strip_prefix(name)?.strip_prefix('='))
}

/// Who made the user namespace of a process.
fn maker(pid: i32) -> Option<u32> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).ok()?;
    sys::namespace::owner_uid(namespace.as_fd()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_process_that_is_gone_is_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = crate::birth(own).unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (id, start) in [("live-one", start), ("stale-one", start + 1)] {
            fs::create_dir_all(directory.path().join(id)).unwrap();
            let state = format!(r#"{{"init_process_pid":{own},"init_process_start":{start},"bundle":"/b"}}"#);
            fs::write(directory.path().join(id).join("state.json"), state).unwrap();
        }
        for (id, want) in [
            ("live-one", Some(own)),
            ("live", Some(own)),
            ("stale-one", None),
            ("li", None),
            ("../x", None),
            ("", None),
        ] {
            let found = find(directory.path(), id).unwrap();
            assert_eq!(found.as_ref().map(|noted| noted.pid), want, "{id}");
            assert!(found.is_none_or(|noted| noted.bundle == Some("/b".into())));
        }
    }
}
