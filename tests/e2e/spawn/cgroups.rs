//! Control groups, in each of the three layouts: v1 alone, cgroup2 alone, and both side by side.

use serde_json::{Value, json};

use super::{bundle, run, spawn};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const ANY: &[Need] = &[Need::Root, Need::Program("busybox")];
const UNIFIED: &[Need] = &[Need::Root, Need::Program("busybox"), Need::UnifiedCgroups];
const HUGE_PAGES: &[Need] =
    &[Need::Root, Need::Program("busybox"), Need::UnifiedCgroups, Need::UnifiedController("hugetlb")];
const LEGACY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::LegacyCgroups];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("cgroup_paths_count_from_the_root_or_the_caller_on_v1", LEGACY, paths),
        test("cgroup_paths_count_from_the_root_or_the_caller_on_v2", UNIFIED, paths),
        test("cgroup_paths_count_from_the_root_or_the_caller_on_hybrid", ANY, paths),
        test("a_killed_frozen_container_is_dead_on_v1", LEGACY, frozen),
        test("a_killed_frozen_container_is_dead_on_v2", UNIFIED, frozen),
        test("a_frozen_cgroup_that_was_there_is_refused_and_kept_on_v1", LEGACY, frozen_before),
        test("a_frozen_cgroup_that_was_there_is_refused_and_kept_on_v2", UNIFIED, frozen_before),
        test("a_cpuset_that_its_maker_left_empty_is_filled", LEGACY, empty_cpuset),
        test("what_was_never_finished_ends_nobody_in_its_cgroups", ANY, unfinished),
        test("kill_all_reaches_every_process_on_v1", LEGACY, kill_all),
        test("kill_all_reaches_every_process_on_v2", UNIFIED, kill_all),
        test("device_rules_hold_and_change_on_v1", LEGACY, devices),
        test("device_rules_hold_and_change_on_v2", UNIFIED, devices),
        test("a_limit_without_its_controller_is_one_error_line_on_v2", UNIFIED, absent_controller),
        test("a_limit_below_processes_says_where_it_cannot_be_enabled", HUGE_PAGES, internal_processes),
        test("a_container_lives_below_a_threaded_cgroup", UNIFIED, threaded),
        test("no_controller_is_to_be_had_below_a_threaded_cgroup", HUGE_PAGES, threaded_controller),
        test("huge_pages_are_limited_on_v2", HUGE_PAGES, huge_pages),
    ]
}

/// Moves the shell into `own/leaf` of each hierarchy in sight, whose directories are then in `$trees`.
const ENTER: &str = r"
for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e $tree/cgroup.procs ] && [ ! -L $tree ] && mountpoint -q $tree || continue
    trees=$trees\ $tree
    mkdir -p $tree/own/leaf
    for directory in own own/leaf; do
        for file in cpuset.mems cpuset.cpus; do
            [ ! -e $tree/tasks ] || [ ! -e $tree/$file ] || cat $tree/$file >$tree/$directory/$file
        done
    done
    echo 0 >$tree/own/leaf/cgroup.procs
done";

fn paths(sandbox: &Sandbox) {
    let unified_alone = sandbox.sh("test -e /sys/fs/cgroup/cgroup.procs").run().code() == 0;
    // What has processes cannot have children with controllers on v2, so there the caller's parent is the base.
    let own = if unified_alone { "own" } else { "own/leaf" };
    for (path, want) in [("/abs/one", "abs/one".to_owned()), ("two", format!("{own}/two"))] {
        bundle(sandbox, "pth", "sleep 1000", |config| config["linux"]["cgroupsPath"] = json!(path));
        let spawn = format!("spawn --root {}", sandbox.at("st"));
        let script = format!(
            "{ENTER}
             {spawn} create -b pth --pid-file pid e2e-pth </dev/null >/dev/null 2>err || cat err >&2
             for tree in $trees; do grep -qx $(cat pid) $tree/{want}/cgroup.procs || echo not in $tree/{want}; done
             {spawn} delete -f e2e-pth
             for tree in $trees; do [ ! -e $tree/{want} ] || echo left $tree/{want}; done
             echo $trees | wc -w"
        );
        let outcome = sandbox.sh(&script).run().ok().stderr_is("");
        let count: u32 = outcome.stdout.trim().parse().unwrap_or_else(|_| panic!("{outcome}"));
        assert_eq!(count == 1, unified_alone, "{outcome}");
        let empty = "find /sys/fs/cgroup/ -depth -type d '(' -name leaf -o -name own -o -name abs ')' -exec rmdir {} +";
        sandbox.sh(empty).run().ok();
    }
}

fn wait_for_stop(sandbox: &Sandbox, id: &str) {
    wait_for("the end", || (spawn(sandbox, &format!("state {id}")).json()["status"] == "stopped").then_some(()));
}

fn frozen(sandbox: &Sandbox) {
    for command in ["kill e2e-frz KILL", "kill --all e2e-frz KILL"] {
        bundle(sandbox, "frz", "sleep 1000 & sleep 1000", |_| {});
        spawn(sandbox, "run -d -b frz e2e-frz </dev/null >/dev/null 2>&1").ok();
        spawn(sandbox, "pause e2e-frz").ok();
        assert_eq!(spawn(sandbox, "state e2e-frz").json()["status"], "paused");
        spawn(sandbox, command).ok();
        wait_for_stop(sandbox, "e2e-frz");
        spawn(sandbox, "delete e2e-frz").ok();
    }
}

fn frozen_before(sandbox: &Sandbox) {
    bundle(sandbox, "fbf", "true", |config| config["linux"]["cgroupsPath"] = json!("/fbf"));
    let freeze = "mkdir -p $1; if [ -e $1/freezer.state ]; then echo FROZEN >$1/freezer.state; else echo 1 >$1/cgroup.freeze; fi";
    let directory =
        "directory=/sys/fs/cgroup/freezer; [ -e $directory ] || directory=/sys/fs/cgroup; set -- $directory/fbf";
    sandbox.sh(&format!("{directory}; {freeze}")).run().ok();
    for _twice in 0..2 {
        spawn(sandbox, "create -b fbf e2e-fbf").fails(1).one_error_line("spawn", &["unexpectedly frozen"]);
        sandbox.sh("find /sys/fs/cgroup/ -name fbf | wc -l").run().ok().stdout_is("1\n");
    }
    sandbox.sh(&format!("{directory}; rmdir $1")).run().ok();
}

fn empty_cpuset(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p /sys/fs/cgroup/cpuset/pod").run().ok();
    bundle(sandbox, "cps", "true", |config| config["linux"]["cgroupsPath"] = json!("/pod/cps"));
    run(sandbox, "cps").ok();
    // A killed `spawn` has left its own so.
    sandbox.sh("mkdir -p /sys/fs/cgroup/cpuset/pod/cps").run().ok();
    run(sandbox, "cps").ok();
    sandbox.sh("find /sys/fs/cgroup/ -depth -name pod -exec rmdir {} +").run().ok();
}

/// `spawn` was killed when it had written down where its cgroups were to be, and not yet looked whether they were free.
fn unfinished(sandbox: &Sandbox) {
    bundle(sandbox, "unf", "true", |config| config["linux"]["cgroupsPath"] = json!("/unf"));
    spawn(sandbox, "create -b unf e2e-unf </dev/null >/dev/null 2>&1").ok();
    let mut state: Value = serde_json::from_str(&sandbox.read("st/e2e-unf/state.json")).expect("state.json");
    spawn(sandbox, "delete -f e2e-unf").ok();
    state["init_process_pid"] = json!(0);
    // And no config.json yet.
    sandbox.sh("mkdir st/e2e-unf").run().ok();
    sandbox.write("st/e2e-unf/state.json", state.to_string());
    let place =
        "directory=/sys/fs/cgroup/freezer; [ -e $directory ] || directory=/sys/fs/cgroup; directory=$directory/unf";
    let enter = format!("{place}; mkdir $directory; echo 0 >$directory/cgroup.procs; echo in; exec cat");
    let neighbour = sandbox.sh(&enter).open_stdin().start();
    neighbour.wait_stdout("in");
    spawn(sandbox, "delete --force e2e-unf").ok();
    sandbox
        .sh(&format!("{place}; test ! -e st/e2e-unf && cat $directory/cgroup.procs | wc -l"))
        .run()
        .ok()
        .stdout_is("1\n");
    drop(neighbour);
    wait_for("the empty cgroup", || {
        sandbox.sh(&format!("{place}; rmdir $directory")).run().status.success().then_some(())
    });
}

fn kill_all(sandbox: &Sandbox) {
    bundle(sandbox, "all", "sleep 1000 & setsid sleep 1000 & exec sleep 1000", |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    for signal in ["KILL", "TERM"] {
        spawn(sandbox, "run -d -b all e2e-all </dev/null >/dev/null 2>&1").ok();
        let count = || spawn(sandbox, "ps -f json e2e-all").json().as_array().map(Vec::len);
        wait_for("three processes", || (count() == Some(3)).then_some(()));
        spawn(sandbox, &format!("kill --all e2e-all {signal}")).ok();
        wait_for("their end", || (count() == Some(0)).then_some(()));
        spawn(sandbox, "delete e2e-all").ok();
    }
}

/// /dev/kmsg can be opened for writing by anybody whom the cgroup lets.
fn devices(sandbox: &Sandbox) {
    let script =
        "mknod /tmp/kmsg c 1 11; (: >/dev/null) && echo null; (: >/tmp/kmsg) 2>/dev/null && echo kmsg; sleep 1000";
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"});
    let deny = json!({"allow": false, "access": "rwm"});
    let all = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwa"});
    for (rules, want) in
        [(json!([deny]), "null\n"), (json!([deny, allow]), "null\nkmsg\n"), (json!([deny, allow, all]), "null\n")]
    {
        bundle(sandbox, "dvr", &script.replace("sleep 1000", "true"), |config| {
            config["linux"]["resources"] = json!({"devices": rules});
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
            }
        });
        sandbox.sh("rm -f dvr/rootfs/tmp/kmsg").run().ok();
        run(sandbox, "dvr").ok().stdout_is(want);
    }
    bundle(sandbox, "dvr", "sleep 1000", |config| config["linux"]["resources"] = json!({"devices": [deny]}));
    spawn(sandbox, "run -d -b dvr e2e-dvr </dev/null >/dev/null 2>&1").ok();
    let open = "exec e2e-dvr sh -c ': >/tmp/kmsg'";
    assert_ne!(spawn(sandbox, open).code(), 0);
    for (rules, code) in [(json!([deny, allow]), 0), (json!([deny]), 1)] {
        update(sandbox, "e2e-dvr", &json!({"devices": rules}));
        assert_eq!(spawn(sandbox, open).code(), code, "{rules}");
    }
    spawn(sandbox, "delete -f e2e-dvr").ok();
}

fn update(sandbox: &Sandbox, id: &str, resources: &Value) {
    let update = format!("spawn --root {} update -r - {id}", sandbox.at("st"));
    sandbox.sh(&update).stdin(resources.to_string()).run().ok();
}

/// Tells whether cgroup2 has a controller here.
fn has(sandbox: &Sandbox, controller: &str) -> bool {
    let controllers = sandbox.sh("cat /sys/fs/cgroup/cgroup.controllers").run().ok().stdout;
    controllers.split_whitespace().any(|word| word == controller)
}

fn absent_controller(sandbox: &Sandbox) {
    for (resources, file, controller) in [
        (json!({"memory": {"limit": 67_108_864}}), "memory.max", "memory"),
        (json!({"pids": {"limit": 20}}), "pids.max", "pids"),
        (json!({"cpu": {"quota": 10_000}}), "cpu.max", "cpu"),
        (json!({"unified": {"misc.max": "res_a 1"}}), "misc.max", "misc"),
    ] {
        if has(sandbox, controller) {
            continue;
        }
        bundle(sandbox, "abs", "true", |config| config["linux"]["resources"] = resources);
        let (file, controller) = (format!("cannot set {file}"), format!("cgroup controller {controller} is not there"));
        spawn(sandbox, "create -b abs e2e-abs").fails(1).one_error_line("spawn", &[&file, &controller]);
        sandbox.sh("test ! -e st/e2e-abs && ! find /sys/fs/cgroup -name e2e-abs | grep .").run().ok();
    }
}

const HUGE: &str = "/sys/fs/cgroup/huge/hugetlb.2MB.max";

fn huge(sandbox: &Sandbox, name: &str, path: &str) {
    bundle(sandbox, name, "sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
    });
}

fn huge_pages(sandbox: &Sandbox) {
    huge(sandbox, "hge", "/huge");
    spawn(sandbox, "run -d -b hge e2e-hge </dev/null >/dev/null 2>&1").ok();
    assert_eq!(sandbox.sh(&format!("cat {HUGE}")).run().ok().stdout, "4194304\n");
    update(sandbox, "e2e-hge", &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}));
    assert_eq!(sandbox.sh(&format!("cat {HUGE}")).run().ok().stdout, "2097152\n");
    update(sandbox, "e2e-hge", &json!({"unified": {"hugetlb.2MB.max": "0", "cgroup.max.depth": "7"}}));
    let both = format!("cat {HUGE} /sys/fs/cgroup/huge/cgroup.max.depth");
    assert_eq!(sandbox.sh(&both).run().ok().stdout, "0\n7\n");
    spawn(sandbox, "delete -f e2e-hge").ok();
}

fn internal_processes(sandbox: &Sandbox) {
    sandbox.sh("mkdir /sys/fs/cgroup/full").run().ok();
    let keeper = sandbox.sh("echo 0 >/sys/fs/cgroup/full/cgroup.procs && echo in && exec sleep 1000").start();
    keeper.wait_stdout("in");
    huge(sandbox, "ful", "/full/below");
    let reason = "cgroup controller hugetlb cannot be enabled in /sys/fs/cgroup/full: ";
    spawn(sandbox, "create -b ful e2e-ful").fails(1).one_error_line("spawn", &["hugetlb.2MB.max", reason]);
    drop(keeper);
    wait_for("the empty cgroup", || sandbox.sh("rmdir /sys/fs/cgroup/full").run().status.success().then_some(()));
}

fn threaded(sandbox: &Sandbox) {
    sandbox
        .sh("mkdir -p /sys/fs/cgroup/above/threads && echo threaded >/sys/fs/cgroup/above/threads/cgroup.type")
        .run()
        .ok();
    bundle(sandbox, "thr", "sleep 1000 & sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("/above/threads/one");
    });
    spawn(sandbox, "run -d -b thr e2e-thr </dev/null >/dev/null 2>&1").ok();
    let count = || spawn(sandbox, "ps -f json e2e-thr").json().as_array().map(Vec::len);
    wait_for("two processes", || (count() == Some(2)).then_some(()));
    spawn(sandbox, "kill --all e2e-thr KILL").ok();
    wait_for_stop(sandbox, "e2e-thr");
    spawn(sandbox, "delete e2e-thr").ok();
    sandbox.sh("rmdir /sys/fs/cgroup/above/threads /sys/fs/cgroup/above").run().ok();
}

fn threaded_controller(sandbox: &Sandbox) {
    sandbox
        .sh("mkdir -p /sys/fs/cgroup/above/threads && echo threaded >/sys/fs/cgroup/above/threads/cgroup.type")
        .run()
        .ok();
    huge(sandbox, "thr", "/above/threads/one");
    let reason = "cgroup controller hugetlb cannot be enabled in /sys/fs/cgroup/above: ";
    spawn(sandbox, "create -b thr e2e-thr").fails(1).one_error_line("spawn", &["hugetlb.2MB.max", reason]);
    sandbox.sh("rmdir /sys/fs/cgroup/above/threads /sys/fs/cgroup/above").run().ok();
}
