//! Turn an image's config and your options into an OCI runtime bundle.

#![forbid(unsafe_code)]

fn main() {}
