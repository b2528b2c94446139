//! docs/docker.md: every line of its tables, executed in order, as it stands there.

use std::fmt::Write;
use std::time::Duration;

use crate::support::{Need, Sandbox, Test, source, test};

const NEEDS: &[Need] = &[
    Need::Registry,
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("jq"),
    Need::Program("script"),
    Need::Program("runc"),
];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("every_line_of_the_tables_works", NEEDS, tables),
        test("every_command_of_docker_is_told_of", &[], complete),
    ]
}

fn document() -> String {
    std::fs::read_to_string(source().join("docs/docker.md")).unwrap()
}

/// Returns the tables' lines: docker's command, and the commands here.
fn lines(document: &str) -> Vec<(String, Vec<String>)> {
    let code = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(|code| code.replace(r"\|", "|")).collect()
    };
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.map(|(docker, here)| (code(docker).concat(), code(here))).filter(|(_, here)| !here.is_empty()).collect()
}

fn tables(sandbox: &Sandbox) {
    let lines = lines(&document());
    assert!(lines.len() > 40, "{lines:?}");
    let mut script = "set -e\n".to_owned();
    for command in lines.iter().flat_map(|(_, here)| here) {
        // The registry here is not docker's.
        let words = command.split(' ').map(|word| match word {
            "nginx" | "busybox" => format!("$REGISTRY/{word}"),
            word => word.to_owned(),
        });
        let mut command = words.collect::<Vec<_>>().join(" ").replace("web $REGISTRY/nginx", "web nginx");
        if ["keep attach", "keep events"].iter().any(|endless| command.starts_with(endless)) {
            command = format!("timeout 1 {command} || test $? = 124");
        } else if command.starts_with("spawn exec -it") {
            command = format!("echo exit | script -qec '{command}' /dev/null");
        }
        writeln!(script, "echo {} >&2", quoted(&command)).unwrap();
        writeln!(script, "{command}").unwrap();
    }
    let outcome = sandbox.cmd(&["sh", "-c", &script]).limit(Duration::from_secs(150)).run().ok();
    for said in ["hello\n", "later\n", "running", "docker-archive", "web\n"] {
        assert!(outcome.stdout.contains(said) || outcome.stderr.contains(said), "{said}: {outcome}");
    }
    sandbox.sh("until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done").run().ok();
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn complete(_: &Sandbox) {
    let document = document();
    for command in [
        "run",
        "exec",
        "ps",
        "build",
        "pull",
        "push",
        "images",
        "login",
        "search",
        "version",
        "info",
        "attach",
        "cp",
        "create",
        "diff",
        "events",
        "export",
        "history",
        "inspect",
        "kill",
        "load",
        "logs",
        "pause",
        "port",
        "rename",
        "restart",
        "rm",
        "rmi",
        "save",
        "start",
        "stats",
        "stop",
        "tag",
        "top",
        "unpause",
        "update",
        "wait",
        "container",
        "context",
        "image",
        "network",
        "plugin",
        "system",
        "volume",
        "swarm",
    ] {
        assert!(document.contains(&format!("`docker {command}")), "docker {command}");
    }
}
