//! What a test needs from the machine. Unmet it is shown as ignored, with the reason, and never as passed.

use std::path::Path;
use std::sync::OnceLock;

use super::images;

/// One need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// User 0 with all capabilities, who may make namespaces. Gives the test a sandbox of namespaces.
    Root,
    /// Network namespaces, and `ip` to set them up.
    NetNs,
    /// The overlay file system.
    Overlay,
    /// `nf_tables` in the kernel, and `nft` to look at them.
    Nft,
    /// The test images, and a registry that serves them inside the sandbox.
    Registry,
    /// A cgroup2 hierarchy; with [`Need::Root`] it is the only one in the sandbox's sight, with what controllers it has.
    UnifiedCgroups,
    /// cgroup v1 hierarchies; with [`Need::Root`] the sandbox sees no cgroup2.
    LegacyCgroups,
    /// A controller that the cgroup2 hierarchy has.
    UnifiedController(&'static str),
    /// A file of the kernel's.
    File(&'static str),
    /// A program in PATH.
    Program(&'static str),
}

/// Returns why the needs are not met, or `None`.
pub(crate) fn unmet(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| match need {
        Need::Root => root(),
        Need::NetNs => root().or_else(|| program("ip")),
        Need::Overlay => overlay(),
        Need::Nft => root().or_else(|| program("nft")).or_else(nf_tables),
        Need::Registry => root().or_else(images::unmet),
        Need::UnifiedCgroups => there(["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"]),
        Need::LegacyCgroups => there(["/sys/fs/cgroup/pids/tasks", "/sys/fs/cgroup/devices/tasks"]),
        Need::UnifiedController(name) => unified_controller(name),
        Need::File(path) => there([path, path]),
        Need::Program(name) => program(name),
    })
}

/// Finds a program in PATH and in the directories of system programs.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|file| file.is_file())
}

fn there(files: [&str; 2]) -> Option<String> {
    let any = files.iter().any(|file| Path::new(file).exists());
    (!any).then(|| format!("no {} on this machine", files[0]))
}

fn unified_controller(name: &str) -> Option<String> {
    let controllers = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    let text = controllers.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let there = text.split_whitespace().any(|controller| controller == name);
    (!there).then(|| format!("cgroup2 has no controller {name} here"))
}

fn program(name: &str) -> Option<String> {
    find_program(name).is_none().then(|| format!("no {name} on this machine"))
}

fn root() -> Option<String> {
    static MAY: OnceLock<bool> = OnceLock::new();
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let may = *MAY.get_or_init(|| {
        std::process::Command::new("unshare").args(["-m", "-n", "-p", "-f", "true"]).status().is_ok_and(|s| s.success())
    });
    (!may).then(|| "may not make namespaces".to_owned())
}

fn overlay() -> Option<String> {
    static MODULE: OnceLock<bool> = OnceLock::new();
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let there = known.contains("\toverlay")
        || *MODULE.get_or_init(|| {
            std::process::Command::new("modprobe").args(["-q", "overlay"]).status().is_ok_and(|s| s.success())
        });
    (!there).then(|| "no overlay file system".to_owned())
}

fn nf_tables() -> Option<String> {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| {
        let nft = find_program("nft").unwrap_or_else(|| "nft".into());
        std::process::Command::new("unshare")
            .arg("-n")
            .arg(nft)
            .args(["add", "table", "inet", "probe"])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    (!there).then(|| "no nf_tables in this kernel".to_owned())
}
