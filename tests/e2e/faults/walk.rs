//! One error in each call of a run: no hang, no panic, no wrong result with exit code 0, nothing half-made under its final
//! name, nothing that blocks the next run, nothing left after that and its undoing.

use std::time::Duration;

use super::{error_of, points, sample, whole};
use crate::support::{Listing, Need, Sandbox, Test, image, since, test};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("strace"), Need::Program("jq")];
/// So many calls fail in each scenario of a sample.
const SAMPLE: usize = 10;

struct Scenario {
    name: &'static str,
    /// What it works on, made anew for each run.
    prepare: &'static str,
    /// The program, behind `$STRACE`.
    run: &'static str,
    /// What a run has to have done. Its output is compared with that of the first run.
    check: &'static str,
    /// What undoes it.
    clear: &'static str,
}

/// What is there, in each scenario: $BUSYBOX and $TORTURE, and the records of both, pulled (`p`, `tp`) and unpacked (`u`, `tu`).
const MADE: &str = "pull -q $BUSYBOX >p && unpack <p >u && pull -q $TORTURE >tp && unpack <tp >tu";
const TREE: &str = "find . -printf '%p %y %m %U %G %s %l\\n' | sort";
const BUNDLE: &str = "bundle --id web -- sh -c 'echo hi; sleep 0.2' <u >b && ns add <b >n";

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pull_of_a_layout",
        prepare: "rm -rf l2",
        run: "$STRACE pull -q --layout $PWD/l2 oci:$LAYOUT:latest >out",
        check: "cd l2/blobs/sha256 && sha256sum * | awk '$1 != $2 { exit 1 }' && ls",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "pull_of_a_registry",
        prepare: "rm -rf l2",
        run: "$STRACE pull -q --layout $PWD/l2 $TORTURE >out",
        check: "cd l2/blobs/sha256 && sha256sum * | awk '$1 != $2 { exit 1 }' && ls",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "pull_gc",
        prepare: "pull -q --layout $PWD/l2 oci:$LAYOUT:latest >/dev/null; pull remove --layout $PWD/l2 latest; :",
        run: "$STRACE pull gc --layout $PWD/l2 --grace 0 >/dev/null",
        check: "find l2 | sort",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "unpack",
        prepare: "rm -rf state/layers",
        run: "$STRACE unpack <tp >out",
        check: "cat out; cd state/layers && { find sha256 chains parents -printf '%p %y %m %U %G %s %l\\n'; } | sort",
        clear: ":",
    },
    Scenario {
        name: "unpack_of_what_is_there",
        prepare: ":",
        run: "$STRACE unpack <tp >out",
        check: "cat out",
        clear: ":",
    },
    Scenario {
        name: "unpack_flat",
        prepare: "rm -rf flat",
        run: "$STRACE unpack --flat $PWD/flat <tp >out",
        check: "cd flat && TREE",
        clear: "rm -rf flat",
    },
    Scenario {
        name: "bundle",
        prepare: ":",
        run: "$STRACE bundle --id web <u >out -- true",
        check: "jq -c .process.args state/containers/web/config.json; ls state/containers/web/rootfs",
        clear: "bundle delete --force web",
    },
    Scenario {
        name: "bundle_delete",
        prepare: "bundle --id web <u >/dev/null -- true; :",
        run: "$STRACE bundle delete --force web",
        check: "ls -A state/containers",
        clear: ":",
    },
    Scenario {
        name: "spawn",
        prepare: "[ -e state/containers/web ] || bundle --id web --network none <u -- echo hi >b",
        run: "$STRACE spawn <b >out",
        check: "cat out",
        clear: "spawn delete --force web; bundle delete --force web",
    },
    Scenario {
        name: "ns_add",
        prepare: "[ -e state/containers/web ] || bundle --id web <u -- true >b",
        run: "$STRACE ns add <b >out",
        check: "nsenter --net=/run/netns/web ip -o addr show eth0 | wc -l",
        clear: "ns del --wait web; bundle delete --force web",
    },
    Scenario {
        name: "ns_del",
        prepare: "bundle --id web <u -- true 2>/dev/null | ns add >/dev/null 2>&1; :",
        run: "$STRACE ns del --wait web",
        check: "ls /run/netns; ip -o link | wc -l",
        clear: "bundle delete --force web",
    },
    Scenario {
        name: "portmap_add",
        prepare: "[ -e n ] && ls /run/netns/web >/dev/null 2>&1 || { BUNDLE; }",
        run: "$STRACE portmap -p 8080:80 <n >out",
        check: "jq -c .ports out; portmap list | wc -l",
        clear: "portmap del web; ns del --wait web; bundle delete --force web; rm -f n",
    },
    Scenario {
        name: "portmap_del",
        prepare: "ls /run/netns/web >/dev/null 2>&1 || { BUNDLE; }; portmap -p 8080:80 <n >/dev/null 2>&1; :",
        run: "$STRACE portmap del web",
        check: "portmap list; nft list tables",
        clear: "ns del --wait web; bundle delete --force web; rm -f n",
    },
    Scenario {
        name: "keep",
        prepare: "keep rm --force web >/dev/null 2>&1; bundle --id web --network none <u -- sh -c 'sleep 0.2; exit 3' >b",
        run: "$STRACE keep <b >out",
        check: "keep wait web",
        clear: "keep rm --force web",
    },
    Scenario {
        name: "keep_rm",
        prepare: "[ -e state/containers/web ] || { bundle --id web --network none <u -- sleep 1000 | keep >/dev/null; }",
        run: "$STRACE keep rm --force web >out",
        check: "ls -A state/containers state/run/spawn",
        clear: "keep rm --force web 2>/dev/null; run --gc",
    },
    Scenario {
        name: "run",
        prepare: ":",
        run: "$STRACE run --rm --name web -p 8080:80 $BUSYBOX echo hi >out",
        check: "cat out",
        clear: "run --gc >/dev/null",
    },
    Scenario {
        name: "run_in_the_background",
        prepare: "keep rm --force web >/dev/null 2>&1; bundle delete --force web; run --gc >/dev/null",
        run: "$STRACE run -d --name web -p 8080:80 $BUSYBOX sh -c 'sleep 0.2; exit 3' >out",
        check: "keep wait web",
        clear: "keep rm --force web; bundle delete --force web; run --gc >/dev/null",
    },
];

pub(crate) fn tests() -> Vec<Test> {
    let walk = |scenario: &'static Scenario| {
        test(&format!("no_failing_call_spoils_{}", scenario.name), NEEDS, move |sandbox| walk(sandbox, scenario))
    };
    SCENARIOS.iter().map(walk).collect()
}

/// Runs shell text with what all scenarios have.
fn shell(sandbox: &Sandbox, script: &str, strace: &str) -> crate::support::Outcome {
    let (busybox, torture) = (image("busybox"), image("torture"));
    let script = script.replace("TREE", TREE).replace("BUNDLE", BUNDLE);
    let command = sandbox.sh(&script).env("BUSYBOX", &busybox.reference).env("TORTURE", &torture.reference);
    let layout = torture.layout.display().to_string();
    command.env("LAYOUT", &layout).env("STRACE", strace).limit(Duration::from_secs(45)).run()
}

fn walk(sandbox: &Sandbox, scenario: &Scenario) {
    let plain = |script: &str| shell(sandbox, script, "");
    plain(MADE).ok();
    // The first run makes what stays for good.
    let once = |strace: &str| {
        let made = plain(&format!(": >injected; {}", scenario.prepare));
        if made.code() == 0 { shell(sandbox, scenario.run, strace) } else { made }
    };
    once("").ok();
    let want = plain(scenario.check).ok().stdout;
    plain(scenario.clear);
    let before = Listing::take(sandbox);
    once("strace -f -qq -o calls").ok();
    plain(scenario.clear);
    let mut all = points(&sandbox.read("calls"));
    if !whole() {
        all = sample(all, SAMPLE);
    }
    let (mut wrong, mut injected) = (Vec::new(), 0);
    for (call, number) in all {
        let error = error_of(&call);
        let strace = format!(
            "timeout -s KILL 30 strace -f -qq --seccomp-bpf -o injected -e trace={call} \
             -e inject={call}:error={error}:when={number}"
        );
        let outcome = once(&strace);
        if !sandbox.read("injected").contains("(INJECTED)") {
            continue;
        }
        injected += 1;
        let mut complain = |what: &str| wrong.push(format!("{call} {number} {error}: {what}"));
        let code = outcome.code();
        if code == 137 {
            complain("it hangs");
        }
        if outcome.stderr.contains("panicked") && !is_std_s(&outcome.stderr) {
            complain(&outcome.stderr);
        }
        if code == 0 && plain(scenario.check).stdout != want {
            complain("a wrong result with exit code 0");
        }
        if code == 0 {
            plain(scenario.clear);
        }
        let next = once("");
        if next.code() != 0 {
            complain(&format!("exit code {code} ({}), and the next run fails: {}", outcome.stderr.trim(), next.stderr));
        } else if plain(scenario.check).stdout != want {
            complain("the next run has a wrong result");
        }
        plain(scenario.clear);
        let left = since(&before, sandbox);
        if !left.is_empty() {
            complain(&format!("exit code {code}; left: {}", left.join("; ")));
        }
        if wrong.len() > 20 {
            break;
        }
    }
    println!("{}: {injected} calls failed, {} wrong", scenario.name, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What panics in Rust's library itself: where a stack for signals, or a pipe of `Command::output`, cannot be had.
fn is_std_s(stderr: &str) -> bool {
    stderr.contains("library/std/")
}
