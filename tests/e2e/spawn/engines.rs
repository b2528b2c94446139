//! What engines write and do that a specification alone does not tell: limits that are none, volumes shared with the host,
//! long options, containers that arrange their own cgroups.

use serde_json::{Value, json};

use super::{NEEDS, bundle, change, run, runtime, spawn};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const UNIFIED: &[Need] = &[Need::Root, Need::Program("busybox"), Need::UnifiedCgroups];
const TUN: &[Need] = &[Need::Root, Need::Program("busybox"), Need::File("/dev/net/tun")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_shared_volume_reaches_the_host_as_it_says", NEEDS, propagation),
        test("exec_goes_where_the_first_process_went", UNIFIED, nested),
        test("an_update_of_zeros_changes_nothing", UNIFIED, zeros),
        test("no_limit_of_processes_is_written_as_zero", NEEDS, no_pids_limit),
        test("a_limit_that_cannot_be_had_leaves_no_cgroup", NEEDS, bad_limits),
        test("a_kept_container_keeps_its_id", NEEDS, kept),
        test("a_user_namespace_gets_devices_by_their_whole_path", TUN, deep_device),
        test("without_its_own_network_a_user_namespace_sees_the_host_s_sysfs", NEEDS, host_sysfs),
        test("options_may_be_as_long_as_a_page", NEEDS, long_options),
        test("passwd_may_hold_any_bytes_and_variables_be_many", NEEDS, odd_files),
        test("create_fails_for_what_the_program_cannot_be_given", NEEDS, truthful_create),
    ]
}

/// `rootfsPropagation` and a volume's own word: what the host sees of a mount made inside, and the container of one made
/// outside.
fn propagation(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p vol && mount -t tmpfs v vol && mount --make-rshared vol && mkdir vol/in vol/out").run().ok();
    let script = "mount -t tmpfs i /v/in; echo >/v/ready; while [ -e /v/ready ]; do sleep 0.02; done; grep -c ' /v/out ' /proc/self/mountinfo; true";
    for (root, volume, want) in [
        ("", "", "0 1"),
        ("", "rprivate", "0 0"),
        ("", "rslave", "0 1"),
        ("rslave", "rshared", "0 1"),
        ("private", "", "1 1"),
        ("private", "rprivate", "0 0"),
        ("private", "rslave", "0 1"),
        ("private", "rshared", "1 1"),
        ("slave", "", "1 1"),
        ("slave", "slave", "0 1"),
        ("slave", "shared", "1 1"),
        ("rprivate", "", "0 0"),
        ("rprivate", "rslave", "0 0"),
        ("rprivate", "rshared", "0 0"),
        ("unbindable", "rslave", "0 1"),
        ("shared", "rshared", "1 1"),
        ("rshared", "rshared", "1 1"),
        ("rshared", "shared", "1 1"),
        ("rshared", "rslave", "0 1"),
        ("rshared", "rprivate", "0 0"),
        ("shared", "private", "0 0"),
    ] {
        bundle(sandbox, "pro", script, |config| {
            config["linux"]["rootfsPropagation"] = json!(root);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
            let mount = json!({"destination": "/v", "source": sandbox.at("vol"), "options": format!("rbind,{volume}").trim_end_matches(',').split(',').collect::<Vec<_>>()});
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        sandbox.sh("rm -f vol/ready").run().ok();
        let run = sandbox.sh(&format!("exec {} --root {} run -b pro e2e-pro", runtime(), sandbox.at("st"))).start();
        wait_for("the mount inside", || sandbox.exists("vol/ready").then_some(()));
        let host = sandbox
            .sh("mount -t tmpfs o vol/out; grep -c ' [^ ]*/vol/in ' /proc/self/mountinfo; rm vol/ready")
            .run()
            .stdout;
        let inside = run.wait().stdout;
        assert_eq!(format!("{} {}", host.trim(), inside.trim()), want, "{root} {volume}");
        // The end of the container is not the end of the host's mounts.
        sandbox.sh("mountpoint -q vol/out && umount vol/out; ! mountpoint -q vol/in || umount vol/in").run().ok();
    }
    sandbox.sh("umount vol").run().ok();
}

fn nested(sandbox: &Sandbox) {
    let arrange = "cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs; \
                   for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control && break; done; echo >/ready; exec sleep 1000";
    bundle(sandbox, "nes", arrange, |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    spawn(sandbox, "run -d -b nes e2e-nes </dev/null >/dev/null 2>&1").ok();
    wait_for("the container's own cgroups", || sandbox.exists("nes/rootfs/ready").then_some(()));
    spawn(sandbox, "exec e2e-nes grep ^0:: /proc/self/cgroup").ok().stdout_is("0::/init\n");
    spawn(sandbox, "ps --format json e2e-nes").ok();
    spawn(sandbox, "delete -f e2e-nes").ok();
}

fn zeros(sandbox: &Sandbox) {
    bundle(sandbox, "zer", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b zer e2e-zer </dev/null >/dev/null 2>&1").ok();
    // Where there is no such controller, a touch would be an error.
    let update = json!({"memory": {"limit": 0, "reservation": 0, "kernel": 0, "swap": null}, "pids": {"limit": 0}, "devices": null,
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": null, "mems": ""}, "blockIO": {"weight": 0}});
    sandbox.write("update.json", update.to_string());
    spawn(sandbox, "update -r update.json e2e-zer").ok();
    spawn(sandbox, "delete -f e2e-zer").ok();
}

fn no_pids_limit(sandbox: &Sandbox) {
    bundle(sandbox, "nop", "echo a | cat", |config| {
        config["ociVersion"] = json!("1.0.2");
        config["linux"]["resources"] = json!({"pids": {"limit": 0}});
    });
    run(sandbox, "nop").ok().stdout_is("a\n");
    change(sandbox, "nop", |config| config["linux"]["seccomp"] = json!({}));
    run(sandbox, "nop").ok().stdout_is("a\n");
}

fn bad_limits(sandbox: &Sandbox) {
    let groups = || sandbox.sh("find /sys/fs/cgroup -name e2e-bad | wc -l").run().stdout;
    for resources in [
        json!({"cpu": {"cpus": "999"}}),
        json!({"cpu": {"quota": 5000, "period": 1}}),
        json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}),
        json!({"blockIO": {"throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 7}]}}),
        json!({"unified": {"no.such": "1"}}),
        json!({"devices": [{"allow": true, "type": "x"}]}),
    ] {
        bundle(sandbox, "bad", "true", |config| {
            config["linux"]["resources"] = resources.clone();
            config["linux"]["cgroupsPath"] = json!("/e2e-bad");
        });
        run(sandbox, "bad").fails(1).one_error_line("spawn", &[]);
        assert_eq!(groups(), "0\n", "{resources}");
    }
}

fn kept(sandbox: &Sandbox) {
    bundle(sandbox, "kep", "exit 3", |_| {});
    spawn(sandbox, "run --keep -b kep e2e-kep").fails(3);
    spawn(sandbox, "run --keep -b kep e2e-kep").fails(1).one_error_line("spawn", &["already exists"]);
    assert_eq!(spawn(sandbox, "state e2e-kep").ok().json()["status"], "stopped");
    spawn(sandbox, "delete e2e-kep").ok();
}

fn in_user_namespace(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

fn deep_device(sandbox: &Sandbox) {
    for (path, minor, want) in [("/dev/net/tun", 200, "a:c8\n"), ("/dev/net/tun", 201, ""), ("/dev/net/none", 200, "")]
    {
        bundle(sandbox, "dee", &format!("stat -c %t:%T {path}"), |config| {
            in_user_namespace(config);
            config["linux"]["devices"] = json!([{"path": path, "type": "c", "major": 10, "minor": minor}]);
        });
        sandbox.sh("chown -R 100000:100000 dee/rootfs").run().ok();
        let outcome = run(sandbox, "dee");
        assert_eq!(
            (outcome.stdout.as_str(), outcome.code() == 0),
            (want, !want.is_empty()),
            "{path} {minor}: {outcome}"
        );
    }
}

fn host_sysfs(sandbox: &Sandbox) {
    bundle(sandbox, "sys", "ls -d /sys/kernel; touch /sys/x 2>&1 | grep -o Read-only", |config| {
        in_user_namespace(config);
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        let mount = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    sandbox.sh("chown -R 100000:100000 sys/rootfs").run().ok();
    run(sandbox, "sys").ok().stdout_is("/sys/kernel\nRead-only\n");
}

fn long_options(sandbox: &Sandbox) {
    let (deep, source) = (vec!["x".repeat(60); 5].join("/"), "s".repeat(3000));
    sandbox.sh(&format!("mkdir -p {deep} upper work && echo low >{deep}/file")).run().ok();
    bundle(
        sandbox,
        "lon",
        "cat /mnt/file; stat -c %a /t; grep -c ssss /proc/self/mounts; touch /t/x 2>&1 | grep -o Read-only",
        |config| {
            let lower = format!("lowerdir={}", sandbox.at(&deep));
            let overlay =
                [lower, format!("upperdir={}", sandbox.at("upper")), format!("workdir={}", sandbox.at("work"))];
            config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": overlay}),
            json!({"destination": "/t", "type": "tmpfs", "source": source, "options": ["mode=1750", "ro", "nosuid"]}),
        ]);
        },
    );
    run(sandbox, "lon").ok().stdout_is("low\n1750\n1\nRead-only\n");
    change(sandbox, "lon", |config| config["mounts"][4]["options"] = json!([format!("x={}", "y".repeat(4100))]));
    run(sandbox, "lon").fails(1).one_error_line("spawn", &["more than a page"]);
    change(sandbox, "lon", |config| {
        config["mounts"][4] = json!({"destination": "/t", "type": "tmpfs", "options": ["mode=9"]});
    });
    // The kernel's own reason, and what was asked of it.
    run(sandbox, "lon").fails(1).one_error_line("spawn", &["mount(tmpfs, ", "/t", "\"mode=9\"", "Bad value"]);
}

fn odd_files(sandbox: &Sandbox) {
    bundle(sandbox, "off", "echo $HOME; env | wc -l", |config| {
        let many = (0..20_000).map(|number| format!("SERVICE_{number}=1"));
        config["process"]["env"] = ["PATH=/bin".to_owned()].into_iter().chain(many).collect();
        config["process"]["user"] = json!({"uid": 77, "gid": 0});
    });
    let many = "for i in $(seq 40000); do echo user$i:x:$((i+1000)):0:long-name-of-user-$i:/h:/bin/sh; done";
    sandbox
        .sh(&format!("({many}; printf 'jos\\351:x:77:0:\\351:/home/jose:/bin/sh\\n') >off/rootfs/etc/passwd"))
        .run()
        .ok();
    run(sandbox, "off").ok().stdout_has("/home/jose\n");
}

fn truthful_create(sandbox: &Sandbox) {
    for (member, value, says) in [
        ("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]), "RLIMIT_NOFILE"),
        ("scheduler", json!({"policy": "SCHED_FIFO", "priority": 100}), "scheduler"),
        ("user", json!({"uid": 0, "gid": 0, "additionalGids": vec![1; 70_000]}), "groups"),
    ] {
        bundle(sandbox, "tru", "sleep 1000", |config| config["process"][member] = value);
        spawn(sandbox, "create -b tru e2e-tru </dev/null").fails(1).one_error_line("spawn", &[says]);
        assert!(!sandbox.exists("st/e2e-tru"), "{member}");
    }
    bundle(sandbox, "tru", "sleep 1000", |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": sandbox.at("none.sock"),
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    spawn(sandbox, "create -b tru e2e-tru </dev/null").fails(1).one_error_line("spawn", &["seccomp agent"]);
}
