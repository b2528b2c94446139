//! How containers with a keeper begin again, are looked after, and end.

use rustix::process::Signal;
use serde_json::json;

use super::{NEEDS, json, pipeline, remove, start};
use crate::security::lent_to;
use crate::support::{Need, Sandbox, Test, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("it_starts_again_as_the_policy_says", NEEDS, policies),
        test("restart_and_stop_end_what_always_would_go_on", NEEDS, restarted),
        test("a_late_kill_does_not_meet_the_next_start", NEEDS, late_kill),
        test("restart_says_what_does_not_start", NEEDS, not_restarted),
        test("its_health_is_looked_at", NEEDS, health),
        test("a_check_that_takes_too_long_has_failed", NEEDS, slow_check),
        test("all_who_wait_are_told", NEEDS, waiters),
        test("it_is_asked_by_its_stop_signal_then_killed", NEEDS, stops),
        test("what_is_stopped_can_be_started_at_once", NEEDS, started_again),
        test("it_is_killed_when_its_time_is_over", NEEDS, timeout),
        test("one_that_cannot_start_leaves_nothing", NEEDS, failed_start),
        test("a_killed_keeper_leaves_nothing_after_gc", &[Need::Registry, Need::Overlay, Need::Nft], killed_keeper),
        test("a_killed_caller_leaves_nothing", NEEDS, killed_caller),
        test("rm_takes_the_bundle_at_the_end", NEEDS, rm_at_the_end),
        test("a_name_has_one_keeper", NEEDS, one_keeper),
        test("an_ordinary_user_keeps_containers", &[Need::Registry, Need::Program("setpriv")], ordinary_user),
    ]
}

fn policies(sandbox: &Sandbox) {
    for (policy, command, starts, code) in [
        ("no", "exit 1", 1, 1),
        ("on-failure:2", "exit 3", 3, 3),
        ("on-failure", "exit 0", 1, 0),
        ("on-failure", "[ $(wc -l </here/starts) -ge 3 ]", 3, 0),
    ] {
        let counted = format!("echo start >>/here/starts; {command}");
        start(sandbox, "web", "-v $PWD:/here", &format!("--restart {policy}"), &counted);
        wait_for("the keeper's end", || (!sandbox.exists("state/run/claims/web")).then_some(()));
        assert_eq!(sandbox.read("starts").lines().count(), starts, "{policy}");
        let exit = json(sandbox, "state/containers/web/exit.json").unwrap();
        assert_eq!((&exit["exitCode"], &exit["restartCount"]), (&json!(code), &json!(starts - 1)), "{policy}");
        remove(sandbox, "web");
        sandbox.run(&["rm", "starts"]).ok();
    }
}

fn restarted(sandbox: &Sandbox) {
    for policy in ["always", "unless-stopped"] {
        let command = "echo start; [ $(wc -l </here/starts) -gt 3 ] && sleep 1000";
        start(
            sandbox,
            "web",
            "-v $PWD:/here",
            &format!("--restart {policy}"),
            &format!("echo >>/here/starts; {command}"),
        );
        let starts = || if sandbox.exists("starts") { sandbox.read("starts").lines().count() } else { 0 };
        wait_for("the fourth start", || (starts() == 4).then_some(()));
        sandbox.run(&["keep", "restart", "--time", "0", "web"]).ok().stdout_is("web\n");
        wait_for("the fifth start", || (starts() == 5).then_some(()));
        sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("web\n");
        sandbox.run(&["keep", "stop", "--time", "0", "web"]).ok();
        assert!(!sandbox.exists("state/run/claims/web"));
        sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("137\n");
        sandbox.run(&["keep", "restart", "web"]).ok().stdout_is("web\n");
        remove(sandbox, "web");
        sandbox.run(&["rm", "starts"]).ok();
    }
}

/// `spawn` is a script here: what is left of an ended container's KILL waits until somebody writes to `go`.
fn late_kill(sandbox: &Sandbox) {
    let late = "#!/bin/sh\nd=${0%/*}\ncase \"$*\" in *kill*KILL) read x <$d/go; $d/real \"$@\"; >$d/done; exit;; esac\n\
                exec $d/real \"$@\"\n";
    sandbox
        .sh("mkdir bin && mkfifo bin/go && cp $(command -v keep) bin/ && cp $(command -v spawn) bin/real")
        .run()
        .ok();
    sandbox.write("bin/spawn", late);
    let begin = pipeline("web", "", "", "sleep 1000").replace("| keep", "| bin/keep");
    sandbox.sh(&format!("chmod +x bin/spawn && {begin} >/dev/null && bin/keep restart --time 0 web")).run().ok();
    let wake = "timeout 1 sh -c 'echo >bin/go' || exit 0; while ! [ -e bin/done ]; do sleep 0.01; done";
    sandbox.sh(wake).run().ok();
    assert_eq!(sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout, "web\n");
    remove(sandbox, "web");
}

fn not_restarted(sandbox: &Sandbox) {
    start(sandbox, "web", "", "", "sleep 1000");
    sandbox.sh("mv state/containers/web/rootfs/bin state/containers/web/rootfs/away").run().ok();
    let outcome = sandbox.run(&["keep", "restart", "--time", "0", "web"]);
    outcome.fails(1).one_error_line("keep", &["container web does not start", "keep logs web"]);
    remove(sandbox, "web");
}

/// Options of `bundle` for a check that is made all the time.
pub(super) fn checked(test: &str, more: &str) -> String {
    format!(
        "--annotation 'org.drayage.healthcheck={{\"Test\":[\"CMD-SHELL\",\"{test}\"],\"Interval\":20000000{more}}}'"
    )
}

fn health(sandbox: &Sandbox) {
    let bundle = format!("-v $PWD:/here {}", checked("echo looked; test ! -e /here/ill", ",\"Retries\":2"));
    start(sandbox, "web", &bundle, "", "sleep 1000");
    let is = |status: &str| {
        let path = "state/containers/web/health.json";
        wait_for(status, || json(sandbox, path).filter(|health| health["Status"] == *status))
    };
    let healthy = is("healthy");
    assert_eq!((&healthy["FailingStreak"], &healthy["Log"][0]["Output"]), (&json!(0), &json!("looked\n")));
    sandbox.run(&["keep", "list"]).ok().stdout_has("running (healthy)");
    sandbox.write("ill", "");
    let ill = is("unhealthy");
    assert!(ill["FailingStreak"].as_u64().unwrap() >= 2 && ill["Log"].as_array().unwrap().len() <= 5, "{ill}");
    sandbox.run(&["rm", "ill"]).ok();
    is("healthy");
    remove(sandbox, "web");
}

fn slow_check(sandbox: &Sandbox) {
    start(sandbox, "web", &checked("sleep 1000", ",\"Timeout\":20000000,\"Retries\":1"), "", "sleep 1000");
    let path = "state/containers/web/health.json";
    let ill = wait_for("it to be ill", || json(sandbox, path).filter(|health| health["Status"] == "unhealthy"));
    assert!(ill["Log"][0]["Output"].as_str().unwrap().contains("exceeded timeout"), "{ill}");
    remove(sandbox, "web");
    let refused = sandbox.sh(&pipeline("web", "--annotation org.drayage.healthcheck=x", "", "true")).run();
    refused.fails(125).one_error_line("keep", &["healthcheck"]);
    sandbox.run(&["bundle", "delete", "web"]).ok();
}

fn waiters(sandbox: &Sandbox) {
    start(sandbox, "web", "-v $PWD:/here", "", "until [ -e /here/go ]; do sleep 0.01; done; exit 6");
    let waiters: Vec<_> = (0..3).map(|_| sandbox.cmd(&["keep", "wait", "web"]).start()).collect();
    sandbox.write("go", "");
    for waiter in waiters {
        waiter.wait().ok().stdout_is("6\n");
    }
    remove(sandbox, "web");
}

fn stops(sandbox: &Sandbox) {
    let command = |end: &str| format!("trap '{end}' USR1; echo ready; while :; do read -t 1 x </dev/zero; done");
    for (end, options, code) in
        [("exit 9", "", "9"), ("", "--time=0", "137"), ("exit 9", "--time=18446744073709551615", "9")]
    {
        start(sandbox, "web", "--stop-signal SIGUSR1", "", &command(end));
        wait_for("the trap", || sandbox.read("state/containers/web/log").contains("ready").then_some(()));
        sandbox.sh(&format!("keep stop {options} web")).run().ok().stdout_is("web\n");
        sandbox.run(&["keep", "wait", "web"]).ok().stdout_is(&format!("{code}\n"));
        // What is stopped already is no failure.
        sandbox.run(&["keep", "stop", "web"]).ok().stdout_is("web\n");
        remove(sandbox, "web");
    }
    // Its own time, and another signal.
    start(sandbox, "web", "--stop-timeout 0", "", "sleep 1000");
    sandbox.run(&["keep", "stop", "web"]).ok();
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("137\n");
    remove(sandbox, "web");
    start(sandbox, "web", "", "", &command("exit 8"));
    wait_for("the trap", || sandbox.read("state/containers/web/log").contains("ready").then_some(()));
    sandbox.run(&["keep", "rm", "web"]).fails(1).one_error_line("keep", &["web", "runs", "--force"]);
    sandbox.run(&["keep", "stop", "--signal", "USR1", "web"]).ok();
    assert_eq!(json(sandbox, "state/containers/web/exit.json").unwrap()["exitCode"], 8);
    remove(sandbox, "web");
}

fn started_again(sandbox: &Sandbox) {
    start(sandbox, "web", "", "", "sleep 1000");
    for _ in 0..10 {
        sandbox.sh("keep stop -t 0 web && bundle mount web | keep").run().ok();
    }
    remove(sandbox, "web");
}

fn timeout(sandbox: &Sandbox) {
    start(sandbox, "web", "", "--timeout 1", "sleep 1000");
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("137\n");
    remove(sandbox, "web");
}

fn failed_start(sandbox: &Sandbox) {
    let script = pipeline("web", "--entrypoint no-such-program", "", "true");
    let outcome = sandbox.sh(&script).run().fails(127);
    outcome.stdout_is("").one_error_line("spawn", &["no-such-program"]);
    sandbox.sh("ls -d state/run/claims/* state/run/spawn/*").run().stdout_is("");
    sandbox.run(&["keep", "list"]).ok().stdout_has("created");
    remove(sandbox, "web");
}

/// Returns the keeper of a container, as the sandbox numbers it.
pub(super) fn keeper(sandbox: &Sandbox, id: &str) -> String {
    let claim = json(sandbox, &format!("state/run/claims/{id}")).unwrap();
    claim["pid"].to_string()
}

fn killed_keeper(sandbox: &Sandbox) {
    let busybox = crate::support::image("busybox").reference;
    for round in 0..2 {
        let pipe = format!(
            "pull -q {busybox} | unpack | bundle --id web -- sleep 1000 | ns add | portmap -p 8080:80 | keep --rm"
        );
        sandbox.sh(&pipe).run().ok();
        sandbox.run(&["kill", "-9", &keeper(sandbox, "web")]).ok();
        sandbox.run(&["keep", "attach", "web"]).fails(1).one_error_line("keep", &["web", "lost its keeper"]);
        if round == 0 {
            sandbox.run(&["run", "--gc"]).ok().stdout_is("web\n");
        } else {
            sandbox.sh(&pipe).run().fails(125);
            sandbox.run(&["keep", "rm", "--force", "web"]).ok();
        }
        assert!(!sandbox.exists("state/containers/web") && !sandbox.exists("state/run/claims/web"));
        let gone = "until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done; ls state/run/spawn";
        sandbox.sh(gone).run().ok().stdout_is("");
    }
}

/// The caller is killed at any moment of the start: either there is a container, or nothing.
fn killed_caller(sandbox: &Sandbox) {
    let busybox = crate::support::image("busybox").reference;
    sandbox.sh(&format!("pull -q {busybox} | unpack >record")).run().ok();
    for round in 0..15 {
        sandbox.run(&["bundle", "--id", "web", "--network", "none", "record", "--", "sleep", "1000"]).ok();
        let mut start = sandbox.cmd(&["keep", "--rm", &sandbox.at("state/containers/web")]).start();
        let pid = start.pid_if_running();
        for _ in 0..round * 5000 {
            std::hint::spin_loop();
        }
        if let Some(pid) = pid.filter(|_| start.is_running()) {
            // It may end in this moment.
            let _ended = rustix::process::kill_process(pid, Signal::KILL);
        }
        let code = start.wait().code();
        if code == 0 {
            remove(sandbox, "web");
            continue;
        }
        wait_for("the end of the start", || {
            // It may have been started before its caller could say so.
            let claims = sandbox.sh("{ keep rm --force web; run --gc; } >&2; ls state/run/claims").run().stdout;
            claims.is_empty().then_some(())
        });
        if sandbox.exists("state/containers/web") {
            // Killed before there was a keeper.
            sandbox.run(&["bundle", "delete", "web"]).ok();
        }
    }
}

fn rm_at_the_end(sandbox: &Sandbox) {
    start(sandbox, "web", "", "--rm", "exit 2");
    wait_for("the clean-up", || (!sandbox.exists("state/containers/web")).then_some(()));
    wait_for("the claim", || (!sandbox.exists("state/run/claims/web")).then_some(()));
    sandbox.sh("ls -d state/run/spawn/*").run().stdout_is("");
}

fn one_keeper(sandbox: &Sandbox) {
    start(sandbox, "web", "", "", "sleep 1000");
    let second = sandbox.run(&["keep", &sandbox.at("state/containers/web")]);
    second.fails(125).one_error_line("keep", &["web", "already exists"]);
    sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("web\n");
    remove(sandbox, "web");
}

fn ordinary_user(sandbox: &Sandbox) {
    let busybox = crate::support::image("busybox").reference;
    let bundle = "user/containers/own";
    let make = format!(
        "mkdir -p {bundle} && pull -q {busybox} | unpack --flat {bundle}/rootfs >&2 && chown -R 65534:65534 user"
    );
    sandbox.sh(&make).run().ok();
    let user = |script: &str| {
        let script = format!("export DRAYAGE_ROOT=$SANDBOX/user; {script}");
        sandbox.cmd(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script]).run()
    };
    user(&format!("cd {bundle} && spawn spec --rootless")).ok();
    let path = format!("{bundle}/config.json");
    let mut config: serde_json::Value = serde_json::from_str(&sandbox.read(&path)).unwrap();
    config["process"]["terminal"] = json!(false);
    // The host's, with all below it, as runc has it: that much is asked for.
    config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
    config["process"]["args"] =
        json!(["sh", "-c", "echo I am $(id -u); trap 'exit 3' USR1; while :; do read -t 1 x </dev/zero; done"]);
    sandbox.write(&path, config.to_string());
    user(&format!("keep --restart on-failure:1 {bundle} >&2")).ok();
    wait_for("its words", || (user("keep logs own").ok().stdout == "I am 0\n").then_some(()));
    user("spawn kill own USR1").ok();
    wait_for("its words", || (user("keep logs own").ok().stdout == "I am 0\nI am 0\n").then_some(()));
    user("keep list --running --quiet").ok().stdout_is("own\n");
    user("spawn exec -d own sleep 1000 </dev/null >/dev/null 2>&1").ok();
    assert_eq!(lent_to(sandbox, "user", "$(spawn --root user/run/spawn ps --format json own | tr '[],' ' ')"), "");
    user("keep stop --signal USR1 own && keep wait own && keep rm own").ok().stdout_is("own\n3\nown\n");
    sandbox.sh("ls -d user/containers/* user/run/*/*").run().stdout_is("");
}
