//! Publish a container's ports on the host.

#![forbid(unsafe_code)]

fn main() {}
