//! The table of docs/deploy.md: what works inside other engines' containers, and in other places that are less than a machine.

use rustix::process::Signal;

use super::Host;
use crate::support::{Need, Outcome, Sandbox, Test, source, test, wait_for};

const DOCKER: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("dockerd"),
    Need::Program("docker"),
];
const PODMAN: &[Need] =
    &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("podman"), Need::Program("crun")];
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
const NSPAWN: &[Need] =
    &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("systemd-nspawn")];
const CHROOT: &[Need] = &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("inside_docker_works_what_the_table_says", DOCKER, docker),
        test("inside_podman_works_what_the_table_says", PODMAN, podman),
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
    [ "$(grep -vc ': warning:' /tmp/error)" = 1 ] && echo refused || echo broken
    sed "s/^/# $1: /" /tmp/error
}
flat() { pull $image | unpack --flat /tmp/tree | bundle --print | grep -q '"destination"' && echo inner; }
served() {
    run -d --name web -p 8080:80 $image httpd -f -p 80 -h /etc >/dev/null || return
    until wget -qO- http://127.0.0.1:8080/passwd; do :; done | sed s/root/inner/
    keep rm -f web >/dev/null
}
try flat
try run --rm --network none $image echo inner
try run --rm $image sh -c 'ip -4 addr show eth0 | grep -q inet && echo inner'
try served
"#;

/// The rows of the table that begin with a program: its command, and what it says of each column.
fn rows(program: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(source().join("docs/deploy.md")).unwrap();
    let table = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let own = table.filter(|(command, _)| command.split(' ').next() == Some(program));
    let rows: Vec<(String, String)> = own
        .map(|(command, cells)| {
            let cells = cells.trim_end_matches('|').split('|').map(|cell| format!("{}\n", cell.trim()));
            (command.to_owned(), cells.collect())
        })
        .collect();
    assert!(!rows.is_empty(), "docs/deploy.md has no row for {program}");
    rows
}

/// Compares what the job has said with the row.
#[track_caller]
fn compare(command: &str, cells: &str, outcome: &Outcome) {
    let said: String =
        outcome.stdout.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line.trim_end(), "\n"]).collect();
    assert_eq!(said, cells, "{command}: {outcome}");
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
    let words = ["dockerd", "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"];
    let daemon = sandbox.cmd(&words).start();
    wait_for("dockerd", || (sandbox.run(&["docker", "version"]).code() == 0).then_some(()));
    host.ok("docker import layer.tar bb");
    for (command, cells) in rows("docker") {
        let outcome = host.ok(&format!("{command} --rm {MOUNTS} bb sh /job/job"));
        compare(&command, &cells, &outcome);
    }
    host.ok("docker volume prune -af");
    daemon.signal(Signal::TERM);
    daemon.wait().ok();
    host.down();
}

const ENGINE: &str = "export DISABLE_HC_SYSTEMD=true PODMAN_IGNORE_CGROUPSV1_WARNING=true
    unset DRAYAGE_ROOT
    podman() { command podman --cgroup-manager cgroupfs --events-backend file --log-level error --runtime crun \"$@\"; }";

fn podman(sandbox: &Sandbox) {
    let host = host(sandbox);
    sandbox.write("/etc/containers/containers.conf", LIMITS);
    host.ok(&format!(
        "{ENGINE}\npodman pull -q oci-archive:image.tar >/dev/null; podman tag $(podman images -q) localhost/bb"
    ));
    for (command, cells) in rows("podman") {
        let outcome = host.ok(&format!("{ENGINE}\n{command} --rm {MOUNTS} localhost/bb sh /job/job"));
        compare(&command, &cells, &outcome);
    }
    host.ok(&format!("{ENGINE}\npodman volume prune -f; podman rmi -fa >/dev/null"));
    host.down();
}

/// There may be no right to raise limits here.
const LIMITS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\npids_limit = 0\n";

fn rootless(_: &Sandbox) {}
fn nspawn(_: &Sandbox) {}
fn chroot(sandbox: &Sandbox) {
    let host = host(sandbox);
    for (command, cells) in rows("chroot") {
        let outcome = host.ok(&format!(
            "mkdir root; tar -C root -xf layer.tar; mkdir -p root/tools root/job root/var/lib/drayage root/run
            mount --bind tools root/tools; mount --bind job root/job
            mount -t tmpfs state root/var/lib/drayage
            for place in dev proc sys; do mount --rbind /$place root/$place; done
            env -u DRAYAGE_ROOT {command} root /bin/sh /job/job
            umount -R -l root/tools root/job root/var/lib/drayage root/dev root/proc root/sys"
        ));
        compare(&command, &cells, &outcome);
    }
    host.down();
}
