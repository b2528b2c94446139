//! `--systemd-cgroup`, with a systemd of its own: one that has nothing to do but make scopes.

use serde_json::json;

use super::{bundle, spawn};
use crate::support::{Need, Sandbox, Test, test};

const ANY: &[Need] = &[Need::Root, Need::Program("busybox")];
const SYSTEMD: &[Need] =
    &[Need::Root, Need::Program("busybox"), Need::Program("/lib/systemd/systemd"), Need::UnifiedCgroups];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("systemd_makes_the_cgroup_and_forgets_it", SYSTEMD, scope),
        test("a_unit_of_somebody_elses_is_left_alone", SYSTEMD, taken),
        test("without_a_systemd_nothing_is_made", ANY, absent),
    ]
}

/// Boots a systemd; `inside COMMAND` runs in its namespaces, in which it is process 1.
const BOOT: &str = r#"
    mkdir /sys/fs/cgroup/sd units; printf '[Unit]\nDefaultDependencies=no\n' >units/default.target
    cat >boot <<'EOF'
        mount -t cgroup2 none /sys/fs/cgroup; mount -t tmpfs none /run
        exec env -i container=drayage SYSTEMD_UNIT_PATH=$PWD/units /lib/systemd/systemd --system --log-target=console --show-status=no
EOF
    (echo 0 >/sys/fs/cgroup/sd/cgroup.procs; exec unshare -mpCf --kill-child --mount-proc sh boot) >boot.log 2>&1 & U=$!
    until S=$(cat /proc/$U/task/$U/children) && S=${S% } && [ -n "$S" ] && [ -S /proc/$S/root/run/systemd/private ]; do :; done
    inside() { nsenter -t $S -m -p -C --wdns="$PWD" "$@"; }
    spawn() { inside env PATH="$PATH" spawn --root "$PWD/st" --systemd-cgroup "$@" </dev/null; }
    down() {
        kill -KILL $S $U; wait 2>/dev/null
        cgroups() { find /sys/fs/cgroup -depth -type d \( -path '*/*.slice*' -o -name '*.scope' -o -path '*/sd*' \) "$@"; }
        while cgroups | grep -q .; do cgroups -exec rmdir {} + 2>/dev/null; done
    }
"#;

fn scope(sandbox: &Sandbox) {
    for (name, path, unit) in [("web", ":drayage:web", "drayage-web.scope"), ("sli", "e2e-lab.slice:x:y", "x-y.scope")]
    {
        bundle(sandbox, name, "sleep 1000", |config| config["linux"]["cgroupsPath"] = json!(path));
        let outcome = sandbox
            .sh(&format!(
                "{BOOT}
                spawn create -b {name} --pid-file pid e2e-{name} >/dev/null && spawn start e2e-{name}
                inside systemctl is-active {unit}; inside systemctl show -P Delegate {unit}
                inside grep -o '/[a-z0-9.-]*/{unit}$' /proc/$(cat pid)/cgroup | sort -u
                inside cat /sys/fs/cgroup/*.slice/{unit}/cgroup.procs /sys/fs/cgroup/*.slice/*.slice/{unit}/cgroup.procs 2>/dev/null | wc -l
                spawn exec e2e-{name} true && spawn pause e2e-{name} && spawn resume e2e-{name} && spawn update --pids-limit 100 e2e-{name} 2>&1 | grep -c 'controller pids'
                spawn delete -f e2e-{name}; inside systemctl is-active {unit}
                inside systemctl list-units --all --no-legend {unit}; inside find /sys/fs/cgroup -name {unit}; ls st; down"
            ))
            .run();
        let slice = if name == "web" { "/system.slice/drayage-web.scope" } else { "/e2e-lab.slice/x-y.scope" };
        assert_eq!(outcome.stdout, format!("active\nyes\n{slice}\n1\n1\ninactive\n"), "{outcome}");
    }
}

fn taken(sandbox: &Sandbox) {
    bundle(sandbox, "tak", "sleep 1000", |config| config["linux"]["cgroupsPath"] = json!(":drayage:tak"));
    let outcome = sandbox
        .sh(&format!(
            "{BOOT}
            spawn create -b tak e2e-first >/dev/null; spawn create -b tak e2e-second >/dev/null; echo $?
            spawn list -q; inside systemctl is-active drayage-tak.scope; spawn delete -f e2e-first; ls st; down"
        ))
        .run();
    assert_eq!(outcome.stdout, "1\ne2e-first\nactive\n", "{outcome}");
    let outcome = outcome.stderr_has("spawn: start drayage-tak.scope: Unit drayage-tak.scope ");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
}

fn absent(sandbox: &Sandbox) {
    for (path, words) in [
        (":drayage:abs", "--systemd-cgroup: no systemd answers at /run/systemd/private"),
        ("/drayage/abs", "is not slice:prefix:name"),
        ("lab:drayage:abs", "\"lab\" is not a slice"),
    ] {
        bundle(sandbox, "abs", "true", |config| config["linux"]["cgroupsPath"] = json!(path));
        let outcome = spawn(sandbox, "--systemd-cgroup run -b abs e2e-abs").fails(1);
        outcome.one_error_line("spawn", &[words]);
        sandbox.sh("ls st").run().ok().stdout_is("");
    }
}
