//! The system calls that a container may make: docker's default profile, stated as what it allows, or a file in
//! docker's or the runtime specification's form.

mod file;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::capability::Capability;

pub(crate) use file::parse;

/// What every container may do, by subject. Names that an architecture lacks are passed over by the runtimes.
const ALLOWED: [&str; 12] = [
    // Files and directories by name.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat fstatat64 futimesat getcwd \
     inotify_add_watch lchown lchown32 link linkat listmount lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
     newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 \
     statmount statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes",
    // Open files.
    "_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fanotify_mark \
     fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate \
     ftruncate64 getdents getdents64 inotify_init inotify_init1 inotify_rm_watch ioctl lseek pipe pipe2 pread64 preadv \
     preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee \
     vmsplice write writev",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
     lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting for events.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
     eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    // Asynchronous input and output.
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect \
     mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Processes and threads.
    "capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getpgid getpgrp getpid \
     getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 \
     restart_syscall riscv_hwprobe rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
     sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
     sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setpgid \
     setpriority setrlimit setsid sysinfo tgkill times tkill ugetrlimit uname uretprobe vfork wait4 waitid waitpid",
    // Users and groups.
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid \
     getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
     setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Signals.
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn",
    // Clocks and timers.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep setitimer time timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
     timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets; making one is filtered below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
     send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Locks, queues and memory between processes; looking into each other since Linux 4.8, where ptrace obeys seccomp.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr mq_notify mq_open \
     mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd \
     process_vm_readv process_vm_writev ptrace semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt \
     shmget",
];

/// What comes with a capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// `CLONE_NEW*`, without `CLONE_NEWTIME`: what `clone(2)` may not be asked for without `CAP_SYS_ADMIN`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Domains, 32-bit programs and address layouts that `personality(2)` may choose; the last one asks only.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// An architecture, as Go and as seccomp name it, with those that run on the same kernel, and what it has of its own.
struct Architecture {
    go: &'static str,
    names: &'static [&'static str],
    calls: &'static str,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture {
        go: "amd64",
        names: &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        calls: "arch_prctl modify_ldt",
    },
    Architecture {
        go: "arm64",
        names: &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        calls: "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    },
    Architecture { go: "riscv64", names: &["SCMP_ARCH_RISCV64"], calls: "riscv_flush_icache" },
];

/// Returns the name that Go has for the architecture this program was built for.
pub(crate) fn host_architecture() -> String {
    layout::Platform::host().architecture
}

/// Returns docker's default profile for a set of capabilities (runtime-spec, config-linux.md, "Seccomp").
pub(crate) fn default_profile(capabilities: &BTreeSet<Capability>) -> Value {
    let architecture = ARCHITECTURES.iter().find(|architecture| architecture.go == host_architecture());
    let mut allowed: BTreeSet<&str> = ALLOWED.iter().flat_map(|names| names.split_ascii_whitespace()).collect();
    for (capability, names) in WITH_CAPABILITY {
        if capability.parse().is_ok_and(|capability| capabilities.contains(&capability)) {
            allowed.extend(names.split_ascii_whitespace());
        }
    }
    allowed.extend(architecture.iter().flat_map(|architecture| architecture.calls.split_ascii_whitespace()));
    let mut rules = vec![json!({"names": allowed, "action": "SCMP_ACT_ALLOW"})];
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", 0, value, None)));
    // All but the kernel's ciphers and the hypervisor.
    for (value, comparison) in [(AF_ALG, "SCMP_CMP_LT"), (AF_ALG + 1, "SCMP_CMP_EQ"), (AF_VSOCK, "SCMP_CMP_GT")] {
        rules.push(json!({
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": comparison}],
        }));
    }
    if !capabilities.contains(&Capability::SYS_ADMIN) {
        rules.push(allow_if("clone", 0, NEW_NAMESPACES, Some(0)));
        // Its flags lie in memory, where a filter cannot look. ENOSYS makes libc fall back on clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1});
    if let Some(architecture) = architecture {
        profile["architectures"] = json!(architecture.names);
    }
    profile["syscalls"] = Value::Array(rules);
    profile
}

/// Allows a call if its argument is `value`, or under the mask `value` is `masked`.
fn allow_if(name: &str, index: u32, value: u64, masked: Option<u64>) -> Value {
    let argument = match masked {
        None => json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"}),
        Some(masked) => json!({"index": index, "value": value, "valueTwo": masked, "op": "SCMP_CMP_MASKED_EQ"}),
    };
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str]) -> BTreeSet<String> {
        let capabilities = capabilities.iter().map(|name| name.parse().unwrap()).collect();
        let profile = default_profile(&capabilities);
        let names = profile["syscalls"][0]["names"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let without = allowed(&[]);
        for name in ["mount", "unshare", "setns", "bpf", "clone", "clone3", "io_uring_setup", "keyctl", "userfaultfd"] {
            assert!(!without.contains(name), "{name}");
        }
        for name in ["read", "ptrace", "openat2", "landlock_restrict_self"] {
            assert!(without.contains(name), "{name}");
        }
        let with: Vec<String> = allowed(&["SYS_TIME"]).difference(&without).cloned().collect();
        assert_eq!(with, ["clock_settime", "clock_settime64", "settimeofday", "stime"]);
        assert!(allowed(&["SYS_ADMIN"]).contains("clone3"));
    }

    #[test]
    fn arguments_are_filtered() {
        let profile = default_profile(&BTreeSet::new());
        let rules = profile["syscalls"].as_array().unwrap();
        let of =
            |name: &str| rules.iter().filter(|rule| rule["names"][0] == name && rule.get("args").is_some()).count();
        assert_eq!((of("personality"), of("socket"), of("clone")), (5, 3, 1));
        let clone3 = rules.iter().find(|rule| rule["names"][0] == "clone3").unwrap();
        assert_eq!((&clone3["action"], &clone3["errnoRet"]), (&json!("SCMP_ACT_ERRNO"), &json!(38)));
        let privileged = default_profile(&[Capability::SYS_ADMIN].into());
        assert!(!privileged["syscalls"].as_array().unwrap().iter().any(|rule| rule["names"][0] == "clone3"));
    }

    /// Returns what a profile says, a call and its condition each.
    fn facts(profile: &Value) -> BTreeSet<String> {
        let mut facts = BTreeSet::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            let condition = match (&rule["args"][0], &rule["errnoRet"]) {
                (Value::Null, Value::Null) => String::new(),
                (Value::Null, errno) => format!(" errno {errno}"),
                (argument, _) => {
                    let operation = argument["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_");
                    format!(" argument {} {operation} {}", argument["index"], argument["value"])
                }
            };
            let names = rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            facts.extend(names.map(|name| format!("{name}{condition}")));
        }
        facts
    }

    /// Returns the same of docker's table.
    fn docker(capabilities: &BTreeSet<Capability>) -> BTreeSet<String> {
        let has = |name: &str| capabilities.contains(&name.parse().unwrap());
        let mut facts = BTreeSet::new();
        for line in include_str!("seccomp/docker.txt").lines().filter(|line| !line.starts_with('#')) {
            let (condition, names) = line.split_once(": ").unwrap();
            let (holds, rest) = match condition.split_once(' ') {
                Some(("with", name)) => (has(name), ""),
                Some(("without", rest)) => rest.split_once(' ').map(|(name, rest)| (!has(name), rest)).unwrap(),
                Some(("on", names)) => (names.split(',').any(|name| name == host_architecture()), ""),
                Some(_) => (true, condition),
                None => (true, ""),
            };
            let fact = |name: &str| format!("{name} {rest}").trim_end().to_owned();
            facts.extend(names.split(' ').filter(|_| holds).map(fact));
        }
        facts
    }

    #[test]
    fn the_profile_is_docker_s() {
        let all: BTreeSet<Capability> = WITH_CAPABILITY.iter().map(|(name, _)| name.parse().unwrap()).collect();
        let single = all.iter().map(|capability| BTreeSet::from([*capability]));
        for capabilities in single.chain([BTreeSet::new(), all.clone()]) {
            let (ours, docker) = (facts(&default_profile(&capabilities)), docker(&capabilities));
            let wider: Vec<_> = ours.difference(&docker).collect();
            let narrower: Vec<_> = docker.difference(&ours).collect();
            assert!(
                wider.is_empty() && narrower.is_empty(),
                "{capabilities:?}: wider {wider:?}, narrower {narrower:?}"
            );
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        let names: Vec<&str> = ALLOWED.iter().flat_map(|names| names.split_ascii_whitespace()).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    }
}
