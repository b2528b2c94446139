//! Which of an image's platforms a machine runs without being told.

use crate::support::{Need, Sandbox, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let needs: &[Need] = &[Need::Overlay, Need::Program("busybox"), Need::Program("jq")];
    let mut tests = vec![test("the_machine_s_own_platform_is_chosen", needs, own_platform)];
    if cfg!(target_arch = "aarch64") {
        let needs: &[Need] = &[Need::Root, Need::File(LIBRARIES), Need::Program("hello")];
        tests.push(test("programs_for_32_bit_arm_run_on_64_bit_arm", needs, older_programs));
    }
    tests
}

const LIBRARIES: &str = "/usr/lib/arm-linux-gnueabihf";

/// They have system calls of their own, without which they cannot start: the machine of `tests/arm64` has such a program.
fn older_programs(sandbox: &Sandbox) {
    let copy = format!(
        "mkdir -p root/bin root/lib root$(dirname {LIBRARIES}) && cp $(command -v hello) root/bin/ && cp -a {LIBRARIES} root{LIBRARIES} &&
         cp -L {LIBRARIES}/ld-linux-armhf.so.3 root/lib/ && od -An -t u1 -j 18 -N 1 root/bin/hello"
    );
    sandbox.sh(&copy).run().ok().stdout_is("  40\n");
    sandbox.sh("run --rm --network none --rootfs $SANDBOX/root /bin/hello").run().ok().stdout_is("Hello, world!\n");
}

/// An image of two platforms, whose files say for which one they are; the programs in both are this machine's.
fn own_platform(sandbox: &Sandbox) {
    sandbox.write("image.sh", include_str!("platform.sh"));
    sandbox.sh("sh -e image.sh amd64 arm64").run().ok();
    let (own, other, machine) =
        if cfg!(target_arch = "aarch64") { ("arm64", "amd64", "aarch64") } else { ("amd64", "arm64", "x86_64") };
    let run = |options: &str| {
        let script = "cat /platform; uname -m; grep Seccomp: /proc/self/status";
        sandbox.sh(&format!("run --rm --network none {options} oci:$SANDBOX/layout:1 sh -c '{script}'")).run().ok()
    };
    run("").stdout_is(&format!("{own}\n{machine}\nSeccomp:\t2\n"));
    run(&format!("--platform linux/{other}")).stdout_is(&format!("{other}\n{machine}\nSeccomp:\t2\n"));
}
