//! `pull`: a reference becomes a layout on disk.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
