//! `portmap add`: as a filter in the pipe, or on a container that runs already.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use container::{ContainerId, Owner};
use log::warn;
use record::{Input, Network, PortOptions, Protocol, Record};
use serde_json::Value;

use crate::beside;
use crate::firewall::Firewall;
use crate::forward;
use crate::inherited;
use crate::mapping::port_mappings;
use crate::publish::{self, Manner};
use crate::request::Add;
use crate::serve::{Server, end};
use crate::spec::{PortSpec, PublishFlag, Served};
use crate::target::Target;

/// The annotation that the image-spec's conversion rules give the image's `ExposedPorts`.
const EXPOSED: &str = "org.opencontainers.image.exposedPorts";

/// Inherited sockets and processes are not there when the ports are published again.
const HERE_ALONE: [&str; 5] = ["pid", "netns", "id", "listen-fd", "while"];

/// Publishes ports and prints the record, which has them as `ports`.
pub(crate) fn run(options: &Add) -> Result<ExitCode> {
    let (mut record, target, is_piped) = find(options)?;
    record.set_options(&PortOptions(cli::given(&HERE_ALONE)?))?;
    let mut flags = options.publish.clone();
    if options.publish_all {
        flags.extend(exposed(&record, target.bundle.as_deref())?.into_iter().map(PublishFlag::Ports));
    }
    let has_flags = options.publish_all || !flags.is_empty();
    ensure!(has_flags, cli::Usage("nothing to publish: -p or -P is missing".to_owned()));
    let unneeded = if target.shares_the_hosts_network() {
        Some("in the host's network: its ports are the host's")
    } else {
        let is_internal = record.find::<Network>()?.is_some_and(|network| network.is_internal());
        is_internal.then_some("in internal networks only: its ports are not published")
    };
    if let Some(place) = unneeded {
        warn!("{} is {place}", target.owner.id);
        record.hand_on()?;
        return Ok(ExitCode::SUCCESS);
    }
    inherited::take(options, &mut flags)?;
    let (sockets, specs) = separate(&flags);
    // Three reasons for a process between: it is asked for, a header has to be written before the first byte, or the
    // kernel's firewall is not ours to change (an ordinary user's network).
    let by_proxy = options.proxy || options.proxy_protocol.is_some() || !Firewall::is_usable()?;
    if let Some(spec) = specs.iter().find(|spec| options.proxy_protocol.is_some() && spec.protocol != Protocol::Tcp) {
        let cause = format!("publish {spec}: --proxy-protocol is for connections, but {} has none", spec.protocol);
        return Err(cli::Usage(cause).into());
    }
    if by_proxy || target.addresses.is_empty() || specs.is_empty() && !sockets.is_empty() {
        let (proxy, served) = Server::inside(options, &target, &flags)?;
        Served::add_to(&mut record, &served)?;
        if options.detach || is_piped {
            let child = proxy.go_on(true, || {})?;
            record.hand_on().inspect_err(|_| end(&child))?;
        } else {
            proxy.serve(|| Ok(record.print()?))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // What translation cannot do for these addresses, such as ::1 or IPv6 to a container with IPv4 alone, a proxy
    // does: the user need not know.
    let (translated, proxied): (Vec<_>, Vec<_>) =
        specs.into_iter().partition(|spec| target.addresses.iter().any(|address| publish::serves(spec, *address)));
    let proxied: Vec<PublishFlag> = proxied.into_iter().map(PublishFlag::Ports).chain(sockets).collect();
    translate(options, &target, record, &translated, &proxied)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells what only a proxy can serve from ports.
fn separate(flags: &[PublishFlag]) -> (Vec<PublishFlag>, Vec<PortSpec>) {
    let sockets = flags.iter().filter(|flag| matches!(flag, PublishFlag::Socket(_))).cloned().collect();
    let ports = flags.iter().filter_map(|flag| if let PublishFlag::Ports(spec) = flag { Some(*spec) } else { None });
    (sockets, ports.collect())
}

/// Publishes ports by translation, and others by a proxy, and prints the record: what cannot be told is withdrawn.
fn translate(
    options: &Add,
    target: &Target,
    mut record: Record,
    specs: &[PortSpec],
    proxied: &[PublishFlag],
) -> Result<()> {
    let directories = options.roots.directories();
    // Before the probe below: the sockets that an earlier call holds for this container would look like another's.
    let before = beside::release(&directories, &target.owner.id, |_| true)?;
    let holds = !options.while_process.is_empty();
    let manner = Manner { probe: !options.no_bind_check, directories: Some(&directories), ..Manner::default() };
    let mut firewall = if holds { Firewall::open_as_holder()? } else { Firewall::open()? };
    let published = publish::publish(&mut firewall, target, specs, manner);
    let published = published.inspect_err(|_| before.iter().for_each(|held| held.restart(&directories)))?;
    let (mut children, mut firewall) = (Vec::new(), Some(firewall));
    let tell = || {
        // After the mappings, since it says what other firewalls would drop of them; before the record, which
        // promises that they are reached.
        forward::open(options.forward, &published.mappings)?;
        let ports = port_mappings(&published.mappings);
        let mut held = if options.no_bind_check { vec![] } else { beside::ports(&ports, specs, proxied) };
        let kept = before.iter().flat_map(|held| &held.ports).filter(|port| !held.contains(port)).cloned();
        held.extend(kept.collect::<Vec<_>>());
        held.truncate(beside::MOST);
        Served::add_to(&mut record, &ports.into_iter().map(Served::Port).collect::<Vec<_>>())?;
        if !proxied.is_empty() {
            let (proxy, served) = Server::inside(options, target, proxied)?;
            Served::add_to(&mut record, &served)?;
            // The process is a copy of this one: as long as it has a copy of the socket, the holder's table stays,
            // although nobody knows it any more.
            children.push(proxy.go_on(true, || drop(firewall.take()))?);
        }
        if holds || !held.is_empty() {
            let held_by = firewall.filter(|_| holds).map(|firewall| (firewall, published.mappings.clone()));
            let server = Server::beside(&directories, target, &held, &options.while_process, held_by)?;
            children.push(server.go_on(false, || {})?);
        }
        anyhow::Ok(record.hand_on()?)
    };
    tell().inspect_err(|_| {
        children.iter().for_each(end);
        // A new socket: the old one may have failed, or was given away.
        cli::warn(Firewall::open().map(|mut firewall| published.take_back(&mut firewall, &target.owner.id)));
    })
}

/// Finds the container, and the record to hand on; whether that came from a stage before.
fn find(options: &Add) -> Result<(Record, Target, bool)> {
    let id = options.id.as_ref();
    let directories = options.roots.directories();
    let owner = Owner::of_root(&directories);
    let target = match (options.pid, options.netns.as_deref(), options.target.as_deref()) {
        (pid, Some(netns), _) => {
            let id = id.map_or_else(|| self::id(netns), |id| Ok(id.clone()))?;
            Target { pid, ..Target::of_namespace(netns, &id, owner)? }
        }
        (Some(pid), ..) => Target::of_process(pid, id, owner)?,
        (_, _, Some(name)) if is_id(name) && !name.is_file() => Target::of_id(&self::id(name)?, &directories)?,
        (_, _, input) => {
            let record = read(input)?;
            let target = Target::of_record(&record, id, owner)?;
            return Ok((record, target, true));
        }
    };
    let mut record = Record::default();
    target.owner.name(&mut record)?;
    Ok((record, target, false))
}

/// Returns the id that a word or a path's end is.
pub(crate) fn id(name: &Path) -> Result<ContainerId> {
    ContainerId::of_path(name).map_err(|error| cli::Usage(error.to_string()).into())
}

/// Tells an id from a record. What withdraws or checks takes a bare word for an id always: that a file happens to have a
/// container's name must not matter there. A path has a slash.
pub(crate) fn is_id(name: &Path) -> bool {
    name != Path::new("-") && !name.to_string_lossy().contains('/')
}

/// Reads a record by the input rule; a directory is a bundle, which says nothing of the network but its id.
pub(crate) fn read(input: Option<&Path>) -> Result<Record> {
    match Input::read(input)? {
        Input::Record(record) => Ok(record),
        Input::Directory(path) => {
            Err(cli::Usage(format!("{} is a directory: a record or a container's id is needed", path.display())).into())
        }
    }
}

/// Returns what the image exposes, each on a random port.
fn exposed(record: &Record, bundle: Option<&Path>) -> Result<Vec<PortSpec>> {
    let from_record = record.member("annotations").and_then(|annotations| annotations.get(EXPOSED)).cloned();
    let annotation = match bundle.filter(|_| from_record.is_none()) {
        Some(bundle) => {
            let path = bundle.join("config.json");
            let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let config: Value = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
            config.get("annotations").and_then(|annotations| annotations.get(EXPOSED)).cloned()
        }
        None => from_record,
    };
    let list = annotation.as_ref().and_then(Value::as_str).unwrap_or_default();
    let ports = list.split(',').map(str::trim).filter(|port| !port.is_empty());
    ports.map(|port| port.parse().with_context(|| format!("the image's exposed port {port}"))).collect()
}
