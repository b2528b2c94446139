"""Layers that hold one of everything that a layer may hold, on which correct extractors agree."""

import struct
import tarfile

from oci import EPOCH, Layer

# VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE permitted (linux/capability.h).
NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
ODD_NAMES = ["sp ace", "new\nline", "back\\slash", "glob*?[a]", "-dash", "ünïcödé", "日本語", ".hidden", "..dots", "...", "wh.plain"]


def xattr(name, value):
    return {"pax_headers": {"SCHILY.xattr." + name: value.decode("utf-8", "surrogateescape")}}


def layers():
    return [layer.bytes() for layer in (lower(), upper(), Layer(), late())]


def lower():
    layer = Layer()
    for name in ("bin", "etc", "usr", "usr/lib", "dev", "hl", "opaque", "opaque/sub", "gone", "gone/deep", "kept"):
        layer.directory(name)
    layer.directory("tmp", mode=0o1777).directory("private", mode=0o700).directory("setgid", mode=0o2775, gid=50)
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    layer.file("etc/group", b"root:x:0:\nappgroup:x:1001:\nextra:x:2000:app\n")
    layer.file("bin/setuid", mode=0o4755).file("bin/setgid", mode=0o2755).file("bin/none", mode=0)
    layer.file("owned", uid=1000, gid=1001, mode=0o640).file("owned-large-ids", uid=3_000_000, gid=4_000_000)
    layer.file("empty", b"").file("large", bytes(range(256)) * 8192)
    layer.symlink("lib", "usr/lib").symlink("absolute", "/etc/passwd").symlink("dangling", "/no/such")
    layer.symlink("loop", "loop").symlink("long-link", "x/" * 150 + "end")
    layer.file("n" * 200).file("/".join(["d" + "y" * 60] * 4 + ["f" * 200]))
    for name in ODD_NAMES:
        layer.file("odd/" + name)
    layer.file("hl/a", b"linked\n", mode=0o600, uid=5).hardlink("hl/b", "hl/a").hardlink("bin/c", "hl/a")
    layer.add("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    layer.add("dev/block", tarfile.BLKTYPE, devmajor=7, devminor=200, mode=0o660, gid=6)
    layer.add("dev/fifo", tarfile.FIFOTYPE, mode=0o622)
    layer.file("xattr/user", **xattr("user.test", b"value")).file("xattr/binary", **xattr("user.bytes", b"\x00\x01=\n\xff"))
    layer.file("xattr/capability", mode=0o755, **xattr("security.capability", NET_BIND))
    layer.file("xattr/trusted", **xattr("trusted.test", b"1")).directory("xattr/directory", **xattr("user.d", b"d"))
    layer.file("time/nanoseconds", pax_headers={"mtime": "1600000000.123456789"}).file("time/zero", mtime=0)
    layer.file("time/before-the-epoch", pax_headers={"mtime": "-1000.5"}).symlink("time/link", "x", mtime=1_234_567_890)
    layer.file("opaque/hidden").file("opaque/sub/hidden").file("gone/a").file("gone/deep/x").file("kept/a")
    layer.file("file-to-directory").directory("directory-to-file").file("directory-to-file/x")
    layer.file("replaced", b"old\n", mode=0o600).file("pair/a", b"one\n").hardlink("pair/b", "pair/a")
    return layer


def upper():
    layer = Layer()
    layer.directory("opaque").opaque("opaque").file("opaque/new")
    layer.whiteout("gone/a").whiteout("gone/deep").file("gone/new").whiteout("never-was")
    layer.whiteout("directory-to-file").file("directory-to-file", b"now a file\n")
    layer.whiteout("file-to-directory").directory("file-to-directory").file("file-to-directory/in")
    layer.file("replaced", b"new and longer\n", uid=7).whiteout("pair/a")
    layer.directory("kept", mode=0o711, uid=9, mtime=EPOCH + 5)
    return layer


def late():
    layer = Layer()
    layer.file("parents/nobody/named/file", uid=3)
    layer.file("sparse", b"A" * 4096 + b"\0" * (4 << 20) + b"B" * 4096)
    return layer
