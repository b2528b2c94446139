//! What cannot be had is told with its object and its value, by `create`, and leaves nothing.

use serde_json::{Value, json};

use super::{NEEDS, bundle, spawn};
use crate::support::{Need, Sandbox, Test, test};

const LEGACY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::LegacyCgroups];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("an_error_names_what_the_kernel_was_asked_for", NEEDS, frozen),
        test("create_tells_what_the_process_cannot_have", NEEDS, truth),
        test("a_limit_that_leaves_nothing_fails_create", LEGACY, starved),
    ]
}

/// Creates a container whose configuration is changed, and expects these words of it, on one line, and nothing left.
fn refused(sandbox: &Sandbox, change: impl FnOnce(&mut Value), words: &[&str]) {
    bundle(sandbox, "err", "true", |config| {
        config["linux"]["cgroupsPath"] = json!("/e2e-err");
        change(config);
    });
    // A process that was made after all must not hold the output.
    let outcome = spawn(sandbox, "create -b err e2e-err </dev/null >out 2>error; code=$?; cat error >&2; exit $code");
    outcome.fails(1).one_error_line("spawn", words);
    assert!(!sandbox.exists("st/e2e-err"), "{words:?}");
    sandbox.sh("! ls -d /sys/fs/cgroup/e2e-err /sys/fs/cgroup/*/e2e-err").run().ok();
}

/// A place in the configuration, what stands there, and what the error says beside the kernel's reason.
fn wrong() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let long = "n".repeat(300);
    vec![
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]),
            vec!["prlimit(9, 8)", "Invalid"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 1000}),
            vec!["sched_setattr", "priority: 1000"],
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_NONE", "priority": 3}),
            vec!["ioprio_set(IOPRIO_CLASS_NONE, 3)"],
        ),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "63"}), vec!["set_mempolicy(MPOL_BIND, \"63\")"]),
        ("/process/oomScoreAdj", json!(5000), vec!["oomScoreAdj 5000", "Invalid"]),
        ("/hostname", json!(long), vec!["set hostname nnn", "Invalid"]),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "x"}),
            vec!["net.ipv4.ip_forward: \"x\"", "/proc/sys/net/ipv4/ip_forward"],
        ),
        (
            "/linux/devices",
            json!([{"path": format!("/dev/{long}"), "type": "c", "major": 1, "minor": 7, "fileMode": 384}]),
            vec!["mknod(nnn", "1:7, 0o600", "too long"],
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 4096, "minor": 0}]),
            vec!["/dev/x", "4096:0 is out of range"],
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 1_048_576}]),
            vec!["1:1048576 is out of range"],
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "b", "major": -1, "minor": 0}]),
            vec!["-1:0 is out of range"],
        ),
        (
            "/linux/namespaces/0",
            json!({"type": "user", "path": "/proc/self/ns/user"}),
            vec!["user namespace /proc/self/ns/user"],
        ),
        (
            "/mounts/1",
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=bad"]}),
            vec!["rootfs/dev>, nosuid, \"mode=bad\"", "Invalid"],
        ),
        (
            "/mounts/1",
            json!({"destination": "/dev", "type": "nofs", "source": "x"}),
            vec!["mount(nofs, ", "rootfs/dev>"],
        ),
        ("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [7, 2000]}), vec!["setgroups(2, [7, 2000])"]),
        ("/process/user", json!({"uid": 2000, "gid": 0}), vec!["setresuid(2000)"]),
        ("/process/user", json!({"uid": 0, "gid": 2000}), vec!["setresgid(2000)"]),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 0}]),
            vec!["write \"0 0 0\\n\" to /proc/"],
        ),
        ("/process/cwd", json!("/bin/sh"), vec!["make cwd \"/bin/sh\""]),
    ]
}

fn frozen(sandbox: &Sandbox) {
    let mapped = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    for (place, value, words) in wrong() {
        let change = |config: &mut Value| {
            if place == "/process/user" || place == "/linux/uidMappings" {
                config["linux"]["uidMappings"] = mapped.clone();
                config["linux"]["gidMappings"] = mapped.clone();
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            }
            let (parent, name) = place.rsplit_once('/').unwrap();
            match config.pointer_mut(parent).unwrap() {
                Value::Array(elements) => elements[name.parse::<usize>().unwrap()] = value,
                object => object[name] = value,
            }
        };
        refused(sandbox, change, &words);
    }
}

type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// Hooks inside the container change nothing in it: they run when all else is certain.
fn truth(sandbox: &Sandbox) {
    let agent = |config: &mut Value| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent", "architectures": [],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
        });
    };
    let rlimit = |config: &mut Value| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 9, "hard": 8}]);
    };
    let idle = |config: &mut Value| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_NONE", "priority": 3});
    };
    let cases: [Change<'_>; 3] = [("agent /no/agent", &agent), ("RLIMIT_CORE", &rlimit), ("ioprio_set", &idle)];
    for (words, change) in cases {
        for hooked in [false, true] {
            let both = |config: &mut Value| {
                change(config);
                if hooked {
                    config["hooks"]["startContainer"] = json!([{"path": "/bin/touch", "args": ["touch", "/ran"]}]);
                }
            };
            refused(sandbox, both, &[words]);
            assert!(!sandbox.exists("err/rootfs/ran"));
        }
    }
}

fn starved(sandbox: &Sandbox) {
    for (resources, words) in [
        (json!({"memory": {"limit": 4096}}), "memory limit is too low"),
        (json!({"cpu": {"shares": 1}}), "cpu.shares 1 is not within"),
        (json!({"cpu": {"shares": 262_145}}), "cpu.shares 262145 is not within"),
    ] {
        refused(sandbox, |config| config["linux"]["resources"] = resources, &[words]);
    }
}
