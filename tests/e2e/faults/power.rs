//! The power goes while images are pulled, unpacked and run: whatever of the writes is on the disk then, no layer is wrong,
//! and no verb is stopped by a file that is torn. The disk is a file of a FUSE file system, under a loop device.

use std::time::Duration;

use super::whole;
use crate::support::{Listing, Need, Sandbox, Test, image, since, test};

const NEEDS: &[Need] = &[
    Need::Registry,
    Need::Overlay,
    Need::Program("python3"),
    Need::Program("mke2fs"),
    Need::File("/dev/fuse"),
    Need::File("/dev/loop-control"),
];
const CUTS: u32 = 200;

/// What is done while the power is there.
const WORK: &str = "for image in $BUSYBOX $TORTURE; do pull -q $image | unpack >/dev/null || exit 1; done; \
    pull -q $BUSYBOX | unpack | bundle --id web --network none -- sh -c 'echo x >/x' | keep >/dev/null && keep wait web && \
    run --name two --network none $BUSYBOX sh -c 'echo x >/y' && unpack commit two --tag two >/dev/null && keep rm two && \
    run -d --name three --network none $BUSYBOX sleep 1000 >/dev/null && keep stop --time 0 three && sync -f state";

/// Prints what each layer is that nobody doubts: one line each, so that what is wrong is named.
const LAYERS: &str = "cd state/layers/sha256 && for layer in *; do [ ! -d $layer ] || [ -e ../unwritten/*.$layer ] || \
    echo $layer $(cd $layer; { find . -printf '%p %y %m %U %G %l\\n' | sort; find . -type f -exec sha256sum {} + | sort; } | \
    sha256sum); done";

/// Waits for the processes that write the layers to the disk.
const WRITTEN: &str = "until [ -z \"$(ls state/layers/unwritten 2>/dev/null)\" ]; do sleep 0.1; done";

/// What is done after a cut. All of it succeeds.
const VERBS: [&str; 10] = [
    "pull list",
    "pull gc",
    "bundle list",
    "keep list --json",
    "run --gc",
    "bundle prune",
    "pull -q $BUSYBOX | unpack | bundle --id next --network none -- echo hi | spawn | grep -qx hi",
    "pull -q $TORTURE | unpack",
    "for id in $(ls state/containers); do bundle delete --force $id || exit 1; done",
    "pull gc --grace 0",
];

/// Only as a part of the whole: it takes some minutes.
pub(crate) fn tests() -> Vec<Test> {
    if whole() { vec![test("no_power_cut_spoils_the_store", NEEDS, cuts)] } else { vec![] }
}

fn cuts(sandbox: &Sandbox) {
    sandbox.write("disk.py", include_str!("disk.py"));
    let layout = |name: &str| format!("oci:{}:latest", image(name).layout.display());
    let run = |script: &str| {
        let command = sandbox.sh(script).env("BUSYBOX", &layout("busybox")).env("TORTURE", &layout("torture"));
        command.limit(Duration::from_secs(60)).run()
    };
    let disk = "truncate -s 96m before && mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 before && \
                cp --sparse=always before image && mkdir fuse state && python3 disk.py serve fuse image log && \
                mount -o loop fuse/disk state";
    run(disk).ok();
    // What no test can do to the machine, as the programs see it: a file in which the id of a boot is another after each cut.
    run("echo first >boot && mount --bind boot /proc/sys/kernel/random/boot_id").ok();
    run(WORK).ok();
    run(WRITTEN).ok();
    let layers = run(LAYERS).ok().stdout;
    run("umount --lazy state/containers/*/rootfs; umount state && umount fuse").ok();
    let (before, mut wrong) = (Listing::take(sandbox), vec![]);
    for seed in 0..CUTS {
        let cut = format!("python3 disk.py cut log before cut {seed} && mount -o loop cut state && echo {seed} >boot");
        let place = run(&cut).ok().stdout;
        let mut complain = |what: String| wrong.push(format!("{seed}: {}: {what}", place.trim()));
        for line in run(LAYERS).stdout.lines().filter(|line| !layers.lines().any(|known| known == *line)) {
            complain(format!("a wrong layer: {line}"));
        }
        for verb in VERBS {
            let outcome = run(verb);
            if outcome.code() != 0 || outcome.stderr.contains("panicked") {
                complain(format!("{verb}: {}{}", outcome.stdout, outcome.stderr));
            }
        }
        for line in run(LAYERS).stdout.lines().filter(|line| !layers.lines().any(|known| known == *line)) {
            complain(format!("a wrong layer, in the end: {line}"));
        }
        run(WRITTEN).ok();
        run("umount state").ok();
        for left in since(&before, sandbox) {
            complain(format!("left: {left}"));
        }
    }
    run("umount /proc/sys/kernel/random/boot_id").ok();
    println!("power cuts: {CUTS}, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
