"""A pack's manifest, or the pack with another one and with more members in its payload.

    edit.py manifest PACK
    edit.py edit PACK TO MANIFEST MORE    MORE: [{"name", "type": "0" | "1" | "2", "link"}]
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile


def member(name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, io.BytesIO(content)


def content_of(pack):
    with tarfile.open(pack) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def edit(pack, to, manifest, more):
    content, more = content_of(pack), json.loads(more)
    payload = content["payload.tar.gz"]
    if more:
        data = io.BytesIO(gzip.decompress(payload))
        with tarfile.open(fileobj=data, mode="a") as tar:
            for one in more:
                info = tarfile.TarInfo(one["name"])
                info.type, info.linkname = one["type"].encode(), one.get("link", "")
                tar.addfile(info)
        payload = gzip.compress(data.getvalue())
    parts = {"manifest.json": manifest.encode(), "payload.tar.gz": payload}
    sums = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in parts.items())
    with tarfile.open(to, "w") as tar:
        for name, content in [*parts.items(), ("SHA256SUMS", sums.encode())]:
            tar.addfile(*member(name, content))


if sys.argv[1] == "manifest":
    print(content_of(sys.argv[2])["manifest.json"].decode())
else:
    edit(*sys.argv[2:])
