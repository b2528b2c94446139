"""OCI image layouts and the storage of Debian's docker-registry, written file by file.

Deterministic: the same tar bytes and configuration give the same digests. Blobs are hard links between the layouts and
the registry's storage, so nothing is stored twice.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

OCI = "application/vnd.oci.image."
INDEX = OCI + "index.v1+json"
MANIFEST = OCI + "manifest.v1+json"
CONFIG = OCI + "config.v1+json"
LAYER = OCI + "layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EPOCH = 1_700_000_000


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, separators=(",", ":")).encode()


class Layer:
    """A tar archive under construction."""

    def __init__(self):
        self.buffer = io.BytesIO()

    def add(self, name, kind=tarfile.REGTYPE, data=b"", **fields):
        """Adds one entry; `fields` are attributes of tarfile.TarInfo."""
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mtime = EPOCH
        info.mode = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}.get(kind, 0o644)
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        for field, value in fields.items():
            setattr(info, field, value)
        return self.copy(info, data)

    def copy(self, info, data=b""):
        """Adds an entry of another archive, with its PAX records (extended attributes)."""
        self.buffer.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.buffer.write(data + b"\0" * (-len(data) % 512))
        return self

    def directory(self, name, **fields):
        return self.add(name, tarfile.DIRTYPE, **fields)

    def file(self, name, data=b"x\n", **fields):
        return self.add(name, data=data, **fields)

    def symlink(self, name, target, **fields):
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def hardlink(self, name, target):
        return self.add(name, tarfile.LNKTYPE, linkname=target)

    def whiteout(self, name):
        directory, base = os.path.split(name)
        return self.file(os.path.join(directory, ".wh." + base), b"")

    def opaque(self, name):
        return self.file(name + "/.wh..wh..opq", b"")

    def bytes(self):
        return self.buffer.getvalue() + b"\0" * 1024


def compress(tar, how):
    if how == "plain":
        return tar
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-3", "-c"], input=tar, stdout=subprocess.PIPE, check=True).stdout
    return gzip.compress(tar, 4, mtime=0)


class Layout:
    """An image layout that gets its final name when it is whole."""

    def __init__(self, path):
        self.path, self.tmp = path, path + ".tmp"
        shutil.rmtree(self.tmp, ignore_errors=True)
        os.makedirs(self.tmp + "/blobs/sha256")

    def put(self, data, media_type, **members):
        name = digest(data)
        with open(f"{self.tmp}/blobs/sha256/{name[7:]}", "wb") as blob:
            blob.write(data)
        return {"mediaType": media_type, "digest": name, "size": len(data), **members}

    def image(self, layers, config, architecture, how="gzip", variant=None):
        """Writes an image and returns its manifest's descriptor. `layers` are tar bytes, the lowest first."""
        suffix = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}[how]
        descriptors = [self.put(compress(tar, how), LAYER + suffix) for tar in layers]
        image_config = {
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests/images/make"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put(to_json(image_config), CONFIG),
            "layers": descriptors,
        }
        return self.put(to_json(manifest), MANIFEST)

    def finish(self, descriptor):
        """Names the image `latest` and the layout by its final name."""
        descriptor = dict(descriptor, annotations={"org.opencontainers.image.ref.name": "latest"})
        with open(self.tmp + "/oci-layout", "wb") as file:
            file.write(to_json({"imageLayoutVersion": "1.0.0"}))
        with open(self.tmp + "/index.json", "wb") as file:
            file.write(to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}))
        os.rename(self.tmp, self.path)


def blob_path(layout, name):
    return f"{layout}/blobs/sha256/{name[7:]}"


def load(layout, descriptor):
    with open(blob_path(layout, descriptor["digest"]), "rb") as blob:
        return json.load(blob)


def root_descriptor(layout):
    with open(layout + "/index.json", "rb") as index:
        return json.load(index)["manifests"][0]


def docker_manifest(layout):
    """Returns the image's manifest as docker's schema 2; configuration and layers are the same blobs."""
    manifest = load(layout, root_descriptor(layout))
    return to_json({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": dict(manifest["config"], mediaType=DOCKER_CONFIG),
        "layers": [dict(layer, mediaType=DOCKER_LAYER) for layer in manifest["layers"]],
    })


class Storage:
    """The file system storage of docker-registry (distribution's registry/storage/paths.go)."""

    def __init__(self, root):
        self.root = root + "/docker/registry/v2"

    def _file(self, path, data):
        path = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".tmp", "wb") as file:
            file.write(data)
        os.rename(path + ".tmp", path)

    def _blob(self, name, layout=None, data=None):
        path = f"{self.root}/blobs/sha256/{name[7:9]}/{name[7:]}/data"
        if os.path.exists(path):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if data is None:
            os.link(blob_path(layout, name), path)
        else:
            self._file(f"blobs/sha256/{name[7:9]}/{name[7:]}/data", data)

    def _manifest(self, layout, repository, name, data):
        self._blob(name, data=data)
        self._file(f"repositories/{repository}/_manifests/revisions/sha256/{name[7:]}/link", name.encode())
        manifest = json.loads(data)
        for child in manifest.get("manifests", []):
            with open(blob_path(layout, child["digest"]), "rb") as blob:
                self._manifest(layout, repository, child["digest"], blob.read())
        for blob in [manifest["config"], *manifest["layers"]] if "config" in manifest else []:
            self._blob(blob["digest"], layout)
            self._file(f"repositories/{repository}/_layers/sha256/{blob['digest'][7:]}/link", blob["digest"].encode())

    def push(self, layout, repository, tag, data=None):
        """Publishes a layout's image, or the manifest `data` over the layout's blobs."""
        if data is None:
            with open(blob_path(layout, root_descriptor(layout)["digest"]), "rb") as blob:
                data = blob.read()
        name = digest(data)
        self._manifest(layout, repository, name, data)
        tags = f"repositories/{repository}/_manifests/tags/{tag}"
        self._file(f"{tags}/index/sha256/{name[7:]}/link", name.encode())
        self._file(f"{tags}/current/link", name.encode())
