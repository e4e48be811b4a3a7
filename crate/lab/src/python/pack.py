"""The file of `cargo lab pack`: written, looked at, and taken apart.

    pack.py create FILE MANIFEST [NAME PATH]...   NAME is what PATH is called inside
    pack.py check FILE                            prints the manifest
    pack.py extract FILE FOLDER                   into FOLDER, which is there and empty
    pack.py settle VENV FINAL                     an extracted VENV that will lie at FINAL

A pack is a tar archive of three members: manifest.json, payload.tar.gz and SHA256SUMS, the
sums of the first two. The payload has regular files and folders alone.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import stat
import sys
import tarfile
import venv
import zlib

MEMBERS = ["manifest.json", "payload.tar.gz", "SHA256SUMS"]
BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error)


def stop(message):
    sys.exit(message)


def progress(done, total):
    print(f"LAB-PROGRESS {100 * done // max(total, 1)} %", file=sys.stderr, flush=True)


def walk(name, path):
    """The regular files at `path`, each with its name inside the archive."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        for entry in sorted(os.listdir(path)):
            yield from walk(f"{name}/{entry}", os.path.join(path, entry))
    elif stat.S_ISREG(status.st_mode):
        yield name, path, status
    else:
        stop(f"{path} is a link or not a regular file, and a pack holds neither: remove it")


def info(name, size, mode=0o644, mtime=0):
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, int(mtime)
    return member


class Hashed:
    """A file that is written in order, with the hash of what went in."""

    def __init__(self, file):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)


def write_payload(out, found, total):
    done = 0
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=4, mtime=0, filename="") as packed:
        with tarfile.open(fileobj=packed, mode="w|") as tar:
            for name, path, status in found:
                mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
                with open(path, "rb") as file:
                    tar.addfile(info(name, status.st_size, mode, status.st_mtime), file)
                done += status.st_size
                progress(done, total)


def create(file, manifest, *pairs):
    found = [item for name, path in zip(pairs[::2], pairs[1::2]) for item in walk(name, path)]
    total = sum(status.st_size for _, _, status in found)
    manifest = json.loads(pathlib.Path(manifest).read_text())
    manifest["contents"] = {"files": len(found), "bytes": total}
    text = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    file = pathlib.Path(file)
    making = file.with_name(f".{file.name}.{os.getpid()}.making")
    try:
        with open(making, "xb") as out, tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(info(MEMBERS[0], len(text)), io.BytesIO(text))
            # Its header has its length, which is known at its end.
            start = out.tell()
            out.write(bytes(tarfile.BLOCKSIZE))
            payload = Hashed(out)
            write_payload(payload, found, total)
            end = out.tell()
            out.seek(start)
            out.write(info(MEMBERS[1], payload.size).tobuf(tarfile.GNU_FORMAT))
            out.seek(end)
            out.write(bytes(-end % tarfile.BLOCKSIZE))
            tar.offset = out.tell()
            sums = zip([hashlib.sha256(text), payload.hash], MEMBERS)
            sums = "".join(f"{hash.hexdigest()}  {name}\n" for hash, name in sums).encode()
            tar.addfile(info(MEMBERS[2], len(sums)), io.BytesIO(sums))
        os.replace(making, file)
    finally:
        making.unlink(missing_ok=True)


def whole(file):
    """The open archive and its manifest, once every byte is known to be right."""
    remedy = "Copy it again, or make it anew with `cargo lab pack`"
    try:
        tar = tarfile.open(file, "r:")
        members = tar.getmembers()
        if [m.name for m in members] != MEMBERS or not all(m.isreg() for m in members):
            raise tarfile.ReadError(f"it does not consist of {', '.join(MEMBERS)}")
        sums = ""
        for member in members[:2]:
            hash, content = hashlib.sha256(), tar.extractfile(member)
            while data := content.read(1 << 20):
                hash.update(data)
            sums += f"{hash.hexdigest()}  {member.name}\n"
        if tar.extractfile(members[2]).read() != sums.encode():
            raise tarfile.ReadError("the SHA-256 sums of its content differ from those it lists")
        return tar, tar.extractfile(members[0]).read()
    except BROKEN as error:
        stop(f"{file} is damaged, cut off or was not made by `cargo lab pack`: {error}. {remedy}")


def check(file):
    sys.stdout.write(whole(file)[1].decode())


def extract(file, folder):
    tar, manifest = whole(file)
    contents = json.loads(manifest)["contents"]
    files = size = 0
    try:
        with tarfile.open(fileobj=tar.extractfile(MEMBERS[1]), mode="r|gz") as payload:
            for member in payload:
                name = member.name
                if not (member.isreg() or member.isdir()):
                    stop(f"{file}: {name!r} is a link or a device, and a pack holds none. "
                         "Nothing was unpacked: do not trust this file")
                parts = name.split("/")
                if "" in parts or "." in parts or ".." in parts or "\\" in name:
                    stop(f"{file}: {name!r} is not a path inside a folder. "
                         "Nothing was unpacked: do not trust this file")
                if member.isdir():
                    continue
                files, size = files + 1, size + member.size
                if files > contents["files"] or size > contents["bytes"]:
                    break
                target = os.path.join(folder, name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
                # "x": a name that comes twice does not replace the first.
                with open(target, "xb") as out:
                    content = payload.extractfile(member)
                    while data := content.read(1 << 20):
                        out.write(data)
                os.chmod(target, mode)
                # Compiled Python is valid for the very time of its source.
                os.utime(target, (member.mtime, member.mtime))
                progress(size, contents["bytes"])
    except BROKEN as error:
        stop(f"{file}: its payload cannot be read: {error}. Make it anew with `cargo lab pack`")
    except FileExistsError as error:
        stop(f"{file}: {error.filename} comes twice. Do not trust this file")
    if (files, size) != (contents["files"], contents["bytes"]):
        stop(f"{file}: its manifest names {contents['files']} files of {contents['bytes']} bytes "
             "and its payload has others. Make it anew with `cargo lab pack`")


HEADER = re.compile(rb"#!/bin/sh\n'''exec' .*\n' '''\n|#!.*/bin/python[0-9.]*\n")


def settle(made, final):
    """Interpreter, activation scripts and the first lines of programs, for this machine."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(made)
    made = pathlib.Path(made)
    python = os.path.join(final, "bin", "python")
    header = f"#!{python}\n"
    # Linux takes the rest of the line for one path of at most 127 bytes, up to a space.
    if shlex.quote(python) != python or len(os.fsencode(header)) > 127:
        # To the shell an exec, to Python a string.
        header = f"#!/bin/sh\n'''exec' {shlex.quote(python)} \"$0\" \"$@\"\n' '''\n"
    header = os.fsencode(header)
    for path in [made / "pyvenv.cfg", *(made / "bin").iterdir()]:
        if path.is_symlink():
            continue
        text = path.read_bytes()
        if found := HEADER.match(text):
            text = header + text[found.end():]
        else:
            text = text.replace(os.fsencode(made), os.fsencode(final))
        path.write_bytes(text)


COMMANDS = {"create": create, "check": check, "extract": extract, "settle": settle}

try:
    COMMANDS[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    # A full disk has no name: it is that of what is being written.
    written = sys.argv[3] if sys.argv[1] == "extract" else sys.argv[2]
    stop(f"{error.filename or written}: {error.strerror or error}")
