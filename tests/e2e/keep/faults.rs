//! What fails for a while, and what a container does against it, ends neither its keeper nor its restarts.

use serde_json::json;

use super::life::{checked, keeper};
use super::{NEEDS, json, remove, start};
use crate::support::{Need, Sandbox, Test, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    let prlimit = &[Need::Registry, Need::Overlay, Need::Program("prlimit")];
    vec![
        test("a_passing_want_of_descriptors_does_not_end_restarts", prlimit, descriptors),
        test("a_full_disk_hides_no_exit_code", NEEDS, full_disk),
        test("what_cannot_be_written_is_told_by_its_keeper", NEEDS, read_only),
        test("more_clients_than_descriptors_neither_spin_nor_end_it", prlimit, clients),
        test("a_probe_that_the_container_stops_does_not_stop_its_keeper", NEEDS, stopped_probe),
        test("what_a_probe_says_fills_nothing", NEEDS, loud_probe),
        test("what_spawn_cannot_kill_the_keeper_kills", NEEDS, damaged_state),
        test("a_start_that_takes_long_can_be_stopped", NEEDS, slow_start),
    ]
}

/// Counts its starts, and ends at once.
const COUNTS: &str = "echo start >>/here/starts; sleep 0.2";

fn starts(sandbox: &Sandbox) -> usize {
    if sandbox.exists("starts") { sandbox.read("starts").lines().count() } else { 0 }
}

fn descriptors(sandbox: &Sandbox) {
    start(sandbox, "web", "-v $PWD:/here", "--restart always", COUNTS);
    let limit = |limit: &str| {
        sandbox.run(&["prlimit", "--pid", &keeper(sandbox, "web"), &format!("--nofile={limit}:")]).ok();
    };
    wait_for("a start", || (starts(sandbox) >= 2).then_some(()));
    limit("5");
    wait_for("a failure", || sandbox.read("state/containers/web/log").contains("keep: ").then_some(()));
    let before = starts(sandbox);
    limit("1024");
    wait_for("the next start", || (starts(sandbox) > before).then_some(()));
    remove(sandbox, "web");
}

fn full_disk(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p state; mount -t tmpfs -o size=24m tmpfs state").run().ok();
    start(sandbox, "web", "-v $PWD:/here", "", "until [ -e /here/go ]; do sleep 0.01; done; exit 7");
    let waiter = sandbox.cmd(&["keep", "wait", "web"]).start();
    sandbox.sh("cat /dev/zero >state/fill; while echo >>state/end; do :; done; touch go").run();
    waiter.wait().ok().stdout_is("7\n");
    sandbox.run(&["keep", "list"]).ok().stdout_has("exited (7)");
    sandbox.sh("rm state/fill state/end").run().ok();
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("7\n");
    remove(sandbox, "web");
    sandbox.run(&["umount", "state"]).ok();
}

fn read_only(sandbox: &Sandbox) {
    start(sandbox, "web", "-v $PWD:/here", "--log-driver none", "until [ -e /here/go ]; do sleep 0.01; done; exit 7");
    let bundle = "state/containers/web";
    sandbox.sh(&format!("mount --bind {bundle} {bundle} && mount -o remount,bind,ro {bundle}")).run().ok();
    let waiter = sandbox.cmd(&["keep", "wait", "web"]).start();
    sandbox.write("go", "");
    waiter.wait().ok().stdout_is("7\n");
    // Nothing is left of it but its keeper, who knows.
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("7\n");
    sandbox.run(&["keep", "list"]).ok().stdout_has("exited (7)");
    sandbox.run(&["umount", bundle]).ok();
    wait_for("its end", || json(sandbox, "state/containers/web/exit.json"));
    wait_for("the keeper's end", || (!sandbox.exists("state/run/claims/web")).then_some(()));
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("7\n");
    remove(sandbox, "web");
}

fn clients(sandbox: &Sandbox) {
    let keep = "--restart always";
    sandbox.sh("ulimit -n 1024").run().ok();
    start(sandbox, "web", "-v $PWD:/here", keep, COUNTS);
    let own = keeper(sandbox, "web");
    // Below what it has taken for itself by now, so that accept fails.
    sandbox.run(&["prlimit", "--pid", &own, "--nofile=24:"]).ok();
    let waiters = "for i in $(seq 60); do keep wait web >/dev/null & done";
    sandbox.sh(waiters).run().ok();
    let ticks = || -> u64 {
        let stat = sandbox.run(&["cut", "-d", " ", "-f14,15", &format!("/proc/{own}/stat")]).ok().stdout;
        stat.split_whitespace().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let before = ticks();
    sandbox.run(&["sleep", "1"]).ok();
    assert!(ticks() - before < 60, "it spins");
    sandbox.run(&["prlimit", "--pid", &own, "--nofile=1024:"]).ok();
    let count = starts(sandbox);
    wait_for("the next start", || (starts(sandbox) > count).then_some(()));
    remove(sandbox, "web");
}

fn stopped_probe(sandbox: &Sandbox) {
    // Root of the container stops what enters its pid namespace.
    let hostile = "echo ready; while :; do for pid in /proc/[0-9]*; do pid=${pid#/proc/}; \
                   [ $pid = 1 ] || kill -STOP $pid; done; done 2>/dev/null";
    let bundle = checked("true", ",\"Timeout\":300000000,\"Retries\":1");
    start(sandbox, "web", &bundle, "", hostile);
    let path = "state/containers/web/health.json";
    wait_for("a probe that hangs", || {
        json(sandbox, path).filter(|health| {
            let text = health["Log"].to_string();
            text.contains("exceeded timeout")
        })
    });
    sandbox.cmd(&["timeout", "10", "keep", "stop", "--time", "0", "web"]).run().ok();
    remove(sandbox, "web");
}

fn loud_probe(sandbox: &Sandbox) {
    start(sandbox, "web", &checked("yes", ",\"Timeout\":1000000000,\"Retries\":1"), "", "sleep 1000");
    let sizes = format!("stat -L -c %s /proc/{}/fd/* 2>/dev/null | sort -n | tail -n 1", keeper(sandbox, "web"));
    let health = wait_for("the end of a probe", || {
        let largest: u64 = sandbox.sh(&sizes).run().stdout.trim().parse().unwrap_or(0);
        assert!(largest < 1 << 20, "{largest} bytes are kept");
        json(sandbox, "state/containers/web/health.json").filter(|health| health["Status"] == "unhealthy")
    });
    let said = health["Log"][0]["Output"].as_str().unwrap();
    assert!(said.contains("y\ny\n") && said.len() < 5000, "{}", said.len());
    remove(sandbox, "web");
}

fn damaged_state(sandbox: &Sandbox) {
    for damage in ["", "{\"a\":"] {
        start(sandbox, "web", "", "", "trap '' TERM; while :; do sleep 0.1; done");
        sandbox.write("state/run/spawn/web/state.json", damage);
        sandbox.cmd(&["timeout", "20", "keep", "stop", "--time", "0", "web"]).run().ok();
        sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("137\n");
        sandbox.cmd(&["timeout", "20", "keep", "rm", "--force", "web"]).run().ok();
        assert!(!sandbox.exists("state/run/spawn/web") && !sandbox.exists("state/containers/web"));
    }
}

fn slow_start(sandbox: &Sandbox) {
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", "1000"]});
    let busybox = crate::support::image("busybox").reference;
    let make = format!("pull -q {busybox} | unpack | bundle --id web --network none -- true");
    sandbox.sh(&make).run().ok();
    let path = "state/containers/web/config.json";
    let mut config = json(sandbox, path).unwrap();
    config["hooks"] = json!({"createRuntime": [hook]});
    sandbox.write(path, config.to_string());
    let begun = sandbox.cmd(&["keep", &sandbox.at("state/containers/web")]).start();
    wait_for("its keeper", || sandbox.exists("state/containers/web/keep.sock").then_some(()));
    sandbox.cmd(&["timeout", "20", "keep", "rm", "--force", "web"]).run().ok();
    assert_ne!(begun.wait().code(), 0);
    wait_for("the end of all", || {
        let left = sandbox.sh("ls -d state/containers/web state/run/claims/* state/run/spawn/*").run().stdout;
        left.is_empty().then_some(())
    });
}
