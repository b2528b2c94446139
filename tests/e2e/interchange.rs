//! Artefacts in both directions between these tools and their peers.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
