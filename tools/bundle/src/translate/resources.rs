//! `linux.resources` and `process.rlimits` (runtime-spec, config-linux.md, "Control groups").

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::device::{CgroupRule, Device};
use crate::request::LimitOptions;
use crate::ulimit::Ulimit;

/// Docker's: less does not start a process.
const LEAST_MEMORY: i64 = 6 << 20;
/// The window in which CPU time is counted, microseconds.
const CPU_PERIOD: i64 = 100_000;
/// null, zero, full, random, urandom, tty, console, and nothing of fuse unless it is asked for.
const DEVICES: [(u32, u32); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
const FUSE: (u32, u32) = (10, 229);

/// Returns `linux.resources`.
pub(super) fn resources(limits: &LimitOptions, rules: Vec<Value>, block_io: Option<&Value>) -> Result<Value> {
    let resources = object([
        ("devices", Some(Value::Array(rules))),
        ("memory", memory(limits)?),
        ("cpu", cpu(limits)),
        // Zero and less: no limit, which is also the default.
        ("pids", limits.pids_limit.filter(|limit| *limit > 0).map(|limit| json!({"limit": limit}))),
        ("blockIO", block_io.cloned()),
    ]);
    Ok(resources.unwrap_or_default())
}

/// Returns an object of the members that are there, if any is.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Option<Value>)>) -> Option<Value> {
    let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Some(Value::Object(members.collect())).filter(|object| *object != json!({}))
}

/// Returns a number that says something, which 0 does not.
fn set<T: Default + PartialEq + Into<Value>>(number: Option<T>) -> Option<Value> {
    number.filter(|number| *number != T::default()).map(Into::into)
}

/// Returns who may use which devices.
pub(super) fn rules(privileged: bool, devices: &[Device], further: &[CgroupRule]) -> Vec<Value> {
    if privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    let rule = |allow: bool, (major, minor): (u32, u32)| json!({"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    rules.extend(DEVICES.map(|device| rule(true, device)));
    rules.push(rule(false, FUSE));
    rules.extend(devices.iter().map(Device::rule));
    rules.extend(further.iter().map(CgroupRule::rule));
    rules
}

fn memory(limits: &LimitOptions) -> Result<Option<Value>> {
    let wrong = |what: &str| cli::Usage(what.to_owned());
    let limit = limits.memory.map(|bytes| bytes.0).filter(|bytes| *bytes != 0);
    ensure!(limit.is_none_or(|limit| limit >= LEAST_MEMORY), wrong("the least memory for a container is 6m"));
    let reservation = limits.memory_reservation.map(|bytes| bytes.0).filter(|bytes| *bytes != 0);
    let is_above = limit.is_some_and(|limit| reservation.is_some_and(|reservation| reservation > limit));
    ensure!(!is_above, wrong("the memory reservation is above the memory"));
    let swap = match (limits.memory_swap.map(|swap| swap.0).filter(|swap| *swap != 0), limit) {
        (Some(swap), None) if swap > 0 => bail!(wrong("--memory-swap needs --memory")),
        (Some(swap), Some(limit)) if (0..limit).contains(&swap) => {
            bail!(wrong("--memory-swap is memory and swap together: it is below --memory"))
        }
        (Some(swap), _) => Some(swap),
        // As docker: as much swap as memory. The number is both together, as v1's memsw has it; cgroup v2 gets the
        // difference.
        (None, limit) => limit.map(|limit| limit.saturating_mul(2)),
    };
    Ok(object([
        ("limit", limit.map(Value::from)),
        ("reservation", reservation.map(Value::from)),
        ("swap", swap.map(Value::from)),
        ("swappiness", limits.memory_swappiness.filter(|swappiness| *swappiness >= 0).map(Value::from)),
        ("disableOOMKiller", limits.oom_kill_disable.then_some(json!(true))),
    ]))
}

fn cpu(limits: &LimitOptions) -> Option<Value> {
    // Thousandths of a processor times the period in milliseconds are microseconds.
    let quota = limits.cpus.map(|cpus| json!(cpus.0 * (CPU_PERIOD / 1000)));
    let period = limits.cpus.map(|_| json!(CPU_PERIOD));
    object([
        ("shares", set(limits.cpu_shares)),
        ("quota", set(limits.cpu_quota).or(quota)),
        ("realtimeRuntime", set(limits.cpu_rt_runtime)),
        ("period", set(limits.cpu_period).or(period)),
        ("realtimePeriod", set(limits.cpu_rt_period)),
        ("cpus", limits.cpuset_cpus.clone().map(Value::from)),
        ("mems", limits.cpuset_mems.clone().map(Value::from)),
    ])
}

/// Returns `process.rlimits`; of two of one name the later one counts.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Vec<Value> {
    let last =
        |(number, limit): &(usize, &Ulimit)| !ulimits[number + 1..].iter().any(|other| other.name() == limit.name());
    ulimits.iter().enumerate().filter(last).map(|(_, limit)| limit.to_json()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LimitOptions {
        LimitOptions::default()
    }

    #[test]
    fn limits_become_resources_as_with_docker() {
        for (limits, want) in [
            (limits(), json!({})),
            (
                LimitOptions { memory: "64m".parse().ok(), ..limits() },
                json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}}),
            ),
            (
                LimitOptions { memory: "64m".parse().ok(), memory_swap: "-1".parse().ok(), ..limits() },
                json!({"memory": {"limit": 67_108_864, "swap": -1}}),
            ),
            (
                LimitOptions { memory_reservation: "32m".parse().ok(), ..limits() },
                json!({"memory": {"reservation": 33_554_432}}),
            ),
            (
                LimitOptions { cpus: "1.5".parse().ok(), ..limits() },
                json!({"cpu": {"quota": 150_000, "period": 100_000}}),
            ),
            (
                LimitOptions { cpu_shares: Some(512), cpuset_cpus: Some("0-1".into()), ..limits() },
                json!({"cpu": {"shares": 512, "cpus": "0-1"}}),
            ),
            (
                LimitOptions { cpu_quota: Some(-1), cpu_period: Some(1000), cpu_rt_runtime: Some(5), ..limits() },
                json!({"cpu": {"quota": -1, "realtimeRuntime": 5, "period": 1000}}),
            ),
            (
                LimitOptions { memory_swappiness: Some(0), oom_kill_disable: true, ..limits() },
                json!({"memory": {"swappiness": 0, "disableOOMKiller": true}}),
            ),
            (LimitOptions { memory_swappiness: Some(-1), ..limits() }, json!({})),
            (LimitOptions { pids_limit: Some(100), ..limits() }, json!({"pids": {"limit": 100}})),
            (LimitOptions { pids_limit: Some(-1), ..limits() }, json!({})),
        ] {
            let mut resources = resources(&limits, Vec::new(), None).unwrap();
            resources.as_object_mut().unwrap().shift_remove("devices");
            assert_eq!(resources, want);
        }
    }

    #[test]
    fn limits_that_contradict_are_refused() {
        for limits in [
            LimitOptions { memory: "1m".parse().ok(), ..limits() },
            LimitOptions { memory_swap: "64m".parse().ok(), ..limits() },
            LimitOptions { memory: "64m".parse().ok(), memory_swap: "32m".parse().ok(), ..limits() },
            LimitOptions { memory: "64m".parse().ok(), memory_reservation: "65m".parse().ok(), ..limits() },
        ] {
            assert!(resources(&limits, Vec::new(), None).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn devices_are_denied_but_for_the_harmless_ones() {
        let rules = rules(false, &[], &[]);
        assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(rules.iter().filter(|rule| rule["allow"] == true).count(), 6);
        assert_eq!(super::rules(true, &[], &[]), [json!({"allow": true, "access": "rwm"})]);
    }

    #[test]
    fn the_later_limit_of_a_name_counts() {
        let limits: Vec<Ulimit> = ["nofile=1", "core=0", "nofile=2"].map(|text| text.parse().unwrap()).into();
        let kinds: Vec<Value> = rlimits(&limits).iter().map(|limit| json!([limit["type"], limit["soft"]])).collect();
        assert_eq!(kinds, [json!(["RLIMIT_CORE", 0]), json!(["RLIMIT_NOFILE", 2])]);
    }
}
