//! The book that docs/ is: its pages' blocks, executed as they stand there; its pictures; its links.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Need, Outcome, Sandbox, Test, source, test};

const NEEDS: &[Need] = &[
    Need::Registry,
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("curl"),
    Need::Program("jq"),
    Need::Program("python3"),
    Need::Program("runc"),
    Need::Program("skopeo"),
    Need::Program("strace"),
    Need::Program("setpriv"),
    Need::Program("systemd-socket-activate"),
    Need::File("/usr/lib/cni/bridge"),
];
/// On cgroup v2, as most machines are, so that the pictures are the same on all.
const PICTURE_NEEDS: &[Need] = &[
    Need::Registry,
    Need::UnifiedCgroups,
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("curl"),
    Need::Program("python3"),
];

/// The directories whose pages are executed from their first block to their last.
const EXECUTED: [&str; 3] = ["levels", "tasks", "coming-from"];

pub(crate) fn tests() -> Vec<Test> {
    let pages = documents().into_iter().filter(|page| EXECUTED.iter().any(|directory| page.starts_with(directory)));
    let pages = pages.map(|page| {
        let name = page.with_extension("").display().to_string();
        let name = name.replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        test(&format!("the_blocks_of_{name}_work"), NEEDS, move |sandbox| perform(sandbox, &page))
    });
    let others = [
        test("the_pictures_are_what_a_run_shows", PICTURE_NEEDS, pictures),
        test("the_benchmarks_are_what_the_ledger_makes", &[Need::Program("python3")], ledger),
        test("it_builds_without_a_warning_or_a_dead_link", &[Need::Program("mdbook")], built),
        test("every_page_is_in_the_summary", &[], summary),
        test("links_of_documents_lead_somewhere", &[], links),
        test("nothing_on_an_executed_page_is_left_out", &[], marked),
    ];
    pages.chain(others).collect()
}

/// Returns the Markdown files of docs/, relative to it.
fn documents() -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![source().join("docs")]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(source().join("docs")).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(page: &Path) -> String {
    fs::read_to_string(source().join("docs").join(page)).unwrap()
}

/// Lets names without a registry, as `nginx`, mean the test images.
pub(crate) fn name_images(sandbox: &Sandbox) {
    let mirror = "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"127.0.0.1:5000\"\ninsecure = true\n";
    sandbox.write("home/.config/containers/registries.conf", mirror);
}

/// A fenced block: its language, its lines, and the last heading of the second level above it.
pub(crate) struct Block {
    pub(crate) heading: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let (mut heading, mut found, mut lines) = ("", Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        } else if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            found.push(Block { heading: heading.to_owned(), language: language.to_owned(), text });
        }
    }
    found
}

/// Executes the page's `sh` blocks in one shell, and looks for each `text` block in the output of the one before it.
fn perform(sandbox: &Sandbox, page: &Path) {
    let blocks = blocks(&read(page));
    let mut script = String::new();
    for block in blocks.iter().filter(|block| block.language == "sh") {
        writeln!(script, "{}\nprintf '\\036'", block.text).unwrap();
    }
    let outcome = at_real_places(sandbox, &script);
    let mut outputs = outcome.stdout.split('\u{1e}');
    let mut output = "";
    for block in blocks {
        match block.language.as_str() {
            "sh" => output = outputs.next().unwrap(),
            "text" => assert_shown(&block.text, output, page),
            _ => {}
        }
    }
}

/// Executes a script where images and containers have the places that the book gives them.
fn at_real_places(sandbox: &Sandbox, script: &str) -> Outcome {
    name_images(sandbox);
    let script = format!("mkdir -p lib; mount --bind lib /var/lib\n{script}\numount -l /var/lib");
    let shell = sandbox.cmd(&["sh", "-exuc", &script]).env_remove("DRAYAGE_ROOT").limit(Duration::from_secs(150));
    let outcome = shell.run();
    if std::env::var_os("BOOK_SHOW").is_some() {
        eprintln!("{outcome}");
    }
    outcome.ok()
}

/// Draws them again. With `DRAW=1` the new ones take the old ones' places.
fn pictures(sandbox: &Sandbox) {
    let draw = source().join("docs/draw-levels");
    at_real_places(sandbox, &format!("mkdir drawn; python3 {} drawn", draw.display()));
    let pages = documents().into_iter().filter(|page| page.starts_with("levels"));
    for name in pages.map(|page| page.with_extension("svg")) {
        let drawn = sandbox.read(Path::new("drawn").join(name.file_name().unwrap()));
        if std::env::var_os("DRAW").is_some() {
            fs::write(source().join("docs").join(&name), &drawn).unwrap();
        }
        let kept = fs::read_to_string(source().join("docs").join(&name)).unwrap_or_default();
        assert!(labels(&drawn).len() > 5, "{}: {drawn}", name.display());
        assert_eq!(labels(&kept), labels(&drawn), "{}: DRAW=1 and this test draw it anew", name.display());
        assert!(kept == drawn, "{}: its boxes stand elsewhere: DRAW=1 and this test draw it anew", name.display());
        let page = read(&name.with_extension("md"));
        assert!(
            page.contains(&format!("]({})", name.file_name().unwrap().to_str().unwrap())),
            "{} is not shown",
            name.display()
        );
    }
}

/// Draws and writes everything again that docs/bench/results.json gives, and looks for each section of bench/run in it.
fn ledger(sandbox: &Sandbox) {
    let (script, results) = (source().join("bench/ledger"), source().join("docs/bench/results.json"));
    let made = sandbox.path("made");
    let (script, results, into) = (script.to_str().unwrap(), results.to_str().unwrap(), made.to_str().unwrap());
    sandbox.run(&["python3", script, "--from", results, "--into", into]).ok();
    let names = |root: &Path| -> BTreeSet<PathBuf> {
        let files = fs::read_dir(root.join("docs/bench")).unwrap();
        let files = files.map(|entry| entry.unwrap().path().strip_prefix(root).unwrap().to_owned());
        files.chain([PathBuf::from("README.md")]).collect()
    };
    assert_eq!(names(source()), names(&made));
    for name in names(&made) {
        let (kept, made) =
            (fs::read_to_string(source().join(&name)).unwrap(), fs::read_to_string(made.join(&name)).unwrap());
        assert!(kept == made, "{}: bench/ledger --from docs/bench/results.json writes it anew", name.display());
    }

    let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(results).unwrap()).unwrap();
    let rows = value["rows"].as_array().unwrap();
    let measured: BTreeSet<&str> = rows.iter().filter_map(|row| row["section"].as_str()).collect();
    let script = fs::read_to_string(source().join("bench/run")).unwrap();
    let sections = script.lines().find_map(|line| line.strip_prefix("[ $# -gt 0 ] || set -- ")).unwrap();
    assert_eq!(measured, sections.split(' ').collect());
    let page = read(Path::new("bench/README.md"));
    for picture in names(&made).iter().filter(|name| name.extension().is_some_and(|extension| extension == "svg")) {
        let name = picture.file_name().unwrap().to_str().unwrap();
        assert!(page.contains(&format!("]({name})")), "{name} is not shown");
    }
    let front = fs::read_to_string(source().join("README.md")).unwrap();
    assert!(front.contains("Measured on ") && front.contains(" of the time of crun"), "README names no ratio");
}

/// Returns the texts of a picture.
fn labels(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text ").skip(1).filter_map(|text| text.split_once('>')?.1.split_once("</text>"));
    texts.map(|(label, _)| label).collect()
}

/// Asserts that the lines of a document stand in an output, in their order. `…` is any text.
fn assert_shown(lines: &str, output: &str, page: &Path) {
    let mut rest = output.lines();
    for line in lines.lines().filter(|line| line.trim() != "…") {
        let found = rest.any(|shown| is_like(&squeezed(line), &squeezed(shown)));
        assert!(found, "{}: no {line:?} in\n{output}", page.display());
    }
}

/// Columns are as wide as their widest word.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('…') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(tail, &text[at..]))
        }),
    }
}

/// Whoever reads a page takes every block for one that works.
fn marked(_: &Sandbox) {
    let mut count = 0;
    for page in documents().iter().filter(|page| EXECUTED.iter().any(|directory| page.starts_with(directory))) {
        let text = read(page);
        let mut outside = text.split("```").step_by(2).flat_map(str::lines);
        assert!(!outside.any(|line| line.starts_with("    ")), "{}: an indented block", page.display());
        for block in blocks(&text) {
            let known = ["sh", "text", "ini", "toml", "json"].contains(&block.language.as_str());
            assert!(known, "{}: a block of {:?}", page.display(), block.language);
            count += usize::from(block.language == "sh");
        }
    }
    assert!(count > 60, "{count} blocks");
    assert!(is_like("a … c…", "a b b c") && !is_like("a … c", "a b c d") && !is_like("a", "b"));
}

fn summary(_: &Sandbox) {
    let summary = read(Path::new("SUMMARY.md"));
    let listed: BTreeSet<PathBuf> = targets(&summary).map(PathBuf::from).collect();
    let there: BTreeSet<PathBuf> = documents().into_iter().filter(|page| page != Path::new("SUMMARY.md")).collect();
    assert_eq!(listed, there);
}

/// Returns what the links of a Markdown text lead to.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn links(_: &Sandbox) {
    let beside = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md"].map(PathBuf::from);
    let own = documents().into_iter().map(|page| Path::new("docs").join(page));
    let mut seen = 0;
    for document in own.chain(beside) {
        let document = source().join(document);
        let text = fs::read_to_string(&document).unwrap();
        for target in targets(&text).filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(file.exists(), "{} links to {target}", document.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&file).unwrap();
                let has = headings.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line) == anchor);
                assert!(has, "{} links to {target}", document.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} links");
}

/// Returns the anchor that forges and mdBook give a heading.
fn anchor_of(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>().replace(' ', "-")
}

fn built(sandbox: &Sandbox) {
    let (docs, book) = (source().join("docs").display().to_string(), sandbox.at("book"));
    let outcome = sandbox.run(&["mdbook", "build", &docs, "--dest-dir", &book]).ok();
    for complaint in ["WARN", "ERROR"] {
        assert!(!outcome.stderr.contains(complaint), "{outcome}");
    }
    let pages = documents().len() - 1;
    let mut seen = 0;
    for page in documents().iter().filter(|page| *page != Path::new("SUMMARY.md")) {
        let page = sandbox.path("book").join(html(page));
        let text = fs::read_to_string(&page).unwrap();
        let main = text.split("<main>").nth(1).and_then(|text| text.split("</main>").next()).unwrap();
        for target in ["href=\"", "src=\""].iter().flat_map(|start| main.split(start).skip(1)) {
            let target = target.split('"').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let has = fs::read(&file).is_ok_and(|bytes| {
                anchor.is_empty() || String::from_utf8_lossy(&bytes).contains(&format!("id=\"{anchor}\""))
            });
            assert!(has, "{} links to {target}", page.display());
            seen += 1;
        }
        // A page that is opened as a file may execute a script beside it, but fetch nothing.
        assert!(text.contains("searchindex.js") && !text.contains("searchindex.json"), "{}", page.display());
    }
    let index = fs::read_to_string(sandbox.path("book/searchindex.js")).unwrap();
    assert!(index.starts_with("window.search") && index.contains("namespace"));
    assert!(seen > pages, "{seen} links on {pages} pages");
}

/// Returns the file that mdBook makes of a page.
fn html(page: &Path) -> PathBuf {
    if page.ends_with("README.md") { page.with_file_name("index.html") } else { page.with_extension("html") }
}
