"""Run a notebook cell by cell in the kernel `consistency`, or write its outputs back.

execute.py NOTEBOOK EXECUTED SCRATCH PROJECT
    Runs NOTEBOOK and writes the executed copy to EXECUTED. SCRATCH/outcome.json says how
    it went. A cell fails if the kernel says so, or if the library reported a panic or an
    error through `?` in the file that LAB_FAILURES names (the kernel calls those "ok").
    A cell with the tag raises-exception must fail, and the run goes on.

execute.py --write EXECUTED NOTEBOOK PROJECT STATE
    Puts the outputs of EXECUTED into NOTEBOOK, without paths of this machine. A cell with
    the tag varies shows times: as long as no other cell's output is new, its old one stays.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

KERNEL = "consistency"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def plain(text):
    return ANSI.sub("", text).strip()


class Run:
    def __init__(self, notebook, executed, scratch, project):
        self.path, self.executed = pathlib.Path(notebook), pathlib.Path(executed)
        self.scratch, self.project = pathlib.Path(scratch), project
        self.failures = pathlib.Path(os.environ["LAB_FAILURES"])
        self.read = 0
        self.notebook = nbformat.read(self.path, as_version=4)
        self.code = [i for i, c in enumerate(self.notebook.cells) if c.cell_type == "code"]
        self.at = 0
        # What the cells said that were to fail.
        self.expected = []
        self.client = None

    def new_failures(self):
        """What the library reported since the last call."""
        if not self.failures.exists():
            return []
        lines = self.failures.read_text().splitlines()
        fresh, self.read = lines[self.read :], len(lines)
        return [json.loads(line) for line in fresh]

    def show(self):
        """Tell where we are, twice a second, for the program that shows it."""
        while True:
            total, at = len(self.code), self.at
            print(f"LAB-PROGRESS code cell {at} of {total}", file=sys.stderr, flush=True)
            time.sleep(0.5)

    def where(self, index):
        return f"cell {index + 1} (code cell {self.code.index(index) + 1} of {len(self.code)})"

    def cells(self, client):
        """Run the code cells; the first failure ends it."""
        for number, index in enumerate(self.code):
            self.at = number + 1
            cell = self.notebook.cells[index]
            if not "".join(cell.source).strip():
                continue
            wanted = "raises-exception" in cell.metadata.get("tags", [])
            error = None
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as failure:
                error = plain(str(failure))
            for output in cell.outputs:
                if output.output_type == "error":
                    # The kernel's own words, without the cell around them.
                    error = plain("\n".join(output.traceback)) or error
            for failure in self.new_failures():
                kind = "it panicked" if failure["kind"] == "panic" else "an error through `?`"
                error = error or f"{kind}: {plain(failure['message'])}"
            if error and not wanted:
                return f"{self.where(index)} failed: {error}"
            if error:
                self.expected.append(f"{self.where(index)}: {error}")
            if wanted and not error:
                return f"{self.where(index)} was to fail (tag raises-exception) and did not"
        return None

    def run(self):
        start, failed = time.time(), None
        client = self.client = NotebookClient(
            self.notebook,
            kernel_name=KERNEL,
            timeout=None,
            startup_timeout=300,
            resources={"metadata": {"path": str(self.path.parent)}},
            # One output for lines that were printed one by one, however they came.
            coalesce_streams=True,
            # Whatever fails, it is told here and not by nbclient.
            allow_errors=False,
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
        (self.scratch / "outcome.json").write_text(json.dumps(outcome))
        return 1 if failed else 0


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


def end_with(parent, run):
    """Leave, and end the kernel, when the program that started us is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    with contextlib.suppress(AttributeError, OSError):
        os.killpg(run.client.km.provisioner.pgid, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write_back(*sys.argv[2:])
    else:
        run = Run(*sys.argv[1:])
        threading.Thread(target=end_with, args=(os.getppid(), run), daemon=True).start()
        sys.exit(run.run())
