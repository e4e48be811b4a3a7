"""The relay between Jupyter and evcxr_jupyter.

Jupyter's connection file is ours; evcxr has another. Requests for evcxr wait here and go to it one
at a time. A cell is over when evcxr's reply and its idle have come and all that the library wrote
has been read: then the rest of the output, an error if it failed, the reply, and idle go out.

One thread, one loop: nothing in it waits.
"""

import collections
import json
import os
import sys
import time

import zmq

import failures
import pool
import shift_tab
from evcxr import Evcxr, Parent, descendants, end, end_all
from library import Library
from missed import Missed
from outputs import Outputs
from wire import Message, Sockets

# A cell that does not look for an interrupt is ended, with its process, after this many seconds.
PATIENCE = 4.0
# Meanwhile no compiler of it goes on for longer than this.
LOOK = 0.1

# While nobody has run a cell, and later where none has run for a while, these run unseen: the first
# `let`, the first figure, each kind of statement cost seconds or tenths of them once (rust-analyzer
# reads the standard library, the compiler its first crates).
WARMING = (
    "let consistency_lab_warms_up = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;",
    "drop(consistency_lab_warms_up);",
    'Figure::new("").line("", &[0.0], &[0.0])',
    "{ let mut xs: Vec<f64> = Vec::new(); for i in 0..3 { xs.push((i * i) as f64); } "
    "let ys: Vec<f64> = xs.iter().map(|x| 2.0 * x).collect(); let sum = ys.iter().sum::<f64>(); }",
    "let consistency_lab_warms_up = { let v = Var::new(&[1f32, 2.0], &Device::Cpu)?; "
    "v.as_tensor().sqr()?.sum_all()?.backward()? };",
    "drop(consistency_lab_warms_up);",
    'let consistency_lab_warms_up = df!("x" => [1.0, 2.0])?.column("x")?.f64()?.mean();',
    "drop(consistency_lab_warms_up);",
)
# So long after a cell that somebody has run.
QUIET = 3.0

KERNEL_INFO = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "consistency",
    "implementation_version": "0.22.0",
    "banner": "Rust (Consistency Lab), by evcxr 0.22.0",
    "language_info": {
        "name": "rust",
        "version": "",
        "mimetype": "text/rust",
        "file_extension": ".rs",
        "pygments_lexer": "rust",
        "codemirror_mode": "rust",
    },
    "help_links": [{"text": "Rust's standard library", "url": "https://doc.rust-lang.org/std/"}],
    "debugger": False,
}

# Requests that are answered here at once, in a running cell too.
ANSWERS = {
    "kernel_info_request": ("kernel_info_reply", KERNEL_INFO),
    "comm_info_request": ("comm_info_reply", {"status": "ok", "comms": {}}),
    "history_request": ("history_reply", {"status": "ok", "history": []}),
    "is_complete_request": ("is_complete_reply", {"status": "complete"}),
}
# Those that are evcxr's.
PASSED_ON = ("execute_request", "complete_request", "inspect_request")


class Request:
    """One request for evcxr: Jupyter's, or a hidden cell of our own."""

    def __init__(self, message, hidden=False):
        self.message, self.hidden = message, hidden
        self.inner = None  # the header it has at evcxr's
        self.reply, self.idle = None, False
        self.errors, self.failed = [], None
        # Presses of stop, and when the cell's process is ended for it.
        self.presses, self.deadline, self.look, self.killed = 0, None, None, False
        self.loaded = False  # whether it is compiled and runs
        self.count = None

    @property
    def is_cell(self):
        return self.message.kind == "execute_request"

    @property
    def silent(self):
        return self.hidden or bool(self.message.content.get("silent"))


class Relay:
    """`connection` is what Jupyter's connection file says; without it, it is still to come: the relay
    waits in the pool, `waiting`."""

    def __init__(self, connection=None, waiting=None):
        self.context = zmq.Context()
        self.outputs = Outputs(self.publish)
        self.poller = zmq.Poller()
        self.out = None
        self.waiting = waiting
        # Whoever started a relay of the pool may go; its notebook holds the line (pool.py).
        self.started_by = None if waiting else Parent()
        # How the next kernel for the pool is started, and when.
        self.start_next, self.start_at = None, None
        if connection:
            self.bind(connection)
        self.evcxr = self.library = None
        # The text with which every cell is answered where there is no kernel.
        self.broken = None
        self.ready = False
        self.queue, self.current, self.count = collections.deque(), None, 0
        self.warming, self.ran = collections.deque(WARMING), None
        # The newest cell: what a thread in the background prints belongs to it.
        self.newest = {}
        self.missed = Missed()
        self.over = collections.OrderedDict()  # evcxr's ids of cells that have ended: parents
        self.asked = None  # who waits for an answer on stdin: "library" or "evcxr"
        self.running = True

    # Start and end.

    def bind(self, connection):
        self.out = Sockets(self.context, connection, bind=True)
        for socket in self.out.all:
            self.poller.register(socket, zmq.POLLIN)
        self.status("starting", {})

    def start(self, argv, env, folder):
        self.library = Library(folder, self.operation, self.printed)
        self.evcxr = Evcxr(self.context, argv, env, folder)
        for socket in self.evcxr.sockets.all:
            self.poller.register(socket, zmq.POLLIN)
        hello = self.evcxr.sockets.wire.message("kernel_info_request", {})
        self.evcxr.sockets.send("shell", hello)

    def close(self):
        if self.evcxr:
            self.evcxr.kill()
        if self.out:
            self.out.close()
        self.context.term()
        if self.waiting:
            self.waiting.leave()

    # The loop.

    def run(self):
        while self.running:
            self.turn()
        self.close()
        if self.waiting and self.waiting.line:
            self.waiting.end()

    def turn(self):
        polled = [] if self.outputs.full() or not self.library else self.library.descriptors()
        if self.waiting:
            polled = [*polled, self.waiting.descriptor()]
        for fd in polled:
            self.poller.register(fd, zmq.POLLIN)
        self.poller.poll(self.wait())
        for fd in polled:
            self.poller.unregister(fd)
        if self.waiting:
            self.in_the_pool()
        elif self.started_by.gone():
            self.running = False
            return
        if self.out:
            self.beat()
            for message in self.out.waiting("control"):
                self.control(message)
            for message in self.out.waiting("shell"):
                self.request(message)
            for message in self.out.waiting("stdin"):
                self.answered(message)
        if self.library and not self.outputs.full():
            self.library.read()
        if self.evcxr:
            self.from_evcxr()
            self.overdue()
        self.outputs.flush_due()
        self.next()
        if self.start_next and self.out and not self.current:
            self.start_at = self.start_at or time.monotonic() + pool.LATER
            if time.monotonic() >= self.start_at:
                self.start_next()
                self.start_next = None

    def in_the_pool(self):
        """Be taken by a notebook; end with it, or when nobody will come."""
        if self.out:
            self.running = self.running and not self.waiting.left()
            return
        connection = self.waiting.taken()
        if connection:
            self.bind(connection)
            self.waiting.begin()
        elif self.waiting.over():
            self.running = False

    def wait(self):
        """How long nothing is due, in ms."""
        due = [self.outputs.next()]
        if self.warming and self.ran and not self.current:
            due.append(self.ran + QUIET)
        if self.current:
            due.append(self.current.deadline if self.current.loaded else self.current.look)
        due = [at for at in due if at is not None]
        # A process that ends by itself is noticed within this time.
        longest = 500 if self.evcxr else 1000
        return max(0, min([longest, *(int(1000 * (at - time.monotonic())) + 1 for at in due)]))

    def beat(self):
        while True:
            try:
                self.out.hb.send_multipart(self.out.hb.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return

    # Towards Jupyter.

    def publish(self, kind, content, metadata, parent):
        if not self.out:
            return
        message = self.out.wire.message(kind, content, parent, [kind.encode()], metadata)
        self.out.send("iopub", message)
        if parent and parent is self.newest:
            self.missed.keep(kind, content)

    def status(self, state, parent):
        self.publish("status", {"execution_state": state}, {}, parent)

    def answer(self, channel, request, kind, content, metadata=None):
        message = self.out.wire.message(
            kind, content, request.header, request.identities, metadata
        )
        self.out.send(channel, message)

    def request(self, message):
        self.came(message)
        if message.kind in ANSWERS:
            self.status("busy", message.header)
            self.answer("shell", message, *ANSWERS[message.kind])
            self.status("idle", message.header)
        elif message.kind == "shutdown_request":
            self.shut_down("shell", message)
        elif message.kind in PASSED_ON:
            self.queue.append(Request(message))
        elif message.kind == "comm_open":
            # There is no target for it: the front-end is told so.
            content = {"comm_id": message.content.get("comm_id", ""), "data": {}}
            self.outputs.publish("comm_close", content, message.header)

    def came(self, message):
        request = self.current
        runs = request is not None and request.is_cell and not request.silent
        self.missed.sees(message.header.get("session"), runs)

    def control(self, message):
        self.came(message)
        self.status("busy", message.header)
        if message.kind in ANSWERS:
            self.answer("control", message, *ANSWERS[message.kind])
        elif message.kind == "interrupt_request":
            # In this order: a cell that is sent once the answer has come is not stopped.
            self.interrupt()
            self.answer("control", message, "interrupt_reply", {"status": "ok"})
        elif message.kind == "shutdown_request":
            self.shut_down("control", message)
        self.status("idle", message.header)

    def shut_down(self, channel, message):
        if self.evcxr:
            self.evcxr.kill()
            self.evcxr = None
        content = {"status": "ok", "restart": bool(message.content.get("restart"))}
        self.answer(channel, message, "shutdown_reply", content)
        self.running = False

    # One request at a time.

    def next(self):
        if self.warms():
            self.queue.append(hidden(self.warming.popleft()))
        if self.current or not self.queue:
            return
        if self.broken:
            request = self.queue.popleft()
            self.begin(request)
            self.finish(request, failures.no_kernel(self.broken))
        elif self.ready:
            request = self.queue.popleft()
            self.begin(request)
            self.current = request
            wire = self.evcxr.sockets.wire
            content = request.message.content
            if request.message.kind == "inspect_request":
                asked = shift_tab.question(content.get("code", ""), content.get("cursor_pos", 0))
                if asked is None:
                    self.current = None
                    request.reply = {"status": "ok", "found": False, "data": {}, "metadata": {}}
                    self.finish(request, None)
                    return
                content = {**content, "code": asked, "cursor_pos": len(asked)}
            inner = wire.message(request.message.kind, content)
            request.inner = inner.header
            if request.is_cell:
                self.library.say("c")
            self.evcxr.sockets.send("shell", inner)

    def warms(self):
        """Whether it is time for a hidden cell."""
        if not self.ready or not self.warming or self.current or self.queue:
            return False
        return self.ran is None or time.monotonic() >= self.ran + QUIET

    def begin(self, request):
        message, content = request.message, request.message.content
        if request.hidden:
            return
        self.status("busy", message.header)
        if not request.is_cell:
            return
        self.newest = message.header
        # A silent one does not count, nor does one that is not kept.
        counts = not request.silent and content.get("store_history", True)
        self.count += 1 if counts else 0
        request.count = max(self.count, 1)
        if request.silent:
            return
        told = {"code": content.get("code", ""), "execution_count": request.count}
        self.publish("execute_input", told, {}, message.header)
        for kind, content in self.missed.begins(request):
            self.publish(kind, content, {}, message.header)

    def from_evcxr(self):
        for channel in ("iopub", "shell", "stdin"):
            for message in self.evcxr.sockets.waiting(channel):
                getattr(self, f"inner_{channel}")(message)
        request = self.current
        if request and request.reply and request.idle:
            self.library.read_all()
            self.current = None
            self.finish(request, failures.of(request) if request.is_cell else None)
        status = self.evcxr.ended()
        if status is not None:
            self.lost_evcxr(status)

    def inner_shell(self, message):
        if message.kind == "kernel_info_reply":
            self.ready = True
        elif self.current and message.answers == self.current.inner["msg_id"]:
            self.current.reply = message.content

    def inner_iopub(self, message):
        request = self.current
        ours = request and message.answers == request.inner["msg_id"]
        if message.kind == "status":
            if ours and message.content.get("execution_state") == "idle":
                request.idle = True
        elif message.kind == "stream":
            # What did not come by the library: before it has taken over, in a new process.
            parent = request.message.header if ours else self.over.get(message.answers)
            if parent is not None and not (ours and request.hidden):
                self.outputs.text(parent, message.content["name"], message.content["text"])
        elif message.kind == "error":
            if ours:
                request.errors.append(message.content)
        elif message.kind in ("execute_result", "display_data"):
            if ours and not request.silent:
                if "execution_count" in message.content:
                    message.content["execution_count"] = request.count
                self.library.read_all()
                parent = request.message.header
                self.outputs.publish(message.kind, message.content, parent)

    def inner_stdin(self, message):
        if message.kind == "input_request" and self.current:
            self.ask("evcxr", message.content)

    def finish(self, request, failure):
        """`failure` is (name, value, traceback) or None."""
        message = request.message
        self.outputs.flush()
        if request.inner:
            self.over[request.inner["msg_id"]] = None if request.hidden else message.header
            while len(self.over) > 100:
                self.over.popitem(last=False)
        if request.hidden:
            if failure:
                print(f"Consistency Lab: warming up: {failure[1]}", file=sys.stderr, flush=True)
            return
        self.ran = time.monotonic()
        kind = message.kind.replace("_request", "_reply")
        if not request.is_cell:
            content = request.reply or {"status": "error", "ename": "", "evalue": "", "traceback": []}
            if kind == "inspect_reply":
                content = shift_tab.shown(content)
            self.answer("shell", message, kind, content)
            self.status("idle", message.header)
            return
        content = {"status": "ok", "execution_count": request.count, "user_expressions": {}, "payload": []}
        if failure:
            name, value, traceback = failure
            error = {"ename": name, "evalue": value, "traceback": traceback}
            if not request.silent:
                self.publish("error", error, {}, message.header)
            content = {"status": "error", "execution_count": request.count, **error}
            if message.content.get("stop_on_error", True):
                self.abort_waiting()
        self.answer("shell", message, kind, content)
        self.status("idle", message.header)

    def abort_waiting(self):
        """Cells that were sent before this one failed do not run; those that come later do."""
        for message in self.out.waiting("shell"):
            self.request(message)
        kept = collections.deque()
        for request in self.queue:
            if request.is_cell and not request.hidden:
                self.status("busy", request.message.header)
                self.answer("shell", request.message, "execute_reply", {"status": "aborted"})
                self.status("idle", request.message.header)
            else:
                kept.append(request)
        self.queue = kept

    # From the library.

    def parent(self):
        """What output belongs to, or None where nobody is to see it."""
        request = self.current
        if request and request.is_cell:
            return None if request.silent else request.message.header
        return self.newest or None

    def printed(self, name, text):
        parent = self.parent()
        if parent is not None:
            self.outputs.text(parent, name, text)
        elif not self.newest:
            # Before the first cell: for the log of the person who started the server.
            print(text, end="", file=sys.stderr, flush=True)

    def operation(self, operation):
        kind, parent = operation["op"], self.parent()
        if kind == "loaded":
            if self.current:
                self.current.loaded = True
        elif kind == "failed":
            if self.current:
                self.current.failed = operation
        elif kind == "input":
            self.ask("library", operation)
        elif parent is None:
            return
        elif kind == "text":
            self.outputs.text(parent, operation["name"], operation["text"])
        elif kind == "display":
            self.outputs.display(operation, parent)

    # Standard input.

    def ask(self, who, question):
        request = self.current
        allowed = request and not request.silent and request.message.content.get("allow_stdin")
        if not allowed:
            self.hand_back(who, None)
            return
        self.outputs.flush()
        content = {
            "prompt": question.get("prompt", ""),
            "password": bool(question.get("password")),
        }
        self.asked = who
        self.answer("stdin", request.message, "input_request", content)

    def answered(self, message):
        if message.kind == "input_reply" and self.asked:
            who, self.asked = self.asked, None
            self.hand_back(who, message.content.get("value", ""))

    def hand_back(self, who, value):
        if who == "library":
            self.library.say("r " + json.dumps(value))
        else:
            wire = self.evcxr.sockets.wire
            content = {"status": "ok", "value": value or ""}
            self.evcxr.sockets.send("stdin", wire.message("input_reply", content))

    # Interrupts.

    def interrupt(self):
        request = self.current
        if not request or not request.is_cell or request.hidden:
            # Cells that wait for the kernel to be ready are not to run.
            self.abort_waiting()
            return
        request.presses += 1
        if request.presses == 1:
            request.deadline = time.monotonic() + PATIENCE
            self.library.say("i")
            if self.asked == "library":
                self.asked = None
                self.library.say("r null")
            request.look = time.monotonic()
            self.overdue()
        elif request.loaded:
            self.kill_cells(request)
        elif time.monotonic() > request.deadline:
            # rust-analyzer, in evcxr itself, does not come to an end.
            self.evcxr.kill()
            self.lost_evcxr("stopped while it looked for the types of variables")

    def end_compilers(self):
        """cargo and rustc, and not the process behind the cells nor what that has started."""
        if self.library.pid:
            for pid in self.evcxr.compilers(self.library.pid):
                end(pid)

    def overdue(self):
        request = self.current
        if not request or not request.deadline:
            return
        now = time.monotonic()
        if request.loaded:
            # It has run, or will soon have run, into a place that looks for the interrupt.
            if now >= request.deadline:
                self.kill_cells(request)
        elif now >= request.look:
            self.end_compilers()
            request.look = time.monotonic() + LOOK

    def kill_cells(self, request):
        if request.killed:
            return
        request.killed, request.deadline = True, None
        self.end_compilers()
        started = descendants(self.library.pid) if self.library.pid else []
        wire = self.evcxr.sockets.wire
        self.evcxr.sockets.send("control", wire.message("interrupt_request", {}))
        for pid in started:
            end(pid)

    def lost_evcxr(self, status):
        """evcxr itself is gone: Jupyter is to see that, and starts us anew."""
        self.library.read_all()
        if self.current:
            request, self.current = self.current, None
            self.finish(request, failures.kernel_gone(status))
        self.outputs.flush()
        print(f"Consistency Lab: evcxr_jupyter ended ({status})", file=sys.stderr, flush=True)
        if self.library.pid:
            end_all(self.library.pid)  # which evcxr can no longer end
        self.close()
        os._exit(1)


def hidden(code):
    """A cell of our own, whose messages nobody sees."""
    content = {"code": code, "silent": True, "store_history": False, "allow_stdin": False}
    return Request(Message({"msg_type": "execute_request"}, {}, {}, content), hidden=True)
