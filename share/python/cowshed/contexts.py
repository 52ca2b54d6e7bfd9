"""A forkserver that loads the data, freezes it and forks the workers, and the next one for new data."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import weakref
from collections.abc import Iterable, Sequence
from multiprocessing import connection, forkserver, resource_tracker, spawn, util
from multiprocessing.context import ForkServerContext
from typing import Any

from cowshed.errors import LoadFailed

_util: Any = util  # mypy does not know all of it
_connection: Any = connection
_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Server(forkserver.ForkServer):
    """One forkserver, which a module of ours runs.  It ends when this object and all its workers are gone."""

    def __init__(self, recipe: dict[str, Any], module: str = "preloaded") -> None:
        super().__init__()
        # Python 3.14 asks it of whoever wants a worker.
        self._forkserver_authkey = os.urandom(32) if hasattr(self, "_forkserver_authkey") else b""
        self._forkserver_address = address = _connection.arbitrary_address("AF_UNIX")
        self._loading = threading.Lock()
        self._failure: tuple[str, str] | None = None
        self.files: dict[str, Any] = {}
        """What watch.py knows of the files that it has read."""
        self._answers, theirs = multiprocessing.Pipe()
        alive, self._forkserver_alive_fd = os.pipe()
        with contextlib.closing(theirs), os.fdopen(alive), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            if not util.is_abstract_socket_namespace(address):
                os.chmod(address, 0o600)
            listener.listen()
            passed = [listener.fileno(), alive, theirs.fileno()]
            code = (f"import multiprocessing.forkserver, sys; sys.path.append({_PACKAGES!r}); "  # the first name is cowtop's
                    f"from cowshed.{module} import main; main(*{passed})")
            program = spawn.get_executable()
            pid = _util.spawnv_passfds(program, [program, *_util._args_from_interpreter_flags(), "-c", code], passed)
        self._pidfd = os.pidfd_open(pid)
        self._end = weakref.finalize(self, _end, self._forkserver_alive_fd, self._pidfd, address)
        self._end.atexit = False
        _servers.add(self)
        with contextlib.suppress(OSError):  # of one that was killed: wait_until_loaded() says so
            self._answers.send_bytes(pickle.dumps({**recipe, "key": self._forkserver_authkey}))

    def ensure_running(self) -> None:
        """For connect_to_new_process(), which would start another."""
        resource_tracker.ensure_running()

    def is_alive(self) -> bool:
        return not connection.wait([self._pidfd], 0)

    def wait_until_loaded(self) -> None:
        if failure := self.wait():
            error = LoadFailed(f"cowshed.get_context(): the forkserver cannot load the data: {failure[0]}")
            error.add_note(failure[1])
            raise error

    def wait(self, seconds: float | None = None) -> tuple[str, str] | None:
        """Waits until it has loaded.  Returns why it cannot: in short, and in full."""
        with self._loading:
            if not self._answers.closed:
                self._failure = ("it was killed while it loaded", "Its standard error may say more.")
                if not connection.wait([self._answers, self._pidfd], seconds):
                    self._failure = f"its import takes more than {seconds:.0f} s; with --preload the start waits for it", ""
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                with contextlib.suppress(EOFError, OSError):
                    if self._answers.poll():
                        self._failure, self.files = pickle.loads(self._answers.recv_bytes())
                self._answers.close()
        return self._failure

    def leave_to_the_parent(self) -> None:
        """In a forked child, whose copies of the descriptors would keep it alive."""
        self._end.detach()
        os.close(self._forkserver_alive_fd)
        os.close(self._pidfd)
        self._answers.close()


_servers: weakref.WeakSet[Server] = weakref.WeakSet()
_ended: list[int] = []  # pidfds of servers that are to be reaped


def _end(alive: int, pidfd: int, address: str) -> None:
    os.close(alive)
    if not util.is_abstract_socket_namespace(address):
        with contextlib.suppress(OSError):
            os.unlink(address)
    _ended.append(pidfd)


def reap() -> None:
    for pidfd in list(_ended):
        with contextlib.suppress(ChildProcessError):  # somebody has reaped it
            if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None:
                continue
        _ended.remove(pidfd)
        os.close(pidfd)


class Context(ForkServerContext):
    """What :func:`cowshed.get_context` returns: a context of ``multiprocessing`` that can renew its data.

    A forked child that starts workers itself has a forkserver of its own, which loads the data once more.
    """

    def __init__(self, modules: list[str], warm_up: str | None, settle: bool) -> None:
        self._modules = modules
        self._warm_up = warm_up
        self._settle = settle
        self._recipe = make_recipe(modules, warm_up, settle)
        self._begin()
        self._running()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._server: Server | None = None

    def renew(self) -> None:
        """Loads the data anew.  Workers that start from now on have the new data.

        A new forkserver imports the modules, calls ``warm_up`` and freezes, with the ``sys.argv``, ``sys.path``
        and working directory that this process has now.  ``renew()`` waits for it.  The workers that run keep
        the old data.  The old forkserver ends with the last of them, and its memory is free then.  So end old
        workers before the next ``renew()``: each version of the data that has workers takes its memory.

        ``Pool(maxtasksperchild=N)`` and ``ProcessPoolExecutor(max_tasks_per_child=N)`` replace their workers
        by and by, and so get the new data without a restart.  Thread-safe.

        :raises cowshed.LoadFailed: a module or ``warm_up`` failed.  New workers still get the old data.
        """
        with self._renewing:
            recipe = make_recipe(self._modules, self._warm_up, self._settle)
            server = Server(recipe)
            server.wait_until_loaded()
            with self._lock:
                self._server, self._recipe = server, recipe
                reap()

    def _running(self) -> Server:
        with self._lock:
            if self._server is None or not self._server.is_alive():
                self._server = Server(self._recipe)
            reap()
            return self._server

    def _ensure_running(self) -> None:
        self._running()

    def _connect(self, fds: Sequence[int]) -> tuple[int, int]:
        server = self._running()
        server.wait_until_loaded()
        return server.connect_to_new_process(fds)


_context: Context | None = None


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server.leave_to_the_parent()
    _ended.clear()
    if _context is not None:
        _context._begin()


os.register_at_fork(after_in_child=_after_fork_in_child)


def make_recipe(modules: list[str], warm_up: str | None, settle: bool) -> dict[str, Any]:
    """What the forkserver does before it forks."""
    data = spawn.get_preparation_data("forkserver")
    main = _main_of(data)
    module, _, function = (warm_up or "").partition(":")
    names = [*modules, module] if module else modules
    kept = ("sys_path", "sys_argv", "dir", "orig_dir", "start_method")
    return {"data": {key: data[key] for key in kept if key in data}, "main": main, "modules": names,
            "are_main": {name for name in names if _is_main(name, main)}, "warm_up": function,
            "settle": settle}


def _main_of(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("init_main_from_name", "init_main_from_path") if key in data}


def runs_as_main(name: str) -> bool:
    """Whether this module is loaded here as ``__main__``."""
    return _is_main(name, _main_of(spawn.get_preparation_data("")))


def _is_main(name: str, main: dict[str, Any]) -> bool:
    """Whether this module is what runs as ``__main__`` here: it must not be loaded twice."""
    if name in ("__main__", "__mp_main__"):
        return True
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    path = main.get("init_main_from_path")
    return name == main.get("init_main_from_name") and not name.endswith("__main__") or bool(
        path and spec.origin and os.path.realpath(path) == os.path.realpath(spec.origin))


def get_context(preload: Iterable[str] = ("__main__",), *, warm_up: str | None = None,
                settle: bool = False) -> Context:
    """Returns a context of ``multiprocessing`` whose workers share what ``preload`` has loaded.

    Its forkserver imports the modules of ``preload``, calls ``warm_up``, calls
    :func:`cowshed.freeze`, and forks each worker.  So workers inherit no threads and no locks of
    this process, and share the modules' data without copies.  A process has one forkserver, which
    starts now; :meth:`Context.renew` replaces it by one with new data.

    The modules and ``warm_up`` see this process's ``sys.argv``, ``sys.path`` and working directory.  As in
    every worker, the main module is loaded as ``__mp_main__``, so ``if __name__ == "__main__":`` is false,
    and is ``__main__`` for all that import it.  Its own name, such as ``lists`` of ``lists.py``, means the
    same module.  The ``__main__.py`` of ``python -m package`` is not loaded, as ``multiprocessing`` has it.

    If a module or ``warm_up`` fails there, the first start of a process raises :class:`cowshed.LoadFailed`,
    which says why.

    :param preload: modules that load the data when they are imported.
    :param warm_up: ``"module:function"``, called in the forkserver before the freeze.  It may load data, too.
        Code that has run once writes less to itself later.
    :param settle: as of :func:`cowshed.freeze`: workers of a large forkserver start sooner.
    :raises ModuleNotFoundError: no such module.
    :raises RuntimeError: the forkserver of this process runs already.
    """
    global _context
    if isinstance(preload, str):
        raise TypeError(f"preload takes a list of names of modules, as in [{preload!r}]")
    modules = list(preload)
    for name in modules:
        if not isinstance(name, str):
            raise TypeError(f"preload takes names of modules, not {name!r}")
    if warm_up is not None and not all(warm_up.partition(":")):
        raise ValueError(f"warm_up takes 'module:function', not {warm_up!r}")
    if _context is not None or getattr(forkserver._forkserver, "_forkserver_pid") is not None:
        raise RuntimeError("the forkserver of this process runs already; call cowshed.get_context() once, "
                           "before the first process is started, and renew() for new data")
    _context = Context(modules, warm_up, settle)
    # Where multiprocessing asks for a worker.
    forkserver.connect_to_new_process = _context._connect
    forkserver.ensure_running = _context._ensure_running
    return _context
