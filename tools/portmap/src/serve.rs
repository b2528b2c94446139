//! `portmap add` by a proxy: in the foreground, or as a process of its own in the background.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, anyhow, ensure};
use record::{PortMapping, Ports, Record};
use rustix::process::Pid;

use crate::control::Sockets;
use crate::firewall::Firewall;
use crate::options::Add;
use crate::proxy::{self, Listener, Proxy, Watch};
use crate::spec::PortSpec;
use crate::target::Target;

/// Serves ports until the container ends. The record is printed as soon as the ports are held.
pub(crate) fn foreground(
    options: &Add,
    record: &mut Record,
    target: &Target,
    specs: &[PortSpec],
) -> anyhow::Result<ExitCode> {
    // Started as /proc/self/exe, it would be called `exe`. It is only for people who list processes.
    let _name = rustix::thread::set_name(c"portmap");
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
    let processes: Vec<Pid> = target.pid.into_iter().chain(options.while_process.iter().copied()).collect();
    let watch = Watch::new(&processes, netns)?;
    let mut proxy = Proxy::new(listeners, control, watch, &namespace)?;
    add_ports(record, ports.0)?;
    record.print()?;
    if options.background {
        leave_the_caller()?;
    }
    proxy.serve()?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a proxy that goes on when this process has ended. Returns what it serves.
pub(crate) fn background(options: &Add, target: &Target, specs: &[PortSpec]) -> anyhow::Result<Vec<PortMapping>> {
    let netns = target.owner.netns.as_deref().context("the container has no network namespace")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["add", "--background", "--id", &target.owner.id, "--netns"]).arg(netns);
    for process in target.pid.iter().chain(&options.while_process) {
        command.args(["--while", &process.as_raw_nonzero().to_string()]);
    }
    if let Some(root) = options.roots.argument() {
        command.arg("--root").arg(root);
    }
    for spec in specs {
        command.args(["-p", &spec.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = sys::child::in_own_session(&mut command).spawn().context("start a proxy")?;
    let stdout = child.stdout.take().context("start a proxy: no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("read what the proxy serves")?;
    if line.is_empty() {
        // It has said why on stderr.
        let status = child.wait().context("wait for the proxy")?;
        return Err(anyhow!("the proxy ended at once: {status}"));
    }
    let record = Record::parse(line.as_bytes(), "the proxy's record")?;
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
fn leave_the_caller() -> anyhow::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/").context("leave the current directory")
}
