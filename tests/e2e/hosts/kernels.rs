//! The table of docs/kernels.md: what a kernel without a system call cannot do.

use crate::support::{Need, Sandbox, Test, source, test};

const NEEDS: &[Need] = &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("python3")];

pub(crate) fn tests() -> Vec<Test> {
    vec![test("a_kernel_without_a_call_does_what_the_table_says", NEEDS, without)]
}

/// The commands of the table's columns. The container of the last two has been started with all calls.
const COMMANDS: [&str; 4] = [
    "run --rm --network none --rootfs root echo ran",
    "run -d --rm --name d --network none --rootfs root sleep 1000",
    "spawn exec up echo ran",
    "spawn kill up USR1",
];

fn without(sandbox: &Sandbox) {
    let prepare = "mkdir -p root/bin; cp \"$(command -v busybox)\" root/bin/busybox
        for applet in echo sleep; do ln -s busybox root/bin/$applet; done
        run -d --name up --network none --rootfs root sleep 1000";
    sandbox.sh(prepare).run().ok();
    let page = std::fs::read_to_string(source().join("docs/kernels.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 10, "docs/kernels.md has no table");
    let filter = source().join("tests/e2e/hosts/without.py");
    for row in rows {
        let calls = row[0].replace([' ', '`'], "");
        for (command, says) in COMMANDS.iter().zip(&row[2..]) {
            let done = sandbox.sh(&format!("exec python3 {} {calls} {command}", filter.display())).run();
            let what = format!("{command} without {calls}: {done:?}");
            match *says {
                "works" => assert_eq!(done.code(), 0, "{what}"),
                "refused" => {
                    assert!([1, 125, 255].contains(&done.code()), "{what}");
                    assert!(done.stderr.lines().any(|line| line.contains("Function not implemented")), "{what}");
                }
                other => panic!("docs/kernels.md: {calls}: {other}"),
            }
            sandbox.sh("keep rm -f d 2>/dev/null").run();
        }
    }
    sandbox.run(&["keep", "rm", "-f", "up"]).ok().stdout_is("up\n");
}
