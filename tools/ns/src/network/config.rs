//! What a bundle learns of its network: the namespace's path in config.json (runtime-spec, config-linux.md,
//! "Namespaces"), so that any runtime joins it, and the container's own name in its hosts file.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use record::{Network, Record};
use serde_json::{Value, json};
use sys::namespace::is_own_network;

use super::hosts;

/// A bundle's config.json, read whole so that it can be put back.
#[derive(Debug)]
pub(crate) struct BundleConfig {
    path: PathBuf,
    text: Vec<u8>,
    value: Value,
}

impl BundleConfig {
    /// Reads the config.json of a bundle.
    pub(crate) fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let read = || -> Result<Self> {
            let text = sys::file::read_regular(&path)?;
            let value = serde_json::from_slice(&text)?;
            Ok(Self { path: path.clone(), text, value })
        };
        read().with_context(|| format!("read {}", path.display()))
    }

    /// Returns the container's host name, if it has one of its own.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.value.get("hostname")?.as_str().filter(|name| !name.is_empty())
    }

    /// Writes it with the network namespace `netns`; nothing else is changed.
    pub(crate) fn join(&self, netns: &Path) -> Result<()> {
        let mut value = self.value.clone();
        set_namespace(&mut value, netns)?;
        // Of a file that was written for people one for people is made.
        let pretty = self.text.trim_ascii_end().contains(&b'\n');
        let mut text = if pretty { serde_json::to_vec_pretty(&value)? } else { serde_json::to_vec(&value)? };
        text.push(b'\n');
        self.replace(&text)
    }

    /// Writes it as it was.
    pub(crate) fn restore(&self) -> Result<()> {
        self.replace(&self.text)
    }

    fn replace(&self, text: &[u8]) -> Result<()> {
        // A whole file or the old one: the runtime that reads it may be started at any moment.
        output::replace(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }
}

fn set_namespace(config: &mut Value, netns: &Path) -> Result<()> {
    let object = config.as_object_mut().ok_or_else(|| anyhow!("config.json is not an object"))?;
    let linux = object.entry("linux").or_insert_with(|| json!({}));
    let linux = linux.as_object_mut().ok_or_else(|| anyhow!("config.json's linux is not an object"))?;
    let namespaces = linux.entry("namespaces").or_insert_with(|| json!([]));
    let namespaces = namespaces.as_array_mut().ok_or_else(|| anyhow!("linux.namespaces is not an array"))?;
    if is_own_network(netns) {
        // A container that shares the host's network joins nothing, and a runtime refuses to set anything there.
        namespaces.retain(|namespace| namespace.get("type") != Some(&json!("network")));
        if let Some(settings) = linux.get_mut("sysctl").and_then(Value::as_object_mut) {
            settings.retain(|name, _| !name.starts_with("net."));
        }
        return Ok(());
    }
    let path = json!(netns);
    match namespaces.iter_mut().find(|namespace| namespace.get("type") == Some(&json!("network"))) {
        Some(Value::Object(namespace)) => {
            namespace.insert("path".to_owned(), path);
        }
        _ => namespaces.push(json!({"type": "network", "path": path})),
    }
    Ok(())
}

/// Adds the container's name to its hosts file, if the bundle has one, in the place of what the run before has added:
/// its address, by the bundle's record, and the others on the bridge. Names for the host get the gateway's address.
pub(crate) fn add_host(bundle: &Path, network: &Network, hostname: &str) -> std::io::Result<()> {
    let Some(address) = network.addresses().first().copied() else { return Ok(()) };
    let path = bundle.join("hosts");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let before = Record::of_bundle(bundle).ok().and_then(|record| record.find::<Network>().ok().flatten());
    let before = before.iter().flat_map(Network::addresses).map(|address| format!("{address}\t{hostname}"));
    let added: Vec<String> = before.chain([format!("{address}\t{hostname}")]).collect();
    let lasts = |line: &&str| !hosts::is_marked(line.as_bytes()) && !added.iter().any(|own| own == line);
    let lines = text.lines().filter(lasts).map(|line| match network.gateway() {
        Some(gateway) => with_gateway(line, gateway),
        None => line.to_owned(),
    });
    let changed: Vec<String> = lines.chain(added.last().cloned()).collect();
    let changed = changed.join("\n") + "\n";
    if changed == text {
        return Ok(());
    }
    output::replace(&path, changed.as_bytes())
}

/// Gives a line that waits for it the gateway's address.
fn with_gateway(line: &str, gateway: IpAddr) -> String {
    match line.split_once('\t').filter(|_| line.ends_with(record::HOST_GATEWAY)) {
        Some((_, rest)) => format!("{gateway}\t{rest}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_the_host_gets_the_gateways_address() {
        for (line, want) in
            [("10.0.0.1\ta", "10.0.0.1\ta"), ("192.0.2.1\th\t# host-gateway", "10.9.0.1\th\t# host-gateway")]
        {
            assert_eq!(with_gateway(line, "10.9.0.1".parse().unwrap()), want);
        }
    }

    #[test]
    fn only_the_network_namespaces_path_is_changed() {
        for (before, after) in [
            (
                r#"{"z":1,"linux":{"namespaces":[{"type":"pid"},{"type":"network"}],"y":2.5},"a":[]}"#,
                r#"{"z":1,"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/w"}],"y":2.5},"a":[]}"#,
            ),
            (
                r#"{"linux":{"namespaces":[{"path":"/old","type":"network"}]}}"#,
                r#"{"linux":{"namespaces":[{"path":"/run/netns/w","type":"network"}]}}"#,
            ),
            (r"{}", r#"{"linux":{"namespaces":[{"type":"network","path":"/run/netns/w"}]}}"#),
        ] {
            let mut config: Value = serde_json::from_str(before).unwrap();
            set_namespace(&mut config, Path::new("/run/netns/w")).unwrap();
            assert_eq!(config.to_string(), after);
        }
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for text in ["[]", r#"{"linux":1}"#, r#"{"linux":{"namespaces":{}}}"#] {
            assert!(set_namespace(&mut serde_json::from_str(text).unwrap(), Path::new("/x")).is_err(), "{text}");
        }
    }
}
