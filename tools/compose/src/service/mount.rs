//! What a service mounts: volumes, and secrets and configs, which are files of the host.

use anyhow::Result;

use crate::node::Node;
use crate::project::Context;

/// Returns the options of `volumes`, `volumes_from`, `secrets` and `configs`.
pub(super) fn options(service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for node in service.get("volumes").map(|node| node.items()).transpose()?.unwrap_or_default() {
        let (option, value) =
            if node.value.is_object() { long(&node, context)? } else { ("--volume", short(&node, context)?) };
        options.extend([option.to_owned(), value]);
    }
    for from in service.get("volumes_from").map(|node| node.texts()).transpose()?.unwrap_or_default() {
        let container = if let Some(container) = from.strip_prefix("container:") {
            container.to_owned()
        } else {
            let (service, mode) = from.split_at(from.find(':').unwrap_or(from.len()));
            format!("{}{mode}", context.container_of(service)?)
        };
        options.extend(["--volumes-from".to_owned(), container]);
    }
    for (key, directory) in [("secrets", "/run/secrets/"), ("configs", "/")] {
        for node in service.get(key).map(|node| node.items()).transpose()?.unwrap_or_default() {
            options.extend(["--volume".to_owned(), file(&node, key, directory, context)?]);
        }
    }
    Ok(options)
}

/// `[SOURCE:]TARGET[:MODE]`, in which a source with a slash or a leading dot is a path beside the file.
fn short(node: &Node<'_>, context: &Context<'_>) -> Result<String> {
    let text = node.text()?;
    let Some((source, rest)) = text.split_once(':') else { return Ok(text) };
    if source.starts_with(['.', '/', '~']) {
        return Ok(text);
    }
    Ok(format!("{}:{rest}", context.volume(source).map_err(|what| node.error(what))?))
}

fn long(node: &Node<'_>, context: &Context<'_>) -> Result<(&'static str, String)> {
    node.only("type source target read_only bind volume tmpfs consistency")?;
    let kind = node.get("type").ok_or_else(|| node.error("no type"))?;
    let target = node.get("target").ok_or_else(|| node.error("no target"))?.text()?;
    let source = node.get("source").map(|node| node.text()).transpose()?;
    let mut fields = vec![format!("type={}", kind.text()?)];
    match (kind.text()?.as_str(), source) {
        ("bind", Some(source)) => fields.push(format!("source={source}")),
        ("volume", Some(source)) => {
            fields.push(format!("source={}", context.volume(&source).map_err(|what| node.error(what))?));
        }
        ("volume" | "tmpfs", None) => {}
        ("bind", None) => return Err(node.error("no source")),
        ("tmpfs", Some(_)) => return Err(node.error("a tmpfs has no source")),
        (other, _) => return Err(kind.error(format!("{other} is not bind, volume or tmpfs"))),
    }
    fields.push(format!("target={target}"));
    if node.get("read_only").map_or(Ok(false), |node| node.flag())? {
        fields.push("readonly".to_owned());
    }
    for (part, keys) in [("bind", "propagation create_host_path selinux"), ("volume", "nocopy"), ("tmpfs", "size mode")]
    {
        node.get(part).map_or(Ok(()), |node| node.only(keys))?;
    }
    for (part, key, field) in [
        ("bind", "propagation", "bind-propagation"),
        ("bind", "create_host_path", "bind-create-src"),
        ("volume", "nocopy", "volume-nocopy"),
        ("tmpfs", "size", "tmpfs-size"),
        ("tmpfs", "mode", "tmpfs-mode"),
    ] {
        let Some(value) = node.get(part).and_then(|node| node.get(key)) else { continue };
        fields.push(format!("{field}={}", value.text()?));
    }
    let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
    Ok(("--mount", fields.join(",")))
}

/// Quotes a comma-separated value: RFC 4180, 2.
fn quoted(field: &str) -> String {
    let plain = !field.contains([',', '"', '\n', '\r']);
    if plain { field.to_owned() } else { format!("\"{}\"", field.replace('"', "\"\"")) }
}

/// A secret or a config: its file, mounted read-only.
fn file(node: &Node<'_>, key: &str, directory: &str, context: &Context<'_>) -> Result<String> {
    let (name, target) = if node.value.is_object() {
        // As with docker compose a file keeps its owner and mode.
        node.only_or_named("source target", "uid gid mode")?;
        let name = node.get("source").ok_or_else(|| node.error("no source"))?.text()?;
        (name, node.get("target").map(|node| node.text()).transpose()?)
    } else {
        (node.text()?, None)
    };
    let file = context.file(key, &name).map_err(|what| node.error(what))?;
    let target = target.unwrap_or_else(|| name.clone());
    let target = if target.starts_with('/') { target } else { format!("{directory}{target}") };
    Ok(format!("{file}:{target}:ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_one_field() {
        for (field, want) in [
            ("source=/a", "source=/a"),
            ("source=/a,readonly", "\"source=/a,readonly\""),
            ("target=/x\"y", "\"target=/x\"\"y\""),
        ] {
            assert_eq!(quoted(field), want);
        }
    }
}
