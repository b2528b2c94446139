//! Writing limits: before the container's first process exists, and again at every `update`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::limits::{self, Line};
use super::{Cgroups, default_rules, device, write};
use crate::resources::{Memory, Resources};

impl Cgroups {
    /// Sets the limits, and with `devices` the rules for devices. Without privilege only what was asked for explicitly
    /// may fail.
    pub fn apply(&self, resources: &Resources, devices: bool) -> anyhow::Result<()> {
        self.check_memory(resources.memory.as_ref())?;
        // No rules at all are no rules: runc then leaves the cgroup's as they are, and so do we.
        if devices && !resources.devices.is_empty() {
            self.apply_devices(resources)?;
        }
        if self.is_unified() {
            let directory = self
                .unified
                .as_deref()
                .context("limits cannot be set: no cgroup could be made below /sys/fs/cgroup")?;
            let lines = limits::v2(resources)?;
            // After the lines are computed: nothing is enabled for a configuration that is wrong.
            let refusals = enable_controllers(directory);
            return lines.iter().try_for_each(|line| write_line(directory, line, &refusals));
        }
        let shares = resources.cpu.as_ref().and_then(|cpu| cpu.shares).unwrap_or(2);
        // The kernel would take the nearest that is.
        ensure!((2..=262_144).contains(&shares), "cpu.shares {shares} is not within 2–262144");
        ensure!(resources.unified.is_empty(), "invalid configuration: cannot set unified resources on cgroup v1");
        let mut lines = limits::v1(resources);
        self.order_memory(&mut lines);
        let write = |line: &Line| match self.controller(&line.controller) {
            Some(directory) => write_line(directory, line, &Refusals::new()),
            None if line.optional => Ok(()),
            None => bail!("cannot set {}: cgroup controller {} is not there", line.file, line.controller),
        };
        // A period may be too short for what is used of it until now; then that goes first.
        let too_short = |line: &&Line| line.file.ends_with("_period_us") && write(line).is_err();
        let (later, first): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(too_short);
        first.into_iter().filter(|line| !line.file.ends_with("_period_us")).chain(later).try_for_each(write)
    }

    /// Tells whether the controllers are those of cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    fn apply_devices(&self, resources: &Resources) -> anyhow::Result<()> {
        let mut rules = resources.devices.clone();
        // Last, since the last rule that matches decides: whatever the configuration denies, /dev/null works.
        rules.extend(default_rules());
        let Some(directory) = self.controller("devices") else {
            return self.unified.as_deref().map_or(Ok(()), |directory| device::attach(directory, &rules));
        };
        let open = |name: &str| {
            let path = directory.join(name);
            File::options().write(true).open(&path).with_context(|| format!("open {}", path.display()))
        };
        // Both are kept open for all the rules: thirty of them would else be thirty look-ups.
        let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
        for (name, value) in device::lines(&rules)? {
            let file = if name == "devices.allow" { &mut allow } else { &mut deny };
            file.write_all(value.as_bytes())
                .with_context(|| format!("write {value:?} to {}/{name}", directory.display()))?;
        }
        [allow, deny].into_iter().for_each(sys::file::leave_open);
        Ok(())
    }

    /// `memory.checkBeforeUpdate`: a limit below what is used would kill.
    fn check_memory(&self, memory: Option<&Memory>) -> anyhow::Result<()> {
        let Some(memory) = memory.filter(|memory| memory.check_before_update == Some(true)) else { return Ok(()) };
        let (directory, file) = match (self.controller("memory"), &self.unified) {
            (Some(directory), _) => (directory, "memory.usage_in_bytes"),
            (None, Some(directory)) => (directory.as_path(), "memory.current"),
            _ => return Ok(()),
        };
        let usage: i64 =
            fs::read_to_string(directory.join(file)).ok().and_then(|text| text.trim_end().parse().ok()).unwrap_or(0);
        let limit = memory.limit.unwrap_or(0);
        ensure!(limit <= 0 || usage <= limit, "memory limit {limit} is below the {usage} bytes in use");
        Ok(())
    }

    /// The kernel wants memory ≤ memory+swap at every moment: while both grow, the greater one goes first.
    fn order_memory(&self, lines: &mut [Line]) {
        let place = |name: &str| lines.iter().position(|line| line.file == name);
        let (Some(memory), Some(both)) = (place("memory.limit_in_bytes"), place("memory.memsw.limit_in_bytes")) else {
            return;
        };
        let Some(directory) = self.controller("memory") else { return };
        let present = fs::read_to_string(directory.join("memory.memsw.limit_in_bytes")).unwrap_or_default();
        let number = |text: &str| {
            text.trim_end().parse::<i64>().map_or(i64::MAX, |value| if value < 0 { i64::MAX } else { value })
        };
        if number(&lines[memory].value) > number(&present) {
            lines.swap(memory, both);
        }
    }
}

/// Why a controller could not be enabled, and where.
type Refusals = BTreeMap<String, String>;

/// Writes one limit. A file that is missing is an error only where the limit was asked for.
fn write_line(directory: &Path, line: &Line, refusals: &Refusals) -> anyhow::Result<()> {
    let path = directory.join(&line.file);
    match write(&path, &line.value) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The scheduler that weighs has its own name for it.
            let weighs = |rest| write(&directory.join(format!("blkio.bfq.weight{rest}")), &line.value).is_ok();
            if line.file.strip_prefix("blkio.weight").is_some_and(weighs) {
                return Ok(());
            }
            let reason = refusals.get(&line.controller).map_or("is not there, or lacks this file", String::as_str);
            ensure!(line.optional, "cannot set {}: cgroup controller {} {reason}", line.file, line.controller);
            Ok(())
        }
        result => result.with_context(|| format!("write {:?} to {}", line.value, path.display())),
    }
}

/// Has each cgroup above give its children what controllers it has. What is refused matters only to a limit that then
/// has no file.
///
/// A controller has files in a cgroup only if the parent lists it in `cgroup.subtree_control` (cgroup-v2.rst,
/// "Enabling and Disabling"), so the walk begins at the top. A parent with processes of its own refuses with EBUSY.
fn enable_controllers(directory: &Path) -> Refusals {
    let mut refusals = Refusals::new();
    let above: Vec<&Path> = directory.ancestors().skip(1).take_while(|path| path.starts_with(super::MOUNT)).collect();
    for parent in above.into_iter().rev() {
        let words = |file: &str| sys::file::read(parent.join(file)).unwrap_or_default();
        let (there, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
        for controller in there.split_ascii_whitespace() {
            if enabled.split_ascii_whitespace().any(|enabled| enabled == controller) {
                continue;
            }
            if let Err(error) = write(&parent.join("cgroup.subtree_control"), &format!("+{controller}")) {
                refusals.insert(controller.to_owned(), format!("cannot be enabled in {}: {error}", parent.display()));
            }
        }
    }
    refusals
}
