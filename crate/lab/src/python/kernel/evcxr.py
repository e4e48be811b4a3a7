"""evcxr_jupyter: the kernel behind the relay, its sockets, and the processes that it starts.

evcxr answers on TCP alone. It compiles cells with cargo and runs them in a child process; both
are its descendants.
"""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys

from wire import Sockets

# Linux: a signal for a process when its parent is gone.
PR_SET_PDEATHSIG = 1


class Evcxr:
    def __init__(self, context, argv, env, folder):
        self.context, self.folder = context, folder
        self.connection = connection()
        path = folder / "evcxr.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.connection))
        self.process = subprocess.Popen(
            [*argv, str(path)], env=env, stdin=subprocess.DEVNULL, preexec_fn=ends_with_parent()
        )
        self.sockets = Sockets(context, self.connection, bind=False)

    def ended(self):
        """How the process has ended, or None while it runs."""
        return self.process.poll()

    def compilers(self, spare):
        """Its descendants but for the process `spare` and those below it."""
        return descendants(self.process.pid, spare)

    def kill(self):
        """End it, where it still runs, with all that it has started; close its sockets."""
        if self.ended() is None:
            end_all(self.process.pid)
            self.process.wait()
        self.sockets.close()


def connection():
    """A connection file's content, with a random key and ports that are free now."""
    names = ["shell_port", "control_port", "stdin_port", "iopub_port", "hb_port"]
    taken = [socket.socket() for _ in names]
    for s in taken:
        s.bind(("127.0.0.1", 0))
    ports = {name: s.getsockname()[1] for name, s in zip(names, taken)}
    for s in taken:
        s.close()
    return {
        "transport": "tcp",
        "ip": "127.0.0.1",
        "key": secrets.token_hex(32),
        "signature_scheme": "hmac-sha256",
        **ports,
    }


def ends_with_parent():
    """What a child does before it becomes its program, so that it does not outlive us."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Parent:
    """The program that started us as a kernel; one that is to outlive it has none."""

    def __init__(self):
        self.watched = bool(os.environ.get("JPY_PARENT_PID", "").isdigit())
        self.pid = os.getppid()
        if self.watched and self.pid == 1 != int(os.environ["JPY_PARENT_PID"]):
            self.pid = None  # it was gone before we looked

    def gone(self):
        return self.watched and os.getppid() != self.pid


def parents():
    """Each process with its parent."""
    if not sys.platform.startswith("linux"):
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
        return [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat") as stat:
                    # After the program's name, which may hold anything: state and parent.
                    found.append((int(entry.name), int(stat.read().rpartition(")")[2].split()[1])))
            except OSError:
                pass  # it ended just now
    return found


def descendants(pid, spare=None):
    """The processes below `pid`, children before parents, without `spare` and those below it."""
    children = {}
    for child, parent in parents():
        children.setdefault(parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            if child != spare:
                found.append(child)
                todo.append(child)
    return found[::-1]


def end_all(pid):
    """End a process and those below it."""
    for each in [*descendants(pid), pid]:
        end(each)


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
