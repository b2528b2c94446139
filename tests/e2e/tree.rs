//! The invariants of docs/architecture.md that a look at the source tree can hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Need, Sandbox, Test, source, test};

const TOOLS: [&str; 10] = ["pull", "push", "unpack", "bundle", "spawn", "keep", "ns", "portmap", "run", "compose"];
/// A crate that makes threads and wakes tasks has no place in any tool.
const ASYNC_RUNTIMES: [&str; 4] = ["tokio", "async-std", "smol", "async-executor"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("no_tool_depends_on_a_tool_or_an_async_runtime", &[], dependencies),
        test("unsafe_occurs_in_sys_only", &[], unsafe_code),
        test("clap_occurs_at_the_edge_only", &[], clap),
        test("nothing_below_the_edge_knows_the_options", &[], options),
        test("only_layout_digests_blobs", &[], digests),
        test("paths_of_ours_are_joined_in_one_crate", &[], paths),
        test("no_source_file_is_over_its_budget", &[], file_length),
        test("no_file_imports_what_imports_it", &[], circles),
        test("no_two_types_have_one_name", &[], type_names),
        test("the_tests_that_documents_name_exist", &[], named_tests),
        test("fuzz_targets_include_modules_and_crates_that_exist", &[], fuzz_targets),
        test("each_weakening_applies_and_names_its_tests", &[], weakenings),
        test("the_picture_of_the_pipe_is_what_its_script_draws", &[Need::Program("python3")], picture),
    ]
}

fn picture(_: &Sandbox) {
    let drawn = Command::new(source().join("docs/draw-pipe")).output().unwrap();
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    assert_eq!(String::from_utf8(drawn.stdout).unwrap(), fs::read_to_string(source().join("docs/pipe.svg")).unwrap());
}

fn dependencies(_: &Sandbox) {
    for tool in TOOLS {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tree = Command::new(cargo)
            .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", tool])
            .current_dir(source())
            .output()
            .unwrap();
        assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
        let text = String::from_utf8(tree.stdout).unwrap();
        let packages: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let unwanted = TOOLS.iter().filter(|other| **other != tool).chain(&ASYNC_RUNTIMES);
        for unwanted in unwanted {
            assert!(!packages.contains(unwanted), "{tool} depends on {unwanted}");
        }
    }
}

fn unsafe_code(_: &Sandbox) {
    for (path, text) in sources() {
        let is_crate_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if path.starts_with("crates/sys") {
            continue;
        }
        assert!(
            !is_crate_root || text.contains("#![forbid(unsafe_code)]"),
            "{} does not forbid unsafe",
            path.display()
        );
        assert!(!text.contains("unsafe {"), "{} has an unsafe block", path.display());
    }
}

fn clap(_: &Sandbox) {
    for (path, code) in below_the_edge() {
        assert!(!code.contains("use clap"), "{} imports clap", path.display());
    }
}

/// What is asked for is in `request.rs`.
fn options(_: &Sandbox) {
    for (path, code) in below_the_edge() {
        let knows = code.contains("crate::options") || code.contains("super::options");
        assert!(!knows, "{} imports what clap reads", path.display());
    }
}

/// Returns the code of the tools, but for `main.rs`, `options.rs` and tests.
fn below_the_edge() -> Vec<(PathBuf, String)> {
    let is_edge = |path: &Path| {
        let is_options = |part: &OsStr| part == "options" || part == "options.rs";
        path.ends_with("main.rs") || path.ends_with("tests.rs") || path.iter().any(is_options)
    };
    let below = |(path, text): (PathBuf, String)| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        (path.starts_with("tools") && !is_edge(&path)).then_some((path, code))
    };
    let found: Vec<_> = sources().into_iter().filter_map(below).collect();
    assert!(found.len() > 100, "{} files", found.len());
    found
}

fn digests(_: &Sandbox) {
    for (path, text) in sources() {
        if !path.starts_with("crates/layout") {
            assert!(!text.contains("use sha2"), "{} hashes by itself", path.display());
        }
    }
}

fn file_length(_: &Sandbox) {
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(lines <= 400, "{} has {lines} lines of code", path.display());
    }
}

fn circles(_: &Sandbox) {
    let mut imports: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    let files: BTreeMap<PathBuf, String> = sources().into_iter().collect();
    for (path, text) in &files {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let root = path.ancestors().find(|directory| directory.ends_with("src")).unwrap();
        // `use crate::a::{b::C, D}` is a's file and b's, where there are such; `super` is the directory's.
        let parent = path.parent().unwrap().strip_prefix(root).unwrap().to_str().unwrap().replace('/', "::");
        let lines: Vec<&str> = code.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        let uses = lines.join(" ").replace("use super::", &format!("use crate::{parent}::"));
        let trees = uses.split("use crate::").skip(1).filter_map(|rest| rest.split(';').next());
        let file = |name: String| {
            let parts: Vec<&str> = name.split("::").collect();
            (1..=parts.len())
                .rev()
                .map(|count| root.join(parts[..count].join("/")).with_extension("rs"))
                .find(|file| files.contains_key(file))
        };
        imports.insert(path.clone(), trees.flat_map(|tree| expand(&tree.replace(' ', ""))).filter_map(file).collect());
    }
    let in_circles: Vec<&PathBuf> = imports.keys().filter(|path| reached(&imports, path).contains(path)).collect();
    assert!(in_circles.is_empty(), "these import, by way of others, themselves: {in_circles:?}");
}

/// Structs and enums that leave their file. Exempt are the words of others: a tool's verbs and options, which its users
/// know; the runtime specification's; and the record's members. A crate's `Error` is written with the crate before it.
fn type_names(_: &Sandbox) {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in sources() {
        let tool = path.components().nth(1).unwrap();
        let name = path.strip_prefix("tools").ok().map(|path| path.iter().skip(2).collect::<PathBuf>());
        let is_of_others = name.is_some_and(|name| {
            name.starts_with("options")
                || name == Path::new("options.rs")
                || tool.as_os_str() == "spawn" && (name.starts_with("config") || name == Path::new("config.rs"))
        });
        if is_of_others || path == Path::new("crates/record/src/parts.rs") {
            continue;
        }
        let types = text.lines().filter_map(|line| {
            let line = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) "))?;
            let name = line.strip_prefix("struct ").or(line.strip_prefix("enum "))?;
            name.split(|c: char| !c.is_ascii_alphanumeric()).next()
        });
        for name in types.filter(|name| *name != "Error") {
            places.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    assert!(places.len() > 300, "{} types", places.len());
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "these are several things: {places:#?}");
}

/// Returns what a file imports, directly or by way of others.
fn reached<'a>(imports: &'a BTreeMap<PathBuf, BTreeSet<PathBuf>>, from: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
    let (mut found, mut pending) = (BTreeSet::new(), vec![from]);
    while let Some(path) = pending.pop() {
        pending.extend(imports[path].iter().filter(|next| *next != path && found.insert(*next)));
    }
    found
}

/// Returns the paths that a `use` has in braces.
fn expand(tree: &str) -> Vec<String> {
    let Some((head, inner)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (mut depth, inner) = (0, inner.strip_suffix('}').unwrap());
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).flat_map(expand).map(|path| format!("{head}{path}")).collect()
}

fn named_tests(_: &Sandbox) {
    let document = fs::read_to_string(source().join("docs/security.md")).unwrap();
    let guide = fs::read_to_string(source().join("CONTRIBUTING.md")).unwrap();
    let named = document.split('`').skip(1).step_by(2).chain(guide.split(' ')).filter_map(|code| code.split_once("::"));
    let named: Vec<(&str, &str)> =
        named.filter(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    assert!(named.len() > 21, "{named:?}");
    for (area, name) in named {
        assert!(is_test(area, name) || name == "name", "there is no test {area}::{name}");
    }
}

/// Nothing here builds them, as libFuzzer needs a compiler for C++.
fn fuzz_targets(_: &Sandbox) {
    let read = |path: &Path| fs::read_to_string(source().join(path)).unwrap();
    let (known, run) = (read(Path::new("fuzz/Cargo.toml")), read(Path::new("fuzz/run")));
    let mut sources = sources();
    sources.retain(|(path, _)| !path.ends_with("tests.rs"));
    let mut included = 0;
    for target in fs::read_dir(source().join("fuzz/targets")).unwrap() {
        let target = target.unwrap().path();
        let name = target.file_stem().unwrap().to_str().unwrap();
        let is_run = run.split([' ', '-', '}']).any(|word| word == name);
        assert!(is_run && known.contains(&format!("\nname = \"{name}\"")), "{name} is not built, or not run");
        for module in included_by(&read(&target)) {
            included += 1;
            let file = module.with_extension("rs");
            let parts = sources.iter().filter(|(path, _)| *path == file || path.starts_with(&module));
            let text: Vec<&str> =
                parts.map(|(_, text)| text.split("#[cfg(test)]").next().unwrap_or_default()).collect();
            assert!(!text.is_empty(), "{name} includes {}", module.display());
            let tool = read(&module.iter().take(2).collect::<PathBuf>().join("Cargo.toml"));
            for crate_name in tool.lines().filter_map(|line| line.strip_suffix(".workspace = true")) {
                let is_used = text.concat().contains(&format!("{}::", crate_name.replace('-', "_")));
                let is_known = known.contains(&format!("\n{crate_name} = "));
                assert!(!is_used || is_known, "fuzz lacks {crate_name} of {}", module.display());
            }
        }
    }
    assert!(included > 50, "{included}");
}

/// Returns the modules of tools that a fuzz target includes: paths in this tree, without their ending.
fn included_by(target: &str) -> Vec<PathBuf> {
    let (mut directory, mut modules) = (PathBuf::new(), Vec::new());
    for line in target.lines() {
        if let Some(path) = line.strip_prefix("#[path = \"../../").and_then(|line| line.strip_suffix("\"]")) {
            directory = path.into();
            modules.extend(path.strip_suffix(".rs").map(PathBuf::from));
        }
        let inner = line.trim_start().strip_prefix("pub(crate) mod ");
        modules.extend(inner.and_then(|name| Some(directory.join(name.strip_suffix(';')?))));
        // One module within another, of which not all is included.
        if let Some(name) = inner.and_then(|name| name.strip_suffix(" {")) {
            directory.push(name);
        } else if line == "    }" {
            directory.pop();
        }
    }
    modules
}

fn is_test(area: &str, name: &str) -> bool {
    let in_area = |path: &Path| path.starts_with(area) || path == Path::new(area).with_extension("rs");
    // Some are made for each of several cases: `test(&format!("begins_so_{}", …`.
    let is_made = |text: &str| {
        let mut begins = text.split("test(&format!(\"").skip(1).filter_map(|rest| Some(rest.split_once("{}")?.0));
        begins.any(|begin| name.starts_with(begin))
    };
    tests_of().any(|(path, text)| in_area(&path) && (text.contains(&format!("\"{name}\"")) || is_made(&text)))
}

/// What stands below a root or belongs to the machine, as it would be joined, and who else has something of that name.
fn paths(_: &Sandbox) {
    let ours =
        ["containers", "claims", "spawn", "layers", "portmap", "runtimes", "oci", "cni", "outward", "netns", "run"];
    let joined = ours.iter().map(|name| format!(".join(\"{name}\")"));
    let named = ["\"/run/netns", "\"/run/drayage", "\"/var/lib/drayage", "\"state.json\""];
    let forbidden: Vec<String> = joined.chain(named.map(str::to_owned)).collect();
    // Registries' configuration has a directory of that name.
    let others = [("crates/registry/src/registries.rs", ".join(\"containers\")")];
    for (path, text) in sources() {
        if path.starts_with("crates/container") || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let found = forbidden.iter().find(|word| line.contains(*word));
            let known = found.is_some_and(|word| others.contains(&(path.to_str().unwrap(), word)));
            assert!(found.is_none() || known, "{}: {line}: crates/container joins paths of ours", path.display());
        }
    }
}

/// What `tests/weaken` applies: where the sources have changed, so must the patches.
fn weakenings(_: &Sandbox) {
    let patches: Vec<PathBuf> =
        fs::read_dir(source().join("tests/weakened")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(patches.len() > 20, "{patches:?}");
    for patch in patches {
        let text = fs::read_to_string(&patch).unwrap();
        let named: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Fails: ")).collect();
        assert!(!named.is_empty(), "{} names no test", patch.display());
        for test in named {
            assert!(test.split_once("::").is_some_and(|(area, name)| is_test(area, name)), "there is no test {test}");
        }
        for file in text.split("\n--- a/").skip(1) {
            let (path, hunks) = file.split_once('\n').unwrap();
            let code = fs::read_to_string(source().join(path)).unwrap();
            for hunk in hunks.split("\n@@ ").skip(1) {
                let old: String = hunk
                    .lines()
                    .skip(1)
                    .filter(|line| !line.starts_with('+'))
                    .fold(String::new(), |old, line| old + line.get(1..).unwrap_or_default() + "\n");
                assert!(code.contains(&old), "{} does not apply to {path}: {old}", patch.display());
            }
        }
    }
}

/// Returns the end-to-end tests' sources, by their path below `tests/e2e`.
fn tests_of() -> impl Iterator<Item = (PathBuf, String)> {
    let root = source().join("tests/e2e");
    let list = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let files = list(&root).into_iter().flat_map(move |path| if path.is_dir() { list(&path) } else { vec![path] });
    let root = source().join("tests/e2e");
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).map(move |path| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&root).unwrap().to_owned(), text)
    })
}

/// Returns every source file of the tools and crates, by its path in the tree.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = ["tools", "crates"].map(PathBuf::from).to_vec();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(source().join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if source().join(&path).is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && in_src(&path) {
                found.push((path.clone(), fs::read_to_string(source().join(&path)).unwrap()));
            }
        }
    }
    assert!(found.len() > TOOLS.len(), "the sources are where they are looked for");
    found
}

fn in_src(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "src")
}
