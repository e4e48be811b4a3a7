"""What goes out to the front-ends: text joined, updates limited in rate, all in order."""

import time

# Text that comes within this many seconds is one message: each line alone would be one, and
# Jupyter's server drops streams above 1000 messages a second.
JOINED = 0.03
# A cell that prints without end is read at most this much (characters) in that time.
MOST = 1 << 18
# Updates of one display: the newest wins.
BETWEEN_UPDATES = 0.1


class Outputs:
    """`send(kind, content, metadata, parent)` publishes a message."""

    def __init__(self, send):
        self.send = send
        # Text that waits: (parent, name), its pieces, when it is due.
        self.of, self.pieces, self.due, self.size = None, [], None, 0
        # By display: when it was last sent; and the update that waits.
        self.sent, self.updates = {}, {}

    def text(self, parent, name, text):
        if not text:
            return
        if self.of != (parent.get("msg_id"), name):
            self.flush_text()
            self.of, self.parent, self.due = (parent.get("msg_id"), name), parent, now() + JOINED
        self.pieces.append(text)
        self.size += len(text)

    def full(self):
        """Whether no more should be read before the next flush."""
        return self.size >= MOST

    def publish(self, kind, content, parent, metadata=None):
        """A message that is neither text nor an update: after the text before it."""
        self.flush_text()
        self.send(kind, content, metadata or {}, parent)

    def display(self, operation, parent):
        id = operation["id"]
        content = {
            "data": operation["data"],
            "metadata": operation.get("metadata", {}),
            "transient": {"display_id": id},
        }
        if not operation.get("update"):
            self.publish("display_data", content, parent)
            self.sent[id] = now()
            return
        self.updates[id] = (content, parent)
        if now() >= self.sent.get(id, 0) + BETWEEN_UPDATES:
            self.flush_update(id)

    def next(self):
        """When something is due, or None."""
        due = [self.sent.get(id, 0) + BETWEEN_UPDATES for id in self.updates]
        if self.due:
            due.append(self.due)
        return min(due, default=None)

    def flush_due(self):
        if self.due and now() >= self.due:
            self.flush_text()
        for id in [i for i in self.updates if now() >= self.sent.get(i, 0) + BETWEEN_UPDATES]:
            self.flush_update(id)

    def flush(self):
        self.flush_text()
        for id in list(self.updates):
            self.flush_update(id)

    def flush_text(self):
        if self.pieces:
            text, name = "".join(self.pieces), self.of[1]
            self.send("stream", {"name": name, "text": text}, {}, self.parent)
        self.of, self.pieces, self.due, self.size = None, [], None, 0

    def flush_update(self, id):
        content, parent = self.updates.pop(id)
        self.flush_text()
        self.send("update_display_data", content, {}, parent)
        self.sent[id] = now()


def now():
    return time.monotonic()
