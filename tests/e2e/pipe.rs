//! The stages in one pipe, and what happens when one of them fails.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
