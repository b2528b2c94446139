//! What images and configurations have tried on runtimes before: each case is one that a runtime fell to.

use serde_json::json;

use super::{NEEDS, bundle, run, runtime, spawn};
use crate::support::{Sandbox, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("the_runtime_s_file_is_out_of_reach", NEEDS, exe_overwrite),
        test("an_interpreter_of_proc_self_exe_is_not_the_runtime", NEEDS, exe_interpreter),
        test("no_descriptor_of_the_host_reaches_the_program", NEEDS, descriptors),
        test("a_cwd_through_a_descriptor_is_refused", NEEDS, cwd_descriptor),
        test("a_program_through_a_descriptor_is_not_executed", NEEDS, program_descriptor),
        test("a_cgroup_path_stays_in_its_hierarchy", NEEDS, cgroup_traversal),
        test("dev_as_a_link_makes_nothing_on_a_volume", NEEDS, dev_link),
        test("proc_as_a_link_is_refused", NEEDS, proc_link),
        test("nothing_but_procfs_becomes_proc", NEEDS, proc_fake),
        test("a_mount_point_that_is_a_link_stays_in_the_root", NEEDS, mount_link),
        test("a_mount_point_that_moves_stays_in_the_root", NEEDS, mount_race),
        test("a_mask_is_a_null_device_whatever_the_image_has", NEEDS, mask_link),
        test("an_image_s_ptmx_is_not_used", NEEDS, image_ptmx),
        test("contradictory_configurations_are_refused", NEEDS, contradictions),
        test("the_state_is_closed_to_others", NEEDS, state_modes),
        test("no_abstract_socket_is_made", NEEDS, abstract_sockets),
        test("the_cgroup_file_system_is_read_only", NEEDS, cgroup_read_only),
    ]
}

/// While the container looks at every process that enters it, the runtime is used again and again (CVE-2019-5736).
fn exe_overwrite(sandbox: &Sandbox) {
    let watch = "while :; do for p in /proc/[0-9]*; do l=$(readlink $p/exe 2>/dev/null) && echo $l >>/tmp/seen; \
                 [ $p = /proc/1 ] || (echo overwritten >$p/exe) 2>/dev/null; done; done";
    for capability in ["CAP_KILL", "CAP_SYS_PTRACE"] {
        bundle(sandbox, "exe", watch, |config| {
            let set = json!([capability, "CAP_DAC_OVERRIDE"]);
            config["process"]["capabilities"] = json!({"bounding": set, "effective": set, "permitted": set});
        });
        let before = sandbox.sh("sha256sum $(command -v spawn)").run().ok().stdout;
        spawn(sandbox, "run -d -b exe e2e-exe </dev/null >/dev/null 2>&1").ok();
        for _ in 0..15 {
            // The container's program may be the runtime's own name for itself.
            let _fails = spawn(sandbox, "exec e2e-exe /proc/self/exe");
            spawn(sandbox, "exec e2e-exe true").ok();
        }
        // One that joins its pid namespace, and whose record comes through a pipe.
        let pid = &spawn(sandbox, "state e2e-exe").ok().json()["pid"];
        bundle(sandbox, "beside", "echo beside", |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            let own = namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").unwrap();
            own["path"] = json!(format!("/proc/{pid}/ns/pid"));
        });
        let record = json!({"bundle": sandbox.at("beside"), "id": "e2e-beside"});
        for _ in 0..15 {
            let piped = format!("echo '{record}' | spawn --root {}", sandbox.at("st"));
            sandbox.sh(&piped).run().ok().stdout_is("beside\n");
        }
        spawn(sandbox, "delete -f e2e-exe").ok();
        sandbox.sh("sha256sum $(command -v spawn)").run().ok().stdout_is(&before);
        let seen = sandbox.read("exe/rootfs/tmp/seen");
        let foreign: Vec<&str> = seen.lines().filter(|line| line.ends_with("/spawn")).collect();
        assert!(foreign.is_empty(), "{capability}: {} lines: {:?}", foreign.len(), foreign.first());
        assert!(!seen.contains("overwritten"));
    }
}

fn exe_interpreter(sandbox: &Sandbox) {
    bundle(sandbox, "int", "", |config| config["process"]["args"] = json!(["/evil"]));
    sandbox.sh("printf '#!/proc/self/exe --version\\n' >int/rootfs/evil && chmod 755 int/rootfs/evil").run().ok();
    let outcome = run(sandbox, "int");
    assert!(!outcome.stdout.contains("spawn version"), "{}", outcome.stdout);
    assert_ne!(outcome.code(), 0);
}

fn descriptors(sandbox: &Sandbox) {
    bundle(sandbox, "fds", "ls /proc/self/fd; cat /proc/self/environ | tr '\\0' '\\n' | sort", |_| {});
    let outcome = sandbox
        .sh(&format!("SECRET=1 spawn --root {} run -b fds e2e-fds 3</etc/passwd 9</etc </dev/null", sandbox.at("st")))
        .run()
        .ok();
    // 3 is ls's own.
    assert!(outcome.stdout.starts_with("0\n1\n2\n3\nHOME=/\nPATH=/bin\n"), "{}", outcome.stdout);
    let outcome = sandbox
        .sh(&format!(
            "spawn --root {} run --preserve-fds 1 -b fds e2e-fds 3</etc/passwd 9</etc </dev/null",
            sandbox.at("st")
        ))
        .run()
        .ok();
    assert!(outcome.stdout.starts_with("0\n1\n2\n3\n4\nHOME"), "{}", outcome.stdout);
    // More than the caller has: the runtime's own are not meant.
    let outcome = sandbox
        .sh(&format!(
            "spawn --root {} run --preserve-fds 6 -b fds e2e-fds 3</etc/passwd 9</etc </dev/null",
            sandbox.at("st")
        ))
        .run();
    outcome.fails(1).one_error_line("spawn", &["descriptor 4 is not open"]);
}

/// CVE-2024-21626, by the program's own path: what the caller has open is no program of the container's.
fn program_descriptor(sandbox: &Sandbox) {
    sandbox.sh("mkdir host && cp $(command -v busybox) host/echo && chmod 755 . host host/echo").run().ok();
    let spawn_with_host = |words: &str| {
        sandbox.sh(&format!("{} --root {} {words} 7<host 8<host/echo", runtime(), sandbox.at("st"))).run()
    };
    bundle(sandbox, "pdr", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b pdr e2e-pdr-x </dev/null >/dev/null 2>&1").ok();
    for program in ["/proc/self/fd/7/echo", "/proc/self/fd/8", "/dev/fd/8", "/dev/fd/7/../host/echo", "/link"] {
        bundle(sandbox, "pd", "", |config| config["process"]["args"] = json!([program, "inside"]));
        sandbox.sh("for d in pd pdr; do ln -sfn /proc/self/fd/8 $d/rootfs/link; done").run().ok();
        for words in ["run -b pd e2e-pd", &format!("exec e2e-pdr-x {program} inside")] {
            let outcome = spawn_with_host(words);
            assert!(!outcome.stdout.contains("inside"), "{words}: {program}: {}", outcome.stdout);
            assert_ne!(outcome.code(), 0, "{words}: {program}");
        }
        let created = spawn_with_host("create -b pd e2e-pd </dev/null >out 2>&1");
        let _refused = created.code() != 0 || spawn_with_host("start e2e-pd").code() != 0;
        let _none = spawn(sandbox, "delete -f e2e-pd");
        sandbox.sh("! grep inside out").run().ok();
    }
    spawn(sandbox, "delete -f e2e-pdr-x").ok();
}

fn cwd_descriptor(sandbox: &Sandbox) {
    for fd in 3..24 {
        bundle(sandbox, "cwd", "ls ../../../..; echo inside", |config| {
            config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        });
        let outcome = run(sandbox, "cwd");
        assert!(!outcome.stdout.contains("inside"), "{fd}: {}", outcome.stdout);
        assert_ne!(outcome.code(), 0, "{fd}");
    }
}

fn cgroup_traversal(sandbox: &Sandbox) {
    bundle(sandbox, "cgt", "cut -d: -f3 /proc/self/cgroup | sort -u", |config| {
        config["linux"]["cgroupsPath"] = json!("/../../../../../../e2e-cgt");
    });
    // The sandbox may be in a cgroup of its own, below which the path stays as well.
    let paths = run(sandbox, "cgt").ok().stdout;
    assert!(paths.lines().all(|path| path.ends_with("/e2e-cgt") && !path.contains("..")), "{paths}");
    sandbox.sh("test ! -e /e2e-cgt").run().ok();
}

fn dev_link(sandbox: &Sandbox) {
    sandbox.sh("mkdir volume").run().ok();
    for mounted in [true, false] {
        bundle(sandbox, "dev", "true", |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/mnt/v", "source": sandbox.at("volume"), "options": ["bind"]}));
            mounts.retain(|mount| mounted || !mount["destination"].as_str().unwrap().starts_with("/dev"));
            mounts.rotate_right(1);
        });
        sandbox.sh("mkdir -p dev/rootfs/mnt/v && rm -rf dev/rootfs/dev && ln -s /mnt/v dev/rootfs/dev").run().ok();
        assert_ne!(run(sandbox, "dev").code(), 0, "{mounted}");
        sandbox.sh("ls -A volume").run().ok().stdout_is("");
        sandbox.sh("rm dev/rootfs/dev").run().ok();
    }
}

fn proc_link(sandbox: &Sandbox) {
    bundle(sandbox, "prl", "true", |_| {});
    sandbox.sh("rmdir prl/rootfs/proc && mkdir prl/rootfs/else && ln -s else prl/rootfs/proc").run().ok();
    assert_ne!(run(sandbox, "prl").code(), 0);
}

fn proc_fake(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p fake/self/attr fake/sys").run().ok();
    for mount in [
        json!({"destination": "/proc", "source": sandbox.at("fake"), "options": ["bind"]}),
        json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/tmp/../proc", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/proc/sys", "source": sandbox.at("fake"), "options": ["bind"]}),
        json!({"destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"}),
    ] {
        bundle(sandbox, "prf", "true", |config| config["mounts"].as_array_mut().unwrap().push(mount.clone()));
        assert_ne!(run(sandbox, "prf").code(), 0, "{mount}");
    }
}

fn mount_link(sandbox: &Sandbox) {
    sandbox.sh("mkdir host data && touch data/here").run().ok();
    for destination in ["/abs/new", "/up/new", "/../../../../../../../../tmp/new"] {
        bundle(sandbox, "mtl", &format!("ls {destination}"), |config| {
            let mount = json!({"destination": destination, "source": sandbox.at("data"), "options": ["bind"]});
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let host = sandbox.at("host");
        sandbox
            .sh(&format!("ln -sfn {host} mtl/rootfs/abs && ln -sfn ../../../../../../../../..{host} mtl/rootfs/up"))
            .run()
            .ok();
        run(sandbox, "mtl").ok().stdout_is("here\n");
        sandbox.sh("ls -A host").run().ok().stdout_is("");
    }
}

/// A neighbour with the same volume exchanges a directory and a link as fast as it can (CVE-2021-30465, 2024-45310).
fn mount_race(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p host volume/dir && ln -s /../../../../../../../../../../../$PWD/host volume/link").run().ok();
    let swap = sandbox
        .sh("exec python3 -c 'import ctypes\nc=ctypes.CDLL(None)\nprint(\"ready\",flush=True)\nwhile True: c.renameat2(-100,b\"volume/dir\",-100,b\"volume/link\",2)'")
        .start();
    swap.wait_stdout("ready");
    for _ in 0..25 {
        bundle(sandbox, "race", "true", |config| {
            config["mounts"].as_array_mut().unwrap().extend([
                json!({"destination": "/mnt", "source": sandbox.at("volume"), "options": ["bind"]}),
                json!({"destination": "/mnt/dir/made/on/the/way", "type": "tmpfs", "source": "tmpfs"}),
            ]);
        });
        let _either = run(sandbox, "race");
    }
    swap.signal(rustix::process::Signal::KILL);
    swap.wait();
    sandbox.sh("ls -A host").run().ok().stdout_is("");
}

fn mask_link(sandbox: &Sandbox) {
    bundle(sandbox, "mkl", "ls -l /tmp/masked | cut -c1; cat /tmp/masked", |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        // Nothing of /dev is the runtime's: the image chooses what /dev/null is.
        mounts.retain(|mount| mount["destination"] == "/proc");
        mounts.push(json!({"destination": "/dev", "source": sandbox.at("imgdev"), "options": ["bind"]}));
        config["linux"]["maskedPaths"] = json!(["/tmp/masked"]);
    });
    sandbox
        .sh("mkdir imgdev && ln -s /proc/sys/kernel/core_pattern imgdev/null && echo secret >mkl/rootfs/tmp/masked")
        .run()
        .ok();
    run(sandbox, "mkl").ok().stdout_is("c\n");
}

fn image_ptmx(sandbox: &Sandbox) {
    bundle(sandbox, "ptm", "readlink /dev/ptmx", |config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    });
    sandbox.sh("touch ptm/rootfs/dev/ptmx && mkdir ptm/rootfs/dev/pts").run().ok();
    run(sandbox, "ptm").ok().stdout_is("pts/ptmx\n");
}

fn contradictions(sandbox: &Sandbox) {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 8] = [
        ("uid above 2^32", |c| c["process"]["user"]["uid"] = json!(4_294_967_296_u64)),
        ("negative uid", |c| c["process"]["user"]["uid"] = json!(-1)),
        ("namespace twice", |c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"}))),
        ("NUL in args", |c| c["process"]["args"] = json!(["a\u{0}b"])),
        ("sysctl outside", |c| c["linux"]["sysctl"] = json!({"net/../kernel/core_pattern": "x"})),
        ("sysctl of the host", |c| c["linux"]["sysctl"] = json!({"kernel.core_pattern": "x"})),
        ("endless namespace path", |c| c["linux"]["namespaces"][1]["path"] = json!("/".repeat(100_000))),
        ("no version", |c| c["ociVersion"] = json!("")),
    ];
    for (what, change) in changes {
        bundle(sandbox, "con", "true", change);
        let outcome = run(sandbox, "con");
        assert_ne!(outcome.code(), 0, "{what}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{what}: {}", outcome.stderr);
    }
}

fn state_modes(sandbox: &Sandbox) {
    bundle(sandbox, "mod", "sleep 1000", |_| {});
    spawn(sandbox, "run -d -b mod e2e-mod </dev/null >/dev/null 2>&1").ok();
    sandbox.sh("stat -c %a st st/e2e-mod st/e2e-mod/state.json").run().ok().stdout_is("700\n700\n600\n");
    spawn(sandbox, "delete -f e2e-mod").ok();
}

fn abstract_sockets(sandbox: &Sandbox) {
    bundle(sandbox, "abs", "true", |_| {});
    spawn(sandbox, "create -b abs e2e-abs </dev/null >/dev/null 2>&1").ok();
    sandbox.sh("! grep -q @ /proc/net/unix").run().ok();
    spawn(sandbox, "delete -f e2e-abs").ok();
}

fn cgroup_read_only(sandbox: &Sandbox) {
    bundle(
        sandbox,
        "cgr",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo $d; done; true",
        |config| {
            config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}),
        ]);
        },
    );
    run(sandbox, "cgr").ok().stdout_is("");
}
