//! One error in each call that a keeper and its children make while a container is restarted: none ends that.

use std::time::Instant;

use super::{error_of, points, sample, whole};
use crate::support::{Listing, Need, Sandbox, Test, image, since, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("strace")];
const LIMITED: &[Need] = &[Need::Registry, Need::Overlay, Need::File("/sys/fs/cgroup/pids/tasks")];

pub(crate) fn tests() -> Vec<Test> {
    let tests = [
        test("no_failing_call_of_the_keeper_ends_restarts", NEEDS, |sandbox| walk(sandbox, "")),
        test("no_failing_call_of_the_keeper_s_children_ends_restarts", NEEDS, |sandbox| walk(sandbox, "-f")),
    ];
    let outlives = |want: &'static Want| {
        test(&format!("restarts_outlive_a_want_of_{}", want.name), want.needs, |it| outlive(it, want))
    };
    tests.into_iter().chain(WANTS.iter().map(outlives)).collect()
}

fn start(sandbox: &Sandbox) -> String {
    let made = "test -e u || { pull -q $0 | unpack >u; }; rm -f starts; \
                bundle --id web --network none -v $PWD:/here <u -- sh -c 'echo >>/here/starts; sleep 0.05' | \
                keep --restart always >/dev/null && jq .pid state/run/claims/web";
    let script = made.replace("$0", &image("busybox").reference);
    sandbox.sh(&script).run().ok().stdout.trim().to_owned()
}

fn starts(sandbox: &Sandbox) -> usize {
    if sandbox.exists("starts") { sandbox.read("starts").lines().count() } else { 0 }
}

fn walk(sandbox: &Sandbox, follow: &str) {
    let attach = |keeper: &str, options: &str| {
        sandbox.sh(&format!("timeout 1.2 strace {follow} -qq {options} -p {keeper}")).run();
    };
    // Without -f there is no process in front.
    let of_one =
        |text: String| if follow.is_empty() { format!("0 {}", text.trim_end().replace('\n', "\n0 ")) } else { text };
    let before = Listing::take(sandbox);
    attach(&start(sandbox), "-o calls");
    sandbox.run(&["keep", "rm", "--force", "web"]).ok();
    let mut all = points(&of_one(sandbox.read("calls")));
    // The first few of each are those of one restart.
    all.retain(|(_, number)| *number <= if whole() { 4 } else { 1 });
    if !whole() {
        all = sample(all, 12);
    }
    let (mut ended, mut injected) = (Vec::new(), 0);
    for (call, number) in all {
        let error = error_of(&call);
        let keeper = start(sandbox);
        attach(&keeper, &format!("-o injected -e trace={call} -e inject={call}:error={error}:when={number}"));
        injected += usize::from(sandbox.read("injected").contains("(INJECTED)"));
        let count = starts(sandbox);
        let log = || sandbox.read("state/containers/web/log");
        let again = || (starts(sandbox) > count).then_some(());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_for("the next start", again)));
        if outcome.is_err() {
            ended.push(format!("{call} {number} {error}: {}", log()));
        }
        sandbox.run(&["keep", "rm", "--force", "web"]).ok();
        assert_eq!(since(&before, sandbox), Vec::<String>::new(), "{call} {number} {error}");
    }
    println!("keeper {follow}: {injected} calls failed, {} ended it", ended.len());
    assert!(ended.is_empty(), "{}", ended.join("\n"));
}

/// What several containers that end and start again meet for five seconds, and what lifts it: shell text.
struct Want {
    name: &'static str,
    needs: &'static [Need],
    /// What the store is on.
    before: &'static str,
    begin: &'static str,
    lift: &'static str,
}

const KEEPERS: &str = "for claim in state/run/claims/*; do prlimit --pid $(jq .pid $claim) --nofile=$0:; done";

const WANTS: [Want; 4] = [
    Want {
        name: "processes",
        needs: LIMITED,
        before: "mkdir /sys/fs/cgroup/pids/want; echo 0 >/sys/fs/cgroup/pids/want/cgroup.procs",
        begin: "cd /sys/fs/cgroup/pids; echo 0 >cgroup.procs; cat want/pids.current >want/pids.max",
        lift: "echo max >/sys/fs/cgroup/pids/want/pids.max",
    },
    Want { name: "descriptors", needs: NEEDS, before: ":", begin: "KEEPERS5", lift: "KEEPERS1024" },
    Want {
        name: "room_on_the_disk",
        needs: NEEDS,
        before: ":",
        begin: "cat /dev/zero >state/fill; timeout 5 sh -c 'while :; do echo >>state/end || sleep 0.01; done' &",
        lift: "rm state/fill state/end",
    },
    Want {
        name: "a_disk_that_can_be_written",
        needs: NEEDS,
        before: ":",
        begin: "mount --rbind state state && mount -o remount,bind,ro state",
        lift: "umount --lazy state",
    },
];

/// The bar of what may go wrong at once: each container runs again, within its pause, when it can.
fn outlive(sandbox: &Sandbox, want: &Want) {
    let count = if whole() { 50 } else { 4 };
    let run = |script: &str| {
        let of = |number: &str| KEEPERS.replace("$0", number);
        sandbox.sh(&script.replace("KEEPERS5", &of("5")).replace("KEEPERS1024", &of("1024"))).run()
    };
    run("mkdir -p state; mount -t tmpfs -o size=200m tmpfs state").ok();
    let make = format!(
        "pull -q {} | unpack >u; {}; for i in $(seq {count}); do \
         bundle --id web$i --network none -v $PWD:/here <u -- sh -c \"echo >>/here/starts$i; sleep 0.5\" | \
         keep --restart always >/dev/null || exit 1; done",
        image("busybox").reference,
        want.before
    );
    run(&make).ok();
    run(want.begin);
    let starts = |i| sandbox.read(format!("starts{i}")).lines().count();
    run("sleep 2").ok();
    let early: usize = (1..=count).map(starts).sum();
    run("sleep 3").ok();
    let meanwhile = (1..=count).map(starts).sum::<usize>() - early;
    run(want.lift).ok();
    let before: Vec<usize> = (1..=count).map(starts).collect();
    let lifted = Instant::now();
    wait_for("all to start again", || {
        (1..=count).map(starts).zip(&before).all(|(now, before)| now > *before).then_some(())
    });
    let after = lifted.elapsed();
    println!("{}: {count} containers, {meanwhile} starts meanwhile, all again after {after:?}", want.name);
    run("keep rm --force $(keep list --quiet) >/dev/null; umount state; rmdir /sys/fs/cgroup/pids/want || :").ok();
}
