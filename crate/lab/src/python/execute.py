"""Run a notebook cell by cell in the kernel `consistency`, or write its outputs back.

execute.py NOTEBOOK EXECUTED SCRATCH PROJECT [SECONDS]
    Runs NOTEBOOK and writes the executed copy to EXECUTED. SCRATCH/outcome.json says how
    it went. A cell with the tag raises-exception must fail, and the run goes on. A cell that takes
    longer than SECONDS ends the run, and its kernel with all that it has started. An interrupt
    (Ctrl-C) stops the running cell, as the stop button does, and the run after it; what ran before
    is written. Progress bars are not kept.

execute.py --write EXECUTED NOTEBOOK PROJECT STATE
    Puts the outputs of EXECUTED into NOTEBOOK, without paths of this machine. A cell with
    the tag varies shows times: as long as no other cell's output is new, its old one stays.
"""

import asyncio
import contextlib
import hmac
import json
import os
import pathlib
import queue
import re
import signal
import sys
import threading
import time

import nbformat
import zmq
from jupyter_client import BlockingKernelClient
from nbclient import NotebookClient
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

KERNEL = "consistency"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def plain(text):
    return ANSI.sub("", text).strip()


def remedy(error, earlier):
    """What a compile error leaves unsaid: a variable of an earlier cell can be gone."""
    missing = re.search(r"cannot find value `(\w+)` in this scope", error)
    if not missing:
        return ""
    name = missing[1]
    declared = re.compile(rf"\blet\s+(\(.*?\b)?(mut\s+)?{name}\b")
    if not any(declared.search("".join(cell.source)) for cell in earlier):
        return ""
    return (
        f"\nAn earlier cell declared `{name}`, and it is gone: a cell moved it (a new value that "
        "the same cell assigned does not bring it back), or its own cell failed. Declare it again "
        f"with `let` (`let mut {name} = ..`), or pass `{name}.clone()` where it was moved."
    )


class Client(NotebookClient):
    """nbclient's, with as little work as can be for a printed line, which is a message each:
    20 000 of them take it 4.0 s of processor time, and 0.4 s here."""

    # The running cell's output of each stream, and what it does not have yet.
    printed = {}

    def join_printed(self, **_):
        """Give the outputs their text."""
        for output, lines in self.printed.values():
            if lines:
                output.text += "".join(lines)
                lines.clear()

    async def _async_poll_output_msg(self, parent_msg_id, cell, cell_index):
        """Take all messages that are there at once, and read of a line's what is needed."""
        channel, session = self.kc.iopub_channel, self.kc.session
        at_once = zmq.Socket.shadow(channel.socket)
        while True:
            messages = [await channel.get_msg(timeout=None)]
            # In portions: a cell that prints without end must not outrun its time limit.
            with contextlib.suppress(zmq.Again):
                while len(messages) < 1000:
                    _, parts = session.feed_identities(at_once.recv_multipart(zmq.NOBLOCK))
                    messages.append(self.line(session, parts) or session.deserialize(parts))
            for message in messages:
                if message["parent_header"].get("msg_id") == parent_msg_id:
                    try:
                        self.process_message(message, cell, cell_index)
                    except CellExecutionComplete:
                        return
            await asyncio.sleep(0)

    @staticmethod
    def line(session, parts):
        """The message of a printed line, without its dates; None for any other."""
        signature, header, parent, _, content = parts[:5]
        if json.loads(header)["msg_type"] != "stream":
            return None
        if session.auth and not hmac.compare_digest(signature, session.sign(parts[1:5])):
            return None
        parent, content = json.loads(parent), json.loads(content)
        return {"msg_type": "stream", "parent_header": parent, "content": content}

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "clear_output":
            self.printed = {}
        if msg["msg_type"] != "stream" or self.clear_before_next_output:
            return super().process_message(msg, cell, cell_index)
        name, text = msg["content"]["name"], msg["content"]["text"]
        if name not in self.printed:
            output = nbformat.v4.new_output("stream", name=name, text="")
            cell.outputs.append(output)
            self.printed[name] = output, []
        self.printed[name][1].append(text)
        return None


class Run:
    def __init__(self, notebook, executed, scratch, project, limit=None):
        self.limit = limit and int(limit)
        self.path, self.executed = pathlib.Path(notebook), pathlib.Path(executed)
        self.scratch, self.project = pathlib.Path(scratch), project
        self.notebook = nbformat.read(self.path, as_version=4)
        self.code = [i for i, c in enumerate(self.notebook.cells) if c.cell_type == "code"]
        self.at = 0
        # What the cells said that were to fail.
        self.expected = []
        self.client = None
        self.presses = 0

    def show(self):
        """Tell where we are, twice a second, for the program that shows it."""
        while True:
            total, at = len(self.code), self.at
            print(f"LAB-PROGRESS code cell {at} of {total}", file=sys.stderr, flush=True)
            time.sleep(0.5)

    def interrupt(self, *_):
        """Stop the running cell; called by Ctrl-C. The third time, end the kernel."""
        self.presses += 1
        if self.client is None or self.client.km is None or self.presses > 2:
            end_kernel(self.client)
            os._exit(130)
        threading.Thread(target=press_stop, args=(self.client.km.connection_file,)).start()

    def where(self, index):
        return f"cell {index + 1} (code cell {self.code.index(index) + 1} of {len(self.code)})"

    def cells(self, client):
        """Run the code cells; the first failure ends it."""
        for number, index in enumerate(self.code):
            self.at = number + 1
            if self.presses:
                return f"stopped before {self.where(index)}"
            cell = self.notebook.cells[index]
            if not "".join(cell.source).strip():
                continue
            wanted = "raises-exception" in cell.metadata.get("tags", [])
            error, client.printed = None, {}
            try:
                client.execute_cell(cell, index)
            except CellTimeoutError:
                end_kernel(client)
                return (
                    f"{self.where(index)} took longer than --timeout {self.limit} allows "
                    f"({self.limit} s a cell); it was ended, with its kernel and all that it had "
                    "started. Allow more, or look for what it waits for"
                )
            except CellExecutionError as failure:
                error = plain(str(failure))
            finally:
                client.join_printed()
                cell.outputs = [output for output in cell.outputs if not is_bar(output)]
            if error and self.presses:
                return f"{self.where(index)} was stopped. Run the notebook again: training resumes"
            for output in cell.outputs:
                if output.output_type == "error":
                    # The kernel's own words, without the cell around them.
                    error = plain("\n".join(output.traceback)) or error
            if error and not wanted:
                earlier = [self.notebook.cells[i] for i in self.code[:number]]
                return f"{self.where(index)} failed: {error}{remedy(error, earlier)}"
            if error:
                self.expected.append(f"{self.where(index)}: {error}")
            if wanted and not error:
                return f"{self.where(index)} should have failed (tag raises-exception) and did not"
        return None

    def run(self):
        start, failed = time.time(), None
        client = self.client = Client(
            self.notebook,
            kernel_name=KERNEL,
            timeout=self.limit,
            startup_timeout=300,
            # Printed lines may come long after the cell has ended. Seconds; it would be 4, and
            # what came later would be lost without a word.
            iopub_timeout=3600,
            resources={"metadata": {"path": str(self.path.parent)}},
            # One output for lines that were printed one by one, however they came.
            coalesce_streams=True,
            # Failures are reported here and not by nbclient.
            allow_errors=False,
            on_cell_executed=lambda **_: client.join_printed(),
        )
        threading.Thread(target=self.show, daemon=True).start()
        try:
            with client.setup_kernel():
                failed = self.cells(client)
                client.set_widgets_metadata()
        except DeadKernelError as error:
            failed = f"{self.where(self.code[max(self.at - 1, 0)])}: the kernel died ({error})"
        except RuntimeError as error:
            failed = f"the kernel did not start: {error}; cargo lab doctor looks for the cause"
        self.notebook.metadata["kernelspec"] = {
            "name": KERNEL,
            "display_name": "Rust (Consistency Lab)",
            "language": "rust",
        }
        self.executed.parent.mkdir(parents=True, exist_ok=True)
        write(self.notebook, self.executed)
        outcome = {"failed": failed, "seconds": time.time() - start, "expected": self.expected}
        outcome["stopped"] = self.presses > 0
        (self.scratch / "outcome.json").write_text(json.dumps(outcome))
        return 1 if failed else 0


def press_stop(connection_file):
    """Ask the kernel to stop its cell, by a connection of our own: nbclient's is at work."""
    client = BlockingKernelClient()
    client.load_connection_file(connection_file)
    client.start_channels(shell=False, iopub=False, stdin=False, hb=False)
    client.control_channel.send(client.session.msg("interrupt_request"))
    with contextlib.suppress(queue.Empty):
        client.get_control_msg(timeout=5)
    client.stop_channels()


def is_bar(output):
    """Whether it is the progress of a long call: other times, other text."""
    return output.get("metadata", {}).get("consistency") == "bar"


def write(notebook, path):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def write_back(executed, notebook, project, state):
    ran = nbformat.read(executed, as_version=4)
    target = nbformat.read(notebook, as_version=4)
    if [c.source for c in ran.cells] != [c.source for c in target.cells]:
        sys.exit(f"{notebook} changed since it ran")
    # Longest first: the state may lie inside the project.
    places = {project: ".", state: ".lab", str(pathlib.Path.home()): "~"}
    outputs, news = {}, False
    for cell, after in zip(ran.cells, target.cells):
        after.metadata.pop("execution", None)
        if after.cell_type != "code":
            continue
        after.execution_count = count = len(outputs) + 1
        outputs[count] = [clean(output, count, places) for output in cell.outputs]
        news |= not varies(after) and outputs[count] != after.outputs
    for cell in target.cells:
        if cell.cell_type == "code" and (news or not varies(cell) or not cell.outputs):
            cell.outputs = outputs[cell.execution_count]
    target.metadata = {
        "kernelspec": ran.metadata["kernelspec"],
        "language_info": {"name": "rust", "file_extension": ".rs", "mimetype": "text/rust"},
    }
    write(target, pathlib.Path(notebook))


def varies(cell):
    return "varies" in cell.metadata.get("tags", [])


def clean(output, count, places):
    text = json.dumps(output)
    for path in sorted(places, key=len, reverse=True):
        text = text.replace(json.dumps(path)[1:-1], places[path])
    output = nbformat.from_dict(json.loads(text))
    if "execution_count" in output:
        output["execution_count"] = count
    # A trace names generated files.
    if output["output_type"] == "error":
        output["traceback"] = [plain(line) for line in output["traceback"]]
    return output


def end_kernel(client):
    """End the kernel, the process behind its cells, and what they have started."""
    with contextlib.suppress(AttributeError, OSError):
        os.killpg(client.km.provisioner.pgid, signal.SIGKILL)


def end_with(parent, run):
    """Leave, and end the kernel, when the program that started us is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    end_kernel(run.client)
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write_back(*sys.argv[2:])
    else:
        run = Run(*sys.argv[1:])
        threading.Thread(target=end_with, args=(os.getppid(), run), daemon=True).start()
        signal.signal(signal.SIGINT, run.interrupt)
        sys.exit(run.run())
