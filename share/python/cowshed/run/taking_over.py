"""What a program that a zygote has forked takes over from its start."""

from __future__ import annotations

import _signal  # type: ignore[import]
import contextlib
import fcntl
import io
import multiprocessing.process
import os
import posix
import resource
import signal
import socket
import sys
import threading
from typing import Any

_LIMITS = {"Max core file size": resource.RLIMIT_CORE, "Max cpu time": resource.RLIMIT_CPU,
           "Max data size": resource.RLIMIT_DATA, "Max file size": resource.RLIMIT_FSIZE,
           "Max locked memory": resource.RLIMIT_MEMLOCK, "Max open files": resource.RLIMIT_NOFILE,
           "Max processes": resource.RLIMIT_NPROC, "Max stack size": resource.RLIMIT_STACK,
           "Max resident set": resource.RLIMIT_RSS, "Max pending signals": resource.RLIMIT_SIGPENDING,
           "Max msgqueue size": resource.RLIMIT_MSGQUEUE, "Max nice priority": resource.RLIMIT_NICE,
           "Max realtime priority": resource.RLIMIT_RTPRIO, "Max realtime timeout": resource.RLIMIT_RTTIME,
           "Max address space": resource.RLIMIT_AS}


def take_files(connection: socket.socket, numbers: list[int], base: int) -> None:
    """Takes over the working directory and the files that the program was started with."""
    received: list[int] = []
    while len(received) <= len(numbers):
        for each in socket.recv_fds(connection, 1, 253)[1]:
            received.append(fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, base))
            os.close(each)
    os.fchdir(received[0])
    for number, each in zip(numbers, received[1:]):
        os.dup2(each, number)
    for each in received:
        os.close(each)


def take_over(request: dict[str, Any], on_child: Any) -> None:
    """Makes this process as the one that was started."""
    for name, soft in request["soft"].items():
        if which := _LIMITS.get(name):
            value = resource.RLIM_INFINITY if soft == "unlimited" else int(soft)
            hard = resource.getrlimit(which)[1]
            if resource.getrlimit(which)[0] != value:
                resource.setrlimit(which, (value, hard))
    os.sched_setaffinity(0, request["affinity"])
    os.umask(request["umask"])
    with open("/proc/self/comm", "w") as file:
        file.write(request["comm"])
    _take_over_signals(request["ignored"], on_child)
    _take_over_environment(request["environment"])
    sys.argv[:] = request["argv"]
    sys.orig_argv[:] = request["orig_argv"]
    setattr(threading.main_thread(), "_native_id", threading.get_native_id())
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _reopen(number, name, request["is_unbuffered"])
    current: Any = multiprocessing.process.current_process()
    current._config["authkey"] = type(current.authkey)(os.urandom(32))
    _show_parent(request["stub"])


def _take_over_environment(environment: dict[bytes, bytes]) -> None:
    """Writes little, as it runs in each program: not what is the same, and no name by name."""
    before: dict[bytes, bytes] = getattr(os.environ, "_data")
    for name in before.keys() - environment.keys():
        os.unsetenv(name)
    for name, value in environment.items() - before.items():
        os.putenv(name, value)
    for each in before, posix.environ:
        each.clear()
        each.update(environment)


def _take_over_signals(ignored: int, on_child: Any) -> None:
    _signal.signal(signal.SIGCHLD, on_child)
    by_default, ignore, interrupt = int(signal.SIG_DFL), int(signal.SIG_IGN), signal.default_int_handler
    for number in _signal.valid_signals():
        now = _signal.getsignal(number)
        new = ignore if ignored >> number - 1 & 1 else interrupt if number == signal.SIGINT else by_default
        if now != new and now in (by_default, ignore, interrupt):  # no module has set its own
            _signal.signal(number, new)


def _reopen(number: int, name: str, is_unbuffered: bool) -> None:
    """As the interpreter does at its start, but in the same objects: a module may have them by other names."""
    stream = getattr(sys, f"__{name}__")
    try:
        os.fstat(number)
    except OSError:
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
        return
    raw = io.FileIO(number, "wb" if number else "rb", closefd=False)
    setattr(raw, "name", f"<{name}>")
    buffer: Any = raw
    if number == 0 or not is_unbuffered:
        buffer, size = stream.buffer, getattr(raw, "_blksize")
        buffer.__init__(raw, size if sys.version_info < (3, 14) else max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE))
    stream.__init__(buffer, stream.encoding, stream.errors, "\n",
                    line_buffering=not is_unbuffered and (raw.isatty() or number == 2), write_through=is_unbuffered)


def _show_parent(stub: int) -> None:
    """Has os.getppid() return the parent that has started this program."""
    own, getppid = os.getpid(), os.getppid

    def parent() -> int:
        if os.getpid() == own:
            with contextlib.suppress(OSError), open(f"/proc/{stub}/stat") as file:
                return int(file.read().rpartition(")")[2].split()[1])
        return getppid()

    os.getppid = posix.getppid = parent
