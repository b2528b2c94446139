//! One layer from its blob into a directory, with both its digests checked.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::{Mode, fchmod, futimens};

use crate::form::Form;
use crate::image::Layer;
use crate::interrupt;
use crate::layer;
use crate::lower::Lower;
use crate::node;
use crate::stream::{LayerStream, Limits};
use crate::tree::Tree;
use archive::{Archive, Entry};

/// The mode of a root that no layer describes.
const ROOT_MODE: u32 = 0o755;

/// How a layer is extracted.
pub(crate) struct ExtractManner<'a> {
    pub(crate) form: Form,
    /// Gets the list of directories that no entry describes.
    pub(crate) implicit: Option<File>,
    /// The layers below, where this one depends on them.
    pub(crate) lower: Option<&'a Lower>,
}

/// Extracts a layer below `root`. Returns the entry that describes the root itself: to be applied when all is done.
pub(crate) fn extract(
    stream: LayerStream,
    layer: &Layer,
    root: &File,
    manner: ExtractManner<'_>,
    limits: &Arc<Limits>,
) -> anyhow::Result<Option<Entry>> {
    let mut tree = Tree::new(root.try_clone()?.into(), manner.form, limits, manner.implicit);
    tree.lower = manner.lower;
    let mut archive = Archive::new(stream);
    let entry = layer::apply(&mut archive, &mut tree, limits)?;
    // Before anything is kept: until here the content is what somebody sent, not what the manifest names.
    archive.into_inner().finish(&layer.diff_id)?;
    let _pass = interrupt::pass();
    if entry.is_none() {
        tree.note(b'-', b"")?;
    }
    tree.finish()?;
    Ok(entry)
}

/// Gives the root its owner, mode and times: before, nobody else may enter it.
pub(crate) fn describe_root(root: &File, entry: Option<&Entry>) -> anyhow::Result<()> {
    let _pass = interrupt::pass();
    let describe = || -> anyhow::Result<()> {
        match entry {
            Some(entry) => node::describe_directory(root.as_fd(), entry)?,
            None => fchmod(root, Mode::from_raw_mode(ROOT_MODE))?,
        }
        Ok(futimens(root, &entry.unwrap_or(&Entry::default()).times())?)
    };
    describe().context("describe the root directory")
}
