"""Runs one part of the plan, and notes what else the machine did meanwhile."""
import dataclasses
import io
import os
import resource
import signal
import subprocess
import time


@dataclasses.dataclass
class Run:
    part: object
    seconds: float
    exit_code: int
    others: float  # of the machine's CPU time, what other processes took
    stolen: float  # and other virtual machines
    output: str


def cpu_seconds():
    """Of all CPUs: (busy, stolen)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Teller(io.TextIOBase):
    """Standard output, until nobody reads it any more: what is measured and written goes on."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        return self._attempt(lambda: self.stream.write(text))

    def flush(self):
        self._attempt(self.stream.flush)

    def _attempt(self, work):
        try:
            return work()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            return work()


def end_by_signals():
    """As Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def ignore_interrupts():
    """From the first on: what they ask for is under way, and does not take long."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def end(process):
    """All that the benchmark has started, which is given a moment to tidy up."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass


def run(part, build, json_file):
    command = [build / "bench" / part.benchmark, *part.arguments, "--json", json_file]
    began, before, ours = time.monotonic(), cpu_seconds(), children_seconds()
    # In a group of its own, so that who interrupts the suite does not interrupt it a second time.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          errors="replace",
                          stderr=subprocess.STDOUT, process_group=0) as process:
        try:
            output, _ = process.communicate(timeout=part.most_s)
        except subprocess.TimeoutExpired:
            end(process)
            output = f"no end after {part.most_s} s"
            process.returncode = process.returncode or 1
        except KeyboardInterrupt:
            ignore_interrupts()
            end(process)
            raise
    seconds = time.monotonic() - began
    busy, stolen = (now - then for now, then in zip(cpu_seconds(), before))
    others = max(0.0, busy - (children_seconds() - ours))
    whole = seconds * os.cpu_count()
    return Run(part, seconds, process.returncode, others / whole, stolen / whole, output.strip())
