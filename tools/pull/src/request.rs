//! What is asked of `pull`, whatever the words for it are. The options' help describes the members.

use layout::Platform;

/// Which images are fetched, and when.
pub(crate) struct FetchRequest {
    pub(crate) platform: Option<Platform>,
    pub(crate) all_platforms: bool,
    pub(crate) all_tags: bool,
    pub(crate) referrers: bool,
    pub(crate) policy: PullPolicy,
}

/// When a registry is asked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// Always; blobs that already exist are not fetched again.
    #[default]
    Always,
    /// Only if the layout lacks part of the image.
    Missing,
    /// Never; it is an error if the image is not in the layout.
    Never,
}
