//! The record that stands for `pull | unpack` while nothing has changed.

use super::{PIPELINE, busybox};
use crate::support::{Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_warm_run_begins_with_the_kept_record", PIPELINE, kept),
        test("a_run_on_a_terminal_keeps_its_record_too", PIPELINE, terminal),
        test("a_kept_record_ends_with_any_change_of_what_it_is_made_from", PIPELINE, changes),
        test("no_record_is_kept_where_an_image_must_be_signed", PIPELINE, signed),
        test("no_record_is_kept_where_pull_warns", PIPELINE, warned),
    ]
}

/// Runs a container, and writes 1 if that has executed `pull`, else 0.
fn traced(options: &str) -> String {
    let run = busybox(&format!("--trace trace.json {options}"), "true");
    format!("{run} || exit; grep process_name trace.json | grep -c '\"pull\"'; ")
}

/// Runs a container twice, and says which of the runs have executed `pull`.
fn pulls(sandbox: &Sandbox, options: &str) -> String {
    sandbox.sh(&(traced(options).repeat(2) + "true")).run().ok().stdout.replace('\n', " ")
}

fn kept(sandbox: &Sandbox) {
    // The first fetches the image, and so changes what the second finds.
    assert_eq!(pulls(sandbox, ""), "1 1 ");
    assert_eq!(pulls(sandbox, ""), "0 0 ");
    // What another policy or platform would have is another record.
    assert_eq!(pulls(sandbox, "--pull always"), "1 1 ");
    assert_eq!(pulls(sandbox, "--pull never"), "1 0 ");
    let first = "head -n 1 | grep '^# run begins with bundle: .*/records/.*json has what pull and unpack would print$'";
    sandbox.sh(&format!("{} | {first}", busybox("--print --pull never", "true"))).run().ok();
    let record = "jq -j .record state/run/records/*.json | sort -u; pull --policy missing IMAGE | unpack";
    let lines = sandbox.sh(&record.replace("IMAGE", &image("busybox").reference)).run().ok().stdout;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines, [lines[0]; 2]);
    sandbox.sh("stat -c %a state/run/records").run().ok().stdout_is("700\n");
    let container = "run -d --name web --network none IMAGE sleep 100; unpack diff web; keep rm -f web";
    sandbox.sh(&container.replace("IMAGE", &image("busybox").reference)).run().ok().stdout_is("web\nweb\n");
}

fn terminal(sandbox: &Sandbox) {
    // The first fetches and extracts the image.
    let run = format!("script -qec '{}' /dev/null", busybox("", "true"));
    sandbox.sh(&format!("{run} && {run}")).run().ok();
    sandbox.sh(&(traced("") + "true")).run().ok().stdout_is("0\n");
}

fn changes(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p home/.config/containers/registries.conf.d").run().ok();
    let other = image("nginx").reference;
    let layer = "$(ls -d state/layers/sha256/* | head -n 1)";
    pulls(sandbox, "");
    for change in [
        &format!("pull --quiet {other} >/dev/null"),
        &format!("pull rm {other} >/dev/null"),
        &format!("chmod 700 {layer}; chmod 755 {layer}"),
        &format!("rm -r {layer}"),
        "rm -r state/layers",
        "for record in state/run/records/*; do echo '{}' >$record; done",
        "sed -i 's/\"boot\":\"[^\"]*/\"boot\":\"another/' state/run/records/*",
        "run --gc; ! ls -d state/run/records",
        "for blob in $(grep -l '\"rootfs\"' state/oci/blobs/sha256/*); do echo damaged >>$blob; done",
        "chmod 755 state/layers",
        "echo >$HOME/.config/containers/registries.conf",
        "echo >$HOME/.config/containers/registries.conf.d/x.conf",
        "echo '#' >$HOME/.config/containers/registries.conf.d/x.conf",
        "echo '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' >$HOME/.config/containers/policy.json",
    ] {
        let run = traced("");
        let said = sandbox.sh(&format!("export HOME=$PWD/home; {run} {run} {run} {change}\n{run} {run} {run} true"));
        let said = said.run().ok().stdout.replace('\n', " ");
        assert!(said.contains("0 1 ") && said.ends_with("0 "), "{change}: {said}");
    }
    // What is gone is fetched again, or is an error.
    sandbox.sh(&format!("pull rm {}", image("busybox").reference)).run().ok();
    sandbox.sh(&busybox("--pull never", "true")).run().fails(125).one_error_line("pull", &["busybox"]);
}

fn signed(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p home/.config/containers").run().ok();
    pulls(sandbox, "");
    assert_eq!(pulls(sandbox, ""), "0 0 ");
    sandbox.write("home/.config/containers/policy.json", "{\"default\":[{\"type\":\"reject\"}]}");
    let rejected = sandbox.sh(&format!("export HOME=$PWD/home; {}", busybox("", "true"))).run();
    rejected.fails(125).one_error_line("pull", &["the policy rejects"]);
}

/// Its words would be told once, and never again.
fn warned(sandbox: &Sandbox) {
    sandbox.write("image.sh", include_str!("platform.sh"));
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let named = "jq '.manifests = [.manifests[] | del(.platform) | .annotations[\"org.opencontainers.image.ref.name\"] = \"localhost/other:1\"]'";
    let image = "index=layout/blobs/$(jq -r '.manifests[].digest' layout/index.json | tr : /)";
    sandbox
        .sh(&format!("sh -e image.sh {other}; {image}; {named} $index >index; mv index layout/index.json"))
        .run()
        .ok();
    sandbox.sh("mkdir state; mv layout state/oci").run().ok();
    for _ in 0..3 {
        let run = sandbox.sh("run --rm --network none localhost/other:1 cat /platform").run();
        run.ok().stdout_is(&format!("{other}\n")).stderr_has("not for this machine");
    }
}
