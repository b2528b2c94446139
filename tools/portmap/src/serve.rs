//! `portmap add` by a proxy: in the foreground, or as a process of its own in the background.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, anyhow, ensure};
use record::{PortMapping, Ports, Record};
use rustix::process::Pid;

use crate::control::Sockets;
use crate::firewall::Firewall;
use crate::options::Add;
use crate::proxy::{self, Listener, Proxy};
use crate::spec::PortSpec;
use crate::target::Target;
use crate::watch::Watch;

/// Serves ports until the container ends. The record is printed as soon as the ports are held.
pub(crate) fn foreground(
    options: &Add,
    record: &mut Record,
    target: &Target,
    specs: &[PortSpec],
) -> anyhow::Result<ExitCode> {
    call_itself_portmap();
    let netns = target.owner.netns.as_deref().context("the container has no network namespace")?;
    let namespace = File::open(netns).with_context(|| format!("open network namespace {}", netns.display()))?;
    let sockets = Sockets::below(&options.roots.run());
    let (listeners, ports) = proxy::listen(specs, &sockets)?;
    let id = &target.owner.id;
    for listener in &listeners {
        ensure_untranslated(listener).with_context(|| format!("publish {} for {id}", listener.address))?;
    }
    let ports = Ports(ports);
    let control = sockets.make(&proxy::record(id, &ports))?;
    let watch = Watch::new(&processes(options, target), Some(netns))?;
    let mut proxy = Proxy::new(listeners, control, watch, &namespace)?.greeting(options.proxy_protocol);
    add_ports(record, ports.0)?;
    record.print()?;
    if options.background {
        leave_the_caller()?;
    }
    proxy.serve()?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the processes that what serves a container does not outlive.
pub(crate) fn processes(options: &Add, target: &Target) -> Vec<Pid> {
    target.pid.into_iter().chain(options.while_process.iter().copied()).collect()
}

/// Started as /proc/self/exe, it would be called `exe`.
pub(crate) fn call_itself_portmap() {
    // It is only for people who list processes.
    let _name = rustix::thread::set_name(c"portmap");
}

/// Starts a proxy that goes on when this process has ended. Returns what it serves.
pub(crate) fn background(options: &Add, target: &Target, specs: &[PortSpec]) -> anyhow::Result<Vec<PortMapping>> {
    let netns = target.owner.netns.as_deref().context("the container has no network namespace")?;
    let mut command = itself(options, target);
    if let Some(version) = options.proxy_protocol {
        command.args(["--proxy-protocol", version.name()]);
    }
    command.args(["--proxy", "--id", &target.owner.id, "--netns"]).arg(netns);
    command.args(specs.iter().flat_map(|spec| ["-p".to_owned(), spec.to_string()]));
    start(command.stdin(Stdio::null()), |_| Ok(()))
}

/// Returns the command that goes on when this process has ended.
pub(crate) fn itself(options: &Add, target: &Target) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["add", "--background"]);
    for process in processes(options, target) {
        command.args(["--while", &process.as_raw_nonzero().to_string()]);
    }
    if let Some(root) = options.roots.argument() {
        command.arg("--root").arg(root);
    }
    command
}

/// Starts such a command and waits until it says in a record what it serves.
pub(crate) fn start(
    command: &mut Command,
    hand_over: impl FnOnce(&mut Child) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<PortMapping>> {
    command.stdout(Stdio::piped());
    let mut child = sys::child::in_own_session(command).spawn().context("start a server")?;
    hand_over(&mut child).context("start a server")?;
    let stdout = child.stdout.take().context("start a server: no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("read what the server serves")?;
    if line.is_empty() {
        // It has said why on stderr.
        let status = child.wait().context("wait for the server")?;
        return Err(anyhow!("the server ended at once: {status}"));
    }
    let record = Record::parse(line.as_bytes(), "the server's record")?;
    Ok(record.part::<Ports>()?.0)
}

/// Adds ports to what the record has already.
pub(crate) fn add_ports(record: &mut Record, added: Vec<PortMapping>) -> anyhow::Result<()> {
    let mut ports = record.find::<Ports>()?.unwrap_or_default().0;
    for port in added {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    record.set(&Ports(ports));
    Ok(())
}

/// Translation comes before sockets: what is translated would never reach a proxy.
fn ensure_untranslated(listener: &Listener) -> anyhow::Result<()> {
    // Without the privilege to look there is none to translate either.
    let Ok(published) = Firewall::open().and_then(|mut firewall| firewall.published()) else { return Ok(()) };
    let ip = listener.address.ip();
    let never_translated = ip.is_ipv6() && ip.is_loopback();
    let takes = |host_ip: Option<IpAddr>| host_ip.is_none_or(|host_ip| ip.is_unspecified() || ip == host_ip);
    let holder = published.mappings.iter().find(|mapping| {
        mapping.protocol == listener.protocol
            && mapping.target.is_ipv4() == ip.is_ipv4()
            && mapping.host.first <= listener.address.port()
            && listener.address.port() <= mapping.host.last
            && takes(mapping.host_ip)
    });
    let Some(holder) = holder.filter(|_| !never_translated) else { return Ok(()) };
    ensure!(holder.owner.is_gone(), "port is taken by container {}", holder.owner.id);
    Ok(())
}

/// Lets go of the caller's terminal, pipes and directory, so that whoever waits for their end need not wait for ours.
pub(crate) fn leave_the_caller() -> anyhow::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/").context("leave the current directory")
}
