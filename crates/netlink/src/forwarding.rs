//! Whether the host forwards packets: `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding` (kernel documentation,
//! networking/ip-sysctl).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SETTINGS: &str = "/proc/sys/net";

/// Tells whether the host forwards packets of a family.
pub fn is_on(is_ipv4: bool) -> bool {
    fs::read_to_string(switch(is_ipv4)).is_ok_and(|value| value.trim() != "0")
}

/// Lets the host forward packets of a family; where it does, nothing is written, because /proc/sys may be read-only.
/// Errors name the file.
pub fn turn_on(is_ipv4: bool) -> io::Result<()> {
    if is_on(is_ipv4) {
        return Ok(());
    }
    if !is_ipv4 {
        keep_advertised_routes();
    }
    write(&switch(is_ipv4), "1")
}

fn switch(is_ipv4: bool) -> PathBuf {
    Path::new(SETTINGS).join(if is_ipv4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" })
}

/// A router takes no routes from router advertisements, so that the host would lose its default route at the moment that it
/// forwards, unless `accept_ra` is 2: "overrule forwarding behaviour". Where it is 1, nothing else changes by that.
fn keep_advertised_routes() {
    let links = fs::read_dir(Path::new(SETTINGS).join("ipv6/conf")).into_iter().flatten().flatten();
    for link in links.filter(|link| !["all", "default", "lo"].iter().any(|name| link.file_name() == *name)) {
        let path = link.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            match write(&path, "2") {
                Ok(()) => log::info!("{} is 2 now: the host forwards, and keeps its advertised routes", path.display()),
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    log::debug!("write {value} to {}", path.display());
    fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))
}
