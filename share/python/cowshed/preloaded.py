"""Imported last by the forkserver of :func:`cowshed.get_context`: warms up and freezes."""

import importlib
import json
import os
import sys
from multiprocessing import process, spawn
from typing import Any

import cowshed


def _import_main(path: str) -> None:
    """As the forkserver does it since Python 3.14.  Before, it never learns the path."""
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.import_main_path(path)
    finally:
        del current._inheriting


_asked = json.loads(os.environ.pop("COWSHED_WARM_UP", "{}"))
try:
    for _name in _asked.get("modules", ()):
        if _name != "__main__":
            importlib.import_module(_name)
        elif _asked["main"] not in (None, getattr(sys.modules["__main__"], "__file__", None)):
            _import_main(_asked["main"])
    if _asked.get("warm_up"):
        _module, _, _function = _asked["warm_up"].partition(":")
        getattr(importlib.import_module(_module), _function)()
except ImportError as _error:  # which multiprocessing would pass over in silence
    raise RuntimeError("cowshed.get_context(): the forkserver cannot import what it is to preload: "
                       f"{_error}") from _error

frozen = cowshed.freeze()
"""What the forkserver froze, for its workers to read."""
