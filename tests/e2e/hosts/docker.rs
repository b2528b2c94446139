//! dockerd with spawn as its default runtime, as docs/deploy.md has it: its own containerd, network and firewall.

use super::Host;
use crate::security::lent_words;
use crate::support::{Need, Outcome, Running, Sandbox, Test, test, wait_for};
use rustix::process::Signal;

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("dockerd"),
    Need::Program("docker"),
    Need::Program("script"),
    Need::Program("curl"),
];

const NEEDS_TUN: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("dockerd"),
    Need::Program("docker"),
    Need::File("/dev/net/tun"),
];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("dockerd_runs_and_removes", NEEDS, life),
        test("dockerd_execs_pauses_and_updates", NEEDS, running),
        test("dockerd_builds_restarts_and_publishes", NEEDS, build),
        test("dockerd_maps_users_and_gives_devices", NEEDS_TUN, remapped),
        test("dockerds_containers_and_ours_reach_each_others_ports", NEEDS, side_by_side),
    ]
}

/// Runs a script with a daemon up and an image in it, and looks whether the daemon used spawn.
#[track_caller]
fn docker(sandbox: &Sandbox, script: &str) -> Outcome {
    docker_with(sandbox, "", &[], script)
}

/// Starts a daemon, and waits until it answers.
#[track_caller]
pub(super) fn dockerd(sandbox: &Sandbox, options: &[&str]) -> Running {
    let words = ["dockerd", "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"];
    let daemon = sandbox.cmd(&[&words, options].concat()).start();
    wait_for("dockerd", || (sandbox.run(&["docker", "version"]).code() == 0).then_some(()));
    daemon
}

/// Does so on a host that is prepared, with more options for the daemon.
#[track_caller]
fn docker_with(sandbox: &Sandbox, prepare: &str, options: &[&str], script: &str) -> Outcome {
    let host = Host::new(sandbox);
    host.install("/etc/docker/daemon.json", "");
    host.ok(prepare);
    let daemon = dockerd(sandbox, options);
    let script = format!(
        "docker info --format '{{{{.DefaultRuntime}}}}'
        docker import -c 'CMD [\"sleep\", \"1000\"]' layer.tar bb >/dev/null
        code() {{ set +e; \"$@\"; echo code $?; set -e; }}
        lent() {{ echo \"lent: $({})\"; }}
        {script}
        docker ps -aq | xargs -r docker rm -f >/dev/null",
        lent_words("/var/lib/docker:/run/docker:${2-}", "$(docker top $1 -eo pid | tail -n +2)")
    );
    let outcome = host.ok(&script).stdout_has("spawn\n");
    daemon.signal(Signal::TERM);
    daemon.wait().ok();
    host.down();
    outcome
}

/// dockerd drops what it does not know, on a host with a machine behind it.
fn side_by_side(sandbox: &Sandbox) {
    let lan = "ip netns add lan; ip link add ext0 type veth peer name eth0 netns lan; ip link set ext0 up
        ip -n lan addr add 192.0.2.1/24 dev eth0; ip -n lan link set eth0 up; ip addr add 192.0.2.9/24 dev ext0
        ip route add default via 192.0.2.1";
    let script = "
        ns add web >record 2>/dev/null; ip netns exec web busybox httpd -p 80 -h /; portmap -p 8080:80 record >/dev/null
        docker run -d --name dk -p 9090:80 bb httpd -f -p 80 -h /bin >/dev/null
        theirs() { nsenter -t $(docker inspect -f '{{.State.Pid}}' dk) -n $@; }; ours() { ip netns exec web $@; }
        got() { $@ 2>/dev/null | grep -c 'HTTP/' || :; }
        look() {
            for at in theirs ours 'ip netns exec lan' ''; do for port in 8080 9090; do
                got $at curl -si -m 9 http://192.0.2.9:$port/
            done; done
            for at in theirs ours; do $at busybox ping -c 1 -w 5 192.0.2.1 >/dev/null && echo out; done
        }
        echo look: $(look)
        kill $(ip netns pids web); portmap del web; ns del --wait web; ip netns del lan";
    docker_with(sandbox, lan, &[], script).stdout_has("look: 1 1 1 1 1 1 1 1 out out\n");
}

fn life(sandbox: &Sandbox) {
    docker(
        sandbox,
        "docker run --rm bb echo one
        echo two | docker run -i --rm --network host bb cat
        code docker run --rm bb sh -c 'exit 7'
        code docker run --rm bb no-such-program 2>&1
        code docker run --rm bb /etc/passwd 2>&1
        docker run --rm bb tty || :
        script -qec 'docker run --rm -t bb tty' /dev/null
        docker run --rm --init bb sh -c 'cat /proc/1/comm'
        docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -u 65534 bb sh -c 'touch /x && echo written; touch /tmp/x && grep CapEff /proc/self/status' 2>/dev/null
        docker run --rm -m 64m --pids-limit 50 bb sh -c 'cd /sys/fs/cgroup; cat pids/pids.max pids.max; \
            cat memory/memory.limit_in_bytes memory.max' 2>/dev/null || :
        docker run -d --name web bb sh -c 'echo out; echo err >&2; exec sleep 1000' >/dev/null
        until docker logs web 2>&1 | grep -q err; do :; done
        docker logs web 2>/dev/null
        docker kill -s KILL web
        docker wait web
        docker start web
        docker ps --format '{{.Names}} {{.State}}'
        docker stop -t 0 web
        docker rm web",
    )
    .stdout_has("one\ntwo\ncode 7\n")
    .stdout_has("\"no-such-program\": executable file not found in $PATH")
    .stdout_has("code 127\n")
    .stdout_has("permission denied")
    .stdout_has("code 126\nnot a tty\n/dev/pts/0\r")
    .stdout_has("docker-init\nCapEff:\t0000000000000000\n50\n67108864\n")
    .stdout_has("out\nweb\n137\nweb\nweb running\nweb\nweb\n");
}

fn running(sandbox: &Sandbox) {
    docker(
        sandbox,
        "docker run -d --name web --hostname inside bb >/dev/null
        docker exec web hostname
        docker exec -u 65534:65534 -w /tmp -e A=b web sh -c 'echo $(id -u):$(id -g) $PWD $A'
        script -qec 'docker exec -t web tty' /dev/null | tr -d '\r'
        echo through | docker exec -i web cat
        code docker exec web sh -c 'exit 9'
        docker exec web no-such-program 2>&1 || :
        docker exec --privileged web grep -c 'CapEff.*ffff$' /proc/self/status
        docker pause web
        docker ps --format '{{.State}}'
        docker unpause web
        docker top web -eo pid,args | grep -c 'sleep 1000'
        docker stats --no-stream --format '{{.Name}} {{.PIDs}}' web
        docker update --memory 96m --memory-swap 96m --cpus 0.5 --pids-limit 60 web
        docker exec web sh -c 'cd /sys/fs/cgroup; cat pids/pids.max pids.max; cat memory/memory.limit_in_bytes memory.max; \
            cat cpu/cpu.cfs_quota_us || cut -d\" \" -f1 cpu.max' 2>/dev/null
        docker exec -d web sleep 1001; until docker top web | grep -q 1001; do :; done; lent web",
    )
    .stdout_has("inside\n65534:65534 /tmp b\n/dev/pts/0\nthrough\ncode 9\n")
    .stdout_has("exec: \"no-such-program\": executable file not found in $PATH")
    .stdout_has("1\nweb\npaused\nweb\n1\nweb 1\nweb\n60\n100663296\n50000\nlent: \n");
}

/// A user namespace may make no device: it gets the host's, by its whole path. dockerd gives it its control groups, too.
fn remapped(sandbox: &Sandbox) {
    docker_with(
        sandbox,
        "for file in passwd:x:4444:4444::/:/bin/sh group:x:4444: subuid:100000:65536 subgid:100000:65536; do
            echo mapped:${file#*:} >>/etc/${file%%:*}
        done",
        &["--userns-remap", "mapped"],
        "docker run --rm --device /dev/net/tun bb sh -c '
            cat /proc/self/uid_map; stat -c %t:%T /dev/net/tun'
        docker run -d --name web --device /dev/net/tun bb >/dev/null
        docker exec web sh -c 'id -u; test -c /dev/net/tun && echo there'
        lent web /sys/fs/cgroup",
    )
    .stdout_has("         0     100000      65536\na:c8\n")
    .stdout_has("0\nthere\nlent: \n");
}

fn build(sandbox: &Sandbox) {
    sandbox.write("context/Dockerfile", "FROM bb\nRUN echo built >/page\nCMD [\"httpd\", \"-f\", \"-p\", \"80\"]\n");
    docker(
        sandbox,
        "DOCKER_BUILDKIT=0 docker build -q -t page context 2>/dev/null >/dev/null
        docker run -d --name web --restart always -p 8080:80 page >/dev/null
        page() { until curl -sf http://127.0.0.1:8080/page; do :; done; }
        page
        pid=$(docker inspect web --format '{{.State.Pid}}')
        kill -9 $pid
        until [ $(docker inspect web --format '{{.RestartCount}}') = 1 ]; do :; done
        page
        docker restart -t 0 web
        page",
    )
    .stdout_has("built\nbuilt\nweb\nbuilt\n");
}
