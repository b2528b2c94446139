//! image-spec's conversion.md, rule by rule.

use serde_json::{Value, json};

use super::config;

/// A rule, what the image says, the member of config.json that follows, and its value; `None` for one that is not there.
type Rule = (&'static str, Value, &'static str, Option<Value>);

/// "Verbatim Fields".
fn verbatim() -> Vec<Rule> {
    vec![
        ("WorkingDir is cwd", json!({"WorkingDir": "/srv/a b"}), "/process/cwd", Some(json!("/srv/a b"))),
        ("no WorkingDir is the root", json!({}), "/process/cwd", Some(json!("/"))),
        ("an empty WorkingDir is the root", json!({"WorkingDir": ""}), "/process/cwd", Some(json!("/"))),
        (
            "Env is env, and what is added comes before it where it has none",
            json!({"Env": ["PATH=/p", "A=b=c", "EMPTY=", "HOME=/h"]}),
            "/process/env",
            Some(json!(["PATH=/p", "HOSTNAME=web", "A=b=c", "EMPTY=", "HOME=/h"])),
        ),
        (
            "Entrypoint is args",
            json!({"Entrypoint": ["/e", "-x"], "Cmd": null}),
            "/process/args",
            Some(json!(["/e", "-x"])),
        ),
        ("Cmd is args", json!({"Cmd": ["c", "", " "]}), "/process/args", Some(json!(["c", "", " "]))),
        (
            "Cmd follows Entrypoint",
            json!({"Entrypoint": ["/e", "-x"], "Cmd": ["c", ""]}),
            "/process/args",
            Some(json!(["/e", "-x", "c", ""])),
        ),
    ]
}

/// "Annotation Fields".
fn annotations() -> Vec<Rule> {
    vec![
        ("os", json!({"/os": "freebsd"}), "os", Some(json!("freebsd"))),
        ("architecture", json!({"/architecture": "arm64"}), "architecture", Some(json!("arm64"))),
        ("variant", json!({"/variant": "v8"}), "variant", Some(json!("v8"))),
        ("no variant", json!({}), "variant", None),
        ("os.version", json!({"/os.version": "10.0"}), "os.version", Some(json!("10.0"))),
        ("os.features is a list with commas", json!({"/os.features": ["a", "b"]}), "os.features", Some(json!("a,b"))),
        ("author", json!({"/author": "me <m@e>"}), "author", Some(json!("me <m@e>"))),
        (
            "created",
            json!({"/created": "2015-10-31T22:22:56.015925234Z"}),
            "created",
            Some(json!("2015-10-31T22:22:56.015925234Z")),
        ),
        ("StopSignal", json!({"StopSignal": "SIGRTMIN+3"}), "stopSignal", Some(json!("SIGRTMIN+3"))),
        ("no StopSignal", json!({}), "stopSignal", None),
        (
            "Labels win over what follows from fields",
            json!({"/author": "field", "Labels": {"org.opencontainers.image.author": "label"}}),
            "author",
            Some(json!("label")),
        ),
    ]
}

/// "Parsed Fields": the user. root, www (33) of group ssl (44) are in the image's files.
fn users() -> Vec<Rule> {
    let user = |text: &str| json!({"User": text});
    let is = |uid: u32, gid: u32, groups: &[u32]| Some(json!({"uid": uid, "gid": gid, "additionalGids": groups}));
    vec![
        ("no User is root", json!({}), "/process/user", is(0, 0, &[0])),
        ("numbers are verbatim", user("7:8"), "/process/user", is(7, 8, &[8])),
        ("a number that the files do not have", user("4711"), "/process/user", is(4711, 0, &[0])),
        (
            "a name is looked up, with its group and its further groups",
            user("www"),
            "/process/user",
            is(33, 33, &[33, 44]),
        ),
        ("a group that is given takes the further groups' place", user("www:ssl"), "/process/user", is(33, 44, &[44])),
        ("a name and a number", user("www:9"), "/process/user", is(33, 9, &[9])),
        ("a number and a name", user("5:ssl"), "/process/user", is(5, 44, &[44])),
        ("a name that is in no file is an error", user("nobody"), "", None),
        ("so is a group's", user("www:none"), "", None),
        ("so is a number that is too large", user("4294967296"), "", None),
    ]
}

/// "Optional Fields".
fn optional() -> Vec<Rule> {
    let mount = |destination: &str| json!({"destination": destination, "type": "bind", "source": "/source", "options": ["rbind", "rprivate"]});
    vec![
        (
            "ExposedPorts is a list with commas",
            json!({"ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "443": {}}}),
            "exposedPorts",
            Some(json!("53/udp,443,8080/tcp")),
        ),
        ("no ExposedPorts", json!({}), "exposedPorts", None),
        ("each of Volumes is a mount", json!({"Volumes": {"/a": {}, "/b/c": {}}}), "/mounts/8", Some(mount("/a"))),
        ("the deeper one later", json!({"Volumes": {"/b/c": {}, "/a": {}}}), "/mounts/9", Some(mount("/b/c"))),
    ]
}

#[test]
fn every_rule_of_conversion() {
    for (rule, members, pointer, want) in [verbatim(), annotations(), users(), optional()].concat() {
        let mut image = json!({"config": {"Cmd": ["x"]}});
        for (name, value) in members.as_object().unwrap() {
            match name.strip_prefix('/') {
                Some(name) => image[name] = value.clone(),
                None => image["config"][name] = value.clone(),
            }
        }
        let made = config(&image, &[]);
        let found = match pointer {
            "" => made.err().map(|error| error.to_string()).is_none().then_some(json!("no error")),
            path if path.starts_with('/') => made.unwrap().pointer(path).cloned(),
            name => made.unwrap()["annotations"].get(format!("org.opencontainers.image.{name}")).cloned(),
        };
        assert_eq!(found, want, "{rule}");
    }
}

#[test]
fn labels_are_annotations_verbatim() {
    let labels = json!({"a": "", "b.c/d": "e=f", "org.opencontainers.image.title": "t"});
    let made = config(&json!({"config": {"Cmd": ["x"], "Labels": labels}}), &[]).unwrap();
    for (key, value) in labels.as_object().unwrap() {
        assert_eq!(made["annotations"].get(key), Some(value), "{key}");
    }
}
