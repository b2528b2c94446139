//! A bundle is made: inputs are read, config.json is computed, and then everything is written, whole or not at all.
//!
//! The order: the directory is claimed; the overlay is made but attached nowhere; config.json is computed from what
//! the image has inside; files and volumes are made; the overlay is attached; the record is written; and config.json
//! is written last, which makes the directory a bundle (`container::is_whole`). Whatever fails before undoes all of
//! it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::container::{ContainerId, Directories, JOINED, OWNER, Owner};
use anyhow::{Context, Result, bail, ensure};
use layout::lenient;
use oci_spec::image::{Descriptor, ImageConfiguration};
use record::{Bundle, Id, Image, Input, OwnedBy, Record, Rootfs};
use rustix::fs::Mode;
use rustix::thread::CapabilitySet;
use serde_json::Value;

use crate::cdi::DeviceOption;
use crate::container::{self, BundleClaim, MadeOutside};
use crate::environment::{self, Variable};
use crate::files::{self, Reach};
use crate::interrupt::Interrupt;
use crate::mount::{Mount, Source, VolumeFlag};
use crate::namespace::Namespace;
use crate::overlay::{self, Mounted, Overlay};
use crate::request::BundleRequest;
use crate::rootfs::{Root, open_directory};
use crate::security::SecurityOption;
use crate::translate::{self, Facts};
use crate::user::{self, Accounts};
use crate::{borrow, capability, cdi, device, health, host, patch, rootless, seccomp, throttle, volume};

/// The id that `--print` shows where none was given: the same for the same input.
const PRINTED_ID: &str = "container";

/// What a bundle is made from.
struct Origin {
    record: Record,
    image: ImageConfiguration,
    /// The image's health check, which the parsed config has no place for.
    health: Option<Value>,
    rootfs: Rootfs,
}

/// Where things are.
struct Place<'a> {
    id: &'a ContainerId,
    owner: Option<Owner>,
    directories: &'a Directories,
    /// The bundle's directory.
    bundle: &'a Path,
}

/// Makes a bundle, or prints its config.json.
pub(crate) fn create(mut options: BundleRequest, directories: &Directories) -> Result<()> {
    let mut origin = read(&options)?;
    for key in translate::dropped_annotations(&origin.image) {
        log::warn!("label {key} of the image is left out, because it would control the runtime");
    }
    let id = match (&options.id, options.print) {
        (Some(id), _) => id.clone(),
        (None, true) => PRINTED_ID.parse()?,
        (None, false) => ContainerId::random().context("a random id")?,
    };
    let owner = match options.owner {
        // The same for the same input.
        None if options.print => None,
        None => Some(Owner::new(directories).context("a new owner")?),
        given => given,
    };
    let own: Vec<&Mount> = options.given().collect();
    let borrowed = borrow::mounts(&options.volumes_from, &own, directories)?;
    options.volume.extend(borrowed.into_iter().map(VolumeFlag));
    let mut labels = label_files(&options.names.label_file)?;
    labels.append(&mut options.names.label);
    options.names.label = labels;
    let options = &options;
    let place = Place { id: &id, owner, directories, bundle: &directories.bundle(&id) };
    if options.print {
        return print(&origin, options, &place);
    }
    let interrupt = Interrupt::watch()?;
    // Directories that are made for the container are everybody's to enter there, whatever the caller's shell says.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let mut claim = BundleClaim::new(directories, &id)?;
    let (root, mounted) = mount(&origin.rootfs, options, &claim)?;
    let config = config(&origin, options, &place, &root)?;
    interrupt.check()?;
    write_files(&claim, options, &config)?;
    for (mount, source) in sources(&translate::planned_mounts(&origin.image, options)?, &place) {
        prepare(&mount, Path::new(&source), &root, &mut claim, &interrupt)?;
    }
    if let Some(mounted) = mounted {
        let target = claim.path.join("rootfs");
        log::debug!("mount the overlay on {}", target.display());
        // Late: a detached mount vanishes with this process, one that is attached has to be found and unmounted.
        mounted.attach(&target).with_context(|| format!("mount the overlay on {}", target.display()))?;
    }
    origin.record.set(&Bundle(claim.path.clone()));
    origin.record.set(&Id(id.clone()));
    if let Some(owner) = owner {
        origin.record.set(&OwnedBy(owner));
    }
    claim.write(container::RECORD, (origin.record.to_line() + "\n").as_bytes())?;
    interrupt.check()?;
    claim.write(container::CONFIG, pretty(&config)?.as_bytes())?;
    // Whoever does not get the record has no use for the bundle.
    origin.record.print()?;
    claim.commit();
    Ok(())
}

/// Reads files of labels, as docker does: one a line, empty where it has no value.
fn label_files(files: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            ensure!(!name.is_empty(), "read {}: a label without a name", file.display());
            labels.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(labels)
}

fn print(origin: &Origin, options: &BundleRequest, place: &Place<'_>) -> Result<()> {
    let root = match (&origin.rootfs.layers, &origin.rootfs.path) {
        (Some(layers), _) => Root::Layers(layers.clone()),
        (None, Some(path)) => Root::Whole(open_directory(path)?),
        (None, None) => Root::Absent,
    };
    let config = config(origin, options, place, &root)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(pretty(&config)?.as_bytes())?;
    Ok(stdout.flush()?)
}

fn pretty(config: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(config)? + "\n")
}

/// Reads the input by the record's rule, and the image's config.
fn read(options: &BundleRequest) -> Result<Origin> {
    let (record, rootfs) = match Input::read(options.input.as_deref())? {
        Input::Directory(path) => {
            let path = std::path::absolute(&path).with_context(|| format!("find {}", path.display()))?;
            let rootfs = Rootfs { path: Some(path), ..Rootfs::default() };
            let mut record = Record::default();
            record.set(&rootfs);
            (record, rootfs)
        }
        Input::Record(record) => {
            let rootfs = match record.find::<Rootfs>()? {
                Some(rootfs) => rootfs,
                // Enough to look at the config.
                None if options.print => Rootfs::default(),
                None => record.part::<Rootfs>()?,
            };
            (record, rootfs)
        }
    };
    if rootfs.layers.is_none() && rootfs.path.is_none() && !options.print {
        bail!(record::Error::Member { member: "rootfs", cause: "neither `layers` nor `path`".to_owned() });
    }
    let (image, health) = image(&record, options)?;
    Ok(Origin { record, image, health, rootfs })
}

/// Returns the image's config, and its health check.
fn image(record: &Record, options: &BundleRequest) -> Result<(ImageConfiguration, Option<Value>)> {
    let _span = trace::span("read the image's config", "");
    let typed = |config: Value| -> Result<_, serde_json::Error> {
        let health = config.pointer("/config/Healthcheck").cloned();
        Ok((serde_json::from_value(config)?, health))
    };
    if let Some(path) = &options.config {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let config = lenient::parse(&text).map(lenient::normal::<ImageConfiguration>).and_then(typed);
        return config.with_context(|| format!("{} is not the config of an image", path.display()));
    }
    let Some(image) = record.find::<Image>()? else { return Ok((ImageConfiguration::default(), None)) };
    let layout = layout::Layout::open(&image.layout)?;
    let manifest = layout.manifest(&image.manifest::<Descriptor>()?)?;
    typed(layout.config_value(&manifest)?).with_context(|| format!("config {}", manifest.config().digest()))
}

/// Makes the container's root file system; a flat one is used where it is, unless a layer shall lie over it.
fn mount(rootfs: &Rootfs, options: &BundleRequest, claim: &BundleClaim) -> Result<(Root, Option<Mounted>)> {
    let flat;
    let layers = match (&rootfs.layers, &rootfs.path) {
        (Some(layers), _) => layers.as_slice(),
        (None, Some(path)) if options.overlay => {
            flat = [path.clone()];
            flat.as_slice()
        }
        (None, Some(path)) => return Ok((Root::Whole(open_directory(path)?), None)),
        (None, None) => bail!("the record's rootfs is empty"),
    };
    let (upper, work) = (claim.subdirectory("upper")?, claim.subdirectory("work")?);
    let target = claim.subdirectory("rootfs")?;
    let overlay = Overlay { layers, upper: &upper, work: &work, target: &target, volatile: options.volatile };
    let mounted = overlay::mount(&overlay).with_context(|| format!("make an overlay of {} layers", layers.len()))?;
    Ok((Root::Whole(mounted.root()?), Some(mounted)))
}

/// Computes config.json: gathers what it depends on, translates, and applies the user's patches.
fn config(origin: &Origin, options: &BundleRequest, place: &Place<'_>, root: &Root) -> Result<Value> {
    let _span = trace::span("compute config.json", "");
    let joined = host::joined(&options.namespaces, place.directories)?;
    let namespaces = host::namespaces(&options.namespaces, &joined)?;
    let given = options.user.clone();
    let spec = given.or_else(|| origin.image.config().as_ref()?.user().clone()).unwrap_or_default();
    let numeric = user::is_numeric(&spec) && options.group_add.iter().all(|group| user::is_numeric(group));
    let accounts = match root {
        Root::Absent if numeric => Accounts::default(),
        root => root.accounts()?,
    };
    let held = host::held_capabilities();
    let capabilities = capability::choose(&options.cap_add, &options.cap_drop, options.privileged, held);
    let mut devices = if options.privileged { device::all()? } else { Vec::new() };
    let mut named: Vec<String> = options.gpus.iter().flat_map(|gpus| gpus.0.clone()).collect();
    for option in &options.device {
        match option {
            DeviceOption::Node(flag) => devices.extend(device::look_up(flag)?),
            DeviceOption::Named(name) => named.push(name.clone()),
        }
    }
    let mounts = translate::planned_mounts(&origin.image, options)?;
    if mounts.iter().any(|mount| mount.relabel) && Path::new("/sys/fs/selinux/enforce").exists() {
        log::warn!("volumes are not relabelled for SELinux");
    }
    let facts = Facts {
        cgroup: place.directories.cgroup(place.id),
        root: root_path(&origin.rootfs, options)?,
        user: accounts.resolve(&spec, &options.group_add)?,
        hostname: host::hostname(&options.names, &namespaces, place.id)?,
        variables: variables(options)?,
        mounts: sources(&mounts, place),
        files: ["hosts", "hostname", "resolv.conf"]
            .into_iter()
            .zip(["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"])
            .map(|(name, path)| (path, text(&place.bundle.join(name))))
            .collect(),
        init: init_program(options, &namespaces.pid)?,
        shm: host::shared_memory(&options.namespaces, &joined),
        seccomp: seccomp_profile(options, capabilities)?,
        namespaces,
        devices,
        masked: host::thermal_files(),
        block_io: throttle::block_io(&options.limits)?,
        capabilities,
    };
    let mut config = translate::translate(&origin.image, options, &facts)?;
    if let (Some(check), true) =
        (options.health.check(origin.health.as_ref()), config["annotations"][health::ANNOTATION].is_null())
    {
        config["annotations"][health::ANNOTATION] = Value::String(check.to_string());
    }
    if cli::is_rootless() {
        rootless::adapt(&mut config);
    }
    cdi::apply(&mut config, &cdi::look_up(&named)?)?;
    for path in &options.patch {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let changes = serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))?;
        patch::merge(&mut config, changes);
    }
    if let Some(owner) = place.owner {
        config["annotations"][OWNER] = Value::String(owner.to_string());
    }
    if !joined.is_empty() {
        let joined: Vec<String> = joined.iter().map(|(id, pid)| format!("{id}={pid}")).collect();
        config["annotations"][JOINED] = Value::String(joined.join(","));
    }
    Ok(config)
}

fn root_path(rootfs: &Rootfs, options: &BundleRequest) -> Result<String> {
    match &rootfs.path {
        Some(path) if rootfs.layers.is_none() && !options.overlay => {
            Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
        }
        _ => Ok("rootfs".to_owned()),
    }
}

/// Returns this program, where a first process of ours is wanted and the container has process ids of its own.
fn init_program(options: &BundleRequest, pid: &Namespace) -> Result<Option<String>> {
    if !options.init || !matches!(pid, Namespace::Private | Namespace::None) {
        return Ok(None);
    }
    Ok(Some(text(&std::env::current_exe().context("find our own program")?)))
}

fn variables(options: &BundleRequest) -> Result<Vec<Variable>> {
    let mut variables = Vec::new();
    for path in &options.env_file {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        variables.extend(environment::parse_file(&bytes).with_context(|| path.display().to_string())?);
    }
    variables.extend(options.env.iter().cloned());
    Ok(variables)
}

fn seccomp_profile(options: &BundleRequest, capabilities: CapabilitySet) -> Result<Option<Value>> {
    let chosen = options.confinement.iter().rev().find_map(|option| match option {
        SecurityOption::Seccomp(profile) => Some(profile),
        _ => None,
    });
    match chosen {
        Some(None) => Ok(None),
        Some(Some(path)) => {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let profile = seccomp::parse(&bytes, capabilities);
            Ok(Some(profile.with_context(|| format!("{} is not a seccomp profile", path.display()))?))
        }
        None if options.privileged => Ok(None),
        None => Ok(Some(seccomp::default_profile(capabilities))),
    }
}

/// Returns each mount with the path of its content on the host.
fn sources(mounts: &[Mount], place: &Place<'_>) -> Vec<(Mount, String)> {
    let mut number = 0;
    let source = |mount: &Mount| match &mount.source {
        Source::Host { path, .. } => path.clone(),
        Source::Volume { name: Some(name), .. } => text(&place.directories.volume(name)),
        Source::Volume { name: None, .. } => {
            number += 1;
            text(&place.bundle.join("volumes").join(number.to_string()))
        }
        Source::Tmpfs { .. } => String::new(),
    };
    let sources: Vec<String> = mounts.iter().map(source).collect();
    mounts.iter().cloned().zip(sources).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Sees to it that a mount's source is there.
fn prepare(mount: &Mount, source: &Path, root: &Root, claim: &mut BundleClaim, interrupt: &Interrupt) -> Result<()> {
    match &mount.source {
        Source::Tmpfs { .. } => Ok(()),
        Source::Host { create, .. } => {
            if fs::metadata(source).is_ok() {
                return Ok(());
            }
            ensure!(*create, "mount source {} does not exist", source.display());
            log::debug!("make directory {}", source.display());
            for directory in missing(source) {
                fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
                claim.made.push(MadeOutside::Directory(directory));
            }
            Ok(())
        }
        Source::Volume { copy, .. } => {
            log::debug!("make volume {}", source.display());
            let _span = trace::span("make the volume", source.display());
            let content = copy.then_some(root);
            let made = volume::prepare(source, &claim.path, &mount.destination, content, interrupt)?;
            claim.made.extend(made.map(MadeOutside::Volume));
            Ok(())
        }
    }
}

/// Returns the directories that are to be made for a path, the highest first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|path| fs::symlink_metadata(path).is_err()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Writes the files that are mounted into the container.
fn write_files(claim: &BundleClaim, options: &BundleRequest, config: &Value) -> Result<()> {
    let reach = match options.namespaces.network {
        Some(Namespace::Host) => Reach::Host,
        Some(Namespace::None) => Reach::Nothing,
        _ => Reach::Own,
    };
    let host_hosts = files::read(Path::new("/etc/hosts"));
    claim.write("hosts", files::hosts(reach, &host_hosts, &options.names).as_bytes())?;
    let resolver = files::resolv_conf(reach, &files::host_resolv_conf(), &options.names);
    claim.write("resolv.conf", resolver.as_bytes())?;
    let own = rustix::system::uname();
    let hostname = config["hostname"].as_str().unwrap_or_else(|| own.nodename().to_str().unwrap_or_default());
    claim.write("hostname", format!("{hostname}\n").as_bytes())
}
