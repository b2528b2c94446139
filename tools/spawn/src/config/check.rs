//! What contradicts itself in a config.json is refused before anything is made.

use std::os::fd::BorrowedFd;
use std::path::{Component, Path};

use anyhow::{Context, bail, ensure};

use super::{Config, Linux, NamespaceKind, Process};

impl Config {
    /// Refuses a configuration that cannot mean what it says.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        use NamespaceKind as Kind;
        self.check_version()?;
        let Some(root) = &self.root else { bail!("config.json: root must not be empty") };
        ensure!(!root.path.as_os_str().is_empty(), "config.json: root.path must not be empty");
        if let Some(process) = &self.process {
            process.check()?;
        }
        let linux = &self.linux;
        let mappings = self.mounts.iter().flat_map(|mount| mount.uid_mappings.iter().chain(&mount.gid_mappings));
        for map in mappings.chain(&linux.uid_mappings).chain(&linux.gid_mappings) {
            check_ids([map.container_id, map.host_id])?;
            let last = u64::from(map.container_id.max(map.host_id)) + u64::from(map.size);
            // Id 4294967295 cannot be mapped (user_namespaces(7)): it is the -1 of chown(2) and setresuid(2). The
            // kernel would say no more than EINVAL.
            ensure!(u32::try_from(last).is_ok(), "config.json: a mapping of {} ids reaches id -1", map.size);
        }
        check_ids(linux.devices.iter().flat_map(|device| device.uid.into_iter().chain(device.gid)))?;
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            // runtime-spec, config-linux.md, "Namespaces": a runtime has to refuse a type that is named twice. Which
            // path would be joined is open otherwise.
            let again = linux.namespaces[..index].iter().any(|other| other.kind == namespace.kind);
            ensure!(!again, "config.json: malformed spec file: duplicated ns {:?}", namespace.kind);
            let length = namespace.path.as_os_str().len();
            ensure!(length < 4096, "config.json: path of namespace {:?} is too long", namespace.kind);
        }
        let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        let restricted = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        let (times, devices) = (!linux.time_offsets.is_empty(), !linux.net_devices.is_empty());
        for (given, kind, words) in [
            (mapped, Kind::User, "User namespace mappings specified, but USER namespace isn't enabled in the config"),
            (!self.hostname.is_empty(), Kind::Uts, "unable to set hostname without a private UTS namespace"),
            (!self.domainname.is_empty(), Kind::Uts, "unable to set domainname without a private UTS namespace"),
            (times, Kind::Time, "time namespace offsets specified, but time namespace isn't enabled in the config"),
            (restricted, Kind::Mount, "unable to restrict sys entries without a private MNT namespace"),
            (devices, Kind::Network, "unable to move network devices without a private NET namespace"),
        ] {
            ensure!(!given || linux.has(kind), words);
        }
        // To run on without the limits that somebody asked for would be worse than not to run.
        let rdt = linux.intel_rdt.is_some();
        ensure!(!rdt, "intelRdt is specified in config, but Intel RDT is not supported or enabled");
        for (name, device) in &linux.net_devices {
            let wanted = if device.name.is_empty() { name } else { &device.name };
            // The kernel would move it first and then refuse the name: dev_valid_name() in net/core/dev.c.
            let bad = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace();
            let valid = wanted.len() < 16 && !matches!(wanted.as_str(), "" | "." | "..") && !wanted.contains(bad);
            ensure!(valid, "config.json: netDevices {name}: {wanted:?} is not a name for a network device");
        }
        let maps = [&linux.uid_mappings, &linux.gid_mappings];
        // Without a map every id in the namespace is the overflow id, and nobody there can become root to build the
        // container.
        let unmapped = linux.makes(Kind::User) && maps.into_iter().any(Vec::is_empty);
        ensure!(!unmapped, "config.json: a new user namespace needs uidMappings and gidMappings");
        linux.sysctl.keys().try_for_each(|key| check_sysctl(linux, key, &self.hostname))?;
        self.check_mounts()
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let mut numbers = self.oci_version.split(['-', '+']).next().unwrap_or("").split('.');
        let valid = numbers.clone().count() == 3 && numbers.clone().all(|number| number.parse::<u32>().is_ok());
        ensure!(valid, "config.json: ociVersion: {:?} is not a version", self.oci_version);
        // The specification is versioned semantically: every 1.x is meant to be readable by a runtime that knows 1.0.
        ensure!(numbers.next() == Some("1"), "config.json: ociVersion {} is not supported", self.oci_version);
        Ok(())
    }

    fn check_mounts(&self) -> anyhow::Result<()> {
        for mount in &self.mounts {
            let path = &mount.destination;
            ensure!(!path.as_os_str().is_empty(), "config.json: mount without destination");
            ensure!(!path.to_string_lossy().contains('\0'), "config.json: mount destination with a NUL");
            let (both, path) = (mount.uid_mappings.is_empty() == mount.gid_mappings.is_empty(), path.display());
            ensure!(both, "config.json: mount {path}: id-mapped mounts need both uidMappings and gidMappings");
        }
        Ok(())
    }
}

impl Process {
    /// Refuses what no process can be made of.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.args.is_empty(), "config.json: args must not be empty");
        // runtime-spec, config.md, "Process": cwd has to be absolute. It cannot be looked for here: it is a path of
        // the container's.
        ensure!(Path::new(&self.cwd).has_root(), "config.json: cwd must be an absolute path");
        check_ids(self.user.additional_gids.iter().copied().chain([self.user.uid, self.user.gid]))?;
        let strings = self.args.iter().chain(&self.env);
        ensure!(!strings.into_iter().any(|string| string.contains('\0')), "config.json: args or env contain a NUL");
        // A variable that begins with `=` has no name, and programs differ in what they make of it.
        let nameless = self.env.iter().find(|variable| variable.starts_with('='));
        ensure!(nameless.is_none(), "invalid environment variable {:?}", nameless.map_or("", String::as_str));
        let known = |label: &str, file: &str| label.is_empty() || Path::new(file).exists();
        // A profile that nobody enforces would be a container with less confinement than its configuration says.
        let apparmor = known(&self.apparmor_profile, "/sys/module/apparmor/parameters/enabled");
        ensure!(apparmor, "apparmor: config provided but apparmor not supported");
        let selinux = known(&self.selinux_label, "/sys/fs/selinux/enforce");
        ensure!(selinux, "selinux label is specified in config, but selinux is disabled or not supported");
        for (index, limit) in self.rlimits.iter().enumerate() {
            let again = self.rlimits[..index].iter().any(|other| other.kind == limit.kind);
            ensure!(!again, "config.json: duplicated rlimit {}", limit.kind);
        }
        Ok(())
    }
}

/// Beyond these the kernel reads -1 as "no change", which leaves a process root, and programs read negative numbers.
fn check_ids(ids: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
    let wrong = ids.into_iter().find(|id| i32::try_from(*id).is_err());
    ensure!(wrong.is_none(), "user and group ids end at {}: {} is too large", i32::MAX, wrong.unwrap_or_default());
    Ok(())
}

/// Only what a namespace of the container's own confines may be set (runc's list).
fn check_sysctl(linux: &Linux, key: &str, hostname: &str) -> anyhow::Result<()> {
    const IPC: &str = "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni \
                       kernel.shm_rmid_forced";
    let path = sysctl_path(key);
    let dotted = path.replace('/', ".");
    // A key becomes a path below /proc/sys, which is written with this process's rights: `..` must not lead out of
    // it.
    let only_names = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(only_names, "sysctl {key:?} is not a name");
    if IPC.split(' ').any(|own| own == dotted) || dotted.starts_with("fs.mqueue.") {
        ensure!(linux.has(NamespaceKind::Ipc), "sysctl {key:?} is not allowed in the hosts ipc namespace");
    } else if dotted.starts_with("net.") {
        let joined = linux.joins(NamespaceKind::Network);
        // A container may join a namespace by a path, and that path may be the host's own.
        let is_hosts = joined.is_some_and(sys::namespace::is_own_network);
        let own = linux.has(NamespaceKind::Network) && !is_hosts;
        ensure!(own, "sysctl {key:?} not allowed in host network namespace");
    // The configuration has a member for the host name: with both, which of them counts would depend on the order of
    // writing.
    } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" && hostname.is_empty() {
        ensure!(linux.has(NamespaceKind::Uts), "sysctl {key:?} is not allowed in the hosts uts namespace");
    } else if dotted.starts_with("user.") {
        ensure!(linux.has(NamespaceKind::User), "sysctl {key:?} is not allowed in the hosts user namespace");
    } else {
        bail!("sysctl {key:?} is not in a separate kernel namespace");
    }
    Ok(())
}

/// Turns `net.ipv4.conf.eth0/1.x` into a path: the separator that comes first separates.
pub(crate) fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_owned(),
        _ => key.split('.').map(|part| part.replace('/', ".")).collect::<Vec<_>>().join("/"),
    }
}

impl Linux {
    /// Tells whether the container has a namespace of this type apart from the caller's, new or joined.
    pub(crate) fn has(&self, kind: NamespaceKind) -> bool {
        self.namespaces.iter().any(|namespace| namespace.kind == kind)
    }

    /// Returns the namespace of this type that is to be joined.
    pub(crate) fn joins(&self, kind: NamespaceKind) -> Option<&Path> {
        let joined = self.namespaces.iter().find(|namespace| namespace.kind == kind);
        joined.map(|namespace| namespace.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// Enters a namespace that is to be joined.
    pub(crate) fn enter(&self, kind: NamespaceKind, namespace: BorrowedFd<'_>) -> anyhow::Result<()> {
        let path = self.joins(kind).unwrap_or(Path::new("")).display();
        sys::namespace::enter(namespace, kind).with_context(|| format!("join the {} namespace {path}", kind.name()))
    }

    /// Tells whether a new namespace of this type is to be made.
    pub(crate) fn makes(&self, kind: NamespaceKind) -> bool {
        self.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str) -> Result<(), String> {
        Config::parse(config.as_bytes()).map_err(|e| e.to_string())?.check().map_err(|e| e.to_string())
    }

    #[test]
    fn contradictions_are_refused() {
        for (members, want) in [
            (r#""hostname":"a""#, "hostname without"),
            (r#""linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "duplicated ns"),
            (r#""linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#, "USER namespace isn't enabled"),
            (r#""linux":{"sysctl":{"net.ipv4.ip_forward":"1"}}"#, "not allowed in host network"),
            (r#""linux":{"sysctl":{"kernel.core_pattern":"1"}}"#, "not in a separate kernel namespace"),
            (
                r#""linux":{"namespaces":[{"type":"network"}],"sysctl":{"net/../kernel/core_pattern":"1"}}"#,
                "is not a name",
            ),
            (r#""process":{"args":["a\u0000b"],"cwd":"/"}"#, "NUL"),
            (r#""process":{"args":["a"],"cwd":"x"}"#, "absolute"),
            (r#""process":{"args":["a"],"cwd":"/","user":{"uid":4294967296}}"#, "u32"),
            (r#""process":{"args":["a"],"cwd":"/","user":{"uid":4294967295}}"#, "4294967295 is too large"),
            (r#""process":{"args":["a"],"cwd":"/","user":{"gid":2147483648}}"#, "2147483648 is too large"),
            (r#""process":{"args":["a"],"cwd":"/","user":{"additionalGids":[0,4294967295]}}"#, "4294967295 is too"),
            (r#""linux":{"devices":[{"path":"/a","type":"c","uid":4294967295}]}"#, "4294967295 is too large"),
            (r#""linux":{"uidMappings":[{"containerID":0,"hostID":4294967295,"size":1}]}"#, "4294967295 is too large"),
            (r#""linux":{"gidMappings":[{"containerID":2147483647,"hostID":0,"size":2147483649}]}"#, "reaches id -1"),
        ] {
            let got = check(&format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},{members}}}"#));
            assert!(got.as_ref().is_err_and(|error| error.contains(want)), "{members}: {got:?}");
        }
        for version in ["", "2.0.0", "1.0", "x"] {
            assert!(
                check(&format!(r#"{{"ociVersion":"{version}","root":{{"path":"rootfs"}}}}"#)).is_err(),
                "{version}"
            );
        }
        assert_eq!(check(r#"{"ociVersion":"1.2.0-rc.1+dev","root":{"path":"rootfs"}}"#), Ok(()));
    }

    #[test]
    fn the_first_separator_of_a_sysctl_separates() {
        for (key, want) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ] {
            assert_eq!(sysctl_path(key), want);
        }
    }
}
