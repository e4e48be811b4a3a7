"""Time the kernel from a real client.

bench_kernel.py PROJECT EVCXR [--stock] [--profile]

Prints a table: kernel ready, first cell with a tensor, memory after it, ten warm cells,
the gradients across cells; what only our kernel has (a first cell after a while of reading, the
time from stop to the next prompt, outputs that change in place, printed lines, what watching a run
costs); with --stock the first part for stock evcxr_jupyter with the library as a `:dep`, which it
first compiles (that time has its own row). With --profile, instead, where the time of warm cells goes.
"""

import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from jupyter_client.manager import KernelManager

# What a session looks like: each kind of cell once, after the first.
WARM = [
    ("print", 'println!("{}", 1 + 1);'),
    ("number", "1 + 1"),
    ("tensor", "let b = Tensor::new(&[3f32, 4.0], &Device::Cpu)?;"),
    ("operators", "let c = ((&a * &b)? + 1.0)?;"),
    ("matrix product", "let m = c.unsqueeze(0)?.matmul(&a.unsqueeze(1)?)?;"),
    ("loop", "let mut xs: Vec<f64> = Vec::new(); for i in 0..10 { xs.push((i * i) as f64); }"),
    ("backward", "let v = Var::new(&[1f32, 2.0], &Device::Cpu)?; "
                 "let g = v.as_tensor().sqr()?.sum_all()?.backward()?;"),
    ("frame", 'let frame = df!("x" => [1.0, 2.0], "y" => [3.0, 4.0])?;'),
    ("mean of a column", 'let mean = frame.column("x")?.f64()?.mean();'),
    ("figure", 'Figure::new("f").x("x").y("y").line("l", &xs, &xs)'),
]
GRADIENTS = [
    "let v = Var::new(&[1f32, 2.0], &Device::Cpu)?;",
    "let unrelated = 1;",
    "let w = Var::new(&[3f32, 4.0], &Device::Cpu)?;",
    "let y = ((v.as_tensor() * 2.0)? + w.as_tensor())?.sum_all()?; let g = y.backward()?; "
    'println!("{:?} {:?}", g.get(&v).map(|t| t.to_vec1::<f32>().ok()), '
    "g.get(&w).map(|t| t.to_vec1::<f32>().ok()));",
]


class Kernel:
    """A kernel, and its cells one by one."""

    def __init__(self, env, command=None):
        self.manager = KernelManager(kernel_name="consistency")
        if command:
            self.manager.kernel_spec.argv = command
        start = time.time()
        self.manager.start_kernel(env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=3600)
        self.ready = time.time() - start

    def cell(self, code):
        """(seconds, text) of one cell; stops where it fails."""
        text = []

        def hook(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                text.append(content["text"])
            elif message["msg_type"] == "error":
                sys.exit(f"the cell failed: {code}\n" + "\n".join(content["traceback"]))

        start = time.time()
        self.client.execute_interactive(code, timeout=3600, output_hook=hook)
        return time.time() - start, "".join(text).strip()

    def stopped(self, code):
        """Seconds from stop to the cell's end, for a cell that prints once it has begun."""
        id = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == id:
                break
        start = time.time()
        self.manager.interrupt_kernel()
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            idle = message["content"].get("execution_state") == "idle"
            if idle and message["parent_header"].get("msg_id") == id:
                self.client.get_shell_msg(timeout=60)
                return time.time() - start

    def shown(self, code):
        """(seconds, messages) of a cell that shows much."""
        messages, start = [], time.time()
        self.client.execute_interactive(code, timeout=3600, output_hook=messages.append)
        return time.time() - start, len(messages)

    def memory(self):
        """Resident memory of the kernel's processes, in GB."""
        pid = self.manager.provisioner.pid
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True)
        rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
        ours, grown = {pid}, True
        while grown:
            more = {p for p, parent, _ in rows if parent in ours} - ours
            ours, grown = ours | more, bool(more)
        return sum(rss for p, _, rss in rows if p in ours) * 1024 / 1e9

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


# How often a command of the profile is timed.
ROUNDS = 3
# How long a person reads before the first cell is run.
READING = 25
RUN = (
    'let e = Experiment::parse(r#"name = "bench"\ndata = { name = "digits" }\n'
    'network = { kind = "mlp", width = 256, blocks = 3 }\nmethod = { kind = "score-matching" }\n'
    "training = { iterations = 100000000, batch = 128, record_every = 20, "
    'checkpoint_every = 100000000 }"#)?;',
    "let run = Run::start(&e, 0)?;",
)


def processor(pid, thread=None):
    """Processor seconds of a process, or of one of its threads (Linux)."""
    path = f"/proc/{pid}/task/{thread}/stat" if thread else f"/proc/{pid}/stat"
    fields = pathlib.Path(path).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def live(env):
    """What only our kernel does."""
    rows, folder = [], tempfile.mkdtemp(prefix="lab-bench-")
    kernel = Kernel({**env, "LAB_RUNS": folder})
    time.sleep(READING)
    warm = kernel.cell("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;")[0]
    rows.append((f"first tensor, {READING} s after the click", f"{warm:.2f} s"))
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    start = time.time()
    kernel.cell("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;")
    rows.append(("first tensor, at once after a restart", f"{time.time() - start:.2f} s"))
    loop = 'println!("begin"); loop { check_interrupt()?; std::thread::sleep(std::time::Duration::from_micros(100)); }'
    stops = [kernel.stopped(loop) for _ in range(5)]
    rows.append(("from stop to the next prompt, median", f"{1e3 * statistics.median(stops):.0f} ms"))
    seconds, messages = kernel.shown("for i in 0..20000 { println!(\"{i}\"); }")
    rows.append(("20 000 printed lines", f"{seconds:.2f} s in {messages} messages"))
    show = "live(|view| { for i in 0..2000 { view.show(&i)?; } Ok(()) })?;"
    seconds, messages = kernel.shown(show)
    rows.append(("2000 states of one output", f"{seconds:.2f} s in {messages} messages"))
    for line in RUN:
        kernel.cell(line)
    pid = int(kernel.cell('println!("{}", std::process::id());')[1])
    kernel.client.execute("run.watch()?;")
    time.sleep(5)
    before = processor(pid, pid) + processor(kernel.manager.provisioner.pid)
    time.sleep(20)
    used = processor(pid, pid) + processor(kernel.manager.provisioner.pid) - before
    rows.append(("watching a run, share of one core", f"{100 * used / 20:.2f} %"))
    kernel.manager.interrupt_kernel()
    kernel.stop()
    shutil.rmtree(folder, ignore_errors=True)
    rows += pool(env)
    print()
    for key, value in rows:
        print(f"  {key:<52} {value}")


def pool(env):
    """Starts where a kernel waits, as one does under `cargo lab open`; we are the server."""
    env = {**env, "LAB_POOL": str(os.getpid()), "LAB_POOL_LATER": "0"}
    root = pathlib.Path(tempfile.gettempdir(), f"consistency-lab-{os.getuid()}")

    def waits():
        while not list(root.glob(f"pool-{os.getpid()}-*")):
            time.sleep(0.1)
        time.sleep(READING)

    def first():
        start = time.time()
        kernel = Kernel(env)
        kernel.cell("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;")
        return time.time() - start, kernel

    _, kernel = first()
    times = []
    for _ in range(3):
        waits()
        kernel.stop()
        seconds, kernel = first()
        times.append(seconds)
    kernel.stop()
    row = "from the click to a first tensor, a kernel waiting"
    return [(row, f"{statistics.median(times):.2f} s")]


# The first start after a build reads new files from the disk: all are shown.
STARTS = 3


def measure(env, prepare=None, command=None):
    kernel = Kernel(env, command)
    result = {"kernel ready": kernel.ready}
    if not prepare:
        starts = [kernel.ready]
        while len(starts) < STARTS:
            kernel.stop()
            kernel = Kernel(env, command)
            starts.append(kernel.ready)
        result["kernel ready"] = statistics.median(starts)
        result["starts"] = "kernel ready is the median of " + ", ".join(f"{s:.2f}" for s in starts)
    if prepare:
        result["compiling the dependency"] = kernel.cell(prepare)[0]
        kernel.stop()
        # What a restart costs once everything is compiled.
        kernel = Kernel(env, command)
        result["kernel ready"] = kernel.ready + kernel.cell(prepare)[0]
    result["first cell"] = kernel.cell("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;")[0]
    result["memory after it"] = kernel.memory()
    if not prepare:
        time.sleep(READING)  # it warms up by itself
    warm = [(name, kernel.cell(code)[0]) for name, code in WARM]
    for code in GRADIENTS:
        _, text = kernel.cell(code)
    result["gradients"] = text
    kernel.stop()
    return result, warm


def stock(project, evcxr):
    """Stock evcxr: a folder of its own, the library as a static dependency."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lab-stock-"))
    config = folder / "config"
    config.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CARGO", "RUST", "LAB_"))}
    libdir = subprocess.run(["rustc", "--print", "target-libdir"], capture_output=True, text=True)
    env |= {
        "EVCXR_CONFIG_DIR": str(config),
        # One folder for both starts, as a user would have to arrange.
        "EVCXR_TMPDIR": str(folder / "work"),
        "LD_LIBRARY_PATH": libdir.stdout.strip(),
        "JUPYTER_PATH": str(folder / "none"),
    }
    (folder / "work").mkdir()
    prepare = (
        f':dep consistency = {{ path = "{project}/crate" }}\nuse consistency::prelude::*;'
    )
    try:
        command = [evcxr, "--control_file", "{connection_file}"]
        return measure(env, prepare, command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def profile(env):
    """Where the time of the ten warm cells goes: what evcxr compiled for each is compiled again, whole
    and in parts, in the kernel's own folder and one cell after the other, as in a notebook."""
    kernel = Kernel(env)
    time.sleep(READING)  # it has warmed up, and compiles nothing of its own
    kernel.cell("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;")
    relay = kernel.manager.provisioner.pid
    children = subprocess.run(["pgrep", "-P", str(relay)], capture_output=True, text=True).stdout
    evcxr = pathlib.Path("/proc", children.split()[0], "environ").read_bytes().split(b"\0")
    env = dict(entry.decode().split("=", 1) for entry in evcxr if b"=" in entry)
    folder = next(pathlib.Path(env["TMPDIR"]).glob(".tmp*"))
    init = pathlib.Path(env["EVCXR_CONFIG_DIR"], "init.evcxr").read_text().splitlines()[0]
    env["CARGO_ENCODED_RUSTFLAGS"] = init.partition("CARGO_ENCODED_RUSTFLAGS=")[2]
    env["CARGO_TARGET_DIR"] = "target"
    cells, sources = [], []
    for _, code in WARM:
        cells.append(kernel.cell(code)[0])
        sources.append((folder / "src" / "lib.rs").read_text())
    host = subprocess.run([env["RUSTC"], "-vV"], capture_output=True, text=True).stdout
    host = re.search("host: (.*)", host)[1]
    cargo = [env["CARGO"], "build", "--offline", "--target", host, "--message-format=json"]

    def timed(command):
        seconds = []
        for source in sources:
            (folder / "src" / "lib.rs").write_text(source)
            start = time.time()
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            seconds.append(time.time() - start)
            if done.returncode:
                sys.exit(f"{command[0]} failed:\n{done.stderr}")
        return seconds, done.stderr

    # Each once before it is timed: the incremental state is then that of the cells before.
    _, told = timed([*cargo, "-v"])
    rustc = shlex.split(re.findall("Running `(.*--crate-name ctx .*)`", told)[-1])
    whole, _ = timed(cargo)

    changes = {
        "rustc, checking alone": ("dep-info,link", "metadata"),
        "against the library itself": ("/link(?=/|$)", ""),
        "not incremental, in 2 parts": ("^incremental=.*", "codegen-units=2"),
        "level 0": ("opt-level=1", "opt-level=0"),
        "level 2": ("opt-level=1", "opt-level=2"),
    }
    commands = {"rustc": rustc, "rustc without linking": [*rustc, "-Clinker=true"]}
    for name, (old, new) in changes.items():
        # With an incremental state of its own.
        own = [f"{part} {name}" if part.startswith("incremental=") else part for part in rustc]
        commands[name] = [re.sub(old, new, part) for part in own]
    for command in commands.values():
        timed(command)
    rounds = [[timed(command)[0] for command in commands.values()] for _ in range(ROUNDS)]
    kernel.stop()
    # Of each command the seconds of the ten cells, each the median of the rounds.
    rows = [[statistics.median(each) for each in zip(*of)] for of in zip(*rounds)]
    rows = {"cell": cells, "cargo with rustc": whole} | dict(zip(commands, rows))
    print(f"\nwarm cells, s{'':<19}median   " + ", ".join(name for name, _ in WARM))
    for name, each in rows.items():
        median = statistics.median(each)
        print(f"  {name:<28}{median:8.2f}   " + " ".join(f"{seconds:.2f}" for seconds in each))


def show(name, measured):
    result, warm = measured
    times = [seconds for _, seconds in warm]
    print(f"\n{name}")
    rows = [(key, f"{value:.2f} s") for key, value in result.items() if isinstance(value, float)]
    rows = [(k, v.replace(" s", " GB") if k.startswith("memory") else v) for k, v in rows]
    rows += [
        ("ten warm cells, median", f"{statistics.median(times):.2f} s"),
        ("ten warm cells, worst", f"{max(times):.2f} s"),
        ("gradients of v and w (2 and 1)", result["gradients"]),
    ]
    for key, value in rows:
        print(f"  {key:<32} {value}")
    if "starts" in result:
        print(f"  {result['starts']}")
    print("  each: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in warm))


def main():
    project, evcxr = sys.argv[1], sys.argv[2]
    if "--profile" in sys.argv:
        profile(dict(os.environ))
        return
    show("consistency", measure(dict(os.environ)))
    live(dict(os.environ))
    if "--stock" in sys.argv:
        print("\nstock evcxr compiles the library now (minutes) ...", flush=True)
        show("stock evcxr, `:dep`", stock(project, evcxr))


if __name__ == "__main__":
    main()
