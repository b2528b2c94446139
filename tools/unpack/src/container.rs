//! The container whose changes are looked at: a bundle that `bundle` has made, running or not, or a tree that `unpack
//! --flat` has made.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ::container::{ContainerId, Directories, Unwritten};
use anyhow::{Context, bail};
use record::{Bundle, Input, Record, Rootfs};
use serde_json::Value;

use crate::changes::ChangesPlace;
use crate::path::{Inner, inner};

/// Members of the record that describe a container, not what it is made from.
#[rustfmt::skip]
const OWN: [&str; 12] = [
    "bundle", "id", "owner", "network", "networkOptions", "ports", "portOptions", "sockets", "ociVersion",
    "status", "pid", "annotations",
];

/// A container and what it stands on.
#[derive(Debug)]
pub(crate) struct CommittedContainer {
    pub(crate) record: Record,
    pub(crate) place: ChangesPlace,
    /// What is below it, the lowest first; empty where the image was extracted to one tree.
    pub(crate) layers: Vec<PathBuf>,
    /// Where its runtime mounts something.
    pub(crate) mount_points: HashSet<Inner>,
    /// What runs in it.
    pub(crate) command: Option<String>,
}

impl CommittedContainer {
    /// Finds a container by its id, its bundle's directory, or a record.
    pub(crate) fn find(argument: Option<&Path>, directories: &Directories) -> anyhow::Result<Self> {
        let by_id = argument
            .filter(|argument| argument.components().count() == 1)
            .and_then(|id| ContainerId::of_path(id).ok())
            .map(|id| directories.in_full(id).map(|id| directories.bundle(&id)));
        let by_id = by_id.transpose()?.filter(|bundle| sys::file::may_be_there(&bundle.join("record.json")));
        if let Some(bundle) = by_id {
            return Self::of_bundle(&bundle, Record::default());
        }
        let shown =
            || argument.map_or("container of the record".into(), |path| format!("container {}", path.display()));
        match Input::read(argument).with_context(shown)? {
            Input::Directory(path) => Self::of_bundle(&std::path::absolute(&path)?, Record::default()),
            Input::Record(record) => match record.find::<Bundle>()? {
                Some(Bundle(bundle)) => Self::of_bundle(&bundle, record),
                None => Self::of_tree(record),
            },
        }
    }

    /// `given` may lack what the bundle's own record has: a runtime's State is a record, too.
    fn of_bundle(bundle: &Path, given: Record) -> anyhow::Result<Self> {
        let path = bundle.join("record.json");
        let mut record = given;
        if record.member("image").is_none() || record.member("rootfs").is_none() {
            let text = sys::file::read_regular(&path).with_context(|| format!("read {}", path.display()))?;
            record = Record::parse(&text, &path.display().to_string())?;
        }
        for member in OWN {
            record.remove(member);
        }
        let rootfs: Rootfs = record.part()?;
        let upper = bundle.join("upper");
        // By what is in the bundle and not by what the record says: the record of a stage before `bundle` knows of no
        // upper directory.
        let (place, layers) = match (upper.is_dir(), rootfs.layers, rootfs.path) {
            (true, Some(layers), _) => (ChangesPlace::Upper(upper), layers),
            (true, None, Some(path)) => (ChangesPlace::Upper(upper), vec![path]),
            (false, _, Some(path)) => (ChangesPlace::Flat(path), Vec::new()),
            _ => bail!("bundle {}: its record has no root file system", bundle.display()),
        };
        Unwritten::check(&layers)?;
        let (mount_points, command) = config(&bundle.join("config.json"))?;
        Ok(Self { record, place, layers, mount_points, command })
    }

    fn of_tree(mut record: Record) -> anyhow::Result<Self> {
        let rootfs: Rootfs = record.part()?;
        let Some(path) = rootfs.path else {
            bail!(cli::Usage("the record has no container, so its layers have no changes".to_owned()));
        };
        for member in OWN {
            record.remove(member);
        }
        let (place, layers) = (ChangesPlace::Flat(path), Vec::new());
        Ok(Self { record, place, layers, mount_points: HashSet::new(), command: None })
    }
}

/// Returns the mount points and the command line of a bundle's config.json.
fn config(path: &Path) -> anyhow::Result<(HashSet<Inner>, Option<String>)> {
    let named = || format!("read {}", path.display());
    let config: Value =
        serde_json::from_slice(&sys::file::read_regular(path).with_context(named)?).with_context(named)?;
    let mounts = config["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Directories that the runtime has made for mounts are in the upper directory, but are no changes of the
    // container's.
    let destinations = mounts.iter().filter_map(|mount| mount["destination"].as_str());
    let mount_points = destinations.filter_map(|path| inner(path.as_bytes()).ok()).collect();
    let words = config["process"]["args"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    Ok((mount_points, (!words.is_empty()).then(|| words.join(" "))))
}
