//! `spawn`: a bundle becomes a container.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
