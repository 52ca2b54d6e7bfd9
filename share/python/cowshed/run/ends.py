"""How workers end: without taking apart what they share, where their server has a hook that they call last."""

from __future__ import annotations

import sys
import types
from typing import Any, NoReturn

from cowshed import freezing


def shorten(caller: types.FrameType) -> None:
    """`caller` forks a worker: has it end by ``cowshed.end_process()``."""
    gunicorn: Any = sys.modules.get("gunicorn.arbiter")
    server = caller.f_locals.get("self")
    if not gunicorn or not isinstance(server, gunicorn.Arbiter):
        return
    setting = server.cfg.settings["worker_exit"]
    hook = setting.get()
    if getattr(hook, "ends_process", False):
        return

    def worker_exit(server: Any, worker: Any) -> NoReturn:
        try:
            hook(server, worker)
        except Exception:
            server.log.warning("Exception during worker exit", exc_info=True)
        freezing.end_process()

    setattr(worker_exit, "ends_process", True)
    setting.value = worker_exit
