//! `bundle`: layers and an image's configuration become a runtime bundle.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
