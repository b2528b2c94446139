//! Every shell block of docs/recipes.md.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
