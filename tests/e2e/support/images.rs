//! The test images: made once from Debian packages by `tests/images/make`, kept in a cache, served by a registry in each
//! sandbox.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::needs::find_program;
use super::{programs, sandbox};

/// One test image.
pub(crate) struct Image {
    /// Its reference in the sandbox's registry.
    pub(crate) reference: String,
    /// The OCI image layout that was pushed there; the image's tag in it is `latest`.
    pub(crate) layout: PathBuf,
}

/// Returns an image by its name in the cache: `nginx`, `busybox`, `debian`, `torture`, or a variant such as
/// `nginx:zstd`. A test that uses it states [`super::Need::Registry`].
pub(crate) fn image(name: &str) -> Image {
    let cache = ready().unwrap_or_else(|reason| panic!("{reason}"));
    Image {
        reference: format!("{}/{name}", sandbox::REGISTRY),
        layout: cache.join("layouts").join(name.replace(':', "-")),
    }
}

/// Returns why there can be no images, or `None`.
pub(super) fn unmet() -> Option<String> {
    let missing = |name: &str| find_program(name).is_none();
    if missing("docker-registry") {
        return Some("no docker-registry on this machine".to_owned());
    }
    let made = directory().join("complete").exists();
    (!made && missing("mmdebstrap")).then(|| "no test images, and no mmdebstrap to make them".to_owned())
}

/// Returns the cache with all the images in it, making what is missing.
pub(super) fn ready() -> Result<&'static Path, String> {
    static READY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    READY.get_or_init(make).as_deref().map_err(Clone::clone)
}

fn directory() -> PathBuf {
    // Empty is unset, as for tests/images/make.
    std::env::var_os("DRAYAGE_TEST_CACHE")
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from("/var/cache/drayage-tests"), PathBuf::from)
}

fn make() -> Result<PathBuf, String> {
    let status = Command::new(programs::source().join("tests/images/make"))
        .arg("all")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("tests/images/make: {error}"))?;
    if status.success() { Ok(directory()) } else { Err(format!("tests/images/make: {status}")) }
}
