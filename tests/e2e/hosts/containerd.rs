//! containerd through its shim, as `ctr run --runc-binary` has it, and a client of its CRI plugin for pods.

use rustix::process::Signal;

use super::Host;
use crate::support::{Need, Running, Sandbox, Test, test, wait_for};

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("containerd"),
    Need::Program("ctr"),
];

pub(crate) fn tests() -> Vec<Test> {
    vec![test("ctr_runs_execs_pauses_and_kills", NEEDS, by_hand)]
}

/// Starts the daemon with the document's configuration and `more`, and imports the image into `namespace`.
pub(super) fn start(host: &Host<'_>, namespace: &str, more: &str) -> Running {
    host.install("/etc/containerd/config.toml", more);
    let daemon = host.sandbox.cmd(&["containerd", "--log-level", "info"]).start();
    wait_for("containerd", || (host.sandbox.run(&["ctr", "version"]).code() == 0).then_some(()));
    host.ok(&format!("ctr -n {namespace} image import image.tar >/dev/null"));
    daemon
}

/// Ends it; whatever it left is found by the harness.
pub(super) fn stop(daemon: Running) {
    daemon.signal(Signal::TERM);
    daemon.wait().ok();
}

fn by_hand(sandbox: &Sandbox) {
    let host = Host::new(sandbox);
    let daemon = start(&host, "tests", "");
    host.ok("ctr() { command ctr -n tests \"$@\"; }
        run() { command ctr -n tests run --runc-binary /usr/local/lib/drayage/bin/spawn \"$@\"; }
        bb=localhost/busybox:1
        run --rm $bb one echo one
        run --rm --net-host $bb two cat /proc/sys/kernel/hostname
        run --rm $bb seven sh -c 'exit 7' || echo code $?
        run --rm $bb none no-such-program 2>&1 || echo code $?
        run --rm --read-only --seccomp $bb three grep Seccomp: /proc/self/status
        run --rm --memory-limit 67108864 $bb four sh -c 'cat /proc/self/cgroup' | grep -c /tests/four
        run -d $bb web sleep 1000
        ctr task exec --exec-id e1 web hostname
        ctr task exec --exec-id e2 web sh -c 'exit 9' || echo exec $?
        ctr task exec --exec-id e3 web no-such-program 2>&1 || :
        ctr task pause web
        ctr task ls | awk '{ print $1, $3 }' | grep web
        ctr task resume web
        ctr task ps web | wc -l
        ctr task metrics web | grep -c pids || :
        pgrep -f 'containerd-shim-runc-v2.* -id web' >/dev/null && echo shim
        ctr task kill -s KILL web
        until ctr task ls | grep -q STOPPED; do :; done
        ctr task rm web 2>/dev/null || :
        ctr container rm web
        ctr container ls -q
        ctr image rm $bb >/dev/null")
        .stdout_has("one\nsandbox\ncode 7\n")
        .stdout_has("exec: \"no-such-program\": executable file not found in $PATH: unknown\ncode 1\nSeccomp:\t2\n")
        .stdout_has("\nexec 9\n")
        .stdout_has("\nweb PAUSED\n2\n")
        .stdout_has("shim\n");
    stop(daemon);
    host.down();
}
