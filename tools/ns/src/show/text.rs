//! JSON for people: a member a line, what lies below a member below it.

use serde_json::Value;

/// Writes an object.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    if let Value::Object(members) = value {
        for (name, value) in members {
            member(name, value, 0, &mut out);
        }
    }
    out
}

fn member(name: &str, value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) if items.iter().any(|item| item.is_object() || depth == 0) && !short(items) => {
            push(out, format_args!("{indent}{name}:"));
            for item in items {
                push(out, format_args!("{indent}  {}", line(item)));
            }
        }
        Value::Object(members) => {
            push(out, format_args!("{indent}{name}:"));
            for (name, value) in members {
                member(name, value, depth + 1, out);
            }
        }
        value => push(out, format_args!("{indent}{name}: {}", line(value))),
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.push_str(&line.to_string());
    out.push('\n');
}

/// Plain words stand on one line.
fn short(items: &[Value]) -> bool {
    items.iter().all(|item| item.as_str().is_some_and(|text| text.len() < 24))
}

pub(super) fn line(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().flat_map(visible).collect(),
        Value::Array(items) => items.iter().map(line).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            let known = members.iter().filter(|(_, value)| !value.is_null() && **value != Value::Array(vec![]));
            known.map(|(name, value)| format!("{name} {}", line(value))).collect::<Vec<_>>().join("  ")
        }
        other => other.to_string(),
    }
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_indented() {
        let value = serde_json::json!({"pid": 7, "none": null, "caps": ["a", "b"], "net": {"routes": [{"dst": "x", "via": null}]}});
        assert_eq!(write(&value), "pid: 7\ncaps: a b\nnet:\n  routes:\n    dst x\n");
    }
}
