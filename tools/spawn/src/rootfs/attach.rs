//! Mounting one entry of `mounts`.
//!
//! Each is made detached, or cloned, given its attributes, and attached last: at no moment does a mount stand in the
//! container's tree with fewer restrictions than it was to have.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};
use sys::mount::{MountAttributes, attach, clone_tree, set_attributes};

use super::{Prepared, Rootfs, attach_for_good, map_ids, source_name};
use crate::config::NamespaceKind;
use crate::file::{self, leave_open};
use crate::mount::{
    ATIME_MASK, AttributeChange, Depth, LOCKABLE, NOATIME, NODIRATIME, ParsedMount, RDONLY, STRICTATIME,
};

/// The longest string that fsconfig(2) takes.
///
/// It copies 256 bytes with the final NUL (fs/fsopen.c).
const LONGEST_WORD: usize = 255;
const PROC_MAGIC: i64 = 0x9fa0;
/// The inode of each procfs's root: `PROC_ROOT_INO`.
const PROC_ROOT: u64 = 1;

/// Files of procfs that others than the kernel may provide (lxcfs does).
const REPLACEABLE: &str = "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev \
                           sys/kernel/ns_last_pid sys/crypto/fips_enabled sys/kernel/hostname";

impl Rootfs<'_> {
    pub(super) fn mount(&mut self, mount: &ParsedMount, prepared: Prepared) -> anyhow::Result<()> {
        let is_inside = |place: &Path| mount.destination.starts_with(place) && mount.destination.as_path() != place;
        // As soon as one is mounted elsewhere, the tmpfs may be covered, or a bind may have put names of others into
        // it.
        if let Some((_, left)) = self.last.take_if(|(place, _)| !is_inside(place)) {
            leave_open(left);
        }
        // No new mount: the attributes of the one that is there change. runc does the same.
        if mount.remount {
            return change(self.existing(&mount.destination)?.as_fd(), mount);
        }
        match (mount.kind.as_str(), mount.bind) {
            ("cgroup" | "cgroup2", None) => return self.mount_cgroup(mount),
            (_, Some(depth)) => self.mount_bind(mount, depth, prepared)?,
            ("", None) => bail!("mount has no type"),
            _ => self.mount_new(mount)?,
        }
        Ok(())
    }

    fn mount_bind(&mut self, mount: &ParsedMount, depth: Depth, prepared: Prepared) -> anyhow::Result<()> {
        let tree = match prepared {
            Prepared::Tree(tree) => tree,
            prepared => self.own_tree(mount, depth, &prepared)?,
        };
        // A file can only be mounted on a file, and a directory on a directory (move_mount(2) answers EINVAL).
        let target = if file::is_directory(&tree)? {
            root::make_directory(self.root(), &mount.destination, 0o755)
        } else {
            root::make_file(self.root(), &mount.destination)
        }
        .context("make the mount point")?;
        // On the open target, not on its path: a link, or a directory that was exchanged, is judged by where it led.
        check_proc(mount, target.as_fd(), Some(tree.as_fd()))?;
        let attributes =
            if mount.has_attributes { self.of_bind(mount, tree.as_fd())? } else { AttributeChange::default() };
        change(tree.as_fd(), &ParsedMount { attributes, ..mount.clone() })?;
        attach_for_good(tree, target).context("attach the mount")
    }

    fn own_tree(&self, mount: &ParsedMount, depth: Depth, prepared: &Prepared) -> anyhow::Result<OwnedFd> {
        let source = file::open(&mount.source, OFlags::PATH)?;
        let tree = clone_tree(source.as_fd(), depth.is_tree()).with_context(|| format!("clone {}", mount.source))?;
        match prepared {
            Prepared::Ids(ids) => map_ids(tree.as_fd(), mount, ids.as_fd())?,
            Prepared::AskParent(at) => {
                crate::sync::ask(self.parent, *at, tree.as_fd()).context("have its ids mapped")?;
            }
            Prepared::Tree(_) | Prepared::Nothing => {}
        }
        Ok(tree)
    }

    /// Returns the change of a bind mount's attributes. In a user namespace those that protect the host stay: there
    /// the kernel locks the attributes of mounts that came from a more privileged namespace, and refuses a change
    /// with EPERM (`mount_namespaces(7)`, "Restrictions on mount namespaces"). What was only not asked for is kept
    /// without a word, so that volumes from a `nosuid` file system work; what the user asked to clear is an error.
    fn of_bind(&self, mount: &ParsedMount, tree: BorrowedFd<'_>) -> anyhow::Result<AttributeChange> {
        let mut change = mount.attributes.of_bind();
        if self.config.linux.has(NamespaceKind::User) {
            let locked = attributes_of(tree)?;
            let times = change.clear & ATIME_MASK != 0 && (change.set ^ locked) & (ATIME_MASK | NODIRATIME) != 0;
            if times || mount.attributes.clear & locked & LOCKABLE != 0 {
                return Err(rustix::io::Errno::PERM).context("change the protection of the source's mount");
            }
            change.clear &= !(locked & LOCKABLE);
        }
        Ok(change)
    }

    fn mount_new(&mut self, mount: &ParsedMount) -> anyhow::Result<()> {
        let mut mount = Cow::Borrowed(mount);
        let mut words = mount.data.iter().flat_map(|word| word.split(','));
        if mount.kind == "tmpfs" && !words.any(|word| word.starts_with("mode=")) {
            // runc and crun do the same. tmpfs itself would begin with 1777, and open a directory that the image has
            // with 0700.
            if let Ok(covered) = root::open(self.root(), &mount.destination) {
                let mode = rustix::fs::fstat(&covered)?.st_mode & 0o7777;
                mount.to_mut().data.push(format!("mode={mode:o}"));
            }
        }
        let mount = mount.as_ref();
        let label = self.config.linux.mount_label.as_str();
        let label = (!label.is_empty() && !matches!(mount.kind.as_str(), "proc" | "sysfs" | "mqueue"))
            // runc gives these three no such option either: kernels refuse it for /proc and /sys.
            .then(|| format!("context={label}"));
        let words: Vec<&str> = mount.data.iter().chain(&label).map(String::as_str).collect();
        let is_long = words.iter().chain([&mount.source.as_str()]).any(|word| word.len() > LONGEST_WORD);
        // It is several, or has one of them escaped: that is for the file system to tell.
        let has_comma = mount.data.iter().any(|word| word.contains(','));
        let new = !is_long && !has_comma;
        let detached = new.then(|| detached(mount, &words, first_attributes(mount)));
        if detached.as_ref().is_some_and(|made| refused_sysfs(mount, made)) {
            // In a user namespace it may not be mounted without a network namespace of its own; the host's is what it
            // would show.
            let host = ParsedMount { source: "/sys".to_owned(), has_attributes: true, ..mount.clone() };
            return self.mount_bind(&host, Depth::Tree, Prepared::Nothing);
        }
        let made = match detached.transpose()? {
            Some(made) if self.attach_in_last(mount, made.as_fd()) => made,
            detached => self.attach_new(mount, detached, &words)?,
        };
        for (propagation, depth) in &mount.propagation {
            set_attributes(made.as_fd(), depth.is_tree(), &MountAttributes::propagation(*propagation))
                .context("set propagation")?;
        }
        if is_read_only_later(mount) {
            self.read_only_later.push(made);
        } else if mount.kind == "proc" {
            self.proc = Some(made);
        } else if mount.kind == "tmpfs" && !mount.copy_up && self.last.is_none() {
            self.last = Some((mount.destination.clone(), made));
        } else {
            leave_open(made);
        }
        Ok(())
    }

    /// Attaches a mount to a name that nothing has had before in the tmpfs that was mounted last: no link leads away from
    /// there, and it is no procfs. False where that is not so.
    fn attach_in_last(&self, mount: &ParsedMount, made: BorrowedFd<'_>) -> bool {
        let path = &mount.destination;
        let (Some((place, tmpfs)), Some(name)) = (&self.last, path.file_name()) else { return false };
        path.parent() == Some(place)
            && !mount.copy_up
            // mkdir(2) succeeds only where nothing had the name, not even a link: that replaces a lookup in the
            // container's root.
            && rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).is_ok()
            && rustix::mount::move_mount(made, c"", tmpfs, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).is_ok()
    }

    fn attach_new(&self, mount: &ParsedMount, detached: Option<OwnedFd>, words: &[&str]) -> anyhow::Result<OwnedFd> {
        let target = self.target_of_new(mount)?;
        check_proc(mount, target.as_fd(), None)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // Opened before it is covered: afterwards the path leads into the tmpfs.
        let below = |path| root::open_with(self.root(), path, flags, ResolveFlags::empty());
        let covered = mount.copy_up.then(|| below(&mount.destination)).transpose()?;
        let made = if let Some(made) = detached {
            attach(made.as_fd(), target.as_fd()).context("attach the mount")?;
            made
        } else {
            mount_at(target.as_fd(), mount, words)?;
            // mount(2) gives no descriptor. The path leads to the topmost mount, which is the one just made: only
            // this process mounts in here, but a neighbour that shares a volume may have exchanged a directory above
            // it. Then the attributes are set on what is in the container's own root all the same.
            let made = self.existing(&mount.destination)?;
            let attributes = MountAttributes::new(first_attributes(mount), 0);
            set_attributes(made.as_fd(), false, &attributes).context("set mount options")?;
            made
        };
        if let Some(covered) = covered {
            copy_tree(covered.as_fd(), made.as_fd()).context("copy the directory's content up")?;
        }
        leave_open(target);
        Ok(made)
    }

    fn target_of_new(&self, mount: &ParsedMount) -> anyhow::Result<OwnedFd> {
        if mount.kind == "proc" || mount.kind == "sysfs" {
            // A link would let the image choose where the kernel's own files appear.
            return self
                .ordinary_directory(&mount.destination)
                .with_context(|| format!("filesystem {:?} must be mounted on ordinary directory", mount.kind));
        }
        root::make_directory(self.root(), &mount.destination, 0o755).context("make the mount point")
    }

    /// Opens a directory, made if it is not there, to which no link leads.
    pub(super) fn ordinary_directory(&self, path: &Path) -> std::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = || root::open_with(self.root(), path, flags, ResolveFlags::NO_SYMLINKS);
        open().or_else(|_| {
            root::make_directory(self.root(), path, 0o755)?;
            Ok(open()?)
        })
    }

    pub(super) fn existing(&self, path: &Path) -> anyhow::Result<OwnedFd> {
        root::open(self.root(), path).with_context(|| format!("open {}", path.display()))
    }
}

/// Tells whether a mount has to stay writable until everything has its mount point: /dev with nodes and /dev/pts in
/// it.
fn is_read_only_later(mount: &ParsedMount) -> bool {
    let set = mount.attributes.set | mount.recursive_attributes.set;
    set & RDONLY != 0 && (mount.kind == "tmpfs" || mount.kind == "devtmpfs")
}

/// Returns the attributes with which a mount begins, read-only left out where that comes last.
fn first_attributes(mount: &ParsedMount) -> u64 {
    let set = mount.attributes.set | mount.recursive_attributes.set;
    if is_read_only_later(mount) { set & !RDONLY } else { set }
}

/// Returns the attributes that a mount has: `statvfs(3)`.
fn attributes_of(mount: BorrowedFd<'_>) -> anyhow::Result<u64> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let flags = rustix::fs::fstatvfs(mount)?.f_flag;
    // statvfs(3) and mount_setattr(2) name the times in different ways: relatime is a flag there, and 0 of a field
    // here.
    let no_directories = if flags.contains(Flags::NODIRATIME) { NODIRATIME } else { 0 };
    let times = match () {
        () if flags.contains(Flags::NOATIME) => NOATIME,
        () if flags.contains(Flags::RELATIME) => 0,
        () => STRICTATIME,
    };
    // The first four have the same numbers.
    Ok(flags.bits() & LOCKABLE | no_directories | times)
}

/// Applies attributes and propagation to a mount.
pub(super) fn change(mount: BorrowedFd<'_>, options: &ParsedMount) -> anyhow::Result<()> {
    for (depth, change) in [(Depth::One, options.attributes), (Depth::Tree, options.recursive_attributes)] {
        if !change.is_empty() {
            set_attributes(mount, depth.is_tree(), &MountAttributes::new(change.set, change.clear))
                .context("set mount options")?;
        }
    }
    for (propagation, depth) in &options.propagation {
        set_attributes(mount, depth.is_tree(), &MountAttributes::propagation(*propagation))
            .context("set propagation")?;
    }
    Ok(())
}

/// Makes a mount that is nowhere yet.
pub(super) fn detached(mount: &ParsedMount, words: &[&str], attributes: u64) -> anyhow::Result<OwnedFd> {
    let context = rustix::mount::fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
        .with_context(|| format!("file system {}", mount.kind))?;
    configure(context.as_fd(), mount, words).map_err(|error| explained(context.as_fd(), error))?;
    // fsmount(2) takes the attributes of the new mount at once; a later mount_setattr(2) would be one more call.
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes)?);
    let made = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context("mount")?;
    leave_open(context);
    Ok(made)
}

/// Hands the file system its own words.
fn configure(context: BorrowedFd<'_>, mount: &ParsedMount, words: &[&str]) -> anyhow::Result<()> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
    let source = source_name(mount);
    fsconfig_set_string(context, "source", source).with_context(|| format!("source {source}"))?;
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context, key, value),
            // devpts has had no other way since Linux 4.7, and fsconfig does not know the word.
            None if *word == "newinstance" => Ok(()),
            None => fsconfig_set_flag(context, *word),
        }
        .with_context(|| format!("option {word:?}"))?;
    }
    if is_read_only_device(mount) {
        fsconfig_set_flag(context, "ro").context("option \"ro\"")?;
    }
    fsconfig_create(context).with_context(|| format!("create {}", mount.kind))
}

/// Adds what the file system itself says of the failure: fsopen(2) has it in the context's log.
fn explained(context: BorrowedFd<'_>, error: anyhow::Error) -> anyhow::Error {
    let mut line = [0; 1024];
    match rustix::io::read(context, &mut line) {
        Ok(count) => {
            error.context(String::from_utf8_lossy(&line[..count]).trim_start_matches("e ").trim_end().to_owned())
        }
        Err(_) => error,
    }
}

/// Mounts with words that fsconfig(2) does not take: mount(2) takes a page of them.
fn mount_at(target: BorrowedFd<'_>, mount: &ParsedMount, words: &[&str]) -> anyhow::Result<()> {
    // A label may have a comma.
    let quoted =
        |word: &&str| word.strip_prefix("context=").map_or((*word).to_owned(), |label| format!("context=\"{label}\""));
    let data = CString::new(words.iter().map(quoted).collect::<Vec<_>>().join(",")).context("options")?;
    ensure!(data.count_bytes() < 4096, "options of {} bytes are more than a page", data.count_bytes());
    let flags = if is_read_only_device(mount) { MountFlags::RDONLY } else { MountFlags::empty() };
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    rustix::mount::mount(source_name(mount), path, mount.kind.as_str(), flags, data.as_c_str()).context("mount")
}

/// A block device has two layers of read-only: the mount, and the superblock, which the file system must be told (it
/// would replay its journal).
fn is_read_only_device(mount: &ParsedMount) -> bool {
    mount.source.starts_with("/dev/") && mount.attributes.set & RDONLY != 0
}

fn refused_sysfs(mount: &ParsedMount, made: &anyhow::Result<OwnedFd>) -> bool {
    let refused = |error: &anyhow::Error| error.downcast_ref() == Some(&rustix::io::Errno::PERM);
    mount.kind == "sysfs" && made.as_ref().is_err_and(refused)
}

/// Nothing but procfs may be `/proc`, and nothing may be mounted inside it but what is known to be harmless: later
/// steps of runtimes and of the container's programs trust what they read and write there.
fn check_proc(mount: &ParsedMount, target: BorrowedFd<'_>, tree: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
    let magic = |file: BorrowedFd<'_>| rustix::fs::fstatfs(file).map(|found| found.f_type);
    let destination = root::clean(&mount.destination);
    if destination == Path::new("proc") {
        // A directory of a procfs has other files than /proc has, and other names for them.
        let is_root = |tree| rustix::fs::fstat(tree).is_ok_and(|stat| stat.st_ino == PROC_ROOT);
        let is_proc = tree.is_some_and(|tree| magic(tree) == Ok(PROC_MAGIC) && is_root(tree));
        ensure!(mount.kind == "proc" || is_proc, "only \"proc\" type is allowed to be mounted on /proc");
        return Ok(());
    }
    let inside = destination.strip_prefix("proc").ok();
    if inside.is_none() && magic(target)? != PROC_MAGIC {
        return Ok(());
    }
    let harmless = inside.is_some_and(|path| REPLACEABLE.split(' ').any(|name| path == Path::new(name)));
    ensure!(harmless, "{:?} cannot be mounted because it is inside /proc", mount.destination.display().to_string());
    Ok(())
}

/// `tmpcopyup`: the tmpfs begins with what the directory held.
///
/// Names are only ever opened in an open directory and not through links; it is the image's content, which nobody
/// runs yet.
fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> anyhow::Result<()> {
    use rustix::fs::{AtFlags, FileType};
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = |at| rustix::fs::openat(at, name, flags, Mode::empty());
                copy_tree(open(from)?.as_fd(), open(to)?.as_fd())?;
            }
            FileType::RegularFile => {
                let source =
                    rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = rustix::fs::openat(to, name, flags, mode)?;
                std::io::copy(&mut fs::File::from(source), &mut fs::File::from(target))?;
            }
            FileType::Symlink => rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, to, name)?,
            kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // After chown(2), which clears the set-user-ID and set-group-ID bits; and again, because the umask cut
            // the mode.
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
