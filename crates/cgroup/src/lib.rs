//! The container's cgroups: cgroup v1, v2, or both side by side as on hybrid systems (cgroups(7)).
//!
//! A process that is to be limited from its first instruction joins by itself: writing `0` to a v1 hierarchy's `tasks`
//! moves the writer alone and takes no lock of the whole system, which a foreign pid in `cgroup.procs` does; into the
//! unified hierarchy the child is born.
//!
//! The life of a container's [`Cgroups`]: [`locate`](Cgroups::locate) only computes where they will be;
//! `create_unified` and `create_v1` make them; [`apply`](Cgroups::apply) sets the limits while nobody is inside; the
//! process joins; and [`destroy`](Cgroups::destroy) kills what is left and removes them. Between two commands they
//! are kept as [`paths`](Cgroups::paths).

#![forbid(unsafe_code)]

mod apply;
mod device;
mod limits;
mod oom;
mod resources;
mod stats;
pub mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use root::clean;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

pub use device::default_rules;
pub use oom::Killer;
pub use resources::*;

const MOUNT: &str = "/sys/fs/cgroup";
/// Of linux/magic.h: how statfs(2) tells a v1 hierarchy, the unified one, and a plain directory in their place apart.
const CGROUP_MAGIC: i64 = 0x27_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The directories of one container, one for each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// v1 hierarchies by their controllers (`cpu,cpuacct`) or name (`systemd`).
    pub v1: BTreeMap<String, PathBuf>,
    /// The cgroup2 directory.
    pub unified: Option<PathBuf>,
    /// Those of them that were not there before.
    ///
    /// What was there belongs to somebody else, and stays on failure.
    made: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the directories for `linux.cgroupsPath`: an absolute path counts from each hierarchy's root, a relative
    /// one from the caller's own cgroup, and none means one named like the container. Never leaves the hierarchy.
    ///
    /// What is found is not necessarily there yet: nothing is made.
    pub fn locate(cgroups_path: &str, id: &str) -> Result<Self> {
        let wanted = if cgroups_path.is_empty() { id } else { cgroups_path };
        // `..` is resolved as if the path began at the hierarchy's root: `/../../x` made a directory on the host's
        // root for youki.
        let (absolute, path) = (wanted.starts_with('/'), clean(wanted));
        ensure!(!path.as_os_str().is_empty(), "cgroupsPath {wanted:?} names no cgroup");
        let own = sys::file::read_once("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let unified_only = is_unified();
        let mut found = Self::default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
            // A hierarchy that is not mounted, or in another place than is usual, is left out.
            let Some(base) = hierarchy(controllers, unified_only) else { continue };
            let own = clean(own);
            // On v2 the caller's own cgroup has processes, so it can have no child with controllers: its parent may.
            let own = if unified_only { own.parent().unwrap_or(Path::new("")) } else { &own };
            // A hierarchy that is mounted from below its root shows the own cgroup elsewhere.
            let from_own = !absolute && (own.as_os_str().is_empty() || base.join(own).is_dir());
            let directory = if from_own { base.join(own).join(&path) } else { base.join(&path) };
            if controllers.is_empty() {
                found.unified = Some(directory);
            } else {
                found.v1.insert(controllers.trim_start_matches("name=").to_owned(), directory);
            }
        }
        Ok(found)
    }

    /// Finds the cgroup2 directory that a process is in, which may be below its container's.
    ///
    /// As `/proc/PID/cgroup` names it; the path counts from the caller's cgroup namespace, which must be the host's.
    pub fn unified_of(pid: i32) -> Option<PathBuf> {
        let own = sys::file::read(format!("/proc/{pid}/cgroup")).ok()?;
        let place = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(hierarchy("", is_unified())?.join(clean(place)))
    }

    /// Restores what [`Self::paths`] gave.
    pub fn from_paths(paths: &BTreeMap<String, PathBuf>) -> Self {
        let mut v1 = paths.clone();
        let unified = v1.remove("");
        Self { v1, unified, made: Vec::new() }
    }

    /// Gives the directories by controller; the unified one has the empty name, as in runc's state files.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = self.v1.clone();
        paths.extend(self.unified.iter().map(|directory| (String::new(), directory.clone())));
        paths
    }

    /// Returns the v1 directory that has the controller.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let has = |(controllers, _): &(&String, &PathBuf)| controllers.split(',').any(|one| one == name);
        self.v1.iter().find(has).map(|(_, directory)| directory.as_path())
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1.values().chain(&self.unified).map(PathBuf::as_path)
    }

    /// Makes the unified directory, in which the container's process is born. It must be unused if it exists; without
    /// privilege it is left out if it is not delegated. `ours` is one in which only what we have put there lives.
    ///
    /// # Errors
    /// Where processes live in it already, or it is frozen: a container that begins in there would never run.
    pub fn create_unified(&mut self, rootless: bool, ours: bool) -> Result<()> {
        let Some(directory) = self.unified.clone() else { return Ok(()) };
        match self.make(&directory, "", rootless, ours)? {
            None => self.unified = None,
            // With v1 hierarchies the freezer is one of those, which are looked at when they are made.
            Some(existed) if existed && self.v1.is_empty() => self.check_thawed()?,
            Some(_) => {}
        }
        Ok(())
    }

    /// Makes the v1 directories, as [`Self::create_unified`] does the other.
    pub fn create_v1(&mut self, rootless: bool, ours: bool) -> Result<()> {
        let mut existed = false;
        for (controllers, directory) in self.v1.clone() {
            match self.make(&directory, &controllers, rootless, ours)? {
                None => drop(self.v1.remove(&controllers)),
                Some(there) => existed |= there,
            }
        }
        if existed { self.check_thawed() } else { Ok(()) }
    }

    /// Makes a directory, or tells that one that may be another's was there; `None` if it is denied.
    fn make(&mut self, directory: &Path, controllers: &str, rootless: bool, ours: bool) -> Result<Option<bool>> {
        match create(directory, controllers) {
            Ok(true) => self.made.push(directory.to_owned()),
            Ok(_) if ours => {}
            Ok(_) => return check_unused(directory).map(|()| Some(true)),
            Err(error) if rootless && is_denied(&error) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("make cgroup {}", directory.display())),
        }
        Ok(Some(false))
    }

    /// Leaves out the v1 directories that another process could not make.
    pub fn keep_existing(&mut self) {
        self.v1.retain(|_, directory| directory.is_dir());
    }

    fn check_thawed(&self) -> Result<()> {
        ensure!(!self.is_frozen().context("look at the freezer")?, "container's cgroup unexpectedly frozen");
        Ok(())
    }

    /// Opens the unified cgroup, for `CLONE_INTO_CGROUP`. One that cannot be opened is left out if `lenient`.
    ///
    /// It holds the directory: whatever becomes of the path, the child is born in the cgroup that was made.
    pub fn open_unified(&self, lenient: bool) -> Result<Option<OwnedFd>> {
        let Some(directory) = &self.unified else { return Ok(None) };
        match rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(_) if lenient => Ok(None),
            opened => opened.map(Some).with_context(|| format!("open cgroup {}", directory.display())),
        }
    }

    /// Moves the calling process, which must have one thread, into the v1 cgroups, while the host's are in sight. Those
    /// that cannot be opened are left out if `lenient`.
    ///
    /// `tasks` takes a thread's id, and `0` is the writer (cgroup-v1/cgroups.rst). The kernel moves a thread that
    /// moves itself without `cgroup_threadgroup_rwsem`, whose writers wait for an RCU grace period: milliseconds,
    /// where this takes microseconds.
    pub fn join(&self, lenient: bool) -> Result<()> {
        for directory in self.v1.values() {
            let context =
                || format!("adding pid {} to {}", rustix::process::getpid().as_raw_pid(), directory.display());
            let tasks = match rustix::fs::open(directory.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            {
                Err(_) if lenient => continue,
                tasks => tasks.with_context(context)?,
            };
            rustix::io::write(&tasks, b"0").with_context(context)?;
            sys::file::leave_open(tasks);
        }
        Ok(())
    }

    /// Moves a process into all of them.
    ///
    /// That is for processes of others: it writes `cgroup.procs`, and pays for that lock.
    pub fn put(&self, pid: Pid) -> Result<()> {
        let pid = pid.as_raw_pid();
        self.directories().try_for_each(|directory| {
            write(&directory.join("cgroup.procs"), &pid.to_string())
                .with_context(|| format!("adding pid {pid} to {}", directory.display()))
        })
    }

    /// Gives each hierarchy, by the name that the kernel's lists have, and the path below its root.
    pub fn below_roots(&self) -> Vec<(String, String)> {
        let named = |name: &String| if name == "systemd" { "name=systemd".to_owned() } else { name.clone() };
        let below = |directory: &Path, base: PathBuf| {
            format!("/{}", directory.strip_prefix(base).unwrap_or(directory).display())
        };
        let v1 = self.v1.iter().map(|(name, path)| (named(name), below(path, Path::new(MOUNT).join(name))));
        let base = if self.is_unified() { PathBuf::from(MOUNT) } else { Path::new(MOUNT).join("unified") };
        let unified = self.unified.iter().map(|path| (String::new(), below(path, base.clone())));
        v1.chain(unified).collect()
    }

    /// Lists the processes, with those of cgroups that the container has made below its own.
    pub fn processes(&self) -> io::Result<Vec<Pid>> {
        // One that could not be born into the unified cgroup is in the others alone.
        let v1 = ["pids", "freezer", "devices", "memory"].iter().find_map(|name| self.controller(name));
        let v1 = v1.or_else(|| self.v1.values().next().map(PathBuf::as_path));
        let mut pids = BTreeSet::new();
        for top in v1.into_iter().chain(self.unified.as_deref()) {
            for directory in tree(top)? {
                // A cgroup of threads does not tell its processes.
                let list = |file| sys::file::read(directory.join(file));
                let text = list("cgroup.procs").or_else(|_| list("cgroup.threads"));
                let text = sys::file::known(text)?.unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse().ok().filter(|pid: &i32| *pid > 0)));
            }
        }
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// Sends a signal to every process.
    ///
    /// A process that forks meanwhile may be missed; who must have all of them dead repeats it until the directory
    /// can be removed, as [`Self::destroy`] does.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let kill = self.unified.as_deref().filter(|_| signal == libc::SIGKILL);
        // Kernels before 5.14 have no such file, and threads cannot be killed so: what is left is killed one by one.
        let _left = kill.map(|directory| write(&directory.join("cgroup.kill"), "1"));
        for pid in self.processes().context("list the container's processes")? {
            let sent = sys::unless(&[Errno::SRCH], sys::signal::send_to(pid, signal));
            sent.with_context(|| format!("signal process {}", pid.as_raw_pid()))?;
        }
        if signal == libc::SIGKILL { self.thaw_for_death() } else { Ok(()) }
    }

    /// A frozen v1 cgroup would keep even SIGKILL waiting.
    ///
    /// v2 kills frozen processes at once (cgroup-v2.rst, "cgroup.freeze").
    pub fn thaw_for_death(&self) -> Result<()> {
        let v1 = self.freezer().is_some_and(|(_, v1)| v1);
        if v1 && self.is_frozen().unwrap_or(true) { self.freeze(false) } else { Ok(()) }
    }

    /// Tells whether the container is paused.
    pub fn is_frozen(&self) -> io::Result<bool> {
        let Some((directory, v1)) = self.freezer() else { return Ok(false) };
        let path = directory.join(if v1 { "freezer.state" } else { "cgroup.freeze" });
        let state = sys::file::known(sys::file::read(path))?;
        Ok(state.is_some_and(|state| if v1 { state.trim_end() != "THAWED" } else { state.trim_end() == "1" }))
    }

    /// Stops or continues all processes at once.
    ///
    /// # Errors
    /// Where no freezer is there, or processes do not stop within two seconds: one in uninterruptible sleep, say.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let Some((directory, v1)) = self.freezer() else { bail!("no freezer cgroup") };
        let (file, words) = if v1 { ("freezer.state", ["THAWED", "FROZEN"]) } else { ("cgroup.freeze", ["0", "1"]) };
        let (path, value) = (directory.join(file), words[usize::from(frozen)]);
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            write(&path, value).with_context(|| format!("write {value} to {}", path.display()))?;
            // v1 has to be asked, and sometimes told, again: it stays FREEZING while a process forks. v2 says in
            // cgroup.events when all have stopped.
            let reached = if v1 {
                sys::file::read(&path).is_ok_and(|state| state.trim_end() == value)
            } else {
                let events = sys::file::read(directory.join("cgroup.events")).unwrap_or_default();
                events.lines().any(|line| line.strip_prefix("frozen ") == Some(value))
            };
            if reached {
                return Ok(());
            }
            if Instant::now() >= deadline {
                // A v1 freezer may hang between two states for ever; nobody is served by half a pause.
                let _thawed = write(&path, words[0]);
                bail!("unable to {}: processes do not stop", if frozen { "freeze" } else { "thaw" });
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn freezer(&self) -> Option<(&Path, bool)> {
        let v1 = self.controller("freezer").map(|directory| (directory, true));
        v1.or_else(|| self.unified.as_deref().map(|directory| (directory, false)))
    }

    /// Removes the directories that [`Self::create_unified`] and [`Self::create_v1`] have made.
    pub fn remove_made(&self) {
        for directory in &self.made {
            // Whoever uses it by now keeps it.
            let _in_use = fs::remove_dir(directory);
        }
    }

    /// Removes the directories in which nothing is, or soon will be: others may live in them.
    pub fn remove_unused(&self) {
        let deadline = Instant::now() + Duration::from_secs(3);
        let busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
        for directory in self.directories() {
            // A process that was just killed needs a moment.
            while fs::remove_dir(directory).is_err_and(|error| busy(&error)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    }

    /// Kills what is left and removes the directories.
    ///
    /// # Errors
    /// Where a cgroup is still in use after ten seconds: by a process that even SIGKILL does not end.
    pub fn destroy(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for directory in self.directories() {
            while let Err(error) = remove(directory) {
                let busy = error.raw_os_error() == Some(libc::EBUSY);
                ensure!(busy && Instant::now() < deadline, "remove cgroup {}: {error}", directory.display());
                // rmdir(2) gives EBUSY while a process is inside or not yet reaped; so the attempt itself tells when
                // all is over, and what was forked between two looks is killed at the next.
                self.signal(libc::SIGKILL)?;
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        Ok(())
    }
}

/// Tells whether cgroup v2 is all there is.
///
/// A hybrid system has v1 hierarchies in /sys/fs/cgroup and cgroup2 in `unified` beside them; there the answer is no.
pub fn is_unified() -> bool {
    file_system(Path::new(MOUNT)) == Some(CGROUP2_MAGIC)
}

fn hierarchy(controllers: &str, unified_only: bool) -> Option<PathBuf> {
    if controllers.is_empty() {
        let base = if unified_only { PathBuf::from(MOUNT) } else { Path::new(MOUNT).join("unified") };
        return (file_system(&base) == Some(CGROUP2_MAGIC)).then_some(base);
    }
    let base = Path::new(MOUNT).join(controllers.trim_start_matches("name="));
    (file_system(&base) == Some(CGROUP_MAGIC)).then_some(base)
}

fn file_system(path: &Path) -> Option<i64> {
    rustix::fs::statfs(path).ok().map(|found| found.f_type)
}

/// Makes a cgroup and those above it; false if it exists.
fn create(directory: &Path, controllers: &str) -> io::Result<bool> {
    let cpuset = controllers.split(',').any(|controller| controller == "cpuset");
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Its maker may have been killed before it was whole, and then nobody can join it.
            if cpuset && sys::file::read(directory.join("cpuset.mems"))?.trim_end().is_empty() {
                inherit_cpuset(directory)?;
            }
            return Ok(false);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = directory.parent() else { return Err(error) };
            create(parent, controllers)?;
            fs::create_dir(directory)?;
        }
        other => other?,
    }
    if cpuset {
        inherit_cpuset(directory).inspect_err(|_| {
            // It is of no use; the error that is returned says more than another one.
            let _removed = fs::remove_dir(directory);
        })?;
    }
    // Below a cgroup of threads there can only be others; right below the root there is none of them.
    let roots = [Path::new(MOUNT), &Path::new(MOUNT).join("unified")];
    // cgroups(7), "Creating a threaded subtree": below a threaded cgroup a new one is "domain invalid", and clone3
    // into it fails with EOPNOTSUPP, until it is made threaded too.
    let nested = controllers.is_empty() && !directory.parent().is_some_and(|parent| roots.contains(&parent));
    let kind = directory.join("cgroup.type");
    if nested && sys::file::read(&kind).is_ok_and(|kind| kind == "domain invalid\n") {
        write(&kind, "threaded")?;
    }
    Ok(true)
}

/// Refuses a cgroup that others live in: limits and kills would reach the wrong processes.
fn check_unused(directory: &Path) -> Result<()> {
    let count = sys::file::read(directory.join("cgroup.procs")).unwrap_or_default().lines().count();
    ensure!(count == 0, "container's cgroup is not empty: {count} process(es) found in {}", directory.display());
    Ok(())
}

/// A new v1 cpuset has no processor and no memory, and nobody can join it.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = sys::file::read_once(parent.join(file))?;
        if value.trim_end().is_empty() {
            // Whoever made that one has left it so.
            inherit_cpuset(parent)?;
            value = sys::file::read(parent.join(file))?;
        }
        let mut own = File::options().write(true).open(directory.join(file))?;
        own.write_all(value.trim_end().as_bytes())?;
        sys::file::leave_open(own);
    }
    Ok(())
}

/// Removes a cgroup and those below it, the deepest first.
///
/// A container with a cgroup namespace may have made some below its own.
fn remove(directory: &Path) -> io::Result<()> {
    match sys::file::there(fs::remove_dir(directory)) {
        Err(_) => tree(directory)?.into_iter().rev().try_for_each(fs::remove_dir),
        Ok(_) => Ok(()),
    }
}

/// Lists a cgroup and all below it, each before those below it.
fn tree(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while next < found.len() {
        for entry in sys::file::entries(&found[next])? {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
        next += 1;
    }
    Ok(found)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_hierarchy() {
        for (path, want) in
            [("/a/b", "a/b"), ("../../a", "a"), ("/../../../../wh-esc", "wh-esc"), ("a/./b/../c//", "a/c"), ("/..", "")]
        {
            assert_eq!(clean(path), Path::new(want), "{path}");
        }
    }

    #[test]
    fn paths_are_kept_in_the_state() {
        let cgroups = Cgroups {
            v1: BTreeMap::from([("cpu,cpuacct".into(), "/a".into())]),
            unified: Some("/u".into()),
            made: Vec::new(),
        };
        assert_eq!(Cgroups::from_paths(&cgroups.paths()), cgroups);
        assert_eq!(cgroups.controller("cpuacct"), Some(Path::new("/a")));
        assert_eq!(cgroups.controller("cpu,"), None);
    }
}
