//! Containers that go on when `run` has ended, and what can be asked for them.

use std::time::Duration;

use rustix::process::Signal;

use super::{PIPELINE, busybox, end};
use crate::support::{Sandbox, Test, image, test, wait_for};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_killed_detached_run_leaves_a_container_or_nothing", PIPELINE, killed_detached),
        test("what_keep_can_do_run_can_ask_for", PIPELINE, keep_options),
        test("replace_takes_the_name_over", PIPELINE, replace),
        test("its_time_and_its_streams_are_limited", PIPELINE, limited),
        test("more_descriptors_are_passed_on", PIPELINE, descriptors),
        test("its_health_is_the_image_s_or_the_user_s_matter", PIPELINE, health),
        test("volumes_of_another_container_are_mounted", PIPELINE, volumes_from),
        test("a_service_manager_is_told_when_it_is_ready", PIPELINE, notified),
        test("an_ended_container_is_started_again", PIPELINE, started_again),
        test("start_repeats_network_ports_log_and_policy", PIPELINE, start_repeats_nothing),
        test("a_boot_starts_what_nobody_has_stopped", PIPELINE, comes_back_after_a_boot),
    ]
}

/// Killed at any moment, with or without `keep`: a container whose id was printed goes on; any other does so as a whole,
/// or nothing is left of it.
fn killed_detached(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let command = format!("exec run -d --rm --name web -p 8080:80 {nginx}");
    sandbox.sh(&command).run().ok();
    end(sandbox, "web");
    for round in 0..12 {
        let run = sandbox.sh(&command).start();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(round * 10) {
            std::hint::spin_loop();
        }
        let signal = if round % 2 == 0 { Signal::KILL } else { Signal::INT };
        run.signal_group(signal);
        if run.wait().stdout == "web\n" {
            end(sandbox, "web");
        }
        wait_for("the clean-up", || {
            let left = sandbox.sh("run --gc >&2; ls state/run/claims state/containers; nft list tables").run().stdout;
            if left == "state/containers:\n\nstate/run/claims:\n" {
                return Some(());
            }
            println!("round {round}: {left}");
            // It may have been killed after the container had begun, and before it could say so.
            if sandbox.http_get("127.0.0.1:8080/").is_some() {
                sandbox.run(&["keep", "rm", "--force", "web"]).ok();
            }
            None
        });
    }
    sandbox.sh(&command).run().ok().stdout_is("web\n");
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    sandbox.run(&["keep", "stop", "web"]).ok();
    assert!(!sandbox.exists("state/containers/web") && !sandbox.exists("state/run/claims/web"));
}

fn keep_options(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let run = |options: &str, command: &str| {
        sandbox.sh(&format!("run -d --network none --name web {options} {busybox} {command}")).run()
    };
    run("--restart on-failure:2 --log-opt format=cri", "sh -c 'echo said; exit 4'").ok().stdout_is("web\n");
    wait_for("the end", || (!sandbox.exists("state/run/claims/web")).then_some(()));
    sandbox.run(&["keep", "logs", "web"]).ok().stdout_is("said\nsaid\nsaid\n");
    assert!(sandbox.read("state/containers/web/exit.json").contains("\"restartCount\":2"));
    sandbox.run(&["keep", "rm", "web"]).ok();
    run("--log-driver none --timeout 1", "sleep 1000").ok();
    sandbox.run(&["keep", "wait", "web"]).ok().stdout_is("137\n");
    sandbox.run(&["keep", "rm", "web"]).ok();
    run("-i --rm --timeout 18446744073709551615", "cat").ok();
    let mut attach = sandbox.cmd(&["keep", "attach", "web"]).open_stdin().start();
    attach.write_stdin("typed\n");
    attach.wait_stdout("typed\n");
    sandbox.run(&["keep", "stop", "--time", "0", "web"]).ok();
    attach.wait().fails(137);
    assert!(!sandbox.exists("state/containers/web"));
    run("--restart sometimes", "true").fails(125).stderr_has("unless-stopped");
    run("--restart always --rm", "true").fails(125).stderr_has("--rm");
    run("--log-driver syslog", "true").fails(125).one_error_line("keep", &["syslog"]);
    assert!(!sandbox.exists("state/run/claims/web"));
}

fn replace(sandbox: &Sandbox) {
    let run = format!("run -d --name web --network none --replace {} sleep 1000", image("busybox").reference);
    for _ in 0..2 {
        sandbox.sh(&run).run().ok().stdout_is("web\n");
    }
    sandbox.run(&["keep", "list", "--running", "--quiet"]).ok().stdout_is("web\n");
    sandbox.run(&["keep", "rm", "--force", "web"]).ok();
    sandbox.sh("run --replace busybox").run().fails(125).stderr_has("--name");
}

fn limited(sandbox: &Sandbox) {
    sandbox.sh(&busybox("--timeout 1", "sleep 1000")).run().fails(128 + 9);
    // More seconds than a clock has are for ever.
    sandbox.sh(&busybox("--timeout 18446744073709551615", "echo done")).run().ok().stdout_is("done\n");
    let both = "sh -c 'echo out; echo err >&2; cat'";
    sandbox.sh(&busybox("-a stdout", both)).stdin("in").run().ok().stdout_is("out\n").stderr_is("");
    sandbox.sh(&busybox("-a stderr -a stdin", both)).stdin("in").run().ok().stdout_is("").stderr_is("err\n");
    sandbox.sh(&busybox("-a stdin -a stdout", both)).stdin("in").run().ok().stdout_is("out\nin");
    let deaf = "sh -c 'trap \"exit 7\" USR1; echo ready; while :; do read -t 1 x </dev/zero; done'";
    let held = sandbox.sh(&format!("exec {}", busybox("--name web --sig-proxy=false", deaf))).start();
    held.wait_stdout("ready");
    held.signal(Signal::USR1);
    sandbox.run(&["spawn", "kill", "web", "KILL"]).ok();
    held.wait().fails(128 + 9);
    sandbox.sh(&busybox("-a stdlog", both)).run().fails(125).stderr_has("stdlog");
}

fn descriptors(sandbox: &Sandbox) {
    let read = "sh -c 'cat <&3; ls /proc/self/fd | wc -l'";
    // The third is that of ls itself.
    let want = "passed\n5\n";
    sandbox.write("passed", "passed\n");
    sandbox.sh(&format!("{} 3<passed", busybox("--preserve-fds 1", read))).run().ok().stdout_is(want);
    let detached = busybox("-d --name web --preserve-fds 1 -v $PWD:/here", "sh -c 'cat <&3 >/here/got'");
    sandbox.sh(&format!("{detached} 3<passed")).run().ok();
    wait_for("what was passed", || (sandbox.exists("got") && sandbox.read("got") == "passed\n").then_some(()));
    wait_for("the end", || (!sandbox.exists("state/containers/web")).then_some(()));
}

fn health(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let check = "--health-cmd 'test -e /ok' --health-interval 20ms --health-timeout 9s --health-retries 2";
    sandbox.sh(&format!("run -d --name web --network none {check} {busybox} sh -c 'touch /ok; sleep 1000'")).run().ok();
    let lists = |want: &str| {
        wait_for(want, || sandbox.run(&["keep", "list"]).ok().stdout.contains(want).then_some(()));
    };
    lists("running (healthy)");
    sandbox.sh("spawn exec web rm /ok").run().ok();
    lists("running (unhealthy)");
    sandbox.run(&["keep", "rm", "-f", "web"]).ok();
    // The image's own, which the user may change or take away.
    sandbox.write(
        "config.json",
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Healthcheck":{"Test":["CMD","true"],"Interval":20000000}}}"#,
    );
    let bundle = |options: &str| {
        let print = format!("pull -q {busybox} | unpack | bundle --config config.json --print {options} -- sleep 9");
        sandbox.sh(&print).run().ok().json()["annotations"]["org.drayage.healthcheck"].clone()
    };
    assert_eq!(bundle(""), r#"{"Test":["CMD","true"],"Interval":20000000}"#);
    assert_eq!(bundle("--health-interval 1m30s"), r#"{"Test":["CMD","true"],"Interval":90000000000}"#);
    assert!(bundle("--no-healthcheck").is_null());
    let wrong = sandbox.sh(&format!("run -d --health-cmd x --health-interval soon {busybox}")).run();
    wrong.fails(125).one_error_line("bundle", &["soon", "1m30s"]);
}

fn volumes_from(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let options = "-v data:/data -v $PWD:/here:ro --tmpfs /own";
    sandbox
        .sh(&format!("run -d --name web --network none {options} {image} sh -c 'echo kept >/data/file; sleep 1000'"))
        .run()
        .ok();
    wait_for("the file", || sandbox.exists("state/volumes/data/file").then_some(()));
    let script =
        "sh -c 'cat /data/file; echo x 2>/dev/null >/data/file || echo read-only; ls -d /here /own 2>/dev/null; true'";
    sandbox.sh(&busybox("--volumes-from web:ro", script)).run().ok().stdout_is("kept\nread-only\n/here\n");
    let script = "sh -c 'ls /data | wc -l; ls -d /here; echo y >/there'";
    sandbox.sh(&busybox("--volumes-from web --tmpfs /data", script)).run().ok().stdout_is("0\n/here\n");
    sandbox.sh(&busybox("--volumes-from nosuch", "true")).run().fails(125).one_error_line("bundle", &["nosuch"]);
    sandbox.sh(&busybox("--volumes-from ../etc", "true")).run().fails(125).one_error_line("bundle", &["../etc"]);
    sandbox.run(&["keep", "rm", "-f", "web"]).ok();
}

fn started_again(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run -d --name web -p 8080:80 {nginx}")).run().ok();
    sandbox.sh("spawn exec web sh -c 'echo changed >/usr/share/nginx/html/index.html'").run().ok();
    sandbox.run(&["keep", "stop", "web"]).ok();
    for _ in 0..2 {
        sandbox.pipe(&["bundle mount web", "ns add", "portmap -p 8080:80", "keep"]).ok();
        assert!(sandbox.wait_http("127.0.0.1:8080/").ends_with("changed\n"));
        // One in use is not swept, although the mount is another namespace's.
        sandbox.run(&["bundle", "prune"]).ok().stdout_is("");
        sandbox.run(&["bundle", "mount", "web"]).fails(1).one_error_line("bundle", &["web", "in use"]);
        sandbox.run(&["keep", "stop", "web"]).ok();
    }
    sandbox.run(&["keep", "rm", "web"]).ok();
    sandbox.run(&["bundle", "mount", "web"]).fails(1).one_error_line("bundle", &["web"]);
    sandbox.run(&["bundle", "mount", "/etc"]).fails(2).one_error_line("bundle", &["not a bundle"]);
}

fn start_repeats_nothing(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    let options =
        "--restart always --network lab --ip 10.77.0.9 --network-alias front --log-opt format=json -p 8080:80";
    sandbox.sh("ip link add lab type bridge; ip addr add 10.77.0.1/24 dev lab; ip link set lab up").run().ok();
    sandbox.sh(&format!("run -d --name web {options} {nginx}")).run().ok();
    let hosts = sandbox.read("state/containers/web/hosts");
    sandbox.wait_http("127.0.0.1:8080/");
    for _ in 0..2 {
        sandbox.run(&["keep", "stop", "web"]).ok();
        sandbox.run(&["keep", "start", "web"]).ok().stdout_is("web\n");
        sandbox.wait_http("127.0.0.1:8080/");
        sandbox.wait_http("10.77.0.9:80/");
        // One that runs is left alone.
        let pid = sandbox.run(&["spawn", "state", "web"]).ok().json()["pid"].clone();
        sandbox.run(&["keep", "start", "web"]).ok().stdout_is("web\n");
        assert_eq!(sandbox.run(&["spawn", "state", "web"]).ok().json()["pid"], pid);
        assert_eq!(sandbox.read("state/containers/web/hosts"), hosts);
        let job: serde_json::Value = serde_json::from_str(&sandbox.read("state/containers/web/keep.json")).unwrap();
        assert_eq!((&job["restart"], &job["log"]["format"]), (&"always".into(), &"json".into()));
    }
    // It starts again by itself, too, and what has ended is started by `restart`.
    sandbox.run(&["spawn", "kill", "web", "KILL"]).ok();
    wait_for("the restart", || {
        let listed = sandbox.run(&["keep", "list", "--json"]).ok().json();
        (listed[0]["status"] == "running").then_some(())
    });
    sandbox.run(&["keep", "stop", "web"]).ok();
    sandbox.run(&["keep", "restart", "web"]).ok().stdout_is("web\n");
    sandbox.wait_http("127.0.0.1:8080/");
    sandbox.run(&["keep", "rm", "-f", "web"]).ok();
    sandbox.sh("ip link del lab").run().ok();
    // Several, and what cannot be started.
    let busybox = image("busybox").reference;
    for id in ["one", "two"] {
        sandbox.sh(&format!("run --name {id} --network none {busybox} sh -c 'echo said; exit 3'")).run().fails(3);
    }
    sandbox.run(&["keep", "start", "one", "nosuch", "two"]).fails(1).stdout_is("one\ntwo\n").stderr_has("nosuch");
    sandbox.run(&["keep", "wait", "one", "two"]).ok().stdout_is("3\n3\n");
    sandbox.run(&["keep", "start", "--attach", "one"]).fails(3).stdout_is("said\n");
    sandbox.run(&["keep", "rm", "one", "two"]).ok();
    // One that was in the foreground goes on in the background.
    let front = sandbox.sh(&format!("run --name front --network none {busybox} sleep 1000")).start();
    wait_for("the start", || sandbox.run(&["spawn", "state", "front"]).stdout.contains("running").then_some(()));
    sandbox.run(&["keep", "restart", "-t", "0", "front"]).ok().stdout_is("front\n");
    front.wait().fails(137);
    sandbox.run(&["keep", "rm", "-f", "front"]).ok();
    let front = sandbox.sh(&format!("run --rm --name front --network none {busybox} sleep 1000")).start();
    wait_for("the start", || sandbox.run(&["spawn", "state", "front"]).stdout.contains("running").then_some(()));
    sandbox.run(&["keep", "restart", "front"]).fails(1).one_error_line("keep", &["front", "foreground", "--rm"]);
    sandbox.run(&["keep", "rm", "-f", "front"]).ok();
    front.wait().fails(137);
}

/// What a boot leaves of containers: their files.
const REBOOT: &str = "
    pkill -KILL -x keep; pkill -KILL -x portmap
    kill -KILL $(spawn list --format json | jq .[].pid)
    while pgrep -r R,S,D sleep; do :; done
    for root in state/containers/*/rootfs; do umount $root 2>/dev/null; done
    ip -all netns del; ip link del drayage0; nft flush ruleset
    find /sys/fs/cgroup -depth -type d -path '*drayage/*' -exec rmdir {} +
    rm -rf state/run /run/drayage /run/netns";

fn comes_back_after_a_boot(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    for (id, options) in [
        ("always", "--restart always -p 8081:81"),
        ("unless", "--restart unless-stopped"),
        ("stopped", "--restart unless-stopped"),
        ("again", "--restart unless-stopped"),
        ("fails", "--restart on-failure"),
        ("once", ""),
    ] {
        sandbox.sh(&format!("run -d --name {id} {options} {busybox} sleep 1000")).run().ok();
    }
    sandbox.run(&["keep", "stop", "-t", "0", "stopped", "again"]).ok();
    sandbox.run(&["keep", "start", "again"]).ok();
    sandbox.sh(REBOOT).run();
    assert!(!sandbox.exists("state/run"));
    let started = sandbox.run(&["keep", "start", "--boot"]).ok().stdout;
    assert_eq!(started, "again\nalways\nunless\n");
    let running = sandbox.run(&["keep", "list", "--running", "-q"]).ok().stdout;
    assert_eq!(running, started);
    sandbox.run(&["portmap", "list"]).ok().stdout_has("8081");
    // The end of the machine is nobody's wish.
    sandbox.sh("pkill keep-keeper; for i in $(seq 200); do pgrep -r R,S,D sleep; sleep .01; done").run();
    sandbox.run(&["keep", "start", "--boot"]).ok().stdout_is(&started);
    sandbox.sh("keep rm -f $(keep list -q)").run().ok();
}

/// What a socket such as systemd's hears.
const MANAGER: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', '\\0'))
while True:
    print(s.recv(4096).decode(), flush=True)
";

fn notified(sandbox: &Sandbox) {
    sandbox.write("manager.py", MANAGER);
    let busybox = image("busybox").reference;
    let ready = "--health-cmd true --health-interval 20ms";
    // busybox has no program for datagrams of this kind, so the container only shows that the socket is there.
    let inside = "sh -c 'test -S \"$NOTIFY_SOCKET\" && echo here; exec sleep 100'";
    for (who, socket, command, words) in [
        ("conmon", "notify", "sleep 100", "READY=1\n"),
        ("conmon", "@notify", "sleep 100", "READY=1\n"),
        ("healthy", "notify", "sleep 100", "READY=1\n"),
        ("container", "notify", inside, "MAINPID="),
        ("ignore", "notify", "sleep 100", ""),
    ] {
        let name = socket.strip_prefix('@').map_or_else(|| sandbox.at(socket), |name| format!("@{name}"));
        let manager = sandbox.sh(&format!("rm -f notify; exec python3 manager.py {name}")).start();
        wait_for("the manager", || sandbox.sh("grep -q notify /proc/net/unix").run().code().eq(&0).then_some(()));
        let run = format!(
            "NOTIFY_SOCKET={name} run -d --name web --network none {ready} --sdnotify {who} {busybox} {command}"
        );
        sandbox.sh(&run).run().ok();
        if who == "container" {
            wait_for("its word", || (sandbox.run(&["keep", "logs", "web"]).ok().stdout == "here\n").then_some(()));
        }
        manager.wait_stdout(words);
        if who == "container" {
            // The program that takes its place is another process.
            sandbox.run(&["keep", "restart", "-t", "0", "web"]).ok();
            let pid = sandbox.run(&["spawn", "state", "web"]).ok().json()["pid"].to_string();
            manager.wait_stdout(&format!("MAINPID={pid}\n"));
        }
        sandbox.run(&["keep", "rm", "-f", "web"]).ok();
        if ["conmon", "healthy"].contains(&who) {
            manager.wait_stdout("STOPPING=1\n");
        }
        manager.signal(Signal::TERM);
        let heard = manager.wait().stdout;
        assert_eq!(heard.contains("MAINPID="), who != "ignore", "{who}: {heard}");
    }
    let abstract_one = format!("NOTIFY_SOCKET=@x run --sdnotify container {busybox}");
    sandbox.sh(&abstract_one).run().fails(125).one_error_line("run", &["NOTIFY_SOCKET", "is not a path"]);
}
