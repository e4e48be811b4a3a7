"""A Jupyter client for the tests: runs cells in real kernels and tells what came back.

Reads a request as JSON from standard input and writes the answer to standard output:
  {"env": {...}, "cwd": "...", "kernels": 2, "cells": ["...", {"restart": true}, {"stop": 1}]}
Every kernel runs every cell, in turns, until it is stopped; "stop" names it, from 0.
The answer holds, for each kernel, "ready" (seconds), "compiled" (crates that cargo compiled since
the last start) and "cells".
"""

import json
import os
import pathlib
import sys
import tempfile
import time

from jupyter_client.manager import KernelManager


class Kernel:
    def __init__(self, env, cwd, folder, number):
        self.env, self.cwd, self.log = env, cwd, pathlib.Path(folder) / f"kernel-{number}.log"
        self.cells = []
        self.begin()

    def begin(self):
        self.start = time.time()
        self.manager = KernelManager(kernel_name="consistency")
        with open(self.log, "wb") as log:
            self.manager.start_kernel(env=self.env, cwd=self.cwd, stdout=log, stderr=log)
        self.client = None

    def connect(self):
        if self.client is None:
            self.client = self.manager.client()
            self.client.start_channels()
            try:
                self.client.wait_for_ready(timeout=180)
            except RuntimeError as error:
                sys.exit(json.dumps({"dead": f"{error}\n{self.log.read_text()}"}))
            self.ready = time.time() - self.start

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code):
        answer = {"code": code, "stdout": "", "stderr": "", "data": {}, "error": None}

        def hook(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                answer[content["name"]] += content["text"]
            elif message["msg_type"] == "execute_result":
                answer["data"].update(content["data"])
            elif message["msg_type"] == "error":
                answer["error"] = "\n".join(content["traceback"])

        start = time.time()
        reply = self.client.execute_interactive(code, timeout=300, output_hook=hook)
        answer["status"] = reply["content"]["status"]
        answer["seconds"] = time.time() - start
        self.cells.append(answer)

    def compiled(self):
        lines = self.log.read_text().splitlines()
        return [line.split()[1] for line in lines if line.strip().startswith("Compiling ")]


def main():
    request = json.load(sys.stdin)
    env = {**os.environ, **request.get("env", {})}
    with tempfile.TemporaryDirectory() as folder:
        # All start before any is waited for.
        count = request.get("kernels", 1)
        kernels = [Kernel(env, request.get("cwd"), folder, n) for n in range(count)]
        for kernel in kernels:
            kernel.connect()
        at_work = list(kernels)
        for cell in request["cells"]:
            if isinstance(cell, dict) and "stop" in cell:
                kernel = kernels[cell["stop"]]
                kernel.stop()
                at_work.remove(kernel)
                continue
            for kernel in at_work:
                if isinstance(cell, dict):
                    if cell.get("restart"):
                        kernel.stop()
                        kernel.begin()
                        kernel.connect()
                    if "wait_for" in cell:
                        # Lets the test do something while the kernel is alive.
                        print(json.dumps({"at": cell["wait_for"]}), file=sys.stderr, flush=True)
                        while not os.path.exists(cell["wait_for"]):
                            time.sleep(0.1)
                else:
                    kernel.run(cell)
        answer = [
            {"ready": k.ready, "compiled": k.compiled(), "cells": k.cells} for k in kernels
        ]
        for kernel in at_work:
            kernel.stop()
        print(json.dumps(answer))


main()
