//! The options of `checkpoint` and `restore`: runc's, most of them criu's.

use std::path::PathBuf;

use clap::Args;
use container::RuntimeId;

use super::{Create, Life};

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "runc's flags")]
pub(crate) struct Checkpoint {
    pub id: RuntimeId,
    #[command(flatten)]
    pub criu: CriuOptions,
    /// Images of an earlier `--pre-dump`, relative to the new ones
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    pub leave_running: bool,
    /// Write only the memory, and leave the container running
    #[arg(long)]
    pub pre_dump: bool,
    /// Leave out TCP connections that are not established yet
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Give files without a name a temporary one
    #[arg(long)]
    pub link_remap: bool,
    /// Descriptor that gets a byte when pages are served
    #[arg(long, value_name = "N")]
    pub status_fd: Option<u32>,
    /// Server that gets the pages
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub create: Create,
    #[command(flatten)]
    pub criu: CriuOptions,
    /// Security profile to restore with, TYPE:NAME
    #[arg(long, value_name = "PROFILE")]
    pub lsm_profile: Option<String>,
    /// Label to mount with
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    #[command(flatten)]
    pub life: Life,
}

// Not a doc comment either: what both say to criu.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "criu's flags")]
pub(crate) struct CriuOptions {
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Directory of criu's logs [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow sockets whose other end is outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a terminal from outside the container
    #[arg(long)]
    pub shell_job: bool,
    /// Allow locked files
    #[arg(long)]
    pub file_locks: bool,
    /// Remove duplicate pages from the images
    #[arg(long)]
    pub auto_dedup: bool,
    /// Move pages on demand
    #[arg(long)]
    pub lazy_pages: bool,
    /// Treatment of the cgroups
    #[arg(long, value_name = "MODE", default_value = "soft")]
    pub manage_cgroups_mode: CgroupMode,
    /// Namespace to leave empty
    #[arg(long, value_name = "network", value_parser = ["network"])]
    pub empty_ns: Vec<String>,
}

/// `criu_cg_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}
