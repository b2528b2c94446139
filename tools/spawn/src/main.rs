//! Run containers from OCI bundles, with runc's command line.

#![forbid(unsafe_code)]

fn main() {}
