"""What it costs to be watched by cowtop, beside perf and bpftrace, and what cowtop itself takes."""
import contextlib
import json
import mmap
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

OBSERVERS = ["none", "none_again", "empty_probes", "cowtop", "perf", "bpftrace"]


@contextlib.contextmanager
def tool(command, ready=None):
    """A program until SIGINT; `ready` is in its output when it works.  Yields the list of what it writes."""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        said = []
        try:
            while ready and not (said and ready in said[-1]):
                said.append(process.stdout.readline())
                if not said[-1]:
                    raise RuntimeError(f"{command[0]} has ended: {''.join(said)}")
            time.sleep(0 if ready else 0.3)  # perf does not say when it is ready
            yield process, said
        finally:
            for _ in range(2):  # bpftrace may miss the first
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said.append(process.communicate(timeout=30)[0])
                    break
            process.kill()


def children_of(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()


@contextlib.contextmanager
def observer(kind, build, pid, folder):
    """Watches a process and its children.  Yields a function of what was counted, for afterwards."""
    if kind.startswith("none"):
        yield None
        return
    command, ready, counted = {
        "empty_probes": ([build / "bench/bench", "--subject", "empty_probes"], "\n", None),
        "cowtop": ([build / "tools/cowtop", "--json", "-p", pid], "attached to", lambda said: copies_in(report_in(said))),
        "perf": (["perf", "record", "-e", "page-faults", "-c", "1", "-o", folder / "perf", "-p",
                  ",".join([str(pid), *children_of(pid)])], None, lambda said: int(found_in(said, r"\((\d+) samples\)"))),
        "bpftrace": (["bpftrace", "-e", f"software:page-faults:1 /pid == {pid} || curtask->real_parent->tgid == {pid}/ "
                      '{ @ = count(); } interval:ms:10 /!@ready/ { printf("ready\\n"); @ready = 1; }'],  # attached in order
                     "ready", lambda said: int(found_in(said, r"@: (\d+)"))),
    }[kind]
    with tool(command, ready) as (_, said):
        yield counted and (lambda: counted(said))


def found_in(said, pattern):
    found = re.search(pattern, "".join(said), re.DOTALL)
    if not found:
        raise RuntimeError(f"an observer did not say what it counted: {''.join(said)}")
    return found[1]


def report_in(said):
    report = json.loads(found_in(said, r"(\{.*\})"))
    if report["backend"] != "tracepoint" or report["lost_events"]:
        raise RuntimeError("cowtop was not exact")
    return report


def copies_in(report):
    return sum(process["all_copied_pages"] for process in report["processes"])


@contextlib.contextmanager
def subject(build, work, count):
    """A process of the program bench.  Yields its PID and a function that asks it."""
    with subprocess.Popen([build / "bench/bench", "--subject", "measured", work, str(count)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        if (line := process.stdout.readline()) != "\n":
            raise RuntimeError(f"{work}: {line}")
        yield process.pid, ask
        process.stdin.close()


def measuring(build, quick, _families):
    """ns a copied page, a first touch by another process than the watched one, a round without faults."""
    pages = 1024 if quick else 8192
    turns = [(work, kind) for work in ("copy", "touch", "compute") for kind in OBSERVERS] * (1 if quick else 2)
    random.shuffle(turns)
    for work, kind in turns:
        with tempfile.TemporaryDirectory() as folder, \
                subject(build, work, 200_000 if work == "compute" else pages) as (pid, ask), \
                subject(build, "compute", 1) as (asleep, _):
            ask()
            with observer(kind, build, asleep if work == "touch" else pid, pathlib.Path(folder)) as counted:
                ns = ask()
            if counted and work == "copy" and not 3 * pages <= counted() <= 3 * pages + 1536:  # and the forks' own
                raise RuntimeError(f"{kind} has counted {counted()} of {3 * pages} copies")
        yield f"measuring/{work}/{kind}", "time_ns", ns


def cpu_s(pid):
    """CPU time that a process and its threads have taken."""
    return sum(int(task.read_text(encoding="utf-8").split()[0])
               for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


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
    signal.signal(signal.SIGINT, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.pause()


def own_cost(build, quick, _families):
    """CPU in percent of one, and MiB, of cowtop's commands while they watch 1,000 processes, all at a time."""
    processes, settle, window = (20, 0.5, 0.5) if quick else (1000, 40, 30)
    cowtop = build / "tools/cowtop"
    for state, pages in (("idle", 0), ("copying", 10)):
        with tempfile.TemporaryDirectory() as folder, \
                tool(["setsid", "/usr/bin/python3", "-B", __file__, processes, pages], "ready") as (tree, _), \
                tool([cowtop, "--json", "-p", tree.pid], "attached to") as (watch, said), \
                tool([cowtop, "record", "-o", f"{folder}/file", "-p", tree.pid], "attached to") as (record, _), \
                tool(["script", "-qec", f"TERM=xterm-256color stty rows 40 cols 120; exec {cowtop} --wide -p {tree.pid}",
                      "/dev/null"]) as (script, _):
            time.sleep(settle)
            pids = {"watch": watch.pid, "record": record.pid, "live": int(children_of(script.pid)[0])}
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            time.sleep(window)
            for name, pid in pids.items():
                yield f"own_cost/{state}/{name}", "cpu_percent", 100 * (cpu_s(pid) - before[name]) / window
                status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                yield f"own_cost/{state}/{name}", "memory_mib", int(found_in(status, r"VmHWM:\s+(\d+)")) / 1024
        rate = copies_in(report := report_in(said)) / report["duration_s"]
        if len(report["processes"]) < processes or rate < processes * pages * (0.25 if quick else 0.75):
            raise RuntimeError(f"cowtop saw {len(report['processes'])} processes, {rate:.0f} copies a second")


def make_application():
    """What gunicorn serves: each request reads 200 strings that the workers share."""
    data = [str(number) * 4 for number in range(1_000_000)]

    def application(_environ, start_response):
        at = random.randrange(len(data) - 200)
        start_response("200 OK", [])
        return [str(sum(map(len, data[at:at + 200]))).encode()]

    return application


def load(url, seconds):
    """Requests a second, and the ns within which 99 % were answered."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        length = int(answer.read())
    said = subprocess.run(["wrk", "-t1", "-c2", f"-d{seconds}s", "--latency", url], check=True, stdout=subprocess.PIPE, text=True).stdout
    [(late, unit)] = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)
    if "Non-2xx" in said or not 800 <= length <= 4800:
        raise RuntimeError(f"the server has failed: {said}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), float(late) * {"us": 1e3, "ms": 1e6, "s": 1e9}[unit]


def server(build, quick, _families):
    """A busy server's first seconds under each observer: its workers copy what they read, at first nearly all."""
    kinds = ["none", "none_again", "cowtop", "perf", "bpftrace"] * (1 if quick else 2)
    random.shuffle(kinds)
    for kind in kinds:
        port = random.randrange(20000, 30000)
        with tempfile.TemporaryDirectory() as folder, \
                tool(["gunicorn", "--preload", "--workers", 2, "--bind", f"127.0.0.1:{port}", "--chdir",
                      pathlib.Path(__file__).parent, "observed:make_application()"], "Booting worker") as (process, _):
            while len(children_of(process.pid)) < 2:
                time.sleep(0.01)
            with observer(kind, build, process.pid, pathlib.Path(folder)) as counted:
                rate, late = load(f"http://127.0.0.1:{port}/", 1 if quick else 6)
        if counted and counted() < (1000 if quick else 10_000):  # of some 17,000 pages in each worker
            raise RuntimeError(f"{kind} has counted {counted()} copies")
        yield f"server/busy/{kind}", "requests_s", rate
        yield f"server/busy/{kind}", "time_ns", late


def http(build, quick, _families):
    """The HTTP server of docs/examples, without and with an arena."""
    measure = pathlib.Path(__file__).parent.parent / "docs/examples/http_server/measure"
    runs = json.loads(subprocess.run(["/usr/bin/python3", measure, "--build", build, "--json", "--requests",
                                      "200" if quick else "2000"], check=True, stdout=subprocess.PIPE).stdout)
    for version, run in runs.items():
        yield f"server/http/{version}", "pss_bytes", run["memory_bytes"]


if __name__ == "__main__":
    run_tree(*map(int, sys.argv[1:]))
