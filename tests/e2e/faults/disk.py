"""A disk that can lose its power: one file of a FUSE file system, whose writes and flushes are logged, and what of them
is there after a cut.

    disk.py serve DIRECTORY IMAGE LOG   mounts it: DIRECTORY/disk is IMAGE
    disk.py cut LOG BEFORE AFTER SEED   makes AFTER of BEFORE, an image: all writes up to a flush, and of the later ones
                                        none, some pages, or all
"""
import ctypes
import os
import random
import shutil
import struct
import sys

FLUSH = 2**64 - 1
PAGE = 4096
LOOKUP, FORGET, GETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 14, 15, 16, 17, 18, 20
FLUSHED, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 25, 26, 27, 28, 29, 36, 42
ENOENT, ENOSYS = 2, 38


def attributes(node, size):
    mode = 0o040755 if node == 1 else 0o100600
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def answer(opcode, node, body, image, log):
    """Returns what the kernel is answered: bytes, or the number of an error."""
    size = os.fstat(image).st_size
    if opcode == INIT:
        _, minor, readahead = struct.unpack_from("<3I", body)
        return struct.pack("<4I2H2I2H8I", 7, min(minor, 31), readahead, 0, 16, 12, 1 << 17, 1, 32, 0, *[0] * 8)
    if opcode == LOOKUP:
        if body.rstrip(b"\0") != b"disk":
            return ENOENT
        return struct.pack("<4Q2I", 2, 0, 3600, 3600, 0, 0) + attributes(2, size)
    if opcode == GETATTR:
        return struct.pack("<Q2I", 3600, 0, 0) + attributes(node, size)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<Q2I", 0, 0, 0)
    if opcode == READ:
        _, offset, count = struct.unpack_from("<2QI", body)
        return os.pread(image, count, offset)
    if opcode == WRITE:
        _, offset, count = struct.unpack_from("<2QI", body)
        data = body[40:40 + count]
        log.write(struct.pack("<QI", offset, count) + data)
        os.pwrite(image, data, offset)
        return struct.pack("<2I", count, 0)
    if opcode == FSYNC:
        log.write(struct.pack("<QI", FLUSH, 0))
        log.flush()
        return b""
    if opcode == STATFS:
        return bytes(80)
    return b"" if opcode in (RELEASE, FLUSHED, READDIR, RELEASEDIR) else ENOSYS


def serve(directory, image, log):
    image, log = os.open(image, os.O_RDWR), open(log, "wb")
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"disk", os.fsencode(directory), b"fuse", 0, options) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    if os.fork() != 0:
        return
    os.setsid()
    while True:
        try:
            request = os.read(fuse, 1 << 18)
        except OSError:
            # It was unmounted.
            return
        _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
        if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
            continue
        said = answer(opcode, node, request[40:], image, log)
        error, data = (said, b"") if isinstance(said, int) else (0, said)
        os.write(fuse, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)


def events(log):
    """Returns the writes and flushes of a log: offset and bytes, or None for a flush."""
    found, at = [], 0
    with open(log, "rb") as file:
        text = file.read()
    while at < len(text):
        offset, count = struct.unpack_from("<QI", text, at)
        found.append(None if offset == FLUSH else (offset, text[at + 12:at + 12 + count]))
        at += 12 + count
    return found


def cut(log, before, after, seed):
    chance = random.Random(int(seed))
    all_events = events(log)
    end = chance.randrange(len(all_events) + 1)
    flushes = [place for place, event in enumerate(all_events[:end]) if event is None]
    flushed = flushes[-1] if flushes else 0
    kept = chance.choice([0.0, 0.5, 1.0])
    shutil.copyfile(before, after)
    with open(after, "r+b") as image:
        for place, event in enumerate(all_events[:end]):
            for start in range(0, len(event[1]) if event else 0, PAGE):
                if place < flushed or chance.random() < kept:
                    image.seek(event[0] + start)
                    image.write(event[1][start:start + PAGE])
    print(f"{end} of {len(all_events)} events, the last flush at {flushed}, {kept} of the later")


if __name__ == "__main__":
    {"serve": serve, "cut": cut}[sys.argv[1]](*sys.argv[2:])
