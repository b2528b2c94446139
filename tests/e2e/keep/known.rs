//! What the lists say of containers, whoever has made them, and how verbs take and name them.

use serde_json::Value;

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("runc")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("all_lists_agree_on_every_container", NEEDS, agree),
        test("a_container_without_a_keeper_is_called_what_it_is", NEEDS, named),
        test("ids_may_be_cut_short", NEEDS, prefixes),
        test("one_verb_removes_what_stages_by_hand_have_made", NEEDS, removed_by_one_verb),
        test("gc_sweeps_what_ended_containers_of_pipes_have_left", NEEDS, swept),
        test("events_tell_of_containers_without_a_keeper", NEEDS, events),
    ]
}

fn pipe(id: &str, more: &str, command: &str) -> String {
    format!("pull -q {} | unpack | bundle --id {id} {more} -- {command}", image("busybox").reference)
}

/// Returns what a list says of a container.
fn status(sandbox: &Sandbox, list: &str, id: &str) -> Option<Value> {
    let rows = sandbox.sh(&format!("{list} list --json")).run().ok().json();
    rows.as_array().unwrap().iter().find(|row| row["id"] == id).cloned()
}

fn agree(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let mut behind = vec![];
    for (id, script) in [
        ("foreground", format!("run --rm --network none --name foreground {busybox} sleep 1000")),
        ("pipe", format!("{} | spawn", pipe("pipe", "--network none", "sleep 1000"))),
        ("runc", format!("run --rm --network none --runtime runc --name runc {busybox} sleep 1000")),
    ] {
        behind.push(sandbox.sh(&format!("exec {script}")).start());
        wait_for(id, || status(sandbox, "keep", id).filter(|row| row["status"] == "running"));
    }
    for script in [
        format!("{} | spawn --detach", pipe("hand", "--network none", "sleep 1000")),
        format!("run -d --network none --name kept {busybox} sleep 1000"),
        format!("run -d --network none --name paused {busybox} sleep 1000 && spawn pause paused"),
        format!("run -d --network none --restart always --name back {busybox} false"),
        format!("run --network none --name three {busybox} sh -c 'exit 3' || :"),
        format!("{} | spawn; :", pipe("five", "--network none", "sh -c 'exit 5'")),
        format!("run -d --network none --name six {busybox} sh -c 'exit 6' && keep wait six"),
        format!("{} | spawn --detach && spawn kill dead KILL", pipe("dead", "--network none", "sleep 1000")),
        pipe("fresh", "--network none", "true"),
        "mkdir state/containers/half".to_owned(),
    ] {
        sandbox.sh(&script).run().ok();
    }
    for (id, want, exit) in [
        ("foreground", "running", None),
        ("pipe", "running", None),
        ("runc", "running", None),
        ("hand", "running", None),
        ("kept", "running", None),
        ("paused", "paused", None),
        ("back", "restarting", Some(1)),
        ("three", "exited", Some(3)),
        ("five", "exited", Some(5)),
        ("six", "exited", Some(6)),
        ("dead", "exited", None),
        ("fresh", "created", None),
        ("half", "incomplete", None),
    ] {
        let row = wait_for(id, || status(sandbox, "keep", id).filter(|row| row["status"] == want));
        let image = if id == "half" { Value::Null } else { format!("{busybox}:latest").into() };
        assert_eq!((&row["exit"]["exitCode"], &row["image"]), (&serde_json::json!(exit), &image), "{row}");
        assert!(row["created"].as_str().is_some_and(|time| time.starts_with("20")), "{row}");
        let bundle = status(sandbox, "bundle", id).unwrap();
        let again = status(sandbox, "keep", id).unwrap();
        if id != "back" {
            assert_eq!((&bundle["status"], &bundle["pid"]), (&again["status"], &again["pid"]), "{id}");
        }
        assert_eq!(again["started"].is_string(), ["running", "paused"].contains(&want), "{again}");
        if again["pid"].is_number() && id != "runc" {
            let state = sandbox.run(&["spawn", "state", id]).ok().json();
            assert_eq!((&state["status"], &state["pid"]), (&again["status"], &again["pid"]), "{id}");
        }
        if again["pid"].is_number() {
            let listed = sandbox.sh(&format!("ns list -J | grep -w '\"{id}\"'")).run().stdout;
            assert!(!listed.is_empty(), "ns list has no {id}");
        }
    }
    // A terminal's lines are not longer than it is wide.
    let narrow = "script -qec 'stty cols 60; keep list' /dev/null | tr -d '\\r'";
    let table = sandbox.sh(narrow).run().ok().stdout;
    assert!(table.lines().count() == 14 && table.lines().all(|line| line.chars().count() <= 60), "{table}");
    assert!(table.contains("exited (3), ") && table.contains("running, "), "{table}");
    let pid = status(sandbox, "keep", "runc").unwrap()["pid"].clone();
    sandbox.run(&["keep", "stop", "runc"]).fails(1).one_error_line("keep", &["runc", "another runtime's"]);
    sandbox.sh(&format!("spawn resume paused; kill -KILL {pid}; keep rm -f $(keep list -q | grep -vx runc)")).run();
    for running in behind {
        running.wait();
    }
    sandbox.sh("keep rm -f $(keep list -q); run --gc").run();
    sandbox.run(&["keep", "list", "-q"]).ok().stdout_is("");
}

fn named(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let front = sandbox.sh(&format!("exec run --name front --network none {busybox} sh -c 'sleep 1000'")).start();
    wait_for("the start", || status(sandbox, "keep", "front").filter(|row| row["status"] == "running"));
    sandbox.sh(&format!("{} | spawn --detach", pipe("hand", "--network none", "sleep 1000"))).run().ok();
    sandbox.sh(&pipe("fresh", "--network none", "true")).run().ok();
    sandbox.run(&["run", "--name", "done", "--network", "none", &busybox, "sh", "-c", "exit 4"]).fails(4);
    for (verb, id, words) in [
        ("logs", "front", &["front", "foreground of process", "no log"][..]),
        ("attach", "front", &["front", "foreground of process"]),
        ("logs", "hand", &["hand", "without a keeper", "no log"]),
        ("wait", "fresh", &["fresh", "not started", "keep start fresh"]),
        ("attach", "fresh", &["fresh", "not started"]),
        ("logs", "done", &["done", "ended with code 4", "keep start done"]),
        ("attach", "done", &["done", "ended with code 4"]),
        ("top", "done", &["done", "does not run"]),
        ("stop", "nosuch", &["no container nosuch"]),
        ("wait", "nosuch", &["no container nosuch"]),
        ("restart", "nosuch", &["no container nosuch"]),
        ("logs", "nosuch", &["no container nosuch"]),
    ] {
        sandbox.run(&["keep", verb, id]).fails(1).one_error_line("keep", words);
    }
    // What ends without a keeper is waited for, too.
    sandbox.run(&["keep", "wait", "done"]).ok().stdout_is("4\n");
    let waiting = sandbox.sh("exec keep wait front").start();
    sandbox.run(&["keep", "stop", "--signal", "KILL", "--time", "18446744073709551615", "hand"]).ok();
    sandbox.run(&["keep", "stop", "-t", "0", "front", "hand", "done", "fresh"]).ok();
    front.wait().fails(137);
    waiting.wait().ok().stdout_is("137\n");
    sandbox.run(&["keep", "wait", "hand"]).fails(1).one_error_line("keep", &["hand", "exit code unknown"]);
    sandbox.run(&["keep", "rm", "front", "hand", "fresh", "done"]).ok();
}

fn prefixes(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let run = format!("run -d --network none {busybox} sh -c 'echo said; sleep 1000'");
    let id = sandbox.sh(&run).run().ok().stdout;
    // Digits alone would be a process's number to `ns`.
    let letter = id.find(|c: char| c.is_ascii_lowercase()).unwrap_or(11);
    let short = &id[..7.max(letter + 1)];
    for script in [
        "keep top ID",
        "keep stats ID",
        "keep logs ID",
        "spawn exec ID true",
        "spawn state ID",
        "spawn pause ID && spawn resume ID",
        "bundle cp ID:/etc/hostname .",
        "unpack diff ID",
        "ns show ID",
        "ns enter -t ID true",
        "keep restart -t 0 ID",
        "keep stop -t 0 ID",
        "keep start ID",
    ] {
        sandbox.sh(&script.replace("ID", short)).run().ok();
    }
    // Names are not cut short: there may be another tomorrow.
    sandbox.sh(&format!("run -d --network none --name alpha {busybox} sleep 1000")).run().ok();
    for script in ["keep stop alph", "keep rm -f alph", "bundle delete alph", "spawn kill alph KILL", "keep stop abcd"]
    {
        let outcome = sandbox.sh(script).run();
        assert!(outcome.code() != 0, "{script}: {outcome}");
    }
    sandbox.run(&["keep", "rm", "-f", short, "alpha"]).ok().stdout_is(&format!("{id}alpha\n"));
    sandbox.run(&["keep", "list", "-q"]).ok().stdout_is("");
}

/// What there is of a container anywhere.
const LEFT: &str = "ls /run/netns state/run/spawn state/run/claims state/containers 2>/dev/null | grep -v :$ | grep .
    portmap list | tail -n +2; ip -o link | grep -v ' lo:'";

fn removed_by_one_verb(sandbox: &Sandbox) {
    let made = |id: &str| {
        format!("{} | ns add | portmap -p 8090:80 | spawn --detach", pipe(id, "-v /data -v named:/named", "sleep 1000"))
    };
    for end in [
        "spawn kill hand KILL; while keep list -q --running | grep -q hand; do :; done; keep rm hand",
        "keep rm -fv hand",
        "keep rm -f --volumes hand",
        "spawn delete -f hand; keep rm hand",
    ] {
        sandbox.sh(&made("hand")).run().ok();
        sandbox.sh(&format!("({end}) | grep -x hand")).run().ok();
        wait_for("the end of all", || sandbox.sh(LEFT).run().stdout.is_empty().then_some(()));
    }
    // A volume with a name is not its own.
    sandbox.sh("ls state/volumes; rm -r state/volumes").run().ok().stdout_is("named\n");
    // Also what was never started, and what is only a state.
    sandbox.sh(&format!("{} | ns add | portmap -p 8090:80", pipe("hand", "", "true"))).run().ok();
    sandbox.run(&["keep", "rm", "hand"]).ok();
    sandbox.sh(&format!("{} && cp -r state/containers/own own", pipe("own", "--network none", "true"))).run().ok();
    sandbox.run(&["keep", "rm", "own"]).ok();
    wait_for("the end of all", || sandbox.sh(LEFT).run().stdout.is_empty().then_some(()));
}

fn swept(sandbox: &Sandbox) {
    let made = |id: &str| format!("{} | ns add | portmap -p 8090:80 | spawn", pipe(id, "", "sleep 1000"));
    // The port of one that has ended is the next one's.
    sandbox.sh(&format!("{} --detach", made("first"))).run().ok();
    sandbox.sh(&format!("{} --detach", made("second"))).run().stderr_has("first");
    sandbox.sh("spawn kill first KILL; keep rm -f second").run().ok();
    sandbox.sh(&format!("{} --detach", made("third"))).run().ok();
    sandbox.run(&["spawn", "kill", "third", "KILL"]).ok();
    sandbox.sh("run --gc | sort").run().ok().stdout_is("first\nthird\n");
    sandbox.run(&["run", "--gc"]).ok().stdout_is("");
    sandbox.sh("ls state/containers").run().ok().stdout_is("first\nthird\n");
    sandbox.run(&["keep", "rm", "first", "third"]).ok();
    // A spawn that is killed with its container, and one that runs.
    let running = sandbox.sh(&format!("exec {}", made("on"))).start();
    wait_for("the start", || status(sandbox, "keep", "on").filter(|row| row["status"] == "running"));
    sandbox.run(&["run", "--gc"]).ok().stdout_is("");
    sandbox.sh("pkill -KILL -x spawn").run().ok();
    running.wait();
    wait_for("the end", || status(sandbox, "keep", "on").filter(|row| row["status"] == "exited"));
    // What a killed removal has left has no claim.
    sandbox.sh("mkdir -p state/containers/.removed-gone-1/upper").run().ok();
    sandbox.run(&["run", "--gc"]).ok().stdout_is("on\n");
    sandbox.sh("ls -A state/containers").run().ok().stdout_is("on\n");
    sandbox.run(&["keep", "rm", "on"]).ok();
    wait_for("the end of all", || sandbox.sh(LEFT).run().stdout.is_empty().then_some(()));
}

fn events(sandbox: &Sandbox) {
    let all = sandbox.sh("exec keep events").start();
    wait_for("the watch", || {
        sandbox.sh("grep -l inotify /proc/[0-9]*/fdinfo/* 2>/dev/null").run().stdout.contains('/').then_some(())
    });
    sandbox.sh(&format!("{} | spawn", pipe("hand", "--network none", "sh -c 'exit 9'"))).run().fails(9);
    all.wait_stdout("create hand");
    all.wait_stdout("start hand pid=");
    all.wait_stdout("die hand exitCode=9");
    sandbox.run(&["keep", "rm", "hand"]).ok();
    all.wait_stdout("destroy hand");
    all.signal(rustix::process::Signal::TERM);
    all.wait();
}
