"""A start of Python below `cowshed run --warm`: a zygote forks its program, where that is the same.

sitecustomize.py runs it before the program, and without the package: it loads only what is built in."""

from __future__ import annotations

import _imp
import _signal  # type: ignore[import]
import _socket
import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # an import of typing takes longer than all of this
    from collections.abc import Callable
    from typing import Any

_ANSWER, _LOAD = 5, 30  # for so many seconds a start waits for a zygote, and for one that imports what --preload names
_MOST_ZYGOTES = 8
_LEARN = 10  # for so many seconds a program's imports are noted
_STATUS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
           "Seccomp", "Seccomp_filters", "THP_enabled", "Mems_allowed")
# What the interpreter or a library reads without Python's os.environ.
_READ_BY_C = ("PYTHON", "COWSHED", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "OMP_", "KMP_", "MKL_", "OPENBLAS_",
              "GOTO_", "OPENSSL_", "SSL_", "NPY_", "NUMBA_", "BLIS_", "CUDA_", "ARROW_", "RAYON_", "POLARS_")
_NOT_FORKED = ("PYTHONTRACEMALLOC", "PYTHONPROFILEIMPORTTIME", "PYTHONDUMPREFS", "COVERAGE_PROCESS_START",
               "COVERAGE_PROCESS_CONFIG", "LISTEN_PID")


class Refused(Exception):
    """The program goes on as if there were no zygote."""


def start(package: str, say: Callable[[str], None]) -> None:
    """Does not return if a zygote has forked this program."""
    try:
        _start(os.path.join(package, "stub"))
    except Refused as why:
        if str(why):
            say(f"starts by itself: {why}")
    except OSError as error:
        say(f"starts by itself: {error}")


def _start(stub: str) -> None:
    filters, _, folder = os.environ["COWSHED_WARM"].partition(":")
    own = os.lstat(folder)
    if own.st_uid != os.geteuid() or own.st_mode & 0o170077 != 0o040000:
        raise Refused(f"{folder} is not this user's alone")
    options, is_unbuffered, kind, text = _program()
    is_unbuffered |= bool(os.environ.get("PYTHONUNBUFFERED"))
    status, limits, state = state_now(is_unbuffered)
    leads = os.getpid() == os.getsid(0)
    if status.get("Seccomp_filters", "") != filters.partition(",")[2]:
        raise Refused("it has a seccomp filter that the command has not")  # of two with as many, each may have another
    if why := _why_not(kind, text, status, leads and _read("stat").rpartition(")")[2].split()[4] != "0"):
        raise Refused(why)
    learns = not os.environ.get("COWSHED_PRELOAD")
    program = kind, os.path.realpath(text) if kind == "f" else (text, cwd_now())
    whose = "its own" if leads else os.getsid(0), program if learns else None
    path = f"{folder}/{_imp.source_hash(2026, marshal.dumps([state, whose])).hex()}"
    files = [number for number in open_files() if os.get_inheritable(number)]
    request = {
        "state": state, "program": (kind, text), "argv": sys.argv, "orig_argv": sys.orig_argv, "files": files,
        "environment": dict(os.environb), "umask": int(status["Umask"], 8), "comm": status["Name"], "leads": leads,
        "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16), "group": os.getpgrp(),
        "soft": {name: soft for name, soft, _ in limits}, "affinity": [*os.sched_getaffinity(0)], "cwd": cwd_now(),
        "is_unbuffered": is_unbuffered, "stub": os.getpid()}
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        _connect(connection, path, learns and (kind, text), lambda listener: _launch(listener, path, options, leads))
        if not may_read(peer_of(connection)[0]):
            raise Refused("it is in a sandbox that the zygote is not in")
        _hand_over(connection, request, stub)
    finally:
        connection.close()


def _program() -> tuple[list[str], bool, str, str]:
    """Options, whether -u is one, and what runs: c TEXT, m MODULE or f FILE."""
    options: list[str] = []
    is_unbuffered = False
    rest = iter(sys.orig_argv[1:])
    for each in rest:
        if each[:1] != "-" or each == "-":
            return options, is_unbuffered, "f", each
        for at, letter in enumerate(each[1:], 2):
            if letter in "cm":
                return options, is_unbuffered, letter, each[at:] or next(rest, "")
            if letter == "W":
                options += ["-W", each[at:] or next(rest, "")]
                break
            if letter not in "BbdOPqRsuv":
                raise Refused(f"it has the option {each}")
            is_unbuffered |= letter == "u"
            options.append(f"-{letter}")
    return options, is_unbuffered, "f", "-"


def _why_not(kind: str, text: str, status: dict[str, str], has_terminal: bool) -> str:
    if (libraries := os.environ.get("LD_PRELOAD")) and not libraries.endswith("/libcowshed_undo.so"):
        return f"LD_PRELOAD is {libraries}"
    if names := [name for name in _NOT_FORKED if name in os.environ]:
        return f"{names[0]} is set"
    if status["TracerPid"] != "0":
        return "it is traced"
    if sys.flags.inspect or sys._xoptions:
        return "it is interactive, or has the option -X"
    if any(_signal.getitimer(each)[0] for each in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)):
        return "it has an alarm"
    if has_terminal:
        return "it leads the session of a terminal"
    if kind == "f" and (text[-4:] == ".pyc" or not os.path.isfile(text) or not os.access(text, os.R_OK)):
        return f"{text} is no source file"
    return ""


def state_now(is_unbuffered: bool) -> tuple[dict[str, str], list[tuple[str, str, str]], list[Any]]:
    """The kernel's lines about this process, its limits (name, soft, hard), and what is the same in its zygote."""
    status = dict(line.split(":\t", 1) for line in _read("status").splitlines() if ":\t" in line)
    lines = _read("limits").splitlines()[1:]
    limits = [(line[:26].strip(), line[26:47].strip(), line[47:68].strip()) for line in lines]
    environment = sorted((name, value) for name, value in os.environ.items()
                         if name.startswith(_READ_BY_C) and name not in ("COWSHED_LOG", "COWSHED_WARM_ZYGOTE"))
    executable = os.stat("/proc/self/exe")
    site = sys.modules.get("site")
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
    return status, limits, [
        sys.executable, sys.version, sys.prefix, sys.exec_prefix, executable[:3], executable.st_mtime_ns, [*sys.flags],
        sys.warnoptions, environment, [status.get(name) for name in _STATUS],
        [(name, hard, name == "Max stack size" and soft) for name, soft, hard in limits],
        [_read(name) for name in ("cgroup", "oom_score_adj", "personality", "coredump_filter", "timerslack_ns")], spaces,
        [*os.stat("/")[:3]], _read_if_there("attr/current"),
        os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority,
        _read_if_there("numa_maps", 64).split()[1:2], is_unbuffered, sys.path,
        [getattr(site, name, None) for name in ("USER_BASE", "USER_SITE", "ENABLE_USER_SITE")]]


def _read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _read(name: str, size: int = 1 << 16) -> str:
    file = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, size).decode(errors="surrogateescape")
    finally:
        os.close(file)


def _read_if_there(name: str, size: int = 1 << 16) -> str:
    try:
        return _read(name, size)
    except OSError:
        return ""


def peer_of(connection: _socket.socket) -> tuple[int, int]:
    """The PID and the user of who listens, or has connected.  Until the zygote listens, the start that has launched it."""
    pair = memoryview(connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)).cast("I")
    return pair[0], pair[1]


def may_read(pid: int) -> bool:
    """Not if this process is in a Landlock domain that the other is not in.  Nothing else shows the domain."""
    try:
        return bool(os.readlink(f"/proc/{pid}/ns/mnt"))
    except OSError:
        return False


def cwd_now() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def open_files() -> list[int]:
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    return [number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")]


def _connect(connection: _socket.socket, path: str, learns: Any, launch: Callable[[_socket.socket], None]) -> None:
    """Connects to the zygote, or has one started: for the next starts, or for this one where --preload names modules.

    Until it has loaded, a zygote has another name."""
    connection.setblocking(False)
    for each, wait in ((path, _ANSWER), (f"{path}.begins", _ANSWER if learns else _LOAD), (path, _ANSWER)):
        connection.settimeout(wait)
        try:
            return connection.connect(each)
        except (BlockingIOError, TimeoutError):
            raise Refused("too many programs start at once")
        except ConnectionRefusedError:
            if _is_bound(each, _sockets()):
                raise Refused("the zygote has not loaded yet")
            os.unlink(each)
            raise Refused("the zygote was killed")
        except FileNotFoundError:
            pass
    if why := _read_text(f"{path}.why"):
        raise Refused(why)
    if learns and not os.path.exists(f"{path}.names"):
        _learn(f"{path}.names", *learns)
        raise Refused("it is the first start")
    sockets, folder = _sockets(), os.path.dirname(path)
    if sum(_is_bound(f"{folder}/{name}", sockets) for name in os.listdir(folder)) >= _MOST_ZYGOTES:
        raise Refused(f"there are {_MOST_ZYGOTES} zygotes already")
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"{path}.begins")
        if not learns:
            listener.listen(128)
        launch(listener)
    finally:
        listener.close()
    if learns:
        raise Refused("it is the second start")
    connection.settimeout(_LOAD)
    connection.connect(f"{path}.begins")


def _sockets() -> str:
    return _read_text("/proc/self/net/unix")


def _is_bound(path: str, sockets: str) -> bool:
    """Whether a zygote lives.  Its socket keeps its first name."""
    return f" {path.removesuffix('.begins')}.begins\n" in sockets


def _learn(path: str, kind: str, text: str) -> None:
    """Notes in a file what this program imports, without its main module, until it changes what imports depend on."""
    until = time.monotonic() + _LEARN
    environment = dict(os.environ)
    first = _path_without_ours()
    main = (text, f"{text}.__main__") if kind == "m" else ()

    class Learner:
        @classmethod
        def find_spec(cls, name: str, path_of_package: object = None, target: object = None) -> None:
            try:
                if name in main:
                    return
                here = _path_without_ours()
                is_same = dict(os.environ) == environment and first in (here, here[1:])  # main() inserts one
                if is_same and time.monotonic() < until:
                    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                    os.write(file, f"{name}\n".encode())
                    os.close(file)
                    return
            except OSError:
                pass
            sys.meta_path.remove(cls)

    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sys.meta_path.insert(0, Learner)


def _path_without_ours() -> list[str]:
    """sitecustomize removes its folder later."""
    return [each for each in sys.path if not each.endswith("/cowshed/run/site")]


def _launch(listener: _socket.socket, path: str, options: list[str], leads: bool) -> None:
    """Starts a zygote, which is no child of this process and has none of its files, but is in its session."""
    if child := os.fork():
        try:
            os.waitpid(child, 0)
        except ChildProcessError:  # where SIGCHLD is ignored
            pass
        return
    try:
        if leads:
            os.setsid()
        if os.fork() == 0:
            if not leads:
                os.setpgid(0, 0)
            number = listener.fileno()
            while number < 3:
                number = os.dup(number)
            null = os.open(os.devnull, os.O_RDWR)
            for each in range(3):
                os.dup2(null, each)
            os.closerange(3, number)
            os.closerange(number + 1, 1 << 20)
            os.set_inheritable(number, True)
            for signal in range(1, _signal.NSIG):
                try:
                    _signal.signal(signal, _signal.SIG_DFL)
                except (OSError, ValueError):
                    pass
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            environment = {**os.environ, "COWSHED_WARM_ZYGOTE": f"{number}:{path}"}
            os.execve(sys.executable, [sys.executable, *options, "-m", "cowshed.run.zygote"], environment)
    finally:
        os._exit(0)


def _hand_over(connection: _socket.socket, request: dict[str, Any], stub: str) -> None:
    """Becomes the stub of the program's fork."""
    data = marshal.dumps(request)
    try:
        connection.sendall(len(data).to_bytes(4, "little") + data)
        answer = connection.recv(4096)
    except (ConnectionError, TimeoutError) as error:
        raise Refused(f"the zygote does not answer: {error}")
    if answer != b"+":
        raise Refused(answer.decode(errors="replace") or "the zygote has ended")
    mask = _signal.pthread_sigmask(_signal.SIG_SETMASK, _signal.valid_signals())
    first = -1
    try:
        files = [os.open(".", os.O_PATH | os.O_CLOEXEC), *request["files"]]
        for at in range(0, len(files), 250):
            passed = b"".join(number.to_bytes(4, sys.byteorder) for number in files[at:at + 250])
            connection.sendmsg([b"f"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
        os.close(files[0])
        if connection.recv(1) != b"r":
            raise Refused("its fork failed")
        first = os.dup(0) if 0 in request["files"] else -1
        connection.setblocking(True)
        os.dup2(connection.fileno(), 0)
        os.set_inheritable(0, True)  # also where it was 0
        os.execve(stub, sys.orig_argv, request["environment"])
    except (Refused, OSError) as error:
        if first >= 0:
            os.dup2(first, 0)
            os.close(first)
        raise Refused(str(error))
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
