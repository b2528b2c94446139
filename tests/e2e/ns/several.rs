//! A container on several networks.

use super::{NET, PIPELINE, script};
use crate::support::{Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_container_is_on_several_networks", NET, several),
        test("the_network_of_the_highest_priority_leads_outwards", NET, priorities),
        test("names_are_those_of_each_network", NET, names),
        test("run_takes_several_networks", PIPELINE, run),
        test("restore_puts_back_each_network", PIPELINE, restore),
        test("what_fails_at_the_second_network_undoes_the_first", NET, undo),
        test("a_record_gets_one_network_after_the_other", NET, twice),
        test("a_container_that_runs_is_connected_and_disconnected", PIPELINE, connect),
        test("what_cannot_be_connected_is_said", NET, unconnected),
        test("kill_9_in_connect_leaves_what_disconnect_and_del_remove", NET, killed),
    ]
}

/// Whether a container gets an answer from an address, if only that nobody listens there.
const REACHES: &str = r"reaches() { ip netns exec $1 python3 -c '
import socket, sys
client = socket.socket(); client.settimeout(2.5)
try: client.connect((sys.argv[1], 9))
except ConnectionRefusedError: pass
except OSError: sys.exit(1)' $2; }";

fn several(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!("ns add --network back --subnet 10.9.0.0/24 db >/dev/null
        ns add --network front --network back:ip=10.9.0.7,mac=02:00:00:00:00:07,interface_name=inner --network bridge web >web.json
        ip -n web -br addr show inner | grep -q '10.9.0.7/24'
        ip -n web link show inner | grep -q '02:00:00:00:00:07'
        ip -n web addr show eth1 | grep -q 'inet 10.213.'
        ip -n web route | grep '^default' | head -1 | grep 'dev eth0' | grep -vq metric
        {REACHES}
        reaches web $(ip -n db -4 -o addr show eth0 | awk '{{print $4}}' | cut -d/ -f1)
        python3 - <<END
import json
network = json.load(open('web.json'))['network']
assert len(network['interfaces']) == 9 and len(network['ips']) == 3, network
for ip in network['ips']:
    assert network['interfaces'][ip['interface']]['sandbox'] == '/run/netns/web', network
assert [network['interfaces'][ip['interface']]['name'] for ip in network['ips']] == ['eth0', 'inner', 'eth1'], network
END
        ns del web; ns del db"),
    );
}

fn priorities(sandbox: &Sandbox) {
    script(
        sandbox,
        "default() { ip -n web -$1 route show default | head -1; }
        ns add --network front --ipv6 --network back:gw-priority=5 --network name=side,gw-priority=-1 web >web.json
        default 4 | grep -q 'dev eth1'; default 6 | grep -q 'dev eth0'
        ip -n web -4 route show default | sed -n 2p | grep -q 'dev eth0'
        ip -n web -4 route show default | sed -n 3p | grep -q 'dev eth2'
        # Ports lead to where answers go out.
        test $(ip -n web -4 -o addr show eth1 | awk '{print $4}') = \\
            $(python3 -c 'import json; print(json.load(open(\"web.json\"))[\"network\"][\"ips\"][0][\"address\"])')
        ns del web",
    );
}

fn names(sandbox: &Sandbox) {
    script(
        sandbox,
        "add() { id=$1; shift; mkdir -p $id; echo '{}' >$id/config.json; printf '127.0.0.1\\tlocalhost\\n' >$id/hosts
            ns add \"$@\" $id/ >$id.json; }
        names() { grep -v '^#' $1/hosts | awk 'NR > 1 {print $2}' | sort | tr '\\n' ' '; echo; }
        add web --network front; add db --network back:alias=sql; add far --network side
        add app --network front --network back:alias=app.back
        test \"$(names web)\" = 'app web '; test \"$(names db)\" = 'app db '; test \"$(names far)\" = 'far '
        test \"$(names app)\" = 'app db web '
        grep -q 'app app.back' db/hosts; ! grep -q app.back web/hosts || exit 1
        ns del app; test \"$(names web)$(names db)\" = 'web db '
        ns del web db far; ls $DRAYAGE_ROOT/run/hosts | wc -l | grep -qx 0",
    );
}

fn run(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "run -d --name db --network back --network-alias sql {image} sleep 300 >/dev/null
            out=$(run --rm --network front --network back:alias=app {image} sh -c 'ping -c 1 -W 2 sql >/dev/null && ip -o link | wc -l')
            test \"$out\" = 3
            ! run --rm --network front --network host {image} true 2>err || exit 1; grep -q 'several --network must all be bridges' err
            run -d --name web --network front --network back -p 8080:80 {image} httpd -f -h / >/dev/null
            until busybox wget -qO- http://127.0.0.1:8080/etc/hostname; do :; done >/dev/null
            keep rm -f web db"
        ),
    );
}

fn restore(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "ns add --network back first >/dev/null
            run -d --name web --network front --network back {image} sleep 300 >/dev/null
            ns check; before=$(nft list ruleset | sort)
            nft flush ruleset; ip link del back; ! ns check 2>/dev/null || exit 1; ns restore; ns check
            test \"$before\" = \"$(nft list ruleset | sort)\"
            keep rm -f web; ns del first"
        ),
    );
}

fn undo(sandbox: &Sandbox) {
    script(
        sandbox,
        "ip addr add 10.9.0.1/24 dev lo
        ! ns add --network front --network back:ip=10.4.0.1 web 2>err || exit 1
        grep -qx 'ns: add web: address 10.4.0.1 is not in .*' err
        ip addr del 10.9.0.1/24 dev lo; test -z \"$(ls $DRAYAGE_ROOT/run/hosts 2>/dev/null)\"",
    );
}

fn twice(sandbox: &Sandbox) {
    script(
        sandbox,
        "mkdir b; echo '{}' >b/config.json; printf '127.0.0.1\\tlocalhost\\n' >b/hosts
        echo \"{\\\"id\\\":\\\"web\\\",\\\"bundle\\\":\\\"$PWD/b\\\"}\" >bundled.json
        ns network create --subnet 10.9.0.0/24 back
        ns add --subnet 10.8.0.0/24 bundled.json | ns add --network back:ip=10.9.0.7 | ns add --network side >web.json
        python3 - <<END
import json
record = json.load(open('web.json'))
assert record['networkOptions'] == ['--subnet=10.8.0.0/24', '--network=bridge', '--network=back:ip=10.9.0.7', '--network=side'], record
ips = [ip['address'] for ip in record['network']['ips']]
assert ips[0].startswith('10.8.0.') and ips[1] == '10.9.0.7/24' and len(ips) == 3, ips
END
        ip -n web route | grep '^default' | head -1 | grep -q 'via 10.8.0.1 dev eth0'; ip -n web route | grep -c '^default' | grep -qx 3
        ! ns add --network more --subnet 10.7.0.0/24 <web.json 2>err || exit 1; grep -q 'ns: --subnet=10.7.0.0/24 excludes further networks' err
        ! ns add --network back <web.json 2>err || exit 1; grep -qx 'ns: add web: container web is already on back' err
        ! ns add --network more <web.json >/dev/full 2>err || exit 1; ! ip link show more 2>/dev/null || exit 1
        ! ns add web 2>err || exit 1; grep -q 'network namespace web exists' err
        ip -n web -br link | grep -c '^eth' | grep -qx 3
        ns del --wait web; ns network rm back",
    );
}

fn connect(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    script(
        sandbox,
        &format!(
            "run -d --name web --network front {image} sleep 300 >/dev/null
            run -d --name db --network back --network-alias sql {image} sleep 300 >/dev/null
            inside() {{ spawn exec web \"$@\"; }}
            ! inside ping -c 1 -W 1 sql 2>/dev/null || exit 1
            ns connect back:ip=$(ip -4 -o addr show back | awk '{{print $4}}' | cut -d. -f1-3).77,alias=app web
            inside ping -c 1 -W 5 sql; spawn exec db ping -c 1 -W 5 app; ip -n web addr show eth1 | grep -q '\\.77/'
            inside ip route | grep '^default' | head -1 | grep -q eth0
            grep -q 'networkOptions.*--network=back:ip=[0-9.]*77,alias=app' $DRAYAGE_ROOT/containers/web/record.json
            ! ns network rm back 2>err || exit 1; grep -qx 'ns: rm back: network back is in use by db, web' err
            # Started again it is in both, and in one when it has left the other.
            keep restart web 2>/dev/null; inside ping -c 1 -W 5 sql; spawn exec db ping -c 1 -W 5 app
            before=$(nft list ruleset | sort); nft flush ruleset; ns restore; test \"$before\" = \"$(nft list ruleset | sort)\"
            ns disconnect front web
            ! ip -n web link show eth0 2>/dev/null || exit 1; inside ip route | grep '^default' | grep -q eth1; inside ping -c 1 -W 5 sql
            until ! ip link show front 2>/dev/null; do :; done
            keep restart web 2>/dev/null; inside ip -o link | wc -l | grep -qx 2; inside ping -c 1 -W 5 sql
            ns disconnect back web; ! grep -v '^#' $DRAYAGE_ROOT/containers/db/hosts | grep -q app || exit 1
            ! grep -v '^#' $DRAYAGE_ROOT/containers/web/hosts | grep -q sql || exit 1; inside ip -o link | wc -l | grep -qx 1
            keep restart web 2>/dev/null; inside ip -o link | wc -l | grep -qx 1
            # One that lives leaves nothing, wherever it has been.
            ns network create --internal inner; ns connect inner web; ! inside ip route | grep default || exit 1
            ns connect back web; inside ip route | grep '^default' | grep -q eth1; inside ping -c 1 -W 5 sql
            ns disconnect inner web; ns disconnect back web
            # Two at once: the record has both.
            for turn in 1 2 3 4; do
                ns connect front web & ns connect back web & ns connect inner web; wait
                for name in front back inner; do grep -q -e \"--network=$name\" $DRAYAGE_ROOT/containers/web/record.json; done
                ns disconnect front web & ns disconnect back web & ns disconnect inner web; wait
                grep -c -e '--network=[fbi]' $DRAYAGE_ROOT/containers/web/record.json | grep -qx 0
            done
            keep rm -f web db; ns network rm inner"
        ),
    );
}

fn unconnected(sandbox: &Sandbox) {
    script(
        sandbox,
        "fails() { want=$1; shift; ! ns \"$@\" 2>err || exit 1; grep -qx \"ns: $want\" err || { cat err; exit 1; }; test $(wc -l <err) = 1; }
        ns add --network front web >/dev/null
        fails 'connect none: network namespace none is gone: does it run?' connect front none
        fails 'connect web: container web is already on front' connect front web
        fails 'connect web: network namespace web exists: .*' connect --root $SANDBOX/other back web
        fails 'disconnect web: container web is not on back' disconnect back web
        fails 'disconnect web: container web is not on front' disconnect --root $SANDBOX/other front web
        fails 'connect web: address 192.0.2.1 is not in .*' connect back:ip=192.0.2.1 web
        fails 'bad address x.*' connect back:ip=x web
        ! ip link show back 2>/dev/null || exit 1; ip -n web -br link | grep -c '^eth' | grep -qx 1
        ns disconnect front web; ns connect back web; ip -n web link show eth0; ip -n web route | grep -q '^default'
        ns del web",
    );
}

fn killed(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add --network front web >/dev/null
        for turn in $(seq 40); do
            ns connect back web 2>/dev/null & test $((turn % 4)) = 0 || kill -9 $! || true; wait $! || true
            ns disconnect back web 2>/dev/null || true
            ip -n web -br link | grep -c '^eth' | grep -qx 1 || { ip -n web link; exit 1; }
        done
        ns connect back web; ip -n web link show eth1; ns del --wait web",
    );
}
