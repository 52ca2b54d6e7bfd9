"""The forkserver of :func:`cowshed.get_context`: loads, warms up, freezes, and forks the workers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import pkgutil
import sys
import traceback
import types
from multiprocessing import forkserver, process, spawn
from multiprocessing.connection import Connection
from typing import Any

import cowshed

frozen: cowshed.Frozen
"""What the forkserver froze, for its workers to read."""


def main(listener: int, alive: int, answers: int) -> None:
    """Runs the forkserver, until nobody can ask it for a worker."""
    global frozen
    with Connection(answers) as parent:
        recipe = pickle.loads(parent.recv_bytes())
        failure = None
        try:
            spawn.prepare(recipe["data"])
            load(recipe)
            frozen = cowshed.freeze(settle=recipe["settle"])
        except BaseException as error:
            try:
                text = str(error)
            except Exception:
                text = "its text fails, too"
            failure = " ".join(f"{type(error).__name__}: {text}".split()), traceback.format_exc()
        for stream in (sys.stdout, sys.stderr):  # else each worker would print what waits there
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        with contextlib.suppress(OSError):
            parent.send_bytes(pickle.dumps((failure, {})))
    if failure:
        os._exit(1)
    try:
        serve(recipe, listener, alive)
    except SystemExit as end:
        _report_the_last(end)
    cowshed.end_process(0)


def serve(recipe: dict[str, Any], listener: int, alive: int) -> None:
    """Forks workers.  Raises SystemExit when nobody can ask for one any more."""
    arguments: dict[str, Any] = {}
    if recipe["key"]:
        arguments["authkey_r"], key = os.pipe()
        os.write(key, recipe["key"])
        os.close(key)
    forkserver.main(listener, alive, [], **arguments)


def load(recipe: dict[str, Any]) -> None:
    for name in recipe["modules"]:
        if name in recipe["are_main"]:
            _load_main(recipe["main"].get("init_main_from_name"), recipe["main"].get("init_main_from_path"))
            sys.modules[name] = sys.modules["__main__"]
            package, _, last = name.rpartition(".")
            if package:  # as an import does it
                setattr(importlib.import_module(package), last, sys.modules[name])
        importlib.import_module(name)
    if recipe["warm_up"]:
        getattr(importlib.import_module(recipe["modules"][-1]), recipe["warm_up"])()


def _load_main(name: str | None, path: str | None) -> None:
    """Loads __main__ so that a worker's spawn.prepare() finds it.  That function would run it in a dictionary and
    copy this: what a function assigns to a global would not be an attribute of the module."""
    is_there = sys.modules["__main__"].__name__ == "__mp_main__"
    if is_there or not (name or path) or name and name.endswith("__main__"):
        return
    module = types.ModuleType("__mp_main__")
    spec = importlib.util.find_spec(name) if name else None
    if spec and spec.loader:
        code = spec.loader.get_code(name)  # type: ignore[attr-defined]
        vars(module).update(__file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=spec.loader)
    else:
        assert path
        with open(path, "rb") as file:
            code = pkgutil.read_code(file)
            file.seek(0)
            code = code or compile(file.read(), path, "exec")
        vars(module).update(__file__=path, __package__="")
    spawn.old_main_modules.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    current: Any = process.current_process()
    current._inheriting = True  # it must not start processes
    try:
        exec(code, vars(module))
    finally:
        del current._inheriting


def _report_the_last(end: SystemExit) -> None:
    """Sends the exit codes of workers that forkserver.main() has not yet reaped.

    It ends at once when its last worker does, and would leave that worker's parent with 255."""
    *_, (frame, _) = traceback.walk_tb(end.__traceback__)
    for worker, parent in frame.f_locals["pid_to_fd"].items():
        _, status = os.waitpid(worker, 0)
        with contextlib.suppress(BrokenPipeError):
            forkserver.write_signed(parent, os.waitstatus_to_exitcode(status))
