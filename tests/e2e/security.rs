//! What a container's root, an ordinary user or a downloaded file could do to the host: docs/security.md.

use serde_json::json;

use crate::spawn::{bundle, map_ids, spawn};
use crate::support::{Need, Sandbox, Test, image, source, test};

const PIPELINE: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft, Need::Program("python3")];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("nothing_of_the_host_is_lent_to_what_runs_in_a_container", PIPELINE, lent),
        test("nothing_of_the_host_is_lent_by_the_runtime", PIPELINE, lent_by_runtime),
    ]
}

/// Prints which of the host's inodes the processes may change, by their mounts and descriptors.
pub(crate) fn lent_to(sandbox: &Sandbox, given: &str, pids: &str) -> String {
    let program = source().join("tests/e2e/security/lent.py");
    sandbox.sh(&format!("python3 {} '{given}' {pids}", program.display())).run().ok().stdout
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
