"""Whole programs of Python: pools that share their data in each way, programs that start again and again, and what
cowtop's census of many processes takes."""
import contextlib
import gc
import json
import mmap
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import observed
import python_ways

ROOT = pathlib.Path(__file__).parent.parent
KSM = pathlib.Path("/sys/kernel/mm/ksm")
WAYS = {"plain": [], "gc_freeze": [], "frozen": [], "settled": [], "undo": ["--undo"], "merge": ["--merge"]}
IMPORTS = "asyncio,decimal,email.message,http.client,json,sqlite3,unittest"


def python():
    """3.14 of ./tools/pythons: the Python of Debian 12 cannot be frozen."""
    found = ROOT / "build/pythons/3.14/python"
    return found if found.exists() else pathlib.Path("/usr/bin/python3")


def run_pool(way, size, workers=8):
    """Prints the ns until each worker has read all of a list, and the PSS once it has stopped to fall."""
    data = [str(number).zfill(51) for number in range(size // 100)]
    if way == "gc_freeze":
        gc.freeze()
    elif way in ("frozen", "settled"):
        import cowshed
        cowshed.freeze(settle=way == "settled")
    began, pipe, pids = time.monotonic_ns(), os.pipe(), []
    for _ in range(workers):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.write(pipe[1], b"." if sum(map(len, data)) == 51 * len(data) else b"!")
            signal.pause()
    answers = b""
    while len(answers) < workers:
        answers += os.read(pipe[0], workers)
    took = time.monotonic_ns() - began
    lowest, since = python_ways.pss(pids := [os.getpid(), *pids]), time.monotonic()
    while way in ("undo", "merge") and time.monotonic() < since + 5:
        time.sleep(0.5)
        if (now := python_ways.pss(pids)) < 0.99 * lowest:
            lowest, since = now, time.monotonic()
    for pid in pids[1:]:
        os.kill(pid, signal.SIGKILL)
    print(json.dumps([took, lowest, answers == b"." * workers]))


@contextlib.contextmanager
def ksm_running():
    """Yields whether KSM merges pages meanwhile, by as much of a CPU as it takes."""
    settings = {"run": "1", "pages_to_scan": "5000"}
    try:
        before = {name: (KSM / name).read_text(encoding="utf-8") for name in settings}
        for name, value in settings.items():
            (KSM / name).write_text(value, encoding="utf-8")
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        for name, value in before.items():
            (KSM / name).write_text(value, encoding="utf-8")


def environment(build):
    return {**os.environ, "PYTHONPATH": str(build / "python"), "COWSHED_LOG": "none"}


def run_by(build, options):
    """Python, by `cowshed run` if there are options."""
    return [python(), "-m", "cowshed", "run", *options, "--", python()] if options else [python()]


def pool(build, quick, _families):
    ways = list(WAYS)
    random.shuffle(ways)
    for way in ways:
        with ksm_running() if way == "merge" else contextlib.nullcontext(True) as possible:
            if not possible:
                continue
            said = subprocess.run([*run_by(build, WAYS[way]), "-B", __file__, "pool", way, str((4 if quick else 64) << 20)],
                                  env=environment(build) | ({"COWSHED": "off"} if way == "merge" else {}), check=True,
                                  stdout=subprocess.PIPE, text=True).stdout
        took, pss, right = json.loads(said.splitlines()[-1])
        if not right:
            raise RuntimeError(f"a worker of the pool '{way}' has read something else")
        yield from zip([f"pool/{way}"] * 2, ["time_ns", "pss_bytes"], [took, pss])


def warm(build, quick, _families):
    """ns from a shell's start of a program until it has imported its modules and ended; PSS of 8 such that wait, and
    of what serves them."""
    starts = 4 if quick else 20
    for way, options in (("plain", []), ("warm", ["--warm", "--preload", IMPORTS])):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "program.py").write_text(
                f"import sys, {IMPORTS}\nif len(sys.argv) > 1: print('ready\\n', end='', flush=True), sys.stdin.read()\n",
                encoding="utf-8")
            program = f"{python()} -B program.py"
            script = (f"{program}; {program}; date +%s%N; for i in $(seq {starts}); do {program}; done; date +%s%N; "
                      f"exec 3<&0; for i in 1 2 3 4 5 6 7 8; do {program} waits <&3 & done; wait")
            with subprocess.Popen([*run_by(build, options)[:-1], "sh", "-c", script], cwd=folder, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, env=environment(build) | {"BENCH_FOLDER": folder}) as process:
                began, ended = (int(process.stdout.readline()) for _ in range(2))
                for _ in range(8):
                    if (line := process.stdout.readline()) != "ready\n":
                        raise RuntimeError(f"a program that was started {way} said {line!r}")
                pss = python_ways.pss(processes_with(f"BENCH_FOLDER={folder}"))
                process.stdin.close()
        yield from zip([f"warm/{way}"] * 2, ["time_ns", "pss_bytes"], [(ended - began) / starts, pss])


def processes_with(variable):
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in environ.read_bytes().split(b"\0"):
                yield environ.parent.name


def hold(processes, size):
    """Forks processes.  Half of the private memory of each is as that of the others."""
    for _ in range(processes):
        if os.fork() == 0:
            memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE)
            for page in range(0, size, 4096):
                memory[page:page + 8] = (page if page < size // 2 else random.getrandbits(62)).to_bytes(8, "little")
            print("ready", flush=True)
            signal.pause()
    signal.pause()


def census(build, quick, _families):
    """CPU seconds of one look at all private pages of many processes."""
    processes, size = (4, 8 << 20) if quick else (16, 300 << 20)
    with observed.tool(["setsid", "/usr/bin/python3", "-B", __file__, "hold", processes, size], "ready") as (tree, _):
        for _ in range(processes - 1):
            tree.stdout.readline()
        with observed.tool([build / "tools/cowtop", "--json", "--alike", "-p", tree.pid], "attached to") as (cowtop, said):
            before = observed.cpu_s(cowtop.pid)
            cowtop.send_signal(signal.SIGINT)
            said.append(cowtop.stdout.read())
            _, _, usage = os.wait4(cowtop.pid, 0)
        os.killpg(tree.pid, signal.SIGKILL)
    alike = sum(process.get("alike", {}).get("same_address_bytes", 0) for process in observed.report_in(said)["processes"])
    if not 0.4 < alike / processes / size < 0.6:
        raise RuntimeError(f"the census found {alike / processes / size:.0%} alike, and not half")
    yield "census/all", "cpu_s", usage.ru_utime + usage.ru_stime - before


if __name__ == "__main__":
    {"pool": run_pool, "hold": hold}[sys.argv[1]](*(int(word) if word.isdigit() else word for word in sys.argv[2:]))
