//! Files of the store's and the containers' that are damaged: nothing hangs, nothing panics, other containers are listed
//! and removed all the same, and the damaged one can be removed by what is named.

use std::time::Duration;

use super::{sample, whole};
use crate::support::{Listing, Need, Sandbox, Test, image, since, test};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];

/// What is damaged: files of a container that runs, of one that has ended, and of the store.
const FILES: [&str; 14] = [
    "state/containers/runs/config.json",
    "state/containers/runs/record.json",
    "state/containers/runs/keep.json",
    "state/containers/runs/health.json",
    "state/containers/runs/log",
    "state/containers/runs/pid",
    "state/run/spawn/runs/state.json",
    "state/run/spawn/runs/config.json",
    "state/containers/ended/config.json",
    "state/containers/ended/record.json",
    "state/containers/ended/keep.json",
    "state/containers/ended/exit.json",
    "state/oci/index.json",
    "state/oci/oci-layout",
];
/// How: shell text, in which `$0` is the file.
const KINDS: [&str; 10] = [
    ": >$0",
    "truncate -s 20 $0",
    "head -c $(stat -c %s $0) /dev/zero >$0.new; mv $0.new $0",
    "echo '{\"a\":' >$0",
    "echo null >$0",
    "echo '[]' >$0",
    "rm $0; mkdir $0",
    "rm $0; ln -s /nowhere $0",
    "rm $0",
    "rm $0; mkfifo $0",
];
const VERBS: [&str; 12] = [
    "keep list",
    "keep list --json",
    "bundle list",
    "pull list",
    "pull gc --grace 0",
    "run --gc",
    "bundle prune",
    "keep wait ended",
    "keep stop --time 0 other",
    "keep stop --time 0 runs",
    "keep rm --force runs",
    "keep rm --force ended",
];

pub(crate) fn tests() -> Vec<Test> {
    vec![test("damaged_files_are_named_and_stop_nothing_else", NEEDS, walk)]
}

fn walk(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    sandbox
        .sh(&format!("pull -q {image} | unpack >/dev/null; run -d --name x {image} true && keep rm -f x"))
        .run()
        .ok();
    let before = Listing::take(sandbox);
    let all = FILES.into_iter().flat_map(|file| KINDS.map(|kind| (file, kind))).collect();
    let chosen = if whole() { all } else { sample(all, 12) };
    let (count, mut wrong) = (chosen.len(), Vec::new());
    for (file, kind) in chosen {
        let damage = kind.replace("$0", file);
        let make = format!(
            "run -d --name runs --health-cmd true --health-interval 1000s {image} sleep 1000 && run -d --name other {image} sleep 1000 && \
             run -d --name ended {image} sh -c 'exit 3' && keep wait ended && \
             until [ -e state/containers/runs/health.json ]; do :; done && cp -r state/oci kept && {damage}"
        );
        sandbox.sh(&make).run().ok();
        let mut listed = false;
        for verb in VERBS {
            let outcome = sandbox.sh(&format!("timeout -s KILL 25 {verb}")).limit(Duration::from_secs(40)).run();
            if outcome.code() == 137 || outcome.stderr.contains("panicked") {
                wrong.push(format!("{damage}: {verb}: {} {}", outcome.code(), outcome.stderr));
            }
            listed |= verb == "keep list" && outcome.stdout.contains("\nother ");
        }
        if !listed {
            wrong.push(format!("{damage}: the other container is not listed"));
        }
        // What is left is removed by the verbs that messages name.
        let clear = "keep rm --force other; for id in runs ended; do spawn --root state/run/spawn delete --force $id; \
                     bundle delete --force $id; done; run --gc; rm -rf state/oci; mv kept state/oci; ls -A state/containers";
        let cleared = sandbox.sh(clear).run();
        if !cleared.stdout.lines().all(|line| line == "other") {
            wrong.push(format!("{damage}: left: {}{}", cleared.stdout, cleared.stderr));
        }
        let left = since(&before, sandbox);
        if !left.is_empty() {
            wrong.push(format!("{damage}: left: {}", left.join("; ")));
        }
    }
    println!("damage: {count} files damaged, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
