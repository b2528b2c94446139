//! `spawn`: a bundle becomes a container. `SPAWN=runc` runs what runc can do, too, with runc: to prove the tests right.

mod attacks;
mod budget;
mod callers;
mod cgroups;
mod crash;
mod engines;
mod errors;
mod events;
mod habits;
mod hostile;
mod many;
mod mounts;
mod process;
mod rootless;
mod systemd;
mod updates;
mod vm;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Need, Outcome, Sandbox, Test, test, wait_for};

pub(crate) const NEEDS: &[Need] = &[Need::Root, Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("create_waits_for_start", NEEDS, create_waits),
        test("the_exit_status_is_the_program_s", NEEDS, exit_status),
        test("a_running_container_is_not_deleted_unforced", NEEDS, delete_running),
        test("a_missing_program_fails_create_with_the_words_hosts_look_for", NEEDS, missing_program),
        test("errors_are_json_lines_in_the_log", NEEDS, log_lines),
        test("capabilities_and_groups_are_the_config_s_alone", NEEDS, identity),
        test("masked_paths_are_empty_and_readonly_ones_read_only", NEEDS, restricted),
        test("seccomp_answers_each_call_as_configured", NEEDS, seccomp),
        test("mount_options_reach_the_mounts", NEEDS, mounts),
        test("recursive_read_only_reaches_submounts", NEEDS, recursive_read_only),
        test("hooks_run_in_order_with_the_state_on_stdin", NEEDS, hooks),
        test("a_hook_that_hangs_is_killed_and_create_fails", NEEDS, hook_timeout),
        test("user_namespaces_map_ids", NEEDS, user_namespace),
        test("in_a_user_namespace_a_process_has_its_oom_score", NEEDS, oom_score),
        test("time_namespaces_have_their_offsets", NEEDS, time_namespace),
        test("a_namespace_is_joined_by_path", NEEDS, joined),
        test("sysctls_are_set_in_the_container_s_namespaces", NEEDS, sysctls),
        test("limits_hold_before_the_start_and_change_live", NEEDS, limits),
        test("a_paused_container_stands_still", NEEDS, pause),
        test("exec_enters_every_namespace_and_returns_the_status", NEEDS, exec),
        test("ps_and_list_show_what_runs", NEEDS, ps_and_list),
        test("a_terminal_is_the_container_s_own", NEEDS, terminal),
        test("a_signal_is_forwarded", NEEDS, forwarded),
        test("rlimits_umask_and_cwd_are_set", NEEDS, process_settings),
        test("a_record_on_stdin_leaves_the_container_no_stdin", NEEDS, filter_stdin),
        test("a_bundle_directory_leaves_stdin_to_the_container", NEEDS, directory_stdin),
        test("the_filter_has_docker_s_exit_codes", NEEDS, filter_codes),
        test("detached_the_record_comes_out_as_a_state", NEEDS, detach),
        test("the_status_descriptor_tells_state_and_exit_code", NEEDS, status_fd),
        test("spec_makes_a_config_that_runs", NEEDS, spec),
        test("features_are_listed", NEEDS, features),
        test("sockets_to_listen_on_are_passed_on", NEEDS, listen_fds),
        test("create_container_hooks_begin_in_the_root_file_system", NEEDS, hook_directory),
    ];
    tests.extend(attacks::tests());
    tests.extend(budget::tests());
    tests.extend(callers::tests());
    tests.extend(engines::tests());
    tests.extend(errors::tests());
    tests.extend(cgroups::tests().into_iter().map(|test| test.in_area("cgroups")));
    tests.extend(events::tests().into_iter().map(|test| test.in_area("events")));
    tests.extend(systemd::tests().into_iter().map(|test| test.in_area("systemd")));
    tests.extend(crash::tests());
    tests.extend(habits::tests());
    tests.extend(hostile::tests());
    tests.extend(many::tests());
    tests.extend(mounts::tests());
    tests.extend(process::tests());
    tests.extend(rootless::tests());
    tests.extend(updates::tests());
    tests.extend(vm::tests().into_iter().map(|test| test.in_area("vm")));
    tests
}

/// The runtime under test.
fn runtime() -> String {
    std::env::var("SPAWN").unwrap_or_else(|_| "spawn".to_owned())
}

/// Makes a bundle `NAME` whose process is `sh -c SCRIPT`, changed by `change`.
pub(crate) fn bundle(sandbox: &Sandbox, name: &str, script: &str, change: impl FnOnce(&mut Value)) {
    let make = format!(
        "mkdir -p {name}/rootfs && cd {name}/rootfs && mkdir -p bin dev etc proc sys tmp mnt && cp $(command -v busybox) bin/busybox && \
         for a in $(bin/busybox --list | grep -vx busybox); do ln -sf busybox bin/$a; done"
    );
    sandbox.sh(&make).run().ok();
    let mut config = default_config();
    config["process"]["args"] = json!(["sh", "-c", script]);
    change(&mut config);
    sandbox.write(format!("{name}/config.json"), config.to_string());
}

/// Changes the configuration of a bundle.
pub(crate) fn change(sandbox: &Sandbox, name: &str, change: impl FnOnce(&mut Value)) {
    let file = format!("{name}/config.json");
    let mut config = serde_json::from_str(&sandbox.read(&file)).unwrap();
    change(&mut config);
    sandbox.write(&file, config.to_string());
}

fn default_config() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": [], "readonlyPaths": []
        }
    })
}

/// Runs the runtime with these words, its state in the sandbox.
pub(crate) fn spawn(sandbox: &Sandbox, words: &str) -> Outcome {
    sandbox.sh(&format!("{} --root {} {words}", runtime(), sandbox.at("st"))).run()
}

/// Runs a container of its own name in the foreground; the name is the bundle's.
pub(crate) fn run(sandbox: &Sandbox, name: &str) -> Outcome {
    spawn(sandbox, &format!("run -b {name} e2e-{name}"))
}

fn create_waits(sandbox: &Sandbox) {
    bundle(sandbox, "wait", "echo started; sleep 1000", |_| {});
    sandbox
        .sh(&format!("{} --root {} create -b wait --pid-file pid e2e-wait >out 2>&1", runtime(), sandbox.at("st")))
        .run()
        .ok();
    let state = spawn(sandbox, "state e2e-wait").ok().json();
    assert_eq!((state["status"].as_str(), sandbox.read("out").as_str()), (Some("created"), ""));
    assert_eq!(state["pid"].to_string(), sandbox.read("pid"));
    spawn(sandbox, "start e2e-wait").ok();
    wait_for("the program", || sandbox.read("out").contains("started").then_some(()));
    assert_eq!(spawn(sandbox, "state e2e-wait").ok().json()["status"], "running");
    assert_ne!(spawn(sandbox, "start e2e-wait").code(), 0);
    spawn(sandbox, "kill e2e-wait KILL").ok();
    wait_for("the end", || (spawn(sandbox, "state e2e-wait").json()["status"] == "stopped").then_some(()));
    spawn(sandbox, "delete e2e-wait").ok();
    assert_ne!(spawn(sandbox, "state e2e-wait").code(), 0);
}

fn exit_status(sandbox: &Sandbox) {
    for (script, want) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$; sleep 9", 137)] {
        bundle(sandbox, "status", script, |config| {
            // A pid namespace's first process is deaf to its own signals.
            config["linux"]["namespaces"] = json!([{"type": "mount"}]);
        });
        assert_eq!(run(sandbox, "status").code(), want, "{script}");
    }
}

fn delete_running(sandbox: &Sandbox) {
    bundle(sandbox, "del", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b del e2e-del </dev/null >/dev/null 2>&1").ok();
    assert_ne!(spawn(sandbox, "delete e2e-del").code(), 0);
    spawn(sandbox, "delete --force e2e-del").ok();
    spawn(sandbox, "delete --force e2e-del").ok();
    assert_ne!(spawn(sandbox, "delete e2e-del").code(), 0);
}

fn missing_program(sandbox: &Sandbox) {
    for (program, want) in [
        ("nope", "executable file not found in $PATH"),
        ("/bin/nope", "no such file or directory"),
        ("/etc/text", "permission denied"),
    ] {
        bundle(sandbox, "missing", "", |config| config["process"]["args"] = json!([program]));
        sandbox.write("missing/rootfs/etc/text", "text");
        let outcome = spawn(sandbox, "create -b missing e2e-missing");
        assert_ne!(outcome.code(), 0, "{program}");
        outcome.stderr_has(want);
    }
}

fn log_lines(sandbox: &Sandbox) {
    assert_ne!(spawn(sandbox, "--log log --log-format json start e2e-none").code(), 0);
    let line: Value = serde_json::from_str(sandbox.read("log").lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    assert!(line["time"].is_string());
    bundle(sandbox, "say", "true", |config| {
        config["process"]["capabilities"]["bounding"] = json!(["CAP_NONSENSE"]);
        let hook = json!([{"path": "/bin/true"}]);
        config["hooks"] = json!({"createRuntime": hook, "startContainer": [{"path": "/bin/true"}]});
    });
    let said = spawn(sandbox, "--debug --log said --log-format json run -b say e2e-say").ok();
    let levels = |text: &str, level: &str| text.lines().filter(|line| line.contains(level)).count();
    let log = sandbox.read("said");
    assert_eq!((levels(&log, r#""level":"warning""#), levels(&said.stderr, "CAP_NONSENSE")), (1, 0), "{log}{said}");
    for step in ["make the cgroups of e2e-say: /", "cloned process ", "has its program", "createRuntime"] {
        assert!(log.contains(step), "{step}: {log}");
    }
    assert!(!said.stderr.contains("createRuntime"), "{log}{said}");
    assert!(!sandbox.exists("say/rootfs/said"), "the log is written inside the container");
    let said = spawn(sandbox, "--debug run -b say e2e-say").ok();
    assert_eq!(levels(&said.stderr, "level=debug msg=\"cloned process "), 1, "{said}");
    assert_eq!(levels(&said.stderr, "CAP_NONSENSE"), 1, "{said}");
}

/// `sd_listen_fds(3)`: the numbers count only for the process that they are meant for.
fn listen_fds(sandbox: &Sandbox) {
    bundle(sandbox, "lis", "echo ${LISTEN_FDS-no} ${LISTEN_PID-no}; cat <&3 2>/dev/null", |_| {});
    sandbox.write("text", "passed\n");
    let run = format!("exec {} --root {} run -b lis e2e-lis", runtime(), sandbox.at("st"));
    let script = |pid: &str| format!("sh -c 'LISTEN_PID={pid} LISTEN_FDS=1 {run}' 3<text");
    sandbox
        .sh(&script("$$").replace("exec", "; export LISTEN_PID LISTEN_FDS; exec"))
        .run()
        .ok()
        .stdout_is("1 1\npassed\n");
    let other = sandbox.sh(&script("1").replace("exec", "; export LISTEN_PID LISTEN_FDS; exec")).run();
    assert_eq!(other.stdout, "no no\n", "{other}");
}

fn hook_directory(sandbox: &Sandbox) {
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "pwd -P; ls >made-by-hook"]}]);
    bundle(sandbox, "dir", "cat /made-by-hook", |config| config["hooks"]["createContainer"] = hook);
    let outcome = run(sandbox, "dir").ok();
    assert!(outcome.stdout.lines().any(|line| line == "made-by-hook"), "{outcome}");
}

fn identity(sandbox: &Sandbox) {
    bundle(sandbox, "id", "grep -E '^(Cap|Groups|NoNewPrivs)' /proc/self/status", |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
    });
    let lines = run(sandbox, "id").ok().stdout;
    let want = "Groups:\t7 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000020000420\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(lines, want);
    bundle(sandbox, "amb", "grep -E '^Cap(Eff|Amb)' /proc/self/status", |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        for set in ["inheritable", "ambient", "bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_NONSENSE"]);
        }
    });
    run(sandbox, "amb").ok().stdout_is("CapEff:\t0000000000000020\nCapAmb:\t0000000000000020\n");
}

fn restricted(sandbox: &Sandbox) {
    let script = "cat /proc/keys; ls /proc/fs /sys; (echo x >/proc/sys/kernel/domainname) 2>&1 | grep -o Read-only; cat /tmp/secret; stat -c %t:%T /tmp/secret";
    bundle(sandbox, "mask", script, |config| {
        config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/fs", "/sys", "/tmp/secret", "/not/there"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/not/there"]);
    });
    sandbox.write("mask/rootfs/tmp/secret", "secret");
    run(sandbox, "mask").ok().stdout_is("/proc/fs:\n\n/sys:\nRead-only\n1:3\n");
    bundle(
        sandbox,
        "mas",
        "touch /a 2>&1 | grep -o Read-only; echo x >/dev/null && touch /dev/x && echo made",
        |config| {
            config["linux"]["readonlyPaths"] = json!(["/"]);
        },
    );
    run(sandbox, "mas").ok().stdout_is("Read-only\nmade\n");
    change(sandbox, "mas", |config| {
        config["linux"]["readonlyPaths"] = json!([""]);
        config["linux"]["maskedPaths"] = json!([""]);
        config["process"]["args"] =
            json!(["/bin/sh", "-c", "touch /a && cut -d' ' -f5 /proc/self/mountinfo | grep -cx /"]);
    });
    run(sandbox, "mas").ok().stdout_is("1\n");
}

fn seccomp(sandbox: &Sandbox) {
    let script = "mkdir /tmp/a 2>&1 | grep -o 'Operation not permitted'; hostname x 2>&1 | grep -o 'Value too large'; grep ^Seccomp: /proc/self/status; (kill -USR1 $$; echo survived)";
    bundle(sandbox, "sec", script, |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 75},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}
            ]
        });
    });
    run(sandbox, "sec").ok().stdout_is("Operation not permitted\nValue too large\nSeccomp:\t2\nsurvived\n");
}

fn mounts(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p data && echo content >data/file && echo one >single").run().ok();
    let data = sandbox.at("data");
    let script = "cat /mnt/d/file /etc/single; (echo x >/mnt/d/file) 2>&1 | grep -o Read-only; stat -c %a /mnt/t; cat /mnt/up/kept; grep -E ' /mnt/(d|t) ' /proc/self/mountinfo | cut -d' ' -f6";
    bundle(sandbox, "mnt", script, |config| {
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/mnt/d", "source": data, "options": ["bind", "ro", "nosuid", "noexec"]}),
            json!({"destination": "/etc/single", "source": sandbox.at("single"), "options": ["bind"]}),
            json!({"destination": "/mnt/t", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1750", "size=64k", "nodev", "noatime"]}),
            json!({"destination": "/mnt/up", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        ]);
    });
    sandbox.sh("mkdir -p mnt/rootfs/mnt/up && echo kept >mnt/rootfs/mnt/up/kept").run().ok();
    let out = run(sandbox, "mnt").ok().stdout;
    assert!(out.starts_with("content\none\nRead-only\n1750\nkept\nro,nosuid,noexec"), "{out}");
    assert!(out.contains("nodev,noatime"), "{out}");
}

fn recursive_read_only(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p tree/below && mount -t tmpfs t tree/below").run().ok();
    let tree = sandbox.at("tree");
    bundle(
        sandbox,
        "rro",
        "(echo x >/mnt/r/below/f) 2>&1 | grep -o Read-only; echo x >/mnt/w/below/f && echo written",
        |config| {
            config["mounts"].as_array_mut().unwrap().extend([
                json!({"destination": "/mnt/r", "source": tree, "options": ["rbind", "rro"]}),
                json!({"destination": "/mnt/w", "source": tree, "options": ["rbind", "rw"]}),
            ]);
        },
    );
    run(sandbox, "rro").ok().stdout_is("Read-only\nwritten\n");
    sandbox.sh("umount tree/below").run().ok();
}

fn hooks(sandbox: &Sandbox) {
    let log = sandbox.at("hooks");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("read line; echo {name} $line >>{log}")], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}]);
    bundle(sandbox, "hook", &format!("echo program >>{log}"), |config| {
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            config["hooks"][name] = hook(name);
        }
        config["mounts"].as_array_mut().unwrap().push(json!({"destination": log, "source": log, "options": ["bind"]}));
    });
    sandbox.write("hooks", "");
    spawn(sandbox, "create -b hook e2e-hook </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "start e2e-hook").ok();
    wait_for("the end", || (spawn(sandbox, "state e2e-hook").json()["status"] == "stopped").then_some(()));
    spawn(sandbox, "delete e2e-hook").ok();
    let text = sandbox.read("hooks");
    let mut order: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    // poststart and the program run at the same time.
    let program = order.iter().position(|word| *word == "program").unwrap();
    assert!(program > 3, "{text}");
    order.remove(program);
    assert_eq!(order, ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]);
    let status = |hook: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{hook} "))).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["status"].clone()
    };
    assert_eq!(
        [status("createRuntime"), status("startContainer"), status("poststop")],
        ["creating", "created", "stopped"]
    );
}

fn hook_timeout(sandbox: &Sandbox) {
    bundle(sandbox, "slow", "true", |config| {
        config["hooks"]["createRuntime"] = json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    });
    assert_ne!(run(sandbox, "slow").code(), 0);
    assert!(!sandbox.exists("st/e2e-slow"));
}

fn user_namespace(sandbox: &Sandbox) {
    bundle(
        sandbox,
        "uns",
        "cat /proc/self/uid_map | tr -s ' '; id -u; stat -c %u /bin/busybox /dev/null; echo x >/tmp/made",
        |config| {
            map_ids(config);
        },
    );
    sandbox.sh("chown -hR 100000:100000 uns/rootfs && chmod 755 . uns").run().ok();
    run(sandbox, "uns").ok().stdout_is(" 0 100000 65536\n0\n0\n65534\n");
    sandbox.sh("stat -c %u uns/rootfs/tmp/made").run().ok().stdout_is("100000\n");
}

/// Gives the container a user namespace, whose root is 100000.
pub(crate) fn map_ids(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

/// There it may not take it by itself.
fn oom_score(sandbox: &Sandbox) {
    bundle(sandbox, "oom", "cat /proc/self/oom_score_adj; sleep 1000", |config| {
        map_ids(config);
        config["process"]["oomScoreAdj"] = json!(500);
    });
    sandbox.sh("chown -hR 100000:100000 oom/rootfs && chmod 755 . oom").run().ok();
    spawn(sandbox, "run -d --pid-file pid -b oom e2e-oom </dev/null >/dev/null 2>&1").ok();
    sandbox.sh("cat /proc/$(cat pid)/oom_score_adj").run().ok().stdout_is("500\n");
    spawn(sandbox, "exec e2e-oom cat /proc/self/oom_score_adj").ok().stdout_is("500\n");
    spawn(sandbox, "delete -f e2e-oom").ok();
    change(sandbox, "oom", |config| config["process"]["oomScoreAdj"] = json!(1001));
    run(sandbox, "oom").fails(1).one_error_line("spawn", &["oomScoreAdj 1001", "Invalid argument"]);
    change(sandbox, "oom", |config| config["linux"]["uidMappings"] = json!([]));
    run(sandbox, "oom").fails(1).one_error_line("spawn", &["uidMappings"]);
}

fn time_namespace(sandbox: &Sandbox) {
    for with_user in [false, true] {
        bundle(sandbox, "time", "cut -d. -f1 /proc/uptime", |config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 10_000_000, "nanosecs": 0}});
            if with_user {
                map_ids(config);
            }
        });
        if with_user {
            sandbox.sh("chown -hR 100000:100000 time/rootfs && chmod 755 . time").run().ok();
        }
        let uptime: u64 = run(sandbox, "time").ok().stdout.trim().parse().unwrap();
        assert!(uptime > 10_000_000, "{uptime}");
    }
}

fn joined(sandbox: &Sandbox) {
    sandbox.sh("ip netns add e2e-join").run().ok();
    bundle(sandbox, "join", "readlink /proc/self/ns/net", |config| {
        config["linux"]["namespaces"][1] = json!({"type": "network", "path": "/run/netns/e2e-join"});
    });
    let inside = run(sandbox, "join").ok().stdout;
    sandbox.sh("ip netns exec e2e-join readlink /proc/self/ns/net").run().ok().stdout_is(&inside);
    bundle(sandbox, "wrong", "true", |config| {
        config["linux"]["namespaces"][1] = json!({"type": "network", "path": "/proc/self/ns/uts"});
    });
    assert_ne!(run(sandbox, "wrong").code(), 0);
    sandbox.sh("ip netns del e2e-join").run().ok();
}

fn sysctls(sandbox: &Sandbox) {
    bundle(
        sandbox,
        "sys",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced",
        |config| {
            config["linux"]["sysctl"] =
                json!({"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shm_rmid_forced": "1"});
        },
    );
    run(sandbox, "sys").ok().stdout_is("7\n1\n");
}

fn limits(sandbox: &Sandbox) {
    bundle(sandbox, "lim", "sleep 1000", |config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 20}, "memory": {"limit": 67_108_864}});
    });
    spawn(sandbox, "create -b lim e2e-lim </dev/null >/dev/null 2>&1").ok();
    let pids = "cat /sys/fs/cgroup/pids/e2e-lim/pids.max 2>/dev/null || cat /sys/fs/cgroup/e2e-lim/pids.max";
    sandbox.sh(pids).run().ok().stdout_is("20\n");
    spawn(sandbox, "start e2e-lim").ok();
    spawn(sandbox, "update --pids-limit 30 --memory 128m --memory-swap -1 e2e-lim").ok();
    sandbox.sh(pids).run().ok().stdout_is("30\n");
    sandbox
        .sh(&format!(
            "echo '{{\"pids\":{{\"limit\":40}}}}' | {} --root {} update -r - e2e-lim",
            runtime(),
            sandbox.at("st")
        ))
        .run()
        .ok();
    sandbox.sh(pids).run().ok().stdout_is("40\n");
    spawn(sandbox, "delete -f e2e-lim").ok();
}

fn pause(sandbox: &Sandbox) {
    bundle(sandbox, "pau", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b pau e2e-pau </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "pause e2e-pau").ok();
    assert_eq!(spawn(sandbox, "state e2e-pau").json()["status"], "paused");
    assert_ne!(spawn(sandbox, "exec e2e-pau true").code(), 0);
    spawn(sandbox, "resume e2e-pau").ok();
    spawn(sandbox, "exec e2e-pau true").ok();
    spawn(sandbox, "pause e2e-pau").ok();
    spawn(sandbox, "delete -f e2e-pau").ok();
}

fn exec(sandbox: &Sandbox) {
    bundle(sandbox, "exec", "sleep 1000", |config| config["hostname"] = json!("inside"));
    spawn(sandbox, "run -d -b exec e2e-exec </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "exec e2e-exec sh -c 'hostname; ps >/tmp/ps; wc -l </tmp/ps; exit 7'")
        .fails(7)
        .stdout_is("inside\n4\n");
    spawn(sandbox, "exec -u 5:6 -e A=b --cwd /tmp e2e-exec sh -c 'id -u; id -g; echo $A; pwd'")
        .ok()
        .stdout_is("5\n6\nb\n/tmp\n");
    assert_eq!(spawn(sandbox, "exec e2e-exec nope").code(), 127);
    sandbox.write(
        "process.json",
        json!({"args": ["cat", "/proc/self/cgroup"], "cwd": "/", "env": ["PATH=/bin"]}).to_string(),
    );
    spawn(sandbox, "exec --process process.json e2e-exec").ok().stdout_has("/e2e-exec\n");
    spawn(sandbox, "exec -d --pid-file pid e2e-exec sleep 500").ok();
    assert!(spawn(sandbox, "ps -f json e2e-exec").ok().stdout.contains(&sandbox.read("pid")));
    spawn(sandbox, "delete -f e2e-exec").ok();
}

fn ps_and_list(sandbox: &Sandbox) {
    bundle(sandbox, "list", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b list e2e-list </dev/null >/dev/null 2>&1").ok();
    let state = spawn(sandbox, "state e2e-list").json();
    assert_eq!(spawn(sandbox, "ps -f json e2e-list").ok().json()[0], state["pid"]);
    spawn(sandbox, "list -q").ok().stdout_is("e2e-list\n");
    let row = &spawn(sandbox, "list -f json").ok().json()[0];
    assert_eq!((&row["id"], &row["pid"], &row["status"]), (&json!("e2e-list"), &state["pid"], &json!("running")));
    spawn(sandbox, "delete -f e2e-list").ok();
}

fn terminal(sandbox: &Sandbox) {
    bundle(sandbox, "tty", "tty; test -c /dev/console && echo console; echo x >/dev/tty", |config| {
        config["process"]["terminal"] = json!(true);
    });
    let command = format!("{} --root {} run -b tty e2e-tty", runtime(), sandbox.at("st"));
    let outcome = sandbox.sh(&format!("script -qec '{command}' /dev/null </dev/null")).run().ok();
    // What the terminal echoes of the end of input comes at any moment.
    let lines = outcome.stdout.replace('\r', "").replace("^@", "");
    assert!(lines.ends_with("/dev/pts/0\nconsole\nx\n"), "{lines:?}");
    assert_ne!(spawn(sandbox, "create -b tty e2e-tty").code(), 0);
}

fn forwarded(sandbox: &Sandbox) {
    bundle(sandbox, "sig", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done", |_| {});
    let running = sandbox.sh(&format!("exec {} --root {} run -b sig e2e-sig", runtime(), sandbox.at("st"))).start();
    running.wait_stdout("ready");
    running.signal(Signal::TERM);
    running.wait().fails(5).stdout_is("ready\ncaught\n");
}

fn process_settings(sandbox: &Sandbox) {
    bundle(sandbox, "set", "ulimit -n; ulimit -Hn; umask; pwd; cat /proc/self/oom_score_adj", |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        config["process"]["user"]["umask"] = json!(0o027);
        config["process"]["cwd"] = json!("/made/on/the/way");
        config["process"]["oomScoreAdj"] = json!(77);
    });
    run(sandbox, "set").ok().stdout_is("100\n200\n0027\n/made/on/the/way\n77\n");
}

fn record(sandbox: &Sandbox, name: &str) -> String {
    json!({"other": [1], "id": format!("e2e-{name}"), "bundle": sandbox.at(name)}).to_string()
}

fn filter_stdin(sandbox: &Sandbox) {
    bundle(sandbox, "fin", "cat; echo end", |_| {});
    sandbox.sh("spawn").stdin(record(sandbox, "fin") + "\nmore\n").run().ok().stdout_is("end\n");
}

fn directory_stdin(sandbox: &Sandbox) {
    bundle(sandbox, "din", "cat; echo end", |_| {});
    sandbox.sh("spawn din").stdin("typed\n").run().ok().stdout_is("typed\nend\n");
    sandbox.write("record", record(sandbox, "din"));
    sandbox.sh("spawn record").stdin("typed\n").run().ok().stdout_is("typed\nend\n");
}

fn filter_codes(sandbox: &Sandbox) {
    for (arguments, want) in [
        (json!(["nope"]), 127),
        (json!(["/bin/nope"]), 127),
        (json!(["/etc"]), 126),
        (json!(["sh", "-c", "exit 3"]), 3),
    ] {
        bundle(sandbox, "codes", "", |config| config["process"]["args"] = arguments.clone());
        assert_eq!(sandbox.sh("spawn codes").run().code(), want, "{arguments}");
    }
    sandbox.sh("spawn").stdin("{}").run().fails(125).one_error_line("spawn", &["bundle"]);
}

fn detach(sandbox: &Sandbox) {
    bundle(sandbox, "det", "sleep 1000", |config| config["annotations"] = json!({"a": "b"}));
    let grown = sandbox.sh("spawn --detach 2>/dev/null").stdin(record(sandbox, "det")).run().ok().json();
    assert_eq!(
        (&grown["other"], &grown["status"], &grown["annotations"]["a"]),
        (&json!([1]), &json!("running"), &json!("b"))
    );
    assert_eq!(sandbox.sh("spawn state e2e-det").run().json()["pid"], grown["pid"]);
    sandbox.sh("spawn delete -f e2e-det").run().ok();
}

fn status_fd(sandbox: &Sandbox) {
    bundle(sandbox, "sta", "exit 9", |_| {});
    sandbox.sh("spawn --status-fd 5 sta 5>status").run().fails(9);
    let text = sandbox.read("status");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["status"], &lines[1]), (2, &json!("running"), &json!({"exitCode": 9})));
}

fn spec(sandbox: &Sandbox) {
    bundle(sandbox, "spec", "", |_| {});
    sandbox.sh("rm spec/config.json && spawn spec -b spec").run().ok();
    assert_ne!(sandbox.sh("spawn spec -b spec").run().code(), 0);
    let mut config: Value = serde_json::from_str(&sandbox.read("spec/config.json")).unwrap();
    assert_eq!((&config["process"]["terminal"], &config["process"]["args"]), (&json!(true), &json!(["sh"])));
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/echo", "runs"]);
    sandbox.write("spec/config.json", config.to_string());
    run(sandbox, "spec").ok().stdout_is("runs\n");
}

fn features(sandbox: &Sandbox) {
    let features = sandbox.sh("spawn features").run().ok().json();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
    let version = sandbox.sh("spawn --version").run().ok().stdout;
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("spawn version "), "{version}");
    assert!(lines[1].starts_with("commit: ") && lines[2] == "spec: 1.3.0", "{version}");
}
