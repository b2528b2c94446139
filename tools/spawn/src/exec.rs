//! `exec`: another process in a container that exists.
//!
//! The container's own processes may be hostile and watch this one as soon as it is in their pid namespace. So it is
//! undumpable from its first line, takes what it needs of the host's /proc before it joins, and opens nothing in the
//! container by a name that could lead out.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cgroup::{Cgroups, systemd};
use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;
use seccomp::Filter;
use sys::clone::{Cloned, How, clone};
use sys::namespace::Kind as NamespaceKind;

use crate::child;
use crate::config::{Config, Process};
use crate::create::{self, write_pid_file};
use crate::identity::{self, ProcessContext};
use crate::request::Exec;
use crate::state::{Container, Status};
use crate::sync::{self, Message};
use crate::{capability, file, filter, guard, intermediate, priority, stdio, tty, userns};

/// The process that runs.
pub(crate) struct Running {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

struct Child<'a> {
    process: &'a Process,
    options: &'a Exec,
    /// The container's configuration, as it was when the container was made: which namespaces there are.
    config: &'a Config,
    container: &'a Container,
    /// The container's first process.
    init: OwnedFd,
    /// What it still has to join.
    ///
    /// The pid namespace is left out as soon as the process has been born in it.
    namespaces: ThreadNameSpaceType,
    /// Whether a user namespace is among those that it joins.
    becomes_root: bool,
    cgroups: Cgroups,
    socket: OwnedFd,
    console: Option<OwnedFd>,
    filter: Option<Filter>,
}

/// Executes a process; returns as soon as its program runs.
pub(crate) fn exec(container: &Container, process: &Process, options: &Exec) -> anyhow::Result<Running> {
    match container.status()? {
        Status::Stopped | Status::Creating => bail!("cannot exec in a stopped container"),
        Status::Paused if !options.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let config = container.config()?;
    // Before anything is opened or made: it may execute this program anew, from its first line.
    guard::seal_if_watched(&config, true, None)?;
    process.check()?;
    process.capabilities.iter().for_each(capability::warn_of_unknown);
    tty::check_console(process.terminal, options.detach, options.console_socket.is_some())?;
    // Everything below is asked of this pidfd. If the first process ends meanwhile, joining fails with ESRCH; a
    // number could lead into a stranger's namespaces.
    let (init, init_fd) = container.open_process()?.context("cannot exec in a container that has stopped")?;
    let cgroups = below(container.cgroups(), &options.cgroup)?;
    let (ours, theirs) = sync::pair().context("make a socket pair")?;
    sync::be_patient(ours.as_fd())?;
    let namespaces = namespaces(&config, init);
    let mut child = Child {
        process,
        options,
        container,
        namespaces,
        becomes_root: namespaces.contains(ThreadNameSpaceType::USER),
        config: &config,
        init: init_fd,
        cgroups,
        socket: theirs,
        console: options.console_socket.as_deref().map(tty::connect).transpose()?,
        filter: filter::of(&config.linux)?,
    };
    let affinity = process.exec_cpu_affinity.as_ref();
    // Before the clone, whose child inherits it: "initial" is for the time until it is in the container's cgroups,
    // "final" for afterwards (runtime-spec, config.md, "execCPUAffinity").
    set_affinity(affinity.map(|affinity| affinity.initial.as_str()))?;
    let (pid, pidfd) = start(&mut child)?;
    if let Some(unit) = child.scope() {
        let attached = systemd::attach(unit, pid).and_then(|()| create::answer(ours.as_fd()));
        attached.inspect_err(|_| create::end(pid, &pidfd))?;
    }
    // With it goes our copy of the child's end of the socket; without that, its end would never be heard.
    drop(child);
    let known = options.pid_file.as_deref().map_or(Ok(()), |file| write_pid_file(file, pid));
    let state = container.report(Status::Running);
    let heard = known.and_then(|()| hear(ours.as_fd(), &config, &state, (pid, &pidfd)));
    let console = heard.inspect_err(|_| create::end(pid, &pidfd))?;
    Ok(Running { pid, pidfd, console })
}

/// Clones the process where the container's cgroups take it.
fn start(child: &mut Child<'_>) -> anyhow::Result<(Pid, OwnedFd)> {
    let unified = child.cgroups.open_unified(child.is_lenient())?;
    let own = file::open("/proc/self/ns/pid", OFlags::RDONLY)?;
    let refused = |error: &anyhow::Error| {
        // EBUSY: it distributes controllers to children ("no internal process" rule, cgroups(7)). EOPNOTSUPP: it is
        // "domain invalid", beside threaded ones.
        matches!(error.downcast_ref().and_then(std::io::Error::raw_os_error), Some(libc::EBUSY | libc::EOPNOTSUPP))
    };
    let mut cloned = clone_into(child, unified.as_ref(), &own);
    // A cgroup that forbids processes has controllers or threads below it: its first process has gone there (systemd,
    // dind), and so does this one, unless it was told where to go.
    if cloned.as_ref().is_err_and(refused) && child.options.cgroup.is_empty() {
        let inits = Cgroups::unified_of(child.container.state.init_process_pid);
        let inits = inits.and_then(|place| file::open(place, OFlags::RDONLY | OFlags::DIRECTORY).ok());
        cloned = inits.map_or(cloned, |inits| clone_into(child, Some(&inits), &own));
    }
    // By v1 it is confined all the same.
    let outside = child.is_lenient() || !child.container.cgroups().is_unified();
    if cloned.is_err() && unified.is_some() && outside {
        cloned = clone_into(child, None, &own);
    }
    match cloned? {
        Cloned::Child => child.run(),
        Cloned::Parent { pid, pidfd } => {
            log::debug!("cloned process {pid} for {:?}", child.process.args);
            Ok((pid, pidfd))
        }
    }
}

/// Clones the process inside the container's pid namespace: the parent turns to it and back. Who may not, as he has no
/// right outside of the user namespace that owns it, leaves that to an intermediate process.
fn clone_into(child: &mut Child<'_>, cgroup: Option<&OwnedFd>, own: &OwnedFd) -> anyhow::Result<Cloned> {
    let how = How { cgroup: cgroup.map(AsFd::as_fd), ..How::default() };
    let before = child.namespaces;
    let pids = child.namespaces.intersection(ThreadNameSpaceType::PROCESS_ID);
    // Children are born there; the process itself must not join it again, which would only turn its own children.
    child.namespaces.remove(pids);
    let entered = if pids.is_empty() { Ok(()) } else { sys::namespace::enter_process(child.init.as_fd(), pids) };
    let cloned = match entered {
        Err(error) if child.becomes_root && error.raw_os_error() == Some(libc::EPERM) => {
            let both = pids | ThreadNameSpaceType::USER;
            child.namespaces.remove(both);
            let join = || sys::namespace::enter_process(child.init.as_fd(), both).context("join the user namespace");
            intermediate::clone(how, join)
        }
        entered => {
            entered.context("join the pid namespace")?;
            let cloned = clone(how);
            let stays = pids.is_empty() || matches!(cloned, Ok(Cloned::Child));
            let back = if stays { Ok(()) } else { sys::namespace::enter(own.as_fd(), NamespaceKind::Pid) };
            if let (Err(_), Ok(Cloned::Parent { pid, pidfd })) = (&back, &cloned) {
                // Another one may be tried, and the program is to run once.
                create::end(*pid, pidfd);
            }
            back.context("return to our own pid namespace").and_then(|()| cloned.context("clone the process"))
        }
    };
    if cloned.is_err() {
        child.namespaces = before;
    }
    cloned
}

/// Does what the process asks for until its program runs; returns its terminal, if that is for the caller.
pub(crate) fn hear(
    socket: BorrowedFd<'_>,
    config: &Config,
    state: &record::State,
    (pid, pidfd): (Pid, &OwnedFd),
) -> anyhow::Result<Option<OwnedFd>> {
    let mut console = None;
    loop {
        match sync::hear(socket, (pid, pidfd))? {
            Message::End | Message::Ready => return Ok(console),
            Message::Console(master) => console = Some(master),
            Message::Listener(number) => {
                filter::pass_listener(config, state, (pid, pidfd), number)?;
                create::answer(socket)?;
            }
            Message::Failed(code, error) => return Err(cli::ExitError::new(code, error).into()),
            other => bail!("unexpected word from the process: {other:?}"),
        }
    }
}

impl Child<'_> {
    fn run(&self) -> ! {
        let Err(error) = self.become_program();
        child::report(self.socket.as_fd(), error);
        sys::clone::exit_now(127)
    }

    fn become_program(&self) -> anyhow::Result<Infallible> {
        // The first call, even before the socket is read: by the clone the process is visible in the container's pid
        // namespace.
        child::become_undumpable()?;
        child::begin_afresh(child::UMASK)?;
        if self.scope().is_some() {
            child::wait_for_parent(self.socket.as_fd())?;
        }
        let process = self.process;
        self.cgroups.join(self.is_lenient())?;
        if process.exec_cpu_affinity.is_none() {
            child::reset_affinity();
        }
        // The host's, before the container's mount namespace is joined (CVE-2025-52881).
        let proc = identity::proc_for_label(process)?;
        rustix::process::setsid().context("setsid")?;
        // In the host's /proc, and with the host's rights: the container's root may not lower it.
        child::adjust_oom_score("self", process, self.container.state.rootless)?;
        priority::raise_limits(process, None)?;
        // A mount namespace brings its root along.
        let root = PathBuf::from("/proc").join(self.container.state.init_process_pid.to_string()).join("root");
        let host_mounts = !self.config.linux.has(NamespaceKind::Mount);
        // By the host's /proc, where the number is the host's, and entered by chroot(2): there is no mount namespace
        // to join.
        let root = host_mounts.then(|| file::open(root, OFlags::PATH | OFlags::DIRECTORY)).transpose()?;
        if !self.namespaces.is_empty() {
            // All of them in one call: setns(2) with a pidfd joins every one or none, and in the right order by
            // itself.
            sys::namespace::enter_process(self.init.as_fd(), self.namespaces).context("join the namespaces")?;
        }
        if let Some(root) = root {
            rustix::process::fchdir(root).and_then(|()| rustix::process::chroot(".")).context("enter the root")?;
        }
        if self.becomes_root {
            child::become_root(self.container.state.rootless)?;
        }
        set_affinity(process.exec_cpu_affinity.as_ref().map(|affinity| affinity.last.as_str()))?;
        if process.terminal {
            let (root, size) = (file::open("/", OFlags::PATH)?, process.console_size);
            tty::become_own(root.as_fd(), size, self.console.as_ref(), self.socket.as_fd())?;
        }
        stdio::give(process.user.uid);
        // Here the container's /dev may be anything by now; what is not the null device is not used
        // (`stdio::open_null`).
        stdio::leave_host_null(None)?;
        let (program, chdir) = child::find_program(process)?;
        let keyring = child::keyring(&self.container.state.id, self.container.state.no_new_keyring)?;
        let surroundings = ProcessContext {
            report: self.socket.as_fd(),
            start: None,
            proc: proc.as_ref().map(AsFd::as_fd),
            filter: self.filter.as_ref(),
            preserved_fds: self.options.preserve_fds,
            foreground: !self.options.detach,
            keyring: keyring.as_deref(),
            lenient_groups: self.becomes_root,
            chdir,
        };
        child::launch(process, self.config, &program, &surroundings)
    }

    /// Returns the scope that systemd has to put the process into, as a user may not.
    fn scope(&self) -> Option<&str> {
        self.container.state.systemd_scope.as_deref().filter(|_| self.container.state.rootless)
    }

    /// Whether to do without cgroups that are closed to the caller.
    fn is_lenient(&self) -> bool {
        self.container.state.rootless || self.config.linux.has(NamespaceKind::User)
    }
}

/// Lets this process run on these processors only, if any are named.
fn set_affinity(cpus: Option<&str>) -> anyhow::Result<()> {
    let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) else { return Ok(()) };
    rustix::thread::sched_setaffinity(None, &priority::cpus(cpus)?).with_context(|| format!("run on CPUs {cpus}"))
}

/// All namespaces of the container's that are not the caller's own anyway.
fn namespaces(config: &Config, init: Pid) -> ThreadNameSpaceType {
    let mut joined = ThreadNameSpaceType::empty();
    for namespace in &config.linux.namespaces {
        let kind = namespace.kind;
        // setns(2): EINVAL for the user namespace that the caller is in. It would give all capabilities back.
        if kind == NamespaceKind::User && userns::is_own(init, kind) {
            continue;
        }
        joined |= kind.flag();
    }
    // That of an ordinary user who had made one before the container, with unshare(1), say.
    if !rustix::process::geteuid().is_root() && !userns::is_own(init, NamespaceKind::User) {
        joined |= NamespaceKind::User.flag();
    }
    joined
}

/// Finds the cgroups below the container's that were asked for.
///
/// On v1 each controller has its path. On v2 there is one; the hybrid form has no controllers there, so the paths of
/// v1 count.
fn below(mut cgroups: Cgroups, wanted: &[String]) -> anyhow::Result<Cgroups> {
    for word in wanted {
        let (controllers, path) = word.split_once(':').unwrap_or(("", word));
        let leaves = Path::new(path).components().any(|part| part == std::path::Component::ParentDir);
        ensure!(!leaves, "bad sub cgroup path: {path}");
        let path = root::clean(path);
        for controller in controllers.split(',') {
            let all = controller.is_empty();
            let mut found = all && cgroups.is_unified();
            for (name, directory) in &mut cgroups.v1 {
                if all || name.split(',').any(|one| one == controller) {
                    *directory = directory.join(&path);
                    found = true;
                }
            }
            if all && cgroups.v1.is_empty() {
                cgroups.unified = cgroups.unified.map(|directory| directory.join(&path));
            }
            ensure!(found, "unknown controller {controller} in --cgroup");
        }
    }
    Ok(cgroups)
}
