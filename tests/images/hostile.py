#!/usr/bin/env python3
"""hostile.py DIRECTORY VICTIM: writes an image layout for each thing that a layer must not do or may oddly do.

VICTIM is a directory outside that no extractor may touch: it holds the file `keep`. DIRECTORY/cases.json lists each
layout with what is expected: `refused` is part of the reason, or null where the image is to be unpacked; then `present`
and `absent` are paths of the tree (without following links), and `content` what files hold.
"""

import base64
import gzip
import json
import os
import struct
import subprocess
import sys
import tarfile

from oci import CONFIG, LAYER, MANIFEST, Layer, Layout, digest, to_json

OUT, VICTIM = sys.argv[1], sys.argv[2]
UP = "../" * 20
CASES = []


def case(name, layers, refused=None, present=(), absent=(), content=None, change=None, options=()):
    """Writes one layout. A layer is a Layer, tar bytes, or a pair of blob bytes and media type suffix with the tar."""
    layout = Layout(f"{OUT}/{name}")
    blobs, tars = [], []
    for layer in layers:
        blob, suffix, tar = layer if isinstance(layer, tuple) else (None, "", layer)
        tar = tar.bytes() if isinstance(tar, Layer) else tar
        blobs.append(layout.put(tar if blob is None else blob, LAYER + suffix))
        tars.append(tar)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
    }
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": blobs}
    if change:
        change(layout, manifest, config)
    manifest["config"] = layout.put(to_json(config), CONFIG)
    layout.finish(layout.put(to_json(manifest), MANIFEST))
    CASES.append({
        "name": name,
        "refused": refused,
        "present": list(present),
        "absent": list(absent),
        "content": content or {},
        "options": list(options),
    })


def record(key, value):
    value = value if isinstance(value, bytes) else value.encode()
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def raw_header(name=b"f", kind=b"0", size=0, patches=(), magic=b"ustar\x0000", checksum=True):
    """A header block by hand: `patches` are offsets and bytes."""
    block = bytearray(512)
    fields = [(0, name), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"), (124, b"%011o\0" % size),
              (136, b"%011o\0" % 1_700_000_000), (156, kind), (257, magic), *patches]
    for offset, value in fields:
        block[offset:offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) + (0 if checksum else 1))
    return bytes(block)


def padded(data):
    return data + b"\0" * (-len(data) % 512)


def pax(*records, kind=b"x"):
    body = b"".join(record(key, value) for key, value in records)
    return raw_header(b"pax", kind, len(body)) + padded(body)


END = b"\0" * 1024
plain = Layer


def file(name=b"f", data=b"x\n", **more):
    return raw_header(name, b"0", len(data), **more) + padded(data)


def paths():
    for name, path in (("dotdot", UP + VICTIM[1:] + "/pwned"), ("dotdot-short", "../pwned"), ("dotdot-middle", "a/../../pwned"),
                       ("dotdot-absolute", "/../pwned"), ("dotdot-end", "a/../..")):
        case(f"path-{name}", [plain().file(path)], "path leads out of the root")
    case("path-absolute", [plain().file(VICTIM + "/pwned")], present=[VICTIM[1:] + "/pwned"])
    case("path-inner-dotdot", [plain().file("a/../b")], present=["b"])
    case("path-long-name", [plain().file("n" * 256)], "name is longer")
    case("path-deep", [plain().file("d/" * 1500 + "f")], present=["d/" * 60 + "d"])
    case("path-deeper", [plain().file("d/" * 2100 + "f")], "path is longer")
    case("path-long", [plain().file("/".join(["x" * 200] * 30))], "path is longer")
    case("path-nul", [pax(("path", b"a\0b")) + file() + END], "NUL")
    case("path-empty", [pax(("linkpath", "x")) + raw_header(b"", b"0") + END], "the root is not a directory")
    case("path-not-utf8", [file(b"\xff\xfe") + END])
    case("path-control", [file(b"a\x1b[2Jb") + file(b"bell\x07") + END])
    case("path-below-file", [plain().file("a").file("a/b")], "a is not a directory")
    case("path-below-device", [plain().add("a", tarfile.CHRTYPE, devmajor=1, devminor=3).file("a/b")], "a is not a directory")
    for kind, name in ((tarfile.REGTYPE, "file"), (tarfile.SYMTYPE, "symlink"), (tarfile.LNKTYPE, "hardlink"), (tarfile.FIFOTYPE, "fifo")):
        case(f"root-{name}", [plain().add(".", kind, linkname=VICTIM)], "the root is not a directory")
    case("root-symlink-slash", [plain().symlink("./", VICTIM).file("pwned")], "the root is not a directory")


def links():
    follow = [VICTIM[1:] + "/pwned"]
    case("symlink-absolute", [plain().symlink("evil", VICTIM).file("evil/pwned")], present=follow)
    case("symlink-relative", [plain().symlink("evil", UP + VICTIM[1:]).file("evil/pwned")], present=follow)
    case("symlink-two-layers", [plain().symlink("evil", VICTIM), plain().file("evil/pwned")])
    case("symlink-chain", [plain().directory("a").symlink("a/b", "..").symlink("a/c", "b/" + UP + VICTIM[1:]).file("a/c/pwned")],
         present=follow)
    case("symlink-loop", [plain().symlink("l", "l").file("l/f")], "too many symbolic links")
    case("symlink-loop-of-two", [plain().symlink("a", "b").symlink("b", "a").file("a/f")], "too many symbolic links")
    case("symlink-to-file", [plain().file("f").symlink("l", "f").file("l/x")], "f is not a directory")
    case("symlink-to-proc", [plain().symlink("p", "/proc/self/root" + VICTIM).file("p/pwned")])
    case("symlink-empty", [plain().symlink("s", "")], "symbolic link without a target")
    case("symlink-overwritten", [plain().symlink("s", VICTIM + "/keep").file("s", b"overwritten\n")], content={"s": "overwritten\n"})
    case("symlink-overwritten-above", [plain().symlink("s", VICTIM + "/keep"), plain().file("s", b"overwritten\n")])
    case("symlink-made-directory", [plain().symlink("s", VICTIM).directory("s", mode=0o777, uid=1234).file("s/in")], present=["s/in"])
    case("symlink-device-through", [plain().symlink("s", VICTIM).add("s/null", tarfile.CHRTYPE, devmajor=1, devminor=3)],
         present=[VICTIM[1:] + "/null"])
    case("hardlink-outside", [plain().hardlink("h", UP + VICTIM[1:] + "/keep").file("h", b"overwritten\n")], "path leads out of the root")
    case("hardlink-absolute", [plain().hardlink("h", VICTIM + "/keep")], "which is not in the layer before it")
    case("hardlink-through-symlink", [plain().symlink("d", VICTIM).hardlink("h", "d/keep")], "which is not in the layer before it")
    case("hardlink-to-symlink", [plain().symlink("s", VICTIM + "/keep").hardlink("h", "s").file("h", b"overwritten\n")],
         content={"h": "overwritten\n"})
    case("hardlink-to-directory", [plain().directory("d").hardlink("h", "d")], "hard link to a directory")
    case("hardlink-to-root", [plain().hardlink("h", ".")], "hard link to the root")
    case("hardlink-to-itself", [plain().file("f").hardlink("f", "f")], content={"f": "x\n"})
    case("hardlink-to-itself-missing", [plain().hardlink("f", "f")], "which is not in the layer before it")
    case("hardlink-over-directory", [plain().file("f").directory("d").file("d/x").hardlink("d", "f")], content={"d": "x\n"})
    case("hardlink-over-own-target", [plain().directory("d").file("d/x").hardlink("d", "d/x")], "hard link to d/x")
    case("hardlink-to-whiteout", [plain().file("a"), plain().whiteout("a").hardlink("b", "a")], "which is not in the layer before it")
    case("hardlink-not-there", [plain().hardlink("h", "nothing")], "which is not in the layer before it")


def whiteouts():
    case("whiteout-through-symlink", [plain().symlink("evil", VICTIM), plain().file("evil/.wh.keep", b"")])
    case("opaque-through-symlink", [plain().symlink("evil", VICTIM), plain().file("evil/.wh..wh..opq", b"")])
    for name, path, reason in (("dotdot", "a/.wh...", "whiteout of .."), ("dot", "a/.wh..", "whiteout of ."),
                               ("empty", "a/.wh.", "whiteout without a name"), ("root-dotdot", ".wh...", "whiteout of ..")):
        case(f"whiteout-{name}", [plain().directory("a").file("a/f"), plain().file(path, b"")], reason)
    case("whiteout-directory", [plain().directory(".wh.a")], "whiteout is a directory")
    case("whiteout-parent", [plain().file(".wh.a/b")], "is a whiteout, not a directory")
    case("whiteout-before-its-file", [plain().file("a", b"old\n"), plain().whiteout("a").file("a", b"new\n")], content={"a": "new\n"})
    case("whiteout-after-its-file", [plain().file("a", b"old\n"), plain().file("a", b"new\n").whiteout("a")], content={"a": "new\n"})
    case("whiteout-after-its-directory", [plain().file("d/old"), plain().file("d/new").whiteout("d")], present=["d/new"], absent=["d/old"])
    case("whiteout-of-nothing", [plain().file("a"), plain().whiteout("b")], present=["a"], absent=["b"])
    case("opaque-root", [plain().file("old").file("d/old"), plain().file(".wh..wh..opq", b"").file("new")], present=["new"],
         absent=["old", "d"])
    case("opaque-last", [plain().file("d/old"), plain().file("d/new").opaque("d")], present=["d/new"], absent=["d/old"])
    case("opaque-deep", [plain().file("d/e/old"), plain().file("d/e/new").opaque("d")], present=["d/e/new"], absent=["d/e/old"])
    case("opaque-with-whiteout", [plain().file("d/old"), plain().directory("d").whiteout("d/old").opaque("d").whiteout("d/x")],
         present=["d"], absent=["d/old", "d/x"])
    case("aufs-files", [plain().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2").file(".wh..wh.aufs", b"").file("f")],
         present=["f"], absent=[".wh..wh.plnk", ".wh..wh.aufs"])
    case("parents-undescribed", [plain().directory("t", mode=0o1777, uid=5).directory("u", mode=0o700).file("u/v/w"),
                                 plain().file("t/a/b").file("u/x"), plain().file("other"), plain().file("t/c").directory("u")],
         present=["t/a/b", "t/c"])
    case("opaque-undescribed", [plain().directory("d", mode=0o700, uid=7).file("d/old"), plain().file("d/new").opaque("d")],
         present=["d/new"], absent=["d/old"])
    below = plain().directory("d").file("d/a", b"low", mode=0o4751, uid=7, gid=8).symlink("d/s", "a").directory("real").symlink("link", "real")
    case("depends-on-lower-layers", [below, plain().hardlink("b", "d/a").hardlink("t", "d/s").file("link/x", b"in"),
                                     plain().file("d/a", b"new").hardlink("c", "b").hardlink("y", "link/x"),
                                     plain().directory("fresh").file("fresh/f").whiteout("fresh/none").whiteout("t")],
         present=["b", "c", "real/x", "y", "fresh/f"], absent=["t", "fresh/none"],
         content={"b": "low", "c": "low", "d/a": "new", "real/x": "in"})
    case("overlay-xattrs", [plain().directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc",
                                                                   "SCHILY.xattr.trusted.overlay.opaque": "y"}).file("d/f")])


def headers():
    inner = file(b"smuggled") + END
    smuggle = raw_header(b"outer", b"0", 0) + inner + file(b"after") + END
    case("pax-size-over-header", [pax(("size", str(len(inner)))) + smuggle], present=["outer", "after"], absent=["smuggled"])
    case("pax-size-before-gnu-name", [pax(("size", "99999999")) + raw_header(b"././@LongLink", b"L", 5, magic=b"ustar  \0") + padded(b"name\0")
                                      + file() + END], "archive ends")
    case("pax-twice", [pax(("path", "a")) + pax(("path", "b")) + file() + END], "second PAX header")
    case("gnu-name-twice", [(raw_header(b"L", b"L", 2) + padded(b"a\0")) * 2 + file() + END], "second GNU long name")
    case("pax-dangling", [file() + pax(("path", "a")) + END], "extended header without an entry")
    case("pax-bomb", [pax(("comment", "A" * (2 << 20))) + file() + END], "extended header of")
    case("gnu-name-bomb", [raw_header(b"L", b"L", 2 << 20) + b"A" * (2 << 20) + file() + END], "extended header of")
    case("pax-global-path", [pax(("path", "a"), kind=b"g") + file(b"f") + file(b"g") + END], "global PAX header")
    case("pax-global-size", [pax(("size", "0"), kind=b"g") + file() + END], "global PAX header")
    case("pax-global-comment", [pax(("comment", "c"), kind=b"g") + file() + END], present=["f"])
    for name, body in (("no-length", b"path=a\n"), ("length-short", b"5 path=a\n"), ("length-long", b"99 path=a\n"),
                       ("no-equals", b"7 path\n"), ("length-huge", b"99999999999999999999 a=b\n"), ("length-negative", b"-9 a=b\n")):
        case(f"pax-{name}", [raw_header(b"pax", b"x", len(body)) + padded(body) + file() + END], "malformed PAX record")
    for key, value in (("size", "-1"), ("size", "99999999999999999999"), 
                       ("mtime", "1e9"), ("mtime", "99999999999999999999")):
        case(f"pax-{key}-{value}", [pax((key, value)) + file() + END], f"PAX record {key}")
    case("header-checksum", [raw_header(checksum=False) + END], "wrong header checksum")
    case("header-size-negative", [raw_header(patches=[(124, b"\xff" * 12)]) + END], "size -1")
    case("header-size-huge", [raw_header(patches=[(124, b"\x80" + b"\x7f" * 11)]) + END], "number out of range")
    case("header-size-not-octal", [raw_header(patches=[(124, b"0000000009\0")]) + END], "not an octal number")
    for key, value in (("uid", "4294967295"), ("uid", "4294967296"), ("gid", "-1")):
        case(f"pax-{key}-{value}", [pax((key, value)) + file() + END], present=["f"])
    case("header-uid-minus-one", [raw_header(patches=[(108, b"\xff" * 8)]) + END], present=["f"])
    case("padding-missing", [raw_header(b"f", b"0", 4) + b"data"], content={"f": "data"})
    case("pseudo-links", [raw_header(b".wh..wh.plnk/", b"5") + file(b".wh..wh.plnk/1.2") + raw_header(b"f", b"1", patches=[(157, b".wh..wh.plnk/1.2")])
                          + raw_header(b".wh..wh.plnk/../g", b"1", patches=[(157, b"f")]) + END], present=["f", "g"], absent=[".wh..wh.plnk"])
    case("header-type-unknown", [raw_header(kind=b"Z") + END], "unknown tar entry type")
    case("header-type-multivolume", [raw_header(kind=b"M") + END], "unknown tar entry type")
    case("symlink-with-size", [raw_header(b"s", b"2", 512, patches=[(157, b"t")]) + file(b"f") + END], present=["s", "f"])
    for name, major, minor in (("major", b"0010000\0", b"0000003\0"), ("minor", b"0000001\0", b"\x80\x00\x00\x00\x00\x20\x00\x00")):
        case(f"device-{name}-absurd", [raw_header(b"d", b"3", patches=[(329, major), (337, minor)]) + END], "no such device")
    case("truncated-data", [raw_header(b"f", b"0", 4096) + b"x" * 1000], "archive ends inside")
    case("truncated-header", [file() + b"x" * 100], "archive ends inside a block")
    case("no-end-of-archive", [file()], present=["f"])
    case("garbage-after-end", [file() + END + b"garbage" * 100], present=["f"])
    case("entries-after-end", [file() + END + file(b"late") + END], present=["f"], absent=["late"])
    case("not-a-tar", [b"<html>" * 400], "")
    case("empty-blob", [b""])
    case("no-layers", [])
    case("xattr-on-symlink", [plain().symlink("s", VICTIM + "/keep", pax_headers={"SCHILY.xattr.user.pwned": "1"})])
    case("xattr-huge", [pax(("SCHILY.xattr.user.a", b"A" * 70000)) + file() + END], "extended attribute is too large")
    case("xattr-libarchive", [pax(("LIBARCHIVE.xattr.user.a", base64.b64encode(b"v"))) + file() + END], present=["f"])
    case("xattr-libarchive-malformed", [pax(("LIBARCHIVE.xattr.user.%zz", b"dg")) + file() + END], "malformed name")


def sparse():
    def version1(real, table, data):
        body = padded(table) + data
        return pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s"), ("GNU.sparse.realsize", str(real))) \
            + raw_header(b"f", b"0", len(body)) + padded(body) + END

    case("sparse-good", [version1(1 << 20, b"1\n0\n4\n", b"data")], present=["s"])
    case("sparse-overlap", [version1(100, b"2\n0\n4\n2\n4\n", b"datadata")], "sparse map is out of order")
    case("sparse-beyond-end", [version1(3, b"1\n0\n4\n", b"data")], "sparse map reaches beyond the file")
    case("sparse-missing-data", [version1(100, b"1\n0\n8\n", b"data")], "sparse map describes")
    case("sparse-overflow", [version1(100, b"1\n18446744073709551615\n4\n", b"data")], "sparse map is out of range")
    case("sparse-huge-count", [version1(100, b"99999999\n", b"")], "sparse map of more than")
    case("sparse-endless-map", [version1(100, b"1" * 2000, b"")], "number out of range")
    case("sparse-huge-file", [version1(1 << 62, b"1\n0\n4\n", b"data")], "a file of 4611686018427387904 bytes")
    old = raw_header(b"s", b"S", 512, magic=b"ustar  \0", patches=[(386, b"%011o\0%011o\0" % (0, 1024)), (483, b"%011o\0" % 4096)])
    case("sparse-old-missing-data", [old + b"d" * 512 + END], "sparse map describes")


def compression():
    tar = plain().file("f", b"y" * 100_000).bytes()
    packed = gzip.compress(tar, mtime=0)
    zstd = subprocess.run(["zstd", "-q", "-c"], input=tar, stdout=subprocess.PIPE, check=True).stdout
    half = len(tar) // 2
    case("gzip-two-members", [(gzip.compress(tar[:half], mtime=0) + gzip.compress(tar[half:], mtime=0), "+gzip", tar)], present=["f"])
    case("gzip-truncated", [(packed[:-40], "+gzip", tar)], "")
    case("gzip-wrong-crc", [(packed[:-8] + b"\0" * 4 + packed[-4:], "+gzip", tar)], "")
    case("gzip-zeros-behind", [(packed + b"\0" * 70_000, "+gzip", tar)], present=["f"])
    case("gzip-garbage-behind", [(packed + b"garbage", "+gzip", tar)], "")
    case("gzip-said-to-be-zstd", [(packed, "+zstd", tar)], present=["f"])
    case("zstd-truncated", [(zstd[:-5], "+zstd", tar)], "")
    case("zstd-skippable", [(struct.pack("<II", 0x184D2A50, 5) + b"skip!" + zstd, "+zstd", tar)], present=["f"])
    case("zstd-huge-window", [(b"\x28\xb5\x2f\xfd\x00\xa0" + b"\x01\x00\x00", "+zstd", tar)], "")
    bomb = plain().file("zeros", b"\0" * (64 << 20)).bytes()
    case("gzip-bomb", [(gzip.compress(bomb, mtime=0), "+gzip", bomb)], "--max-size", options=["--max-size", "1M"])
    tail = plain().file("f").bytes() + b"\0" * (64 << 20)
    case("gzip-bomb-behind-the-end", [(gzip.compress(tail, mtime=0), "+gzip", tail)], "more than 1048576 bytes uncompressed", options=["--max-size", "1M"])
    many = plain()
    for number in range(200):
        many.file(f"f{number}", b"")
    case("entries-many", [many], "more than 100 entries", options=["--max-entries", "100"])
    case("entries-implicit-many", [plain().file("d/" * 200 + "f")], "more than 100 entries", options=["--max-entries", "100"])


def lies():
    tar = plain().file("f")

    def blob(change):
        return lambda layout, manifest, config: change(manifest["layers"][0], layout, manifest, config)

    def corrupt(layer, layout, *_):
        with open(f"{layout.tmp}/blobs/sha256/{layer['digest'][7:]}", "r+b") as file:
            file.seek(10)
            file.write(b"X")

    def remove(layer, layout, *_):
        os.remove(f"{layout.tmp}/blobs/sha256/{layer['digest'][7:]}")

    def symlinked(layer, layout, *_):
        path = f"{layout.tmp}/blobs/sha256/{layer['digest'][7:]}"
        os.remove(path)
        os.mkfifo(path)

    case("blob-corrupt", [tar], "content has digest", change=blob(corrupt))
    case("blob-missing", [tar], "not in the layout", change=blob(remove))
    case("blob-fifo", [tar], "", change=blob(symlinked))
    for size, name in ((1, "one"), (1 << 62, "huge")):
        case(f"size-{name}", [tar], "size is", change=blob(lambda layer, *_, size=size: layer.update(size=size)))
    case("size-negative", [tar], "", change=blob(lambda layer, *_: layer.update(size=-1)))
    case("digest-path", [tar], "", change=blob(lambda layer, *_: layer.update(digest="sha256:" + UP + VICTIM[1:] + "/keep")))
    case("digest-short", [tar], "", change=blob(lambda layer, *_: layer.update(digest="sha256:abcd")))
    case("digest-unknown", [tar], "", change=blob(lambda layer, *_: layer.update(digest="md5:" + "0" * 32)))
    case("diffid-wrong", [tar], "as the config says", change=lambda _, m, c: c["rootfs"].update(diff_ids=["sha256:" + "1" * 64]))
    case("diffid-path", [tar], "is not a digest", change=lambda _, m, c: c["rootfs"].update(diff_ids=["sha256:../../" + "1" * 58]))
    case("diffid-missing", [tar, plain().file("g")], "manifest has 2 layers, config has 1 diffIDs",
         change=lambda _, m, c: c["rootfs"]["diff_ids"].pop())
    case("diffid-too-many", [tar], "manifest has 1 layers, config has 2 diffIDs",
         change=lambda _, m, c: c["rootfs"]["diff_ids"].append("sha256:" + "1" * 64))
    foreign = LAYER.replace("layer.v1", "layer.nondistributable.v1")
    case("layer-foreign", [tar], "foreign layer", change=blob(lambda layer, *_: layer.update(mediaType=foreign, urls=["file:///etc"], digest="sha256:" + "0" * 64)))
    case("layer-foreign-there", [tar], present=["f"], change=blob(lambda layer, *_: layer.update(mediaType=foreign, urls=["file:///etc"])))
    case("layer-media-type-unknown", [tar], "not a layer's media type", change=blob(lambda layer, *_: layer.update(mediaType="a/b")))
    case("manifest-and-index", [tar], "both a manifest and an index", change=lambda _, m, c: m.update(manifests=[]))
    case("same-layer-twice", [tar, plain().whiteout("f"), tar], present=["f"])


def main():
    os.makedirs(OUT, exist_ok=True)
    for group in (paths, links, whiteouts, headers, sparse, compression, lies):
        group()
    with open(f"{OUT}/cases.json", "wb") as file:
        file.write(to_json(CASES))


main()
