//! Programs for the kernel's virtual machine that decide on devices: `bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::raw::{check, opened};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The same for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// Attaches a program of device rules to a cgroup2 directory, and detaches those that were attached before.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` or `CAP_SYS_ADMIN` in the first user namespace; `EINVAL` where the kernel
/// has no such programs or the verifier refuses this one.
pub fn attach_device_program(cgroup: impl AsFd, instructions: &[u64]) -> io::Result<()> {
    let target = number(cgroup.as_fd().as_raw_fd());
    // What systemd or an older `update` has attached. With BPF_F_ALLOW_MULTI all programs of a cgroup must allow an
    // access (bpf-cgroup: `BPF_PROG_RUN_ARRAY` combines them by "and"), so the new one is attached first and the old
    // ones go then: at no moment is there none.
    let before = attached(target)?;
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        // No helper of the kernel's that asks for the GPL is called.
        license: c"Apache".as_ptr() as u64,
        ..Load::default()
    };
    let program = opened(bpf(PROG_LOAD, &mut load)?)?;
    let attach = |program: &OwnedFd, flags| Attach {
        target,
        program: number(program.as_raw_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags,
    };
    bpf(PROG_ATTACH, &mut attach(&program, ALLOW_MULTI))?;
    for id in before {
        let old = opened(bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0])?)?;
        bpf(PROG_DETACH, &mut attach(&old, 0))?;
    }
    Ok(())
}

fn attached(target: u32) -> io::Result<Vec<u32>> {
    // The kernel attaches no more: BPF_CGROUP_MAX_PROGS.
    let mut ids = vec![0_u32; 64];
    let mut query =
        Query { target, kind: ATTACH_CGROUP_DEVICE, ids: ids.as_mut_ptr() as u64, count: 64, ..Query::default() };
    bpf(PROG_QUERY, &mut query)?;
    ids.retain(|id| *id != 0);
    Ok(ids)
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a plain structure of the given size whose pointers refer to live memory of the sizes named
    // in it; the kernel writes back at most into that memory.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

fn number(fd: i32) -> u32 {
    u32::try_from(fd).unwrap_or(u32::MAX)
}
