//! What a container's process is given beside a root: priorities, processors, memory policy, personality, clocks, labels,
//! a listener for its system calls, the host's network interfaces.

use serde_json::{Value, json};

use super::{NEEDS, bundle, run, runtime, spawn};
use crate::support::{Need, Sandbox, Test, test};

const NEEDS_PYTHON: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("python3")];
const NEEDS_IP: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("ip")];
const NEEDS_NUMA: &[Need] = &[Need::Root, Need::Program("busybox"), Need::File("/proc/self/numa_maps")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("the_scheduler_is_the_config_s", NEEDS, scheduler),
        test("the_io_priority_is_the_config_s", NEEDS, io_priority),
        test("an_executed_process_gets_its_processors", NEEDS, cpu_affinity),
        test("memory_comes_from_the_nodes_of_the_policy", NEEDS_NUMA, memory_policy),
        test("a_personality_changes_the_machine_s_name", NEEDS, personality),
        test("every_clock_of_a_time_namespace_has_its_offset", NEEDS, time_offsets),
        test("intel_rdt_is_refused_and_not_ignored", NEEDS, intel_rdt),
        test("a_label_that_no_kernel_module_knows_is_refused", NEEDS, labels),
        test("a_seccomp_listener_is_sent_and_answers_calls", NEEDS_PYTHON, listener),
        test("network_devices_move_with_their_lasting_addresses", NEEDS_IP, net_devices),
        test("a_network_device_that_cannot_move_fails_create", NEEDS_IP, immovable_device),
    ]
}

fn scheduler(sandbox: &Sandbox) {
    // proc_pid_stat(5): nice, real-time priority, policy.
    let fields = json!(["cut", "-d ", "-f19,40,41", "/proc/self/stat"]);
    // Where groups have shares of the real time, one without has none.
    let grouped = sandbox.sh("echo 20000 >/sys/fs/cgroup/cpu/cpu.rt_runtime_us").run().code() == 0;
    for (settings, want) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), "7 0 0\n"),
        (json!({"policy": "SCHED_BATCH", "nice": 3}), "3 0 3\n"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5\n"),
        (json!({"policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), "0 5 1\n"),
        (json!({"policy": "SCHED_RR", "priority": 6}), "0 6 2\n"),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 5_000_000, "period": 10_000_000}),
            "0 0 6\n",
        ),
    ] {
        bundle(sandbox, "sch", "", |config| {
            config["process"]["args"] = fields.clone();
            config["process"]["scheduler"] = settings.clone();
            if grouped {
                config["linux"]["resources"] = json!({"cpu": {"realtimeRuntime": 10_000}});
            }
        });
        run(sandbox, "sch").ok().stdout_is(want);
    }
    for wrong in [
        json!({"policy": "SCHED_NONE"}),
        json!({"policy": "SCHED_FIFO", "priority": 100}),
        json!({"policy": "SCHED_OTHER", "flags": ["X"]}),
    ] {
        bundle(sandbox, "sch", "true", |config| config["process"]["scheduler"] = wrong.clone());
        run(sandbox, "sch").fails(1).one_error_line("spawn", &["sched"]);
    }
}

fn io_priority(sandbox: &Sandbox) {
    for (class, number, want) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2\n"),
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ] {
        bundle(sandbox, "iop", "ionice -p $$", |config| {
            config["process"]["ioPriority"] = json!({"class": class, "priority": number});
        });
        let outcome = run(sandbox, "iop").ok();
        assert!(outcome.stdout.starts_with(want.trim_end()), "{class}: {}", outcome.stdout);
    }
    bundle(sandbox, "iop", "true", |config| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    });
    run(sandbox, "iop").fails(1).one_error_line("spawn", &["ioPriority.priority 8"]);
}

fn cpu_affinity(sandbox: &Sandbox) {
    let cpus = || sandbox.sh("sed -n 's/^Cpus_allowed_list:\\s*//p' /proc/self/status").run().stdout;
    bundle(sandbox, "cpu", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b cpu e2e-cpu </dev/null >/dev/null 2>&1").ok();
    let all = cpus();
    for (affinity, want) in [
        (json!({"initial": "0"}), "0\n".to_owned()),
        (json!({"initial": "0", "final": "0"}), "0\n".to_owned()),
        (json!({"final": "0"}), "0\n".to_owned()),
        (json!({}), all.clone()),
    ] {
        let script = "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status";
        let process =
            json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity});
        sandbox.write("process.json", process.to_string());
        spawn(sandbox, "exec --process process.json e2e-cpu").ok().stdout_is(&want);
    }
    for wrong in ["1-0", "x", "70000"] {
        let process = json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": {"final": wrong}});
        sandbox.write("process.json", process.to_string());
        spawn(sandbox, "exec --process process.json e2e-cpu").fails(255).one_error_line("spawn", &["CPU"]);
    }
    spawn(sandbox, "delete -f e2e-cpu").ok();
}

fn memory_policy(sandbox: &Sandbox) {
    for (policy, want) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "interleave=static:0"),
        (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "prefer"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        bundle(sandbox, "mem", "head -n1 /proc/self/numa_maps", |config| {
            config["linux"]["memoryPolicy"] = policy.clone();
        });
        let outcome = run(sandbox, "mem").ok();
        assert!(outcome.stdout.contains(want), "{policy}: {}", outcome.stdout);
    }
    for wrong in [
        json!({"mode": "MPOL_NONE"}),
        json!({"mode": "MPOL_BIND", "nodes": "900"}),
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}),
    ] {
        bundle(sandbox, "mem", "true", |config| config["linux"]["memoryPolicy"] = wrong.clone());
        run(sandbox, "mem").fails(1).one_error_line("spawn", &["memory"]);
    }
}

fn personality(sandbox: &Sandbox) {
    for (domain, want) in [("LINUX32", "i686"), ("LINUX", "x86_64")] {
        bundle(sandbox, "per", "uname -m", |config| config["linux"]["personality"] = json!({"domain": domain}));
        let machine = run(sandbox, "per").ok().stdout;
        assert!(machine.trim_end() == want || !cfg!(target_arch = "x86_64"), "{domain}: {machine}");
    }
    bundle(sandbox, "per", "true", |config| config["linux"]["personality"] = json!({"domain": "BSD"}));
    run(sandbox, "per").fails(1).one_error_line("spawn", &["personality"]);
}

fn time_offsets(sandbox: &Sandbox) {
    bundle(sandbox, "tim", "tr -s ' ' </proc/self/timens_offsets", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": 172_800, "nanosecs": 5}, "boottime": {"secs": 604_800}});
    });
    run(sandbox, "tim").ok().stdout_is("monotonic 172800 5\nboottime 604800 0\n");
    spawn(sandbox, "create -b tim e2e-tim </dev/null >/dev/null 2>&1").ok();
    // What enters later has the same clocks.
    spawn(sandbox, "exec e2e-tim sh -c 'test $(cut -d. -f1 /proc/uptime) -gt 604800'").ok();
    spawn(sandbox, "delete -f e2e-tim").ok();
    bundle(sandbox, "tim", "true", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    });
    run(sandbox, "tim").fails(1).one_error_line("spawn", &["time offsets", "realtime 1 0"]);
}

fn intel_rdt(sandbox: &Sandbox) {
    let features = sandbox.sh("spawn features").run().ok().json();
    assert_eq!(features["linux"]["intelRdt"]["enabled"], json!(false));
    bundle(sandbox, "rdt", "true", |config| config["linux"]["intelRdt"] = json!({"closID": "a"}));
    run(sandbox, "rdt").fails(1).one_error_line("spawn", &["intelRdt"]);
}

fn labels(sandbox: &Sandbox) {
    for (member, file, words) in [
        ("apparmorProfile", "/sys/module/apparmor/parameters/enabled", "apparmor"),
        ("selinuxLabel", "/sys/fs/selinux/enforce", "selinux"),
    ] {
        if std::path::Path::new(file).exists() {
            continue;
        }
        bundle(sandbox, "lab", "true", |config| config["process"][member] = json!("unconfined"));
        run(sandbox, "lab").fails(1).one_error_line("spawn", &[words, "not supported"]);
    }
}

/// Prints what comes with the listener, then answers each `mkdir` by EDQUOT. Layouts: `seccomp_unotify(2)`.
const AGENT: &str = r#"
import array, fcntl, os, socket, struct, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind("agent.sock")
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    data, control, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
    while more := connection.recv(65536):
        data += more
    fds = array.array("i", control[0][2])
    print(data.decode(), len(fds), flush=True)
    if os.fork() == 0:
        while True:
            notification = bytearray(80)
            try:
                fcntl.ioctl(fds[0], 0xc0502100, notification)
            except OSError:
                os._exit(0)
            fcntl.ioctl(fds[0], 0xc0182101, struct.pack("=QqiI", struct.unpack_from("=Q", notification)[0], 0, -122, 0))
    os.close(fds[0])
"#;

fn listener(sandbox: &Sandbox) {
    sandbox.write("agent.py", AGENT);
    let agent = sandbox.sh("exec python3 agent.py").start();
    agent.wait_stdout("ready");
    let script = "mkdir /tmp/a 2>&1 | grep -o quota";
    bundle(sandbox, "not", script, |config| {
        config["annotations"] = json!({"note": "kept"});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": sandbox.at("agent.sock"), "listenerMetadata": "who: me",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
        });
    });
    for privileges in [true, false] {
        let mut config: Value = serde_json::from_str(&sandbox.read("not/config.json")).unwrap();
        config["process"]["noNewPrivileges"] = json!(privileges);
        sandbox.write("not/config.json", config.to_string());
        run(sandbox, "not").ok().stdout_is("quota\n");
    }
    sandbox.sh("sed -i 's/| grep -o quota/>mkdir.out; sleep 1000/' not/config.json").run().ok();
    spawn(sandbox, "create -b not e2e-not2 </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "start e2e-not2").ok();
    spawn(sandbox, "exec e2e-not2 mkdir /tmp/b").fails(1).stderr_has("quota");
    let pid = spawn(sandbox, "state e2e-not2").json()["pid"].clone();
    spawn(sandbox, "delete -f e2e-not2").ok();
    agent.signal(rustix::process::Signal::KILL);
    let told = agent.wait().stdout;
    let states: Vec<Value> = told
        .lines()
        .filter_map(|line| line.strip_suffix(" 1"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let statuses: Vec<&Value> = states.iter().map(|state| &state["state"]["status"]).collect();
    assert_eq!(statuses, ["creating", "creating", "creating", "running"], "{told}");
    for state in &states {
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("who: me")), "{told}");
        assert_eq!((&state["ociVersion"], &state["state"]["annotations"]["note"]), (&json!("1.3.0"), &json!("kept")));
    }
    assert_eq!((&states[2]["pid"], &states[2]["state"]["pid"], &states[3]["state"]["pid"]), (&pid, &pid, &pid));
    // The pid of an executed process is its own.
    assert_ne!(states[3]["pid"], pid);
    bundle(sandbox, "non", "true", |config| {
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": sandbox.at("none.sock"), "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        config["linux"]["seccomp"] = seccomp;
    });
    run(sandbox, "non").fails(1).one_error_line("spawn", &["seccomp agent", "none.sock"]);
}

fn net_devices(sandbox: &Sandbox) {
    let script = "ip link add e2e0 type veth peer name e2e1 && ip addr add 10.9.8.7/24 dev e2e0 && ip addr add 169.254.9.9/16 scope link dev e2e0 && \
                  ip addr add fd00::7/64 nodad dev e2e0 && ip link set e2e0 mtu 1400 address 02:00:00:00:00:07";
    let inside = "ip -o addr show dev eth7 | sed -n 's/.*inet6* \\([0-9a-f.:/]*\\) .*/\\1/p' | grep -v ^fe80; cat /sys/class/net/eth7/mtu /sys/class/net/eth7/address /proc/sys/net/ipv4/conf/eth7/forwarding; ip link show up | grep -o 'eth7\\|e2e1@' | sort -u; ls /sys/class/net/ | grep -c lo";
    sandbox.sh("ip netns add e2e-dev").run().ok();
    for path in ["", "/run/netns/e2e-dev"] {
        sandbox.sh(script).run().ok();
        bundle(sandbox, "dev", inside, |config| {
            config["linux"]["netDevices"] = json!({"e2e0": {"name": "eth7"}, "e2e1": {}});
            config["linux"]["namespaces"][1]["path"] = json!(path);
            config["linux"]["sysctl"] = json!({"net.ipv4.conf.eth7.forwarding": "1"});
            let sys = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"});
            config["mounts"].as_array_mut().unwrap().push(sys);
        });
        run(sandbox, "dev").ok().stdout_is("10.9.8.7/24\nfd00::7/64\n1400\n02:00:00:00:00:07\n1\ne2e1@\neth7\n1\n");
    }
    sandbox.sh("ip netns exec e2e-dev ip link del eth7 && ip netns del e2e-dev").run().ok();
    // A pattern lets the kernel find a name.
    sandbox.sh(script).run().ok();
    bundle(sandbox, "dev", "ip -o link | cut -d: -f2 | cut -d@ -f1", |config| {
        config["linux"]["netDevices"] = json!({"e2e0": {"name": "lo%d"}, "e2e1": {"name": "lo%d"}});
    });
    let names = run(sandbox, "dev").ok().stdout;
    let mut names: Vec<&str> = names.split_ascii_whitespace().collect();
    names.sort_unstable();
    assert_eq!(names, ["lo", "lo0", "lo1"]);
}

fn immovable_device(sandbox: &Sandbox) {
    sandbox.sh("ip link add e2e0 type veth peer name e2e1").run().ok();
    for (devices, words) in [
        (json!({"nope": {}}), "no such device"),
        (json!({"e2e0": {"name": "lo"}}), "already has a device lo"),
        (json!({"e2e0": {"name": "a/b"}}), "netDevices e2e0: \"a/b\""),
    ] {
        bundle(sandbox, "imm", "true", |config| config["linux"]["netDevices"] = devices.clone());
        run(sandbox, "imm").fails(1).one_error_line("spawn", &[words]);
        sandbox.sh("ls st; ip link show e2e0").run().ok();
    }
    bundle(sandbox, "imm", "true", |config| {
        config["linux"]["netDevices"] = json!({"e2e0": {}});
        config["linux"]["namespaces"].as_array_mut().unwrap().remove(1);
    });
    let outcome = sandbox.sh(&format!("{} --root {} run -b imm e2e-imm", runtime(), sandbox.at("st"))).run().fails(1);
    outcome.one_error_line("spawn", &["without a private NET namespace"]);
    sandbox.sh("ip link del e2e0").run().ok();
}
