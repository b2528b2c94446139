//! Several files as one: compose-spec, 13 (merge). The later file wins; mappings are merged member by member, lists are joined,
//! but commands replace each other.

use serde_json::{Map, Value};

/// Keys whose lists replace the earlier ones.
const REPLACED: &[&str] = &["command", "entrypoint", "test"];
/// Keys that may be a list of pairs in one file and a mapping in the other, and what separates the pairs.
const PAIRS: &[(&str, char)] =
    &[("environment", '='), ("labels", '='), ("annotations", '='), ("sysctls", '='), ("extra_hosts", ':')];

/// Lays `over` on `base`.
pub(crate) fn merge(base: &mut Value, over: Value) {
    merge_member("", base, over);
}

/// Takes the marks of replacing values away, whose places are added to those `found`; what is to go becomes null.
pub(crate) fn take_marks(value: &mut Value, place: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let Value::Object(members) = value else { return };
    if let Some(replacing) = members.get_mut(yaml::REPLACES) {
        found.push(place.clone());
        *value = replacing.take();
        return;
    }
    for (key, member) in members {
        place.push(key.clone());
        take_marks(member, place, found);
        place.pop();
    }
}

/// Removes the value at a place, if there is one.
pub(crate) fn remove(value: &mut Value, place: &[String]) {
    let Some((last, above)) = place.split_last() else { return };
    let parent = above.iter().try_fold(value, |value, key| value.get_mut(key));
    parent.and_then(Value::as_object_mut).map(|members| members.shift_remove(last));
}

fn merge_member(key: &str, base: &mut Value, mut over: Value) {
    // The words of a command are one thing: joined with those of another file they would be a third command.
    if REPLACED.contains(&key) || over.is_null() {
        *base = over;
        return;
    }
    let separator = PAIRS.iter().find(|(pairs, _)| *pairs == key);
    let is_mapping = base.is_object() || over.is_object();
    // Both are brought into the same form first: one file may have a list where the other has a mapping.
    for value in [&mut *base, &mut over] {
        match separator {
            Some((_, separator)) => mapping(value, *separator),
            None if is_mapping => named(value),
            None => {}
        }
    }
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(base) => merge_member(&key, base, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(over)) => {
            for item in over {
                // The later file's mount wins over the earlier one's at the same place.
                if let Some(target) = target(key, &item) {
                    base.retain(|other| self::target(key, other).as_deref() != Some(&target));
                }
                // The same port or mount in both files is meant once.
                if !base.contains(&item) {
                    base.push(item);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Makes a mapping of a list of `KEY=VALUE`.
fn mapping(value: &mut Value, separator: char) {
    let Value::Array(items) = value else { return };
    let pairs = items.iter().filter_map(Value::as_str).map(|pair| match pair.split_once([separator, '=']) {
        Some((key, value)) => (key.to_owned(), value.into()),
        None => (pair.to_owned(), Value::Null),
    });
    *value = Value::Object(pairs.collect());
}

/// Makes a mapping of a list of names.
fn named(value: &mut Value) {
    let Value::Array(items) = value else { return };
    let names: Map<_, _> = items.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), Value::Null)).collect();
    *value = Value::Object(names);
}

fn target(key: &str, item: &Value) -> Option<String> {
    if key != "volumes" {
        return None;
    }
    match item {
        Value::String(text) => text.split(':').nth(1).map(str::to_owned),
        item => item.get("target").and_then(Value::as_str).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_later_file_wins_as_the_specification_has_it() {
        for (base, over, want) in [
            (json!({"image": "a"}), json!({"image": "b"}), json!({"image": "b"})),
            (json!({"command": ["a", "b"]}), json!({"command": ["c"]}), json!({"command": ["c"]})),
            (json!({"ports": ["80"]}), json!({"ports": ["80", "81"]}), json!({"ports": ["80", "81"]})),
            (
                json!({"environment": ["A=1", "B"]}),
                json!({"environment": {"A": "2", "C": "3"}}),
                json!({"environment": {"A": "2", "B": null, "C": "3"}}),
            ),
            (json!({"environment": {"A": "1"}}), json!({"environment": ["A=2"]}), json!({"environment": {"A": "2"}})),
            (
                json!({"volumes": ["./a:/data", "b:/b"]}),
                json!({"volumes": [{"type": "volume", "source": "c", "target": "/data"}]}),
                json!({"volumes": ["b:/b", {"type": "volume", "source": "c", "target": "/data"}]}),
            ),
            (
                json!({"depends_on": ["a"]}),
                json!({"depends_on": {"b": {"condition": "service_healthy"}}}),
                json!({"depends_on": {"a": null, "b": {"condition": "service_healthy"}}}),
            ),
            (
                json!({"healthcheck": {"test": ["A"], "retries": 1}}),
                json!({"healthcheck": {"test": "b"}}),
                json!({"healthcheck": {"test": "b", "retries": 1}}),
            ),
            (json!({"tty": true}), json!({"tty": null}), json!({"tty": null})),
        ] {
            let mut merged = base.clone();
            merge(&mut merged, over.clone());
            assert_eq!(merged, want, "{base} and {over}");
        }
    }
}
