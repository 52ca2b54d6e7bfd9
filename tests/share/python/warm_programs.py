"""Programs that warm_test.py starts plain and by a zygote.  Prints, as JSON, what a parent sees of each row of ROWS."""

import json
import os
import pty
import py_compile
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

ROWS = {}
SEEN = """
import os, sys, signal, resource, __main__
def seen(): return [
    sys.argv, sys.orig_argv[1:], sys.path, [*sys.flags], sys.warnoptions, os.getcwd(), sys.executable, sys.prefix,
    sorted(name for name in vars(__main__) if name[:2] == "__"), str(getattr(__main__, "__file__", 0)),
    type(__main__.__loader__).__name__, str(__main__.__loader__)[:40], getattr(__main__.__spec__, "name", 0),
    __main__.__package__, sys._getframe(2).f_back, signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    [str(signal.getsignal(number)) for number in range(1, 32)], sorted((name, os.environ[name]) for name in os.environ if name[:6] not in ('PYTHON', 'COWSHE')),
    [(stream.name, stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.mode,
      type(stream.buffer).__name__) for stream in (sys.stdin, sys.stdout, sys.stderr)], os.umask(0),
    [resource.getrlimit(which) for which in range(16)], os.nice(0), [*os.sched_getaffinity(0)], os.getppid(),
    os.getpgrp() == os.getsid(0), open("/proc/self/comm").read()]
"""
SHOW = SEEN + "\nif __name__ == '__main__': (lambda: print(*seen(), sep='\\n'))()\n"
COUNT = """
import os, signal, sys, time
def on(number, _):
    os.write(1, b"%d\\n" % number)
    if number == signal.SIGRTMAX: sys.exit()
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, on)
print(os.getpid(), flush=True)
while True: time.sleep(0.01)  # Python's handlers do not end a call that begins as the signal comes
"""
WAIT = """
import os, select, sys
print(os.getpid(), flush=True)
while not select.select([0], [], [], 0.01)[0]: pass
sys.exit(5)
"""
ENDS = {
    "nothing": "", "exit": "import sys; sys.exit(3)", "exit by bool": "raise SystemExit(True)", "exit None": "raise SystemExit",
    "exit with text": "import sys; sys.exit('text')", "exit with -1": "import sys; sys.exit(-1)",
    "exit with 259": "import sys; sys.exit(259)", "exit with 2**70": "import sys; sys.exit(2**70)",
    "_exit": "import os; print('lost'); os._exit(4)", "an error": "def f(): 1 / 0\nf()",
    "a syntax error": "x = (", "chained errors": "try: 1/0\nexcept Exception as e: raise ValueError('é') from e",
    "KeyboardInterrupt": "raise KeyboardInterrupt", "quit": "quit(6)", "abort": "import os; os.abort()",
    "atexit": "import atexit; atexit.register(print, 'last'); print('first'); raise SystemExit(2)",
    "an error in atexit": "import atexit; atexit.register(lambda: 1/0)",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('thread'))).start()",
    "no flush": "print('text', end='')", "__del__": "class C:\n def __del__(self): print('gone')\nc = C()",
    "excepthook": "import sys; sys.excepthook = lambda *a: print(a[0], a[2].tb_lineno, a[2].tb_next)\n1/0",
    "a broken excepthook": "import sys; sys.excepthook = 1\n1/0",
    "recursion": "def f(): f()\ntry: f()\nexcept RecursionError as e: print(e)",
    "a warning": "import warnings; warnings.warn('careful', stacklevel=2); warnings.warn('again')",
    "no stream": "import sys; print('text'); sys.stdout = None",
    "a stream that is full": "import sys; sys.stdout = open('/dev/full', 'w'); print('text')",
    "indented": "\n  import os\n  print(__name__)\n", "a future": "from __future__ import annotations\nx: y = 1; print(__annotations__)",
}


def row(function, name=None):
    ROWS[name or function.__name__.strip("_").replace("_", " ")] = function
    return function


def start(*arguments, **options):
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, *arguments], **options)


def hide(pid, name, text):
    return re.sub(rf"(?<!\d){pid}(?!\d)", name, text)


def end(process, data=None):
    try:
        out, error = process.communicate(data, timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return "hangs"
    return process.returncode, *(hide(process.pid, "PID", (text or b"").decode(errors="replace")) for text in (out, error))


def run(*arguments, **options):
    return end(start(*arguments, **options))


def pid_of(process):
    return int(process.stdout.readline() or f"ended: {end(process)}")


def write(name, text):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write(text)
    return name


for name, text in ENDS.items():
    row(lambda text=text: run("-c", text), f"-c: {name}")
    row(lambda text=text: run(write("ends.py", text)), f"a script: {name}")
row(lambda: (run(write("ends.py", "def f():\n o = open('out', 'w'); o.write('text'); 1 / 0\nf()")), open("out").read()),
    "a script: an error with a file")
row(lambda: run(write("ends.py", "print('first')\n1 / 0"), stderr=subprocess.STDOUT), "a script: an error after text")
for name in "an error", "exit with text", "KeyboardInterrupt", "a warning":
    row(lambda text=ENDS[name]: run("-m", write("package/ends.py", text)[:-3].replace("/", ".")), f"-m: {name}")
for arguments in (["-c", SHOW, "a", "-b"], ["-uc", SHOW], ["-O", "-B", "-W", "error", "-c", SHOW], ["-Wignore", "-q", "-c", SHOW],
                  ["-P", "-c", SHOW], ["-sc" + SHOW], ["-OO", "-m", "shows", "x"], ["-m", "shown", "x"], ["-Pm", "json.tool"],
                  ["shows.py", "é", "\udcff"], ["./shows.py"], ["below/../shows.py"], ["link.py"], ["below/shows.py"],
                  ["missing.py"], ["below"], ["-m", "missing"], ["-c"], ["-Z"], ["-X", "dev", "-c", SHOW], ["-I", "shows.py"],
                  ["-E", "-c", "1"], ["-S", "-c", "1"], ["-V"], ["-x", "shows.py"], ["-P", "shows.py"], ["bytecode"]):
    row(lambda arguments=arguments: run(*arguments), "starts as " + " ".join(arguments).replace(SHOW, "...").replace("\udcff", "?"))


@row
def a_program_on_standard_input():
    return end(start("-"), b"print(__name__)"), end(start(), b"print(__name__)")


@row
def argv0():
    os.symlink(os.path.realpath(sys.executable), "another name")
    return [end(subprocess.Popen(["./another name", "-c", SHOW], stdin=-3, stdout=-1, stderr=-1)) for _ in range(2)]


row(lambda: run("-c", SHOW, env={**os.environb, b"\xff\xfe": b"\xfd\n", b"EMPTY": b"", b"A": b"=c"}),
    "an environment with odd bytes")


@row
def another_parent():
    shell = ["sh", "-c", f"echo $$; {sys.executable} -c 'import os; print(os.getppid())'; :"]
    return len(set(subprocess.run(shell, capture_output=True, text=True).stdout.split()))


def set_limits():
    resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))


for name, act in {
        "umask": lambda: os.umask(0o27), "limits": set_limits, "nice": lambda: os.nice(3),
        "affinity": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        "ignored signals": lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)],
        "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN}),
        "a group": lambda: os.setpgid(0, 0), "a session": os.setsid,
        "a limit on memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32)),
        "a hard limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        "another user": lambda: os.geteuid() or os.setuid(65534),
        "another root": lambda: os.geteuid() or (os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else None)}.items():
    row(lambda act=act: run("-c", SHOW, preexec_fn=act), f"takes over: {name}")


def with_priority(number):
    def act():
        if os.geteuid() == 0:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(number))
    return run("-c", "import os; print(os.sched_getscheduler(0), os.sched_getparam(0))", preexec_fn=act)


row(lambda: [with_priority(number) for number in (1, 2)], "a realtime priority")


def forbid(number):
    """By a seccomp filter, with EPERM."""
    import ctypes  # which keeps a file open
    keep = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, 0x50001, 6, 0, 0, 0x7fff0000)
    program = struct.pack("HxxxxxxP", 4, ctypes.cast(keep, ctypes.c_void_p).value)
    renounce()
    ctypes.CDLL(None).prctl(22, 2, program)  # PR_SET_SECCOMP


def restrict():
    """Takes away by Landlock what makes folders."""
    import ctypes
    ruleset = ctypes.CDLL(None).syscall(444, struct.pack("Q", 1 << 7), ctypes.c_long(8), 0)
    renounce()
    ctypes.CDLL(None).syscall(446, ruleset, 0)


def renounce():
    import ctypes
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def makes_folder(sandbox, outside):
    """Starts of the same session, outside of the sandbox and in it."""
    text = "import os\ntry: os.mkdir('made', dir_fd=os.open('.', 0))\nexcept OSError as e: print(e)\nelse: os.rmdir('made')"
    return [run("-c", text, preexec_fn=act) for act in (outside, sandbox, outside)]


row(lambda: makes_folder(restrict, renounce), "in a sandbox of Landlock")
row(lambda: makes_folder(lambda: [forbid(999), forbid({"x86_64": 258, "aarch64": 34}[os.uname().machine])],
                         lambda: forbid(999)), "in a sandbox of seccomp")


def imports(folders, text="import who; print(who.who)", **options):
    path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    return run("-c", text, env={**os.environ, "PYTHONPATH": path, **options.pop("environment", {})}, **options)


def user_site(home):
    return f"{home}/.local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


@row
def imports_from_a_relative_path():
    write("a/lib/who.py", "who = 1"), write("b/lib/who.py", "who = 2")
    return [imports(["lib"], cwd=folder) for folder in "aba"]


@row
def imports_from_the_home():
    write(f"{user_site('a')}/who.py", "who = 1"), write(f"{user_site('b')}/who.py", "who = 2")
    return [imports([], "import who, site; print(who.who, site.USER_BASE)", environment={"HOME": os.path.abspath(home)})
            for home in "aba"]


@row
def imports_from_a_folder_that_is_made_later():
    path = os.path.abspath("late")
    return imports([path]), write("late/who.py", "who = 1"), imports([path]), write("late/json.py", "who = 2"), imports(
        [path], "import json; print(json.who)")


@row
def imports_from_another_archive():
    seen = []
    for number in range(2):
        with zipfile.ZipFile("who.zip", "w") as archive:
            archive.writestr("pad.py", "#" * 1000 * number), archive.writestr("who.py", f"who = {number}")
        seen.append(imports([os.path.abspath("who.zip")]))
    return seen


@row
def imports_from_where_another_pth_file_says():
    write("c/who.py", "who = 1"), write("d/who.py", "who = 2")
    environment = {"HOME": os.path.abspath("home")}
    seen = [write(f"{user_site('home')}/empty.pth", ""), imports([], environment=environment)]
    for text in os.path.abspath("c"), os.path.abspath("d"), "import sys; sys.who = 3", "import sys; sys.who = 4":
        write(f"{user_site('home')}/who.pth", text)
        seen.append(imports([], "import sys, who; print(getattr(sys, 'who', who.who))", environment=environment, cwd="c"))
    return seen


@row
def a_pending_signal():
    def act():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
    return run("-c", "import signal; signal.signal(10, lambda *a: print('got')); signal.pthread_sigmask(signal.SIG_SETMASK, [])",
               preexec_fn=act)


row(lambda: run("-c", "import time; time.sleep(9)", preexec_fn=lambda: signal.setitimer(signal.ITIMER_REAL, 0.5)),
    "an alarm")


@row
def a_removed_working_directory():
    os.mkdir("removed")
    return run("-c", "import os, sys; print(sys.path[0]); os.getcwd()", cwd="removed", preexec_fn=lambda: os.rmdir(os.getcwd()))


def open_files(text, **options):
    return run("-c", "import os, fcntl\nprint(*[(n, os.readlink(f'/proc/self/fd/{n}').partition(':')[0], fcntl.fcntl(int(n), 1),"
               "fcntl.fcntl(int(n), 3)) for n in sorted(os.listdir('/proc/self/fd')) if os.path.exists(f'/proc/self/fd/{n}')"
               "and int(n) < 4000])\n" + text, **options)


@row
def a_thousand_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    files = [os.open(os.devnull, os.O_RDWR) for _ in range(1000)]
    os.dup2(files[0], 2000)
    try:
        return open_files(f"os.write({files[500]}, b'x')", pass_fds=[*files, 2000])
    finally:
        os.close(2000)
        for each in files:
            os.close(each)


for numbers in [0], [1], [2], [0, 1, 2]:
    row(lambda numbers=numbers: open_files(
        "import sys\nfile = open('closed', 'w')\nprint(sys.stdin, sys.stdout and 1, sys.stderr and 2, file.fileno(), file=file)",
        preexec_fn=lambda: [os.close(number) for number in numbers]) + (open("closed").read(),), f"closed descriptors {numbers}")


@row
def standard_files_that_are_files():
    with open(write("input", "one\ntwo\n")) as input, open("output", "w") as output:
        input.readline()
        os.lseek(input.fileno(), 4, 0)
        done = run("-c", "import sys; print(sys.stdin.read(), sys.stdin.tell(), sys.stdout.tell(), sys.stdout.seekable())",
                   stdin=input, stdout=output)
    return done, open("output").read()


@row
def a_closed_reader():
    return [run("-c", f"import signal, os\n{act}\nfor _ in range(99999): print('text')", stdout=writer) for act in
            ("pass", "signal.signal(signal.SIGPIPE, signal.SIG_DFL)") for writer in [closed_pipe()]]


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def sender(how, process, pid):
    """What sends a signal to the PID that this process knows, to the one that the program knows, or to its group."""
    return lambda number: {"pid": os.kill, "itself": os.kill, "group": os.killpg}[how](
        pid if how == "itself" else process.pid, number)


def handle_all(how, new):
    process = start("-c", COUNT, preexec_fn=new)
    send = sender(how, process, pid_of(process))
    lines = []
    for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGRTMAX}):
        send(number)
        lines.append(int(process.stdout.readline()))
    send(signal.SIGRTMAX)
    return lines, end(process)


def end_by(how, new, number):
    process = start("-c", WAIT, preexec_fn=new)
    sender(how, process, pid_of(process))(number)
    process.wait(20)
    return end(process)[:2]


NEW = {None: "", os.setsid: " of a session", os.setpgrp: " of its own"}
for how, new in ("pid", None), ("itself", None), ("pid", os.setsid), ("group", os.setsid), ("group", os.setpgrp):
    row(lambda how=how, new=new: handle_all(how, new), f"handles each signal to {how}{NEW[new]}, once")
    if new or how == "itself":
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGXCPU, signal.SIGKILL,
                       signal.SIGABRT, signal.SIGRTMIN):
            row(lambda how=how, new=new, number=number: end_by(how, new, number),
                f"ends by signal {number:d} to {how}{NEW[new]}")


def stops(number, to_itself):
    process = start("-c", WAIT)
    pid = pid_of(process)
    os.kill(pid if to_itself else process.pid, number)
    states = [os.waitid(os.P_PID, process.pid, os.WSTOPPED)[3:]]
    states.append(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0])
    os.kill(pid if to_itself else process.pid, signal.SIGCONT)
    states.append(os.waitid(os.P_PID, process.pid, os.WCONTINUED)[3:])
    return states, end(process)[0]


for number in signal.SIGTSTP, signal.SIGTTIN, signal.SIGSTOP:
    for to_itself in False, True:
        if to_itself or number != signal.SIGSTOP:  # which stops the stub alone, as the docs say
            row(lambda *_, number=number, to_itself=to_itself: stops(number, to_itself),
                f"stops by {number.name} to {'itself' if to_itself else 'pid'}, and goes on")


@row
def kill_while_it_is_stopped():
    process = start("-c", WAIT)
    pid = pid_of(process)
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    os.kill(pid, signal.SIGKILL)
    return end(process)


def after_a_kill(seconds, kill, **options):
    """What a program has printed that is killed while it has a child, and how long its output was open."""
    process = start("-c", f"import subprocess, sys, os\nchild = subprocess.Popen(['sleep', '{seconds}'])\n"
                    "print(os.getpid(), flush=True)\nsys.stdin.read()", **options)
    pid_of(process)
    begun = time.monotonic()
    kill(process.pid, signal.SIGKILL)
    process.wait()
    return process.stdout.read(), time.monotonic() - begun


@row
def a_killed_program_dies_and_its_children_live():
    shown, seconds = after_a_kill(1, os.kill)
    return shown == b"" and 0.2 < seconds < 5


@row
def a_killed_group_dies_with_its_children():
    shown, seconds = after_a_kill(19, os.killpg, start_new_session=True)
    return shown == b"" and seconds < 5


def until_closed(text):
    process = start("-c", text)
    return process.wait(), process.stdout.read()


row(lambda: until_closed("""
import os, sys, time
if os.fork(): os._exit(3)
os.setsid()
if os.fork(): os._exit(0)
time.sleep(0.2)
print(os.getsid(0) != os.getpid(), flush=True)
"""), "a daemon")
row(lambda: until_closed("import subprocess, os; subprocess.Popen('sleep 0.2; echo late', shell=True); os._exit(9)"),
    "children that outlive")
for name, text in {
        "setsid of its own": "import os; os.setsid(); print(os.getsid(0) == os.getpid() == os.getpgrp())",
        "forks and pools": "import multiprocessing as m, os\nif __name__ == '__main__':\n"
                           " for how in 'fork', 'forkserver', 'spawn':\n  with m.get_context(how).Pool(2) as p: print(p.map(abs, [-1, 2]))\n"
                           " print(m.parent_process(), m.current_process().name)",
        "subprocesses and waits": "import subprocess, os\nprint(subprocess.run(['sh', '-c', 'exit 3']).returncode)\n"
                                  "try: os.wait()\nexcept ChildProcessError as e: print(e)",
        "exec of another program": "import os; os.execvp('sh', ['sh', '-c', 'echo $0; exit 8'])",
        "an exec of itself": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(4)'])"}.items():
    row(lambda text=text: run("-c", text), name)


@row
def different_random_numbers():
    drawn = {run("-c", "import random, os, multiprocessing\nprint(random.random(), multiprocessing.current_process().authkey)")[1]
             for _ in range(3)}
    return len(drawn)


def in_terminal(command, *acts):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "--norc", "-c", command])
    shown = b""

    def read(until):
        nonlocal shown
        deadline = time.monotonic() + 20
        while until not in shown and time.monotonic() < deadline and select.select([terminal], [], [], 20)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
    for until, act in acts:
        read(until)
        time.sleep(0.05)
        act(terminal, pid) if callable(act) else os.write(terminal, act)
    read(b"until all have closed it")
    os.close(terminal)
    return re.sub(r"\b\d{3,}\b", "N", shown.decode()), os.waitpid(pid, 0)[1]


PYTHON = f"{sys.executable} -c"
LOOP = "try:\n print(1, flush=True)\n while 1: time.sleep(9)\nexcept KeyboardInterrupt: print(2)"
for name, text, acts in (
        ("Ctrl-C", f"set -m; {PYTHON} 'import time\n{LOOP}'; echo $? the end", [(b"1\r\n", b"\x03")]),
        ("Ctrl-C without job control", f"{PYTHON} 'import time\n{LOOP}'; echo $? the end", [(b"1\r\n", b"\x03")]),
        ("an unhandled Ctrl-C", f"set -m; {PYTHON} 'print(1, flush=True); import time; time.sleep(9)'; echo $? the end", [(b"1\r\n", b"\x03")]),
        ("Ctrl-\\", f"ulimit -c 0; set -m; {PYTHON} 'print(1, flush=True); import time; time.sleep(9)'; echo $? the end", [(b"1\r\n", b"\x1c")]),
        ("Ctrl-Z", f"set -m; {PYTHON} 'print(1, flush=True)\nprint(input(2))'; echo $?; fg >/dev/null; echo $? the end",
         [(b"2", b"\x1a"), (b"148", b"text\n")]),
        ("input", f"set -m; {PYTHON} 'print(input(1))'; echo $? the end", [(b"1", b"text\n")]),
        ("input in the background", f"set -m; {PYTHON} 'print(input(1))' & wait; jobs; fg >/dev/null; echo $? the end", [(b"Stopped", b"text\n")]),
        ("its facts", f"set -m; stty rows 33 cols 77; {PYTHON} 'import os, sys; print(os.get_terminal_size(), os.isatty(0), "
         "os.tcgetpgrp(0) == os.getpgrp(), os.ttyname(1) == os.ttyname(0), open(\"/dev/tty\").isatty())'; echo $? the end", []),
        ("a new size", f"set -m; {PYTHON} 'import os, signal, time\nsignal.signal(signal.SIGWINCH, lambda *a: print(os.get_terminal_size()))\n"
         "print(1, flush=True); time.sleep(0.5)'; echo $? the end", [(b"1\r\n", lambda terminal, _: set_size(terminal))]),
        ("a hang-up", f"trap '' HUP; set -m; {PYTHON} 'import time\nprint(1, flush=True); time.sleep(9)'; echo $? >hung; echo the end",
         [(b"1\r\n", lambda terminal, pid: os.kill(pid, signal.SIGKILL))])):
    row(lambda text=text, acts=acts: in_terminal(text, *acts), f"in a terminal: {name}")


def kill_shell():
    text = ("import signal, sys, time; signal.signal(1, lambda *_: (open(\"hung\", \"w\"), sys.exit())); print(1, flush=True)\n"
            "while 1: time.sleep(0.01)")
    shown = in_terminal(f"set -m; {PYTHON} '{text}'; echo it has $?; read line", (b"1\r\n", b"\x1a"),
                        (b"148", lambda _, pid: os.kill(pid, signal.SIGKILL)))
    for _ in range(100):
        if not os.path.exists("hung"):
            time.sleep(0.02)
    return shown, os.path.exists("hung")


row(kill_shell, "in a terminal: a shell that is killed")
row(lambda: end(subprocess.Popen(["sh", "-c", f"{PYTHON} 'import os; os.kill(os.getpid(), 20); print(1)'; :"],
                                 stdout=subprocess.PIPE, start_new_session=True)), "stops by SIGTSTP, where nobody continues it")


def set_size(terminal):
    import fcntl
    import termios
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 44, 88, 0, 0))


def main():
    os.chdir(tempfile.mkdtemp())
    for name in [*os.environ]:
        if name not in ("PATH", "HOME", "LANG") and not name.startswith(("PYTHON", "COWSHED")):
            del os.environ[name]
    write("shows.py", SHOW)
    write("below/shows.py", SHOW)
    write("shown/__init__.py", SEEN)
    write("shown/__main__.py", "from shown import *\n(lambda: print(*seen(), sep='\\n'))()")
    write("below/__main__.py", "print(__name__, __file__)")
    os.symlink("below/shows.py", "link.py")
    py_compile.compile("shows.py", "bytecode")
    here = os.getcwd()
    wanted = sys.argv[1:]
    for name, function in ROWS.items():
        if not wanted or any(each in name for each in wanted):
            try:
                result = function()
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            text = hide(os.getpid(), "PARENT", repr(result).replace(here, "HERE"))
            print(json.dumps([name, text]), flush=True)
    os.chdir("/")
    shutil.rmtree(here)


if __name__ == "__main__":
    main()
