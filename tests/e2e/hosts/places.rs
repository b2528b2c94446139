//! The table of docs/deploy.md: what works inside other engines' containers, and in other places that are less than a machine.

use std::fmt::Write;

use rustix::process::Signal;

use super::Host;
use super::docker::dockerd;
use super::podman::{CONTAINERS, PODMAN as ENGINE};
use crate::support::{Need, Sandbox, Test, source, test};

const DOCKER: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("dockerd"),
    Need::Program("docker"),
];
const PODMAN: &[Need] =
    &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("podman"), Need::Program("runc")];
const POD: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("podman"),
    Need::Program("runc"),
    Need::UnifiedCgroups,
];
const ROOTLESS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("podman"),
    Need::Program("crun"),
    Need::Program("newuidmap"),
    Need::Program("setpriv"),
];
const NSPAWN: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("systemd-nspawn"),
    Need::UnifiedCgroups,
];
const CHROOT: &[Need] = &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("inside_docker_works_what_the_table_says", DOCKER, docker),
        test("inside_podman_works_what_the_table_says", PODMAN, podman),
        test("inside_a_pod_with_users_of_its_own_works_what_the_table_says", POD, pod),
        test("inside_an_ordinary_users_podman_works_what_the_table_says", ROOTLESS, rootless),
        test("inside_systemd_nspawn_works_what_the_table_says", NSPAWN, nspawn),
        test("in_a_chroot_works_what_the_table_says", CHROOT, chroot),
    ]
}

/// What is tried in each place, in the order of the table's columns; what is refused says why on one line.
const JOB: &str = r#"
PATH=/tools:/bin
image=oci-archive:/job/image.tar
try() {
    if "$@" >/tmp/out 2>/tmp/error && grep -q inner /tmp/out; then echo works; return; fi
    if grep -q pasta /tmp/error; then echo needs pasta; elif [ $(wc -l </tmp/error) = 1 ]; then echo refused; else echo broken; fi
    sed "s/^/# $1: /" /tmp/error
}
flat() { pull $image | unpack --flat /tmp/tree | bundle --print | grep -q '"destination"' && echo inner; }
served() {
    run -d --replace --name web -p 8080:80 $image httpd -f -p 80 -h /etc >/dev/null || return
    until wget -qO- http://127.0.0.1:8080/passwd; do :; done | sed s/root/inner/
    keep rm -f web >/dev/null
}
try flat
try run --rm --network none $image echo inner
try run --rm $image sh -c 'ip -4 addr show eth0 | grep -q inet && echo inner'
try served
"#;

/// The rows of the table for a place: its command, and what it says of each column.
fn rows(place: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(source().join("docs/deploy.md")).unwrap();
    let own = page.lines().filter_map(|line| line.strip_prefix(&format!("| {place} | `"))?.split_once("` | "));
    let rows: Vec<(String, String)> = own
        .map(|(command, cells)| (command.to_owned(), cells.trim_end_matches(" |").replace(" | ", "\n") + "\n"))
        .collect();
    assert!(!rows.is_empty(), "docs/deploy.md has no row for {place}");
    rows
}

/// Does the job in each row of a place, by the script that `script` makes of the row's command, and compares what it says with
/// the table. Returns the whole output.
#[track_caller]
fn compare(host: &Host<'_>, place: &str, script: impl Fn(&str) -> String) -> String {
    let (mut said, mut wanted, mut why) = (String::new(), String::new(), String::new());
    for (command, cells) in rows(place) {
        let outcome = host.sh(&script(&command)).run();
        writeln!(wanted, "{command}\n{cells}").unwrap();
        writeln!(said, "{command}").unwrap();
        for line in outcome.stdout.lines().map(str::trim_end).filter(|line| !line.starts_with('#')) {
            writeln!(said, "{line}").unwrap();
        }
        said.push('\n');
        writeln!(why, "{outcome}").unwrap();
    }
    assert_eq!(said, wanted, "{why}");
    why
}

/// Returns the runtime for an engine's command: runc insists on all capabilities, of which this machine may lack some.
fn runtime(command: &str) -> &'static str {
    if command.contains("--privileged") { "--runtime spawn" } else { "--runtime runc" }
}

/// Makes the job's directory beside the image, and returns the host.
fn host(sandbox: &Sandbox) -> Host<'_> {
    let host = Host::new(sandbox);
    sandbox.write("job/job", JOB);
    host.ok("cp image.tar job; ln -s \"$(readlink -f /usr/local/lib/drayage/bin)\" tools");
    host
}

const MOUNTS: &str = "-v $(readlink -f tools):/tools:ro -v $PWD/job:/job:ro";

fn docker(sandbox: &Sandbox) {
    let host = host(sandbox);
    host.install("/etc/docker/daemon.json", "");
    let daemon = dockerd(sandbox, &[]);
    host.ok("docker import layer.tar bb");
    compare(&host, "docker", |command| format!("{command} --rm {} {MOUNTS} bb sh /job/job", runtime(command)));
    host.ok("docker volume ls -q | xargs -r docker volume rm");
    daemon.signal(Signal::TERM);
    daemon.wait().ok();
    host.down();
}

fn podman(sandbox: &Sandbox) {
    in_podman(sandbox, "podman");
}

/// Kubernetes gives such a pod a user namespace, and otherwise what it gives to any.
fn pod(sandbox: &Sandbox) {
    let output = in_podman(sandbox, "a pod with `hostUsers: false`");
    // Its file system is there, and another's.
    assert!(output.contains("limits cannot be set: no cgroup could be made below /sys/fs/cgroup"), "{output}");
}

#[track_caller]
fn in_podman(sandbox: &Sandbox, place: &str) -> String {
    let host = host(sandbox);
    host.install("/etc/containers/containers.conf", CONTAINERS);
    let prepare = "podman pull -q oci-archive:image.tar >/dev/null; podman tag $(podman images -q) localhost/bb";
    host.ok(&format!("{ENGINE}\n{prepare}"));
    let options = |command: &str| format!("--rm --network none {} {MOUNTS}", runtime(command));
    let script = |command: &str| format!("{ENGINE}\n{command} {} localhost/bb sh /job/job", options(command));
    let output = compare(&host, place, script);
    host.ok(&format!("{ENGINE}\npodman volume prune -f; podman rmi -fa >/dev/null"));
    host.down();
    output
}

fn rootless(sandbox: &Sandbox) {
    let host = host(sandbox);
    let user = r#"
        export HOME=$PWD/home XDG_RUNTIME_DIR=/run/user/1234 DISABLE_HC_SYSTEMD=true here=$PWD tools=$(readlink -f tools)
        unset DRAYAGE_ROOT
        podman() { (cd home; setpriv --reuid 1234 --regid 1234 --clear-groups podman --cgroup-manager cgroupfs             --events-backend file --log-level error "$@"); }
        limits="--cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1000:1000"
    "#;
    host.ok(&format!(
        "
        mount -t cgroup2 cgroup /sys/fs/cgroup
        printf '%s\n' root:x:0:0::/root:/bin/sh \"me:x:1234:1234::$PWD/home:/bin/sh\" >/etc/passwd
        printf '%s\n' root:x:0: me:x:1234: >/etc/group
        echo me:100000:65536 >/etc/subuid; echo me:100000:65536 >/etc/subgid
        mkdir -p home /run/user/1234; chown 1234:1234 home /run/user/1234; chmod 711 .; chmod 644 image.tar job/*
        {user} podman pull -q oci-archive:$here/image.tar >/dev/null; podman tag $(podman images -q) localhost/bb"
    ));
    compare(&host, "podman of an ordinary user", |command| {
        format!(
            "{user} {command} --rm --network none $limits -v $tools:/tools:ro -v $here/job:/job:ro localhost/bb sh /job/job"
        )
    });
    host.ok(&format!(
        "{user} kill $(cat /run/user/1234/libpod/tmp/pause.pid) || :
        umount -l /sys/fs/cgroup; rm -rf /run/user/1234"
    ));
    host.down();
}

fn nspawn(sandbox: &Sandbox) {
    let host = host(sandbox);
    host.ok("mkdir root; tar -C root -xf layer.tar; mkdir -p root/usr root/var/lib/drayage root/tools root/job; echo ID=none >root/etc/os-release");
    // There is no systemd that could be told of it.
    let options =
        "-q -D root --register=no --keep-unit --bind-ro=$(readlink -f tools):/tools --bind-ro=$PWD/job:/job --pipe";
    // It makes groups beside that of process 1, which it looks for in the mount of the hierarchy.
    let group = "mkdir -p /sys/fs/cgroup/nspawn; echo 0 >/sys/fs/cgroup/nspawn/cgroup.procs";
    let own = "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup";
    compare(&host, "systemd-nspawn", |command| {
        format!(
            "{group}; unshare -C -m -p -f --mount-proc sh -c '{own}; {command} {options} /bin/sh /job/job; exit $?'"
        )
    });
    host.ok("find /sys/fs/cgroup/nspawn -depth -type d -exec rmdir {} +");
    host.down();
}

fn chroot(sandbox: &Sandbox) {
    let host = host(sandbox);
    host.ok("for root in directory mount-point; do
            mkdir $root; [ $root = directory ] || mount --bind $root $root
            tar -C $root -xf layer.tar; mkdir -p $root/tools $root/job $root/var/lib/drayage $root/run
            mount --bind tools $root/tools; mount --bind job $root/job; mount -t tmpfs state $root/var/lib/drayage
            mount -t tmpfs run $root/run; for place in dev proc sys; do mount --rbind /$place $root/$place; done
        done");
    compare(&host, "chroot", |command| format!("env -u DRAYAGE_ROOT {command} /bin/sh /job/job"));
    host.ok("umount -R -l mount-point directory/*/ directory/var/lib/drayage 2>/dev/null || :");
    host.down();
}
