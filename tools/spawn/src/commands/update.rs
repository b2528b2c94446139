//! `update`: limits that change while the container runs. They are kept in the state directory's copy of the configuration,
//! so that an update which names one of two values that the kernel takes together finds the other there.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use cgroup::Resources;
use cgroup::systemd;
use container::RuntimeId;
use serde_json::Value;

use super::state_root;
use crate::config;
use crate::request::Global;
use crate::state::Container;

pub(crate) fn update(
    global: &Global,
    id: &RuntimeId,
    wanted: impl FnOnce() -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    ensure!(container.process().is_some(), "container not running");
    let wanted = wanted()?;
    let mut resources: Resources = config::of_value(&wanted).context("resources")?;
    // The numbers mean what they meant in the container's own configuration, whatever this runtime would write today.
    resources.of_version(&container.state.oci_version);
    let path = container.directory.join("config.json");
    let text = sys::file::read_regular(&path).with_context(|| format!("read {}", path.display()))?;
    let mut config = config::without_nulls(&text).with_context(|| path.display().to_string())?;
    let kept = &mut config["linux"]["resources"];
    if !kept.is_null() {
        complete(&mut resources, &config::of_value(kept)?);
    }
    // systemd comes second, and is told the same: it writes what it knows of a unit again at each `daemon-reload`,
    // and would take a limit back that only the cgroup had.
    container.cgroups().apply(&resources, true)?;
    if let Some(unit) = &container.state.systemd_scope {
        systemd::update(unit, &resources)?;
    }
    // Last: where the kernel refuses a limit, the note must not say that it holds.
    merge(kept, wanted);
    container.write("config.json", config.to_string().as_bytes())
}

/// Adds what an update leaves to the values before it: a quota's period and a swap limit's memory, and the reverse.
fn complete(resources: &mut Resources, kept: &Resources) {
    if let (Some(cpu), Some(kept)) = (&mut resources.cpu, &kept.cpu) {
        if cpu.quota.is_some() != cpu.period.is_some() {
            cpu.quota = cpu.quota.or(kept.quota);
            cpu.period = cpu.period.or(kept.period);
        }
    }
    if let (Some(memory), Some(kept)) = (&mut resources.memory, &kept.memory) {
        match (memory.limit, memory.swap) {
            (None, Some(_)) => memory.limit = kept.limit,
            // Memory without a limit has no limited swap beside it.
            (Some(limit), None) if limit > 0 => memory.swap = kept.swap.filter(|swap| *swap > 0),
            _ => {}
        }
    }
}

/// Puts an update into what is kept: members replace members, and devices those with the same number.
fn merge(kept: &mut Value, update: Value) {
    match (kept, update) {
        (Value::Object(kept), Value::Object(update)) => {
            if update.get("limit").and_then(Value::as_i64) == Some(-1) && !update.contains_key("swap") {
                kept.remove("swap");
            }
            // Engines write 0 for what they do not change.
            let says =
                |name: &str, value: &Value| *value != 0 || ["burst", "idle", "swappiness", "rate"].contains(&name);
            for (name, value) in update.into_iter().filter(|(name, value)| says(name, value)) {
                merge(kept.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(kept), Value::Array(update)) if update.iter().all(|one| one.get("allow").is_none()) => {
            let number = |device: &Value| (device["major"].clone(), device["minor"].clone());
            for device in update {
                match kept.iter_mut().find(|other| device.get("major").is_some() && number(other) == number(&device)) {
                    Some(other) => *other = device,
                    None => kept.push(device),
                }
            }
        }
        (kept, update) => *kept = update,
    }
}

/// Reads `linux.resources` from a file.
pub(crate) fn read(file: &Path) -> anyhow::Result<Value> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).context("read stdin")?;
    } else {
        text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    }
    config::without_nulls(&text).with_context(|| format!("resources in {}", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn updates_add_up() {
        let mut kept = json!({"cpu": {"quota": 1, "period": 2}, "memory": {"limit": 5, "swap": 6},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]}, "devices": [{"allow": false}]});
        for update in [
            json!({"cpu": {"quota": 3, "period": 0, "burst": 0}, "memory": {"limit": -1}}),
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}, {"major": 8, "minor": 1, "rate": 1}]}}),
            json!({"devices": [{"allow": true}], "pids": {"limit": 4}}),
        ] {
            merge(&mut kept, update);
        }
        let devices = json!([{"major": 8, "minor": 0, "rate": 9}, {"major": 8, "minor": 1, "rate": 1}]);
        let want = json!({"cpu": {"quota": 3, "period": 2, "burst": 0}, "memory": {"limit": -1},
            "blockIO": {"throttleReadBpsDevice": devices}, "devices": [{"allow": true}], "pids": {"limit": 4}});
        assert_eq!(kept, want);
    }

    #[test]
    fn one_value_of_two_finds_the_other() {
        let kept = r#"{"cpu":{"quota":1,"period":2},"memory":{"limit":5,"swap":6}}"#;
        for (update, want) in [
            (r#"{"cpu":{"quota":3}}"#, (Some(3), Some(2), None, None)),
            (r#"{"cpu":{"period":3}}"#, (Some(1), Some(3), None, None)),
            (r#"{"cpu":{"shares":3,"quota":0,"period":0}}"#, (None, None, None, None)),
            (r#"{"memory":{"limit":4}}"#, (None, None, Some(4), Some(6))),
            (r#"{"memory":{"swap":9}}"#, (None, None, Some(5), Some(9))),
            (r#"{"memory":{"limit":-1}}"#, (None, None, Some(-1), None)),
        ] {
            let mut resources: Resources = serde_json::from_str(update).unwrap();
            complete(&mut resources, &serde_json::from_str(kept).unwrap());
            let (cpu, memory) = (resources.cpu.unwrap_or_default(), resources.memory.unwrap_or_default());
            assert_eq!((cpu.quota, cpu.period, memory.limit, memory.swap), want, "{update}");
        }
    }
}
