"""Imported last by the forkserver of :func:`cowshed.get_context`: warms up and freezes."""

import importlib
import os

import cowshed

_modules, _, _warm_up = os.environ.pop("COWSHED_WARM_UP", ";").partition(";")
for _name in filter(None, _modules.split(",")):
    if _name != "__main__":
        importlib.import_module(_name)  # multiprocessing passes over an ImportError in silence
if _warm_up:
    _module, _, _function = _warm_up.partition(":")
    getattr(importlib.import_module(_module), _function)()

frozen = cowshed.freeze()
"""What the forkserver froze, for its workers to read."""
