//! Device nodes and links in `/dev` (runtime-spec, config-linux.md, "Default Devices", "Devices"; runtime-linux.md,
//! "Dev symbolic links").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sys::mount::{MountAttributes, attach, clone_tree, set_attributes};

use super::Rootfs;
use crate::config::{Device, NamespaceKind};
use crate::mount::RDONLY;

const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

impl Rootfs<'_> {
    pub(super) fn make_devices(&self) -> anyhow::Result<()> {
        // Where /dev is a link, nodes would be made in a directory that the image chose: a volume of the host, say.
        let dev = self.ordinary_directory(Path::new("/dev"));
        let dev = dev.context("/dev of the container is not an ordinary directory")?;
        self.make_nodes(dev.as_fd())?;
        let core = Some(("core", "/proc/kcore")).filter(|(_, target)| Path::new(target).exists());
        for (name, target) in LINKS.into_iter().chain(core) {
            match rustix::fs::symlinkat(target, &dev, name) {
                // Other names that the image has stay as they are, as with runc: they lead nowhere but into the
                // container.
                Err(Errno::EXIST) if name == "ptmx" => replace_ptmx(dev.as_fd())?,
                Err(Errno::EXIST) => {}
                other => other.with_context(|| format!("link /dev/{name}"))?,
            }
        }
        crate::file::leave_open(dev);
        Ok(())
    }

    fn make_nodes(&self, dev: BorrowedFd<'_>) -> anyhow::Result<()> {
        let devices = &self.config.linux.devices;
        for (name, major, minor) in DEFAULT {
            if !devices.iter().any(|device| root::clean(&device.path) == Path::new("dev").join(name)) {
                let node = Node {
                    kind: FileType::CharacterDevice,
                    mode: 0o666,
                    number: rustix::fs::makedev(major, minor),
                    owner: (None, None),
                };
                self.make_node(dev, name, &Path::new("/dev").join(name), &node)
                    .with_context(|| format!("make /dev/{name}"))?;
            }
        }
        devices.iter().try_for_each(|device| {
            self.make_extra(device).with_context(|| format!("make device {}", device.path.display()))
        })
    }

    fn make_extra(&self, device: &Device) -> anyhow::Result<()> {
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name().and_then(|name| name.to_str()))
        else {
            bail!("not the path of a file");
        };
        // runc keeps these for itself; some hosts list them.
        if [Path::new("/dev/ptmx"), Path::new("/dev/console")].contains(&device.path.as_path()) {
            return Ok(());
        }
        let parent = root::make_directory(self.root(), parent, 0o755)?;
        let node = Node::of(device)?;
        self.make_node(parent.as_fd(), name, &Path::new("/").join(root::clean(&device.path)), &node)
    }

    /// Makes a node. A user namespace may make none, so it gets the one that the host has under this path, mounted.
    ///
    /// mknod(2) of devices takes `CAP_MKNOD` in the first user namespace, and gives EPERM in all others. The same
    /// answer comes where a device cgroup of the caller's forbids it; then the host's node may still be mounted.
    fn make_node(&self, parent: BorrowedFd<'_>, name: &str, path: &Path, node: &Node) -> anyhow::Result<()> {
        if self.config.linux.has(NamespaceKind::User) {
            return bind_node(parent, name, path, node);
        }
        // Relative to an open directory, and mknod(2) follows no link in the last part: nothing can lead it out of
        // the root.
        match rustix::fs::mknodat(parent, name, node.kind, Mode::from_raw_mode(node.mode), node.number) {
            Ok(()) if node.owner == (None, None) => Ok(()),
            Ok(()) => {
                let (uid, gid) = (node.owner.0.map(Uid::from_raw), node.owner.1.map(Gid::from_raw));
                rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .with_context(|| format!("chown({name}, {uid:?}, {gid:?})"))
            }
            // What the image has under the name must be the same device (runtime-spec, "Devices").
            Err(Errno::EXIST) => node.compare(&rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?),
            Err(Errno::PERM) => bind_node(parent, name, path, node),
            Err(error) => Err(error).with_context(|| {
                let (kind, number) = (node.kind, node.number);
                let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
                format!("mknod({name}, {kind:?} {major}:{minor}, {:#o})", node.mode)
            }),
        }
    }
}

struct Node {
    kind: FileType,
    mode: u32,
    number: u64,
    owner: (Option<u32>, Option<u32>),
}

impl Node {
    fn of(device: &Device) -> anyhow::Result<Self> {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => bail!("unknown type {other:?}"),
        };
        // Of greater ones the kernel would take the lower bits, which are another device's.
        let number = |number: i64, bits: u32| {
            u32::try_from(number)
                .ok()
                .filter(|number| number >> bits == 0)
                .with_context(|| format!("device number {}:{} is out of range", device.major, device.minor))
        };
        let number = if kind == FileType::Fifo {
            0
        } else {
            rustix::fs::makedev(number(device.major, 12)?, number(device.minor, 20)?)
        };
        Ok(Self { kind, mode: device.file_mode.unwrap_or(0o666) & 0o7777, number, owner: (device.uid, device.gid) })
    }

    fn compare(&self, stat: &rustix::fs::Stat) -> anyhow::Result<()> {
        let same = FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == self.number);
        ensure!(same, "a file that is not this device is in its place");
        Ok(())
    }
}

fn bind_node(parent: BorrowedFd<'_>, name: &str, source: &Path, node: &Node) -> anyhow::Result<()> {
    let source = crate::file::open(source, OFlags::PATH).context("the host's")?;
    node.compare(&rustix::fs::fstat(&source)?).context("the host's")?;
    let tree = clone_tree(source.as_fd(), false).context("clone the host's")?;
    // A read-only mount forbids changes to the node, not writes to the device behind it: special files are exempt
    // (`special_file` in the kernel's fs/open.c).
    set_attributes(tree.as_fd(), false, &MountAttributes::new(RDONLY, 0)).context("make it read-only")?;
    Ok(attach(tree.as_fd(), place_for(parent, name)?.as_fd())?)
}

/// Opens the file `name` in an open directory, made if it is not there, never through a link.
pub(crate) fn place_for(parent: BorrowedFd<'_>, name: &str) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644));
    sys::unless(&[Errno::EXIST], made).with_context(|| format!("make {name}"))?;
    // Opened anew rather than kept from above: O_CREAT with O_PATH does nothing, and a file that exists is not opened
    // for writing, which a FIFO of the image would hang.
    let place = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    ensure!(!matches!(kind, FileType::Symlink | FileType::Directory), "{name} is not a file");
    Ok(place)
}

/// An image's own `/dev/ptmx` would be the host's terminal multiplexer.
fn replace_ptmx(dev: BorrowedFd<'_>) -> anyhow::Result<()> {
    rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty()).context("remove the image's /dev/ptmx")?;
    rustix::fs::symlinkat("pts/ptmx", dev, "ptmx").context("link /dev/ptmx")
}
