//! A new image: the one that a container was made from, the container's changes as a layer on top, and a config and a
//! manifest that say so (image-spec, config.md and manifest.md), in the same layout.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use layout::{Compression, Digester, Layout};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value, json};

use crate::container::CommittedContainer;
use crate::diff::{self, Style};
use crate::instruction::Instruction;
use crate::request::Commit;

/// A layer that was written.
struct Written {
    blob: Descriptor,
    diff_id: String,
}

/// Makes the image and returns the container's record with it in the old one's place.
pub(crate) fn commit(container: &CommittedContainer, options: &Commit, style: Style) -> anyhow::Result<record::Image> {
    let base: record::Image = container.record.part()?;
    let layout = Layout::open(&base.layout)?;
    // A shared lock, so that `pull gc` does not take the base's blobs before the new manifest names them.
    let _kept = layout.share()?;
    let base_descriptor: Descriptor = base.manifest()?;
    let manifest = layout.manifest(&base_descriptor)?;
    // Members that no specification has are kept.
    let mut config = layout.config_value(&manifest)?;
    let layer = write_layer(&layout, container, (options.compression, style)).context("write the layer")?;
    edit(&mut config, layer.as_ref(), manifest.layers().len(), (container, options, style))?;

    let config = layout.write(config.to_string().as_bytes(), MediaType::ImageConfig)?;
    let mut layers: Vec<Descriptor> = manifest.layers().iter().map(to_oci).collect();
    layers.extend(layer.map(|layer| layer.blob));
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": layers});
    let mut descriptor = layout.write(manifest.to_string().as_bytes(), MediaType::ImageManifest)?;
    descriptor.set_platform(base_descriptor.platform().clone());
    // Last: a name appears when all that it leads to is on disk.
    for tag in &options.tag {
        layout.tag(&tag.to_string(), &descriptor)?;
        log::info!("tag {tag} {}", descriptor.digest());
    }
    let Value::Object(manifest) = serde_json::to_value(&descriptor)? else { bail!("descriptor is not an object") };
    Ok(record::Image { reference: options.tag.first().map(ToString::to_string), manifest, ..base })
}

/// Writes the layer; `None` where nothing has changed.
fn write_layer(
    layout: &Layout,
    container: &CommittedContainer,
    (compression, style): (Compression, Style),
) -> anyhow::Result<Option<Written>> {
    let (draft, (digester, entries)) = compression.encode(layout.draft()?, |out| {
        let (digesting, entries) = diff::write(container, style, Digesting { out, digester: Digester::sha256() })?;
        anyhow::Ok((digesting.digester, entries))
    })?;
    // The draft goes with its owner.
    if entries == 0 {
        return Ok(None);
    }
    let blob = draft.commit(compression.media_type())?;
    log::debug!("layer {} of {entries} entries, {} bytes", blob.digest(), blob.size());
    Ok(Some(Written { blob, diff_id: digester.finish().to_string() }))
}

/// Computes the digest of what passes.
struct Digesting<W> {
    out: W,
    digester: Digester,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.digester.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Brings the config up to date.
///
/// A new history entry belongs to each new layer, and one that is marked `empty_layer` to a change of the config
/// alone.
fn edit(
    config: &mut Value,
    layer: Option<&Written>,
    layers: usize,
    (container, options, style): (&CommittedContainer, &Commit, Style),
) -> anyhow::Result<()> {
    let Value::Object(config) = config else { bail!("config is not an object") };
    let since = style.epoch.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    let created = humantime::format_rfc3339(since.map_or_else(SystemTime::now, |since| UNIX_EPOCH + since)).to_string();
    config.insert("created".to_owned(), json!(created));
    if let Some(author) = &options.author {
        config.insert("author".to_owned(), json!(author));
    }
    if let Some(layer) = layer {
        let rootfs = config["rootfs"].as_object_mut().context("the config has no diff_ids")?;
        list(rootfs, "diff_ids")?.push(json!(layer.diff_id));
    }
    let by = options.created_by.as_ref().or(container.command.as_ref());
    let entry = [
        ("created", Some(json!(created))),
        ("created_by", Some(json!(by.map_or("unpack commit", String::as_str)))),
        ("author", options.author.clone().map(Value::from)),
        ("comment", options.message.clone().map(Value::from)),
        ("empty_layer", layer.is_none().then_some(json!(true))),
    ];
    let entry: Value = entry.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let history = list(config, "history")?;
    let told = history.iter().filter(|entry| entry["empty_layer"] != json!(true)).count();
    // Readers count the entries against the layers, and an image need not have had a history.
    history.extend(std::iter::repeat_with(|| json!({})).take(layers.saturating_sub(told)));
    history.push(entry);
    if !options.change.is_empty() {
        let execution = config.entry("config").or_insert_with(|| json!({}));
        if execution.is_null() {
            *execution = json!({});
        }
        let Value::Object(execution) = execution else { bail!("config of the config is not an object") };
        Instruction::apply_all(&options.change, execution).map_err(|error| anyhow!("--change: {error}"))?;
    }
    Ok(())
}

fn list<'a>(object: &'a mut Map<String, Value>, member: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    let list = object.entry(member).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().with_context(|| format!("{member} of the config is not a list"))
}

/// Docker's media types of what is the same in the OCI's: one manifest has those of one family.
fn to_oci(layer: &Descriptor) -> Descriptor {
    let mut layer = layer.clone();
    let media_type = match layer.media_type().to_string().as_str() {
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        _ => return layer,
    };
    layer.set_media_type(media_type);
    layer
}
