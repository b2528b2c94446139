//! A service's health check and its log.

use anyhow::Result;

use super::field;
use crate::context::Context;
use crate::node::Node;

const FIELDS: &str = include_str!("health.txt");

/// What `keep` writes a log by.
const DRIVERS: [&str; 6] = ["file", "local", "json-file", "k8s-file", "journald", "none"];

/// Returns the options of `healthcheck` and `logging`.
pub(super) fn options(service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    if let Some(node) = service.get("logging") {
        node.only("driver options")?;
        if let Some(driver) = node.get("driver") {
            if !DRIVERS.contains(&driver.text()?.as_str()) {
                return Err(driver.error(format!("not one of {}", DRIVERS.join(", "))));
            }
            options.extend(["--log-driver".to_owned(), driver.text()?]);
        }
        for option in node.get("options").map(|node| node.pairs('=')).transpose()?.unwrap_or_default() {
            options.extend(["--log-opt".to_owned(), option]);
        }
    }
    let Some(node) = service.get("healthcheck") else { return Ok(options) };
    node.only(&(field::keys(FIELDS) + "test disable"))?;
    let test = node.get("test").map(|node| test(&node)).transpose()?;
    if node.get("disable").map_or(Ok(false), |node| node.flag())? || test == Some(None) {
        options.push("--no-healthcheck".to_owned());
        return Ok(options);
    }
    if let Some(Some(command)) = test {
        options.extend(["--health-cmd".to_owned(), command]);
    }
    options.extend(field::options(&node, FIELDS, context)?);
    Ok(options)
}

/// Returns the command: a text for a shell, a JSON list for none; nothing for `NONE`.
fn test(node: &Node<'_>) -> Result<Option<String>> {
    if !node.value.is_array() {
        return Ok(Some(node.text()?));
    }
    let words = node.texts()?;
    match words.split_first() {
        Some((kind, [])) if kind == "NONE" => Ok(None),
        // docker compose takes several words, of which the shell takes the first as its command.
        Some((kind, [_, ..])) if kind == "CMD-SHELL" || kind == "CMD" => Ok(Some(serde_json::to_string(&words)?)),
        _ => Err(node.error("begins with CMD, CMD-SHELL or NONE")),
    }
}
