//! Fetch an image into an OCI image layout.

#![forbid(unsafe_code)]

mod archive;
mod blob;
mod credentials;
mod export;
mod image;
mod lock;
mod options;
mod progress;
mod registries;
mod registry;
mod remote;
mod room;
mod source;
mod store;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use layout::{Layout, reference};

use image::Job;
use lock::LockFile;
use options::{Args, Policy, Verb};
use progress::Progress;
use registry::Access;
use room::Room;
use source::{Name, Source};

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        None => fetch(args)?,
        Some(Verb::List { json, roots }) => store::list(&Layout::open(&args.directory(roots))?, *json)?,
        Some(Verb::Remove { names, roots }) => store::remove(&Layout::open(&args.directory(roots))?, names)?,
        Some(Verb::Gc { grace, roots }) => {
            // Layers have files with others' ids.
            rootless::enter_if_possible(roots);
            let layout = Layout::open(&args.directory(roots))?;
            store::collect(&layout, &roots.data(), Duration::from_secs(*grace))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(args: Args) -> anyhow::Result<()> {
    let access = args.network.access();
    let rules = args.trust.rules()?;
    let layout = match args.choice.policy {
        Policy::Never => {
            Layout::open(&args.directory(&args.roots)).with_context(|| format!("find {}", list(&args.names)))?
        }
        _ => Layout::create(&args.directory(&args.roots))?,
    };
    let progress = Progress::open(args.form())?;
    let job = Job {
        layout: &layout,
        choice: &args.choice,
        jobs: args.network.jobs.max(1),
        progress: &progress,
        rules: &rules,
    };
    let mut lock = args.lock.as_deref().map(LockFile::open).transpose()?;
    let mut limits = Room::new(&layout, &args, &access)?;
    let names: Vec<Name> = args.names.into_iter().map(|name| expand(name, &access)).collect::<anyhow::Result<_>>()?;
    if args.choice.all_tags {
        limits.enter(&names)?;
    }
    let names: Vec<Name> = names
        .into_iter()
        .map(|name| all_tags(args.choice.all_tags, name, &access))
        .collect::<anyhow::Result<Vec<_>>>()?
        .concat();
    if args.to.is_some() && names.len() > 1 {
        return Err(cli::Usage("--to takes one image".to_owned()).into());
    }
    for (number, name) in names.iter().enumerate() {
        // What the layout calls by a name may be older than what the lock file says.
        if lock.is_none() && args.to.is_none() && job.find_local(name)? {
            continue;
        }
        limits.enter(&names[number..])?;
        let _kept = layout.share()?;
        let pinned = lock.as_ref().map_or_else(|| name.clone(), |lock| lock.pin(name));
        let fetch = || Source::open(&pinned, &access).and_then(|source| job.fetch(name, &source));
        let fetched = match fetch() {
            // What was there has been removed.
            Err(error) if was_damaged(&error) => fetch(),
            fetched => fetched,
        };
        let (root, image) = fetched.with_context(|| format!("fetch {name}"))?;
        if let Some(lock) = &mut lock {
            lock.keep(name, root.digest())?;
        }
        if let Some(to) = &args.to {
            export::write(&layout, &image, &name.to_string(), to)?;
        }
    }
    Ok(())
}

fn was_damaged(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(layout::Error::Damaged { .. })))
}

fn list(names: &[Name]) -> String {
    names.iter().map(Name::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns what an alias of the user's stands for.
fn expand(name: Name, access: &Access) -> anyhow::Result<Name> {
    match name {
        Name::Reference(reference) if reference.short.is_some() => {
            Ok(Name::Reference(access.registries()?.expand(&reference)?))
        }
        name => Ok(name),
    }
}

/// Returns the name, or one for each tag of its repository.
fn all_tags(all: bool, name: Name, access: &Access) -> anyhow::Result<Vec<Name>> {
    match name {
        Name::Reference(reference) if all => {
            if reference.digest.is_some() || reference.tag.as_deref() != Some("latest") {
                return Err(cli::Usage(format!("--all-tags takes a repository, and {reference} names a tag")).into());
            }
            let tags =
                remote::tags(&reference, access).with_context(|| format!("list tags of {}", reference.name()))?;
            Ok(tags.iter().map(|tag| Name::Reference(reference.with_tag(tag))).collect())
        }
        name => Ok(vec![name]),
    }
}
