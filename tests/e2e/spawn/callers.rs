//! What the caller's process hands down, what it says to a container in the foreground, and what its hooks do.

use serde_json::json;

use super::{NEEDS, bundle, change, run, runtime, spawn};
use crate::support::{Need, Sandbox, Test, test};

const NEEDS_PYTHON: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("python3")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_container_does_not_inherit_its_caller_s_peculiarities", NEEDS, peculiar_callers),
        test("every_signal_that_can_be_caught_is_forwarded", NEEDS, every_signal),
        test("the_third_interrupt_kills_a_container_that_ignores_them", NEEDS, third_interrupt),
        test("orphans_of_the_host_s_pid_namespace_are_reaped", NEEDS, orphans),
        test("descriptors_to_preserve_have_to_be_open", NEEDS, preserved),
        test("a_log_that_is_a_pipe_is_opened_once", NEEDS, log_pipe),
        test("a_runtime_with_a_log_leaves_stderr_to_the_container", NEEDS, silent),
        test("a_hook_may_be_loud_deaf_and_slow", NEEDS, odd_hooks),
        test("poststop_hooks_undo_what_failed_hooks_began", NEEDS, undone_hooks),
        test("a_service_manager_hears_when_the_program_is_ready", NEEDS_PYTHON, notify),
        test("exec_understands_docker_s_options", NEEDS, docker_exec),
        test("exec_has_the_codes_of_shells", NEEDS, exec_codes),
    ]
}

fn peculiar_callers(sandbox: &Sandbox) {
    let show = "umask; grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2; stat -c %a /new/dir";
    bundle(sandbox, "pec", show, |config| config["process"]["cwd"] = json!("/new/dir"));
    let want = "0022\n0000000000000000\n0000000000000000\n755\n";
    let spawn_it = format!("{} --root {}", runtime(), sandbox.at("st"));
    for caller in [
        "umask 077",
        "umask 0",
        "trap '' HUP INT QUIT USR1 TERM CHLD PIPE RTMIN TSTP",
        "ulimit -n 24",
        "unset PATH HOME",
        "for fd in $(seq 10 200); do eval \"exec $fd</dev/null\"; done",
        "exec 0<&- 2>&-",
        "cd $(mktemp -d) && rmdir $PWD",
        "ulimit -u 200",
    ] {
        let bundle = sandbox.at("pec");
        let script = format!(
            "spawn=$(command -v {runtime}); {caller}; $spawn --root {st} run -b {bundle} e2e-pec; \
             $spawn --root {st} create -b {bundle} e2e-pec && $spawn --root {st} start e2e-pec; \
             while ! $spawn --root {st} state e2e-pec | /bin/grep -q stopped; do :; done; \
             $spawn --root {st} delete e2e-pec",
            st = sandbox.at("st"),
            runtime = runtime()
        );
        sandbox.sh("rm -rf pec/rootfs/new").run().ok();
        sandbox.write("caller", script);
        let outcome = sandbox.sh("bash caller").run().ok();
        assert_eq!(outcome.stdout, want.repeat(2), "{caller}: {outcome}");
    }
    change(sandbox, "pec", |config| config["process"]["args"] = json!(["sleep", "1000"]));
    spawn(sandbox, "run -d -b pec e2e-pec </dev/null >/dev/null 2>&1").ok();
    let script = format!("umask 077; trap '' INT USR1 CHLD; exec {spawn_it} exec e2e-pec sh -c \"{show}\"");
    sandbox.write("caller", script);
    sandbox.sh("bash caller").run().ok().stdout_is(want);
    spawn(sandbox, "delete -f e2e-pec").ok();
}

fn every_signal(sandbox: &Sandbox) {
    let signals = [1, 3, 5, 10, 12, 13, 14, 15, 16, 18, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 34, 37, 64];
    bundle(
        sandbox,
        "eve",
        "for s in $SIGNALS; do trap \"exit $s\" $s; done; echo >/ready; while :; do sleep 0.02; done",
        |config| {
            let numbers: Vec<String> = signals.iter().map(ToString::to_string).collect();
            config["process"]["env"] = json!(["PATH=/bin", format!("SIGNALS={}", numbers.join(" "))]);
        },
    );
    let script = format!(
        "{} --root {} run -b eve e2e-eve & until [ -e eve/rootfs/ready ]; do sleep 0.02; done; kill -$1 $!; wait $!; echo $?; rm eve/rootfs/ready",
        runtime(),
        sandbox.at("st")
    );
    sandbox.write("send", script);
    for signal in signals {
        sandbox.sh(&format!("bash send {signal}")).run().stdout_is(&format!("{signal}\n"));
    }
}

fn third_interrupt(sandbox: &Sandbox) {
    bundle(sandbox, "thi", "trap '' INT; echo ready; while :; do sleep 0.02; done", |_| {});
    let run = sandbox.sh(&format!("exec {} --root {} run -b thi e2e-thi", runtime(), sandbox.at("st"))).start();
    run.wait_stdout("ready");
    run.signal(rustix::process::Signal::INT);
    crate::support::wait_for("the first to arrive", || (!pending(&run)).then_some(()));
    run.signal(rustix::process::Signal::INT);
    run.wait_stderr("interrupt once more");
    assert!(spawn(sandbox, "state e2e-thi").ok().stdout.contains("running"));
    run.signal(rustix::process::Signal::INT);
    assert_eq!(run.wait().code(), 137);
}

fn pending(run: &crate::support::Running) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid().as_raw_pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("ShdPnd") && !line.ends_with("0000000000000000"))
}

fn orphans(sandbox: &Sandbox) {
    let script = "i=0; while [ $i -lt 20 ]; do sh -c 'sleep 0.02 & exit'; i=$((i+1)); done; sleep 0.5; \
                  for p in /proc/[0-9]*/status; do grep -q '^State:.Z' $p && grep '^PPid' $p; done; exit 7";
    bundle(sandbox, "orp", script, |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
    });
    let outcome = sandbox
        .sh(&format!("{} --root {} run -b orp e2e-orp & wait $!; echo \"$? $!\"", runtime(), sandbox.at("st")))
        .run();
    let (code, own) = outcome.stdout.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(code, "7", "{outcome}");
    assert!(!outcome.stdout.contains(&format!("PPid:\t{own}\n")), "{outcome}");
}

fn preserved(sandbox: &Sandbox) {
    bundle(sandbox, "pre", "cat <&3; sleep 0", |_| {});
    sandbox.write("text", "passed\n");
    spawn(sandbox, "--log log run --preserve-fds 1 -b pre e2e-pre 3<text").ok().stdout_is("passed\n");
    for (words, number) in [("1", 3), ("2 3<text", 4), ("4294967295", 3), ("4294967293 3<text", 4)] {
        let outcome = spawn(sandbox, &format!("--log log run -b pre e2e-pre --preserve-fds {words}")).fails(1);
        outcome.one_error_line("spawn", &[&format!("descriptor {number} is not open")]);
    }
}

fn log_pipe(sandbox: &Sandbox) {
    bundle(sandbox, "pip", "", |config| {
        config["process"]["args"] = json!(["no-such-program"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_NONSENSE"]);
    });
    sandbox.sh("mkfifo pipe; cat pipe >read &").run().ok();
    spawn(sandbox, "--log pipe --log-format json run -b pip e2e-pip").fails(1);
    crate::support::wait_for("the log", || sandbox.read("read").contains("no-such-program").then_some(()));
    assert!(sandbox.read("read").contains("CAP_NONSENSE"), "{}", sandbox.read("read"));
    // One that cannot be written is said beside the error.
    spawn(sandbox, "--log none/log run -b pip e2e-pip").fails(1).stderr_has("write none/log");
}

fn silent(sandbox: &Sandbox) {
    bundle(sandbox, "sil", "sleep 1000", |config| {
        config["process"]["capabilities"]["bounding"] = json!(["CAP_NONSENSE"]);
    });
    spawn(sandbox, "--log log create -b sil e2e-sil </dev/null >out 2>&1").ok();
    let process =
        json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "capabilities": {"bounding": ["CAP_NONSENSE"]}});
    sandbox.write("process.json", process.to_string());
    spawn(sandbox, "--log log exec --process process.json e2e-sil >>out 2>&1").ok();
    assert_eq!((sandbox.read("out").as_str(), sandbox.read("log").matches("CAP_NONSENSE").count()), ("", 2));
    spawn(sandbox, "delete -f e2e-sil").ok();
}

fn odd_hooks(sandbox: &Sandbox) {
    let sh = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    bundle(sandbox, "odd", "echo ran", |config| {
        // More than pipes hold, both ways.
        config["annotations"] = json!({"long": "x".repeat(300_000)});
        let seen = sandbox.at("seen");
        config["hooks"] = json!({
            "prestart": [sh("head -c 300000 /dev/zero >&2"), sh("sleep 1000 >&2 & exec 2>&- true")],
            "createRuntime": [sh("exec 0<&-; head -c 300000 /dev/zero >&2"), sh(&format!("wc -c >{seen}; echo $CALLER >>{seen}"))],
            "createContainer": [sh(&format!("head -c 300000 /dev/zero >&2; wc -c >>{seen}"))],
            "startContainer": [sh("head -c 300000 /dev/zero >&2; test ${CALLER-none} = none")],
            "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", format!("echo ${{CALLER-none}} >>{seen}")], "env": []}]
        });
    });
    let run = format!("CALLER=me {} --root {} run -b odd e2e-odd", runtime(), sandbox.at("st"));
    sandbox.sh(&run).run().ok().stdout_is("ran\n");
    sandbox.sh("kill $(pgrep -f '^sleep 1000$')").run();
    let seen = sandbox.read("seen");
    let lines: Vec<&str> = seen.lines().collect();
    assert!(
        matches!(lines.as_slice(), [first, "me", second, "none"] if *first > "300000" && *second > "300000"),
        "{seen}"
    );
    // One that never stops to talk has no more time than one that is silent.
    change(sandbox, "odd", |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo loud >&2; exec cat /dev/zero >&2"], "timeout": 1}]});
    });
    self::run(sandbox, "odd").fails(1).one_error_line("spawn", &["createRuntime hook #0", "timeout of 1.0s"]);
    change(sandbox, "odd", |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": i64::MAX}]});
    });
    self::run(sandbox, "odd").ok();
}

fn undone_hooks(sandbox: &Sandbox) {
    let undo = |config: &mut serde_json::Value, kind: &str| {
        config["hooks"] = json!({
            "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", format!("cat >{}", sandbox.at("undone"))]}]
        });
        config["hooks"][kind] = json!([{"path": "/bin/false"}]);
    };
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for separate in [false, true] {
            bundle(sandbox, "und", "sleep 1000", |config| undo(config, kind));
            sandbox.sh("rm -f undone").run().ok();
            if separate {
                spawn(sandbox, "create -b und e2e-und </dev/null >/dev/null 2>&1");
                assert_ne!(spawn(sandbox, "start e2e-und").code(), 0, "{kind}");
            } else {
                assert_ne!(run(sandbox, "und").code(), 0, "{kind}");
            }
            let state = sandbox.read("undone");
            assert!(state.contains(r#""status":"stopped""#), "{kind} {separate}: {state}");
            assert!(!sandbox.exists("st/e2e-und"), "{kind} {separate}");
        }
    }
}

/// `sd_notify(3)`; logger(1) says what it is given on a socket that it finds under this name.
fn notify(sandbox: &Sandbox) {
    let manager = "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('manager'); print('bound', flush=True)\n\
                   while True: print(s.recv(4096).decode().split('\\n'), flush=True)";
    sandbox.write("manager.py", manager);
    let manager = sandbox.sh("exec python3 manager.py").start();
    manager.wait_stdout("bound");
    let script =
        "ln -s $NOTIFY_SOCKET /dev/log; logger \"x\nFDSTORE=1\nSTATUS=up\"; logger \"x\nREADY=1\nMAINPID=1\"; $END";
    bundle(sandbox, "ntf", script, |config| {
        config["process"]["user"] = json!({"uid": 0, "gid": 0});
        config["process"]["env"] = json!(["PATH=/bin", "END=exit 4"]);
    });
    let run = format!("NOTIFY_SOCKET={} {} --root {} run", sandbox.at("manager"), runtime(), sandbox.at("st"));
    sandbox.sh(&format!("{run} -b ntf e2e-ntf")).run().fails(4);
    assert_eq!(manager.wait_stdout("READY"), "bound\n['STATUS=up']\n['READY=1']\n");
    change(sandbox, "ntf", |config| config["process"]["env"] = json!(["PATH=/bin", "END=sleep 1000"]));
    sandbox.sh(&format!("{run} -d -b ntf e2e-ntf </dev/null >out 2>&1")).run().ok();
    let pid = spawn(sandbox, "state e2e-ntf").ok().json()["pid"].to_string();
    manager.wait_stdout(&format!("['MAINPID={pid}']"));
    spawn(sandbox, "exec e2e-ntf sh -c 'test -z $NOTIFY_SOCKET'").ok();
    spawn(sandbox, "delete -f e2e-ntf").ok();
    // One that ends without a word keeps nobody waiting.
    change(sandbox, "ntf", |config| config["process"]["args"] = json!(["true"]));
    sandbox.sh(&format!("{run} -d -b ntf e2e-ntf </dev/null >out 2>&1")).run().ok();
    spawn(sandbox, "delete -f e2e-ntf").ok();
    change(sandbox, "ntf", |config| config["process"]["args"] = json!(["sh", "-c", "echo ${NOTIFY_SOCKET-none}"]));
    sandbox.sh(&format!("NOTIFY_SOCKET= {} --root st run -b ntf e2e-ntf", runtime())).run().ok().stdout_is("none\n");
}

fn docker_exec(sandbox: &Sandbox) {
    bundle(sandbox, "dex", "sleep 1000", |config| config["process"]["env"] = json!(["PATH=/bin", "A=0"]));
    sandbox.sh("printf 'root:x:0:0:\\351:/root:/bin/sh\\nweb:x:33:34::/var/www:\\n' >dex/rootfs/etc/passwd").run().ok();
    sandbox.write("dex/rootfs/etc/group", "mail:x:5:web\nweb:x:34:\n");
    sandbox.write("vars", "# note\n\nA=1\nPASSED\nUNSET\nB=x y\n");
    spawn(sandbox, "run -d -b dex e2e-dex </dev/null >/dev/null 2>&1").ok();
    let exec = |words: &str| sandbox.sh(&format!("PASSED=p {} --root {} exec {words}", runtime(), sandbox.at("st")));
    for (words, want) in [
        ("-i e2e-dex cat", "typed\n"),
        ("-w /etc e2e-dex pwd", "/etc\n"),
        ("--workdir /etc e2e-dex pwd", "/etc\n"),
        ("-u web e2e-dex id", "uid=33(web) gid=34(web) groups=5(mail)\n"),
        ("-uweb:mail e2e-dex id", "uid=33(web) gid=5(mail)\n"),
        ("-u root e2e-dex sh -c 'id -u; echo $HOME'", "0\n/root\n"),
        ("-u 7:mail e2e-dex sh -c 'id -u; id -g'", "7\n5\n"),
        ("-e PASSED -e UNSET -e A= e2e-dex sh -c 'echo $PASSED ${UNSET-unset} ${A}.'", "p unset .\n"),
        ("--env-file vars -e A=2 e2e-dex sh -c 'echo $A $PASSED ${UNSET-unset} \"$B\"'", "2 p unset x y\n"),
        ("--privileged e2e-dex sh -c 'grep -c 0000000020000420 /proc/self/status; true'", "0\n"),
    ] {
        exec(words).stdin("typed\n").run().ok().stdout_is(want);
    }
    for (words, says) in [
        ("-u nobody e2e-dex true", "no user \"nobody\""),
        ("-u root:nobody e2e-dex true", "no group \"nobody\""),
        ("-u 4294967295 e2e-dex true", "4294967295 is too large"),
        ("-g 2147483648 e2e-dex true", "2147483648 is too large"),
        ("-it e2e-dex sh", "not a terminal"),
        ("-t e2e-dex sh", "not a terminal"),
        ("--env-file none e2e-dex true", "read none"),
    ] {
        exec(words).run().fails(255).one_error_line("spawn", &[says]);
    }
    let terminal = format!("script -qec '{} --root {} exec -it e2e-dex tty' /dev/null", runtime(), sandbox.at("st"));
    sandbox.sh(&terminal).run().ok().stdout_has("/dev/pts/0");
    // What a description leaves open is as the container's own process has it.
    sandbox.write("process.json", r#"{"args":["grep","CapEff","/proc/self/status"],"cwd":"/"}"#);
    spawn(sandbox, "exec -p process.json e2e-dex").ok().stdout_is("CapEff:\t0000000020000420\n");
    spawn(sandbox, "delete -f e2e-dex").ok();
}

fn exec_codes(sandbox: &Sandbox) {
    bundle(sandbox, "cod", "sleep 1000", |_| {});
    sandbox.write("cod/rootfs/etc/text", "text");
    sandbox
        .sh("printf '#!/no/such' >cod/rootfs/bin/script; chmod 755 cod/rootfs/bin/script; : >cod/rootfs/bin/empty")
        .run()
        .ok();
    spawn(sandbox, "run -d -b cod e2e-cod </dev/null >/dev/null 2>&1").ok();
    for (program, code) in [
        ("no-such-program", 127),
        ("/bin/no-such-program", 127),
        ("/etc/text/none", 127),
        ("/bin/script", 127),
        ("/etc/text", 126),
        ("empty", 126),
        ("/etc", 126),
        ("--cwd /none sh", 255),
    ] {
        let words = program
            .rsplit_once(' ')
            .map_or(format!("e2e-cod {program}"), |(options, name)| format!("{options} e2e-cod {name}"));
        spawn(sandbox, &format!("exec {words}")).fails(code).one_error_line("spawn", &[]);
    }
    spawn(sandbox, "delete -f e2e-cod").ok();
    // Words in a path decide nothing.
    bundle(sandbox, "wor", "true", |config| {
        let mount = json!({"destination": "/m", "source": "/no/executable file not found", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    sandbox.sh("spawn wor").run().fails(125).stderr_has("executable file not found");
}
