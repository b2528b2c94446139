//! Networks that are created, and those that lead nowhere.

use super::{NET, PIPELINE, script};
use crate::support::{Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("nobody_leaves_or_enters_an_internal_network", NET, internal),
        test("an_internal_network_stays_shut", NET, shut),
        test("ports_in_internal_networks_are_not_published", PIPELINE, ports),
        test("a_network_is_there_without_a_container", NET, created),
        test("what_a_network_cannot_be_is_said", NET, refused),
        test("a_network_in_use_stays", PIPELINE, in_use),
        test("a_macvlan_network_is_on_a_link_of_the_host_s", NET, macvlan),
        test("killed_creations_leave_a_whole_network_or_none", NET, killed),
    ]
}

/// A neighbour outside, `out`, whose way to everybody is the host; `reaches NAMESPACE ADDRESS` as far as that nobody listens.
pub(super) const OUTSIDE: &str = r"ip netns add out; ip link add uplink type veth peer name eth0 netns out
ip addr add 192.0.2.1/24 dev uplink; ip addr add fd00:2::1/64 dev uplink nodad; ip link set uplink up
ip -n out addr add 192.0.2.9/24 dev eth0; ip -n out addr add fd00:2::9/64 dev eth0 nodad; ip -n out link set eth0 up
ip -n out route add default via 192.0.2.1; ip -n out route add default via fd00:2::1
reaches() { ip netns exec $1 python3 -c '
import socket, sys
family = socket.AF_INET6 if sys.argv[1].count(chr(58)) else socket.AF_INET
client = socket.socket(family); client.settimeout(2.5)
try: client.connect((sys.argv[1], 9))
except ConnectionRefusedError: pass
except OSError: sys.exit(1)' $2; }";

fn internal(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{OUTSIDE}
            ns network create --internal --subnet 10.9.0.0/24 --subnet fd00:9::/64 back
            ns add --network back:ip=10.9.0.7,ip6=fd00:9::7 web >web.json
            ns add --network back:ip=10.9.0.8,ip6=fd00:9::8 db >/dev/null
            ns add --network front:ip=10.8.0.8 --subnet 10.8.0.0/24 other >/dev/null
            test -z \"$(ip -n web route show default; ip -n web -6 route show default)\"
            python3 -c 'import json; n = json.load(open(\"web.json\"))[\"network\"]; assert n[\"routes\"] == [] and n[\"ips\"][0][\"gateway\"] == \"10.9.0.1\"'
            # Each other and the gateway's address, and nobody else: not with ways of their own either.
            for there in 10.9.0.8 fd00:9::8 10.9.0.1 fd00:9::1; do reaches web $there; done
            reaches other 192.0.2.9
            ip -n web route add default via 10.9.0.1; ip -n web route add default via fd00:9::1
            sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip -n other route show default | grep -q 10.8.0.1
            for there in 192.0.2.9 fd00:2::9 10.8.0.8; do ! reaches web $there || exit 1; done
            for there in 10.9.0.7 fd00:9::7; do ! reaches out $there || exit 1; ! reaches other $there || exit 1; done
            # It was the rules that kept them in.
            nft flush ruleset; reaches web 192.0.2.9; reaches out fd00:9::7
            ns del web db other; ip netns del out
            ns network rm back"
        ),
    );
}

fn shut(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add --network lab --internal --subnet 10.9.0.0/24 web >/dev/null
        ip -d link show lab | grep -q 'alias drayage internal'
        # Whoever joins is inside as well, by another root too, and nobody makes the bridge another one.
        ns add --root $SANDBOX/other --network lab db >/dev/null
        test -z \"$(ip -n db route show default)$(nft list ruleset | grep masquerade)\"
        nft list chain ip drayage-net lab/guard >before; grep -q 'iifname \"lab\" oifname != \"lab\" drop' before
        ns del --root $SANDBOX/other db
        ns add --network open --subnet 10.8.0.0/24 far >/dev/null
        ! ns add --network open --internal near 2>err || exit 1
        grep -qx 'ns: add near: open already leads outwards' err
        # A container is inside one and outside by another.
        ns add --network lab --network open both >both.json; ip -n both route | grep '^default' | grep -q 'via 10.8.0.1 dev eth1'
        python3 -c 'import json; n = json.load(open(\"both.json\"))[\"network\"]; assert n[\"ips\"][0][\"gateway\"] == \"10.8.0.1\" and n[\"ips\"][1][\"internal\"], n'
        ns add --none quiet >/dev/null; ! ns add --join both --internal x 2>/dev/null || exit 1
        ns del web far both quiet",
    );
}

fn ports(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "ns network create --internal back
            run -d --name web --network back -p 8080:80 {image} httpd -f -h / 2>err >/dev/null
            grep -q 'web is in internal networks only: its ports are not published' err
            ! busybox wget -T 1 -qO- http://127.0.0.1:8080/etc/hostname 2>/dev/null || exit 1
            run --rm --network back {image} sh -c 'until wget -qO- http://web/etc/hostname; do :; done; ! ip route | grep default' | grep -q .
            # Flushed rules come back, and so does the container, where it was.
            before=$(nft list ruleset); ns check; nft flush ruleset; ! ns check 2>/dev/null || exit 1; ns restore; ns check
            test \"$before\" = \"$(nft list ruleset)\"
            ip link del back; ns restore; ns check; ip -d link show back | grep -q 'drayage internal'
            keep restart web 2>/dev/null; ip netns exec web ip route | grep -q '^10'; ! ip -n web route | grep default || exit 1
            keep stop -t 0 web; ! ns network rm back 2>err || exit 1; grep -qx 'ns: rm back: network back is in use by web' err
            keep rm web; ns network rm back
            # By a network that is not internal they are reached.
            ns network create --internal back
            run -d --name web --network back --network front -p 8080:80 {image} httpd -f -h / >/dev/null
            until busybox wget -qO- http://127.0.0.1:8080/etc/hostname; do :; done >/dev/null
            keep rm -f web; ns network rm back | grep -qx back"
        ),
    );
}

fn created(sandbox: &Sandbox) {
    script(
        sandbox,
        "long=a-network-with-a-long-name
        test \"$(ns network create --subnet 10.9.0.0/24 --subnet fd00:9::/64 --gateway 10.9.0.254 --ip-range 10.9.0.64/30 -o com.docker.network.driver.mtu=1400 lab)\" = lab
        ns network create $long; ns network create --no-masquerade plain >/dev/null
        ! ip link show lab 2>/dev/null || exit 1
        for id in a b c d; do ns add --network lab $id >/dev/null; done
        for id in a b c d; do ip -n $id -4 -o addr show eth0 | grep -o '10.9.0.6[4-7]/24'; done | sort -u | wc -l | grep -qx 4
        ! ns add --network lab e 2>err || exit 1; grep -qx 'ns: add e: no address is free in 10.9.0.64/30' err
        ns add --network lab:ip=10.9.0.9 e >/dev/null
        ip -n a route | grep -q 'default via 10.9.0.254'; ip -n a link show eth0 | grep -q 'mtu 1400'
        ns add --network plain f >/dev/null; ! nft list ruleset | grep -q 'oifname != \"plain\" masq' || exit 1
        ns add --network $long g >/dev/null; ns add --network implicit h >/dev/null
        ns network ls -q | sort | tr '\\n' ' ' | grep -qx \"$long implicit lab plain \"
        ns network list --json >list.json; ns network inspect lab $long >some.json
        ns network list | grep '^lab ' | grep -q 'bridge *10.9.0.0/24,fd00:9::/64 *false *a,b,c,d,e'
        python3 - <<END
import json
rows = {row['name']: row for row in json.load(open('list.json'))}
lab = rows['lab']
assert lab['subnets'] == ['10.9.0.0/24', 'fd00:9::/64'] and lab['gateways'] == ['10.9.0.254', 'fd00:9::1'], lab
assert lab['mtu'] == 1400 and lab['driver'] == 'bridge', lab
assert sorted(lab['containers']) == list('abcde') and lab['containers']['e'][0] == '10.9.0.9', lab
assert rows['implicit']['subnets'] and list(rows['implicit']['containers']) == ['h'], rows
assert json.load(open('some.json')) == [rows['$long'], lab]
END
        # Its networks are its own while nobody is there.
        subnet=$(python3 -c 'import json; print({r[\"name\"]: r for r in json.load(open(\"list.json\"))}[\"plain\"][\"subnets\"][0])')
        ns del --wait a b c d e f g h
        ! ns network create --subnet $subnet twice 2>err || exit 1; grep -q \"ns: create twice: network $subnet is in use: plain has\" err
        ! ns add --network other --subnet 10.9.0.0/25 x 2>err || exit 1; grep -q 'is in use: lab has address 10.9.0.254/24' err
        ns add --network lab a >/dev/null; ip -n a route | grep -q 'default via 10.9.0.254'; ns del --wait a
        # A bridge that only waits for the sweep is in nobody's way.
        ns add --network back a >/dev/null; ns del a; ns network create --internal back
        ns network rm lab $long plain back >gone; wc -l <gone | grep -qx 4; ns network list -q | wc -l | grep -qx 0
        test -z \"$(ls -A $DRAYAGE_ROOT/networks)\"",
    );
}

fn refused(sandbox: &Sandbox) {
    script(
        sandbox,
        "fails() { want=$1 code=$2; shift 2; status=0; ns network \"$@\" 2>err >/dev/null || status=$?
            grep -q \"^ns: $want\" err && test $(wc -l <err) = 1 && test $status = $code || { cat err; exit 1; }; }
        ns network create --subnet 10.9.0.0/24 lab >/dev/null
        fails 'create lab: network lab already exists$' 1 create lab
        fails 'create bridge: network bridge is predefined$' 1 create bridge
        fails 'create lo: network lo already exists: a link has its name$' 1 create lo
        fails 'create x: gateway 10.7.0.1 is in none' 1 create --subnet 10.8.0.0/24 --gateway 10.7.0.1 x
        fails 'create x: range 10.7.0.0/25 is in none' 1 create --subnet 10.8.0.0/24 --ip-range 10.7.0.0/25 x
        fails 'create x: network 10.9.0.0/16 is in use: lab has' 1 create --subnet 10.9.0.0/16 x
        fails 'create x: -o com.docker.network.bridge.name=b: not honoured$' 2 create -o com.docker.network.bridge.name=b x
        fails '.*overlay' 2 create -d overlay x
        fails '.*macvlan' 2 create -d routed --macvlan lo x
        fails '.*label' 2 create --label a=b x
        fails '.*internal' 2 create -d macvlan --macvlan lo --internal x
        fails 'create x: macvlan is' 2 create -d macvlan x
        for name in ../x /etc/x '' .x 'a b' $(printf %128s | tr ' ' x); do fails '.*a network.s name' 1 create \"$name\"; done
        fails '.*a network.s name' 1 rm ../lab
        fails 'rm none-such: no network none-such$' 1 rm none-such
        fails 'no network none-such$' 1 inspect lab none-such
        ns network rm -f none-such | grep -qx none-such
        ! ns add --network lab --subnet 10.8.0.0/24 web 2>err || exit 1
        grep -q 'ns: add web: network lab: give its subnets and other settings to .ns network create.' err
        # Damaged, it might have been an internal one.
        echo '{' >$DRAYAGE_ROOT/networks/lab; ! ns add --network lab web 2>err || exit 1; grep -q 'read .*networks/lab: EOF' err
        ns network rm lab
        chmod 755 $SANDBOX; mkdir -m 777 $SANDBOX/own
        ! setpriv --reuid 1000 --regid 1000 --clear-groups ns network create --root $SANDBOX/own x 2>err || exit 1
        grep -q \"ns: networks are bridges, and only root can make bridges\" err; test -z \"$(ls $SANDBOX/own)\"",
    );
}

fn in_use(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "ns network create back; run -d --name web --network name=back,alias=w {image} sleep 300 >/dev/null
            ns add --network back db >/dev/null
            ! ns network rm back 2>err || exit 1; grep -qx 'ns: rm back: network back is in use by db, web' err
            test -z \"$(ns network prune)\"; ns del db; keep stop -t 0 web
            ! ns network rm back 2>err || exit 1; grep -qx 'ns: rm back: network back is in use by web' err
            keep start web; ns network list | grep '^back ' | grep -q web; keep rm -f web
            # What somebody flushes comes back as the network was created, a damaged one beside it or not.
            ns network create --no-masquerade quiet; run -d --name calm --network quiet {image} sleep 300 >/dev/null
            echo x >$DRAYAGE_ROOT/networks/odd; nft flush ruleset; ns restore 2>/dev/null; ns check
            ! nft list ruleset | grep -q masquerade || exit 1; ns network list 2>err | grep -q calm; grep -q 'read .*/networks/odd: ' err
            keep rm -f calm; ns network rm quiet odd
            # Removed while containers start: either of the two comes first, and an internal network lets nobody out.
            for turn in 1 2 3 4 5 6; do
                ns network create --internal race >/dev/null
                ns add --network race web >web.json & ns network rm race 2>err >gone || grep -q 'in use by web' err
                wait $!; ! test -s gone || ! grep -q '\"internal\":true' web.json || exit 1
                test -s gone || grep -q '\"internal\":true' web.json
                ns del --wait web; ns network rm -f race >/dev/null; : >gone
            done
            ns network rm back"
        ),
    );
}

fn macvlan(sandbox: &Sandbox) {
    script(
        sandbox,
        "ip link add lan0 type veth peer name lan1; ip link set lan0 up; ip link set lan1 up
        ns network create -d macvlan -o parent=lan0 --subnet 192.0.2.0/24 --gateway 192.0.2.254 lan
        # Earlier versions noted no driver.
        sed -i 's/,\"driver\":\"macvlan\"//' $DRAYAGE_ROOT/networks/lan; ! grep driver $DRAYAGE_ROOT/networks/lan || exit 1
        ns network create --exist-ok -d macvlan -o parent=lan0 --subnet 192.0.2.0/24 --gateway 192.0.2.254 lan
        ns add --network lan:ip=192.0.2.7 web >/dev/null
        ip -n web -d link show eth0 | grep -q macvlan; ip -n web route | grep -q 'default via 192.0.2.254'
        ns network create -d macvlan -o parent=lan0 --subnet 198.51.100.0/24 other
        # Nothing on the host says who is in it.
        ns network list | grep '^lan ' | grep -q 'macvlan *192.0.2.0/24 *false *web'
        ns network inspect lan | tr -d ' \\n' | grep -q '\"containers\":{\"web\":\\[\"192.0.2.7\"\\]}'
        ns network list | grep '^other ' | grep -vq web
        ! ns network rm lan 2>err || exit 1; grep -qx 'ns: rm lan: network lan is in use by web' err
        ns connect other:ip=198.51.100.7 web; ns network list | grep '^other ' | grep -q web
        ! ns disconnect --root $SANDBOX/other lan web 2>err || exit 1; grep -q 'container web is not on lan' err
        ns disconnect lan web; ip -n web link | grep -c eth0 | grep -qx 0; ip -n web addr show eth1 | grep -q 198.51.100.7
        ! ns disconnect lan web 2>err || exit 1; grep -qx 'ns: disconnect web: container web is not on lan' err
        ns network rm lan; ns disconnect other web; ip -n web -o link | wc -l | grep -qx 1
        ns del web; ns network rm other; ip link del lan0",
    );
}

fn killed(sandbox: &Sandbox) {
    script(
        sandbox,
        "for turn in $(seq 30); do
            ns network create --internal lab >/dev/null 2>&1 & test $((turn % 3)) = 0 || kill -9 $! || true; wait $! || true
            test ! -e $DRAYAGE_ROOT/networks/lab || ns network inspect lab | grep -q '\"internal\": true'
            ns network rm -f lab >/dev/null
        done
        touch $DRAYAGE_ROOT/networks/.lab; ns network list -q | wc -l | grep -qx 0
        ns network create lab; test \"$(ls -A $DRAYAGE_ROOT/networks)\" = lab; ns network rm lab",
    );
}
