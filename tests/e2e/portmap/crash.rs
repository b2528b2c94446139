//! What a killed `portmap` leaves.

use std::time::Duration;

use super::host;
use crate::support::{Need, Sandbox, Test, test};

pub(super) const STRACE: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("python3"), Need::Program("strace")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("whatever_kill_9_leaves_is_swept_and_its_port_serves_the_next", STRACE, killed_anywhere),
        test("a_killed_del_has_withdrawn_all_or_nothing_and_the_next_one_ends_it", STRACE, killed_withdrawal),
    ]
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
                got=$(get 127.0.0.1 8080); [ "$got" = 10.88.0.1 ] || echo $call $turn: not reached, $got
                portmap del web; portmap gc; nft list ruleset
            done
        done 3<after
        [ $walked -gt 20 ] && echo walked"#;
    // Each of some dozens of calls is one process after the other, all of them traced.
    host(sandbox, "0", script).limit(Duration::from_secs(150)).run().ok().stdout_is("walked\n");
}

/// Killed likewise while it withdraws a container's ports, as a command and as a CNI plugin: they are all there or all
/// gone, a neighbour's serve on, and the same call again leaves nothing.
fn killed_withdrawal(sandbox: &Sandbox) {
    let script = r#"
        cni() {
            verb=$1; shift
            echo '{"cniVersion":"1.1.0","name":"net","type":"portmap","conditionsV4":["!","-s","192.0.2.0/24"],"runtimeConfig":{"portMappings":[{"hostPort":7070,"containerPort":80},{"hostPort":7071,"containerPort":81}]},"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.11/16"},{"address":"fd88::11/64"}]}}' |
                CNI_COMMAND=$verb CNI_PATH=/ CNI_IFNAME=eth0 CNI_CONTAINERID=web CNI_NETNS=/run/netns/c1 "$@" portmap >/dev/null 2>&1
        }
        publish_del() { record web c1 | portmap -p 8080:80 -p 127.0.0.1:8081:80 -p 6000-6009:6000-6009 -p 5353:53/udp >/dev/null; }
        publish_cni() { cni ADD env; }
        withdraw_del() { "$@" portmap del web >/dev/null 2>&1; }
        withdraw_cni() { cni DEL "$@"; }
        rules() { nft list ruleset | tr -s ' \t{},=' '\n' | sort; } # the order of a set's elements is the kernel's
        names() { sed -n "$1"'s/^\([a-z0-9_]*\)(.*/\1/p' trace | sort | uniq -c; }
        record other c1 | portmap -p 9090:80 >/dev/null; rules >none
        for how in del cni; do
            publish_$how; rules >whole
            withdraw_$how strace -qq -o trace; rules | cmp - none
            names >all; names '/AF_NETLINK/,$' | grep -E 'sendto|recvfrom|write|openat|close' >after
            walked=0; kept=0
            while read -r count call <&3; do
                last=$(awk -v call=$call '$2 == call { print $1 }' all)
                for turn in $(seq $((last - count + 1)) $last); do
                    publish_$how
                    withdraw_$how strace -qq -o /dev/null -e inject=$call:signal=KILL:when=$turn
                    walked=$((walked + 1)); rules >left
                    if cmp -s left whole; then kept=$((kept + 1)); else cmp left none; fi
                    [ "$(get 127.0.0.1 9090)" = 10.88.0.1 ] || echo $how $call $turn: the neighbour is not reached
                    withdraw_$how env || echo $how $call $turn: refused
                    portmap check; rules | cmp - none
                done
            done 3<after
            [ $walked -gt 10 ] && [ $kept -gt 0 ] && [ $kept -lt $walked ] && echo $how: walked
        done
        portmap del other; nft list ruleset"#;
    let walk = host(sandbox, "0", script).limit(Duration::from_secs(150));
    walk.run().ok().stdout_is("del: walked\ncni: walked\n");
}
