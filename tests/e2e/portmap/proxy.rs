//! Publishing without translation: what the proxy serves, to whom, and how it ends.

use rustix::process::Signal;

use super::crash::STRACE;
use super::{NEEDS, host};
use crate::support::{Need, Sandbox, Test, test, wait_for};

const WITH_BUSYBOX: &[Need] =
    &[Need::NetNs, Need::Nft, Need::Program("python3"), Need::Program("bridge"), Need::Program("busybox")];

const USER_NEEDS: &[Need] = &[Need::NetNs, Need::Program("setpriv")];

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_container_with_only_lo_is_reached_by_the_proxy", NEEDS, proxy_to_lo),
        test("a_container_whose_lo_is_down_is_reached_by_the_proxy", NEEDS, proxy_to_lo_that_is_down),
        test("the_proxy_tells_whom_a_connection_is_from", NEEDS, proxy_protocol),
        test("sockets_in_file_systems_are_either_end", WITH_BUSYBOX, unix_sockets),
        test("inherited_sockets_serve_their_ports", NEEDS, inherited),
        test("who_may_not_translate_gets_a_proxy", USER_NEEDS, without_privilege),
        test("the_proxy_accepts_nobody_before_the_container_is_reached", NEEDS, polled_from_the_start),
        test("a_proxied_stream_arrives_as_it_was_sent", NEEDS, streams),
        test("more_clients_than_a_proxy_has_room_for_are_served_in_turn", NEEDS, crowd),
        test("a_proxied_reset_is_a_reset", NEEDS, resets),
        test("the_proxy_ends_with_the_container", NEEDS, proxy_ends),
        test("a_container_in_the_hosts_network_does_not_reach_a_proxy", NEEDS, control_sockets),
        test("what_a_killed_proxy_leaves_is_swept", NEEDS, killed_proxy),
        test("proxies_of_other_containers_are_not_asked", STRACE, asks_its_own),
        test("the_pipe_gets_a_proxy_where_there_is_no_address", NEEDS, proxy_in_the_pipe),
        test("a_port_that_is_promised_is_nobody_elses", NEEDS, promised),
        test("answers_come_from_the_address_that_was_asked", NEEDS, asked),
    ]
}

/// A client that tries again and again, from before the proxy is there until it is answered: refused, then answered, and
/// nothing between the two.
fn polled_from_the_start(sandbox: &Sandbox) {
    let script = "ip netns add lo1
        { until get 127.0.0.1 8080 | tee -a polled | grep -q 1; do :; done; } & client=$!
        until grep -q refused polled 2>/dev/null; do :; done
        portmap --netns /run/netns/lo1 --id lone --detach -p 8080:80 >/dev/null
        seen=$(wc -l <polled); until [ $(wc -l <polled) -gt $((seen + 3)) ]; do :; done
        ip netns exec lo1 python3 server.py tcp:80 > lo1.out & inside=$!
        wait $client; uniq polled
        portmap del lone; kill $inside; wait $inside 2>/dev/null; ip netns del lo1";
    host(sandbox, "0", script).run().ok().stdout_is("refused\n::1\n");
}

/// Before anything listens the port is held: against other proxies, against translation, and against the host's programs.
fn promised(sandbox: &Sandbox) {
    let script = "ip netns add lo1; ip netns add lo2
        bind() { python3 -c 'import socket; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind((\"\", 8080)); s.listen()' 2>&1 | tail -n 1; }
        portmap --netns /run/netns/lo1 --id one --detach -p 8080:80 >/dev/null
        portmap --netns /run/netns/lo2 --id two --detach -p 8080:80 2>&1 | grep -o 'taken by container one'
        record web c1 | portmap -p 8080:80 2>&1 | grep -o 'taken by container one'; bind
        ip netns exec lo1 python3 server.py tcp:80 > lo1.out & inside=$!
        until [ \"$(get 127.0.0.1 8080)\" = ::1 ]; do :; done
        kill $inside; wait $inside 2>/dev/null; until [ \"$(get 127.0.0.1 8080)\" = refused ]; do :; done; bind
        portmap del one; portmap --netns /run/netns/lo2 --id two --detach -p 8080:80 >/dev/null && echo free
        portmap del two; ip netns del lo1; ip netns del lo2";
    host(sandbox, "0", script).run().ok().stdout_is(
        "taken by container one\ntaken by container one\nOSError: [Errno 98] Address already in use\n\
         OSError: [Errno 98] Address already in use\nfree\n",
    );
}

/// A host with two addresses of each family: a client that is connected takes answers from the asked one only.
fn asked(sandbox: &Sandbox) {
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        ip addr add 203.0.113.9/24 dev ext0; ip addr add fd03::9/64 dev ext0 nodad
        ip netns exec lo1 python3 server.py udp:53 > lo1.out & inside=$!; until grep -q ready lo1.out; do :; done
        portmap --netns /run/netns/lo1 --id lone --detach -p 5353:53/udp >/dev/null
        for address in 203.0.113.1 203.0.113.9 fd03::1 fd03::9; do in_ns rc $address 5353 udp; done; get 127.0.0.2 5353 udp
        portmap del lone; kill $inside; wait $inside 2>/dev/null; ip netns del lo1";
    let said = host(sandbox, "0", script).run().ok().stdout;
    assert!(said.lines().count() == 5 && !said.contains("silence"), "{said}");
}

/// Nothing in the container listens at first: the client is refused at once, then served.
fn proxy_to_lo(sandbox: &Sandbox) {
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        ip netns exec lo1 sleep 1000 & box=$!
        until [ $(readlink /proc/$box/ns/net) != $(readlink /proc/self/ns/net) ]; do :; done
        portmap --pid $box --id lone --detach -p 8080:80 -p 5353:53/udp -p '[::1]:8081:81' -p 8082:82
        echo early $(get 127.0.0.1 8080) $(get ::1 8080)
        ip netns exec lo1 python3 server.py tcp:80 udp:53 tcp:81 count:82 > lo1.out & inside=$!
        until [ \"$(get 127.0.0.1 8080)\" = ::1 ]; do :; done
        echo $(get ::1 8080) $(in_ns rc 203.0.113.1 8080) $(in_ns rc fd03::1 8080)
        echo $(get ::1 8081) $(in_ns rc fd03::1 8081) $(get 127.0.0.1 5353 udp) $(get 127.0.0.1 8082 half)
        portmap list
        portmap --netns /run/netns/c1 --id web -p 8080:80 2>&1 | sed 's/[0-9]*)/N)/'
        portmap del lone
        echo $(get 127.0.0.1 8080)
        kill $box $inside; wait $box $inside 2>/dev/null; ip netns del lo1; nft list ruleset";
    let port = |ip: &str, host: u16, container: u16, protocol: &str| {
        let ip = if ip.is_empty() { String::new() } else { format!(r#""hostIP":"{ip}","#) };
        format!(r#"{{{ip}"hostPort":{host},"containerPort":{container},"protocol":"{protocol}"}}"#)
    };
    let ports =
        [port("", 8080, 80, "tcp"), port("", 5353, 53, "udp"), port("::1", 8081, 81, "tcp"), port("", 8082, 82, "tcp")];
    let want = format!(
        "{{\"id\":\"lone\",\"ports\":[{}]}}\n\
         early refused refused\n::1 ::1 ::1\n::1 refused ::1 4194304\n\
         HOST        CONTAINER  PROTOCOL  ID\n\
         *:8080      proxy:80   tcp       lone\n\
         *:5353      proxy:53   udp       lone\n\
         [::1]:8081  proxy:81   tcp       lone\n\
         *:8082      proxy:82   tcp       lone\n\
         portmap: publish 0.0.0.0:8080/tcp for web: port is taken by container lone\n\
         refused\n",
        ports.join(",")
    );
    host(sandbox, "1", script).run().ok().stdout_is(&want);
}

/// Somebody listens there, but nothing can connect before the proxy has brought `lo` up.
fn proxy_to_lo_that_is_down(sandbox: &Sandbox) {
    let script = "ip netns add down1
        ip netns exec down1 python3 server.py tcp:80 > down1.out & inside=$!
        until grep -q ready down1.out; do :; done
        portmap --netns /run/netns/down1 --id lone --detach -p 8080:80 >/dev/null
        for try in 1 2 3; do get 127.0.0.1 8080; done
        portmap del lone
        kill $inside; wait $inside 2>/dev/null; ip netns del down1";
    host(sandbox, "1", script).run().ok().stdout_is("::1\n::1\n::1\n");
}

/// A server in the container prints what it gets, as `repr` of Python, the client's port taken out.
fn proxy_protocol(sandbox: &Sandbox) {
    sandbox.write(
        "told.py",
        r"
import re, socket, struct
with socket.create_server(('', 80)) as server:
    print('ready', flush=True)
    for turn in range(4):
        connection, _ = server.accept()
        with connection:
            got = b''
            while not got.endswith(b'ping'):
                got += connection.recv(4096)
            if got.startswith(b'\r\n\r\n\0\r\nQUIT\n'):
                command, family, length = struct.unpack('>BBH', got[12:16])
                addresses, rest = got[16:16 + length], got[16 + length:]
                size = {0x11: 4, 0x21: 16}.get(family, 0)
                text = lambda a: socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, a)
                print(hex(command), hex(family), text(addresses[:size]), text(addresses[size:2 * size]), addresses[-2] * 256 + addresses[-1], rest, flush=True)
            else:
                print(re.sub(rb' [0-9]+ 80', b' PORT 80', got), flush=True)
            connection.sendall(b'pong')
",
    );
    let script = "ip netns add lo1; ip netns exec lo1 python3 told.py >told & inside=$!
        until grep -q ready told; do :; done
        ping() { python3 -c 'import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.sendall(b\"ping\"); assert s.recv(9) == b\"pong\"' $1 $2; }
        for version in v1 v2; do
            portmap --netns /run/netns/lo1 --id lone --detach -p 8080:80 --proxy-protocol $version >/dev/null
            ping 127.0.0.1 8080; ping ::1 8080; portmap del lone
        done
        wait $inside; cat told; ip netns del lo1
        portmap --netns /run/netns/c1 --id web -p 53:53/udp --proxy-protocol v1; echo $?";
    let want = "ready\nb'PROXY TCP4 127.0.0.1 127.0.0.1 PORT 8080\\r\\nping'\nb'PROXY TCP6 ::1 ::1 PORT 8080\\r\\nping'\n\
                0x21 0x11 127.0.0.1 127.0.0.1 8080 b'ping'\n0x21 0x21 ::1 ::1 8080 b'ping'\n2\n";
    let outcome = host(sandbox, "1", script).run();
    outcome
        .stdout_is(want)
        .stderr_has("portmap: publish 53:53/udp: --proxy-protocol is for connections, but udp has none");
}

/// The container's root is a directory of ours; a link in it leads to a socket of the host's, and must not.
fn unix_sockets(sandbox: &Sandbox) {
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        mkdir -p rootfs/run; cp $(command -v busybox) rootfs/busybox; ln -s $PWD/evil.sock rootfs/run/evil.sock
        ip netns exec lo1 chroot rootfs /busybox sleep 1000 & box=$!
        until [ \"$(cat /proc/$box/comm)\" = busybox ]; do :; done
        serve() { portmap --pid $box --id lone \"$@\" -p unix:$PWD/web.sock:80 -p 8080:unix:/run/app.sock \\
            -p unix:$PWD/both.sock:unix:/run/app.sock -p 8081:unix:/run/evil.sock; }
        dir() { sed s,$PWD,DIR,g; }
        serve --detach | dir
        echo early $(get 127.0.0.1 8080)
        ip netns exec lo1 python3 server.py tcp:80 unix:rootfs/run/app.sock unix:evil.sock > lo1.out & inside=$!
        until [ \"$(get 127.0.0.1 8080)\" = unix ]; do :; done
        echo $(get $PWD/web.sock) $(get $PWD/both.sock) $(get ::1 8080) $(get 127.0.0.1 8081)
        portmap list | dir | tr -s ' '
        portmap list --json > list; portmap check ./list && portmap restore list
        portmap del lone -p 8080:unix:/run/app.sock 2>&1 | dir
        portmap --netns /run/netns/c2 --id web --proxy -p 8080:80 2>&1
        portmap del lone; ls -d *.sock; portmap check ./list 2>&1 | dir
        portmap --pid $box -p unix:$PWD/web.sock:80 > left & left=$!; until grep -q web.sock left; do :; done
        portmap --pid $box -p unix:$PWD/web.sock:80 2>&1 | dir; kill -9 $left; wait $left 2>/dev/null
        serve --detach >/dev/null; get $PWD/web.sock; portmap del lone
        echo mine >file; portmap --pid $box -p unix:$PWD/file:80 2>&1 | dir; cat file
        portmap --netns /run/netns/lo1 -p 8080:unix:/run/app.sock
        kill $box $inside; wait $box $inside 2>/dev/null; rm evil.sock rootfs/run/app.sock; ip netns del lo1";
    let want = "{\"id\":\"lone\",\"ports\":[],\"sockets\":[\"unix:DIR/web.sock:80\",\"8080:unix:/run/app.sock\",\
        \"unix:DIR/both.sock:unix:/run/app.sock\",\"8081:unix:/run/evil.sock\"]}\n\
        early refused\n::1 unix unix refused\n\
        HOST CONTAINER PROTOCOL ID\n\
        unix:DIR/web.sock proxy:80 stream lone\n\
        *:8080 proxy:unix:/run/app.sock stream lone\n\
        unix:DIR/both.sock proxy:unix:/run/app.sock stream lone\n\
        *:8081 proxy:unix:/run/evil.sock stream lone\n\
        portmap: withdraw 8080:unix:/run/app.sock: one process serves it and unix:DIR/web.sock:80; \
        `portmap del lone` withdraws all\n\
        portmap: listen at 0.0.0.0:8080/tcp: port is taken by container lone\n\
        evil.sock\n\
        portmap: unix:DIR/web.sock:80 is not served\n\
        portmap: publish unix:DIR/web.sock:80: listen at DIR/web.sock: Address already in use\n\
        ::1\n\
        portmap: publish unix:DIR/file:80: listen at DIR/file: Address already in use\nmine\n";
    host(sandbox, "1", script).run().ok().stdout_is(want).stderr_has(
        "publish 8080:unix:/run/app.sock: no process of the container is known, whose file system has the socket",
    );
}

/// A parent that listens as systemd does: clients wait from then on, before the container's program is there.
fn inherited(sandbox: &Sandbox) {
    sandbox.write(
        "listening.py",
        r"
import fcntl, os, socket, sys
one, two = socket.create_server(('127.0.0.1', 8080)), socket.create_server(('127.0.0.1', 8081))
three = socket.socket(socket.AF_UNIX)
three.bind('three.sock')
three.listen()
moved = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 20) for s in (one, two, three)]
for number, fd in zip((3, 4, 5), moved):
    os.dup2(fd, number)
if sys.argv[1] == 'systemd':
    os.environ.update(LISTEN_FDS='3', LISTEN_PID=str(os.getpid()))
os.execvp('portmap', ['portmap', '--netns', '/run/netns/lo1', '--id', 'lone', '--detach'] + sys.argv[2:])
",
    );
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        serve() { python3 listening.py \"$@\"; }
        serve systemd -p 8080:80 -p 8082:81 -p fd:5:80
        get 127.0.0.1 8080 wait > early & early=$!
        get ./three.sock 0 wait > waits & waits=$!
        ip netns exec lo1 python3 server.py tcp:80 tcp:81 > lo1.out & inside=$!
        wait $early $waits; cat early waits; get 127.0.0.1 8080
        until [ \"$(get 127.0.0.1 8082)\" = ::1 ]; do :; done
        portmap list | tr -s ' '; portmap del lone; rm three.sock
        serve by-hand --listen-fd 4 -p 127.0.0.1:8081:80; get 127.0.0.1 8081; portmap del lone; rm three.sock
        serve by-hand --listen-fd 4 -p 8080:80; rm three.sock
        serve by-hand --listen-fd 5 -p 8080:80; rm three.sock
        serve by-hand --listen-fd 9 -p 8080:80; rm three.sock
        kill $inside; wait $inside 2>/dev/null; ip netns del lo1; portmap list";
    let port = |ip: &str, host: u16, container: u16| {
        format!("{{{ip}\"hostPort\":{host},\"containerPort\":{container},\"protocol\":\"tcp\"}}")
    };
    let loopback = r#""hostIP":"127.0.0.1","#;
    let (one, two, three) = (port(loopback, 8080, 80), port("", 8082, 81), port(loopback, 8081, 80));
    let want = format!(
        "{{\"id\":\"lone\",\"ports\":[{one},{two}],\"sockets\":[\"fd:5:80\"]}}\n::1\n::1\n::1\n\
         HOST CONTAINER PROTOCOL ID\n127.0.0.1:8080 proxy:80 tcp lone\n*:8082 proxy:81 tcp lone\n\
         fd:5 proxy:80 stream lone\n{{\"id\":\"lone\",\"ports\":[{three}]}}\n::1\n\
         HOST  CONTAINER  PROTOCOL  ID\n"
    );
    host(sandbox, "1", script)
        .run()
        .ok()
        .stdout_is(&want)
        .stderr_has("portmap: take descriptor 4: it is at 127.0.0.1:8081/tcp, which no -p publishes\n")
        .stderr_has("portmap: take descriptor 5: it has no port\n")
        .stderr_has("portmap: take descriptor 9: Bad file descriptor\n");
}

/// Root of a user namespace only: the network is not its own.
fn without_privilege(sandbox: &Sandbox) {
    sandbox.write(
        "user.sh",
        r#"
unshare --net sleep 1000 & box=$!
until [ "$(cat /proc/$box/comm)" = sleep ]; do :; done
portmap --pid $box --id lone --detach -p 8080:80
echo '{"id":"web","network":{"interfaces":[{"name":"eth0","sandbox":"/proc/'$box'/ns/net"}],"ips":[{"address":"10.0.0.2/8"}]}}' > record
portmap record -p 8081:80 | grep -o '"ports.*'
portmap list; portmap del lone; portmap gc --keep web; portmap list; portmap del web; portmap gc
portmap del web; echo $?
echo '{"cniVersion":"1.1.0","name":"x"}' | CNI_COMMAND=STATUS portmap
portmap --netns /proc/1/ns/net --id host --proxy -p 8082:80; echo $?
kill $box; wait $box 2>/dev/null || :"#,
    );
    let script = "mkdir user; chown 65534 user; cp user.sh user; cd user
        setpriv --reuid 65534 --regid 65534 --clear-groups env DRAYAGE_ROOT=$PWD/root unshare --user --map-root-user sh user.sh";
    let denied = "Operation not permitted: CAP_NET_ADMIN over the network namespace is needed";
    let ports =
        |port: u16| format!("\"ports\":[{{\"hostPort\":{port},\"containerPort\":80,\"protocol\":\"tcp\"}}]}}\n");
    let head = "HOST    CONTAINER  PROTOCOL  ID\n";
    let want = format!(
        "{{\"id\":\"lone\",{}{}{head}*:8080  proxy:80   tcp       lone\n*:8081  proxy:80   tcp       web\n\
         {head}*:8081  proxy:80   tcp       web\n1\n\
         {{\"cniVersion\":\"1.1.0\",\"code\":50,\"msg\":\"portmap: read nftables' rule set: {denied}\",\"details\":\"\"}}\n1\n",
        ports(8080),
        ports(8081)
    );
    sandbox
        .sh(script)
        .run()
        .ok()
        .stdout_is(&want)
        .stderr_has(&format!("warning: only what proxies serve is looked at: read nftables' rule set: {denied}\n"))
        .stderr_has(&format!("portmap: read nftables' rule set: {denied}\n"))
        .stderr_has("portmap: open network namespace /proc/1/ns/net: Permission denied\n");
}

/// Small and large, in pieces, both ways at once, to a reader who is slow; over TCP and over a socket in a file system.
fn streams(sandbox: &Sandbox) {
    sandbox.write("stream.py", include_str!("stream.py"));
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        ip netns exec lo1 python3 server.py echo:80 unix-echo:$PWD/echo.sock > lo1.out & inside=$!
        until grep -q ready lo1.out; do :; done
        portmap --pid $inside --id lone --detach -p 8080:80 -p unix:$PWD/in.sock:unix:$PWD/echo.sock >/dev/null
        python3 stream.py 127.0.0.1 8080; python3 stream.py $PWD/in.sock
        portmap del lone; kill $inside; wait $inside 2>/dev/null; ip netns del lo1";
    let all = "0 1 100 16383 16384 16385 300000 8388608 True\n";
    host(sandbox, "0", script).run().ok().stdout_is(&[all, all].concat());
}

/// A limit on descriptors leaves room for four connections; 24 clients stay until each has been answered.
fn crowd(sandbox: &Sandbox) {
    sandbox.write(
        "crowd.py",
        r"
import socket
clients = [socket.create_connection(('127.0.0.1', 8080), 30) for _ in range(24)]
served = 0
for client in clients:
    client.sendall(b'?')
    served += client.recv(1) == b'?'
    client.close()
print(served)",
    );
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        ip netns exec lo1 python3 server.py echo:80 > lo1.out & inside=$!
        until grep -q ready lo1.out; do :; done
        (ulimit -n 90; exec portmap --netns /run/netns/lo1 --id lone --detach -p 8080:80 >/dev/null)
        python3 crowd.py
        portmap del lone; kill $inside; wait $inside 2>/dev/null; ip netns del lo1";
    host(sandbox, "0", script).run().ok().stdout_is("24\n");
}

/// Whoever breaks a connection off is not taken for one who has ended it.
fn resets(sandbox: &Sandbox) {
    sandbox.write(
        "reset.py",
        r"
import ctypes, os, socket, struct, subprocess
libc = ctypes.CDLL(None)
own, other = (os.open(path, os.O_RDONLY) for path in ('/proc/self/ns/net', '/run/netns/lo1'))
libc.setns(other, 0)
server = socket.create_server(('127.0.0.1', 80))
libc.setns(own, 0)
subprocess.run('portmap --netns /run/netns/lo1 --id lone --detach -p 8080:80 >/dev/null', shell=True, check=True)

def both():
    client = socket.create_connection(('127.0.0.1', 8080), 30)
    inside, _ = server.accept()
    # What one has sent, the other has got: nothing is on its way.
    client.sendall(b'x')
    inside.recv(1)
    return client, inside

def breaks_off(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()

def sees(s):
    try:
        return 'end' if s.recv(1) == b'' else 'more'
    except ConnectionResetError:
        return 'reset'

client, inside = both(); breaks_off(inside); print(sees(client))
client, inside = both(); breaks_off(client); print(sees(inside))
client, inside = both(); inside.close(); print(sees(client))
client, inside = both(); client.close(); print(sees(inside))
subprocess.run(['portmap', 'del', 'lone'], check=True)",
    );
    let script = "ip netns add lo1; ip -n lo1 link set lo up; python3 reset.py; ip netns del lo1";
    host(sandbox, "0", script).run().ok().stdout_is("reset\nreset\nend\nend\n");
}

fn proxy_ends(sandbox: &Sandbox) {
    sandbox.sh("ip netns add lo1; ip -n lo1 link set lo up").run().ok();
    let container = sandbox.cmd(&["ip", "netns", "exec", "lo1", "sh", "-c", "echo $$; exec sleep 1000"]).start();
    let pid = wait_for("the container", || container.stdout().trim().parse::<i32>().ok());
    let proxy = sandbox.cmd(&["portmap", "--pid", &pid.to_string(), "-p", "8080:80"]).start();
    proxy.wait_stdout("8080");
    container.signal(Signal::KILL);
    proxy.wait().ok();
    container.wait();
    sandbox.sh("ip netns del lo1").run().ok();
}

/// A container's root in the host's network, with a file system of its own; and another root directory of the host's.
fn control_sockets(sandbox: &Sandbox) {
    let script = "ip netns add lo1
        portmap --netns /run/netns/lo1 --id lone --detach -p 8080:80 >/dev/null
        cat /proc/net/unix | grep -c @
        stat -c '%a %F' $DRAYAGE_ROOT/run/portmap $DRAYAGE_ROOT/run/portmap/*
        unshare --mount sh -c 'mount -t tmpfs none $DRAYAGE_ROOT; portmap list; portmap del lone; portmap gc --keep x'
        portmap list --root $PWD/other; portmap del --root $PWD/other lone
        ip netns exec c1 portmap list; ip netns exec c1 portmap del lone
        portmap list | grep -c lone
        chmod 755 $DRAYAGE_ROOT/run/portmap; portmap list 2>&1 | sed s,$DRAYAGE_ROOT,ROOT,; chmod 700 $DRAYAGE_ROOT/run/portmap
        portmap del lone; portmap list; ls $DRAYAGE_ROOT/run/portmap; ip netns del lo1";
    let none = "HOST  CONTAINER  PROTOCOL  ID\n";
    let want = format!(
        "0\n700 directory\n600 socket\n{none}{none}{none}1\n\
         portmap: ROOT/run/portmap is open to others: control sockets need a directory of the user's own, mode 0700\n{none}"
    );
    host(sandbox, "1", script).run().ok().stdout_is(&want);
}

/// However many other containers' proxies there are, nobody connects to their sockets.
fn asks_its_own(sandbox: &Sandbox) {
    let script = "ip netns add lo1
        serve() { portmap --netns /run/netns/lo1 --id $1 --detach -p $2:80 >/dev/null; }
        connects() { strace -qq -e trace=connect -o trace \"$@\" >/dev/null; grep -c AF_UNIX trace; }
        all() { serve web 8080; connects portmap check web; connects portmap list web; connects portmap del web; }
        serve n.1 9001; all >one; for i in 2 3 4 5; do serve n.$i 900$i; done; serve web.1 9006; serve n.web 9007; all >many
        cat one; cmp one many; portmap gc --keep web; portmap list -q; ip netns del lo1";
    host(sandbox, "1", script).run().ok().stdout_is("1\n1\n3\n");
}

fn killed_proxy(sandbox: &Sandbox) {
    let script = "ip netns add lo1
        serve() { portmap --netns /run/netns/lo1 --id $1 -p $2 >$1.out & proxy=$!; until grep -q ports $1.out; do :; done; }
        sockets() { ls $DRAYAGE_ROOT/run/portmap | wc -l; }
        serve one 8080:80; kill -9 $proxy; wait $proxy 2>/dev/null
        echo $(sockets) $(portmap list | wc -l); portmap gc; echo $(sockets)
        serve two 8080:80; kill -9 $proxy; wait $proxy 2>/dev/null
        serve two 8080:80; echo $(sockets); kill $proxy; wait $proxy; echo $(sockets)
        ip netns del lo1";
    host(sandbox, "1", script).run().ok().stdout_is("1 1\n0\n1\n0\n");
}

fn proxy_in_the_pipe(sandbox: &Sandbox) {
    let script = "ip netns add lo1; ip -n lo1 link set lo up
        echo '{\"id\":\"lone\",\"network\":{\"interfaces\":[{\"name\":\"lo\",\"sandbox\":\"/run/netns/lo1\"}]}}' > record
        portmap record -p 8080:80 | cat
        ip netns exec lo1 python3 server.py tcp:80 > lo1.out & inside=$!
        until [ \"$(get 127.0.0.1 8080)\" = ::1 ]; do :; done
        echo served
        kill $inside; wait $inside 2>/dev/null; ip netns del lo1
        until [ $(portmap list | wc -l) = 1 ]; do :; done";
    host(sandbox, "1", script).run().ok().stdout_has("\"ports\":[{\"hostPort\":8080").stdout_has("served");
}
