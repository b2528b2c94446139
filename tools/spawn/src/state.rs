//! What is known of a container between two commands: `<root>/<id>/`, with `state.json`, a copy of the `config.json`
//! that it was made from, and, until it is started, the socket `start` on which its process waits. The directory
//! itself is the container's lock. Files are replaced whole, so that a crash leaves the old or the new one.
//!
//! Every command that changes a container takes the lock (`open_locked`); those that only look do not, and may see
//! the moment before or after. flock(2) locks end with their open file, so a killed `spawn` leaves none.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cgroup::{Cgroups, systemd};
use container::{Owner, RuntimeId, State, state_in};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::Pid;

use crate::config::Config;
use crate::file::leave_open;
use crate::rootfs;

/// A container's status (runtime-spec, runtime.md, "State"), and `paused`, which peers add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A container's directory, open.
#[derive(Debug)]
pub(crate) struct Container {
    pub directory: PathBuf,
    /// The open directory. It is the lock, and every file is opened relative to it: the path may meanwhile be
    /// another's.
    handle: OwnedFd,
    pub state: State,
}

impl Container {
    /// Makes the directory of a new container and locks it. What a killed `spawn` left under this id is cleared first.
    pub(crate) fn create(root: &Path, id: &RuntimeId) -> anyhow::Result<Self> {
        let directory = state_in(root, id);
        let private = |path: &Path, above| DirBuilder::new().mode(0o700).recursive(above).create(path);
        let mut made = private(&directory, false);
        if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            private(root, true).with_context(|| format!("make {}", root.display()))?;
            made = private(&directory, false);
        }
        let taken = || format!("container with given ID already exists: {id}");
        let fresh = made.is_ok();
        // Whoever has just made the directory may wait for its lock, since only another `create` of this id can have
        // it for long. An existing one that is locked is being made or changed: taken.
        let operation = match made {
            Ok(()) => FlockOperation::LockExclusive,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => FlockOperation::NonBlockingLockExclusive,
            Err(error) => return Err(error).with_context(|| format!("make {}", directory.display())),
        };
        let handle = open(&directory)?;
        // Between mkdir and this another creator may have locked it. Then it is that one's container, and what is
        // read below says so.
        rustix::io::retry_on_intr(|| rustix::fs::flock(&handle, operation)).ok().with_context(taken)?;
        // Only what is read under the lock counts: another creator may have found the directory before it was locked.
        let found = Self { state: read(root, id)?, directory, handle };
        ensure!(found.is_remains(), taken());
        // Without a state there are no cgroups, and a configuration is written anew.
        if !fresh || !found.state.created.is_empty() {
            found.clear_remains()?;
        }
        Ok(Self { state: State::new(id.clone()), ..found })
    }

    /// Tells whether this is only what a killed creator left: a directory without a process that it knows of, or one
    /// whose container was to end with its `spawn`. The caller has it locked.
    fn is_remains(&self) -> bool {
        let unfinished = self.state.init_process_pid == 0 || self.state.foreground;
        unfinished && self.exists() && self.process().is_none()
    }

    /// Tells whether it is this owner's. What was never finished is nobody's yet.
    pub(crate) fn is_of(&self, owner: Owner) -> bool {
        self.state.owned_by().map_or(self.state.init_process_pid == 0, |own| own == owner)
    }

    /// Tells whether the directory is still there; another one may have its name.
    fn exists(&self) -> bool {
        rustix::fs::fstat(&self.handle).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Kills what is left in the cgroups and removes them, and the mounts that the host has. Before it has its configuration,
    /// a container that was never finished knows only which cgroups it was going to have: others may live in those.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        let _span = trace::span("remove the cgroups", "");
        let config = self.directory.join("config.json");
        if self.state.init_process_pid != 0 || config.try_exists().unwrap_or(true) {
            // `config.json` is written when all cgroups were made by us, so whatever is in them is the container's.
            self.cgroups().destroy()?;
        } else {
            self.cgroups().remove_unused();
        }
        // It is empty now, so that systemd ends it in any case.
        self.state.systemd_scope.as_deref().map(systemd::stop).into_iter().for_each(cli::warn);
        self.unmount_root();
        Ok(())
    }

    /// Takes the rootfs from the host's sight, with all that was mounted in it. Somebody else's mount there stays.
    fn unmount_root(&self) {
        let (root, ours) = (&self.state.rootfs, self.state.root_mount);
        if ours.is_some() && rootfs::mount_id(rustix::fs::CWD, root) == ours {
            let unmounted = rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH);
            cli::warn(unmounted.with_context(|| format!("unmount {}", root.display())));
        }
    }

    /// Empties the directory, which stays for its next owner.
    fn clear_remains(&self) -> anyhow::Result<()> {
        self.release()?;
        for entry in fs::read_dir(&self.directory)?.flatten() {
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
        Ok(())
    }

    /// Opens a container that exists.
    pub(crate) fn open(root: &Path, id: &RuntimeId) -> anyhow::Result<Self> {
        let mut directory = state_in(root, id);
        let mut opened = open(&directory);
        let full = opened.is_err().then(|| container::in_full([root.to_owned()], id)).transpose()?.flatten();
        let id = full.as_ref().unwrap_or(id);
        if full.is_some() {
            directory = state_in(root, id);
            opened = open(&directory);
        }
        let handle = sys::file::there(opened)
            .with_context(|| format!("open {}", directory.display()))?
            .with_context(|| format!("container does not exist: container \"{id}\" does not exist"))?;
        let state = read(root, id)?;
        Ok(Self { directory, handle, state })
    }

    /// Gives a container whose state is damaged another one, for its removal: it is what lives in its cgroups, which were
    /// nobody else's when it was made.
    pub(crate) fn repair(root: &Path, id: &RuntimeId) -> anyhow::Result<()> {
        let directory = state_in(root, id);
        let handle = open(&directory).with_context(|| format!("open {}", directory.display()))?;
        let state = State { created: "unknown".to_owned(), ..State::new(id.clone()) };
        let mut container = Self { directory, handle, state };
        let place = container.config().map(|config| config.linux.cgroups_path).unwrap_or_default();
        // Another one counts from the cgroup of who made it.
        if place.starts_with('/') {
            container.state.cgroup_paths = Cgroups::locate(&place, id)?.paths();
        }
        // A directory in its place would stay. What else has the name is replaced.
        let _no_directory = fs::remove_dir_all(container.directory.join(State::FILE));
        container.save()
    }

    /// Opens a container and waits until no other command changes it.
    pub(crate) fn open_locked(root: &Path, id: &RuntimeId) -> anyhow::Result<Self> {
        let mut container = Self::open(root, id)?;
        container.lock()?;
        // What was read before the lock may be old.
        container.state = read(root, &container.state.id.clone())?;
        Ok(container)
    }

    /// Whoever waits says so: a hook that hangs may keep the lock for ever.
    fn lock(&self) -> anyhow::Result<()> {
        let patience = Instant::now() + Duration::from_secs(1);
        let mut operation = FlockOperation::NonBlockingLockExclusive;
        while let Err(error) = rustix::fs::flock(&self.handle, operation) {
            match error {
                Errno::WOULDBLOCK if Instant::now() < patience => std::thread::sleep(Duration::from_millis(2)),
                Errno::WOULDBLOCK => {
                    log::warn!("wait for another command that changes container {}", self.state.id);
                    operation = FlockOperation::LockExclusive;
                }
                Errno::INTR => {}
                _ => return Err(error).with_context(|| format!("lock {}", self.directory.display())),
            }
        }
        ensure!(self.exists(), "container does not exist: container \"{}\" does not exist", self.state.id);
        Ok(())
    }

    /// Lets others change the container.
    pub(crate) fn unlock(&self) {
        // The end of this process unlocks as well.
        let _later = rustix::fs::flock(&self.handle, FlockOperation::Unlock);
    }

    /// Closes the copy of the lock that the container's process has: it outlives a creator that is killed, and nobody
    /// else could ever lock the container.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.handle = open(Path::new("/"))?;
        Ok(())
    }

    /// Writes `state.json`.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        self.write(State::FILE, &self.state.text()?)
    }

    /// Writes `state.json` before anybody knows of the container. Whoever reads it too soon finds nothing, as before.
    pub(crate) fn save_first(&self) -> anyhow::Result<()> {
        self.write_first(State::FILE, &self.state.text()?)
    }

    /// Writes one of the container's files.
    pub(crate) fn write(&self, name: &str, text: &[u8]) -> anyhow::Result<()> {
        // No fsync: all of it is below /run, which no power cut outlives.
        let temporary = format!(".{name}");
        self.write_first(&temporary, text)?;
        rustix::fs::renameat(&self.handle, &temporary, &self.handle, name)
            .with_context(|| format!("write {}/{name}", self.directory.display()))
    }

    /// Writes a file that nobody reads before the container is there, in place: half of it is found by nobody,
    /// because the state names no process yet.
    pub(crate) fn write_first(&self, name: &str, text: &[u8]) -> anyhow::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let mut file = File::from(rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(0o600))?);
            io::Write::write_all(&mut file, text)?;
            leave_open(file);
            Ok(())
        };
        write().with_context(|| format!("write {}/{name}", self.directory.display()))
    }

    /// Reads the configuration that the container was made from.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let path = self.directory.join("config.json");
        let text = sys::file::read_regular(&path).with_context(|| format!("read {}", path.display()))?;
        Config::parse(&text).with_context(|| path.display().to_string())
    }

    /// Returns the container's cgroups.
    pub(crate) fn cgroups(&self) -> Cgroups {
        Cgroups::from_paths(&self.state.cgroup_paths)
    }

    /// Returns the process, if it still runs.
    pub(crate) fn process(&self) -> Option<Pid> {
        self.state.process().alive()
    }

    /// Opens the process, if it still runs. It is this one's descriptor, whoever gets its number next.
    pub(crate) fn open_process(&self) -> anyhow::Result<Option<(Pid, OwnedFd)>> {
        self.state.process().open().with_context(|| format!("open process {}", self.state.init_process_pid))
    }

    /// Tells how the container is.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        if self.process().is_none() {
            let creator = rustix::fs::flock(&self.handle, FlockOperation::NonBlockingLockShared);
            // A shared lock that is had at once shows that the creator is dead; it is given back with the handle.
            let creating = self.state.init_process_pid == 0 && creator == Err(Errno::WOULDBLOCK);
            return Ok(if creating { Status::Creating } else { Status::Stopped });
        }
        let look = || -> io::Result<Status> {
            // `start` removes this socket, and nothing else tells "created" from "running": the process itself looks
            // the same.
            if sys::file::known(self.directory.join("start").symlink_metadata())?.is_some() {
                return Ok(Status::Created);
            }
            Ok(if self.cgroups().is_frozen()? { Status::Paused } else { Status::Running })
        };
        look().with_context(|| format!("look at container {}", self.state.id))
    }

    /// Returns the State of the runtime-spec, as hooks, `state` and the record have it.
    pub(crate) fn report(&self, status: Status) -> record::State {
        let pid = if status == Status::Stopped { 0 } else { self.state.init_process_pid };
        record::State {
            oci_version: Some(crate::SPEC_VERSION.to_owned()),
            id: self.state.id.to_string(),
            status: Some(status.name()),
            pid: Some(pid),
            bundle: self.state.bundle.clone(),
            annotations: self.state.annotations.clone(),
        }
    }

    /// Removes the container's directory: the last step of `delete`.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        // By name and through the open directory, so that a directory made anew under this path is not emptied.
        for name in ["config.json", State::FILE] {
            // What else there is, and what cannot be removed, is found by the next call.
            let _absent = rustix::fs::unlinkat(&self.handle, name, rustix::fs::AtFlags::empty());
        }
        sys::file::there(fs::remove_dir(&self.directory).or_else(|_| fs::remove_dir_all(&self.directory)))
            .map(drop)
            .with_context(|| format!("remove {}", self.directory.display()))
    }

    /// Returns the address of a socket in the directory, whose own path may be longer than an address.
    pub(crate) fn socket_address(&self, name: &str) -> rustix::io::Result<SocketAddrUnix> {
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()))
    }
}

/// Lists the ids of all containers under `root`.
pub(crate) fn list(root: &Path) -> anyhow::Result<Vec<RuntimeId>> {
    let entries = sys::file::there(fs::read_dir(root)).with_context(|| format!("read {}", root.display()))?;
    let mut ids: Vec<RuntimeId> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort();
    Ok(ids)
}

/// Tells whether a process is stopped by a signal.
///
/// The name in parentheses may have any bytes, a parenthesis too, so the fields are counted from the last one:
/// `proc_pid_stat(5)`.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    let stat = crate::file::read(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
}

fn read(root: &Path, id: &RuntimeId) -> anyhow::Result<State> {
    let state = State::read(root, id).with_context(|| {
        let path = state_in(root, id).join(State::FILE);
        format!("read {} (`spawn delete --force {id}` removes a container whose state is damaged)", path.display())
    })?;
    Ok(state.unwrap_or_else(|| State::new(id.clone())))
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}
