"""What it costs to be watched by cowtop, beside perf and bpftrace, and what cowtop itself takes."""
import contextlib
import json
import mmap
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


@contextlib.contextmanager
def tool(command, ready=None):
    """A program until SIGINT; `ready` is in its output when it works.  Yields the list of what it writes."""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        said = []
        try:
            while ready and not (said and ready in said[-1]):
                said.append(process.stdout.readline())
                if not said[-1]:
                    raise RuntimeError(f"{command[0]} has ended: {''.join(said)}")
            if not ready:
                time.sleep(0.3)  # perf does not say when it is ready
            yield process, said
        finally:
            process.send_signal(signal.SIGINT)
            try:
                said.append(process.communicate(timeout=30)[0])
            except subprocess.TimeoutExpired:  # bpftrace may miss it
                process.kill()


@contextlib.contextmanager
def observer(kind, build, pid, folder):
    """Watches a process and its children.  Yields a function of what was counted, for afterwards."""
    said = []
    if kind.startswith("none"):
        yield lambda: None
        return
    if kind == "empty_probes":
        with subject(build, "empty_probes"):
            yield lambda: None
        return
    if kind == "cowtop":
        with tool([build / "tools/cowtop", "--json", "-p", pid], "attached to") as (_, said):
            yield lambda: copies_in(report_in(said))
    elif kind == "bpftrace":
        program = (f'BEGIN {{ printf("ready\\n"); }} software:page-faults:1 /pid == {pid} || '
                   f"curtask->real_parent->tgid == {pid}/ {{ @ = count(); }}")
        with tool(["bpftrace", "-e", program], "ready") as (_, said):
            yield lambda: number_in(said, r"@: (\d+)")
    else:
        with tool(["perf", "record", "-e", "page-faults", "-c", "1", "-o", folder / "perf", "-p", pid]) as (_, said):
            yield lambda: number_in(said, r"\((\d+) samples\)")


def number_in(said, pattern):
    found = re.search(pattern, "".join(said))
    if not found:
        raise RuntimeError(f"an observer did not say what it counted: {''.join(said)}")
    return int(found[1])


def report_in(said):
    text = "".join(said)
    report = json.loads(text[text.index("{"):])
    if report["backend"] != "tracepoint" or report["lost_events"]:
        raise RuntimeError("cowtop was not exact")
    return report


def copies_in(report):
    return sum(process["copied_pages"] for process in report["processes"])


@contextlib.contextmanager
def subject(build, *arguments):
    """A process of the program bench.  Yields its PID and a function that asks it."""
    with subprocess.Popen([build / "bench/bench", "--subject", *map(str, arguments)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:

        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        line = process.stdout.readline()
        if line != "\n":
            raise RuntimeError(f"{arguments}: {line}")
        yield process.pid, ask
        process.stdin.close()


OBSERVERS = ["none", "none_again", "empty_probes", "cowtop", "perf", "bpftrace"]


def measuring(build, quick):
    """ns a copied page, a first touch by another process than the watched one, a round without faults."""
    pages = 1024 if quick else 8192
    with tempfile.TemporaryDirectory() as folder:
        turns = [(work, kind) for work in ("copy", "touch", "compute") for kind in OBSERVERS]
        turns += [("copy_in_many_mappings", "none"), ("copy_in_many_mappings", "cowtop")]
        turns *= 1 if quick else 2
        random.shuffle(turns)
        for work, kind in turns:
            with subject(build, "measured", work, 200_000 if work == "compute" else pages) as (pid, ask), \
                    subject(build, "measured", "compute", 1) as (asleep, _):
                ask()
                with observer(kind, build, asleep if work == "touch" else pid, pathlib.Path(folder)) as counted:
                    ns = ask()
                count = counted() if work == "copy" else None
                if count is not None and not 3 * pages <= count <= 3 * pages + 1536:  # and the forks' own
                    raise RuntimeError(f"{kind} has counted {count} of {3 * pages} copies")
            yield f"measuring/{work}/{kind}", "time_ns", ns


def cpu_s(pid):
    """CPU time that a process and its threads have taken."""
    return sum(int(task.read_text(encoding="utf-8").split()[0])
               for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))[1]) / 1024


def run_tree(processes, pages):
    """Forks processes; each copies so many pages of a private file a second, in turns."""
    file = os.memfd_create("pages")
    os.ftruncate(file, 4096 * max(pages, 1))
    for number in range(processes):
        if os.fork() == 0:
            if pages == 0:
                signal.pause()
            memory = mmap.mmap(file, 4096 * pages, mmap.MAP_PRIVATE)
            time.sleep(number / processes)
            while True:
                for page in range(pages):
                    memory[4096 * page] = 1
                memory.madvise(mmap.MADV_DONTNEED)
                time.sleep(1)
    print("ready", flush=True)
    signal.pause()


@contextlib.contextmanager
def python_tree(*arguments):
    """A process group of this file that is killed at the end.  Yields the process and its first line."""
    with subprocess.Popen(["/usr/bin/python3", "-B", __file__, *map(str, arguments)], stdout=subprocess.PIPE,
                          text=True, start_new_session=True) as process:
        try:
            yield process, process.stdout.readline()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def own_cost(build, quick):
    """CPU in percent of one, and MiB, of cowtop's commands while they watch 1,000 processes, all at a time."""
    processes, settle, window, windows = (20, 0.5, 0.5, 1) if quick else (1000, 40, 5, 3)
    cowtop = build / "tools/cowtop"
    for state, pages in (("idle", 0), ("copying", 10)):
        with tempfile.TemporaryDirectory() as folder, python_tree("tree", processes, pages) as (tree, _), \
                tool([cowtop, "--json", "--no-sites", "-p", tree.pid], "attached to") as (watch, said), \
                tool([cowtop, "record", "--no-sites", "-o", f"{folder}/file", "-p", tree.pid],
                     "attached to") as (record, _), \
                tool(["script", "-qec", f"TERM=xterm-256color stty rows 40 cols 120; exec {cowtop} --wide -p {tree.pid}",
                      "/dev/null"]) as (script, _):
            time.sleep(settle)
            children = pathlib.Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text(encoding="utf-8")
            pids = {"watch": watch.pid, "record": record.pid, "live": int(children.split()[0])}
            for _ in range(windows):
                before = {name: cpu_s(pid) for name, pid in pids.items()}
                time.sleep(window)
                for name, pid in pids.items():
                    yield f"own_cost/{state}/{name}", "cpu_percent", 100 * (cpu_s(pid) - before[name]) / window
            for name, pid in pids.items():
                yield f"own_cost/{state}/{name}", "memory_mib", memory_mib(pid)
        report = report_in(said)
        rate = copies_in(report) / report["duration_s"]
        if len(report["processes"]) < processes or rate < processes * pages / 4:
            raise RuntimeError(f"cowtop saw {len(report['processes'])} processes, {rate:.0f} copies a second")


def run_server(port, requests):
    """A pre-forking server: each of 2 workers answers so many requests from a shared list, and is replaced."""
    data = [str(number) * 4 for number in range(300_000)]
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    def work():
        served = 0
        while served < requests:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                while served < requests and (request := connection.recv(4096)):
                    at = hash(request) % 1000 + served * 200 % (len(data) - 1200)
                    body = str(sum(map(len, data[at:at + 200]))).encode()
                    served += 1
                    close = b"Connection: close\r\n" if served == requests else b""
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), close, body))
        os._exit(0)

    for _ in range(2):
        if os.fork() == 0:
            work()
    print("ready", flush=True)
    while True:
        os.wait()
        if os.fork() == 0:
            work()


def load(port, seconds):
    """Requests a second, and the ns within which 99 % were answered."""
    said = subprocess.run(["wrk", "-t1", "-c2", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    [(late, unit)] = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)
    if "Non-2xx" in said:
        raise RuntimeError(f"the server has failed: {said}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), float(late) * {"us": 1e3, "ms": 1e6, "s": 1e9}[unit]


def server(build, quick):
    """A busy server under each observer."""
    port, seconds = random.randrange(20000, 30000), 1 if quick else 4
    kinds = ["none", "none_again", "cowtop", "perf", "bpftrace"] * (1 if quick else 2)
    random.shuffle(kinds)
    with tempfile.TemporaryDirectory() as folder, python_tree("server", port, 500 if quick else 20000) as (process, _):
        load(port, 1)
        for kind in kinds:
            with observer(kind, build, process.pid, pathlib.Path(folder)) as counted:
                rate, late = load(port, seconds)
            if not kind.startswith("none") and not counted():
                raise RuntimeError(f"{kind} has counted nothing")
            yield f"server/busy/{kind}", "requests_s", rate
            yield f"server/busy/{kind}", "p99_ns", late


def http(build, quick):
    """The HTTP server of docs/examples, without and with an arena."""
    measure = pathlib.Path(__file__).parent.parent / "docs/examples/http_server/measure"
    runs = json.loads(subprocess.run(["/usr/bin/python3", measure, "--build", build, "--json", "--requests",
                                      "200" if quick else "2000"], check=True, stdout=subprocess.PIPE).stdout)
    for version, run in runs.items():
        yield f"server/http/{version}", "pss_bytes", run["memory_bytes"]
        yield f"server/http/{version}", "peak_pss_bytes", run["peak_memory_bytes"]


if __name__ == "__main__":
    (run_tree if sys.argv[1] == "tree" else run_server)(*map(int, sys.argv[2:]))
