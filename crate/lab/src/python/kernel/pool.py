"""A kernel that waits, started and warm, for the next notebook of one Jupyter server.

`cargo lab open` names its server's process in LAB_POOL. A waiting relay listens on a socket in the
scratch folder, whose name holds what a kernel depends on: the library, the folder, the environment.
The program that Jupyter starts hands it the connection file and then holds the line: when either end
goes, so does the other. One waits at a time, as long as the server lives, the library is the newest
and there is memory for it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time

from evcxr import Parent

# One takes 0.8 GB; less than this must be free before another is started.
FREE_BYTES = int(os.environ.get("LAB_POOL_FREE", 4 << 30))
# After a start, so that it does not compete with the first cells.
LATER = float(os.environ.get("LAB_POOL_LATER", 20))
# How often one that waits looks whether it is still wanted.
LOOK = 2.0
# Of the environment, what Jupyter sets for each kernel.
OWN = ("JPY_", "JUPYTER_", "PYDEVD_")


def server():
    """The process of the server that has a pool, or None."""
    value = os.environ.get("LAB_POOL", "")
    return int(value) if value.isdigit() else None


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def key(current, library):
    """What a kernel depends on."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(OWN)}
    depends = [current, str(library), os.getcwd(), sorted(env.items())]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def path(root, key):
    return str(root / f"pool-{server()}-{key}")


def take(root, key, connection):
    """Give `connection` to a kernel that waits, and stay until it ends. Returns the exit status, or
    None where none waits."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(2)
        line.connect(path(root, key))
        line.sendall(json.dumps(connection).encode() + b"\n")
        if line.recv(1) != b"k":
            return None
    except OSError:
        return None
    line.settimeout(LOOK)
    said, started_by = b"", Parent()
    with contextlib.suppress(OSError):
        while not started_by.gone():
            with contextlib.suppress(TimeoutError):
                got = line.recv(64)
                if not got:
                    break
                said += got
    return 0 if said.endswith(b"0") else 1


class Waiting:
    """Our own place in the pool. `wanted()` says whether it is still the newest library."""

    def __init__(self, root, key, wanted):
        self.wanted, self.looked = wanted, 0.0
        # Held as long as it waits: there is one.
        self.lock = os.open(root / f"pool-{server()}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path, self.listening, self.line = path(root, key), None, None

    def listen(self):
        """From now on a notebook is answered at once."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(self.path)
        self.listening.listen()
        self.listening.setblocking(False)

    def descriptor(self):
        return (self.line or self.listening).fileno()

    def over(self):
        """Whether nobody will come any more."""
        now = time.monotonic()
        if now < self.looked + LOOK:
            return False
        self.looked = now
        return not alive(server()) or not self.wanted()

    def taken(self):
        """The connection of the notebook that has come, or None."""
        try:
            line, _ = self.listening.accept()
            line.settimeout(2)
            text = b""
            while not text.endswith(b"\n"):
                got = line.recv(1 << 16)
                if not got:
                    return None
                text += got
            connection = json.loads(text)
        except (OSError, ValueError):
            return None
        self.leave()
        self.line = line
        return connection

    def begin(self):
        """The notebook can be answered."""
        with contextlib.suppress(OSError):
            self.line.sendall(b"k")
        self.line.setblocking(False)

    def left(self):
        """Whether the program that Jupyter started is gone."""
        try:
            return not self.line.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def end(self):
        with contextlib.suppress(OSError):
            self.line.sendall(b"0")

    def leave(self):
        """Wait no more."""
        if self.listening:
            self.listening.close()
            self.listening = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            os.close(self.lock)


def start_next(current):
    """Start one that waits, unless one does, or memory is short."""
    if free() < FREE_BYTES:
        return
    subprocess.Popen(
        [sys.executable, "-I", os.path.abspath(sys.argv[0]), current, "--wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free():
    """Bytes of memory that are free; without /proc, none that are known of."""
    with contextlib.suppress(OSError):
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return 0
