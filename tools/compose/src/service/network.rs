//! What a service is connected to, and which of its ports are published.

use anyhow::Result;

use super::field::namespace;
use crate::node::Node;
use crate::project::Context;

/// Returns the options of `network_mode`, `networks` and `ports`.
pub(super) fn options(name: &str, service: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = match (service.get("network_mode"), service.get("networks")) {
        (Some(mode), Some(_)) => return Err(mode.error("stands beside networks")),
        (Some(mode), None) => vec!["--network".to_owned(), namespace(&mode, context)?],
        (None, networks) => joined(name, networks.as_ref(), context)?,
    };
    for node in service.get("ports").map(|node| node.items()).transpose()?.unwrap_or_default() {
        let port = if node.value.is_object() { long(&node)? } else { node.text()? };
        options.extend(["--publish".to_owned(), port]);
    }
    Ok(options)
}

/// The one network of the service.
fn joined(name: &str, networks: Option<&Node<'_>>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut options = Vec::new();
    let mut aliases = vec![name.to_owned()];
    let joined = networks.map(members).transpose()?.unwrap_or_default();
    let mut of_network = if joined.is_empty() { context.network("default")? } else { Vec::new() };
    for (network, member) in &joined {
        of_network = context.network(network).map_err(|what| member.error(what))?;
        if member.value.is_object() {
            member.only("aliases ipv4_address mac_address priority")?;
            aliases.extend(member.get("aliases").map(|node| node.texts()).transpose()?.unwrap_or_default());
            for (key, option) in [("ipv4_address", "--ip"), ("mac_address", "--mac-address")] {
                if let Some(value) = member.get(key) {
                    options.extend([option.to_owned(), value.text()?]);
                }
            }
        }
    }
    if let (Some(networks), 2..) = (networks, joined.len()) {
        return Err(networks.error("a service stands on one network here"));
    }
    // An ordinary user has no bridge, and so no names.
    if !of_network.is_empty() {
        options.extend(of_network);
        options.extend(aliases.into_iter().flat_map(|alias| ["--network-alias".to_owned(), alias]));
    }
    Ok(options)
}

fn members<'a>(networks: &Node<'a>) -> Result<Vec<(String, Node<'a>)>> {
    if networks.value.is_object() {
        return networks.members();
    }
    networks.items()?.into_iter().map(|node| Ok((node.text()?, node))).collect()
}

/// A published port with names for its parts.
fn long(node: &Node<'_>) -> Result<String> {
    node.only("target published host_ip protocol mode name app_protocol")?;
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
