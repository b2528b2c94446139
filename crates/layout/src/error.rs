//! Why a layout or a blob cannot be had. Callers decide on the kind: fetch again, start over, give up.

use std::io;
use std::path::PathBuf;

use oci_spec::image::Digest;

/// What went wrong, with the object in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not an OCI image layout of a version that is known.
    #[error("{}: not an OCI image layout: {cause}", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What is missing or wrong.
        cause: String,
    },
    /// The system refused.
    #[error("{operation}: {cause}")]
    Io {
        /// The operation and its object.
        operation: String,
        /// The system's reason.
        cause: io::Error,
    },
    /// A digest of an algorithm that nobody here can compute.
    #[error("{0}: digest algorithm is not supported")]
    Algorithm(Digest),
    /// The blob is not in the layout.
    #[error("blob {0} is not in the layout")]
    Missing(Digest),
    /// The blob was to arrive, and whoever fetched it is gone.
    #[error("blob {0} never arrived")]
    NeverArrived(Digest),
    /// What was already read of a blob has turned out wrong and is being fetched anew: start over.
    #[error("blob {0} was replaced while it was read")]
    Replaced(Digest),
    /// The blob is longer or shorter than its descriptor says.
    #[error("blob {digest}: size is {got}, not {want} as its descriptor says")]
    Size {
        /// The blob.
        digest: Digest,
        /// The descriptor's size.
        want: u64,
        /// The true size, as far as it was read.
        got: u64,
    },
    /// The content is not what its digest says.
    #[error("blob {want}: content has digest {got}")]
    Digest {
        /// The descriptor's digest.
        want: Digest,
        /// The content's digest.
        got: Digest,
    },
    /// So was that of a blob in its place.
    #[error("blob {want}: content has digest {got}: {remedy}")]
    Damaged {
        /// The descriptor's digest.
        want: Digest,
        /// The content's digest.
        got: Digest,
        /// What was done about it, or is to be done.
        remedy: String,
    },
    /// The descriptor's size is beyond what this kind of blob may have.
    #[error("blob {digest}: {size} bytes are more than the {limit} that are read")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The descriptor's size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A manifest, index or config is not of its form.
    #[error("{object}: {cause}")]
    Malformed {
        /// The object: its digest or its file.
        object: String,
        /// What does not fit.
        cause: String,
    },
    /// No image of that name.
    #[error("no image {name} in the layout{}", names(known))]
    NoImage {
        /// The name that was asked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// More than one image fits.
    #[error("which image? {}", known.join(", "))]
    Ambiguous {
        /// The names that are there.
        known: Vec<String>,
    },
    /// The index has no image for the platform.
    #[error("no image for {wanted}{}", names(known))]
    NoPlatform {
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that are there.
        known: Vec<String>,
    },
}

fn names(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there is {}", known.join(", ")) }
}

impl Error {
    /// Finds the layout's error in what a reader returned.
    pub fn find(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |cause| match cause.downcast::<Self>() {
            Ok(own) => own,
            Err(cause) => Self::Io { operation: operation.into(), cause },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
