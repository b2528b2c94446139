//! What fails once: an error in each system call of a run that succeeds, in the keeper's above all, and files that are
//! damaged. `make test-faults` walks through all of it; `make test` takes a sample.

mod damage;
mod keeper;
mod power;
mod scenarios;
mod walk;

use std::collections::BTreeMap;

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    let kinds = [walk::tests(), keeper::tests(), damage::tests(), power::tests()];
    kinds.into_iter().flatten().collect()
}

/// Tells whether everything is walked through, and not a sample.
fn whole() -> bool {
    std::env::var_os("FAULTS").is_some_and(|value| !value.is_empty())
}

/// Returns at most `count` of the items, evenly spread.
fn sample<T>(items: Vec<T>, count: usize) -> Vec<T> {
    let all = items.len();
    let taken = |place: usize| all <= count || place * count / all != (place + 1) * count / all;
    items.into_iter().enumerate().filter(|(place, _)| taken(*place)).map(|(_, item)| item).collect()
}

/// Returns the error that a system call fails with: what users meet of each sort.
fn error_of(call: &str) -> &'static str {
    match call {
        "openat" | "openat2" | "socket" | "socketpair" | "pipe2" | "accept4" | "fcntl" | "memfd_create" | "dup" => {
            "EMFILE"
        }
        "clone" | "clone3" | "fork" | "vfork" => "EAGAIN",
        "execve" => "ENOMEM",
        "write" | "pwrite64" | "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "symlinkat" | "linkat" => {
            "ENOSPC"
        }
        _ => "EIO",
    }
}

/// System calls that are left alone: of Rust's start, of memory, and those that cannot fail.
fn is_left_alone(call: &str) -> bool {
    let memory = ["brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "sigaltstack", "prlimit64", "futex"];
    let time = ["nanosleep", "clock_nanosleep", "clock_gettime", "sched_yield", "sched_getaffinity", "restart_syscall"];
    // An error that is injected leaves the descriptor open, which the kernel never does.
    let own =
        ["close", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "exit", "exit_group", "gettid", "getpid"];
    // std's own `Command::output` panics where poll(2) fails.
    let others =
        ["poll", "ppoll", "getuid", "geteuid", "getgid", "getegid", "getppid", "umask", "uname", "seccomp", "prctl"];
    call.starts_with("rt_") || memory.iter().chain(&time).chain(&own).chain(&others).any(|one| *one == call)
}

/// Returns the calls of a trace that are to fail, each as its name and which of that name it is.
fn points(trace: &str) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut of_process = BTreeMap::<(&str, String), usize>::new();
    for line in trace.lines() {
        // strace -f: the process, then the call; `<... call resumed>` is the end of one. It counts for each process.
        let (process, rest) = line.split_once(' ').map_or(("", ""), |(process, rest)| (process, rest.trim_start()));
        let call = rest.split('(').next().unwrap_or_default();
        if rest.contains('(') && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !is_left_alone(call) {
            let number = of_process.entry((process, call.to_owned())).or_default();
            *number += 1;
            counts.entry(call.to_owned()).and_modify(|most| *most = (*most).max(*number)).or_insert(*number);
        }
    }
    let per_call = if whole() { 60 } else { 6 };
    counts
        .into_iter()
        .flat_map(|(call, count)| sample((1..=count).collect(), per_call).into_iter().map(move |n| (call.clone(), n)))
        .filter(|(call, number)| call != "execve" || *number > 1)
        .collect()
}
