//! Networks of hosts as people have them: addresses and routes that are in the way, advertised routes, small packets,
//! neighbours that remember.

use super::script;
use crate::support::{Need, Sandbox, Test, test};

const NEEDS: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("busybox")];

const FIREWALLS: &[Need] =
    &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("busybox"), Need::Program("iptables-nft")];

const LEGACY: &[Need] =
    &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("busybox"), Need::Program("iptables-legacy")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("the_default_network_gives_way_to_the_hosts", NEEDS, overlap),
        test("advertised_routes_survive_forwarding", NEEDS, advertised_routes),
        test("the_longest_packet_is_that_of_the_way_outwards", NEEDS, mtu),
        test("other_firewalls_let_containers_through_while_there_are_any", FIREWALLS, firewalls),
        test("iptables_legacy_lets_containers_through_while_there_are_any", LEGACY, legacy_firewall),
        test("a_name_for_the_host_is_the_networks_gateway", NEEDS, host_gateway),
        test("an_address_with_another_owner_is_announced", NEEDS, announced),
        test("the_mark_of_a_container_is_no_network_of_another", NEEDS, nested),
        test("a_full_bridge_says_so_and_what_to_do", NEEDS, full_bridge),
    ]
}

/// An uplink with a machine behind it.
const LAN: &str = "ip netns add lan; ip link add ext0 type veth peer name eth0 netns lan; ip link set ext0 up
    ip -n lan addr add 192.0.2.1/24 dev eth0; ip -n lan link set eth0 up; ip addr add 192.0.2.9/24 dev ext0
    ip route add default via 192.0.2.1\n";

/// In a container its own `lo` has its mark, and there is no firewall yet.
fn nested(sandbox: &Sandbox) {
    script(sandbox, "ip link set lo alias 'ctr=outer own=cdde3b7b-b13f7ce7'");
    sandbox.sh("ns add inner </dev/null").run().ok().stderr_is("");
    script(sandbox, "ns del --wait inner; ip link set lo alias ''");
}

fn overlap(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} network() {{ ip -br addr show drayage0 | awk '{{print $3}}'; }}
            ip addr add 10.1.2.3/8 dev ext0; ns add web >/dev/null; case $(network) in 10.*) exit 1;; esac
            ip netns exec web busybox ping -c 1 -w 5 192.0.2.9 >/dev/null; ns del --wait web
            ip addr del 10.1.2.3/8 dev ext0; ip route add 10.213.0.0/20 via 192.0.2.1
            ns add web >/dev/null; case $(network) in 10.213.*) exit 1;; esac; ns del --wait web
            ip route del 10.213.0.0/20; ip route add 10.213.0.0/20 via 192.0.2.1 table 52
            ns add web >/dev/null; case $(network) in 10.213.*) exit 1;; esac; ns del --wait web; ip route flush table 52
            ns add web >/dev/null; test $(network) = 10.213.0.1/16
            ip addr add 10.1.2.3/8 dev ext0; ns add db >/dev/null; ip netns exec db busybox ping -c 1 -w 5 192.0.2.9 >/dev/null
            ns del db; ns del --wait web; ip netns del lan"
        ),
    );
}

fn advertised_routes(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} ra() {{ cat /proc/sys/net/ipv6/conf/$1/accept_ra; }}
            echo 1 >/proc/sys/net/ipv6/conf/ext0/accept_ra; ip link add off0 type veth peer name off1
            echo 0 >/proc/sys/net/ipv6/conf/off0/accept_ra
            ns add web >/dev/null; test $(ra ext0) = 1; ns del --wait web
            ns add --ipv6 web >/dev/null; test $(ra ext0) = 2; test $(ra off0) = 0; test $(ra drayage0) = 0
            ns del --wait web; ip link del off0; ip netns del lan"
        ),
    );
}

fn mtu(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} mtu() {{ ip -n $1 -o link show eth0 | grep -o 'mtu [0-9]*'; }}
            ip link set ext0 mtu 1420; ns add web >/dev/null; test \"$(mtu web)\" = 'mtu 1420'
            ip link set ext0 mtu 1400; ns add db >/dev/null; test \"$(mtu db)\" = 'mtu 1420'
            ns add --mtu 1300 small >/dev/null; test \"$(mtu small)\" = 'mtu 1300'
            ns del web; ns del db; ns del --wait small; ip netns del lan"
        ),
    );
}

/// As dockerd and ufw leave the host, and as firewalld does.
fn firewalls(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} ip -n lan route add 10.213.0.0/16 via 192.0.2.9
            iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i nolink -j ACCEPT
            nft 'add table inet fw; add chain inet fw f {{ type filter hook forward priority 10; }}
                add rule inet fw f reject with icmpx admin-prohibited'
            nft list ruleset >before
            reached() {{ ip netns exec $1 busybox ping -c 1 -w 2 $2 >/dev/null; }}
            ns add -v web >record 2>said; grep -q 'through chain FORWARD of table filter' said; reached web 192.0.2.1
            ns add --ip 10.213.0.7 db >/dev/null; reached web 10.213.0.7; ! reached lan 10.213.0.7 || exit 1
            iptables-nft -S FORWARD | grep -q 'drayage0 .*-j ACCEPT'
            portmap -p 8080:80 record >/dev/null 2>said; test ! -s said; portmap del web
            ns del web; nft list ruleset | grep -q 'containers on drayage0'; ns del --wait db
            nft list ruleset | grep -v '^$' >after; grep -v '^$' before | diff - after
            nft flush ruleset; nft delete table inet fw 2>/dev/null || true; ip netns del lan"
        ),
    );
}

/// nftables does not know of these tables, so the program is asked for them.
fn legacy_firewall(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} iptables-legacy -P FORWARD DROP; iptables-legacy -N DOCKER-USER; iptables-legacy -S >before
            reached() {{ ip netns exec $1 busybox ping -c 1 -w 2 $2 >/dev/null; }}
            ns add --forward=warn web >/dev/null 2>said; ! reached web 192.0.2.1 || exit 1; ns del --wait web
            test \"$(cat said)\" = \"ns: warning: chain FORWARD of table filter (docker's) drops forwarded packets: containers \\
on drayage0 cannot reach beyond the host; --forward=insert lets them\"
            ns add --no-masquerade web >/dev/null 2>again; diff said again; ns del --wait web
            ns add --forward=off web >/dev/null 2>said; test ! -s said; ns del --wait web
            ns add web >record 2>said; ns add db >/dev/null 2>>said; test ! -s said; reached web 192.0.2.1
            portmap -p 8080:80 record >/dev/null 2>said; test ! -s said; portmap del web
            ns del web; reached db 192.0.2.1; ns del --wait db; iptables-legacy -S | diff before -; ip netns del lan"
        ),
    );
}

/// A bridge has 1,023 ports, which is the kernel's limit.
fn full_bridge(sandbox: &Sandbox) {
    script(
        sandbox,
        "ip link add full0 type bridge; ip addr add 10.9.0.1/16 dev full0
        for i in $(seq 512); do echo link add a$i type veth peer name b$i; echo link set a$i master full0; done >links
        for i in $(seq 511); do echo link set b$i master full0; done >>links; ip -batch links
        ! ns add --bridge full0 web 2>said || exit 1
        grep -qx 'ns: add web: join eth0 to full0 through veth[0-9a-f]*: full0 has all its 1,023 ports: .ns network create --driver routed NAME. makes one without a limit' said
        test ! -e /run/netns/web; ip link del b512; ns add --bridge full0 web >/dev/null; ns del --wait web
        for i in $(seq 511); do echo link del a$i; done >links; ip -batch links; ip link del full0",
    );
}

fn host_gateway(sandbox: &Sandbox) {
    script(
        sandbox,
        "mkdir b; echo '{}' >b/config.json; printf '127.0.0.1\\tlocalhost\\n192.0.2.1\\th\\t# host-gateway\\n' >b/hosts
        ns add --bridge lab --subnet 10.9.0.0/24 --id web b/ >/dev/null
        grep -qxP '10.9.0.1\\th\\t# host-gateway' b/hosts; test $(grep -c . b/hosts) = 3; ns del --wait web",
    );
}

/// A macvlan has another hardware address each time; on a bridge, --mac gives it another one.
fn announced(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{LAN} ip addr flush dev ext0
            reached() {{ ip netns exec $1 busybox ping -c 1 -w 2 $2 >/dev/null; }}
            for try in 1 2; do
                ns add --macvlan ext0 --subnet 192.0.2.0/24 --ip 192.0.2.7 web >/dev/null; reached lan 192.0.2.7; ns del --wait web
            done
            ns add peer >/dev/null
            for mac in 02:00:00:00:00:01 02:00:00:00:00:02; do
                ns add --ip 10.213.0.77 --mac $mac web >/dev/null; reached peer 10.213.0.77; ns del --wait web
            done
            ns del --wait peer; ip netns del lan"
        ),
    );
}
