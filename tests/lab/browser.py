"""JupyterLab in a headless Chromium: a training cell that moves, stop, and a variable of before.

browser.py CHROMIUM FOLDER

Writes what it saw as PNG into FOLDER, and fails where it was not as it should be.
"""

import base64
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import websocket

LIMIT = 180
CELLS = [
    "let kept = 7;",
    """let run = Run::start(&Experiment::parse(r#"
    name = "browser"
    data = { name = "digits" }
    network = { kind = "mlp", width = 64, blocks = 2 }
    method = { kind = "score-matching" }
    training = { iterations = 20000, batch = 64, record_every = 20 }
"#)?, 1)?;""",
    "run.watch()?;",
    'println!("kept is {kept}");',
    """for slope in 1..=2 {
    println!("slope {slope}");
    Figure::new("a line").line("y", &[0.0, 1.0], &[0.0, slope as f64]).show();
}""",
    'println!("begin"); std::thread::sleep(std::time::Duration::from_secs(8)); println!("at last");',
    'println!("kept is {kept} still");',
]


class Page:
    """A page of Chromium, by its debugging protocol."""

    def __init__(self, chromium, folder):
        self.browser = subprocess.Popen(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*",
                f"--user-data-dir={folder}/profile", "--window-size=1300,1250", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        port = pathlib.Path(folder, "profile", "DevToolsActivePort")
        until(lambda: port.exists() and port.read_text().count("\n"), "Chromium")
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
        pages = json.load(urllib.request.urlopen(address))
        target = next(page for page in pages if page["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=LIMIT)
        self.count = 0

    def call(self, method, **parameters):
        self.count += 1
        mine = self.count
        self.socket.send(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "Page.javascriptDialogOpening":
                # Whether to leave the page: yes.
                self.count += 1
                yes = {"method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                self.socket.send(json.dumps({"id": self.count, **yes}))
            if answer.get("id") == mine:
                assert "error" not in answer, answer
                return answer["result"]

    def js(self, code):
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector):
        """A click of the mouse in the middle of the element."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        at = self.js(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def picture(self, path):
        shot = self.call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(shot))
        return shot

    def close(self):
        self.socket.close()
        self.browser.kill()
        self.browser.wait()


def until(holds, what):
    end = time.time() + LIMIT
    while not holds():
        assert time.time() < end, f"it did not come: {what}"
        time.sleep(0.1)


def main():
    chromium, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS]
    kernel = {"name": "consistency", "display_name": "Rust (Consistency Lab)", "language": "rust"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "live.ipynb")
    # No question about news over the page.
    (folder / "settings").mkdir()
    news = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    (folder / "settings" / "overrides.json").write_text(json.dumps(news))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    server = subprocess.Popen(
        [
            sys.executable, "-I", "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1",
            "--ServerApp.allow_root=True", f"--ServerApp.port={port}",
            f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
            "--LabApp.expose_app_in_browser=True", f"--LabApp.workspaces_dir={folder}/workspaces",
            f"--LabApp.app_settings_dir={folder}/settings",
        ],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "LAB_RUNS": str(folder / "runs")},
    )
    page = None
    try:
        base = f"http://127.0.0.1:{port}"
        until(lambda: alive(f"{base}/api?token={token}"), "JupyterLab")
        page = Page(chromium, folder)
        page.call("Page.enable")
        page.call("Page.navigate", url=f"{base}/lab/tree/live.ipynb?token={token}&reset")
        cell = "document.querySelectorAll('.jp-Notebook .jp-CodeCell')"
        until(lambda: page.js(f"!!window.jupyterapp && {cell}.length") == len(CELLS), "the notebook")
        page.js(
            "jupyterapp.shell.collapseLeft(); true"
        )
        run = "jupyterapp.commands.execute('notebook:run-cell-and-select-next'); true"
        output = lambda n: page.js(f"({cell}[{n}].querySelector('.jp-OutputArea') || {{}}).innerText || ''")

        kernel = (
            "[...jupyterapp.shell.widgets('main')].map(w => w.sessionContext?.session?.kernel?.status)[0]"
        )
        until(lambda: page.js(kernel) == "idle", "the kernel")
        select = lambda n: page.js(  # noqa: E731
            f"[...jupyterapp.shell.widgets('main')][0].content.activeCellIndex = {n}; true"
        )
        page.js(f"{cell}[0].querySelector('.jp-InputArea-editor').dispatchEvent("
                "new MouseEvent('mousedown', {bubbles: true})); true")
        for _ in range(3):
            page.js(run)
        bar = f"({cell}[2].querySelector('progress') || {{}}).value || 0"
        curve = f"!!{cell}[2].querySelector('.js-plotly-plot, img')"
        until(lambda: page.js(bar) > 0 and page.js(curve), "a bar and a curve")
        page.js(f"{cell}[1].scrollIntoView(); true")
        time.sleep(1)
        first, before = page.js(bar), page.picture(folder / "training.png")
        until(lambda: page.js(bar) > first, "a bar that moves")
        time.sleep(2)
        assert page.picture(folder / "later.png") != before, "the page stands still"
        # The button that a person presses.
        page.click("[data-jp-item-name='interrupt']")
        until(lambda: "Interrupted" in output(2), "the end of the cell")
        page.js(run)
        until(lambda: "kept is 7" in output(3), "a variable of an earlier cell")
        page.js(run)
        shown = f"{cell}[4].querySelectorAll('.js-plotly-plot, img').length"
        until(lambda: page.js(shown) == 2 and "slope 2" in output(4), "two figures")
        time.sleep(1)
        page.js(f"{cell}[2].scrollIntoView(); true")
        time.sleep(1)
        page.picture(folder / "stopped.png")
        # The page is loaded again in the middle of a cell: the next cell tells what it has missed.
        select(5)
        page.js("jupyterapp.commands.execute('docmanager:save'); true")
        page.js(run)
        until(lambda: "begin" in output(5), "the beginning of a long cell")
        page.call("Page.navigate", url=f"{base}/lab/tree/live.ipynb?token={token}")
        until(lambda: page.js(f"!!window.jupyterapp && {cell}.length") == len(CELLS), "the page again")
        until(lambda: page.js(kernel) in ("idle", "busy"), "the kernel again")
        select(6)
        page.js(run)
        until(lambda: "kept is 7 still" in output(6), "the cell after it")
        assert "was loaded while cell [" in output(6) and "at last" in output(6), output(6)
        page.js(f"{cell}[5].scrollIntoView(); true")
        time.sleep(1)
        page.picture(folder / "again.png")
    except BaseException:
        if page:
            page.picture(folder / "failed.png")
        raise
    finally:
        if page:
            page.close()
        server.send_signal(signal.SIGTERM)
        server.wait()


def alive(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


main()
