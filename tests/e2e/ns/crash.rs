//! What a killed `ns` leaves.

use std::time::Duration;

use super::script;
use crate::support::{Need, Sandbox, Test, test};

const STRACE: &[Need] =
    &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("python3"), Need::Program("strace")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("kill_9_at_any_call_of_add_is_cleared_by_del_and_by_the_next_add", STRACE, |s| walk(s, ADD, ALONE)),
        test("kill_9_at_any_call_of_add_tells_no_neighbour_of_it", STRACE, |s| walk(s, ADD, BESIDE)),
        test("del_takes_a_bridge_that_has_no_port_yet", STRACE, idle),
        test("kill_9_at_any_call_of_del_is_cleared_by_the_next_del", STRACE, |s| walk(s, DEL, BESIDE)),
        test("kill_9_at_any_call_of_del_wait_is_cleared_by_the_next_del", STRACE, |s| walk(s, DEL_WAIT, ALONE)),
    ]
}

/// As an `ns add` that is killed before it makes the port leaves it.
fn idle(sandbox: &Sandbox) {
    let steps = "echo '{\"id\":\"web\"}' | ns add --bridge lab >/dev/null
        ip link del $(ip -o link | grep -o 'veth[0-9a-f]*'); ip netns del web; ip link show lab >/dev/null || exit 1
        ns del web; for i in $(seq 200); do [ -n \"$(ip -o link | grep lab; nft list ruleset)\" ] || exit 0; sleep 0.05; done; exit 1";
    sandbox.sh(steps).run().ok();
}

/// What is killed, with a bundle that learns of its network.
const ADD: &str = "before() { :; }
    killed() { strace -f -qq \"$@\" ns add --bridge lab ./web.json >/dev/null 2>&1; }";

/// What it leaves to a process in the background goes on.
const DEL: &str = "before() { ns add --bridge lab ./web.json >/dev/null; }
    killed() { strace -qq \"$@\" ns del web >/dev/null 2>&1; }";

const DEL_WAIT: &str = "before() { ns add --bridge lab ./web.json >/dev/null; }
    killed() { strace -qq \"$@\" ns del --wait web >/dev/null 2>&1; }";

/// The first and the last container of its bridge: that is made, and removed, too.
const ALONE: &str = "come() { :; }; go() { :; }";

const BESIDE: &str = "come() { bundle db; ns add --bridge lab ./db.json >/dev/null; }; go() { ns del --wait db; }";

/// Kills it at each of its system calls, each thread's, from the first one that has to do with networks.
fn walk(sandbox: &Sandbox, what: &str, neighbour: &str) {
    let walk = r#"
        set +e
        bundle() {
            mkdir -p $1; rm -f $1/*; echo '{"linux":{"namespaces":[{"type":"network"}]}}' >$1/config.json; : >$1/hosts
            printf '{"id":"%s","bundle":"%s"}' $1 $PWD/$1 >$1.json
        }
        fresh() { bundle web; before; }
        left() {
            ls -A /run/netns $DRAYAGE_ROOT/run/hosts 2>/dev/null; ip -o link | grep -v ' lo:' | cut -d' ' -f2; nft list ruleset
            # What is taken back stays as a comment.
            grep -v '^#' db/hosts 2>/dev/null
        }
        come
        fresh; killed -o trace; ns del --wait web; left >before
        # Each call with its number in its thread. Without -f no line begins with one. A call that only looks, or takes
        # memory, leaves what the one before it left.
        sed -n 's/^\([0-9]* \|\) *\([a-z0-9_]*\)(.*network.lock.*/BEGIN \1 \2/p; s/^\([0-9]* \|\) *\([a-z0-9_]*\)(.*/\1 \2/p' trace |
            awk '$1 == "BEGIN" { begun = 1; next } { n = ++count[$0] } begun { print $NF, n }' | sort -u |
            grep -vE '^(close|read|recvfrom|readlink|newfstatat|statx|statfs|lseek|getdents64|mmap|munmap|mremap|mprotect|madvise|brk|futex|poll|rt_sig[a-z]*|sigaltstack|getrandom|gettid|fcntl|rseq|set_robust_list|sched_[a-z]*) ' >calls
        walked=0
        while read -r call turn <&3; do
            fresh; killed -o /dev/null -e inject=$call:signal=KILL:when=$turn
            python3 -c 'import json; json.load(open("web/config.json"))' || echo $call $turn: config.json is half-written
            ns del --wait web || echo $call $turn: del fails
            left | diff before - || echo $call $turn
            before; killed -o /dev/null -e inject=$call:signal=KILL:when=$turn; ns del web
            ns add --bridge lab ./web.json >/dev/null || echo $call $turn: add fails
            ns del --wait web
            walked=$((walked + 1))
        done 3<calls
        go
        [ $walked -gt 15 ] && echo walked"#;
    let steps = format!("{what}\n{neighbour}\n{walk}");
    // Each of some dozens of calls is one process after the other, all of them traced.
    sandbox.sh(&steps).limit(Duration::from_secs(150)).run().ok().stdout_is("walked\n");
    script(sandbox, "mkdir -p /run/netns");
}
