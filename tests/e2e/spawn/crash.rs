//! What a killed `spawn` leaves, and what many at a time do to each other.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{NEEDS, bundle, run, spawn};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const STRACE: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("strace")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("whatever_kill_9_leaves_is_cleared_by_delete_force", NEEDS, killed_then_deleted),
        test("whatever_kill_9_leaves_is_cleared_by_the_next_run", NEEDS, killed_then_run),
        test("kill_9_at_any_call_of_create_is_cleared_by_delete_force", STRACE, |s| at_each_call(s, "cal", "create")),
        test("kill_9_at_any_call_of_run_is_cleared_by_delete_force", STRACE, |s| {
            at_each_call(s, "cld", "run --detach");
        }),
        test("kill_9_at_any_call_of_start_is_cleared_by_delete_force", STRACE, |s| at_each_call(s, "cls", "start")),
        test("a_start_whose_hook_hangs_is_no_obstacle_to_delete_force", NEEDS, hanging_hook),
        test("a_killed_foreground_spawn_takes_its_container_with_it", NEEDS, killed_foreground),
        test("eight_creators_do_not_disturb_each_other", NEEDS, eight_creators),
        test("many_containers_live_at_once_and_leave_nothing", NEEDS, many),
        test("one_of_eight_creators_of_one_id_wins", NEEDS, one_id),
        test("a_failed_create_leaves_nothing", NEEDS, failed_create),
        test("a_container_that_ends_while_it_is_looked_for_is_ended", STRACE, ends_meanwhile),
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

/// Kills `spawn` at each of its system calls from the first one that has to do with the container. It has a hook, so
/// that its process waits for `start` in this program and not in the one that launches it.
fn at_each_call(sandbox: &Sandbox, name: &str, command: &str) {
    bundle(sandbox, name, "sleep 1000", |config| {
        config["hooks"]["startContainer"] = json!([{"path": "/bin/true"}]);
    });
    let id = format!("e2e-{name}");
    let spawn = format!("spawn --root {}", sandbox.at("st"));
    let (before, command) = match command {
        "start" => (format!("{spawn} create -b {name} {id} </dev/null >/dev/null 2>&1; "), format!("start {id}")),
        _ => (String::new(), format!("{command} -b {name} {id}")),
    };
    let traced = |options: &str| format!("strace -qq {options} {spawn} {command} </dev/null >/dev/null 2>&1");
    // The bug that this would show is a lock that nobody can take.
    let cleared = format!("timeout 20 {spawn} delete --force {id} && test ! -e st/{id}");
    sandbox.sh(&format!("{before}{}; {cleared}", traced("-o trace"))).run().ok();
    let trace = sandbox.read("trace");
    let calls = trace.lines().filter_map(|line| Some((line.split_once('(')?.0, line.contains(&id))));
    let (mut counts, mut begun) = (BTreeMap::<&str, u32>::new(), false);
    let mut walked = 0;
    for (call, names_it) in calls {
        let count = counts.entry(call).or_default();
        *count += 1;
        begun |= names_it && call != "execve";
        if begun {
            let killed = traced(&format!("-o /dev/null -e inject={call}:signal=KILL:when={count}"));
            sandbox.sh(&format!("{before}{killed}; {cleared}")).run().ok();
            walked += 1;
        }
    }
    assert!(walked > 10, "{trace}");
    sandbox.sh(&format!("! find /sys/fs/cgroup -name {id} | grep .")).run().ok();
}

fn killed_then_run(sandbox: &Sandbox) {
    bundle(sandbox, "nxt", "sleep 0.01", |_| {});
    kill_at_each_moment(sandbox, "run -b nxt e2e-nxt", |_| {
        wait_for("the next run", || (run(sandbox, "nxt").code() == 0).then_some(()));
    });
}

fn hanging_hook(sandbox: &Sandbox) {
    bundle(sandbox, "hng", "true", |config| {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo >/tmp/began; sleep 1000"]}]);
        config["hooks"]["startContainer"] = hook;
    });
    spawn(sandbox, "create -b hng e2e-hng </dev/null >/dev/null 2>&1").ok();
    let start = sandbox.sh(&format!("spawn --root {} start e2e-hng", sandbox.at("st"))).start();
    wait_for("the hook", || sandbox.exists("hng/rootfs/tmp/began").then_some(()));
    spawn(sandbox, "delete --force e2e-hng").ok();
    start.wait();
    spawn(sandbox, "list -q").ok().stdout_is("");
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

/// Each is made, alive beside all others, executed in, and deleted, by eight at a time.
fn many(sandbox: &Sandbox) {
    const COUNT: usize = 200;
    bundle(sandbox, "mny", "exec sleep 1000", |config| {
        // A network namespace costs the kernel more than all the rest, and this is no test of the kernel.
        config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
    });
    let program = format!("spawn --root {}", sandbox.at("st"));
    let eight = |command: &str| sandbox.sh(&format!("seq {COUNT} | xargs -P 8 -I% {command}")).run().ok().stderr_is("");
    eight(&format!("{program} run -d -b mny mny-% >/dev/null"));
    let running = spawn(sandbox, "list --format json").ok().json();
    let running = running.as_array().map(|all| all.iter().filter(|one| one["status"] == "running").count());
    assert_eq!(running, Some(COUNT));
    let greeting = eight(&format!("{program} exec mny-% echo here")).stdout;
    assert_eq!(greeting, "here\n".repeat(COUNT));
    eight(&format!("{program} delete -f mny-%")).stdout_is("");
    spawn(sandbox, "list -q").ok().stdout_is("");
    sandbox.sh("ls -A st; find /sys/fs/cgroup -name 'mny-*'").run().ok().stdout_is("");
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

/// Between the look at the container's process and the opening of it, it ends.
fn ends_meanwhile(sandbox: &Sandbox) {
    for (command, code, words) in
        [("delete --force", 0, ""), ("kill", 1, "not running"), ("exec", 255, "stopped"), ("start", 1, "stopped")]
    {
        bundle(sandbox, "mwh", "sleep 1000", |_| {});
        spawn(sandbox, "create -b mwh e2e-mwh </dev/null >/dev/null 2>&1").ok();
        if command != "start" {
            spawn(sandbox, "start e2e-mwh").ok();
        }
        let pid = spawn(sandbox, "state e2e-mwh").ok().json()["pid"].clone();
        let more = if command == "exec" { "true" } else { "" };
        let script = format!(
            "strace -f -qq -o log -e trace=pidfd_open -e inject=pidfd_open:delay_enter=2000000 \
                spawn --root {} {command} e2e-mwh {more} &
             until grep -qs '^434 ' /proc/[0-9]*/syscall; do :; done
             kill -KILL {pid}
             until ! [ -e /proc/{pid} ] || grep -q '^State:.Z' /proc/{pid}/status; do :; done
             wait $!",
            sandbox.at("st")
        );
        let outcome = sandbox.sh(&script).run();
        assert_eq!(outcome.code(), code, "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(words) && !outcome.stderr.contains("No such process"), "{}", outcome.stderr);
        spawn(sandbox, "delete --force e2e-mwh").ok();
    }
}
