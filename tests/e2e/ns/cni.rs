//! Networks that are made otherwise: by CNI's plugins, and on the network of one of the host's links.

use super::{NET, script};
use crate::support::{Need, Sandbox, Test, test};

const PLUGINS: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("ip"), Need::Program("/usr/lib/cni/bridge")];
const REACH: &[Need] = &[Need::NetNs, Need::Program("ip"), Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("plugins_of_cni_make_a_network_and_undo_it", PLUGINS, plugins),
        test("addresses_are_shared_with_the_plugin_host_local", PLUGINS, host_local),
        test("a_plugin_that_fails_leaves_nothing", PLUGINS, failing),
        test("what_plugins_made_for_a_killed_add_is_undone_by_del", PLUGINS, killed),
        test("a_list_that_is_none_is_one_error_line", NET, lists),
        test("a_macvlan_reaches_the_network_of_the_host", REACH, macvlan),
    ]
}

/// A list whose first plugin is a bridge with addresses of host-local, and what more is asked for.
fn list(more: &str) -> String {
    format!(
        r#"cat >lab.conflist <<EOF
{{"cniVersion": "1.0.0", "name": "lab", "plugins": [
    {{"type": "bridge", "bridge": "cni-lab0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {{"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": "$PWD/leases", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}{more}]}}
EOF
        mkdir -p plugins; ln -s /usr/lib/cni/* plugins; export CNI_PATH=$PWD/plugins
        lease() {{ ls leases/lab 2>/dev/null | grep ^10 || echo none; }}
        nothing() {{ test "$(lease)" = none; test ! -e /run/netns/web; test -z "$(ls $DRAYAGE_ROOT/run/cni)"
            ! ip link | grep -q veth || exit 1; ip link del cni-lab0; }}
        "#
    )
}

fn plugins(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{}
            mkdir b; echo '{{}}' >b/config.json; echo >b/hosts
            ns add --cni lab.conflist --ifname net7 --id web b/ >record
            address=$(jq -r .network.ips[0].address record)
            ip -n web addr show net7 | grep -q \"inet $address\"; test \"$(lease)\" = ${{address%/*}}
            jq -e '.linux.namespaces[0].path == \"/run/netns/web\"' b/config.json >/dev/null; grep -q ${{address%/*}} b/hosts
            ip -n web link show lo | grep -q LOOPBACK,UP
            ! ns add --cni lab.conflist web 2>err || exit 1; grep -q 'network namespace web exists' err; test \"$(lease)\" = ${{address%/*}}
            portmap -p 8080:80 record >/dev/null; portmap del web
            ns del web; nothing; ns del web",
            list(r#", {"type": "tuning", "sysctl": {"net.ipv4.conf.net7.forwarding": "0"}}"#)
        ),
    );
}

/// The bridge plugin's containers and ours on one bridge of five addresses: nobody gets another's.
fn host_local(sandbox: &Sandbox) {
    script(
        sandbox,
        r#"mkdir -p var /var/lib/cni; mount --bind var /var/lib/cni
        lab='{"cniVersion": "1.0.0", "name": "lab", "type": "bridge", "bridge": "cni-lab0", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.88.0.0/29"}}'
        plugin() { echo "$lab" | CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni /usr/lib/cni/bridge >$2.json; }
        address() { jq -r '.ips[0].address' $1.json; }
        leases() { ls /var/lib/cni/networks/lab | grep -c ^10; }
        add() { ns add --bridge cni-lab0 --host-local lab $1 | jq .network >$1.json; }
        ip netns add one; plugin ADD one; add web; ip netns add two; plugin ADD two; add db
        for name in one web two db; do address $name; done | sort -u | grep -c 10.88.0 | grep -qx 4
        test "$(leases)" = 4
        tr -d '\r' </var/lib/cni/networks/lab/$(address web | sed s,/.*,,) | tr '\n' ' ' | grep -qx 'web eth0'
        ip netns add three; plugin ADD three; ! ns add --bridge cni-lab0 --host-local lab none 2>err || exit 1
        grep -q 'no address is free in 10.88.0.0/29' err; ns del web; test "$(leases)" = 4
        for name in one two three; do plugin DEL $name; ip netns del $name; done
        ns del db; test "$(leases)" = 0; ns del db; ip link del cni-lab0; umount /var/lib/cni"#,
    );
}

fn failing(sandbox: &Sandbox) {
    let answer = r#"{"code": 7, "msg": "two\nlines"}"#;
    sandbox.write(
        "bad",
        format!("#!/bin/sh\ncat >/dev/null; [ $CNI_COMMAND = DEL ] || {{ printf %s '{answer}'; exit 1; }}\n"),
    );
    script(
        sandbox,
        &format!(
            "{}
            ! ns add --cni lab.conflist web 2>err || exit 1; grep -qx 'ns: add web: no plugin bad in .*/plugins' err; rm err
            # It cannot be undone by what is not there either: that is said, and del does the rest later.
            cp bad plugins/bad; chmod +x plugins/bad
            ns del web; nothing
            ! ns add --cni lab.conflist web 2>err || exit 1; grep -qx 'ns: add web: plugin bad: ADD: two lines' err; nothing
            printf '#!/bin/sh\\ncat >/dev/null; echo ok\\n' >plugins/bad
            ! ns add --cni lab.conflist web 2>err || exit 1; grep -q 'ns: add web: result of bad: ' err; nothing",
            list(r#", {"type": "bad"}"#)
        ),
    );
}

fn killed(sandbox: &Sandbox) {
    script(
        sandbox,
        &format!(
            "{}
            printf '#!/bin/sh\\n[ $CNI_COMMAND = DEL ] && exit 0; echo >reached; exec sleep 300\\n' >plugins/slow; chmod +x plugins/slow
            ns add --cni lab.conflist web & P=$!
            until [ -e reached ]; do :; done
            test \"$(lease)\" != none; child=$(cat /proc/$P/task/$P/children); kill -KILL $P $child; wait $P || :
            ns del web; nothing",
            list(r#", {"type": "slow"}"#)
        ),
    );
}

fn lists(sandbox: &Sandbox) {
    for (text, words) in [
        ("[]", "not an object"),
        ("{\"name\":\"x\"", "EOF"),
        ("{\"name\":\"x\",\"plugins\":[{\"type\":\"../../bin/sh\"}]}", "is not a program"),
    ] {
        sandbox.write("odd.conflist", text);
        let outcome = sandbox.run(&["ns", "add", "--cni", "odd.conflist", "web"]).fails(1);
        outcome.one_error_line("ns", &["odd.conflist", words]);
    }
    sandbox.run(&["ns", "add", "--cni", "none", "web"]).fails(1).one_error_line("ns", &["none", "No such file"]);
    sandbox.run(&["ns", "add", "--cni", "x", "--ip", "10.0.0.1", "web"]).fails(2).one_error_line("ns", &["--ip"]);
    assert!(!sandbox.exists("/run/netns/web"));
}

fn macvlan(sandbox: &Sandbox) {
    script(
        sandbox,
        "ip netns add lan; ip link add ext0 type veth peer name eth0 netns lan; ip link set ext0 up
        ip -n lan addr add 192.0.2.1/24 dev eth0; ip -n lan link set eth0 up
        ns add --macvlan ext0 --subnet 192.0.2.0/24 --ip 192.0.2.7 --mac 02:00:00:00:00:07 web >record
        ip netns exec web busybox ping -c 1 -w 5 192.0.2.1 >/dev/null
        ip -n web route | grep -q 'default via 192.0.2.1 dev eth0'
        jq -e '.network.interfaces[0].mac == \"02:00:00:00:00:07\"' record >/dev/null
        ! ns add --macvlan ext0 db 2>err || exit 1; grep -q 'ns: add db: macvlan ext0: --ip and --subnet are needed' err
        ! ns add --macvlan nolink --subnet 192.0.2.0/24 --ip 192.0.2.8 db 2>err || exit 1; grep -q 'nolink: no such link' err
        test ! -e /run/netns/db
        ns del web; ip netns del lan",
    );
}
