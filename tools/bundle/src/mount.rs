//! Mounts as docker's users write them (`-v`, `--mount`, `--tmpfs`), and as config.json has them.

mod parse;

use ::container::VolumeName;
use serde_json::{Value, json};

/// One mount that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: Source,
    /// Absolute, without `.` and `..`, never the root.
    pub(crate) destination: String,
    pub(crate) read_only: bool,
    /// `rprivate`, `shared` and so on, where it was asked for.
    pub(crate) propagation: Option<String>,
    /// Whether what is mounted below the source comes along.
    pub(crate) recursive: bool,
    /// `z` or `Z` was given: labels for `SELinux`.
    pub(crate) relabel: bool,
}

/// Where a mount's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file or directory of the host; with `create`, made as a directory where nothing is.
    Host { path: String, create: bool },
    /// A volume: a directory that we keep. Without a name it is the container's own and goes with it.
    Volume { name: Option<VolumeName>, copy: bool },
    /// Memory, with the options of `tmpfs(5)`.
    Tmpfs { options: Vec<String> },
}

/// `-v`, `--volume`: `[SOURCE:]DESTINATION[:OPTIONS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeFlag(pub(crate) Mount);

/// `--mount`: `type=…,source=…,destination=…,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountFlag(pub(crate) Mount);

/// `--tmpfs`: `DESTINATION[:OPTIONS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TmpfsFlag(pub(crate) Mount);

impl Mount {
    fn new(source: Source, destination: String) -> Self {
        Self { source, destination, read_only: false, propagation: None, recursive: true, relabel: false }
    }

    /// Returns the entry of config.json; `source` is where the content is on the host.
    pub(crate) fn to_json(&self, source: &str) -> Value {
        if let Source::Tmpfs { options } = &self.source {
            return entry(&self.destination, "tmpfs", "tmpfs", options);
        }
        let mut options = vec![if self.recursive { "rbind" } else { "bind" }.to_owned()];
        options.extend(self.read_only.then(|| "ro".to_owned()));
        // Said in any case: a bind mount inherits the propagation of its source, which systemd makes shared, and a
        // mount in the container would appear on the host.
        options.push(self.propagation.clone().unwrap_or_else(|| "rprivate".to_owned()));
        entry(&self.destination, "bind", source, &options)
    }

    /// Returns an image's volume: a directory of the container's own, with what the image has there.
    pub(crate) fn image_volume(destination: &str) -> Result<Self, String> {
        // Docker mounts `VOLUME data` at /data, and the common mistake `VOLUME ['/data']` at its words below the root.
        let destination = parse::clean(&format!("/{destination}"))?;
        if ["/proc", "/sys", "/dev"].iter().any(|own| is_below(&destination, own)) {
            return Err(format!("the image's volume {destination} would hide the kernel's own files"));
        }
        Ok(Self::new(Source::Volume { name: None, copy: true }, destination))
    }
}

/// Tells whether a clean path is `directory` or below it.
pub(crate) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// One mount of config.json (runtime-spec, config.md, "Mounts").
pub(crate) fn entry<S: AsRef<str>>(destination: &str, kind: &str, source: &str, options: &[S]) -> Value {
    let options: Vec<&str> = options.iter().map(AsRef::as_ref).collect();
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Returns the mounts that docker gives to every container.
pub(crate) fn defaults(shm_size: i64, privileged: bool) -> Vec<Value> {
    // gid 5 is the group tty of nearly all images, and of glibc's grantpt(3). The kernel's own mode of ptmx is 0000.
    const PTS: [&str; 6] = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    const GUARDED: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let kernel = |options: &[&str]| -> Vec<String> {
        options.iter().copied().chain((!privileged).then_some("ro")).map(str::to_owned).collect()
    };
    let shm = format!("size={shm_size}");
    vec![
        entry("/proc", "proc", "proc", &GUARDED),
        // 64 MiB: docker's number, which keeps a program that writes to /dev from filling the memory.
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry("/dev/pts", "devpts", "devpts", &PTS),
        entry("/sys", "sysfs", "sysfs", &kernel(&GUARDED)),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", &kernel(&GUARDED)),
        entry("/dev/mqueue", "mqueue", "mqueue", &GUARDED),
        entry("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}
