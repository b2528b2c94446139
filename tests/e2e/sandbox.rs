//! The harness itself: that a sandbox is a machine of its own, and that what is left behind is noticed.

use crate::support::{Need, Sandbox, Test, image, programs_directory, source, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("output_and_exit_code_are_seen", &[], output_and_exit_code_are_seen),
        test("a_sandbox_has_only_its_own_interfaces", &[Need::Root, Need::NetNs], only_its_own_interfaces),
        test("a_clean_up_stays_inside", &[Need::NetNs, Need::Overlay, Need::Nft], a_clean_up_stays_inside),
        test("in_a_chroot_the_tests_say_so", &[Need::Root], in_a_chroot_the_tests_say_so),
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

/// Runs the test that removes most from inside a sandbox that has it all, too: that is the machine then.
fn a_clean_up_stays_inside(sandbox: &Sandbox) {
    let script = "
        links='docker0 cni0 cni-podman0 podman0'; groups='docker pods tests libpod_parent'
        trees=$(grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5 | sort -u)
        for link in $links; do ip link add $link type bridge; done
        nft add table inet canary; ip netns add canary
        for tree in $trees; do for group in $groups; do mkdir -p $tree/$group; done; done
        mount -t tmpfs canary /var/lib
        for place in /var/lib/docker /var/lib/containers /run/containerd; do
            mkdir $place; mount -t tmpfs canary $place; touch $place/canary
        done
        list() {
            ip -o link | cut -d: -f2; nft list ruleset; ls /run/netns; cut -d' ' -f4,5 /proc/self/mountinfo
            ls -d $(for tree in $trees; do for group in $groups; do echo $tree/$group; done; done)
            ls /var/lib/docker /var/lib/containers /run/containerd; hostname
        }
        list >before
        BIN_DIR=$1 \"$0\" --exact hosts::a_host_is_cleaned_up
        list | diff before -
        umount /run/containerd /var/lib/containers /var/lib/docker /var/lib
        for tree in $trees; do for group in $groups; do rmdir $tree/$group; done; done
        ip netns del canary; nft delete table inet canary
        for link in $links; do ip link del $link; done";
    let own = std::env::current_exe().expect("own executable").display().to_string();
    let outcome = sandbox.cmd(&["sh", "-euc", script, &own, &programs_directory().display().to_string()]).run();
    outcome.ok().stdout_has("e2e: 1 passed, 0 failed, 0 skipped\n");
}

fn in_a_chroot_the_tests_say_so(sandbox: &Sandbox) {
    let script = "mkdir root; mount --rbind / root; chroot root \"$0\" || code=$?; umount -R -l root; exit $code";
    let run = source().join("tests/run").display().to_string();
    let outcome = sandbox.cmd(&["sh", "-euc", script, &run]).run().fails(1).stdout_has("this is a chroot");
    assert!(outcome.stdout.ends_with("\n0 passed, 1 failed, 0 skipped\n"), "{outcome}");
}

fn serves_the_images(sandbox: &Sandbox) {
    let nginx = image("nginx");
    assert!(nginx.layout.join("index.json").exists());
    sandbox
        .run(&["skopeo", "inspect", "--tls-verify=false", &format!("docker://{}", nginx.reference)])
        .ok()
        .stdout_has("sha256:");
}
