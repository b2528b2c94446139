//! List, show, enter, add and delete namespaces.

#![forbid(unsafe_code)]

fn main() {}
