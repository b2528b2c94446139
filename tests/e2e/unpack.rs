//! `unpack`: a layout becomes layers or a root file system.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
