//! User namespaces: id mappings written for a child, and namespaces that only serve to map the ids of mounts.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use container::RuntimeId;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::ThreadNameSpaceType;
use sys::clone::{Cloned, How, clone};

use crate::config::{IdMapping, NamespaceKind};
use crate::state::Container;

/// Writes the id maps of a child in a new user namespace.
pub(crate) fn write_mappings(pid: Pid, uids: &[IdMapping], gids: &[IdMapping]) -> anyhow::Result<()> {
    let root = rustix::process::geteuid().is_root();
    let number = pid.as_raw_pid();
    if !root && !single_own(gids, rustix::process::getegid().as_raw()) {
        with_helper("newgidmap", pid, gids)?;
    } else {
        if !root {
            // user_namespaces(7): without CAP_SETGID above, gid_map can only be written after this. Else a user could
            // drop a group that is denied access to a file.
            write(&format!("/proc/{number}/setgroups"), "deny")?;
        }
        // One write for the whole map: the kernel takes a map once, and only in a single write(2).
        write(&format!("/proc/{number}/gid_map"), &text(gids))?;
    }
    if !root && !single_own(uids, rustix::process::geteuid().as_raw()) {
        return with_helper("newuidmap", pid, uids);
    }
    write(&format!("/proc/{number}/uid_map"), &text(uids))
}

/// A user may map one id, the own one, without anybody's help.
fn single_own(mappings: &[IdMapping], own: u32) -> bool {
    matches!(mappings, [only] if only.size == 1 && only.host_id == own)
}

/// newuidmap(1) and newgidmap(1) have the right to write maps, and check /etc/subuid and /etc/subgid. newgidmap
/// denies `setgroups` by itself where the user's own group is mapped without leave of /etc/subgid (CVE-2018-7169).
fn with_helper(helper: &str, pid: Pid, mappings: &[IdMapping]) -> anyhow::Result<()> {
    let mut command = Command::new(helper);
    command.arg(pid.as_raw_pid().to_string());
    for map in mappings {
        command.args([map.container_id, map.host_id, map.size].map(|number| number.to_string()));
    }
    let output = command.output().with_context(|| format!("exec {helper}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim_start_matches(helper).trim_start_matches(": ").trim_end();
    ensure!(output.status.success(), "{helper}: {words}");
    Ok(())
}

fn text(mappings: &[IdMapping]) -> String {
    let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
    mappings.iter().map(line).collect::<Vec<_>>().concat()
}

fn write(path: &str, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {text:?} to {path}"))
}

/// Makes an ordinary user root of the namespace that his container was made in, if he has made it before the container
/// (with unshare(1), say): that gives him the right to enter and to signal what is in there. Nothing is lost where he may
/// not, so that what he cannot do then is told by what he cannot do.
pub(crate) fn become_root_for(states: &Path, id: &RuntimeId) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(container) = Container::open(states, id) else { return };
    // One of its own is its config's matter.
    if container.config().map_or(true, |config| config.linux.has(NamespaceKind::User)) {
        return;
    }
    let Ok(Some((init, pidfd))) = container.open_process() else { return };
    if is_own(init, NamespaceKind::User) {
        return;
    }
    if let Err(error) = sys::namespace::enter_process(pidfd.as_fd(), ThreadNameSpaceType::USER) {
        log::info!("join its maker's user namespace: {error}");
    }
}

/// Makes a user namespace with these mappings that no process stays in.
///
/// `mount_setattr(2)` wants a namespace whose maps are written, and holds it itself afterwards; it need not be the
/// container's.
pub(crate) fn with_mappings(uids: &[IdMapping], gids: &[IdMapping]) -> anyhow::Result<OwnedFd> {
    let how = How { namespaces: libc::CLONE_NEWUSER.unsigned_abs(), ..How::default() };
    let parent = rustix::process::getpid();
    let (pid, pidfd) = match clone(how).context("make a user namespace")? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => loop {
            // Only waits to be killed; a parent that dies kills it as well, if it has not died before.
            let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if bound.is_err() || rustix::process::getppid() != Some(parent) {
                sys::clone::exit_now(1);
            }
            let _rest = rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 });
        },
    };
    let made = write_mappings(pid, uids, gids)
        .and_then(|()| crate::file::open(format!("/proc/{}/ns/user", pid.as_raw_pid()), OFlags::RDONLY));
    // The open file keeps the namespace alive.
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).context("end the user namespace's process")?;
    rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)
        .context("wait for the user namespace's process")?;
    made
}

/// Tells whether a process is in this one's namespace.
pub(crate) fn is_own(pid: Pid, kind: NamespaceKind) -> bool {
    let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/{}", kind.name())).ok();
    link("self").is_some() && link("self") == link(&pid.as_raw_pid().to_string())
}

/// Opens a process by its pid.
pub(crate) fn pidfd(pid: Pid) -> anyhow::Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("open process {}", pid.as_raw_pid()))
}
