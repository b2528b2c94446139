//! The networks that `ns add` makes: who reaches whom, and how they go.

use super::{NET, script};
use crate::support::{Need, Sandbox, Test, test};

const REACH: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_network_goes_while_somebody_lives_in_it", NET, alive),
        test("a_container_may_come_back_at_once", NET, back_at_once),
        test("each_bridge_has_a_network_of_its_own", NET, own_networks),
        test("a_network_may_have_a_longer_name_than_a_link", REACH, long_name),
        test("neighbours_reach_published_ports_only", REACH, guard),
        test("somebody_elses_bridge_is_not_closed", REACH, foreign),
    ]
}

/// The bridge is found by the name all the same, and comes back with it.
fn long_name(sandbox: &Sandbox) {
    script(
        sandbox,
        "name=my-application-network_default; mkdir web; echo '{}' >web/config.json; printf '127.0.0.1\\tlocalhost\\n' >web/hosts
        ns add --bridge $name --id web web/ >/dev/null; ns add --bridge $name --alias shop db >/dev/null
        bridge=$(ip -o link show $name | cut -d' ' -f2); case $bridge in br-????????????:) ;; *) exit 1;; esac
        grep -q 'db shop' web/hosts; address=$(ip -n db -4 -o addr show eth0 | sed 's/.*inet \\([^/]*\\).*/\\1/')
        ip netns exec web busybox ping -c 1 -w 5 $address >/dev/null
        ! ns add --bridge $name-which-is-longer-than-a-hundred-and-twenty-seven-bytes-and-so-no-name-of-any-link-that-the-kernel-would-take x 2>said || exit 1
        grep -q 'at most 127' said; ns del --wait web; ns del --wait db; ! ip link show $name 2>/dev/null",
    );
}

fn alive(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add web >/dev/null; ns add db >/dev/null
        ip netns exec web sleep 300 & P=$!
        until grep -qsx sleep /proc/$P/comm; do :; done
        ns del web; test ! -e /run/netns/web
        until ! nsenter -t $P -n ip link show eth0 >/dev/null 2>&1; do :; done
        ip link show drayage0 >/dev/null
        kill $P; ns del db",
    );
}

fn back_at_once(sandbox: &Sandbox) {
    script(
        sandbox,
        "for turn in 1 2 3 4 5; do
            ns add --ip 10.213.0.7 web >/dev/null; ns add --ip 10.213.0.8 db >/dev/null; ns del web db
        done
        ns add --ip 10.213.0.7 web >/dev/null
        ip -n web addr show eth0 | grep -q 10.213.0.7
        ns del --wait web; ! ip link show drayage0 >/dev/null 2>&1",
    );
}

fn own_networks(sandbox: &Sandbox) {
    script(
        sandbox,
        "net() { ip -$2 -o addr show $1 scope global | awk '{print $4}'; }
        for n in 1 2 3 4 5 6 7 8; do ns add --bridge lab$n c$n >/dev/null & pids=\"$pids $!\"; done
        for pid in $pids; do wait $pid; done
        for n in 1 2 3 4 5 6 7 8; do net lab$n 4; done | sort -u | wc -l | grep -qx 8
        ns add plain >/dev/null; net drayage0 4 | grep -qx 10.213.0.1/16
        first=$(net lab1 4); ns add --bridge lab1 --ipv6 more >more.json
        test \"$(net lab1 4)\" = $first; net lab1 6 | grep -q '^fd64:7261:796e:.*/64'
        grep -q '\"gateway\":\"'${first%/*} more.json; grep -q '\"gateway\":\"fd64:7261:796e:' more.json
        ns del --wait c1 more; ns add --bridge lab1 c1 >/dev/null; test \"$(net lab1 4)\" = $first
        ns del --wait c1; ip route add unreachable $(echo $first | sed 's/1\\/20$/0\\/20/')
        ns add --bridge lab1 c1 >/dev/null; test \"$(net lab1 4)\" != $first; ns del --wait c1
        for net in 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16; do ip route add unreachable $net; done
        ! ns add --bridge lab1 c1 2>err || exit 1; grep -qx 'ns: add c1: no network is free for lab1: --subnet chooses one' err
        ns add --bridge lab2 d2 >/dev/null; ns del d2 c2 c3 c4 c5 c6 c7 c8 plain",
    );
}

/// A neighbour who sends the containers' network to the host; a server in the container web, at ports 80 and 81.
const NEIGHBOUR: &str = "
    ip netns add lan; ip -n lan link set lo up
    ip link add ext0 type veth peer name eth0 netns lan
    ip addr add 203.0.113.1/24 dev ext0; ip link set ext0 up
    ip -n lan addr add 203.0.113.2/24 dev eth0; ip -n lan link set eth0 up; ip -n lan route add default via 203.0.113.1
    mkdir www; echo hello >www/index.html
    serve() { for port in 80 81; do ip netns exec web busybox httpd -f -h www -p $port & servers=\"$servers $!\"; done
        for port in 80 81; do until busybox wget -q -O- http://$1:$port/ >/dev/null 2>&1; do :; done; done; }
    get() { netns=$1; shift; ip netns exec $netns timeout 1 busybox wget -q -O- $1 2>/dev/null || echo closed; }
    down() { kill $servers; wait; ip netns del lan; ip link del ext0 2>/dev/null || :; }";

fn guard(sandbox: &Sandbox) {
    sandbox
        .sh(&format!(
            "set -e; {NEIGHBOUR}
            ns add --ip 10.213.0.5 web >web.json; ns add client >/dev/null; ns add --bridge other0 --subnet 10.9.0.0/24 other >/dev/null
            serve 10.213.0.5; portmap -p 8080:80 web.json >/dev/null
            get lan http://203.0.113.1:8080/; get lan http://10.213.0.5:80/; get lan http://10.213.0.5:81/
            get client http://10.213.0.5:81/; get client http://203.0.113.1:8080/; get other http://10.213.0.5:81/
            ip netns exec lan busybox httpd -f -h www -p 82 & servers=\"$servers $!\"
            until busybox wget -q -O- http://203.0.113.2:82/ >/dev/null 2>&1; do :; done
            get client http://203.0.113.2:82/
            portmap del web; ns del web client other; down"
        ))
        .run()
        .ok()
        .stdout_is("hello\nclosed\nclosed\nhello\nhello\nclosed\nhello\n");
    script(sandbox, "");
}

fn foreign(sandbox: &Sandbox) {
    sandbox
        .sh(&format!(
            "set -e; {NEIGHBOUR}
            ip link add lab0 type bridge; ip addr add 10.9.0.1/24 dev lab0; ip link set lab0 up
            ns add --bridge lab0 --ip 10.9.0.5 web >/dev/null
            serve 10.9.0.5; get lan http://10.9.0.5:80/
            ns del --wait web; ip link del lab0; down"
        ))
        .run()
        .ok()
        .stdout_is("hello\n");
    script(sandbox, "");
}
