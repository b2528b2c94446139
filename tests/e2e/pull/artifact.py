#!/usr/bin/env python3
"""artifact.py REGISTRY REPOSITORY TAG SUBJECT: pushes what is no image and of types that nobody knows.

Under TAG comes an index of an artifact and of a blob without a manifest; SUBJECT, a tag, gets an artifact that refers to
it, listed by the fallback tag (distribution-spec, "Pushing Manifests with Subject"). Prints the artifacts' digests.
"""

import hashlib
import json
import sys
import urllib.request

registry, repository, tag, subject = sys.argv[1:]
base = f"http://{registry}/v2/{repository}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def call(method, url, data=None, **headers):
    request = urllib.request.Request(url, data=data, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return urllib.request.urlopen(request)


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), **more}


def push(media_type, data):
    blob = descriptor(media_type, data)
    place = call("POST", f"{base}/blobs/uploads/", b"").headers["location"]
    call("PUT", f"{place}&digest={blob['digest']}", data, content_type="application/octet-stream")
    return blob


def put(document, name=None):
    data = json.dumps(document).encode()
    made = descriptor(document["mediaType"], data)
    call("PUT", f"{base}/manifests/{name or made['digest']}", data, content_type=document["mediaType"])
    return made


def artifact(kind, **more):
    return put({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": f"application/x-{kind}",
        "config": push("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [push(f"text/x-{kind}; charset=utf-8", f"{kind} 1".encode()), push("something/else+odd", b"odd " * 9)],
        **more,
    })


first = artifact("recipe")
put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [first]}, tag)
answer = call("GET", f"{base}/manifests/{subject}", accept=MANIFEST)
data = answer.read()
image = descriptor(answer.headers["content-type"], data)
second = artifact("bill", subject=image)
put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [second | {"artifactType": "application/x-bill"}]}, image["digest"].replace(":", "-"))
print(first["digest"], second["digest"])
