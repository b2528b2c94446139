//! The record: what the tools really print, held against docs/record.schema.json.

use std::fs;

use serde_json::Value;

use crate::support::{Need, Sandbox, Test, image, source, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("every_stage_prints_what_the_schema_says", &[Need::Registry, Need::Overlay, Need::Nft], every_stage),
        test("the_schema_refuses_what_it_should", &[], schema_refuses),
        test("every_stage_passes_unknown_members_on", &[Need::Registry, Need::Overlay, Need::Nft], unknown_members),
        test("a_stage_without_a_record_says_so", &[Need::Root], without_a_record),
        test("garbage_is_no_record", &[Need::Root], garbage),
        test("a_missing_member_names_its_stage", &[Need::Root], missing_member),
    ]
}

fn every_stage(sandbox: &Sandbox) {
    let pull = format!("pull {}", image("busybox").reference);
    let stages = [&pull, "unpack", "bundle --id grow -- sleep 60", "ns add", "portmap -p 8080:80", "spawn --detach"];
    let members = ["image", "rootfs", "bundle", "network", "ports", "pid"];
    let mut line = String::new();
    for (stage, member) in stages.into_iter().zip(members) {
        let outcome = sandbox.sh(stage).stdin(line).run().ok();
        assert_eq!(outcome.stdout.lines().count(), 1, "one line: {outcome}");
        let record = outcome.json();
        assert_eq!(violations(&record), Vec::<String>::new(), "{outcome}");
        assert!(record.get(member).is_some(), "{stage} adds {member}: {outcome}");
        line = outcome.stdout;
    }
    // The bundle says what its container has, and how it came to it; a new run begins without.
    let kept: Value = serde_json::from_str(&sandbox.read("state/containers/grow/record.json")).unwrap();
    let passed: Value = serde_json::from_str(&line).unwrap();
    for member in ["image", "rootfs", "network", "networkOptions", "ports", "portOptions"] {
        assert_eq!(kept[member], passed[member], "{member}");
    }
    assert_eq!(kept["portOptions"], serde_json::json!(["--publish=8080:80"]));
    sandbox.sh("spawn delete --force grow; portmap del grow; ns del grow").run().ok();
    let again = sandbox.sh("umount state/containers/grow/rootfs; bundle mount grow").run().ok().json();
    assert_eq!(again.get("image"), kept.get("image"));
    for member in ["network", "networkOptions", "ports", "portOptions"] {
        assert_eq!(again.get(member), None, "{member}");
    }
    sandbox.sh("bundle delete grow").run().ok();
}

fn schema_refuses(_: &Sandbox) {
    for (record, want) in [
        (r#"{"bundle":"relative"}"#, "/bundle: does not match ^/"),
        (r#"{"ports":[{"hostPort":0,"containerPort":80,"protocol":"tcp"}]}"#, "/ports/0/hostPort: below 1"),
        (r#"{"ports":[{"containerPort":80,"protocol":"tcp"}]}"#, "/ports/0: no hostPort"),
        (r#"{"rootfs":{"path":"/a","layers":["/b"]}}"#, "/rootfs: not exactly one of the alternatives"),
        (r#"{"status":"gone"}"#, "/status: not one of the allowed"),
        (r#"{"image":[]}"#, "/image: not of type object"),
    ] {
        assert_eq!(violations(&serde_json::from_str(record).unwrap()), [want]);
    }
    assert_eq!(violations(&serde_json::json!({"unknown": {"deep": null}})), Vec::<String>::new());
}

fn unknown_members(sandbox: &Sandbox) {
    let pulled = sandbox.sh(&format!("pull {}", image("busybox").reference)).run().ok().json();
    let mut record = pulled.as_object().unwrap().clone();
    record.insert("com.example.note".to_owned(), serde_json::json!({"keep": [1, null, "x"]}));
    let mut line = Value::Object(record).to_string();
    for stage in ["unpack", "bundle --id pass -- true", "ns add", "portmap -p 8080:80"] {
        line = sandbox.sh(stage).stdin(line).run().ok().stdout;
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["com.example.note"], serde_json::json!({"keep": [1, null, "x"]}), "after {stage}");
    }
    sandbox.sh("portmap del pass; ns del pass; bundle delete pass").run().ok();
}

const READERS: [(&str, i32, i32); 5] =
    [("unpack", 1, 2), ("bundle", 1, 2), ("ns add", 1, 2), ("portmap -p 8080:80", 1, 2), ("spawn", 125, 125)];

fn without_a_record(sandbox: &Sandbox) {
    for (stage, code, _) in READERS {
        let tool = stage.split(' ').next().unwrap();
        sandbox.sh(stage).run().fails(code).one_error_line(tool, &["no record on stdin"]);
    }
}

fn garbage(sandbox: &Sandbox) {
    for (stage, _, code) in READERS {
        let tool = stage.split(' ').next().unwrap();
        sandbox.sh(stage).stdin("no record\n").run().fails(code).one_error_line(tool, &["stdin is not a record"]);
        sandbox.sh(stage).stdin("[1]\n").run().fails(code).one_error_line(tool, &["not a JSON object"]);
    }
}

fn missing_member(sandbox: &Sandbox) {
    for (stage, member, code) in [("unpack", "image", 2), ("bundle", "image", 2), ("spawn", "bundle", 125)] {
        let outcome = sandbox.sh(stage).stdin("{\"x\":1}\n").run().fails(code);
        outcome.one_error_line(
            stage,
            &["record has no `", if member == "image" { "run `" } else { "run `bundle` first" }],
        );
    }
}

/// Checks a record against docs/record.schema.json: the keywords that it uses, as JSON Schema 2020-12 defines them.
fn violations(record: &Value) -> Vec<String> {
    let text = fs::read_to_string(source().join("docs/record.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    check(&schema, &schema, record, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let definition = root.pointer(reference.trim_start_matches('#')).expect("the schema's references resolve");
        return check(root, definition, value, at, found);
    }
    if let Some(kind) = schema["type"].as_str() {
        if !is_of_type(value, kind) {
            return found.push(format!("{at}: not of type {kind}"));
        }
    }
    check_scalar(schema, value, at, found);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{at}: no {name}"));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            check(root, schema, value, &format!("{at}/{name}"), found);
        }
    }
    if schema["additionalProperties"].is_object() {
        for (name, value) in value.as_object().into_iter().flatten() {
            check(root, &schema["additionalProperties"], value, &format!("{at}/{name}"), found);
        }
    }
    if schema["items"].is_object() {
        for (index, value) in value.as_array().into_iter().flatten().enumerate() {
            check(root, &schema["items"], value, &format!("{at}/{index}"), found);
        }
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let fits = |alternative: &&Value| {
            let mut found = Vec::new();
            check(root, alternative, value, at, &mut found);
            found.is_empty()
        };
        if alternatives.iter().filter(fits).count() != 1 {
            found.push(format!("{at}: not exactly one of the alternatives"));
        }
    }
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the checker does not know the type {other}"),
    }
}

fn check_scalar(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let (Some(minimum), Some(number)) = (schema["minimum"].as_i64(), value.as_i64()) {
        if number < minimum {
            found.push(format!("{at}: below {minimum}"));
        }
    }
    if let (Some(maximum), Some(number)) = (schema["maximum"].as_i64(), value.as_i64()) {
        if number > maximum {
            found.push(format!("{at}: above {maximum}"));
        }
    }
    if let Some(allowed) = schema["enum"].as_array() {
        if !allowed.contains(value) {
            found.push(format!("{at}: not one of the allowed"));
        }
    }
    if let (Some(minimum), Some(items)) = (schema["minItems"].as_u64(), value.as_array()) {
        if (items.len() as u64) < minimum {
            found.push(format!("{at}: fewer than {minimum} items"));
        }
    }
    if let (Some(minimum), Some(text)) = (schema["minLength"].as_u64(), value.as_str()) {
        if (text.len() as u64) < minimum {
            found.push(format!("{at}: shorter than {minimum}"));
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        if !matches(pattern, text) {
            found.push(format!("{at}: does not match {pattern}"));
        }
    }
}

/// Matches the three patterns of the schema; another one is a reason to bring in a crate for regular expressions.
fn matches(pattern: &str, text: &str) -> bool {
    let hexadecimal = |digits: &str, count: usize| {
        digits.len() == count && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match pattern {
        "^/" => text.starts_with('/'),
        "^[A-Za-z0-9][A-Za-z0-9_.-]*$" => {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        }
        "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$" => match text.split_once(':') {
            Some(("sha256", digits)) => hexadecimal(digits, 64),
            Some(("sha512", digits)) => hexadecimal(digits, 128),
            _ => false,
        },
        "^[0-9a-f]{8}-[0-9a-f]{8}$" => {
            text.split_once('-').is_some_and(|(root, claim)| hexadecimal(root, 8) && hexadecimal(claim, 8))
        }
        other => panic!("the checker does not know the pattern {other}"),
    }
}
