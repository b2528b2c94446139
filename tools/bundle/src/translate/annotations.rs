//! The annotations of config.json (image-spec, conversion.md, "Annotation Fields").

use std::collections::BTreeMap;

use oci_spec::image::{Config, ImageConfiguration};

use crate::request::BundleRequest;

/// Keys by which runtimes take orders that are not an image's to give: files of the host, handlers, systemd properties.
const ORDERS: [&str; 5] =
    ["run.oci.", "org.systemd.property.", "org.criu.", "io.kubernetes.cri-o.", ::container::JOINED];
/// How long the container has to stop, for who stops it.
const STOP_TIMEOUT: &str = "org.drayage.stopTimeout";
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// Returns the annotations: what follows from the image's fields, then its labels, then the user's, each winning over
/// what was before. Those of manifests and indexes take no part.
pub(super) fn annotations(
    image: &ImageConfiguration,
    config: &Config,
    options: &BundleRequest,
) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let mut implicit = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(format!("org.opencontainers.image.{name}"), value);
        }
    };
    implicit("os", Some(image.os().to_string()));
    implicit("architecture", Some(image.architecture().to_string()));
    implicit("variant", image.variant().clone());
    implicit("os.version", image.os_version().clone());
    implicit("os.features", image.os_features().as_ref().map(|features| features.join(",")));
    implicit("author", image.author().clone());
    implicit("created", image.created().clone());
    implicit("stopSignal", config.stop_signal().clone());
    let mut ports = config.exposed_ports().clone().unwrap_or_default();
    ports.extend(options.names.expose.iter().filter(|port| !ports.contains(port)).cloned().collect::<Vec<_>>());
    // The parser's order is random; by number, then protocol, is the reader's.
    ports.sort_by_key(|port| (port.split(['/', '-']).next().and_then(|port| port.parse::<u16>().ok()), port.clone()));
    implicit("exposedPorts", Some(ports.join(",")));
    // An image comes from strangers: its labels must not tell a runtime which program to run, or systemd what to set.
    let labels = config.labels().iter().flatten().filter(|(key, _)| !is_order(key));
    annotations.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
    let timeout = options.stop_timeout.map(|seconds| seconds.to_string());
    let ends = [(STOP_SIGNAL, options.stop_signal.clone()), (STOP_TIMEOUT, timeout)];
    annotations.extend(ends.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    annotations.extend(options.names.label.iter().chain(&options.names.annotation).cloned());
    annotations
}

/// Returns the image's labels that do not become annotations.
pub(crate) fn dropped(image: &ImageConfiguration) -> Vec<String> {
    let labels = image.labels_of_config().into_iter().flatten();
    let mut keys: Vec<String> = labels.map(|(key, _)| key.clone()).filter(|key| is_order(key)).collect();
    keys.sort();
    keys
}

fn is_order(key: &str) -> bool {
    ORDERS.iter().any(|prefix| key.starts_with(prefix))
}
