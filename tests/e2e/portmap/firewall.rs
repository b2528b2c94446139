//! What others do to packets on their way: drops, and what the kernel remembers of connections.

use super::{NEEDS, PATHS, REACHED, host};
use crate::support::{Need, Sandbox, Test, test};

const IPTABLES: &[Need] = &[
    Need::NetNs,
    Need::Nft,
    Need::Program("python3"),
    Need::Program("iptables-legacy"),
    Need::Program("iptables-nft"),
];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("every_path_leads_through_a_foreign_drop_that_is_opened", NEEDS, |s| every_path_with_drop(s, "0")),
        test("every_path_leads_through_bridge_filter_and_drop", NEEDS, |s| every_path_with_drop(s, "1")),
        test("a_drop_of_iptables_is_said_and_can_be_opened", IPTABLES, iptables),
        test("datagrams_follow_a_port_that_changes_hands", NEEDS, stale_datagrams),
    ]
}

/// Somebody drops whatever is forwarded; what our rule lets through goes both ways.
fn every_path_with_drop(sandbox: &Sandbox, bridge_filter: &str) {
    let drop =
        "nft 'add table inet fw; add chain inet fw forwarded { type filter hook forward priority 0; policy drop; }'";
    let paths = PATHS
        .replace("portmap -p", "portmap --forward=insert -p")
        .replace("nft list", "nft delete table inet fw; nft list");
    host(sandbox, bridge_filter, &format!("{drop}\n{paths}")).run().ok().stdout_is(REACHED);
}

/// iptables of both kinds, as ufw and a distribution's own rules have them.
fn iptables(sandbox: &Sandbox) {
    let script = "
        publish() { record web c1 | portmap $1 -p 8080:80 2>&1 >/dev/null; in_ns rc 203.0.113.1 8080; }
        for name in iptables-legacy iptables-nft; do
            $name -N ufw-before-forward; $name -P FORWARD DROP
            record web c1 | portmap --forward=off -p 8080:80 2>&1 >/dev/null
            publish; publish --forward=insert; publish --forward=insert; publish
            $name -S FORWARD | grep -c ACCEPT
            $name -F FORWARD; $name -X; $name -P FORWARD ACCEPT; $name -A FORWARD -j REJECT
            publish; publish --forward=insert
            $name -F FORWARD
        done
        portmap del web; nft delete table ip filter; nft list ruleset 2>/dev/null";
    let warning = |manager: &str| {
        format!(
            "portmap: warning: chain FORWARD of table filter{manager} drops forwarded packets: other machines will not \
             reach the ports; --forward=insert lets them\n"
        )
    };
    let reached = "203.0.113.2\n";
    let one = format!("{}silence\n{}1\n{}refused\n{reached}", warning(" (ufw's)"), reached.repeat(3), warning(""));
    host(sandbox, "0", script).run().ok().stdout_is(&one.repeat(2));
}

/// A client that keeps its socket, and so its port: the kernel remembers where its datagrams went.
fn stale_datagrams(sandbox: &Sandbox) {
    sandbox.write(
        "keeps.py",
        r"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(6)
for line in sys.stdin:
    s.sendto(b'?', ('203.0.113.1', 5353))
    try:
        print(s.recvfrom(99)[0].decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
",
    );
    let script = "mkfifo ask; ip netns exec rc python3 keeps.py <>ask >said & client=$!
        ip netns exec c2 python3 server.py udp:54 > c2.out & other=$!
        python3 server.py udp:5353 > own.out & own=$!
        until grep -q ready c2.out && grep -q ready own.out; do :; done
        said=0; ask() { echo >ask; said=$((said + 1)); until [ $(wc -l <said) = $said ]; do :; done; tail -n 1 said; }
        ask; kill $own; wait $own 2>/dev/null
        record web c1 | portmap -p 5353:53/udp >/dev/null; ask
        portmap del web; record db c2 | portmap -p 5353:54/udp >/dev/null; ask
        [ $(ip netns exec c2 cat /proc/net/udp6 | grep -c ':0036 ') = 1 ] && kill $other
        portmap del db; kill $client; wait $client $other 2>/dev/null";
    host(sandbox, "0", script).run().ok().stdout_is(&"203.0.113.2\n".repeat(3));
}
