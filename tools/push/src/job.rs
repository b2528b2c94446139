//! What is sent, and where to.

use std::collections::HashMap;
use std::sync::Mutex;

use layout::{Compression, Layout};
use oci_spec::image::Descriptor;
use registry::Registry;
use registry::progress::Progress;
use rustix::fd::BorrowedFd;

/// From where to where.
pub(crate) struct PushJob<'a> {
    /// The layout.
    pub(crate) layout: &'a Layout,
    /// The pipe from the stage that is still fetching the blobs.
    pub(crate) pipe: Option<BorrowedFd<'static>>,
    /// The repository.
    pub(crate) registry: &'a Registry,
    /// What repositories of the same registry are known to have, by digest; and one that may have all.
    pub(crate) origins: (HashMap<String, String>, Option<String>),
    /// Blobs at once.
    pub(crate) jobs: usize,
    /// What layers are compressed with that are not.
    pub(crate) compression: Compression,
    /// What has become something else by that, by its digest.
    pub(crate) changed: Mutex<HashMap<String, Descriptor>>,
    /// Where progress goes.
    pub(crate) progress: &'a Progress,
}
