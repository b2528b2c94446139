//! `portmap`: host ports to container ports, on a machine with a remote one and two containers.

mod beside;
mod conditions;
mod crash;
mod firewall;
mod proxy;

use crate::support::{Cmd, Need, Sandbox, Test, test};

const NEEDS: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("python3"), Need::Program("bridge")];

pub(crate) fn tests() -> Vec<Test> {
    let own = vec![
        test("every_path_leads_to_the_container", NEEDS, every_path_without_bridge_filter),
        test("every_path_leads_to_the_container_through_the_bridge_filter", NEEDS, every_path_with_bridge_filter),
        test("a_port_on_127_0_0_1_is_closed_to_other_machines", NEEDS, loopback_only),
        test("a_neighbour_does_not_reach_what_listens_on_127_0_0_1", NEEDS, loopback_guard),
        test("a_taken_port_is_refused_and_its_owner_named", NEEDS, taken),
        test("a_dead_container_gives_way", NEEDS, dead_owner),
        test("publishing_again_changes_nothing", NEEDS, again),
        test("a_thousand_ports_are_one_transaction", NEEDS, thousand),
        test("ranges_and_datagrams_arrive", NEEDS, ranges_and_datagrams),
        test("a_foreign_drop_is_said_and_can_be_opened", NEEDS, forward_drop),
        test("ports_held_for_a_process_go_with_it_or_with_their_holder", NEEDS, held),
        test("held_ports_are_withdrawn_changed_and_survive_a_flush", NEEDS, held_changes),
        test("a_cni_runtime_adds_deletes_and_collects", NEEDS, cni),
        test("the_cni_plugins_keys_count_and_are_restored", NEEDS, cni_keys),
        test("what_a_flush_took_is_restored_and_checked", NEEDS, restore),
        test("garbage_is_collected", NEEDS, gc),
        test("wrong_use_is_one_line", &[Need::Root], wrong_use),
    ];
    own.into_iter()
        .chain(beside::tests())
        .chain(conditions::tests())
        .chain(crash::tests())
        .chain(firewall::tests())
        .chain(proxy::tests())
        .collect()
}

/// A script on the topology; it leaves nothing behind.
fn host(sandbox: &Sandbox, bridge_filter: &str, script: &str) -> Cmd {
    sandbox.write("topology.sh", include_str!("portmap/topology.sh"));
    sandbox.write("server.py", include_str!("portmap/server.py"));
    sandbox.write("client.py", include_str!("portmap/client.py"));
    sandbox.sh(&format!("set -- {bridge_filter}; . ./topology.sh\n{script}\ndown"))
}

const PATHS: &str = "
    record web c1 | portmap -p 8080:80 >/dev/null
    for a in 127.0.0.1 203.0.113.1 10.88.0.1 fd03::1 fd88::1 ::1; do echo host $a $(get $a 8080); done
    for a in 203.0.113.1 fd03::1; do echo remote $a $(in_ns rc $a 8080); done
    for a in 203.0.113.1 10.88.0.1 fd03::1; do echo c1 $a $(in_ns c1 $a 8080); done
    for a in 203.0.113.1 10.88.0.1 fd03::1; do echo c2 $a $(in_ns c2 $a 8080); done
    portmap del web
    echo after $(get 127.0.0.1 8080) $(in_ns rc 203.0.113.1 8080)
    nft list ruleset";

const REACHED: &str = "host 127.0.0.1 10.88.0.1
host 203.0.113.1 203.0.113.1
host 10.88.0.1 10.88.0.1
host fd03::1 fd03::1
host fd88::1 fd88::1
host ::1 fd88::1
remote 203.0.113.1 203.0.113.2
remote fd03::1 fd03::2
c1 203.0.113.1 10.88.0.1
c1 10.88.0.1 10.88.0.1
c1 fd03::1 fd88::1
c2 203.0.113.1 10.88.0.1
c2 10.88.0.1 10.88.0.1
c2 fd03::1 fd88::1
after refused refused
";

fn every_path_without_bridge_filter(sandbox: &Sandbox) {
    host(sandbox, "0", PATHS).run().ok().stdout_is(REACHED);
}

fn every_path_with_bridge_filter(sandbox: &Sandbox) {
    host(sandbox, "1", PATHS).run().ok().stdout_is(REACHED);
}

fn loopback_only(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 127.0.0.1:8081:80 >/dev/null
        echo $(get 127.0.0.1 8081) $(get 203.0.113.1 8081) $(in_ns rc 203.0.113.1 8081)
        portmap del web";
    host(sandbox, "1", script).run().ok().stdout_is("10.88.0.1 refused refused\n");
}

/// The neighbour routes 127.0.0.0/8 to the host, where publishing has turned `route_localnet` on.
fn loopback_guard(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 8080:80 -p 127.0.0.1:8081:80 >/dev/null
        python3 server.py tcp:7000 > secret.out & secret=$!
        until grep -q ready secret.out; do :; done
        for n in rc c2; do
            ip netns exec $n sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet'
            ip -n $n addr del 127.0.0.1/8 dev lo
            ip -n $n route del table local 127.0.0.0/8 dev lo 2>/dev/null
        done
        ip -n rc route add 127.0.0.1 via 203.0.113.1 src 203.0.113.2
        ip -n c2 route add 127.0.0.1 via 10.88.0.1 src 10.88.0.12
        echo $(get 127.0.0.1 7000) $(in_ns rc 127.0.0.1 7000) $(in_ns c2 127.0.0.1 7000) $(in_ns rc 127.0.0.1 8081)
        kill $secret; portmap del web";
    host(sandbox, "1", script).run().ok().stdout_is("127.0.0.1 silence silence silence\n");
}

fn taken(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 8080:80 -p 7000-7010:7000-7010 >/dev/null
        for p in 8080:80 127.0.0.1:8080:80 7005:80 7010-7020:7010-7020; do record db c2 | portmap -p $p 2>&1; echo $?; done
        python3 server.py tcp:9000 > busy.out & busy=$!
        until grep -q ready busy.out; do :; done
        record db c2 | portmap -p 9000:80 2>&1 | sed 's/[0-9]*)/N)/'
        kill $busy
        record db c2 | portmap -p 9001:80 -p 8080:80 >/dev/null 2>&1
        portmap list db; portmap list -q
        portmap del web; portmap list";
    let web = |port: &str| format!("portmap: publish {port}/tcp for db: port is taken by container web\n1\n");
    let ports = ["0.0.0.0:8080", "127.0.0.1:8080", "0.0.0.0:7005", "0.0.0.0:7010-7020"].map(web).concat();
    let process = "portmap: publish 0.0.0.0:9000/tcp for db: port is taken by python3 (process N)\n";
    let empty = "HOST  CONTAINER  PROTOCOL  ID\n";
    host(sandbox, "1", script).run().ok().stdout_is(&format!("{ports}{process}{empty}web\n{empty}"));
}

/// A container whose namespace is gone, as after `kill -9` of everything, holds no port.
fn dead_owner(sandbox: &Sandbox) {
    let script = "ip netns add dead
        record old c1 | sed s,/c1,/dead, | portmap -p 8080:80 >/dev/null
        ip netns del dead
        record web c1 | portmap -p 8080:80 >/dev/null && get 127.0.0.1 8080
        portmap list | grep -c old
        portmap del web";
    host(sandbox, "1", script).run().stdout_is("10.88.0.1\n0\n");
}

fn again(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 8080:80 -p 53:53/udp >one; nft list ruleset >before
        record web c1 | portmap -p 8080:80 -p 53:53/udp >two; nft list ruleset >after
        cmp one two && cmp before after && echo same
        portmap del web && portmap del web && nft list ruleset";
    host(sandbox, "1", script).run().ok().stdout_is("same\n");
}

fn thousand(sandbox: &Sandbox) {
    let script = "ulimit -Sn 300; nft monitor > monitor.out & monitor=$!
        record web c1 | portmap -p 20000-20999:30000-30999 | grep -o hostPort | wc -l
        nft list ruleset | grep -c 'comment \"id=web .*netns=/run/netns/c1'
        nft list map ip portmap any | grep -o 20999
        record web c1 | portmap -p 21000-60000:21000-60000 >/dev/null
        portmap list | grep -c 21000-60000
        kill $monitor; wait $monitor 2>/dev/null
        portmap del web; nft list ruleset";
    // 1,000 elements in each family and a hairpin in each.
    host(sandbox, "1", script).run().ok().stdout_is("1000\n2002\n20999\n2\n");
}

fn ranges_and_datagrams(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 7000-7010:7000-7010 -p 8005:7005 -p 5353:53/udp >/dev/null
        echo $(in_ns rc 203.0.113.1 7005) $(in_ns rc fd03::1 8005) $(get 127.0.0.1 7005)
        echo $(in_ns rc 203.0.113.1 5353 udp) $(get 127.0.0.1 5353 udp) $(in_ns c2 10.88.0.1 5353 udp)
        portmap del web -p 5353:53/udp
        echo $(get 127.0.0.1 5353 udp) $(in_ns rc 203.0.113.1 7005)
        portmap del web; nft list ruleset";
    let want = "203.0.113.2 fd03::2 10.88.0.1\n203.0.113.2 10.88.0.1 10.88.0.1\nrefused 203.0.113.2\n";
    host(sandbox, "1", script).run().ok().stdout_is(want);
}

fn forward_drop(sandbox: &Sandbox) {
    let script =
        "nft 'add table ip fw; add chain ip fw forwarded { type filter hook forward priority 0; policy drop; }'
        record web c1 | portmap -p 8080:80 2>&1 >/dev/null
        echo $(in_ns rc 203.0.113.1 8080) $(get 127.0.0.1 8080)
        record web c1 | portmap --forward=insert -p 8080:80 2>&1 >/dev/null
        echo $(in_ns rc 203.0.113.1 8080)
        portmap del web; nft delete table ip fw; nft list ruleset";
    let want = "portmap: warning: chain forwarded of table fw drops forwarded packets: other machines will not reach the ports; \
                --forward=insert lets them\nsilence 10.88.0.1\n203.0.113.2\n";
    host(sandbox, "0", script).run().ok().stdout_is(want);
}

/// Killed with a signal that nothing can catch: the process that the ports are for, and the one that holds them.
fn held(sandbox: &Sandbox) {
    let script = "hold() { sleep 1000 & work=$!; record web c1 | portmap -p 8080:80 -p '[::1]:8080:80' --while $work; }
        holder() { portmap list --json | sed -n 's/.*\"heldBy\":\\([0-9]*\\).*/\\1/p'; }
        gone() { until [ -z \"$(nft list tables)\" ]; do :; done; nft list ruleset; portmap list web; get 127.0.0.1 8080; }
        hold > out; grep -o '\"ports\".*' out
        for a in 127.0.0.1 203.0.113.1 ::1; do get $a 8080; done; in_ns rc 203.0.113.1 8080; in_ns c2 fd03::1 8080
        nft list ruleset | grep -c 'flags owner'
        kill -9 $work; wait $work 2>/dev/null; gone
        hold >/dev/null; kill -9 $(holder); kill -9 $work; wait $work 2>/dev/null; portmap gc; gone
        until [ -z \"$(ls $DRAYAGE_ROOT/run/portmap)\" ]; do :; done";
    let ports = r#""ports":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostIP":"::1","hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let gone = "HOST  CONTAINER  PROTOCOL  ID\nrefused\n";
    let want = format!("{ports}\n10.88.0.1\n203.0.113.1\n::1\n203.0.113.2\nfd88::1\n2\n{gone}{gone}");
    host(sandbox, "1", script).run().ok().stdout_is(&want);
}

fn held_changes(sandbox: &Sandbox) {
    let script = "sleep 1000 & work=$!
        record web c1 | portmap -p 8080:80 >/dev/null
        record web c1 | portmap -p 8080:80 --while $work >/dev/null
        portmap list | grep -c 8080
        record db c2 | portmap -p 8080:80 2>&1
        portmap check web && nft flush ruleset && portmap check web && get 127.0.0.1 8080
        portmap list --json > list; portmap restore list; portmap list --json | cmp list - && echo same
        record web c1 | portmap -p 8080:7005 >/dev/null; nft list ruleset | grep -c 'flags owner'; get 127.0.0.1 8080
        record web c1 | portmap -p 8081:80 --while $work >/dev/null; portmap del web; nft list ruleset
        portmap list; ls $DRAYAGE_ROOT/run/portmap
        ip netns add dead
        record old c2 | sed s,/c2,/dead, | portmap -p 8080:80 --while $work >/dev/null; ip netns del dead
        record web c1 | portmap -p 8080:80 >/dev/null; get 127.0.0.1 8080; portmap list | grep -c old
        portmap del web; kill $work; wait $work 2>/dev/null";
    let want = "2\nportmap: publish 0.0.0.0:8080/tcp for db: port is taken by container web\n10.88.0.1\nsame\n0\n10.88.0.1\n\
                HOST  CONTAINER  PROTOCOL  ID\n10.88.0.1\n0\n";
    host(sandbox, "1", script).run().ok().stdout_is(want);
}

fn cni(sandbox: &Sandbox) {
    let script = r#"
        export CNI_PATH=/ CNI_IFNAME=eth0
        config() { echo '{"cniVersion":"1.1.0","name":"net","type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.1'$1'/16"}]}'"$2"'}'; }
        call() { CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=$3 portmap; }
        config 1 | call ADD one /run/netns/c1; echo " $?"
        config 1 | call CHECK one /run/netns/c1; echo $?
        get 127.0.0.1 8080
        config 2 | call ADD two /run/netns/c2; echo " $?"
        config 1 | call STATUS '' ''; echo $?
        config 1 ',"cni.dev/valid-attachments":[{"containerID":"one","ifname":"eth0"}]' | call GC '' ''
        portmap list | grep -c one
        config 1 ',"cni.dev/valid-attachments":[]' | call GC '' ''
        portmap list | grep -c one
        config 1 | call CHECK one /run/netns/c1; echo " $?"
        config 1 | call DEL one ''; config 1 | call DEL one ''; echo $?
        nft list ruleset"#;
    let want = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.11/16"}]}
 0
0
10.88.0.1
{"cniVersion":"1.1.0","code":100,"msg":"portmap: publish 0.0.0.0:8080/tcp for two: port is taken by container one","details":""}
 1
0
1
0
{"cniVersion":"1.1.0","code":100,"msg":"portmap: 0.0.0.0:8080/tcp to 10.88.0.11:80 is not published","details":""}
 1
0
"#;
    host(sandbox, "1", script).run().ok().stdout_is(want);
}

/// Whom the server sees tells what is masqueraded; the keys that choose how iptables is used change nothing.
fn cni_keys(sandbox: &Sandbox) {
    let script = r#"
        export CNI_PATH=/ CNI_IFNAME=eth0 CNI_CONTAINERID=one CNI_NETNS=/run/netns/c1
        call() { echo '{"cniVersion":"1.1.0","name":"net","type":"portmap",'"$2"'"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"hostIP":"'$3'"}]},"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.11/16"},{"address":"fd88::11/64"}]}}' | CNI_COMMAND=$1 portmap; }
        try() { call ADD "$1" >/dev/null; seen "$1"
            portmap list --json > list; nft list ruleset > before; nft flush ruleset; portmap restore list
            nft list ruleset > after; cmp before after; call CHECK "$1"; call DEL "$1"; }
        seen() { echo $(in_ns rc 203.0.113.1 8080) $(in_ns rc fd03::1 8080) $(in_ns c2 fd03::1 8080); }
        try ''
        try '"snat":true,'
        try '"snat":true,"masqAll":true,'
        try '"backend":"iptables","markMasqBit":12,'
        try '"backend":"nftables","externalSetMarkChain":"KUBE-MARK-MASQ","capabilities":{"portMappings":true},"conditionsV4":[],"conditionsV6":null,'
        call ADD '"snat":false,' >/dev/null; echo $(in_ns rc 203.0.113.1 8080) $(nft list ruleset | grep -c 'set hairpin' )
        portmap list --json > list; grep -o '"masquerade".*' list; nft list ruleset > before; nft flush ruleset
        portmap restore list; nft list ruleset > after; cmp before after; call DEL '' | cat
        call ADD '' 127.0.0.1 >/dev/null; echo $(get 127.0.0.1 8080) $(in_ns rc 203.0.113.1 8080); call DEL ''
        nft list ruleset"#;
    let want = r#"203.0.113.2 fd03::2 fd88::1
203.0.113.2 fd03::2 fd88::1
10.88.0.1 fd88::1 fd88::1
203.0.113.2 fd03::2 fd88::1
203.0.113.2 fd03::2 fd88::1
203.0.113.2 0
"masquerade":"nothing"}
10.88.0.1 refused
"#;
    host(sandbox, "0", script).run().ok().stdout_is(want);
}

fn restore(sandbox: &Sandbox) {
    let script = "record web c1 | portmap -p 8080:80 -p 127.0.0.1:8081:80 -p 7000-7010:7000-7010 > web
        nft list ruleset > before; portmap list --json > list
        portmap check && portmap check web && portmap check ./web && echo whole
        nft flush chain ip portmap prerouting; portmap check 2>&1
        nft flush ruleset; portmap check ./web 2>&1
        portmap restore list; portmap check ./web && in_ns rc 203.0.113.1 8080
        nft list ruleset > after; cmp before after && echo same
        portmap del web";
    let want = "whole\n\
                portmap: the firewall's table portmap has lost rules: `portmap restore` puts them back\n\
                portmap: port 8080/tcp is not published\n203.0.113.2\nsame\n";
    host(sandbox, "1", script).run().ok().stdout_is(want);
}

fn gc(sandbox: &Sandbox) {
    let script = "ip netns add dead
        record old c2 | sed s,/c2,/dead, | portmap -p 8080:80 >/dev/null
        record web c1 | portmap -p 8081:80 >/dev/null
        portmap gc; echo $(portmap list | wc -l)
        ip netns del dead
        portmap check 2>&1 | grep -c gone
        portmap gc; echo $(portmap list | wc -l)
        portmap gc --keep web; echo $(portmap list | wc -l)
        portmap gc --keep db; nft list ruleset";
    host(sandbox, "1", script).run().ok().stdout_is("5\n1\n3\n3\n");
}

fn wrong_use(sandbox: &Sandbox) {
    let record = r#"{"id":"web","bundle":"/b"}"#;
    sandbox
        .cmd(&["portmap", "-p", "8080:80"])
        .stdin(record)
        .run()
        .fails(2)
        .one_error_line("portmap", &["network", "ns add"]);
    sandbox.cmd(&["portmap", "-p", "8080:80"]).run().fails(1).one_error_line("portmap", &["no record on stdin"]);
    sandbox
        .cmd(&["portmap", "-p", "8080:80"])
        .stdin("nginx")
        .run()
        .fails(2)
        .one_error_line("portmap", &["not a record"]);
    sandbox
        .run(&["portmap", "nosuch", "-p", "80:80"])
        .fails(1)
        .one_error_line("portmap", &["nosuch", "no such container"]);
    sandbox.run(&["portmap", "-p", "99999:80"]).fails(2);
    sandbox.run(&["portmap", "del", "nosuch"]).ok().stdout_is("");
}
