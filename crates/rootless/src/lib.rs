//! An ordinary user as root: of a user namespace with the ids of /etc/subuid, or with the user's own alone where that is
//! all there is, of a mount namespace, and with a `/run` of its own, in which all that the host has there is still reached.
//! Whoever works behind this does as for root. All of a user's programs that work below one root share these namespaces
//! while any of them lives, so that they see each other's mounts and networks.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::ThreadNameSpaceType;

/// Where the host's `/run` is while it is taken apart: a directory that every system has.
const ASIDE: &str = "/tmp";

/// What of `/run` is the user's own.
const OWN: [&str; 2] = ["netns", "drayage"];

/// What tells that `/run` has been made: on the host only root could make it.
const MADE: &str = "/run/.drayage";

/// The user's run directory there.
const RUN: &str = "run/drayage";

/// All ids that the user has, by newuidmap(1).
const ALL_IDS: &[&str] = &["--map-root-user", "--map-auto"];
/// No more than the user's own, which needs nobody.
const OWN_ID: &[&str] = &["--map-root-user"];

/// Becomes root of the user's namespace, unless it is root already; returns whether it is an ordinary user's. The program
/// is executed again for that, as it was.
pub fn enter(roots: &cli::Roots) -> Result<bool> {
    if cli::is_rootless() {
        if !Path::new(MADE).exists() {
            own_run(roots.directories().run()).context("make a /run of its own")?;
            release_lock();
        }
        return Ok(true);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let run = roots.directories().run().to_owned();
    sys::file::make_private(&run).with_context(|| format!("make {}", run.display()))?;
    // Until the namespaces are ready: two programs that start together must not make them twice.
    // flock(2) on the directory itself: it ends with the last copy of the descriptor, so a killed program leaves no
    // lock.
    let lock = File::open(&run).with_context(|| format!("open {}", run.display()))?;
    flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("lock {}", run.display()))?;
    // setns(2) to a mount namespace moves the working directory to its root.
    let directory = std::env::current_dir().context("the working directory")?;
    if !join(&run)? {
        return create(&lock);
    }
    drop(lock);
    std::env::set_current_dir(&directory).with_context(|| format!("enter {}", directory.display()))?;
    // What was read until here, paths above all, was the host's: from the first line again, inside.
    let mut again = Command::new("/proc/self/exe");
    again.arg0(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(cli::ROOTLESS, "1");
    Err(again.exec()).context("execute this program again")
}

/// Moves this process into the namespaces that another program of the user's has made for this run directory, if one lives
/// there. The kernel knows: in those, and in no others, the directory is at [`RUN`].
fn join(run: &Path) -> Result<bool> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let (own, user) = (identity(run), rustix::process::geteuid().as_raw());
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        if entry.metadata().ok().map(|metadata| metadata.uid()) != Some(user) {
            continue;
        }
        // Opened before it is looked at: if it ends and its number goes to another one, joining fails.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let there = entry.path().join("root").join(RUN);
        // One that ends in this moment, and one of the host's own, cannot be joined.
        let kinds = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
        if identity(&there) == own && rustix::thread::move_into_thread_name_spaces(process.as_fd(), kinds).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Executes this program again in new namespaces, which hear of the host's later mounts. It has the lock then. Returns
/// only why it cannot.
///
/// unshare(1) is used, not the system call: it waits for newuidmap(1) and newgidmap(1), which have to be executed
/// from outside of the new namespace while the process waits inside.
fn create(lock: &File) -> Result<bool> {
    let words = |way: &[&'static str]| [&["--user", "--mount", "--propagation", "slave"], way].concat();
    let attempt = |way: &[&'static str]| -> Result<Option<String>> {
        let tried = Command::new("unshare").args(words(way)).arg("true").stdin(Stdio::null()).output();
        let tried = tried.context("execute unshare")?;
        let said = String::from_utf8_lossy(&tried.stderr).lines().next().unwrap_or_default().to_owned();
        Ok((!tried.status.success()).then_some(said))
    };
    // First with the one id: where namespaces are denied, a helper of `--map-auto` waits for ever.
    if let Some(why) = attempt(OWN_ID)? {
        let by =
            "user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns";
        bail!("an ordinary user needs a user namespace, which the machine denies (sysctl {by}): {why}");
    }
    let way = attempt(ALL_IDS)?.map_or(ALL_IDS, |why| {
        log::info!("only the user's own id is mapped: {why}");
        OWN_ID
    });
    rustix::io::fcntl_setfd(lock, FdFlags::empty()).context("pass the lock on")?;
    let mut command = Command::new("unshare");
    command.args(words(way)).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.env(cli::ROOTLESS, lock.as_raw_fd().to_string()).exec()).context("execute unshare")
}

/// Lets others join: the number of the lock's descriptor is in the variable.
fn release_lock() {
    let number = std::env::var(cli::ROOTLESS).ok().and_then(|number| number.parse().ok());
    if let Some(lock) = number.filter(|number| *number > 2).and_then(|number| sys::child::taken(number).ok()) {
        // Who waits for it waits for the end of this process at the latest.
        let _released = flock(&lock, FlockOperation::Unlock);
    }
}

/// The same for what can be done without it, if less well.
pub fn enter_if_possible(roots: &cli::Roots) {
    if let Err(error) = enter(roots) {
        log::info!("as an ordinary user: {error:#}");
    }
}

/// Tells whether this process is in a user namespace other than the first: `user_namespaces(7)`, "User and group ID
/// mappings".
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let numbers: Vec<&str> = map.split_whitespace().collect();
    !numbers.is_empty() && numbers != ["0", "0", "4294967295"]
}

/// A user cannot write to the host's `/run`, where `ip netns` and our own tools look for names. It cannot be covered
/// by an overlay either: sockets of daemons in it must go on working, so each entry is bound into a new tmpfs.
fn own_run(own: &Path) -> Result<()> {
    sys::file::make_private(own)?;
    // By its descriptor: its path may be below either.
    let own = File::open(own)?;
    mount_bind_recursive("/run", ASIDE)?;
    let made = replace(&own);
    unmount(ASIDE, UnmountFlags::DETACH)?;
    made
}

fn replace(own: &File) -> Result<()> {
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")?;
    for entry in fs::read_dir(ASIDE)? {
        let entry = entry?;
        let to = Path::new("/run").join(entry.file_name());
        let kind = entry.file_type()?;
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
        } else {
            drop(File::create(&to)?);
        }
        mount_bind_recursive(entry.path(), &to).with_context(|| format!("mount {}", to.display()))?;
    }
    drop(File::create(MADE)?);
    let drayage = container::machine();
    fs::create_dir(drayage)?;
    Ok(mount_bind_recursive(format!("/proc/self/fd/{}", own.as_raw_fd()), drayage)?)
}
