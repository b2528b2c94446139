//! Keys of a service that are an option of `run` by another name.

use anyhow::Result;

use crate::node::Node;
use crate::project::Context;

/// How a key's value becomes the option's.
#[derive(Clone, Copy)]
enum Kind {
    /// As it is.
    Text,
    /// The option alone, if true.
    Flag,
    /// The option once for each.
    Texts,
    /// The option once for each pair, joined by this.
    Pairs(char),
    /// A duration as whole seconds.
    Seconds,
    /// A namespace, in which `service:NAME` is that service's container.
    Namespace,
}

const FIELDS: &[(&str, &str, Kind)] = &[
    ("annotations", "--annotation", Kind::Pairs('=')),
    ("cap_add", "--cap-add", Kind::Texts),
    ("cap_drop", "--cap-drop", Kind::Texts),
    ("cgroup", "--cgroupns", Kind::Text),
    ("cpu_shares", "--cpu-shares", Kind::Text),
    ("cpus", "--cpus", Kind::Text),
    ("cpuset", "--cpuset-cpus", Kind::Text),
    ("devices", "--device", Kind::Texts),
    ("dns", "--dns", Kind::Texts),
    ("dns_opt", "--dns-option", Kind::Texts),
    ("dns_search", "--dns-search", Kind::Texts),
    ("environment", "--env", Kind::Pairs('=')),
    ("extra_hosts", "--add-host", Kind::Pairs(':')),
    ("group_add", "--group-add", Kind::Texts),
    ("hostname", "--hostname", Kind::Text),
    ("init", "--init", Kind::Flag),
    ("ipc", "--ipc", Kind::Namespace),
    ("labels", "--label", Kind::Pairs('=')),
    ("mac_address", "--mac-address", Kind::Text),
    ("mem_limit", "--memory", Kind::Text),
    ("mem_reservation", "--memory-reservation", Kind::Text),
    ("memswap_limit", "--memory-swap", Kind::Text),
    ("oom_score_adj", "--oom-score-adj", Kind::Text),
    ("pid", "--pid", Kind::Namespace),
    ("pids_limit", "--pids-limit", Kind::Text),
    ("platform", "--platform", Kind::Text),
    ("privileged", "--privileged", Kind::Flag),
    ("pull_policy", "--pull", Kind::Text),
    ("read_only", "--read-only", Kind::Flag),
    ("restart", "--restart", Kind::Text),
    ("security_opt", "--security-opt", Kind::Texts),
    ("shm_size", "--shm-size", Kind::Text),
    ("stdin_open", "--interactive", Kind::Flag),
    ("stop_grace_period", "--stop-timeout", Kind::Seconds),
    ("stop_signal", "--stop-signal", Kind::Text),
    ("sysctls", "--sysctl", Kind::Pairs('=')),
    ("tmpfs", "--tmpfs", Kind::Texts),
    ("tty", "--tty", Kind::Flag),
    ("user", "--user", Kind::Text),
    ("userns_mode", "--userns", Kind::Text),
    ("uts", "--uts", Kind::Text),
    ("working_dir", "--workdir", Kind::Text),
];

/// Returns the keys that stand in the table.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(key, ..)| *key)
}

/// Returns the options of the table's keys that the service has.
pub(super) fn options(service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for (key, option, kind) in FIELDS {
        let Some(node) = service.get(key) else { continue };
        let values = match kind {
            Kind::Flag => {
                options.extend(node.flag()?.then(|| (*option).to_owned()));
                continue;
            }
            Kind::Text => vec![node.text()?],
            Kind::Texts => node.texts()?,
            Kind::Pairs(separator) => node.pairs(*separator)?,
            Kind::Seconds => vec![seconds(&node)?.to_string()],
            Kind::Namespace => vec![namespace(&node, context)?],
        };
        options.extend(values.into_iter().flat_map(|value| [(*option).to_owned(), value]));
    }
    Ok(options)
}

/// Returns what a namespace is called for `run`.
pub(super) fn namespace(node: &Node<'_>, context: &Context<'_>) -> Result<String> {
    let text = node.text()?;
    match text.strip_prefix("service:") {
        Some(service) => Ok(format!("container:{}", context.container_of(service)?)),
        None => Ok(text),
    }
}

/// Returns the options of `env_file`: a path, a list of them, or mappings with `path` and `required`.
pub(super) fn env_files(service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let Some(node) = service.get("env_file") else { return Ok(Vec::new()) };
    let files = if node.value.is_array() { node.items()? } else { vec![node] };
    let mut options = Vec::new();
    for file in files {
        let (path, required) = if file.value.is_object() {
            file.only(&["path", "required"])?;
            let path = file.get("path").ok_or_else(|| file.error("no path"))?.text()?;
            (path, file.get("required").map_or(Ok(true), |node| node.flag())?)
        } else {
            (file.text()?, true)
        };
        let path = context.path(&path);
        if required || path.exists() {
            options.extend(["--env-file".to_owned(), path.to_string_lossy().into_owned()]);
        }
    }
    Ok(options)
}

/// Returns the options of `ulimits`, and those of `deploy` that one machine can keep.
pub(super) fn limits(service: &Node<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for (name, node) in service.get("ulimits").map(|node| node.members()).transpose()?.unwrap_or_default() {
        let value = if node.value.is_object() {
            node.only(&["soft", "hard"])?;
            let bound = |key| node.get(key).ok_or_else(|| node.error(format!("no {key}"))).and_then(|node| node.text());
            format!("{}:{}", bound("soft")?, bound("hard")?)
        } else {
            node.text()?
        };
        options.extend(["--ulimit".to_owned(), format!("{name}={value}")]);
    }
    let one = |node: &Node<'_>| match node.text()?.as_str() {
        "1" => Ok(()),
        _ => Err(node.error("a service has one container here")),
    };
    service.get("scale").as_ref().map_or(Ok(()), one)?;
    let Some(deploy) = service.get("deploy") else { return Ok(options) };
    deploy.only(&["resources", "replicas", "labels"])?;
    deploy.get("replicas").as_ref().map_or(Ok(()), one)?;
    let Some(resources) = deploy.get("resources") else { return Ok(options) };
    resources.only(&["limits", "reservations"])?;
    for (part, keys) in [
        ("limits", &[("cpus", "--cpus"), ("memory", "--memory"), ("pids", "--pids-limit")][..]),
        ("reservations", &[("memory", "--memory-reservation")][..]),
    ] {
        let Some(node) = resources.get(part) else { continue };
        node.only(&keys.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
        for (key, option) in keys {
            if let Some(value) = node.get(key) {
                options.extend([(*option).to_owned(), value.text()?]);
            }
        }
    }
    Ok(options)
}

/// Reads a duration such as `1m30s`, rounded up to seconds: compose-spec, 11 (specifying durations).
pub(super) fn seconds(node: &Node<'_>) -> Result<u64> {
    let text = node.text()?;
    microseconds(&text)
        .map(|microseconds| microseconds.div_ceil(1_000_000))
        .ok_or_else(|| node.error(format!("{text} is no duration such as 1m30s")))
}

fn microseconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            "m" => 60e6,
            "h" => 3600e6,
            _ => return None,
        };
        let value = number.parse::<f64>().ok()? * factor;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "digits alone; `as` saturates")]
        let value = value as u64;
        total = total.checked_add(value)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, want) in [
            ("10s", Some(10_000_000)),
            ("1m30s", Some(90_000_000)),
            ("1.5h", Some(5_400_000_000)),
            ("20ms", Some(20_000)),
            ("10", None),
            ("s", None),
            ("", None),
            ("1d", None),
        ] {
            assert_eq!(microseconds(text), want, "{text}");
        }
    }
}
