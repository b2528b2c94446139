//! Fetch an image into an OCI image layout.

#![forbid(unsafe_code)]

fn main() {}
