//! `run`: the whole pipeline in one command.

mod attached;
mod background;
mod flush;
mod kept;
mod platform;
mod rootless;
mod runtime;
mod sight;
mod transparency;

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];

pub(crate) fn tests() -> Vec<Test> {
    let foreground = vec![
        test("nginx_answers_on_the_published_port", PIPELINE, nginx_answers),
        test("at_the_first_connection_the_container_starts", PIPELINE, socket_activated),
        test("another_root_directory_serves_every_stage", PIPELINE, another_root),
        test("stdout_is_the_container_s_alone", PIPELINE, stdout_is_the_container_s),
        test("the_exit_status_is_the_container_s", PIPELINE, exit_status),
        test("a_killed_container_is_128_and_the_signal", PIPELINE, killed),
        test("kill_9_leaves_nothing_and_the_next_run_works", PIPELINE, killed_run),
        test("killed_together_runs_of_one_name_leave_the_third_alone", PIPELINE, killed_together),
        test("what_is_left_without_a_guard_is_swept", PIPELINE, swept),
        test("a_guard_finds_a_root_that_is_named_from_here", PIPELINE, relative_root),
        test("the_end_is_prepared_and_not_for_long", PIPELINE, prepared),
        test("stdin_reaches_the_container_with_i_only", PIPELINE, stdin),
        test("a_signal_reaches_the_container", PIPELINE, signal_reaches),
        test("ctrl_c_ends_it_and_leaves_nothing", PIPELINE, ctrl_c),
        test("a_taken_name_is_refused_and_its_owner_unharmed", PIPELINE, taken_name),
        test("a_taken_port_is_refused_and_nothing_left", PIPELINE, taken_port),
        test("detached_it_prints_the_id_and_goes_on", PIPELINE, detached),
        test("a_detached_terminal_is_logged", PIPELINE, detached_terminal),
        test("a_container_that_cannot_start_detached_says_why", PIPELINE, detached_failure),
        test("the_printed_pipeline_does_the_same", PIPELINE, printed_pipeline),
        test("what_leaves_nothing_waits_for_no_disk", PIPELINE, volatile),
        test("networks_none_and_host", PIPELINE, networks),
        test("a_named_network_is_a_bridge_of_its_own", PIPELINE, named_network),
        test("pull_never_needs_the_image", PIPELINE, pull_never),
        test("the_left_most_failure_is_told_alone", PIPELINE, left_most_failure),
        test("wrong_usage_is_one_line_and_125", &[], wrong_usage),
        test("volumes_environment_and_user_reach_the_container", PIPELINE, options_reach),
        test("a_root_file_system_needs_no_image", PIPELINE, rootfs),
        test("the_cid_file_holds_the_id", PIPELINE, cid_file),
    ];
    let more = [
        attached::tests(),
        background::tests(),
        flush::tests(),
        kept::tests(),
        platform::tests(),
        rootless::tests(),
        runtime::tests(),
        sight::tests(),
        transparency::tests(),
    ];
    foreground.into_iter().chain(more.into_iter().flatten()).collect()
}

fn busybox(options: &str, command: &str) -> String {
    format!("run --rm --network none {options} {} {command}", image("busybox").reference)
}

/// A parent that listens as systemd does; the first client waits for the container.
fn socket_activated(sandbox: &Sandbox) {
    sandbox.write(
        "listening.py",
        "import os, socket, sys
s = socket.create_server(('127.0.0.1', 8080))
os.dup2(s.fileno(), 9)
os.dup2(9, 3)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execvp('run', ['run'] + sys.argv[1:])
",
    );
    let options = "--socket-activate --verbose --rm --name web -p 127.0.0.1:8080:80";
    let run = sandbox.sh(&format!("exec python3 listening.py {options} {} 2>log", image("nginx").reference)).start();
    wait_for("the wait", || sandbox.exists("log").then(|| sandbox.read("log").contains("wait until"))?.then_some(()));
    assert!(!sandbox.exists("state/containers/web"));
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    assert!(sandbox.exists("state/containers/web"));
    let inside = "spawn exec web ls -l /proc/self/fd | grep -c socket; true";
    sandbox.sh(inside).run().ok().stdout_is("0\n");
    run.signal(Signal::TERM);
    run.wait().ok();
    let waits = sandbox.sh(&format!("exec python3 listening.py {options} nginx 2>log")).start();
    wait_for("the wait", || sandbox.read("log").contains("wait until").then_some(()));
    waits.signal(Signal::TERM);
    waits.wait().fails(143);
    sandbox
        .sh("export LISTEN_FDS=1; exec 3<log; LISTEN_PID=$$ exec run --socket-activate -p 8080:80 nginx")
        .run()
        .fails(125)
        .one_error_line("run", &["descriptor 3", "not a listening socket"]);
    let refused = sandbox.sh("run --socket-activate -p 8080:80 nginx").run();
    refused.fails(125).one_error_line("run", &["--socket-activate", "$LISTEN_FDS"]);
}

fn nginx_answers(sandbox: &Sandbox) {
    let run = sandbox.sh(&format!("exec run --rm --name web -p 8080:80 {}", image("nginx").reference)).start();
    let page = sandbox.wait_http("127.0.0.1:8080/");
    assert!(page.contains("nginx"), "{page}");
    run.signal(Signal::TERM);
    run.wait().ok();
    assert!(!sandbox.exists("state/containers/web"));
}

fn another_root(sandbox: &Sandbox) {
    let image = image("nginx").reference;
    let run =
        sandbox.sh(&format!("exec env -u DRAYAGE_ROOT run --root other --rm --name web -p 8080:80 {image}")).start();
    sandbox.wait_http("127.0.0.1:8080/");
    assert!(sandbox.exists("other/containers/web") && !sandbox.exists("state/containers/web"));
    run.signal(Signal::TERM);
    run.wait().ok();
    assert!(!sandbox.exists("other/containers/web"));
}

fn stdout_is_the_container_s(sandbox: &Sandbox) {
    sandbox.sh(&busybox("", "sh -c 'echo out; echo err >&2'")).run().ok().stdout_is("out\n").stderr_is("err\n");
}

fn exit_status(sandbox: &Sandbox) {
    for (command, want) in [
        ("true", 0),
        ("sh -c 'exit 42'", 42),
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc/passwd", 126),
    ] {
        sandbox.sh(&busybox("", command)).run().fails(want);
    }
}

fn killed(sandbox: &Sandbox) {
    let run = sandbox.sh(&format!("exec {}", busybox("--name held", "sh -c 'echo ready; sleep 100'"))).start();
    run.wait_stdout("ready");
    sandbox.run(&["spawn", "kill", "held", "KILL"]).ok();
    run.wait().fails(128 + 9);
}

fn killed_run(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    for _ in 0..3 {
        let run = sandbox.sh(&format!("exec run --rm --name web -p 8080:80 {nginx}")).start();
        assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
        run.signal(Signal::KILL);
        run.wait().fails(128 + 9);
        wait_for("the guard's work", || (!sandbox.exists("state/containers/web")).then_some(()));
    }
    let gone = "until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done; ls state/run/spawn";
    sandbox.sh(gone).run().ok().stdout_is("");
}

/// Several runs of one name, begun together and killed together: only one of them has the container, and the guards of
/// the others do not touch it, nor the one that comes next.
fn killed_together(sandbox: &Sandbox) {
    sandbox.sh(&busybox("", "true")).run().ok();
    let held = format!("exec {}", busybox("--name web", "sh -c 'echo ready; sleep 100'"));
    let together = format!(
        "({held}) & one=$!; ({held}) & other=$!
        until [ -e state/run/spawn/web/state.json ]; do :; done
        kill -9 $one; kill -9 $other; wait"
    );
    for _ in 0..3 {
        sandbox.sh(&together).run();
        let next = sandbox.sh(&held).start();
        next.wait_stdout("ready");
        sandbox.run(&["spawn", "kill", "web", "KILL"]).ok();
        next.wait().fails(128 + 9);
    }
    assert!(!sandbox.exists("state/containers/web"));
}

/// Run and guard are killed: the next run does it, or `run --gc`.
fn swept(sandbox: &Sandbox) {
    let held = format!("exec {}", busybox("--name web", "sh -c 'echo ready; sleep 100'"));
    let script = "kill -9 $(pgrep -x run-guard)";
    for next in ["run --gc", &busybox("--name other", "true"), &busybox("--name web", "true")] {
        let run = sandbox.sh(&held).start();
        run.wait_stdout("ready");
        sandbox.sh(script).run().ok();
        run.signal(Signal::KILL);
        run.wait().fails(128 + 9);
        assert!(sandbox.exists("state/run/claims/web"));
        sandbox.sh(next).run().ok().stdout_is(if next == "run --gc" { "web\n" } else { "" });
        wait_for("the sweep", || (!sandbox.exists("state/containers/web")).then_some(()));
    }
    wait_for("the last claim", || (!sandbox.exists("state/run/claims/web")).then_some(()));
}

/// The guard's working directory is another one than that of its `run`.
fn relative_root(sandbox: &Sandbox) {
    let held = format!("DRAYAGE_ROOT=other exec {}", busybox("--name web", "sh -c 'echo ready; sleep 100'"));
    let run = sandbox.sh(&held).start();
    run.wait_stdout("ready");
    run.signal(Signal::KILL);
    run.wait().fails(128 + 9);
    wait_for("the guard's work", || (!sandbox.exists("other/containers/web")).then_some(()));
    wait_for("its end", || {
        sandbox.sh("find other/run/claims other/run/spawn -mindepth 1").run().stdout.is_empty().then_some(())
    });
    // What a run below the same root has left that was named in full.
    sandbox.sh(&format!("export DRAYAGE_ROOT=$PWD/other; {held} & until [ -e other/run/spawn/web ]; do sleep 0.02; done; kill -9 $! $(pgrep -x run-guard)").replace("DRAYAGE_ROOT=other exec", "exec")).run();
    sandbox.sh(&format!("DRAYAGE_ROOT=other {}", busybox("", "true"))).run().ok();
    wait_for("the sweep", || {
        (!sandbox.exists("other/containers/web") && !sandbox.exists("other/run/spawn/web")).then_some(())
    });
}

/// The program that removes the bundle is started beside the container. Killed, it is started again; stopped, nobody waits for it;
/// and it does not wait for long.
fn prepared(sandbox: &Sandbox) {
    let held = format!("exec {}", busybox("--name web -i", "sh -c 'echo ready; read line'"));
    let is_met = (0..20).any(|_| {
        let mut run = sandbox.sh(&held).open_stdin().start();
        run.wait_stdout("ready");
        let is_met = sandbox.sh("pkill -9 -x bundle").run().code() == 0;
        run.close_stdin();
        run.wait().fails(1).stderr_is("");
        assert!(!sandbox.exists("state/containers/web"));
        is_met
    });
    assert!(is_met, "no bundle waited");
    // As ^Z does, which `run` and spawn leave to the container.
    let mut run = sandbox.sh(&held).open_stdin().start();
    run.wait_stdout("ready");
    run.signal_group(Signal::TSTP);
    run.close_stdin();
    run.wait().fails(1).stderr_is("");
    let mut run = sandbox.sh(&held).open_stdin().start();
    run.wait_stdout("ready");
    run.signal(Signal::WINCH);
    wait_for("the end of what waits", || (sandbox.sh("pgrep -x bundle").run().code() != 0).then_some(()));
    run.close_stdin();
    run.wait().fails(1);
    assert!(!sandbox.exists("state/containers/web"));
}

fn stdin(sandbox: &Sandbox) {
    sandbox.sh(&busybox("-i", "cat")).stdin("hello\n").run().ok().stdout_is("hello\n");
    sandbox.sh(&busybox("", "cat")).stdin("hello\n").run().ok().stdout_is("");
}

fn signal_reaches(sandbox: &Sandbox) {
    let command = r#"sh -c 'trap "echo caught; exit 7" USR1; echo ready; while :; do read -t 1 x </dev/zero; done'"#;
    let run = sandbox.sh(&format!("exec {}", busybox("", command))).start();
    run.wait_stdout("ready");
    run.signal(Signal::USR1);
    run.wait().fails(7).stdout_has("caught");
}

fn ctrl_c(sandbox: &Sandbox) {
    let run = sandbox
        .sh(&format!("exec {}", busybox("--name held", r#"sh -c 'trap "exit 130" INT; echo ready; sleep 100 & wait'"#)))
        .start();
    run.wait_stdout("ready");
    run.signal_group(Signal::INT);
    run.wait().fails(130);
    assert!(!sandbox.exists("state/containers/held"));
}

fn taken_name(sandbox: &Sandbox) {
    let held = sandbox.sh(&format!("exec {}", busybox("--name held", "sh -c 'echo ready; sleep 100'"))).start();
    held.wait_stdout("ready");
    sandbox.sh(&busybox("--name held", "true")).run().fails(125).one_error_line("run", &["held", "already exists"]);
    assert!(sandbox.exists("state/containers/held/config.json"));
    sandbox.run(&["spawn", "kill", "held", "KILL"]).ok();
    held.wait().fails(128 + 9);
}

fn taken_port(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run -d --rm --name first -p 8080:80 {nginx}")).run().ok().stdout_is("first\n");
    let second = sandbox.sh(&format!("run --rm --name second -p 8080:80 {nginx}")).run();
    second.fails(125).one_error_line("portmap", &["8080", "first"]);
    assert!(!sandbox.exists("state/containers/second"));
    end(sandbox, "first");
}

fn detached(sandbox: &Sandbox) {
    let nginx = image("nginx").reference;
    sandbox.sh(&format!("run -d --rm --name web -p 8080:80 {nginx}")).run().ok().stdout_is("web\n").stderr_is("");
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    end(sandbox, "web");
}

/// Ends a detached container and waits until its keeper has undone everything.
fn end(sandbox: &Sandbox, id: &str) {
    sandbox.run(&["spawn", "kill", id, "KILL"]).ok();
    wait_for("the keeper's clean-up", || (!sandbox.exists(format!("state/containers/{id}"))).then_some(()));
}

fn detached_terminal(sandbox: &Sandbox) {
    let command = format!(
        "run -dt --name term --network none {} sh -c 'test -t 1 && echo on a terminal'",
        image("busybox").reference
    );
    sandbox.sh(&command).run().ok().stdout_is("term\n");
    wait_for("the log", || sandbox.read("state/containers/term/log").contains("on a terminal").then_some(()));
    sandbox.run(&["keep", "rm", "--force", "term"]).ok();
}

fn detached_failure(sandbox: &Sandbox) {
    let outcome = sandbox.sh(&busybox("-d --name bad", "no-such-program")).run().fails(127);
    outcome.stderr_has("no-such-program").stdout_is("");
    assert!(!sandbox.exists("state/containers/bad"));
}

fn printed_pipeline(sandbox: &Sandbox) {
    for (options, stdin, want, code) in [
        ("", "", "it's printed $HOME\n", 3),
        ("-i", "from stdin\n", "it's printed $HOME\nfrom stdin\n", 3),
        ("--name named -e 'A=b c'", "", "it's printed $HOME\n", 3),
    ] {
        let command = r#"sh -c 'echo "it'\''s printed \$HOME"; cat; exit 3'"#;
        let direct = sandbox.sh(&busybox(options, command)).stdin(stdin).run().fails(code);
        assert_eq!(direct.stdout, want);
        let script = sandbox.sh(&busybox(&format!("--print {options}"), command)).run().ok().stdout;
        let printed = sandbox.sh(&script).stdin(stdin).run().fails(code);
        assert_eq!(printed.stdout, direct.stdout, "{script}");
    }
    let script = sandbox.sh(&format!("run --print --rm -p 8080:80 {}", image("nginx").reference)).run().ok().stdout;
    let detached = format!("run --print -d --name bg --restart always -p 8080:80 {}", image("nginx").reference);
    let detached = sandbox.sh(&detached).run().ok().stdout;
    sandbox.sh(&detached).run().ok().stdout_is("bg\n");
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    sandbox.sh(&detached).run().fails(125).stderr_has("bg exists");
    sandbox.run(&["keep", "rm", "--force", "bg"]).ok();
    let running = sandbox.sh(&script).start();
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("nginx"));
    running.signal_group(Signal::TERM);
    let _ended = running.wait();
}

fn networks(sandbox: &Sandbox) {
    let links = "sh -c 'ls /sys/class/net'";
    sandbox.sh(&busybox("", links)).run().ok().stdout_is("lo\n");
    sandbox.sh(&busybox("", "ip -o link show lo")).run().ok().stdout_has("LOOPBACK,UP");
    let bridge = format!("run --rm {} {links}", image("busybox").reference);
    sandbox.sh(&bridge).run().ok().stdout_is("eth0\nlo\n");
    sandbox.sh("ip link add here0 type veth peer name there0").run().ok();
    let host = format!("run --rm --network host {} {links}", image("busybox").reference);
    sandbox.sh(&host).run().ok().stdout_has("here0");
    sandbox.sh("ip link del here0").run().ok();
    sandbox.sh("run --rm --network my:net x").run().fails(125).stderr_has("none, host");
}

/// Who is on one network finds and reaches each other by name; who is on another one does not even by address.
fn named_network(sandbox: &Sandbox) {
    let image = image("busybox").reference;
    let serve = format!("{image} sh -c 'mkdir /www; echo $NAME >/www/index.html; exec httpd -f -h /www -p 80'");
    let print = format!("run --print -d --name far --network rear -e NAME=far {serve}");
    sandbox
        .sh(&format!(
            "set -e
            run -d --name near --network lab --network-alias shop -e NAME=near -p 8080:80 {serve}
            {print} | grep -q 'ns add --network rear | keep'; {print} | sh
            ! ip link show drayage0 2>/dev/null || exit 1
            for bridge in lab rear; do ip -4 -o addr show $bridge | awk '{{print $4}}'; done | sort -u | wc -l | grep -qx 2"
        ))
        .run()
        .ok();
    assert!(sandbox.wait_http("127.0.0.1:8080/").contains("near"));
    let address = "$(spawn exec far ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')";
    sandbox
        .sh(&format!(
            "get() {{ from=$1; shift; run --rm --network $from {image} sh -c \"timeout 2 wget -q -O- http://$1:80/ 2>/dev/null || echo closed\"; }}
            get lab near; get lab shop; get rear far; get lab far; get rear near; get bridge near
            far={address}; get rear $far; get lab $far; get bridge $far
            keep rm -f near far >/dev/null; ip link show lab >/dev/null; run --network lab --rm {image} true"
        ))
        .run()
        .ok()
        .stdout_is("near\nnear\nfar\nclosed\nclosed\nclosed\nfar\nclosed\nclosed\n");
    sandbox
        .sh(&format!("run --rm --network lo {image} true"))
        .run()
        .fails(125)
        .one_error_line("ns", &["lo is not a bridge"]);
}

fn pull_never(sandbox: &Sandbox) {
    sandbox.sh(&busybox("--pull never", "true")).run().fails(125).one_error_line("pull", &["busybox"]);
    sandbox.sh(&busybox("", "true")).run().ok();
    sandbox.sh(&busybox("--pull never", "true")).run().ok();
}

fn left_most_failure(sandbox: &Sandbox) {
    sandbox.sh("run --rm 127.0.0.1:5000/no/such").run().fails(125).one_error_line("pull", &["no/such"]);
    sandbox
        .sh(&busybox("--user nobody-of-that-name", "true"))
        .run()
        .fails(125)
        .one_error_line("bundle", &["nobody-of-that-name"]);
}

fn wrong_usage(sandbox: &Sandbox) {
    sandbox.sh("run").run().fails(125);
    sandbox.sh("run --rm --link db nginx").run().fails(125).one_error_line("run", &["--link"]);
    sandbox.sh("run --storage-opt=size=1g nginx").run().fails(125).one_error_line("run", &["--storage-opt", "--root"]);
    sandbox.sh("run --pull sometimes nginx").run().fails(125).stderr_has("sometimes");
}

fn options_reach(sandbox: &Sandbox) {
    sandbox.write("shared/file", "from the host\n");
    let options = format!("-v {}:/mnt:ro -e A=1 -u 7:8 -w /tmp -h named --memory 64m", sandbox.at("shared"));
    let command = r"sh -c 'cat /mnt/file; echo $A $(id -u):$(id -g) $PWD $(hostname)'";
    let want = "from the host\n1 7:8 /tmp named\n";
    sandbox.sh(&busybox(&options, command)).limit(Duration::from_secs(30)).run().ok().stdout_is(want);
}

fn rootfs(sandbox: &Sandbox) {
    sandbox.sh(&format!("pull {} | unpack --flat $PWD/tree", image("busybox").reference)).run().ok();
    sandbox.sh("run --rm --network none --rootfs $PWD/tree echo no image").run().ok().stdout_is("no image\n");
    assert!(sandbox.exists("tree/bin/busybox"));
}

fn cid_file(sandbox: &Sandbox) {
    let id = sandbox.at("cid");
    sandbox.sh(&busybox(&format!("--name web --cidfile {id}"), "true")).run().ok();
    assert_eq!(sandbox.read("cid"), "web");
    sandbox.sh(&busybox(&format!("--cidfile {id}"), "true")).run().fails(125).one_error_line("run", &["cid"]);
    sandbox.sh("rm cid").run().ok();
    sandbox.sh(&format!("run --rm --cidfile {id} 127.0.0.1:5000/no/such")).run().fails(125);
    assert!(!sandbox.exists("cid"));
}

/// Overlayfs syncs the file system that it writes to when it is unmounted, with all that others write there.
fn volatile(sandbox: &Sandbox) {
    let root = "grep ' / overlay ' /proc/mounts";
    sandbox.sh(&busybox("", root)).run().ok().stdout_has("volatile");
    let kept = format!("run --network none --name kept {} {root}", image("busybox").reference);
    let mount = sandbox.sh(&kept).run().ok().stdout;
    assert!(!mount.contains("volatile"), "{mount}");
    sandbox.run(&["bundle", "delete", "kept"]).ok();
}
