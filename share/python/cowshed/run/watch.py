"""Watches the import of a program: may forks of this process take the place of processes that import it themselves?"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import functools
import os
import pickle
import posix
import random
import resource
import select
import signal
import stat
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

# Audit events of what each process does for itself.
_ACTS = frozenset({
    "builtins.input", "os.chdir", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.link",
    "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate",
    "signal.pthread_kill", "socket.connect", "socket.sendmsg", "socket.sendto", "sqlite3.connect", "subprocess.Popen",
    "syslog.syslog"})

# Modules for whose imports random numbers or the PID make no difference: NumPy's own generator is seeded anew in each
# worker, tempfile notices a fork, and joblib tries whether semaphores work.
_ASK_IN_VAIN = ("numpy.random", "tempfile", "joblib._multiprocessing_helpers")

# What draws random numbers in C, by modules that need not be imported.
_DRAW = {"ssl": ("RAND_bytes", "RAND_pseudo_bytes"), "uuid": ("uuid1",)}

Identity = tuple[int, int, int] | None


def identity(path: str, stat_of: Callable[[str], os.stat_result] = os.stat) -> Identity:
    """What tells whether a file has changed, or what a folder has that ends with a slash.  None if there is none."""
    try:
        now = stat_of(path)
    except OSError:
        return None
    if stat.S_ISDIR(now.st_mode) and not path.endswith("/"):
        return 0, 0, now.st_ino
    return now.st_mtime_ns, now.st_size, now.st_ino


class Watch:
    """What it calls `refuse(why)` for does not happen: that does not return."""

    def __init__(self, refuse: Callable[[str], object]) -> None:
        self._refuse = refuse
        self._is_on = True
        self.is_by_order = False
        """Whether its import may do what it likes, as --preload orders it, so long as it leaves nothing behind."""
        self._undo: list[tuple[object, str, object]] = []
        self._seeded: set[str] = set()
        self._states = {"random": _state_of(random)}
        self._had = _open_files(), _shared_memory()
        self.files: dict[str, Identity] = {}
        """The files that were read."""
        self.in_each_fork: list[Callable[[], object]] = []
        """Calls that make random numbers as in a new process."""
        self._hook: Any = functools.partial(self._hear)
        sys.addaudithook(self._hook)
        sys.meta_path.insert(0, self)
        for owner, name in ((os, "urandom"), (posix, "urandom"), (random, "_urandom"), (os, "getrandom"), (posix, "getrandom")):
            self.instead(owner, name, lambda *_: self.ask("draws random numbers"))
        for owner, name in (os, "getpid"), (posix, "getpid"), (threading, "get_native_id"), (_thread, "get_native_id"):
            self.instead(owner, name, self._ask_for_id)
        for name in _DRAW.keys() & sys.modules.keys():
            self._watch_draws(sys.modules[name])
        self.instead(random.Random, "seed", self._seed)
        self.instead(random, "seed", functools.partial(self._seed, random))

    def note_looks(self) -> None:
        """Also notes which files and folders were looked at, and refuses what a program's start decides."""
        for name in ("listdir", "scandir"):
            self.instead(os, name, lambda path=".": self._look(path, "/"))
        for name in ("stat", "lstat", "access", "readlink"):
            self.instead(os, name, lambda path, *_, **__: self._look(path, ""))
        for owner, name in ((os, "sched_getaffinity"), (os, "process_cpu_count"), (os, "umask"), (os, "getppid"),
                            (os, "isatty"), (os, "get_terminal_size"), (resource, "setrlimit"), (resource, "prlimit"),
                            (signal, "getsignal"), (signal, "signal")):
            if hasattr(owner, name):
                self.instead(owner, name, functools.partial(self._depend, f"calls {name}()"))
        for name in ("argv", "orig_argv"):
            words = getattr(sys, name)
            self._undo.append((sys, name, words))
            setattr(sys, name, _Arguments(words, functools.partial(self._depend, f"reads sys.{name}")))
        self.files.update((f"{path}/", identity(f"{path}/")) for path in sys.path if os.path.isdir(path))

    def _depend(self, what: str, *_: object, **__: object) -> None:
        if self._is_on:
            self._act(f"its import {what}")

    def _look(self, path: Any, end: str) -> None:
        if not isinstance(path, int):
            text = os.path.abspath(os.fsdecode(path)) + end
            if not text.startswith(("/proc/", "/sys/", "/dev/")) and "__pycache__" not in text:
                self.files.setdefault(text, identity(text, posix.stat))

    def import_silently(self, function: Callable[[], object]) -> None:
        """Calls `function`, which must not write to standard output or error."""
        with contextlib.ExitStack() as stack:
            outputs = [_Output(number, stack) for number in (1, 2)]
            function()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    stream.flush()
            drawn = (name for name, state in self._states.items() if _state_of(sys.modules[name]) != state)
            if {*drawn} - self._seeded:
                self._refuse("its import draws random numbers")
            if any(output.is_written() for output in outputs):
                self._refuse("its import prints")

    def stop(self) -> None:
        self._is_on = False
        self._hook.__setstate__(({}.get, (), {}, None))  # does nothing: no code of Python, in which signals are handled

    def end(self) -> None:
        """Looks at what the import has left behind."""
        self.stop()
        sys.meta_path.remove(self)
        for owner, name, plain in reversed(self._undo):
            setattr(owner, name, plain)
        for name in self._states:
            if name not in self._seeded:
                self.in_each_fork.append(getattr(sys.modules[name], "seed"))
            elif name == "random":  # which is seeded at each fork
                self.in_each_fork.append(functools.partial(random.setstate, random.getstate()))
        if files := _open_files() - self._had[0]:
            self._refuse(f"its import keeps {min(files)[1]} open")
        if _shared_memory() - self._had[1]:
            self._refuse("its import maps shared memory")
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            self._refuse("its import sets a timer")
        if threading.active_count() > 1 or _has_threads_that_a_fork_loses():
            self._refuse("its import starts threads")
        for module in [*sys.modules.values()]:
            if isinstance(path := getattr(module, "__file__", None), str):
                self.files.setdefault(path, identity(path))

    def _act(self, why: str) -> None:
        if not self.is_by_order:
            self._refuse(why)

    def instead(self, owner: object, name: str, note: Callable[..., object]) -> None:
        """Until the end, calls `note` before each call."""
        plain = getattr(owner, name)
        call = plain.fget if isinstance(plain, property) else plain

        @functools.wraps(call)
        def noted(*arguments: Any, **named: Any) -> Any:
            if self._is_on:
                note(*arguments, **named)
            return call(*arguments, **named)

        setattr(owner, name, property(noted, plain.fset) if isinstance(plain, property) else noted)
        self._undo.append((owner, name, plain))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self._open(*arguments)
        elif event in _ACTS and arguments != (":memory:",) and not any("__pycache__" in str(each) for each in arguments):
            is_in_vain = event == "os.mkdir" and os.path.isdir(arguments[0])
            if not is_in_vain and not _is_called_by("ctypes.util", "platform"):  # which only ask
                self._act(f"its import calls {event}()")

    def _open(self, name: Any, mode: object, flags: int) -> None:
        if isinstance(name, int) or name == os.devnull:
            return
        path = os.path.abspath(os.fsdecode(name))
        if "__pycache__" in path or path.startswith(("/proc/", "/sys/")):
            return
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._act(f"its import writes {path}")
        elif os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
            self._act(f"its import reads {path}")
        self.files[path] = identity(path)

    def ask(self, what: str) -> None:
        if not _is_called_by(*_ASK_IN_VAIN):
            self._act(f"its import {what}")

    def _ask_for_id(self) -> None:
        if sys._getframe(2).f_globals is not vars(threading):  # where a thread begins
            self.ask("asks for the PID")

    def _watch_draws(self, module: ModuleType) -> None:
        for name in _DRAW[module.__name__]:
            if hasattr(module, name):
                self.instead(module, name, lambda *_, **__: self.ask("draws random numbers"))

    def _seed(self, generator: object, a: object = None, *_: object, **named: object) -> None:
        if a is None and named.get("seed") is None and not isinstance(generator, random.SystemRandom):
            self.ask("draws random numbers")
        elif isinstance(generator, ModuleType):
            self._seeded.add(generator.__name__)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """For what there is only when it has been imported, such as the first state of NumPy's generator."""
        spec = PathFinder.find_spec(name, path) if name == "numpy.random" or name in _DRAW else None
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if name in _DRAW:
                    return self._watch_draws(module)
                self._states[name] = _state_of(module)
                self.instead(module, "seed", functools.partial(self._seed, module))

            setattr(spec.loader, "exec_module", exec_module)
        return spec


class _Arguments(list[str]):
    """Calls `note` before each use."""

    def __init__(self, words: list[str], note: Callable[[], object]) -> None:
        super().__init__(words)
        self._note = note

    def __getitem__(self, at: Any) -> Any:
        self._note()
        return super().__getitem__(at)

    def __iter__(self) -> Any:
        self._note()
        return super().__iter__()

    def __len__(self) -> int:
        self._note()
        return super().__len__()

    def __contains__(self, word: object) -> bool:
        self._note()
        return super().__contains__(word)


class _Output:
    """Where a descriptor leads meanwhile: to a file of ours that is a terminal if its own is."""

    def __init__(self, number: int, stack: contextlib.ExitStack) -> None:
        self._reader = -1
        with contextlib.suppress(OSError):  # as where it is closed
            kept = os.dup(number)
            stack.callback(os.close, kept)
            self._reader = ours = os.memfd_create("output")
            if posix.isatty(number):
                os.close(ours)
                self._reader, ours = os.openpty()
                fcntl.ioctl(ours, termios.TIOCSWINSZ, fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8)))
                os.set_blocking(ours, False)
            stack.callback(os.close, self._reader)
            os.dup2(ours, number)
            stack.callback(os.dup2, kept, number)
            if ours != self._reader:
                os.close(ours)

    def is_written(self) -> bool:
        return self._reader >= 0 and bool(
            select.select([self._reader], [], [], 0)[0] if posix.isatty(self._reader) else os.fstat(self._reader).st_size)


def _is_called_by(*modules: str) -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame and frame.f_globals.get("__name__") not in modules:
        frame = frame.f_back
    return frame is not None


def _state_of(generator: Any) -> bytes:
    return pickle.dumps(generator.getstate() if generator is random else generator.get_state())


def _maps() -> list[list[str]]:
    with open("/proc/self/maps") as maps:
        return [line.split(None, 5) for line in maps]


def _open_files() -> set[tuple[int, str]]:
    """Without those of libraries, as libffi keeps its own open."""
    libraries = {each[-1].rstrip() for each in _maps() if "x" in each[1]}
    files = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that which read the folder
            if (path := os.readlink(f"/proc/self/fd/{number}")) not in libraries:
                files.add((number, path))
    return files


def _shared_memory() -> set[str]:
    return {each[0] for each in _maps() if each[1][1::2] == "ws"}


def _has_threads_that_a_fork_loses() -> bool:
    """Whether threads of extensions go on after a fork.  Libraries that bear a fork end theirs before it."""
    if len(os.listdir("/proc/self/task")) > 1:
        if (child := getattr(os.fork, "__wrapped__", os.fork)()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
    return len(os.listdir("/proc/self/task")) > 1
