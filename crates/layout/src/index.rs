//! index.json: the layout's list of images by name (image-spec, image-layout.md, "index.json file").

use std::fs;
use std::io::Read;

use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde_json::{Map, Value, json};

use crate::{Error, Layout, MANIFEST_LIMIT, Reference, lenient};

/// The annotation with an image's short name: its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with an image's full name, as containerd and docker write it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

pub(crate) const EMPTY: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// One line of index.json.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    /// The short name.
    pub tag: Option<String>,
    /// The full reference.
    pub reference: Option<String>,
    /// The manifest or index.
    pub descriptor: Descriptor,
}

impl IndexEntry {
    /// Returns the best name that the image has.
    pub fn name(&self) -> String {
        let named = self.reference.as_ref().or(self.tag.as_ref());
        named.cloned().unwrap_or_else(|| self.descriptor.digest().to_string())
    }

    /// Returns the digest of the image that this belongs to, by its tag: referrers, or cosign's signatures,
    /// attestations and bills of materials.
    pub fn subject(&self) -> Option<String> {
        let name = self.name();
        let (algorithm, rest) = name.rsplit(':').next()?.split_once('-')?;
        let hex = rest.split('.').next()?;
        let long = hex.len() >= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        (long && matches!(algorithm, "sha256" | "sha512")).then(|| format!("{algorithm}:{hex}"))
    }
}

/// Returns the tag of the index of what refers to a manifest (distribution-spec, "Referrers Tag Schema").
pub fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.digest())
}

impl Layout {
    /// Reads index.json.
    pub fn index(&self) -> Result<ImageIndex, Error> {
        let index = lenient::normal::<ImageIndex>(Value::Object(self.read_index()?));
        serde_json::from_value(index).map_err(|error| self.malformed(&error))
    }

    /// Returns the images of index.json.
    pub fn entries(&self) -> Result<Vec<IndexEntry>, Error> {
        let entry = |descriptor: &Descriptor| {
            let annotation = |key: &str| descriptor.annotations().as_ref()?.get(key).cloned();
            IndexEntry { tag: annotation(REF_NAME), reference: annotation(IMAGE_NAME), descriptor: descriptor.clone() }
        };
        Ok(self.index()?.manifests().iter().map(entry).collect())
    }

    /// Finds an image by its full reference, its tag or its digest; without a name, the only one
    /// that does not belong to another.
    pub fn resolve(&self, name: Option<&str>) -> Result<Descriptor, Error> {
        let entries = self.entries()?;
        let known = |entries: &[IndexEntry]| {
            let mut names: Vec<String> = entries.iter().map(IndexEntry::name).collect();
            names.dedup();
            names
        };
        let found: Vec<IndexEntry> = match name {
            None => {
                let images: Vec<IndexEntry> =
                    entries.iter().filter(|entry| entry.subject().is_none()).cloned().collect();
                if images.is_empty() { entries.clone() } else { images }
            }
            Some(name) => [
                |entry: &IndexEntry| entry.reference.clone(),
                |entry: &IndexEntry| entry.tag.clone(),
                |entry: &IndexEntry| Some(entry.descriptor.digest().to_string()),
            ]
            .iter()
            .map(|key| entries.iter().filter(|entry| key(entry).as_deref() == Some(name)).cloned().collect())
            .find(|found: &Vec<IndexEntry>| !found.is_empty())
            .unwrap_or_default(),
        };
        match found.as_slice() {
            [] => Err(Error::NoImage { name: name.unwrap_or("at all").to_owned(), known: known(&entries) }),
            [first, rest @ ..] if rest.iter().all(|entry| entry.descriptor.digest() == first.descriptor.digest()) => {
                Ok(first.descriptor.clone())
            }
            several => Err(Error::Ambiguous { known: known(several) }),
        }
    }

    /// Finds an image by what people call it: a reference in docker's short form, too.
    pub fn find(&self, name: &str) -> Result<Descriptor, Error> {
        let full = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
        self.resolve(Some(&full)).or_else(|_| self.resolve(Some(name)))
    }

    /// Names an image, and takes the name from the image that had it. `reference` is a full reference
    /// (`docker.io/library/nginx:latest`) or a mere tag. The short name is the reference's tag, or the whole reference
    /// while an image of another repository has that tag.
    pub fn tag(&self, reference: &str, descriptor: &Descriptor) -> Result<(), Error> {
        let mut entry = self.to_map(descriptor)?;
        self.edit(|manifests| {
            manifests.retain(|entry| name(entry, IMAGE_NAME) != Some(reference));
            let full = reference.contains('/');
            let short = if full { short_name(reference) } else { Some(reference) };
            if !full {
                manifests.retain(|entry| name(entry, REF_NAME) != Some(reference));
            }
            let taken = short.is_some_and(|short| manifests.iter().any(|entry| name(entry, REF_NAME) == Some(short)));
            let mut annotations = entry.remove("annotations").and_then(into_map).unwrap_or_default();
            if full {
                annotations.insert(IMAGE_NAME.to_owned(), reference.into());
            }
            if let Some(short) = short {
                annotations.insert(REF_NAME.to_owned(), if taken { reference } else { short }.into());
            }
            entry.insert("annotations".to_owned(), annotations.into());
            manifests.push(entry.into());
        })
    }

    /// Takes an image out of index.json, by the names that [`Layout::resolve`] knows; its blobs stay. Returns how many
    /// entries went.
    pub fn untag(&self, reference: &str) -> Result<usize, Error> {
        let mut removed = 0;
        self.edit(|manifests| {
            let key = |entry: &Value, key: usize| match key {
                0 => name(entry, IMAGE_NAME) == Some(reference),
                1 => name(entry, REF_NAME) == Some(reference),
                _ => entry.get("digest").and_then(Value::as_str) == Some(reference),
            };
            let before = manifests.len();
            if let Some(by) = (0..3).find(|by| manifests.iter().any(|entry| key(entry, *by))) {
                manifests.retain(|entry| !key(entry, by));
            }
            removed = before - manifests.len();
        })?;
        Ok(removed)
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<(), Error> {
        let _lock = self.lock_index()?;
        let mut index = self.read_index()?;
        let manifests = index.entry("manifests").or_insert_with(|| json!([]));
        if manifests.is_null() {
            *manifests = json!([]);
        }
        match manifests {
            Value::Array(manifests) => change(manifests),
            _ => return Err(self.malformed(&"`manifests` is not a list")),
        }
        self.replace("index.json", Value::Object(index).to_string().as_bytes())
    }

    fn read_index(&self) -> Result<Map<String, Value>, Error> {
        let path = self.path().join("index.json");
        let mut text = Vec::new();
        sys::file::open_regular(&path)
            .and_then(|file| file.take(MANIFEST_LIMIT).read_to_end(&mut text))
            .map_err(Error::io(format!("read {}", path.display())))?;
        let index = lenient::parse(&text).map_err(|error| self.malformed(&error))?;
        into_map(index).ok_or_else(|| self.malformed(&"not an object"))
    }

    fn to_map(&self, descriptor: &Descriptor) -> Result<Map<String, Value>, Error> {
        let mut map =
            serde_json::to_value(descriptor).ok().and_then(into_map).ok_or_else(|| self.malformed(&"entry"))?;
        if let Some(Value::Object(platform)) = map.get_mut("platform") {
            // The spec's names have a dot (image-spec, image-index.md).
            for (typed, spelt) in [("os_version", "os.version"), ("os_features", "os.features")] {
                if let Some(value) = platform.remove(typed) {
                    platform.insert(spelt.to_owned(), value);
                }
            }
        }
        Ok(map)
    }

    fn malformed(&self, cause: &dyn std::fmt::Display) -> Error {
        Error::Malformed { object: self.path().join("index.json").display().to_string(), cause: cause.to_string() }
    }

    /// Returns the digests of all blobs that are in place.
    pub fn blobs(&self) -> Result<Vec<Digest>, Error> {
        let directory = self.path().join("blobs");
        let failed = || Error::io(format!("list {}", directory.display()));
        let mut digests = Vec::new();
        for algorithm in fs::read_dir(&directory).map_err(failed())? {
            let algorithm = algorithm.map_err(failed())?;
            for blob in fs::read_dir(algorithm.path()).map_err(failed())? {
                let (algorithm, blob) = (algorithm.file_name(), blob.map_err(failed())?.file_name());
                let text = format!("{}:{}", algorithm.to_string_lossy(), blob.to_string_lossy());
                // What is not named as a blob is not ours.
                digests.extend(text.parse::<Digest>().ok());
            }
        }
        digests.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        Ok(digests)
    }
}

fn into_map(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(map) = value { Some(map) } else { None }
}

fn name<'a>(entry: &'a Value, annotation: &str) -> Option<&'a str> {
    entry.get("annotations")?.get(annotation)?.as_str()
}

/// Returns the tag of a full reference; one by digest has none.
fn short_name(reference: &str) -> Option<&str> {
    if reference.contains('@') {
        return None;
    }
    reference.rsplit('/').next().unwrap_or(reference).split_once(':').map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;

    fn names(layout: &Layout) -> Vec<(Option<String>, Option<String>)> {
        layout.entries().unwrap().into_iter().map(|entry| (entry.tag, entry.reference)).collect()
    }

    #[test]
    fn a_tag_moves_and_no_repository_takes_anothers() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| layout.write(bytes, MediaType::ImageManifest).unwrap());
        assert!(matches!(layout.resolve(None), Err(Error::NoImage { .. })));
        layout.tag("docker.io/library/nginx:latest", &a).unwrap();
        assert_eq!(layout.resolve(None).unwrap().digest(), a.digest());
        layout.tag("docker.io/library/nginx:latest", &b).unwrap();
        layout.tag("docker.io/library/busybox:latest", &c).unwrap();
        layout.tag("localhost:5000/x@sha256:00", &c).unwrap();
        layout.tag("mine", &a).unwrap();
        layout.tag("mine", &c).unwrap();
        let busybox = Some("docker.io/library/busybox:latest".to_owned());
        assert_eq!(
            names(&layout),
            [
                (Some("latest".to_owned()), Some("docker.io/library/nginx:latest".to_owned())),
                (busybox.clone(), busybox),
                (None, Some("localhost:5000/x@sha256:00".to_owned())),
                (Some("mine".to_owned()), None),
            ]
        );
        for (name, want) in [
            ("latest", &b),
            ("docker.io/library/nginx:latest", &b),
            ("docker.io/library/busybox:latest", &c),
            ("mine", &c),
            (c.digest().as_ref(), &c),
        ] {
            assert_eq!(layout.resolve(Some(name)).unwrap().digest(), want.digest(), "{name}");
        }
        assert_eq!(
            layout.resolve(Some(a.digest().as_ref())).unwrap_err().to_string().split(';').next().unwrap(),
            format!("no image {} in the layout", a.digest())
        );
        let error = layout.resolve(None).unwrap_err().to_string();
        assert!(error.starts_with("which image? docker.io/library/nginx:latest, "), "{error}");
        assert_eq!(layout.untag("latest").unwrap(), 1);
        assert_eq!(layout.untag("latest").unwrap(), 0);
        assert_eq!(names(&layout).len(), 3);
    }

    #[test]
    fn what_belongs_to_an_image_is_not_another_image() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let [image, signature] = [b"a", b"b"].map(|bytes| layout.write(bytes, MediaType::ImageManifest).unwrap());
        let tag = referrers_tag(image.digest());
        layout.tag("docker.io/library/nginx:latest", &image).unwrap();
        for name in [format!("docker.io/library/nginx:{tag}.sig"), tag.clone()] {
            layout.tag(&name, &signature).unwrap();
        }
        assert_eq!(layout.resolve(None).unwrap().digest(), image.digest());
        layout.tag("sha256-short", &signature).unwrap();
        assert!(matches!(layout.resolve(None), Err(Error::Ambiguous { .. })));
    }

    #[test]
    fn members_of_other_tools_survive_an_edit() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = layout.write(b"a", MediaType::ImageManifest).unwrap();
        let foreign = format!(
            r#"{{"schemaVersion":2,"x":1,"manifests":[{{"mediaType":"a/b","digest":"{}","size":1,"platform":{{"os":"windows","architecture":"amd64","os.version":"10"}},"y":2}}]}}"#,
            blob.digest()
        );
        fs::write(directory.path().join("index.json"), &foreign).unwrap();
        layout.tag("mine", &blob).unwrap();
        assert_eq!(layout.untag("mine").unwrap(), 1);
        assert_eq!(fs::read_to_string(directory.path().join("index.json")).unwrap(), foreign);
    }
}
