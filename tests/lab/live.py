"""A Jupyter client that watches what a cell sends while it runs, and presses stop.

live.py SCENARIO

Each function below is a scenario: it holds what it says by assertions.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import time

import nbformat
import zmq
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session

LIMIT = 120
PROJECT = pathlib.Path(__file__).resolve().parents[2]


class Cell:
    """What came of one request."""

    def __init__(self, messages, reply):
        self.messages, self.reply = messages, reply

    @property
    def status(self):
        return self.reply["content"]["status"]

    @property
    def ename(self):
        return self.reply["content"].get("ename")

    @property
    def evalue(self):
        return self.reply["content"].get("evalue", "")

    def text(self, name="stdout"):
        streams = [m["content"] for m in self.messages if m["msg_type"] == "stream"]
        return "".join(s["text"] for s in streams if s["name"] == name)

    def kinds(self):
        return [m["msg_type"] for m in self.messages]

    def __repr__(self):
        told = [(m["msg_type"], str(m["content"])[:300]) for m in self.messages]
        return "\n".join(map(str, [*told, self.reply and self.reply["content"]]))


class Kernel:
    def __init__(self, **env):
        self.manager = KernelManager(kernel_name="consistency")
        self.manager.start_kernel(
            env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.client = self.connect()

    def connect(self):
        client = self.manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=LIMIT)
        return client

    def begin(self, code, **options):
        return self.client.execute(code, **options)

    def until(self, id, stop, client=None):
        """The messages about request `id` until one for which `stop` holds."""
        client, messages, end = client or self.client, [], time.time() + LIMIT
        while True:
            try:
                message = client.get_iopub_msg(timeout=1)
            except queue.Empty:
                assert time.time() < end, f"nothing more came after {messages}"
                continue
            if message["parent_header"].get("msg_id") == id:
                messages.append(message)
                if stop(message):
                    return messages

    def end(self, id, before=()):
        messages = [*before, *self.until(id, is_idle)]
        while True:
            reply = self.client.get_shell_msg(timeout=LIMIT)
            if reply["parent_header"].get("msg_id") == id:
                return Cell(messages, reply)

    def run(self, code, **options):
        return self.end(self.begin(code, **options))

    def stopped(self, code, when, presses=1):
        """Run `code` and press stop as soon as `when` holds for a message of it."""
        id = self.begin(code)
        before = self.until(id, when)
        start = time.time()
        for press in range(presses):
            time.sleep(0.5 * press)
            self.manager.interrupt_kernel()
        cell = self.end(id, before)
        cell.took = time.time() - start
        return cell

    def ask(self, kind, channel="shell", **content):
        """The reply to a request of another kind, which comes in a running cell too."""
        message = self.client.session.msg(kind, content)
        getattr(self.client, f"{channel}_channel").send(message)
        get = getattr(self.client, f"get_{channel}_msg")
        while True:
            reply = get(timeout=LIMIT)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply["content"]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def is_idle(message):
    return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"


def says(text, name="stdout"):
    """Whether what has been printed so far holds the text."""
    seen = []

    def look(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == name:
            seen.append(message["content"]["text"])
        return text in "".join(seen)

    return look


def of_kind(kind):
    return lambda message: message["msg_type"] == kind


@contextlib.contextmanager
def kernel(**env):
    opened = Kernel(**env)
    try:
        yield opened
    finally:
        opened.close()


def processes(word):
    """The processes whose environment or command names `word`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                if word.encode() in text and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
    return found


def stopping():
    """Stop ends every kind of cell with the error Interrupted, and keeps the variables."""
    with kernel() as k:
        first = k.run("let kept = 7;")
        assert first.status == "ok" and first.reply["content"]["execution_count"] == 1, first
        mixture = (
            "let m = GaussianMixture::new(vec![0.5, 0.5], vec![vec![-1.0], vec![1.0]], "
            "vec![0.1, 0.1])?; let x = Tensor::zeros((4096, 1), DType::F64, &Device::Cpu)?;"
        )
        assert k.run(mixture).status == "ok"
        begin = 'println!("begin"); '
        endless = [
            # A loop that prints, one that looks, an iterator.
            'println!("begin"); let mut i = 0u64; loop { println!("{i}"); i += 1; }',
            begin + "loop { check_interrupt()?; std::thread::sleep(std::time::Duration::from_millis(1)); }",
            begin + "let n = stoppable(0u64..).map(|i| i % 3).sum::<u64>();",
            # The library's own: an exact denoiser, on other threads too.
            begin + "loop { m.denoise(&x, &[1.0])?; }",
            begin + "on_threads(1, || -> consistency::Result<()> { loop { m.denoise(&x, &[1.0])?; } })?;",
            # Shown again and again.
            begin + 'live(|view| { loop { view.show(&1.5)?; } #[allow(unreachable_code)] Ok(()) })?;',
        ]
        for code in endless:
            cell = k.stopped(code, says("begin\n"))
            assert (cell.status, cell.ename) == ("error", "Interrupted"), cell
            assert [m["content"]["ename"] for m in cell.messages if m["msg_type"] == "error"] == [
                "Interrupted"
            ], cell
            assert cell.kinds()[-1] == "status" and "error" == cell.kinds()[-2], cell
            kept = k.run('println!("{kept}");')
            assert kept.text() == "7\n", kept

        # While it compiles.
        terms = (f"vec![{i}; 3].iter().map(|x| x * {i}).filter(|x| *x > 1).count()" for i in range(400))
        wide = "fn wide() -> usize { " + " + ".join(terms) + " }"
        cell = k.stopped(wide, of_kind("execute_input"))
        assert (cell.status, cell.ename) == ("error", "Interrupted"), cell

        # Nothing to stop: the next cell runs.
        assert k.ask("interrupt_request", channel="control")["status"] == "ok"
        assert k.run('println!("{kept}");').text() == "7\n"

        # A loop that never looks: at the second press its process is ended.
        cell = k.stopped(begin + "loop {}", says("begin\n"), presses=2)
        assert (cell.status, cell.ename) == ("error", "Killed"), cell
        for word in ("variables are lost", "check_interrupt()?", "stoppable("):
            assert word in cell.evalue, cell
        # The new process is prepared as the first one was.
        cell = k.run('let again = 1; println!("before"); panic!("in the new process");')
        assert (cell.ename, cell.evalue) == ("Panic", "in the new process"), cell
        assert cell.text() == "before\n" and cell.text("stderr") == "", cell
        assert k.run("kept").status == "error"
        # Without a second press too, after a while; what it started goes with it.
        cell = k.stopped(
            begin + 'std::process::Command::new("sleep").arg("987654").status()?;', says("begin\n")
        )
        assert (cell.status, cell.ename) == ("error", "Killed"), cell
        assert not processes("987654"), "a program of the cell is left"


def runs():
    """A run outlives the cell that waits for it, and shows where it is."""
    with kernel(LAB_RUNS=sys.argv[2]) as k:
        text = (
            "let e = Experiment::parse(\"name = 'live'\\ndata = { name = 'moons', count = 500 }\\n"
            "network = { kind = 'mlp', width = 32, blocks = 2 }\\n"
            "method = { kind = 'score-matching' }\\n"
            "training = { iterations = 100000000, batch = 64, record_every = 100 }\")?;"
        )
        assert k.run(text).status == "ok"
        cell = k.run("let run = Run::start(&e, 1)?;")
        assert cell.status == "ok", cell

        def moved(times):
            seen = []

            def look(message):
                if message["msg_type"] == "update_display_data":
                    seen.append(message["content"]["transient"]["display_id"])
                return any(seen.count(id) >= times for id in seen) and len(set(seen)) == 2

            return look

        # The bar and the curve, both of which move; then stop.
        cell = k.stopped("run.watch()?;", moved(3))
        assert (cell.status, cell.ename) == ("error", "Interrupted"), cell
        made = [m["content"] for m in cell.messages if m["msg_type"] == "display_data"]
        assert len(made) == 2, cell
        assert "<progress" in made[0]["data"]["text/html"], made[0]
        # A picture while it moves, interactive in its last state.
        curve = [m["content"] for m in cell.messages if m["msg_type"].endswith("display_data")]
        curve = [c["data"] for c in curve if "image/png" in c["data"]]
        assert ["application/vnd.plotly.v1+json" in data for data in curve] == (
            [False] * (len(curve) - 1) + [True]
        ), cell
        # A figure of one's own at each checkpoint, of the run as it stood there.
        code = (
            "run.watch_with(|k, trained| { let x = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?; "
            "let y = values(&trained.denoiser()?.denoise(&x, &[1.0])?)?[0]; "
            'Ok(Figure::new(format!("after {k} iterations")).line("", &[0.0, 1.0], &[0.0, y])) })?;'
        )
        cell = k.stopped(code, moved(2))
        assert (cell.status, cell.ename) == ("error", "Interrupted"), cell
        titles = [m["content"]["data"].get("text/plain", "") for m in cell.messages
                  if m["msg_type"].endswith("display_data")]
        titles = {t.splitlines()[0] for t in titles if "after" in t}
        assert len(titles) >= 2 and all("000 iterations" in t for t in titles), titles
        # It trains on; joined, stopped, joined again.
        cell = k.run("let a = run.progress().step; std::thread::sleep(std::time::Duration::from_secs(1)); "
                     "let b = run.progress().step; check::holds(\"it trains on\", b > a);")
        assert cell.status == "ok", cell
        cell = k.stopped("run.join()?;", of_kind("display_data"))
        assert (cell.status, cell.ename) == ("error", "Interrupted"), cell
        cell = k.run("run.stop(); let ended = run.join().unwrap_err(); "
                     'println!("{}", ended.is_stopped());')
        assert cell.text() == "true\n", cell
        # In the cell itself: it stops after a step, with a checkpoint, and resumes.
        again = "train(&e, &runs_folder(), &Monitor::default(), 1)?;"
        cell = k.stopped(again, of_kind("display_data"))
        assert (cell.status, cell.ename) == ("error", "Interrupted"), cell
        newest = max(pathlib.Path(sys.argv[2]).rglob("*.safetensors"), key=os.path.getmtime)
        assert time.time() - newest.stat().st_mtime < 60, newest
        # A thread that works for no cell prints while no cell runs.
        cell = k.run(
            "std::thread::spawn(|| { std::thread::sleep(std::time::Duration::from_secs(1)); "
            'println!("from the background"); });'
        )
        k.until(cell.reply["parent_header"]["msg_id"], says("from the background\n"))


def outputs():
    """All output comes, in order, before idle, each under its own request."""
    with kernel() as k:
        # Nothing shows that was only for warming up.
        info = k.ask("kernel_info_request")
        assert info["language_info"]["pygments_lexer"] == "rust", info
        code = (
            'println!("one"); Figure::new("f").line("l", &[0.0, 1.0], &[0.0, 1.0]).show(); '
            'eprintln!("two"); df!("a" => [1.5])?.show(); print!("three"); dbg!(4);'
        )
        cell = k.run(code)
        assert cell.reply["content"]["execution_count"] == 1, cell
        assert cell.kinds() == [
            "status", "execute_input", "stream", "display_data", "stream", "display_data",
            "stream", "stream", "status",
        ], cell
        streams = [m["content"] for m in cell.messages if m["msg_type"] == "stream"]
        assert [s["text"].strip() for s in streams[:3]] == ["one", "two", "three"], cell
        assert "= 4" in streams[3]["text"] and streams[3]["name"] == "stderr", cell

        # The same number of lines on both, and none is lost or late.
        cell = k.run('for i in 0..300 { println!("{i}"); eprintln!("{i}"); }')
        lines = "".join(f"{i}\n" for i in range(300))
        assert cell.text() == lines and cell.text("stderr") == lines, cell
        cell = k.run('for i in 0..20000 { println!("{i}"); }')
        assert cell.text() == "".join(f"{i}\n" for i in range(20000)), "lines are lost"
        assert len(cell.messages) < 200, len(cell.messages)
        # Programs that a cell starts, and text without a newline.
        cell = k.run(
            'std::process::Command::new("sh").args(["-c", "echo out; echo err >&2; cat"]).status()?; '
            'print!("open"); std::io::Write::flush(&mut std::io::stdout())?;'
        )
        assert (cell.text(), cell.text("stderr")) == ("out\nopen", "err\n"), cell
        # A value with `{:?}` alone, through the standard output of evcxr's own code.
        cell = k.run('println!("x"); Some(3)')
        result = [m["content"]["data"] for m in cell.messages if m["msg_type"] == "execute_result"]
        assert result == [{"text/plain": "Some(3)"}] and cell.text() == "x\n", cell

        # One output in place of many: few messages, the last state whole.
        cell = k.run("live(|view| { for i in 0..200 { view.show(&i)?; } Ok(()) })?;")
        shown = [m["content"] for m in cell.messages if m["msg_type"].endswith("display_data")]
        assert len({s["transient"]["display_id"] for s in shown}) == 1 and len(shown) < 20, cell
        assert shown[-1]["data"]["text/plain"] == "199", cell

        # Errors: the kinds, their words, and what was printed before.
        for code, name, word in (
            ('let lost = 1; println!("before"); panic!("on purpose");', "Panic", "on purpose"),
            ('println!("before"); let n: i32 = "x".parse()?;', "Error", "invalid digit"),
            ('println!("before"); check::close("pi", 3.0, 3.14, 0.01);', "Panic", "check failed: pi"),
        ):
            cell = k.run(code)
            assert (cell.status, cell.ename) == ("error", name) and word in cell.evalue, cell
            assert cell.text() == "before\n" and cell.text("stderr") == "", cell
        cell = k.run('let x: i32 = "s";')
        assert cell.ename == "Error" and "mismatched types" in cell.evalue, cell
        assert "command_" not in "".join(cell.reply["content"]["traceback"]), cell
        # What cannot be linked, or not at all, keeps the variables of before.
        assert k.run("let kept = 8;").status == "ok"
        cell = k.run('unsafe extern "C" { fn is_nowhere() -> i32; } let n = unsafe { is_nowhere() };')
        assert cell.ename == "Error" and "undefined symbol: is_nowhere" in cell.evalue, cell
        assert k.run('println!("{kept}");').text() == "8\n"
        assert k.run("n").status == "error"
        # What looks like it is none.
        cell = k.run('let error = "no error"; eprintln!("{}", error);')
        assert cell.status == "ok" and cell.text("stderr") == "no error\n", cell

        # A failure ends what was sent before it, and not what comes later.
        ids = [k.begin(c) for c in ('panic!("first");', 'println!("not run");', "1 + 1")]
        ran = {}
        while len(ran) < 3:
            reply = k.client.get_shell_msg(timeout=LIMIT)
            ran[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
        assert [ran[i] for i in ids] == ["error", "aborted", "aborted"], ran
        assert k.run('println!("later");').text() == "later\n"
        cell = k.run('panic!("and on");', stop_on_error=False)
        count = cell.reply["content"]["execution_count"]
        # Not counted, and not seen.
        cell = k.run("2 + 2", silent=True)
        assert cell.kinds() == ["status", "status"], cell
        assert k.run("3", store_history=False).reply["content"]["execution_count"] == count
        assert k.run("4").reply["content"]["execution_count"] == count + 1

        # Help where one types, wherever the cursor is in the name or in the call.
        for code, cursor, word in (
            ("let r = Run::start(&e, 1)?;", 15, "Start experiment on threads threads"),
            ("let r = Run::start(&e, 1)?;", 23, "let run = Run::start(&experiment, 1)?"),
            ("check::close(", 13, "Check that got is within tolerance of want"),
            ("let e = Experiment::parse(text)?", 12, "the same experiment gives the same bits"),
        ):
            told = k.ask("inspect_request", code=code, cursor_pos=cursor, detail_level=0)
            assert told["found"] and word in told["data"]["text/plain"], (code, told)
            assert "consistency_headers" not in str(told), told
        assert not k.ask("inspect_request", code="1 + 2", cursor_pos=3, detail_level=0)["found"]
        told = k.ask("complete_request", code="let e = Exper", cursor_pos=13)
        assert "Experiment" in told["matches"], told

        # Questions that evcxr leaves open, and in a running cell the one that front-ends ask.
        assert k.ask("history_request", hist_access_type="tail")["history"] == []
        assert k.ask("comm_info_request")["comms"] == {}
        assert k.ask("is_complete_request", code="1 +")["status"] == "complete"
        id = k.begin('println!("begin"); std::thread::sleep(std::time::Duration::from_secs(2));')
        before = k.until(id, says("begin\n"))
        assert k.ask("kernel_info_request")["status"] == "ok"
        assert k.ask("kernel_info_request", channel="control")["status"] == "ok"
        assert k.end(id, before).status == "ok"


def asking():
    """Input asks the front-end, or is an error; two clients; a message with a wrong signature."""
    with kernel() as k:
        ask = 'let name = input("Your name: ")?; println!("hello {name}");'
        id = k.begin(ask, allow_stdin=True)
        question = k.client.get_stdin_msg(timeout=LIMIT)
        assert question["content"] == {"prompt": "Your name: ", "password": False}, question
        k.client.input("Ada")
        assert k.end(id).text() == "hello Ada\n"
        cell = k.run(ask, allow_stdin=False)
        assert cell.status == "error" and "nobody can be asked" in cell.evalue, cell
        # Stopped while it waits.
        id = k.begin(ask, allow_stdin=True)
        k.client.get_stdin_msg(timeout=LIMIT)
        k.manager.interrupt_kernel()
        assert k.end(id).ename == "Interrupted"

        # A second front-end sees what the first one runs, and stays apart.
        other = BlockingKernelClient()
        other.load_connection_file(k.manager.connection_file)
        other.start_channels()
        other.wait_for_ready(timeout=LIMIT)
        for client, word in ((k.client, "mine"), (other, "yours")):
            id = client.execute(f'println!("{word}");')
            seen = Cell(k.until(id, is_idle, client=other), None)
            assert seen.text() == f"{word}\n", seen
        assert other.get_shell_msg(timeout=LIMIT)["parent_header"]["msg_id"] == id
        other.stop_channels()

        # A page that is loaded again while a cell runs: its first cell tells what it has missed.
        slow = (
            'println!("begin"); live(|view| { for i in 0..3 { view.show(&i)?; } Ok(()) })?; '
            'std::thread::sleep(std::time::Duration::from_secs(3)); println!("at last");'
        )
        id = k.begin(slow)
        k.until(id, says("begin\n"))
        k.client.stop_channels()
        k.client = BlockingKernelClient()  # another session, as a page's is
        k.client.load_connection_file(k.manager.connection_file)
        k.client.start_channels()
        k.client.wait_for_ready(timeout=LIMIT)
        cell = k.run('println!("now");')
        told = cell.text("stderr")
        assert "was loaded while cell [" in told and cell.text() == "begin\nat last\nnow\n", cell
        shown = [m["content"]["data"] for m in cell.messages if m["msg_type"] == "display_data"]
        assert shown == [{"text/plain": "2"}], cell
        # Told once, and not for a cell that has seen its own end.
        assert k.run('println!("now");').text("stderr") == ""
        other = k.connect()
        assert k.run('println!("mine");').text("stderr") == ""
        other.stop_channels()

        # Not signed with the kernel's key: it is not run.
        info = k.manager.get_connection_info()
        forged = Session(key=b"not the key", signature_scheme="hmac-sha256")
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(f"tcp://{info['ip']}:{info['shell_port']}")
        forged.send(socket, "execute_request", {"code": 'println!("forged");', "silent": False})
        assert socket.poll(2000) == 0, "a forged request was answered"
        socket.close(0)
        context.term()
        assert k.run('println!("fine");').text() == "fine\n"


def ending():
    """After shutdown, restart and kill -9, of the relay too, no process is left."""
    mark = f"consistency-test-{os.getpid()}"

    def gone(what):
        end = time.time() + 15
        while processes(mark):
            assert time.time() < end, f"{what}: {processes(mark)} are left"
            time.sleep(0.1)

    busy = 'println!("begin"); loop { std::thread::sleep(std::time::Duration::from_millis(10)); }'
    k = Kernel(LAB_TEST_MARK=mark)
    k.until(k.begin(busy), says("begin\n"))
    k.manager.restart_kernel(now=False)
    k.client.stop_channels()
    k.client = k.connect()
    assert k.run('println!("new");').text() == "new\n"
    k.until(k.begin(busy), says("begin\n"))
    k.client.stop_channels()
    k.manager.shutdown_kernel(now=False)
    gone("shutdown in a running cell")
    k = Kernel(LAB_TEST_MARK=mark)
    k.until(k.begin(busy), says("begin\n"))
    relay = k.manager.provisioner.pid
    os.kill(relay, signal.SIGKILL)
    gone("kill -9 of the relay")
    k.client.stop_channels()
    # Jupyter itself: another program starts a kernel, and is killed.
    code = (
        "import os, time\n"
        "from jupyter_client.manager import KernelManager\n"
        "k = KernelManager(kernel_name='consistency')\n"
        "k.start_kernel(env=dict(os.environ))\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    jupyter = subprocess.Popen(
        [sys.executable, "-I", "-c", code], env={**os.environ, "LAB_TEST_MARK": mark},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert jupyter.stdout.readline() == "started\n"
    assert len(processes(mark)) > 1, "no kernel"
    jupyter.kill()
    jupyter.wait()
    gone("kill -9 of Jupyter")


def losing():
    """Cells are linked by rustc's own linker where mold is installed, and a kernel whose evcxr is
    lost says so and ends."""
    mark = f"consistency-lost-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        mold, used = pathlib.Path(folder, "mold"), pathlib.Path(folder, "used")
        # As evcxr calls it: mold -run cargo ..
        mold.write_text(f"#!/bin/sh\necho used >> '{used}'\nshift\nexec \"$@\"\n")
        mold.chmod(0o755)
        k = Kernel(LAB_TEST_MARK=mark, PATH=f"{folder}:{os.environ['PATH']}")
        assert k.run("let before = 1;").status == "ok"
        # evcxr's own first cell, before it reads our settings.
        at_start = used.read_text()
        assert k.run('println!("{before}");').text() == "1\n"
        assert used.read_text() == at_start, "cells are linked by mold"
    id = k.begin('println!("begin"); loop { std::thread::sleep(std::time::Duration::from_millis(10)); }')
    before = k.until(id, says("begin\n"))
    [evcxr] = [pid for pid in processes(mark) if name_of(pid) == "evcxr_jupyter" and leads(pid)]
    os.kill(evcxr, signal.SIGKILL)
    cell = k.end(id, before)
    assert cell.ename == "KernelGone" and "evcxr_jupyter ended (-9)" in cell.evalue, cell
    k.client.stop_channels()
    end = time.time() + 15
    while processes(mark):
        assert time.time() < end, f"{processes(mark)} are left"
        time.sleep(0.1)


def name_of(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()[:15]


def leads(pid):
    """Whether the process is the first of its name: its parent has another."""
    parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return name_of(parent) != name_of(pid)


def waiting():
    """A kernel of the pool is taken, clean and at once; it ends with its notebook, and the one that
    waits ends with the server."""
    mark = f"consistency-pool-{os.getpid()}"
    # The server is a process that lives until we end it.
    server = subprocess.Popen(["sleep", "3600"])
    env = {"LAB_POOL": str(server.pid), "LAB_TEST_MARK": mark, "LAB_POOL_LATER": "0"}
    env["LAB_POOL_FREE"] = "0"  # however little memory the machine has

    def gone(what):
        end = time.time() + 20
        while processes(mark):
            assert time.time() < end, f"{what}: {processes(mark)} are left"
            time.sleep(0.1)

    root = pathlib.Path(tempfile.gettempdir(), f"consistency-lab-{os.getuid()}")

    def places():
        """Where kernels wait. The next one may be there as soon as one is taken."""
        found = set()
        for path in root.glob(f"pool-{server.pid}-*"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.stat().st_ino, path.stat().st_ctime_ns))
        return found

    def waits():
        end = time.time() + LIMIT
        while not (found := places()):
            assert time.time() < end, "no kernel waits"
            time.sleep(0.1)
        return found

    try:
        with kernel(**env) as first:
            assert first.run('println!("first");').text() == "first\n"
            waited = waits()
            with kernel(**env) as second:
                assert not waited & places(), "it was not taken"
                cell = second.run('println!("second");')
                assert cell.text() == "second\n", cell
                assert cell.reply["content"]["execution_count"] == 1, cell
                # Nothing of the warming up is left.
                cell = second.run("let consistency_lab_warms_up = 3; consistency_lab_warms_up")
                assert cell.status == "ok", cell
                cell = second.stopped('println!("begin"); loop { check_interrupt()?; }', says("begin\n"))
                assert cell.ename == "Interrupted", cell
                waits()
            # Killed, not asked: the kernel behind it goes too.
            with kernel(**env) as third:
                assert third.run("1 + 1").status == "ok"
                os.kill(third.manager.provisioner.pid, signal.SIGKILL)
    finally:
        server.kill()
        server.wait()
    gone("the server's end")


def converting():
    """Jupyter's own tools stop at the failing cell, and keep the last state of what moved."""
    folder = pathlib.Path(sys.argv[2])
    code = [
        "live(|view| { for i in 0..50 { view.show(&i)?; } Ok(()) })?;",
        'eprintln!("late");',
        'panic!("on purpose");',
        'println!("not run");',
    ]
    cells = [nbformat.v4.new_code_cell(c) for c in code]
    spec = {"name": "consistency", "display_name": "Rust", "language": "rust"}
    path = folder / "failing.ipynb"

    def converted(cells):
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
        return subprocess.run(
            [sys.executable, "-I", "-m", "nbconvert", "--execute", "--to", "notebook", "--output",
             "executed.ipynb", str(path)],
            capture_output=True, text=True, env={**os.environ, "LAB_PROJECT": str(PROJECT)},
        )

    ran = converted(cells)
    assert ran.returncode != 0 and ": on purpose" in ran.stderr, ran.stderr
    ran = converted(cells[:2])
    assert ran.returncode == 0, ran.stderr
    executed = nbformat.read(folder / "executed.ipynb", as_version=4).cells
    assert [o["data"] for o in executed[0].outputs] == [{"text/plain": "49"}], executed
    assert [o["text"] for o in executed[1].outputs] == ["late\n"], executed


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print(json.dumps({"held": sys.argv[1]}))
