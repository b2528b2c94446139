#!/usr/bin/env python3
"""lent.py GIVEN PID...: prints what processes of a container can reach of the host's own file systems and may change: mounts that are not
read-only, and descriptors through such mounts. GIVEN is a colon-separated list of what they were given on purpose: directories with all in
them, and files."""
import os
import stat
import sys


def mounts(pid):
    for line in open(f"/proc/{pid}/mountinfo"):
        fields = line.split()
        yield fields[0], fields[2], fields[4].encode().decode("unicode_escape"), fields[5].split(",")


def identity(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_only(pid, fd):
    mount = next(line.split()[1] for line in open(f"/proc/{pid}/fdinfo/{fd}") if line.startswith("mnt_id:"))
    return any(number == mount and "ro" in options for number, _, _, options in mounts(pid))


def beyond_reach(pid, path):
    """A device whose owner is nobody in the process's user namespace: no capability there reaches its mode and owner."""
    found = os.stat(path)
    maps = [[int(word) for word in line.split()] for line in open(f"/proc/{pid}/uid_map")]
    return stat.S_ISCHR(found.st_mode) and not any(first <= found.st_uid < first + count for _, first, count in maps)


given = set()
for path in filter(None, sys.argv[1].split(":")):
    given.add(identity(path))
    for directory, _, files in os.walk(path):
        given |= {identity(directory)} | {identity(os.path.join(directory, name)) for name in files}
hosts = {device for _, device, _, _ in mounts("self")}
for pid in sys.argv[2:]:
    name = open(f"/proc/{pid}/comm").read().strip()
    for _, device, place, options in mounts(pid):
        if device in hosts and "ro" not in options and identity(f"/proc/{pid}/root{place}") not in given:
            print(f"{pid} ({name}) mount {place} {','.join(options)}")
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        found = identity(path)
        lent = found and f"{os.major(found[0])}:{os.minor(found[0])}" in hosts and found not in given
        if lent and not read_only(pid, fd) and not beyond_reach(pid, path):
            print(f"{pid} ({name}) descriptor {fd} {os.readlink(path)}")
