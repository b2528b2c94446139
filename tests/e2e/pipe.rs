//! The stages in one pipe, and what happens when one of them is used wrongly, fails, or is killed.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Need, Sandbox, Test, differences, image, test, wait_for};

const PIPE: &[Need] = &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft];
const IMAGES: &[Need] = &[Need::Registry, Need::Overlay];
const ROOT: &[Need] = &[Need::Root];
/// Each stage after the first, with what makes its command line complete.
const STAGES: [(&str, &[&str]); 5] =
    [("unpack", &[]), ("bundle", &[]), ("ns", &["add"]), ("portmap", &["-p", "8080:80"]), ("spawn", &[])];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("six_stages_serve_nginx", PIPE, six_stages_serve_nginx),
        test("the_last_stage_undoes_the_others", PIPE, typed_again),
        test("each_stage_prints_one_record_and_nothing_else", PIPE, one_record_each),
        test("stdout_of_a_foreground_spawn_is_the_containers", IMAGES, stdout_is_the_containers),
        test("a_container_in_a_pipe_reads_end_of_file", IMAGES, reads_end_of_file),
        test("a_stage_fed_garbage_is_wrong_usage", ROOT, fed_garbage),
        test("a_stage_fed_nothing_says_so", ROOT, fed_nothing),
        test("a_failed_stage_ends_the_pipe_with_its_cause_first", IMAGES, failed_stage),
        test("an_unknown_image_is_one_error_line", IMAGES, unknown_image),
        test("an_absent_registry_is_one_error_line", ROOT, absent_registry),
        test("a_wrong_digest_is_one_error_line", IMAGES, wrong_digest),
        test("a_damaged_layer_is_refused_and_not_kept", IMAGES, damaged_layer),
        test("who_is_not_root_is_told_so_in_one_line", IMAGES, not_root),
        test("a_taken_port_is_one_error_line", PIPE, taken_port),
        test("a_taken_name_is_one_error_line", IMAGES, taken_name),
        test("a_full_disk_leaves_no_blob_and_no_layer", IMAGES, full_disk),
        test("ctrl_c_ends_run_and_leaves_nothing", PIPE, |it| end_of_run(it, Signal::INT)),
        test("sigterm_ends_run_and_leaves_nothing", PIPE, |it| end_of_run(it, Signal::TERM)),
        test("kill_9_of_run_leaves_nothing", PIPE, kill_9_of_run),
    ];
    for signal in ["INT", "KILL"] {
        for stage in ["pull", "unpack", "bundle", "ns", "portmap"] {
            let fact = format!("{}_of_{stage}_leaves_nothing_in_the_way", signal.to_lowercase());
            tests.push(test(&fact, PIPE, move |it| interrupted(it, signal, stage)));
        }
    }
    tests
}

fn six_stages_serve_nginx(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let typed = format!("pull {nginx} | unpack | bundle --id web | ns add | portmap -p 8080:80 | spawn");
    let pipe = sandbox.sh(&typed).start();
    let page = sandbox.wait_http("127.0.0.1:8080/");
    assert!(page.contains("hello from nginx"), "{page}");
    sandbox.run(&["spawn", "kill", "web", "QUIT"]).ok();
    pipe.wait().ok();
    for undo in [["portmap", "del", "web"], ["ns", "del", "web"], ["bundle", "delete", "web"]] {
        sandbox.run(&undo).ok().stdout_is("").stderr_is("");
    }
}

/// Typed, ended by control-C, typed again: `spawn` undoes what lasts as long as a run, and with `--rm` the bundle.
fn typed_again(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let left = "ls /run/netns 2>/dev/null; portmap list | tail -n +2; ip -o link | grep -v ' lo:'; ls state/containers";
    for (round, rm) in ["", "", " --rm", " --rm"].into_iter().enumerate() {
        let typed = format!("pull {nginx} | unpack | bundle | ns add | portmap -p 8080:80 | spawn{rm}");
        let pipe = sandbox.sh(&typed).start();
        sandbox.wait_http("127.0.0.1:8080/");
        pipe.signal_group(Signal::INT);
        pipe.wait();
        // The bridge goes by and by.
        let bundles = if rm.is_empty() { round + 1 } else { 2 };
        wait_for(&typed, || (sandbox.sh(left).run().stdout.lines().count() == bundles).then_some(()));
    }
    // Also where the container cannot be started; its exit code stays.
    let pull = format!("pull {} | unpack", image("busybox").reference);
    let typed = format!("{pull} | bundle --id web -- nosuch | ns add | portmap -p 8080:80 | spawn --rm");
    sandbox.sh(&typed).run().fails(127).one_error_line("spawn", &["nosuch"]);
    wait_for("the end of all", || (sandbox.sh(left).run().stdout.lines().count() == 2).then_some(()));
    sandbox.sh(&format!("{pull} | bundle --id web -- true >record")).run().ok();
    sandbox.sh("spawn --rm state/containers/web").run().fails(125).one_error_line("spawn", &["--rm", "record"]);
    sandbox.run(&["spawn", "--rm", "record"]).ok();
    sandbox.sh("keep rm $(keep list -q); ls state/containers").run().ok();
}

fn one_record_each(sandbox: &Sandbox) {
    let pull = sandbox.run(&["pull", &image("nginx").reference]).ok().stderr_is("");
    let mut record = pull.stdout;
    let mut members = 1;
    for stage in [
        &["unpack"][..],
        &["bundle", "--id", "web"],
        &["ns", "add"],
        &["portmap", "-p", "8080:80"],
        &["spawn", "--detach"],
    ] {
        let grown = sandbox.cmd(stage).stdin(record.clone()).run().ok().stderr_is("");
        assert_eq!(grown.stdout.matches('\n').count(), 1, "one line: {grown}");
        let (before, after): (Value, Value) = (serde_json::from_str(&record).unwrap(), grown.json());
        for (member, value) in before.as_object().expect("an object") {
            assert_eq!(&after[member], value, "{member} of {grown}");
        }
        let count = after.as_object().map_or(0, serde_json::Map::len);
        assert!(count > members, "a member more: {grown}");
        (record, members) = (grown.stdout, count);
    }
    sandbox.run(&["spawn", "delete", "--force", "web"]).ok();
    sandbox.run(&["portmap", "del", "web"]).ok();
    sandbox.run(&["ns", "del", "web"]).ok();
    sandbox.run(&["bundle", "delete", "web"]).ok();
}

/// Runs a command of busybox in a pipe and removes the bundle.
fn in_a_container(sandbox: &Sandbox, command: &str) -> crate::support::Outcome {
    let pull = format!("pull {}", image("busybox").reference);
    let bundle = format!("bundle --id e2e-pipe --network none -- {command}");
    let outcome = sandbox.pipe(&[&pull, "unpack", &bundle, "spawn"]);
    sandbox.run(&["bundle", "delete", "e2e-pipe"]).ok();
    outcome
}

fn stdout_is_the_containers(sandbox: &Sandbox) {
    in_a_container(sandbox, "echo data").ok().stdout_is("data\n").stderr_is("");
    in_a_container(sandbox, "sh -c 'exit 7'").fails(7).stdout_is("").stderr_is("");
}

fn reads_end_of_file(sandbox: &Sandbox) {
    in_a_container(sandbox, "cat").ok().stdout_is("").stderr_is("");
}

fn fed_garbage(sandbox: &Sandbox) {
    for (tool, arguments) in STAGES {
        let code = if tool == "spawn" { 125 } else { 2 };
        for garbage in ["garbage\n", "[]\n", "{\"image\":\n", "{}\n", "\u{0}\u{1}\n"] {
            let command = [&[tool][..], arguments].concat();
            sandbox.cmd(&command).stdin(garbage).run().fails(code).one_error_line(tool, &["record"]);
        }
    }
}

fn fed_nothing(sandbox: &Sandbox) {
    for (tool, arguments) in STAGES {
        let code = if tool == "spawn" { 125 } else { 1 };
        let command = [&[tool][..], arguments].concat();
        sandbox.run(&command).fails(code).stdout_is("").stderr_is(&format!("{tool}: no record on stdin\n"));
    }
}

fn failed_stage(sandbox: &Sandbox) {
    let outcome = sandbox.pipe(&["pull 127.0.0.1:5000/no/such", "unpack", "bundle", "spawn"]).fails(125);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{outcome}");
    assert!(lines[0].starts_with("pull: ") && lines[0].contains("no/such"), "{outcome}");
    assert_eq!(lines[3], "spawn: no record on stdin");
}

fn unknown_image(sandbox: &Sandbox) {
    sandbox.run(&["pull", "127.0.0.1:5000/no/such"]).fails(1).one_error_line("pull", &["no/such"]);
    let busybox = image("busybox").reference;
    sandbox.run(&["pull", &format!("{busybox}:nope")]).fails(1).one_error_line("pull", &["busybox:nope"]);
    sandbox.run(&["run", "--rm", "127.0.0.1:5000/no/such"]).fails(125).stdout_is("").stderr_has("no/such");
}

fn absent_registry(sandbox: &Sandbox) {
    sandbox.run(&["pull", "127.0.0.1:1/x"]).fails(1).one_error_line("pull", &["127.0.0.1:1", "refused"]);
}

fn wrong_digest(sandbox: &Sandbox) {
    let reference = format!("{}@sha256:{}", image("busybox").reference, "0".repeat(64));
    sandbox.run(&["pull", &reference]).fails(1).one_error_line("pull", &["sha256:000000"]);
    sandbox.run(&["pull", "127.0.0.1:5000/busybox@sha256:abc"]).fails(2).stdout_is("").stderr_has("sha256:abc");
}

fn damaged_layer(sandbox: &Sandbox) {
    let layout = image("busybox").layout.display().to_string();
    let damage = "set -e; cp -r \"$1\" layout; big=$(ls -S layout/blobs/sha256/* | head -n 1)
        printf X | dd of=\"$big\" bs=1 seek=5000 conv=notrunc status=none";
    sandbox.run(&["sh", "-c", damage, "sh", &layout]).ok();
    for form in [&["unpack", "layout"][..], &["unpack", "layout", "--flat", "flat"]] {
        sandbox.run(form).fails(1).one_error_line("unpack", &["sha256:"]);
    }
    assert_no_layers(sandbox, "state");
    sandbox.sh("[ ! -e flat ] || [ -z \"$(ls -A flat)\" ]").run().ok();
    // Its manifest is sound, so the record has gone out; the layer is refused after it.
    let pull = sandbox.run(&["pull", "oci:layout", "--layout", "copy"]).fails(1);
    assert!(pull.stderr.starts_with("pull: ") && pull.stderr.contains("sha256:"), "{pull}");
    sandbox
        .run(&["sh", "-c", "cd copy/blobs/sha256; for f in *; do echo \"$f  $f\"; done | sha256sum --check --quiet"])
        .ok();
}

#[track_caller]
fn assert_no_layers(sandbox: &Sandbox, root: &str) {
    let script = format!("ls {root}/layers/sha256 2>/dev/null | grep -xE '[0-9a-f]{{64}}'; true");
    sandbox.sh(&script).run().ok().stdout_is("");
}

fn not_root(sandbox: &Sandbox) {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "env"];
    sandbox.sh("mkdir -m 777 nobody; chmod 755 .").run().ok();
    let home = format!("HOME={}", sandbox.at("nobody"));
    let root = format!("DRAYAGE_ROOT={}", sandbox.at("nobody/state"));
    let busybox = image("busybox").reference;
    let as_nobody = |command: &[&str], record: &str| {
        let command = [&nobody[..], &[&home, &root], command].concat();
        sandbox.cmd(&command).stdin(record).run()
    };
    // Fetching needs no privilege; layers with owners, mounts and networks do.
    let record = as_nobody(&["pull", &busybox], "").ok().stdout;
    as_nobody(&["ns", "add"], r#"{"id":"x","bundle":"/nonexistent"}"#).fails(1).one_error_line("ns", &[]);
    as_nobody(&["unpack"], &record).fails(1).one_error_line("unpack", &[]);
    // `run` makes him root of a namespace, where the one id that he has is enough for an image of root's files.
    as_nobody(&["run", "--rm", "--network", "none", &busybox, "id", "-u"], "").ok().stdout_is("0\n");
    as_nobody(&["run", "--rm", &image("debian").reference, "true"], "")
        .fails(125)
        .one_error_line("unpack", &["/etc/subuid"]);
}

fn taken_port(sandbox: &Sandbox) {
    let own = std::env::current_exe().expect("own executable").display().to_string();
    let listener = sandbox.cmd(&[&own, "--listen", "0.0.0.0:8080"]).start();
    listener.wait_stdout("listening");
    let outcome = sandbox.run(&["run", "--rm", "-p", "8080:80", &image("nginx").reference]).fails(125);
    outcome.stdout_is("").stderr_has("8080").stderr_has("portmap: ");
}

fn taken_name(sandbox: &Sandbox) {
    let pull = format!("pull {}", image("busybox").reference);
    sandbox.pipe(&[&pull, "unpack", "tee record.json", "bundle --id e2e-taken"]).ok();
    sandbox.run(&["bundle", "--id", "e2e-taken", "record.json"]).fails(1).one_error_line("bundle", &["e2e-taken"]);
    // The one that has the name is unharmed.
    assert!(sandbox.exists("state/containers/e2e-taken/config.json"));
    sandbox.run(&["bundle", "delete", "e2e-taken"]).ok();
}

fn full_disk(sandbox: &Sandbox) {
    sandbox.sh("mkdir small && mount -t tmpfs -o size=2m small small").run().ok();
    let nginx = image("nginx");
    let pull = sandbox.run(&["pull", "--layout", "small/oci", &nginx.reference]).fails(1);
    assert!(pull.stderr.contains("No space left on device"), "{pull}");
    // Whatever has a blob's name is that blob.
    let verify =
        "cd small/oci/blobs/sha256 2>/dev/null || exit 0; for f in *; do [ ! -e $f ] || echo \"$f  $f\"; done |
        sha256sum --check --quiet";
    sandbox.sh(verify).run().ok();
    sandbox.sh("rm -rf small/*").run().ok();
    let layout = nginx.layout.display().to_string();
    let outcome = sandbox.run(&["unpack", "--root", "small", &layout]).fails(1);
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
    outcome.one_error_line("unpack", &[]);
    // Layers that were whole may stay; none is taken for whole that is not.
    sandbox.sh("mount -o remount,size=1g small").run().ok();
    let again = sandbox.run(&["unpack", "--root", "small", &layout]).ok().json();
    let fresh = sandbox.run(&["unpack", &layout]).ok().json();
    let layers =
        |record: &Value| -> Vec<String> { serde_json::from_value(record["rootfs"]["layers"].clone()).unwrap() };
    for (one, other) in layers(&again).iter().zip(&layers(&fresh)) {
        let found = differences(&sandbox.outside(one), &sandbox.outside(other), true);
        assert!(found.is_empty(), "{found:?}");
    }
    sandbox.run(&["umount", "small"]).ok();
}

fn end_of_run(sandbox: &Sandbox, signal: Signal) {
    let run = sandbox.cmd(&["run", "--rm", "--name", "web", "-p", "8080:80", &image("nginx").reference]).start();
    sandbox.wait_http("127.0.0.1:8080/");
    if signal == Signal::INT {
        run.signal_group(signal);
    } else {
        run.signal(signal);
    }
    run.wait();
    assert!(sandbox.http_get("127.0.0.1:8080/").is_none());
    assert!(!sandbox.exists("state/containers/web"));
}

fn kill_9_of_run(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let run = sandbox.cmd(&["run", "--rm", "--name", "web", "-p", "8080:80", &nginx]).start();
    sandbox.wait_http("127.0.0.1:8080/");
    run.signal(Signal::KILL);
    run.wait().fails(128 + 9);
    // Nothing is left (the harness looks), and nothing is in the way of the next.
    sandbox.wait_gone("127.0.0.1:8080/");
    wait_for("the guard's undoing", || (!sandbox.exists("state/containers/web")).then_some(()));
    let again = sandbox.cmd(&["run", "--rm", "--name", "web", "-p", "8080:80", &nginx]).start();
    sandbox.wait_http("127.0.0.1:8080/");
    again.signal(Signal::TERM);
    again.wait();
}

/// Ends one stage by a signal at several moments. Interrupted, a stage that did not finish undoes itself; killed, it may
/// leave what its own undoing or the next run removes. Either way the same pipe works right after.
fn interrupted(sandbox: &Sandbox, signal: &str, stage: &str) {
    let stages = [
        ("pull", format!("pull {}", image("nginx").reference), ":"),
        ("unpack", "unpack".to_owned(), ":"),
        ("bundle", "bundle --id e2e-cut -- true".to_owned(), "bundle delete e2e-cut"),
        ("ns", "ns add".to_owned(), "ns del e2e-cut"),
        ("portmap", "portmap -p 8080:80".to_owned(), "portmap del e2e-cut"),
    ];
    let at = stages.iter().position(|(name, ..)| *name == stage).expect("a stage");
    let (_, command, undo) = &stages[at];
    let undo_all = |upto: usize| {
        let undoing: Vec<&str> = stages[..upto].iter().rev().map(|(.., undo)| *undo).collect();
        sandbox.sh(&format!("set -e; {}", undoing.join("; "))).run().ok();
    };
    for moment in ["0.002", "0.01", "0.03", "0.1", "0.3"] {
        let mut before = "true".to_owned();
        for (_, command, _) in &stages[..at] {
            before = if before == "true" { command.clone() } else { format!("{before} | {command}") };
        }
        sandbox.sh(&format!("{before} >record")).run().ok();
        let tolerance = if signal == "KILL" { format!("{undo} 2>/dev/null || true") } else { ":".to_owned() };
        let script = format!(
            "if timeout --preserve-status -s {signal} {moment} {command} <record >out; then {undo}; else {tolerance}; fi"
        );
        sandbox.sh(&script).run().ok();
        undo_all(at);
    }
    let whole = stages.iter().map(|(_, command, _)| command.clone()).collect::<Vec<_>>().join(" | ");
    sandbox.sh(&format!("{whole} | spawn")).run().ok();
    undo_all(stages.len());
    let leftovers = "find state -name '*.tmp*' -o -path '*/ingest/*' | head";
    sandbox.sh(leftovers).run().ok().stdout_is("");
}
