"""Before a fork, below `cowshed run` or by a server's hook: loads what is to be loaded first, and freezes."""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import sys
import types
from collections.abc import Callable

from cowshed import _cowshed, contexts, freezing
from cowshed.run import ends
from cowshed.run.fork_purpose import Purpose, purpose_of

_ABOVE = int(os.environ.get("COWSHED_ABOVE", 64 << 20))  # the program may have cleared it
_EVERY_FORK = os.environ.get("COWSHED_EVERY_FORK") == "1"
_above_at_first = _ABOVE
_MODE = os.environ.get("COWSHED", "in-place")
_SETTLES = os.environ.get("COWSHED_SETTLE") == "1"

standard_error = 0, 0, 0
"""What it was when the program began: no line goes into another file that has its descriptor."""
with contextlib.suppress(OSError):
    _now = os.fstat(2)
    standard_error = _now.st_dev, _now.st_ino, stat.S_IFMT(_now.st_mode)

_to_preload = [name for name in os.environ.get("COWSHED_PRELOAD", "").split(",") if name]
_is_busy = False
_is_frozen = False
_held = 0  # bytes of this process's own, when it was looked at
_reachable = 0, 0  # bytes that modules refer to, at the last freeze: frozen, and not
_lost = 0  # bytes that were frozen, and that no module refers to any more: they are never freed


def watch_c_forks(prepare: Callable[[], object] = lambda: before_fork(None)) -> None:
    """Of a server that forks without telling Python."""
    def before_c_fork() -> None:
        try:
            prepare()
        except Exception as error:
            log(f"stays as it is: {type(error).__name__}: {error}")

    _cowshed.call_before_c_forks(before_c_fork)


def freeze_for_workers() -> bool:
    """For a server's own hook: at its first call, however small the process is.  False: COWSHED=off."""
    global _above_at_first
    if _MODE == "off":
        return False
    _above_at_first = 0
    if "prometheus_client" in sys.modules:
        importlib.import_module("cowshed.prometheus")
    before_fork(None)
    return True


def before_fork(caller: types.FrameType | None) -> None:
    """`caller` forks next."""
    global _is_busy
    if _is_busy or caller and purpose_of(caller) is not Purpose.WORKER:
        return
    _is_busy = True
    try:
        preload()
        if _is_worth_it():
            _freeze()
        if _is_frozen and caller:
            ends.shorten(caller)
    finally:
        _is_busy = False


def is_frozen() -> bool:
    return _is_frozen


def log(text: str) -> None:
    where = os.environ.get("COWSHED_LOG")
    if where != "none":
        line = f"cowshed: PID {os.getpid()}: {text}\n".encode(errors="replace")
        _cowshed.write_line(line, os.fsencode(where or ""), *standard_error)


def preload(may_be_main: bool = True) -> None:
    while _to_preload:
        name, _, function = _to_preload[0].partition(":")
        try:
            if not may_be_main or name in sys.modules or not contexts.runs_as_main(name):
                module = importlib.import_module(name)
            else:
                module = sys.modules["__main__"]
            if function:
                getattr(module, function)()
        except (Exception, SystemExit) as error:
            if freezing.is_by_handler(error):
                raise
            log(f"cannot preload {name}: {type(error).__name__}: {error}")
        del _to_preload[0]


def _own_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        resident, shared = map(int, statm.read().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _is_worth_it() -> bool:
    """Whether so much is new.  What only takes the place of frozen data is not.

    Data that was replaced once will be replaced again.  What this freezes is then lost as well.  So it freezes only
    if what was lost before is a quarter of that or less: all losses stay near the size of one version."""
    global _held, _lost
    held = _own_bytes()
    if held - _held < (_ABOVE if _is_frozen else _above_at_first) and not (_is_frozen and _EVERY_FORK):
        return False
    _held = held
    if not _is_frozen or _EVERY_FORK or not _reachable[0]:
        return True
    frozen, others = _cowshed.reachable_bytes(freezing._children_of)
    lost = _lost + max(0, _reachable[0] - frozen)
    if frozen + others - sum(_reachable) < _ABOVE or 4 * lost > others:
        return False
    _lost = lost
    return True


def _freeze() -> None:
    global _is_frozen, _held, _reachable
    frozen = freezing._freeze([], only_reachable=_is_frozen and not _EVERY_FORK, in_place=_MODE == "in-place",
                              settle_threads="refuse" if _SETTLES else None)
    _is_frozen = True
    if frozen.in_place and not _EVERY_FORK:
        _reachable = _cowshed.reachable_bytes(freezing._children_of)
    _held = _own_bytes()
    if frozen.objects or not frozen.in_place:
        log(frozen._summary())
    if settled := frozen.settled or frozen.why_not_settled:
        log(str(settled))
