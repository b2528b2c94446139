//! What a killed `spawn` leaves, and what many at a time do to each other.

use std::time::Duration;

use rustix::process::Signal;

use super::{NEEDS, bundle, run, spawn};
use crate::support::{Sandbox, Test, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("whatever_kill_9_leaves_is_cleared_by_delete_force", NEEDS, killed_then_deleted),
        test("whatever_kill_9_leaves_is_cleared_by_the_next_run", NEEDS, killed_then_run),
        test("a_killed_foreground_spawn_takes_its_container_with_it", NEEDS, killed_foreground),
        test("eight_creators_do_not_disturb_each_other", NEEDS, eight_creators),
        test("one_of_eight_creators_of_one_id_wins", NEEDS, one_id),
        test("a_failed_create_leaves_nothing", NEEDS, failed_create),
    ]
}

/// Kills `spawn` after each of these times; a run takes some milliseconds, so that all steps are met.
fn kill_at_each_moment(sandbox: &Sandbox, command: &str, mut then: impl FnMut(Duration)) {
    let limit = Duration::from_millis(30);
    let mut delay = Duration::ZERO;
    while delay < limit {
        // No time at all would mean no limit.
        if !delay.is_zero() {
            let seconds = delay.as_secs_f64();
            let spawn = format!("spawn --root {} {command}", sandbox.at("st"));
            sandbox.sh(&format!("timeout -s KILL {seconds:.5} {spawn} </dev/null >/dev/null 2>&1; true")).run().ok();
        }
        then(delay);
        delay += Duration::from_micros(750);
    }
}

fn killed_then_deleted(sandbox: &Sandbox) {
    bundle(sandbox, "kil", "sleep 1000", |_| {});
    kill_at_each_moment(sandbox, "create -b kil e2e-kil", |delay| {
        spawn(sandbox, "delete --force e2e-kil").ok();
        sandbox.sh("! find /sys/fs/cgroup -name e2e-kil | grep . ; test ! -e st/e2e-kil").run().ok();
        assert_eq!(spawn(sandbox, "list -q").stdout, "", "{delay:?}");
    });
}

fn killed_then_run(sandbox: &Sandbox) {
    bundle(sandbox, "nxt", "sleep 0.01", |_| {});
    kill_at_each_moment(sandbox, "run -b nxt e2e-nxt", |_| {
        wait_for("the next run", || (run(sandbox, "nxt").code() == 0).then_some(()));
    });
}

fn killed_foreground(sandbox: &Sandbox) {
    bundle(sandbox, "fgk", "echo $$ up; sleep 1000", |_| {});
    let running =
        sandbox.sh(&format!("exec spawn --root {} run --pid-file pid -b fgk e2e-fgk", sandbox.at("st"))).start();
    running.wait_stdout("up");
    running.signal(Signal::KILL);
    running.wait();
    let pid = sandbox.read("pid");
    wait_for("the container's end", || {
        sandbox.sh(&format!("! kill -0 {pid} 2>/dev/null")).run().status.success().then_some(())
    });
    spawn(sandbox, "delete e2e-fgk").ok();
}

fn eight_creators(sandbox: &Sandbox) {
    bundle(sandbox, "par", "echo $HOSTNAME done", |_| {});
    let one = format!("spawn --root {} run -b par", sandbox.at("st"));
    let script = format!(
        "for n in 1 2 3 4 5 6 7 8; do (for i in 1 2 3 4 5; do {one} e2e-par$n || echo failed; done) & done; wait"
    );
    let outcome = sandbox.sh(&script).run().ok();
    assert_eq!((outcome.stdout.lines().count(), outcome.stdout.contains("failed")), (40, false), "{}", outcome.stderr);
    spawn(sandbox, "list -q").ok().stdout_is("");
}

fn one_id(sandbox: &Sandbox) {
    bundle(sandbox, "one", "sleep 1000", |_| {});
    let one = format!("spawn --root {} create -b one e2e-one </dev/null >/dev/null 2>&1 && echo won", sandbox.at("st"));
    let outcome = sandbox.sh(&format!("for n in 1 2 3 4 5 6 7 8; do ({one}) & done; wait")).run().ok();
    assert_eq!(outcome.stdout, "won\n");
    spawn(sandbox, "delete -f e2e-one").ok();
}

fn failed_create(sandbox: &Sandbox) {
    for member in [
        r#""hooks":{"createRuntime":[{"path":"/bin/false"}]}"#,
        r#""hooks":{"createContainer":[{"path":"/bin/false"}]}"#,
        r#""mounts":[{"destination":"/x","type":"nonsense","source":"x"}]"#,
    ] {
        bundle(sandbox, "fail", "true", |_| {});
        let config = sandbox.read("fail/config.json");
        let rest = config.strip_suffix('}').unwrap();
        let rest = if member.starts_with(r#""mounts"#) {
            rest.replacen(r#""mounts":"#, r#""was":"#, 1)
        } else {
            rest.to_owned()
        };
        sandbox.write("fail/config.json", format!("{rest},{member}}}"));
        assert_ne!(spawn(sandbox, "create -b fail e2e-fail").code(), 0, "{member}");
        sandbox.sh("test -z \"$(ls st)\"; ! find /sys/fs/cgroup -name e2e-fail | grep .").run().ok();
    }
}
