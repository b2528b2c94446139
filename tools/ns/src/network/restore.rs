//! `ns check` and `ns restore`: what others have taken from the networks of containers that are there, by flushing a
//! firewall or an interface. What they had says each bundle's record.
//!
//! The bundles' records say what was there; links and their aliases say what still is. What is missing is put back by
//! the same steps that made it. A container's own end is never touched: only its own start makes that anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use container::Directories;
use netlink::foreign::Forward;
use netlink::forwarding;
use netlink::route::{Cidr, Link, NewLink, Router};
use record::{Id, Network, NetworkOptions, OwnedBy, Record};
use serde_json::Value;

use super::firewall::{self, BridgeRules};
use super::lock::lock_quietly;
use super::named;
use super::owner::{self, PortAlias};
use super::plan::{Step, forwards, mac};
use super::result::{interface_of, mac_text};
use super::settings::settings_of;
use super::work::Work;

/// How a container is on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attachment {
    /// What its port says.
    alias: PortAlias,
    bridge: String,
    /// Whether the bridge is one that `ns add` makes.
    own: bool,
    /// The host's end of its link.
    port: String,
    /// The bridge's addresses.
    gateways: Vec<Cidr>,
    masquerade: bool,
    /// Whether no packet leaves or enters the bridge.
    internal: bool,
    /// The network, if its name is known.
    network: Option<String>,
    /// What it asked to do about other firewalls.
    forward: Option<Forward>,
}

/// Fails if anything is missing, and names it.
pub(crate) fn check(directories: &Directories) -> Result<()> {
    let _lock = lock_quietly()?;
    let steps = missing(directories, &mut Router::open().context("open a routing socket")?)?;
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    ensure!(steps.is_empty(), "networks have lost something: `ns restore` has to {}", steps.join(", "));
    Ok(())
}

/// Puts back what is missing. A bridge whose last container has gone stays no longer for that, however often it is asked for.
pub(crate) fn restore(directories: &Directories) -> Result<()> {
    let _lock = lock_quietly()?;
    restore_locked(directories)
}

/// The same for one who has the lock.
pub(super) fn restore_locked(directories: &Directories) -> Result<()> {
    let mut host = Router::open().context("open a routing socket")?;
    let steps = missing(directories, &mut host)?;
    Work::new(host, directories).apply(&steps)
}

fn missing(directories: &Directories, host: &mut Router) -> Result<Vec<Step>> {
    let links = host.links(None).context("list links")?;
    let addresses = host.addresses().context("list addresses")?;
    let own = |link: &Link| addresses.iter().filter(|own| own.index == link.index).map(|own| own.address).collect();
    let addresses: BTreeMap<&str, Vec<Cidr>> = links.iter().map(|link| (link.name.as_str(), own(link))).collect();
    let mut steps = Vec::new();
    for step in plan(&attachments(directories, &links)?, &links, &addresses) {
        let is_missing = match &step {
            Step::Firewall { rules, .. } => !firewall::is_there(rules)?,
            Step::Forward { ipv4 } => !forwarding::is_on(*ipv4),
            Step::HostRoute { link, address, .. } => {
                let way = host.route_to(*address)?.and_then(|way| way.index);
                way.is_none() || way != links.iter().find(|port| port.name == *link).map(|port| port.index)
            }
            _ => true,
        };
        // Bridges share the host's forwarding.
        if is_missing && !steps.contains(&step) {
            steps.push(step);
        }
    }
    Ok(steps)
}

/// Returns how the containers that have a network are on their bridges.
fn attachments(directories: &Directories, links: &[Link]) -> Result<Vec<Attachment>> {
    let (mut found, bundles) = (Vec::new(), directories.bundles());
    for record in Record::of_bundles(&bundles).with_context(|| format!("read {}", bundles.display()))? {
        for mut attachment in attachments_of(&record).unwrap_or_default() {
            let network = attachment.network.as_ref().unwrap_or(&attachment.bridge);
            // What is damaged is said when a container is to be made by it.
            let created = settings_of(directories, network).ok().flatten();
            attachment.masquerade &= !created.unwrap_or_default().no_masquerade;
            let link = links.iter().find(|link| link.name == attachment.port);
            let Attachment { alias, port, .. } = &attachment;
            if link.and_then(PortAlias::of).as_ref() == Some(alias) {
                // Only where the port's alias says exactly this container, owner and addresses: a record may be older
                // than the network.
                found.push(attachment);
            } else if link.is_none() && named::exists(&alias.id) {
                log::warn!("{} has lost its link {port}: only a restart makes it again", alias.id);
            }
        }
    }
    Ok(found)
}

/// Reads a record: how its container is on bridges that `ns add` works on, which others do not restore.
fn attachments_of(record: &Record) -> Option<Vec<Attachment>> {
    let network = record.find::<Network>().ok()??;
    let words = record.find::<NetworkOptions>().ok()??.0;
    if words.iter().any(|word| word.starts_with("--cni=") || word.starts_with("--join=")) {
        return None;
    }
    let list = |name: &str| network.0.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let owner = record.find::<OwnedBy>().ok()?.map(|owned| owned.0);
    let id = record.find::<Id>().ok()??.0;
    let mut found = Vec::new();
    for (position, interfaces) in list("interfaces").windows(3).enumerate() {
        let [bridge, port, inside] = interfaces else { continue };
        let is_of_host = |interface: &Value| interface.get("sandbox").is_none();
        if !is_of_host(bridge) || !is_of_host(port) || is_of_host(inside) {
            continue;
        }
        let (bridge_name, port) = (text(bridge, "name")?, text(port, "name")?);
        let (mut addresses, mut gateways, mut internal) = (Vec::new(), Vec::new(), false);
        for lease in list("ips").iter().filter(|ip| interface_of(ip) == Some(position + 2)) {
            let address: Cidr = text(lease, "address")?.parse().ok()?;
            addresses.push(address.address);
            internal |= lease.get("internal") == Some(&Value::Bool(true));
            gateways.push(Cidr { address: text(lease, "gateway")?.parse().ok()?, ..address });
        }
        let first: Option<IpAddr> = gateways.first().map(|gateway| gateway.address);
        found.push(Attachment {
            alias: PortAlias { id: id.clone(), owner, addresses },
            own: text(bridge, "mac") == Some(&mac_text(&mac(first, bridge_name))),
            port: port.to_owned(),
            gateways,
            masquerade: !words.iter().any(|word| word == "--no-masquerade"),
            internal,
            network: networks_of(&words).find(|name| owner::bridge_of(name) == bridge_name).map(str::to_owned),
            forward: words.iter().find_map(|word| word.strip_prefix("--forward=")?.parse().ok()),
            bridge: bridge_name.to_owned(),
        });
    }
    Some(found)
}

/// Returns the networks that options of `ns add` name.
pub(super) fn networks_of(words: &[String]) -> impl Iterator<Item = &str> {
    let named = words.iter().filter_map(|word| word.strip_prefix("--network="));
    named.filter_map(|word| word.strip_prefix("name=").unwrap_or(word).split([':', ',']).next())
}

fn text<'a>(object: &'a Value, member: &str) -> Option<&'a str> {
    object.get(member)?.as_str()
}

/// Returns all that the bridges need, but what of it is there without being seen in links and addresses.
fn plan(attachments: &[Attachment], links: &[Link], addresses: &BTreeMap<&str, Vec<Cidr>>) -> Vec<Step> {
    let mut bridges: BTreeMap<&str, Vec<&Attachment>> = BTreeMap::new();
    for attachment in attachments {
        bridges.entry(&attachment.bridge).or_default().push(attachment);
    }
    bridges.into_iter().flat_map(|(bridge, attached)| bridge_steps(bridge, &attached, links, addresses)).collect()
}

fn bridge_steps(
    bridge: &str,
    attached: &[&Attachment],
    links: &[Link],
    addresses: &BTreeMap<&str, Vec<Cidr>>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let distinct = |masquerade: bool| {
        let wanted = attached.iter().filter(|attachment| attachment.masquerade || !masquerade);
        let mut gateways: Vec<Cidr> = wanted.flat_map(|attachment| &attachment.gateways).copied().collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    };
    let gateways = distinct(false);
    let link = links.iter().find(|link| link.name == bridge);
    let internal = attached.iter().any(|attachment| attachment.internal) || link.is_some_and(owner::is_internal);
    if link.is_none() && !attached.iter().any(|attachment| attachment.own) {
        log::warn!("bridge {bridge} is gone: another program had made it");
        return steps;
    }
    let routed = attached.iter().any(|attachment| attachment.port.starts_with(&owner::routed_ports(bridge)));
    let ports = attached.iter().filter_map(|attachment| links.iter().find(|link| link.name == attachment.port));
    let ports: Vec<&Link> = ports.collect();
    if link.is_none() {
        let network = attached.iter().find_map(|attachment| attachment.network.as_deref());
        let names = owner::names_of(network.unwrap_or(bridge), routed);
        let mac = Some(mac(gateways.first().map(|gateway| gateway.address), bridge));
        let mtu = ports.iter().map(|port| port.mtu).min();
        steps.push(Step::Bridge(NewLink { name: bridge.to_owned(), mac, mtu, group: Some(owner::GROUP) }));
        let alias = owner::bridge_alias(internal).to_owned();
        steps.push(Step::Alias { link: bridge.to_owned(), alias, names });
        let enabled = gateways.iter().any(|gateway| !gateway.address.is_ipv4());
        steps.push(Step::HostIpv6 { link: bridge.to_owned(), enabled });
    }
    let known = addresses.get(bridge).map(Vec::as_slice).unwrap_or_default();
    let lost = gateways.iter().filter(|gateway| !known.contains(gateway));
    steps.extend(lost.map(|address| Step::HostAddress { link: bridge.to_owned(), address: *address }));
    if link.is_none_or(|link| !link.up) {
        steps.push(Step::HostUp(bridge.to_owned()));
    }
    let is_loose =
        |port: &&Link| !routed && (port.controller.is_none() || port.controller != link.map(|link| link.index));
    for port in ports.into_iter().filter(is_loose) {
        steps.push(Step::Port { port: port.name.clone(), bridge: bridge.to_owned() });
        steps.push(Step::Hairpin(port.name.clone()));
    }
    for attachment in attached.iter().filter(|_| routed) {
        let addresses = attachment.alias.addresses.iter().zip(&attachment.gateways);
        steps.extend(addresses.map(|(address, gateway)| {
            let (address, gateway) = (*address, gateway.address);
            Step::HostRoute { link: attachment.port.clone(), address, gateway, mac: None }
        }));
    }
    if !internal || routed {
        steps.extend(forwards(&gateways));
    }
    let networks: Vec<Cidr> = distinct(!internal).iter().map(|gateway| gateway.network()).collect();
    if !networks.is_empty() {
        let own = link.is_none_or(owner::is_bridge);
        let asked =
            attached.iter().filter(|attachment| attachment.masquerade || internal).map(|attachment| attachment.forward);
        let opens = asked.into_iter().any(|asked| asked.map_or(own, |how| how == Forward::Insert));
        let forward = if opens { Forward::Insert } else { Forward::Off };
        let (bridge, guard, masquerade) = (bridge.to_owned(), own && !internal, !internal);
        let ports = routed.then(|| owner::routed_ports(&bridge));
        let rules = BridgeRules { bridge, ports, networks, guard, masquerade, internal, forward };
        steps.push(Step::Firewall { rules, first: true });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached() -> Attachment {
        let record = Record::parse(
            br#"{"id":"web","network":{"cniVersion":"1.1.0","interfaces":[{"name":"b0","mac":"0a:58:0a:01:00:01"},{"name":"veth1"},
                {"name":"eth0","sandbox":"/run/netns/web"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":2}],
                "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}]},"networkOptions":["--network=b0"]}"#,
            "test",
        );
        attachments_of(&record.unwrap()).unwrap().remove(0)
    }

    fn lines(links: &[Link], addresses: &[(&str, &str)]) -> Vec<String> {
        let addresses = addresses.iter().map(|(link, address)| (*link, vec![address.parse().unwrap()])).collect();
        plan(&[attached()], links, &addresses).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_bridge_has_lost_is_made_again() {
        let bridge = Link {
            index: 5,
            name: "b0".into(),
            up: true,
            alias: Some("drayage".into()),
            kind: Some("bridge".into()),
            ..Link::default()
        };
        let port = Link { index: 6, name: "veth1".into(), controller: Some(5), ..Link::default() };
        let asked = ["forward packets of IPv4", "masquerade packets of b0"];
        assert_eq!(lines(&[bridge.clone(), port.clone()], &[("b0", "10.1.0.1/24")]), asked);
        let down = Link { up: false, ..bridge };
        let all = ["give b0 address 10.1.0.1/24", "bring b0 up"];
        assert_eq!(lines(&[down, port.clone()], &[]), [all, asked].concat());
        let made = ["make bridge b0", "mark b0 as \"drayage\"", "leave b0 without IPv6"];
        let joined = ["make veth1 a port of b0", "let veth1 send packets back"];
        let port = Link { controller: None, ..port };
        assert_eq!(lines(&[port], &[]), [&made[..], &all, &joined, &asked].concat());
    }

    #[test]
    fn a_network_that_others_make_is_theirs_to_restore() {
        for (network, words) in [
            (r#"{"interfaces":[{"name":"lo","sandbox":"/n"}],"ips":[]}"#, r#"["--none"]"#),
            (r#"{"interfaces":[{"name":"a"},{"name":"b"},{"name":"c","sandbox":"/n"}],"ips":[]}"#, r#"["--cni=/x"]"#),
        ] {
            let text = format!(r#"{{"id":"web","network":{network},"networkOptions":{words}}}"#);
            assert_eq!(attachments_of(&Record::parse(text.as_bytes(), "test").unwrap()).unwrap_or_default(), []);
        }
    }
}
