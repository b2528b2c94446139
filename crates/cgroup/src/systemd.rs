//! `--systemd-cgroup`: systemd makes the container's cgroup, as a transient scope that it delegates to us, and so leaves
//! alone (systemd.scope(5), systemd.resource-control(5); <https://systemd.io/CGROUP_DELEGATION>).
//!
//! systemd would move or limit anew what is in a cgroup that it has not been told of, at `daemon-reload` for one, so
//! hosts that run it ask for this driver. Runtimes agree on the form of `cgroupsPath` for it, `SLICE:PREFIX:NAME`.

mod bus;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use sys::clone::{Cloned, How, clone};

use self::bus::{BodyWriter, Bus, Value};
use super::limits::{self, Line};
use crate::resources::Resources;

/// A scope by its unit's name, and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    unit: String,
    slice: String,
}

/// Keeps a scope alive until the container's process is in it: systemd ends one that is empty.
#[derive(Debug)]
pub struct Placeholder {
    pid: Pid,
    /// It ends when this is closed.
    alive: Option<OwnedFd>,
}

impl Scope {
    /// Reads `linux.cgroupsPath` as runtimes take it with systemd, `SLICE:PREFIX:NAME`; none of it is needed.
    pub fn parse(cgroups_path: &str, id: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> =
            if cgroups_path.is_empty() { vec!["", "", id] } else { cgroups_path.split(':').collect() };
        let [slice, prefix, name] = parts.as_slice() else {
            bail!("cgroupsPath {cgroups_path:?} is not slice:prefix:name, which --systemd-cgroup needs");
        };
        let slice = match (*slice, rustix::process::geteuid().is_root()) {
            ("", true) => "system.slice",
            ("", false) => "user.slice",
            (slice, _) => slice,
        };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        for (what, name) in [("slice", slice), ("unit", unit.as_str())] {
            let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            let is_unit = name.chars().all(plain) && name.len() < 256;
            ensure!(is_unit, "cgroupsPath {cgroups_path:?}: {what} {name:?} is not a unit");
        }
        ensure!(slice.strip_suffix(".slice").is_some(), "cgroupsPath {cgroups_path:?}: {slice:?} is not a slice");
        Ok(Self { unit, slice: slice.to_owned() })
    }

    /// Returns the unit's name.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Makes the scope with its limits, and returns its path below the root of every hierarchy.
    ///
    /// A unit of that name that is there already is another container's, and an error.
    pub fn start(&self, resources: Option<&Resources>) -> anyhow::Result<(Placeholder, PathBuf)> {
        let mut bus = connect()?;
        let placeholder = Placeholder::new()?;
        let pid = placeholder.pid.as_raw_pid().unsigned_abs();
        let mut properties = vec![
            ("Description", Value::Text(format!("container {}", self.unit.trim_end_matches(".scope")))),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::Pids(vec![pid])),
            // Without it systemd takes controllers away again that it does not know to be in use below the scope.
            ("Delegate", Value::Flag(true)),
            // With them the scope conflicts with shutdown.target (systemd.scope(5)): systemd would end the container
            // before its engine can stop it. runc leaves them out, too.
            ("DefaultDependencies", Value::Flag(false)),
        ];
        let accounts = ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"];
        properties.extend(accounts.map(|name| (name, Value::Flag(true))));
        properties.extend(limits_of(resources)?);
        let mut body = BodyWriter::of(&[&self.unit, "fail"]);
        body.properties(&properties);
        body.array(8, &[(); 0], |_, ()| {});
        let failed = || format!("start {}", self.unit);
        let job = bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body).with_context(failed)?;
        let result = bus.wait_for_job(&job.unwrap_or_default()).with_context(failed)?;
        ensure!(result == "done", "start {}: systemd says {result}", self.unit);
        let own = sys::file::read(format!("/proc/{pid}/cgroup")).context("read the scope's place")?;
        // On hybrid systems it may be in its own hierarchy alone.
        let paths = own.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let place = paths.filter(|path| path.ends_with(&self.unit)).max();
        Ok((placeholder, place.with_context(|| format!("start {}: it has no cgroup", self.unit))?.into()))
    }
}

/// Ends a scope, so that systemd forgets it. One that is gone is no error.
pub fn stop(unit: &str) -> anyhow::Result<()> {
    let mut bus = connect()?;
    if let Ok(Some(job)) = bus.call("StopUnit", "ss", &BodyWriter::of(&[unit, "replace"])) {
        bus.wait_for_job(&job).with_context(|| format!("stop {unit}"))?;
    }
    // Mostly it has not failed, and is forgotten already.
    let _forgotten = bus.call("ResetFailedUnit", "s", &BodyWriter::of(&[unit]));
    Ok(())
}

/// Tells systemd of changed limits: what only the files say it would write over.
pub fn update(unit: &str, resources: &Resources) -> anyhow::Result<()> {
    let properties = limits_of(Some(resources))?;
    if properties.is_empty() {
        return Ok(());
    }
    let mut body = BodyWriter::of(&[unit]);
    body.u32(u32::from(true));
    body.properties(&properties);
    connect()?.call("SetUnitProperties", "sba(sv)", &body).with_context(|| format!("set properties of {unit}"))?;
    Ok(())
}

/// Has systemd put a process into a scope, unless it is there: a user may not, from the scope of his login session, which
/// has no other cgroup above it that is his.
pub fn attach(unit: &str, pid: Pid) -> anyhow::Result<()> {
    let number = pid.as_raw_pid().unsigned_abs();
    let own = sys::file::read(format!("/proc/{number}/cgroup")).context("read the process's cgroup")?;
    if own.lines().any(|line| line.ends_with(unit)) {
        return Ok(());
    }
    let mut body = BodyWriter::of(&[unit, ""]);
    body.array(4, &[number], |w, number| w.u32(*number));
    connect()?.call("AttachProcessesToUnit", "ssau", &body).with_context(|| format!("join {unit}"))?;
    Ok(())
}

/// Connects to the system's manager, or the user's own.
fn connect() -> anyhow::Result<Bus> {
    let path = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run/systemd/private")
    } else {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").context("--systemd-cgroup: XDG_RUNTIME_DIR is not set")?;
        Path::new(&runtime).join("systemd/private")
    };
    Bus::connect(&path).with_context(|| format!("--systemd-cgroup: no systemd answers at {}", path.display()))
}

/// Returns the limits as systemd names them, as far as it has them; the files get them all.
///
/// The files get all limits all the same; a property keeps systemd from writing its own idea over them.
fn limits_of(resources: Option<&Resources>) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let Some(resources) = resources else { return Ok(vec![]) };
    let lines = if super::is_unified() { limits::v2(resources)? } else { limits::v1(resources) };
    Ok(lines.iter().flat_map(properties).collect())
}

fn properties(line: &Line) -> Vec<(&'static str, Value)> {
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let one = |name| vec![(name, Value::Number(number(&line.value)))];
    match line.file.as_str() {
        "memory.max" => one("MemoryMax"),
        "memory.low" => one("MemoryLow"),
        "memory.swap.max" => one("MemorySwapMax"),
        "memory.limit_in_bytes" => one("MemoryLimit"),
        "cpu.weight" => one("CPUWeight"),
        "cpu.shares" => one("CPUShares"),
        "io.weight" => one("IOWeight"),
        "blkio.weight" => one("BlockIOWeight"),
        "pids.max" => one("TasksMax"),
        "cpuset.cpus" => vec![("AllowedCPUs", Value::Bytes(bits(&line.value)))],
        "cpuset.mems" => vec![("AllowedMemoryNodes", Value::Bytes(bits(&line.value)))],
        "cpu.max" => {
            let (quota, period) = line.value.split_once(' ').unwrap_or((&line.value, "100000"));
            let period = number(period).max(1);
            let quota = quota.parse::<u64>().map_or(u64::MAX, |quota| quota.saturating_mul(1_000_000) / period);
            vec![("CPUQuotaPerSecUSec", Value::Number(quota)), ("CPUQuotaPeriodUSec", Value::Number(period))]
        }
        _ => vec![],
    }
}

/// Writes a list of numbers (`cpuset(7)`, "List format") as systemd wants it: a bit for each.
fn bits(list: &str) -> Vec<u8> {
    let mut bits: Vec<u8> = vec![];
    for number in super::stats::numbers(list).into_iter().map(usize::from) {
        bits.resize(bits.len().max(number / 8 + 1), 0);
        bits[number / 8] |= 1 << (number % 8);
    }
    bits
}

impl Placeholder {
    fn new() -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        match clone(How::default()).context("clone the scope's first process")? {
            Cloned::Parent { pid, .. } => Ok(Self { pid, alive: Some(ours.into()) }),
            // A process that only waits: the scope's cgroup needs one until the container's first process is born
            // into it.
            Cloned::Child => {
                drop(ours);
                // Nothing is ever sent: it returns when the parent has closed its end, or is dead.
                let _end = rustix::io::retry_on_intr(|| rustix::io::read(theirs.as_fd(), &mut [0; 1]));
                sys::clone::exit_now(0)
            }
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _reaped = rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_slice_and_scope() {
        let scope = |unit: &str, slice: &str| Some(Scope { unit: unit.into(), slice: slice.into() });
        let pod = "kubepods-burstable.slice";
        for (path, want) in [
            ("", scope("web.scope", "system.slice")),
            ("system.slice:docker:abc", scope("docker-abc.scope", "system.slice")),
            (":runc:x", scope("runc-x.scope", "system.slice")),
            ("kubepods-burstable.slice:cri-containerd:1f", scope("cri-containerd-1f.scope", pod)),
            ("/system.slice/web", None),
            ("a:b", None),
            ("system:docker:x", None),
            ("system.slice:docker:../x", None),
        ] {
            if rustix::process::geteuid().is_root() {
                assert_eq!(Scope::parse(path, "web").ok(), want, "{path}");
            }
        }
    }

    #[test]
    fn limits_become_properties() {
        let line = |file: &str, value: &str| Line {
            controller: String::new(),
            file: file.into(),
            value: value.into(),
            optional: false,
        };
        for (file, value, want) in [
            ("memory.max", "1048576", vec![("MemoryMax", Value::Number(1 << 20))]),
            ("pids.max", "max", vec![("TasksMax", Value::Number(u64::MAX))]),
            (
                "cpu.max",
                "50000 100000",
                vec![("CPUQuotaPerSecUSec", Value::Number(500_000)), ("CPUQuotaPeriodUSec", Value::Number(100_000))],
            ),
            ("cpuset.cpus", "0,8-9", vec![("AllowedCPUs", Value::Bytes(vec![1, 3]))]),
            ("hugetlb.2MB.max", "1", vec![]),
        ] {
            assert_eq!(properties(&line(file, value)), want, "{file}");
        }
    }
}
