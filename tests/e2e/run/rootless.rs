//! An ordinary user's runs: ports by the proxy, outwards by pasta or slirp4netns, or not at all.

use rustix::process::Signal;

use crate::support::{Need, Sandbox, Test, image, test};

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Registry,
    Need::Program("setpriv"),
    Need::Program("newuidmap"),
    Need::Program("pasta"),
    Need::Program("slirp4netns"),
];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("an_ordinary_user_runs_a_container_with_a_port_and_a_way_outwards", NEEDS, ports_and_outwards),
        test("an_ordinary_user_needs_neither_pasta_nor_slirp4netns_for_ports", NEEDS, without_programs),
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
    crate::support::wait_for("the guard", || {
        (sandbox.sh(&left).run().stdout == ".local/share/drayage/containers:\n\nrt/drayage/claims:\n1\n").then_some(())
    });
    sandbox
        .sh("umount /etc/subuid /etc/subgid; mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid")
        .run()
        .ok();
    sandbox.sh(&as_user("run --rm busybox true")).run().fails(125).one_error_line("run", &["/etc/subuid", "newuidmap"]);
    sandbox.sh("umount $(command -v pasta) $(command -v slirp4netns)").run().ok();
    end(sandbox);
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
