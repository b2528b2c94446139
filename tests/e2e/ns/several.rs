//! A container on several networks.

use super::{NET, script};
use crate::support::{Need, Sandbox, Test, image, test};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_container_is_on_several_networks", NET, several),
        test("the_network_of_the_highest_priority_leads_outwards", NET, priorities),
        test("names_are_those_of_each_network", NET, names),
        test("run_takes_several_networks", PIPELINE, run),
        test("restore_puts_back_each_network", PIPELINE, restore),
        test("what_fails_at_the_second_network_undoes_the_first", NET, undo),
    ]
}

/// Whether a container gets an answer from an address, if only that nobody listens there.
const REACHES: &str = r"reaches() { ip netns exec $1 python3 -c '
import socket, sys
client = socket.socket(); client.settimeout(1)
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
        grep -q 'app app.back' db/hosts; ! grep -q app.back web/hosts
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
            ! run --rm --network front --network host {image} true 2>err; grep -q 'of several --network each is' err
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
            nft flush ruleset; ip link del back; ! ns check 2>/dev/null; ns restore; ns check
            test \"$before\" = \"$(nft list ruleset | sort)\"
            keep rm -f web; ns del first"
        ),
    );
}

fn undo(sandbox: &Sandbox) {
    script(
        sandbox,
        "ip addr add 10.9.0.1/24 dev lo
        ! ns add --network front --network back:ip=10.4.0.1 web 2>err
        grep -qx 'ns: add web: address 10.4.0.1 is not in .*' err
        ip addr del 10.9.0.1/24 dev lo; test -z \"$(ls $DRAYAGE_ROOT/run/hosts 2>/dev/null)\"",
    );
}
