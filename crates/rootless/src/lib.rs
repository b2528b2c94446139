//! An ordinary user as root: of a user namespace with the ids of /etc/subuid, or with the user's own alone where that is
//! all there is, of a mount namespace, and with a `/run` of its own, in which all that the host has there is still reached.
//! Whoever works behind this does as for root.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};

/// Where the host's `/run` is while it is taken apart: a directory that every system has.
const ASIDE: &str = "/tmp";

/// What of `/run` is the user's own.
const OWN: [&str; 2] = ["netns", "drayage"];

/// What tells that `/run` has been made: on the host only root could make it.
const MADE: &str = "/run/.drayage";

/// All ids that the user has, by newuidmap(1), and no more than the user's own, which needs nobody.
const WAYS: [&[&str]; 2] = [&["--map-root-user", "--map-auto"], &["--map-root-user"]];

/// Becomes root of a user namespace, unless it is root already; returns whether it is an ordinary user's. The program is
/// executed again for that, as it was.
pub fn enter(roots: &cli::Roots) -> Result<bool> {
    if cli::is_rootless() {
        if !Path::new(MADE).exists() {
            own_run(&roots.run()).context("make a /run of its own")?;
        }
        return Ok(true);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let mut why = String::new();
    for way in WAYS {
        let words = [&["--user", "--mount", "--propagation", "private"], way].concat();
        let tried = Command::new("unshare").args(&words).arg("true").stdin(Stdio::null()).output();
        let tried = tried.context("execute unshare")?;
        if tried.status.success() {
            if !why.is_empty() {
                log::info!("there is one id only, the user's own: {why}");
            }
            let mut command = Command::new("unshare");
            command
                .args(&words)
                .arg(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .env(cli::ROOTLESS, "1");
            return Err(command.exec()).context("execute unshare");
        }
        String::from_utf8_lossy(&tried.stderr).lines().next().unwrap_or_default().clone_into(&mut why);
    }
    bail!("an ordinary user needs a user namespace: {why}")
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

fn own_run(own: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(own)?;
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
    let drayage = Path::new("/run/drayage");
    fs::create_dir(drayage)?;
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(own));
    Ok(mount_bind_recursive(from, drayage)?)
}
