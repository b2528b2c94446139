//! What those who put this runtime in runc's place count on beyond the specification.

use serde_json::json;

use super::{NEEDS, bundle, change, run, spawn};
use crate::support::{Sandbox, Test, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_created_container_ends_when_it_is_told_to", NEEDS, told_to_end),
        test("hooks_in_the_container_run_under_its_filter", NEEDS, filtered_hook),
        test("hooks_in_the_container_get_no_descriptor_of_the_caller_s", NEEDS, hook_descriptors),
        test("a_program_may_have_fewer_descriptors_than_mounts", NEEDS, few_descriptors),
        test("signals_have_numbers_up_to_the_real_time_ones", NEEDS, signals),
        test("a_poststart_hook_that_fails_ends_the_container", NEEDS, poststart),
        test("a_start_container_hook_has_the_process_s_variables", NEEDS, hook_variables),
        test("hooks_in_the_container_run_as_its_process_does", NEEDS, hook_identity),
        test("a_hook_that_does_not_listen_ends_no_container", NEEDS, deaf_hooks),
        test("a_waiting_container_holds_nothing_of_its_caller_s", NEEDS, inherited),
        test("a_dangling_link_is_a_mount_point_inside_the_root", NEEDS, dangling),
        test("a_bind_mount_has_the_attributes_that_are_asked_for", NEEDS, bind_attributes),
        test("a_shared_rootfs_is_shared_in_the_container_alone", NEEDS, shared),
        test("without_criu_a_container_goes_on", NEEDS, no_criu),
        test("a_container_without_process_is_created_and_not_started", NEEDS, no_process),
        test("without_a_mount_namespace_delete_unmounts", NEEDS, host_mounts),
        test("failing_detached_has_exit_code_1", NEEDS, detached_code),
        test("a_terminal_that_a_program_reads_ends_lines_plainly", NEEDS, plain_lines),
    ]
}

fn no_process(sandbox: &Sandbox) {
    bundle(sandbox, "nop", "true", |config| drop(config.as_object_mut().unwrap().remove("process")));
    spawn(sandbox, "create -b nop e2e-nop </dev/null >/dev/null").ok();
    assert_eq!(spawn(sandbox, "state e2e-nop").json()["status"], "created");
    spawn(sandbox, "start e2e-nop").fails(1).one_error_line("spawn", &["config.json has no process"]);
    wait_for("the end", || (spawn(sandbox, "state e2e-nop").json()["status"] == "stopped").then_some(()));
    spawn(sandbox, "delete e2e-nop").ok();
    run(sandbox, "nop").fails(1).one_error_line("spawn", &["process property must not be empty"]);
}

fn no_criu(sandbox: &Sandbox) {
    bundle(sandbox, "nocriu", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b nocriu e2e-nocriu </dev/null >/dev/null 2>&1").ok();
    for (options, words) in [
        ("--criu ./no-such-program checkpoint e2e-nocriu", "./no-such-program: No such file"),
        ("--criu /bin/true checkpoint e2e-nocriu", "criu ended without an answer"),
        ("--criu /bin/true checkpoint --parent-path none e2e-nocriu", "--parent-path none"),
        ("--criu /bin/true checkpoint --page-server here e2e-nocriu", "--page-server \"here\""),
        ("--criu /bin/true restore -b nocriu --image-path none e2e-none", "none/mounts.json"),
    ] {
        spawn(sandbox, options).fails(1).one_error_line("spawn", &[words]);
    }
    assert_eq!(spawn(sandbox, "list -q").ok().stdout, "e2e-nocriu\n");
    assert_eq!(spawn(sandbox, "state e2e-nocriu").json()["status"], "running");
    spawn(sandbox, "delete -f e2e-nocriu").ok();
}

/// The specification has the container in the host's mount namespace then, with all its mounts.
fn host_mounts(sandbox: &Sandbox) {
    bundle(sandbox, "hst", "exec sleep 1000", |config| {
        config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "uts"}]);
    });
    let rootfs = sandbox.at("hst/rootfs");
    let mounts = || sandbox.sh(&format!("grep -c ' {rootfs}[ /]' /proc/self/mounts")).run().stdout;
    spawn(sandbox, "run -d -b hst e2e-hst </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "exec e2e-hst sh -c 'echo /*; cat /proc/1/comm; test -c /dev/null && echo device'")
        .ok()
        .stdout_is("/bin /dev /etc /mnt /proc /sys /tmp\nsleep\ndevice\n");
    assert_eq!(mounts(), "4\n");
    spawn(sandbox, "delete -f e2e-hst").ok();
    assert_eq!(mounts(), "0\n");
    // One that fails, and what is mounted there already.
    sandbox.sh(&format!("mount --bind {rootfs} {rootfs}")).run().ok();
    for command in ["sleep 1000", "no-such-program"] {
        change(sandbox, "hst", |config| config["process"]["args"] = json!(command.split(' ').collect::<Vec<_>>()));
        let run = spawn(sandbox, "create -b hst e2e-hst </dev/null >/dev/null");
        assert_eq!(run.status.success(), command != "no-such-program", "{run}");
        spawn(sandbox, "delete -f e2e-hst").ok();
        assert_eq!(mounts(), "1\n");
    }
    sandbox.sh(&format!("umount {rootfs}")).run().ok();
}

/// From the first line on, however soon that is written.
fn plain_lines(sandbox: &Sandbox) {
    bundle(sandbox, "pla", "echo one; echo two", |config| config["process"]["terminal"] = json!(true));
    for _ in 0..20 {
        run(sandbox, "pla").ok().stdout_is("one\ntwo\n");
    }
}

fn signals(sandbox: &Sandbox) {
    bundle(sandbox, "rt", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b rt e2e-rt </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "kill e2e-rt 0").ok();
    spawn(sandbox, "kill e2e-rt KILL").ok();
    wait_for("the end", || (spawn(sandbox, "state e2e-rt").json()["status"] == "stopped").then_some(()));
    spawn(sandbox, "kill e2e-rt 0").fails(1).stderr_has("container not running");
    spawn(sandbox, "kill e2e-rt SIGRTMIN+3").fails(1).stderr_has("container not running");
    spawn(sandbox, "kill e2e-rt SIGRTMAX+3").fails(1).stderr_has("unknown signal");
    spawn(sandbox, "delete e2e-rt").ok();
}

fn poststart(sandbox: &Sandbox) {
    bundle(sandbox, "post", "sleep 1000", |config| {
        config["hooks"]["poststart"] = json!([{"path": "/bin/true"}, {"path": "/bin/false"}]);
    });
    assert_ne!(run(sandbox, "post").stderr_has("poststart hook #1").code(), 0);
    assert!(!sandbox.exists("st/e2e-post"));
}

fn hook_variables(sandbox: &Sandbox) {
    bundle(sandbox, "var", "cat /tmp/seen", |config| {
        config["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
        config["hooks"]["startContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo $ONE $HOME >/tmp/seen"]}]);
    });
    run(sandbox, "var").ok().stdout_is("two /\n");
}

/// It may be the image's: whatever is not the container's own, it could do to the host.
fn hook_identity(sandbox: &Sandbox) {
    let show = "id -u; id -g; id -G; umask; ulimit -n; pwd; grep -E '^(Cap(Prm|Bnd|Eff)|NoNewPrivs|Seccomp):' /proc/self/status";
    bundle(sandbox, "hid", &format!("({show}) >/tmp/own; cmp /tmp/own /tmp/hook && cat /tmp/own"), |config| {
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "umask": 63, "additionalGids": [9]});
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 30, "hard": 30}]);
        config["process"]["cwd"] = json!("/etc");
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]
        });
        let script = format!("({show}) >/tmp/hook; readlink /proc/1/exe && exit 1; exit 0");
        config["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    });
    sandbox.sh("chmod 1777 hid/rootfs/tmp").run().ok();
    run(sandbox, "hid").ok().stdout_has("7\n8\n8 9\n0077\n30\n/etc\n");
    change(sandbox, "hid", |config| config["hooks"]["startContainer"] = json!([{"path": "/bin/no-such"}]));
    run(sandbox, "hid")
        .fails(1)
        .one_error_line("spawn", &["startContainer hook #0: exec /bin/no-such", "no such file"]);
}

/// The State is longer than a pipe.
fn deaf_hooks(sandbox: &Sandbox) {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        bundle(sandbox, "deaf", "sleep 0.1; echo ran", |config| {
            config["annotations"] = json!({"long": "x".repeat(300_000)});
            config["linux"]["namespaces"] = json!([{"type": "mount"}]);
            config["hooks"][kind] = json!([{"path": "/bin/true"}]);
        });
        run(sandbox, "deaf").ok().stdout_is("ran\n");
    }
}

/// It is the first process of its pid namespace, which hears no signal that it has no handler for.
fn told_to_end(sandbox: &Sandbox) {
    bundle(sandbox, "tte", "true", |_| {});
    for signal in ["HUP", "INT", "TERM"] {
        spawn(sandbox, "create -b tte e2e-tte </dev/null >/dev/null 2>&1").ok();
        let pid = spawn(sandbox, "state e2e-tte").json()["pid"].clone();
        // From here on it waits in the program that launches its own.
        wait_for("the launch", || {
            sandbox.sh(&format!("grep SigCgt /proc/{pid}/status")).run().stdout.contains("4003").then_some(())
        });
        spawn(sandbox, &format!("kill e2e-tte {signal}")).ok();
        wait_for("the end", || (spawn(sandbox, "state e2e-tte").json()["status"] == "stopped").then_some(()));
        spawn(sandbox, "delete e2e-tte").ok();
    }
}

fn filtered_hook(sandbox: &Sandbox) {
    bundle(sandbox, "flh", "echo ran", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]
        });
        config["hooks"]["startContainer"] = json!([{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/made"]}]);
    });
    run(sandbox, "flh").fails(1).one_error_line("spawn", &["startContainer hook #0", "bad system call"]);
    assert!(!sandbox.exists("flh/rootfs/tmp/made"));
}

fn hook_descriptors(sandbox: &Sandbox) {
    bundle(sandbox, "hkd", "cat /tmp/seen", |config| {
        let script = "for n in 3 4 5 6 7 8 9; do [ ! -e /proc/self/fd/$n ] || echo $n; done >/tmp/seen";
        config["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    });
    spawn(sandbox, "run -b hkd e2e-hkd 5</etc/passwd 7</").ok().stdout_is("");
}

fn few_descriptors(sandbox: &Sandbox) {
    bundle(sandbox, "few", "ulimit -n", |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 8}]);
        let mounts = (0..20).map(|n| json!({"destination": format!("/mnt/{n}"), "type": "tmpfs", "source": "tmpfs"}));
        config["mounts"].as_array_mut().unwrap().extend(mounts);
    });
    run(sandbox, "few").ok().stdout_is("8\n");
    spawn(sandbox, "create -b few e2e-few </dev/null >/dev/null 2>&1").ok();
    spawn(sandbox, "start e2e-few").ok();
    spawn(sandbox, "delete -f e2e-few").ok();
}

fn inherited(sandbox: &Sandbox) {
    bundle(sandbox, "inh", "true", |_| {});
    spawn(sandbox, "create -b inh e2e-inh 5</etc/passwd </dev/null >/dev/null 2>&1").ok();
    let pid = spawn(sandbox, "state e2e-inh").json()["pid"].clone();
    let files = sandbox.sh(&format!("ls -l /proc/{pid}/fd")).run().ok().stdout;
    assert!(files.contains("/dev/null") && !files.contains("passwd"), "{files}");
    spawn(sandbox, "delete -f e2e-inh").ok();
}

fn dangling(sandbox: &Sandbox) {
    sandbox.write("source", "content");
    let source = sandbox.at("source");
    bundle(sandbox, "dang", "cat /new/place; readlink /etc/hosts", |config| {
        let mount = json!({"destination": "/etc/hosts", "source": source, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    sandbox.sh("ln -s /new/place dang/rootfs/etc/hosts").run().ok();
    run(sandbox, "dang").ok().stdout_is("content/new/place\n");
}

fn bind_attributes(sandbox: &Sandbox) {
    sandbox.sh("mkdir src && mount -t tmpfs t src && mount -o remount,bind,nosuid,noexec src").run().ok();
    let source = sandbox.at("src");
    bundle(sandbox, "bind", "grep -E ' /mnt/(a|b) ' /proc/self/mountinfo | cut -d' ' -f6", |config| {
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/mnt/a", "source": source, "options": ["bind"]}),
            json!({"destination": "/mnt/b", "source": source, "options": ["bind", "ro", "exec"]}),
        ]);
    });
    run(sandbox, "bind").ok().stdout_is("rw,nosuid,noexec,relatime\nro,relatime\n");
    sandbox.sh("umount src").run().ok();
}

fn shared(sandbox: &Sandbox) {
    let script = "awk '$5 == \"/\"' /proc/self/mountinfo | grep -o shared";
    bundle(sandbox, "shr", script, |config| config["linux"]["rootfsPropagation"] = json!("shared"));
    run(sandbox, "shr").ok().stdout_is("shared\n");
}

fn detached_code(sandbox: &Sandbox) {
    bundle(sandbox, "bad", "true", |config| config["process"]["cwd"] = json!("relative"));
    spawn(sandbox, "run -d -b bad e2e-bad").fails(1);
}
