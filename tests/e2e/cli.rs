//! What all the tools do alike: help, usage errors, closed pipes, and the command in front of them.

mod options;

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Need, Sandbox, Test, programs_directory, source, test};

const TOOLS: [(&str, i32); 10] = [
    ("compose", 2),
    ("pull", 2),
    ("push", 2),
    ("unpack", 2),
    ("bundle", 2),
    ("spawn", 125),
    ("keep", 125),
    ("ns", 2),
    ("portmap", 2),
    ("run", 125),
];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("help_begins_with_one_short_imperative", &[], help),
        test("an_unknown_option_is_one_line_and_a_usage_code", &[], unknown_option),
        test("every_option_is_taken_in_every_form", &[], options::forms),
        test("options_of_one_meaning_have_each_other_s_names", &[], options::names),
        test("a_closed_pipe_ends_a_tool_quietly", &[], closed_pipe),
        test("a_full_disk_under_stdout_is_told", &[Need::Root], full_stdout),
        test("the_front_command_executes_the_tools", &[], front),
        test("the_demo_says_what_the_machine_lacks_before_it_builds", &[Need::Root], demo),
        test("a_verb_is_never_taken_for_an_image_or_a_directory", &[], words),
    ]
}

fn help(sandbox: &Sandbox) {
    for (tool, _) in TOOLS {
        let outcome = sandbox.run(&[tool, "--help"]).ok().stderr_is("");
        let first = outcome.stdout.lines().next().unwrap();
        assert!(first.len() <= 72 && !first.ends_with('.'), "{outcome}");
        let examples = outcome.stdout.find("\nExamples:\n").unwrap_or_else(|| panic!("{outcome}"));
        assert!(outcome.stdout.find("\nOptions:\n").is_none_or(|options| examples < options), "{outcome}");
        assert!(outcome.stdout.lines().count() <= 160, "{outcome}");
        if tool != "run" {
            // docker's -h is the host name.
            let short = sandbox.run(&[tool, "-h"]).ok().stderr_is("").stdout;
            assert!(short.lines().count() <= 60, "{short}");
        }
        let verbs =
            outcome.stdout.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for verb in verbs
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|verb| !matches!(*verb, "" | "help"))
        {
            sandbox.run(&[tool, verb, "--help"]).ok().stderr_is("").stdout_has("Usage: ");
        }
    }
}

fn unknown_option(sandbox: &Sandbox) {
    for (tool, code) in TOOLS {
        sandbox.run(&[tool, "--no-such-option"]).fails(code).one_error_line(tool, &["--no-such-option", "--help"]);
    }
}

fn closed_pipe(sandbox: &Sandbox) {
    for (tool, _) in TOOLS {
        sandbox.sh(&format!("{{ {tool} --help; echo $? >code; }} | true")).run().ok().stderr_is("");
        assert_eq!(sandbox.read("code"), "0\n", "{tool}");
    }
    sandbox.sh("{ ns list; echo $? >code; } | true").run().ok().stderr_is("");
    assert_eq!(sandbox.read("code"), "0\n", "ns list");
}

fn full_stdout(sandbox: &Sandbox) {
    sandbox.sh("ns list >/dev/full").run().fails(1).one_error_line("ns", &["No space left on device"]);
}

/// Installs the command in front as `make install` does.
pub(crate) fn install_front(sandbox: &Sandbox) {
    sandbox.write("usr/bin/.keep", "");
    sandbox.write("usr/lib/drayage/.keep", "");
    let front = sandbox.outside("usr/bin/drayage");
    std::fs::copy(source().join("front/drayage"), &front).unwrap();
    std::fs::set_permissions(&front, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink(programs_directory(), sandbox.outside("usr/lib/drayage/bin")).unwrap();
}

fn front(sandbox: &Sandbox) {
    install_front(sandbox);
    sandbox.sh("usr/bin/drayage pull --help | head -n 1").run().ok().stdout_has("Fetch an image");
    sandbox.sh("eval \"$(usr/bin/drayage env)\"; run --help | head -n 1").run().ok().stdout_has("Run a container");
    sandbox.sh("usr/bin/drayage nothing").run().fails(2).one_error_line("drayage", &["nothing", "no tool"]);
    sandbox.sh("usr/bin/drayage ../bin/sh").run().fails(2).one_error_line("drayage", &["no tool"]);
    sandbox.sh("usr/bin/drayage").run().ok().stdout_has("spawn    runs the bundle");
    sandbox.sh("usr/bin/drayage --version").run().ok().stdout_has("run 0.");
    sandbox.sh("usr/bin/drayage -v volume ls -q").run().ok().stderr_is("drayage: bundle volume ls -q\n");
    sandbox.sh("usr/bin/drayage volume create -d local --name=one two local").run().ok().stdout_is("one\ntwo\nlocal\n");
    sandbox.sh("usr/bin/drayage volume create -d nfs one").run().fails(2).one_error_line("drayage", &["driver nfs"]);
    sandbox.sh("usr/bin/drayage port web 80").run().fails(1).one_error_line("drayage", &["80 of web is not published"]);
    sandbox.sh("usr/bin/drayage volume prune -f").run().ok().stderr_has("-a removes the others");
    sandbox
        .sh("usr/bin/drayage ps --format {{.Names}}")
        .run()
        .fails(2)
        .one_error_line("drayage", &["jq", "docs/docker.md"]);
    sandbox.sh("usr/bin/drayage -v rmi -f a b").run().fails(1).stderr_has("drayage: pull remove a b\n");
    sandbox.sh("usr/bin/drayage -v start -ai web").run().fails(1).stderr_has("drayage: keep start -a web\n");
    sandbox.sh("usr/bin/drayage -v push a/b").run().fails(1).stderr_has("drayage: push a/b\n").stderr_has("a/b");
    sandbox.sh("usr/bin/drayage images -a").run().ok().stdout_has("NAME");
    sandbox.sh("usr/bin/drayage build .").run().fails(2).one_error_line("drayage", &["buildah"]);
}

fn demo(sandbox: &Sandbox) {
    let demo = source().join("tests/demo").display().to_string();
    sandbox.run(&[&demo, "--check"]).ok().stderr_is("");
    let without = ["setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin", &demo, "--check"];
    sandbox.run(&without).fails(1).one_error_line("demo", &["CAP_SYS_ADMIN"]);
}

fn words(sandbox: &Sandbox) {
    for (line, want) in [
        ("keep ps", ""),
        ("keep ls", ""),
        ("pull images", ""),
        ("bundle ls", ""),
        ("spawn ls -q", ""),
        ("run help", "Usage: run"),
        ("ns help", "Usage: ns"),
        ("ns help add", "Usage: ns add"),
        ("compose help up", "Usage: compose up"),
        ("keep help", "Usage: keep"),
        ("spawn help exec", "Usage: spawn exec"),
        ("bundle help nothing", "Usage: bundle"),
    ] {
        sandbox.sh(line).run().ok().stdout_has(want).stderr_is("");
    }
    for (line, code, said) in [
        ("keep exec web sh", 125, "it is spawn exec "),
        ("run ps", 125, "it is keep list "),
        ("unpack logs", 2, "it is keep logs "),
        ("pull exec", 2, "it is spawn exec "),
        ("ns rmi x", 2, "it is pull remove "),
        ("pull push", 2, "it is push "),
        ("bundle rm nosuch", 1, "nosuch"),
        ("keep lsit", 125, "did you mean `keep list`?"),
        ("bundle lits", 1, "did you mean `bundle list`?"),
        ("keep lgos web", 125, "did you mean `keep logs`?"),
        ("unpack dif web", 2, "did you mean `unpack diff`?"),
        ("keep stop nosuch", 1, "no container nosuch"),
    ] {
        let tool = line.split(' ').next().unwrap();
        sandbox.sh(line).run().fails(code).one_error_line(tool, &[said]);
    }
}
