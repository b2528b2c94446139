//! What all the tools do alike: help, usage errors, closed pipes.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
