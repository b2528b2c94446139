//! The two forms of what is written: a directory that overlayfs stacks on others, or one merged tree.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// How whiteouts are carried out, and what extended attributes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One layer by itself. Whiteouts become what overlayfs(5) takes for them: devices 0:0 and opaque directories.
    Overlay {
        /// In a user namespace overlayfs reads `user.overlay.*` (mount option `userxattr`), as nobody there may write
        /// `trusted.*`.
        user_xattrs: bool,
    },
    /// All layers in one tree. Whiteouts remove what lower layers have left.
    Flat,
}

impl Form {
    /// Returns the overlay form for where this process is.
    pub(crate) fn overlay() -> Self {
        Self::Overlay { user_xattrs: rootless::in_user_namespace() }
    }

    pub(crate) fn is_flat(self) -> bool {
        self == Self::Flat
    }

    /// Returns the name of overlayfs's mark of a directory that hides the lower ones.
    pub(crate) fn opaque(self) -> &'static CStr {
        match self {
            Self::Overlay { user_xattrs: true } => c"user.overlay.opaque",
            _ => c"trusted.overlay.opaque",
        }
    }
}

/// Returns where the list of a layer's undescribed directories is: paths with a NUL behind each and a sign before: `-`
/// for an undescribed one, `+` where an entry described it later, `w` for one with whiteouts, `o` for one of which all in
/// lower layers is hidden, `h` for a hard link whose target is in a lower layer. The root's path is empty.
pub(crate) fn list_path(layer: &Path) -> PathBuf {
    let mut path = layer.as_os_str().to_owned();
    path.push(".implicit");
    path.into()
}
