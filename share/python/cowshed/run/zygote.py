"""A zygote of `cowshed run --warm`: imports what programs import, freezes it, and forks them in the place of an exec.

warm.py asks it from the programs' starts.  The sitecustomize of an interpreter runs it.  So the fork goes on as a new
interpreter does: with the next sitecustomize, and then with what C's main() executes."""

from __future__ import annotations

import _signal  # type: ignore[import]
import contextlib
import ctypes
import fcntl
import functools
import importlib.machinery
import importlib.util
import linecache
import marshal
import os
import resource
import runpy
import select
import shutil
import signal
import site
import socket
import struct
import sys
import textwrap
import time
import zipimport
from typing import Any, NoReturn

from cowshed import _cowshed, freezing
from cowshed.run import at_fork, folders, taking_over, warm
from cowshed.run.watch import Watch, identity

_PATCH = ("gevent.monkey", "eventlet")  # an import may come too late for them
_MOST_LEFT_OUT = 20
_COUNT_MEMORY = ("Max address space", "Max data size")  # which a zygote has more of


def main(plain: set[str], low: list[int]) -> None:
    """Returns in each program that it forks.

    :param plain: the modules that an interpreter imports at its start.
    :param low: descriptors that are occupied until all is imported."""
    number, path = os.environ.pop("COWSHED_WARM_ZYGOTE").split(":", 1)
    zygote = _Zygote(int(number), path, plain)
    zygote.load()
    for each in low:
        os.close(each)
    zygote.serve()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError
        data += more
    return data


class _Program:
    """One that was forked."""

    def __init__(self, pid: int, connection: socket.socket, stub: int, leads: bool) -> None:
        self.pid = pid
        self.connection = connection
        self.stub = stub  # a pidfd
        self._leads = leads  # a session of its own
        self.is_stopped = False

    def changed(self, state: os.waitid_result) -> None:
        """Has the stub do the same."""
        if state.si_code == os.CLD_STOPPED and state.si_status == signal.SIGTSTP and _is_orphaned(os.getpgid(self.pid)):
            os.kill(self.pid, signal.SIGCONT)
            return
        kind = {os.CLD_EXITED: "E", os.CLD_KILLED: "K", os.CLD_DUMPED: "K", os.CLD_STOPPED: "S"}.get(state.si_code)
        if kind:
            with contextlib.suppress(OSError):
                self.connection.sendall(struct.pack("=4i", ord(kind), state.si_status, 0, 0))
        if self.is_stopped and kind != "S":
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.stub, signal.SIGCONT)
        self.is_stopped = kind == "S"

    def stub_ended(self) -> None:
        """The stub was killed: alone, as its canary says, or with its group."""
        word = b""
        with contextlib.suppress(OSError):
            word = self.connection.recv(64, socket.MSG_DONTWAIT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-self.pid if self._leads and b"k" not in word else self.pid, signal.SIGKILL)


class _Zygote:
    def __init__(self, listener: int, path: str, plain: set[str]) -> None:
        idle, self._folder = os.environ["COWSHED_WARM"].split(":", 1)
        self._idle = float(idle.partition(",")[0])
        self._path = path
        self._plain = plain
        self._listener = socket.socket(fileno=listener)
        self._listener.set_inheritable(False)
        self._state = marshal.loads(marshal.dumps(warm.state_now(getattr(sys.stdout, "write_through"))[2]))
        self._environment = dict(os.environ)
        self._cwd = warm.cwd_now()
        self._read: set[str] = set()  # names of the environment, or * for all of it
        self._reads_cwd = False
        self._importing = ""
        self._watch: Watch | None = None
        self._is_open = True
        self._programs: dict[int, _Program] = {}

    def load(self) -> None:
        by_order = bool(os.environ.get("COWSHED_PRELOAD"))
        names = [] if by_order else self._names()
        self._folders = folders.Folders()
        before = folders.read_before()
        self._watch = watch = Watch(self._refuse)
        watch.instead(type(os.environ), "__getitem__", lambda _, name: self._read.add(os.fsdecode(name)))
        watch.instead(type(os.environ), "__iter__", lambda _: self._read.add("*"))
        for name in "getcwd", "getcwdb":
            watch.instead(os, name, lambda: setattr(self, "_reads_cwd", True))
        streams: list[Any] = [sys.stdin, sys.stdout, sys.stderr]
        for stream in streams:
            watch.instead(stream, "detach", lambda: self._refuse("its import detaches standard files"))
            watch.instead(stream, "reconfigure", functools.partial(self._again, stream))
            watch.instead(stream, "isatty", lambda: by_order or self._refuse("its import asks whether there is a terminal"))
        if not by_order:
            watch.note_looks()
        for self._importing in names:
            watch.import_silently(self._import)
        self._importing = ""
        watch.is_by_order = True
        path = [*sys.path]
        sys.path += [self._cwd] if by_order and self._cwd else []
        at_fork.preload(may_be_main=False)
        sys.path[:] = path
        watch.end()
        for stream in streams:
            del stream.reconfigure, stream.detach, stream.isatty
        self._sets = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()
                      if self._environment.get(name) != value}
        self._unsets = [os.fsencode(name) for name in self._environment if name not in os.environ]
        self._files, self._in_each_fork = {**before, **watch.files}, watch.in_each_fork
        at_fork.freeze_for_workers()
        _give_back_files()
        os.chdir("/")
        try:
            os.rename(f"{self._path}.begins", self._path)
        except FileNotFoundError:  # the command has ended
            os._exit(0)
        self._listener.listen(128)

    def _again(self, stream: Any, **how: Any) -> None:
        if self._watch:
            self._watch.in_each_fork.append(functools.partial(type(stream).reconfigure, stream, **how))

    def _names(self) -> list[str]:
        """What the first program has imported by now, if it imports no more."""
        file = f"{self._path}.names"
        while time.time() - os.stat(file).st_mtime < 1:
            time.sleep(0.1)
        with open(file) as lines:
            names = dict.fromkeys(lines.read().split())
        if sum(name[0] == "-" for name in names) > _MOST_LEFT_OUT:
            self._refuse(f"more than {_MOST_LEFT_OUT} of its modules cannot be imported before")
        if patch := [name for name in _PATCH if name in names]:
            self._refuse(f"{patch[0]} patches modules")
        return [name for name in names if name[0] != "-" and f"-{name}" not in names and _is_installed(name)]

    def _import(self) -> None:
        if self._importing not in sys.modules:
            with contextlib.suppress(Exception, SystemExit):  # the program bears it
                importlib.import_module(self._importing)

    def _refuse(self, why: str) -> NoReturn:
        if self._watch:
            self._watch.stop()
        if self._importing:  # it begins again without that module
            at_fork.log(f"a zygote leaves out {self._importing}: {why}")
            with open(f"{self._path}.names", "a") as names:
                names.write(f"-{self._importing}\n")
            number = self._listener.fileno()
            os.set_inheritable(number, True)
            os.execve(sys.executable, sys.orig_argv,
                      {**self._environment, "COWSHED_WARM_ZYGOTE": f"{number}:{self._path}"})
        with open(f"{self._path}.why", "w") as file:
            file.write(why)
        os.unlink(f"{self._path}.begins")
        os._exit(0)

    def serve(self) -> None:
        """Returns in the programs."""
        self._wakes, wakes = socket.socketpair()
        wakes.setblocking(False)
        self._before = _signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._sockets = self._listener, self._wakes, wakes
        self._kept = {*warm.open_files()} - {0, 1, 2, *(each.fileno() for each in self._sockets)}
        command = os.pidfd_open(int(os.path.basename(self._folder).partition("-")[0]))
        ends = [command]
        with contextlib.suppress(OSError):  # a session of its own has no leader
            ends.append(os.pidfd_open(os.getsid(0)))
        self._events = select.poll()
        for each in self._listener.fileno(), self._wakes.fileno(), *ends:
            self._events.register(each, select.POLLIN)
        while self._is_open or self._programs:
            happened = self._events.poll(None if self._programs else self._idle * 1000)
            hangs_up = False
            if not happened:
                self._close()
            for number, _ in happened:
                if number in ends:
                    self._events.unregister(number)
                    self._close()
                    hangs_up |= number != command
                    if number == command:
                        shutil.rmtree(self._folder, ignore_errors=True)
                elif number == self._wakes.fileno():
                    self._wakes.recv(4096)
                elif number != self._listener.fileno():
                    self._events.unregister(number)
                    next(each for each in self._programs.values() if each.connection.fileno() == number).stub_ended()
                elif self._is_open and self._accept():
                    return
            self._reap()
            if hangs_up:
                self._hang_up()
        os._exit(0)

    def _hang_up(self) -> None:
        """Ends jobs that are stopped when their shell ends.  The kernel does not: their parent, this, is of the session."""
        for group in {os.getpgid(program.pid) for program in self._programs.values() if program.is_stopped}:
            if _is_orphaned(group):
                os.killpg(group, signal.SIGHUP)
                os.killpg(group, signal.SIGCONT)

    def _close(self) -> None:
        """No start finds it any more.  It stays for its programs."""
        if self._is_open:
            self._is_open = False
            self._events.unregister(self._listener)
            self._listener.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _reap(self) -> None:
        flags = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        while self._programs and (state := os.waitid(os.P_ALL, 0, flags)):
            program = self._programs.get(state.si_pid)
            if not program:  # a process that a module has started
                continue
            program.changed(state)
            if state.si_code not in (os.CLD_STOPPED, os.CLD_CONTINUED):
                with contextlib.suppress(KeyError):
                    self._events.unregister(program.connection)
                program.connection.close()
                os.close(program.stub)
                del self._programs[state.si_pid]

    def _accept(self) -> bool:
        """Forks the program of a start.  True in the fork."""
        with contextlib.suppress(OSError, EOFError, ValueError):  # the start has gone
            connection, _ = self._listener.accept()
            connection.settimeout(1)
            pid, uid = warm.peer_of(connection)
            size = int.from_bytes(_receive(connection, 4), "little")
            request = marshal.loads(_receive(connection, size)) if uid == os.geteuid() else {}
            if why := self._why_not(request) if warm.may_read(pid) else "the zygote is in a sandbox that it is not in":
                connection.sendall(why.encode(errors="replace"))
                return False
            connection.settimeout(None)
            stub = os.pidfd_open(pid)
            if (child := os.fork()) == 0:
                self._become(request, connection)
                return True
            self._programs[child] = _Program(child, connection, stub, request["leads"])
            self._events.register(connection, select.POLLRDHUP)
        return False

    def _why_not(self, request: dict[str, Any]) -> str:
        if request.get("state") != self._state:
            return "it is another user's, or another interpreter"
        changed = [path for path, was in self._files.items() if identity(path) != was]
        if changed := changed or self._folders.changed():
            self._close()
            return f"{changed[0]} has changed"
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in request["environment"].items()}
        for name in environment.keys() | self._environment.keys() if "*" in self._read else self._read:
            if environment.get(name) != self._environment.get(name) and name not in ("_", "COWSHED_LOG"):
                return f"its {name} in the environment is another"
        if self._reads_cwd and request["cwd"] != self._cwd:
            return f"its working directory is not {self._cwd}"
        if limits := [name for name in _COUNT_MEMORY if request["soft"][name] != "unlimited"]:
            return f"it has a limit: {limits[0]}"
        if used := self._kept.intersection(request["files"]):
            return f"the zygote keeps its descriptor {min(used)}"
        kind, text = request["program"]
        main = f"{text}.__main__" if hasattr(sys.modules.get(text), "__path__") else text
        if kind == "m" and main in sys.modules:
            return f"{text} is imported already"
        if kind == "f" and _is_no_source(os.path.join(request["cwd"] or "", text)):
            return f"{text} is an archive or bytecode"
        return self._other_modules(_folder_of(kind, text, request["cwd"]))

    def _other_modules(self, folder: str | None) -> str:
        """Why a program whose first folder on sys.path is this one would import other modules than the zygote has."""
        tops = {name.partition(".")[0] for name in sys.modules} - {name.partition(".")[0] for name in self._plain}
        for name in tops if folder != self._cwd and self._cwd not in sys.path else ():
            file = getattr(sys.modules.get(name), "__file__", None) or ""
            if self._cwd in (os.path.dirname(file), os.path.dirname(os.path.dirname(file))):
                return f"it does not import {name} from {self._cwd}"
        for entry in os.listdir(folder) if folder else ():
            name = entry.partition(".")[0]
            path = os.path.join(folder or "", entry)
            file = getattr(sys.modules.get(name), "__file__", None) or ""
            if name in tops and not file.startswith(path) and (
                    os.path.isfile(path) or os.path.exists(f"{path}/__init__.py")):
                return f"it has its own {path}"
        return ""

    def _become(self, request: dict[str, Any], connection: socket.socket) -> None:
        """Goes on as the program."""
        try:
            signal.set_wakeup_fd(-1)
            _signal.pthread_sigmask(signal.SIG_SETMASK, _signal.valid_signals())
            for unused in (*self._sockets, *(program.connection for program in self._programs.values())):
                unused.detach()
            zygote, leads = os.getppid(), request["leads"]
            os.setsid() if leads else os.setpgid(0, request["group"])
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            base = max([2, *self._kept, *request["files"]]) + 1
            number = fcntl.fcntl(connection.detach(), fcntl.F_DUPFD_CLOEXEC, base)
            for each in {*warm.open_files()} - self._kept - {number}:
                os.close(each)
            with socket.socket(fileno=number) as connection:
                connection.sendall(b"+")
                taking_over.take_files(connection, request["files"], base)
                request["environment"].update(self._sets)
                for name in self._unsets:
                    request["environment"].pop(name, None)
                taking_over.take_over(request, self._before)
                _have_main_run(*request["program"])
                for call in self._in_each_fork:
                    call()
                connection.sendall(b"r")
                for message in struct.pack("=4i", ord("P"), os.getpid(), zygote, not leads), b"":
                    if connection.recv(1) != b"g":
                        os._exit(1)
                    connection.sendall(message)
            blocked = [number for number in _signal.valid_signals() if request["blocked"] >> number - 1 & 1]
            _signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        except BaseException as error:
            at_fork.log(f"a fork fails: {type(error).__name__}: {error}")
            os._exit(1)


def _is_installed(name: str) -> bool:
    """Whether a module is Python's own or of an installed package.  A program's own may do anything when it is imported."""
    places = tuple(f"{place}/" for place in (os.path.dirname(os.__file__), *site.getsitepackages(), site.getusersitepackages()))
    with contextlib.suppress(ImportError, ValueError):
        if spec := importlib.util.find_spec(name.partition(".")[0]):
            found: str = spec.origin or [*(spec.submodule_search_locations or ()), ""][0]
            return found.startswith(("built-in", "frozen", *places))
    return False


def _is_orphaned(group: int) -> bool:
    """Whether nobody continues it when it stops: no parent of its processes is of their session and not of the group.

    To the kernel, this process is such a parent.  One that it cannot see may be."""
    own, facts = os.getpid(), {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            facts[int(pid)] = file.read().rpartition(")")[2].split()[:4]
    for state, parent, its_group, session in [*facts.values()]:
        if int(its_group) == group and state != "Z" and int(parent) not in (0, 1, own):
            if int(parent) not in facts or facts[int(parent)][2] != its_group and facts[int(parent)][3] == session:
                return False
    return True


def _give_back_files() -> None:
    """Of libraries, pages that only their import has read.  Whoever needs one maps it again."""
    madvise = ctypes.CDLL(None).madvise
    with open("/proc/self/smaps") as file:
        lines = [line.split() for line in file]
    for at, line in enumerate(lines):
        if len(line) == 6 and line[5].startswith("/") and line[1][1::2] == "-p":
            facts = {name: value for name, value, *_ in lines[at + 1:at + 24]}
            if facts["Anonymous:"] == "0":  # none was written
                begin, end = (int(each, 16) for each in line[0].split("-"))
                madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 4)  # MADV_DONTNEED


def _is_no_source(path: str) -> bool:
    with contextlib.suppress(zipimport.ZipImportError):
        zipimport.zipimporter(path)
        return True
    with open(path, "rb", 0) as file:
        return file.read(2) == importlib.util.MAGIC_NUMBER[:2]


def _folder_of(kind: str, text: str, cwd: str | None) -> str | None:
    """What the program finds in front of its sys.path."""
    if getattr(sys.flags, "safe_path"):
        return None
    return os.path.dirname(os.path.realpath(os.path.join(cwd or "", text))) if kind == "f" else cwd


def _have_main_run(kind: str, text: str) -> None:
    """Has C's main(), which would run a module of ours next, run this program."""
    inserted = None if getattr(sys.flags, "safe_path") else warm.cwd_now()
    folder = _folder_of(kind, text, inserted) if kind != "c" or getattr(sys.flags, "safe_path") else ""
    if kind == "c" and sys.version_info >= (3, 14):
        text = textwrap.dedent(text)
    if kind == "c" and sys.version_info >= (3, 13):  # for tracebacks
        with contextlib.suppress(SyntaxError, ValueError):
            getattr(linecache, "_register_code")(compile(text, "<string>", "exec", dont_inherit=True), text, "<string>")
    if kind == "f":
        text = os.path.join(warm.cwd_now() or "", text)
        names = {"__file__": text, "__loader__": importlib.machinery.SourceFileLoader("__main__", text)}
        vars(sys.modules["__main__"]).update(names, **{} if sys.version_info >= (3, 15) else {"__cached__": None})
    run_module = runpy._run_module_as_main  # type: ignore[attr-defined]
    end = None if _cowshed.why_not_in_place() else _end
    setattr(runpy, run_module.__name__, _cowshed.program(kind, text, folder, inserted, run_module, end))


def _end(how: Any) -> None:
    """Ends a program without copies of what it shares.  Raises SystemExit if the interpreter must do it."""
    try:
        if isinstance(how, SystemExit):
            raise how
    except SystemExit:
        freezing.end_process()
    freezing.end_process(how)
