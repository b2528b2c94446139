//! Settings of the calling thread's network namespace (kernel documentation, networking/ip-sysctl), above all whether the host
//! forwards packets: `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};

const SETTINGS: &str = "/proc/sys/net";

/// Tells whether the host forwards packets of a family.
pub fn is_on(is_ipv4: bool) -> bool {
    is_set(switch(is_ipv4))
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
    set(switch(is_ipv4), "1")
}

fn switch(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" }
}

/// Reads a setting, named as below /proc/sys/net.
pub fn setting(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new(SETTINGS).join(name))?.trim().to_owned())
}

/// Tells whether a switch is on.
pub fn is_set(name: &str) -> bool {
    setting(name).is_ok_and(|value| value != "0")
}

/// Writes a setting. Errors name the file.
///
/// It counts for the network namespace of the calling thread, whatever `/proc` is mounted: the kernel looks at the
/// opener.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new(SETTINGS).join(name);
    log::debug!("write {value} to {}", path.display());
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))
}

/// Writes settings of one directory, those that have another value: /proc/sys may be read-only. The directory is looked up
/// once, because the kernel looks through those of all namespaces for it. Errors name it.
pub fn set_all(directory: &str, settings: &[(&str, &str)]) -> io::Result<()> {
    let path = Path::new(SETTINGS).join(directory);
    let write = || -> io::Result<()> {
        let directory = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        for (name, value) in settings {
            let open = |flags| openat(&directory, *name, flags | OFlags::CLOEXEC, Mode::empty()).map(File::from);
            if io::read_to_string(open(OFlags::RDONLY)?)?.trim() != *value {
                log::debug!("write {value} to {}", path.join(name).display());
                open(OFlags::WRONLY)?.write_all(value.as_bytes())?;
            }
        }
        Ok(())
    };
    write().map_err(|error| io::Error::new(error.kind(), format!("set {}: {error}", path.display())))
}

/// A router takes no routes from router advertisements, so that the host would lose its default route at the moment that it
/// forwards, unless `accept_ra` is 2: "overrule forwarding behaviour". Where it is 1, nothing else changes by that.
fn keep_advertised_routes() {
    let links = fs::read_dir(Path::new(SETTINGS).join("ipv6/conf")).into_iter().flatten().flatten();
    for link in links.filter_map(|link| link.file_name().into_string().ok()) {
        let name = format!("ipv6/conf/{link}/accept_ra");
        if !["all", "default", "lo"].contains(&link.as_str()) && setting(&name).is_ok_and(|value| value == "1") {
            match set(&name, "2") {
                Ok(()) => log::info!("{name} is 2 now: the host forwards, and keeps its advertised routes"),
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}
