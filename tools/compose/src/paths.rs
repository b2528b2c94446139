//! Relative paths in a file, which are made absolute before several files become one: each is relative to the directory of
//! its own file.

use std::path::Path;

use serde_json::Value;

/// Makes the paths of the host in a whole file absolute.
pub(crate) fn resolve(file: &mut Value, directory: &Path) {
    for service in members(file.get_mut("services")) {
        each(service.get_mut("env_file"), &mut |item| match item {
            Value::Object(item) => absolute(item.get_mut("path"), directory),
            item => absolute(Some(item), directory),
        });
        match service.get_mut("build") {
            Some(Value::Object(build)) => {
                context(Some(build.entry("context").or_insert_with(|| ".".into())), directory);
            }
            build => context(build, directory),
        }
        each(service.get_mut("label_file"), &mut |item| absolute(Some(item), directory));
        if let Some(Value::Object(extends)) = service.get_mut("extends") {
            absolute(extends.get_mut("file"), directory);
        }
        each(service.get_mut("volumes"), &mut |item| match item {
            Value::Object(item) if item.get("type").is_some_and(|kind| kind == "bind") => {
                absolute(item.get_mut("source"), directory);
            }
            // A source with a slash or a leading dot is a path: compose-spec, 05, `volumes`, short syntax.
            Value::String(text) if text.starts_with(['.', '~']) => {
                let (source, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                *text = joined(source, directory) + rest;
            }
            _ => {}
        });
    }
    for kind in ["secrets", "configs"] {
        members(file.get_mut(kind)).for_each(|declared| absolute(declared.get_mut("file"), directory));
    }
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_object_mut).into_iter().flat_map(|members| members.values_mut())
}

/// Does the same to each item of a list, or to the one that stands alone.
fn each(value: Option<&mut Value>, change: &mut dyn FnMut(&mut Value)) {
    match value {
        Some(Value::Array(items)) => items.iter_mut().for_each(change),
        Some(value) => change(value),
        None => {}
    }
}

/// The context of a build may be a repository elsewhere.
fn context(value: Option<&mut Value>, directory: &Path) {
    let is_elsewhere = |text: &str| text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
    absolute(value.filter(|value| value.as_str().is_some_and(|text| !is_elsewhere(text))), directory);
}

fn absolute(value: Option<&mut Value>, directory: &Path) {
    let Some(value) = value else { return };
    if let Value::String(text) = value {
        *text = joined(text, directory);
    }
}

/// `~` is the home directory.
fn joined(path: &str, directory: &Path) -> String {
    let home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = match (home, cli::home()) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        _ => directory.join(path.strip_prefix("./").unwrap_or(path)),
    };
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_the_host_become_absolute() {
        let mut file = json!({
            "services": {"a": {
                "env_file": ["a.env", {"path": "./b.env", "required": false}],
                "extends": {"file": "base.yaml", "service": "b"},
                "volumes": ["./site:/site:ro", "data:/data", "/etc:/etc", "..:/up",
                    {"type": "bind", "source": "x", "target": "/x"}, {"type": "volume", "source": "x", "target": "/y"}],
            }, "b": {"env_file": "c.env"}, "c": null},
            "secrets": {"s": {"file": "./s.txt"}, "t": {"environment": "T"}},
        });
        resolve(&mut file, Path::new("/src"));
        let want = json!({
            "services": {"a": {
                "env_file": ["/src/a.env", {"path": "/src/b.env", "required": false}],
                "extends": {"file": "/src/base.yaml", "service": "b"},
                "volumes": ["/src/site:/site:ro", "data:/data", "/etc:/etc", "/src/..:/up",
                    {"type": "bind", "source": "/src/x", "target": "/x"}, {"type": "volume", "source": "x", "target": "/y"}],
            }, "b": {"env_file": "/src/c.env"}, "c": null},
            "secrets": {"s": {"file": "/src/s.txt"}, "t": {"environment": "T"}},
        });
        assert_eq!(file, want);
    }
}
