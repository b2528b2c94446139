//! The pages of the manual, as `make install` makes them: each verb has one, no lint finds anything, and the examples work.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Need, Sandbox, Test, programs_directory, source, test};

/// What is written of each tool, and of others.
const WRITTEN: [(&str, &str); 12] = [
    ("pull", include_str!("../../front/man/pull.md")),
    ("push", include_str!("../../front/man/push.md")),
    ("unpack", include_str!("../../front/man/unpack.md")),
    ("bundle", include_str!("../../front/man/bundle.md")),
    ("ns", include_str!("../../front/man/ns.md")),
    ("portmap", include_str!("../../front/man/portmap.md")),
    ("spawn", include_str!("../../front/man/spawn.md")),
    ("keep", include_str!("../../front/man/keep.md")),
    ("run", include_str!("../../front/man/run.md")),
    ("compose", include_str!("../../front/man/compose.md")),
    ("drayage", include_str!("../../front/man/drayage.md")),
    ("record", include_str!("../../front/man/record.md")),
];
const EXAMPLES: &[Need] = &[
    Need::Registry,
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("curl"),
    Need::Program("jq"),
    Need::Program("ps"),
];
/// The sections of a verb's page, in their order; those that some verbs have no use for are in brackets.
const SECTIONS: [&str; 11] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "(COMMANDS)",
    "(ARGUMENTS)",
    "OPTIONS",
    "EXIT STATUS",
    "ENVIRONMENT",
    "FILES",
    "EXAMPLES",
    "SEE ALSO",
];
/// Docker Hub and another registry are registries here. Functions for `<!-- before: … -->` make what a page begins with.
const BEFORE: &str = r#"
PATH=$SANDBOX/usr/bin:$PATH
mkdir -p "$HOME/.config/containers"
cat >"$HOME/.config/containers/registries.conf" <<CONF
[[registry]]
prefix = "docker.io/library"
location = "$REGISTRY"
[[registry]]
prefix = "registry.example.com"
location = "127.0.0.1:5001"
insecure = true
CONF
shop() {
    mkdir -p shop; cd shop
    echo '{"services": {"web": {"image": "nginx", "volumes": ["data:/data"]}}, "volumes": {"data": {}}}' >compose.yaml
}
a_bundle() {
    mkdir bundle; pull busybox | unpack --flat bundle/rootfs >/dev/null
    (cd bundle; spawn spec; jq '.process.terminal = false | .process.args = ["sleep", "1000"]' config.json >new; mv new config.json)
}
a_builder() {
    echo '{"services": {"own": {"build": "."}}}' >build.yaml
    # It takes buildah's options, and writes an image to the archive that --tag names.
    cat >builder <<'BUILDER'
while [ "$1" != --tag ] && [ "$1" != -t ]; do shift; done
pull --to "${2%%:*}:${2#*:}" busybox >/dev/null
BUILDER
    chmod +x builder; sed -i '1i #!/bin/sh' builder
}
"#;
const AFTER: &str = "keep list -q | xargs -r keep rm -f >/dev/null; bundle prune --all; bundle volume prune >/dev/null
    ns network list -q | grep -v drayage0 | xargs -r ns network rm >/dev/null 2>&1
    until [ -z \"$(nft list tables; ip -o link | grep -v ' lo:')\" ]; do :; done";

pub(crate) fn tests() -> Vec<Test> {
    let examples = WRITTEN.map(|(tool, text)| {
        test(&format!("the_examples_of_{tool}_work"), EXAMPLES, move |sandbox| examples(sandbox, text))
    });
    let others = [
        test("every_verb_of_every_tool_has_a_page_with_all_sections", &[], complete),
        test("no_page_has_a_lint", &[Need::Program("man"), Need::Program("mandoc")], lint),
        test("docker_s_words_lead_to_the_pages_of_their_verbs", &[], words),
    ];
    examples.into_iter().chain(others).collect()
}

/// The examples of a page, with what `<!-- before: … -->` and `<!-- after: … -->` say.
struct PageExamples {
    lines: String,
    before: Option<String>,
    after: String,
}

/// Returns the examples of all pages in a text.
fn examples_of(text: &str) -> Vec<PageExamples> {
    let of = |page: &str| {
        let name = page.lines().next().unwrap_or_default();
        let section = page.split("\n## Examples\n").nth(1).unwrap_or_else(|| panic!("{name} has no examples"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let lines: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        assert!(!lines.is_empty(), "{name} has no example");
        let given = |word: &str| section.split(&format!("<!-- {word}: ")).nth(1)?.split(" -->").next();
        PageExamples {
            lines: lines.join("\n"),
            before: given("before").map(str::to_owned),
            after: given("after").unwrap_or_default().to_owned(),
        }
    };
    text.split("\n# ").map(of).collect()
}

/// Executes the examples of pages, each in a directory of its own, behind what is given or with a running nginx `web`.
fn examples(sandbox: &Sandbox, text: &str) {
    let _registry = crate::push::registry(sandbox);
    crate::cli::install_front(sandbox);
    for (number, page) in examples_of(text).into_iter().enumerate().filter(|(_, page)| !is_checkpoint(page)) {
        let web = "run -d --name web -p 8080:80 nginx >/dev/null".to_owned();
        let before = page.before.unwrap_or(if page.lines.contains("web") { web } else { String::new() });
        let place = format!("pages/{number}");
        sandbox.write(format!("{place}/.keep"), "");
        let script = format!("set -eu; cd {place}\n{BEFORE}{before}\nset -x\n{}\n{}", page.lines, page.after);
        sandbox.sh(&script).limit(Duration::from_secs(60)).run().ok();
        sandbox.sh(AFTER).limit(Duration::from_secs(30)).run().ok();
    }
}

/// What needs criu, and a kernel that lets it work.
fn is_checkpoint(page: &PageExamples) -> bool {
    page.lines.contains("--image-path")
}

/// Executes the examples of checkpoints, with the bundle `made` of the sandbox.
pub(crate) fn checkpoints(sandbox: &Sandbox) {
    let pages = examples_of(include_str!("../../front/man/spawn.md"));
    let pages: Vec<PageExamples> = pages.into_iter().filter(is_checkpoint).collect();
    assert_eq!(pages.len(), 2);
    for page in pages {
        let before = format!("a_bundle() {{ rm -rf images bundle; cp -a made bundle; }}\n{}", page.before.unwrap());
        sandbox.sh(&format!("set -eu\n{before}\nset -x\n{}\nspawn delete -f job", page.lines)).run().ok();
    }
}

/// Makes the pages, and returns their directory.
fn pages(sandbox: &Sandbox) -> PathBuf {
    let out = sandbox.outside("pages");
    let made = Command::new(source().join("front/manual")).arg(programs_directory()).arg(&out).output().unwrap();
    assert!(made.status.success() && made.stderr.is_empty(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

/// Returns every tool and verb, with what --help says of it.
fn verbs(sandbox: &Sandbox) -> Vec<(String, String)> {
    let tools = ["pull", "push", "unpack", "bundle", "ns", "portmap", "spawn", "keep", "run", "compose"];
    let (mut found, mut pending) = (Vec::new(), tools.map(str::to_owned).to_vec());
    while let Some(verb) = pending.pop() {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = sandbox.run(&words).ok().stdout;
        let below = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        pending
            .extend(below.filter_map(|line| Some(format!("{verb} {}", line.strip_prefix("  ")?.split(' ').next()?))));
        found.push((verb, help));
    }
    assert!(found.len() > 90, "{} verbs", found.len());
    found
}

fn complete(sandbox: &Sandbox) {
    let out = pages(sandbox);
    let verbs = verbs(sandbox);
    for (verb, help) in &verbs {
        let file = out.join(format!("man1/drayage-{}.1", verb.replace(' ', "-")));
        let page = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{verb}: {error}"));
        let mut sections = page.split("\n.SH ").skip(1).map(|section| section.split_once('\n').unwrap()).peekable();
        for want in SECTIONS {
            let is_optional = want.starts_with('(');
            let want = want.trim_matches(['(', ')']);
            match sections.next_if(|(title, _)| title.trim_matches('"') == want) {
                Some((_, text)) => assert!(!text.trim().is_empty(), "{verb}: {want} is empty"),
                None => assert!(is_optional, "{verb}: no section {want} at {:?}", sections.peek()),
            }
        }
        assert_eq!(sections.next(), None, "{verb}");
        let plain = page.replace("\\fB", "").replace("\\fR", "").replace("\\fI", "").replace("\\-", "-");
        let options = help.lines().filter_map(|line| {
            let tag = line.trim_start().strip_prefix('-').filter(|_| line.starts_with("  "))?;
            Some(format!("-{}", tag.split(['<', '[', ' ', ',']).next()?))
        });
        for option in options.filter(|option| option.len() > 1) {
            assert!(plain.lines().any(|line| line.starts_with(&option)), "{verb}: no {option}");
        }
    }
    // What is written belongs to a verb.
    let known: BTreeSet<&str> = verbs.iter().map(|(verb, _)| verb.as_str()).collect();
    for (tool, text) in &WRITTEN[..10] {
        for page in text.lines().filter_map(|line| line.strip_prefix("# ")) {
            assert!(known.contains(page), "{tool}.md has a page of {page}, which is no verb");
        }
    }
    for (section, name) in [(5, "drayage-record"), (7, "drayage")] {
        let page = fs::read_to_string(out.join(format!("man{section}/{name}.{section}"))).unwrap();
        for want in ["NAME", "DESCRIPTION", "FILES", "EXAMPLES", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {want}\n")), "{name}: no section {want}");
        }
    }
    references(&out);
}

/// Every page of ours that a page names exists.
fn references(out: &Path) {
    let mut seen = 0;
    for file in files(out) {
        let page = fs::read_to_string(&file).unwrap().replace("\\-", "-");
        for (name, rest) in page.split("\\fB").filter_map(|part| part.split_once("\\fR(")) {
            let section = rest.split(')').next().unwrap_or_default();
            if name.starts_with("drayage") {
                let named = out.join(format!("man{section}/{name}.{section}"));
                assert!(named.exists(), "{} names {name}({section})", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

fn files(out: &Path) -> Vec<PathBuf> {
    let list = |directory: &str| fs::read_dir(out.join(directory)).unwrap().map(|entry| entry.unwrap().path());
    ["man1", "man5", "man7"].into_iter().flat_map(list).collect()
}

fn lint(sandbox: &Sandbox) {
    let out = pages(sandbox);
    let whole: Vec<PathBuf> =
        files(&out).into_iter().filter(|file| !fs::read_to_string(file).unwrap().starts_with(".so ")).collect();
    assert!(whole.len() > 95, "{} pages", whole.len());
    for file in whole {
        let said = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&file)
            .envs([("LC_ALL", "C.UTF-8"), ("MANWIDTH", "80")])
            .output()
            .unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = Command::new("mandoc").args(["-T", "lint"]).arg(&file).output().unwrap();
        assert!(said.status.success() && said.stdout.is_empty(), "{}", String::from_utf8_lossy(&said.stdout));
    }
}

fn words(sandbox: &Sandbox) {
    crate::cli::install_front(sandbox);
    let out = pages(sandbox);
    let mut seen = 0;
    for file in files(&out) {
        let text = fs::read_to_string(&file).unwrap();
        let Some(target) = text.strip_prefix(".so ") else { continue };
        assert!(out.join(target.trim()).exists(), "{text}");
        let word = file.file_stem().unwrap().to_str().unwrap().strip_prefix("drayage-").unwrap().to_owned();
        let help = sandbox.sh(&format!("usr/bin/drayage {word} --help")).run().ok().stdout;
        let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap();
        let verb = usage.split(" [").next().unwrap().split(" <").next().unwrap();
        assert_eq!(target.trim(), format!("man1/drayage-{}.1", verb.replace(' ', "-")), "drayage {word}");
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
}
