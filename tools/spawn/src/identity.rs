//! Who the container's program is: user, groups, capabilities, limits, and everything else that is given up or taken on
//! between the finished file system and `execve`. It becomes a list of system calls for `sys::launch`.
//!
//! The order is fixed by what each call needs. Limits, scheduling and the bounding set take capabilities, so they
//! precede the user; groups precede the user for the same reason. The working directory follows the user, whose
//! access is what counts. The filter is as late as it can be, so that a profile need not allow what is called here.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use seccomp::Filter;
use sys::launch::{Launch, Word};

use crate::capability::{self, Sets};
use crate::config::{Hook, Linux, Process};
use crate::priority;
use crate::sync::{CALL_FAILED, READY};

/// What the list is made of beside the process's own description.
pub(crate) struct ProcessContext<'a> {
    /// Where failures are reported: the parent.
    pub report: BorrowedFd<'a>,
    /// The socket on which to wait for `start`, which then hears of failures.
    pub start: Option<BorrowedFd<'a>>,
    /// The host's `/proc`, if there is a label to write.
    pub proc: Option<BorrowedFd<'a>>,
    pub filter: Option<&'a Filter>,
    /// How many descriptors after stderr the program gets.
    pub preserved_fds: u32,
    /// Die with the parent.
    pub foreground: bool,
    /// The name of the new session keyring.
    pub keyring: Option<&'a CStr>,
    /// In a user namespace that may forbid `setgroups`.
    pub lenient_groups: bool,
    /// Whether `chdir` is left to the container's user.
    pub chdir: bool,
}

/// The program to execute.
pub(crate) struct ContainerProgram {
    pub path: CString,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
}

impl ContainerProgram {
    /// Returns a hook inside the container; the one without a path executes nothing.
    pub(crate) fn of_hook(hook: &Hook, environment: &[String]) -> anyhow::Result<Option<Self>> {
        if hook.path.as_os_str().is_empty() {
            return Ok(None);
        }
        let path = CString::new(hook.path.as_os_str().as_bytes())?;
        let arguments = if hook.args.is_empty() { vec![path.clone()] } else { strings(&hook.args)? };
        Ok(Some(Self { path, arguments, environment: strings(hook.env.as_deref().unwrap_or(environment))? }))
    }
}

/// Returns strings as programs get them.
pub(crate) fn strings(strings: &[String]) -> anyhow::Result<Vec<CString>> {
    Ok(strings.iter().map(|string| CString::new(string.as_str())).collect::<Result<_, _>>()?)
}

struct List<'a> {
    launch: Launch,
    surroundings: &'a ProcessContext<'a>,
}

/// Opens the host's `/proc`, while it is in sight, for a process that gets a label.
pub(crate) fn proc_for_label(process: &Process) -> anyhow::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    label(process).map(|_| rustix::fs::open("/proc", flags, Mode::empty()).context("open /proc")).transpose()
}

/// What is written to `/proc/thread-self/attr/exec`.
fn label(process: &Process) -> Option<String> {
    match (process.apparmor_profile.as_str(), process.selinux_label.as_str()) {
        ("", "") => None,
        ("", selinux) => Some(selinux.to_owned()),
        (apparmor, _) => Some(format!("exec {apparmor}")),
    }
}

/// Makes the list, which ends with the program if there is one.
pub(crate) fn list(
    process: &Process,
    linux: &Linux,
    program: Option<&ContainerProgram>,
    surroundings: &ProcessContext<'_>,
) -> anyhow::Result<Launch> {
    let mut list = List { launch: Launch::new(surroundings.report), surroundings };
    list.guard();
    // Raising a hard limit takes CAP_SYS_RESOURCE (getrlimit(2)).
    list.rlimits(process)?;
    list.scheduling(process, linux)?;
    let sets = capability::sets(process.capabilities.as_ref());
    // PR_CAPBSET_DROP takes CAP_SETPCAP, which the change of the user takes out of the effective set.
    list.bounding(sets);
    list.user(process);
    if surroundings.chdir {
        list.enter_cwd(process)?;
    }
    list.label(process)?;
    if process.no_new_privileges {
        list.call("set no_new_privs", libc::SYS_prctl, &[number(libc::PR_SET_NO_NEW_PRIVS), 1, 0, 0, 0]);
    }
    // Behind the user: a change of ids clears it (PR_SET_PDEATHSIG(2const)).
    let death_signal = if surroundings.foreground { number(libc::SIGKILL) } else { 0 };
    list.call("choose life after the parent", libc::SYS_prctl, &[number(libc::PR_SET_PDEATHSIG), death_signal]);
    // What the process cannot be given fails `create`; its filter need not allow what waiting takes.
    let filter = surroundings.filter;
    let listened = filter.is_some_and(|filter| filter.listener.is_some());
    // Without no_new_privs a filter takes CAP_SYS_ADMIN, so it comes before the rest is given up.
    let privileged = filter.is_some() && !process.no_new_privileges;
    let more = Sets { permitted: sets.permitted | SYS_ADMIN, effective: sets.effective | SYS_ADMIN, ..sets };
    list.set_capabilities(if privileged { more } else { sets });
    filter.filter(|_| listened).into_iter().for_each(|filter| list.load(filter));
    list.wait();
    if privileged {
        filter.filter(|_| !listened).into_iter().for_each(|filter| list.load(filter));
        list.set_capabilities(sets);
    }
    // Last of the sets: a capability can be ambient only while it is permitted and inheritable (capabilities(7)).
    list.raise_ambient(sets);
    filter.filter(|_| !listened && !privileged).into_iter().for_each(|filter| list.load(filter));
    let Some(program) = program else {
        list.call("exit", libc::SYS_exit_group, &[0]);
        return Ok(list.launch);
    };
    let path = list.launch.string(&program.path);
    let arguments = list.launch.strings(&program.arguments);
    let environment = list.launch.strings(&program.environment);
    let name = match program.path.to_string_lossy() {
        path if path.is_empty() => "start: config.json has no process".to_owned(),
        path => format!("exec {path}"),
    };
    list.call(&name, libc::SYS_execve, &[path, arguments, environment]);
    Ok(list.launch)
}

impl List<'_> {
    fn call(&mut self, name: &str, call: libc::c_long, arguments: &[Word]) {
        self.launch.call(name, CALL_FAILED, call, arguments);
    }

    fn guard(&mut self) {
        // The execve that brought us here has made the process dumpable again.
        self.call("become undumpable", libc::SYS_prctl, &[number(libc::PR_SET_DUMPABLE), 0]);
        // Until here whoever writes hears by the write itself that nobody reads.
        let default = self.launch.words(&[0; 4]);
        self.call("reset SIGPIPE", libc::SYS_rt_sigaction, &[number(libc::SIGPIPE), default, 0, 8]);
        let cloexec = number(libc::FD_CLOEXEC);
        for fd in
            [Some(self.surroundings.report), self.surroundings.start, self.surroundings.proc].into_iter().flatten()
        {
            self.call("close on exec", libc::SYS_fcntl, &[number(fd.as_raw_fd()), number(libc::F_SETFD), cloexec]);
        }
        if let Some(name) = self.surroundings.keyring {
            let name = self.launch.string(name);
            // Kernels may have no keyrings, and users may have used up theirs; neither keeps a container from running.
            self.launch.try_call(libc::SYS_keyctl, &[KEYCTL_JOIN_SESSION_KEYRING, name]);
        }
    }

    /// Not before: the mounts take descriptors, perhaps more than the program may have.
    fn rlimits(&mut self, process: &Process) -> anyhow::Result<()> {
        for limit in &process.rlimits {
            let resource = priority::limit(&limit.kind)? as u64;
            let wanted = self.launch.words(&[limit.soft, limit.hard]);
            let name = format!("error setting rlimit type {}: prlimit({}, {})", limit.kind, limit.soft, limit.hard);
            self.call(&name, libc::SYS_prlimit64, &[0, resource, wanted, 0]);
        }
        Ok(())
    }

    fn scheduling(&mut self, process: &Process, linux: &Linux) -> anyhow::Result<()> {
        if let Some(scheduler) = &process.scheduler {
            let attributes = self.launch.bytes(&priority::scheduler(scheduler)?);
            // Processes that only some processors may run cannot have deadlines.
            let confined = linux.resources.as_ref().and_then(|resources| resources.cpu.as_ref());
            let confined = scheduler.policy == "SCHED_DEADLINE" && confined.is_some_and(|cpu| !cpu.cpus.is_empty());
            let cause = if confined { ": process scheduler can't be used together with AllowedCPUs" } else { "" };
            let name = format!("set the scheduler: sched_setattr({scheduler:?}){cause}");
            self.call(&name, libc::SYS_sched_setattr, &[0, attributes, 0]);
        }
        if let Some(io_priority) = &process.io_priority {
            let value = priority::io(io_priority)?;
            let name = format!("set the I/O priority: ioprio_set({}, {})", io_priority.class, io_priority.priority);
            self.call(&name, libc::SYS_ioprio_set, &[1, 0, value]);
        }
        if let Some(policy) = &linux.memory_policy {
            let (mode, nodes, bits) = priority::memory_policy(policy)?;
            let nodes = if nodes.is_empty() { 0 } else { self.launch.words(&nodes) };
            let name = format!("set the memory policy: set_mempolicy({}, {:?})", policy.mode, policy.nodes);
            self.call(&name, libc::SYS_set_mempolicy, &[mode, nodes, bits]);
        }
        if let Some(personality) = &linux.personality {
            self.call("set the personality", libc::SYS_personality, &[priority::personality(personality)?]);
        }
        Ok(())
    }

    /// Drops what the configuration does not list. A capability that is not bounding cannot come back by a file's
    /// capabilities.
    fn bounding(&mut self, sets: Sets) {
        for capability in capability::present().filter(|capability| sets.bounding & (1 << capability) == 0) {
            self.call("drop a capability", libc::SYS_prctl, &[number(libc::PR_CAPBSET_DROP), capability, 0, 0, 0]);
        }
    }

    fn user(&mut self, process: &Process) {
        let user = &process.user;
        let groups: Vec<u8> = user.additional_gids.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
        let arguments = [user.additional_gids.len() as u64, self.launch.bytes(&groups)];
        if groups.is_empty() && self.surroundings.lenient_groups {
            // Where the namespace denies setgroups(2), the groups are its maker's, who is the same user.
            self.launch.try_call(libc::SYS_setgroups, &arguments);
        } else {
            let some = &user.additional_gids[..user.additional_gids.len().min(MENTIONED)];
            let name = format!("set the groups: setgroups({}, {some:?})", user.additional_gids.len());
            self.call(&name, libc::SYS_setgroups, &arguments);
        }
        let (uid, gid) = (u64::from(user.uid), u64::from(user.gid));
        self.call(&format!("set the group: setresgid({gid})"), libc::SYS_setresgid, &[gid, gid, gid]);
        if uid != 0 {
            // Without it a change from user 0 to another empties the permitted set (capabilities(7)), and `capset`
            // could give the program nothing. The effective set is emptied all the same, and execve clears the flag.
            self.call("keep capabilities", libc::SYS_prctl, &[number(libc::PR_SET_KEEPCAPS), 1, 0, 0, 0]);
        }
        self.call(&format!("set the user: setresuid({uid})"), libc::SYS_setresuid, &[uid, uid, uid]);
        if let Some(umask) = user.umask {
            self.call("set the umask", libc::SYS_umask, &[u64::from(umask & 0o777)]);
        }
    }

    /// Not through a link of procfs: descriptors of the host are still open here (CVE-2024-21626).
    fn enter_cwd(&mut self, process: &Process) -> anyhow::Result<()> {
        let cwd = self.launch.string(&CString::new(process.cwd.as_str()).context("cwd")?);
        let flags = number(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        // `struct open_how`, whose size, 24 bytes, is the last argument: openat2(2).
        let how = self.launch.words(&[flags, 0, ResolveFlags::NO_MAGICLINKS.bits()]);
        let name = format!("chdir to cwd ({:?}) set in config.json failed", process.cwd);
        // The path is absolute, so that it does not matter from where it counts.
        self.call(&name, libc::SYS_openat2, &[0, cwd, how, 24]);
        self.launch.pass_result(0, 0);
        self.call(&name, libc::SYS_fchdir, &[0]);
        Ok(())
    }

    fn wait(&mut self) {
        let Some(start) = self.surroundings.start else { return };
        let report = number(self.surroundings.report.as_raw_fd());
        // As the first process of a pid namespace it would not hear them: pid_namespaces(7).
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            self.launch.end_on(signal);
        }
        let ready = self.launch.words(&[READY.into()]);
        self.call("report", libc::SYS_write, &[report, ready, 8]);
        // Nothing else has to happen at `start`: connecting is the signal, and the socket's end tells `start` that
        // execve succeeded.
        self.call("wait for start", libc::SYS_accept4, &[number(start.as_raw_fd()), 0, 0, number(libc::SOCK_CLOEXEC)]);
        self.launch.pass_result(0, 0);
        // Under the listener's number, which is known here.
        self.call("wait for start", libc::SYS_dup3, &[0, number(start.as_raw_fd()), number(libc::O_CLOEXEC)]);
        self.launch.report_to_result();
    }

    /// The label for the next `execve`, which only the process itself may write, and only with the credentials with
    /// which it opened the file.
    fn label(&mut self, process: &Process) -> anyhow::Result<()> {
        let Some(label) = label(process) else { return Ok(()) };
        let proc = self.surroundings.proc.context("labels need /proc")?;
        let path = self.launch.string(c"thread-self/attr/exec");
        let text = self.launch.bytes(label.as_bytes());
        let name = format!("apply the label {label:?}");
        let flags = number(libc::O_WRONLY | libc::O_CLOEXEC);
        self.call(&name, libc::SYS_openat, &[number(proc.as_raw_fd()), path, flags, 0]);
        self.launch.pass_result(0, 0);
        self.call(&name, libc::SYS_write, &[0, text, label.len() as u64]);
        // The program's path could lead through it.
        self.call(&name, libc::SYS_close, &[number(proc.as_raw_fd())]);
        Ok(())
    }

    fn raise_ambient(&mut self, sets: Sets) {
        self.launch.try_call(libc::SYS_prctl, &[number(libc::PR_CAP_AMBIENT), PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]);
        for capability in (0..64).filter(|capability| sets.ambient & sets.inheritable & (1 << capability) != 0) {
            let arguments = [number(libc::PR_CAP_AMBIENT), PR_CAP_AMBIENT_RAISE, capability, 0, 0];
            // What is not inheritable cannot be ambient, and the rest needs no_new_privs off on some systems.
            self.launch.try_call(libc::SYS_prctl, &arguments);
        }
    }

    fn set_capabilities(&mut self, sets: Sets) {
        let Sets { effective, permitted, inheritable, .. } = sets;
        let sets = [effective, permitted, inheritable].map(u64::to_le_bytes);
        // The lower halves of all, then the upper ones.
        let data = [0..4, 4..8].map(|half| sets.map(|set| set[half.clone()].to_vec()).concat()).concat();
        // _LINUX_CAPABILITY_VERSION_3, and 0 for the calling thread: capset(2).
        let header = self.launch.bytes(&[&0x2008_0522_u32.to_ne_bytes()[..], &[0; 4]].concat());
        let data = self.launch.bytes(&data);
        let sets = format!("effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}");
        self.call(&format!("set capabilities: capset({sets})"), libc::SYS_capset, &[header, data]);
    }

    /// `struct sock_fprog` has a count of eight-byte instructions and a pointer. Its first member is 16 bits wide; on
    /// a machine of little byte order the word's lower half is that.
    fn load(&mut self, filter: &Filter) {
        let code = self.launch.bytes(&filter.program);
        let program = self.launch.words(&[(filter.program.len() / 8) as u64, code]);
        let set = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        let name =
            format!("load the seccomp filter: seccomp({:#x}, {} instructions)", filter.flags, filter.program.len() / 8);
        self.call(&name, libc::SYS_seccomp, &[set, filter.flags, program]);
        if filter.listener.is_none() {
            return;
        }
        // The parent fetches the listener by its number and answers; write and read are all that this takes.
        let message = self.launch.words(&[5, 0]);
        self.launch.store_result(message + 4);
        let socket = number(self.surroundings.report.as_raw_fd());
        self.call("pass the seccomp listener", libc::SYS_write, &[socket, message, 8]);
        self.call("pass the seccomp listener", libc::SYS_read, &[socket, message, 1]);
    }
}

const SYS_ADMIN: u64 = 1 << 21;
/// How many groups an error names.
const MENTIONED: usize = 8;
const KEYCTL_JOIN_SESSION_KEYRING: u64 = 1;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

fn number(value: i32) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
