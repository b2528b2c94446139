//! Extract an image's layers into directories that overlayfs can mount.

#![forbid(unsafe_code)]

fn main() {}
