//! `ns network`: networks that are there before their first container, after their last, and after a boot. One is a file;
//! its bridge is made with the first container on it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail, ensure};
use container::{ContainerId, Directories, NAMESPACES, NetworkName};
use netlink::route::{Cidr, Link, Router};
use record::{Id, NetworkOptions, Record};
use serde_json::{Value, json};

use super::lock::lock;
use super::note::{self, draft_of};
use super::owner::{self, PortAlias, bridge_of};
use super::plan::gateways;
use super::settings::{created, settings_of};
use super::{macvlan, observe, removal, restore};
use crate::request::{NetworkDriver, NetworkSettings};

/// Those that docker has made itself, or that are none.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];

/// Notes a network, whose networks and gateways are chosen now. With `exist_ok` one that was created before with these
/// settings is no error.
pub(crate) fn create(
    directories: &Directories,
    name: &NetworkName,
    mut settings: NetworkSettings,
    exist_ok: bool,
) -> Result<()> {
    ensure!(!PREDEFINED.contains(&&**name), "network {name} is predefined");
    let _lock = lock()?;
    if let Some(there) = settings_of(directories, name)? {
        ensure!(exist_ok, "network {name} already exists");
        ensure!(is_like(&there, settings), "network {name} exists with other settings, until it is removed");
        return Ok(());
    }
    let mut host = Router::open().context("open a routing socket")?;
    removal::sweep(&mut host)?;
    let bridge = bridge_of(name);
    let link = host.link(&bridge).with_context(|| format!("look for {bridge}"))?;
    // Also one that is no bridge of ours: the first container would find it, and be refused, much later.
    ensure!(link.is_none(), "network {name} already exists: a link has its name");
    if settings.macvlan.is_none() {
        let observed = observe(&mut host, directories, &bridge, &settings)?;
        let gateways = gateways(&bridge, &settings, &observed)?;
        settings.subnets = gateways.iter().map(|gateway| gateway.network()).collect();
        // What was a wish is a network by now, which stays the same at each start, whoever has come meanwhile.
        settings.ipv6 = false;
        settings.gateways = gateways.iter().map(|gateway| gateway.address).collect();
    }
    note::write(&directories.network(name), &settings, true)
}

/// Tells whether a network that was created is what the settings ask for: what they leave open was chosen then.
fn is_like(there: &NetworkSettings, asked: NetworkSettings) -> bool {
    let has = |subnet: &Cidr| there.subnets.contains(&subnet.network());
    let has_ipv6 = there.subnets.iter().any(|subnet| !subnet.address.is_ipv4());
    let chosen = |settings| NetworkSettings { subnets: vec![], gateways: vec![], ipv6: false, ..settings };
    asked.subnets.iter().all(has)
        && asked.gateways.iter().all(|gateway| there.gateways.contains(gateway))
        && (has_ipv6 || !asked.ipv6)
        && chosen(asked) == chosen(there.clone())
}

/// Forgets a network that nobody uses. With `force` one that is not there is no error.
pub(crate) fn remove(directories: &Directories, name: &NetworkName, force: bool) -> Result<()> {
    let _lock = lock()?;
    let mut host = Router::open().context("open a routing socket")?;
    let users = users(directories, name, &mut host)?;
    ensure!(users.is_empty(), "network {name} is in use by {}", Vec::from_iter(users).join(", "));
    let path = directories.network(name);
    // It is there only if whoever wrote it was killed.
    let _none = fs::remove_file(draft_of(&path));
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && force => {}
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("no network {name}"),
        done => done.context("remove the notes about it")?,
    }
    removal::sweep(&mut host)
}

/// Returns the containers that are in a network, and those that have ended and would be again. What is noted of it must
/// outlive these: without, they would find a way out of an internal one.
fn users(directories: &Directories, name: &NetworkName, host: &mut Router) -> Result<BTreeSet<String>> {
    let links = host.links(None).context("list links")?;
    // What is noted of it may be damaged.
    let settings = settings_of(directories, name).ok().flatten().unwrap_or_default();
    let members = members(host, name, &settings, &links);
    let mut users: BTreeSet<String> = members.into_iter().map(|port| port.id.into()).collect();
    for record in Record::of_bundles(&directories.bundles()).context("read the bundles")? {
        let (Ok(Some(Id(id))), Ok(Some(NetworkOptions(words)))) = (record.find(), record.find()) else { continue };
        users.extend(restore::networks_of(&words).any(|network| network == &**name).then(|| id.into()));
    }
    Ok(users)
}

/// Returns the containers that are in a network, with their addresses there.
fn members(host: &mut Router, name: &NetworkName, settings: &NetworkSettings, links: &[Link]) -> Vec<PortAlias> {
    if settings.macvlan.is_none() {
        let bridge = links.iter().find(|link| link.name == bridge_of(name));
        let Some(is_on) = bridge.map(owner::is_on) else { return vec![] };
        return links.iter().filter(|link| is_on(link)).filter_map(PortAlias::of).collect();
    }
    let names = sys::file::entries(NAMESPACES).unwrap_or_default();
    let ids = names.iter().filter_map(|name| ContainerId::of_path(&name.path()).ok());
    // One that goes meanwhile is none, nor is one that an ordinary user may not look into.
    ids.filter_map(|id| Some(macvlan::member(host, settings, &id).ok()??.port)).collect()
}

/// Describes all networks, those that are there with their containers alone too, each as one JSON object.
pub(crate) fn list(directories: &Directories) -> Result<Vec<Value>> {
    let mut host = Router::open().context("open a routing socket")?;
    let links = host.links(None).context("list links")?;
    let addresses = host.addresses().context("list addresses")?;
    let mut networks = created(directories)?;
    for link in links.iter().filter(|link| owner::is_bridge(link)) {
        if !networks.iter().any(|(name, _)| bridge_of(name) == link.name) {
            let own = addresses.iter().filter(|own| own.index == link.index && own.is_lasting());
            let subnets = own.map(|own| own.address.network()).collect();
            let driver =
                if owner::routed_ports_of(link).is_some() { NetworkDriver::Routed } else { NetworkDriver::Bridge };
            let settings =
                NetworkSettings { subnets, internal: owner::is_internal(link), driver, ..NetworkSettings::default() };
            networks.push((owner::network_of(link).parse()?, settings));
        }
    }
    networks.iter().map(|(name, settings)| row(name, settings, members(&mut host, name, settings, &links))).collect()
}

fn row(name: &NetworkName, settings: &NetworkSettings, members: Vec<PortAlias>) -> Result<Value> {
    let containers = members.into_iter().map(|port| (port.id.into(), json!(port.addresses)));
    let mut row = serde_json::to_value(settings)?;
    row["ipv6"] = json!(settings.subnets.iter().any(|subnet| !subnet.address.is_ipv4()));
    row["name"] = json!(name);
    row["bridge"] = json!(bridge_of(name));
    row["containers"] = Value::Object(containers.collect());
    Ok(row)
}
