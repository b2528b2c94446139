//! What a killed `portmap` leaves.

use super::host;
use crate::support::{Need, Sandbox, Test, test};

const STRACE: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("python3"), Need::Program("strace")];

pub(super) fn tests() -> Vec<Test> {
    vec![test("whatever_kill_9_leaves_is_swept_and_its_port_serves_the_next", STRACE, killed_anywhere)]
}

/// Killed at each of its system calls from the first one that has to do with the network. Its container is gone too, as
/// it is when everything is killed; the next container has the port and is reached, whatever is left.
fn killed_anywhere(sandbox: &Sandbox) {
    let script = r#"
        killed() {
            ip netns add dead
            record old c2 | sed s,/c2,/dead, >old
            strace -qq "$@" portmap -p 8080:80 -p 5353:53/udp ./old >/dev/null 2>&1
            ip netns del dead
        }
        names() { sed -n "$1"'s/^\([a-z0-9_]*\)(.*/\1/p' trace | sort | uniq -c; }
        killed -o trace; portmap gc; nft list ruleset
        names >all; names '/AF_NETLINK/,$' | grep -E 'sendto|recvfrom|write|openat' >after
        walked=0
        while read -r count call <&3; do
            last=$(awk -v call=$call '$2 == call { print $1 }' all)
            for turn in $(seq $((last - count + 1)) $last); do
                killed -o /dev/null -e inject=$call:signal=KILL:when=$turn
                walked=$((walked + 1))
                record web c1 | portmap -p 8080:80 >/dev/null || echo $call $turn: refused
                [ "$(get 127.0.0.1 8080)" = 10.88.0.1 ] || echo $call $turn: not reached
                portmap del web; portmap gc; nft list ruleset
            done
        done 3<after
        [ $walked -gt 20 ] && echo walked"#;
    host(sandbox, "0", script).run().ok().stdout_is("walked\n");
}
