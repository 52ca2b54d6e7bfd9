"""Python's own ways, beside the library's: multiprocessing's start methods, its queues and its pipe."""
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory

MIB = 1 << 20
METHODS = ["fork", "spawn", "forkserver"]


def size_name(size):
    return f"{size >> 30}GiB" if size >> 30 else f"{size >> 20}MiB"


def read(data):
    """One byte in each page; of a list, each object."""
    if isinstance(data, list):
        return sum(map(len, data))
    return sum(data[::4096])


def work(connection, data, part):
    """A worker: `data` is None, bytes, a list, or the name and size of shared memory."""
    begun = time.monotonic_ns()
    block = shared_memory.SharedMemory(data[0]) if isinstance(data, tuple) else None
    if block is not None:
        data = block.buf[:data[1]]
    if data is None:
        answer = 0
    else:
        answer = read(data) if part == "all" else data[0]
    connection.send((begun, time.monotonic_ns(), answer))
    connection.recv()  # stays until it may end
    if block is not None:
        del data
        block.close()


def hold(memory, size):
    """What a worker gets, and what must stay alive meanwhile."""
    if memory == "none":
        return None, None
    if memory == "list":
        return [str(number).zfill(51) for number in range(size // 100)], None  # 100 bytes each, with its header
    data = b"x" * size
    if memory != "shared_memory":
        return data, None
    block = shared_memory.SharedMemory(create=True, size=size)
    block.buf[:size] = data
    return (block.name, size), block


def start_once(context, data):
    """ns from the call to the worker's first line, its answer, and its end."""
    began = time.monotonic_ns()
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, data, "some"))
    process.start()
    begun, answered, answer = ours.recv()
    ours.send(None)
    process.join()
    if process.exitcode != 0 or answer != (0 if data is None else ord("x")):
        raise RuntimeError("a worker gave a wrong answer")
    return begun - began, answered - began, time.monotonic_ns() - began


def run_start(memory, size, repetitions):
    """Prints lines of JSON: method, beside threads or not, and the times."""
    data, block = hold(memory, size)
    try:
        for crowd in (0, 32):
            ended = threading.Event()
            for _ in range(crowd):
                threading.Thread(target=lambda: [None for _ in iter(lambda: ended.wait(0.001), True)]).start()
            for method in METHODS:
                if method != "fork" and memory == "heap" and (size > 1 << 30 or crowd):
                    continue  # it would pickle more than 1 GiB
                context = multiprocessing.get_context(method)
                start_once(context, data)
                for _ in range(repetitions):
                    print(json.dumps([method, crowd, start_once(context, data)]))
            ended.set()
    finally:
        if block is not None:
            block.close()
            block.unlink()


def pss(pids):
    text = "".join(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8") for pid in pids)
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def run_memory(memory, size, method, workers):
    """Prints the PSS of all processes, and the ns until all workers have read all the data."""
    data, block = hold(memory, size)
    context = multiprocessing.get_context(method)
    pipes, processes = [], []
    began = time.monotonic_ns()
    for _ in range(workers):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, data, "all")))
        pipes.append(ours)
        processes[-1].start()
    for pipe in pipes:
        pipe.recv()
    took = time.monotonic_ns() - began
    print(json.dumps([pss([os.getpid(), *(process.pid for process in processes)]), took]))
    for pipe, process in zip(pipes, processes):
        pipe.send(None)
        process.join()
    if block is not None:
        block.close()
        block.unlink()


def python(*arguments):
    """The lines of JSON of this file, run afresh."""
    output = subprocess.run(["/usr/bin/python3", "-B", __file__, *map(str, arguments)], check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def start(_build, quick):
    held = [("none", 0)] + [(memory, size) for memory in ("shared_memory", "heap")
                            for size in ((4 * MIB, 16 * MIB) if quick else (64 * MIB, 4096 * MIB))]
    for memory, size in held:
        name = "none" if memory == "none" else f"{memory}/{size_name(size)}"
        for method, crowd, times in python("start", memory, size, 1 if quick else 4):
            row = f"start/python_{method}/{name}" + ("/beside_threads" if crowd else "")
            yield from zip([row] * 3, ["begun_ns", "answered_ns", "time_ns"], times)


def memory(_build, quick):
    size = (4 if quick else 64) * MIB
    for kind, method in [("list", "fork"), ("list", "spawn"), ("shared_memory", "fork")]:
        [(total, took)] = python("memory", kind, size, method, 8)
        yield from zip([f"memory/python_{method}/{kind}/{size_name(size)}/8"] * 2, ["pss_bytes", "time_ns"],
                       [total, took])


class Line:
    """A queue, or a pipe, in one direction."""

    def __init__(self, kind):
        context = multiprocessing.get_context("fork")
        if kind == "python_pipe":
            self.inlet, self.outlet = context.Pipe(duplex=False)
            self.put, self.get = self.outlet.send_bytes, self.inlet.recv_bytes
        else:
            queue = context.Queue() if kind == "python_queue" else context.SimpleQueue()
            self.put, self.get = queue.put, queue.get


def exchange(kind, size, count, mode):
    """ns a message (rate), or the median of a round trip (trip), or of waking the receiver (wake)."""
    there, back, done = Line(kind), Line(kind), Line("python_pipe")
    message = os.urandom(size)

    def receive():
        wrong, delays = 0, []
        for _ in range(count):
            got = there.get()
            if mode == "wake":
                delays.append(time.monotonic_ns() - int.from_bytes(got[:8], "little"))
                continue
            wrong += got != message
            if mode == "trip":
                back.put(got)
        done.put(json.dumps([wrong, time.monotonic_ns(), delays]).encode())

    cpus = sorted(os.sched_getaffinity(0))
    process = multiprocessing.get_context("fork").Process(target=receive)
    process.start()
    os.sched_setaffinity(process.pid, cpus[-1:])  # on CPUs of their own, as all rows are
    os.sched_setaffinity(0, cpus[-2:-1] or cpus)
    began, trips = time.monotonic_ns(), []
    for _ in range(count):
        before = time.monotonic_ns()
        if mode == "wake":
            time.sleep(0.001)
            there.put(time.monotonic_ns().to_bytes(8, "little") + message[8:])
            continue
        there.put(message)
        if mode == "trip":
            back.get()
            trips.append(time.monotonic_ns() - before)
    wrong, ended, delays = json.loads(done.get())
    process.join()
    os.sched_setaffinity(0, cpus)
    if wrong:
        raise RuntimeError(f"{kind} has changed a message")
    return (ended - began) / count if mode == "rate" else statistics.median(trips or delays)


def channel(_build, quick):
    for _ in range(1 if quick else 3):
        for kind in ("python_queue", "python_simple_queue", "python_pipe"):
            for row, size, count in [("rate_64B_blocks", 64, 10000), ("trip_64B_blocks", 64, 1000),
                                     ("wake_64B", 64, 200), ("rate_1MiB_blocks", MIB, 100),
                                     ("trip_1MiB_blocks", MIB, 100)]:
                yield (f"channel/{row}/{kind}", "time_ns",
                       exchange(kind, size, count // 20 if quick else count, row.split("_")[0]))


if __name__ == "__main__":
    if sys.argv[1] == "start":
        run_start(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        run_memory(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
