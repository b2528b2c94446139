//! Extract an image's layers into directories that overlayfs can mount, or into one merged tree.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod changes;
mod commit;
mod container;
mod diff;
mod entry;
mod extraction;
mod flat;
mod form;
mod image;
mod instruction;
mod interrupt;
mod layer;
mod lock;
mod lower;
mod node;
mod options;
mod overlay;
mod parents;
mod path;
mod request;
mod store;
mod stream;
mod tree;
mod xattr;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use record::{Input, Record, Rootfs};
use rustix::thread::CapabilitySet;

use crate::container::CommittedContainer;
use crate::form::Form;
use crate::image::Image;
use crate::options::{UnpackArgs, UnpackVerb};
use crate::request::Commit;
use crate::store::Store;

/// There is no network, and nothing is executed; an overlay's own attributes need `CAP_SYS_ADMIN`.
const ROOM: confine::Room =
    confine::Room { capabilities: confine::FILES.union(CapabilitySet::SYS_ADMIN), ..confine::Room::EMPTY };

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(mut args: UnpackArgs) -> anyhow::Result<ExitCode> {
    if args.verb.is_some() {
        // There are files with others' ids.
        rootless::enter_if_possible(&args.roots);
    }
    // Before anything of an image is read: what is parsed from here on comes from strangers.
    confine::enter(&ROOM)?;
    match args.verb.take() {
        Some(UnpackVerb::Diff { container, json, tar, sparse }) => {
            return show(container.as_deref(), json, tar.then_some(sparse), &args);
        }
        Some(UnpackVerb::Commit(options)) => return make_image(&options, &args),
        None => {}
    }
    // Modes are the layer's own, whatever the caller's shell takes away.
    rustix::process::umask(rustix::fs::Mode::empty());
    let (mut record, image) = open(&args)?;
    let rootfs = if let Some(path) = &args.flat {
        confine_files(parent(path)?.as_path(), image.layout.path())?;
        interrupt::watch()?;
        let path = flat::unpack(&image, path, &Arc::new(args.limits()))?;
        Rootfs { path: Some(path), ..Rootfs::default() }
    } else {
        Rootfs { layers: Some(layers(image, &args)?), ..Rootfs::default() }
    };
    record.set(&rootfs);
    record.print()?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the directories of the image's layers, which are extracted where they are missing.
fn layers(image: Image, args: &UnpackArgs) -> anyhow::Result<Vec<PathBuf>> {
    let mut store = Store::open(&args.roots.directories(), Form::overlay(), &image.layers)?;
    let remembered = store.remembered(&image.layers);
    if !args.sync && (remembered.is_none() || store.is_behind) {
        store = store.written_later();
    }
    if let Some(layers) = remembered {
        if args.sync {
            store.write(&store.open_directory()?)?;
        }
        return Ok(layers);
    }
    ::container::boot().context("this boot's id")?;
    confine_files(store.path(), image.layout.path())?;
    // From here on an interruption has something to clean up.
    interrupt::watch()?;
    store.unpack(image, args.limits())
}

/// Gives up all files but the directory that is written, and the layout.
fn confine_files(writes: &Path, layout: &Path) -> anyhow::Result<()> {
    // Where the number of processors comes from.
    let system = ["/proc/self", "/sys/fs/cgroup"].map(Path::new);
    confine::files(&[writes], Some(&[[layout].as_slice(), &system].concat()))
}

/// Returns the directory in which a tree is made.
fn parent(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    Ok(path.parent().unwrap_or(&path).to_owned())
}

/// `unpack diff`.
fn show(container: Option<&Path>, json: bool, layer: Option<bool>, args: &UnpackArgs) -> anyhow::Result<ExitCode> {
    interrupt::watch()?;
    let container = find(container, args)?;
    let out = BufWriter::new(io::stdout().lock());
    if let Some(sparse) = layer {
        diff::write(&container, options::style(sparse)?, out)?.0.flush()?;
    } else {
        diff::list(&container, json, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `unpack commit`.
fn make_image(options: &Commit, args: &UnpackArgs) -> anyhow::Result<ExitCode> {
    interrupt::watch()?;
    let mut container = find(options.container.as_deref(), args)?;
    let image = commit::commit(&container, options, options::style(options.sparse)?).context("commit")?;
    container.record.set(&image);
    // It is the old image's.
    container.record.remove("rootfs");
    container.record.print()?;
    Ok(ExitCode::SUCCESS)
}

/// Finds a container, and what its image has: one whole tree is compared with the layers, which are extracted for that.
fn find(name: Option<&Path>, args: &UnpackArgs) -> anyhow::Result<CommittedContainer> {
    let mut container = CommittedContainer::find(name, &args.roots.directories())?;
    if container.layers.is_empty() {
        let image = Image::of_record(&container.record, None)?;
        let store = Store::open(&args.roots.directories(), Form::overlay(), &image.layers)?;
        container.layers = store.unpack(image, args.limits())?;
    }
    Ok(container)
}

/// Opens the image by the input rule: a layout directory, or a record that names one.
fn open(args: &UnpackArgs) -> anyhow::Result<(Record, Image)> {
    let argument = args.input.as_deref();
    match Input::read(argument)? {
        Input::Directory(path) => {
            let (image, manifest) = Image::of_layout(&path, args.reference.as_deref(), args.platform.as_ref())?;
            let mut record = Record::default();
            record.set(&record::Image::new(args.reference.clone(), image.layout.path(), &manifest)?);
            Ok((record, image))
        }
        Input::Record(record) => {
            args.refuse_layout_options()?;
            let from_stdin = argument.is_none_or(|path| path == Path::new("-"));
            let image = Image::of_record(&record, from_stdin.then(rustix::stdio::stdin))?;
            Ok((record, image))
        }
    }
}
