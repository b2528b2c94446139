//! What a service is connected to, and which of its ports are published.

use std::cmp::Reverse;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::field::namespace;
use crate::context::{Context, ProjectNetwork};
use crate::node::Node;

/// Returns the options of `network_mode`, `networks` and `ports`, and the networks.
pub(super) fn options(
    name: &str,
    service: &Node<'_>,
    context: &Context<'_>,
) -> Result<(Vec<String>, Vec<ProjectNetwork>)> {
    let (mut options, joined) = match (service.get("network_mode"), service.get("networks")) {
        (Some(mode), Some(_)) => return Err(mode.error("stands beside networks")),
        (Some(mode), None) => (vec!["--network".to_owned(), namespace(&mode, context)?], Vec::new()),
        (None, networks) => joined(name, networks.as_ref(), context)?,
    };
    for node in service.get("ports").map(|node| node.items()).transpose()?.unwrap_or_default() {
        let port = if node.value.is_object() { long(&node)? } else { node.text()? };
        options.extend(["--publish".to_owned(), port]);
    }
    Ok((options, joined))
}

/// What a service may be in a network, and the same for `run --network`.
const MEMBERSHIP: [(&str, &str); 6] = [
    ("aliases", "alias"),
    ("ipv4_address", "ip"),
    ("ipv6_address", "ip6"),
    ("mac_address", "mac"),
    ("interface_name", "interface_name"),
    ("gw_priority", "gw-priority"),
];

/// Returns an option for each network, the one that is joined first in front.
fn joined(
    name: &str,
    networks: Option<&Node<'_>>,
    context: &Context<'_>,
) -> Result<(Vec<String>, Vec<ProjectNetwork>)> {
    let default = Node { value: &Value::Null, place: format!("services.{name}") };
    let mut members = networks.map(Node::named).transpose()?.unwrap_or_default();
    if members.is_empty() {
        members.push(("default".to_owned(), default));
    }
    let links = context.linked_as(name)?;
    let mut joined = Vec::new();
    for (key, member) in &members {
        let network = context.network(key).map_err(|what| member.error(what))?;
        let mut what = vec![format!("alias={name}")];
        what.extend(links.iter().map(|link| format!("alias={link}")));
        let mut priority = 0;
        if member.value.is_object() {
            member.only("aliases ipv4_address ipv6_address mac_address interface_name gw_priority priority")?;
            for (key, word) in MEMBERSHIP {
                let values = member.get(key).map(|node| node.texts()).transpose()?.unwrap_or_default();
                what.extend(values.iter().map(|value| format!("{word}={value}")));
            }
            if let Some(node) = member.get("priority") {
                priority = node.text()?.parse::<i32>().map_err(|_| node.error("a whole number is expected"))?;
            }
        }
        let option = format!("--network={}:{}", network.name, what.join(","));
        joined.push((Reverse(priority), key, option, network));
    }
    joined.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
    if context.rootless {
        let isolated =
            joined.iter().find(|(.., network)| network.settings.iter().any(|setting| setting == "--internal"));
        if let Some((_, key, ..)) = isolated {
            return Err(anyhow!("services.{name}: network {key} is internal, which needs root"));
        }
        joined.clear();
    }
    Ok(joined.into_iter().map(|(.., option, network)| (option, network)).unzip())
}

/// A published port with names for its parts.
fn long(node: &Node<'_>) -> Result<String> {
    node.only_or_named("target published host_ip protocol", "mode name app_protocol")?;
    let text = |key| node.get(key).map(|node| node.text()).transpose();
    let target = text("target")?.ok_or_else(|| node.error("no target"))?;
    let published = text("published")?.unwrap_or_default();
    let address = match text("host_ip")? {
        Some(address) if address.contains(':') => format!("[{address}]:"),
        Some(address) => format!("{address}:"),
        None => String::new(),
    };
    let protocol = text("protocol")?.map(|protocol| format!("/{protocol}")).unwrap_or_default();
    let colon = if address.is_empty() && published.is_empty() { "" } else { ":" };
    Ok(format!("{address}{published}{colon}{target}{protocol}"))
}
