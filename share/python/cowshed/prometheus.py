"""Gauges for ``prometheus_client``: importing this module registers them.

Any process reports the copies of all workers.  In the multiprocess mode of ``prometheus_client``, which does not ask its
usual registry, register the collector with the one that you make for an answer::

    registry.register(cowshed.prometheus.collector)
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

from cowshed import _cowshed, freezing


def _program_of(pid: int) -> bytes:
    """Differs, by the addresses in it, after each exec."""
    with open(f"/proc/{pid}/auxv", "rb") as file:
        return file.read()


def _copied() -> Iterator[tuple[int, int]]:
    """Of each worker its PID, and the bytes that it copied."""
    pids = {os.getpid()} - {freezing.sums.pid}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{freezing.sums.pid}/task"):
            with open(f"/proc/{freezing.sums.pid}/task/{thread}/children") as file:
                pids.update(map(int, file.read().split()))
    for pid in sorted(pids):
        with contextlib.suppress(OSError):  # it has ended, or another user runs it
            if _program_of(pid) == _program_of(os.getpid()):
                yield pid, _cowshed.copied(pid)


class Collector:
    """For a registry of ``prometheus_client``."""

    def collect(self) -> Iterator[Any]:
        gauge: Any = importlib.import_module("prometheus_client.core").GaugeMetricFamily
        yield gauge("cowshed_frozen_objects", "Python objects that are frozen", freezing.sums.objects)
        yield gauge("cowshed_frozen_bytes", "Their size", freezing.sums.bytes)
        yield gauge("cowshed_collection_saved_seconds", "By how much freezing shortened a full garbage collection",
                    freezing.sums.pause_saved)
        copied = gauge("cowshed_copied_bytes", "Frozen memory that a worker has copied since its fork", labels=["pid"])
        for pid, size in _copied() if freezing.sums.pid else ():
            copied.add_metric([str(pid)], size)
        yield copied


collector = Collector()
importlib.import_module("prometheus_client").REGISTRY.register(collector)
