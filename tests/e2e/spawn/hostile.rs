//! What a container that runs already, or whoever can write where a bundle or a state lies, has tried on runtimes.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NEEDS, bundle, run, runtime, spawn};
use crate::support::{Sandbox, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("exec_enters_no_directory_through_a_descriptor", NEEDS, exec_cwd),
        test("a_cwd_that_is_the_image_s_link_to_a_descriptor_is_refused", NEEDS, linked_cwd),
        test("a_cwd_that_root_is_denied_is_not_entered_through_a_descriptor", NEEDS, denied_cwd),
        test("exec_writes_nothing_to_a_proc_that_the_container_made", NEEDS, exec_fake_proc),
        test("exec_takes_no_terminal_from_a_devpts_that_the_container_made", NEEDS, exec_fake_pts),
        test("exec_has_neither_inheritable_nor_ambient_capabilities", NEEDS, exec_capabilities),
        test("nobody_brings_groups_of_his_own_along", NEEDS, groups),
        test("a_console_is_not_mounted_through_a_link", NEEDS, console_link),
        test("a_terminal_comes_from_a_devpts_only", NEEDS, fake_devpts),
        test("only_the_root_of_a_procfs_becomes_proc", NEEDS, part_of_proc),
        test("a_masked_or_read_only_path_that_is_a_link_stays_in_the_root", NEEDS, restricted_links),
        test("a_device_whose_directory_is_a_link_stays_in_the_root", NEEDS, device_link),
        test("a_rootfs_that_is_a_link_is_refused", NEEDS, rootfs_link),
        test("a_link_in_place_of_a_state_is_not_followed", NEEDS, state_link),
        test("a_state_directory_cannot_be_named_from_outside", NEEDS, state_names),
        test("a_pid_that_went_to_another_process_is_left_alone", NEEDS, reused_pid),
        test("a_hook_without_absolute_path_is_not_looked_up", NEEDS, relative_hook),
        test("exec_does_not_wait_for_a_process_that_is_kept_stopped", NEEDS, kept_stopped),
    ]
}

/// Starts a container that does SCRIPT, says so in the file `tmp/ready`, and stays; it may mount.
fn start(sandbox: &Sandbox, name: &str, script: &str) {
    bundle(sandbox, name, &format!("{script}; touch /tmp/ready; sleep 1000"), |config| {
        let set = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"] = json!({"bounding": set, "effective": set, "permitted": set});
    });
    spawn(sandbox, &format!("run -d -b {name} e2e-{name} </dev/null >/dev/null 2>&1")).ok();
    let ready = format!("{name}/rootfs/tmp/ready");
    crate::support::wait_for("the container's script", || sandbox.exists(&ready).then_some(()));
}

/// Root of the container stops whatever enters its pid namespace.
fn kept_stopped(sandbox: &Sandbox) {
    let stop =
        "for process in /proc/[0-9]*; do [ $process = /proc/1 ] || kill -STOP ${process#/proc/}; done 2>/dev/null";
    bundle(sandbox, "kst", &format!("touch /tmp/ready; while :; do {stop}; done"), |config| {
        let set = json!(["CAP_KILL", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"] = json!({"bounding": set, "effective": set, "permitted": set});
    });
    spawn(sandbox, "run -d -b kst e2e-kst </dev/null >/dev/null 2>&1").ok();
    crate::support::wait_for("the container's script", || sandbox.exists("kst/rootfs/tmp/ready").then_some(()));
    // Without --detach it waits for the program, which is the container's to stop as soon as it runs.
    let outcome = spawn(sandbox, "exec --detach e2e-kst true </dev/null");
    // It may have been faster.
    assert!(outcome.code() == 0 || outcome.stderr.contains("kept stopped"), "{}", outcome.stderr);
    spawn(sandbox, "delete --force e2e-kst").ok();
}

/// CVE-2024-21626, by `exec --cwd`.
fn exec_cwd(sandbox: &Sandbox) {
    start(sandbox, "exc", "true");
    for fd in 3..24 {
        let outcome = spawn(sandbox, &format!("exec --cwd /proc/self/fd/{fd} e2e-exc sh -c 'echo inside' 7</ 9</etc"));
        assert!(!outcome.stdout.contains("inside"), "{fd}: {}", outcome.stdout);
        assert_ne!(outcome.code(), 0, "{fd}");
    }
    spawn(sandbox, "delete -f e2e-exc").ok();
}

/// CVE-2024-21626, by the image.
fn linked_cwd(sandbox: &Sandbox) {
    bundle(sandbox, "lcw", "echo inside", |config| config["process"]["cwd"] = json!("/work"));
    for fd in 3..24 {
        sandbox.sh(&format!("ln -sfn /proc/self/fd/{fd} lcw/rootfs/work")).run().ok();
        let outcome = run(sandbox, "lcw");
        assert!(!outcome.stdout.contains("inside"), "{fd}: {}", outcome.stdout);
    }
}

/// CVE-2024-21626, where the working directory is entered by the container's user, since its root may not.
fn denied_cwd(sandbox: &Sandbox) {
    bundle(sandbox, "dcw", "echo inside", |config| {
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["cwd"] = json!("/work");
    });
    // Of the user, but of a group that the namespace has not: its root's privilege does not reach there.
    sandbox.sh("mkdir host && chown 101000:0 host && chmod 700 host && chmod 755 . dcw").run().ok();
    let command =
        |words: &str| sandbox.sh(&format!("{} --root {} {words} 7<host 9<host", runtime(), sandbox.at("st"))).run();
    for fd in [7, 9] {
        sandbox.sh(&format!("ln -sfn /proc/self/fd/{fd} dcw/rootfs/work")).run().ok();
        let outcome = command("run -b dcw e2e-dcw");
        assert!(!outcome.stdout.contains("inside"), "{fd}: {}", outcome.stdout);
        assert!(outcome.stderr.contains("/work"), "{fd}: {}", outcome.stderr);
    }
    sandbox
        .sh("rm dcw/rootfs/work && mkdir dcw/rootfs/work && sed -i 's/echo inside/sleep 1000/' dcw/config.json")
        .run()
        .ok();
    spawn(sandbox, "run -d -b dcw e2e-dcw </dev/null >/dev/null 2>&1").ok();
    for fd in [7, 9] {
        sandbox.sh(&format!("rmdir dcw/rootfs/work; ln -sfn /proc/self/fd/{fd} dcw/rootfs/work")).run();
        for cwd in ["/work", &format!("/proc/self/fd/{fd}")] {
            let outcome = command(&format!("exec -u 1000:1000 --cwd {cwd} e2e-dcw sh -c 'echo inside'"));
            assert!(!outcome.stdout.contains("inside"), "{cwd}: {}", outcome.stdout);
            assert!(outcome.stderr.contains("chdir to cwd"), "{cwd}: {}", outcome.stderr);
        }
    }
    spawn(sandbox, "delete -f e2e-dcw").ok();
}

/// CVE-2019-16884, CVE-2025-52881: what is written to `/proc/self` goes to the kernel or nowhere.
fn exec_fake_proc(sandbox: &Sandbox) {
    let fake = "mount -t tmpfs tmpfs /proc && mkdir -p /proc/self/attr /proc/thread-self/attr /proc/1 && \
                for f in self/oom_score_adj self/attr/exec thread-self/attr/exec self/setgroups; do echo mine >/proc/$f; done";
    start(sandbox, "efp", fake);
    let process = json!({"args": ["/bin/sh", "-c", "cat /proc/*/oom_score_adj /proc/*/attr/exec"], "cwd": "/",
        "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 500});
    sandbox.write("process.json", process.to_string());
    spawn(sandbox, "exec --process process.json e2e-efp").ok().stdout_is("mine\nmine\nmine\n");
    spawn(sandbox, "delete -f e2e-efp").ok();
}

/// CVE-2016-9962 and its like: a terminal is one of the kernel's.
fn exec_fake_pts(sandbox: &Sandbox) {
    start(sandbox, "eft", "umount /dev/pts && mkdir -p /dev/pts && ln -s /dev/null /dev/pts/ptmx");
    let exec = |words: &str| {
        let command = format!("{} --root {} exec {words}", runtime(), sandbox.at("st"));
        sandbox.sh(&format!("script -qec '{command}' /dev/null </dev/null")).run()
    };
    let outcome = exec("-t e2e-eft /bin/echo inside");
    assert!(!outcome.stdout.contains("inside\r"), "{}", outcome.stdout);
    assert_ne!(outcome.code(), 0);
    spawn(sandbox, "delete -f e2e-eft").ok();
    start(sandbox, "eff", "umount /dev/pts && touch /dev/pts/ptmx");
    assert_ne!(exec("-t e2e-eff /bin/echo inside").code(), 0);
    spawn(sandbox, "delete -f e2e-eff").ok();
}

/// CVE-2022-24769, CVE-2022-29162.
fn exec_capabilities(sandbox: &Sandbox) {
    start(sandbox, "eca", "true");
    let show = "grep -E '^Cap(Inh|Amb)' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    spawn(sandbox, &format!("exec --cap CAP_NET_RAW e2e-eca sh -c \"{show}\"")).ok().stdout_is(none);
    let inherited = format!("setpriv --inh-caps=+kill --ambient-caps=+kill {} --root {}", runtime(), sandbox.at("st"));
    sandbox.sh(&format!("{inherited} exec e2e-eca sh -c \"{show}\"")).run().ok().stdout_is(none);
    spawn(sandbox, "delete -f e2e-eca").ok();
    bundle(sandbox, "ecb", show, |_| {});
    sandbox.sh(&format!("{inherited} run -b ecb e2e-ecb")).run().ok().stdout_is(none);
}

/// CVE-2022-36109, CVE-2023-25173, CVE-2022-2989.
fn groups(sandbox: &Sandbox) {
    bundle(sandbox, "grp", "id -G", |config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let grouped = format!("setpriv --groups 0,7,9 {} --root {}", runtime(), sandbox.at("st"));
    sandbox.sh(&format!("{grouped} run -b grp e2e-grp")).run().ok().stdout_is("1000\n");
    start(sandbox, "grx", "true");
    sandbox.sh(&format!("{grouped} exec -u 1000:1000 e2e-grx id -G")).run().ok().stdout_is("1000\n");
    sandbox.sh(&format!("{grouped} exec -u 1000:1000 -g 8 e2e-grx id -G")).run().ok().stdout_is("1000 8\n");
    spawn(sandbox, "delete -f e2e-grx").ok();
}

/// Makes a bundle with a terminal whose `/dev` is the directory `imgdev`.
fn terminal_bundle(sandbox: &Sandbox, name: &str) {
    bundle(sandbox, name, "echo inside", |config| {
        config["process"]["terminal"] = json!(true);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        mounts.insert(1, json!({"destination": "/dev", "source": sandbox.at("imgdev"), "options": ["bind"]}));
    });
}

fn run_on_terminal(sandbox: &Sandbox, name: &str) -> crate::support::Outcome {
    let command = format!("{} --root {} run -b {name} e2e-{name}", runtime(), sandbox.at("st"));
    sandbox.sh(&format!("script -qec '{command}' /dev/null </dev/null")).run()
}

/// CVE-2025-52565.
fn console_link(sandbox: &Sandbox) {
    sandbox.sh("mkdir imgdev && touch target && ln -s ../target imgdev/console").run().ok();
    for link in ["/tmp/target", "/proc/sys/kernel/hostname", "../tmp/target"] {
        terminal_bundle(sandbox, "con");
        sandbox.sh(&format!("ln -sfn {link} imgdev/console && touch con/rootfs/tmp/target")).run().ok();
        let outcome = run_on_terminal(sandbox, "con");
        assert_ne!(outcome.code(), 0, "{link}: {}", outcome.stdout);
        assert!(!outcome.stdout.contains("inside\r"), "{link}: {}", outcome.stdout);
    }
}

fn fake_devpts(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p imgdev fakepts && touch fakepts/ptmx").run().ok();
    for make in ["touch", "ln -sfn /dev/null"] {
        bundle(sandbox, "fdp", "echo inside", |config| {
            config["process"]["terminal"] = json!(true);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev/pts");
            mounts.push(json!({"destination": "/dev/pts", "source": sandbox.at("fakepts"), "options": ["bind"]}));
        });
        sandbox.sh(&format!("{make} fakepts/ptmx")).run().ok();
        let outcome = run_on_terminal(sandbox, "fdp");
        assert_ne!(outcome.code(), 0, "{make}: {}", outcome.stdout);
        assert!(!outcome.stdout.contains("inside\r"), "{make}: {}", outcome.stdout);
    }
}

/// CVE-2019-19921, CVE-2023-28642: a directory of procfs is not `/proc`.
fn part_of_proc(sandbox: &Sandbox) {
    for (source, allowed) in [("/proc/sys", false), ("/proc/self/attr", false), ("/proc", true)] {
        bundle(sandbox, "pop", "echo inside", |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts[0] = json!({"destination": "/proc", "source": source, "options": ["rbind"]});
        });
        assert_eq!(run(sandbox, "pop").stdout == "inside\n", allowed, "{source}");
    }
}

fn restricted_links(sandbox: &Sandbox) {
    sandbox.sh("mkdir host && echo secret >host/file").run().ok();
    for list in ["maskedPaths", "readonlyPaths"] {
        bundle(sandbox, "rel", "cat /abs /up; touch /tmp/x && echo writable", |config| {
            config["linux"][list] = json!(["/abs", "/up", "/abs/../tmp/none"]);
        });
        let host = sandbox.at("host/file");
        let links = format!(
            "mkdir -p rel/rootfs{host}.d && echo own >rel/rootfs{host} && ln -sfn {host} rel/rootfs/abs && \
             ln -sfn ../../../../../../../..{host} rel/rootfs/up"
        );
        sandbox.sh(&links).run().ok();
        let want = if list == "maskedPaths" { "writable\n" } else { "own\nown\nwritable\n" };
        run(sandbox, "rel").ok().stdout_is(want);
        sandbox.sh("cat host/file; echo more >>host/file; echo secret >host/file").run().ok().stdout_is("secret\n");
    }
}

fn device_link(sandbox: &Sandbox) {
    sandbox.sh("mkdir host").run().ok();
    for link in [sandbox.at("host"), format!("../../../../../../../..{}", sandbox.at("host"))] {
        bundle(sandbox, "dvl", "true", |config| {
            config["linux"]["devices"] = json!([{"path": "/link/null2", "type": "c", "major": 1, "minor": 3}]);
        });
        sandbox.sh(&format!("ln -sfn {link} dvl/rootfs/link")).run().ok();
        let _either = run(sandbox, "dvl");
        sandbox.sh("ls -A host").run().ok().stdout_is("");
    }
}

fn rootfs_link(sandbox: &Sandbox) {
    bundle(sandbox, "rol", "echo inside", |_| {});
    sandbox.sh("mv rol/rootfs real && ln -s ../real rol/rootfs").run().ok();
    let config: Value = serde_json::from_str(&sandbox.read("rol/config.json")).unwrap();
    for path in ["rootfs", "rootfs/", "rootfs/.", &sandbox.at("rol/rootfs")] {
        for mount_namespace in [true, false] {
            let mut config = config.clone();
            config["root"]["path"] = json!(path);
            if !mount_namespace {
                config["linux"]["namespaces"] = json!([{"type": "pid"}]);
                config["mounts"] = json!([]);
            }
            sandbox.write("rol/config.json", config.to_string());
            let outcome = run(sandbox, "rol");
            assert_ne!(outcome.code(), 0, "{path}: {}", outcome.stdout);
            assert!(outcome.stderr.contains("symlink"), "{path}: {}", outcome.stderr);
        }
    }
}

fn state_link(sandbox: &Sandbox) {
    bundle(sandbox, "lnk", "sleep 1000", |_| {});
    let elsewhere = format!("{} --root {}", runtime(), sandbox.at("elsewhere"));
    sandbox.sh(&format!("{elsewhere} create -b lnk victim </dev/null >/dev/null 2>&1")).run().ok();
    sandbox.sh("mkdir -p st && ln -s ../elsewhere/victim st/e2e-lnk").run().ok();
    for command in ["state e2e-lnk", "kill e2e-lnk", "start e2e-lnk", "run -b lnk e2e-lnk", "delete -f e2e-lnk"] {
        assert_ne!(spawn(sandbox, command).code(), 0, "{command}");
    }
    let state = sandbox.sh(&format!("{elsewhere} state victim")).run().ok().json();
    assert_eq!(state["status"], "created");
    sandbox.sh(&format!("{elsewhere} delete -f victim")).run().ok();
}

fn state_names(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p st victim && touch victim/state.json").run().ok();
    bundle(sandbox, "nam", "true", |_| {});
    for id in ["../victim", "..", ".", "a/../../victim", "''", "\"$(printf 'a\\nb')\""] {
        for command in ["delete -f", "state", "run -b nam"] {
            assert_ne!(spawn(sandbox, &format!("{command} {id}")).code(), 0, "{command} {id}");
        }
    }
    sandbox.sh("ls victim").run().ok().stdout_is("state.json\n");
}

fn reused_pid(sandbox: &Sandbox) {
    bundle(sandbox, "pid", "sleep 1000", |_| {});
    spawn(sandbox, "create -b pid e2e-pid </dev/null >/dev/null 2>&1").ok();
    let before = sandbox.read("st/e2e-pid/state.json");
    let mut state: Value = serde_json::from_str(&before).unwrap();
    // Not in the tick of the clock in which the container's process was started: by that alone they are told apart.
    let started = state["init_process_start"].to_string();
    let later = format!(
        "while [ $(sh -c 'cut -d\" \" -f22 /proc/$$/stat') = {started} ]; do :; done; sh -c 'echo $$; exec sleep 1000'"
    );
    let other = sandbox.sh(&later).start();
    let number: i32 = other.wait_stdout("\n").trim().parse().unwrap();
    state["init_process_pid"] = json!(number);
    sandbox.write("st/e2e-pid/state.json", state.to_string());
    assert_eq!(spawn(sandbox, "state e2e-pid").ok().json()["status"], "stopped");
    assert_ne!(spawn(sandbox, "kill e2e-pid KILL").code(), 0);
    assert_ne!(spawn(sandbox, "exec e2e-pid true").code(), 0);
    sandbox.write("st/e2e-pid/state.json", before);
    spawn(sandbox, "delete -f e2e-pid").ok();
    let mut other = other;
    assert!(other.is_running());
    other.signal_group(Signal::KILL);
    other.wait();
}

fn relative_hook(sandbox: &Sandbox) {
    bundle(sandbox, "rhk", "true", |_| {});
    sandbox.sh("printf '#!/bin/sh\\ntouch %s\\n' $PWD/ran >rhk/evil && chmod 755 rhk/evil").run().ok();
    let config: Value = serde_json::from_str(&sandbox.read("rhk/config.json")).unwrap();
    for path in ["evil", "./evil"] {
        let mut config = config.clone();
        let environment = json!([format!("PATH={}:/bin:/usr/bin", sandbox.at("rhk"))]);
        config["hooks"]["createRuntime"] = json!([{"path": path, "env": environment}]);
        sandbox.write("rhk/config.json", config.to_string());
        assert_ne!(run(sandbox, "rhk").code(), 0, "{path}");
        assert!(!sandbox.exists("ran"), "{path}");
    }
}
