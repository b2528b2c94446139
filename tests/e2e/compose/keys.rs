//! No key of a file is dropped without a word: a small corpus of files that is generated, the same in each run.

use serde_json::Value;

use crate::support::{Outcome, Sandbox};

/// Mappings whose keys are names that the file gives.
const NAMES: [&str; 7] = [
    "/services",
    "/networks",
    "/volumes",
    "/configs",
    "/secrets",
    "/services/web/networks",
    "/services/web/depends_on",
];
/// How many files have several keys more.
const MIXED: u64 = 60;

/// A key that a file may have at a place.
#[derive(Debug)]
struct Key {
    place: String,
    name: String,
    value: Value,
}

impl Key {
    fn add(&self, file: &mut Value) {
        file.pointer_mut(self.place.trim_end_matches('/')).unwrap()[&self.name] = self.value.clone();
    }
}

fn file() -> Value {
    serde_json::from_str(include_str!("keys.json")).unwrap()
}

/// Each key of compose-spec, and in each mapping one that nobody knows.
fn keys() -> Vec<Key> {
    let known = include_str!("keys.txt").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [place, key, value] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        Key { place: place.to_owned(), name: key.to_owned(), value: serde_json::from_str(value).unwrap() }
    });
    let mut places = Vec::new();
    mappings(&file(), "", &mut places);
    places.retain(|place| !NAMES.contains(&&**place));
    let unknown = |place| Key { place, name: "zork".to_owned(), value: "1".into() };
    known.chain(places.into_iter().map(unknown)).collect()
}

fn mappings(value: &Value, place: &str, found: &mut Vec<String>) {
    if let Value::Object(members) = value {
        found.push(if place.is_empty() { "/".to_owned() } else { place.to_owned() });
        for (key, value) in members {
            mappings(value, &format!("{place}/{key}"), found);
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        mappings(value, &format!("{place}/{index}"), found);
    }
}

fn print(sandbox: &Sandbox, added: &[&Key]) -> Outcome {
    let mut file = file();
    for key in added {
        key.add(&mut file);
    }
    sandbox.write("compose.yaml", file.to_string());
    sandbox.run(&["compose", "print"])
}

/// Tells whether a key was said to be wrong or without effect, or has one.
fn is_told(sandbox: &Sandbox, outcome: &Outcome, key: &Key, others: &[&Key]) -> bool {
    let place = key.place.trim_start_matches('/').replace("/0", "[0]").replace("/1", "[1]").replace('/', ".");
    outcome.stderr.contains(&format!("{}: ", key.name))
        || (outcome.code() == 0 && print(sandbox, others).stdout != outcome.stdout)
        || (outcome.code() != 0 && outcome.stderr.contains(&format!("{place}: ")))
}

pub(super) fn nothing_is_dropped(sandbox: &Sandbox) {
    sandbox.write("e", "E='1'\n");
    sandbox.write("l", "l=1\n");
    print(sandbox, &[]).ok().stderr_is("");
    let keys = keys();
    let mut dropped: Vec<String> = Vec::new();
    for key in &keys {
        let outcome = print(sandbox, &[key]);
        if !is_told(sandbox, &outcome, key, &[]) {
            dropped.push(format!("{key:?}: {}", outcome.stderr));
        }
    }
    // Several at once, by a generator of numbers whose seed is always the same.
    let mut state: u64 = 17;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..MIXED {
        let mut added: Vec<&Key> = (0..3).map(|_| &keys[random(keys.len())]).collect();
        added.dedup_by_key(|key| (&key.place, &key.name));
        let outcome = print(sandbox, &added);
        let told = |key: &&Key| {
            let others: Vec<&Key> = added.iter().copied().filter(|other| !std::ptr::eq(*other, *key)).collect();
            is_told(sandbox, &outcome, key, &others)
        };
        // A file that is refused names one of them.
        let told = added.iter().filter(|key| told(key)).count();
        if told == 0 || (outcome.code() == 0 && told < added.len()) {
            dropped.push(format!("{added:?}: {}", outcome.stderr));
        }
    }
    assert!(dropped.is_empty(), "{}", dropped.join("\n"));
}
