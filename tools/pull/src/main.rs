//! Fetch an image into an OCI image layout.

#![forbid(unsafe_code)]

mod archive;
mod blob;
mod credentials;
mod image;
mod options;
mod progress;
mod reference;
mod registry;
mod source;
mod store;

use std::process::ExitCode;

use anyhow::Context;
use layout::Layout;

use image::Job;
use options::{Args, Policy, Verb};
use progress::Progress;
use registry::{Access, Registry};
use source::{Name, Source};

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        None => fetch(args)?,
        Some(Verb::List { json, roots }) => store::list(&Layout::open(&args.directory(roots))?, *json)?,
        Some(Verb::Remove { names, roots }) => store::remove(&Layout::open(&args.directory(roots))?, names)?,
        Some(Verb::Gc { roots }) => store::collect(&Layout::open(&args.directory(roots))?, &roots.data())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(args: Args) -> anyhow::Result<()> {
    let access = args.network.access();
    let layout = match args.choice.policy {
        Policy::Never => {
            Layout::open(&args.directory(&args.roots)).with_context(|| format!("find {}", list(&args.names)))?
        }
        _ => Layout::create(&args.directory(&args.roots))?,
    };
    let progress = Progress::open(args.form())?;
    let job = Job { layout: &layout, choice: &args.choice, jobs: args.network.jobs.max(1), progress: &progress };
    for name in args.names {
        for name in all_tags(args.choice.all_tags, name, &access)? {
            if job.find_local(&name)? {
                continue;
            }
            let _kept = layout.share()?;
            Source::open(&name, &access)
                .and_then(|source| job.fetch(&name, &source))
                .with_context(|| format!("fetch {name}"))?;
        }
    }
    Ok(())
}

fn list(names: &[Name]) -> String {
    names.iter().map(Name::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the name, or one for each tag of its repository.
fn all_tags(all: bool, name: Name, access: &Access) -> anyhow::Result<Vec<Name>> {
    match name {
        Name::Reference(reference) if all => {
            let registry = Registry::connect(&reference, access)?;
            let tags = registry
                .tags()
                .with_context(|| format!("list tags of {}/{}", reference.registry, reference.repository))?;
            Ok(tags.iter().map(|tag| Name::Reference(reference.with_tag(tag))).collect())
        }
        name => Ok(vec![name]),
    }
}
