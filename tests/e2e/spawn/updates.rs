//! `update`: limits of a container that runs.

use serde_json::{Value, json};

use super::{NEEDS, bundle, spawn};
use crate::support::{Need, Sandbox, Test, test};

const LEGACY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::LegacyCgroups];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("updates_add_up_and_leave_the_state_alone", LEGACY, add_up),
        test("a_period_shrinks_within_its_parent_s_share", LEGACY, shorter_period),
        test("an_update_that_cannot_be_is_one_error_line", NEEDS, refused),
    ]
}

fn kept(sandbox: &Sandbox) -> Value {
    let config: Value = serde_json::from_str(&sandbox.read("st/e2e-upd/config.json")).expect("config.json");
    config["linux"]["resources"].clone()
}

fn add_up(sandbox: &Sandbox) {
    bundle(sandbox, "upd", "sleep 1000", |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}});
    });
    spawn(sandbox, "run -d -b upd e2e-upd </dev/null >/dev/null 2>&1").ok();
    let state = spawn(sandbox, "state e2e-upd").ok().stdout;
    for options in ["--cpu-quota 50000", "--cpu-period 200000", "--cpu-share 512", "--memory 32m", "--pids-limit 30"] {
        spawn(sandbox, &format!("update {options} e2e-upd")).ok().stderr_is("");
    }
    let cgroups = "cd /sys/fs/cgroup && cat cpu/e2e-upd/cpu.cfs_quota_us cpu/e2e-upd/cpu.cfs_period_us \
                   cpu/e2e-upd/cpu.shares memory/e2e-upd/memory.limit_in_bytes pids/e2e-upd/pids.max";
    sandbox.sh(cgroups).run().ok().stdout_is("50000\n200000\n512\n33554432\n30\n");
    let mut want = json!({
        "cpu": {"quota": 50_000, "period": 200_000, "shares": 512},
        "memory": {"limit": 33_554_432, "swap": 134_217_728},
        "pids": {"limit": 30}
    });
    assert_eq!(kept(sandbox), want);
    // More memory than memory and swap together: no such update is made, and none is kept.
    spawn(sandbox, "update --memory 256m e2e-upd").fails(1).one_error_line("spawn", &["memory.limit_in_bytes"]);
    assert_eq!(kept(sandbox), want);
    spawn(sandbox, "update --memory -1 e2e-upd").ok();
    want["memory"] = json!({"limit": -1});
    assert_eq!(kept(sandbox), want);
    assert_eq!(spawn(sandbox, "state e2e-upd").ok().stdout, state);
    spawn(sandbox, "delete -f e2e-upd").ok();
}

/// In either order one of the two values comes first, and the kernel looks at both.
fn shorter_period(sandbox: &Sandbox) {
    let parent = "mkdir -p /sys/fs/cgroup/cpu/pod && cd /sys/fs/cgroup/cpu/pod && echo 50000 >cpu.cfs_quota_us";
    sandbox.sh(parent).run().ok();
    bundle(sandbox, "per", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/pod/per");
        config["linux"]["resources"] = json!({"cpu": {"quota": 50_000, "period": 100_000}});
    });
    spawn(sandbox, "run -d -b per e2e-per </dev/null >/dev/null 2>&1").ok();
    for (period, quota) in [(10_000, 5000), (100_000, 50_000)] {
        spawn(sandbox, &format!("update --cpu-period {period} --cpu-quota {quota} e2e-per")).ok();
        let files = "cd /sys/fs/cgroup/cpu/pod/per && cat cpu.cfs_period_us cpu.cfs_quota_us";
        sandbox.sh(files).run().ok().stdout_is(&format!("{period}\n{quota}\n"));
    }
    spawn(sandbox, "delete -f e2e-per").ok();
    sandbox.sh("find /sys/fs/cgroup/ -depth -name pod -exec rmdir {} +").run().ok();
}

fn refused(sandbox: &Sandbox) {
    bundle(sandbox, "ref", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b ref e2e-ref </dev/null >/dev/null 2>&1").ok();
    sandbox.write("broken.json", r#"{"memory": {"limit": "much"}}"#);
    for (options, words) in [
        ("--memory much", "invalid value for memory"),
        ("--l3-cache-schema L3:0=f", "l3 cache schema is not enabled"),
        ("--mem-bw-schema MB:0=20", "memory bandwidth schema is not enabled"),
        ("-r broken.json", "much"),
        ("-r missing.json", "missing.json"),
    ] {
        spawn(sandbox, &format!("update {options} e2e-ref")).fails(1).one_error_line("spawn", &[words]);
    }
    let ignored = spawn(sandbox, "update --kernel-memory 16m e2e-ref").ok();
    assert!(ignored.stderr.contains("Kernel memory settings are ignored"), "{ignored}");
    spawn(sandbox, "delete -f e2e-ref").ok();
}
