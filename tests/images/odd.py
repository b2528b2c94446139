#!/usr/bin/env python3
"""odd.py LAYOUT FIRST COUNT: images as nobody makes them by hand, tagged with their numbers, all in one layout.

The number is the seed: an image is the same whoever makes it, and whatever is made beside it. LAYOUT.json says of each what
is odd about it.
"""

import json
import random
import sys

sys.dont_write_bytecode = True

import oci

NAMES = ["a", "b", "c", "d", "e", "x y", "ü", "-n", ".h", "l" * 120]
MODES = [0o755, 0o700, 0o1777, 0o2775, 0o555, 0]
FILE_MODES = [0o644, 0o600, 0o4755, 0o2755, 0, 0o777]
# A layer that takes away what it brings: in which order that counts nobody has said.
AT_ODDS = "at odds with itself"
CAPABILITY = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")


class Tree:
    """What is thought to be there: an image may say otherwise of it."""

    def __init__(self, random):
        self.random, self.there, self.odd = random, {"": "directory"}, set()
        self.begin()

    def begin(self):
        """Begins a layer."""
        self.touched, self.gone = set(), set()

    def touch(self, path):
        parts = [path[:end] for end, byte in enumerate(path) if byte == "/"]
        self.touched.update([*parts, path])
        if self.gone.intersection(parts):
            self.odd.add(AT_ODDS)

    def take_away(self, path, at_odds=False):
        self.gone.add(path)
        if at_odds or path in self.touched:
            self.odd.add(AT_ODDS)

    def pick(self, kind):
        return self.random.choice([path for path, what in self.there.items() if what == kind] or [""])

    def new(self):
        """Returns a path, of which now and then a part is no directory."""
        while True:
            parent = self.pick("directory")
            if self.random.random() < 0.2:
                parent = "/".join(self.random.choices(NAMES[:5], k=2))
            parts = [parent[:end] for end, byte in enumerate(parent) if byte == "/"] + [parent]
            if all(self.there.get(part, "directory") == "directory" for part in parts) or self.random.random() < 0.02:
                return (parent + "/" + self.random.choice(NAMES)).lstrip("/")

    def put(self, path, what):
        if what != "directory" or self.there.get(path) != "directory":
            self.drop(path)
        self.there[path] = what

    def drop(self, path):
        self.there = {it: what for it, what in self.there.items() if it != path and not it.startswith(path + "/")}

    def fields(self, mode):
        records = {}
        if self.random.random() < 0.2:
            records["mtime"] = str(1_600_000_000 + self.random.randrange(10**9) / 1e9)
        return {
            "mode": self.random.choice(mode),
            "uid": self.random.choice([0, 0, 7, 1000, 70000, 3_000_000]),
            "gid": self.random.choice([0, 0, 8, 1000]),
            "mtime": self.random.choice([0, 1, 1_500_000_000, 2**31 + 5]),
            "pax_headers": records,
        }

    def entry(self, layer):
        random, path = self.random, self.new()
        shown = random.choice(["", "", "", "./", "/"]) + path
        kind = random.choices(
            ["directory", "file", "symlink", "hardlink", "whiteout", "opaque", "fifo", "device", "again", "through"],
            [24, 24, 12, 10, 10, 4, 3, 3, 6, 4],
        )[0]
        if kind == "directory":
            fields = self.fields(MODES)
            if random.random() < 0.1:
                fields["pax_headers"]["SCHILY.xattr.user.d"] = "directory"
            layer.directory(shown + random.choice(["", "/"]), **fields)
        elif kind == "file":
            fields = self.fields(FILE_MODES)
            if random.random() < 0.1:
                fields["pax_headers"]["SCHILY.xattr.user.f"] = "file"
            if random.random() < 0.05:
                fields["pax_headers"]["SCHILY.xattr.security.capability"] = CAPABILITY
            layer.file(shown, random.randbytes(random.choice([0, 1, 511, 512, 513, 3000])), **fields)
        elif kind == "symlink":
            target = random.choice([self.pick("directory") or "/", "/" + self.pick("file"), "../..", "nowhere", "/etc/hosts", "."])
            layer.symlink(shown, target, uid=random.choice([0, 9]))
        elif kind == "hardlink":
            target = self.pick(random.choice(["file", "file", "symlink", "fifo"]))
            if not target or target == path or target.startswith(path + "/"):
                return
            layer.hardlink(shown, target)
            kind = self.there[target]
        elif kind == "whiteout":
            target = self.pick(random.choice(["file", "directory"]))
            if target:
                layer.whiteout(target)
                self.take_away(target)
                self.drop(target)
                self.odd.add(kind)
            return
        elif kind == "opaque":
            target = self.pick("directory" if random.random() < 0.9 else "file")
            if target:
                layer.opaque(target)
                self.take_away(target, self.there[target] == "file")
                self.drop(target)
                self.there[target] = "directory"
                self.odd.add(kind)
            return
        elif kind == "fifo":
            layer.add(shown, oci.tarfile.FIFOTYPE, **self.fields(FILE_MODES))
        elif kind == "device":
            layer.add(shown, oci.tarfile.CHRTYPE, devmajor=1, devminor=random.choice([3, 5]), **self.fields(FILE_MODES))
        elif kind == "again":
            path = self.pick("file")
            if not path:
                return
            layer.file(path, b"again\n", **self.fields(FILE_MODES))
            kind = "file"
        else:
            link = self.pick("symlink")
            if not link:
                return
            self.odd.add("through")
            layer.file(link + "/t", **self.fields(FILE_MODES))
            # Nobody knows where that was.
            self.touched.update(self.there)
            if self.gone:
                self.odd.add(AT_ODDS)
            return
        self.odd.add(kind)
        self.touch(path)
        self.put(path, kind)


def config(random, odd):
    config = {"Cmd": ["true"], "Env": ["PATH=/bin"]}
    for member, values in {
        "Entrypoint": [None, [], ["/bin/sh", "-c"]],
        "Volumes": [None, {}, {"/v": {}}],
        "Labels": [None, {}, {"a": "b"}],
        "ExposedPorts": [None, {"80/tcp": {}}],
        "User": ["", "0", "0:0"],
        "WorkingDir": ["", "/", "/w"],
        "StopSignal": ["", "SIGTERM"],
        "OnBuild": [None, []],
        "Unknown": [{"x": 1}],
    }.items():
        if random.random() < 0.4:
            config[member] = random.choice(values)
            odd.add(f"config.{member}")
    return config


def image(layout, number):
    chance = random.Random(number)
    tree = Tree(chance)
    layers = []
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        layer = oci.Layer()
        tree.begin()
        if chance.random() < 0.3:
            layer.directory("./", **tree.fields(MODES[:3]))
        for _ in range(chance.randrange(1, 14)):
            tree.entry(layer)
        layers.append(layer.bytes())
    descriptor = layout.image(layers, config(chance, tree.odd), "amd64", chance.choice(["gzip", "plain"]))
    return dict(descriptor, annotations={"org.opencontainers.image.ref.name": str(number)}), sorted(tree.odd)


def main():
    path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    layout = oci.Layout(path)
    made = {number: image(layout, number) for number in range(first, first + count)}
    layout.finish(next(iter(made.values()))[0])
    with open(path + "/index.json", "wb") as index:
        index.write(oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [it for it, _ in made.values()]}))
    with open(path + ".json", "w") as odd:
        json.dump({number: odd for number, (_, odd) in made.items()}, odd)


main()
