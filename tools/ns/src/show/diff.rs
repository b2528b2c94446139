//! `ns diff`: which namespaces two processes share, and what else tells them apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::text;

/// What is each process's own, whatever else they share.
const OWN: [&str; 7] = ["pid", "ppid", "uid", "command", "container", "namespaces", "processes"];

/// Compares two processes as [`super::process`] describes them.
pub(super) fn compare(a: &Value, b: &Value) -> Value {
    let inodes = |side: &Value| side["namespaces"].as_object().cloned().unwrap_or_default();
    let (ours, theirs) = (inodes(a), inodes(b));
    let namespace = |(kind, inode): (&String, &Value)| {
        let other = theirs.get(kind).cloned().unwrap_or_default();
        json!({"type": kind, "a": inode, "b": other, "shared": *inode == other})
    };
    let namespaces: Vec<Value> = ours.iter().map(namespace).collect();
    let who = |side: &Value| -> Map<String, Value> {
        ["pid", "container", "command"].iter().map(|name| ((*name).to_owned(), side[*name].clone())).collect()
    };
    json!({"a": who(a), "b": who(b), "namespaces": namespaces, "differences": differences(a, b)})
}

/// Returns, for each part that differs, the lines that only one of the two has.
fn differences(a: &Value, b: &Value) -> Map<String, Value> {
    let (ours, theirs) = (parts(a), parts(b));
    let mut found = Map::new();
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let lines = |parts: &BTreeMap<String, Vec<String>>| parts.get(name).cloned().unwrap_or_default();
        let (left, right) = (lines(&ours), lines(&theirs));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        let (only_a, only_b) = (only(&left, &right), only(&right, &left));
        if !(only_a.is_empty() && only_b.is_empty()) {
            found.insert(name.clone(), json!({"a": only_a, "b": only_b}));
        }
    }
    found
}

/// Takes a description apart: the members' names with dots between, and what each holds as lines.
fn parts(shown: &Value) -> BTreeMap<String, Vec<String>> {
    fn walk(name: &str, value: &Value, parts: &mut BTreeMap<String, Vec<String>>) {
        match value {
            Value::Object(members) => {
                for (member, value) in members {
                    walk(&format!("{name}.{member}"), value, parts);
                }
            }
            Value::Array(items) => {
                parts.insert(name.to_owned(), items.iter().map(text::line).collect());
            }
            value => {
                parts.insert(name.to_owned(), vec![text::line(value)]);
            }
        }
    }
    let mut found = BTreeMap::new();
    for (name, value) in shown.as_object().into_iter().flatten().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        walk(name, value, &mut found);
    }
    found
}

/// Writes a comparison for people: the namespaces one below the other, then lines as `diff(1)` marks them.
pub(super) fn write(compared: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for side in ["a", "b"] {
        let _written = writeln!(out, "{side}: {}", text::line(&compared[side]));
    }
    for namespace in compared["namespaces"].as_array().into_iter().flatten() {
        let kind = namespace["type"].as_str().unwrap_or_default();
        let _written = if namespace["shared"] == true {
            writeln!(out, "{kind:<6}  {}  shared", namespace["a"])
        } else {
            writeln!(out, "{kind:<6}  {}  {}", namespace["a"], namespace["b"])
        };
    }
    for (name, sides) in compared["differences"].as_object().into_iter().flatten() {
        let _written = writeln!(out, "{name}:");
        for (mark, side) in [('-', "a"), ('+', "b")] {
            for line in sides[side].as_array().into_iter().flatten() {
                let _written = writeln!(out, "{mark} {}", text::line(line));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let a = json!({"pid": 1, "namespaces": {"net": 5, "pid": 6}, "user": {"uid_map": ["0 0 1"]},
            "mounts": [{"target": "/"}, {"target": "/proc"}], "seccomp": "disabled"});
        let b = json!({"pid": 2, "namespaces": {"net": 5, "pid": 7}, "user": {"uid_map": ["0 0 1"]},
            "mounts": [{"target": "/proc"}, {"target": "/x\ny"}], "seccomp": "filter"});
        let compared = compare(&a, &b);
        assert_eq!(
            write(&compared),
            "a: pid 1\nb: pid 2\nnet     5  shared\npid     6  7\nmounts:\n- target /\n+ target /x\\ny\n\
             seccomp:\n- disabled\n+ filter\n"
        );
        assert_eq!(compared["differences"].as_object().unwrap().len(), 2);
        assert!(compare(&a, &a)["differences"].as_object().unwrap().is_empty());
    }
}
