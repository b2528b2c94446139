//! What a service mounts: volumes, and secrets and configs, which are files of the host.

use anyhow::Result;

use super::fnv;
use crate::context::Context;
use crate::node::Node;
use crate::script::word;

/// A secret or config that is made of a text: a file below the project's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MadeFile {
    /// The line of the script that makes it.
    pub(crate) line: String,
    /// The variable that has the text, and the text: no list of processes shall show it.
    pub(crate) variable: Option<(String, String)>,
}

/// Returns the options of `volumes`, `volumes_from`, `secrets` and `configs`, and the files that are made for these.
pub(super) fn options(service: &Node<'_>, context: &Context<'_>) -> Result<(Vec<String>, Vec<MadeFile>)> {
    let mut options = Vec::new();
    let mut files = Vec::new();
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
            let (volume, made) = file(&node, key, directory, context)?;
            options.extend(["--volume".to_owned(), volume]);
            files.extend(made);
        }
    }
    Ok((options, files))
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
    node.only_or_named("type source target read_only bind volume tmpfs", "consistency")?;
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
    for (part, keys) in [("bind", "propagation create_host_path"), ("volume", "nocopy"), ("tmpfs", "size mode")] {
        node.get(part).map_or(Ok(()), |node| node.only_or_named(keys, "selinux"))?;
    }
    for (key, field) in [
        ("bind.propagation", "bind-propagation"),
        ("bind.create_host_path", "bind-create-src"),
        ("volume.nocopy", "volume-nocopy"),
        ("tmpfs.size", "tmpfs-size"),
        ("tmpfs.mode", "tmpfs-mode"),
    ] {
        let Some(value) = node.at(key) else { continue };
        fields.push(format!("{field}={}", if field == "tmpfs-mode" { value.mode() } else { value.text() }?));
    }
    let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
    Ok(("--mount", fields.join(",")))
}

/// Quotes a comma-separated value: RFC 4180, 2.
fn quoted(field: &str) -> String {
    let plain = !field.contains([',', '"', '\n', '\r']);
    if plain { field.to_owned() } else { format!("\"{}\"", field.replace('"', "\"\"")) }
}

type File = (String, Option<MadeFile>);

/// A secret or a config: its file, mounted read-only, and how that is made.
fn file(node: &Node<'_>, key: &str, directory: &str, context: &Context<'_>) -> Result<File> {
    let name = node.get("source").unwrap_or_else(|| node.clone()).text()?;
    let (kind, source) = context.source(key, &name).map_err(|what| node.error(what))?;
    if node.value.is_object() {
        // As with docker compose a file of the host's keeps its owner and mode.
        let named = if kind == "file" { "uid gid mode" } else { "" };
        node.only_or_named("source target uid gid mode", named)?;
    }
    let (file, made) = if kind == "file" { (source.text()?, None) } else { make(node, &kind, &source, context)? };
    let target = node.get("target").map_or_else(|| Ok(name.clone()), |target| target.text())?;
    let target = if target.starts_with('/') { target } else { format!("{directory}{target}") };
    Ok((format!("{file}:{target}:ro"), made))
}

/// A text, or the value of a variable, as a file that everybody may read unless the service says otherwise, in a directory
/// that nobody else may enter. Its name is that of what it is made of, so another text is another file.
fn make(node: &Node<'_>, kind: &str, source: &Node<'_>, context: &Context<'_>) -> Result<File> {
    let mut text = source.text()?;
    let mut variable = None;
    let mut printed = format!("printf %s {}", word(&text));
    if kind == "environment" {
        let value = context.variables.get(&text).filter(|_| is_name(&text));
        let value = value.ok_or_else(|| source.error(format!("no variable {text}")))?.clone();
        printed = format!(": \"${{{text}?}}\"; printf %s \"${text}\"");
        variable = Some((std::mem::replace(&mut text, value.clone()), value));
    }
    let mut rights = vec!["--mode=444".to_owned()];
    for (key, option) in [("mode", "--mode"), ("uid", "--owner"), ("gid", "--group")] {
        let Some(node) = node.get(key) else { continue };
        let value = if key == "mode" { node.mode()? } else { node.text()? };
        rights.push(word(&format!("{option}={value}")));
    }
    let rights = rights.join(" ");
    let name = format!("{:016x}", fnv([&rights, &source.place, &text]));
    let path = context.directory.join(name).display().to_string();
    let directory = word(&context.directory.display().to_string());
    let line = format!("mkdir -p -m 700 {directory}; {printed} | install {rights} /dev/stdin {}\n", word(&path));
    Ok((path, Some(MadeFile { line, variable })))
}

/// Tells whether a shell has variables of that name: POSIX, XBD, 3.216.
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
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
