//! The configuration that a runtime writes to stdin: the standard plugin's keys.

use std::net::IpAddr;

use anyhow::{Context, anyhow, ensure};
use record::{Network, Protocol};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::condition::Conditions;
use crate::spec::{HostPorts, PortSpec, Span};

/// The keys that say something here. `backend`, `markMasqBit` and `externalSetMarkChain` choose how iptables is used,
/// which is not used at all: they are only checked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    pub(super) cni_version: Option<String>,
    pub(super) name: String,
    #[serde(default = "yes")]
    pub(super) snat: bool,
    pub(super) masq_all: bool,
    backend: Option<String>,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    #[serde(rename = "runtimeConfig")]
    runtime: RuntimeConfig,
    prev_result: Option<Map<String, Value>>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<Attachment>,
    /// Runtimes before 1.1.0 was final wrote it so.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Vec<Attachment>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Option<Vec<Port>>,
}

/// containerd and nerdctl write the keys with a capital, since the standard plugin's JSON reader knows no difference.
#[derive(Debug, Deserialize)]
struct Port {
    #[serde(rename = "hostPort", alias = "HostPort", default)]
    host: i64,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    container: i64,
    #[serde(alias = "Protocol", default)]
    protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    host_ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl Config {
    /// Reads a configuration. Go writes null for a list or a value that it does not have: the same as absent.
    pub(super) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let mut value: Value = serde_json::from_slice(text)?;
        let previous = value.as_object_mut().and_then(|members| members.shift_remove("prevResult"));
        drop_nulls(&mut value);
        // Without `prevResult`, whose nulls are another plugin's to mean something.
        let config: Self = serde_json::from_value(value)?;
        // What other plugins have written is handed on as it is.
        Ok(Self { prev_result: previous.map(serde_json::from_value).transpose()?.unwrap_or_default(), ..config })
    }

    /// Returns what the plugins before have done, in the version that the runtime speaks.
    pub(super) fn previous(&self) -> anyhow::Result<Network> {
        let mut previous = self.prev_result.clone().context("prevResult is missing: portmap is a chained plugin")?;
        previous.insert("cniVersion".to_owned(), self.version().into());
        Ok(Network(previous))
    }

    /// Returns the version that the runtime speaks: the first, where it says nothing.
    pub(super) fn version(&self) -> &str {
        self.cni_version.as_deref().filter(|version| !version.is_empty()).unwrap_or("0.1.0")
    }

    /// Returns the ports to publish. Those without a port of the host publish nothing: runtimes write them.
    pub(super) fn specs(&self) -> anyhow::Result<Vec<PortSpec>> {
        self.check_keys()?;
        let ports = self.runtime.port_mappings.as_deref().unwrap_or_default();
        let mut specs: Vec<PortSpec> = Vec::new();
        // Kubernetes writes 0 for a container port that is only declared.
        for port in ports.iter().filter(|port| port.host > 0) {
            let spec = spec(port)?;
            // Runtimes repeat a port, or ask for it at one address beside all: the standard plugin takes both.
            if !specs.iter().any(|other| covers(other, &spec)) {
                specs.retain(|other| !covers(&spec, other));
                specs.push(spec);
            }
        }
        Ok(specs)
    }

    /// Returns whom the ports are open to.
    pub(super) fn conditions(&self) -> anyhow::Result<Conditions> {
        let mut conditions = Conditions::default();
        for (key, words, is_ipv4) in
            [("conditionsV4", &self.conditions_v4, true), ("conditionsV6", &self.conditions_v6, false)]
        {
            let Some(words) = words.as_ref().filter(|words| !words.is_empty()) else { continue };
            conditions.0.extend(Conditions::parse(words, is_ipv4).context(key)?.0);
        }
        Ok(conditions)
    }

    /// Refuses what the standard plugin refuses, so that a mistake is found here too.
    fn check_keys(&self) -> anyhow::Result<()> {
        let both = self.mark_masq_bit.is_some() && self.external_set_mark_chain.is_some();
        ensure!(!both, "markMasqBit and externalSetMarkChain exclude each other");
        let bit = self.mark_masq_bit.unwrap_or_default();
        ensure!((0..32).contains(&bit), "markMasqBit {bit} is not between 0 and 31");
        let backend = self.backend.as_deref().unwrap_or("nftables");
        ensure!(matches!(backend, "iptables" | "nftables"), "backend {backend} is neither iptables nor nftables");
        Ok(())
    }

    /// Returns the containers and interfaces that are still there.
    pub(super) fn valid_attachments(&self) -> Vec<(&str, &str)> {
        let all = self.valid_attachments.iter().chain(&self.attachments);
        all.map(|attachment| (attachment.container_id.as_str(), attachment.ifname.as_str())).collect()
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// Tells whether all that `other` publishes is published by `one` too.
fn covers(one: &PortSpec, other: &PortSpec) -> bool {
    let addresses = match (one.host_ip, other.host_ip) {
        (None, _) => true,
        (Some(one), Some(other)) => one == other || one.is_unspecified() && one.is_ipv4() == other.is_ipv4(),
        (Some(_), None) => false,
    };
    addresses && PortSpec { host_ip: None, ..*one } == PortSpec { host_ip: None, ..*other }
}

fn spec(port: &Port) -> anyhow::Result<PortSpec> {
    let protocol = match port.protocol.as_str() {
        "" => Protocol::Tcp,
        text => text.parse().map_err(|cause| anyhow!("portMappings: protocol {text}: {cause}"))?,
    };
    let number = |number: i64| {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.with_context(|| format!("portMappings: {number} is not a port"))
    };
    let host_ip = Some(&port.host_ip).filter(|text| !text.is_empty()).map(|text| text.parse::<IpAddr>());
    let host_ip = host_ip.transpose().with_context(|| format!("portMappings: hostIP {}", port.host_ip))?;
    Ok(PortSpec {
        // As Go reads it: `::ffff:127.0.0.1` is an address of IPv4.
        host_ip: host_ip.map(|ip| ip.to_canonical()),
        host: HostPorts::Exactly(Span::one(number(port.host)?)),
        container: Span::one(number(port.container)?),
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let null = config(
            r#"{"cniVersion":null,"name":"x","snat":null,"masqAll":null,"backend":null,"conditionsV4":null,
            "runtimeConfig":{"portMappings":[null,{"hostPort":1,"containerPort":2,"protocol":null,"hostIP":null}]},
            "prevResult":{"ips":null},"cni.dev/valid-attachments":null,"cni.dev/attachments":null}"#,
        );
        assert!(null.snat && !null.masq_all && null.valid_attachments().is_empty());
        assert_eq!(null.specs().unwrap(), ["1:2".parse().unwrap()]);
        assert_eq!(Value::Object(null.previous().unwrap().0).to_string(), r#"{"ips":null,"cniVersion":"0.1.0"}"#);
        assert_eq!(config(r#"{"name":"x","runtimeConfig":null,"prevResult":null}"#).specs().unwrap(), []);
    }

    #[test]
    fn a_port_that_is_asked_for_twice_is_one() {
        for (ports, want) in [
            (r#"{"hostPort":1,"containerPort":2},{"hostPort":1,"containerPort":2,"protocol":"TCP"}"#, vec!["1:2"]),
            (r#"{"hostPort":1,"containerPort":2,"hostIP":"127.0.0.1"},{"hostPort":1,"containerPort":2}"#, vec!["1:2"]),
            (
                r#"{"hostPort":1,"containerPort":2,"hostIP":"0.0.0.0"},{"hostPort":1,"containerPort":2,"hostIP":"127.0.0.1"}"#,
                vec!["0.0.0.0:1:2"],
            ),
            (r#"{"hostPort":1,"containerPort":2},{"hostPort":1,"containerPort":3}"#, vec!["1:2", "1:3"]),
            (r#"{"hostPort":1,"containerPort":2,"hostIP":"::ffff:127.0.0.1"}"#, vec!["127.0.0.1:1:2"]),
        ] {
            let text = format!(r#"{{"name":"x","runtimeConfig":{{"portMappings":[{ports}]}}}}"#);
            let want: Vec<PortSpec> = want.into_iter().map(|spec| spec.parse().unwrap()).collect();
            assert_eq!(config(&text).specs().unwrap(), want, "{ports}");
        }
    }

    #[test]
    fn ports_are_read_as_the_standard_plugin_reads_them() {
        for (ports, want) in [
            (r#"{"hostPort":8080,"containerPort":80,"protocol":"tcp"}"#, "8080:80"),
            (r#"{"hostPort":53,"containerPort":53,"protocol":"UDP"}"#, "53:53/udp"),
            (r#"{"hostPort":8080,"containerPort":80,"hostIP":"127.0.0.1"}"#, "127.0.0.1:8080:80"),
            (r#"{"HostPort":53,"ContainerPort":53,"Protocol":"udp","HostIP":""}"#, "53:53/udp"),
        ] {
            let text = format!(r#"{{"name":"x","runtimeConfig":{{"portMappings":[{ports}]}}}}"#);
            assert_eq!(config(&text).specs().unwrap(), [want.parse().unwrap()], "{ports}");
        }
        let nothing = r#"{"name":"x","runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":80}]}}"#;
        assert_eq!(config(nothing).specs().unwrap(), []);
        assert_eq!(config(r#"{"name":"x"}"#).specs().unwrap(), []);
    }

    #[test]
    fn each_family_has_its_conditions() {
        let both = config(r#"{"name":"x","conditionsV4":["!","-d","192.0.2.0/24"],"conditionsV6":["-s","fd00::/8"]}"#);
        assert_eq!(both.conditions().unwrap().0.len(), 3);
        let none = config(r#"{"name":"x","conditionsV4":[],"conditionsV6":null}"#);
        assert_eq!(none.conditions().unwrap(), Conditions::default());
        let wrong = config(r#"{"name":"x","conditionsV6":["-i","eth0"]}"#).conditions().unwrap_err();
        assert_eq!(format!("{wrong:#}"), "conditionsV6: -i is not supported: only -s and -d are");
    }

    #[test]
    fn keys_that_contradict_are_refused() {
        for (keys, want) in [
            (r#""markMasqBit":13,"backend":"iptables""#, None),
            (r#""externalSetMarkChain":"KUBE-MARK-MASQ""#, None),
            (
                r#""markMasqBit":13,"externalSetMarkChain":"X""#,
                Some("markMasqBit and externalSetMarkChain exclude each other"),
            ),
            (r#""markMasqBit":32"#, Some("markMasqBit 32 is not between 0 and 31")),
            (r#""backend":"pf""#, Some("backend pf is neither iptables nor nftables")),
        ] {
            let got = config(&format!(r#"{{"name":"x",{keys}}}"#)).specs().err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), want, "{keys}");
        }
    }

    #[test]
    fn the_previous_result_is_handed_on_in_the_configured_version() {
        let previous = config(r#"{"cniVersion":"0.4.0","name":"x","prevResult":{"ips":[]}}"#).previous().unwrap();
        assert_eq!(Value::Object(previous.0).to_string(), r#"{"ips":[],"cniVersion":"0.4.0"}"#);
        assert!(config(r#"{"name":"x"}"#).previous().is_err());
    }
}
