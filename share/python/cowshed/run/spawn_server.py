"""The forkserver of `cowshed run` whose forks take the place of spawned workers; spawning.py starts it."""

from __future__ import annotations

import contextlib
import os
import pickle
import posix
import signal
import sys
import types
from collections.abc import Callable
from multiprocessing import forkserver, process, spawn
from multiprocessing.connection import Connection
from typing import Any

import cowshed
from cowshed import preloaded
from cowshed.run import at_fork
from cowshed.run.watch import Identity, Watch

# What each worker gets from its parent; the rest is the same in all workers of a server.
_SENT = ("name", "authkey", "log_to_stderr", "log_level", "start_method")


def main(listener: int, alive: int, answers: int) -> None:
    """Runs the forkserver, until its parent ends."""
    parent = Connection(answers)
    recipe = pickle.loads(parent.recv_bytes())

    def answer(failure: tuple[str, str] | None, files: dict[str, Identity] = {}) -> None:
        with contextlib.suppress(OSError):
            parent.send_bytes(pickle.dumps((failure, files)))

    def refuse(why: str) -> None:
        answer((why, ""))
        os._exit(0)

    spawn.prepare(recipe["data"])
    watch = Watch(refuse)
    for name in "name", "authkey":
        watch.instead(process.BaseProcess, name, lambda _: watch.ask("asks for the name or key of its process"))
    try:
        watch.import_silently(lambda: preloaded.load(recipe))
        watch.is_by_order = True
        at_fork.preload()
        watch.end()
        at_fork.before_fork(None)
    except BaseException as error:
        refuse(" ".join(f"its import fails, {type(error).__name__}: {error}".split()))
    if not at_fork.is_frozen():
        refuse("its import holds less than --above" if os.environ.get("COWSHED_PRELOAD") else "")
    answer(None, watch.files)
    parent.close()
    _serve_as_spawned(watch.in_each_fork)
    own = os.getpid()
    try:
        preloaded.serve(recipe, listener, alive)
    except SystemExit:  # its parent has ended, and nobody asks for exit codes
        if os.getpid() != own:
            raise  # a worker ends
    os._exit(0)


def _serve_as_spawned(in_each_fork: list[Callable[[], object]]) -> None:
    """Has forkserver.main() begin and end its workers as spawned ones."""
    # What a group of processes is sent is for the workers: their parent is told of their ends by this one.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGCHLD})
    serve_one, prepare = forkserver._serve_one, spawn.prepare  # type: ignore[attr-defined]
    server, parent, getppid = os.getpid(), os.getppid(), os.getppid

    def parent_of_worker() -> int:
        now = getppid()
        return parent if now == server else now

    def serve(child: int, files: list[int], unused: list[int], handlers: dict[int, Any]) -> int:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(files[0])  # which would keep the server alive without its parent
        os.getppid = posix.getppid = parent_of_worker
        spawn.prepare = lambda data: prepare({key: data[key] for key in _SENT if key in data})
        for each in in_each_fork:
            each()
        code = 1
        try:
            code = serve_one(child, [None, *files[1:]], unused, handlers)
        except Exception:
            sys.excepthook(*sys.exc_info())
        setattr(forkserver, "os", types.SimpleNamespace(_exit=end))
        return code

    def end(status: int) -> None:
        setattr(forkserver, "os", os)
        cowshed.end_process(status)  # or a SystemExit for main()

    def nothing(*_: object) -> None:
        pass

    forkserver._serve_one = serve  # type: ignore[attr-defined]
    # Since Python 3.13 it drops what the import registered.  A spawned worker calls that.
    setattr(forkserver, "atexit", types.SimpleNamespace(_clear=nothing, register=nothing, _run_exitfuncs=nothing))
