"""Python's own ways, beside the library's: multiprocessing's start methods, its queues and its pipe."""
import contextlib
import fcntl
import json
import multiprocessing
import os
import pathlib
import random
import statistics
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory


def answer_of(data, reads_all):
    """`data` is None, bytes, a list, or the name and size of shared memory, whose worker maps it."""
    with contextlib.ExitStack() as at_end:
        if isinstance(data, tuple):
            block = shared_memory.SharedMemory(data[0])
            at_end.callback(block.close)
            data = at_end.enter_context(block.buf[:data[1]])
        if data is None or not reads_all:
            return data and data[0]
        return sum(map(len, data)) if isinstance(data, list) else sum(data[::4096])


def work(connection, data, reads_all):
    begun = time.monotonic_ns()
    answer = answer_of(data, reads_all)
    connection.send((begun, time.monotonic_ns(), answer))
    connection.recv()  # stays until it may end


@contextlib.contextmanager
def holding(memory, size):
    """What a worker gets."""
    if memory == "none":
        yield None
    elif memory == "list":
        yield [str(number).zfill(51) for number in range(size // 100)]  # 100 bytes each, with its header
    elif memory == "heap":
        yield b"x" * size
    else:
        block = shared_memory.SharedMemory(create=True, size=size)
        block.buf[:size] = b"x" * size
        try:
            yield block.name, size
        finally:
            block.close()
            block.unlink()


def run_workers(method, data, workers):
    """ns from the first start to a worker's first line, to all answers and to all ends; of several, the PSS of all."""
    context, reads_all = multiprocessing.get_context(method), workers > 1
    pipes, processes = [], []
    began = time.monotonic_ns()
    for _ in range(workers):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, data, reads_all)))
        pipes.append(ours)
        processes[-1].start()
    begun, answered, answers = zip(*(pipe.recv() for pipe in pipes))
    total = pss([os.getpid(), *(process.pid for process in processes)]) if reads_all else 0
    for pipe, process in zip(pipes, processes):
        pipe.send(None)
        process.join()
    ended = time.monotonic_ns()
    if answers != (answer_of(data, reads_all),) * workers or any(process.exitcode for process in processes):
        raise RuntimeError("a worker has failed")
    return begun[0] - began, max(answered) - began, ended - began, total


def run(memory, size, workers, repetitions):
    """Prints lines of JSON: method, beside threads or not, and what run_workers() returns."""
    multiprocessing.set_forkserver_preload(["json", "statistics", "subprocess", "multiprocessing.shared_memory"])
    with holding(memory, size) as data:
        for crowd in (0, 32) if workers == 1 else (0,):
            ended = threading.Event()
            for _ in range(crowd):
                threading.Thread(target=lambda: [None for _ in iter(lambda: ended.wait(0.001), True)]).start()
            pickles = memory == "heap" and (size > 1 << 30 or crowd)  # more than 1 GiB, which is left out
            methods = ["fork"] if pickles else ["fork", "spawn", "forkserver"]
            for repetition in range(repetitions):
                random.shuffle(methods)
                for method in methods:
                    figures = run_workers(method, data, workers)
                    if repetition > 0 or repetitions == 1:
                        print(json.dumps([method, crowd, *figures]))
            ended.set()


def pss(pids):
    text = "".join(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8") for pid in pids)
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def python(*arguments):
    """The lines of JSON of this file, run afresh."""
    output = subprocess.run(["/usr/bin/python3", "-B", __file__, *map(str, arguments)], check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def start(_build, quick, _families):
    sizes = {"4MiB": 4 << 20, "16MiB": 16 << 20} if quick else {"64MiB": 64 << 20, "4GiB": 4 << 30}
    held = [("none", "none", 0)] + [(memory, f"{memory}/{name}", size) for memory in ("shared_memory", "heap")
                                    for name, size in sizes.items()]
    for memory, name, size in held:
        for method, crowd, *times, _ in python(memory, size, 1, 2 if quick else 4):
            row = f"start/python_{method}/{name}" + ("/beside_threads" if crowd else "")
            yield from zip([row] * 3, ["begun_ns", "answered_ns", "time_ns"], times)


def memory(_build, quick, _families):
    for kind in ("list", "shared_memory"):
        for method, _, _, took, _, total in python(kind, (4 if quick else 64) << 20, 8, 1):
            row = f"memory/python_{method}/{kind}/{'4MiB' if quick else '64MiB'}/8"
            yield from zip([row] * 2, ["pss_bytes", "time_ns"], [total, took])


def line(kind):
    """`put` and `get` of a queue, or of a pipe in one direction."""
    context = multiprocessing.get_context("fork")
    if kind == "python_pipe":
        inlet, outlet = context.Pipe(duplex=False)
        fcntl.fcntl(outlet.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
        return outlet.send_bytes, inlet.recv_bytes
    queue = context.Queue() if kind == "python_queue" else context.SimpleQueue()
    return queue.put, queue.get


def exchange(kind, size, count, mode):
    """ns a message (rate), or the median of a round trip (trip), or of waking the receiver (wake).  As in
    channel.cc, all is compared in a first turn, and the second is timed."""
    (put, get), (answer, get_answer), (done, get_done) = line(kind), line(kind), line("python_pipe")
    message = os.urandom(size)

    def receive():
        for compares in (True, False):
            wrong, delays = 0, []
            for _ in range(count):
                got = get()
                if mode == "wake":
                    delays.append(time.monotonic_ns() - int.from_bytes(got[:8], "little"))
                wrong += got[8:] != message[8:] if compares else len(got) != size
                if mode == "trip":
                    answer(got)
            done(json.dumps([wrong, time.monotonic_ns(), delays]).encode())

    cpus = sorted(os.sched_getaffinity(0))
    process = multiprocessing.get_context("fork").Process(target=receive)
    process.start()
    os.sched_setaffinity(process.pid, cpus[-1:])  # on CPUs of their own, as all rows are
    os.sched_setaffinity(0, cpus[-2:-1] or cpus)
    for _ in range(2):
        began, trips = time.monotonic_ns(), []
        for _ in range(count):
            before = time.monotonic_ns()
            if mode == "wake":
                time.sleep(0.0002)
                put(time.monotonic_ns().to_bytes(8, "little") + message[8:])
                continue
            put(message)
            if mode == "trip":
                get_answer()
                trips.append(time.monotonic_ns() - before)
        wrong, ended, delays = json.loads(get_done())
        if wrong:
            raise RuntimeError(f"{kind} has changed a message")
    process.join()
    os.sched_setaffinity(0, cpus)
    return (ended - began) / count if mode == "rate" else statistics.median(trips or delays)


def channel(_build, quick, _families):
    rows = [("rate_64B_blocks", 64, 10000), ("trip_64B_blocks", 64, 1000), ("wake_64B", 64, 200),
            ("rate_1MiB_blocks", 1 << 20, 100), ("trip_1MiB_blocks", 1 << 20, 100)]
    turns = [(kind, *row) for kind in ("python_queue", "python_simple_queue", "python_pipe") for row in rows]
    for _ in range(1 if quick else 3):
        random.shuffle(turns)
        for kind, row, size, count in turns:
            ns = exchange(kind, size, count // 20 if quick else count, row.split("_")[0])
            yield f"channel/{row}/{kind}", "time_ns", ns


if __name__ == "__main__":
    run(sys.argv[1], *map(int, sys.argv[2:]))
