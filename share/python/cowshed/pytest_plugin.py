"""A marker for pytest: what each process that a test forks may copy.

    @pytest.mark.limit_copies("8 MiB")
    def test_workers_share():
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(search, queries)

It counts what :class:`cowshed.Meter` does, from the fork to the end of each process: pages that it
no longer shares, whoever wrote to them.  A process that is killed, or outlives the test, is an
error.  Those of a spawn or a forkserver are not counted.
"""

import functools
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from cowshed.metering import Meter

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_exit = os._exit
_said = -1  # a file of lines of the forked processes, while a test has a limit
_meter: Meter | None = None  # in a forked process


def _bytes_of(limit: object) -> int:
    parts = re.fullmatch(r"(\d+\.?\d*) ?(\w*)", str(limit))
    if not parts or parts[2] not in _UNITS:
        raise pytest.UsageError(f"limit_copies: {limit!r} is not a size such as '8 MiB'")
    return int(float(parts[1]) * _UNITS[parts[2]])


def _begin() -> None:
    global _meter
    if _said >= 0:
        os.write(_said, b"%d\n" % os.getpid())
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # it ends the workers of a Pool
            signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        _meter = Meter()
        _meter.__enter__()


os.register_at_fork(after_in_child=_begin)


def _end(status: int) -> NoReturn:
    if _said >= 0 and _meter:
        _meter.__exit__()
        os.write(_said, f"{os.getpid()} {_meter.bytes} {_meter}".splitlines()[0].encode() + b"\n")
    _exit(status)


def _limited(function: Callable[..., None], limit: int) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> None:
        global _said
        with tempfile.TemporaryFile() as file:
            _said = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_APPEND)
            os._exit = _end  # multiprocessing ends its workers by it, too
            try:
                function(*arguments, **named)
            finally:
                os._exit = _exit
                os.close(_said)
                _said = -1
            copied: dict[str, tuple[int, str]] = {}  # by PID, in the order of the forks
            for line in file:
                pid, size, text = (line.decode().rstrip().split(" ", 2) + ["", ""])[:3]
                copied[pid] = (int(size or limit + 1), text or f"PID {pid} was killed, or runs on: nobody knows")
        over = [text for size, text in copied.values() if size > limit]
        if over:
            pytest.fail("\n".join([f"more than {limit / 2**20:.1f} MiB (limit_copies):", *over]), pytrace=False)
    return run


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit_copies(size): what each process that the test forks may copy")


@pytest.hookimpl(hookwrapper=True)  # type: ignore[misc]  # pytest 7 has no types here
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    if marker := pyfuncitem.get_closest_marker("limit_copies"):
        pyfuncitem.obj = _limited(pyfuncitem.obj, _bytes_of(*marker.args))
    yield
