//! docs/docker.md: every line of its tables, executed in order, as it stands there.

use std::fmt::Write;
use std::time::Duration;

use crate::cli::install_front;
use crate::support::{Need, Sandbox, Test, image, source, test};

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
        test("docker_s_own_lines_work_with_the_command_in_front", NEEDS, front),
        test("a_session_of_docker_s_lines_runs_unchanged", NEEDS, docker),
        test("a_session_of_podman_s_lines_runs_unchanged", NEEDS, podman),
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
    // What is for an ordinary user, or for systemd, is tested elsewhere.
    let rows = rows.filter(|(_, here)| !here.contains("ordinary"));
    rows.map(|(docker, here)| (code(docker).join("; "), code(here))).filter(|(_, here)| !here.is_empty()).collect()
}

fn tables(sandbox: &Sandbox) {
    let lines = lines(&document());
    assert!(lines.len() > 40, "{lines:?}");
    execute(sandbox, lines.iter().flat_map(|(_, here)| here.clone()));
}

/// What is no verb of the command in front: what it takes stands in the other column.
const WITHOUT: [&str; 6] = [
    "docker create",
    "docker start -a later",
    "docker export",
    "docker inspect nginx",
    "docker inspect -f",
    "docker manifest",
];

fn front(sandbox: &Sandbox) {
    install_front(sandbox);
    let lines = lines(&document());
    let own = lines.into_iter().map(|(docker, _)| docker);
    let is_format = |docker: &str| ["--format", "--filter ancestor"].iter().any(|out| docker.contains(out));
    let own = own.filter(|docker| docker.starts_with("docker ") && !is_format(docker));
    let kept = own.filter(|docker| !WITHOUT.iter().any(|out| docker.starts_with(out)));
    let lines: Vec<String> = kept.map(|docker| docker.replace("docker ", "drayage ")).collect();
    assert!(lines.len() > 35, "{lines:?}");
    execute(sandbox, lines.into_iter().chain(["drayage rm -f web".to_owned()]));
    for (line, tool) in [("exec", "spawn exec"), ("ps", "keep list"), ("kill", "spawn kill"), ("images", "pull list")] {
        sandbox.sh(&format!("usr/bin/drayage help {line}")).run().ok().stdout_has(&format!("Usage: {tool}"));
    }
    sandbox.sh("usr/bin/drayage -v ps -a").run().ok().stderr_is("drayage: keep list\n");
    for kind in ["container", "image", "volume", "network"] {
        sandbox.sh(&format!("usr/bin/drayage {kind} exists nosuch")).run().fails(1).stderr_is("");
    }
    for (typed, meant) in [("stpo", "stop"), ("imges", "images"), ("logss", "logs"), ("execc", "exec"), ("pux", "pull")]
    {
        let outcome = sandbox.sh(&format!("usr/bin/drayage {typed} x")).run().fails(2);
        assert_eq!(outcome.stderr.contains(&format!("did you mean drayage {meant}?")), typed != "pux", "{outcome}");
    }
    sandbox.sh("usr/bin/drayage kill").run().fails(2).one_error_line("drayage", &["no container"]);
}

/// Executes lines of docker.md in order, with the images of the registry here.
fn execute(sandbox: &Sandbox, lines: impl Iterator<Item = String>) {
    let _registry = crate::push::registry(sandbox);
    let nginx = image("nginx").reference;
    sandbox.write(
        "compose.yaml",
        format!("name: docs\nservices: {{web: {{image: {nginx}, volumes: ['logs:/logs']}}}}\nvolumes: {{logs: }}"),
    );
    let mut script = "set -e\nPATH=\"$PWD/usr/bin:$PATH\"\n".to_owned();
    for command in lines {
        // The registry here is not docker's.
        let words = command.split(' ').map(|word| match word {
            "nginx" | "busybox" => format!("$REGISTRY/{word}"),
            word => word.to_owned(),
        });
        let command = words.collect::<Vec<_>>().join(" ");
        // A container's program is no image.
        let mut command = ["web", "other"].iter().fold(command, |command, id| {
            command.replace(&format!("exec {id} $REGISTRY/nginx"), &format!("exec {id} nginx"))
        });
        let is = |verbs: &[&str]| verbs.iter().any(|verb| command.starts_with(verb));
        if is(&["keep attach", "keep events", "drayage attach", "drayage events", "drayage stats web"]) {
            command = format!("timeout 1 {command} || test $? = 124");
        } else if is(&["spawn exec -it", "drayage exec -it"]) {
            command = format!("echo exit | script -qec '{command}' /dev/null");
        }
        writeln!(script, "echo {} >&2", quoted(&command)).unwrap();
        writeln!(script, "{command}").unwrap();
    }
    let outcome = sandbox.cmd(&["sh", "-c", &script]).limit(Duration::from_secs(150)).run().ok();
    for said in ["hello\n", "running", "docker-archive", "web\n"] {
        assert!(outcome.stdout.contains(said) || outcome.stderr.contains(said), "{said}: {outcome}");
    }
    sandbox.sh("until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done").run().ok();
}

fn docker(sandbox: &Sandbox) {
    session(sandbox, "docker ", include_str!("docker/session.txt"));
}

fn podman(sandbox: &Sandbox) {
    session(sandbox, "podman ", include_str!("docker/podman.txt"));
}

/// Lines as somebody types them; those with a `!` are refused with a word about what does it here.
fn session(sandbox: &Sandbox, program: &str, lines: &str) {
    install_front(sandbox);
    let busybox = image("busybox").reference;
    sandbox.write("env.list", "A=1\n");
    sandbox.write(
        "compose.yaml",
        format!("name: shop\nservices: {{app: {{image: {busybox}, command: sleep 1000, volumes: ['v:/v']}}}}\nvolumes: {{v: }}"),
    );
    let lines: Vec<&str> = lines.lines().collect();
    let refused = lines.iter().filter(|line| line.starts_with("! ")).count();
    assert!(lines.len() >= 100 && refused * 20 <= lines.len(), "{refused} of {} are refused", lines.len());
    let mut wrong = Vec::new();
    for line in lines {
        let (line, fails) = line.strip_prefix("! ").map_or((line, false), |line| (line, true));
        let words = line.split(' ').map(|word| match word {
            "nginx" | "busybox" | "busybox:latest" => format!("$REGISTRY/{word}"),
            word => word.to_owned(),
        });
        let line = words.collect::<Vec<_>>().join(" ").replace(program, "drayage ");
        let typed = if line.contains(" -it ") { format!("script -qec {} /dev/null", quoted(&line)) } else { line };
        let outcome = sandbox.sh(&format!("PATH=\"$PWD/usr/bin:$PATH\"; {typed}")).limit(Duration::from_secs(30)).run();
        if (outcome.code() != 0) != fails || outcome.stderr.contains("no tool and no verb") {
            wrong.push(outcome.to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
