"""Measuring what a process copies and sends, without privileges."""

from __future__ import annotations

import dataclasses
import os

from cowshed import _cowshed


def copied() -> int:
    """Returns how many bytes of the frozen memory this process no longer shares.

    For a process that was forked after :func:`cowshed.freeze`.  It counts whole pages that the
    process copied, and pages that all others have dropped.  It reads ``/proc/self/pagemap``: about
    1 ms for 100 MiB.  ``cowtop`` counts exactly, and says which code copied.

    :raises RuntimeError: in a process that froze by itself, or without a freeze.
    """
    return _cowshed.copied(0)


class Meter:
    """Measures the shared pages that a process copies in a region of its run.

        with cowshed.Meter() as m:
            search(index)
        assert m.bytes < 2**20, m

    Reads ``/proc/PID/maps`` and ``pagemap`` at both ends of the region.  See ``cow/meter.h`` for
    what it cannot see.

    :param pid: another process, which must not execute a program or end meanwhile; default: this one.
    :raises ProcessLookupError: there is no such process.
    :raises PermissionError: it is somebody else's.
    """

    bytes: int
    """The copied bytes, in whole pages; known after the region."""
    at_least: int
    at_most: int
    """If others wrote to the pages that they shared, the process's own copies lie between these."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = 0 if pid is None or pid == os.getpid() else pid
        self._text = "this region has not ended"

    def __enter__(self) -> Meter:
        self._meter = _cowshed.begin_meter(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes, self.at_least, self.at_most, self._text = _cowshed.end_meter(self._meter)

    def __str__(self) -> str:
        return self._text


@dataclasses.dataclass(frozen=True)
class Sent:
    """Objects of one type that went through one queue or pipe."""

    queue: str
    type: str
    objects: int
    bytes: int


class transfers:
    """Counts what this process sends through queues and pipes of this package in a region.

        with cowshed.transfers() as t:
            for job in jobs:
                queue.put(job)
        print(t)

    Objects that a forked child inherits are not sent, and a :class:`cowshed.Ref` has some 70 bytes.
    ``python -m cowshed.pickled SCRIPT`` shows what ``multiprocessing`` itself sends.
    """

    rows: list[Sent]
    """What was sent, most bytes first; known after the region."""

    def __enter__(self) -> transfers:
        self._before = _rows()
        return self

    def __exit__(self, *_: object) -> None:
        self.rows = []
        for name, (objects, size) in _rows().items():
            before = self._before.get(name, (0, 0))
            if objects > before[0]:
                self.rows.append(Sent(*name, objects - before[0], size - before[1]))
        self.rows.sort(key=lambda row: -row.bytes)

    def __str__(self) -> str:
        lines = [f"{row.bytes:>14,} bytes  {row.objects:>9,} x {row.type}  through {row.queue!r}" for row in self.rows]
        return "\n".join(lines) or "nothing was sent"


def _rows() -> dict[tuple[str, str], tuple[int, int]]:
    return {(queue, kind): (objects, size) for queue, kind, objects, size in _cowshed.sent()}
