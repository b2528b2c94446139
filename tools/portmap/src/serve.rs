//! `portmap add` by a proxy: in the foreground, or as a process of its own in the background.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use record::Record;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::control::Sockets;
use crate::firewall::Firewall;
use crate::mapping::Published;
use crate::options::{self, Add};
use crate::proxy::{self, Listener, Proxy, Surroundings};
use crate::spec::{Served, Wish};
use crate::target::Target;
use crate::watch::Watch;

/// Serves ports until the container ends. The record is printed as soon as the ports are held.
pub(crate) fn foreground(
    options: &Add,
    record: &mut Record,
    target: &Target,
    wishes: &[Wish],
) -> anyhow::Result<ExitCode> {
    call_itself_portmap();
    let netns = target.owner.netns.as_deref().context("the container has no network namespace")?;
    let namespace = File::open(netns).with_context(|| format!("open network namespace {}", netns.display()))?;
    let sockets = Sockets::below(&options.roots.directories());
    let listeners = proxy::listen(wishes, &Surroundings { sockets: &sockets, root: root(target)? })?;
    let id = &target.owner.id;
    // Without the privilege to look there is none to translate either.
    let published = Firewall::open().and_then(|mut firewall| firewall.published()).unwrap_or_default();
    for listener in &listeners {
        ensure_untranslated(listener, &published).with_context(|| format!("publish {} for {id}", listener.served()))?;
    }
    let mut served: Vec<Served> = listeners.iter().map(|listener| listener.served().clone()).collect();
    // A port of both families has two listeners.
    served.dedup();
    let control = sockets.make(&proxy::record(target, &served)?)?;
    let watch = Watch::new(&processes(options, target), Some(netns))?;
    proxy::move_into(&namespace)?;
    let mut proxy = Proxy::new(listeners, control, watch, options.proxy_protocol)?;
    Served::add_to(record, &served)?;
    record.print()?;
    // As text it is read by machines; as values, a thousand ports are more than all else together.
    *record = Record::default();
    drop((served, published));
    if options.background {
        leave_the_caller()?;
    }
    proxy.confine()?;
    shrink();
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
pub(crate) fn background(options: &Add, target: &Target, wishes: &[Wish]) -> anyhow::Result<Vec<Served>> {
    let netns = target.owner.netns.as_deref().context("the container has no network namespace")?;
    let mut command = itself(options, target);
    if let Some(version) = options.proxy_protocol {
        command.args(["--proxy-protocol", &options::name(&version)]);
    }
    command.args(["--proxy", "--id", &target.owner.id, "--netns"]).arg(netns);
    command.args(target.owner.owner.iter().flat_map(|owner| ["--owner".to_owned(), owner.to_string()]));
    if let Some(pid) = target.pid {
        command.args(["--pid", &pid.as_raw_nonzero().to_string()]);
    }
    command.args(wishes.iter().flat_map(|wish| ["-p".to_owned(), wish.to_string()]));
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
) -> anyhow::Result<Vec<Served>> {
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
    Served::of_record(&record)
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
fn ensure_untranslated(listener: &Listener, published: &Published) -> anyhow::Result<()> {
    let Some((address, protocol)) = listener.port() else { return Ok(()) };
    let ip = address.ip();
    let never_translated = ip.is_ipv6() && ip.is_loopback();
    let takes = |host_ip: Option<IpAddr>| host_ip.is_none_or(|host_ip| ip.is_unspecified() || ip == host_ip);
    let holder = published.mappings.iter().find(|mapping| {
        mapping.protocol == protocol
            && mapping.target.is_ipv4() == ip.is_ipv4()
            && mapping.host.first <= address.port()
            && address.port() <= mapping.host.last
            && takes(mapping.host_ip)
    });
    let Some(holder) = holder.filter(|_| !never_translated) else { return Ok(()) };
    ensure!(holder.owner.is_gone(), "port is taken by container {}", holder.owner.id);
    Ok(())
}

/// Gives back what only the start needed.
pub(crate) fn shrink() {
    sys::memory::trim();
    // Without that it is only larger.
    let _larger = sys::memory::forget_code();
}

/// Lets go of the caller's terminal, pipes and directory, so that whoever waits for their end need not wait for ours.
pub(crate) fn leave_the_caller() -> anyhow::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Somebody may wait for the end of a pipe that all the others have left.
    sys::child::close_inherited(3, &[]).context("close what was inherited")?;
    std::env::set_current_dir("/").context("leave the current directory")
}
