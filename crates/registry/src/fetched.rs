//! What a registry, a layout or an archive gives.

use std::io::Read;

use layout::Document;
use oci_spec::image::{Descriptor, Digest, MediaType};

/// A manifest or index as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its descriptor.
    pub descriptor: Descriptor,
}

impl Fetched {
    /// Computes the descriptor; with `want`, the digest must be that.
    pub fn new(bytes: Vec<u8>, media_type: &str, want: Option<&Digest>) -> anyhow::Result<Self> {
        let digest = want.cloned().unwrap_or_else(|| layout::sha256(&bytes));
        let descriptor = Descriptor::new(MediaType::from(layout::essence(media_type)), bytes.len() as u64, digest);
        layout::verify(&descriptor, &bytes)?;
        Ok(Self { bytes, descriptor })
    }

    /// Returns what it says.
    pub fn parse(&self) -> Result<Document, layout::Error> {
        Document::parse(&self.bytes, self.descriptor.media_type().as_ref(), self.descriptor.digest().as_ref())
    }
}

/// A blob that is coming.
pub struct Body {
    /// The offset of the first byte that will come.
    pub start: u64,
    /// The bytes.
    pub reader: Box<dyn Read>,
}
