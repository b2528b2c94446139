//! Networks without a bridge's ports: the host routes to each container.

use super::created::OUTSIDE;
use super::{NET, PIPELINE, script};
use crate::support::{Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_routed_network_leads_to_each_other_and_outside", NET, reached),
        test("ports_in_a_routed_network_are_published", PIPELINE, ports),
        test("an_internal_routed_network_is_shut", NET, internal),
        test("a_routed_network_comes_back_after_a_flush", PIPELINE, restored),
        test("a_container_joins_and_leaves_a_routed_network", NET, connected),
        test("what_does_not_fit_into_a_routed_network_is_said", NET, refused),
        test("kill_9_in_a_routed_network_leaves_what_del_removes", NET, killed),
    ]
}

fn reached(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{OUTSIDE}
            ns network create --driver routed --subnet 10.9.0.0/20 --subnet fd00:9::/64 lab
            ns add --network lab:ip=10.9.0.7,ip6=fd00:9::7 web >web.json
            ns add --network lab:ip=10.9.0.8,ip6=fd00:9::8 db >/dev/null
            ns add --network other:ip=10.8.0.8 --subnet 10.8.0.0/24 far >/dev/null
            test -z \"$(ip -o link show master lab)\"
            # Nobody asks for a link-layer address, and no neighbour counts towards the kernel's limit.
            ip neigh show nud permanent | grep -c 'dev dr' | grep -qx 4
            ip -n web neigh show nud permanent | grep -c 'dev eth0' | grep -qx 2
            for there in 10.9.0.1 10.9.0.8 192.0.2.9 fd00:9::1 fd00:9::8 fd00:2::9; do reaches web $there; done
            for there in 10.9.0.7 fd00:9::7; do python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], 9))' $there 2>&1 | grep -q refused; done
            # The host speaks as the gateway, and others get no further than to what is published.
            ip route get 10.9.0.7 | grep -q 'src 10.9.0.1'; ip -6 route get fd00:9::7 | grep -q 'src fd00:9::1'
            for there in 10.9.0.7 fd00:9::7; do reaches out $there && exit 1; done
            reaches far 10.9.0.7 && exit 1; reaches web 10.8.0.8 && exit 1
            ns network list | grep '^lab ' | grep -q 'routed *10.9.0.0/20,fd00:9::/64 *false *web,db'
            python3 -c 'import json; n = json.load(open(\"web.json\"))[\"network\"]; assert n[\"ips\"][0] == {{\"address\": \"10.9.0.7/20\", \"gateway\": \"10.9.0.1\", \"interface\": 2}}, n'
            ns network rm lab 2>err && exit 1; grep -qx 'ns: rm lab: network lab is in use by db, web' err
            # By another root, which does not know how it was created.
            ns add --root $SANDBOX/other --network lab guest >/dev/null; reaches guest 10.9.0.7; ns del --root $SANDBOX/other guest
            # An address is free at once, though the kernel still removes the link of the one that had it.
            for turn in 1 2 3 4 5; do ns del web; ns add --network lab:ip=10.9.0.7,ip6=fd00:9::7 web >/dev/null; reaches db 10.9.0.7; reaches db fd00:9::7; done
            ns del --wait web far; ip route | grep -c '10.9.0.7' | grep -qx 0; reaches db 192.0.2.9
            ns del --wait db; ip -br link | grep -c -e '^dr' -e '^lab' | grep -qx 0
            ip netns del out; ns network rm lab"
        ),
    );
}

fn ports(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "{OUTSIDE}
            get() {{ ip netns exec $1 python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode().strip())' http://$2/etc/hostname; }}
            ns network create -d routed lab
            run -d --name web --network lab -p 8080:80 {image} httpd -f -h / >/dev/null
            ns add --network lab db >/dev/null
            until busybox wget -qO- http://127.0.0.1:8080/etc/hostname; do :; done | grep -qx web
            get out 192.0.2.1:8080 | grep -qx web; get db 192.0.2.1:8080 | grep -qx web; get web 192.0.2.1:8080 | grep -qx web
            get out $(ip -n web -4 -o addr show eth0 | awk '{{print $4}}' | cut -d/ -f1):80 && exit 1
            run --rm --network lab {image} sh -c 'ip route' | grep -q '^default via'
            # A name is one that was asked for, as on the default network.
            run -d --name sql --network lab --network-alias db {image} sleep 300 >/dev/null
            run --rm --network name=lab,alias=x {image} grep -q db /etc/hosts
            # Beside somebody who forwards nothing.
            nft 'add table ip fw; add chain ip fw FORWARD {{ type filter hook forward priority 0; policy drop; }}'
            ns add --network lab late >/dev/null; reaches late 192.0.2.9
            nft list chain ip fw FORWARD | grep -c 'ifname \"dr......\\*\" accept' | grep -qx 2
            ns del late db; keep rm -f web sql
            until ! nft list chain ip fw FORWARD | grep accept; do :; done
            nft delete table ip fw; ip netns del out; ns network rm lab"
        ),
    );
}

fn internal(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{OUTSIDE}
            ns network create -d routed --internal --subnet 10.9.0.0/24 --subnet fd00:9::/64 lab
            ns add --network lab:ip=10.9.0.7,ip6=fd00:9::7 web >/dev/null
            ns add --network lab:ip=10.9.0.8,ip6=fd00:9::8 db >/dev/null
            for there in 10.9.0.1 10.9.0.8 fd00:9::1 fd00:9::8; do reaches web $there; done
            test -z \"$(ip -n web route show default; ip -n web -6 route show default)\"
            ip -n web route add default via 10.9.0.1; ip -n web route add default via fd00:9::1
            for there in 192.0.2.9 fd00:2::9; do reaches web $there && exit 1; done
            for there in 10.9.0.7 fd00:9::7; do reaches out $there && exit 1; done
            nft flush ruleset; reaches web 192.0.2.9; reaches out fd00:9::7
            ns del web db; ip netns del out; ns network rm lab"
        ),
    );
}

fn restored(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "ns network create -d routed --ipv6 a-network-with-a-long-name; ns network create -d routed --internal inner
            for name in web db; do run -d --name $name --network a-network-with-a-long-name --network inner {image} sleep 300 >/dev/null; done
            state() {{ nft list ruleset; ip route; ip -6 route; ip -br link | sed 's/@.*//' | sort; ip -o addr show scope global | sed 's/^[0-9]*://' | sort; }}
            state >before; ns check
            there=$(ip -n db -4 -o addr show eth0 | awk '{{print $4}}' | cut -d/ -f1)
            for taken in 'nft flush ruleset' \"ip route del $there\" 'ip link del inner' 'ip link del a-network-with-a-long-name'; do
                $taken; ns check 2>err && exit 1; grep -q 'ns: networks have lost something' err; ns restore; ns check
                state >after; diff <(sort before) <(sort after) || exit 1
                spawn exec web ping -c 1 -W 5 $there
            done
            keep restart web 2>/dev/null; spawn exec web ping -c 1 -W 5 $there
            keep rm -f web db; ns network rm a-network-with-a-long-name inner"
        )
        .replace("diff <(sort before) <(sort after)", "sort before >before.sorted; sort after | diff before.sorted -"),
    );
}

fn connected(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns network create -d routed --subnet 10.9.0.0/24 lab; ns network create -d routed --subnet 10.7.0.0/24 side
        ns add --network front:ip=10.8.0.7 --subnet 10.8.0.0/24 web >/dev/null; ns add --network lab:ip=10.9.0.8 db >/dev/null
        ns connect lab:ip=10.9.0.7 web; ns connect side web
        ip -n web route show default | head -1 | grep -q 10.8.0.1; ip -n web route get 10.9.0.8 | grep -q 'via 10.9.0.1 dev eth1'
        ip netns exec db python3 -c 'import socket; socket.create_connection((\"10.9.0.7\", 9), 5)' 2>&1 | grep -q refused
        ns connect lab web 2>err && exit 1; grep -qx 'ns: connect web: container web is already on lab' err
        ns disconnect lab web; ip -n web -br link | grep -c eth | grep -qx 2; ip route | grep -c 10.9.0.7 | grep -qx 0
        ns disconnect lab web 2>err && exit 1; grep -qx 'ns: disconnect web: container web is not on lab' err
        ns disconnect front web; ns add --network front web 2>err && exit 1; grep -q 'namespace web exists' err
        ip -n web route show default | grep -q 10.7.0.1; ns network list | grep '^side ' | grep -q web
        ns del --wait web db; ns network rm lab side",
    );
}

fn refused(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns network create -d routed --subnet 10.9.0.0/29 lab
        for id in a b c d e; do ns add --network lab $id >/dev/null; done
        ns add --network lab f 2>err && exit 1; grep -qx 'ns: add f: no address is free in 10.9.0.0/29' err
        ns del a; ns add --network lab:ip=$(ip -n b -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1) f 2>err && exit 1
        grep -q '^ns: add f: address 10.9.0.[0-9] is taken by b$' err
        ns add --network lab b 2>err && exit 1; grep -q 'ns: add b: network namespace b exists' err
        ns add --network lab f >/dev/null; ip netns exec f ip route | grep -q 'default via 10.9.0.1'
        ns del --wait b c d e f; ip -br link | grep -c '^dr' | grep -qx 0
        ns network rm lab",
    );
}

fn killed(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns network create -d routed --internal lab
        for turn in $(seq 40); do
            ns add --network lab web >/dev/null 2>&1 & test $((turn % 4)) = 0 || kill -9 $! || true; wait $! || true
            # By nobody's help the next one is inside, too.
            ns add --network lab db >/dev/null; ip -n db route show default | wc -l | grep -qx 0
            test -z \"$(ip -o link show master lab)\"
            ns del --wait web db
            ip -br link | grep -v ^lo | wc -l | grep -qx 0
        done
        ns network rm lab",
    );
}
