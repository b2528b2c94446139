//! `--to`: an image of the layout as one tar file, which is an oci-archive and, with manifest.json, what `docker load` reads.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use layout::{IMAGE_NAME, Layout, REF_NAME};
use oci_spec::image::Descriptor;
use output::Output;
use serde_json::json;

use crate::source::Named;

/// Checks that a target is an archive.
pub(crate) fn parse(text: &str) -> Result<Named, String> {
    match text.parse()? {
        Named::OciArchive(path, _) | Named::DockerArchive(path, _) if path == Path::new("-") => {
            Err("the record goes to standard output: say /dev/fd/3 and 3>FILE, or 3>&1 >/dev/null".to_owned())
        }
        name @ (Named::OciArchive(..) | Named::DockerArchive(..)) => Ok(name),
        _ => Err("say oci-archive:FILE[:TAG] or docker-archive:FILE[:REF]".to_owned()),
    }
}

/// Writes the image into the file that `to` names; `reference` is its name where `to` has none.
pub(crate) fn write(layout: &Layout, image: &Descriptor, reference: &str, to: &Named) -> anyhow::Result<()> {
    let (path, name, docker) = match to {
        Named::OciArchive(path, name) => (path, name, false),
        Named::DockerArchive(path, name) => (path, name, true),
        _ => bail!("{to} is no archive"),
    };
    let name = name.as_deref().unwrap_or(reference);
    write_tar(layout, image, name, docker, path).with_context(|| format!("write {}", path.display()))
}

fn write_tar(layout: &Layout, image: &Descriptor, name: &str, docker: bool, path: &Path) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(256 << 10, Output::create(path)?));
    let mut entry = serde_json::to_value(image)?;
    let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
    entry["annotations"] =
        if name.contains('/') { json!({IMAGE_NAME: name, REF_NAME: tag}) } else { json!({REF_NAME: name}) };
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", index.to_string().as_bytes())?;
    if docker {
        let manifest = layout.manifest(image).context("docker-archive holds one platform")?;
        let layers: Vec<String> = manifest.layers().iter().map(blob_name).collect();
        let saved = json!([{"Config": blob_name(manifest.config()), "RepoTags": [name], "Layers": layers}]);
        add(&mut tar, "manifest.json", saved.to_string().as_bytes())?;
    }
    for blob in &layout.tree(image)? {
        let mut header = header(blob.size());
        tar.append_data(&mut header, blob_name(blob), layout.blob(blob)?)?;
    }
    let mut written = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(written.commit()?)
}

fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes.take(u64::MAX))
}

/// The same image gives the same archive: no times, no owners.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

fn blob_name(blob: &Descriptor) -> String {
    format!("blobs/{}/{}", blob.digest().algorithm(), blob.digest().digest())
}
