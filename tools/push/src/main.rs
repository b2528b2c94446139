//! Send an image from a layout to a registry.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod blob;
mod compress;
mod image;
mod job;
mod options;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, ensure};
use confine::Calls;
use layout::{Compression, DocumentKind, Layout, Platform, Reference};
use oci_spec::image::Descriptor;
use record::{Image, Input, Record};
use registry::{Access, Registry};
use rustix::thread::CapabilitySet;

use job::PushJob;
use options::PushArgs;

/// What is left once a registry is spoken to: sockets, and files to read.
const ROOM: confine::Room = confine::Room {
    calls: Calls { sockets: true, ..confine::Room::EMPTY.calls },
    capabilities: CapabilitySet::DAC_READ_SEARCH,
};

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, |args: PushArgs| run(&args))
}

fn run(args: &PushArgs) -> anyhow::Result<ExitCode> {
    let access = Access::new(args.network.clone());
    let registries = access.registries()?;
    let destination = registries.expand(&args.destination)?;
    // The last is the registry itself; those before it are mirrors.
    let endpoint = registries.endpoints(&destination)?.pop().context("no place to push to")?;
    access.learn(&endpoint.reference);
    let progress = args.shown.open()?;
    confine::enter(&ROOM)?;
    let mut record = match args.is_of_record()?.then(|| Input::read(Some(Path::new("-")))).transpose()? {
        Some(Input::Record(record)) => record,
        _ => Record::default(),
    };
    let image: Option<Image> = if args.is_of_record()? { Some(record.part()?) } else { None };
    let layout = Layout::open(image.as_ref().map_or(&args.directory(), |image| &image.layout))?;
    let drafts: &[&Path] = if args.compress == Compression::Plain { &[] } else { &[layout.path()] };
    confine::files(drafts, None)?;
    let images = match &image {
        Some(image) if args.all_platforms => vec![(whole(&layout, image)?, destination.clone())],
        Some(image) => vec![(image.manifest()?, destination.clone())],
        None if args.all_tags => all_tags(&layout, args, &destination)?,
        None => vec![(named(&layout, args, &destination)?, destination.clone())],
    };
    let doing = || format!("push {destination}");
    let registry = Registry::connect(&endpoint, &access).with_context(doing)?.to_push();
    let pipe = image.is_some().then(rustix::stdio::stdin);
    let source = image.as_ref().and_then(|image| image.reference.as_deref());
    let origins =
        (image::origins(&layout, &destination)?, source.and_then(|name| image::other_repository(name, &destination)));
    let job = PushJob {
        layout: &layout,
        pipe,
        registry: &registry,
        origins,
        compression: args.compress,
        changed: Mutex::default(),
        jobs: args.network.jobs.max(1),
        progress: &progress,
    };
    for (root, to) in &images {
        let digest = job.push(root, to, args.referrers).with_context(|| format!("push {to}"))?;
        let reference = Some(Reference { digest: Some(digest), ..to.clone() }.to_string());
        let image = match &image {
            Some(image) => Image { reference, ..image.clone() },
            None => part(&layout, root, reference)?,
        };
        record.set(&image);
        record.print().context("print the record")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds the image that is named, or its part for a platform.
fn named(layout: &Layout, args: &PushArgs, destination: &Reference) -> anyhow::Result<Descriptor> {
    let root = match &args.source {
        Some(source) => layout.find(source)?,
        None => layout.resolve(Some(&destination.to_string()))?,
    };
    Ok(args.platform.as_ref().map_or(Ok(root.clone()), |platform| layout.image(&root, platform))?)
}

/// Waits for the end of the stage that fetches a record's image, and finds the index that it has come with.
fn whole(layout: &Layout, image: &Image) -> anyhow::Result<Descriptor> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("wait for all platforms")?;
    let one: Descriptor = image.manifest()?;
    let mut entries = layout.entries()?;
    entries.retain(|entry| {
        layout.tree(&entry.descriptor).is_ok_and(|parts| parts.iter().any(|part| part.digest() == one.digest()))
    });
    // The newest, where its name does not tell.
    let found = entries.into_iter().max_by_key(|entry| {
        let kind = DocumentKind::of(entry.descriptor.media_type().as_ref());
        (entry.reference == image.reference, kind == DocumentKind::Index)
    });
    Ok(found.with_context(|| format!("the layout has no name for {}", one.digest()))?.descriptor)
}

/// Returns the images that the layout has of a repository, and where they go.
fn all_tags(layout: &Layout, args: &PushArgs, to: &Reference) -> anyhow::Result<Vec<(Descriptor, Reference)>> {
    let from: Reference = args.source.as_deref().map_or(Ok(to.clone()), str::parse).map_err(cli::Usage)?;
    for repository in [&from, to] {
        let is_repository = repository.digest.is_none() && repository.tag.as_deref() == Some("latest");
        ensure!(is_repository, cli::Usage(format!("--all-tags takes repositories, and {repository} names a tag")));
    }
    let mut images = Vec::new();
    for entry in layout.entries()?.into_iter().filter(|entry| entry.subject().is_none()) {
        let reference = entry.reference.and_then(|name| name.parse::<Reference>().ok());
        if let Some(tag) = reference.filter(|it| it.name() == from.name()).and_then(|reference| reference.tag) {
            images.push((entry.descriptor, to.with_tag(&tag)));
        }
    }
    ensure!(!images.is_empty(), "no tag of {} in the layout {}", from.name(), layout.path().display());
    Ok(images)
}

/// Makes the record's member for an image of the layout: of an index it names this machine's image.
fn part(layout: &Layout, root: &Descriptor, reference: Option<String>) -> anyhow::Result<Image> {
    let mut manifest = layout.image(root, &Platform::host()).unwrap_or_else(|_| root.clone());
    manifest.set_annotations(None);
    Ok(Image::new(reference, layout.path(), &manifest)?)
}
