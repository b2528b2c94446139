//! One image: from its name to its manifest, its config, the record, and last its layers.

use anyhow::{Context, Result, bail, ensure};
use layout::{CONFIG_LIMIT, Document, DocumentKind, Layout, Platform, lenient};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use record::{Image, Record};
use registry::Fetched;
use registry::progress::Progress;
use serde_json::{Map, Value, json};

use crate::blob;
use crate::request::{FetchRequest, PullPolicy};
use crate::source::{DEPTH, Named, Opened};
use crate::verify::{self, Rules, Subject};

/// What an index says of a manifest.
type Entry = Option<Map<String, Value>>;

/// Where to and what.
pub(crate) struct FetchJob<'a> {
    /// The layout.
    pub(crate) layout: &'a Layout,
    /// Which images.
    pub(crate) request: &'a FetchRequest,
    /// Blobs at once.
    pub(crate) jobs: usize,
    /// Where progress goes.
    pub(crate) progress: &'a Progress,
    /// Whose images are used.
    pub(crate) rules: &'a Rules,
}

/// An image as far as it can be described: its documents are in the layout.
struct Chosen {
    descriptor: Descriptor,
    /// The descriptor as it came, or made as it would come.
    map: Map<String, Value>,
    manifest: ImageManifest,
}

impl FetchJob<'_> {
    /// Answers from the layout alone, if the policy allows it and the image is whole there; returns what is named there.
    pub(crate) fn find_local(&self, name: &Named) -> Result<Option<Descriptor>> {
        let _span = trace::span("look into the layout", name);
        let Named::Reference(reference) = name else { return Ok(None) };
        let reference = reference.to_string();
        if self.request.policy == PullPolicy::Always {
            return Ok(None);
        }
        let local = || -> Result<Chosen> {
            let root = self.layout.resolve(Some(&reference))?;
            let descriptor = self.layout.image(&root, &self.platform())?;
            let manifest = self.layout.manifest(&descriptor)?;
            let mut children = std::iter::once(manifest.config()).chain(manifest.layers());
            if let Some(blob) = children.find(|blob| !self.layout.has(blob)) {
                bail!(layout::Error::Missing(blob.digest().clone()));
            }
            let requirements = self.rules.of(name)?;
            if !requirements.is_empty() {
                let source = Opened::Layout(self.layout.clone(), None);
                let chain =
                    if root.digest() == descriptor.digest() { vec![root] } else { vec![root, descriptor.clone()] };
                Subject { source: &source, layout: self.layout, name, chain: &chain }.check(&requirements)?;
            }
            self.describe(descriptor, None, manifest)
        };
        match local() {
            Ok(chosen) => {
                print(self.layout, &reference, &chosen)?;
                Ok(Some(chosen.descriptor))
            }
            Err(error) if self.request.policy == PullPolicy::Never => Err(error.context(format!("find {reference}"))),
            Err(error) => {
                log::debug!("fetch {reference}: {error:#}");
                Ok(None)
            }
        }
    }

    /// Fetches an image: prints its record when manifest and config are right, returns when all blobs are. What is
    /// returned is what the name stands for, and what is named in the layout.
    pub(crate) fn fetch(&self, name: &Named, source: &Opened) -> Result<(Descriptor, Descriptor)> {
        let requirements = self.rules.of(name)?;
        let root = source.root()?;
        let labels = labels(name, source, &root.descriptor);
        log::debug!("{} is {}", labels.join(", "), root.descriptor.digest());
        let (documents, manifest) = source.choose(&root, |index| self.choose_entry(index))?;
        for document in &documents {
            self.layout.write_as(&document.descriptor, &document.bytes)?;
        }
        let mut entries = documents.iter().zip(&documents[1..]);
        let map = entries.next_back().and_then(|(index, image)| raw_entry(&index.bytes, &image.descriptor));
        let chain: Vec<Descriptor> = documents.into_iter().map(|document| document.descriptor).collect();
        // With all platforms it is the index that counts.
        let covering = if self.request.all_platforms { &chain[..1] } else { &chain[..] };
        let subject = Subject { source, layout: self.layout, name, chain: covering };
        let proofs = subject.check(&requirements)?;
        self.fetch_config(source, &manifest)?;
        let chosen = self.describe(chain.last().unwrap_or(&root.descriptor).clone(), map, manifest)?;
        let mut blobs: Vec<Descriptor> = chosen.manifest.layers().clone();
        print(self.layout, &name.to_string(), &chosen)?;
        let mut tagged = &chosen.descriptor;
        if self.request.all_platforms {
            self.collect(source, &root, &mut blobs, DEPTH)?;
            tagged = &root.descriptor;
        }
        let referrers = self.find_referrers(source, &root, &mut blobs)?;
        blob::fetch_all(source, self.layout, &blobs, self.jobs, self.progress)?;
        if let Some(index) = referrers {
            self.layout.tag(&layout::referrers_tag(root.descriptor.digest()), &index)?;
        }
        verify::keep(&subject, proofs)?;
        labels.iter().try_for_each(|label| self.layout.tag(label, tagged))?;
        Ok((root.descriptor.clone(), tagged.clone()))
    }

    /// Fetches the index of what refers to the image, and collects the blobs of it all.
    fn find_referrers(
        &self,
        source: &Opened,
        root: &Fetched,
        blobs: &mut Vec<Descriptor>,
    ) -> Result<Option<Descriptor>> {
        let Opened::Registry(remote) = source else { return Ok(None) };
        if !self.request.referrers {
            return Ok(None);
        }
        let Some(bytes) = remote.referrers(root.descriptor.digest())? else { return Ok(None) };
        let media_type = Document::media_type(&bytes).to_string();
        let index = Fetched::new(bytes, &media_type, None)?;
        self.collect(source, &index, blobs, DEPTH)?;
        Ok(Some(index.descriptor))
    }

    fn platform(&self) -> Platform {
        self.request.platform.clone().unwrap_or_else(Platform::host)
    }

    fn choose_entry<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor> {
        let image = |entry: &&Descriptor| DocumentKind::of(entry.media_type().as_ref()) != DocumentKind::Other;
        match Document::choose(index, &self.platform()) {
            Err(layout::Error::NoPlatform { .. }) if self.request.all_platforms && self.request.platform.is_none() => {
                index.manifests().iter().find(image).context("an index without images")
            }
            chosen => Ok(chosen?),
        }
    }

    /// Checks a document and writes it into the layout.
    fn keep(&self, fetched: &Fetched) -> Result<Document> {
        let document = fetched.parse()?;
        self.layout.write_as(&fetched.descriptor, &fetched.bytes)?;
        Ok(document)
    }

    fn fetch_config(&self, source: &Opened, manifest: &ImageManifest) -> Result<()> {
        let config = manifest.config();
        let fits = !is_image_config(config) || config.size() <= CONFIG_LIMIT;
        ensure!(fits, "config {} is said to have {} bytes: too many", config.digest(), config.size());
        blob::fetch_all(source, self.layout, std::slice::from_ref(config), 1, &Progress::None)
    }

    fn describe(&self, mut descriptor: Descriptor, map: Entry, manifest: ImageManifest) -> Result<Chosen> {
        let (media_type, digest, size) = (descriptor.media_type(), descriptor.digest(), descriptor.size());
        let own = || to_map(json!({"mediaType": media_type, "digest": digest, "size": size}));
        let mut map = map.unwrap_or_else(own);
        map.remove("annotations");
        // An artifact's config says nothing of platforms.
        if is_image_config(manifest.config()) {
            let config = self.layout.config(&manifest)?;
            // What a config does not say is no other platform's.
            let said = |text: String, wanted: String| if text.is_empty() { wanted } else { text };
            let wanted = self.platform();
            let os = said(config.os().to_string(), wanted.os);
            let architecture = said(config.architecture().to_string(), wanted.architecture);
            self.check_platform(&Platform::new(&os, &architecture, config.variant().as_deref()))?;
            let mut own = json!({"architecture": architecture, "os": os});
            if let Some(variant) = config.variant() {
                own["variant"] = json!(variant);
            }
            if descriptor.platform().is_none() {
                descriptor.set_platform(serde_json::from_value(own.clone()).ok());
            }
            map.entry("platform").or_insert(own);
        }
        Ok(Chosen { descriptor, map, manifest })
    }

    fn check_platform(&self, platform: &Platform) -> Result<()> {
        match &self.request.platform {
            Some(wanted) if !wanted.runs(platform) => bail!("the image is for {platform}, not for {wanted}"),
            None if !Platform::host().runs(platform) => log::warn!("the image is for {platform}, not for this machine"),
            _ => {}
        }
        Ok(())
    }

    /// Fetches the documents of all platforms and collects their blobs.
    fn collect(&self, source: &Opened, fetched: &Fetched, blobs: &mut Vec<Descriptor>, depth: usize) -> Result<()> {
        match self.keep(fetched)? {
            Document::Manifest(manifest) => {
                blobs.push(manifest.config().clone());
                blobs.extend(manifest.layers().iter().cloned());
            }
            Document::Index(_) if depth == 0 => bail!("indexes nest too deep"),
            Document::Index(index) => {
                for entry in index.manifests() {
                    // A media type that nobody here knows is copied as it is (image-spec, "media-types.md").
                    if DocumentKind::of(entry.media_type().as_ref()) == DocumentKind::Other {
                        blobs.push(entry.clone());
                        continue;
                    }
                    self.collect(source, &source.child(entry)?, blobs, depth - 1)?;
                }
            }
        }
        Ok(())
    }
}

fn is_image_config(config: &Descriptor) -> bool {
    matches!(
        config.media_type().as_ref(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

fn to_map(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn raw_entry(index: &[u8], entry: &Descriptor) -> Option<Map<String, Value>> {
    let index = lenient::normal::<ImageIndex>(lenient::parse(index).ok()?);
    let entries = index.get("manifests")?.as_array()?;
    let same = |raw: &&Value| raw.get("digest").and_then(Value::as_str) == Some(entry.digest().as_ref());
    entries.iter().find(same)?.as_object().cloned()
}

fn print(layout: &Layout, reference: &str, chosen: &Chosen) -> Result<()> {
    let mut record = Record::default();
    record.set(&Image::new(Some(reference.to_owned()), layout.path(), &chosen.map)?);
    record.print().context("print the record")
}

/// Returns the names that the image has in the layout: what it was asked for by, or all that its source has.
fn labels(name: &Named, source: &Opened, root: &Descriptor) -> Vec<String> {
    let normal = |text: String| match text.parse::<crate::reference::Reference>() {
        Ok(reference) if text.contains([':', '/']) => reference.to_string(),
        _ => text,
    };
    match name {
        Named::Reference(reference) => vec![reference.to_string()],
        Named::DockerArchive(_, Some(tag)) => vec![normal(tag.clone())],
        Named::Layout(_, Some(tag)) | Named::OciArchive(_, Some(tag)) => vec![tag.clone()],
        _ => {
            let mut names: Vec<String> = source.names_of(root).into_iter().map(normal).collect();
            names.dedup();
            if names.is_empty() { vec![root.digest().to_string()] } else { names }
        }
    }
}
