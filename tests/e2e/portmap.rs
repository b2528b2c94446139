//! `portmap`: host ports to container ports.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
