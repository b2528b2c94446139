//! Fetch an image into an OCI image layout.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod archive;
mod blob;
mod export;
mod image;
mod inspection;
mod lock;
mod options;
mod remote;
mod request;
mod room;
mod source;
mod store;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use layout::{Layout, reference};
use registry::{Access, RegistryOptions};

use image::FetchJob;
use inspection::Part;
use lock::LockFile;
use options::{PullArgs, PullVerb};
use request::PullPolicy;
use room::PullRoom;
use source::{Named, Opened};

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(args: PullArgs) -> Result<ExitCode> {
    match &args.verb {
        None => fetch(args)?,
        Some(PullVerb::List { form }) => store::list(opened(&args)?.as_ref(), *form)?,
        Some(PullVerb::Tag { source, targets }) => {
            store::tag(&Layout::open(&args.directory())?, source, targets)?;
        }
        Some(PullVerb::Inspect { name, raw, config, platform, network }) => {
            let part = match (raw, config) {
                (true, _) => Part::Manifest,
                (_, true) => Part::Config,
                _ => Part::Summary,
            };
            look(name, network, |name, source| inspection::inspect(name, source, part, platform.as_ref()))?;
        }
        Some(PullVerb::Digest { name, platform, network }) => {
            look(name, network, |_, source| inspection::digest(source, platform.as_ref()))?;
        }
        Some(PullVerb::Tags { name, network }) => {
            let (name, access) = seen(name, network)?;
            inspection::tags(&name, &access).with_context(|| format!("list tags of {name}"))?;
        }
        Some(PullVerb::Remove { names }) => store::remove(&Layout::open(&args.directory())?, names)?,
        Some(PullVerb::Gc { grace }) => {
            // Layers have files with others' ids.
            rootless::enter_if_possible(&args.roots);
            if let Some(layout) = opened(&args)? {
                store::collect(&layout, &args.roots.directories(), Duration::from_secs(*grace))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the layout; there is none of its own before the first image.
fn opened(args: &PullArgs) -> Result<Option<Layout>> {
    let directory = args.directory();
    let is_own = args.layout.is_none();
    if is_own && !directory.try_exists()? {
        return Ok(None);
    }
    // What a first `pull` has left that was killed, or lost its power, becomes a layout.
    let open = if is_own { Layout::create } else { Layout::open };
    Ok(Some(open(&directory)?))
}

/// Returns a name in full, and how its registry is reached, ready to be looked at.
fn seen(name: &Named, network: &RegistryOptions) -> Result<(Named, Access)> {
    let access = Access::new(network.clone());
    let name = expand(name.clone(), &access)?;
    PullRoom::looking(&access).enter(std::slice::from_ref(&name))?;
    Ok((name, access))
}

/// Opens an image to be looked at.
fn look(name: &Named, network: &RegistryOptions, then: impl FnOnce(&Named, &Opened<'_>) -> Result<()>) -> Result<()> {
    let (name, access) = seen(name, network)?;
    let open = || Opened::open(&name, &access, &std::env::temp_dir());
    open().and_then(|source| then(&name, &source)).with_context(|| format!("look at {name}"))
}

fn fetch(args: PullArgs) -> Result<()> {
    let access = Access::new(args.network.clone());
    let rules = args.trust.rules()?;
    let layout = match args.request.policy {
        PullPolicy::Never => Layout::open(&args.directory()).with_context(|| format!("find {}", list(&args.names)))?,
        _ => Layout::create(&args.directory())?,
    };
    let progress = args.shown.open()?;
    let job = FetchJob {
        layout: &layout,
        request: &args.request,
        jobs: args.network.jobs.max(1),
        progress: &progress,
        rules: &rules,
    };
    let lock_file = args.lock.as_deref();
    let mut lock = lock_file.map(LockFile::open).transpose()?;
    let mut limits = PullRoom::new(&layout, &[lock_file, args.to.as_ref().and_then(Named::path)], &access)?;
    let names: Vec<Named> = args.names.into_iter().map(|name| expand(name, &access)).collect::<Result<_>>()?;
    if args.request.all_tags {
        limits.enter(&names)?;
    }
    let names: Vec<Named> = names
        .into_iter()
        .map(|name| all_tags(args.request.all_tags, name, &access))
        .collect::<Result<Vec<_>>>()?
        .concat();
    ensure!(args.to.is_none() || names.len() <= 1, cli::Usage("--to takes one image".to_owned()));
    for (number, name) in names.iter().enumerate() {
        // What the layout calls by a name may be older than what the lock file says.
        let local = if lock.is_none() { job.find_local(name)? } else { None };
        if let Some(image) = local {
            let write = |to| export::write(&layout, &image, &name.to_string(), to);
            args.to.as_ref().map_or(Ok(()), write)?;
            continue;
        }
        limits.enter(&names[number..])?;
        let _kept = layout.share()?;
        let pinned = lock.as_ref().map_or_else(|| name.clone(), |lock| lock.pin(name));
        let doing = || format!("fetch {name}");
        let mut source = Opened::open(&pinned, &access, &layout.path().join("ingest")).with_context(doing)?;
        let several = if args.request.all_tags { source.all() } else { Vec::new() };
        if !several.is_empty() {
            ensure!(args.to.is_none(), cli::Usage("--to takes one image".to_owned()));
            for one in several {
                source.turn_to(one);
                job.fetch(name, &source).with_context(doing)?;
            }
            continue;
        }
        let fetched = match job.fetch(name, &source) {
            // What was there has been removed.
            Err(error) if was_damaged(&error) => job.fetch(name, &source),
            fetched => fetched,
        };
        let (root, image) = fetched.with_context(doing)?;
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

fn list(names: &[Named]) -> String {
    names.iter().map(Named::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns what an alias of the user's stands for.
fn expand(name: Named, access: &Access) -> Result<Named> {
    match name {
        Named::Reference(reference) if reference.short.is_some() => {
            Ok(Named::Reference(access.registries()?.expand(&reference)?))
        }
        name => Ok(name),
    }
}

/// Returns the name, or one for each tag of its repository.
fn all_tags(all: bool, name: Named, access: &Access) -> Result<Vec<Named>> {
    match name {
        Named::Reference(reference) if all => {
            let is_repository = reference.digest.is_none() && reference.tag.as_deref() == Some("latest");
            ensure!(is_repository, cli::Usage(format!("--all-tags takes a repository, and {reference} names a tag")));
            let tags =
                remote::tags(&reference, access).with_context(|| format!("list tags of {}", reference.name()))?;
            Ok(tags.iter().map(|tag| Named::Reference(reference.with_tag(tag))).collect())
        }
        name => Ok(vec![name]),
    }
}
