//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use layout::{Compression, Platform, Reference};
use registry::{ProgressOptions, RegistryOptions};

/// Send an image from a layout to a registry
#[derive(Parser, Debug)]
#[command(name = "push", version, after_help = include_str!("examples.txt"), allow_missing_positional = true)]
#[rustfmt::skip] // An option a line.
pub(crate) struct PushArgs {
    /// A reference, tag or digest in the layout, or - for the record on stdin
    #[arg(value_name = "SOURCE")] pub(crate) source: Option<String>,
    /// The reference to send it to
    #[arg(value_name = "DESTINATION")] pub(crate) destination: Reference,
    /// The layout that has the image, without a record [default: oci in the directory of all state]
    #[arg(long, value_name = "DIR")] layout: Option<PathBuf>,
    #[command(flatten)] roots: cli::Roots,
    /// Send an index's image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with_all = ["all_platforms", "all_tags"])]
    pub(crate) platform: Option<Platform>,
    /// Send the images of all platforms, as `pull --all-platforms` fetches, though the record names one
    #[arg(long)] pub(crate) all_platforms: bool,
    /// Send all tags of the repository that the layout has
    #[arg(long, short)] pub(crate) all_tags: bool,
    /// Send also signatures, attestations and bills of materials that refer to the image
    #[arg(long)] pub(crate) referrers: bool,
    /// Compress uncompressed layers, which changes the image's digest
    #[arg(long, alias = "compression", value_name = "COMPRESSION", conflicts_with = "referrers", default_value = "none",
        value_parser = PossibleValuesParser::new(["none", "gzip", "zstd"]).try_map(|it| it.parse::<Compression>()))]
    pub(crate) compress: Compression,
    #[command(flatten)] pub(crate) network: RegistryOptions,
    #[command(flatten)] pub(crate) shown: ProgressOptions,
}

impl PushArgs {
    /// Returns the directory of the layout.
    pub(crate) fn directory(&self) -> PathBuf {
        self.layout.clone().unwrap_or_else(|| self.roots.directories().layout())
    }

    /// Tells whether the image is a record's, which says all of it.
    pub(crate) fn is_of_record(&self) -> Result<bool, cli::Usage> {
        let chosen = self.layout.is_some() || self.platform.is_some() || self.all_tags;
        if self.compress != Compression::Plain && self.destination.digest.is_some() {
            return Err(cli::Usage("--compress changes the digest, and the destination says one".to_owned()));
        }
        match self.source.as_deref() {
            Some("-") if chosen => {
                Err(cli::Usage("--layout, --platform and --all-tags are not for a record's image".to_owned()))
            }
            Some(source) => Ok(source == "-"),
            None => Ok(!chosen && stdin_is_given()),
        }
    }
}

/// Tells whether somebody has given this process an input: terminals and /dev/null are none.
fn stdin_is_given() -> bool {
    use rustix::fs::FileType::{Fifo, RegularFile, Socket};
    let kind = rustix::fs::fstat(rustix::stdio::stdin()).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    kind.is_ok_and(|kind| matches!(kind, Fifo | RegularFile | Socket))
}
