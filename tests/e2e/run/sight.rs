//! Whoever looks from the host sees what the state says: the root file system's files, and a namespace to be entered.

use super::PIPELINE;
use crate::support::{Listing, Sandbox, Test, image, since, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_running_containers_files_and_network_are_seen_from_the_host", PIPELINE, seen),
        test("its_volumes_and_own_mounts_are_not_the_hosts", PIPELINE, kept_apart),
        test("an_ended_container_keeps_its_files_and_no_mount", PIPELINE, ended),
        test("prune_leaves_a_starting_container_alone", PIPELINE, starting),
        test("another_container_shares_network_ipc_and_pid", PIPELINE, shared),
        test("what_another_container_shares_is_looked_up_at_each_start", PIPELINE, joined_again),
        test("all_processes_killed_at_once_leave_what_one_sweep_removes", PIPELINE, all_killed),
    ]
}

fn seen(sandbox: &Sandbox) {
    let run = |options: &str| format!("run {options} --name web {} sleep 100", image("busybox").reference);
    let look = "ls $(spawn state web | jq -r .rootfs); ip netns exec web true && nsenter --net=/run/netns/web true
        ip netns identify $(spawn state web | jq .pid); ip netns list; ip link >/dev/null; ls -A /run/netns";
    for options in ["-d --rm", "--rm"] {
        let started = sandbox.sh(&format!("exec {}", run(options))).start();
        sandbox.sh("until [ \"$(spawn state web 2>/dev/null | jq -r .status)\" = running ]; do :; done").run().ok();
        let seen = sandbox.sh(look).run().ok().stderr_is("").stdout;
        for want in ["bin\n", "etc\n", "web\nweb (id: 0)\nweb\n"] {
            assert!(seen.contains(want), "{options}: {seen}");
        }
        sandbox.run(&["keep", "rm", "-f", "web"]).ok();
        started.wait();
        sandbox
            .sh("ls -A /run/netns state/containers; grep state/ /proc/mounts")
            .run()
            .stdout_is("/run/netns:\n\nstate/containers:\n");
    }
}

/// Whether the host's mounts are shared, as systemd has them, or private.
fn kept_apart(sandbox: &Sandbox) {
    let run = format!(
        "mkdir -p data/below; mount -t tmpfs below data/below; run -d --name web -v $PWD/data:/data -v named:/named --tmpfs /memory {} sleep 100 >/dev/null",
        image("busybox").reference
    );
    for propagation in ["shared", "private"] {
        let script = format!(
            "mount --make-r{propagation} /; {run}; spawn exec web sh -c 'mkdir /tmp/x; echo in >/memory/file'
             awk '{{print $5}}' /proc/self/mountinfo | grep -F $PWD/ | grep -v programs | sed \"s,$PWD/,,\" | sort; ls state/containers/web/rootfs/data state/containers/web/rootfs/tmp
             keep rm -f web >/dev/null; grep -c state/ /proc/self/mountinfo; umount data/below"
        );
        sandbox
            .cmd(&["unshare", "-m", "sh", "-c", &script])
            .run()
            .stdout_is("data/below\nstate/containers/web/rootfs\nstate/containers/web/rootfs/data:\n\nstate/containers/web/rootfs/tmp:\nx\n0\n");
    }
}

fn ended(sandbox: &Sandbox) {
    let left = "ls -A state/containers/web/rootfs /run/netns; cat state/containers/web/upper/tmp/made; grep state/ /proc/mounts";
    let busybox = image("busybox").reference;
    for options in ["", "-d"] {
        sandbox
            .sh(&format!(
                "run {options} --name web {busybox} sh -c 'echo made >/tmp/made'; keep wait web 2>/dev/null; :"
            ))
            .run()
            .ok();
        sandbox.sh("until [ ! -e state/run/claims/web ]; do :; done").run().ok();
        sandbox.sh(left).run().stdout_is("/run/netns:\n\nstate/containers/web/rootfs:\nmade\n");
        sandbox
            .sh("bundle mount web >/dev/null; cat state/containers/web/rootfs/tmp/made")
            .run()
            .ok()
            .stdout_is("made\n");
        sandbox.sh("bundle unmount web; bundle unmount web nosuch").run().ok().stdout_is("").stderr_is("");
        sandbox.sh(left).run().stdout_is("/run/netns:\n\nstate/containers/web/rootfs:\nmade\n");
        sandbox.run(&["bundle", "delete", "web"]).ok();
    }
    sandbox.sh(&format!("run -d --name web {busybox} sleep 100")).run().ok();
    sandbox.run(&["bundle", "unmount", "web"]).fails(1).one_error_line("bundle", &["web", "runs"]);
    sandbox.run(&["bundle", "unmount", "/"]).fails(2).one_error_line("bundle", &["not a bundle"]);
    sandbox.run(&["keep", "rm", "-f", "web"]).ok();
}

fn starting(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox.sh(&format!("pull {busybox} | unpack >/dev/null")).run().ok();
    for prune in ["bundle prune", "bundle prune --all"] {
        let script = format!(
            "while [ ! -e stop ]; do {prune}; done >pruned & for n in 1 2 3 4 5 6 7 8; do run --rm --pull never {busybox} echo ok; done; touch stop; wait; cat pruned; rm stop"
        );
        sandbox.sh(&script).run().ok().stdout_is(&"ok\n".repeat(8)).stderr_is("");
    }
}

/// What two containers share, as `run` and `compose` ask for it; `IMAGE` is busybox.
pub(super) const SHARED: &str = r#"
    run -d --name own IMAGE sh -c "echo here >/dev/shm/note; echo page >/tmp/page; exec httpd -f -p 80 -h /tmp" >/dev/null
    ask="wget -q -O - http://127.0.0.1/page"
    until spawn exec own $ask 2>/dev/null; do :; done
    run --rm --network container:own IMAGE $ask
    run --rm --ipc container:own IMAGE cat /dev/shm/note
    run --rm --pid container:own IMAGE sh -c "ps | grep -c [h]ttpd"
    run -d --name second --network container:own IMAGE sleep 1000
    run --rm --network container:second IMAGE $ask
    keep restart -t 0 second; run --rm --network container:second IMAGE $ask
    run -d --name lone --network none IMAGE sleep 1000; run --rm --network container:lone IMAGE ls /sys/class/net
    keep rm -f second own lone; run --rm --network container:own IMAGE true 2>&1 | grep -c "own"
    printf "%s\n" "services: {app: {image: IMAGE, command: [httpd, -f, -p, '80', -h, /etc]}, aside: {image: IMAGE, command: [sleep, '100']," \
        "  network_mode: 'service:app', pid: 'service:app', ipc: 'service:app'}}" >compose.yaml
    compose -p two up -d >/dev/null 2>&1; until spawn exec two-aside-1 wget -q -O - http://127.0.0.1/hostname 2>/dev/null; do :; done
    compose -p two down >/dev/null 2>&1; keep list -q"#;
pub(super) const SHARED_OUT: &str =
    "page\npage\nhere\n1\nsecond\npage\nsecond\npage\nlone\nlo\nsecond\nown\nlone\n1\ntwo-app-1\n";

fn shared(sandbox: &Sandbox) {
    let script = SHARED.replace("IMAGE", &image("busybox").reference);
    sandbox.sh(&script).run().ok().stdout_is(SHARED_OUT);
    let hosts = format!(
        "run -d --name hosts --network host {image} sleep 1000
        run --rm --network container:hosts {image} readlink /proc/self/ns/net | grep -cF \"$(readlink /proc/self/ns/net)\"
        keep rm -f hosts",
        image = image("busybox").reference
    );
    sandbox.sh(&hosts).run().ok().stdout_is("hosts\n1\nhosts\n");
}

/// A process that has got the number of the other container's is a stranger to the one that starts.
fn joined_again(sandbox: &Sandbox) {
    let script = r#"
        number() { spawn state "$1" | jq .pid; }
        same() { [ "$(readlink /proc/"$(number own)"/ns/"$1")" = "$(readlink /proc/"$(number second)"/ns/"$1")" ] && echo same; }
        run -d --name own IMAGE sleep 1000
        run -d --name second --pid container:own --ipc container:own --uts container:own IMAGE sleep 1000
        old=$(number own)
        keep restart -t 0 own
        spawn exec own touch /dev/shm/note
        keep restart -t 0 second
        for kind in pid ipc uts; do same $kind; done
        spawn exec second ls /dev/shm
        old=$(number own)
        keep stop -t 0 second own
        echo $((old - 1)) >/proc/sys/kernel/ns_last_pid; unshare --net --ipc --uts sleep 1000 &
        [ $! = "$old" ] && echo stranger; kill -9 $!
        echo $((old - 1)) >/proc/sys/kernel/ns_last_pid; unshare --net --ipc --uts sleep 1000 &
        keep start second 2>error; echo $?; grep -c 'container `own`, whose namespaces are joined, does not run' error
        kill -9 $!; keep rm second own"#;
    let done = sandbox.sh(&script.replace("IMAGE", &image("busybox").reference)).run();
    done.stdout_is("own\nsecond\nown\nsecond\nsame\nsame\nsame\nnote\nsecond\nown\nstranger\n1\n1\nsecond\nown\n");
}

fn all_killed(sandbox: &Sandbox) {
    let run = |options: &str| format!("exec run {options} --name web -p 8080:80 {}", image("nginx").reference);
    sandbox.sh(&run("-d --rm")).run().ok();
    sandbox.run(&["keep", "stop", "web"]).ok();
    let before = Listing::take(sandbox);
    for options in ["-d", "-d --rm", "--rm", ""] {
        let started = sandbox.sh(&run(options)).start();
        sandbox.wait_http("127.0.0.1:8080/");
        sandbox.sh("kill -9 $(pgrep 'run|run-guard|keep|spawn|nginx'); until [ -z \"$(pgrep 'run|keep|nginx')\" ]; do :; done").run();
        started.wait();
        sandbox.sh("run --gc").run().ok().stdout_is("web\n");
        sandbox.sh("keep rm -f web 2>/dev/null; grep state/ /proc/mounts; ls -A /run/netns state/containers state/run/claims").run().ok();
        assert_eq!(since(&before, sandbox), Vec::<String>::new(), "{options}");
    }
}
