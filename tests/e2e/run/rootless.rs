//! An ordinary user's runs: ports by the proxy, outwards by pasta or slirp4netns, or not at all.

use rustix::process::{Signal, kill_process};

use super::sight::{SHARED, SHARED_OUT};
use crate::support::{Cmd, Listing, Need, Sandbox, Test, image, since, test, wait_for};

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Registry,
    Need::Program("setpriv"),
    Need::Program("newuidmap"),
    Need::Program("pasta"),
    Need::Program("slirp4netns"),
    Need::Program("runc"),
];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("an_ordinary_user_runs_a_container_with_a_port_and_a_way_outwards", NEEDS, ports_and_outwards),
        test("an_ordinary_user_has_the_verbs_for_what_goes_on", NEEDS, verbs),
        test("an_ordinary_users_containers_see_each_other", NEEDS, shared),
        test("an_ordinary_user_s_printed_pipeline_does_the_same", NEEDS, printed),
        test("an_ordinary_user_s_killed_stages_leave_nothing", NEEDS, killed),
        test("an_ordinary_user_needs_neither_pasta_nor_slirp4netns_for_ports", NEEDS, without_programs),
        test("where_user_namespaces_are_denied_a_user_is_told", NEEDS, denied),
        test("an_ordinary_users_container_serves_its_port_in_the_background", NEEDS, background),
    ]
}

/// A machine with a neighbour, who has a page, and a user with ids of his own and a tun device.
const MACHINE: &str = "
    mkdir user; chown 65534:65534 user; chmod 711 .
    echo nobody:100000:65536 >sub; mount --bind sub /etc/subuid; mount --bind sub /etc/subgid
    mknod tun c 10 200; chmod 666 tun; mount --bind tun /dev/net/tun
    ip netns add next; ip link add up0 type veth peer name eth0 netns next
    ip addr add 203.0.113.1/24 dev up0; ip link set up0 up; ip route add default via 203.0.113.2
    ip -n next addr add 203.0.113.2/24 dev eth0; ip -n next link set eth0 up
    mkdir next; echo outside >next/page; ip -n next link set lo up
    ip netns exec next python3 -m http.server -d next 80 >server.out 2>&1 & echo $! >server.pid
    until ip netns exec next curl -s http://127.0.0.1/page >/dev/null; do :; done";

fn machine(sandbox: &Sandbox) {
    sandbox.sh(MACHINE).run().ok();
}

fn end(sandbox: &Sandbox) {
    sandbox
        .sh("kill $(cat server.pid); umount /dev/net/tun /etc/subuid /etc/subgid; ip link del up0; ip netns del next
            until [ -z \"$(pgrep 'pasta|slirp4netns')\" ]; do :; done")
        .run()
        .ok();
}

fn as_user(script: &str) -> String {
    format!(
        "cd user; exec setpriv --reuid 65534 --regid 65534 --clear-groups env -u DRAYAGE_ROOT HOME=$PWD \
         XDG_RUNTIME_DIR=$PWD/rt sh -c '{script}'"
    )
}

fn ports_and_outwards(sandbox: &Sandbox) {
    machine(sandbox);
    let busybox = image("busybox").reference;
    let ask = as_user(&format!("run --rm -q {busybox} sh -c \"id -u; wget -q -O - http://203.0.113.2/page\""));
    sandbox.sh(&ask).run().ok().stdout_is("0\noutside\n").stderr_is("");
    // Without pasta it is slirp4netns.
    sandbox.sh("mount --bind /bin/false $(command -v pasta)").run().ok();
    sandbox.sh(&ask).run().ok().stdout_is("0\noutside\n");
    sandbox.sh("umount $(command -v pasta)").run().ok();
    let serve = "trap exit TERM; echo served >/tmp/page; httpd -p 80 -h /tmp; while :; do sleep 0.1; done";
    let run = as_user(&format!("exec run --rm --name web -p 8080:80 {busybox} sh -c \"{serve}\""));
    let run = sandbox.sh(&run).start();
    assert!(sandbox.wait_http("127.0.0.1:8080/page").contains("served"));
    sandbox.sh(&as_user("portmap list 2>/dev/null")).run().ok().stdout_has("*:8080  proxy:80   tcp       web");
    run.signal(Signal::TERM);
    run.wait();
    sandbox.sh(&as_user("run --gc; portmap list 2>/dev/null | wc -l; ls rt/drayage/outward rt/drayage/claims .local/share/drayage/containers")).run().ok().stdout_is(
        "1\n.local/share/drayage/containers:\n\nrt/drayage/claims:\n\nrt/drayage/outward:\n",
    );
    end(sandbox);
}

fn without_programs(sandbox: &Sandbox) {
    machine(sandbox);
    sandbox.sh("for p in pasta slirp4netns; do mount --bind /bin/false $(command -v $p); done").run().ok();
    let serve = "trap exit TERM; echo served >/tmp/page; httpd -p 80 -h /tmp; while :; do sleep 0.1; done";
    let run = as_user(&format!("exec run --rm --name web -p 8080:80 {} sh -c \"{serve}\"", image("busybox").reference));
    let run = sandbox.sh(&run).start();
    assert!(sandbox.wait_http("127.0.0.1:8080/page").contains("served"));
    run.signal(Signal::KILL);
    run.wait();
    // Its guard undoes what it had done.
    let left = as_user("ls rt/drayage/claims .local/share/drayage/containers; portmap list 2>/dev/null | wc -l");
    wait_for("the guard", || {
        (sandbox.sh(&left).run().stdout == ".local/share/drayage/containers:\n\nrt/drayage/claims:\n1\n").then_some(())
    });
    sandbox
        .sh("umount /etc/subuid /etc/subgid; mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid")
        .run()
        .ok();
    // One id is enough where all files are root's.
    let one = |image: &str| as_user(&format!("run --rm --network none {image} id -u"));
    sandbox.sh(&one(&image("busybox").reference)).run().ok().stdout_is("0\n");
    let more = sandbox.sh(&one(&image("debian").reference)).run().fails(125);
    more.one_error_line("unpack", &["is not mapped", "/etc/subuid"]);
    sandbox.sh("umount $(command -v pasta) $(command -v slirp4netns)").run().ok();
    end(sandbox);
}

fn denied(sandbox: &Sandbox) {
    sandbox.sh("mkdir user; chown 65534:65534 user; chmod 711 .; echo root:0:65536 >sub").run().ok();
    sandbox.sh("mount --bind sub /etc/subuid; mount --bind sub /etc/subgid").run().ok();
    sandbox.write("inside", as_user("timeout 20 run --rm --network none busybox true"));
    let outside = "unshare --user --mount --map-users 0,0,65536 --map-groups 0,0,65536 sh -c";
    let inside = "echo 0 >/proc/sys/user/max_user_namespaces && exec sh inside";
    let refused = sandbox.sh(&format!("{outside} '{inside}'")).run().fails(125);
    refused.one_error_line("run", &["which the machine denies", "user.max_user_namespaces"]);
    let poor = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin run --rm busybox true";
    sandbox
        .sh(poor)
        .run()
        .fails(125)
        .one_error_line("run", &["CAP_SYS_ADMIN is missing", "--privileged", "unpack --flat"]);
    sandbox.sh("umount /etc/subuid /etc/subgid").run().ok();
}

fn background(sandbox: &Sandbox) {
    machine(sandbox);
    let serve = "trap exit TERM; echo served >/tmp/page; httpd -p 80 -h /tmp; while :; do sleep 0.1; done";
    let run = format!("run -q -d --name web -p 8080:80 {} sh -c \"{serve}\"", image("busybox").reference);
    sandbox.sh(&as_user(&run)).run().ok().stderr_is("");
    assert!(sandbox.wait_http("127.0.0.1:8080/page").contains("served"));
    sandbox.sh(&as_user("portmap list 2>/dev/null")).run().ok().stdout_has("*:8080  proxy:80   tcp       web");
    sandbox.sh(&as_user("spawn delete --force web; run --gc")).run().ok();
    // Whoever served the port goes with the container, a moment after it.
    let gone = "until [ $(portmap list 2>/dev/null | wc -l) = 1 ]; do :; done; ! curl -s http://127.0.0.1:8080/";
    sandbox.sh(&as_user(gone)).run().ok();
    end(sandbox);
}

/// The same as `as_user`, for a script with quotation marks.
fn user(sandbox: &Sandbox, script: &str) -> Cmd {
    sandbox.write("script", script);
    sandbox.sh(&as_user("exec sh ../script"))
}

/// Files in the container get owners of other ids, which nobody but its root may remove.
fn verbs(sandbox: &Sandbox) {
    machine(sandbox);
    let busybox = image("busybox").reference;
    let ok = |script: &str| user(sandbox, script).run().ok().stdout;
    ok(&format!("run -d --name web -p 8080:80 {busybox} sh -c 'echo said; exec httpd -f -p 80 -h /etc'"));
    assert!(sandbox.wait_http("127.0.0.1:8080/hostname").ends_with("web\n"));
    assert_eq!(ok("keep list -q --running; keep logs web; spawn exec web id -u"), "web\nsaid\n0\n");
    assert!(ok("keep top web").ends_with("httpd -f -p 80 -h /etc\n"));
    assert!(ok("echo tty | script -qec 'spawn exec -t web sh' /dev/null").contains("/dev/pts/0"));
    ok("echo new >new; bundle cp new web:/tmp/new; spawn exec web sh -c 'chmod 600 /tmp/new; chown 7:8 /tmp/new'");
    assert_eq!(ok("bundle cp web:/tmp/new - | tar -xO"), "new\n");
    for _ in 0..2 {
        assert_eq!(ok("unpack diff web"), "C /tmp\nA /tmp/new\n");
        ok("keep stop -t 0 web");
    }
    assert_eq!(ok("bundle cp web:/tmp/new - | tar -xO"), "new\n");
    ok("run --unshare sh -c 'bundle mount web | ns add --user-mode | portmap -p 8080:80 | keep'");
    assert!(sandbox.wait_http("127.0.0.1:8080/hostname").ends_with("web\n"));
    ok("unpack commit web --tag own:1 >/dev/null; keep rm -f web; pull gc --grace 0");
    let own = format!("run -d --name own -u 7 --network none {} cat /tmp/new", "own:1");
    assert_eq!(ok(&format!("{own}; keep wait own; keep logs own; keep rm own")), "own\n0\nnew\nown\n");
    // A signal for a process of another id.
    let other = format!("run -d --name other -u 1000 --network none {busybox} sleep 1000 && spawn exec other id -u");
    assert_eq!(
        ok(&format!("{other}; spawn kill other KILL; keep wait other; bundle delete other")),
        "other\n1000\n137\n"
    );
    assert_eq!(
        ok("ls -A .local/share/drayage/containers rt/drayage/spawn rt/drayage/claims | grep -v :; true").trim(),
        ""
    );
    let named = user(sandbox, "run --rm --network lab busybox true").run();
    named.fails(125).one_error_line("run", &["--network lab: only root can make bridges"]);
    let by_runc = format!("run --rm --network none --runtime runc {} id -u", image("busybox").reference);
    user(sandbox, &by_runc).run().ok().stdout_is("0\n");
    user(sandbox, "run --unshare ./no-such-program").run().fails(127).one_error_line("run", &["no-such-program"]);
    end(sandbox);
}

/// They stand in the same namespaces, which `run --unshare` enters, and which end with the last of them.
fn shared(sandbox: &Sandbox) {
    machine(sandbox);
    let busybox = image("busybox").reference;
    let ok = |script: &str| user(sandbox, script).run().ok().stdout;
    assert_eq!(ok(&SHARED.replace("IMAGE", &busybox)), SHARED_OUT);
    let net = "readlink /proc/self/ns/net";
    let seen = ok(&format!("{net}; run --rm --network host {busybox} sh -c '{net}; touch /sys/x || :' 2>&1"));
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines, [lines[0], lines[0], "touch: /sys/x: Read-only file system"]);
    ok(&format!("run -d --name web {busybox} sh -c 'echo >/tmp/made; exec sleep 1000'"));
    let look = "root=.local/share/drayage/containers/web/rootfs; run --unshare ls $root/tmp; run --unshare ip netns exec web true
        ls /proc/$(spawn state web | jq .pid)/root/tmp; ls $root; run --unshare pwd";
    let seen = ok(look);
    assert!(seen.starts_with("made\nmade\n/") && seen.ends_with("/user\n"), "{seen}");
    // Killed all at once, beside one that lives: nothing of it stays in the namespaces. Other mounts there are the machine's.
    ok(&format!("run -d --name other {busybox} sleep 1000"));
    let kill = "kill -9 $(pgrep -f 'keep-keeper .* other$') $(spawn state other | jq .pid); run --gc
        run --unshare sh -c 'ls /run/netns; grep -o \" $PWD/[^ ]*rootfs\" /proc/mounts | sed s,.*/containers/,containers/,'; keep rm -f other";
    assert_eq!(ok(kill), "other\nweb\ncontainers/web/rootfs\nother\n");
    ok("keep rm -f web");
    // A name of a container that was killed with all of the namespaces' processes is free, too.
    let all = format!(
        "run -d --name web {busybox} sleep 1000; kill -9 $(pgrep keep) $(spawn state web | jq .pid); keep rm -f web"
    );
    assert_eq!(ok(&all), "web\nweb\n");
    end(sandbox);
}

fn printed(sandbox: &Sandbox) {
    machine(sandbox);
    let busybox = image("busybox").reference;
    for options in
        ["--rm", "-i --rm -v data:/data -u 7:8", "--rm -i --network none -e A=\"it's\" --read-only", "-d --name bg"]
    {
        let run = |print: &str| {
            let look = r#"sh -c 'exec 2>&1; id; ls -d /data; echo "$A"; ls /sys/class/net; cat; exit 5'"#;
            format!("run {print} -q {options} {busybox} {look}")
        };
        let after = "code=$?; if [ -e .local/share/drayage/containers/bg ]; then keep wait bg; keep logs bg; keep rm bg; fi; exit $code";
        let direct = user(sandbox, &format!("{}; {after}", run(""))).stdin("typed\n").run();
        let script = format!("{} >text; sh -c \"$(cat text)\"; {after}", run("--print"));
        let printed = user(sandbox, &script).stdin("typed\n").run();
        assert!(direct.stdout.contains("uid="), "{direct}");
        let outcome = |of: &crate::support::Outcome| (of.code(), of.stdout.clone(), of.stderr.clone());
        assert_eq!(outcome(&printed), outcome(&direct), "{options}");
    }
    end(sandbox);
}

fn killed(sandbox: &Sandbox) {
    machine(sandbox);
    let run = format!("run --rm --name web -p 8080:80 {} httpd -f -p 80 -h /etc", image("busybox").reference);
    let once = |options: &str| {
        user(
            sandbox,
            &format!(
                "{} && {{ until curl -sf http://127.0.0.1:8080/hostname; do :; done; keep rm -f web; }} >&2",
                run.replace("--rm", options)
            ),
        )
        .run()
        .ok();
    };
    once("-d --rm");
    let before = Listing::take(sandbox);
    let stages = ["run", "run-guard", "pull", "unpack", "bundle", "ns", "portmap", "spawn", "keep", "keep-keeper"];
    for (round, victim) in stages.into_iter().chain(stages).enumerate() {
        let detach = if victim.starts_with("keep") || round % 2 == 1 { "-d --rm" } else { "--rm" };
        let mut running = user(sandbox, &format!("exec {}", run.replace("--rm", detach))).start();
        wait_for(&format!("the end of {victim}"), || {
            let ended = running
                .pid_if_running()
                .and_then(|pid| sandbox.process(pid, victim))
                .map(|pid| kill_process(pid, Signal::KILL));
            (ended.is_some() || !running.is_running() || sandbox.http_get("127.0.0.1:8080/hostname").is_some())
                .then_some(())
        });
        if let Some(pid) = running.pid_if_running() {
            // It may end in this moment.
            let _ended = kill_process(pid, Signal::KILL);
        }
        let _outcome = running.wait();
        let sweep = "keep rm -f web >&2; run --gc >&2; ls -A .local/share/drayage/containers rt/drayage/claims rt/drayage/spawn";
        wait_for(&format!("an empty machine after {victim}"), || {
            let outcome = user(sandbox, sweep).run();
            let left = &outcome.stdout;
            let empty = left.lines().all(|line| line.is_empty() || line.ends_with(':'));
            if !empty {
                println!("{victim}: {outcome}");
            }
            empty.then_some(())
        });
        assert_eq!(since(&before, sandbox), Vec::<String>::new(), "{victim} {detach}");
    }
    once("-d --rm");
    end(sandbox);
}
