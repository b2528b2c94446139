//! The command line.

use std::path::PathBuf;

use clap::Parser;
use layout::Platform;

use crate::stream::Limits;

/// No image that anybody uses comes near, nor near the 256 GiB of --max-size.
const ENTRIES_LIMIT: u64 = 10_000_000;

/// Extract an image's layers into directories for overlayfs
///
/// Reads a record with `image`, or a directory that is an OCI image layout, and adds `rootfs` to the record: `layers`,
/// shared by all images and extracted once, or with --flat `path`, one merged tree. Layers are extracted while `pull`
/// is still fetching them.
#[derive(Debug, Parser)]
#[command(name = "unpack", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A directory: an OCI image layout; a file, - or nothing: a record
    pub(crate) input: Option<PathBuf>,
    /// Which image of the layout: a tag, a full reference or a digest [default: the only one]
    #[arg(long = "ref", value_name = "NAME")]
    pub(crate) reference: Option<String>,
    /// Which platform's image of the layout [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Make one merged tree at DIR, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) flat: Option<PathBuf>,
    /// Refuse an image of more bytes than this, uncompressed; K, M, G and T count in 1024s
    #[arg(long, value_name = "SIZE", default_value = "256G", value_parser = size)]
    max_size: u64,
    /// Refuse an image of more entries than this
    #[arg(long, value_name = "COUNT", default_value_t = ENTRIES_LIMIT)]
    max_entries: u64,
    /// Do not wait until the disk has it: a crash of the machine may leave damaged layers
    #[arg(long)]
    no_sync: bool,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

const EXAMPLES: &str = "Examples:
  pull nginx | unpack
  unpack --flat ./rootfs ./layout --ref latest
  pull nginx | unpack | bundle --id web";

impl Args {
    pub(crate) fn limits(&self) -> Limits {
        Limits::new(self.max_size, self.max_entries)
    }

    pub(crate) fn sync(&self) -> bool {
        !self.no_sync
    }

    /// A record names its image.
    pub(crate) fn refuse_layout_options(&self) -> Result<(), cli::Usage> {
        if self.reference.is_some() || self.platform.is_some() {
            return Err(cli::Usage("--ref and --platform choose from a layout, and the input is a record".to_owned()));
        }
        Ok(())
    }
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'b']).trim_end_matches(['i']) {
        text if text.ends_with(['K', 'k']) => (&text[..text.len() - 1], 10),
        text if text.ends_with(['M', 'm']) => (&text[..text.len() - 1], 20),
        text if text.ends_with(['G', 'g']) => (&text[..text.len() - 1], 30),
        text if text.ends_with(['T', 't']) => (&text[..text.len() - 1], 40),
        text => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size, such as 500M or 2G".to_owned())?;
    number.checked_mul(1 << unit).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("2MiB", Some(2 << 20)),
            ("256G", Some(256 << 30)),
            ("1TB", Some(1 << 40)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("99999999999T", None),
        ] {
            assert_eq!(size(text).ok(), want, "{text}");
        }
    }
}
