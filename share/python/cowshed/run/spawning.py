"""Spawned workers below `cowshed run`: forks of a server that has imported the main module, where that is the same."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import sys
import threading
import time
from multiprocessing import context, forkserver, popen_forkserver, popen_spawn_posix, process, reduction, spawn, util
from typing import Any

from cowshed import contexts, freezing
from cowshed.run import at_fork
from cowshed.run.watch import identity

_STATUS = re.compile(r"^(?:Umask|Uid|Gid|Groups|NSpgid|NSsid|SigBlk|SigIgn|Cap\w+|NoNewPrivs|Seccomp\w*|THP_enabled|"
                     r"Cpus_allowed|Mems_allowed):.*", re.M)


_util: Any = util  # mypy does not know all of it


class _NotServed(Exception):
    pass


class _Popen(popen_forkserver.Popen):
    method = "spawn"

    def __init__(self, process_obj: Any, server: contexts.Server) -> None:
        self._server = server
        self._fds: list[int]
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            for each in (spawn.get_preparation_data(process_obj._name), process_obj):
                reduction.dump(each, buffer)
        finally:
            context.set_spawning_popen(None)
        if len(self._fds) + 4 >= forkserver.MAXFDS_TO_SEND:
            raise _NotServed(f"a worker gets {len(self._fds)} descriptors")
        try:
            self.sentinel, write_end = self._server.connect_to_new_process(self._fds)
        except (EOFError, OSError) as error:
            raise _NotServed("the forkserver was killed") from error
        # The worker takes the end of the second one for the end of its parent.
        self.finalizer = util.Finalize(self, _util.close_fds, (os.dup(write_end), self.sentinel))
        with open(write_end, "wb") as file:
            try:
                self.pid = forkserver.read_signed(self.sentinel)
            except EOFError as error:
                raise _NotServed("the forkserver was killed") from error
            file.write(buffer.getbuffer())


def popen(process_obj: Any) -> Any:
    """Starts a worker by the server, or by a real spawn where that may be another thing."""
    try:
        # Each worker imports the module of what it calls.
        module = getattr(getattr(process_obj, "_target", None), "__module__", "")
        if server := _find_server([module] if getattr(sys.modules.get(module), "__spec__", None) else []):
            return _Popen(process_obj, server)
    except _NotServed as error:
        _say(str(error))
    return popen_spawn_posix.Popen(process_obj)


_lock = threading.RLock()
_server: contexts.Server | None = None
_state: dict[str, object] | None = None  # of this process, when it last started a worker
_refused = 0.0  # until when it is not asked for again
_said: set[str] = set()


def _begin_anew() -> None:
    global _lock, _server, _state, _refused
    _lock, _server, _state, _refused = threading.RLock(), None, None, 0


os.register_at_fork(after_in_child=_begin_anew)


def _say(why: str) -> None:
    if why and why not in _said:
        _said.add(why)
        at_fork.log(f"spawns workers that share nothing: {why}")


def _find_server(modules: list[str]) -> contexts.Server | None:
    """None: a real spawn."""
    if getattr(process.current_process(), "_inheriting", False):
        return None  # it raises an error
    if signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
        _say("SIGCHLD has a handler, and a worker would be no child of this process")
        return None
    try:
        with _lock:
            contexts.reap()
            return _find_for(_state_now(), modules)
    except Exception as error:
        if freezing.is_by_handler(error):
            raise
        _say(f"{type(error).__name__}: {error}")
        return None


def _find_for(state: dict[str, object], modules: list[str]) -> contexts.Server | None:
    global _server, _state, _refused
    last, _state = _state, state
    if last is not None and last != state:
        _server, _refused = None, 0
        _say("changed since the last start: " + ", ".join(key for key in state if last[key] != state[key]))
        return None  # it may change before each start
    if _server and _server.is_alive() and all(identity(path) == was for path, was in _server.files.items()):
        return _server
    if time.monotonic() > _refused:
        _server = contexts.Server(contexts.make_recipe(["__main__", *modules], None, False), "run.spawn_server")
        by_order = bool(os.environ.get("COWSHED_PRELOAD"))
        if why := _server.wait(None if by_order else 10 + 2 * _age()):
            _server, _refused = None, time.monotonic() + (10 if by_order else math.inf)
            _say(why[0])
    return _server


def _age() -> float:
    """The seconds since this process began, in which it has imported what the server imports."""
    with open("/proc/self/stat") as file:
        began = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


def _state_now() -> dict[str, object]:
    """What a spawned worker takes over from this process, beside what it is sent."""
    def read(name: str) -> str:
        with open(f"/proc/{name}") as file:
            return file.read()

    data = spawn.get_preparation_data("")
    files = [os.fstat(number)[:3] if os.path.exists(f"/proc/self/fd/{number}") else None for number in range(3)]
    return {
        "main module": [data.get("init_main_from_name"), data.get("init_main_from_path")],
        "sys.path": data["sys_path"], "sys.argv": [*data["sys_argv"]], "working directory": data["dir"],
        "environment": dict(os.environb), "interpreter": [spawn.get_executable(), *_util._args_from_interpreter_flags()],
        "standard files": files, "signals or rights": _STATUS.findall(read("thread-self/status")),
        "limits": [read("self/limits"), read("self/cgroup"), read("self/oom_score_adj"),
                   os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
        "namespaces": [os.stat("/")[:3], *(os.readlink(each.path) for each in os.scandir("/proc/self/ns"))]}
