//! The CNI plugin's `conditionsV4` and `conditionsV6`: to whom a port is open.

use super::{NEEDS, host};
use crate::support::{Sandbox, Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_port_is_open_to_those_who_meet_its_conditions", NEEDS, open_to_some),
        test("ports_with_conditions_are_listed_restored_changed_and_collected", NEEDS, upkeep),
        test("other_conditions_are_refused_by_name", NEEDS, refused),
    ]
}

/// `call COMMAND KEYS`: as the container `one` at c1, with a port in every address; `seen` tells whom the server sees
/// when the remote machine, the neighbour and the host ask in IPv4, then the first two in IPv6.
const CALL: &str = r#"
    export CNI_PATH=/ CNI_IFNAME=eth0 CNI_CONTAINERID=one CNI_NETNS=/run/netns/c1
    call() { echo '{"cniVersion":"1.1.0","name":"net","type":"portmap",'"$2"'"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/c1"}],"ips":[{"address":"10.88.0.'${END-11}'/16","interface":0},{"address":"fd88::'${END-11}'/64","interface":0}]}}' | CNI_COMMAND=$1 portmap; }
    seen() { echo $(in_ns rc 203.0.113.1 8080) $(in_ns c2 203.0.113.1 8080) $(get 203.0.113.1 8080) / $(in_ns rc fd03::1 8080) $(in_ns c2 fd03::1 8080); }
    "#;

fn open_to_some(sandbox: &Sandbox) {
    let script = r#"
        try() { call ADD "$1" >/dev/null; seen; call CHECK "$1"; call DEL ''; call DEL ''; nft list ruleset; }
        try '"conditionsV4":["-s","203.0.113.0/24"],'
        try '"conditionsV4":["!","-s","203.0.113.0/24"],'
        try '"conditionsV4":["-s","10.88.0.12,192.0.2.0/24"],"conditionsV6":["-s","fd03::/64"],'
        try '"conditionsV4":["-d","203.0.113.1"],"conditionsV6":["!","-d","fd00::/8"],'
        try '"conditionsV4":["!","-d","203.0.113.0/24"],"conditionsV6":["!","-s","fd03::2"],'
        try '"conditionsV4":["-s","203.0.113.0/24","!","-d","192.0.2.0/24"],"conditionsV6":["-s","::/0","-d","fd03::1"],'
        try '"snat":true,"masqAll":true,"conditionsV4":["-s","203.0.113.2/32"],'"#;
    let want = "203.0.113.2 refused 203.0.113.1 / fd03::2 fd88::1\n\
                refused 10.88.0.1 refused / fd03::2 fd88::1\n\
                refused 10.88.0.1 refused / fd03::2 refused\n\
                203.0.113.2 10.88.0.1 203.0.113.1 / refused refused\n\
                refused refused refused / refused fd88::1\n\
                203.0.113.2 refused 203.0.113.1 / fd03::2 fd88::1\n\
                10.88.0.1 refused refused / fd88::1 fd88::1\n";
    host(sandbox, "1", &format!("{CALL}{script}")).run().ok().stdout_is(want);
}

/// What is there of conditions goes with the last port that has some, and is not there without.
fn upkeep(sandbox: &Sandbox) {
    let script = r#"
        # The order of a set's elements is the kernel's.
        rules() { nft list ruleset | tr -s ' \t{},=' '\n' | sort; }
        record two c2 | portmap -p 9090:90 >/dev/null; rules >plain; grep -cw conditional plain
        only='"conditionsV4":["-s","203.0.113.0/24","!","-d","192.0.2.0/24"],"conditionsV6":["!","-s","fd03::/64"],'
        call ADD "$only" >/dev/null; call ADD "$only" >/dev/null; portmap check && portmap list one
        rules >before; grep -cx conditional before; portmap list --json >list
        nft flush ruleset; call CHECK "$only"; echo " $?"
        portmap restore list; portmap list --json | cmp - list; call CHECK "$only"; seen
        rules >after; cmp before after && echo same
        END=12 CNI_CONTAINERID=three CNI_NETNS=/run/netns/c2 call ADD ''; echo " $?"
        call ADD '"conditionsV4":["-s","10.88.0.12"],' >/dev/null; seen; call CHECK "$only" >/dev/null; echo $?
        call ADD '' >/dev/null; seen; rules | grep -c conditional; call ADD "$only" >/dev/null
        call GC '"cni.dev/valid-attachments":[{"containerID":"one","ifname":"eth0"}],'; rules | cmp - before
        call GC ''; rules | cmp - plain
        call ADD "$only" >/dev/null; portmap del one; rules | cmp - plain; portmap del two; nft list ruleset"#;
    let want = r#"0
HOST          CONTAINER      PROTOCOL  ID
0.0.0.0:8080  10.88.0.11:80  tcp       one
[::]:8080     [fd88::11]:80  tcp       one
2
{"cniVersion":"1.1.0","code":100,"msg":"portmap: 0.0.0.0:8080/tcp to 10.88.0.11:80 is not published","details":""}
 1
203.0.113.2 refused 203.0.113.1 / refused fd88::1
same
{"cniVersion":"1.1.0","code":100,"msg":"portmap: publish 0.0.0.0:8080/tcp for three: port is taken by container one","details":""}
 1
refused 10.88.0.1 refused / fd03::2 fd88::1
1
203.0.113.2 10.88.0.1 203.0.113.1 / fd03::2 fd88::1
0
"#;
    host(sandbox, "1", &format!("{CALL}{script}")).run().ok().stdout_is(want);
}

fn refused(sandbox: &Sandbox) {
    let script = r#"
        for words in '"-i","eth0"' '"-m","mark","--mark","1"' '"!","-p","tcp"' '"-s","example.org"' '"-s"' '"-s","fd00::/8"'; do
            call ADD '"conditionsV4":['"$words"'],' | sed 's/.*"msg":"//;s/".*//'
        done
        call ADD '"conditionsV6":["-d","10.0.0.0/8"],' | grep -o '"code":7'; nft list ruleset"#;
    let want = "portmap: conditionsV4: -i is not supported: only -s and -d are\n\
                portmap: conditionsV4: -m is not supported: only -s and -d are\n\
                portmap: conditionsV4: -p is not supported: only -s and -d are\n\
                portmap: conditionsV4: -s example.org: \\\n\
                portmap: conditionsV4: nothing follows -s\n\
                portmap: conditionsV4: -s fd00::/8: fd00::/8 is an address of the other family\n\
                \"code\":7\n";
    host(sandbox, "0", &format!("{CALL}{script}")).run().ok().stdout_is(want);
}
