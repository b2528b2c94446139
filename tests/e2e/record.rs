//! Docs/record.schema.json against what the tools print.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
