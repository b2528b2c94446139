//! Named network namespaces, as `ip-netns(8)` has them: a file in /run/netns that the namespace is mounted on.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use container::{ContainerId, NAMESPACES, namespace};
use netlink::route::{Link, Router};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount};
use sys::namespace::{Kind, OWN_NETWORK, enter, is_at, unshare};

/// Tells whether a namespace of that name is there; a mere file is what a killed process has left.
pub(crate) fn exists(id: &ContainerId) -> bool {
    is_at(&namespace(id))
}

/// Returns the links in the namespace of that name; none, where it is not there.
pub(crate) fn links(id: &ContainerId) -> Result<Vec<Link>> {
    if exists(id) { Ok(router(open(id)?.as_fd())?.links(None)?) } else { Ok(vec![]) }
}

/// Opens the namespace of that name.
pub(crate) fn open(id: &ContainerId) -> io::Result<OwnedFd> {
    File::open(namespace(id)).map(OwnedFd::from)
}

/// Returns the path of the namespace that a process is in: its name, where it has one, which outlives the process.
pub(crate) fn of_process(pid: i32) -> io::Result<PathBuf> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let own = identity(&path)?;
    let mut names = fs::read_dir(NAMESPACES).into_iter().flatten().flatten().map(|entry| entry.path());
    Ok(names.find(|name| identity(name).is_ok_and(|other| other == own)).unwrap_or(path))
}

/// Makes a namespace and gives it the name, by which it is opened then. `inside` is called in it before anything is in
/// there.
pub(crate) fn create<T: Send>(id: &ContainerId, inside: impl FnOnce() -> Result<T> + Send) -> Result<(OwnedFd, T)> {
    make_directory().with_context(|| format!("make {NAMESPACES} a mount point"))?;
    let path = namespace(id);
    // `exists` has told that nothing is mounted on it: what is left is the empty file of a killed process, or of `ip
    // netns` in another mount namespace.
    let _none = fs::remove_file(&path);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
    let made = in_other(
        || unshare(Kind::Network),
        || {
            // By its name it is found, so all that tells whose it is comes before.
            let done = inside()?;
            mount_bind(OWN_NETWORK, &path)?;
            Ok((open(id)?, done))
        },
    );
    if made.is_err() {
        // The error that is returned says more than one about the file.
        let _removed = remove(id);
    }
    made
}

/// Calls `inside` in the network namespace `netns`.
pub(crate) fn within<T: Send>(netns: BorrowedFd<'_>, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_other(|| enter(netns, Kind::Network), inside)
}

/// Opens a routing socket in the network namespace `netns`: it stays there.
pub(crate) fn router(netns: BorrowedFd<'_>) -> Result<Router> {
    within(netns, || Ok(Router::open()?))
}

/// Removes the name; the namespace itself goes with its last process. That it is not there is no error.
pub(crate) fn remove(id: &ContainerId) -> io::Result<()> {
    let path = namespace(id);
    // Not mounted here: in another mount namespace, or left by a killed process.
    let not_here = [Errno::INVAL, Errno::NOENT];
    sys::unless(&not_here, unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW))?;
    sys::file::there(fs::remove_file(&path)).map(drop)
}

/// Does something in another network namespace. A socket that it opens stays there, so that this is all that ever
/// happens inside.
fn in_other<T: Send>(
    leave: impl FnOnce() -> io::Result<()> + Send,
    inside: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    if cli::is_rootless() {
        // There is no way back into a network that is not the user's own, so a thread goes that need not come back.
        let gone = || leave().map_err(anyhow::Error::from).and_then(|()| inside());
        return thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, gone).context("start a thread")?;
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        });
    }
    let own = File::open(OWN_NETWORK)?;
    leave()?;
    let done = inside();
    // Even after an error: whatever this process does next is meant for the host's network.
    enter(own.as_fd(), Kind::Network).context("return to our own network namespace")?;
    done
}

/// Lets mounts below the directory be seen in the mount namespaces that are made of this one, and their removal too: else a
/// namespace that is deleted here would live on there. Within a private mount namespace this reaches nobody outside.
fn make_directory() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(NAMESPACES)?;
    // What is mounted below is shared with it, unless it was there before: it is not looked at each time.
    if sys::unless(&[Errno::INVAL], mount_change(NAMESPACES, MountPropagationFlags::SHARED))?.is_none() {
        mount_bind_recursive(NAMESPACES, NAMESPACES)?;
        mount_change(NAMESPACES, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    }
    Ok(())
}
