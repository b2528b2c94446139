//! Compose files, YAML and files of variables, by the reader that the first line names: any bytes are a project or an error,
//! and a project is a script.

#![no_main]
#![allow(
    dead_code,
    unused_imports,
    unfulfilled_lint_expectations,
    reason = "the tool's own modules, of which this uses a part"
)]

#[path = "../src/named.rs"]
mod named;

#[path = "../../tools/compose/src"]
mod compose {
    pub(crate) mod context;
    pub(crate) mod dotenv;
    pub(crate) mod files;
    pub(crate) mod interpolate;
    pub(crate) mod merge;
    pub(crate) mod node;
    pub(crate) mod order;
    pub(crate) mod paths;
    pub(crate) mod project;
    pub(crate) mod request;
    pub(crate) mod script;
    pub(crate) mod service;
    pub(crate) mod tool;
}

use std::path::PathBuf;
use std::sync::OnceLock;

// The modules know each other by these paths.
use compose::{
    context, dotenv, files, interpolate, merge, node, order, paths, project, request, script, service, tool,
};
use interpolate::Variables;
use libfuzzer_sys::{Corpus, fuzz_target};
use project::ProjectRequest;
use request::ScriptRequest;

/// A file of the process's own: a project is read by its path.
fn place() -> &'static PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = std::env::temp_dir().join(format!("fuzz-compose-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("make a directory");
        place.join("compose.yaml")
    })
}

fn script(text: &[u8]) {
    // Another file that it leads to could be a device, which has no end.
    if [&b"include"[..], b"file", b"extends"].iter().any(|word| text.windows(word.len()).any(|part| part == *word)) {
        return;
    }
    std::fs::write(place(), text).expect("write a file");
    let request = ProjectRequest { files: std::slice::from_ref(place()), name: Some("fuzz"), ..Default::default() };
    let Ok(project) = project::read(&request) else { return };
    let request = ScriptRequest {
        build: false,
        no_build: false,
        force_recreate: true,
        no_deps: false,
        pull: None,
        services: Vec::new(),
    };
    let script = script::script(&project, &[], &request);
    assert!(script.starts_with("set -eu\n") && script.ends_with('\n') && !script.contains('\0'), "{script}");
}

/// JSON is YAML, if its texts have no escapes, which the two have different ones of. A number of more than 64 bits stays text
/// here, with all its digits.
fn yaml_is_json(text: &str) {
    let read = yaml::read(text);
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let plain = text
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'1'..=b'9' | b' ' | b'"' | b':' | b',' | b'{' | b'}' | b'[' | b']'));
    let fit = text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() < 20);
    if let (Ok(read), true) = (read, plain && fit) {
        assert_eq!(read, json, "{text}");
    }
}

fn variables(text: &str) {
    let outer = Variables::from([("OUT".to_owned(), "o".to_owned())]);
    let mut read = Variables::new();
    if dotenv::parse(text, &outer, &mut read).is_ok() {
        assert!(!read.contains_key(""), "{text:?}");
    }
}

fn expand(text: &str) {
    let meaning = |name: &str| (name.len() > 1).then_some("value");
    let expanded = interpolate::expand(text, &meaning);
    assert!(text.contains('$') || expanded.is_ok_and(|expanded| expanded == text));
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((reader, text)) = named::split(bytes) else { return Corpus::Reject };
    let words = String::from_utf8_lossy(text);
    match reader {
        "project" => script(text),
        "yaml" => yaml_is_json(&words),
        "variables" => variables(&words),
        "expand" => expand(&words),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});
