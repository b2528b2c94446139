//! What a container's root, an ordinary user or a downloaded file could do to the host: docs/security.md.

use serde_json::json;

use crate::spawn::{bundle, map_ids, spawn};
use crate::support::{Need, Sandbox, Test, image, source, test};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("python3")];

const DEEP: &[Need] = &[Need::Registry, Need::Overlay, Need::Program("perl")];
const USERS: &[Need] = &[Need::Root, Need::Program("setpriv"), Need::Program("python3")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("nothing_of_the_host_is_lent_to_what_runs_in_a_container", PIPELINE, lent),
        test("nothing_of_the_host_is_lent_by_the_runtime", PIPELINE, lent_by_runtime),
        test("the_hosts_127_0_0_1_is_closed_before_during_and_after_a_published_port", PIPELINE, localnet),
        test("the_hosts_links_take_no_router_advertisements", PIPELINE, advertisements),
        test("what_a_user_notes_leads_root_nowhere_by_surprise", USERS, notes),
        test("words_of_a_file_are_no_options", PIPELINE, words),
        test("no_list_moves_the_cursor", PIPELINE, lists),
        test("no_link_of_a_users_is_written_through", PIPELINE, outputs),
        test("twenty_thousand_directories_are_copied_and_removed", DEEP, deep),
        test("a_read_only_container_writes_nothing", PIPELINE, read_only),
        test("locks_are_closed_to_others", PIPELINE, locks),
    ]
}

/// Prints which of the host's inodes the processes may change, by their mounts and descriptors.
pub(crate) fn lent_to(sandbox: &Sandbox, given: &str, pids: &str) -> String {
    sandbox.sh(&lent_words(given, pids)).run().ok().stdout
}

/// The shell words for it.
pub(crate) fn lent_words(given: &str, pids: &str) -> String {
    format!("python3 {} \"{given}\" {pids}", source().join("tests/e2e/security/lent.py").display())
}

/// In the foreground, in the background, executed, as a probe, as another user: stdio is the host's null device there.
fn lent(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    for options in ["", "--read-only", "--user 1000", "--init", "--user 1000 --volume data:/data"] {
        sandbox
            .sh(&format!(
                "run -d --rm --name web {options} --health-cmd 'sleep 1000' --health-interval 1s --health-timeout 500s {busybox} \
                    sleep 1000 >&2
                 spawn exec --detach web sleep 1000 </dev/null >/dev/null 2>&1
                 until [ $(spawn ps --format json web | tr , '\\n' | wc -l) -ge 3 ]; do :; done"
            ))
            .run()
            .ok();
        let pids = "$(spawn ps --format json web | tr '[],' ' ')";
        assert_eq!(lent_to(sandbox, "state/containers/web:state/volumes", pids), "", "run -d {options}");
        sandbox.run(&["keep", "rm", "--force", "web"]).ok();
        let command = format!("run --rm --name web {options} {busybox} sleep 1000 </dev/null >/dev/null 2>err");
        let running = sandbox.sh(&command).start();
        sandbox.sh("until spawn state web 2>&1 | grep -q '\"running\"'; do :; done").run().ok();
        assert_eq!(lent_to(sandbox, "state/containers/web:state/volumes:err", pids), "", "run {options}");
        sandbox.run(&["spawn", "kill", "web", "KILL"]).ok();
        running.wait().fails(137);
    }
}

/// What the container has done to its own /dev/null decides nothing, and a user namespace gets the host's nodes read-only.
fn lent_by_runtime(sandbox: &Sandbox) {
    for (name, in_user_namespace) in [("plain", false), ("mapped", true)] {
        bundle(
            sandbox,
            name,
            "rm -f /dev/null; ln -s zero /dev/null; exec sleep 1000 </dev/zero >/dev/zero 2>&1",
            |config| {
                config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/kcore", "/proc/acpi", "/proc/self/sched"]);
                if in_user_namespace {
                    map_ids(config);
                }
            },
        );
        let run = format!("run -d -b {name} {name} </dev/null >/dev/null 2>&1");
        spawn(sandbox, &run).ok();
        spawn(sandbox, &format!("exec -d {name} sleep 1000 </dev/null >/dev/null 2>&1")).ok();
        let pids = format!("$(spawn --root {} ps --format json {name} | tr '[],' ' ')", sandbox.at("st"));
        assert_eq!(lent_to(sandbox, &format!("{name}/rootfs"), &pids), "", "{name}");
        spawn(sandbox, &format!("delete -f {name}")).ok();
    }
}

/// A switch of the whole host's is guarded while it is on, and off with the last who needs it.
fn localnet(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let switch = "/proc/sys/net/ipv4/conf/drayage0/route_localnet";
    sandbox
        .sh(&format!(
            "set -e
            run -d --rm --name idle {busybox} sleep 1000; test $(cat {switch}) = 0
            run -d --rm --name web -p 8080:80 {busybox} sleep 1000; test $(cat {switch}) != 0
            nft list table ip portmap-guard | grep -q 'iifname != \"lo\" ip daddr 127.0.0.0/8 drop'
            run -d --rm --name more -p 8081:80 {busybox} sleep 1000; keep rm -f more; portmap check
            nft delete table ip portmap-guard
            for check in 'portmap check' 'portmap check web'; do ! $check 2>err || exit 1; grep -q 127.0.0.0/8 err; done
            portmap list --json | portmap restore; portmap check
            nft flush ruleset; ! portmap check 2>err || exit 1
            portmap gc; test $(cat {switch}) = 0
            keep rm -f web; run -d --rm --name web -p 8080:80 {busybox} sleep 1000; keep rm -f web
            test $(cat {switch}) = 0; ! nft list table ip portmap-guard 2>/dev/null || exit 1
            echo 1 >{switch}; run -d --rm --name web -p 8080:80 {busybox} sleep 1000; keep rm -f web; test $(cat {switch}) = 1
            pid=$(spawn state idle | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')
            portmap --while $pid -p 8082:80 idle >&2; keep rm -f idle
            while nft list table ip portmap-guard 2>/dev/null; do :; done; until [ ! -e {switch} ]; do :; done"
        ))
        .run()
        .ok();
}

/// CVE-2020-13401: what a container says on a bridge gives the host neither routes nor addresses.
fn advertisements(sandbox: &Sandbox) {
    sandbox
        .sh("set -e
            value() { cat /proc/sys/net/ipv6/conf/$1/$2; }
            ns add --bridge four0 --subnet 10.4.0.0/24 four >/dev/null
            ns add --bridge six0 --subnet fd00:6::/64 six >/dev/null
            for link in four0 $(ip -br link show type bridge_slave | sed 's/@.*//'); do
                test $(value $link disable_ipv6) = 1
            done
            for link in four0 six0; do test $(value $link accept_ra)$(value $link autoconf) = 00; done
            test $(value six0 disable_ipv6) = 0; ip addr show dev six0 | grep -q fd00:6::1
            ns add --bridge four0 --subnet 10.4.0.0/24 --subnet fd00:4::/64 both >/dev/null
            test $(value four0 disable_ipv6) = 0; ip netns exec both busybox ping -6 -c 1 -w 10 fd00:4::1 >/dev/null
            ns del --wait four six both")
        .run()
        .ok();
}

/// An ordinary user notes a process under the name of root's container, and puts a FIFO and a file without end beside it.
fn notes(sandbox: &Sandbox) {
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let notes = "/run/user/65534/runc";
    sandbox
        .sh(&format!(
            "set -e; chmod 711 .; mkdir -p {notes}/web home bin; chown -R 65534 /run/user/65534 home; cp $(command -v busybox) bin/id
            {user} unshare -U -r -m --propagation private sh -c 'mount --bind bin/id /usr/bin/id; exec sleep 1000' & pid=$!
            until [ \"$(readlink /proc/$pid/exe | grep -o sleep)\" ]; do :; done
            {user} sh -c 'echo \"{{\\\"init_process_pid\\\":'$pid',\\\"id\\\":\\\"web\\\"}}\" >{notes}/web/state.json'
            ! ns enter -m -t web id 2>err || exit 1; grep -q 'called web' err
            ! ns enter -m -t nobody/web id 2>err || exit 1; grep -q -e 'user 65534: .*-U' err
            test \"$(ns enter -a -t 65534/web readlink /proc/self/ns/user)\" = \"$(readlink /proc/$pid/ns/user)\"
            ns list -o NS,CONTAINER | grep -q nobody/web
            {user} mkdir {notes}/fifo {notes}/zero {notes}/link; {user} mkfifo {notes}/fifo/state.json
            {user} ln -s /dev/zero {notes}/zero/state.json; echo '{{\"init_process_pid\":1}}' >state.json
            {user} ln -s $PWD/state.json {notes}/link/state.json
            for words in 'list' 'tree' 'show none' 'enter -a -t none true' 'enter -a -t nobody/fifo true' 'enter -a -t nobody/link true'; do
                code=0; timeout 20 ns $words >/dev/null 2>&1 || code=$?; test $code -le 1
            done
            kill $pid; rm -r /run/user"
        ))
        .run()
        .ok();
}

/// An image in a compose file, a volume's name, a health check that the image brings.
fn words(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox.write("precious", "precious");
    let compose = |service: &str, more: &str| {
        sandbox.write("p/compose.yml", format!("services: {{w: {{network_mode: none, {service}}}}}\n{more}"));
        sandbox.sh("cd p; compose up --detach; code=$?; compose down --volumes; exit $code").run()
    };
    sandbox.sh("mkdir p").run().ok();
    for option in ["--trace=../precious", "--cidfile=../new", "--privileged", "-v/etc:/host", "a b"] {
        let service = format!("image: '{option}', command: ['{busybox}', 'true']");
        compose(&service, "").fails(1).stderr_has("is not the name of an image");
    }
    let service = format!("image: '{busybox}', command: ['true'], volumes: ['v:/v']");
    for name in ["/etc", "..", "--privileged", "a:b", "v,source=/etc"] {
        compose(&service, &format!("volumes: {{v: {{name: '{name}'}}}}")).fails(1).stderr_has("is not a volume's name");
    }
    compose(&service, "volumes: {v: {name: plain}}").ok();
    assert!(sandbox.read("precious") == "precious" && !sandbox.exists("new") && sandbox.exists("/etc/passwd"));

    // Who says that it is healthy is not believed; and words behind the container's id are the program's.
    let check = "--health-cmd false --health-interval 1s --health-retries 1";
    sandbox
        .sh(&format!(
            "set -e
            run -d --name web --network none {check} {busybox} sh -c ': \"(healthy)\"; exec sleep 1000'
            until keep list --quiet --filter health=unhealthy | grep -qx web; do :; done
            test -z \"$(keep list --quiet --filter health=healthy)\"; ! keep list --filter image=web 2>err || exit 1
            ! spawn exec web --preserve-fds 2>err || exit 1; grep -q -e '--preserve-fds.*executable file not found' err
            ! spawn exec --no-such web true 2>err || exit 1; grep -q 'unexpected argument .--no-such' err
            keep rm -f web"
        ))
        .run()
        .ok();
}

/// Names of a downloaded layout, of files in a container, of labels: control characters are shown as escapes.
fn lists(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    sandbox
        .sh(&format!(
            "set -e
            run --name web --network none {busybox} sh -c 'touch \"$(printf \"/a\\033[2J\\nb\")\"' \"$(printf 'x\\033[1m')\"
            cp -r state/oci lay; python3 - <<'P'
import json
index = json.load(open('lay/index.json'))
index['manifests'][0].setdefault('annotations', {{}})['org.opencontainers.image.ref.name'] = 'x\\x1b[2J\\nnginx  sha256:aaa'
json.dump(index, open('lay/index.json', 'w'))
P
            pull list --layout lay >out; unpack diff web >>out; keep list >>out; bundle list >>out; cat out >&2
            grep -q 'u{{1b}}' out; ! grep -q \"$(printf '\\033')\" out || exit 1; ! grep -q ^nginx out || exit 1; keep rm -f web"
        ))
        .run()
        .ok();
}

/// A temporary file's name cannot be guessed, and what is no regular file is written to as it is.
fn outputs(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    bundle(sandbox, "b", "true", |_| {});
    let spawn = format!("spawn --root {} run -b b --pid-file", sandbox.at("st"));
    sandbox
        .sh(&format!(
            "set -e; mkdir app; chmod 711 .; chown 65534 app; echo precious >precious; mknod null c 1 3; mkfifo fifo
            for link in .app.pid app.pid .x.json trace.json run.sh 1-pull.json x.tar; do
                setpriv --reuid 65534 --regid 65534 --clear-groups ln -s $PWD/precious app/$link
            done
            {spawn} app/app.pid p1; {spawn} null p2; ! {spawn} fifo p3 2>err; spawn --root st delete -f p3 2>/dev/null || :
            run --rm --network none --trace app/trace.json {busybox} true; run --rm --network none --trace null {busybox} true
            run --network none --name kept --keep app {busybox} true; bundle delete --root app kept
            pull --quiet --to oci-archive:app/x.tar --lock app/x.json {busybox} >/dev/null
            pull --quiet --to oci-archive:/dev/null {busybox} >/dev/null
            grep -qx precious precious; test -c null -a -p fifo -a -c /dev/null; test -f app/app.pid -a -f app/x.tar
            run --rm --network none --trace /dev/stderr {busybox} true 2>trace; grep -q process_name trace
            ls -A app | grep -v -e '^containers$' >left; ! grep -q '[.][0-9a-f]\\{{16\\}}$' left"
        ))
        .run()
        .ok();
}

/// A container makes 20,000 directories in each other, which any user may.
fn deep(sandbox: &Sandbox) {
    let debian = image("debian").reference;
    let dive = "for (1..20000) { mkdir \"d\" or die; chdir \"d\" or die } open(F, \">f\")";
    sandbox
        .sh(&format!(
            "set -e; dive='{dive}'; mkdir out
            run --name deep --network none --volume data:/v {debian} perl -e \"chdir '/var'; $dive; chdir '/v'; $dive\"
            bundle cp deep:/var/d out; test -d out/d/d/d
            bundle cp out/d deep:/srv; ! unpack diff deep 2>err || exit 1; test $(wc -l <err) = 1; test $(wc -c <err) -lt 1000
            bundle delete deep; run --rm --name deep --network none {debian} perl -e \"chdir '/var'; $dive\"
            run --name deep --network none {debian} perl -e \"chdir '/var'; $dive\"; run --name flat --network none {debian} true
            bundle prune --all; until test -z \"$(ls -A state/containers)\"; do :; done
            rm -rf state/volumes out"
        ))
        .run()
        .ok();
}

/// The files of /etc that are the bundle's are no way to fill the host's disk from a read-only container.
fn read_only(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let write = "for f in hosts hostname resolv.conf; do (echo x >>/etc/$f) 2>/dev/null && echo $f; done; true";
    for (options, want) in [("--read-only", ""), ("", "hosts\nhostname\nresolv.conf\n")] {
        sandbox.sh(&format!("run --rm --network none {options} {busybox} sh -c '{write}'")).run().ok().stdout_is(want);
    }
    let cipher = "socket(S, 38, 5, 0) ? print \"made\" : print \"$!\"";
    let debian = image("debian").reference;
    sandbox
        .sh(&format!("run --rm --network none {debian} perl -e '{cipher}'"))
        .run()
        .ok()
        .stdout_is("Operation not permitted");
}

/// No other user may open what root locks.
fn locks(sandbox: &Sandbox) {
    let busybox = image("busybox").reference;
    let lock = "setpriv --reuid 65534 --regid 65534 --clear-groups flock --nonblock";
    sandbox
        .sh(&format!(
            "set -e; run --rm {busybox} true; chmod 755 . state
            for file in state/oci/.index state/oci/ingest /run/drayage/network.lock; do
                test -e $file; ! {lock} $file true 2>err; grep -q 'Permission denied' err
            done
            flock state/oci/ingest sh -c 'touch held; sleep 5' & until [ -e held ]; do :; done; pull gc 2>err; grep -q 'wait for the lock' err; wait
            cp -r state/oci lay; rm lay/oci-layout; mkfifo lay/oci-layout
            ! timeout 20 pull oci:lay 2>err || exit 1; grep -q 'not a regular file' err"
        ))
        .run()
        .ok();
}
