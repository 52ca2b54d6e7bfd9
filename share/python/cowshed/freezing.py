"""Freezing: what is alive before a fork is shared for good."""

from __future__ import annotations

import atexit
import collections
import contextlib
import dataclasses
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
import tracemalloc
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn, TypeVar

from cowshed import _cowshed
from cowshed.errors import Error
from cowshed.settling import Settled, settle as _settle


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What :func:`freeze` did.  ``print()`` shows it in a few lines."""

    in_place: bool
    """Whether reading the objects no longer writes to them."""
    why_not: str
    """Why it does; empty if ``in_place``."""
    objects: int
    """The number of objects that this call froze."""
    bytes: int
    """Their size, as ``sys.getsizeof`` counts it."""
    seconds: float
    """What the call took."""
    left: Mapping[str, int]
    """How many objects stay as they were, by the name of their type.  They must die or be flushed:
    files, sockets, locks, generators, objects with ``__del__`` or a ``weakref.finalize``, and what
    directly holds one of these (not of locks and generators).  Reading them still copies.  Objects
    of extensions that refer to objects which ``freeze()`` cannot find count, too: see
    :func:`register_children`."""
    resolved: int = 0
    """The number of lazy imports that were resolved (Python 3.15)."""
    unresolved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The lazy imports that failed, and why."""
    pause_before: float = 0
    """The seconds of a full garbage collection, ``gc.collect()``, before the freeze."""
    pause_after: float = 0
    """The same after it."""
    settled: Settled | None = None
    """What :func:`cowshed.settle` did, with ``settle=True``."""
    why_not_settled: str = ""
    """Why it failed; empty if it did not."""

    def __str__(self) -> str:
        return "\n  ".join(line for line in (self._summary(), *self._details()) if line)

    def _summary(self) -> str:
        """One line for whoever runs the program, of 80 columns with its PID."""
        if not self.in_place:
            return f"not frozen in place: {self.why_not}; reading an object still writes to its reference count"
        text = f"froze {self.bytes / 2**20:,.1f} MiB, {self.objects:,} objects, in {self.seconds:.2f} s"
        return text + (f"; {sum(self.left.values()):,} left out" if self.left else "")

    def _details(self) -> Iterator[str]:
        if self.left:
            most = sorted(self.left.items(), key=lambda item: -item[1])
            names = ", ".join(f"{count:,} {name}" for name, count in most[:5])
            yield f"left out: {names}" + (" and others" if len(most) > 5 else "")
        yield f"a full collection takes {self.pause_after:.2f} s, took {self.pause_before:.2f} s"
        if self.resolved:
            yield f"resolved {self.resolved:,} lazy imports"
        if self.unresolved:
            failed = ", ".join(f"{name} ({why})" for name, why in self.unresolved.items())
            yield f"lazy imports that failed: {failed}"
        yield str(self.settled) if self.settled else self.why_not_settled


# What a module imports at its first use, such as the first start of a process, which would come after the freeze.
_AT_THE_FIRST_USE = {
    "multiprocessing": ("multiprocessing.queues", "multiprocessing.synchronize", "multiprocessing.popen_fork",
                        "multiprocessing.popen_forkserver", "multiprocessing.resource_sharer", "multiprocessing.pool"),
    "random": ("_sha2",),  # of seed() with a string; before 3.12 there is none
}

_T = TypeVar("_T")
_children_of: dict[type, Callable[[Any], Iterable[object]]] = {}

_warned = False
_had_threads = False
_may_import = True


def _before_fork() -> None:
    global _had_threads
    _had_threads = threading.active_count() > 1


# A thread that is not there may have held the lock of an import, which the child would wait for.
def _after_fork_in_child() -> None:
    global _may_import
    _may_import = _may_import and not _had_threads


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


def _lazy_bindings() -> Iterator[tuple[types.ModuleType, str, str]]:
    """Modules, and names in them that are lazy, with a name for people to read."""
    lazy = getattr(types, "LazyImportType")
    for module in [*sys.modules.values()]:
        if isinstance(module, types.ModuleType):
            for name, value in [*vars(module).items()]:
                if type(value) is lazy:
                    yield module, name, repr(value).partition("'")[2].partition("'")[0] or f"{module.__name__}.{name}"


def is_by_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised it, while it happened to run our code."""
    handlers = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _resolve_lazy_imports() -> tuple[int, dict[str, str]]:
    resolved = 0
    failed: dict[str, str] = {}
    tried: set[tuple[int, str]] = set()

    def resolve(act: Callable[..., object], *arguments: object, text: str) -> int:
        try:
            act(*arguments)
        except (Exception, SystemExit) as error:
            if is_by_handler(error):
                raise
            failed.setdefault(text, f"{type(error).__name__}: {error}")
            return 0
        return 1

    # What this loads may have lazy imports, too.
    while todo := [each for each in _lazy_bindings() if (id(each[0]), each[1]) not in tried]:
        for module, name, text in todo:
            tried.add((id(module), name))
            resolved += resolve(getattr, module, name, text=text)
        # "lazy import a.b" binds only a.
        for text in sorted(getattr(sys, "lazy_modules")):
            package, _, last = text.rpartition(".")
            is_bound = package in sys.modules and last in vars(sys.modules[package])
            if package.partition(".")[0] in sys.modules and not is_bound and text not in failed:
                resolved += resolve(importlib.import_module, text, text=text)
    return resolved, failed


def register_children(cls: type[_T], function: Callable[[_T], Iterable[object]]) -> None:
    """Tells :func:`freeze` what instances of ``cls``, a class of an extension, refer to, and to freeze them.

    A frozen instance is never freed.  So register no class whose instances act when they are freed: write, close,
    unlock.  ``freeze()`` finds objects as the garbage collector does.  It does not find the objects that an
    extension refers to without telling the collector, so children that read them still copy.
    ``Frozen.left`` counts the types.  NumPy's arrays need no registration.

    :param cls: the class; its subclasses are meant, too.
    :param function: called by ``freeze()`` with each frozen instance.  It returns the objects that the instance
        holds, not new ones.  If it fails, ``sys.unraisablehook`` reports why, and ``Frozen.left`` counts the instance.
    :raises TypeError: ``cls`` is no class, or ``function`` cannot be called.
    """
    if not isinstance(cls, type) or not callable(function):
        raise TypeError(f"register_children() takes a class and a function, not {cls!r} and {function!r}")
    _children_of[cls] = function


def freeze(*, keep: Iterable[object] = (), lazy: Literal["resolve", "leave"] = "resolve", settle: bool = False,
           threads: Literal["refuse", "stop"] = "refuse") -> Frozen:
    """Makes all objects that are alive immortal, in place, so that forked children share them.

    Call it once, after the imports and the data are loaded and before the first fork.  Every
    object keeps its identity, its type and its speed.  From Python 3.12 the interpreter never
    writes to an immortal object's reference count, so a child that reads it copies no page.  What
    reading would write beside the count is computed now: hashes, UTF-8 forms, ``__dict__``.  The
    garbage collector leaves the objects alone (``gc.freeze``).

    Frozen objects may still be changed.  A child that changes one copies its page, as ever.  But
    they are never freed, also if nothing refers to them any more.  A process that loads new
    data again and again, and freezes it each time, grows.

    Some objects stay as they are, because they must die or be flushed: files, sockets, locks,
    frames, generators, objects with ``__del__`` or a ``weakref.finalize``, objects of extensions,
    and those in ``keep`` with what only they hold.  What holds a file, a socket, an object with
    ``__del__`` or one of an extension stays as well, up to five objects deep, so that dropping it
    closes the file.  At the normal end of a process, after all ``atexit`` functions, files are
    flushed, finalisers run and objects of extensions are freed, as if nothing were frozen.

    Nobody can tell what an extension does when it frees an object.  The types of NumPy, pandas' own
    and lxml's elements are known to do nothing else, and are frozen.  Say the same of a class by
    :func:`register_children`.

    A second call freezes what is new.  Threads may run meanwhile; they wait.  Finalisers, signal
    handlers and forked children may call it, too; inside another freeze it does nothing, as a
    finaliser does at the very end.  On
    a Python before 3.12 only ``gc.freeze()`` is called, and a warning says so once.  A freeze of more
    than two seconds shows its progress on standard error, if that is a terminal.

    :param keep: objects to leave as they are, such as a cache that will be cleared.  ``keep`` itself is left, too.
    :param lazy: ``"resolve"`` resolves the lazy imports (Python 3.15) of all loaded modules, because each child
        would import them for itself.  One that fails stays lazy.  ``"leave"`` leaves them lazy.
    :param settle: calls :func:`cowshed.settle` at the end, so that ``fork()`` copies no page tables of what is alive.
        For a process of about a GiB or more.  If it fails, the objects are frozen all the same, and a warning says so.
    :param threads: as of :func:`cowshed.settle`.
    :return: what was frozen, and what was left.
    :raises TypeError: if ``keep`` cannot be iterated over.
    :raises ValueError: if ``lazy`` or ``threads`` has another value.
    """
    if threads not in ("refuse", "stop"):
        raise ValueError(f"threads is 'refuse' or 'stop', not {threads!r}")
    if lazy not in ("resolve", "leave"):
        raise ValueError(f"lazy is 'resolve' or 'leave', not {lazy!r}")
    global _warned
    frozen = _freeze([*keep, keep], lazy == "resolve", settle_threads=threads if settle else None)
    if frozen.why_not and not _warned and not sys.is_finalizing():
        _warned = True
        warnings.warn(f"cowshed.freeze() cannot freeze in place: {frozen.why_not}.  Reading an object still "
                      "writes to its reference count, which copies its page.", RuntimeWarning, stacklevel=2)
    if frozen.why_not_settled:
        warnings.warn(f"cowshed.freeze() cannot settle the heap: {frozen.why_not_settled}", RuntimeWarning,
                      stacklevel=2)
    if frozen.in_place and tracemalloc.is_tracing():
        warnings.warn("tracemalloc is tracing: its own tables are copied by each child; "
                      "stop it before cowshed.freeze()", RuntimeWarning, stacklevel=2)
    return frozen


@dataclasses.dataclass
class Sums:
    """Of all freezes of this process, and of its parents' before it was forked."""

    pid: int = 0  # that froze last
    objects: int = 0
    bytes: int = 0
    pause_saved: float = 0


sums = Sums()


def _freeze(keep: list[object], resolve: bool = True, only_reachable: bool = False, in_place: bool = True,
            settle_threads: Literal["refuse", "stop"] | None = None) -> Frozen:
    """`only_reachable`: what modules and classes refer to.  `settle_threads`: None does not settle."""
    if sys.is_finalizing():
        return Frozen(False, "the process ends", 0, 0, 0, {})
    resolved = 0
    unresolved: dict[str, str] = {}
    if _may_import:
        for user in _AT_THE_FIRST_USE.keys() & sys.modules.keys():
            for name in _AT_THE_FIRST_USE.pop(user, ()):  # a signal handler may freeze meanwhile
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        if resolve and hasattr(types, "LazyImportType"):
            resolved, unresolved = _resolve_lazy_imports()
    begin = time.perf_counter()
    why_not = _cowshed.why_not_in_place() if in_place else "COWSHED=gc"
    objects, size, left = 0, 0, dict[str, int]()
    before = _collect()  # which also empties the free lists, so that the memory is not written to later
    if why_not:
        _freeze_for_the_collector()
    else:
        objects, size, left = _cowshed.freeze(keep, _children_of, only_reachable)
    after = _collect()
    _cowshed.note_pages()
    sums.pid = os.getpid()
    sums.objects += objects
    sums.bytes += size
    sums.pause_saved += before - after
    seconds = time.perf_counter() - begin
    settled, why_not_settled = None, ""
    if settle_threads:
        try:
            settled = _settle(threads=settle_threads)
        except (Error, OSError) as error:
            why_not_settled = str(error)
    return Frozen(not why_not, why_not, objects, size, seconds, left, resolved, unresolved, before, after, settled,
                  why_not_settled)


def _collect() -> float:
    begin = time.perf_counter()
    gc.collect()
    return time.perf_counter() - begin


_is_for_the_collector = False


def _freeze_for_the_collector() -> None:
    global _is_for_the_collector
    gc.freeze()
    if not _is_for_the_collector:
        _is_for_the_collector = True
        # What the collector leaves alone at the end is never flushed or finalised.
        atexit.register(gc.unfreeze)


def is_frozen(obj: object) -> bool:
    """Whether reading ``obj`` writes nothing to it.  True also for ``None`` and small numbers."""
    return _cowshed.is_frozen(obj)


_SECONDS_FOR_A_FINALISER = 1


# A thread that never returns may hold the lock of a file.
def _finalise_what_is_in_use(objects: Iterable[Any]) -> None:
    left = collections.deque(objects)

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                _cowshed.finalise(left.popleft())

    while left:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        before = -1
        while thread.is_alive() and len(left) != before:
            before = len(left)
            thread.join(_SECONDS_FOR_A_FINALISER)


def end_process(status: int | None = None) -> NoReturn:
    """Ends a worker without finalising the objects that it shares.

    A normal exit clears every module, which writes to pages that are shared, and so copies them.
    This does the rest of it, in its order: it waits for threads, runs ``atexit`` functions, takes signal
    handlers away, flushes files, runs finalisers, frees objects of extensions, and calls C's ``exit()``, so that libraries
    flush and end, too.  A file that a daemon thread waits for is given up after a second.  For a
    server's hook that a worker calls last, such as gunicorn's ``worker_exit``.  Where ``freeze()``
    cannot freeze in place, or standard output cannot be flushed, it ends by ``sys.exit()``.

    :param status: the exit status.  ``None``: the status of the ``SystemExit`` that is being handled, whose text it
        prints, or 0.
    """
    if status is None:
        code = getattr(sys.exc_info()[1], "code", None) if isinstance(sys.exc_info()[1], SystemExit) else None
        status = code if isinstance(code, int) else int(code is not None)
        status = status if -1 << 63 <= status < 1 << 63 else -1  # as the interpreter does
        if not isinstance(code, (int, type(None))) and sys.stderr:
            with contextlib.suppress(Exception):  # as the interpreter does
                print(code, file=sys.stderr)
    if _cowshed.why_not_in_place():
        sys.exit(status)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except Exception:
            sys.exit(status)  # the interpreter says why
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            with contextlib.suppress(ValueError):  # in another thread than the first
                signal.signal(number, signal.SIG_DFL)
    # As the interpreter begins to clear modules: a program's own stream may hold a file, and an error a frame.
    vars(sys).update({name: None for name in ("last_exc", "last_type", "last_value", "last_traceback")},
                     **{name: getattr(sys, f"__{name}__", None) for name in ("stdin", "stdout", "stderr")})
    streams = sys.stdout, sys.stderr
    _finalise_what_is_in_use(_cowshed.end())
    for stream in streams:
        with contextlib.suppress(Exception):
            stream.flush()
    _cowshed.exit(status & 0xff)
