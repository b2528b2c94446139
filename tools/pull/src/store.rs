//! What the layout holds: list it, take images out of it, collect what no image and no container needs.

mod layers;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use layout::{Kind, Layout};
use oci_spec::image::Descriptor;
use record::{Image, Record, Rootfs};
use serde_json::json;

use crate::reference::Reference;

/// Prints one line for each image, or JSON.
pub(crate) fn list(layout: &Layout, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut images = Vec::new();
    for entry in layout.entries()? {
        let mut blobs = HashSet::new();
        mark(layout, &entry.descriptor, &mut blobs);
        let size: u64 =
            blobs.iter().filter_map(|digest| fs::metadata(blob_path(layout, digest)).ok()).map(|file| file.len()).sum();
        let platform =
            entry.descriptor.platform().as_ref().map(|platform| layout::Platform::from(platform).to_string());
        images.push((entry.name(), entry.descriptor.digest().to_string(), platform, size));
    }
    if as_json {
        let lines: Vec<_> = images
            .iter()
            .map(|(name, digest, platform, size)| json!({"name": name, "digest": digest, "platform": platform, "size": size}))
            .collect();
        writeln!(out, "{}", json!(lines))?;
        return Ok(());
    }
    let width = images.iter().map(|(name, ..)| name.len()).max().unwrap_or(4).max(4);
    writeln!(out, "{:width$}  {:19}  {:14}  {:>10}", "NAME", "DIGEST", "PLATFORM", "SIZE")?;
    for (name, digest, platform, size) in images {
        let digest = digest.get(..19).unwrap_or(&digest);
        let platform = platform.as_deref().unwrap_or("-");
        writeln!(out, "{name:width$}  {digest:19}  {platform:14}  {:>10}", indicatif::HumanBytes(size).to_string())?;
    }
    Ok(())
}

/// Takes images out of the layout's index, and what belongs to them; their blobs go with the next collection.
pub(crate) fn remove(layout: &Layout, names: &[String]) -> anyhow::Result<()> {
    let before = images(layout)?;
    for name in names {
        let full = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
        if layout.untag(&full)? == 0 && layout.untag(name)? == 0 {
            bail!("remove {name}: no such image in {}", layout.path().display());
        }
    }
    let after = images(layout)?;
    for entry in layout.entries()? {
        let subject = entry.subject().filter(|subject| before.contains(subject) && !after.contains(subject));
        if let Some(subject) = subject {
            log::debug!("{} belongs to {subject}, which is gone", entry.name());
            layout.untag(&entry.name())?;
        }
    }
    Ok(())
}

/// Returns the digests of all images, and of all that they need.
fn images(layout: &Layout) -> anyhow::Result<HashSet<String>> {
    let mut digests = HashSet::new();
    for entry in layout.entries()?.iter().filter(|entry| entry.subject().is_none()) {
        mark(layout, &entry.descriptor, &mut digests);
    }
    Ok(digests)
}

/// Removes blobs that no image of the index needs, partial blobs that nobody brings, and extracted layers that no
/// image and no container needs.
pub(crate) fn collect(layout: &Layout, data: &Path, grace: Duration) -> anyhow::Result<()> {
    let _alone = layout.exclusive()?;
    let mut needed = HashSet::new();
    for entry in layout.entries()? {
        mark(layout, &entry.descriptor, &mut needed);
    }
    let mut needed_layers = HashSet::new();
    for record in containers(data)? {
        if let Ok(Some(image)) = record.find::<Image>() {
            if let Ok(descriptor) = image.manifest::<Descriptor>() {
                mark(layout, &descriptor, &mut needed);
            }
        }
        if let Ok(Some(rootfs)) = record.find::<Rootfs>() {
            needed_layers.extend(rootfs.layers.unwrap_or_default());
        }
    }
    let (mut count, mut size) = (0_u64, 0_u64);
    for digest in layout.blobs()? {
        if needed.contains(digest.as_ref()) {
            needed_layers.extend(layers::of_image(data, &diff_ids(layout, digest.as_ref())));
            continue;
        }
        let path = layout.blob_path(&digest);
        size += fs::metadata(&path).map_or(0, |file| file.len());
        log::debug!("remove blob {digest}");
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        count += 1;
    }
    let ingest = layout.path().join("ingest");
    for entry in fs::read_dir(&ingest).with_context(|| format!("list {}", ingest.display()))? {
        let path = entry?.path();
        size += fs::metadata(&path).map_or(0, |file| file.len());
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        count += 1;
    }
    let swept = layers::collect(data, &needed_layers, grace)?;
    writeln!(io::stdout(), "{count} blobs ({}) and {swept} layers removed", indicatif::HumanBytes(size))?;
    Ok(())
}

/// Collects the digests of a document and of all that it needs. What is missing or broken needs nothing.
fn mark(layout: &Layout, descriptor: &Descriptor, needed: &mut HashSet<String>) {
    if !needed.insert(descriptor.digest().to_string()) || Kind::of(descriptor.media_type().as_ref()) == Kind::Other {
        return;
    }
    if let Ok(document) = layout.document(descriptor) {
        for child in document.children() {
            mark(layout, child, needed);
        }
    }
}

fn blob_path(layout: &Layout, digest: &str) -> PathBuf {
    layout.path().join("blobs").join(digest.replacen(':', "/", 1))
}

/// Returns the diffIDs of a config; a blob that is none has none.
fn diff_ids(layout: &Layout, digest: &str) -> Vec<String> {
    let path = blob_path(layout, digest);
    let small = fs::metadata(&path).is_ok_and(|file| file.len() <= layout::CONFIG_LIMIT);
    let text = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let ids = config.pointer("/rootfs/diff_ids").and_then(serde_json::Value::as_array);
    ids.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// Reads the records that `bundle` keeps beside its containers.
fn containers(data: &Path) -> anyhow::Result<Vec<Record>> {
    let directory = data.join("containers");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path().join("record.json");
        match fs::read(&path) {
            Ok(text) => records.push(Record::parse(&text, &path.display().to_string())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(records)
}
