//! `ns`: namespaces listed, entered, added and deleted, beside the programs that it stands in for.

mod cni;
mod crash;
mod created;
mod hosts;
mod network;
mod routed;
mod several;
mod surroundings;

use crate::support::{Need, Sandbox, Test, test};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];
const NET: &[Need] = &[Need::NetNs, Need::Nft, Need::Program("ip")];
const LIST: &[Need] = &[Need::Root, Need::Program("lsns"), Need::Program("ip"), Need::Program("pgrep")];
const ENTER: &[Need] = &[Need::Root, Need::Program("nsenter")];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("a_container_gets_a_network_and_leaves_none", NET, add_and_delete),
        test("a_record_passes_through_and_the_bundle_learns_the_path", NET, record),
        test("options_choose_network_address_and_link", NET, options),
        test("addresses_are_given_once_until_there_are_none", NET, exhaustion),
        test("what_fails_half_way_is_undone", NET, undo),
        test("a_killed_add_is_cleaned_up_by_del", NET, killed),
        test("containers_share_a_network_or_have_none", NET, join_and_none),
        test("wrong_use_of_add_is_one_line", NET, wrong_add),
        test("list_writes_what_lsns_writes", LIST, list_as_lsns),
        test("lsns_finds_what_no_process_holds", LIST, newer_lsns),
        test("list_finds_what_only_threads_descriptors_and_mounts_hold", LIST, held),
        test("list_chooses_rows_by_expression", LIST, filter),
        test("show_tells_the_inside_of_a_network", NET, show),
        test("diff_tells_what_two_processes_share_and_what_not", LIST, diff),
        test("a_tree_is_a_graph_that_dot_reads", LIST, tree),
        test("named_namespaces_are_those_of_ip_netns", NET, named),
        test("enter_does_what_nsenter_does", ENTER, enter_as_nsenter),
        test("enter_mirrors_stops_and_signals", ENTER, mirror),
        test("enter_takes_a_record_and_a_name", NET, enter_record),
    ];
    tests.extend(network::tests());
    tests.extend(several::tests());
    tests.extend(created::tests());
    tests.extend(routed::tests());
    tests.extend(hosts::tests());
    tests.extend(cni::tests());
    tests.extend(crash::tests());
    tests.extend(surroundings::tests());
    tests
}

/// No link, no table, no name is left, at last.
const NOTHING: &str =
    "test -z \"$(ls /run/netns)\"; until [ -z \"$(nft list ruleset; ip -br link | grep -v ^lo)\" ]; do :; done
umount -R /run/netns 2>/dev/null; rmdir /run/netns; true";

fn script(sandbox: &Sandbox, script: &str) {
    sandbox.sh(&format!("set -ex\n{script}\n{NOTHING}")).run().ok();
}

fn add_and_delete(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add web >web.json; ns add db >db.json
        address() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[\"network\"][\"ips\"][0][\"address\"])' $1; }
        ip netns list | grep -q '^web' && ip netns list | grep -q '^db'
        ip -n web addr show eth0 | grep -q \"inet $(address web.json)\"
        ip -n web route | grep -q '^default via 10.213.0.1 dev eth0'
        ip -n web link show lo | grep -q 'LOOPBACK,UP'
        ip addr show drayage0 | grep -q 'inet 10.213.0.1/16'
        ip -d link show master drayage0 | grep -q 'alias ctr=web own=[0-9a-f-]* ip='
        ip -d link show master drayage0 | grep -c 'hairpin on' | grep -qx 2
        nft list table ip drayage-net | grep -q 'ip saddr 10.213.0.0/16 oifname != \"drayage0\" masquerade'
        test $(cat /proc/sys/net/ipv4/ip_forward) = 1
        test $(ip netns exec web cat /proc/sys/net/ipv6/conf/eth0/accept_ra) = 0
        ! ns add web 2>err || exit 1; grep -qx 'ns: add web: network namespace web exists: .*' err
        ns del web; ns del web
        ip link show drayage0 >/dev/null
        ns del db never-there",
    );
}

fn record(sandbox: &Sandbox) {
    let config = r#"{"z":1,"hostname":"inside","linux":{"namespaces":[{"type":"pid"},{"type":"network"}]},"a":[]}"#;
    sandbox.sh("mkdir b").run().ok();
    sandbox.write("b/config.json", config);
    sandbox.write("b/hosts", "127.0.0.1\tlocalhost\n");
    let line = format!(r#"{{"id":"web","other":{{"k":[1]}},"bundle":"{}"}}"#, sandbox.at("b"));
    let record = sandbox.cmd(&["ns", "add"]).stdin(line).run().ok().json();
    assert_eq!(record["other"].to_string(), r#"{"k":[1]}"#);
    assert_eq!(record["network"]["cniVersion"], "1.1.0");
    assert_eq!(record["network"]["interfaces"][2]["sandbox"], "/run/netns/web");
    let joined = config.replace(r#"{"type":"network"}"#, r#"{"type":"network","path":"/run/netns/web"}"#);
    assert_eq!(sandbox.read("b/config.json").trim_end(), joined);
    let address = record["network"]["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    assert_eq!(sandbox.read("b/hosts"), format!("127.0.0.1\tlocalhost\n{address}\tinside\n"));
    sandbox.cmd(&["ns", "del"]).stdin(record.to_string()).run().ok();
    script(sandbox, "");
}

fn options(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add --bridge lab0 --subnet 10.9.0.0/24 --subnet fd00:9::/64 --gateway 10.9.0.254 --ip 10.9.0.7 \
            --ifname net7 --mtu 1400 --mac 02:00:00:00:00:07 --no-masquerade db >/dev/null
        ip -n db addr show net7 >shown
        grep -q 'inet 10.9.0.7/24' shown; grep -q 'inet6 fd00:9::' shown; grep -q 'mtu 1400' shown
        grep -q 'link/ether 02:00:00:00:00:07' shown
        ip -n db route | grep -q 'default via 10.9.0.254'; ip -n db -6 route | grep -q 'default via fd00:9::1'
        test -z \"$(nft list ruleset)\"
        ns add --bridge lab0 other | grep -q '10.9.0.254'
        nft list ruleset | grep -q 'ip6 saddr fd00:9::/64'
        ns del --wait db other; ! ip link show lab0 >/dev/null 2>&1",
    );
}

fn exhaustion(sandbox: &Sandbox) {
    script(
        sandbox,
        "for id in a b c d e; do ns add --subnet 10.9.0.0/29 $id >/dev/null; done
        for id in a b c d e; do ip -n $id -o -4 addr show eth0 | awk '{print $4}'; done | sort -u | wc -l | grep -qx 5
        ! ns add --subnet 10.9.0.0/29 f 2>err || exit 1; grep -qx 'ns: add f: no address is free in 10.9.0.0/29' err
        ns del c; ns add f >/dev/null
        ns del a b d e f",
    );
}

fn undo(sandbox: &Sandbox) {
    sandbox.sh("mkdir b").run().ok();
    sandbox.write("b/config.json", r#"{"linux":[]}"#);
    script(
        sandbox,
        "! ns add web >/dev/full 2>err; grep -q 'print the record' err
        ! ns add ./b 2>err || exit 1; grep -q 'linux is not an object' err
        ip link add taken type dummy 2>/dev/null || ip link add taken type veth peer name taken2
        ip addr add 10.213.9.9/24 dev taken
        ! ns add --subnet 10.213.0.0/16 web 2>err || exit 1; grep -q 'network 10.213.0.0/16 is in use: taken has address 10.213.9.9/24' err
        ! ns add --bridge taken web 2>err || exit 1; grep -q 'taken is not a bridge' err
        ip link del taken",
    );
    assert_eq!(sandbox.read("b/config.json"), r#"{"linux":[]}"#);
}

fn killed(sandbox: &Sandbox) {
    // Killed at whatever moment: sooner or later in each round.
    script(
        sandbox,
        "set +e
        for delay in 0.001 0.002 0.003 0.004 0.006 0.009 0.015; do
            timeout -s KILL $delay ns add web >/dev/null 2>&1
            ns del web || exit 1
            ns add web >/dev/null || exit 1
            ns del web || exit 1
        done
        ip link del drayage0 2>/dev/null; nft delete table ip drayage-net 2>/dev/null; set -e",
    );
}

fn join_and_none(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add web >/dev/null; ns add --join web helper >helper.json; ns add --none quiet >quiet.json
        grep -q '\"sandbox\":\"/run/netns/web\"' helper.json; grep -q '\"gateway\":\"10.213.0.1\"' helper.json
        grep -q '\"ips\":\\[\\]' quiet.json; ip -n quiet -br link | wc -l | grep -qx 1
        ns del helper; ip -n web addr show eth0 >/dev/null
        ns del web quiet",
    );
}

fn wrong_add(sandbox: &Sandbox) {
    for (arguments, code, part) in [
        (&["ns", "add", "--id", "../x", "-"][..], 2, "\"../x\" is not a container's id"),
        (&["ns", "add", "--join", "none", "web"], 1, "container none has no network namespace"),
        (&["ns", "add", "--ip", "10.9.0.1", "web"], 1, "address 10.9.0.1 is not in 10.213.0.0/16"),
        (&["ns", "del", "a b"], 2, "\"a b\" is not a container's id"),
    ] {
        sandbox.cmd(arguments).stdin("{}").run().fails(code).one_error_line("ns", &[part]);
    }
    sandbox.run(&["ns", "add"]).fails(1).one_error_line("ns", &["no record on stdin"]);
    script(sandbox, "mkdir -p /run/netns");
}

fn population(sandbox: &Sandbox, body: &str) -> String {
    sandbox.write("population.sh", include_str!("ns/population.sh"));
    sandbox
        .sh(&format!(
            "OURS=$(mktemp -d)/lsns; ln -s $(command -v ns) $OURS; . ./population.sh\n{body}\ndown\n{NOTHING}"
        ))
        .run()
        .ok()
        .stdout
}

fn list_as_lsns(sandbox: &Sandbox) {
    let differences = population(
        sandbox,
        // The lsns of util-linux 2.41 sees it, and differs from that of 2.38, which `ns list` equals, in the last three.
        "newer=; ! lsns -n -o NS | grep -q $alone || { newer=yes; umount /run/netns/named; }
        compare; compare -l; compare -T; compare -Tparent; compare -Tprocess
        compare -t net; compare -t net -W; compare -t uts -J
        compare -l --output-all; compare -r -l; compare -r -o NS,TYPE,PID; compare -o +PATH -l; compare -u
        compare -p 1; compare -p 1 -t net; compare -p 99999; compare 12345; compare -J -t user --output-all
        P=$(pgrep -fx 'sleep 311'); compare -J -W -o NS,NSFS -p $P
        [ -n \"$newer\" ] ||
            { compare -n -o NS,PID,TYPE; compare -t mnt -t pid -J -T; compare -J -t net -o NS,NSFS -p $P; }",
    );
    assert_eq!(differences, "");
}

/// What util-linux 2.43 lists, and 2.38, which is mostly installed, does not.
fn newer_lsns(sandbox: &Sandbox) {
    let lines = population(
        sandbox,
        r#"ip netns add gone; exec 9</run/netns/gone; gone=$(stat -Lc %i /run/netns/gone); ip netns del gone
        mkfifo fifo
        python3 -c 'import ctypes, os, socket, sys
libc = ctypes.CDLL(None); here = os.open("/proc/self/ns/net", os.O_RDONLY)
libc.unshare(0x40000000); s = socket.socket(); number = os.stat("/proc/self/ns/net").st_ino; libc.setns(here, 0)
os.close(here); print(number, flush=True); sys.stdin.read()' <>fifo >socket & held="$held $!"
        until [ -s socket ]; do :; done
        for inode in $gone $(cat socket) $alone; do "$OURS" -n -r -o TYPE,NPROCS,UID,USER -Q "NS == $inode"; done
        [ "$(ns list -n -o NS -Q "NS == $gone")" = '' ] && echo unasked
        mkdir -p covered; touch covered/at; mount --bind /run/netns/named covered/at
        umount /run/netns/named; mount -t tmpfs t covered
        "$OURS" -n -o NS -Q "NS == $alone"; ns list -n -o NS -Q "NS == $alone"
        umount covered; mount --bind covered/at /run/netns/named; umount covered/at
        "$OURS" -H | head -2; "$OURS" -H -J | jq -c '."lsns-columns"[0]'
        exec 9<&-"#,
    );
    let columns = "     NS <integer> namespace identifier (inode number)\n   TYPE <string>  kind of namespace\n\
        {\"holder\":\"NS\",\"type\":\"<integer>\",\"description\":\"namespace identifier (inode number)\"}\n";
    assert_eq!(lines, format!("{}unasked\n{columns}", "net 0 0 root\n".repeat(3)));
}

fn held(sandbox: &Sandbox) {
    let lines = population(
        sandbox,
        "ip netns add gone; exec 9</run/netns/gone; ip netns del gone
        python3 -c 'import ctypes,threading,time
def f(): ctypes.CDLL(None).unshare(0x04000000); time.sleep(300)
threading.Thread(target=f,daemon=True).start(); print(flush=True); time.sleep(300)' >ready & held=\"$held $!\"
        until [ -s ready ] && ns list --refs -r -n -o HELD-BY | grep -q '^thread'; do :; done
        ns list --refs -r -n -o NPROCS,HELD-BY,TYPE | grep -v process | sort
        ns list -P -r -n -o HELD-BY,NSFS
        exec 9<&-",
    );
    assert_eq!(lines, "0 fd net\n0 mount net\n0 thread uts\nmount /run/netns/named\n");
}

fn filter(sandbox: &Sandbox) {
    let lines = population(
        sandbox,
        "ns list -n -r -o TYPE,COMMAND -Q 'TYPE == \"uts\" and COMMAND =~ \"^sleep 30[0-5]\"'
        ns list -Q 'FOO == 1' 2>/dev/null; echo $?",
    );
    assert_eq!(lines, "uts sleep\\x20300\n2\n");
}

fn show(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add --ip 10.213.0.5 web >web.json
        ns enter -t web -n sleep 300 & P=$!
        until grep -qsx sleep /proc/$P/comm; do :; done
        for what in web $P $(stat -c %i /run/netns/web); do
            ns show --json $what | python3 -c 'import json,sys
net = json.load(sys.stdin)[\"net\"]
eth0 = [link for link in net[\"interfaces\"] if link[\"name\"] == \"eth0\"][0]
assert \"10.213.0.5/16\" in eth0[\"addresses\"] and eth0[\"peer\"][\"name\"].startswith(\"veth\"), eth0
assert [r for r in net[\"routes\"] if r[\"dst\"] == \"0.0.0.0/0\" and r[\"gw\"] == \"10.213.0.1\"], net'
        done
        ns show $P | grep -q '^  effective: .*net_admin'
        kill $P; ns del web",
    );
}

fn diff(sandbox: &Sandbox) {
    let lines = sandbox
        .sh("unshare -un --kill-child -f sh -c 'mount --make-rprivate / 2>/dev/null; exec sleep 300' & A=$!
            until B=$(cat /proc/$A/task/$A/children) && [ -n \"$B\" ] && grep -qsx sleep /proc/${B% }/comm; do :; done
            B=${B% }
            ns diff --json $$ $B >diff.json; ns diff $$ $B >diff.txt; ns diff $B $B | grep -c shared
            kill -KILL $A $B; wait
            python3 -c 'import json
d = json.load(open(\"diff.json\"))
print(sorted(n[\"type\"] for n in d[\"namespaces\"] if not n[\"shared\"]), sorted(d[\"differences\"]))'
            grep -cE '^(net|uts) +[0-9]+  [0-9]+$' diff.txt; grep -x 'net.interfaces:' diff.txt")
        .run();
    assert_eq!(lines.stdout, "8\n['net', 'uts'] ['net.interfaces']\n2\nnet.interfaces:\n");
    sandbox.run(&["ns", "diff", "1", "99999999"]).fails(1).one_error_line("ns", &["diff 1 99999999", "gone"]);
}

fn tree(sandbox: &Sandbox) {
    let drawn = sandbox
        .sh("unshare -Un --kill-child -f sleep 300 & A=$!
            until B=$(cat /proc/$A/task/$A/children) && [ -n \"$B\" ] && grep -qsx sleep /proc/${B% }/comm; do :; done
            inode() { stat -Lc %i /proc/${B% }/ns/$1; }
            ns tree --dot >all.dot; ns tree -t net -t user >tree
            grep -c \"n$(inode user) -> n$(inode net);\" all.dot; grep -c \"n$(stat -Lc %i /proc/self/ns/user) -> n$(inode user);\" all.dot
            grep -c \"─$(inode net) *net\" tree; head -c 19 all.dot; echo; tail -n 1 all.dot
            kill -KILL $A; wait")
        .run();
    assert_eq!(drawn.stdout, "1\n1\n1\ndigraph namespaces \n}\n", "{}", drawn.stderr);
}

fn named(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add --none web; ns add --none db; unshare -n sleep 300 & P=$!
        ns list --named -r -n -o NSFS | sort | tr '\\n' ' ' | grep -qx '/run/netns/db /run/netns/web '
        ns list --named --json-lines | grep -c /run/netns/ | grep -qx 2
        kill $P; ns del web db; test -z \"$(ns list --named)\"",
    );
}

/// A target with namespaces of all types, and one with a user namespace.
const TARGETS: &str = "
    ln -s $(command -v ns) nsenter
    unshare -unimpCTf --kill-child --mount-proc sleep 3000 & A=$!
    unshare -Urnpmf --kill-child --mount-proc sleep 3001 & B=$!
    child() { until c=$(cat /proc/$1/task/$1/children 2>/dev/null) && [ -n \"$c\" ] && grep -qsx sleep /proc/${c% }/comm; do :; done; echo ${c% }; }
    T=$(child $A); U=$(child $B)
    show='for t in mnt net ipc uts cgroup user pid time; do readlink /proc/self/ns/$t; done; id; pwd'
    compare() {
        want=$(/usr/bin/nsenter \"$@\" 2>err </dev/null); a=$?
        # As newer ones see it, which need one.
        ! grep -q 'no namespace specified' err || return 0
        got=$(./nsenter \"$@\" 2>/dev/null </dev/null); b=$?
        [ \"$want\" = \"$got\" ] && [ $a = $b ] || echo \"differs: $* ($a: $want) ($b: $got)\"
    }
    down() { kill -KILL $A $B; wait; }";

fn enter_as_nsenter(sandbox: &Sandbox) {
    sandbox
        .sh(&format!(
            "{TARGETS}
            compare -t $T -n sh -c \"$show\"; compare -t $T -a sh -c \"$show\"
            compare -t $T -m -u -i -n -p -C -T sh -c \"$show\"; compare -t $T -p -F readlink /proc/self/ns/pid
            compare -t $U -U -n sh -c \"$show\"; compare -t $U -U -n -p -m sh -c \"$show\"; compare -t $U -a sh -c \"$show\"
            compare -t $U -U --preserve-credentials id; compare -t $T -n -S 1000 -G 1001 id
            compare -t $T -r -w pwd; compare -t $T --wd=/usr -n pwd; compare -t $T -m --wdns=/usr pwd
            compare -n/proc/$T/ns/net sh -c \"$show\"; compare --net=/proc/$T/ns/net sh -c \"$show\"
            compare -t $T -a -- echo -n x; compare -t $T true
            for kind in -n -p; do
                compare -t $T $kind sh -c 'exit 7'; compare -t $T $kind sh -c 'kill -TERM $$'
                compare -t $T $kind /nonexistent; compare -t $T $kind /etc/passwd
            done
            compare -t 999999 -n true; compare -n true; compare -t x -n true; compare -t $T -x; compare -t -1 -n true
            ns enter -t $T -n -S 7 --keep-caps grep CapEff /proc/self/status | cut -f2
            of() {{ ns list -n -r -o NSID -t $1 -p $T; }}
            echo $(ns enter --net=:$(of net) -u:$(of uts) sh -c 'readlink /proc/self/ns/net; readlink /proc/self/ns/uts') \\
                $(readlink /proc/$T/ns/net) $(readlink /proc/$T/ns/uts) | tr ' ' '\\n' | sort | uniq -c | grep -c ' 2 '
            ns enter --net=:$(of uts) true; ns enter --net=:web true
            down"
        ))
        .run()
        .stdout_is("0000000000000000\n2\n")
        .stderr_has("ns: open net namespace number ")
        .stderr_has("ns: web is not a namespace's number\n");
}

fn mirror(sandbox: &Sandbox) {
    sandbox
        .sh(&format!(
            "{TARGETS}
            ns enter -t $T -p sh -c 'kill -STOP $$; exit 3' & P=$!
            until grep -q '^State:.*T' /proc/$P/status; do :; done
            kill -CONT $P; wait $P; echo $?
            ns enter -t $T -p sh -c 'kill -KILL $$'; echo $?
            down"
        ))
        .run()
        .ok()
        .stdout_is("3\n137\n");
}

fn enter_record(sandbox: &Sandbox) {
    script(
        sandbox,
        "ns add web >web.json
        ns enter -t web -n -- ip -br addr show eth0 | grep -q 10.213
        ns enter -n -- ip -br addr show eth0 <web.json | grep -q 10.213
        echo \"{\\\"id\\\":\\\"x\\\",\\\"bundle\\\":\\\"/\\\",\\\"pid\\\":$$}\" | ns enter -n -- cat >out; test ! -s out
        ! ns enter -t nobody -n true 2>err || exit 1; grep -qx 'ns: no process, container or named namespace is called nobody' err
        ns del web",
    );
}
