//! Kept records: what `pull | unpack` has printed for an image, so that the next run of it executes neither of them.
//!
//! A kept record stands for both while everything that they would look at is as it was: the layout's index, its blobs and
//! each layer, and the files that say what a name stands for and who may be trusted. It ends with the boot, as after a power
//! cut a layer may be less than its directory says.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use container::Directories;
use record::{Image, Record, Rootfs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Stage, Tool};

use crate::plan::RunPlan;
use crate::request::RunRequest;

/// What a kept record is made from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Basis {
    /// The two command lines, and where the user's configuration is.
    words: String,
    boot: String,
    /// Files and directories, and what they were: empty for one that was not there.
    files: Vec<(PathBuf, String)>,
}

/// The record of a run's image, kept or to be kept.
#[derive(Debug)]
pub(crate) struct KeptRecord {
    path: PathBuf,
    basis: Basis,
    layout: PathBuf,
    is_good: bool,
}

impl KeptRecord {
    /// Looks for the record that stands for a plan's first two stages; `None` where none can.
    pub(crate) fn find(plan: &RunPlan, options: &RunRequest) -> Option<Self> {
        let [pull, unpack, ..] = plan.stages.as_slice() else { return None };
        let image = options.image().ok()?.to_str()?;
        // Those are read anew each time, and this file may say otherwise from one run to the next.
        let is_read_anew = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|scheme| image.starts_with(scheme));
        let is_chosen = std::env::var_os("CONTAINERS_REGISTRIES_CONF").is_some_and(|file| !file.is_empty());
        if pull.tool != Tool::Pull || options.pull == "always" || options.folder.is_some() || is_read_anew || is_chosen
        {
            return None;
        }
        let words = format!("{pull} | {unpack} ({})", cli::config_home().display());
        let boot = sys::file::read_once("/proc/sys/kernel/random/boot_id").ok()?;
        let name = format!("{:08x}.json", container::hash(words.as_bytes()));
        let path = plan.directories.records().join(name);
        let mut basis = Basis { words, boot, files: Vec::new() };
        let is_good = basis.is_that_of(&path);
        if !is_good {
            // Before the stages look: what changes meanwhile makes the record one that is not good.
            basis.files = looked_at(files(&plan.directories)?).ok()?;
        }
        Some(Self { path, basis, layout: plan.directories.layout(), is_good })
    }

    /// Returns the record's file, where it is good.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.is_good.then_some(&self.path)
    }

    /// Returns the stages of a run that begins with the kept record, where that is good.
    pub(crate) fn shorten(&self, stages: &[Stage]) -> Option<Vec<Stage>> {
        let (path, mut stages) = (self.path()?, stages[2..].to_vec());
        stages.first_mut()?.arguments.insert(0, path.into());
        Some(stages)
    }

    /// Keeps the record of a run that has begun with `pull`; `last` is what its last stage has printed.
    pub(crate) fn keep(mut self, mut last: &File) -> Result<()> {
        let mut text = Vec::new();
        last.read_to_end(&mut text).and_then(|_| last.rewind())?;
        let last = Record::parse(&text, "the record")?;
        let (image, rootfs): (Image, Rootfs) = (last.part()?, last.part()?);
        if image.layout != self.layout {
            return Ok(());
        }
        let mut record = Record::default();
        record.set(&image);
        record.set(&rootfs);
        let directory = self.path.parent().context("no directory")?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        output::write(&self.path, (record.to_line() + "\n").as_bytes())?;
        self.basis.files.extend(looked_at(rootfs.layers.into_iter().flatten().chain([self.path.clone()]))?);
        Ok(output::write(&basis_of(&self.path), &serde_json::to_vec(&self.basis)?)?)
    }
}

impl Basis {
    /// Tells whether the record of that path was made from the same, and all of it is still as it was.
    fn is_that_of(&self, path: &Path) -> bool {
        let read = || serde_json::from_slice::<Self>(&sys::file::read_regular(&basis_of(path)).ok()?).ok();
        let same = |(path, was): &(PathBuf, String)| identity(path).is_ok_and(|is| is == *was);
        read().is_some_and(|it| it.words == self.words && it.boot == self.boot && it.files.iter().all(same))
    }
}

fn basis_of(record: &Path) -> PathBuf {
    record.with_extension("basis")
}

/// Returns what `pull` looks at; `None` where an image must be signed, which is looked at each time.
fn files(directories: &Directories) -> Option<Vec<PathBuf>> {
    let layout = directories.layout();
    let mut files = vec![layout.join("index.json"), layout.join("blobs/sha256")];
    for config in [PathBuf::from("/etc"), cli::config_home()] {
        let names = ["policy.json", "registries.conf.d", "registries.conf"];
        let [policy, more, main] = names.map(|name| config.join(format!("containers/{name}")));
        let text = sys::file::there(fs::read(&policy)).ok()?;
        if !text.is_none_or(|text| serde_json::from_slice(&text).is_ok_and(|policy| demands_nothing(&policy))) {
            return None;
        }
        files.extend(sys::file::there(fs::read_dir(&more)).ok()?.into_iter().flatten().flatten().map(|it| it.path()));
        files.extend([policy, more, main]);
    }
    Some(files)
}

/// Tells whether a policy takes every image as it is (containers-policy.json(5)).
fn demands_nothing(policy: &Value) -> bool {
    match policy {
        Value::Object(members) => members.iter().all(|(name, value)| match name.as_str() {
            "type" => value == "insecureAcceptAnything",
            _ => demands_nothing(value),
        }),
        Value::Array(values) => values.iter().all(demands_nothing),
        _ => true,
    }
}

fn looked_at(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Vec<(PathBuf, String)>> {
    paths.into_iter().map(|path| identity(&path).map(|identity| (path, identity))).collect()
}

/// Returns what tells a file from every other one of its name, earlier or later.
fn identity(path: &Path) -> io::Result<String> {
    let found = sys::file::there(fs::metadata(path))?;
    Ok(found.map_or_else(String::new, |it| {
        let (modified, changed) = ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
        format!("{} {} {} {modified:?} {changed:?}", it.dev(), it.ino(), it.size())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_demands_anything_is_told() {
        for (policy, want) in [
            (r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker-daemon":{"":[]}}}"#, true),
            (r#"{"default":[{"type":"insecureAcceptAnything"},{"type":"reject"}]}"#, false),
            (r#"{"default":[],"transports":{"docker":{"x":[{"type":"sigstoreSigned"}]}}}"#, false),
        ] {
            assert_eq!(demands_nothing(&serde_json::from_str(policy).unwrap()), want, "{policy}");
        }
    }
}
