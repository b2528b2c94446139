//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use layout::{Compression, Platform, Reference};

use crate::diff::Style;
use crate::instruction::Instruction;
use crate::request::Commit;
use crate::stream::Limits;

/// No image that anybody uses comes near, nor near the 256 GiB of --max-size.
const ENTRIES_LIMIT: u64 = 10_000_000;

/// Extract an image's layers into directories for overlayfs
///
/// It reads a record with `image`, or an OCI image layout's directory, and adds `rootfs` to the record. `rootfs` has
/// `layers`, shared by all images and extracted once, or, with --flat, `path`, one merged tree. Layers are extracted while
/// `pull` is still fetching them.
#[derive(Parser)]
#[command(name = "unpack", version, after_help = include_str!("examples.txt"))]
#[command(args_conflicts_with_subcommands = true)]
#[rustfmt::skip] // An option a line.
pub(crate) struct UnpackArgs {
    #[command(subcommand)] pub(crate) verb: Option<UnpackVerb>,
    /// An OCI image layout's directory, or a record: a file, - or nothing for stdin
    pub(crate) input: Option<PathBuf>,
    /// Image of the layout: a tag, a full reference or a digest [default: the only one]
    #[arg(long = "ref", value_name = "NAME")] pub(crate) reference: Option<String>,
    /// Platform of the layout's image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")] pub(crate) platform: Option<Platform>,
    /// Make one merged tree at DIR, which must not exist or be empty
    #[arg(long, value_name = "DIR")] pub(crate) flat: Option<PathBuf>,
    /// Refuse an image of more bytes than this, uncompressed; K, M, G and T count in 1024s
    #[arg(long, value_name = "SIZE", default_value = "256G")] max_size: cli::Bytes,
    /// Refuse an image of more entries than this
    #[arg(long, value_name = "COUNT", default_value_t = ENTRIES_LIMIT)] max_entries: u64,
    /// Wait until the layers are on the disk, as for --flat; after a power cut others are extracted again
    #[arg(long)] pub(crate) sync: bool,
    #[command(flatten)] pub(crate) roots: cli::Roots,
}

/// What to do with a container's changes.
#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum UnpackVerb {
    /// Show a container's changes, or write them as a layer
    ///
    /// It prints a line for each file: A if it was added, C if it was changed, D if it was deleted.
    #[command(after_help = include_str!("diff/examples.txt"))]
    Diff {
        /// A container's id, a bundle's directory, a file with a record, or - or nothing for a record on stdin
        container: Option<PathBuf>,
        /// Print one JSON array
        #[arg(long, short = 'J', conflicts_with = "tar")] json: bool,
        /// Write the changes as a layer, uncompressed
        #[arg(long)] tar: bool,
        /// Omit the holes of sparse files, which not every reader understands
        #[arg(long, requires = "tar")] sparse: bool,
    },
    Commit(Commit),
}

cli::options! {
    /// Make an image of a container: its own image with its changes as a layer on top
    ///
    /// The new image goes into the layout of the container's image, and its record is printed. With $`SOURCE_DATE_EPOCH` in
    /// the environment the same changes make the same image.
    #[command(after_help = include_str!("commit/examples.txt"))]
    Commit {
        /// A container's id, a bundle's directory, a file with a record, or - or nothing for a record on stdin
        container: Option<PathBuf>,
        /// Name of the new image; may be given more than once
        #[arg(long, short, value_name = "NAME")] tag: Vec<Reference>,
        /// Change the config: CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR, as in a Dockerfile
        #[arg(long, short, value_name = "INSTRUCTION")] change: Vec<Instruction>,
        /// Author of the image
        #[arg(long, short, value_name = "TEXT")] author: Option<String>,
        /// Comment on the image
        #[arg(long, short, value_name = "TEXT")] message: Option<String>,
        /// Command that made the layer [default: the container's command line]
        #[arg(long, value_name = "TEXT")] created_by: Option<String>,
        /// Compression of the layer
        #[arg(long, alias = "compress", default_value = "gzip", value_parser = PossibleValuesParser::new(["none", "gzip", "zstd"]).try_map(|it| it.parse::<Compression>()))]
        compression: Compression,
        /// Omit the holes of sparse files, which not every reader understands
        #[arg(long)] sparse: bool,
    }
}

/// Returns how a layer is written.
pub(crate) fn style(sparse: bool) -> Result<Style, cli::Usage> {
    Ok(Style { sparse, epoch: epoch()? })
}

/// Of the year 9999: RFC 3339 has no later years.
const LAST_SECOND: i64 = 253_402_300_799;

/// Reads $`SOURCE_DATE_EPOCH` (reproducible-builds.org): seconds since 1970.
fn epoch() -> Result<Option<i64>, cli::Usage> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds =
        text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| (0..=LAST_SECOND).contains(seconds));
    let wrong = || cli::Usage(format!("SOURCE_DATE_EPOCH={}: not seconds since 1970", text.to_string_lossy()));
    seconds.map(Some).ok_or_else(wrong)
}

impl UnpackArgs {
    pub(crate) fn limits(&self) -> Limits {
        Limits::new(self.max_size.0.unsigned_abs(), self.max_entries)
    }

    /// A record names its image.
    pub(crate) fn refuse_layout_options(&self) -> Result<(), cli::Usage> {
        if self.reference.is_some() || self.platform.is_some() {
            return Err(cli::Usage("--ref and --platform choose from a layout, but the input is a record".to_owned()));
        }
        Ok(())
    }
}
