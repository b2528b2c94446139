//! An image's config and the user's options become config.json: by image-spec, conversion.md, and where that leaves
//! room, by docker's defaults. Pure: the same input gives the same bytes. Built as JSON, since the maps of `oci-spec`'s
//! runtime types have no order.

mod annotations;
mod resources;

use anyhow::{Result, ensure};
use oci_spec::image::{Config, ImageConfiguration};
use rustix::thread::CapabilitySet;
use serde_json::{Map, Value, json};

use crate::capability;
use crate::device::Device;
use crate::environment::{Defaults, Variable, environment};
use crate::init;
use crate::mount::{self, Mount};
use crate::namespace::{Namespace, Shared};
use crate::request::BundleRequest;
use crate::security::SecurityOption;
use crate::user::User;
pub(crate) use resources::object;

pub(crate) use annotations::dropped as dropped_annotations;

/// The version that every runtime in use accepts (crun of Debian 12 refuses 1.1 and later), and no field is younger.
const OCI_VERSION: &str = "1.0.2";

#[rustfmt::skip]
const MASKED: [&str; 12] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const SHM_SIZE: i64 = 64 << 20;

/// What was found out before: about the host, the image's accounts and the bundle.
pub(crate) struct Facts {
    /// The last part of `linux.cgroupsPath`.
    pub(crate) cgroup: String,
    /// `root.path`.
    pub(crate) root: String,
    pub(crate) user: User,
    pub(crate) hostname: String,
    /// Variables of `--env-file` and `--env`, in this order.
    pub(crate) variables: Vec<Variable>,
    /// Every mount with its source on the host, parents first.
    pub(crate) mounts: Vec<(Mount, String)>,
    /// The files that the bundle has for the container: destination and source.
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) namespaces: Shared,
    /// The program that becomes the first process, where one is wanted.
    pub(crate) init: Option<String>,
    /// Where /dev/shm comes from if not from a tmpfs of the container's own.
    pub(crate) shm: Option<String>,
    pub(crate) devices: Vec<Device>,
    /// `linux.resources.blockIO`.
    pub(crate) block_io: Option<Value>,
    pub(crate) capabilities: CapabilitySet,
    /// Files of this host's that are hidden beside those of every host.
    pub(crate) masked: Vec<String>,
    /// `linux.seccomp`; `None` is unconfined.
    pub(crate) seccomp: Option<Value>,
}

/// Returns config.json.
pub(crate) fn translate(image: &ImageConfiguration, options: &BundleRequest, facts: &Facts) -> Result<Value> {
    let empty = Config::default();
    let config = image.config().as_ref().unwrap_or(&empty);
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": process(config, options, facts)?,
        "root": {"path": facts.root, "readonly": options.read_only},
    });
    // Runtimes refuse a host name in a UTS namespace that is joined or the host's.
    if facts.namespaces.uts == Namespace::Private {
        spec["hostname"] = json!(facts.hostname);
    }
    spec["mounts"] = Value::Array(mounts(options, facts));
    spec["annotations"] = json!(annotations::annotations(image, config, options));
    spec["linux"] = linux(options, facts)?;
    Ok(spec)
}

fn process(config: &Config, options: &BundleRequest, facts: &Facts) -> Result<Value> {
    let defaults = Defaults { hostname: &facts.hostname, terminal: options.tty, home: facts.user.home.as_str() };
    let user = object([
        ("uid", Some(json!(facts.user.uid))),
        ("gid", Some(json!(facts.user.gid))),
        ("umask", options.umask.map(Value::from)),
        ("additionalGids", Some(json!(facts.user.groups))),
    ]);
    let names = capability::names(facts.capabilities);
    // As docker has it: the kernel would take the other two from a user that is not root at execve anyway.
    let capabilities = if facts.user.uid == 0 {
        json!({"bounding": names, "effective": names, "permitted": names})
    } else {
        json!({"bounding": names})
    };
    // The last of several counts, as everywhere on the command line.
    let no_new_privileges = options.confinement.iter().rev().find_map(|option| match option {
        SecurityOption::NoNewPrivileges(set) => Some(*set),
        _ => None,
    });
    let profile = options.confinement.iter().rev().find_map(|option| match option {
        SecurityOption::AppArmor(profile) => Some(profile.clone()),
        _ => None,
    });
    let ulimits = &options.limits.ulimit;
    let environment = environment(&defaults, config.env().as_deref().unwrap_or_default(), &facts.variables);
    let process = object([
        ("terminal", Some(json!(options.tty))),
        ("user", user),
        ("args", Some(json!(arguments(config, options, facts.init.is_some())?))),
        ("env", Some(json!(environment))),
        ("cwd", Some(json!(directory(config, options)?))),
        ("capabilities", Some(capabilities)),
        ("noNewPrivileges", Some(json!(no_new_privileges.unwrap_or(false)))),
        ("oomScoreAdj", Some(json!(options.limits.oom_score_adj.unwrap_or(0)))),
        ("apparmorProfile", profile.map(Value::from)),
        ("rlimits", (!ulimits.is_empty()).then(|| resources::rlimits(ulimits).into())),
    ]);
    Ok(process.unwrap_or_default())
}

/// Returns Entrypoint and Cmd. The user's command replaces Cmd; the user's entrypoint replaces both, but an empty JSON list
/// replaces Entrypoint alone, as docker's API and compose have it.
fn arguments(config: &Config, options: &BundleRequest, init: bool) -> Result<Vec<String>> {
    let image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let empty = config.entrypoint().as_ref().is_some_and(|words| words[..] == [""]);
    let (mut words, command) = match options.entrypoint.as_deref() {
        Some("") => (Vec::new(), Vec::new()),
        Some(entrypoint) => match serde_json::from_str::<Vec<String>>(entrypoint) {
            Ok(words) if words.is_empty() => (words, image(config.cmd())),
            Ok(words) => (words, Vec::new()),
            Err(_) => (vec![entrypoint.to_owned()], Vec::new()),
        },
        // As docker has it, one empty word is no entrypoint: that is how images take a base image's away.
        None => (image(config.entrypoint()).into_iter().filter(|_| !empty).collect(), image(config.cmd())),
    };
    words.extend(if options.command.is_empty() { command } else { options.command.clone() });
    let nothing = "nothing to run: the image names no command; give one after `--`";
    ensure!(!words.is_empty(), cli::Usage(nothing.to_owned()));
    if init {
        // `--` ends our own options: a command may begin with a hyphen.
        words.splice(..0, [init::PATH, "init", "--"].map(str::to_owned));
    }
    Ok(words)
}

fn directory(config: &Config, options: &BundleRequest) -> Result<String> {
    let image = config.working_dir().as_deref().filter(|directory| !directory.is_empty());
    let directory = options.cwd.as_deref().or(image).unwrap_or("/");
    ensure!(directory.starts_with('/'), "working directory `{directory}` is not absolute");
    Ok(directory.to_owned())
}

fn mounts(options: &BundleRequest, facts: &Facts) -> Vec<Value> {
    let destination = |mount: &Value| mount["destination"].as_str().unwrap_or_default().to_owned();
    let users: Vec<&str> = facts.mounts.iter().map(|(mount, _)| mount.destination.as_str()).collect();
    let mut mounts = mount::defaults(options.shm_size.map_or(SHM_SIZE, |size| size.0), options.privileged);
    for mount in &mut mounts {
        if let ("/dev/shm", Some(source)) = (destination(mount).as_str(), &facts.shm) {
            *mount = mount::entry("/dev/shm", "bind", source, &["rbind", "rprivate"]);
        }
    }
    // A mount of the user's takes the place of ours, and one on /dev of all below it.
    mounts.retain(|mount| {
        let destination = destination(mount);
        let hidden = users.contains(&"/dev") && destination.starts_with("/dev/");
        !users.contains(&destination.as_str()) && !hidden
    });
    mounts.retain(|mount| destination(mount) != "/dev/shm" || options.namespaces.ipc != Some(Namespace::None));
    for (path, source) in facts.files.iter().filter(|(path, _)| !users.contains(path)) {
        // What the container must not fill is the host's disk, too.
        let words = ["rbind", "rprivate", "ro"];
        let count = if options.read_only { 3 } else { 2 };
        mounts.push(mount::entry(path, "bind", source, &words[..count]));
    }
    if let Some(program) = &facts.init {
        mounts.push(mount::entry(init::PATH, "bind", program, &["bind", "ro"]));
    }
    mounts.extend(facts.mounts.iter().map(|(mount, source)| mount.to_json(source)));
    mounts
}

fn linux(options: &BundleRequest, facts: &Facts) -> Result<Value> {
    let parent = options.limits.cgroup_parent.as_deref().unwrap_or("/drayage").trim_end_matches('/');
    let rules = resources::rules(options.privileged, &facts.devices, &options.device_cgroup_rule);
    let open = options.privileged || options.confinement.contains(&SecurityOption::OpenPaths);
    let masked = MASKED.into_iter().chain(facts.masked.iter().map(String::as_str));
    let linux = object([
        ("sysctl", Some(sysctl(options, facts)?.into())),
        ("cgroupsPath", Some(format!("{parent}/{}", facts.cgroup).into())),
        ("resources", Some(resources::resources(&options.limits, rules, facts.block_io.as_ref())?)),
        ("devices", (!facts.devices.is_empty()).then(|| facts.devices.iter().map(Device::to_json).collect())),
        ("namespaces", Some(facts.namespaces.to_json())),
        ("rootfsPropagation", root_propagation(&facts.mounts).map(Value::from)),
        ("seccomp", facts.seccomp.clone()),
        ("maskedPaths", (!open).then(|| masked.collect())),
        ("readonlyPaths", (!open).then(|| json!(READ_ONLY))),
    ]);
    Ok(linux.unwrap_or_default())
}

/// Mounts that shall be shared with the host, or follow it, need a root that does not cut them off.
fn root_propagation(mounts: &[(Mount, String)]) -> Option<&'static str> {
    let asked = |word: &str| {
        let propagations = mounts.iter().filter_map(|(mount, _)| mount.propagation.as_deref());
        propagations.into_iter().any(|propagation| propagation.ends_with(word))
    };
    if asked("shared") { Some("shared") } else { asked("slave").then_some("rslave") }
}

/// Returns the kernel parameters: in a network of its own, a container may ping and open ports below 1024 whoever runs
/// in it, as with docker.
fn sysctl(options: &BundleRequest, facts: &Facts) -> Result<Map<String, Value>> {
    let mut parameters = Map::new();
    if matches!(facts.namespaces.network, Namespace::Private | Namespace::None) {
        // Both ends of the range have to be mapped in the user namespace of the process that writes it, or the
        // kernel says EINVAL.
        if facts.namespaces.user == Namespace::Host {
            parameters.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
        }
        // Every port is free for every user: whoever is in the container's network is in the container, and images'
        // servers run without root.
        parameters.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
    }
    // Nothing that these runtimes read names it otherwise: docker has it so, too.
    if let (Some(name), Namespace::Private) = (&options.names.domainname, &facts.namespaces.uts) {
        parameters.insert("kernel.domainname".into(), json!(name));
    }
    for (name, value) in &options.sysctl {
        let is_parameter = !name.split('.').any(str::is_empty) && !name.contains('/');
        ensure!(is_parameter, cli::Usage(format!("`{name}` is not the name of a kernel parameter")));
        parameters.insert(name.clone(), json!(value));
    }
    Ok(parameters)
}

/// Returns every mount, parents before what is mounted in them: the user's, then the image's volumes where the user
/// has mounted nothing.
pub(crate) fn planned_mounts(image: &ImageConfiguration, options: &BundleRequest) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = options.given().cloned().collect();
    for (number, mount) in mounts.iter().enumerate() {
        let is_first = !mounts[..number].iter().any(|other| other.destination == mount.destination);
        ensure!(is_first, cli::Usage(format!("two mounts on {}", mount.destination)));
    }
    let mut volumes = image.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
    // The parser's order is random.
    volumes.sort();
    for volume in &volumes {
        let volume = Mount::image_volume(volume).map_err(anyhow::Error::msg)?;
        if !mounts.iter().any(|mount| mount.destination == volume.destination) {
            mounts.push(volume);
        }
    }
    // By depth, and stable: a mount on /a would hide an earlier one on /a/b.
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(mounts)
}

#[cfg(test)]
mod tests;
