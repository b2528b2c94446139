//! The containers that are known on this machine, whoever runs them: runtimes note their processes in one directory a
//! container, engines the names that people give. All of it is read as it is found, and what cannot be read is not there.

#![forbid(unsafe_code)]

mod file;
mod name;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use name::Names;

/// A container as its runtime has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its id.
    pub id: String,
    /// Its first process, which may be gone.
    pub pid: i32,
    /// Its bundle, where that is noted too.
    pub bundle: Option<PathBuf>,
    /// The ordinary user who has noted it, where that is not the caller.
    pub user: Option<u32>,
}

/// Where a runtime notes its containers: its directory, the file in a container's own, the member with the pid.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    note: Note,
    /// Whose it is, where it is another user's: only processes of that user's are believed to be containers.
    user: Option<u32>,
}

/// A file's name and the name of the member with the pid.
type Note = (&'static str, &'static str);

const RUNC: Note = ("state.json", "init_process_pid");
const CRUN: Note = ("status", "pid");

/// Runtimes' directories, and what is in there.
const OTHERS: [(&str, Note); 3] = [("/run/runc", RUNC), ("/run/crun", CRUN), ("/run/docker/runtime-runc/moby", RUNC)];

/// Below it each user has a directory, and in that the runtimes that the user starts have theirs.
const USERS: &str = "/run/user";
const USERS_OWN: [(&str, Note); 3] = [("runc", RUNC), ("crun", CRUN), ("drayage/spawn", RUNC)];

/// Below it each namespace of containerd's has runc's directory.
const CONTAINERD: &str = "/run/containerd/runc";

/// Returns all that are noted; ours are in `states`.
pub fn all(states: &Path) -> Vec<Noted> {
    let mut found = vec![];
    for place in places(states) {
        found.extend(ids(&place).filter_map(|id| noted(&place, &id)));
    }
    found
}

fn ids(place: &Place) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(&place.directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Returns the container of that id, of that name, or the only one whose id begins so. Another user's containers are found
/// by the user's name or number in front, `alice/web`, and by no other name: what users note leads nobody else by surprise.
pub fn find(states: &Path, text: &str) -> Option<Noted> {
    find_of(states, text, None).or_else(|| {
        let (user, text) = text.split_once('/')?;
        find_of(states, text, Some(name::user(user)?))
    })
}

fn find_of(states: &Path, text: &str, user: Option<u32>) -> Option<Noted> {
    // An id is one name: with a slash in it, it would lead anywhere.
    let is_id = |text: &str| !text.is_empty() && !text.contains('/') && !text.starts_with('.');
    let places: Vec<Place> = places(states).into_iter().filter(|place| place.user == user).collect();
    let exact = |id: &str| places.iter().find_map(|place| noted(place, id).filter(|_| is_id(id)));
    if let Some(noted) = exact(text).or_else(|| exact(&Names::default().id(text, user)?)) {
        return Some(noted);
    }
    let begins = |id: &String| is_id(text) && text.len() >= 4 && id.starts_with(text);
    let mut begun = places.iter().flat_map(|place| ids(place).filter(begins).filter_map(|id| noted(place, &id)));
    begun.next().filter(|_| begun.next().is_none())
}

fn places(states: &Path) -> Vec<Place> {
    let roots = |directory: PathBuf, note| Place { directory, note, user: None };
    let below = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let own = [roots(states.to_owned(), RUNC)];
    let others = OTHERS.iter().map(|(directory, note)| roots(PathBuf::from(directory), *note));
    let spaces = below(CONTAINERD).map(|space| roots(space.path(), RUNC));
    let users = below(USERS).filter_map(|user| Some((user.path(), user.metadata().ok()?.uid())));
    let users = users.flat_map(|(directory, uid)| {
        let user = (uid != file::caller()).then_some(uid);
        USERS_OWN.map(|(name, note)| Place { directory: directory.join(name), note, user })
    });
    // Users come last: what another's container is called is not theirs to say.
    own.into_iter().chain(others).chain(spaces).chain(users).collect()
}

fn noted(place: &Place, id: &str) -> Option<Noted> {
    let Place { directory, note: (file, member), user } = place;
    let state: Value = serde_json::from_slice(&file::read(&directory.join(id).join(file), *user)?).ok()?;
    let pid = state.get(member)?.as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    if state.get("init_process_start").and_then(Value::as_u64).is_some_and(|start| started(pid) != Some(start)) {
        return None;
    }
    if user.is_some_and(|user| maker(pid) != Some(user)) {
        return None;
    }
    let bundle = state.get("bundle").and_then(Value::as_str).map(PathBuf::from);
    Some(Noted { id: id.to_owned(), pid, bundle, user: *user })
}

/// Who made the user namespace of a process.
fn maker(pid: i32) -> Option<u32> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user")).ok()?;
    sys::namespace::owner_uid(namespace.as_fd()).ok()
}

/// When a process started, in clock ticks since boot: tells it from an earlier one of the same number (`proc_pid_stat(5)`,
/// field 22).
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    String::from_utf8_lossy(&stat).rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_process_that_is_gone_is_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = started(own).unwrap();
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
            let found = find(directory.path(), id);
            assert_eq!(found.as_ref().map(|noted| noted.pid), want, "{id}");
            assert!(found.is_none_or(|noted| noted.bundle == Some("/b".into())));
        }
    }
}
