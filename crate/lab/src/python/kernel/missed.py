"""What a page did not see: it was loaded again while a cell ran.

Jupyter's server passes what a cell puts out to the pages that are open, and keeps nothing for one
that is loaded later: the cell's further output has nowhere to go, and nobody says so. A page that is
loaded again is a new session. If it comes while a cell runs, and the next cell is its own, that cell
begins with what the other one has put out.
"""

# The most text that is kept of a cell: its end.
MOST_TEXT = 1 << 16
# The most figures, tables and bars that are kept of it: the last ones.
MOST_DISPLAYS = 20


class Missed:
    def __init__(self):
        self.known = set()
        # Of the newest cell: its session, its number, what it has put out, and whether a session
        # has come while it ran.
        self.session, self.count, self.out, self.left = None, None, [], False

    def sees(self, session, runs):
        """A request has come from `session`; `runs`: while a cell runs."""
        if session not in self.known:
            self.known.add(session)
            self.left |= runs and session != self.session

    def begins(self, request):
        """A cell begins: the messages (kind, content) that are to come before its own."""
        session = request.message.header.get("session")
        told = self.told() if self.left and session != self.session else []
        self.session, self.count, self.out, self.left = session, request.count, [], False
        return told

    def told(self):
        if not self.out:
            return []
        head = (
            f"Consistency Lab: this page was loaded while cell [{self.count}] ran. What the cell "
            "put out:\n"
        )
        foot = f"Consistency Lab: so far cell [{self.count}].\n"
        note = lambda text: ("stream", {"name": "stderr", "text": text})  # noqa: E731
        return [note(head), *self.out, note(foot)]

    def keep(self, kind, content):
        """The newest cell has put this out."""
        if kind == "stream":
            last = self.out[-1] if self.out else None
            text = content["text"]
            if last and last[0] == "stream" and last[1]["name"] == content["name"]:
                text = self.out.pop()[1]["text"] + text
            self.out.append((kind, {"name": content["name"], "text": text[-MOST_TEXT:]}))
        elif kind == "update_display_data":
            for at, (_, shown) in enumerate(self.out):
                if shown.get("transient") == content["transient"]:
                    self.out[at] = ("display_data", content)
        elif kind in ("display_data", "execute_result"):
            content = {name: content[name] for name in content if name != "execution_count"}
            self.out.append(("display_data", content))
        elif kind == "error":
            text = "\n".join(content["traceback"]) + "\n"
            self.out.append(("stream", {"name": "stderr", "text": text}))
        del self.out[:-MOST_DISPLAYS]
