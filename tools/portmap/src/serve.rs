//! What serves a container's ports: by a proxy, or beside translation; in this process, or in one of its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use container::Directories;
use record::{PortMapping, Ports};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use sys::clone::{Cloned, How, clone, exit_now};

use crate::conntrack;
use crate::control::{ServerSocket, Sockets};
use crate::firewall::Firewall;
use crate::held::{HeldBy, Holds};
use crate::mapping::{self, Mapping, MappingStep};
use crate::owner::MappingOwner;
use crate::proxy::{self, Listener, Proxy, Surroundings};
use crate::request::{Add, ProxyProtocol};
use crate::spec::{PublishFlag, Served, Span};
use crate::target::{self, Target};
use crate::watch::LifetimeWatch;

/// What serves a container's ports.
pub(crate) struct Server {
    listeners: Vec<Listener>,
    control: ServerSocket,
    /// The container's network namespace.
    netns: PathBuf,
    /// The same, where it is served from inside.
    inside: Option<File>,
    /// Processes that it does not outlive.
    processes: Vec<Pid>,
    greeting: Option<ProxyProtocol>,
    /// What is translated only as long as it serves, and the socket by which the kernel knows that.
    held: Option<(Firewall, Vec<Mapping>)>,
}

impl Server {
    /// Takes the ports that a proxy serves from inside the container. Returns what it serves, too.
    pub(crate) fn inside(options: &Add, target: &Target, flags: &[PublishFlag]) -> anyhow::Result<(Self, Vec<Served>)> {
        let netns = namespace(target)?;
        let inside = File::open(&netns).with_context(|| format!("open network namespace {}", netns.display()))?;
        let directories = options.roots.directories();
        let listeners = proxy::listen(flags, &Surroundings { directories: &directories, root: root(target)? })?;
        ensure_untranslated(&listeners, &target.owner)?;
        let mut served: Vec<Served> = listeners.iter().map(|listener| listener.served().clone()).collect();
        // A port of both families has two listeners.
        served.dedup();
        let sockets = Sockets::below(&directories, Some(&target.owner.id));
        let control = sockets.make(&proxy::record(target, &served)?)?;
        let (processes, greeting) = (processes(target, &options.while_process), options.proxy_protocol);
        Ok((Self { listeners, control, netns, inside: Some(inside), processes, greeting, held: None }, served))
    }

    /// Takes the ports that are translated, or are to be as long as it serves, and what translation does not serve of them.
    pub(crate) fn beside(
        directories: &Directories,
        target: &Target,
        ports: &[PortMapping],
        while_processes: &[Pid],
        held: Option<(Firewall, Vec<Mapping>)>,
    ) -> anyhow::Result<Self> {
        let flags: Vec<PublishFlag> = ports.iter().map(|port| PublishFlag::Ports(port.into())).collect();
        let listeners = proxy::listen(&flags, &Surroundings { directories, root: None })?;
        let served: Vec<Served> = listeners.iter().map(|listener| listener.served().clone()).collect();
        let listeners = listeners.into_iter().map(|listener| listener.beside(&target.addresses)).collect();
        let mut record = proxy::record(target, &served)?;
        let sockets = if let Some((firewall, mappings)) = &held {
            record.set(&Ports(mapping::port_mappings(mappings)));
            record.set(&HeldBy(firewall.holder().context("the socket has no number")?));
            Sockets::below(directories, Some(&target.owner.id))
        } else {
            record.set(&target::network(&target.owner, &target.addresses));
            record.set(&Holds(ports.to_vec()));
            Sockets::beside(directories, Some(&target.owner.id))
        };
        let (control, netns) = (sockets.make(&record)?, namespace(target)?);
        let processes = processes(target, while_processes);
        Ok(Self { listeners, control, netns, inside: None, processes, greeting: None, held })
    }

    /// Serves until the container ends or somebody says so; `ready` is called when it does.
    pub(crate) fn serve(self, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        // Started as /proc/self/exe, it would be called `exe`: that is only for people who list processes.
        let _name = rustix::thread::set_name(c"portmap");
        // What is beside translation has little to do.
        let (pause, threads) = if self.inside.is_some() { (1, proxy::MOST_THREADS) } else { (10, 1) };
        let watch = LifetimeWatch::new(&self.processes, &self.netns, Duration::from_secs(pause))?;
        if let Some(inside) = &self.inside {
            // After the sockets of the host are bound, which stay there, and before there is a second thread.
            proxy::move_into(inside)?;
        }
        let mut proxy = Proxy::new(self.listeners, self.control, watch, self.greeting, threads)?;
        ready()?;
        if self.held.is_none() {
            // Not with a table of its own, which it has to take away at the end.
            proxy.confine()?;
        }
        shrink();
        proxy.serve()?;
        let Some((firewall, mappings)) = self.held else { return Ok(()) };
        // Whoever said so waits for this process's end, and wants the ports then.
        // Closing the socket deletes the table that belongs to it (`NFT_TABLE_F_OWNER`).
        drop(firewall);
        Firewall::open()?.change(|_| Ok(Vec::new()))?;
        conntrack::forget(&mappings.into_iter().map(MappingStep::Withdraw).collect::<Vec<_>>());
        Ok(())
    }

    /// Serves in a child, which goes on when this process has ended; with `wait` it serves on return. The child lets go
    /// of what is another's by `leave`.
    pub(crate) fn go_on(self, wait: bool, leave: impl FnOnce()) -> anyhow::Result<OwnedFd> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        // A clone, not an execution: all that it needs is in memory, and its sockets are bound.
        match clone(How::default()).context("start a server")? {
            Cloned::Child => {
                drop(read);
                leave();
                let done = leave_the_caller().and_then(|null| {
                    self.serve(|| {
                        rustix::stdio::dup2_stderr(null)?;
                        // Nobody may wait for it.
                        let _told = rustix::io::write(&write, b"r");
                        drop(write);
                        Ok(())
                    })
                });
                if let Err(error) = &done {
                    cli::complain("portmap", error);
                }
                exit_now(done.is_err().into())
            }
            Cloned::Parent { pidfd, .. } => {
                // Its sockets are the child's, and so are their names.
                self.control.hand_on();
                self.listeners.into_iter().for_each(Listener::hand_on);
                drop(write);
                if wait && rustix::io::read(&read, &mut [0]).context("wait for the server")? == 0 {
                    // It has said why on stderr.
                    bail!("the server ended at once");
                }
                Ok(pidfd)
            }
        }
    }
}

/// Ends a process that serves ports, where nobody can be told of it.
pub(crate) fn end(child: &OwnedFd) {
    // It may have ended by itself.
    let _ended = pidfd_send_signal(child, Signal::TERM);
}

fn namespace(target: &Target) -> anyhow::Result<PathBuf> {
    target.owner.netns.clone().context("the container has no network namespace")
}

/// Returns the processes that what serves a container does not outlive.
fn processes(target: &Target, others: &[Pid]) -> Vec<Pid> {
    target.pid.into_iter().chain(others.iter().copied()).collect()
}

/// Opens the container's root directory, where a process of it is known.
fn root(target: &Target) -> anyhow::Result<Option<Arc<File>>> {
    let Some(pid) = target.pid else { return Ok(None) };
    let path = format!("/proc/{}/root", pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty()).with_context(|| format!("open {path}"))?;
    Ok(Some(Arc::new(File::from(root))))
}

/// Translation comes before sockets: what is translated would never reach a proxy.
fn ensure_untranslated(listeners: &[Listener], owner: &MappingOwner) -> anyhow::Result<()> {
    // Without the privilege to look there is none to translate either.
    let Ok(mut firewall) = Firewall::open() else { return Ok(()) };
    let Ok(mut view) = firewall.view() else { return Ok(()) };
    for listener in listeners {
        let Some((address, protocol)) = listener.port() else { continue };
        let (ip, host) = (address.ip(), Span::one(address.port()));
        if ip.is_ipv6() && ip.is_loopback() {
            continue;
        }
        let host_ip = Some(ip).filter(|ip| !ip.is_unspecified());
        let (owner, condition, held_by) = (owner.clone(), None, None);
        let own = Mapping { host_ip, protocol, host, target: ip, port: 0, condition, owner, held_by };
        if view.read_ports(std::slice::from_ref(&own)).is_err() {
            continue;
        }
        let holder = view.known.mappings.iter().find(|mapping| mapping.overlaps(&own) && !mapping.owner.is_gone());
        if let Some(holder) = holder {
            bail!("publish {} for {}: port is taken by container {}", listener.served(), own.owner.id, holder.owner.id);
        }
    }
    Ok(())
}

/// Gives back what only the start needed.
pub(crate) fn shrink() {
    sys::memory::trim();
    // Without that it is only larger.
    let _larger = sys::memory::forget_code();
}

/// Lets go of the caller's terminal, pipes and directory, so that whoever waits for their end need not wait for ours; stderr
/// is for what returns to take the place of.
fn leave_the_caller() -> anyhow::Result<File> {
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::process::setsid().context("begin a session")?;
    // Somebody may wait for the end of a pipe that all the others have left.
    sys::child::close_inherited(3, &[]).context("close what was inherited")?;
    std::env::set_current_dir("/").context("leave the current directory")?;
    Ok(null)
}
