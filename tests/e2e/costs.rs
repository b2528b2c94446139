//! What does not depend on a machine's load: the system calls and page faults of what is done most often, beside the ledger
//! `costs.txt`. What costs more than 3 % above it is red until the ledger is changed, in a commit that says why. Another compiler
//! than the ledger's may make programs that cost 15 % more.
//!
//! Instructions are not counted: these programs are built without optimisation.

use std::collections::BTreeMap;

use crate::support::{Need, Sandbox, Test, image, test};

const NEEDS: &[Need] = &[
    Need::Registry,
    Need::Overlay,
    Need::Nft,
    Need::UnifiedCgroups,
    Need::Program("strace"),
    Need::Program("python3"),
];

/// How often each is counted. The least counts: another processor may make one wait, and look once more.
const RUNS: usize = 5;
/// Waiting takes as many calls as the machine pleases, and so does memory where several threads want some.
const UNCOUNTED: &str = "!poll,ppoll,futex,wait4,waitid,rt_sigreturn,restart_syscall,nanosleep,clock_nanosleep,sched_yield,\
     brk,mmap,munmap,mprotect,mremap,madvise,rt_sigprocmask,sigaltstack";

/// The version and the architecture.
const COMPILER: &str = env!("COMPILER");

pub(crate) fn tests() -> Vec<Test> {
    vec![test("nothing_costs_more_than_the_ledger_says", NEEDS, ledger)]
}

/// What is prepared, and what is counted then.
const COUNTED: [(&str, &str, &str); 7] = [
    (
        "spawn run",
        "bundle --id one --network none image.json -- true >/dev/null",
        "spawn run -b state/containers/one x </dev/null",
    ),
    ("spawn exec", "bundle --id up --network none image.json -- sleep 1000 | spawn -d -q", "spawn exec up true"),
    (
        "run",
        "run --rm --network none IMAGE true; run --rm --network none IMAGE true",
        "run --rm --network none IMAGE true",
    ),
    (
        "ns list of 200",
        "",
        "unshare --pid --fork --mount-proc sh -c 'for i in $(seq 198); do sleep 1000 & done; COUNT ns list; true' >/dev/null",
    ),
    (
        "ns add and del",
        "bundle --id net image.json -- true >net.json",
        "sh -c 'ns add net.json >/dev/null; ns del --wait net'",
    ),
    ("pull | unpack", "", "sh -c 'pull IMAGE | unpack >/dev/null'"),
    (
        "keep list of 100",
        "for i in $(seq 100); do bundle --id c$i --network none image.json -- true >/dev/null || exit; done",
        "keep list >/dev/null",
    ),
];

fn ledger(sandbox: &Sandbox) {
    let reference = &image("busybox").reference;
    sandbox.sh(&format!("pull --quiet {reference} | unpack >image.json")).run().ok();
    sandbox.write(
        "faults.py",
        "import os, sys; pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)\n\
         status, used = os.wait4(pid, 0)[1:]; print(used.ru_minflt, file=open('faults', 'w')); sys.exit(status != 0)",
    );
    let known: BTreeMap<&str, (usize, usize)> =
        include_str!("costs.txt").lines().filter(|line| !line.starts_with('#')).filter_map(row).collect();
    let is_same =
        include_str!("costs.txt").lines().any(|line| line.strip_prefix("# built by rustc ") == Some(COMPILER));
    let most = if is_same { 103 } else { 115 };
    let (mut found, mut dearer) = (Vec::new(), Vec::new());
    for (name, prepare, command) in COUNTED {
        let (prepare, command) = (prepare.replace("IMAGE", reference), command.replace("IMAGE", reference));
        sandbox.sh(&prepare).run().ok();
        let least = |counter: &str, file: &str| {
            let counted = if command.contains("COUNT") {
                command.replace("COUNT", counter)
            } else {
                format!("{counter} {command}")
            };
            let count = |_| {
                sandbox.sh(&counted).run().ok();
                let text = sandbox.read(file);
                text.lines().last().and_then(|line| line.split_whitespace().next()).unwrap().parse::<usize>().unwrap()
            };
            (0..RUNS).map(count).min().unwrap()
        };
        let calls = least(&format!("strace -f -qq -c -U calls,name -S name -e trace={UNCOUNTED} -o calls"), "calls");
        let faults = least("python3 faults.py", "faults");
        found.push(format!("{name}: {calls} {faults}"));
        let (calls_known, faults_known) = known.get(name).copied().unwrap_or_default();
        for (what, count, known) in [("system calls", calls, calls_known), ("page faults", faults, faults_known)] {
            if count * 100 > known * most {
                dearer.push(format!("{name}: {count} {what}, {known} in tests/e2e/costs.txt"));
            }
        }
    }
    sandbox.sh("spawn delete -f up; bundle prune --all >/dev/null").run().ok();
    assert!(dearer.is_empty(), "{}\nfound, built by rustc {COMPILER}:\n{}", dearer.join("\n"), found.join("\n"));
}

/// `NAME: SYSTEM-CALLS PAGE-FAULTS`
fn row(line: &str) -> Option<(&str, (usize, usize))> {
    let (name, counts) = line.split_once(": ")?;
    let mut counts = counts.split(' ').map(|count| count.parse().unwrap());
    Some((name, (counts.next()?, counts.next()?)))
}
