//! Publishing by translation: from what is asked for to mappings with ports that are free.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use container::{Condition, Directories, Known, Owner};
use log::warn;
use netlink::forwarding;
use netlink::route::Cidr;
use record::{Part, Protocol, Record};
use serde::{Deserialize, Serialize};

use crate::beside;
use crate::condition::Conditions;
use crate::conntrack;
use crate::control::{Sockets, id_of};
use crate::firewall::{self, Firewall, View};
use crate::held::HeldBy;
use crate::host::{self, Way};
use crate::mapping::{self, Hairpin, Mapping, MappingStep, Published, Taken};
use crate::owner::MappingOwner;
use crate::probe;
use crate::spec::{HostPorts, PortSpec, Span, any};
use crate::target::Target;

/// How to publish.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner<'a> {
    /// Whether to ask the system if a process of the host has the port.
    pub(crate) probe: bool,
    /// Where the processes are found that hold or serve ports, and which containers have ended: their ports are free.
    pub(crate) directories: Option<&'a Directories>,
    /// Whether connections that turn back get the host's address as their source.
    pub(crate) masquerade: Masquerade,
    /// Whom the ports are open to; `None` is everybody.
    pub(crate) conditions: Option<&'a Conditions>,
}

/// Which connections to published ports get the host's address as their source; in `portmap list` where a CNI
/// configuration said so (`snat`, `masqAll`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Masquerade {
    /// None of them.
    Nothing,
    /// Those that come from the container's own network.
    #[default]
    OwnNetwork,
    /// All of them.
    All,
}

record::part! { Masquerade: "masquerade" by "portmap"; }

impl Masquerade {
    /// Reads it off what is published for an owner.
    pub(crate) fn of(published: &Published, owner: &MappingOwner) -> Self {
        let own = || published.hairpins.iter().filter(|hairpin| hairpin.owner == *owner);
        if own().next().is_none() {
            return Self::Nothing;
        }
        if own().all(|hairpin| hairpin.network.prefix == 0) { Self::All } else { Self::OwnNetwork }
    }
}

/// What was published.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    /// With the ports that were chosen.
    pub(crate) mappings: Vec<Mapping>,
    /// What was done for them: some may have been there before.
    steps: Vec<MappingStep>,
}

impl Publication {
    /// Withdraws what was published, where nobody can be told of it. The error that is told says more than one of this.
    pub(crate) fn take_back(&self, firewall: &mut Firewall, id: &str) {
        let own = |mapping: &Mapping| {
            self.steps.iter().any(|step| matches!(step, MappingStep::Publish(published) if published == mapping))
        };
        cli::warn(firewall.withdraw(Some(id), own).context("withdraw ports again"));
    }
}

/// Publishes ports of a container.
pub(crate) fn publish(
    firewall: &mut Firewall,
    target: &Target,
    specs: &[PortSpec],
    manner: Manner<'_>,
) -> Result<Publication> {
    let ways = prepare_host(target, specs)?;
    let hairpins = hairpins(target, &ways, manner.masquerade);
    let holder = firewall.holder();
    let (mut chosen, mut planned) = (Vec::new(), Vec::new());
    let mut change = |firewall: &mut Firewall| {
        firewall.change(|view| {
            let mappings = choose(view, target, specs, manner)?.into_iter();
            chosen = mappings.map(|mapping| Mapping { held_by: holder, ..mapping }).collect();
            let hairpins = hairpins.iter().map(|hairpin| Hairpin { held_by: holder, ..hairpin.clone() }).collect();
            target.addresses.iter().try_for_each(|address| view.read_target(*address))?;
            planned = mapping::publish(&view.known, &Published { mappings: chosen.clone(), hairpins })?;
            Ok(planned.clone())
        })
    };
    let by_ipv4 = ways.iter().filter(|(address, _)| address.is_ipv4()).filter_map(|(_, way)| way.as_ref());
    let interfaces: Vec<&str> = by_ipv4.map(|way| way.interface.as_str()).collect();
    let route = || interfaces.iter().try_for_each(|interface| host::route_localnet(interface));
    // Before the mappings: a first packet to 127.0.0.1 that comes between the two would be lost, and sent again after a
    // second. Where it fails, so it does below.
    if !interfaces.iter().all(|interface| host::is_localnet_routed(interface)) && firewall.guard().is_ok() {
        let _later = route();
    }
    // The plan is made from what the kernel has, and made again if somebody else was faster (`Firewall::change`).
    let mut done = change(firewall);
    // At most as often as there are ports asked for: each round ends one holder, and a holder that comes back each time must
    // not keep us here.
    for _ in specs {
        let Err(error) = &done else { break };
        if !let_go(error, manner)? && !withdraw_ended(firewall, error, manner)? {
            break;
        }
        done = change(firewall);
    }
    let publication = Publication { mappings: chosen, steps: planned };
    // Somebody who withdrew the last port meanwhile may have turned it off.
    let done = done.and_then(|_| route());
    // The kernel may have done it, and only its answer got lost.
    done.inspect_err(|_| publication.take_back(firewall, &target.owner.id))?;
    // After the rules: a connection that is tracked keeps the translation it began with, which for UDP may be none,
    // for as long as packets come.
    conntrack::forget(&publication.steps);
    Ok(publication)
}

/// Ends the process that holds a port which would give way. Tells whether it did.
fn let_go(error: &anyhow::Error, manner: Manner<'_>) -> Result<bool> {
    let taken = error.downcast_ref::<Taken>().filter(|taken| taken.is_held);
    let Some((taken, directories)) = taken.zip(manner.directories) else { return Ok(false) };
    let holds = |record: &Record| record.member(HeldBy::MEMBER).is_some();
    let is_holders = |record: &Record| id_of(record).is_some_and(|id| *id == *taken.holder);
    Sockets::below(directories, Some(&taken.holder)).dismiss(|record| holds(record) && is_holders(record))?;
    Ok(true)
}

/// Withdraws the ports of a container below the same root that has ended and that nobody is responsible for: stages by hand
/// have made it. Tells whether it had any.
fn withdraw_ended(firewall: &mut Firewall, error: &anyhow::Error, manner: Manner<'_>) -> Result<bool> {
    let Some((taken, directories)) = error.downcast_ref::<Taken>().zip(manner.directories) else { return Ok(false) };
    let known = taken.holder.parse().map_or(Ok(None), |id| Known::of(directories, id));
    let known = known.with_context(|| format!("check whether {} runs", taken.holder))?;
    if known.is_none_or(|known| known.condition != Condition::Exited) {
        return Ok(false);
    }
    let ours = |owner: Owner| owner.shares_root(Owner::of_root(directories));
    let leaves = |mapping: &Mapping| mapping.owner.id == taken.holder && mapping.owner.owner.is_some_and(ours);
    let steps = firewall.withdraw(Some(&taken.holder), leaves)?;
    beside::release(directories, &taken.holder, |_| true)?;
    Ok(!steps.is_empty())
}

/// Tells whether everything is there that lets these ports be reached: an error names what is not.
pub(crate) fn check(
    firewall: &mut Firewall,
    target: &Target,
    specs: &[PortSpec],
    conditions: &Conditions,
) -> Result<()> {
    let mut view = firewall.view()?;
    for mapping in choose(&mut view, target, specs, Manner { conditions: Some(conditions), ..Manner::default() })? {
        let same =
            |other: &Mapping| Mapping { owner: mapping.owner.clone(), held_by: None, ..other.clone() } == mapping;
        let own = |other: &Mapping| same(other) && other.owner.id == mapping.owner.id;
        ensure!(view.known.mappings.iter().any(own), "{mapping} is not published");
        ensure!(view.is_whole(), "the firewall's table portmap has lost rules");
        let address = mapping.target;
        ensure!(forwarding::is_on(address.is_ipv4()), "the host does not forward packets to {address}");
    }
    ensure!(!view.is_open()?, firewall::OPEN);
    Ok(())
}

/// Lets packets through to the container's addresses.
fn prepare_host(target: &Target, specs: &[PortSpec]) -> Result<Vec<(IpAddr, Option<Way>)>> {
    let mut ways = Vec::new();
    let is_wanted = |address: &IpAddr| specs.iter().any(|spec| serves(spec, *address));
    for address in target.addresses.iter().copied().filter(is_wanted) {
        let way = host::way_to(address).with_context(|| format!("find the way to {address}"))?;
        forwarding::turn_on(address.is_ipv4())?;
        if way.is_none() {
            warn!("the host has no direct route to {address}: 127.0.0.1 will not reach it");
        }
        ways.push((address, way));
    }
    Ok(ways)
}

fn hairpins(target: &Target, ways: &[(IpAddr, Option<Way>)], masquerade: Masquerade) -> Vec<Hairpin> {
    let network = |address: IpAddr, way: &Option<Way>| match masquerade {
        Masquerade::Nothing => None,
        Masquerade::OwnNetwork => way.as_ref().and_then(|way| way.network).or(Some(Cidr::of(address))),
        Masquerade::All => Some(Cidr { address: any(address.is_ipv4()), prefix: 0 }),
    };
    let hairpin = |(address, way): &(IpAddr, Option<Way>)| {
        let network = network(*address, way)?;
        Some(Hairpin { network, target: *address, owner: target.owner.clone(), held_by: None })
    };
    ways.iter().filter_map(hairpin).collect()
}

/// Tells whether translation can serve a port at an address of the container: families are not translated into each
/// other, and IPv6 has no `route_localnet`.
pub(crate) fn serves(spec: &PortSpec, address: IpAddr) -> bool {
    match spec.host_ip {
        None => true,
        Some(host_ip) => host_ip.is_ipv4() == address.is_ipv4() && !(host_ip.is_ipv6() && host_ip.is_loopback()),
    }
}

/// Chooses the host's ports and writes each port as mappings.
fn choose(view: &mut View<'_>, target: &Target, specs: &[PortSpec], manner: Manner<'_>) -> Result<Vec<Mapping>> {
    let mut chosen: Vec<Mapping> = Vec::new();
    for spec in specs {
        let addresses: Vec<_> = target.addresses.iter().copied().filter(|address| serves(spec, *address)).collect();
        let protocol = spec.protocol;
        // 0.0.0.0 and :: say the family and nothing more.
        let host_ip = spec.host_ip.filter(|ip| !ip.is_unspecified());
        let taken = spec.choose(|host, port| {
            let random = || random_port(spec.host_ip, &addresses, protocol).map(Span::one);
            // Asked of the system and tried like any other: between its answer and the rule somebody may bind the
            // port, as with docker.
            let host = if host.first == 0 { random()? } else { host };
            let at = |address: &IpAddr| {
                let (target, owner) = (*address, target.owner.clone());
                let whole = Mapping { host_ip, protocol, host, target, port, condition: None, owner, held_by: None };
                split(whole, manner.conditions)
            };
            let wanted: Vec<_> = addresses.iter().flat_map(at).collect();
            free(view, &chosen, &wanted, manner)?;
            chosen.extend(wanted);
            Ok(())
        });
        let is_exact = matches!(spec.host, HostPorts::Exactly(_));
        taken.map_err(
            |error| if is_exact { error } else { error.context(format!("publish for {}", target.owner.id)) },
        )?;
    }
    Ok(chosen)
}

/// Returns the mappings that the firewall has for one, as few as there can be.
fn split(whole: Mapping, conditions: Option<&Conditions>) -> Vec<Mapping> {
    let Mapping { host_ip, host, target, port, .. } = whole;
    let conditions = conditions.and_then(|conditions| conditions.at(host_ip, target.is_ipv4()));
    // Only equal numbers fit in one element of the firewall: the rule leaves the port as it is, and a range is one
    // key. All others are one element a port.
    if conditions.is_none() && host.first == port {
        return vec![whole];
    }
    let single = |at: u16| Mapping { host: Span::one(at), port: port + (at - host.first), ..whole.clone() };
    let Some(conditions) = conditions else { return host.ports().map(single).collect() };
    let with = |mapping: Mapping| conditions.iter().map(move |condition| mapping.clone().under(*condition));
    host.ports().map(single).flat_map(with).collect()
}

/// An error if somebody has one of the ports.
fn free(view: &mut View<'_>, chosen: &[Mapping], wanted: &[Mapping], manner: Manner<'_>) -> Result<()> {
    for mapping in wanted {
        if let Some(twice) = chosen.iter().find(|other| other.overlaps(mapping)) {
            bail!(cli::Usage(format!("{}/{} is asked for twice", twice.host_side(), twice.protocol)));
        }
    }
    view.read_ports(wanted)?;
    mapping::publish(&view.known, &Published { mappings: wanted.to_vec(), hairpins: Vec::new() })?;
    if !manner.probe {
        return Ok(());
    }
    for mapping in wanted {
        let address = mapping.host_ip.unwrap_or_else(|| any(mapping.target.is_ipv4()));
        for port in mapping.host.ports() {
            let address = SocketAddr::new(address, port);
            let mut bound = probe::bind(address, mapping.protocol);
            if let (Err(_), Some(directories)) = (&bound, manner.directories) {
                beside::sweep(directories, |_| false)?;
                bound = probe::bind(address, mapping.protocol);
            }
            if let Err(error) = bound {
                let what = format!("publish {address}/{} for {}", mapping.protocol, mapping.owner.id);
                return Err(probe::refusal(address, mapping.protocol, manner.directories, error).context(what));
            }
        }
    }
    Ok(())
}

/// Asks the system for a port out of `ip_local_port_range`.
fn random_port(host_ip: Option<IpAddr>, targets: &[IpAddr], protocol: Protocol) -> Result<u16> {
    let is_ipv4 = targets.first().is_none_or(IpAddr::is_ipv4);
    let address = SocketAddr::new(host_ip.unwrap_or_else(|| any(is_ipv4)), 0);
    // Where the kernel has no SCTP, a free number is as good.
    let protocol = if protocol == Protocol::Sctp { Protocol::Udp } else { protocol };
    probe::bind(address, protocol).with_context(|| format!("find a free port on {}", address.ip()))
}

/// Withdraws those mappings of an owner, or of all, that `leaves` says. Closing the firewall waits until the kernel has
/// thrown them away, some ten milliseconds, in which [`conntrack::forget`] does its part.
pub(crate) fn withdraw(owner: Option<&str>, leaves: impl Fn(&Mapping) -> bool) -> Result<()> {
    let mut firewall = Firewall::open()?;
    let steps = firewall.withdraw(owner, leaves)?;
    std::thread::scope(|scope| {
        // Without a thread the firewall is closed here and now.
        let _waited = std::thread::Builder::new().spawn_scoped(scope, || drop(firewall));
        conntrack::forget(&steps);
    });
    Ok(())
}
