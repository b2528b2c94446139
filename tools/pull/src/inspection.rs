//! Images looked at without being fetched: `inspect`, `digest` and `tags`.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use layout::{CONFIG_LIMIT, Document, Platform, Verified, lenient};
use oci_spec::image::{Descriptor, ImageManifest};
use registry::{Access, Failure, Fetched};
use serde_json::{Value, json};

use crate::remote;
use crate::source::{Named, Opened};

/// What of an image is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What there is to know, as JSON.
    Summary,
    /// The manifest or index, byte by byte.
    Manifest,
    /// The config, byte by byte.
    Config,
}

/// Prints a part of an image.
pub(crate) fn inspect(name: &Named, image: &Opened<'_>, part: Part, platform: Option<&Platform>) -> Result<()> {
    let root = image.root()?;
    let mut out = io::stdout().lock();
    if part == Part::Manifest {
        let fetched = if platform.is_some() { choose(image, &root, platform)?.0 } else { root };
        return Ok(out.write_all(&fetched.bytes)?);
    }
    let (fetched, manifest) = choose(image, &root, platform)?;
    let config = read(image, manifest.config())?;
    if part == Part::Config {
        return Ok(out.write_all(&config)?);
    }
    let platforms: Vec<String> = match root.parse()? {
        Document::Index(index) => {
            let named = index.manifests().iter().filter_map(|entry| entry.platform().as_ref());
            named.map(|platform| Platform::from(platform).to_string()).collect()
        }
        Document::Manifest(_) => Vec::new(),
    };
    let layers = manifest.layers().iter();
    let summary = json!({
        "name": name.to_string(),
        "digest": root.descriptor.digest(),
        "mediaType": root.descriptor.media_type(),
        "platforms": platforms,
        "image": fetched.descriptor.digest(),
        "manifest": lenient::parse(&fetched.bytes).unwrap_or_default(),
        "config": lenient::parse(&config).unwrap_or_default(),
        "layers": layers.clone().map(|layer| json!({
            "digest": layer.digest(), "size": layer.size(), "mediaType": layer.media_type(),
        })).collect::<Vec<Value>>(),
        "size": layers.map(Descriptor::size).sum::<u64>(),
    });
    Ok(writeln!(out, "{summary:#}")?)
}

/// Prints the digest of what is named, or of the image in it for a platform.
pub(crate) fn digest(source: &Opened<'_>, platform: Option<&Platform>) -> Result<()> {
    let root = source.root()?;
    let fetched = if platform.is_some() { choose(source, &root, platform)?.0 } else { root };
    Ok(writeln!(io::stdout(), "{}", fetched.descriptor.digest())?)
}

/// Prints the tags of a repository, one a line.
pub(crate) fn tags(name: &Named, access: &Access) -> Result<()> {
    let Named::Reference(reference) = name else { bail!(cli::Usage(format!("{name} is no registry's repository"))) };
    let tags = remote::tags(reference, access)?;
    let mut out = io::stdout().lock();
    tags.iter().try_for_each(|tag| writeln!(out, "{tag}")).context("print the tags")
}

/// Goes from the root to the image for a platform.
fn choose(source: &Opened<'_>, root: &Fetched, platform: Option<&Platform>) -> Result<(Fetched, ImageManifest)> {
    let host = Platform::host();
    let (mut chain, manifest) = source.choose(root, |index| Ok(Document::choose(index, platform.unwrap_or(&host))?))?;
    Ok((chain.pop().unwrap_or_else(|| root.clone()), manifest))
}

/// Reads a config, checked.
fn read(source: &Opened<'_>, blob: &Descriptor) -> Result<Vec<u8>> {
    ensure!(blob.size() <= CONFIG_LIMIT, "config {} is said to have {} bytes: too many", blob.digest(), blob.size());
    let attempt = || -> Result<Vec<u8>, Failure> {
        let body = source.blob(source.first_place(), blob, 0)?;
        let mut bytes = Vec::new();
        let mut reader = Verified::new(body.reader, blob)?;
        reader.read_to_end(&mut bytes).map_err(|error| Failure::Passing(error.into(), None))?;
        Ok(bytes)
    };
    source.patience().retry(attempt).with_context(|| format!("config {}", blob.digest()))
}
