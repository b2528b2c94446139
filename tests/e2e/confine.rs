//! What the stages give up when they have started: system calls that they themselves are made to make, by ptrace(2), are
//! refused.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal};

use crate::pull::{FAULTY, PORT, faulty};
use crate::push::{OWN, registry};
use crate::support::{Need, Sandbox, Test, image, source, test, wait_for};

const NEEDS: &[Need] = &[Need::NetNs, Need::Program("python3")];
const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("python3")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("pull_writes_its_layout_and_executes_nothing", FAULTY, pull),
        test("push_writes_nothing_and_executes_nothing", PIPELINE, push),
        test("unpack_has_no_network_and_no_other_files", PIPELINE, unpack),
        test("bundle_has_no_network_and_executes_nothing", NEEDS, bundle),
        test("ns_add_executes_nothing", NEEDS, ns),
        test("unpack_diff_and_commit_execute_nothing", NEEDS, unpack_verbs),
        test("portmap_mounts_nothing", NEEDS, portmap),
        test("a_proxy_has_no_files_and_no_privilege", PIPELINE, proxy),
        test("helpers_are_asked_before", FAULTY, helpers),
        test("what_was_given_up_is_said", &[Need::Registry, Need::Overlay], said),
        test("older_kernels_take_less_away", OLDER, older),
    ]
}

/// A process that is made to try what it may not do.
struct Subject(Pid);

impl Subject {
    /// Waits until a program of the sandbox has moved into its room.
    fn find(sandbox: &Sandbox, first: Pid, name: &str) -> Self {
        let pid = wait_for(name, || {
            let pid = sandbox.process(first, name)?;
            status(pid, "Seccomp:").iter().all(|mode| mode == "2").then_some(pid)
        });
        Self(pid)
    }

    /// Asserts what the kernel answers to a system call of this process.
    #[track_caller]
    fn tries(&self, call: &str, want: &str) {
        let program = source().join("tests/e2e/confine/call.py");
        let pid = self.0.as_raw_pid().to_string();
        let output = Command::new("python3").arg(program).arg(pid).args(call.split(' ')).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(answer.trim_end(), want, "{call}");
    }

    #[track_caller]
    fn may_not(&self, calls: &[&str]) {
        for call in calls {
            self.tries(call, "EPERM");
        }
    }

    /// Asserts that no thread can gain privileges, nor has others than these.
    #[track_caller]
    fn has_only(&self, capabilities: u64) {
        assert_eq!(status(self.0, "NoNewPrivs:"), BTreeSet::from(["1".to_owned()]));
        for (set, capabilities) in
            [("CapPrm:", capabilities), ("CapEff:", capabilities), ("CapInh:", 0), ("CapAmb:", 0)]
        {
            assert_eq!(status(self.0, set), BTreeSet::from([format!("{capabilities:016x}")]), "{set}");
        }
    }
}

/// What all threads of a process have in a line of their status.
fn status(pid: Pid, line: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).into_iter().flatten().flatten();
    let text = threads.map(|thread| fs::read_to_string(thread.path().join("status")).unwrap_or_default());
    text.map(|text| {
        let found = text.lines().find_map(|one| one.strip_prefix(line)).unwrap_or_default();
        found.trim().to_owned()
    })
    .collect()
}

/// Nobody needs these.
const FOREVER: [&str; 4] = ["ptrace 0", "bpf 0", "io_uring_setup 1 0", "mount a / tmpfs"];
/// `CAP_CHOWN`, `DAC_OVERRIDE`, `DAC_READ_SEARCH`, `FOWNER`, `FSETID`, `MKNOD`, `SETFCAP`.
const FILES: u64 = 0x8800_001f;
const SYS_ADMIN: u64 = 1 << 21;

fn pull(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let run = sandbox.sh(&format!("exec pull {PORT}/stall/image")).start();
    let pull = Subject::find(sandbox, run.pid(), "pull");
    wait_for("the transfer", || (!sandbox.sh("ls state/oci/ingest").run().stdout.is_empty()).then_some(()));
    pull.may_not(&FOREVER);
    pull.may_not(&["execve /bin/true 0 0", "listen 0", "unshare 0x20000000", "setns 0", "kill 1 0"]);
    pull.tries(&format!("mkdir {} 511", sandbox.at("elsewhere")), "EACCES");
    pull.tries("open /etc/confined 0x41 420", "EACCES");
    pull.tries(&format!("open {} 0x1", sandbox.at("requests")), "EACCES");
    pull.tries(&format!("mkdir {} 511", sandbox.at("state/oci/own")), "ok");
    pull.tries(&format!("rmdir {}", sandbox.at("state/oci/own")), "ok");
    pull.tries("socket 2 1 0", "ok");
    pull.has_only(FILES);
    run.signal_group(Signal::TERM);
    let _ended = run.wait();
}

/// The layer is still to come, as far as it knows: the registry's upload has begun.
fn push(sandbox: &Sandbox) {
    let _registry = registry(sandbox);
    let record = sandbox.run(&["pull", &image("busybox").reference]).ok().stdout;
    sandbox.sh("cd state/oci/blobs/sha256; mv $(ls -S | head -n 1) $SANDBOX").run().ok();
    let mut run = sandbox.cmd(&["push", &format!("{OWN}/x")]).open_stdin().start();
    run.write_stdin(&record);
    let push = Subject::find(sandbox, run.pid(), "push");
    let begun = || !sandbox.sh("ls -d own/docker/registry/v2/repositories/x/_uploads/*").run().stdout.is_empty();
    wait_for("an upload", || begun().then_some(()));
    push.may_not(&FOREVER);
    push.may_not(&["execve /bin/true 0 0", "listen 0", "unshare 0x20000000", "setns 0", "kill 1 0"]);
    push.tries(&format!("mkdir {} 511", sandbox.at("elsewhere")), "EACCES");
    push.tries(&format!("mkdir {} 511", sandbox.at("state/oci/own")), "EACCES");
    push.tries(&format!("open {} 0x1", sandbox.at("state/oci/index.json")), "EACCES");
    push.tries("socket 2 1 0", "ok");
    push.has_only(1 << 2);
    run.signal_group(Signal::TERM);
    let _ended = run.wait();
}

/// Its layer's blob is still to come, as far as it knows.
fn unpack(sandbox: &Sandbox) {
    let record = sandbox.run(&["pull", &image("busybox").reference]).ok().stdout;
    sandbox.sh("cd state/oci/blobs/sha256; mv $(ls -S | head -n 1) $SANDBOX").run().ok();
    let mut run = sandbox.cmd(&["unpack"]).open_stdin().start();
    run.write_stdin(&record);
    let unpack = Subject::find(sandbox, run.pid(), "unpack");
    wait_for("a layer that has begun", || (!sandbox.sh("ls state/layers/tmp").run().stdout.is_empty()).then_some(()));
    unpack.may_not(&FOREVER);
    unpack.may_not(&["execve /bin/true 0 0", "socket 2 1 0", "socket 1 1 0", "unshare 0x20000000", "kill 1 0"]);
    unpack.tries("open /etc/passwd 0", "EACCES");
    unpack.tries(&format!("mkdir {} 511", sandbox.at("state/elsewhere")), "EACCES");
    unpack.tries(&format!("mkdir {} 511", sandbox.at("state/oci/elsewhere")), "EACCES");
    unpack.tries(&format!("open {} 0", sandbox.at("state/oci/index.json")), "ok");
    unpack.tries(&format!("mkdir {} 511", sandbox.at("state/layers/own")), "ok");
    unpack.tries(&format!("rmdir {}", sandbox.at("state/layers/own")), "ok");
    unpack.has_only(FILES | SYS_ADMIN);
    sandbox
        .sh("mv $(ls | grep -x '[0-9a-f]*' | grep ................................) state/oci/blobs/sha256")
        .run()
        .ok();
    run.close_stdin();
    run.wait().ok().stdout_has("rootfs");
}

fn bundle(sandbox: &Sandbox) {
    let run = sandbox.cmd(&["bundle"]).open_stdin().start();
    let bundle = Subject::find(sandbox, run.pid(), "bundle");
    bundle.may_not(&FOREVER[..3]);
    bundle.may_not(&["execve /bin/true 0 0", "socket 2 1 0", "unshare 0x20000000", "setns 0"]);
    bundle.has_only(FILES | SYS_ADMIN);
}

fn ns(sandbox: &Sandbox) {
    let run = sandbox.cmd(&["ns", "add"]).open_stdin().start();
    let ns = Subject::find(sandbox, run.pid(), "ns");
    ns.may_not(&FOREVER[..3]);
    ns.may_not(&["execve /bin/true 0 0", "listen 0"]);
    ns.has_only(FILES | SYS_ADMIN | 1 << 12);
}

fn unpack_verbs(sandbox: &Sandbox) {
    for verb in ["diff", "commit"] {
        let run = sandbox.cmd(&["unpack", verb]).open_stdin().start();
        let unpack = Subject::find(sandbox, run.pid(), "unpack");
        unpack.may_not(&FOREVER);
        unpack.may_not(&["execve /bin/true 0 0", "socket 2 1 0", "listen 0", "unshare 0x20000000", "setns 0"]);
        unpack.has_only(FILES | SYS_ADMIN);
    }
}

fn portmap(sandbox: &Sandbox) {
    let run = sandbox.cmd(&["portmap", "-p", "8080:80"]).open_stdin().start();
    let portmap = Subject::find(sandbox, run.pid(), "portmap");
    portmap.may_not(&FOREVER[1..]);
    // What it has: CAP_DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN.
    portmap.has_only(1 << 1 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 19 | SYS_ADMIN);
}

fn proxy(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run -d --rm --name web --network none {nginx}")).run().ok();
    let run = sandbox.sh("exec portmap --pid $(spawn state web | jq .pid) -p 8080:80").start();
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    let proxy = Subject::find(sandbox, run.pid(), "portmap");
    proxy.may_not(&FOREVER);
    proxy.may_not(&["execve /bin/true 0 0", "unshare 0x40000000", "setns 0", "kill 1 0"]);
    proxy.tries("open /etc/passwd 0", "EACCES");
    proxy.tries(&format!("open {} 0", sandbox.at("state/oci/index.json")), "EACCES");
    proxy.tries("open /proc/self/net/tcp 0", "ok");
    // To reach a socket in the container that is another user's.
    proxy.has_only(1 << 1);
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    sandbox.run(&["keep", "stop", "web"]).ok();
    run.wait().ok();
    assert!(sandbox.sh("ls state/run/portmap").run().stdout.is_empty());
}

/// A program of the user's is executed for credentials, but not once a registry has answered.
fn helpers(sandbox: &Sandbox) {
    let _registry = faulty(sandbox);
    let helper = "#!/bin/sh\ngrep -c . >>asked; echo '{\"Username\":\"alice\",\"Secret\":\"secret\"}'\n";
    sandbox.write("helpers/docker-credential-test", helper);
    sandbox.write("home/.docker/config.json", format!("{{\"credHelpers\":{{\"{PORT}\":\"test\"}}}}"));
    let two =
        format!("chmod +x helpers/*; PATH=$PWD/helpers:$PATH pull --layout l {PORT}/basic/image {PORT}/token/image");
    sandbox.sh(&two).run().ok();
    assert_eq!(sandbox.read("asked"), "1\n1\n");
    // What is in the layout needs nobody's credentials.
    sandbox.sh(&format!("{two} --policy missing")).run().ok();
    assert_eq!(sandbox.read("asked"), "1\n1\n");
}

fn said(sandbox: &Sandbox) {
    let stages = format!("pull -v {} | unpack -v | bundle --verbose --id web -- true", image("busybox").reference);
    let outcome = sandbox.sh(&stages).run().ok();
    for line in [
        "pull: gives up executing, listening, mounting, namespaces, tracing, all capabilities but chown",
        "pull: gives up files to write but its own",
        "unpack: gives up executing, sockets, listening, mounting, namespaces, tracing",
        "unpack: gives up files but its own",
        "bundle: gives up executing, sockets, listening, namespaces, tracing",
    ] {
        assert!(outcome.stderr.contains(line), "no {line:?}: {outcome}");
    }
    sandbox.run(&["bundle", "delete", "web"]).ok();
}

const OLDER: &[Need] = &[Need::Registry, Need::Program("strace")];

fn older(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let pull = |inject: &str| {
        let command = format!("strace -f -o trace -e inject={inject} pull -v --layout l {busybox}; rm -r l");
        sandbox.sh(&command).run().ok().stdout_has("\"image\"")
    };
    pull("landlock_create_ruleset:error=ENOSYS").stderr_has("no files: this kernel has no Landlock");
    pull("landlock_create_ruleset:error=EOPNOTSUPP").stderr_has("no files: this kernel has no Landlock");
    // The first version cannot rename between directories.
    pull("landlock_create_ruleset:retval=1").stderr_has("no files: this kernel has no Landlock");
    pull("seccomp:error=EINVAL").stderr_has("no system calls: this kernel has no seccomp");
}
