//! The command line.

use std::path::PathBuf;

use clap::{Args as Block, Parser, Subcommand, ValueEnum};
use layout::Platform;
use registry::{ProgressOptions, RegistryOptions};

use crate::reference::Reference;
use crate::source::Name;
use crate::verify::{Identity, Rules};

const EXAMPLES: &str = include_str!("examples.txt");

/// Fetch an image into an OCI image layout
#[derive(Parser, Debug)]
#[command(name = "pull", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    /// What to fetch
    #[arg(value_name = "REF", required = true)]
    pub(crate) names: Vec<Name>,
    /// The layout to fetch into [default: oci in the directory of all state]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) layout: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) network: RegistryOptions,
    /// Keep the digests of references in this file, and fetch what it says
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Write the image also to an archive: oci-archive:FILE[:TAG] or docker-archive:FILE[:REF]
    #[arg(long, value_name = "ARCHIVE", value_parser = crate::export::parse)]
    pub(crate) to: Option<Name>,
    #[command(flatten)]
    pub(crate) shown: ProgressOptions,
}

/// What to do with the layout, other than fetch into it. An image of such a name is written `docker.io/library/list`.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List the images of the layout
    List {
        #[command(flatten)]
        form: cli::ListForm,
    },
    /// Look at an image where it is: manifest, config and layers as JSON
    Inspect {
        /// What to look at
        #[arg(value_name = "REF")]
        name: Name,
        /// The manifest or index as it is
        #[arg(long)]
        raw: bool,
        /// The config as it is
        #[arg(long, conflicts_with = "raw")]
        config: bool,
        /// The platform of an index [default: this machine's]
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        #[command(flatten)]
        network: RegistryOptions,
    },
    /// Print the digest of what a reference names
    Digest {
        /// What to look at
        #[arg(value_name = "REF")]
        name: Name,
        /// The digest of the image for a platform, where an index is named
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        #[command(flatten)]
        network: RegistryOptions,
    },
    /// List the tags of a repository
    Tags {
        /// The repository
        #[arg(value_name = "REPOSITORY")]
        name: Name,
        #[command(flatten)]
        network: RegistryOptions,
    },
    /// Give an image of the layout further names
    Tag {
        /// A reference, tag or digest
        #[arg(value_name = "REF")]
        source: String,
        /// The new references
        #[arg(value_name = "REF", required = true)]
        targets: Vec<Reference>,
    },
    /// Take images out of the layout; gc frees their space
    #[command(visible_alias = "rm")]
    Remove {
        /// References, tags or digests
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
    },
    /// Remove blobs and extracted layers that no image and no container needs
    Gc {
        /// Keep extracted layers that are younger: a container may just be made of them
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        grace: u64,
    },
}

/// Which images.
#[derive(Block, Clone, Debug)]
pub(crate) struct Choice {
    /// The platform, such as linux/arm64 or linux/arm/v7 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Fetch the images of all platforms; the record names the chosen one's
    #[arg(long)]
    pub(crate) all_platforms: bool,
    /// Fetch all tags of the repository, or all images of the archive
    #[arg(long)]
    pub(crate) all_tags: bool,
    /// Fetch also what refers to the image: signatures, attestations, bills of materials
    #[arg(long)]
    pub(crate) referrers: bool,
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: Policy,
}

/// When a registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Each time; blobs that are there are not fetched again
    #[default]
    Always,
    /// Only when the layout does not have the whole image
    Missing,
    /// Never: the image is in the layout, or that is an error
    Never,
}

/// Whose images are used.
#[derive(Block, Clone, Debug)]
pub(crate) struct Trust {
    /// Use only what has a cosign signature by this public key (PEM), or by one of several
    #[arg(long, value_name = "KEY")]
    verify: Vec<PathBuf>,
    /// The name that signatures must carry: a repository, a reference, or * for any [default: the image's own]
    #[arg(long, value_name = "NAME", requires = "verify", value_parser = Identity::parse)]
    verify_identity: Option<Identity>,
    /// Which images may be used and who must have signed them [default: policy.json of containers]
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
}

impl Trust {
    /// Reads the keys and the policy.
    pub(crate) fn rules(&self) -> anyhow::Result<Rules> {
        Rules::read(&self.verify, self.verify_identity.as_ref(), self.signature_policy.as_deref())
    }
}

impl Args {
    /// Returns the directory of the layout.
    pub(crate) fn directory(&self) -> PathBuf {
        self.layout.clone().unwrap_or_else(|| self.roots.directories().layout())
    }
}
