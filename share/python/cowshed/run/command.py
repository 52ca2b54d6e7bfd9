"""The command `cowshed run`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import shutil
import signal
import stat
import struct
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_SITE = os.path.join(_FOLDER, "site")
_UNDO = os.path.join(os.path.dirname(_FOLDER), "libcowshed_undo.so")
_HUGE_PAGES = (("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432", ":"),
               ("MALLOC_CONF", "thp:always", ","), ("MIMALLOC_ALLOW_LARGE_OS_PAGES", "1", ""),
               ("PYTHONMALLOC", "malloc", ""))
_MODES = ("in-place", "gc", "off")
_DESCRIPTION = """\
Runs COMMAND, and freezes each Python program in it before its first fork, so
that the workers share the objects without copies (cowshed.freeze()).  Nothing
is edited.  It works through the environment, also in virtual environments and
in what COMMAND starts: gunicorn, celery worker, python app.py, a shell script.
Workers that multiprocessing spawns are forked from one frozen process, where
they cannot notice.  --warm does the same for programs of Python that COMMAND
executes again and again.  A process that is small, that only becomes a daemon
or whose child only executes another program stays as it is.

Copies of reference counts are undone in Python 3.11 and older, which no freeze
helps, and with --undo in any program."""
_EPILOG = """\
environment:
  COWSHED=in-place   The default.
  COWSHED=gc         Only gc.freeze(): the collector leaves the objects alone.
  COWSHED=off        Nothing is frozen.
  COWSHED_SETTLE=1   As --settle.
  COWSHED_UNDO=PART  As --undo, with this part of a CPU at most (0.01).
  COWSHED_LOG=FILE   Where the line about each freeze, or why there is none, goes
                     instead of standard error; none: nowhere.

A Python with -I, -E or -S does not load sitecustomize, and stays as it is.

examples:
  cowshed run -- gunicorn --preload -w 16 shop:app  share what gunicorn loads
  cowshed run --undo -- ./server.pl                 in any language, undo copies
  cowshed run --preload refdata -- dask worker tcp://scheduler:8786
                                                    load a module before forks
  COWSHED=off cowshed run -- python3 app.py         nothing of this, to compare

Exit status: that of COMMAND; 2: bad usage; 126, 127: COMMAND cannot be run."""


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:iB|B)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"takes a size such as 64MiB, not {text!r}")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2] or " "))


def _prctl(option: int, on: bool) -> bool:
    return bool(ctypes.CDLL(None).prctl(option, int(on), 0, 0, 0) == 0)


def _merge() -> None:
    if not _prctl(67, True):  # PR_SET_MEMORY_MERGE
        print("cowshed: --merge takes Linux 6.4 with KSM; without it", file=sys.stderr)
        return
    with open("/sys/kernel/mm/ksm/run") as file:
        if file.read() != "1\n":
            print("cowshed: KSM does not run: root starts it by echo 1 >/sys/kernel/mm/ksm/run", file=sys.stderr)


def _use_huge_pages(wanted: bool) -> None:
    """Sets what each malloc reads, and what the kernel hands on to programs. What the caller sets comes last, and holds."""
    _prctl(41, not wanted)  # PR_SET_THP_DISABLE
    if not wanted:
        return
    for name, ours, separator in _HUGE_PAGES:
        _prepend(name, ours, separator)


def _prepend(name: str, ours: str, separator: str) -> None:
    theirs = os.environ.get(name)
    os.environ[name] = ours if not theirs else ours + separator + theirs if separator else theirs


def _why_not_undone(program: str) -> str:
    """Why the loader will not load our library."""
    if not os.path.exists(_UNDO) or re.search("[ :]", _UNDO):
        return f"there is no {_UNDO}, or its path has a space or a colon"
    if os.stat(program).st_mode & (stat.S_ISUID | stat.S_ISGID):
        return f"{program} is a setuid program"
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF":
            return ""  # a script
        if header[4] != 2:
            return f"{program} is a 32-bit program"
        begin, size, count = struct.unpack_from("Q", header, 32)[0], *struct.unpack_from("HH", header, 54)
        file.seek(begin)
        parts = file.read(size * count)
    is_dynamic = any(parts[at] == 3 for at in range(0, len(parts), size))  # PT_INTERP
    return "" if is_dynamic else f"{program} is linked statically"


def _undo(program: str | None) -> None:
    """Has what COMMAND starts load our library. One that the loader refuses for COMMAND may be right for those."""
    try:
        why_not = _why_not_undone(program) if program else ""
    except OSError:
        why_not = ""
    if why_not:
        from cowshed.run import at_fork

        at_fork.log(f"undoes no copies: {why_not}")
        return
    if _UNDO not in re.split("[ :]", os.environ.get("LD_PRELOAD", "")):
        _prepend("LD_PRELOAD", _UNDO, ":")
        _prepend("ASAN_OPTIONS", "verify_asan_link_order=0", ":")  # or AddressSanitizer ends the program


def _private_folder() -> str:
    """A folder for the zygotes of COMMAND.  It begins with the PID, which COMMAND will have."""
    def name(pid: str) -> str:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            return f"{pid}-{file.read().rpartition(')')[2].split()[19]}"
        return ""

    base = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"cowshed-{os.geteuid()}")
    os.makedirs(base, 0o700, exist_ok=True)
    if os.lstat(base).st_uid != os.geteuid() or os.lstat(base).st_mode & 0o170077 != stat.S_IFDIR:
        sys.exit(f"cowshed: {base} is not this user's alone")
    for each in os.listdir(base):
        if name(each.partition("-")[0]) != each:  # that command has ended
            shutil.rmtree(os.path.join(base, each), ignore_errors=True)
    folder = os.path.join(base, name(str(os.getpid())))
    os.makedirs(folder, 0o700, exist_ok=True)
    return folder


def _seccomp_filters() -> str:
    """How many COMMAND begins with."""
    with open("/proc/self/status") as file:
        return "".join(re.findall(r"(?m)^Seccomp_filters:\t(\d+)$", file.read()))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="cowshed run", description=_DESCRIPTION, epilog=_EPILOG,
                                     usage="cowshed run [OPTION...] [--] COMMAND [ARGUMENT...]", allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--above", metavar="SIZE", type=_bytes, default="64MiB",
                        help="freeze a process that holds more than this, and again when as much is new (64MiB)")
    parser.add_argument("--preload", metavar="MODULE[:FUNCTION],...",
                        help="import these, and call the functions, before the first fork or spawn")
    parser.add_argument("--warm", action="store_true",
                        help="fork programs of Python that start again from a process that has imported what they do, or "
                             "--preload, instead of an exec")
    parser.add_argument("--warm-idle", metavar="SECONDS", type=float, default=300.0,
                        help="end that process when no program has started for so long (300)")
    parser.add_argument("--every-fork", action="store_true",
                        help="freeze all that is new before each fork; a parent that replaces its data then grows")
    parser.add_argument("--settle", action="store_true",
                        help="after a freeze, make the forks of a large process quick (cowshed.settle())")
    parser.add_argument("--huge-pages", action=argparse.BooleanOptionalAction,
                        help="hold the heaps of glibc, jemalloc, mimalloc and Python in 2 MiB pages, for quick forks; or "
                             "in none, also where the system gives them to all")
    parser.add_argument("--undo", action=argparse.BooleanOptionalAction,
                        help="give back copies that changed nothing, in any program (Python before 3.12: the default)")
    parser.add_argument("--merge", action="store_true",
                        help="let KSM merge equal pages of COMMAND's processes, in any language: Linux 6.4")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("there is no COMMAND")
    mode = os.environ.get("COWSHED", "in-place")
    if mode not in _MODES:
        parser.error(f"COWSHED is {', '.join(_MODES[:-1])} or {_MODES[-1]}, not {mode!r}")
    if options.huge_pages is not None:
        _use_huge_pages(options.huge_pages)
    if options.merge:
        _merge()
    if mode != "off":
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = _SITE + (os.pathsep + path if path else "")
        os.environ["COWSHED_ABOVE"] = str(options.above)
        for name, value in (("COWSHED_PRELOAD", options.preload), ("COWSHED_EVERY_FORK", "1" * options.every_fork)):
            os.environ.pop(name, None)
            if value:
                os.environ[name] = value
        os.environ.pop("COWSHED_WARM", None)
        if options.warm:
            os.environ["COWSHED_WARM"] = f"{options.warm_idle},{_seccomp_filters()}:{_private_folder()}"
        if options.settle:
            os.environ["COWSHED_SETTLE"] = "1"
        if options.undo:
            os.environ.setdefault("COWSHED_UNDO", "0.01")
            os.environ.pop("COWSHED_SETTLE", None)  # it settles, too, and more than Python's heap
        by_default = sys.version_info < (3, 12) and mode == "in-place" and os.environ.get("COWSHED_SETTLE") != "1"
        if options.undo is not False and (by_default or "COWSHED_UNDO" in os.environ):
            _undo(shutil.which(command[0]))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # this Python ignores them, and COMMAND would, too
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cowshed: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
