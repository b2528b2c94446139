//! Another runtime in the place of `spawn`: Debian's runc and crun.

use rustix::process::Signal;

use super::busybox;
use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const RUNC: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("runc")];
const CRUN: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("crun")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("runc_stands_for_spawn", RUNC, runc),
        test("runc_gets_signals_and_its_time", RUNC, ends),
        test("what_is_killed_with_runc_leaves_nothing", RUNC, killed),
        test("crun_stands_for_spawn", CRUN, crun),
        test("another_runtime_does_not_stay_in_the_background", RUNC, refused),
    ]
}

/// Says what it is given, and ends with 7.
const LOOK: &str = "sh -c 'ls /proc/self/fd | wc -l; ls /sys/class/net; hostname; cat; echo err >&2; exit 7'";

fn nothing_left(sandbox: &Sandbox, runtime: &str) {
    let left = format!(
        "ls -A state/containers state/run/claims | grep -v :$ | grep .; ls state/run/runtimes/{runtime} | grep .
        until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done; ls -A state/run/spawn 2>/dev/null; true"
    );
    sandbox.sh(&left).run().ok().stdout_is("");
}

fn runc(sandbox: &Sandbox) {
    let run = |options: &str| format!("run --rm --runtime {options} --name web {} {LOOK}", image("busybox").reference);
    sandbox.sh(&run("runc")).stdin("in\n").run().fails(7).stdout_is("4\neth0\nlo\nweb\n").stderr_is("err\n");
    sandbox.sh(&run("$(command -v runc) -i")).stdin("in\n").run().fails(7).stdout_is("4\neth0\nlo\nweb\nin\n");
    for (options, said) in [("runc", ""), ("runc -i", "in\n"), ("runc -a stdout", "")] {
        let script = sandbox.sh(&run(&format!("{options} --print"))).run().ok().stdout;
        assert!(script.contains("/runc --root "), "{script}");
        sandbox.sh(&script).stdin("in\n").run().fails(7).stdout_is(&format!("4\neth0\nlo\nweb\n{said}"));
    }
    nothing_left(sandbox, "runc");
}

fn ends(sandbox: &Sandbox) {
    let trap = "sh -c 'trap \"exit 9\" TERM; echo ready; while :; do sleep 0.1; done'";
    let run = sandbox.sh(&format!("exec {}", busybox("--runtime runc", trap))).start();
    run.wait_stdout("ready");
    run.signal(Signal::TERM);
    run.wait().fails(9);
    sandbox.sh(&busybox("--runtime runc --timeout 1", "sleep 100")).run().fails(128 + 9);
    sandbox.sh(&busybox("--runtime runc", "no-such-program")).run().fails(1).stderr_has("no-such-program");
    nothing_left(sandbox, "runc");
}

fn killed(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    for _ in 0..2 {
        let run = sandbox.sh(&format!("exec run --rm --runtime runc --name web -p 8080:80 {nginx}")).start();
        assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
        run.signal(Signal::KILL);
        run.wait().fails(128 + 9);
        wait_for("the guard's work", || (!sandbox.exists("state/containers/web")).then_some(()));
    }
    wait_for("the claim's end", || (!sandbox.exists("state/run/claims/web")).then_some(()));
    nothing_left(sandbox, "runc");
}

fn crun(sandbox: &Sandbox) {
    // crun refuses machines with both kinds of control groups, unless the second kind has no controllers.
    let hide = "d=/sys/fs/cgroup/unified; if [ -d $d ]; then umount -l $d; mount -t tmpfs none $d; : >$d/cgroup.controllers; fi";
    let run = format!("run --rm --runtime crun -i --name web {} {LOOK}", image("busybox").reference);
    let script = format!("{hide}; {run}");
    let hidden = sandbox.cmd(&["unshare", "-m", "--propagation", "private", "sh", "-c", &script]).stdin("in\n").run();
    hidden.fails(7).stdout_is("4\neth0\nlo\nweb\nin\n").stderr_is("err\n");
    nothing_left(sandbox, "crun");
}

fn refused(sandbox: &Sandbox) {
    for options in ["-d", "--restart always", "--log-driver file", "--detach-keys a", "-d --print", "-d --dry-run"] {
        let run = sandbox.sh(&format!("run --runtime runc {options} busybox true")).run();
        run.fails(125).one_error_line("run", &["--runtime runc: in the foreground only", "need spawn"]);
    }
    for program in ["no-such-runtime", "./none"] {
        let run = sandbox.sh(&format!("run --runtime {program} busybox true")).run();
        run.fails(125).one_error_line("run", &[&format!("--runtime {program}: no such program")]);
    }
}
