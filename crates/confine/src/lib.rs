//! What a tool gives up when it has started and knows its task: whoever takes it over then, by a registry's answer or a
//! layer, finds himself in a small room. Files are taken away by Landlock, system calls by seccomp, privileges by the
//! capability sets; each as far as the kernel has it.

#![forbid(unsafe_code)]

mod calls;
mod files;
#[cfg(test)]
#[path = "../../seccomp/tests/machine/mod.rs"]
mod machine;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

pub use calls::Calls;

/// What a tool still needs, whatever its task is about.
#[derive(Clone, Debug)]
pub struct Room {
    /// Groups of system calls.
    pub calls: Calls,
    /// Of those that it has.
    pub capabilities: CapabilitySet,
}

impl Room {
    /// Nothing but what is open already, and files.
    pub const EMPTY: Self = Self {
        calls: Calls { execute: false, sockets: false, serve: false, mount: false, namespaces: false },
        capabilities: CapabilitySet::empty(),
    };
}

/// What it takes to make files of any owner and kind, and to get past the permissions of those that are there.
pub const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Gives up system calls and capabilities, for good. It has to be done by a process of one thread: no other is moved
/// along. What the kernel cannot take away is left, which the log says.
pub fn enter(room: &Room) -> Result<()> {
    let _span = trace::span("confine", "");
    ensure!(!has_threads(), "confine: the process has threads already");
    let capabilities = drop_capabilities(room).context("give up capabilities")?;
    set_no_new_privs(true).context("give up gaining privileges")?;
    let filtered = sys::confinement::filter(&room.calls.program().context("give up system calls")?);
    match sys::unless(&[Errno::NOSYS, Errno::INVAL], filtered).context("give up system calls")? {
        Some(()) => log::debug!("gives up {}, {capabilities}", room.calls),
        None => log::debug!("gives up {capabilities}, no system calls: this kernel has no seccomp"),
    }
    Ok(())
}

/// Gives up all files but these: those that the task makes, changes and removes, and, where it is said, what it only
/// reads. It has to have given up gaining privileges, and no other thread is moved along.
pub fn files(writes: &[&Path], reads: Option<&[&Path]>) -> Result<()> {
    let _span = trace::span("confine", "files");
    ensure!(!has_threads(), "confine: the process has threads already");
    let given_up = files::restrict(writes, reads).context("give up files")?;
    log::debug!("gives up {given_up}");
    Ok(())
}

/// Tells whether the process has more threads than this one, as far as /proc tells.
fn has_threads() -> bool {
    sys::clone::require_one_thread().is_err_and(|error| error.raw_os_error() == Some(libc::EDEADLK))
}

/// Says what is given up of the capabilities where these are left.
fn all_but(left: CapabilitySet) -> String {
    let names: Vec<String> = left.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    if names.is_empty() { "all capabilities".to_owned() } else { format!("all capabilities but {}", names.join(" ")) }
}

/// Leaves nothing but these. The bounding set is about programs that are executed, and takes a while.
fn drop_capabilities(room: &Room) -> Result<String> {
    let held = capabilities(None).context("read them")?;
    let kept = held.permitted & room.capabilities;
    if room.calls.execute && held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (CapabilitySet::all() - kept).iter() {
            // EINVAL: the kernel is older than the capability.
            sys::unless(&[Errno::INVAL], remove_capability_from_bounding_set(capability)).context("bounding set")?;
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(all_but(kept))
}
