//! Keys of a service that are an option of `run` by another name.

use anyhow::Result;

use crate::context::Context;
use crate::node::Node;

/// Keys of a service.
pub(super) const SERVICE: &str = include_str!("fields.txt");

/// Returns the rows of a table: key, option, kind.
fn rows(table: &'static str) -> impl Iterator<Item = [&'static str; 3]> {
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>().try_into().ok();
    table.lines().filter(|line| !line.starts_with('#')).filter_map(words)
}

/// Returns the keys that stand in a table.
pub(super) fn keys(table: &'static str) -> String {
    rows(table).map(|[key, ..]| key.to_owned() + " ").filter(|key| !key.contains('.')).collect()
}

/// Returns the options of a table's keys that a mapping has.
pub(super) fn options(mapping: &Node<'_>, table: &'static str, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for [key, option, kind] in rows(table) {
        let Some(node) = mapping.at(key) else { continue };
        let values = match kind {
            "flag" => {
                options.extend(node.flag()?.then(|| option.to_owned()));
                continue;
            }
            "texts" => node.texts()?,
            "pairs" => node.pairs('=')?,
            "addresses" => node.pairs(':')?,
            "seconds" => vec![format!("{}s", seconds(&node)?)],
            "number" => vec![seconds(&node)?.to_string()],
            "namespace" => vec![namespace(&node, context)?],
            _ => vec![node.text()?],
        };
        options.extend(values.into_iter().flat_map(|value| [option.to_owned(), value]));
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

/// Returns the option of `pull_policy`.
pub(super) fn pull(service: &Node<'_>) -> Result<Vec<String>> {
    let Some(node) = service.get("pull_policy") else { return Ok(Vec::new()) };
    let policy = match node.text()?.as_str() {
        policy @ ("always" | "never" | "missing") => policy.to_owned(),
        "if_not_present" => "missing".to_owned(),
        other => return Err(node.error(format!("{other} is not supported: always, missing or never"))),
    };
    Ok(vec!["--pull".to_owned(), policy])
}

/// Returns the options of `gpus` and of the devices that `deploy` reserves, which are GPUs or, by name, those of CDI.
fn devices(requests: &Node<'_>) -> Result<Vec<String>> {
    if !requests.value.is_array() {
        return Ok(vec!["--gpus".to_owned(), requests.text()?]);
    }
    let mut options = Vec::new();
    for request in requests.items()? {
        request.only("driver count device_ids capabilities")?;
        let ids = request.get("device_ids").map(|node| node.texts()).transpose()?;
        let driver = request.get("driver").map(|node| node.text()).transpose()?.unwrap_or_default();
        let capabilities = request.get("capabilities").map(|node| node.texts()).transpose()?.unwrap_or_default();
        match (driver.as_str(), ids) {
            ("cdi", Some(ids)) => options.extend(ids.into_iter().flat_map(|id| ["--device".to_owned(), id])),
            ("" | "nvidia", ids) if driver == "nvidia" || capabilities.iter().any(|name| name == "gpu") => {
                let count = request.get("count").map(|node| node.text()).transpose()?;
                let wanted = match (ids, count.as_deref()) {
                    (Some(ids), None) => format!("device={}", ids.join(",")),
                    (None, None | Some("all" | "-1")) => "all".to_owned(),
                    (None, Some(count)) => count.to_owned(),
                    (Some(_), Some(_)) => return Err(request.error("count and device_ids exclude each other")),
                };
                options.extend(["--gpus".to_owned(), wanted]);
            }
            _ => return Err(request.error("neither a GPU nor a device of CDI")),
        }
    }
    Ok(options)
}

/// Returns the options of `ulimits`, of `gpus`, and those of `deploy` that one machine can keep.
pub(super) fn limits(service: &Node<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for (name, node) in service.get("ulimits").map(|node| node.members()).transpose()?.unwrap_or_default() {
        let value = if node.value.is_object() {
            node.only("soft hard")?;
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
    options.extend(service.get("gpus").map(|node| devices(&node)).transpose()?.unwrap_or_default());
    let Some(deploy) = service.get("deploy") else { return Ok(options) };
    deploy.only_or_named(
        "resources replicas restart_policy mode",
        "labels placement update_config rollback_config endpoint_mode",
    )?;
    if let Some(mode) = deploy.get("mode").filter(|mode| mode.value != "replicated" && mode.value != "global") {
        return Err(mode.error("neither replicated nor global"));
    }
    // It counts instead of the service's own `restart`, which stands before it.
    if let Some(policy) = deploy.get("restart_policy") {
        options.extend(["--restart".to_owned(), restart(&policy)?]);
    }
    deploy.get("replicas").as_ref().map_or(Ok(()), one)?;
    let Some(resources) = deploy.get("resources") else { return Ok(options) };
    resources.only("limits reservations")?;
    // The table has these. On one host a reserved processor is no more than a hint.
    for (part, keys, hints) in [("limits", "cpus memory pids", ""), ("reservations", "memory devices", "cpus")] {
        resources.get(part).map_or(Ok(()), |node| node.only_or_named(keys, hints))?;
    }
    let reserved = resources.at("reservations.devices").map(|node| devices(&node)).transpose()?;
    options.extend(reserved.unwrap_or_default());
    Ok(options)
}

/// Returns the restart policy that `deploy.restart_policy` stands for; docker compose reads `condition` and `max_attempts`.
fn restart(policy: &Node<'_>) -> Result<String> {
    policy.only_or_named("condition max_attempts", "delay window")?;
    let attempts = policy.get("max_attempts").map(|node| node.text()).transpose()?;
    let condition = policy.get("condition").map_or_else(|| Ok("any".to_owned()), |node| node.text())?;
    match (condition.as_str(), attempts) {
        ("none" | "no", _) => Ok("no".to_owned()),
        ("any" | "always", None) => Ok("always".to_owned()),
        ("on-failure" | "unless-stopped", None) => Ok(condition),
        ("any" | "always" | "on-failure", Some(attempts)) => Ok(format!("on-failure:{attempts}")),
        _ => Err(policy.error(format!("{condition} is not none, on-failure or any"))),
    }
}

/// Reads a duration such as `1m30s`, rounded up to seconds: compose-spec, 11 (specifying durations).
fn seconds(node: &Node<'_>) -> Result<u64> {
    let duration = cli::duration(&node.text()?).map_err(|what| node.error(what))?;
    Ok(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}
