//! The command line.

use std::path::PathBuf;

use clap::{Args as Block, Parser, Subcommand};
use layout::Platform;
use registry::{ProgressOptions, RegistryOptions};

use crate::reference::Reference;
use crate::request::{FetchRequest, PullPolicy};
use crate::source::Named;
use crate::verify::{Identity, Rules};

/// Fetch an image into an OCI image layout
#[derive(Parser)]
#[command(name = "pull", version, after_help = include_str!("examples.txt"), args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[rustfmt::skip] // An option a line.
pub(crate) struct PullArgs {
    #[command(subcommand)] pub(crate) verb: Option<PullVerb>,
    /// The image to fetch
    #[arg(value_name = "REF", required = true)] pub(crate) names: Vec<Named>,
    /// The layout to fetch into [default: oci in the directory of all state]
    #[arg(long, value_name = "DIR", global = true)] pub(crate) layout: Option<PathBuf>,
    #[command(flatten)] pub(crate) roots: cli::Roots,
    #[command(flatten)] pub(crate) request: FetchRequest,
    #[command(flatten)] pub(crate) trust: Trust,
    #[command(flatten)] pub(crate) network: RegistryOptions,
    /// Keep the digests of references in this file, and fetch the images that it names
    #[arg(long, value_name = "FILE")] pub(crate) lock: Option<PathBuf>,
    /// Write the image also to an archive: oci-archive:FILE[:TAG] or docker-archive:FILE[:REF]
    #[arg(long, value_name = "ARCHIVE", value_parser = crate::export::parse)] pub(crate) to: Option<Named>,
    #[command(flatten)] pub(crate) shown: ProgressOptions,
}

/// What to do with the layout, other than fetch into it. An image of such a name is written `docker.io/library/list`.
#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum PullVerb {
    /// List the images of the layout
    List {
        #[command(flatten)] form: cli::ListForm,
    },
    /// Print an image's manifest, config and layers as JSON, without fetching it
    Inspect {
        /// The image to look at
        #[arg(value_name = "REF")] name: Named,
        /// Print the manifest or index unchanged
        #[arg(long)] raw: bool,
        /// Print the config unchanged
        #[arg(long, conflicts_with = "raw")] config: bool,
        /// The platform of an index [default: this machine's]
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")] platform: Option<Platform>,
        #[command(flatten)] network: RegistryOptions,
    },
    /// Print the digest of an image
    Digest {
        /// The image to look at
        #[arg(value_name = "REF")] name: Named,
        /// Print the digest of an index's image for this platform
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")] platform: Option<Platform>,
        #[command(flatten)] network: RegistryOptions,
    },
    /// List the tags of a repository
    Tags {
        /// The repository
        #[arg(value_name = "REPOSITORY")] name: Named,
        #[command(flatten)] network: RegistryOptions,
    },
    /// Give an image of the layout further names
    Tag {
        /// A reference, tag or digest
        #[arg(value_name = "REF")] source: String,
        /// The new references
        #[arg(value_name = "REF", required = true)] targets: Vec<Reference>,
    },
    /// Remove images from the layout; gc frees their space
    #[command(visible_alias = "rm")]
    Remove {
        /// References, tags or digests
        #[arg(value_name = "REF", required = true)] names: Vec<String>,
    },
    /// Remove blobs and extracted layers that no image and no container needs
    Gc {
        /// Keep extracted layers that are younger, because a container may be about to use them
        #[arg(long, value_name = "SECONDS", default_value_t = 600)] grace: u64,
    },
}

cli::options! {
    FetchRequest {
        /// The platform, such as linux/arm64 or linux/arm/v7 [default: this machine's]
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")] platform: Option<Platform>,
        /// Fetch the images of all platforms; the record names that of the chosen one
        #[arg(long)] all_platforms: bool,
        /// Fetch all tags of the repository, or all images of the archive
        #[arg(long)] all_tags: bool,
        /// Fetch also signatures, attestations and bills of materials that refer to the image
        #[arg(long)] referrers: bool,
        /// When to ask the registry
        #[arg(long, value_enum, default_value_t)] policy: PullPolicy,
    }
}

cli::values! {
    PullPolicy {
        Always = "always" "Always; blobs that already exist are not fetched again",
        Missing = "missing" "Only if the layout lacks part of the image",
        Never = "never" "Never; it is an error if the image is not in the layout",
    }
}

/// Whose images are used.
#[derive(Block)]
pub(crate) struct Trust {
    /// Use only images with a cosign signature by this public key (PEM), or by one of several
    #[arg(long, value_name = "KEY")]
    verify: Vec<PathBuf>,
    /// The name that signatures must carry: a repository, a reference, or * for any [default: the image's own]
    #[arg(long, value_name = "NAME", requires = "verify", value_parser = Identity::parse)]
    verify_identity: Option<Identity>,
    /// Policy file: the images that may be used, and the keys that must have signed them [default: policy.json of containers]
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
}

impl Trust {
    /// Reads the keys and the policy.
    pub(crate) fn rules(&self) -> anyhow::Result<Rules> {
        Rules::read(&self.verify, self.verify_identity.as_ref(), self.signature_policy.as_deref())
    }
}

impl PullArgs {
    /// Returns the directory of the layout.
    pub(crate) fn directory(&self) -> PathBuf {
        self.layout.clone().unwrap_or_else(|| self.roots.directories().layout())
    }
}
