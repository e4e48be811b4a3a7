#!/usr/bin/env python3
"""Run one test program for cargo, and note how long each of its tests took.

cargo calls it as its runner (`CARGO_TARGET_<TRIPLE>_RUNNER`): timed.py PROGRAM [ARGUMENT ...].
A row a test goes to the file that TEST_TIMES names, and a row for the program with its
processor seconds, those of everything that it started included.

timed.py --table FILE prints the rows as a table, the longest first.

The test harness starts its tests in the order of its list, as many at once as there are
threads, and the next one whenever one ends. So the moments at which they end are enough.
"""

import os
import resource
import subprocess
import sys
import time

SHOWN = 25


def run(command):
    times = os.environ.get("TEST_TIMES")
    listing = subprocess.run([*command, "--list"], capture_output=True, text=True).stdout
    tests = [line[: -len(": test")] for line in listing.splitlines() if line.endswith(": test")]
    start = time.time()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ended = {}
    for line in child.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        words = line.split()
        if len(words) >= 4 and words[0] == "test" and words[-1] in ("ok", "FAILED"):
            ended[words[1]] = time.time()
    code = child.wait()
    program = os.path.basename(command[0]).rsplit("-", 1)[0]
    rows = [(f"{program}::{name}", took, "") for name, took in durations(tests, ended, start)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows.append((f"{program} (all)", time.time() - start, f"{used.ru_utime + used.ru_stime:.1f}"))
    if times:
        with open(times, "a", encoding="utf-8") as file:
            for name, took, processor in rows:
                file.write(f"{name}\t{took:.1f}\t{processor}\n")
    return code if code >= 0 else 128 - code


def durations(tests, ended, start):
    """(test, seconds), from the moments at which the tests ended."""
    threads = int(os.environ.get("RUST_TEST_THREADS", 0)) or os.cpu_count() or 1
    free = [start] * threads
    found = []
    # In the order in which they were started: each takes the thread that was free first.
    for name in (test for test in tests if test in ended):
        begun = min(free)
        free[free.index(begun)] = max(ended[name], begun)
        found.append((name, max(ended[name] - begun, 0.0)))
    return found


def table(path):
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    rows.sort(key=lambda row: -float(row[1]))
    print(f"{'seconds':>8}  {'processor':>9}  test (the {SHOWN} longest)")
    for name, took, processor in rows[:SHOWN]:
        print(f"{took:>8}  {processor:>9}  {name}")


if __name__ == "__main__":
    if sys.argv[1] == "--table":
        table(sys.argv[2])
    else:
        sys.exit(run(sys.argv[1:]))
