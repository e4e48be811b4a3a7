"""The Rust kernel of the project that is asked for.

    launch.py CURRENT CONNECTION|--wait

The project is LAB_PROJECT or the clone around the working folder. Its newest library
(lib/CURRENT) says in launch.json how a kernel is started with it. This program answers Jupyter
on CONNECTION at once, sets the environment, takes a share in the library's lock, by which it is
not swept away while the kernel lives, and starts evcxr_jupyter behind the relay. With --wait it is
started and warm for a notebook that is to come (pool.py).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pool  # noqa: E402
from relay import Relay  # noqa: E402 (isolated, Python does not look beside the program)

SHARED = pathlib.Path(__file__).resolve().parent.parent
MARK = pathlib.Path("crate", "kernel", "Cargo.toml")


class NoKernel(Exception):
    """Why there can be no kernel, and what to do."""


def stop(message):
    raise NoKernel(message)


def find_project():
    named = os.environ.get("LAB_PROJECT")
    if named:
        if not (pathlib.Path(named) / MARK).is_file():
            stop(f"LAB_PROJECT={named} is not a clone of Consistency Lab")
        return pathlib.Path(named).resolve()
    here = pathlib.Path.cwd().resolve()
    for folder in [here, *here.parents]:
        if (folder / MARK).is_file():
            return folder
    stop(
        f"{here} is not in a clone of Consistency Lab. Start Jupyter with `cargo lab open`, "
        "work in a folder of the clone, or set LAB_PROJECT to it"
    )


def state_of(project):
    """The folder with the project's libraries: beside us, or one of the clones below us."""
    for folder in [SHARED, *sorted(SHARED.glob("clones/*"))]:
        try:
            if (folder / "project").read_text() == str(project):
                return folder
        except OSError:
            pass
    stop(f"there is no library for {project}. Run `cargo lab setup` there")


def lock_library(libraries, current):
    """The newest library's folder and launch.json, with a shared lock on it; or that of the
    library which `cargo lab run` names, whatever has become current since it started."""
    for _ in range(20):
        try:
            name = os.environ.get("LAB_LIBRARY") or (libraries / current).read_text()
            folder = libraries / name
            lock = os.open(folder / "lock", os.O_RDONLY)
        except OSError:
            how = " --features cuda" if current == "current-cuda" else ""
            stop(f"there is no library in {libraries}. Run `cargo lab setup{how}`")
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Set-up may have swept it between the two lines above.
        if os.fstat(lock).st_nlink > 0:
            return folder, json.loads((folder / "launch.json").read_text())
        os.close(lock)
    stop(f"the library in {libraries} keeps changing. Try again when `cargo lab` has ended")


def check_compiler(launch):
    try:
        answer = subprocess.run([launch["rustc"], "-vV"], capture_output=True, text=True)
        version = answer.stdout.strip()
    except OSError:
        version = "none"
    if version != launch["rustc_version"]:
        built, now = launch["rustc_version"].splitlines()[0], (version.splitlines() or ["none"])[0]
        stop(f"the library was built by {built}, the compiler now is {now}. Run `cargo lab setup`")


def environment(launch):
    env = dict(os.environ)
    # Flags and wrappers meant for other builds; the kernel passes its own.
    keep = ("CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR")
    for name in list(env):
        if name.startswith("CARGO") and not name.startswith(keep):
            del env[name]
        elif name in ("RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS", "EVCXR_TMPDIR"):
            del env[name]
        elif name.startswith("RUSTC_"):
            del env[name]
    env.update(launch["set"])
    for name in ("LAB_RUNS",):
        if name in os.environ:
            env[name] = os.environ[name]
    # rust-analyzer asks these first; rustup's stand-ins would be slower.
    env["CARGO"] = os.path.join(launch["path"], "cargo")
    env["RUSTC"] = launch["rustc"]
    env["PATH"] = launch["path"] + os.pathsep + env.get("PATH", os.defpath)
    # What the user set stays, what cargo added for its own programs goes.
    ours = launch["libraries"]
    theirs = [
        path
        for path in env.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if path and not path.startswith(tuple(launch["not_libraries"]))
    ]
    env["LD_LIBRARY_PATH"] = os.pathsep.join(ours + theirs)
    if sys.platform == "darwin":
        env["DYLD_FALLBACK_LIBRARY_PATH"] = env["LD_LIBRARY_PATH"]
    # evcxr updates the kernelspec "rust" that it finds: it must not find the user's.
    env["JUPYTER_PATH"] = str(SHARED / "kernel" / "none")
    # A panic prints a trace of frames that mean nothing in a cell; errors must not too.
    env["RUST_LIB_BACKTRACE"] = "0"
    # candle's second thread pool spins while it waits and slows rayon's.
    env.setdefault("CANDLE_NUM_THREADS", "1")
    # Without it candle reads /proc/cpuinfo at every matrix product.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    env.setdefault("RAYON_NUM_THREADS", str(cores or 1))
    return env


def scratch_root():
    """The folder of the folders of evcxr's files."""
    # evcxr cannot load a cell from a path with a space. And a socket's path has at most 104 letters.
    root = tempfile.gettempdir()
    if " " in root or len(root) > 40 or not os.access(root, os.W_OK):
        root = "/tmp"
    root = pathlib.Path(root) / f"consistency-lab-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    return root


def scratch():
    """A folder for evcxr's files, removed by a later start once this kernel is gone."""
    root = scratch_root()
    # Kernels that start together take turns: none may see another's half-made folder.
    turn = os.open(root / "turn", os.O_CREAT | os.O_RDONLY, 0o600)
    fcntl.flock(turn, fcntl.LOCK_EX)
    for old in root.glob("kernel-*"):
        try:
            lock = os.open(old / "lock", os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        subprocess.run(["rm", "-rf", old])
        os.close(lock)
    folder = pathlib.Path(tempfile.mkdtemp(dir=root, prefix="kernel-"))
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDONLY, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.close(turn)
    return folder


def newest(current):
    """The library that new kernels start with."""
    folder = state_of(find_project()) / "lib"
    return os.environ.get("LAB_LIBRARY") or (folder / current).read_text()


def prepare(current):
    """How evcxr is started: its arguments, environment and folder."""
    project = find_project()
    _, launch = lock_library(state_of(project) / "lib", current)
    check_compiler(launch)
    env = environment(launch)
    folder = scratch()
    env["TMPDIR"] = env["LAB_RELAY"] = str(folder)
    argv = launch["argv"]
    if not os.access(argv[0], os.X_OK):
        stop(f"{argv[0]} is missing. Run `cargo lab setup`")
    return argv, env, folder


def wait(current):
    """Be the kernel of a notebook that is to come."""
    library = newest(current)

    def wanted():
        with contextlib.suppress(OSError):
            return newest(current) == library
        return False

    try:
        waiting = pool.Waiting(scratch_root(), pool.key(current, library), wanted)
    except BlockingIOError:
        return  # another one waits
    relay = Relay(waiting=waiting)
    relay.start(*prepare(current))
    relay.start_next = lambda: pool.start_next(current)
    waiting.listen()
    relay.run()


def main():
    current, connection = sys.argv[1], sys.argv[2]
    if connection == "--wait":
        wait(current)
        return
    connection = json.loads(pathlib.Path(connection).read_text())
    if pool.server():
        with contextlib.suppress(NoKernel, OSError):
            status = pool.take(scratch_root(), pool.key(current, newest(current)), connection)
            if status is not None:
                sys.exit(status)
    # Jupyter reaches us, whatever becomes of the kernel.
    relay = Relay(connection)
    try:
        relay.start(*prepare(current))
        if pool.server():
            relay.start_next = lambda: pool.start_next(current)
    except NoKernel as error:
        relay.broken = f"Consistency Lab: {error}"
        print(relay.broken, file=sys.stderr, flush=True)
    relay.run()


main()
