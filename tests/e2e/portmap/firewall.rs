//! What others do to packets on their way: drops, and what the kernel remembers of connections.

use super::crash::STRACE;
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
        test("what_others_have_published_is_not_read", STRACE, reads_its_own),
        test("tables_of_an_older_version_are_taken_over", NEEDS, older_tables),
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

/// However many containers are beside it, nftables answers with as many datagrams and bytes as with one.
fn reads_its_own(sandbox: &Sandbox) {
    let script = r#"
        list() { for i in $(seq $1 $2); do
            echo '{"id":"n'$i'","network":{"ips":[{"address":"10.88.1.'$i'/32"},{"address":"fd88::1:'$i'/128"}]},"ports":[{"hostPort":'$((9000 + i))',"containerPort":80,"protocol":"tcp"},{"hostIp":"127.0.0.1","hostPort":'$((7000 + i))',"containerPort":80,"protocol":"tcp"}]}'
        done | portmap restore; }
        read_by() { strace -qq -e trace=recvfrom -o trace "$@" >/dev/null; awk '/NFT_MSG/ { n++; bytes += $NF } END { print n, bytes }' trace; }
        all() {
            read_by portmap -p 8080:80 -p 127.0.0.1:8081:80 ./web
            read_by portmap check web
            read_by portmap del web -p 8080:80
            read_by portmap del web
        }
        record web c1 >web
        list 1 1; all >one; list 2 200; all >many
        portmap list -q | grep -c .; cmp one many && awk '{ exit !($1 > 9 && $2 > 999) }' one && echo as many
        portmap gc --keep web; nft list ruleset"#;
    host(sandbox, "0", script).run().ok().stdout_is("200\nas many\n");
}

/// As they were before there were lists of what belongs together.
fn older_tables(sandbox: &Sandbox) {
    let script = r#"
        printf '%s' 'table ip portmap {
            map addr { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
                elements = { 127.0.0.1 . tcp . 8081 comment "id=web" : 10.88.0.11 . 80 }
            }
            map any { type inet_proto . inet_service : ipv4_addr . inet_service
                elements = { tcp . 8080 comment "id=web" : 10.88.0.11 . 80 }
            }
            map addr_range { type ipv4_addr . inet_proto . inet_service : ipv4_addr
                flags interval
            }
            map range { type inet_proto . inet_service : ipv4_addr
                flags interval
                elements = { tcp . 7000-7010 comment "id=web" : 10.88.0.11 }
            }
            set hairpin { type ipv4_addr . ipv4_addr
                flags interval
                elements = { 10.88.0.0/16 . 10.88.0.11 comment "id=web" }
            }
            chain nat {
                dnat ip to ip daddr . meta l4proto . th dport map @addr
                dnat ip to meta l4proto . th dport map @any
                dnat to ip daddr . meta l4proto . th dport map @addr_range
                dnat to meta l4proto . th dport map @range
            }
            chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump nat; }
            chain output { type nat hook output priority -100; fib daddr type local jump nat; }
            chain postrouting { type nat hook postrouting priority srcnat
                ct status dnat ip saddr 127.0.0.0/8 masquerade
                ct status dnat ip saddr . ip daddr @hairpin masquerade
            }
        }' >older
        sed -i 's/^ *//' older
        nft -f older; nft list ruleset >before; portmap list; nft list ruleset | cmp - before
        record db c2 | portmap -p 8080:80 2>&1 | grep -o 'taken by container web'
        record db c2 | portmap -p 9090:80 >/dev/null; nft list ruleset | grep -c 'set hairpin16'
        echo $(in_ns rc 203.0.113.1 8080) $(in_ns rc 203.0.113.1 7005) $(in_ns c2 203.0.113.1 8080)
        nft list ruleset >whole; nft flush ruleset; nft -f whole; portmap check web && portmap del web -p 8080:80
        echo $(in_ns rc 203.0.113.1 8080) $(in_ns rc 203.0.113.1 7005)
        portmap del db; nft -f older; portmap del web; nft list ruleset"#;
    let want = "\
HOST               CONTAINER             PROTOCOL  ID
0.0.0.0:7000-7010  10.88.0.11:7000-7010  tcp       web
0.0.0.0:8080       10.88.0.11:80         tcp       web
127.0.0.1:8081     10.88.0.11:80         tcp       web
taken by container web
1
203.0.113.2 203.0.113.2 10.88.0.1
refused 203.0.113.2
";
    host(sandbox, "0", script).run().ok().stdout_is(want);
}
