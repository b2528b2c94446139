//! `ns enter`: what `nsenter(1)` does. Everything that the new namespaces would hide is opened before they are entered.

mod program;
mod target;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{PidfdGetfdFlags, chdir, chroot, fchdir, getgid, getuid, pidfd_getfd};
use rustix::thread::{Gid, ThreadNameSpaceType, Uid};
use sys::namespace::{self, Kind};

pub(crate) use program::EnterProgram;
pub(crate) use target::EnterTarget;

/// A file's own place in the target, or one that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EnterPlace {
    /// The target's.
    Target,
    /// This one.
    Path(PathBuf),
}

/// Who the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnterIdentity {
    /// This id.
    Is(u32),
    /// The target's.
    Follow,
}

/// What is entered, and how.
///
/// nsenter's options one by one; what contradicts itself was refused when they were read.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of nsenter")]
pub(crate) struct EnterRequest {
    pub(crate) target: Option<EnterTarget>,
    /// The target's namespaces of these types.
    pub(crate) kinds: Vec<Kind>,
    /// All that differ from ours.
    pub(crate) all: bool,
    /// Namespaces by their files.
    pub(crate) files: Vec<(Kind, PathBuf)>,
    /// The network namespace of that descriptor of the target, a socket.
    pub(crate) net_socket: Option<i32>,
    /// The parent of the target's user namespace.
    pub(crate) user_parent: bool,
    pub(crate) uid: Option<EnterIdentity>,
    pub(crate) gid: Option<EnterIdentity>,
    pub(crate) preserve_credentials: bool,
    pub(crate) keep_caps: bool,
    pub(crate) root: Option<EnterPlace>,
    pub(crate) directory: Option<EnterPlace>,
    /// The directory, looked up inside.
    pub(crate) inner_directory: Option<PathBuf>,
    pub(crate) environment: bool,
    pub(crate) no_fork: bool,
    pub(crate) join_cgroup: bool,
    pub(crate) follow_context: bool,
}

/// Enters and runs the program. Returns only if there is a child or an error.
pub(crate) fn enter(request: &EnterRequest, mut program: EnterProgram) -> Result<ExitCode> {
    let entry = Entry::open(request)?;
    if request.environment {
        program.environment = Some(environment(request.pid()?)?);
    }
    let user = entry.kinds.contains(&Kind::User) || request.user_parent || entry.files_have(Kind::User);
    let identity = identity(request, user)?;
    // setgroups(2) is refused in a user namespace whose `setgroups` file says deny, as it does where an ordinary user
    // wrote the map (user_namespaces(7)): so it is tried out here, before; in a namespace of another's root it is
    // allowed only inside, after.
    let cleared = identity.1.is_some() && rustix::thread::set_thread_groups(&[]).is_ok();
    entry.enter()?;
    entry.change_directory(request)?;
    // setns(2) into a pid namespace changes where children are born, never the caller: without the fork the program
    // would stand outside.
    let fork = (entry.kinds.contains(&Kind::Pid) || entry.files_have(Kind::Pid)) && !request.no_fork;
    // Entering a user namespace gives all capabilities in it; those may be kept. Without one the capabilities are the
    // caller's own, and go with the caller's id.
    become_user(identity, cleared, request.keep_caps && user)?;
    if fork { program.run() } else { program.replace() }
}

/// What is opened before anything is entered.
struct Entry {
    pidfd: Option<OwnedFd>,
    kinds: Vec<Kind>,
    files: Vec<(Kind, OwnedFd, String)>,
    root: Option<OwnedFd>,
    directory: Option<OwnedFd>,
}

impl Entry {
    fn open(request: &EnterRequest) -> Result<Self> {
        let mut kinds = request.kinds.clone();
        let mut files = vec![];
        for (kind, path) in &request.files {
            files.push((*kind, namespace_at(*kind, path)?, path.display().to_string()));
        }
        let mut pidfd = None;
        match &request.target {
            Some(EnterTarget::Network(path)) => {
                // A name in /run/netns is kept by a mount alone: no process need be there whose other namespaces
                // could be entered.
                if let Some(kind) = kinds.iter().find(|kind| **kind != Kind::Network) {
                    bail!("{} is a network namespace only: there is no {} namespace", path.display(), kind.name());
                }
                files.push((Kind::Network, open(path)?, path.display().to_string()));
                kinds.clear();
            }
            Some(target) => {
                let process = target.open()?;
                if request.all {
                    let named = |kind: &Kind| request.files.iter().any(|(other, _)| other == kind);
                    kinds = Kind::ALL.into_iter().filter(|kind| !named(kind)).collect();
                    // The kernel refuses to enter the user namespace in which the caller is already: EINVAL,
                    // setns(2).
                    if own_user_namespace(target.pid()?) {
                        kinds.retain(|kind| *kind != Kind::User);
                    }
                }
                // Otherwise that user's files would be executed with the caller's own rights.
                let with_user = kinds.contains(&Kind::User) || files.iter().any(|(kind, ..)| *kind == Kind::User);
                if let (EnterTarget::Foreign { pid, user }, false) = (target, with_user) {
                    bail!(
                        "process {pid} is in a container of user {user}: it is entered with its user namespace (-U) only"
                    );
                }
                pidfd = Some(process);
            }
            None => {}
        }
        if let Some(descriptor) = request.net_socket {
            let process = pidfd.as_ref().ok_or_else(|| anyhow!("a socket needs a target process"))?;
            // A socket belongs for ever to the namespace it was made in, wherever its process has gone since:
            // `SIOCGSKNS` asks for that.
            let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())
                .with_context(|| format!("take descriptor {descriptor} of the target"))?;
            let netns = namespace::of_socket(socket.as_fd()).with_context(|| format!("descriptor {descriptor}"))?;
            files.push((Kind::Network, netns, format!("namespace of descriptor {descriptor}")));
        }
        if request.user_parent {
            let user = open(Path::new(&format!("/proc/{}/ns/user", request.pid()?)))?;
            let parent = namespace::parent(user.as_fd()).context("open the user namespace's parent")?;
            files.push((Kind::User, parent, "the user namespace's parent".to_owned()));
        }
        // Before the namespaces: in a cgroup namespace the path to the target's cgroup would be another one, and in
        // its mount namespace there may be none.
        if request.join_cgroup {
            join_cgroup(request.pid()?)?;
        }
        if request.follow_context {
            follow_context(request.pid()?)?;
        }
        Ok(Self {
            kinds,
            pidfd,
            files,
            root: request.place(request.root.as_ref(), "root")?,
            directory: request.place(request.directory.as_ref(), "cwd")?,
        })
    }

    fn files_have(&self, kind: Kind) -> bool {
        self.files.iter().any(|(other, ..)| *other == kind)
    }

    /// Enters: all of the process's namespaces in one call. A user namespace gives the right to enter those that it owns,
    /// and takes away that to enter those of its parent: so the others are tried without it first.
    fn enter(&self) -> Result<()> {
        let mut user_files = vec![];
        let mut later = vec![];
        for file in &self.files {
            if file.0 == Kind::User {
                user_files.push(file);
            // No error yet: what is refused now may be allowed once the user namespace has been entered.
            } else if namespace::enter(file.1.as_fd(), file.0).is_err() {
                later.push(file);
            }
        }
        self.enter_process()?;
        for (kind, fd, name) in user_files.into_iter().chain(later) {
            namespace::enter(fd.as_fd(), *kind).with_context(|| format!("enter {} namespace {name}", kind.name()))?;
        }
        Ok(())
    }

    fn enter_process(&self) -> Result<()> {
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        // setns(2) takes a pidfd and several types at once since Linux 5.8: all or none, so that no half of them is
        // entered.
        let mask = self.kinds.iter().fold(ThreadNameSpaceType::empty(), |mask, kind| mask | kind.flag());
        if mask.is_empty() {
            return Ok(());
        }
        let user = ThreadNameSpaceType::USER;
        let others = mask.difference(user);
        let mut left = mask;
        if mask.contains(user) && !others.is_empty() && namespace::enter_process(pidfd.as_fd(), others).is_ok() {
            left = user;
        }
        namespace::enter_process(pidfd.as_fd(), left).with_context(|| {
            let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
            format!("enter {} namespaces", names.join(", "))
        })
    }

    fn change_directory(&self, request: &EnterRequest) -> Result<()> {
        if let Some(root) = &self.root {
            // By the descriptor and not by a path: the mount namespace is the target's by now, where the path leads
            // elsewhere.
            fchdir(root).and_then(|()| chroot(".")).context("change the root directory")?;
            if self.directory.is_none() {
                chdir("/").context("change to /")?;
            }
        }
        if let Some(directory) = &self.directory {
            fchdir(directory).context("change the working directory")?;
        }
        if let Some(directory) = &request.inner_directory {
            chdir(directory).with_context(|| format!("change to {}", directory.display()))?;
        }
        Ok(())
    }
}

impl EnterRequest {
    fn pid(&self) -> Result<i32> {
        self.target.as_ref().ok_or_else(|| cli::Usage("no target: -t is missing".to_owned()))?.pid()
    }

    fn place(&self, place: Option<&EnterPlace>, name: &str) -> Result<Option<OwnedFd>> {
        Ok(match place {
            None => None,
            Some(EnterPlace::Path(path)) => Some(open(path)?),
            Some(EnterPlace::Target) => Some(open(Path::new(&format!("/proc/{}/{name}", self.pid()?)))?),
        })
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).with_context(|| format!("open {}", path.display()))
}

/// Opens the namespace of a file, or of a unique number, which is written with a colon in front.
fn namespace_at(kind: Kind, path: &Path) -> Result<OwnedFd> {
    let Some(number) = path.to_str().and_then(|text| text.strip_prefix(':')) else { return open(path) };
    let id: u64 = number.parse().map_err(|_| cli::Usage(format!("{number} is not a namespace's number")))?;
    crate::list::by_id(kind, id).with_context(|| format!("open {} namespace number {id}", kind.name()))
}

fn own_user_namespace(pid: i32) -> bool {
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    link("self") == link(&pid.to_string())
}

fn environment(pid: i32) -> Result<Vec<(std::ffi::OsString, std::ffi::OsString)>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).with_context(|| format!("environment of {pid}"))?;
    let pair = |entry: &[u8]| {
        let place = entry.iter().position(|byte| *byte == b'=')?;
        let (name, value) = entry.split_at(place);
        let value = value.get(1..).unwrap_or_default();
        let text = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
        (!name.is_empty()).then(|| (text(name), text(value)))
    };
    Ok(bytes.split(|byte| *byte == 0).filter_map(pair).collect())
}

/// Chooses the ids: in a user namespace its root's, unless ours are to be kept.
fn identity(request: &EnterRequest, user: bool) -> Result<(Option<u32>, Option<u32>)> {
    let default = (user && !request.preserve_credentials).then_some(EnterIdentity::Is(0));
    let of_target = |group: bool| -> Result<u32> {
        let path = format!("/proc/{}/status", request.pid()?);
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let name = if group { "Gid:" } else { "Uid:" };
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        // Real, effective, saved: the second counts.
        line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).ok_or_else(|| anyhow!("{path}: no {name}"))
    };
    let choose = |wanted: Option<EnterIdentity>, group| match wanted.or(default) {
        None => Ok(None),
        Some(EnterIdentity::Is(id)) => Ok(Some(id)),
        Some(EnterIdentity::Follow) => of_target(group).map(Some),
    };
    Ok((choose(request.uid, false)?, choose(request.gid, true)?))
}

fn become_user((uid, gid): (Option<u32>, Option<u32>), cleared: bool, keep_caps: bool) -> Result<()> {
    // `PR_SET_KEEPCAPS`: a change of all uids from 0 to others would clear the permitted set (capabilities(7),
    // "Effect of user ID changes").
    if keep_caps && uid.is_some() {
        rustix::thread::set_keep_capabilities(true).context("keep capabilities")?;
    }
    // Groups before the user: without `CAP_SETGID`, which goes with uid 0, no group could be changed any more.
    if let Some(gid) = gid {
        let again = rustix::thread::set_thread_groups(&[]);
        if !cleared {
            again.context("clear the groups")?;
        }
        if getgid().as_raw() != gid {
            rustix::thread::set_thread_gid(Gid::from_raw(gid)).with_context(|| format!("become group {gid}"))?;
        }
    }
    if let Some(uid) = uid {
        if getuid().as_raw() != uid {
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).with_context(|| format!("become user {uid}"))?;
        }
        if keep_caps && uid != 0 {
            raise_ambient().context("keep capabilities")?;
        }
    }
    Ok(())
}

/// Ambient capabilities survive `execve(2)` for a user who is not root.
fn raise_ambient() -> Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    // The kernel raises an ambient capability only where it is permitted and inheritable.
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if sets.permitted.contains(one) {
            configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

/// Moves us into the target's cgroup of the unified hierarchy.
fn join_cgroup(pid: i32) -> Result<()> {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path =
        cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("the target has no cgroup of version 2")?;
    let mounted = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|root| Path::new(root).join("cgroup.procs").exists())
        .context("no cgroup file system of version 2 is mounted")?;
    let procs = Path::new(mounted).join(path).join("cgroup.procs");
    // 0 stands for the process that writes (cgroup-v2.rst, "Processes"), whatever number it has in this pid
    // namespace.
    std::fs::write(&procs, "0").with_context(|| format!("write {}", procs.display()))
}

/// Lets the program run with the target's `SELinux` context.
fn follow_context(pid: i32) -> Result<()> {
    ensure!(Path::new("/sys/fs/selinux/enforce").exists(), "follow the target's context: SELinux is not enabled");
    let context = std::fs::read(format!("/proc/{pid}/attr/current")).context("read the target's context")?;
    // Takes effect with the next execve(2), and only of this thread: proc_pid_attr(5).
    std::fs::write("/proc/self/attr/exec", context).context("set the program's context")
}
