//! How a service's image is built, in the options that `buildah build`, `podman build` and `docker build` share: compose-spec,
//! build.

use std::path::Path;

use anyhow::Result;

use super::field;
use crate::context::Context;
use crate::node::Node;

const FIELDS: &str = include_str!("build.txt");

/// Returns the options and the context.
pub(super) fn words(build: &Node<'_>, context: &Context<'_>) -> Result<Vec<String>> {
    if !build.value.is_object() {
        return Ok(vec![build.text()?]);
    }
    let keys = field::keys(FIELDS) + "context dockerfile";
    build.only_or_named(&keys, "cache_from cache_to provenance sbom isolation")?;
    let mut words = field::options(build, FIELDS, context)?;
    let context = build.get("context").ok_or_else(|| build.error("no context"))?.text()?;
    if let Some(file) = build.get("dockerfile") {
        // The builder looks for it below the directory where it is called, or in a repository.
        let below = if context.starts_with('/') { Path::new(&context) } else { Path::new("") };
        words.push(format!("--file={}", below.join(file.text()?).display()));
    }
    words.push(context);
    Ok(words)
}
