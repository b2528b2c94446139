//! podman: one container's life, pods, networks, ids and checkpoints.

use super::Host;
use crate::security::lent_words;
use crate::support::{Need, Outcome, Sandbox, Test, test};

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("podman"),
    Need::Program("script"),
];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("podman_runs_and_removes", NEEDS, life),
        test("podman_execs_and_pauses", NEEDS, running),
        test("podman_limits_and_updates", NEEDS, limits),
        test("podman_maps_users", NEEDS, users),
        test("podman_makes_pods", UNIFIED, pods),
        test("podman_publishes_ports", NEEDS, ports),
        test("an_ordinary_users_podman_is_named_by_ns", ROOTLESS, rootless),
    ]
}

const UNIFIED: &[Need] =
    &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("podman"), Need::UnifiedCgroups];

const ROOTLESS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Program("busybox"),
    Need::Program("podman"),
    Need::Program("crun"),
    Need::Program("newuidmap"),
    Need::Program("setpriv"),
];

/// What no file of an operator's has to say: there is no systemd here, and maybe no right to raise limits, or cgroup v1, of
/// which podman 5 says on each terminal that it is old.
pub(super) const PODMAN: &str = r#"
    # conmon, which creates, gets little of the environment, and podman, which starts, all: DRAYAGE_ROOT would part the two.
    unset DRAYAGE_ROOT
    export DISABLE_HC_SYSTEMD=true PODMAN_IGNORE_CGROUPSV1_WARNING=true
    podman() { command podman --cgroup-manager cgroupfs --events-backend file --log-level error "$@"; }
    bb=localhost/busybox:1
"#;

pub(super) const CONTAINERS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
pids_limit = 0
"#;

/// Runs a script with an image pulled, and looks whether podman used spawn.
#[track_caller]
fn podman(sandbox: &Sandbox, script: &str) -> Outcome {
    let host = Host::new(sandbox);
    let more = if sandbox.run(&["podman", "--version"]).stdout.contains(" 4.") { CNI } else { "" };
    host.install("/etc/containers/containers.conf", &format!("{CONTAINERS}{more}"));
    host.ok(&super::block("## CNI"));
    host.install("/etc/cni/net.d/10-pods.conflist", "");
    let script = format!(
        "{PODMAN}
        podman pull -q oci-archive:image.tar >/dev/null
        podman tag $(podman images -q) $bb
        podman info --format '{{{{.Host.OCIRuntime.Path}}}}'
        lent() {{ echo \"lent: $({})\"; }}
        {script}
        # podman 4.3 fails one removal in ten of a container with mapped users (EBUSY of its shm), with runc as well.
        podman rm -fa -t 0 >/dev/null 2>&1 || podman rm -fa -t 0 >/dev/null
        podman rmi -fa >/dev/null",
        lent_words("/var/lib/containers:/run/containers", "$(podman top $1 hpid | tail -n +2)")
    );
    let outcome = host.ok(&script).stdout_has("/usr/local/lib/drayage/bin/spawn\n");
    host.down();
    outcome
}

const CNI: &str = r#"
[network]
network_backend = "cni"
default_network = "pods"
cni_plugin_dirs = ["/opt/cni/bin"]
"#;

fn life(sandbox: &Sandbox) {
    podman(
        sandbox,
        "code() { set +e; \"$@\"; echo code $?; set -e; }
        podman run --rm --network none $bb echo one
        echo two | podman run -i --rm --network host $bb cat
        code podman run --rm --network none $bb sh -c 'exit 7'
        code podman run --rm --network none $bb no-such-program 2>&1
        code podman run --rm --network none $bb /etc/passwd 2>&1
        podman run --rm --network none $bb tty || :
        script -qec \"podman --cgroup-manager cgroupfs run --rm -t --network none $bb tty\" /dev/null
        podman run -d --name web --network none $bb sh -c 'echo out; echo err >&2; exec sleep 1000' >/dev/null
        until podman logs web 2>&1 | grep -q err; do :; done
        podman logs web 2>/dev/null
        podman logs web 2>&1 >/dev/null
        podman kill -s TERM web >/dev/null
        podman kill -s KILL web >/dev/null
        podman wait web
        podman start web
        podman restart -t 0 web
        podman inspect web --format '{{.State.Status}}'
        podman stop -t 0 web
        podman inspect web --format '{{.State.Status}} {{.State.ExitCode}}'
        podman rm web",
    )
    .stdout_has("one\ntwo\ncode 7\n")
    .stdout_has("no-such-program")
    .stdout_has("code 127\n")
    .stdout_has("code 126\nnot a tty\n/dev/pts/0\r\nout\nerr\n137\nweb\n")
    .stdout_has("\nweb\nrunning\nweb\nexited 137\n");
}

fn running(sandbox: &Sandbox) {
    podman(
        sandbox,
        "podman run -d --name web --hostname inside --network none --health-cmd 'test -e /tmp/well' --health-interval disable \\
            --cap-drop all --security-opt no-new-privileges $bb sleep 1000 >/dev/null
        podman exec web hostname
        podman exec -u 65534:65534 -w /tmp -e A=b web sh -c 'echo $(id -u):$(id -g) $PWD $A'
        podman exec web grep -E 'CapEff|NoNewPrivs' /proc/self/status
        script -qec \"podman --cgroup-manager cgroupfs exec -t web tty\" /dev/null
        echo through | podman exec -i web cat
        podman exec web sh -c 'exit 9' || echo exec $?
        podman exec web no-such-program 2>/dev/null || echo exec $?
        podman exec -d web touch /tmp/well >/dev/null
        until podman exec web test -e /tmp/well; do :; done
        podman healthcheck run web && echo well
        podman exec web rm /tmp/well
        podman healthcheck run web >/dev/null || echo ill
        podman pause web >/dev/null
        podman inspect web --format '{{.State.Status}}'
        podman unpause web >/dev/null
        podman inspect web --format '{{.State.Status}}'
        podman top web -eo pid,args | grep -c 'sleep 1000'
        podman stats --no-stream --no-reset --format '{{.Name}} {{.PIDs}}' web
        podman exec -d web sleep 1001 >/dev/null; until podman top web args | grep -q 1001; do :; done; lent web",
    )
    .stdout_has("inside\n65534:65534 /tmp b\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n/dev/pts/")
    .stdout_has("through\nexec 9\nexec 127\nwell\nill\npaused\nrunning\n1\nweb 1\nlent: \n");
}

fn limits(sandbox: &Sandbox) {
    podman(
        sandbox,
        "limits() { podman exec web sh -c 'cd /sys/fs/cgroup; cat pids/pids.max pids.max; cat memory/memory.limit_in_bytes memory.max' \\
            2>/dev/null || :; }
        podman run -d --name web --network none --pids-limit 50 -m 64m $bb sleep 1000 >/dev/null
        limits
        podman update --memory 96m --cpus 0.5 web >/dev/null
        limits
        podman exec web sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cut -d\" \" -f1 /sys/fs/cgroup/cpu.max' 2>/dev/null",
    )
    .stdout_has("50\n67108864\n50\n100663296\n50000\n");
}

fn users(sandbox: &Sandbox) {
    podman(
        sandbox,
        "podman run --rm --network none --uidmap 0:100000:65536 --gidmap 0:200000:65536 $bb sh -c 'cat /proc/self/uid_map; id -u; ls -ldn /root; cat /proc/self/gid_map'
        podman run --rm --network none --user 65534:65534 $bb id -u
        podman run -d --name mapped --network none --uidmap 0:100000:65536 $bb sleep 1000 >/dev/null; lent mapped",
    )
    .stdout_has("         0     100000      65536\n0\ndrwx")
    .stdout_has(" 0        0 ")
    .stdout_has("         0     200000      65536\n")
    .stdout_has("\n65534\nlent: \n");
}

fn pods(sandbox: &Sandbox) {
    podman(
        sandbox,
        "podman pod create --name pair --share net,ipc,uts --network none --infra-image $bb --infra-command 'sleep 1000' >/dev/null
        podman run -d --pod pair --name one $bb sh -c 'httpd -f -p 127.0.0.1:8000 -h /etc' >/dev/null
        podman run --rm --pod pair $bb sh -c 'until wget -qO- http://127.0.0.1:8000/passwd; do :; done' 2>/dev/null
        podman pod inspect pair --format '{{.State}} {{.NumContainers}}'
        podman pod pause pair >/dev/null
        podman inspect one --format '{{.State.Status}}'
        podman pod unpause pair >/dev/null
        podman pod stop -t 0 pair >/dev/null
        podman pod rm -f pair >/dev/null
        podman ps -aq",
    )
    .stdout_has("root:x:0:0:root:/root:/bin/sh\n")
    .stdout_has("\nRunning 2\npaused\n");
}

fn ports(sandbox: &Sandbox) {
    let outcome = podman(
        sandbox,
        "podman run -d --name web -p 8080:80 -p 127.0.0.1:8081:80 $bb httpd -f -p 80 -h /etc >/dev/null
        address=$(podman inspect web --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
        for port in 8080 8081; do
            until curl -sf http://127.0.0.1:$port/passwd; do :; done
        done
        podman exec web ip -4 addr show eth0 | grep -c $address
        podman rm -f -t 0 web >/dev/null
        curl -s --connect-timeout 2 http://127.0.0.1:8080/passwd || echo closed",
    );
    outcome.stdout_has("root:x:0").stdout_has("\n1\nclosed\n");
}

/// As podman does it by itself, with its own runtime: no cgroup has the container's id in its name. `fake` is a note of
/// that user's that claims a process of root's.
fn rootless(sandbox: &Sandbox) {
    let host = Host::new(sandbox);
    let script = r#"
        mount -t cgroup2 cgroup /sys/fs/cgroup
        printf '%s\n' root:x:0:0::/root:/bin/sh "me:x:1234:1234::$PWD/home:/bin/sh" >/etc/passwd
        printf '%s\n' root:x:0: me:x:1234: >/etc/group
        echo me:100000:65536 >/etc/subuid; echo me:100000:65536 >/etc/subgid
        mkdir -p home /run/user/1234; chown 1234:1234 home /run/user/1234; chmod 711 .; chmod 644 image.tar
        export HOME=$PWD/home XDG_RUNTIME_DIR=/run/user/1234 DISABLE_HC_SYSTEMD=true image=$PWD/image.tar
        me() { (cd home; setpriv --reuid 1234 --regid 1234 --clear-groups "$@"); }
        podman() { me podman --cgroup-manager cgroupfs --events-backend file --log-level error "$@"; }
        podman pull -q oci-archive:$image >/dev/null
        run() { podman run -d --network none --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 "$@" >id; }
        run --name mine $(podman images -q) sleep 1000
        until ns list -r -n -t pid -o COMMAND | grep -q '^sleep'; do :; done
        ns list -r -n -t pid -o CONTAINER,COMMAND | grep sleep
        me ns list -r -n -t pid -o CONTAINER,COMMAND | grep sleep
        ns enter -t me/mine -U -p -m /bin/cat /proc/1/cmdline | tr '\0' ' '; echo
        sleep 2000 & fake=$!
        mkdir -p /run/user/1234/crun/fake; echo '{"pid":'$fake'}' >/run/user/1234/crun/fake/status
        chown -R 1234:1234 /run/user/1234/crun/fake
        ns enter -t fake -p true 2>&1 || kill $fake; rm -r /run/user/1234/crun/fake
        podman rm -f -t 0 mine >/dev/null
        ns list -r -n -t pid -o CONTAINER,COMMAND | grep -c mine || :
        kill $(cat /run/user/1234/libpod/tmp/pause.pid) || :
        umount -l /sys/fs/cgroup; rm -rf /run/user/1234"#;
    let want = "me/mine sleep\\x201000\nmine sleep\\x201000\nsleep 1000 \n\
                ns: no process, container or named namespace is called fake\n0\n";
    host.ok(script).stdout_is(want);
    host.down();
}
