//! `--compress`: layers that are not compressed are on their way, and the manifests say so. Their diffIDs stay.

use std::io::{self, BufRead, BufReader, Seek, Write};
use std::sync::{PoisonError, atomic::AtomicBool};

use anyhow::{Context, Result, bail};
use layout::Compression;
use oci_spec::image::{Descriptor, MediaType};
use registry::Fetched;
use serde_json::{Value, json};

use crate::job::PushJob;

/// How much is read of a layer at once. Bytes.
const PIECE: usize = 128 << 10;

/// Returns what a layer is to become that is a plain tar archive. Others stay as they are.
pub(crate) fn media_type(blob: &Descriptor, compression: Compression) -> Option<Result<MediaType>> {
    let docker = match blob.media_type().to_string().as_str() {
        "application/vnd.oci.image.layer.v1.tar" => false,
        "application/vnd.docker.image.rootfs.diff.tar" => true,
        _ => return None,
    };
    match (compression, docker) {
        (Compression::Plain, _) => None,
        (Compression::Gzip, true) => Some(Ok("application/vnd.docker.image.rootfs.diff.tar.gzip".into())),
        (Compression::Zstd, true) => Some(Err(anyhow::anyhow!("docker's manifests know no zstd: --compress gzip"))),
        (_, false) => Some(Ok(compression.media_type())),
    }
}

impl PushJob<'_> {
    /// Returns what a blob or a manifest has become.
    pub(crate) fn now(&self, digest: &str) -> Option<Descriptor> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn note(&self, was: &Descriptor, now: Descriptor) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(was.digest().to_string(), now);
    }

    /// Sends a layer compressed. Only then it has a digest that the registry can be asked for, so it goes by a file that has
    /// no name.
    pub(crate) fn upload_compressed(&self, blob: &Descriptor, media_type: MediaType, stop: &AtomicBool) -> Result<()> {
        if self.now(blob.digest().as_ref()).is_some() {
            return Ok(());
        }
        let (now, file) = loop {
            let mut content = BufReader::with_capacity(PIECE, self.layout.follow(blob, self.pipe)?);
            let found = content.fill_buf().map(Compression::detect);
            let encode = |out: &mut dyn Write| match found? {
                Compression::Plain => io::copy(&mut content, out),
                other => Err(io::Error::other(format!("its media type says plain tar, its content is {other}"))),
            };
            match self.compression.encode(self.layout.draft()?, encode) {
                Ok((draft, _)) => break draft.finish(media_type)?,
                // It turned out wrong when it had come, and comes anew.
                Err(error) if matches!(layout::Error::find(&error), Some(layout::Error::Replaced(_))) => {}
                Err(error) => bail!(error),
            }
        };
        log::debug!("blob {} of {} bytes is {} of {}", blob.digest(), blob.size(), now.digest(), now.size());
        let open = || {
            let mut file = file.try_clone()?;
            file.rewind()?;
            Ok(Box::new(file) as Box<dyn io::Read>)
        };
        self.upload(&now, &open, stop)?;
        self.note(blob, now);
        Ok(())
    }

    /// Names in a manifest or an index what its parts have become.
    pub(crate) fn renamed(&self, document: &Descriptor, bytes: Vec<u8>) -> Result<Fetched> {
        let as_it_is = |bytes| Fetched::new(bytes, document.media_type().as_ref(), Some(document.digest()));
        if self.compression == Compression::Plain {
            return as_it_is(bytes);
        }
        let mut value: Value = serde_json::from_slice(&bytes).context("no JSON")?;
        let mut is_changed = false;
        for list in ["layers", "manifests"] {
            for part in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(now) = part["digest"].as_str().and_then(|digest| self.now(digest)) {
                    part["mediaType"] = json!(now.media_type());
                    part["digest"] = json!(now.digest());
                    part["size"] = json!(now.size());
                    is_changed = true;
                }
                // By this an attestation of BuildKit's says which manifest it is about.
                let about = part.pointer_mut("/annotations/vnd.docker.reference.digest");
                if let Some((about, now)) = about.and_then(|it| self.now(it.as_str()?).map(|now| (it, now))) {
                    *about = json!(now.digest());
                }
            }
        }
        if !is_changed {
            return as_it_is(bytes);
        }
        let sent = Fetched::new(value.to_string().into_bytes(), document.media_type().as_ref(), None)?;
        self.note(document, sent.descriptor.clone());
        Ok(sent)
    }
}
