//! The container's file system: the root, what is mounted in it, its devices, what is hidden or read-only, and the
//! change into it. Everything happens through descriptors, in the container's mount namespace, before the old root is
//! left: nothing that the image or a neighbour does to a path can lead a mount elsewhere.

mod attach;
mod cgroup;
mod devices;
mod foreign;
mod host;
mod restrict;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ::cgroup::Cgroups;
use anyhow::{Context, bail, ensure};
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::mount::MountPropagationFlags;
use sys::mount::{MountAttributes, attach, clone_tree, set_attributes};

use crate::config::{Config, NamespaceKind};
use crate::file::{self, leave_open};
use crate::mount::{Depth, ParsedMount, RDONLY, propagation};

pub(crate) use cgroup::new_mount;
pub(crate) use devices::place_for;

/// What the parent has opened or cloned for a mount, because the child could not.
#[derive(Debug)]
pub(crate) enum Prepared {
    Nothing,
    /// The detached tree of a bind mount.
    Tree(OwnedFd),
    /// The user namespace to map the ids of the child's tree by.
    Ids(OwnedFd),
    /// The child's tree goes to the parent, which maps its ids: the mount with that number.
    AskParent(usize),
}

/// The new root under construction.
pub(crate) struct Rootfs<'a> {
    config: &'a Config,
    path: PathBuf,
    /// The root mount, attached at the rootfs's path in this mount namespace.
    root: OwnedFd,
    /// The tmpfs that was mounted last, and where: nothing is in it but what was mounted there since.
    last: Option<(PathBuf, OwnedFd)>,
    /// The container's own procfs, made by this process.
    pub(crate) proc: Option<OwnedFd>,
    /// Read-only at the end, when nothing has to be made in them any more.
    read_only_later: Vec<OwnedFd>,
    cgroups: &'a Cgroups,
    parent: BorrowedFd<'a>,
    /// `/dev` belongs to the container, not to a bind mount of the user's.
    own_dev: bool,
    /// What is mounted is mounted for the host, too.
    on_host: bool,
}

impl<'a> Rootfs<'a> {
    /// Binds the root onto itself with the propagation that the configuration wants. Without a mount namespace the parent
    /// has cloned the `root`, so that it knows what to remove.
    pub(crate) fn bind(
        config: &'a Config,
        path: &Path,
        cgroups: &'a Cgroups,
        parent: BorrowedFd<'a>,
        root: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let (propagation, recursive) = root_propagation(&config.linux.rootfs_propagation)?;
        // Opened before the propagation changes and never again by its path.
        let (target, on_host) = (open_root(path)?, root.is_some());
        // What volumes are cloned of decides what the host hears of them: as with runc, that is for the word to say, too. The
        // host's own mounts are its own affair.
        let shared = propagation == libc::MS_SHARED;
        if !on_host {
            // An unbindable `/` could not be cloned below; the rootfs alone becomes so, by `first`.
            let unbindable = propagation == libc::MS_UNBINDABLE;
            let kept =
                if unbindable || recursive { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
            let word = if unbindable { libc::MS_SLAVE } else { propagation };
            rustix::mount::mount_change("/", kept | MountPropagationFlags::from_bits_retain(u32::try_from(word)?))
                .with_context(|| propagated(config))?;
            if reaches_host(propagation, recursive) {
                make_holder_private(path, shared)?;
            }
        }
        let root = match root {
            Some(root) => root,
            // pivot_root(2) wants a mount point, which the rootfs need not be; a clone of it attached on itself is
            // one. Whole, so that what the caller has mounted below comes along.
            None => clone_tree(target.as_fd(), true).with_context(|| format!("clone {}", path.display()))?,
        };
        // pivot_root(2) is refused with EINVAL while the new root, its parent or the old root's parent is shared;
        // `enter` makes the root shared afterwards.
        let first = MountAttributes::propagation(if shared { libc::MS_PRIVATE } else { propagation });
        // What is cloned of slaves is slaves.
        if on_host || (propagation, recursive) != (libc::MS_SLAVE, true) {
            set_attributes(root.as_fd(), recursive, &first).with_context(|| propagated(config))?;
        }
        attach(root.as_fd(), target.as_fd()).with_context(|| format!("mount {}", path.display()))?;
        leave_open(target);
        let binds_dev = |mount: &crate::config::Mount| {
            ::root::clean(&mount.destination) == Path::new("dev") && ParsedMount::parse(mount).bind.is_some()
        };
        let own_dev = !config.mounts.iter().any(binds_dev);
        Ok(Self {
            config,
            path: path.to_owned(),
            root,
            last: None,
            proc: None,
            read_only_later: Vec::new(),
            cgroups,
            parent,
            own_dev,
            on_host,
        })
    }

    /// Mounts everything and makes the devices.
    pub(crate) fn fill(&mut self, prepared: Vec<Prepared>) -> anyhow::Result<()> {
        let config = self.config;
        for (mount, prepared) in config.mounts.iter().zip(prepared) {
            let mut parsed = ParsedMount::parse(mount);
            if let Ok(inside) = parsed.destination.strip_prefix(&self.path) {
                // Some hosts name the place in the rootfs as they themselves see it.
                parsed.destination = Path::new("/").join(inside);
            }
            let from = if parsed.bind.is_some() { &parsed.source } else { &parsed.kind };
            log::trace!("mount {from} on {}", parsed.destination.display());
            // In the configuration's order, which decides what covers what (runtime-spec, config.md, "Mounts": "MUST
            // be mounted in the listed order").
            let _span = trace::span("mount", parsed.destination.display());
            self.mount(&parsed, prepared).with_context(|| self.frozen(mount, &parsed))?;
        }
        if self.own_dev {
            let _span = trace::span("make devices", "");
            self.make_devices()?;
        }
        Ok(())
    }

    /// Names a mount with all that the kernel was asked for: what fails is mostly one word of it.
    fn frozen(&self, entry: &crate::config::Mount, mount: &ParsedMount) -> String {
        let place = mount.destination.display().to_string();
        let flags: Vec<&str> =
            entry.options.iter().filter(|word| !mount.data.contains(word)).map(String::as_str).collect();
        format!(
            "error mounting {:?} to rootfs at {place:?}: mount({}, [{}]<{}{place}>, {}, {:?})",
            source_name(mount),
            if mount.bind.is_some() { "bind" } else { &mount.kind },
            self.root.as_raw_fd(),
            self.path.display(),
            if flags.is_empty() { "0".to_owned() } else { flags.join("|") },
            mount.data.join(",")
        )
    }

    /// Makes the container's working directory, as runtimes do.
    pub(crate) fn make_cwd(&self, cwd: &str) -> anyhow::Result<()> {
        root::make_directory(self.root.as_fd(), Path::new(cwd), 0o755)
            .map(drop)
            .with_context(|| format!("make cwd {cwd:?}"))
    }

    /// Gives the root mount, to look into before it is the root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Hides and protects what the configuration says, and makes read-only what had to be writable until now.
    /// Returns the container's own null device, if that was opened.
    pub(crate) fn finish(&mut self) -> anyhow::Result<Option<OwnedFd>> {
        let _span = trace::span("mask paths", "");
        let null = self.restrict()?;
        for mount in &self.read_only_later {
            set_attributes(mount.as_fd(), false, &MountAttributes::new(RDONLY, 0)).context("make a mount read-only")?;
        }
        if self.config.root.as_ref().is_some_and(|root| root.readonly) {
            // The mount alone, not the tree: volumes in it have attributes of their own. The file system stays
            // writable for the host.
            set_attributes(self.root.as_fd(), false, &MountAttributes::new(RDONLY, 0))
                .context("make the rootfs read-only")?;
        }
        Ok(null)
    }

    /// Makes the new root the root of this process and of the mount namespace.
    pub(crate) fn enter(self, no_pivot: bool) -> anyhow::Result<()> {
        let _span = trace::span("pivot_root", "");
        let (propagation, recursive) = root_propagation(&self.config.linux.rootfs_propagation)?;
        // pivot_root(".", ".") puts the old root over the new one, at ".", from where it is unmounted: no directory
        // in the image is needed for it (pivot_root(2), "NOTES").
        rustix::process::fchdir(&self.root).context("enter the rootfs")?;
        if self.on_host {
            rustix::process::chroot(".").context("chroot")?;
        } else if no_pivot {
            // With an initramfs as root there is no other way (pivot_root(2): "The rootfs cannot be pivot_root()ed").
            host::hide_kernel_files(&self.path)?;
            attach(self.root.as_fd(), file::open("/", OFlags::PATH)?.as_fd()).context("move the rootfs to /")?;
            rustix::process::chroot(".").context("chroot")?;
        } else {
            // The name would lead to the new root, whose volumes may be shared with the host.
            let old = reaches_host(propagation, recursive).then(|| file::open("/", OFlags::PATH)).transpose()?;
            rustix::process::pivot_root(".", ".").with_context(|| format!("pivot_root({})", self.path.display()))?;
            if let Some(old) = old {
                // What is unmounted of it must stay mounted for the host.
                set_attributes(old.as_fd(), true, &MountAttributes::propagation(libc::MS_SLAVE))
                    .context("make the old root a slave")?;
            }
            // Lazily: this process still has descriptors in there, until its execve closes them.
            rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).context("leave the old root")?;
        }
        if propagation == libc::MS_SHARED {
            set_attributes(self.root.as_fd(), recursive, &MountAttributes::propagation(propagation))
                .with_context(|| propagated(self.config))?;
        }
        self.read_only_later.into_iter().chain([self.root]).for_each(leave_open);
        Ok(())
    }
}

fn open_root(path: &Path) -> anyhow::Result<OwnedFd> {
    file::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW).context("rootfs")
}

/// Clones the rootfs, detached.
pub(crate) fn clone_root(path: &Path) -> anyhow::Result<OwnedFd> {
    clone_tree(open_root(path)?.as_fd(), true).with_context(|| format!("clone {}", path.display()))
}

/// Returns the number of the mount that holds a file.
///
/// The kernel may give the number to another mount as soon as this one is gone (statx(2), `STX_MNT_ID`); so it only
/// means something together with the path.
pub(crate) fn mount_id(at: impl AsFd, path: &Path) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(at, path, flags, StatxFlags::MNT_ID).ok().map(|found| found.stx_mnt_id)
}

/// Attaches a detached mount for good.
fn attach_for_good(mount: OwnedFd, target: OwnedFd) -> std::io::Result<()> {
    attach(mount.as_fd(), target.as_fd())?;
    leave_open(mount);
    leave_open(target);
    Ok(())
}

/// Tells whether mounts of this mount namespace may still be shared with the host's.
fn reaches_host(propagation: u64, recursive: bool) -> bool {
    propagation == libc::MS_SHARED || !recursive && propagation != libc::MS_UNBINDABLE
}

/// Keeps what is mounted on `path` from being mounted for the host as well: the mount that holds `path` becomes private
/// in this mount namespace, if it is shared.
fn make_holder_private(path: &Path, slash_is_shared: bool) -> anyhow::Result<()> {
    for holder in path.ancestors().filter(|holder| slash_is_shared || *holder != Path::new("/")) {
        let opened = file::open(holder, OFlags::PATH)?;
        match set_attributes(opened.as_fd(), false, &MountAttributes::propagation(libc::MS_PRIVATE)) {
            // Not where a mount begins.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            // The first ancestor that is a mount point is the one that holds the path.
            result => return result.with_context(|| format!("make {} private", holder.display())),
        }
    }
    ensure!(!slash_is_shared, "no mount holds {}", path.display());
    Ok(())
}

/// `linux.rootfsPropagation`: by default the container hears of later mounts, and the host hears nothing.
fn root_propagation(word: &str) -> anyhow::Result<(u64, bool)> {
    let (name, recursive) = match word {
        "" => ("slave", true),
        _ => word.strip_prefix('r').map_or((word, false), |name| (name, true)),
    };
    let known = propagation(name).with_context(|| format!("rootfsPropagation={word} is not supported"))?;
    Ok((known, recursive))
}

fn propagated(config: &Config) -> String {
    format!("set rootfsPropagation {:?}", config.linux.rootfs_propagation)
}

fn source_name(mount: &ParsedMount) -> &str {
    if mount.source.is_empty() { &mount.kind } else { &mount.source }
}

/// Opens in the parent what the child cannot: sources of bind mounts that a new user namespace has no right to reach,
/// and mounts whose ids are mapped, which takes privilege over the file system.
pub(crate) fn prepare(config: &Config, bundle: &Path) -> anyhow::Result<Vec<Prepared>> {
    (0..config.mounts.len()).map(|at| prepare_one(config, bundle, at)).collect()
}

fn prepare_one(config: &Config, bundle: &Path, at: usize) -> anyhow::Result<Prepared> {
    let entry = &config.mounts[at];
    let mount = ParsedMount::parse(entry);
    let in_user_namespace = config.linux.has(NamespaceKind::User);
    if let (Some(depth), Some((pid, path))) = (mount.bind, foreign::split(Path::new(&mount.source))) {
        let tree = foreign::clone_of(pid, &path, depth.is_tree())?;
        mount.id_map.map_or(Ok(()), |_| map_ids(tree.as_fd(), &mount, id_namespace(config, entry)?.as_fd()))?;
        return Ok(Prepared::Tree(tree));
    }
    let (Some(depth), true) = (mount.bind, in_user_namespace || mount.id_map.is_some()) else {
        ensure!(mount.id_map.is_none(), "mount {}: only bind mounts can be id-mapped", mount.destination.display());
        return Ok(Prepared::Nothing);
    };
    let ids = mount.id_map.map(|_| id_namespace(config, entry)).transpose()?;
    let rootfs = bundle.join(config.root.as_ref().map_or(Path::new(""), |root| &root.path));
    let path = bundle.join(&mount.source);
    if path.starts_with(&rootfs) {
        // What is mounted there before it, only the child sees.
        // A source inside of the rootfs may lie on what an earlier entry mounts there, which exists in the child's
        // mount namespace alone. To map ids takes CAP_SYS_ADMIN over the file system's owner, which a child in a user
        // namespace lacks: it sends the tree back to the parent.
        return Ok(match ids {
            Some(_) if in_user_namespace => Prepared::AskParent(at),
            Some(ids) => Prepared::Ids(ids),
            None => Prepared::Nothing,
        });
    }
    let source = file::open(&path, OFlags::PATH)?;
    let tree = match clone_tree(source.as_fd(), depth.is_tree()) {
        // An ordinary user has the right in the new user namespace only.
        Err(error) if ids.is_none() && error.raw_os_error() == Some(libc::EPERM) => return Ok(Prepared::Nothing),
        other => other.with_context(|| format!("clone {}", path.display()))?,
    };
    if let Some(ids) = ids {
        map_ids(tree.as_fd(), &mount, ids.as_fd())?;
    }
    Ok(Prepared::Tree(tree))
}

/// Maps the ids of a tree that the child has cloned, for the mount with the number `at`.
pub(crate) fn map_ids_of(config: &Config, at: usize, tree: BorrowedFd<'_>) -> anyhow::Result<()> {
    let entry = config.mounts.get(at).context("no such mount")?;
    map_ids(tree, &ParsedMount::parse(entry), id_namespace(config, entry)?.as_fd())
}

/// Returns the user namespace by which a mount's ids are mapped: with its own mappings, or else the container's.
fn id_namespace(config: &Config, entry: &crate::config::Mount) -> anyhow::Result<OwnedFd> {
    let of_container = (&config.linux.uid_mappings, &config.linux.gid_mappings);
    match config.linux.joins(NamespaceKind::User) {
        _ if !entry.uid_mappings.is_empty() => crate::userns::with_mappings(&entry.uid_mappings, &entry.gid_mappings),
        Some(joined) => file::open(joined, OFlags::RDONLY),
        None if !of_container.0.is_empty() => crate::userns::with_mappings(of_container.0, of_container.1),
        None => bail!("mount {}: there are no mappings to map its ids by", entry.destination.display()),
    }
}

/// `MOUNT_ATTR_IDMAP` is for mounts that are attached nowhere yet, and only once for each (`mount_setattr(2)`).
fn map_ids(tree: BorrowedFd<'_>, mount: &ParsedMount, ids: BorrowedFd<'_>) -> anyhow::Result<()> {
    set_attributes(tree, mount.id_map == Some(Depth::Tree), &MountAttributes::default().mapped(ids))
        .with_context(|| format!("map the ids of {}", mount.source))
}
