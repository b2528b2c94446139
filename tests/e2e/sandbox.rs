//! The harness itself: that a sandbox is a machine of its own, and that what is left behind is noticed.

use crate::support::{Need, Sandbox, Test, image, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("output_and_exit_code_are_seen", &[], output_and_exit_code_are_seen),
        test("a_sandbox_has_only_its_own_interfaces", &[Need::Root, Need::NetNs], only_its_own_interfaces),
        test("the_registry_serves_the_images", &[Need::Registry, Need::Program("skopeo")], serves_the_images),
    ]
}

fn output_and_exit_code_are_seen(sandbox: &Sandbox) {
    sandbox
        .sh("read word; echo \"$word\"; echo why >&2; exit 3")
        .stdin("hello\n")
        .run()
        .fails(3)
        .stdout_is("hello\n")
        .stderr_is("why\n");
    sandbox.pipe(&["printf 'b\\na\\n'", "sort"]).ok().stdout_is("a\nb\n");
    sandbox.sh("kill -TERM $$").run().fails(128 + 15);
}

fn only_its_own_interfaces(sandbox: &Sandbox) {
    sandbox.sh("ip -o link | wc -l").run().ok().stdout_is("1\n");
    sandbox.sh("ip link add leaked type dummy; ip link del leaked; ps -e | wc -l").run().ok();
}

fn serves_the_images(sandbox: &Sandbox) {
    let nginx = image("nginx");
    assert!(nginx.layout.join("index.json").exists());
    sandbox
        .run(&["skopeo", "inspect", "--tls-verify=false", &format!("docker://{}", nginx.reference)])
        .ok()
        .stdout_has("sha256:");
}
