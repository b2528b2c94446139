//! What is left in sight of the host where the container's root is only moved over the host's (`--no-pivot`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Unmounts the host's own procfs and sysfs: while one is in the mount namespace, the kernel lets a user namespace in
/// the container mount another, without what is masked: `mount_namespaces(7)`, "Restrictions on mount namespaces".
pub(super) fn hide_kernel_files(rootfs: &Path) -> anyhow::Result<()> {
    let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    for place in kernel_mounts(&table).into_iter().filter(|place| !place.starts_with(rootfs)) {
        if unmount(&place, UnmountFlags::DETACH).is_err() {
            // In a user namespace it is locked, but can be covered.
            mount("tmpfs", &place, "tmpfs", MountFlags::RDONLY, None)
                .with_context(|| format!("cover {}", place.display()))?;
        }
    }
    Ok(())
}

/// Returns where whole procfs and sysfs are mounted, the latest first.
fn kernel_mounts(table: &[u8]) -> Vec<PathBuf> {
    let place = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, place) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let whole = root == b"/" && matches!(kind, b"proc" | b"sysfs");
        whole.then(|| PathBuf::from(OsString::from_vec(crate::file::unescape(place))))
    };
    let mut places: Vec<PathBuf> = table.split(|byte| *byte == b'\n').filter_map(place).collect();
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_kernel_file_systems_are_found() {
        let table = "22 28 0:20 / /sys rw shared:7 - sysfs sysfs rw\n\
                     23 28 0:21 / /my\\040proc rw - proc proc rw\n\
                     24 28 0:21 /sys /x rw - proc proc rw\n\
                     25 28 8:1 / / rw shared:1 master:2 - ext4 /dev/vda rw\n";
        assert_eq!(kernel_mounts(table.as_bytes()), [Path::new("/my proc"), Path::new("/sys")]);
    }
}
