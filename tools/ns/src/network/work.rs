//! The plan's steps done, and undone in reverse.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use container::{ContainerId, Directories};
use netlink::forwarding;
use netlink::route::{Cidr, Mac, Route, Router};
use rustix::io::Errno;

use super::ipam::Lease;
use super::owner::PortAlias;
use super::plan::Step;
use super::{firewall, host_local, named, outward};

/// What is said of a bridge that the kernel takes no more ports for.
const FULL: &str = "has all its 1,023 ports: `ns network create --driver routed NAME` makes one without a limit";

/// The sockets that steps work with, and the steps that are done.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) host: Router,
    container: Option<(OwnedFd, Router)>,
    /// The numbers of links: whether in the container, and the name.
    ///
    /// Each look-up by name is a request of its own.
    indexes: HashMap<(bool, String), u32>,
    done: Vec<Step>,
    /// Where it is noted.
    directories: Directories,
    /// Whether there was nothing of ours in the firewall.
    pub(crate) flushed: bool,
}

impl Work {
    /// Begins with a socket on the host.
    pub(crate) fn new(host: Router, directories: &Directories) -> Self {
        Self {
            host,
            container: None,
            indexes: HashMap::new(),
            done: vec![],
            flushed: false,
            directories: directories.clone(),
        }
    }

    /// Enters a namespace that is there. Returns how far behind the ways outwards in it further ones have to stand.
    pub(crate) fn enter(&mut self, id: &ContainerId) -> Result<u32> {
        let netns = named::open(id)?;
        let mut router = named::router(netns.as_fd())?;
        let ways = router.routes()?.into_iter().filter(|way| way.destination.prefix == 0);
        let behind = ways.map(|way| way.metric + 1).max().unwrap_or_default();
        self.container = Some((netns, router));
        Ok(behind)
    }

    /// Does the steps up to the first that fails.
    pub(crate) fn apply(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            log::debug!("{step}");
            let _span = trace::span("step", step);
            let done = self.step(step).with_context(|| step.to_string());
            // The kernel may have made a link whose answer was not heard. What is there already it refuses.
            // A link that is refused with EEXIST is somebody else's: undoing it would take theirs.
            let is_refused = |error: &anyhow::Error| {
                error.downcast_ref::<netlink::Error>().is_some_and(|error| error.errno() == Some(Errno::EXIST))
            };
            let makes_link = matches!(step, Step::Pair { .. } | Step::Macvlan { .. });
            if done.as_ref().map_or_else(|error| makes_link && !is_refused(error), |()| true) {
                self.done.push(step.clone());
            }
            done?;
        }
        Ok(())
    }

    /// Undoes what is done.
    pub(crate) fn undo(&mut self) {
        while let Some(step) = self.done.pop() {
            cli::warn(self.undo_step(&step).with_context(|| format!("undo: {step}")));
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Namespace(of) => self.container = Some(make_namespace(of)?),
            Step::Lease { network, address, id, interface } => host_local::note(network, *address, id, interface)?,
            Step::Bridge(link) => self.host.add_bridge(link)?,
            Step::Alias { link, alias, names } => {
                self.host.set_alias(link, alias)?;
                let index = self.on_host(link)?;
                self.host.add_names(index, names)?;
            }
            Step::HostAddress { link, address } => {
                let index = self.on_host(link)?;
                self.host.add_address(index, *address, true)?;
            }
            Step::HostIpv6 { link, enabled } => shield(link, *enabled),
            Step::HostUp(link) => {
                let index = self.on_host(link)?;
                self.host.set_up(index)?;
            }
            Step::Forward { ipv4 } => forwarding::turn_on(*ipv4)?,
            Step::Firewall { rules, first } => self.flushed |= firewall::add(rules, *first)?,
            Step::Pair { port, bridge, peer } => {
                let controller = bridge.as_ref().map(|bridge| self.on_host(bridge)).transpose()?;
                // In a routed network the host alone is a neighbour, and each namespace whose settings are looked up makes
                // looking up any others' longer.
                controller.map_or(Ok(()), |_| self.expect_neighbours())?;
                let (netns, _) = self.container.as_ref().ok_or_else(no_namespace)?;
                let joined = self.host.add_veth(port, controller, peer, netns.as_fd());
                joined.map_err(|error| match (error.errno(), bridge) {
                    (Some(Errno::XFULL), Some(bridge)) => anyhow!("{bridge} {FULL}"),
                    _ => error.into(),
                })?;
            }
            Step::Port { port, bridge } => {
                let (port, controller) = (self.on_host(port)?, self.on_host(bridge)?);
                self.host.set_controller(port, controller)?;
            }
            Step::Macvlan { link, parent } => {
                let lower = self.on_host(parent).with_context(|| format!("find {parent}"))?;
                self.expect_neighbours()?;
                let (netns, _) = self.container.as_ref().ok_or_else(no_namespace)?;
                self.host.add_macvlan(link, lower, netns.as_fd())?;
            }
            Step::Hairpin(link) => self.host.set_hairpin(link)?,
            Step::Address { link, address, on_link } => {
                self.inside(link, |router, index| router.add_address(index, *address, *on_link))?;
            }
            Step::HostRoute { link, address, gateway, mac } => {
                let index = self.on_host(link)?;
                mac.map_or(Ok(()), |mac| self.host.set_neighbour(index, *address, mac))?;
                self.host.add_route(&Route { source: Some(*gateway), ..route_to(Cidr::of(*address), None, index) })?;
            }
            Step::Neighbours { link, lease: Lease { address, gateway, .. }, mac } => {
                self.inside(link, |router, index| {
                    router.set_neighbour(index, *gateway, *mac)?;
                    router.add_route(&route_to(Cidr::of(*gateway), None, index))?;
                    router.add_route(&route_to(address.network(), Some(*gateway), index))
                })?;
            }
            Step::Up(link) => self.inside(link, Router::set_up)?,
            Step::Announce { link, mac, way } => self.announce(link, *mac, way)?,
            Step::Outward { id, netns } => {
                self.expect_neighbours()?;
                outward::start(&self.directories, id, netns)?;
            }
            Step::Route { gateway, link, metric } => {
                let all = Cidr { address: if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, prefix: 0 };
                let route = |index| Route { metric: *metric, ..route_to(all, Some(*gateway), index) };
                self.inside(link, |router, index| router.add_route(&route(index)))?;
            }
        }
        Ok(())
    }

    /// Nobody on a bridge may talk a container into other routes. And neighbours are told who has an address now: they may
    /// know another one who had it before.
    fn expect_neighbours(&self) -> Result<()> {
        let (netns, _) = self.container.as_ref().ok_or_else(no_namespace)?;
        // In `default`, before the link is made, since a link takes its settings from there at its birth: an
        // advertisement may arrive as soon as it is up.
        let settings = [("accept_ra", "0"), ("ndisc_notify", "1")];
        let set = named::within(netns.as_fd(), || Ok(forwarding::set_all("ipv6/conf/default", &settings)));
        if let Err(error) = set? {
            log::debug!("{error}");
        }
        Ok(())
    }

    fn announce(&mut self, link: &str, mac: Option<Mac>, way: &[String]) -> Result<()> {
        for link in way {
            // A port that came up forwards only when the kernel's link watch has run, up to a second later; asking
            // runs it. An announcement before that is lost.
            sys::network::has_carrier(link).with_context(|| format!("look at {link}"))?;
        }
        self.inside(link, |router, index| -> Result<()> {
            let mac = match mac {
                Some(mac) => mac.to_vec(),
                None => router.link(link)?.ok_or_else(|| anyhow!("{link}: no such link"))?.mac,
            };
            Ok(router.announce(index, &mac)?)
        })
    }

    fn undo_step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Namespace(of) => {
                self.container = None;
                named::remove(&of.id)?;
            }
            Step::Bridge(link) | Step::Pair { port: link, .. } => {
                self.host.link(&link.name)?.map_or(Ok(()), |link| self.host.delete_link(link.index))?;
            }
            Step::Macvlan { link, .. } => {
                let (_, router) = self.container.as_mut().ok_or_else(no_namespace)?;
                router.link(&link.name)?.map_or(Ok(()), |link| router.delete_link(link.index))?;
            }
            Step::Firewall { rules, first: true } => drop(firewall::remove(&rules.bridge, rules.ports.as_deref())?),
            Step::Outward { id, .. } => outward::stop(&self.directories, id),
            Step::Lease { id, .. } => host_local::withdraw(id, &[])?,
            // The rest goes with its link or its namespace, or is the same for every container.
            _ => {}
        }
        Ok(())
    }

    fn on_host(&mut self, link: &str) -> Result<u32> {
        index(&mut self.host, &mut self.indexes, (false, link))
    }

    fn inside<E: Into<anyhow::Error>>(
        &mut self,
        link: &str,
        act: impl FnOnce(&mut Router, u32) -> Result<(), E>,
    ) -> Result<()> {
        let (_, router) = self.container.as_mut().ok_or_else(no_namespace)?;
        let index = if link == "lo" { 1 } else { index(router, &mut self.indexes, (true, link))? };
        act(router, index).map_err(Into::into)
    }
}

/// Makes a network namespace that says whose it is.
fn make_namespace(of: &PortAlias) -> Result<(OwnedFd, Router)> {
    named::create(&of.id, || {
        let mut router = Router::open()?;
        router.set_alias("lo", &of.to_string())?;
        Ok(router)
    })
}

fn route_to(destination: Cidr, gateway: Option<IpAddr>, index: u32) -> Route {
    Route { destination, gateway, source: None, index: Some(index), metric: 0, is_main: true }
}

fn no_namespace() -> anyhow::Error {
    anyhow!("the namespace is not made yet")
}

fn index(router: &mut Router, known: &mut HashMap<(bool, String), u32>, link: (bool, &str)) -> Result<u32> {
    let key = (link.0, link.1.to_owned());
    if let Some(index) = known.get(&key) {
        return Ok(*index);
    }
    let index = router.link(link.1)?.map(|link| link.index).ok_or_else(|| anyhow!("{}: no such link", link.1))?;
    known.insert(key, index);
    Ok(index)
}

/// Nobody on a bridge may give the host routes and addresses (CVE-2020-13401), nor reach what listens on it by IPv6 where the
/// network has none.
fn shield(link: &str, ipv6: bool) {
    let settings = [("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", if ipv6 { "0" } else { "1" })];
    // A kernel without IPv6 has no such directory.
    cli::warn(sys::file::there(forwarding::set_all(&format!("ipv6/conf/{link}"), &settings)));
}
