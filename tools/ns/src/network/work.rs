//! The plan's steps done, and undone in reverse.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use netlink::route::Router;

use super::plan::Step;
use super::{masquerade, named};

/// The sockets that steps work with, and the steps that are done.
#[derive(Debug)]
pub(crate) struct Work {
    host: Router,
    container: Option<(OwnedFd, Router)>,
    done: Vec<Step>,
}

impl Work {
    /// Begins with a socket on the host.
    pub(crate) fn new(host: Router) -> Self {
        Self { host, container: None, done: vec![] }
    }

    /// Does the steps up to the first that fails.
    pub(crate) fn apply(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            log::debug!("{step}");
            self.step(step).with_context(|| step.to_string())?;
            self.done.push(step.clone());
        }
        Ok(())
    }

    /// Undoes what is done.
    pub(crate) fn undo(&mut self) {
        while let Some(step) = self.done.pop() {
            if let Err(error) = self.undo_step(&step) {
                log::warn!("undo: {step}: {error:#}");
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Namespace(name) => {
                let router = named::create(name, || {
                    // Nobody on a bridge may talk a container into other routes.
                    if let Err(error) = write_sysctl("ipv6/conf/default/accept_ra", "0") {
                        log::debug!("accept_ra: {error}");
                    }
                    Ok(Router::open()?)
                })?;
                self.container = Some((named::open(name)?, router));
            }
            Step::Bridge(link) => self.host.add_bridge(link)?,
            Step::Alias { link, alias } => self.host.set_alias(link, alias)?,
            Step::HostAddress { link, address } => {
                let index = index(&mut self.host, link)?;
                self.host.add_address(index, *address)?;
            }
            Step::HostUp(link) => {
                let index = index(&mut self.host, link)?;
                self.host.set_up(index)?;
            }
            Step::Forward { ipv4: true } => write_sysctl("ipv4/ip_forward", "1")?,
            Step::Forward { ipv4: false } => write_sysctl("ipv6/conf/all/forwarding", "1")?,
            Step::Masquerade { bridge, networks, .. } => masquerade::add(bridge, networks)?,
            Step::Pair { port, bridge, peer } => {
                let controller = index(&mut self.host, bridge)?;
                let (netns, _) = self.container.as_ref().ok_or_else(no_namespace)?;
                self.host.add_veth(port, controller, peer, netns.as_fd())?;
            }
            Step::Hairpin(link) => self.host.set_hairpin(link)?,
            Step::Address { link, address } => {
                let (router, index) = self.inside(link)?;
                router.add_address(index, *address)?;
            }
            Step::Up(link) => {
                let (router, index) = self.inside(link)?;
                router.set_up(index)?;
            }
            Step::Route { gateway, link } => {
                let (router, index) = self.inside(link)?;
                router.add_route(None, *gateway, index)?;
            }
        }
        Ok(())
    }

    fn undo_step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Namespace(name) => {
                self.container = None;
                named::remove(name)?;
            }
            Step::Bridge(link) => {
                self.host.link(&link.name)?.map_or(Ok(()), |link| self.host.delete_link(link.index))?;
            }
            Step::Masquerade { bridge, first: true, .. } => masquerade::remove(bridge)?,
            Step::Pair { port, .. } => {
                self.host.link(&port.name)?.map_or(Ok(()), |link| self.host.delete_link(link.index))?;
            }
            // The rest goes with its link or its namespace, or is the same for every container.
            _ => {}
        }
        Ok(())
    }

    fn inside(&mut self, link: &str) -> Result<(&mut Router, u32)> {
        let (_, router) = self.container.as_mut().ok_or_else(no_namespace)?;
        let index = if link == "lo" { 1 } else { index(router, link)? };
        Ok((router, index))
    }
}

fn no_namespace() -> anyhow::Error {
    anyhow!("the namespace is not made yet")
}

fn index(router: &mut Router, name: &str) -> Result<u32> {
    router.link(name)?.map(|link| link.index).ok_or_else(|| anyhow!("{name} is gone"))
}

/// Writes a network setting of the calling thread's namespace, unless it has that value: /proc/sys may be read-only.
fn write_sysctl(name: &str, value: &str) -> std::io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path)?.trim_end() == value { Ok(()) } else { fs::write(&path, value) }
}
