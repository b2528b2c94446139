//! `events`: what is counted, and who was killed for want of memory.

use serde_json::{Value, json};

use super::{bundle, spawn};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const ANY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("runc")];
const UNIFIED: &[Need] = &[Need::Root, Need::Program("busybox"), Need::UnifiedCgroups];
const LEGACY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::LegacyCgroups];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("statistics_have_the_members_of_runcs", ANY, members),
        test("statistics_count_what_a_container_does_on_v1", LEGACY, counts),
        test("statistics_of_v2_have_the_units_of_v1", UNIFIED, units),
        test("events_tell_who_was_killed_for_want_of_memory_on_v1", LEGACY, oom),
        test("events_go_on_until_the_container_ends", ANY, interval),
    ]
}

fn create(sandbox: &Sandbox, name: &str, command: &str, change: impl FnOnce(&mut Value)) {
    bundle(sandbox, name, command, change);
    spawn(sandbox, &format!("create -b {name} e2e-{name} </dev/null >/dev/null")).ok();
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Every member that runc prints for the same container has the same type here.
fn members(sandbox: &Sandbox) {
    fn missing(theirs: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => {
                for (name, value) in theirs {
                    match ours.get(name) {
                        Some(own) => missing(value, own, &format!("{path}.{name}"), found),
                        None => found.push(format!("{path}.{name}")),
                    }
                }
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                    missing(theirs, ours, path, found);
                }
            }
            (Value::Null, Value::Array(_)) => {}
            (theirs, ours) if std::mem::discriminant(theirs) == std::mem::discriminant(ours) => {}
            _ => found.push(format!("{path}: {theirs} {ours}")),
        }
    }
    // runc leaves the directories above its cgroup behind: there are none.
    create(sandbox, "mem", "sleep 1000", |config| config["linux"]["cgroupsPath"] = json!("/mem"));
    let ours = spawn(sandbox, "events --stats e2e-mem").ok();
    assert!(ours.stdout.starts_with(r#"{"type":"stats","id":"e2e-mem","data":{"#), "{ours}");
    let ours = event(&ours.stdout);
    spawn(sandbox, "delete -f e2e-mem").ok();
    let theirs = sandbox
        .sh("set -e; runc --root st create -b mem e2e-mem </dev/null >/dev/null 2>&1
             runc --root st events --stats e2e-mem; runc --root st delete -f e2e-mem")
        .run()
        .ok();
    let mut found = vec![];
    missing(&event(&theirs.stdout), &ours, "", &mut found);
    // A hint for the scheduler that no program reads.
    found.retain(|member| member != ".data.cpuset.sched_relax_domain_level");
    assert!(found.is_empty(), "{found:?}\n{ours:#}");
}

fn counts(sandbox: &Sandbox) {
    create(sandbox, "cnt", "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000'", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        config["linux"]["resources"]["pids"] = json!({"limit": 17});
    });
    spawn(sandbox, "start e2e-cnt").ok();
    let stats = wait_for("the work's end", || {
        let stats = event(&spawn(sandbox, "events --stats e2e-cnt").ok().stdout);
        (stats["data"]["cpu"]["usage"]["total"].as_u64()? > 1_000_000).then_some(stats)
    });
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20), "{data:#}");
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|usage| usage > 4096), "{data:#}");
    assert!(data["memory"]["raw"].as_object().is_some_and(|raw| raw.len() > 10), "{data:#}");
    assert_eq!(data["pids"]["limit"], json!(17), "{data:#}");
    assert!(data["pids"]["current"].as_u64().is_some_and(|current| current >= 1), "{data:#}");
    spawn(sandbox, "delete -f e2e-cnt").ok();
}

/// The controllers of the machine may all be v1: the processor's time is counted without one.
fn units(sandbox: &Sandbox) {
    create(sandbox, "uni", "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000'", |config| {
        config["linux"]["cgroupsPath"] = json!("/uni");
    });
    spawn(sandbox, "start e2e-uni").ok();
    let usage = || event(&spawn(sandbox, "events --stats e2e-uni").ok().stdout)["data"]["cpu"]["usage"].clone();
    wait_for("the work's end", || (usage()["total"].as_u64()? > 1_000_000).then_some(()));
    spawn(sandbox, "pause e2e-uni").ok();
    let (usage, stat) = (usage(), sandbox.sh("cat /sys/fs/cgroup/uni/cpu.stat").run().ok().stdout);
    for (member, line) in [("total", "usage_usec"), ("kernel", "system_usec"), ("user", "user_usec")] {
        let microseconds: u64 = stat.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap();
        assert_eq!(usage[member], json!(microseconds * 1000), "{stat}{usage:#}");
    }
    spawn(sandbox, "delete -f e2e-uni").ok();
}

fn oom(sandbox: &Sandbox) {
    // What is written to the shared memory counts, and cannot be swapped out.
    let eat = "sh -c 'while [ ! -e /eat ]; do sleep 0.05; done; (dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null); sleep 1000'";
    create(sandbox, "oom", eat, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
        config["root"]["readonly"] = json!(false);
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}));
    });
    spawn(sandbox, "start e2e-oom").ok();
    let events = sandbox.sh(&format!("exec spawn --root {} events --interval 50ms e2e-oom", sandbox.at("st"))).start();
    events.wait_stdout("stats");
    sandbox.sh("touch oom/rootfs/eat").run().ok();
    events.wait_stdout(r#"{"type":"oom","id":"e2e-oom"}"#);
    spawn(sandbox, "delete -f e2e-oom").ok();
    events.wait().ok();
}

fn interval(sandbox: &Sandbox) {
    create(sandbox, "int", "sleep 1000", |_| {});
    spawn(sandbox, "start e2e-int").ok();
    let command = format!("exec spawn --root {} events --interval 20ms e2e-int", sandbox.at("st"));
    let events = sandbox.sh(&command).start();
    wait_for("a third line", || (events.stdout().lines().count() >= 3).then_some(()));
    spawn(sandbox, "kill e2e-int KILL").ok();
    let printed = events.wait().ok().stdout;
    assert!(printed.lines().all(|line| event(line)["data"]["pids"].is_object()), "{printed}");
    spawn(sandbox, "events --stats e2e-int").fails(1).one_error_line("spawn", &["e2e-int", "not running"]);
    spawn(sandbox, "delete -f e2e-int").ok();
    for wrong in ["events --interval 0s e2e-int", "events --interval soon e2e-int", "events none"] {
        spawn(sandbox, wrong).fails(1).stderr_has("spawn: ");
    }
}
