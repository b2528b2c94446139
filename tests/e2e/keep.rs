//! `keep`: containers that go on without their caller.

mod faults;
mod known;
mod life;
mod machine;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay];
const TERMINAL: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("script")];

pub(crate) fn tests() -> Vec<Test> {
    let own = vec![
        test("what_it_says_is_logged_and_followed_to_its_end", NEEDS, follows),
        test("a_log_has_generations", NEEDS, rotation),
        test("log_lines_have_times_and_streams", NEEDS, formats),
        test("a_log_may_be_nobody_s_or_the_journal_s", NEEDS, drivers),
        test("a_terminal_is_joined_and_left_by_keys", TERMINAL, terminal),
        test("without_a_terminal_input_and_output_are_joined", NEEDS, joined),
        test("signals_reach_it_through_attach", NEEDS, proxied),
        test("lists_and_counts_say_what_there_is", NEEDS, lists),
        test("events_are_told_as_they_happen", NEEDS, events),
        test("wrong_uses_are_one_line", NEEDS, wrong_uses),
    ];
    own.into_iter().chain(life::tests()).chain(faults::tests()).chain(known::tests()).chain(machine::tests()).collect()
}

/// Starts a container of busybox.
fn start(sandbox: &Sandbox, id: &str, bundle: &str, keep: &str, command: &str) {
    sandbox.sh(&pipeline(id, bundle, keep, command)).run().ok();
}

fn pipeline(id: &str, bundle: &str, keep: &str, command: &str) -> String {
    let busybox = image("busybox").reference;
    format!(
        "pull -q {busybox} | unpack | bundle --id {id} --network none {bundle} -- sh -c {} | keep {keep}",
        quoted(command)
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Ends a container and takes it away.
fn remove(sandbox: &Sandbox, id: &str) {
    sandbox.run(&["keep", "rm", "--force", id]).ok().stdout_is(&format!("{id}\n"));
}

fn json(sandbox: &Sandbox, path: &str) -> Option<Value> {
    sandbox.exists(path).then(|| serde_json::from_str(&sandbox.read(path)).unwrap())
}

fn follows(sandbox: &Sandbox) {
    start(
        sandbox,
        "web",
        "-v $PWD:/here",
        "",
        "echo one; echo err >&2; until [ -e /here/go ]; do sleep 0.01; done; echo two",
    );
    let follower = sandbox.cmd(&["keep", "logs", "--follow", "web"]).start();
    follower.wait_stdout("one\n");
    follower.wait_stderr("err\n");
    let late = sandbox.cmd(&["keep", "logs", "--follow", "--tail", "0", "web"]).start();
    sandbox.write("go", "");
    follower.wait().ok().stdout_is("one\ntwo\n").stderr_is("err\n");
    // Whether it came before the last word or after, it saw nothing of the others.
    let late = late.wait().ok().stdout;
    assert!(["", "two\n"].contains(&late.as_str()), "{late}");
    // It has ended: there is nothing to wait for.
    sandbox.run(&["keep", "logs", "-f", "-n", "1", "web"]).ok().stdout_is("two\n");
    remove(sandbox, "web");
    assert!(!sandbox.exists("state/containers/web"));
}

fn rotation(sandbox: &Sandbox) {
    let options = "--log-opt format=plain --log-opt max-size=100 --log-opt max-file=3";
    start(sandbox, "web", "", options, "for i in $(seq 100 199); do echo line $i; done");
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("0\n");
    let sizes = sandbox.sh("cd state/containers/web && wc -c <log; wc -c <log.1; wc -c <log.2; ls log.*").run().ok();
    let lines: Vec<&str> = sizes.stdout.lines().collect();
    assert!(lines[..3].iter().all(|size| size.trim().parse::<u32>().unwrap() <= 100), "{sizes}");
    assert_eq!(lines[3..], ["log.1", "log.2"]);
    let said = sandbox.run(&["keep", "logs", "web"]).ok().stdout;
    assert!(said.ends_with("line 198\nline 199\n") && said.len() <= 300, "{said}");
    remove(sandbox, "web");
}

fn formats(sandbox: &Sandbox) {
    for (options, like) in [
        ("", "Z stdout F one\n"),
        ("--log-driver json-file", "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2"),
        ("--log-driver k8s-file", "Z stderr F err\n"),
    ] {
        start(sandbox, "web", "", options, "echo one; echo err >&2; printf end");
        sandbox.run(&["keep", "wait", "web"]).ok();
        assert!(sandbox.read("state/containers/web/log").contains(like), "{options}");
        sandbox.run(&["keep", "logs", "web"]).ok().stderr_is("err\n").stdout_has("one\n").stdout_has("end");
        let timed = sandbox.run(&["keep", "logs", "-t", "web"]).ok().stdout;
        let first = timed.lines().next().unwrap();
        assert!(first.starts_with("20") && first.ends_with("Z one"), "{first}");
        sandbox.run(&["keep", "logs", "--since", "1h", "web"]).ok().stdout_has("one\n");
        sandbox.run(&["keep", "logs", "--until", "2020-01-01", "web"]).ok().stdout_is("").stderr_is("");
        sandbox.run(&["keep", "logs", "--since", "yesterday", "web"]).fails(125).one_error_line("keep", &["yesterday"]);
        remove(sandbox, "web");
    }
    start(sandbox, "web", "", "--log-opt format=plain", "echo one");
    sandbox.run(&["keep", "wait", "web"]).ok();
    sandbox.run(&["keep", "logs", "-t", "web"]).fails(1).one_error_line("keep", &["no times", "format=cri"]);
    remove(sandbox, "web");
}

fn drivers(sandbox: &Sandbox) {
    start(sandbox, "web", "", "--log-driver none", "echo one");
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("0\n");
    assert!(!sandbox.exists("state/containers/web/log"));
    sandbox.run(&["keep", "logs", "web"]).fails(1).one_error_line("keep", &["web", "no log"]);
    remove(sandbox, "web");
    // There is no journal here: no container either.
    let refused = sandbox.sh(&pipeline("web", "", "--log-driver journald", "echo one")).run();
    refused.fails(125).one_error_line("keep", &["/run/systemd/journal/socket"]);
    remove(sandbox, "web");
}

fn terminal(sandbox: &Sandbox) {
    start(
        sandbox,
        "term",
        "--tty",
        "--interactive",
        "echo ready; while read x; do echo \"got $x\"; stty size; done; exit 4",
    );
    wait_for("the log", || sandbox.read("state/containers/term/log").contains("ready").then_some(()));
    let attach =
        || sandbox.cmd(&["script", "-qec", "stty rows 33 cols 44; keep attach term", "/dev/null"]).open_stdin().start();
    let mut first = attach();
    first.write_stdin("hello\n");
    first.wait_stdout("got hello");
    first.wait_stdout("33 44");
    first.write_stdin("\x10\x11");
    first.wait().ok();
    let mut second = attach();
    second.write_stdin("again\n");
    second.wait_stdout("got again");
    second.write_stdin("\x04");
    second.wait().fails(4);
    assert_eq!(json(sandbox, "state/containers/term/exit.json").unwrap()["exitCode"], 4);
    remove(sandbox, "term");
}

fn joined(sandbox: &Sandbox) {
    start(
        sandbox,
        "cat",
        "",
        "--interactive",
        "echo ready; while read x; do echo \"got $x\"; echo err >&2; done; exit 5",
    );
    wait_for("the log", || sandbox.read("state/containers/cat/log").contains("ready").then_some(()));
    let mut attach = sandbox.cmd(&["keep", "attach", "cat"]).open_stdin().start();
    attach.write_stdin("one\n");
    attach.wait_stdout("got one\n");
    attach.wait_stderr("err\n");
    let watcher = sandbox.cmd(&["keep", "attach", "--no-stdin", "cat"]).start();
    // The second one is told of everything once its request is in: what comes twice was not missed.
    wait_for("the second", || {
        attach.write_stdin("two\n");
        watcher.stdout().contains("got two").then_some(())
    });
    watcher.signal(Signal::KILL);
    let _killed = watcher.wait();
    sandbox.run(&["keep", "stop", "--time", "0", "cat"]).ok().stdout_is("cat\n");
    attach.wait().fails(128 + 9);
    sandbox.run(&["keep", "attach", "cat"]).fails(1).one_error_line("keep", &["cat", "ended with code 137"]);
    remove(sandbox, "cat");
}

fn proxied(sandbox: &Sandbox) {
    start(
        sandbox,
        "web",
        "",
        "",
        "trap 'echo caught; exit 7' INT; echo ready; while :; do read -t 1 x </dev/zero; done",
    );
    let attach = |options: &str| sandbox.sh(&format!("exec keep attach {options} web")).start();
    let proxy = attach("");
    let quiet = attach("--sig-proxy=false");
    wait_for("both", || {
        let sockets = sandbox.run(&["cat", "/proc/net/unix"]).ok().stdout;
        (sockets.lines().filter(|line| line.ends_with("/keep.sock")).count() >= 3).then_some(())
    });
    quiet.signal(Signal::INT);
    quiet.wait().fails(1).stderr_has("goes on");
    proxy.signal(Signal::INT);
    proxy.wait().fails(7).stdout_has("caught");
    remove(sandbox, "web");
}

fn lists(sandbox: &Sandbox) {
    start(sandbox, "on", "--memory 64m", "", "echo on; sleep 1000");
    start(sandbox, "off", "", "", "exit 3");
    sandbox.run(&["keep", "wait", "off"]).ok().stdout_is("3\n");
    sandbox.run(&["keep", "list", "--quiet"]).ok().stdout_is("off\non\n");
    sandbox.run(&["keep", "list", "--quiet", "--running"]).ok().stdout_is("on\n");
    let table = sandbox.run(&["keep", "list"]).ok().stdout;
    assert!(table.contains("exited (3)") && table.contains("running"), "{table}");
    let row = sandbox.run(&["keep", "list", "--json"]).ok().json()[0].clone();
    assert_eq!((&row["id"], &row["status"], &row["exit"]["exitCode"]), (&"off".into(), &"exited".into(), &3.into()));
    assert!(row["image"].as_str().unwrap().ends_with("busybox:latest"), "{row}");
    let stats = sandbox.run(&["keep", "stats", "--json", "on"]).ok().json()[0].clone();
    sandbox.run(&["keep", "stats", "-q", "--no-stream"]).ok().stdout_is("on\n");
    assert!(stats["memoryLimit"] == 64 << 20 && stats["memory"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    sandbox.run(&["keep", "stats", "on"]).ok().stdout_has("64.0 MiB");
    let all = sandbox.run(&["keep", "stats", "--no-stream"]).ok().stdout;
    assert!(all.contains("on ") && !all.contains("off"), "{all}");
    let both = sandbox.run(&["keep", "inspect", "on", "off"]).ok().json();
    let (on, off) = (&both[0], &both[1]);
    assert_eq!(sandbox.run(&["keep", "inspect", "off"]).ok().json().as_array().unwrap(), std::slice::from_ref(off));
    assert_eq!((&on["status"], &on["limits"]["memory"]["limit"]), (&"running".into(), &(64 << 20).into()), "{on}");
    assert_eq!(
        (&on["record"]["id"], &on["restart"], &off["exit"]["exitCode"]),
        (&"on".into(), &"no".into(), &3.into())
    );
    assert_eq!(
        sandbox.run(&["cat", on["log"]["path"].as_str().unwrap()]).ok().stdout.split(' ').next_back(),
        Some("on\n")
    );
    sandbox.run(&["keep", "inspect", "nosuch"]).fails(1).one_error_line("keep", &["nosuch"]);
    sandbox.run(&["keep", "top", "on"]).ok().stdout_has("sleep 1000");
    sandbox.run(&["keep", "top", "off"]).fails(1).one_error_line("keep", &["off", "does not run"]);
    sandbox.run(&["keep", "stats", "off"]).fails(1).one_error_line("keep", &["off", "does not run"]);
    remove(sandbox, "on");
    remove(sandbox, "off");
}

fn wrong_uses(sandbox: &Sandbox) {
    sandbox.run(&["keep"]).fails(125).one_error_line("keep", &["no record on stdin"]);
    sandbox.run(&["keep", "/no/such"]).fails(125).one_error_line("keep", &["/no/such"]);
    for verb in ["logs", "attach", "wait", "stop", "restart", "rm", "top"] {
        // What no container can be called is as unknown as what none is called.
        for id in ["nosuch", "../etc"] {
            sandbox.run(&["keep", verb, id]).fails(1).one_error_line("keep", &[id]);
            sandbox.run(&["keep", "--verbose", verb, id]).fails(1).stderr_has(id);
        }
        sandbox.run(&["keep", verb, "--bogus"]).fails(125).one_error_line("keep", &["--bogus"]);
    }
    sandbox.write("record.json", "{}");
    for verb in ["state", "start", "kill", "delete", "ps", "pause", "resume", "update", "events"] {
        sandbox.run(&["spawn", verb, "../etc"]).fails(1).one_error_line("spawn", &["../etc"]);
    }
    sandbox.run(&["keep", "--verbose", "list"]).ok();
    sandbox.run(&["bundle", "--verbose", "delete", "--force", "nosuch"]).ok();
    sandbox.sh("keep record.json").run().fails(125).one_error_line("keep", &["bundle"]);
    sandbox.run(&["keep", "--restart", "sometimes"]).fails(125).stderr_has("unless-stopped");
    for (options, words) in [
        ("--rm --restart always", ["--rm", "--restart"]),
        ("--log-driver syslog", ["syslog", "journald"]),
        ("--log-opt max-file=0", ["max-file=0", "max-size"]),
        ("--log-format xml", ["format=xml", "cri"]),
    ] {
        sandbox.sh(&format!("keep {options} <record.json")).run().fails(125).one_error_line("keep", &words);
    }
}

fn events(sandbox: &Sandbox) {
    let all = sandbox.sh("exec keep events").start();
    let one = sandbox.sh("exec keep events --json web").start();
    let busybox = image("busybox").reference;
    let run = |options: &str, command: &str| {
        sandbox.sh(&format!("run -d --network none {options} {busybox} {command}")).run().ok();
    };
    wait_for("the watch", || sandbox.exists("state/containers").then_some(()));
    run("--name web --restart on-failure:1 --health-cmd true --health-interval 100ms", "sh -c 'sleep 1; exit 3'");
    run("--name other --rm", "true");
    all.wait_stdout("destroy other");
    sandbox.run(&["keep", "wait", "web"]).ok();
    one.wait_stdout("healthy");
    wait_for("the second end", || (one.stdout().matches("\"die\"").count() == 2).then_some(()));
    sandbox.sh("until keep rm web; do :; done").run().ok();
    let seen = one.wait_stdout("destroy");
    let words = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
        format!("{} {} {}", event["event"].as_str().unwrap(), event["id"].as_str().unwrap(), event["exitCode"])
    };
    let seen: Vec<String> = seen.lines().map(words).filter(|line| !line.starts_with("health")).collect();
    let life = ["create web null", "start web null", "die web 3", "start web null", "die web 3", "destroy web null"];
    assert_eq!(seen, life);
    let (all, one) = (all, one);
    for events in [all, one] {
        events.signal(Signal::TERM);
        events.wait().fails(128 + 15);
    }
}
