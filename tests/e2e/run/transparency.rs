//! What a run shows of itself: the script, the plan, the folder of all that it makes, and the trace.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{PIPELINE, busybox};
use crate::support::{Need, Sandbox, Test, image, source, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_trace_tells_what_every_program_did", TRACED, traced),
        test("a_trace_ends_with_the_run_in_the_background_too", TRACED, traced_background),
        test("a_pipe_by_hand_is_traced_by_the_environment", TRACED, traced_by_hand),
        test("a_trace_that_cannot_be_written_is_told", PIPELINE, untraced),
        test("a_dry_run_checks_every_stage_and_does_nothing", PIPELINE, dry_run),
        test("a_folder_keeps_all_that_a_run_makes", PIPELINE, folder),
        test("printed_and_executed_it_is_the_same_for_many_options", PIPELINE, property),
        test("printed_and_executed_it_is_the_same_in_the_background", PIPELINE, property_background),
    ]
}

const TRACED: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("python3")];

fn events(sandbox: &Sandbox, file: &str) -> Vec<Value> {
    serde_json::from_str(&sandbox.read(file)).unwrap()
}

fn names<'a>(events: &'a [Value], phase: &str, name: impl Fn(&'a Value) -> &'a Value) -> BTreeSet<&'a str> {
    events.iter().filter(|event| event["ph"] == phase).filter_map(|event| name(event).as_str()).collect()
}

fn programs(events: &[Value]) -> BTreeSet<&str> {
    let named: Vec<_> = events.iter().filter(|event| event["name"] == "process_name").collect();
    named.into_iter().filter_map(|event| event["args"]["name"].as_str()).collect()
}

/// In every thread, what was begun later ends earlier.
fn assert_nested(events: &[Value]) {
    let number = |event: &Value, member: &str| event[member].as_f64().unwrap();
    let mut spans: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    spans.sort_by(|one, other| {
        let key =
            |event: &Value| (number(event, "pid"), number(event, "tid"), number(event, "ts"), -number(event, "dur"));
        key(one).partial_cmp(&key(other)).unwrap()
    });
    let mut open: Vec<&Value> = Vec::new();
    for span in spans {
        let end = |event: &Value| number(event, "ts") + number(event, "dur");
        let over = |outer: &&Value| {
            (&outer["pid"], &outer["tid"]) != (&span["pid"], &span["tid"]) || end(outer) <= number(span, "ts")
        };
        while open.last().is_some_and(over) {
            open.pop();
        }
        // The times have nanoseconds, their sums a little less.
        assert!(open.last().is_none_or(|outer| end(span) <= end(outer) + 0.01), "{span} outlives {}", open[0]);
        open.push(span);
    }
}

fn traced(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run --trace trace.json --rm -p 8080:80 {nginx} nginx -v")).run().ok();
    let events = events(sandbox, "trace.json");
    assert_nested(&events);
    let all = ["bundle", "ns", "portmap", "pull", "run", "spawn", "unpack"];
    assert_eq!(programs(&events), BTreeSet::from(all));
    let done = names(&events, "X", |event| &event["name"]);
    for name in ["download", "digest", "inflate", "extract", "make the overlay", "mount", "clone3", "netlink", "undo"] {
        assert!(done.contains(name), "no {name} in {done:?}");
    }
    let of = names(&events, "X", |event| &event["args"]["of"]);
    for object in ["RTM_NEWLINK", "/proc", "portmap del web", "pull --policy missing"] {
        assert!(object == "portmap del web" || of.iter().any(|of| of.contains(object)), "no {object} in {of:?}");
    }
    assert!(names(&events, "M", |event| &event["args"]["name"]).contains("container"));
    // Every program says what it has used.
    let used = |event: &&Value| event["args"]["cpu"].as_u64() > Some(0) && event["args"]["faults"].as_u64() > Some(20);
    let processes = events.iter().filter(|event| event["name"] == "process_name").count();
    assert_eq!(events.iter().filter(used).count(), processes);
    // Everything happens within the run.
    let whole = events.iter().find(|event| event["name"] == "run" && event["ph"] == "X").unwrap();
    let begin = |event: &Value| event["ts"].as_f64().unwrap();
    let end = |event: &Value| begin(event) + event["dur"].as_f64().unwrap();
    let within = |event: &&Value| begin(event) >= begin(whole) && end(event) <= end(whole);
    assert!(events.iter().filter(|event| event["ph"] == "X").all(|event| within(&event)));
    let draw = source().join("docs/draw-trace");
    let picture = sandbox.sh(&format!("python3 {} trace.json", draw.display())).run().ok().stdout;
    assert!(picture.starts_with("<svg") && picture.contains(">unpack<") && picture.trim_end().ends_with("</svg>"));
}

fn traced_background(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let run = format!("run --trace trace.json -d --restart always --name up --network none {busybox} sleep 100");
    sandbox.sh(&run).run().ok();
    let before = sandbox.read("trace.json");
    assert!(programs(&events(sandbox, "trace.json")).is_superset(&BTreeSet::from(["keep", "keep-keeper", "spawn"])));
    sandbox.run(&["keep", "restart", "up"]).ok();
    sandbox.run(&["keep", "rm", "--force", "up"]).ok();
    assert_eq!(sandbox.read("trace.json"), before);
}

fn traced_by_hand(sandbox: &Sandbox) {
    let stages =
        format!("pull {} | unpack | bundle --id hand --network none -- true | spawn", image("busybox").reference);
    sandbox.sh(&format!("export DRAYAGE_TRACE=trace.json; {stages}; bundle delete hand")).run().ok();
    let text = sandbox.read("trace.json");
    assert!(text.starts_with("[\n{"));
    let events: Vec<Value> = serde_json::from_str(&format!("{}]", text.trim_end().trim_end_matches(','))).unwrap();
    assert_nested(&events);
    assert_eq!(programs(&events), BTreeSet::from(["bundle", "pull", "spawn", "unpack"]));
}

fn untraced(sandbox: &Sandbox) {
    sandbox.sh(&busybox("--trace no/such/file", "true")).run().fails(125).one_error_line("run", &["no/such/file"]);
    assert!(!sandbox.exists("state/containers") || sandbox.sh("ls state/containers").run().stdout.is_empty());
    let run = sandbox.sh(&format!("DRAYAGE_TRACE=no/such/file {}", busybox("", "echo done"))).run();
    run.ok().stdout_is("done\n").stderr_has("no trace");
}

fn dry_run(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let plan = sandbox.sh(&format!("run --dry-run --rm --name web -p 8080:80 {nginx}")).run().ok().stdout;
    let tools: Vec<&str> = plan.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(tools.join(" "), "pull unpack bundle ns portmap spawn undo: undo: undo: undo:");
    for (options, words) in [
        ("-v :/x", ["bundle", "/x"]),
        ("-p 70000:80", ["portmap", "70000"]),
        ("--memory much", ["bundle", "much"]),
        ("--platform x/y/z/w", ["pull", "x/y/z/w"]),
    ] {
        let wrong = sandbox.sh(&format!("run --dry-run {options} {nginx}")).run();
        wrong.fails(125).one_error_line("run", &words);
    }
    // A root file system would be enough to make a bundle of.
    sandbox.sh("mkdir tree; run --dry-run --name tree --network none --rootfs tree true").run().ok();
    for made in ["state/containers", "state/oci", "state/layers", "state/run/claims", "/run/netns/web"] {
        assert!(!sandbox.exists(made), "{made}");
    }
}

fn folder(sandbox: &Sandbox) {
    let command = format!("run --keep all --rm --name web -p 8080:80 {} nginx -v", image("nginx").reference);
    let run = sandbox.sh(&command).run().ok();
    run.stderr_has("nginx");
    let members = |file: &str| {
        let record: Value = serde_json::from_str(&sandbox.read(file)).unwrap();
        record.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    for (file, want) in [
        ("all/1-pull.json", "image"),
        ("all/2-unpack.json", "image rootfs"),
        ("all/3-bundle.json", "image rootfs bundle id owner"),
        ("all/4-ns.json", "image rootfs bundle id owner networkOptions network"),
        ("all/5-portmap.json", "image rootfs bundle id owner networkOptions network portOptions ports"),
    ] {
        assert_eq!(members(file), want, "{file}");
    }
    for file in ["all/containers/web/config.json", "all/oci/index.json", "all/layers/sha256", "all/trace.json"] {
        assert!(sandbox.exists(file), "{file}");
    }
    assert!(!sandbox.exists("state/oci"));
    // What is left can be started again, by the script as well.
    sandbox
        .sh("bundle mount --root all web | ns add | spawn --root all/run/spawn; ns del web")
        .run()
        .ok()
        .stderr_has("nginx");
    sandbox.run(&["bundle", "delete", "--root", "all", "web"]).ok();
    sandbox.sh("rm all/4-ns.json; sh all/run.sh").run().ok().stderr_has("nginx");
    assert!(sandbox.exists("all/4-ns.json"));
    sandbox.run(&["bundle", "delete", "--root", "all", "web"]).ok();
}

/// Numbers that look random and are the same each time, as a failure has to be seen again.
struct Choice(u64);

impl Choice {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Options that go together in every choice; the first of each line is none.
const POOL: &[&[&str]] = &[
    &["", "--network none", "--network host", "-p 8080:80", "-P --network-alias other", "--ip 10.213.9.9"],
    &["", "-e A=1 -e \"B=x y'z\" -e 'C=$HOME'", "--env-file file.env"],
    &["", "-w /tmp", "--workdir=/made/for/it"],
    &["", "-u 7:8", "-u 7 --group-add 9", "--user root"],
    &["", "-h other", "--add-host db:10.1.2.3 --dns 9.9.9.9 --dns-search inner"],
    &["", "--read-only", "--read-only --tmpfs /t:size=1m", "--shm-size 8m"],
    &["", "-v vol:/data", "-v \"$PWD/shared\":/mnt:ro", "--mount type=bind,src=\"$PWD/shared\",dst=/mnt"],
    &["", "--memory 64m --pids-limit 50", "--ulimit nofile=100:100", "--oom-score-adj 100"],
    &["", "--cap-drop ALL", "--cap-add NET_ADMIN", "--privileged", "--security-opt no-new-privileges"],
    &["", "--init", "--entrypoint ''", "--sysctl net.ipv4.ip_default_ttl=33", "--label a=b"],
    &["", "-i", "-a stdin", "-a stdout", "--timeout 60 -q", "--log-driver json-file", "-i --log-driver file"],
    &["", "--rm", "--rm --pull always", "--cidfile cid"],
];

/// Prints what a container can see of its configuration.
const LOOK: &str = r#"sh -c 'id; pwd; env | sort; hostname; ulimit -n; ls /sys/class/net | grep -v drayage0; cat /etc/hosts /etc/resolv.conf
    grep -E "Cap|NoNew|Seccomp:" /proc/self/status; sed "s/^[^/]* [^ ]* //; s/ - .*//" /proc/self/mountinfo | cut -d" " -f1,2 | sort
    cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_default_ttl; ls /data /mnt; cat; echo last >&2; exit 7'"#;

fn choose(choice: &mut Choice) -> String {
    let options = POOL.iter().map(|line| if choice.below(2) == 0 { line[0] } else { line[choice.below(line.len())] });
    options.filter(|option| !option.is_empty()).collect::<Vec<_>>().join(" ")
}

fn property(sandbox: &Sandbox) {
    sandbox.write("shared/file", "from the host\n");
    sandbox.write("file.env", "FROM=file\nEMPTY=\n");
    sandbox.sh(&busybox("", "true")).run().ok();
    let mut choice = Choice(6);
    for _ in 0..40 {
        let options = choose(&mut choice);
        let run = |print: &str| format!("run {print} --name same {options} {} {LOOK}", image("busybox").reference);
        let after = "rm -rf cid; bundle delete --force same";
        let direct = sandbox.sh(&format!("{}; code=$?; {after}; exit $code", run(""))).stdin("typed\n").run();
        let script = sandbox.sh(&run("--print")).run().ok().stdout;
        sandbox.write("script", &script);
        let printed =
            sandbox.sh(&format!("sh -c \"$(cat script)\"; code=$?; {after}; exit $code")).stdin("typed\n").run();
        assert_eq!(direct.code(), 7, "{direct}");
        let outcome = |of: &crate::support::Outcome| (of.code(), of.stdout.clone(), of.stderr.clone());
        assert_eq!(outcome(&printed), outcome(&direct), "{options}\n{script}");
    }
}

/// Reads a keeper's job; a container that is made again has another owner.
fn without_owner(text: &str) -> Value {
    let job: Value = serde_json::from_str(text).unwrap();
    let owner = job["record"]["owner"].as_str().unwrap();
    let bytes = owner.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",");
    assert!(text.contains(&bytes), "{text}");
    serde_json::from_str(&text.replace(&bytes, "0").replace(owner, "")).unwrap()
}

fn property_background(sandbox: &Sandbox) {
    for options in ["", "--rm", "-i", "--log-driver json-file --restart on-failure:1", "-t -p 8080:80", "--replace"] {
        let run = |print: &str| {
            let image = image("busybox").reference;
            format!("run {print} -d --name same {options} {image} sh -c 'echo said; sleep 1; exit 3'")
        };
        let states = [run(""), format!("sh -c \"$({})\"", run("--print"))].map(|run| {
            let outcome = sandbox.sh(&run).run().ok();
            let job = without_owner(&sandbox.read("state/containers/same/keep.json"));
            let mut seen = (outcome.stdout, sandbox.run(&["keep", "wait", "same"]).ok().stdout, job);
            wait_for("its end", || {
                let list = sandbox.sh("keep list --running --quiet").run().stdout;
                list.is_empty().then_some(())
            });
            // Addresses differ where the last one is still held.
            seen.2["record"]["network"] = Value::Null;
            sandbox.sh("keep rm --force same; bundle delete --force same").run();
            seen
        });
        assert_eq!(states[0], states[1], "{options}");
    }
}
