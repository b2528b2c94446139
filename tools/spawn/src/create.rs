//! Making a container: directory, cgroups, the process, and what the parent does for it meanwhile.
//!
//! The parent and the child work side by side. What the child may not do until the parent is ready, it waits for on
//! their socket (`sync`): first for `release`, which says that ids are mapped, cgroups exist and limits are set, then
//! for an answer to each of its messages. The names of what is made are on disk before it exists (the directory,
//! then the cgroups), so that a `kill -9` at any line leaves only what the next `create` of this id or
//! `delete --force` finds.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use cgroup::Cgroups;
use cgroup::systemd::{self, Placeholder, Scope};
use container::{RuntimeId, birth};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use sys::clone::{Cloned, How, clone};
use sys::namespace::Kind as NamespaceKind;

use crate::child::{self, Child, ChildOptions};
use crate::config::{Config, Hooks, Linux, Process as Description};
use crate::notify::Notify;
use crate::state::{Container, Status};
use crate::sync::{self, Message};
use crate::{capability, file, filter, guard, hooks, intermediate, net_device, priority, rootfs, tty, userns};

/// What is to be made.
pub(crate) struct Order {
    pub root: PathBuf,
    pub id: RuntimeId,
    pub bundle: PathBuf,
    /// Wait for `start`; otherwise the program runs at once.
    pub wait: bool,
    /// How many of the preserved descriptors are sockets to listen on: `sd_listen_fds(3)`.
    pub listen_fds: u32,
    /// Leave it when it has ended.
    pub keep: bool,
    /// Have systemd make the cgroup.
    pub systemd_cgroup: bool,
    /// The record, where it was read from standard input.
    pub record: Option<String>,
    pub child: ChildOptions,
}

/// A container just made.
pub(crate) struct CreatedContainer {
    pub container: Container,
    pub config: Config,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Where the program says that it is ready.
    pub notify: Option<Notify>,
    /// The terminal's master, where it was not sent to a console socket.
    pub console: Option<OwnedFd>,
}

/// Makes a container. If that fails nothing is left of it.
pub(crate) fn create(order: &Order) -> Result<CreatedContainer> {
    let bundle = std::path::absolute(&order.bundle)?;
    let (mut config, text) = Config::read(&bundle, &order.root)?;
    if order.wait && config.process.is_none() {
        // Only `start` needs one: runtime-spec, config.md, "Process".
        config.process = Some(Description { cwd: "/".to_owned(), ..Description::default() });
    }
    if let Some(process) = config.process.as_mut().filter(|_| order.listen_fds > 0) {
        process.env.extend([format!("LISTEN_FDS={}", order.listen_fds), "LISTEN_PID=1".to_owned()]);
    }
    // The copy is made here, before anything exists that a second start would find.
    guard::seal_if_watched(&config, false, order.record.as_deref())?;
    let process = config.process()?;
    let detached = order.wait || !order.child.foreground;
    tty::check_console(process.terminal, detached, order.child.common.console_socket.is_some())?;
    process.capabilities.iter().for_each(capability::warn_of_unknown);
    // The lock of this directory is held until `unlock` below. `state` shows "creating" as long as it is held and no
    // process is noted, so that a host that polls does not take a half-made container for a stopped one.
    let mut container = Container::create(&order.root, &order.id)?;
    let notify = if order.wait { Ok(None) } else { Notify::prepare(&container, &mut config) };
    let notify = notify.inspect_err(|_| clean_up(&container, &config.hooks))?;
    let made = make(order, &config, &text, &bundle, &mut container);
    let (pid, pidfd, console) = made.inspect_err(|_| clean_up(&container, &config.hooks))?;
    container.unlock();
    Ok(CreatedContainer { container, config, pid, pidfd, notify, console })
}

/// Undoes what was made; the first error is the one that the user hears. What hooks have done before, the poststop hooks
/// undo: runtime-spec, runtime.md, "Lifecycle", 3 to 13.
pub(crate) fn clean_up(container: &Container, hooks: &Hooks) {
    [container.release(), container.remove()].into_iter().for_each(cli::warn);
    hooks::run_poststop(&hooks.poststop, &container.report(Status::Stopped));
}

/// The child: its pid as this process numbers it, its pidfd, and the terminal's master where the caller keeps that.
type Process = (Pid, OwnedFd, Option<OwnedFd>);

/// Clones the child and does the parent's part. An error after the clone kills and reaps the child here; what is on
/// disk and in the cgroups is for `clean_up`.
fn make(order: &Order, config: &Config, text: &[u8], bundle: &Path, container: &mut Container) -> Result<Process> {
    // Its parts without a slash at the end, which would be followed even where it stands behind a link.
    let rootfs: PathBuf =
        bundle.join(&config.root.as_ref().context("config.json: no root")?.path).components().collect();
    describe(container, order, config, bundle, &rootfs)?;
    // The clone is made by the parent because only the mount's number, noted in the state, tells `delete` later which
    // mount at that path is ours.
    let root = (!config.linux.has(NamespaceKind::Mount)).then(|| rootfs::clone_root(&rootfs)).transpose()?;
    container.state.root_mount = root.as_ref().and_then(|root| rootfs::mount_id(root, Path::new("")));
    let made = trace::span("make the unified cgroup", "");
    let (mut cgroups, scope) = begin_cgroups(order, config, container)?;
    // Born in it by CLONE_INTO_CGROUP: no instant outside of the limits, and no write to `cgroup.procs`, which takes
    // a lock of all processes of the machine (cgroup_threadgroup_rwsem) and waits for an RCU grace period.
    let unified = cgroups.open_unified(order.child.rootless)?;
    drop(made);
    let (ours, theirs) = sync::pair().context("make a socket pair")?;
    if !config.linux.makes(NamespaceKind::Pid) {
        // Nobody else is in a new pid namespace, so nobody can stop the child there.
        sync::be_patient(ours.as_fd())?;
    }
    let state = container.report(Status::Creating);
    let process = config.process()?;
    let mut child = Child {
        config,
        process,
        rootfs: &rootfs,
        state: &state,
        cgroups: cgroups.clone(),
        // With the host's root in sight and the caller's rights; a child in a user namespace has neither.
        prepared: rootfs::prepare(config, bundle)?,
        root,
        namespaces: namespaces(config)?,
        in_user_namespace: false,
        socket: theirs,
        start: if order.wait { Some(listen(container)?) } else { None },
        console: order.child.common.console_socket.as_deref().map(tty::connect).transpose()?,
        filter: filter::before(config)?,
        proc: None,
        keyring: child::keyring(&order.id, order.child.common.no_new_keyring)?,
        options: order.child.clone(),
    };
    // Before the clone, so that the child inherits it: relative sources of mounts count from the bundle
    // (runtime-spec, config.md, "Mounts"), and hooks begin there.
    rustix::process::chdir(bundle).with_context(|| format!("enter {}", bundle.display()))?;
    let cgroup = unified.as_ref().map(AsFd::as_fd);
    let lenient = order.child.rootless;
    let how = How { namespaces: new_namespaces(config), cgroup, or_outside: lenient, sibling: false };
    let span = trace::span("clone3", format_args!("namespaces {:#x}", how.namespaces));
    let (pid, pidfd) = match clone_child(&mut child, how)? {
        Cloned::Child => {
            // What was begun before is the parent's to end.
            std::mem::forget(span);
            trace::track("container");
            // It hears of the parent's end.
            drop(ours);
            child.run(container.leave().context("leave the lock"))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(span);
    drop(child);
    log::debug!("cloned process {} with namespaces {:#x}", pid.as_raw_pid(), new_namespaces(config));
    if lenient && cgroup.is_some() {
        join_from_session(container, &mut cgroups, pid).inspect_err(|_| end(pid, &pidfd))?;
    }
    // The child makes its network namespace meanwhile.
    let span = trace::span("make the other cgroups", "");
    // The child is alone in its unified cgroup until then, and does not join these before `release`: limits come
    // first.
    let made = cgroups.create_v1(order.child.rootless, scope.is_some()).inspect_err(|_| {
        end(pid, &pidfd);
        give_up(&cgroups, container);
    });
    drop(span);
    let attended = made.and_then(|()| {
        // All of them are new and nobody else's from here on, so `clean_up` may destroy them if a limit cannot be
        // set. `config.json` marks that: before it is there, `Container::release` removes only cgroups that are
        // empty.
        container.state.cgroup_paths = cgroups.paths();
        limit(order, config, &cgroups)?;
        container.write_first("config.json", text)?;
        attend(order, config, container, ours.as_fd(), (pid, &pidfd))
    });
    // The container's own process keeps the scope from here on.
    drop(scope);
    let console = attended.inspect_err(|_| end(pid, &pidfd))?;
    // Only now, behind the last error: a closed socket would tell the child that its parent is gone.
    unified.into_iter().chain([ours]).for_each(file::leave_open);
    log::debug!("process {} {}", pid.as_raw_pid(), if order.wait { "waits for the start" } else { "has its program" });
    Ok((pid, pidfd, console))
}

/// Finds the container's cgroups and makes the unified one, in which its process is born.
fn begin_cgroups(order: &Order, config: &Config, container: &mut Container) -> Result<(Cgroups, Option<Placeholder>)> {
    let started = order.systemd_cgroup.then(|| start_scope(config, container)).transpose()?;
    let (scope, place) = started.map_or((None, config.linux.cgroups_path.clone()), |(one, place)| (Some(one), place));
    let mut cgroups = Cgroups::locate(&place, &order.id)?;
    container.state.cgroup_paths = cgroups.paths();
    // The cgroups are known before they exist, so that whoever kills us now leaves nothing that nobody finds.
    if scope.is_some() { container.save() } else { container.save_first() }?;
    log::debug!("make the cgroups of {}: {}", order.id, places(&cgroups));
    cgroups.create_unified(order.child.rootless, scope.is_some()).inspect_err(|_| give_up(&cgroups, container))?;
    // The others may be somebody else's, until they are made.
    container.state.cgroup_paths.retain(|controllers, _| controllers.is_empty() && cgroups.unified.is_some());
    Ok((cgroups, scope))
}

/// Makes all cgroups of the container, with its limits.
pub(crate) fn make_cgroups(
    order: &Order,
    config: &Config,
    container: &mut Container,
) -> Result<(Cgroups, Option<Placeholder>)> {
    let (mut cgroups, scope) = begin_cgroups(order, config, container)?;
    let made = cgroups.create_v1(order.child.rootless, scope.is_some());
    made.inspect_err(|_| give_up(&cgroups, container))?;
    container.state.cgroup_paths = cgroups.paths();
    limit(order, config, &cgroups)?;
    Ok((cgroups, scope))
}

/// Has systemd make the cgroup. Its name is written down before: whoever kills us then leaves nothing that nobody finds.
fn start_scope(config: &Config, container: &mut Container) -> Result<(Placeholder, String)> {
    let scope = Scope::parse(&config.linux.cgroups_path, &container.state.id)?;
    container.state.systemd_scope = Some(scope.unit().to_owned());
    container.save()?;
    let started = scope.start(config.linux.resources.as_ref());
    // Of one that was not started there is nothing to stop: it may be another's.
    let (placeholder, place) = started.inspect_err(|_| container.state.systemd_scope = None)?;
    Ok((placeholder, place.to_string_lossy().into_owned()))
}

/// From the cgroup of his login session a user has no right to put a process into another one, though it be his: systemd
/// does it, or else the process stays where it is.
fn join_from_session(container: &Container, cgroups: &mut Cgroups, pid: Pid) -> Result<()> {
    if let Some(unit) = &container.state.systemd_scope {
        return systemd::attach(unit, pid);
    }
    if !cgroups.processes()?.contains(&pid) {
        log::warn!("the process stays outside of {}: no right to leave the caller's cgroup", places(cgroups));
        cgroups.remove_made();
        cgroups.unified = None;
    }
    Ok(())
}

/// Sets the limits before the child joins.
fn limit(order: &Order, config: &Config, cgroups: &Cgroups) -> Result<()> {
    let Some(resources) = &config.linux.resources else { return Ok(()) };
    let _span = trace::span("set the limits", "");
    // Device rules of cgroup2 are a BPF program, which an ordinary user may not load; the kernel gives a user
    // namespace no nodes anyway.
    let devices = !config.linux.has(NamespaceKind::User) || !order.child.rootless;
    cgroups.apply(resources, devices).context("apply cgroup configuration")
}

/// Lets go of cgroups: those that were there before may be somebody else's.
fn give_up(cgroups: &Cgroups, container: &mut Container) {
    container.state.cgroup_paths.clear();
    cgroups.remove_made();
}

/// Ends a process that was made, unless it has ended by itself.
pub(crate) fn end(pid: Pid, pidfd: &OwnedFd) {
    let _gone = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    // Not left as a zombie: its number would go on to mean it, and its cgroups could not be removed while it is in
    // them.
    let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
}

/// The cgroups for a line of the log.
fn places(cgroups: &Cgroups) -> String {
    cgroups.paths().values().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Writes down what the container is made of.
pub(crate) fn describe(
    container: &mut Container,
    order: &Order,
    config: &Config,
    bundle: &Path,
    rootfs: &Path,
) -> Result<()> {
    let state = &mut container.state;
    bundle.clone_into(&mut state.bundle);
    rootfs.clone_into(&mut state.rootfs);
    state.oci_version.clone_from(&config.oci_version);
    state.created = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    state.annotations.clone_from(&config.annotations);
    state.rootless = order.child.rootless;
    state.foreground = order.child.foreground && !order.keep;
    state.no_new_keyring = order.child.common.no_new_keyring;
    state.owner = rustix::process::geteuid().as_raw();
    // A link could lead anywhere, and be another one by the time that it is followed.
    let kind = fs::symlink_metadata(rootfs).with_context(|| format!("stat rootfs {}", rootfs.display()))?.file_type();
    ensure!(!kind.is_symlink(), "invalid rootfs {}: not an absolute path, or a symlink", rootfs.display());
    ensure!(kind.is_dir(), "rootfs {} is not a directory", rootfs.display());
    Ok(())
}

/// Does the parent's part until the child is ready, or until its program runs.
fn attend(
    order: &Order,
    config: &Config,
    container: &mut Container,
    socket: BorrowedFd<'_>,
    (pid, pidfd): (Pid, &OwnedFd),
) -> Result<Option<OwnedFd>> {
    if config.linux.makes(NamespaceKind::User) {
        userns::write_mappings(pid, &config.linux.uid_mappings, &config.linux.gid_mappings)?;
    }
    if config.linux.has(NamespaceKind::User) {
        // In there it has no right to.
        let process = config.process()?;
        child::adjust_oom_score(&pid.as_raw_pid().to_string(), process, order.child.rootless)?;
        priority::raise_limits(process, Some(pid))?;
    }
    // The child has made its network namespace before it waits, unless devices come: then clone3 made it, since it
    // has to exist by now.
    net_device::move_all(&config.linux, pid)?;
    release(socket)?;
    // After `release`, though nothing waits for it: the child fills its root meanwhile. A child that reports a
    // failure before is heard by `release`.
    enter_in_state(container, pid)?;
    // conmon and containerd's shim read this file as soon as `create` has ended, and take the number for the
    // container.
    if let Some(file) = &order.child.common.pid_file {
        write_pid_file(file, pid)?;
    }
    let mut console = None;
    let _span = trace::span("wait for the program", "");
    loop {
        match sync::hear(socket, (pid, pidfd))? {
            Message::End if order.wait => {
                let starved = container.cgroups().oom_kills() > 0;
                let cause = if starved { ": its memory limit is too low" } else { "" };
                bail!("the container's process was killed before it was ready{cause}")
            }
            // `Ready` comes with `create`; with `run` the program's successful execve closes the socket, which is
            // `End`.
            Message::Ready | Message::End => break,
            // The order is the specification's (runtime.md, "Lifecycle"): prestart is deprecated, and still first.
            Message::Hooks => {
                let state = container.report(Status::Creating);
                hooks::run("prestart", None, &config.hooks.prestart, &state)?;
                hooks::run("createRuntime", None, &config.hooks.create_runtime, &state)?;
                answer(socket)?;
            }
            Message::Console(master) => console = Some(master),
            Message::Listener(number) => {
                filter::pass_listener(config, &container.report(Status::Creating), (pid, pidfd), number)?;
                answer(socket)?;
            }
            Message::Map(mount, tree) => {
                rootfs::map_ids_of(config, mount, tree.as_fd())?;
                answer(socket)?;
            }
            Message::Failed(code, error) => return Err(cli::ExitError::new(code, error).into()),
            Message::Born(..) => bail!("the container's process has a child"),
        }
    }
    // A program that has ended already has run; a process that never became one has not.
    Ok(console)
}

/// Writes down the container's process.
pub(crate) fn enter_in_state(container: &mut Container, pid: Pid) -> Result<()> {
    container.state.init_process_pid = pid.as_raw_pid();
    container.state.init_process_start =
        birth(pid.as_raw_pid()).context("look at the container's process")?.unwrap_or(0);
    container.state.namespace_paths = namespace_paths(pid);
    container.save()
}

/// Lets the child go on from where it waits: one byte, whatever it is.
pub(crate) fn answer(socket: BorrowedFd<'_>) -> Result<()> {
    rustix::net::send(socket, b"!", rustix::net::SendFlags::NOSIGNAL).context("answer the container's process")?;
    Ok(())
}

/// Lets the child go on. One that is gone has said why; another one waits for the answer, and says nothing.
fn release(socket: BorrowedFd<'_>) -> Result<()> {
    let Err(error) = answer(socket) else { return Ok(()) };
    if !matches!(error.downcast_ref(), Some(&(Errno::PIPE | Errno::CONNRESET))) {
        return Err(error);
    }
    match sync::receive(socket)? {
        Message::Failed(code, cause) => Err(cli::ExitError::new(code, cause).into()),
        _ => Err(error),
    }
}

/// Writes a pid file whole: who waits for it reads it as soon as it is there.
pub(crate) fn write_pid_file(file: &Path, pid: Pid) -> Result<()> {
    output::write(file, pid.as_raw_pid().to_string().as_bytes()).with_context(|| format!("write {}", file.display()))
}

/// Opens the namespaces to join, the user namespace first: it gives the right to join the others.
///
/// A mount namespace comes last: joining it exchanges root and working directory (setns(2)). Each file is checked to
/// be a namespace of the named type here, where an error can name its path.
fn namespaces(config: &Config) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let mut joined: Vec<_> = config.linux.namespaces.iter().filter(|one| !one.path.as_os_str().is_empty()).collect();
    joined.sort_by_key(|one| (one.kind != NamespaceKind::User, one.kind == NamespaceKind::Mount));
    let open = |one: &crate::config::Namespace| {
        let context = || format!("namespace {}", one.path.display());
        let file =
            rustix::fs::open(&one.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(context)?;
        let kind = one.kind;
        let found = sys::namespace::kind(file.as_fd()).with_context(context)?;
        ensure!(found == Some(kind), "{} is not a namespace of type {}", one.path.display(), kind.name());
        Ok((kind, file))
    };
    joined.into_iter().map(open).collect()
}

/// Clones the container's process. A pid namespace is entered by children only, so the parent turns to it, clones, and
/// turns back. From a user namespace there is no way back, and what is new has to belong to it: there an intermediate
/// process goes first.
fn clone_child(child: &mut Child<'_>, how: How<'_>) -> Result<Cloned> {
    let context = "clone the container's process";
    if child.namespaces.first().is_some_and(|(kind, _)| *kind == NamespaceKind::User) {
        child.in_user_namespace = true;
        return intermediate::clone(how, || join_user_namespace(&child.config.linux, &mut child.namespaces));
    }
    let Some(pids) = take(&mut child.namespaces, NamespaceKind::Pid) else { return clone(how).context(context) };
    let join = || child.config.linux.enter(NamespaceKind::Pid, pids.as_fd());
    // setns(2) to a pid namespace only turns later children; the caller's own stays, and is the one that it may
    // return to. It takes CAP_SYS_ADMIN over both.
    let own = file::open("/proc/self/ns/pid", OFlags::RDONLY)?;
    // Who is root of a user namespace only might not turn back.
    if sys::namespace::enter(own.as_fd(), NamespaceKind::Pid).is_err() {
        return intermediate::clone(how, join);
    }
    join()?;
    let cloned = clone(how);
    // The child has no need to: what it forks later belongs where it is.
    if !matches!(cloned, Ok(Cloned::Child)) {
        sys::namespace::enter(own.as_fd(), NamespaceKind::Pid).context("return to our own pid namespace")?;
    }
    cloned.context(context)
}

/// Joins what belongs to the host while that is allowed, then the user namespace, and then its pid namespace; leaves the
/// others to the child.
///
/// A namespace whose owner is not the joined user namespace can only be entered with the caller's present rights, so
/// that is tried first; what is refused belongs to the user namespace, and is left for afterwards.
fn join_user_namespace(linux: &Linux, namespaces: &mut Vec<(NamespaceKind, OwnedFd)>) -> Result<()> {
    namespaces.retain(|(kind, namespace)| {
        matches!(kind, NamespaceKind::User | NamespaceKind::Mount)
            || sys::namespace::enter(namespace.as_fd(), *kind).is_err()
    });
    for kind in [NamespaceKind::User, NamespaceKind::Pid] {
        if let Some(namespace) = take(namespaces, kind) {
            linux.enter(kind, namespace.as_fd())?;
        }
    }
    Ok(())
}

fn take(namespaces: &mut Vec<(NamespaceKind, OwnedFd)>, wanted: NamespaceKind) -> Option<OwnedFd> {
    let at = namespaces.iter().position(|(kind, _)| *kind == wanted)?;
    Some(namespaces.remove(at).1)
}

/// The flags for `clone3`: all new namespaces but those that the child has to make by itself.
fn new_namespaces(config: &Config) -> u32 {
    let flag = |namespace: &crate::config::Namespace| match namespace.kind {
        // The child makes these two when it has joined its cgroups and has been given its offsets; the network,
        // because that takes as long as all others together, while the parent is at the v1 cgroups (architecture.md,
        // "spawn").
        NamespaceKind::Cgroup | NamespaceKind::Time => 0,
        _ if !namespace.path.as_os_str().is_empty() => 0,
        NamespaceKind::Network if config.linux.net_devices.is_empty() => 0,
        other => other.flag().bits(),
    };
    config.linux.namespaces.iter().map(flag).fold(0, |flags, flag| flags | flag)
}

fn namespace_paths(pid: Pid) -> std::collections::BTreeMap<String, PathBuf> {
    let path = |kind: &NamespaceKind| PathBuf::from(format!("/proc/{}/ns/{}", pid.as_raw_pid(), kind.name()));
    NamespaceKind::ALL.iter().map(|kind| (format!("NEW{}", kind.name().to_uppercase()), path(kind))).collect()
}

/// Makes the socket that `start` connects to. It is bound through the directory's descriptor, since a socket's path may
/// have 107 bytes only.
fn listen(container: &Container) -> Result<OwnedFd> {
    let listen = || -> std::io::Result<OwnedFd> {
        // SEQPACKET, since `start` hears the same packets on it that `create` heard from the child.
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &container.socket_address("start")?)?;
        // The directory is 0700, so that only its owner can connect: that is all that guards `start`.
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    };
    listen().with_context(|| format!("listen on {}/start", container.directory.display()))
}
