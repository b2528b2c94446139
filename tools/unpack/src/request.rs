//! What is asked of `unpack commit`, whatever the words for it are. The options' help describes the members.

use std::path::PathBuf;

use layout::{Compression, Reference};

use crate::instruction::Instruction;

/// Which container becomes an image, and which image.
pub(crate) struct Commit {
    pub(crate) container: Option<PathBuf>,
    pub(crate) tag: Vec<Reference>,
    pub(crate) change: Vec<Instruction>,
    pub(crate) author: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) created_by: Option<String>,
    pub(crate) compression: Compression,
    pub(crate) sparse: bool,
}
