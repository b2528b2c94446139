//! Extract an image's layers into directories that overlayfs can mount, or into one merged tree.

#![forbid(unsafe_code)]

mod compression;
mod extraction;
mod flat;
mod form;
mod image;
mod interrupt;
mod layer;
mod lock;
mod lower;
mod node;
mod options;
mod parents;
mod path;
mod removal;
mod store;
mod stream;
mod tar;
mod tree;
mod xattr;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use record::{Input, Record, Rootfs};

use crate::form::Form;
use crate::image::Image;
use crate::options::Args;
use crate::store::Store;

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that cli::main asks for")]
fn run(args: Args) -> anyhow::Result<ExitCode> {
    interrupt::watch()?;
    // Modes are the layer's own, whatever the caller's shell takes away.
    rustix::process::umask(rustix::fs::Mode::empty());
    let (mut record, image) = open(&args)?;
    let rootfs = if let Some(path) = &args.flat {
        let path = flat::unpack(&image, path, &Arc::new(args.limits()), args.sync())?;
        Rootfs { path: Some(path), ..Rootfs::default() }
    } else {
        let store = Store::open(&args.roots.data(), Form::overlay(), args.sync())?;
        Rootfs { layers: Some(store.unpack(image, args.limits())?), ..Rootfs::default() }
    };
    record.set(&rootfs);
    record.print()?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the image by the input rule: a layout directory, or a record that names one.
fn open(args: &Args) -> anyhow::Result<(Record, Image)> {
    let argument = args.input.as_deref();
    match Input::read(argument)? {
        Input::Directory(path) => {
            let (image, manifest) = Image::of_layout(&path, args.reference.as_deref(), args.platform.as_ref())?;
            let mut record = Record::default();
            record.set(&image::part(&image, args.reference.as_deref(), &manifest)?);
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
