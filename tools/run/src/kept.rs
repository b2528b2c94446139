//! Kept records: what `pull | unpack` has printed for an image, so that the next run of it executes neither of them.
//!
//! A kept record stands for both while everything that they would look at is as it was: the layout's index, the manifest and
//! the config, each layer, and the files that say what a name stands for and who may be trusted. It ends with the boot, as
//! after a power cut a layer may be less than its directory says, and with the version of these programs.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use record::{Image, Record, Rootfs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::Tool;

use crate::plan::RunPlan;
use crate::request::RunRequest;

/// This machine's architecture, as images call it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The file of a kept record.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The two command lines, and where what they look at is.
    words: String,
    boot: String,
    /// Files and directories, and what they were: empty for one that was not there.
    files: Vec<(PathBuf, String)>,
    record: String,
}

/// The record of a run's image, kept or to be kept.
#[derive(Debug)]
pub(crate) struct KeptRecord {
    /// Where it is kept.
    pub(crate) path: PathBuf,
    kept: Kept,
    layout: PathBuf,
    layers: PathBuf,
    /// Whether a platform was asked for.
    is_of_platform: bool,
    pub(crate) is_good: bool,
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
        let directories = &plan.directories;
        let (data, config) = (directories.data().display(), cli::config_home());
        let words = format!("{pull} | {unpack} ({data}, {}, {})", config.display(), env!("CARGO_PKG_VERSION"));
        let boot = container::boot().ok()?;
        let path = directories.records().join(format!("{:08x}.json", container::hash(words.as_bytes())));
        let read = || serde_json::from_slice::<Kept>(&sys::file::read_regular(&path).ok()?).ok();
        let same = |(path, was): &(PathBuf, String)| identity(path).is_ok_and(|is| is == *was);
        let good = read().filter(|kept| kept.words == words && kept.boot == boot && kept.files.iter().all(same));
        let is_good = good.is_some();
        let kept = good.unwrap_or(Kept { words, boot: boot.to_owned(), files: Vec::new(), record: String::new() });
        let (layout, layers) = (directories.layout(), directories.layers());
        let mut record = Self { path, kept, layout, layers, is_of_platform: options.platform.is_some(), is_good };
        if !is_good {
            // Before the stages look.
            record.kept.files = record.looked_at()?;
        }
        Some(record)
    }

    /// Returns the record as the next stage's standard input, where it is good.
    pub(crate) fn open(&self) -> Option<File> {
        self.is_good.then(|| sys::file::in_memory("record", self.kept.record.as_bytes()).ok())?
    }

    /// Keeps the record of a run that has begun with `pull`; `last` is what its last stage has printed. Nothing is kept where
    /// something has changed meanwhile, as it has where the image was fetched.
    pub(crate) fn keep(mut self, mut last: &File) -> Result<()> {
        let mut text = Vec::new();
        last.read_to_end(&mut text).and_then(|_| last.rewind())?;
        let last = Record::parse(&text, "the record")?;
        let (image, rootfs): (Image, Rootfs) = (last.part()?, last.part()?);
        // On a terminal it is not known whether `pull` has warned of another machine's image, which it does each time.
        let platform = image.manifest.get("platform").and_then(|platform| platform.get("architecture"));
        let is_silent = self.is_of_platform || platform.is_some_and(|architecture| architecture == ARCHITECTURE);
        if !is_silent || image.layout != self.layout || self.looked_at().as_ref() != Some(&self.kept.files) {
            return Ok(());
        }
        let blob = |descriptor: Option<&Value>| {
            let digest = descriptor.and_then(|descriptor| descriptor.get("digest")?.as_str()).context("no digest")?;
            anyhow::Ok(self.layout.join("blobs").join(digest.replace(':', "/")))
        };
        let manifest = blob(Some(&Value::Object(image.manifest.clone())))?;
        let config = blob(serde_json::from_slice::<Value>(&fs::read(&manifest)?)?.get("config"))?;
        let more = rootfs.layers.iter().flatten().cloned().chain([manifest, config]);
        self.kept.files.extend(identities(more)?);
        let mut record = Record::default();
        record.set(&image);
        record.set(&rootfs);
        self.kept.record = record.to_line() + "\n";
        DirBuilder::new().recursive(true).mode(0o700).create(self.path.parent().context("no directory")?)?;
        Ok(output::write(&self.path, &serde_json::to_vec(&self.kept)?)?)
    }

    /// Looks at what `pull` and `unpack` look at for any image; `None` where it must be signed, which is looked at each time.
    fn looked_at(&self) -> Option<Vec<(PathBuf, String)>> {
        let mut files = vec![self.layout.join("index.json"), self.layers.clone()];
        for config in [PathBuf::from("/etc"), cli::config_home()] {
            let names = ["policy.json", "registries.conf.d", "registries.conf"];
            let [policy, more, main] = names.map(|name| config.join(format!("containers/{name}")));
            let text = sys::file::there(fs::read(&policy)).ok()?;
            if !text.is_none_or(|text| serde_json::from_slice(&text).is_ok_and(|policy| demands_nothing(&policy))) {
                return None;
            }
            let entries = sys::file::there(fs::read_dir(&more)).ok()?.into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()).chain([policy, more, main]));
        }
        identities(files).ok()
    }
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

fn identities(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Vec<(PathBuf, String)>> {
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
