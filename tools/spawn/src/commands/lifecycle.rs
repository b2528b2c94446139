//! `create`, `start`, `run`, `state`, `kill` and `delete`: the operations of the runtime-spec (runtime.md).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use container::{Owner, RuntimeId, state_in};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;

use super::{is_rootless, print, state_root};
use crate::child::ChildOptions;
use crate::config::{Config, NamespaceKind};
use crate::create::{self, CreatedContainer, Order};
use crate::request::{Checkpoint, Create, Global, Life, Restore};
use crate::state::{Container, Status};
use crate::{checkpoint, exec, foreground, hooks, tty};

pub(crate) fn create(global: &Global, options: &Create) -> anyhow::Result<()> {
    let order = order(global, options)?;
    let made = create::create(&Order { wait: true, ..order })?;
    send_pidfd(options.common.pidfd_socket.as_deref(), &made.pidfd)
}

/// The working directory becomes the bundle's on the way.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Begins an order from what the commands share.
pub(super) fn order(global: &Global, options: &Create) -> anyhow::Result<Order> {
    let (mut common, listen_fds) = (options.common.clone(), sys::child::listen_fds());
    common.preserve_fds = check_preserved(common.preserve_fds.saturating_add(listen_fds))?;
    for path in common.console_socket.iter_mut().chain(&mut common.pid_file) {
        *path = absolute(path);
    }
    Ok(Order {
        listen_fds,
        root: state_root(global),
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        wait: false,
        keep: false,
        systemd_cgroup: global.systemd_cgroup,
        record: None,
        child: ChildOptions { common, rootless: is_rootless(global), ..ChildOptions::default() },
    })
}

/// Refuses to pass on descriptors that the caller has not: they would be our own, or whatever is opened next.
pub(super) fn check_preserved(count: u32) -> anyhow::Result<u32> {
    // The range begins behind the standard three, as `LISTEN_FDS` does (sd_listen_fds(3)).
    let missing = (3..=count.saturating_add(2)).find(|number| !sys::child::is_inherited(*number));
    ensure!(missing.is_none(), "--preserve-fds {count}: descriptor {} is not open", missing.unwrap_or_default());
    Ok(count)
}

pub(crate) fn run(global: &Global, create: &Create, life: &Life) -> anyhow::Result<ExitCode> {
    live(global, create, life, create::create)
}

pub(crate) fn restore(global: &Global, options: &Restore) -> anyhow::Result<ExitCode> {
    let criu = criu(global);
    live(global, &options.create, &options.life, |order| checkpoint::restore(order, options, &criu))
}

/// Makes a container, and unless it is left alone, waits for its end.
fn live(
    global: &Global,
    options: &Create,
    life: &Life,
    create: impl FnOnce(&Order) -> anyhow::Result<CreatedContainer>,
) -> anyhow::Result<ExitCode> {
    let (mut order, pidfd_socket) = (order(global, options)?, options.common.pidfd_socket.as_deref());
    order.child.foreground = !life.detach;
    order.keep = life.keep;
    if life.detach {
        let made = create(&order)?;
        send_pidfd(pidfd_socket, &made.pidfd)?;
        poststart(&made)?;
        made.notify.map_or(Ok(()), |notify| notify.wait(made.pid, made.pidfd.as_fd()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !life.no_subreaper {
        become_subreaper();
    }
    let signals = foreground::block_signals()?;
    let mut made = create(&order)?;
    send_pidfd(pidfd_socket, &made.pidfd)?;
    poststart(&made)?;
    let code = foreground::wait((made.pid, &made.pidfd), &signals, made.console.take(), made.notify.as_ref())?;
    if !life.keep {
        finish(&made.container, Some(&made.config))?;
    }
    // The end of this process closes what it has: the kernel is faster at it than destructors that run one by one.
    std::mem::forget((made, signals));
    Ok(ExitCode::from(code))
}

/// What remains of a container that was written to images is removed, unless it goes on.
pub(crate) fn checkpoint(global: &Global, options: &Checkpoint) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), &options.id)?;
    let process = container.open_process()?;
    checkpoint::checkpoint(&container, options, &criu(global))?;
    if options.leave_running || options.pre_dump {
        return Ok(());
    }
    if let Some((_, pidfd)) = process {
        ensure!(sys::child::ends_within(&pidfd, Some(Duration::from_secs(10)))?, "container init still running");
    }
    finish(&container, container.config().ok().as_ref())
}

/// The program that writes and reads images.
fn criu(global: &Global) -> PathBuf {
    global.criu.clone().unwrap_or_else(|| "criu".into())
}

/// `--pidfd-socket`: whoever asked for it gets a descriptor of the process.
pub(super) fn send_pidfd(socket: Option<&Path>, pidfd: &OwnedFd) -> anyhow::Result<()> {
    let Some(socket) = socket else { return Ok(()) };
    let connection = tty::connect(socket)?;
    sys::packet::send(&connection, &[b"pidfd"], Some(pidfd.as_fd())).context("send the pidfd")
}

/// Orphans of a container without a pid namespace come to us and not to init.
pub(super) fn become_subreaper() {
    // Any number means yes. A kernel that refuses leaves them to init, as peers do.
    let _refused = rustix::process::set_child_subreaper(Some(rustix::process::Pid::INIT));
}

/// Runs the poststart hooks. If one fails the container is removed: runtime-spec 1.3, runtime.md, "Lifecycle", 9.
pub(super) fn poststart(made: &CreatedContainer) -> anyhow::Result<()> {
    run_poststart(&made.container, &made.config).inspect_err(|_| {
        cli::warn(foreground::reap(made.pid).and_then(|_| finish(&made.container, Some(&made.config))));
    })
}

fn run_poststart(container: &Container, config: &Config) -> anyhow::Result<()> {
    let hooks = &config.hooks.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    hooks::run("poststart", None, hooks, &container.report(Status::Running))
        .inspect_err(|_| cli::warn(kill_all(container)))
}

/// Kills the container with all that it has started.
fn kill_all(container: &Container) -> anyhow::Result<()> {
    if let Some(pid) = container.process() {
        sys::signal::send_to(pid, libc::SIGKILL).context("kill the container")?;
    }
    container.cgroups().signal(libc::SIGKILL)
}

/// Removes a container that has ended, with all that it had.
pub(super) fn finish(container: &Container, config: Option<&Config>) -> anyhow::Result<()> {
    // In this order: the cgroups and mounts first, while the state still says where they are, then the state, and the
    // hooks last: what they call finds no container any more (runtime-spec, runtime.md, "Lifecycle", 12 and 13).
    container.release()?;
    let hooks = config.map(|config| config.hooks.poststop.as_slice()).unwrap_or_default();
    let report = container.report(Status::Stopped);
    container.remove()?;
    hooks::run_poststop(hooks, &report);
    Ok(())
}

pub(crate) fn start(global: &Global, id: &RuntimeId) -> anyhow::Result<()> {
    let container = Container::open_locked(&state_root(global), id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        status => bail!("cannot start an already running container: it is {}", status.name()),
    }
    let config = container.config()?;
    let (pid, pidfd) = container.open_process()?.context("cannot start a container that has stopped")?;
    let connect = || -> io::Result<_> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &container.socket_address("start")?)?;
        // The connection is there: the name goes, so that a second `start` finds none, and is told so, instead of
        // waiting at a queue that nobody empties.
        fs::remove_file(container.directory.join("start"))?;
        Ok(socket)
    };
    let socket = connect().with_context(|| format!("connect to {}/start", container.directory.display()))?;
    let heard = exec::hear(socket.as_fd(), &config, &container.report(Status::Created), (pid, &pidfd));
    // A program that cannot be executed leaves a stopped container to be looked at and deleted. Where it may have
    // been a hook that failed, the container goes.
    let hooked = heard.is_ok() || !config.hooks.start_container.is_empty();
    let started = heard.and_then(|_| run_poststart(&container, &config));
    if started.is_err() && hooked {
        // A hook that fails ends the container as `delete` does: runtime-spec, runtime.md, "Lifecycle", 7 to 13.
        cli::warn(end(&container).and_then(|()| finish(&container, Some(&config))));
    }
    started
}

pub(crate) fn state(global: &Global, id: &RuntimeId) -> anyhow::Result<()> {
    let container = Container::open(&state_root(global), id)?;
    let mut value = serde_json::to_value(container.report(container.status()?))?;
    value["rootfs"] = serde_json::to_value(&container.state.rootfs)?;
    value["created"] = container.state.created.clone().into();
    value["owner"] = "".into();
    print(&(serde_json::to_string_pretty(&value)? + "\n"))
}

pub(crate) fn kill(global: &Global, id: &RuntimeId, signal: &str, all: bool) -> anyhow::Result<()> {
    let signal = crate::signal::parse(signal)?;
    let container = Container::open(&state_root(global), id)?;
    // The end of the first process of a pid namespace ends the others (pid_namespaces(7)); without a namespace of its
    // own nothing does but their cgroup.
    let shared_pids = !container.config().is_ok_and(|config| config.linux.makes(NamespaceKind::Pid));
    let Some((pid, pidfd)) = container.open_process()? else {
        // Without a pid namespace of its own the rest lives on after the first process.
        if (all || shared_pids) && !container.cgroups().processes()?.is_empty() {
            return container.cgroups().signal(signal);
        }
        ensure!(all, "container not running");
        return Ok(());
    };
    if all || shared_pids && signal == libc::SIGKILL {
        return container.cgroups().signal(signal);
    }
    sys::signal::send(pidfd.as_fd(), signal).with_context(|| format!("signal process {}", pid.as_raw_pid()))?;
    // A frozen process of a v1 hierarchy dies only once it is thawed; v2 kills frozen ones by itself.
    if signal == libc::SIGKILL { container.cgroups().thaw_for_death() } else { Ok(()) }
}

pub(crate) fn delete(global: &Global, id: &RuntimeId, force: bool, owner: Option<Owner>) -> anyhow::Result<()> {
    let root = state_root(global);
    let is_others = |container: &Container| owner.is_some_and(|owner| !container.is_of(owner));
    if force {
        match Container::open(&root, id) {
            Ok(container) if is_others(&container) => return Ok(()),
            // A startContainer hook that hangs keeps the lock, and ends with the container's process.
            Ok(container) => end(&container)?,
            Err(_) if is_gone(&root, id) => return Ok(()),
            // What cannot be read now is not damaged.
            Err(error) if error.downcast_ref().is_some_and(sys::file::says_nothing) => return Err(error),
            Err(error) => {
                log::warn!("{error:#}");
                Container::repair(&root, id)?;
            }
        }
    }
    let container = match Container::open_locked(&root, id) {
        // `start` may clear up what it could not start.
        Err(_) if force && is_gone(&root, id) => return Ok(()),
        other => other?,
    };
    if is_others(&container) {
        return Ok(());
    }
    let status = container.status()?;
    if force || status == Status::Created {
        end(&container)?;
    }
    let running = container.process().is_some();
    ensure!(!running, "cannot delete container {id} that is not stopped: {}", status.name());
    // One that was never finished may have none.
    finish(&container, container.config().ok().as_ref())
}

/// Tells whether there is certainly nothing of this name.
pub(super) fn is_gone(root: &Path, id: &RuntimeId) -> bool {
    state_in(root, id).symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Kills the container's process and waits for its end.
fn end(container: &Container) -> anyhow::Result<()> {
    let Some((_, pidfd)) = container.open_process()? else { return Ok(()) };
    // It may end by itself at this moment.
    let _gone = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    container.cgroups().thaw_for_death()?;
    ensure!(sys::child::ends_within(&pidfd, Some(Duration::from_secs(10)))?, "container init still running");
    Ok(())
}
