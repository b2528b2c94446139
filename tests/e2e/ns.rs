//! `ns`: namespaces listed, entered, added and deleted.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
