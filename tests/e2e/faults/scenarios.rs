//! What the walk goes through: verbs that succeed, and what each has to have done.

/// One verb, or a few.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What it works on, made anew for each run. It is made from whatever an earlier run has left.
    pub(super) prepare: &'static str,
    /// The program, behind `$STRACE`.
    pub(super) run: &'static str,
    /// What a run has to have done. Its output is compared with that of the first run.
    pub(super) check: &'static str,
    /// What undoes it.
    pub(super) clear: &'static str,
}

/// What is there, in each scenario: $BUSYBOX and $TORTURE, and the records of both, pulled (`p`, `tp`) and unpacked (`u`, `tu`).
pub(super) const MADE: &str = "pull -q $BUSYBOX >p && unpack <p >u && pull -q $TORTURE >tp && unpack <tp >tu && \
    mkdir -p tree/a/b && echo x >tree/a/f && ln -s f tree/a/l && \
    echo \"{services: {one: {image: $BUSYBOX, command: sleep 1000, stop_grace_period: 0s}, \
    two: {image: $BUSYBOX, command: sleep 1000, stop_grace_period: 0s, depends_on: [one]}}}\" >compose.yaml";

/// What the scenarios call by these names.
pub(super) const WORDS: [(&str, &str); 8] = [
    ("TREE", "find . -printf '%p %y %m %U %G %s %l\\n' | sort"),
    ("BLOBS", "sha256sum * | awk '$1 != $2 { exit 1 }'"),
    ("BUNDLE", "bundle --id web -- sh -c 'echo hi; sleep 0.2' <u >b && ns add <b >n"),
    ("KEPT", "{ [ -e state/containers/web ] || bundle --id web --network none <u -- sleep 1000 | keep >/dev/null; }"),
    (
        "ENDED",
        "{ [ -e state/containers/web ] || bundle --id web --network none <u -- sh -c 'echo x >/new; rm -r /etc' | spawn; }",
    ),
    ("SLEEPS", "{ [ -e state/containers/web ] || bundle --id web --network none <u -- sleep 1000 >b; }"),
    ("NETWORKED", "{ [ -e state/containers/web ] || run -d --name web $BUSYBOX sleep 1000 >/dev/null; }"),
    ("STATUS", "keep list --json | jq -c '.[] | [.id, .status, .exit.exitCode]' | sort"),
];

/// What undoes any of them.
pub(super) const END: &str = "compose -p shop down; keep rm --force web; spawn delete --force web; ns del --wait web; \
    bundle delete --force web; ns network rm --force lab; bundle volume rm --force one held; run --gc";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pull_of_a_layout",
        prepare: "rm -rf l2",
        run: "$STRACE pull -q --layout $PWD/l2 oci:$LAYOUT:latest >out",
        check: "cd l2/blobs/sha256 && BLOBS && ls",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "pull_of_a_registry",
        prepare: "rm -rf l2",
        run: "$STRACE pull -q --layout $PWD/l2 $TORTURE >out",
        check: "cd l2/blobs/sha256 && BLOBS && ls",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "pull_list",
        prepare: ":",
        run: "$STRACE pull list >out",
        check: "awk '{ print $1 }' out",
        clear: ":",
    },
    Scenario {
        name: "pull_remove",
        prepare: "pull -q --layout $PWD/l2 oci:$LAYOUT:latest >/dev/null",
        run: "$STRACE pull remove --layout $PWD/l2 latest >/dev/null",
        check: "pull list --layout $PWD/l2",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "pull_gc",
        prepare: "pull -q --layout $PWD/l2 oci:$LAYOUT:latest >/dev/null; pull remove --layout $PWD/l2 latest; :",
        run: "$STRACE pull gc --layout $PWD/l2 --grace 0 >/dev/null",
        check: "find l2 | sort",
        clear: "rm -rf l2",
    },
    Scenario {
        name: "unpack",
        prepare: "rm -rf state/layers",
        run: "$STRACE unpack <tp >out",
        check: "cat out; cd state/layers && { find sha256 chains parents -printf '%p %y %m %U %G %s %l\\n'; } | sort",
        clear: ":",
    },
    Scenario {
        name: "unpack_of_what_is_there",
        prepare: ":",
        run: "$STRACE unpack <tp >out",
        check: "cat out",
        clear: ":",
    },
    Scenario {
        name: "unpack_flat",
        prepare: "rm -rf flat",
        run: "$STRACE unpack --flat $PWD/flat <tp >out",
        check: "cd flat && TREE",
        clear: "rm -rf flat",
    },
    Scenario {
        name: "unpack_diff",
        prepare: "ENDED",
        run: "$STRACE unpack diff web >out",
        check: "sort out",
        clear: ":",
    },
    Scenario {
        name: "unpack_commit",
        prepare: "ENDED",
        run: "SOURCE_DATE_EPOCH=1 $STRACE unpack commit web --tag changed >out",
        check: "jq -r .image.manifest.digest out; cd state/oci/blobs/sha256 && BLOBS && echo whole",
        clear: "pull remove changed; pull gc --grace 0",
    },
    Scenario {
        name: "bundle",
        prepare: ":",
        run: "$STRACE bundle --id web <u >out -- true",
        check: "jq -c .process.args state/containers/web/config.json; ls state/containers/web/rootfs",
        clear: "bundle delete --force web",
    },
    Scenario {
        name: "bundle_delete",
        prepare: "bundle --id web <u >/dev/null -- true; :",
        run: "$STRACE bundle delete --force web",
        check: "ls -A state/containers",
        clear: ":",
    },
    Scenario {
        name: "bundle_list",
        prepare: "SLEEPS",
        run: "$STRACE bundle list >out",
        check: "awk '{ print $1, $2 }' out",
        clear: ":",
    },
    Scenario {
        name: "bundle_mount",
        prepare: "SLEEPS; bundle unmount web",
        run: "$STRACE bundle mount web >out",
        check: "jq -c .id out; ls state/containers/web/rootfs",
        clear: ":",
    },
    Scenario {
        name: "bundle_volume_create",
        prepare: "bundle volume rm --force one >/dev/null",
        run: "$STRACE bundle volume create one >/dev/null",
        check: "bundle volume ls -q",
        clear: "bundle volume rm --force one",
    },
    Scenario {
        name: "bundle_volume_prune",
        prepare: "{ [ -e state/containers/web ] || bundle --id web -v held:/h <u -- true >/dev/null; }; \
            bundle volume create one >/dev/null",
        run: "$STRACE bundle volume prune >/dev/null",
        check: "bundle volume ls -q",
        clear: "bundle delete --force web; bundle volume rm --force one held",
    },
    Scenario {
        name: "bundle_prune",
        prepare: "SLEEPS; bundle unmount web",
        run: "$STRACE bundle prune >out",
        check: "ls -A state/containers",
        clear: ":",
    },
    Scenario {
        name: "bundle_cp_into_a_container",
        prepare: "SLEEPS; rm -rf state/containers/web/rootfs/in",
        run: "$STRACE bundle cp tree web:/in",
        check: "cd state/containers/web/rootfs/in && TREE",
        clear: ":",
    },
    Scenario {
        name: "bundle_cp_out_of_a_container",
        prepare: "SLEEPS; rm -rf from",
        run: "$STRACE bundle cp web:/etc from",
        check: "cd from && TREE",
        clear: ":",
    },
    Scenario {
        name: "spawn",
        prepare: "[ -e state/containers/web ] || bundle --id web --network none <u -- echo hi >b",
        run: "$STRACE spawn <b >out",
        check: "cat out",
        clear: "spawn delete --force web; bundle delete --force web",
    },
    Scenario {
        name: "spawn_create",
        prepare: "SLEEPS; spawn delete --force web",
        run: "$STRACE spawn create -b state/containers/web web >out",
        check: "spawn state web | jq -r .status",
        clear: "spawn delete --force web",
    },
    Scenario {
        name: "spawn_start",
        prepare: "SLEEPS; spawn delete --force web; spawn create -b state/containers/web web >out",
        run: "$STRACE spawn start web",
        check: "spawn state web | jq -r .status",
        clear: "spawn delete --force web",
    },
    Scenario {
        name: "spawn_exec",
        prepare: "SLEEPS; spawn state web >/dev/null 2>&1 || spawn run -d -b state/containers/web web >/dev/null",
        run: "$STRACE spawn exec web echo hi >out",
        check: "cat out",
        clear: ":",
    },
    Scenario {
        name: "spawn_delete",
        prepare: "SLEEPS; spawn state web >/dev/null 2>&1 || spawn run -d -b state/containers/web web >/dev/null",
        run: "$STRACE spawn delete --force web",
        check: "ls -A state/run/spawn; find /sys/fs/cgroup -name 'web*'",
        clear: "spawn delete --force web",
    },
    Scenario {
        name: "ns_add",
        prepare: "[ -e state/containers/web ] || bundle --id web <u -- true >b",
        run: "$STRACE ns add <b >out",
        check: "nsenter --net=/run/netns/web ip -o addr show eth0 | wc -l",
        clear: "ns del --wait web; bundle delete --force web",
    },
    Scenario {
        name: "ns_del",
        prepare: "bundle --id web <u -- true 2>/dev/null | ns add >/dev/null 2>&1; :",
        run: "$STRACE ns del --wait web",
        check: "ls /run/netns; ip -o link | wc -l",
        clear: "bundle delete --force web",
    },
    Scenario {
        name: "ns_network_create",
        prepare: "ns network rm --force lab >/dev/null",
        run: "$STRACE ns network create --internal --subnet 10.9.0.0/24 lab >/dev/null",
        check: "ns network inspect lab | jq -c '.[0] | [.subnets, .gateways, .internal]'",
        clear: "ns network rm --force lab",
    },
    Scenario {
        name: "ns_network_rm",
        prepare: "ns network create --subnet 10.9.0.0/24 lab >/dev/null 2>&1; :",
        run: "$STRACE ns network rm --force lab >/dev/null",
        check: "ns network list -q",
        clear: "ns network rm --force lab",
    },
    Scenario {
        name: "ns_connect",
        prepare: "NETWORKED; ns disconnect lab web >/dev/null 2>&1; ns network create --exist-ok --driver routed lab >/dev/null",
        run: "$STRACE ns connect lab web",
        check: "nsenter --net=/run/netns/web ip -o -4 addr show eth1 | wc -l; ip route | grep -c ' dev dr'; \
            jq -c '.network.ips | length' state/containers/web/record.json",
        clear: "ns disconnect lab web",
    },
    Scenario {
        name: "ns_disconnect",
        prepare: "NETWORKED; ns connect lab web >/dev/null 2>&1; :",
        run: "$STRACE ns disconnect lab web",
        check: "nsenter --net=/run/netns/web ip -o link | wc -l; \
            jq -c '.network.ips | length' state/containers/web/record.json",
        clear: ":",
    },
    Scenario {
        name: "portmap_add",
        prepare: "[ -e n ] && ls /run/netns/web >/dev/null 2>&1 || { BUNDLE; }",
        run: "$STRACE portmap -p 8080:80 <n >out",
        check: "jq -c .ports out; portmap list | wc -l",
        clear: "portmap del web; ns del --wait web; bundle delete --force web; rm -f n",
    },
    Scenario {
        name: "portmap_del",
        prepare: "ls /run/netns/web >/dev/null 2>&1 || { BUNDLE; }; portmap -p 8080:80 <n >/dev/null 2>&1; :",
        run: "$STRACE portmap del web",
        check: "portmap list; nft list tables",
        clear: "ns del --wait web; bundle delete --force web; rm -f n",
    },
    Scenario {
        name: "portmap_restore",
        prepare: "[ -e state/containers/web ] || run -d --name web -p 8080:80 $BUSYBOX sleep 1000 >/dev/null; nft flush ruleset",
        run: "$STRACE portmap restore </dev/null >out",
        check: "portmap check web; echo $?; portmap list | wc -l",
        clear: ":",
    },
    Scenario {
        name: "keep",
        prepare: "keep rm --force web >/dev/null 2>&1; bundle --id web --network none <u -- sh -c 'sleep 0.2; exit 3' >b",
        run: "$STRACE keep <b >out",
        check: "keep wait web",
        clear: "keep rm --force web",
    },
    Scenario {
        name: "keep_start",
        prepare: "[ -e state/containers/web ] || { bundle --id web --network none <u -- sh -c 'sleep 0.2; exit 3' | \
                  keep >/dev/null; }; keep wait web >/dev/null; :",
        run: "$STRACE keep start web >out",
        check: "keep wait web",
        clear: "keep wait web",
    },
    Scenario {
        name: "keep_stop",
        prepare: "KEPT; keep start web >/dev/null",
        run: "$STRACE keep stop --time 0 web >out",
        check: "STATUS",
        clear: "keep rm --force web",
    },
    Scenario {
        name: "keep_restart",
        prepare: "KEPT",
        run: "$STRACE keep restart --time 0 web >out",
        check: "STATUS",
        clear: "keep rm --force web",
    },
    Scenario {
        name: "keep_list",
        prepare: "KEPT",
        run: "$STRACE keep list --json >out",
        check: "jq -c '.[] | [.id, .status]' out",
        clear: ":",
    },
    Scenario {
        name: "keep_rm",
        prepare: "KEPT",
        run: "$STRACE keep rm --force web >out",
        check: "ls -A state/containers state/run/spawn",
        clear: "keep rm --force web 2>/dev/null; run --gc",
    },
    Scenario {
        name: "run",
        prepare: ":",
        run: "$STRACE run --rm --name web -p 8080:80 $BUSYBOX echo hi >out",
        check: "cat out",
        clear: "run --gc >/dev/null",
    },
    Scenario {
        name: "run_in_the_background",
        prepare: "keep rm --force web >/dev/null 2>&1; bundle delete --force web; run --gc >/dev/null",
        run: "$STRACE run -d --name web -p 8080:80 $BUSYBOX sh -c 'sleep 0.2; exit 3' >out",
        check: "keep wait web",
        clear: "keep rm --force web; bundle delete --force web; run --gc >/dev/null",
    },
    Scenario {
        name: "run_gc",
        prepare: "[ -e state/run/claims/web ] || { keep rm --force web 2>/dev/null; bundle delete --force web; \
                  run -d --name web -p 8080:80 $BUSYBOX sleep 1000 >/dev/null && keeper=$(jq .pid state/run/claims/web) && \
                  kill -9 $keeper && while grep -qs '^State:.[^Z]' /proc/$keeper/status; do :; done; }",
        run: "$STRACE run --gc >out",
        check: "ls state/run/claims /run/netns state/run/spawn; portmap list",
        // The bridge goes a moment after its last container.
        clear: "run --gc >/dev/null; keep rm --force web; ns del --wait web; bundle delete --force web",
    },
    Scenario {
        name: "compose_up",
        prepare: ":",
        run: "$STRACE compose -p shop up -d >out",
        check: "STATUS",
        clear: "compose -p shop down; run --gc",
    },
    Scenario {
        name: "compose_down",
        prepare: "compose -p shop up -d >/dev/null 2>&1; :",
        run: "$STRACE compose -p shop down >out",
        check: "STATUS; ls /run/netns",
        clear: "compose -p shop down; run --gc",
    },
];
