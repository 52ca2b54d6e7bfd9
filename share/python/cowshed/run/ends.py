"""How workers end: without taking apart what they share, where their server has a hook that they call last."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

from cowshed import freezing


def shorten(caller: types.FrameType) -> None:
    """`caller` forks a worker: has it end by ``cowshed.end_process()``."""
    gunicorn: Any = sys.modules.get("gunicorn.arbiter")
    server = caller.f_locals.get("self")
    if gunicorn and isinstance(server, gunicorn.Arbiter):
        shorten_workers_of(server)


def shorten_workers_of(server: Any) -> None:
    """`server` is gunicorn's master."""
    setting = server.cfg.settings["worker_exit"]
    hook = setting.get()
    if getattr(hook, "ends_process", False):
        return

    def worker_exit(server: Any, worker: Any) -> None:
        try:
            hook(server, worker)
        except Exception:
            server.log.warning("Exception during worker exit", exc_info=True)
        if os.getpid() != server.pid:  # the master calls it of a worker that has gone
            freezing.end_process()

    setattr(worker_exit, "ends_process", True)
    setting.value = worker_exit
