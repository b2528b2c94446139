//! The part of a command line that says how registries are reached and how progress is shown.

use std::path::PathBuf;

use clap::Args;

use crate::progress::{Progress, ProgressForm};
use crate::retry::Patience;

/// How registries are reached.
#[derive(Args, Clone, Debug)]
#[rustfmt::skip] // An option a line.
pub struct RegistryOptions {
    /// Longest wait for the next byte
    #[arg(long, value_name = "SECONDS", default_value_t = 30)] pub(crate) timeout: u64,
    /// Retries without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 5)] pub(crate) retries: u32,
    /// Blobs transferred at once
    #[arg(long, value_name = "N", default_value_t = 4)] pub jobs: usize,
    /// Credentials, as podman's auth.json or docker's config.json [default: $`REGISTRY_AUTH_FILE`, then theirs]
    #[arg(long, value_name = "FILE")] pub(crate) authfile: Option<PathBuf>,
    /// Certificates: *.crt are authorities, X.cert with X.key is ours [default: certs.d of containers and docker]
    #[arg(long, value_name = "DIR")] pub(crate) cert_dir: Option<PathBuf>,
    /// Mirrors, aliases and blocked registries [default: registries.conf of containers]
    #[arg(long, value_name = "FILE")] pub(crate) registries_conf: Option<PathBuf>,
    /// Check certificates; false also allows plain http, for storage and token servers, too
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) tls_verify: bool,
}

impl RegistryOptions {
    /// Returns how long to try.
    pub fn patience(&self) -> Patience {
        Patience::new(self.timeout, self.retries)
    }
}

/// How progress is shown.
#[derive(Args, Clone, Debug)]
pub struct ProgressOptions {
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Progress as auto (bars while stderr is a terminal), none, json (lines on stderr) or json:FD
    #[arg(long, value_name = "FORM", default_value = "auto")]
    progress: ProgressForm,
}

impl ProgressOptions {
    /// Opens where progress goes.
    pub fn open(&self) -> anyhow::Result<Progress> {
        Progress::open(if self.quiet { ProgressForm::None } else { self.progress })
    }
}
