"""The library in the process behind the cells: its socket, and that process's standard output.

In the kernel's folder are `socket`, where the library connects, and `stdout` and `stderr`, named
pipes that become the process's descriptors 1 and 2. Lines of JSON come over the socket, one
operation each:

  {"op": "hello", "pid": 1}                    the process, before its first cell
  {"op": "loaded"}                             a cell is compiled and runs now
  {"op": "text", "name": "stdout", "text": ""}  what a cell prints
  {"op": "display", "id": "", "update": true, "data": {}, "metadata": {}}
  {"op": "failed", "kind": "panic", "message": ""}
  {"op": "input", "prompt": "", "password": false}
  {"op": "end"}                                the cell has ended

and lines go back: `c` a new cell begins, `i` it is interrupted, `m LINE` a line for evcxr that was
in the standard output, `e` the answer to "end", `r JSON` the answer to "input".

What was written before a message is read before it: the library waits until the pipes are empty
before it writes to the socket, and after "end" nothing of the cell is on its way.
"""

import codecs
import contextlib
import json
import os
import socket

# The most that is taken from a stream at once: one that prints without end waits, and the relay
# does not grow.
PORTION = 1 << 18


class Pipe:
    """A named pipe from the process behind the cells."""

    def __init__(self, path):
        os.mkfifo(path, 0o600)
        # Both ends: a pipe whose last writer goes would be at its end.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self):
        """The text that is there, up to a portion."""
        try:
            return self.decoder.decode(os.read(self.fd, PORTION))
        except BlockingIOError:
            return ""


class Marks:
    """Parts a standard output into text and lines for evcxr: a value shown by a type that is not
    the library's, a variable whose type has changed, a question."""

    def __init__(self):
        self.open, self.inside = "", False

    def split(self, text):
        """(text, lines for evcxr). The start of a line that could be evcxr's is kept back."""
        if not self.open and not self.inside and "EVCXR_" not in text[-len("EVCXR_") :]:
            if "EVCXR_" not in text and not could_begin(text.rpartition("\n")[2]):
                return text, []
        out, marks = [], []
        *lines, self.open = (self.open + text).split("\n")
        for line in lines:
            if self.inside or line.startswith("EVCXR_"):
                marks.append(line)
                self.inside = (
                    line != "EVCXR_END_CONTENT"
                    if self.inside
                    else line.startswith("EVCXR_BEGIN_CONTENT")
                )
            else:
                out.append(line + "\n")
        if self.open and not self.inside and not could_begin(self.open):
            out.append(self.open)
            self.open = ""
        return "".join(out), marks

    def rest(self):
        """What was kept back: the cell has ended."""
        kept, self.open, self.inside = self.open, "", False
        return kept


def could_begin(line):
    return bool(line) and (line.startswith("EVCXR_") or "EVCXR_".startswith(line))


class Library:
    """`on(operation)` is called for each operation, `printed(name, text)` for other output."""

    def __init__(self, folder, on, printed):
        self.on, self.printed = on, printed
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(folder / "socket"))
        self.listening.listen()
        self.listening.setblocking(False)
        self.pipes = {name: Pipe(folder / name) for name in ("stdout", "stderr")}
        self.marks = Marks()
        self.peer, self.unread, self.pid = None, b"", None

    def descriptors(self):
        found = [self.listening.fileno(), *(pipe.fd for pipe in self.pipes.values())]
        return found + [self.peer.fileno()] if self.peer else found

    def read(self):
        """Take what is there, up to a portion of each; whether there was anything."""
        self.accept()
        # The pipes last: what is in them was written after what the socket holds.
        return self.operations() or self.streams()

    def read_all(self):
        """Take all that is there: the process has written its last of a cell."""
        while self.read():
            pass

    def accept(self):
        try:
            peer, _ = self.listening.accept()
        except BlockingIOError:
            return
        # A new process: the one before it is gone, and what it said last is read.
        while self.operations():
            pass
        self.leave()
        self.peer = peer
        peer.setblocking(False)

    def operations(self):
        if not self.peer:
            return False
        try:
            got = self.peer.recv(PORTION)
        except BlockingIOError:
            return False
        except OSError:
            got = b""
        if not got:
            self.leave()
            return False
        *lines, self.unread = (self.unread + got).split(b"\n")
        for line in lines:
            self.operation(json.loads(line))
        return True

    def operation(self, operation):
        if operation["op"] == "hello":
            self.pid = operation["pid"]
        elif operation["op"] == "end":
            while self.streams():
                pass
            rest = self.marks.rest()
            if rest:
                self.printed("stdout", rest)
            self.say("e")
        else:
            self.on(operation)

    def streams(self):
        something = False
        for name, pipe in self.pipes.items():
            text = pipe.read()
            something |= bool(text)
            if text and name == "stdout":
                text, marks = self.marks.split(text)
                for mark in marks:
                    self.say(f"m {mark}")
            if text:
                self.printed(name, text)
        return something

    def say(self, line):
        """Write a line to the library; a process that is gone needs none."""
        if self.peer:
            with contextlib.suppress(OSError):
                self.peer.setblocking(True)
                self.peer.sendall(line.encode() + b"\n")
                self.peer.setblocking(False)

    def leave(self):
        if self.peer:
            self.peer.close()
        self.peer, self.unread, self.pid = None, b"", None
        self.marks = Marks()
