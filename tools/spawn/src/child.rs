//! The container's process from `clone3` to the launch of its program. It runs on a copy of the parent's memory, so it
//! needs nothing told; it says how it went through `sync`, and prints nothing itself.
//!
//! The order of its steps is not free. Namespaces come before the root, because mounts and sysctls act on the
//! caller's own. The root is filled before hooks see it and before `pivot_root(2)`, with the host's `/proc` in sight.
//! The program is looked up after it, as the container's paths lead. Users, capabilities and the filter come last, in
//! `identity`: each step before needs some right that they take away.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use cgroup::Cgroups;
use cli::ExitError;
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::CpuSet;
use seccomp::Filter;
use sys::namespace::Kind as NamespaceKind;

use crate::config::{Config, Hook, Process, TimeOffset, sysctl_path};
use crate::hooks;
use crate::identity::{self, ContainerProgram, ProcessContext};
use crate::request::Common;
use crate::rootfs::{Prepared, Rootfs};
use crate::sync::{self, Message, NOT_EXECUTABLE, NOT_FOUND};
use crate::{file, stdio, tty};

/// Everything the child works with, made by the parent.
pub(crate) struct Child<'a> {
    /// The configuration, checked; `process` is its member, which `create` may have filled in.
    pub config: &'a Config,
    pub process: &'a Process,
    /// Absolute, without a slash at its end, as the host sees it.
    pub rootfs: &'a Path,
    /// What hooks are told, but for the status and the pid at that moment.
    pub state: &'a record::State,
    /// The container's; those of v1 do not exist yet when this is made.
    pub cgroups: Cgroups,
    /// One for each of the configuration's `mounts`, in their order.
    pub prepared: Vec<Prepared>,
    /// The clone of the rootfs, where there is no mount namespace.
    pub root: Option<OwnedFd>,
    /// Namespaces to join, in this order.
    pub namespaces: Vec<(NamespaceKind, OwnedFd)>,
    /// Whether it was born in a user namespace that it had to join.
    pub in_user_namespace: bool,
    /// The connection to the parent (`sync`). Its end says, by being closed, that the program runs.
    pub socket: OwnedFd,
    /// The socket to wait on for `start`.
    pub start: Option<OwnedFd>,
    /// The connected console socket, which gets the terminal's master; without one the parent gets it.
    pub console: Option<OwnedFd>,
    /// The compiled filter, which the last calls load.
    pub filter: Option<Filter>,
    /// The host's `/proc`, if there is a label to write.
    pub proc: Option<OwnedFd>,
    /// The name of a new session keyring: without it, the container would have the caller's keys (keyrings(7)).
    pub keyring: Option<CString>,
    pub options: ChildOptions,
}

/// That of docker, whatever the caller's is.
pub(crate) const UMASK: u32 = 0o022;

/// What the command line says about the child.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChildOptions {
    /// Its paths are absolute.
    pub common: Common,
    /// The container ends with `spawn`, and its terminal is the caller's.
    pub foreground: bool,
    /// The caller is an ordinary user, or root of a user namespace: what it has no right to is left out where it may
    /// be.
    pub rootless: bool,
    /// Nobody's stdin: the record was read from it.
    pub null_stdin: bool,
}

impl Child<'_> {
    /// Becomes the container's program. Returns only if that fails; then the parent has heard why.
    pub(crate) fn run(&mut self, begun: anyhow::Result<()>) -> ! {
        // The log's path would soon be one of the container's own.
        log::set_max_level(log::LevelFilter::Off);
        // The process shares the parent's heap image, not its duties: no destructor of the parent's may run here,
        // hence `exit_now`.
        let error = match begun.and_then(|()| self.become_program()) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        report(self.socket.as_fd(), error);
        sys::clone::exit_now(127)
    }

    fn become_program(&mut self) -> anyhow::Result<Infallible> {
        // An undumpable process's files in /proc belong to root (proc(5)), and its maker, who writes its id maps
        // there, may be an ordinary user. So in a new user namespace this has to wait for `become_root`; nobody else
        // is in there before.
        if !self.config.linux.makes(NamespaceKind::User) {
            become_undumpable()?;
        }
        // mknod(2) applies the umask, and the nodes of /dev get exactly the modes that the configuration names.
        begin_afresh(0)?;
        self.enter_namespaces()?;
        // While /proc is the host's: one that the image brings could lead the label to another file (CVE-2025-52881).
        self.proc = identity::proc_for_label(self.process)?;
        // TIOCSCTTY is for session leaders only (ioctl_tty(2)), and without a terminal the program must not keep the
        // caller's, into which it could type.
        rustix::process::setsid().context("setsid")?;
        if !self.config.linux.has(NamespaceKind::User) {
            adjust_oom_score("self", self.process, self.options.rootless)?;
        }
        // sethostname(2) takes CAP_SYS_ADMIN in the user namespace that owns the UTS namespace: root of the new one
        // has it by now.
        self.name_host()?;
        self.fill_root()?;
        // The last thing that looks at paths with the container's root and without its user: errors of the search
        // have the words and codes that hosts expect, which those of a failed execve would not.
        let (program, chdir) = find_program(self.process)?;
        self.start_hooks(chdir)?;
        launch(self.process, self.config, &program, &self.surroundings(self.socket.as_fd(), chdir))
    }

    fn surroundings<'a>(&'a self, report: BorrowedFd<'a>, chdir: bool) -> ProcessContext<'a> {
        ProcessContext {
            report,
            start: self.start.as_ref().map(AsFd::as_fd),
            proc: self.proc.as_ref().map(AsFd::as_fd),
            filter: self.filter.as_ref(),
            preserved_fds: self.options.common.preserve_fds,
            foreground: self.options.foreground,
            keyring: self.keyring.as_deref(),
            lenient_groups: self.options.rootless || self.config.linux.has(NamespaceKind::User),
            chdir,
        }
    }

    fn enter_namespaces(&mut self) -> anyhow::Result<()> {
        let linux = &self.config.linux;
        if linux.makes(NamespaceKind::Network) {
            // A network namespace takes as long to make as all others together, so it is made while the parent makes
            // the v1 cgroups; clone3 would make the parent wait for it. Devices that are to be moved there need it
            // earlier.
            if linux.net_devices.is_empty() {
                let _span = trace::span("make the net namespace", "");
                sys::namespace::unshare(NamespaceKind::Network).context("make the net namespace")?;
            }
            let _span = trace::span("bring lo up", "");
            sys::network::loopback_up().context("bring lo up")?;
        }
        wait_for_parent(self.socket.as_fd())?;
        // Which of them exist is known only now: the parent made, while this process was cloned, what the user may
        // make.
        if self.options.rootless {
            self.cgroups.keep_existing();
        }
        {
            let _span = trace::span("join the cgroups", "");
            // By its own write to the v1 `tasks` files: a process with one thread that moves itself skips the lock
            // which a move from outside takes (cgroup_threadgroup_rwsem), and that costs 1.5 to 13 ms.
            self.cgroups.join(self.options.rootless)?;
        }
        // After the cgroups: the kernel cuts a mask down to the cpuset that the process is in at that moment.
        reset_affinity();
        // /proc/self/timens_offsets is owned by whoever made the process; root of the user namespace, which it is
        // about to become, is somebody else.
        if linux.makes(NamespaceKind::Time) {
            self.make_time_namespace()?;
        }
        if linux.makes(NamespaceKind::User) || self.in_user_namespace {
            become_root(self.options.rootless)?;
        }
        // As root of the user namespace, which owns them: what belongs to the host was joined before
        // (`create::join_user_namespace`).
        for (kind, namespace) in &self.namespaces {
            linux.enter(*kind, namespace.as_fd())?;
        }
        if linux.makes(NamespaceKind::Cgroup) {
            // Not by clone3: the namespace's root is where the process is at that moment.
            sys::namespace::unshare(NamespaceKind::Cgroup).context("make the cgroup namespace")?;
        }
        Ok(())
    }

    /// The offsets can be set while the namespace is empty only, so this process enters it afterwards.
    fn make_time_namespace(&self) -> anyhow::Result<()> {
        sys::namespace::unshare(NamespaceKind::Time).context("make the time namespace")?;
        let offsets = &self.config.linux.time_offsets;
        if !offsets.is_empty() {
            let line =
                |(clock, offset): (&String, &TimeOffset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
            let text = offsets.iter().map(line).collect::<Vec<_>>().concat();
            std::fs::write("/proc/self/timens_offsets", &text).with_context(|| format!("set time offsets {text:?}"))?;
        }
        // Like a pid namespace, unshare(2) gives a new time namespace to children only (time_namespaces(7)); setns(2)
        // moves the caller itself, and freezes the offsets.
        let namespace = file::open("/proc/self/ns/time_for_children", OFlags::RDONLY)?;
        sys::namespace::enter(namespace.as_fd(), NamespaceKind::Time).context("enter the time namespace")
    }

    fn name_host(&self) -> anyhow::Result<()> {
        let config = self.config;
        if !config.hostname.is_empty() {
            rustix::system::sethostname(config.hostname.as_bytes())
                .with_context(|| format!("set hostname {}", config.hostname))?;
        }
        if !config.domainname.is_empty() {
            rustix::system::setdomainname(config.domainname.as_bytes())
                .with_context(|| format!("set domainname {}", config.domainname))?;
        }
        Ok(())
    }

    /// Written through a procfs that no container can have replaced: its own as it was made, or the host's. The kernel looks
    /// at the namespaces of the writer, and among thousands it finds a name of theirs in the host's procfs late: one chain
    /// has that name of all of them.
    fn sysctls(&self, own: Option<&OwnedFd>) -> anyhow::Result<()> {
        for (key, value) in &self.config.linux.sysctl {
            let below = Path::new("sys").join(sysctl_path(key));
            let path = Path::new("/proc").join(&below);
            let beside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
            let found = own.and_then(|own| root::open_with(own.as_fd(), &below, OFlags::WRONLY, beside).ok());
            let written =
                found.map_or_else(|| std::fs::write(&path, value), |file| File::from(file).write_all(value.as_bytes()));
            written.with_context(|| format!("write sysctl {key}: {value:?} to {}", path.display()))?;
        }
        Ok(())
    }

    fn fill_root(&mut self) -> anyhow::Result<()> {
        let _span = trace::span("fill the root", self.rootfs.display());
        let config = self.config;
        let mut rootfs = Rootfs::bind(config, self.rootfs, &self.cgroups, self.socket.as_fd(), self.root.take())?;
        // The hooks below see everything mounted; masks and read-only roots come behind them (`finish`), since hooks
        // may still have to write.
        rootfs.fill(std::mem::take(&mut self.prepared))?;
        self.sysctls(rootfs.proc.as_ref())?;
        // Nodes are made; what is made from here on is made as the program itself would make it.
        rustix::process::umask(Mode::from_raw_mode(UMASK));
        if self.process.cwd != "/" {
            rootfs.make_cwd(&self.process.cwd)?;
        }
        self.hooks(rootfs.root())?;
        if self.process.terminal {
            let size = self.process.console_size;
            tty::become_own(rootfs.root(), size, self.console.as_ref(), self.socket.as_fd())?;
            tty::mount_console(rootfs.root(), rustix::stdio::stdin())?;
        // The host's node is opened for now; `leave_host_null` exchanges it, as any other that the caller passed on.
        } else if self.options.null_stdin {
            rustix::stdio::dup2_stdin(&file::open("/dev/null", OFlags::RDONLY)?)?;
        }
        stdio::give(self.process.user.uid);
        // The null device that masks were made of is kept open: after pivot_root(2) it is looked up by nobody any
        // more.
        let null = rootfs.finish()?;
        rootfs.enter(self.options.common.no_pivot)?;
        stdio::leave_host_null(null)
    }

    /// createRuntime (and prestart) hooks are the parent's, createContainer hooks ours: runtime-spec, config.md.
    fn hooks(&self, root: BorrowedFd<'_>) -> anyhow::Result<()> {
        let hooks = &self.config.hooks;
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            // They run outside, in the runtime's namespaces (runtime-spec, config.md, "POSIX-platform Hooks"), while
            // the container's exist and are filled: nvidia's toolkit, for one, mounts its files into them then.
            sync::send(self.socket.as_fd(), &Message::Hooks)?;
            wait_for_parent(self.socket.as_fd())?;
        }
        if hooks.create_container.is_empty() {
            return Ok(());
        }
        // As runc's, they begin in the root file system.
        let directory =
            |at, name| rustix::fs::openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let (own, root) = (directory(rustix::fs::CWD, ".")?, directory(root, ".")?);
        rustix::process::fchdir(root).context("enter the root file system")?;
        hooks::run("createContainer", None, &hooks.create_container, &self.state_now("creating"))?;
        Ok(rustix::process::fchdir(own)?)
    }

    fn state_now(&self, status: &str) -> record::State {
        let pid = rustix::process::getpid().as_raw_pid();
        record::State { status: Some(status.to_owned()), pid: Some(pid), ..self.state.clone() }
    }

    /// startContainer hooks run inside the container when `start` has come, as the program will; then this process waits
    /// for it itself.
    fn start_hooks(&mut self, chdir: bool) -> anyhow::Result<()> {
        let hooks = &self.config.hooks.start_container;
        if hooks.is_empty() {
            return Ok(());
        }
        // The specification gives a hook the variables that it lists, and none otherwise. runc passed the process's
        // own here before there was a specification, and images count on it.
        let environment = crate::environment::complete(self.process);
        let launch = |child: &Self, hook: &Hook, report: BorrowedFd<'_>| {
            let program = ContainerProgram::of_hook(hook, &environment)?;
            // Who decides about calls from outside expects the program's, and hears of no hook.
            let filter = child.filter.as_ref().filter(|filter| filter.listener.is_none());
            let surroundings = ProcessContext { filter, foreground: true, ..child.surroundings(report, chdir) };
            Ok(identity::list(child.process, &child.config.linux, program.as_ref(), &surroundings)?.seal()?)
        };
        // What the caller happened to have open is no more theirs than the program's, and the wait may be long.
        sys::child::close_inherited(3 + self.options.common.preserve_fds, &[])?;
        if let Some(listener) = self.start.take() {
            // What the process cannot be given fails `create`: one that executes nothing is given all.
            hooks::execute(&Hook::default(), self.state, Some(&|hook, report| launch(self, hook, report)))?;
            // The parent ends now; from here on this process lives on its own.
            rustix::process::set_parent_process_death_signal(None)?;
            // Behind it `create` ends with success: whatever fails from here on is heard by `start`, on the socket
            // accepted below.
            sync::send(self.socket.as_fd(), &Message::Ready).context("report")?;
            self.socket =
                rustix::net::accept_with(&listener, rustix::net::SocketFlags::CLOEXEC).context("wait for start")?;
        }
        let launcher = |hook: &Hook, report: BorrowedFd<'_>| launch(self, hook, report);
        hooks::run("startContainer", Some(&launcher), hooks, &self.state_now("created"))
    }
}

/// Reports a failure with the exit code that it means.
pub(crate) fn report(socket: BorrowedFd<'_>, error: anyhow::Error) {
    let code = error.downcast_ref::<ExitError>().map_or(125, ExitError::code);
    // The parent may be gone, and then nobody wants to know.
    let _gone = sync::send(socket, &Message::Failed(code, error));
}

/// Nothing in the container may look into this process while it has the host's sight.
///
/// Such a process can be neither traced nor read through /proc/PID/mem, fd, root or exe without `CAP_SYS_PTRACE` in the
/// user namespace that its memory was made in: `PR_SET_DUMPABLE(2const)`, ptrace(2). `execve` makes it dumpable again.
pub(crate) fn become_undumpable() -> anyhow::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")
}

/// Leaves what the caller's process handed down: signals blocked and ignored (`nohup`), the umask. Peers do the same.
///
/// The parent may have died before the first call here. `wait_for_parent` notices that, by the end of the socket.
pub(crate) fn begin_afresh(umask: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("die with the parent")?;
    rustix::process::umask(Mode::from_raw_mode(umask));
    sys::signal::restore_ignored();
    Ok(sys::signal::unblock_all()?)
}

/// Returns the name of the container's session keyring.
pub(crate) fn keyring(id: &str, none: bool) -> anyhow::Result<Option<CString>> {
    Ok((!none).then(|| CString::new(format!("_ses.{id}"))).transpose()?)
}

/// Waits for the parent's one byte. An end instead is a dead parent: nobody is left who would undo what comes.
pub(crate) fn wait_for_parent(socket: BorrowedFd<'_>) -> anyhow::Result<()> {
    let _span = trace::span("wait for the parent", "");
    let mut answer = [0];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut answer)).context("wait for the parent")?;
    ensure!(count == 1, "the parent is gone");
    Ok(())
}

/// Lets the process run on every CPU of its cgroup, whatever the caller itself was confined to (`taskset`, systemd's
/// `CPUAffinity=`).
pub(crate) fn reset_affinity() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // A seccomp filter above us may forbid it; then the caller's choice stays.
    let _refused = rustix::thread::sched_setaffinity(None, &all);
}

/// Sets a process's OOM score, by its number or as `self`; where the caller may have no right to, it stays as it is.
pub(crate) fn adjust_oom_score(number: &str, process: &Process, lenient: bool) -> anyhow::Result<()> {
    let Some(adjustment) = process.oom_score_adj else { return Ok(()) };
    match std::fs::write(format!("/proc/{number}/oom_score_adj"), adjustment.to_string()) {
        Err(_) if lenient => Ok(()),
        result => result.with_context(|| format!("set oomScoreAdj {adjustment}")),
    }
}

/// Becomes root of the user namespace just entered.
/// The groups go first: setgroups(2) takes a right that the change of the user may end. The group before the user,
/// likewise.
pub(crate) fn become_root(lenient: bool) -> anyhow::Result<()> {
    match rustix::thread::set_thread_groups(&[]) {
        Err(rustix::io::Errno::PERM) if lenient => {}
        // A namespace that denies setgroups keeps the groups that its maker had.
        Err(rustix::io::Errno::PERM)
            if std::fs::read("/proc/self/setgroups").is_ok_and(|word| word.starts_with(b"deny")) => {}
        result => result.context("drop groups")?,
    }
    let (root, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).context("become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(root, root, root).context("become root of the user namespace")?;
    // A change of ids sets "dumpable" to what /proc/sys/fs/suid_dumpable says, which may be 1, and clears the signal
    // at the parent's death (PR_SET_PDEATHSIG(2const)).
    become_undumpable()?;
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Enters the working directory and looks the program up, as the container sees them. The root was entered before. Tells
/// also whether the directory is left to the container's user.
pub(crate) fn find_program(process: &Process) -> anyhow::Result<(ContainerProgram, bool)> {
    let chdir = process.cwd != "/" && !enter_cwd(&process.cwd)?;
    let environment = crate::environment::complete(process);
    let path = process.args.first().map_or(Ok(PathBuf::new()), |name| look_up(name, &environment))?;
    let program = ContainerProgram {
        path: CString::new(path.into_os_string().into_encoded_bytes())?,
        arguments: identity::strings(&process.args)?,
        environment: identity::strings(&environment)?,
    };
    Ok((program, chdir))
}

/// Enters the working directory; false if that is denied, perhaps to this user alone.
fn enter_cwd(cwd: &str) -> anyhow::Result<bool> {
    let entered = sys::unless(&[rustix::io::Errno::ACCESS], rustix::process::chdir(cwd));
    let entered = entered.with_context(|| format!("chdir to cwd ({cwd:?}) set in config.json failed"))?;
    let Some(()) = entered else { return Ok(false) };
    // The kernel names a directory outside of the root so (CVE-2024-21626).
    let reached = rustix::process::getcwd(Vec::new()).context("getcwd")?;
    let inside = reached.to_bytes().starts_with(b"/");
    ensure!(inside, "current working directory is outside of container mount namespace root");
    Ok(true)
}

/// Finds a program as a shell would, with the words for its absence that hosts look for.
fn look_up(name: &str, environment: &[String]) -> anyhow::Result<PathBuf> {
    if name.contains('/') {
        return check_program(Path::new(name))
            .map(|()| name.into())
            .map_err(|(code, cause)| ExitError::new(code, anyhow!("exec: {name:?}: stat {name}: {cause}")).into());
    }
    // The container's PATH, not the caller's; the default is that of execvp(3), in glibc since 2.24.
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let mut refused = None;
    for directory in path.unwrap_or("/bin:/usr/bin").split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match check_program(&candidate) {
            Ok(()) => return Ok(candidate),
            // execvp(3): the search goes on behind a file that may not be executed, and EACCES is the answer if
            // nothing else is found.
            Err((NOT_EXECUTABLE, cause)) if candidate.is_file() => refused = Some(cause),
            Err(_) => {}
        }
    }
    Err(refused.map_or_else(
        || ExitError::new(NOT_FOUND, anyhow!("exec: {name:?}: executable file not found in $PATH")).into(),
        |cause| ExitError::new(NOT_EXECUTABLE, anyhow!("exec: {name:?}: {cause}")).into(),
    ))
}

/// Tells why a path cannot be executed, with the exit code for that. Whether this user may is left to execve(2): only
/// a file that nobody may execute is refused here.
fn check_program(path: &Path) -> Result<(), (u8, String)> {
    let code = |error: &std::io::Error| sync::code_of(error.raw_os_error().unwrap_or(0));
    let found = std::fs::metadata(path).map_err(|error| (code(&error), sync::in_lower_case(&error)))?;
    if found.is_dir() {
        return Err((NOT_EXECUTABLE, "is a directory".to_owned()));
    }
    if found.mode() & 0o111 == 0 { Err((NOT_EXECUTABLE, "permission denied".to_owned())) } else { Ok(()) }
}

/// Executes the list of last calls, which ends with the container's program.
///
/// The descriptors that the launching program needs lose close-on-exec here and get it back by its first calls, so
/// that they survive exactly one execve.
pub(crate) fn launch(
    process: &Process,
    config: &Config,
    program: &ContainerProgram,
    surroundings: &ProcessContext<'_>,
) -> anyhow::Result<Infallible> {
    let memfd = {
        let _span = trace::span("make the launching program", "");
        let list = identity::list(process, &config.linux, Some(program), surroundings)?;
        list.seal().context("make the launching program")?
    };
    // Here, and not at the program's execve: its path may lead through what the caller had open (CVE-2024-21626).
    sys::child::close_on_exec(3 + surroundings.preserved_fds).context("close on exec")?;
    for fd in [Some(surroundings.report), surroundings.start, surroundings.proc].into_iter().flatten() {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    Err(sys::launch::execute_init(memfd.as_fd())).context("execute the launching program")
}
