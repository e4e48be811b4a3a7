"""Jupyter's messages and sockets, as little of them as the relay needs.

A message is a list of frames: the identities of its client, a delimiter, a signature, four
parts of JSON (header, parent header, metadata, content), and buffers. Every signature is
checked, and each message that goes on is signed anew.
"""

import datetime
import hashlib
import hmac
import json
import sys
import uuid

import zmq

DELIMITER = b"<IDS|MSG>"
VERSION = "5.4"


class Message:
    """One message; `identities` are those of the client that it is from or for."""

    def __init__(self, header, parent, metadata, content, identities=(), buffers=()):
        self.header, self.parent, self.metadata = header, parent, metadata
        self.content, self.identities, self.buffers = content, list(identities), list(buffers)

    @property
    def kind(self):
        return self.header.get("msg_type", "")

    @property
    def id(self):
        return self.header.get("msg_id", "")

    @property
    def answers(self):
        """The id of the message that this one is about."""
        return self.parent.get("msg_id", "")


class Wire:
    """Signs and checks with one key; writes headers with one session."""

    def __init__(self, key, scheme="hmac-sha256"):
        self.key = key.encode()
        self.digest = getattr(hashlib, scheme.removeprefix("hmac-"))
        self.session = uuid.uuid4().hex

    def sign(self, parts):
        if not self.key:
            return b""
        code = hmac.new(self.key, digestmod=self.digest)
        for part in parts:
            code.update(part)
        return code.hexdigest().encode()

    def read(self, frames):
        """The message in these frames; ValueError for one that is not signed with our key."""
        if DELIMITER not in frames:
            raise ValueError("a message without a delimiter")
        at = frames.index(DELIMITER)
        signature, parts = frames[at + 1], frames[at + 2 : at + 6]
        if len(parts) < 4 or not hmac.compare_digest(signature, self.sign(parts)):
            raise ValueError("a message with a wrong signature")
        return Message(*map(json.loads, parts), frames[:at], frames[at + 6 :])

    def header(self, kind):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        return {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self.session,
            "username": "kernel",
            "date": now,
            "version": VERSION,
        }

    def frames(self, message):
        parts = [
            json.dumps(part, ensure_ascii=False, default=str).encode("utf-8", "replace")
            for part in (message.header, message.parent, message.metadata, message.content)
        ]
        return [*message.identities, DELIMITER, self.sign(parts), *parts, *message.buffers]

    def message(self, kind, content, parent=None, identities=(), metadata=None):
        return Message(self.header(kind), parent or {}, metadata or {}, content, identities)


class Sockets:
    """The five sockets of a connection file, bound (towards Jupyter) or connected (towards evcxr).

    No limit on waiting messages: a PUB socket with one drops what is beyond it."""

    CHANNELS = ("shell", "control", "stdin", "iopub", "hb")

    def __init__(self, context, connection, bind):
        self.wire = Wire(connection.get("key", ""), connection.get("signature_scheme", "hmac-sha256"))
        self.all = []
        identity = uuid.uuid4().hex.encode()
        for channel in self.CHANNELS:
            if channel == "hb" and not bind:
                continue
            kind = self.kind(channel, bind)
            socket = context.socket(kind)
            socket.linger = 1000 if bind else 0
            socket.sndhwm = socket.rcvhwm = 0
            # An input_request goes to the client whose execute_request it belongs to, by identity.
            if kind == zmq.DEALER:
                socket.identity = identity
            if kind == zmq.ROUTER:
                # A client that connects anew with its old identity takes its place.
                socket.router_handover = 1
            if kind == zmq.SUB:
                socket.subscribe(b"")
            address = address_of(connection, channel)
            if bind:
                socket.bind(address)
            else:
                socket.connect(address)
            setattr(self, channel, socket)
            self.all.append(socket)

    @staticmethod
    def kind(channel, bind):
        if channel == "iopub":
            return zmq.PUB if bind else zmq.SUB
        return zmq.ROUTER if bind else zmq.DEALER

    def send(self, channel, message):
        getattr(self, channel).send_multipart(self.wire.frames(message))

    def waiting(self, channel):
        """The messages that are there now; one with a wrong signature is not passed on."""
        socket = getattr(self, channel)
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield self.wire.read(frames)
            except ValueError as error:
                print(f"Consistency Lab: dropped {error}", file=sys.stderr, flush=True)

    def close(self):
        for socket in self.all:
            socket.close()


def address_of(connection, channel):
    port = connection[f"{channel}_port"]
    if connection.get("transport", "tcp") == "ipc":
        return f"ipc://{connection['ip']}-{port}"
    return f"tcp://{connection['ip']}:{port}"
