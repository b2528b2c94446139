#!/usr/bin/env python3
"""without.py CALL,... COMMAND...: executes a command on a kernel that seems not to have these system calls."""

import ctypes
import os
import struct
import sys

# Since 424 a call has one number on all architectures.
NUMBERS = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "faccessat2": 439, "mount_setattr": 442,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
}  # fmt: skip
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ENOSYS = 0x7FFF0000, 0x00050000 | 38

steps = [(LOAD, 0, 0, 0)]
for name in sys.argv[1].split(","):
    steps += [(JUMP_IF_EQUAL, 0, 1, NUMBERS[name]), (RETURN, 0, 0, ENOSYS)]
steps.append((RETURN, 0, 0, ALLOW))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
# prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)
if ctypes.CDLL(None).prctl(22, 2, program) != 0:
    sys.exit("the filter is refused")
os.execvp(sys.argv[2], sys.argv[2:])
