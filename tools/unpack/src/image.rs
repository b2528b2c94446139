//! The image that is unpacked: its layers, and where their blobs are or will be.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use layout::{Compression, Layout, Platform};
use oci_spec::image::{Descriptor, Digest};
use record::Record;
use rustix::fd::BorrowedFd;

use crate::stream::{LayerStream, Limits};

/// An image whose manifest and config are verified.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) layout: Layout,
    /// The lowest first.
    pub(crate) layers: Vec<Layer>,
    /// The pipe from the stage that is still fetching the blobs.
    source: Option<BorrowedFd<'static>>,
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) compression: Compression,
    /// The digest of its tar archive, which names the layer whatever it is compressed with.
    pub(crate) diff_id: Digest,
}

impl Image {
    /// Opens the image of a record; `source` is the pipe that it came through, if it did.
    pub(crate) fn of_record(record: &Record, source: Option<BorrowedFd<'static>>) -> anyhow::Result<Self> {
        let image: record::Image = record.part()?;
        let manifest: Descriptor = image.manifest()?;
        Self::open(Layout::open(&image.layout)?, &manifest, source)
    }

    /// Opens an image of a layout that anybody's tool has made, and returns it with its name and manifest.
    pub(crate) fn of_layout(
        path: &Path,
        name: Option<&str>,
        platform: Option<&Platform>,
    ) -> anyhow::Result<(Self, Descriptor)> {
        let layout = Layout::open(path)?;
        let descriptor = layout.resolve(name)?;
        let manifest = layout.image(&descriptor, platform.unwrap_or(&Platform::host()))?;
        Ok((Self::open(layout, &manifest, None)?, manifest))
    }

    fn open(layout: Layout, manifest: &Descriptor, source: Option<BorrowedFd<'static>>) -> anyhow::Result<Self> {
        let document = layout.manifest(manifest)?;
        let config = layout.config(&document)?;
        let (blobs, diff_ids) = (document.layers(), config.rootfs().diff_ids());
        let (layers, diffs) = (blobs.len(), diff_ids.len());
        let digest = manifest.digest();
        // umoci panics here, and containers' storage goes on.
        ensure!(layers == diffs, "image {digest}: manifest has {layers} layers, config has {diffs} diffIDs");
        let layer = |(blob, diff_id): (&Descriptor, &String)| -> anyhow::Result<Layer> {
            let named = || format!("layer {}", blob.digest());
            let media_type = blob.media_type().to_string();
            let compression = Compression::of(blob.media_type())
                .with_context(|| format!("{}: not a layer's media type: {media_type}", named()))?;
            let foreign = media_type.contains("nondistributable") || media_type.contains("foreign");
            let there = !foreign || source.is_some() || layout.has(blob);
            ensure!(there, "{}: foreign layer, which must be fetched from elsewhere: {media_type}", named());
            let Ok(diff_id) = diff_id.parse() else { bail!("{}: diffID {diff_id:?} is not a digest", named()) };
            Ok(Layer { blob: blob.clone(), compression, diff_id })
        };
        let layers = blobs.iter().zip(diff_ids).map(layer).collect::<anyhow::Result<_>>()?;
        Ok(Self { layout, layers, source })
    }

    /// Starts to read a layer's tar archive out of its blob, which is checked on the way, and may still be arriving.
    ///
    /// While `source` is open, a blob that is missing may still come; its end without the blob is the fetching
    /// stage's failure.
    pub(crate) fn stream(&self, layer: &Layer, limits: &Arc<Limits>) -> anyhow::Result<LayerStream> {
        let blob = self.layout.follow(&layer.blob, self.source)?;
        LayerStream::start(blob, layer.compression, &layer.diff_id, Arc::clone(limits))
    }
}
