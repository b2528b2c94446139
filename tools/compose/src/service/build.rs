//! How a service's image is built, in the options that `buildah build`, `podman build` and `docker build` share: compose-spec,
//! build.

use std::path::Path;

use anyhow::Result;

use crate::node::Node;

/// Returns the options and the context.
pub(super) fn words(build: &Node<'_>) -> Result<Vec<String>> {
    if !build.value.is_object() {
        return Ok(vec![build.text()?]);
    }
    build.only_or_named(
        "context dockerfile args labels target network shm_size extra_hosts platforms no_cache pull",
        "cache_from cache_to provenance sbom isolation",
    )?;
    let context = build.get("context").ok_or_else(|| build.error("no context"))?.text()?;
    let mut words = Vec::new();
    for (key, option, separator) in [
        ("args", "--build-arg", '='),
        ("labels", "--label", '='),
        ("extra_hosts", "--add-host", ':'),
        ("target", "--target", '='),
        ("network", "--network", '='),
        ("shm_size", "--shm-size", '='),
        ("platforms", "--platform", '='),
    ] {
        let values = build.get(key).map(|node| node.pairs(separator)).transpose()?.unwrap_or_default();
        words.extend(values.iter().map(|value| format!("{option}={value}")));
    }
    for (key, option) in [("no_cache", "--no-cache"), ("pull", "--pull")] {
        words.extend(build.get(key).map_or(Ok(false), |node| node.flag())?.then(|| option.to_owned()));
    }
    if let Some(file) = build.get("dockerfile") {
        // The builder looks for it below the directory where it is called, or in a repository.
        let below = if context.starts_with('/') { Path::new(&context) } else { Path::new("") };
        words.push(format!("--file={}", below.join(file.text()?).display()));
    }
    words.push(context);
    Ok(words)
}
