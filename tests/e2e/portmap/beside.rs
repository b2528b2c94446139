//! The process beside translated ports: it holds them, and serves what translation cannot.

use super::{NEEDS, host};
use crate::support::{Sandbox, Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_translated_port_serves_the_family_that_the_container_lacks", NEEDS, both_families),
        test("a_translated_port_is_held_until_it_is_withdrawn", NEEDS, held_until_withdrawn),
        test("what_holds_a_translated_port_goes_with_its_container", NEEDS, goes_with_container),
    ]
}

/// Containers of one family, and what tells whether a program of the host's may have a port: FAMILY KIND PORT.
const SETUP: &str = r#"
    v4() { record web c1 | sed 's/,{"address":"fd88[^}]*}//'; }
    v6() { record web c1 | sed 's/{"address":"10.88[^}]*},//'; }
    bind() { python3 -c 'import socket, sys
family, kind, port = map(int, sys.argv[1:])
s = socket.socket(family, kind)
if family == 10: s.setsockopt(41, 26, 1)
if kind == 1: s.setsockopt(1, 2, 1)
s.bind(("", port))' $1 $2 $3 2>/dev/null && echo free || echo taken; }
"#;

fn both_families(sandbox: &Sandbox) {
    let script = r"
        v4 | portmap -p 8080:80 -p 5353:53/udp >/dev/null
        echo $(get 127.0.0.1 8080) $(get ::1 8080) $(in_ns rc fd03::1 8080) $(get ::1 5353 udp) $(in_ns rc fd03::1 5353 udp)
        portmap del web; get ::1 8080
        v4 | portmap -p 0.0.0.0:8080:80 >/dev/null; echo $(get 127.0.0.1 8080) $(get ::1 8080); portmap del web
        v4 | portmap -p 127.0.0.1:8080:80 >/dev/null; echo $(get 127.0.0.1 8080) $(get ::1 8080); portmap del web
        v6 | portmap -p 8080:80 >/dev/null; echo $(get fd03::1 8080) $(get 127.0.0.1 8080) $(in_ns rc 203.0.113.1 8080)
        portmap del web; v4 | portmap -p 8080:80 -p '[::1]:8080:7005' >/dev/null
        echo $(get 127.0.0.1 8080) $(get ::1 8080); portmap del web
        near=$(ip -6 -o addr show ext0 scope link | grep -o 'fe80[^/]*')%eth0
        for family in v4 v6 'record web c1'; do
            $family | portmap -p 8080:80 -p 5353:53/udp >/dev/null
            echo $(in_ns rc $near 8080) $(in_ns rc $near 5353 udp); portmap del web
        done";
    let want = "10.88.0.1 10.88.0.1 10.88.0.1 10.88.0.1 10.88.0.1\nrefused\n10.88.0.1 refused\n10.88.0.1 refused\n\
                fd03::1 fd88::1 fd88::1\n10.88.0.1 ::1\n\
                10.88.0.1 10.88.0.1\nfd88::1 fd88::1\nfd88::1 fd88::1\n";
    host(sandbox, "0", &format!("{SETUP}{script}")).run().ok().stdout_is(want);
}

fn held_until_withdrawn(sandbox: &Sandbox) {
    let script = r"
        all() { echo $(bind 2 1 8080) $(bind 10 1 8080) $(bind 2 1 8081) $(bind 10 1 8081) $(bind 2 2 5353) $(bind 10 2 5353); }
        v4 | portmap -p 8080:80 -p 5353:53/udp >/dev/null; all
        v4 | portmap -p 8081:7005 >/dev/null; v4 | portmap -p 8080:80 >/dev/null; all; get ::1 8081
        record db c2 | portmap -p '[::]:8081:80' 2>&1 | grep -o 'taken by container web'
        portmap del web -p 8080:80; all; get ::1 8081
        portmap del web; all
        v4 | portmap --no-bind-check -p 8080:80 >/dev/null; all; portmap del web
        sleep 1000 & work=$!; v4 | portmap --while $work -p 8080:80 >/dev/null; all; get ::1 8080
        kill $work; until [ $(bind 10 1 8080) = free ]; do :; done; all; nft list ruleset";
    let (all, none) = ("taken taken taken taken taken taken\n10.88.0.1\n", "free free free free free free\n");
    let want = format!(
        "taken taken free free taken taken\n{all}taken by container web\nfree free taken taken taken taken\n10.88.0.1\n\
         {none}{none}taken taken free free free free\n10.88.0.1\n{none}"
    );
    host(sandbox, "0", &format!("{SETUP}{script}")).run().ok().stdout_is(&want);
}

/// Of one that is gone without a word the next who wants the port ends it, and so does `portmap gc`.
fn goes_with_container(sandbox: &Sandbox) {
    let script = r#"
        holder() { for p in /proc/[0-9]*; do [ $(cat $p/comm) != portmap ] || echo ${p#/proc/}; done 2>/dev/null; }
        serves() { until grep -q "^Seccomp_filters:.*2" /proc/$(holder)/status; do :; done 2>/dev/null; }
        gone() { ip netns add dead; record old c2 | sed s,/c2,/dead, | portmap -p 8080:80 >/dev/null; serves; ip netns del dead; }
        gone; bind 10 1 8080; v4 | portmap -p 8080:80 >/dev/null; get ::1 8080; portmap del web
        gone; portmap gc; bind 10 1 8080
        v4 | portmap -p 8080:80 >/dev/null; kill -9 $(holder); until [ $(bind 10 1 8080) = free ]; do :; done
        v4 | portmap -p 8080:80 >/dev/null; get ::1 8080; ls state/run/portmap-beside | grep -c .
        portmap del web; ls state/run/portmap-beside | grep -c .; holder"#;
    let want = "taken\n10.88.0.1\nfree\n10.88.0.1\n1\n0\n";
    host(sandbox, "0", &format!("{SETUP}{script}")).run().ok().stdout_is(want);
}
