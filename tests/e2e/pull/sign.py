#!/usr/bin/env python3
"""sign.py REGISTRY REPOSITORY REFERENCE KEY [NAME=VALUE]...: signs an image in a registry as `cosign sign --key` does.

KEY.key is the private key. The values bend one thing each:
  name=    the docker-reference in the payload
  digest=  the digest in the payload
  type=    the type in the payload
  sign=    what is signed in place of the payload
  how=     tag (the default), referrer (an index with the fallback tag), bundle (a referrer of the new format), add (a tag,
           beside the signatures that it has)
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

registry, repository, reference, key = sys.argv[1:5]
options = dict(word.split("=", 1) for word in sys.argv[5:])
base = f"http://{registry}/v2/{repository}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"


def call(method, url, data=None, **headers):
    request = urllib.request.Request(url, data=data, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return urllib.request.urlopen(request)


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), **more}


def push(media_type, data, **more):
    blob = descriptor(media_type, data, **more)
    place = call("POST", f"{base}/blobs/uploads/", b"").headers["location"]
    place = place if place.startswith("http") else f"http://{registry}{place}"
    call("PUT", f"{place}{'&' if '?' in place else '?'}digest={blob['digest']}", data, content_type="application/octet-stream")
    return blob


def put(name, document):
    data = json.dumps(document).encode()
    call("PUT", f"{base}/manifests/{name}", data, content_type=document["mediaType"])
    return descriptor(document["mediaType"], data)


def sign(data):
    with tempfile.NamedTemporaryFile() as message:
        message.write(data)
        message.flush()
        edwards = b"ED25519" in subprocess.run(
            ["openssl", "pkey", "-in", f"{key}.key", "-noout", "-text"], check=True, capture_output=True
        ).stdout
        command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", f"{key}.key", "-in", message.name]
        command = command if edwards else ["openssl", "dgst", "-sha256", "-sign", f"{key}.key", message.name]
        return subprocess.run(command, check=True, capture_output=True).stdout


image = call("GET", f"{base}/manifests/{reference}", accept=f"{MANIFEST}, {INDEX}, {DOCKER}")
digest = "sha256:" + hashlib.sha256(image.read()).hexdigest()
payload = json.dumps({
    "critical": {
        "identity": {"docker-reference": options.get("name", f"{registry}/{repository}")},
        "image": {"docker-manifest-digest": options.get("digest", digest)},
        "type": options.get("type", "cosign container image signature"),
    },
    "optional": None,
}).encode()
signature = base64.b64encode(sign(options.get("sign", payload.decode()).encode())).decode()
how = options.get("how", "tag")
tag = digest.replace(":", "-")
layer = push(
    "application/vnd.dev.cosign.simplesigning.v1+json", payload, annotations={"dev.cosignproject.cosign/signature": signature}
)
config = push("application/vnd.oci.image.config.v1+json", b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}')
manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
if how == "add":
    old = json.load(call("GET", f"{base}/manifests/{tag}.sig", accept=MANIFEST))
    manifest["layers"] = old["layers"] + [layer]
if how in ("tag", "add"):
    put(f"{tag}.sig", manifest)
else:
    kind = "application/vnd.dev.cosign.artifact.sig.v1+json"
    if how == "bundle":
        kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    manifest = {**manifest, "artifactType": kind, "subject": {"mediaType": MANIFEST, "digest": digest, "size": 2}}
    name = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    entry = {**put(f"sha256:{name}", manifest), "artifactType": kind}
    put(tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
print(digest)
