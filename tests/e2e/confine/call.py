#!/usr/bin/env python3
"""call.py PID CALL [ARGUMENT]...: has another process make a system call, and prints what the kernel answers: `ok` or the
name of the error. Arguments are numbers or texts. The process goes on as if nothing had happened: ptrace(2), x86-64.
A process that runs is let go and stopped again, until it is stopped in a system call."""

import ctypes
import errno
import os
import sys
import time

NUMBERS = {
    "open": 2, "listen": 50, "socket": 41, "execve": 59, "kill": 62, "mkdir": 83, "rmdir": 84, "unlink": 87, "ptrace": 101,
    "mount": 165, "unshare": 272, "setns": 308, "bpf": 321, "io_uring_setup": 425,
}
PEEKDATA, POKEDATA, SINGLESTEP, GETREGS, SETREGS, ATTACH, DETACH = 2, 5, 9, 12, 13, 16, 17
WALL = 0x40000000
SYSCALL = 0x050F

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    """struct user_regs_struct."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
    ).split()]


def ptrace(request, pid, address=0, data=0):
    ctypes.set_errno(0)
    answer = libc.ptrace(request, pid, address, data)
    if answer == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}")
    return answer


def write(pid, place, text):
    text += b"\0" * (8 - len(text) % 8)
    for at in range(0, len(text), 8):
        ptrace(POKEDATA, pid, place + at, int.from_bytes(text[at:at + 8], "little"))


def stop_in_a_call(pid):
    for _ in range(1000):
        ptrace(ATTACH, pid)
        os.waitpid(pid, WALL)
        registers = Registers()
        ptrace(GETREGS, pid, 0, ctypes.addressof(registers))
        if ptrace(PEEKDATA, pid, registers.rip - 2) & 0xFFFF == SYSCALL:
            return registers
        ptrace(DETACH, pid)
        time.sleep(0.01)
    sys.exit("the process is never in a system call")


def call(pid, number, arguments, before):
    words, place = [], before.rsp - 4096
    for argument in arguments:
        try:
            words.append(int(argument, 0))
        except ValueError:
            write(pid, place, argument.encode())
            words.append(place)
            place -= 512
    during = Registers.from_buffer_copy(before)
    during.rip, during.rax, during.orig_rax = before.rip - 2, number, 2**64 - 1
    for register, word in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), words + [0] * 6):
        setattr(during, register, word % 2**64)
    ptrace(SETREGS, pid, 0, ctypes.addressof(during))
    ptrace(SINGLESTEP, pid)
    os.waitpid(pid, WALL)
    after = Registers()
    ptrace(GETREGS, pid, 0, ctypes.addressof(after))
    ptrace(SETREGS, pid, 0, ctypes.addressof(before))
    return ctypes.c_longlong(after.rax).value


def main():
    pid, name, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    before = stop_in_a_call(pid)
    try:
        answer = call(pid, NUMBERS[name], arguments, before)
    finally:
        ptrace(DETACH, pid)
    print("ok" if answer >= 0 else errno.errorcode[-answer])


if __name__ == "__main__":
    main()
