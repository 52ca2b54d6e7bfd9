"""A forkserver that loads the data, freezes it and forks the workers."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
from collections.abc import Iterable
from multiprocessing import forkserver, spawn
from multiprocessing.context import ForkServerContext

_VARIABLE = "COWSHED_WARM_UP"


def _main() -> str | None:
    """The file of ``__main__``, as the forkserver needs it."""
    path = spawn.get_preparation_data("ignore").get("init_main_from_path")
    return path if isinstance(path, str) else None


def get_context(preload: Iterable[str] = ("__main__",), *, warm_up: str | None = None) -> ForkServerContext:
    """Returns a context of ``multiprocessing`` whose workers share what ``preload`` has loaded.

    Its forkserver imports the modules of ``preload``, calls ``warm_up``, calls
    :func:`cowshed.freeze`, and forks each worker.  So workers inherit no threads and no locks of
    this process, and share the modules' data without copies.  A process has one forkserver, which
    starts now.

    :param preload: modules that load the data when they are imported.
    :param warm_up: ``"module:function"``, called in the forkserver before the freeze.  Code that has run
        once writes less to itself later.
    If a module or ``warm_up`` fails there, the forkserver prints why and ends, and the first start of a
    process raises ``EOFError`` or ``ConnectionError``.

    :raises ModuleNotFoundError: no such module.
    :raises RuntimeError: the forkserver of this process runs already.
    """
    if isinstance(preload, str):
        raise TypeError(f"preload takes a list of names of modules, as in [{preload!r}]")
    modules = list(preload)
    for name in modules:
        if not isinstance(name, str):
            raise TypeError(f"preload takes names of modules, not {name!r}")
    if warm_up is not None and not all(warm_up.partition(":")):
        raise ValueError(f"warm_up takes 'module:function', not {warm_up!r}")
    names = [*modules, *([warm_up.partition(":")[0]] if warm_up else [])]
    for name in names:
        if name != "__main__" and importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"cowshed.get_context(): no module named {name!r}", name=name)
    if getattr(forkserver._forkserver, "_forkserver_pid") is not None:
        raise RuntimeError("the forkserver of this process runs already; call cowshed.get_context() "
                           "before the first process is started")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules, "cowshed.preloaded"])
    os.environ[_VARIABLE] = json.dumps({"modules": modules, "warm_up": warm_up, "main": _main()})
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[_VARIABLE]
    return context
