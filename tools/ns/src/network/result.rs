//! The record's member `network`: a result as the CNI specification 1.1.0 has it (section 5, "ADD Success").

use std::path::Path;

use netlink::route::Mac;
use record::Network;
use serde_json::{Map, Value, json};

use super::ipam::Lease;

/// One interface of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name in its namespace.
    pub(crate) name: String,
    /// Its address.
    pub(crate) mac: Option<Mac>,
    /// The path of its namespace; `None` on the host.
    pub(crate) sandbox: Option<String>,
}

/// Writes a result; the last interface is the one that has the addresses.
pub(crate) fn network(interfaces: &[Interface], leases: &[Lease]) -> Network {
    let last = interfaces.len().saturating_sub(1);
    network_of(interfaces, &leases.iter().map(|lease| (*lease, last)).collect::<Vec<_>>())
}

/// Writes a result; with each address stands which interface has it.
pub(super) fn network_of(interfaces: &[Interface], leases: &[(Lease, usize)]) -> Network {
    let ips = leases.iter().map(|(Lease { address, gateway, internal }, interface)| {
        let mut ip = json!({"address": address.to_string(), "gateway": gateway.to_string(), "interface": interface});
        if *internal {
            ip["internal"] = json!(true);
        }
        ip
    });
    let routes = leases.iter().filter(|(lease, _)| !lease.internal).map(|(lease, _)| {
        let all = if lease.gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({"dst": all, "gw": lease.gateway.to_string()})
    });
    let members = [
        ("cniVersion", json!("1.1.0")),
        ("interfaces", interfaces.iter().map(interface).collect()),
        ("ips", ips.collect()),
        ("routes", routes.collect()),
        ("dns", json!({})),
    ];
    Network(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Returns the result of no network.
pub(super) fn loopback(netns: &Path) -> Network {
    let sandbox = Some(netns.display().to_string());
    network(&[Interface { name: "lo".to_owned(), mac: None, sandbox }], &[])
}

/// Returns the names of the interfaces.
pub(super) fn names(network: &Network) -> Vec<String> {
    let interfaces = network.0.get("interfaces").and_then(Value::as_array).into_iter().flatten();
    interfaces.filter_map(|interface| Some(interface.get("name")?.as_str()?.to_owned())).collect()
}

pub(super) fn interface_of(ip: &Value) -> Option<usize> {
    usize::try_from(ip.get("interface")?.as_u64()?).ok()
}

fn interface(interface: &Interface) -> Value {
    let mut members = Map::new();
    members.insert("name".to_owned(), json!(interface.name));
    if let Some(mac) = interface.mac {
        members.insert("mac".to_owned(), json!(mac_text(&mac)));
    }
    if let Some(sandbox) = &interface.sandbox {
        members.insert("sandbox".to_owned(), json!(sandbox));
    }
    Value::Object(members)
}

/// Writes a link-layer address: `0a:58:0a:d5:00:05`.
pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_cnis_members() {
        let interfaces = [
            Interface { name: "drayage0".into(), mac: Some([10, 88, 10, 213, 0, 1]), sandbox: None },
            Interface { name: "eth0".into(), mac: None, sandbox: Some("/run/netns/web".into()) },
        ];
        let lease =
            Lease { address: "10.213.0.5/16".parse().unwrap(), gateway: [10, 213, 0, 1].into(), internal: false };
        let network = network(&interfaces, &[lease]);
        assert_eq!(
            Value::Object(network.0.clone()).to_string(),
            r#"{"cniVersion":"1.1.0","interfaces":[{"name":"drayage0","mac":"0a:58:0a:d5:00:01"},{"name":"eth0","sandbox":"/run/netns/web"}],"ips":[{"address":"10.213.0.5/16","gateway":"10.213.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0","gw":"10.213.0.1"}],"dns":{}}"#
        );
        assert_eq!(network.namespace().unwrap().to_str(), Some("/run/netns/web"));
    }
}
