//! `run`: the whole pipeline in one command.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
