//! The members of the record that have a type: each named after the artefact, not after the tool.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use container::{ContainerId, Owner};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// `image`: what `pull` has fetched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The normalised reference, or the source's name where there is no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The OCI image layout's absolute path.
    pub layout: PathBuf,
    /// The descriptor of the chosen platform's manifest (image-spec, descriptor.md), kept as it came.
    pub manifest: Map<String, Value>,
    /// Members of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Image {
    /// Returns an image of a layout by its descriptor.
    pub fn new<D: Serialize>(reference: Option<String>, layout: &Path, manifest: &D) -> Result<Self, Error> {
        let manifest = serde_json::to_value(manifest).and_then(serde_json::from_value);
        let manifest = manifest.map_err(|error| Error::Member { member: "image", cause: error.to_string() })?;
        Ok(Self { reference, layout: layout.to_owned(), manifest, other: Map::new() })
    }

    /// Returns the manifest's descriptor as the caller's type for descriptors, so that tools which never open an image
    /// need not be built with one.
    pub fn manifest<D: DeserializeOwned>(&self) -> Result<D, Error> {
        serde_json::from_value(Value::Object(self.manifest.clone()))
            .map_err(|error| Error::Member { member: "image", cause: format!("manifest: {error}") })
    }
}

/// `rootfs`: what `unpack` has extracted. One of the two members is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Overlay-ready layer directories, absolute, in the manifest's order: the lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<PathBuf>>,
    /// One merged tree, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Members of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `bundle`: the absolute path of an OCI runtime bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bundle(pub PathBuf);

/// `id`: the container's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub ContainerId);

/// `owner`: whose all is that stages make for the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnedBy(pub Owner);

/// What ends a line of a bundle's hosts file whose address is to become the gateway of the container's network.
pub const HOST_GATEWAY: &str = "\t# host-gateway";

/// `network`: a CNI result (CNI specification 1.1.0, section 5), kept as it came.
///
/// Whoever calls other CNI plugins gives it to them as `prevResult`, so nothing may be lost of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Network(pub Map<String, Value>);

impl Network {
    /// Returns the container's addresses, in the result's order, without their prefix lengths. An address of an interface
    /// without a sandbox is the host's. Results before version 0.3.0 have one address a family, in `ip4` and `ip6`.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.0.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let inside = ips.iter().filter(|ip| !self.is_of_host(ip)).filter_map(|ip| ip.get("address"));
        let early = ["ip4", "ip6"].into_iter().filter_map(|family| self.0.get(family)?.get("ip"));
        inside.chain(early).filter_map(|address| address.as_str()?.split('/').next()?.parse().ok()).collect()
    }

    /// Returns the gateway of the container's first address that has one.
    pub fn gateway(&self) -> Option<IpAddr> {
        let mut ips = self.0.get("ips")?.as_array()?.iter().filter(|ip| !self.is_of_host(ip));
        ips.find_map(|ip| ip.get("gateway")?.as_str()?.parse().ok())
    }

    /// Tells whether all of the container's addresses are in networks that lead nowhere.
    pub fn is_internal(&self) -> bool {
        let ips = self.0.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        !ips.is_empty() && ips.iter().all(|ip| ip.get("internal") == Some(&Value::Bool(true)))
    }

    fn is_of_host(&self, ip: &Value) -> bool {
        let interface = || {
            let index = usize::try_from(ip.get("interface")?.as_u64()?).ok()?;
            self.0.get("interfaces")?.get(index)
        };
        let sandbox = |interface: &Value| interface.get("sandbox").and_then(Value::as_str).map(str::to_owned);
        interface().is_some_and(|interface| sandbox(interface).is_none_or(|sandbox| sandbox.is_empty()))
    }

    /// Returns the path of the container's network namespace: the `sandbox` of the interfaces inside it.
    pub fn namespace(&self) -> Option<PathBuf> {
        self.0.get("interfaces")?.as_array()?.iter().find_map(|interface| {
            let sandbox = interface.get("sandbox")?.as_str()?;
            (!sandbox.is_empty()).then(|| PathBuf::from(sandbox))
        })
    }
}

/// `ports`: what `portmap` has published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports(pub Vec<PortMapping>);

/// One published port, with the keys of CNI's `portMappings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The host's address; absent means every address.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol, spelt as CNI spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

const PROTOCOLS: [(&str, Protocol); 3] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];

impl std::str::FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = PROTOCOLS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        found.map(|(_, protocol)| *protocol).ok_or("the protocol is not one of tcp, udp and sctp")
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PROTOCOLS.iter().find(|(_, protocol)| protocol == self).map_or("", |(word, _)| word))
    }
}

/// `networkOptions`: what `ns add` was called with, without what only that one call could know. Whoever starts the container
/// again gives it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkOptions(pub Vec<String>);

/// `portOptions`: the same of `portmap`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortOptions(pub Vec<String>);

/// The runtime-spec State (runtime.md, "State"): its members stand at the record's top level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the runtime specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci_version: Option<String>,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running`, `stopped` or `paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The container process, as the host numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The annotations of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Makes types members of the record: `part! { Image: "image" by "pull"; }`.
#[macro_export]
macro_rules! part {
    ($($type:ty: $member:literal by $stage:literal;)*) => {
        $(impl $crate::Part for $type {
            const MEMBER: &'static str = $member;
            const STAGE: &'static str = $stage;
        })*
    };
}

part! {
    Image: "image" by "pull";
    Rootfs: "rootfs" by "unpack";
    Bundle: "bundle" by "bundle";
    Id: "id" by "bundle";
    OwnedBy: "owner" by "bundle";
    Network: "network" by "ns add";
    Ports: "ports" by "portmap";
    NetworkOptions: "networkOptions" by "ns add";
    PortOptions: "portOptions" by "portmap";
    State: "" by "spawn";
}
