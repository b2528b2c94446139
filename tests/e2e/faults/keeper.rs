//! One error in each call that a keeper and its children make while a container is restarted: none ends that.

use super::{error_of, points, sample, whole};
use crate::support::{Listing, Need, Sandbox, Test, image, since, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("strace")];
const LIMITED: &[Need] = &[Need::Registry, Need::Overlay, Need::File("/sys/fs/cgroup/pids/tasks")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("no_failing_call_of_the_keeper_ends_restarts", NEEDS, |sandbox| walk(sandbox, "")),
        test("no_failing_call_of_the_keeper_s_children_ends_restarts", NEEDS, |sandbox| walk(sandbox, "-f")),
        test("restarts_outlive_a_want_of_processes", LIMITED, processes),
    ]
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

/// The bar of what may go wrong at once: several containers, and nobody can fork for some seconds.
fn processes(sandbox: &Sandbox) {
    let count = if whole() { 50 } else { 4 };
    let group = "/sys/fs/cgroup/pids/want";
    let make = format!(
        "pull -q {} | unpack >u; mkdir {group}; echo 0 >{group}/cgroup.procs; for i in $(seq {count}); do \
         bundle --id web$i --network none -v $PWD:/here <u -- sh -c \"echo >>/here/starts$i; sleep 0.5\" | \
         keep --restart always >/dev/null || exit 1; done; echo 0 >/sys/fs/cgroup/pids/cgroup.procs",
        image("busybox").reference
    );
    sandbox.sh(&make).run().ok();
    sandbox.sh(&format!("cat {group}/pids.current >{group}/pids.max; sleep 5; echo max >{group}/pids.max")).run().ok();
    let seen = sandbox.sh("cat starts* | wc -l; wc -l starts*").run().stdout;
    let before: Vec<usize> = (1..=count).map(|i| sandbox.read(format!("starts{i}")).lines().count()).collect();
    wait_for(&format!("all to start again: {seen}"), || {
        let now = (1..=count).map(|i| sandbox.read(format!("starts{i}")).lines().count());
        now.zip(&before).all(|(now, before)| now > *before).then_some(())
    });
    sandbox.sh(&format!("keep rm --force $(keep list --quiet) >/dev/null; rmdir {group}")).run().ok();
}
