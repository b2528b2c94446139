//! cgroup v2 with all controllers, and a systemd that is the machine's own: in the machine that `tests/vm` makes, and there only.

use serde_json::{Value, json};

use super::{bundle, change, run, spawn};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const UNIFIED: &[Need] = &[Need::Root, Need::Program("busybox"), Need::UnifiedCgroups];
const CRIU: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("criu"), Need::UnifiedCgroups];
const SYSTEMD: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("systemctl"), Need::UnifiedCgroups];
/// No sandbox: process 1 and its sockets are in sight.
const MACHINE: &[Need] = &[Need::Program("busybox"), Need::Program("systemctl")];

pub(crate) fn tests() -> Vec<Test> {
    if std::env::var_os("DRAYAGE_VM").is_none() {
        return Vec::new();
    }
    vec![
        test("limits_reach_every_controller", UNIFIED, limits),
        test("updates_reach_every_controller", UNIFIED, updates),
        test("an_update_of_docker_s_changes_one_limit", UNIFIED, docker_updates),
        test("exec_enters_a_container_whose_init_is_systemd", SYSTEMD, systemd_inside),
        test("limits_are_enforced", UNIFIED, enforced),
        test("a_user_namespace_may_have_more_than_its_maker", UNIFIED, raised),
        test("the_machine_s_systemd_has_the_limits_and_their_updates", MACHINE, scope),
        test("a_user_s_systemd_makes_his_cgroup", MACHINE, user_scope),
        test("a_container_goes_on_from_its_images", CRIU, checkpoint),
        test("the_manual_s_examples_of_checkpoints_work", CRIU, |sandbox| {
            bundle(sandbox, "made", "sleep 1000", |_| {});
            crate::manual::checkpoints(sandbox);
        }),
    ]
}

/// By criu(8), which not every kernel lets work.
fn checkpoint(sandbox: &Sandbox) {
    let count =
        "i=0; while true; do i=$((i+1)); echo $i >/dev/shm/new; mv /dev/shm/new /dev/shm/count; sleep 0.1; done";
    sandbox.sh("mkdir data && echo bound >data/file").run().ok();
    bundle(sandbox, "chk", count, |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-chk");
        config["linux"]["resources"] = json!({"pids": {"limit": 20}});
        config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}));
        mounts.push(json!({"destination": "/mnt", "source": sandbox.at("data"), "options": ["bind"]}));
    });
    spawn(sandbox, "run -d -b chk e2e-chk </dev/null >/dev/null 2>&1").ok();
    let counted = || -> u32 { spawn(sandbox, "exec e2e-chk cat /dev/shm/count").stdout.trim().parse().unwrap_or(0) };
    wait_for("the first number", || (counted() > 3).then_some(()));
    // Once more from the same images, and from those of a container that was restored.
    spawn(sandbox, "checkpoint --image-path alive --leave-running e2e-chk").ok();
    let before = counted();
    for _ in 0..2 {
        spawn(sandbox, "checkpoint --image-path images e2e-chk").ok();
        spawn(sandbox, "state e2e-chk").fails(1);
        assert!(!sandbox.exists("/sys/fs/cgroup/e2e-chk"));
        spawn(sandbox, "restore -d -b chk --image-path images --pid-file pid e2e-chk </dev/null >/dev/null").ok();
        let reached = counted();
        assert!((before..before + 1000).contains(&reached), "{before} {reached}");
        wait_for("another number", || (counted() > reached).then_some(()));
        assert_eq!(files(sandbox, "e2e-chk", "pids.max cgroup.procs").lines().next(), Some("20"));
        spawn(sandbox, "exec e2e-chk sh -c 'cat /mnt/file; sleep 1000 >/dev/null 2>&1 &'").ok().stdout_is("bound\n");
    }
    spawn(sandbox, "delete -f e2e-chk").ok();
    // What cannot be restored leaves nothing.
    sandbox.sh("rm images/core-1.img").run().ok();
    let outcome = spawn(sandbox, "restore -d -b chk --image-path images e2e-chk </dev/null >/dev/null").fails(1);
    outcome.one_error_line("spawn", &["criu: ", "restore.log"]);
    assert!(!sandbox.exists("/sys/fs/cgroup/e2e-chk") && !sandbox.exists("st/e2e-chk"));
    sandbox.sh("! grep chk /proc/self/mountinfo").run().ok();
}

/// Reads files of a cgroup, one line each.
fn files(sandbox: &Sandbox, cgroup: &str, names: &str) -> String {
    sandbox.sh(&format!("cd /sys/fs/cgroup/{cgroup} && cat {names}")).run().ok().stdout
}

/// The number of the first disk, which has a queue.
fn disk(sandbox: &Sandbox) -> (u32, u32) {
    let text = sandbox.sh("cat /sys/block/vda/dev").run().ok().stdout;
    let (major, minor) = text.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

fn limits(sandbox: &Sandbox) {
    let (major, minor) = disk(sandbox);
    bundle(sandbox, "lim", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-lim");
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
            "cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "burst": 10_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
            "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}],
                "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 100}]},
            "unified": {"memory.high": "50331648", "cgroup.max.descendants": "5"}
        });
    });
    spawn(sandbox, "create -b lim e2e-lim </dev/null >/dev/null").ok();
    let names = "memory.max memory.low memory.swap.max memory.high cpu.weight cpu.max cpu.max.burst cpuset.cpus \
                 cpuset.mems pids.max cgroup.max.descendants";
    assert_eq!(
        files(sandbox, "e2e-lim", names),
        "67108864\n33554432\n33554432\n50331648\n59\n50000 200000\n10000\n0\n0\n20\n5\n"
    );
    let throttle = files(sandbox, "e2e-lim", "io.max");
    assert_eq!(throttle, format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100\n"));
    spawn(sandbox, "delete -f e2e-lim").ok();
    assert!(!sandbox.exists("/sys/fs/cgroup/e2e-lim"));
}

fn updates(sandbox: &Sandbox) {
    bundle(sandbox, "upd", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-upd");
        config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}});
    });
    spawn(sandbox, "run -d -b upd e2e-upd </dev/null >/dev/null 2>&1").ok();
    for options in [
        "--memory 32m --memory-swap 48m",
        "--memory-reservation 16m",
        "--cpu-quota 50000",
        "--cpu-period 200000",
        "--cpu-share 2048",
        "--cpuset-cpus 1",
        "--pids-limit 30",
    ] {
        spawn(sandbox, &format!("update {options} e2e-upd")).ok().stderr_is("");
    }
    let names = "memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max";
    let want = "33554432\n16777216\n16777216\n50000 200000\n174\n1\n30\n";
    assert_eq!(files(sandbox, "e2e-upd", names), want);
    spawn(sandbox, "update --memory -1 --cpu-quota -1 --pids-limit -1 e2e-upd").ok();
    assert_eq!(files(sandbox, "e2e-upd", "memory.max memory.swap.max cpu.max pids.max"), "max\nmax\nmax 200000\nmax\n");
    let stats = spawn(sandbox, "events --stats e2e-upd").json();
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 4096), "{stats:#}");
    spawn(sandbox, "delete -f e2e-upd").ok();
}

/// dockerd writes zeros for what an update leaves alone, at every update.
fn docker_updates(sandbox: &Sandbox) {
    const NAMES: [&str; 7] =
        ["memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"];
    let before = ["67108864", "67108864", "16777216", "50000 100000", "59", "0-1", "20"];
    bundle(sandbox, "dup", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-dup");
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 16_777_216}, "pids": {"limit": 20},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1"}
        });
    });
    for (option, changed) in [
        (json!({"memory": {"limit": 33_554_432, "swap": 50_331_648}}), &[(0, "33554432"), (1, "16777216")][..]),
        (json!({"memory": {"reservation": 8_388_608}}), &[(2, "8388608")]),
        (json!({"cpu": {"quota": 25_000, "period": 0}}), &[(3, "25000 100000")]),
        (json!({"cpu": {"quota": 0, "period": 200_000}}), &[(3, "50000 200000")]),
        (json!({"cpu": {"quota": 150_000, "period": 100_000}}), &[(3, "150000 100000")]),
        (json!({"cpu": {"shares": 2048}}), &[(4, "174")]),
        (json!({"cpu": {"cpus": "1"}}), &[(5, "1")]),
        (json!({"pids": {"limit": 30}}), &[(6, "30")]),
        (json!({"pids": {"limit": -1}}), &[(6, "max")]),
        (json!({}), &[]),
    ] {
        spawn(sandbox, "run -d -b dup e2e-dup </dev/null >/dev/null 2>&1").ok();
        let mut update = json!({
            "blockIO": {"weight": 0}, "memory": {}, "pids": null,
            "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""}
        });
        for (group, members) in option.as_object().unwrap() {
            for (name, value) in members.as_object().unwrap() {
                update[group][name] = value.clone();
            }
        }
        sandbox.write("update.json", update.to_string());
        spawn(sandbox, "update --resources - e2e-dup <update.json").ok();
        let mut want = before;
        for (at, value) in changed {
            want[*at] = value;
        }
        assert_eq!(files(sandbox, "e2e-dup", &NAMES.join(" ")), want.join("\n") + "\n", "{option}");
        spawn(sandbox, "delete -f e2e-dup").ok();
    }
}

/// The machine's own system, once more in a container: it moves its processes into cgroups of its own.
fn systemd_inside(sandbox: &Sandbox) {
    bundle(sandbox, "sdi", "", |config| {
        config["process"]["args"] = json!(["/usr/lib/systemd/systemd", "--unit=basic.target"]);
        config["process"]["env"] = json!(["PATH=/usr/bin:/usr/sbin:/bin", "container=oci"]);
        config["process"]["noNewPrivileges"] = json!(false);
        let all =
            ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "NET_ADMIN"];
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.iter().map(|name| format!("CAP_{name}")).collect();
        }
        config["linux"]["cgroupsPath"] = json!("/e2e-sdi");
        config["linux"]["resources"] = json!({"memory": {"limit": 268_435_456}, "pids": {"limit": 200}});
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        let mounts = config["mounts"].as_array_mut().unwrap();
        for place in ["/run", "/tmp", "/var", "/etc"] {
            mounts.push(json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
        }
        for place in ["/usr", "/etc/systemd", "/etc/passwd", "/etc/group"] {
            mounts.push(json!({"destination": place, "source": place, "options": ["rbind", "ro"]}));
        }
        mounts.push(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}));
    });
    sandbox.sh("cd sdi/rootfs && rm -r bin && for d in bin sbin lib lib64; do ln -s usr/$d $d; done").run().ok();
    spawn(sandbox, "run -d -b sdi e2e-sdi </dev/null >out 2>&1").ok();
    wait_for("the container's own cgroups", || sandbox.exists("/sys/fs/cgroup/e2e-sdi/init.scope").then_some(()));
    // No process can be in the container's own cgroup any more.
    wait_for("its controllers", || {
        (!files(sandbox, "e2e-sdi", "cgroup.subtree_control").trim().is_empty()).then_some(())
    });
    let seen = spawn(sandbox, "exec e2e-sdi cat /proc/1/comm /proc/self/cgroup").ok().stdout;
    assert_eq!(seen, "systemd\n0::/init.scope\n");
    spawn(sandbox, "exec e2e-sdi true").ok().stderr_is("");
    assert!(files(sandbox, "e2e-sdi", "memory.max pids.max").starts_with("268435456\n200\n"));
    let processes = spawn(sandbox, "ps --format json e2e-sdi").ok().json();
    assert!(processes.as_array().is_some_and(|pids| !pids.is_empty()), "{processes}");
    spawn(sandbox, "update --pids-limit 300 e2e-sdi").ok();
    spawn(sandbox, "delete -f e2e-sdi").ok();
    assert!(!sandbox.exists("/sys/fs/cgroup/e2e-sdi"));
}

fn enforced(sandbox: &Sandbox) {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done";
    bundle(sandbox, "pid", script, |config| config["linux"]["resources"] = json!({"pids": {"limit": 4}}));
    run(sandbox, "pid").stderr_has("can't fork");
    let eat = "while [ ! -e /eat ]; do sleep 0.1; done; (dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null); sleep 1000";
    bundle(sandbox, "oom", eat, |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
        let shm = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"});
        config["mounts"].as_array_mut().unwrap().push(shm);
    });
    spawn(sandbox, "run -d -b oom e2e-oom </dev/null >/dev/null 2>&1").ok();
    let events = sandbox.sh(&format!("exec spawn --root {} events --interval 1s e2e-oom", sandbox.at("st"))).start();
    events.wait_stdout("stats");
    sandbox.sh("touch oom/rootfs/eat").run().ok();
    events.wait_stdout(r#"{"type":"oom","id":"e2e-oom"}"#);
    spawn(sandbox, "delete -f e2e-oom").ok();
    events.wait().ok();
}

/// Reads properties of a unit, one line each.
fn properties(sandbox: &Sandbox, unit: &str, names: &str) -> String {
    sandbox.sh(&format!("systemctl show --value -p {names} {unit} | grep .")).run().ok().stdout
}

fn scope(sandbox: &Sandbox) {
    bundle(sandbox, "sys", "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("e2e-lab.slice:drayage:sys");
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 20}
        });
    });
    spawn(sandbox, "--systemd-cgroup run -d -b sys e2e-sys </dev/null >/dev/null 2>&1").ok();
    let unit = "drayage-sys.scope";
    let names = "ActiveState,Slice,MemoryMax,CPUQuotaPerSecUSec,TasksMax";
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let want = ["20", "500ms", "67108864", "active", "e2e-lab.slice"];
    assert_eq!(sorted(properties(sandbox, unit, names)), want);
    let cgroup = "e2e.slice/e2e-lab.slice/drayage-sys.scope";
    assert_eq!(files(sandbox, cgroup, "memory.max pids.max cpu.max"), "67108864\n20\n50000 100000\n");
    spawn(sandbox, "--systemd-cgroup update --memory 32m --pids-limit 30 e2e-sys").ok();
    let want = ["30", "33554432"];
    assert_eq!(sorted(properties(sandbox, unit, "MemoryMax,TasksMax")), want);
    // What systemd writes again are the new limits.
    sandbox.sh("systemctl daemon-reload").run().ok();
    assert_eq!(files(sandbox, cgroup, "memory.max pids.max"), "33554432\n30\n");
    spawn(sandbox, "--systemd-cgroup exec e2e-sys true").ok();
    spawn(sandbox, "--systemd-cgroup pause e2e-sys").ok();
    assert_eq!(files(sandbox, cgroup, "cgroup.freeze"), "1\n");
    spawn(sandbox, "--systemd-cgroup resume e2e-sys").ok();
    spawn(sandbox, "--systemd-cgroup delete -f e2e-sys").ok();
    let gone = sandbox.sh(&format!("systemctl is-active {unit}; systemctl list-units --all --no-legend {unit}")).run();
    assert_eq!(gone.stdout, "inactive\n", "{gone}");
    sandbox.sh("systemctl stop e2e-lab.slice e2e.slice").run().ok();
}

fn user_scope(sandbox: &Sandbox) {
    bundle(sandbox, "usr", "sleep 1000", |config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 20}, "memory": {"limit": 67_108_864}});
        config["linux"]["cgroupsPath"] = json!(":drayage:usr");
    });
    change(sandbox, "usr", |config: &mut Value| {
        config["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}]);
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        }
    });
    sandbox.sh("chmod 755 . && mkdir -p st && chown -hR 1000:1000 st usr").run().ok();
    wait_for("the user's systemd", || sandbox.exists("/run/user/1000/systemd/private").then_some(()));
    let as_user = |words: &str| {
        let script = format!("spawn --systemd-cgroup --root {} {words}", sandbox.at("st"));
        let line = "exec setpriv --reuid=1000 --regid=1000 --init-groups env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ordinary sh -c";
        sandbox.sh(&format!("{line} \"{script}\"")).run()
    };
    as_user("run -d -b usr e2e-usr </dev/null >/dev/null").ok();
    let cgroup = sandbox.sh("cd /sys/fs/cgroup/user.slice && find . -name drayage-usr.scope").run().ok().stdout;
    let cgroup = format!("user.slice/{}", cgroup.trim());
    assert!(cgroup.contains("/user@1000.service/"), "{cgroup}");
    assert_eq!(files(sandbox, &cgroup, "pids.max memory.max"), "20\n67108864\n");
    as_user("update --pids-limit 30 e2e-usr").ok();
    assert_eq!(files(sandbox, &cgroup, "pids.max"), "30\n");
    as_user("delete -f e2e-usr").ok();
    assert!(!sandbox.exists(format!("/sys/fs/cgroup/{cgroup}")));
}

/// The right to raise limits and to be spared by the kernel is the host's; `/proc/self/limits` tells of both hard and soft.
fn raised(sandbox: &Sandbox) {
    let script = "ulimit -Hn; ulimit -Sn; cat /proc/self/oom_score_adj";
    bundle(sandbox, "rai", &format!("{script}; sleep 1000"), |config| {
        super::map_ids(config);
        config["process"]["oomScoreAdj"] = json!(-500);
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 9000, "soft": 8000}]);
    });
    sandbox.sh("chown -hR 100000:100000 rai/rootfs && chmod 755 . rai").run().ok();
    let few = |line: &str| sandbox.sh(&format!("ulimit -n 1000; spawn --root $SANDBOX/st {line}")).run();
    few("run -d -b rai e2e-rai </dev/null >out 2>&1").ok();
    wait_for("its words", || (sandbox.read("out").lines().count() == 3).then_some(()));
    assert_eq!(sandbox.read("out"), "9000\n8000\n-500\n");
    few(&format!("exec e2e-rai sh -c '{script}'")).ok().stdout_is("9000\n8000\n-500\n");
    spawn(sandbox, "delete -f e2e-rai").ok();
}
