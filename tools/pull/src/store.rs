//! What the layout holds: list it, take images out of it, collect what no image and no container needs.

mod layers;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use container::Directories;
use layout::{DocumentKind, Layout};
use oci_spec::image::Descriptor;
use record::{Image, Record, Rootfs};
use serde::Serialize;

use crate::reference::Reference;

/// An image of the layout.
#[derive(Serialize)]
struct Listed {
    name: String,
    digest: String,
    platform: Option<String>,
    created: Option<String>,
    size: u64,
}

/// Gives an image further names.
pub(crate) fn tag(layout: &Layout, source: &str, targets: &[Reference]) -> anyhow::Result<()> {
    let descriptor = layout.find(source).with_context(|| format!("tag {source}"))?;
    for target in targets {
        ensure!(target.digest.is_none(), cli::Usage(format!("{target}: a name with a digest cannot be given")));
        layout.tag(&target.to_string(), &descriptor)?;
    }
    Ok(())
}

/// Prints the images.
pub(crate) fn list(layout: Option<&Layout>, form: cli::ListForm) -> anyhow::Result<()> {
    let images = layout.map(listed).transpose()?.unwrap_or_default();
    let rows = images.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    Ok(form.print(&rows, "digest", || table(&images))?)
}

/// Returns what a layout has, in the order of its index.
fn listed(layout: &Layout) -> anyhow::Result<Vec<Listed>> {
    let mut images = Vec::new();
    for entry in layout.entries()? {
        let mut blobs = HashSet::new();
        mark(layout, &entry.descriptor, &mut blobs)?;
        let size = |digest: &String| Some(fs::metadata(layout.blob_path(&digest.parse().ok()?)).ok()?.len());
        let size: u64 = blobs.iter().filter_map(size).sum();
        // What is broken or no image of this machine's is listed all the same.
        let manifest = layout.image(&entry.descriptor, &layout::Platform::host()).and_then(|it| layout.manifest(&it));
        let config = manifest.and_then(|manifest| layout.config(&manifest)).ok();
        let said = config.as_ref().map(|config| {
            layout::Platform::new(
                &config.os().to_string(),
                &config.architecture().to_string(),
                config.variant().as_deref(),
            )
        });
        let platform = entry.descriptor.platform().as_ref().map(layout::Platform::from).or(said);
        images.push(Listed {
            name: entry.name(),
            digest: entry.descriptor.digest().to_string(),
            platform: platform.map(|platform| platform.to_string()).filter(|platform| platform != "/"),
            created: config.and_then(|config| config.created().clone()),
            size,
        });
    }
    Ok(images)
}

fn table(images: &[Listed]) -> String {
    let head = ["NAME", "DIGEST", "PLATFORM", "CREATED", "      SIZE"].map(str::to_owned);
    let line = |image: &Listed| {
        let Listed { name, digest, platform, created, size } = image;
        // An image may say anything.
        let day = created.as_deref().and_then(|time| time.get(..10));
        let created = day.filter(|day| day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')).unwrap_or("-");
        let (digest, platform) = (digest.get(..19).unwrap_or(digest), platform.as_deref().unwrap_or("-"));
        let size = format!("{:>10}", indicatif::HumanBytes(*size).to_string());
        [name.clone(), digest.to_owned(), platform.to_owned(), created.to_owned(), size]
    };
    cli::table(&std::iter::once(head).chain(images.iter().map(line)).collect::<Vec<_>>())
}

/// Takes images out of the layout's index, and what belongs to them; their blobs go with the next collection.
pub(crate) fn remove(layout: &Layout, names: &[String]) -> anyhow::Result<()> {
    let before = images(layout)?;
    for name in names {
        let full = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
        let is_removed = layout.untag(&full)? > 0 || layout.untag(name)? > 0;
        ensure!(is_removed, "remove {name}: no such image in {}", layout.path().display());
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
        mark(layout, &entry.descriptor, &mut digests)?;
    }
    Ok(digests)
}

/// Removes blobs that no image of the index needs, partial blobs that nobody brings, and extracted layers that no
/// image and no container needs.
pub(crate) fn collect(layout: &Layout, directories: &Directories, grace: Duration) -> anyhow::Result<()> {
    let _alone = layout.exclusive()?;
    let mut needed = HashSet::new();
    for entry in layout.entries()? {
        mark(layout, &entry.descriptor, &mut needed)?;
    }
    let mut needed_layers = HashSet::new();
    let (containers, damaged) = containers(directories)?;
    for container in containers {
        if let Some(manifest) = container.manifest {
            mark(layout, &manifest, &mut needed)?;
        }
        needed_layers.extend(container.layers);
    }
    let (mut count, mut size) = (0_u64, 0_u64);
    let mut remove = |path: &Path| {
        count += 1;
        size += fs::metadata(path).map_or(0, |file| file.len());
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
    };
    for digest in layout.blobs()? {
        if needed.contains(digest.as_ref()) {
            needed_layers
                .extend(layout::extracted::of_image(&directories.layers(), &diff_ids(&layout.blob_path(&digest))?));
            continue;
        }
        log::debug!("remove blob {digest}");
        remove(&layout.blob_path(&digest))?;
    }
    let ingest = layout.path().join("ingest");
    for entry in fs::read_dir(&ingest).with_context(|| format!("list {}", ingest.display()))? {
        remove(&entry?.path())?;
    }
    // Which layers a container has whose record is damaged, nobody knows.
    let swept = if damaged { 0 } else { layers::collect(&directories.layers(), &needed_layers, grace)? };
    writeln!(io::stdout(), "{count} blobs ({}) and {swept} layers removed", indicatif::HumanBytes(size))?;
    Ok(())
}

/// Collects the digests of a document and of all that it needs. What is missing or broken needs nothing; what cannot be
/// read now may need anything.
fn mark(layout: &Layout, descriptor: &Descriptor, needed: &mut HashSet<String>) -> Result<(), layout::Error> {
    if !needed.insert(descriptor.digest().to_string())
        || DocumentKind::of(descriptor.media_type().as_ref()) == DocumentKind::Other
    {
        return Ok(());
    }
    match layout.document(descriptor) {
        Ok(document) => document.children().into_iter().try_for_each(|child| mark(layout, child, needed)),
        // What is no file at all has no number.
        Err(layout::Error::Io { operation, cause }) if cause.raw_os_error().is_some() => {
            Err(layout::Error::Io { operation, cause })
        }
        Err(_) => Ok(()),
    }
}

/// Returns the diffIDs of a config; a blob that is none has none.
fn diff_ids(path: &Path) -> anyhow::Result<Vec<String>> {
    let read = || {
        let there = fs::metadata(path)?;
        if there.is_file() && there.len() <= layout::CONFIG_LIMIT { fs::read(path) } else { Ok(Vec::new()) }
    };
    let text = read().with_context(|| format!("read {}", path.display()))?;
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let ids = config.pointer("/rootfs/diff_ids").and_then(serde_json::Value::as_array);
    Ok(ids.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect())
}

/// What a container needs.
struct Container {
    manifest: Option<Descriptor>,
    layers: Vec<PathBuf>,
}

impl Container {
    /// Reads the record that `bundle` keeps beside a container.
    fn read(bundle: &Path) -> anyhow::Result<Self> {
        let record = Record::of_bundle(bundle)?;
        let manifest = record.find::<Image>()?.map(|image| image.manifest::<Descriptor>()).transpose()?;
        Ok(Self { manifest, layers: record.find::<Rootfs>()?.and_then(|rootfs| rootfs.layers).unwrap_or_default() })
    }
}

/// Returns what the containers need. Tells whether any record is damaged: a power cut may leave one empty, and must not
/// stop the collection for all.
fn containers(directories: &Directories) -> anyhow::Result<(Vec<Container>, bool)> {
    let directory = directories.bundles();
    let (mut containers, mut damaged) = (Vec::new(), false);
    let entries = sys::file::there(fs::read_dir(&directory));
    for entry in entries.with_context(|| format!("list {}", directory.display()))?.into_iter().flatten() {
        let name = entry?.file_name();
        match Container::read(&directory.join(&name)) {
            Ok(container) => containers.push(container),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let name = name.to_string_lossy();
                log::warn!(
                    "container {name}: {error:#}: no layers are collected (`bundle delete {name}` removes the container)"
                );
                damaged = true;
            }
        }
    }
    Ok((containers, damaged))
}

fn is_absent(error: &anyhow::Error) -> bool {
    // A file in the place of a bundle has no record either.
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    matches!(error.downcast_ref(), Some(record::Error::Read { cause, .. }) if kinds.contains(&cause.kind()))
}
