//! Run a container from an image: docker run, as a pipeline of small tools.

#![forbid(unsafe_code)]

fn main() {}
