//! What the project declares beside its services, and the names of what is its own.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use container::{ContainerId, NameError, NetworkName, VolumeName};
use serde_json::Value;

use crate::interpolate::Variables;
use crate::node::Node;

/// What docker calls the name of a network's link.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// What a service's keys refer to outside of the service.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Begins the names of what the file gives none.
    pub(crate) name: &'a str,
    /// The files as one.
    pub(crate) file: &'a Node<'a>,
    /// An ordinary user has no bridges, and so no names.
    pub(crate) rootless: bool,
    /// What a variable without a value takes it from.
    pub(crate) variables: &'a Variables,
    /// Where the project's files are made.
    pub(crate) directory: &'a Path,
}

impl Context<'_> {
    /// Returns the id of a service's container where the file gives it none.
    pub(crate) fn container(&self, service: &str) -> Result<ContainerId> {
        Ok(format!("{}-{service}-1", self.name).parse()?)
    }

    /// Returns the id of a service's container.
    pub(crate) fn container_of(&self, service: &str) -> Result<ContainerId> {
        let node = self.file.get("services").and_then(|services| services.get(service));
        let node = node.ok_or_else(|| anyhow!("services: no service {service}"))?;
        node.get("container_name").map_or_else(|| self.container(service), |name| name.name())
    }

    /// Returns the names that `links` of other services have for a service.
    pub(crate) fn linked_as(&self, service: &str) -> Result<Vec<String>> {
        let services = self.file.get("services").map(|node| node.members()).transpose()?.unwrap_or_default();
        let links = services.iter().filter_map(|(_, other)| other.get("links")).map(|links| links.texts());
        let links = links.collect::<Result<Vec<_>>>()?.concat();
        let names = links.iter().filter_map(|link| link.split_once(':')).filter(|(linked, _)| *linked == service);
        Ok(names.map(|(_, name)| name.to_owned()).collect())
    }

    /// Returns the labels by which a container's project and service are found again: the same as docker's.
    pub(crate) fn labels(&self, service: &str) -> Vec<String> {
        [("project", self.name), ("service", service)]
            .into_iter()
            .flat_map(|(key, value)| ["--label".to_owned(), format!("com.docker.compose.{key}={value}")])
            .collect()
    }

    /// Returns the name of the volume `key`.
    pub(crate) fn volume(&self, key: &str) -> Result<VolumeName> {
        let volumes = self.file.get("volumes");
        let declared = volumes.as_ref().and_then(|volumes| volumes.value.get(key));
        let declared = declared.ok_or_else(|| anyhow!("no volume {key} under volumes"))?;
        volume_name(self.name, key, &Node { value: declared, place: format!("volumes.{key}") }).map(|(name, _)| name)
    }

    /// Returns what a secret or config is made of.
    pub(crate) fn source(&self, kind: &str, name: &str) -> Result<(String, Node<'_>)> {
        let declared = self.file.get(kind).and_then(|node| node.get(name));
        let declared = declared.ok_or_else(|| anyhow!("no {name} under {kind}"))?;
        let keys = if kind == "configs" { "file environment content" } else { "file environment" };
        declared.only_or_named(keys, "name")?;
        let mut sources = declared.members()?.into_iter().filter(|(key, _)| keys.contains(&**key));
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            _ => Err(declared.error(format!("one of {keys} is expected"))),
        }
    }

    /// Returns a network. Each project has networks of its own, whose bridges are named after them.
    pub(crate) fn network(&self, key: &str) -> Result<ProjectNetwork> {
        let networks = self.file.get("networks");
        let declared = networks.as_ref().and_then(|networks| networks.value.get(key));
        if declared.is_none() && key != "default" {
            return Err(anyhow!("no network {key} under networks"));
        }
        // It is there without being declared: compose-spec, 06.
        let node = Node { value: declared.unwrap_or(&Value::Null), place: format!("networks.{key}") };
        network(self.name, key, &node)
    }
}

/// A network that services join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectNetwork {
    /// Its bridge's name, or a further one of it.
    pub(crate) name: NetworkName,
    /// The options of `ns network create`; none where it is as its first container finds it.
    pub(crate) settings: Vec<String>,
}

/// Reads a network: compose-spec, 06.
fn network(project: &str, key: &str, node: &Node<'_>) -> Result<ProjectNetwork> {
    let (external, mut name) = named(project, key, node)?;
    if !node.value.is_null() {
        node.only_or_named("name external driver driver_opts ipam internal enable_ipv6", "labels attachable")?;
    }
    let mut settings = Vec::new();
    if let Some(driver) = node.get("driver").filter(|driver| driver.value != "bridge") {
        settings.push(format!("--driver={}", driver.text()?));
    }
    for (key, option) in [("internal", "--internal"), ("enable_ipv6", "--ipv6")] {
        let set = node.get(key).map_or(Ok(false), |node| node.flag())?;
        settings.extend(set.then(|| option.to_owned()));
    }
    settings.extend(subnets(node)?);
    for (key, node) in node.get("driver_opts").map(|node| node.members()).transpose()?.unwrap_or_default() {
        if key == BRIDGE_NAME {
            name = node.name()?;
        } else {
            settings.push(format!("--opt={key}={}", node.text()?));
        }
    }
    if external && !settings.is_empty() {
        return Err(node.error("it is external, so its settings are not ours"));
    }
    Ok(ProjectNetwork { name, settings })
}

/// Tells whether somebody else makes a network or a volume, and returns its name, which the file may give: in version 3.4
/// as `external: {name: NAME}`.
fn named<T: FromStr<Err = NameError>>(project: &str, key: &str, node: &Node<'_>) -> Result<(bool, T)> {
    let (external, given) = match node.get("external") {
        Some(external) if external.value.is_object() => {
            external.only("name")?;
            (true, external.get("name"))
        }
        external => (external.map_or(Ok(false), |node| node.flag())?, node.get("name")),
    };
    let own = if external { key.to_owned() } else { format!("{project}_{key}") };
    let own = || own.parse().map_err(|what| node.error(what));
    Ok((external, given.map_or_else(own, |given| given.name())?))
}

/// Returns the settings in a network's `ipam`.
fn subnets(network: &Node<'_>) -> Result<Vec<String>> {
    let Some(ipam) = network.get("ipam") else { return Ok(Vec::new()) };
    ipam.only("driver config")?;
    if let Some(driver) = ipam.get("driver").filter(|driver| driver.value != "default") {
        return Err(driver.error("not supported"));
    }
    let mut options = Vec::new();
    for config in ipam.get("config").map(|node| node.items()).transpose()?.unwrap_or_default() {
        config.only("subnet gateway ip_range")?;
        for (key, option) in [("subnet", "--subnet"), ("gateway", "--gateway"), ("ip_range", "--ip-range")] {
            options
                .extend(config.get(key).map(|value| value.text()).transpose()?.map(|text| format!("{option}={text}")));
        }
    }
    Ok(options)
}

/// Returns a volume's name, and whether it is the project's own.
pub(crate) fn volume_name(project: &str, key: &str, node: &Node<'_>) -> Result<(VolumeName, bool)> {
    if !node.value.is_null() {
        node.only_or_named("name external driver", "labels")?;
    }
    if let Some(driver) = node.get("driver").filter(|driver| driver.value != "local") {
        return Err(driver.error("not supported"));
    }
    named(project, key, node).map(|(external, name)| (name, !external))
}
