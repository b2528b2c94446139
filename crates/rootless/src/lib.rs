//! An ordinary user's containers: `run` makes itself root of a user namespace, with the ids of /etc/subuid, and a `/run` of its own, in which all that the host has there is still reached. Everything behind it works as for root.

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

/// Becomes root of a user namespace, unless it is root already; returns whether it is an ordinary user's.
pub(crate) fn enter(roots: &cli::Roots) -> Result<bool> {
    if cli::is_rootless() {
        own_run(&roots.run()).context("make a /run of its own")?;
        return Ok(true);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let words = ["--user", "--map-root-user", "--map-auto", "--mount", "--propagation", "private"];
    let tried = Command::new("unshare").args(words).arg("true").stdin(Stdio::null()).output();
    let tried = tried.context("execute unshare")?;
    if !tried.status.success() {
        let words = String::from_utf8_lossy(&tried.stderr);
        let why = words.lines().next().unwrap_or_default();
        bail!("an ordinary user needs ids in /etc/subuid and /etc/subgid, and newuidmap to get them: {why}");
    }
    let mut command = Command::new("unshare");
    command.args(words).arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(cli::ROOTLESS, "1");
    Err(command.exec()).context("execute unshare")
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
    let drayage = Path::new("/run/drayage");
    fs::create_dir(drayage)?;
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(own));
    Ok(mount_bind_recursive(from, drayage)?)
}
