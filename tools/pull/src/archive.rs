//! oci-archive and docker-archive: a layout, or what `docker save` writes, in one tar file.

mod spool;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use layout::lenient::{self, Empty, Lenient, Member, Shape};
use layout::{Compression, Digester, MANIFEST_LIMIT, REF_NAME, Verified};
use oci_spec::image::{Descriptor, ImageIndex, MediaType};
use registry::Body;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::reference::Reference;

/// A file in the archive.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

/// A blob in the archive, or one that was made of it.
#[derive(Clone, Debug)]
enum Blob {
    File(Place),
    Made(Vec<u8>),
}

/// An opened archive.
#[derive(Debug)]
pub(crate) struct ImageArchive {
    file: File,
    name: String,
    blobs: HashMap<String, Blob>,
    /// The images, each with its names.
    images: Vec<(Vec<String>, Descriptor)>,
}

/// manifest.json of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Lenient for Saved {
    const MEMBERS: &'static [Member] = &[
        lenient::any(&["Config"]),
        Member(&["RepoTags"], Shape::Words, Some(Empty::List)),
        Member(&["Layers"], Shape::Words, Some(Empty::List)),
    ];
}

impl ImageArchive {
    /// Opens a layout or what `docker save` writes, in a tar file: as what it is said to be, if it is both. One that is
    /// compressed or a pipe needs a directory to be copied to.
    pub(crate) fn open(path: &Path, docker: bool, directory: &Path) -> anyhow::Result<Self> {
        let (archive, files) = Self::list(path, directory)?;
        let is_docker = files.contains_key("manifest.json") && (docker || !files.contains_key("index.json"));
        if is_docker { archive.into_docker(path, &files) } else { archive.into_oci(path, files) }
    }

    fn into_oci(mut self, path: &Path, files: HashMap<String, Place>) -> anyhow::Result<Self> {
        let index = files.get("index.json").with_context(|| format!("{}: no index.json in it", path.display()))?;
        let index: ImageIndex = lenient::read(&self.read_place(*index, MANIFEST_LIMIT)?)
            .with_context(|| format!("{}: index.json", path.display()))?;
        for (name, place) in files {
            if let Some((algorithm, hex)) = name.strip_prefix("blobs/").and_then(|blob| blob.split_once('/')) {
                self.blobs.insert(format!("{algorithm}:{hex}"), Blob::File(place));
            }
        }
        let names = |descriptor: &Descriptor| {
            let annotations = descriptor.annotations().iter().flatten();
            let names = annotations.filter(|(key, _)| *key == REF_NAME || *key == layout::IMAGE_NAME);
            names.map(|(_, name)| name.clone()).collect()
        };
        self.images = index.manifests().iter().map(|descriptor| (names(descriptor), descriptor.clone())).collect();
        Ok(self)
    }

    /// Takes what `docker save` writes for OCI images with uncompressed layers.
    fn into_docker(mut self, path: &Path, files: &HashMap<String, Place>) -> anyhow::Result<Self> {
        let list = files.get("manifest.json").with_context(|| format!("{}: no manifest.json in it", path.display()))?;
        let saved: Vec<Value> = serde_json::from_slice(&self.read_place(*list, MANIFEST_LIMIT)?)
            .with_context(|| format!("{}: manifest.json", path.display()))?;
        for image in saved {
            let image: Saved = serde_json::from_value(lenient::normal::<Saved>(image))
                .with_context(|| format!("{}: manifest.json", path.display()))?;
            let place =
                |name: &str| files.get(name).copied().with_context(|| format!("{}: no {name} in it", path.display()));
            let config = self.add(place(&image.config)?, MediaType::ImageConfig)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let place = place(layer)?;
                layers.push(self.add(place, self.layer_type(place)?)?);
            }
            let manifest =
                json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": layers});
            let bytes = manifest.to_string().into_bytes();
            let digest = layout::sha256(&bytes);
            let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest.clone());
            self.blobs.insert(digest.to_string(), Blob::Made(bytes));
            self.images.push((image.repo_tags, descriptor));
        }
        Ok(self)
    }

    fn list(path: &Path, directory: &Path) -> anyhow::Result<(Self, HashMap<String, Place>)> {
        let name = path.display().to_string();
        let mut file = spool::open(path, directory)?;
        file.rewind().with_context(|| format!("read {name}"))?;
        let mut files = HashMap::new();
        let mut links = Vec::new();
        let mut tar = tar::Archive::new(file.try_clone().with_context(|| format!("open {name}"))?);
        for entry in tar.entries_with_seek().with_context(|| format!("read {name}"))? {
            let entry = entry.with_context(|| format!("read {name}"))?;
            let path = normal(&entry.path().with_context(|| format!("read {name}"))?);
            if entry.header().entry_type().is_file() {
                files.insert(path, Place { offset: entry.raw_file_position(), size: entry.size() });
            } else if let Some(target) = entry.link_name().ok().flatten() {
                // Old docker writes the same layer once more as a link beside the image that shares it.
                let parent = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
                let symbolic = entry.header().entry_type().is_symlink();
                let target = if symbolic { normal(&parent.join(target)) } else { normal(&target) };
                links.push((path, target));
            }
        }
        for (path, target) in links {
            if let Some(place) = files.get(&target).copied() {
                files.insert(path, place);
            }
        }
        Ok((Self { file, name, blobs: HashMap::new(), images: Vec::new() }, files))
    }

    /// Makes a file a blob, which costs one reading.
    fn add(&mut self, place: Place, media_type: MediaType) -> anyhow::Result<Descriptor> {
        let mut digester = Digester::sha256();
        digester.read(self.reader(place, 0)?).with_context(|| format!("read {}", self.name))?;
        let digest = digester.finish();
        self.blobs.insert(digest.to_string(), Blob::File(place));
        Ok(Descriptor::new(media_type, place.size, digest))
    }

    fn layer_type(&self, place: Place) -> anyhow::Result<MediaType> {
        let mut magic = Vec::new();
        self.reader(place, 0)?.take(4).read_to_end(&mut magic).with_context(|| format!("read {}", self.name))?;
        Ok(Compression::detect(&magic).media_type())
    }

    /// Finds an image by its name; without one, the only image.
    pub(crate) fn resolve(&self, name: Option<&str>) -> anyhow::Result<Descriptor> {
        let known = || self.images.iter().flat_map(|(names, _)| names.clone()).collect::<Vec<_>>().join(", ");
        let same = |known: &String, name: &str| {
            let normal = |text: &str| text.parse::<Reference>().ok();
            known == name || (normal(name).is_some() && normal(known) == normal(name))
        };
        let mut found = self.images.iter().filter(|(names, descriptor)| {
            name.is_none_or(|name| names.iter().any(|known| same(known, name)) || descriptor.digest().as_ref() == name)
        });
        match (found.next(), found.next(), name) {
            (Some((_, descriptor)), None, _) => Ok(descriptor.clone()),
            (None, _, Some(name)) => bail!("no image {name} in {}; there is {}", self.name, known()),
            (None, ..) => bail!("no image in {}", self.name),
            _ => bail!("which image of {}? {}", self.name, known()),
        }
    }

    /// Returns the images that have a tag.
    pub(crate) fn tagged(&self, tag: &str) -> Vec<Descriptor> {
        let images = self.images.iter().filter(|(names, _)| names.iter().any(|name| has_tag(name, tag)));
        images.map(|(_, descriptor)| descriptor.clone()).collect()
    }

    /// Returns the names of an image, the longest first: the full reference, where there is one.
    pub(crate) fn names_of(&self, descriptor: &Descriptor) -> Vec<String> {
        let same = self.images.iter().filter(|(_, image)| image.digest() == descriptor.digest());
        let mut names: Vec<String> = same.flat_map(|(names, _)| names.clone()).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names
    }

    /// Returns a name of each image, or its digest.
    pub(crate) fn all(&self) -> Vec<String> {
        let name = |(names, image): &(Vec<String>, Descriptor)| {
            names.first().cloned().unwrap_or_else(|| image.digest().to_string())
        };
        self.images.iter().map(name).collect()
    }

    /// Reads a small blob, checked.
    pub(crate) fn read(&self, descriptor: &Descriptor, limit: u64) -> anyhow::Result<Vec<u8>> {
        ensure!(descriptor.size() <= limit, "{} in {} is longer than {limit} bytes", descriptor.digest(), self.name);
        let mut descriptor = descriptor.clone();
        if let (0, Some(Blob::File(place))) = (descriptor.size(), self.blobs.get(descriptor.digest().as_ref())) {
            descriptor.set_size(place.size.min(limit));
        }
        let mut bytes = Vec::new();
        Verified::new(self.blob(&descriptor, 0)?.reader, &descriptor)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Begins to read a blob.
    pub(crate) fn blob(&self, descriptor: &Descriptor, offset: u64) -> anyhow::Result<Body> {
        let digest = descriptor.digest();
        let reader: Box<dyn Read> = match self.blobs.get(digest.as_ref()) {
            None => bail!("no blob {digest} in {}", self.name),
            Some(Blob::Made(bytes)) => {
                Box::new(io::Cursor::new(bytes.get(usize::try_from(offset)?..).unwrap_or_default().to_vec()))
            }
            Some(Blob::File(place)) if place.size != descriptor.size() => {
                bail!(layout::Error::Size { digest: digest.clone(), want: descriptor.size(), got: place.size })
            }
            Some(Blob::File(place)) => Box::new(self.reader(*place, offset)?),
        };
        Ok(Body { start: offset, reader })
    }

    fn read_place(&self, place: Place, limit: u64) -> anyhow::Result<Vec<u8>> {
        ensure!(place.size <= limit, "{}: an index of {} bytes", self.name, place.size);
        let mut bytes = Vec::new();
        self.reader(place, 0)?.read_to_end(&mut bytes).with_context(|| format!("read {}", self.name))?;
        Ok(bytes)
    }

    fn reader(&self, place: Place, offset: u64) -> anyhow::Result<Slice> {
        let file = self.file.try_clone().with_context(|| format!("open {}", self.name))?;
        let offset = offset.min(place.size);
        Ok(Slice { file, position: place.offset + offset, left: place.size - offset })
    }
}

/// A reader of a part of a file that shares no position with other readers.
struct Slice {
    file: File,
    position: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..room], self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Tells whether a name is a tag, or ends with it.
pub(crate) fn has_tag(name: &str, tag: &str) -> bool {
    name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag)
}

/// Names in an archive are keys, never paths: `./x/../y` is `y`.
fn normal(path: &Path) -> String {
    root::clean(path).to_string_lossy().into_owned()
}
