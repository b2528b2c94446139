//! Addresses as CNI's plugin host-local notes them, for a bridge that CNI's containers are on too: in a directory for the
//! network a file for each address, with the container's id and its interface in it.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use container::{ContainerId, NetworkName};
use rustix::fs::{FlockOperation, flock};

/// Where the plugin has its networks, unless it is told another place.
const NETWORKS: &str = "/var/lib/cni/networks";

/// A network's directory, locked: nobody chooses an address of it meanwhile.
#[derive(Debug)]
pub(super) struct Network {
    directory: PathBuf,
    _lock: File,
}

impl Network {
    /// Opens the network of that name; it is made if it is not there.
    pub(super) fn open(name: &NetworkName) -> Result<Self> {
        let directory = Path::new(NETWORKS).join(&**name);
        let open = || -> std::io::Result<File> {
            fs::create_dir_all(&directory)?;
            // The plugin's own lock file, and its way of locking (flock(2)): both see each other's addresses.
            let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        };
        let lock = open().with_context(|| format!("lock {}", directory.display()))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Returns who has an address.
    pub(super) fn holder(&self, address: IpAddr) -> Option<String> {
        let path = self.directory.join(address.to_string());
        path.exists().then(|| id_in(&path).unwrap_or_default())
    }
}

/// Notes that a container has an address. The network is locked by who has chosen it.
pub(super) fn note(network: &NetworkName, address: IpAddr, id: &ContainerId, interface: &str) -> Result<()> {
    let path = Path::new(NETWORKS).join(&**network).join(address.to_string());
    // `O_EXCL` is the allocation itself, as with the plugin: of two that write, one gets EEXIST.
    let write = || File::options().write(true).create_new(true).open(&path)?.write_all(text(id, interface).as_bytes());
    write().with_context(|| format!("write {}", path.display()))
}

/// Removes what is noted for a container, in whichever network it is, but `kept`, which another root's container of that
/// id has.
pub(super) fn withdraw(id: &ContainerId, kept: &[IpAddr]) -> Result<()> {
    let networks = sys::file::there(fs::read_dir(NETWORKS)).with_context(|| format!("read {NETWORKS}"))?;
    for network in networks.into_iter().flatten().flatten() {
        for (path, address) in addresses(&network.path()) {
            if id_in(&path).as_deref() == Some(&**id) && !kept.contains(&address) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

fn text(id: &str, interface: &str) -> String {
    // The plugin writes a line end of two bytes, and compares the whole text.
    format!("{id}\r\n{interface}")
}

fn addresses(directory: &Path) -> Vec<(PathBuf, IpAddr)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?))).collect()
}

fn id_in(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}
