//! What others take from containers that live, by flushing the firewall or an interface, is named and put back.

use super::PIPELINE;
use crate::support::{Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("what_a_flush_took_is_named_and_put_back_by_one_verb", PIPELINE, put_back),
        test("a_restart_and_the_next_run_put_back_what_a_flush_took", PIPELINE, by_others),
    ]
}

/// A host with a neighbour, who routes the containers' networks to it, and three containers: `web` and `lab` with ports, and
/// one in the foreground of a pipe typed by hand. `look` tells whom the neighbour reaches, and whether they reach it.
const HOST: &str = r#"
    ip netns add next; ip link add up0 type veth peer name eth0 netns next
    ip addr add 203.0.113.1/24 dev up0; ip link set up0 up; ip route add default via 203.0.113.2
    ip -n next addr add 203.0.113.2/24 dev eth0; ip -n next link set eth0 up; ip -n next link set lo up
    ip -n next route add 10.213.0.0/16 via 203.0.113.1
    serve="exec httpd -f -p 80 -h /etc"
    run -d --name web -p 8080:80 IMAGE sh -c "$serve" >/dev/null
    run -d --name lab --network lab0 -p 127.0.0.1:8081:80 IMAGE sh -c "$serve" >/dev/null
    pull IMAGE | unpack | bundle --id hand -- sh -c "$serve" | ns add --bridge hand0 --subnet 10.9.0.0/24 --no-masquerade | portmap -p 8082:80 | spawn --detach --quiet >/dev/null
    get() { "$@" 2>/dev/null | grep -c .; }
    near() { for port in 8080 8081 8082; do until curl -sf -m 1 http://127.0.0.1:$port/hostname; do sleep 0.1; done; done; }
    look() {
        for port in 8080 8081 8082; do get curl -sf -m 2 http://127.0.0.1:$port/hostname; done
        get ip netns exec next curl -sf -m 2 http://203.0.113.1:8080/hostname
        get ip netns exec next curl -sf -m 1 http://$(address web):80/hostname
        for name in web lab hand; do spawn exec $name ping -c 1 -W 1 203.0.113.2 >/dev/null; echo $?; done
    }
    address() { portmap list --json $1 | jq -r '.network.ips[0].address' | cut -d/ -f1; }
    near >/dev/null; ADDRESS=$(address web); address() { echo $ADDRESS; }
    all="1 1 1 1 0 0 0 1"; [ "$(echo $(look))" = "$all" ] || echo before: $(look)
    end() { keep rm -f web lab >/dev/null; spawn delete --force hand; portmap del hand; ns del hand; bundle delete hand; ip netns del next; ip link del up0 2>/dev/null; links_gone; }
    links_gone() { until [ -z "$(ip -o link show group 1685217657)" ]; do :; done; }
"#;

fn host(sandbox: &Sandbox, script: &str) -> String {
    let script = HOST.replace("IMAGE", &image("busybox").reference) + script + "\nend";
    sandbox.sh(&script).run().ok().stdout
}

fn put_back(sandbox: &Sandbox) {
    let script = r#"
        lab=$(ip -o -4 addr show lab0 | awk '{print $4}')
        again() {
            "$@"; echo "$1 $2 $3:" $(portmap check 2>&1) / $(ns check 2>&1)
            portmap restore </dev/null || echo failed; portmap check && ns check || echo not whole
            [ "$(echo $(look))" = "$all" ] || echo after: $(look)
        }
        ports=$(portmap list | sort); rules() { nft list table ip drayage-net | sort; }; net=$(rules)
        again nft flush ruleset
        again nft delete table ip portmap
        again nft delete table ip drayage-net
        again ip addr flush dev drayage0
        again ip link set lab0 down
        again ip link del drayage0
        off() { echo 0 >/proc/sys/net/ipv4/ip_forward; }; again off
        [ "$(portmap list | sort)" = "$ports" ] && [ "$(rules)" = "$net" ] && echo the same
        # What has ended is not published.
        keep stop -t 0 lab >/dev/null; nft flush ruleset; portmap restore </dev/null; portmap list | grep -c lab"#;
    let seen = host(sandbox, script);
    println!("{seen}");
    let lines: Vec<&str> = seen.lines().collect();
    let (first, last) = lines.split_at(lines.len() - 2);
    assert_eq!((first.len(), last), (7, &["the same", "0"][..]));
    for (line, wants) in first.iter().zip([
        &[
            "has lost a port, which `portmap restore` puts back",
            "masquerade packets of drayage0",
            "masquerade packets of lab0",
        ][..],
        &["has lost a port", "is not published"],
        &["masquerade packets of drayage0", "masquerade packets of lab0"],
        &["`ns restore` has to give drayage0 address 10.213.0.1/16"],
        &["`ns restore` has to bring lab0 up"],
        &["make bridge drayage0", "mark drayage0", "give drayage0 address", "bring drayage0 up", "a port of drayage0"],
        &["the host does not forward packets", "forward packets of IPv4"],
    ]) {
        assert!(wants.iter().all(|want| line.contains(want)), "{line}: {wants:?}");
    }
}

fn by_others(sandbox: &Sandbox) {
    let script = r#"
        whole() { echo "$1" $(near) $(portmap check 2>&1; ns check 2>&1); [ "$(echo $(look))" = "$all" ] || echo after: $(look); }
        nft flush ruleset; keep restart -t 0 lab; whole restart
        nft flush ruleset; run --rm --name new IMAGE true 2>&1; whole run; ls /run/drayage/flushed 2>/dev/null
        nft flush ruleset; run --gc; whole swept
        nft flush ruleset; run -d --rm --name new -p 9090:80 IMAGE sh -c "$serve" 2>&1; whole detached; keep rm -f new"#;
    let warned = "ns: warning: the firewall was flushed: restoring the networks (`portmap restore` restores the ports)";
    let seen = host(sandbox, &script.replace("IMAGE", &image("busybox").reference));
    let near = "web lab hand";
    let want =
        format!("lab\nrestart {near}\n{warned}\nrun {near}\nswept {near}\n{warned}\nnew\ndetached {near}\nnew\n");
    assert_eq!(seen, want);
}
